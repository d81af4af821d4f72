//! Looks at a whole FAT volume and changes nothing: the boot sector and its copy, the tables, every directory and every chain.
//!
//! One walk from the root marks each cluster that a chain goes through; what is marked twice is cross-linked, what is in use
//! and not marked is lost. What a repair can do about it is noted as a [`Remedy`] (`mend.rs` does it).

mod codes;
mod walk;

pub use codes::CODES;
use codes::*;

use super::boot::{Boot, COPY_SECTOR, Kind};
use super::core::{Core, Link, link};
use super::free::each_link;
use super::volume::{is_dirty, second_entry};
use crate::ntfs::{Code, Mend};
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_block::Disk;

/// Most defects of one code that are listed.
const LISTED: usize = 100;
/// Bytes of a table that are compared at once.
const PIECE: u64 = 1 << 20;
/// Most chains of lost clusters that become files.
pub(super) const MAX_FOUND: usize = 1000;

/// What a repair does, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    BootSector,
    BootCopy,
    /// FSInfo is written anew.
    Info,
    /// The first two entries of the table.
    FirstEntry,
    /// All tables become like the one that is read.
    Copies,
    /// The marks of an unclean end go.
    Dirty,
    /// The file whose entry lies there has clusters behind its end.
    Cut {
        at: u64,
        first: u32,
        keep: u32,
    },
    /// The entry of a directory has a size.
    NoSize {
        at: u64,
    },
    /// The first two entries of a directory.
    Dots {
        cluster: u32,
        above: u32,
    },
    /// Parts of a long name that belong to nothing.
    Parts {
        slots: Vec<u64>,
    },
    /// Chains that no file has: where they begin, and clusters.
    Lost(Vec<(u32, u32)>),
}

/// What the check found.
pub(super) struct Examined {
    pub(super) defects: Vec<Defect>,
    pub(super) remedies: Vec<Remedy>,
    /// Something has no one right answer.
    pub(super) refuses: bool,
    /// Something stays as it is.
    pub(super) leaves: bool,
}

/// Collects defects, a bounded number of each code.
pub(super) struct Notes {
    defects: Vec<Defect>,
    counts: BTreeMap<&'static str, usize>,
    remedies: Vec<Remedy>,
    refuses: bool,
    leaves: bool,
}

impl Notes {
    fn new() -> Notes {
        Notes {
            defects: Vec::new(),
            counts: BTreeMap::new(),
            remedies: Vec::new(),
            refuses: false,
            leaves: false,
        }
    }

    pub(super) fn add(&mut self, code: Code, at: impl Into<Option<u64>>, text: impl Into<String>) {
        if code.severity != Severity::Note {
            self.refuses |= code.mend == Mend::Refuses;
            self.leaves |= code.mend == Mend::Leaves;
        }
        let count = self.counts.entry(code.name).or_default();
        *count += 1;
        if *count <= LISTED {
            self.defects.push(Defect::new(code.name, code.severity, Layer::Fat, at, text));
        }
    }

    pub(super) fn remedy(&mut self, remedy: Remedy) {
        self.remedies.push(remedy);
    }

    fn finish(mut self) -> Examined {
        for (code, count) in self.counts {
            if count > LISTED {
                let text = format!("{count} findings of this kind, {LISTED} are listed");
                self.defects.push(Defect::new(code, Severity::Note, Layer::Fat, None, text));
            }
        }
        Examined {
            defects: self.defects,
            remedies: self.remedies,
            refuses: self.refuses,
            leaves: self.leaves,
        }
    }
}

/// One bit for each cluster.
pub(super) struct Marks(Vec<u64>);

impl Marks {
    pub(super) fn new(clusters: u32) -> Marks {
        Marks(vec![0; (clusters as usize + 2).div_ceil(64)])
    }

    /// Marks a cluster; false when it was marked before.
    pub(super) fn mark(&mut self, cluster: u32) -> bool {
        let (word, bit) = ((cluster / 64) as usize, 1u64 << (cluster % 64));
        let Some(bits) = self.0.get_mut(word) else { return false };
        let fresh = *bits & bit == 0;
        *bits |= bit;
        fresh
    }

    fn has(&self, cluster: u32) -> bool {
        self.0.get((cluster / 64) as usize).is_some_and(|bits| bits & 1 << (cluster % 64) != 0)
    }
}

/// Looks at the volume by the table that counts.
///
/// # Errors
/// `Interrupted`, and what stops the check itself.
pub(super) fn examine(disk: &Disk, boot: &Boot, by_copy: bool, progress: &dyn Progress) -> Result<Examined> {
    let mut notes = Notes::new();
    boot_sector(disk, boot, by_copy, &mut notes)?;
    if boot.volume_bytes() > disk.len() {
        let text = format!("the volume has {} bytes, its partition {}", boot.volume_bytes(), disk.len());
        notes.add(VOLUME_CUT, 0, text);
    }
    if boot.clusters < boot.wanted_clusters {
        let text = format!("{} clusters, entries for {}", boot.wanted_clusters, boot.clusters);
        notes.add(TABLE_SHORT, boot.table_at(0), text);
    }
    let differ = compare_tables(disk, boot, &mut notes)?;
    let mut core = Core::new(disk.clone(), None, boot.clone());
    marks_of_the_end(&mut core, &mut notes)?;
    let mut walk = walk::Walk::new(&mut core, &mut notes, progress);
    walk.run()?;
    let marks = walk.marks;
    let whole = !notes.refuses
        && !notes.defects.iter().any(|d| d.severity == Severity::Error && d.code != BOOT_SECTOR.name);
    clusters(&core, &marks, whole, &mut notes)?;
    if differ {
        notes.remedy(Remedy::Copies);
    }
    Ok(notes.finish())
}

fn boot_sector(disk: &Disk, boot: &Boot, by_copy: bool, notes: &mut Notes) -> Result<()> {
    if by_copy {
        notes.add(BOOT_SECTOR, 0, "the boot sector is damaged; its copy is whole");
        notes.remedy(Remedy::BootSector);
        return Ok(());
    }
    if boot.kind != Kind::Fat32 {
        return Ok(());
    }
    let sector = boot.sector_bytes as usize;
    let first = disk.read_vec(0, sector)?;
    let place = boot.copy_sector.map(|copy| u64::from(copy) * sector as u64);
    let Some(place) = place else {
        // Legal, but nothing then helps when the first one is lost.
        return Ok(());
    };
    let mut copy = disk.read_vec(place, sector)?;
    // The marks of Windows NT are kept in the first one only.
    copy[boot.flags_at() as usize] = first[boot.flags_at() as usize];
    if copy != first {
        let text =
            if Boot::parse(&copy).is_ok() { "it differs from the boot sector" } else { "it is damaged" };
        notes.add(BOOT_COPY, place, format!("the copy of the boot sector: {text}"));
        notes.remedy(Remedy::BootCopy);
    }
    Ok(())
}

/// True when a copy of the table differs from the one that is read.
fn compare_tables(disk: &Disk, boot: &Boot, notes: &mut Notes) -> Result<bool> {
    if boot.only_table.is_some() {
        return Ok(false);
    }
    let mut differ = false;
    for table in 1..boot.tables {
        let mut at = 0;
        while at < boot.table_bytes() {
            let length = PIECE.min(boot.table_bytes() - at) as usize;
            let both = disk
                .read_vec(boot.table_at(0) + at, length)
                .and_then(|first| Ok((first, disk.read_vec(boot.table_at(table) + at, length)?)));
            let (first, other) = match both {
                Ok(both) => both,
                Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
                Err(e) => {
                    notes.add(TABLE_UNREADABLE, boot.table_at(table) + at, e.to_string());
                    break;
                }
            };
            if let Some(byte) = first.iter().zip(&other).position(|(a, b)| a != b) {
                let place = boot.table_at(table) + at + byte as u64;
                notes.add(
                    COPIES_DIFFER,
                    place,
                    format!("copy {} of the allocation table differs from the first", table + 1),
                );
                differ = true;
                break;
            }
            at += length as u64;
        }
    }
    Ok(differ)
}

/// The first two entries: the media byte, and how the volume was left.
fn marks_of_the_end(core: &mut Core, notes: &mut Notes) -> Result<()> {
    let boot = core.boot.clone();
    let at = boot.table_at(core.table());
    let first = core.disk.read_vec(at, 1)?;
    if first != [boot.media] {
        notes.add(FIRST_ENTRY, at, format!("{:#x} instead of the media byte {:#x}", first[0], boot.media));
        notes.remedy(Remedy::FirstEntry);
    }
    let (dirty, errors) = is_dirty(core)?;
    if dirty {
        notes.add(
            DIRTY,
            at,
            format!("the volume was not unmounted cleanly ({:#x}, {:#x})", second_entry(core)?, boot.flags),
        );
        notes.remedy(Remedy::Dirty);
    }
    if errors {
        notes.add(MEDIUM_ERRORS, at, "marked by Windows after errors of the medium");
    }
    Ok(())
}

/// Lost and bad clusters, and the counts of FSInfo.
fn clusters(core: &Core, marks: &Marks, whole: bool, notes: &mut Notes) -> Result<()> {
    let boot = &core.boot;
    let (mut free, mut bad, mut lost) = (0u32, 0u32, Vec::new());
    let mut led_to = BTreeSet::new();
    let read = each_link(&core.disk, boot, core.table(), |cluster, value| match link(boot, value) {
        Link::Free => free += 1,
        Link::Bad => bad += 1,
        found if !marks.has(cluster) => {
            if let Link::Next(next) = found {
                led_to.insert(next);
            }
            lost.push(cluster);
        }
        _ => {}
    });
    if let Err(e) = read {
        notes.add(TABLE_UNREADABLE, e.offset(), e.to_string());
        return Ok(());
    }
    if bad > 0 {
        notes.add(BAD_CLUSTERS, None, format!("{bad} clusters"));
    }
    if !lost.is_empty() {
        let heads: Vec<u32> = lost.iter().copied().filter(|cluster| !led_to.contains(cluster)).collect();
        let text =
            format!("{} clusters in {} chains, the first at cluster {}", lost.len(), heads.len(), lost[0]);
        notes.add(LOST_CLUSTERS, boot.cluster_at(lost[0]), text);
        // Where chains are damaged, what is lost may be their rest: that is not for a repair to decide.
        if whole {
            notes.remedy(Remedy::Lost(chains(core, &heads, marks)?));
        } else {
            notes.leaves = true;
        }
    }
    info(core, free, notes)
}

/// The chains that begin at these clusters, as long as they are good.
fn chains(core: &Core, heads: &[u32], marks: &Marks) -> Result<Vec<(u32, u32)>> {
    let mut reader = Core::new(core.disk.clone(), None, core.boot.clone());
    let mut seen = Marks::new(core.boot.clusters);
    let mut found = Vec::new();
    for head in heads.iter().take(MAX_FOUND) {
        let (mut at, mut count) = (*head, 0);
        while !marks.has(at) && seen.mark(at) {
            count += 1;
            match reader.link(at)? {
                Link::Next(next) => at = next,
                _ => break,
            }
        }
        if count > 0 {
            found.push((*head, count));
        }
    }
    Ok(found)
}

fn info(core: &Core, free: u32, notes: &mut Notes) -> Result<()> {
    let boot = &core.boot;
    if boot.kind != Kind::Fat32 {
        return Ok(());
    }
    let Some(sector) = boot.info_sector else { return Ok(()) };
    let at = u64::from(sector) * u64::from(boot.sector_bytes);
    let bytes = core.disk.read_vec(at, 512)?;
    let number = |place| u32_at(&bytes, place).unwrap_or_default();
    if (number(0), number(484), number(508)) != (0x4161_5252, 0x6141_7272, 0xAA55_0000) {
        notes.add(INFO, at, "FSInfo has not its signatures");
        notes.remedy(Remedy::Info);
    } else if number(488) != u32::MAX && number(488) != free {
        notes.add(INFO_COUNT, at + 488, format!("{} free clusters, there are {free}", number(488)));
        notes.remedy(Remedy::Info);
    }
    Ok(())
}

/// The copy of the boot sector as it is written from the first one: without the marks of Windows NT.
pub(super) fn copy_of(boot: &Boot, first: &[u8]) -> Vec<u8> {
    let mut copy = first.to_vec();
    copy[boot.flags_at() as usize] = 0;
    copy
}

/// Where the copy of the boot sector lies.
pub(super) fn copy_place(boot: &Boot) -> u64 {
    boot.copy_sector.map_or(COPY_SECTOR, u64::from) * u64::from(boot.sector_bytes)
}

/// The list of what keeps a repair from starting.
pub(super) fn refused(defects: &[Defect]) -> Error {
    let refuses =
        |defect: &&Defect| CODES.iter().any(|code| code.name == defect.code && code.mend == Mend::Refuses);
    let list: Vec<&Defect> = defects.iter().filter(refuses).collect();
    let shown: Vec<String> = list.iter().take(10).map(ToString::to_string).collect();
    Error::refused(Layer::Fat, "the volume has damage without one right answer")
        .found(shown.join("; "))
        .advice("copy out what can be read (get -r), or make the file system new: vmrescue repair IMAGE system-partition, disk format --force")
}
