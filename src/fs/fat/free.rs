//! Which clusters are free: one bit each, from the whole allocation table; given out next-fit, as Windows does.

use super::boot::{Boot, Kind};
use super::core::{Link, Run, decode, entry_at, link};
use std::ops::Range;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::Disk;

/// Bytes of the table that are read at once; no entry of FAT12 lies on the border.
const PIECE_BYTES: u64 = 3 << 19;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct FreeMap {
    /// Bit n: cluster n + 2 is in use.
    used: Vec<u64>,
    clusters: u32,
    free: u32,
    /// Where the search begins, counted as in `used`.
    next: u32,
}

/// Shows every entry of a table in order.
pub(super) fn each_link(disk: &Disk, boot: &Boot, table: u32, mut see: impl FnMut(u32, u32)) -> Result<()> {
    let last = boot.clusters + 1;
    let end = entry_at(boot.kind, last) + 4;
    let mut cluster = 2;
    let mut at = 0;
    while at < end.min(boot.table_bytes()) {
        let length = PIECE_BYTES.min(boot.table_bytes() - at);
        let bytes = disk.read_vec(boot.table_at(table) + at, length as usize)?;
        if boot.kind == Kind::Fat32 {
            let from = (entry_at(Kind::Fat32, cluster) - at) as usize;
            let (words, _) = bytes[from.min(bytes.len())..].as_chunks::<4>();
            for word in words.iter().take((last + 1 - cluster) as usize) {
                see(cluster, u32::from_le_bytes(*word) & 0x0FFF_FFFF);
                cluster += 1;
            }
        } else {
            while cluster <= last {
                let place = (entry_at(boot.kind, cluster) - at) as usize;
                let Some(value) = decode(boot.kind, &bytes, place, cluster) else { break };
                see(cluster, value);
                cluster += 1;
            }
        }
        at += length;
    }
    Ok(())
}

impl FreeMap {
    /// Reads a table.
    pub(super) fn read(disk: &Disk, boot: &Boot, table: u32) -> Result<FreeMap> {
        let mut map = FreeMap {
            used: vec![u64::MAX; (boot.clusters as usize).div_ceil(64)],
            clusters: boot.clusters,
            free: 0,
            next: 0,
        };
        let (used, mut free) = (&mut map.used, 0);
        each_link(disk, boot, table, |cluster, value| {
            if link(boot, value) == Link::Free {
                let bit = cluster - 2;
                used[(bit / 64) as usize] &= !(1 << (bit % 64));
                free += 1;
            }
        })?;
        map.free = free;
        if let Some(sector) = boot.info_sector {
            let at = u64::from(sector) * u64::from(boot.sector_bytes);
            let hint = disk.read_vec(at, 512).ok().and_then(|bytes| u32_at(&bytes, 492));
            // Only a hint: one that is wrong or cannot be read is none.
            map.next = hint.filter(|hint| boot.is_cluster(*hint)).map_or(0, |hint| hint - 2);
        }
        Ok(map)
    }

    /// Free clusters.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// The cluster from which the next search begins.
    pub(super) fn hint(&self) -> u32 {
        self.next + 2
    }

    /// Free clusters in order, as ranges of cluster numbers.
    pub(super) fn ranges(&self) -> Vec<Range<u32>> {
        let mut ranges = Vec::new();
        let mut at = 0;
        while let Some(start) = self.find(at, false) {
            let end = self.find(start, true).unwrap_or(self.clusters);
            ranges.push(start + 2..end + 2);
            at = end;
        }
        ranges
    }

    /// The first bit from `from` on that is set, or is not.
    fn find(&self, from: u32, set: bool) -> Option<u32> {
        let mut word = (from / 64) as usize;
        let mut mask = u64::MAX << (from % 64);
        while let Some(bits) = self.used.get(word) {
            let bits = if set { *bits } else { !*bits } & mask;
            if bits != 0 {
                let bit = word as u32 * 64 + bits.trailing_zeros();
                return (bit < self.clusters).then_some(bit);
            }
            (word, mask) = (word + 1, u64::MAX);
        }
        None
    }

    fn mark(&mut self, first: u32, count: u32, used: bool) {
        for bit in first..first + count {
            let (word, mask) = ((bit / 64) as usize, 1u64 << (bit % 64));
            if used {
                self.used[word] |= mask;
            } else {
                self.used[word] &= !mask;
            }
        }
    }

    /// Takes clusters: behind `after` when they are free there, else from where the last search ended.
    ///
    /// # Errors
    /// `NoSpace`; then nothing is taken.
    pub(super) fn take(&mut self, count: u32, after: Option<u32>) -> Result<Vec<Run>> {
        if count > self.free {
            return Err(Error::no_space(Layer::Fat, "the volume is full")
                .expected(format!("{count} free clusters"))
                .found(self.free));
        }
        let (mut runs, mut left): (Vec<Run>, u32) = (Vec::new(), count);
        let mut at = after.map_or(self.next, |after| after - 1);
        if after.is_some() && (at >= self.clusters || self.find(at, false) != Some(at)) {
            at = self.next;
        }
        while left > 0 {
            let Some(start) = self.find(at, false).or_else(|| self.find(0, false)) else {
                return Err(Error::no_space(Layer::Fat, "the volume is full"));
            };
            let end = self.find(start, true).unwrap_or(self.clusters);
            let length = (end - start).min(left);
            self.mark(start, length, true);
            self.free -= length;
            runs.push(Run { before: count - left, first: start + 2, count: length });
            left -= length;
            at = start + length;
            self.next = if at < self.clusters { at } else { 0 };
        }
        Ok(runs)
    }

    /// Gives clusters back.
    pub(super) fn give(&mut self, first: u32, count: u32) {
        self.mark(first - 2, count, false);
        self.free += count;
    }
}
