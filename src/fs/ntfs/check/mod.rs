//! The checker. It holds a [`Volume`], which cannot write.
//!
//! One pass over $MFT, by two threads, collects records, names and clusters; a second one walks the directories; then both
//! are compared with each other, with the bitmaps, with $Secure and with the indexes of $Extend. What a repair would do comes
//! with each finding ([`Remedy`]). Memory: a bit a cluster taken, 12 bytes a record, 32 a name. See `docs/check.md` for all codes.
//! Missing: access control lists, the records of the journals, compressed data, $AttrDef.

mod bitmaps;
mod clusters;
mod codes;
mod directory;
mod extend;
mod list;
mod notes;
mod record;
mod secure;
mod system;
mod tree;

pub(crate) use clusters::Clusters;
pub use codes::{CODES, Code, Mend, codes_page};
pub(crate) use notes::Remedy;
pub use system::SystemFileProblem;
pub(crate) use system::{last_boot, mirror_bytes};
pub(crate) use tree::reached;

use super::node::kind;
use super::record::{fix_up, number_of};
use super::volume::Volume;
use super::write::runs;
use codes::*;
use notes::Notes;
use record::Fact;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;

/// Most clusters of a volume (Windows' own limit).
const MAX_CLUSTERS: u64 = 1 << 32;
/// Most bytes of the bitmap of $MFT.
const MAX_RECORD_MAP_BYTES: u64 = 1 << 29;
/// Records of one piece of work.
const BATCH: u64 = 1024;
/// Directories of one piece of work.
const DIRECTORIES: usize = 64;
/// Threads that look; more do not pay, the disk is one.
const THREADS: usize = 2;
/// Ranges of shared clusters whose owners are named.
const MAX_SHARED: usize = 64;

/// What one piece of the work found.
#[derive(Default)]
struct Part {
    notes: Notes,
    facts: Vec<Fact>,
    /// Names in records, as `name_hash`, with the record.
    names: Vec<(u64, u64)>,
    /// Entries in directories, as `name_hash`, with the directory.
    entries: Vec<(u64, u64)>,
    /// Extension records and their base references.
    extensions: Vec<(u64, u64)>,
    /// Base references and how many names an extension record has for them.
    more_names: Vec<(u64, u16)>,
    /// Records with an attribute list.
    listed: Vec<u64>,
    /// Directories.
    trees: Vec<u64>,
    /// Directories whose index cannot be walked.
    broken: Vec<u64>,
    /// Directories and the directories that they are in.
    parents: Vec<(u64, u64)>,
    /// Clusters that were taken before, and the record that took them again.
    shared: Vec<(Range<u64>, u64)>,
    /// Reparse points: tag and file.
    reparse: Vec<(u32, u64)>,
    /// Files whose reparse point lies in clusters.
    far_reparse: Vec<u64>,
    /// Object ids, files, and the ids of their birth.
    object_ids: Vec<([u8; 16], u64, Vec<u8>)>,
}

impl Part {
    fn merge(&mut self, mut other: Part) {
        self.notes.merge(other.notes);
        self.facts.append(&mut other.facts);
        self.names.append(&mut other.names);
        self.entries.append(&mut other.entries);
        self.extensions.append(&mut other.extensions);
        self.more_names.append(&mut other.more_names);
        self.listed.append(&mut other.listed);
        self.trees.append(&mut other.trees);
        self.broken.append(&mut other.broken);
        self.parents.append(&mut other.parents);
        self.shared.append(&mut other.shared);
        self.reparse.append(&mut other.reparse);
        self.far_reparse.append(&mut other.far_reparse);
        self.object_ids.append(&mut other.object_ids);
    }
}

/// What was found, for people and for a repair.
pub(crate) struct Examined {
    /// Everything that was found.
    pub(crate) defects: Vec<Defect>,
    /// What puts it right.
    pub(crate) remedies: Vec<Remedy>,
    /// Something was found that keeps a repair from starting.
    pub(crate) refuses: bool,
    /// Something was found that a repair leaves.
    pub(crate) leaves: bool,
    /// Which clusters are taken.
    pub(crate) taken: Clusters,
    /// Which records are in use, a bit each.
    pub(crate) used: Vec<u8>,
}

/// Looks at everything.
pub(crate) fn check(volume: &Volume, progress: &dyn Progress) -> Result<Vec<Defect>> {
    examine(volume, progress).map(|examined| examined.defects)
}

/// Looks at everything, and keeps what a repair needs.
pub(crate) fn examine(volume: &Volume, progress: &dyn Progress) -> Result<Examined> {
    let clusters = volume.boot().clusters();
    if clusters > MAX_CLUSTERS {
        return Err(Error::limit(Layer::Ntfs, "clusters of a volume to check").found(clusters));
    }
    let taken = Clusters::new(clusters);
    progress.begin("checking records", Some(volume.records()));
    let marked = marked_records(volume);
    let batches = volume.records().div_ceil(BATCH);
    let mut part = in_parts(batches, progress, &|batch| {
        let found = records(volume, &taken, &marked, batch * BATCH);
        progress.advance(BATCH);
        found
    })?;
    progress.end();
    add_names(&mut part);
    progress.begin("checking directories", Some(part.trees.len() as u64));
    let trees = std::mem::take(&mut part.trees);
    let facts = std::mem::take(&mut part.facts);
    let walked = in_parts(trees.len().div_ceil(DIRECTORIES) as u64, progress, &|batch| {
        let mut found = Part::default();
        for number in trees.iter().skip(batch as usize * DIRECTORIES).take(DIRECTORIES) {
            directory::entries(
                volume,
                *number,
                facts.get(*number as usize).copied().unwrap_or_default(),
                &mut found,
            );
        }
        progress.advance(DIRECTORIES as u64);
        found
    })?;
    part.merge(walked);
    progress.end();
    system::look(volume, &facts, &mut part.notes)?;
    let mut owned = BTreeSet::new();
    for number in std::mem::take(&mut part.listed) {
        list::look(volume, number, &facts, &mut owned, &mut part.notes);
    }
    extensions(volume, &facts, &owned, &mut part);
    shared(volume, &mut part);
    directory::compare(volume, &facts, &mut part);
    directory::counts_and_loops(volume, &facts, &mut part);
    bitmaps::clusters(volume, &taken, &mut part.notes);
    bitmaps::records(volume, &facts, &mut part.notes);
    secure::look(volume, &facts, &mut part.notes);
    extend::look(volume, &mut part);
    let mut used = vec![0u8; facts.len().div_ceil(8)];
    for (number, _) in facts.iter().enumerate().filter(|(_, fact)| fact.is(Fact::USED)) {
        used[number / 8] |= 1 << (number % 8);
    }
    let defects = part.notes.finish();
    let Notes { remedies, refuses, leaves, .. } = part.notes;
    Ok(Examined { defects, remedies, refuses, leaves, taken, used })
}

/// Does `count` pieces of work by two threads, and joins what they found in the order of the pieces.
fn in_parts(count: u64, progress: &dyn Progress, work: &(dyn Fn(u64) -> Part + Sync)) -> Result<Part> {
    let (next, done) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let one = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || progress.cancelled() {
                return;
            }
            let found = work(index);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, found));
        }
    };
    if count > 1 {
        std::thread::scope(|scope| {
            for _ in 1..THREADS {
                scope.spawn(one);
            }
            one();
        });
    } else {
        one();
    }
    if progress.cancelled() {
        return Err(Error::new(ErrorKind::Interrupted, Layer::Ntfs, "check"));
    }
    let mut parts = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    parts.sort_by_key(|(index, _)| *index);
    let mut all = Part::default();
    parts.into_iter().for_each(|(_, part)| all.merge(part));
    Ok(all)
}

/// The bitmap of $MFT; empty when it cannot be read, which is said elsewhere.
fn marked_records(volume: &Volume) -> Vec<u8> {
    let read = || -> Option<Vec<u8>> {
        let node = volume.node(0).ok()?;
        volume.attribute_bytes(node.attribute(kind::BITMAP, &[])?, MAX_RECORD_MAP_BYTES).ok()
    };
    read().unwrap_or_default()
}

/// The first pass over some records.
fn records(volume: &Volume, taken: &Clusters, marked: &[u8], first: u64) -> Part {
    let size = volume.boot().record_bytes as usize;
    let count = BATCH.min(volume.records() - first);
    let mut part = Part::default();
    let mut buf = vec![0; count as usize * size];
    let whole = volume.read_records(first, &mut buf);
    for (index, bytes) in buf.chunks_exact_mut(size).enumerate() {
        let number = first + index as u64;
        let at = volume.record_offset(number);
        // One bad sector must not take its neighbours with it.
        if whole.is_err()
            && let Err(error) = volume.read_records(number, bytes)
        {
            part.facts.push(Fact { flags: Fact::DAMAGED, ..Fact::default() });
            part.notes.note(MFT_UNREADABLE, at, format!("record {number:#x}: {error}"));
            continue;
        }
        let is_marked = marked.get((number / 8) as usize).is_some_and(|byte| byte & 1 << (number % 8) != 0);
        let never_used = bytes.get(..4) == Some(&[0; 4]);
        if never_used && !is_marked {
            part.facts.push(Fact::default());
            continue;
        }
        match fix_up(bytes, b"FILE") {
            Ok(()) => {
                let fact = record::look(volume, taken, number, bytes, &mut part);
                part.facts.push(fact);
            }
            Err(error) => {
                let reserved = (12..record::RESERVED).contains(&number) && never_used;
                // What a free record holds does not matter.
                if is_marked && !reserved && !mirrored(volume, number) {
                    part.notes.note(RECORD, at, format!("record {number:#x}: {error}"));
                }
                let flags = if is_marked && !reserved { Fact::DAMAGED } else { 0 };
                part.facts.push(Fact { flags, ..Fact::default() });
            }
        }
    }
    part
}

/// True when $MFTMirr has a whole copy of a record.
fn mirrored(volume: &Volume, number: u64) -> bool {
    let copy = || -> Option<Vec<u8>> {
        let size = volume.boot().record_bytes as usize;
        let mirror = (number < system::MIRRORED).then(|| mirror_bytes(volume))??;
        Some(mirror.chunks_exact(size).nth(usize::try_from(number).ok()?)?.to_vec())
    };
    copy().is_some_and(|mut copy| fix_up(&mut copy, b"FILE").is_ok())
}

/// Adds the names of extension records to the counts of their files.
fn add_names(part: &mut Part) {
    for (base, count) in std::mem::take(&mut part.more_names) {
        if let Some(fact) = part.facts.get_mut(number_of(base) as usize) {
            fact.names = fact.names.saturating_add(count);
        }
    }
}

/// Extension records that no file owns. They can be freed when their base record is gone for certain.
fn extensions(volume: &Volume, facts: &[Fact], owned: &BTreeSet<u64>, part: &mut Part) {
    for (number, base) in std::mem::take(&mut part.extensions) {
        if owned.contains(&number) {
            continue;
        }
        let fact = facts.get(number_of(base) as usize).copied().unwrap_or_default();
        let at = volume.record_offset(number);
        let detail =
            format!("record {number:#x} is an extension of {:#x}, which does not know it", number_of(base));
        let gone = !fact.is(Fact::DAMAGED)
            && (!fact.is(Fact::USED) || u64::from(fact.sequence) != base >> 48)
            && number >= record::RESERVED;
        if gone {
            part.notes.mend(EXTENSION_UNOWNED, at, detail, Remedy::FreeExtension(number));
        } else {
            part.notes.leave(EXTENSION_UNOWNED, at, detail);
        }
    }
}

/// Names all owners of clusters that were taken twice: another pass over $MFT, only when there are any.
fn shared(volume: &Volume, part: &mut Part) {
    let found = std::mem::take(&mut part.shared);
    let total = found.len();
    let wanted: Vec<Range<u64>> = found.into_iter().take(MAX_SHARED).map(|(range, _)| range).collect();
    if wanted.is_empty() {
        return;
    }
    let mut owners: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); wanted.len()];
    let all = volume.boot().clusters();
    let scanned = volume.scan_raw(|number, bytes| {
        if fix_up(bytes, b"FILE").is_err() {
            return Ok(());
        }
        let record = super::record::Record::of_fixed(bytes);
        for attribute in record.attributes().flatten().filter(|_| record.in_use()) {
            let super::record::Body::NonResident(mapped) = attribute.body else { continue };
            for run in runs::decode(mapped.pairs, all).unwrap_or_default() {
                let Some(lcn) = run.lcn else { continue };
                for (range, owners) in wanted.iter().zip(&mut owners) {
                    if lcn < range.end && range.start < lcn + run.count {
                        owners.insert(if record.base() == 0 { number } else { number_of(record.base()) });
                    }
                }
            }
        }
        Ok(())
    });
    drop(scanned); // parts that cannot be read were said before
    let cluster_bytes = u64::from(volume.boot().cluster_bytes);
    for (range, owners) in wanted.iter().zip(owners) {
        let owners: Vec<String> = owners.iter().take(8).map(|number| format!("{number:#x}")).collect();
        let detail =
            format!("clusters {:#x}..{:#x} belong to records {}", range.start, range.end, owners.join(", "));
        part.notes.note(CLUSTER_SHARED, range.start * cluster_bytes, detail);
    }
    for _ in MAX_SHARED..total {
        part.notes.note(CLUSTER_SHARED, None, "more clusters belong to two files");
    }
}
