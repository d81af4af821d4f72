//! Shadow copies that Windows made, against libvshadow; and what our own writing does to them.

use crate::demo::vmrescue;
use crate::oracle::{corpus, run, skipped};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use vmrescue::block::{Disk, HostFile};
use vmrescue::fs::shadow::Shadows;
use vmrescue::text::hex;

/// Reads with libvshadow's Python binding: facts, or all bytes of one copy.
const PYTHON: &str = r#"
import sys, pyvshadow
volume = pyvshadow.volume()
volume.open(sys.argv[1])
if sys.argv[2] == "facts":
    for store in volume.stores:
        print(store.identifier, store.copy_identifier, store.copy_set_identifier, store.volume_size, store.get_creation_time_as_integer())
else:
    store = volume.get_store(int(sys.argv[2]) - 1)
    at = 0
    while at < store.volume_size:
        data = store.read_buffer_at_offset(min(1 << 20, store.volume_size - at), at)
        sys.stdout.buffer.write(data)
        at += len(data)
"#;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A Python that has libvshadow.
fn python() -> Option<&'static str> {
    let found = ["python3", "/usr/bin/python3"].into_iter().find(|name| {
        Command::new(name)
            .args(["-c", "import pyvshadow"])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        skipped("the Python module pyvshadow (libvshadow) is not installed");
    }
    found
}

fn sample() -> Option<PathBuf> {
    let path = corpus()?.join("02-ntfs/dfvfs-vss.raw");
    if !path.is_file() {
        skipped("the corpus has no dfvfs-vss.raw");
        return None;
    }
    Some(path)
}

fn shadows(path: &Path) -> Shadows {
    Shadows::open(&Disk::new(Arc::new(HostFile::open_read(path).unwrap()))).unwrap().unwrap()
}

fn bytes_of(path: &Path, number: u32) -> Vec<u8> {
    let view = shadows(path).view(number).unwrap();
    view.read_vec(0, view.len() as usize).unwrap()
}

/// Which blocks of 16 KiB differ.
fn differ(ours: &[u8], theirs: &[u8]) -> Vec<usize> {
    assert_eq!(ours.len(), theirs.len());
    (0..ours.len().div_ceil(16384))
        .filter(|n| {
            let range = n * 16384..ours.len().min((n + 1) * 16384);
            ours[range.clone()] != theirs[range]
        })
        .collect()
}

#[test]
fn every_block_is_that_of_libvshadow() {
    let Some(sample) = sample() else { return };
    let Some(python) = python() else { return };
    let theirs = run(Command::new(python).args(["-c", PYTHON]).arg(&sample).arg("facts"));
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    let shadows = shadows(&sample);
    assert_eq!(shadows.defects, []);
    let ours: Vec<String> = shadows
        .copies
        .iter()
        .map(|c| format!("{} {} {} {} {}", c.store, c.id, c.set, c.volume_bytes, c.created.0))
        .collect();
    assert_eq!(ours, theirs.lines().collect::<Vec<_>>());
    for copy in &shadows.copies {
        let number = copy.number.to_string();
        let theirs = run(Command::new(python).args(["-c", PYTHON]).arg(&sample).arg(&number)).stdout;
        let differ = differ(&bytes_of(&sample, copy.number), &theirs);
        assert!(differ.is_empty(), "copy {number}: blocks {differ:?}");
    }
}

/// The commands read copies, and `shadow list` has vssadmin's fields.
#[test]
fn commands_read_shadow_copies() {
    let Some(sample) = sample() else { return };
    let name = sample.to_str().unwrap();
    let listed = vmrescue(&["shadow", "list", name]);
    assert!(listed.status.success(), "{}", text(&listed));
    for word in [
        "#1:@2",
        "Shadow Copy Set ID",
        "{2c6c6cc8-2b97-41da-a030-4add838ae8f6}",
        "Persistent",
        "ApplicationRollback",
        "2021-05-01T17:40:03",
    ] {
        assert!(text(&listed).contains(word), "{word} in {}", text(&listed));
    }
    let json = vmrescue(&["shadow", "list", name, "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let copies = json["volumes"][0]["copies"].as_array().unwrap();
    assert_eq!((copies.len(), copies[1]["path"].as_str()), (2, Some("#1:@2")));
    // Each copy has files of its own, by number and by identifier, and all of them are found and copied.
    let mut trees = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    for at in ["#1:", "#1:@1", "#1:@2", "#1:@latest", "#1:@{2c6c6cc8-2b97-41da-a030-4add838ae8f6}"] {
        let found = vmrescue(&["find", name, &format!("{at}\\"), "--type", "f"]);
        assert!(found.status.success(), "{}", text(&found));
        let all = text(&found);
        // Files of NTFS itself have no unnamed stream to copy.
        let own = |line: &&str| !line.contains("System Volume Information") && !line.contains("\\$");
        let files: Vec<&str> = all.lines().filter(own).collect();
        assert!(files.iter().all(|file| file.starts_with(&format!("{at}\\"))), "{files:?}");
        let plain: Vec<String> = files.iter().map(|file| file[at.len()..].to_string()).collect();
        for (number, file) in files.iter().enumerate() {
            let out = dir.path().join(format!("{}-{number}", trees.len()));
            let got = vmrescue(&["get", name, file, out.to_str().unwrap()]);
            let cat = vmrescue(&["cat", name, file]);
            assert!(got.status.success() && cat.status.success(), "{file}: {}", text(&got));
            assert!(std::fs::read(&out).unwrap() == cat.stdout, "{file}");
            assert!(vmrescue(&["stat", name, file]).status.success());
        }
        trees.push(plain);
    }
    assert_ne!(trees[0], trees[1], "nothing was changed since the first copy");
    let differ = vmrescue(&["diff", name, r"#1:@1\", r"#1:\"]);
    assert_eq!(differ.status.code(), Some(1), "{}", text(&differ));
    for file in &trees[0] {
        let is_new = !trees[1].contains(file);
        assert_eq!(
            text(&differ).contains(&format!("+ {}", &file[1..])),
            is_new,
            "{file} in {}",
            text(&differ)
        );
    }
    let same = vmrescue(&["diff", name, r"#1:@1\", r"#1:@1\", "--content"]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same));
    assert_eq!((&trees[2], &trees[1]), (&trees[3], &trees[4]));
    for (words, says) in [
        (vec!["ls", name, r"#1:@9\"], "1 to 2"),
        (vec!["rm", name, r"#1:@1\x", "--yes"], "only be read"),
        (vec!["mkdir", name, r"#1:@1\x", "--yes"], "only be read"),
        (vec!["ls", name, r"#1:@\"], "no shadow copy"),
    ] {
        let refused = vmrescue(&words);
        assert!(!refused.status.success() && text(&refused).contains(says), "{words:?}: {}", text(&refused));
    }
}

/// A writer says which copies it changes; what it does not name is as before; undone, all is as before. Files come back out of a copy.
#[test]
fn writers_say_which_copies_they_change() {
    let Some(sample) = sample() else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("v.raw");
    run(Command::new("cp").args(["--sparse=always", "--no-preserve=mode"]).arg(&sample).arg(&image));
    let name = image.to_str().unwrap();
    let hashes = || -> Vec<String> { [1, 2].map(|n| hex(&Sha256::digest(bytes_of(&image, n)))).to_vec() };
    let before = hashes();
    let file = dir.path().join("new");
    std::fs::write(&file, vec![7; 300_000]).unwrap();
    let put = vmrescue(&["put", name, file.to_str().unwrap(), r"#1:\new.bin", "--yes", "--discard-log"]);
    assert!(put.status.success(), "{}", text(&put));
    let after = hashes();
    // $MFT and the root directory are shared: both copies show other blocks.
    let said = text(&put);
    for (number, (before, after)) in (1..).zip(before.iter().zip(&after)) {
        if before != after {
            assert!(said.contains("shadow copies of #1:") && said.contains(&number.to_string()), "{said}");
        }
    }
    assert_ne!(before, after);
    let undone = vmrescue(&["undo", name, "--yes"]);
    assert!(undone.status.success(), "{}", text(&undone));
    assert_eq!(hashes(), before);
    // A file that is only in a copy comes back.
    let list = |at: &str| {
        let found = vmrescue(&["find", name, at, "--type", "f"]);
        text(&found).lines().map(|line| line.split_once('\\').unwrap().1.to_string()).collect::<Vec<String>>()
    };
    let now = list(r"#1:\");
    let lost = list(r"#1:@1\")
        .into_iter()
        .chain(list(r"#1:@2\"))
        .find(|file| !now.contains(file) && !file.contains('\\'));
    let Some(lost) = lost else { return };
    let copy = if list(r"#1:@1\").contains(&lost) { 1 } else { 2 };
    let from = format!(r"#1:@{copy}\{lost}");
    let wanted = vmrescue(&["cat", name, &from]).stdout;
    let copied = vmrescue(&["cp", name, &from, &format!(r"#1:\{lost}"), "--yes", "--discard-log"]);
    assert!(copied.status.success(), "{}", text(&copied));
    assert!(vmrescue(&["cat", name, &format!(r"#1:\{lost}")]).stdout == wanted);
}

/// Compacting gives back what is free and leaves what the copies need.
#[test]
fn compacting_spares_what_copies_use() {
    let Some(sample) = sample() else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("v.vhdx");
    let name = image.to_str().unwrap();
    let made = vmrescue(&["disk", "convert", sample.to_str().unwrap(), name, "--format", "vhdx-dynamic"]);
    assert!(made.status.success(), "{}", text(&made));
    let files = |number: u32| {
        let found = vmrescue(&["find", name, &format!(r"#1:@{number}\"), "--type", "f"]);
        let mut list: Vec<(String, Vec<u8>)> = Vec::new();
        for line in text(&found).lines().filter(|line| !line.contains("System Volume")) {
            list.push((line.to_string(), vmrescue(&["cat", name, line]).stdout));
        }
        list
    };
    let before = [files(1), files(2)];
    let done = vmrescue(&["disk", "compact", name, "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    assert!([files(1), files(2)] == before, "compacting took something from a copy");
}
