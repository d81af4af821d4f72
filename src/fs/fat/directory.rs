//! A directory in memory: its names by where they lie, a map to find them, and the entries that are free.

use super::boot::Kind;
use super::core::{Core, Link, damaged};
use super::entry::{DELETED, Gather, Part, Raw, SLOT, long_parts};
use super::name::{Plan, fold, short_text};
use std::collections::{BTreeMap, HashMap, HashSet};
use vmrescue_base::error::{Error, Layer, Result};

/// Most bytes of a directory that are written: what Windows allows.
pub(super) const MAX_BYTES: u64 = 65_536 * SLOT as u64;
/// Most bytes of a directory that are read.
const MAX_READ_BYTES: u64 = 8 * MAX_BYTES;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// Its first entry: the first part of the long name, or the entry itself.
    pub(super) first: u32,
    pub(super) long: Option<Vec<u16>>,
    pub(super) short: [u8; 11],
    pub(super) lower: u8,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) node: u64,
    /// First cluster, 0 for the root.
    pub(super) cluster: u32,
    /// Its clusters; none for the root of FAT12 and FAT16.
    clusters: Vec<u32>,
    /// By the place of the entry.
    pub(super) names: BTreeMap<u32, Name>,
    /// Folded names, long and short ones.
    by_name: HashMap<Vec<u16>, u32>,
    shorts: HashSet<[u8; 11]>,
    /// Free entries in front of the end: first and count.
    free: BTreeMap<u32, u32>,
    /// Where the first entry is that was never used.
    end: u32,
    /// Entries that its clusters hold.
    capacity: u32,
}

impl Directory {
    /// Reads a directory.
    pub(super) fn load(core: &mut Core, node: u64, cluster: u32) -> Result<Directory> {
        let boot = core.boot.clone();
        let first = if cluster == 0 && boot.kind == Kind::Fat32 { boot.root_cluster } else { cluster };
        let mut clusters = Vec::new();
        let mut capacity = u64::from(boot.root_slots);
        if first != 0 {
            let most = (MAX_READ_BYTES / u64::from(boot.cluster_bytes)) as u32;
            let chain = core.chain(first, most + 1)?;
            if chain.clusters > most {
                return Err(Error::limit(Layer::Fat, "a directory is too long")
                    .at(boot.cluster_at(first))
                    .expected(format!("at most {MAX_READ_BYTES} bytes")));
            }
            clusters.extend(chain.runs.iter().flat_map(|run| run.first..run.first + run.count));
            capacity = clusters.len() as u64 * u64::from(boot.cluster_bytes) / SLOT as u64;
        }
        clusters.iter().for_each(|cluster| core.own(*cluster, node));
        // At most 8 times 65,536.
        let capacity = capacity as u32;
        let mut directory = Directory {
            node,
            cluster,
            clusters,
            names: BTreeMap::new(),
            by_name: HashMap::new(),
            shorts: HashSet::new(),
            free: BTreeMap::new(),
            end: capacity,
            capacity,
        };
        directory.read(core)?;
        Ok(directory)
    }

    fn read(&mut self, core: &mut Core) -> Result<()> {
        let mut gather = Gather::default();
        for slot in 0..self.capacity {
            let raw = core.entry(self.place(core, slot)?)?;
            if raw.0[0] == 0 {
                self.end = slot;
                return Ok(());
            }
            if raw.0[0] == DELETED {
                gather = Gather::default();
                self.release(slot, 1);
            } else if raw.is_long() {
                gather.part(slot, Part::new(&raw.0));
            } else {
                let long = gather.finish(&raw.short());
                if !raw.is_label() && !raw.is_dot() {
                    let (first, long) = long.map_or((slot, None), |(first, name)| (first, Some(name)));
                    self.add(slot, Name { first, long, short: raw.short(), lower: raw.lower() }, core);
                }
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Where an entry lies on the volume.
    pub(super) fn place(&self, core: &Core, slot: u32) -> Result<u64> {
        let offset = u64::from(slot) * SLOT as u64;
        if slot >= self.capacity {
            return Err(damaged("a directory entry behind the end of its directory"));
        }
        if self.clusters.is_empty() {
            return Ok(core.boot.root_at() + offset);
        }
        let size = u64::from(core.boot.cluster_bytes);
        let cluster = self.clusters.get((offset / size) as usize).copied();
        let cluster = cluster.ok_or_else(|| damaged("a directory entry behind the end of its directory"))?;
        Ok(core.boot.cluster_at(cluster) + offset % size)
    }

    fn add(&mut self, slot: u32, name: Name, core: &Core) {
        let short = short_text(&name.short, 0, core.page);
        // Of two alike names the first is found, as on Windows.
        self.by_name.entry(fold(short.encode_utf16())).or_insert(slot);
        if let Some(long) = &name.long {
            self.by_name.entry(fold(long.iter().copied())).or_insert(slot);
        }
        self.shorts.insert(name.short);
        self.names.insert(slot, name);
    }

    /// Entries that are free again.
    fn release(&mut self, first: u32, count: u32) {
        let (mut first, mut count) = (first, count);
        if let Some((before, length)) = self.free.range(..first).next_back().map(|(at, n)| (*at, *n))
            && before + length == first
        {
            self.free.remove(&before);
            (first, count) = (before, count + length);
        }
        if let Some(length) = self.free.remove(&(first + count)) {
            count += length;
        }
        self.free.insert(first, count);
    }

    /// The entry with this name, long or short, in any case.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(&fold(name.encode_utf16())).copied()
    }

    /// The text of a name, and its units when the text does not say all.
    pub(super) fn text(name: &Name, core: &Core) -> (String, Option<Vec<u16>>) {
        match &name.long {
            Some(long) => match String::from_utf16(long) {
                Ok(text) => (text, None),
                Err(_) => (String::from_utf16_lossy(long), Some(long.clone())),
            },
            None => (short_text(&name.short, name.lower, core.page), None),
        }
    }

    /// What a new name takes here.
    pub(super) fn plan(&self, name: &str) -> Result<Plan> {
        Plan::new(name, |short| {
            self.shorts.contains(short)
                // A long name of somebody else may look the same.
                || self.by_name.contains_key(&fold(short_text(short, 0, super::CodePage::Cp437).encode_utf16()))
        })
    }

    /// Writes a name with its entry into free entries, or behind the last one. Where the entry lies.
    ///
    /// # Errors
    /// `NoSpace` when the root directory or the volume is full.
    pub(super) fn insert(&mut self, core: &mut Core, plan: &Plan, raw: &Raw) -> Result<(u32, u64)> {
        let count = plan.slots();
        let first = self.room(core, count)?;
        let mut slots: Vec<[u8; SLOT]> =
            plan.long.as_ref().map_or(Vec::new(), |long| long_parts(long, &plan.short));
        slots.push(raw.0);
        // Entries of one cluster at once.
        let mut at = 0;
        while at < slots.len() {
            let place = self.place(core, first + at as u32)?;
            let mut end = at + 1;
            while end < slots.len()
                && self.place(core, first + end as u32)? == place + ((end - at) * SLOT) as u64
                && self.same_block(core, first + at as u32, first + end as u32)
            {
                end += 1;
            }
            core.put(place, slots[at..end].as_flattened())?;
            at = end;
        }
        let slot = first + count - 1;
        let name = Name { first, long: plan.long.clone(), short: plan.short, lower: plan.lower };
        self.add(slot, name, core);
        Ok((slot, self.place(core, slot)?))
    }

    fn same_block(&self, core: &Core, a: u32, b: u32) -> bool {
        let size = if self.clusters.is_empty() {
            super::blocks::TABLE_BLOCK
        } else {
            u64::from(core.boot.cluster_bytes)
        };
        u64::from(a) * SLOT as u64 / size == u64::from(b) * SLOT as u64 / size
    }

    /// Finds `count` free entries that follow each other, and takes them.
    fn room(&mut self, core: &mut Core, count: u32) -> Result<u32> {
        let found =
            self.free.iter().find(|(_, length)| **length >= count).map(|(first, length)| (*first, *length));
        if let Some((first, length)) = found {
            self.free.remove(&first);
            if length > count {
                self.free.insert(first + count, length - count);
            }
            return Ok(first);
        }
        // The last free ones may reach to the end.
        let tail = self.free.iter().next_back().map(|(first, length)| (*first, *length));
        let first = match tail {
            Some((first, length)) if first + length == self.end => first,
            _ => self.end,
        };
        while self.capacity < first + count {
            self.grow(core)?;
        }
        self.free.remove(&first);
        self.end = first + count;
        if self.end < self.capacity {
            // What lies behind the end may be anything: it stays the end.
            let place = self.place(core, self.end)?;
            core.put(place, &[0])?;
        }
        Ok(first)
    }

    /// One more cluster, all zero.
    fn grow(&mut self, core: &mut Core) -> Result<()> {
        let size = u64::from(core.boot.cluster_bytes);
        let Some(last) = self.clusters.last().copied() else {
            return Err(Error::no_space(Layer::Fat, "the root directory of this volume is full")
                .found(format!("{} entries", self.capacity))
                .advice("the root of FAT12 and FAT16 cannot grow: use a directory"));
        };
        if (self.clusters.len() as u64 + 1) * size > MAX_BYTES {
            return Err(Error::no_space(Layer::Fat, "a directory of FAT has at most 65,536 entries"));
        }
        // What the chain says now: nobody else may have made it longer.
        if core.link(last)? != Link::End {
            return Err(damaged("a directory does not end where it did").at(core.boot.cluster_at(last)));
        }
        let run = core.free_map()?.take(1, Some(last))?;
        let new = run.first().map(|run| run.first).ok_or_else(|| damaged("no cluster was given"))?;
        core.forget_cluster(new);
        core.zero_data(core.boot.cluster_at(new), size)?;
        core.link_run(new, 1, super::core::end_value(core.boot.kind))?;
        core.link_run(last, 1, new)?;
        core.forget_chain(self.clusters.first().copied().unwrap_or_default());
        self.clusters.push(new);
        core.own(new, self.node);
        self.capacity += (size / SLOT as u64) as u32;
        Ok(())
    }

    /// Marks the entries of a name as deleted.
    pub(super) fn delete(&mut self, core: &mut Core, slot: u32) -> Result<()> {
        let Some(name) = self.names.remove(&slot) else {
            return Err(damaged("a name that is not in its directory"));
        };
        for one in name.first..=slot {
            let place = self.place(core, one)?;
            core.put(place, &[DELETED])?;
        }
        self.shorts.remove(&name.short);
        let mut keys = vec![fold(short_text(&name.short, 0, core.page).encode_utf16())];
        keys.extend(name.long.iter().map(|long| fold(long.iter().copied())));
        for key in keys {
            if self.by_name.get(&key) == Some(&slot) {
                self.by_name.remove(&key);
            }
        }
        self.release(name.first, slot - name.first + 1);
        Ok(())
    }

    /// The place in the directory of what lies there on the volume; `None` when it lies elsewhere.
    pub(super) fn slot_at(&self, core: &Core, at: u64) -> Option<u32> {
        let root = core.boot.root_at();
        if self.clusters.is_empty() {
            let inside = at.checked_sub(root)? / SLOT as u64;
            return u32::try_from(inside).ok().filter(|slot| *slot < self.capacity);
        }
        let size = u64::from(core.boot.cluster_bytes);
        let inside = at.checked_sub(core.boot.data_at())?;
        let cluster = u32::try_from(inside / size + 2).ok()?;
        let index = self.clusters.iter().position(|own| *own == cluster)? as u64;
        u32::try_from((index * size + inside % size) / SLOT as u64).ok()
    }

    /// The directories in it.
    pub(super) fn directories(&self, core: &mut Core) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        for slot in self.names.keys() {
            let at = self.place(core, *slot)?;
            if core.entry(at)?.is_directory() {
                found.push(core.node_at(at));
            }
        }
        Ok(found)
    }

    /// True without any name.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Its clusters.
    pub(super) fn clusters(&self) -> &[u32] {
        &self.clusters
    }
}
