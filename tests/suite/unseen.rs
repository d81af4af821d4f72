//! Where it could not look, the program says so: no verdict is clean, no exit code is 0, no batch calls it clean. And what a repair
//! could not do is another outcome than that nothing was needed.

use crate::demo::vmrescue;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use vmrescue::block::{DiskMut, MemoryDevice};
use vmrescue::demo::{Fault, break_it, build};
use vmrescue::image::Kind;
use vmrescue::partition::{Entry, NewPartition};
use vmrescue::progress::Silent;
use vmrescue::registry::Hive;

pub(crate) const MIB: usize = 1 << 20;
/// Where `demo::build` puts the partitions.
pub(crate) const SYSTEM: std::ops::Range<usize> = MIB..73 * MIB;
pub(crate) const WINDOWS: std::ops::Range<usize> = 89 * MIB..255 * MIB;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(output)))
}

/// A healthy raw disk, and a copy of it that `change` has worked on.
fn changed(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let base = dir.join("base.raw");
    if !base.exists() {
        build(&base, Kind::Raw).unwrap();
    }
    let mut bytes = std::fs::read(&base).unwrap();
    change(&mut bytes);
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Where the hive SYSTEM lies in the image, and the hive.
fn system_hive(dir: &Path, bytes: &[u8]) -> (usize, Hive) {
    system_hive_of(&dir.join("base.raw"), dir, bytes)
}

/// The same of any image.
pub(crate) fn system_hive_of(image: &Path, dir: &Path, bytes: &[u8]) -> (usize, Hive) {
    let out = dir.join("SYSTEM");
    let got = vmrescue(&[
        "get",
        image.to_str().unwrap(),
        r"C:\Windows\System32\config\SYSTEM",
        out.to_str().unwrap(),
        "--force",
    ]);
    assert_eq!(code(&got), 0, "{}", text(&got));
    let hive = std::fs::read(&out).unwrap();
    let at = bytes.windows(4096).step_by(512).position(|part| part == &hive[..4096]).unwrap() * 512;
    assert!(bytes[at..at + hive.len()] == hive, "the hive lies in one piece");
    (at, Hive::parse(hive).unwrap())
}

/// Destroys the list of subkeys of a key: its kind is none that there is.
pub(crate) fn without_list(bytes: &mut [u8], at: usize, hive: &Hive, key: &str) {
    let node = hive.key(key).unwrap().unwrap().file_offset() as usize;
    let list = u32::from_le_bytes(bytes[at + node + 4 + 28..][..4].try_into().unwrap()) as usize;
    bytes[at + 4096 + list + 4..][..2].copy_from_slice(b"zz");
}

#[test]
fn nothing_recognised_is_no_clean_bill() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.join(name), bytes).unwrap();
        dir.join(name)
    };
    let mut seed = 1u64;
    let mut random = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as u8
            })
            .collect()
    };
    let noise = random(8 * MIB);
    let images = [
        write("text.txt", &b"this is a letter and no disk\n".repeat(400)),
        write("random.raw", &noise),
        write("empty.raw", b""),
        write("zero.raw", &vec![0; 4 * MIB]),
        changed(dir, "no-gpt.raw", |bytes| {
            let end = bytes.len();
            bytes[..34 * 512].fill(0);
            bytes[end - 33 * 512..].fill(0);
        }),
        changed(dir, "gpt-damaged.raw", |bytes| {
            let end = bytes.len();
            bytes[512..34 * 512].fill(0xa5);
            bytes[end - 33 * 512..].fill(0xa5);
        }),
        changed(dir, "no-c.raw", |bytes| {
            bytes[WINDOWS]
                .chunks_mut(noise.len())
                .for_each(|part| part.copy_from_slice(&noise[..part.len()]));
        }),
        changed(dir, "no-mft.raw", |bytes| {
            // Boot sector and copy stay; what they lead to is gone.
            bytes[WINDOWS.start + 8192..WINDOWS.end - 512].fill(0);
        }),
    ];
    for image in &images {
        let path = image.to_str().unwrap();
        for words in [&["check", path][..], &["diagnose", path]] {
            let said = vmrescue(words);
            assert_ne!(code(&said), 0, "{words:?}: {}", text(&said));
            let said = text(&said);
            assert!(
                !said.contains("no damage found\n") && !said.contains("and it was looked at"),
                "{words:?}: {said}"
            );
        }
    }
    // The container alone: only what has one, or holds a disk that is known, is called whole.
    for name in ["text.txt", "random.raw", "empty.raw", "zero.raw", "no-gpt.raw"] {
        let said = vmrescue(&["disk", "check", dir.join(name).to_str().unwrap()]);
        assert_eq!(code(&said), 2, "{name}: {}", text(&said));
        let said = vmrescue(&["disk", "check", dir.join(name).to_str().unwrap(), "--json"]);
        assert_eq!(json(&said)["verdict"], "could-not-tell", "{name}");
    }
    let whole = vmrescue(&["disk", "check", dir.join("base.raw").to_str().unwrap()]);
    assert_eq!(code(&whole), 0, "{}", text(&whole));

    // A batch never calls one of them clean.
    let list: Vec<&str> = images.iter().map(|image| image.to_str().unwrap()).collect();
    let base = dir.join("base.raw");
    for verb in ["diagnose", "inspect"] {
        let out = dir.join(verb);
        let words = [
            &["batch", verb],
            &list[..],
            &[base.to_str().unwrap(), "--json", "--out", out.to_str().unwrap()],
        ];
        let done = vmrescue(&words.concat());
        assert_eq!(code(&done), 4, "{}", text(&done));
        if verb == "diagnose" {
            assert_eq!(json(&done)["clean"], 1, "the healthy one: {}", text(&done));
        }
    }
}

#[test]
fn parts_of_a_machine_that_are_gone_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let no_system = changed(dir, "esp.raw", |bytes| bytes[SYSTEM].fill(0));
    let said = vmrescue(&["check", no_system.to_str().unwrap()]);
    assert_ne!(code(&said), 0, "{}", text(&said));
    assert!(text(&said).contains("not checked"), "{}", text(&said));

    let no_hive = changed(dir, "hive.raw", |_| {});
    let path = no_hive.to_str().unwrap();
    let gone = vmrescue(&["rm", path, r"C:\Windows\System32\config\SYSTEM", "--yes"]);
    assert_eq!(code(&gone), 0, "{}", text(&gone));
    for command in ["check", "diagnose"] {
        let said = vmrescue(&[command, path]);
        assert_eq!(code(&said), 1, "{}", text(&said));
        assert!(text(&said).contains("SYSTEM"), "{}", text(&said));
    }
    let no_accounts = changed(dir, "accounts.raw", |_| {});
    let accounts = no_accounts.to_str().unwrap();
    let gone = vmrescue(&["rm", accounts, r"C:\Windows\System32\config\SAM", "--yes"]);
    assert_eq!(code(&gone), 0, "{}", text(&gone));
    let said = vmrescue(&["check", accounts]);
    assert!(code(&said) == 1 && text(&said).contains(r"config\SAM is missing"), "{}", text(&said));
    // A hive that cannot be read is not repaired, and that is not "nothing needed".
    let repair = vmrescue(&["check", path, "--repair", "--yes", "--json"]);
    assert_eq!(code(&repair), 1, "{}", text(&repair));
    let said = text(&vmrescue(&["check", path, "--repair", "--yes"]));
    assert!(said.contains("could not") && said.contains("backup"), "{said}");
    assert!(!said.contains("nothing to do"), "{said}");
}

#[test]
fn services_that_cannot_be_read_are_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let all = changed(dir, "services.raw", |bytes| {
        let (at, hive) = system_hive(dir, bytes);
        without_list(bytes, at, &hive, r"ControlSet001\Services");
    });
    let one = changed(dir, "storvsc.raw", |bytes| {
        let (at, hive) = system_hive(dir, bytes);
        let node = hive.key(r"ControlSet001\Services\storvsc").unwrap().unwrap().file_offset() as usize;
        // The key is still a key; its list of values leads nowhere.
        bytes[at + node + 4 + 40..][..4].copy_from_slice(&0x00ff_fff0u32.to_le_bytes());
    });
    for image in [&all, &one] {
        let path = image.to_str().unwrap();
        let said = vmrescue(&["diagnose", path, "--json"]);
        assert_ne!(code(&said), 0, "{}", text(&said));
        let document = json(&said);
        let unread = document["could_not_look"].as_array().unwrap();
        let services = unread.iter().find(|one| one["where"].as_str().unwrap().contains("Services"));
        let services = services.unwrap_or_else(|| panic!("{}", text(&said)));
        assert_eq!(services["weight"], "critical");
        assert!(document["findings"].as_array().unwrap().iter().any(|f| f["rule"] == "could-not-look"));
        let page = dir.join("page.html");
        let html = vmrescue(&["inspect", path, "--html", page.to_str().unwrap(), "--force"]);
        assert_eq!(code(&html), 0, "{}", text(&html));
        let page = std::fs::read_to_string(&page).unwrap();
        assert!(page.contains("could not be told") || page.contains("will not boot"), "the page is green");
        let repair = vmrescue(&["repair", path, "--yes"]);
        assert_ne!(code(&repair), 0, "{}", text(&repair));
        let out = dir.join(format!("{}-batch", image.file_stem().unwrap().to_str().unwrap()));
        let batch = vmrescue(&["batch", "diagnose", path, "--json", "--out", out.to_str().unwrap()]);
        assert_eq!((code(&batch), &json(&batch)["clean"]), (4, &serde_json::json!(0)), "{}", text(&batch));
    }
    assert!(text(&vmrescue(&["diagnose", one.to_str().unwrap()])).contains("storvsc"));
}

#[test]
fn containers_that_were_cut_or_lost_their_parent_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let whole = dir.join("whole.vhdx");
    build(&whole, Kind::VhdxDynamic).unwrap();
    let cut = dir.join("cut.vhdx");
    let mut bytes = std::fs::read(&whole).unwrap();
    bytes.truncate(bytes.len() - 2 * MIB);
    std::fs::write(&cut, &bytes).unwrap();
    let path = cut.to_str().unwrap();
    for words in [&["diagnose", path][..], &["check", path], &["disk", "check", path]] {
        let said = vmrescue(words);
        assert_ne!(code(&said), 0, "{words:?}: {}", text(&said));
        assert!(text(&said).contains("outside the file"), "{words:?}: {}", text(&said));
    }
    // What is left is copied out, with the holes named.
    let out = dir.join("out.raw");
    let copied = vmrescue(&["disk", "convert", path, out.to_str().unwrap(), "--format", "raw", "--json"]);
    assert_eq!(code(&copied), 1, "{}", text(&copied));
    assert!(json(&copied)["lost_bytes"].as_u64().unwrap() > 0);
    assert_eq!(std::fs::metadata(&out).unwrap().len(), 256 << 20);

    // A child whose parent is gone, and one whose parent was changed.
    let (parent, child) = (dir.join("p.vhdx"), dir.join("c.avhdx"));
    std::fs::copy(&whole, &parent).unwrap();
    let made = vmrescue(&["disk", "snapshot", parent.to_str().unwrap(), child.to_str().unwrap()]);
    assert_eq!(code(&made), 0, "{}", text(&made));
    let child_path = child.to_str().unwrap();
    assert_eq!(code(&vmrescue(&["check", child_path])), 0);
    let other = dir.join("other.vhdx");
    build(&other, Kind::VhdxDynamic).unwrap();
    std::fs::copy(&other, &parent).unwrap();
    for words in [&["check", child_path][..], &["disk", "check", child_path]] {
        let said = vmrescue(words);
        assert_eq!(code(&said), 1, "{words:?}: {}", text(&said));
        assert!(text(&said).contains("not the parent"), "{}", text(&said));
    }
    // Named by the user, it is looked at all the same, and never written.
    let named = ["--parent", parent.to_str().unwrap()];
    let info = vmrescue(&[&["info", child_path][..], &named].concat());
    assert_eq!(code(&info), 0, "{}", text(&info));
    assert!(text(&info).contains("chain-parent-changed"), "{}", text(&info));
    let words = ["reg", "set", child_path, r"HKLM\SYSTEM\Select", "x", "1", "REG_DWORD", "--yes"];
    let written = vmrescue(&[&words[..], &named].concat());
    assert_ne!(code(&written), 0, "{}", text(&written));
    std::fs::remove_file(&parent).unwrap();
    for words in [&["check", child_path][..], &["disk", "check", child_path]] {
        let said = vmrescue(words);
        assert_eq!(code(&said), 1, "{words:?}: {}", text(&said));
        assert!(text(&said).contains("chain-parent-missing"), "{}", text(&said));
    }
}

#[test]
fn disks_are_named_as_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Boot files and a store, and the Windows that they start is gone: that is no data disk.
    let data = changed(dir, "data.raw", |_| {});
    let path = data.to_str().unwrap();
    let gone = vmrescue(&["rm", path, "-r", r"#3:\Windows", "--yes"]);
    assert_eq!(code(&gone), 0, "{}", text(&gone));
    let said = vmrescue(&["diagnose", path, "--json"]);
    assert_eq!(
        (code(&said), &json(&said)["subjects"][0]["kind"]),
        (2, &serde_json::json!("system-disk")),
        "{}",
        text(&said)
    );
    // A data disk is healthy, and not a failed one.
    let gone = vmrescue(&["rm", path, "-r", r"#1:\EFI", "--yes"]);
    assert_eq!(code(&gone), 0, "{}", text(&gone));
    let said = vmrescue(&["diagnose", path, "--json"]);
    assert_eq!(
        (code(&said), &json(&said)["subjects"][0]["kind"]),
        (0, &serde_json::json!("data-disk")),
        "{}",
        text(&said)
    );
    // The image of one partition: nothing is said of what starts it.
    let base = std::fs::read(dir.join("base.raw")).unwrap();
    let bare = dir.join("bare.img");
    std::fs::write(&bare, &base[WINDOWS]).unwrap();
    let said = vmrescue(&["diagnose", bare.to_str().unwrap(), "--json"]);
    let document = json(&said);
    assert_eq!(
        (code(&said), &document["verdict"]),
        (2, &serde_json::json!("could-not-tell")),
        "{}",
        text(&said)
    );
    assert_eq!(document["subjects"][0]["kind"], "bare-volume");
    assert_eq!(document["findings"].as_array().unwrap().len(), 1, "{}", text(&said));
    // Two installations: each is judged.
    let two = dir.join("two.raw");
    let mut bytes = base;
    let volume = bytes[WINDOWS].to_vec();
    bytes.resize(512 * MIB, 0);
    bytes[300 * MIB..300 * MIB + volume.len()].copy_from_slice(&volume);
    std::fs::write(&two, &bytes).unwrap();
    let path = two.to_str().unwrap();
    let added = vmrescue(&["partition", "repair-gpt", path, "--yes"]);
    assert_eq!(code(&added), 0, "{}", text(&added));
    let restored = vmrescue(&["partition", "restore", path, "--yes"]);
    assert_eq!(code(&restored), 0, "{}", text(&restored));
    let said = vmrescue(&["diagnose", path, "--json"]);
    let document = json(&said);
    assert_eq!(document["subjects"].as_array().unwrap().len(), 2, "{}", text(&said));
    assert_eq!(document["subjects"][1]["windows"], 2);
}

#[test]
fn one_fix_that_cannot_be_made_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d.vhdx");
    build(&image, Kind::VhdxDynamic).unwrap();
    let path = image.to_str().unwrap();
    let nothing = vmrescue(&["repair", path, "--yes", "--json"]);
    assert_eq!((code(&nothing), &json(&nothing)["outcome"]), (0, &serde_json::json!("nothing-needed")));
    break_it(&image, &[Fault::StorageDriverDisabled, Fault::VolumeManagerMissing], &Silent).unwrap();
    // The component store has no copy either.
    let folder = r"C:\Windows\WinSxS\amd64_volmgr.inf_31bf3856ad364e35_10.0.17763.7558_none_0a1b2c3d4e5f6071";
    let gone = vmrescue(&["rm", path, &format!(r"{folder}\volmgr.sys"), "--yes"]);
    assert_eq!(code(&gone), 0, "{}", text(&gone));
    let done = vmrescue(&["repair", path, "--yes", "--json"]);
    let document = json(&done);
    assert_eq!((code(&done), &document["outcome"]), (1, &serde_json::json!("done")), "{}", text(&done));
    assert_eq!(document["fixed"], serde_json::json!(["boot-driver-not-started"]));
    assert_eq!(document["could_not"].as_array().unwrap().len(), 1, "{}", text(&done));
    assert!(document["could_not"][0]["get"].as_str().unwrap().contains("--source"), "{}", text(&done));
    assert_eq!(document["left"].as_array().unwrap().len(), 1);
    // What is left cannot be done, and that is not the same as nothing to do.
    let again = vmrescue(&["repair", path, "--yes"]);
    assert_eq!(code(&again), 1, "{}", text(&again));
    let said = text(&again);
    assert!(said.contains("nothing could be repaired") && said.contains("left: 1"), "{said}");
    assert!(!said.contains("nothing to do"), "{said}");
}

/// Findings of a diagnosis, by their rules.
fn rules(output: &Output) -> Vec<String> {
    let document = json(output);
    let list = document["findings"].as_array().unwrap();
    list.iter().map(|finding| finding["rule"].as_str().unwrap().to_string()).collect()
}

#[test]
fn lost_partitions_are_found_shown_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let gone = |bytes: &mut Vec<u8>, from: usize| {
        let end = bytes.len();
        bytes[from..34 * 512].fill(0);
        bytes[end - 33 * 512..].fill(0);
    };
    // Both copies of the table; the same with the protective MBR; the entry of the system partition alone.
    let images = [
        changed(dir, "headers.raw", |bytes| gone(bytes, 512)),
        changed(dir, "all.raw", |bytes| gone(bytes, 0)),
        changed(dir, "entry.raw", |bytes| {
            let device = Arc::new(MemoryDevice::zeroed(bytes.len()));
            let disk = DiskMut::new(Arc::clone(&device) as Arc<_>);
            disk.write_at(0, bytes).unwrap();
            let table = vmrescue::partition::read(&disk.as_disk()).unwrap();
            gone(bytes, 0);
            disk.write_at(0, bytes).unwrap();
            let kept: Vec<Entry> = table.partitions[1..]
                .iter()
                .map(|p| {
                    let new = NewPartition {
                        type_guid: p.type_guid.unwrap(),
                        mbr_type: 7,
                        range: p.range.clone(),
                        name: p.name.clone(),
                        active: false,
                    };
                    Entry::new(new, p.unique_guid)
                })
                .collect();
            let id = table.disk_id.unwrap().parse().unwrap();
            vmrescue::partition::add_to_gpt(&disk, Some(id), &kept).unwrap();
            *bytes = device.to_vec();
        }),
    ];
    for image in &images {
        let path = image.to_str().unwrap();
        let before = std::fs::read(image).unwrap();
        let found = vmrescue(&["diagnose", path, "--json"]);
        assert_eq!(code(&found), 1, "{}", text(&found));
        // The lost entry of a system partition has a rule and a script of its own: one state, one finding.
        let (rule, script) = match path.contains("entry") {
            true => ("system-partition-entry-lost", "system-partition"),
            false => ("partition-lost", "restore-partitions"),
        };
        assert_eq!(
            rules(&found)
                .iter()
                .filter(|one| one.ends_with("partition-lost") || one.ends_with("entry-lost"))
                .count(),
            1,
            "{}",
            text(&found)
        );
        assert!(rules(&found).contains(&rule.to_string()), "{}", text(&found));
        let said = text(&vmrescue(&["diagnose", path]));
        assert!(said.contains(&format!("vmrescue repair {path} {script}")), "{said}");
        let scan = vmrescue(&["info", path, "--scan", "--json"]);
        let document = json(&scan);
        let kinds: Vec<&str> =
            document["found"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
        let wanted = if path.contains("entry") { &["fat32"][..] } else { &["fat32", "ntfs"] };
        assert_eq!(kinds, wanted, "{}", text(&scan));
        let listed = vmrescue(&["ls", path, r"C:\Windows\System32", "--scan"]);
        assert!(code(&listed) == 0 && text(&listed).contains("ntoskrnl.exe"), "{}", text(&listed));
        let refused = vmrescue(&["rm", path, r"C:\Windows\System32\ntoskrnl.exe", "--scan", "--yes"]);
        assert_ne!(code(&refused), 0, "what a search finds is only looked at");
        assert!(std::fs::read(image).unwrap() == before, "looking changes nothing");
        // Never by itself.
        assert_ne!(code(&vmrescue(&["repair", path, "--yes"])), 0);
        assert!(std::fs::read(image).unwrap() == before, "a table is not written without being asked for");
        let done = vmrescue(&["repair", path, "restore-partitions", "--yes", "--allow-unsafe"]);
        assert_eq!(code(&done), 0, "{}", text(&done));
        // The store names the partitions by the GUIDs that they have again.
        let clean = vmrescue(&["diagnose", path]);
        assert_eq!(code(&clean), 0, "{}", text(&clean));
        assert_eq!(code(&vmrescue(&["check", path])), 0);
        assert_eq!(code(&vmrescue(&["undo", path, "--yes"])), 0);
        assert!(std::fs::read(image).unwrap() == before, "undo brings back every byte");
    }
    let none = vmrescue(&["info", dir.join("base.raw").to_str().unwrap(), "--scan", "--json"]);
    assert_eq!(json(&none)["found"].as_array().unwrap().len(), 0, "{}", text(&none));
}

#[test]
fn lost_boot_sectors_are_told_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // NTFS: the sector and its copy; never by itself.
    let ntfs = changed(dir, "ntfs.raw", |bytes| {
        bytes[WINDOWS.start..WINDOWS.start + 512].fill(0);
        bytes[WINDOWS.end - 512..WINDOWS.end].fill(0);
    });
    let path = ntfs.to_str().unwrap();
    let found = vmrescue(&["diagnose", path, "--json"]);
    assert_eq!(code(&found), 1, "{}", text(&found));
    let finding = json(&found)["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["rule"] == "boot-sector-damaged")
        .cloned();
    let finding = finding.unwrap_or_else(|| panic!("{}", text(&found)));
    assert_eq!(finding["fix"]["applicability"], "unsafe");
    assert!(finding["evidence"][0].as_str().unwrap().contains("$MFT"), "{finding}");
    let done = vmrescue(&["partition", "repair-boot-sector", path, "3", "--yes"]);
    assert_eq!(code(&done), 0, "{}", text(&done));
    for words in [&["diagnose", path][..], &["check", path]] {
        let clean = vmrescue(words);
        assert_eq!(code(&clean), 0, "{}", text(&clean));
    }
    // FAT32: the copy in sector 6 is one.
    let fat = changed(dir, "fat.raw", |bytes| bytes[SYSTEM.start..SYSTEM.start + 512].fill(0));
    let path = fat.to_str().unwrap();
    let found = vmrescue(&["diagnose", path, "--json"]);
    assert_eq!(
        (code(&found), rules(&found)),
        (1, vec!["boot-sector-damaged".to_string()]),
        "{}",
        text(&found)
    );
    let done = vmrescue(&["repair", path, "--yes"]);
    assert_eq!(code(&done), 0, "{}", text(&done));
    assert!(std::fs::read(&fat).unwrap() == std::fs::read(dir.join("base.raw")).unwrap());
}

#[test]
fn the_next_command_carries_the_path_for_the_shell() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("my disk's.vhdx");
    build(&image, Kind::VhdxDynamic).unwrap();
    break_it(&image, &[Fault::StorageDriverDisabled], &Silent).unwrap();
    let path = image.to_str().unwrap();
    let said = text(&vmrescue(&["diagnose", path]));
    let next =
        said.lines().find_map(|line| line.strip_prefix("Next step ")).unwrap_or_else(|| panic!("{said}"));
    // The shell runs it as it stands, but for the question that it asks.
    let program = env!("CARGO_BIN_EXE_vmrescue");
    let line = format!("{} --yes", next.trim().replacen("vmrescue", program, 1));
    let ran = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(code(&ran), 0, "{line}: {}", text(&ran));
    assert!(text(&ran).contains("cured: 1, left: 0"), "{}", text(&ran));
    for question in ["0x0000007B", "7B", "INACCESSIBLE_BOOT_DEVICE"] {
        let said = vmrescue(&["diagnose", "--explain", question]);
        assert!(text(&said).contains("boot-driver-not-started"), "{question}: {}", text(&said));
        let scripts = vmrescue(&["scripts", "--for", question]);
        assert!(text(&scripts).contains("storage-drivers-boot"), "{question}: {}", text(&scripts));
    }
    let said = text(&vmrescue(&["diagnose", "--explain", "BOOTMGR is missing"]));
    assert!(said.contains("boot-files-missing"), "{said}");
    let said = text(&vmrescue(&["repair", path, "rebuild-bot"]));
    assert!(said.contains("did you mean rebuild-boot"), "{said}");
}
