//! Disks that were broken on purpose, one structure at a time: no command calls them whole, the rule of the fault names it, its own fix makes the
//! rule silent, and a repair that changes nothing does not say that nothing was needed. And the other way about: what nobody broke is not accused.

use crate::demo::vmrescue;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use vmrescue::block::{DiskMut, MemoryDevice};
use vmrescue::demo::build;
use vmrescue::image::{Kind, OpenOptions, open_path};
use vmrescue::partition;
use vmrescue::windows::Machine;

const MIB: usize = 1 << 20;
/// Where `demo::build` puts the partition of Windows, the third.
const WINDOWS: std::ops::Range<usize> = 89 * MIB..255 * MIB;
const SECTOR: usize = 512;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The byte of a record of $MFT.
fn record(bytes: &[u8], number: usize) -> usize {
    let boot = &bytes[WINDOWS.start..];
    WINDOWS.start + word(boot, 48) * usize::from(boot[13]) * SECTOR + number * 1024
}

/// A record that was not written as a whole.
fn torn(number: usize) -> Change {
    Box::new(move |bytes: &mut Vec<u8>| {
        let at = record(bytes, number);
        bytes[at + 510..at + 512].copy_from_slice(&[0xee; 2]);
    })
}

fn gone(number: usize) -> Change {
    Box::new(move |bytes: &mut Vec<u8>| {
        let at = record(bytes, number);
        bytes[at..at + 1024].fill(0);
    })
}

/// Gives the partition of Windows another type.
fn of_type(kind: &'static str) -> Change {
    Box::new(move |bytes: &mut Vec<u8>| {
        let device = Arc::new(MemoryDevice::new(std::mem::take(bytes)));
        partition::set_type(&DiskMut::new(Arc::clone(&device) as Arc<_>), 3, kind).unwrap();
        *bytes = device.to_vec();
    })
}

/// Changes the third entry of both copies of the table, and their sums.
fn entry(change: impl Fn(&mut [u8]) + 'static) -> Change {
    Box::new(move |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        for (header, entries) in [(SECTOR, 2 * SECTOR), (end - SECTOR, end - 33 * SECTOR)] {
            change(&mut bytes[entries + 256..entries + 384]);
            let sum = crc32(&bytes[entries..entries + 128 * 128]);
            bytes[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
            bytes[header + 16..header + 20].fill(0);
            let sum = crc32(&bytes[header..header + 92]);
            bytes[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
        }
    })
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 },
        )
    })
}

/// Changes a file where it lies on the disk.
fn file(guest: &'static str, change: impl Fn(&mut [u8]) + 'static) -> Change {
    Box::new(move |bytes: &mut Vec<u8>| {
        let dir = tempfile::tempdir().unwrap();
        let (image, out) = (dir.path().join("disk.raw"), dir.path().join("file"));
        std::fs::write(&image, &*bytes).unwrap();
        let got = vmrescue(&["get", image.to_str().unwrap(), guest, out.to_str().unwrap()]);
        assert_eq!(code(&got), 0, "{}", text(&got));
        let data = std::fs::read(&out).unwrap();
        let at = (0..bytes.len() - data.len()).step_by(SECTOR).find(|at| bytes[*at..].starts_with(&data));
        let at = at.unwrap_or_else(|| panic!("{guest} does not lie in one piece"));
        change(&mut bytes[at..at + data.len()]);
    })
}

type Change = Box<dyn Fn(&mut Vec<u8>)>;

/// What happens after the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// `repair` without a name cures it.
    Safe,
    /// The script cures it, when somebody asks for it.
    Script(&'static str),
    /// Nothing that the disk holds cures it.
    Nothing,
}

/// Every fault with its rule and its end.
fn faults() -> Vec<(&'static str, Change, &'static str, Then)> {
    let zero = |range: std::ops::Range<usize>| -> Change {
        Box::new(move |bytes: &mut Vec<u8>| bytes[range.clone()].fill(0))
    };
    let config = |name: &'static str| -> &'static str {
        match name {
            "SAM" => r"C:\Windows\System32\config\SAM",
            "SECURITY" => r"C:\Windows\System32\config\SECURITY",
            _ => r"C:\Windows\System32\config\SYSTEM",
        }
    };
    vec![
        ("no protective MBR", zero(0..512), "gpt-copy-damaged", Then::Safe),
        (
            "a protective MBR of another type",
            Box::new(|bytes: &mut Vec<u8>| bytes[450] = 7),
            "gpt-copy-damaged",
            Then::Safe,
        ),
        ("first table", zero(512..34 * 512), "gpt-copy-damaged", Then::Safe),
        ("reserved", of_type("reserved"), "windows-partition-type", Then::Safe),
        ("recovery", of_type("recovery"), "windows-partition-type", Then::Safe),
        (
            "unknown type",
            of_type("0fc63daf-8483-4772-8e79-3d69d8477de4"),
            "windows-partition-type",
            Then::Safe,
        ),
        ("hidden", entry(|entry| entry[55] |= 0x40), "partition-attributes", Then::Safe),
        ("read-only", entry(|entry| entry[55] |= 0x10), "partition-attributes", Then::Safe),
        ("no entry", entry(|entry| entry.fill(0)), "partition-lost", Then::Script("restore-partitions")),
        ("$MFT", torn(0), "volume-metadata-damaged", Then::Safe),
        ("$LogFile", torn(2), "volume-metadata-damaged", Then::Safe),
        ("$Volume", gone(3), "volume-metadata-damaged", Then::Safe),
        ("$AttrDef", torn(4), "volume-metadata-damaged", Then::Nothing),
        ("$Bitmap", gone(6), "volume-metadata-damaged", Then::Nothing),
        ("$Secure", torn(9), "volume-metadata-damaged", Then::Nothing),
        ("$Extend", gone(11), "volume-metadata-damaged", Then::Nothing),
        ("$UpCase", torn(10), "volume-metadata-damaged", Then::Nothing),
        ("SAM", file(config("SAM"), |data| data.fill(0)), "hive-unreadable", Then::Nothing),
        ("SECURITY", file(config("SECURITY"), |data| data[..4096].fill(0)), "hive-unreadable", Then::Nothing),
        (
            "the boot manager",
            file(r"esp:\EFI\Microsoft\Boot\bootmgfw.efi", |data| {
                let middle = data.len() / 2;
                data[middle] ^= 0x55;
            }),
            "boot-files-missing",
            Then::Safe,
        ),
        (
            "half of it",
            Box::new(|bytes: &mut Vec<u8>| bytes.truncate(128 * MIB)),
            "could-not-look",
            Then::Nothing,
        ),
    ]
}

fn rules(path: &Path) -> Vec<String> {
    let said = vmrescue(&["diagnose", path.to_str().unwrap(), "--json"]);
    let document: serde_json::Value =
        serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&said)));
    let findings = document["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["rule"].as_str().unwrap().to_string()).collect()
}

fn image(dir: &Path) -> (PathBuf, Vec<u8>) {
    let path = dir.join("disk.raw");
    build(&path, Kind::Raw).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

#[test]
fn what_was_broken_is_named_and_cured_or_left_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let (path, whole) = image(dir.path());
    let name = path.to_str().unwrap();
    assert_eq!(rules(&path), [""; 0], "the healthy disk");
    for (fault, change, rule, then) in faults() {
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let _old = std::fs::remove_dir_all(dir.path().join("disk.raw.vmrescue"));
        let said = vmrescue(&["diagnose", name]);
        assert!(matches!(code(&said), 1 | 2), "{fault}: {}", text(&said));
        assert!(!text(&said).contains("and it was looked at"), "{fault}: {}", text(&said));
        let found = rules(&path);
        assert!(found.iter().any(|one| one == rule), "{fault}: {rule} is silent: {found:?}");
        let repaired = vmrescue(&["repair", name, "--yes"]);
        if then == Then::Safe {
            assert_eq!(code(&repaired), 0, "{fault}: {}", text(&repaired));
            assert_eq!(rules(&path), [""; 0], "{fault}: {}", text(&repaired));
            continue;
        }
        assert_ne!(code(&repaired), 0, "{fault}: {}", text(&repaired));
        assert!(!text(&repaired).contains("there is nothing to do"), "{fault}: {}", text(&repaired));
        if let Then::Script(script) = then {
            let done = vmrescue(&["repair", name, script, "--yes", "--allow-unsafe"]);
            assert_eq!(code(&done), 0, "{fault}: {}", text(&done));
            assert_eq!(rules(&path), [""; 0], "{fault}: {}", text(&done));
        }
    }
}

/// Files of the corpus that are broken on purpose, or are no disks: what their source says of them.
const NOT_WHOLE: [&str; 0] = [];

#[test]
fn disks_that_nobody_broke_are_not_accused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = crate::ntfs_corpus::corpus_volumes(dir.path(), 300 << 20);
    let mut seen = 0;
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if NOT_WHOLE.contains(&name.as_str()) {
            continue;
        }
        let Ok(container) = open_path(&path, &OpenOptions::default()) else { continue };
        let Ok(machine) = Machine::open(container.disk) else { continue };
        if machine.volumes.iter().all(|volume| volume.fs.is_none()) {
            continue;
        }
        seen += 1;
        for one in vmrescue::diagnose::look(&machine, &[], &[]).unwrap() {
            let kind = format!("{:?}", one.kind);
            let bad: Vec<String> = one
                .findings
                .iter()
                .filter(|finding| finding.severity == vmrescue::diagnose::Severity::Critical)
                .map(|finding| format!("{}: {:?}", finding.rule, finding.evidence))
                .collect();
            assert!(bad.is_empty(), "{name} ({kind}): {bad:#?}");
            assert_eq!(kind, "DataDisk", "{name}");
        }
    }
    assert!(seen > 20 || crate::ntfs_corpus::corpus().is_none(), "{seen} disks were looked at");
}
