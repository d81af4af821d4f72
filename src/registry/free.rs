//! The free cells of a hive under edit: best fit, merged with their neighbours inside a bin.

use super::cell::{BASE_BYTES, bins_bytes};
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Error, Layer, Result};

/// Free cells by place and by size.
#[derive(Debug, Default)]
pub(super) struct FreeCells {
    by_offset: BTreeMap<u32, u32>,
    by_size: BTreeSet<(u32, u32)>,
    /// First offset of each bin: cells never cross it.
    bins: BTreeSet<u32>,
}

impl FreeCells {
    /// Scans all bins once.
    ///
    /// # Errors
    /// `Damaged` when bins or cells do not add up: an editor does not start on such a hive.
    pub(super) fn scan(bytes: &[u8]) -> Result<FreeCells> {
        let mut free = FreeCells::default();
        let end = bins_bytes(bytes);
        let broken = |at: usize, what: &str| {
            Error::damaged(Layer::Hive, what.to_string())
                .at((BASE_BYTES + at) as u64)
                .advice("the hive has damage that an edit could make worse; see `vmrescue check`")
        };
        let mut bin = 0;
        while bin < end {
            let at = BASE_BYTES + bin;
            let size = u32_at(bytes, at + 8).unwrap_or(0) as usize;
            if bytes.get(at..at + 4) != Some(b"hbin")
                || size == 0
                || !size.is_multiple_of(4096)
                || size > end - bin
            {
                return Err(broken(bin, "a hive bin is damaged"));
            }
            free.bins.insert(bin as u32);
            let mut cell = bin + 32;
            while cell < bin + size {
                let raw = u32_at(bytes, BASE_BYTES + cell).unwrap_or(0).cast_signed();
                let length = raw.unsigned_abs() as usize;
                if length < 8 || !length.is_multiple_of(8) || length > bin + size - cell {
                    return Err(broken(cell, "a cell has an impossible size"));
                }
                if raw > 0 {
                    free.add(cell as u32, length as u32);
                }
                cell += length;
            }
            bin += size;
        }
        Ok(free)
    }

    fn add(&mut self, offset: u32, size: u32) {
        self.by_offset.insert(offset, size);
        self.by_size.insert((size, offset));
    }

    fn take(&mut self, offset: u32) -> Option<u32> {
        let size = self.by_offset.remove(&offset)?;
        self.by_size.remove(&(size, offset));
        Some(size)
    }

    /// A new bin whose only cell is free.
    pub(super) fn add_bin(&mut self, bin: u32, size: u32) {
        self.bins.insert(bin);
        self.add(bin + 32, size - 32);
    }

    /// Takes the smallest free cell of at least `size` bytes; its place and its whole size.
    pub(super) fn allocate(&mut self, size: u32) -> Option<(u32, u32)> {
        let (found, offset) = *self.by_size.range((size, 0)..).next()?;
        self.take(offset);
        Some((offset, found))
    }

    /// Gives a cell back; the place and size of the free cell that it became part of.
    pub(super) fn release(&mut self, offset: u32, size: u32) -> (u32, u32) {
        let (mut start, mut end) = (offset, offset + size);
        if !self.bins.contains(&end)
            && let Some(next) = self.take(end)
        {
            end += next;
        }
        let before = self.by_offset.range(..start).next_back().map(|(at, size)| (*at, *size));
        if let Some((at, size)) = before.filter(|(at, size)| at + size == start) {
            self.take(at);
            debug_assert_eq!(at + size, start);
            start = at;
        }
        self.add(start, end - start);
        (start, end - start)
    }
}
