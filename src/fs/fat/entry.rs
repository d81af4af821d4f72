//! Directory entries as they lie on the volume (FAT specification, section 6), and the long names in front of them (section 7).

use super::time::{from_dos, to_dos};
use crate::{Attributes, Times};
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::time::FileTime;

/// Bytes of an entry.
pub(super) const SLOT: usize = 32;
/// First byte of an entry that was deleted.
pub(super) const DELETED: u8 = 0xE5;
/// Attribute of a volume label.
pub(super) const LABEL: u8 = 0x08;
/// Attribute of a directory.
pub(super) const DIRECTORY: u8 = 0x10;
/// Attributes of a part of a long name.
pub(super) const LONG: u8 = 0x0F;
/// The bits of attributes that a user may set.
pub(super) const USER_BITS: u32 =
    Attributes::READ_ONLY | Attributes::HIDDEN | Attributes::SYSTEM | Attributes::ARCHIVE;
/// UTF-16 units in one part of a long name.
pub(super) const PART_UNITS: usize = 13;
/// Most units of a long name.
pub(super) const MAX_NAME_UNITS: usize = 255;
/// The mark of the last part, which comes first.
const LAST: u8 = 0x40;

/// An entry of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raw(pub(super) [u8; SLOT]);

impl Raw {
    /// A new entry.
    pub(super) fn new(short: &[u8; 11], lower: u8, attributes: u8) -> Raw {
        let mut bytes = [0; SLOT];
        bytes[..11].copy_from_slice(short);
        bytes[11] = attributes;
        bytes[12] = lower;
        Raw(bytes)
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    pub(super) fn short(&self) -> [u8; 11] {
        let mut short = [0; 11];
        short.copy_from_slice(&self.0[..11]);
        short
    }

    pub(super) fn lower(&self) -> u8 {
        self.0[12]
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.0[0], 0 | DELETED)
    }

    pub(super) fn is_long(&self) -> bool {
        self.0[11] & 0x3F == LONG
    }

    pub(super) fn is_label(&self) -> bool {
        !self.is_long() && self.0[11] & LABEL != 0
    }

    pub(super) fn is_directory(&self) -> bool {
        self.0[11] & DIRECTORY != 0
    }

    /// `.` and `..`.
    pub(super) fn is_dot(&self) -> bool {
        matches!(&self.0[..11], b".          " | b"..         ")
    }

    pub(super) fn attributes(&self) -> Attributes {
        Attributes(u32::from(self.0[11] & 0x37))
    }

    pub(super) fn size(&self) -> u32 {
        u32_at(&self.0, 28).unwrap_or_default()
    }

    /// The first cluster, 0 for none. Only FAT32 has a high half: others keep something else there.
    pub(super) fn first_cluster(&self, wide: bool) -> u32 {
        let high = if wide { u32::from(self.word(20)) << 16 } else { 0 };
        high | u32::from(self.word(26))
    }

    pub(super) fn set_first_cluster(&mut self, cluster: u32, wide: bool) {
        if wide {
            self.0[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
        }
        self.0[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    }

    pub(super) fn set_size(&mut self, size: u32) {
        self.0[28..32].copy_from_slice(&size.to_le_bytes());
    }

    /// The times; FAT has none of the last change of the entry itself.
    pub(super) fn times(&self) -> Times {
        Times {
            created: from_dos(self.word(16), self.word(14), self.0[13]),
            modified: from_dos(self.word(24), self.word(22), 0),
            changed: FileTime::default(),
            accessed: from_dos(self.word(18), 0, 0),
        }
    }

    pub(super) fn set_times(&mut self, times: &Times) {
        let (date, time, rest) = to_dos(times.created);
        self.0[13] = rest;
        self.0[14..16].copy_from_slice(&time.to_le_bytes());
        self.0[16..18].copy_from_slice(&date.to_le_bytes());
        self.0[18..20].copy_from_slice(&to_dos(times.accessed).0.to_le_bytes());
        self.set_modified(times.modified);
    }

    pub(super) fn set_modified(&mut self, time: FileTime) {
        let (date, time, _) = to_dos(time);
        self.0[22..24].copy_from_slice(&time.to_le_bytes());
        self.0[24..26].copy_from_slice(&date.to_le_bytes());
    }
}

/// The sum over a short name that the parts of its long name carry.
pub(super) fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Where the 13 units of a part lie in its entry.
const UNIT_AT: [usize; PART_UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// The entries of a long name, in the order of the directory: the last part first.
pub(super) fn long_parts(name: &[u16], short: &[u8; 11]) -> Vec<[u8; SLOT]> {
    let (sum, count) = (checksum(short), name.len().div_ceil(PART_UNITS));
    let mut parts = Vec::with_capacity(count);
    for number in (1..=count).rev() {
        let mut part = [0; SLOT];
        // At most 20 parts, by the longest name.
        part[0] = number as u8 | if number == count { LAST } else { 0 };
        part[11] = LONG;
        part[13] = sum;
        for (place, at) in UNIT_AT.into_iter().enumerate() {
            let index = (number - 1) * PART_UNITS + place;
            let unit = match name.get(index) {
                Some(unit) => *unit,
                None if index == name.len() => 0,
                None => 0xFFFF,
            };
            part[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        parts.push(part);
    }
    parts
}

/// A part of a long name, as it is met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a>(&'a [u8; SLOT]);

impl<'a> Part<'a> {
    pub(super) fn new(bytes: &'a [u8; SLOT]) -> Part<'a> {
        Part(bytes)
    }

    /// Its number from 1; the last one comes first and is marked.
    pub(super) fn number(self) -> u8 {
        self.0[0] & !LAST
    }

    pub(super) fn is_last(self) -> bool {
        self.0[0] & LAST != 0
    }

    pub(super) fn checksum(self) -> u8 {
        self.0[13]
    }

    /// The type must be 0 and the cluster as well.
    pub(super) fn is_well_formed(self) -> bool {
        self.0[12] == 0 && self.0[26] == 0 && self.0[27] == 0
    }

    fn units(self) -> [u16; PART_UNITS] {
        UNIT_AT.map(|at| u16_at(self.0, at).unwrap_or_default())
    }
}

/// Puts the parts of long names together while a directory is read from its beginning.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Where the first part lies.
    pub(super) first: u32,
    /// Number of the next part that is waited for; 0 when all are there.
    next: u8,
    sum: u8,
    count: u8,
    units: Vec<[u16; PART_UNITS]>,
}

impl Gather {
    /// True when parts have come for which no entry came yet.
    pub(super) fn is_pending(&self) -> bool {
        self.count > 0
    }

    /// Takes a part. False when it does not follow the one before: then what came before belongs to nothing.
    pub(super) fn part(&mut self, slot: u32, part: Part<'_>) -> bool {
        let number = part.number();
        if part.is_last() {
            let fits = !self.is_pending();
            *self = Gather::default();
            if (1..=20).contains(&number) {
                *self = Gather {
                    first: slot,
                    next: number - 1,
                    sum: part.checksum(),
                    count: number,
                    units: vec![part.units()],
                };
            }
            return fits && self.is_pending();
        }
        if !self.is_pending() || number == 0 || number != self.next || part.checksum() != self.sum {
            *self = Gather::default();
            return false;
        }
        self.next -= 1;
        self.units.push(part.units());
        true
    }

    /// Takes the entry behind the parts: the long name, when all parts belong to it.
    pub(super) fn finish(&mut self, short: &[u8; 11]) -> Option<(u32, Vec<u16>)> {
        let whole = std::mem::take(self);
        if whole.count == 0 || whole.next != 0 || whole.sum != checksum(short) {
            return None;
        }
        let mut name: Vec<u16> = whole.units.iter().rev().flatten().copied().collect();
        if let Some(end) = name.iter().position(|unit| *unit == 0) {
            name.truncate(end);
        }
        (!name.is_empty() && name.len() <= MAX_NAME_UNITS).then_some((whole.first, name))
    }
}
