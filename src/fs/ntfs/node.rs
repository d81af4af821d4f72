//! A whole file: the attributes of its base record and of all extension records, segments joined by the attribute list.

use super::map::RunMap;
use super::record::{Attribute, Body, Record, number_of};
use super::volume::Volume;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_ATTRIBUTE_LIST_BYTES;

/// Attribute types.
pub(crate) mod kind {
    pub(crate) const STANDARD_INFORMATION: u32 = 0x10;
    pub(crate) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(crate) const FILE_NAME: u32 = 0x30;
    pub(crate) const OBJECT_ID: u32 = 0x40;
    pub(crate) const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub(crate) const VOLUME_NAME: u32 = 0x60;
    pub(crate) const VOLUME_INFORMATION: u32 = 0x70;
    pub(crate) const DATA: u32 = 0x80;
    pub(crate) const INDEX_ROOT: u32 = 0x90;
    pub(crate) const INDEX_ALLOCATION: u32 = 0xA0;
    pub(crate) const BITMAP: u32 = 0xB0;
    pub(crate) const REPARSE_POINT: u32 = 0xC0;
    pub(crate) const EA: u32 = 0xE0;
}

/// A value in clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clustered {
    /// All runs.
    pub(crate) map: RunMap,
    /// Bytes of the value.
    pub(crate) size: u64,
    /// Bytes ever written.
    pub(crate) valid: u64,
    /// Bytes that clusters are taken for.
    pub(crate) taken: u64,
    /// Power of two of the clusters of a compression unit, 0 without compression.
    pub(crate) unit: u8,
}

/// Where the value of an attribute is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Here.
    Resident(Vec<u8>),
    /// In clusters.
    Clustered(Clustered),
}

/// An attribute with all of its segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attr {
    /// Type.
    pub(crate) kind: u32,
    /// Name, UTF-16LE.
    pub(crate) name: Vec<u8>,
    /// Flags.
    pub(crate) flags: u16,
    /// Value.
    pub(crate) value: Value,
}

impl Attr {
    /// From its only or first segment.
    pub(crate) fn first(attribute: &Attribute<'_>, clusters: u64) -> Result<Attr> {
        let value = match attribute.body {
            Body::Resident(value) => Value::Resident(value.to_vec()),
            Body::NonResident(mapped) => {
                let mut map = RunMap::default();
                map.append(mapped.lowest_vcn, mapped.pairs, clusters)?;
                let compressed = attribute.flags & 0xFF != 0;
                Value::Clustered(Clustered {
                    map,
                    size: mapped.size,
                    valid: mapped.valid.min(mapped.size),
                    taken: mapped.total_allocated.unwrap_or(mapped.allocated),
                    unit: if compressed { mapped.unit } else { 0 },
                })
            }
        };
        Ok(Attr { kind: attribute.kind, name: attribute.name.to_vec(), flags: attribute.flags, value })
    }

    /// Bytes of the value.
    pub(crate) fn size(&self) -> u64 {
        match &self.value {
            Value::Resident(value) => value.len() as u64,
            Value::Clustered(clustered) => clustered.size,
        }
    }

    /// Bytes that clusters are taken for.
    pub(crate) fn taken(&self) -> u64 {
        match &self.value {
            Value::Resident(_) => 0,
            Value::Clustered(clustered) => clustered.taken,
        }
    }

    /// The value, when it is in the record.
    pub(crate) fn resident(&self) -> Option<&[u8]> {
        match &self.value {
            Value::Resident(value) => Some(value),
            Value::Clustered(_) => None,
        }
    }
}

/// A whole file.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Sequence number.
    pub(crate) sequence: u16,
    /// Record flags.
    pub(crate) flags: u16,
    /// All attributes, without the attribute list.
    pub(crate) attributes: Vec<Attr>,
}

impl Node {
    /// The attribute of this type and name (UTF-16LE).
    pub(crate) fn attribute(&self, kind: u32, name: &[u8]) -> Option<&Attr> {
        self.attributes.iter().find(|a| a.kind == kind && a.name == name)
    }

    /// All attributes of a type.
    pub(crate) fn all(&self, kind: u32) -> impl Iterator<Item = &Attr> {
        self.attributes.iter().filter(move |a| a.kind == kind)
    }

    /// Reads record `number` and everything that belongs to it.
    ///
    /// # Errors
    /// Damage of any of its records.
    pub(crate) fn load(volume: &Volume, number: u64) -> Result<Node> {
        let bytes = volume.fixed_record(number)?;
        Node::assemble(volume, number, &bytes, |volume, number| volume.fixed_record(number))
    }

    /// As [`Node::load`], with the base record at hand.
    fn assemble(
        volume: &Volume,
        number: u64,
        bytes: &[u8],
        mut read: impl FnMut(&Volume, u64) -> Result<Vec<u8>>,
    ) -> Result<Node> {
        let record = Record::of_fixed(bytes);
        let clusters = volume.boot().clusters();
        let mut own = Vec::new();
        let mut list = None;
        for attribute in record.attributes() {
            let attribute = attribute.map_err(|e| e.at(volume.record_offset(number).unwrap_or(0)))?;
            if attribute.kind == kind::ATTRIBUTE_LIST {
                list = Some(Attr::first(&attribute, clusters)?);
            } else {
                own.push(attribute);
            }
        }
        let mut node = Node { sequence: record.sequence(), flags: record.flags(), attributes: Vec::new() };
        let Some(list) = list else {
            for attribute in &own {
                node.add(attribute, clusters)?;
            }
            return Ok(node);
        };
        let list = volume.attribute_bytes(&list, MAX_ATTRIBUTE_LIST_BYTES)?;
        let mut records: Vec<(u64, Vec<u8>)> = Vec::new();
        for entry in ListEntries(&list) {
            let home = number_of(entry.reference);
            if home == number {
                let found = own.iter().find(|a| a.id == entry.id && a.kind == entry.kind);
                node.add(found.ok_or_else(|| missing(number, &entry))?, clusters)?;
                continue;
            }
            if !records.iter().any(|(known, _)| *known == home) {
                records.push((home, read(volume, home)?));
            }
            let Some((_, bytes)) = records.iter().find(|(known, _)| *known == home) else { continue };
            let extension = Record::of_fixed(bytes);
            if number_of(extension.base()) != number {
                return Err(missing(number, &entry).found(format!("a record of {:#x}", extension.base())));
            }
            let found = extension.attributes().flatten().find(|a| a.id == entry.id && a.kind == entry.kind);
            node.add(&found.ok_or_else(|| missing(number, &entry))?, clusters)?;
        }
        Ok(node)
    }

    /// Adds an attribute, or a further segment to the attribute that it belongs to.
    fn add(&mut self, attribute: &Attribute<'_>, clusters: u64) -> Result<()> {
        if let Body::NonResident(mapped) = attribute.body
            && mapped.lowest_vcn != 0
        {
            let first =
                self.attributes.iter_mut().find(|a| a.kind == attribute.kind && a.name == attribute.name);
            if let Some(Attr { value: Value::Clustered(clustered), .. }) = first {
                return clustered.map.append(mapped.lowest_vcn, mapped.pairs, clusters);
            }
        }
        self.attributes.push(Attr::first(attribute, clusters)?);
        Ok(())
    }
}

fn missing(number: u64, entry: &ListEntry) -> Error {
    Error::damaged(
        Layer::Ntfs,
        format!("attribute {:#x} in the list of record {number:#x} is not in its record", entry.kind),
    )
    .expected(format!("record {:#x}, instance {}", number_of(entry.reference), entry.id))
}

/// An entry of an attribute list.
pub(crate) struct ListEntry {
    /// Type.
    pub(crate) kind: u32,
    /// First VCN of the segment.
    pub(crate) lowest_vcn: u64,
    /// Record that holds the segment.
    pub(crate) reference: u64,
    /// Instance number there.
    pub(crate) id: u16,
}

/// The entries of an attribute list. Ends at the first that is not one.
pub(crate) struct ListEntries<'a>(pub(crate) &'a [u8]);

impl Iterator for ListEntries<'_> {
    type Item = ListEntry;

    // Bounded: every entry takes at least 0x1A bytes of the list.
    fn next(&mut self) -> Option<ListEntry> {
        let length = usize::from(u16_at(self.0, 4)?);
        let bytes = slice_at(self.0, 0, length).filter(|_| length >= 0x1A)?;
        self.0 = &self.0[length..];
        Some(ListEntry {
            kind: u32_at(bytes, 0)?,
            lowest_vcn: u64_at(bytes, 8)?,
            reference: u64_at(bytes, 0x10)?,
            id: u16_at(bytes, 0x18)?,
        })
    }
}
