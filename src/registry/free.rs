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
        let mut bins = BTreeSet::new();
        each_cell(
            bytes,
            |bin| {
                bins.insert(bin);
            },
            |cell, size, is_free| {
                if is_free {
                    free.add(cell, size);
                }
            },
        )?;
        free.bins = bins;
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

/// Calls `bin` with each bin's place, and `cell` with each cell's place, its whole size, and whether it is free.
///
/// # Errors
/// `Damaged` where bins or cells do not add up.
pub(super) fn each_cell(
    bytes: &[u8],
    mut bin: impl FnMut(u32),
    mut cell: impl FnMut(u32, u32, bool),
) -> Result<()> {
    let end = bins_bytes(bytes);
    let broken = |at: usize, what: &str| {
        Error::damaged(Layer::Hive, what.to_string())
            .at((BASE_BYTES + at) as u64)
            .advice("the hive has damage that an edit could make worse; see `vmrescue check`")
    };
    let mut start = 0;
    while start < end {
        let at = BASE_BYTES + start;
        let size = u32_at(bytes, at + 8).unwrap_or(0) as usize;
        if bytes.get(at..at + 4) != Some(b"hbin")
            || u32_at(bytes, at + 4) != Some(start as u32)
            || size == 0
            || !size.is_multiple_of(4096)
            || size > end - start
        {
            return Err(broken(start, "a hive bin is damaged"));
        }
        bin(start as u32);
        let mut place = start + 32;
        while place < start + size {
            let raw = u32_at(bytes, BASE_BYTES + place).unwrap_or(0).cast_signed();
            let length = raw.unsigned_abs() as usize;
            if length < 8 || !length.is_multiple_of(8) || length > start + size - place {
                return Err(broken(place, "a cell has an impossible size"));
            }
            cell(place as u32, length as u32, raw > 0);
            place += length;
        }
        start += size;
    }
    Ok(())
}
