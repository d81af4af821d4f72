//! Single repairs of a volume whose bitmaps are right: entries of directories, names, counts, bitmaps of indexes.
//!
//! Each one is an operation of its own: it succeeds, or nothing has changed. What the checker saw is compared again first.

use super::attribute::{Attribute, Body, kind, put_all};
use super::core::{Core, damaged};
use super::entry::{Entry, FileName};
use super::file::{File, RECORD_MASK};
use super::names::{I30, ROOT};
use super::open::{WriteOptions, open};
use super::record;
use super::tree::{Collation, Tree};
use crate::NodeId;
use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::{ErrorKind, Result};
use vmrescue_base::text::utf16le_units;
use vmrescue_block::DiskMut;

/// Where files go whose directory is gone, as chkdsk does it.
pub(crate) const FOUND: &str = "found.000";
/// Record of $Extend.
const EXTEND: u64 = 11;
/// Most names that are tried for an orphan.
const MAX_TRIES: usize = 1000;
/// Offset of a record's own number.
const NUMBER: usize = 0x2C;
/// Offset of a record's count of names.
const LINKS: usize = 0x12;

/// An open volume that is mended.
pub(crate) struct Mender(Core);

impl Mender {
    /// Opens a volume.
    ///
    /// # Errors
    /// As [`super::VolumeMut::open_with`].
    pub(crate) fn open(disk: DiskMut, options: WriteOptions) -> Result<Mender> {
        open(disk, options).map(Mender)
    }

    /// Writes everything.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.0.flush()?;
        self.0.disk.flush()
    }

    /// Puts a record's own number and its count of names right.
    pub(crate) fn header(&mut self, number: u64) -> Result<()> {
        self.0.transact(|core| {
            let mut bytes = core.record(number)?;
            let (header, _) = record::decode(&bytes, number)?;
            put_all(&mut bytes, &[(NUMBER, &(number as u32).to_le_bytes())]);
            core.put_record(number, bytes.clone())?;
            if header.base == 0 {
                let names = File::load(core, number)?.names()?.len() as u16;
                put_all(&mut bytes, &[(LINKS, &names.to_le_bytes())]);
                core.put_record(number, bytes)?;
            }
            Ok(())
        })
    }

    /// Gives the bitmap of an index these bits; those behind `count` blocks are cleared.
    pub(crate) fn index_bitmap(&mut self, number: u64, name: &[u8], bits: &[u8]) -> Result<()> {
        let units = utf16le_units(name);
        self.0.transact(|core| {
            let mut file = File::load(core, number)?;
            let same = |a: &&mut Attribute| a.kind == kind::BITMAP && a.name == units;
            let attribute = file.attributes.iter_mut().find(same);
            let attribute = attribute.ok_or_else(|| damaged("an index without the bitmap of its blocks"))?;
            let length = attribute.size_bytes() as usize;
            if bits.len() > length {
                return Err(damaged("a bitmap that is too short for its index"));
            }
            let mut map = bits.to_vec();
            map.resize(length, 0);
            match &mut attribute.body {
                Body::Resident(value) => {
                    *value = map;
                    file.store(core)
                }
                Body::Runs(stream) => {
                    let stream = stream.clone();
                    core.write_through(&stream, &map)
                }
            }
        })
    }

    /// Takes an entry out of a directory. False when it is no longer as it was seen.
    pub(crate) fn remove_entry(&mut self, directory: u64, key: &[u8], reference: u64) -> Result<bool> {
        self.0.transact(|core| {
            let mut file = File::open(core, directory)?;
            let mut tree = Tree::open(core, &file, I30, Collation::FileName)?;
            let found = tree.find(core, &file, key)?;
            if !found.is_some_and(|entry| entry.reference == reference && entry.key == key) {
                return Ok(false);
            }
            tree.remove(core, &mut file, key).map(|_| true)
        })
    }

    /// Puts an entry for a name, which its record has, into the directory that it names.
    pub(crate) fn add_entry(&mut self, reference: u64, key: &[u8]) -> Result<()> {
        let name = FileName::decode(key).ok_or_else(|| damaged("a file name that is cut off"))?;
        self.0.transact(|core| {
            let mut directory = File::open(core, name.parent)?;
            let mut tree = Tree::open(core, &directory, I30, Collation::FileName)?;
            tree.insert(core, &mut directory, Entry::file(reference, &name))
        })
    }

    /// Gives a file, whose directory is gone, a name in `\found.000`: its own, or with a number behind it. Returns the name.
    pub(crate) fn adopt(&mut self, reference: u64, key: &[u8]) -> Result<String> {
        let lost = FileName::decode(key).ok_or_else(|| damaged("a file name that is cut off"))?;
        self.0.transact(|core| {
            let root = File::load(core, ROOT)?.header.reference();
            let found = match core.lookup(root, FOUND)? {
                Some(entry) => entry.reference,
                None => core.create(root, FOUND, true)?,
            };
            let own = String::from_utf16_lossy(&lost.name);
            let mut file = File::open(core, reference)?;
            // Names that lead nowhere go, with a DOS name beside them.
            file.retain_names(|name| name.parent != lost.parent);
            for try_number in 0..MAX_TRIES {
                let name = if try_number == 0 { own.clone() } else { format!("{own}.{try_number}") };
                match core.add_name(&mut file, found, &name) {
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                    Err(e) if e.kind() == ErrorKind::Invalid && try_number == 0 => {
                        let name = format!("file{:08x}.chk", reference & RECORD_MASK);
                        core.add_name(&mut file, found, &name)?;
                        core.store_changed(&mut file)?;
                        return Ok(name);
                    }
                    result => {
                        result?;
                        core.store_changed(&mut file)?;
                        return Ok(name);
                    }
                }
            }
            Err(damaged("no free name in the directory of found files"))
        })
    }

    /// Frees an extension record without a base.
    pub(crate) fn free_extension(&mut self, number: u64) -> Result<()> {
        self.0.transact(|core| {
            let bytes = core.record(number)?;
            if record::decode(&bytes, number)?.0.base == 0 {
                return Err(damaged("an extension record that is none"));
            }
            core.free_record(number)
        })
    }

    /// Takes a key out of an index of $Extend, or puts it in.
    pub(crate) fn key(&mut self, name: &str, key: &[u8], data: Option<&[u8]>) -> Result<()> {
        let index = if name == "$Reparse" { "$R" } else { "$O" };
        self.0.transact(|core| {
            let extend = File::load(core, EXTEND)?.header.reference();
            let entry = core.lookup(extend, name)?.ok_or_else(|| damaged("a file of $Extend is missing"))?;
            let mut file = File::open(core, NodeId(entry.reference).0)?;
            let mut tree = Tree::open(core, &file, index, Collation::Numbers)?;
            match data {
                Some(data) => tree.insert(core, &mut file, Entry::view(key, data)),
                None => tree.remove(core, &mut file, key).map(|_| ()),
            }
        })
    }

    /// Clears the mark `dirty`.
    pub(crate) fn clean(&mut self) -> Result<()> {
        self.0.transact(|core| {
            let mut file = File::load(core, 3)?;
            let place = file.find(kind::VOLUME_INFORMATION, "");
            match place.map(|place| &mut file.attributes[place].body) {
                Some(Body::Resident(value)) if value.len() >= 12 => {
                    let flags = u16_at(value, 10).unwrap_or(0) & !1;
                    put_all(value, &[(10, &flags.to_le_bytes())]);
                }
                _ => return Err(damaged("$Volume has no volume information")),
            }
            file.store(core)
        })
    }
}
