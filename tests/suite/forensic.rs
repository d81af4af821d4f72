//! The forensic promise: a command that looks leaves the image and its folder as they were, to the bit and to the time of the last change; what it
//! says names the tool, the image and, when asked, its sha256.

use crate::demo::vmrescue;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use vmrescue::demo::{Fault, break_it, build};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;

/// Name, length, last change of everything in a folder and of the folder itself.
fn listing(folder: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut all = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(path) = pending.pop() {
        let known = std::fs::symlink_metadata(&path).unwrap();
        all.push((path.clone(), if known.is_dir() { 0 } else { known.len() }, known.modified().unwrap()));
        if known.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all.sort();
    all
}

fn sha(path: &Path) -> String {
    vmrescue::text::hex(&Sha256::digest(std::fs::read(path).unwrap()))
}

fn read_only(path: &Path, on: bool) {
    let mut rights = std::fs::metadata(path).unwrap().permissions();
    rights.set_readonly(on);
    std::fs::set_permissions(path, rights).unwrap();
}

#[test]
fn looking_leaves_image_and_folder_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    for (kind, name) in [(Kind::VhdxDynamic, "d.vhdx"), (Kind::VhdDynamic, "d.vhd")] {
        let folder = dir.path().join(format!("case-{name}"));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join(name);
        build(&path, kind).unwrap();
        // An operation is in the history, and there is something to diagnose.
        break_it(&path, &[Fault::AcpiZeroed, Fault::PendingUpdate], &Silent).unwrap();
        read_only(&path, true);
        read_only(&folder, true);
        let (before, hash) = (listing(&folder), sha(&path));
        let target = |name: &str| out.join(format!("{}-{name}", kind as u8)).to_str().unwrap().to_string();
        let (hive, tree, file, line, zip) =
            (target("x.reg"), target("tree"), target("file"), target("body"), target("c.zip"));
        let golden = target("golden.json");
        let system = r"HKLM\SYSTEM\Select";
        let looks: Vec<Vec<&str>> = vec![
            vec!["info", "IMAGE"],
            vec!["inspect", "IMAGE"],
            vec!["diagnose", "IMAGE"],
            vec!["check", "IMAGE"],
            vec!["ls", "IMAGE", r"C:\Windows"],
            vec!["cat", "IMAGE", r"C:\Users\Public\Desktop\readme.txt"],
            vec!["stat", "IMAGE", r"C:\Windows"],
            vec!["find", "IMAGE", "C:\\", "--name", "*.sys"],
            vec!["get", "IMAGE", r"C:\Users\Public\Desktop\readme.txt", &file],
            vec!["get", "IMAGE", r"C:\Windows\System32\config", &tree, "-r"],
            vec!["reg", "query", "IMAGE", system],
            vec!["reg", "export", "IMAGE", system, &hive],
            vec!["bcd", "enum", "IMAGE"],
            vec!["drivers", "IMAGE"],
            vec!["updates", "IMAGE"],
            vec!["files", "verify", "IMAGE", "--boot"],
            vec!["files", "explain", "IMAGE", r"C:\Windows\System32\drivers\ACPI.sys"],
            vec!["events", "IMAGE"],
            vec!["events", "IMAGE", "--list"],
            vec!["timeline", "IMAGE", "--out", &line],
            vec!["collect", "IMAGE", "-o", &zip],
            vec!["collect", "IMAGE", "--dry-run"],
            vec!["history", "IMAGE"],
            vec!["partition", "list", "IMAGE"],
            vec!["disk", "info", "IMAGE"],
            vec!["disk", "check", "IMAGE"],
            vec!["baseline", "create", "IMAGE", "-o", &golden],
            vec!["repair", "IMAGE", "restore-driver", "--set", "name=ACPI.sys", "--dry-run"],
        ];
        let documents = [
            "info",
            "inspect",
            "diagnose",
            "check",
            "stat",
            "reg",
            "bcd",
            "drivers",
            "updates",
            "files",
            "history",
            "partition",
            "disk",
        ];
        for words in looks {
            let words: Vec<&str> = words
                .into_iter()
                .map(|word| if word == "IMAGE" { path.to_str().unwrap() } else { word })
                .collect();
            for json in [false, true] {
                if json && (!documents.contains(&words[0]) || words[1] == "export") {
                    continue;
                }
                let mut words = words.clone();
                let hashed = json && !matches!(words[0], "history" | "disk");
                words.extend(json.then_some("--json"));
                words.extend(hashed.then_some("--hash"));
                let done = vmrescue(&words);
                let said = String::from_utf8_lossy(&done.stdout).into_owned()
                    + &String::from_utf8_lossy(&done.stderr);
                assert!(matches!(done.status.code(), Some(0 | 1)), "{words:?}: {said}");
                assert_eq!(listing(&folder), before, "{words:?} left traces");
                if json {
                    let document: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
                    assert_eq!(document["tool"]["version"], env!("CARGO_PKG_VERSION"), "{words:?}: {said}");
                    assert_eq!(document["image"]["path"], path.to_str().unwrap(), "{words:?}");
                    assert_eq!(
                        document["image"]["file_size"].as_u64(),
                        Some(std::fs::metadata(&path).unwrap().len())
                    );
                    assert!(document["image"]["id"].is_string(), "{words:?}: {}", document["image"]);
                    if hashed {
                        assert_eq!(document["image"]["sha256"].as_str(), Some(hash.as_str()), "{words:?}");
                    }
                }
            }
        }
        let told = vmrescue(&["info", path.to_str().unwrap(), "--hash"]);
        assert!(String::from_utf8_lossy(&told.stdout).contains(&hash));
        assert_eq!(sha(&path), hash, "the image has changed");
        assert_eq!(listing(&folder), before);
        read_only(&folder, false);
        read_only(&path, false);
        std::fs::remove_file(&path).unwrap();
    }
    // `get --hash` means the files that it copies.
    let path = dir.path().join("d.img");
    build(&path, Kind::VhdxDynamic).unwrap();
    let file = out.join("readme.txt");
    let words = [
        "get",
        path.to_str().unwrap(),
        r"C:\Users\Public\Desktop\readme.txt",
        file.to_str().unwrap(),
        "--hash",
    ];
    let said = String::from_utf8(vmrescue(&words).stdout).unwrap();
    assert_eq!(said.split_whitespace().next().map(str::to_string), Some(sha(&file)));
}
