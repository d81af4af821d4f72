//! The boot sector and its copy in the last sector of the partition: each put right from the other, and the count of hidden
//! sectors (where the partition begins), which BIOS boot code uses and which is wrong after a partition was moved.

use super::boot::{Boot, boot_copy};
use super::lost::lost_volume;
use crate::Depth;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{Disk, DiskMut};

/// Offset of the count of hidden sectors.
const HIDDEN: usize = 0x1c;

/// The boot sector, when it is whole: as many bytes as the volume's sectors have. One that counts more sectors than there are is not.
fn first(disk: &Disk) -> Result<Option<Vec<u8>>> {
    let bytes = disk.read_vec(0, 512)?;
    match Boot::parse(&bytes) {
        Ok(boot) if boot.size_bytes() <= disk.len() => disk.read_vec(0, boot.sector_bytes as usize).map(Some),
        _ => Ok(None),
    }
}

/// True for a volume that BitLocker has and nobody opened: its first sector is not that of NTFS and must stay, though the last may be.
fn is_bitlocker(disk: &Disk) -> Result<bool> {
    Ok(disk.len() >= 512 && vmrescue_crypt::is_bitlocker(&disk.read_vec(0, 512)?))
}

/// What is wrong with the boot sector of the NTFS volume that fills `disk` and begins at sector `first_sector` of its disk.
///
/// # Errors
/// Of reading the disk.
pub fn boot_sector_problems(disk: &Disk, first_sector: u64) -> Result<Vec<String>> {
    if is_bitlocker(disk)? {
        return Ok(Vec::new());
    }
    let (first, copy) = (first(disk)?, boot_copy(disk)?.map(|(_, bytes)| bytes));
    let mut problems = Vec::new();
    match (&first, &copy) {
        (None, Some(_)) => {
            problems.push("the boot sector is damaged; its copy at the end is whole".to_string());
        }
        (None, None) => {
            if let Some(lost) = lost_volume(disk, Depth::Quick) {
                let told = lost.evidence.join("; ");
                problems
                    .push(format!("the boot sector is damaged, and so is its copy; $MFT tells them: {told}"));
            }
        }
        (Some(_), None) => problems.push("the copy of the boot sector is damaged".to_string()),
        (Some(first), Some(copy)) if first != copy => {
            problems.push("the boot sector and its copy differ".to_string());
        }
        _ => {}
    }
    let hidden = first.as_ref().or(copy.as_ref()).and_then(|bytes| u32_at(bytes, HIDDEN));
    if let Some(hidden) = hidden.filter(|hidden| u64::from(*hidden) != first_sector) {
        problems.push(format!(
            "the boot sector says that the volume begins at sector {hidden}, it begins at {first_sector}"
        ));
    }
    Ok(problems)
}

/// Puts both copies right, from the one that is whole, or else from what the records of $MFT say.
///
/// # Errors
/// `NotFound` when neither is whole and no record of $MFT is found; `Refused` for a volume that BitLocker has; of the disk.
pub fn repair_boot_sector(disk: &DiskMut, first_sector: u64) -> Result<()> {
    let view = disk.as_disk();
    if is_bitlocker(&view)? {
        return Err(Error::refused(
            Layer::Ntfs,
            "the volume is BitLocker's: its first sector says where the keys are",
        )
        .at(0)
        .advice("open it with its key (--recovery-password, --recovery-key), then repair it"));
    }
    let found = first(&view)?.or(boot_copy(&view)?.map(|(_, bytes)| bytes));
    let mut bytes = match found {
        Some(bytes) => bytes,
        None => match lost_volume(&view, Depth::Quick).or_else(|| lost_volume(&view, Depth::Deep)) {
            Some(lost) => lost.boot_sector(first_sector, Some(disk.len()))?,
            None => {
                return Err(Error::not_found(
                    Layer::Ntfs,
                    "neither the boot sector nor its copy is whole, and no record of $MFT was found",
                )
                .at(0)
                .advice("restore the partition from a backup; what is left of its files can be searched for by file carving"));
            }
        },
    };
    // Beyond 2 TiB there is no room for the number; BIOS machines do not start from there.
    if let Ok(hidden) = u32::try_from(first_sector) {
        bytes[HIDDEN..HIDDEN + 4].copy_from_slice(&hidden.to_le_bytes());
    }
    disk.write_at(0, &bytes)?;
    // An image that was cut at its end has no room for the copy: what is there belongs to files.
    let place = disk.len().saturating_sub(bytes.len() as u64);
    if Boot::parse(&bytes)?.size_bytes() <= place {
        disk.write_at(place, &bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::{FormatSpec, format};
    use std::sync::Arc;
    use vmrescue_block::MemoryDevice;

    /// An encrypted volume may end with plain sectors; the pointers to its keys are not written over.
    #[test]
    fn the_first_sector_of_a_locked_volume_stays() {
        let device = Arc::new(MemoryDevice::zeroed(16 << 20));
        let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
        format(&disk, &FormatSpec { hidden_sectors: 2048, ..FormatSpec::default() }).unwrap();
        let mut first = disk.as_disk().read_vec(0, 512).unwrap();
        first[..11].copy_from_slice(b"\xeb\x58\x90-FVE-FS-");
        first[160..176].copy_from_slice(&[
            0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01,
        ]);
        disk.write_at(0, &first).unwrap();
        let locked = device.to_vec();
        assert!(is_bitlocker(&disk.as_disk()).unwrap());
        assert_eq!(boot_sector_problems(&disk.as_disk(), 2048).unwrap(), Vec::<String>::new());
        let refused = repair_boot_sector(&disk, 2048).unwrap_err();
        assert_eq!(refused.kind(), vmrescue_base::ErrorKind::Refused);
        assert!(device.to_vec() == locked);
    }

    /// The sector that holds the copy is as long as the volume's sectors are.
    #[test]
    fn both_copies_are_put_right_with_sectors_of_either_size() {
        for sector_bytes in [512, 4096] {
            let device = Arc::new(MemoryDevice::zeroed(16 << 20).with_sectors(sector_bytes));
            let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
            format(&disk, &FormatSpec { hidden_sectors: 2048, ..FormatSpec::default() }).unwrap();
            let whole = device.to_vec();
            assert_eq!(boot_sector_problems(&disk.as_disk(), 2048).unwrap(), Vec::<String>::new());
            for at in [0, whole.len() as u64 - u64::from(sector_bytes)] {
                disk.zero_at(at..at + u64::from(sector_bytes)).unwrap();
                assert_eq!(
                    boot_sector_problems(&disk.as_disk(), 2048).unwrap().len(),
                    1,
                    "{sector_bytes} {at}"
                );
                assert_eq!(crate::open(disk.as_disk()).unwrap().info().kind, "ntfs", "{sector_bytes} {at}");
                repair_boot_sector(&disk, 2048).unwrap();
                assert!(device.to_vec() == whole, "{sector_bytes} {at}");
            }
            // Counts other sectors than the volume has: what it says must not be believed where files lie.
            let other: u16 = if sector_bytes == 512 { 4096 } else { 512 };
            disk.write_at(0x0B, &other.to_le_bytes()).unwrap();
            repair_boot_sector(&disk, 2048).unwrap();
            assert!(other < 4096 || device.to_vec() == whole, "{sector_bytes}: files were written over");
        }
    }
}
