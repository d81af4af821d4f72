//! Windows installation images (WIM), read only: every image of the file as a file system.
//!
//! Written after Microsoft's "Windows Imaging File Format (WIM)" white paper. XPRESS and LZX in chunks of up to 32 KiB, and plain resources.
//! Missing: split images (SWM), solid resources and LZMS (ESD).

use super::{
    Attributes, DirEntry, FileSystem, Metadata, NodeId, NodeKind, Reparse, StreamInfo, Times, VolumeInfo,
};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Defect, Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_base::text::{utf16le_lossy, utf16le_units};
use vmrescue_base::time::FileTime;
use vmrescue_block::{Disk, HostFile};
use vmrescue_payload::{lzx, xpress};

const MAGIC: &[u8] = b"MSWIM\0\0\0";
const HEADER_BYTES: usize = 208;
const LOOKUP_BYTES: usize = 50;
const DENTRY_BYTES: usize = 102;
const STREAM_BYTES: usize = 38;
/// Flags of the header.
const FLAG_SPANNED: u32 = 0x8;
const FLAG_XPRESS: u32 = 0x2_0000;
const FLAG_LZX: u32 = 0x4_0000;
/// Flags of a resource.
const RESOURCE_METADATA: u8 = 2;
const RESOURCE_COMPRESSED: u8 = 4;
const RESOURCE_SOLID: u8 = 0x10;
/// Largest list of files or resources that is read, in bytes.
const MAX_TABLE_BYTES: u64 = 1 << 30;

type Hash = [u8; 20];
/// Place of a resource, number of a chunk, its data.
type Unpacked = (u64, u64, Arc<Vec<u8>>);

/// Where a resource lies.
#[derive(Debug, Clone, Copy)]
struct Resource {
    offset: u64,
    packed_bytes: u64,
    bytes: u64,
    flags: u8,
}

impl Resource {
    fn parse(data: &[u8], at: usize) -> Option<Resource> {
        let first = u64_at(data, at)?;
        Some(Resource {
            packed_bytes: first & 0x00ff_ffff_ffff_ffff,
            flags: (first >> 56) as u8,
            offset: u64_at(data, at + 8)?,
            bytes: u64_at(data, at + 16)?,
        })
    }
}

/// The file, its resources, and the chunk that was unpacked last.
struct Wim {
    disk: Disk,
    chunk_bytes: u64,
    lzx: bool,
    resources: BTreeMap<Hash, Resource>,
    last: Mutex<Option<Unpacked>>,
}

struct Node {
    name: String,
    name_utf16: Vec<u16>,
    attributes: u32,
    times: Times,
    reparse_tag: Option<u32>,
    /// Streams by name.
    streams: Vec<(String, Hash)>,
    children: Vec<usize>,
}

/// One image of a WIM.
pub struct WimImage {
    wim: Arc<Wim>,
    nodes: Vec<Node>,
}

fn damaged(what: impl Into<String>) -> Error {
    Error::damaged(Layer::FileSystem, what.into())
}

/// True when the file begins as a WIM does.
///
/// # Errors
/// Of the host.
pub fn is_wim(path: &Path) -> Result<bool> {
    let mut file = std::fs::File::open(path).map_err(|e| Error::io("cannot be opened", path, e))?;
    let mut magic = [0; 8];
    Ok(file.read_exact(&mut magic).is_ok() && magic == *MAGIC)
}

/// The images of a WIM file, in its order.
///
/// # Errors
/// `Unsupported` for split and solid ones; damage.
pub fn open(path: &Path) -> Result<Vec<Arc<dyn FileSystem>>> {
    open_disk(Disk::new(Arc::new(HostFile::open_read(path)?))).map_err(|e| e.in_file(path))
}

fn open_disk(disk: Disk) -> Result<Vec<Arc<dyn FileSystem>>> {
    let header = disk.read_vec(0, HEADER_BYTES)?;
    let flags = u32_at(&header, 16).unwrap_or(0);
    let chunk_bytes = u64::from(u32_at(&header, 20).unwrap_or(0));
    let parts = u16_at(&header, 42).unwrap_or(1);
    if flags & FLAG_SPANNED != 0 || parts > 1 {
        return Err(Error::unsupported(Layer::FileSystem, "this is one part of a split image")
            .advice("join the parts first, for instance with `wimlib-imagex join`"));
    }
    let table = Resource::parse(&header, 48).ok_or_else(|| damaged("the header is cut off"))?;
    let mut wim = Wim {
        disk,
        chunk_bytes: if chunk_bytes == 0 { lzx::CHUNK_BYTES as u64 } else { chunk_bytes },
        lzx: flags & FLAG_LZX != 0,
        resources: BTreeMap::new(),
        last: Mutex::new(None),
    };
    if wim.chunk_bytes > lzx::CHUNK_BYTES as u64 || flags & (FLAG_LZX | FLAG_XPRESS) == 0 && flags & 2 != 0 {
        return Err(Error::unsupported(Layer::FileSystem, "how this image is compressed")
            .expected("XPRESS or LZX in chunks of up to 32 KiB")
            .found(format!("flags {flags:#x}, chunks of {} bytes", wim.chunk_bytes))
            .advice("convert it, for instance with `wimlib-imagex export --compress=LZX`"));
    }
    let bytes = wim.whole(&table)?;
    let mut images = Vec::new();
    for entry in bytes.chunks_exact(LOOKUP_BYTES) {
        let Some(resource) = Resource::parse(entry, 0) else { continue };
        if resource.flags & RESOURCE_SOLID != 0 {
            return Err(Error::unsupported(Layer::FileSystem, "solid images (ESD) cannot be read")
                .advice("convert it, for instance with `wimlib-imagex export --compress=LZX`"));
        }
        if resource.flags & RESOURCE_METADATA != 0 {
            images.push(resource);
        } else if let Some(hash) = entry.get(30..50).and_then(|hash| hash.try_into().ok()) {
            wim.resources.insert(hash, resource);
        }
    }
    let wim = Arc::new(wim);
    let image = |resource: &Resource| -> Result<Arc<dyn FileSystem>> {
        let metadata = wim.whole(resource)?;
        Ok(Arc::new(WimImage { wim: Arc::clone(&wim), nodes: nodes(&metadata)? }))
    };
    images.iter().map(image).collect()
}

impl Wim {
    /// All of a resource, for tables.
    fn whole(&self, resource: &Resource) -> Result<Vec<u8>> {
        if resource.bytes > MAX_TABLE_BYTES {
            return Err(
                Error::limit(Layer::FileSystem, "a table of the image is too large").at(resource.offset)
            );
        }
        let mut out = vec![0; resource.bytes as usize];
        let count = self.read(resource, 0, &mut out)?;
        if count < out.len() { Err(damaged("a table is cut off").at(resource.offset)) } else { Ok(out) }
    }

    fn read(&self, resource: &Resource, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let length = resource.bytes.saturating_sub(offset).min(buf.len() as u64) as usize;
        if resource.flags & RESOURCE_COMPRESSED == 0 {
            let at = resource.offset.checked_add(offset).ok_or_else(|| damaged("a place wraps"))?;
            self.disk.read_at(at, &mut buf[..length])?;
            return Ok(length);
        }
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let chunk = self.chunk(resource, at / self.chunk_bytes)?;
            let skip = (at % self.chunk_bytes) as usize;
            let count = (length - done).min(chunk.len() - skip);
            buf[done..done + count].copy_from_slice(&chunk[skip..skip + count]);
            done += count;
        }
        Ok(length)
    }

    fn chunk(&self, resource: &Resource, index: u64) -> Result<Arc<Vec<u8>>> {
        if let Some((offset, number, data)) =
            self.last.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
            && (*offset, *number) == (resource.offset, index)
        {
            return Ok(Arc::clone(data));
        }
        let bad = |what: &str| damaged(format!("chunk {index} of a resource: {what}")).at(resource.offset);
        let chunks = resource.bytes.div_ceil(self.chunk_bytes);
        let width: u64 = if resource.bytes > u64::from(u32::MAX) { 8 } else { 4 };
        let table = (chunks - 1) * width;
        let end_of = |chunk: u64| -> Result<u64> {
            if chunk == 0 {
                return Ok(0);
            }
            let mut entry = [0; 8];
            self.disk.read_at(resource.offset + (chunk - 1) * width, &mut entry[..width as usize])?;
            Ok(u64::from_le_bytes(entry))
        };
        let start = end_of(index)?;
        let data_bytes =
            resource.packed_bytes.checked_sub(table).ok_or_else(|| bad("the table is too large"))?;
        let end = if index + 1 == chunks { data_bytes } else { end_of(index + 1)? };
        let room = self.chunk_bytes.min(resource.bytes - index * self.chunk_bytes);
        let packed = end.checked_sub(start).filter(|bytes| *bytes > 0 && *bytes <= room);
        let packed = packed.ok_or_else(|| bad("its place cannot be"))? as usize;
        let place = resource.offset.checked_add(table + start).ok_or_else(|| bad("its place wraps"))?;
        let input = self.disk.read_vec(place, packed)?;
        let mut out = vec![0; room as usize];
        if input.len() == out.len() {
            out = input;
        } else {
            let unpacked = if self.lzx {
                lzx::decompress(&input, &mut out)
            } else {
                xpress::decompress(&input, &mut out)
            };
            unpacked.ok_or_else(|| bad("it cannot be unpacked"))?;
        }
        let data = Arc::new(out);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((resource.offset, index, Arc::clone(&data)));
        Ok(data)
    }
}

/// The tree of an image: after the security descriptors comes the root, each directory names the place of its list.
fn nodes(metadata: &[u8]) -> Result<Vec<Node>> {
    let security = u32_at(metadata, 0).ok_or_else(|| damaged("the image has no metadata"))?.max(8);
    let mut nodes = Vec::new();
    let mut pending = vec![((security as usize).next_multiple_of(8), None)];
    let mut seen = std::collections::BTreeSet::new();
    while let Some((mut at, parent)) = pending.pop() {
        if !seen.insert(at) {
            return Err(damaged("two directories share one list").at(at as u64));
        }
        while let Some(length) = u64_at(metadata, at).filter(|length| *length > 8) {
            let (node, subdirectory, next) = dentry(metadata, at, length)?;
            let index = nodes.len();
            if node.attributes & Attributes::DIRECTORY != 0 && subdirectory != 0 {
                pending.push((usize::try_from(subdirectory).unwrap_or(usize::MAX), Some(index)));
            }
            nodes.push(node);
            match parent {
                None => break,
                Some(parent) => {
                    let parent: &mut Node = &mut nodes[parent];
                    parent.children.push(index);
                }
            }
            at = next;
        }
    }
    if nodes.is_empty() { Err(damaged("the image has no root")) } else { Ok(nodes) }
}

fn dentry(metadata: &[u8], at: usize, length: u64) -> Result<(Node, u64, usize)> {
    let bad = || damaged("an entry of a directory is cut off").at(at as u64);
    let length = usize::try_from(length).map_err(|_| bad())?;
    let fixed = slice_at(metadata, at, DENTRY_BYTES).ok_or_else(bad)?;
    let (u32s, u64s) = (|o| u32_at(fixed, o).unwrap_or(0), |o| u64_at(fixed, o).unwrap_or(0));
    let name_bytes = u16_at(fixed, 100).unwrap_or(0) as usize;
    let name = slice_at(metadata, at + DENTRY_BYTES, name_bytes).ok_or_else(bad)?;
    let attributes = u32s(8);
    let time = |o| FileTime(u64s(o));
    let hash = |data: &[u8], o: usize| -> Option<Hash> { data.get(o..o + 20)?.try_into().ok() };
    let mut streams = Vec::new();
    streams.extend(hash(fixed, 64).filter(|hash| *hash != [0; 20]).map(|hash| (String::new(), hash)));
    let mut next = at + length.next_multiple_of(8);
    for _ in 0..u16_at(fixed, 96).unwrap_or(0) {
        let bytes = u64_at(metadata, next).ok_or_else(bad)? as usize;
        let entry = slice_at(metadata, next, STREAM_BYTES).ok_or_else(bad)?;
        let text = slice_at(metadata, next + STREAM_BYTES, u16_at(entry, 36).unwrap_or(0) as usize)
            .ok_or_else(bad)?;
        streams
            .extend(hash(entry, 16).filter(|hash| *hash != [0; 20]).map(|hash| (utf16le_lossy(text), hash)));
        if bytes < STREAM_BYTES || bytes > metadata.len() {
            return Err(bad());
        }
        next += bytes.next_multiple_of(8);
    }
    let times = Times { created: time(40), accessed: time(48), modified: time(56), changed: time(56) };
    let reparse_tag = (attributes & Attributes::REPARSE_POINT != 0).then(|| u32s(88));
    let node = Node {
        name: utf16le_lossy(name),
        name_utf16: utf16le_units(name),
        attributes,
        times,
        reparse_tag,
        streams,
        children: Vec::new(),
    };
    Ok((node, u64s(16), next))
}

impl WimImage {
    fn node(&self, id: NodeId) -> Result<&Node> {
        let node = usize::try_from(id.0).ok().and_then(|index| self.nodes.get(index));
        node.ok_or_else(|| Error::not_found(Layer::FileSystem, "no such file in the image"))
    }

    fn kind(node: &Node) -> NodeKind {
        match (node.reparse_tag, node.attributes & Attributes::DIRECTORY) {
            (Some(_), _) => NodeKind::Reparse,
            (None, 0) => NodeKind::File,
            _ => NodeKind::Directory,
        }
    }

    fn resource(&self, node: &Node, stream: &str) -> Result<Option<Resource>> {
        let own = node.streams.iter().find(|(name, _)| name.eq_ignore_ascii_case(stream));
        match own {
            None => Ok(None),
            Some((_, hash)) => self
                .wim
                .resources
                .get(hash)
                .copied()
                .map(Some)
                .ok_or_else(|| damaged(format!("the data of {} is not in the file", node.name))),
        }
    }

    fn size(&self, node: &Node) -> u64 {
        self.resource(node, "").ok().flatten().map_or(0, |resource| resource.bytes)
    }
}

impl FileSystem for WimImage {
    fn info(&self) -> VolumeInfo {
        VolumeInfo {
            kind: "wim",
            label: String::new(),
            serial: 0,
            version: "1.13".into(),
            size_bytes: self.wim.disk.len(),
            cluster_bytes: 1,
            free_bytes: Some(0),
            dirty: false,
        }
    }

    fn free_bytes(&self) -> Result<u64> {
        Ok(0)
    }

    fn root(&self) -> NodeId {
        NodeId(0)
    }

    fn lookup(&self, directory: NodeId, name: &str) -> Result<Option<NodeId>> {
        let wanted = name.to_lowercase();
        let children = &self.node(directory)?.children;
        Ok(children
            .iter()
            .find(|child| self.nodes[**child].name.to_lowercase() == wanted)
            .map(|child| NodeId(*child as u64)))
    }

    fn metadata(&self, id: NodeId) -> Result<Metadata> {
        let node = self.node(id)?;
        Ok(Metadata {
            id,
            kind: WimImage::kind(node),
            size_bytes: self.size(node),
            allocated_bytes: self.size(node),
            attributes: Attributes(node.attributes),
            times: node.times,
            links: 1,
            reparse: node.reparse_tag.map(|tag| Reparse { tag, target: None }),
            security_id: None,
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let entry = |index: &usize| {
            let node = &self.nodes[*index];
            let faithful = node.name.encode_utf16().eq(node.name_utf16.iter().copied());
            DirEntry {
                name: node.name.clone(),
                name_utf16: (!faithful).then(|| node.name_utf16.clone()),
                short_name: None,
                id: NodeId(*index as u64),
                kind: WimImage::kind(node),
                size_bytes: self.size(node),
                attributes: Attributes(node.attributes),
                times: node.times,
            }
        };
        Ok(self.node(directory)?.children.iter().map(entry).collect())
    }

    fn streams(&self, id: NodeId) -> Result<Vec<StreamInfo>> {
        let node = self.node(id)?;
        let mut names: Vec<&str> = node.streams.iter().map(|(name, _)| name.as_str()).collect();
        if WimImage::kind(node) == NodeKind::File && !names.contains(&"") {
            names.insert(0, "");
        }
        names
            .into_iter()
            .map(|name| {
                let resource = self.resource(node, name)?;
                Ok(StreamInfo {
                    name: name.to_string(),
                    size_bytes: resource.map_or(0, |resource| resource.bytes),
                    allocated_bytes: resource.map_or(0, |resource| resource.packed_bytes),
                    resident: false,
                    compressed: resource.is_some_and(|resource| resource.flags & RESOURCE_COMPRESSED != 0),
                    sparse: false,
                    encrypted: false,
                })
            })
            .collect()
    }

    fn read(&self, id: NodeId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let node = self.node(id)?;
        match self.resource(node, stream)? {
            Some(resource) => self.wim.read(&resource, offset, buf),
            None if stream.is_empty() => Ok(0),
            None => Err(Error::not_found(Layer::FileSystem, "no such stream").found(stream)),
        }
    }

    fn check(&self, _progress: &dyn Progress) -> Result<Vec<Defect>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_block::MemoryDevice;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
        #[test]
        fn damage_is_an_error_and_never_a_panic(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 208..1200), table in 0u64..400) {
            bytes[..8].copy_from_slice(MAGIC);
            bytes[16..24].copy_from_slice(&[2, 0, 4, 0, 0, 0x80, 0, 0]);
            bytes[42..44].copy_from_slice(&[1, 0]);
            bytes[48..56].copy_from_slice(&100u64.to_le_bytes());
            bytes[56..64].copy_from_slice(&table.to_le_bytes());
            bytes[64..72].copy_from_slice(&100u64.to_le_bytes());
            drop(nodes(&bytes));
            if let Ok(images) = open_disk(Disk::new(Arc::new(MemoryDevice::new(bytes)))) {
                for image in images {
                    drop(image.read_dir(image.root()));
                }
            }
        }
    }
}
