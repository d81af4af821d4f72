//! Changes below the file systems: partition tables and boot sectors. They are tried on a scratch overlay, and what differs there
//! becomes the change.

use super::change::Change;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut, Overlay, OverlayOptions};
use vmrescue_fs::{Depth, FoundVolume, fat, ntfs};
use vmrescue_image as image;
use vmrescue_partition as partition;
use vmrescue_partition::{BASIC_DATA, EFI_SYSTEM, NewPartition, TableKind};
use vmrescue_windows::{Machine, identities, lost_volumes};

/// Places on the disk, and what goes there.
pub(super) type Writes = Vec<(u64, Vec<u8>)>;

/// What `work` would write on the disk.
pub(super) fn scratch(disk: &Disk, work: impl FnOnce(&DiskMut) -> Result<()>) -> Result<Writes> {
    let overlay = Overlay::new(disk.clone(), OverlayOptions::default())?;
    let scratch = DiskMut::new(Arc::clone(&overlay) as Arc<_>);
    work(&scratch)?;
    let read = |range: Range<u64>| {
        let data = scratch.as_disk().read_vec(range.start, (range.end - range.start) as usize)?;
        Ok((range.start, data))
    };
    overlay.dirty_ranges()?.into_iter().map(read).collect()
}

/// The disk as `work` leaves it, in memory.
pub(super) fn tried(disk: &Disk, work: impl FnOnce(&DiskMut) -> Result<()>) -> Result<Disk> {
    let overlay = Overlay::new(disk.clone(), OverlayOptions::default())?;
    let scratch = DiskMut::new(overlay as Arc<_>);
    work(&scratch)?;
    Ok(scratch.as_disk())
}

/// The sectors that `work` would change on the disk.
///
/// # Errors
/// Of `work`.
pub fn plan_sectors(
    disk: &Disk,
    what: &str,
    work: impl FnOnce(&DiskMut) -> Result<()>,
) -> Result<Vec<Change>> {
    let change = |(offset, data)| Change::DiskWrite { offset, data, what: what.to_string() };
    Ok(scratch(disk, work)?.into_iter().map(change).collect())
}

/// Marks a partition of an MBR disk as the one to start from.
///
/// # Errors
/// `Invalid` for GPT disks and partitions that cannot be active.
pub fn set_active(machine: &Machine, number: u32) -> Result<Vec<Change>> {
    plan_sectors(&machine.disk, &format!("mark partition {number} as active"), |disk| {
        partition::set_active(disk, number)
    })
}

/// Writes both copies of the GPT from the one that is whole.
///
/// # Errors
/// Of [`partition::repair_gpt`].
pub fn repair_gpt(machine: &Machine) -> Result<Vec<Change>> {
    plan_sectors(&machine.disk, "write both copies of the partition table", |disk| {
        partition::repair_gpt(disk).map(|_| ())
    })
}

/// Gives a partition another type: `efi`, `basic`, `recovery`, `reserved`, a GUID, or two hexadecimal digits for MBR.
///
/// # Errors
/// `Invalid` for unknown types; `NotFound` for partitions that are not there.
pub fn set_type(machine: &Machine, number: u32, name: &str) -> Result<Vec<Change>> {
    plan_sectors(&machine.disk, &format!("give partition {number} the type {name}"), |disk| {
        partition::set_type(disk, number, name)
    })
}

/// Takes the attributes that hide a partition or make it read-only from it.
///
/// # Errors
/// Of [`partition::clear_attributes`].
pub fn clear_attributes(machine: &Machine, number: u32) -> Result<Vec<Change>> {
    let what = format!("make partition {number} neither hidden nor read-only");
    plan_sectors(&machine.disk, &what, |disk| {
        partition::clear_attributes(disk, number, partition::HIDING_ATTRIBUTES)
    })
}

/// Puts the boot sector of an NTFS volume, its copy and its count of hidden sectors right.
///
/// # Errors
/// Of [`ntfs::repair_boot_sector`]; `NotFound` for partitions that are not there.
pub fn repair_boot_sector(machine: &Machine, number: u32) -> Result<Vec<Change>> {
    let missing = || Error::not_found(Layer::Ntfs, format!("no partition {number}"));
    let volume = machine.volumes.iter().find(|volume| volume.number == number).ok_or_else(missing)?;
    let range = volume.range.clone();
    let first = range.start / u64::from(machine.table.sector_bytes.max(512));
    plan_sectors(&machine.disk, &format!("put the boot sector of partition {number} right"), |disk| {
        let window = disk.window(range)?;
        // The volume is FAT32 when the copy of its boot sector says so: in a place where NTFS has none.
        let head = window.as_disk().read_vec(0, 512.min(window.len() as usize))?;
        if !ntfs::is_ntfs(&head) && !fat::is_fat(&head) && fat::boot_copy(&window.as_disk())?.is_some() {
            return fat::repair_boot_sector(&window);
        }
        ntfs::repair_boot_sector(&window, first)
    })
}

/// Gives the volumes that no partition names their partitions again; where both copies of a GPT are gone, or there is no table at all,
/// makes one. Found are volumes at the usual places; when there are none, the whole disk is searched.
///
/// # Errors
/// `NotFound` when nothing is found; of [`partition::add_to_gpt`] and [`partition::write_mbr`]; `Unsupported` for MBR disks that have
/// a table.
pub fn restore_partitions(machine: &Machine, progress: &dyn Progress) -> Result<Vec<Change>> {
    let mut found = lost_volumes(machine, Depth::Quick, progress)?;
    let bare =
        machine.table.kind == TableKind::None && machine.volumes.iter().any(|volume| volume.fs.is_some());
    if bare {
        return Err(Error::invalid(Layer::Gpt, "the image is one volume and needs no partition table"));
    }
    if found.is_empty() {
        found = lost_volumes(machine, Depth::Deep, progress)?;
    }
    if found.is_empty() && machine.table.partitions.is_empty() {
        return Err(Error::not_found(Layer::Gpt, "no volume was found on this disk").advice(
            "restore the disk from a backup: nothing that could be named in a partition table is left of it",
        ));
    }
    let list: Vec<String> = found
        .iter()
        .map(|volume| format!("{} {:?} at {:#x}", volume.kind, volume.label, volume.range.start))
        .collect();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let bios = found.iter().any(|volume| volume.bios) && !found.iter().any(|volume| volume.efi);
    let what = format!("give {} volumes a partition: {}", found.len(), list.join(", "));
    let new = |volume: &FoundVolume, active: bool| NewPartition {
        type_guid: if volume.efi && volume.kind.starts_with("fat") { EFI_SYSTEM } else { BASIC_DATA },
        mbr_type: if volume.kind.starts_with("fat") { 0x0c } else { 7 },
        range: volume.range.clone(),
        name: if volume.efi { "EFI system partition".into() } else { "Basic data partition".into() },
        active,
    };
    match machine.table.kind {
        TableKind::Mbr => Err(Error::unsupported(
            Layer::Mbr,
            "partitions are not added to an MBR that is there",
        )
        .found(list.join(", "))
        .advice(
            "look at them with --scan and copy out what is needed: vmrescue get -r IMAGE PATH OUT --scan",
        )),
        TableKind::None if bios => {
            let signature = u32::from_le_bytes(Guid::random().0[..4].try_into().unwrap_or([1, 2, 3, 4]));
            let first = found.iter().position(|volume| volume.bios);
            let list: Vec<NewPartition> =
                found.iter().enumerate().map(|(place, volume)| new(volume, Some(place) == first)).collect();
            plan_sectors(&machine.disk, &what, |disk| partition::write_mbr(disk, signature, &list))
        }
        TableKind::Gpt | TableKind::None => {
            let ids = identities(machine, &found);
            let list: Vec<partition::Entry> = found
                .iter()
                .zip(ids.partitions)
                .map(|(volume, id)| partition::Entry::new(new(volume, false), id))
                .collect();
            plan_sectors(&machine.disk, &what, |disk| {
                partition::add_to_gpt(disk, ids.disk, &list).map(|_| ())
            })
        }
    }
}

/// Copies the boot code of the MBR (its first 440 bytes, nothing else) from a disk that the user names.
///
/// # Errors
/// `Invalid` when the disk is no MBR disk, or the donor has no boot code.
pub fn copy_boot_code(machine: &Machine, donor: &Path) -> Result<Vec<Change>> {
    if machine.table.kind != TableKind::Mbr {
        return Err(Error::invalid(Layer::Mbr, "only a disk with an MBR starts by boot code"));
    }
    let donor_disk = image::open_path(donor, &image::OpenOptions::default())?.disk;
    let code = donor_disk.read_vec(0, 512)?;
    if code[510..] != [0x55, 0xaa] || vmrescue_base::bytes::is_zero(&code[..440]) {
        return Err(Error::invalid(Layer::Mbr, "this disk has no boot code to copy").in_file(donor));
    }
    plan_sectors(&machine.disk, &format!("copy the boot code of {}", donor.display()), |disk| {
        disk.write_at(0, &code[..440])
    })
}
