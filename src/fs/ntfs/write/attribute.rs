//! Attributes as the writer holds them: whole (all segments joined), decoded strictly and encoded back.
//!
//! Header layouts: resident 0x18 bytes, non-resident 0x40 bytes, 0x48 when compressed or sparse and first segment.

use super::runs::{self, Run};
use vmrescue_base::bytes::{put_at, slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Attribute type codes.
pub(crate) mod kind {
    pub(crate) const STANDARD_INFORMATION: u32 = 0x10;
    pub(crate) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(crate) const FILE_NAME: u32 = 0x30;
    pub(crate) const OBJECT_ID: u32 = 0x40;
    pub(crate) const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub(crate) const VOLUME_NAME: u32 = 0x60;
    pub(crate) const VOLUME_INFORMATION: u32 = 0x70;
    pub(crate) const DATA: u32 = 0x80;
    pub(crate) const INDEX_ROOT: u32 = 0x90;
    pub(crate) const INDEX_ALLOCATION: u32 = 0xA0;
    pub(crate) const BITMAP: u32 = 0xB0;
    pub(crate) const REPARSE_POINT: u32 = 0xC0;
    pub(crate) const LOGGED_STREAM: u32 = 0x100;
    pub(crate) const END: u32 = 0xFFFF_FFFF;
}

/// Attribute flag: compressed by LZNT1 (the low byte is the method).
pub(crate) const COMPRESSED: u16 = 0x00FF;
/// Attribute flag: encrypted.
pub(crate) const ENCRYPTED: u16 = 0x4000;
/// Attribute flag: has holes.
pub(crate) const SPARSE: u16 = 0x8000;

/// What an attribute holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// The value itself.
    Resident(Vec<u8>),
    /// Where the value lies.
    Runs(Stream),
}

/// The header fields and runs of a non-resident value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stream {
    /// All runs from VCN 0.
    pub(crate) runs: Vec<Run>,
    /// Bytes of all clusters, holes included.
    pub(crate) allocated_bytes: u64,
    /// Bytes of the value.
    pub(crate) size_bytes: u64,
    /// Bytes that were ever written; what lies behind reads as zero.
    pub(crate) initialized_bytes: u64,
    /// log2 of the clusters of one compression unit, 0 when not compressed.
    pub(crate) compression_unit: u8,
    /// Bytes really allocated; only of compressed and sparse attributes.
    pub(crate) total_allocated_bytes: u64,
}

/// One attribute of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    /// Type code.
    pub(crate) kind: u32,
    /// Name in UTF-16 units.
    pub(crate) name: Vec<u16>,
    /// Flags.
    pub(crate) flags: u16,
    /// Indexed flag of resident attributes.
    pub(crate) indexed: bool,
    /// Record that held it (its first segment) when it was read.
    pub(crate) home: u64,
    /// Instance number in that record.
    pub(crate) id: u16,
    /// The value.
    pub(crate) body: Body,
}

/// Rounds up to a multiple of 8; callers hold sizes of at most a record.
pub(crate) fn align8(value: usize) -> usize {
    value.saturating_add(7) & !7
}

impl Attribute {
    /// A resident attribute.
    pub(crate) fn resident(kind: u32, name: &str, value: Vec<u8>) -> Attribute {
        Attribute {
            kind,
            name: name.encode_utf16().collect(),
            flags: 0,
            indexed: kind == kind::FILE_NAME,
            home: u64::MAX,
            id: 0,
            body: Body::Resident(value),
        }
    }

    /// A non-resident attribute.
    pub(crate) fn stream(kind: u32, name: &str, stream: Stream) -> Attribute {
        Attribute { indexed: false, body: Body::Runs(stream), ..Attribute::resident(kind, name, Vec::new()) }
    }

    /// The value, when it is resident.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Resident(value) => Some(value),
            Body::Runs(_) => None,
        }
    }

    /// Bytes of the value.
    pub(crate) fn size_bytes(&self) -> u64 {
        match &self.body {
            Body::Resident(value) => value.len() as u64,
            Body::Runs(stream) => stream.size_bytes,
        }
    }

    /// True when the non-resident header has the field of really allocated bytes.
    fn has_total(&self) -> bool {
        self.flags & (COMPRESSED | SPARSE) != 0
    }

    /// Bytes in front of the mapping pairs of a segment.
    pub(crate) fn header_bytes(&self, first: bool) -> usize {
        match self.body {
            Body::Resident(_) => align8(0x18 + 2 * self.name.len()),
            Body::Runs(_) => {
                align8(if first && self.has_total() { 0x48 } else { 0x40 } + 2 * self.name.len())
            }
        }
    }

    fn common(&self, length: usize, name_at: usize, nonresident: bool, id: u16) -> Vec<u8> {
        let mut out = vec![0; length];
        let name: Vec<u8> = self.name.iter().flat_map(|u| u.to_le_bytes()).collect();
        let fields: [(usize, &[u8]); 8] = [
            (0, &self.kind.to_le_bytes()),
            (4, &(length as u32).to_le_bytes()),
            (8, &[u8::from(nonresident)]),
            (9, &[self.name.len() as u8]),
            (10, &(name_at as u16).to_le_bytes()),
            (12, &self.flags.to_le_bytes()),
            (14, &id.to_le_bytes()),
            (name_at, &name),
        ];
        put_all(&mut out, &fields);
        out
    }

    /// The attribute with its whole value, as it stands in a record.
    pub(crate) fn encode(&self, id: u16) -> Vec<u8> {
        match &self.body {
            Body::Resident(value) => {
                let at = self.header_bytes(true);
                let mut out = self.common(align8(at + value.len()), 0x18, false, id);
                put_all(
                    &mut out,
                    &[
                        (0x10, &(value.len() as u32).to_le_bytes()),
                        (0x14, &(at as u16).to_le_bytes()),
                        (0x16, &[u8::from(self.indexed)]),
                        (at, value),
                    ],
                );
                out
            }
            Body::Runs(stream) => self.encode_segment(id, 0, &stream.runs, &runs::encode(&stream.runs)),
        }
    }

    /// One segment of a non-resident attribute, with `pairs` for `part` from VCN `lowest` on.
    pub(crate) fn encode_segment(&self, id: u16, lowest: u64, part: &[Run], pairs: &[u8]) -> Vec<u8> {
        let Body::Runs(stream) = &self.body else { return self.encode(id) };
        let first = lowest == 0;
        let at = self.header_bytes(first);
        let name_at = if first && self.has_total() { 0x48 } else { 0x40 };
        let mut out = self.common(align8(at + pairs.len()), name_at, true, id);
        let highest = (lowest + runs::clusters(part)).wrapping_sub(1); // -1 when empty, as the format wants
        put_all(
            &mut out,
            &[
                (0x10, &lowest.to_le_bytes()),
                (0x18, &highest.to_le_bytes()),
                (0x20, &(at as u16).to_le_bytes()),
                (0x22, &[stream.compression_unit]),
                (at, pairs),
            ],
        );
        if first {
            put_all(
                &mut out,
                &[
                    (0x28, &stream.allocated_bytes.to_le_bytes()),
                    (0x30, &stream.size_bytes.to_le_bytes()),
                    (0x38, &stream.initialized_bytes.to_le_bytes()),
                ],
            );
            if self.has_total() {
                put_all(&mut out, &[(0x40, &stream.total_allocated_bytes.to_le_bytes())]);
            }
        }
        out
    }

    /// Decodes the attribute that starts `bytes` (which ends with it). Returns it and its lowest VCN.
    ///
    /// # Errors
    /// `Damaged` for anything that a writer cannot explain.
    pub(crate) fn decode(bytes: &[u8], home: u64, clusters: u64) -> Result<(Attribute, u64)> {
        Attribute::try_decode(bytes, home, clusters).unwrap_or_else(|| {
            Err(Error::damaged(Layer::Ntfs, "an attribute that does not hold its own fields"))
        })
    }

    fn try_decode(bytes: &[u8], home: u64, clusters: u64) -> Option<Result<(Attribute, u64)>> {
        let name_length = usize::from(*bytes.get(9)?);
        let name_at = usize::from(u16_at(bytes, 10)?);
        let name = if name_length == 0 { &[][..] } else { slice_at(bytes, name_at, 2 * name_length)? };
        let mut attribute = Attribute {
            kind: u32_at(bytes, 0)?,
            name: vmrescue_base::text::utf16le_units(name),
            flags: u16_at(bytes, 12)?,
            indexed: false,
            home,
            id: u16_at(bytes, 14)?,
            body: Body::Resident(Vec::new()),
        };
        match bytes.get(8)? {
            0 => {
                let value =
                    slice_at(bytes, usize::from(u16_at(bytes, 0x14)?), u32_at(bytes, 0x10)? as usize)?;
                attribute.indexed = bytes.get(0x16)? & 1 != 0;
                attribute.body = Body::Resident(value.to_vec());
                Some(Ok((attribute, 0)))
            }
            1 => {
                let lowest = u64_at(bytes, 0x10)?;
                let highest = u64_at(bytes, 0x18)?;
                let pairs = bytes.get(usize::from(u16_at(bytes, 0x20)?)..)?;
                let runs = match runs::decode(pairs, clusters) {
                    Ok(runs) => runs,
                    Err(error) => return Some(Err(error)),
                };
                // An empty segment has the highest VCN -1.
                if highest.wrapping_add(1) != lowest.checked_add(runs::clusters(&runs))? {
                    return None;
                }
                let mut stream = Stream { runs, compression_unit: *bytes.get(0x22)?, ..Stream::default() };
                if lowest == 0 {
                    stream.allocated_bytes = u64_at(bytes, 0x28)?;
                    stream.size_bytes = u64_at(bytes, 0x30)?;
                    stream.initialized_bytes = u64_at(bytes, 0x38)?;
                    stream.total_allocated_bytes =
                        if attribute.has_total() { u64_at(bytes, 0x40)? } else { stream.allocated_bytes };
                    let ordered = stream.initialized_bytes <= stream.size_bytes
                        && stream.size_bytes <= stream.allocated_bytes
                        && stream.allocated_bytes < 1 << 62;
                    if !ordered {
                        return None;
                    }
                }
                attribute.body = Body::Runs(stream);
                Some(Ok((attribute, lowest)))
            }
            _ => None,
        }
    }
}

/// Writes fields into a buffer that was made large enough for them.
pub(crate) fn put_all(out: &mut [u8], fields: &[(usize, &[u8])]) {
    for (at, value) in fields {
        let written = put_at(out, *at, value);
        debug_assert!(written, "a field outside the structure that was made for it");
    }
}
