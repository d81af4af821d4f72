//! Access control lists and their entries ([MS-DTYP] 2.4.4, 2.4.5).

use super::sid::Sid;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};

/// ACE flag: files inherit it.
pub(super) const OBJECT_INHERIT: u8 = 0x01;
/// ACE flag: directories inherit it.
pub(super) const CONTAINER_INHERIT: u8 = 0x02;
/// ACE flag: it is inherited by one level only.
pub(super) const NO_PROPAGATE: u8 = 0x04;
/// ACE flag: it does not count for the directory itself.
pub(super) const INHERIT_ONLY: u8 = 0x08;
/// ACE flag: it came from the directory.
pub(super) const INHERITED: u8 = 0x10;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ace {
    /// Type: 0 allows, 1 denies, 2 audits, 0x11 is the integrity label.
    pub kind: u8,
    /// How it is inherited and what is audited.
    pub flags: u8,
    /// Everything behind the header of four bytes: for most types the mask and the SID.
    pub body: Vec<u8>,
}

impl Ace {
    /// The rights.
    pub fn mask(&self) -> Option<u32> {
        u32_at(&self.body, 0)
    }

    /// Where the SID begins in the body: object types have up to two GUIDs in front.
    pub(super) fn sid_at(&self) -> Option<usize> {
        match self.kind {
            0..=3 | 9 | 10 | 13 | 14 | 0x11..=0x15 => Some(4),
            5..=8 | 11 | 12 | 15 | 16 => Some(8 + 16 * (u32_at(&self.body, 4)? & 3).count_ones() as usize),
            _ => None,
        }
    }

    /// Whom it is about.
    pub fn sid(&self) -> Option<Sid> {
        Sid::parse(self.body.get(self.sid_at()?..)?)
    }

    /// An entry that allows.
    pub fn allow(flags: u8, mask: u32, sid: &Sid) -> Ace {
        Ace { kind: 0, flags, body: [&mask.to_le_bytes()[..], sid.bytes()].concat() }
    }
}

/// A list of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// 2, or 4 with entries for objects.
    pub revision: u8,
    /// In order: the order matters.
    pub aces: Vec<Ace>,
}

impl Acl {
    /// The list that fills `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<Acl> {
        let revision = *bytes.first().filter(|revision| matches!(**revision, 2..=4))?;
        let (mut at, mut aces) = (8, Vec::new());
        for _ in 0..u16_at(bytes, 4)? {
            let length = usize::from(u16_at(bytes, at + 2)?);
            let ace = slice_at(bytes, at, length).filter(|_| length >= 4)?;
            aces.push(Ace { kind: ace[0], flags: ace[1], body: ace[4..].to_vec() });
            at += length;
        }
        Some(Acl { revision, aces })
    }

    /// As stored. Entries that would make it longer than 64 KiB are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.revision, 0, 0, 0, 0, 0, 0, 0];
        let mut count = 0u16;
        for ace in &self.aces {
            let length = (4 + ace.body.len()).next_multiple_of(4);
            if out.len() + length > usize::from(u16::MAX) {
                break;
            }
            let end = out.len() + length;
            out.extend_from_slice(&[ace.kind, ace.flags]);
            out.extend_from_slice(&(length as u16).to_le_bytes());
            out.extend_from_slice(&ace.body);
            out.resize(end, 0);
            count += 1;
        }
        let length = out.len() as u16; // checked above
        out[2..4].copy_from_slice(&length.to_le_bytes());
        out[4..6].copy_from_slice(&count.to_le_bytes());
        out
    }
}
