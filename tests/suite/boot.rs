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

/// An EFI program of one section: writes `text` to the first serial port and leaves qemu with status 0x63.
fn efi_program(text: &[u8]) -> Vec<u8> {
    let mut code = vec![
        0x48, 0x8d, 0x35, 0x16, 0, 0, 0, // lea rsi, [rip + text]
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz done
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
        0x66, 0xba, 0xf4, 0x00, // done: mov dx, 0xf4
        0xb0, 0x31, // mov al, 0x31
        0xee, // out dx, al
        0xf4, // hlt
        0xeb, 0xfd, // jmp to hlt
    ];
    assert_eq!(code.len(), 7 + 0x16);
    code.extend(text);
    code.push(0);
    code.resize(0x200, 0);
    let mut bytes = vec![0u8; 0x200];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &0x80u32.to_le_bytes());
    put(0x80, b"PE\0\0\x64\x86\x01\0");
    put(0x94, &0xf0u16.to_le_bytes());
    put(0x96, &0x0022u16.to_le_bytes());
    let optional = 0x98;
    put(optional, &0x20bu16.to_le_bytes());
    for (at, value) in [
        (4, 0x200u32),
        (16, 0x1000),
        (20, 0x1000),
        (32, 0x1000),
        (36, 0x200),
        (56, 0x2000),
        (60, 0x200),
        (68, 10),
        (108, 16),
    ] {
        put(optional + at, &value.to_le_bytes());
    }
    put(0x188, b".text\0\0\0");
    for (at, value) in [(8, 0x200u32), (12, 0x1000), (16, 0x200), (20, 0x200), (36, 0x6000_0020)] {
        put(0x188 + at, &value.to_le_bytes());
    }
    bytes.extend(code);
    bytes
}

/// Starts a disk with OVMF in qemu: how qemu ends, and what came over the serial port. `None` where there is no qemu or no firmware.
fn started(dir: &Path, image: &Path, format: &str) -> Option<(Option<i32>, String)> {
    let mut qemu = tool("qemu-system-x86_64")?;
    let firmware = "/usr/share/ovmf/OVMF.fd";
    if !Path::new(firmware).is_file() {
        crate::oracle::skipped("the firmware OVMF is not installed");
        return None;
    }
    let serial = dir.join("serial");
    let mut running = qemu
        .args([
            "-machine",
            "q35",
            "-m",
            "256",
            "-bios",
            firmware,
            "-display",
            "none",
            "-net",
            "none",
            "-no-reboot",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial"])
        .arg(format!("file:{}", serial.display()))
        .args([
            "-drive",
            &format!("file={},format={format},if=none,id=d,snapshot=on", image.display()),
            "-device",
            "ide-hd,drive=d",
        ])
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    let ended = loop {
        if let Some(ended) = running.try_wait().unwrap() {
            break ended.code();
        }
        if begun.elapsed().as_secs() > 180 {
            running.kill().unwrap();
            break None;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    let said = std::fs::read(&serial).unwrap_or_default();
    Some((ended, String::from_utf8_lossy(&said).into_owned()))
}

fn ok(words: &[&str]) {
    let output = vmrescue(words);
    assert_eq!(code(&output), 0, "{words:?}: {}", text(&output));
}

/// Gives the guest a boot manager that says something and ends.
fn with_program(dir: &Path, image: &Path, says: &str) {
    let program = dir.join("bootmgfw.efi");
    std::fs::write(&program, efi_program(says.as_bytes())).unwrap();
    let to = r"C:\Windows\Boot\EFI\bootmgfw.efi";
    ok(&["put", image.to_str().unwrap(), program.to_str().unwrap(), to, "--yes"]);
}

/// The firmware finds and starts what `bcd rebuild` put on the system partition; a small program stands in for the boot manager.
#[test]
fn firmware_starts_a_disk_that_was_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    with_program(dir.path(), &path, "vmrescue started me\r\n");
    break_it(&path, &[Fault::BootManagerMissing, Fault::StoreMissing], &Silent).unwrap();
    ok(&["repair", path.to_str().unwrap(), "--yes"]);
    let Some((ended, said)) = started(dir.path(), &path, "vhdx") else { return };
    assert_eq!(ended, Some(0x63), "{said}");
    assert!(said.contains("vmrescue started me"), "{said}");
}

/// The same for a system partition that was made anew where the old one was zero, formatted by us.
#[test]
fn firmware_starts_a_system_partition_that_was_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.raw");
    build_for(&path, Kind::Raw, Firmware::Uefi).unwrap();
    with_program(dir.path(), &path, "started from a new partition\r\n");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The first partition of the disk, from its first MiB on.
    for place in 1..73u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 1 << 20], place << 20).unwrap();
    }
    drop(file);
    ok(&["repair", path.to_str().unwrap(), "system-partition", "--yes"]);
    let Some((ended, said)) = started(dir.path(), &path, "raw") else { return };
    assert_eq!(ended, Some(0x63), "{said}");
    assert!(said.contains("started from a new partition"), "{said}");
}

#[test]
fn what_is_ambiguous_is_refused_with_a_list_and_large_sectors_work() {
    use vmrescue::block::{DiskMut, HostFile, WritableDevice};
    use vmrescue::image::{CreateSpec, create, open_mut};
    use vmrescue::partition::{EFI_SYSTEM, NewPartition, read, repair_gpt, write_gpt};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("two.vhdx");
    let file = DiskMut::new(
        std::sync::Arc::new(HostFile::create_new(&path).unwrap()) as std::sync::Arc<dyn WritableDevice>
    );
    let spec = CreateSpec { logical_sector_bytes: 4096, ..CreateSpec::new(Kind::VhdxDynamic, 200 << 20) };
    create(&file, &spec).unwrap();
    let disk = open_mut(&file, None).unwrap().disk;
    let part = |from: u64, to: u64| NewPartition {
        type_guid: EFI_SYSTEM,
        mbr_type: 0,
        range: from << 20..to << 20,
        name: String::new(),
        active: false,
    };
    write_gpt(&disk, &[part(1, 50), part(50, 100)]).unwrap();
    disk.zero_at(4096..8192).unwrap();
    assert_eq!(read(&disk.as_disk()).unwrap().defects[0].code, "gpt-primary-bad");
    assert!(repair_gpt(&disk).unwrap());
    assert!(read(&disk.as_disk()).unwrap().defects.is_empty());
    assert!(!repair_gpt(&disk).unwrap(), "a second run changes nothing");
    let machine = vmrescue::windows::Machine::open(disk.as_disk()).unwrap();
    let layout = vmrescue::windows::boot_layout(&machine);
    let refused = layout.system_volume(&machine, None).unwrap_err();
    assert_eq!(refused.kind(), vmrescue::ErrorKind::Refused);
    assert!(refused.to_string().contains("#1, #2"), "{refused}");
    assert_eq!(layout.system_volume(&machine, Some(2)).unwrap(), 1);
}
