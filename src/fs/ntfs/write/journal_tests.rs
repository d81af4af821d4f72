//! The change journal, short names, and full volumes.

use super::special_tests::{made, read};
use super::*;
use crate::ntfs::usn::{Record, reason};
use crate::security::{Ace, Acl, Descriptor, Sid};
use crate::{Attributes, FileSystem, FileSystemMut, MetadataChange, NodeId, NodeKind, read_file};
use std::sync::Arc;
use vmrescue_base::error::{ErrorKind, Result};
use vmrescue_base::guid::Guid;
use vmrescue_block::{DiskMut, MemoryDevice};

fn records(device: &Arc<MemoryDevice>) -> Vec<Record> {
    let mut list = Vec::new();
    read(device)
        .usn_records(&mut |record| {
            list.push(record);
            Ok(())
        })
        .unwrap();
    list
}

#[test]
fn changes_are_noted_in_the_journal() {
    let (device, mut volume) = made(24, 4096);
    let root = volume.root();
    let before = volume.create(root, "before", NodeKind::File).unwrap();
    volume.make_usn_journal(1 << 20, 1 << 16).unwrap();
    assert_eq!(volume.make_usn_journal(1, 1).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let file = volume.create(root, "file", NodeKind::File).unwrap();
    volume.write(file, "", 0, &[1; 100]).unwrap();
    volume.write(file, "", 100, &[1; 5000]).unwrap();
    volume.write(file, "", 50, &[2; 10]).unwrap();
    volume.write(file, "s", 0, &[3; 10]).unwrap();
    volume.set_len(file, "", 60).unwrap();
    volume.rename(root, "file", root, "renamed").unwrap();
    volume.link(file, root, "link").unwrap();
    volume.remove(root, "renamed").unwrap();
    volume.remove(root, "link").unwrap();
    let change =
        MetadataChange { attributes: Some(Attributes(1)), security_from: Some(root), ..Default::default() };
    volume.set_metadata(before, &change).unwrap();
    volume.sync().unwrap();
    use reason::*;
    let found: Vec<(String, u32)> = records(&device).iter().map(|r| (r.name(), r.reason)).collect();
    let expected = [
        ("file", FILE_CREATE | CLOSE),
        ("file", DATA_EXTEND | CLOSE),
        ("file", DATA_OVERWRITE | CLOSE),
        ("file", NAMED_DATA_EXTEND | STREAM_CHANGE | CLOSE),
        ("file", DATA_TRUNCATION | CLOSE),
        ("file", RENAME_OLD_NAME),
        ("renamed", RENAME_NEW_NAME | CLOSE),
        ("link", HARD_LINK_CHANGE | CLOSE),
        ("renamed", HARD_LINK_CHANGE | CLOSE),
        ("link", FILE_DELETE | CLOSE),
        ("before", BASIC_INFO_CHANGE | SECURITY_CHANGE | CLOSE),
    ];
    assert_eq!(found, expected.map(|(name, reason)| (name.to_string(), reason)));
    let last = records(&device).pop().unwrap();
    assert_eq!((last.file, last.parent, last.attributes), (before, root, 0x01));
}

#[test]
fn a_journal_turns_pages_and_drops_its_beginning() {
    for cluster in [512, 4096, 65536] {
        let (device, mut volume) = made(24, cluster);
        let root = volume.root();
        volume.make_usn_journal(1 << 18, 1 << 16).unwrap();
        let mut count = 0;
        for round in 0..40u32 {
            for number in 0..100 {
                let name = format!("{round} {number} {}", "long ".repeat(number % 30));
                volume.create(root, name.trim_end(), NodeKind::File).unwrap();
                volume.remove(root, name.trim_end()).unwrap();
                count += 2;
            }
            volume.sync().unwrap();
        }
        let list = records(&device);
        let last = list.last().unwrap().clone();
        assert!(list.len() < count && last.usn > 1 << 18, "{} {}", list.len(), last.usn);
        assert!(last.usn - list[0].usn <= (1 << 18) + (3 << 16), "{} {}", list[0].usn, last.usn);
        let volume = read(&device);
        let extend = volume.lookup(root, "$Extend").unwrap().unwrap();
        let journal = volume.lookup(extend, "$UsnJrnl").unwrap().unwrap();
        let stream = volume.streams(journal).unwrap().into_iter().find(|s| s.name == "$J").unwrap();
        assert!(stream.sparse && stream.allocated_bytes <= (1 << 18) + (3 << 16), "{stream:?}");
        assert_eq!(stream.size_bytes, last.usn + last.encode().len() as u64);
        // Each record is where its number says and on one page.
        for record in &list {
            let bytes = record.encode();
            let mut there = vec![0; bytes.len()];
            volume.read(journal, "$J", record.usn, &mut there).unwrap();
            assert!(there == bytes);
            assert_eq!(record.usn / 4096, (record.usn + bytes.len() as u64 - 1) / 4096);
        }
    }
}

fn with_short_names(megabytes: usize) -> (Arc<MemoryDevice>, VolumeMut) {
    let (device, volume) = made(megabytes, 4096);
    drop(volume);
    let options = WriteOptions { short_names: Some(true), ..WriteOptions::default() };
    let volume = VolumeMut::open_with(DiskMut::new(Arc::<MemoryDevice>::clone(&device)), options).unwrap();
    (device, volume)
}

#[test]
fn long_names_get_short_ones_where_the_volume_makes_them() {
    let (device, mut volume) = with_short_names(16);
    let root = volume.root();
    let directory = volume.create(root, "Program Files", NodeKind::Directory).unwrap();
    for number in 0..12 {
        volume.create(directory, &format!("A long name {number}.html"), NodeKind::File).unwrap();
    }
    volume.create(directory, "short.txt", NodeKind::File).unwrap();
    volume.sync().unwrap();
    let short = |volume: &dyn FileSystem, name: &str| {
        let list = volume.read_dir(directory).unwrap();
        list.into_iter().find(|e| e.name == name).unwrap().short_name
    };
    {
        let volume = read(&device);
        assert_eq!(volume.lookup(root, "progra~1").unwrap(), Some(directory));
        assert_eq!(short(&volume, "A long name 0.html").as_deref(), Some("ALONGN~1.HTM"));
        assert_eq!(short(&volume, "A long name 3.html").as_deref(), Some("ALONGN~4.HTM"));
        let fifth = short(&volume, "A long name 4.html").unwrap();
        assert!(fifth.starts_with("AL") && fifth.ends_with("~1.HTM"), "{fifth}");
        assert_eq!(short(&volume, "short.txt"), None);
        let names = volume.names(volume.lookup(directory, "A long name 1.html").unwrap().unwrap()).unwrap();
        assert_eq!(names.iter().filter(|n| n.short).count(), 1);
    }
    // The evidence in the volume is enough from now on.
    let mut volume = VolumeMut::open(DiskMut::new(Arc::<MemoryDevice>::clone(&device))).unwrap();
    let file = volume.lookup(directory, "ALONGN~2.HTM").unwrap().unwrap();
    volume.rename(directory, "ALONGN~2.HTM", root, "Another long name").unwrap();
    assert_eq!(volume.lookup(directory, "alongn~2.htm").unwrap(), None);
    assert_eq!(volume.lookup(root, "ANOTHE~1").unwrap(), Some(file));
    let below = volume.create(directory, "below", NodeKind::Directory).unwrap();
    volume.create(below, "a name that is long", NodeKind::File).unwrap();
    assert!(volume.lookup(below, "ANAMET~1").unwrap().is_some());
    volume.link(file, below, "a second name of it").unwrap();
    assert_eq!(volume.lookup(below, "ASECON~1").unwrap(), None);
    assert_eq!(volume.metadata(file).unwrap().links, 2);
    volume.remove(root, "Another long name").unwrap();
    assert_eq!(volume.lookup(root, "ANOTHE~1").unwrap(), None);
    volume.rename(below, "a second name of it", below, "shorter.txt").unwrap();
    volume.rename(directory, "A long name 0.html", directory, "ALONGN~1.HTM").unwrap();
    volume.sync().unwrap();
    let volume = read(&device);
    assert_eq!(volume.metadata(file).unwrap().links, 1);
    assert_eq!(short(&volume, "ALONGN~1.HTM"), None);
    // A volume without any is left without.
    let (device, mut volume) = made(8, 4096);
    volume.create(root, "a long name and no short one", NodeKind::File).unwrap();
    volume.sync().unwrap();
    assert!(read(&device).read_dir(root).unwrap().iter().all(|e| e.short_name.is_none()));
}

/// What is done on volumes that are full, or become so at any allocation: each step on what the one before has left.
#[allow(clippy::type_complexity, reason = "a list of steps")]
fn steps() -> Vec<(&'static str, Box<dyn Fn(&mut VolumeMut, NodeId) -> Result<()>>)> {
    fn find(volume: &VolumeMut, at: NodeId, name: &str) -> Result<NodeId> {
        volume
            .lookup(at, name)?
            .ok_or_else(|| vmrescue_base::Error::no_space(vmrescue_base::Layer::Ntfs, "an earlier step"))
    }
    fn descriptor(number: u32) -> Option<Vec<u8>> {
        let ace = Ace::allow(0, 1, &Sid::new(5, &[21, number]));
        let dacl = Some(Acl { revision: 2, aces: vec![ace; 60] });
        Some(Descriptor { control: 0x8004, dacl, ..Descriptor::default() }.encode())
    }
    vec![
        ("create", Box::new(|v, d| v.create(d, "file", NodeKind::File).map(drop))),
        ("directory", Box::new(|v, d| v.create(d, "a directory", NodeKind::Directory).map(drop))),
        ("write", Box::new(|v, d| v.write(find(v, d, "file")?, "", 0, &[1; 30_000]))),
        ("overwrite and grow", Box::new(|v, d| v.write(find(v, d, "file")?, "", 10_000, &[2; 90_000]))),
        ("long name", Box::new(|v, d| v.create(d, &"x".repeat(200), NodeKind::File).map(drop))),
        ("rename", Box::new(|v, d| v.rename(d, "file", d, &format!("file{}", "y".repeat(200))))),
        ("rename back", Box::new(|v, d| v.rename(d, &format!("file{}", "y".repeat(200)), d, "file"))),
        ("stream", Box::new(|v, d| v.write(find(v, d, "file")?, "a stream", 0, &[3; 700]))),
        ("list", Box::new(|v, d| v.write(find(v, d, "file")?, "another", 0, &[4; 600]))),
        ("punch", Box::new(|v, d| v.punch(find(v, d, "file")?, "", 20_001..60_001))),
        ("fill", Box::new(|v, d| v.write(find(v, d, "file")?, "", 30_000, &[5; 10]))),
        (
            "security",
            Box::new(|v, d| {
                let change = MetadataChange { security: descriptor(7), ..MetadataChange::default() };
                v.set_metadata(find(v, d, "file")?, &change)
            }),
        ),
        (
            "reparse",
            Box::new(|v, d| {
                let long = "t".repeat(2000);
                let data = crate::ntfs::symbolic_link(&long, &long, false)?;
                v.set_reparse(find(v, d, "a directory")?, Some(&data))
            }),
        ),
        ("attribute", Box::new(|v, d| v.set_extended_attribute(find(v, d, "file")?, "E", Some(&[6; 3000])))),
        ("object id", Box::new(|v, d| v.set_object_id(find(v, d, "file")?, Some(Guid([1; 16]))))),
        ("link", Box::new(|v, d| v.link(find(v, d, "file")?, d, &format!("link{}", "z".repeat(180))))),
        ("cut", Box::new(|v, d| v.set_len(find(v, d, "file")?, "", 5))),
        ("remove", Box::new(|v, d| v.remove(d, "file"))),
    ]
}

/// All bytes of the volume but those of free clusters.
fn image(device: &MemoryDevice, volume: &VolumeMut) -> Vec<u8> {
    let mut bytes = device.to_vec();
    for range in volume.free_ranges().unwrap() {
        bytes[range.start as usize..range.end as usize].fill(0);
    }
    bytes
}

#[test]
fn a_step_that_fails_at_any_allocation_changes_nothing() {
    for cluster in [512, 4096] {
        let (device, volume) = made(4, cluster);
        drop(volume);
        let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
        let options = WriteOptions { short_names: Some(true), ..WriteOptions::default() };
        let mut volume = VolumeMut::open_with(disk, options).unwrap();
        volume.make_usn_journal(1 << 16, 1 << 14).unwrap();
        let directory = volume.create(volume.root(), "d", NodeKind::Directory).unwrap();
        for number in 0..70 {
            volume.create(directory, &format!("a file among many others {number}"), NodeKind::File).unwrap();
        }
        volume.sync().unwrap();
        let mut failed = 0;
        for (name, step) in steps() {
            let mut allowed = 0;
            loop {
                let before = image(&device, &volume);
                volume.allow_allocations(Some(allowed));
                let result = step(&mut volume, directory);
                volume.allow_allocations(None);
                volume.sync().unwrap();
                let Err(error) = result else { break };
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{name}: {error}");
                assert!(image(&device, &volume) == before, "{name} at allocation {allowed}");
                allowed += 1;
                failed += 1;
                assert!(allowed < 100, "{name} never ends");
            }
        }
        assert!(failed >= 12, "{failed}");
        read(&device);
    }
}

#[test]
fn volumes_of_many_sizes_fill_up_in_order() {
    for left in (0..40).chain([60, 100]) {
        let (device, mut volume) = made(4, 1024);
        volume.make_usn_journal(1 << 16, 1 << 14).unwrap();
        let root = volume.root();
        let filler = volume.create(root, "filler", NodeKind::File).unwrap();
        let free = volume.free_bytes().unwrap();
        volume.set_len(filler, "", free - left * 1024).unwrap();
        for (name, step) in steps() {
            match step(&mut volume, root) {
                Ok(()) => {}
                // A rename back of what was not renamed is not found.
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::NotFound),
                    "{left} {name}: {error}"
                ),
            }
        }
        volume.sync().unwrap();
        drop(read(&device));
        volume.remove(root, "filler").unwrap();
        volume.sync().unwrap();
        let volume = read(&device);
        for entry in volume.read_dir(root).unwrap() {
            for stream in volume.streams(entry.id).unwrap().iter().filter(|_| !entry.name.starts_with('$')) {
                read_file(&volume, entry.id, &stream.name).unwrap();
            }
        }
    }
}
