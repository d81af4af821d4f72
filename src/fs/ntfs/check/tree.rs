//! One index as a tree: its root, its blocks, the order of its keys, and the bitmap of its blocks.

use super::codes::*;
use super::notes::{Notes, Remedy};
use crate::ntfs::index::{self, Entry, FileName};
use crate::ntfs::node::{Attr, Node, Value, kind};
use crate::ntfs::volume::Volume;
use std::cmp::Ordering;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_INDEX_DEPTH;
use vmrescue_base::text::utf16le_lossy;

/// Largest index that is read into memory as a whole: 2^32 entries need more, nobody has them.
const MAX_INDEX_BYTES: u64 = 1 << 30;
/// Bytes of the bitmap of an index that are looked at.
const MAX_BITMAP_BYTES: usize = 1 << 15;

/// What an index must say of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Type of the indexed attribute.
    pub(super) attribute: u32,
    /// Collation rule.
    pub(super) collation: u32,
}

/// $I30.
pub(super) const NAMES: Expected = Expected { attribute: kind::FILE_NAME, collation: 1 };

/// An index that is looked at.
pub(super) struct Tree<'a> {
    volume: &'a Volume,
    number: u64,
    name: &'a [u8],
    collation: u32,
    block_bytes: u32,
    unit: u64,
    allocation: Option<&'a Attr>,
    blocks: Vec<u8>,
    /// A bit for each block of the index that the tree reaches.
    seen: Vec<u8>,
    last: Option<Vec<u8>>,
    disorder: Option<String>,
    flags: Option<String>,
}

/// Walks the index `name` of a file; calls `visit` with every entry, in order. False when the tree is damaged.
pub(super) fn walk(
    volume: &Volume,
    number: u64,
    node: &Node,
    name: &[u8],
    expected: Expected,
    notes: &mut Notes,
    visit: &mut dyn FnMut(&Entry<'_>, &mut Notes),
) -> bool {
    let at = volume.record_offset(number);
    let shown = utf16le_lossy(name);
    let Some(value) = node.attribute(kind::INDEX_ROOT, name).and_then(Attr::resident) else {
        notes.note(SYSTEM_FILE, at, format!("record {number:#x} has no index {shown}"));
        return false;
    };
    let (header, root) = match index::root(value) {
        Ok(found) => found,
        Err(error) => {
            notes.note(INDEX, at, format!("record {number:#x}, index {shown}: {error}"));
            return false;
        }
    };
    if (header.attribute, header.collation) != (expected.attribute, expected.collation)
        || header.block_bytes != volume.boot().index_bytes
    {
        let detail = format!(
            "record {number:#x}, index {shown}: of attribute {:#x}, order {:#x}, blocks of {:#x} bytes",
            header.attribute, header.collation, header.block_bytes
        );
        notes.note(INDEX_HEADER, at, detail);
    }
    let allocation = node.attribute(kind::INDEX_ALLOCATION, name);
    let blocks = match allocation.map(|a| volume.attribute_bytes(a, MAX_INDEX_BYTES)).transpose() {
        Ok(blocks) => blocks.unwrap_or_default(),
        Err(error) => {
            notes.note(INDEX, at, format!("record {number:#x}, index {shown}: its blocks: {error}"));
            return false;
        }
    };
    let count = blocks.len() / header.block_bytes as usize;
    let mut tree = Tree {
        volume,
        number,
        name,
        collation: expected.collation,
        block_bytes: header.block_bytes,
        unit: volume.boot().index_vcn_bytes(header.block_bytes),
        allocation,
        blocks,
        seen: vec![0; count.div_ceil(8)],
        last: None,
        disorder: None,
        flags: None,
    };
    let large = value.get(0x1C).is_some_and(|flags| flags & 1 != 0);
    if let Err(error) = tree.node(root, large, 0, notes, visit) {
        let place = error.offset().or(at);
        notes.note(INDEX, place, format!("record {number:#x}, index {shown}: {error}"));
        return false;
    }
    if let Some(what) = tree.disorder.take() {
        notes.note(INDEX_ORDER, at, format!("record {number:#x}, index {shown}: {what}"));
        return false;
    }
    if let Some(what) = tree.flags.take() {
        notes.note(INDEX_NODE_FLAG, at, format!("record {number:#x}, index {shown}: {what}"));
    }
    tree.bitmap(node, count, at, notes);
    true
}

/// The bits of the blocks that the tree of an index reaches, and how many blocks there are; `None` when it is damaged.
pub(crate) fn reached(volume: &Volume, number: u64, name: &[u8]) -> Option<(Vec<u8>, usize)> {
    let node = volume.node(number).ok()?;
    let value = node.attribute(kind::INDEX_ROOT, name).and_then(Attr::resident)?;
    let (header, root) = index::root(value).ok()?;
    let allocation = node.attribute(kind::INDEX_ALLOCATION, name);
    let blocks =
        allocation.map(|a| volume.attribute_bytes(a, MAX_INDEX_BYTES)).transpose().ok()?.unwrap_or_default();
    let count = blocks.len() / header.block_bytes as usize;
    let mut tree = Tree {
        volume,
        number,
        name,
        collation: header.collation,
        block_bytes: header.block_bytes,
        unit: volume.boot().index_vcn_bytes(header.block_bytes),
        allocation,
        blocks,
        seen: vec![0; count.div_ceil(8)],
        last: None,
        disorder: None,
        flags: None,
    };
    tree.node(root, false, 0, &mut Notes::default(), &mut |_, _| {}).ok()?;
    Some((tree.seen, count))
}

impl Tree<'_> {
    fn node(
        &mut self,
        node: index::Node<'_>,
        large: bool,
        depth: usize,
        notes: &mut Notes,
        visit: &mut dyn FnMut(&Entry<'_>, &mut Notes),
    ) -> Result<()> {
        for entry in node.entries() {
            let entry = entry?;
            if entry.child.is_some() != large && self.flags.is_none() {
                self.flags = Some(format!("a node's flag says children: {large}, its entries: {}", !large));
            }
            if let Some(vcn) = entry.child {
                let mut bytes = self.block(vcn, depth)?;
                let large = bytes.get(0x24).is_some_and(|flags| flags & 1 != 0);
                self.node(index::block(&mut bytes, vcn)?, large, depth + 1, notes, visit)?;
            }
            if entry.last {
                continue;
            }
            if let Some(last) = &self.last
                && self.disorder.is_none()
                && self.compare(last, entry.key) != Ordering::Less
            {
                self.disorder = Some(format!("key {} is not behind the one before", self.shown(entry.key)));
            }
            self.last = Some(entry.key.to_vec());
            visit(&entry, notes);
        }
        Ok(())
    }

    fn shown(&self, key: &[u8]) -> String {
        match FileName::parse(key).filter(|_| self.collation == NAMES.collation) {
            Some(name) => format!("{:?}", utf16le_lossy(name.name_bytes())),
            None => vmrescue_base::text::hex(key.get(..key.len().min(24)).unwrap_or(key)),
        }
    }

    /// A copy of the block at `vcn`, marked as seen.
    fn block(&mut self, vcn: u64, depth: usize) -> Result<Vec<u8>> {
        let bad = |what: &str| Error::damaged(Layer::Ntfs, what).found(format!("VCN {vcn:#x}"));
        let at = vcn.checked_mul(self.unit).ok_or_else(|| bad("a child outside the index"))?;
        let length = u64::from(self.block_bytes);
        if !at.is_multiple_of(length) {
            return Err(bad("a child that is no block of the index"));
        }
        let block = at / length;
        let byte = self.seen.get_mut((block / 8) as usize).ok_or_else(|| bad("a child outside the index"))?;
        if depth >= MAX_INDEX_DEPTH || *byte & 1 << (block % 8) != 0 {
            return Err(bad("an index tree that is no tree"));
        }
        *byte |= 1 << (block % 8);
        let bytes = vmrescue_base::bytes::slice_at(&self.blocks, at as usize, length as usize);
        let bytes = bytes.ok_or_else(|| bad("a child outside the index"))?.to_vec();
        let (used, allocated) = (u32_at(&bytes, 0x1C).unwrap_or(0), u32_at(&bytes, 0x20).unwrap_or(0));
        if used > allocated || u64::from(allocated) + 0x18 > length {
            let place = self.place(at).unwrap_or(0);
            return Err(bad("an index block with more bytes in use than it has").at(place));
        }
        Ok(bytes)
    }

    /// Where a byte of the index lies on the volume.
    fn place(&self, at: u64) -> Option<u64> {
        let Some(Attr { value: Value::Clustered(clustered), .. }) = self.allocation else { return None };
        let cluster = u64::from(self.volume.boot().cluster_bytes);
        let (lcn, _) = clustered.map.find(at / cluster)?;
        Some(lcn? * cluster + at % cluster)
    }

    fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        let numbers = |key: &[u8]| -> Vec<u32> {
            key.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        match self.collation {
            1 => match (FileName::parse(a), FileName::parse(b)) {
                (Some(a), Some(b)) => {
                    let upper = self.volume.upcase().compare(a.units(), b.units());
                    upper.then_with(|| a.units().cmp(b.units()))
                }
                _ => Ordering::Less, // said elsewhere
            },
            0x11 => a.cmp(b),
            _ => numbers(a).cmp(&numbers(b)),
        }
    }

    /// The bitmap of the blocks against the tree, both ways.
    fn bitmap(&self, node: &Node, count: usize, at: Option<u64>, notes: &mut Notes) {
        let remedy = || Remedy::IndexBitmap { record: self.number, name: self.name.to_vec() };
        let attribute = node.attribute(kind::BITMAP, self.name);
        if attribute.is_none() && count == 0 {
            return;
        }
        let map = attribute.map(|a| self.volume.attribute_bytes(a, MAX_INDEX_BYTES / 8));
        let Some(Ok(map)) = map else {
            let (number, name) = (self.number, utf16le_lossy(self.name));
            return notes.note(
                INDEX,
                at,
                format!("record {number:#x}: the bitmap of index {name} cannot be read"),
            );
        };
        let bit =
            |map: &[u8], block: usize| map.get(block / 8).is_some_and(|byte| byte & 1 << (block % 8) != 0);
        // Bits behind what an index can have are not looked at one by one.
        for block in 0..count.max(map.len().min(MAX_BITMAP_BYTES) * 8) {
            let (used, marked) = (bit(&self.seen, block), bit(&map, block));
            if used == marked {
                continue;
            }
            let place = self.place(block as u64 * u64::from(self.block_bytes)).or(at);
            let (number, name) = (self.number, utf16le_lossy(self.name));
            let (code, what) = match used {
                true => (INDEX_MARKED_FREE, "is in use but marked free"),
                false => (INDEX_MARKED_USED, "is marked in use but no way leads to it"),
            };
            notes.mend(
                code,
                place,
                format!("record {number:#x}, index {name}: block {block:#x} {what}"),
                remedy(),
            );
        }
    }
}
