//! What lies where on a BitLocker volume: every byte of the volume as its file system sees it has a place on the medium and a kind.
//!
//! Sources: libbde's format document ("Virtual sector(s)") and dissect.fve. Since Windows 7 the first sectors lie elsewhere,
//! enciphered for the place where they lie; their place and the metadata are shown as zeros. On Windows Vista the first 16
//! sectors are plain, and the first of them is the file system's with two fields changed.

use super::metadata::{DECRYPTED, ENCRYPTED, Metadata, SWITCHING_DIRTY};
use super::on_write::OnWrite;
use std::ops::Range;
use vmrescue_base::error::{Error, Layer, Result};

/// Bytes that Windows keeps for a metadata block, since Windows 7 and on Windows Vista.
const BLOCK_BYTES: u64 = 64 << 10;
const BLOCK_BYTES_1: u64 = 16 << 10;
/// The first bytes of a volume of Windows Vista, which are not enciphered.
const PLAIN_BYTES_1: u64 = 8 << 10;

/// How bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// As they are.
    Plain,
    /// Enciphered for their place.
    Enciphered,
    /// Enciphered, as far as anybody knows, and beyond the end that the metadata gives the volume: read, and not written.
    Beyond,
    /// Not at all: Windows keeps its own there, and shows zeros.
    Reserved,
    /// The first sector of Windows Vista.
    FirstSector,
    /// Under way from one to the other when the machine stopped; or nobody says.
    Unknown,
}

/// A stretch of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Bytes of the volume as its file system sees it.
    pub(super) range: Range<u64>,
    /// Where the first of them lies.
    pub(super) place: u64,
    pub(super) kept: Kept,
}

/// Ranges that are cut to whole sectors, outwards, and to the volume; in order, merged.
fn reserved(
    metadata: &Metadata,
    on_write: Option<&OnWrite>,
    cluster_bytes: u64,
    sector: u64,
    length: u64,
) -> Vec<Range<u64>> {
    let block_bytes = match metadata.version {
        1 => BLOCK_BYTES_1.next_multiple_of(cluster_bytes.clamp(512, 1 << 20)),
        _ => BLOCK_BYTES,
    };
    let mut all: Vec<Range<u64>> =
        metadata.blocks.iter().map(|at| *at..at.saturating_add(block_bytes)).collect();
    all.extend(metadata.header_block.map(|(at, bytes)| at..at.saturating_add(bytes)));
    all.extend(on_write.iter().flat_map(|on_write| on_write.reserved.iter().cloned()));
    let cut = |range: Range<u64>| {
        let end = range.end.min(length).checked_next_multiple_of(sector).unwrap_or(length).min(length);
        range.start / sector * sector..end
    };
    let mut all: Vec<Range<u64>> = all.into_iter().map(cut).filter(|range| !range.is_empty()).collect();
    all.sort_by_key(|range| range.start);
    all.dedup_by(|next, last| {
        let touching = next.start <= last.end;
        if touching {
            last.end = last.end.max(next.end);
        }
        touching
    });
    all
}

/// How the bytes of the medium are kept, in order, from the first to the last.
fn states(
    metadata: &Metadata,
    on_write: Option<&OnWrite>,
    sector: u64,
    length: u64,
) -> Result<Vec<(Range<u64>, Kept)>> {
    if metadata.state == DECRYPTED {
        return Ok(vec![(0..length, Kept::Plain)]);
    }
    if let Some(on_write) = on_write {
        let mut all = Vec::new();
        let mut at = 0;
        let regions = on_write.regions.iter().flat_map(super::on_write::Region::stretches);
        for (range, enciphered) in regions {
            let (start, end) = (range.start.min(length), range.end.min(length));
            if start % sector != 0 || (end % sector != 0 && end != length) || start < at {
                return Err(Error::damaged(Layer::BitLocker, "encrypt-on-write regions do not fit").at(start));
            }
            all.push((at..start, Kept::Unknown));
            all.push((start..end, if enciphered { Kept::Enciphered } else { Kept::Plain }));
            at = end;
        }
        all.push((at..length, Kept::Unknown));
        return Ok(all);
    }
    let mark = metadata.state_offset;
    if metadata.state == ENCRYPTED {
        // The mark is the length of the volume, or nothing (Windows Vista). Readers differ over what lies beyond.
        let end = if mark == 0 { length } else { mark.min(length) / sector * sector };
        return Ok(vec![(0..end, Kept::Enciphered), (end..length, Kept::Beyond)]);
    }
    if mark == 0 || !mark.is_multiple_of(sector) {
        return Err(Error::unsupported(
            Layer::BitLocker,
            "the metadata does not say how far the volume is encrypted",
        )
        .at(metadata.offset)
        .found(format!("{mark:#x} in state {}", metadata.state_word())));
    }
    let mark = mark.min(length);
    let moving = if metadata.state == SWITCHING_DIRTY { u64::from(metadata.state_bytes) } else { 0 };
    let rest = mark.saturating_add(moving).checked_next_multiple_of(sector).unwrap_or(length).min(length);
    Ok(vec![(0..mark, Kept::Enciphered), (mark..rest, Kept::Unknown), (rest..length, Kept::Plain)])
}

/// The whole volume, `length` bytes of it, as segments in order. All borders lie between sectors, but for the end.
///
/// # Errors
/// `Damaged` when places contradict each other; `Unsupported` when it does not say what is encrypted.
pub(super) fn segments(
    metadata: &Metadata,
    on_write: Option<&OnWrite>,
    cluster_bytes: u64,
    sector_bytes: u32,
    length: u64,
) -> Result<Vec<Segment>> {
    let sector = u64::from(sector_bytes);
    let whole = length / sector * sector;
    let mut states = states(metadata, on_write, sector, whole)?;
    // A part of a sector at the end can only be plain.
    states.push((whole..length, Kept::Plain));
    let reserved = reserved(metadata, on_write, cluster_bytes, sector, length);
    let mut all = Vec::new();
    let mut put = |range: Range<u64>, place: u64| {
        let medium = place..place + (range.end - range.start);
        for (state, kept) in &states {
            let (start, end) = (state.start.max(medium.start), state.end.min(medium.end));
            if start < end {
                let from = range.start + (start - medium.start);
                all.push(Segment { range: from..from + (end - start), place: start, kept: *kept });
            }
        }
    };
    let mut at = 0;
    if metadata.version == 1 {
        at = PLAIN_BYTES_1.min(whole);
    } else if let Some((place, bytes)) = metadata.header_block {
        let fits = place.checked_add(bytes).is_some_and(|end| end <= whole);
        if !fits || place % sector != 0 || bytes % sector != 0 || place < bytes {
            return Err(Error::damaged(Layer::BitLocker, "the place of the first sectors makes no sense")
                .at(metadata.offset)
                .found(format!("{bytes:#x} bytes at {place:#x}")));
        }
        put(0..bytes, place);
        at = bytes;
    }
    let mut plain = Vec::new();
    for range in &reserved {
        if range.start < at && metadata.header_block.is_some() {
            return Err(
                Error::damaged(Layer::BitLocker, "metadata lies in the first sectors").at(range.start)
            );
        }
        put(at..range.start.max(at), at);
        plain.push(Segment {
            range: range.start.max(at)..range.end.max(at),
            place: range.start.max(at),
            kept: Kept::Reserved,
        });
        at = at.max(range.end);
    }
    put(at..length, at);
    if metadata.version == 1 {
        let first = sector.min(whole);
        all.push(Segment { range: 0..first, place: 0, kept: Kept::FirstSector });
        all.push(Segment { range: first..PLAIN_BYTES_1.min(whole), place: first, kept: Kept::Plain });
    }
    all.extend(plain);
    all.retain(|segment| !segment.range.is_empty());
    all.sort_by_key(|segment| segment.range.start);
    all.dedup_by(|next, last| {
        let goes_on = next.kept == last.kept
            && last.kept != Kept::FirstSector
            && next.range.start == last.range.end
            && next.place == last.place + (last.range.end - last.range.start);
        if goes_on {
            last.range.end = next.range.end;
        }
        goes_on
    });
    Ok(all)
}
