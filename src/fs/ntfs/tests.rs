//! Whole volumes: new ones, and mutated ones, which must give answers or errors but no panic and no endless loop.

use super::*;
use crate::{FileSystem, NodeId, open, read_file, resolve};
use proptest::prelude::*;
use std::sync::{Arc, OnceLock};
use vmrescue_base::progress::Silent;
use vmrescue_block::{Disk, DiskMut, MemoryDevice};

fn fresh() -> Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES
        .get_or_init(|| {
            let device = Arc::new(MemoryDevice::zeroed(8 << 20));
            let spec = FormatSpec { label: "probe".into(), ..FormatSpec::default() };
            format(&DiskMut::new(Arc::<MemoryDevice>::clone(&device)), &spec).unwrap();
            device.to_vec()
        })
        .clone()
}

fn disk(bytes: Vec<u8>) -> Disk {
    Disk::new(Arc::new(MemoryDevice::new(bytes)))
}

/// Everything that can be read, with all errors ignored but bounded in number of nodes.
fn read_everything(fs: &dyn FileSystem) -> usize {
    let mut todo = vec![fs.root()];
    let mut seen = std::collections::HashSet::new();
    while let Some(node) = todo.pop() {
        if !seen.insert(node) || seen.len() > 300 {
            continue;
        }
        drop(fs.metadata(node));
        for stream in fs.streams(node).unwrap_or_default() {
            let mut buf = [0; 5000];
            drop(fs.read(node, &stream.name, 0, &mut buf));
            drop(fs.read(node, &stream.name, stream.size_bytes.saturating_sub(100), &mut buf));
        }
        for entry in fs.read_dir(node).unwrap_or_default() {
            drop(fs.lookup(node, &entry.name));
            todo.push(entry.id);
        }
    }
    seen.len()
}

#[test]
fn a_new_volume_is_read() {
    let fs = open(disk(fresh())).unwrap();
    let info = fs.info();
    assert_eq!(
        (info.kind, info.label.as_str(), info.version.as_str(), info.dirty),
        ("ntfs", "probe", "3.1", false)
    );
    let names: Vec<String> = fs.read_dir(fs.root()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.iter().any(|name| name == "$MFT"), "{names:?}");
    let upcase = resolve(fs.as_ref(), &["$uPcAsE"]).unwrap().unwrap();
    assert_eq!(read_file(fs.as_ref(), upcase, "").unwrap().len(), 0x20000);
    assert_eq!(resolve(fs.as_ref(), &["$Extend", "none"]).unwrap(), None);
    assert!(fs.metadata(NodeId(0x7777)).is_err());
    assert!(fs.free_bytes().unwrap() > 4 << 20);
    assert!(read_everything(fs.as_ref()) > 12);
}

#[test]
fn a_damaged_first_record_is_taken_from_the_mirror() {
    let mut bytes = fresh();
    let boot = Boot::parse(&bytes).unwrap();
    let at = (boot.mft_lcn * u64::from(boot.cluster_bytes)) as usize;
    bytes[at..at + 4].copy_from_slice(b"BAAD");
    let fs = open(disk(bytes)).unwrap();
    assert!(fs.read_dir(fs.root()).unwrap().len() > 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn mutated_volumes_give_errors_and_no_panic(
        patches in proptest::collection::vec((0usize..64 * 1024, any::<u8>()), 1..80),
        fields in proptest::collection::vec((0usize..28, 0x10usize..0x200, any::<u8>()), 0..40),
        boot_field in proptest::option::of((0usize..0x50, any::<u8>())),
    ) {
        let mut bytes = fresh();
        let boot = Boot::parse(&bytes).unwrap();
        let mft = (boot.mft_lcn * u64::from(boot.cluster_bytes)) as usize;
        for (at, byte) in patches { bytes[mft + at] = byte; }
        for (record, at, byte) in fields { bytes[mft + record * boot.record_bytes as usize + at] = byte; }
        if let Some((at, byte)) = boot_field { bytes[at] = byte; }
        if let Ok(volume) = Volume::open(disk(bytes)) {
            read_everything(&volume);
            drop(volume.free_bytes());
            drop(volume.scan(&mut |_| Ok(())));
            drop(volume.check(&Silent));
            drop(state(&volume));
        }
    }
}
