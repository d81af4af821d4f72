//! The checker. It holds a [`Volume`], which cannot write.
//!
//! One pass over $MFT collects records, names and clusters; a second one over the directories compares their entries
//! with the names in the records. Not looked at: $Secure, reparse and object id indexes, the order of index keys.

use super::directory::{Directory, I30};
use super::index::{FileName, root};
use super::map::RunMap;
use super::node::{Attr, kind};
use super::record::{Body, DIRECTORY, Record, fix_up, number_of, sequence_of};
use super::volume::Volume;
use crate::error::{Defect, Error, ErrorKind, Layer, Result, Severity};
use crate::progress::Progress;
use std::collections::{HashMap, HashSet};

/// Most defects of one code that are listed; one line more says how many there were.
const MAX_OF_A_CODE: usize = 100;
/// Most bytes of a bitmap: 2^32 clusters.
const MAX_BITMAP_BYTES: u64 = 1 << 29;
/// Records below this are reserved for the file system; some are in use without a name.
const RESERVED: u64 = 24;

/// Looks at everything.
pub(crate) fn check(volume: &Volume, progress: &dyn Progress) -> Result<Vec<Defect>> {
    let clusters = volume.boot().clusters();
    if clusters.div_ceil(8) > MAX_BITMAP_BYTES {
        return Err(Error::limit(Layer::Ntfs, "clusters of a volume to check").found(clusters));
    }
    let mut check = Check {
        volume,
        defects: Vec::new(),
        counts: HashMap::new(),
        taken: vec![
            0;
            clusters.min(volume.disk().len() / u64::from(volume.boot().cluster_bytes)).div_ceil(8)
                as usize
        ],
        files: HashMap::new(),
        used: Vec::new(),
    };
    progress.begin("checking records", None);
    check.boot_copy()?;
    check.mirror();
    check.records(progress)?;
    check.bitmaps();
    progress.end();
    progress.begin("checking directories", None);
    check.directories(progress)?;
    progress.end();
    Ok(check.finish())
}

/// What the first pass knows of a file.
#[derive(Default)]
struct File {
    sequence: u16,
    directory: bool,
    links: u16,
    names: usize,
    listed: bool,
    /// Directory and bytes of the key's name, with the namespace; taken out when an index entry shows them.
    open: HashSet<(u64, u8, Vec<u8>)>,
}

struct Check<'v> {
    volume: &'v Volume,
    defects: Vec<Defect>,
    counts: HashMap<&'static str, usize>,
    /// A bit for every cluster that a run holds.
    taken: Vec<u8>,
    files: HashMap<u64, File>,
    /// Records in use, as their own flag says.
    used: Vec<u64>,
}

impl Check<'_> {
    fn note(&mut self, code: &'static str, severity: Severity, at: impl Into<Option<u64>>, detail: String) {
        let count = self.counts.entry(code).or_default();
        *count += 1;
        if *count <= MAX_OF_A_CODE {
            self.defects.push(Defect::new(code, severity, Layer::Ntfs, at, detail));
        }
    }

    fn finish(mut self) -> Vec<Defect> {
        for (code, count) in self.counts.iter().filter(|(_, count)| **count > MAX_OF_A_CODE) {
            let detail = format!("{count} of these in all, the first {MAX_OF_A_CODE} are listed");
            self.defects.push(Defect::new(code, Severity::Note, Layer::Ntfs, None, detail));
        }
        self.defects
    }

    fn boot_copy(&mut self) -> Result<()> {
        let boot = self.volume.boot();
        let length = boot.sector_bytes as usize;
        let (at, first) = (boot.copy_offset(), self.volume.disk().read_vec(0, length)?);
        if at.checked_add(length as u64).is_none_or(|end| end > self.volume.disk().len()) {
            return Ok(()); // an image that was cut at the end of the volume
        }
        if self.volume.disk().read_vec(at, length)? != first {
            let detail = "the copy of the boot sector differs from the first sector".to_string();
            self.note("ntfs-boot-copy", Severity::Warning, at, detail);
        }
        Ok(())
    }

    /// $MFTMirr against the first four records.
    fn mirror(&mut self) {
        let volume = self.volume;
        let size = volume.boot().record_bytes as usize;
        let read = || -> Result<Vec<u8>> {
            let node = volume.node(1)?;
            let data = node.attribute(kind::DATA, &[]).ok_or_else(|| super::volume::no_stream(1, ""))?;
            volume.attribute_bytes(data, 1 << 22)
        };
        let Ok(mirror) = read() else {
            return self.note("ntfs-mirror", Severity::Error, None, "$MFTMirr cannot be read".into());
        };
        for (number, copy) in (0..4).zip(mirror.chunks_exact(size)) {
            if volume.raw_record(number).ok().as_deref() != Some(copy) {
                let detail = format!("record {number} differs from its copy in $MFTMirr");
                self.note("ntfs-mirror", Severity::Warning, volume.record_offset(number), detail);
            }
        }
    }

    fn records(&mut self, progress: &dyn Progress) -> Result<()> {
        let volume = self.volume;
        let errors = volume.scan_raw(|number, bytes| {
            if number % 4096 == 0 && progress.cancelled() {
                return Err(Error::new(ErrorKind::Interrupted, Layer::Ntfs, "check"));
            }
            let never_used = bytes.get(..4) == Some(&[0; 4]);
            if never_used {
                return Ok(());
            }
            match fix_up(bytes, b"FILE") {
                Ok(()) => self.record(number, &Record::of_fixed(bytes)),
                Err(error) => {
                    self.note(
                        "ntfs-record",
                        Severity::Error,
                        volume.record_offset(number),
                        error.to_string(),
                    );
                }
            }
            Ok(())
        })?;
        for error in errors {
            self.note("ntfs-mft-unreadable", Severity::Error, error.offset(), error.to_string());
        }
        Ok(())
    }

    fn record(&mut self, number: u64, record: &Record<'_>) {
        if !record.in_use() {
            return;
        }
        self.used.push(number);
        let at = self.volume.record_offset(number);
        let base = if record.base() == 0 { number } else { number_of(record.base()) };
        let mut names = Vec::new();
        let mut listed = false;
        for attribute in record.attributes() {
            let attribute = match attribute {
                Ok(attribute) => attribute,
                Err(error) => {
                    return self.note(
                        "ntfs-attribute",
                        Severity::Error,
                        at,
                        format!("record {number:#x}: {error}"),
                    );
                }
            };
            match attribute.body {
                Body::Resident(value) if attribute.kind == kind::FILE_NAME => match FileName::parse(value) {
                    Some(name) => {
                        names.push((number_of(name.parent()), name.namespace(), name.name_bytes().to_vec()));
                    }
                    None => self.note(
                        "ntfs-file-name",
                        Severity::Error,
                        at,
                        format!("record {number:#x}: a name"),
                    ),
                },
                Body::Resident(_) => {}
                Body::NonResident(mapped) => {
                    let mut map = RunMap::default();
                    // The place in the attribute does not matter here.
                    match map.append(0, mapped.pairs, self.volume.boot().clusters()) {
                        Ok(()) => self.take(number, &map),
                        Err(error) => {
                            self.note(
                                "ntfs-run-list",
                                Severity::Error,
                                at,
                                format!("record {number:#x}: {error}"),
                            );
                        }
                    }
                    if !map.runs().is_empty()
                        && mapped.highest_vcn.wrapping_add(1) != mapped.lowest_vcn + map.end()
                    {
                        let detail = format!(
                            "record {number:#x}: last VCN {:#x} is not the end of the runs",
                            mapped.highest_vcn
                        );
                        self.note("ntfs-run-list", Severity::Error, at, detail);
                    }
                }
            }
            listed |= attribute.kind == kind::ATTRIBUTE_LIST;
        }
        let file = self.files.entry(base).or_default();
        file.names += names.len();
        file.open.extend(names);
        if base == number {
            file.sequence = record.sequence();
            file.directory = record.flags() & DIRECTORY != 0;
            file.links = record.links();
            file.listed = listed;
        }
    }

    /// Marks the clusters of a run list.
    fn take(&mut self, number: u64, map: &RunMap) {
        let mut shared = None;
        for run in map.runs() {
            let Some(lcn) = run.lcn else { continue };
            // Runs lie inside the volume, so this is bounded by its bitmap; the rest lies behind the disk.
            for cluster in lcn..(lcn + run.count).min(self.taken.len() as u64 * 8) {
                let (byte, bit) = ((cluster / 8) as usize, 1u8 << (cluster % 8));
                if self.taken[byte] & bit != 0 {
                    shared.get_or_insert(cluster);
                }
                self.taken[byte] |= bit;
            }
        }
        if let Some(cluster) = shared {
            let at = cluster * u64::from(self.volume.boot().cluster_bytes);
            let detail = format!("cluster {cluster:#x} of record {number:#x} belongs to another run as well");
            self.note("ntfs-cluster-shared", Severity::Error, at, detail);
        }
    }

    fn bytes_of(&self, number: u64, kind: u32) -> Option<Vec<u8>> {
        let node = self.volume.node(number).ok()?;
        self.volume.attribute_bytes(node.attribute(kind, &[])?, MAX_BITMAP_BYTES).ok()
    }

    fn bitmaps(&mut self) {
        match self.bytes_of(6, kind::DATA) {
            Some(map) => self.cluster_bitmap(&map),
            None => self.note("ntfs-bitmap", Severity::Error, None, "$Bitmap cannot be read".into()),
        }
        let Some(map) = self.bytes_of(0, kind::BITMAP) else {
            return self.note(
                "ntfs-mft-bitmap",
                Severity::Error,
                None,
                "the bitmap of $MFT cannot be read".into(),
            );
        };
        let used: HashSet<u64> = self.used.iter().copied().collect();
        for number in 0..self.volume.records() {
            let marked = map.get((number / 8) as usize).is_some_and(|byte| byte & 1 << (number % 8) != 0);
            if marked != used.contains(&number) && number >= RESERVED {
                let detail = format!("record {number:#x}: in use is {}, its bit says {marked}", !marked);
                self.note("ntfs-mft-bitmap", Severity::Warning, self.volume.record_offset(number), detail);
            }
        }
    }

    fn cluster_bitmap(&mut self, map: &[u8]) {
        let cluster_bytes = u64::from(self.volume.boot().cluster_bytes);
        let clusters = self.volume.boot().clusters().min(self.taken.len() as u64 * 8);
        for byte in 0..self.taken.len() {
            let (taken, marked) = (self.taken[byte], map.get(byte).copied().unwrap_or(0));
            if taken == marked {
                continue;
            }
            for bit in (0..8).filter(|bit| (taken ^ marked) & 1 << bit != 0) {
                let cluster = byte as u64 * 8 + bit;
                if cluster >= clusters {
                    continue;
                }
                let at = cluster * cluster_bytes;
                if taken & 1 << bit != 0 {
                    let detail = format!("cluster {cluster:#x} is in use but marked free");
                    self.note("ntfs-bitmap-used-marked-free", Severity::Error, at, detail);
                } else {
                    let detail = format!("cluster {cluster:#x} is marked in use but nothing holds it");
                    self.note("ntfs-bitmap-lost-cluster", Severity::Warning, at, detail);
                }
            }
        }
    }

    fn directories(&mut self, progress: &dyn Progress) -> Result<()> {
        let mut numbers: Vec<u64> = self.files.iter().filter(|(_, f)| f.directory).map(|(n, _)| *n).collect();
        numbers.sort_unstable();
        for number in numbers {
            if progress.cancelled() {
                return Err(Error::new(ErrorKind::Interrupted, Layer::Ntfs, "check"));
            }
            if let Err(error) = self.directory(number) {
                let at = error.offset().or_else(|| self.volume.record_offset(number));
                self.note("ntfs-index", Severity::Error, at, format!("directory {number:#x}: {error}"));
            }
        }
        let mut open = Vec::new();
        for (number, file) in &self.files {
            if usize::from(file.links) != file.names && *number >= RESERVED {
                let detail = format!("record {number:#x} says {} names and has {}", file.links, file.names);
                open.push((*number, "ntfs-link-count", Severity::Warning, detail));
            }
            for (parent, _, name) in file.open.iter().filter(|_| *number >= RESERVED) {
                let name = crate::text::utf16le_lossy(name);
                let detail = format!("directory {parent:#x} has no entry for {name:?} of record {number:#x}");
                open.push((*number, "ntfs-name-not-in-index", Severity::Error, detail));
            }
        }
        open.sort();
        for (number, code, severity, detail) in open {
            self.note(code, severity, self.volume.record_offset(number), detail);
        }
        Ok(())
    }

    fn directory(&mut self, number: u64) -> Result<()> {
        let volume = self.volume;
        let node = volume.node(number)?;
        let mut wrong = Vec::new();
        let seen = Directory::open(volume, number, &node)?.walk(&mut |entry| {
            let Some(name) = FileName::parse(entry.key) else {
                return Err(Error::damaged(Layer::Ntfs, "key of a directory entry"));
            };
            let target = number_of(entry.reference);
            let key = (number, name.namespace(), name.name_bytes().to_vec());
            let file = self.files.get_mut(&target);
            let file = file.filter(|file| file.sequence == sequence_of(entry.reference));
            if !file.is_some_and(|file| file.open.remove(&key)) {
                let name = crate::text::utf16le_lossy(name.name_bytes());
                wrong.push(format!("{name:?} in directory {number:#x} is no name of record {target:#x}"));
            }
            Ok(())
        })?;
        for detail in wrong {
            self.note("ntfs-entry-without-file", Severity::Error, volume.record_offset(number), detail);
        }
        let Some(index_root) = node.attribute(kind::INDEX_ROOT, I30).and_then(Attr::resident) else {
            return Ok(());
        };
        let block_bytes = root(index_root)?.0.block_bytes;
        let per_block =
            u64::from(block_bytes) / volume.boot().index_vcn_bytes(block_bytes).min(u64::from(block_bytes));
        let bitmap = node.attribute(kind::BITMAP, I30);
        let bitmap =
            bitmap.map(|a| volume.attribute_bytes(a, MAX_BITMAP_BYTES)).transpose()?.unwrap_or_default();
        for vcn in seen {
            let block = vcn / per_block.max(1);
            if bitmap.get((block / 8) as usize).is_none_or(|byte| byte & 1 << (block % 8) == 0) {
                let detail = format!("directory {number:#x}: block {block:#x} is in use but marked free");
                self.note("ntfs-index-bitmap", Severity::Error, volume.record_offset(number), detail);
            }
        }
        Ok(())
    }
}
