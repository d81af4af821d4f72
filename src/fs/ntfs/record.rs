//! File records, read in place: the update sequence ("fixups"), the header and the walk over the attributes.
//!
//! Views borrow the bytes of the record, so that a scan of a whole $MFT allocates nothing. Extended attributes ($EA)
//! are walked over like any other attribute but not taken apart.

use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Bytes that one update sequence number protects, whatever the sector size.
const STRIDE: usize = 512;
/// Record flag: in use.
pub(crate) const IN_USE: u16 = 1;
/// Record flag: a directory.
pub(crate) const DIRECTORY: u16 = 2;
/// The type that ends the attributes.
const END: u32 = 0xFFFF_FFFF;

/// The record number in a file reference.
pub(crate) fn number_of(reference: u64) -> u64 {
    reference & 0xFFFF_FFFF_FFFF
}

/// The sequence number in a file reference.
pub(crate) fn sequence_of(reference: u64) -> u16 {
    (reference >> 48) as u16
}

/// Checks the signature and puts the protected bytes back (FILE records, INDX blocks, RSTR pages).
///
/// # Errors
/// `Damaged` with another signature, or when a part was not written (a torn write).
pub(crate) fn fix_up(bytes: &mut [u8], signature: &[u8; 4]) -> Result<()> {
    if bytes.get(..4) != Some(signature) {
        let found = String::from_utf8_lossy(bytes.get(..4).unwrap_or_default()).into_owned();
        return Err(Error::damaged(Layer::Ntfs, "signature of a multi-sector structure")
            .expected(String::from_utf8_lossy(signature))
            .found(format!("{found:?}")));
    }
    let torn = |what: &str| Error::damaged(Layer::Ntfs, format!("update sequence: {what}"));
    let offset = usize::from(u16_at(bytes, 4).unwrap_or(0));
    let count = usize::from(u16_at(bytes, 6).unwrap_or(0));
    if count < 2 || (count - 1) * STRIDE > bytes.len() || offset < 8 || offset + 2 * count > bytes.len() {
        return Err(torn("its place or length cannot be").found(format!("{count} numbers at {offset:#x}")));
    }
    let number = u16_at(bytes, offset);
    for index in 1..count {
        if u16_at(bytes, index * STRIDE - 2) != number {
            return Err(
                torn("a sector was not written with the others").found(format!("sector {}", index - 1))
            );
        }
    }
    for index in 1..count {
        bytes.copy_within(offset + 2 * index..offset + 2 * index + 2, index * STRIDE - 2);
    }
    Ok(())
}

/// A file record whose fixups were taken out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes the fixups out of `bytes` and shows the record in it.
    ///
    /// # Errors
    /// As [`fix_up`].
    pub(crate) fn parse(bytes: &'a mut [u8]) -> Result<Record<'a>> {
        fix_up(bytes, b"FILE")?;
        Ok(Record { bytes })
    }

    /// A record whose fixups are out already.
    pub(crate) fn of_fixed(bytes: &'a [u8]) -> Record<'a> {
        Record { bytes }
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn field(&self, at: usize) -> u16 {
        u16_at(self.bytes, at).unwrap_or(0)
    }

    /// Sequence number.
    pub(crate) fn sequence(&self) -> u16 {
        self.field(0x10)
    }

    /// Number of $FILE_NAME attributes, as the header says.
    pub(crate) fn links(&self) -> u16 {
        self.field(0x12)
    }

    /// Flags: [`IN_USE`], [`DIRECTORY`].
    pub(crate) fn flags(&self) -> u16 {
        self.field(0x16)
    }

    /// True when in use.
    pub(crate) fn in_use(&self) -> bool {
        self.flags() & IN_USE != 0
    }

    /// Reference of the base record; 0 in a base record.
    pub(crate) fn base(&self) -> u64 {
        u64_at(self.bytes, 0x20).unwrap_or(0)
    }

    /// The attributes, in the order of the record. Ends after the first error.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        let used = u32_at(self.bytes, 0x18).unwrap_or(0) as usize;
        let start = usize::from(self.field(0x14));
        let body = self.bytes.get(..used).unwrap_or(self.bytes);
        Attributes { body, at: start, done: start < 0x18 }
    }
}

/// The attributes of a record.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    body: &'a [u8],
    at: usize,
    done: bool,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>>;

    // Bounded: every step moves on by at least 16 bytes of the record.
    fn next(&mut self) -> Option<Result<Attribute<'a>>> {
        if self.done {
            return None;
        }
        match u32_at(self.body, self.at) {
            Some(END) => {
                self.done = true;
                return None;
            }
            Some(_) => {}
            None => {
                self.done = true;
                return Some(Err(Error::damaged(Layer::Ntfs, "the attributes of a record have no end")));
            }
        }
        let length = u32_at(self.body, self.at + 4).unwrap_or(0) as usize;
        let attribute =
            slice_at(self.body, self.at, length).filter(|_| length >= 0x18).and_then(Attribute::parse);
        match attribute {
            Some(attribute) => {
                self.at += length;
                Some(Ok(attribute))
            }
            None => {
                self.done = true;
                Some(Err(Error::damaged(Layer::Ntfs, format!("attribute at {:#x} of its record", self.at))))
            }
        }
    }
}

/// An attribute (or one segment of it) in its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute<'a> {
    /// Type.
    pub(crate) kind: u32,
    /// Flags: low byte compression, 0x4000 encrypted, 0x8000 sparse.
    pub(crate) flags: u16,
    /// Instance number, which attribute lists name.
    pub(crate) id: u16,
    /// Name, UTF-16LE.
    pub(crate) name: &'a [u8],
    /// Value.
    pub(crate) body: Body<'a>,
}

/// Where the value of an attribute is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    /// In the record.
    Resident(&'a [u8]),
    /// In clusters.
    NonResident(Mapped<'a>),
}

/// The header of a non-resident segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapped<'a> {
    /// First VCN of this segment.
    pub(crate) lowest_vcn: u64,
    /// Last VCN of this segment; -1 (all ones) for an empty attribute.
    pub(crate) highest_vcn: u64,
    /// Mapping pairs.
    pub(crate) pairs: &'a [u8],
    /// Power of two of the clusters of a compression unit, 0 without.
    pub(crate) unit: u8,
    /// Bytes allocated, holes included; only in the first segment, as the next three.
    pub(crate) allocated: u64,
    /// Bytes of the value.
    pub(crate) size: u64,
    /// Bytes that were ever written; those after read as zero.
    pub(crate) valid: u64,
    /// Bytes of the clusters taken, for compressed and sparse attributes.
    pub(crate) total_allocated: Option<u64>,
}

impl<'a> Attribute<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Attribute<'a>> {
        let name_units = usize::from(*bytes.get(9)?);
        let name = slice_at(bytes, usize::from(u16_at(bytes, 0x0A)?), name_units * 2)
            .or((name_units == 0).then_some(&[][..]))?;
        let flags = u16_at(bytes, 0x0C)?;
        let body = if *bytes.get(8)? == 0 {
            let length = u32_at(bytes, 0x10)? as usize;
            Body::Resident(slice_at(bytes, usize::from(u16_at(bytes, 0x14)?), length)?)
        } else {
            let pairs = bytes.get(usize::from(u16_at(bytes, 0x20)?)..)?;
            let lowest_vcn = u64_at(bytes, 0x10)?;
            let squeezed = flags & 0x80FF != 0 && lowest_vcn == 0 && u16_at(bytes, 0x20)? >= 0x48;
            Body::NonResident(Mapped {
                lowest_vcn,
                highest_vcn: u64_at(bytes, 0x18)?,
                pairs,
                unit: *bytes.get(0x22)?,
                allocated: u64_at(bytes, 0x28)?,
                size: u64_at(bytes, 0x30)?,
                valid: u64_at(bytes, 0x38)?,
                total_allocated: if squeezed { u64_at(bytes, 0x40) } else { None },
            })
        };
        Some(Attribute { kind: u32_at(bytes, 0)?, flags, id: u16_at(bytes, 0x0E)?, name, body })
    }
}
