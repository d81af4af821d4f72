//! The indexes of $Extend against the files: $Reparse:$R, $ObjId:$O, and the frame of $Quota.

use super::Part;
use super::codes::*;
use super::notes::{Notes, Remedy};
use super::tree::{self, Expected};
use crate::ntfs::node::{Node, kind};
use crate::ntfs::record::number_of;
use crate::ntfs::volume::Volume;
use crate::{FileSystem, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use vmrescue_base::bytes::{slice_at, u32_at, u64_at};
use vmrescue_base::text::utf16le_bytes;

/// Largest reparse point.
const MAX_REPARSE_BYTES: u64 = 16 << 10;
/// Record of $Extend.
const EXTEND: u64 = 11;
/// Bytes of an entry of $Quota:$Q without the SID.
const QUOTA_BYTES: usize = 0x30;

fn file(volume: &Volume, name: &str) -> Option<(u64, Arc<Node>)> {
    let id = volume.lookup(NodeId(EXTEND), name).ok()??;
    Some((number_of(id.0), volume.node_of(id).ok()?))
}

/// Looks at all of them.
pub(super) fn look(volume: &Volume, part: &mut Part) {
    if volume.version().0 < 3 {
        return;
    }
    reparse(volume, part);
    object_ids(volume, part);
    quota(volume, &mut part.notes);
}

fn reparse(volume: &Volume, part: &mut Part) {
    let mut points = std::mem::take(&mut part.reparse);
    for number in std::mem::take(&mut part.far_reparse) {
        let Ok(node) = volume.node(number) else { continue };
        let value = node.attribute(kind::REPARSE_POINT, &[]);
        let value = value.and_then(|a| volume.attribute_bytes(a, MAX_REPARSE_BYTES).ok());
        if let Some(tag) = value.and_then(|value| u32_at(&value, 0)) {
            points.push((tag, number | u64::from(node.sequence) << 48));
        }
    }
    let mut wanted: BTreeMap<Vec<u8>, (u64, Vec<u8>)> = points
        .iter()
        .map(|(tag, reference)| {
            ([&tag.to_le_bytes()[..], &reference.to_le_bytes()].concat(), (*reference, Vec::new()))
        })
        .collect();
    both_ways(volume, "$Reparse", "$R", REPARSE_INDEX, &mut wanted, &mut part.notes);
}

fn object_ids(volume: &Volume, part: &mut Part) {
    let mut wanted: BTreeMap<Vec<u8>, (u64, Vec<u8>)> = std::mem::take(&mut part.object_ids)
        .into_iter()
        .map(|(id, reference, birth)| {
            let data = [&reference.to_le_bytes()[..], &birth].concat();
            (id.to_vec(), (reference, data))
        })
        .collect();
    both_ways(volume, "$ObjId", "$O", OBJECT_ID_INDEX, &mut wanted, &mut part.notes);
}

/// The keys of an index against those that files want, which are left empty.
fn both_ways(
    volume: &Volume,
    name: &'static str,
    index: &str,
    code: Code,
    wanted: &mut BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    notes: &mut Notes,
) {
    let Some((number, node)) = file(volume, name) else {
        if !wanted.is_empty() {
            notes.leave(
                code,
                None,
                format!("{} files need an entry in {name}, which is missing", wanted.len()),
            );
        }
        return;
    };
    let at = volume.record_offset(number);
    let expected = Expected { attribute: 0, collation: 0x13 };
    let whole =
        tree::walk(volume, number, &node, &utf16le_bytes(index), expected, notes, &mut |entry, notes| {
            let data = slice_at(
                entry.body,
                (entry.reference & 0xFFFF) as usize,
                (entry.reference >> 16 & 0xFFFF) as usize,
            );
            let known = wanted.remove(entry.key);
            // Of an object id the reference must fit; the ids of its birth are facts of this entry.
            let fits = known.as_ref().is_some_and(|(reference, data_wanted)| {
                data_wanted.is_empty() || data.and_then(|d| u64_at(d, 0)) == Some(*reference)
            });
            if !fits {
                let key = vmrescue_base::text::hex(entry.key);
                let detail = format!("{name}:{index} has an entry {key} that fits no file");
                notes.mend(code, at, detail, Remedy::RemoveKey { file: name, key: entry.key.to_vec() });
            }
        });
    for (key, (reference, data)) in std::mem::take(wanted).into_iter().filter(|_| whole) {
        let number = number_of(reference);
        let detail = format!("{name}:{index} has no entry for record {number:#x}");
        notes.mend(code, volume.record_offset(number), detail, Remedy::AddKey { file: name, key, data });
    }
}

fn quota(volume: &Volume, notes: &mut Notes) {
    let Some((number, node)) = file(volume, "$Quota") else { return };
    let at = volume.record_offset(number);
    let mut owners = BTreeMap::new();
    let expected = |collation| Expected { attribute: 0, collation };
    tree::walk(volume, number, &node, &utf16le_bytes("$O"), expected(0x11), notes, &mut |entry, _| {
        let id = slice_at(entry.body, (entry.reference & 0xFFFF) as usize, 4).and_then(|d| u32_at(d, 0));
        owners.insert(entry.key.to_vec(), id.unwrap_or(0));
    });
    tree::walk(volume, number, &node, &utf16le_bytes("$Q"), expected(0x10), notes, &mut |entry, notes| {
        let data = slice_at(
            entry.body,
            (entry.reference & 0xFFFF) as usize,
            (entry.reference >> 16 & 0xFFFF) as usize,
        );
        let id = u32_at(entry.key, 0).unwrap_or(0);
        let sid = data.and_then(|d| d.get(QUOTA_BYTES..)).unwrap_or_default();
        let version = data.and_then(|d| u32_at(d, 0));
        if data.is_none() || version.is_none_or(|v| v == 0 || v > 3) {
            notes.note(QUOTA, at, format!("$Quota:$Q: the entry of owner {id:#x} cannot be"));
        } else if id >= 0x100
            && !sid.is_empty()
            && !owners.iter().any(|(key, own)| *own == id && sid.starts_with(key))
        {
            notes.note(QUOTA, at, format!("$Quota:$O does not know owner {id:#x}"));
        }
    });
}
