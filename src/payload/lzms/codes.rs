//! The Huffman codes of LZMS, which are built anew from what was seen lately, and the bits from the back of a block.

use vmrescue_base::bytes::u16_at;

/// Longest code.
const MAX_BITS: usize = 15;
/// Codes up to this length are found with one look.
const QUICK_BITS: usize = 10;

/// Bits from the back of a block, highest first.
pub(super) struct Backward<'a> {
    input: &'a [u8],
    /// End of what was not read.
    at: usize,
    /// Bits that are held, from the top.
    held: u64,
    count: u32,
    /// Bits that were held though the block has no more.
    missing: u32,
}

impl<'a> Backward<'a> {
    pub(super) fn new(input: &'a [u8]) -> Backward<'a> {
        let mut bits = Backward { input, at: input.len(), held: 0, count: 0, missing: 0 };
        bits.refill();
        bits
    }

    /// Holds at least 33 bits.
    fn refill(&mut self) {
        while self.count <= 48 {
            let unit = match self.at.checked_sub(2) {
                Some(at) => {
                    self.at = at;
                    u16_at(self.input, at).unwrap_or(0)
                }
                None => {
                    self.missing = self.missing.saturating_add(16);
                    0
                }
            };
            self.held |= u64::from(unit) << (48 - self.count);
            self.count += 16;
        }
    }

    /// The next `count` bits, 1 to 30, not taken.
    fn peek(&self, count: usize) -> usize {
        (self.held >> (64 - count)) as usize
    }

    fn skip(&mut self, count: u32) {
        self.held <<= count;
        self.count -= count;
        if self.count < 33 {
            self.refill();
        }
    }

    /// The next `count` bits, at most 30.
    pub(super) fn take(&mut self, count: u32) -> usize {
        if count == 0 {
            return 0;
        }
        let value = self.peek(count as usize);
        self.skip(count);
        value
    }

    /// True when more was taken than there is.
    pub(super) fn overrun(&self) -> bool {
        self.missing > self.count
    }
}

/// A code that follows what it is used for.
pub(super) struct Adaptive {
    seen: Vec<u32>,
    interval: u32,
    left: u32,
    /// Symbol and length of what begins with these bits; length 0 for longer codes.
    quick: Vec<(u16, u8)>,
    /// Of each length: the first code, how many there are, and where they begin in `sorted`.
    first: [usize; MAX_BITS + 1],
    count: [usize; MAX_BITS + 1],
    start: [usize; MAX_BITS + 1],
    sorted: Vec<u16>,
    work: Work,
}

#[derive(Default)]
struct Work {
    /// How often and which symbol, in one number; rising.
    leaves: Vec<u32>,
    /// Weight of an inner node, later its parent.
    nodes: Vec<u32>,
    parents: Vec<u16>,
    lengths: Vec<u8>,
}

impl Adaptive {
    /// All symbols equally likely.
    pub(super) fn new(symbols: usize, interval: u32) -> Adaptive {
        let mut code = Adaptive {
            seen: vec![1; symbols],
            interval,
            left: interval,
            quick: vec![(0, 0); 1 << QUICK_BITS],
            first: [0; MAX_BITS + 1],
            count: [0; MAX_BITS + 1],
            start: [0; MAX_BITS + 1],
            sorted: vec![0; symbols],
            work: Work::default(),
        };
        code.build();
        code
    }

    /// The next symbol; `None` for bits that are no code.
    pub(super) fn next(&mut self, bits: &mut Backward<'_>) -> Option<usize> {
        let (symbol, length) = self.quick[bits.peek(QUICK_BITS)];
        let symbol = if length > 0 {
            bits.skip(u32::from(length));
            usize::from(symbol)
        } else {
            self.long(bits)?
        };
        self.learn(symbol);
        Some(symbol)
    }

    /// Counts a symbol, one of the code's.
    pub(super) fn learn(&mut self, symbol: usize) {
        self.seen[symbol] += 1;
        self.left -= 1;
        if self.left == 0 {
            self.build();
            self.left = self.interval;
            for count in &mut self.seen {
                *count = (*count >> 1) + 1;
            }
        }
    }

    /// The code of a symbol, and its length: for packing.
    pub(super) fn code_of(&self, symbol: usize) -> (usize, u32) {
        let length = usize::from(self.work.lengths[symbol]);
        let all = &self.sorted[self.start[length]..self.start[length] + self.count[length]];
        let index = all.iter().position(|other| usize::from(*other) == symbol).unwrap_or(0);
        (self.first[length] + index, length as u32)
    }

    #[cold]
    fn long(&self, bits: &mut Backward<'_>) -> Option<usize> {
        for length in QUICK_BITS + 1..=MAX_BITS {
            let index = bits.peek(length).wrapping_sub(self.first[length]);
            if index < self.count[length] {
                bits.skip(length as u32);
                return self.sorted.get(self.start[length] + index).map(|symbol| usize::from(*symbol));
            }
        }
        None
    }

    /// Builds the code of what was seen.
    fn build(&mut self) {
        self.work.lengths(&self.seen);
        self.count = [0; MAX_BITS + 1];
        for length in &self.work.lengths {
            self.count[usize::from(*length)] += 1;
        }
        self.count[0] = 0;
        let (mut code, mut index) = (0, 0);
        for length in 1..=MAX_BITS {
            code <<= 1;
            (self.first[length], self.start[length]) = (code, index);
            code += self.count[length];
            index += self.count[length];
        }
        self.quick.fill((0, 0));
        let mut next = self.start;
        for (symbol, length) in self.work.lengths.iter().enumerate() {
            let bits = usize::from(*length);
            if bits == 0 {
                continue;
            }
            let place = next[bits];
            next[bits] += 1;
            self.sorted[place] = symbol as u16; // at most 799 symbols
            if bits <= QUICK_BITS {
                let shift = QUICK_BITS - bits;
                let from = (self.first[bits] + place - self.start[bits]) << shift;
                self.quick[from..from + (1 << shift)].fill((symbol as u16, *length));
            }
        }
    }
}

impl Work {
    /// Lengths of a Huffman code, cut at [`MAX_BITS`]. Of nodes that weigh the same, leaves are joined first, and of leaves the one
    /// with the smaller symbol.
    fn lengths(&mut self, seen: &[u32]) {
        let symbols = seen.len();
        self.lengths.clear();
        self.lengths.resize(symbols, 0);
        if symbols < 2 {
            // One symbol takes one bit.
            self.lengths.fill(1);
            return;
        }
        self.leaves.clear();
        self.leaves.extend(seen.iter().enumerate().map(|(symbol, count)| count << 10 | symbol as u32));
        self.leaves.sort_unstable();
        self.nodes.clear();
        self.parents.clear();
        self.parents.resize(symbols - 1, 0);
        let (mut leaf, mut node) = (0, 0);
        for made in 0..symbols - 1 {
            let mut weight = 0;
            for _ in 0..2 {
                let light = self.leaves.get(leaf).map(|leaf| leaf >> 10);
                match (light, self.nodes.get(node)) {
                    (Some(light), inner) if inner.is_none_or(|inner| light <= *inner) => {
                        weight += light;
                        leaf += 1;
                    }
                    (_, Some(inner)) => {
                        weight += inner;
                        self.parents[node] = made as u16; // fewer than 799
                        node += 1;
                    }
                    // There are always two: each step takes two and gives one.
                    (_, None) => {}
                }
            }
            self.nodes.push(weight);
        }
        self.cut(symbols);
    }

    /// Depths from the root down; where the tree is too deep, a leaf higher up is split instead.
    fn cut(&mut self, symbols: usize) {
        let mut of_length = [0usize; MAX_BITS + 2];
        of_length[1] = 2;
        let depths = &mut self.nodes;
        let root = symbols - 2;
        depths[root] = 0;
        for node in (0..root).rev() {
            let depth = depths[usize::from(self.parents[node])] + 1;
            depths[node] = depth;
            let mut length = (depth as usize).min(MAX_BITS);
            if length == MAX_BITS {
                length -= 1;
                while of_length[length] == 0 && length > 1 {
                    length -= 1;
                }
            }
            of_length[length] -= 1;
            of_length[length + 1] += 2;
        }
        let mut leaves = self.leaves.iter();
        for length in (1..=MAX_BITS).rev() {
            for leaf in leaves.by_ref().take(of_length[length]) {
                self.lengths[(leaf & 0x3ff) as usize] = length as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(seen: &[u32]) -> Vec<u8> {
        let mut work = Work::default();
        work.lengths(seen);
        work.lengths
    }

    #[test]
    fn codes_have_the_lengths_of_huffman_and_stay_short() {
        assert_eq!(lengths(&[1, 1, 1, 1]), [2, 2, 2, 2]);
        assert_eq!(lengths(&[8, 1, 1, 2]), [1, 3, 3, 2]);
        assert_eq!(lengths(&[5]), [1]);
        assert_eq!(lengths(&[]), Vec::<u8>::new());
        // Fibonacci numbers make the deepest tree; all codes together fill the space exactly.
        let mut seen = vec![1, 1];
        while seen.len() < 28 {
            seen.push(seen[seen.len() - 1] + seen[seen.len() - 2]);
        }
        let lengths = lengths(&seen);
        assert_eq!(lengths.iter().max(), Some(&15));
        assert_eq!(lengths.iter().map(|length| 1u32 << (15 - length)).sum::<u32>(), 1 << 15);
    }
}
