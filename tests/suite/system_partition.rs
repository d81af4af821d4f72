//! A system partition that is lost: each state is named, repaired by one command, and taken back byte for byte.

use crate::demo::vmrescue;
use crate::oracle::tool;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use vmrescue::block::{Disk, DiskMut, HostFile};
use vmrescue::demo::build_for;
use vmrescue::guid::Guid;
use vmrescue::image::Kind;
use vmrescue::partition::{self, EFI_SYSTEM};
use vmrescue::windows::bcd::Firmware;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn sha(path: &Path) -> Vec<u8> {
    Sha256::digest(std::fs::read(path).unwrap()).to_vec()
}

fn table(path: &Path) -> partition::Table {
    partition::read(&Disk::new(Arc::new(HostFile::open_read(path).unwrap()))).unwrap()
}

pub(crate) fn writer(path: &Path) -> DiskMut {
    DiskMut::new(Arc::new(HostFile::open_write(path).unwrap()))
}

/// The place and GUID of the system partition.
fn system(path: &Path) -> (u32, Range<u64>, Option<Guid>) {
    let table = table(path);
    let found = table.partitions.iter().find(|p| p.type_guid == Some(EFI_SYSTEM) || p.active).unwrap();
    (found.number, found.range.clone(), found.unique_guid)
}

/// Removes a partition from both copies of a GPT, as diskpart does.
pub(crate) fn delete_entry(path: &Path, number: u32) {
    edit_entry(path, number, |entry| entry.fill(0));
}

/// Changes the entry of a partition in both copies of a GPT.
pub(crate) fn edit_entry(path: &Path, number: u32, change: impl FnOnce(&mut [u8])) {
    let disk = writer(path);
    let sectors = disk.len() / 512;
    let mut entries = disk.as_disk().read_vec(1024, 128 * 128).unwrap();
    change(&mut entries[(number as usize - 1) * 128..number as usize * 128]);
    disk.write_at(1024, &entries).unwrap();
    for at in [512, (sectors - 1) * 512] {
        let mut header = disk.as_disk().read_vec(at, 512).unwrap();
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        header[16..20].fill(0);
        let sum = crc32(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        disk.write_at(at, &header).unwrap();
    }
    disk.write_at((sectors - 33) * 512, &entries).unwrap();
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 },
        )
    })
}

fn fsck(path: &Path, dir: &Path) {
    let (_, range, _) = system(path);
    let bytes = writer(path).as_disk().read_vec(range.start, (range.end - range.start) as usize).unwrap();
    let part = dir.join("esp.img");
    std::fs::write(&part, bytes).unwrap();
    let Some(mut fsck) = tool("fsck.fat") else { return };
    let output = fsck.arg("-n").arg(&part).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let Some(mut fls) = tool("fls") else { return };
    let listed = text(&fls.args(["-r", "-p", "-l", "-z", "UTC"]).arg(&part).output().unwrap());
    let line = listed.lines().find(|line| line.contains("bootmgfw.efi\t")).unwrap_or_default();
    // Modified, read, changed (which FAT has not), made.
    let times: Vec<&str> = line.split('\t').skip(2).collect();
    let there = |place: usize| times.get(place).is_some_and(|time| time.starts_with("20"));
    assert!(there(0) && there(1) && there(3), "times of the boot manager: {listed}");
}

/// Diagnosed, repaired, diagnosed again, undone.
fn repaired(image: &Path, rule: &str, dir: &Path) {
    let name = image.to_str().unwrap();
    let before = sha(image);
    let found = vmrescue(&["diagnose", name]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    assert!(text(&found).contains(rule), "{rule} in {}", text(&found));
    assert!(text(&found).contains("repair"), "{}", text(&found));
    let done = vmrescue(&["repair", name, "system-partition", "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    let after = vmrescue(&["diagnose", name]);
    assert_eq!(after.status.code(), Some(0), "{rule}: {}", text(&after));
    let checked = vmrescue(&["check", name]);
    assert_eq!(checked.status.code(), Some(0), "{rule}: {}", text(&checked));
    if table(image).kind == partition::TableKind::Gpt {
        fsck(image, dir);
    }
    let stands = sha(image);
    let again = vmrescue(&["repair", name, "system-partition", "--yes"]);
    assert!(sha(image) == stands, "{rule}: twice is once: {}", text(&again));
    let undone = vmrescue(&["undo", name, "--yes"]);
    assert_eq!(undone.status.code(), Some(0), "{}", text(&undone));
    assert_eq!(sha(image), before, "{rule}: undone byte for byte");
}

fn healthy(dir: &Path, name: &str, firmware: Firmware) -> PathBuf {
    let path = dir.join(name);
    build_for(&path, Kind::Raw, firmware).unwrap();
    path
}

#[test]
fn the_entry_comes_back_with_its_guid() {
    let dir = tempfile::tempdir().unwrap();
    let image = healthy(dir.path(), "entry.raw", Firmware::Uefi);
    let (number, range, id) = system(&image);
    delete_entry(&image, number);
    repaired(&image, "system-partition-entry-lost", dir.path());
    let done = vmrescue(&["repair", image.to_str().unwrap(), "system-partition", "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    assert_eq!(system(&image), (number, range, id), "the boot store knew the GUID");
}

#[test]
fn an_empty_or_foreign_system_partition_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let image = healthy(dir.path(), "zero.raw", Firmware::Uefi);
    let (number, range, _) = system(&image);
    writer(&image).zero_at(range.clone()).unwrap();
    let checked = vmrescue(&["check", image.to_str().unwrap()]);
    assert_ne!(checked.status.code(), Some(0), "{}", text(&checked));
    assert!(text(&checked).contains("system-partition-no-file-system"), "{}", text(&checked));
    repaired(&image, "system-partition-no-file-system", dir.path());
    let window = writer(&image).window(range).unwrap();
    vmrescue::fs::ntfs::format(&window, &vmrescue::fs::ntfs::FormatSpec::default()).unwrap();
    // The program wants the image for itself.
    drop(window);
    repaired(&image, "system-partition-not-fat", dir.path());
    // Asked for NTFS, an EFI system partition gets FAT.
    let name = image.to_str().unwrap();
    let range = system(&image).1;
    writer(&image).zero_at(range).unwrap();
    let done = vmrescue(&["disk", "format", name, "--volume", &number.to_string(), "--fs", "ntfs", "--yes"]);
    assert!(done.status.success() && text(&done).contains("FAT32"), "{}", text(&done));
}

#[test]
fn a_system_partition_is_made_in_free_space() {
    let dir = tempfile::tempdir().unwrap();
    for firmware in [Firmware::Uefi, Firmware::Bios] {
        let image = healthy(dir.path(), "missing.raw", firmware);
        let (number, range, _) = system(&image);
        writer(&image).zero_at(range).unwrap();
        match firmware {
            Firmware::Uefi => delete_entry(&image, number),
            Firmware::Bios => writer(&image)
                .zero_at(446 + 16 * (u64::from(number) - 1)..446 + 16 * u64::from(number))
                .unwrap(),
        }
        repaired(&image, "system-partition-missing", dir.path());
        drop(std::fs::remove_file(&image));
        drop(std::fs::remove_dir_all(image.with_extension("raw.vmrescue")));
    }
}
