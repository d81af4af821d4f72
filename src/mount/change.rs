//! Changes to a mounted tree, with the rules of POSIX over a file system that has those of Windows.
//!
//! Replacing by a rename is done in steps that can be taken back, so that a failure leaves both files. A write into
//! compressed data makes the writer unpack the file first: it is stored plainly from then on.

use super::clock;
use super::fault::{Answer, Reason};
use super::session::Session;
use super::tree::{Facts, Kind, Place, Tree};
use vmrescue_base::time::FileTime;
use vmrescue_fs::{Attributes, FileSystem, MetadataChange, NodeId, NodeKind, Times};

/// Least distance behind the end of a file that becomes a hole. Below, the kernel may just write its pages in another order.
const MIN_HOLE_BYTES: u64 = 1 << 20;

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
pub(super) fn directory(tree: &Tree, number: u64) -> Answer<(usize, NodeId)> {
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

pub(super) fn named(tree: &Tree, parent: u64, name: &str) -> Answer<(usize, NodeId, NodeId)> {
    let (slot, at) = directory(tree, parent)?;
    let node = tree.find(slot, at, name)?.ok_or(Reason::NotFound)?;
    Ok((slot, at, node))
}

pub(super) fn kind(tree: &Tree, slot: usize, node: NodeId) -> Answer<Kind> {
    Ok(tree.facts(tree.number(slot, node)?)?.kind)
}

fn refuse_full(tree: &Tree, slot: usize, node: NodeId) -> Answer<()> {
    let entries = tree.slots[slot].look(|fs| fs.read_dir(node))?;
    if entries.is_empty() { Ok(()) } else { Err(Reason::NotEmpty.into()) }
}

/// Takes a name away; a file that is open and has no other keeps living under a hidden one.
fn take_away(tree: &Tree, slot: usize, at: NodeId, name: &str, node: NodeId) -> Answer<()> {
    let number = tree.number(slot, node)?;
    let is_last = || tree.slots[slot].look(|fs| fs.metadata(node)).map(|metadata| metadata.links <= 1);
    if !(tree.unlinked.is_open(number) && is_last()?) {
        return tree.slots[slot].change(|fs| Ok(fs.remove(at, name)?));
    }
    let (root, hidden) = (tree.slots[slot].root, tree.unlinked.fresh_name());
    tree.slots[slot].change(|fs| Ok(fs.rename(at, name, root, &hidden)?))?;
    tree.unlinked.wait(number, hidden);
    Ok(())
}

/// True when a place is so far behind the end of a stream that what is between should be a hole.
fn is_far_behind(fs: &dyn FileSystem, node: NodeId, stream: &str, place: u64) -> vmrescue_base::Result<bool> {
    let size =
        fs.streams(node)?.into_iter().find(|info| info.name == stream).map_or(0, |info| info.size_bytes);
    Ok(place.saturating_sub(size) >= MIN_HOLE_BYTES)
}

impl Session {
    /// Makes a file or directory. The facts of the new node.
    ///
    /// # Errors
    /// `Exists`, `Invalid` names, `NoSpace`, `ReadOnly`.
    pub fn create(&self, parent: u64, name: &str, is_directory: bool) -> Answer<Facts> {
        self.changing(|tree| {
            let (slot, at) = directory(tree, parent)?;
            let stream = tree.split_stream(name).filter(|_| !is_directory);
            // Making looks itself whether a plain name is taken.
            if (stream.is_some() || name.contains('\u{FFFD}')) && tree.find(slot, at, name)?.is_some() {
                return Err(Reason::Exists.into());
            }
            if let Some((file, stream)) = stream {
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

    /// Writes into a file or stream, growing it as needed. With `keep_times` they stay: the caller has
    /// the times, and sets them when they change.
    ///
    /// # Errors
    /// `NoSpace`, `TooLarge`, damage.
    pub fn write(&self, number: u64, offset: u64, data: &[u8], keep_times: bool) -> Answer<()> {
        self.changing(|tree| {
            let (slot, node, stream) = target(tree, number)?;
            self.touch(slot, node);
            tree.slots[slot].change(|fs| {
                if keep_times {
                    fs.set_clock(Some(fs.metadata(node)?.times.modified));
                }
                if offset >= MIN_HOLE_BYTES && is_far_behind(fs, node, &stream, offset)? {
                    fs.grow_with_hole(node, &stream, offset)?;
                }
                Ok(fs.write(node, &stream, offset, data)?)
            })
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
            tree.slots[slot].change(|fs| {
                if length >= MIN_HOLE_BYTES && is_far_behind(fs, node, &stream, length)? {
                    return Ok(fs.grow_with_hole(node, &stream, length)?);
                }
                Ok(fs.set_len(node, &stream, length)?)
            })
        })
    }

    /// Takes clusters for a file up to its new length; a file with holes keeps them and grows by one more.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub fn reserve(&self, number: u64, length: u64) -> Answer<()> {
        self.changing(|tree| {
            let (slot, node, stream) = target(tree, number)?;
            if tree.facts(number)?.size >= length {
                return Ok(());
            }
            self.touch(slot, node);
            tree.slots[slot].change(|fs| Ok(fs.set_len(node, &stream, length)?))
        })
    }

    /// Makes a part of a file zero, and a hole where the file system has them; its length stays, or grows when `grow` says so.
    ///
    /// # Errors
    /// `Unsupported` where there are no holes; damage.
    pub fn punch(&self, number: u64, offset: u64, length: u64, grow: bool) -> Answer<()> {
        let end = offset.checked_add(length).ok_or(Reason::TooLarge)?;
        self.changing(|tree| {
            let (slot, node, stream) = target(tree, number)?;
            let size = tree.facts(number)?.size;
            self.touch(slot, node);
            tree.slots[slot].change(|fs| {
                if offset < end.min(size) {
                    fs.punch(node, &stream, offset..end.min(size))?;
                }
                if grow && size < end {
                    fs.grow_with_hole(node, &stream, end)?;
                }
                Ok(())
            })
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
                    changed: new.changed.unwrap_or_else(clock::now),
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

    pub(super) fn set_attributes(&self, number: u64, attributes: Attributes) -> Answer<()> {
        self.changing(|tree| {
            let (slot, node, _) = target(tree, number)?;
            self.touch(slot, node);
            let change = MetadataChange { attributes: Some(attributes), ..MetadataChange::default() };
            tree.slots[slot].change(|fs| Ok(fs.set_metadata(node, &change)?))
        })
    }
}
