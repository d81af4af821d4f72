//! Walks every cell that the root reaches, once, and says which rule of `docs/hive-rules.md` does not hold.
//!
//! An error is what Windows' own check of a hive objects to, and then throws away or refuses to load; a warning is what Windows
//! puts right in silence; a note is neither.

pub(super) mod descriptor;
mod head;
mod map;
mod values;

use super::cell::{NONE, cell, name_hash_units, name_hint_units};
use super::hive::Hive;
use super::key::{KEY_COMPRESSED, Key, Layered, PREDEFINED, SYMBOLIC_LINK};
use super::path;
use super::subkeys::{listed, own_cells};
use map::{CellMap, Use, Wrong};
use std::collections::{BTreeMap, HashSet};
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Defect, Layer, Severity};
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_base::names;

/// Flags that only a root has: entry of a hive, "not to be deleted"; and the one that no key on disk has, the exit.
const ROOT_FLAGS: u16 = 0x0e;
const HIVE_EXIT: u16 = 0x02;

pub(super) struct Walk<'a> {
    hive: &'a Hive,
    map: CellMap,
    /// Users of each security cell.
    security: BTreeMap<u32, u32>,
    defects: Vec<Defect>,
}

/// Adds what a full walk finds.
pub(super) fn check(hive: &Hive, defects: &mut Vec<Defect>) {
    head::check(hive, defects);
    let (map, broken) = CellMap::read(hive.bytes());
    let mut walk = Walk { hive, map, security: BTreeMap::new(), defects: std::mem::take(defects) };
    if let Some(e) = broken {
        walk.defects.push(Defect::from_error("hive-cells-bad", Severity::Error, &e));
    }
    let mut seen = HashSet::new();
    let mut pending = vec![(hive.root(), None, 0)];
    while let Some((key, parent, depth)) = pending.pop() {
        if !seen.insert(key.offset) {
            walk.bad("hive-key-twice", key.offset, format!("key {} is listed twice", key.name()));
            continue;
        }
        if depth > MAX_KEY_DEPTH {
            walk.bad("hive-too-deep", key.offset, "keys are nested too deeply".into());
            continue;
        }
        walk.key(&key, parent.as_ref());
        pending.extend(walk.children(&key).into_iter().map(|child| (child, Some(key), depth + 1)));
    }
    walk.ring();
    let (count, bytes) = walk.map.unreached(hive.bytes());
    if count > 0 {
        let text = format!("{count} cells of {bytes} bytes are allocated and belong to nothing");
        walk.defects.push(Defect::new("hive-cells-unreachable", Severity::Note, Layer::Hive, None, text));
    }
    *defects = walk.defects;
}

impl<'a> Walk<'a> {
    fn bad(&mut self, code: &'static str, offset: u32, text: String) {
        let at = 4096 + u64::from(offset);
        self.defects.push(Defect::new(code, Severity::Error, Layer::Hive, at, text));
    }

    fn take(&mut self, offset: u32, what: Use) {
        match self.map.take(offset, what) {
            None => {}
            Some(Wrong::Twice(first)) => {
                let text = format!("a cell is used as {} and as {}", first.words(), what.words());
                self.bad("hive-cell-twice", offset, text);
            }
            Some(Wrong::TooLarge) => {
                let text = format!("a {} has a cell of more than 1 MiB; Windows takes none", what.words());
                self.bad("hive-cell-large", offset, text);
            }
            Some(Wrong::NoCell) => {
                let text = format!("a {} is no cell of its bin", what.words());
                self.bad("hive-cell-unknown", offset, text);
            }
        }
    }

    fn key(&mut self, key: &Key<'a>, parent: Option<&Key<'a>>) {
        self.take(key.offset, Use::Key);
        let node = cell(self.hive.bytes(), key.offset).unwrap_or_default();
        let half = |at| u16_at(node, at).unwrap_or(0);
        let (flags, name_bytes) = (half(2), usize::from(half(72)));
        let odd = flags & KEY_COMPRESSED == 0 && name_bytes % 2 == 1;
        if name_bytes == 0 || odd || node.len() < 76 + name_bytes {
            self.bad("hive-key-name", key.offset, "the name of a key does not fit into its cell".into());
        } else if !path::is_key_name(&key.name()) {
            let text = format!("{:?} cannot be the name of a key", key.name());
            self.bad("hive-key-name", key.offset, text);
        }
        if let Some(parent) = parent.filter(|parent| key.number(16) != parent.offset) {
            let text = format!("key {} names another parent than {}", key.name(), parent.name());
            self.bad("hive-parent-wrong", key.offset, text);
        }
        // A root is no link, no exit; nothing on disk is predefined.
        let never = PREDEFINED | if parent.is_some() { ROOT_FLAGS } else { HIVE_EXIT | SYMBOLIC_LINK };
        if flags & never != 0 {
            let text = format!("key {} has flags that it cannot have: {:#x}", key.name(), flags & never);
            self.bad("hive-key-flags", key.offset, text);
        }
        self.layered(key, parent);
        self.class(key, usize::from(half(74)));
        let security = key.number(44);
        *self.security.entry(security).or_default() += 1;
        let mut longest = [(60, 0), (64, 0)];
        self.values(key, &mut longest);
        for (at, found) in longest {
            self.longest(key, at, key.number(at), found);
        }
    }

    /// What a layer does with the key of that name below it, since version 1.6; before that nothing.
    fn layered(&mut self, key: &Key<'a>, parent: Option<&Key<'a>>) {
        let layered = key.layered();
        let said = key.layer_bits() != 0;
        let wrong = if self.hive.minor_version() < 6 {
            said.then_some("belongs to a layer, and the hive has none")
        } else if parent.is_none() && matches!(layered, Layered::Tombstone | Layered::ReplacesTree) {
            Some("is a root that a layer deletes or replaces")
        } else if layered == Layered::Tombstone && (key.subkey_count() > 0 || key.number(36) > 0) {
            Some("is deleted by its layer and has subkeys or values")
        } else if parent.is_some_and(|parent| parent.layered() == Layered::ReplacesTree)
            && !matches!(layered, Layered::Tombstone | Layered::ReplacesTree)
        {
            Some("is below a key that replaces its whole tree, and does not")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.bad("hive-layer-wrong", key.offset, format!("key {} {wrong}", key.name()));
        }
    }

    fn class(&mut self, key: &Key<'a>, bytes: usize) {
        let class = key.number(48);
        if bytes == 0 && class == NONE {
            return;
        }
        match cell(self.hive.bytes(), class).filter(|content| bytes > 0 && content.len() >= bytes) {
            Some(_) => self.take(class, Use::Class),
            None => {
                let text = match bytes {
                    0 => format!("key {} has a cell for a class name and no class name", key.name()),
                    _ => format!("the class name of {} cannot be read", key.name()),
                };
                self.bad("hive-class-bad", key.offset, text);
            }
        }
    }

    /// A key says how long the longest name or data below it is. Less than that is an error to Windows.
    fn longest(&mut self, key: &Key<'_>, at: usize, said: u32, found: u32) {
        if found > said {
            let what = match at {
                52 => "name of a subkey",
                60 => "name of a value",
                _ => "data of a value",
            };
            let text = format!("key {} has a {what} of {found} bytes and says at most {said}", key.name());
            self.bad("hive-largest-wrong", key.offset, text);
        }
    }

    fn children(&mut self, key: &Key<'a>) -> Vec<Key<'a>> {
        let count = key.subkey_count();
        if count == 0 {
            return Vec::new();
        }
        let bytes = self.hive.bytes();
        let list = key.number(28);
        for own in own_cells(bytes, list) {
            self.take(own, Use::List);
            if cell(bytes, own).and_then(|leaf| u16_at(leaf, 2)) == Some(0) {
                self.bad("hive-subkeys-bad", own, "a subkey list is empty".into());
            }
        }
        let entries = match listed(bytes, list) {
            Ok(entries) => entries,
            Err(e) => {
                self.defects.push(Defect::from_error("hive-subkeys-bad", Severity::Error, &e));
                return key.subkeys_lenient().0;
            }
        };
        if entries.len() != count as usize {
            let text = format!("{count} subkeys expected, {} listed", entries.len());
            self.bad("hive-subkey-count", key.offset, text);
        }
        let mut children: Vec<Key<'a>> = Vec::with_capacity(entries.len());
        let (mut last, mut name, mut longest) = (Vec::new(), Vec::new(), 0);
        for entry in entries {
            let child = match Key::at(self.hive, entry.key) {
                Ok(child) => child,
                Err(e) => {
                    self.defects.push(Defect::from_error("hive-subkeys-bad", Severity::Error, &e));
                    continue;
                }
            };
            child.units(&mut name);
            longest = longest.max(2 * name.len());
            if entry.hint.is_some_and(|hint| hint != name_hint_units(&name)) {
                self.bad(
                    "hive-hint-wrong",
                    key.offset,
                    format!("the hint of subkey {} is wrong", child.name()),
                );
            }
            name.iter_mut().for_each(|unit| *unit = names::upper(*unit));
            if entry.hash.is_some_and(|hash| hash != name_hash_units(&name)) {
                self.bad(
                    "hive-hash-wrong",
                    key.offset,
                    format!("the hash of subkey {} is wrong", child.name()),
                );
            }
            if !children.is_empty() && last >= name {
                self.bad(
                    "hive-subkeys-unsorted",
                    key.offset,
                    format!("subkey {} is out of order", child.name()),
                );
            }
            std::mem::swap(&mut last, &mut name);
            children.push(child);
        }
        self.longest(key, 52, key.number(52) & 0xffff, longest as u32);
        children
    }

    /// All security cells form a ring; each has a descriptor and counts its users.
    fn ring(&mut self) {
        let bytes = self.hive.bytes();
        let first = self.hive.root().number(44);
        let (mut at, mut ring) = (first, HashSet::new());
        loop {
            let Some(sk) = cell(bytes, at).filter(|sk| sk.len() >= 20) else {
                let what = if at == NONE {
                    "a key has no security descriptor"
                } else {
                    "a security cell is damaged"
                };
                self.bad("hive-security-bad", at, what.into());
                break;
            };
            self.take(at, Use::Security);
            ring.insert(at);
            let warning =
                |code, text| Defect::new(code, Severity::Warning, Layer::Hive, 4096 + u64::from(at), text);
            // Windows follows the ring and does not look at this.
            if !sk.starts_with(b"sk") {
                let text = "a security cell does not say that it is one".to_string();
                self.defects.push(warning("hive-security-signature", text));
            }
            let number = |place| u32_at(sk, place).unwrap_or(0);
            let descriptor = sk.get(20..20usize.saturating_add(number(16) as usize));
            if let Some(what) = descriptor.map_or(Some("is longer than its cell"), descriptor::wrong) {
                self.bad("hive-security-bad", at, format!("a security descriptor {what}"));
            }
            let users = self.security.get(&at).copied().unwrap_or(0);
            if number(12) != users {
                let text = format!("a security cell counts {} users and has {users}", number(12));
                self.defects.push(warning("hive-security-count", text));
            }
            let next = number(4);
            if cell(bytes, next).and_then(|sk| u32_at(sk, 8)) != Some(at) {
                self.bad("hive-security-ring", at, "the ring of security cells is broken".into());
                break;
            }
            at = next;
            if at == first {
                break;
            }
            if ring.contains(&at) {
                self.bad("hive-security-ring", at, "the ring of security cells does not close".into());
                break;
            }
        }
        let outside: Vec<u32> = self.security.keys().filter(|at| !ring.contains(at)).copied().collect();
        for at in outside {
            let users = self.security.get(&at).copied().unwrap_or(0);
            let text = format!("{users} keys have a security descriptor that the hive does not know");
            self.bad("hive-security-user", at, text);
        }
    }
}
