//! Replay of $LogFile on volumes that Windows made: its own records, replayed over a volume that has seen them, must leave it
//! as it is; over one that another program rolled back, they must bring it to the state that Windows left.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use vmrescue::block::{Disk, MemoryDevice};
use vmrescue::bytes::{u16_at, u32_at, u64_at};
use vmrescue::fs::ntfs::{LogState, Replay, Volume, is_ntfs, log_records};
use vmrescue::fs::{FileSystem, NodeId, NodeKind, read_file};
use vmrescue::image::{OpenOptions, open_path};
use vmrescue::partition::TableKind;
use vmrescue::progress::Silent;

const PAGE: usize = 4096;

/// Volumes whose last session left records, and which are small enough to be held in memory.
const VOLUMES: [&str; 9] = [
    "01-vhd/dfvfs/ntfs-fixed.vhd",
    "01-vhd/dfvfs/ntfs-fixed.vhdx",
    "01-vhd/dfvfs/ntfs-dynamic.vhdx",
    "01-vhd/tsk-imageformat_mmls_1.vhd",
    "01-vhd/dissect-fixed.vhd",
    "01-vhd/dissect-fixed.vhdx",
    "01-vhd/dissect-dynamic.vhd",
    "01-vhd/dissect-dynamic.vhdx",
    "02-ntfs/dfir_ntfs/ntfs_index.raw.gz",
];

/// The NTFS volumes of an image, whole.
fn volumes(path: &Path) -> Vec<Vec<u8>> {
    let unpacked = tempfile::tempdir().unwrap();
    let mut path = path.to_path_buf();
    if path.extension().is_some_and(|e| e == "gz") {
        let data = Command::new("gzip").arg("-dc").arg(&path).output().unwrap().stdout;
        path = unpacked.path().join("disk.raw");
        std::fs::write(&path, data).unwrap();
    }
    let container = open_path(&path, &OpenOptions::default()).unwrap();
    let table = vmrescue::partition::read(&container.disk).unwrap();
    let mut places: Vec<_> = table.partitions.iter().map(|p| p.range.clone()).collect();
    if table.kind == TableKind::None {
        places.push(0..container.disk.len());
    }
    let read = |place: std::ops::Range<u64>| {
        container.disk.read_vec(place.start, (place.end - place.start) as usize).unwrap()
    };
    places.into_iter().map(read).filter(|bytes| is_ntfs(&bytes[..512])).collect()
}

fn disk(bytes: &[u8]) -> Disk {
    Disk::new(Arc::new(MemoryDevice::new(bytes.to_vec())))
}

/// Takes the fixups out of a page or puts them in.
fn swap_fixups(page: &mut [u8], out: bool) {
    let (at, count) = (usize::from(u16_at(page, 4).unwrap()), usize::from(u16_at(page, 6).unwrap()));
    let number = [page[at], page[at + 1]];
    for index in 1..count {
        let end = index * 512 - 2;
        if out {
            assert_eq!(page[end..end + 2], number);
            page.copy_within(at + 2 * index..at + 2 * index + 2, end);
        } else {
            page.copy_within(end..end + 2, at + 2 * index);
            page[end..end + 2].copy_from_slice(&number);
        }
    }
}

/// The log of a volume and where it lies.
fn log_of(volume: &[u8]) -> (usize, Vec<u8>) {
    let log = read_file(&Volume::open(disk(volume)).unwrap(), NodeId(2), "").unwrap();
    let place = (0..volume.len()).step_by(512).find(|at| volume[*at..].starts_with(&log[..PAGE])).unwrap();
    assert!(volume[place..].starts_with(&log[..log.len().min(1 << 20)]), "a log in several pieces");
    (place, log)
}

/// LSNs of the restart records that the client wrote in the last session.
fn checkpoints(log: &[u8]) -> Vec<u64> {
    let current = u64_at(log, 0x30).unwrap();
    let mut found = Vec::new();
    for (number, page) in
        log.chunks_exact(PAGE).enumerate().skip(4).filter(|(_, page)| page.starts_with(b"RCRD"))
    {
        let mut page = page.to_vec();
        swap_fixups(&mut page, true);
        for at in (0x40..PAGE - 0x70).step_by(8) {
            let lsn = u64_at(&page, at).unwrap();
            let place = (lsn << 3) as usize % log.len().next_power_of_two();
            let is_restart = u32_at(&page, at + 0x20) == Some(2) && u32_at(&page, at + 0x18).unwrap() >= 0x40;
            if place == number * PAGE + at
                && is_restart
                && lsn <= current
                && current - lsn < log.len() as u64 / 8
            {
                found.push(lsn);
            }
        }
    }
    found.sort_unstable();
    found
}

/// The volume with a log that says: not left cleanly, last checkpoint there.
fn left_open(volume: &[u8], place: usize, checkpoint: u64) -> Vec<u8> {
    let mut bytes = volume.to_vec();
    for start in [place, place + PAGE] {
        let page = &mut bytes[start..start + PAGE];
        swap_fixups(page, true);
        let area = usize::from(u16_at(page, 0x18).unwrap());
        page[area + 0x0E] &= !2;
        // The client is in use again, and not on the free list.
        page[area + 0x0A..area + 0x0E].copy_from_slice(&[0xFF, 0xFF, 0, 0]);
        let client = area + usize::from(u16_at(page, area + 0x16).unwrap());
        for at in [client, client + 8] {
            page[at..at + 8].copy_from_slice(&checkpoint.to_le_bytes());
        }
        swap_fixups(page, false);
    }
    bytes
}

/// Everything that a user sees of a volume.
fn facts(volume: &Volume) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut todo = vec![(String::new(), volume.root())];
    while let Some((path, node)) = todo.pop() {
        for entry in volume.read_dir(node).unwrap() {
            let name = format!("{path}/{}", entry.name);
            let meta = volume.metadata(entry.id).unwrap();
            let mut fact = format!("{:?} {meta:?}", entry.short_name);
            for stream in volume.streams(entry.id).unwrap() {
                // The log is not part of what it restores; the copy of the records is checked by the checker.
                if !matches!(entry.id.0 & 0xFFFF_FFFF_FFFF, 0..=2) {
                    let data = read_file(volume, entry.id, &stream.name).map(|data| Sha256::digest(&data));
                    fact += &format!(" {}={:?}", stream.name, data.map_err(|e| e.to_string()));
                }
            }
            facts.insert(name.clone(), fact);
            if entry.kind == NodeKind::Directory && entry.id != volume.root() {
                todo.push((name, entry.id));
            }
        }
    }
    facts
}

fn assert_same(name: &str, found: &Volume, expected: &Volume) {
    let (found_facts, expected_facts) = (facts(found), facts(expected));
    for (path, fact) in &expected_facts {
        assert_eq!(found_facts.get(path), Some(fact), "{name}: {path}");
    }
    assert_eq!(found_facts.len(), expected_facts.len(), "{name}");
    let mut defects = found.check(&Silent).unwrap();
    // That the log holds something is a note of the replayed view only.
    defects.retain(|defect| defect.code != "ntfs-log-not-clean");
    assert_eq!(defects, expected.check(&Silent).unwrap(), "{name}");
}

#[test]
fn records_of_windows_replayed_over_its_own_volume_change_nothing() {
    let Some(corpus) = crate::oracle::corpus() else { return };
    let (mut records, mut redone, mut replays) = (0, 0, 0);
    for name in VOLUMES {
        for bytes in volumes(&corpus.join(name)) {
            let (place, log) = log_of(&bytes);
            let original = Volume::open(disk(&bytes)).unwrap();
            assert!(matches!(original.log_state(), LogState::Clean(..)));
            let all = checkpoints(&log);
            // From the first, from some in the middle, from the last.
            let step = (all.len() / 3).max(1);
            for checkpoint in all.iter().step_by(step).chain(all.last()) {
                let volume = Volume::open(disk(&left_open(&bytes, place, *checkpoint))).unwrap();
                let Replay::Done(counts) = volume.replay() else {
                    panic!("{name} from {checkpoint:#x}: {:?}", volume.replay());
                };
                println!("{name} from {checkpoint:#x} of {}: {counts:?}", all.len());
                records += counts.records;
                redone += counts.redone;
                replays += 1;
                assert_eq!(counts.transactions, 0, "{name}");
                assert_same(name, &volume, &original);
            }
        }
    }
    println!("{replays} replays, {records} records, {redone} operations done again");
    assert!(replays > 20 && records > 2000 && redone > 50, "{replays} {records} {redone}");
}

#[test]
fn what_ntfsrecover_rolled_back_is_done_again() {
    let Some(corpus) = crate::oracle::corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("volume.raw");
    let mut compared = 0;
    for name in VOLUMES {
        for bytes in volumes(&corpus.join(name)) {
            let (place, log) = log_of(&bytes);
            let original = Volume::open(disk(&bytes)).unwrap();
            let Some(first) = checkpoints(&log).first().copied() else { continue };
            for count in ["1", "2", "3", "4", "6"] {
                std::fs::write(&file, &bytes).unwrap();
                let Some(mut ntfsrecover) = crate::oracle::tool("ntfsrecover") else { return };
                let output = ntfsrecover.args(["-u", count]).arg(&file).output().unwrap();
                // It cannot roll back every record; what it could not is no oracle.
                let rolled_back = std::fs::read(&file).unwrap();
                if !output.status.success() || rolled_back == bytes {
                    continue;
                }
                let crashed = left_open(&rolled_back, place, first);
                let volume = Volume::open(disk(&crashed)).unwrap();
                assert!(
                    matches!(volume.replay(), Replay::Done(_)),
                    "{name} -u {count}: {:?}",
                    volume.replay()
                );
                // It leaves the LSN of the record that it rolls back: what only that record says, such as times, is rightly
                // taken as done. Names and structure come back.
                let (found, wanted) = (facts(&volume), facts(&original));
                assert!(found.keys().eq(wanted.keys()), "{name} -u {count}");
                let mut defects = volume.check(&Silent).unwrap();
                defects.retain(|defect| defect.code != "ntfs-log-not-clean");
                assert_eq!(defects, original.check(&Silent).unwrap(), "{name} -u {count}");
                compared += 1;
            }
        }
    }
    println!("{compared} volumes rolled back by ntfsrecover came back");
    assert!(compared >= 3, "{compared}");
}

#[test]
fn records_are_those_that_ntfsrecover_lists() {
    let Some(corpus) = crate::oracle::corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("volume.raw");
    let mut compared = 0;
    for name in VOLUMES {
        for bytes in volumes(&corpus.join(name)) {
            let (place, log) = log_of(&bytes);
            let Some(first) = checkpoints(&log).first().copied() else { continue };
            let ours: BTreeMap<u64, String> =
                log_records(&Volume::open(disk(&left_open(&bytes, place, first))).unwrap())
                    .unwrap()
                    .into_iter()
                    .filter(|record| record.redo != "Restart")
                    .map(|record| (record.lsn, record.redo.to_lowercase()))
                    .collect();
            std::fs::write(&file, &bytes).unwrap();
            let Some(mut ntfsrecover) = crate::oracle::tool("ntfsrecover") else { return };
            let output = ntfsrecover.args(["-f", "-t"]).arg(&file).output().unwrap();
            let listing = String::from_utf8_lossy(&output.stdout).into_owned();
            // Lines as "at 0108  0000000000105a21 synced (-518631) SetNewAttributeSizes".
            let mut theirs = BTreeMap::new();
            for line in listing
                .lines()
                .filter(|line| line.trim_start().starts_with("at ") && !line.contains("*stale*"))
            {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (Some(lsn), Some(operation)) = (words.get(2), words.last()) else { continue };
                let lsn = u64::from_str_radix(lsn, 16).unwrap();
                if lsn > first && !line.contains("checkpoint") {
                    theirs.insert(lsn, operation.trim_start_matches("Win10Action").to_lowercase());
                }
            }
            for (lsn, operation) in &ours {
                let there = theirs.get(lsn).map(String::as_str);
                let same = there == Some(operation) || matches!(there, Some("35" | "36" | "37"));
                assert!(same, "{name}: record {lsn:#x} is {operation} here, {there:?} there");
            }
            let missed: Vec<_> = theirs.iter().filter(|(lsn, _)| !ours.contains_key(lsn)).collect();
            assert!(missed.is_empty(), "{name}: {missed:x?}");
            compared += ours.len();
        }
    }
    println!("{compared} records as ntfsrecover lists them");
    assert!(compared > 1000, "{compared}");
}

/// A raw image of a volume that was left open: the records are
/// there, and the volume has seen them.
fn image(dir: &Path, corpus: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let bytes = volumes(&corpus.join("01-vhd/dissect-fixed.vhd")).remove(0);
    let (place, log) = log_of(&bytes);
    let bytes = left_open(&bytes, place, checkpoints(&log)[0]);
    let file = dir.join("volume.raw");
    std::fs::write(&file, &bytes).unwrap();
    (file, bytes)
}

fn words(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn state(file: &str) -> serde_json::Value {
    let output = crate::demo::vmrescue(&["info", file, "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    document["volumes"][0]["state"].clone()
}

/// What ntfs-3g's tools say of a volume that shall be clean.
fn other_programs_accept(file: &Path) {
    for (name, arguments) in [("ntfsfix", vec!["-n"]), ("ntfsinfo", vec!["-m"])] {
        let Some(mut command) = crate::oracle::tool(name) else { return };
        let output = command.args(arguments).arg(file).output().unwrap();
        assert!(output.status.success(), "{name}: {}", words(&output));
    }
}

#[test]
fn a_write_replays_the_log_first_and_undo_takes_both_back() {
    let Some(corpus) = crate::oracle::corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (path, before) = image(dir.path(), &corpus);
    let file = path.to_str().unwrap();
    let left = state(file);
    assert_eq!(left["log"]["state"], "not-clean", "{left}");
    assert_eq!(left["log"]["replay"], "done", "{left}");
    let shown = words(&crate::demo::vmrescue(&["info", file]));
    assert!(shown.contains("log not clean: shown as replayed"), "{shown}");
    let new = dir.path().join("new.txt");
    std::fs::write(&new, b"new").unwrap();
    let put = ["put", file, new.to_str().unwrap(), r"#1:\new.txt", "--yes"];
    let output = crate::demo::vmrescue(&put);
    assert!(
        output.status.success() && words(&output).contains("replay $LogFile of #1"),
        "{}",
        words(&output)
    );
    assert_eq!(state(file)["log"]["state"], "clean");
    other_programs_accept(&path);
    let output = crate::demo::vmrescue(&["undo", file, "--yes"]);
    assert!(output.status.success(), "{}", words(&output));
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn what_cannot_be_kept_is_given_up_only_when_that_is_said() {
    let Some(corpus) = crate::oracle::corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (path, before) = image(dir.path(), &corpus);
    let file = path.to_str().unwrap();
    let (place, _) = log_of(&before);
    // The page of the first records is torn, with later ones behind it.
    let mut torn = before.clone();
    let first = u64_at(&before, place + 0x70).unwrap();
    let at = place + (first << 3) as usize % 0x20_0000 / PAGE * PAGE;
    torn[at + PAGE + 510] ^= 1;
    std::fs::write(&path, &torn).unwrap();
    let left = state(file);
    assert_eq!(left["log"]["replay"], "impossible", "{left}");
    assert!(left["log"]["why"].as_str().unwrap().contains("0x"), "{left}");
    let new = dir.path().join("new.txt");
    std::fs::write(&new, b"new").unwrap();
    let mut put = vec!["put", file, new.to_str().unwrap(), r"#1:\new.txt", "--yes"];
    let output = crate::demo::vmrescue(&put);
    assert_eq!(output.status.code(), Some(3), "{}", words(&output));
    assert!(words(&output).contains("--discard-log"), "{}", words(&output));
    put.push("--discard-log");
    let output = crate::demo::vmrescue(&put);
    assert!(
        output.status.success() && words(&output).contains("throw away $LogFile of #1"),
        "{}",
        words(&output)
    );
    assert_eq!(state(file)["log"]["state"], "clean");
    other_programs_accept(&path);

    // Hibernated, as Fast Startup leaves it.
    let mut header = vec![0; 8192];
    header[..4].copy_from_slice(b"HIBR");
    header[0x0C..0x10].copy_from_slice(&0x448u32.to_le_bytes());
    header[0x18..0x1C].copy_from_slice(&4096u32.to_le_bytes());
    header[0x364] = 1;
    let memory = dir.path().join("hiberfil.sys");
    std::fs::write(&memory, &header).unwrap();
    let hibernate = ["put", file, memory.to_str().unwrap(), r"#1:\hiberfil.sys", "--yes"];
    assert!(crate::demo::vmrescue(&hibernate).status.success());
    assert_eq!(state(file)["hibernation"]["state"], "fast-startup");
    std::fs::write(&new, b"newer").unwrap();
    put.pop();
    let output = crate::demo::vmrescue(&put);
    assert_eq!(output.status.code(), Some(3), "{}", words(&output));
    assert!(words(&output).contains("--discard-hibernation"), "{}", words(&output));
    put.push("--discard-hibernation");
    let output = crate::demo::vmrescue(&put);
    assert!(
        output.status.success() && words(&output).contains("end the hibernation of #1"),
        "{}",
        words(&output)
    );
    assert_eq!(state(file)["hibernation"]["state"], "no");
    let read = crate::demo::vmrescue(&["cat", file, r"#1:\new.txt"]);
    assert_eq!(read.stdout, b"newer");
}
