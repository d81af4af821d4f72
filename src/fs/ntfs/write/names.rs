//! Operations on names: create, link, rename, remove; and what a directory repeats of its files.

use super::attribute::{Attribute, kind, put_all};
use super::core::{Core, damaged};
use super::entry::{Entry, FileName, NAME_DIRECTORY, namespace};
use super::file::{File, RECORD_MASK};
use super::record::{DIRECTORY, EXTEND};
use super::special::exists;
use super::tree::{Collation, Tree};
use crate::ntfs::usn::reason;
use crate::short_name::is_short;
use crate::{Attributes, Times};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;

/// The index of directories.
pub(crate) const I30: &str = "$I30";
/// Record of the root directory.
pub(crate) const ROOT: u64 = 5;
/// Record of $Extend.
pub(crate) const EXTEND_RECORD: u64 = 11;
/// Records that belong to the file system.
const SYSTEM_RECORDS: u64 = 16;
/// Most names of a file.
const MAX_LINKS: u16 = 1023;

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

/// A key to look a name up with.
pub(crate) fn key_of(name: &[u16]) -> Vec<u8> {
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

pub(crate) fn refuse_system(file: &File) -> Result<()> {
    if is_system(file) {
        return Err(Error::refused(Layer::Ntfs, "a file of the file system itself is not changed this way"));
    }
    Ok(())
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
        let key = key_of(&name.encode_utf16().collect::<Vec<u16>>());
        tree.find_name(self, &file, &key, file.is_case_sensitive())
    }

    /// All entries of a directory.
    pub(crate) fn list(&mut self, directory_id: u64) -> Result<Vec<Entry>> {
        let (file, tree) = directory(self, directory_id)?;
        tree.entries(self, &file)
    }

    /// Stores a file whose data or information changed, and brings its directory entries up to date.
    pub(crate) fn store_changed(&mut self, file: &mut File) -> Result<()> {
        let own = file.header.reference();
        // As on Windows, the names in the record keep what was true when they were given.
        let changed: Vec<FileName> = file.names()?.into_iter().map(|name| file.refreshed(name)).collect();
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
    pub(super) fn add_name(&mut self, file: &mut File, to: u64, name: &str) -> Result<FileName> {
        check_name(name)?;
        if to & RECORD_MASK == EXTEND_RECORD {
            return Err(Error::refused(Layer::Ntfs, "$Extend holds files of the file system only"));
        }
        self.insert_name(file, to, name)
    }

    /// The same for names that only the file system gives.
    pub(crate) fn insert_name(&mut self, file: &mut File, to: u64, name: &str) -> Result<FileName> {
        let units: Vec<u16> = name.encode_utf16().collect();
        let (mut parent, mut tree) = directory(self, to)?;
        parent.touch(self.now(), true)?;
        // Only one name of a file belongs to the Win32 name space, or is the partner of an 8.3 name.
        let first = file.names()?.iter().all(|name| name.namespace == namespace::POSIX);
        let blank = FileName {
            parent: to,
            times: Times::default(),
            allocated_bytes: 0,
            size_bytes: 0,
            attributes: if file.is_directory() { NAME_DIRECTORY } else { 0 },
            reparse: 0,
            namespace: namespace::POSIX,
            name: units,
        };
        let mut long = file.refreshed(blank);
        let sensitive = parent.is_case_sensitive();
        if tree.find_name(self, &parent, &long.encode(), sensitive)?.is_some() {
            return Err(exists(format!("{name:?} is there already")));
        }
        let short = if first && !sensitive { self.short_name(&parent, &tree, name)? } else { None };
        // A long name without a short one must not claim the Win32 name space: chkdsk would ask for its partner.
        long.namespace = match &short {
            Some(_) => namespace::WIN32,
            None if first && is_short(name) => namespace::WIN32_AND_DOS,
            None => namespace::POSIX,
        };
        let short = short.map(|name| FileName { name, namespace: namespace::DOS, ..long.clone() });
        for name in short.iter().chain([&long]) {
            tree.insert(self, &mut parent, Entry::file(file.header.reference(), name))?;
            file.attributes.push(Attribute::resident(kind::FILE_NAME, "", name.encode()));
        }
        Ok(long)
    }

    /// Gives a long name in a directory an 8.3 partner, or takes it away; a partner that it had goes.
    pub(crate) fn set_short_name(&mut self, node: u64, at: u64, short: Option<&str>) -> Result<()> {
        let short = short.map(str::to_uppercase);
        if short.as_deref().is_some_and(|short| !is_short(short)) {
            return Err(Error::invalid(Layer::Ntfs, format!("{short:?} is no 8.3 name")));
        }
        let mut file = File::open(self, node)?;
        refuse_system(&file)?;
        let names = file.names()?;
        // As with Windows, only one name of a file has a partner: the one that has it, else the first there.
        let paired = |name: &&FileName| name.namespace & namespace::WIN32 != 0;
        let here = || names.iter().filter(|name| name.parent == at && name.namespace != namespace::DOS);
        let long = here().find(paired).or_else(|| here().next()).cloned();
        let long =
            long.ok_or_else(|| Error::invalid(Layer::Ntfs, "the file has no long name in this directory"))?;
        if names.iter().any(|name| paired(&name) && *name != long) {
            return Err(Error::invalid(Layer::Ntfs, "another name of this file has its 8.3 name"));
        }
        let text = String::from_utf16_lossy(&long.name);
        let itself = is_short(&text);
        let mut new = FileName { namespace: namespace::POSIX, ..long.clone() };
        if short.as_deref().is_some_and(|short| short.eq_ignore_ascii_case(&text))
            || itself && short.is_none()
        {
            new.namespace = namespace::WIN32_AND_DOS;
        } else if short.is_some() {
            new.namespace = namespace::WIN32;
        }
        let partner = short.filter(|_| new.namespace == namespace::WIN32).map(|short| FileName {
            name: short.encode_utf16().collect(),
            namespace: namespace::DOS,
            ..long.clone()
        });
        let old: Vec<FileName> = names
            .iter()
            .filter(|name| **name == long || name.parent == at && name.namespace == namespace::DOS)
            .cloned()
            .collect();
        let (mut parent, mut tree) = directory(self, at)?;
        parent.touch(self.now(), true)?;
        for name in &old {
            tree.remove(self, &mut parent, &name.encode())?;
        }
        file.retain_names(|name| !old.contains(name));
        if let Some(partner) = &partner
            && tree.find_name(self, &parent, &partner.encode(), parent.is_case_sensitive())?.is_some()
        {
            return Err(exists("another file has this 8.3 name"));
        }
        for name in partner.iter().chain([&new]) {
            let name = file.refreshed(name.clone());
            tree.insert(self, &mut parent, Entry::file(file.header.reference(), &name))?;
            file.attributes.push(Attribute::resident(kind::FILE_NAME, "", name.encode()));
        }
        file.touch(self.now(), false)?;
        self.note_name(&mut file, &new, reason::HARD_LINK_CHANGE | reason::CLOSE)?;
        self.store_changed(&mut file)?;
        self.refresh(at)
    }

    /// Takes a name (and its short or long partner) out of a directory and the file; the caller stores the file.
    fn drop_name(&mut self, file: &mut File, from: u64, name: &[u16]) -> Result<FileName> {
        let names = file.names()?;
        let found = names.iter().find(|n| n.parent == from && n.name == name);
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
        let long = names.iter().find(|n| goes(n) && n.namespace != namespace::DOS);
        Ok(long.unwrap_or(found).clone())
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
        let id = self.inherited_id(&security, is_directory)?.to_le_bytes();
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
        let (number, sequence) = self.allocate_record(false)?;
        let mut file = File::new(number, sequence, if is_directory { DIRECTORY } else { 0 }, attributes);
        self.add_name(&mut file, parent, name)?;
        self.note(&mut file, reason::FILE_CREATE)?;
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
        let added = self.add_name(&mut file, to, name)?;
        self.note_name(&mut file, &added, reason::HARD_LINK_CHANGE | reason::CLOSE)?;
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
            return Err(exists(format!("{to_name:?} is there already")));
        }
        let mut file = File::open(self, entry.reference)?;
        refuse_system(&file)?;
        if file.is_directory() {
            self.refuse_inside(entry.reference, to)?;
        }
        file.touch(self.now(), false)?;
        let old = self.drop_name(&mut file, from, &super::tree::name_of(&entry.key))?;
        self.note_name(&mut file, &old, reason::RENAME_OLD_NAME)?;
        let new = self.add_name(&mut file, to, to_name)?;
        self.note_name(&mut file, &new, reason::RENAME_NEW_NAME | reason::CLOSE)?;
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
        if file.is_directory() && !self.is_empty_directory(&file)? {
            return Err(Error::invalid(Layer::Ntfs, format!("the directory {name:?} is not empty")));
        }
        let gone = self.drop_name(&mut file, from, &super::tree::name_of(&entry.key))?;
        if file.names()?.is_empty() {
            self.note_name(&mut file, &gone, reason::FILE_DELETE | reason::CLOSE)?;
            self.remove_reparse(&mut file)?;
            self.remove_object_id(&mut file)?;
            file.destroy(self)?;
        } else {
            file.touch(self.now(), false)?;
            self.note_name(&mut file, &gone, reason::HARD_LINK_CHANGE | reason::CLOSE)?;
            self.store_changed(&mut file)?;
        }
        self.refresh(from)
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
