//! Security descriptors that files share: the stream $SDS of $Secure, by security id.
//!
//! $SDS is a row of entries, each on a multiple of 16: u32 hash, u32 id, u64 own offset, u32 length with this header
//! of 0x14 bytes, descriptor. Every 256 KiB of entries are followed by a copy of them, and an entry does not cross that
//! line. The stream is read once for all ids: the index $SII would need a look-up in the tree for each.

use super::node::kind;
use super::volume::Volume;
use std::collections::HashMap;
use vmrescue_base::bytes::{u32_at, u64_at};
use vmrescue_base::error::Result;
use vmrescue_base::text::utf16le_bytes;

/// Record of $Secure.
const SECURE: u64 = 9;
/// Entries lie in blocks of this size, each followed by its copy.
const BLOCK_BYTES: u64 = 256 << 10;
/// Bytes ahead of the descriptor.
const HEADER_BYTES: usize = 0x14;
/// Largest entry.
const MAX_ENTRY_BYTES: usize = 64 << 10;

/// Where each descriptor lies in $SDS: offset and length of the descriptor itself.
pub(crate) type Places = HashMap<u32, (u64, usize)>;

impl Volume {
    /// The descriptor with this id; `None` when $Secure does not have it.
    pub(crate) fn descriptor(&self, id: u32) -> Result<Option<Vec<u8>>> {
        let Some(&(offset, length)) = self.descriptor_places()?.get(&id) else { return Ok(None) };
        let mut bytes = vec![0; length];
        let read = self.read_sds(offset, &mut bytes)?;
        Ok((read == length).then_some(bytes))
    }

    fn read_sds(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let node = self.node(SECURE)?;
        match node.attribute(kind::DATA, &utf16le_bytes("$SDS")) {
            Some(data) => self.read_attribute(SECURE, data, offset, buf),
            None => Ok(0),
        }
    }

    /// Walks over all blocks of entries. An entry that does not hold its own offset ends its block.
    pub(crate) fn read_descriptor_places(&self) -> Result<Places> {
        let mut places = Places::new();
        let mut block = vec![0; BLOCK_BYTES as usize];
        // Bounded: a block without any byte ends the walk, and the stream has an end.
        for start in (0u64..).step_by(2 * BLOCK_BYTES as usize) {
            let read = self.read_sds(start, &mut block)?;
            if read == 0 {
                break;
            }
            let mut at = 0;
            while let Some((id, length)) = entry(&block[..read], start, at) {
                places.insert(id, (start + (at + HEADER_BYTES) as u64, length - HEADER_BYTES));
                at = (at + length).next_multiple_of(16);
            }
        }
        Ok(places)
    }
}

/// Id and length of the entry at `at` of a block that begins at `start` of the stream.
fn entry(block: &[u8], start: u64, at: usize) -> Option<(u32, usize)> {
    let head = block.get(at..at.checked_add(HEADER_BYTES)?)?;
    let length = u32_at(head, 0x10)? as usize;
    let whole = (HEADER_BYTES + 1..=MAX_ENTRY_BYTES).contains(&length) && at + length <= block.len();
    (whole && u64_at(head, 8)? == start + at as u64).then_some((u32_at(head, 4)?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_from_rubbish() {
        let mut block = vec![0; 0x60];
        block[4] = 7;
        block[8..16].copy_from_slice(&0x8_0000u64.to_le_bytes());
        block[0x10] = 0x30;
        assert_eq!(entry(&block, 0x8_0000, 0), Some((7, 0x30)));
        assert_eq!(entry(&block, 0, 0), None, "the offset is another");
        assert_eq!(entry(&block, 0x8_0000, 0x30), None);
        assert_eq!(entry(&block, 0x8_0000, usize::MAX), None);
        block[0x10] = 0x61;
        assert_eq!(entry(&block, 0x8_0000, 0), None, "longer than the block");
    }
}
