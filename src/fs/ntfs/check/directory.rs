//! Directories against records: every entry must be a name of its record, every name must have an entry.
//!
//! Both sides are collected as numbers (see `name_hash`), sorted and merged; only what does not match is read again.

use super::Part;
use super::codes::*;
use super::notes::{Notes, Remedy};
use super::record::{Fact, RESERVED, name_hash, name_of};
use super::tree::{self, NAMES};
use crate::ntfs::directory::I30;
use crate::ntfs::index::FileName;
use crate::ntfs::node::{Attr, kind};
use crate::ntfs::record::{number_of, sequence_of};
use crate::ntfs::volume::Volume;
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::text::utf16le_lossy;

/// Walks one directory: its entries as numbers, its own damage as notes.
pub(super) fn entries(volume: &Volume, number: u64, fact: Fact, part: &mut Part) {
    let node = match volume.node(number) {
        Ok(node) => node,
        Err(error) => {
            // What is wrong with its records is said where they are looked at.
            let at = error.offset().or_else(|| volume.record_offset(number));
            part.broken.push(number);
            return part.notes.note(INDEX, at, format!("directory {number:#x}: {error}"));
        }
    };
    if node.attribute(kind::INDEX_ROOT, I30).is_none() {
        part.broken.push(number);
        return part.notes.note(
            DIRECTORY,
            volume.record_offset(number),
            format!("record {number:#x}: a directory without $I30"),
        );
    }
    let own = number | u64::from(fact.sequence) << 48;
    let mut found = Vec::new();
    let at = volume.record_offset(number);
    let whole = tree::walk(volume, number, &node, I30, NAMES, &mut part.notes, &mut |entry, notes| {
        let Some(name) = FileName::parse(entry.key) else {
            return notes.note(INDEX, at, format!("directory {number:#x}: an entry whose key is no name"));
        };
        if name.parent() != own {
            let text = utf16le_lossy(name.name_bytes());
            let detail =
                format!("directory {number:#x}: the entry {text:?} names {:#x} as its parent", name.parent());
            let remedy =
                Remedy::RemoveEntry { directory: own, key: entry.key.to_vec(), reference: entry.reference };
            return notes.mend(ENTRY_PARENT, at, detail, remedy);
        }
        found.push((name_hash(entry.reference, own, name.namespace(), name.name_bytes()), number));
    });
    if !whole {
        part.broken.push(number);
    }
    part.entries.append(&mut found);
}

/// Compares both sides.
pub(super) fn compare(volume: &Volume, facts: &[Fact], part: &mut Part) {
    let (mut names, mut entries) = (std::mem::take(&mut part.names), std::mem::take(&mut part.entries));
    names.sort_unstable();
    entries.sort_unstable();
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (names.into_iter().peekable(), entries.into_iter().peekable());
    loop {
        match (left.peek().copied(), right.peek().copied()) {
            (Some((a, _)), Some((b, _))) if a == b => {
                left.next();
                right.next();
            }
            (Some((a, number)), Some((b, _))) if a < b => {
                missing.push((a, number));
                left.next();
            }
            (Some((a, number)), None) => {
                missing.push((a, number));
                left.next();
            }
            (_, Some(entry)) => {
                extra.push(entry);
                right.next();
            }
            (None, None) => break,
        }
    }
    let broken: BTreeSet<u64> = part.broken.iter().copied().collect();
    extra_entries(volume, facts, &extra, &mut part.notes);
    missing_entries(volume, facts, &missing, &broken, &mut part.notes);
}

fn extra_entries(volume: &Volume, facts: &[Fact], extra: &[(u64, u64)], notes: &mut Notes) {
    let mut directories: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (hash, number) in extra {
        directories.entry(*number).or_default().push(*hash);
    }
    for (number, mut hashes) in directories {
        let Ok(node) = volume.node(number) else { continue };
        let own = number | u64::from(facts.get(number as usize).map_or(0, |f| f.sequence)) << 48;
        let at = volume.record_offset(number);
        tree::walk(volume, number, &node, I30, NAMES, &mut Notes::default(), &mut |entry, _| {
            let Some(name) = FileName::parse(entry.key) else { return };
            let hash = name_hash(entry.reference, own, name.namespace(), name.name_bytes());
            let Some(place) = hashes.iter().position(|known| *known == hash) else { return };
            hashes.swap_remove(place);
            let target = number_of(entry.reference);
            let fact = facts.get(target as usize).copied().unwrap_or_default();
            let text = utf16le_lossy(name.name_bytes());
            let why = if fact.is(Fact::DAMAGED) {
                "is damaged"
            } else if !fact.is(Fact::USED) {
                "is free"
            } else if fact.sequence != sequence_of(entry.reference) {
                "was reused"
            } else {
                "does not have this name"
            };
            let detail = format!("directory {number:#x}: {text:?} leads to record {target:#x}, which {why}");
            if fact.is(Fact::DAMAGED) || target < RESERVED {
                return notes.leave(ENTRY_WITHOUT_FILE, at, detail);
            }
            let remedy =
                Remedy::RemoveEntry { directory: own, key: entry.key.to_vec(), reference: entry.reference };
            notes.mend(ENTRY_WITHOUT_FILE, at, detail, remedy);
        });
    }
}

fn missing_entries(
    volume: &Volume,
    facts: &[Fact],
    missing: &[(u64, u64)],
    broken: &BTreeSet<u64>,
    notes: &mut Notes,
) {
    let hashes: BTreeSet<u64> = missing.iter().map(|(hash, _)| *hash).collect();
    let numbers: BTreeSet<u64> = missing.iter().map(|(_, number)| *number).collect();
    for number in numbers {
        let fact = facts.get(number as usize).copied().unwrap_or_default();
        // An extension record without its base is said on its own.
        if !fact.is(Fact::USED) || fact.is(Fact::EXTENSION) {
            continue;
        }
        let Ok(node) = volume.node(number) else { continue };
        let reference = number | u64::from(fact.sequence) << 48;
        let at = volume.record_offset(number);
        let values: Vec<&[u8]> = node.all(kind::FILE_NAME).filter_map(Attr::resident).collect();
        let leads = |value: &[u8]| -> Option<bool> {
            let name = name_of(value)?;
            let parent = facts.get(number_of(name.parent()) as usize).copied().unwrap_or_default();
            Some(
                parent.is(Fact::USED)
                    && parent.is(Fact::DIRECTORY)
                    && !parent.is(Fact::EXTENSION)
                    && parent.sequence == sequence_of(name.parent()),
            )
        };
        let mut orphan = false;
        for value in &values {
            let Some(name) = name_of(value) else { continue };
            let parent = name.parent();
            if !hashes.contains(&name_hash(reference, parent, name.namespace(), name.name_bytes())) {
                continue;
            }
            let (text, directory) = (utf16le_lossy(name.name_bytes()), number_of(parent));
            if leads(value) == Some(true) {
                if broken.contains(&directory) {
                    continue;
                }
                let detail =
                    format!("directory {directory:#x} has no entry for {text:?} of record {number:#x}");
                let remedy = Remedy::AddEntry { reference, key: value.to_vec() };
                if number < RESERVED {
                    notes.leave(NAME_NOT_IN_INDEX, at, detail);
                } else {
                    notes.mend(NAME_NOT_IN_INDEX, at, detail, remedy);
                }
                continue;
            }
            let detail =
                format!("record {number:#x}: its directory {directory:#x}, where it is {text:?}, is gone");
            if number < RESERVED {
                notes.leave(ORPHAN, at, detail);
            } else if std::mem::replace(&mut orphan, true) {
                notes.note(ORPHAN, at, detail);
            } else {
                notes.mend(ORPHAN, at, detail, Remedy::Orphan { reference, key: value.to_vec() });
            }
        }
    }
}

/// Counts of names against those that there are, and directories that no way leads to.
pub(super) fn counts_and_loops(volume: &Volume, facts: &[Fact], part: &mut Part) {
    for (number, fact) in facts.iter().enumerate() {
        let number = number as u64;
        let counted = fact.is(Fact::USED) && !fact.is(Fact::EXTENSION | Fact::DAMAGED) && number >= RESERVED;
        if counted && fact.names > 0 && fact.links != fact.names {
            let detail = format!("record {number:#x} says {} names and has {}", fact.links, fact.names);
            part.notes.mend(LINK_COUNT, volume.record_offset(number), detail, Remedy::Header(number));
        }
    }
    let mut parents = std::mem::take(&mut part.parents);
    parents.sort_unstable();
    parents.dedup_by_key(|(number, _)| *number);
    let index = |number: u64| parents.binary_search_by_key(&number, |(known, _)| *known).ok();
    // 0: not visited, 1: on the way that is followed now, 2: done.
    let mut state = vec![0u8; parents.len()];
    for start in 0..parents.len() {
        let (mut way, mut at) = (Vec::new(), Some(start));
        while let Some(place) = at {
            if state[place] == 1 && parents[place].0 != parents[place].1 {
                let number = parents[place].0;
                let detail = format!("directory {number:#x} lies below itself");
                part.notes.note(DIRECTORY_LOOP, volume.record_offset(number), detail);
            }
            if state[place] != 0 {
                break;
            }
            state[place] = 1;
            way.push(place);
            at = index(parents[place].1);
        }
        way.into_iter().for_each(|place| state[place] = 2);
    }
}
