//! LZX: what cabinets and images share, and how WIM and WOF use it: chunks of 32 KiB that stand alone, block sizes of one bit or 16, x86 calls translated
//! with a fixed file size. Written after the description in [MS-PATCH] 2 and what WIM does differently.

use super::huffman::{Bits, Code, copy_match};
use vmrescue_base::bytes::{array_at, slice_at};

/// Largest chunk: the window.
pub const CHUNK_BYTES: usize = 32768;
/// Position slots of a window of 32 KiB.
const SLOTS: usize = 30;
/// Most further bits of a slot, and the first slot whose base follows from that.
const MOST_EXTRA: usize = 17;
const FIRST_WIDE: usize = 36;
const LENGTH_SYMBOLS: usize = 249;
/// The file size that calls are translated with in WIM and WOF.
const E8_FILE_BYTES: i32 = 12_000_000;

/// Code lengths, which carry over from block to block.
pub(crate) struct Lengths {
    main: Vec<u8>,
    length: [u8; LENGTH_SYMBOLS],
}

/// The codes of a block.
pub(crate) struct Codes {
    main: Code,
    length: Code,
    low: Option<Code>,
}

impl Lengths {
    /// For a window with so many position slots.
    pub(crate) fn new(slots: usize) -> Lengths {
        Lengths { main: vec![0; 256 + 8 * slots], length: [0; LENGTH_SYMBOLS] }
    }

    /// Reads the codes of a block; `aligned` ones have a code for the low bits of distances.
    pub(crate) fn read(&mut self, bits: &mut Bits<'_>, aligned: bool) -> Option<Codes> {
        let low = if aligned {
            let mut lengths = [0u8; 8];
            lengths.fill_with(|| bits.take(3) as u8);
            Some(Code::new(&lengths)?)
        } else {
            None
        };
        let (literals, rest) = self.main.split_at_mut(256);
        read_lengths(bits, literals)?;
        read_lengths(bits, rest)?;
        read_lengths(bits, &mut self.length)?;
        Some(Codes { main: Code::new(&self.main)?, length: Code::new(&self.length)?, low })
    }
}

/// Unpacks a chunk into all of `out`; `None` when the chunk does not give exactly that.
pub fn decompress(input: &[u8], out: &mut [u8]) -> Option<()> {
    if out.len() > CHUNK_BYTES {
        return None;
    }
    let mut lengths = Lengths::new(SLOTS);
    let mut recent = [1; 3];
    let mut bits = Bits::new(input, 0);
    let mut done = 0;
    // Bounded: a block of no bytes is refused.
    while done < out.len() {
        let kind = bits.take(3);
        let size = if bits.take(1) == 1 { CHUNK_BYTES } else { bits.take(16) };
        let end = done.checked_add(size).filter(|end| size > 0 && *end <= out.len())?;
        match kind {
            1 | 2 => {
                let codes = lengths.read(&mut bits, kind == 2)?;
                matches(&mut bits, &codes, &mut recent, &mut out[..end], done)?;
            }
            3 => bits = stored(input, &bits, &mut recent, &mut out[done..end])?,
            _ => return None,
        }
        done = end;
    }
    if bits.overrun() {
        return None;
    }
    untranslate(out, 0, E8_FILE_BYTES);
    Some(())
}

/// A block that is stored as it is: three distances, then the bytes, at whole words.
fn stored<'a>(input: &'a [u8], bits: &Bits<'a>, recent: &mut [usize; 3], out: &mut [u8]) -> Option<Bits<'a>> {
    let at = bits.next_word();
    for (index, recent) in recent.iter_mut().enumerate() {
        *recent = u32::from_le_bytes(array_at(input, at + 4 * index)?) as usize;
    }
    out.copy_from_slice(slice_at(input, at + 12, out.len())?);
    Some(Bits::new(input, at + 12 + out.len().next_multiple_of(2)))
}

/// Literals and matches from `done` to the end of `out`; a match that reaches over it is an error.
pub(crate) fn matches(
    bits: &mut Bits<'_>,
    codes: &Codes,
    recent: &mut [usize; 3],
    out: &mut [u8],
    done: usize,
) -> Option<()> {
    let mut done = done;
    while done < out.len() {
        let symbol = codes.main.next(bits)?;
        if symbol < 256 {
            out[done] = symbol as u8;
            done += 1;
            continue;
        }
        let mut length = (symbol & 7) + 2;
        if symbol & 7 == 7 {
            length += codes.length.next(bits)?;
        }
        let distance = distance(bits, recent, (symbol - 256) >> 3, codes.low.as_ref())?;
        done = copy_match(out, done, distance, length)?;
    }
    Some(())
}

/// The distance of a position slot; the first three are the recent distances.
fn distance(bits: &mut Bits<'_>, recent: &mut [usize; 3], slot: usize, low: Option<&Code>) -> Option<usize> {
    if slot < 3 {
        recent.swap(0, slot);
        return Some(recent[0]);
    }
    let extra = if slot < 4 { 0 } else { (slot / 2 - 1).min(MOST_EXTRA) } as u32;
    let base = match slot {
        0..4 => slot,
        // From here on all slots have as many bits.
        FIRST_WIDE.. => (slot - FIRST_WIDE + 2) << MOST_EXTRA,
        _ => (2 + (slot & 1)) << extra,
    };
    let more = match low {
        Some(code) if extra >= 3 => {
            let high = bits.take(extra - 3) << 3;
            high + code.next(bits)?
        }
        // No more than 16 bits are held.
        _ if extra > 16 => {
            let high = bits.take(extra - 16) << 16;
            high + bits.take(16)
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

/// Turns the absolute targets of x86 calls back into relative ones, in a frame that lies at `base` of what was packed as a file of
/// `file_bytes`.
pub(crate) fn untranslate(out: &mut [u8], base: i32, file_bytes: i32) {
    let mut at = 0usize;
    while at + 10 < out.len() {
        if out[at] != 0xE8 {
            at += 1;
            continue;
        }
        let place = base.wrapping_add(at as i32); // frames have at most 32,768 bytes
        if let Some(target) = array_at(out, at + 1).map(i32::from_le_bytes)
            && target >= place.wrapping_neg()
            && target < file_bytes
        {
            let relative =
                if target >= 0 { target.wrapping_sub(place) } else { target.wrapping_add(file_bytes) };
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

    #[test]
    fn distances_of_wide_windows_are_read() {
        let read = |slot: usize, bytes: &[u8]| {
            super::distance(&mut super::Bits::new(bytes, 0), &mut [1; 3], slot, None)
        };
        // 17 bits: a one and 16 zeros.
        assert_eq!(read(36, &[0, 0x80, 0, 0]), Some((2 << 17) + (1 << 16) - 2));
        assert_eq!(read(49, &[0xff; 8]), Some((15 << 17) + (1 << 17) - 1 - 2));
        assert_eq!(read(35, &[0xff; 8]), Some((3 << 16) + (1 << 16) - 1 - 2));
        assert_eq!(read(0, &[]), Some(1));
    }

    /// The same block as a cabinet would have it: translation size ahead, 24 bits of length.
    #[test]
    fn a_block_of_another_maker_is_unpacked_as_a_cabinet_has_it() {
        let text = chunk_tests::text();
        let packed = chunk_tests::bytes_of(PACKED);
        let words = |bytes: &[u8]| {
            bytes
                .chunks(2)
                .map(|w| u16::from(w[0]) | u16::from(*w.get(1).unwrap_or(&0)) << 8)
                .collect::<Vec<_>>()
        };
        let mut bits: Vec<bool> = words(&packed)
            .iter()
            .flat_map(|word| (0..16).rev().map(move |bit| word >> bit & 1 == 1))
            .collect();
        // Kind, "not the usual size", 16 bits of size.
        let kind: Vec<bool> = bits.drain(..20).take(3).collect();
        let number = |value: u32, count: u32| (0..count).rev().map(move |bit| value >> bit & 1 == 1);
        let head = std::iter::once(true)
            .chain(number(12_000_000, 32))
            .chain(kind)
            .chain(number(text.len() as u32, 24));
        let mut all: Vec<bool> = head.chain(bits).collect();
        all.resize(all.len().next_multiple_of(16), false);
        let frame: Vec<u8> = all
            .chunks(16)
            .flat_map(|word| word.iter().fold(0u16, |word, bit| word << 1 | u16::from(*bit)).to_le_bytes())
            .collect();
        let mut window = crate::lzx_cabinet::Window::new(15).unwrap();
        let mut out = vec![0; text.len()];
        window.block(&frame, &mut out, 0).unwrap();
        window.untranslate(&mut out);
        assert!(out == text);
        let mut short = vec![0; text.len()];
        let mut window = crate::lzx_cabinet::Window::new(15).unwrap();
        assert!(window.block(&frame[..frame.len() / 2], &mut short, 0).is_none());
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
