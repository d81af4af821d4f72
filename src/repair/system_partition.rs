//! The system partition as a whole: a lost entry is put back with the GUID that the machine knew, a partition without FAT gets
//! a new file system in its place, a missing one is made in free space; then boot files and the boot store, as `bcdboot` does.

use super::change::Change;
use super::file_system::{Making, format_volume};
use super::rebuild_boot::rebuild_boot;
use super::sectors::{self, plan_sectors, set_active, set_type};
use std::ops::Range;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::text::size;
use vmrescue_base::time::FileTime;
use vmrescue_fs::{fat, ntfs};
use vmrescue_partition::{self as partition, BASIC_DATA, EFI_SYSTEM, Entry, NewPartition, TableKind, gaps};
use vmrescue_windows::{Installation, Machine, SystemPartition, boot_layout, system_partition_state};

/// What partitions begin at a multiple of.
const ALIGNMENT: u64 = 1 << 20;
/// Size of the partition "System Reserved" that is made, and the least that will do.
const RESERVED_BYTES: u64 = 500 << 20;
const LEAST_RESERVED_BYTES: u64 = 100 << 20;
/// Bytes of the boot record of NTFS: the first sector and the code behind it.
const BOOT_RECORD_BYTES: usize = 8192;
/// Where the code begins in it, and where its first sector ends.
const BOOT_CODE: usize = 0x54;

/// The changes that give this disk a system partition which starts the installation; none when it has one.
///
/// # Errors
/// `Refused` when there is no room for one; of what [`rebuild_boot`] needs.
pub fn repair_system_partition(machine: &Machine, installation: &Installation) -> Result<Vec<Change>> {
    let (mut list, number) = match machine.table.kind {
        TableKind::Gpt => efi(machine)?,
        TableKind::Mbr => active(machine, installation)?,
        TableKind::None => return Err(Error::invalid(Layer::Gpt, "the disk has no partition table")),
    };
    let after = tried(machine, &list)?;
    let place = machine.volumes[installation.volume].range.start;
    let own = after.installations.iter().find(|other| after.volumes[other.volume].range.start == place);
    let own =
        own.ok_or_else(|| Error::not_found(Layer::Windows, "the installation is not found any more"))?;
    list.extend(rebuild_boot(&after, own, number)?.changes);
    Ok(list)
}

/// The machine as these changes leave it.
fn tried(machine: &Machine, changes: &[Change]) -> Result<Machine> {
    let disk = sectors::tried(&machine.disk, |disk| {
        changes.iter().try_for_each(|change| match change {
            Change::DiskWrite { offset, data, .. } => disk.write_at(*offset, data),
            Change::VolumeFormat { writes, .. } => {
                writes.iter().try_for_each(|(offset, data)| disk.write_at(*offset, data))
            }
            _ => Err(Error::invalid(Layer::Script, "a change that is none of partitions")),
        })
    })?;
    // BitLocker volumes that are open are in plain text on this disk.
    Machine::open(disk)
}

fn efi_spec() -> Making {
    Making::Fat(fat::FormatSpec {
        label: "SYSTEM".into(),
        serial: FileTime::now().0 as u32,
        created: FileTime::now(),
        ..fat::FormatSpec::default()
    })
}

/// An EFI system partition, and its number.
fn efi(machine: &Machine) -> Result<(Vec<Change>, Option<u32>)> {
    let layout = boot_layout(machine);
    match system_partition_state(machine)? {
        SystemPartition::There => match (layout.system.as_slice(), layout.unmarked.as_slice()) {
            ([], [one]) => {
                let number = machine.volumes[*one].number;
                Ok((set_type(machine, number, "efi")?, Some(number)))
            }
            _ => {
                let readable = layout.system.iter().find(|index| {
                    machine.volumes[**index].fs.as_ref().is_some_and(|fs| fs.info().kind.starts_with("fat"))
                });
                Ok((Vec::new(), readable.map(|index| machine.volumes[*index].number)))
            }
        },
        SystemPartition::EntryLost(lost) => {
            let (id, by) =
                lost.id.unwrap_or_else(|| (Guid::random(), "a new one: nobody knew the old one".into()));
            let what = format!("put the entry of the EFI system partition back, GUID {id} ({by})");
            let new = efi_entry(lost.range);
            let mut number = 0;
            let list = plan_sectors(&machine.disk, &what, |disk| {
                let entry = Entry { slot: lost.number, ..Entry::new(new.clone(), Some(id)) };
                number = partition::add(disk, &entry)?;
                Ok(())
            })?;
            Ok((list, Some(number)))
        }
        SystemPartition::NoFileSystem(index) | SystemPartition::NotFat(index, _) => {
            let number = machine.volumes[index].number;
            Ok((format_volume(machine, number, &efi_spec(), true)?, Some(number)))
        }
        SystemPartition::Missing(Some(range)) => {
            let what = format!("make an EFI system partition of {}", size(range.end - range.start));
            let (mut list, number) = added(machine, &what, &efi_entry(range))?;
            let after = tried(machine, &list)?;
            list.extend(format_volume(&after, number, &efi_spec(), true)?);
            Ok((list, Some(number)))
        }
        SystemPartition::Missing(None) => {
            Err(Error::refused(Layer::Gpt, "there is no room for a system partition on this disk")
                .expected("50 MiB or more that no partition has")
                .advice("make the disk larger: vmrescue disk resize IMAGE SIZE, then run this again"))
        }
    }
}

fn efi_entry(range: Range<u64>) -> NewPartition {
    NewPartition {
        type_guid: EFI_SYSTEM,
        mbr_type: 0xEF,
        range,
        name: "EFI system partition".into(),
        active: false,
    }
}

fn added(machine: &Machine, what: &str, new: &NewPartition) -> Result<(Vec<Change>, u32)> {
    let mut number = 0;
    let list = plan_sectors(&machine.disk, what, |disk| {
        number = partition::add(disk, &Entry::new(new.clone(), None))?;
        Ok(())
    })?;
    Ok((list, number))
}

/// An active partition for a BIOS machine, and its number.
fn active(machine: &Machine, installation: &Installation) -> Result<(Vec<Change>, Option<u32>)> {
    let layout = boot_layout(machine);
    match (layout.system.as_slice(), layout.unmarked.as_slice()) {
        ([one], _) => return Ok((Vec::new(), Some(machine.volumes[*one].number))),
        ([_, ..], _) => {
            return Err(Error::refused(Layer::Mbr, "several partitions are active")
                .advice("choose one: vmrescue partition set-active IMAGE N"));
        }
        ([], [one]) => {
            let number = machine.volumes[*one].number;
            return Ok((set_active(machine, number)?, Some(number)));
        }
        ([], _) => {}
    }
    let windows = &machine.volumes[installation.volume];
    let free_entry = machine.table.partitions.iter().filter(|p| p.number <= 4).count() < 4;
    let gap = gaps(&machine.table, machine.disk.len()).into_iter().find_map(|gap| {
        let start = gap.start.next_multiple_of(ALIGNMENT);
        let length = gap.end.saturating_sub(start) / ALIGNMENT * ALIGNMENT;
        (length >= LEAST_RESERVED_BYTES).then(|| start..start + length.min(RESERVED_BYTES))
    });
    let Some(range) = gap.filter(|_| free_entry) else {
        // Windows starts from its own partition as well.
        return Ok((set_active(machine, windows.number)?, Some(windows.number)));
    };
    let what = format!("make an active partition of {} for the boot files", size(range.end - range.start));
    let new = NewPartition {
        type_guid: BASIC_DATA,
        mbr_type: 7,
        range: range.clone(),
        name: String::new(),
        active: true,
    };
    let (mut list, number) = added(machine, &what, &new)?;
    let after = tried(machine, &list)?;
    let created = FileTime::now();
    let spec = ntfs::FormatSpec {
        label: "System Reserved".into(),
        serial: created.0.rotate_left(32),
        created,
        ..ntfs::FormatSpec::default()
    };
    list.extend(format_volume(&after, number, &Making::Ntfs(spec), true)?);
    list.extend(boot_code(machine, range.start)?);
    Ok((list, Some(number)))
}

/// The code of the boot record of NTFS, from another volume of this disk that has it: it is nobody's to invent.
fn boot_code(machine: &Machine, target: u64) -> Result<Vec<Change>> {
    for volume in machine.volumes.iter().filter(|v| v.fs.as_ref().is_some_and(|fs| fs.info().kind == "ntfs"))
    {
        let record = machine.disk.read_vec(volume.range.start, BOOT_RECORD_BYTES)?;
        let starts_manager = record.windows(7).any(|part| part == b"BOOTMGR")
            || record.windows(14).any(|part| part == b"B\0O\0O\0T\0M\0G\0R\0");
        if starts_manager {
            let what = format!("boot code of the new partition, as volume {} has it", volume.number);
            let write = |from: usize, to: usize| Change::DiskWrite {
                offset: target + from as u64,
                data: record[from..to].to_vec(),
                what: what.clone(),
            };
            return Ok(vec![write(0, 3), write(BOOT_CODE, 510), write(512, BOOT_RECORD_BYTES)]);
        }
    }
    Ok(Vec::new())
}
