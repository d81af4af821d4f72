//! Hives that Windows takes as its own: random edits of every hive of the corpus, judged by our check, by `hive_rules.py` (a reader
//! of its own, written from the rules of `docs/hive-rules.md`), and by Microsoft's chkreg where it is at hand.
//!
//! `VMRESCUE_HIVE_EDITS` is the number of edits a hive (1,500 for the long sweep of `scripts/hive-sweep.sh`); `VMRESCUE_CHKREG` is the
//! path of chkreg.exe, run by wine64 with the prefix of `WINEPREFIX`.

use crate::oracle::{corpus, told};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use vmrescue::registry::{DataType, Hive, HiveEditor, Key};
use vmrescue::time::FileTime;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/hive_rules.py")
}

/// What the raw checker says of a hive: the rules that do not hold.
fn rules(path: &Path) -> BTreeSet<String> {
    let output = Command::new("python3").arg(script()).arg(path).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split(' ').next()).map(String::from).collect()
}

/// Keys and values as the raw checker reads them.
fn dump(path: &Path) -> Vec<serde_json::Value> {
    let output = Command::new("python3").arg(script()).arg("--dump").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn units(name: &str) -> Vec<u16> {
    vmrescue::names::to_units(name)
}

/// The same as we read it.
fn ours(hive: &Hive) -> BTreeSet<String> {
    fn walk(key: &Key<'_>, path: &mut Vec<Vec<u16>>, lines: &mut BTreeSet<String>) {
        use sha2::Digest;
        path.push(units(&key.name()));
        lines.insert(serde_json::json!(["key", path, key.last_written().0]).to_string());
        for value in key.values().unwrap() {
            let data = value.data().unwrap();
            let shown = match data.len() {
                0..=64 => vmrescue::text::hex(&data),
                length => format!("{}:{length}", vmrescue::text::hex(&sha2::Sha256::digest(&data))),
            };
            let line = serde_json::json!(["value", path, units(&value.name()), value.data_type().0, shown]);
            lines.insert(line.to_string());
        }
        for child in key.subkeys().unwrap() {
            walk(&child, path, lines);
        }
        path.pop();
    }
    let mut lines = BTreeSet::new();
    walk(&hive.root(), &mut Vec::new(), &mut lines);
    lines
}

/// Microsoft's verdict: `None` where it is not at hand, else whether it found the hive good, and its words.
fn chkreg(path: &Path) -> Option<(bool, String)> {
    let program = std::env::var_os("VMRESCUE_CHKREG")?;
    let folder = path.parent().unwrap();
    std::fs::copy(program, folder.join("chkreg.exe")).unwrap();
    let output = Command::new("/usr/lib/wine/wine64")
        .current_dir(folder)
        .args(["chkreg.exe", "/F"])
        .arg(path.file_name().unwrap())
        .arg("/V")
        .env("WINEDEBUG", "-all")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Some((text.contains("no errors found"), text))
}

fn hives(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            hives(&path, found);
        } else if std::fs::read(&path).is_ok_and(|b| b.len() > 8192 && b.starts_with(b"regf") && b[28] == 0) {
            found.push(path);
        }
    }
}

fn corpus_hives() -> Option<Vec<PathBuf>> {
    let corpus = corpus()?;
    let mut found = Vec::new();
    hives(&corpus.join("03-registry"), &mut found);
    hives(&corpus.join("04-bcd"), &mut found);
    assert!(found.len() > 20);
    Some(found)
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    /// A name of a key: usual ones, `/`, letters whose upper case is Windows' own, pairs and halves of pairs, every length.
    fn name(&mut self) -> String {
        let odd = [
            "RC4 128/128",
            "text/html",
            "ıµς",
            "ᾳß",
            "жЖ",
            "𐐸",
            "𐐐",
            "ÿ",
            "a]b",
            "\u{10f801}x",
            "日本",
            "abcж",
            "ж",
        ];
        match self.below(6) {
            0 => self.of(&odd).to_string(),
            1 => format!("{}{}", self.of(&odd), self.below(50)),
            2 => "n".repeat(1 + self.below(255)),
            3 => "ж".repeat(1 + self.below(120)),
            _ => format!("k{}", self.below(400)),
        }
    }

    fn size(&mut self) -> usize {
        match self.below(8) {
            0 => (16_344 * (1 + self.below(4))) + self.below(3) - 1,
            1 => 1 + self.below(30_000),
            2 => self.below(9),
            _ => self.below(300),
        }
    }
}

fn edit(editor: &mut HiveEditor, random: &mut Random, edits: usize) {
    for _ in 0..edits {
        let depth = if random.below(40) == 0 { 30 } else { 1 + random.below(4) };
        let path: Vec<String> =
            std::iter::once("Edits".to_string()).chain((0..depth).map(|_| random.name())).collect();
        let key = path.join("\\");
        match random.below(12) {
            0 => drop(editor.delete_key(&key, true).unwrap()),
            1 => drop(editor.delete_key(&path[..2].join("\\"), true).unwrap()),
            2 => drop(editor.delete_value(&key, "v1").unwrap()),
            3 => {
                // A rename may meet a key that is there, or none.
                let _refused = editor.rename_key(&path[..2].join("\\"), &random.name());
            }
            4 => drop(editor.create_key(&key).unwrap()),
            _ => {
                let data = vec![random.below(256) as u8; random.size()];
                let kind = DataType(random.below(13) as u32);
                editor.set_value(&key, &format!("v{}", random.below(6)), kind, &data).unwrap();
            }
        }
    }
}

/// Judges a file that we wrote; `known` are the rules that did not hold before.
fn judge(path: &Path, bytes: &[u8], known: &BTreeSet<String>, what: &str, windows: bool) {
    std::fs::write(path, bytes).unwrap();
    let hive = Hive::parse(bytes.to_vec()).unwrap();
    let errors: Vec<_> = hive
        .check()
        .into_iter()
        .filter(|d| d.severity != vmrescue::Severity::Note && d.code != "hive-security-count")
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
    let new: Vec<String> = rules(path).difference(known).cloned().collect();
    assert!(new.is_empty(), "{what}: the raw checker finds {new:?}");
    let theirs: BTreeSet<String> = dump(path).iter().map(ToString::to_string).collect();
    let ours = ours(&hive);
    assert!(ours == theirs, "{what}: {:?}", ours.symmetric_difference(&theirs).next());
    if !windows || std::env::var_os("VMRESCUE_CHKREG").is_none() {
        return;
    }
    std::fs::write(path, without_what_chkreg_misreads(hive)).unwrap();
    if let Some((good, words)) = chkreg(path) {
        assert!(good, "{what}: Microsoft's chkreg objects: {words}");
    }
}

/// The name as it is stored: its place and its bytes, and whether it is UTF-16.
fn stored(hive: &Hive, key: &Key<'_>) -> (usize, usize, bool) {
    let node = key.file_offset() as usize + 4;
    let half = |at: usize| u16::from_le_bytes([hive.bytes()[node + at], hive.bytes()[node + at + 1]]);
    (node + 76, usize::from(half(72)), half(2) & 0x20 == 0)
}

/// chkreg compares two UTF-16 names over twice their length (bytes where it means characters), so what lies behind a name decides
/// which of two is first; the kernel does not. What it would misjudge is deleted from what it is given.
fn without_what_chkreg_misreads(hive: Hive) -> Vec<u8> {
    fn misread(hive: &Hive, key: &Key<'_>, path: &str, found: &mut Vec<String>) {
        let unit = |at: usize| {
            let two = hive.bytes().get(at..at + 2).map_or(0, |two| u16::from_le_bytes([two[0], two[1]]));
            if (0x41..=0x5a).contains(&two) { two + 32 } else { two }
        };
        let mut last: Option<(usize, usize, bool)> = None;
        for child in key.subkeys().unwrap() {
            let (at, length, wide) = stored(hive, &child);
            let below = if path.is_empty() { child.name() } else { format!("{path}\\{}", child.name()) };
            if let Some((before, other, true)) = last.filter(|_| wide) {
                let units =
                    (0..length.min(other)).map(|place| (unit(before + 2 * place), unit(at + 2 * place)));
                let decides = units.take_while(|(a, b)| (*a, *b) != (0, 0)).find(|(a, b)| a != b);
                if decides.is_none_or(|(a, b)| a > b) {
                    found.push(below);
                    continue;
                }
            }
            last = Some((at, length, wide));
            misread(hive, &child, &below, found);
        }
    }
    let mut hive = hive;
    loop {
        let mut found = Vec::new();
        misread(&hive, &hive.root(), "", &mut found);
        if found.is_empty() {
            return hive.bytes().to_vec();
        }
        let mut editor = HiveEditor::new(hive).unwrap();
        for key in found {
            assert!(editor.delete_key(&key, true).unwrap(), "{key}");
        }
        hive = Hive::parse(editor.finish(FileTime::now()).unwrap().bytes).unwrap();
    }
}

/// Random edits of every whole hive; then what was made is deleted again, and a rebuilt copy is judged too.
#[test]
fn random_edits_are_hives_of_windows() {
    let Some(found) = corpus_hives() else { return };
    if std::env::var_os("VMRESCUE_CHKREG").is_none() {
        told("Microsoft's chkreg is not at hand (VMRESCUE_CHKREG)");
    }
    let wanted = std::env::var("VMRESCUE_HIVE_EDITS").ok().and_then(|number| number.parse::<usize>().ok());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("edited");
    let mut edited = 0;
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        // The everyday run leaves the large ones to the sweep.
        if wanted.is_none() && bytes.len() > 800_000 {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let hive = Hive::parse(bytes.clone()).unwrap();
        let damaged = hive.check().iter().any(|d| d.severity == vmrescue::Severity::Error);
        if damaged || !hive.is_clean() || hive.minor_version() > 5 {
            continue;
        }
        std::fs::write(&file, &bytes).unwrap();
        let known = rules(&file);
        // Where Windows itself objects to what Windows wrote, our edit is not what it objects to.
        let windows = chkreg(&file).is_none_or(|(good, _)| good);
        let mut random = Random(0x2545_f491_4f6c_dd1d ^ bytes.len() as u64);
        let mut editor = HiveEditor::new(hive).unwrap();
        let (rounds, each) = wanted.map_or((1, 60), |edits| (edits.div_ceil(300), 300));
        for round in 0..rounds {
            edit(&mut editor, &mut random, each);
            let bytes = editor.finish(FileTime::now()).unwrap().bytes;
            judge(&file, &bytes, &known, &format!("{name}, round {round}"), windows);
            editor = HiveEditor::new(Hive::parse(bytes).unwrap()).unwrap();
        }
        let many: Vec<String> = (0..1200).map(|i| format!("Edits\\many\\{}", i * 7919 % 100_003)).collect();
        for key in many.iter().take(if wanted.is_some() { 1200 } else { 0 }) {
            editor.create_key(key).unwrap();
        }
        let bytes = editor.finish(FileTime::now()).unwrap().bytes;
        judge(&file, &bytes, &known, &format!("{name}, many"), windows);
        let (rebuilt, lost) = vmrescue::registry::rebuild(&Hive::parse(bytes.clone()).unwrap()).unwrap();
        assert!(lost.is_empty(), "{name}: {lost:?}");
        judge(&file, &rebuilt, &known, &format!("{name}, rebuilt"), windows);
        let mut editor = HiveEditor::new(Hive::parse(bytes).unwrap()).unwrap();
        editor.delete_key("Edits", true).unwrap();
        judge(
            &file,
            &editor.finish(FileTime::now()).unwrap().bytes,
            &known,
            &format!("{name}, deleted"),
            windows,
        );
        edited += 1;
    }
    eprintln!("{edited} hives edited");
    assert!(edited > 10);
}

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
fn mutated(bytes: &[u8], random: &mut Random) -> Option<(Vec<u8>, String)> {
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

/// What is exported comes back: keys, values, and their order.
#[test]
fn every_hive_comes_back_from_its_reg_file() {
    use vmrescue::registry::reg_text::{self, Operation};
    let Some(found) = corpus_hives() else { return };
    let mut same = 0;
    for path in found {
        let hive = Hive::parse(std::fs::read(&path).unwrap()).unwrap();
        if hive.check().iter().any(|d| d.severity == vmrescue::Severity::Error) {
            continue;
        }
        let name = path.to_string_lossy().into_owned();
        // Two values of one name, and names over several lines, that no .reg file can say.
        if name.contains("DupNameHive") || name.contains("BogusKeyNames") {
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
    assert!(same > 20);
}
