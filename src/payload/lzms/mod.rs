//! LZMS, the codec of `DCS` payloads and of solid WIM resources (ESD).
//!
//! A block is 16-bit little-endian units that are read from both ends: from the front the bits of a range coder, which tell the
//! kinds of items, from the back Huffman symbols and plain bits. An item is a literal, a match (distance and length) or a delta
//! match (a sequence whose differences repeat). Afterwards a filter turns absolute targets of x86 calls back into relative ones.
//! Provenance: docs/decisions/payloads.md.

mod codes;
pub(crate) mod pack;
mod range;
mod slots;
mod x86;

use codes::{Adaptive, Backward};
use range::{Context, Range};
use slots::{LENGTHS, Slots, offset_slots};
use vmrescue_base::error::{Error, Layer, Result};

/// Largest block that is unpacked: the largest chunk of a solid WIM resource that tools write.
pub const MAX_BLOCK_BYTES: usize = 1 << 28;

const LITERALS: usize = 256;
/// Powers of two that the span of a delta match can be.
const DELTA_POWERS: usize = 8;
/// Symbols after which a code is built anew.
const REBUILD_OFTEN: u32 = 512;
const REBUILD_SELDOM: u32 = 1024;

fn damaged(what: &str) -> Error {
    Error::damaged(Layer::Payload, format!("LZMS: {what}"))
}

/// Sources of matches that were used last. A source that an item used enters one item later; one that is used again leaves at once.
struct Recent<T> {
    queue: [T; 4],
    pending: Option<T>,
}

impl<T: Copy> Recent<T> {
    fn new(queue: [T; 4]) -> Recent<T> {
        Recent { queue, pending: None }
    }

    /// The source of this place, which leaves.
    fn take(&mut self, place: usize) -> T {
        let found = self.queue[place];
        self.queue.copy_within(place + 1.., place);
        found
    }

    /// At the end of each item: what the one before used enters; `used` waits.
    fn advance(&mut self, used: Option<T>) {
        if let Some(source) = std::mem::replace(&mut self.pending, used) {
            self.queue.copy_within(..3, 1);
            self.queue[0] = source;
        }
    }
}

struct Decoder<'a> {
    range: Range<'a>,
    bits: Backward<'a>,
    is_match: Context<16>,
    is_delta: Context<32>,
    /// Is the source of a match a recent one; is it not the first; is it not the second.
    recent_match: [Context<64>; 3],
    recent_delta: [Context<64>; 3],
    literals: Adaptive,
    offsets: Adaptive,
    lengths: Adaptive,
    delta_offsets: Adaptive,
    delta_powers: Adaptive,
    length_slots: &'static Slots<54>,
    offset_slots: &'static Slots<799>,
}

/// Unpacks a block into all of `out`.
///
/// # Errors
/// `Damaged` with the offset in `out` when the block does not give exactly that; `Limit` for too large a block.
pub fn decompress(input: &[u8], out: &mut [u8]) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    if out.len() > MAX_BLOCK_BYTES {
        return Err(Error::limit(Layer::Payload, "an LZMS block is too large")
            .expected(format!("at most {MAX_BLOCK_BYTES:#x} bytes"))
            .found(format!("{:#x}", out.len())));
    }
    if input.len() < 4 || !input.len().is_multiple_of(2) {
        return Err(damaged("a block is no sequence of 16-bit units").found(format!("{} bytes", input.len())));
    }
    let slots = offset_slots(out.len());
    let mut decoder = Decoder {
        range: Range::new(input),
        bits: Backward::new(input),
        is_match: Context::new(),
        is_delta: Context::new(),
        recent_match: [Context::new(), Context::new(), Context::new()],
        recent_delta: [Context::new(), Context::new(), Context::new()],
        literals: Adaptive::new(LITERALS, REBUILD_SELDOM),
        offsets: Adaptive::new(slots, REBUILD_SELDOM),
        lengths: Adaptive::new(LENGTHS, REBUILD_OFTEN),
        delta_offsets: Adaptive::new(slots, REBUILD_SELDOM),
        delta_powers: Adaptive::new(DELTA_POWERS, REBUILD_OFTEN),
        length_slots: slots::lengths(),
        offset_slots: slots::offsets(),
    };
    decoder.items(out)?;
    if decoder.range.overrun() || decoder.bits.overrun() {
        return Err(damaged("the block is cut off"));
    }
    x86::translate(out, x86::Turn::ToRelative);
    Ok(())
}

impl Decoder<'_> {
    fn items(&mut self, out: &mut [u8]) -> Result<()> {
        let mut matches = Recent::new([1usize, 2, 3, 4]);
        let mut deltas = Recent::new([(0u32, 1usize), (0, 2), (0, 3), (0, 4)]);
        let mut done = 0;
        // Bounded: each item fills at least one byte.
        while done < out.len() {
            let at = done as u64;
            if !self.range.bit(&mut self.is_match) {
                let symbol =
                    self.literals.next(&mut self.bits).ok_or_else(|| damaged("no literal").at(at))?;
                out[done] = symbol as u8; // below 256
                done += 1;
                matches.advance(None);
                deltas.advance(None);
            } else if !self.range.bit(&mut self.is_delta) {
                let distance = match recent_place(&mut self.range, &mut self.recent_match) {
                    Some(place) => matches.take(place),
                    None => self.offset(false).ok_or_else(|| damaged("no offset").at(at))?,
                };
                let length = self.length().ok_or_else(|| damaged("no length").at(at))?;
                done = crate::huffman::copy_match(out, done, distance, length)
                    .ok_or_else(|| outside(at, distance, length))?;
                matches.advance(Some(distance));
                deltas.advance(None);
            } else {
                let (power, offset) = match recent_place(&mut self.range, &mut self.recent_delta) {
                    Some(place) => deltas.take(place),
                    None => {
                        let power = self.delta_powers.next(&mut self.bits);
                        let power = power.ok_or_else(|| damaged("no span").at(at))? as u32; // below 8
                        (power, self.offset(true).ok_or_else(|| damaged("no offset").at(at))?)
                    }
                };
                let length = self.length().ok_or_else(|| damaged("no length").at(at))?;
                done = delta_match(out, done, power, offset, length)
                    .ok_or_else(|| outside(at, offset << power, length))?;
                deltas.advance(Some((power, offset)));
                matches.advance(None);
            }
        }
        Ok(())
    }

    fn offset(&mut self, delta: bool) -> Option<usize> {
        let code = if delta { &mut self.delta_offsets } else { &mut self.offsets };
        let slot = code.next(&mut self.bits)?;
        let (base, extra) = self.offset_slots.get(slot)?;
        Some(base + self.bits.take(extra))
    }

    fn length(&mut self) -> Option<usize> {
        let slot = self.lengths.next(&mut self.bits)?;
        let (base, extra) = self.length_slots.get(slot)?;
        Some(base + self.bits.take(extra))
    }
}

fn outside(at: u64, distance: usize, length: usize) -> Error {
    damaged("a match reaches out of the block").at(at).found(format!("{length} bytes from {distance} back"))
}

/// Which of the recent sources a match takes; `None` for a new one.
fn recent_place(range: &mut Range<'_>, contexts: &mut [Context<64>; 3]) -> Option<usize> {
    let [is_recent, not_first, not_second] = contexts;
    if !range.bit(is_recent) {
        None
    } else if !range.bit(not_first) {
        Some(0)
    } else {
        Some(1 + usize::from(range.bit(not_second)))
    }
}

/// A sequence whose differences over `2^power` bytes are those of `offset` of such spans back.
fn delta_match(out: &mut [u8], done: usize, power: u32, offset: usize, length: usize) -> Option<usize> {
    let span = 1usize << power;
    let distance = offset.checked_mul(span)?;
    let from = done.checked_sub(distance.checked_add(span)?)?;
    let end = done.checked_add(length).filter(|end| *end <= out.len())?;
    for index in 0..length {
        let (b, c, d) = (out[done + index - span], out[from + index + span], out[from + index]);
        out[done + index] = b.wrapping_add(c).wrapping_sub(d);
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::pack::literals as lzms_literals;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_without_matches_comes_back() {
        for length in [1usize, 2, 255, 5000] {
            let text: Vec<u8> = (0..length).map(|i| (i * i % 251) as u8).collect();
            let mut out = vec![0; length];
            decompress(&lzms_literals(&text), &mut out).unwrap();
            assert!(out == text);
        }
    }

    #[test]
    fn a_block_that_is_cut_is_refused() {
        let text: Vec<u8> = (0..4000u32).map(|i| (i * i % 251) as u8).collect();
        let packed = lzms_literals(&text);
        let error = decompress(&packed[..(packed.len() / 2) & !1], &mut vec![0; 4000]).unwrap_err();
        assert_eq!(error.layer(), Layer::Payload);
        assert!(decompress(&packed[..3], &mut [0; 9]).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_unpacked_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), room in 0usize..9000) {
            drop(decompress(&bytes, &mut vec![0; room]));
        }
    }
}
