//! The boot sector: sizes of sector, cluster, record and index block, and where $MFT lies.
//!
//! Field offsets follow the BIOS parameter block of NTFS. The copy in the last sector of the partition is compared by
//! [`super::check`]; boot code is not looked at.

use vmrescue_base::bytes::{u16_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::Disk;

/// Largest cluster that Windows makes.
const MAX_CLUSTER_BYTES: u64 = 2 << 20;

/// The sizes and places of a volume, as its boot sector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Bytes of a sector: 512 to 4096.
    pub sector_bytes: u32,
    /// Bytes of a cluster: a power of two, at most 2 MiB.
    pub cluster_bytes: u32,
    /// Sectors of the volume, without the last one, which holds the copy of this sector.
    pub sectors: u64,
    /// First cluster of $MFT.
    pub mft_lcn: u64,
    /// First cluster of $MFTMirr.
    pub mirror_lcn: u64,
    /// Bytes of a file record: 1024 or 4096.
    pub record_bytes: u32,
    /// Bytes of a block of a directory index.
    pub index_bytes: u32,
    /// Serial number.
    pub serial: u64,
}

impl Boot {
    /// Parses the first 512 bytes of a volume.
    ///
    /// # Errors
    /// `Damaged` when it is not an NTFS boot sector or its numbers cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Boot> {
        let bad = |what: &str, at: u64| Error::damaged(Layer::Ntfs, format!("boot sector: {what}")).at(at);
        if !is_ntfs(bytes) {
            return Err(bad("no NTFS signature", 3));
        }
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let sector_bytes = u32::from(u16_at(bytes, 0x0B).unwrap_or(0));
        if !sector_bytes.is_power_of_two() || !(256..=4096).contains(&sector_bytes) {
            return Err(bad("bytes per sector", 0x0B).found(sector_bytes));
        }
        // Above 0x80 the byte is the negative power of two: clusters larger than 128 sectors.
        let per_cluster = match byte(0x0D) {
            small @ 0..=0x80 => u64::from(small),
            large => 1u64.checked_shl(256 - u32::from(large)).unwrap_or(0),
        };
        let cluster_bytes = per_cluster.saturating_mul(u64::from(sector_bytes));
        if !per_cluster.is_power_of_two() || cluster_bytes > MAX_CLUSTER_BYTES {
            return Err(bad("sectors per cluster", 0x0D).found(format!("{:#x}", byte(0x0D))));
        }
        let record_bytes = sized(byte(0x40), cluster_bytes)
            .filter(|size| (512..=65536).contains(size))
            .ok_or_else(|| bad("size of a file record", 0x40).found(format!("{:#x}", byte(0x40))))?;
        let index_bytes = sized(byte(0x44), cluster_bytes)
            .filter(|size| (512..=MAX_CLUSTER_BYTES).contains(size))
            .ok_or_else(|| bad("size of an index block", 0x44).found(format!("{:#x}", byte(0x44))))?;
        let number = |at: usize| u64_at(bytes, at).unwrap_or(0);
        let boot = Boot {
            sector_bytes,
            cluster_bytes: cluster_bytes as u32, // at most 2 MiB
            sectors: number(0x28),
            mft_lcn: number(0x30),
            mirror_lcn: number(0x38),
            record_bytes: record_bytes as u32, // at most 64 KiB
            index_bytes: index_bytes as u32,   // at most 2 MiB
            serial: number(0x48),
        };
        if boot.sectors == 0 || boot.sectors.checked_mul(u64::from(sector_bytes)).is_none_or(|n| n >> 62 != 0)
        {
            return Err(bad("number of sectors", 0x28).found(format!("{:#x}", boot.sectors)));
        }
        if boot.mft_lcn >= boot.clusters() {
            return Err(bad("$MFT outside the volume", 0x30).found(format!("LCN {:#x}", boot.mft_lcn)));
        }
        Ok(boot)
    }

    /// Whole clusters of the volume.
    pub fn clusters(&self) -> u64 {
        self.size_bytes() / u64::from(self.cluster_bytes)
    }

    /// Bytes of the volume as the file system counts them.
    pub fn size_bytes(&self) -> u64 {
        self.sectors.saturating_mul(u64::from(self.sector_bytes))
    }

    /// Where the copy of the boot sector lies.
    pub fn copy_offset(&self) -> u64 {
        self.size_bytes()
    }

    /// Bytes that a VCN counts in an index of blocks of `block_bytes`: clusters, or 512 bytes where clusters are larger.
    pub fn index_vcn_bytes(&self, block_bytes: u32) -> u64 {
        if self.cluster_bytes <= block_bytes { u64::from(self.cluster_bytes) } else { 512 }
    }
}

/// The copy of the boot sector in the last sector of the partition that `disk` is: its offset and its bytes, as many as a sector has.
/// The volume counts sectors of its own, so each size is tried. Whether the volume that it tells of ends there, the checker asks.
///
/// # Errors
/// Of reading the disk.
pub fn boot_copy(disk: &Disk) -> Result<Option<(u64, Vec<u8>)>> {
    for length in [512, 1024, 2048, 4096] {
        let Some(at) = disk.len().checked_sub(length) else { continue };
        let bytes = disk.read_vec(at, length as usize)?;
        if is_ntfs(&bytes) && Boot::parse(&bytes).is_ok_and(|boot| u64::from(boot.sector_bytes) == length) {
            return Ok(Some((at, bytes)));
        }
    }
    Ok(None)
}

/// True when the bytes start as an NTFS volume does.
pub fn is_ntfs(bytes: &[u8]) -> bool {
    bytes.get(3..11) == Some(b"NTFS    ")
}

/// A size that is a number of clusters, or as a negative number the power of two of bytes.
fn sized(byte: u8, cluster_bytes: u64) -> Option<u64> {
    let size = match i8::from_le_bytes([byte]) {
        clusters @ 1.. => u64::from(clusters.unsigned_abs()).checked_mul(cluster_bytes)?,
        power => 1u64.checked_shl(u32::from(power.unsigned_abs()))?,
    };
    size.is_power_of_two().then_some(size)
}
