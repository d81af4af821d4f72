//! A batch over broken disks: every image repaired once or reported once, killed and resumed, undone to the old bytes.

use crate::demo::vmrescue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use vmrescue::demo::{Fault, break_it, build, build_for};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;
use vmrescue::windows::bcd::Firmware;

fn sha(path: &Path) -> Vec<u8> {
    Sha256::digest(std::fs::read(path).unwrap()).to_vec()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Twelve disks: two healthy, eight with faults, one that is no disk at all, one that vanishes.
fn fleet(dir: &Path) -> Vec<PathBuf> {
    let base = dir.join("base");
    build(&base, Kind::VhdxDynamic).unwrap();
    let bios = dir.join("bios");
    build_for(&bios, Kind::VhdxDynamic, Firmware::Bios).unwrap();
    let faults: [&[Fault]; 10] = [
        &[],
        &[Fault::AcpiZeroed],
        &[Fault::StorageDriverDisabled],
        &[Fault::VolumeManagerMissing],
        &[Fault::StoreMissing],
        &[Fault::StoreDangling],
        &[Fault::BootManagerMissing, Fault::AcpiZeroed],
        &[Fault::GptBackup],
        &[Fault::SystemPartitionUnmarked],
        &[],
    ];
    let mut images = Vec::new();
    for (i, faults) in faults.iter().enumerate() {
        let path = dir.join(format!("vm{i:02}.vhdx"));
        std::fs::copy(if i == 8 { &bios } else { &base }, &path).unwrap();
        if !faults.is_empty() {
            break_it(&path, faults, &Silent).unwrap();
        }
        images.push(path);
    }
    let garbage = dir.join("vm10.vhdx");
    std::fs::write(&garbage, vec![0x5a; 300_000]).unwrap();
    images.push(garbage);
    images.push(dir.join("vm11.vhdx"));
    images
}

#[test]
fn a_fleet_is_diagnosed_repaired_killed_resumed_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let images = fleet(dir.path());
    let before: BTreeMap<&PathBuf, Vec<u8>> =
        images.iter().filter(|path| path.exists()).map(|path| (path, sha(path))).collect();
    let names: Vec<&str> = images.iter().map(|path| path.to_str().unwrap()).collect();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let words = |verb: &[&str], folder: &str, more: &[&str]| -> Vec<String> {
        let words = ["batch"].iter().chain(verb).chain(&names).map(|word| (*word).to_string());
        words
            .chain(["--out".to_string(), folder.to_string()])
            .chain(more.iter().map(|word| (*word).to_string()))
            .collect()
    };
    let run = |words: &[String]| vmrescue(&words.iter().map(String::as_str).collect::<Vec<_>>());

    let (found, again, work) = (out("found"), out("again"), out("work"));
    let diagnosed = run(&words(&["diagnose"], &found, &["--json"]));
    assert_eq!(diagnosed.status.code(), Some(4), "{}", text(&diagnosed));
    let document: serde_json::Value = serde_json::from_slice(&diagnosed.stdout).unwrap();
    let outcomes: Vec<&str> = document["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "clean").count(), 2, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "findings").count(), 8, "{outcomes:?}");
    assert_eq!(document["failed"], 2);
    for (path, sha_before) in &before {
        assert_eq!(&sha(path), sha_before, "diagnosing changes nothing");
    }

    // Killed five times in the middle; the same command goes on.
    let repair = words(&["repair"], &work, &["--yes", "--jobs", "2"]);
    for pause in [30u64, 150, 400, 700, 1000] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vmrescue"))
            .args(&repair)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        // What the killed one had begun ends by itself: a worker is a process of its own.
        std::thread::sleep(std::time::Duration::from_millis(1500));
    }
    let done = run(&repair);
    assert_eq!(done.status.code(), Some(4), "{}", text(&done));
    let after = run(&words(&["diagnose"], &again, &["--json"]));
    let document: serde_json::Value = serde_json::from_slice(&after.stdout).unwrap();
    let entries = document["images"].as_array().unwrap();
    assert_eq!(entries.iter().filter(|image| image["outcome"] == "clean").count(), 10, "{}", text(&after));
    let page = std::fs::read_to_string(dir.path().join("work/report.html")).unwrap();
    assert!(page.contains("2 failed") && page.contains("vm10.vhdx"), "{page}");
    assert!(std::fs::read_to_string(dir.path().join("work/report.csv")).unwrap().lines().count() == 13);
    let status = vmrescue(&["batch", "status", &work]);
    assert_eq!(status.status.code(), Some(4));

    // Each image was published once at most; undo gives the old bytes back.
    for path in before.keys() {
        let history = vmrescue(&["history", path.to_str().unwrap(), "--json"]);
        let document: serde_json::Value = serde_json::from_slice(&history.stdout).unwrap();
        let published = document["operations"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|o| o["title"] != "break the machine")
            .count();
        assert!(published <= 1, "{}: {published} operations", path.display());
        if published == 1 {
            assert!(vmrescue(&["undo", path.to_str().unwrap(), "--yes"]).status.success());
        }
        assert_eq!(&sha(path), &before[path], "{}", path.display());
    }
    // A canary that fails keeps the rest from being begun.
    let canary =
        vmrescue(&["batch", "diagnose", names[10], names[0], "--out", &out("canary"), "--canary", "1"]);
    assert_eq!(canary.status.code(), Some(4));
    assert!(text(&canary).contains("1 not begun"), "{}", text(&canary));
    let twice = vmrescue(&["batch", "diagnose", names[0], names[0], "--out", &out("twice")]);
    assert_eq!(twice.status.code(), Some(3));
}
