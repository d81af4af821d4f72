//! `DCS` payloads: a file in blocks of LZMS.
//!
//! `DCS\1`, u32 number of blocks, u32 size of the file; of each block u32 n, u32 size of its text, n − 4 bytes of LZMS. All little-endian.
//! There is no checksum: a bit that flipped may unpack to other bytes without an error.

use crate::lzms;
use vmrescue_base::bytes::{slice_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

/// The head.
pub const MAGIC: &[u8] = b"DCS\x01";
/// Largest text of one block.
const MAX_BLOCK_BYTES: u32 = 64 << 20;
/// Size of the blocks that [`crate::testing`] writes.
pub(crate) const WRITTEN_BLOCK_BYTES: usize = 1 << 20;

fn damaged(what: &str, at: usize) -> Error {
    Error::damaged(Layer::Payload, format!("DCS: {what}")).at(at as u64)
}

/// Unpacks a payload of at most `limit` bytes.
///
/// # Errors
/// `Damaged`, `Limit`.
pub fn decode(bytes: &[u8], limit: u64) -> Result<Vec<u8>> {
    let number = |at: usize| u32_at(bytes, at).ok_or_else(|| damaged("it is cut off", bytes.len()));
    if slice_at(bytes, 0, 4) != Some(MAGIC) {
        return Err(damaged("another head", 0));
    }
    let (count, total) = (number(4)?, number(8)?);
    if u64::from(total) > limit {
        return Err(Error::limit(Layer::Payload, "DCS: the file would be too large")
            .at(8)
            .expected(format!("at most {limit:#x} bytes"))
            .found(format!("{total:#x}")));
    }
    if count as usize > bytes.len() / 8 || (count == 0) != (total == 0) {
        return Err(damaged("the number of blocks cannot be", 4).found(count));
    }
    // Look at all heads first: nothing is allocated for what does not add up.
    let (mut blocks, mut at, mut sum) = (Vec::new(), 12, 0u64);
    for _ in 0..count {
        let (packed, plain) = (number(at)?, number(at + 4)?);
        let length = packed
            .checked_sub(4)
            .ok_or_else(|| damaged("the size of a block cannot be", at).found(packed))?;
        let body = slice_at(bytes, at + 8, length as usize)
            .ok_or_else(|| damaged("a block ends behind the file", at).found(format!("{length:#x} bytes")))?;
        if plain > MAX_BLOCK_BYTES {
            return Err(
                damaged("the text of a block cannot be so large", at + 4).found(format!("{plain:#x}"))
            );
        }
        sum += u64::from(plain);
        if sum > u64::from(total) {
            return Err(damaged("the blocks hold more than the file", at + 4).expected(total).found(sum));
        }
        blocks.push((at, body, plain as usize));
        at += 8 + length as usize;
    }
    if sum != u64::from(total) {
        return Err(damaged("the blocks do not add up to the file", at).expected(total).found(sum));
    }
    let mut out = vec![0; total as usize];
    let mut rest = &mut out[..];
    for (at, body, plain) in blocks {
        let (block, after) = rest.split_at_mut(plain);
        if body.len() == plain {
            block.copy_from_slice(body);
        } else {
            lzms::decompress(body, block)
                .map_err(|e| damaged("a block cannot be unpacked", at).caused_by(e))?;
        }
        rest = after;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    fn text() -> Vec<u8> {
        // Longer than a block of ours, with calls for the filter.
        (0..1_200_000u32).map(|i| if i % 37 == 0 { 0xE8 } else { (i / 7 % 5) as u8 }).collect()
    }

    #[test]
    fn what_is_packed_comes_back_and_nothing_larger_than_allowed() {
        let packed = testing::dcs(&text());
        assert!(decode(&packed, 1 << 22).unwrap() == text());
        assert_eq!(decode(&packed, 1_199_999).unwrap_err().kind(), vmrescue_base::ErrorKind::Limit);
        assert!(decode(&testing::dcs(b""), 9).unwrap().is_empty());
    }

    #[test]
    fn heads_that_do_not_add_up_are_refused() {
        let packed = testing::dcs(&text()[..3000]);
        for (at, value) in
            [(4, 0u32), (4, 2), (4, 1000), (8, 2999), (8, 3001), (12, 3), (12, u32::MAX), (16, u32::MAX)]
        {
            let mut bad = packed.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let error = decode(&bad, 1 << 20).unwrap_err();
            assert!(error.offset().is_some(), "{error}");
        }
    }

    proptest! {
        #[test]
        fn damage_never_causes_a_panic(place in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>()) {
            let mut packed = testing::dcs(&text()[..3000]);
            prop_assert!(decode(&packed[..cut.index(packed.len())], 1 << 16).is_err());
            let at = place.index(packed.len());
            packed[at] ^= 1 << bit;
            if let Ok(out) = decode(&packed, 1 << 16) {
                prop_assert_eq!(out.len(), 3000);
            }
        }
    }
}
