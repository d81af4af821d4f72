//! Bits of a delta, lowest first: streams, numbers, buffers.

use super::damaged;
use vmrescue_base::error::Result;

/// Bits of a padding count, which every stream begins with.
const PADDING_BITS: u32 = 3;

/// A stream: its first three bits say how many bits of its last byte are padding.
#[derive(Debug, Clone)]
pub(super) struct Stream<'a> {
    bytes: &'a [u8],
    /// Where the stream begins in the file, for messages.
    offset: u64,
    bit: u64,
    end: u64,
}

impl<'a> Stream<'a> {
    /// The stream in all of `bytes`, which begin at `offset` of the file.
    pub(super) fn open(bytes: &'a [u8], offset: u64) -> Result<Stream<'a>> {
        let mut stream = Stream { bytes, offset, bit: 0, end: bytes.len() as u64 * 8 };
        let padding = stream.take(PADDING_BITS)?;
        stream.end -= padding;
        if stream.bit > stream.end {
            return Err(stream.cut());
        }
        Ok(stream)
    }

    fn cut(&self) -> vmrescue_base::Error {
        damaged("a stream ends too early").at(self.at())
    }

    /// The byte of the file that the next bit is in.
    pub(super) fn at(&self) -> u64 {
        self.offset + self.bit / 8
    }

    /// Bits that were not taken.
    pub(super) fn left(&self) -> u64 {
        self.end - self.bit
    }

    /// The next 57 bits or more, not taken; zeros behind the end.
    pub(super) fn peek(&self) -> u64 {
        let at = (self.bit / 8) as usize;
        let word = match self.bytes.get(at..at + 8) {
            Some(word) => word.try_into().map_or(0, u64::from_le_bytes),
            None => {
                let mut word = [0; 8];
                let rest = self.bytes.get(at..).unwrap_or_default();
                word[..rest.len()].copy_from_slice(rest);
                u64::from_le_bytes(word)
            }
        };
        word >> (self.bit % 8)
    }

    /// Takes bits.
    pub(super) fn skip(&mut self, count: u32) -> Result<()> {
        self.bit += u64::from(count);
        if self.bit > self.end { Err(self.cut()) } else { Ok(()) }
    }

    /// The next `count` bits, at most 56.
    pub(super) fn take(&mut self, count: u32) -> Result<u64> {
        let value = self.peek() & ((1 << count) - 1);
        self.skip(count)?;
        Ok(value)
    }

    /// A number: k zero bits, a one, then 4 · (k + 1) bits.
    pub(super) fn number(&mut self) -> Result<u64> {
        let zeros = self.peek().trailing_zeros();
        if zeros > 15 {
            return Err(damaged("a number is too wide").at(self.at()).expected("at most 64 bits"));
        }
        self.skip(zeros + 1)?;
        let bits = 4 * (zeros + 1);
        let low = self.take(bits.min(32))?;
        let high = if bits > 32 { self.take(bits - 32)? } else { 0 };
        Ok(high << 32 | low)
    }

    /// A buffer: its length as a number, then whole bytes. With the offset in the file.
    pub(super) fn buffer(&mut self) -> Result<(&'a [u8], u64)> {
        let length = self.number()?;
        self.bit = self.bit.next_multiple_of(8);
        let (at, start) = (self.at(), (self.bit / 8) as usize);
        let there =
            usize::try_from(length).ok().and_then(|length| self.bytes.get(start..start.checked_add(length)?));
        let Some(bytes) = there.filter(|bytes| self.bit + bytes.len() as u64 * 8 <= self.end) else {
            return Err(damaged("a buffer ends behind the file").at(at).found(format!("{length:#x} bytes")));
        };
        self.bit += bytes.len() as u64 * 8;
        Ok((bytes, at))
    }
}
