//! [`VolumeMut`]: the traits of `fs` over the writer's core.

use super::alloc::stream_of;
use super::attribute::{Body, COMPRESSED, ENCRYPTED, SPARSE, kind};
use super::core::{Core, damaged};
use super::entry::{FileName, NAME_DIRECTORY, namespace};
use super::file::File;
use super::journal::{data_reasons, resize_reasons};
use super::names::{ROOT, check_data_target};
use super::open::{WriteOptions, open};
use crate::ntfs::Volume;
use crate::ntfs::ea::EA;
use crate::ntfs::usn::{Settings, reason};
use crate::tag::kind_of;
use crate::{
    Attributes, DirEntry, ExtendedAttribute, FileSystem, FileSystemMut, Metadata, MetadataChange, NodeId,
    NodeKind, NodeName, Order, RawPart, StreamInfo, Visit, VolumeInfo,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::progress::Progress;
use vmrescue_base::text::utf16le_lossy;
use vmrescue_base::time::FileTime;
use vmrescue_block::DiskMut;

/// Largest extended attributes or reparse point of a file.
const MAX_PART_BYTES: u64 = 64 << 10;

/// An NTFS volume that can be changed. Changes reach the staged disk with `sync`.
pub struct VolumeMut {
    core: Mutex<Core>,
    info: VolumeInfo,
    root: NodeId,
    /// The reading half over what was flushed, for compressed data and the full check; gone after each change.
    reader: Mutex<Option<Arc<Volume>>>,
}

impl VolumeMut {
    /// Opens a volume for writing.
    ///
    /// # Errors
    /// `Refused` when the volume is dirty, hibernated, or its $LogFile not clean; `Damaged` when its system files are.
    pub fn open(disk: DiskMut) -> Result<VolumeMut> {
        VolumeMut::open_with(disk, WriteOptions::default())
    }

    /// The same, ignoring what `options` say.
    ///
    /// # Errors
    /// As [`VolumeMut::open`].
    pub fn open_with(disk: DiskMut, options: WriteOptions) -> Result<VolumeMut> {
        let mut core = open(disk, options)?;
        let root = NodeId(File::load(&mut core, ROOT)?.header.reference());
        let volume = File::load(&mut core, 3)?;
        let information = volume.value(kind::VOLUME_INFORMATION, "").unwrap_or(&[]);
        let byte = |at| information.get(at).copied().unwrap_or(0);
        let info = VolumeInfo {
            kind: "ntfs",
            label: utf16le_lossy(volume.value(kind::VOLUME_NAME, "").unwrap_or(&[])),
            serial: core.geometry.serial,
            version: format!("{}.{}", byte(8), byte(9)),
            size_bytes: core.geometry.volume_bytes,
            cluster_bytes: core.geometry.cluster_bytes as u32,
            free_bytes: None,
            dirty: u16_at(information, 10).unwrap_or(0) & 1 != 0,
        };
        Ok(VolumeMut { core: Mutex::new(core), info, root, reader: Mutex::new(None) })
    }

    /// Starts a change journal, as `fsutil usn createjournal` does; Windows goes on with it.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, damage.
    pub fn make_usn_journal(&mut self, maximum_bytes: u64, delta_bytes: u64) -> Result<()> {
        self.core_mut().transact(|core| {
            let settings = Settings { maximum_bytes, delta_bytes, id: core.now().0, lowest_usn: 0 };
            core.make_journal(settings)
        })
    }

    /// Makes what only Windows makes.
    #[cfg(test)]
    pub(crate) fn with_core<T>(&mut self, change: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        self.core_mut().transact(change)
    }

    /// Lets that many allocations succeed.
    #[cfg(test)]
    pub(crate) fn allow_allocations(&mut self, count: Option<u64>) {
        self.core_mut().allocations_left = count;
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        core.forget_read();
        core
    }

    /// The reading half, over a disk that has all changes.
    fn reader(&self) -> Result<Arc<Volume>> {
        let mut core = self.core();
        core.flush()?;
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = &*reader {
            return Ok(Arc::clone(reader));
        }
        let opened = Arc::new(Volume::open(core.disk.as_disk())?);
        *reader = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Runs an operation on the data of an open file.
    fn change_file(
        &mut self,
        node: NodeId,
        stream: &str,
        change: impl FnOnce(&mut Core, &mut File) -> Result<()>,
    ) -> Result<()> {
        self.core_mut().transact(|core| {
            let mut file = File::open(core, node.0)?;
            check_data_target(&file, stream)?;
            change(core, &mut file)
        })
    }

    /// The same; compressed data is stored plainly first.
    fn change_data(
        &mut self,
        node: NodeId,
        stream: &str,
        change: impl FnOnce(&mut Core, &mut File) -> Result<()>,
    ) -> Result<()> {
        let packed = {
            let mut core = self.core();
            let file = File::open(&mut core, node.0)?;
            core.is_packed(&file, stream)
        };
        if !packed {
            return self.change_file(node, stream, change);
        }
        let reader = self.reader()?;
        self.change_file(node, stream, |core, file| {
            let reasons = if file.is_wof() && stream.is_empty() {
                reason::REPARSE_POINT_CHANGE | reason::STREAM_CHANGE
            } else {
                reason::COMPRESSION_CHANGE
            };
            core.unpack(file, stream, |offset, buf| reader.read(node, stream, offset, buf))?;
            core.note(file, reasons)?;
            change(core, file)
        })
    }

    fn resize(&mut self, node: NodeId, stream: &str, length_bytes: u64, hole: bool) -> Result<()> {
        let resize = |core: &mut Core, file: &mut File| {
            let old = file.stream_bytes(stream);
            if hole {
                core.begin_hole(file, stream, length_bytes)?;
            }
            core.resize_data(file, stream, length_bytes)?;
            file.touch(core.now(), true)?;
            core.note(file, resize_reasons(stream, old, length_bytes))?;
            core.store_changed(file)
        };
        if length_bytes == 0 {
            // Nothing of compressed data is wanted.
            return self.change_file(node, stream, resize);
        }
        self.change_data(node, stream, resize)
    }

    fn core_mut(&mut self) -> &mut Core {
        *self.reader.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.core.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

fn node_kind(file: &File) -> NodeKind {
    kind_of(file.reparse_tag(), file.is_directory())
}

fn directory_bit(directory: bool) -> u32 {
    if directory { Attributes::DIRECTORY } else { 0 }
}

fn dir_entry(reference: u64, name: &FileName) -> DirEntry {
    let text = String::from_utf16_lossy(&name.name);
    let directory = name.attributes & NAME_DIRECTORY != 0;
    let tag = (name.attributes & Attributes::REPARSE_POINT != 0).then_some(name.reparse);
    DirEntry {
        name_utf16: (!text.encode_utf16().eq(name.name.iter().copied())).then(|| name.name.clone()),
        name: text,
        short_name: None,
        id: NodeId(reference),
        kind: kind_of(tag, directory),
        size_bytes: if directory { 0 } else { name.size_bytes },
        attributes: Attributes(name.attributes & 0x0FFF_FFFF | directory_bit(directory)),
        times: name.times,
    }
}

impl FileSystem for VolumeMut {
    fn info(&self) -> VolumeInfo {
        let mut info = self.info.clone();
        info.free_bytes = self.free_bytes().ok();
        info
    }

    fn free_bytes(&self) -> Result<u64> {
        let core = self.core();
        Ok(core.clusters.free() * core.geometry.cluster_bytes)
    }

    fn free_ranges(&self) -> Result<Vec<Range<u64>>> {
        let core = self.core();
        let cluster = core.geometry.cluster_bytes;
        let runs = core.clusters.free_runs().into_iter();
        Ok(runs.map(|run| run.start * cluster..run.end * cluster).collect())
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn lookup(&self, directory: NodeId, name: &str) -> Result<Option<NodeId>> {
        Ok(self.core().lookup(directory.0, name)?.map(|entry| NodeId(entry.reference)))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let file = File::open(&mut self.core(), node.0)?;
        let reparse = file.value(kind::REPARSE_POINT, "").and_then(crate::ntfs::reparse::parse);
        if file.is_wof() || (reparse.is_none() && file.find(kind::REPARSE_POINT, "").is_some()) {
            return self.reader()?.metadata(node);
        }
        let (size, allocated) = if file.is_directory() { (0, 0) } else { file.sizes() };
        let links = file.names()?.iter().filter(|n| n.namespace != namespace::DOS).count() as u32;
        let kind = node_kind(&file);
        Ok(Metadata {
            id: node,
            kind,
            size_bytes: size,
            allocated_bytes: allocated,
            attributes: Attributes(file.attribute_bits() & 0x0FFF_FFFF | directory_bit(file.is_directory())),
            times: file.times(),
            links,
            reparse,
            security_id: file.security_id(),
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let entries = self.core().list(directory.0)?;
        let mut out: Vec<DirEntry> = Vec::with_capacity(entries.len());
        let mut short: Vec<(u64, String)> = Vec::new();
        for entry in entries {
            let name =
                FileName::decode(&entry.key).ok_or_else(|| damaged("a directory entry that is cut off"))?;
            if name.namespace == namespace::DOS {
                short.push((entry.reference, String::from_utf16_lossy(&name.name)));
            } else if name.name != [u16::from(b'.')] {
                out.push(dir_entry(entry.reference, &name));
            }
        }
        // By id in one pass: a directory may have 10^5 names.
        let mut short: HashMap<u64, String> = short.into_iter().collect();
        if !short.is_empty() {
            for entry in &mut out {
                entry.short_name = short.remove(&entry.id.0);
            }
        }
        Ok(out)
    }

    fn walk(&self, from: NodeId, order: Order, visit: &mut Visit<'_>) -> Result<Vec<Defect>> {
        self.reader()?.walk(from, order, visit)
    }

    fn streams(&self, node: NodeId) -> Result<Vec<StreamInfo>> {
        let file = File::open(&mut self.core(), node.0)?;
        let data = file.attributes.iter().filter(|a| a.kind == kind::DATA);
        Ok(data
            .map(|a| StreamInfo {
                name: String::from_utf16_lossy(&a.name),
                size_bytes: a.size_bytes(),
                allocated_bytes: stream_of(a).map_or(0, |s| s.allocated_bytes),
                resident: matches!(a.body, Body::Resident(_)),
                compressed: a.flags & COMPRESSED != 0,
                sparse: a.flags & SPARSE != 0,
                encrypted: a.flags & ENCRYPTED != 0,
            })
            .collect())
    }

    fn read(&self, node: NodeId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut core = self.core();
        let file = File::open(&mut core, node.0)?;
        if file.find(kind::DATA, stream).is_none() {
            return Err(Error::not_found(Layer::Ntfs, format!("the file has no stream {stream:?}")));
        }
        // What a reparse point says of the content the reader judges, for both.
        let filtered = stream.is_empty() && file.reparse_tag().is_some();
        if !filtered && let Some(read) = core.read_data(&file, stream, offset, buf)? {
            return Ok(read);
        }
        drop(core);
        self.reader()?.read(node, stream, offset, buf)
    }

    fn is_internal(&self, node: NodeId) -> bool {
        // What cannot be opened has no user's content to hide.
        self.reader().is_ok_and(|reader| reader.is_internal(node))
    }

    fn data_ranges(&self, node: NodeId, stream: &str) -> Result<Option<Vec<Range<u64>>>> {
        self.reader()?.data_ranges(node, stream)
    }

    fn names(&self, node: NodeId) -> Result<Vec<NodeName>> {
        let names = File::open(&mut self.core(), node.0)?.names()?;
        Ok(names
            .into_iter()
            .map(|name| NodeName {
                directory: NodeId(name.parent),
                name: String::from_utf16_lossy(&name.name),
                short: name.namespace & namespace::DOS != 0,
                times: name.times,
            })
            .collect())
    }

    fn raw_part(&self, node: NodeId, part: RawPart) -> Result<Option<Vec<u8>>> {
        let mut core = self.core();
        let file = File::open(&mut core, node.0)?;
        match part {
            RawPart::SecurityDescriptor => core.security_of(&file),
            RawPart::ReparsePoint => core.whole_value(&file, kind::REPARSE_POINT, MAX_PART_BYTES),
            RawPart::ExtendedAttributes => core.whole_value(&file, EA, MAX_PART_BYTES),
            RawPart::ObjectId => core.object_id(&file),
        }
    }

    fn is_case_sensitive(&self, directory: NodeId) -> Result<bool> {
        Ok(File::open(&mut self.core(), directory.0)?.is_case_sensitive())
    }

    fn check(&self, progress: &dyn Progress) -> Result<Vec<Defect>> {
        self.reader()?.check(progress)
    }
}

impl FileSystemMut for VolumeMut {
    fn set_clock(&mut self, time: Option<FileTime>) {
        self.core_mut().given_time = time;
    }

    fn create(&mut self, directory: NodeId, name: &str, kind: NodeKind) -> Result<NodeId> {
        if kind == NodeKind::Reparse {
            return Err(Error::unsupported(Layer::Ntfs, "making reparse points"));
        }
        let directory_kind = kind == NodeKind::Directory;
        self.core_mut().transact(|core| core.create(directory.0, name, directory_kind)).map(NodeId)
    }

    fn write(&mut self, node: NodeId, stream: &str, offset: u64, data: &[u8]) -> Result<()> {
        self.change_data(node, stream, |core, file| {
            let old = file.stream_bytes(stream);
            let place = core.write_data(file, stream, offset, data)?;
            file.touch(core.now(), true)?;
            core.note(file, data_reasons(stream, old, offset, offset + data.len() as u64))?;
            core.store_changed(file)?;
            place.map_or(Ok(()), |place| core.write_runs(&place, offset, data))
        })
    }

    fn set_len(&mut self, node: NodeId, stream: &str, length_bytes: u64) -> Result<()> {
        self.resize(node, stream, length_bytes, false)
    }

    fn grow_with_hole(&mut self, node: NodeId, stream: &str, length_bytes: u64) -> Result<()> {
        self.resize(node, stream, length_bytes, true)
    }

    fn punch(&mut self, node: NodeId, stream: &str, range: Range<u64>) -> Result<()> {
        self.change_data(node, stream, |core, file| {
            let old = file.stream_bytes(stream);
            let edges = core.punch_data(file, stream, range.clone())?;
            file.touch(core.now(), true)?;
            core.note(file, data_reasons(stream, old, range.start, old.unwrap_or(0).min(range.end)))?;
            core.store_changed(file)?;
            let Some((place, edges)) = edges else { return Ok(()) };
            edges.into_iter().try_for_each(|edge| core.zero_runs(&place, edge.start, edge.end))
        })
    }

    fn set_reparse(&mut self, node: NodeId, data: Option<&[u8]>) -> Result<()> {
        self.core_mut().transact(|core| core.set_reparse(node.0, data))
    }

    fn set_extended_attribute(&mut self, node: NodeId, name: &str, value: Option<&[u8]>) -> Result<()> {
        self.core_mut().transact(|core| core.set_extended_attribute(node.0, name, value))
    }

    fn set_object_id(&mut self, node: NodeId, id: Option<Guid>) -> Result<()> {
        self.core_mut().transact(|core| core.set_object_id(node.0, id, None))
    }

    fn set_object_id_with_births(&mut self, node: NodeId, id: Guid, births: &[u8; 48]) -> Result<()> {
        self.core_mut().transact(|core| core.set_object_id(node.0, Some(id), Some(births)))
    }

    fn set_extended_attributes(&mut self, node: NodeId, list: &[ExtendedAttribute]) -> Result<()> {
        self.core_mut().transact(|core| core.set_extended_attributes(node.0, list))
    }

    fn set_short_name(&mut self, node: NodeId, directory: NodeId, short: Option<&str>) -> Result<()> {
        self.core_mut().transact(|core| core.set_short_name(node.0, directory.0, short))
    }

    fn set_case_sensitive(&mut self, directory: NodeId, sensitive: bool) -> Result<()> {
        self.core_mut().transact(|core| core.set_case_sensitive(directory.0, sensitive))
    }

    fn rename(&mut self, from: NodeId, from_name: &str, to: NodeId, to_name: &str) -> Result<()> {
        self.core_mut().transact(|core| core.rename(from.0, from_name, to.0, to_name))
    }

    fn link(&mut self, node: NodeId, directory: NodeId, name: &str) -> Result<()> {
        self.core_mut().transact(|core| core.link(node.0, directory.0, name))
    }

    fn remove(&mut self, directory: NodeId, name: &str) -> Result<()> {
        self.core_mut().transact(|core| core.remove(directory.0, name))
    }

    fn remove_stream(&mut self, node: NodeId, stream: &str) -> Result<()> {
        self.core_mut().transact(|core| {
            let mut file = File::open(core, node.0)?;
            check_data_target(&file, stream)?;
            let place = file.find(kind::DATA, stream).filter(|_| !stream.is_empty()).ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    Layer::Ntfs,
                    format!("the file has no named stream {stream:?}"),
                )
            })?;
            if let Body::Runs(stream) = file.attributes.remove(place).body {
                core.release(&stream.runs);
            }
            file.touch(core.now(), false)?;
            core.note(&mut file, reason::STREAM_CHANGE)?;
            core.store_changed(&mut file)
        })
    }

    fn set_metadata(&mut self, node: NodeId, change: &MetadataChange) -> Result<()> {
        self.core_mut().transact(|core| core.change_metadata(node.0, change))
    }

    fn sync(&mut self) -> Result<()> {
        let core = self.core_mut();
        core.flush()?;
        core.said.clear();
        core.disk.flush()
    }
}
