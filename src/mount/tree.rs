//! A disk as one tree of files, for whichever door: numbers for its nodes, look-up, facts, listing, reading.
//!
//! The number of a node says by itself which volume and which file it is (two bits of kind, 14 of volume, 16 of
//! sequence, 32 of record), so nothing is kept for the files that the other side knows: a walk over a million files takes no
//! memory here, and a number whose record went to another file finds nothing. Streams and places in the registry have
//! no such numbers and are counted in a table until the door forgets them.
//!
//! Missing: names with unpaired surrogates are shown with U+FFFD; two of them that look alike cannot both be reached.

use super::fault::{Answer, Fault, Reason};
use super::link::{self, Target};
use super::registry::{At, Registry, Shown};
use super::slot::{self, Slot};
use super::unlinked::Unlinked;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmrescue_base::error::Result;
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;
use vmrescue_base::text::utf16le_lossy;
use vmrescue_fs::{
    Attributes, DirEntry, FileSystem, FileSystemMut, Metadata, NodeId, NodeKind, RawPart, Reparse, Times,
    read_file,
};
use vmrescue_windows::Machine;

/// Number of the mount point itself.
pub const TOP: u64 = 1;
/// Set in numbers of streams and of places in the registry.
const SPECIAL: u64 = 1 << 63;
/// Name of the registry's directory.
const REGISTRY: &str = ".registry";
/// Files of NTFS itself have smaller record numbers; they are not listed.
const FIRST_USER_RECORD: u64 = 16;
/// Listings that are kept for doors that ask for a directory in parts.
const LISTINGS: usize = 16;

/// Tag of the symbolic links of WSL.
const WSL_LINK: u32 = 0xA000_001D;
/// How the symbolic links of Interix begin.
const INTERIX_LINK: &[u8; 8] = b"IntxLNK\x01";
/// Longest path in one.
const MAX_INTERIX_BYTES: u64 = 8 << 10;
/// Most names of a link that are looked at.
const MAX_NAMES_OF_A_LINK: usize = 16;

/// How named streams are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Streams {
    /// As extended attributes `user.<stream>`.
    Xattr,
    /// As `file:stream`.
    Colon,
    /// Both.
    #[default]
    Both,
    /// Not at all.
    None,
}

impl Streams {
    pub(super) fn by_colon(self) -> bool {
        matches!(self, Streams::Colon | Streams::Both)
    }

    pub(super) fn by_attribute(self) -> bool {
        matches!(self, Streams::Xattr | Streams::Both)
    }
}

/// What a tree shows.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Index of the only volume to show, as the mount itself.
    pub volume: Option<usize>,
    /// Named streams.
    pub streams: Streams,
    /// The registry as files.
    pub registry: Option<Shown>,
    /// Which installation's registry.
    pub windows: Option<usize>,
    /// List the files of NTFS itself.
    pub system_files: bool,
}

/// What a node is to a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file or a stream.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
}

/// What is known of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Bytes taken on the volume.
    pub allocated: u64,
    /// Times.
    pub times: Times,
    /// Names.
    pub links: u32,
    /// DOS attribute READONLY of a file, or a place that cannot be written at all.
    pub read_only: bool,
}

/// A name in a listing.
#[derive(Debug, Clone)]
pub struct Item {
    /// Name.
    pub name: String,
    /// Number; 0 for places that get one only when they are looked up.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The mount point above several volumes.
    Top,
    /// A file or directory.
    Node(usize, NodeId),
    /// A named stream.
    Stream(usize, NodeId, String),
    /// Below `.registry`.
    Registry(At),
}

#[derive(Default)]
struct Specials {
    places: HashMap<u64, (Place, u64)>,
    numbers: HashMap<Place, u64>,
    next: u64,
}

/// See the module's documentation.
pub struct Tree {
    pub(super) slots: Vec<Slot>,
    single: bool,
    pub(super) streams: Streams,
    system_files: bool,
    registry: Option<Registry>,
    specials: Mutex<Specials>,
    listings: Mutex<Vec<(u64, Arc<Vec<Item>>)>>,
    pub(super) unlinked: Unlinked,
    /// Counts changes.
    pub(super) changes: AtomicU64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree {
    /// The tree of a machine. `writer` opens a volume for writing, by its index; `None` leaves it read-only.
    ///
    /// # Errors
    /// Of opening volumes and hives.
    pub fn new(
        machine: &Machine,
        look: &Look,
        mut writer: impl FnMut(usize) -> Result<Option<Box<dyn FileSystemMut>>>,
    ) -> Result<Tree> {
        let names = slot::names(&machine.volumes);
        let mut slots = Vec::new();
        for (index, volume) in machine.volumes.iter().enumerate() {
            if look.volume.is_some_and(|only| only != index) {
                continue;
            }
            let Ok(reader) = machine.file_system(index) else { continue };
            let name = if look.volume.is_some() { String::new() } else { names[index].clone() };
            slots.push(Slot::new(name, volume, reader, writer(index)?));
        }
        let registry =
            look.registry.map(|shown| Registry::new(machine.clone(), look.windows, shown)).transpose()?;
        let tree = Tree {
            slots,
            single: look.volume.is_some(),
            streams: look.streams,
            system_files: look.system_files,
            registry,
            specials: Mutex::default(),
            listings: Mutex::default(),
            unlinked: Unlinked::default(),
            changes: AtomicU64::new(0),
        };
        Ok(tree)
    }

    /// Directory, kind of file system and label of every volume, and whether it can be written.
    pub fn volumes(&self) -> Vec<(String, u32, &'static str, String, bool)> {
        let all = self.slots.iter();
        all.map(|s| (s.name.clone(), s.number, s.info.kind, s.info.label.clone(), s.is_writable())).collect()
    }

    /// True when anything can be written.
    pub fn is_writable(&self) -> bool {
        self.slots.iter().any(Slot::is_writable)
    }

    pub(super) fn number(&self, slot: usize, node: NodeId) -> Answer<u64> {
        let (record, sequence) = (node.0 & 0xFFFF_FFFF_FFFF, node.0 >> 48);
        if record > u64::from(u32::MAX) {
            return Err(Reason::TooLarge.into());
        }
        if self.single && record == self.slots[slot].root.0 & 0xFFFF_FFFF_FFFF {
            return Ok(TOP);
        }
        Ok((slot as u64 + 1) << 48 | sequence << 32 | record)
    }

    pub(super) fn place(&self, number: u64) -> Answer<Place> {
        if number == TOP {
            return Ok(match (self.single, self.slots.first()) {
                (true, Some(slot)) => Place::Node(0, slot.root),
                _ => Place::Top,
            });
        }
        if number & SPECIAL != 0 {
            let specials = lock(&self.specials);
            return specials
                .places
                .get(&number)
                .map(|(place, _)| place.clone())
                .ok_or_else(|| Reason::NotFound.into());
        }
        let slot = ((number >> 48) as usize).checked_sub(1).filter(|slot| *slot < self.slots.len());
        let node = NodeId((number >> 32 & 0xFFFF) << 48 | number & 0xFFFF_FFFF);
        slot.map(|slot| Place::Node(slot, node)).ok_or_else(|| Reason::NotFound.into())
    }

    /// The number of a stream or a place in the registry, counted once more.
    pub(super) fn special(&self, place: Place) -> u64 {
        let mut specials = lock(&self.specials);
        let number = match specials.numbers.get(&place) {
            Some(number) => *number,
            None => {
                specials.next += 1;
                let number = SPECIAL | specials.next;
                specials.numbers.insert(place.clone(), number);
                specials.places.insert(number, (place, 0));
                number
            }
        };
        if let Some((_, count)) = specials.places.get_mut(&number) {
            *count += 1;
        }
        number
    }

    /// The door has forgotten a number that it was given `count` times.
    pub fn forget(&self, number: u64, count: u64) {
        if number & SPECIAL == 0 {
            return;
        }
        let mut specials = lock(&self.specials);
        let Some((place, held)) = specials.places.get_mut(&number) else { return };
        *held = held.saturating_sub(count);
        if *held == 0 {
            let place = place.clone();
            specials.places.remove(&number);
            specials.numbers.remove(&place);
        }
    }

    /// The node behind a name in a directory, in any case, with its facts; and whether the name is spelled as it stands
    /// on the disk (only then may a door keep the answer).
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, damage.
    pub fn lookup(&self, parent: u64, name: &str) -> Answer<(Facts, bool)> {
        match self.place(parent)? {
            Place::Top => {
                if self.registry.is_some() && name == REGISTRY {
                    let number = self.special(Place::Registry(Vec::new()));
                    return Ok((self.facts(number)?, true));
                }
                let found = self.slots.iter().position(|slot| slot.name.eq_ignore_ascii_case(name));
                let slot = found.ok_or(Reason::NotFound)?;
                let number = self.number(slot, self.slots[slot].root)?;
                Ok((self.facts(number)?, self.slots[slot].name == name))
            }
            Place::Node(slot, node) => {
                if self.single && node == self.slots[slot].root && self.registry.is_some() && name == REGISTRY
                {
                    let number = self.special(Place::Registry(Vec::new()));
                    return Ok((self.facts(number)?, true));
                }
                self.lookup_in(slot, node, name)
            }
            Place::Stream(..) => Err(Reason::NotDirectory.into()),
            Place::Registry(mut at) => {
                at.push(name.to_string());
                // Asked before it gets a number, so that wrong names leave nothing behind.
                self.registry()?.facts(&at)?;
                let number = self.special(Place::Registry(at));
                Ok((self.facts(number)?, true))
            }
        }
    }

    fn lookup_in(&self, slot: usize, directory: NodeId, name: &str) -> Answer<(Facts, bool)> {
        if let Some(node) = self.find(slot, directory, name)? {
            let number = self.number(slot, node)?;
            let facts = self.facts(number)?;
            let exact = !self.slots[slot].is_writable() || {
                let names = self.slots[slot].look(|fs| fs.names(node))?;
                names.iter().any(|known| known.directory == directory && known.name == name)
            };
            return Ok((facts, exact));
        }
        let (file, stream) = self.split_stream(name).ok_or(Reason::NotFound)?;
        let node = self.find(slot, directory, file)?.ok_or(Reason::NotFound)?;
        let streams = self.slots[slot].look(|fs| fs.streams(node))?;
        let found = streams
            .into_iter()
            .find(|known| known.name.eq_ignore_ascii_case(stream) && !known.name.is_empty());
        let number = self.special(Place::Stream(slot, node, found.ok_or(Reason::NotFound)?.name));
        // Never kept: the stream goes when its file does, of which the other side knows nothing.
        Ok((self.facts(number)?, false))
    }

    /// `file:stream` taken apart, where streams are reached so.
    pub(super) fn split_stream<'n>(&self, name: &'n str) -> Option<(&'n str, &'n str)> {
        let (file, stream) = name.split_once(':').filter(|_| self.streams.by_colon())?;
        let stream = stream.strip_suffix(":$DATA").unwrap_or(stream);
        (!file.is_empty() && !stream.is_empty() && !stream.contains(':')).then_some((file, stream))
    }

    /// The node with this name in a directory of a volume.
    pub(super) fn find(&self, slot: usize, directory: NodeId, name: &str) -> Answer<Option<NodeId>> {
        if Unlinked::is_hidden(name) {
            return Ok(None);
        }
        let found = self.slots[slot].look(|fs| match fs.lookup(directory, name) {
            // A file was asked for a name in it.
            Err(e) if e.kind() == vmrescue_base::ErrorKind::Invalid => Ok(Err(Reason::NotDirectory)),
            other => other.map(Ok),
        })?;
        let found = found.map_err(Fault::from)?;
        if found.is_none() && name.contains('\u{FFFD}') {
            let all = self.slots[slot].look(|fs| fs.read_dir(directory))?;
            return Ok(all.into_iter().find(|e| e.name_utf16.is_some() && e.name == name).map(|e| e.id));
        }
        Ok(found)
    }

    pub(super) fn registry(&self) -> Answer<&Registry> {
        self.registry.as_ref().ok_or_else(|| Reason::NotFound.into())
    }

    /// What is known of a node.
    ///
    /// # Errors
    /// `NotFound` when it is gone; damage.
    pub fn facts(&self, number: u64) -> Answer<Facts> {
        let directory = |times| Facts {
            number,
            kind: Kind::Directory,
            size: 0,
            allocated: 0,
            times,
            links: 2,
            read_only: true,
        };
        match self.place(number)? {
            Place::Top => Ok(directory(Times::default())),
            Place::Node(slot, node) => {
                let metadata = self.slots[slot].look(|fs| fs.metadata(node))?;
                self.facts_of(slot, number, &metadata)
            }
            Place::Stream(slot, node, stream) => {
                let (metadata, streams) =
                    self.slots[slot].look(|fs| Ok((fs.metadata(node)?, fs.streams(node)?)))?;
                let info = streams.into_iter().find(|info| info.name == stream).ok_or(Reason::NotFound)?;
                Ok(Facts {
                    number,
                    kind: Kind::File,
                    size: info.size_bytes,
                    allocated: info.allocated_bytes,
                    times: metadata.times,
                    links: 1,
                    read_only: metadata.attributes.has(Attributes::READ_ONLY),
                })
            }
            Place::Registry(at) => {
                let facts = self.registry()?.facts(&at)?;
                let at = facts.written;
                let times = Times { created: at, modified: at, changed: at, accessed: at };
                let kind = if facts.directory { Kind::Directory } else { Kind::File };
                Ok(Facts { kind, size: facts.size, links: 1, ..directory(times) })
            }
        }
    }

    pub(super) fn facts_of(&self, slot: usize, number: u64, metadata: &Metadata) -> Answer<Facts> {
        let kind = self.kind_of(slot, metadata);
        let directory = metadata.attributes.has(Attributes::DIRECTORY);
        let size = if kind == Kind::Link {
            self.link_text(slot, metadata)?.len() as u64
        } else {
            metadata.size_bytes
        };
        Ok(Facts {
            number,
            kind,
            size,
            allocated: metadata.allocated_bytes,
            times: metadata.times,
            links: if self.unlinked.holds(number) { 0 } else { metadata.links.max(1) },
            read_only: !directory && metadata.attributes.has(Attributes::READ_ONLY),
        })
    }

    /// The text of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` for nodes that are none; damage.
    pub fn read_link(&self, number: u64) -> Answer<String> {
        let Place::Node(slot, node) = self.place(number)? else { return Err(Reason::Invalid.into()) };
        let metadata = self.slots[slot].look(|fs| fs.metadata(node))?;
        if self.kind_of(slot, &metadata) != Kind::Link {
            return Err(Reason::Invalid.into());
        }
        self.link_text(slot, &metadata)
    }

    /// A reparse point whose target is known is a link, and so are the links of WSL and Interix; others are what they would
    /// be without the tag.
    fn kind_of(&self, slot: usize, metadata: &Metadata) -> Kind {
        let known = |r: &Reparse| r.target.is_some() || r.tag == WSL_LINK;
        match metadata.kind {
            NodeKind::Reparse if metadata.reparse.as_ref().is_some_and(known) => Kind::Link,
            _ if metadata.attributes.has(Attributes::DIRECTORY) => Kind::Directory,
            NodeKind::File
                if metadata.attributes.has(Attributes::SYSTEM) && self.is_interix(slot, metadata) =>
            {
                Kind::Link
            }
            _ => Kind::File,
        }
    }

    /// True for the links that Interix made, and ntfs-3g makes: system files that begin with a mark.
    fn is_interix(&self, slot: usize, metadata: &Metadata) -> bool {
        let mut mark = [0; INTERIX_LINK.len()];
        let length = INTERIX_LINK.len() as u64;
        (length + 2..=length + MAX_INTERIX_BYTES).contains(&metadata.size_bytes)
            && self.slots[slot].look(|fs| fs.read(metadata.id, "", 0, &mut mark)).is_ok()
            && mark == *INTERIX_LINK
    }

    /// Where a link leads, as it stands on the disk.
    pub(super) fn link_target(&self, slot: usize, metadata: &Metadata) -> Answer<Target> {
        let (id, slot) = (metadata.id, &self.slots[slot]);
        match &metadata.reparse {
            Some(Reparse { target: Some(target), .. }) => Ok(link::parse(target)),
            Some(Reparse { tag: WSL_LINK, .. }) => {
                // Behind the header a version, then the path.
                let bytes = slot.look(|fs| fs.raw_part(id, RawPart::ReparsePoint))?.unwrap_or_default();
                let path = bytes.get(12..).ok_or(Reason::Invalid)?;
                Ok(link::parse_unix(&String::from_utf8_lossy(path)))
            }
            _ => {
                let bytes = slot.look(|fs| read_file(fs, id, ""))?;
                let path = bytes.strip_prefix(INTERIX_LINK).ok_or(Reason::Invalid)?;
                Ok(link::parse_unix(&utf16le_lossy(path)))
            }
        }
    }

    fn link_text(&self, slot: usize, metadata: &Metadata) -> Answer<String> {
        let target = self.link_target(slot, metadata)?;
        let own = self.base_of(slot);
        let inside = self.slots[slot].look(|fs| directories_above(fs, metadata.id))?;
        if let Target::Here(names) = &target
            && !names.is_empty()
            && link::climbs_first(names, own.len() + inside.len())
        {
            return Ok(names.join("/"));
        }
        let base = |volume: &str| self.volume_base(volume);
        Ok(link::relative(&own, &inside, &target, base))
    }

    /// Directories from the mount point to a volume.
    pub(super) fn base_of(&self, slot: usize) -> Vec<String> {
        if self.single { Vec::new() } else { vec![self.slots[slot].name.clone()] }
    }

    /// The same for a volume as links name it: `C:` or `Volume{...}`.
    fn volume_base(&self, volume: &str) -> Option<Vec<String>> {
        let letter = volume.strip_suffix(':').and_then(|l| l.chars().next().filter(|_| l.len() == 1));
        let guid = volume.strip_prefix("Volume{").and_then(|g| g.strip_suffix('}'));
        let guid: Option<vmrescue_base::guid::Guid> = guid.and_then(|guid| guid.parse().ok());
        let is = |slot: &Slot| {
            letter.is_some_and(|l| slot.letter.is_some_and(|own| own.eq_ignore_ascii_case(&l)))
                || guid.is_some() && slot.guid == guid
        };
        self.slots.iter().position(is).map(|slot| self.base_of(slot))
    }

    /// The names in a directory, in its own order, without `.` and `..`.
    ///
    /// # Errors
    /// `NotDirectory`, damage.
    pub fn list(&self, number: u64) -> Answer<Vec<Item>> {
        match self.place(number)? {
            Place::Top => {
                let mut all = Vec::new();
                for (index, slot) in self.slots.iter().enumerate() {
                    let number = self.number(index, slot.root)?;
                    all.push(Item { name: slot.name.clone(), number, kind: Kind::Directory });
                }
                self.add_registry(&mut all);
                Ok(all)
            }
            Place::Node(slot, node) => {
                self.slots[slot].listed();
                let entries = self.slots[slot].look(|fs| match fs.read_dir(node) {
                    Err(e) if e.kind() == vmrescue_base::ErrorKind::Invalid => Ok(None),
                    other => other.map(Some),
                })?;
                let mut all = Vec::new();
                for entry in entries.ok_or(Reason::NotDirectory)? {
                    if let Some(item) = self.item(slot, entry)? {
                        all.push(item);
                    }
                }
                if self.single && node == self.slots[slot].root {
                    self.add_registry(&mut all);
                }
                Ok(all)
            }
            Place::Stream(..) => Err(Reason::NotDirectory.into()),
            Place::Registry(at) => {
                let names = self.registry()?.list(&at)?;
                let kind = |directory| if directory { Kind::Directory } else { Kind::File };
                Ok(names.into_iter().map(|(name, d)| Item { name, number: 0, kind: kind(d) }).collect())
            }
        }
    }

    fn add_registry(&self, all: &mut Vec<Item>) {
        if self.registry.is_some() {
            all.push(Item { name: REGISTRY.into(), number: 0, kind: Kind::Directory });
        }
    }

    fn item(&self, slot: usize, entry: DirEntry) -> Answer<Option<Item>> {
        let ntfs = self.slots[slot].info.kind == "ntfs";
        let own = ntfs && entry.id.0 & 0xFFFF_FFFF_FFFF < FIRST_USER_RECORD;
        // A name that no path can hold would make the whole directory unreadable.
        let unreal = entry.name.is_empty()
            || entry.name == "."
            || entry.name == ".."
            || entry.name.contains(['/', '\0']);
        if own && !self.system_files || unreal || Unlinked::is_hidden(&entry.name) {
            return Ok(None);
        }
        let kind = match entry.kind {
            NodeKind::Directory => Kind::Directory,
            NodeKind::File if !entry.attributes.has(Attributes::SYSTEM) => Kind::File,
            // What kind of reparse point it is says the file only, and whether it is a link of Interix.
            NodeKind::File | NodeKind::Reparse => match self.slots[slot].look(|fs| fs.metadata(entry.id)) {
                Ok(metadata) => self.kind_of(slot, &metadata),
                Err(_) => Kind::File,
            },
        };
        Ok(Some(Item { number: self.number(slot, entry.id)?, name: entry.name, kind }))
    }

    /// As [`Tree::list`], from a small cache: for doors without open directories. Only for trees that do not change.
    ///
    /// # Errors
    /// As [`Tree::list`].
    pub fn listed(&self, number: u64) -> Answer<Arc<Vec<Item>>> {
        let mut listings = lock(&self.listings);
        if let Some(place) = listings.iter().position(|(known, _)| *known == number) {
            let found = listings.remove(place);
            let list = Arc::clone(&found.1);
            listings.push(found);
            return Ok(list);
        }
        drop(listings);
        let list = Arc::new(self.list(number)?);
        let mut listings = lock(&self.listings);
        if listings.len() >= LISTINGS {
            listings.remove(0);
        }
        listings.push((number, Arc::clone(&list)));
        Ok(list)
    }

    /// Reads from a file, stream or value. Returns how many bytes there were.
    ///
    /// # Errors
    /// `IsDirectory`; damage.
    pub fn read(&self, number: u64, offset: u64, buf: &mut [u8]) -> Answer<usize> {
        match self.place(number)? {
            Place::Top => Err(Reason::IsDirectory.into()),
            Place::Node(slot, node) => Ok(self.slots[slot].look(|fs| fs.read(node, "", offset, buf))?),
            Place::Stream(slot, node, stream) => {
                Ok(self.slots[slot].look(|fs| fs.read(node, &stream, offset, buf))?)
            }
            Place::Registry(at) => {
                let bytes = self.registry()?.read(&at)?;
                let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
                let count = rest.len().min(buf.len());
                buf[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
        }
    }

    /// Bytes of the volume of a node (of all volumes at the top), free bytes, bytes of a cluster.
    ///
    /// # Errors
    /// Of the allocation map.
    pub fn space(&self, number: u64) -> Answer<(u64, u64, u32)> {
        let of = |slot: &Slot| -> Answer<(u64, u64, u32)> {
            let free = slot.look(|fs| fs.free_bytes())?;
            Ok((slot.info.size_bytes, free, slot.info.cluster_bytes.max(512)))
        };
        match self.place(number)? {
            Place::Node(slot, _) | Place::Stream(slot, ..) => of(&self.slots[slot]),
            Place::Top | Place::Registry(_) => {
                let mut sum = (0, 0, 4096);
                for slot in &self.slots {
                    let (size, free, _) = of(slot)?;
                    sum = (sum.0 + size, sum.1 + free, 4096);
                }
                Ok(sum)
            }
        }
    }

    /// How many changes were made since the beginning.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

/// Names of the directories from the root to the one that a node is in: of a link with several names the nearest to the
/// root, so that what is shown climbs out from none of them.
fn directories_above(fs: &dyn FileSystem, node: NodeId) -> Result<Vec<String>> {
    let names = fs.names(node)?;
    if names.len() > 2 * MAX_NAMES_OF_A_LINK {
        return Ok(Vec::new());
    }
    // A name that is short and long at once is one of them; a separate short one is in the same directory as its long one.
    let mut all = Vec::new();
    for name in names {
        all.push(path_of(fs, name.directory)?);
    }
    Ok(all.into_iter().min_by_key(Vec::len).unwrap_or_default())
}

/// Names of the directories from below the root down to this one.
fn path_of(fs: &dyn FileSystem, directory: NodeId) -> Result<Vec<String>> {
    let (mut names, mut at) = (Vec::new(), directory);
    let root = fs.root();
    for _ in 0..MAX_DIRECTORY_DEPTH {
        if at.0 & 0xFFFF_FFFF_FFFF == root.0 & 0xFFFF_FFFF_FFFF {
            names.reverse();
            return Ok(names);
        }
        // A directory that nothing leads to counts as the root: nothing may climb out of it.
        let Some(name) = fs.names(at)?.into_iter().min_by_key(|name| name.short) else {
            return Ok(Vec::new());
        };
        names.push(name.name);
        at = name.directory;
    }
    Ok(Vec::new())
}
