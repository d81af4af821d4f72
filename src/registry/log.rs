//! Transaction logs: the new format (Windows 8.1 and later) of entries `HvLE` with dirty pages, and the old one, a bitmap
//! `DIRT` of 512-byte pages followed by these pages.
//!
//! The hive needs them when its two sequence numbers differ or its checksum is wrong. The log whose first entry is older
//! comes first; the other continues it. Replay stops at the first entry that is not whole or not next.

use super::cell::{BASE_BYTES, base_checksum};
use vmrescue_base::bytes::{slice_at, u32_at, u64_at};

const HASH_SEED: u64 = 0x82ef_4d88_7a4e_55c5;

/// Marvin32, as the entries' hashes use it.
fn marvin(data: &[u8]) -> u64 {
    let (mut low, mut high) = (HASH_SEED as u32, (HASH_SEED >> 32) as u32);
    let mut mix = |word: u32| {
        low = low.wrapping_add(word);
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
    };
    let (words, tail) = data.as_chunks::<4>();
    words.iter().for_each(|word| mix(u32::from_le_bytes(*word)));
    let mut last = [0u8; 4];
    last[..tail.len()].copy_from_slice(tail);
    last[tail.len()] = 0x80;
    mix(u32::from_le_bytes(last));
    mix(0);
    u64::from(high) << 32 | u64::from(low)
}

struct Entry<'a> {
    sequence: u32,
    bins_bytes: usize,
    pages: Vec<(usize, &'a [u8])>,
}

fn entry_at(log: &[u8], at: usize) -> Option<(Entry<'_>, usize)> {
    let size = u32_at(log, at + 4)? as usize;
    let bytes = slice_at(log, at, size).filter(|_| size >= 512 && size.is_multiple_of(512))?;
    if &bytes[..4] != b"HvLE"
        || marvin(&bytes[40..]) != u64_at(bytes, 24)?
        || marvin(&bytes[..32]) != u64_at(bytes, 32)?
    {
        return None;
    }
    let count = u32_at(bytes, 20)? as usize;
    let mut data = 40usize.checked_add(count.checked_mul(8)?)?;
    let mut pages = Vec::new();
    for i in 0..count {
        let (offset, length) = (u32_at(bytes, 40 + i * 8)? as usize, u32_at(bytes, 44 + i * 8)? as usize);
        pages.push((offset, slice_at(bytes, data, length)?));
        data += length;
    }
    let (sequence, bins_bytes) = (u32_at(bytes, 12)?, u32_at(bytes, 16)? as usize);
    Some((Entry { sequence, bins_bytes, pages }, size))
}

fn entries(log: &[u8]) -> Vec<Entry<'_>> {
    let base_right = log.get(..4) == Some(b"regf") && u32_at(log, 508) == Some(base_checksum(log));
    let (mut found, mut at) = (Vec::<Entry<'_>>::new(), 512);
    while base_right && let Some((entry, size)) = entry_at(log, at) {
        if found.last().is_some_and(|last| entry.sequence != last.sequence.wrapping_add(1)) {
            break;
        }
        at += size;
        found.push(entry);
    }
    found
}

/// Applies a log of the old format; the recovered hive and the sequence number of the log. The log must be whole (its own base
/// block) and belong to the hive: not older than what the hive has already.
fn replay_old(hive: &[u8], log: &[u8], base_right: bool) -> Option<(u32, Vec<u8>)> {
    let base = log.get(..512)?;
    let whole = base.starts_with(b"regf") && u32_at(log, 508) == Some(base_checksum(log));
    let sequence = u32_at(log, 4)?;
    if !whole || u32_at(log, 8)? != sequence || slice_at(log, 512, 4)? != b"DIRT" {
        return None;
    }
    if base_right && sequence < u32_at(hive, 8)? {
        return None;
    }
    let bins = u32_at(log, 40)? as usize;
    let pages = bins / 512;
    let bitmap = slice_at(log, 516, pages.div_ceil(8))?;
    let mut at = (516 + bitmap.len()).next_multiple_of(512);
    let mut bytes = hive.to_vec();
    let end =
        BASE_BYTES.checked_add(bins).filter(|end| *end as u64 <= vmrescue_base::limits::MAX_HIVE_BYTES)?;
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    for page in (0..pages).filter(|page| bitmap[page / 8] >> (page % 8) & 1 == 1) {
        let start = BASE_BYTES + page * 512;
        bytes.get_mut(start..start + 512)?.copy_from_slice(slice_at(log, at, 512)?);
        at += 512;
    }
    bytes.get_mut(..512)?.copy_from_slice(base);
    // The log's base block says that it is a log.
    bytes[28..32].fill(0);
    let sum = base_checksum(&bytes);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    Some((sequence, bytes))
}

/// The hive with the logs applied; `None` when it is clean or the logs have nothing for it.
pub(super) fn replay(hive: &[u8], logs: &[Vec<u8>]) -> Option<Vec<u8>> {
    let base_right = u32_at(hive, 508) == Some(base_checksum(hive)) && hive.get(..4) == Some(b"regf");
    if base_right && u32_at(hive, 4) == u32_at(hive, 8) {
        return None;
    }
    if let Some(recovered) =
        logs.iter().filter_map(|log| replay_old(hive, log, base_right)).max_by_key(|(at, _)| *at)
    {
        return Some(recovered.1);
    }
    let mut sequences: Vec<(&[u8], Vec<Entry<'_>>)> = logs
        .iter()
        .map(|log| (log.as_slice(), entries(log)))
        .filter(|(_, entries)| !entries.is_empty())
        .collect();
    sequences.sort_by_key(|(_, entries)| entries[0].sequence);
    // With a broken base block the log's copy of it is the only one.
    let mut bytes = if base_right {
        hive.to_vec()
    } else {
        let (log, _) = sequences.first()?;
        let mut bytes = hive.to_vec();
        bytes.get_mut(..512)?.copy_from_slice(log.get(..512)?);
        bytes
    };
    let first = u32_at(&bytes, 8)?;
    let (mut applied, mut expected) = (false, None);
    for entry in sequences.iter().flat_map(|(_, entries)| entries) {
        if entry.sequence < first || expected.is_some_and(|next| entry.sequence != next) {
            continue;
        }
        let end = BASE_BYTES.checked_add(entry.bins_bytes)?;
        if bytes.len() < end && end as u64 <= vmrescue_base::limits::MAX_HIVE_BYTES {
            bytes.resize(end, 0);
        }
        for (offset, page) in &entry.pages {
            let start = BASE_BYTES.checked_add(*offset)?;
            bytes.get_mut(start..start.checked_add(page.len())?)?.copy_from_slice(page);
        }
        bytes[40..44].copy_from_slice(&(entry.bins_bytes as u32).to_le_bytes());
        expected = Some(entry.sequence.wrapping_add(1));
        applied = true;
    }
    let next = expected.filter(|_| applied)?;
    bytes[4..8].copy_from_slice(&next.to_le_bytes());
    bytes[8..12].copy_from_slice(&next.to_le_bytes());
    let sum = base_checksum(&bytes);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    Some(bytes)
}
