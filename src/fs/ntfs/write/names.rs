//! Operations on names: create, link, rename, remove; and what a directory repeats of its files.

use super::attribute::{Attribute, Body, kind, put_all};
use super::core::{Core, damaged};
use super::entry::{Entry, FileName, NAME_DIRECTORY, namespace};
use super::file::{File, RECORD_MASK};
use super::record::{DIRECTORY, EXTEND};
use super::tree::{Collation, Tree};
use crate::bytes::{u32_at, u64_at};
use crate::error::{Error, ErrorKind, Layer, Result};
use crate::fs::{Attributes, MetadataChange, Times};
use crate::limits::MAX_DIRECTORY_DEPTH;
use crate::time::FileTime;

/// The index of directories.
pub(crate) const I30: &str = "$I30";
/// Record of the root directory.
pub(crate) const ROOT: u64 = 5;
/// Record of $Extend.
const EXTEND_RECORD: u64 = 11;
/// Records that belong to the file system.
const SYSTEM_RECORDS: u64 = 16;
/// Most names of a file.
const MAX_LINKS: u16 = 1023;
/// Attribute bits that a user may set: read-only, hidden, system, archive, temporary, offline, not indexed.
const USER_BITS: u32 = 0x3127;
const KIND_OBJECT_ID: u32 = 0x40;

/// A name as it may be given to a new file ([MS-FSCC] 2.1.5.2): what Windows can open again.
fn check_name(name: &str) -> Result<Vec<u16>> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let bad_character = |c: char| c < ' ' || "\\/:*?\"<>|".contains(c);
    if units.is_empty() || units.len() > 255 || name.chars().any(bad_character) || name.ends_with([' ', '.'])
    {
        return Err(Error::invalid(Layer::Ntfs, format!("{name:?} cannot be a file name on Windows")));
    }
    Ok(units)
}

/// True for a name that is its own 8.3 name.
fn is_short(name: &str) -> bool {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let legal =
        |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "$%'-_@~`!(){}^#&".contains(c));
    (1..=8).contains(&base.len())
        && extension.len() <= 3
        && (!name.contains('.') || !extension.is_empty())
        && legal(base)
        && legal(extension)
}

/// A key to look a name up with.
fn key_of(name: &[u16]) -> Vec<u8> {
    let key = FileName {
        parent: 0,
        times: Times::default(),
        allocated_bytes: 0,
        size_bytes: 0,
        attributes: 0,
        reparse: 0,
        namespace: 0,
        name: name.to_vec(),
    };
    key.encode()
}

fn is_system(file: &File) -> bool {
    file.header.number < SYSTEM_RECORDS || file.header.flags & EXTEND != 0
}

fn refuse_system(file: &File) -> Result<()> {
    if is_system(file) {
        return Err(Error::refused(Layer::Ntfs, "a file of the file system itself is not changed this way"));
    }
    Ok(())
}

impl File {
    /// True for directories.
    pub(crate) fn is_directory(&self) -> bool {
        self.header.flags & DIRECTORY != 0
    }

    fn information(&self) -> &[u8] {
        self.value(kind::STANDARD_INFORMATION, "").unwrap_or(&[])
    }

    fn information_mut(&mut self) -> Result<&mut Vec<u8>> {
        match self.find(kind::STANDARD_INFORMATION, "").map(|i| &mut self.attributes[i].body) {
            Some(Body::Resident(value)) if value.len() >= 0x30 => Ok(value),
            _ => Err(damaged("a file without standard information")),
        }
    }

    /// DOS attributes as stored.
    pub(crate) fn attribute_bits(&self) -> u32 {
        u32_at(self.information(), 0x20).unwrap_or(0)
    }

    /// Id in $Secure.
    pub(crate) fn security_id(&self) -> Option<u32> {
        u32_at(self.information(), 0x34).filter(|id| *id != 0)
    }

    /// The four times.
    pub(crate) fn times(&self) -> Times {
        let time = |at| FileTime(u64_at(self.information(), at).unwrap_or(0));
        Times { created: time(0), modified: time(8), changed: time(0x10), accessed: time(0x18) }
    }

    /// Sets the four times.
    pub(crate) fn set_times(&mut self, times: Times) -> Result<()> {
        put_all(
            self.information_mut()?,
            &[
                (0x00, &times.created.0.to_le_bytes()),
                (0x08, &times.modified.0.to_le_bytes()),
                (0x10, &times.changed.0.to_le_bytes()),
                (0x18, &times.accessed.0.to_le_bytes()),
            ],
        );
        Ok(())
    }

    /// Sets "changed", and "modified" when data changed.
    pub(crate) fn touch(&mut self, now: FileTime, modified: bool) -> Result<()> {
        let mut times = self.times();
        times.changed = now;
        if modified {
            times.modified = now;
        }
        self.set_times(times)
    }

    fn set_bits(&mut self, clear: u32, set: u32) -> Result<()> {
        let bits = self.attribute_bits() & !clear | set;
        put_all(self.information_mut()?, &[(0x20, &bits.to_le_bytes())]);
        Ok(())
    }

    /// The stream is stored plainly now.
    pub(crate) fn clear_storage_flags(&mut self) {
        // A file without standard information is refused where it is stored.
        let gone = Attributes::COMPRESSED | Attributes::SPARSE | Attributes::ENCRYPTED;
        drop(self.set_bits(gone, 0));
    }

    /// All names.
    pub(crate) fn names(&self) -> Result<Vec<FileName>> {
        let values = self.attributes.iter().filter(|a| a.kind == kind::FILE_NAME);
        values
            .map(|a| {
                a.value().and_then(FileName::decode).ok_or_else(|| damaged("a file name that is cut off"))
            })
            .collect()
    }

    /// Bytes and allocated bytes of the unnamed stream.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let Some(place) = self.find(kind::DATA, "") else { return (0, 0) };
        match &self.attributes[place].body {
            Body::Resident(value) => (value.len() as u64, 0),
            Body::Runs(stream) => {
                let sparse = self.attributes[place].flags != 0;
                (
                    stream.size_bytes,
                    if sparse { stream.total_allocated_bytes } else { stream.allocated_bytes },
                )
            }
        }
    }

    /// The name's copies of times, sizes and attributes, as they are now.
    fn refreshed(&self, mut name: FileName) -> FileName {
        let (size, allocated) = self.sizes();
        name.times = self.times();
        name.size_bytes = size;
        name.allocated_bytes = if allocated == 0 { size.next_multiple_of(8) } else { allocated };
        let kept = name.attributes & 0xF000_0000;
        name.attributes = self.attribute_bits() & 0x0FFF_FFFF | kept;
        name.reparse = self.reparse_tag().unwrap_or(0);
        name
    }

    /// Leaves only the names that `keep` says.
    pub(super) fn retain_names(&mut self, keep: impl Fn(&FileName) -> bool) {
        self.attributes.retain(|a| {
            a.kind != kind::FILE_NAME || a.value().and_then(FileName::decode).is_none_or(|n| keep(&n))
        });
    }
}

/// An opened directory with its index.
fn directory(core: &mut Core, reference: u64) -> Result<(File, Tree)> {
    let file = File::open(core, reference)?;
    let tree = Tree::open(core, &file, I30, Collation::FileName)?;
    Ok((file, tree))
}

impl Core {
    /// The entry with this name in a directory.
    pub(crate) fn lookup(&mut self, directory_id: u64, name: &str) -> Result<Option<Entry>> {
        let (file, tree) = directory(self, directory_id)?;
        tree.find(self, &file, &key_of(&name.encode_utf16().collect::<Vec<u16>>()))
    }

    /// All entries of a directory.
    pub(crate) fn list(&mut self, directory_id: u64) -> Result<Vec<Entry>> {
        let (file, tree) = directory(self, directory_id)?;
        tree.entries(self, &file)
    }

    /// Stores a file whose data or information changed, and brings its directory entries up to date.
    pub(crate) fn store_changed(&mut self, file: &mut File) -> Result<()> {
        let own = file.header.reference();
        let mut changed = Vec::new();
        for place in 0..file.attributes.len() {
            if file.attributes[place].kind != kind::FILE_NAME {
                continue;
            }
            let name = file.attributes[place].value().and_then(FileName::decode);
            let name = file.refreshed(name.ok_or_else(|| damaged("a file name that is cut off"))?);
            let value = name.encode();
            if file.attributes[place].value() != Some(&value) {
                file.attributes[place].body = Body::Resident(value);
            }
            changed.push(name);
        }
        file.store(self)?;
        for name in changed.iter().filter(|n| n.parent != own) {
            let (mut parent, mut tree) = directory(self, name.parent)?;
            let key = name.encode();
            let entry = tree
                .find(self, &parent, &key)?
                .ok_or_else(|| damaged("a name that its directory does not have"))?;
            if entry.reference != own {
                return Err(damaged("a directory entry that belongs to another file"));
            }
            if entry.key != key {
                tree.replace(self, &mut parent, &key)?;
            }
        }
        Ok(())
    }

    /// Puts a name into a directory and the file; the caller stores the file.
    pub(super) fn add_name(&mut self, file: &mut File, to: u64, name: &str) -> Result<()> {
        let units = check_name(name)?;
        let (mut parent, mut tree) = directory(self, to)?;
        if parent.header.number == EXTEND_RECORD {
            refuse_system(&parent)?;
        }
        parent.touch(self.now(), true)?;
        let blank = FileName {
            parent: to,
            times: Times::default(),
            allocated_bytes: 0,
            size_bytes: 0,
            attributes: if file.is_directory() { NAME_DIRECTORY } else { 0 },
            reparse: 0,
            // A long name without a short one must not claim the Win32 name space: chkdsk would ask for its partner.
            namespace: if is_short(name) { namespace::WIN32_AND_DOS } else { namespace::POSIX },
            name: units,
        };
        let file_name = file.refreshed(blank);
        tree.insert(self, &mut parent, Entry::file(file.header.reference(), &file_name))
            .map_err(|e| e.context(format!("{name:?}")))?;
        file.attributes.push(Attribute::resident(kind::FILE_NAME, "", file_name.encode()));
        Ok(())
    }

    /// Takes a name (and its short or long partner) out of a directory and the file; the caller stores the file.
    fn drop_name(&mut self, file: &mut File, from: u64, name: &[u16]) -> Result<()> {
        let names = file.names()?;
        let upper = self.upper(name);
        let found = names.iter().find(|n| n.parent == from && self.upper(&n.name) == upper);
        let found =
            found.ok_or_else(|| damaged("a file that does not have the name that its directory gives it"))?;
        let paired = matches!(found.namespace, namespace::WIN32 | namespace::DOS);
        let goes = |n: &FileName| {
            n.parent == from
                && (n == found
                    || paired && n != found && matches!(n.namespace, namespace::WIN32 | namespace::DOS))
        };
        for gone in names.iter().filter(|n| goes(n)) {
            let (mut parent, mut tree) = directory(self, from)?;
            parent.touch(self.now(), true)?;
            let removed = tree.remove(self, &mut parent, &gone.encode())?;
            if removed.reference != file.header.reference() {
                return Err(damaged("a directory entry that belongs to another file"));
            }
        }
        file.retain_names(|n| !goes(n));
        Ok(())
    }

    /// Brings a directory's own entry in its parent up to date after its times changed.
    fn refresh(&mut self, reference: u64) -> Result<()> {
        let mut file = File::open(self, reference)?;
        self.store_changed(&mut file)
    }

    /// Makes an empty file or directory.
    pub(crate) fn create(&mut self, parent: u64, name: &str, is_directory: bool) -> Result<u64> {
        check_name(name)?;
        let security = File::open(self, parent)?;
        let mut information = vec![0u8; 0x48];
        let now = self.now().0.to_le_bytes();
        let bits = if is_directory { 0 } else { Attributes::ARCHIVE };
        let id = security.security_id().unwrap_or(0).to_le_bytes();
        put_all(
            &mut information,
            &[(0, &now), (8, &now), (0x10, &now), (0x18, &now), (0x20, &bits.to_le_bytes()), (0x34, &id)],
        );
        let mut attributes = vec![Attribute::resident(kind::STANDARD_INFORMATION, "", information)];
        attributes.push(if is_directory {
            Tree::empty_directory(self)
        } else {
            Attribute::resident(kind::DATA, "", Vec::new())
        });
        // An old volume keeps the descriptor in the file itself.
        if security.security_id().is_none()
            && let Some(descriptor) = security.value(kind::SECURITY_DESCRIPTOR, "")
        {
            attributes.push(Attribute::resident(kind::SECURITY_DESCRIPTOR, "", descriptor.to_vec()));
        }
        let (number, sequence) = self.allocate_record(false)?;
        let mut file = File::new(number, sequence, if is_directory { DIRECTORY } else { 0 }, attributes);
        self.add_name(&mut file, parent, name)?;
        file.store(self)?;
        self.refresh(parent)?;
        Ok(file.header.reference())
    }

    /// Adds a name to a file.
    pub(crate) fn link(&mut self, node: u64, to: u64, name: &str) -> Result<()> {
        let mut file = File::open(self, node)?;
        refuse_system(&file)?;
        if file.is_directory() {
            return Err(Error::invalid(Layer::Ntfs, "a directory cannot have a second name"));
        }
        if file.header.links >= MAX_LINKS {
            return Err(Error::limit(Layer::Ntfs, "a file has too many names"));
        }
        file.touch(self.now(), false)?;
        self.add_name(&mut file, to, name)?;
        self.store_changed(&mut file)?;
        self.refresh(to)
    }

    /// Moves a name.
    pub(crate) fn rename(&mut self, from: u64, from_name: &str, to: u64, to_name: &str) -> Result<()> {
        check_name(to_name)?;
        let entry = self.lookup(from, from_name)?.ok_or_else(|| no_name(from_name))?;
        if let Some(other) = self.lookup(to, to_name)?
            && (other.reference != entry.reference || from != to)
        {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                Layer::Ntfs,
                format!("{to_name:?} is there already"),
            ));
        }
        let mut file = File::open(self, entry.reference)?;
        refuse_system(&file)?;
        if file.is_directory() {
            self.refuse_inside(entry.reference, to)?;
        }
        file.touch(self.now(), false)?;
        self.drop_name(&mut file, from, &super::tree::name_of(&entry.key))?;
        self.add_name(&mut file, to, to_name)?;
        self.store_changed(&mut file)?;
        self.refresh(from)?;
        self.refresh(to)
    }

    /// Refuses to move a directory below itself.
    fn refuse_inside(&mut self, moved: u64, to: u64) -> Result<()> {
        let mut at = to;
        for _ in 0..MAX_DIRECTORY_DEPTH {
            if at == moved {
                return Err(Error::invalid(Layer::Ntfs, "a directory cannot be moved into itself"));
            }
            if at & RECORD_MASK == ROOT {
                return Ok(());
            }
            let names = File::open(self, at)?.names()?;
            at = names.first().map(|n| n.parent).ok_or_else(|| damaged("a directory without a name"))?;
        }
        Err(damaged("directories that turn in circles"))
    }

    /// Removes a name, and the file with the last one.
    pub(crate) fn remove(&mut self, from: u64, name: &str) -> Result<()> {
        let entry = self.lookup(from, name)?.ok_or_else(|| no_name(name))?;
        let mut file = File::open(self, entry.reference)?;
        refuse_system(&file)?;
        if file.is_directory() {
            let tree = Tree::open(self, &file, I30, Collation::FileName)?;
            if !tree.entries(self, &file)?.is_empty() {
                return Err(Error::invalid(Layer::Ntfs, format!("the directory {name:?} is not empty")));
            }
        }
        self.drop_name(&mut file, from, &super::tree::name_of(&entry.key))?;
        if file.names()?.is_empty() {
            self.remove_reparse(&mut file)?;
            if let Some(id) = file.value(KIND_OBJECT_ID, "").and_then(|v| v.get(..16)).map(<[u8]>::to_vec) {
                self.unindex("$ObjId", "$O", &id)?;
            }
            file.destroy(self)?;
        } else {
            file.touch(self.now(), false)?;
            self.store_changed(&mut file)?;
        }
        self.refresh(from)
    }

    /// Takes the reparse point off a file, and out of the volume's index of them; the caller stores the file.
    pub(crate) fn remove_reparse(&mut self, file: &mut File) -> Result<()> {
        let Some(place) = file.find(kind::REPARSE_POINT, "") else { return Ok(()) };
        if let Some(tag) = file.reparse_tag() {
            let key = [&tag.to_le_bytes()[..], &file.header.reference().to_le_bytes()].concat();
            self.unindex("$Reparse", "$R", &key)?;
        }
        if let Body::Runs(stream) = file.attributes.remove(place).body {
            self.release(&stream.runs);
        }
        file.set_bits(Attributes::REPARSE_POINT, 0)
    }

    /// Removes a key from an index of $Extend, if it is there.
    fn unindex(&mut self, name: &str, index: &'static str, key: &[u8]) -> Result<()> {
        let Ok(extend) = File::load(self, EXTEND_RECORD) else { return Ok(()) };
        let Some(entry) = self.lookup(extend.header.reference(), name)? else { return Ok(()) };
        let mut file = File::open(self, entry.reference)?;
        let mut tree = Tree::open(self, &file, index, Collation::Numbers)?;
        if tree.find(self, &file, key)?.is_some() {
            tree.remove(self, &mut file, key)?;
        }
        Ok(())
    }

    /// Changes attributes, times, security.
    pub(crate) fn change_metadata(&mut self, node: u64, change: &MetadataChange) -> Result<()> {
        let mut file = File::open(self, node)?;
        if file.header.number != ROOT {
            refuse_system(&file)?;
        }
        if let Some(attributes) = change.attributes {
            file.set_bits(USER_BITS, attributes.0 & USER_BITS)?;
        }
        match change.times {
            Some(times) => file.set_times(times)?,
            None => file.touch(self.now(), false)?,
        }
        if let Some(source) = change.security_from {
            let source = File::open(self, source.0)?;
            self.copy_security(&mut file, &source)?;
        }
        self.store_changed(&mut file)
    }

    fn copy_security(&mut self, file: &mut File, source: &File) -> Result<()> {
        let value = file.information_mut()?;
        let id = source.security_id().unwrap_or(0);
        if id != 0 && value.len() < 0x48 {
            value.resize(0x48, 0);
        }
        if value.len() >= 0x38 {
            put_all(value, &[(0x34, &id.to_le_bytes())]);
        }
        if let Some(place) = file.find(kind::SECURITY_DESCRIPTOR, "")
            && let Body::Runs(stream) = file.attributes.remove(place).body
        {
            self.release(&stream.runs);
        }
        if id == 0 {
            let descriptor = source.value(kind::SECURITY_DESCRIPTOR, "").ok_or_else(|| {
                Error::unsupported(
                    Layer::Ntfs,
                    "the security of the other file is not stored where it can be copied",
                )
            })?;
            file.put(Attribute::resident(kind::SECURITY_DESCRIPTOR, "", descriptor.to_vec()));
        }
        Ok(())
    }
}

fn no_name(name: &str) -> Error {
    Error::not_found(Layer::Ntfs, format!("the directory has no {name:?}"))
}

/// Refuses data operations on the file system's own files and on directories' unnamed stream.
pub(crate) fn check_data_target(file: &File, stream: &str) -> Result<()> {
    if file.header.number != ROOT {
        refuse_system(file)?;
    }
    if stream.is_empty() && file.is_directory() {
        return Err(Error::invalid(Layer::Ntfs, "a directory has no unnamed stream"));
    }
    Ok(())
}
