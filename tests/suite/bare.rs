//! Hives and boot stores that are files of their own, and new files: they go the way of an image, and have its history.

use crate::demo::vmrescue;
use std::fs;
use std::path::{Path, PathBuf};
use vmrescue::demo::build;
use vmrescue::image::Kind;
use vmrescue::registry::{DataType, HiveEditor};
use vmrescue::time::FileTime;

fn run(words: &[&str]) -> (Option<i32>, String) {
    let done = vmrescue(words);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.code(), said)
}

fn ends(code: i32, words: &[&str]) -> String {
    let (found, said) = run(words);
    assert_eq!(found, Some(code), "{words:?}: {said}");
    said
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A hive with keys and values, under a name that says nothing.
fn hive(dir: &Path, name: &str, keys: &[&str]) -> PathBuf {
    let mut editor = HiveEditor::new_hive("ROOT").unwrap();
    for key in keys {
        editor.create_key(key).unwrap();
        editor.set_value(key, "there", DataType(1), b"o\0l\0d\0\0\0").unwrap();
    }
    let path = dir.join(name);
    fs::write(&path, editor.finish(FileTime::now()).unwrap().bytes).unwrap();
    path
}

fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_hive_is_tried_verified_and_refused_as_an_image_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = hive(dir.path(), "some.hive", &["One", "Two", r"Two\Below"]);
    let (file, before) = (words(&path), fs::read(&path).unwrap());
    let said = ends(1, &["reg", "set", file, "One", "v", "REG_SZ", "x", "--dry-run"]);
    assert!(said.contains("verified") && said.contains("nothing was written"), "{said}");
    // A plan that fails in the real run fails here.
    for (code, failing) in [
        (2, vec!["reg", "delete", file, "Three"]),
        (2, vec!["reg", "delete", file, "One", "not there"]),
        (2, vec!["reg", "rename", file, "Three", "Four"]),
        (2, vec!["reg", "set", file, "One", "v", "REG_SZ", "x", "--to", "new:/tmp/never"]),
    ] {
        for how in ["--dry-run", "--yes"] {
            ends(code, &[&failing[..], &[how]].concat());
        }
    }
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(names(dir.path()), ["some.hive"], "nothing was written anywhere");
    ends(0, &["reg", "set", file, "One", "v", "REG_SZ", "x", "--yes", "--strict"]);
    ends(0, &["undo", file, "--yes"]);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn a_damaged_hive_is_rebuilt_and_nothing_else_is_done_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = hive(dir.path(), "some.hive", &["One", "Two", r"Two\Below"]);
    let file = words(&path);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|four| four == b"lh\x02\x00").unwrap();
    bytes[at + 8] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let before = fs::read(&path).unwrap();
    for how in ["--dry-run", "--yes"] {
        let said = ends(3, &["reg", "set", file, "One", "v", "REG_SZ", "x", how]);
        assert!(said.contains("the hive is damaged") && said.contains("check IMAGE --repair"), "{said}");
    }
    let said = ends(1, &["check", file, "--repair", "--dry-run"]);
    assert!(said.contains("a second reader of hives sees the same 4 keys and 3 values"), "{said}");
    assert!(said.contains("nothing was written"), "{said}");
    assert!(fs::read(&path).unwrap() == before && names(dir.path()).len() == 1);
    let document: serde_json::Value =
        serde_json::from_str(&ends(0, &["check", file, "--repair", "--yes", "--json"])).unwrap();
    assert_eq!(document["operation"], 1, "{document}");
    assert!(document["verified"]["agreed"].as_array().is_some_and(|facts| facts.len() == 2), "{document}");
    ends(0, &["check", file]);
    ends(0, &["reg", "set", file, "One", "v", "REG_SZ", "x", "--yes"]);
    for _ in 0..2 {
        ends(0, &["undo", file, "--yes"]);
    }
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn a_hive_of_secrets_is_known_by_what_is_in_it() {
    const SECRET: &str = "Correct-Horse-Battery-9";
    for (keys, name, secret) in [
        (vec![r"SAM\Domains\Account"], "backup.bin", true),
        (vec![r"Policy\Secrets\DefaultPassword"], "x.dat", true),
        (vec![r"Policy\PolEKList"], "y.dat", true),
        (vec!["Anything"], "SAM", true),
        (vec!["Anything"], "SYSTEM", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = hive(dir.path(), name, &keys);
        let file = words(&path);
        let mut told = String::new();
        for how in [&["--dry-run"][..], &["--yes"], &["--yes", "--json"]] {
            let set = ["reg", "set", file, keys[0], how[0], "REG_SZ", SECRET];
            told += &run(&[&set[..], how].concat()).1;
        }
        // What an error says is told, too.
        told += &run(&["reg", "set", file, "a/../b\\\\", "v", "REG_SZ", SECRET, "--yes"]).1;
        told += &ends(0, &["history", file, "--json"]);
        for entry in names(&dir.path().join(format!("{name}.vmrescue"))) {
            if entry.ends_with(".json") {
                let record = dir.path().join(format!("{name}.vmrescue")).join(entry);
                told += &fs::read_to_string(record).unwrap();
            }
        }
        assert_eq!(told.contains("Battery"), !secret, "{name}: {told}");
        assert_eq!(told.contains("sha256:"), secret, "{name}: {told}");
        assert!(fs::read(&path).unwrap().windows(8).any(|w| w == b"B\0a\0t\0t\0"), "the hive has it");
    }
}

#[test]
fn a_new_file_is_asked_for_verified_and_has_a_history() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d.vhdx");
    build(&image, Kind::VhdxDynamic).unwrap();
    let (file, before) = (words(&image), fs::read(&image).unwrap());
    let set = ["reg", "set", file, r"HKLM\SYSTEM\Select", "x", "REG_SZ", "x"];
    for kind in ["child", "new"] {
        let new = dir.path().join(format!("{kind}.vhdx"));
        let target = format!("{kind}:{}", words(&new));
        let own = ["--to", &target];
        let said = ends(1, &[&set[..], &own, &["--dry-run"]].concat());
        assert!(said.contains("verified") && !new.exists(), "{said}");
        // Nobody can be asked here.
        ends(2, &[&set[..], &own].concat());
        assert!(!new.exists());
        ends(0, &[&set[..], &own, &["--yes", "--strict"]].concat());
        let history = ends(0, &["history", words(&new), "--json"]);
        let document: serde_json::Value = serde_json::from_str(&history).unwrap();
        assert_eq!(document["operations"][0]["state"], "done", "{history}");
        assert!(document["operations"][0]["made_of"].as_str().unwrap().ends_with("d.vhdx"), "{history}");
        let made = fs::read(&new).unwrap();
        for force in [&[][..], &["--force"]] {
            let refused = ends(3, &[&["undo", words(&new), "--yes"], force].concat());
            assert!(refused.contains("remove the file") && refused.contains(file), "{refused}");
        }
        // What is done to it afterwards is undone as ever.
        ends(0, &["reg", "set", words(&new), r"HKLM\SYSTEM\Select", "y", "REG_SZ", "y", "--yes"]);
        ends(0, &["undo", words(&new), "--yes"]);
        ends(3, &["undo", words(&new), "--yes"]);
        assert!(fs::read(&new).unwrap() == made && fs::read(&image).unwrap() == before);
    }
    assert_eq!(
        names(dir.path()),
        ["child.vhdx", "child.vhdx.vmrescue", "d.vhdx", "new.vhdx", "new.vhdx.vmrescue"]
    );
    // The name of a file that was interrupted, and is gone, is not taken by another one.
    fs::remove_file(dir.path().join("new.vhdx")).unwrap();
    fs::write(dir.path().join("new.vhdx.vmrescue/0002.json"), "").unwrap();
    let again = format!("new:{}", words(&dir.path().join("new.vhdx")));
    for how in ["--dry-run", "--yes"] {
        assert!(ends(3, &[&set[..], &["--to", &again, how]].concat()).contains("interrupted"));
    }
    assert!(!dir.path().join("new.vhdx").exists());
    // Nothing is built on an image that is between two states.
    fs::remove_file(dir.path().join("child.vhdx")).unwrap();
    ends(0, &[&set[..], &["--yes"]].concat());
    let record = dir.path().join("d.vhdx.vmrescue/0001.json");
    let done = fs::read_to_string(&record).unwrap();
    fs::write(&record, done.replacen("\"state\": \"done\"", "\"state\": \"publishing\"", 1)).unwrap();
    for kind in ["child", "new"] {
        let target = format!("{kind}:{}", words(&dir.path().join(format!("{kind}2.vhdx"))));
        for how in ["--dry-run", "--yes"] {
            let refused = ends(3, &[&set[..], &["--to", &target, how]].concat());
            assert!(refused.contains("interrupted"), "{refused}");
        }
        assert!(!dir.path().join(format!("{kind}2.vhdx")).exists());
    }
}

#[test]
fn disk_operations_are_tried_without_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (image, child) = (dir.path().join("d.vhdx"), dir.path().join("c.vhdx"));
    build(&image, Kind::VhdxDynamic).unwrap();
    let (file, own) = (words(&image), words(&child));
    let (copy, other) = (dir.path().join("x.raw"), dir.path().join("s.vhdx"));
    let same = |before: &[Vec<u8>]| {
        let now = [&image, &child].map(|path| fs::read(path).unwrap_or_default());
        assert!(before == now, "something was written");
    };
    let before = [fs::read(&image).unwrap(), Vec::new()];
    ends(1, &["disk", "resize", file, "512M", "--dry-run"]);
    ends(1, &["disk", "convert", file, words(&copy), "--format", "raw", "--dry-run"]);
    ends(
        2,
        &[
            "disk",
            "convert",
            file,
            words(&copy),
            "--format",
            "vhd-dynamic",
            "--block-size",
            "3K",
            "--dry-run",
        ],
    );
    ends(1, &["disk", "snapshot", file, words(&other), "--dry-run"]);
    same(&before);
    assert_eq!(names(dir.path()), ["d.vhdx"]);
    // What fails in the real run fails here.
    for failing in [
        vec!["disk", "resize", file, "1M"],
        vec!["disk", "convert", file, file, "--format", "raw", "--force"],
        vec!["disk", "snapshot", file, file],
        vec!["disk", "merge", file],
    ] {
        let (code, said) = run(&[&failing[..], &["--dry-run"]].concat());
        assert!(matches!(code, Some(2 | 3)), "{failing:?}: {said}");
        same(&before);
    }
    // A raw disk grows by zeros alone: no byte differs, and yet it would change.
    let raw = dir.path().join("r.raw");
    fs::write(&raw, vec![0; 1 << 20]).unwrap();
    ends(1, &["disk", "resize", words(&raw), "2M", "--dry-run"]);
    assert_eq!(fs::metadata(&raw).unwrap().len(), 1 << 20);
    ends(0, &["disk", "resize", words(&raw), "2M", "--yes"]);
    ends(0, &["undo", words(&raw), "--yes"]);
    assert_eq!(fs::metadata(&raw).unwrap().len(), 1 << 20);
    ends(0, &["disk", "snapshot", file, own]);
    ends(0, &["reg", "set", own, r"HKLM\SYSTEM\Select", "x", "REG_SZ", "x", "--yes"]);
    let before = [fs::read(&image).unwrap(), fs::read(&child).unwrap()];
    let said = ends(1, &["disk", "merge", own, "--delete-child", "--dry-run"]);
    assert!(said.contains("nothing was written"), "{said}");
    same(&before);
    ends(0, &["disk", "merge", own, "--yes"]);
    ends(0, &["undo", file, "--yes"]);
    same(&before);
}
