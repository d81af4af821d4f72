//! The first sector of a BitLocker volume: where the metadata blocks lie.
//!
//! Windows 7 and later write a GUID anywhere in the sector, followed by three offsets; BitLocker To Go keeps a FAT boot sector
//! around it. Windows Vista has no GUID: offset 56 holds the cluster of the first block.

use vmrescue_base::bytes::{u16_at, u64_at};
use vmrescue_base::guid::Guid;

/// Ahead of three offsets.
pub(super) const RECOGNITION: Guid =
    Guid::from_fields(0x4967_d63b, 0x2e29, 0x4ad8, [0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01]);
/// Ahead of three offsets and two of the encrypt-on-write bitmaps.
pub(super) const RECOGNITION_ON_WRITE: Guid =
    Guid::from_fields(0x92a8_4d3b, 0xdd80, 0x4d0e, [0x9e, 0x4e, 0xb1, 0xe3, 0x28, 0x4e, 0xae, 0xd8]);

/// What the first sector says.
pub(super) struct Header {
    /// Bytes of a sector; only a power of two from 512 to 4096 makes sense.
    pub(super) sector_bytes: u32,
    /// Bytes of a cluster, as the boot sector has them.
    pub(super) cluster_bytes: u64,
    /// Metadata blocks, in bytes from the start of the volume.
    pub(super) blocks: Vec<u64>,
    /// Records of the encrypt-on-write bitmaps, when the volume is encrypted as it is written.
    pub(super) on_write: Vec<u64>,
}

/// What the first sector says; `None` when it is not BitLocker's.
pub(super) fn header(first: &[u8]) -> Option<Header> {
    let first = first.get(..512)?;
    // Some volumes leave it out.
    let sector_bytes = u32::from(u16_at(first, 11).filter(|bytes| *bytes != 0).unwrap_or(512));
    let cluster_bytes = u64::from(sector_bytes).checked_mul(u64::from(*first.get(13)?))?;
    let find = |guid: Guid| first.windows(16).position(|bytes| bytes == guid.0);
    let offsets = |at: usize, count: usize| (0..count).filter_map(|i| u64_at(first, at + i * 8)).collect();
    if let Some(at) = find(RECOGNITION_ON_WRITE) {
        let (blocks, on_write) = (offsets(at + 16, 3), offsets(at + 40, 2));
        return Some(Header { sector_bytes, cluster_bytes, blocks, on_write });
    }
    if let Some(at) = find(RECOGNITION) {
        let blocks = offsets(at + 16, 3);
        return Some(Header { sector_bytes, cluster_bytes, blocks, on_write: Vec::new() });
    }
    if first.get(3..11) != Some(b"-FVE-FS-") {
        return None;
    }
    let blocks = vec![u64_at(first, 56)?.checked_mul(cluster_bytes)?];
    Some(Header { sector_bytes, cluster_bytes, blocks, on_write: Vec::new() })
}
