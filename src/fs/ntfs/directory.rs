//! Directories: the walk over the B+ tree of $I30, in order and for one name.

use super::index::{self, DOS, Entry, FileName};
use super::node::{Attr, Node, kind};
use super::record::{DIRECTORY, number_of};
use super::volume::Volume;
use crate::tag::kind_of;
use crate::{Attributes, DirEntry, NodeId, NodeKind};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use vmrescue_base::bytes::{slice_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_INDEX_DEPTH;

/// `$I30` in UTF-16LE.
pub(crate) const I30: &[u8] = b"$\0I\x003\x000\0";
/// An index that is not larger is read at once.
const WHOLE_INDEX_BYTES: u64 = 16 << 20;

/// The index of one directory.
pub(crate) struct Directory<'v> {
    volume: &'v Volume,
    number: u64,
    root: &'v [u8],
    allocation: Option<&'v Attr>,
    block_bytes: u32,
    whole: Option<Vec<u8>>,
}

impl<'v> Directory<'v> {
    /// The index of a node.
    ///
    /// # Errors
    /// `Invalid` when it is not a directory.
    pub(crate) fn open(volume: &'v Volume, number: u64, node: &'v Node) -> Result<Directory<'v>> {
        let root = node.attribute(kind::INDEX_ROOT, I30).and_then(Attr::resident);
        let root = root
            .filter(|_| node.flags & DIRECTORY != 0)
            .ok_or_else(|| Error::invalid(Layer::Ntfs, format!("file {number:#x} is not a directory")))?;
        let (header, _) = index::root(root)?;
        let allocation = node.attribute(kind::INDEX_ALLOCATION, I30);
        Ok(Directory { volume, number, root, allocation, block_bytes: header.block_bytes, whole: None })
    }

    /// Another index of a node, whose keys are numbers and whose entries hold data (a view index).
    ///
    /// # Errors
    /// `NotFound` without it; damage.
    pub(crate) fn open_view(
        volume: &'v Volume,
        number: u64,
        node: &'v Node,
        name: &[u8],
    ) -> Result<Directory<'v>> {
        let root = node.attribute(kind::INDEX_ROOT, name).and_then(Attr::resident);
        let root = root.ok_or_else(|| {
            Error::not_found(Layer::Ntfs, format!("file {number:#x} has no index of this name"))
        })?;
        let (header, _) = index::root(root)?;
        let allocation = node.attribute(kind::INDEX_ALLOCATION, name);
        Ok(Directory { volume, number, root, allocation, block_bytes: header.block_bytes, whole: None })
    }

    /// The data behind a key of a view index; keys collate as rows of numbers of 32 bits.
    pub(crate) fn find_view(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let (_, node) = index::root(self.root)?;
        self.find_view_in(node, key, 0)
    }

    fn find_view_in(&self, node: index::Node<'_>, key: &[u8], depth: usize) -> Result<Option<Vec<u8>>> {
        let numbers = |key: &[u8]| -> Vec<u32> { (0..).map_while(|at| u32_at(key, 4 * at)).collect() };
        for entry in node.entries() {
            let entry = entry?;
            let order = if entry.last { Ordering::Greater } else { numbers(entry.key).cmp(&numbers(key)) };
            if order == Ordering::Equal {
                let (at, length) = (entry.reference & 0xFFFF, entry.reference >> 16 & 0xFFFF);
                return Ok(slice_at(entry.body, at as usize, length as usize).map(<[u8]>::to_vec));
            }
            if order == Ordering::Greater {
                let Some(vcn) = entry.child else { return Ok(None) };
                if depth >= MAX_INDEX_DEPTH {
                    return Err(Error::damaged(Layer::Ntfs, "an index tree that is no tree").found(vcn));
                }
                let mut bytes = self.block(vcn)?;
                return self.find_view_in(index::block(&mut bytes, vcn)?, key, depth + 1);
            }
        }
        Ok(None)
    }

    /// The bytes of the block at `vcn`, fixups in.
    fn block(&self, vcn: u64) -> Result<Vec<u8>> {
        let at = vcn.checked_mul(self.volume.boot().index_vcn_bytes(self.block_bytes));
        let (Some(at), Some(allocation)) = (at, self.allocation) else {
            return Err(Error::damaged(Layer::Ntfs, "a child node in an index without blocks").found(vcn));
        };
        let length = self.block_bytes as usize;
        if let Some(whole) = &self.whole {
            let bytes = usize::try_from(at).ok().and_then(|at| slice_at(whole, at, length));
            if let Some(bytes) = bytes {
                return Ok(bytes.to_vec());
            }
        }
        let mut bytes = vec![0; length];
        if self.volume.read_attribute(self.number, allocation, at, &mut bytes)? < length {
            return Err(Error::damaged(Layer::Ntfs, "an index block outside the index").found(vcn));
        }
        Ok(bytes)
    }

    /// Calls `visit` with every entry in order; with its block when it is not in the root.
    ///
    /// # Errors
    /// Damage; what `visit` returns.
    pub(crate) fn walk(&mut self, visit: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<HashSet<u64>> {
        if let Some(allocation) = self.allocation
            && allocation.size() <= WHOLE_INDEX_BYTES
        {
            self.whole = self.volume.attribute_bytes(allocation, WHOLE_INDEX_BYTES).ok();
        }
        let mut seen = HashSet::new();
        let (_, node) = index::root(self.root)?;
        self.walk_node(node, 0, &mut seen, visit)?;
        Ok(seen)
    }

    fn walk_node(
        &self,
        node: index::Node<'_>,
        depth: usize,
        seen: &mut HashSet<u64>,
        visit: &mut dyn FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        for entry in node.entries() {
            let entry = entry?;
            if let Some(vcn) = entry.child {
                // Each block once: this also bounds the walk by the size of the index.
                if depth >= MAX_INDEX_DEPTH || !seen.insert(vcn) {
                    return Err(Error::damaged(Layer::Ntfs, "an index tree that is no tree").found(vcn));
                }
                let mut bytes = self.block(vcn)?;
                self.walk_node(index::block(&mut bytes, vcn)?, depth + 1, seen, visit)?;
            }
            if !entry.last {
                visit(entry)?;
            }
        }
        Ok(())
    }

    /// The reference behind a name; the exact spelling wins over another case.
    pub(crate) fn find(&self, name: &[u16], sensitive: bool) -> Result<Option<u64>> {
        let (_, node) = index::root(self.root)?;
        let mut near = None;
        let mut seen = HashSet::new();
        let exact = self.find_in(node, name, 0, &mut seen, &mut near)?;
        Ok(exact.or(near.filter(|_| !sensitive)))
    }

    fn find_in(
        &self,
        node: index::Node<'_>,
        name: &[u16],
        depth: usize,
        seen: &mut HashSet<u64>,
        near: &mut Option<u64>,
    ) -> Result<Option<u64>> {
        for entry in node.entries() {
            let entry = entry?;
            let key = FileName::parse(entry.key);
            let order = match &key {
                _ if entry.last => Ordering::Greater,
                Some(key) => self.volume.upcase().compare(key.units(), name.iter().copied()),
                None => return Err(Error::damaged(Layer::Ntfs, "key of a directory entry")),
            };
            if order == Ordering::Less {
                continue;
            }
            if order == Ordering::Equal {
                if key.is_some_and(|key| key.units().eq(name.iter().copied())) {
                    return Ok(Some(entry.reference));
                }
                near.get_or_insert(entry.reference);
            }
            if let Some(vcn) = entry.child {
                if depth >= MAX_INDEX_DEPTH || !seen.insert(vcn) {
                    return Err(Error::damaged(Layer::Ntfs, "an index tree that is no tree").found(vcn));
                }
                let mut bytes = self.block(vcn)?;
                let child = index::block(&mut bytes, vcn)?;
                if let Some(found) = self.find_in(child, name, depth + 1, seen, near)? {
                    return Ok(Some(found));
                }
            }
            if order == Ordering::Greater {
                break;
            }
        }
        Ok(None)
    }

    /// All names, 8.3 names merged into their long ones.
    pub(crate) fn list(&mut self) -> Result<Vec<DirEntry>> {
        let own = self.number;
        let mut entries = Vec::new();
        let mut short: HashMap<u64, String> = HashMap::new();
        let mut alone: Vec<DirEntry> = Vec::new();
        self.walk(&mut |entry| {
            let name = FileName::parse(entry.key)
                .ok_or_else(|| Error::damaged(Layer::Ntfs, "key of a directory entry"))?;
            let shown = dir_entry(entry.reference, &name);
            if name.namespace() == DOS {
                short.insert(entry.reference, shown.name.clone());
                alone.push(shown);
            } else if number_of(entry.reference) != own || shown.name != "." {
                entries.push((name.namespace(), shown));
            }
            Ok(())
        })?;
        // Pure Win32 names have an 8.3 partner; the first one of the file takes it.
        for (namespace, entry) in &mut entries {
            if *namespace == 1 {
                entry.short_name = short.remove(&entry.id.0);
            }
        }
        let mut entries: Vec<DirEntry> = entries.into_iter().map(|(_, entry)| entry).collect();
        entries.extend(alone.into_iter().filter(|entry| short.contains_key(&entry.id.0)));
        Ok(entries)
    }
}

fn dir_entry(reference: u64, name: &FileName<'_>) -> DirEntry {
    let units: Vec<u16> = name.units().collect();
    let exact = String::from_utf16(&units);
    let kind = kind_of(name.reparse_tag(), name.is_directory());
    DirEntry {
        name_utf16: exact.is_err().then(|| units.clone()),
        name: exact.unwrap_or_else(|_| String::from_utf16_lossy(&units)),
        short_name: None,
        id: NodeId(reference),
        kind,
        size_bytes: if kind == NodeKind::Directory { 0 } else { name.size_bytes() },
        attributes: Attributes(name.attributes()),
        times: name.times(),
    }
}

/// True for a directory whose names differ by case: $STANDARD_INFORMATION has no version limit and class version 1.
pub(crate) fn is_case_sensitive(node: &Node) -> bool {
    let facts = node.attribute(kind::STANDARD_INFORMATION, &[]).and_then(Attr::resident).unwrap_or_default();
    u32_at(facts, 0x24) == Some(0) && u32_at(facts, 0x28) == Some(1)
}
