//! Which blocks the store of a copy has kept, and where a byte of the copy lies today.

use super::blocks::{self, Kind};
use super::catalog::Place;
use super::{BLOCK_BYTES, damaged};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use vmrescue_base::bytes::{is_zero, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::Disk;

/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: usize = 32;
/// Most descriptors of a store: 256 GiB of changed blocks.
const MAX_DESCRIPTORS: usize = 1 << 24;
/// The descriptor says where the block is in the next newer copy.
const FORWARDER: u32 = 1;
/// Only some pieces of the block were kept, those of its bitmap.
const OVERLAY: u32 = 2;
/// The descriptor does not count.
const UNUSED: u32 = 4;
/// Bytes of a piece of a block.
const PIECE_BYTES: u64 = 512;
/// Most blocks that one answer is about.
const MAX_RUN: u64 = 1 << 16;

/// Where all of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// In the store: bytes from the beginning of the volume.
    Kept(u64),
    /// There in the next newer copy, or in the volume.
    Forward(u64),
}

/// Pieces of a block that were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Overlay {
    at: u64,
    /// Bit n: piece n.
    pieces: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Block {
    base: Option<Base>,
    overlay: Option<Overlay>,
}

/// Where bytes of a copy are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// On the volume as it is now.
    Volume(u64),
    /// Nobody used them; they read as zero.
    Zero,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Map {
    blocks: BTreeMap<u64, Block>,
    /// The block that a forwarder leads to, and the block that it stands for.
    forwards: HashMap<u64, u64>,
    /// Bit n: nobody used block n when the copy was made.
    unused: Vec<u8>,
}

impl Map {
    /// Reads what a store has.
    pub(super) fn read(volume: &Disk, place: &Place) -> Result<Map> {
        let mut map = Map::default();
        let mut count = 0;
        blocks::chain(volume, place.descriptors_at, Kind::Descriptors, |at, data| {
            for (number, entry) in data.chunks_exact(DESCRIPTOR_BYTES).enumerate() {
                if is_zero(entry) {
                    continue;
                }
                count += 1;
                if count > MAX_DESCRIPTORS {
                    return Err(Error::limit(Layer::Shadow, "a shadow copy keeps too many blocks")
                        .expected(format!("at most {MAX_DESCRIPTORS}")));
                }
                let own = at + (blocks::HEADER_BYTES + number * DESCRIPTOR_BYTES) as u64;
                map.insert(entry, volume.len()).map_err(|e| e.at(own))?;
            }
            Ok(())
        })?;
        // What is behind the end of the volume does not count.
        let bytes = volume.len().div_ceil(BLOCK_BYTES * 8) as usize;
        map.unused = bitmap(volume, place.bitmap_at, bytes)?;
        if place.previous_bitmap_at != 0 {
            let previous = bitmap(volume, place.previous_bitmap_at, bytes)?;
            let both = map.unused.iter().zip(previous.iter().chain(std::iter::repeat(&0)));
            map.unused = both.map(|(one, other)| one & other).collect();
        }
        Ok(map)
    }

    /// Takes a descriptor; later ones of a block extend or replace earlier ones.
    fn insert(&mut self, entry: &[u8], volume_bytes: u64) -> Result<()> {
        // All fields lie inside of a descriptor.
        let field = |at| u64_at(entry, at).unwrap_or_default();
        let number = |at| u32_at(entry, at).unwrap_or_default();
        let (original, relative, at, flags, pieces) = (field(0), field(8), field(16), number(24), number(28));
        if flags & UNUSED != 0 {
            return Ok(());
        }
        let inside = |at: u64| at.checked_add(BLOCK_BYTES).is_some_and(|end| end <= volume_bytes);
        let wrong =
            |what: &str, value: u64| damaged(format!("shadow copies: {what}")).found(format!("{value:#x}"));
        let is_forwarder = flags & FORWARDER != 0;
        if !original.is_multiple_of(BLOCK_BYTES) || original >= volume_bytes {
            return Err(wrong("a block that is not of this volume was kept", original));
        }
        if is_forwarder && (flags & OVERLAY != 0 || at != 0) {
            return Err(wrong("a forwarder that keeps bytes as well", u64::from(flags)));
        }
        let target = if is_forwarder { relative } else { at };
        if !target.is_multiple_of(PIECE_BYTES) || !(inside(target) || is_forwarder && target < volume_bytes) {
            return Err(wrong("a block was kept outside of the volume", target));
        }
        let mut block = original / BLOCK_BYTES;
        if flags & OVERLAY != 0 {
            let own = self.blocks.entry(block).or_default();
            match &mut own.overlay {
                // The place of the first one counts.
                Some(overlay) => overlay.pieces |= pieces,
                None => own.overlay = Some(Overlay { at, pieces }),
            }
            return Ok(());
        }
        // It was moved before: what it stood for is what this one is about.
        if let Some(first) = self.forwards.remove(&block) {
            block = first;
        }
        if is_forwarder {
            if relative == block * BLOCK_BYTES {
                return Ok(());
            }
            self.forwards.insert(relative / BLOCK_BYTES, block);
        }
        let base = if is_forwarder { Base::Forward(relative) } else { Base::Kept(at) };
        self.blocks.entry(block).or_default().base = Some(base);
        Ok(())
    }

    fn is_unused(&self, block: u64) -> bool {
        let byte = self.unused.get((block / 8) as usize);
        byte.is_some_and(|byte| byte >> (block % 8) & 1 != 0)
    }

    /// Bytes from `at` to the next block that this store knows.
    fn until_known(&self, at: u64) -> u64 {
        let block = at / BLOCK_BYTES;
        let next = self.blocks.range(block + 1..).next().map_or(u64::MAX, |(next, _)| *next);
        next.min(block + MAX_RUN) * BLOCK_BYTES - at
    }
}

/// A bitmap of at most so many bytes.
fn bitmap(volume: &Disk, at: u64, bytes: usize) -> Result<Vec<u8>> {
    let mut bits = Vec::new();
    blocks::chain(volume, at, Kind::Bitmap, |_, data| {
        let room = bytes.saturating_sub(bits.len()).min(data.len());
        bits.extend_from_slice(&data[..room]);
        Ok(())
    })?;
    Ok(bits)
}

/// Where the byte `at` of a copy is, and how many bytes from there lie together; `maps` are those of the copy and of all newer ones.
pub(super) fn piece(maps: &[Arc<Map>], at: u64) -> (Source, u64) {
    let (mut at, mut length) = (at, u64::MAX);
    for (level, map) in maps.iter().enumerate() {
        let (block, inside) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
        let is_last = level + 1 == maps.len();
        let mut known = None;
        if let Some(own) = map.blocks.get(&block) {
            length = length.min(BLOCK_BYTES - inside);
            known = own.base;
            // Only the copy that is read takes pieces of blocks.
            if let Some(overlay) = own.overlay.filter(|_| level == 0) {
                let rest = overlay.pieces >> (inside / PIECE_BYTES);
                let is_kept = rest & 1 != 0;
                let run = if is_kept { rest.trailing_ones() } else { rest.trailing_zeros() };
                length = length.min(u64::from(run) * PIECE_BYTES - inside % PIECE_BYTES);
                if is_kept {
                    return (Source::Volume(overlay.at + inside), length);
                }
            }
        } else {
            length = length.min(map.until_known(at));
        }
        match known {
            Some(Base::Kept(kept)) => return (Source::Volume(kept + inside), length),
            Some(Base::Forward(to)) => {
                at = to + inside;
                if is_last {
                    break;
                }
            }
            None if is_last && level == 0 => {
                // What the newest copy did not keep may be what nobody used.
                let zero = |block| map.is_unused(block) && !map.forwards.contains_key(&block);
                let is_zero = zero(block);
                let end = block + length.saturating_add(inside).div_ceil(BLOCK_BYTES).min(MAX_RUN);
                let run = (block..end).take_while(|block| zero(*block) == is_zero).count() as u64;
                length = length.min(run * BLOCK_BYTES - inside);
                return (if is_zero { Source::Zero } else { Source::Volume(at) }, length);
            }
            None => {}
        }
    }
    (Source::Volume(at), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: u64 = 64 * BLOCK_BYTES;

    fn entry(original: u64, relative: u64, at: u64, flags: u32, pieces: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in [original, relative, at] {
            bytes.extend((value * BLOCK_BYTES).to_le_bytes());
        }
        bytes.extend(flags.to_le_bytes());
        bytes.extend(pieces.to_le_bytes());
        bytes
    }

    fn map(entries: &[Vec<u8>], unused: &[u8]) -> Arc<Map> {
        let mut map = Map { unused: unused.to_vec(), ..Map::default() };
        entries.iter().for_each(|entry| map.insert(entry, VOLUME).unwrap());
        Arc::new(map)
    }

    fn at(block: u64) -> u64 {
        block * BLOCK_BYTES
    }

    #[test]
    fn a_block_is_kept_forwarded_or_that_of_the_next_copy() {
        let old = map(&[entry(1, 0, 40, 0, 0), entry(2, 5, 0, FORWARDER, 0)], &[0xFF; 8]);
        let new =
            map(&[entry(5, 0, 41, 0, 0), entry(3, 0, 42, 0, 0), entry(9, 10, 0, FORWARDER, 0)], &[0; 8]);
        let both = [old, Arc::clone(&new)];
        assert_eq!(piece(&both, at(1) + 7), (Source::Volume(at(40) + 7), BLOCK_BYTES - 7));
        assert_eq!(piece(&both, at(2) + 7), (Source::Volume(at(41) + 7), BLOCK_BYTES - 7));
        assert_eq!(piece(&both, at(3)), (Source::Volume(at(42)), BLOCK_BYTES));
        // Its bitmap counts in the newest copy only.
        assert_eq!(piece(&both, at(6)), (Source::Volume(at(6)), 3 * BLOCK_BYTES));
        assert_eq!(piece(&[new], at(9)).0, Source::Volume(at(10)), "the newest copy forwards to the volume");
    }

    #[test]
    fn what_nobody_used_is_zero_in_the_newest_copy() {
        let new = map(&[entry(4, 5, 0, FORWARDER, 0)], &[0b0110_0110]);
        let read = |block| piece(std::slice::from_ref(&new), at(block));
        assert_eq!(read(0), (Source::Volume(0), BLOCK_BYTES));
        assert_eq!(read(1), (Source::Zero, 2 * BLOCK_BYTES));
        // A forwarder leads there: it was in use.
        assert_eq!(read(5), (Source::Volume(at(5)), BLOCK_BYTES));
        assert_eq!(read(6), (Source::Zero, BLOCK_BYTES));
    }

    #[test]
    fn pieces_lie_over_blocks_of_the_copy_that_is_read() {
        let pieces = map(
            &[
                entry(1, 0, 40, OVERLAY, 0b0110),
                entry(1, 0, 50, OVERLAY, 0x8000_0000),
                entry(2, 0, 41, OVERLAY, 1),
                entry(2, 0, 42, 0, 0),
            ],
            &[],
        );
        let only = [Arc::clone(&pieces)];
        assert_eq!(piece(&only, at(1)), (Source::Volume(at(1)), 512));
        assert_eq!(piece(&only, at(1) + 600), (Source::Volume(at(40) + 600), 1024 - 88));
        assert_eq!(piece(&only, at(1) + 1536), (Source::Volume(at(1) + 1536), 28 * 512));
        assert_eq!(piece(&only, at(1) + 31 * 512), (Source::Volume(at(40) + 31 * 512), 512));
        assert_eq!(piece(&only, at(2)), (Source::Volume(at(41)), 512));
        assert_eq!(piece(&only, at(2) + 512).0, Source::Volume(at(42) + 512));
        let older = [map(&[], &[]), pieces];
        assert_eq!(
            piece(&older, at(1) + 600).0,
            Source::Volume(at(1) + 600),
            "an older copy does not take them"
        );
        assert_eq!(piece(&older, at(2)).0, Source::Volume(at(42)));
    }

    #[test]
    fn moved_blocks_are_followed() {
        // 1 went to 2, then what was at 2 was kept: it is that of 1.
        let moved = map(&[entry(1, 2, 0, FORWARDER, 0), entry(2, 0, 40, 0, 0)], &[]);
        assert_eq!(piece(&[Arc::clone(&moved)], at(1)).0, Source::Volume(at(40)));
        assert_eq!(piece(&[moved], at(2)).0, Source::Volume(at(2)));
        // There and back again.
        let back = map(&[entry(1, 2, 0, FORWARDER, 0), entry(2, 1, 0, FORWARDER, 0)], &[]);
        assert_eq!(piece(&[back], at(1)).0, Source::Volume(at(2)));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut map = Map::default();
        for bad in [
            entry(64, 0, 1, 0, 0),
            entry(1, 0, 64, 0, 0),
            entry(1, 0, 2, FORWARDER, 0),
            entry(1, 2, 0, FORWARDER | OVERLAY, 1),
        ] {
            assert!(map.insert(&bad, VOLUME).is_err(), "{bad:?}");
        }
        let mut odd = entry(1, 0, 2, 0, 0);
        odd[0] = 1;
        assert!(map.insert(&odd, VOLUME).is_err());
        assert!(
            map.insert(&entry(70, 0, 0, UNUSED, 0), VOLUME).is_ok(),
            "what does not count may be anything"
        );
    }
}
