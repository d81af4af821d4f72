//! What XPRESS Huffman and LZX share: bits from 16-bit little-endian words, highest first, and canonical codes.

use vmrescue_base::bytes::u16_at;

/// Longest code.
const MAX_BITS: usize = 16;
/// Codes up to this length are found with one look.
const QUICK_BITS: usize = 10;

/// Bits of a buffer; behind its end there are zeros. Always holds at least 16 bits, as [MS-XCA] 2.2.4 wants: what lies
/// between the bits is read from behind them.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    input: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(input: &'a [u8], at: usize) -> Bits<'a> {
        let mut bits = Bits { input, at, held: 0, count: 0 };
        bits.refill();
        bits.refill();
        bits
    }

    fn refill(&mut self) {
        self.held = self.held << 16 | u64::from(u16_at(self.input, self.at).unwrap_or(0));
        self.at = self.at.saturating_add(2);
        self.count += 16;
    }

    /// The next `count` bits (at most 16), not taken.
    pub(crate) fn peek(&self, count: u32) -> usize {
        (self.held >> (self.count - count)) as usize & ((1 << count) - 1)
    }

    /// Takes `count` bits (at most 16).
    pub(crate) fn skip(&mut self, count: u32) {
        self.count -= count;
        if self.count < 16 {
            self.refill();
        }
    }

    /// The next `count` bits (at most 16).
    pub(crate) fn take(&mut self, count: u32) -> usize {
        let value = self.peek(count);
        self.skip(count);
        value
    }

    /// The next whole bytes, from behind the bits that are held.
    pub(crate) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = vmrescue_base::bytes::array_at(self.input, self.at)?;
        self.at += N;
        Some(bytes)
    }

    /// The byte position of the next bit, rounded up to the next word; a whole word further when it is at one.
    pub(crate) fn next_word(&self) -> usize {
        let taken = self.at * 8 - self.count as usize;
        (taken / 16 + 1) * 2
    }

    /// Where the next word is read from: what follows the coded bits.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// True when more was taken than there is.
    pub(crate) fn overrun(&self) -> bool {
        self.at * 8 - self.count as usize > self.input.len().saturating_add(2) * 8
    }
}

/// A canonical code.
#[derive(Debug)]
pub(crate) struct Code {
    quick: Vec<(u16, u8)>,
    first: [usize; MAX_BITS + 1],
    count: [usize; MAX_BITS + 1],
    start: [usize; MAX_BITS + 1],
    sorted: Vec<u16>,
}

impl Code {
    /// From the length of each symbol's code (0: not used, at most 16). `None` when there are more codes than fit.
    pub(crate) fn new(lengths: &[u8]) -> Option<Code> {
        let mut count = [0; MAX_BITS + 1];
        for length in lengths {
            *count.get_mut(usize::from(*length))? += 1;
        }
        count[0] = 0;
        let (mut first, mut start) = ([0; MAX_BITS + 1], [0; MAX_BITS + 1]);
        let (mut code, mut index) = (0usize, 0usize);
        for length in 1..=MAX_BITS {
            code <<= 1;
            first[length] = code;
            start[length] = index;
            code += count[length];
            index += count[length];
            if code > 1 << length {
                return None;
            }
        }
        let mut sorted = vec![0; index];
        let mut quick = vec![(0, 0); 1 << QUICK_BITS];
        let mut next = start;
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let bits = usize::from(*length);
            let place = next[bits];
            next[bits] += 1;
            sorted[place] = symbol as u16; // at most 512 symbols
            if bits <= QUICK_BITS {
                let shift = QUICK_BITS - bits;
                let from = (first[bits] + place - start[bits]) << shift;
                quick[from..from + (1 << shift)].fill((symbol as u16, *length));
            }
        }
        Some(Code { quick, first, count, start, sorted })
    }

    /// The next symbol; `None` for bits that are no code.
    pub(crate) fn next(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (symbol, length) = self.quick[bits.peek(QUICK_BITS as u32)];
        if length > 0 {
            bits.skip(u32::from(length));
            return Some(usize::from(symbol));
        }
        for length in QUICK_BITS + 1..=MAX_BITS {
            let index = bits.peek(length as u32).wrapping_sub(self.first[length]);
            if index < self.count[length] {
                bits.skip(length as u32);
                return self.sorted.get(self.start[length] + index).map(|symbol| usize::from(*symbol));
            }
        }
        None
    }
}

/// Copies a match inside `out`; `None` when it begins before it or ends behind it.
pub(crate) fn copy_match(out: &mut [u8], done: usize, distance: usize, length: usize) -> Option<usize> {
    let from = done.checked_sub(distance)?;
    let end = done.checked_add(length).filter(|end| *end <= out.len() && distance > 0)?;
    if distance >= length {
        out.copy_within(from..from + length, done);
    } else {
        for index in 0..length {
            out[done + index] = out[from + index];
        }
    }
    Some(end)
}
