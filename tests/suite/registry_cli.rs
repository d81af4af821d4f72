//! `reg` and `check` on hives, through the command line: cures and what they give up, what is shown of odd data, and that `undo` brings
//! every byte back.

use crate::demo::vmrescue;
use crate::registry_judges::Random;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use vmrescue::demo::build;
use vmrescue::image::Kind;
use vmrescue::registry::reg_text;
use vmrescue::registry::{DataType, Hive, HiveEditor};
use vmrescue::time::FileTime;

/// What a command says, which ends with this code.
fn ends(code: i32, words: &[&str]) -> String {
    let done = vmrescue(words);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(code), "{words:?}: {said}");
    said
}

/// The document that a command prints.
fn json(words: &[&str]) -> Value {
    let done = vmrescue(words);
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

fn undone(file: &str) {
    while vmrescue(&["undo", file, "--yes"]).status.success() {}
}

fn sealed(bytes: &mut [u8]) {
    let sum = bytes[..508].as_chunks::<4>().0.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn at(bytes: &[u8], place: usize) -> u32 {
    u32::from_le_bytes(bytes[place..place + 4].try_into().unwrap())
}

fn hive() -> Vec<u8> {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    for (key, name, data) in [
        (r"Contoso\Deep\Deeper", "Kept", vec![7; 20_000]),
        (r"Contoso\Deep", "Lost", vec![1; 30]),
        ("Other", "", vec![1, 2]),
    ] {
        editor.set_value(key, name, DataType::BINARY, &data).unwrap();
    }
    editor.finish(FileTime::now()).unwrap().bytes
}

/// A hive file with these bytes.
fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn every_state_of_a_hive_has_its_cure() {
    let dir = tempfile::tempdir().unwrap();
    let whole = hive();
    let cured = |name: &str, broken: &[u8], options: &[&str]| -> Vec<u8> {
        let path = file(dir.path(), name, broken);
        let target = path.to_str().unwrap();
        ends(1, &["check", target]);
        // It is in the way of an edit, and the edit says the cure.
        if name != "count" {
            let refused = ends(3, &["reg", "set", target, "Other", "x", "REG_SZ", "y", "--yes"]);
            assert!(refused.contains("--repair"), "{name}: {refused}");
        }
        ends(0, &[&["check", target, "--repair", "--yes"], options].concat());
        ends(0, &["check", target]);
        let after = fs::read(&path).unwrap();
        ends(0, &["reg", "set", target, "Other", "x", "REG_SZ", "y", "--yes"]);
        undone(target);
        assert!(fs::read(&path).unwrap() == broken, "{name}: undo brings the broken hive back");
        after
    };
    // The logs of the last write are gone: only with consent, and told as a loss.
    let mut dirty = whole.clone();
    put(&mut dirty, 4, at(&whole, 8) + 2);
    sealed(&mut dirty);
    let path = file(dir.path(), "refused", &dirty);
    let target = path.to_str().unwrap();
    let refused = ends(3, &["check", target, "--repair", "--yes"]);
    assert!(refused.contains("--allow-unsafe") && refused.contains("logs are gone"), "{refused}");
    let refused = ends(3, &["reg", "set", target, "Other", "x", "REG_SZ", "y", "--yes"]);
    assert!(refused.contains("--allow-unsafe"), "{refused}");
    assert!(fs::read(&path).unwrap() == dirty);
    let document = json(&["check", target, "--repair", "--dry-run", "--json"]);
    assert!(document["given_up"].as_str().is_some_and(|text| text.contains("logs are gone")), "{document}");
    let after = cured("dirty", &dirty, &["--allow-unsafe"]);
    assert_eq!((at(&after, 4), at(&after, 8)), (at(&whole, 8), at(&whole, 8)));
    // With its logs beside it nothing is given up: here they have nothing for it, so it stays as it is.
    // A wrong checksum of the base block alone is no loss.
    let mut torn = whole.clone();
    torn[508] ^= 1;
    assert!(cured("checksum", &torn, &[]) == whole);
    // A wrong count of users: in place.
    let mut count = whole.clone();
    let security = whole.windows(2).position(|two| two == b"sk").unwrap();
    put(&mut count, security + 12, 99);
    let after = cured("count", &count, &[]);
    let differs: Vec<usize> = (512..whole.len()).filter(|place| after[*place] != count[*place]).collect();
    assert_eq!(differs, [security + 12]);
    // A list whose hash is wrong: written anew, nothing lost.
    let mut list = whole.clone();
    let leaf = whole.windows(4).position(|four| four == b"lh\x02\0").unwrap();
    list[leaf + 8] ^= 1;
    let after = Hive::parse(cured("list", &list, &[])).unwrap();
    assert!(after.key(r"Contoso\Deep\Deeper").unwrap().unwrap().value("Kept").unwrap().is_some());
    // A value that cannot be read: what a repair throws away is listed by its key.
    let mut broken = whole.clone();
    let value = whole.windows(4).position(|four| four == b"Lost").unwrap() - 20;
    broken[value] = b'?';
    let path = file(dir.path(), "lost", &broken);
    let said = ends(1, &["check", path.to_str().unwrap(), "--repair", "--dry-run"]);
    assert!(said.contains(r"Contoso\Deep: a value") && said.contains("1 things lost"), "{said}");
    let document = json(&["check", path.to_str().unwrap(), "--repair", "--yes", "--json"]);
    assert!(document["lost"][0].to_string().contains(r"Contoso\\Deep: a value"), "{document}");
}

#[test]
fn copies_of_regback_are_one_ahead_and_accounts_are_a_pair() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("d.vhdx");
    build(&disk, Kind::VhdxDynamic).unwrap();
    let image = disk.to_str().unwrap();
    ends(
        0,
        &["put", image, dir.path().to_str().unwrap(), r"C:\Windows\System32\config\RegBack", "-r", "--yes"],
    );
    let config = r"C:\Windows\System32\config";
    let mut copies = Vec::new();
    for name in ["SAM", "SECURITY"] {
        let bare = dir.path().join(name);
        ends(0, &["get", image, &format!(r"{config}\{name}"), bare.to_str().unwrap()]);
        ends(0, &["reg", "set", bare.to_str().unwrap(), "Mark", name, "REG_SZ", "from RegBack", "--yes"]);
        let mut bytes = fs::read(&bare).unwrap();
        // As Windows writes these copies: the first number one ahead.
        let ahead = at(&bytes, 8) + 1;
        put(&mut bytes, 4, ahead);
        sealed(&mut bytes);
        copies.push(file(dir.path(), &format!("{name}.copy"), &bytes));
    }
    let script = file(
        dir.path(),
        "pair.toml",
        b"name = \"pair\"\ntitle = \"t\"\ndocumentation = \"d\"\n[[steps]]\nop = 'hive.restore-regback'\nhive = 'SAM'\n",
    );
    let script = script.to_str().unwrap();
    ends(0, &["put", image, copies[0].to_str().unwrap(), &format!(r"{config}\RegBack\SAM"), "--yes"]);
    // SAM alone: accounts that SECURITY could not decrypt.
    let refused = ends(2, &["repair", image, script, "--yes"]);
    assert!(refused.contains(r"RegBack\SECURITY"), "{refused}");
    assert!(!ends(0, &["reg", "query", image, r"HKLM\SAM", "-r"]).contains("from RegBack"));
    ends(0, &["put", image, copies[1].to_str().unwrap(), &format!(r"{config}\RegBack\SECURITY"), "--yes"]);
    ends(0, &["repair", image, script, "--yes"]);
    for name in ["SAM", "SECURITY"] {
        let shown = ends(0, &["reg", "query", image, &format!(r"HKLM\{name}\Mark")]);
        assert!(shown.contains("from RegBack"), "{shown}");
        let bare = dir.path().join(format!("{name}.restored"));
        ends(0, &["get", image, &format!(r"{config}\{name}"), bare.to_str().unwrap()]);
        ends(0, &["check", bare.to_str().unwrap()]);
        ends(0, &["reg", "set", image, &format!(r"HKLM\{name}\Mark"), "x", "REG_SZ", "y", "--yes"]);
    }
    // A copy that another write left unfinished is none.
    let mut bytes = fs::read(&copies[0]).unwrap();
    let ahead = at(&bytes, 8) + 2;
    put(&mut bytes, 4, ahead);
    sealed(&mut bytes);
    fs::write(&copies[0], &bytes).unwrap();
    ends(0, &["put", image, copies[0].to_str().unwrap(), &format!(r"{config}\RegBack\SAM"), "--yes"]);
    let refused = ends(3, &["repair", image, script, "--yes"]);
    assert!(refused.contains("it was not closed"), "{refused}");
}

/// New keys with the security that the kernel computes, by both commands that make keys; without the option it is the parent's.
#[test]
fn new_keys_inherit_when_the_command_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "SOFTWARE", &hive());
    let target = path.to_str().unwrap();
    let reg = dir.path().join("x.reg");
    let text =
        format!("{}[HKEY_LOCAL_MACHINE\\SOFTWARE\\Imported\\Below]\r\n\"v\"=\"d\"\r\n", reg_text::HEADER);
    fs::write(&reg, reg_text::file_bytes(&text)).unwrap();
    ends(0, &["reg", "set", target, "Plain", "v", "REG_SZ", "d", "--yes"]);
    let said =
        ends(0, &["reg", "set", target, "Computed", "v", "REG_SZ", "d", "--inherit-security", "--yes"]);
    assert!(said.contains("inherit their security"), "{said}");
    ends(0, &["reg", "import", target, reg.to_str().unwrap(), "--inherit-security", "--yes"]);
    let hive = Hive::parse(fs::read(&path).unwrap()).unwrap();
    let security = |key: &str| hive.key(key).unwrap().unwrap().security().unwrap().to_vec();
    let root = hive.root().security().unwrap();
    assert_eq!(security("Plain"), root);
    for key in ["Computed", "Imported", r"Imported\Below"] {
        assert_ne!(security(key), root, "{key}");
    }
    // What is computed of what was computed is the same again: one cell for all of them.
    assert_eq!(security("Computed"), security("Imported"));
    ends(0, &["check", target]);
}

/// Commands by chance, on a hive of its own and on a disk; then each is undone and every byte is as it was.
#[test]
fn random_commands_are_undone_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("d.vhdx");
    build(&disk, Kind::VhdxDynamic).unwrap();
    let bare = file(dir.path(), "SOFTWARE", &hive());
    for (path, root, seed) in [(bare, "", 3), (disk, r"HKLM\SOFTWARE\", 5)] {
        let before = fs::read(&path).unwrap();
        let target = path.to_str().unwrap();
        let mut random = Random(0x2545_f491_4f6c_dd1d * seed);
        let mut done = 0;
        for step in 0..25 {
            let key = format!(
                "{root}Edits\\k{}\\{}",
                random.below(3),
                ["a/b", "ıµς", "𐐸", "long".repeat(40).as_str()][random.below(4)]
            );
            let name = format!("v{}", random.below(3));
            let data = "61".repeat([1, 4, 5, 16_343, 16_344, 16_345, 32_689][random.below(7)]);
            let reg = dir.path().join("x.reg");
            let full = format!(r"HKEY_LOCAL_MACHINE\SOFTWARE\Edits\i{step}");
            let text = format!(
                "{}[{full}]\r\n@=\"x\"\r\n[-{full}\\y] ; words\r\n\"v\"=dword:1\r\n",
                reg_text::HEADER
            );
            fs::write(&reg, reg_text::file_bytes(&text)).unwrap();
            let words = match random.below(8) {
                0 => vec!["reg", "delete", target, &key, "--yes"],
                1 => vec!["reg", "delete", target, &key, &name, "--yes"],
                2 => vec!["reg", "rename", target, &key, "Renamed", "--yes"],
                3 => vec!["reg", "import", target, reg.to_str().unwrap(), "--yes"],
                _ => vec!["reg", "set", target, &key, &name, "REG_BINARY", &data, "--yes"],
            };
            // What is not there cannot be deleted or renamed.
            done += usize::from(vmrescue(&words).status.success());
        }
        assert!(done > 12, "{done}");
        ends(0, &["check", target]);
        undone(target);
        assert!(fs::read(&path).unwrap() == before, "{target}");
    }
}

fn units(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Nothing of the data is dropped, as text and as JSON, on a disk and in a hive of its own.
#[test]
fn odd_data_is_shown_whole() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("d.vhdx");
    build(&disk, Kind::VhdxDynamic).unwrap();
    let bare = file(dir.path(), "SOFTWARE", &hive());
    let bytes = |data: &[u8]| data.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(",");
    let renames = units("\\??\\C:\\a\0\0\\??\\C:\\b\0!\\??\\C:\\c\0\0");
    let odd = [&units("odd")[..], b"x"].concat();
    let mut text = format!("{}[HKEY_LOCAL_MACHINE\\SOFTWARE\\Odd]\r\n", reg_text::HEADER);
    for (name, kind, data) in [
        ("Renames", 7, &renames[..]),
        ("OddText", 1, &odd),
        ("Short", 4, &[1, 2]),
        ("Long", 4, &[1, 0, 0, 0, 9]),
        ("Far", 11, &[1]),
    ] {
        text += &format!("\"{name}\"=hex({kind:x}):{}\r\n", bytes(data));
    }
    let reg = dir.path().join("x.reg");
    fs::write(&reg, reg_text::file_bytes(&text)).unwrap();
    for (path, key) in [(disk, r"HKLM\SOFTWARE\Odd"), (bare, "Odd")] {
        let target = path.to_str().unwrap();
        ends(0, &["reg", "import", target, reg.to_str().unwrap(), "--yes"]);
        let shown = ends(0, &["reg", "query", target, key]);
        for line in [
            r"Renames    REG_MULTI_SZ    \??\C:\a\0\0\??\C:\b\0!\??\C:\c",
            "OddText    REG_SZ    odd    (bytes 6f00640064007",
            "Short    REG_DWORD    0102",
            "Long    REG_DWORD    0100000009",
            "Far    REG_QWORD    01",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        let document = json(&["reg", "query", target, key, "--json"]);
        let value = |name: &str| {
            let values = document["values"].as_array().unwrap();
            values.iter().find(|value| value["name"] == name).unwrap().clone()
        };
        let list = [r"\??\C:\a", "", r"\??\C:\b", r"!\??\C:\c"];
        assert_eq!(value("Renames")["data"], serde_json::json!(list), "{document}");
        assert_eq!(value("OddText")["bytes"], bytes(&odd).replace(',', ""), "{document}");
        assert_eq!(value("Short")["data"], "0102");
        assert_eq!(value("Long")["data"], "0100000009");
        assert_eq!(value("Far")["data"], "01");
    }
}

/// What was there is told before it is replaced, and a .reg file is done line by line.
#[test]
fn old_values_are_told_and_reg_files_go_by_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "SOFTWARE", &hive());
    let target = path.to_str().unwrap();
    ends(0, &["reg", "set", target, "K", "Start", "REG_DWORD", "3", "--yes"]);
    let said = ends(1, &["reg", "set", target, "K", "Start", "REG_DWORD", "4", "--dry-run"]);
    assert!(said.contains("4 (0x4)  (was 3 (0x3))"), "{said}");
    let said = ends(1, &["reg", "set", target, "K", "New", "REG_SZ", "x", "--dry-run"]);
    assert!(said.contains("(was not there)"), "{said}");
    let lines = [
        r"[HKEY_LOCAL_MACHINE\SOFTWARE\Made] ; a comment",
        "\"v\"=\"first\r\nsecond\" ; and another",
        "\"gone\"=dword:1",
        "\"gone\"=-",
        r"[HKEY_LOCAL_MACHINE\SOFTWARE\Made\Below]",
        r"[-HKEY_LOCAL_MACHINE\SOFTWARE\Made\Below]",
        r"[HKEY_LOCAL_MACHINE\SOFTWARE\K]",
        "\"Start\"=-",
        "\"Start\"=dword:00000005",
        r"[-HKEY_LOCAL_MACHINE\SOFTWARE\Other]",
        r"[HKEY_LOCAL_MACHINE\SOFTWARE\Other]",
    ];
    let reg = dir.path().join("x.reg");
    let text = format!("{}{}\r\n", reg_text::HEADER, lines.join("\r\n"));
    fs::write(&reg, reg_text::file_bytes(&text)).unwrap();
    ends(0, &["reg", "import", target, reg.to_str().unwrap(), "--yes"]);
    let made = json(&["reg", "query", target, "Made", "--json"]);
    assert_eq!(
        made["values"],
        serde_json::json!([{"name": "v", "type": "REG_SZ", "data": "first\r\nsecond"}])
    );
    assert_eq!(made["subkeys"], serde_json::json!([]));
    assert!(ends(0, &["reg", "query", target, "K"]).contains("0x5"));
    assert_eq!(json(&["reg", "query", target, "Other", "--json"])["values"], serde_json::json!([]));
    // A second time there is nothing to do but the key that is deleted and made again.
    undone(target);
    assert!(fs::read(&path).unwrap() == hive_like(&path), "a hive again");
}

/// The file itself: that it is a hive without damage.
fn hive_like(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    assert!(Hive::parse(bytes.clone()).unwrap().check().is_empty());
    bytes
}
