//! The GUID partition table (UEFI specification, chapter 5).

use super::{
    BASIC_DATA, EFI_SYSTEM, MICROSOFT_RESERVED, NewPartition, Partition, RECOVERY, Table, TableKind, mbr,
};
use vmrescue_base::bytes::{u32_at, u64_at};
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::guid::Guid;
use vmrescue_base::text::{until_nul, utf16le_bytes, utf16le_lossy};
use vmrescue_block::{Disk, DiskMut};

const ENTRY_BYTES: usize = 128;

struct Header {
    disk: Guid,
    backup_at: u64,
    entries: Vec<u8>,
    entry_bytes: usize,
}

/// Reads and checks the header at sector `lba` with its entries.
fn header_at(disk: &Disk, lba: u64, sector: u64) -> Result<Option<Header>> {
    let Some(place) = lba
        .checked_mul(sector)
        .filter(|place| place.checked_add(sector).is_some_and(|end| end <= disk.len()))
    else {
        return Ok(None);
    };
    let bytes = disk.read_vec(place, sector as usize)?;
    let number = |at| u32_at(&bytes, at).unwrap_or_default() as usize;
    let (length, count, entry_bytes) = (number(12), number(80), number(84));
    if &bytes[..8] != b"EFI PART"
        || !(92..=sector as usize).contains(&length)
        || u64_at(&bytes, 24) != Some(lba)
    {
        return Ok(None);
    }
    let mut summed = bytes[..length].to_vec();
    summed[16..20].fill(0);
    if crc32fast::hash(&summed) as usize != number(16) {
        return Ok(None);
    }
    if !(ENTRY_BYTES..=4096).contains(&entry_bytes) || count > vmrescue_base::limits::MAX_PARTITIONS {
        return Ok(None);
    }
    let array = u64_at(&bytes, 72).and_then(|lba| lba.checked_mul(sector));
    let Some(entries) = array.and_then(|at| disk.read_vec(at, count * entry_bytes).ok()) else {
        return Ok(None);
    };
    if crc32fast::hash(&entries) as usize != number(88) {
        return Ok(None);
    }
    let disk_guid = Guid::at(&bytes, 56).unwrap_or_default();
    Ok(Some(Header {
        disk: disk_guid,
        backup_at: u64_at(&bytes, 32).unwrap_or_default(),
        entries,
        entry_bytes,
    }))
}

fn type_name(guid: &Guid) -> String {
    match *guid {
        EFI_SYSTEM => "EFI system".into(),
        MICROSOFT_RESERVED => "Microsoft reserved".into(),
        BASIC_DATA => "Basic data".into(),
        RECOVERY => "Recovery".into(),
        other => format!("{{{other}}}"),
    }
}

fn partition(
    number: u32,
    entry: &[u8],
    sector: u64,
    disk: u64,
    defects: &mut Vec<Defect>,
) -> Option<Partition> {
    let guid = Guid::at(entry, 0).filter(|guid| !guid.is_zero())?;
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    let start = first.checked_mul(sector);
    let end = last.checked_add(1).and_then(|end| end.checked_mul(sector));
    let range = match (start, end) {
        (Some(start), Some(end)) if start < end && end <= disk => start..end,
        _ => {
            let text = format!("partition {number} lies outside the disk (sectors {first} to {last})");
            defects.push(Defect::new("gpt-partition-outside", Severity::Error, Layer::Gpt, None, text));
            return None;
        }
    };
    Some(Partition {
        number,
        range,
        type_name: type_name(&guid),
        type_guid: Some(guid),
        mbr_type: None,
        unique_guid: Guid::at(entry, 16),
        name: until_nul(&utf16le_lossy(entry.get(56..128)?)).to_string(),
        active: false,
        attributes: u64_at(entry, 48)?,
    })
}

/// The table, from the first copy that is whole; `None` when neither is.
pub(super) fn read(disk: &Disk, sector_bytes: u32) -> Result<Option<Table>> {
    let sector = u64::from(sector_bytes);
    let last = (disk.len() / sector).saturating_sub(1);
    let mut defects = Vec::new();
    // A copy in a part of the image that cannot be read is a damaged copy; with neither read, nothing can be told.
    let (first, backup) = match (header_at(disk, 1, sector), header_at(disk, last, sector)) {
        (Err(e), Err(_)) => return Err(e),
        (first, backup) => {
            let mut read = |code, copy: Result<Option<Header>>| {
                copy.unwrap_or_else(|e| {
                    defects.push(Defect::from_error(code, Severity::Error, &e));
                    None
                })
            };
            (read("gpt-primary-unreadable", first), read("gpt-backup-unreadable", backup))
        }
    };
    let mut bad = |code, offset, text: &str| {
        defects.push(Defect::new(code, Severity::Warning, Layer::Gpt, offset, text));
    };
    let backup = match (&first, backup) {
        // One that cannot be read there either is named as damaged below, or as unreadable above.
        (Some(header), None) => header_at(disk, header.backup_at, sector).unwrap_or_default(),
        (_, backup) => backup,
    };
    let header = match (first, backup) {
        (Some(first), Some(backup)) => {
            if first.entries != backup.entries || first.disk != backup.disk {
                bad(
                    "gpt-copies-differ",
                    sector,
                    "the two copies of the partition table differ; the first is used",
                );
            }
            first
        }
        (Some(first), None) => {
            bad("gpt-backup-bad", last * sector, "the second copy of the partition table is damaged");
            first
        }
        (None, Some(backup)) => {
            bad(
                "gpt-primary-bad",
                sector,
                "the first copy of the partition table is damaged; the second is used",
            );
            backup
        }
        (None, None) => return Ok(None),
    };
    let entries = header.entries.chunks_exact(header.entry_bytes).zip(1..);
    let partitions = entries
        .filter_map(|(entry, number)| partition(number, entry, sector, disk.len(), &mut defects))
        .collect();
    let disk_id = Some(header.disk.to_string());
    Ok(Some(Table { kind: TableKind::Gpt, disk_id, sector_bytes, partitions, defects }))
}

fn header_bytes(
    sector: u64,
    here: u64,
    other: u64,
    array: u64,
    disk: u64,
    id: &Guid,
    (entries, entry_bytes): (&[u8], usize),
) -> Vec<u8> {
    let array_sectors = (entries.len() as u64).div_ceil(sector);
    let mut bytes = vec![0; sector as usize];
    bytes[..8].copy_from_slice(b"EFI PART");
    bytes[10] = 1;
    bytes[12] = 92;
    let last_usable = disk / sector - 2 - array_sectors;
    for (at, value) in [(24, here), (32, other), (40, 2 + array_sectors), (48, last_usable), (72, array)] {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    bytes[56..72].copy_from_slice(&id.0);
    bytes[80..84].copy_from_slice(&((entries.len() / entry_bytes) as u32).to_le_bytes());
    bytes[84..88].copy_from_slice(&(entry_bytes as u32).to_le_bytes());
    bytes[88..92].copy_from_slice(&crc32fast::hash(entries).to_le_bytes());
    let sum = crc32fast::hash(&bytes[..92]);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Writes a protective MBR and both copies of a new table.
///
/// # Errors
/// `Invalid` when a partition does not fit; otherwise of the disk.
pub fn write_gpt(disk: &DiskMut, partitions: &[NewPartition]) -> Result<Guid> {
    let geometry = disk.geometry();
    let sector = u64::from(geometry.logical_sector_bytes);
    let mut entries = vec![0; 128 * ENTRY_BYTES];
    let array_sectors = (entries.len() as u64).div_ceil(sector);
    let (first, sectors) = ((2 + array_sectors) * sector, geometry.length_bytes / sector);
    let end = sectors.saturating_sub(1 + array_sectors) * sector;
    for (entry, new) in entries.chunks_exact_mut(ENTRY_BYTES).zip(partitions) {
        if new.range.start < first
            || new.range.end > end
            || new.range.start % sector != 0
            || new.range.is_empty()
        {
            return Err(Error::invalid(Layer::Gpt, "a partition does not fit").at(new.range.start));
        }
        entry[..16].copy_from_slice(&new.type_guid.0);
        entry[16..32].copy_from_slice(&Guid::random().0);
        entry[32..40].copy_from_slice(&(new.range.start / sector).to_le_bytes());
        entry[40..48].copy_from_slice(&(new.range.end / sector - 1).to_le_bytes());
        let name = utf16le_bytes(&new.name);
        let length = name.len().min(70);
        entry[56..56 + length].copy_from_slice(&name[..length]);
    }
    let id = Guid::random();
    disk.write_at(0, &mbr::protective(sectors))?;
    write_copies(disk, sector, &id, &entries, ENTRY_BYTES)?;
    Ok(id)
}

/// Both copies: the first behind the MBR, the second at the end of the disk. Bytes that are right already are written
/// too; whoever stages does not mind.
fn write_copies(disk: &DiskMut, sector: u64, id: &Guid, entries: &[u8], entry_bytes: usize) -> Result<()> {
    let length = disk.len();
    let last = length / sector - 1;
    let array = last - (entries.len() as u64).div_ceil(sector);
    let header =
        |here, other, array| header_bytes(sector, here, other, array, length, id, (entries, entry_bytes));
    disk.write_at(2 * sector, entries)?;
    disk.write_at(sector, &header(1, last, 2))?;
    disk.write_at(array * sector, entries)?;
    disk.write_at(last * sector, &header(last, 1, array))
}

/// Writes both copies of the table anew from the one that is whole (the first when both are), the second to where the
/// disk ends now, and a protective MBR when there is none. True when something was wrong.
///
/// # Errors
/// `NotFound` when no copy is whole; `Refused` when a partition lies where the second copy belongs.
pub fn repair_gpt(disk: &DiskMut) -> Result<bool> {
    let view = disk.as_disk();
    let found =
        [disk.geometry().logical_sector_bytes, 512, 4096].into_iter().map(u64::from).find_map(|sector| {
            let last = (disk.len() / sector).saturating_sub(1);
            let first = header_at(&view, 1, sector).ok().flatten();
            first.or_else(|| header_at(&view, last, sector).ok().flatten()).map(|header| (sector, header))
        });
    let (sector, header) = found.ok_or_else(|| {
        Error::not_found(Layer::Gpt, "no copy of the partition table is whole")
            .at(u64::from(disk.geometry().logical_sector_bytes))
            .advice("the table must be made again from a backup, or from the volumes that are found")
    })?;
    let sectors = disk.len() / sector;
    let array_sectors = (header.entries.len() as u64).div_ceil(sector);
    let end = sectors.saturating_sub(1 + array_sectors);
    for entry in header.entries.chunks_exact(header.entry_bytes) {
        let used = Guid::at(entry, 0).is_some_and(|guid| !guid.is_zero());
        let last = u64_at(entry, 40).unwrap_or_default();
        if used && last >= end {
            return Err(Error::refused(
                Layer::Gpt,
                "a partition reaches into the end of the disk, where the second copy belongs",
            )
            .at(last.saturating_mul(sector))
            .expected(format!("an end before sector {end}"))
            .advice("the disk was cut off; make it larger first (`vmrescue disk resize`)"));
        }
    }
    let old = |disk: &Disk| -> Result<Vec<u8>> {
        let head = disk.read_vec(0, ((2 + array_sectors) * sector) as usize)?;
        let tail = disk.read_vec(end * sector, ((sectors - end) * sector) as usize)?;
        Ok([head, tail].concat())
    };
    let before = old(&view)?;
    if !(before[510..512] == [0x55, 0xaa] && mbr::protects(&before[..512])) {
        disk.write_at(0, &mbr::protective(sectors))?;
    }
    write_copies(disk, sector, &header.disk, &header.entries, header.entry_bytes)?;
    Ok(old(&view)? != before)
}

/// A partition to be put into a table.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is, and where.
    pub new: NewPartition,
    /// Its own GUID, when that is known.
    pub id: Option<Guid>,
    /// Its attributes.
    pub attributes: u64,
    /// Its number: taken when that is free.
    pub slot: Option<u32>,
}

impl Entry {
    /// A partition in the first entry that is free, with this GUID or a new one.
    pub fn new(new: NewPartition, id: Option<Guid>) -> Entry {
        Entry { new, id, attributes: 0, slot: None }
    }
}

fn write_entry(entry: &mut [u8], Entry { new, id, attributes, .. }: &Entry, sector: u64) {
    entry.fill(0);
    entry[..16].copy_from_slice(&new.type_guid.0);
    entry[16..32].copy_from_slice(&id.unwrap_or_else(Guid::random).0);
    entry[48..56].copy_from_slice(&attributes.to_le_bytes());
    entry[32..40].copy_from_slice(&(new.range.start / sector).to_le_bytes());
    entry[40..48].copy_from_slice(&(new.range.end / sector - 1).to_le_bytes());
    let name = utf16le_bytes(&new.name);
    let length = name.len().min(70);
    entry[56..56 + length].copy_from_slice(&name[..length]);
}

/// Adds partitions to a table that is there, each in the entry that it asks for when that is free, else in the first free one; or makes a table
/// with the GUID `id` where there is none. Partitions that are there stay as they are. The numbers of the new ones.
///
/// # Errors
/// `Invalid` when a partition does not fit or overlaps another; `NoSpace` when the table is full; as [`repair_gpt`].
pub fn add_to_gpt(disk: &DiskMut, id: Option<Guid>, new: &[Entry]) -> Result<Vec<u32>> {
    let view = disk.as_disk();
    let own = u64::from(disk.geometry().logical_sector_bytes);
    // Raw images of disks with sectors of 4096 bytes do not say so.
    let (mut sector, mut known) = (own, None);
    for size in [own, 512, 4096] {
        let last = (disk.len() / size).saturating_sub(1);
        let there = match header_at(&view, 1, size)? {
            Some(header) => Some(header),
            None => header_at(&view, last, size)?,
        };
        if there.is_some() {
            (sector, known) = (size, there);
            break;
        }
    }
    let last = (disk.len() / sector).saturating_sub(1);
    let (disk_id, mut entries, entry_bytes) = match known {
        Some(header) => (header.disk, header.entries, header.entry_bytes),
        None => (id.unwrap_or_else(Guid::random), vec![0; 128 * ENTRY_BYTES], ENTRY_BYTES),
    };
    let array_sectors = (entries.len() as u64).div_ceil(sector);
    let (first, end) = ((2 + array_sectors) * sector, (last - array_sectors) * sector);
    let mut numbers = Vec::new();
    for one in new {
        let range = &one.new.range;
        let misplaced = |what: &str| Err(Error::invalid(Layer::Gpt, what.to_string()).at(range.start));
        if range.start < first || range.end > end || range.start % sector != 0 || range.end % sector != 0 {
            return misplaced("a partition does not fit between the two copies of the table");
        }
        if range.is_empty() {
            return misplaced("a partition has no sector");
        }
        let mut free = None;
        let wanted = one.slot.and_then(|slot| (slot as usize).checked_sub(1));
        for (place, entry) in entries.chunks_exact(entry_bytes).enumerate() {
            if Guid::at(entry, 0).is_none_or(|guid| guid.is_zero()) {
                free = if wanted == Some(place) { Some(place) } else { free.or(Some(place)) };
                continue;
            }
            let there = u64_at(entry, 32).unwrap_or(0).saturating_mul(sector)
                ..u64_at(entry, 40).unwrap_or(0).saturating_add(1).saturating_mul(sector);
            if there.start < range.end && range.start < there.end {
                return misplaced("a partition overlaps one that is there");
            }
        }
        let Some(place) = free else {
            return Err(Error::no_space(Layer::Gpt, "the partition table is full"));
        };
        write_entry(&mut entries[place * entry_bytes..place * entry_bytes + ENTRY_BYTES], one, sector);
        // A table has at most 1,024 entries.
        numbers.push(place as u32 + 1);
    }
    let boot = view.read_vec(0, 512)?;
    if !(boot[510..512] == [0x55, 0xaa] && mbr::protects(&boot)) {
        disk.write_at(0, &mbr::protective(disk.len() / sector))?;
    }
    write_copies(disk, sector, &disk_id, &entries, entry_bytes)?;
    Ok(numbers)
}

/// Changes the entry of a partition that is there, in both copies.
fn change_entry(disk: &DiskMut, number: u32, change: impl FnOnce(&mut [u8])) -> Result<()> {
    repair_gpt(disk)?;
    let sector = [disk.geometry().logical_sector_bytes, 512, 4096].into_iter().map(u64::from);
    let missing = || Error::not_found(Layer::Gpt, format!("no partition {number}"));
    for sector in sector {
        let Some(mut header) = header_at(&disk.as_disk(), 1, sector)? else { continue };
        let bytes = header.entry_bytes;
        let place = (number as usize).checked_sub(1).ok_or_else(missing)? * bytes;
        let entry = header.entries.get_mut(place..place + bytes).ok_or_else(missing)?;
        if Guid::at(entry, 0).is_none_or(|guid| guid.is_zero()) {
            return Err(missing());
        }
        change(entry);
        return write_copies(disk, sector, &header.disk, &header.entries, bytes);
    }
    Err(missing())
}

/// Gives a partition another type.
///
/// # Errors
/// `NotFound`; as [`repair_gpt`].
pub(super) fn set_type(disk: &DiskMut, number: u32, kind: &Guid) -> Result<()> {
    change_entry(disk, number, |entry| entry[..16].copy_from_slice(&kind.0))
}

/// Takes the attributes `bits` from a partition; the others stay.
///
/// # Errors
/// `NotFound`; as [`repair_gpt`].
pub(super) fn clear_attributes(disk: &DiskMut, number: u32, bits: u64) -> Result<()> {
    change_entry(disk, number, |entry| {
        let left = u64_at(entry, 48).unwrap_or(0) & !bits;
        entry[48..56].copy_from_slice(&left.to_le_bytes());
    })
}
