//! NTFS volumes of the corpus against The Sleuth Kit (python module pytsk3, in a process of its own): every stream of
//! every file with its size and sha256, and every name of every directory. Our checker says what it finds.
//!
//! Lines that only The Sleuth Kit shows are listed and explained at [`OPEN`].
//! Volumes and partitions of all disks, whatever the container, `.gz` unpacked. Known difference: $BadClus:$Bad
//! is a hole as long as the volume, of which The Sleuth Kit reads nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of a test: they may fail and tell")]

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use vmrescue::block::Disk;
use vmrescue::disk::{DiskOptions, convert};
use vmrescue::fs::ntfs::Volume;
use vmrescue::fs::{FileSystem, NodeKind, read_file};
use vmrescue::image::{Format, Kind, OpenOptions, open_path};
use vmrescue::partition::TableKind;
use vmrescue::progress::Silent;
use vmrescue::text::hex;

/// What only The Sleuth Kit shows. The streams lie in extension records, which it shows once more as files of their
/// own; we show them in the file they belong to. The name is that of a file in use whose directory has
/// no entry for it (two other entries, no index blocks): it adds such files, we report them as a defect.
const OPEN: &[&str] =
    &["stream 28  4 181210f8", "stream 39 111 5005 ", "stream 40 333 6005 ", "name 27 28 1.txt"];

const SCRIPT: &str = r#"
import sys, hashlib, pytsk3
fs = pytsk3.FS_Info(pytsk3.Img_Info(sys.argv[1]), offset=int(sys.argv[2]))
def text(name):
    return (name or b"").decode("utf-8", "replace")
for number in range(fs.info.last_inum):
    try:
        node = fs.open_meta(number)
    except OSError:
        continue
    meta = node.info.meta
    if not int(meta.flags) & 1:
        continue
    for attribute in node:
        if int(attribute.info.type) != 128:
            continue
        size, done, digest = attribute.info.size, 0, hashlib.sha256()
        try:
            while done < size:
                part = node.read_random(done, min(1 << 20, size - done), attribute.info.type, attribute.info.id)
                if not part: break
                digest.update(part); done += len(part)
            print("stream", number, text(attribute.info.name).replace("$Data", ""), size, digest.hexdigest())
        except OSError as e:
            print("unread", number, text(attribute.info.name).replace("$Data", ""))
    if int(meta.type) in (2, 11):
        for entry in node.as_directory():
            name = entry.info.name
            if int(name.flags) & 1 and text(name.name) not in (".", "..") and entry.info.meta:
                if ":" in text(name.name): continue
                print("name", number, name.meta_addr, text(name.name))
"#;

pub(crate) fn corpus() -> Option<PathBuf> {
    crate::oracle::corpus().filter(|path| path.is_dir())
}

pub(crate) fn files_under(directory: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files_under(&path, out) } else { out.push(path) }
    }
}

/// The NTFS volumes on a disk with the byte that each begins at, and the format of its container.
pub(crate) fn volumes_on(path: &Path) -> Option<(Format, Vec<(u64, Disk)>)> {
    let container = open_path(path, &OpenOptions::default()).ok()?;
    let table = vmrescue::partition::read(&container.disk).ok()?;
    let mut places: Vec<_> = table.partitions.iter().map(|p| p.range.clone()).collect();
    if table.kind == TableKind::None {
        places.push(0..container.disk.len());
    }
    let first = |disk: &Disk| disk.read_vec(0, 512).is_ok_and(|bytes| vmrescue::fs::ntfs::is_ntfs(&bytes));
    let found: Vec<(u64, Disk)> = places
        .into_iter()
        .filter(|place| place.end - place.start >= 1 << 16)
        .map(|place| (place.start, container.disk.window(place).unwrap()))
        .filter(|(_, disk)| first(disk))
        .collect();
    (!found.is_empty()).then_some((container.info.format, found))
}

/// The disk as a raw file, and its NTFS volumes.
pub(crate) fn volumes(path: &Path, dir: &Path) -> Option<(PathBuf, Vec<(u64, Disk)>)> {
    let (format, found) = volumes_on(path)?;
    let mut raw = path.to_path_buf();
    if format != Format::Raw {
        // containers.rs holds our reading of containers against another program's.
        raw = dir.join("converted.raw");
        let _old = std::fs::remove_file(&raw);
        convert(path, &raw, Kind::Raw, None, &DiskOptions::default(), &Silent).unwrap();
    }
    Some((raw, found))
}

/// The files of the corpus that may hold NTFS volumes, `.gz` unpacked into `dir` unless they become larger than `most_bytes`.
pub(crate) fn corpus_volumes(dir: &Path, most_bytes: u32) -> Vec<PathBuf> {
    let Some(corpus) = corpus() else { return Vec::new() };
    let mut paths = Vec::new();
    for part in ["01-vhd", "02-ntfs"] {
        files_under(&corpus.join(part), &mut paths);
    }
    let packed = |path: &Path| path.extension().is_some_and(|e| e == "gz");
    // The last four bytes of a gzip file say how long its content is.
    let length = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        u32::from_le_bytes(*bytes.last_chunk::<4>().unwrap())
    };
    paths.retain(|path| !packed(path) || length(path) <= most_bytes);
    for path in paths.iter_mut().filter(|path| packed(path)) {
        let data = Command::new("gzip").arg("-dc").arg(&*path).output().unwrap().stdout;
        *path = dir.join(path.file_stem().unwrap());
        write_sparse(path, &data);
    }
    paths
}

/// Writes a file with holes where there are zeros: most of these disks are empty.
fn write_sparse(path: &Path, data: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(data.len() as u64).unwrap();
    for (index, part) in data.chunks(1 << 16).enumerate().filter(|(_, part)| !vmrescue::bytes::is_zero(part))
    {
        std::os::unix::fs::FileExt::write_all_at(&file, part, (index as u64) << 16).unwrap();
    }
}

fn ours(volume: &Volume) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut ids = Vec::new();
    volume
        .scan(&mut |file| {
            ids.push(file.id);
            Ok(())
        })
        .unwrap();
    for id in ids {
        let number = id.0 & 0xFFFF_FFFF_FFFF;
        for stream in volume.streams(id).unwrap() {
            match read_file(volume, id, &stream.name) {
                Ok(data) => lines.insert(format!(
                    "stream {number} {} {} {}",
                    stream.name,
                    stream.size_bytes,
                    hex(&Sha256::digest(&data))
                )),
                Err(error) => lines.insert(format!("unread {number} {} {error}", stream.name)),
            };
        }
        let meta = volume.metadata(id).unwrap();
        if meta.kind == NodeKind::Directory || meta.attributes.has(vmrescue::fs::Attributes::DIRECTORY) {
            for entry in volume.read_dir(id).unwrap() {
                assert_eq!(volume.lookup(id, &entry.name).unwrap(), Some(entry.id), "{}", entry.name);
                assert_eq!(volume.lookup(id, &entry.name.to_ascii_lowercase()).unwrap(), Some(entry.id));
                lines.insert(format!("name {number} {} {}", entry.id.0 & 0xFFFF_FFFF_FFFF, entry.name));
            }
        }
    }
    lines
}

/// Streams that ntfscat reads otherwise.
fn differences_from_ntfscat(file: &Path, ours: &BTreeSet<String>) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compared = 0;
    for line in ours.iter().filter(|line| line.starts_with("stream ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, number, name, size, sha] = words[..] else { panic!("{line}") };
        // Files without a size, and the bad clusters, hold nothing to compare; of records ntfscat shows not the bytes of
        // the disk, but what they are once the update sequence is applied.
        if size == "0" || matches!(number, "8" | "0" | "1") {
            continue;
        }
        let Some(mut ntfscat) = crate::oracle::tool("ntfscat") else { return differences };
        let mut command = ntfscat.args(["-f", "-i", number]);
        if !name.is_empty() {
            command = command.args(["-a", "DATA", "-n", name]);
        }
        let output = command.arg(file).output().unwrap();
        if hex(&Sha256::digest(&output.stdout)) != *sha {
            println!("   not as ntfscat: {line}");
            differences.push(format!("{} ntfscat: {line}", file.display()));
        }
        compared += 1;
    }
    println!("   {compared} streams equal to ntfscat's reading, but for {}", differences.len());
    assert!(compared > 10);
    differences
}

#[test]
fn every_volume_is_read_as_the_sleuth_kit_reads_it() {
    if corpus().is_none() {
        return;
    }
    let oracle = Command::new("python3").args(["-c", "import pytsk3"]).status().is_ok_and(|s| s.success());
    if !oracle {
        assert!(std::env::var_os("VMRESCUE_REQUIRE_ORACLES").is_none(), "pytsk3 is missing");
        println!("SKIPPED: python3 with pytsk3 is missing");
        return;
    }
    let unpacked = tempfile::tempdir().unwrap();
    let paths = corpus_volumes(unpacked.path(), u32::MAX);
    let (mut seen, mut differences) = (0, Vec::new());
    for path in paths {
        let Some((raw, found)) = volumes(&path, unpacked.path()) else { continue };
        for (start, disk) in found {
            let Ok(volume) = Volume::open(disk) else {
                println!("NOT OPENED: {} at {start:#x}", path.display());
                continue;
            };
            let output = Command::new("python3")
                .args(["-c", SCRIPT])
                .arg(&raw)
                .arg(start.to_string())
                .output()
                .unwrap();
            let theirs: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
                .lines()
                .filter(|l| !l.contains("$OrphanFiles"))
                .map(String::from)
                .collect();
            let ours = ours(&volume);
            if theirs.is_empty() {
                // It knows no clusters above 64 KiB; ntfs-3g does.
                let file = unpacked.path().join("volume.raw");
                let out = std::process::Stdio::from(std::fs::File::create(&file).unwrap());
                let mut tail = Command::new("tail");
                assert!(
                    tail.arg("-c")
                        .arg(format!("+{}", start + 1))
                        .arg(&raw)
                        .stdout(out)
                        .status()
                        .unwrap()
                        .success()
                );
                differences.extend(differences_from_ntfscat(&file, &ours));
                seen += 1;
                continue;
            }
            println!(
                "{} at {start:#x}: {} lines, theirs {}, {:?}",
                path.display(),
                ours.len(),
                theirs.len(),
                volume.log_state()
            );
            for line in ours.symmetric_difference(&theirs).filter(|line| !line.starts_with("stream 8 $Bad "))
            {
                let side = if ours.contains(line) { "ours" } else { "theirs" };
                println!("   {side}: {line}");
                if side == "theirs" && OPEN.iter().any(|open| line.starts_with(open)) {
                    continue;
                }
                differences.push(format!("{} {side}: {line}", path.display()));
            }
            for defect in volume.check(&Silent).unwrap().iter().take(8) {
                println!("   defect: {defect}");
            }
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} volumes found");
    assert!(differences.is_empty(), "{} differences", differences.len());
}
