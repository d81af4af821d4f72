//! VMDK with one sparse extent (monolithicSparse, streamOptimized), for reading only: a source of conversions. Source:
//! VMware's Virtual Disk Format 1.1. The flat extents of other kinds are raw disks and open as such.

use super::{Container, ContainerInfo, Format, Variant};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use vmrescue_base::bytes::{u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{BlockDevice, Disk, Extent, ExtentKind, Geometry};

const SECTOR: u64 = 512;
const COMPRESSED: u32 = 1 << 16;
const ZERO_GRAINS: u32 = 1 << 2;
/// Grain tables that are kept.
const TABLES: usize = 1024;

pub(super) fn looks_like(first: &[u8]) -> bool {
    first.starts_with(b"KDMV") || first.starts_with(b"# Disk DescriptorFile")
}

#[derive(Clone)]
struct Header {
    flags: u32,
    size: u64,
    grain: u64,
    per_table: u64,
    directory: u64,
}

fn bad(what: &str) -> Error {
    Error::damaged(Layer::Image, format!("VMDK: {what}")).at(0)
}

fn refused(what: &str) -> Error {
    Error::unsupported(Layer::Image, format!("this VMDK {what}")).at(0).advice(
        "name its flat extent (it is a raw disk), or flatten it: qemu-img convert -O raw IMAGE disk.raw",
    )
}

fn header_at(file: &Disk, place: u64) -> Result<Header> {
    let bytes = file.read_vec(place, 512)?;
    let number = |at| u64_at(&bytes, at).unwrap_or_default();
    let small = |at| u32_at(&bytes, at).unwrap_or_default();
    if bytes.get(..4) != Some(b"KDMV") || !(1..=3).contains(&small(4)) {
        return Err(bad("no header").at(place));
    }
    let (capacity, grain, per_table) = (number(12), number(20), u64::from(small(44)));
    let size = capacity
        .checked_mul(SECTOR)
        .filter(|size| (1..=vmrescue_base::limits::MAX_DISK_BYTES).contains(size));
    let size = size.ok_or_else(|| bad("size of the disk").found(capacity))?;
    if !grain.is_power_of_two() || !(8..=8192).contains(&grain) || !(1..=65536).contains(&per_table) {
        return Err(bad("grain size").found(grain));
    }
    let flags = small(8);
    if flags & COMPRESSED != 0 && u16_at(&bytes, 77) != Some(1) {
        return Err(refused("is compressed in an unknown way"));
    }
    Ok(Header { flags, size, grain: grain * SECTOR, per_table, directory: number(56) })
}

fn parse(file: &Disk) -> Result<Header> {
    if file.len() < 512 || file.read_vec(0, 4)? != b"KDMV" {
        return Err(refused("only describes its extents, which are other files"));
    }
    let head = file.read_vec(0, 512)?;
    let text_at = u64_at(&head, 28).unwrap_or_default().saturating_mul(SECTOR);
    let text_bytes = u64_at(&head, 36).unwrap_or_default().saturating_mul(SECTOR).min(64 << 10);
    if text_at > 0
        && let Ok(text) = file.read_vec(text_at, text_bytes.min(file.len().saturating_sub(text_at)) as usize)
    {
        let text = String::from_utf8_lossy(&text).to_lowercase();
        if text.lines().any(|line| line.starts_with("parentcid=") && !line.contains("ffffffff")) {
            return Err(refused("is a child of another one"));
        }
    }
    let header = header_at(file, 0)?;
    // A stream is written in one go: its real header is the footer.
    if header.directory == u64::MAX { header_at(file, file.len().saturating_sub(1024)) } else { Ok(header) }
}

pub(super) fn info(file: &Disk) -> Result<ContainerInfo> {
    let header = parse(file)?;
    Ok(ContainerInfo {
        block_bytes: Some(header.grain),
        ..ContainerInfo::new(Format::Vmdk, Variant::Dynamic, header.size, file.len())
    })
}

pub(super) fn open(file: &Disk) -> Result<Container<Disk>> {
    let header = parse(file)?;
    let info = info(file)?;
    let tables = header.size.div_ceil(header.grain).div_ceil(header.per_table);
    let place = header.directory.checked_mul(SECTOR).ok_or_else(|| bad("place of the grain directory"))?;
    if tables * 4 > file.len() {
        return Err(bad("the grain directory is longer than the file").at(place));
    }
    let bytes = file.read_vec(place, (tables * 4) as usize)?;
    let directory = bytes.as_chunks::<4>().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect();
    let device =
        Vmdk { file: file.clone(), header, directory, tables: Mutex::default(), unpacked: Mutex::default() };
    Ok(Container { disk: Disk::new(Arc::new(device)), info, defects: Vec::new() })
}

struct Vmdk {
    file: Disk,
    header: Header,
    directory: Vec<u32>,
    tables: Mutex<HashMap<u32, Arc<Vec<u32>>>>,
    unpacked: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

impl Vmdk {
    /// Place of a grain in bytes; `None` when it reads as zero.
    fn grain(&self, number: u64) -> Result<Option<u64>> {
        let place = self.directory.get((number / self.header.per_table) as usize).copied().unwrap_or(0);
        if place == 0 {
            return Ok(None);
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if !tables.contains_key(&place) {
            if tables.len() >= TABLES {
                tables.clear();
            }
            let bytes =
                self.file.read_vec(u64::from(place) * SECTOR, (self.header.per_table * 4) as usize)?;
            let table = bytes.as_chunks::<4>().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect();
            tables.insert(place, Arc::new(table));
        }
        let table = tables.get(&place);
        let entry =
            table.and_then(|t| t.get((number % self.header.per_table) as usize)).copied().unwrap_or(0);
        let zero = entry == 0 || entry == 1 && self.header.flags & ZERO_GRAINS != 0;
        Ok((!zero).then_some(u64::from(entry) * SECTOR))
    }

    fn unpack(&self, place: u64) -> Result<Arc<Vec<u8>>> {
        let mut last = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = last.as_ref().filter(|(known, _)| *known == place) {
            return Ok(Arc::clone(bytes));
        }
        let broken = || Error::damaged(Layer::Image, "VMDK: a compressed grain cannot be unpacked").at(place);
        let length = u32_at(&self.file.read_vec(place, 12)?, 8).unwrap_or(0) as usize;
        if length as u64 > self.header.grain * 2 {
            return Err(broken().found(length));
        }
        let packed = self.file.read_vec(place + 12, length)?;
        let limit = self.header.grain as usize;
        let mut bytes =
            miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, limit).map_err(|_| broken())?;
        bytes.resize(limit, 0);
        let bytes = Arc::new(bytes);
        *last = Some((place, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

impl BlockDevice for Vmdk {
    fn geometry(&self) -> Geometry {
        Geometry::of_bytes(self.header.size)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let grain = self.header.grain;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let within = at % grain;
            let count = (grain - within).min((buf.len() - done) as u64) as usize;
            let part = &mut buf[done..done + count];
            match self.grain(at / grain)? {
                None => part.fill(0),
                Some(place) if self.header.flags & COMPRESSED != 0 => {
                    part.copy_from_slice(&self.unpack(place)?[within as usize..within as usize + count]);
                }
                Some(place) => self.file.read_at(place + within, part)?,
            }
            done += count;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let kind = if self.grain(offset / self.header.grain)?.is_some() {
            ExtentKind::Data
        } else {
            ExtentKind::Zero
        };
        let rest = self.header.grain - offset % self.header.grain;
        Ok(Extent { kind, length_bytes: rest.min(self.header.size - offset) })
    }
}
