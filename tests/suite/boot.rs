//! The boot chain: each fault on UEFI and BIOS disks is named, cured and undone; stores are edited as bcdedit does; real stores read as
//! hivex reads them.

use crate::demo::vmrescue;
use crate::oracle::{corpus, run, tool};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Output;
use vmrescue::demo::{Fault, break_it, build_for};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;
use vmrescue::windows::bcd::Firmware;

fn sha(path: &Path) -> Vec<u8> {
    Sha256::digest(std::fs::read(path).unwrap()).to_vec()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// The rule that names a fault.
fn rule(fault: Fault, firmware: Firmware) -> &'static str {
    match fault {
        Fault::StoreMissing => "boot-store-missing",
        Fault::StoreGarbage => "boot-store-unreadable",
        Fault::StoreDangling => "boot-store-dangling-device",
        Fault::StoreWithoutDefault => "boot-store-incomplete",
        Fault::BootManagerMissing if firmware == Firmware::Uefi => "boot-files-missing",
        // Without bootmgr nothing else marks the partition either; it is still the active one.
        Fault::BootManagerMissing => "boot-files-missing",
        Fault::LoaderMissing => "loader-missing",
        Fault::GptPrimary | Fault::GptBackup => "gpt-copy-damaged",
        Fault::SystemPartitionUnmarked if firmware == Firmware::Uefi => "system-partition-type",
        Fault::SystemPartitionUnmarked => "no-active-partition",
        Fault::BootSector => "boot-sector-damaged",
        other => panic!("{other:?} is no fault of the boot chain"),
    }
}

#[test]
fn every_fault_of_the_boot_chain_is_named_cured_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    for (firmware, kind) in [(Firmware::Uefi, Kind::VhdxDynamic), (Firmware::Bios, Kind::VhdDynamic)] {
        let clean = dir.path().join("clean");
        build_for(&clean, kind, firmware).unwrap();
        let healthy = vmrescue(&["diagnose", clean.to_str().unwrap()]);
        assert_eq!(code(&healthy), 0, "no false alarms: {}", text(&healthy));
        let before_rebuild = sha(&clean);
        let nothing = vmrescue(&["bcd", "rebuild", clean.to_str().unwrap(), "--yes"]);
        assert!(text(&nothing).contains("nothing to do"), "{}", text(&nothing));
        assert_eq!(sha(&clean), before_rebuild);
        for fault in Fault::BOOT {
            if firmware == Firmware::Bios && matches!(fault, Fault::GptPrimary | Fault::GptBackup) {
                continue;
            }
            let path = dir.path().join("broken");
            std::fs::copy(&clean, &path).unwrap();
            break_it(&path, &[fault], &Silent).unwrap();
            let (image, before) = (path.to_str().unwrap(), sha(&path));
            let found = vmrescue(&["diagnose", image, "--json"]);
            let wanted = rule(fault, firmware);
            assert_eq!(code(&found), 1, "{fault:?}: {}", text(&found));
            let document: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
            assert_eq!(document["findings"][0]["rule"], wanted, "{firmware:?} {fault:?}: {}", text(&found));
            if fault == Fault::LoaderMissing {
                // The file is nowhere else on this disk: said so, not guessed.
                let refused = vmrescue(&["repair", image, "--yes"]);
                assert_ne!(code(&refused), 0, "{}", text(&refused));
                assert_eq!(sha(&path), before);
            } else {
                let done = vmrescue(&["repair", image, "--yes"]);
                assert_eq!(code(&done), 0, "{firmware:?} {fault:?}: {}", text(&done));
                let again = vmrescue(&["diagnose", image]);
                assert_eq!(code(&again), 0, "{firmware:?} {fault:?}: {}", text(&again));
                let repaired = sha(&path);
                assert_eq!(code(&vmrescue(&["repair", image, "--yes"])), 0);
                assert_eq!(sha(&path), repaired, "a second run writes nothing");
                if kind == Kind::VhdxDynamic
                    && let Some(mut qemu) = tool("qemu-img")
                {
                    run(qemu.arg("check").arg(&path));
                }
                assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
                assert_eq!(sha(&path), before);
            }
            std::fs::remove_file(&path).unwrap();
            std::fs::remove_dir_all(dir.path().join("broken.vmrescue")).unwrap();
        }
        std::fs::remove_file(&clean).unwrap();
    }
}

#[test]
fn stores_are_edited_as_bcdedit_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let (image, before) = (path.to_str().unwrap(), sha(&path));
    let ok = |words: &[&str]| {
        let output = vmrescue(words);
        assert_eq!(code(&output), 0, "{words:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let copy = dir.path().join("BCD");
    ok(&["bcd", "export", image, copy.to_str().unwrap()]);
    let bare_before = sha(&copy);
    for target in [image, copy.to_str().unwrap()] {
        ok(&["bcd", "set", target, "{default}", "safeboot", "minimal", "--yes"]);
        assert!(
            ok(&["bcd", "set", target, "{default}", "safeboot", "minimal", "--yes"])
                .contains("nothing to do")
        );
        assert!(ok(&["bcd", "enum", target]).contains("safeboot                Minimal"));
        ok(&["bcd", "delete", target, "{default}", "safeboot", "--yes"]);
        ok(&["bcd", "copy", target, "{default}", "--description", "Second", "--yes"]);
        ok(&["bcd", "timeout", target, "7", "--yes"]);
        let shown = ok(&["bcd", "enum", target, "--aliases"]);
        assert!(shown.contains("Second") && shown.contains("timeout                 7"), "{shown}");
        assert_eq!(code(&vmrescue(&["bcd", "set", target, "{default}", "nonsense", "1", "--yes"])), 2);
        assert_eq!(code(&vmrescue(&["bcd", "delete", target, "{bootmgr}", "--yes"])), 3);
    }
    ok(&["bcd", "set", image, "{default}", "osdevice", "partition=#3", "--yes"]);
    let document: serde_json::Value = serde_json::from_str(&ok(&["bcd", "enum", image, "--json"])).unwrap();
    assert!(document["objects"].as_array().unwrap().iter().any(|object| object["alias"] == "{bootmgr}"));
    while vmrescue(&["undo", image, "--yes"]).status.success() {}
    assert_eq!(sha(&path), before);
    while vmrescue(&["undo", copy.to_str().unwrap(), "--yes"]).status.success() {}
    assert_eq!(sha(&copy), bare_before);
    for script in ["safe-mode", "serial-console", "ignore-boot-failures", "winre-off"] {
        ok(&["repair", image, script, "--yes"]);
        assert!(ok(&["repair", image, script, "--yes"]).contains("nothing to do"), "{script}");
    }
    assert!(ok(&["partition", "list", image]).contains("EFI system"));
}

/// Objects and elements of every store, as hivex lists their keys.
#[test]
fn stores_of_windows_read_as_hivex_reads_them() {
    let Some(corpus) = corpus() else { return };
    let mut seen = 0;
    for name in ["04-bcd/regipy-BCD", "04-bcd/windeploy-linux/BCD"] {
        let path = corpus.join(name);
        let shown = vmrescue(&["bcd", "enum", path.to_str().unwrap(), "--json"]);
        assert_eq!(code(&shown), 0, "{}", text(&shown));
        let document: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        let mut ours: Vec<(String, Vec<String>)> = document["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| {
                let elements = object["elements"].as_array().unwrap();
                let mut numbers: Vec<String> =
                    elements.iter().map(|e| e["element"].as_str().unwrap().to_lowercase()).collect();
                numbers.sort();
                (object["identifier"].as_str().unwrap().to_lowercase(), numbers)
            })
            .collect();
        ours.sort();
        let Some(mut hivexsh) = tool("hivexsh") else { return };
        let list = |hivexsh: &mut std::process::Command, script: &str| -> Vec<String> {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), script).unwrap();
            let output = run(hivexsh.arg("-f").arg(file.path()).arg(&path));
            let mut lines: Vec<String> =
                String::from_utf8_lossy(&output.stdout).lines().map(str::to_lowercase).collect();
            lines.sort();
            lines
        };
        let objects = list(&mut hivexsh, "cd \\Objects\nls\n");
        let theirs: Vec<(String, Vec<String>)> = objects
            .into_iter()
            .map(|object| {
                let elements =
                    list(&mut tool("hivexsh").unwrap(), &format!("cd \\Objects\\{object}\\Elements\nls\n"));
                (object, elements)
            })
            .collect();
        assert_eq!(ours, theirs, "{name}");
        seen += ours.len();
    }
    assert!(seen > 10);
}
