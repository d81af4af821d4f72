//! The log ([MS-VHDX] 2.3): the last writes to the metadata of a file whose writer never finished.

use super::format::{ALIGN, is_sealed};
use super::header::Header;
use std::ops::Range;
use vmrescue_base::bytes::{u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_block::{Disk, DiskMut};

const SECTOR: usize = 4096;
const MAX_LOG_BYTES: u64 = 256 << 20;
const ENTRY: &[u8] = b"loge";
/// What is never changed through the log: the identifier and both headers.
const HEADERS_END: u64 = 192 << 10;

/// One entry that is whole.
struct Entry {
    sequence: u64,
    tail: u32,
    bytes: Vec<u8>,
    descriptors: usize,
    flushed_bytes: u64,
    last_bytes: u64,
}

/// The entries to replay, oldest first.
pub(super) struct Sequence {
    entries: Vec<Entry>,
    /// Where the log lies in the file.
    log: Range<u64>,
}

/// `length` bytes of the circular log from `offset`.
fn around(log: &[u8], offset: usize, length: usize) -> Vec<u8> {
    (0..length / SECTOR)
        .flat_map(|i| {
            let at = (offset + i * SECTOR) % log.len();
            log[at..at + SECTOR].iter().copied()
        })
        .collect()
}

/// The length of the entry whose first sector stands at `offset`, when nothing that can be told without summing speaks
/// against it. No entry begins inside another one: sectors in between say `desc`, `zero` or `data`. So what passes here
/// does not overlap, and no byte of a log is copied and summed for more than one entry, whatever its headers say.
fn length_at(log: &[u8], offset: usize, guid: &Guid) -> Option<usize> {
    let head = log.get(offset..offset + 64)?;
    if &head[..4] != ENTRY || Guid::at(head, 32)? != *guid || u64_at(head, 16)? == 0 {
        return None;
    }
    let (length, tail) = (u32_at(head, 8)? as usize, u32_at(head, 12)? as usize);
    let whole = |bytes: usize| bytes.is_multiple_of(SECTOR);
    if length < SECTOR || !whole(length) || length > log.len() || !whole(tail) || tail >= log.len() {
        return None;
    }
    if 64 + (u32_at(head, 24)? as usize).checked_mul(32)? > length {
        return None;
    }
    let inside = (1..length / SECTOR).all(|sector| {
        let at = (offset + sector * SECTOR) % log.len();
        log.get(at..at + 4).is_some_and(|signature| signature != ENTRY)
    });
    inside.then_some(length)
}

fn entry_at(log: &[u8], offset: usize, guid: &Guid) -> Option<Entry> {
    let bytes = around(log, offset, length_at(log, offset, guid)?);
    let entry = Entry {
        sequence: u64_at(&bytes, 16)?,
        tail: u32_at(&bytes, 12)?,
        descriptors: u32_at(&bytes, 24)? as usize,
        flushed_bytes: u64_at(&bytes, 48)?,
        last_bytes: u64_at(&bytes, 56)?,
        bytes,
    };
    (is_sealed(&entry.bytes, 4) && entry.is_consistent()).then_some(entry)
}

impl Entry {
    fn first_data(&self) -> usize {
        (64 + self.descriptors * 32).next_multiple_of(SECTOR)
    }

    fn descriptor(&self, i: usize) -> Option<&[u8]> {
        self.bytes.get(64 + i * 32..96 + i * 32)
    }

    /// Every descriptor and data sector carries the entry's sequence number, and descriptors name whole sectors.
    fn is_consistent(&self) -> bool {
        let mut data = 0;
        for i in 0..self.descriptors {
            let Some(descriptor) = self.descriptor(i) else { return false };
            let whole = |at| u64_at(descriptor, at).is_some_and(|bytes| bytes.is_multiple_of(SECTOR as u64));
            if u64_at(descriptor, 24) != Some(self.sequence) || !whole(16) {
                return false;
            }
            match &descriptor[..4] {
                b"zero" if whole(8) => {}
                b"desc" => {
                    if self.data(data).is_none() {
                        return false;
                    }
                    data += 1;
                }
                _ => return false,
            }
        }
        self.first_data() + data * SECTOR <= self.bytes.len()
    }

    fn data(&self, i: usize) -> Option<&[u8]> {
        let start = self.first_data() + i * SECTOR;
        let sector = self.bytes.get(start..start + SECTOR)?;
        let (high, low) = (u64::from(u32_at(sector, 4)?), u64::from(u32_at(sector, 4092)?));
        (&sector[..4] == b"data" && (high << 32 | low) == self.sequence).then_some(sector)
    }
}

/// Finds the active sequence: the one with the highest number whose entries follow one another from its tail.
pub(super) fn active_sequence(file: &Disk, header: &Header) -> Result<Sequence> {
    let length = header.log.end - header.log.start;
    if length == 0 || !length.is_multiple_of(ALIGN) || length > MAX_LOG_BYTES || header.log.end > file.len() {
        return Err(Error::damaged(Layer::Vhdx, "the log lies outside the file or has an odd size")
            .at(header.log.start)
            .found(format!("{length:#x} bytes")));
    }
    let log = file.read_vec(header.log.start, length as usize)?;
    let mut best: Option<(u64, Vec<Entry>)> = None;
    let mut start = 0;
    while start < log.len() {
        let (entries, next) = sequence_from(&log, start, &header.log_guid);
        if let Some(last) = entries.last() {
            let tail = last.tail as usize;
            let number = last.sequence;
            // The tail must be an entry of this run, or the run is what an older lap left.
            let mut places = start;
            let from_tail = entries.iter().position(|entry| {
                let here = places % log.len();
                places += entry.bytes.len();
                here == tail
            });
            if let Some(first) = from_tail
                && best.as_ref().is_none_or(|(old, _)| number > *old)
            {
                best = Some((number, entries.into_iter().skip(first).collect()));
            }
        }
        start = next;
    }
    match best {
        Some((_, entries)) => Ok(Sequence { entries, log: header.log.clone() }),
        None => Err(Error::damaged(Layer::Vhdx, "the header names a log, but the log has no whole sequence")
            .at(header.log.start)
            .advice(
                "the file was cut off or is still being written; restore it, or let Hyper-V open it once",
            )),
    }
}

/// The run of entries with rising numbers from `start`, and where to look next.
fn sequence_from(log: &[u8], start: usize, guid: &Guid) -> (Vec<Entry>, usize) {
    let (mut entries, mut offset, mut used) = (Vec::<Entry>::new(), start, 0);
    while used < log.len() {
        let Some(entry) = entry_at(log, offset % log.len(), guid) else { break };
        if entries.last().is_some_and(|last| entry.sequence != last.sequence + 1) {
            break;
        }
        used += entry.bytes.len();
        offset += entry.bytes.len();
        entries.push(entry);
    }
    (entries, if used == 0 { start + SECTOR } else { start + used })
}

/// Applies the sequence; true when something was there to apply.
pub(super) fn replay(file: &DiskMut, sequence: &Sequence) -> Result<bool> {
    let Sequence { entries, log } = sequence;
    for entry in entries {
        if file.len() < entry.flushed_bytes {
            return Err(Error::damaged(Layer::Vhdx, "the file is shorter than when its log was written")
                .expected(format!("at least {:#x} bytes", entry.flushed_bytes))
                .found(format!("{:#x}", file.len()))
                .advice("the file was cut off; restore it from a copy"));
        }
        if file.len() < entry.last_bytes && entry.last_bytes <= vmrescue_base::limits::MAX_DISK_BYTES * 2 {
            file.set_length(entry.last_bytes)?;
        }
        let mut data = 0;
        for i in 0..entry.descriptors {
            let Some(descriptor) = entry.descriptor(i) else { break };
            let offset = u64_at(descriptor, 16).unwrap_or_default();
            let zero = &descriptor[..4] == b"zero";
            let length = if zero { u64_at(descriptor, 8).unwrap_or_default() } else { SECTOR as u64 };
            let end = offset.saturating_add(length);
            if offset < HEADERS_END || (offset < log.end && log.start < end) {
                return Err(Error::damaged(Layer::Vhdx, "the log writes over the headers or over itself")
                    .at(log.start)
                    .found(format!("{offset:#x} to {end:#x}"))
                    .advice("nothing was replayed; restore the file from a copy"));
            }
            if zero {
                file.zero_at(offset..end)?;
            } else {
                let Some(sector) = entry.data(data) else { break };
                data += 1;
                let mut bytes = descriptor[8..16].to_vec();
                bytes.extend_from_slice(&sector[8..4092]);
                bytes.extend_from_slice(&descriptor[4..8]);
                file.write_at(offset, &bytes)?;
            }
        }
    }
    Ok(!entries.is_empty())
}

/// One entry with one data sector, for tests of replay.
#[cfg(test)]
pub(super) fn entry(guid: &Guid, sequence: u64, file_bytes: u64, place: u64, sector: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 2 * SECTOR];
    bytes[..4].copy_from_slice(b"loge");
    bytes[8..12].copy_from_slice(&(2 * SECTOR as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    bytes[24] = 1;
    bytes[32..48].copy_from_slice(&guid.0);
    bytes[48..56].copy_from_slice(&file_bytes.to_le_bytes());
    bytes[56..64].copy_from_slice(&file_bytes.to_le_bytes());
    let descriptor = &mut bytes[64..96];
    descriptor[..4].copy_from_slice(b"desc");
    descriptor[4..8].copy_from_slice(&sector[4092..]);
    descriptor[8..16].copy_from_slice(&sector[..8]);
    descriptor[16..24].copy_from_slice(&place.to_le_bytes());
    descriptor[24..32].copy_from_slice(&sequence.to_le_bytes());
    let data = &mut bytes[SECTOR..];
    data[..4].copy_from_slice(b"data");
    data[4..8].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
    data[8..4092].copy_from_slice(&sector[8..4092]);
    data[4092..].copy_from_slice(&(sequence as u32).to_le_bytes());
    super::format::sealed(bytes, 4)
}
