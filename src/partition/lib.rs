//! Partition tables: GPT (both copies) and MBR (primary and logical partitions), read leniently; new tables for the demo
//! and for tests.
//!
//! Missing: dynamic disks (LDM).

mod gpt;
mod mbr;
#[cfg(test)]
mod tests;

pub use gpt::{Entry, add_to_gpt, repair_gpt, write_gpt};
pub use mbr::write_mbr;

use serde::Serialize;
use std::ops::Range;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::guid::Guid;
use vmrescue_block::{Disk, DiskMut};

/// Kind of partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
    /// None: the disk is one volume, or empty.
    None,
}

/// One partition.
#[derive(Debug, Clone)]
pub struct Partition {
    /// As Windows counts them: from 1, in the order of the table; logical partitions after the primary ones.
    pub number: u32,
    /// Where it lies, in bytes.
    pub range: Range<u64>,
    /// What its type means, for people.
    pub type_name: String,
    /// GPT: the type.
    pub type_guid: Option<Guid>,
    /// MBR: the type.
    pub mbr_type: Option<u8>,
    /// GPT: the partition's own GUID.
    pub unique_guid: Option<Guid>,
    /// GPT: the name.
    pub name: String,
    /// MBR: marked as the one to boot from.
    pub active: bool,
    /// GPT: attribute bits.
    pub attributes: u64,
}

impl Partition {
    /// Attributes of a GPT partition that change how Windows uses it, in words ([MS-DOCS] PARTITION_INFORMATION_GPT).
    pub fn attribute_names(&self) -> Vec<&'static str> {
        const NAMES: [(u32, &str); 6] = [
            (0, "required"),
            (2, "legacy BIOS bootable"),
            (60, "read-only"),
            (61, "shadow copy"),
            (62, "hidden"),
            (63, "no drive letter"),
        ];
        NAMES.iter().filter(|(bit, _)| self.attributes >> bit & 1 == 1).map(|(_, name)| *name).collect()
    }

    /// The set of disks that the partition says its disk is a member of: what one disk holds then says nothing of the whole.
    pub fn member_of(&self) -> Option<&'static str> {
        const LDM_METADATA: Guid =
            Guid::from_fields(0x5808_c8aa, 0x7e8f, 0x42e0, [0x85, 0xd2, 0xe1, 0xe9, 0x04, 0x34, 0xcf, 0xb3]);
        const LDM_DATA: Guid =
            Guid::from_fields(0xaf9b_60a0, 0x1431, 0x4f62, [0xbc, 0x68, 0x33, 0x11, 0x71, 0x4a, 0x69, 0xad]);
        const SPACES: Guid =
            Guid::from_fields(0xe75c_af8f, 0xf680, 0x4cee, [0xaf, 0xa3, 0xb0, 0x01, 0xe5, 0x6e, 0xfc, 0x2d]);
        match (self.mbr_type, self.type_guid) {
            (Some(0x42), _) | (_, Some(LDM_METADATA | LDM_DATA)) => Some("a set of dynamic disks (LDM)"),
            (_, Some(SPACES)) => Some("a storage pool (Storage Spaces)"),
            _ => None,
        }
    }
}

/// A partition table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Kind.
    pub kind: TableKind,
    /// GPT: disk GUID; MBR: the signature in hexadecimal digits.
    pub disk_id: Option<String>,
    /// Sectors in which the table counts.
    pub sector_bytes: u32,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
    /// What is wrong but readable.
    pub defects: Vec<Defect>,
}

/// One partition of a new table.
#[derive(Debug, Clone)]
pub struct NewPartition {
    /// GPT type.
    pub type_guid: Guid,
    /// MBR type.
    pub mbr_type: u8,
    /// Where it lies, in bytes; whole sectors.
    pub range: Range<u64>,
    /// GPT name.
    pub name: String,
    /// MBR: boot from this one.
    pub active: bool,
}

/// Type of an EFI system partition.
pub const EFI_SYSTEM: Guid =
    Guid::from_fields(0xc12a_7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);
/// Type of the Microsoft reserved partition.
pub const MICROSOFT_RESERVED: Guid =
    Guid::from_fields(0xe3c9_e316, 0x0b5c, 0x4db8, [0x81, 0x7d, 0xf9, 0x2d, 0xf0, 0x02, 0x15, 0xae]);
/// Type of a volume with data.
pub const BASIC_DATA: Guid =
    Guid::from_fields(0xebd0_a0a2, 0xb9e5, 0x4433, [0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7]);
/// Type of a Windows recovery partition.
pub const RECOVERY: Guid =
    Guid::from_fields(0xde94_bba4, 0x06d1, 0x4d40, [0xa1, 0x6a, 0xbf, 0xd5, 0x01, 0x79, 0xd6, 0xac]);

/// Reads the partition table of a disk. A disk without one gives [`TableKind::None`].
///
/// # Errors
/// Of reading the disk, and when both copies of a GPT are damaged.
pub fn read(disk: &Disk) -> Result<Table> {
    let sector_bytes = disk.geometry().logical_sector_bytes;
    let none = Table {
        kind: TableKind::None,
        disk_id: None,
        sector_bytes,
        partitions: Vec::new(),
        defects: Vec::new(),
    };
    if disk.len() < 512 {
        return Ok(none);
    }
    let boot = disk.read_vec(0, 512)?;
    let is_boot_sector = matches!(&boot[3..8], b"NTFS " | b"MSDOS" | b"EXFAT" | b"-FVE-" | b"MSWIN")
        || &boot[82..87] == b"FAT32"
        // Programs that partition a disk may leave the code of an older boot sector where it is.
        || &boot[54..57] == b"FAT" && !mbr::is_table(&boot);
    let marked = boot[510..] == [0x55, 0xaa];
    // The disk's own sector size first; images of 4Kn disks in raw files do not say.
    let other = if sector_bytes == 512 { 4096 } else { 512 };
    for sector in [sector_bytes, other] {
        let Some(mut table) = gpt::read(disk, sector)? else { continue };
        if marked && mbr::protects(&boot) {
            return Ok(table);
        }
        // A record with partitions of its own is the table: what is left of a GPT was not cleared when the disk was made anew.
        if marked && !is_boot_sector && mbr::is_partitioned(&boot) {
            let mut table = mbr::read(disk, sector_bytes)?;
            let text = "an older GPT is still on the disk; the master boot record counts";
            table.defects.push(Defect::new("gpt-stale", Severity::Note, Layer::Gpt, u64::from(sector), text));
            return Ok(table);
        }
        let text = "the first sector is no protective MBR: firmware and Windows take the disk for one without a partition table";
        table.defects.push(Defect::new("gpt-not-protected", Severity::Error, Layer::Gpt, 0, text));
        return Ok(table);
    }
    if marked && mbr::protects(&boot) {
        return Err(Error::damaged(
            Layer::Gpt,
            "the disk is marked as GPT, but both copies of the table are damaged",
        )
        .at(u64::from(sector_bytes)));
    }
    if marked && !is_boot_sector { mbr::read(disk, sector_bytes) } else { Ok(none) }
}

/// Stands for the table of a disk that is marked as GPT and has no copy of it left; `why` is its defect.
pub fn lost_gpt(disk: &Disk, why: &Error) -> Table {
    Table {
        kind: TableKind::Gpt,
        disk_id: None,
        sector_bytes: disk.geometry().logical_sector_bytes,
        partitions: Vec::new(),
        defects: vec![Defect::from_error("gpt-lost", Severity::Error, why)],
    }
}

/// Marks a primary partition of an MBR disk as the one to start from. The signature and the boot code stay.
///
/// # Errors
/// `Invalid` for other disks and for logical partitions; `NotFound`.
pub fn set_active(disk: &DiskMut, number: u32) -> Result<()> {
    match read(&disk.as_disk())?.kind {
        TableKind::Mbr => mbr::set_active(disk, number),
        _ => Err(Error::invalid(Layer::Mbr, "only partitions of an MBR disk are active or not")
            .advice("a GPT disk starts from the partition of type EFI system: `partition set-type`")),
    }
}

/// Gives a partition another type: `efi`, `basic`, `recovery`, `reserved` or a GUID; two hexadecimal digits on an MBR disk.
///
/// # Errors
/// `Invalid` for unknown types; `NotFound`.
pub fn set_type(disk: &DiskMut, number: u32, name: &str) -> Result<()> {
    let bad = || Error::invalid(Layer::Gpt, "unknown partition type").found(name);
    if read(&disk.as_disk())?.kind == TableKind::Mbr {
        let digits = name.strip_prefix("0x").unwrap_or(name);
        return mbr::set_type(disk, number, u8::from_str_radix(digits, 16).map_err(|_| bad())?);
    }
    let guid = match name.to_ascii_lowercase().as_str() {
        "efi" => EFI_SYSTEM,
        "basic" => BASIC_DATA,
        "recovery" => RECOVERY,
        "reserved" => MICROSOFT_RESERVED,
        other => other.parse().map_err(|_| bad())?,
    };
    gpt::set_type(disk, number, &guid)
}

/// Bits of a GPT partition's attributes that keep Windows from using it as its own: read-only and hidden.
pub const HIDING_ATTRIBUTES: u64 = 1 << 60 | 1 << 62;

/// Takes the attributes `bits` from a partition of a GPT disk.
///
/// # Errors
/// `Invalid` for other disks; `NotFound`.
pub fn clear_attributes(disk: &DiskMut, number: u32, bits: u64) -> Result<()> {
    match read(&disk.as_disk())?.kind {
        TableKind::Gpt => gpt::clear_attributes(disk, number, bits),
        TableKind::Mbr | TableKind::None => {
            Err(Error::invalid(Layer::Gpt, "only partitions of a GPT disk have attributes"))
        }
    }
}

/// Adds a partition to a table that is there: on a GPT disk as [`add_to_gpt`] does, on an MBR disk in the first free entry. Its number.
///
/// # Errors
/// `Invalid` when it does not fit between the others, or the disk has no table; `NoSpace` when the table is full.
pub fn add(disk: &DiskMut, entry: &Entry) -> Result<u32> {
    match read(&disk.as_disk())?.kind {
        TableKind::Gpt => {
            repair_gpt(disk)?;
            let numbers = add_to_gpt(disk, None, std::slice::from_ref(entry))?;
            numbers
                .first()
                .copied()
                .ok_or_else(|| Error::not_found(Layer::Gpt, "the partition was not added"))
        }
        TableKind::Mbr => mbr::add(disk, &entry.new),
        TableKind::None => Err(Error::invalid(Layer::Gpt, "the disk has no partition table")),
    }
}

/// Parts of the disk that no partition takes, in order, without the places of the tables.
pub fn gaps(table: &Table, disk_bytes: u64) -> Vec<Range<u64>> {
    let sector = u64::from(table.sector_bytes.max(512));
    let front = match table.kind {
        TableKind::Gpt => 2 * sector + 16_384.max(sector),
        _ => sector,
    };
    let back = if table.kind == TableKind::Gpt { 16_384 + sector } else { 0 };
    let mut taken: Vec<Range<u64>> = table.partitions.iter().map(|p| p.range.clone()).collect();
    taken.sort_by_key(|range| range.start);
    let end = disk_bytes.saturating_sub(back) / sector * sector;
    let (mut at, mut found) = (front, Vec::new());
    for range in taken.into_iter().chain(std::iter::once(end..end)) {
        if range.start > at {
            found.push(at..range.start);
        }
        at = at.max(range.end);
    }
    found
}
