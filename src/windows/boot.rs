//! How the machine of a disk starts: its firmware, the partition that the firmware starts from, and the boot store there.

use super::bcd::{Firmware, PartitionRef, Store};
use super::machine::{Machine, hive_of};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::resolve;
use vmrescue_partition::{EFI_SYSTEM, TableKind};
use vmrescue_registry::Hive;

/// Where a store lies on a system partition, by firmware.
pub(super) const STORE_PLACES: [(Firmware, &[&str]); 2] =
    [(Firmware::Uefi, &["EFI", "Microsoft", "Boot", "BCD"]), (Firmware::Bios, &["Boot", "BCD"])];

/// How a disk starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootLayout {
    /// UEFI for a GPT disk, BIOS for all others.
    pub firmware: Firmware,
    /// Volumes (indices) that the firmware would start from: EFI system partitions, or the active partition; those with a store first.
    pub system: Vec<usize>,
    /// Volumes that hold boot files but are not marked as the firmware wants it.
    pub unmarked: Vec<usize>,
}

fn has(machine: &Machine, volume: usize, path: &[&str]) -> bool {
    let fs = machine.volumes.get(volume).and_then(|volume| volume.fs.clone());
    fs.is_some_and(|fs| matches!(resolve(&*fs, path), Ok(Some(_))))
}

/// How the machine of this disk starts.
pub fn boot_layout(machine: &Machine) -> BootLayout {
    let firmware = if machine.table.kind == TableKind::Gpt { Firmware::Uefi } else { Firmware::Bios };
    let (mut system, mut unmarked) = (Vec::new(), Vec::new());
    for (index, volume) in machine.volumes.iter().enumerate() {
        let partition = volume.partition.as_ref();
        let marked = match firmware {
            Firmware::Uefi => partition.is_some_and(|p| p.type_guid == Some(EFI_SYSTEM)),
            Firmware::Bios => partition.is_none_or(|p| p.active),
        };
        let files: &[&[&str]] = match firmware {
            Firmware::Uefi => &[&["EFI", "Microsoft", "Boot"], &["EFI", "Boot"]],
            Firmware::Bios => &[&["bootmgr"], &["Boot", "BCD"]],
        };
        if marked {
            system.push(index);
        } else if files.iter().any(|path| has(machine, index, path)) {
            unmarked.push(index);
        }
    }
    let (_, store) = STORE_PLACES[usize::from(firmware == Firmware::Bios)];
    system.sort_by_key(|index| !has(machine, *index, store));
    BootLayout { firmware, system, unmarked }
}

/// What starts the Windows of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// The boot manager of Windows Vista and later, with a boot configuration store.
    BootManager,
    /// NTLDR of Windows Server 2003 and older, with boot.ini.
    Ntldr,
}

/// What starts the Windows of this disk.
pub fn boot_loader(machine: &Machine) -> Loader {
    /// The first build that has a boot manager: Windows Vista.
    const VISTA: u32 = 6000;
    let layout = boot_layout(machine);
    if layout.firmware == Firmware::Uefi {
        return Loader::BootManager;
    }
    let all = 0..machine.volumes.len();
    if all.clone().any(|volume| has(machine, volume, &["bootmgr"]) || has(machine, volume, &["Boot", "BCD"]))
    {
        return Loader::BootManager;
    }
    let old = machine.installations.iter().all(|own| (1..VISTA).contains(&own.build));
    let files =
        all.clone().any(|volume| has(machine, volume, &["ntldr"]) || has(machine, volume, &["boot.ini"]));
    if old && (files || !machine.installations.is_empty()) { Loader::Ntldr } else { Loader::BootManager }
}

impl BootLayout {
    /// The one volume to start from; `number` chooses when there are several.
    ///
    /// # Errors
    /// `NotFound` without any; `Refused` with a list when there are several.
    pub fn system_volume(&self, machine: &Machine, number: Option<u32>) -> Result<usize> {
        if let Some(number) = number {
            let found = machine.volumes.iter().position(|volume| volume.number == number);
            return found.ok_or_else(|| Error::not_found(Layer::Bcd, format!("no partition {number}")));
        }
        match self.system.as_slice() {
            [one] => Ok(*one),
            [] => match self.unmarked.as_slice() {
                [one] => Ok(*one),
                _ => Err(Error::not_found(Layer::Bcd, "the disk has no system partition")
                    .expected(match self.firmware {
                        Firmware::Uefi => "a partition of type EFI system",
                        Firmware::Bios => "an active partition",
                    })
                    .advice("`vmrescue partition list IMAGE` shows what is there; name one with --system N")),
            },
            several => {
                let (_, store) = STORE_PLACES[usize::from(self.firmware == Firmware::Bios)];
                let mut with_store = several.iter().filter(|index| has(machine, **index, store));
                // One of them has the store: the firmware starts from there, whatever the others are for.
                if let (Some(one), None) = (with_store.next(), with_store.next()) {
                    return Ok(*one);
                }
                let list: Vec<String> =
                    several.iter().map(|index| format!("#{}", machine.volumes[*index].number)).collect();
                Err(Error::refused(Layer::Bcd, "there are several system partitions")
                    .found(list.join(", "))
                    .advice("choose one with --system N"))
            }
        }
    }

    /// Guest path of the store on a volume, whether it is there or not.
    pub fn store_path(&self, machine: &Machine, volume: usize) -> String {
        let place = STORE_PLACES.iter().find(|(firmware, _)| *firmware == self.firmware);
        let place = place.map_or_else(String::new, |(_, path)| path.join("\\"));
        format!("#{}:\\{place}", machine.volumes[volume].number)
    }
}

/// What a store calls a volume; `None` for a disk without a table.
pub fn partition_ref(machine: &Machine, volume: usize) -> Option<PartitionRef> {
    let number = machine.volumes.get(volume)?.number;
    machine.disk_map().partitions.iter().find(|partition| partition.number == number).map(|p| p.id)
}

/// Guest paths of all stores that firmware of either kind would look at, those of system volumes first.
pub fn boot_stores(machine: &Machine) -> Vec<String> {
    let mut found = Vec::new();
    for (index, volume) in machine.volumes.iter().enumerate() {
        for (_, place) in STORE_PLACES {
            if has(machine, index, place) {
                found.push((!volume.system, format!("#{}:\\{}", volume.number, place.join("\\"))));
            }
        }
    }
    found.sort_by_key(|(other, _)| *other);
    found.into_iter().map(|(_, path)| path).collect()
}

/// The store at a guest path with its hive; `None` when it is not there.
///
/// # Errors
/// `Damaged` when it cannot be read or holds nothing.
pub fn load_store(machine: &Machine, path: &str) -> Result<Option<(Hive, Store)>> {
    let parsed = GuestPath::parse(path)?;
    let Some((name, directory)) = parsed.components.split_last() else { return Ok(None) };
    let fs = machine.file_system(machine.volume_of(&parsed.volume)?)?;
    let Some(directory) = resolve(&*fs, directory)? else { return Ok(None) };
    if fs.lookup(directory, name)?.is_none() {
        return Ok(None);
    }
    let hive = hive_of(&*fs, directory, name)?;
    let store = Store::load(&hive)?;
    if store.objects.is_empty() {
        return Err(Error::damaged(Layer::Bcd, "the store has no objects").found(path));
    }
    Ok(Some((hive, store)))
}
