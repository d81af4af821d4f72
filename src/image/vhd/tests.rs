//! Files that are not what the specification says: each rule broken by one change, told by its code, and refused by a
//! writer when it is severe.

use super::footer::sum;
use super::*;
use crate::{CreateSpec, Kind, create};
use vmrescue_block::MemoryDevice;

const BAT: u64 = 1536;
const BLOCK: u64 = 64 << 10;

/// A dynamic disk of 1 MiB in blocks of 64 KiB, with two blocks that hold something.
fn disk() -> DiskMut {
    let file = DiskMut::new(Arc::new(MemoryDevice::default()));
    let spec = CreateSpec {
        kind: Kind::VhdDynamic,
        size: 1 << 20,
        block_bytes: Some(BLOCK),
        logical_sector_bytes: 512,
    };
    create(&file, &spec).unwrap();
    let disk = open_mut(&file, None).unwrap().disk;
    disk.write_at(0, b"one").unwrap();
    disk.write_at(3 * BLOCK, b"two").unwrap();
    file
}

fn resummed(file: &DiskMut, at: u64, bytes: usize, place: usize, change: impl Fn(&mut [u8])) {
    let mut structure = file.as_disk().read_vec(at, bytes).unwrap();
    change(&mut structure);
    let sum = sum(&structure, place);
    structure[place..place + 4].copy_from_slice(&sum.to_be_bytes());
    file.write_at(at, &structure).unwrap();
}

fn footers(file: &DiskMut, change: impl Fn(&mut [u8])) {
    for at in [0, file.len() - FOOTER_BYTES] {
        resummed(file, at, 512, 64, &change);
    }
}

fn header(file: &DiskMut, change: impl Fn(&mut [u8])) {
    resummed(file, 512, 1024, 36, change);
}

#[test]
fn every_broken_rule_is_told_and_a_writer_refuses_what_is_severe() {
    use Severity::{Error, Note, Warning};
    type Case = (&'static str, Severity, fn(&DiskMut));
    let cases: [Case; 13] = [
        ("vhd-version", Error, |f| footers(f, |b| b[13] = 2)),
        ("vhd-saved-state", Warning, |f| footers(f, |b| b[84] = 1)),
        ("vhd-reserved", Note, |f| footers(f, |b| b[500] = 1)),
        ("vhd-header-version", Error, |f| header(f, |b| b[25] = 2)),
        ("vhd-reserved", Note, |f| header(f, |b| b[1000] = 1)),
        ("vhd-footer-copy-differs", Warning, |f| f.write_at(100, b"x").unwrap()),
        ("vhd-table-misplaced", Error, |f| {
            header(f, |b| b[28..32].copy_from_slice(&0x10_0000u32.to_be_bytes()));
        }),
        ("vhd-structures-overlap", Error, |f| {
            header(f, |b| b[16..24].copy_from_slice(&1024u64.to_be_bytes()));
        }),
        ("vhd-blocks-overlap", Error, |f| {
            let first = f.as_disk().read_vec(BAT, 4).unwrap();
            f.write_at(BAT + 4, &first).unwrap();
        }),
        ("vhd-block-over-header", Error, |f| f.write_at(BAT + 4, &1u32.to_be_bytes()).unwrap()),
        ("vhd-block-over-footer", Error, |f| {
            let last = (f.len() - BLOCK - 512) / 512;
            f.write_at(BAT + 4, &(last as u32).to_be_bytes()).unwrap();
        }),
        ("vhd-bat-entry-bad", Error, |f| f.write_at(BAT + 4, &0x00ff_0000u32.to_be_bytes()).unwrap()),
        ("vhd-space-leaked", Note, |f| f.write_at(BAT, &[0xff; 4]).unwrap()),
    ];
    assert_eq!(check(&disk().as_disk()).unwrap(), []);
    for (code, severity, broken) in cases {
        let file = disk();
        broken(&file);
        let found = check(&file.as_disk()).unwrap();
        let told = found.iter().find(|defect| defect.code == code);
        assert_eq!(told.map(|defect| defect.severity), Some(severity), "{code}: {found:?}");
        match open_mut(&file, None) {
            Ok(_) => assert!(severity != Error, "{code} is written"),
            Err(e) => {
                assert!(severity == Error, "{code} is refused: {e}");
                assert_eq!(e.kind(), vmrescue_base::ErrorKind::Refused, "{code}: {e}");
            }
        }
        assert_eq!(resize(&file, 2 << 20).is_err(), severity == Error, "{code}");
    }
}

/// Windows writes no time of its parent into a child.
#[test]
fn a_child_without_a_time_of_its_parent_is_nothing_odd() {
    let dir = tempfile::tempdir().unwrap();
    let (parent, child) = (dir.path().join("parent.vhd"), dir.path().join("child.vhd"));
    let host =
        |path: &std::path::Path| DiskMut::new(Arc::new(vmrescue_block::HostFile::create_new(path).unwrap()));
    let spec =
        CreateSpec { kind: Kind::VhdDynamic, size: 1 << 20, block_bytes: None, logical_sector_bytes: 512 };
    create(&host(&parent), &spec).unwrap();
    let info = info(&Disk::new(Arc::new(vmrescue_block::HostFile::open_read(&parent).unwrap()))).unwrap();
    crate::create_child(&host(&child), &info, r".\parent.vhd", r"C:\parent.vhd").unwrap();
    for (time, notes) in [(0u32, 0), (5, 1)] {
        let file = DiskMut::new(Arc::new(vmrescue_block::HostFile::open_write(&child).unwrap()));
        resummed(&file, 512, 1024, 36, |header| header[56..60].copy_from_slice(&time.to_be_bytes()));
        drop(file);
        let opened = crate::open_path(&child, &crate::OpenOptions::default()).unwrap();
        assert_eq!(opened.defects.len(), notes, "{time}: {:?}", opened.defects);
    }
}
