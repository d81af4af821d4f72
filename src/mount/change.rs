//! Changes to a mounted tree, with the rules of POSIX over a file system that has those of Windows.
//!
//! Replacing by a rename is done in steps that can be taken back, so that a failure leaves both files. A write into
//! compressed data unpacks the file first: it is stored plainly from then on. Missing: holes are not made.

use super::fault::{Answer, Fault, Reason};
use super::session::Session;
use super::tree::{Facts, Kind, Place, Tree};
use super::xattr::{MAX_VALUE_BYTES, attributes_from, times_from};
use crate::error::ErrorKind;
use crate::fs::{Attributes, FileSystemMut, MetadataChange, NodeId, NodeKind, Times, read_file};
use crate::time::FileTime;

/// Largest compressed file that a write unpacks.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// How a rename treats a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacing {
    /// What has it is replaced.
    Yes,
    /// The rename is refused.
    No,
    /// The two change places.
    Exchange,
}

/// Which times to set; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewTimes {
    /// Last read.
    pub accessed: Option<FileTime>,
    /// Data last changed.
    pub modified: Option<FileTime>,
    /// Record last changed; the clock when absent.
    pub changed: Option<FileTime>,
    /// Made.
    pub created: Option<FileTime>,
}

/// The directory behind a number.
fn directory(tree: &Tree, number: u64) -> Answer<(usize, NodeId)> {
    match tree.place(number)? {
        Place::Node(slot, node) => Ok((slot, node)),
        // Above the volumes, and in the registry, nothing is made.
        _ => Err(Reason::ReadOnly.into()),
    }
}

/// The file or stream behind a number.
fn target(tree: &Tree, number: u64) -> Answer<(usize, NodeId, String)> {
    match tree.place(number)? {
        Place::Node(slot, node) => Ok((slot, node, String::new())),
        Place::Stream(slot, node, stream) => Ok((slot, node, stream)),
        _ => Err(Reason::ReadOnly.into()),
    }
}

fn named(tree: &Tree, parent: u64, name: &str) -> Answer<(usize, NodeId, NodeId)> {
    let (slot, at) = directory(tree, parent)?;
    let node = tree.find(slot, at, name)?.ok_or(Reason::NotFound)?;
    Ok((slot, at, node))
}

fn kind(tree: &Tree, slot: usize, node: NodeId) -> Answer<Kind> {
    Ok(tree.facts(tree.number(slot, node)?)?.kind)
}

fn refuse_full(tree: &Tree, slot: usize, node: NodeId) -> Answer<()> {
    let entries = tree.slots[slot].look(|fs| fs.read_dir(node))?;
    if entries.is_empty() { Ok(()) } else { Err(Reason::NotEmpty.into()) }
}

/// Takes a name away; a file that is open and has no other keeps living under a hidden one.
fn take_away(tree: &Tree, slot: usize, at: NodeId, name: &str, node: NodeId) -> Answer<()> {
    let number = tree.number(slot, node)?;
    let last = tree.slots[slot].look(|fs| fs.metadata(node))?.links <= 1;
    if !(last && tree.unlinked.is_open(number)) {
        return tree.slots[slot].change(|fs| Ok(fs.remove(at, name)?));
    }
    let (root, hidden) = (tree.slots[slot].root, tree.unlinked.fresh_name());
    tree.slots[slot].change(|fs| Ok(fs.rename(at, name, root, &hidden)?))?;
    tree.unlinked.wait(number, hidden);
    Ok(())
}

/// Unpacks a compressed file, so that it can be written. False when it is none.
fn unpack(fs: &mut dyn FileSystemMut, node: NodeId, stream: &str) -> Answer<bool> {
    let metadata = fs.metadata(node)?;
    let info = fs.streams(node)?.into_iter().find(|info| info.name == stream);
    let packed = metadata.reparse.is_some() || info.as_ref().is_some_and(|info| info.compressed);
    let Some(info) = info.filter(|info| packed && !info.encrypted) else { return Ok(false) };
    if info.size_bytes > MAX_UNPACKED_BYTES {
        return Err(Reason::TooLarge.into());
    }
    let bytes = read_file(&*fs, node, stream)?;
    fs.set_len(node, stream, 0)?;
    fs.write(node, stream, 0, &bytes)?;
    Ok(true)
}

/// Runs a change of data; when the data is packed, unpacks it and runs it again.
fn on_plain_data(
    fs: &mut dyn FileSystemMut,
    node: NodeId,
    stream: &str,
    mut work: impl FnMut(&mut dyn FileSystemMut) -> crate::Result<()>,
) -> Answer<()> {
    match work(fs) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            if unpack(fs, node, stream)? {
                Ok(work(fs)?)
            } else {
                Err(e.into())
            }
        }
        other => Ok(other?),
    }
}

impl Session {
    /// Makes a file or directory. The facts of the new node.
    ///
    /// # Errors
    /// `Exists`, `Invalid` names, `NoSpace`, `ReadOnly`.
    pub fn create(&self, parent: u64, name: &str, is_directory: bool) -> Answer<Facts> {
        self.changing(|tree| {
            let (slot, at) = directory(tree, parent)?;
            if tree.find(slot, at, name)?.is_some() {
                return Err(Reason::Exists.into());
            }
            if let Some((file, stream)) = tree.split_stream(name).filter(|_| !is_directory) {
                let node = tree.find(slot, at, file)?.ok_or(Reason::NotFound)?;
                tree.slots[slot].change(|fs| Ok(fs.write(node, stream, 0, &[])?))?;
                self.touch(slot, node);
                return tree.facts(tree.special(Place::Stream(slot, node, stream.to_string())));
            }
            let kind = if is_directory { NodeKind::Directory } else { NodeKind::File };
            let node = tree.slots[slot].change(|fs| Ok(fs.create(at, name, kind)?))?;
            self.touch(slot, node);
            tree.facts(tree.number(slot, node)?)
        })
    }

    /// Removes a name of a file, or a stream.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, damage.
    pub fn unlink(&self, parent: u64, name: &str) -> Answer<()> {
        self.changing(|tree| {
            let (slot, at) = directory(tree, parent)?;
            let Some(node) = tree.find(slot, at, name)? else {
                let (file, stream) = tree.split_stream(name).ok_or(Reason::NotFound)?;
                let node = tree.find(slot, at, file)?.ok_or(Reason::NotFound)?;
                self.touch(slot, node);
                return tree.slots[slot].change(|fs| Ok(fs.remove_stream(node, stream)?));
            };
            if kind(tree, slot, node)? == Kind::Directory {
                return Err(Reason::IsDirectory.into());
            }
            take_away(tree, slot, at, name, node)?;
            self.touch(slot, node);
            Ok(())
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`, damage.
    pub fn rmdir(&self, parent: u64, name: &str) -> Answer<()> {
        self.changing(|tree| {
            let (slot, at, node) = named(tree, parent, name)?;
            if kind(tree, slot, node)? != Kind::Directory {
                return Err(Reason::NotDirectory.into());
            }
            refuse_full(tree, slot, node)?;
            tree.slots[slot].change(|fs| Ok(fs.remove(at, name)?))
        })
    }

    /// Gives a node another name.
    ///
    /// # Errors
    /// `NotFound`, `Exists`, `CrossVolume`, and what POSIX asks for when a directory meets a file.
    pub fn rename(
        &self,
        parent: u64,
        name: &str,
        new_parent: u64,
        new_name: &str,
        how: Replacing,
    ) -> Answer<()> {
        self.changing(|tree| {
            let (slot, at, node) = named(tree, parent, name)?;
            let (other_slot, to) = directory(tree, new_parent)?;
            if slot != other_slot {
                return Err(Reason::CrossVolume.into());
            }
            self.touch(slot, node);
            let Some(there) = tree.find(slot, to, new_name)? else {
                if how == Replacing::Exchange {
                    return Err(Reason::NotFound.into());
                }
                return tree.slots[slot].change(|fs| Ok(fs.rename(at, name, to, new_name)?));
            };
            self.touch(slot, there);
            if how == Replacing::No {
                return Err(Reason::Exists.into());
            }
            if there == node {
                // Another spelling of the same name is a change; another name of the same file is none.
                let same_name = at == to && name.to_lowercase() == new_name.to_lowercase();
                if same_name && name != new_name {
                    return tree.slots[slot].change(|fs| Ok(fs.rename(at, name, to, new_name)?));
                }
                return Ok(());
            }
            let (root, hidden) = (tree.slots[slot].root, tree.unlinked.fresh_name());
            if how == Replacing::Exchange {
                return tree.slots[slot].change(|fs| {
                    fs.rename(to, new_name, root, &hidden)?;
                    if let Err(e) = fs.rename(at, name, to, new_name) {
                        fs.rename(root, &hidden, to, new_name)?;
                        return Err(e.into());
                    }
                    if let Err(e) = fs.rename(root, &hidden, at, name) {
                        fs.rename(to, new_name, at, name)?;
                        fs.rename(root, &hidden, to, new_name)?;
                        return Err(e.into());
                    }
                    Ok(())
                });
            }
            match (kind(tree, slot, node)?, kind(tree, slot, there)?) {
                (Kind::Directory, Kind::Directory) => refuse_full(tree, slot, there)?,
                (Kind::Directory, _) => return Err(Reason::NotDirectory.into()),
                (_, Kind::Directory) => return Err(Reason::IsDirectory.into()),
                _ => {}
            }
            tree.slots[slot].change(|fs| {
                fs.rename(to, new_name, root, &hidden)?;
                if let Err(e) = fs.rename(at, name, to, new_name) {
                    fs.rename(root, &hidden, to, new_name)?;
                    return Err(e.into());
                }
                Ok(())
            })?;
            take_away(tree, slot, root, &hidden, there)
        })
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// `Exists`, `Denied` for directories and streams, `Unsupported` on FAT.
    pub fn link(&self, number: u64, parent: u64, name: &str) -> Answer<Facts> {
        self.changing(|tree| {
            let Place::Node(slot, node) = tree.place(number)? else { return Err(Reason::Denied.into()) };
            let (other, at) = directory(tree, parent)?;
            if slot != other {
                return Err(Reason::CrossVolume.into());
            }
            if tree.unlinked.holds(number) {
                return Err(Reason::NotFound.into());
            }
            if kind(tree, slot, node)? == Kind::Directory {
                return Err(Reason::Denied.into());
            }
            tree.slots[slot].change(|fs| Ok(fs.link(node, at, name)?))?;
            self.touch(slot, node);
            tree.facts(number)
        })
    }

    /// Writes into a file or stream, growing it as needed.
    ///
    /// # Errors
    /// `NoSpace`, `TooLarge`, damage.
    pub fn write(&self, number: u64, offset: u64, data: &[u8]) -> Answer<()> {
        self.changing(|tree| {
            let (slot, node, stream) = target(tree, number)?;
            self.touch(slot, node);
            tree.slots[slot]
                .change(|fs| on_plain_data(fs, node, &stream, |fs| fs.write(node, &stream, offset, data)))
        })
    }

    /// Cuts or grows a file or stream.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub fn set_len(&self, number: u64, length: u64) -> Answer<()> {
        self.changing(|tree| {
            let (slot, node, stream) = target(tree, number)?;
            if stream.is_empty() && kind(tree, slot, node)? == Kind::Directory {
                return Err(Reason::IsDirectory.into());
            }
            self.touch(slot, node);
            tree.slots[slot]
                .change(|fs| on_plain_data(fs, node, &stream, |fs| fs.set_len(node, &stream, length)))
        })
    }

    /// Sets times.
    ///
    /// # Errors
    /// `NotFound`, damage.
    pub fn set_times(&self, number: u64, new: NewTimes) -> Answer<()> {
        self.changing(|tree| {
            let (slot, node, _) = target(tree, number)?;
            self.touch(slot, node);
            tree.slots[slot].change(|fs| {
                let old = fs.metadata(node)?.times;
                let times = Times {
                    created: new.created.unwrap_or(old.created),
                    modified: new.modified.unwrap_or(old.modified),
                    changed: new.changed.unwrap_or_else(FileTime::now),
                    accessed: new.accessed.unwrap_or(old.accessed),
                };
                let change = MetadataChange { times: Some(times), ..MetadataChange::default() };
                Ok(fs.set_metadata(node, &change)?)
            })
        })
    }

    /// Sets or clears READONLY of a file: all that remains of mode bits. Directories have none.
    ///
    /// # Errors
    /// `NotFound`, damage.
    pub fn set_read_only(&self, number: u64, read_only: bool) -> Answer<()> {
        let facts = self.tree().facts(number)?;
        if facts.kind != Kind::File || facts.read_only == read_only {
            return Ok(());
        }
        let (slot, node, _) = target(self.tree(), number)?;
        let old = self.tree().slots[slot].look(|fs| fs.metadata(node))?.attributes.0;
        let bits = if read_only { old | Attributes::READ_ONLY } else { old & !Attributes::READ_ONLY };
        self.set_attributes(number, Attributes(bits))
    }

    fn set_attributes(&self, number: u64, attributes: Attributes) -> Answer<()> {
        self.changing(|tree| {
            let (slot, node, _) = target(tree, number)?;
            self.touch(slot, node);
            let change = MetadataChange { attributes: Some(attributes), ..MetadataChange::default() };
            tree.slots[slot].change(|fs| Ok(fs.set_metadata(node, &change)?))
        })
    }

    /// Sets an extended attribute; `must_exist` is `Some(false)` to make, `Some(true)` to replace.
    ///
    /// # Errors
    /// `Exists`, `NoAttribute`, `Range`; `Unsupported` for names that are not kept.
    pub fn set_attribute(
        &self,
        number: u64,
        name: &str,
        value: &[u8],
        must_exist: Option<bool>,
    ) -> Answer<()> {
        if let Some(name) = name.strip_prefix("system.ntfs_") {
            return self.set_ntfs_attribute(number, name, value);
        }
        let stream = name.strip_prefix("user.").filter(|_| self.tree().streams.by_attribute());
        let stream = stream.filter(|stream| !stream.is_empty()).ok_or(Reason::Unsupported)?;
        if value.len() as u64 > MAX_VALUE_BYTES {
            return Err(Reason::Range.into());
        }
        self.changing(|tree| {
            let Place::Node(slot, node) = tree.place(number)? else { return Err(Reason::Unsupported.into()) };
            self.touch(slot, node);
            tree.slots[slot].change(|fs| {
                let there = fs.streams(node)?.iter().any(|info| info.name == stream);
                match must_exist {
                    Some(false) if there => return Err(Reason::Exists.into()),
                    Some(true) if !there => return Err(Reason::NoAttribute.into()),
                    _ => {}
                }
                fs.write(node, stream, 0, value)?;
                Ok(fs.set_len(node, stream, value.len() as u64)?)
            })
        })
    }

    fn set_ntfs_attribute(&self, number: u64, name: &str, value: &[u8]) -> Answer<()> {
        let bad = || Fault::from(Reason::Invalid);
        match name {
            "attrib" | "attrib_be" => {
                let attributes = attributes_from(value, name.ends_with("_be")).ok_or_else(bad)?;
                self.set_attributes(number, attributes)
            }
            "times" | "times_be" | "crtime" | "crtime_be" => {
                let times = times_from(value, name.ends_with("_be")).ok_or_else(bad)?;
                let at = |place: usize| times.get(place).map(|time| FileTime(*time));
                let new = NewTimes { created: at(0), modified: at(1), accessed: at(2), changed: at(3) };
                self.set_times(number, new)
            }
            _ => Err(Reason::Unsupported.into()),
        }
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`; `Unsupported` for those that every file has.
    pub fn remove_attribute(&self, number: u64, name: &str) -> Answer<()> {
        let stream = name.strip_prefix("user.").filter(|_| self.tree().streams.by_attribute());
        let stream = stream.ok_or(if name.starts_with("system.ntfs_") {
            Reason::Denied
        } else {
            Reason::NoAttribute
        })?;
        self.changing(|tree| {
            let Place::Node(slot, node) = tree.place(number)? else { return Err(Reason::NoAttribute.into()) };
            self.touch(slot, node);
            tree.slots[slot].change(|fs| match fs.remove_stream(node, stream) {
                Err(e) if e.kind() == ErrorKind::NotFound => Err(Reason::NoAttribute.into()),
                other => Ok(other?),
            })
        })
    }
}
