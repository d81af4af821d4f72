//! The walk over all directories of a FAT volume: entries, names, chains.

use super::codes::*;
use super::{Marks, Notes, Remedy};
use crate::fat::boot::Kind;
use crate::fat::core::{Core, Link};
use crate::fat::entry::{DELETED, DIRECTORY, Gather, LABEL, Part, Raw, SLOT};
use crate::fat::name::{fold, short_text};
use std::collections::HashSet;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;
use vmrescue_base::progress::Progress;

/// Most bytes of a directory.
const MAX_DIRECTORY_BYTES: u64 = 65_536 * SLOT as u64;

/// A directory that waits to be looked at.
struct Waiting {
    path: String,
    /// First cluster, 0 for the fixed root.
    cluster: u32,
    /// What its `..` must say.
    above: u32,
    clusters: Vec<u32>,
    depth: usize,
    root: bool,
}

/// How a chain ended.
struct Followed {
    clusters: Vec<u32>,
    count: u32,
    whole: bool,
}

pub(super) struct Walk<'a> {
    core: &'a mut Core,
    notes: &'a mut Notes,
    progress: &'a dyn Progress,
    pub(super) marks: Marks,
}

impl<'a> Walk<'a> {
    pub(super) fn new(core: &'a mut Core, notes: &'a mut Notes, progress: &'a dyn Progress) -> Walk<'a> {
        let marks = Marks::new(core.boot.clusters);
        Walk { core, notes, progress, marks }
    }

    pub(super) fn run(&mut self) -> Result<()> {
        let boot = self.core.boot.clone();
        let mut root =
            Waiting { path: String::new(), cluster: 0, above: 0, clusters: Vec::new(), depth: 0, root: true };
        if boot.kind == Kind::Fat32 {
            root.clusters = self.follow("\\", boot.root_cluster, true, None)?.clusters;
            root.cluster = boot.root_cluster;
        }
        let mut waiting = vec![root];
        while let Some(directory) = waiting.pop() {
            if self.progress.cancelled() {
                return Err(Error::new(ErrorKind::Interrupted, Layer::Fat, "interrupted"));
            }
            if directory.depth > MAX_DIRECTORY_DEPTH {
                self.notes.add(DIRECTORY_DEPTH, None, directory.path);
                continue;
            }
            self.directory(&directory, &mut waiting)?;
        }
        Ok(())
    }

    /// Follows a chain and marks its clusters; `keep` keeps them, and stops at the longest directory.
    fn follow(&mut self, path: &str, first: u32, keep: bool, at: Option<u64>) -> Result<Followed> {
        let mut found = Followed { clusters: Vec::new(), count: 0, whole: false };
        let mut own = HashSet::new();
        let mut cluster = first;
        loop {
            if !self.marks.mark(cluster) {
                // Its own cluster, or one of another file? Only now it is worth to know.
                if own.is_empty() {
                    own = self.clusters_of(first, found.count)?;
                }
                if own.contains(&cluster) {
                    self.notes.add(
                        CYCLE,
                        self.core.boot.cluster_at(cluster),
                        format!("{path}: its chain comes back to cluster {cluster}"),
                    );
                } else {
                    self.notes.add(
                        CROSS_LINKED,
                        self.core.boot.cluster_at(cluster),
                        format!("{path}: cluster {cluster} belongs to another file as well"),
                    );
                }
                return Ok(found);
            }
            found.count += 1;
            if keep {
                found.clusters.push(cluster);
            }
            let link = match self.core.link(cluster) {
                Ok(link) => link,
                Err(e) => {
                    self.notes.add(TABLE_UNREADABLE, e.offset(), format!("{path}: {e}"));
                    return Ok(found);
                }
            };
            match link {
                Link::Next(next) => cluster = next,
                Link::End => {
                    found.whole = true;
                    return Ok(found);
                }
                wrong => {
                    let what = match wrong {
                        Link::Free => "a free cluster".to_string(),
                        Link::Bad => "a bad cluster".to_string(),
                        Link::Nowhere(value) => format!("{value:#x}, which is no cluster"),
                        Link::Next(_) | Link::End => String::new(),
                    };
                    let text = format!(
                        "{path}: cluster {cluster}, the {}th of its chain, is marked as {what}",
                        found.count
                    );
                    self.notes.add(CHAIN, at.or(Some(self.core.boot.cluster_at(cluster))), text);
                    return Ok(found);
                }
            }
        }
    }

    fn clusters_of(&mut self, first: u32, count: u32) -> Result<HashSet<u32>> {
        let mut own = HashSet::new();
        let mut at = first;
        for _ in 0..count {
            own.insert(at);
            match self.core.link(at)? {
                Link::Next(next) => at = next,
                _ => break,
            }
        }
        Ok(own)
    }

    fn directory(&mut self, own: &Waiting, waiting: &mut Vec<Waiting>) -> Result<()> {
        let boot = self.core.boot.clone();
        let size = u64::from(boot.cluster_bytes);
        let shown = if own.path.is_empty() { "\\" } else { own.path.as_str() };
        let slots = if own.clusters.is_empty() && own.root && boot.kind != Kind::Fat32 {
            u64::from(boot.root_slots)
        } else {
            own.clusters.len() as u64 * size / SLOT as u64
        };
        if slots * SLOT as u64 > MAX_DIRECTORY_BYTES {
            self.notes.add(
                DIRECTORY_UNREADABLE,
                None,
                format!("{shown}: longer than {MAX_DIRECTORY_BYTES} bytes"),
            );
        }
        let mut gather = Gather::default();
        let (mut parts, mut orphans): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
        let mut names: HashSet<Vec<u16>> = HashSet::new();
        let mut dots = [false; 2];
        let mut labels = 0;
        // Where the bound of a directory is passed, the rest is not looked at.
        for slot in 0..slots.min(8 * MAX_DIRECTORY_BYTES / SLOT as u64) {
            let at = match own.clusters.get((slot * SLOT as u64 / size) as usize) {
                Some(cluster) => boot.cluster_at(*cluster) + slot * SLOT as u64 % size,
                None => boot.root_at() + slot * SLOT as u64,
            };
            let raw = match self.core.entry(at) {
                Ok(raw) => raw,
                Err(e) => {
                    self.notes.add(DIRECTORY_UNREADABLE, at, format!("{shown}: {e}"));
                    break;
                }
            };
            if raw.0[0] == 0 {
                break;
            }
            if raw.0[0] == DELETED {
                orphans.append(&mut parts);
                gather = Gather::default();
                continue;
            }
            if raw.is_long() {
                let part = Part::new(&raw.0);
                if !part.is_well_formed() {
                    self.notes.add(
                        ATTRIBUTES,
                        at,
                        format!("{shown}: a part of a long name has a type or a cluster"),
                    );
                }
                let starts = part.is_last();
                if !gather.part(slot as u32, part) || starts {
                    orphans.append(&mut parts);
                }
                if gather.is_pending() {
                    parts.push(at);
                } else {
                    orphans.push(at);
                }
                continue;
            }
            let long = gather.finish(&raw.short());
            if long.is_none() {
                orphans.append(&mut parts);
            }
            parts.clear();
            if raw.is_label() {
                labels += 1;
                if !own.root || labels > 1 || raw.0[11] & DIRECTORY != 0 {
                    self.notes.add(ATTRIBUTES, at, format!("{shown}: a volume label where none can be"));
                }
                continue;
            }
            if raw.is_dot() {
                let place = usize::from(raw.0[1] == b'.');
                let right = if place == 0 { own.cluster } else { own.above };
                let wide = boot.kind == Kind::Fat32;
                let fits = slot == place as u64 && raw.is_directory() && raw.first_cluster(wide) == right;
                if own.root {
                    self.notes.add(ATTRIBUTES, at, format!("{shown}: an entry `.` or `..` in the root"));
                } else {
                    dots[place] |= fits;
                }
                continue;
            }
            let short = short_text(&raw.short(), 0, self.core.page);
            self.short_name(&raw, at, shown, &short);
            let name = match &long {
                Some((_, long)) => String::from_utf16_lossy(long),
                None => short_text(&raw.short(), raw.lower(), self.core.page),
            };
            let mut keys = vec![fold(short.encode_utf16())];
            if let Some((_, long)) = &long {
                keys.push(fold(long.iter().copied()));
            }
            keys.dedup();
            for key in keys {
                if !names.insert(key) {
                    self.notes.add(NAME_TWICE, at, format!("{}\\{name}", own.path));
                }
            }
            let path = format!("{}\\{name}", own.path);
            if raw.is_directory() {
                self.child(own, &raw, at, path, waiting)?;
            } else {
                self.file(&raw, at, &path)?;
            }
        }
        orphans.append(&mut parts);
        if !orphans.is_empty() {
            let text = format!("{shown}: {} parts of long names belong to no file", orphans.len());
            self.notes.add(LONG_NAME, orphans.first().copied(), text);
            self.notes.remedy(Remedy::Parts { slots: orphans });
        }
        if !own.root && dots != [true; 2] && !own.clusters.is_empty() {
            self.dots(own, shown)?;
        }
        Ok(())
    }

    /// The entries for the directory itself and the one above are not as they must be.
    fn dots(&mut self, own: &Waiting, shown: &str) -> Result<()> {
        let at = self.core.boot.cluster_at(own.cluster);
        let first = self.core.entry(at)?;
        let second = self.core.entry(at + SLOT as u64)?;
        self.notes.add(DOT_ENTRIES, at, format!("{shown}: `.` and `..` are not what they must be"));
        // Names of files must not be overwritten; parts of long names for a dot are what some programs wrote.
        let may_go = |raw: &Raw| raw.is_free() || raw.is_dot() || raw.is_long();
        if may_go(&first) && may_go(&second) {
            self.notes.remedy(Remedy::Dots { cluster: own.cluster, above: own.above });
        } else {
            self.notes.leaves = true;
        }
        Ok(())
    }

    fn short_name(&mut self, raw: &Raw, at: u64, directory: &str, text: &str) {
        let short = raw.short();
        let legal = |(place, byte): (usize, &u8)| match byte {
            0x05 => place == 0,
            b' ' => place != 0,
            byte if *byte < 0x20 || byte.is_ascii_lowercase() => false,
            byte => !b"\"*+,./:;<=>?[\\]|".contains(byte),
        };
        if !short.iter().enumerate().all(legal) {
            self.notes.add(SHORT_NAME, at, format!("{directory}: {text:?}"));
        }
        if raw.0[11] & 0xC0 != 0 || raw.0[11] & LABEL != 0 {
            self.notes.add(ATTRIBUTES, at, format!("{directory}: {text:?} has attributes {:#x}", raw.0[11]));
        }
    }

    fn child(
        &mut self,
        own: &Waiting,
        raw: &Raw,
        at: u64,
        path: String,
        waiting: &mut Vec<Waiting>,
    ) -> Result<()> {
        let boot = self.core.boot.clone();
        let first = raw.first_cluster(boot.kind == Kind::Fat32);
        if !boot.is_cluster(first) {
            self.notes.add(FIRST_CLUSTER, at, format!("{path}: the directory begins at cluster {first:#x}"));
            return Ok(());
        }
        if raw.size() != 0 {
            self.notes.add(DIRECTORY_SIZE, at, format!("{path}: {} bytes", raw.size()));
            self.notes.remedy(Remedy::NoSize { at });
        }
        let chain = self.follow(&path, first, true, Some(at))?;
        if chain.count == 0 {
            return Ok(());
        }
        let above = if own.root { 0 } else { own.cluster };
        waiting.push(Waiting {
            path,
            cluster: first,
            above,
            clusters: chain.clusters,
            depth: own.depth + 1,
            root: false,
        });
        Ok(())
    }

    fn file(&mut self, raw: &Raw, at: u64, path: &str) -> Result<()> {
        let boot = self.core.boot.clone();
        let (first, size) = (raw.first_cluster(boot.kind == Kind::Fat32), raw.size());
        let wanted = size.div_ceil(boot.cluster_bytes);
        if first == 0 {
            if size > 0 {
                self.notes.add(CHAIN_SHORT, at, format!("{path}: {size} bytes and no cluster"));
            }
            return Ok(());
        }
        if !boot.is_cluster(first) {
            self.notes.add(FIRST_CLUSTER, at, format!("{path}: the file begins at cluster {first:#x}"));
            return Ok(());
        }
        let chain = self.follow(path, first, false, Some(at))?;
        if chain.whole && chain.count < wanted {
            let text = format!("{path}: {size} bytes need {wanted} clusters, the chain has {}", chain.count);
            self.notes.add(CHAIN_SHORT, at, text);
        } else if chain.whole && chain.count > wanted {
            let text = format!("{path}: {size} bytes need {wanted} clusters, the chain has {}", chain.count);
            self.notes.add(CHAIN_LONG, at, text);
            self.notes.remedy(Remedy::Cut { at, first, keep: wanted });
        }
        Ok(())
    }
}
