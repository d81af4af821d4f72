//! Our FAT against programs that nobody here wrote: fsck.fat, mtools and The Sleuth Kit read what we write after random
//! changes, and we read what mkfs.fat and mtools make.

use crate::oracle::{corpus, run, tool};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vmrescue::block::{Disk, DiskMut, HostFile};
use vmrescue::fs::fat::{FatVolume, FatVolumeMut, FormatSpec, Kind, format, mend};
use vmrescue::fs::{
    Attributes, FileSystem, FileSystemMut, MetadataChange, NodeId, NodeKind, Times, read_file,
};
use vmrescue::progress::Silent;
use vmrescue::text::hex;
use vmrescue::time::FileTime;

pub(crate) fn disk(path: &Path) -> DiskMut {
    DiskMut::new(Arc::new(HostFile::open_write(path).unwrap()))
}

pub(crate) fn reader(path: &Path) -> FatVolume {
    FatVolume::open(Disk::new(Arc::new(HostFile::open_read(path).unwrap()))).unwrap()
}

pub(crate) fn empty(dir: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

pub(crate) fn fsck(path: &Path) {
    let Some(mut fsck) = tool("fsck.fat") else { return };
    let output = fsck.arg("-n").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "fsck.fat does not like {}:\n{said}", path.display());
}

/// Small numbers from a seed, always the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What must be there: files with their data, and directories.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    File(Vec<u8>),
    Directory,
}

type Model = BTreeMap<String, Thing>;

const ALPHABETS: [&str; 6] =
    ["Ansichtssache", "Überraschung ß", "Ёлки-палки", "漢字かな交じり", "😀 smile", "a b.c d"];

fn name(dice: &mut Dice) -> String {
    let number = dice.roll(60);
    match dice.roll(8) {
        0 => format!("FILE{number}.TXT"),
        1 => format!("file{number}.txt"),
        2 => format!("Mixed{number}.Txt"),
        3 => format!("{} {number}", ALPHABETS[dice.roll(6) as usize]),
        4 => format!("long name number {number} {}.extension", "x".repeat(dice.roll(110) as usize)),
        5 => format!("Program Files {number}"),
        6 => format!(".hidden{number}"),
        _ => format!("no+short,name;{number}=[x].tar.gz"),
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

pub(crate) fn node(volume: &dyn FileSystem, path: &str) -> NodeId {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    vmrescue::fs::resolve(volume, &parts).unwrap().unwrap_or_else(|| panic!("{path} is not there"))
}

/// The key under which two names are one.
fn key(path: &str) -> String {
    path.to_uppercase()
}

/// One random change; the model follows what the volume accepted.
fn step(volume: &mut FatVolumeMut, model: &mut Model, dice: &mut Dice) {
    let directories: Vec<String> = std::iter::once(String::new())
        .chain(model.iter().filter(|(_, thing)| **thing == Thing::Directory).map(|(path, _)| path.clone()))
        .collect();
    let files: Vec<String> =
        model.iter().filter(|(_, t)| matches!(t, Thing::File(_))).map(|(path, _)| path.clone()).collect();
    let at = directories[dice.roll(directories.len() as u64) as usize].clone();
    let own = name(dice);
    let full = if at.is_empty() { own.clone() } else { format!("{at}/{own}") };
    let is_taken = model.keys().any(|known| key(known) == key(&full));
    let pick = |dice: &mut Dice| files.get(dice.roll(files.len().max(1) as u64) as usize).cloned();
    match dice.roll(10) {
        0..=2 => {
            let directory = node(volume, &at);
            let made = volume.create(directory, &own, NodeKind::File);
            assert_eq!(made.is_err() && !is_no_space(&made), is_taken, "{full}: {made:?}");
            if made.is_ok() {
                model.insert(full, Thing::File(Vec::new()));
            }
        }
        3 => {
            if at.matches('/').count() > 3 {
                return;
            }
            let directory = node(volume, &at);
            let made = volume.create(directory, &own, NodeKind::Directory);
            assert_eq!(made.is_err() && !is_no_space(&made), is_taken, "{full}: {made:?}");
            if made.is_ok() {
                model.insert(full, Thing::Directory);
            }
        }
        4 | 5 => {
            let Some(path) = pick(dice) else { return };
            let Some(Thing::File(data)) = model.get_mut(&path) else { return };
            let offset = dice.roll(data.len() as u64 + 3000) as usize;
            let piece: Vec<u8> = (0..dice.roll(9000)).map(|n| (n * 7 + dice.0) as u8).collect();
            let file = node(volume, &path);
            match volume.write(file, "", offset as u64, &piece) {
                Ok(()) => {
                    if data.len() < offset + piece.len() {
                        data.resize(offset + piece.len(), 0);
                    }
                    data[offset..offset + piece.len()].copy_from_slice(&piece);
                }
                Err(e) => assert_eq!(e.kind(), vmrescue::ErrorKind::NoSpace, "{e}"),
            }
        }
        6 => {
            let Some(path) = pick(dice) else { return };
            let Some(Thing::File(data)) = model.get_mut(&path) else { return };
            let length = dice.roll(data.len() as u64 * 2 + 1000);
            let file = node(volume, &path);
            match volume.set_len(file, "", length) {
                Ok(()) => data.resize(length as usize, 0),
                Err(e) => assert_eq!(e.kind(), vmrescue::ErrorKind::NoSpace, "{e}"),
            }
        }
        7 => {
            let all: Vec<String> = model.keys().cloned().collect();
            let Some(path) = all.get(dice.roll(all.len().max(1) as u64) as usize) else { return };
            let below = model.keys().any(|known| known.starts_with(&format!("{path}/")));
            let directory = node(volume, parent(path));
            let removed = volume.remove(directory, path.rsplit('/').next().unwrap());
            assert_eq!(removed.is_err(), below, "{path}: {removed:?}");
            if removed.is_ok() {
                model.remove(path);
            }
        }
        _ => {
            let all: Vec<String> = model.keys().cloned().collect();
            let Some(path) = all.get(dice.roll(all.len().max(1) as u64) as usize).cloned() else { return };
            let inside = full == path || full.starts_with(&format!("{path}/")) || at.starts_with(&path);
            if inside || full.matches('/').count() > 4 {
                return;
            }
            let (from, to) = (node(volume, parent(&path)), node(volume, &at));
            let held = node(volume, &path);
            let only_case = key(&path) == key(&full);
            let moved = volume.rename(from, path.rsplit('/').next().unwrap(), to, &own);
            let wanted = is_taken && !only_case;
            assert_eq!(moved.is_err() && !is_no_space(&moved), wanted, "{path} to {full}: {moved:?}");
            if moved.is_ok() {
                assert_eq!(node(volume, &full), held, "a node keeps its id when it is renamed");
                let moving: Vec<String> = model
                    .keys()
                    .filter(|known| **known == path || known.starts_with(&format!("{path}/")))
                    .cloned()
                    .collect();
                for old in moving {
                    let thing = model.remove(&old).unwrap();
                    model.insert(format!("{full}{}", &old[path.len()..]), thing);
                }
            }
        }
    }
}

fn is_no_space<T>(result: &vmrescue::Result<T>) -> bool {
    result.as_ref().is_err_and(|e| e.kind() == vmrescue::ErrorKind::NoSpace)
}

/// Everything that a volume holds.
fn everything(volume: &dyn FileSystem) -> Model {
    let mut found = Model::new();
    let mut pending = vec![(volume.root(), String::new())];
    while let Some((at, path)) = pending.pop() {
        for entry in volume.read_dir(at).unwrap() {
            let full = if path.is_empty() { entry.name.clone() } else { format!("{path}/{}", entry.name) };
            if entry.kind == NodeKind::Directory {
                found.insert(full.clone(), Thing::Directory);
                pending.push((entry.id, full));
            } else {
                found.insert(full, Thing::File(read_file(volume, entry.id, "").unwrap()));
            }
        }
    }
    found
}

/// The names that The Sleuth Kit finds, and the data of every file by mtools.
fn others_agree(path: &Path, model: &Model, dir: &Path) {
    let info = reader(path).info();
    if info.kind == "fat32" && info.size_bytes / u64::from(info.cluster_bytes) < 65_525 {
        // mkfs.fat makes such volumes and fsck.fat, Linux and Windows read them; these two go by the number of clusters alone.
        return;
    }
    if let Some(mut fls) = tool("fls") {
        let output = run(fls.args(["-r", "-p", "-u"]).arg(path));
        let text = String::from_utf8(output.stdout).unwrap();
        let mut names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once(":\t"))
            .filter(|(kind, name)| !kind.starts_with('v') && !name.starts_with('$') && !kind.contains("V/V"))
            .map(|(_, name)| name)
            .filter(|name| !name.ends_with("(Volume Label Entry)"))
            .collect();
        // It shows characters beyond the first plane in its own way.
        let plain = |name: &&str| !name.contains("smile");
        let ours: Vec<&str> = model.keys().map(String::as_str).filter(plain).collect();
        names.retain(plain);
        let (theirs, ours): (BTreeSet<&str>, BTreeSet<&str>) =
            (names.into_iter().collect(), ours.into_iter().collect());
        let differ: Vec<&&str> = theirs.symmetric_difference(&ours).collect();
        assert!(differ.is_empty(), "{}: {differ:?}", path.display());
    }
    if let Some(mut mcopy) = tool("mcopy") {
        let out = dir.join("mcopied");
        drop(std::fs::remove_dir_all(&out));
        std::fs::create_dir(&out).unwrap();
        mcopy.env("LC_ALL", "C.UTF-8").env("MTOOLS_SKIP_CHECK", "1");
        run(mcopy.args(["-s", "-n", "-i"]).arg(path).arg("::*").arg(&out));
        for (name, thing) in model.iter().filter(|(name, _)| name.is_ascii()) {
            match thing {
                Thing::File(data) => assert_eq!(std::fs::read(out.join(name)).unwrap(), *data, "{name}"),
                Thing::Directory => assert!(out.join(name).is_dir(), "{name}"),
            }
        }
    }
}

/// Random changes; after each batch everybody sees the same.
fn random_changes(path: &Path, seed: u64, batches: usize, dir: &Path) {
    let mut dice = Dice(seed);
    let mut model = everything(&reader(path));
    for batch in 0..batches {
        let mut volume = FatVolumeMut::open(disk(path)).unwrap();
        for _ in 0..120 {
            step(&mut volume, &mut model, &mut dice);
        }
        volume.sync().unwrap();
        assert_eq!(everything(&volume), model, "by the writer, batch {batch}");
        drop(volume);
        let again = reader(path);
        assert_eq!(everything(&again), model, "by a reader, batch {batch}");
        assert_eq!(again.check(&Silent).unwrap(), [], "batch {batch} of {}", path.display());
        fsck(path);
    }
    others_agree(path, &model, dir);
}

#[test]
fn random_changes_are_seen_by_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (1 << 20, Some(Kind::Fat12), None),
        (6 << 20, Some(Kind::Fat16), None),
        (40 << 20, Some(Kind::Fat16), Some(4096)),
        (50 << 20, Some(Kind::Fat32), None),
        (300 << 20, Some(Kind::Fat32), Some(4096)),
        (32 << 30, None, None),
    ];
    for (seed, (bytes, kind, cluster_bytes)) in cases.into_iter().enumerate() {
        let path = empty(dir.path(), &format!("{seed}.img"), bytes);
        let spec =
            FormatSpec { label: "RANDOM".into(), kind, cluster_bytes, serial: 7, ..FormatSpec::default() };
        let made = format(&disk(&path), &spec).unwrap().kind;
        assert!(kind.is_none_or(|kind| kind == made));
        fsck(&path);
        // The largest takes fsck.fat and mtools longest.
        random_changes(&path, seed as u64, if bytes > 1 << 30 { 2 } else { 6 }, dir.path());
        std::fs::remove_file(path).unwrap();
    }
}

/// Many seeds and sizes: `scripts/fat-sweep.sh`. Without it one of each kind.
#[test]
fn sweep() {
    let seeds = std::env::var("VMRESCUE_FAT_SEEDS").unwrap_or_default();
    let Some((first, end)) = seeds.split_once("..") else { return };
    let dir = tempfile::tempdir().unwrap();
    for seed in first.parse::<u64>().unwrap()..end.parse().unwrap() {
        let mut dice = Dice(seed);
        let (kind, least, most) = match seed % 3 {
            0 => (Kind::Fat12, 1 << 20, 12 << 20),
            1 => (Kind::Fat16, 5 << 20, 2 << 30),
            _ => (Kind::Fat32, 34 << 20, 32 << 30),
        };
        // As many small ones as large ones.
        let bytes = (least << dice.roll(u64::ilog2(most / least).into())) + (dice.roll(least) & !511);
        let path = empty(dir.path(), &format!("{seed}.img"), bytes);
        format(
            &disk(&path),
            &FormatSpec { label: "SWEEP".into(), kind: Some(kind), ..FormatSpec::default() },
        )
        .unwrap();
        eprintln!("seed {seed}: {} of {bytes} bytes", kind.name());
        random_changes(&path, seed, 5, dir.path());
        if let Some(out) = std::env::var_os("VMRESCUE_FAT_OUT") {
            manifest(&path, &PathBuf::from(out).join(format!("{seed}.img")));
        }
        drop(std::fs::remove_file(path));
    }
}

/// Keeps a volume with a list of what is on it.
fn manifest(path: &Path, kept: &Path) {
    let mut list = String::new();
    for (name, thing) in everything(&reader(path)) {
        let what = match thing {
            Thing::File(data) => hex(&Sha256::digest(&data)),
            Thing::Directory => "directory".into(),
        };
        list.push_str(&format!("{what}  {name}\n"));
    }
    run(Command::new("cp").arg("--sparse=always").arg(path).arg(kept));
    std::fs::write(format!("{}.manifest", kept.display()), list).unwrap();
}

#[test]
fn volumes_of_mkfs_fat_are_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, u64, &[&str]); 6] = [
        ("small32", 30 << 20, &["-F", "32"]),
        ("esp", 72 << 20, &["-F", "32", "-s", "8", "-n", "SYSTEM"]),
        ("four", 300 << 20, &["-F", "32", "-S", "4096"]),
        ("twelve", 2 << 20, &["-F", "12"]),
        ("sixteen", 64 << 20, &["-F", "16", "-r", "64"]),
        ("one-table", 64 << 20, &["-F", "16", "-f", "1"]),
    ];
    for (name, bytes, arguments) in cases {
        let path = empty(dir.path(), name, bytes);
        let Some(mut mkfs) = tool("mkfs.fat") else { return };
        run(mkfs.args(arguments).arg(&path));
        random_changes(&path, bytes, 2, dir.path());
    }
}

#[test]
fn what_mtools_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = empty(dir.path(), "m.img", 40 << 20);
    let spec = FormatSpec { kind: Some(Kind::Fat32), ..FormatSpec::default() };
    format(&disk(&path), &spec).unwrap();
    let host = dir.path().join("A long name, with comma.txt");
    std::fs::write(&host, vec![9; 70_000]).unwrap();
    let Some(mut mmd) = tool("mmd") else { return };
    run(mmd.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(&path).args(["::EFI", "::EFI/Boot"]));
    let Some(mut mcopy) = tool("mcopy") else { return };
    run(mcopy.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(&path).arg(&host).arg("::EFI/Boot"));
    let volume = reader(&path);
    let file = node(&volume, "efi/BOOT/a LONG name, with comma.TXT");
    assert_eq!(read_file(&volume, file, "").unwrap(), vec![9; 70_000]);
    assert_eq!(volume.check(&Silent).unwrap(), []);
}

#[test]
fn times_and_attributes_are_what_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = empty(dir.path(), "t.img", 40 << 20);
    format(&disk(&path), &FormatSpec::default()).unwrap();
    let at = |text: &str| FileTime::parse_utc(text).unwrap();
    let mut volume = FatVolumeMut::open(disk(&path)).unwrap();
    volume.set_clock(Some(at("2026-11-28T03:04:05.67")));
    let directory = volume.create(volume.root(), "Boot", NodeKind::Directory).unwrap();
    let file = volume.create(directory, "BCD", NodeKind::File).unwrap();
    volume.write(file, "", 0, b"x").unwrap();
    let longest = "ä".repeat(255);
    let long = volume.create(directory, &longest, NodeKind::File).unwrap();
    assert_eq!(volume.lookup(directory, &longest.to_uppercase()).unwrap(), Some(long));
    assert!(volume.create(directory, &"a".repeat(256), NodeKind::File).is_err());
    let there = volume.metadata(file).unwrap();
    assert_eq!(there.times.created, at("2026-11-28T03:04:05.67"));
    assert_eq!(there.times.modified, at("2026-11-28T03:04:04"));
    assert_eq!(there.times.accessed, at("2026-11-28"));
    assert!(there.times.changed.is_zero());
    assert_eq!(there.attributes, Attributes(Attributes::ARCHIVE));
    let times = Times {
        created: at("2001-02-03T04:05:06.78"),
        modified: at("2002-03-04T05:06:08"),
        accessed: at("2003-04-05"),
        changed: FileTime::default(),
    };
    let attributes = Attributes(Attributes::HIDDEN | Attributes::SYSTEM | Attributes::READ_ONLY);
    let change =
        MetadataChange { attributes: Some(attributes), times: Some(times), ..MetadataChange::default() };
    volume.set_metadata(file, &change).unwrap();
    volume.sync().unwrap();
    drop(volume);
    let there = reader(&path).metadata(file).unwrap();
    assert_eq!((there.times, there.attributes), (times, attributes));
    fsck(&path);
    let Some(mut fls) = tool("fls") else { return };
    let output = run(fls.args(["-r", "-p", "-l", "-z", "UTC"]).arg(&path));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("2002-03-04 05:06:08") && text.contains("2001-02-03 04:05:06"), "{text}");
    assert!(text.contains("2026-11-28 03:04:04"), "{text}");
    let Some(mut mattrib) = tool("mattrib") else { return };
    let output = run(mattrib.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(&path).arg("::Boot/BCD"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("SHR"), "{text}");
}

#[test]
fn full_volumes_and_full_roots_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = empty(dir.path(), "full.img", 2 << 20);
    format(&disk(&path), &FormatSpec { kind: Some(Kind::Fat12), ..FormatSpec::default() }).unwrap();
    let mut volume = FatVolumeMut::open(disk(&path)).unwrap();
    let mut count = 0;
    let refused = loop {
        match volume.create(volume.root(), &format!("F{count}"), NodeKind::File) {
            Ok(_) => count += 1,
            Err(e) => break e,
        }
    };
    assert_eq!((count, refused.kind()), (512, vmrescue::ErrorKind::NoSpace));
    // In its place there is room for a name that is no longer.
    volume.rename(volume.root(), "F7", volume.root(), "G7").unwrap();
    assert!(volume.rename(volume.root(), "G7", volume.root(), "a longer name than before").is_err());
    assert!(volume.lookup(volume.root(), "G7").unwrap().is_some(), "a rename that failed took nothing away");
    let file = node(&volume, "F1");
    let free = volume.free_bytes().unwrap();
    let refused = volume.write(file, "", 0, &vec![1; free as usize + 1]).unwrap_err();
    assert_eq!(refused.kind(), vmrescue::ErrorKind::NoSpace);
    assert_eq!(volume.free_bytes().unwrap(), free);
    volume.write(file, "", 0, &vec![1; free as usize]).unwrap();
    assert_eq!(volume.free_bytes().unwrap(), 0);
    volume.sync().unwrap();
    assert_eq!(volume.check(&Silent).unwrap(), []);
    fsck(&path);
}

#[test]
fn the_corpus_is_read() {
    let Some(corpus) = corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    // The Sleuth Kit does not open the other sample, FAT32 with few clusters.
    let name = "fat16.raw";
    let packed = corpus.join("02-ntfs/dfir_ntfs").join(format!("{name}.gz"));
    let path = dir.path().join(name);
    std::fs::write(&path, run(Command::new("gzip").arg("-dc").arg(&packed)).stdout).unwrap();
    let volume = reader(&path);
    let all = everything(&volume);
    let Some(mut fls) = tool("fls") else { return };
    let output = run(fls.args(["-r", "-p", "-u"]).arg(&path));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for path in all.keys() {
        assert!(text.contains(path.as_str()), "{name}: {path} in\n{text}");
    }
    assert!(!all.is_empty());
}

/// Damage, and what the check and its repair say of it.
#[test]
fn damage_is_found_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let path = empty(dir.path(), "d.img", 40 << 20);
    let spec = FormatSpec { kind: Some(Kind::Fat32), label: "DAMAGED".into(), ..FormatSpec::default() };
    format(&disk(&path), &spec).unwrap();
    let mut volume = FatVolumeMut::open(disk(&path)).unwrap();
    let efi = volume.create(volume.root(), "EFI", NodeKind::Directory).unwrap();
    let long = volume.create(efi, "a name that is long enough.efi", NodeKind::File).unwrap();
    volume.write(long, "", 0, &[5; 5000]).unwrap();
    volume.sync().unwrap();
    drop(volume);
    let good = std::fs::read(&path).unwrap();
    let word = |at: usize| u32::from_le_bytes(good[at..at + 4].try_into().unwrap());
    let sector = 512;
    let reserved = u16::from_le_bytes([good[14], good[15]]) as usize;
    let table = reserved * sector;
    let table_bytes = word(36) as usize * sector;
    let data = table + 2 * table_bytes;
    let both = |bytes: &mut Vec<u8>, cluster: usize, value: u32| {
        for copy in 0..2 {
            let at = table + copy * table_bytes + cluster * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    };
    let efi_at = data + sector; // cluster 3
    type Break<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;
    let cases: Vec<(&str, bool, Break<'_>)> = vec![
        ("fat-boot-sector", true, Box::new(|b| b[..512].fill(0))),
        ("fat-boot-copy", true, Box::new(|b| b[6 * 512..7 * 512].fill(0))),
        ("fat-info", true, Box::new(|b| b[512..1024].fill(0))),
        ("fat-info-count", true, Box::new(|b| b[512 + 488] ^= 1)),
        ("fat-dirty", true, Box::new(|b| b[65] |= 1)),
        ("fat-copies-differ", true, Box::new(|b| b[table + table_bytes + 400] = 3)),
        // The first one is damaged, the second one is right.
        ("fat-copies-differ", true, Box::new(|b| b[table + 16..table + 20].fill(0))),
        (
            "fat-lost-clusters",
            true,
            Box::new(|b| {
                both(b, 900, 901);
                both(b, 901, 0x0FFF_FFFF);
            }),
        ),
        (
            "fat-chain-long",
            true,
            Box::new(|b| {
                both(b, 13, 950);
                both(b, 950, 0x0FFF_FFFF);
            }),
        ),
        ("fat-chain-short", false, Box::new(|b| both(b, 6, 0x0FFF_FFFF))),
        ("fat-chain", false, Box::new(|b| both(b, 6, 0x0FFF_0000))),
        ("fat-chain-cycle", false, Box::new(|b| both(b, 13, 5))),
        ("fat-cross-linked", false, Box::new(|b| both(b, 2, 7))),
        ("fat-dot-entries", true, Box::new(|b| b[efi_at + 32 + 26] = 2)),
        ("fat-dot-entries", true, Box::new(|b| b[efi_at..efi_at + 32].fill(0xE5))),
        ("fat-directory-size", true, Box::new(|b| b[data + 32 + 28] = 9)),
        ("fat-long-name", true, Box::new(|b| b[efi_at + 64 + 13] ^= 0xFF)),
        ("fat-volume-cut", false, Box::new(|b| b.truncate(30 << 20))),
        ("fat-first-entry", true, Box::new(|b| b[table] = 0)),
    ];
    for (code, mends, damage) in cases {
        let mut bytes = good.clone();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let found = reader(&path).check(&Silent).unwrap();
        assert!(found.iter().any(|defect| defect.code == code), "{code} in {found:?}");
        let repaired = mend(&disk(&path), &Silent);
        let left = match &repaired {
            Ok(repaired) => repaired.left.iter().map(|defect| defect.code).collect(),
            Err(_) => vec!["refused"],
        };
        assert_eq!(left.is_empty(), mends, "{code}: {repaired:?}");
        if mends {
            fsck(&path);
            assert_eq!(reader(&path).check(&Silent).unwrap(), [], "{code}");
        }
    }
}

/// Damaged volumes: no panic, no hang, no endless memory, whatever the bytes are.
#[test]
fn damaged_volumes_end_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, bytes) in [(Kind::Fat12, 1 << 20), (Kind::Fat16, 6 << 20), (Kind::Fat32, 40 << 20)] {
        let path = empty(dir.path(), "fuzz.img", bytes);
        format(&disk(&path), &FormatSpec { kind: Some(kind), ..FormatSpec::default() }).unwrap();
        let mut model = Model::new();
        let mut dice = Dice(bytes);
        let mut volume = FatVolumeMut::open(disk(&path)).unwrap();
        for _ in 0..300 {
            step(&mut volume, &mut model, &mut dice);
        }
        volume.sync().unwrap();
        drop(volume);
        let good = std::fs::read(&path).unwrap();
        let used = good.iter().rposition(|byte| *byte != 0).unwrap();
        for _ in 0..60 {
            let mut bad = good.clone();
            for _ in 0..=dice.roll(30) {
                // Mostly where the structures are.
                let range = if dice.roll(3) == 0 { used as u64 } else { used.min(60_000) as u64 };
                let at = dice.roll(range) as usize;
                bad[at] = if dice.roll(2) == 0 { dice.roll(256) as u8 } else { 0xFF };
            }
            std::fs::write(&path, &bad).unwrap();
            let view = Disk::new(Arc::new(HostFile::open_read(&path).unwrap()));
            let Ok(volume) = FatVolume::open(view) else { continue };
            let read = volume.walk(volume.root(), vmrescue::fs::Order::Tree, &mut |file| {
                if file.kind == NodeKind::File {
                    drop(read_file(&volume, file.id, ""));
                }
                Ok(())
            });
            drop(read);
            drop(volume.check(&Silent));
            drop(volume);
            drop(mend(&disk(&path), &Silent));
            if let Ok(mut volume) = FatVolumeMut::open(disk(&path)) {
                let root = volume.root();
                for number in 0..20 {
                    drop(volume.create(root, &format!("new file number {number}"), NodeKind::File).and_then(
                        |file| {
                            volume.write(file, "", 0, &[1; 3000])?;
                            volume.rename(
                                root,
                                &format!("new file number {number}"),
                                root,
                                &format!("{number}"),
                            )
                        },
                    ));
                }
            }
        }
    }
}
