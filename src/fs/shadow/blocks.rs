//! The blocks of 16 KiB that catalogs and stores consist of: each begins with a header that says what and where it is.

use super::{BLOCK_BYTES, damaged};
use std::collections::HashSet;
use vmrescue_base::bytes::{u32_at, u64_at};
use vmrescue_base::error::Result;
use vmrescue_base::guid::Guid;
use vmrescue_block::Disk;

/// The mark of everything that belongs to shadow copies.
pub(super) const MARK: Guid =
    Guid::from_fields(0x3808_876b, 0xc176, 0x4e48, [0xb7, 0xae, 0x04, 0x04, 0x6e, 0x6c, 0xc7, 0x52]);
/// Bytes of the header of a block.
pub(super) const HEADER_BYTES: usize = 128;
/// Most blocks of one chain: 2^20 of them list 500 million entries.
const MAX_CHAIN: usize = 1 << 20;

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Catalog = 2,
    Descriptors = 3,
    Store = 4,
    Bitmap = 6,
}

/// The header of a block is as it must be: mark, version, kind and own place. A block has 16 KiB, so that no field lies outside.
fn checked(block: &[u8], at: u64, kind: Kind) -> Result<()> {
    let wrong = |what: &str| damaged(format!("shadow copies: {what}")).at(at);
    if Guid::at(block, 0) != Some(MARK) {
        return Err(wrong("a block does not carry their mark"));
    }
    let version = u32_at(block, 16).unwrap_or_default();
    if !matches!(version, 1 | 2) {
        return Err(wrong("a block of another version").expected("1 or 2").found(version));
    }
    let found = u32_at(block, 20).unwrap_or_default();
    if found != kind as u32 {
        return Err(wrong("a block of another kind").expected(format!("{kind:?}")).found(found));
    }
    let place = u64_at(block, 32).unwrap_or_default();
    if place != at {
        return Err(wrong("a block of another place")
            .expected(format!("{at:#x}"))
            .found(format!("{place:#x}")));
    }
    Ok(())
}

/// One block of that kind.
pub(super) fn block(volume: &Disk, at: u64, kind: Kind) -> Result<Vec<u8>> {
    if !at.is_multiple_of(512) || at.checked_add(BLOCK_BYTES).is_none_or(|end| end > volume.len()) {
        return Err(damaged("shadow copies: a block outside of the volume").found(format!("{at:#x}")));
    }
    let bytes = volume.read_vec(at, BLOCK_BYTES as usize)?;
    checked(&bytes, at, kind)?;
    Ok(bytes)
}

/// Shows the blocks of a chain, each with what is behind its header.
pub(super) fn chain(
    volume: &Disk,
    first: u64,
    kind: Kind,
    mut see: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let (mut at, mut seen) = (first, HashSet::new());
    while at != 0 {
        if !seen.insert(at) || seen.len() > MAX_CHAIN {
            return Err(damaged("shadow copies: a chain of blocks leads back into itself").at(at));
        }
        let bytes = block(volume, at, kind)?;
        see(at, &bytes[HEADER_BYTES..])?;
        at = u64_at(&bytes, 40).unwrap_or_default(); // inside of the block
    }
    Ok(())
}
