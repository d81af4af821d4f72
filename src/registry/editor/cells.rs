//! Cells of a hive under edit: allocated, written, given back. Every page is remembered before it is first written, so that
//! what changed is known without a second copy of the hive.

use super::HiveEditor;
use crate::cell::{BASE_BYTES, MAX_CELL_BYTES, bins_bytes, cell};
use std::collections::BTreeMap;
use std::ops::Range;
use vmrescue_base::error::{Error, Layer, Result};

const PAGE: usize = 4096;

/// The pages of a hive as they were when it was opened, where something was written since.
#[derive(Debug, Default)]
pub(super) struct Before {
    pages: BTreeMap<usize, Box<[u8]>>,
    pub(super) length: usize,
}

impl Before {
    pub(super) fn new(length: usize) -> Before {
        Before { pages: BTreeMap::new(), length }
    }

    /// To be called before bytes of `range` change.
    pub(super) fn remember(&mut self, bytes: &[u8], range: Range<usize>) {
        let end = range.end.min(self.length);
        for page in range.start / PAGE..end.div_ceil(PAGE) {
            let place = page * PAGE..((page + 1) * PAGE).min(self.length).min(bytes.len());
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.pages.entry(page) {
                vacant.insert(bytes.get(place).unwrap_or_default().into());
            }
        }
    }

    /// Ranges where the new file differs; gaps below eight bytes are bridged.
    pub(super) fn differences(&self, new: &[u8]) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (page, old) in &self.pages {
            let start = page * PAGE;
            let now = new.get(start..).unwrap_or_default();
            for at in (0..old.len().min(now.len())).filter(|at| old[*at] != now[*at]).map(|at| start + at) {
                match ranges.last_mut() {
                    Some(last) if at < last.end + 8 => last.end = at + 1,
                    _ => ranges.push(at..at + 1),
                }
            }
        }
        if new.len() > self.length {
            ranges.push(self.length..new.len());
        }
        ranges
    }

    /// True when something differs.
    pub(super) fn differs(&self, new: &[u8]) -> bool {
        new.len() != self.length
            || self.pages.iter().any(|(page, old)| new.get(page * PAGE..page * PAGE + old.len()) != Some(old))
    }
}

impl HiveEditor {
    fn place(offset: u32) -> usize {
        BASE_BYTES + offset as usize
    }

    /// Writes at a place of the file.
    pub(super) fn write(&mut self, start: usize, data: &[u8]) {
        self.before.remember(&self.hive.bytes, start..start + data.len());
        self.hive.bytes[start..start + data.len()].copy_from_slice(data);
    }

    /// Writes into an allocated cell at `at` of its content.
    pub(super) fn put(&mut self, offset: u32, at: usize, data: &[u8]) {
        self.write(HiveEditor::place(offset) + 4 + at, data);
    }

    pub(super) fn put_u32(&mut self, offset: u32, at: usize, value: u32) {
        self.put(offset, at, &value.to_le_bytes());
    }

    fn set_size(&mut self, offset: u32, size: i32) {
        self.write(HiveEditor::place(offset), &size.to_le_bytes());
    }

    pub(super) fn content(&self, offset: u32) -> Result<&[u8]> {
        cell(self.hive.bytes(), offset)
            .ok_or_else(|| Error::damaged(Layer::Hive, "not a cell").at(4096 + u64::from(offset)))
    }

    /// An allocated, zeroed cell for `length` bytes of content.
    pub(super) fn allocate(&mut self, length: usize) -> Result<u32> {
        if length + 4 > MAX_CELL_BYTES {
            return Err(Error::limit(Layer::Hive, "Windows takes no cell of a hive beyond 1 MiB")
                .found(format!("{length} bytes"))
                .advice("hives of version 1.3 (SAM, SECURITY, NTUSER.DAT, BCD) have no larger values"));
        }
        let size = (length + 4).next_multiple_of(8) as u32;
        let (offset, found) = match self.free.allocate(size) {
            Some(found) => found,
            None => {
                self.add_bin(size)?;
                self.free
                    .allocate(size)
                    .ok_or_else(|| Error::no_space(Layer::Hive, "the hive cannot grow"))?
            }
        };
        let rest = found - size;
        if rest >= 8 {
            let (at, whole) = self.free.release(offset + size, rest);
            self.set_size(at, whole.cast_signed());
        }
        let taken = if rest >= 8 { size } else { found };
        self.set_size(offset, -taken.cast_signed());
        let content = HiveEditor::place(offset) + 4..HiveEditor::place(offset) + taken as usize;
        self.before.remember(&self.hive.bytes, content.clone());
        self.hive.bytes[content].fill(0);
        Ok(offset)
    }

    fn add_bin(&mut self, cell_bytes: u32) -> Result<()> {
        let bin = bins_bytes(self.hive.bytes()) as u32;
        let size = (cell_bytes + 32).next_multiple_of(4096);
        if u64::from(bin) + u64::from(size) + 4096 > vmrescue_base::limits::MAX_HIVE_BYTES {
            return Err(Error::no_space(Layer::Hive, "a hive cannot grow beyond 2 GiB"));
        }
        let start = HiveEditor::place(bin);
        // Windows leaves room behind the bins of some hives; what is there is not ours to keep.
        self.before.remember(&self.hive.bytes, start..self.hive.bytes.len());
        self.hive.bytes.truncate(start);
        self.hive.bytes.resize(start + size as usize, 0);
        self.write(start, b"hbin");
        self.write(start + 4, &bin.to_le_bytes());
        self.write(start + 8, &size.to_le_bytes());
        self.write(40, &(bin + size).to_le_bytes());
        self.set_size(bin + 32, (size - 32).cast_signed());
        self.free.add_bin(bin, size);
        Ok(())
    }

    pub(super) fn release(&mut self, offset: u32) {
        let Some(length) = cell(self.hive.bytes(), offset).map(|content| content.len() as u32 + 4) else {
            return;
        };
        let (at, size) = self.free.release(offset, length);
        self.set_size(at, size.cast_signed());
    }
}
