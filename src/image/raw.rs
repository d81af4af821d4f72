//! The disk byte for byte: what `dd` writes, and every attached disk.

use super::{Container, ContainerInfo, Format, Variant};
use crate::block::{Disk, DiskMut};
use crate::error::Result;

pub(super) fn info(file: &Disk) -> ContainerInfo {
    let geometry = file.geometry();
    ContainerInfo {
        format: Format::Raw,
        variant: Variant::Raw,
        size: geometry.length_bytes,
        file_size: geometry.length_bytes,
        block_bytes: None,
        logical_sector_bytes: geometry.logical_sector_bytes,
        physical_sector_bytes: geometry.physical_sector_bytes,
        identity: None,
        content_identity: None,
        creator: None,
        log_replayed: false,
        parent_hints: Vec::new(),
        parent_identity: None,
        parent: None,
    }
}

pub(super) fn open(file: &Disk) -> Result<Container<Disk>> {
    Ok(Container { disk: file.clone(), info: info(file), defects: Vec::new() })
}

pub(super) fn open_mut(file: &DiskMut) -> Result<Container<DiskMut>> {
    Ok(Container { disk: file.clone(), info: info(&file.as_disk()), defects: Vec::new() })
}
