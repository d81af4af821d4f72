//! FILE records: header and update sequence ("fixups"), which INDX blocks share.

use super::attribute::{Attribute, align8, kind, put_all};
use vmrescue_base::bytes::{u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Bytes that one update sequence number protects, whatever the sector size.
const STRIDE: usize = 512;
/// Record flag: in use.
pub(crate) const IN_USE: u16 = 1;
/// Record flag: a directory ($I30 index).
pub(crate) const DIRECTORY: u16 = 2;
/// Record flag: one of the files of $Extend.
pub(crate) const EXTEND: u16 = 4;
/// Record flag: an index other than $I30.
pub(crate) const VIEW_INDEX: u16 = 8;

/// The fields of a FILE record's header that a writer keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Number of the record.
    pub(crate) number: u64,
    /// Sequence number, the high 16 bits of references to it.
    pub(crate) sequence: u16,
    /// Names ($FILE_NAME attributes).
    pub(crate) links: u16,
    /// Flags.
    pub(crate) flags: u16,
    /// Reference of the base record, 0 in a base record.
    pub(crate) base: u64,
    /// Next instance number.
    pub(crate) next_id: u16,
    /// $LogFile sequence number of the last change; kept as it is.
    pub(crate) lsn: u64,
    /// Update sequence number as it was on the disk.
    pub(crate) usn: u16,
}

impl Header {
    /// A fresh header.
    pub(crate) fn new(number: u64, sequence: u16, flags: u16) -> Header {
        Header { number, sequence, links: 0, flags, base: 0, next_id: 0, lsn: 0, usn: 1 }
    }

    /// The reference to this record.
    pub(crate) fn reference(&self) -> u64 {
        self.number | u64::from(self.sequence) << 48
    }
}

/// Offset of the first attribute in a record of this size.
pub(crate) fn first_attribute(record_bytes: usize) -> usize {
    align8(0x30 + 2 * (record_bytes / STRIDE + 1))
}

/// Bytes that attributes may take in a record of this size.
pub(crate) fn room(record_bytes: usize) -> usize {
    record_bytes - first_attribute(record_bytes) - 8
}

/// Encodes a record without fixups applied (see [`apply_fixups`]). `None` when the attributes do not fit.
pub(crate) fn encode(header: &Header, attributes: &[Vec<u8>], record_bytes: usize) -> Option<Vec<u8>> {
    let first = first_attribute(record_bytes);
    let used: usize = attributes.iter().map(Vec::len).sum();
    if used > room(record_bytes) {
        return None;
    }
    let mut out = vec![0; record_bytes];
    let mut at = first;
    for attribute in attributes {
        put_all(&mut out, &[(at, attribute)]);
        at += attribute.len();
    }
    put_all(
        &mut out,
        &[
            (0, b"FILE"),
            (0x04, &0x30u16.to_le_bytes()),
            (0x06, &((record_bytes / STRIDE + 1) as u16).to_le_bytes()),
            (0x08, &header.lsn.to_le_bytes()),
            (0x10, &header.sequence.to_le_bytes()),
            (0x12, &header.links.to_le_bytes()),
            (0x14, &(first as u16).to_le_bytes()),
            (0x16, &header.flags.to_le_bytes()),
            (0x18, &((at + 8) as u32).to_le_bytes()),
            (0x1C, &(record_bytes as u32).to_le_bytes()),
            (0x20, &header.base.to_le_bytes()),
            (0x28, &header.next_id.to_le_bytes()),
            (0x2C, &(header.number as u32).to_le_bytes()),
            (0x30, &header.usn.to_le_bytes()),
            (at, &kind::END.to_le_bytes()),
        ],
    );
    Some(out)
}

/// Builds a base record from whole attributes, numbered from 0: for a new volume and for simple files.
pub(crate) fn build(mut header: Header, attributes: &[Attribute], record_bytes: usize) -> Option<Vec<u8>> {
    let encoded: Vec<Vec<u8>> = attributes.iter().enumerate().map(|(id, a)| a.encode(id as u16)).collect();
    header.next_id = attributes.len() as u16;
    header.links = attributes.iter().filter(|a| a.kind == kind::FILE_NAME).count() as u16;
    encode(&header, &encoded, record_bytes)
}

/// Decodes a record whose fixups were removed: the header and each attribute's bytes.
///
/// # Errors
/// `Damaged` for anything that a writer cannot explain.
pub(crate) fn decode(bytes: &[u8], number: u64) -> Result<(Header, Vec<&[u8]>)> {
    try_decode(bytes, number).ok_or_else(|| {
        Error::damaged(Layer::Ntfs, format!("file record {number:#x} does not hold its own fields"))
            .advice("run the check command; a damaged record is not written to")
    })
}

fn try_decode(bytes: &[u8], number: u64) -> Option<(Header, Vec<&[u8]>)> {
    if bytes.get(..4)? != b"FILE" {
        return None;
    }
    let header = Header {
        number,
        sequence: u16_at(bytes, 0x10)?,
        links: u16_at(bytes, 0x12)?,
        flags: u16_at(bytes, 0x16)?,
        base: u64_at(bytes, 0x20)?,
        next_id: u16_at(bytes, 0x28)?,
        lsn: u64_at(bytes, 0x08)?,
        usn: u16_at(bytes, usize::from(u16_at(bytes, 4)?))?,
    };
    let used = u32_at(bytes, 0x18)? as usize;
    let body = bytes.get(..used)?;
    let mut at = usize::from(u16_at(bytes, 0x14)?);
    let mut attributes = Vec::new();
    if at < 0x2A {
        return None;
    }
    loop {
        if u32_at(body, at)? == kind::END {
            return Some((header, attributes));
        }
        let length = u32_at(body, at + 4)? as usize;
        if length < 0x18 || !length.is_multiple_of(8) {
            return None;
        }
        attributes.push(body.get(at..at.checked_add(length)?)?);
        at += length;
    }
}

/// Puts a new update sequence number at the end of every 512 bytes and keeps the bytes that were there in the array.
/// The structure's own array must be in place, as [`encode`] makes it. False when it is not.
#[must_use]
pub(crate) fn apply_fixups(bytes: &mut [u8]) -> bool {
    let Some((offset, count)) = fixup_array(bytes) else { return false };
    let number = match u16_at(bytes, offset).unwrap_or(0).wrapping_add(1) {
        0 | 0xFFFF => 1,
        number => number,
    };
    put_all(bytes, &[(offset, &number.to_le_bytes())]);
    for index in 1..count {
        let end = index * STRIDE - 2;
        let saved = [bytes[end], bytes[end + 1]];
        put_all(bytes, &[(offset + 2 * index, &saved), (end, &number.to_le_bytes())]);
    }
    true
}

/// Takes the fixups out. False when they do not match: a torn write or no such structure.
#[must_use]
pub(crate) fn remove_fixups(bytes: &mut [u8]) -> bool {
    let Some((offset, count)) = fixup_array(bytes) else { return false };
    let number = u16_at(bytes, offset);
    if (1..count).any(|index| u16_at(bytes, index * STRIDE - 2) != number) {
        return false;
    }
    for index in 1..count {
        let saved = [bytes[offset + 2 * index], bytes[offset + 2 * index + 1]];
        put_all(bytes, &[(index * STRIDE - 2, &saved)]);
    }
    true
}

/// Place and length (in numbers) of the update sequence array, checked against the structure.
fn fixup_array(bytes: &[u8]) -> Option<(usize, usize)> {
    let (offset, count) = (usize::from(u16_at(bytes, 4)?), usize::from(u16_at(bytes, 6)?));
    let fits = count >= 2
        && (count - 1) * STRIDE == bytes.len()
        && offset >= 0x18
        && offset % 2 == 0
        && offset + 2 * count <= STRIDE - 2;
    fits.then_some((offset, count))
}
