//! The journal of one operation: for each range of the host file the bytes before and after.
//!
//! A journal has one part, or in a session (a mount, a server) one part for each time that something was published, each
//! appended and made durable before the image is touched. A part, little-endian: magic `VMRJRNL1`, u64 length of the image
//! before, u64 length after, u64 count of entries; each entry u64 offset, u32 bytes before, u32 bytes after, u32 CRC-32C of
//! before, u32 CRC-32C of after, then both. A count of bytes with the highest bit set means so many zeros, which are not
//! stored: what a file grows into mostly was zero. The last four bytes are the CRC-32C of everything ahead of them in the
//! part. Bytes beyond the old (new) end of the image are not part of before (after).
//!
//! In a session a part is followed by a mark once the image holds it: `VMRAPPLD`, u32 number of the part, u32 CRC-32C of
//! both. What follows the last whole part is what a crash left of the next one; the image does not know of it.

use super::place::Place;
use super::record::OperationId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use vmrescue_base::bytes::{is_zero, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut};

const MAGIC: &[u8; 8] = b"VMRJRNL1";
const MARK: &[u8; 8] = b"VMRAPPLD";
const HEADER_BYTES: u64 = 32;
const ENTRY_BYTES: u64 = 24;
/// Bytes of the mark behind a part that the image holds.
pub(super) const MARK_BYTES: u64 = 16;
/// Most bytes of one entry, so that writing and applying take bounded memory.
const CHUNK_BYTES: u64 = 1 << 20;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// In a count of bytes: they are zeros, and not in the journal.
const ZEROS: u32 = 1 << 31;

/// Which bytes of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// What an image holds where an operation touched it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// What was there before, everywhere.
    Before,
    /// What the operation wrote, everywhere.
    After,
    /// Whole sectors of both: the operation was interrupted.
    Mixed,
    /// Bytes at this offset that the operation neither found nor wrote.
    Neither {
        /// Where, in the image file.
        offset: u64,
        /// What is there.
        what: String,
    },
}

/// Where what was written is read again from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The host is told to let go of its copy in memory first.
    FromMedium,
    /// Whatever the host gives: that the bytes are at their places, not that the medium has them. A session publishes
    /// often, and would wait for the medium each time.
    FromMemory,
}

/// Which parts of a journal count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// All of them: undo, redo.
    Whole,
    /// The last one; of all others the image must hold the bytes after: what a crash while publishing leaves.
    LastPart,
}

/// Hashes of all ranges with their offsets, in hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hashes {
    pub(super) before: String,
    pub(super) after: String,
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

/// Writes a part: changing `ranges` of `image` into what `staged` holds there. A cut of the image is covered: the bytes
/// that it loses are part of before.
pub(super) fn write(
    out: &mut dyn Write,
    image: &DiskMut,
    staged: &Disk,
    ranges: &[Range<u64>],
) -> Result<Hashes> {
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
    let mut hashes = [Sha256::new(), Sha256::new()];
    out.put(MAGIC)?;
    out.put(&image.len().to_le_bytes())?;
    out.put(&staged.len().to_le_bytes())?;
    out.put(&(chunks.len() as u64).to_le_bytes())?;
    for range in &chunks {
        let (before, after) = (read_inside(&image, range)?, read_inside(staged, range)?);
        let zeros = [&before, &after].map(|bytes| !bytes.is_empty() && is_zero(bytes));
        let count = |bytes: &[u8], zeros| bytes.len() as u32 | if zeros { ZEROS } else { 0 };
        out.put(&range.start.to_le_bytes())?;
        out.put(&count(&before, zeros[0]).to_le_bytes())?;
        out.put(&count(&after, zeros[1]).to_le_bytes())?;
        out.put(&crc32c::crc32c(&before).to_le_bytes())?;
        out.put(&crc32c::crc32c(&after).to_le_bytes())?;
        for ((bytes, zeros), hash) in [&before, &after].into_iter().zip(zeros).zip(&mut hashes) {
            hash.update(range.start.to_le_bytes());
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
            if !zeros {
                out.put(bytes)?;
            }
        }
    }
    let sum = out.sum;
    out.put(&sum.to_le_bytes())?;
    let [before, after] = hashes.map(|hash| vmrescue_base::text::hex(&hash.finalize()));
    Ok(Hashes { before, after })
}

/// The mark that the image holds part `number`, counted from 0.
pub(super) fn mark(number: u32) -> [u8; MARK_BYTES as usize] {
    let mut bytes = [0; MARK_BYTES as usize];
    bytes[..8].copy_from_slice(MARK);
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Where the bytes of one side are.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// At this offset of the journal.
    At(u64),
    Zeros,
}

impl Source {
    fn skip(self, bytes: u64) -> Source {
        match self {
            Source::At(place) => Source::At(place + bytes),
            Source::Zeros => Source::Zeros,
        }
    }
}

struct Entry {
    offset: u64,
    before: (Source, u64),
    after: (Source, u64),
}

/// One part of a journal, found whole.
struct Part {
    /// Behind it and its mark.
    end: u64,
    length_before: u64,
    length_after: u64,
    entries: Vec<Entry>,
    /// A mark follows.
    applied: bool,
}

/// A range of the image with the bytes that were there before everything and are there after everything. `None`: the file
/// did not reach so far, or reads as zero there.
#[derive(Debug, Clone)]
struct Piece {
    end: u64,
    before: Option<Source>,
    after: Option<Source>,
}

impl Piece {
    /// Cuts off everything from `at` on.
    fn split_off(&mut self, start: u64, at: u64) -> Piece {
        let rest = Piece {
            end: self.end,
            before: self.before.map(|source| source.skip(at - start)),
            after: self.after.map(|source| source.skip(at - start)),
        };
        self.end = at;
        rest
    }
}

/// A journal that was read and found whole.
pub(super) struct Journal {
    file: Disk,
    length_before: u64,
    length_after: u64,
    pieces: BTreeMap<u64, Piece>,
    /// Entries of the first part, whose hashes the record has.
    first: Vec<Entry>,
    /// Behind the last part, and its mark when it has one.
    end: u64,
}

fn broken(what: &str, offset: u64) -> Error {
    Error::damaged(Layer::Transaction, format!("the journal is damaged: {what}")).at(offset).advice(
        "the journal cannot be used. `vmrescue recover IMAGE --abandon` closes the operation and leaves the image as it is",
    )
}

/// Reads the part at `start`.
fn part_at(file: &Disk, start: u64, number: u32) -> Result<Part> {
    let length = file.len();
    if length < start + HEADER_BYTES + 4 {
        return Err(broken("too short", length));
    }
    let header = file.read_vec(start, HEADER_BYTES as usize)?;
    let field = |at| u64_at(&header, at).unwrap_or_default();
    if header[..8] != MAGIC[..] {
        return Err(broken("wrong magic", start));
    }
    let (mut entries, mut place) = (Vec::new(), start + HEADER_BYTES);
    for _ in 0..field(24) {
        let head = file.read_vec(place, ENTRY_BYTES as usize).map_err(|_| broken("cut off", place))?;
        let small = |at| u32_at(&head, at).unwrap_or_default();
        let offset = u64_at(&head, 0).unwrap_or_default();
        let mut end = place + ENTRY_BYTES;
        let mut side = |count: u32| {
            let bytes = u64::from(count & !ZEROS);
            if count & ZEROS != 0 {
                return (Source::Zeros, bytes);
            }
            let source = Source::At(end);
            end += bytes;
            (source, bytes)
        };
        let (before, after) = (side(small(8)), side(small(12)));
        if end > length - 4 || before.1.max(after.1) > CHUNK_BYTES {
            return Err(broken("an entry does not fit", place));
        }
        if offset.checked_add(CHUNK_BYTES).is_none() {
            return Err(broken("an entry lies beyond every disk", place));
        }
        place = end;
        entries.push(Entry { offset, before, after });
    }
    if place + 4 > length {
        return Err(broken("cut off", place));
    }
    check_sum(file, start..place)?;
    let end = place + 4;
    let applied = end + MARK_BYTES <= length
        && file.read_vec(end, MARK_BYTES as usize)?.as_slice() == mark(number).as_slice();
    let end = if applied { end + MARK_BYTES } else { end };
    Ok(Part { end, length_before: field(8), length_after: field(16), entries, applied })
}

fn check_sum(file: &Disk, range: Range<u64>) -> Result<()> {
    let (mut offset, mut sum) = (range.start, 0);
    while offset < range.end {
        let bytes = file.read_vec(offset, (range.end - offset).min(CHUNK_BYTES) as usize)?;
        sum = crc32c::crc32c_append(sum, &bytes);
        offset += bytes.len() as u64;
    }
    let stored = u32_at(&file.read_vec(range.end, 4)?, 0);
    if stored == Some(sum) { Ok(()) } else { Err(broken("wrong checksum", range.end)) }
}

/// All whole parts. What is left of one that was being appended when the power went does not count, but only behind one
/// that the image holds for sure: a part of which nothing followed must be whole.
fn parts(file: &Disk) -> Result<Vec<Part>> {
    let mut found: Vec<Part> = Vec::new();
    loop {
        let at = found.last().map_or(0, |part| part.end);
        if at == file.len() && !found.is_empty() {
            return Ok(found);
        }
        match part_at(file, at, found.len() as u32) {
            Ok(part) => found.push(part),
            Err(_) if found.last().is_some_and(|part| part.applied) => return Ok(found),
            // A part of the mark of the last one.
            Err(_) if !found.is_empty() && file.len() - at <= MARK_BYTES => return Ok(found),
            Err(e) => return Err(e),
        }
    }
}

/// True when the last whole part of the journal is marked as one that the image holds.
pub(super) fn is_applied(place: &dyn Place, id: OperationId) -> Result<bool> {
    let file = place.open(&name(id))?;
    if file.len() < HEADER_BYTES + 4 + MARK_BYTES {
        return Ok(false);
    }
    let tail = file.read_vec(file.len() - MARK_BYTES, MARK_BYTES as usize)?;
    if u32_at(&tail, 8).is_some_and(|number| tail.as_slice() == mark(number).as_slice()) {
        return Ok(true);
    }
    // Perhaps what a crash left of another part follows the mark.
    Ok(parts(&file).is_ok_and(|parts| parts.last().is_some_and(|part| part.applied)))
}

impl Journal {
    /// Opens the journal of an operation and checks all of it.
    pub(super) fn open(place: &dyn Place, id: OperationId, view: View) -> Result<Journal> {
        let file = place.open(&name(id))?;
        let parts = parts(&file)?;
        Journal::of_parts(file, parts, view)
    }

    /// Opens one part of a journal, which lies at `start`.
    pub(super) fn open_part(place: &dyn Place, id: OperationId, start: u64, number: u32) -> Result<Journal> {
        let file = place.open(&name(id))?;
        let part = part_at(&file, start, number)?;
        Journal::of_parts(file, vec![part], View::Whole)
    }

    fn of_parts(file: Disk, parts: Vec<Part>, view: View) -> Result<Journal> {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
            return Err(broken("too short", 0));
        };
        let mut pieces: BTreeMap<u64, Piece> = BTreeMap::new();
        for (number, part) in parts.iter().enumerate() {
            let is_last = number + 1 == parts.len();
            for entry in &part.entries {
                // A side that ends earlier lies at the end of the file: two pieces.
                let (short, long) = (entry.before.1.min(entry.after.1), entry.before.1.max(entry.after.1));
                for (from, to) in [(0, short), (short, long)] {
                    if from < to {
                        let source =
                            |(source, bytes): (Source, u64)| (from < bytes).then(|| source.skip(from));
                        let new = Piece {
                            end: entry.offset + to,
                            before: source(entry.before),
                            after: source(entry.after),
                        };
                        let fresh = view == View::LastPart && is_last;
                        put(&mut pieces, entry.offset + from, new, fresh);
                    }
                }
            }
            if view == View::LastPart && !is_last {
                for piece in pieces.values_mut() {
                    piece.before = piece.after;
                }
            }
        }
        let length_before = if view == View::LastPart { last.length_before } else { first.length_before };
        let (length_after, end) = (last.length_after, last.end);
        let first = parts.into_iter().next().map(|part| part.entries).unwrap_or_default();
        Ok(Journal { file, length_before, length_after, pieces, first, end })
    }

    /// True when this is the journal whose first part was written with these hashes.
    pub(super) fn is_of(&self, hashes: &Hashes) -> Result<bool> {
        let mut found = [Sha256::new(), Sha256::new()];
        for entry in &self.first {
            for ((source, bytes), hash) in [entry.before, entry.after].into_iter().zip(&mut found) {
                hash.update(entry.offset.to_le_bytes());
                hash.update(bytes.to_le_bytes());
                hash.update(self.read(Some(source), bytes)?);
            }
        }
        let [before, after] = found.map(|hash| vmrescue_base::text::hex(&hash.finalize()));
        Ok(*hashes == Hashes { before, after })
    }

    fn read(&self, source: Option<Source>, bytes: u64) -> Result<Vec<u8>> {
        match source {
            Some(Source::At(place)) => self.file.read_vec(place, bytes as usize),
            Some(Source::Zeros) | None => Ok(vec![0; bytes as usize]),
        }
    }

    pub(super) fn length(&self, side: Side) -> u64 {
        match side {
            Side::Before => self.length_before,
            Side::After => self.length_after,
        }
    }

    /// Behind the last part in the journal.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of the image that the operation touched.
    pub(super) fn touched_bytes(&self) -> u64 {
        self.pieces.iter().map(|(start, piece)| piece.end - start).sum()
    }

    /// What the image holds wherever the operation touched it, sector by sector.
    pub(super) fn held(&self, image: &Disk) -> Result<Held> {
        let (lower, upper) =
            (self.length_before.min(self.length_after), self.length_before.max(self.length_after));
        let length = image.len();
        let neither = |offset: u64, what: String| Ok(Held::Neither { offset, what });
        if !(lower..=upper).contains(&length) {
            let what = format!("a file of {length} bytes; it had {} before", self.length_before);
            return neither(length, format!("{what} and {} after", self.length_after));
        }
        let mut before = lower != upper && length != self.length_after;
        let mut after = lower != upper && length != self.length_before;
        for (start, piece) in &self.pieces {
            // Beyond the end lies what one of the two lengths does not have.
            let end = piece.end.min(length);
            if *start >= end {
                continue;
            }
            let there = image.read_vec(*start, (end - start) as usize)?;
            let old = self.read(piece.before, end - start)?;
            let new = self.read(piece.after, end - start)?;
            let mut at = *start;
            while at < end {
                let next = (at - at % SECTOR_BYTES + SECTOR_BYTES).min(end);
                let sector = (at - start) as usize..(next - start) as usize;
                let (there, old, new) = (&there[sector.clone()], &old[sector.clone()], &new[sector]);
                match (there == old, there == new) {
                    (true, true) => {}
                    (true, false) => before = true,
                    (false, true) => after = true,
                    (false, false) => {
                        let shown = &there[..there.len().min(16)];
                        return neither(at, format!("{}...", vmrescue_base::text::hex(shown)));
                    }
                }
                at = next;
            }
        }
        Ok(match (before, after) {
            (true, true) => Held::Mixed,
            (true, false) => Held::Before,
            (false, _) => Held::After,
        })
    }

    /// True when the image holds exactly this side wherever the operation touched it.
    pub(super) fn matches(&self, image: &Disk, side: Side) -> Result<bool> {
        if image.len() != self.length(side) {
            return Ok(false);
        }
        for (start, piece) in &self.pieces {
            let end = piece.end.min(image.len());
            let source = if side == Side::Before { piece.before } else { piece.after };
            if *start < end
                && image.read_vec(*start, (end - start) as usize)? != self.read(source, end - start)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes one side into `image`, as far as `length` reaches.
    pub(super) fn write_side(
        &self,
        image: &DiskMut,
        side: Side,
        length: u64,
        progress: &dyn Progress,
    ) -> Result<()> {
        for (start, piece) in &self.pieces {
            let end = piece.end.min(length);
            if *start < end {
                let source = if side == Side::Before { piece.before } else { piece.after };
                image.write_at(*start, &self.read(source, end - start)?)?;
                progress.advance(end - start);
            }
        }
        Ok(())
    }

    /// Writes one side into the image, makes it durable, and reads it again.
    pub(super) fn apply(
        &self,
        image: &DiskMut,
        side: Side,
        again: Again,
        progress: &dyn Progress,
    ) -> Result<()> {
        let length = self.length(side);
        if image.len() < length {
            image.set_length(length)?;
        }
        self.write_side(image, side, length, progress)?;
        if image.len() > length {
            image.set_length(length)?;
        }
        image.flush()?;
        if again == Again::FromMedium {
            for (start, piece) in &self.pieces {
                image.forget_cached(*start..piece.end.min(length).max(*start))?;
            }
        }
        if self.matches(&image.as_disk(), side)? {
            Ok(())
        } else {
            Err(Error::damaged(Layer::Transaction, "the image does not hold what was just written").advice(
                "the medium of the image may be failing; run `vmrescue recover IMAGE` on a sound one",
            ))
        }
    }
}

/// Puts a later change over what is known: what was there first stays as before, what came last is after. With `fresh` the
/// later change says both.
fn put(pieces: &mut BTreeMap<u64, Piece>, start: u64, new: Piece, fresh: bool) {
    // No piece may cross the two ends of the new one.
    for at in [start, new.end] {
        let crossing = pieces.range_mut(..at).next_back().filter(|(_, piece)| piece.end > at);
        if let Some((from, piece)) = crossing {
            let rest = piece.split_off(*from, at);
            pieces.insert(at, rest);
        }
    }
    let end = new.end;
    let (mut at, mut rest) = (start, new);
    let inside: Vec<u64> = pieces.range(start..end).map(|(from, _)| *from).collect();
    for from in inside {
        if at < from {
            let behind = rest.split_off(at, from);
            pieces.insert(at, std::mem::replace(&mut rest, behind));
            at = from;
        }
        let Some(piece) = pieces.get_mut(&from) else { continue };
        let to = piece.end;
        let behind = (to < end).then(|| rest.split_off(at, to));
        piece.after = rest.after;
        if fresh {
            piece.before = rest.before;
        }
        at = to;
        match behind {
            Some(behind) => rest = behind,
            None => return,
        }
    }
    if at < end {
        pieces.insert(at, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// Changes over changes are what a byte by byte model says: the first before, the last after.
        #[test]
        fn pieces_are_a_vector(changes in prop::collection::vec((0u64..60, 1u64..30), 1..12), fresh_last: bool) {
            let mut pieces = BTreeMap::new();
            let mut model: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            for (number, (start, length)) in changes.iter().enumerate() {
                // A place in the journal of its own for every byte.
                let base = number as u64 * 1000;
                let fresh = fresh_last && number + 1 == changes.len();
                let new = Piece {
                    end: start + length,
                    before: Some(Source::At(base + start)),
                    after: Some(Source::At(base + 500 + start)),
                };
                put(&mut pieces, *start, new, fresh);
                for byte in *start..start + length {
                    let known = model.entry(byte).or_insert((base + byte, 0));
                    known.1 = base + 500 + byte;
                    if fresh {
                        known.0 = base + byte;
                    }
                }
            }
            let place = |source: Option<Source>, skip| match source.map(|source| source.skip(skip)) {
                Some(Source::At(place)) => place,
                _ => u64::MAX,
            };
            let mut found = BTreeMap::new();
            for (start, piece) in &pieces {
                for byte in *start..piece.end {
                    let sources = (place(piece.before, byte - start), place(piece.after, byte - start));
                    prop_assert!(found.insert(byte, sources).is_none(), "two pieces hold byte {byte}");
                }
            }
            prop_assert_eq!(found, model);
        }
    }
}
