//! [`FatVolume`]: a FAT volume behind the reading trait, and what the writer shares with it.

use super::boot::{Boot, Kind, boot_copy, is_fat};
use super::check;
use super::core::{Chain, Core, ROOT};
use super::directory::Directory;
use super::entry::{LABEL, Raw, SLOT};
use super::free::FreeMap;
use super::name::{CodePage, label_text};
use crate::{
    Attributes, DirEntry, FileSystem, Metadata, NodeId, NodeKind, NodeName, StreamInfo, Times, VolumeInfo,
};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmrescue_base::error::{Defect, Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut};

/// Most entries of the root directory in which the label is looked for.
const LABEL_ENTRIES: u32 = 4096;

/// A FAT volume that is read. Its metadata is read under a lock, the data of files beside it.
pub struct FatVolume {
    core: Mutex<Core>,
    disk: Disk,
    info: VolumeInfo,
    boot: Boot,
    /// The first sector is damaged: the volume is read by the copy.
    by_copy: bool,
}

fn no_stream(stream: &str) -> Error {
    Error::not_found(Layer::Fat, "FAT has no streams").found(stream)
}

/// The bits of the boot sector and of the second entry of the table that say how the volume was left.
pub(super) fn is_dirty(core: &mut Core) -> Result<(bool, bool)> {
    let boot = core.boot.clone();
    let (mut dirty, mut errors) = (boot.flags & 1 != 0, boot.flags & 2 != 0);
    let second = second_entry(core)?;
    match boot.kind {
        Kind::Fat12 => {}
        Kind::Fat16 => (dirty, errors) = (dirty || second & 0x8000 == 0, errors || second & 0x4000 == 0),
        Kind::Fat32 => {
            (dirty, errors) = (dirty || second & 0x0800_0000 == 0, errors || second & 0x0400_0000 == 0);
        }
    }
    Ok((dirty, errors))
}

/// The second entry of the table, which is no cluster's.
pub(super) fn second_entry(core: &Core) -> Result<u32> {
    let boot = &core.boot;
    let at = super::core::entry_at(boot.kind, 1);
    let bytes = core.disk.read_vec(boot.table_at(core.table()), 8)?;
    Ok(super::core::decode(boot.kind, &bytes, at as usize, 1).unwrap_or_default())
}

/// The label: of the root directory, else of the boot sector.
fn label(core: &mut Core) -> Result<String> {
    let boot = core.boot.clone();
    let size = u64::from(boot.cluster_bytes);
    let chain = if boot.kind == Kind::Fat32 { core.chain(boot.root_cluster, 64)? } else { Arc::default() };
    for slot in 0..LABEL_ENTRIES {
        let offset = u64::from(slot) * SLOT as u64;
        let at = if boot.kind == Kind::Fat32 {
            let Some((cluster, _)) = chain.at((offset / size) as u32) else { break };
            boot.cluster_at(cluster) + offset % size
        } else if slot < boot.root_slots {
            boot.root_at() + offset
        } else {
            break;
        };
        let raw = core.entry(at)?;
        if raw.0[0] == 0 {
            break;
        }
        if !raw.is_free() && raw.is_label() && raw.0[11] & !(LABEL | 0x20) == 0 {
            return Ok(label_text(&raw.short(), core.page));
        }
    }
    let text = label_text(&boot.label, core.page);
    Ok(if text == "NO NAME" { String::new() } else { text })
}

impl FatVolume {
    /// Opens a volume for reading; by the copy of its boot sector when the first one is damaged.
    ///
    /// # Errors
    /// `Damaged` when neither can be right.
    pub fn open(disk: Disk) -> Result<FatVolume> {
        let first = disk.read_vec(0, disk.len().min(512) as usize)?;
        if !is_fat(&first)
            && let Some(copy) = boot_copy(&disk)?
        {
            return FatVolume::with(disk, None, Boot::parse(&copy)?, true);
        }
        let boot = Boot::parse(&first)?;
        FatVolume::with(disk, None, boot, false)
    }

    /// The same volume with short names read in this code page.
    #[must_use]
    pub fn with_code_page(mut self, page: CodePage) -> FatVolume {
        self.core_mut().page = page;
        self
    }

    pub(super) fn with(disk: Disk, out: Option<DiskMut>, boot: Boot, by_copy: bool) -> Result<FatVolume> {
        let mut core = Core::new(disk.clone(), out, boot.clone());
        let info = VolumeInfo {
            kind: boot.kind.name(),
            // Of a root directory that cannot be read the check tells.
            label: label(&mut core).unwrap_or_default(),
            serial: u64::from(boot.serial),
            version: String::new(),
            size_bytes: boot.volume_bytes(),
            cluster_bytes: boot.cluster_bytes,
            free_bytes: None,
            dirty: is_dirty(&mut core)?.0,
        };
        Ok(FatVolume { core: Mutex::new(core), disk, info, boot, by_copy })
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn core_mut(&mut self) -> &mut Core {
        self.core.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table that has all entries counts the free clusters once; a reader keeps the map.
    fn with_free<T>(&self, work: impl FnOnce(&FreeMap) -> T) -> Result<T> {
        Ok(work(self.core().free_map()?))
    }

    fn facts(&self, node: NodeId, raw: &Raw) -> Metadata {
        let (kind, size) = if raw.is_directory() {
            (NodeKind::Directory, 0)
        } else {
            (NodeKind::File, u64::from(raw.size()))
        };
        Metadata {
            id: node,
            kind,
            size_bytes: size,
            allocated_bytes: size.next_multiple_of(u64::from(self.boot.cluster_bytes)),
            attributes: raw.attributes(),
            times: raw.times(),
            links: 1,
            reparse: None,
            security_id: None,
        }
    }

    /// The file's entry, its chain as far as `end` bytes need it, and its size.
    fn open_file(&self, node: NodeId, offset: u64, wanted: u64) -> Result<(Arc<Chain>, u64)> {
        let mut core = self.core();
        let Some((at, raw)) = core.entry_of(node.0)?.filter(|(_, raw)| !raw.is_directory()) else {
            return Err(Error::invalid(Layer::Fat, "this is a directory, not a file"));
        };
        let size = u64::from(raw.size());
        let end = size.min(offset.saturating_add(wanted));
        if offset >= end {
            return Ok((Arc::default(), size));
        }
        // Sizes have 32 bits, so the number of clusters fits.
        let clusters = end.div_ceil(u64::from(self.boot.cluster_bytes)) as u32;
        let chain = core.chain(raw.first_cluster(self.boot.kind == Kind::Fat32), clusters)?;
        if chain.clusters < clusters {
            return Err(super::core::damaged("a file has fewer clusters than its size needs")
                .at(at)
                .expected(clusters)
                .found(chain.clusters));
        }
        Ok((chain, size))
    }

    /// Shows each piece of a range of a chain that lies together: place on the disk, and range within what is asked for.
    pub(super) fn pieces(
        boot: &Boot,
        chain: &Chain,
        range: Range<u64>,
        mut see: impl FnMut(u64, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let size = u64::from(boot.cluster_bytes);
        let mut at = range.start;
        while at < range.end {
            let (cluster, count) = chain
                .at((at / size) as u32)
                .ok_or_else(|| super::core::damaged("a file has fewer clusters than its size needs"))?;
            let room = u64::from(count) * size - at % size;
            let end = range.end.min(at + room);
            see(
                boot.cluster_at(cluster) + at % size,
                (at - range.start) as usize..(end - range.start) as usize,
            )?;
            at = end;
        }
        Ok(())
    }
}

impl FileSystem for FatVolume {
    fn info(&self) -> VolumeInfo {
        self.info.clone()
    }

    fn free_bytes(&self) -> Result<u64> {
        self.with_free(|map| u64::from(map.free()) * u64::from(self.boot.cluster_bytes))
    }

    fn free_ranges(&self) -> Result<Vec<Range<u64>>> {
        let ranges = self.with_free(FreeMap::ranges)?.into_iter();
        Ok(ranges.map(|run| self.boot.cluster_at(run.start)..self.boot.cluster_at(run.end)).collect())
    }

    fn root(&self) -> NodeId {
        NodeId(ROOT)
    }

    fn lookup(&self, directory: NodeId, name: &str) -> Result<Option<NodeId>> {
        self.core().with_directory(directory.0, |core, directory| {
            let Some(slot) = directory.find(name) else { return Ok(None) };
            let at = directory.place(core, slot)?;
            Ok(Some(NodeId(core.node_at(at))))
        })
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let found = self.core().entry_of(node.0)?;
        let root = || Raw::new(b"           ", 0, super::entry::DIRECTORY);
        Ok(self.facts(node, &found.map_or_else(root, |(_, raw)| raw)))
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        self.core().with_directory(directory.0, |core, directory| {
            let mut entries = Vec::with_capacity(directory.len());
            for (slot, name) in &directory.names {
                let at = directory.place(core, *slot)?;
                let raw = core.entry(at)?;
                let id = NodeId(core.node_at(at));
                let (text, units) = Directory::text(name, core);
                let facts = self.facts(id, &raw);
                let short = name.long.is_some().then(|| super::name::short_text(&name.short, 0, core.page));
                entries.push(DirEntry {
                    name: text,
                    name_utf16: units,
                    short_name: short,
                    id,
                    kind: facts.kind,
                    size_bytes: facts.size_bytes,
                    attributes: facts.attributes,
                    times: facts.times,
                });
            }
            Ok(entries)
        })
    }

    fn streams(&self, node: NodeId) -> Result<Vec<StreamInfo>> {
        let metadata = self.metadata(node)?;
        if metadata.kind == NodeKind::Directory {
            return Ok(Vec::new());
        }
        Ok(vec![StreamInfo {
            name: String::new(),
            size_bytes: metadata.size_bytes,
            allocated_bytes: metadata.allocated_bytes,
            resident: false,
            compressed: false,
            sparse: false,
            encrypted: false,
        }])
    }

    fn read(&self, node: NodeId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if !stream.is_empty() {
            return Err(no_stream(stream));
        }
        let (chain, size) = self.open_file(node, offset, buf.len() as u64)?;
        let end = size.min(offset.saturating_add(buf.len() as u64));
        if offset >= end {
            return Ok(0);
        }
        FatVolume::pieces(&self.boot, &chain, offset..end, |at, part| self.disk.read_at(at, &mut buf[part]))?;
        Ok((end - offset) as usize)
    }

    /// The long name and the 8.3 name; a name that is both at once is told once, as a short one.
    fn names(&self, node: NodeId) -> Result<Vec<NodeName>> {
        let mut guard = self.core();
        let core: &mut Core = &mut guard;
        let Some((at, _)) = core.entry_of(node.0)? else { return Ok(Vec::new()) };
        let Some((owner, name)) = core.home(at)? else { return Ok(Vec::new()) };
        let named = |name: String, short: bool| NodeName {
            directory: NodeId(owner),
            name,
            short,
            times: Times::default(),
        };
        let mut found = Vec::new();
        if name.long.is_some() {
            found.push(named(super::name::short_text(&name.short, 0, core.page), true));
        }
        found.push(named(Directory::text(&name, core).0, name.long.is_none()));
        Ok(found)
    }

    fn check(&self, progress: &dyn Progress) -> Result<Vec<Defect>> {
        Ok(check::examine(&self.disk, &self.boot, self.by_copy, progress)?.defects)
    }
}

/// What may be set of the attributes.
pub(super) fn user_bits(attributes: Attributes) -> u8 {
    // The mask leaves 6 bits.
    (attributes.0 & super::entry::USER_BITS) as u8
}
