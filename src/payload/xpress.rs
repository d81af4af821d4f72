//! XPRESS Huffman ([MS-XCA] 2.2): blocks of 64 KiB of text, each with a table of code lengths in front. Chunks of WOF and WIM are
//! one block; what Windows packs as a whole (prefetch files) has many, whose matches reach back into the blocks before.

use super::huffman::{Bits, Code, copy_match};
use vmrescue_base::bytes::slice_at;

/// Bytes of the table: 512 lengths of four bits.
const TABLE_BYTES: usize = 256;
/// Bytes that a block gives.
const BLOCK_BYTES: usize = 65536;

/// Unpacks into all of `out`; `None` when `input` does not give exactly that.
pub fn decompress(input: &[u8], out: &mut [u8]) -> Option<()> {
    let (mut at, mut done) = (0, 0);
    // Bounded: every block fills at least one byte.
    while done < out.len() {
        let end = done.saturating_add(BLOCK_BYTES).min(out.len());
        (at, done) = block(input, at, out, done, end)?;
    }
    Some(())
}

/// Unpacks one block; where the next one begins, and how much is done: a match may reach over the end.
fn block(input: &[u8], at: usize, out: &mut [u8], done: usize, end: usize) -> Option<(usize, usize)> {
    let table = slice_at(input, at, TABLE_BYTES)?;
    let lengths: Vec<u8> = table.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
    let code = Code::new(&lengths)?;
    let mut bits = Bits::new(input, at + TABLE_BYTES);
    let mut done = done;
    // Bounded: every symbol fills at least one byte.
    while done < end {
        let symbol = code.next(&mut bits)?;
        if symbol < 256 {
            out[done] = symbol as u8;
            done += 1;
            continue;
        }
        let mut length = symbol & 15;
        let distance_bits = ((symbol - 256) >> 4) as u32;
        if length == 15 {
            length = usize::from(u8::from_le_bytes(bits.bytes()?));
            if length == 255 {
                length = usize::from(u16::from_le_bytes(bits.bytes()?));
                if length == 0 {
                    length = u32::from_le_bytes(bits.bytes()?) as usize;
                }
                length = length.checked_sub(15)?;
            }
            length += 15;
        }
        let distance = (1 << distance_bits) + bits.take(distance_bits);
        done = copy_match(out, done, distance, length + 3)?;
    }
    (!bits.overrun()).then_some((bits.at(), done))
}

#[cfg(test)]
mod tests {
    use super::decompress;
    use crate::chunk_tests;
    use proptest::prelude::*;

    /// What wimlib makes of [`chunk_tests::text`].
    const PACKED: &str = "060000000007700007000000000000000500000000000000575555555400000000000000000000000000000000000000707050077600067700070607700000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000007000000000000000000000007000000000000000000000000000000000000000000000000000000000000700007000000000040000000000000005000000000000000400000000000000030000000000000703000000000000000600000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000006dbf7a7c1777e87773edb3bbe6ebf7fbf25f56bdb64a02e8c70209ad0347ab02930c02403103020d030380e8030c6c03adaa03305802604d034c050303c4322f1803049da90326660458c1031caf03ecb3040430cc040c5304038e1003789003a41803a66003c00103a68e03fdc403208704f0d304032bc4032ef40334a2040743034393036814040345100307a90319ae036615041ab81919a811040a4704744118041f340439f304d3f27c4f961d4f5f00c0160000";

    #[test]
    fn a_chunk_of_another_maker_is_unpacked() {
        chunk_tests::is_unpacked(decompress, PACKED);
    }

    proptest! {
        #[test]
        fn a_damaged_chunk_never_causes_a_panic(damage in chunk_tests::damage()) {
            damage.applied(decompress, PACKED);
        }

        #[test]
        fn anything_is_unpacked_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700), room in 0usize..9000) {
            let _ = decompress(&bytes, &mut vec![0; room]);
        }
    }
}
