//! Volumes that no partition table names: what a search finds, who they were, and the machine as it would be with them.

use super::bcd::{PartitionRef, Value};
use super::boot::{STORE_PLACES, boot_stores, load_store};
use super::machine::{Machine, hive_of};
use std::ops::Range;
use std::sync::Arc;
use vmrescue_base::error::Result;
use vmrescue_base::guid::Guid;
use vmrescue_base::progress::Progress;
use vmrescue_block::Disk;
use vmrescue_crypt::Keys;
use vmrescue_fs::{Depth, FileSystem, FoundVolume, resolve, search, view};
use vmrescue_partition::{BASIC_DATA, EFI_SYSTEM, Partition, TableKind};

/// Volumes on the parts of the disk that its table does not name.
///
/// # Errors
/// `Interrupted`.
pub fn lost_volumes(machine: &Machine, depth: Depth, progress: &dyn Progress) -> Result<Vec<FoundVolume>> {
    let mut found = search(&machine.disk, &known(machine), depth, progress)?;
    // What begins where the disk does is the disk itself: it has no partition, and needs none.
    found.retain(|volume| volume.range.start > 0);
    Ok(found)
}

/// The parts of the disk that are accounted for.
fn known(machine: &Machine) -> Vec<Range<u64>> {
    let is_whole = |volume: &&super::Volume| {
        volume.partition.is_some() || volume.fs.is_some() || volume.bitlocker.is_some()
    };
    machine.volumes.iter().filter(is_whole).map(|volume| volume.range.clone()).collect()
}

/// What the boot stores on the found volumes say of the identities of disk and partitions.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// GUID of the disk.
    pub disk: Option<Guid>,
    /// GUID of each found volume's partition, where it is known.
    pub partitions: Vec<Option<Guid>>,
}

/// Which of the found volumes hold Windows.
fn windows_among(
    open: &dyn Fn(&FoundVolume) -> Option<Arc<dyn FileSystem>>,
    found: &[FoundVolume],
) -> Vec<usize> {
    let holds = |volume: &FoundVolume| {
        let fs = open(volume);
        fs.is_some_and(|fs| matches!(resolve(&*fs, &["Windows", "System32", "config"]), Ok(Some(_))))
    };
    (0..found.len()).filter(|place| holds(&found[*place])).collect()
}

/// Reads the boot stores on the found volumes, and where these do not say it those of the partitions that are there: with the GUIDs that they name, they need no repair afterwards. What cannot be read says
/// nothing, and new GUIDs are made.
pub fn identities(machine: &Machine, found: &[FoundVolume]) -> Identities {
    let disk = &machine.disk;
    let mut known = Identities { disk: None, partitions: vec![None; found.len()] };
    let all: Vec<&FoundVolume> = found.iter().collect();
    let Ok(seen) = view(disk, &all) else { return known };
    let open = |volume: &FoundVolume| seen.window(volume.range.clone()).and_then(vmrescue_fs::open).ok();
    for (place, volume) in found.iter().enumerate().filter(|(_, volume)| volume.efi) {
        let Some(fs) = open(volume) else { continue };
        let store = STORE_PLACES.iter().find_map(|(_, path)| {
            let (name, directory) = path.split_last()?;
            let directory = resolve(&*fs, directory).ok()??;
            super::bcd::Store::load(&hive_of(&*fs, directory, name).ok()?).ok()
        });
        let Some(store) = store else { continue };
        let gpt = |value: Option<&Value>| {
            let device = value.and_then(Value::as_device)?;
            device.partitions().iter().find_map(|partition| match partition {
                PartitionRef::Gpt { disk, partition } => Some((*disk, *partition)),
                PartitionRef::Mbr { .. } => None,
            })
        };
        if let Some((disk, own)) = gpt(store.bootmgr().and_then(|manager| manager.get(0x1100_0001))) {
            (known.disk, known.partitions[place]) = (known.disk.or(Some(disk)), Some(own));
        }
        let windows = windows_among(&open, found);
        // With several it is not certain which one the entry means.
        if let ([only], Some((_, partition))) =
            (windows.as_slice(), gpt(store.default_entry().and_then(|entry| entry.get(0x2100_0001))))
        {
            known.partitions[*only] = Some(partition);
        }
    }
    // Only the partition of Windows was lost: the store on the system partition that is there names it.
    if let [only] = windows_among(&open, found).as_slice()
        && known.partitions[*only].is_none()
    {
        known.partitions[*only] = boot_stores(machine).iter().find_map(|path| {
            // A store that cannot be read says nothing.
            let (_, store) = load_store(machine, path).ok()??;
            let device = store.default_entry()?.get(0x2100_0001)?.as_device()?.partitions();
            device.iter().find_map(|partition| match partition {
                PartitionRef::Gpt { disk, partition }
                    if machine.table.disk_id.as_ref() == Some(&disk.to_string())
                        && !machine.disk_map().partitions.iter().any(|there| {
                            there.id == (PartitionRef::Gpt { disk: *disk, partition: *partition })
                        }) =>
                {
                    Some(*partition)
                }
                PartitionRef::Gpt { .. } | PartitionRef::Mbr { .. } => None,
            })
        });
    }
    known
}

/// Opens a disk as it would be with the volumes that are found on it, for looking: nothing is written. The found volumes have numbers
/// behind those of the table.
///
/// # Errors
/// As [`Machine::open_with`] and [`lost_volumes`].
pub fn open_with_lost(
    disk: Disk,
    keys: &Keys,
    depth: Depth,
    progress: &dyn Progress,
) -> Result<(Machine, Vec<FoundVolume>)> {
    let machine = Machine::open_with(disk.clone(), keys)?;
    let found = lost_volumes(&machine, depth, progress)?;
    if found.is_empty() {
        return Ok((machine, found));
    }
    let seen = view(&disk, &found.iter().collect::<Vec<_>>())?;
    let ids = identities(&machine, &found);
    let mut table = machine.table.clone();
    if table.kind == TableKind::None {
        let bios = found.iter().any(|volume| volume.bios) && !found.iter().any(|volume| volume.efi);
        table.kind = if bios { TableKind::Mbr } else { TableKind::Gpt };
    }
    let gpt = table.kind == TableKind::Gpt;
    table.disk_id = table.disk_id.or_else(|| ids.disk.filter(|_| gpt).map(|id| id.to_string()));
    let last = table.partitions.iter().map(|partition| partition.number).max().unwrap_or(0);
    for ((number, volume), id) in (last + 1..).zip(&found).zip(ids.partitions) {
        let type_guid = if volume.efi { EFI_SYSTEM } else { BASIC_DATA };
        table.partitions.push(Partition {
            number,
            range: volume.range.clone(),
            type_name: format!("found: {}", volume.kind),
            type_guid: gpt.then_some(type_guid),
            mbr_type: (!gpt).then_some(7),
            unique_guid: id.filter(|_| gpt),
            name: String::new(),
            active: !gpt && volume.bios,
            attributes: 0,
        });
    }
    Ok((Machine::open_as(seen, table, keys)?, found))
}
