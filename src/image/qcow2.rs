//! qcow2, for reading only: a source of conversions. Source: the specification in QEMU's documentation, `interop/qcow2`.
//!
//! Versions 2 and 3, zero clusters, clusters compressed with deflate. Refused by name: backing files, encryption,
//! external data files, zstd, extended L2 entries. Snapshots inside the file are not looked at.

use super::{Container, ContainerInfo, Format, Variant};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use vmrescue_base::bytes::array_at;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_block::{BlockDevice, Disk, Extent, ExtentKind, Geometry};

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// L2 tables that are kept.
const TABLES: usize = 256;

pub(super) fn looks_like(first: &[u8]) -> bool {
    first.starts_with(b"QFI\xfb")
}

struct Header {
    cluster_bits: u32,
    size: u64,
    l1_offset: u64,
    l1_entries: u64,
    dirty: bool,
}

fn bad(what: &str) -> Error {
    Error::damaged(Layer::Image, format!("qcow2: {what}")).at(0)
}

fn refused(what: &str) -> Error {
    Error::unsupported(Layer::Image, format!("this qcow2 {what}"))
        .at(0)
        .advice("turn it into a plain one first: qemu-img convert -O raw IMAGE disk.raw")
}

fn parse(file: &Disk) -> Result<Header> {
    let bytes = file.read_vec(0, file.len().min(104) as usize)?;
    let be32 = |at| array_at(&bytes, at).map(u32::from_be_bytes).ok_or_else(|| bad("the header is cut off"));
    let be64 = |at| array_at(&bytes, at).map(u64::from_be_bytes).ok_or_else(|| bad("the header is cut off"));
    let version = be32(4)?;
    if !matches!(version, 2 | 3) {
        return Err(refused(&format!("has version {version}")));
    }
    let features = if version == 3 { be64(72)? } else { 0 };
    for (bit, what) in [
        (2, "keeps its data in another file"),
        (3, "is compressed with zstd"),
        (4, "has extended L2 entries"),
    ] {
        if features >> bit & 1 == 1 {
            return Err(refused(what));
        }
    }
    if features >> 5 != 0 {
        return Err(refused("has a feature that is not known"));
    }
    if be64(8)? != 0 {
        return Err(refused("has a backing file"));
    }
    if be32(32)? != 0 {
        return Err(refused("is encrypted"));
    }
    let (cluster_bits, size, l1_entries) = (be32(20)?, be64(24)?, u64::from(be32(36)?));
    if !(9..=21).contains(&cluster_bits) {
        return Err(bad("cluster size").found(cluster_bits));
    }
    if size == 0 || size > vmrescue_base::limits::MAX_DISK_BYTES {
        return Err(bad("size of the disk").found(size));
    }
    let covered = 1u64 << (2 * cluster_bits - 3);
    if l1_entries < size.div_ceil(covered) {
        return Err(bad("the L1 table is too small").found(l1_entries));
    }
    let header = Header {
        cluster_bits,
        size: size.next_multiple_of(512),
        l1_offset: be64(40)?,
        l1_entries: size.div_ceil(covered),
        dirty: features & 3 != 0,
    };
    Ok(header)
}

pub(super) fn info(file: &Disk) -> Result<ContainerInfo> {
    let header = parse(file)?;
    Ok(ContainerInfo {
        block_bytes: Some(1 << header.cluster_bits),
        ..ContainerInfo::new(Format::Qcow2, Variant::Dynamic, header.size, file.len())
    })
}

pub(super) fn open(file: &Disk) -> Result<Container<Disk>> {
    let header = parse(file)?;
    let info = info(file)?;
    let bytes = file.read_vec(header.l1_offset, (header.l1_entries * 8) as usize)?;
    let l1 = bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry) & OFFSET).collect();
    let defects = if header.dirty {
        let text = "the image was not closed cleanly; its reference counts may be wrong, which reading does not need";
        vec![Defect::new("qcow2-dirty", Severity::Warning, Layer::Image, 72, text)]
    } else {
        Vec::new()
    };
    let device =
        Qcow2 { file: file.clone(), header, l1, tables: Mutex::default(), unpacked: Mutex::default() };
    Ok(Container { disk: Disk::new(Arc::new(device)), info, defects })
}

struct Qcow2 {
    file: Disk,
    header: Header,
    l1: Vec<u64>,
    tables: Mutex<HashMap<u64, Arc<Vec<u64>>>>,
    /// The compressed cluster that was unpacked last, by its entry.
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

impl Qcow2 {
    fn cluster(&self) -> u64 {
        1 << self.header.cluster_bits
    }

    /// The L2 entry of a cluster, 0 when there is no table.
    fn entry(&self, number: u64) -> Result<u64> {
        let per_table = self.cluster() / 8;
        let place = self.l1.get((number / per_table) as usize).copied().unwrap_or(0);
        if place == 0 {
            return Ok(0);
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if !tables.contains_key(&place) {
            if tables.len() >= TABLES {
                tables.clear();
            }
            let bytes = self.file.read_vec(place, self.cluster() as usize)?;
            let table = bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect();
            tables.insert(place, Arc::new(table));
        }
        Ok(tables.get(&place).and_then(|t| t.get((number % per_table) as usize)).copied().unwrap_or(0))
    }

    fn unpack(&self, entry: u64) -> Result<Arc<Vec<u8>>> {
        let mut last = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = last.as_ref().filter(|(known, _)| *known == entry) {
            return Ok(Arc::clone(bytes));
        }
        let shift = 62 - (self.header.cluster_bits - 8);
        let place = entry & ((1 << shift) - 1);
        let sectors = (entry >> shift & ((1 << (self.header.cluster_bits - 8)) - 1)) + 1;
        let length = (sectors * 512 - place % 512).min(self.file.len().saturating_sub(place));
        let packed = self.file.read_vec(place, length as usize)?;
        let broken =
            || Error::damaged(Layer::Image, "qcow2: a compressed cluster cannot be unpacked").at(place);
        let bytes = miniz_oxide::inflate::decompress_to_vec_with_limit(&packed, self.cluster() as usize)
            .map_err(|_| broken())?;
        if bytes.len() as u64 != self.cluster() {
            return Err(broken());
        }
        let bytes = Arc::new(bytes);
        *last = Some((entry, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

impl BlockDevice for Qcow2 {
    fn geometry(&self) -> Geometry {
        Geometry::of_bytes(self.header.size)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let within = at % self.cluster();
            let count = (self.cluster() - within).min((buf.len() - done) as u64) as usize;
            let part = &mut buf[done..done + count];
            match self.entry(at / self.cluster())? {
                entry if entry >> 62 & 1 == 1 => {
                    part.copy_from_slice(&self.unpack(entry)?[within as usize..within as usize + count]);
                }
                entry if entry & 1 == 1 || entry & OFFSET == 0 => part.fill(0),
                entry => {
                    // The last cluster of a file may be cut.
                    let place = (entry & OFFSET) + within;
                    let there = self.file.len().saturating_sub(place).min(count as u64) as usize;
                    part[there..].fill(0);
                    self.file.read_at(place, &mut part[..there])?;
                }
            }
            done += count;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let entry = self.entry(offset / self.cluster())?;
        let zero = entry >> 62 & 1 == 0 && (entry & 1 == 1 || entry & OFFSET == 0);
        let rest = self.cluster() - offset % self.cluster();
        let kind = if zero { ExtentKind::Zero } else { ExtentKind::Data };
        Ok(Extent { kind, length_bytes: rest.min(self.header.size - offset) })
    }
}
