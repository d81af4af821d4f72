//! The boot sector and its copy in the last sector of the partition: each put right from the other, and the count of hidden
//! sectors (where the partition begins), which BIOS boot code uses and which is wrong after a partition was moved.

use super::boot::{Boot, is_ntfs};
use crate::block::{Disk, DiskMut};
use crate::bytes::u32_at;
use crate::error::{Error, Layer, Result};

/// Offset of the count of hidden sectors.
const HIDDEN: usize = 0x1c;

fn sector(disk: &Disk, place: u64) -> Result<Option<Vec<u8>>> {
    let bytes = disk.read_vec(place, 512)?;
    Ok((is_ntfs(&bytes) && Boot::parse(&bytes).is_ok()).then_some(bytes))
}

/// What is wrong with the boot sector of the NTFS volume that fills `disk` and begins at sector `first_sector` of its disk.
///
/// # Errors
/// Of reading the disk.
pub fn boot_sector_problems(disk: &Disk, first_sector: u64) -> Result<Vec<String>> {
    let last = disk.len().saturating_sub(512);
    let (first, copy) = (sector(disk, 0)?, sector(disk, last)?);
    let mut problems = Vec::new();
    match (&first, &copy) {
        (None, Some(_)) => {
            problems.push("the boot sector is damaged; its copy at the end is whole".to_string());
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

/// Puts both copies right.
///
/// # Errors
/// `NotFound` when neither is whole; `Invalid` for a volume beyond 2 TiB; of the disk.
pub fn repair_boot_sector(disk: &DiskMut, first_sector: u64) -> Result<()> {
    let view = disk.as_disk();
    let last = disk.len().saturating_sub(512);
    let found = sector(&view, 0)?.or(sector(&view, last)?);
    let mut bytes = found.ok_or_else(|| {
        Error::not_found(Layer::Ntfs, "neither the boot sector nor its copy is whole").at(0)
    })?;
    // Beyond 2 TiB there is no room for the number; BIOS machines do not start from there.
    if let Ok(hidden) = u32::try_from(first_sector) {
        bytes[HIDDEN..HIDDEN + 4].copy_from_slice(&hidden.to_le_bytes());
    }
    disk.write_at(0, &bytes)?;
    disk.write_at(last, &bytes)
}
