//! Walks every cell that can be reached from the root, and says what does not fit.

use super::cell::{cell, compare_names, name_hash, signed};
use super::free::FreeCells;
use super::hive::Hive;
use super::key::Key;
use super::subkeys::listed;
use std::collections::{HashMap, HashSet};
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Defect, Layer, Severity};
use vmrescue_base::limits::MAX_KEY_DEPTH;

struct Walk<'a> {
    hive: &'a Hive,
    seen: HashSet<u32>,
    security: HashMap<u32, u32>,
}

/// Adds what a full walk finds.
pub(super) fn check(hive: &Hive, defects: &mut Vec<Defect>) {
    if let Err(e) = FreeCells::scan(hive.bytes()) {
        defects.push(Defect::from_error("hive-cells-bad", Severity::Error, &e));
    }
    let mut walk = Walk { hive, seen: HashSet::new(), security: HashMap::new() };
    let mut pending = vec![(hive.root(), 0)];
    while let Some((key, depth)) = pending.pop() {
        let at = key.file_offset();
        let mut bad =
            |code, text: String| defects.push(Defect::new(code, Severity::Error, Layer::Hive, at, text));
        if !walk.seen.insert(key.offset) {
            bad("hive-key-twice", format!("key {} is listed twice", key.name()));
            continue;
        }
        if depth > MAX_KEY_DEPTH {
            bad("hive-too-deep", "keys are nested too deeply".into());
            continue;
        }
        *walk.security.entry(key.number(44)).or_default() += 1;
        if let Err(e) = values(&key) {
            bad("hive-value-bad", e);
        }
        match walk.children(&key) {
            Ok(children) => pending.extend(children.into_iter().map(|child| (child, depth + 1))),
            Err((code, text)) => bad(code, text),
        }
    }
    walk.check_security(defects);
    super::reach::check(hive, defects);
}

fn values(key: &Key<'_>) -> Result<(), String> {
    let values = key.values().map_err(|e| e.to_string())?;
    values.iter().try_for_each(|value| value.data().map(|_| ()).map_err(|e| e.to_string()))
}

impl<'a> Walk<'a> {
    fn children(&self, key: &Key<'a>) -> Result<Vec<Key<'a>>, (&'static str, String)> {
        let count = key.subkey_count();
        if count == 0 {
            return Ok(Vec::new());
        }
        let unreadable = |e: vmrescue_base::error::Error| ("hive-subkeys-bad", e.to_string());
        let entries = listed(self.hive.bytes(), key.number(28)).map_err(unreadable)?;
        if entries.len() != count as usize {
            return Err(("hive-subkey-count", format!("{count} subkeys expected, {} listed", entries.len())));
        }
        let mut children: Vec<Key<'a>> = Vec::with_capacity(entries.len());
        for (offset, hash) in entries {
            let child = Key::at(self.hive, offset).map_err(unreadable)?;
            let name = child.name();
            if hash.is_some_and(|hash| hash != name_hash(&name)) {
                return Err(("hive-hash-wrong", format!("the hash of subkey {name} is wrong")));
            }
            if children.last().is_some_and(|last| compare_names(&last.name(), &name).is_ge()) {
                return Err(("hive-subkeys-unsorted", format!("subkey {name} is out of order")));
            }
            if child.number(16) != key.offset {
                return Err(("hive-parent-wrong", format!("subkey {name} names another parent")));
            }
            children.push(child);
        }
        Ok(children)
    }

    fn check_security(&self, defects: &mut Vec<Defect>) {
        for (offset, users) in &self.security {
            let at = 4096 + u64::from(*offset);
            let sk = signed(self.hive.bytes(), *offset, b"sk");
            let count = sk.and_then(|sk| u32_at(sk, 12));
            let text = match count {
                None if cell(self.hive.bytes(), *offset).is_none() => {
                    "a key has no security descriptor".to_string()
                }
                None => "the security of a key is damaged".to_string(),
                Some(count) if count != *users => {
                    format!("a security cell counts {count} users and has {users}")
                }
                Some(_) => continue,
            };
            defects.push(Defect::new("hive-security-count", Severity::Warning, Layer::Hive, at, text));
        }
    }
}
