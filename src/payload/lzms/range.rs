//! The range coder of LZMS: bits whose probability is that of the last 64 ones in the same context.

use vmrescue_base::bytes::u16_at;

/// A context: what the last decisions of one kind were leads to an entry, which counts zeros.
pub(super) struct Context<const N: usize> {
    entries: [Entry; N],
    last: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Zeros among the bits of `history`.
    zeros: u32,
    history: u64,
}

impl<const N: usize> Context<N> {
    pub(super) fn new() -> Context<N> {
        Context { entries: [Entry { zeros: 48, history: 0x5555_5555 }; N], last: 0 }
    }

    /// Zeros in 64 that the next bit is expected with; never none, never all.
    fn zeros(&self) -> u32 {
        self.entries[self.last].zeros.clamp(1, 63)
    }

    fn learn(&mut self, bit: bool) {
        let entry = &mut self.entries[self.last];
        // A one that leaves makes room for a zero; a one that comes takes it.
        entry.zeros = entry.zeros + (entry.history >> 63) as u32 - u32::from(bit);
        entry.history = entry.history << 1 | u64::from(bit);
        self.last = (self.last << 1 | usize::from(bit)) % N;
    }
}

/// Bits from the front of a block.
pub(super) struct Range<'a> {
    input: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl<'a> Range<'a> {
    pub(super) fn new(input: &'a [u8]) -> Range<'a> {
        let mut range = Range { input, at: 0, range: u32::MAX, code: 0 };
        range.code = range.unit() << 16;
        range.code |= range.unit();
        range
    }

    /// The next unit; behind the end there are zeros.
    fn unit(&mut self) -> u32 {
        let unit = u16_at(self.input, self.at).unwrap_or(0);
        self.at += 2;
        u32::from(unit)
    }

    pub(super) fn bit<const N: usize>(&mut self, context: &mut Context<N>) -> bool {
        if self.range <= 0xffff {
            self.range <<= 16;
            self.code = self.code << 16 | self.unit();
        }
        let bound = (self.range >> 6) * context.zeros();
        let bit = self.code >= bound;
        if bit {
            self.range -= bound;
            self.code -= bound;
        } else {
            self.range = bound;
        }
        context.learn(bit);
        bit
    }

    /// Bytes that were taken, those behind the end too.
    pub(super) fn taken(&self) -> usize {
        self.at
    }

    /// True when more was taken than there is.
    pub(super) fn overrun(&self) -> bool {
        self.at > self.input.len()
    }
}
