//! Repair and making of file systems: tried on a scratch overlay by `fs::ntfs` and `fs::fat`, and what differs there becomes one change.

use super::change::Change;
use super::sectors::{Writes, scratch};
use super::volumes::Discard;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_fs::{fat, ntfs};
use vmrescue_partition::EFI_SYSTEM;
use vmrescue_windows::Machine;

fn length(writes: &Writes) -> u64 {
    writes.iter().map(|(_, data)| data.len() as u64).sum()
}

/// Which file system is made.
#[derive(Debug, Clone)]
pub enum Making {
    /// FAT12, FAT16 or FAT32.
    Fat(fat::FormatSpec),
    /// NTFS.
    Ntfs(ntfs::FormatSpec),
}

/// An empty file system over a partition. An EFI system partition gets FAT, whatever is asked for without `force`: firmware reads
/// nothing else.
///
/// # Errors
/// `Refused` when something is there that is known, without `force`; of [`ntfs::format`] and [`fat::format`]; `NotFound` for volumes
/// that are not there.
pub fn format_volume(machine: &Machine, number: u32, making: &Making, force: bool) -> Result<Vec<Change>> {
    let missing = || Error::not_found(Layer::FileSystem, format!("no volume {number}"));
    let volume = machine.volumes.iter().find(|volume| volume.number == number).ok_or_else(missing)?;
    if volume.bitlocker.as_ref().is_some_and(|bitlocker| !bitlocker.locked) {
        return Err(Error::refused(Layer::BitLocker, format!("volume {number} is BitLocker's and open"))
            .advice("a new file system inside would overwrite BitLocker's metadata: give no key, and it replaces BitLocker too"));
    }
    let first = machine.disk.read_vec(volume.range.start, 512)?;
    let there = match &volume.fs {
        Some(fs) => Some(format!("{} {:?}", fs.info().kind, fs.info().label)),
        None if !vmrescue_base::bytes::is_zero(&first) => Some("something that is not known".into()),
        None => None,
    };
    if let Some(there) = there.filter(|_| !force) {
        return Err(Error::refused(Layer::FileSystem, format!("volume {number} is not empty"))
            .found(there)
            .advice("add --force to lose what is on it"));
    }
    let sector = machine.table.sector_bytes.max(512);
    let hidden_sectors = u32::try_from(volume.range.start / u64::from(sector)).unwrap_or(0);
    let is_system = volume.partition.as_ref().is_some_and(|p| p.type_guid == Some(EFI_SYSTEM));
    let making = match making {
        Making::Ntfs(spec) if is_system && !force => Making::Fat(fat::FormatSpec {
            label: spec.label.clone(),
            serial: spec.serial as u32,
            created: spec.created,
            ..fat::FormatSpec::default()
        }),
        Making::Ntfs(spec) => Making::Ntfs(ntfs::FormatSpec { hidden_sectors, ..spec.clone() }),
        Making::Fat(spec) => Making::Fat(spec.clone()),
    };
    let length = volume.range.end - volume.range.start;
    let cluster = |bytes: Option<u32>| {
        bytes.map_or("clusters as Windows chooses".into(), |n| format!("clusters of {n} bytes"))
    };
    let range = volume.range.clone();
    let mut what = String::new();
    let writes = scratch(&machine.disk, |disk| {
        let window = disk.window(range)?;
        what = match &making {
            Making::Ntfs(spec) => {
                ntfs::format(&window, spec)?;
                format!("NTFS {:?}, {}, {length} bytes", spec.label, cluster(spec.cluster_bytes))
            }
            Making::Fat(spec) => {
                // The old copy of a boot sector of NTFS would be taken for the volume's, when the new one is damaged one day.
                window.zero_at(length - u64::from(sector)..length)?;
                let spec = fat::FormatSpec { hidden_sectors, ..spec.clone() };
                let made = fat::format(&window, &spec)?;
                let kind = made.kind.name().to_ascii_uppercase();
                let why = if is_system { ", which the firmware reads" } else { "" };
                let few = made.few_clusters.map_or(String::new(), |n| {
                    format!(", {n} clusters (the specification wants 65,525; mtools and TSK will take it for FAT16)")
                });
                format!("{kind}{why}, {:?}, {}{few}, {length} bytes", spec.label, cluster(spec.cluster_bytes))
            }
        };
        Ok(())
    })?;
    Ok(vec![Change::VolumeFormat { volume: number, what, bytes: self::length(&writes), writes }])
}

/// The repair of one volume; none when nothing is to be done.
///
/// # Errors
/// Of [`ntfs::mend`]: `Refused` when something is damaged that has no one right answer; `NotFound` for volumes that are not there.
pub fn repair_file_system(
    machine: &Machine,
    number: u32,
    discard: Discard,
    progress: &dyn Progress,
) -> Result<Option<Change>> {
    let missing = || Error::not_found(Layer::FileSystem, format!("no volume {number}"));
    let volume = machine.volumes.iter().find(|volume| volume.number == number).ok_or_else(missing)?;
    let kind = volume.fs.as_ref().map(|fs| fs.info().kind);
    let is_fat = match kind {
        Some("ntfs") => false,
        Some(kind) if kind.starts_with("fat") => true,
        other => {
            return Err(Error::unsupported(Layer::FileSystem, "only NTFS and FAT volumes are repaired")
                .found(other.unwrap_or("no file system that is known")));
        }
    };
    let mut mended = ntfs::Mended::default();
    let range = volume.range.clone();
    let writes = scratch(&machine.disk, |disk| {
        let window = disk.window(range)?;
        mended = if is_fat {
            fat::mend(&window, progress)?
        } else {
            ntfs::mend(&window, discard.into(), progress)?
        };
        Ok(())
    })?;
    if writes.is_empty() {
        return Ok(None);
    }
    let bytes = length(&writes);
    let left = mended.left.iter().map(ToString::to_string).collect();
    Ok(Some(Change::FileSystemRepair { volume: number, repairs: mended.done, left, bytes, writes }))
}

/// The repairs of all NTFS and FAT volumes of a disk.
///
/// # Errors
/// As [`repair_file_system`].
pub fn repair_file_systems(
    machine: &Machine,
    discard: Discard,
    progress: &dyn Progress,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for volume in &machine.volumes {
        if volume.fs.is_some() {
            let repair = repair_file_system(machine, volume.number, discard, progress);
            changes.extend(repair.map_err(|e| e.context(format!("volume {}", volume.number)))?);
        }
    }
    Ok(changes)
}
