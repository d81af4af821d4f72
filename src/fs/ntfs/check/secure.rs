//! $Secure: the descriptors in $SDS with their second copies, the two indexes over them, and the ids that files carry.
//!
//! $SDS is a sequence of pairs of 256 KiB blocks, the second of a pair being a copy of the first. An entry: hash, id, its own
//! place, its length, and the descriptor; entries begin at multiples of 16.

use super::codes::*;
use super::notes::{Notes, Remedy};
use super::record::Fact;
use super::tree::{self, Expected};
use crate::ntfs::mkfs::security;
use crate::ntfs::node::kind;
use crate::ntfs::volume::Volume;
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::bytes::{slice_at, u32_at, u64_at};
use vmrescue_base::text::utf16le_bytes;

/// Record of $Secure.
const SECURE: u64 = 9;
/// Bytes of a block of $SDS, and the distance to its copy.
const BLOCK: u64 = security::MIRROR_BYTES;
/// Most bytes of $SDS: 2^32 ids need more, nobody has them.
const MAX_SDS_BYTES: u64 = 1 << 30;
/// Bytes in front of a descriptor.
const HEADER: usize = 20;

/// A descriptor's header, as it stands in $SDS, $SII and $SDH.
type Header = [u8; HEADER];

/// Looks at $Secure and at the ids of all files.
pub(super) fn look(volume: &Volume, facts: &[Fact], notes: &mut Notes) {
    if volume.version().0 < 3 {
        return; // descriptors lie in the files
    }
    let at = volume.record_offset(SECURE);
    let Ok(node) = volume.node(SECURE) else {
        return notes.note(SYSTEM_FILE, at, "$Secure cannot be read");
    };
    let Some(data) = node.attribute(kind::DATA, &utf16le_bytes("$SDS")) else {
        return notes.note(SYSTEM_FILE, at, "$Secure has no $SDS");
    };
    let sds = match volume.attribute_bytes(data, MAX_SDS_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => return notes.note(SDS, error.offset().or(at), format!("$SDS cannot be read: {error}")),
    };
    let entries = descriptors(&sds, at, notes);
    let mut ids = BTreeSet::new();
    let index = |name: &str, collation: u32, id_at: usize, notes: &mut Notes| {
        let mut seen = BTreeSet::new();
        let expected = Expected { attribute: 0, collation };
        let whole =
            tree::walk(volume, SECURE, &node, &utf16le_bytes(name), expected, notes, &mut |entry, notes| {
                let id = u32_at(entry.key, id_at).unwrap_or(0);
                let header = slice_at(entry.body, (entry.reference & 0xFFFF) as usize, HEADER);
                let same = entries.get(&id).is_some_and(|own| header == Some(own));
                let keyed = id_at == 0 || header.and_then(|h| u32_at(h, 0)) == u32_at(entry.key, 0);
                if !same || !keyed {
                    notes.note(
                        SECURE_INDEX,
                        at,
                        format!("{name}: the entry of id {id:#x} is not what $SDS has"),
                    );
                }
                seen.insert(id);
            });
        for id in entries.keys().filter(|id| whole && !seen.contains(id)) {
            notes.note(SECURE_INDEX, at, format!("{name} has no entry for the descriptor {id:#x}"));
        }
        seen
    };
    ids.append(&mut index("$SII", 0x10, 0, notes));
    index("$SDH", 0x12, 4, notes);
    for (number, fact) in facts.iter().enumerate() {
        if fact.is(Fact::USED) && fact.security != 0 && !ids.contains(&fact.security) {
            let number = number as u64;
            let detail = format!(
                "record {number:#x} has the security id {:#x}, which $Secure does not know",
                fact.security
            );
            notes.note(SECURITY_ID, volume.record_offset(number), detail);
        }
    }
}

/// The headers of all descriptors by their ids.
fn descriptors(sds: &[u8], at: Option<u64>, notes: &mut Notes) -> BTreeMap<u32, Header> {
    let mut entries = BTreeMap::new();
    let mut place = 0u64;
    // Bounded: every step moves on by at least 16 bytes.
    while (place as usize) < sds.len() {
        let end = place / (2 * BLOCK) * 2 * BLOCK + BLOCK;
        let header = slice_at(sds, place as usize, HEADER).and_then(|h| Header::try_from(h).ok());
        let Some(header) =
            header.filter(|h| !vmrescue_base::bytes::is_zero(h) && place + HEADER as u64 <= end)
        else {
            place = end + BLOCK;
            continue;
        };
        let length = u32_at(&header, 16).unwrap_or(0) as usize;
        let (hash, id) = (u32_at(&header, 0).unwrap_or(0), u32_at(&header, 4).unwrap_or(0));
        let whole = slice_at(sds, place as usize, length).filter(|_| {
            length >= HEADER + 20 && place + length as u64 <= end && u64_at(&header, 8) == Some(place)
        });
        let Some(whole) = whole else {
            // Behind the last entry of a block lies what was on the disk before.
            if u64_at(&header, 8) == Some(place) {
                let detail = format!("$SDS at {place:#x}: an entry of {length:#x} bytes, which cannot be");
                notes.note(SDS, at, detail);
            }
            place = end + BLOCK;
            continue;
        };
        if security::hash(&whole[HEADER..]) != hash || whole[HEADER] != 1 {
            notes.note(SDS, at, format!("$SDS at {place:#x}: the descriptor {id:#x} does not have its hash"));
        }
        let copy = slice_at(sds, (place + BLOCK) as usize, length);
        if copy != Some(whole) {
            let detail = format!("$SDS at {place:#x}: the second copy of the descriptor {id:#x} differs");
            if (place + BLOCK) as usize + length <= sds.len() {
                notes.mend(SDS_MIRROR, at, detail, Remedy::SdsMirror);
            } else {
                notes.leave(SDS_MIRROR, at, detail);
            }
        }
        if entries.insert(id, header).is_some() {
            notes.note(SDS, at, format!("$SDS at {place:#x}: a second descriptor with id {id:#x}"));
        }
        place = (place + length as u64).next_multiple_of(16);
    }
    entries
}
