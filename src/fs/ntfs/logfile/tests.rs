//! Logs made here, replayed: what a crash left over is finished, what was not committed is taken back.
//!
//! The changes come from our own writer: the volume before and after it, and a log that leads from one to the other.

use super::testing::{LOG_BYTES, LogWriter, PAGE, Place, operation};
use super::*;
use crate::ntfs::write::record::remove_fixups;
use crate::ntfs::{FormatSpec, LogState, Replay, VolumeMut, WriteOptions, format};
use crate::{FileSystem, FileSystemMut, NodeId, NodeKind, read_file};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use vmrescue_base::error::ErrorKind;
use vmrescue_base::progress::Silent;
use vmrescue_block::{Disk, DiskMut, MemoryDevice};

const MFT: u16 = 0x18;
const VALUE: u16 = 0x40;
const INDEX: u16 = 0x68;

fn disk(bytes: &[u8]) -> Disk {
    Disk::new(Arc::new(MemoryDevice::new(bytes.to_vec())))
}

fn device(bytes: &[u8]) -> (Arc<MemoryDevice>, DiskMut) {
    let device = Arc::new(MemoryDevice::new(bytes.to_vec()));
    (Arc::clone(&device), DiskMut::new(device))
}

/// Paths of all files with what is in them.
fn walk(fs: &dyn FileSystem) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(String::new(), fs.root())];
    while let Some((path, node)) = todo.pop() {
        for entry in fs.read_dir(node).unwrap() {
            let name = format!("{path}/{}", entry.name);
            match entry.kind {
                NodeKind::Directory => todo.push((name, entry.id)),
                _ if entry.name.starts_with('$') => {}
                _ => {
                    found.insert(name, read_file(fs, entry.id, "").unwrap());
                }
            }
        }
    }
    found
}

/// A volume before and after changes of all kinds: new files, a full directory, deleted and longer ones.
fn before_and_after(cluster_bytes: u32) -> (Vec<u8>, Vec<u8>) {
    let made = Arc::new(MemoryDevice::zeroed(8 << 20));
    let spec = FormatSpec { cluster_bytes: Some(cluster_bytes), ..FormatSpec::default() };
    format(&DiskMut::new(Arc::<MemoryDevice>::clone(&made)), &spec).unwrap();
    let mut volume = VolumeMut::open(DiskMut::new(Arc::<MemoryDevice>::clone(&made))).unwrap();
    let root = volume.root();
    let write = |volume: &mut VolumeMut, folder: NodeId, name: &str, data: &[u8]| {
        let node = volume.create(folder, name, NodeKind::File).unwrap();
        volume.write(node, "", 0, data).unwrap();
        node
    };
    let old = write(&mut volume, root, "stays.txt", b"short");
    write(&mut volume, root, "goes.txt", &[7; 9000]);
    volume.sync().unwrap();
    let before = made.to_vec();
    let folder = volume.create(root, "folder", NodeKind::Directory).unwrap();
    for number in 0..60 {
        write(
            &mut volume,
            folder,
            &format!("file with a long name {number}"),
            &vec![number; usize::from(number) * 20],
        );
    }
    volume.write(old, "", 0, &[3; 5000]).unwrap();
    volume.remove(root, "goes.txt").unwrap();
    volume.sync().unwrap();
    (before, made.to_vec())
}

/// Volumes are the same when their records, blocks and other bytes are, but for LSNs, update sequences and what lies behind
/// the used part of a record.
fn normalized(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut place = 0;
    while place < bytes.len() {
        let size = match &bytes[place..place + 4] {
            b"FILE" => 1024,
            b"INDX" => 4096,
            _ => {
                place += 512;
                continue;
            }
        };
        let part = &mut bytes[place..place + size];
        assert!(remove_fixups(part), "{place:#x}");
        let usa = usize::from(u16::from_le_bytes([part[4], part[5]]));
        part[8..16].fill(0);
        part[usa..usa + 2 * (size / 512 + 1)].fill(0);
        let used = if size == 1024 { 0 } else { 0x18 }
            + u32::from_le_bytes(part[if size == 1024 { 0x18 } else { 0x1C }..][..4].try_into().unwrap())
                as usize;
        part[used..].fill(0);
        place += size;
    }
    bytes
}

/// One difference between two volumes, as an operation with its undo.
struct Step {
    data: Vec<u8>,
}

/// The operations that lead from `from` to `to`: whole records and blocks, bits, bytes.
fn steps(from: &[u8], to: &[u8], cluster: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let volume = Volume::bare(disk(to)).unwrap();
    let (mut records, mut blocks) = (BTreeSet::new(), BTreeSet::new());
    let fixed = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        remove_fixups(&mut bytes).then_some(bytes)
    };
    for number in 0..volume.records() {
        let place = volume.record_offset(number).unwrap() as usize;
        records.extend((place..place + 1024).step_by(512));
        let (old, new) = (&from[place..place + 1024], &to[place..place + 1024]);
        if old == new {
            continue;
        }
        let new = fixed(new).unwrap();
        let used = |record: &[u8]| u32::from_le_bytes(record[0x18..0x1C].try_into().unwrap()) as usize;
        let redo = (ops::INITIALIZE_RECORD, &new[..used(&new)]);
        let old = fixed(old);
        let undo = match &old {
            Some(old) if old[0x16] & 1 != 0 => (ops::INITIALIZE_RECORD, &old[..used(old)]),
            _ => (ops::DEALLOCATE_RECORD, &[][..]),
        };
        let first = place / cluster;
        let place = Place {
            target: MFT,
            vcn: first as u64,
            lcns: (first..(place + 1024).div_ceil(cluster)).map(|lcn| lcn as u64).collect(),
            cluster_offset: (place % cluster) as u64,
            ..Place::default()
        };
        steps.push(Step { data: operation(redo, undo, &place) });
    }
    let mirror = volume.boot().mirror_lcn as usize * cluster;
    for place in (0..to.len()).step_by(512) {
        let differs = from[place..place + 512] != to[place..place + 512];
        if !differs || records.contains(&place) || (mirror..mirror + 4096).contains(&place) {
            continue;
        }
        let starts = (place.saturating_sub(3584)..=place).rev().step_by(512);
        if let Some(block) = starts.into_iter().find(|at| to[*at..].starts_with(b"INDX")) {
            if !blocks.insert(block) {
                continue;
            }
            let new = fixed(&to[block..block + 4096]).unwrap();
            let old = fixed(&from[block..block + 4096]);
            let undo = match &old {
                Some(old) if old.starts_with(b"INDX") => (ops::UPDATE_NONRESIDENT, &old[..]),
                _ => (ops::NOOP, &[][..]),
            };
            let at = Place {
                target: INDEX,
                vcn: (block / cluster) as u64,
                lcns: (block / cluster..(block + 4096).div_ceil(cluster)).map(|lcn| lcn as u64).collect(),
                cluster_offset: (block % cluster) as u64,
                ..Place::default()
            };
            steps.push(Step { data: operation((ops::UPDATE_NONRESIDENT, &new), undo, &at) });
            continue;
        }
        let at = Place {
            target: VALUE,
            vcn: (place / cluster) as u64,
            lcns: vec![(place / cluster) as u64],
            record_offset: (place % cluster) as u16,
            ..Place::default()
        };
        let redo = (ops::UPDATE_NONRESIDENT, &to[place..place + 512]);
        let undo = (ops::UPDATE_NONRESIDENT, &from[place..place + 512]);
        steps.push(Step { data: operation(redo, undo, &at) });
    }
    steps
}

/// Puts a log into a volume.
fn with_log(volume: &[u8], log: &[u8]) -> Vec<u8> {
    let mut bytes = volume.to_vec();
    let opened = Volume::bare(disk(volume)).unwrap();
    let data = log_data(&opened).unwrap();
    let mut at = 0;
    for (place, length) in pieces(&data.map, 0, log.len(), u64::from(opened.boot().cluster_bytes)).unwrap() {
        bytes[place as usize..place as usize + length].copy_from_slice(&log[at..at + length]);
        at += length;
    }
    bytes
}

/// A log of `steps` in three transactions, which come to their end or do not.
fn log_of(mut log: LogWriter, steps: &[Step], committed: bool) -> LogWriter {
    log.open(0x18, MFT, 0x0001_0000_0000_0000, 0x80, 0);
    log.open(0x18, VALUE, 0x0006_0000_0000_0006, 0x80, 0);
    log.open(0x18, INDEX, 0x0005_0000_0000_0005, 0xA0, 4096);
    log.forget(0x18);
    for (number, step) in steps.iter().enumerate() {
        let transaction = 0x18 + 0x28 * (number as u32 % 3);
        log.log(transaction, &step.data);
        if committed && number % 5 == 4 {
            log.forget(transaction);
        }
    }
    if committed {
        (0..3).for_each(|number| log.forget(0x18 + 0x28 * number));
    }
    log
}

fn done(volume: &Volume) -> Counts {
    match volume.replay() {
        Replay::Done(counts) => *counts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_logged_and_not_written_is_finished() {
    for (cluster, version, tails) in [
        (4096, (1, 1), false),
        (4096, (2, 0), false),
        (512, (1, 1), true),
        (1024, (2, 0), true),
        (65536, (1, 1), true),
    ] {
        let (before, after) = before_and_after(cluster);
        let steps = steps(&before, &after, cluster as usize);
        // Near the end of the log, so that it goes on at its beginning.
        let log = log_of(LogWriter::new(version, 5, 0xF0), &steps, true);
        let crashed = with_log(&before, &log.crashed(tails));
        let volume = Volume::open(disk(&crashed)).unwrap();
        assert_eq!(volume.log_state(), LogState::NotClean(version.0 as i16, version.1 as i16));
        assert_eq!(done(&volume).redone, steps.len() as u64, "{cluster} {version:?}");
        let expected = walk(&Volume::open(disk(&after)).unwrap());
        assert!(expected.len() > 60);
        assert_eq!(walk(&volume), expected);
        let codes: Vec<&str> = volume.check(&Silent).unwrap().iter().map(|defect| defect.code).collect();
        assert_eq!(codes, ["ntfs-log-not-clean"], "a note that it was replayed, and nothing else");
        // The writer does the same on the disk and closes the log.
        let (memory, staged) = device(&crashed);
        let mut writer = VolumeMut::open(staged).unwrap();
        let written = memory.to_vec();
        let (ours, theirs) =
            (normalized(&with_log(&written, &[0xFF; LOG_BYTES as usize])), normalized(&after));
        let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| format!("{at:#x}")), None, "{cluster}");
        writer.create(writer.root(), "one more", NodeKind::File).unwrap();
        writer.sync().unwrap();
        assert_eq!(writer.check(&Silent).unwrap(), []);
        let again = Volume::open(disk(&memory.to_vec())).unwrap();
        assert_eq!((again.log_state(), again.replay()), (LogState::Clean(1, 1), &Replay::NotNeeded));
    }
}

#[test]
fn a_volume_that_has_seen_everything_stays_as_it_is() {
    let (before, after) = before_and_after(4096);
    let steps = steps(&before, &after, 4096);
    let log = log_of(LogWriter::new((1, 1), 5, 6), &steps, true);
    // Replayed once and left open again: the records carry their LSNs now.
    let once = {
        let (memory, staged) = device(&with_log(&before, &log.crashed(false)));
        VolumeMut::open(staged).unwrap();
        memory.to_vec()
    };
    let twice = Volume::open(disk(&with_log(&once, &log.crashed(false)))).unwrap();
    let records = steps.iter().filter(|step| step.data[0] == ops::INITIALIZE_RECORD as u8).count() as u64;
    assert_eq!(done(&twice).redone, steps.len() as u64 - records);
    assert_eq!(walk(&twice), walk(&Volume::open(disk(&after)).unwrap()));
}

#[test]
fn what_was_not_committed_is_taken_back() {
    for version in [(1, 1), (2, 0)] {
        let (before, after) = before_and_after(4096);
        let steps = steps(&before, &after, 4096);
        let log = log_of(LogWriter::new(version, 9, 0xE0), &steps, false);
        // Whether the pages had come to the disk or not makes no difference.
        for left in [&before, &after] {
            let crashed = with_log(left, &log.crashed(true));
            let volume = Volume::open(disk(&crashed)).unwrap();
            assert_eq!(done(&volume).transactions, 3);
            assert_eq!(walk(&volume), walk(&Volume::open(disk(&before)).unwrap()));
            let (memory, staged) = device(&crashed);
            VolumeMut::open(staged).unwrap();
            assert_eq!(Volume::open(disk(&memory.to_vec())).unwrap().check(&Silent).unwrap(), []);
        }
    }
}

#[test]
fn a_log_that_was_cut_off_ends_at_its_last_whole_record() {
    let (before, after) = before_and_after(4096);
    let steps = steps(&before, &after, 4096);
    let whole = log_of(LogWriter::new((1, 1), 5, 6), &steps, true);
    let mut bytes = whole.crashed(false);
    let last = (whole.last << 3) as usize % LOG_BYTES as usize / PAGE * PAGE;
    bytes[last + 700] ^= 1;
    bytes[last + 510] ^= 1;
    let volume = Volume::open(disk(&with_log(&before, &bytes))).unwrap();
    let redone = done(&volume).redone;
    assert!(redone < steps.len() as u64 && redone > 10, "{redone}");
    // In the middle, with later pages there: records are lost, and that is said.
    let mut bytes = whole.crashed(false);
    bytes[last - 3 * PAGE + 510] ^= 1;
    let crashed = with_log(&before, &bytes);
    let volume = Volume::open(disk(&crashed)).unwrap();
    let Replay::Impossible(why) = volume.replay() else { panic!("{:?}", volume.replay()) };
    assert!(why.contains("lost records in its middle"), "{why}");
    assert_eq!(walk(&volume), walk(&Volume::open(disk(&before)).unwrap()));
    let (_, staged) = device(&crashed);
    let error = VolumeMut::open(staged).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.advice_text().unwrap().contains("--discard-log"), "{error}");
    // Given up: the volume is as it was, the log is clean and no record comes from its future.
    let (memory, staged) = device(&crashed);
    VolumeMut::open_with(staged, WriteOptions { discard_log: true, ..WriteOptions::default() }).unwrap();
    let given_up = Volume::open(disk(&memory.to_vec())).unwrap();
    assert_eq!(given_up.log_state(), LogState::Clean(1, 1));
    assert_eq!(walk(&given_up), walk(&Volume::open(disk(&before)).unwrap()));
}

#[test]
fn an_operation_that_does_not_fit_is_named() {
    let (before, after) = before_and_after(4096);
    let mut steps = steps(&before, &after, 4096);
    let lcn = Volume::bare(disk(&before)).unwrap().boot().mft_lcn;
    let place = Place { target: MFT, vcn: lcn, lcns: vec![lcn], record_offset: 0x77, ..Place::default() };
    steps.push(Step { data: operation((ops::DELETE_ATTRIBUTE, &[]), (ops::NOOP, &[]), &place) });
    let log = log_of(LogWriter::new((2, 0), 5, 0x22), &steps, true);
    let volume = Volume::open(disk(&with_log(&before, &log.crashed(false)))).unwrap();
    let Replay::Impossible(why) = volume.replay() else { panic!("{:?}", volume.replay()) };
    assert!(why.contains("DeleteAttribute") && why.contains("record 0x"), "{why}");
}

#[test]
fn a_clean_volume_pays_two_pages() {
    use std::sync::atomic::Ordering;
    use vmrescue_block::testing::CountingDevice;
    let (before, _) = before_and_after(4096);
    let (counting, counts) = CountingDevice::new(disk(&before));
    let volume = Volume::bare(Disk::new(counting)).unwrap();
    let opened = counts.bytes.load(Ordering::Relaxed);
    assert_eq!(find(&volume).unwrap(), Found::Empty);
    // The record of $LogFile comes with its page of $MFT; the restart pages are two.
    assert!(counts.bytes.load(Ordering::Relaxed) - opened <= (64 << 10) + 2 * PAGE as u64);
}

/// A volume with an unfinished log, and the same after it was opened for writing.
fn replayed() -> (Vec<u8>, Vec<u8>) {
    let (before, log) = crashed_volume();
    let crashed = with_log(before, log);
    let (memory, staged) = device(&crashed);
    VolumeMut::open(staged).unwrap();
    (crashed, memory.to_vec())
}

/// What a reader sees of a volume.
fn shown(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    walk(&Volume::open(disk(bytes)).unwrap())
}

/// A volume with a log, for the mutations.
/// A volume whose log is replayed as part of the change: after a crash there is the volume as it was, which every reader
/// replays for itself, or the one with the replay and the change in it.
#[test]
fn a_crash_while_a_replay_is_published_leaves_it_undone_or_done() {
    use vmrescue_transaction::testing::sweep_at;
    let (old, new) = replayed();
    assert!(sweep_at(&old, &new, false, [0, 1, 2, 9, 30].into_iter()) > 5);
    assert!(sweep_at(&old, &new, true, [0, 1, 2, 9, 30].into_iter()) > 5);
    assert!(shown(&old) == shown(&new));
}

fn crashed_volume() -> &'static (Vec<u8>, Vec<u8>) {
    static MADE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let (before, after) = before_and_after(4096);
        let steps = steps(&before, &after, 4096);
        let log = log_of(LogWriter::new((1, 1), 5, 6), &steps, true);
        (before, log.crashed(true))
    })
}

/// Changes the log with its fixups out, so that the changes are not found out at once.
fn mutated(log: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut log = log.to_vec();
    for page in log.chunks_exact_mut(PAGE) {
        if page.starts_with(b"RCRD") || page.starts_with(b"RSTR") {
            assert!(remove_fixups(page));
        }
    }
    for (place, value) in changes {
        log[place % LOG_BYTES as usize] = *value;
    }
    for page in log.chunks_exact_mut(PAGE) {
        if page.starts_with(b"RCRD") || page.starts_with(b"RSTR") {
            let _ = crate::ntfs::write::record::apply_fixups(page);
        }
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 60 } else { 4000 }))]

    #[test]
    fn mutated_logs_give_an_answer(changes in proptest::collection::vec((0usize..0x60000, any::<u8>()), 1..12)) {
        let (before, log) = crashed_volume();
        let volume = Volume::open(disk(&with_log(before, &mutated(log, &changes)))).unwrap();
        drop(volume.read_dir(volume.root()));
    }

    #[test]
    fn operations_of_any_content_never_panic(
        code in 0u16..0x28,
        undo in 0u16..0x28,
        data in proptest::collection::vec(any::<u8>(), 0..80),
        offsets in (0u16..1100, 0u16..600, 0u64..8, 0u64..70),
        target in prop_oneof![Just(MFT), Just(VALUE), Just(INDEX), any::<u16>()],
        committed in any::<bool>(),
    ) {
        let (before, _) = crashed_volume();
        let (record_offset, attribute_offset, sectors, lcn) = offsets;
        let place = Place { target, vcn: lcn, lcns: vec![lcn], cluster_offset: sectors * 512, record_offset, attribute_offset };
        let steps = [Step { data: operation((code, &data), (undo, &data), &place) }];
        let log = log_of(LogWriter::new((1, 1), 5, 6), &steps, committed);
        let volume = Volume::open(disk(&with_log(before, &log.crashed(false)))).unwrap();
        drop(volume.read_dir(volume.root()));
    }
}
