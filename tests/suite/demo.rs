//! The whole way on a disk of our own making, seen by programs that share nothing with us.

use crate::oracle::{run, tool};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use vmrescue::demo::{ACPI_VERSIONS, Fault, break_it, build, program_file};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;

pub(crate) fn vmrescue(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmrescue")).args(words).output().unwrap()
}

fn sha(path: &Path) -> Vec<u8> {
    Sha256::digest(std::fs::read(path).unwrap()).to_vec()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn broken(dir: &Path, kind: Kind, name: &str, faults: &[Fault]) -> PathBuf {
    let path = dir.join(name);
    build(&path, kind).unwrap();
    break_it(&path, faults, &Silent).unwrap();
    path
}

/// The Windows volume as a raw file.
fn volume(path: &Path, dir: &Path) -> Option<PathBuf> {
    let raw = dir.join("disk.raw");
    run(tool("qemu-img")?.args(["convert", "-O", "raw"]).args([path, &raw]));
    let bytes = std::fs::read(&raw).unwrap();
    let volume = dir.join("volume.raw");
    std::fs::write(&volume, &bytes[89 << 20..255 << 20]).unwrap();
    Some(volume)
}

#[test]
fn restore_driver_is_seen_by_others_and_undone_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, name) in [(Kind::VhdxDynamic, "d.vhdx"), (Kind::VhdDynamic, "d.vhd"), (Kind::Raw, "d.img")] {
        let path = broken(dir.path(), kind, name, &[Fault::AcpiZeroed]);
        let image = path.to_str().unwrap();
        let before = sha(&path);

        let dry = vmrescue(&["repair", image, "restore-driver", "--set", "name=ACPI.sys", "--dry-run"]);
        assert_eq!(code(&dry), 1, "{}", text(&dry));
        assert_eq!(sha(&path), before, "a dry run writes nothing");

        let done = vmrescue(&["repair", image, "restore-driver", "--set", "name=ACPI.sys", "--yes"]);
        assert_eq!(code(&done), 0, "{}", text(&done));
        assert!(text(&done).contains("verified by an independent reader"), "{}", text(&done));
        let repaired = sha(&path);
        let again = vmrescue(&["repair", image, "restore-driver", "--set", "name=ACPI.sys", "--yes"]);
        assert!(text(&again).contains("nothing to do"), "{}", text(&again));
        assert_eq!(sha(&path), repaired, "a second run writes nothing");

        if kind != Kind::Raw
            && kind != Kind::VhdDynamic
            && let Some(mut qemu) = tool("qemu-img")
        {
            run(qemu.arg("check").arg(&path));
        }
        if let Some(volume) = volume(&path, dir.path()) {
            if let Some(mut ntfsfix) = tool("ntfsfix") {
                run(ntfsfix.arg("-n").arg(&volume));
            }
            if let Some(mut ntfscat) = tool("ntfscat") {
                let content = run(ntfscat.arg(&volume).arg("/Windows/System32/drivers/ACPI.sys")).stdout;
                assert!(Some(content) == program_file("ACPI.sys", ACPI_VERSIONS[1]));
            }
        }
        let undo = vmrescue(&["undo", image, "--yes"]);
        assert_eq!(code(&undo), 0, "{}", text(&undo));
        assert_eq!(sha(&path), before);
    }
}

#[test]
fn hivex_reads_the_hive_that_we_edited() {
    let dir = tempfile::tempdir().unwrap();
    let path = broken(dir.path(), Kind::VhdxDynamic, "d.vhdx", &[Fault::StorageDriverDisabled]);
    let image = path.to_str().unwrap();
    let found = vmrescue(&["diagnose", image, "--json"]);
    assert_eq!(code(&found), 1);
    assert!(text(&found).contains("boot-driver-not-started"), "{}", text(&found));
    let done = vmrescue(&["repair", image, "--yes"]);
    assert_eq!(code(&done), 0, "{}", text(&done));
    let hive = dir.path().join("SYSTEM");
    let got = vmrescue(&["get", image, r"C:\Windows\System32\config\SYSTEM", hive.to_str().unwrap()]);
    assert_eq!(code(&got), 0, "{}", text(&got));
    let Some(mut hivexget) = tool("hivexget") else { return };
    let key = r"\ControlSet001\Services\storvsc";
    let start = run(hivexget.arg(&hive).args([key, "Start"])).stdout;
    assert_eq!(String::from_utf8_lossy(&start).trim(), "0");
}

#[test]
fn every_fault_is_found_and_cured_and_a_healthy_disk_gets_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let faults =
        [Fault::AcpiZeroed, Fault::StorageDriverDisabled, Fault::VolumeManagerMissing, Fault::PendingUpdate];
    for (i, fault) in faults.into_iter().enumerate() {
        let path = broken(dir.path(), Kind::VhdxDynamic, &format!("{i}.vhdx"), &[fault]);
        let image = path.to_str().unwrap();
        let before = sha(&path);
        assert_eq!(code(&vmrescue(&["diagnose", image])), 1, "{fault:?}");
        let mut words = vec!["repair", image, "--yes"];
        if fault == Fault::PendingUpdate {
            words.push("revert-pending-updates");
        }
        let done = vmrescue(&words);
        assert_eq!(code(&done), 0, "{fault:?}: {}", text(&done));
        let clean = vmrescue(&["diagnose", image]);
        assert_eq!(code(&clean), 0, "{fault:?}: {}", text(&clean));
        let checked = vmrescue(&["check", image]);
        assert_eq!(code(&checked), 0, "{fault:?}: {}", text(&checked));
        let repaired = sha(&path);
        assert_eq!(code(&vmrescue(&["repair", image, "--yes"])), 0);
        assert_eq!(sha(&path), repaired, "a healthy disk is not written");
        assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
        assert_eq!(sha(&path), before);
    }
}

#[test]
fn the_commands_do_what_their_help_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    let image = path.to_str().unwrap();
    let host = dir.path().join("hello.txt");
    std::fs::write(&host, "hello from the host").unwrap();
    let ok = |words: &[&str]| {
        let output = vmrescue(words);
        assert_eq!(code(&output), 0, "{words:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let info: serde_json::Value = serde_json::from_str(&ok(&["info", image, "--json"])).unwrap();
    assert_eq!(info["container"]["format"], "vhdx");
    assert_eq!(info["partitions"].as_array().unwrap().len(), 3);
    assert_eq!(info["installations"][0]["build"], 17763);
    ok(&["mkdir", image, r"C:\new", "--yes"]);
    ok(&["put", image, host.to_str().unwrap(), r"C:\new\hello.txt", "--yes"]);
    ok(&["cp", image, r"C:\new\hello.txt", r"C:\new\copy.txt", "--yes"]);
    ok(&["mv", image, r"C:\new\copy.txt", r"C:\moved.txt", "--yes"]);
    assert_eq!(ok(&["cat", image, r"C:\moved.txt"]), "hello from the host");
    ok(&["rm", image, r"C:\moved.txt", "--yes"]);
    assert_eq!(code(&vmrescue(&["cat", image, r"C:\moved.txt"])), 2);
    assert!(ok(&["ls", image, r"C:\new", "--json"]).contains("\"hello.txt\""));
    let key = r"HKLM\SYSTEM\CurrentControlSet\Services\netvsc";
    ok(&["reg", "set", image, key, "Start", "REG_DWORD", "4", "--yes"]);
    let queried: serde_json::Value =
        serde_json::from_str(&ok(&["reg", "query", image, key, "--json"])).unwrap();
    assert!(queried["values"].as_array().unwrap().iter().any(|v| v["name"] == "Start" && v["data"] == 4));
    ok(&["reg", "delete", image, key, "Start", "--yes"]);
    assert!(ok(&["bcd", "enum", image]).contains("Windows Boot Manager"));
    assert!(ok(&["drivers", image]).contains("10.0.17763.7558"));
    assert!(ok(&["scripts"]).contains("restore-driver"));
    let history: serde_json::Value = serde_json::from_str(&ok(&["history", image, "--json"])).unwrap();
    assert_eq!(history["operations"].as_array().unwrap().len(), 7);
    for _ in 0..7 {
        ok(&["undo", image, "--yes"]);
    }
    assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 2);
    ok(&["recover", image]);
    assert_eq!(code(&vmrescue(&["nonsense"])), 2);
    assert_eq!(code(&vmrescue(&["info", "/no/such/image"])), 2);
}

#[test]
fn looking_changes_nothing_even_beside_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    let image = path.to_str().unwrap();
    let before = (sha(&path), std::fs::metadata(&path).unwrap().modified().unwrap());
    for words in [
        vec!["info", image],
        vec!["inspect", image, "--io"],
        vec!["diagnose", image],
        vec!["check", image],
        vec!["ls", image, r"C:\Windows"],
        vec!["stat", image, r"C:\Windows\System32\drivers\ACPI.sys"],
        vec!["drivers", image, "--json"],
        vec!["reg", "query", image, r"HKLM\SOFTWARE", "-r"],
        vec!["bcd", "enum", image, "--json"],
        vec!["history", image],
    ] {
        let output = vmrescue(&words);
        assert_eq!(code(&output), 0, "{words:?}: {}", text(&output));
    }
    assert_eq!((sha(&path), std::fs::metadata(&path).unwrap().modified().unwrap()), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_repair_can_go_into_a_child_or_a_new_image() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, name) in [(Kind::VhdxDynamic, "d.vhdx"), (Kind::VhdDynamic, "d.vhd"), (Kind::Raw, "d.img")] {
        let path = broken(dir.path(), kind, name, &[Fault::AcpiZeroed, Fault::StorageDriverDisabled]);
        let (image, before) = (path.to_str().unwrap(), sha(&path));
        let states = || std::fs::read_dir(dir.path()).unwrap().count();
        let there = states();
        for what in ["child", "new"] {
            let result = dir.path().join(format!("{what}-{name}"));
            let target = format!("{what}:{}", result.display());
            let done = vmrescue(&["repair", image, "--yes", "--to", &target]);
            if what == "child" && kind == Kind::Raw {
                assert_eq!(code(&done), 2, "a raw image has no children: {}", text(&done));
                assert!(!result.exists());
                continue;
            }
            assert_eq!(code(&done), 0, "{}", text(&done));
            assert_eq!(sha(&path), before, "the original stays as it is");
            let clean = vmrescue(&["diagnose", result.to_str().unwrap()]);
            assert_eq!(code(&clean), 0, "{}", text(&clean));
            assert_eq!(code(&vmrescue(&["check", result.to_str().unwrap()])), 0);
            if what == "child" {
                assert!(std::fs::metadata(&result).unwrap().len() < 60 << 20, "a child is small");
                let refused = vmrescue(&["repair", image, "--yes"]);
                assert_eq!(code(&refused), 3, "a parent is not changed under its child: {}", text(&refused));
                // Merged, the parent is the repaired one; undone, it is the old one again.
                let merged = vmrescue(&["disk", "merge", result.to_str().unwrap(), "--yes"]);
                assert_eq!(code(&merged), 0, "{}", text(&merged));
                assert_eq!(code(&vmrescue(&["diagnose", image])), 0);
                assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
                assert_eq!(sha(&path), before);
            }
            std::fs::remove_file(&result).unwrap();
            // The new file's history begins with what made it.
            std::fs::remove_dir_all(dir.path().join(format!("{what}-{name}.vmrescue"))).unwrap();
        }
        assert!(states() <= there + 1, "nothing else was left behind");
    }
}

#[test]
fn trees_are_put_found_copied_and_deleted_and_updates_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = broken(dir.path(), Kind::VhdxDynamic, "d.vhdx", &[Fault::PendingUpdate]);
    let (image, before) = (path.to_str().unwrap(), sha(&path));
    let ok = |words: &[&str]| {
        let output = vmrescue(words);
        assert_eq!(code(&output), 0, "{words:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let tree = dir.path().join("tree");
    for i in 0..60 {
        let folder = tree.join(format!("d{}", i % 5)).join("deep");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("file{i}.txt")), format!("content {i}").repeat(i * 20)).unwrap();
    }
    ok(&["put", image, tree.to_str().unwrap(), r"C:\tree", "-r", "--yes"]);
    assert_eq!(ok(&["find", image, r"C:\tree", "--name", "file*.txt"]).lines().count(), 60);
    assert_eq!(ok(&["find", image, r"C:\tree", "--type", "d"]).lines().count(), 10);
    ok(&["cp", image, r"C:\tree", r"C:\copy", "-r", "--yes"]);
    let out = dir.path().join("out");
    ok(&["get", image, r"C:\copy", out.to_str().unwrap(), "-r"]);
    for i in 0..60 {
        let name = format!("d{}/deep/file{i}.txt", i % 5);
        assert_eq!(std::fs::read(out.join(&name)).unwrap(), std::fs::read(tree.join(&name)).unwrap());
    }
    assert_eq!(code(&vmrescue(&["cp", image, r"C:\tree", r"C:\tree\in", "-r", "--yes"])), 2);
    ok(&["rm", image, r"C:\tree", "-r", "--yes"]);
    assert_eq!(code(&vmrescue(&["ls", image, r"C:\tree"])), 2);
    ok(&["check", image]);
    let updates = ok(&["updates", image]);
    assert!(updates.contains("Package_for_RollupFix") && updates.contains("pending.xml"), "{updates}");
    ok(&["updates", "revert-pending", image, "--yes"]);
    assert!(ok(&["updates", image]).contains("nothing waits"));
    assert!(ok(&["drivers", "disable", image, "netvsc", "--yes"]).contains("done"));
    assert!(
        ok(&["drivers", image]).lines().any(|line| line.starts_with("disabled") && line.contains("netvsc"))
    );
    while vmrescue(&["undo", image, "--yes"]).status.success() {}
    // The first operation of all was the fault itself.
    assert_ne!(sha(&path), before);
    ok(&["redo", image, "--yes"]);
    assert_eq!(sha(&path), before);
}

/// A disk of the host: here a loop device, where this machine has one to give.
#[test]
fn a_disk_of_the_host_is_repaired_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let path = broken(dir.path(), Kind::Raw, "d.img", &[Fault::AcpiZeroed]);
    let Some(mut losetup) = tool("losetup") else { return };
    let made = losetup.args(["--find", "--show"]).arg(&path).output().unwrap();
    let device = String::from_utf8_lossy(&made.stdout).trim().to_string();
    if !made.status.success() || device.is_empty() {
        // Loop devices need rights that not every machine gives; no program is missing.
        eprintln!("SKIPPED: no loop device can be had here");
        return;
    }
    let before = sha(Path::new(&device));
    let state = dir.path().join("state/of/disks");
    let state = state.to_str().unwrap();
    let refused = vmrescue(&["repair", &device, "--yes"]);
    let done = vmrescue(&["repair", &device, "--yes", "--state-dir", state]);
    let clean = vmrescue(&["diagnose", &device]);
    let undone = vmrescue(&["undo", &device, "--yes", "--state-dir", state]);
    let after = sha(Path::new(&device));
    run(tool("losetup").unwrap().args(["--detach", &device]));
    assert_eq!(code(&refused), 3, "without a state folder: {}", text(&refused));
    assert_eq!(
        (code(&done), code(&clean), code(&undone)),
        (0, 0, 0),
        "{}{}{}",
        text(&done),
        text(&clean),
        text(&undone)
    );
    assert_eq!(after, before);
}
