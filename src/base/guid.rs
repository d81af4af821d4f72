//! GUIDs as Windows stores them: the first three fields little-endian, the last eight bytes as they are ([MS-DTYP] 2.3.4.2).

use std::fmt;
use std::str::FromStr;

/// A GUID, kept as its sixteen bytes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zero: "none" in most structures.
    pub const ZERO: Guid = Guid([0; 16]);

    /// From the four fields as they are written down: `Guid::from_fields(0x2dc27766, 0xf623, 0x4200, [0x9d, ...])`.
    pub const fn from_fields(a: u32, b: u16, c: u16, d: [u8; 8]) -> Guid {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Guid([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }

    /// A new one, version 4. The randomness is that of the standard library's hash keys: enough for identities, not
    /// for secrets.
    pub fn random() -> Guid {
        use std::hash::{BuildHasher, RandomState};
        let half = || RandomState::new().hash_one(std::time::SystemTime::now()).to_le_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half());
        bytes[8..].copy_from_slice(&half());
        bytes[7] = bytes[7] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }

    /// The GUID at `offset` of `bytes`, if all sixteen bytes are there.
    pub fn at(bytes: &[u8], offset: usize) -> Option<Guid> {
        crate::bytes::array_at(bytes, offset).map(Guid)
    }

    /// True for the all-zero GUID.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    /// Lower case, without braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:02x}{:02x}-",
            u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            u16::from_le_bytes([b[4], b[5]]),
            u16::from_le_bytes([b[6], b[7]]),
            b[8],
            b[9]
        )?;
        b[10..].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a GUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAGuid;

impl FromStr for Guid {
    type Err = NotAGuid;

    /// With or without braces, in any case.
    fn from_str(text: &str) -> Result<Guid, NotAGuid> {
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let dashes = |(place, c): (usize, char)| (c == '-') == matches!(place, 8 | 13 | 18 | 23);
        if text.len() != 36 || !text.is_ascii() || !text.char_indices().all(dashes) {
            return Err(NotAGuid);
        }
        if !text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
            return Err(NotAGuid);
        }
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        let mut bytes = [0u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotAGuid)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotAGuid)?;
        }
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Ok(Guid(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree() {
        let esp =
            Guid::from_fields(0xc12a7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!("{C12A7328-F81F-11D2-BA4B-00A0C93EC93B}".parse(), Ok(esp));
        assert_eq!("c12a7328-f81f-11d2-ba4b-00a0c93ec93".parse::<Guid>(), Err(NotAGuid));
        assert!("+12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse::<Guid>().is_err());
    }
}
