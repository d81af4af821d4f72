//! Setting and removing extended attributes, with the values of `xattr.rs` and the rules of ntfs-3g: what every file has
//! (attributes, times, security) is set and never removed.

use super::change::NewTimes;
use super::fault::{Answer, Fault, Reason};
use super::session::Session;
use super::tree::Place;
use super::xattr::{MAX_VALUE_BYTES, attributes_from, times_from};
use vmrescue_base::error::ErrorKind;
use vmrescue_base::guid::Guid;
use vmrescue_base::time::FileTime;
use vmrescue_fs::ntfs::ea;
use vmrescue_fs::{FileSystemMut, MetadataChange, NodeId};

/// The directory of the first long name: the one whose 8.3 name is meant, as with ntfs-3g.
fn short_name_directory(fs: &dyn FileSystemMut, node: NodeId) -> Answer<NodeId> {
    let names = fs.names(node)?;
    let paired = names.iter().find(|name| name.short);
    Ok(paired.or(names.first()).ok_or(Reason::Unsupported)?.directory)
}

fn bad() -> Fault {
    Reason::Invalid.into()
}

impl Session {
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
        if let Some(own) = name.strip_prefix("system.ntfs_") {
            self.has_ntfs_attributes(number)?;
            if let Some(wanted) = must_exist {
                match self.tree().attribute(number, name) {
                    Ok(_) if !wanted => return Err(Reason::Exists.into()),
                    Err(fault) if wanted && fault.reason == Reason::NoAttribute => return Err(fault),
                    _ => {}
                }
            }
            return self.set_ntfs_attribute(number, own, value);
        }
        let stream = name.strip_prefix("user.").filter(|_| self.tree().streams.by_attribute());
        let stream = stream.filter(|stream| !stream.is_empty()).ok_or(Reason::Unsupported)?;
        if value.len() as u64 > MAX_VALUE_BYTES {
            return Err(Reason::Range.into());
        }
        self.with_node(number, |fs, node| {
            let there = fs.streams(node)?.iter().any(|info| info.name == stream);
            match must_exist {
                Some(false) if there => return Err(Reason::Exists.into()),
                Some(true) if !there => return Err(Reason::NoAttribute.into()),
                _ => {}
            }
            fs.write(node, stream, 0, value)?;
            Ok(fs.set_len(node, stream, value.len() as u64)?)
        })
    }

    fn set_ntfs_attribute(&self, number: u64, name: &str, value: &[u8]) -> Answer<()> {
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
            "acl" => {
                let change = MetadataChange { security: Some(value.to_vec()), ..MetadataChange::default() };
                self.with_node(number, |fs, node| Ok(fs.set_metadata(node, &change)?))
            }
            "reparse_data" => self.with_node(number, |fs, node| Ok(fs.set_reparse(node, Some(value))?)),
            "object_id" => {
                let id = Guid::at(value, 0).filter(|_| value.len() <= 64).ok_or_else(bad)?;
                self.with_node(number, |fs, node| match value.get(16..).filter(|births| !births.is_empty()) {
                    None => Ok(fs.set_object_id(node, Some(id))?),
                    Some(given) => {
                        let mut births = [0; 48];
                        births[..given.len()].copy_from_slice(given);
                        Ok(fs.set_object_id_with_births(node, id, &births)?)
                    }
                })
            }
            "ea" => {
                let list = ea::parse(value).map_err(|_| bad())?;
                if list.is_empty() {
                    return Err(bad());
                }
                self.with_node(number, |fs, node| Ok(fs.set_extended_attributes(node, &list)?))
            }
            "dos_name" => {
                let short = std::str::from_utf8(value).map_err(|_| bad())?;
                self.with_node(number, |fs, node| {
                    let at = short_name_directory(&*fs, node)?;
                    Ok(fs.set_short_name(node, at, Some(short))?)
                })
            }
            _ => Err(Reason::Unsupported.into()),
        }
    }

    /// Refuses what is not a file of NTFS: FAT would take some of the values for nothing to do.
    fn has_ntfs_attributes(&self, number: u64) -> Answer<()> {
        match self.tree().place(number)? {
            Place::Node(slot, _) if self.tree().slots[slot].info.kind == "ntfs" => Ok(()),
            _ => Err(Reason::Unsupported.into()),
        }
    }

    fn with_node(
        &self,
        number: u64,
        work: impl FnOnce(&mut dyn FileSystemMut, NodeId) -> Answer<()>,
    ) -> Answer<()> {
        self.changing(|tree| {
            let Place::Node(slot, node) = tree.place(number)? else { return Err(Reason::Unsupported.into()) };
            self.touch(slot, node);
            tree.slots[slot].change(|fs| work(fs, node))
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`; `Denied` for those that every file has.
    pub fn remove_attribute(&self, number: u64, name: &str) -> Answer<()> {
        match name.strip_prefix("system.ntfs_") {
            Some("reparse_data" | "object_id" | "ea" | "dos_name") => {}
            Some(_) => return Err(Reason::Denied.into()),
            None => {
                let stream = name.strip_prefix("user.").filter(|_| self.tree().streams.by_attribute());
                let stream = stream.ok_or(Reason::NoAttribute)?;
                return self.with_node(number, |fs, node| match fs.remove_stream(node, stream) {
                    Err(e) if e.kind() == ErrorKind::NotFound => Err(Reason::NoAttribute.into()),
                    other => Ok(other?),
                });
            }
        }
        self.has_ntfs_attributes(number)?;
        self.tree().attribute(number, name)?;
        self.with_node(number, |fs, node| {
            match name {
                "system.ntfs_reparse_data" => fs.set_reparse(node, None)?,
                "system.ntfs_object_id" => fs.set_object_id(node, None)?,
                "system.ntfs_ea" => fs.set_extended_attributes(node, &[])?,
                _ => {
                    let at = short_name_directory(&*fs, node)?;
                    fs.set_short_name(node, at, None)?;
                }
            }
            Ok(())
        })
    }
}
