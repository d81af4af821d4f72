//! Hives with one wrong field, and what .reg files can say: our check calls wrong what Microsoft's chkreg calls wrong.
//!
//! `VMRESCUE_HIVE_EDITS` is the number of edits a hive for the long sweep (`scripts/hive-sweep.sh`).

use crate::oracle::told;
use crate::registry_judges::{Random, chkreg, corpus_hives};
use vmrescue::registry::{Hive, HiveEditor, Key};
use vmrescue::time::FileTime;

/// Our check calls a hive of the corpus wrong where Microsoft's does, and no other.
#[test]
fn our_check_objects_where_chkreg_objects() {
    let Some(found) = corpus_hives() else { return };
    if std::env::var_os("VMRESCUE_CHKREG").is_none() {
        return told("Microsoft's chkreg is not at hand (VMRESCUE_CHKREG)");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hive");
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&file, &bytes).unwrap();
        let (good, words) = chkreg(&file).unwrap();
        let hive = Hive::parse(bytes).unwrap();
        let defects = hive.check();
        let ours = hive.is_clean() && !defects.iter().any(|d| d.severity == vmrescue::Severity::Error);
        assert_eq!(ours, good, "{}: {words} {defects:?}", path.display());
    }
}

/// A field of a structure, and what could be in it by mistake.
pub(crate) fn mutated(bytes: &[u8], random: &mut Random) -> Option<(Vec<u8>, String)> {
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut cells, mut bin) = (Vec::new(), 0);
    while bin < number(bytes, 40) as usize {
        let end = bin + number(bytes, 4096 + bin + 8) as usize;
        let mut at = bin + 32;
        while at < end {
            let size = number(bytes, 4096 + at).cast_signed();
            cells.push((4096 + at, size.unsigned_abs() as usize, size < 0));
            at += size.unsigned_abs() as usize;
        }
        bin = end;
    }
    const KEY: [usize; 18] = [0, 2, 4, 12, 16, 20, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 72, 76];
    // Of a security cell its own fields only: wine has no check of descriptors.
    let (signature, fields): (&[u8], &[usize]) = match random.below(7) {
        0 | 1 => (b"nk", &KEY),
        2 | 3 => (b"vk", &[0, 2, 4, 8, 12, 16, 20]),
        4 => (b"sk", &[0, 4, 8, 12]),
        5 => ([&b"lf"[..], b"lh", b"li", b"db"][random.below(4)], &[0, 2, 4, 8, 12]),
        _ => (b"", &[]),
    };
    let mut copy = bytes.to_vec();
    let (at, what) = if fields.is_empty() {
        let at = match random.below(3) {
            0 => [20, 24, 28, 32, 36, 40][random.below(6)],
            1 => 4096 + [0, 4, 8][random.below(3)],
            _ => cells[random.below(cells.len())].0,
        };
        (at, format!("at {at:#x}"))
    } else {
        let fit: Vec<usize> = cells
            .iter()
            .filter(|(at, size, used)| *used && *size > 88 - 68 && bytes[at + 4..].starts_with(signature))
            .map(|(at, ..)| *at)
            .collect();
        let field = fields[random.below(fields.len())];
        let cell = *fit.get(random.below(fit.len().max(1)))?;
        (cell + 4 + field, format!("{} {cell:#x} + {field}", String::from_utf8_lossy(signature)))
    };
    let old = number(bytes, at);
    let new = match random.below(7) {
        0 => 0,
        1 => u32::MAX,
        2 => old.wrapping_add(1),
        3 => old.wrapping_sub(1),
        4 => old ^ (1 << random.below(32)),
        5 => old & 0xffff_0000 | random.below(1 << 16) as u32,
        _ => (cells[random.below(cells.len())].0 - 4096) as u32,
    };
    copy[at..at + 4].copy_from_slice(&new.to_le_bytes());
    if at < 512 {
        let sum = copy[..508].as_chunks::<4>().0.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
        copy[508..512].copy_from_slice(&sum.to_le_bytes());
    }
    (copy != bytes).then(|| (copy, format!("{what}: {old:#x} is {new:#x}")))
}

/// One field of a good hive is changed at random: we call it wrong where Microsoft does, and nowhere else.
#[test]
fn mutated_hives_are_wrong_where_chkreg_says() {
    let Some(found) = corpus_hives() else { return };
    if std::env::var_os("VMRESCUE_CHKREG").is_none() {
        return told("Microsoft's chkreg is not at hand (VMRESCUE_CHKREG)");
    }
    let wanted = std::env::var("VMRESCUE_HIVE_EDITS").ok().and_then(|number| number.parse::<usize>().ok());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hive");
    let (mut random, mut verdicts) = (Random(0x1234_5678_9abc_def1), [0; 2]);
    let mut differ = Vec::new();
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&file, &bytes).unwrap();
        // A large hive takes chkreg a second each.
        if bytes.len() > 600_000 || !chkreg(&file).unwrap().0 {
            continue;
        }
        for _ in 0..wanted.map_or(4, |edits| edits / 10) {
            let Some((copy, what)) = mutated(&bytes, &mut random) else { continue };
            std::fs::write(&file, &copy).unwrap();
            let (good, words) = chkreg(&file).unwrap();
            let defects = Hive::parse(copy).map(|hive| (hive.is_clean(), hive.check()));
            let ours = defects.as_ref().is_ok_and(|(clean, defects)| {
                *clean && !defects.iter().any(|d| d.severity == vmrescue::Severity::Error)
            });
            verdicts[usize::from(good)] += 1;
            if ours != good {
                differ.push(format!("{} {what}: {words} {defects:?}", path.display()));
            }
        }
    }
    eprintln!("{} wrong and {} right hives judged alike", verdicts[0], verdicts[1]);
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(verdicts[0] > 20 && verdicts[1] > 20, "{verdicts:?}");
}

const LINES: &str = "the name of a key goes over lines, and a key of a .reg file is one line";
const TWICE: &str =
    "two values of one key have one name, and the second line of a .reg file would replace the first";

/// Why no .reg file can say a hive; `None` where one can.
fn unsayable(key: &Key<'_>) -> Option<&'static str> {
    let values = key.values().unwrap();
    let names: std::collections::BTreeSet<String> =
        values.iter().map(|value| vmrescue::names::folded(&value.name())).collect();
    if names.len() < values.len() {
        return Some(TWICE);
    }
    let children = key.subkeys().unwrap();
    if children.iter().any(|child| child.name().contains(['\r', '\n'])) {
        return Some(LINES);
    }
    children.iter().find_map(unsayable)
}

/// What is exported comes back: keys, values, and their order.
#[test]
fn every_hive_comes_back_from_its_reg_file() {
    use vmrescue::registry::reg_text::{self, Operation};
    let Some(found) = corpus_hives() else { return };
    let (mut same, mut unsaid) = (0, Vec::new());
    for path in found {
        let hive = Hive::parse(std::fs::read(&path).unwrap()).unwrap();
        if hive.check().iter().any(|d| d.severity == vmrescue::Severity::Error) {
            continue;
        }
        if let Some(why) = unsayable(&hive.root()) {
            unsaid.push((path.file_name().unwrap().to_string_lossy().into_owned(), why));
            continue;
        }
        let mut text = reg_text::HEADER.to_string();
        reg_text::key_text(&hive.root(), "ROOT", &mut text).unwrap();
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        for operation in reg_text::parse(&reg_text::file_bytes(&text)).unwrap() {
            let below = |key: &str| key.strip_prefix("ROOT").unwrap().to_string();
            match operation {
                Operation::CreateKey { key } => drop(editor.create_key(&below(&key)).unwrap()),
                Operation::Set { key, name, data_type, data } => {
                    editor.set_value(&below(&key), &name, data_type, &data).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        let back = Hive::parse(editor.finish(FileTime::now()).unwrap().bytes).unwrap();
        let mut again = reg_text::HEADER.to_string();
        reg_text::key_text(&back.root(), "ROOT", &mut again).unwrap();
        let differs = text.lines().zip(again.lines()).find(|(a, b)| a != b);
        assert!(text == again, "{}: {differs:?}", path.display());
        same += 1;
    }
    eprintln!("{same} hives equal");
    assert!(same >= 58, "{same}");
    assert_eq!(unsaid, [("BogusKeyNamesHive".to_string(), LINES)]);
}
