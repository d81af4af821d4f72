//! LZNT1, the compression of NTFS streams ([MS-XCA] 2.5): chunks of 4 KiB, each with a two-byte header.

use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::{Error, Layer, Result};

/// Bytes that a chunk unpacks to.
const CHUNK: usize = 4096;

/// Unpacks `input` until `output` is full or the input ends; what is left of `output` becomes zero.
///
/// # Errors
/// `Damaged` when a chunk is cut off or points before its start.
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<()> {
    let bad = |at: usize| Error::damaged(Layer::Ntfs, "LZNT1 chunk").at(at as u64);
    let (mut at, mut done) = (0usize, 0usize);
    while done < output.len() {
        let header = u16_at(input, at).unwrap_or(0);
        if header == 0 {
            break;
        }
        let length = usize::from(header & 0x0FFF) + 1;
        let body = input.get(at + 2..at + 2 + length).ok_or_else(|| bad(at))?;
        let end = (done + CHUNK).min(output.len());
        let target = &mut output[done..end];
        if header & 0x8000 == 0 {
            let count = length.min(target.len());
            target[..count].copy_from_slice(&body[..count]);
            target[count..].fill(0);
        } else {
            chunk(body, target).ok_or_else(|| bad(at))?;
        }
        done = end;
        at += 2 + length;
    }
    output[done..].fill(0);
    Ok(())
}

/// Unpacks one chunk; `None` for a pair that points before the chunk.
fn chunk(body: &[u8], out: &mut [u8]) -> Option<()> {
    let (mut at, mut done) = (0usize, 0usize);
    while at < body.len() && done < out.len() {
        let flags = *body.get(at)?;
        at += 1;
        for bit in 0..8 {
            if at >= body.len() || done >= out.len() {
                break;
            }
            if flags & (1 << bit) == 0 {
                out[done] = body[at];
                done += 1;
                at += 1;
                continue;
            }
            let pair = u16_at(body, at)?;
            at += 2;
            // The further into the chunk, the more bits say the distance and the fewer the length.
            let distance_bits = (usize::BITS - done.saturating_sub(1).leading_zeros()).max(4);
            let length_bits = 16 - distance_bits.min(12);
            let distance = usize::from(pair >> length_bits) + 1;
            let length = usize::from(pair & ((1 << length_bits) - 1)) + 3;
            let from = done.checked_sub(distance)?;
            for index in 0..length.min(out.len() - done) {
                out[done + index] = out[from + index];
            }
            done = (done + length).min(out.len());
        }
    }
    out[done..].fill(0);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_specification() {
        // [MS-XCA] 3.3: "F# F# G A A G F# E D E F# ...", and its plain text.
        let packed = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01,
            0xa0, 0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24,
            0x13, 0x88, 0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48,
            0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00, 0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let plain = b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D";
        let mut out = vec![1; plain.len() + 7];
        decompress(&packed, &mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out[..plain.len()]), String::from_utf8_lossy(plain));
        assert_eq!(out[plain.len() + 1..], [0; 6]);
    }

    proptest! {
        #[test]
        fn anything_is_unpacked_without_panic(input in proptest::collection::vec(any::<u8>(), 0..600), room in 0usize..9000) {
            drop(decompress(&input, &mut vec![0; room]));
        }
    }
}
