//! Model test of the NTFS writer: long random sequences of all operations against a model in memory, on small, fragmented and
//! nearly full volumes. After each batch our checker, our reader, the crate `ntfs`, ntfsfix, ntfsinfo and ntfs-3g (mounted
//! read-only) must agree with the model in names, sizes, contents and free clusters.
//!
//! `VMRESCUE_NTFS_SEEDS=FROM..TO` makes the long sweep of it (`scripts/ntfs-sweep.sh`).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of a test: they may fail and tell")]

mod readers;

use readers::verify_with_programs;
use std::collections::BTreeMap;
use std::sync::Arc;
use vmrescue::block::{Disk, DiskMut, MemoryDevice};
use vmrescue::error::ErrorKind;
use vmrescue::fs::ntfs::{FormatSpec, Volume, VolumeMut, format};
use vmrescue::fs::{
    Attributes, FileSystem, FileSystemMut, MetadataChange, NodeId, NodeKind, Order, RawPart, Times, read_file,
};
use vmrescue::guid::Guid;
use vmrescue::progress::Silent;
use vmrescue::time::FileTime;

/// Read-only, hidden: what nothing but `set_metadata` changes. Not system: ntfs-3g shows empty system files as pipes.
const CHOSEN_BITS: u32 = 3;

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.next(2);
        random
    }

    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % below.max(1)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            self.next(2);
            bytes.extend_from_slice(&self.0.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Small most of the time, sometimes many clusters.
    fn length(&mut self, most: u64) -> usize {
        let most = most.max(2);
        let limit = match self.next(10) {
            0..=3 => 600,
            4..=7 => 9000,
            8 => most / 8,
            _ => most,
        };
        self.next(limit.min(most)) as usize
    }

    fn name(&mut self) -> String {
        let number = self.next(150);
        match self.next(6) {
            0 => format!("F{number}.TXT"),
            1 => format!("a name with blanks {number}.Config"),
            2 => format!("größer 日本 {number}"),
            3 => format!("{}{number}", "long".repeat(number as usize % 60)),
            _ => format!("file{number:04}.dat"),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    id: Option<NodeId>,
    directory: bool,
    streams: BTreeMap<String, Vec<u8>>,
    bits: u32,
    security: Option<Vec<u8>>,
    attributes: BTreeMap<String, Vec<u8>>,
    object_id: Option<Guid>,
    reparse: Option<Vec<u8>>,
    /// Known from `set_metadata` until something else changes the file.
    times: Option<Times>,
}

/// What the volume must hold.
#[derive(Debug, Clone, Default)]
struct Model {
    inodes: BTreeMap<u64, Inode>,
    /// Directory and lower-case name, to the name and the file.
    names: BTreeMap<(u64, String), (String, u64)>,
    next: u64,
}

impl Model {
    fn directories(&self) -> Vec<u64> {
        self.inodes.iter().filter(|(_, inode)| inode.directory).map(|(key, _)| *key).collect()
    }

    fn is_below(&self, inode: u64, above: u64) -> bool {
        let mut at = inode;
        loop {
            if at == above {
                return true;
            }
            match self.names.iter().find(|(_, (_, child))| *child == at) {
                Some(((parent, _), _)) => at = *parent,
                None => return false,
            }
        }
    }

    fn links(&self, inode: u64) -> usize {
        self.names.values().filter(|(_, child)| *child == inode).count()
    }

    /// Path, kind, links, bits, times and the streams of every name.
    fn lines(&self) -> BTreeMap<String, (Inode, usize)> {
        let mut out = BTreeMap::new();
        let mut pending = vec![(0, String::new())];
        while let Some((directory, path)) = pending.pop() {
            for (name, child) in
                self.names.range((directory, String::new())..(directory + 1, String::new())).map(|(_, v)| v)
            {
                let full = if path.is_empty() { name.clone() } else { format!("{path}\\{name}") };
                let inode = &self.inodes[child];
                if inode.directory {
                    pending.push((*child, full.clone()));
                }
                out.insert(full, (inode.clone(), self.links(*child)));
            }
        }
        out
    }
}

/// A volume to work on.
#[derive(Debug, Clone, Copy)]
struct Spec {
    megabytes: usize,
    cluster_bytes: u32,
    sector_bytes: u32,
    /// Fill it with single clusters and delete every other one.
    fragmented: bool,
    /// Bytes that are left free in the end.
    keep_free: Option<u64>,
}

struct Stand {
    device: Arc<MemoryDevice>,
    volume: VolumeMut,
    model: Model,
    random: Random,
    refused: usize,
    full: usize,
    /// Names that could not even be removed.
    stuck: usize,
}

impl Stand {
    fn new(spec: Spec, seed: u64) -> Stand {
        let device = Arc::new(MemoryDevice::zeroed(spec.megabytes << 20).with_sectors(spec.sector_bytes));
        let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
        format(&disk, &FormatSpec { cluster_bytes: Some(spec.cluster_bytes), ..FormatSpec::default() })
            .unwrap();
        let volume = VolumeMut::open(disk).unwrap();
        let mut model = Model { next: 1, ..Model::default() };
        let root = Inode { id: Some(volume.root()), directory: true, ..Inode::default() };
        model.inodes.insert(0, root);
        let mut stand =
            Stand { device, volume, model, random: Random::new(seed), refused: 0, full: 0, stuck: 0 };
        if spec.fragmented {
            stand.fragment(spec);
        }
        if let Some(keep) = spec.keep_free {
            let free = stand.volume.free_bytes().unwrap();
            let file = stand.make(0, "ballast", NodeKind::File).unwrap();
            let data = vec![0x5A; free.saturating_sub(keep) as usize];
            stand.volume.write(stand.id(file), "", 0, &data).unwrap();
            stand.model.inodes.get_mut(&file).unwrap().streams.insert(String::new(), data);
        }
        stand
    }

    fn fragment(&mut self, spec: Spec) {
        let directory = self.make(0, "cheese", NodeKind::Directory).unwrap();
        let count = (self.volume.free_bytes().unwrap() / u64::from(spec.cluster_bytes) / 2).min(1500);
        let data = vec![0xC5; spec.cluster_bytes as usize];
        for index in 0..count {
            let Ok(file) = self.make(directory, &format!("hole{index}"), NodeKind::File) else { break };
            if self.volume.write(self.id(file), "", 0, &data).is_ok() {
                self.model.inodes.get_mut(&file).unwrap().streams.insert(String::new(), data.clone());
            }
        }
        for index in (0..count).step_by(2) {
            self.unlink(directory, &format!("hole{index}"));
        }
    }

    fn id(&self, inode: u64) -> NodeId {
        self.model.inodes[&inode].id.unwrap()
    }

    fn make(&mut self, directory: u64, name: &str, kind: NodeKind) -> Result<u64, ErrorKind> {
        let id = self.volume.create(self.id(directory), name, kind).map_err(|e| e.kind())?;
        let inode = self.model.next;
        self.model.next += 1;
        let mut made = Inode { id: Some(id), directory: kind == NodeKind::Directory, ..Inode::default() };
        if !made.directory {
            made.streams.insert(String::new(), Vec::new());
        }
        self.model.inodes.insert(inode, made);
        self.model.names.insert((directory, name.to_lowercase()), (name.to_string(), inode));
        self.touched(directory);
        Ok(inode)
    }

    fn touched(&mut self, inode: u64) {
        if let Some(inode) = self.model.inodes.get_mut(&inode) {
            inode.times = None;
        }
    }

    fn unlink(&mut self, directory: u64, name: &str) {
        let Some((_, inode)) = self.model.names.get(&(directory, name.to_lowercase())).cloned() else {
            return;
        };
        // A key that takes the place of a shorter one in an index may split a block.
        let id = self.id(directory);
        if !self.attempt("remove", |volume| volume.remove(id, name)) {
            self.stuck += 1;
            return;
        }
        self.model.names.remove(&(directory, name.to_lowercase()));
        self.touched(directory);
        self.touched(inode);
        if self.model.links(inode) == 0 {
            self.model.inodes.remove(&inode);
        }
    }

    fn any_directory(&mut self) -> u64 {
        let all = self.model.directories();
        all[self.random.next(all.len() as u64) as usize]
    }

    fn any_name(&mut self) -> Option<((u64, String), (String, u64))> {
        let index = self.random.next(self.model.names.len() as u64) as usize;
        self.model.names.iter().nth(index).map(|(key, value)| (key.clone(), value.clone()))
    }

    fn any_file(&mut self) -> Option<u64> {
        let files: Vec<u64> =
            self.model.inodes.iter().filter(|(_, inode)| !inode.directory).map(|(key, _)| *key).collect();
        (!files.is_empty()).then(|| files[self.random.next(files.len() as u64) as usize])
    }

    /// Bytes of the staged volume, in use only: what free clusters hold is of no meaning.
    fn used_bytes(&mut self) -> Vec<u8> {
        self.volume.sync().unwrap();
        let mut bytes = self.device.to_vec();
        let reader = Volume::open(Disk::new(Arc::<MemoryDevice>::clone(&self.device))).unwrap();
        for range in reader.free_ranges().unwrap() {
            bytes[range.start as usize..range.end as usize].fill(0);
        }
        bytes
    }

    /// Does something that must work unless the volume is full, and then must have changed nothing.
    fn attempt(&mut self, what: &str, act: impl FnOnce(&mut VolumeMut) -> vmrescue::Result<()>) -> bool {
        // Comparing all bytes each time would take most of the test: some are enough.
        let before = (self.random.next(12) == 0).then(|| self.used_bytes());
        match act(&mut self.volume) {
            Ok(()) => true,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::NoSpace, "{what}: {e}");
                self.full += 1;
                if let Some(before) = before {
                    let after = self.used_bytes();
                    let place = before.iter().zip(&after).position(|(a, b)| a != b);
                    let detail = place.map(|at| (at, before[at], after[at]));
                    assert_eq!(detail, None, "{what}: a full volume was changed: {e}");
                }
                false
            }
        }
    }

    fn step(&mut self) {
        let most = self.volume.free_bytes().unwrap().min(1 << 20) * 2;
        match self.random.next(26) {
            0..=3 => {
                let (directory, name) = (self.any_directory(), self.random.name());
                let kind = if self.random.next(5) == 0 { NodeKind::Directory } else { NodeKind::File };
                let known = self.model.names.contains_key(&(directory, name.to_lowercase()));
                match self.make_checked(directory, &name, kind) {
                    Ok(_) => assert!(!known, "{name} was made twice"),
                    Err(ErrorKind::AlreadyExists) => {
                        assert!(known, "{name} is not there");
                        self.refused += 1;
                    }
                    Err(kind) => {
                        assert_eq!(kind, ErrorKind::NoSpace, "{name}");
                        self.full += 1;
                    }
                }
            }
            4..=8 => {
                let Some(file) = self.any_file() else { return };
                let stream = self.any_stream(file);
                let old = self.model.inodes[&file].streams.get(&stream).map_or(0, Vec::len) as u64;
                let offset = match self.random.next(4) {
                    0 => old,
                    1 => self.random.next(old + 1),
                    2 => 0,
                    _ => self.random.next(old + 70_000),
                } as usize;
                let length = self.random.length(most);
                let bytes = self.random.bytes(length);
                let id = self.id(file);
                if self.attempt("write", |volume| volume.write(id, &stream, offset as u64, &bytes)) {
                    let inode = self.model.inodes.get_mut(&file).unwrap();
                    inode.times = None;
                    let data = inode.streams.entry(stream).or_default();
                    if !bytes.is_empty() {
                        data.resize(data.len().max(offset + bytes.len()), 0);
                        data[offset..offset + bytes.len()].copy_from_slice(&bytes);
                    }
                }
            }
            9..=10 => {
                let Some(file) = self.any_file() else { return };
                let stream = self.any_stream(file);
                let old = self.model.inodes[&file].streams.get(&stream).map_or(0, Vec::len) as u64;
                let length = match self.random.next(4) {
                    0 => 0,
                    1 => self.random.next(old + 1),
                    2 => old + self.random.length(most) as u64,
                    _ => self.random.next(2 * old + 100),
                };
                let id = self.id(file);
                if self.attempt("set_len", |volume| volume.set_len(id, &stream, length)) {
                    let inode = self.model.inodes.get_mut(&file).unwrap();
                    inode.times = None;
                    inode.streams.entry(stream).or_default().resize(length as usize, 0);
                }
            }
            11..=13 => {
                let Some(((directory, _), (name, inode))) = self.any_name() else { return };
                let full = self.model.names.keys().any(|(parent, _)| *parent == inode);
                if full {
                    let e = self.volume.remove(self.id(directory), &name).unwrap_err();
                    assert_eq!(e.kind(), ErrorKind::Invalid, "{name}: {e}");
                    self.refused += 1;
                } else {
                    self.unlink(directory, &name.to_uppercase().replace("GRÖSSER", "größer"));
                }
            }
            14..=16 => self.rename(),
            17 => {
                let Some(file) = self.any_file() else { return };
                let (directory, name) = (self.any_directory(), self.random.name());
                if self.model.names.contains_key(&(directory, name.to_lowercase())) {
                    let e = self.volume.link(self.id(file), self.id(directory), &name).unwrap_err();
                    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
                    self.refused += 1;
                    return;
                }
                let (id, at) = (self.id(file), self.id(directory));
                if self.attempt("link", |volume| volume.link(id, at, &name)) {
                    self.model.names.insert((directory, name.to_lowercase()), (name, file));
                    self.touched(file);
                    self.touched(directory);
                }
            }
            18 => {
                let Some(file) = self.any_file() else { return };
                let named = self.model.inodes[&file].streams.keys().find(|name| !name.is_empty()).cloned();
                let Some(stream) = named else { return };
                let id = self.id(file);
                if self.attempt("remove_stream", |volume| volume.remove_stream(id, &stream)) {
                    self.model.inodes.get_mut(&file).unwrap().streams.remove(&stream);
                    self.touched(file);
                }
            }
            19..=20 => self.punch(),
            21 => self.set_security(),
            22 => self.set_extended_attribute(),
            23 => self.set_object_id(),
            24 => self.set_reparse(),
            _ => {
                let Some((_, (_, inode))) = self.any_name() else { return };
                let bits = self.random.next(4) as u32;
                let time = |random: &mut Random| FileTime(132_000_000_000_000_000 + random.next(1 << 50));
                let random = &mut self.random;
                let times = Times {
                    created: time(random),
                    modified: time(random),
                    changed: time(random),
                    accessed: time(random),
                };
                let change = MetadataChange {
                    attributes: Some(Attributes(bits | Attributes::ARCHIVE)),
                    times: Some(times),
                    ..MetadataChange::default()
                };
                let id = self.id(inode);
                if self.attempt("set_metadata", |volume| volume.set_metadata(id, &change)) {
                    let inode = self.model.inodes.get_mut(&inode).unwrap();
                    (inode.bits, inode.times) = (bits, Some(times));
                }
            }
        }
    }

    fn punch(&mut self) {
        let Some(file) = self.any_file() else { return };
        let stream = self.any_stream(file);
        let Some(length) = self.model.inodes[&file].streams.get(&stream).map(Vec::len) else { return };
        let from = self.random.next(length as u64 + 1);
        let to = from + self.random.next(length as u64 - from + 1);
        let id = self.id(file);
        if self.attempt("punch", |volume| volume.punch(id, &stream, from..to)) {
            let inode = self.model.inodes.get_mut(&file).unwrap();
            inode.times = None;
            inode.streams.get_mut(&stream).unwrap()[from as usize..to as usize].fill(0);
        }
    }

    fn set_security(&mut self) {
        let Some((_, (_, inode))) = self.any_name() else { return };
        let security = descriptor(self.random.next(40) as u32, self.random.next(3) as usize + 1);
        let change = MetadataChange { security: Some(security.clone()), ..MetadataChange::default() };
        let id = self.id(inode);
        if self.attempt("security", |volume| volume.set_metadata(id, &change)) {
            self.touched(inode);
            self.model.inodes.get_mut(&inode).unwrap().security = Some(security);
        }
    }

    fn set_extended_attribute(&mut self) {
        let Some((_, (_, inode))) = self.any_name() else { return };
        // A file has either.
        if self.model.inodes[&inode].reparse.is_some() {
            return;
        }
        let name = format!("EA{}", self.random.next(4));
        let known = self.model.inodes[&inode].attributes.contains_key(&name);
        let length = 1 + self.random.length(9000);
        let value = (!known || self.random.next(2) == 0).then(|| self.random.bytes(length));
        let id = self.id(inode);
        if self.attempt("extended attribute", |volume| {
            volume.set_extended_attribute(id, &name, value.as_deref())
        }) {
            self.touched(inode);
            let attributes = &mut self.model.inodes.get_mut(&inode).unwrap().attributes;
            match value {
                Some(value) => drop(attributes.insert(name, value)),
                None => drop(attributes.remove(&name)),
            }
        }
    }

    fn set_object_id(&mut self) {
        let Some((_, (_, inode))) = self.any_name() else { return };
        let object_id = self.model.inodes[&inode].object_id.is_none().then(|| {
            let mut id = [0x77; 16];
            id[..2].copy_from_slice(&(self.random.next(60) as u16).to_be_bytes());
            Guid(id)
        });
        let id = self.id(inode);
        if object_id.is_some() && self.model.inodes.values().any(|other| other.object_id == object_id) {
            let e = self.volume.set_object_id(id, object_id).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
            self.refused += 1;
        } else if self.attempt("object id", |volume| volume.set_object_id(id, object_id)) {
            self.touched(inode);
            self.model.inodes.get_mut(&inode).unwrap().object_id = object_id;
        }
    }

    /// Of a tag that nobody knows, which stands for another name: other tags say that the content may be elsewhere.
    fn set_reparse(&mut self) {
        let Some(file) = self.any_file() else { return };
        let inode = &self.model.inodes[&file];
        if !inode.attributes.is_empty() {
            return;
        }
        let point = inode.reparse.is_none().then(|| {
            let length = self.random.length(12_000).min(12_000);
            let mut point = 0xA000_8000_u32.to_le_bytes().to_vec();
            point.extend_from_slice(&(length as u32).to_le_bytes());
            point.extend(self.random.bytes(length));
            point
        });
        let id = self.id(file);
        if self.attempt("reparse point", |volume| volume.set_reparse(id, point.as_deref())) {
            self.touched(file);
            self.model.inodes.get_mut(&file).unwrap().reparse = point;
        }
    }

    fn make_checked(&mut self, directory: u64, name: &str, kind: NodeKind) -> Result<u64, ErrorKind> {
        let before = (self.random.next(12) == 0).then(|| self.used_bytes());
        let result = self.make(directory, name, kind);
        if let (Err(_), Some(before)) = (&result, before) {
            assert!(self.used_bytes() == before, "a failed create of {name} changed the volume");
        }
        result
    }

    fn any_stream(&mut self, file: u64) -> String {
        let name = match self.random.next(6) {
            0 => "meta",
            1 => "Zone.Identifier",
            _ => return String::new(),
        };
        let inode = &self.model.inodes[&file];
        // The case of the name that is there.
        inode
            .streams
            .keys()
            .find(|known| known.eq_ignore_ascii_case(name))
            .cloned()
            .unwrap_or(name.to_string())
    }

    fn rename(&mut self) {
        let Some(((from, _), (name, inode))) = self.any_name() else { return };
        let to = if self.random.next(2) == 0 { from } else { self.any_directory() };
        let new = if self.random.next(6) == 0 { name.to_uppercase() } else { self.random.name() };
        let new = if new.contains('Ö') { name.clone() } else { new };
        let key = (to, new.to_lowercase());
        let own = (from, name.to_lowercase());
        let (from_id, to_id) = (self.id(from), self.id(to));
        if self.model.inodes[&inode].directory && self.model.is_below(to, inode) {
            let e = self.volume.rename(from_id, &name, to_id, &new).unwrap_err();
            assert!(matches!(e.kind(), ErrorKind::Invalid | ErrorKind::AlreadyExists), "{e}");
            self.refused += 1;
        } else if key != own && self.model.names.contains_key(&key) {
            let e = self.volume.rename(from_id, &name, to_id, &new).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
            self.refused += 1;
        } else if self.attempt("rename", |volume| volume.rename(from_id, &name, to_id, &new)) {
            self.model.names.remove(&own);
            self.model.names.insert(key, (new, inode));
            for touched in [from, to, inode] {
                self.touched(touched);
            }
        }
    }

    /// Our reader and checker against the model; the free bytes.
    fn verify(&mut self, context: &str) -> u64 {
        self.volume.sync().unwrap();
        let defects = self.volume.check(&Silent).unwrap();
        assert!(defects.is_empty(), "{context}: {defects:#?}");
        let reader = Volume::open(Disk::new(Arc::<MemoryDevice>::clone(&self.device))).unwrap();
        let mut wanted = self.model.lines();
        let mut found = Vec::new();
        let defects = reader
            .walk(reader.root(), Order::Tree, &mut |file| {
                if !file.path.starts_with('$') {
                    assert!(!file.orphan, "{context}: {} is an orphan", file.path);
                    found.push((
                        file.path.to_string(),
                        file.id,
                        file.kind,
                        file.links,
                        file.attributes,
                        file.times,
                    ));
                }
                Ok(())
            })
            .unwrap();
        assert!(defects.is_empty(), "{context}: {defects:?}");
        for (path, id, kind, links, attributes, times) in found {
            let Some((inode, names)) = wanted.remove(&path) else {
                panic!("{context}: {path} is not in the model")
            };
            assert_eq!(Some(id), inode.id, "{context}: {path}");
            let wanted = match (inode.directory, &inode.reparse) {
                (true, _) => NodeKind::Directory,
                (_, Some(_)) => NodeKind::Reparse,
                _ => NodeKind::File,
            };
            assert_eq!(kind, wanted, "{context}: {path}");
            self.verify_parts(&reader, id, &inode, &format!("{context}: {path}"));
            assert_eq!(links as usize, names, "{context}: links of {path}");
            assert_eq!(attributes.0 & CHOSEN_BITS, inode.bits, "{context}: attributes of {path}");
            if let Some(wanted) = inode.times {
                assert_eq!(times, wanted, "{context}: times of {path}");
            }
            let components: Vec<&str> = path.split('\\').collect();
            assert_eq!(vmrescue::fs::resolve(&reader, &components).unwrap(), Some(id), "{context}: {path}");
            let streams = reader.streams(id).unwrap();
            assert_eq!(streams.len(), inode.streams.len(), "{context}: streams of {path}");
            for stream in streams {
                let data = read_file(&reader, id, &stream.name).unwrap();
                assert!(inode.streams.get(&stream.name) == Some(&data), "{context}: {path}:{}", stream.name);
            }
        }
        assert!(wanted.is_empty(), "{context}: not on the volume: {:?}", wanted.keys());
        let free = reader.free_bytes().unwrap();
        assert_eq!(free, self.volume.free_bytes().unwrap(), "{context}");
        free
    }

    fn verify_parts(&self, reader: &Volume, id: NodeId, inode: &Inode, context: &str) {
        let part = |part| reader.raw_part(id, part).unwrap();
        if inode.security.is_some() {
            assert!(part(RawPart::SecurityDescriptor) == inode.security, "{context}: security");
        }
        assert!(part(RawPart::ReparsePoint) == inode.reparse, "{context}: reparse point");
        assert_eq!(reader.object_id(id).unwrap(), inode.object_id, "{context}: object id");
        let found: BTreeMap<String, Vec<u8>> =
            reader.extended_attributes(id).unwrap().into_iter().map(|one| (one.name, one.value)).collect();
        assert!(found == inode.attributes, "{context}: extended attributes {:?}", found.keys());
    }
}

/// A security descriptor with `entries` entries, self-relative.
fn descriptor(mask: u32, entries: usize) -> Vec<u8> {
    let administrators = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
    let mut out = vec![1, 0, 4, 0x80];
    let list = 8 + entries * 24;
    for offset in [20 + list, 36 + list, 0, 20] {
        out.extend_from_slice(&(offset as u32).to_le_bytes());
    }
    out.extend_from_slice(&[2, 0, list as u8, 0, entries as u8, 0, 0, 0]);
    for entry in 0..entries as u32 {
        out.extend_from_slice(&[0, 0, 24, 0]);
        out.extend_from_slice(&(0x0012_0089 | (mask << 1) | entry).to_le_bytes());
        out.extend_from_slice(&administrators);
    }
    out.extend_from_slice(&administrators);
    out.extend_from_slice(&administrators);
    out
}

const SPECS: [Spec; 8] = [
    Spec { megabytes: 12, cluster_bytes: 4096, sector_bytes: 512, fragmented: false, keep_free: None },
    Spec { megabytes: 10, cluster_bytes: 512, sector_bytes: 512, fragmented: true, keep_free: None },
    Spec {
        megabytes: 12,
        cluster_bytes: 4096,
        sector_bytes: 512,
        fragmented: true,
        keep_free: Some(600_000),
    },
    Spec { megabytes: 24, cluster_bytes: 65536, sector_bytes: 512, fragmented: false, keep_free: None },
    Spec {
        megabytes: 10,
        cluster_bytes: 1024,
        sector_bytes: 512,
        fragmented: true,
        keep_free: Some(150_000),
    },
    Spec { megabytes: 16, cluster_bytes: 4096, sector_bytes: 4096, fragmented: false, keep_free: None },
    Spec {
        megabytes: 12,
        cluster_bytes: 2048,
        sector_bytes: 512,
        fragmented: false,
        keep_free: Some(40_000),
    },
    Spec {
        megabytes: 16,
        cluster_bytes: 16384,
        sector_bytes: 512,
        fragmented: true,
        keep_free: Some(900_000),
    },
];

fn run_one(spec: Spec, seed: u64, batches: usize, steps: usize, programs_each: bool) {
    let context = format!("seed {seed} {spec:?}");
    let mut stand = Stand::new(spec, seed);
    let mut unread = 0;
    for batch in 0..batches {
        for _ in 0..steps {
            stand.step();
        }
        let context = format!("{context} batch {batch}");
        let free = stand.verify(&context);
        if programs_each || batch + 1 == batches {
            // It counts the blocks of an index in clusters also where these are larger than a block.
            if spec.cluster_bytes <= 4096 {
                unread = stand.verify_with_the_crate(&context);
            }
            verify_with_programs(&stand, free, spec.cluster_bytes, &context);
        }
        // The next batch begins with what is on the disk.
        stand.volume = VolumeMut::open(DiskMut::new(Arc::<MemoryDevice>::clone(&stand.device))).unwrap();
    }
    eprintln!(
        "{context}: {} names, {} refused, {} times full, {} of them removing, {unread} streams not read by the crate",
        stand.model.names.len(),
        stand.refused,
        stand.full,
        stand.stuck
    );
    assert!(stand.model.names.len() > 3, "{context}: nothing left to compare");
}

#[test]
fn random_operations_agree_with_the_model_and_with_others() {
    for (index, spec) in SPECS.iter().enumerate().take(5) {
        run_one(*spec, index as u64 + 1, 3, 120, false);
    }
}

/// `scripts/ntfs-sweep.sh`; without its variable there is nothing to do.
#[test]
fn sweep() {
    let Some(range) = std::env::var("VMRESCUE_NTFS_SEEDS").ok() else { return };
    let (from, to) = range.split_once("..").expect("FROM..TO");
    let mut failed = Vec::new();
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        let spec = SPECS[seed as usize % SPECS.len()];
        let outcome = std::panic::catch_unwind(|| run_one(spec, seed, 6, 300, true));
        if outcome.is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// Many files in one directory: made, found, deleted, and a sound volume at each point.
#[test]
fn a_directory_with_many_files() {
    let count: u64 = std::env::var("VMRESCUE_NTFS_FILES").ok().map_or(5_000, |text| text.parse().unwrap());
    let device = Arc::new(MemoryDevice::zeroed((32 << 20) + (count as usize) * 1400));
    let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
    format(&disk, &FormatSpec::default()).unwrap();
    let mut volume = VolumeMut::open(disk).unwrap();
    let free = volume.free_bytes().unwrap();
    let directory = volume.create(volume.root(), "many", NodeKind::Directory).unwrap();
    // Neither in the order of the index nor in the opposite one.
    let name = |index: u64| format!("file {:08x}", (index * 0x9E37_79B1) & 0xFFFF_FFFF);
    let begun = std::time::Instant::now();
    for index in 0..count {
        volume.create(directory, &name(index), NodeKind::File).unwrap();
    }
    volume.sync().unwrap();
    let made = begun.elapsed();
    let reader = Volume::open(Disk::new(Arc::<MemoryDevice>::clone(&device))).unwrap();
    let node = reader.lookup(reader.root(), "MANY").unwrap().unwrap();
    let begun = std::time::Instant::now();
    let list = reader.read_dir(node).unwrap();
    assert_eq!(list.len() as u64, count);
    assert!(list.windows(2).all(|pair| pair[0].name < pair[1].name), "in order");
    for index in (0..count).step_by(7) {
        assert!(reader.lookup(node, &name(index)).unwrap().is_some());
    }
    assert_eq!(reader.lookup(node, "file 0000000g").unwrap(), None);
    let found = begun.elapsed();
    assert_eq!(volume.check(&Silent).unwrap(), []);
    let begun = std::time::Instant::now();
    for index in 0..count {
        volume.remove(directory, &name(index)).unwrap();
    }
    volume.sync().unwrap();
    let deleted = begun.elapsed();
    eprintln!("{count} files: made in {made:?}, listed and looked up in {found:?}, deleted in {deleted:?}");
    volume.remove(volume.root(), "many").unwrap();
    assert_eq!(volume.check(&Silent).unwrap(), []);
    // Only $MFT and its bitmap keep what they took.
    let kept = free - volume.free_bytes().unwrap();
    assert!(kept <= count * 1200 + (4 << 20), "{kept} bytes are still taken");
}
