use super::*;
use crate::ntfs::{FormatSpec, format};
use crate::{Attributes, FileSystem, FileSystemMut, MetadataChange, NodeId, NodeKind, Times};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use vmrescue_base::error::ErrorKind;
use vmrescue_base::progress::Silent;
use vmrescue_base::time::FileTime;
use vmrescue_block::{DiskMut, MemoryDevice};

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next(256) as u8).collect()
    }
}

fn made(megabytes: usize, cluster_bytes: u32) -> (Arc<MemoryDevice>, VolumeMut) {
    let device = Arc::new(MemoryDevice::zeroed(megabytes << 20));
    let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
    format(&disk, &FormatSpec { cluster_bytes: Some(cluster_bytes), ..FormatSpec::default() }).unwrap();
    let volume = VolumeMut::open(disk).unwrap();
    (device, volume)
}

fn read_all(volume: &VolumeMut, node: NodeId, stream: &str) -> Vec<u8> {
    let size = volume.streams(node).unwrap().iter().find(|s| s.name == stream).unwrap().size_bytes;
    let mut bytes = vec![0xEE; size as usize];
    assert_eq!(volume.read(node, stream, 0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn reopened(device: &Arc<MemoryDevice>) -> VolumeMut {
    let volume = VolumeMut::open(DiskMut::new(Arc::<MemoryDevice>::clone(device))).unwrap();
    assert_eq!(volume.check(&Silent).unwrap(), []);
    volume
}

/// Reads a file of the root by the crate `ntfs`.
fn second_reader(bytes: &mut Cursor<Vec<u8>>, path: &[&str]) -> Option<Vec<u8>> {
    let mut ntfs = ntfs::Ntfs::new(bytes).unwrap();
    ntfs.read_upcase_table(bytes).unwrap();
    let mut file = ntfs.root_directory(bytes).unwrap();
    for name in path {
        let index = file.directory_index(bytes).unwrap();
        let mut finder = index.finder();
        let entry = ntfs::indexes::NtfsFileNameIndex::find(&mut finder, &ntfs, bytes, name)?.unwrap();
        let next = entry.to_file(&ntfs, bytes).unwrap();
        drop(finder);
        file = next;
    }
    let item = file.data(bytes, "")?.unwrap();
    let mut value = item.to_attribute().unwrap().value(bytes).unwrap().attach(bytes);
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut value, &mut out).unwrap();
    Some(out)
}

#[test]
fn random_operations_agree_with_a_model_and_the_second_reader() {
    for (seed, cluster) in [(1, 4096), (2, 512), (3, 65536)] {
        let (device, mut volume) = made(24, cluster);
        let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ seed);
        let root = volume.root();
        let directory = volume.create(root, "a directory with a long name", NodeKind::Directory).unwrap();
        let mut model: BTreeMap<(bool, String), Vec<u8>> = BTreeMap::new();
        for step in 0..600 {
            let below = random.next(2) == 1;
            let at = |below: bool| if below { directory } else { root };
            let name = format!("File {:03} y{}", random.next(90), "x".repeat(random.next(3) as usize * 20));
            let key = (below, name.clone());
            let known = model.contains_key(&key);
            match random.next(8) {
                0..=2 => match volume.create(at(below), &name.to_lowercase(), NodeKind::File) {
                    Ok(_) => assert!(model.insert(key, Vec::new()).is_none()),
                    Err(e) => assert!(known && e.kind() == ErrorKind::AlreadyExists, "{step}: {e}"),
                },
                3 | 4 => {
                    let Some((k, data)) = pick(&mut model, &mut random) else { continue };
                    let node = volume.lookup(at(k.0), &k.1).unwrap().unwrap();
                    let offset = random.next(data.len() as u64 + 3000) as usize;
                    let length = random.next(9000) as usize;
                    let bytes = random.bytes(length);
                    volume.write(node, "", offset as u64, &bytes).unwrap();
                    if length > 0 {
                        data.resize(data.len().max(offset + length), 0);
                        data[offset..offset + length].copy_from_slice(&bytes);
                    }
                }
                5 => {
                    let Some((k, data)) = pick(&mut model, &mut random) else { continue };
                    let node = volume.lookup(at(k.0), &k.1).unwrap().unwrap();
                    let length = random.next(data.len() as u64 * 2 + 100);
                    volume.set_len(node, "", length).unwrap();
                    data.resize(length as usize, 0);
                }
                6 => {
                    let result = volume.remove(at(below), &name);
                    assert_eq!(result.is_ok(), known, "{step} {result:?}");
                    model.remove(&key);
                }
                _ => {
                    let Some((k, _)) = pick(&mut model, &mut random) else { continue };
                    let result = volume.rename(at(k.0), &k.1, at(below), &name);
                    if known && k != key {
                        assert_eq!(result.unwrap_err().kind(), ErrorKind::AlreadyExists);
                    } else {
                        result.unwrap();
                        let data = model.remove(&k).unwrap();
                        model.insert(key, data);
                    }
                }
            }
        }
        volume.sync().unwrap();
        let volume = reopened(&device);
        let mut bytes = Cursor::new(device.to_vec());
        let listed: usize = [root, directory].iter().map(|d| volume.read_dir(*d).unwrap().len()).sum();
        let system = volume.read_dir(root).unwrap().iter().filter(|e| e.name.starts_with('$')).count();
        assert_eq!(listed, model.len() + system + 1);
        for ((below, name), data) in &model {
            let node = volume.lookup(if *below { directory } else { root }, name).unwrap().unwrap();
            assert!(read_all(&volume, node, "") == *data, "{name}");
            // The second reader counts blocks in clusters even where clusters are larger than index blocks.
            if cluster > 4096 {
                continue;
            }
            let mut path = vec!["a directory with a long name", name.as_str()];
            if !below {
                path.remove(0);
            }
            assert!(second_reader(&mut bytes, &path).unwrap() == *data, "{name} by the second reader");
        }
    }
}

fn pick<'a>(
    model: &'a mut BTreeMap<(bool, String), Vec<u8>>,
    random: &mut Random,
) -> Option<((bool, String), &'a mut Vec<u8>)> {
    let at = random.next(model.len() as u64) as usize;
    model.iter_mut().nth(at).map(|(k, v)| (k.clone(), v))
}

#[test]
fn twenty_thousand_files_in_one_directory() {
    let (device, mut volume) = made(64, 4096);
    let directory = volume.create(volume.root(), "many", NodeKind::Directory).unwrap();
    for number in 0..20_000u32 {
        let name = format!("{:08x}.dat", number.wrapping_mul(2_654_435_761));
        volume.create(directory, &name, NodeKind::File).unwrap();
    }
    volume.sync().unwrap();
    let mut volume = reopened(&device);
    assert_eq!(volume.read_dir(directory).unwrap().len(), 20_000);
    let names: Vec<String> = volume.read_dir(directory).unwrap().into_iter().map(|e| e.name).collect();
    assert!(names.is_sorted_by_key(|n| n.to_ascii_uppercase()));
    for name in &names {
        volume.remove(directory, name).unwrap();
    }
    assert!(volume.read_dir(directory).unwrap().is_empty());
    volume.remove(volume.root(), "many").unwrap();
    volume.sync().unwrap();
    reopened(&device);
}

#[test]
fn a_full_volume_says_so_and_changes_nothing() {
    let (device, mut volume) = made(8, 4096);
    let node = volume.create(volume.root(), "big", NodeKind::File).unwrap();
    volume.sync().unwrap();
    let before = device.to_vec();
    let free = volume.free_bytes().unwrap();
    let error = volume.set_len(node, "", free + 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(volume.free_bytes().unwrap(), free);
    volume.sync().unwrap();
    assert!(device.to_vec() == before);
    volume.set_len(node, "", free).unwrap();
    assert_eq!(volume.free_bytes().unwrap(), 0);
    let mut made = 0;
    let error = loop {
        match volume.create(volume.root(), &format!("small file number {made}"), NodeKind::File) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert!(made > 5);
    volume.sync().unwrap();
    let mut volume = reopened(&device);
    volume.remove(volume.root(), "big").unwrap();
    assert!(volume.free_bytes().unwrap() >= free);
}

#[test]
fn fragments_streams_links_and_metadata() {
    let (device, mut volume) = made(24, 512);
    let root = volume.root();
    let a = volume.create(root, "fragmented", NodeKind::File).unwrap();
    let b = volume.create(root, "between", NodeKind::File).unwrap();
    let mut expected = Vec::new();
    for round in 0..900u32 {
        volume.write(a, "", u64::from(round) * 512, &[round as u8; 512]).unwrap();
        expected.extend_from_slice(&[round as u8; 512]);
        volume.write(b, "", u64::from(round) * 512, &[7; 512]).unwrap();
    }
    for number in 0..30 {
        volume.write(a, &format!("stream {number}"), 0, &[number; 300]).unwrap();
    }
    volume.link(a, root, "second name").unwrap();
    let times =
        Times { created: FileTime(1), modified: FileTime(2), changed: FileTime(3), accessed: FileTime(4) };
    let change = MetadataChange {
        attributes: Some(Attributes(Attributes::HIDDEN)),
        times: Some(times),
        name_times: Some(times),
        security_from: Some(root),
        ..MetadataChange::default()
    };
    volume.set_metadata(a, &change).unwrap();
    volume.sync().unwrap();
    let mut volume = reopened(&device);
    assert_eq!(volume.lookup(root, "SECOND NAME").unwrap(), Some(a));
    let metadata = volume.metadata(a).unwrap();
    assert_eq!((metadata.links, metadata.times), (2, times));
    assert!(metadata.attributes.has(Attributes::HIDDEN));
    let listed = volume.read_dir(root).unwrap();
    assert!(
        listed
            .iter()
            .filter(|e| e.id == a)
            .all(|e| e.times == times && e.size_bytes == expected.len() as u64)
    );
    assert!(read_all(&volume, a, "") == expected);
    assert_eq!(read_all(&volume, a, "stream 17"), [17; 300]);
    volume.remove_stream(a, "stream 3").unwrap();
    volume.remove(root, "fragmented").unwrap();
    assert!(read_all(&volume, a, "") == expected);
    volume.remove(root, "second name").unwrap();
    assert!(volume.metadata(a).is_err());
    volume.remove(root, "between").unwrap();
    volume.sync().unwrap();
    reopened(&device);
}

#[test]
fn what_must_not_be_is_refused() {
    let (device, mut volume) = made(8, 4096);
    let root = volume.root();
    let outer = volume.create(root, "outer", NodeKind::Directory).unwrap();
    let inner = volume.create(outer, "inner", NodeKind::Directory).unwrap();
    assert_eq!(volume.rename(root, "outer", inner, "x").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(volume.remove(root, "outer").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(volume.remove(root, "$MFT").unwrap_err().kind(), ErrorKind::Refused);
    for name in ["", "a/b", "a:b", "end.", "end ", "nul\0", "."] {
        assert_eq!(
            volume.create(root, name, NodeKind::File).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{name:?}"
        );
    }
    volume.rename(root, "outer", root, "OUTER").unwrap();
    let hibernation = volume.create(root, "hiberfil.sys", NodeKind::File).unwrap();
    let discard = WriteOptions { discard_hibernation: true, ..WriteOptions::default() };
    // In the record, and in clusters as it always is with Windows.
    for length in [13, 20_000] {
        let mut memory = b"hibr and more".to_vec();
        memory.resize(length, 7);
        volume.write(hibernation, "", 0, &memory).unwrap();
        volume.sync().unwrap();
        let disk = || DiskMut::new(Arc::<MemoryDevice>::clone(&device));
        assert_eq!(VolumeMut::open(disk()).err().map(|e| e.kind()), Some(ErrorKind::Refused));
        VolumeMut::open_with(disk(), discard).unwrap().sync().unwrap();
        volume = VolumeMut::open(disk()).unwrap();
        let mut head = [1; 4];
        volume.read(hibernation, "", 0, &mut head).unwrap();
        assert_eq!(head, [0; 4], "{length}");
    }
}

#[test]
fn mutated_volumes_never_cause_a_panic() {
    let (device, mut volume) = made(4, 4096);
    let root = volume.root();
    for number in 0..40 {
        let node = volume.create(root, &format!("some file {number}"), NodeKind::File).unwrap();
        volume.write(node, "", 0, &vec![1; number * 100]).unwrap();
    }
    volume.sync().unwrap();
    let good = device.to_vec();
    let mut random = Random(77);
    for _ in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..=random.next(6) {
            // The first 128 KiB hold the boot sector, $MFT and the root's index.
            bytes[random.next(128 << 10) as usize] = random.next(256) as u8;
        }
        let disk = DiskMut::new(Arc::new(MemoryDevice::new(bytes)));
        let Ok(mut volume) = VolumeMut::open(disk) else { continue };
        drop(volume.create(root, "new file", NodeKind::File));
        for number in (0..40).step_by(7) {
            let name = format!("some file {number}");
            if let Ok(Some(node)) = volume.lookup(root, &name) {
                drop(volume.write(node, "", 500, &[3; 9000]));
                drop(volume.set_len(node, "", 10));
            }
            drop(volume.rename(root, &name, root, "a new name"));
            drop(volume.remove(root, "a new name"));
        }
        drop(volume.sync());
    }
}

/// Files whose attributes are spread over records, large directories, and the small structures beside them.
#[test]
fn mutated_attribute_lists_and_indexes_never_cause_a_panic() {
    let (device, mut volume) = made(6, 1024);
    let root = volume.root();
    let spread = volume.create(root, "spread", NodeKind::File).unwrap();
    for number in 0..40 {
        volume.write(spread, &format!("a stream with a long name {number}"), 0, &[7; 90]).unwrap();
    }
    let holes = volume.create(root, "holes", NodeKind::File).unwrap();
    volume.write(holes, "", 0, &vec![9; 700 << 10]).unwrap();
    for number in 0..300 {
        volume.punch(holes, "", number * 2048..number * 2048 + 1024).unwrap();
    }
    let many = volume.create(root, "many", NodeKind::Directory).unwrap();
    for number in 0..200 {
        volume.create(many, &format!("some file {number}"), NodeKind::File).unwrap();
    }
    volume.set_extended_attribute(spread, "EA", Some(&[5; 300])).unwrap();
    volume.set_object_id(many, Some(vmrescue_base::guid::Guid([3; 16]))).unwrap();
    volume.sync().unwrap();
    let good = device.to_vec();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0 && good[*at] != 9).collect();
    let mut random = Random(78);
    for _ in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..=random.next(20) {
            bytes[used[random.next(used.len() as u64) as usize]] = random.next(256) as u8;
        }
        let disk = DiskMut::new(Arc::new(MemoryDevice::new(bytes)));
        if let Ok(reader) = crate::ntfs::Volume::open(disk.as_disk()) {
            drop(reader.check(&Silent));
            drop(reader.walk(reader.root(), crate::Order::Tree, &mut |_| Ok(())));
            for node in [spread, holes, many] {
                let streams = reader.streams(node).unwrap_or_default();
                for stream in streams.iter().take(60) {
                    drop(crate::read_file(&reader, node, &stream.name));
                }
                drop(reader.read_dir(node));
                drop(reader.extended_attributes(node));
            }
        }
        let Ok(mut volume) = VolumeMut::open(disk.clone()) else { continue };
        drop(volume.write(spread, "one more", 0, &[1; 2000]));
        drop(volume.remove_stream(spread, "a stream with a long name 7"));
        drop(volume.write(holes, "", 4096, &[2; 9000]));
        drop(volume.set_len(holes, "", 30_000));
        for number in 0..40 {
            drop(volume.create(many, &format!("another file {number}"), NodeKind::File));
            drop(volume.remove(many, &format!("some file {number}")));
        }
        drop(volume.set_object_id(many, None));
        drop(volume.remove(root, "spread"));
        drop(volume.sync());
        drop(crate::ntfs::mend(&disk, WriteOptions::default(), &Silent));
    }
}

#[test]
fn a_record_that_was_never_written_can_be_taken() {
    let (device, volume) = made(8, 4096);
    drop(volume);
    let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
    // $MFT starts at cluster 2; record 27 is the first that files get: the children of $Extend have 24 to 26.
    disk.zero_at(8192 + 27 * 1024..8192 + 28 * 1024).unwrap();
    let mut volume = VolumeMut::open(disk).unwrap();
    let node = volume.create(volume.root(), "first", NodeKind::File).unwrap();
    assert_eq!(node.0 & 0xFFFF_FFFF, 27);
    volume.sync().unwrap();
    reopened(&device);
}
