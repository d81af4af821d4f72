//! Extended attributes: named streams as `user.<stream>`, and what only NTFS knows under the names of ntfs-3g, so that the
//! tools for these work.
//!
//! | name | value |
//! |---|---|
//! | `system.ntfs_attrib`, `_be` | DOS attributes, 4 bytes, in the order of this machine or big-endian |
//! | `system.ntfs_times`, `_be` | created, modified, accessed, changed: FILETIMEs of 8 bytes |
//! | `system.ntfs_crtime`, `_be` | created |
//! | `system.ntfs_acl` | self-relative security descriptor |
//! | `system.ntfs_reparse_data` | reparse point with its header |
//! | `system.ntfs_ea` | extended attributes of OS/2 |
//! | `system.ntfs_object_id` | object id |
//! | `system.ntfs_dos_name` | 8.3 name |
//!
//! The `system` names are not listed, as with ntfs-3g: programs that copy all attributes would carry them to volumes that
//! have no use for them.

use super::fault::{Answer, Reason};
use super::tree::{Place, Tree};
use vmrescue_fs::{Attributes, Metadata, NodeId, RawPart};

/// FILE_ATTRIBUTE_NORMAL: no other attribute.
const NORMAL: u32 = 0x80;
/// Largest value that an attribute may have on Linux.
pub(super) const MAX_VALUE_BYTES: u64 = 64 << 10;
/// The stream that holds the packed bytes of files that WOF compressed; Windows does not show it either.
const WOF_STREAM: &str = "WofCompressedData";

/// Numbers as one attribute holds them.
fn packed<const N: usize>(numbers: &[u64], big: bool) -> Vec<u8> {
    let bytes = |n: &u64| if big { n.to_be_bytes()[8 - N..].to_vec() } else { n.to_le_bytes()[..N].to_vec() };
    // Little-endian where this machine is; the `_be` names are there for all others.
    let native =
        |n: &u64| if cfg!(target_endian = "big") { n.to_be_bytes()[8 - N..].to_vec() } else { bytes(n) };
    numbers.iter().flat_map(|n| if big { bytes(n) } else { native(n) }).collect()
}

fn attribute_bits(metadata: &Metadata) -> u64 {
    u64::from(if metadata.attributes.0 == 0 { NORMAL } else { metadata.attributes.0 })
}

impl Tree {
    /// Names of the extended attributes of a node.
    ///
    /// # Errors
    /// Damage.
    pub fn attribute_names(&self, number: u64) -> Answer<Vec<String>> {
        match self.place(number)? {
            Place::Node(slot, node) if self.streams.by_attribute() => {
                let streams = self.slots[slot].look(|fs| fs.streams(node))?;
                let named = streams.into_iter().filter(|s| !s.name.is_empty() && s.name != WOF_STREAM);
                Ok(named.map(|stream| format!("user.{}", stream.name)).collect())
            }
            Place::Registry(at) if !self.registry()?.facts(&at)?.directory => {
                Ok(vec!["user.registry.type".into(), "user.registry.raw".into()])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`; `Range` for streams that are too large for one; damage.
    pub fn attribute(&self, number: u64, name: &str) -> Answer<Vec<u8>> {
        match self.place(number)? {
            Place::Node(slot, node) => match name.strip_prefix("user.") {
                Some(stream) => self.stream_value(slot, node, stream),
                None => match name.strip_prefix("system.ntfs_") {
                    Some(name) => self.ntfs_attribute(slot, node, name),
                    None => Err(Reason::NoAttribute.into()),
                },
            },
            Place::Registry(at) => self.registry()?.attribute(&at, name),
            Place::Top | Place::Stream(..) => Err(Reason::NoAttribute.into()),
        }
    }

    fn stream_value(&self, slot: usize, node: NodeId, stream: &str) -> Answer<Vec<u8>> {
        if !self.streams.by_attribute() || stream.is_empty() {
            return Err(Reason::NoAttribute.into());
        }
        let streams = self.slots[slot].look(|fs| fs.streams(node))?;
        let info = streams.into_iter().find(|info| info.name == stream).ok_or(Reason::NoAttribute)?;
        if info.size_bytes > MAX_VALUE_BYTES {
            return Err(Reason::Range.into());
        }
        let mut bytes = vec![0; info.size_bytes as usize];
        let read = self.slots[slot].look(|fs| fs.read(node, stream, 0, &mut bytes))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn ntfs_attribute(&self, slot: usize, node: NodeId, name: &str) -> Answer<Vec<u8>> {
        if self.slots[slot].info.kind != "ntfs" {
            return Err(Reason::NoAttribute.into());
        }
        let part = |part| -> Answer<Vec<u8>> {
            self.slots[slot].look(|fs| fs.raw_part(node, part))?.ok_or_else(|| Reason::NoAttribute.into())
        };
        match name {
            "acl" => return part(RawPart::SecurityDescriptor),
            "reparse_data" => return part(RawPart::ReparsePoint),
            "ea" => return part(RawPart::ExtendedAttributes),
            "object_id" => return part(RawPart::ObjectId),
            "dos_name" => {
                let names = self.slots[slot].look(|fs| fs.names(node))?;
                let short = names.into_iter().find(|name| name.short).ok_or(Reason::NoAttribute)?;
                // A name that is its own short one may have small letters; DOS has none, and ntfs-3g shows none.
                return Ok(short.name.to_uppercase().into_bytes());
            }
            _ => {}
        }
        let metadata = self.slots[slot].look(|fs| fs.metadata(node))?;
        let t = metadata.times;
        let times = [t.created.0, t.modified.0, t.accessed.0, t.changed.0];
        Ok(match name {
            "attrib" => packed::<4>(&[attribute_bits(&metadata)], false),
            "attrib_be" => packed::<4>(&[attribute_bits(&metadata)], true),
            "times" => packed::<8>(&times, false),
            "times_be" => packed::<8>(&times, true),
            "crtime" => packed::<8>(&times[..1], false),
            "crtime_be" => packed::<8>(&times[..1], true),
            _ => return Err(Reason::NoAttribute.into()),
        })
    }
}

/// Attributes from the bytes of `system.ntfs_attrib`.
pub(super) fn attributes_from(bytes: &[u8], big: bool) -> Option<Attributes> {
    let bytes: [u8; 4] = bytes.try_into().ok()?;
    Some(Attributes(if big { u32::from_be_bytes(bytes) } else { u32::from_ne_bytes(bytes) }))
}

/// Up to four FILETIMEs from the bytes of `system.ntfs_times`; fewer leave the others as they are.
pub(super) fn times_from(bytes: &[u8], big: bool) -> Option<Vec<u64>> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let number = |c: &[u8; 8]| if big { u64::from_be_bytes(*c) } else { u64::from_ne_bytes(*c) };
    (rest.is_empty() && (1..=4).contains(&chunks.len())).then(|| chunks.iter().map(number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_packed_and_unpacked() {
        assert_eq!(packed::<4>(&[0x1122_3344], true), [0x11, 0x22, 0x33, 0x44]);
        assert_eq!(attributes_from(&packed::<4>(&[0x21], false), false), Some(Attributes(0x21)));
        assert_eq!(times_from(&packed::<8>(&[5, 6], true), true), Some(vec![5, 6]));
        assert_eq!(times_from(&[0; 12], true), None);
        assert_eq!(attributes_from(&[1], true), None);
    }
}
