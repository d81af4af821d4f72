//! Judges of hives that Windows takes as its own: our check, `hive_rules.py` (a reader of its own, written from the rules of
//! `docs/hive-rules.md`), hivex, and Microsoft's chkreg where it is at hand; and what edits are made of.
//!
//! `VMRESCUE_CHKREG` is the path of chkreg.exe, run by wine64 with the prefix of `WINEPREFIX`.

use crate::oracle::corpus;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use vmrescue::registry::{Hive, HiveEditor, Key};
use vmrescue::time::FileTime;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/hive_rules.py")
}

/// What the raw checker says of a hive: the rules that do not hold.
pub(crate) fn rules(path: &Path) -> BTreeSet<String> {
    asked(path, &[]).1
}

/// Keys and values as the raw checker reads them, and the rules that do not hold.
fn asked(path: &Path, words: &[&str]) -> (BTreeSet<String>, BTreeSet<String>) {
    let output = Command::new("python3").arg(script()).args(words).arg(path).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (facts, rules): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('['));
    let facts =
        facts.into_iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap().to_string());
    (facts.collect(), rules.into_iter().filter_map(|line| line.split(' ').next()).map(String::from).collect())
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
pub(crate) fn chkreg(path: &Path) -> Option<(bool, String)> {
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

pub(crate) fn hives(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            hives(&path, found);
        } else if std::fs::read(&path).is_ok_and(|b| b.len() >= 8192 && b.starts_with(b"regf") && b[28] == 0)
        {
            found.push(path);
        }
    }
}

pub(crate) fn corpus_hives() -> Option<Vec<PathBuf>> {
    let corpus = corpus()?;
    let mut found = Vec::new();
    hives(&corpus.join("03-registry"), &mut found);
    hives(&corpus.join("04-bcd"), &mut found);
    assert!(found.len() > 20);
    Some(found)
}

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    pub(crate) fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    /// A name of a key: usual ones, `/`, letters whose upper case is Windows' own, pairs and halves of pairs, every length.
    pub(crate) fn name(&mut self) -> String {
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

    pub(crate) fn size(&mut self) -> usize {
        match self.below(8) {
            0 => (16_344 * (1 + self.below(4))) + self.below(3) - 1,
            1 => 1 + self.below(30_000),
            2 => self.below(9),
            _ => self.below(300),
        }
    }

    /// A name of a value: those are longer than keys' and hold everything.
    pub(crate) fn value_name(&mut self) -> String {
        match self.below(12) {
            0 => String::new(),
            1 => self.name().replace("k", "\\"),
            2 => "v".repeat(1 + self.below(16_383)),
            3 => "ж".repeat(1 + self.below(16_383)),
            4 => "a\"b\\c\r\nd".to_string(),
            _ => format!("v{}", self.below(6)),
        }
    }
}

/// Judges a file that we wrote; `known` are the rules that did not hold before.
pub(crate) fn judge(path: &Path, bytes: &[u8], known: &BTreeSet<String>, what: &str, windows: bool) {
    std::fs::write(path, bytes).unwrap();
    let hive = Hive::parse(bytes.to_vec()).unwrap();
    let errors: Vec<_> = hive
        .check()
        .into_iter()
        .filter(|d| d.severity != vmrescue::Severity::Note && d.code != "hive-security-count")
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
    let (theirs, rules) = asked(path, &["--dump", "--all"]);
    let new: Vec<String> = rules.difference(known).cloned().collect();
    assert!(new.is_empty(), "{what}: the raw checker finds {new:?}");
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
