//! The disk byte for byte: what `dd` writes, and every attached disk.

use super::{Container, ContainerInfo, Format, Variant};
use vmrescue_base::error::Result;
use vmrescue_block::{Disk, DiskMut};

pub(super) fn info(file: &Disk) -> ContainerInfo {
    let geometry = file.geometry();
    ContainerInfo {
        logical_sector_bytes: geometry.logical_sector_bytes,
        physical_sector_bytes: geometry.physical_sector_bytes,
        ..ContainerInfo::new(Format::Raw, Variant::Raw, geometry.length_bytes, geometry.length_bytes)
    }
}

pub(super) fn open(file: &Disk) -> Result<Container<Disk>> {
    Ok(Container { disk: file.clone(), info: info(file), defects: Vec::new() })
}

pub(super) fn open_mut(file: &DiskMut) -> Result<Container<DiskMut>> {
    Ok(Container { disk: file.clone(), info: info(&file.as_disk()), defects: Vec::new() })
}
