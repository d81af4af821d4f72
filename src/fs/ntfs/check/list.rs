//! Attribute lists: each entry against the attribute that it names, each attribute against the list, segments against
//! each other.

use super::codes::*;
use super::notes::Notes;
use super::record::{Fact, name_of, name_pairs, pair, sizes};
use crate::ntfs::node::{Attr, kind};
use crate::ntfs::record::{Attribute, Body, Mapped, Record, number_of, sequence_of};
use crate::ntfs::volume::Volume;
use crate::ntfs::write::runs;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::Result;
use vmrescue_base::limits::MAX_ATTRIBUTE_LIST_BYTES;

struct Entry<'a> {
    kind: u32,
    name: &'a [u8],
    lowest: u64,
    reference: u64,
    id: u16,
}

/// All entries; `None` when the list does not hold them.
fn entries(mut list: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut out = Vec::new();
    // Bounded: every entry takes at least 0x1A bytes.
    while !list.is_empty() {
        let length = usize::from(u16_at(list, 4)?);
        let bytes = slice_at(list, 0, length).filter(|_| length >= 0x1A)?;
        list = &list[length..];
        let units = usize::from(*bytes.get(6)?);
        out.push(Entry {
            kind: u32_at(bytes, 0)?,
            name: if units == 0 { &[] } else { slice_at(bytes, usize::from(*bytes.get(7)?), 2 * units)? },
            lowest: u64_at(bytes, 8)?,
            reference: u64_at(bytes, 0x10)?,
            id: u16_at(bytes, 0x18)?,
        });
    }
    Some(out)
}

/// The value of the attribute list of a record.
fn value(volume: &Volume, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    for attribute in Record::of_fixed(bytes).attributes().flatten() {
        if attribute.kind == kind::ATTRIBUTE_LIST {
            let list = Attr::first(&attribute, volume.boot().clusters())?;
            return volume.attribute_bytes(&list, MAX_ATTRIBUTE_LIST_BYTES).map(Some);
        }
    }
    Ok(None)
}

/// Where an attribute is: its type, name, first VCN, record and instance number.
type Place = (u32, Vec<u8>, u64, u64, u16);

fn segment_of(attribute: &Attribute<'_>) -> u64 {
    match attribute.body {
        Body::NonResident(mapped) => mapped.lowest_vcn,
        Body::Resident(_) => 0,
    }
}

/// Looks at the list of record `number`; the extension records that it names go into `owned`.
pub(super) fn look(
    volume: &Volume,
    number: u64,
    facts: &[Fact],
    owned: &mut BTreeSet<u64>,
    notes: &mut Notes,
) {
    let at = volume.record_offset(number);
    let say = |notes: &mut Notes, code: Code, text: String| {
        notes.note(code, at, format!("record {number:#x}: {text}"));
    };
    let Ok(bytes) = volume.fixed_record(number) else { return };
    let own = number | u64::from(Record::of_fixed(&bytes).sequence()) << 48;
    let list = match value(volume, &bytes) {
        Ok(Some(list)) => list,
        Ok(None) => return,
        Err(error) => return say(notes, LIST, format!("its attribute list: {error}")),
    };
    let Some(list) = entries(&list) else {
        return say(notes, LIST, "its attribute list does not hold its own entries".into());
    };
    let order = |a: &Entry<'_>, b: &Entry<'_>| {
        let upper = |n: &[u8]| -> Vec<u16> {
            vmrescue_base::text::utf16le_units(n).into_iter().map(|u| volume.upcase().unit(u)).collect()
        };
        (a.kind, upper(a.name), a.lowest).cmp(&(b.kind, upper(b.name), b.lowest))
    };
    if list.windows(2).any(|pair| order(&pair[0], &pair[1]) == Ordering::Greater) {
        say(notes, LIST_ORDER, "entries of its attribute list are not in order".into());
    }
    let mut records: BTreeMap<u64, Vec<u8>> = BTreeMap::from([(number, bytes)]);
    let mut wrong = BTreeSet::new();
    for entry in &list {
        let home = number_of(entry.reference);
        if records.contains_key(&home) || !wrong.insert(home) {
            continue;
        }
        let fact = facts.get(home as usize).copied().unwrap_or_default();
        let extension = volume.fixed_record(home).ok().filter(|bytes| {
            let record = Record::of_fixed(bytes);
            record.base() == own && fact.is(Fact::USED) && record.sequence() == sequence_of(entry.reference)
        });
        match extension {
            Some(bytes) => {
                wrong.remove(&home);
                owned.insert(home);
                records.insert(home, bytes);
            }
            None => say(
                notes,
                LIST_ENTRY,
                format!("record {home:#x} of its attribute list is no extension of it"),
            ),
        }
    }
    let mut there: BTreeSet<Place> = BTreeSet::new();
    let (mut segments, mut pairs) = (BTreeMap::new(), Vec::new());
    let mut names = 0;
    for (home, bytes) in &records {
        for attribute in Record::of_fixed(bytes).attributes().flatten() {
            if attribute.kind == kind::ATTRIBUTE_LIST {
                continue;
            }
            let lowest = segment_of(&attribute);
            there.insert((attribute.kind, attribute.name.to_vec(), lowest, *home, attribute.id));
            match attribute.body {
                Body::NonResident(mapped) => {
                    let key = (attribute.kind, attribute.name.to_vec());
                    segments.entry(key).or_insert_with(Vec::new).push((mapped, attribute.flags));
                }
                Body::Resident(value) if attribute.kind == kind::FILE_NAME => {
                    names += 1;
                    if let Some(name) = name_of(value) {
                        pair(&mut pairs, name.parent(), name.namespace());
                    }
                }
                Body::Resident(_) => {}
            }
        }
    }
    let listed: BTreeSet<Place> =
        list.iter().map(|e| (e.kind, e.name.to_vec(), e.lowest, number_of(e.reference), e.id)).collect();
    for (kind, _, lowest, home, id) in listed.difference(&there).filter(|place| !wrong.contains(&place.3)) {
        say(
            notes,
            LIST_ENTRY,
            format!("attribute {kind:#x} from VCN {lowest:#x}, instance {id}, is not in record {home:#x}"),
        );
    }
    for (kind, _, lowest, home, id) in there.difference(&listed) {
        say(
            notes,
            LIST_MISSING,
            format!(
                "attribute {kind:#x} from VCN {lowest:#x}, instance {id} of record {home:#x}, is not listed"
            ),
        );
    }
    if !listed.iter().any(|place| place.0 == kind::STANDARD_INFORMATION) {
        say(notes, STANDARD_INFORMATION, "no $STANDARD_INFORMATION".into());
    }
    if names == 0 && number >= super::record::RESERVED {
        say(notes, WITHOUT_NAME, "no name".into());
    }
    name_pairs(&pairs, number, at, notes);
    for ((kind, _), mut parts) in segments {
        parts.sort_by_key(|(mapped, _)| mapped.lowest_vcn);
        if let Some((code, text)) = joined(volume, &parts) {
            say(notes, code, format!("attribute {kind:#x}: {text}"));
        }
    }
}

/// What is wrong with the segments of one attribute.
fn joined(volume: &Volume, parts: &[(Mapped<'_>, u16)]) -> Option<(Code, String)> {
    let (mut end, mut real) = (0, 0);
    for (mapped, _) in parts {
        if mapped.lowest_vcn != end {
            let text =
                format!("a segment begins at VCN {:#x}, the one before ends at {end:#x}", mapped.lowest_vcn);
            return Some((LIST_SEGMENTS, text));
        }
        // What cannot be decoded was noted where the record was read.
        let list = runs::decode(mapped.pairs, volume.boot().clusters()).ok()?;
        end += runs::clusters(&list);
        real += list.iter().filter(|run| run.lcn.is_some()).map(|run| run.count).sum::<u64>();
    }
    let (first, flags) = parts.first()?;
    sizes(first, *flags, end, real, u64::from(volume.boot().cluster_bytes), false)
        .map(|text| (RUN_SIZES, text))
}
