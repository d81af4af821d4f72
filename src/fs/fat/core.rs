//! A FAT volume at work: the allocation table, chains, directories and nodes, for the reader and the writer.
//!
//! A node is named by where its entry lies (bytes from the beginning of the volume, by 32), as long as it is not renamed;
//! a renamed node keeps its id, and what takes its place gets another one. So ids are the same each time a volume is opened.

use super::blocks::{Blocks, TABLE_BLOCK};
use super::boot::{Boot, Kind};
use super::directory::{Directory, Name};
use super::entry::{Raw, SLOT};
use super::free::FreeMap;
use super::name::CodePage;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use vmrescue_base::bytes::{put_at, u16_at, u32_at};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::{Disk, DiskMut};

/// Id of the root directory, which has no entry.
pub(super) const ROOT: u64 = 0;
/// Ids from here on are given out by a volume that is open, and say nothing of a place.
const GIVEN: u64 = 1 << 31;
/// Most names of directories that are kept in memory; a directory has at most 65,536 entries on Windows.
const KEPT_NAMES: usize = 1 << 18;
/// Most runs of chains that are kept in memory.
const KEPT_RUNS: usize = 1 << 20;
/// Most clusters of directories of which it is known whose they are.
const KEPT_OWNERS: usize = 1 << 20;

/// What an entry of the allocation table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Free,
    /// The chain goes on there.
    Next(u32),
    /// The cluster cannot be used.
    Bad,
    /// The chain ends here.
    End,
    /// A number that is no cluster of this volume.
    Nowhere(u32),
}

/// Clusters that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Clusters of the chain in front of it.
    pub(super) before: u32,
    pub(super) first: u32,
    pub(super) count: u32,
}

/// A chain from its beginning.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    pub(super) runs: Vec<Run>,
    pub(super) clusters: u32,
    /// It was followed to its end.
    pub(super) whole: bool,
}

impl Chain {
    /// Adds a cluster to the end.
    pub(super) fn push(&mut self, cluster: u32) {
        match self.runs.last_mut() {
            Some(run) if run.first + run.count == cluster => run.count += 1,
            _ => self.runs.push(Run { before: self.clusters, first: cluster, count: 1 }),
        }
        self.clusters += 1;
    }

    /// The cluster at a place of the chain, and how many follow it without a gap, itself counted.
    pub(super) fn at(&self, place: u32) -> Option<(u32, u32)> {
        let index = self.runs.partition_point(|run| run.before <= place).checked_sub(1)?;
        let run = self.runs.get(index)?;
        let inside = place - run.before;
        (inside < run.count).then(|| (run.first + inside, run.count - inside))
    }

    pub(super) fn last(&self) -> Option<u32> {
        self.runs.last().map(|run| run.first + run.count - 1)
    }
}

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    /// Bytes from the beginning of the volume.
    At(u64),
}

/// See the module's documentation.
pub(super) struct Core {
    pub(super) disk: Disk,
    pub(super) out: Option<DiskMut>,
    pub(super) boot: Boot,
    pub(super) page: CodePage,
    blocks: Blocks,
    pub(super) directories: HashMap<u32, Directory>,
    kept_names: usize,
    /// Which directory has a cluster; also of directories that are no longer in memory.
    owners: HashMap<u32, u64>,
    chains: HashMap<u32, Arc<Chain>>,
    kept_runs: usize,
    pub(super) free: Option<FreeMap>,
    /// The map was asked for: the counts on the volume may no longer be right.
    pub(super) counted: bool,
    /// Where nodes are that are not where their ids say.
    moved: HashMap<u64, u64>,
    /// Their ids by place.
    at: HashMap<u64, u64>,
    /// Ids that are places and whose nodes are gone.
    gone: HashSet<u64>,
    given: u64,
    /// What was there before the change that is under way.
    undo: Option<Vec<(u64, Vec<u8>)>>,
    pub(super) time: Option<FileTime>,
}

pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::damaged(Layer::Fat, what)
}

/// The entry of `cluster` in the bytes of a table from its beginning, or from where `cluster` counts from.
pub(super) fn decode(kind: Kind, bytes: &[u8], at: usize, cluster: u32) -> Option<u32> {
    match kind {
        Kind::Fat12 => u16_at(bytes, at)
            .map(|pair| u32::from(if cluster.is_multiple_of(2) { pair & 0xFFF } else { pair >> 4 })),
        Kind::Fat16 => u16_at(bytes, at).map(u32::from),
        Kind::Fat32 => u32_at(bytes, at).map(|value| value & 0x0FFF_FFFF),
    }
}

/// Where the entry of a cluster begins in its table.
pub(super) fn entry_at(kind: Kind, cluster: u32) -> u64 {
    let cluster = u64::from(cluster);
    match kind {
        Kind::Fat12 => cluster + cluster / 2,
        Kind::Fat16 => cluster * 2,
        Kind::Fat32 => cluster * 4,
    }
}

/// The value that ends a chain.
pub(super) fn end_value(kind: Kind) -> u32 {
    match kind {
        Kind::Fat12 => 0xFFF,
        Kind::Fat16 => 0xFFFF,
        Kind::Fat32 => 0x0FFF_FFFF,
    }
}

/// What a value says.
pub(super) fn link(boot: &Boot, value: u32) -> Link {
    let end = end_value(boot.kind);
    match value {
        0 => Link::Free,
        value if value >= end - 7 => Link::End,
        value if value == end - 8 => Link::Bad,
        value if boot.is_cluster(value) => Link::Next(value),
        value => Link::Nowhere(value),
    }
}

impl Core {
    pub(super) fn new(disk: Disk, out: Option<DiskMut>, boot: Boot) -> Core {
        Core {
            disk,
            out,
            boot,
            page: CodePage::default(),
            blocks: Blocks::default(),
            directories: HashMap::new(),
            kept_names: 0,
            owners: HashMap::new(),
            chains: HashMap::new(),
            kept_runs: 0,
            free: None,
            counted: false,
            moved: HashMap::new(),
            at: HashMap::new(),
            gone: HashSet::new(),
            given: GIVEN,
            undo: None,
            time: None,
        }
    }

    pub(super) fn now(&self) -> FileTime {
        self.time.unwrap_or_else(FileTime::now)
    }

    /// The table that is read.
    pub(super) fn table(&self) -> u32 {
        self.boot.only_table.unwrap_or(0)
    }

    /// A block of the volume, from memory or the disk. `spare` is where the same bytes lie once more.
    fn block(&mut self, at: u64, length: u64, spare: Option<u64>) -> Result<&mut Vec<u8>> {
        if self.blocks.get(at).is_none() {
            // Blocks are at most 256 KiB long.
            let mut bytes = self.disk.read_vec(at, length as usize);
            if bytes.is_err()
                && let Some(spare) = spare
            {
                // The other table is there for this.
                bytes = self.disk.read_vec(spare, length as usize);
            }
            let bytes = bytes.map_err(|e| {
                if e.kind() == ErrorKind::Invalid {
                    damaged("the volume goes on behind the end of its partition").at(at).caused_by(e)
                } else {
                    e.context("FAT volume")
                }
            })?;
            self.blocks.insert(at, bytes);
        }
        self.blocks.get(at).ok_or_else(|| Error::limit(Layer::Fat, "a block larger than the cache").at(at))
    }

    /// The block of the table that holds an entry, and where it begins in the table.
    fn table_block(&mut self, table_offset: u64) -> Result<(&mut Vec<u8>, u64)> {
        let (table, bytes) = (self.table(), self.boot.table_bytes());
        let start = table_offset / TABLE_BLOCK * TABLE_BLOCK;
        let spare =
            (self.boot.only_table.is_none() && self.boot.tables > 1).then(|| self.boot.table_at(1) + start);
        let length = TABLE_BLOCK.min(bytes - start);
        let at = self.boot.table_at(table) + start;
        Ok((self.block(at, length, spare)?, start))
    }

    /// What the table says of a cluster of the volume.
    pub(super) fn link(&mut self, cluster: u32) -> Result<Link> {
        let kind = self.boot.kind;
        let offset = entry_at(kind, cluster);
        let (block, start) = self.table_block(offset)?;
        let value = decode(kind, block, (offset - start) as usize, cluster)
            .ok_or_else(|| damaged("an entry behind the end of the allocation table").found(cluster))?;
        Ok(link(&self.boot, value))
    }

    /// The chain that begins with `first`, at least `wanted` clusters of it, or to its end.
    pub(super) fn chain(&mut self, first: u32, wanted: u32) -> Result<Arc<Chain>> {
        if let Some(chain) = self.chains.get(&first)
            && (chain.whole || chain.clusters >= wanted)
        {
            return Ok(Arc::clone(chain));
        }
        let mut chain = Chain::default();
        let mut at = first;
        // Brent's way to see a circle: the tortoise waits at powers of two.
        let (mut tortoise, mut steps, mut power) = (0, 0u32, 1u32);
        while chain.clusters < wanted {
            if !self.boot.is_cluster(at) {
                return Err(damaged("a chain of clusters leads out of the volume").found(format!("{at:#x}")));
            }
            if at == tortoise {
                return Err(
                    damaged("a chain of clusters leads back into itself").at(self.boot.cluster_at(at))
                );
            }
            chain.push(at);
            if steps == power {
                (tortoise, power, steps) = (at, power.saturating_mul(2), 0);
            }
            steps += 1;
            match self.link(at)? {
                Link::Next(next) => at = next,
                Link::End => {
                    chain.whole = true;
                    break;
                }
                Link::Free | Link::Bad | Link::Nowhere(_) if chain.clusters == wanted => break,
                wrong => {
                    return Err(damaged("a chain of clusters does not end where it should")
                        .at(self.boot.cluster_at(at))
                        .found(format!("{wrong:?}")));
                }
            }
        }
        let chain = Arc::new(chain);
        self.keep_chain(first, Arc::clone(&chain));
        Ok(chain)
    }

    pub(super) fn keep_chain(&mut self, first: u32, chain: Arc<Chain>) {
        self.forget_chain(first);
        if self.kept_runs + chain.runs.len() > KEPT_RUNS {
            self.chains.clear();
            self.kept_runs = 0;
        }
        self.kept_runs += chain.runs.len();
        self.chains.insert(first, chain);
    }

    pub(super) fn forget_chain(&mut self, first: u32) {
        if let Some(chain) = self.chains.remove(&first) {
            self.kept_runs -= chain.runs.len();
        }
    }

    /// Where the node is.
    pub(super) fn place(&self, node: u64) -> Result<Place> {
        let stale =
            || Error::not_found(Layer::Fat, "there is no such file any more").found(format!("{node:#x}"));
        if node == ROOT {
            return Ok(Place::Root);
        }
        if let Some(place) = self.moved.get(&node) {
            return Ok(Place::At(place * SLOT as u64));
        }
        if node >= GIVEN || self.gone.contains(&node) || self.at.contains_key(&node) {
            return Err(stale());
        }
        let at = node * SLOT as u64;
        if at < self.boot.root_at() || at + SLOT as u64 > self.disk.len() {
            return Err(stale());
        }
        Ok(Place::At(at))
    }

    /// The id of the node whose entry lies there.
    pub(super) fn node_at(&mut self, at: u64) -> u64 {
        let place = at / SLOT as u64;
        if let Some(id) = self.at.get(&place) {
            return *id;
        }
        if place < GIVEN && !self.gone.contains(&place) && !self.moved.contains_key(&place) {
            return place;
        }
        let id = self.given;
        self.given += 1;
        self.settle(id, at);
        id
    }

    /// The node is there from now on.
    pub(super) fn settle(&mut self, node: u64, at: u64) {
        let place = at / SLOT as u64;
        if let Some(old) = self.moved.get(&node) {
            self.at.remove(old);
        }
        self.gone.remove(&node);
        self.moved.insert(node, place);
        self.at.insert(place, node);
    }

    /// There is no such node any more.
    pub(super) fn retire(&mut self, node: u64) {
        if let Some(place) = self.moved.remove(&node) {
            self.at.remove(&place);
        }
        if node < GIVEN {
            self.gone.insert(node);
        }
    }

    /// The block of a directory that the entry at `at` lies in, and where it begins.
    fn directory_block(&mut self, at: u64) -> Result<(&mut Vec<u8>, u64)> {
        let data = self.boot.data_at();
        let (start, length) = if at >= data {
            let cluster = u64::from(self.boot.cluster_bytes);
            (data + (at - data) / cluster * cluster, cluster)
        } else {
            let root = self.boot.root_at();
            let start = root + (at.saturating_sub(root)) / TABLE_BLOCK * TABLE_BLOCK;
            (start, TABLE_BLOCK.min(data - start))
        };
        Ok((self.block(start, length, None)?, start))
    }

    /// The entry at a place.
    pub(super) fn entry(&mut self, at: u64) -> Result<Raw> {
        let (block, start) = self.directory_block(at)?;
        let inside = (at - start) as usize;
        let bytes = block.get(inside..inside + SLOT).and_then(|slot| slot.try_into().ok());
        bytes.map(Raw).ok_or_else(|| damaged("a directory entry outside the volume").at(at))
    }

    /// The entry of a node; `None` for the root.
    pub(super) fn entry_of(&mut self, node: u64) -> Result<Option<(u64, Raw)>> {
        let Place::At(at) = self.place(node)? else { return Ok(None) };
        let raw = self.entry(at)?;
        if raw.is_free() || raw.is_long() || raw.is_label() {
            return Err(Error::not_found(Layer::Fat, "there is no such file any more").at(at));
        }
        Ok(Some((at, raw)))
    }

    /// First cluster of a directory: 0 for the root, wherever it lies.
    pub(super) fn directory_cluster(&mut self, node: u64) -> Result<u32> {
        let Some((at, raw)) = self.entry_of(node)? else { return Ok(0) };
        if !raw.is_directory() {
            return Err(Error::invalid(Layer::Fat, "this is a file, not a directory").at(at));
        }
        let cluster = raw.first_cluster(self.boot.kind == Kind::Fat32);
        // An entry that names the root would make a circle.
        if !self.boot.is_cluster(cluster)
            || self.boot.kind == Kind::Fat32 && cluster == self.boot.root_cluster
        {
            return Err(damaged("a directory begins outside the volume, or with the root")
                .at(at)
                .found(format!("{cluster:#x}")));
        }
        Ok(cluster)
    }

    /// A directory with its names, from memory when it was read before. It is taken out: [`Core::put_back`] follows.
    pub(super) fn take_directory(&mut self, node: u64) -> Result<Directory> {
        let cluster = self.directory_cluster(node)?;
        if let Some(mut known) = self.drop_known(cluster) {
            known.node = node;
            return Ok(known);
        }
        Directory::load(self, node, cluster)
    }

    pub(super) fn put_back(&mut self, directory: Directory) {
        if self.kept_names + directory.len() > KEPT_NAMES || self.directories.len() > KEPT_NAMES / 16 {
            self.forget_directories();
        }
        self.kept_names += directory.len();
        self.directories.insert(directory.cluster, directory);
    }

    /// Takes a directory out of memory.
    pub(super) fn drop_known(&mut self, cluster: u32) -> Option<Directory> {
        let known = self.directories.remove(&cluster)?;
        self.kept_names -= known.len();
        Some(known)
    }

    /// The cluster is this directory's.
    pub(super) fn own(&mut self, cluster: u32, directory: u64) {
        if self.owners.len() >= KEPT_OWNERS {
            self.owners.clear();
        }
        self.owners.insert(cluster, directory);
    }

    /// The directory in which the entry at a place is a name, and the name. An entry does not say where it is: when nobody remembers,
    /// all directories are looked through.
    pub(super) fn home(&mut self, at: u64) -> Result<Option<(u64, Name)>> {
        let data = self.boot.data_at();
        let cluster = at.checked_sub(data).map(|inside| inside / u64::from(self.boot.cluster_bytes) + 2);
        let known = match cluster {
            None => Some(ROOT),
            // Places on the volume have at most 2^28 clusters.
            Some(cluster) => self.owners.get(&(cluster as u32)).copied(),
        };
        if let Some(directory) = known {
            match self.name_in(directory, at) {
                Ok(Some(name)) => return Ok(Some((directory, name))),
                // It was removed, and its clusters are somebody else's.
                Ok(None) => {}
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {}
                Err(e) => return Err(e),
            }
        }
        let (mut waiting, mut seen) = (vec![ROOT], HashSet::new());
        while let Some(directory) = waiting.pop() {
            // A directory that cannot be read hides what is below it; the name may be in another one.
            let Ok(cluster) = self.directory_cluster(directory) else { continue };
            if !seen.insert(cluster) {
                continue;
            }
            let inside = self.with_directory(directory, |core, directory| directory.directories(core));
            let Ok(inside) = inside else { continue };
            waiting.extend(inside);
            if let Some(name) = self.name_in(directory, at)? {
                return Ok(Some((directory, name)));
            }
        }
        Ok(None)
    }

    fn name_in(&mut self, directory: u64, at: u64) -> Result<Option<Name>> {
        self.with_directory(directory, |core, directory| {
            Ok(directory.slot_at(core, at).and_then(|slot| directory.names.get(&slot)).cloned())
        })
    }

    fn forget_directories(&mut self) {
        self.directories.clear();
        self.kept_names = 0;
    }

    /// Works with a directory; after an error it is read anew.
    pub(super) fn with_directory<T>(
        &mut self,
        node: u64,
        work: impl FnOnce(&mut Core, &mut Directory) -> Result<T>,
    ) -> Result<T> {
        let mut directory = self.take_directory(node)?;
        let result = work(self, &mut directory)?;
        self.put_back(directory);
        Ok(result)
    }

    // Writing.

    fn writer(&self) -> Result<DiskMut> {
        self.out.clone().ok_or_else(|| Error::refused(Layer::Fat, "the volume was opened for reading"))
    }

    /// Runs a change: it happens as a whole, or not at all.
    pub(super) fn transact<T>(&mut self, change: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        self.undo = Some(Vec::new());
        let result = change(self);
        let undo = self.undo.take().unwrap_or_default();
        if result.is_err() {
            for (at, bytes) in undo.into_iter().rev() {
                self.write_bytes(at, &bytes).map_err(|e| {
                    e.context("a change that failed could not be taken back").advice("drop what is staged")
                })?;
            }
            self.forget_directories();
            self.chains.clear();
            self.kept_runs = 0;
            self.free = None;
        }
        result
    }

    /// Writes a part of a structure; it lies in one block.
    fn write_bytes(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.writer()?.write_at(at, bytes)?;
        let start = self.block_start(at);
        if let Some(block) = self.blocks.get(start)
            && !put_at(block, (at - start) as usize, bytes)
        {
            // It goes on in another block; then both are read again.
            self.blocks.forget(start);
        }
        Ok(())
    }

    /// Where the block begins that holds a byte.
    fn block_start(&self, at: u64) -> u64 {
        let (data, root) = (self.boot.data_at(), self.boot.root_at());
        if at >= data {
            let cluster = u64::from(self.boot.cluster_bytes);
            return data + (at - data) / cluster * cluster;
        }
        if at >= root {
            return root + (at - root) / TABLE_BLOCK * TABLE_BLOCK;
        }
        let first = self.boot.table_at(0);
        let Some(inside) = at.checked_sub(first) else { return at };
        let table = inside / self.boot.table_bytes() * self.boot.table_bytes();
        first + table + (inside - table) / TABLE_BLOCK * TABLE_BLOCK
    }

    /// Changes bytes of a structure, in one block, and keeps what was there.
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if self.undo.is_some() {
            let before = self.disk.read_vec(at, bytes.len())?;
            if before == bytes {
                return Ok(());
            }
            if let Some(undo) = &mut self.undo {
                undo.push((at, before));
            }
        }
        self.write_bytes(at, bytes)
    }

    /// Writes the entry of a node.
    pub(super) fn put_entry(&mut self, at: u64, raw: &Raw) -> Result<()> {
        self.put(at, &raw.0)
    }

    /// Writes file data, which is not taken back: it lies in clusters that are free before, or is meant to be replaced.
    pub(super) fn write_data(&mut self, at: u64, data: &[u8]) -> Result<()> {
        self.writer()?.write_at(at, data)
    }

    /// The same with zeros.
    pub(super) fn zero_data(&mut self, at: u64, length: u64) -> Result<()> {
        self.writer()?.zero_at(at..at + length)
    }

    /// Links clusters that follow each other into a chain that goes on with `then`; in all tables that count.
    pub(super) fn link_run(&mut self, first: u32, count: u32, then: u32) -> Result<()> {
        let last = first + count - 1;
        self.set_links(first, count, |cluster| if cluster == last { then } else { cluster + 1 })
    }

    /// Frees clusters that follow each other, in the tables; the map is the caller's.
    pub(super) fn unlink_run(&mut self, first: u32, count: u32) -> Result<()> {
        self.set_links(first, count, |_| 0)
    }

    fn set_links(&mut self, first: u32, count: u32, value: impl Fn(u32) -> u32) -> Result<()> {
        let kind = self.boot.kind;
        let (mut cluster, end) = (first, first + count);
        while cluster < end {
            let offset = entry_at(kind, cluster);
            let (block, start) = self.table_block(offset)?;
            let from = (offset - start) as usize;
            let mut piece = Vec::new();
            // As many as lie in this block.
            while cluster < end {
                let at = (entry_at(kind, cluster) - start) as usize;
                let width = if kind == Kind::Fat32 { 4 } else { 2 };
                if at + width > block.len() {
                    break;
                }
                piece.resize(piece.len().max(at - from), 0);
                let old = match kind {
                    // The half byte of the neighbour was perhaps just set.
                    Kind::Fat12 => {
                        let low = piece.get(at - from).copied().unwrap_or(block[at]);
                        u32::from(low) | u32::from(block[at + 1]) << 8
                    }
                    Kind::Fat16 => 0,
                    Kind::Fat32 => u32_at(block, at).unwrap_or_default(),
                };
                let new = value(cluster);
                let bytes = match kind {
                    Kind::Fat12 if cluster % 2 == 0 => old & 0xF000 | new,
                    Kind::Fat12 => old & 0x000F | new << 4,
                    Kind::Fat16 => new,
                    Kind::Fat32 => old & 0xF000_0000 | new,
                };
                piece.truncate(at - from);
                piece.extend_from_slice(&bytes.to_le_bytes()[..width]);
                cluster += 1;
            }
            if piece.is_empty() {
                return Err(damaged("an entry behind the end of the allocation table").found(cluster));
            }
            let place = start + from as u64;
            match self.boot.only_table {
                Some(table) => self.put(self.boot.table_at(table) + place, &piece)?,
                None => {
                    for table in 0..self.boot.tables {
                        self.put(self.boot.table_at(table) + place, &piece)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The map of free clusters; all of the table is read for it, once.
    pub(super) fn free_map(&mut self) -> Result<&mut FreeMap> {
        if self.free.is_none() {
            let map = FreeMap::read(&self.disk, &self.boot, self.table())?;
            self.free = Some(map);
            self.counted = true;
        }
        self.free.as_mut().ok_or_else(|| damaged("no map of free clusters"))
    }

    /// A cluster of a directory is no longer one.
    pub(super) fn forget_cluster(&mut self, cluster: u32) {
        let at = self.boot.cluster_at(cluster);
        self.blocks.forget(at);
    }
}
