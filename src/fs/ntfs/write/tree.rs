//! The B+ tree of an index: $INDEX_ROOT, $INDEX_ALLOCATION and the $BITMAP of its blocks.
//!
//! Inserting splits full blocks upwards. A block that becomes empty is freed, and the key in its parent that
//! separated it goes back in as a leaf entry. An entry of an inner node is replaced by its predecessor.

use super::attribute::{Attribute, Body, Stream, kind};
use super::core::{Core, damaged};
use super::entry::{
    self, Entry, IndexKind, Node, block_room, decode_block, decode_root, encode_block, encode_root,
};
use super::file::File;
use super::in_place;
use super::record;
use std::cmp::Ordering;
use vmrescue_base::bytes::slice_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_INDEX_DEPTH;

/// Largest index that the writer follows, in blocks.
const MAX_BLOCKS: u64 = 1 << 24;

/// The order of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collation {
    /// $FILE_NAME by name, in upper case first, then as it is.
    FileName,
    /// Keys of 32-bit numbers ($R, $O).
    Numbers,
    /// One number ($SII).
    Number,
    /// A hash and a security id ($SDH).
    SecurityHash,
}

impl Collation {
    /// Indexed attribute and collation rule, as the root of the index says them.
    fn rule(self) -> (u32, u32) {
        match self {
            Collation::FileName => (0x30, 0x01),
            Collation::Number => (0, 0x10),
            Collation::SecurityHash => (0, 0x12),
            Collation::Numbers => (0, 0x13),
        }
    }

    /// Compares two keys; `exact` tells names apart that differ by case only.
    fn compare(self, core: &Core, a: &[u8], b: &[u8], exact: bool) -> Ordering {
        if self == Collation::FileName {
            let upper = |unit: u16| core.upcase.get(usize::from(unit)).copied().unwrap_or(unit);
            let order = units(a).map(upper).cmp(units(b).map(upper));
            return if exact { order.then_with(|| units(a).cmp(units(b))) } else { order };
        }
        numbers(a).cmp(numbers(b))
    }
}

fn numbers(key: &[u8]) -> impl Iterator<Item = u32> {
    key.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
}

/// The units of the name in a $FILE_NAME value.
fn units(key: &[u8]) -> impl Iterator<Item = u16> {
    let length = key.get(0x40).map_or(0, |n| 2 * usize::from(*n));
    let bytes = slice_at(key, 0x42, length).unwrap_or_default();
    bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit))
}

/// The name in a $FILE_NAME value.
pub(crate) fn name_of(key: &[u8]) -> Vec<u16> {
    units(key).collect()
}

/// A step on the way down: which block (`None` for the root), its entries, and the entry that was followed.
struct Step {
    vcn: Option<u64>,
    node: Node,
    index: usize,
}

/// Where a key is, or would be put.
enum Spot {
    /// It is an entry of the root.
    Root(usize),
    /// It lies in a block.
    Block { vcn: u64, at: usize, entry: Entry },
    /// It would lie in this leaf, in front of this entry.
    Before { vcn: u64, at: usize },
    /// It would be an entry of the root, which has no blocks below.
    NoBlock,
}

/// An index of a file that is open for changes.
pub(crate) struct Tree {
    name: &'static str,
    collation: Collation,
    kind: IndexKind,
    root: Node,
}

impl Tree {
    /// Opens an index.
    ///
    /// # Errors
    /// `Invalid` when the file has no such index; damage.
    pub(crate) fn open(core: &Core, file: &File, name: &'static str, collation: Collation) -> Result<Tree> {
        let value = file.value(kind::INDEX_ROOT, name).ok_or_else(|| {
            Error::invalid(Layer::Ntfs, format!("record {:#x} is not a directory", file.header.number))
        })?;
        let (kind, mut root) = decode_root(value)?;
        let unit = entry::vcn_bytes_of(core.geometry.cluster_bytes, kind.block_bytes);
        let valid =
            kind.block_bytes as usize == core.geometry.index_bytes && u64::from(kind.block_bytes) >= unit;
        if !valid || (kind.attribute, kind.collation) != collation.rule() {
            return Err(damaged("an index root with fields that cannot be").found(format!("{kind:?}")));
        }
        trim(collation, &mut root);
        Ok(Tree { name, collation, kind, root })
    }

    /// An empty directory index, to be stored in a new file.
    pub(crate) fn empty_directory(core: &Core) -> Attribute {
        let root = encode_root(
            IndexKind::for_blocks(core.geometry.index_bytes as u32, core.geometry.cluster_bytes),
            &Node { entries: vec![Entry::last(None)] },
        );
        Attribute::resident(kind::INDEX_ROOT, "$I30", root)
    }

    fn unit(&self, core: &Core) -> u64 {
        entry::vcn_bytes_of(core.geometry.cluster_bytes, self.kind.block_bytes)
    }

    fn blocks<'a>(&self, file: &'a File) -> Result<&'a Stream> {
        match file.find(kind::INDEX_ALLOCATION, self.name).map(|i| &file.attributes[i].body) {
            Some(Body::Runs(stream)) => Ok(stream),
            _ => Err(damaged("an index without its blocks")),
        }
    }

    /// Brings a block into memory.
    fn hold(&self, core: &mut Core, file: &File, vcn: u64) -> Result<u64> {
        let stream = self.blocks(file)?;
        let offset = vcn.checked_mul(self.unit(core)).ok_or_else(|| damaged("a block number that wraps"))?;
        let length = self.kind.block_bytes as usize;
        if !offset.is_multiple_of(length as u64) || offset >= stream.initialized_bytes {
            return Err(damaged(format!("index block {vcn:#x} lies outside the index")));
        }
        core.hold_block(stream, offset, length)
    }

    fn read(&self, core: &mut Core, file: &File, vcn: u64) -> Result<Node> {
        let held = self.hold(core, file, vcn)?;
        let mut node = decode_block(core.held(held), vcn)?;
        trim(self.collation, &mut node);
        Ok(node)
    }

    /// Writes a block that fits.
    fn write(&self, core: &mut Core, file: &File, vcn: u64, node: &Node) -> Result<()> {
        let stream = self.blocks(file)?;
        let bytes = encode_block(node, vcn, 1, self.kind.block_bytes as usize)
            .ok_or_else(|| damaged("entries that do not fit an index block"))?;
        core.put_block(stream, vcn * self.unit(core), bytes)
    }

    /// The place of `key` in a node: index, and whether it is that key.
    fn search(&self, core: &Core, node: &Node, key: &[u8], exact: bool) -> (usize, bool) {
        let keys = &node.entries[..node.entries.len() - 1];
        let order = |e: &Entry| {
            let own = e.key.get(..usize::from(e.key_bytes)).unwrap_or(&e.key);
            self.collation.compare(core, own, key, exact)
        };
        let at = keys.partition_point(|e| order(e) == Ordering::Less);
        (at, keys.get(at).is_some_and(|e| order(e) == Ordering::Equal))
    }

    /// Where `key` is, or would be put, without taking blocks apart.
    fn look(&self, core: &mut Core, file: &File, key: &[u8], exact: bool) -> Result<Spot> {
        let (index, found) = self.search(core, &self.root, key, exact);
        if found {
            return Ok(Spot::Root(index));
        }
        let mut next = self.root.entries[index].child;
        let mut spot = Spot::NoBlock;
        for _ in 0..MAX_INDEX_DEPTH {
            let Some(vcn) = next else { return Ok(spot) };
            let held = self.hold(core, file, vcn)?;
            for entry in in_place::entries(core.held(held), vcn)? {
                let entry = entry?;
                let order = if entry.last {
                    Ordering::Greater
                } else {
                    self.collation.compare(core, entry.key, key, exact)
                };
                match order {
                    Ordering::Less => {}
                    Ordering::Equal => {
                        let taken = entry.entry(self.collation == Collation::FileName);
                        return Ok(Spot::Block { vcn, at: entry.at, entry: taken });
                    }
                    Ordering::Greater => {
                        spot = Spot::Before { vcn, at: entry.at };
                        next = entry.child;
                        break;
                    }
                }
            }
        }
        Err(damaged("an index that is too deep"))
    }

    /// Changes a block where it lies; false when `change` says that it does not go.
    fn patch(
        &self,
        core: &mut Core,
        file: &File,
        vcn: u64,
        change: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<bool> {
        let held = self.hold(core, file, vcn)?;
        let mut bytes = core.held(held).to_vec();
        if !change(&mut bytes) {
            return Ok(false);
        }
        core.put_block(self.blocks(file)?, vcn * self.unit(core), bytes)?;
        Ok(true)
    }

    /// The way to `key`, and whether it is there.
    fn descend(&self, core: &mut Core, file: &File, key: &[u8]) -> Result<(Vec<Step>, bool)> {
        let mut node = self.root.clone();
        let mut vcn = None;
        let mut path = Vec::new();
        while path.len() < MAX_INDEX_DEPTH {
            let (index, found) = self.search(core, &node, key, true);
            let child = node.entries[index].child;
            path.push(Step { vcn, node, index });
            let (Some(next), false) = (child, found) else { return Ok((path, found)) };
            node = self.read(core, file, next)?;
            vcn = Some(next);
        }
        Err(damaged("an index that is too deep"))
    }

    /// The entry with `key`.
    pub(crate) fn find(&self, core: &mut Core, file: &File, key: &[u8]) -> Result<Option<Entry>> {
        self.find_as(core, file, key, true)
    }

    fn find_as(&self, core: &mut Core, file: &File, key: &[u8], exact: bool) -> Result<Option<Entry>> {
        Ok(match self.look(core, file, key, exact)? {
            Spot::Root(index) => Some(self.root.entries[index].clone()),
            Spot::Block { entry, .. } => Some(entry),
            Spot::Before { .. } | Spot::NoBlock => None,
        })
    }

    /// The entry of a name in any case; the exact spelling wins.
    pub(crate) fn find_name(
        &self,
        core: &mut Core,
        file: &File,
        key: &[u8],
        sensitive: bool,
    ) -> Result<Option<Entry>> {
        if sensitive {
            return self.find(core, file, key);
        }
        let near = self.find_as(core, file, key, false)?;
        match near {
            Some(near) if !units(&near.key).eq(units(key)) => {
                Ok(Some(self.find(core, file, key)?.unwrap_or(near)))
            }
            near => Ok(near),
        }
    }

    /// All entries in order.
    pub(crate) fn entries(&self, core: &mut Core, file: &File) -> Result<Vec<Entry>> {
        let mut out = Vec::new();
        let mut left = MAX_BLOCKS;
        self.walk(core, file, &self.root, 0, &mut left, &mut out)?;
        Ok(out)
    }

    fn walk(
        &self,
        core: &mut Core,
        file: &File,
        node: &Node,
        depth: usize,
        left: &mut u64,
        out: &mut Vec<Entry>,
    ) -> Result<()> {
        *left = left.saturating_sub(1);
        let blocks = self.blocks(file).map_or(0, |s| s.size_bytes / u64::from(self.kind.block_bytes));
        if depth > MAX_INDEX_DEPTH || *left == 0 || MAX_BLOCKS - *left > blocks + 1 {
            return Err(damaged("an index that turns in circles"));
        }
        for entry in &node.entries {
            if let Some(vcn) = entry.child {
                let child = self.read(core, file, vcn)?;
                self.walk(core, file, &child, depth + 1, left, out)?;
            }
            if !entry.key.is_empty() {
                out.push(Entry { child: None, ..entry.clone() });
            }
        }
        Ok(())
    }

    /// Replaces the key of an entry by one of the same length and order: the copies of sizes and times.
    pub(crate) fn replace(&mut self, core: &mut Core, file: &mut File, key: &[u8]) -> Result<()> {
        let other = || damaged("a directory entry that is not the name of its file");
        match self.look(core, file, key, true)? {
            Spot::Block { vcn, at, .. } => {
                let replaced = self.patch(core, file, vcn, |block| in_place::replace(block, at, key))?;
                if replaced { Ok(()) } else { Err(other()) }
            }
            Spot::Root(index) => {
                let entry = &mut self.root.entries[index];
                if entry.key.len() != key.len() {
                    return Err(other());
                }
                entry.key = key.to_vec();
                self.save_root(file);
                file.store(core)
            }
            Spot::Before { .. } | Spot::NoBlock => Err(damaged("a name that its directory does not have")),
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, damage.
    pub(crate) fn insert(&mut self, core: &mut Core, file: &mut File, entry: Entry) -> Result<()> {
        self.insert_leaf(core, file, entry)?;
        self.save_root(file);
        file.store(core)
    }

    fn insert_leaf(&mut self, core: &mut Core, file: &mut File, entry: Entry) -> Result<()> {
        // A key that comes from an inner node leaves its child there.
        let entry = Entry { child: None, ..entry };
        let key = entry.key[..usize::from(entry.key_bytes)].to_vec();
        // Mostly the leaf has room, and nothing has to be taken apart.
        if let Spot::Before { vcn, at } = self.look(core, file, &key, true)?
            && self.patch(core, file, vcn, |block| in_place::insert(block, at, &entry))?
        {
            return Ok(());
        }
        let (mut path, found) = self.descend(core, file, &key)?;
        if found {
            return Err(super::special::exists("the name is there already"));
        }
        let Some(step) = path.last_mut() else { return Err(damaged("an index without a root")) };
        step.node.entries.insert(step.index, entry);
        self.settle(core, file, path)
    }

    /// Writes the last node of the way, splitting it and its parents as long as they are too full.
    fn settle(&mut self, core: &mut Core, file: &mut File, mut path: Vec<Step>) -> Result<()> {
        let room = block_room(self.kind.block_bytes as usize);
        while let Some(Step { vcn, mut node, .. }) = path.pop() {
            let Some(vcn) = vcn else {
                return self.set_root(core, file, node);
            };
            if node.entry_bytes() <= room {
                return self.write(core, file, vcn, &node);
            }
            let (left, middle) = split(&mut node, room);
            let right_vcn = self.allocate(core, file)?;
            self.write(core, file, vcn, &left)?;
            self.write(core, file, right_vcn, &node)?;
            let Some(parent) = path.last_mut() else {
                return Err(damaged("an index block without a parent"));
            };
            parent.node.entries[parent.index].child = Some(right_vcn);
            parent.node.entries.insert(parent.index, Entry { child: Some(vcn), ..middle });
        }
        Err(damaged("an index without a root"))
    }

    /// Takes over a new root; when it is too large for the record, its entries move into a block.
    fn set_root(&mut self, core: &mut Core, file: &mut File, node: Node) -> Result<()> {
        let room = record::room(core.geometry.record_bytes);
        self.root = node;
        self.save_root(file);
        let bytes = self.root.entry_bytes();
        // A directory whose other attributes fill the record keeps a small root.
        if file.encoded_bytes() <= room || bytes <= 0x18 || (self.root.is_inner() && bytes <= 0x100) {
            return Ok(());
        }
        let node = std::mem::replace(&mut self.root, Node { entries: vec![Entry::last(None)] });
        self.save_root(file);
        let vcn = self.allocate(core, file)?;
        self.root = Node { entries: vec![Entry::last(Some(vcn))] };
        let path = vec![
            Step { vcn: None, node: self.root.clone(), index: 0 },
            Step { vcn: Some(vcn), node, index: 0 },
        ];
        self.save_root(file);
        if path[1].node.entry_bytes() <= block_room(self.kind.block_bytes as usize) {
            return self.write(core, file, vcn, &path[1].node);
        }
        self.settle(core, file, path)
    }

    /// Puts the root's value into the file; the caller stores the file.
    fn save_root(&self, file: &mut File) {
        let mut root = Attribute::resident(kind::INDEX_ROOT, self.name, encode_root(self.kind, &self.root));
        root.indexed = false;
        file.put(root);
    }

    fn bitmap(&self, core: &Core, file: &File) -> Result<Vec<u8>> {
        match file.find(kind::BITMAP, self.name).map(|i| &file.attributes[i].body) {
            Some(Body::Resident(value)) => Ok(value.clone()),
            Some(Body::Runs(stream)) => core.read_stream(stream, MAX_BLOCKS / 8),
            None => Err(damaged("an index without the bitmap of its blocks")),
        }
    }

    fn put_bitmap(&self, core: &mut Core, file: &mut File, map: Vec<u8>) -> Result<()> {
        let mut stream = match file.find(kind::BITMAP, self.name).map(|at| &file.attributes[at].body) {
            Some(Body::Runs(stream)) => stream.clone(),
            _ => Stream::default(),
        };
        if map.len() <= 128 {
            core.release(&stream.runs);
            file.put(Attribute::resident(kind::BITMAP, self.name, map));
            return Ok(());
        }
        core.extend(&mut stream, map.len() as u64)?;
        stream.size_bytes = map.len() as u64;
        stream.initialized_bytes = stream.size_bytes;
        core.overwrite(&stream, &map)?;
        file.put(Attribute::stream(kind::BITMAP, self.name, stream));
        Ok(())
    }

    /// Takes a block: its VCN.
    fn allocate(&self, core: &mut Core, file: &mut File) -> Result<u64> {
        let block = u64::from(self.kind.block_bytes);
        if file.find(kind::INDEX_ALLOCATION, self.name).is_none() {
            file.put(Attribute::stream(kind::INDEX_ALLOCATION, self.name, Stream::default()));
            file.put(Attribute::resident(kind::BITMAP, self.name, vec![0; 8]));
        }
        let mut map = self.bitmap(core, file)?;
        let mut stream = self.blocks(file)?.clone();
        let count = stream.size_bytes / block;
        let used = |n: &u64| map.get((n / 8) as usize).is_some_and(|b| b & (1 << (n % 8)) != 0);
        let number = (0..count).find(|n| !used(n)).unwrap_or(count);
        if number >= MAX_BLOCKS {
            return Err(Error::limit(Layer::Ntfs, "a directory with too many index blocks"));
        }
        if number == count {
            core.extend(&mut stream, (number + 1) * block)?;
            stream.size_bytes = (number + 1) * block;
            stream.initialized_bytes = stream.size_bytes;
            file.put(Attribute::stream(kind::INDEX_ALLOCATION, self.name, stream));
        }
        let byte = (number / 8) as usize;
        if byte >= map.len() {
            map.resize((byte + 1).next_multiple_of(8), 0);
        }
        map[byte] |= 1 << (number % 8);
        self.put_bitmap(core, file, map)?;
        Ok(number * (block / self.unit(core)))
    }

    fn free(&self, core: &mut Core, file: &mut File, vcn: u64) -> Result<()> {
        let number = vcn / (u64::from(self.kind.block_bytes) / self.unit(core));
        let mut map = self.bitmap(core, file)?;
        let byte = map.get_mut((number / 8) as usize).filter(|b| **b & (1 << (number % 8)) != 0);
        *byte.ok_or_else(|| damaged("an index block that its bitmap calls free"))? &= !(1 << (number % 8));
        self.put_bitmap(core, file, map)
    }

    /// Removes the entry with `key`.
    ///
    /// # Errors
    /// `NotFound`, `NoSpace` (a longer key may move up), damage.
    pub(crate) fn remove(&mut self, core: &mut Core, file: &mut File, key: &[u8]) -> Result<Entry> {
        let removed = self.remove_any(core, file, key)?;
        self.save_root(file);
        file.store(core)?;
        Ok(removed)
    }

    fn remove_any(&mut self, core: &mut Core, file: &mut File, key: &[u8]) -> Result<Entry> {
        // Mostly it lies in a leaf with others.
        if let Spot::Block { vcn, at, entry } = self.look(core, file, key, true)?
            && entry.child.is_none()
            && self.patch(core, file, vcn, |block| {
                // The entry that ends the node is one of the three.
                in_place::entries(block, vcn).is_ok_and(|all| all.take(3).count() == 3)
                    && in_place::remove(block, at)
            })?
        {
            return Ok(entry);
        }
        let (path, found) = self.descend(core, file, key)?;
        let Some(step) = path.last().filter(|_| found) else {
            return Err(Error::not_found(Layer::Ntfs, "the index has no such entry"));
        };
        let target = step.node.entries[step.index].clone();
        let Some(child) = target.child else {
            self.remove_leaf(core, file, path)?;
            return Ok(target);
        };
        let Some(before) = self.last_below(core, file, child)? else {
            return Err(damaged("an index block without entries below a key"));
        };
        let before_key = before.key[..usize::from(before.key_bytes)].to_vec();
        let (path, found) = self.descend(core, file, &before_key)?;
        if !found {
            return Err(damaged("an index that is not in order"));
        }
        self.remove_leaf(core, file, path)?;
        let (mut path, found) = self.descend(core, file, key)?;
        let Some(step) = path.last_mut().filter(|_| found) else {
            return Err(damaged("an index that is not in order"));
        };
        let place = step.index;
        if step.node.entries[place].child.is_some() {
            let child = step.node.entries[place].child;
            step.node.entries[place] = Entry { child, ..before };
            self.settle(core, file, path)?;
        } else {
            self.remove_leaf(core, file, path)?;
            self.insert_leaf(core, file, before)?;
        }
        Ok(Entry { child: None, ..target })
    }

    /// The last entry of the subtree below a block.
    fn last_below(&self, core: &mut Core, file: &File, mut vcn: u64) -> Result<Option<Entry>> {
        for _ in 0..MAX_INDEX_DEPTH {
            let mut node = self.read(core, file, vcn)?;
            match node.entries.pop().and_then(|e| e.child) {
                Some(child) => vcn = child,
                None => return Ok(node.entries.pop()),
            }
        }
        Err(damaged("an index that is too deep"))
    }

    /// Removes the leaf entry at the end of the way; empty blocks are freed and their separating keys put back.
    fn remove_leaf(&mut self, core: &mut Core, file: &mut File, mut path: Vec<Step>) -> Result<()> {
        let Some(mut step) = path.pop() else { return Err(damaged("an index without a root")) };
        step.node.entries.remove(step.index);
        loop {
            if step.node.entries.len() > 1 || step.vcn.is_none() {
                path.push(step);
                return self.settle(core, file, path);
            }
            if let Some(vcn) = step.vcn {
                self.free(core, file, vcn)?;
            }
            let Some(mut parent) = path.pop() else { return Err(damaged("an index block without a parent")) };
            if parent.node.entries.len() == 1 {
                // Its only child is gone: the parent is an empty leaf now.
                parent.node.entries = vec![Entry::last(None)];
                if parent.vcn.is_none() {
                    return self.become_empty(core, file);
                }
                step = parent;
                continue;
            }
            let separator = if parent.index + 1 == parent.node.entries.len() {
                let before = parent.node.entries.remove(parent.index - 1);
                parent.node.entries[parent.index - 1].child = before.child;
                before
            } else {
                parent.node.entries.remove(parent.index)
            };
            path.push(parent);
            self.settle(core, file, path)?;
            return self.insert_leaf(core, file, separator);
        }
    }

    /// An index without entries needs no blocks.
    fn become_empty(&mut self, core: &mut Core, file: &mut File) -> Result<()> {
        self.root = Node { entries: vec![Entry::last(None)] };
        for kind in [kind::INDEX_ALLOCATION, kind::BITMAP] {
            if let Some(place) = file.find(kind, self.name)
                && let Body::Runs(stream) = file.attributes.remove(place).body
            {
                core.release(&stream.runs);
            }
        }
        self.save_root(file);
        Ok(())
    }
}

fn trim(collation: Collation, node: &mut Node) {
    if collation == Collation::FileName {
        node.trim_keys();
    }
}

/// Cuts a node in two at about half of its bytes: the left part, and the entry between; `node` keeps the right part.
fn split(node: &mut Node, room: usize) -> (Node, Entry) {
    let half = node.entry_bytes().min(2 * room) / 2;
    let (mut bytes, mut at) = (0, 0);
    while at + 2 < node.entries.len() && bytes + node.entries[at].length() < half {
        bytes += node.entries[at].length();
        at += 1;
    }
    let right = node.entries.split_off(at + 1);
    let mut left = std::mem::replace(&mut node.entries, right);
    // There are at least two entries with keys in a node that does not fit a block.
    let middle = left.pop().unwrap_or_else(|| Entry::last(None));
    left.push(Entry::last(middle.child));
    (Node { entries: left }, middle)
}
