//! Encrypt-on-write: which chunks of a volume are encrypted already (FVE_EOW_INFORMATION, FVE_EOW_BITMAP and its records).
//!
//! Windows 10 encrypts a volume in chunks, in any order, and keeps a bitmap for each region of the volume. A bitmap has two records
//! written in turn; the one with the higher sequence number counts. Every structure has a CRC-32 over itself, with the field zero.
//! Format: dissect.fve (after fvevol.sys). Missing: the conversion log, which holds what was under way when the machine stopped; it
//! is only known where it lies.

use std::ops::Range;
use vmrescue_base::bytes::{u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::Disk;

/// Most regions of a volume: one for 256 MiB, so this is 16 TiB.
const MAX_REGIONS: usize = 1 << 16;
/// Most bytes of a bitmap with its records.
const MAX_BITMAP_BYTES: u64 = 1 << 20;
/// Most bytes of bitmaps that are kept of a volume.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// Most bytes of the record of regions.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// A region with its chunks.
pub(super) struct Region {
    /// Bytes of the volume.
    pub(super) range: Range<u64>,
    /// Bytes of one chunk; the last one may be shorter.
    pub(super) chunk_bytes: u64,
    /// A bit for each chunk: it is encrypted.
    pub(super) bits: Vec<u8>,
}

/// All regions, and the places that Windows keeps for them.
pub(super) struct OnWrite {
    pub(super) regions: Vec<Region>,
    /// Records, bitmaps and conversion logs, in bytes of the volume.
    pub(super) reserved: Vec<Range<u64>>,
}

fn damaged(text: &str, at: u64) -> Error {
    Error::damaged(Layer::BitLocker, format!("encrypt-on-write {text}")).at(at)
}

/// True when the CRC-32 in `bytes` at `field` is right, with the field itself taken as zero.
fn sum_is_right(bytes: &[u8], field: usize) -> bool {
    let Some(sum) = u32_at(bytes, field) else { return false };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..field]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[field + 4..]);
    hasher.finalize() == sum
}

/// Reads the structures that the first sector names; the first whole copy of the record counts.
pub(super) fn read(volume: &Disk, copies: &[u64]) -> Result<OnWrite> {
    let mut last = None;
    for copy in copies {
        match read_copy(volume, *copy) {
            Ok(found) => return Ok(found),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| damaged("has no place", 0)))
}

fn take(volume: &Disk, offset: u64, length: u64) -> Result<Vec<u8>> {
    if offset.checked_add(length).is_none_or(|end| end > volume.len()) {
        return Err(damaged("lies beyond the volume", offset));
    }
    volume.read_vec(offset, length as usize)
}

fn read_copy(volume: &Disk, offset: u64) -> Result<OnWrite> {
    let head = take(volume, offset, 64)?;
    let size = u16_at(&head, 10).map_or(0, usize::from);
    let header = u16_at(&head, 8).map_or(0, usize::from);
    if !head.starts_with(b"FVE-EOW\0") || header < 56 || size < header || size > MAX_RECORD_BYTES {
        return Err(damaged("record is none", offset));
    }
    let record = take(volume, offset, size as u64)?;
    if !sum_is_right(&record, 36) {
        return Err(damaged("record has a wrong checksum", offset));
    }
    let field = |at| u64::from(u32_at(&record, at).unwrap_or(0));
    let (chunk_bytes, log_bytes) = (field(20), field(24));
    if !chunk_bytes.is_power_of_two() || chunk_bytes < 4096 {
        return Err(damaged("chunks have an impossible size", offset).found(chunk_bytes));
    }
    let copies: Vec<u64> = [40, 48].iter().filter_map(|at| u64_at(&record, *at)).collect();
    let mut reserved: Vec<Range<u64>> =
        copies.into_iter().map(|at| at..at.saturating_add(size as u64)).collect();
    let places: Vec<u64> = (header..size).step_by(8).filter_map(|at| u64_at(&record, at)).collect();
    if places.len() > MAX_REGIONS {
        return Err(Error::limit(Layer::BitLocker, "regions of a volume").at(offset).found(places.len()));
    }
    // One place named twice would be read twice; no two regions have one bitmap.
    let distinct: std::collections::BTreeSet<&u64> = places.iter().collect();
    if distinct.len() != places.len() {
        return Err(damaged("record names a bitmap twice", offset));
    }
    let (mut regions, mut kept) = (Vec::new(), 0);
    for place in places {
        let (region, bytes, log) = bitmap(volume, place, chunk_bytes)?;
        kept += region.bits.len();
        if kept > MAX_KEPT_BYTES {
            return Err(Error::limit(Layer::BitLocker, "bitmaps of a volume").at(place).found(kept));
        }
        reserved.push(place..place.saturating_add(bytes));
        reserved.push(log..log.saturating_add(log_bytes));
        regions.push(region);
    }
    regions.sort_by_key(|region| region.range.start);
    if regions.windows(2).any(|two| two[0].range.end > two[1].range.start) {
        return Err(damaged("regions overlap", offset));
    }
    Ok(OnWrite { regions, reserved })
}

/// A bitmap: its region, its own size, and the place of its conversion log.
fn bitmap(volume: &Disk, offset: u64, chunk_bytes: u64) -> Result<(Region, u64, u64)> {
    let head = take(volume, offset, 60)?;
    let number = |at| u32_at(&head, at).map_or(0, u64::from);
    let long = |at| u64_at(&head, at).unwrap_or(0);
    let size = number(12);
    let records = [number(44), number(48)];
    let first = records[0].min(records[1]);
    if !head.starts_with(b"FVE-EOWBM\0") || size > MAX_BITMAP_BYTES || first < 60 || first > size {
        return Err(damaged("bitmap is none", offset));
    }
    let all = take(volume, offset, size)?;
    if !sum_is_right(&all[..first as usize], 56) {
        return Err(damaged("bitmap has a wrong checksum", offset));
    }
    let start = long(20);
    let end = start.checked_add(long(28)).ok_or_else(|| damaged("region has no end", offset))?;
    if start == end {
        return Err(damaged("region is empty", offset).found(format!("{start:#x}")));
    }
    let chunks = (end - start).div_ceil(chunk_bytes);
    let newest =
        records.iter().filter_map(|at| bitmap_record(&all, *at, chunks)).max_by_key(|(order, _)| *order);
    let (_, bits) = newest.ok_or_else(|| damaged("bitmap has no whole record", offset))?;
    Ok((Region { range: start..end, chunk_bytes, bits }, size, long(36)))
}

/// Sequence number and bits of a record, when it is whole and has a bit for each of `chunks`.
fn bitmap_record(bitmap: &[u8], at: u64, chunks: u64) -> Option<(u64, Vec<u8>)> {
    let rest = bitmap.get(usize::try_from(at).ok()?..)?;
    let header = usize::from(u16_at(rest, 10)?);
    let record = rest.get(..u32_at(rest, 12)? as usize)?;
    let right =
        record.starts_with(b"FVE-EOWBR\0") && header >= 36 && record.len() >= 36 && sum_is_right(record, 32);
    let bits = record.get(header..).filter(|_| right)?;
    let enough = u64::from(u32_at(record, 16)?) >= chunks && bits.len() as u64 >= chunks.div_ceil(8);
    let needed = chunks.div_ceil(8) as usize; // not more than there are
    enough.then(|| (u64_at(record, 20).unwrap_or(0), bits[..needed].to_vec()))
}

impl Region {
    /// Stretches of the region in order, and whether each is encrypted.
    pub(super) fn stretches(&self) -> Vec<(Range<u64>, bool)> {
        let mut found: Vec<(Range<u64>, bool)> = Vec::new();
        let mut at = self.range.start;
        let mut number = 0usize;
        while at < self.range.end {
            let end = at.saturating_add(self.chunk_bytes).min(self.range.end);
            let bit = self.bits.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1);
            match found.last_mut() {
                Some((range, same)) if *same == bit => range.end = end,
                _ => found.push((at..end, bit)),
            }
            (at, number) = (end, number + 1);
        }
        found
    }
}
