//! Random edits of every hive of the corpus, new keys and those that were there, held to a model and judged by everybody
//! (`registry_judges.rs`); repairs of damaged copies are judged the same.
//!
//! `VMRESCUE_HIVE_EDITS` is the number of edits a hive (1,500 for the long sweep of `scripts/hive-sweep.sh`).

use crate::oracle::told;
use crate::registry_judges::{Random, chkreg, corpus_hives, judge, rules};
use crate::registry_rules::mutated;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use vmrescue::names::folded;
use vmrescue::registry::path::below;
use vmrescue::registry::reg_text::{self, Operation};
use vmrescue::registry::{DataType, Hive, HiveEditor, Key, rebuild};
use vmrescue::time::FileTime;
use vmrescue::{ErrorKind, Severity};

/// Values by the key's path and the value's name, both in upper case.
type Model = BTreeMap<String, BTreeMap<String, (u32, Vec<u8>)>>;

fn model_of(hive: &Hive) -> Model {
    fn walk(key: &Key<'_>, path: &str, model: &mut Model) {
        let mut values = BTreeMap::new();
        for value in key.values().unwrap() {
            // Of two values of one name the first is the one that is found.
            let data = (value.data_type().0, value.data().unwrap().into_owned());
            values.entry(folded(&value.name())).or_insert(data);
        }
        model.insert(path.to_string(), values);
        for child in key.subkeys().unwrap() {
            walk(&child, &below(path, &folded(&child.name())), model);
        }
    }
    let mut model = Model::new();
    walk(&hive.root(), "", &mut model);
    model
}

fn is_in(path: &str, key: &str) -> bool {
    path == key || path.strip_prefix(key).is_some_and(|rest| rest.starts_with('\\'))
}

struct Edits {
    editor: HiveEditor,
    random: Random,
    model: Model,
    /// Keys that were there before.
    old: Vec<String>,
    /// Two values of one name: what is there after one is deleted, the model does not know.
    exact: bool,
}

impl Edits {
    fn new(hive: Hive, seed: u64) -> Edits {
        let model = model_of(&hive);
        let twice = |key: &Key<'_>| {
            let names: Vec<String> =
                key.values().unwrap().iter().map(|value| folded(&value.name())).collect();
            names.iter().collect::<BTreeSet<_>>().len() < names.len()
        };
        fn any(key: &Key<'_>, wanted: &dyn Fn(&Key<'_>) -> bool) -> bool {
            wanted(key) || key.subkeys().unwrap().iter().any(|child| any(child, wanted))
        }
        let exact = !any(&hive.root(), &twice);
        let old = model.keys().filter(|key| !key.is_empty()).cloned().collect();
        Edits { editor: HiveEditor::new(hive).unwrap(), random: Random(seed), model, old, exact }
    }

    /// False for what a hive does not take: nothing may have happened then.
    fn taken<T>(result: vmrescue::Result<T>, what: &str) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(e) if matches!(e.kind(), ErrorKind::Refused | ErrorKind::Limit) => None,
            Err(e) => panic!("{what}: {e}"),
        }
    }

    fn make(&mut self, path: &str) {
        let mut above = String::new();
        for name in path.split('\\') {
            above = below(&above, &folded(name));
            self.model.entry(above.clone()).or_default();
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::CreateKey { key } => {
                if Edits::taken(self.editor.create_key(key), key).is_some() {
                    self.make(key);
                }
            }
            Operation::DeleteKey { key } => {
                let path = folded(key);
                let gone = self.editor.delete_key(key, true).unwrap();
                assert_eq!(gone, self.model.contains_key(&path), "{key}");
                self.model.retain(|other, _| !is_in(other, &path));
            }
            Operation::Set { key, name, data_type, data } => {
                if Edits::taken(self.editor.set_value(key, name, *data_type, data), key).is_some() {
                    self.make(key);
                    let values = self.model.get_mut(&folded(key)).unwrap();
                    values.insert(folded(name), (data_type.0, data.clone()));
                }
            }
            Operation::DeleteValue { key, name } => {
                let gone = self.editor.delete_value(key, name).unwrap();
                let known = self.model.get_mut(&folded(key)).and_then(|values| values.remove(&folded(name)));
                assert!(gone == known.is_some() || !self.exact, "{key} {name}");
            }
        }
    }

    fn rename(&mut self, key: &str, name: &str) {
        // A rename may meet a key that is there, or none.
        if self.editor.rename_key(key, name).is_err() {
            return;
        }
        let old = folded(key);
        let above = old.rsplit_once('\\').map_or("", |(above, _)| above);
        let new = below(above, &folded(name));
        let moved: Vec<String> = self.model.keys().filter(|other| is_in(other, &old)).cloned().collect();
        for path in moved {
            let values = self.model.remove(&path).unwrap();
            self.model.insert(format!("{new}{}", &path[old.len()..]), values);
        }
    }

    /// A key of ours, or one that was there.
    fn key(&mut self) -> String {
        if !self.old.is_empty() && self.random.below(4) == 0 {
            return self.old[self.random.below(self.old.len())].clone();
        }
        let depth = if self.random.below(40) == 0 { 30 } else { 1 + self.random.below(4) };
        let names = std::iter::once("Edits".to_string()).chain((0..depth).map(|_| self.random.name()));
        names.collect::<Vec<_>>().join("\\")
    }

    fn set(&mut self) -> Operation {
        let (key, name) = (self.key(), self.random.value_name());
        let data = vec![self.random.below(256) as u8; self.random.size()];
        Operation::Set { key, name, data_type: DataType(self.random.below(13) as u32), data }
    }

    /// A .reg file of a few lines; what is read of it is what it was made of.
    fn import(&mut self) {
        let mut wanted = Vec::new();
        let mut text = reg_text::HEADER.to_string();
        for _ in 0..1 + self.random.below(4) {
            let key = self.key().replace(['\r', '\n'], "");
            if self.random.below(6) == 0 && key.starts_with("Edits") {
                text += &format!("[-{key}] ; words\r\n");
                wanted.push(Operation::DeleteKey { key });
                continue;
            }
            text += &format!("[{key}] ; words\r\n");
            wanted.push(Operation::CreateKey { key: key.clone() });
            for _ in 0..self.random.below(3) {
                let name = self.random.value_name();
                let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
                if self.random.below(4) == 0 {
                    text += &format!("\"{quoted}\"=-\r\n");
                    wanted.push(Operation::DeleteValue { key: key.clone(), name });
                    continue;
                }
                let kind = self.random.below(13) as u32;
                let data: Vec<u8> =
                    (0..self.random.below(200)).map(|_| self.random.below(256) as u8).collect();
                let bytes: Vec<String> = data.iter().map(|byte| format!("{byte:02x}")).collect();
                let lines: Vec<String> = bytes.chunks(17).map(|line| line.join(",")).collect();
                text += &format!("\"{quoted}\"=hex({kind:x}):{}\r\n; words\r\n", lines.join(",\\\r\n  "));
                wanted.push(Operation::Set { key: key.clone(), name, data_type: DataType(kind), data });
            }
        }
        let read = reg_text::parse(&reg_text::file_bytes(&text)).unwrap();
        assert_eq!(read, wanted, "{text}");
        read.iter().for_each(|operation| self.apply(operation));
    }

    fn some(&mut self, edits: usize) {
        for _ in 0..edits {
            match self.random.below(40) {
                0..=3 => {
                    let key = self.key();
                    // Of what was there, seldom a whole tree.
                    if key.starts_with("Edits") || self.random.below(8) == 0 {
                        self.apply(&Operation::DeleteKey { key });
                    }
                }
                4..=5 => {
                    let key = self.key();
                    let names = key.split('\\').take(2).collect::<Vec<_>>().join("\\");
                    if key.starts_with("Edits") {
                        self.apply(&Operation::DeleteKey { key: names });
                    }
                }
                6..=9 => {
                    let (key, name) = (self.key(), self.random.value_name());
                    let there =
                        self.model.get(&folded(&key)).and_then(|values| values.keys().next().cloned());
                    let name = there.filter(|_| self.random.below(2) == 0).unwrap_or(name);
                    self.apply(&Operation::DeleteValue { key, name });
                }
                10..=13 => {
                    let (key, name) = (self.key(), self.random.name());
                    let names = if key.starts_with("Edits") { 2 } else { usize::MAX };
                    let key = key.split('\\').take(names).collect::<Vec<_>>().join("\\");
                    self.rename(&key, &name);
                }
                14..=17 => {
                    let key = self.key();
                    self.apply(&Operation::CreateKey { key });
                }
                18..=19 => self.import(),
                20..=22 => {
                    // Data that shrinks and grows over the edges of segments.
                    let key = r"Edits\grows".to_string();
                    let data = vec![7; 16_344 * self.random.below(5) + self.random.below(3)];
                    let name = format!("v{}", self.random.below(3));
                    self.apply(&Operation::Set { key, name, data_type: DataType::BINARY, data });
                }
                _ => {
                    let set = self.set();
                    self.apply(&set);
                }
            }
        }
    }

    /// The hive as a file; the edits go on in it.
    fn finished(self, what: &str) -> (Vec<u8>, Edits) {
        let bytes = self.editor.finish(FileTime::now()).unwrap().bytes;
        let hive = Hive::parse(bytes.clone()).unwrap();
        if self.exact {
            let there = model_of(&hive);
            let differs = there.iter().zip(&self.model).find(|(a, b)| a != b);
            assert!(there == self.model, "{what}: {differs:?}");
        }
        (bytes, Edits { editor: HiveEditor::new(hive).unwrap(), ..self })
    }
}

/// Repairs of what was damaged in one field are hives of Windows too.
fn repairs(file: &Path, bytes: &[u8], random: &mut Random, count: usize, what: &str, windows: bool) {
    let mut repaired = 0;
    for _ in 0..20 * count {
        let Some((damaged, how)) = mutated(bytes, random) else { continue };
        let Ok(hive) = Hive::parse(damaged) else { continue };
        if hive.check().iter().all(|defect| defect.severity != Severity::Error) {
            continue;
        }
        let (rebuilt, lost) = rebuild(&hive).unwrap();
        // Each loss says the key that it is of.
        assert!(lost.iter().all(|defect| defect.detail.contains(": ")), "{lost:?}");
        judge(file, &rebuilt, &BTreeSet::new(), &format!("{what}, {how}"), windows);
        repaired += 1;
        if repaired == count {
            return;
        }
    }
}

/// Random edits of every whole hive; then what was made is deleted again, and rebuilt copies are judged too.
#[test]
fn random_edits_are_hives_of_windows() {
    let Some(found) = corpus_hives() else { return };
    if std::env::var_os("VMRESCUE_CHKREG").is_none() {
        told("Microsoft's chkreg is not at hand (VMRESCUE_CHKREG)");
    }
    let wanted = std::env::var("VMRESCUE_HIVE_EDITS").ok().and_then(|number| number.parse::<usize>().ok());
    let part = std::env::var("VMRESCUE_HIVE_NAMES").unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edited");
    let (mut edited, mut by_hivex) = (0, 0);
    for path in found.into_iter().filter(|path| path.to_string_lossy().contains(&part)) {
        let bytes = std::fs::read(&path).unwrap();
        // The everyday run leaves the large ones to the sweep.
        if wanted.is_none() && bytes.len() > 800_000 {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let hive = Hive::parse(bytes.clone()).unwrap();
        let damaged = hive.check().iter().any(|d| d.severity == Severity::Error);
        if damaged || !hive.is_clean() {
            continue;
        }
        let begin = std::time::Instant::now();
        // chkreg objects to rebuilt layered hives (docs/SHORTCOMINGS.md), not to edited ones.
        let layered = hive.minor_version() > 5;
        std::fs::write(&file, &bytes).unwrap();
        let known = rules(&file);
        // Where Windows itself objects to what Windows wrote, our edit is not what it objects to.
        let windows = chkreg(&file).is_none_or(|(good, _)| good);
        let mut edits = Edits::new(hive, 0x2545_f491_4f6c_dd1d ^ bytes.len() as u64);
        // Asking about a large hive takes the raw checker a minute.
        let (rounds, each) = match wanted {
            None => (1, 60),
            Some(edits) if bytes.len() > 4_000_000 => (1, edits),
            Some(edits) => (edits.div_ceil(300), edits.min(300)),
        };
        let mut bytes = bytes;
        for round in 0..rounds {
            edits.some(each);
            (bytes, edits) = edits.finished(&format!("{name}, round {round}"));
            judge(&file, &bytes, &known, &format!("{name}, round {round}"), windows);
        }
        for i in 0..if wanted.is_some() { 1200 } else { 0 } {
            let key = format!("Edits\\many\\{}", i * 7919 % 100_003);
            edits.apply(&Operation::CreateKey { key });
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ bytes.len() as u64);
        if wanted.is_some() {
            (bytes, edits) = edits.finished(&format!("{name}, many"));
            judge(&file, &bytes, &known, &format!("{name}, many"), windows);
        }
        by_hivex += usize::from(crate::registry_oracles::hivex_agrees(&file, &bytes, &name));
        let (rebuilt, lost) = rebuild(&Hive::parse(bytes.clone()).unwrap()).unwrap();
        assert!(lost.is_empty(), "{name}: {lost:?}");
        judge(&file, &rebuilt, &known, &format!("{name}, rebuilt"), windows && !layered);
        if bytes.len() < 4_000_000 {
            let count = if wanted.is_some() { 5 } else { 1 };
            repairs(&file, &bytes, &mut random, count, &format!("{name}, damaged"), windows && !layered);
        }
        edits.apply(&Operation::DeleteKey { key: "Edits".into() });
        let (bytes, _) = edits.finished(&format!("{name}, deleted"));
        judge(&file, &bytes, &known, &format!("{name}, deleted"), windows);
        edited += 1;
        eprintln!("{name}: {} edits, {:.0?}", rounds * each, begin.elapsed());
    }
    eprintln!("{edited} hives edited, {by_hivex} of them read by hivex");
    assert!(!part.is_empty() || edited > 10);
}
