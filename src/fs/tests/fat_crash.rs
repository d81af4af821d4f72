//! The power goes while changes of a FAT volume are published, at every step: after recovery the volume is as it was, or as it was meant to be; both are
//! whole, and undone it is the old one byte for byte.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;
use vmrescue_base::progress::Silent;
use vmrescue_block::{Disk, DiskMut, MemoryDevice};
use vmrescue_fs::fat::{FatVolume, FatVolumeMut, FormatSpec, Kind, format, smallest_fat32};
use vmrescue_fs::{FileSystem, FileSystemMut, NodeKind};
use vmrescue_transaction::testing::sweep_at;

fn memory(bytes: Vec<u8>) -> (Arc<MemoryDevice>, DiskMut) {
    let device = Arc::new(MemoryDevice::new(bytes));
    (Arc::clone(&device), DiskMut::new(device))
}

/// The volume after `work`.
fn changed(bytes: Vec<u8>, work: impl FnOnce(&mut FatVolumeMut)) -> Vec<u8> {
    let (device, disk) = memory(bytes);
    let mut volume = FatVolumeMut::open(disk).unwrap();
    work(&mut volume);
    volume.sync().unwrap();
    drop(volume);
    device.to_vec()
}

fn defects(bytes: &[u8]) -> Vec<String> {
    let volume = FatVolume::open(Disk::new(Arc::new(MemoryDevice::new(bytes.to_vec())))).unwrap();
    volume.check(&Silent).unwrap().iter().map(ToString::to_string).collect()
}

/// A volume with files, and the same one after every kind of change.
fn before_and_after(kind: Kind, bytes: u64) -> (Vec<u8>, Vec<u8>) {
    let (device, disk) = memory(vec![0; bytes as usize]);
    assert_eq!(format(&disk, &FormatSpec { kind: Some(kind), ..FormatSpec::default() }).unwrap().kind, kind);
    let old = changed(device.to_vec(), |volume| {
        let root = volume.root();
        for (name, length) in [("kept.txt", 3000), ("to be removed.bin", 20_000), ("grows.log", 10)] {
            let node = volume.create(root, name, NodeKind::File).unwrap();
            volume.write(node, "", 0, &vec![7; length]).unwrap();
        }
    });
    let new = changed(old.clone(), |volume| {
        let root = volume.root();
        let directory = volume.create(root, "A directory with a long name", NodeKind::Directory).unwrap();
        volume.remove(root, "to be removed.bin").unwrap();
        for number in 0..20 {
            let name = format!("file with a long name {number}.bin");
            let node = volume.create(directory, &name, NodeKind::File).unwrap();
            volume.write(node, "", 0, &vec![number as u8; 4096]).unwrap();
        }
        let grows = volume.lookup(root, "grows.log").unwrap().unwrap();
        volume.write(grows, "", 10, &vec![9; 30_000]).unwrap();
        volume.rename(root, "kept.txt", directory, "Under another name.txt").unwrap();
    });
    (old, new)
}

#[test]
fn a_crash_while_changes_are_published_leaves_a_whole_volume() {
    let volumes =
        [(Kind::Fat12, 1 << 20), (Kind::Fat16, 8 << 20), (Kind::Fat32, smallest_fat32(512).max(33 << 20))];
    for (kind, bytes) in volumes {
        let (old, new) = before_and_after(kind, bytes);
        assert!(old != new);
        assert_eq!((defects(&old), defects(&new)), (Vec::new(), Vec::new()), "{kind:?}");
        // The sweep itself asserts that what is left is one of the two.
        let steps = if kind == Kind::Fat32 { vec![0, 3, 7] } else { (0..24).collect() };
        for undoing in [false, true] {
            let crashes = sweep_at(&old, &new, undoing, steps.iter().copied());
            assert!(crashes > 5, "{kind:?}: {crashes} crashes");
        }
    }
}
