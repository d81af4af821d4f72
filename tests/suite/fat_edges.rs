//! FAT where it is thin: sectors of 4096 bytes, names that are nearly alike, directories that move, names after a failed change.

use crate::fat::{disk, empty, fsck, node, reader};
use crate::oracle::{run, tool};
use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use vmrescue::ErrorKind;
use vmrescue::block::{Disk, DiskMut, MemoryDevice};
use vmrescue::fs::fat::{FatVolume, FatVolumeMut, FormatSpec, Kind, format, smallest_fat32};
use vmrescue::fs::{FileSystem, FileSystemMut, NodeKind, read_file};
use vmrescue::progress::Silent;

/// A system partition on a disk of 4096-byte sectors is FAT32 when that is asked for, however few clusters it has; else it is what
/// everybody counts it for. Both hold what is written, for fsck.fat and mtools as well.
#[test]
fn large_sectors_make_volumes_that_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (50, Some(Kind::Fat32), Kind::Fat32, true),
        (99, Some(Kind::Fat32), Kind::Fat32, true),
        (260, Some(Kind::Fat32), Kind::Fat32, false),
        (99, None, Kind::Fat16, false),
        (300, None, Kind::Fat32, false),
    ];
    for (mebibytes, asked, wanted, is_few) in cases {
        let device = Arc::new(MemoryDevice::new(vec![0; mebibytes << 20]).with_sectors(4096));
        let out = DiskMut::new(Arc::clone(&device) as _);
        let spec = FormatSpec { kind: asked, label: "SYSTEM".into(), ..FormatSpec::default() };
        let made = format(&out, &spec).unwrap();
        assert_eq!((made.kind, made.few_clusters.is_some()), (wanted, is_few), "{mebibytes} MiB: {made:?}");
        let mut volume = FatVolumeMut::open(out).unwrap();
        let (mut at, root) = (volume.root(), volume.root());
        for name in ["EFI", "Microsoft", "Boot"] {
            at = volume.create(at, name, NodeKind::Directory).unwrap();
        }
        let file = volume.create(at, "bootmgfw.efi", NodeKind::File).unwrap();
        volume.write(file, "", 0, &vec![0xA5; 1_700_001]).unwrap();
        volume.create(root, "A file with a long name.txt", NodeKind::File).unwrap();
        volume.sync().unwrap();
        drop(volume);
        let path = dir.path().join("v.img");
        std::fs::write(&path, device.to_vec()).unwrap();
        fsck(&path);
        let volume = reader(&path);
        assert_eq!(volume.info().kind, wanted.name());
        assert_eq!(volume.check(&Silent).unwrap(), []);
        if is_few {
            // mtools counts clusters.
            continue;
        }
        let Some(mut mcopy) = tool("mcopy") else { return };
        let out = dir.path().join("out");
        run(mcopy
            .env("MTOOLS_SKIP_CHECK", "1")
            .args(["-n", "-i"])
            .arg(&path)
            .arg("::EFI/Microsoft/Boot/bootmgfw.efi")
            .arg(&out));
        assert!(std::fs::read(out).unwrap() == vec![0xA5; 1_700_001]);
    }
    // Where FAT32 can be right, it is.
    let small = MemoryDevice::new(vec![0; smallest_fat32(512) as usize - (1 << 20)]);
    let spec = FormatSpec { kind: Some(Kind::Fat32), ..FormatSpec::default() };
    assert_eq!(format(&DiskMut::new(Arc::new(small)), &spec).unwrap_err().kind(), ErrorKind::Invalid);
}

/// What mkfs.fat makes with these sectors has the clusters that ours has, or differs by what aligning takes.
#[test]
fn large_sectors_are_laid_out_as_mkfs_fat_does() {
    let dir = tempfile::tempdir().unwrap();
    for mebibytes in [99u64, 300, 2048] {
        let theirs = empty(dir.path(), "theirs.img", mebibytes << 20);
        let Some(mut mkfs) = tool("mkfs.fat") else { return };
        run(mkfs.args(["-F", "32", "-S", "4096", "-s", "1"]).arg(&theirs));
        let device = Arc::new(MemoryDevice::new(vec![0; (mebibytes << 20) as usize]).with_sectors(4096));
        let spec = FormatSpec { kind: Some(Kind::Fat32), cluster_bytes: Some(4096), ..FormatSpec::default() };
        format(&DiskMut::new(Arc::clone(&device) as _), &spec).unwrap();
        let ours = FatVolume::open(Disk::new(device)).unwrap();
        let (ours, theirs) = (ours.info(), reader(&theirs).info());
        assert_eq!((ours.kind, ours.cluster_bytes), (theirs.kind, theirs.cluster_bytes));
        assert_eq!(ours.size_bytes, theirs.size_bytes);
    }
}

/// Thousands of names that begin alike get 8.3 names of their own; all are found by both names, by us and by mtools.
#[test]
fn names_that_are_nearly_alike_keep_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = empty(dir.path(), "n.img", 80 << 20);
    format(&disk(&path), &FormatSpec { kind: Some(Kind::Fat32), ..FormatSpec::default() }).unwrap();
    let mut volume = FatVolumeMut::open(disk(&path)).unwrap();
    let folder = volume.create(volume.root(), "Names", NodeKind::Directory).unwrap();
    let mut names: Vec<String> = (0..1500).map(|n| format!("long name of file {n}.txt")).collect();
    names.extend((0..300).map(|n| format!("漢字 {n}.かな")));
    // The hash of an 8.3 name is not enough where the base is short.
    names.extend((0..300).map(|n| format!("a {n}")));
    names.extend(["x".repeat(255), "Ω".repeat(255), "LONGNA~1.TXT.bak".into(), ".a".into(), "a.b.c".into()]);
    for (number, name) in names.iter().enumerate() {
        let file = volume.create(folder, name, NodeKind::File).unwrap();
        volume.write(file, "", 0, format!("{number}").as_bytes()).unwrap();
    }
    // The 8.3 name of another file is taken, in any case; so is a name that differs in case only.
    for taken in ["longna~1.txt", "LONG NAME OF FILE 7.TXT", "A.B.C"] {
        let refused = volume.create(folder, taken, NodeKind::File).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{taken}");
    }
    volume.sync().unwrap();
    drop(volume);
    fsck(&path);
    let volume = reader(&path);
    assert_eq!(volume.check(&Silent).unwrap(), []);
    let entries = volume.read_dir(folder).unwrap();
    assert_eq!(entries.len(), names.len());
    let mut shorts = HashSet::new();
    for entry in &entries {
        let short = entry.short_name.clone().unwrap();
        assert!(shorts.insert(short.clone()), "{short} twice");
        assert_eq!(volume.lookup(folder, &short).unwrap(), Some(entry.id), "{short}");
        let number = names.iter().position(|name| *name == entry.name).unwrap();
        assert_eq!(read_file(&volume, entry.id, "").unwrap(), format!("{number}").as_bytes());
    }
    let Some(mut mdir) = tool("mdir") else { return };
    let output = run(mdir.env("LC_ALL", "C.UTF-8").args(["-b", "-i"]).arg(&path).arg("::Names"));
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let listed: HashSet<&str> = listed.lines().filter_map(|line| line.rsplit('/').next()).collect();
    for name in names.iter().filter(|name| name.is_ascii()) {
        assert!(listed.contains(name.as_str()), "mdir does not list {name}");
    }
}

/// A directory that moves says so in its `..`; into itself it does not go. Entries of deleted names are used again.
#[test]
fn directories_move_and_entries_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [Kind::Fat12, Kind::Fat16, Kind::Fat32] {
        let path = empty(dir.path(), "m.img", if kind == Kind::Fat12 { 2 << 20 } else { 40 << 20 });
        format(&disk(&path), &FormatSpec { kind: Some(kind), ..FormatSpec::default() }).unwrap();
        let mut volume = FatVolumeMut::open(disk(&path)).unwrap();
        let root = volume.root();
        let a = volume.create(root, "A", NodeKind::Directory).unwrap();
        let b = volume.create(root, "A second directory", NodeKind::Directory).unwrap();
        let inner = volume.create(a, "inner", NodeKind::Directory).unwrap();
        let deep = volume.create(inner, "deep", NodeKind::Directory).unwrap();
        for (directory, name, to) in
            [(root, "A", inner), (root, "A", deep), (root, "A", a), (a, "inner", deep)]
        {
            let refused = volume.rename(directory, name, to, "again").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        }
        volume.rename(a, "inner", b, "Inner, moved").unwrap();
        volume.rename(b, "Inner, moved", root, "INNER").unwrap();
        volume.rename(root, "INNER", b, "inner").unwrap();
        assert_eq!(node(&volume, "a second DIRECTORY/inner/deep"), deep);
        volume.sync().unwrap();
        drop(volume);
        assert_eq!(reader(&path).check(&Silent).unwrap(), [], "{}", kind.name());
        fsck(&path);
        // The room of a name that is gone is enough for one that is as long.
        let mut volume = FatVolumeMut::open(disk(&path)).unwrap();
        let b = node(&volume, "A second directory");
        let free = volume.free_bytes().unwrap();
        for round in 0..3000 {
            volume.create(b, &format!("a file that goes again {round:04}"), NodeKind::File).unwrap();
            volume.remove(b, &format!("a file that goes again {round:04}")).unwrap();
        }
        assert!(free - volume.free_bytes().unwrap() <= 4096, "a directory grew by names that are gone");
        volume.sync().unwrap();
        drop(volume);
        assert_eq!(reader(&path).check(&Silent).unwrap(), []);
        fsck(&path);
        drop(std::fs::remove_file(&path));
    }
}

/// A name is known whatever happened before: after a change that failed, on a volume that was just opened, after its directory was moved.
#[test]
fn names_are_known_after_a_failure_and_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [Kind::Fat16, Kind::Fat32] {
        let path = empty(dir.path(), "k.img", 40 << 20);
        format(&disk(&path), &FormatSpec { kind: Some(kind), ..FormatSpec::default() }).unwrap();
        let mut volume = FatVolumeMut::open(disk(&path)).unwrap();
        let root = volume.root();
        let efi = volume.create(root, "EFI", NodeKind::Directory).unwrap();
        let boot = volume.create(efi, "Microsoft Boot", NodeKind::Directory).unwrap();
        let file = volume.create(boot, "a long name.efi", NodeKind::File).unwrap();
        let other = volume.create(root, "BCD", NodeKind::File).unwrap();
        let known = |volume: &dyn FileSystem, file| -> Vec<String> {
            let mut names: Vec<String> = volume.names(file).unwrap().into_iter().map(|n| n.name).collect();
            names.sort();
            names
        };
        assert!(volume.create(boot, "A LONG NAME.EFI", NodeKind::File).is_err());
        assert_eq!(known(&volume, file), ["ALONGN~1.EFI", "a long name.efi"]);
        assert!(volume.write(file, "", 0, &vec![1; 60 << 20]).is_err());
        assert_eq!(known(&volume, other), ["BCD"]);
        volume.rename(efi, "Microsoft Boot", root, "Boot").unwrap();
        assert!(volume.create(root, "boot", NodeKind::File).is_err());
        assert_eq!(known(&volume, file), ["ALONGN~1.EFI", "a long name.efi"]);
        assert_eq!(volume.names(file).unwrap()[0].directory, boot);
        volume.sync().unwrap();
        drop(volume);
        let volume = reader(&path);
        let file = node(&volume, "Boot/a long name.efi");
        let fresh = reader(&path);
        let names = fresh.names(file).unwrap();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(known(&fresh, names[0].directory), ["BOOT", "Boot"]);
        drop(std::fs::remove_file(&path));
    }
}

/// `disk format` on a disk of 4096-byte sectors: FAT32 of 99 MiB, said to have few clusters.
#[test]
fn disk_format_makes_a_system_partition_on_large_sectors() {
    use vmrescue::image::{CreateSpec, Kind as Container, create, open_mut};
    use vmrescue::partition::{EFI_SYSTEM, NewPartition, write_gpt};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("four.vhdx");
    let file = DiskMut::new(Arc::new(vmrescue::block::HostFile::create_new(&path).unwrap()) as _);
    create(
        &file,
        &CreateSpec { logical_sector_bytes: 4096, ..CreateSpec::new(Container::VhdxDynamic, 200 << 20) },
    )
    .unwrap();
    let out = open_mut(&file, None).unwrap().disk;
    let part = NewPartition {
        type_guid: EFI_SYSTEM,
        mbr_type: 0,
        range: 1 << 20..100 << 20,
        name: String::new(),
        active: false,
    };
    write_gpt(&out, &[part]).unwrap();
    out.flush().unwrap();
    drop((out, file));
    let name = path.to_str().unwrap();
    let tool = env!("CARGO_BIN_EXE_vmrescue");
    let made =
        run(Command::new(tool).args(["disk", "format", name, "--volume", "1", "--fs", "fat32", "--yes"]));
    let said = String::from_utf8_lossy(&made.stdout).into_owned() + &String::from_utf8_lossy(&made.stderr);
    assert!(said.contains("FAT32") && said.contains("65,525"), "{said}");
    run(Command::new(tool).args(["mkdir", name, r"#1:\EFI", "--yes"]));
    let info = run(Command::new(tool).args(["info", name, "--json"]));
    assert!(String::from_utf8_lossy(&info.stdout).contains("fat32"));
    run(Command::new(tool).args(["check", name]));
}
