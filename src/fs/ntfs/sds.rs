//! $Secure:$SDS, the security descriptors of a volume: a header of 20 bytes (hash, id, offset, length) and the
//! descriptor, aligned to 16. Blocks of 256 KiB are each followed by a copy of themselves; no entry crosses a block.

use vmrescue_base::bytes::{u32_at, u64_at};

/// Bytes of the header of an entry.
pub(crate) const HEADER_BYTES: usize = 20;
/// The copy of each entry lies this far behind it.
pub(crate) const MIRROR_BYTES: u64 = 0x40000;
/// Entries begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 16;
/// Largest $SDS that is read: a hundred times that of a large server.
pub(crate) const MAX_SDS_BYTES: u64 = 256 << 20;

/// The header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Hash of the descriptor.
    pub(crate) hash: u32,
    /// Security id.
    pub(crate) id: u32,
    /// Where the entry lies in $SDS (the first of the two).
    pub(crate) offset: u64,
    /// Bytes of header and descriptor.
    pub(crate) length: u32,
}

impl Header {
    /// From the disk.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            hash: u32_at(bytes, 0)?,
            id: u32_at(bytes, 4)?,
            offset: u64_at(bytes, 8)?,
            length: u32_at(bytes, 16)?,
        })
    }

    /// As it stands in $SDS and behind the keys of $SII and $SDH.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&self.hash.to_le_bytes());
        out[4..8].copy_from_slice(&self.id.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..].copy_from_slice(&self.length.to_le_bytes());
        out
    }
}

/// The hash of $SDH: each 32-bit word is added to the sum rotated left by 3.
pub(crate) fn hash(descriptor: &[u8]) -> u32 {
    let (words, _) = descriptor.as_chunks::<4>();
    words.iter().fold(0u32, |sum, word| sum.rotate_left(3).wrapping_add(u32::from_le_bytes(*word)))
}
