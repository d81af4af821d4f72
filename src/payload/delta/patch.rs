//! The body of a delta: literals, and copies out of the source and of what was made so far. Source and output lie in one buffer, one behind
//! the other; distances are counted backwards in it.

use super::bits::Stream;
use super::codes::{ALL, Codes, read_lengths, read_pre};
use super::damaged;
use vmrescue_base::error::{Error, Layer, Result};

/// Most blocks that a body may have: each has codes of its own, and is at least a byte.
const MAX_BLOCKS: u64 = 1 << 16;

/// The three distances that were used last; none at first.
#[derive(Default)]
struct Recent([usize; 3]);

impl Recent {
    fn get(&self, place: usize) -> Option<usize> {
        Some(self.0[place]).filter(|distance| *distance > 0)
    }

    /// To the front; only once in the queue.
    fn used(&mut self, distance: usize) {
        let place = self.0.iter().position(|other| *other == distance).unwrap_or(2);
        self.0.copy_within(..place, 1);
        self.0[0] = distance;
    }
}

/// One block of the body: where it begins in the joined buffer, and its codes.
struct Block {
    start: usize,
    codes: Codes,
}

/// Makes `size` bytes out of `source`, which the result replaces.
pub(super) fn apply(body: &[u8], offset: u64, source: Vec<u8>, size: usize) -> Result<Vec<u8>> {
    let mut stream = Stream::open(body, offset)?;
    if stream.take(1)? == 1 {
        return Err(
            Error::unsupported(Layer::Payload, "a delta with a rift table in its body").at(stream.at())
        );
    }
    let from = source.len();
    let blocks = blocks(&mut stream, from)?;
    let mut joined = source;
    let end = from.checked_add(size).ok_or_else(|| damaged("the sizes of source and target wrap"))?;
    joined.resize(end, 0);
    let mut done = from;
    let mut recent = Recent::default();
    for (index, block) in blocks.iter().enumerate() {
        let until = blocks.get(index + 1).map_or(end, |next| next.start.min(end));
        done = run(&mut stream, &block.codes, &mut joined, (from, done, until), &mut recent)?;
    }
    if stream.left() > 0 {
        return Err(damaged("the body goes on behind the target").at(stream.at()));
    }
    joined.drain(..from);
    Ok(joined)
}

fn blocks(stream: &mut Stream<'_>, from: usize) -> Result<Vec<Block>> {
    if stream.take(1)? == 1 {
        return Ok(vec![Block { start: from, codes: Codes::new(&Codes::flat_lengths(), stream.at())? }]);
    }
    let count = stream.number()?;
    if count == 0 || count > MAX_BLOCKS || count > stream.left() {
        return Err(damaged("the number of blocks cannot be").at(stream.at()).found(count));
    }
    let mut starts = Vec::new();
    let mut start = 0usize;
    for index in 0..count {
        let more = stream.number()?;
        let next = usize::try_from(more).ok().and_then(|more| start.checked_add(more));
        let right = if index == 0 { next == Some(from) } else { more > 0 };
        start = next.filter(|_| right).ok_or_else(|| {
            damaged("a block begins where it cannot").at(stream.at()).found(format!("{start:#x} + {more:#x}"))
        })?;
        starts.push(start);
    }
    let pre = read_pre(stream)?;
    let mut before = [0; ALL];
    let mut blocks = Vec::new();
    for start in starts {
        before = read_lengths(stream, &pre, &before)?;
        blocks.push(Block { start, codes: Codes::new(&before, stream.at())? });
    }
    Ok(blocks)
}

/// Runs a block; `from` is where the output begins, `done` how far it is made, `until` the end of the block. A copy may reach over it.
fn run(
    stream: &mut Stream<'_>,
    codes: &Codes,
    joined: &mut [u8],
    (from, mut done, until): (usize, usize, usize),
    recent: &mut Recent,
) -> Result<usize> {
    // Bounded: each symbol fills at least one byte.
    while done < until {
        let symbol = codes.main.next(stream)?;
        if symbol < 256 {
            joined[done] = symbol as u8; // below 256
            done += 1;
            continue;
        }
        let (mut slot, short) = ((symbol - 256) >> 3, (symbol - 256) & 7);
        if slot == 7 {
            slot = large_slot(stream)?;
        }
        let distance = distance(stream, codes, slot, from, recent)?;
        let length = length(stream, codes, short)?;
        let copied = distance.filter(|distance| *distance > 0).and_then(|distance| {
            recent.used(distance);
            crate::huffman::copy_match(joined, done, distance, length)
        });
        done = copied.ok_or_else(|| {
            damaged("a copy reaches out of source and target").at(stream.at()).found(format!(
                "{length:#x} bytes from {distance:?} back, at {:#x} of the target",
                done - from
            ))
        })?;
    }
    Ok(done)
}

/// Slots that are too large for a symbol of their own.
fn large_slot(stream: &mut Stream<'_>) -> Result<usize> {
    Ok(if stream.take(1)? == 0 {
        43 + stream.take(2)? as usize
    } else if stream.take(1)? == 0 {
        47 + stream.take(3)? as usize
    } else {
        55 + stream.take(4)? as usize
    })
}

/// The distance that a slot means; `None` for one that is not there.
fn distance(
    stream: &mut Stream<'_>,
    codes: &Codes,
    slot: usize,
    from: usize,
    recent: &Recent,
) -> Result<Option<usize>> {
    let near = |bits: u32, half: i64, skipped: i64, stream: &mut Stream<'_>| -> Result<Option<usize>> {
        let value = stream.take(bits)? as i64 - half;
        // Values that a shorter form has are left out.
        let value = if value < 0 { value - skipped } else { value + skipped };
        Ok(i64::try_from(from).ok().and_then(|from| usize::try_from(from + value).ok()))
    };
    match slot {
        0 => near(14, 0x2000, 0, stream),
        1 => near(16, 0x8000, 0x2000, stream),
        2 => near(18, 0x20000, 0xA000, stream),
        3 => Ok(Some(from)),
        4..=6 => Ok(recent.get(slot - 4)),
        8..=10 => Ok(Some(slot - 7)),
        _ => {
            let bits = ((slot - 11) >> 1) as u32 + 1;
            let top = 2 | ((slot - 11) & 1) as u64;
            let low = if slot < 17 {
                stream.take(bits)?
            } else {
                let high = stream.take(bits - 4)?;
                high << 4 | codes.aligned.next(stream)? as u64
            };
            Ok(usize::try_from(top << bits | low).ok())
        }
    }
}

fn length(stream: &mut Stream<'_>, codes: &Codes, short: usize) -> Result<usize> {
    if short > 0 {
        return Ok(short + 1);
    }
    let symbol = codes.lengths.next(stream)?;
    if symbol > 0 {
        return Ok(symbol + 8);
    }
    let zeros = stream.peek().trailing_zeros();
    if zeros > 24 {
        return Err(damaged("a length is too large").at(stream.at()));
    }
    stream.skip(zeros + 1)?;
    let value = stream.take(zeros + 8)?;
    Ok((1usize << (zeros + 8) | value as usize) + 8)
}
