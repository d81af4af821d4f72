//! The journal of one operation: for each range of the host file the bytes before and after.
//!
//! Layout, little-endian: magic `VMRJRNL1`, u64 length of the image before, u64 length after, u64 count of entries;
//! each entry u64 offset, u32 bytes before, u32 bytes after, u32 CRC-32C of before, u32 CRC-32C of after, then both.
//! A count of bytes with the highest bit set means so many zeros, which are not stored: what a file grows into mostly was zero.
//! The last four bytes are the CRC-32C of everything ahead of them. Bytes beyond the old (new) end of the image
//! are not part of before (after).

use super::place::Place;
use super::record::OperationId;
use std::io::Write;
use std::ops::Range;
use vmrescue_base::bytes::{u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut};

const MAGIC: &[u8; 8] = b"VMRJRNL1";
const HEADER_BYTES: u64 = 32;
const ENTRY_BYTES: u64 = 24;
/// Most bytes of one entry, so that writing and applying take bounded memory.
const CHUNK_BYTES: u64 = 1 << 20;

/// In a count of bytes: they are zeros, and not in the journal.
const ZEROS: u32 = 1 << 31;

/// Which bytes of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// Name of the journal of an operation.
pub(super) fn name(id: OperationId) -> String {
    format!("{id}.journal")
}

/// Passes bytes on and keeps their checksum.
struct Summed<'a> {
    out: &'a mut dyn Write,
    sum: u32,
}

impl Summed<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.out.write_all(bytes).map_err(|e| Error::io("the journal cannot be written", "journal", e))
    }
}

/// The part of `range` that lies inside `disk`.
fn read_inside(disk: &Disk, range: &Range<u64>) -> Result<Vec<u8>> {
    let end = range.end.min(disk.len());
    if range.start >= end { Ok(Vec::new()) } else { disk.read_vec(range.start, (end - range.start) as usize) }
}

/// Writes the journal of changing `ranges` of `image` into what `staged` holds there. A cut of the image is covered:
/// the bytes that it loses are part of before.
pub(super) fn write(
    out: &mut dyn Write,
    image: &DiskMut,
    staged: &Disk,
    ranges: &[Range<u64>],
) -> Result<()> {
    let image = image.as_disk();
    let cut = staged.len()..image.len();
    let chunks: Vec<Range<u64>> = ranges
        .iter()
        .cloned()
        .chain((!cut.is_empty()).then_some(cut))
        .flat_map(|range| {
            (range.start..range.end)
                .step_by(CHUNK_BYTES as usize)
                .map(move |start| start..(start + CHUNK_BYTES).min(range.end))
        })
        .collect();
    let mut out = Summed { out, sum: 0 };
    out.put(MAGIC)?;
    out.put(&image.len().to_le_bytes())?;
    out.put(&staged.len().to_le_bytes())?;
    out.put(&(chunks.len() as u64).to_le_bytes())?;
    for range in &chunks {
        let (before, after) = (read_inside(&image, range)?, read_inside(staged, range)?);
        let zeros = [&before, &after].map(|bytes| !bytes.is_empty() && vmrescue_base::bytes::is_zero(bytes));
        let count = |bytes: &[u8], zeros| bytes.len() as u32 | if zeros { ZEROS } else { 0 };
        out.put(&range.start.to_le_bytes())?;
        out.put(&count(&before, zeros[0]).to_le_bytes())?;
        out.put(&count(&after, zeros[1]).to_le_bytes())?;
        out.put(&crc32c::crc32c(&before).to_le_bytes())?;
        out.put(&crc32c::crc32c(&after).to_le_bytes())?;
        for (bytes, zeros) in [&before, &after].into_iter().zip(zeros) {
            if !zeros {
                out.put(bytes)?;
            }
        }
    }
    let sum = out.sum;
    out.put(&sum.to_le_bytes())
}

/// The bytes of one side of an entry.
#[derive(Clone, Copy)]
struct Stored {
    /// Where they are in the journal; `None` for zeros.
    place: Option<u64>,
    length: usize,
    sum: u32,
}

impl Stored {
    fn read(self, file: &Disk) -> Result<Vec<u8>> {
        let Some(place) = self.place else { return Ok(vec![0; self.length]) };
        let data = file.read_vec(place, self.length)?;
        if crc32c::crc32c(&data) != self.sum {
            return Err(broken("wrong checksum of an entry", place));
        }
        Ok(data)
    }
}

struct Entry {
    offset: u64,
    before: Stored,
    after: Stored,
}

impl Entry {
    fn side(&self, side: Side) -> Stored {
        match side {
            Side::Before => self.before,
            Side::After => self.after,
        }
    }
}

/// A journal that was read and found whole.
pub(super) struct Journal {
    file: Disk,
    length_before: u64,
    length_after: u64,
    entries: Vec<Entry>,
}

fn broken(what: &str, offset: u64) -> Error {
    Error::damaged(Layer::Transaction, format!("the journal is damaged: {what}"))
        .at(offset)
        .advice("the journal cannot be used; restore the image from a copy if it does not open")
}

impl Journal {
    /// Opens the journal of an operation and checks all of it.
    pub(super) fn open(place: &dyn Place, id: OperationId) -> Result<Journal> {
        let file = place.open(&name(id))?;
        let length = file.len();
        if length < HEADER_BYTES + 4 {
            return Err(broken("too short", length));
        }
        check_sum(&file)?;
        let header = file.read_vec(0, HEADER_BYTES as usize)?;
        let number = |at| u64_at(&header, at).unwrap_or_default();
        if header[..8] != MAGIC[..] {
            return Err(broken("wrong magic", 0));
        }
        let (mut entries, mut place) = (Vec::new(), HEADER_BYTES);
        for _ in 0..number(24) {
            let head = file.read_vec(place, ENTRY_BYTES as usize).map_err(|_| broken("cut off", place))?;
            let small = |at| u32_at(&head, at).unwrap_or_default();
            let offset = u64_at(&head, 0).unwrap_or_default();
            let mut end = place + ENTRY_BYTES;
            let mut side = |count: u32, sum: u32| {
                let length = count & !ZEROS;
                let stored =
                    Stored { place: (count & ZEROS == 0).then_some(end), length: length as usize, sum };
                end += if count & ZEROS == 0 { u64::from(length) } else { 0 };
                stored
            };
            let (before, after) = (side(small(8), small(16)), side(small(12), small(20)));
            if end > length - 4 || before.length.max(after.length) as u64 > CHUNK_BYTES {
                return Err(broken("an entry does not fit", place));
            }
            place = end;
            if offset.checked_add(CHUNK_BYTES).is_none() {
                return Err(broken("an entry lies beyond every disk", place));
            }
            entries.push(Entry { offset, before, after });
        }
        Ok(Journal { length_before: number(8), length_after: number(16), entries, file })
    }

    fn length(&self, side: Side) -> u64 {
        match side {
            Side::Before => self.length_before,
            Side::After => self.length_after,
        }
    }

    /// True when the image holds exactly this side wherever the operation touched it.
    pub(super) fn matches(&self, image: &Disk, side: Side) -> Result<bool> {
        if image.len() != self.length(side) {
            return Ok(false);
        }
        for entry in &self.entries {
            let stored = entry.side(side);
            let there = read_inside(image, &(entry.offset..entry.offset + stored.length as u64))?;
            if there.len() != stored.length || crc32c::crc32c(&there) != stored.sum {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes one side into the image, makes it durable, and reads it again.
    pub(super) fn apply(&self, image: &DiskMut, side: Side, progress: &dyn Progress) -> Result<()> {
        let length = self.length(side);
        if image.len() < length {
            image.set_length(length)?;
        }
        for entry in &self.entries {
            let data = entry.side(side).read(&self.file)?;
            image.write_at(entry.offset, &data)?;
            progress.advance(data.len() as u64);
        }
        if image.len() > length {
            image.set_length(length)?;
        }
        image.flush()?;
        if self.matches(&image.as_disk(), side)? {
            Ok(())
        } else {
            Err(Error::damaged(Layer::Transaction, "the image does not hold what was just written").advice(
                "the medium of the image may be failing; run `vmrescue recover IMAGE` on a sound one",
            ))
        }
    }
}

fn check_sum(file: &Disk) -> Result<()> {
    let (mut offset, mut sum) = (0, 0);
    let end = file.len() - 4;
    while offset < end {
        let bytes = file.read_vec(offset, (end - offset).min(CHUNK_BYTES) as usize)?;
        sum = crc32c::crc32c_append(sum, &bytes);
        offset += bytes.len() as u64;
    }
    let stored = u32_at(&file.read_vec(end, 4)?, 0);
    if stored == Some(sum) { Ok(()) } else { Err(broken("wrong checksum", end)) }
}
