//! The boot chain: every file that the start takes is removed, zeroed, cut off and emptied, one at a time. The finding names it with the code
//! that Microsoft's loader shows, and its own fix puts it back.

use crate::demo::vmrescue;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use vmrescue::block::{DiskMut, Overlay, OverlayOptions};
use vmrescue::boot::{Outcome, Part, walk};
use vmrescue::demo::{build_for, driver};
use vmrescue::diagnose::{Finding, diagnose};
use vmrescue::fs::{NodeKind, open_mut, resolve};
use vmrescue::image::{Kind, OpenOptions, open_path};
use vmrescue::progress::Silent;
use vmrescue::repair::{Change, Options, plan, run_changes, shipped};
use vmrescue::windows::Machine;
use vmrescue::windows::bcd::Firmware;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Missing,
    Zeroed,
    Cut,
    Empty,
    OtherMachine,
}

/// A healthy disk.
fn healthy(dir: &Path, firmware: Firmware) -> PathBuf {
    let path = dir.join(format!("{firmware:?}.raw"));
    build_for(&path, Kind::Raw, firmware).unwrap();
    path
}

/// The disk with one file broken, in memory. The copy in the component store stays whole: the name is taken off it first.
fn broken(path: &Path, guest: &str, fault: Fault) -> Machine {
    let disk = open_path(path, &OpenOptions::default()).unwrap().disk;
    let machine = Machine::open(disk.clone()).unwrap();
    let range = machine.volumes[machine.installations[0].volume].range.clone();
    let staged = DiskMut::new(Overlay::new(disk, OverlayOptions::default()).unwrap());
    let mut fs = open_mut(staged.window(range).unwrap()).unwrap();
    let parts: Vec<&str> = guest.split('\\').skip(1).collect();
    let (name, folder) = parts.split_last().unwrap();
    let folder = resolve(&*fs, folder).unwrap().unwrap();
    let node = fs.lookup(folder, name).unwrap().unwrap();
    let old = vmrescue::fs::read_file(&*fs, node, "").unwrap();
    fs.remove(folder, name).unwrap();
    let new = match fault {
        Fault::Missing => None,
        Fault::Zeroed => Some(vec![0; old.len()]),
        Fault::Cut => Some(old[..old.len() * 2 / 3].to_vec()),
        Fault::Empty => Some(Vec::new()),
        Fault::OtherMachine => Some(driver(name, "10.0.17763.7558", 0xaa64)),
    };
    if let Some(new) = new {
        let node = fs.create(folder, name, NodeKind::File).unwrap();
        fs.write(node, "", 0, &new).unwrap();
    }
    fs.sync().unwrap();
    drop(fs);
    Machine::open(staged.as_disk()).unwrap()
}

fn found(machine: &Machine) -> Vec<Finding> {
    diagnose(machine, &machine.installations[0]).unwrap()
}

/// What the screen shows, by the table of what was seen.
fn code(part: Part, fault: Fault, firmware: Firmware) -> &'static str {
    match (part, fault) {
        (Part::Loader, Fault::Missing) => "0xc000000f",
        (Part::Loader, _) if firmware == Firmware::Uefi => "0xc0000428",
        (Part::Nls, Fault::Zeroed) => "0x74",
        (Part::Loader | Part::Kernel | Part::Driver | Part::Nls, fault) => match fault {
            Fault::Missing => "0xc000000f",
            Fault::Zeroed | Fault::Empty => "0xc0000098",
            Fault::Cut => "0xc000000d",
            Fault::OtherMachine => "0xc000035a",
        },
        (Part::SessionManager, _) => "0x6F",
        (Part::Native | Part::ApiSet, _) => "0x6B",
        (Part::Subsystem, _) => "0xC000021A",
        (Part::Library, Fault::Missing) => "0xC0000135",
        (Part::Library, _) => "0xC000012F",
        (Part::Logon, _) => "0xEF",
        (other, _) => panic!("{other:?} is no file"),
    }
}

/// Files of the chain: path, part, and whether the loader goes on without it.
fn files(path: &Path) -> Vec<(String, String, Part)> {
    let machine = Machine::open(open_path(path, &OpenOptions::default()).unwrap().disk).unwrap();
    let chain = walk(&machine, &machine.installations[0]).unwrap();
    assert!(chain.first_fatal().is_none(), "{:?}", chain.first_fatal());
    assert!(chain.unread.is_empty(), "{:?}", chain.unread);
    let files = chain.links.iter().filter(|link| link.is_file() && link.part != Part::SystemHive);
    files.map(|link| (link.place.clone(), link.name.clone(), link.part)).collect()
}

/// Drivers whose absence the loader passes over; the disk's own are missed later, by the kernel.
fn passed_over(name: &str) -> Option<bool> {
    let lower = name.to_lowercase();
    // Of the disk's path: missed later.
    let disk = ["disk.sys", "classpnp.sys", "storvsc.sys", "storport.sys", "vmbus.sys"];
    // Needed by nothing else here.
    let optional = ["wdf01000.sys", "fileinfo.sys", "pcw.sys"];
    if disk.contains(&lower.as_str()) {
        Some(true)
    } else {
        optional.contains(&lower.as_str()).then_some(false)
    }
}

#[test]
fn each_file_of_the_start_is_missed_and_named_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let mut names = 0;
    for firmware in [Firmware::Uefi, Firmware::Bios] {
        let path = healthy(dir.path(), firmware);
        let all = files(&path);
        names = names.max(all.len());
        for (place, name, part) in &all {
            for fault in [Fault::Missing, Fault::Zeroed, Fault::Cut, Fault::Empty, Fault::OtherMachine] {
                // The second firmware differs in the loader only; data has no sections and no processor, and Windows 7 starts with an empty page.
                if firmware == Firmware::Bios && *part != Part::Loader
                    || *part == Part::Nls && matches!(fault, Fault::Cut | Fault::OtherMachine | Fault::Empty)
                {
                    continue;
                }
                let machine = broken(&path, place, fault);
                let findings = found(&machine);
                let said: Vec<String> =
                    findings.iter().map(|f| format!("{} {:?} {}", f.rule, f.evidence, f.screen)).collect();
                let about =
                    findings.iter().find(|f| f.evidence.iter().any(|line| line.contains(name.as_str())));
                let about = about.unwrap_or_else(|| panic!("{place} {fault:?} is not named: {said:?}"));
                if fault == Fault::Missing
                    && let Some(needed_later) = passed_over(name)
                {
                    let stop = findings.iter().find(|f| f.screen.contains("0x7B"));
                    assert_eq!(stop.is_some(), needed_later, "{place}: {said:?}");
                    continue;
                }
                assert_eq!(findings[0].severity.name(), "critical", "{place} {fault:?}: {said:?}");
                let wanted = code(*part, fault, firmware);
                assert!(about.screen.contains(wanted), "{place} {fault:?}: {wanted} expected in {said:?}");
                // Its own fix puts this file back, and nothing else.
                let fix =
                    about.fix.as_ref().unwrap_or_else(|| panic!("{place} {fault:?} has no fix: {said:?}"));
                let script = shipped().unwrap().into_iter().find(|script| script.name == fix.script).unwrap();
                let changes = plan(&machine, &machine.installations[0], &script, &fix.parameters);
                match changes.unwrap().as_slice() {
                    [Change::FileLink { path, .. }] => {
                        assert!(path.eq_ignore_ascii_case(place), "{path} {place}");
                    }
                    other => panic!("{place} {fault:?}: {other:?}"),
                }
            }
        }
    }
    assert!(names > 55, "{names} files");
}

/// After its own fix the rule is silent: the whole way, for a file of each kind.
#[test]
fn the_fix_of_a_file_is_published_and_the_rule_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let clean = healthy(dir.path(), Firmware::Uefi);
    let (path, mut seen) = (dir.path().join("broken.raw"), BTreeMap::new());
    for (place, name, part) in files(&clean) {
        if passed_over(&name).is_some() {
            continue;
        }
        if seen.insert(format!("{part:?}"), ()).is_some() {
            continue;
        }
        std::fs::copy(&clean, &path).unwrap();
        let delete = |_: &Machine| Ok(vec![Change::FileDelete { path: place.clone() }]);
        run_changes(&path, "break", delete, &Options::default(), &Silent).unwrap();
        let image = path.to_str().unwrap();
        assert_eq!(vmrescue(&["diagnose", image]).status.code(), Some(1), "{place}");
        let done = vmrescue(&["repair", image, "--yes"]);
        assert_eq!(done.status.code(), Some(0), "{place}: {}", text(&done));
        let again = vmrescue(&["diagnose", image]);
        assert_eq!(again.status.code(), Some(0), "{place}: {}", text(&again));
    }
    assert!(seen.len() >= 8, "{seen:?}");
}

/// Sets values of SYSTEM and says what is found then.
fn with(clean: &Path, path: &Path, values: &[(&str, &str, u32)]) -> Vec<Finding> {
    std::fs::copy(clean, path).unwrap();
    let set = |_: &Machine| {
        let change = |(key, name, number): &(&str, &str, u32)| Change::RegistrySet {
            hive: r"C:\Windows\System32\config\SYSTEM".into(),
            key: format!(r"ControlSet001\{key}"),
            name: (*name).into(),
            data_type: 4,
            data: number.to_le_bytes().to_vec(),
            was: None,
        };
        Ok(values.iter().map(change).collect())
    };
    run_changes(path, "set", set, &Options::default(), &Silent).unwrap();
    let machine = Machine::open(open_path(path, &OpenOptions::default()).unwrap().disk).unwrap();
    found(&machine)
}

#[test]
fn drivers_of_the_disk_that_do_not_start_are_named_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let clean = healthy(dir.path(), Firmware::Uefi);
    let path = dir.path().join("set.raw");
    for name in ["ACPI", "disk", "partmgr", "volmgr", "mountmgr", "storvsc", "vmbus"] {
        for (key, value, number) in [("", "Start", 3), (r"\StartOverride", "0", 3)] {
            let key = format!(r"Services\{name}{key}");
            let findings = with(&clean, &path, &[(&key, value, number)]);
            let about: Vec<_> = findings.iter().filter(|f| f.screen.contains("0x7B")).collect();
            assert!(!about.is_empty(), "{key} is silent");
            assert_eq!(findings[0].severity.name(), "critical", "{key}");
            let done = vmrescue(&["repair", path.to_str().unwrap(), "--yes"]);
            assert_eq!(done.status.code(), Some(0), "{key}: {}", text(&done));
            let again = vmrescue(&["diagnose", path.to_str().unwrap()]);
            assert_eq!(again.status.code(), Some(0), "{key}: {}", text(&again));
        }
    }
}

#[test]
fn a_driver_that_the_loader_leaves_out_is_no_certain_stop() {
    let dir = tempfile::tempdir().unwrap();
    let clean = healthy(dir.path(), Firmware::Uefi);
    let path = dir.path().join("left-out.raw");
    for control in [0u32, 1] {
        let values = [
            (r"Services\av0", "Start", 0),
            (r"Services\av0", "Type", 1),
            (r"Services\av0", "ErrorControl", control),
        ];
        let findings = with(&clean, &path, &values);
        assert!(findings.iter().all(|f| f.severity.name() != "critical"), "{findings:?}");
    }
    let values =
        [(r"Services\av0", "Start", 0), (r"Services\av0", "Type", 1), (r"Services\av0", "ErrorControl", 3)];
    let findings = with(&clean, &path, &values);
    let fix = findings[0].fix.as_ref().unwrap();
    assert_eq!((findings[0].rule.as_str(), fix.script.as_str()), ("boot-driver-broken", "disable-driver"));
    let machine = Machine::open(open_path(&path, &OpenOptions::default()).unwrap().disk).unwrap();
    let chain = walk(&machine, &machine.installations[0]).unwrap();
    let (link, broken) = chain.first_fatal().unwrap();
    assert_eq!((link.name.as_str(), broken.outcome), ("av0.sys", Outcome::Stops));
}

fn rules(image: &Path) -> Vec<(String, String)> {
    let output = vmrescue(&["diagnose", image.to_str().unwrap(), "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let word = |finding: &serde_json::Value, name: &str| finding[name].as_str().unwrap().to_string();
    let findings = document["findings"].as_array().unwrap();
    findings.iter().map(|finding| (word(finding, "rule"), word(finding, "severity"))).collect()
}

/// The rule speaks as critical; after `repair` without a name nothing does.
fn cured(path: &Path, rule: &str) {
    let found = rules(path);
    assert!(found.contains(&(rule.into(), "critical".into())), "{rule}: {found:?}");
    let done = vmrescue(&["repair", path.to_str().unwrap(), "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{rule}: {}", text(&done));
    assert_eq!(rules(path), Vec::new(), "{rule}");
}

#[test]
fn an_entry_that_leads_elsewhere_is_named_and_brought_home() {
    let dir = tempfile::tempdir().unwrap();
    let clean = healthy(dir.path(), Firmware::Uefi);
    let path = dir.path().join("entry.raw");
    let image = path.to_str().unwrap();
    let ramdisk =
        r"ramdisk=[C:]\$WINDOWS.~BT\Sources\SafeOS\winre.wim,{7619dcc8-fafe-11d9-b411-000476eba25f}";
    for (value, winpe) in [("partition=#1", "no"), (ramdisk, "yes"), (r"vhd=[C:]\gone.vhdx", "no")] {
        std::fs::copy(&clean, &path).unwrap();
        for element in ["device", "osdevice"] {
            let done = vmrescue(&["bcd", "set", image, "{default}", element, value, "--yes"]);
            assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        }
        if winpe == "yes" {
            vmrescue(&["bcd", "set", image, "{default}", "winpe", winpe, "--yes"]);
        }
        cured(&path, "boot-entry-astray");
    }
}

#[test]
fn a_letter_that_is_not_the_one_of_the_installation_is_named_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = healthy(dir.path(), Firmware::Uefi);
    // The image is closed again before the program opens it to write.
    let id = {
        let machine = Machine::open(open_path(&path, &OpenOptions::default()).unwrap().disk).unwrap();
        let volume = &machine.volumes[machine.installations[0].volume];
        volume.partition.as_ref().unwrap().unique_guid.unwrap()
    };
    let data = [b"DMIO:ID:".as_slice(), &id.0].concat();
    let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    let image = path.to_str().unwrap();
    let words = [r"HKLM\SYSTEM\MountedDevices", r"\DosDevices\D:"];
    let set = vmrescue(&["reg", "set", image, words[0], words[1], "REG_BINARY", &digits, "--yes"]);
    assert_eq!(set.status.code(), Some(0), "{}", text(&set));
    cured(&path, "windows-drive-letter");
    // And back: the letter of the running check is the one that the plan was made with.
    let set = vmrescue(&["reg", "set", image, words[0], r"\DosDevices\E:", "REG_BINARY", &digits, "--yes"]);
    assert_eq!(set.status.code(), Some(0), "{}", text(&set));
    let gone = vmrescue(&["reg", "delete", image, words[0], r"\DosDevices\C:", "--yes"]);
    assert_eq!(gone.status.code(), Some(0), "{}", text(&gone));
}

#[test]
fn boot_code_and_a_hive_that_was_not_closed_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = healthy(dir.path(), Firmware::Bios);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..440].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    cured(&path, "boot-code-missing");
    let repaired = std::fs::read(&path).unwrap();
    assert!(repaired[..440] != bytes[..440] && repaired[440..512] == bytes[440..512]);

    let path = healthy(dir.path(), Firmware::Uefi);
    let (image, hive) = (path.to_str().unwrap(), dir.path().join("SYSTEM"));
    let place = r"C:\Windows\System32\config\SYSTEM";
    assert_eq!(vmrescue(&["get", image, place, hive.to_str().unwrap()]).status.code(), Some(0));
    let mut bytes = std::fs::read(&hive).unwrap();
    bytes[4] = bytes[4].wrapping_add(1);
    let sum = bytes[..508].chunks(4).fold(0, |sum, word| sum ^ u32::from_le_bytes(word.try_into().unwrap()));
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&hive, &bytes).unwrap();
    let put = vmrescue(&["put", image, hive.to_str().unwrap(), place, "--yes"]);
    assert_eq!(put.status.code(), Some(0), "{}", text(&put));
    let found = rules(&path);
    assert!(found.contains(&("hive-not-clean".into(), "critical".into())), "{found:?}");
}

/// A store that cannot be read as a whole keeps what can, and lies beside the new one as it was.
#[test]
fn a_damaged_store_keeps_its_good_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = healthy(dir.path(), Firmware::Uefi);
    let (image, store) = (path.to_str().unwrap(), r"esp:\EFI\Microsoft\Boot\BCD");
    let ok = |words: &[&str]| {
        let output = vmrescue(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output));
        text(&output)
    };
    ok(&["bcd", "set", image, "{default}", "description", "Ours, kept", "--yes"]);
    let host = dir.path().join("BCD");
    ok(&["get", image, store, host.to_str().unwrap()]);
    let mut bytes = std::fs::read(&host).unwrap();
    // The checksum of the base block is wrong and the last bin overwritten.
    let length = bytes.len();
    bytes[508] ^= 1;
    bytes[length - 1024..].fill(0xde);
    std::fs::write(&host, &bytes).unwrap();
    ok(&["put", image, host.to_str().unwrap(), store, "--yes"]);
    ok(&["bcd", "rebuild", image, "--yes"]);
    assert!(ok(&["bcd", "enum", image]).contains("Ours, kept"));
    let kept = dir.path().join("kept");
    ok(&["get", image, &format!("{store}.old"), kept.to_str().unwrap()]);
    assert_eq!(std::fs::read(&kept).unwrap(), bytes);
}

/// The fallback loader of another maker is not overwritten.
#[test]
fn a_foreign_fallback_loader_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = healthy(dir.path(), Firmware::Uefi);
    let (image, host) = (path.to_str().unwrap(), dir.path().join("grub"));
    std::fs::write(&host, driver("grubx64.efi", "2.6.0.0", 0x8664)).unwrap();
    let place = r"esp:\EFI\Boot\bootx64.efi";
    let put = vmrescue(&["put", image, host.to_str().unwrap(), place, "--yes"]);
    assert_eq!(put.status.code(), Some(0), "{}", text(&put));
    let said = text(&vmrescue(&["repair", image, "rebuild-boot", "--dry-run"]));
    assert!(said.contains("another maker") && !said.contains("write #1:"), "{said}");
}
