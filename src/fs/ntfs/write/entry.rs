//! Index entries, index nodes and the $FILE_NAME value, which is their key in directories.
//!
//! Entry: reference (or data offset and length in view indexes), length, key length, flags, key, and the VCN of the
//! child in the last 8 bytes when flag 1 is set. Flag 2 marks the entry that ends a node.

use super::attribute::{align8, put_all};
use crate::Times;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::utf16le_units;
use vmrescue_base::time::FileTime;

/// Bytes of an INDX block on every volume that Windows makes.
pub(crate) const INDEX_BLOCK_BYTES: usize = 4096;
/// Entry flag: has a child.
pub(crate) const HAS_CHILD: u16 = 1;
/// Entry flag: ends the node.
pub(crate) const LAST: u16 = 2;
/// FILE_NAME attribute bit: the file has an $I30 index.
pub(crate) const NAME_DIRECTORY: u32 = 0x1000_0000;
/// FILE_NAME attribute bit: the file has another index.
pub(crate) const NAME_VIEW_INDEX: u32 = 0x2000_0000;

/// Name spaces of $FILE_NAME.
pub(crate) mod namespace {
    pub(crate) const POSIX: u8 = 0;
    pub(crate) const WIN32: u8 = 1;
    pub(crate) const DOS: u8 = 2;
    pub(crate) const WIN32_AND_DOS: u8 = 3;
}

/// The $FILE_NAME value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileName {
    pub(crate) parent: u64,
    pub(crate) times: Times,
    pub(crate) allocated_bytes: u64,
    pub(crate) size_bytes: u64,
    pub(crate) attributes: u32,
    /// Reparse tag, or size of the extended attributes.
    pub(crate) reparse: u32,
    pub(crate) namespace: u8,
    pub(crate) name: Vec<u16>,
}

impl FileName {
    /// As it stands on the disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 0x42 + 2 * self.name.len()];
        let name: Vec<u8> = self.name.iter().flat_map(|u| u.to_le_bytes()).collect();
        put_all(
            &mut out,
            &[
                (0x00, &self.parent.to_le_bytes()),
                (0x08, &self.times.created.0.to_le_bytes()),
                (0x10, &self.times.modified.0.to_le_bytes()),
                (0x18, &self.times.changed.0.to_le_bytes()),
                (0x20, &self.times.accessed.0.to_le_bytes()),
                (0x28, &self.allocated_bytes.to_le_bytes()),
                (0x30, &self.size_bytes.to_le_bytes()),
                (0x38, &self.attributes.to_le_bytes()),
                (0x3C, &self.reparse.to_le_bytes()),
                (0x40, &[self.name.len() as u8, self.namespace]),
                (0x42, &name),
            ],
        );
        out
    }

    /// From the disk; `None` when it does not hold its own fields.
    pub(crate) fn decode(bytes: &[u8]) -> Option<FileName> {
        let time = |at| u64_at(bytes, at).map(FileTime);
        Some(FileName {
            parent: u64_at(bytes, 0)?,
            times: Times {
                created: time(0x08)?,
                modified: time(0x10)?,
                changed: time(0x18)?,
                accessed: time(0x20)?,
            },
            allocated_bytes: u64_at(bytes, 0x28)?,
            size_bytes: u64_at(bytes, 0x30)?,
            attributes: u32_at(bytes, 0x38)?,
            reparse: u32_at(bytes, 0x3C)?,
            namespace: *bytes.get(0x41)?,
            name: utf16le_units(slice_at(bytes, 0x42, 2 * usize::from(*bytes.get(0x40)?))?),
        })
    }
}

/// One entry of an index node; `child` is the VCN of the node with the smaller keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The first 8 bytes: a file reference in directories.
    pub(crate) reference: u64,
    /// Key, and in view indexes the data behind it; empty in the last entry.
    pub(crate) key: Vec<u8>,
    /// Bytes of `key` that are the key itself.
    pub(crate) key_bytes: u16,
    /// Child node.
    pub(crate) child: Option<u64>,
}

impl Entry {
    /// An entry of a directory.
    pub(crate) fn file(reference: u64, name: &FileName) -> Entry {
        let key = name.encode();
        Entry { reference, key_bytes: key.len() as u16, key, child: None }
    }

    /// An entry of a view index: `data` stands behind `key`, aligned to 4 as all keys here are.
    pub(crate) fn view(key: &[u8], data: &[u8]) -> Entry {
        let reference = (0x10 + key.len()) as u64 | (data.len() as u64) << 16;
        Entry { reference, key_bytes: key.len() as u16, key: [key, data].concat(), child: None }
    }

    /// The entry that ends a node.
    pub(crate) fn last(child: Option<u64>) -> Entry {
        Entry { reference: 0, key: Vec::new(), key_bytes: 0, child }
    }

    /// Bytes on the disk.
    pub(crate) fn length(&self) -> usize {
        align8(0x10 + self.key.len()) + if self.child.is_some() { 8 } else { 0 }
    }

    fn encode_to(&self, out: &mut Vec<u8>, last: bool) {
        let (start, length) = (out.len(), self.length());
        let flags = if self.child.is_some() { HAS_CHILD } else { 0 } | if last { LAST } else { 0 };
        out.extend_from_slice(&self.reference.to_le_bytes());
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(&self.key_bytes.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.key);
        out.resize(start + length, 0);
        if let Some(child) = self.child {
            put_all(out, &[(start + length - 8, &child.to_le_bytes())]);
        }
    }
}

/// An entry that does not end its node, as it stands on the disk.
pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.length());
    entry.encode_to(&mut out, false);
    out
}

/// The entries of one node, the ending one included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// In order; the last one has no key.
    pub(crate) entries: Vec<Entry>,
}

impl Node {
    /// Bytes of all entries.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entries.iter().map(Entry::length).sum()
    }

    /// True when entries have children.
    pub(crate) fn is_inner(&self) -> bool {
        self.entries.last().is_some_and(|e| e.child.is_some())
    }

    fn encode_entries(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entry_bytes());
        for (index, entry) in self.entries.iter().enumerate() {
            entry.encode_to(&mut out, index + 1 == self.entries.len());
        }
        out
    }

    fn decode_entries(bytes: &[u8]) -> Option<Node> {
        let (mut at, mut entries, mut inner) = (0, Vec::new(), None);
        loop {
            let length = usize::from(u16_at(bytes, at + 8)?);
            let flags = u16_at(bytes, at + 12)?;
            let entry = slice_at(bytes, at, length)?;
            let key_bytes = u16_at(entry, 10)?;
            let has_child = flags & HAS_CHILD != 0;
            // All entries of a node have children, or none.
            if length < 0x10 || !length.is_multiple_of(8) || *inner.get_or_insert(has_child) != has_child {
                return None;
            }
            let end = if has_child { length.checked_sub(8).filter(|e| *e >= 0x10)? } else { length };
            let child = if has_child { Some(u64_at(entry, end)?) } else { None };
            if flags & LAST != 0 {
                entries.push(Entry::last(child));
                return Some(Node { entries });
            }
            let reference = u64_at(entry, 0)?;
            let key = entry.get(0x10..end)?.to_vec();
            if usize::from(key_bytes) > key.len() {
                return None;
            }
            entries.push(Entry { reference, key, key_bytes, child });
            at += length;
        }
    }

    /// Cuts the padding behind the $FILE_NAME keys of a directory, so that equal entries are equal bytes.
    pub(crate) fn trim_keys(&mut self) {
        for entry in &mut self.entries {
            entry.key.truncate(usize::from(entry.key_bytes));
        }
    }
}

/// What $INDEX_ROOT says of its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexKind {
    /// Type of the indexed attribute, 0 for view indexes.
    pub(crate) attribute: u32,
    /// Collation rule.
    pub(crate) collation: u32,
    /// Bytes of an INDX block.
    pub(crate) block_bytes: u32,
    /// The same in clusters, or in 512 bytes where clusters are larger.
    pub(crate) clusters_per_block: u8,
}

impl IndexKind {
    /// An index of this volume; `attribute` and `collation` as above.
    pub(crate) fn new(attribute: u32, collation: u32, cluster_bytes: u32) -> IndexKind {
        let block_bytes = INDEX_BLOCK_BYTES as u32;
        IndexKind {
            attribute,
            collation,
            block_bytes,
            clusters_per_block: (block_bytes / vcn_bytes(cluster_bytes)) as u8,
        }
    }

    /// The index of a directory of a volume with blocks of `block_bytes`.
    pub(crate) fn for_blocks(block_bytes: u32, cluster_bytes: u64) -> IndexKind {
        let clusters_per_block = (u64::from(block_bytes) / vcn_bytes_of(cluster_bytes, block_bytes)) as u8;
        IndexKind { attribute: 0x30, collation: 1, block_bytes, clusters_per_block }
    }

    /// The index of a directory.
    pub(crate) fn directory(cluster_bytes: u32) -> IndexKind {
        IndexKind::new(0x30, 1, cluster_bytes)
    }
}

/// Unit in which child VCNs count: a cluster, or 512 bytes where clusters are larger than index blocks.
pub(crate) fn vcn_bytes(cluster_bytes: u32) -> u32 {
    if cluster_bytes as usize <= INDEX_BLOCK_BYTES { cluster_bytes } else { 512 }
}

/// The same for blocks of another size.
pub(crate) fn vcn_bytes_of(cluster_bytes: u64, block_bytes: u32) -> u64 {
    if cluster_bytes <= u64::from(block_bytes) { cluster_bytes } else { 512 }
}

/// The $INDEX_ROOT value.
pub(crate) fn encode_root(kind: IndexKind, node: &Node) -> Vec<u8> {
    let entries = node.encode_entries();
    let mut out = vec![0; 0x20];
    let used = (0x10 + entries.len()) as u32;
    put_all(
        &mut out,
        &[
            (0x00, &kind.attribute.to_le_bytes()),
            (0x04, &kind.collation.to_le_bytes()),
            (0x08, &kind.block_bytes.to_le_bytes()),
            (0x0C, &[kind.clusters_per_block]),
            (0x10, &0x10u32.to_le_bytes()),
            (0x14, &used.to_le_bytes()),
            (0x18, &used.to_le_bytes()),
            (0x1C, &[u8::from(node.is_inner())]),
        ],
    );
    out.extend_from_slice(&entries);
    out
}

/// Decodes an $INDEX_ROOT value.
///
/// # Errors
/// `Damaged` when it does not hold its own fields.
pub(crate) fn decode_root(bytes: &[u8]) -> Result<(IndexKind, Node)> {
    let decode = || {
        let kind = IndexKind {
            attribute: u32_at(bytes, 0)?,
            collation: u32_at(bytes, 4)?,
            block_bytes: u32_at(bytes, 8)?,
            clusters_per_block: *bytes.get(12)?,
        };
        Some((kind, decode_header(bytes.get(0x10..)?)?))
    };
    decode().ok_or_else(|| Error::damaged(Layer::Ntfs, "an index root that does not hold its own entries"))
}

/// Decodes the node behind an index header at the start of `bytes`.
fn decode_header(bytes: &[u8]) -> Option<Node> {
    let (first, used) = (u32_at(bytes, 0)? as usize, u32_at(bytes, 4)? as usize);
    Node::decode_entries(bytes.get(first..used)?)
}

/// Offset of the entries in an INDX block of this size.
fn block_entries(block_bytes: usize) -> usize {
    align8(0x28 + 2 * (block_bytes / 512 + 1))
}

/// Bytes that the entries of a block may take.
pub(crate) fn block_room(block_bytes: usize) -> usize {
    block_bytes - block_entries(block_bytes)
}

/// An INDX block without fixups applied; `None` when the entries do not fit.
pub(crate) fn encode_block(node: &Node, vcn: u64, usn: u16, block_bytes: usize) -> Option<Vec<u8>> {
    let entries = node.encode_entries();
    let first = block_entries(block_bytes);
    if first + entries.len() > block_bytes {
        return None;
    }
    let mut out = vec![0; block_bytes];
    put_all(
        &mut out,
        &[
            (0x00, b"INDX"),
            (0x04, &0x28u16.to_le_bytes()),
            (0x06, &((block_bytes / 512 + 1) as u16).to_le_bytes()),
            (0x10, &vcn.to_le_bytes()),
            (0x18, &((first - 0x18) as u32).to_le_bytes()),
            (0x1C, &((first - 0x18 + entries.len()) as u32).to_le_bytes()),
            (0x20, &((block_bytes - 0x18) as u32).to_le_bytes()),
            (0x24, &[u8::from(node.is_inner())]),
            (0x28, &usn.to_le_bytes()),
            (first, &entries),
        ],
    );
    Some(out)
}

/// Decodes an INDX block without fixups, that must say it is `vcn`.
///
/// # Errors
/// `Damaged` when it does not hold its own fields.
pub(crate) fn decode_block(bytes: &[u8], vcn: u64) -> Result<Node> {
    let whole = bytes.get(..4) == Some(b"INDX") && u64_at(bytes, 0x10) == Some(vcn);
    whole.then(|| bytes.get(0x18..).and_then(decode_header)).flatten().ok_or_else(|| {
        Error::damaged(Layer::Ntfs, format!("index block {vcn:#x} does not hold its own entries"))
    })
}
