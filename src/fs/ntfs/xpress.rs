//! XPRESS Huffman ([MS-XCA] 2.2) for single blocks: at most 64 KiB, one table of code lengths in front.

use super::huffman::{Bits, Code, copy_match};

/// Bytes of the table: 512 lengths of four bits.
const TABLE_BYTES: usize = 256;

/// Unpacks a block into all of `out`; `None` when the block does not give exactly that.
pub(crate) fn decompress(input: &[u8], out: &mut [u8]) -> Option<()> {
    let table = input.get(..TABLE_BYTES)?;
    let lengths: Vec<u8> = table.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
    let code = Code::new(&lengths)?;
    let mut bits = Bits::new(input, TABLE_BYTES);
    let mut done = 0;
    // Bounded: every symbol fills at least one byte.
    while done < out.len() {
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
    (!bits.overrun()).then_some(())
}
