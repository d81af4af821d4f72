//! [`FileSystem`] for [`Volume`].

use super::directory::{Directory, is_case_sensitive};
use super::index::{self, DOS, FileName};
use super::node::{Attr, Node, Value, kind};
use super::object_id::{OBJECT_ID_BYTES, WHOLE_OBJECT_ID_BYTES};
use super::record::{DIRECTORY, Record, number_of};
use super::reparse::{self, WOF};
use super::state::{LogState, VolumeState};
use super::volume::{Volume, no_stream};
use super::wof;
use crate::tag;
use crate::{
    Attributes, DirEntry, FileSystem, Metadata, NodeId, NodeName, Order, RawPart, Reparse, StreamInfo, Times,
    Visit, VolumeInfo,
};
use std::ops::Range;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Defect, Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_base::text::{utf16le_bytes, utf16le_lossy};

/// Record of the root directory.
const ROOT: u64 = 5;
/// Records before this one are of the file system itself.
const FIRST_USER_RECORD: u64 = 24;
/// Record of $Bitmap.
const BITMAP: u64 = 6;
/// Largest reparse point ([MS-FSCC]: 16 KiB).
const MAX_REPARSE_BYTES: u64 = 16 << 10;
/// Largest security descriptor: the length that its header in $SDS may say on Windows.
const MAX_DESCRIPTOR_BYTES: u64 = 64 << 10;
/// Largest list of extended attributes ([MS-FSCC]: 64 KiB).
const MAX_EA_BYTES: u64 = 64 << 10;
/// Bytes of $Bitmap that are read at once.
const BITMAP_CHUNK: usize = 1 << 20;

/// A file as the linear pass over $MFT sees it, see [`Volume::scan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// The file.
    pub id: NodeId,
    /// A directory.
    pub directory: bool,
    /// Directory and name of each of its names that are in the base record, 8.3 names left out.
    pub names: Vec<(NodeId, String)>,
    /// Bytes of the unnamed stream; `None` when its attribute is in another record.
    pub size_bytes: Option<u64>,
    /// DOS attributes.
    pub attributes: Attributes,
    /// Times of $STANDARD_INFORMATION.
    pub times: Times,
}

impl Volume {
    /// Hands every file in use to `visit`, in one linear pass over $MFT: many times as fast as a walk over the
    /// directories. Records that cannot be read are left out.
    ///
    /// # Errors
    /// What `visit` returns.
    pub fn scan(&self, visit: &mut dyn FnMut(Scanned) -> Result<()>) -> Result<()> {
        self.scan_raw(|number, bytes| {
            let Ok(record) = Record::parse(bytes) else { return Ok(()) };
            if !record.in_use() || record.base() != 0 {
                return Ok(());
            }
            visit(scanned(number, &record))
        })
        .map(drop)
    }

    fn reparse_of(&self, node: &Node) -> Result<Option<Reparse>> {
        match node.attribute(kind::REPARSE_POINT, &[]) {
            Some(attribute) => Ok(reparse::parse(&self.attribute_bytes(attribute, MAX_REPARSE_BYTES)?)),
            None => Ok(None),
        }
    }

    /// How a file is compressed by WOF, when it is.
    fn wof_of(&self, node: &Node) -> Result<Option<wof::Algorithm>> {
        let Some(attribute) = node.attribute(kind::REPARSE_POINT, &[]) else { return Ok(None) };
        wof::algorithm(&self.attribute_bytes(attribute, MAX_REPARSE_BYTES)?)
    }
}

fn scanned(number: u64, record: &Record<'_>) -> Scanned {
    let directory = record.flags() & DIRECTORY != 0;
    let mut out = Scanned {
        id: NodeId(number | u64::from(record.sequence()) << 48),
        directory,
        names: Vec::new(),
        size_bytes: None,
        attributes: Attributes(if directory { Attributes::DIRECTORY } else { 0 }),
        times: Times::default(),
    };
    for attribute in record.attributes().flatten() {
        match (attribute.kind, attribute.body) {
            (kind::STANDARD_INFORMATION, super::record::Body::Resident(value)) => {
                out.times = index::times(value, 0);
                out.attributes.0 |= u32_at(value, 0x20).unwrap_or(0);
            }
            (kind::FILE_NAME, super::record::Body::Resident(value)) => {
                if let Some(name) = FileName::parse(value)
                    && name.namespace() != DOS
                {
                    out.names.push((NodeId(name.parent()), utf16le_lossy(name.name_bytes())));
                }
            }
            (kind::DATA, body) if attribute.name.is_empty() => {
                out.size_bytes = Some(match body {
                    super::record::Body::Resident(value) => value.len() as u64,
                    super::record::Body::NonResident(mapped) if mapped.lowest_vcn == 0 => mapped.size,
                    super::record::Body::NonResident(_) => continue,
                });
            }
            _ => {}
        }
    }
    out
}

/// Refuses to read clusters that are not the content of the file.
fn here(number: u64, node: &Node, data: &Attr, reparse: Option<Reparse>) -> Result<()> {
    let Some(reparse) = reparse else { return Ok(()) };
    let facts = node.attribute(kind::STANDARD_INFORMATION, &[]).and_then(Attr::resident).unwrap_or_default();
    let allocated = if matches!(data.value, Value::Resident(_)) { data.size() } else { data.taken() };
    let attributes = Attributes(u32_at(facts, 0x20).unwrap_or(0));
    match tag::content_elsewhere(reparse.tag, attributes, data.size(), allocated) {
        None => Ok(()),
        Some(place) => Err(Error::unsupported(
            Layer::Ntfs,
            format!("the content of file {number:#x} is not in the file: it is kept in {place}"),
        )
        .found(format!("reparse tag {:#x}", reparse.tag))
        .advice("read this file on a running Windows that has the feature, or from a backup")),
    }
}

fn stream_info(attribute: &Attr) -> StreamInfo {
    StreamInfo {
        name: utf16le_lossy(&attribute.name),
        size_bytes: attribute.size(),
        allocated_bytes: attribute.taken(),
        resident: matches!(attribute.value, Value::Resident(_)),
        compressed: attribute.flags & 0x00FF != 0,
        sparse: attribute.flags & 0x8000 != 0,
        encrypted: attribute.flags & 0x4000 != 0,
    }
}

impl FileSystem for Volume {
    fn info(&self) -> VolumeInfo {
        let boot = self.boot();
        VolumeInfo {
            kind: "ntfs",
            label: self.label().to_string(),
            serial: boot.serial,
            version: format!("{}.{}", self.version().0, self.version().1),
            size_bytes: boot.size_bytes(),
            cluster_bytes: boot.cluster_bytes,
            free_bytes: None,
            dirty: self.volume_flags() & 1 != 0 || matches!(self.log_state(), LogState::NotClean(..)),
        }
    }

    fn free_bytes(&self) -> Result<u64> {
        let node = self.node(BITMAP)?;
        let bitmap = node.attribute(kind::DATA, &[]).ok_or_else(|| no_stream(BITMAP, ""))?;
        let clusters = self.boot().clusters();
        let mut buf = vec![0; BITMAP_CHUNK];
        let (mut offset, mut used) = (0u64, 0u64);
        while offset * 8 < clusters {
            let length = self.read_attribute(BITMAP, bitmap, offset, &mut buf)?;
            if length == 0 {
                return Err(Error::damaged(Layer::Ntfs, "$Bitmap is too short").found(bitmap.size()));
            }
            let bits = clusters - offset * 8;
            let whole = (bits / 8).min(length as u64) as usize;
            used += buf[..whole].iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
            if whole < length && !bits.is_multiple_of(8) {
                used += u64::from((buf[whole] & ((1u8 << (bits % 8)) - 1)).count_ones());
            }
            offset += length as u64;
        }
        Ok((clusters - used) * u64::from(self.boot().cluster_bytes))
    }

    fn free_ranges(&self) -> Result<Vec<Range<u64>>> {
        let node = self.node(BITMAP)?;
        let bitmap = node.attribute(kind::DATA, &[]).ok_or_else(|| no_stream(BITMAP, ""))?;
        let (clusters, size) = (self.boot().clusters(), u64::from(self.boot().cluster_bytes));
        let mut buf = vec![0; BITMAP_CHUNK];
        let mut free: Vec<Range<u64>> = Vec::new();
        let mut cluster = 0;
        while cluster < clusters {
            let length = self.read_attribute(BITMAP, bitmap, cluster / 8, &mut buf)?;
            if length == 0 {
                return Err(Error::damaged(Layer::Ntfs, "$Bitmap is too short").found(bitmap.size()));
            }
            for (byte, eight) in buf[..length].iter().zip((cluster..clusters).step_by(8)) {
                for bit in (0..8).filter(|bit| byte >> bit & 1 == 0 && eight + bit < clusters) {
                    let start = (eight + bit) * size;
                    match free.last_mut() {
                        Some(last) if last.end == start => last.end = start + size,
                        _ => free.push(start..start + size),
                    }
                }
            }
            cluster += length as u64 * 8;
        }
        Ok(free)
    }

    fn root(&self) -> NodeId {
        let sequence = self.node(ROOT).map_or(5, |node| node.sequence);
        NodeId(ROOT | u64::from(sequence) << 48)
    }

    fn lookup(&self, directory: NodeId, name: &str) -> Result<Option<NodeId>> {
        let node = self.node_of(directory)?;
        let units: Vec<u16> = name.encode_utf16().collect();
        let index = Directory::open(self, number_of(directory.0), &node)?;
        Ok(index.find(&units, is_case_sensitive(&node))?.map(NodeId))
    }

    fn metadata(&self, id: NodeId) -> Result<Metadata> {
        let node = self.node_of(id)?;
        let facts = node.attribute(kind::STANDARD_INFORMATION, &[]).and_then(Attr::resident);
        let facts = facts.unwrap_or_default();
        let data = node.attribute(kind::DATA, &[]);
        let reparse = self.reparse_of(&node)?;
        let directory = node.flags & DIRECTORY != 0;
        let mut allocated_bytes = data.map_or(0, Attr::taken);
        let tag = reparse.as_ref().map(|reparse| reparse.tag);
        if tag == Some(WOF) && !directory {
            let packed = node.attribute(kind::DATA, &utf16le_bytes(wof::STREAM));
            allocated_bytes += packed.map_or(0, Attr::taken);
        }
        let kind = tag::kind_of(tag, directory);
        let links = node
            .all(kind::FILE_NAME)
            .filter_map(|a| FileName::parse(a.resident()?))
            .filter(|name| name.namespace() != DOS)
            .count();
        let bits = if directory { Attributes::DIRECTORY } else { 0 };
        Ok(Metadata {
            id: NodeId(number_of(id.0) | u64::from(node.sequence) << 48),
            kind,
            size_bytes: if directory { 0 } else { data.map_or(0, Attr::size) },
            allocated_bytes,
            attributes: Attributes(u32_at(facts, 0x20).unwrap_or(0) & 0x0FFF_FFFF | bits),
            times: index::times(facts, 0),
            links: links as u32, // at most as many as attributes fit into 2^20 bytes of list
            reparse,
            security_id: u32_at(facts, 0x34),
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let node = self.node_of(directory)?;
        Directory::open(self, number_of(directory.0), &node)?.list()
    }

    fn walk(&self, from: NodeId, order: Order, visit: &mut Visit<'_>) -> Result<Vec<Defect>> {
        self.walk_records(from, order, visit)
    }

    fn streams(&self, id: NodeId) -> Result<Vec<StreamInfo>> {
        let node = self.node_of(id)?;
        let mut streams: Vec<StreamInfo> = node.all(kind::DATA).map(stream_info).collect();
        streams.sort_by_key(|stream| !stream.name.is_empty());
        Ok(streams)
    }

    fn read(&self, id: NodeId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let number = number_of(id.0);
        let node = self.node_of(id)?;
        let data =
            node.attribute(kind::DATA, &utf16le_bytes(stream)).ok_or_else(|| no_stream(number, stream))?;
        if data.flags & 0x4000 != 0 {
            return Err(Error::unsupported(Layer::Ntfs, format!("file {number:#x} is encrypted (EFS)")));
        }
        if stream.is_empty() {
            here(number, &node, data, self.reparse_of(&node)?)?;
        }
        if stream.is_empty()
            && let Some(algorithm) = self.wof_of(&node)?
        {
            let packed = node.attribute(kind::DATA, &utf16le_bytes(wof::STREAM));
            let packed = packed.ok_or_else(|| no_stream(number, wof::STREAM))?;
            return wof::read(self, number, algorithm, packed, data.size(), offset, buf);
        }
        self.read_attribute(number, data, offset, buf)
    }

    fn data_ranges(&self, id: NodeId, stream: &str) -> Result<Option<Vec<Range<u64>>>> {
        let node = self.node_of(id)?;
        let data = node.attribute(kind::DATA, &utf16le_bytes(stream));
        let data = data.ok_or_else(|| no_stream(number_of(id.0), stream))?;
        if stream.is_empty() {
            here(number_of(id.0), &node, data, self.reparse_of(&node)?)?;
        }
        let Value::Clustered(clustered) = &data.value else { return Ok(None) };
        if clustered.unit != 0 || stream.is_empty() && self.wof_of(&node)?.is_some() {
            return Ok(None);
        }
        let (cluster, mut ranges) = (u64::from(self.boot().cluster_bytes), Vec::<Range<u64>>::new());
        for run in clustered.map.runs().iter().filter(|run| run.lcn.is_some()) {
            let start = run.vcn.saturating_mul(cluster);
            // Behind the valid length everything is zero, whatever lies there.
            let end = start.saturating_add(run.count.saturating_mul(cluster)).min(clustered.valid);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end.max(start),
                _ if end > start => ranges.push(start..end),
                _ => {}
            }
        }
        // A run list that ends too early is damage and no hole: who reads there must see the error.
        let mapped = clustered.map.end().saturating_mul(cluster);
        if mapped < clustered.valid {
            ranges.push(mapped..clustered.valid);
        }
        Ok(Some(ranges))
    }

    fn is_internal(&self, node: NodeId) -> bool {
        // The first records belong to the file system; what is below $Extend is reached through it only.
        let number = number_of(node.0);
        number < FIRST_USER_RECORD && number != ROOT
    }

    fn names(&self, id: NodeId) -> Result<Vec<NodeName>> {
        let node = self.node_of(id)?;
        let names = node.all(kind::FILE_NAME).filter_map(|a| FileName::parse(a.resident()?));
        Ok(names
            .map(|name| NodeName {
                directory: NodeId(name.parent()),
                name: utf16le_lossy(name.name_bytes()),
                short: name.namespace() & DOS != 0,
                times: name.times(),
            })
            .collect())
    }

    fn raw_part(&self, id: NodeId, part: RawPart) -> Result<Option<Vec<u8>>> {
        let node = self.node_of(id)?;
        let (wanted, limit) = match part {
            RawPart::SecurityDescriptor => (kind::SECURITY_DESCRIPTOR, MAX_DESCRIPTOR_BYTES),
            RawPart::ReparsePoint => (kind::REPARSE_POINT, MAX_REPARSE_BYTES),
            RawPart::ExtendedAttributes => (kind::EA, MAX_EA_BYTES),
            RawPart::ObjectId => (kind::OBJECT_ID, WHOLE_OBJECT_ID_BYTES as u64),
        };
        if let Some(attribute) = node.attribute(wanted, &[]) {
            let bytes = self.attribute_bytes(attribute, limit)?;
            if part == RawPart::ObjectId && bytes.len() == OBJECT_ID_BYTES {
                // The ids of its birth stand in the volume's index; an index that cannot be read does not hide the id.
                let births = self.birth_ids(&bytes).ok().flatten().unwrap_or_default();
                return Ok(Some([bytes, births].concat()));
            }
            return Ok(Some(bytes));
        }
        if part != RawPart::SecurityDescriptor {
            return Ok(None);
        }
        let facts = node.attribute(kind::STANDARD_INFORMATION, &[]).and_then(Attr::resident);
        match facts.and_then(|facts| u32_at(facts, 0x34)) {
            None | Some(0) => Ok(None),
            Some(number) => self.descriptor(number),
        }
    }

    fn state(&self) -> Result<Option<VolumeState>> {
        super::state::state(self).map(Some)
    }

    fn is_case_sensitive(&self, directory: NodeId) -> Result<bool> {
        Ok(is_case_sensitive(&*self.node_of(directory)?))
    }

    fn check(&self, progress: &dyn Progress) -> Result<Vec<Defect>> {
        super::check::check(self, progress)
    }
}
