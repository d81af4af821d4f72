//! Security identifiers ([MS-DTYP] 2.4.2).

use std::fmt;
use vmrescue_base::bytes::slice_at;

/// Most sub-authorities of a SID.
const MAX_PARTS: usize = 15;

/// A security identifier: who.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sid(Vec<u8>);

/// The two letters that SDDL has for well-known SIDs, with the authority and sub-authorities.
const WELL_KNOWN: &[(&str, u8, &[u32])] = &[
    ("WD", 1, &[0]),
    ("CO", 3, &[0]),
    ("CG", 3, &[1]),
    ("OW", 3, &[4]),
    ("NU", 5, &[2]),
    ("IU", 5, &[4]),
    ("SU", 5, &[6]),
    ("AN", 5, &[7]),
    ("ED", 5, &[9]),
    ("PS", 5, &[10]),
    ("AU", 5, &[11]),
    ("RC", 5, &[12]),
    ("SY", 5, &[18]),
    ("LS", 5, &[19]),
    ("NS", 5, &[20]),
    ("BA", 5, &[32, 544]),
    ("BU", 5, &[32, 545]),
    ("BG", 5, &[32, 546]),
    ("PU", 5, &[32, 547]),
    ("AO", 5, &[32, 548]),
    ("SO", 5, &[32, 549]),
    ("PO", 5, &[32, 550]),
    ("BO", 5, &[32, 551]),
    ("RE", 5, &[32, 552]),
    ("RU", 5, &[32, 554]),
    ("RD", 5, &[32, 555]),
    ("NO", 5, &[32, 556]),
    ("MU", 5, &[32, 558]),
    ("LU", 5, &[32, 559]),
    ("IS", 5, &[32, 568]),
    ("CY", 5, &[32, 569]),
    ("AC", 15, &[2, 1]),
    ("LW", 16, &[4096]),
    ("ME", 16, &[8192]),
    ("MP", 16, &[8448]),
    ("HI", 16, &[12288]),
    ("SI", 16, &[16384]),
];

impl Sid {
    /// S-1-5-18, the local system.
    pub fn system() -> Sid {
        Sid::new(5, &[18])
    }

    /// S-1-5-32-544, the administrators of the machine.
    pub fn administrators() -> Sid {
        Sid::new(5, &[32, 544])
    }

    /// S-1-3-0: stands for whoever creates the file.
    pub fn creator_owner() -> Sid {
        Sid::new(3, &[0])
    }

    /// S-1-3-1: stands for the group of whoever creates the file.
    pub fn creator_group() -> Sid {
        Sid::new(3, &[1])
    }

    /// From authority and sub-authorities (at most 15, the rest is left out).
    pub fn new(authority: u8, parts: &[u32]) -> Sid {
        let parts = &parts[..parts.len().min(MAX_PARTS)];
        let mut bytes = vec![1, parts.len() as u8, 0, 0, 0, 0, 0, authority];
        bytes.extend(parts.iter().flat_map(|part| part.to_le_bytes()));
        Sid(bytes)
    }

    /// The SID at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<Sid> {
        let parts = usize::from(*bytes.get(1)?);
        if bytes.first() != Some(&1) || parts > MAX_PARTS {
            return None;
        }
        slice_at(bytes, 0, 8 + 4 * parts).map(|bytes| Sid(bytes.to_vec()))
    }

    /// As stored.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn parts(&self) -> impl Iterator<Item = u32> {
        self.0[8..].as_chunks::<4>().0.iter().map(|part| u32::from_le_bytes(*part))
    }

    fn authority(&self) -> u64 {
        self.0[2..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// The form of SDDL: two letters for well-known ones.
    pub fn sddl(&self) -> String {
        let known = WELL_KNOWN.iter().find(|(_, authority, parts)| {
            self.authority() == u64::from(*authority) && self.parts().eq(parts.iter().copied())
        });
        known.map_or_else(|| self.to_string(), |(letters, ..)| (*letters).to_string())
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority();
        if authority >> 32 == 0 {
            write!(f, "S-1-{authority}")?;
        } else {
            write!(f, "S-1-{authority:#014x}")?;
        }
        self.parts().try_for_each(|part| write!(f, "-{part}"))
    }
}
