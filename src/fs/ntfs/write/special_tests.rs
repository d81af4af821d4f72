//! Security, reparse points, extended attributes, object ids, holes: written, read by our reader, checked.

use super::*;
use crate::ntfs::{FormatSpec, Volume, format};
use crate::security::{Ace, Acl, Descriptor, Sid};
use crate::{
    Attributes, ExtendedAttribute, FileSystem, FileSystemMut, MetadataChange, NodeId, NodeKind, RawPart,
    Times,
};
use std::sync::Arc;
use vmrescue_base::error::ErrorKind;
use vmrescue_base::guid::Guid;
use vmrescue_base::progress::Silent;
use vmrescue_base::time::FileTime;
use vmrescue_block::{DiskMut, MemoryDevice};

pub(super) fn made(megabytes: usize, cluster_bytes: u32) -> (Arc<MemoryDevice>, VolumeMut) {
    let device = Arc::new(MemoryDevice::zeroed(megabytes << 20));
    let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
    format(&disk, &FormatSpec { cluster_bytes: Some(cluster_bytes), ..FormatSpec::default() }).unwrap();
    (device, VolumeMut::open(disk).unwrap())
}

/// The reading half over what was synced; the volume must be in order.
pub(super) fn read(device: &Arc<MemoryDevice>) -> Volume {
    let disk = || DiskMut::new(Arc::<MemoryDevice>::clone(device));
    assert_eq!(VolumeMut::open(disk()).unwrap().check(&Silent).unwrap(), []);
    Volume::open(disk().as_disk()).unwrap()
}

fn sddl(fs: &dyn FileSystem, node: NodeId) -> String {
    Descriptor::parse(&fs.security(node).unwrap().unwrap()).unwrap().sddl()
}

#[test]
fn security_is_inherited_shared_and_set() {
    let (device, mut volume) = made(24, 4096);
    let root = volume.root();
    let directory = volume.create(root, "a", NodeKind::Directory).unwrap();
    let file = volume.create(directory, "b", NodeKind::File).unwrap();
    let other = volume.create(directory, "c", NodeKind::File).unwrap();
    let inherited = "O:BAG:SYD:AI(A;ID;FA;;;BA)(A;ID;FA;;;SY)(A;ID;0x1301bf;;;AU)(A;ID;0x1200a9;;;BU)";
    assert_eq!(sddl(&volume, file), inherited);
    assert_eq!(sddl(&volume, directory), inherited.replace(";ID;", ";OICIID;"));
    let ids = [file, other].map(|node| volume.metadata(node).unwrap().security_id.unwrap());
    assert_eq!(ids[0], ids[1]);
    // More descriptors than a block of $SDS holds, each a little different.
    let descriptor = |number: u32| {
        let ace = Ace::allow(0, 0x1F_01FF, &Sid::new(5, &[21, 1, 2, 3, number]));
        let owner = Some(Sid::new(5, &[80, number]));
        Descriptor {
            control: 0x8004,
            owner,
            dacl: Some(Acl { revision: 2, aces: vec![ace; 20] }),
            ..Descriptor::default()
        }
    };
    for number in 0..600 {
        let security = Some(descriptor(number).encode());
        volume.set_metadata(other, &MetadataChange { security, ..MetadataChange::default() }).unwrap();
    }
    let highest = volume.metadata(other).unwrap().security_id.unwrap();
    let again = MetadataChange { security: Some(descriptor(5).encode()), ..MetadataChange::default() };
    volume.set_metadata(other, &again).unwrap();
    assert!(volume.metadata(other).unwrap().security_id.unwrap() < highest);
    let copied = MetadataChange { security_from: Some(other), ..MetadataChange::default() };
    volume.set_metadata(file, &copied).unwrap();
    volume.sync().unwrap();
    let volume = read(&device);
    assert_eq!(sddl(&volume, file), descriptor(5).sddl());
    assert_eq!(volume.descriptor_places().unwrap().len(), 2 + 2 + 600);
    let mut volume = VolumeMut::open(DiskMut::new(Arc::<MemoryDevice>::clone(&device))).unwrap();
    assert_eq!(sddl(&volume, file), descriptor(5).sddl());
    let bad = MetadataChange { security: Some(vec![1, 2, 3]), ..MetadataChange::default() };
    assert_eq!(volume.set_metadata(file, &bad).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn both_sets_of_times_are_kept_apart() {
    let (device, mut volume) = made(8, 4096);
    let root = volume.root();
    let file = volume.create(root, "f", NodeKind::File).unwrap();
    let times = |n| Times {
        created: FileTime(n),
        modified: FileTime(n + 1),
        changed: FileTime(n + 2),
        accessed: FileTime(n + 3),
    };
    let change =
        MetadataChange { times: Some(times(100)), name_times: Some(times(200)), ..MetadataChange::default() };
    volume.set_metadata(file, &change).unwrap();
    volume.sync().unwrap();
    let volume = read(&device);
    assert_eq!(volume.metadata(file).unwrap().times, times(100));
    assert_eq!(volume.names(file).unwrap()[0].times, times(200));
    let entry = volume.read_dir(root).unwrap().into_iter().find(|e| e.id == file).unwrap();
    assert_eq!(entry.times, times(100));
}

#[test]
fn reparse_points_are_set_indexed_and_removed() {
    let (device, mut volume) = made(8, 1024);
    let root = volume.root();
    let link = volume.create(root, "link", NodeKind::File).unwrap();
    let junction = volume.create(root, "junction", NodeKind::Directory).unwrap();
    let long = format!(r"C:\{}", "long name ".repeat(100));
    let data = crate::ntfs::symbolic_link(&long, &long, false).unwrap();
    volume.set_reparse(link, Some(&data)).unwrap();
    let mount = crate::ntfs::mount_point(r"\??\C:\Users", r"C:\Users").unwrap();
    volume.set_reparse(junction, Some(&mount)).unwrap();
    assert_eq!(volume.metadata(junction).unwrap().kind, NodeKind::Reparse);
    let full = volume.create(root, "full", NodeKind::Directory).unwrap();
    volume.create(full, "x", NodeKind::File).unwrap();
    assert_eq!(volume.set_reparse(full, Some(&mount)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(volume.set_reparse(link, Some(&data[..9])).unwrap_err().kind(), ErrorKind::Invalid);
    volume.sync().unwrap();
    {
        let volume = read(&device);
        assert_eq!(volume.raw_part(link, RawPart::ReparsePoint).unwrap().unwrap(), data);
        assert_eq!(volume.metadata(link).unwrap().reparse.unwrap().target.as_deref(), Some(&*long));
        assert_eq!(
            volume.metadata(junction).unwrap().reparse.unwrap().target.as_deref(),
            Some(r"\??\C:\Users")
        );
        let kinds: Vec<NodeKind> = volume.read_dir(root).unwrap().iter().map(|e| e.kind).collect();
        assert_eq!(kinds.iter().filter(|k| **k == NodeKind::Reparse).count(), 2);
    }
    // A directory repeats the tag, of a reparse point in clusters as well.
    volume
        .with_core(|core| {
            let tags: Vec<u32> = core
                .list(root.0)?
                .iter()
                .filter_map(|entry| entry::FileName::decode(&entry.key))
                .filter(|name| name.attributes & Attributes::REPARSE_POINT != 0)
                .map(|name| name.reparse)
                .collect();
            assert_eq!(tags, [0xA000_0003, 0xA000_000C]);
            Ok(())
        })
        .unwrap();
    volume.set_reparse(link, None).unwrap();
    volume.remove(root, "junction").unwrap();
    volume.sync().unwrap();
    let volume = read(&device);
    assert_eq!(volume.raw_part(link, RawPart::ReparsePoint).unwrap(), None);
    assert!(!volume.metadata(link).unwrap().attributes.has(Attributes::REPARSE_POINT));
}

#[test]
fn extended_attributes_and_object_ids_come_back() {
    let (device, mut volume) = made(8, 4096);
    let root = volume.root();
    let file = volume.create(root, "f", NodeKind::File).unwrap();
    volume.set_extended_attribute(file, "$LXMOD", Some(&[0xA4, 0x81, 0, 0])).unwrap();
    volume.set_extended_attribute(file, "big", Some(&[9; 5000])).unwrap();
    volume.set_extended_attribute(file, "$lxmod", Some(&[0xFF, 0x81, 0, 0])).unwrap();
    let error = volume.set_extended_attribute(file, "none", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let id = Guid([7; 16]);
    volume.set_object_id(file, Some(id)).unwrap();
    let other = volume.create(root, "g", NodeKind::File).unwrap();
    assert_eq!(volume.set_object_id(other, Some(id)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(volume.object_id(other).unwrap(), None);
    volume.sync().unwrap();
    {
        let volume = read(&device);
        let list = volume.extended_attributes(file).unwrap();
        assert_eq!(
            list.iter().map(|a| (&*a.name, a.value.len())).collect::<Vec<_>>(),
            [("$LXMOD", 4), ("BIG", 5000)]
        );
        assert_eq!(list[0].value[0], 0xFF);
        assert_eq!(volume.object_id(file).unwrap(), Some(id));
    }
    volume.remove(root, "f").unwrap();
    volume.set_object_id(other, Some(id)).unwrap();
    volume.set_extended_attribute(other, "A", Some(&[1])).unwrap();
    volume.set_extended_attribute(other, "A", None).unwrap();
    volume.sync().unwrap();
    let volume = read(&device);
    assert_eq!(volume.extended_attributes(other).unwrap(), []);
    assert_eq!(volume.object_id(other).unwrap(), Some(id));
}

#[test]
fn holes_are_punched_and_filled() {
    for cluster in [512u32, 4096, 65536] {
        let (device, mut volume) = made(24, cluster);
        let root = volume.root();
        let file = volume.create(root, "f", NodeKind::File).unwrap();
        let mut model: Vec<u8> = (0..700_000u32).map(|n| (n / 7) as u8 | 1).collect();
        volume.write(file, "", 0, &model).unwrap();
        let free = volume.free_bytes().unwrap();
        volume.punch(file, "", 100_000..500_001).unwrap();
        model[100_000..500_001].fill(0);
        assert!(volume.free_bytes().unwrap() >= free + 400_000 / 65536 * 65536 - 65536);
        volume.punch(file, "", 650_000..u64::MAX).unwrap();
        model[650_000..].fill(0);
        volume.write(file, "", 300_000, &[5; 1000]).unwrap();
        model[300_000..301_000].fill(5);
        volume.set_len(file, "", 3_000_000).unwrap();
        model.resize(3_000_000, 0);
        volume.write(file, "", 2_900_000, &[6; 10]).unwrap();
        model[2_900_000..2_900_010].fill(6);
        let small = volume.create(root, "small", NodeKind::File).unwrap();
        volume.write(small, "s", 0, &[1; 100]).unwrap();
        volume.punch(small, "s", 10..20).unwrap();
        assert_eq!(volume.punch(small, "none", 0..1).unwrap_err().kind(), ErrorKind::NotFound);
        volume.sync().unwrap();
        let volume = read(&device);
        assert!(crate::read_file(&volume, file, "").unwrap() == model);
        assert_eq!(
            crate::read_file(&volume, small, "s").unwrap()[9..21],
            [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        );
        let info = &volume.streams(file).unwrap()[0];
        assert!(info.sparse && info.allocated_bytes < 700_000, "{info:?}");
        assert!(volume.metadata(file).unwrap().attributes.has(Attributes::SPARSE));
    }
}

#[test]
fn names_differ_by_case_where_the_directory_says_so() {
    let (device, mut volume) = made(8, 4096);
    let root = volume.root();
    let directory = volume.create(root, "linux", NodeKind::Directory).unwrap();
    volume.set_case_sensitive(directory, true).unwrap();
    let mut nodes = Vec::new();
    for name in ["readme", "README", "Readme", "ReadMe.txt"] {
        nodes.push(volume.create(directory, name, NodeKind::File).unwrap());
    }
    for number in 0..300 {
        volume.create(directory, &format!("File {number}"), NodeKind::File).unwrap();
        volume.create(directory, &format!("FILE {number}"), NodeKind::File).unwrap();
    }
    assert_eq!(
        volume.create(directory, "Readme", NodeKind::File).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(volume.lookup(directory, "rEADME").unwrap(), None);
    assert_eq!(volume.set_case_sensitive(directory, false).unwrap_err().kind(), ErrorKind::Invalid);
    volume.remove(directory, "README").unwrap();
    volume.rename(directory, "Readme", directory, "README").unwrap();
    volume.write(nodes[0], "", 0, b"small").unwrap();
    for number in 0..300 {
        volume.remove(directory, &format!("FILE {number}")).unwrap();
    }
    volume.sync().unwrap();
    let volume = read(&device);
    assert!(volume.is_case_sensitive(directory).unwrap());
    assert_eq!(volume.lookup(directory, "README").unwrap(), Some(nodes[2]));
    assert_eq!(volume.lookup(directory, "readme").unwrap(), Some(nodes[0]));
    assert_eq!(volume.lookup(directory, "Readme").unwrap(), None);
    let small = volume.read_dir(directory).unwrap().into_iter().find(|e| e.name == "readme").unwrap();
    assert_eq!(small.size_bytes, 5);
    assert_eq!(volume.read_dir(directory).unwrap().len(), 303);
}

#[test]
fn compressed_files_become_plain_when_they_are_written() {
    let (device, mut volume) = made(24, 4096);
    let root = volume.root();
    let wof = volume.create(root, "wof", NodeKind::File).unwrap();
    let mut model: Vec<u8> = (0..6000u32).map(|n| ((n * 7) >> 3) as u8).collect();
    // Two chunks of XPRESS 4K that are stored as they are, behind the offset of the second.
    let packed = [&4096u32.to_le_bytes()[..], &model].concat();
    volume.write(wof, "WofCompressedData", 0, &packed).unwrap();
    volume.set_len(wof, "", 6000).unwrap();
    let words = [0x8000_0017u32, 16, 1, 2, 1, 0];
    let reparse: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    volume.set_reparse(wof, Some(&reparse)).unwrap();
    let lznt1 = volume.create(root, "lznt1", NodeKind::File).unwrap();
    let mut other: Vec<u8> = (0..262_144u32).map(|n| (n / 3) as u8).collect();
    volume.write(lznt1, "", 0, &other).unwrap();
    volume.sync().unwrap();
    // Units with all of their clusters are stored as they are.
    volume
        .with_core(|core| {
            let mut file = file::File::open(core, lznt1.0)?;
            let place = file.find(attribute::kind::DATA, "").unwrap();
            file.attributes[place].flags = 1;
            file.stream_mut(attribute::kind::DATA, "")?.compression_unit = 4;
            file.set_bits(0, Attributes::COMPRESSED)?;
            core.store_changed(&mut file)
        })
        .unwrap();
    volume.sync().unwrap();
    assert_eq!(crate::read_file(&volume, wof, "").unwrap(), model);
    assert!(volume.streams(lznt1).unwrap()[0].compressed);
    volume.write(wof, "", 5000, &[1; 3000]).unwrap();
    model.resize(8000, 0);
    model[5000..].fill(1);
    volume.write(lznt1, "", 7, &[9; 3]).unwrap();
    other[7..10].fill(9);
    volume.set_len(lznt1, "", 200_000).unwrap();
    other.truncate(200_000);
    volume.sync().unwrap();
    let volume = read(&device);
    assert_eq!(crate::read_file(&volume, wof, "").unwrap(), model);
    assert_eq!(volume.raw_part(wof, RawPart::ReparsePoint).unwrap(), None);
    assert_eq!(volume.streams(wof).unwrap().len(), 1);
    assert!(crate::read_file(&volume, lznt1, "").unwrap() == other);
    assert!(!volume.streams(lznt1).unwrap()[0].compressed);
    assert!(!volume.metadata(lznt1).unwrap().attributes.has(Attributes::COMPRESSED));
}

#[test]
fn whole_lists_births_and_short_names_are_set() {
    let (device, mut volume) = made(8, 4096);
    let root = volume.root();
    let file = volume.create(root, "a name that is long", NodeKind::File).unwrap();
    let one = |name: &str, needed, value: &[u8]| ExtendedAttribute {
        name: name.into(),
        needed,
        value: value.to_vec(),
    };
    let list = [one("A", true, b"1"), one("B", false, &[2; 600])];
    volume.set_extended_attribute(file, "OLD", Some(b"gone")).unwrap();
    volume.set_extended_attributes(file, &list).unwrap();
    let twice = [one("A", false, b"1"), one("a", false, b"2")];
    assert_eq!(volume.set_extended_attributes(file, &twice).unwrap_err().kind(), ErrorKind::Invalid);
    let births = std::array::from_fn(|n| n as u8);
    volume.set_object_id_with_births(file, Guid([9; 16]), &births).unwrap();
    let whole = [&[9; 16][..], &births].concat();
    assert_eq!(volume.raw_part(file, RawPart::ObjectId).unwrap().unwrap(), whole);
    let short = |fs: &dyn FileSystem, node| -> Vec<String> {
        fs.names(node).unwrap().into_iter().filter(|name| name.short).map(|name| name.name).collect()
    };
    volume.set_short_name(file, root, Some("Aname~1.x")).unwrap();
    assert_eq!(short(&volume, file), ["ANAME~1.X"]);
    volume.set_short_name(file, root, Some("OTHER")).unwrap();
    assert_eq!(volume.lookup(root, "other").unwrap(), Some(file));
    assert_eq!(volume.lookup(root, "ANAME~1.X").unwrap(), None);
    let second = volume.create(root, "another name that is long", NodeKind::File).unwrap();
    let refused =
        |volume: &mut VolumeMut, name| volume.set_short_name(second, root, name).unwrap_err().kind();
    assert_eq!(refused(&mut volume, Some("OTHER")), ErrorKind::AlreadyExists);
    assert_eq!(refused(&mut volume, Some("too long for it")), ErrorKind::Invalid);
    assert_eq!(short(&volume, second), [""; 0]);
    volume.sync().unwrap();
    let reader = read(&device);
    assert_eq!(reader.extended_attributes(file).unwrap(), list);
    assert_eq!(reader.raw_part(file, RawPart::ObjectId).unwrap().unwrap(), whole);
    assert_eq!(short(&reader, file), ["OTHER"]);
    volume.set_short_name(file, root, None).unwrap();
    volume.set_extended_attributes(file, &[]).unwrap();
    volume.sync().unwrap();
    let reader = read(&device);
    assert!(short(&reader, file).is_empty() && reader.extended_attributes(file).unwrap().is_empty());
}

#[test]
fn a_stream_grows_by_a_hole() {
    let (device, mut volume) = made(8, 4096);
    let root = volume.root();
    let file = volume.create(root, "f", NodeKind::File).unwrap();
    volume.write(file, "", 0, b"begin").unwrap();
    volume.grow_with_hole(file, "", 300).unwrap();
    assert!(volume.streams(file).unwrap()[0].resident);
    volume.grow_with_hole(file, "", 1 << 33).unwrap();
    volume.write(file, "", (1 << 32) + 100, b"middle").unwrap();
    volume.sync().unwrap();
    let reader = read(&device);
    let metadata = reader.metadata(file).unwrap();
    assert_eq!((metadata.size_bytes, metadata.allocated_bytes), (1 << 33, 8192));
    let mut bytes = [1; 106];
    reader.read(file, "", 1 << 32, &mut bytes).unwrap();
    assert!(bytes[..100] == [0; 100] && &bytes[100..] == b"middle");
    reader.read(file, "", 0, &mut bytes).unwrap();
    assert!(&bytes[..5] == b"begin" && bytes[5..] == [0; 101]);
}
