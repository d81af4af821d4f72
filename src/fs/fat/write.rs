//! [`FatVolumeMut`]: changes of a FAT volume on a staged disk. Every change happens as a whole, or not at all.
//!
//! As Windows does it: clusters are given out next-fit, entries of deleted names are used again, a written file gets the attribute
//! archive and the time of its last change, the directory above keeps its times. Writing needs no order and no marks: what is
//! staged is published by a journal.

use super::boot::{Boot, Kind, is_fat};
use super::core::{Chain, Core, ROOT, Run, damaged, end_value};
use super::entry::{DIRECTORY, Raw, SLOT};
use super::name::check_name;
use super::volume::{FatVolume, user_bits};
use crate::{
    Attributes, DirEntry, FileSystem, FileSystemMut, Metadata, MetadataChange, NodeId, NodeKind, NodeName,
    StreamInfo, Times, VolumeInfo,
};
use std::ops::Range;
use std::sync::Arc;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;
use vmrescue_base::progress::Progress;
use vmrescue_base::time::FileTime;
use vmrescue_block::DiskMut;

/// Longest file.
const MAX_FILE_BYTES: u64 = u32::MAX as u64;

/// A FAT volume that can be changed. Counts that FAT32 keeps of its free clusters are written by `sync`.
pub struct FatVolumeMut {
    volume: FatVolume,
}

fn taken(name: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, Layer::Fat, "the name is taken").found(name)
}

fn no_name(name: &str) -> Error {
    Error::not_found(Layer::Fat, format!("{name:?} does not exist"))
}

fn lacks(what: &str) -> Error {
    Error::unsupported(Layer::Fat, format!("FAT has no {what}"))
}

impl FatVolumeMut {
    /// Opens a volume for writing.
    ///
    /// # Errors
    /// `Refused` when the boot sector is damaged, or the volume does not fit its partition or its table; `Damaged`.
    pub fn open(disk: DiskMut) -> Result<FatVolumeMut> {
        let view = disk.as_disk();
        let first = view.read_vec(0, view.len().min(512) as usize)?;
        if !is_fat(&first) && super::boot_copy(&view)?.is_some() {
            return Err(Error::refused(
                Layer::Fat,
                "the boot sector of the volume is damaged; it was read by its copy",
            )
            .at(0)
            .advice("repair it first: vmrescue partition repair-boot-sector IMAGE N"));
        }
        let boot = Boot::parse(&first)?;
        if boot.volume_bytes() > view.len() {
            return Err(Error::refused(Layer::Fat, "the volume is larger than its partition")
                .expected(format!("at most {} bytes", view.len()))
                .found(boot.volume_bytes())
                .advice("copy out what can be read (get -r), then format the partition"));
        }
        if boot.clusters < boot.wanted_clusters {
            return Err(Error::refused(Layer::Fat, "the allocation table is too short for the volume")
                .expected(boot.wanted_clusters)
                .found(boot.clusters)
                .advice("copy out what can be read (get -r), then format the partition"));
        }
        Ok(FatVolumeMut { volume: FatVolume::with(view, Some(disk), boot, false)? })
    }

    fn core(&mut self) -> &mut Core {
        self.volume.core_mut()
    }

    fn file(core: &mut Core, node: NodeId) -> Result<(u64, Raw)> {
        core.entry_of(node.0)?
            .filter(|(_, raw)| !raw.is_directory())
            .ok_or_else(|| Error::invalid(Layer::Fat, "this is a directory, not a file"))
    }

    /// Writes at a place, after the file has the clusters for it; what lies between its end and the place becomes zero.
    fn write_file(core: &mut Core, node: NodeId, offset: u64, data: &[u8]) -> Result<()> {
        let (at, mut raw) = FatVolumeMut::file(core, node)?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_FILE_BYTES);
        let end = end.ok_or_else(too_large)?;
        let size = u64::from(raw.size());
        let chain = core.grow(&mut raw, end.max(size))?;
        if offset > size {
            core.zero(&chain, size..offset)?;
        }
        core.fill(&chain, offset, data)?;
        raw.set_size(end.max(size) as u32);
        touch(&mut raw, core.now());
        core.put_entry(at, &raw)
    }
}

fn too_large() -> Error {
    Error::limit(Layer::Fat, "a file of FAT is smaller than 4 GiB")
        .expected(format!("at most {MAX_FILE_BYTES} bytes"))
}

/// The data of a file was changed.
fn touch(raw: &mut Raw, now: FileTime) {
    raw.set_modified(now);
    raw.0[11] |= Attributes::ARCHIVE as u8;
}

impl Core {
    fn is_wide(&self) -> bool {
        self.boot.kind == Kind::Fat32
    }

    /// The chain of a file with the clusters that `size` bytes need; new ones are added to its end.
    fn grow(&mut self, raw: &mut Raw, size: u64) -> Result<Arc<Chain>> {
        let needed = size.div_ceil(u64::from(self.boot.cluster_bytes)) as u32;
        let first = raw.first_cluster(self.is_wide());
        let old = if first == 0 { Arc::default() } else { self.chain(first, u32::MAX)? };
        if first != 0 && !old.whole {
            return Err(damaged("a chain of clusters does not end").at(self.boot.cluster_at(first)));
        }
        let Some(more) = needed.checked_sub(old.clusters).filter(|more| *more > 0) else { return Ok(old) };
        let last = old.last();
        let runs = self.free_map()?.take(more, last)?;
        let mut chain = Chain::clone(&old);
        for run in &runs {
            for cluster in run.first..run.first + run.count {
                self.forget_cluster(cluster);
                chain.push(cluster);
            }
        }
        chain.whole = true;
        let mut then = end_value(self.boot.kind);
        for run in runs.iter().rev() {
            self.link_run(run.first, run.count, then)?;
            then = run.first;
        }
        match last {
            Some(last) => self.link_run(last, 1, then)?,
            None => raw.set_first_cluster(then, self.is_wide()),
        }
        let first = raw.first_cluster(self.is_wide());
        let chain = Arc::new(chain);
        self.keep_chain(first, Arc::clone(&chain));
        Ok(chain)
    }

    fn zero(&mut self, chain: &Chain, range: Range<u64>) -> Result<()> {
        let boot = self.boot.clone();
        FatVolume::pieces(&boot, chain, range, |at, part| self.zero_data(at, part.len() as u64))
    }

    fn fill(&mut self, chain: &Chain, offset: u64, data: &[u8]) -> Result<()> {
        let boot = self.boot.clone();
        let range = offset..offset + data.len() as u64;
        FatVolume::pieces(&boot, chain, range, |at, part| self.write_data(at, &data[part]))
    }

    /// Frees the clusters of a chain from `keep` on. The entry is the caller's.
    pub(super) fn cut(&mut self, first: u32, keep: u32) -> Result<()> {
        let chain = self.chain(first, u32::MAX)?;
        if !chain.whole {
            return Err(damaged("a chain of clusters does not end").at(self.boot.cluster_at(first)));
        }
        self.forget_chain(first);
        // Read before the table changes, else it would count what is given back twice.
        self.free_map()?;
        for run in &chain.runs {
            let skip = keep.saturating_sub(run.before).min(run.count);
            let (from, count) = (run.first + skip, run.count - skip);
            if count > 0 {
                self.unlink_run(from, count)?;
                self.free_map()?.give(from, count);
            }
        }
        if let Some((last, _)) = keep.checked_sub(1).and_then(|last| chain.at(last)) {
            self.link_run(last, 1, end_value(self.boot.kind))?;
        }
        Ok(())
    }

    /// Frees the clusters of a directory that is empty.
    fn drop_directory(&mut self, cluster: u32) -> Result<()> {
        let clusters: Vec<u32> = self.drop_known(cluster).map_or(Vec::new(), |d| d.clusters().to_vec());
        self.cut(cluster, 0)?;
        clusters.into_iter().for_each(|cluster| self.forget_cluster(cluster));
        Ok(())
    }

    /// Makes an empty file or directory.
    pub(super) fn create(&mut self, parent: u64, name: &str, is_directory: bool) -> Result<u64> {
        check_name(name)?;
        let above = self.directory_cluster(parent)?;
        let now = self.now();
        let times = Times { created: now, modified: now, accessed: now, changed: now };
        self.with_directory(parent, |core, directory| {
            if directory.find(name).is_some() {
                return Err(taken(name));
            }
            let plan = directory.plan(name)?;
            let bits = if is_directory { DIRECTORY } else { Attributes::ARCHIVE as u8 };
            let mut raw = Raw::new(&plan.short, plan.lower, bits);
            raw.set_times(&times);
            if is_directory {
                let run: Vec<Run> = core.free_map()?.take(1, None)?;
                let cluster =
                    run.first().map(|run| run.first).ok_or_else(|| damaged("no cluster was given"))?;
                core.new_directory(cluster, above, &times)?;
                raw.set_first_cluster(cluster, core.is_wide());
            }
            let (_, at) = directory.insert(core, &plan, &raw)?;
            Ok(core.node_at(at))
        })
    }

    /// The first cluster of a new directory, with the entries for itself and the one above (0 for the root).
    fn new_directory(&mut self, cluster: u32, above: u32, times: &Times) -> Result<()> {
        self.forget_cluster(cluster);
        self.link_run(cluster, 1, end_value(self.boot.kind))?;
        let at = self.boot.cluster_at(cluster);
        let mut both = [[0; SLOT]; 2];
        for (entry, (name, to)) in both.iter_mut().zip([(b".          ", cluster), (b"..         ", above)]) {
            let mut raw = Raw::new(name, 0, DIRECTORY);
            raw.set_times(times);
            raw.set_first_cluster(to, self.is_wide());
            *entry = raw.0;
        }
        let head = both.as_flattened();
        self.write_data(at, head)?;
        self.zero_data(at + head.len() as u64, u64::from(self.boot.cluster_bytes) - head.len() as u64)
    }

    /// Removes a name and what it names.
    fn remove(&mut self, parent: u64, name: &str) -> Result<()> {
        let wide = self.is_wide();
        let node = self.with_directory(parent, |core, directory| {
            let slot = directory.find(name).ok_or_else(|| no_name(name))?;
            let at = directory.place(core, slot)?;
            Ok(core.node_at(at))
        })?;
        let Some((_, raw)) = self.entry_of(node)? else { return Err(no_name(name)) };
        if raw.is_directory() {
            let empty = self.with_directory(node, |_, directory| Ok(directory.is_empty()))?;
            if !empty {
                return Err(Error::invalid(Layer::Fat, "the directory is not empty").found(name));
            }
            self.drop_directory(raw.first_cluster(wide))?;
        } else if raw.first_cluster(wide) != 0 {
            self.cut(raw.first_cluster(wide), 0)?;
        }
        self.with_directory(parent, |core, directory| {
            let slot = directory.find(name).ok_or_else(|| no_name(name))?;
            directory.delete(core, slot)
        })?;
        self.retire(node);
        Ok(())
    }

    /// Moves a name.
    fn rename(&mut self, from: u64, from_name: &str, to: u64, to_name: &str) -> Result<()> {
        check_name(to_name)?;
        let (node, at) = self.with_directory(from, |core, directory| {
            let slot = directory.find(from_name).ok_or_else(|| no_name(from_name))?;
            let at = directory.place(core, slot)?;
            Ok((core.node_at(at), at))
        })?;
        let there = self.with_directory(to, |core, directory| {
            let Some(slot) = directory.find(to_name) else { return Ok(None) };
            let at = directory.place(core, slot)?;
            Ok(Some(core.node_at(at)))
        })?;
        if there.is_some_and(|there| there != node) {
            return Err(taken(to_name));
        }
        let mut raw = self.entry(at)?;
        let own = raw.first_cluster(self.is_wide());
        let (old_above, above) = (self.directory_cluster(from)?, self.directory_cluster(to)?);
        if raw.is_directory() {
            self.refuse_inside(own, above)?;
        }
        self.with_directory(from, |core, directory| {
            let slot = directory.find(from_name).ok_or_else(|| no_name(from_name))?;
            directory.delete(core, slot)
        })?;
        let new = self.with_directory(to, |core, directory| {
            let plan = directory.plan(to_name)?;
            raw.0[..11].copy_from_slice(&plan.short);
            raw.0[12] = raw.0[12] & !0x18 | plan.lower;
            Ok(directory.insert(core, &plan, &raw)?.1)
        })?;
        if raw.is_directory() && above != old_above {
            self.set_parent(own, above)?;
        }
        self.settle(node, new);
        Ok(())
    }

    /// Writes the entry `..` of a directory.
    pub(super) fn set_parent(&mut self, cluster: u32, above: u32) -> Result<()> {
        let at = self.boot.cluster_at(cluster) + SLOT as u64;
        let mut raw = self.entry(at)?;
        if &raw.short() != b"..         " {
            return Err(damaged("a directory has no entry for the one above it").at(at));
        }
        raw.set_first_cluster(above, self.is_wide());
        self.put_entry(at, &raw)
    }

    /// Refuses to move a directory into itself: goes up from the target to the root.
    fn refuse_inside(&mut self, own: u32, target: u32) -> Result<()> {
        let mut at = target;
        for _ in 0..MAX_DIRECTORY_DEPTH {
            if at == 0 {
                return Ok(());
            }
            if at == own {
                return Err(Error::invalid(Layer::Fat, "a directory cannot be moved into itself"));
            }
            let raw = self.entry(self.boot.cluster_at(at) + SLOT as u64)?;
            let above = raw.first_cluster(self.is_wide());
            if &raw.short() != b"..         " || above != 0 && !self.boot.is_cluster(above) {
                return Err(
                    damaged("a directory has no entry for the one above it").at(self.boot.cluster_at(at))
                );
            }
            at = above;
        }
        Err(Error::limit(Layer::Fat, "directories are nested too deeply"))
    }

    /// Writes the counts of FSInfo, when they are not right.
    pub(super) fn write_counts(&mut self) -> Result<()> {
        let Some(sector) = self.boot.info_sector else { return Ok(()) };
        // Without a map nothing was taken or given; after a change that failed it is read again.
        if !self.counted {
            return Ok(());
        }
        let map = self.free_map()?;
        let (free, next) = (map.free(), map.hint());
        let at = u64::from(sector) * u64::from(self.boot.sector_bytes);
        let bytes = self.disk.read_vec(at, 512)?;
        if u32_at(&bytes, 0) != Some(0x4161_5252) || u32_at(&bytes, 484) != Some(0x6141_7272) {
            return Ok(());
        }
        let mut new = [0; 8];
        new[..4].copy_from_slice(&free.to_le_bytes());
        new[4..].copy_from_slice(&next.to_le_bytes());
        self.put(at + 488, &new)
    }
}

impl FileSystem for FatVolumeMut {
    fn info(&self) -> VolumeInfo {
        self.volume.info()
    }

    fn free_bytes(&self) -> Result<u64> {
        self.volume.free_bytes()
    }

    fn free_ranges(&self) -> Result<Vec<Range<u64>>> {
        self.volume.free_ranges()
    }

    fn root(&self) -> NodeId {
        NodeId(ROOT)
    }

    fn lookup(&self, directory: NodeId, name: &str) -> Result<Option<NodeId>> {
        self.volume.lookup(directory, name)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        self.volume.metadata(node)
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        self.volume.read_dir(directory)
    }

    fn streams(&self, node: NodeId) -> Result<Vec<StreamInfo>> {
        self.volume.streams(node)
    }

    fn read(&self, node: NodeId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.volume.read(node, stream, offset, buf)
    }

    fn names(&self, node: NodeId) -> Result<Vec<NodeName>> {
        self.volume.names(node)
    }

    fn check(&self, progress: &dyn Progress) -> Result<Vec<Defect>> {
        self.volume.core().write_counts()?;
        self.volume.check(progress)
    }
}

impl FileSystemMut for FatVolumeMut {
    fn set_clock(&mut self, time: Option<FileTime>) {
        self.core().time = time;
    }

    fn create(&mut self, directory: NodeId, name: &str, kind: NodeKind) -> Result<NodeId> {
        if kind == NodeKind::Reparse {
            return Err(lacks("reparse points"));
        }
        let is_directory = kind == NodeKind::Directory;
        self.core().transact(|core| core.create(directory.0, name, is_directory)).map(NodeId)
    }

    fn write(&mut self, node: NodeId, stream: &str, offset: u64, data: &[u8]) -> Result<()> {
        if !stream.is_empty() {
            return Err(lacks("streams").found(stream));
        }
        self.core().transact(|core| FatVolumeMut::write_file(core, node, offset, data))
    }

    fn set_len(&mut self, node: NodeId, stream: &str, length_bytes: u64) -> Result<()> {
        if !stream.is_empty() {
            return Err(lacks("streams").found(stream));
        }
        let length = u32::try_from(length_bytes).map_err(|_| too_large())?;
        self.core().transact(|core| {
            let (at, mut raw) = FatVolumeMut::file(core, node)?;
            let size = u64::from(raw.size());
            if length_bytes > size {
                let chain = core.grow(&mut raw, length_bytes)?;
                core.zero(&chain, size..length_bytes)?;
            } else {
                let first = raw.first_cluster(core.is_wide());
                let keep = length.div_ceil(core.boot.cluster_bytes);
                if first != 0 {
                    core.cut(first, keep)?;
                }
                if keep == 0 {
                    raw.set_first_cluster(0, core.is_wide());
                }
            }
            raw.set_size(length);
            touch(&mut raw, core.now());
            core.put_entry(at, &raw)
        })
    }

    fn rename(&mut self, from: NodeId, from_name: &str, to: NodeId, to_name: &str) -> Result<()> {
        self.core().transact(|core| core.rename(from.0, from_name, to.0, to_name))
    }

    fn link(&mut self, _node: NodeId, _directory: NodeId, _name: &str) -> Result<()> {
        Err(lacks("hard links"))
    }

    fn remove(&mut self, directory: NodeId, name: &str) -> Result<()> {
        self.core().transact(|core| core.remove(directory.0, name))
    }

    fn remove_stream(&mut self, _node: NodeId, stream: &str) -> Result<()> {
        Err(lacks("streams").found(stream))
    }

    fn set_metadata(&mut self, node: NodeId, change: &MetadataChange) -> Result<()> {
        if change.security.is_some() || change.security_from.is_some() {
            return Err(lacks("security"));
        }
        if change.name_times.is_some() {
            return Err(lacks("times of names"));
        }
        self.core().transact(|core| {
            let Some((at, mut raw)) = core.entry_of(node.0)? else {
                return Err(lacks("times and attributes of the root directory"));
            };
            if let Some(attributes) = change.attributes {
                raw.0[11] = raw.0[11] & !(super::entry::USER_BITS as u8) | user_bits(attributes);
            }
            if let Some(times) = &change.times {
                raw.set_times(times);
            }
            core.put_entry(at, &raw)
        })
    }

    fn sync(&mut self) -> Result<()> {
        self.core().transact(Core::write_counts)
    }
}

impl FatVolumeMut {
    /// The reading half, for the repair.
    pub(super) fn parts(&mut self) -> &mut Core {
        self.volume.core_mut()
    }
}
