//! The metadata region ([MS-VHDX] 2.6): sizes, identity, and the parent locator.

use super::format::*;
use super::header::Regions;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::text::{utf16le_bytes, utf16le_lossy};
use vmrescue_block::{Disk, DiskMut};

pub(super) const TABLE_BYTES: u32 = 64 << 10;
pub(super) const IS_REQUIRED: u32 = 4;
pub(super) const IS_VIRTUAL_DISK: u32 = 2;
pub(super) const IS_USER: u32 = 1;

/// What the known items say.
#[derive(Debug, Clone, Default)]
pub(super) struct Metadata {
    pub(super) block_bytes: u64,
    pub(super) leave_allocated: bool,
    pub(super) has_parent: bool,
    pub(super) disk_bytes: u64,
    pub(super) disk_id: Option<Guid>,
    pub(super) logical_sector_bytes: u32,
    pub(super) physical_sector_bytes: u32,
    /// Keys and values of the parent locator.
    locator: Vec<(String, String)>,
}

impl Metadata {
    fn located(&self, key: &str) -> Option<String> {
        self.locator.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, value)| value.clone())
    }

    pub(super) fn parent_hints(&self) -> Vec<String> {
        ["relative_path", "volume_path", "absolute_win32_path"]
            .into_iter()
            .filter_map(|key| self.located(key))
            .collect()
    }

    pub(super) fn parent_linkage(&self) -> Option<String> {
        let linkage = self.located("parent_linkage")?;
        Some(linkage.trim_matches(['{', '}']).to_ascii_lowercase())
    }
}

fn parse_locator(item: &[u8]) -> Option<Vec<(String, String)>> {
    let count = u16_at(item, 18)?;
    (0..usize::from(count))
        .map(|i| {
            let at = 20 + i * 12;
            let text = |offset: usize, length: usize| -> Option<String> {
                let (offset, length) = (u32_at(item, offset)? as usize, usize::from(u16_at(item, length)?));
                Some(utf16le_lossy(slice_at(item, offset, length)?))
            };
            Some((text(at, at + 8)?, text(at + 4, at + 10)?))
        })
        .collect()
}

/// Reads the region.
pub(super) fn read(file: &Disk, regions: &Regions) -> Result<Metadata> {
    let start = regions.metadata.start;
    let length = (regions.metadata.end - start).min(16 << 20) as usize;
    let region = file.read_vec(start, length)?;
    let broken = |what: &str| Error::damaged(Layer::Vhdx, format!("metadata: {what}")).at(start);
    if region.get(..8) != Some(b"metadata") {
        return Err(broken("no signature"));
    }
    let count = usize::from(u16_at(&region, 10).unwrap_or(0)).min(2047);
    let mut metadata = Metadata::default();
    for at in (0..count).map(|i| 32 + i * 32) {
        let number = |place| u32_at(&region, place).unwrap_or_default();
        let id = Guid::at(&region, at).ok_or_else(|| broken("the table is cut off"))?;
        let (offset, length, flags) = (number(at + 16), number(at + 20), number(at + 24));
        let item = slice_at(&region, offset as usize, length as usize)
            .ok_or_else(|| broken("an item lies outside the region").found(id))?;
        let value32 = u32_at(item, 0).unwrap_or_default();
        match id {
            // Items of users may have any identifier, and tell nothing of the disk.
            _ if flags & IS_USER != 0 => {}
            FILE_PARAMETERS => {
                metadata.block_bytes = u64::from(value32);
                let bits = u32_at(item, 4).unwrap_or_default();
                metadata.leave_allocated = bits & 1 != 0;
                metadata.has_parent = bits & 2 != 0;
            }
            VIRTUAL_DISK_SIZE => metadata.disk_bytes = u64_at(item, 0).unwrap_or_default(),
            VIRTUAL_DISK_ID => metadata.disk_id = Guid::at(item, 0),
            LOGICAL_SECTOR_SIZE => metadata.logical_sector_bytes = value32,
            PHYSICAL_SECTOR_SIZE => metadata.physical_sector_bytes = value32,
            PARENT_LOCATOR => {
                metadata.locator =
                    parse_locator(item).ok_or_else(|| broken("the parent locator is cut off"))?;
            }
            _ if flags & IS_REQUIRED != 0 => {
                return Err(Error::unsupported(Layer::Vhdx, "a required metadata item is not known")
                    .at(start + at as u64)
                    .found(id));
            }
            _ => {}
        }
    }
    metadata.validated(&broken)
}

impl Metadata {
    fn validated(mut self, broken: &dyn Fn(&str) -> Error) -> Result<Metadata> {
        let block = self.block_bytes;
        if !block.is_power_of_two() || !(ALIGN..=256 << 20).contains(&block) {
            return Err(broken("block size").expected("a power of two from 1 to 256 MiB").found(block));
        }
        if !matches!(self.logical_sector_bytes, 512 | 4096) {
            return Err(broken("logical sector size")
                .expected("512 or 4096")
                .found(self.logical_sector_bytes));
        }
        if self.physical_sector_bytes == 0 {
            self.physical_sector_bytes = self.logical_sector_bytes;
        }
        let size = self.disk_bytes;
        if size == 0
            || size > vmrescue_base::limits::MAX_DISK_BYTES
            || !size.is_multiple_of(u64::from(self.logical_sector_bytes))
        {
            return Err(broken("virtual disk size").expected("whole sectors, at most 64 TiB").found(size));
        }
        Ok(self)
    }
}

/// Changes the length of the disk in the metadata region.
pub(super) fn set_disk_bytes(file: &DiskMut, regions: &Regions, size: u64) -> Result<()> {
    let start = regions.metadata.start;
    let table = file.as_disk().read_vec(start, TABLE_BYTES as usize)?;
    let count = usize::from(u16_at(&table, 10).unwrap_or(0)).min(2047);
    for at in (0..count).map(|i| 32 + i * 32) {
        if Guid::at(&table, at) == Some(VIRTUAL_DISK_SIZE) {
            let offset = u32_at(&table, at + 16).unwrap_or_default();
            return file.write_at(start + u64::from(offset), &size.to_le_bytes());
        }
    }
    Err(Error::damaged(Layer::Vhdx, "the metadata has no disk size").at(start))
}

/// What a new file says.
pub(crate) struct NewMetadata<'a> {
    pub(crate) block_bytes: u64,
    pub(crate) fixed: bool,
    pub(crate) disk_bytes: u64,
    pub(crate) logical_sector_bytes: u32,
    pub(crate) physical_sector_bytes: u32,
    /// Identity of the disk as the guest sees it; a child has its parent's.
    pub(crate) disk_id: Guid,
    /// Keys and values that lead to the parent; empty for a disk of its own.
    pub(crate) locator: &'a [(&'a str, String)],
}

fn locator_item(entries: &[(&str, String)]) -> Vec<u8> {
    let mut head = LOCATOR_TYPE.0.to_vec();
    head.extend([0, 0]);
    head.extend((entries.len() as u16).to_le_bytes());
    let (mut text, first) = (Vec::new(), 20 + 12 * entries.len());
    for (key, value) in entries {
        let (key, value) = (utf16le_bytes(key), utf16le_bytes(value));
        let place = (first + text.len()) as u32;
        head.extend(place.to_le_bytes());
        head.extend((place + key.len() as u32).to_le_bytes());
        head.extend((key.len() as u16).to_le_bytes());
        head.extend((value.len() as u16).to_le_bytes());
        text.extend(key);
        text.extend(value);
    }
    head.extend(text);
    head
}

/// Writes the metadata region of a new file.
pub(crate) fn new_metadata(file: &DiskMut, start: u64, new: &NewMetadata<'_>) -> Result<()> {
    let bits = u32::from(new.fixed) | u32::from(!new.locator.is_empty()) << 1;
    let parameters = [(new.block_bytes as u32).to_le_bytes(), bits.to_le_bytes()].concat();
    let mut items = vec![
        (FILE_PARAMETERS, parameters, IS_REQUIRED),
        (VIRTUAL_DISK_SIZE, new.disk_bytes.to_le_bytes().to_vec(), IS_REQUIRED | IS_VIRTUAL_DISK),
        (VIRTUAL_DISK_ID, new.disk_id.0.to_vec(), IS_REQUIRED | IS_VIRTUAL_DISK),
        (LOGICAL_SECTOR_SIZE, new.logical_sector_bytes.to_le_bytes().to_vec(), IS_REQUIRED | IS_VIRTUAL_DISK),
        (
            PHYSICAL_SECTOR_SIZE,
            new.physical_sector_bytes.to_le_bytes().to_vec(),
            IS_REQUIRED | IS_VIRTUAL_DISK,
        ),
    ];
    if !new.locator.is_empty() {
        items.push((PARENT_LOCATOR, locator_item(new.locator), IS_REQUIRED));
    }
    let mut table = vec![0; 32 + 32 * items.len()];
    table[..8].copy_from_slice(b"metadata");
    table[10] = items.len() as u8;
    let mut offset = TABLE_BYTES;
    for (entry, (id, item, flags)) in table[32..].chunks_exact_mut(32).zip(&items) {
        entry[..16].copy_from_slice(&id.0);
        entry[16..20].copy_from_slice(&offset.to_le_bytes());
        entry[20..24].copy_from_slice(&(item.len() as u32).to_le_bytes());
        entry[24..28].copy_from_slice(&flags.to_le_bytes());
        file.write_at(start + u64::from(offset), item)?;
        offset += (item.len() as u32).next_multiple_of(8);
    }
    file.write_at(start, &table)
}
