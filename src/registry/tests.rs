use super::*;
use crate::cell::{cell as cell_of, name_hash};
use crate::subkeys::listed;
use proptest::prelude::*;
use std::collections::BTreeMap;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{ErrorKind, Severity};
use vmrescue_base::time::FileTime;

type Model = BTreeMap<String, BTreeMap<String, (u32, Vec<u8>)>>;

/// Everything in a hive by path, read by our reader.
fn read_all(hive: &Hive) -> Model {
    fn walk(key: Key<'_>, path: String, all: &mut Model) {
        let values = key.values().unwrap();
        let values = values.iter().map(|v| (v.name(), (v.data_type().0, v.data().unwrap().into_owned())));
        all.insert(path.clone(), values.collect());
        for child in key.subkeys().unwrap() {
            walk(child, format!("{path}\\{}", child.name()), all);
        }
    }
    let mut all = Model::new();
    walk(hive.root(), String::new(), &mut all);
    all
}

/// The same through the crate `nt-hive`, which shares no code with us.
fn read_by_other(bytes: &[u8]) -> Model {
    fn walk(key: nt_hive::KeyNode<'_, &[u8]>, path: String, all: &mut Model) {
        let mut values = BTreeMap::new();
        if let Some(list) = key.values() {
            for value in list.unwrap() {
                let value = value.unwrap();
                let name = value.name().unwrap().to_string_lossy();
                let data = value.data().unwrap().into_vec().unwrap();
                let kind = value.data_type().map_or(99, |kind| kind as u32);
                values.insert(name, (kind, data));
            }
        }
        all.insert(path.clone(), values);
        if let Some(children) = key.subkeys() {
            for child in children.unwrap() {
                let child = child.unwrap();
                let name = child.name().unwrap().to_string_lossy();
                walk(child, format!("{path}\\{name}"), all);
            }
        }
    }
    let mut all = Model::new();
    let hive = nt_hive::Hive::new(bytes).unwrap();
    walk(hive.root_key_node().unwrap(), String::new(), &mut all);
    all
}

#[derive(Debug, Clone)]
enum Step {
    Set(usize, usize, u32, usize),
    DeleteValue(usize, usize),
    Create(usize),
    DeleteKey(usize),
    Reopen,
}

const KEYS: [&str; 9] = [
    "",
    "\\alpha",
    "\\alpha\\one",
    "\\alpha\\Zwei",
    "\\beta",
    "\\beta\\x\\y\\z",
    "\\ключ",
    "\\äöü",
    "\\alpha\\one\\two",
];
const NAMES: [&str; 5] = ["", "Start", "ImagePath", "Имя", "ÄÖ"];
const SIZES: [usize; 8] = [0, 1, 4, 5, 100, 16_344, 16_345, 50_000];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..KEYS.len(), 0..NAMES.len(), prop::sample::select(vec![1u32, 3, 4, 7]), 0..SIZES.len())
            .prop_map(|(k, n, t, s)| Step::Set(k, n, t, s)),
        2 => (0..KEYS.len(), 0..NAMES.len()).prop_map(|(k, n)| Step::DeleteValue(k, n)),
        2 => (0..KEYS.len()).prop_map(Step::Create),
        1 => (1..KEYS.len()).prop_map(Step::DeleteKey),
        1 => Just(Step::Reopen),
    ]
}

fn model_create(model: &mut Model, path: &str) {
    for end in path.match_indices('\\').map(|(at, _)| at).skip(1).chain([path.len()]) {
        model.entry(path[..end].to_string()).or_default();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn edits_equal_a_map_for_us_and_for_another_reader(steps in prop::collection::vec(step(), 1..60)) {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        let mut model = Model::from([(String::new(), BTreeMap::new())]);
        for step in steps {
            match step {
                Step::Set(key, name, kind, size) => {
                    let data: Vec<u8> = (0..SIZES[size]).map(|i| (i * 7 + key) as u8).collect();
                    editor.set_value(KEYS[key], NAMES[name], DataType(kind), &data).unwrap();
                    model_create(&mut model, KEYS[key]);
                    model.get_mut(KEYS[key]).unwrap().insert(NAMES[name].into(), (kind, data));
                }
                Step::DeleteValue(key, name) => {
                    let gone = editor.delete_value(KEYS[key], NAMES[name]).unwrap();
                    let expected = model.get_mut(KEYS[key]).and_then(|values| values.remove(NAMES[name]));
                    prop_assert_eq!(gone, expected.is_some());
                }
                Step::Create(key) => {
                    let made = editor.create_key(KEYS[key]).unwrap();
                    prop_assert_eq!(made, !model.contains_key(KEYS[key]));
                    model_create(&mut model, KEYS[key]);
                }
                Step::DeleteKey(key) => {
                    let gone = editor.delete_key(KEYS[key], true).unwrap();
                    prop_assert_eq!(gone, model.contains_key(KEYS[key]));
                    let below = format!("{}\\", KEYS[key]);
                    model.retain(|path, _| path != KEYS[key] && !path.starts_with(&below));
                }
                Step::Reopen => {
                    let bytes = editor.finish(FileTime::now()).unwrap().bytes;
                    editor = HiveEditor::new(Hive::parse(bytes).unwrap()).unwrap();
                }
            }
            prop_assert_eq!(editor.hive().check(), Vec::new());
        }
        let bytes = editor.finish(FileTime::now()).unwrap().bytes;
        let hive = Hive::parse(bytes.clone()).unwrap();
        prop_assert!(hive.check().is_empty());
        prop_assert_eq!(&read_all(&hive), &model);
        prop_assert_eq!(&read_by_other(&bytes), &model);
    }

    #[test]
    fn damaged_hives_never_panic(hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40), cut in 0usize..3000) {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        for i in 0..40 {
            editor.set_value(&format!("a\\k{i}"), "v", DataType::SZ, &[i; 30]).unwrap();
        }
        editor.set_value("big", "v", DataType::BINARY, &[1; 40_000]).unwrap();
        let mut bytes = editor.finish(FileTime::now()).unwrap().bytes;
        for (index, value) in hits {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut);
        let _replayed = Hive::parse_with_logs(bytes.clone(), &[bytes.clone()]);
        if let Ok(hive) = Hive::parse(bytes) {
            hive.check();
            if let Ok(mut editor) = HiveEditor::new(hive) {
                let _set = editor.set_value("a\\k3\\new", "v", DataType::SZ, &[0; 100]);
                let _deleted = editor.delete_key("a", true);
            }
        }
    }
}

#[test]
fn thousands_of_subkeys_stay_sorted_and_are_found() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    for i in 0..2500u32 {
        editor.create_key(&format!("many\\key{}", i.wrapping_mul(2_654_435_761) % 100_000)).unwrap();
    }
    assert!(editor.hive().check().is_empty());
    let count = editor.hive().key("many").unwrap().unwrap().subkeys().unwrap().len();
    assert_eq!(read_by_other(&editor.finish(FileTime::now()).unwrap().bytes).len(), count + 2);
}

#[test]
fn a_small_change_changes_few_bytes() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    for i in 0..500 {
        editor.set_value(&format!("k{i}"), "Start", DataType::DWORD, &[3, 0, 0, 0]).unwrap();
    }
    let bytes = editor.finish(FileTime::now()).unwrap().bytes;
    let mut editor = HiveEditor::new(Hive::parse(bytes.clone()).unwrap()).unwrap();
    assert!(!editor.set_value("k7", "start", DataType::DWORD, &[3, 0, 0, 0]).unwrap());
    assert!(!editor.is_changed());
    editor.set_value("k7", "start", DataType::DWORD, &[4, 0, 0, 0]).unwrap();
    let edited = editor.finish(FileTime::now()).unwrap();
    assert_eq!(edited.bytes.len(), bytes.len());
    assert!(edited.changed.iter().map(Range::len).sum::<usize>() < 40);
}

#[test]
fn a_hive_that_was_not_closed_is_not_edited() {
    let mut bytes = HiveEditor::new_hive("ROOT").unwrap().finish(FileTime::now()).unwrap().bytes;
    bytes[4] ^= 1;
    let hive = Hive::parse(bytes).unwrap();
    assert_eq!(hive.defects().len(), 2);
    assert_eq!(HiveEditor::new(hive).err().map(|e| e.kind()), Some(ErrorKind::Refused));
    assert!(Hive::parse(b"no hive".to_vec()).is_err());
}

use std::ops::Range;

fn filled() -> HiveEditor {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    for (key, name, data) in [
        ("alpha", "one", vec![1, 2, 3, 4, 5, 6, 7, 8]),
        ("alpha\\deep\\deeper", "two", vec![9; 20_000]),
        ("beta", "", utf16("text\0")),
        ("gamma\\child", "x", vec![1]),
    ] {
        editor.set_value(key, name, DataType::BINARY, &data).unwrap();
    }
    editor
}

fn utf16(text: &str) -> Vec<u8> {
    vmrescue_base::text::utf16le_bytes(text)
}

fn finished(editor: HiveEditor) -> Hive {
    let hive = Hive::parse(editor.finish(FileTime::now()).unwrap().bytes).unwrap();
    let defects = hive.check();
    assert!(defects.is_empty(), "{defects:?}");
    hive
}

#[test]
fn keys_are_renamed_with_their_children() {
    let mut editor = filled();
    editor.rename_key("gamma", "a much longer name than before").unwrap();
    editor.rename_key("alpha\\deep", "z").unwrap();
    assert_eq!(editor.rename_key("beta", "Alpha").unwrap_err().kind(), ErrorKind::AlreadyExists);
    editor.rename_key("beta", "BETA").unwrap();
    assert!(editor.rename_key("", "x").is_err() && editor.rename_key("none", "x").is_err());
    let hive = finished(editor);
    let names: Vec<String> = hive.root().subkeys().unwrap().iter().map(Key::name).collect();
    assert_eq!(names, ["a much longer name than before", "alpha", "BETA"]);
    assert!(
        hive.key("a much longer name than before\\child").unwrap().unwrap().value("x").unwrap().is_some()
    );
    assert!(hive.key("alpha\\z\\deeper").unwrap().is_some() && hive.key("gamma").unwrap().is_none());
    assert_eq!(read_by_other(hive.bytes()), read_all(&hive));
}

#[test]
fn deleted_keys_and_values_are_recognised() {
    let mut editor = filled();
    editor.delete_value("alpha", "one").unwrap();
    editor.delete_key("gamma", true).unwrap();
    let hive = finished(editor);
    let deleted = hive.deleted();
    let key = |path: &str| deleted.iter().any(|r| r.path == path && matches!(r.kind, RemnantKind::Key(_)));
    assert!(key("gamma") && key("gamma\\child"), "{deleted:?}");
    let data = deleted.iter().find(|r| r.path == "one").map(|r| r.kind.clone());
    assert_eq!(data, Some(RemnantKind::Value(DataType::BINARY, Some(vec![1, 2, 3, 4, 5, 6, 7, 8]))));
    assert!(finished(filled()).deleted().is_empty());
}

#[test]
fn a_rebuilt_hive_holds_the_same_and_what_is_broken_is_listed() {
    let hive = finished(filled());
    let (bytes, lost) = rebuild(&hive).unwrap();
    assert!(lost.is_empty(), "{lost:?}");
    let again = Hive::parse(bytes).unwrap();
    assert!(again.check().is_empty(), "{:?}", again.check());
    assert_eq!(read_all(&again), read_all(&hive));
    assert_eq!(read_by_other(again.bytes()), read_all(&hive));
    let (old, new) = (hive.key("alpha").unwrap().unwrap(), again.key("alpha").unwrap().unwrap());
    assert_eq!((old.last_written(), old.security()), (new.last_written(), new.security()));

    // The value of one key and the head of another are overwritten.
    let mut bytes = hive.bytes().to_vec();
    let beta = hive.key("beta").unwrap().unwrap();
    let child = hive.key("gamma\\child").unwrap().unwrap();
    let list = 4096 + beta.number(40) as usize;
    bytes[list + 4..list + 8].fill(0xee);
    bytes[child.file_offset() as usize + 4] = b'!';
    let damaged = Hive::parse(bytes).unwrap();
    assert!(damaged.check().iter().any(|d| d.severity == Severity::Error));
    let (bytes, lost) = rebuild(&damaged).unwrap();
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(lost.iter().all(|defect| defect.offset.is_some()));
    let rebuilt = Hive::parse(bytes).unwrap();
    assert!(rebuilt.check().is_empty(), "{:?}", rebuilt.check());
    assert!(rebuilt.key("alpha\\deep\\deeper").unwrap().is_some() && rebuilt.key("gamma").unwrap().is_some());
}

#[test]
fn cells_without_an_owner_and_with_two_are_seen() {
    let hive = finished(filled());
    let alpha = hive.key("alpha").unwrap().unwrap();
    let beta = hive.key("beta").unwrap().unwrap();
    let mut bytes = hive.bytes().to_vec();
    // beta takes over alpha's value list, and its own belongs to nothing.
    let place = beta.file_offset() as usize + 4 + 40;
    bytes[place..place + 4].copy_from_slice(&alpha.number(40).to_le_bytes());
    let codes: Vec<&str> = Hive::parse(bytes).unwrap().check().iter().map(|defect| defect.code).collect();
    assert!(codes.contains(&"hive-cell-twice") && codes.contains(&"hive-cells-unreachable"), "{codes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// Any damage: everything that reads is bounded, and what is rebuilt is sound.
    #[test]
    fn damaged_hives_are_read_and_rebuilt(hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40), cut in 0usize..9000) {
        let mut bytes = finished(filled()).bytes().to_vec();
        for (at, value) in hits {
            let at = at.index(bytes.len() - 512) + 512;
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut);
        if let Ok(hive) = Hive::parse(bytes) {
            drop(hive.check());
            drop(hive.deleted());
            if let Ok((bytes, _)) = rebuild(&hive) {
                let rebuilt = Hive::parse(bytes).unwrap();
                let defects = rebuilt.check();
                prop_assert!(defects.iter().all(|d| d.severity == Severity::Note), "{defects:?}");
            }
        }
    }
}

#[test]
fn one_value_in_a_large_hive_rewrites_little() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    for i in 0..400 {
        editor.set_value(&format!("k{}\\s{i}", i % 20), "v", DataType::BINARY, &vec![7; 3000]).unwrap();
    }
    let hive = finished(editor);
    assert!(hive.bytes().len() > 1 << 20);
    let mut editor = HiveEditor::new(hive).unwrap();
    editor.set_value("k3\\s3", "v", DataType::BINARY, &[1; 3000]).unwrap();
    editor.set_value("k3\\s3", "new", DataType::SZ, &utf16("text\0")).unwrap();
    editor.set_value("k4\\another", "new", DataType::SZ, &utf16("text\0")).unwrap();
    let changed = editor.finish(FileTime::now()).unwrap().changed;
    let bytes: usize = changed.iter().map(|range| range.end - range.start).sum();
    assert!(bytes < 16 << 10, "{bytes} bytes");
}

/// What Windows' own check of hives asks for, on hives of version 1.5 and 1.3.
#[test]
fn sizes_and_hints_are_windows() {
    for minor in [3u8, 5] {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        editor.create_key("x").unwrap();
        let mut bytes = editor.finish(FileTime::now()).unwrap().bytes;
        bytes[24] = minor;
        // The one list is of the other version now.
        let hive = Hive::parse(bytes).unwrap().accept();
        let mut editor = HiveEditor::new(hive).unwrap();
        editor.delete_key("x", true).unwrap();
        for size in [16_344, 16_345, 20_000, 32_688, 32_689, 40_000, 49_032, 65_376, 100_000, 163_440] {
            editor.set_value("big", &format!("{size}"), DataType::BINARY, &vec![1; size]).unwrap();
        }
        for name in [
            "ab",
            "abcdef",
            "ж",
            "abж",
            "abcdж",
            "ß",
            "ÿ1",
            "ı",
            "µ",
            "ς",
            "𐐸",
            "𐐐",
            "RC4 128/128",
            "\u{10f801}",
        ] {
            editor.create_key(&format!("names\\{name}")).unwrap();
        }
        let hive = finished(editor);
        let names = hive.key("names").unwrap().unwrap();
        let entries = listed(hive.bytes(), names.number(28)).unwrap();
        assert_eq!(entries.len(), 14, "surrogates are never changed, so both letters are there");
        for entry in entries {
            let name = Key::at(&hive, entry.key).unwrap().name();
            if minor == 5 {
                assert_eq!(entry.hash, Some(name_hash(&name)));
            } else if ["ж", "abж", "𐐸"].contains(&name.as_str()) {
                assert_eq!(entry.hint, Some(0), "{name}");
            } else if name == "abcdж" {
                assert_eq!(entry.hint, Some(u32::from_le_bytes(*b"abcd")));
            }
        }
        for size in [16_345usize, 100_000] {
            let value = hive.key("big").unwrap().unwrap().value(&size.to_string()).unwrap().unwrap();
            let (_, at) = value.place().unwrap();
            let content = cell_of(hive.bytes(), at).unwrap();
            assert_eq!(content.starts_with(b"db") && content.len() < 100, minor == 5);
        }
    }
}

/// Each rule of docs/hive-rules.md that Windows checks is known to our check.
#[test]
fn the_check_objects_where_windows_does() {
    let mut editor = filled();
    editor.create_key("gamma\\second").unwrap();
    let hive = finished(editor);
    let put =
        |bytes: &mut Vec<u8>, at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let content = |offset: u32| 4100 + offset as usize;
    let gamma = hive.key("gamma").unwrap().unwrap();
    let alpha = hive.key("alpha").unwrap().unwrap();
    let security = content(gamma.number(44));
    let at = content(gamma.offset);
    let codes = |change: &dyn Fn(&mut Vec<u8>)| -> Vec<&'static str> {
        let mut bytes = hive.bytes().to_vec();
        change(&mut bytes);
        Hive::parse(bytes)
            .unwrap()
            .check()
            .into_iter()
            .filter(|d| d.severity != Severity::Note)
            .map(|d| d.code)
            .collect()
    };
    let list = content(gamma.number(28));
    assert_eq!(codes(&|b| put(b, at + 52, 2)), ["hive-largest-wrong"]);
    assert_eq!(codes(&|b| put(b, content(alpha.offset) + 60, 0)), ["hive-largest-wrong"]);
    assert_eq!(codes(&|b| put(b, content(alpha.offset) + 64, 1)), ["hive-largest-wrong"]);
    assert_eq!(codes(&|b| b[at + 2] |= 8), ["hive-key-flags"]);
    assert_eq!(codes(&|b| put(b, at + 16, alpha.offset)), ["hive-parent-wrong"]);
    assert_eq!(codes(&|b| put(b, at + 20, 3)), ["hive-subkey-count"]);
    assert_eq!(codes(&|b| b[list + 8] ^= 1), ["hive-hash-wrong"]);
    assert_eq!(codes(&|b| b[at + 74] = 6), ["hive-class-bad"]);
    assert_eq!(codes(&|b| b[security + 12] ^= 1), ["hive-security-count"]);
    assert_eq!(codes(&|b| b[security + 20] = 9), ["hive-security-bad"]);
    assert_eq!(codes(&|b| put(b, security + 8, 32)), ["hive-security-ring"]);
    let big = hive.key("alpha\\deep\\deeper").unwrap().unwrap().value("two").unwrap().unwrap();
    let segments =
        cell_of(hive.bytes(), u32_at(cell_of(hive.bytes(), big.place().unwrap().1).unwrap(), 4).unwrap())
            .unwrap();
    let last = 4096 + u32_at(segments, 4).unwrap() as usize;
    let short = codes(&|b| {
        put(b, last, (-8000i32).cast_unsigned());
        put(b, last + 8000, 8352);
    });
    assert_eq!(short, ["hive-segment-short"]);
}

#[test]
fn a_hive_without_its_logs_is_taken_as_it_lies() {
    let mut bytes = finished(filled()).into_bytes();
    bytes[4] = bytes[4].wrapping_add(1);
    let hive = Hive::parse(bytes.clone()).unwrap().accept();
    assert!(hive.defects().iter().any(|defect| defect.code == "hive-accepted") && !hive.is_as_on_disk());
    assert!(HiveEditor::new(hive).is_ok());
    bytes[4] = bytes[8];
    bytes[508] ^= 1;
    assert!(HiveEditor::new(Hive::parse(bytes).unwrap().accept()).is_ok());
}

#[test]
fn texts_of_a_list_come_with_the_empty_ones() {
    let typed = |data: &str| {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        editor.set_value("k", "v", DataType::MULTI_SZ, &utf16(data)).unwrap();
        let value = editor.hive().key("k").unwrap().unwrap().value("v").unwrap().unwrap().typed().unwrap();
        match value {
            ValueData::Texts(texts) => texts,
            _ => panic!("no texts"),
        }
    };
    assert_eq!(typed("a\0\0b\0\0"), ["a", "", "b"]);
    assert_eq!(typed("a\0\0\0"), ["a", ""]);
    assert_eq!(typed("a\0b"), ["a", "b"]);
    assert_eq!(typed("a\0b\0"), ["a", "b"]);
    assert!(typed("\0\0").is_empty() && typed("").is_empty() && typed("\0").is_empty());
}

/// Windows calls a key below a deleted one damage, and so do we; below a tree that replaces another one a new key replaces too.
#[test]
fn keys_below_what_a_layer_deletes_are_refused() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    editor.create_key(r"gone").unwrap();
    editor.create_key(r"tree\old").unwrap();
    let mut bytes = editor.finish(FileTime::now()).unwrap().bytes;
    bytes[24] = 6;
    let places = |bytes: &[u8]| -> Vec<usize> {
        let hive = Hive::parse(bytes.to_vec()).unwrap();
        ["gone", "tree", r"tree\old"]
            .map(|path| hive.key(path).unwrap().unwrap().file_offset() as usize)
            .to_vec()
    };
    for (at, layer) in places(&bytes).into_iter().zip([1, 3, 3]) {
        bytes[at + 4 + 13] = layer;
    }
    let sum = cell::base_checksum(&bytes);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    let hive = Hive::parse(bytes.clone()).unwrap();
    assert!(hive.check().iter().all(|defect| defect.severity == Severity::Note), "{:?}", hive.check());
    let mut editor = HiveEditor::new(hive).unwrap();
    for refused in [editor.create_key(r"gone\new"), editor.set_value("gone", "v", DataType::DWORD, &[0; 4])] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
    }
    editor.create_key(r"tree\old\new\newer").unwrap();
    let edited = editor.finish(FileTime::now()).unwrap().bytes;
    let hive = Hive::parse(edited).unwrap();
    assert!(hive.check().iter().all(|defect| defect.severity == Severity::Note), "{:?}", hive.check());
    let (rebuilt, lost) = rebuild(&hive).unwrap();
    let rebuilt = Hive::parse(rebuilt).unwrap();
    assert!(lost.is_empty() && rebuilt.check().iter().all(|defect| defect.severity == Severity::Note));
    assert_eq!(rebuilt.key("gone").unwrap().unwrap().layered(), Layered::Tombstone);
    // A value that the layer deletes has neither type nor data, and a repair leaves it so.
    let mut editor = HiveEditor::new(Hive::parse(hive.bytes().to_vec()).unwrap()).unwrap();
    editor.set_value(r"tree\old", "buried", DataType(0), &[]).unwrap();
    let node = editor.hive().key(r"tree\old").unwrap().unwrap().value_of("buried").unwrap().unwrap().0;
    editor.bury(node).unwrap();
    let buried = Hive::parse(editor.finish(FileTime::now()).unwrap().bytes).unwrap();
    let errors = |hive: &Hive| hive.check().iter().filter(|d| d.severity == Severity::Error).count();
    assert_eq!(errors(&buried), 0);
    let (again, lost) = rebuild(&buried).unwrap();
    assert_eq!((errors(&Hive::parse(again).unwrap()), lost.len()), (0, 0));
    let mut typed = buried.into_bytes();
    typed[4100 + node as usize + 12] = 1;
    assert_eq!(errors(&Hive::parse(typed).unwrap()), 1);
    // A value below the deleted key, and a layer in a hive that has none.
    let at = places(&bytes)[2];
    bytes[at + 4 + 13] = 0;
    let wrong = |bytes: &[u8]| {
        Hive::parse(bytes.to_vec()).unwrap().check().iter().any(|defect| defect.code == "hive-layer-wrong")
    };
    assert!(wrong(&bytes));
    bytes[at + 4 + 13] = 3;
    assert!(!wrong(&bytes));
    bytes[24] = 5;
    assert!(wrong(&bytes));
}

/// A new key with inherited security: the computed descriptor once for all keys that have it, counted right.
#[test]
fn new_keys_inherit_when_asked() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    editor.create_key("old").unwrap();
    editor.inherit_security();
    for name in ["a", "b", r"a\c"] {
        editor.create_key(name).unwrap();
    }
    let hive = Hive::parse(editor.finish(FileTime::now()).unwrap().bytes).unwrap();
    assert!(hive.check().iter().all(|defect| defect.severity == Severity::Note), "{:?}", hive.check());
    let security = |path: &str| hive.key(path).unwrap().unwrap().security().unwrap().to_vec();
    let root = hive.root().security().unwrap();
    assert_eq!(security("old"), root);
    assert_eq!(security("a"), security::inherited(root).unwrap());
    assert_eq!(security("a"), security("b"));
}

/// A cell that grew over the next ones: what they hold can still be read, and is no cell to Windows.
#[test]
fn what_lies_inside_of_another_cell_is_no_cell() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    editor.set_value(r"a\b", "v", DataType::SZ, &[7; 40]).unwrap();
    let mut bytes = editor.finish(FileTime::now()).unwrap().bytes;
    let places: Vec<usize> = {
        let hive = Hive::parse(bytes.clone()).unwrap();
        ["a", r"a\b"].map(|path| hive.key(path).unwrap().unwrap().file_offset() as usize).to_vec()
    };
    let end = |bytes: &[u8], at: usize| at + u32_at(bytes, at).unwrap().cast_signed().unsigned_abs() as usize;
    assert!(places[0] < places[1]);
    let size = -i32::try_from(end(&bytes, places[1]) - places[0]).unwrap();
    bytes[places[0]..places[0] + 4].copy_from_slice(&size.to_le_bytes());
    let hive = Hive::parse(bytes).unwrap();
    assert!(hive.key(r"a\b").unwrap().is_some());
    assert!(hive.check().iter().any(|defect| defect.code == "hive-cell-unknown"), "{:?}", hive.check());
}

fn with_version(bytes: &mut [u8], minor: u8) {
    bytes[24] = minor;
    let sum = cell::base_checksum(bytes);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// Thousands of siblings come, go, and get other names in any order: the lists are split and given back, and stay sorted. Down to the
/// last key of the last leaf.
#[test]
fn lists_of_subkeys_grow_and_shrink() {
    for minor in [3u8, 5] {
        let mut bytes = HiveEditor::new_hive("ROOT").unwrap().finish(FileTime::now()).unwrap().bytes;
        with_version(&mut bytes, minor);
        let mut editor = HiveEditor::new(Hive::parse(bytes).unwrap()).unwrap();
        let mut model = std::collections::BTreeSet::new();
        let mut seed = 88_172_645_463_325_252u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let name = |number: u64| match number % 3 {
            0 => format!("KEY{number}"),
            1 => format!("ж{number}"),
            _ => format!("{number}"),
        };
        for step in 0..9000 {
            // It grows beyond three leaves, and then shrinks.
            let (number, other) = (random(6000), random(6000));
            match random(10) {
                0 if model.contains(&number) && !model.contains(&other) => {
                    editor.rename_key(&format!("many\\{}", name(number)), &name(other)).unwrap();
                    model.remove(&number);
                    model.insert(other);
                }
                1..=6 if step < 6000 => {
                    assert_eq!(
                        editor.create_key(&format!("many\\{}", name(number))).unwrap(),
                        model.insert(number)
                    );
                }
                _ => {
                    let gone = editor.delete_key(&format!("many\\{}", name(number)), true).unwrap();
                    assert_eq!(gone, model.remove(&number));
                }
            }
            if step % 1500 == 1499 {
                assert_eq!(editor.hive().check(), Vec::new(), "step {step}");
                let there = editor.hive().key("many").unwrap().unwrap().subkeys().unwrap();
                let there: std::collections::BTreeSet<String> = there.iter().map(Key::name).collect();
                assert_eq!(there, model.iter().map(|number| name(*number)).collect());
            }
        }
        for number in &model {
            assert!(editor.delete_key(&format!("many\\{}", name(*number)), false).unwrap());
        }
        assert_eq!(editor.hive().check(), Vec::new());
        let many = editor.hive().key("many").unwrap().unwrap();
        assert_eq!((many.subkey_count(), many.number(28)), (0, cell::NONE));
        // All cells are free again but those of both keys, the list of the root, and the security.
        let mut used = 0;
        free::each_cell(editor.hive().bytes(), |_| {}, |_, _, is_free| used += usize::from(!is_free))
            .unwrap();
        assert_eq!(used, 4);
    }
}

/// A key more among 60,000, and 20,000 values of one key: nothing that grows with what is there already.
#[test]
fn many_siblings_and_many_values_take_no_time() {
    let begin = std::time::Instant::now();
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    for i in 0..60_500u32 {
        editor.create_key(&format!("many\\k{}", i.wrapping_mul(2_654_435_761))).unwrap();
    }
    for i in 0..20_000 {
        editor.set_value("values", &format!("v{i}"), DataType::DWORD, &[1, 0, 0, 0]).unwrap();
    }
    let hive = finished(editor);
    assert_eq!(hive.key("many").unwrap().unwrap().subkeys().unwrap().len(), 60_500);
    // Below 3 s on two busy cores; it was minutes.
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    let mut editor = HiveEditor::new(hive).unwrap();
    editor.create_key("many\\k5").unwrap();
    let changed: usize = editor.finish(FileTime::now()).unwrap().changed.iter().map(Range::len).sum();
    assert!(changed < 20_000, "{changed} bytes for one key");
}

/// Windows takes no cell of more than 1 MiB for one in use: in a hive without segments that is the largest data of a value.
#[test]
fn data_beyond_a_mebibyte_needs_segments() {
    let mut bytes = HiveEditor::new_hive("ROOT").unwrap().finish(FileTime::now()).unwrap().bytes;
    let largest = (1 << 20) - 4;
    let mut editor = HiveEditor::new(Hive::parse(bytes.clone()).unwrap()).unwrap();
    editor.set_value("k", "v", DataType::BINARY, &vec![1; largest + 1]).unwrap();
    finished(editor);
    with_version(&mut bytes, 3);
    let mut editor = HiveEditor::new(Hive::parse(bytes).unwrap()).unwrap();
    editor.set_value("k", "v", DataType::BINARY, &vec![1; largest]).unwrap();
    let refused = editor.set_value("k", "v", DataType::BINARY, &vec![1; largest + 1]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Limit);
    let hive = finished(editor);
    // A cell that is larger by a page that was free.
    let value = hive.key("k").unwrap().unwrap().value("v").unwrap().unwrap();
    let at = 4096 + value.place().unwrap().1 as usize;
    let mut large = hive.into_bytes();
    let next = at + (1 << 20);
    let free = u32_at(&large, next).unwrap().cast_signed();
    assert!(free > 8);
    large[at..at + 4].copy_from_slice(&(-(1 << 20) - 8i32).to_le_bytes());
    large[next + 8..next + 12].copy_from_slice(&(free - 8).to_le_bytes());
    let codes: Vec<&str> = Hive::parse(large).unwrap().check().iter().map(|defect| defect.code).collect();
    assert_eq!(codes, ["hive-cell-large"]);
}

/// Windows goes on at what a link leads to: what would be written below it is never seen.
#[test]
fn nothing_is_written_below_a_link() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    let target = utf16("\\Registry\\Machine\\System\\Other");
    editor.set_value("link", "SymbolicLinkValue", DataType(6), &target).unwrap();
    let link = editor.hive().key("link").unwrap().unwrap().offset;
    editor.make_link(link).unwrap();
    for refused in [editor.create_key("link\\new"), editor.set_value("link", "v", DataType::DWORD, &[0; 4])] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(r"\Registry\Machine\System\Other"), "{error}");
    }
    let other = utf16("\\Registry\\Machine\\System\\Third");
    assert!(editor.set_value("link", "SymbolicLinkValue", DataType(6), &other).unwrap());
    assert!(editor.delete_key("link", false).unwrap());
    finished(editor);
}

/// Where keys cannot all be reached nobody knows how many use a descriptor: none is freed.
#[test]
fn a_descriptor_stays_where_its_users_cannot_be_counted() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    editor.inherit_security();
    for key in ["a", "b", "c\\d"] {
        editor.create_key(key).unwrap();
    }
    let hive = finished(editor);
    let security = hive.key("b").unwrap().unwrap().number(44);
    let lost = 4096 + 4 + hive.key("c").unwrap().unwrap().offset as usize + 28;
    let mut bytes = hive.into_bytes();
    bytes[4096 + 4 + security as usize + 12] = 1;
    bytes[lost..lost + 4].copy_from_slice(&0x00FF_FFF0u32.to_le_bytes());
    let mut editor = HiveEditor::new(Hive::parse(bytes).unwrap()).unwrap();
    assert!(editor.delete_key("a", false).unwrap());
    let bytes = editor.finish(FileTime::now()).unwrap().bytes;
    assert!(cell_of(&bytes, security).is_some());
    let hive = Hive::parse(bytes).unwrap();
    assert!(hive.key("b").unwrap().unwrap().security().is_some());
}

/// Windows does not look at the count of a security cell: one that is too small must not free a descriptor that is in use.
#[test]
fn a_wrong_count_of_users_frees_nothing_that_is_used() {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    editor.inherit_security();
    for key in ["a", "b", "c"] {
        editor.create_key(key).unwrap();
    }
    let hive = finished(editor);
    let security = hive.key("a").unwrap().unwrap().number(44);
    assert_ne!(security, hive.root().number(44));
    let mut bytes = hive.into_bytes();
    let count = 4096 + 4 + security as usize + 12;
    assert_eq!(bytes[count], 3);
    bytes[count] = 1;
    let mut editor = HiveEditor::new(Hive::parse(bytes).unwrap()).unwrap();
    editor.delete_key("a", false).unwrap();
    // Counted right from there on.
    assert_eq!(editor.hive().check(), Vec::new());
    editor.delete_key("b", false).unwrap();
    editor.delete_key("c", false).unwrap();
    let hive = finished(editor);
    assert!(hive.root().security().is_some());
    assert!(cell_of(hive.bytes(), security).is_none(), "the last user takes it away");
}
