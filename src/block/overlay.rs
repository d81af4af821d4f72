//! Staged writes over a device that is never written: copy on write in pages, with savepoints and a spill file.
//!
//! A page holds the bytes as they will be. Pages beyond the memory bound go to an unnamed temporary file in
//! `spill_dir`, so that a conversion of a large disk does not take the host's memory.

use super::{BlockDevice, Disk, Geometry, WritableDevice};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmrescue_base::error::{Error, Layer, Result};

/// Bytes of one page: small enough that a changed sector does not carry much along.
pub const PAGE_BYTES: u64 = 4096;

/// How much an overlay may keep in memory, and where the rest goes.
#[derive(Debug, Clone)]
pub struct OverlayOptions {
    /// Bytes of pages kept in memory before they spill.
    pub memory_bytes: usize,
    /// Folder of the spill file; without one, the overlay refuses to grow beyond its memory.
    pub spill_dir: Option<PathBuf>,
}

impl Default for OverlayOptions {
    fn default() -> OverlayOptions {
        OverlayOptions { memory_bytes: vmrescue_base::limits::OVERLAY_MEMORY_BYTES, spill_dir: None }
    }
}

/// A state to which [`Overlay::rollback`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SavepointId(usize);

#[derive(Clone)]
enum Page {
    Memory(Arc<[u8]>),
    Spilled(u64),
}

/// What a page was before a savepoint's first write to it; `None`: not staged.
struct Savepoint {
    length: u64,
    base_visible: u64,
    before: BTreeMap<u64, Option<Page>>,
}

struct State {
    length: u64,
    /// Bytes of the base that still show through; less than the base's length after a cut.
    base_visible: u64,
    pages: BTreeMap<u64, Page>,
    memory: usize,
    spill: Option<(File, u64)>,
    savepoints: Vec<Savepoint>,
}

/// Writes staged over a base that stays as it is.
pub struct Overlay {
    base: Disk,
    options: OverlayOptions,
    state: Mutex<State>,
}

impl Overlay {
    /// An overlay without any change yet.
    ///
    /// # Errors
    /// None today; the signature leaves room for a spill file that is made at once.
    pub fn new(base: Disk, options: OverlayOptions) -> Result<Arc<Overlay>> {
        let length = base.len();
        Ok(Arc::new(Overlay {
            base,
            options,
            state: Mutex::new(State {
                length,
                base_visible: length,
                pages: BTreeMap::new(),
                memory: 0,
                spill: None,
                savepoints: Vec::new(),
            }),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ranges whose bytes differ from the base, in order, merged; bytes written with what was there before do
    /// not count. Bytes beyond the end of the base count always.
    ///
    /// # Errors
    /// Of reading the base or the spill file.
    pub fn dirty_ranges(&self) -> Result<Vec<Range<u64>>> {
        let mut state = self.state();
        let numbers: Vec<u64> = state.pages.keys().copied().collect();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut add = |range: Range<u64>| match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => ranges.push(range),
        };
        let mut base = Ahead { disk: &self.base, numbers: &numbers, start: 0, bytes: Vec::new() };
        for (place, number) in numbers.iter().enumerate() {
            let start = number * PAGE_BYTES;
            let Some(bytes) = page_bytes(&mut state, *number)? else { continue };
            let end = (start + PAGE_BYTES).min(state.length);
            if start >= end {
                continue;
            }
            let old_end = end.min(self.base.len()).max(start);
            let old = base.read(place, start..old_end)?;
            for range in differences(old, &bytes[..old.len()]) {
                add(start + range.start as u64..start + range.end as u64);
            }
            add(old_end..end);
        }
        // Bytes of the base that a cut hid: they read as zero now, staged or not.
        let hidden = state.base_visible..self.base.len().min(state.length);
        if !hidden.is_empty() {
            ranges.push(hidden);
            ranges = merged(ranges);
        }
        Ok(ranges)
    }

    /// Bytes that are staged, in memory and spilled: whole pages, whether they differ or not.
    pub fn staged_bytes(&self) -> u64 {
        self.state().pages.len() as u64 * PAGE_BYTES
    }

    /// Forgets everything that is staged, because the base now holds it: readers see no difference. Savepoints go too.
    pub fn forget(&self) {
        let mut state = self.state();
        let length = self.base.len();
        *state = State {
            length,
            base_visible: length,
            pages: BTreeMap::new(),
            memory: 0,
            spill: None,
            savepoints: Vec::new(),
        };
    }

    /// Marks the present state.
    pub fn savepoint(&self) -> SavepointId {
        let mut state = self.state();
        let (length, base_visible) = (state.length, state.base_visible);
        state.savepoints.push(Savepoint { length, base_visible, before: BTreeMap::new() });
        SavepointId(state.savepoints.len() - 1)
    }

    /// Returns to the state of `id`; later savepoints are forgotten, `id` itself too.
    ///
    /// # Errors
    /// `Invalid` when the savepoint is gone.
    pub fn rollback(&self, id: SavepointId) -> Result<()> {
        let mut state = self.state();
        if id.0 >= state.savepoints.len() {
            return Err(Error::invalid(Layer::Block, "this savepoint is gone").found(id.0));
        }
        while state.savepoints.len() > id.0 {
            let Some(savepoint) = state.savepoints.pop() else { break };
            for (number, page) in savepoint.before {
                if let Some(Page::Memory(_)) = state.pages.get(&number) {
                    state.memory -= PAGE_BYTES as usize;
                }
                if let Some(page) = page {
                    if matches!(page, Page::Memory(_)) {
                        state.memory += PAGE_BYTES as usize;
                    }
                    state.pages.insert(number, page);
                } else {
                    state.pages.remove(&number);
                }
            }
            state.length = savepoint.length;
            state.base_visible = savepoint.base_visible;
        }
        Ok(())
    }

    /// The bytes of page `number` as they are now, staged or not.
    fn current_page(&self, state: &mut State, number: u64) -> Result<Vec<u8>> {
        if let Some(bytes) = page_bytes(state, number)? {
            return Ok(bytes.to_vec());
        }
        let mut bytes = vec![0; PAGE_BYTES as usize];
        let start = number * PAGE_BYTES;
        let seen = state.base_visible.saturating_sub(start).min(PAGE_BYTES) as usize;
        if seen > 0 {
            self.base.read_at(start, &mut bytes[..seen])?;
        }
        Ok(bytes)
    }

    fn put_page(&self, state: &mut State, number: u64, bytes: Arc<[u8]>) -> Result<()> {
        let old = state.pages.get(&number).cloned();
        if let Some(savepoint) = state.savepoints.last_mut() {
            savepoint.before.entry(number).or_insert_with(|| old.clone());
        }
        if matches!(old, Some(Page::Memory(_))) {
            state.memory -= PAGE_BYTES as usize;
        }
        let page = if state.memory + PAGE_BYTES as usize > self.options.memory_bytes {
            Page::Spilled(self.spill(state, &bytes)?)
        } else {
            state.memory += PAGE_BYTES as usize;
            Page::Memory(bytes)
        };
        state.pages.insert(number, page);
        Ok(())
    }

    /// Appends a page to the spill file; its place there. Places are not reused: savepoints may still need them.
    fn spill(&self, state: &mut State, bytes: &[u8]) -> Result<u64> {
        let Some(dir) = &self.options.spill_dir else {
            return Err(Error::limit(Layer::Block, "more changes than the set memory holds")
                .expected(format!("at most {} bytes", self.options.memory_bytes)));
        };
        if state.spill.is_none() {
            let name = format!(".vmrescue-spill-{}-{:p}", std::process::id(), std::ptr::from_ref(self));
            let path = dir.join(name);
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|e| Error::io("the spill file cannot be made", &path, e))?;
            // Removed at once where the system allows it; the open handle keeps the bytes.
            let _gone = std::fs::remove_file(&path);
            state.spill = Some((file, 0));
        }
        let Some((file, end)) = state.spill.as_mut() else { unreachable!("made just now") };
        let place = *end;
        let written = file.seek(SeekFrom::Start(place)).and_then(|_| file.write_all(bytes));
        written.map_err(|e| Error::io("the spill file cannot be written", dir, e))?;
        *end += PAGE_BYTES;
        Ok(place)
    }
}

/// The bytes of a staged page, from memory or the spill file.
fn page_bytes(state: &mut State, number: u64) -> Result<Option<Arc<[u8]>>> {
    match state.pages.get(&number) {
        None => Ok(None),
        Some(Page::Memory(bytes)) => Ok(Some(Arc::clone(bytes))),
        Some(Page::Spilled(place)) => {
            let place = *place;
            let mut bytes = vec![0; PAGE_BYTES as usize];
            let Some((file, _)) = state.spill.as_mut() else {
                return Err(Error::invalid(Layer::Block, "a spilled page without a spill file"));
            };
            let read = file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(&mut bytes));
            read.map_err(|e| Error::io("the spill file cannot be read", "spill file", e))?;
            Ok(Some(bytes.into()))
        }
    }
}

/// Reads the base under staged pages: as many at once as lie side by side.
struct Ahead<'a> {
    disk: &'a Disk,
    numbers: &'a [u64],
    start: u64,
    bytes: Vec<u8>,
}

impl Ahead<'_> {
    /// Most pages of one read.
    const PAGES: usize = 256;

    /// The bytes of a range inside the page at `place` of the list.
    fn read(&mut self, place: usize, range: Range<u64>) -> Result<&[u8]> {
        if range.is_empty() {
            return Ok(&[]);
        }
        if range.start < self.start || range.end > self.start + self.bytes.len() as u64 {
            let rest = &self.numbers[place..];
            let side_by_side = (0u64..).zip(rest.iter().take(Ahead::PAGES));
            let count = side_by_side.take_while(|(step, number)| **number == rest[0] + step).count() as u64;
            let end = (range.start + count * PAGE_BYTES).min(self.disk.len()).max(range.end);
            self.start = range.start;
            self.bytes.resize((end - range.start) as usize, 0);
            self.disk.read_at(range.start, &mut self.bytes)?;
        }
        let at = (range.start - self.start) as usize;
        Ok(&self.bytes[at..at + (range.end - range.start) as usize])
    }
}

/// Ranges where two equally long slices differ; gaps shorter than 16 bytes are bridged.
fn differences(old: &[u8], new: &[u8]) -> Vec<Range<usize>> {
    /// Compared at once, so that what is equal costs little, and what differs throughout no more.
    const STEP: usize = 64;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    if old == new {
        return ranges;
    }
    for (step, (a, b)) in old.chunks(STEP).zip(new.chunks(STEP)).enumerate() {
        if a == b {
            continue;
        }
        for place in (0..a.len()).filter(|at| a[*at] != b[*at]).map(|at| step * STEP + at) {
            match ranges.last_mut() {
                Some(last) if place < last.end + 16 => last.end = place + 1,
                _ => ranges.push(place..place + 1),
            }
        }
    }
    ranges
}

/// The same bytes as ranges in order that do not touch.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    ranges.into_iter().fold(Vec::new(), |mut done: Vec<Range<u64>>, range| {
        match done.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => done.push(range),
        }
        done
    })
}

impl BlockDevice for Overlay {
    fn geometry(&self) -> Geometry {
        Geometry { length_bytes: self.state().length, ..self.base.geometry() }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let end = offset + buf.len() as u64;
        // The base first, in one read; then the staged pages over it.
        let seen = state.base_visible.saturating_sub(offset).min(buf.len() as u64) as usize;
        if seen > 0 {
            self.base.read_at(offset, &mut buf[..seen])?;
        }
        buf[seen..].fill(0);
        let numbers: Vec<u64> = state
            .pages
            .range(offset / PAGE_BYTES..=(end - 1) / PAGE_BYTES)
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            let Some(bytes) = page_bytes(&mut state, number)? else { continue };
            let start = number * PAGE_BYTES;
            let from = start.max(offset);
            let to = (start + PAGE_BYTES).min(end);
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }
}

impl WritableDevice for Overlay {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.state();
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            let number = offset / PAGE_BYTES;
            let within = (offset % PAGE_BYTES) as usize;
            let count = data.len().min(PAGE_BYTES as usize - within);
            let page: Arc<[u8]> = if count == PAGE_BYTES as usize {
                data[..count].into()
            } else {
                let mut page = self.current_page(&mut state, number)?;
                page[within..within + count].copy_from_slice(&data[..count]);
                page.into()
            };
            self.put_page(&mut state, number, page)?;
            offset += count as u64;
            data = &data[count..];
        }
        Ok(())
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let zeros = [0u8; PAGE_BYTES as usize];
        let mut offset = range.start;
        while offset < range.end {
            let count = (PAGE_BYTES - offset % PAGE_BYTES).min(range.end - offset);
            self.write_at(offset, &zeros[..count as usize])?;
            offset += count;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn set_length(&self, length_bytes: u64) -> Result<()> {
        let mut state = self.state();
        let old = state.length;
        if length_bytes < old {
            // What is cut off must read as zero when the device grows again.
            let first = length_bytes / PAGE_BYTES;
            if !length_bytes.is_multiple_of(PAGE_BYTES) {
                let mut page = self.current_page(&mut state, first)?;
                page[(length_bytes % PAGE_BYTES) as usize..].fill(0);
                self.put_page(&mut state, first, page.into())?;
            }
            let gone: Vec<u64> =
                state.pages.range(length_bytes.div_ceil(PAGE_BYTES)..).map(|(number, _)| *number).collect();
            for number in gone {
                self.put_page(&mut state, number, vec![0; PAGE_BYTES as usize].into())?;
            }
            state.base_visible = state.base_visible.min(length_bytes);
        }
        state.length = length_bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DiskMut, MemoryDevice};
    use super::*;
    use proptest::prelude::*;

    fn overlay(memory_bytes: usize) -> Arc<Overlay> {
        let base = Disk::new(Arc::new(MemoryDevice::new((0..20_000u32).map(|i| i as u8).collect())));
        Overlay::new(base, OverlayOptions { memory_bytes, spill_dir: Some(std::env::temp_dir()) }).unwrap()
    }

    #[test]
    fn only_what_differs_is_dirty() {
        let over = overlay(1 << 20);
        let staged = DiskMut::new(Arc::clone(&over) as Arc<dyn WritableDevice>);
        let same = staged.as_disk().read_vec(5000, 100).unwrap();
        staged.write_at(5000, &same).unwrap();
        assert!(over.dirty_ranges().unwrap().is_empty());
        staged.write_at(8190, &[255, 254, 253, 252]).unwrap();
        staged.set_length(20_500).unwrap();
        staged.write_at(20_400, b"x").unwrap();
        let dirty = over.dirty_ranges().unwrap();
        assert_eq!(dirty[0], 8190..8194);
        assert_eq!(
            dirty.last().unwrap().end,
            20_480,
            "a page that is not staged reads as zero beyond the base"
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Length(u64),
        Save,
        Back,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..30_000u64, prop::collection::vec(any::<u8>(), 1..6000)).prop_map(|(o, d)| Step::Write(o, d)),
            1 => (1..40_000u64).prop_map(Step::Length),
            1 => Just(Step::Save),
            1 => Just(Step::Back),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn an_overlay_is_a_vector(steps in prop::collection::vec(step(), 1..30)) {
            let over = overlay(3 * PAGE_BYTES as usize);
            let staged = DiskMut::new(Arc::clone(&over) as Arc<dyn WritableDevice>);
            let mut model: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
            let mut saved: Vec<(SavepointId, Vec<u8>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        let end = offset as usize + data.len();
                        if end <= model.len() {
                            staged.write_at(offset, &data).unwrap();
                            model[offset as usize..end].copy_from_slice(&data);
                        } else {
                            prop_assert!(staged.write_at(offset, &data).is_err());
                        }
                    }
                    Step::Length(length) => {
                        staged.set_length(length).unwrap();
                        model.resize(length as usize, 0);
                    }
                    Step::Save => saved.push((over.savepoint(), model.clone())),
                    Step::Back => if let Some((id, old)) = saved.pop() {
                        over.rollback(id).unwrap();
                        model = old;
                    }
                }
                prop_assert_eq!(&staged.as_disk().read_vec(0, staged.len() as usize).unwrap(), &model);
            }
        }
    }
}
