//! The master boot record, with extended partitions as Windows and DOS chain them.

use super::{NewPartition, Partition, Table, TableKind};
use std::ops::Range;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::limits::MAX_LOGICAL_PARTITIONS;
use vmrescue_block::{Disk, DiskMut};

const TABLE: usize = 446;
const PROTECTIVE: u8 = 0xee;

struct Entry {
    kind: u8,
    active: bool,
    first: u64,
    count: u64,
}

fn entries(sector: &[u8]) -> Vec<Entry> {
    (0..4)
        .filter_map(|i| {
            let at = TABLE + i * 16;
            let (first, count) = (u32_at(sector, at + 8)?, u32_at(sector, at + 12)?);
            let kind = *sector.get(at + 4)?;
            let active = *sector.get(at)? == 0x80;
            Some(Entry { kind, active, first: u64::from(first), count: u64::from(count) })
        })
        .collect()
}

/// True when the record only guards a GPT.
pub(super) fn protects(sector: &[u8]) -> bool {
    entries(sector).iter().any(|entry| entry.kind == PROTECTIVE)
}

/// True when the record has partitions of its own: none begins in the first sector, where the one that only guards a GPT does.
pub(super) fn is_partitioned(sector: &[u8]) -> bool {
    is_table(sector) && entries(sector).iter().any(|entry| entry.kind != 0 && entry.first > 1)
}

/// True when the sector holds a table that says something: flags that can be, and a partition.
pub(super) fn is_table(sector: &[u8]) -> bool {
    let flags = (0..4).all(|i| matches!(sector.get(TABLE + i * 16), Some(0 | 0x80)));
    flags && entries(sector).iter().any(|entry| entry.kind != 0 && entry.first != 0 && entry.count != 0)
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

fn type_name(kind: u8) -> String {
    match kind {
        0x01 | 0x04 | 0x06 | 0x0e => "FAT".into(),
        0x07 => "NTFS or exFAT".into(),
        0x0b | 0x0c => "FAT32".into(),
        0x27 => "Recovery".into(),
        0x42 => "Dynamic disk".into(),
        0x82 => "Linux swap".into(),
        0x83 => "Linux".into(),
        0xef => "EFI system".into(),
        kind => format!("type {kind:#04x}"),
    }
}

/// Reads the table.
pub(super) fn read(disk: &Disk, sector_bytes: u32) -> Result<Table> {
    let sector = u64::from(sector_bytes);
    let boot = disk.read_vec(0, 512)?;
    let mut table = Table {
        kind: TableKind::Mbr,
        disk_id: u32_at(&boot, 440).map(|signature| format!("{signature:08x}")),
        sector_bytes,
        partitions: Vec::new(),
        defects: Vec::new(),
    };
    let mut extended = None;
    for entry in entries(&boot).into_iter().filter(|entry| entry.kind != 0 && entry.count != 0) {
        if is_extended(entry.kind) {
            extended = extended.or(Some(entry.first..entry.first + entry.count));
        } else {
            push(&mut table, disk, &entry, 0, sector);
        }
    }
    if let Some(extended) = extended {
        read_logical(&mut table, disk, &extended, sector);
    }
    Ok(table)
}

fn push(table: &mut Table, disk: &Disk, entry: &Entry, base: u64, sector: u64) {
    let start = (base + entry.first) * sector;
    let end = start + entry.count * sector;
    let number = table.partitions.len() as u32 + 1;
    if end > disk.len() || start == 0 {
        let text = format!("partition {number} lies outside the disk");
        table.defects.push(Defect::new("mbr-partition-outside", Severity::Error, Layer::Mbr, start, text));
        return;
    }
    table.partitions.push(Partition {
        number,
        range: start..end,
        type_name: type_name(entry.kind),
        type_guid: None,
        mbr_type: Some(entry.kind),
        unique_guid: None,
        name: String::new(),
        active: entry.active,
        attributes: 0,
    });
}

/// Follows the chain of extended boot records: places are relative to the extended partition, logical partitions to
/// their own record.
fn read_logical(table: &mut Table, disk: &Disk, extended: &Range<u64>, sector: u64) {
    let mut record = extended.start;
    for _ in 0..MAX_LOGICAL_PARTITIONS {
        let bytes = match disk.read_vec(record * sector, 512) {
            Ok(bytes) if bytes[510..] == [0x55, 0xaa] => bytes,
            _ => {
                let text = "the chain of logical partitions is broken";
                let at = record.saturating_mul(sector);
                table.defects.push(Defect::new("mbr-chain-broken", Severity::Error, Layer::Mbr, at, text));
                return;
            }
        };
        let found = entries(&bytes);
        if let Some(entry) = found.iter().find(|entry| entry.kind != 0 && !is_extended(entry.kind)) {
            push(table, disk, entry, record, sector);
        }
        match found.iter().find(|entry| is_extended(entry.kind) && entry.first != 0) {
            Some(next) => record = extended.start + next.first,
            None => return,
        }
    }
    let text = "the chain of logical partitions does not end";
    table.defects.push(Defect::new("mbr-chain-loop", Severity::Error, Layer::Mbr, record * sector, text));
}

fn with_entry(bytes: &mut [u8], i: usize, kind: u8, active: bool, first: u32, count: u32) {
    let entry = &mut bytes[TABLE + i * 16..TABLE + i * 16 + 16];
    entry[0] = if active { 0x80 } else { 0 };
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = kind;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&first.to_le_bytes());
    entry[12..16].copy_from_slice(&count.to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// The record that keeps old tools away from a GPT of `sectors` sectors.
pub(super) fn protective(sectors: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    with_entry(&mut bytes, 0, PROTECTIVE, false, 1, u32::try_from(sectors - 1).unwrap_or(u32::MAX));
    bytes[TABLE + 1..TABLE + 4].copy_from_slice(&[0, 2, 0]);
    bytes
}

/// Writes a new table of up to four primary partitions; boot code that is there stays.
///
/// # Errors
/// `Invalid` when a partition does not fit; otherwise of the disk.
pub fn write_mbr(disk: &DiskMut, signature: u32, partitions: &[NewPartition]) -> Result<()> {
    let sector = u64::from(disk.geometry().logical_sector_bytes);
    let mut bytes = disk.as_disk().read_vec(0, 512)?;
    bytes[TABLE..510].fill(0);
    bytes[440..444].copy_from_slice(&signature.to_le_bytes());
    if partitions.len() > 4 {
        return Err(Error::invalid(Layer::Mbr, "an MBR has at most four primary partitions"));
    }
    for (i, new) in partitions.iter().enumerate() {
        let bad = || Error::invalid(Layer::Mbr, "a partition does not fit").at(new.range.start);
        if new.range.start < sector || new.range.end > disk.len() || new.range.is_empty() {
            return Err(bad());
        }
        let first = u32::try_from(new.range.start / sector).map_err(|_| bad())?;
        let count = u32::try_from((new.range.end - new.range.start) / sector).map_err(|_| bad())?;
        with_entry(&mut bytes, i, new.mbr_type, new.active, first, count);
    }
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.write_at(0, &bytes)
}

/// Changes the entry of a primary partition; `number` as [`super::read`] counts.
fn change_entry(disk: &DiskMut, number: u32, change: impl Fn(&mut [u8], bool)) -> Result<()> {
    let table = read(&disk.as_disk(), disk.geometry().logical_sector_bytes)?;
    let mut bytes = disk.as_disk().read_vec(0, 512)?;
    let wanted = table.partitions.iter().find(|p| p.number == number);
    let wanted = wanted.ok_or_else(|| Error::not_found(Layer::Mbr, format!("no partition {number}")))?;
    let first = wanted.range.start / u64::from(table.sector_bytes);
    let place = entries(&bytes).iter().position(|entry| entry.first == first && entry.count > 0);
    let place = place.ok_or_else(|| {
        Error::invalid(
            Layer::Mbr,
            format!("partition {number} is a logical one, which is not in the master boot record"),
        )
    })?;
    for i in 0..4 {
        change(&mut bytes[TABLE + i * 16..TABLE + i * 16 + 16], i == place);
    }
    disk.write_at(0, &bytes)
}

/// Marks one primary partition as active, all others as not.
///
/// # Errors
/// `NotFound`; `Invalid` for logical partitions.
pub(super) fn set_active(disk: &DiskMut, number: u32) -> Result<()> {
    change_entry(disk, number, |entry, chosen| entry[0] = if chosen { 0x80 } else { 0 })
}

/// Gives a primary partition another type.
///
/// # Errors
/// As [`set_active`].
pub(super) fn set_type(disk: &DiskMut, number: u32, kind: u8) -> Result<()> {
    change_entry(disk, number, |entry, chosen| {
        if chosen {
            entry[4] = kind;
        }
    })
}

/// Adds a primary partition in the first free entry; an active one is the only active one. The number of the partition.
///
/// # Errors
/// `Invalid` when it does not fit; `NoSpace` when all four entries are used.
pub(super) fn add(disk: &DiskMut, new: &NewPartition) -> Result<u32> {
    let view = disk.as_disk();
    let sector_bytes = disk.geometry().logical_sector_bytes;
    let sector = u64::from(sector_bytes);
    let table = read(&view, sector_bytes)?;
    let bad = || Error::invalid(Layer::Mbr, "a partition does not fit").at(new.range.start);
    let overlaps =
        table.partitions.iter().any(|p| p.range.start < new.range.end && new.range.start < p.range.end);
    if new.range.start < sector || new.range.end > disk.len() || new.range.is_empty() || overlaps {
        return Err(bad());
    }
    let mut bytes = view.read_vec(0, 512)?;
    let free = entries(&bytes).iter().position(|entry| entry.kind == 0);
    let free =
        free.ok_or_else(|| Error::no_space(Layer::Mbr, "all four entries of the partition table are used"))?;
    let first = u32::try_from(new.range.start / sector).map_err(|_| bad())?;
    let count = u32::try_from((new.range.end - new.range.start) / sector).map_err(|_| bad())?;
    if new.active {
        (0..4).for_each(|i| bytes[TABLE + i * 16] = 0);
    }
    with_entry(&mut bytes, free, new.mbr_type, new.active, first, count);
    disk.write_at(0, &bytes)?;
    let after = read(&view, sector_bytes)?;
    let made = after.partitions.iter().find(|p| p.range.start == new.range.start);
    made.map(|p| p.number).ok_or_else(bad)
}
