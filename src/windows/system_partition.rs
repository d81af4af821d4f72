//! The partition that the firmware starts from, as a whole: there and good, there without a file system that firmware reads, gone
//! from the table while its volume is still there, or gone altogether; and what the machine knew of it.
//!
//! The GUID that a lost entry had is what firmware and Windows go on asking for. It stands in the boot store on the volume
//! itself, in the registry (`PartitionTableCache` of the partition manager), and in the logs of measured boots.

use crate::bcd::{Device, PartitionRef, Store, Value};
use crate::boot::{BootLayout, boot_layout};
use crate::machine::{Installation, Machine};
use std::ops::Range;
use vmrescue_base::bytes::{u32_at, u64_at};
use vmrescue_base::error::Result;
use vmrescue_base::guid::Guid;
use vmrescue_fs::fat::{FatVolume, is_fat};
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystem, read_file, resolve};
use vmrescue_partition::{EFI_SYSTEM, TableKind, gaps};
use vmrescue_registry::{Hive, Key};

/// Places of free space at which a lost volume is looked for.
const MAX_PLACES: usize = 1 << 16;
/// What partitions begin at a multiple of.
const ALIGNMENT: u64 = 1 << 20;
/// The smallest system partition that is made; Azure's are of 99 MiB.
const LEAST_BYTES: u64 = 50 << 20;
/// Most devices whose notes are read.
const MAX_DEVICES: usize = 4096;
/// Most bytes of the log of a measured boot.
const MAX_LOG_BYTES: u64 = 4 << 20;

/// What is known of the lost entry of a system partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostEntry {
    /// Where the volume lies on the disk, in bytes.
    pub range: Range<u64>,
    /// The GUID that the partition had, and who knew it.
    pub id: Option<(Guid, String)>,
    /// The number that it had.
    pub number: Option<u32>,
}

/// How the system partition of a UEFI machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemPartition {
    /// There is one that firmware can read, or the disk is no GPT disk.
    There,
    /// Its entry is gone from the table, the volume is still there.
    EntryLost(LostEntry),
    /// The partition (index of its volume) has no file system that is known.
    NoFileSystem(usize),
    /// The partition has another file system than FAT: its kind.
    NotFat(usize, &'static str),
    /// There is none; where there is room for one, in bytes.
    Missing(Option<Range<u64>>),
}

/// How the system partition of this disk is.
///
/// # Errors
/// Of reading the disk.
pub fn system_partition_state(machine: &Machine) -> Result<SystemPartition> {
    let BootLayout { system, unmarked, .. } = boot_layout(machine);
    if machine.table.kind != TableKind::Gpt {
        return Ok(SystemPartition::There);
    }
    let is_readable = |index: &usize| {
        machine.volumes[*index].fs.as_ref().is_some_and(|fs| fs.info().kind.starts_with("fat"))
    };
    if system.iter().any(is_readable) {
        return Ok(SystemPartition::There);
    }
    if let Some(index) = system.first() {
        return Ok(match &machine.volumes[*index].fs {
            Some(fs) => SystemPartition::NotFat(*index, fs.info().kind),
            None => SystemPartition::NoFileSystem(*index),
        });
    }
    // A partition with the boot files and another type: that is what `system-partition-type` is for.
    if !unmarked.is_empty() {
        return Ok(SystemPartition::There);
    }
    if let Some(lost) = lost_entry(machine)? {
        return Ok(SystemPartition::EntryLost(lost));
    }
    Ok(SystemPartition::Missing(room(machine)))
}

/// Where a new system partition goes: the first gap that is large enough for a usual one, else the largest that will do.
fn room(machine: &Machine) -> Option<Range<u64>> {
    // With sectors of 4096 bytes FAT32 needs 260 MiB.
    let usual: u64 = if machine.table.sector_bytes == 4096 { 260 << 20 } else { 100 << 20 };
    let aligned = gaps(&machine.table, machine.disk.len()).into_iter().filter_map(|gap| {
        let (start, end) = (gap.start.next_multiple_of(ALIGNMENT), gap.end / ALIGNMENT * ALIGNMENT);
        (end > start).then_some(start..end)
    });
    let all: Vec<Range<u64>> = aligned.collect();
    if let Some(gap) = all.iter().find(|gap| gap.end - gap.start >= usual) {
        return Some(gap.start..gap.start + usual);
    }
    all.into_iter().filter(|gap| gap.end - gap.start >= LEAST_BYTES).max_by_key(|gap| gap.end - gap.start)
}

/// A FAT volume with `\EFI` in a place that no partition has.
fn lost_entry(machine: &Machine) -> Result<Option<LostEntry>> {
    let sector = u64::from(machine.table.sector_bytes.max(512));
    let mut left = MAX_PLACES;
    for gap in gaps(&machine.table, machine.disk.len()) {
        // Where Windows puts partitions now, and where it did before Vista.
        let first = gap.start.next_multiple_of(ALIGNMENT);
        let places = [gap.start, 63 * sector].into_iter().chain((first..gap.end).step_by(ALIGNMENT as usize));
        for start in places {
            if left == 0 {
                return Ok(None);
            }
            left -= 1;
            if start < gap.start || start + 512 > gap.end {
                continue;
            }
            if let Some(range) = volume_at(machine, start, gap.end)? {
                let id = known_id(machine, &range, sector)?;
                let (id, number) = id.map_or((None, None), |(id, number, by)| (Some((id, by)), number));
                return Ok(Some(LostEntry { range, id, number }));
            }
        }
    }
    Ok(None)
}

/// The place of the system volume that begins there; whole sectors.
fn volume_at(machine: &Machine, start: u64, end: u64) -> Result<Option<Range<u64>>> {
    let first = machine.disk.read_vec(start, 512)?;
    if !is_fat(&first) {
        return Ok(None);
    }
    // What cannot be opened is no volume that could be put back.
    let Ok(fs) = FatVolume::open(machine.disk.window(start..end)?) else { return Ok(None) };
    let length = fs.info().size_bytes;
    let is_system = matches!(resolve(&fs, &["EFI"]), Ok(Some(_)));
    let sector = u64::from(machine.table.sector_bytes.max(512));
    let whole = start.checked_add(length).map(|end| end.next_multiple_of(sector)).filter(|own| *own <= end);
    Ok(whole.filter(|_| is_system).map(|end| start..end))
}

/// The GUID and number that the partition at `range` had, and who knew them.
fn known_id(
    machine: &Machine,
    range: &Range<u64>,
    sector: u64,
) -> Result<Option<(Guid, Option<u32>, String)>> {
    let Some(disk) = machine.table.disk_id.as_ref().and_then(|id| id.parse::<Guid>().ok()) else {
        return Ok(None);
    };
    for installation in &machine.installations {
        // A hive or log that cannot be read knows nothing; other witnesses are asked.
        if let Ok(hive) = machine.hive(installation, "SYSTEM")
            && let Some((id, number)) = cached_entry(&hive, disk, range)
        {
            return Ok(Some((id, Some(number), "PartitionTableCache in the registry".into())));
        }
        if let Some((id, number)) = measured_entry(machine, installation, range, sector) {
            return Ok(Some((id, Some(number), "the log of a measured boot".into())));
        }
    }
    let fs = FatVolume::open(machine.disk.window(range.clone())?)?;
    Ok(store_entry(machine, &fs, disk).map(|id| (id, None, "the boot store on the volume".into())))
}

/// `PartitionTableCache` of a disk in the registry: laid out as DRIVE_LAYOUT_INFORMATION_EX.
fn cached_entry(hive: &Hive, disk: Guid, range: &Range<u64>) -> Option<(Guid, u32)> {
    let select = hive.key("Select").ok()??.value("Current").ok()??.as_u32()?;
    let buses = hive.key(&format!(r"ControlSet{select:03}\Enum")).ok()??;
    let devices = all(&buses).into_iter().flat_map(|bus| all(&bus)).flat_map(|device| all(&device));
    for device in devices.take(MAX_DEVICES) {
        let notes = device.subkey("Device Parameters").ok().flatten();
        let notes = notes.and_then(|key| key.subkey("Partmgr").ok().flatten());
        let value = notes.and_then(|key| key.value("PartitionTableCache").ok().flatten());
        let Some(data) = value.and_then(|value| value.data().ok()) else { continue };
        if let Some(found) = entry_of_cache(&data, disk, range) {
            return Some(found);
        }
    }
    None
}

/// The keys below, as many as can be read: the others know nothing.
fn all<'h>(key: &Key<'h>) -> Vec<Key<'h>> {
    key.subkeys_lenient().0
}

/// The entry of a cached table that begins where the volume does.
fn entry_of_cache(data: &[u8], disk: Guid, range: &Range<u64>) -> Option<(Guid, u32)> {
    if u32_at(data, 0)? != 1 || Guid::at(data, 8)? != disk {
        return None;
    }
    let entries = data.get(48..)?.chunks_exact(144);
    entries
        .filter(|entry| u32_at(entry, 0) == Some(1) && Guid::at(entry, 32) == Some(EFI_SYSTEM))
        .find(|entry| u64_at(entry, 8) == Some(range.start))
        .and_then(|entry| Some((Guid::at(entry, 48).filter(|id| !id.is_zero())?, u32_at(entry, 24)?)))
}

/// The partition that the firmware started from, by the newest log of a measured boot that names this place: device paths
/// of boot entries hold number, place and GUID (UEFI specification, 10.3.5.1).
fn measured_entry(
    machine: &Machine,
    installation: &Installation,
    range: &Range<u64>,
    sector: u64,
) -> Option<(Guid, u32)> {
    let fs = machine.file_system(installation.volume).ok()?;
    let path = GuestPath::parse(&format!(r"{}\Logs\MeasuredBoot", installation.path)).ok()?;
    let node = machine.resolve(&path).ok()?.1?;
    let mut logs = fs.read_dir(node).ok()?;
    logs.retain(|log| log.size_bytes <= MAX_LOG_BYTES);
    logs.sort_by(|a, b| b.name.cmp(&a.name));
    logs.iter().take(16).find_map(|log| {
        let bytes = read_file(&*fs, log.id, "").ok()?;
        entry_of_log(&bytes, range, sector)
    })
}

fn entry_of_log(bytes: &[u8], range: &Range<u64>, sector: u64) -> Option<(Guid, u32)> {
    // Type 4 (media), subtype 1 (hard drive), length 42; at its end GPT and a GUID.
    let nodes = bytes.windows(42).filter(|node| node[..4] == [4, 1, 42, 0] && node[40..] == [2, 2]);
    nodes
        .filter(|node| u64_at(node, 8) == Some(range.start / sector))
        .find_map(|node| Some((Guid::at(node, 24).filter(|id| !id.is_zero())?, u32_at(node, 4)?)))
}

/// The partition that the boot manager's own entry names.
fn store_entry(machine: &Machine, fs: &dyn FileSystem, disk: Guid) -> Option<Guid> {
    let node = resolve(fs, &["EFI", "Microsoft", "Boot", "BCD"]).ok()??;
    let hive = Hive::parse(read_file(fs, node, "").ok()?).ok()?;
    let store = Store::load(&hive).ok()?;
    let device = store.bootmgr()?.get(0x1100_0001).and_then(Value::as_device)?;
    match device.device() {
        Device::Partition(PartitionRef::Gpt { disk: own, partition }) if *own == disk => {
            let taken = machine.table.partitions.iter().any(|known| known.unique_guid == Some(*partition));
            (!taken && !partition.is_zero()).then_some(*partition)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_the_partition_manager_is_read() {
        let (disk, own) = (Guid::random(), Guid::random());
        let mut data = vec![0; 48 + 2 * 144];
        data[0] = 1;
        data[4] = 2;
        data[8..24].copy_from_slice(&disk.0);
        for (place, kind) in [(0, vmrescue_partition::BASIC_DATA), (1, EFI_SYSTEM)] {
            let at = 48 + place * 144;
            data[at] = 1;
            data[at + 8..at + 16].copy_from_slice(&(1u64 << 20).to_le_bytes());
            data[at + 24] = 3;
            data[at + 32..at + 48].copy_from_slice(&kind.0);
            data[at + 48..at + 64].copy_from_slice(&own.0);
        }
        let range = 1 << 20..2 << 20;
        assert_eq!(entry_of_cache(&data, disk, &range), Some((own, 3)));
        assert_eq!(entry_of_cache(&data, Guid::random(), &range), None);
        assert_eq!(entry_of_cache(&data, disk, &(2 << 20..3 << 20)), None);
        assert_eq!(entry_of_cache(&data[..100], disk, &range), None);
    }

    #[test]
    fn device_paths_in_a_log_are_read() {
        let own = Guid::random();
        let mut log = vec![7; 100];
        let mut node = vec![4, 1, 42, 0, 2, 0, 0, 0];
        node.extend(2048u64.to_le_bytes());
        node.extend(4096u64.to_le_bytes());
        node.extend(own.0);
        node.extend([2, 2]);
        log.extend(&node);
        log.extend([9; 50]);
        assert_eq!(entry_of_log(&log, &(1 << 20..3 << 20), 512), Some((own, 2)));
        assert_eq!(entry_of_log(&log, &(2 << 20..3 << 20), 512), None);
        assert_eq!(entry_of_log(&log[..120], &(1 << 20..3 << 20), 512), None);
    }
}
