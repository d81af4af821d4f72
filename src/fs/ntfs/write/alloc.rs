//! Allocation: the maps of clusters and of file records, held in memory, and growing $MFT.
//!
//! No cluster is ever taken that the map calls used, and none freed that it calls free: either is damage and stops
//! the operation.

use super::attribute::{Attribute, Body, Stream, kind};
use super::core::{Core, damaged};
use super::file::File;
use super::record::{self, Header, IN_USE};
use super::runs::{self, Run};
use std::collections::BTreeSet;
use std::ops::Range;
use vmrescue_base::error::{Error, Layer, Result};

/// Bytes of the map that are written together.
const PAGE: usize = 512;
/// First record that files of users may have.
pub(crate) const FIRST_USER_RECORD: u64 = 24;
/// Records kept for extensions of $MFT itself.
const MFT_EXTENSIONS: Range<u64> = 16..24;

/// A map of bits in memory.
#[derive(Debug, Default)]
pub(crate) struct BitMap {
    bytes: Vec<u8>,
    bits: u64,
    free: u64,
    cursor: u64,
    dirty: BTreeSet<usize>,
    /// Changes of the operation that runs: range and the value it got.
    changes: Vec<(Range<u64>, bool)>,
    bits_before: u64,
    free_before: u64,
}

impl BitMap {
    /// A map of the first `bits` bits; the rest is kept as it is.
    pub(crate) fn new(bytes: Vec<u8>, bits: u64) -> Result<BitMap> {
        if (bytes.len() as u64) < bits.div_ceil(8) {
            return Err(damaged("an allocation map that is too short"));
        }
        let mut map = BitMap { bytes, bits, ..BitMap::default() };
        map.free = map.count_free();
        Ok(map)
    }

    fn count_free(&self) -> u64 {
        let whole = (self.bits / 8) as usize;
        let full: u64 = self.bytes[..whole].iter().map(|b| u64::from(b.count_zeros())).sum();
        full + (whole as u64 * 8..self.bits).filter(|bit| !self.get(*bit)).count() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn bits(&self) -> u64 {
        self.bits
    }

    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    pub(crate) fn get(&self, bit: u64) -> bool {
        self.bytes.get((bit / 8) as usize).is_none_or(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// True when all bits of a range are set.
    pub(crate) fn all_set(&self, range: Range<u64>) -> bool {
        if range.end > self.bits {
            return false;
        }
        let (mut at, end) = (range.start, range.end);
        while at < end {
            let whole = at.is_multiple_of(8) && end - at >= 8;
            if whole && self.bytes[(at / 8) as usize] == 0xFF {
                at += 8;
            } else if self.get(at) {
                at += 1;
            } else {
                return false;
            }
        }
        true
    }

    pub(crate) fn begin(&mut self) {
        self.changes.clear();
        self.bits_before = self.bits;
        self.free_before = self.free;
    }

    /// Takes the changes of the operation back; costs as much as they did, not as much as the map is long.
    pub(crate) fn rollback(&mut self) {
        for (range, value) in std::mem::take(&mut self.changes).into_iter().rev() {
            self.write(range, !value);
        }
        self.bits = self.bits_before;
        self.bytes.truncate(
            (self.bits.div_ceil(8) as usize).next_multiple_of(8).max(self.bits.div_ceil(8) as usize),
        );
        self.free = self.free_before;
    }

    fn write(&mut self, range: Range<u64>, value: bool) {
        for bit in range {
            let byte = (bit / 8) as usize;
            let mask = 1 << (bit % 8);
            if value {
                self.bytes[byte] |= mask;
                self.free = self.free.saturating_sub(1);
            } else {
                self.bytes[byte] &= !mask;
                self.free += 1;
            }
            self.dirty.insert(byte / PAGE);
        }
    }

    /// Changes bits that must all have the other value.
    pub(crate) fn set(&mut self, range: Range<u64>, value: bool) -> Result<()> {
        if range.end > self.bits || range.clone().any(|bit| self.get(bit) == value) {
            let what = if value { "taken twice" } else { "freed twice" };
            return Err(damaged(format!("something would be {what} in an allocation map"))
                .found(format!("{:#x}..{:#x}", range.start, range.end))
                .advice("the map and the files disagree: run the check command"));
        }
        self.write(range.clone(), value);
        self.changes.push((range, value));
        Ok(())
    }

    /// Makes the map larger, with free bits. The caller grew the stream.
    fn grow(&mut self, bits: u64) {
        self.bytes.resize((bits.div_ceil(64) * 8) as usize, 0);
        let first = self.bits / 8 / PAGE as u64;
        self.dirty.extend(first as usize..=(self.bytes.len() - 1) / PAGE);
        self.free += bits - self.bits;
        self.bits = bits;
    }

    /// The free bits from `from` on, at most `most`, as a range; `None` when there are none up to `end`.
    fn free_run(&self, from: u64, end: u64, most: u64) -> Option<Range<u64>> {
        let mut at = from;
        while at < end && self.get(at) {
            at = if at.is_multiple_of(8) && self.bytes[(at / 8) as usize] == 0xFF { at + 8 } else { at + 1 };
        }
        if at >= end {
            return None;
        }
        let start = at;
        while at < end && at - start < most && !self.get(at) {
            at += 1;
        }
        Some(start..at)
    }

    /// All ranges of free bits, in order.
    pub(crate) fn free_runs(&self) -> Vec<Range<u64>> {
        let (mut at, mut out) = (0, Vec::new());
        while let Some(run) = self.free_run(at, self.bits, u64::MAX) {
            at = run.end;
            out.push(run);
        }
        out
    }

    /// Finds `count` free bits, near `hint`, in one run where there is one.
    fn find(&self, count: u64, hint: u64) -> Option<Vec<Range<u64>>> {
        if count > self.free {
            return None;
        }
        let hint = if hint < self.bits { hint } else { 0 };
        // Going on where the file ends is best, even in part.
        let mut pieces = Vec::new();
        for (from, end) in [(hint, self.bits), (0, hint)] {
            let mut at = from;
            while let Some(run) = self.free_run(at, end, count) {
                at = run.end;
                if run.end - run.start == count {
                    return Some(vec![run]);
                }
                pieces.push(run);
            }
        }
        let mut left = count;
        pieces.sort_by_key(|r| std::cmp::Reverse(r.end - r.start));
        let mut taken = Vec::new();
        for run in pieces {
            let length = (run.end - run.start).min(left);
            taken.push(run.start..run.start + length);
            left -= length;
            if left == 0 {
                taken.sort_by_key(|r| r.start);
                return Some(taken);
            }
        }
        None
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The byte ranges that changed since the last call.
    pub(crate) fn take_dirty(&mut self) -> Vec<Range<usize>> {
        let pages = std::mem::take(&mut self.dirty);
        let length = self.bytes.len();
        pages
            .into_iter()
            .map(|p| p * PAGE..((p + 1) * PAGE).min(length))
            .filter(|r| r.start < r.end)
            .collect()
    }
}

impl Core {
    /// Takes `count` clusters, near `hint`.
    ///
    /// # Errors
    /// `NoSpace`.
    pub(crate) fn allocate(&mut self, count: u64, hint: Option<u64>) -> Result<Vec<Run>> {
        self.count_allocation()?;
        let hint = hint.unwrap_or(self.clusters.cursor);
        let found = self.clusters.find(count, hint).ok_or_else(|| {
            Error::no_space(Layer::Ntfs, "no free clusters left on the volume")
                .expected(format!("{count} free clusters"))
                .found(self.clusters.free())
        })?;
        let mut taken = Vec::new();
        for range in found {
            self.clusters.set(range.clone(), true)?;
            self.clusters.cursor = range.end;
            runs::push(&mut taken, Run { lcn: Some(range.start), count: range.end - range.start });
        }
        Ok(taken)
    }

    /// Fails where a test wants to see what happens then.
    #[cfg_attr(not(test), allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests only"))]
    fn count_allocation(&mut self) -> Result<()> {
        #[cfg(test)]
        if let Some(left) = &mut self.allocations_left {
            if *left == 0 {
                return Err(Error::no_space(Layer::Ntfs, "a test says so"));
            }
            *left -= 1;
        }
        Ok(())
    }

    /// Gives clusters back, once the operation has succeeded.
    pub(crate) fn release(&mut self, runs: &[Run]) {
        self.freed.extend_from_slice(runs);
    }

    /// Frees clusters in the map.
    pub(crate) fn release_now(&mut self, run: Run) -> Result<()> {
        let Some(lcn) = run.lcn else { return Ok(()) };
        self.clusters.set(lcn..lcn + run.count, false)?;
        self.drop_blocks(lcn, run.count);
        Ok(())
    }

    /// Makes a stream at least `bytes` long in clusters, behind what it has.
    pub(crate) fn extend(&mut self, stream: &mut Stream, bytes: u64) -> Result<()> {
        let need = bytes.div_ceil(self.geometry.cluster_bytes);
        let have = runs::clusters(&stream.runs);
        if need > have {
            let hint = stream.runs.iter().rev().find_map(|r| r.lcn.map(|lcn| lcn + r.count));
            for run in self.allocate(need - have, hint)? {
                runs::push(&mut stream.runs, run);
            }
            stream.allocated_bytes = need * self.geometry.cluster_bytes;
            stream.total_allocated_bytes += (need - have) * self.geometry.cluster_bytes;
        }
        Ok(())
    }

    /// Takes a free file record: its number and the sequence number it goes on with.
    pub(crate) fn allocate_record(&mut self, for_mft: bool) -> Result<(u64, u16)> {
        self.count_allocation()?;
        let range = if for_mft { MFT_EXTENSIONS } else { FIRST_USER_RECORD..self.records.bits() };
        let from = if for_mft { range.start } else { self.records.cursor.max(range.start) };
        let mut found = self.records.free_run(from, range.end, 1);
        if found.is_none() {
            found = self.records.free_run(range.start, range.end, 1);
        }
        let number = match found {
            Some(run) => run.start,
            None if for_mft => return Err(Error::no_space(Layer::Ntfs, "$MFT is too fragmented to grow")),
            None => {
                let number = self.records.bits();
                self.grow_mft()?;
                number
            }
        };
        if !self.is_formatted(number)? {
            let length = self.geometry.record_bytes;
            let empty = record::encode(&Header::new(number, 1, 0), &[], length);
            self.put_record(number, empty.ok_or_else(|| damaged("an empty record that does not fit"))?)?;
        }
        let bytes = self.record(number)?;
        let (header, _) = record::decode(&bytes, number)?;
        if header.flags & IN_USE != 0 {
            return Err(damaged(format!("file record {number:#x} is in use but free in $MFT's bitmap")));
        }
        self.records.set(number..number + 1, true)?;
        self.records.cursor = number + 1;
        Ok((number, header.sequence.max(1)))
    }

    /// False for a record that Windows has room for but never wrote: it carries no signature at all.
    fn is_formatted(&mut self, number: u64) -> Result<bool> {
        let Err(error) = self.record(number) else { return Ok(true) };
        let length = self.geometry.record_bytes;
        let pieces = self.pieces(&self.mft.data, number * length as u64, length)?;
        let mut signature = [0; 4];
        let (at, _) = *pieces.first().ok_or_else(|| damaged("a record without a place"))?;
        self.disk.read_at(at, &mut signature)?;
        if matches!(&signature, b"FILE" | b"BAAD") { Err(error) } else { Ok(false) }
    }

    /// Frees a file record.
    pub(crate) fn free_record(&mut self, number: u64) -> Result<()> {
        let bytes = self.record(number)?;
        let (mut header, _) = record::decode(&bytes, number)?;
        header.sequence = header.sequence.wrapping_add(1).max(1);
        header.flags &= !IN_USE;
        header.links = 0;
        header.base = 0;
        let empty = record::encode(&header, &[], self.geometry.record_bytes);
        self.put_record(number, empty.ok_or_else(|| damaged("an empty record that does not fit"))?)?;
        self.records.set(number..number + 1, false)?;
        self.records.cursor = self.records.cursor.min(number);
        Ok(())
    }

    /// Makes room for more file records.
    fn grow_mft(&mut self) -> Result<()> {
        self.keep_mft();
        let record_bytes = self.geometry.record_bytes as u64;
        let mut file = File::load(self, 0)?;
        let old = self.records.bits();
        // An eighth more, so that many small files do not rewrite it each time, if there is room for that.
        let wish = (old / 8).clamp(64, 4096);
        let clusters = (wish * record_bytes).div_ceil(self.geometry.cluster_bytes);
        let cluster_records = self.geometry.cluster_bytes.max(record_bytes) / record_bytes;
        let more = if self.clusters.free() > clusters * 4 { wish } else { cluster_records };
        let new = (old + more).next_multiple_of(cluster_records);
        let data = file.stream_mut(kind::DATA, "")?;
        let mut stream = data.clone();
        self.extend(&mut stream, new * record_bytes)?;
        stream.size_bytes = new * record_bytes;
        stream.initialized_bytes = stream.size_bytes;
        *file.stream_mut(kind::DATA, "")? = stream.clone();
        let bitmap_bytes = new.div_ceil(64) * 8;
        let mut bitmap = self.mft.bitmap.clone();
        if bitmap_bytes > bitmap.size_bytes {
            self.extend(&mut bitmap, bitmap_bytes)?;
            bitmap.size_bytes = bitmap_bytes;
            bitmap.initialized_bytes = bitmap_bytes;
            *file.stream_mut(kind::BITMAP, "")? = bitmap.clone();
        }
        self.mft.data = stream;
        self.mft.bitmap = bitmap;
        self.records.grow(new);
        for number in old..new {
            let empty = record::encode(&Header::new(number, 1, 0), &[], record_bytes as usize);
            self.put_record(number, empty.ok_or_else(|| damaged("an empty record that does not fit"))?)?;
        }
        file.store(self)
    }
}

/// The runs of a non-resident attribute.
pub(crate) fn stream_of(attribute: &Attribute) -> Option<&Stream> {
    match &attribute.body {
        Body::Runs(stream) => Some(stream),
        Body::Resident(_) => None,
    }
}
