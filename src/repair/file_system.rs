//! Repair and making of file systems: tried on a scratch overlay by `fs::ntfs`, and what differs there becomes one change.

use super::change::Change;
use super::sectors::{Writes, scratch};
use super::volumes::Discard;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_fs::ntfs;
use vmrescue_windows::Machine;

fn length(writes: &Writes) -> u64 {
    writes.iter().map(|(_, data)| data.len() as u64).sum()
}

/// An empty NTFS volume over a partition.
///
/// # Errors
/// `Refused` when something is there that is known, without `force`; of [`ntfs::format`]; `NotFound` for volumes that are not there.
pub fn format_volume(
    machine: &Machine,
    number: u32,
    spec: &ntfs::FormatSpec,
    force: bool,
) -> Result<Vec<Change>> {
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
    let sector = u64::from(machine.table.sector_bytes.max(512));
    let hidden_sectors = u32::try_from(volume.range.start / sector).unwrap_or(0);
    let spec = ntfs::FormatSpec { hidden_sectors, ..spec.clone() };
    let range = volume.range.clone();
    let writes = scratch(&machine.disk, |disk| ntfs::format(&disk.window(range)?, &spec))?;
    let window = machine.disk.window(volume.range.clone())?;
    let cluster =
        spec.cluster_bytes.map_or("clusters as Windows chooses".into(), |n| format!("clusters of {n} bytes"));
    let what = format!("NTFS {:?}, {cluster}, {} bytes", spec.label, window.len());
    Ok(vec![Change::VolumeFormat { volume: number, what, bytes: length(&writes), writes }])
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
    if kind != Some("ntfs") {
        return Err(Error::unsupported(Layer::FileSystem, "only NTFS volumes are mended")
            .found(kind.unwrap_or("no file system that is known")));
    }
    let mut mended = ntfs::Mended::default();
    let range = volume.range.clone();
    let writes = scratch(&machine.disk, |disk| {
        mended = ntfs::mend(&disk.window(range)?, discard.into(), progress)?;
        Ok(())
    })?;
    if writes.is_empty() {
        return Ok(None);
    }
    let bytes = length(&writes);
    let left = mended.left.iter().map(ToString::to_string).collect();
    Ok(Some(Change::FileSystemRepair { volume: number, repairs: mended.done, left, bytes, writes }))
}

/// The repairs of all NTFS volumes of a disk.
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
        if volume.fs.as_ref().is_some_and(|fs| fs.info().kind == "ntfs") {
            let repair = repair_file_system(machine, volume.number, discard, progress);
            changes.extend(repair.map_err(|e| e.context(format!("volume {}", volume.number)))?);
        }
    }
    Ok(changes)
}
