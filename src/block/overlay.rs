//! Staged writes over a device that is never written: copy on write in pages, with savepoints and a spill file.
//!
//! A page holds the bytes as they will be; pages of zeros are kept as runs and take no room. Pages beyond the memory
//! bound go to an unnamed temporary file in `spill_dir`, so that a conversion of a large disk does not take the host's
//! memory. Readers share the state and read the base without holding it: one slow read stops nobody.

use super::spill::{Spill, SpilledPage};
use super::{BlockDevice, Disk, Extent, ExtentKind, Geometry, WritableDevice};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::{Error, Layer, Result};

/// Bytes of one page: small enough that a changed sector does not carry much along.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of the base that are compared with zeros at once.
const PIECE_BYTES: u64 = 1 << 20;

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
    Spilled(Arc<SpilledPage>),
}

impl Page {
    fn bytes(&self) -> Result<Arc<[u8]>> {
        match self {
            Page::Memory(bytes) => Ok(Arc::clone(bytes)),
            Page::Spilled(page) => page.read(),
        }
    }
}

/// What is staged at one time. A page is in `pages`, or in a run of `zeros`, or not staged.
#[derive(Clone)]
struct State {
    length: u64,
    /// Bytes of the base that still show through; less than the base's length after a cut.
    base_visible: u64,
    pages: BTreeMap<u64, Page>,
    /// Runs of pages that are staged as zeros: first page, and the page after the last.
    zeros: BTreeMap<u64, u64>,
    memory: usize,
}

impl State {
    fn empty(length: u64) -> State {
        State { length, base_visible: length, pages: BTreeMap::new(), zeros: BTreeMap::new(), memory: 0 }
    }

    /// True for a page that is staged as zeros.
    fn is_zeroed(&self, number: u64) -> bool {
        self.zeros.range(..=number).next_back().is_some_and(|(_, end)| *end > number)
    }

    /// Runs of zeros that touch these pages, cut to them.
    fn zeros_in(&self, pages: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let before = self.zeros.range(..pages.start).next_back();
        let runs = before.into_iter().chain(self.zeros.range(pages.clone()));
        runs.map(move |(start, end)| (*start).max(pages.start)..(*end).min(pages.end))
            .filter(|run| run.start < run.end)
    }

    fn forget_zeros(&mut self, pages: Range<u64>) {
        let first = self.zeros.range(..=pages.start).next_back().map_or(pages.start, |(start, _)| *start);
        let touched: Vec<(u64, u64)> =
            self.zeros.range(first..pages.end).map(|(start, end)| (*start, *end)).collect();
        for (start, end) in touched.into_iter().filter(|(_, end)| *end > pages.start) {
            self.zeros.remove(&start);
            if start < pages.start {
                self.zeros.insert(start, pages.start);
            }
            if end > pages.end {
                self.zeros.insert(pages.end, end);
            }
        }
    }

    fn forget_pages(&mut self, pages: Range<u64>) {
        let gone: Vec<u64> = self.pages.range(pages).map(|(number, _)| *number).collect();
        for number in gone {
            if let Some(Page::Memory(_)) = self.pages.remove(&number) {
                self.memory -= PAGE_BYTES as usize;
            }
        }
    }

    /// Stages whole pages as zeros.
    fn put_zeros(&mut self, pages: Range<u64>) {
        if pages.is_empty() {
            return;
        }
        self.forget_pages(pages.clone());
        self.forget_zeros(pages.clone());
        // Runs that touch become one.
        let after = self.zeros.remove(&pages.end);
        let before = self.zeros.range(..pages.start).next_back().map(|(start, end)| (*start, *end));
        let start = before.filter(|(_, end)| *end == pages.start).map_or(pages.start, |(start, _)| start);
        self.zeros.insert(start, after.unwrap_or(pages.end));
    }

    /// Bytes of a range that the base shows, from its start.
    fn shown(&self, offset: u64, length: u64) -> u64 {
        self.base_visible.saturating_sub(offset).min(length)
    }
}

/// Writes staged over a base that stays as it is.
pub struct Overlay {
    base: Disk,
    options: OverlayOptions,
    state: RwLock<State>,
    savepoints: Mutex<Vec<State>>,
    spill: Mutex<Option<Arc<Spill>>>,
    /// What is staged was looked at: nothing more may be staged.
    sealed: AtomicBool,
}

impl Overlay {
    /// An overlay without any change yet.
    ///
    /// # Errors
    /// None today; the signature leaves room for a spill file that is made at once.
    pub fn new(base: Disk, options: OverlayOptions) -> Result<Arc<Overlay>> {
        let state = RwLock::new(State::empty(base.len()));
        let (savepoints, spill, sealed) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Arc::new(Overlay { base, options, state, savepoints, spill, sealed }))
    }

    /// From here on nothing can be staged, whoever still holds a handle: what is verified is what is published.
    pub fn seal(&self) {
        // Under the lock, so that a write that has begun is done.
        let _alone = self.changing();
        self.sealed.store(true, Ordering::SeqCst);
    }

    /// Staging goes on.
    pub fn unseal(&self) {
        self.sealed.store(false, Ordering::SeqCst);
    }

    /// The state, for a change of it.
    fn staging(&self) -> Result<RwLockWriteGuard<'_, State>> {
        let state = self.changing();
        if self.sealed.load(Ordering::SeqCst) {
            return Err(Error::refused(Layer::Block, "nothing can be staged after verification"));
        }
        Ok(state)
    }

    fn looking(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ranges whose bytes differ from the base, in order, merged; bytes written with what was there before do
    /// not count. Bytes beyond the end of the base count when they are staged as something else than zeros.
    ///
    /// # Errors
    /// Of reading the base or the spill file.
    pub fn dirty_ranges(&self) -> Result<Vec<Range<u64>>> {
        let state = self.looking();
        let numbers: Vec<u64> = state.pages.keys().copied().collect();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut base = Ahead { disk: &self.base, numbers: &numbers, start: 0, bytes: Vec::new() };
        for (place, (number, page)) in state.pages.iter().enumerate() {
            let start = number * PAGE_BYTES;
            let end = (start + PAGE_BYTES).min(state.length);
            if start >= end {
                continue;
            }
            let bytes = page.bytes()?;
            let old_end = end.min(self.base.len()).max(start);
            let old = base.read(place, start..old_end)?;
            ranges.extend(
                differences(old, &bytes[..old.len()])
                    .into_iter()
                    .map(|range| start + range.start as u64..start + range.end as u64),
            );
            ranges.push(old_end..end);
        }
        for (first, after) in &state.zeros {
            let end = (after * PAGE_BYTES).min(state.length).min(self.base.len());
            self.not_zero(first * PAGE_BYTES..end, &mut ranges)?;
        }
        // Bytes of the base that a cut hid: they read as zero now, staged or not.
        ranges.push(state.base_visible..self.base.len().min(state.length));
        Ok(merged(ranges))
    }

    /// Adds the parts of a range of the base that are not zero.
    fn not_zero(&self, range: Range<u64>, ranges: &mut Vec<Range<u64>>) -> Result<()> {
        let (mut at, zeros) = (range.start, vec![0; PIECE_BYTES as usize]);
        while at < range.end {
            let extent = self.base.extent_at(at)?;
            let end = (at + extent.length_bytes).min(range.end);
            if extent.kind == ExtentKind::Zero {
                at = end;
                continue;
            }
            let end = end.min(at + PIECE_BYTES);
            let old = self.base.read_vec(at, (end - at) as usize)?;
            let differ = differences(&old, &zeros[..old.len()]).into_iter();
            ranges.extend(differ.map(|range| at + range.start as u64..at + range.end as u64));
            at = end;
        }
        Ok(())
    }

    /// Bytes that are staged, in memory, spilled and as runs of zeros: whole pages, whether they differ or not.
    pub fn staged_bytes(&self) -> u64 {
        let state = self.looking();
        let zeros: u64 = state.zeros.iter().map(|(start, end)| end - start).sum();
        (state.pages.len() as u64 + zeros) * PAGE_BYTES
    }

    /// Forgets everything that is staged, because the base now holds it: readers see no difference. Savepoints go too.
    pub fn forget(&self) {
        let mut state = self.changing();
        *state = State::empty(self.base.len());
        self.savepoints.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.spill.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Marks the present state.
    pub fn savepoint(&self) -> SavepointId {
        let state = self.looking();
        let mut savepoints = self.savepoints.lock().unwrap_or_else(PoisonError::into_inner);
        savepoints.push(state.clone());
        SavepointId(savepoints.len() - 1)
    }

    /// Returns to the state of `id`; later savepoints are forgotten, `id` itself too.
    ///
    /// # Errors
    /// `Invalid` when the savepoint is gone.
    pub fn rollback(&self, id: SavepointId) -> Result<()> {
        let mut state = self.staging()?;
        let mut savepoints = self.savepoints.lock().unwrap_or_else(PoisonError::into_inner);
        savepoints.truncate(id.0 + 1);
        let gone = || Error::invalid(Layer::Block, "this savepoint is gone").found(id.0);
        if savepoints.len() <= id.0 {
            return Err(gone());
        }
        *state = savepoints.pop().ok_or_else(gone)?;
        Ok(())
    }

    /// The bytes of the base that page `number` shows, the rest zero.
    fn base_page(&self, shown: u64, number: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_BYTES as usize];
        if shown > 0 {
            self.base.read_at(number * PAGE_BYTES, &mut bytes[..shown as usize])?;
        }
        Ok(bytes)
    }

    /// The base's part of a page that a write will touch in part, read before the state is locked for the write.
    fn ahead(&self, number: u64) -> Result<Option<(u64, Vec<u8>)>> {
        let shown = {
            let state = self.looking();
            if state.pages.contains_key(&number) || state.is_zeroed(number) {
                return Ok(None);
            }
            state.shown(number * PAGE_BYTES, PAGE_BYTES)
        };
        Ok(Some((shown, self.base_page(shown, number)?)))
    }

    /// The bytes of page `number` as they are now, staged or not; `ahead` is what was read of the base already.
    fn current_page(&self, state: &State, number: u64, ahead: Option<(u64, Vec<u8>)>) -> Result<Vec<u8>> {
        if let Some(page) = state.pages.get(&number) {
            return Ok(page.bytes()?.to_vec());
        }
        if state.is_zeroed(number) {
            return Ok(vec![0; PAGE_BYTES as usize]);
        }
        let shown = state.shown(number * PAGE_BYTES, PAGE_BYTES);
        match ahead {
            Some((read, bytes)) if read == shown => Ok(bytes),
            // The file was cut, or what was staged was forgotten, in between.
            _ => self.base_page(shown, number),
        }
    }

    fn put_page(&self, state: &mut State, number: u64, bytes: Vec<u8>) -> Result<()> {
        if is_zero(&bytes) {
            state.put_zeros(number..number + 1);
            return Ok(());
        }
        let was_in_memory = matches!(state.pages.get(&number), Some(Page::Memory(_)));
        let memory = state.memory - if was_in_memory { PAGE_BYTES as usize } else { 0 };
        let page = if memory + PAGE_BYTES as usize > self.options.memory_bytes {
            Page::Spilled(self.spill()?.put(&bytes)?)
        } else {
            Page::Memory(bytes.into())
        };
        state.memory = memory + if matches!(page, Page::Memory(_)) { PAGE_BYTES as usize } else { 0 };
        state.forget_zeros(number..number + 1);
        state.pages.insert(number, page);
        Ok(())
    }

    fn spill(&self) -> Result<Arc<Spill>> {
        let mut spill = self.spill.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spill) = spill.as_ref() {
            return Ok(Arc::clone(spill));
        }
        let Some(dir) = &self.options.spill_dir else {
            return Err(Error::limit(Layer::Block, "more changes than the set memory holds")
                .expected(format!("at most {} bytes", self.options.memory_bytes)));
        };
        Ok(Arc::clone(spill.insert(Spill::create(dir)?)))
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

/// The same bytes as ranges in order that do not touch; empty ones go.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end);
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
        Geometry { length_bytes: self.looking().length, ..self.base.geometry() }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset + buf.len() as u64;
        let numbers = offset / PAGE_BYTES..(end - 1) / PAGE_BYTES + 1;
        let part = |pages: &Range<u64>| {
            let (from, to) = ((pages.start * PAGE_BYTES).max(offset), (pages.end * PAGE_BYTES).min(end));
            (from - offset) as usize..(to - offset) as usize
        };
        // What is staged is noted under the lock, and read without it: pages stay what they are while somebody has them.
        let (shown, pages, zeros) = {
            let state = self.looking();
            let pages: Vec<(u64, Page)> =
                state.pages.range(numbers.clone()).map(|(number, page)| (*number, page.clone())).collect();
            let zeros: Vec<Range<u64>> = state.zeros_in(numbers).collect();
            (state.shown(offset, buf.len() as u64) as usize, pages, zeros)
        };
        let staged: usize = pages
            .iter()
            .map(|(number, _)| *number..number + 1)
            .chain(zeros.iter().cloned())
            .map(|run| part(&run).len())
            .sum();
        if staged < buf.len() {
            if shown > 0 {
                self.base.read_at(offset, &mut buf[..shown])?;
            }
            buf[shown..].fill(0);
        }
        for run in zeros {
            buf[part(&run)].fill(0);
        }
        for (number, page) in pages {
            let range = part(&(number..number + 1));
            let skip = (offset + range.start as u64 - number * PAGE_BYTES) as usize;
            let length = range.len();
            buf[range].copy_from_slice(&page.bytes()?[skip..skip + length]);
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let number = offset / PAGE_BYTES;
        let (end, kind) = {
            let state = self.looking();
            let page = state.pages.range(number + 1..).next().map(|(number, _)| *number);
            let run = state.zeros.range(number + 1..).next().map(|(start, _)| *start);
            let next = page.into_iter().chain(run).min().map_or(state.length, |number| number * PAGE_BYTES);
            let zeroed = state.zeros_in(number..u64::MAX).next().filter(|run| run.start == number);
            let (end, kind) = match zeroed {
                _ if state.pages.contains_key(&number) => ((number + 1) * PAGE_BYTES, Some(ExtentKind::Data)),
                Some(run) => (run.end.saturating_mul(PAGE_BYTES), Some(ExtentKind::Zero)),
                None if offset >= state.base_visible => (next, Some(ExtentKind::Zero)),
                None => (next.min(state.base_visible), None),
            };
            (end.min(state.length), kind)
        };
        let most = end.saturating_sub(offset).max(1);
        match kind {
            Some(kind) => Ok(Extent { kind, length_bytes: most }),
            None => {
                let extent = self.base.extent_at(offset)?;
                Ok(Extent { length_bytes: extent.length_bytes.min(most), ..extent })
            }
        }
    }
}

impl WritableDevice for Overlay {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset + data.len() as u64;
        let (first, last) = (offset / PAGE_BYTES, (end - 1) / PAGE_BYTES);
        // Pages that are written in part need what the base has; it is read before others have to wait.
        let mut head =
            if offset.is_multiple_of(PAGE_BYTES) && (first != last || end.is_multiple_of(PAGE_BYTES)) {
                None
            } else {
                self.ahead(first)?
            };
        let mut tail = if end.is_multiple_of(PAGE_BYTES) || last == first { None } else { self.ahead(last)? };
        let mut state = self.staging()?;
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            let number = offset / PAGE_BYTES;
            let within = (offset % PAGE_BYTES) as usize;
            let count = data.len().min(PAGE_BYTES as usize - within);
            let page = if count == PAGE_BYTES as usize {
                data[..count].to_vec()
            } else {
                let ahead = if number == first { head.take() } else { tail.take() };
                let mut page = self.current_page(&state, number, ahead)?;
                page[within..within + count].copy_from_slice(&data[..count]);
                page
            };
            self.put_page(&mut state, number, page)?;
            offset += count as u64;
            data = &data[count..];
        }
        Ok(())
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let zeros = [0u8; PAGE_BYTES as usize];
        let whole = range.start.div_ceil(PAGE_BYTES)..range.end / PAGE_BYTES;
        if whole.start >= whole.end {
            return self.write_at(range.start, &vec![0; (range.end - range.start) as usize]);
        }
        self.write_at(range.start, &zeros[..(whole.start * PAGE_BYTES - range.start) as usize])?;
        self.write_at(whole.end * PAGE_BYTES, &zeros[..(range.end - whole.end * PAGE_BYTES) as usize])?;
        self.staging()?.put_zeros(whole);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn set_length(&self, length_bytes: u64) -> Result<()> {
        let mut state = self.staging()?;
        if length_bytes < state.length {
            // What is cut off must read as zero when the device grows again.
            let first = length_bytes / PAGE_BYTES;
            if !length_bytes.is_multiple_of(PAGE_BYTES) {
                let mut page = self.current_page(&state, first, None)?;
                page[(length_bytes % PAGE_BYTES) as usize..].fill(0);
                self.put_page(&mut state, first, page)?;
            }
            let beyond = length_bytes.div_ceil(PAGE_BYTES)..u64::MAX;
            state.forget_pages(beyond.clone());
            state.forget_zeros(beyond);
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
    use std::sync::Condvar;

    fn overlay(memory_bytes: usize) -> Arc<Overlay> {
        let base = Disk::new(Arc::new(MemoryDevice::new((0..20_000u32).map(|i| i as u8).collect())));
        Overlay::new(base, OverlayOptions { memory_bytes, spill_dir: Some(std::env::temp_dir()) }).unwrap()
    }

    fn staged(over: &Arc<Overlay>) -> DiskMut {
        DiskMut::new(Arc::clone(over) as Arc<dyn WritableDevice>)
    }

    #[test]
    fn only_what_differs_is_dirty() {
        let over = overlay(1 << 20);
        let staged = staged(&over);
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

    #[test]
    fn zeros_take_no_room_and_are_dirty_where_the_base_is_not_zero() {
        let base = Disk::new(Arc::new(MemoryDevice::new(vec![7; 1 << 20])));
        let over = Overlay::new(base, OverlayOptions { memory_bytes: 0, spill_dir: None }).unwrap();
        let staged = staged(&over);
        staged.set_length(8 << 40).unwrap();
        staged.zero_at(4096..8 << 40).unwrap();
        staged.write_at(1 << 30, &vec![0; 1 << 20]).unwrap();
        assert_eq!(
            over.dirty_ranges().unwrap(),
            vec![4096u64..1 << 20],
            "beyond the base all reads as zero anyway"
        );
        assert_eq!(staged.as_disk().read_vec(4000, 200).unwrap(), [vec![7; 96], vec![0; 104]].concat());
        let extent = staged.as_disk().extent_at(1 << 30).unwrap();
        assert_eq!((extent.kind, extent.length_bytes), (ExtentKind::Zero, (8 << 40) - (1 << 30)));
    }

    #[test]
    fn a_page_that_is_written_again_takes_no_more_of_the_spill_file() {
        let over = overlay(0);
        let staged = staged(&over);
        for round in 1..100u8 {
            staged.write_at(0, &[round; 16384]).unwrap();
        }
        let spill = over.spill.lock().unwrap().clone().unwrap();
        assert!(spill.length_bytes() <= 5 * PAGE_BYTES, "{} bytes", spill.length_bytes());
        assert_eq!(staged.as_disk().read_vec(0, 16384).unwrap(), [99; 16384]);
    }

    /// A base whose reads wait until somebody lets them go.
    struct Slow(MemoryDevice, Mutex<bool>, Condvar);

    impl BlockDevice for Slow {
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            let mut free = self.1.lock().unwrap();
            while offset == 0 && !*free {
                free = self.2.wait(free).unwrap();
            }
            self.0.read_at(offset, buf)
        }
    }

    #[test]
    fn a_slow_read_of_the_base_keeps_nobody_waiting() {
        let slow = Arc::new(Slow(MemoryDevice::new(vec![7; 1 << 20]), Mutex::new(false), Condvar::new()));
        let over = Overlay::new(Disk::new(Arc::clone(&slow) as _), OverlayOptions::default()).unwrap();
        let staged = staged(&over);
        std::thread::scope(|scope| {
            let disk = staged.as_disk();
            let waiting = scope.spawn(move || disk.read_vec(0, 100).unwrap());
            let other = staged.clone();
            let writing = scope.spawn(move || other.write_at(10, b"x").unwrap());
            std::thread::sleep(std::time::Duration::from_millis(50));
            // Both of them stand in the base, and the rest of the disk is read and written meanwhile.
            staged.write_at(8192, &[9; 4096]).unwrap();
            staged.write_at(16_000, b"part of a page").unwrap();
            assert_eq!(staged.as_disk().read_vec(8190, 4).unwrap(), [7, 7, 9, 9]);
            *slow.1.lock().unwrap() = true;
            slow.2.notify_all();
            writing.join().unwrap();
            waiting.join().unwrap();
        });
        assert_eq!(staged.as_disk().read_vec(9, 3).unwrap(), [7, b'x', 7]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Zero(u64, u64),
        Length(u64),
        Save,
        Back,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..30_000u64, prop::collection::vec(any::<u8>(), 1..6000)).prop_map(|(o, d)| Step::Write(o, d)),
            2 => (0..30_000u64, 0..20_000u64).prop_map(|(o, l)| Step::Zero(o, l)),
            1 => (0..30_000u64, 1..9000usize).prop_map(|(o, l)| Step::Write(o, vec![0; l])),
            1 => (1..40_000u64).prop_map(Step::Length),
            1 => Just(Step::Save),
            1 => Just(Step::Back),
        ]
    }

    /// What differs from the base lies in the dirty ranges, and what extents call zero is zero.
    fn told(over: &Overlay, staged: &DiskMut, model: &[u8]) {
        let dirty = over.dirty_ranges().unwrap();
        for (at, byte) in model.iter().enumerate() {
            let base = if at < 20_000 { at as u8 } else { 0 };
            let inside = dirty.iter().any(|range| range.contains(&(at as u64)));
            assert!(inside || *byte == base, "{at} differs and is not dirty");
        }
        let mut at = 0;
        while at < model.len() as u64 {
            let extent = staged.as_disk().extent_at(at).unwrap();
            let end = at + extent.length_bytes;
            assert!(end <= model.len() as u64);
            assert!(extent.kind != ExtentKind::Zero || is_zero(&model[at as usize..end as usize]));
            at = end;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn an_overlay_is_a_vector(steps in prop::collection::vec(step(), 1..30)) {
            let over = overlay(3 * PAGE_BYTES as usize);
            let staged = staged(&over);
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
                    Step::Zero(offset, length) => {
                        let end = (offset + length).min(model.len() as u64);
                        let start = offset.min(end);
                        staged.zero_at(start..end).unwrap();
                        model[start as usize..end as usize].fill(0);
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
            told(&over, &staged, &model);
        }
    }
}
