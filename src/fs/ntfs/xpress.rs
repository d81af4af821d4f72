//! XPRESS Huffman ([MS-XCA] 2.2): blocks of 64 KiB of text, each with a table of code lengths in front. Chunks of WOF and WIM are
//! one block; what Windows packs as a whole (prefetch files) has many, whose matches reach back into the blocks before.

use super::huffman::{Bits, Code, copy_match};
use crate::bytes::slice_at;

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
