//! What [MS-VHDX] says of the structures of a file and a reader can do without: versions, places, overlaps, duplicates,
//! reserved bits. A reader notes them; a writer refuses what is severe, because it would move or write over
//! what it does not understand. The blocks of the BAT are checked by [`super::device`].

use super::format::*;
use super::header::Header;
use super::metadata::{IS_REQUIRED, IS_USER, IS_VIRTUAL_DISK, TABLE_BYTES};
use std::collections::BTreeSet;
use std::ops::Range;
use vmrescue_base::bytes::{is_zero, slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::guid::Guid;
use vmrescue_block::Disk;

/// Most entries of the region table and of the metadata table (2.2.3.1, 2.6.1.1).
const MAX_ENTRIES: u32 = 2047;
/// Most metadata items of users (2.6.1.1).
const MAX_USER_ITEMS: usize = 1024;
/// Longest metadata item (2.6.1.2).
const MAX_ITEM_BYTES: u32 = 1 << 20;

/// A metadata item of the system: what it must look like (2.6.2).
struct Known {
    id: Guid,
    name: &'static str,
    /// Length of the item; `None` for the parent locator.
    bytes: Option<u32>,
    flags: u32,
}

const DISK_ITEM: u32 = IS_REQUIRED | IS_VIRTUAL_DISK;
const KNOWN: [Known; 6] = [
    Known { id: FILE_PARAMETERS, name: "file parameters", bytes: Some(8), flags: IS_REQUIRED },
    Known { id: VIRTUAL_DISK_SIZE, name: "virtual disk size", bytes: Some(8), flags: DISK_ITEM },
    Known { id: VIRTUAL_DISK_ID, name: "virtual disk id", bytes: Some(16), flags: DISK_ITEM },
    Known { id: LOGICAL_SECTOR_SIZE, name: "logical sector size", bytes: Some(4), flags: DISK_ITEM },
    Known { id: PHYSICAL_SECTOR_SIZE, name: "physical sector size", bytes: Some(4), flags: DISK_ITEM },
    Known { id: PARENT_LOCATOR, name: "parent locator", bytes: None, flags: IS_REQUIRED },
];

/// Defects as they are found.
struct Found<'a>(&'a mut Vec<Defect>);

impl Found<'_> {
    fn add(&mut self, code: &'static str, severity: Severity, at: u64, text: impl Into<String>) {
        self.0.push(Defect::new(code, severity, Layer::Vhdx, at, text));
    }

    fn error(&mut self, code: &'static str, at: u64, text: impl Into<String>) {
        self.add(code, Severity::Error, at, text);
    }

    fn reserved(&mut self, code: &'static str, at: u64, what: &str) {
        self.add(code, Severity::Warning, at, format!("reserved bits of {what} are not zero"));
    }
}

/// Checks both headers, beyond what reading them needs; `current` is the one that counts.
pub(super) fn headers(file: &Disk, current: &Header, defects: &mut Vec<Defect>) {
    let mut found = Found(defects);
    let mut sealed: Vec<Vec<u8>> = Vec::new();
    for offset in HEADER_PLACES {
        let Ok(bytes) = file.read_vec(offset, HEADER_BYTES) else { continue };
        if bytes.get(..4) != Some(b"head") || !is_sealed(&bytes, 4) {
            continue;
        }
        if !is_zero(&bytes[80..]) {
            found.reserved("vhdx-header-reserved", offset, "a header");
        }
        sealed.push(bytes);
    }
    if let [one, other] = &sealed[..]
        && u64_at(one, 8) == u64_at(other, 8)
        && one[16..] != other[16..]
    {
        let text = "both headers have the same sequence number and do not say the same";
        found.error("vhdx-headers-contradict", HEADER_PLACES[0], text);
    }
    let log = &current.log;
    let outside = log.start < ALIGN || log.end > file.len();
    if log.is_empty() || outside || !log.start.is_multiple_of(ALIGN) || !log.end.is_multiple_of(ALIGN) {
        let text =
            format!("the log ({:#x} to {:#x}) is not whole megabytes inside the file", log.start, log.end);
        found.error("vhdx-log-misplaced", HEADER_PLACES[0], text);
    }
    if current.log_version != 0 {
        let text = format!("the log has version {}, and is empty", current.log_version);
        found.add("vhdx-log-version", Severity::Warning, HEADER_PLACES[0], text);
    }
}

/// Checks the region tables; `log` is where the log lies.
pub(super) fn regions(file: &Disk, log: &Range<u64>, defects: &mut Vec<Defect>) {
    let mut found = Found(defects);
    let mut tables: Vec<(u64, Vec<u8>)> = Vec::new();
    for offset in REGION_PLACES {
        let Ok(bytes) = file.read_vec(offset, REGION_BYTES) else { continue };
        if bytes.get(..4) == Some(b"regi") && is_sealed(&bytes, 4) {
            tables.push((offset, bytes));
        }
    }
    if let [(_, one), (place, other)] = &tables[..]
        && one[8..] != other[8..]
    {
        let text = "the two region tables do not say the same; the first one is used";
        found.error("vhdx-region-tables-differ", *place, text);
    }
    let Some((place, table)) = tables.first() else { return };
    let count = u32_at(table, 8).unwrap_or_default();
    if count > MAX_ENTRIES {
        let text = format!("the region table has {count} entries, at most {MAX_ENTRIES} are possible");
        found.error("vhdx-region-count", *place, text);
    }
    if u32_at(table, 12) != Some(0) {
        found.reserved("vhdx-region-reserved", *place, "the region table");
    }
    let (mut seen, mut taken) = (BTreeSet::new(), vec![("the headers", 0..ALIGN), ("the log", log.clone())]);
    for number in 0..count.min(MAX_ENTRIES) as usize {
        let (at, offset) = (16 + number * 32, place + 16 + number as u64 * 32);
        let Some(id) = Guid::at(table, at) else { break };
        let start = u64_at(table, at + 16).unwrap_or_default();
        let length = u64::from(u32_at(table, at + 24).unwrap_or_default());
        let required = u32_at(table, at + 28).unwrap_or_default();
        if required & !1 != 0 {
            found.reserved("vhdx-region-reserved", offset, "an entry of the region table");
        }
        if !seen.insert(id.0) {
            found.error("vhdx-region-duplicate", offset, format!("the region {id} is named twice"));
        }
        let end = start.saturating_add(length);
        let aligned = start.is_multiple_of(ALIGN) && length.is_multiple_of(ALIGN);
        if length == 0 || !aligned || start < ALIGN || end > file.len() {
            let text =
                format!("the region {id} ({start:#x} to {end:#x}) is not whole megabytes inside the file");
            found.error("vhdx-region-misplaced", offset, text);
        }
        let name = match id {
            BAT_REGION => "the BAT",
            METADATA_REGION => "the metadata",
            _ => "a region that is not known",
        };
        taken.push((name, start..end));
    }
    taken.retain(|(_, range)| !range.is_empty());
    taken.sort_by_key(|(_, range)| range.start);
    for pair in taken.windows(2).filter(|pair| pair[0].1.end > pair[1].1.start) {
        let text = format!("{} and {} share bytes of the file", pair[0].0, pair[1].0);
        found.error("vhdx-region-overlap", pair[1].1.start, text);
    }
}

/// Checks the metadata region.
pub(super) fn metadata(file: &Disk, range: &Range<u64>, defects: &mut Vec<Defect>) -> Result<()> {
    let mut found = Found(defects);
    let region = file.read_vec(range.start, (range.end - range.start).min(16 << 20) as usize)?;
    let count = u16_at(&region, 10).map(u32::from).unwrap_or_default();
    if count > MAX_ENTRIES {
        let text = format!("the metadata table has {count} entries, at most {MAX_ENTRIES} are possible");
        found.error("vhdx-metadata-count", range.start, text);
    }
    if region.get(8..10).is_none_or(|two| !is_zero(two)) || region.get(12..32).is_none_or(|b| !is_zero(b)) {
        found.reserved("vhdx-metadata-reserved", range.start, "the metadata table");
    }
    let (mut seen, mut items, mut users) = (BTreeSet::new(), Vec::<Range<u64>>::new(), 0);
    let mut parameters: &[u8] = &[];
    let mut locator: Option<(u64, &[u8])> = None;
    for number in 0..count.min(MAX_ENTRIES) as usize {
        let (at, offset) = (32 + number * 32, range.start + 32 + number as u64 * 32);
        let Some(id) = Guid::at(&region, at) else { break };
        let field = |place| u32_at(&region, at + place).unwrap_or_default();
        let (start, length, flags) = (field(16), field(20), field(24));
        if flags & !(IS_USER | IS_VIRTUAL_DISK | IS_REQUIRED) != 0 || field(28) != 0 {
            found.reserved("vhdx-metadata-reserved", offset, "an entry of the metadata table");
        }
        let user = flags & IS_USER != 0;
        users += usize::from(user);
        if user && flags & IS_REQUIRED != 0 {
            let text = format!("the item {id} is a user's and is required");
            found.add("vhdx-metadata-user-required", Severity::Warning, offset, text);
        }
        if id.is_zero() {
            found.error("vhdx-metadata-id-zero", offset, "an item of the metadata has no identifier");
        }
        if !seen.insert((user, id.0)) {
            found.error("vhdx-metadata-duplicate", offset, format!("the item {id} is there twice"));
        }
        let item = slice_at(&region, start as usize, length as usize);
        let misplaced = match length {
            0 => start != 0,
            _ => start < TABLE_BYTES || length > MAX_ITEM_BYTES || item.is_none(),
        };
        if misplaced {
            let text = format!("the item {id} ({length} bytes at {start:#x}) lies outside of its room");
            found.error("vhdx-metadata-item-misplaced", offset, text);
        }
        if length > 0 {
            items.push(u64::from(start)..u64::from(start) + u64::from(length));
        }
        let Some(known) = KNOWN.iter().find(|known| known.id == id && !user) else { continue };
        if known.bytes.is_some_and(|bytes| bytes != length) {
            let text = format!("the item for the {} has {length} bytes", known.name);
            found.error("vhdx-metadata-item-size", offset, text);
        }
        if flags & (IS_VIRTUAL_DISK | IS_REQUIRED) != known.flags {
            let text = format!("the flags of the {} are {flags:#x}, not {:#x}", known.name, known.flags);
            found.add("vhdx-metadata-flags", Severity::Warning, offset, text);
        }
        match id {
            FILE_PARAMETERS => parameters = item.unwrap_or_default(),
            PARENT_LOCATOR => locator = item.map(|item| (range.start + u64::from(start), item)),
            PHYSICAL_SECTOR_SIZE => {
                let size = item.and_then(|item| u32_at(item, 0)).unwrap_or_default();
                if !matches!(size, 512 | 4096) {
                    let text = format!("a physical sector has {size} bytes, neither 512 nor 4096");
                    found.error("vhdx-sector-size", offset, text);
                }
            }
            _ => {}
        }
    }
    if users > MAX_USER_ITEMS {
        let text = format!("{users} items of users, at most {MAX_USER_ITEMS} are possible");
        found.error("vhdx-metadata-user-count", range.start, text);
    }
    items.sort_by_key(|item| item.start);
    for pair in items.windows(2).filter(|pair| pair[0].end > pair[1].start) {
        let text = "two items of the metadata share bytes";
        found.error("vhdx-metadata-overlap", range.start + pair[1].start, text);
    }
    let bits = u32_at(parameters, 4).unwrap_or_default();
    if bits & !3 != 0 {
        found.reserved("vhdx-metadata-reserved", range.start, "the file parameters");
    }
    let has_parent = bits & 2 != 0;
    for known in &KNOWN {
        let needed = known.id != PARENT_LOCATOR || has_parent;
        if needed && !seen.contains(&(false, known.id.0)) {
            let text = format!("the metadata has no item for the {}", known.name);
            found.error("vhdx-metadata-missing", range.start, text);
        }
    }
    match locator {
        Some((at, item)) if has_parent => self::locator(at, item, &mut found),
        Some((at, _)) => {
            let text = "the disk has a parent locator and no parent";
            found.add("vhdx-locator-unused", Severity::Note, at, text);
        }
        None => {}
    }
    Ok(())
}

/// Checks the parent locator of a differencing disk (2.6.2.6).
fn locator(at: u64, item: &[u8], found: &mut Found<'_>) {
    if Guid::at(item, 0) != Some(LOCATOR_TYPE) {
        found.error("vhdx-locator-type", at, "the parent locator is not that of a VHDX");
        return;
    }
    if u16_at(item, 16) != Some(0) {
        found.reserved("vhdx-locator-reserved", at, "the parent locator");
    }
    let count = u16_at(item, 18).map_or(0, usize::from);
    let mut keys = BTreeSet::new();
    for place in (0..count).map(|number| 20 + number * 12) {
        let text = |offset: usize, length: usize| {
            let (offset, length) = (u32_at(item, offset)? as usize, usize::from(u16_at(item, length)?));
            let bytes = slice_at(item, offset, length)?;
            (length > 0 && length.is_multiple_of(2) && offset >= 20 + count * 12)
                .then(|| vmrescue_base::text::utf16le_lossy(bytes))
        };
        let (key, value) = (text(place, place + 8), text(place + 4, place + 10));
        let (Some(key), Some(_)) = (key, value) else {
            let text = "an entry of the parent locator is empty or lies outside of it";
            found.error("vhdx-locator-entry", at + place as u64, text);
            continue;
        };
        if !keys.insert(key.to_ascii_lowercase()) {
            let text = format!("the parent locator has the key {key} twice");
            found.error("vhdx-locator-duplicate", at + place as u64, text);
        }
    }
    if !keys.contains("parent_linkage") {
        found.error("vhdx-locator-linkage", at, "the parent locator does not say which parent it means");
    }
    if !["relative_path", "volume_path", "absolute_win32_path"].iter().any(|key| keys.contains(*key)) {
        let text = "the parent locator does not say where the parent is";
        found.add("vhdx-locator-path", Severity::Warning, at, text);
    }
}

/// Refuses versions that did not exist when this was written.
pub(super) fn versions(current: &Header) -> Result<()> {
    if current.version != 1 {
        return Err(Error::unsupported(Layer::Vhdx, "this version of VHDX is not known")
            .at(HEADER_PLACES[0])
            .expected("1")
            .found(current.version));
    }
    if current.log_version != 0 && !current.log_guid.is_zero() {
        return Err(Error::unsupported(Layer::Vhdx, "the log has a version that is not known")
            .at(HEADER_PLACES[0])
            .expected("0")
            .found(current.log_version)
            .advice("let Hyper-V open the disk once: it replays its log"));
    }
    Ok(())
}
