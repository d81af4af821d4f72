//! LZX as WIM and WOF use it: chunks of 32 KiB that stand alone, block sizes of one bit or 16, x86 calls translated
//! with a fixed file size. Written after the description in [MS-PATCH] 2 and what WIM does differently.

use super::huffman::{Bits, Code, copy_match};
use vmrescue_base::bytes::{array_at, slice_at};

/// Largest chunk: the window.
pub const CHUNK_BYTES: usize = 32768;
/// Position slots of a window of 32 KiB.
const SLOTS: usize = 30;
const MAIN_SYMBOLS: usize = 256 + 8 * SLOTS;
const LENGTH_SYMBOLS: usize = 249;
/// The file size that calls are translated with.
const E8_FILE_BYTES: i32 = 12_000_000;

/// Code lengths, which carry over from block to block, and the three recent distances.
struct State {
    main: [u8; MAIN_SYMBOLS],
    length: [u8; LENGTH_SYMBOLS],
    recent: [usize; 3],
}

/// Unpacks a chunk into all of `out`; `None` when the chunk does not give exactly that.
pub fn decompress(input: &[u8], out: &mut [u8]) -> Option<()> {
    if out.len() > CHUNK_BYTES {
        return None;
    }
    let mut state = State { main: [0; MAIN_SYMBOLS], length: [0; LENGTH_SYMBOLS], recent: [1; 3] };
    let mut bits = Bits::new(input, 0);
    let mut done = 0;
    // Bounded: a block of no bytes is refused.
    while done < out.len() {
        let kind = bits.take(3);
        let size = if bits.take(1) == 1 { CHUNK_BYTES } else { bits.take(16) };
        let end = done.checked_add(size).filter(|end| size > 0 && *end <= out.len())?;
        match kind {
            1 | 2 => compressed(&mut bits, &mut state, kind == 2, out, done, end)?,
            3 => bits = stored(input, &bits, &mut state, &mut out[done..end])?,
            _ => return None,
        }
        done = end;
    }
    if bits.overrun() {
        return None;
    }
    untranslate(out);
    Some(())
}

/// A block that is stored as it is: three distances, then the bytes, at whole words.
fn stored<'a>(input: &'a [u8], bits: &Bits<'a>, state: &mut State, out: &mut [u8]) -> Option<Bits<'a>> {
    let at = bits.next_word();
    for (index, recent) in state.recent.iter_mut().enumerate() {
        *recent = u32::from_le_bytes(array_at(input, at + 4 * index)?) as usize;
    }
    out.copy_from_slice(slice_at(input, at + 12, out.len())?);
    Some(Bits::new(input, at + 12 + out.len().next_multiple_of(2)))
}

fn compressed(
    bits: &mut Bits<'_>,
    state: &mut State,
    aligned: bool,
    out: &mut [u8],
    from: usize,
    end: usize,
) -> Option<()> {
    let low = if aligned {
        let mut lengths = [0u8; 8];
        lengths.fill_with(|| bits.take(3) as u8);
        Some(Code::new(&lengths)?)
    } else {
        None
    };
    read_lengths(bits, &mut state.main[..256])?;
    read_lengths(bits, &mut state.main[256..])?;
    read_lengths(bits, &mut state.length)?;
    let (main, length_code) = (Code::new(&state.main)?, Code::new(&state.length)?);
    let mut done = from;
    while done < end {
        let symbol = main.next(bits)?;
        if symbol < 256 {
            out[done] = symbol as u8;
            done += 1;
            continue;
        }
        let mut length = (symbol & 7) + 2;
        if symbol & 7 == 7 {
            length += length_code.next(bits)?;
        }
        let distance = distance(bits, &mut state.recent, (symbol - 256) >> 3, low.as_ref())?;
        done = copy_match(&mut out[..end], done, distance, length)?;
    }
    Some(())
}

/// The distance of a position slot; the first three are the recent distances.
fn distance(bits: &mut Bits<'_>, recent: &mut [usize; 3], slot: usize, low: Option<&Code>) -> Option<usize> {
    if slot < 3 {
        recent.swap(0, slot);
        return Some(recent[0]);
    }
    let extra = if slot < 4 { 0 } else { slot / 2 - 1 } as u32;
    let base = if slot < 4 { slot } else { (2 + (slot & 1)) << extra };
    let more = match low {
        Some(code) if extra >= 3 => {
            let high = bits.take(extra - 3) << 3;
            high + code.next(bits)?
        }
        _ => bits.take(extra),
    };
    *recent = [(base + more).checked_sub(2)?, recent[0], recent[1]];
    Some(recent[0])
}

/// Code lengths as differences to those of the block before, packed with a small code of their own.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Option<()> {
    let mut pre = [0u8; 20];
    pre.fill_with(|| bits.take(4) as u8);
    let code = Code::new(&pre)?;
    let less = |old: u8, by: usize| ((17 + usize::from(old)).checked_sub(by)).map(|n| (n % 17) as u8);
    let mut at = 0;
    while at < lengths.len() {
        let (count, value) = match code.next(bits)? {
            17 => (4 + bits.take(4), 0),
            18 => (20 + bits.take(5), 0),
            19 => {
                let count = 4 + bits.take(1);
                let by = code.next(bits).filter(|by| *by < 17)?;
                (count, less(lengths[at], by)?)
            }
            by => (1, less(lengths[at], by)?),
        };
        let end = (at + count).min(lengths.len());
        lengths[at..end].fill(value);
        at = end;
    }
    Some(())
}

/// Turns the absolute targets of x86 calls back into relative ones.
fn untranslate(out: &mut [u8]) {
    let mut at = 0usize;
    while at + 10 < out.len() {
        if out[at] != 0xE8 {
            at += 1;
            continue;
        }
        let place = at as i32; // below 32,768
        if let Some(target) = array_at(out, at + 1).map(i32::from_le_bytes)
            && target >= -place
            && target < E8_FILE_BYTES
        {
            let relative = if target >= 0 { target - place } else { target + E8_FILE_BYTES };
            out[at + 1..at + 5].copy_from_slice(&relative.to_le_bytes());
        }
        at += 5;
    }
}

#[cfg(test)]
mod tests {
    use super::decompress;
    use crate::chunk_tests;
    use proptest::prelude::*;

    /// What wimlib makes of [`chunk_tests::text`].
    const PACKED: &str = "552000020000240040533400aa5c0d8241b9efad6cb60dd8a346137988c9a0602098fbf71ef5001a0000190000a211201300c337f9e02e3c030fea881d3ae47e000000000000cc0c80c8a17f2a30fbfde3f7eb6bdfc79ae6db539cceeb77fe4d1a9ff5f5fb6b38d048b805fe68a8710f250e600383af59d82646214cea45851908b4aca2012ffedf26e415274ed05c51c2165564a8c2889bd5409a094660906712ca6144c2762d6acf727736092d942b9c64a7f43a3aef7c1e2f3e1cb79bef76bbcffd6e36bca7ec00d8";

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
