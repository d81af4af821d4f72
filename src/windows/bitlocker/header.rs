//! The first sector of a BitLocker volume: where the metadata blocks lie.
//!
//! Windows 7 and later write a GUID anywhere in the sector, followed by three offsets; BitLocker To Go keeps a FAT boot sector
//! around it. Windows Vista has no GUID: offset 56 holds the cluster of the first block.

use crate::bytes::{u16_at, u64_at};
use crate::guid::Guid;

/// Ahead of three offsets.
const RECOGNITION: Guid =
    Guid::from_fields(0x4967_d63b, 0x2e29, 0x4ad8, [0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01]);
/// Ahead of three offsets and two of the encrypt-on-write bitmaps.
const RECOGNITION_ON_WRITE: Guid =
    Guid::from_fields(0x92a8_4d3b, 0xdd80, 0x4d0e, [0x9e, 0x4e, 0xb1, 0xe3, 0x28, 0x4e, 0xae, 0xd8]);

/// Where metadata blocks lie.
pub(super) struct Places {
    /// Bytes from the start of the volume.
    pub(super) blocks: Vec<u64>,
    /// The volume is encrypted as it is written.
    pub(super) encrypt_on_write: bool,
}

/// The places that the first sector names; `None` when it is not BitLocker's.
pub(super) fn places(first: &[u8]) -> Option<Places> {
    let first = first.get(..512)?;
    let find = |guid: Guid| first.windows(16).position(|bytes| bytes == guid.0);
    let blocks = |at: usize| (0..3).filter_map(|i| u64_at(first, at + 16 + i * 8)).collect();
    if let Some(at) = find(RECOGNITION_ON_WRITE) {
        return Some(Places { blocks: blocks(at), encrypt_on_write: true });
    }
    if let Some(at) = find(RECOGNITION) {
        return Some(Places { blocks: blocks(at), encrypt_on_write: false });
    }
    if first.get(3..11) != Some(b"-FVE-FS-") {
        return None;
    }
    let cluster = u64::from(u16_at(first, 11)?).checked_mul(u64::from(*first.get(13)?))?;
    let block = u64_at(first, 56)?.checked_mul(cluster)?;
    Some(Places { blocks: vec![block], encrypt_on_write: false })
}
