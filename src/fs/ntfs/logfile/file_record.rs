//! What log records do to a file record, fixups out.
//!
//! Every function gives the reason when the attribute or entry that the log record means is not there: then the volume is
//! not what it was when the log was written, and nothing is changed.

use super::super::write::runs;
use super::index::{self, Header, Reason};
use super::ops;
use vmrescue_base::bytes::{put_at, slice_at, u16_at, u32_at, u64_at};

/// Type that ends the attributes.
const END: u32 = 0xFFFF_FFFF;
/// Type of an index root.
const INDEX_ROOT: u32 = 0x90;
/// Record flag: in use.
const IN_USE: u16 = 1;
/// Where the index header begins in the value of an index root.
const ROOT_HEADER: usize = 0x10;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    /// The operation.
    pub(crate) operation: u16,
    /// Its bytes.
    pub(crate) data: &'a [u8],
    /// Where the attribute begins in the record.
    pub(crate) record_offset: usize,
    /// Where the bytes or the entry begin in the attribute.
    pub(crate) attribute_offset: usize,
    /// The old bytes are as many as the new ones.
    pub(crate) same_length: bool,
    /// Clusters of the volume.
    pub(crate) clusters: u64,
}

/// Does it. On an error the record may have been changed and is to be thrown away.
pub(crate) fn apply(record: &mut [u8], change: &Change<'_>) -> Result<(), Reason> {
    let data = change.data;
    match change.operation {
        ops::INITIALIZE_RECORD => {
            if change.record_offset == 0 && (data.len() < 0x30 || &data[..4] != b"FILE") {
                return Err("what it writes is no file record");
            }
            put(record, change.record_offset, data)
        }
        ops::DEALLOCATE_RECORD => {
            let flags = u16_at(record, 0x16).unwrap_or(0) & !IN_USE;
            let sequence = match u16_at(record, 0x10).unwrap_or(0).wrapping_add(1) {
                0 => 1,
                sequence => sequence,
            };
            put(record, 0x16, &flags.to_le_bytes())?;
            put(record, 0x10, &sequence.to_le_bytes())
        }
        ops::WRITE_END_OF_RECORD => {
            find(record, change.record_offset)?;
            put(record, change.record_offset, data)?;
            set_used(record, (change.record_offset + data.len()).next_multiple_of(8))
        }
        ops::CREATE_ATTRIBUTE => create(record, change),
        ops::DELETE_ATTRIBUTE => {
            let at = change.record_offset;
            let length = attribute(record, at)?;
            let indexed = is_indexed(&record[at..at + length]);
            resize(record, at, length, 0)?;
            if indexed { add_links(record, -1) } else { Ok(()) }
        }
        ops::UPDATE_RESIDENT => update_resident(record, change),
        ops::UPDATE_MAPPING_PAIRS => update_pairs(record, change),
        ops::SET_SIZES => set_sizes(record, change),
        ops::ZERO_END_OF_RECORD => {
            let at = change.record_offset + change.attribute_offset;
            put(record, at, &vec![0; data.len()])
        }
        _ => root(record, change),
    }
}

fn put(record: &mut [u8], at: usize, data: &[u8]) -> Result<(), Reason> {
    if put_at(record, at, data) { Ok(()) } else { Err("it writes behind the end of the record") }
}

fn used(record: &[u8]) -> usize {
    (u32_at(record, 0x18).unwrap_or(0) as usize).min(record.len())
}

fn set_used(record: &mut [u8], used: usize) -> Result<(), Reason> {
    if used > record.len() {
        return Err("the record has no room");
    }
    put(record, 0x18, &(used as u32).to_le_bytes()) // at most the size of a record
}

/// Length of the attribute at `at`, 0 for the end of all; `at` must be where one begins.
fn find(record: &[u8], at: usize) -> Result<usize, Reason> {
    let used = used(record);
    let mut place = usize::from(u16_at(record, 0x14).unwrap_or(0));
    if place < 0x28 {
        return Err("the record does not say where its attributes begin");
    }
    // Bounded: every attribute has at least 24 bytes.
    loop {
        let length = match u32_at(record, place) {
            Some(END) => 0,
            Some(_) => u32_at(record, place + 4).unwrap_or(0) as usize,
            None => return Err("the attributes of the record have no end"),
        };
        let whole = length == 0 || (length >= 0x18 && length.is_multiple_of(8));
        if !whole || place + length > used {
            return Err("the attributes of the record do not follow each other");
        }
        if place == at {
            return Ok(length);
        }
        if length == 0 || place > at {
            return Err("no attribute begins where the log record says");
        }
        place += length;
    }
}

/// Length of the attribute at `at`, which is there.
fn attribute(record: &[u8], at: usize) -> Result<usize, Reason> {
    match find(record, at)? {
        0 => Err("no attribute begins where the log record says"),
        length => Ok(length),
    }
}

/// Makes `old` bytes at `at` into `new` bytes; what lies behind them moves.
fn resize(record: &mut [u8], at: usize, old: usize, new: usize) -> Result<(), Reason> {
    let used = used(record);
    if at + old > used || used - old + new > record.len() {
        return Err("the record has no room");
    }
    record.copy_within(at + old..used, at + new);
    set_used(record, used - old + new)
}

/// The attribute at `at` gets another length.
fn resize_attribute(record: &mut [u8], at: usize, old: usize, new: usize) -> Result<(), Reason> {
    resize(record, at + old.min(new), old.saturating_sub(new), new.saturating_sub(old))?;
    put(record, at + 4, &(new as u32).to_le_bytes()) // at most the size of a record
}

fn is_resident(attribute: &[u8]) -> bool {
    attribute.get(8) == Some(&0)
}

fn is_indexed(attribute: &[u8]) -> bool {
    is_resident(attribute) && attribute.get(0x16).is_some_and(|flags| flags & 1 != 0)
}

fn add_links(record: &mut [u8], count: i16) -> Result<(), Reason> {
    let links = u16_at(record, 0x12).unwrap_or(0).wrapping_add_signed(count);
    put(record, 0x12, &links.to_le_bytes())
}

fn create(record: &mut [u8], change: &Change<'_>) -> Result<(), Reason> {
    let at = change.record_offset;
    find(record, at)?;
    let length = u32_at(change.data, 4).unwrap_or(0) as usize;
    let new = slice_at(change.data, 0, length).filter(|new| new.len() >= 0x18 && new.len().is_multiple_of(8));
    let new = new.ok_or("the new attribute is not whole")?;
    resize(record, at, 0, length)?;
    put(record, at, new)?;
    let id = u16_at(new, 0x0E).unwrap_or(0);
    if u16_at(record, 0x28).unwrap_or(0) <= id {
        put(record, 0x28, &id.wrapping_add(1).to_le_bytes())?;
    }
    if is_indexed(new) { add_links(record, 1) } else { Ok(()) }
}

fn update_resident(record: &mut [u8], change: &Change<'_>) -> Result<(), Reason> {
    let (at, from) = (change.record_offset, change.attribute_offset);
    let length = attribute(record, at)?;
    let end = from + change.data.len();
    if change.same_length {
        if end > length {
            return Err("it writes behind the end of the attribute");
        }
        return put(record, at + from, change.data);
    }
    let value = usize::from(u16_at(record, at + 0x14).unwrap_or(0));
    if !is_resident(&record[at..at + length]) || from < value || value < 0x18 {
        return Err("the attribute is not resident, or the new value begins before it");
    }
    resize_attribute(record, at, length, end.next_multiple_of(8))?;
    put(record, at + from, change.data)?;
    record[at + end..at + end.next_multiple_of(8)].fill(0);
    put(record, at + 0x10, &((end - value) as u32).to_le_bytes()) // at most the size of a record
}

fn clustered(record: &[u8], at: usize) -> Result<usize, Reason> {
    let length = attribute(record, at)?;
    let has_clusters = record.get(at + 8) == Some(&1) && length >= 0x40;
    if has_clusters { Ok(length) } else { Err("the attribute has no clusters") }
}

fn update_pairs(record: &mut [u8], change: &Change<'_>) -> Result<(), Reason> {
    let (at, from) = (change.record_offset, change.attribute_offset);
    let length = clustered(record, at)?;
    let pairs = usize::from(u16_at(record, at + 0x20).unwrap_or(0));
    if from < pairs || pairs < 0x40 || from > length {
        return Err("the new mapping pairs begin outside the old ones");
    }
    let end = from + change.data.len();
    let new_length = end.next_multiple_of(8);
    resize_attribute(record, at, length, new_length)?;
    put(record, at + from, change.data)?;
    record[at + end..at + new_length].fill(0);
    let runs = runs::decode(&record[at + pairs..at + new_length], change.clusters);
    let runs = runs.map_err(|_| "the new mapping pairs do not make runs of this volume")?;
    let lowest = u64_at(record, at + 0x10).unwrap_or(0);
    let highest = lowest.wrapping_add(runs::clusters(&runs)).wrapping_sub(1);
    put(record, at + 0x18, &highest.to_le_bytes())
}

fn set_sizes(record: &mut [u8], change: &Change<'_>) -> Result<(), Reason> {
    let at = change.record_offset;
    clustered(record, at)?;
    let field = |offset| slice_at(change.data, offset, 8).ok_or("the new sizes are not whole");
    // In the log: allocated, valid, size. In the attribute: allocated, size, valid.
    let (allocated, valid, size) = (field(0)?, field(8)?, field(16)?);
    put(record, at + 0x28, allocated)?;
    put(record, at + 0x30, size)?;
    put(record, at + 0x38, valid)?;
    let has_total = u16_at(record, at + 0x20).unwrap_or(0) >= 0x48;
    if has_total && let Ok(total) = field(24) { put(record, at + 0x40, total) } else { Ok(()) }
}

/// Operations on the entries of an index root.
fn root(record: &mut [u8], change: &Change<'_>) -> Result<(), Reason> {
    let at = change.record_offset;
    let length = attribute(record, at)?;
    let value = at + usize::from(u16_at(record, at + 0x14).unwrap_or(0));
    let value_length = u32_at(record, at + 0x10).unwrap_or(0) as usize;
    let is_root = u32_at(record, at) == Some(INDEX_ROOT) && is_resident(&record[at..at + length]);
    if !is_root || value + value_length > at + length || value_length < ROOT_HEADER + 0x20 {
        return Err("the attribute is no index root");
    }
    let header = Header::at(&record[..value + value_length], value + ROOT_HEADER)?;
    let place = at + change.attribute_offset;
    let data = change.data;
    let grow = |record: &mut [u8], removed: usize, added: usize| -> Result<(), Reason> {
        resize(record, place, removed, added)?;
        let attribute = (length - removed + added) as u32; // at most the size of a record
        put(record, at + 4, &attribute.to_le_bytes())?;
        put(record, at + 0x10, &((value_length - removed + added) as u32).to_le_bytes())?;
        header.set(record, header.end - removed + added, header.limit - removed + added)
    };
    match change.operation {
        ops::ADD_ENTRY_ROOT => {
            let new = index::new_entry(data)?;
            header.entry(record, place)?;
            grow(record, 0, new)?;
            put(record, place, &data[..new])
        }
        ops::DELETE_ENTRY_ROOT => {
            let old = header.real_entry(record, place)?;
            grow(record, old, 0)
        }
        ops::SET_VCN_ROOT => index::set_vcn(record, header, place, data),
        ops::UPDATE_NAME_ROOT => index::update_name(record, header, place, data),
        ops::UPDATE_DATA_ROOT => index::update_data(record, header, place, data),
        _ => Err("what this operation does is not known"),
    }
}
