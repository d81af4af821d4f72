//! What the two ways to unpack a chunk of WIM and WOF must stand, XPRESS and LZX.

use proptest::prelude::*;

/// Unpacks into all of the room that it is given.
type Unpack = fn(&[u8], &mut [u8]) -> Option<()>;

/// A text with repetitions, and calls as LZX translates them.
pub(super) fn text() -> Vec<u8> {
    let mut text: Vec<u8> =
        (0..60).flat_map(|i| format!("entry {} of the hive\r\n", i * i % 97).into_bytes()).collect();
    text.extend_from_slice(&[&b"call"[..]; 6].join(&b"\xE8\x10\x20\0\0"[..]));
    text
}

pub(super) fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The chunk gives the text, and nothing of another length.
pub(super) fn is_unpacked(unpack: Unpack, packed: &str) {
    let packed = bytes_of(packed);
    let mut out = vec![0; text().len()];
    unpack(&packed, &mut out).unwrap();
    assert!(out == text());
    assert_eq!(unpack(&packed, &mut vec![0; text().len() + 1]), None);
    assert_eq!(unpack(&packed[..100], &mut out), None);
}

/// Damage to a chunk.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    changes: Vec<(usize, u8)>,
    cut: usize,
    room: usize,
}

pub(super) fn damage() -> impl Strategy<Value = Damage> {
    (proptest::collection::vec(any::<(usize, u8)>(), 1..8), any::<usize>(), 0usize..40_000)
        .prop_map(|(changes, cut, room)| Damage { changes, cut, room })
}

impl Damage {
    /// Unpacks a chunk that was damaged so, whole and cut.
    pub(super) fn applied(&self, unpack: Unpack, packed: &str) {
        let mut bytes = bytes_of(packed);
        for (place, byte) in &self.changes {
            let length = bytes.len();
            bytes[place % length] = *byte;
        }
        let mut out = vec![0; self.room];
        let _ = unpack(&bytes, &mut out);
        let _ = unpack(&bytes, &mut vec![0; text().len()]);
        bytes.truncate(self.cut % (bytes.len() + 1));
        let _ = unpack(&bytes, &mut out);
    }
}
