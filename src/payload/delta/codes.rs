//! The codes of a delta's body: canonical, the longest ones first from zero, the first bit that is read being the highest.

use super::bits::Stream;
use super::damaged;
use vmrescue_base::error::Result;

/// Longest code.
const MAX_BITS: usize = 16;
/// Codes up to this length are found with one look.
const QUICK_BITS: usize = 11;

/// Symbols for literals and matches, for lengths, for the low bits of distances.
pub(super) const MAIN: usize = 600;
pub(super) const LENGTHS: usize = 256;
pub(super) const ALIGNED: usize = 16;
/// Lengths of all codes of a block.
pub(super) const ALL: usize = MAIN + LENGTHS + ALIGNED;
/// Symbols of the code that they are packed with.
const PRE: usize = 39;

/// A canonical code.
#[derive(Debug)]
pub(super) struct Code {
    quick: Vec<(u16, u8)>,
    first: [usize; MAX_BITS + 1],
    count: [usize; MAX_BITS + 1],
    start: [usize; MAX_BITS + 1],
    sorted: Vec<u16>,
}

impl Code {
    /// From the length of each symbol's code (0: not used). `None` when the codes do not fill the space exactly; a code of one symbol
    /// and one of none are allowed.
    pub(super) fn new(lengths: &[u8]) -> Option<Code> {
        let mut count = [0; MAX_BITS + 1];
        for length in lengths {
            *count.get_mut(usize::from(*length))? += 1;
        }
        count[0] = 0;
        let used: usize = count.iter().sum();
        let (mut first, mut start) = ([0; MAX_BITS + 1], [0; MAX_BITS + 1]);
        let (mut code, mut index) = (0, 0);
        for length in (1..=MAX_BITS).rev() {
            (first[length], start[length]) = (code, index);
            index += count[length];
            code += count[length];
            if used > 1 && (code % 2 == 1 || code > 1 << length) {
                return None;
            }
            code >>= 1;
        }
        if used > 1 && code != 1 {
            return None;
        }
        let mut built =
            Code { quick: vec![(0, 0); 1 << QUICK_BITS], first, count, start, sorted: vec![0; used] };
        let mut next = start;
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let bits = usize::from(*length);
            let place = next[bits];
            next[bits] += 1;
            built.sorted[place] = symbol as u16; // at most 600 symbols
            if bits <= QUICK_BITS {
                let code = built.first[bits] + place - built.start[bits];
                let low = code.reverse_bits() >> (usize::BITS as usize - bits);
                for index in (low..1 << QUICK_BITS).step_by(1 << bits) {
                    built.quick[index] = (symbol as u16, *length);
                }
            }
        }
        Some(built)
    }

    /// Equally likely symbols: the first ones get the shorter codes.
    pub(super) fn flat(symbols: usize) -> Vec<u8> {
        let width = usize::BITS - (symbols - 1).leading_zeros();
        let short = (1 << width) - symbols;
        (0..symbols).map(|symbol| if symbol < short { width - 1 } else { width } as u8).collect()
    }

    /// The code of a symbol in the order in which its bits are written, and its length: for packing.
    pub(super) fn code_of(&self, symbol: usize, lengths: &[u8]) -> (u64, u32) {
        let length = usize::from(lengths[symbol]);
        let all = &self.sorted[self.start[length]..self.start[length] + self.count[length]];
        let index = all.iter().position(|other| usize::from(*other) == symbol).unwrap_or(0);
        let code = (self.first[length] + index) as u64;
        (code.reverse_bits() >> (64 - length), length as u32)
    }

    /// The next symbol.
    pub(super) fn next(&self, stream: &mut Stream<'_>) -> Result<usize> {
        let bits = stream.peek();
        let (symbol, length) = self.quick[bits as usize & ((1 << QUICK_BITS) - 1)];
        if length > 0 {
            stream.skip(u32::from(length))?;
            return Ok(usize::from(symbol));
        }
        for length in QUICK_BITS + 1..=MAX_BITS {
            let code = (bits.reverse_bits() >> (64 - length)) as usize;
            let index = code.wrapping_sub(self.first[length]);
            if index < self.count[length] {
                stream.skip(length as u32)?;
                return Ok(usize::from(self.sorted[self.start[length] + index]));
            }
        }
        Err(damaged("bits that are no code").at(stream.at()))
    }
}

/// The codes of a block.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) main: Code,
    pub(super) lengths: Code,
    pub(super) aligned: Code,
}

impl Codes {
    pub(super) fn new(lengths: &[u8; ALL], at: u64) -> Result<Codes> {
        let code = |part: &[u8]| {
            Code::new(part).ok_or_else(|| damaged("the lengths of a code do not fit together").at(at))
        };
        Ok(Codes {
            main: code(&lengths[..MAIN])?,
            lengths: code(&lengths[MAIN..MAIN + LENGTHS])?,
            aligned: code(&lengths[MAIN + LENGTHS..])?,
        })
    }

    /// The codes that are used when none are given.
    pub(super) fn flat_lengths() -> [u8; ALL] {
        let mut lengths = [0; ALL];
        lengths[..MAIN].copy_from_slice(&Code::flat(MAIN));
        lengths[MAIN..MAIN + LENGTHS].copy_from_slice(&Code::flat(LENGTHS));
        lengths[MAIN + LENGTHS..].copy_from_slice(&Code::flat(ALIGNED));
        lengths
    }
}

/// The code that the lengths are packed with.
pub(super) fn read_pre(stream: &mut Stream<'_>) -> Result<Code> {
    let mut lengths = [0; PRE];
    for length in &mut lengths {
        *length = stream.take(4)? as u8; // four bits
    }
    Code::new(&lengths).ok_or_else(|| damaged("the lengths of a code do not fit together").at(stream.at()))
}

/// Reads the lengths of a block, told by those of the block before.
pub(super) fn read_lengths(stream: &mut Stream<'_>, pre: &Code, before: &[u8; ALL]) -> Result<[u8; ALL]> {
    let mut lengths = [0u8; ALL];
    let mut at = 0;
    let bad = |stream: &Stream<'_>| damaged("the length of a code cannot be").at(stream.at());
    while at < ALL {
        let symbol = pre.next(stream)?;
        let (value, count) = match symbol {
            0..=16 => (Some(symbol as u8), 1),
            17..=19 => (before[at].checked_add(symbol as u8 - 16), 1),
            20..=22 => (before[at].checked_sub(symbol as u8 - 19), 1),
            _ => {
                let e = (symbol as u32 - 23) & 7;
                let count = if e < 3 { u64::from(e) + 1 } else { 1 << (e - 1) | stream.take(e - 1)? };
                let value = if symbol >= 31 { None } else { at.checked_sub(1).map(|last| lengths[last]) };
                if symbol < 31 && value.is_none() {
                    return Err(bad(stream));
                }
                (value, count as usize)
            }
        };
        let end = at + count;
        if end > ALL {
            return Err(bad(stream));
        }
        match value {
            Some(value) if usize::from(value) <= MAX_BITS => lengths[at..end].fill(value),
            None if symbol >= 31 => lengths[at..end].copy_from_slice(&before[at..end]),
            _ => return Err(bad(stream)),
        }
        at = end;
    }
    Ok(lengths)
}
