//! The virtual disk: BAT, payload blocks, sector bitmaps ([MS-VHDX] 2.4 and 2.5).

use super::format::ALIGN;
use super::header::Headers;
use super::metadata::Metadata;
use crate::block::{BlockDevice, Disk, DiskMut, Extent, ExtentKind, Geometry, WritableDevice};
use crate::error::{Defect, Error, Layer, Result, Severity};
use crate::guid::Guid;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

const NOT_PRESENT: u64 = 0;
const UNDEFINED: u64 = 1;
const ZERO: u64 = 2;
const UNMAPPED: u64 = 3;
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;
/// BAT entries of the smallest chunk of the largest disk: bounds the memory of a lying disk size.
const MAX_BAT_ENTRIES: u64 = (crate::limits::MAX_DISK_BYTES / ALIGN) * 2;

struct Writer {
    file: DiskMut,
    headers: Headers,
    header_written: bool,
}

/// A VHDX as a disk.
pub(super) struct VhdxDevice {
    file: Disk,
    metadata: Metadata,
    bat: RwLock<Vec<u64>>,
    bat_range: Range<u64>,
    chunk_ratio: u64,
    writer: Option<Mutex<Writer>>,
    parent: Option<Disk>,
}

/// Where one block's bytes come from.
enum Source {
    Zero,
    Parent,
    File(u64),
    /// In the file where the bitmap at this place has a bit, else in the parent.
    Mixed {
        payload: u64,
        bitmap: u64,
    },
}

impl VhdxDevice {
    pub(super) fn open(
        file: Disk,
        writer: Option<DiskMut>,
        headers: Headers,
        metadata: Metadata,
        parent: Option<Disk>,
    ) -> Result<VhdxDevice> {
        let chunk_ratio = (u64::from(metadata.logical_sector_bytes) << 23) / metadata.block_bytes;
        let blocks = metadata.disk_bytes.div_ceil(metadata.block_bytes);
        let entries = if metadata.has_parent {
            blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1)
        } else {
            blocks + (blocks - 1) / chunk_ratio
        };
        let bat_range = headers.regions.bat.clone();
        if entries > MAX_BAT_ENTRIES || entries * 8 > bat_range.end - bat_range.start {
            return Err(Error::damaged(Layer::Vhdx, "the BAT is too small for the disk")
                .at(bat_range.start)
                .expected(format!("{entries} entries"))
                .found(format!("{:#x} bytes", bat_range.end - bat_range.start)));
        }
        let bytes = file.read_vec(bat_range.start, (entries * 8) as usize)?;
        let bat = bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect();
        let writer = writer.map(|file| Mutex::new(Writer { file, headers, header_written: false }));
        Ok(VhdxDevice { file, metadata, bat: RwLock::new(bat), bat_range, chunk_ratio, writer, parent })
    }

    fn entry_index(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio
    }

    fn bitmap_index(&self, block: u64) -> u64 {
        (block / self.chunk_ratio) * (self.chunk_ratio + 1) + self.chunk_ratio
    }

    fn entry(&self, index: u64) -> u64 {
        let bat = self.bat.read().unwrap_or_else(PoisonError::into_inner);
        bat.get(index as usize).copied().unwrap_or(0)
    }

    fn entry_place(&self, index: u64) -> u64 {
        self.bat_range.start + index * 8
    }

    fn source(&self, block: u64) -> Result<Source> {
        let index = self.entry_index(block);
        let entry = self.entry(index);
        let place = entry & !(ALIGN - 1);
        let broken = |what: &str| {
            Error::damaged(Layer::Vhdx, what.to_string())
                .at(self.entry_place(index))
                .found(format!("BAT entry {entry:#x} of block {block}"))
        };
        match entry & 7 {
            NOT_PRESENT if self.metadata.has_parent => Ok(Source::Parent),
            NOT_PRESENT | UNDEFINED | ZERO | UNMAPPED => Ok(Source::Zero),
            state @ (FULLY_PRESENT | PARTIALLY_PRESENT) => {
                let end = place.checked_add(self.block_length(block));
                if place < ALIGN || end.is_none_or(|end| end > self.file.len()) {
                    return Err(broken("a block lies outside the file"));
                }
                if state == FULLY_PRESENT {
                    return Ok(Source::File(place));
                }
                let bitmap = self.entry(self.bitmap_index(block));
                let bitmap_place = bitmap & !(ALIGN - 1);
                if !self.metadata.has_parent || bitmap & 7 != FULLY_PRESENT {
                    return Err(broken("a partially present block has no sector bitmap"));
                }
                let within = (block % self.chunk_ratio) * (ALIGN / self.chunk_ratio);
                if bitmap_place < ALIGN || bitmap_place + ALIGN > self.file.len() {
                    return Err(broken("a sector bitmap lies outside the file"));
                }
                Ok(Source::Mixed { payload: place, bitmap: bitmap_place + within })
            }
            _ => Err(broken("a BAT entry has a state that does not exist")),
        }
    }

    /// Bytes of a block that the disk has; the last block may be cut.
    fn block_length(&self, block: u64) -> u64 {
        (self.metadata.disk_bytes - block * self.metadata.block_bytes).min(self.metadata.block_bytes)
    }

    fn read_parent(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        let Some(parent) = &self.parent else {
            return Err(crate::image::parent_missing(Layer::Vhdx));
        };
        // A child may be larger than its parent; beyond the parent's end there is nothing.
        let there = parent.len().saturating_sub(offset).min(buf.len() as u64) as usize;
        if there > 0 { parent.read_at(offset, &mut buf[..there]) } else { Ok(()) }
    }

    fn read_block(&self, block: u64, within: u64, buf: &mut [u8]) -> Result<()> {
        let offset = block * self.metadata.block_bytes + within;
        match self.source(block)? {
            Source::Zero => {
                buf.fill(0);
                Ok(())
            }
            Source::Parent => self.read_parent(offset, buf),
            Source::File(place) => self.file.read_at(place + within, buf),
            Source::Mixed { payload, bitmap } => {
                let sector = u64::from(self.metadata.logical_sector_bytes);
                let bits = self.file.read_vec(bitmap, (ALIGN / self.chunk_ratio) as usize)?;
                let mut done = 0;
                while done < buf.len() {
                    let at = within + done as u64;
                    let count = ((sector - at % sector) as usize).min(buf.len() - done);
                    let number = at / sector;
                    let here =
                        bits.get((number / 8) as usize).is_some_and(|byte| byte >> (number % 8) & 1 == 1);
                    let part = &mut buf[done..done + count];
                    if here {
                        self.file.read_at(payload + at, part)?;
                    } else {
                        self.read_parent(offset + done as u64, part)?;
                    }
                    done += count;
                }
                Ok(())
            }
        }
    }

    /// Calls `each(block, offset within it, range of the buffer)` for the blocks that a request touches.
    fn each_block(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(u64, u64, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let size = self.metadata.block_bytes;
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let count = ((size - at % size).min((length - done) as u64)) as usize;
            each(at / size, at % size, done..done + count)?;
            done += count;
        }
        Ok(())
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.writer.as_ref().ok_or_else(|| Error::invalid(Layer::Vhdx, "opened for reading"))?;
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if !writer.header_written {
            // 2.2.2: new write identities before the first change; a replayed log is forgotten here.
            let Writer { file, headers, header_written } = &mut *writer;
            headers.current.file_write_guid = Guid::random();
            headers.current.data_write_guid = Guid::random();
            headers.current.log_guid = Guid::ZERO;
            headers.write(file)?;
            *header_written = true;
        }
        Ok(writer)
    }

    fn set_entry(&self, writer: &Writer, index: u64, entry: u64) -> Result<()> {
        writer.file.write_at(self.entry_place(index), &entry.to_le_bytes())?;
        let mut bat = self.bat.write().unwrap_or_else(PoisonError::into_inner);
        bat[index as usize] = entry;
        Ok(())
    }

    /// Makes a block whole in the file, holding what it reads as now; its place.
    fn allocate(&self, writer: &Writer, block: u64) -> Result<u64> {
        let (place, fill) = match self.source(block)? {
            Source::File(place) => return Ok(place),
            Source::Mixed { payload, .. } => (payload, true),
            source => {
                let place = writer.file.len().next_multiple_of(ALIGN);
                writer.file.set_length(place + self.metadata.block_bytes)?;
                (place, matches!(source, Source::Parent))
            }
        };
        if fill {
            let length = self.block_length(block);
            let mut within = 0;
            let mut chunk = vec![0; ALIGN as usize];
            while within < length {
                let count = (length - within).min(ALIGN) as usize;
                self.read_block(block, within, &mut chunk[..count])?;
                writer.file.write_at(place + within, &chunk[..count])?;
                within += count as u64;
            }
        }
        self.set_entry(writer, self.entry_index(block), place | FULLY_PRESENT)?;
        Ok(place)
    }

    /// Overlaps, blocks beyond the end, states that do not exist, space that nobody uses.
    pub(super) fn check(&self, defects: &mut Vec<Defect>) {
        let blocks = self.metadata.disk_bytes.div_ceil(self.metadata.block_bytes);
        let mut places: Vec<(u64, u64)> = Vec::new();
        for block in 0..blocks {
            match self.source(block) {
                Ok(Source::File(place) | Source::Mixed { payload: place, .. }) => places.push((place, block)),
                Ok(_) => {}
                Err(e) => defects.push(Defect::from_error("vhdx-bat-entry-bad", Severity::Error, &e)),
            }
        }
        places.sort_unstable();
        for pair in places.windows(2) {
            let ((first, one), (second, other)) = (pair[0], pair[1]);
            if first + self.metadata.block_bytes > second {
                let text = format!("blocks {one} and {other} share bytes of the file");
                defects.push(Defect::new("vhdx-blocks-overlap", Severity::Error, Layer::Vhdx, second, text));
            }
        }
    }
}

impl BlockDevice for VhdxDevice {
    fn geometry(&self) -> Geometry {
        Geometry {
            length_bytes: self.metadata.disk_bytes,
            logical_sector_bytes: self.metadata.logical_sector_bytes,
            physical_sector_bytes: self.metadata.physical_sector_bytes,
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.each_block(offset, buf.len(), |block, within, range| {
            self.read_block(block, within, &mut buf[range])
        })
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let block = offset / self.metadata.block_bytes;
        let kind = match self.source(block)? {
            Source::Zero => ExtentKind::Zero,
            Source::Parent => ExtentKind::Absent,
            Source::File(_) | Source::Mixed { .. } => ExtentKind::Data,
        };
        let within = offset % self.metadata.block_bytes;
        Ok(Extent { kind, length_bytes: self.block_length(block) - within })
    }
}

impl WritableDevice for VhdxDevice {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let writer = self.writer()?;
        self.each_block(offset, data.len(), |block, within, range| {
            // Zeros into a block that reads as zero need no block.
            if matches!(self.source(block)?, Source::Zero) && crate::bytes::is_zero(&data[range.clone()]) {
                return Ok(());
            }
            let place = self.allocate(&writer, block)?;
            writer.file.write_at(place + within, &data[range])
        })
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let writer = self.writer()?;
        let size = self.metadata.block_bytes;
        let mut at = range.start;
        while at < range.end {
            let block = at / size;
            let end = ((block + 1) * size).min(range.end);
            match self.source(block)? {
                Source::Zero => {}
                _ => {
                    let place = self.allocate(&writer, block)?;
                    writer.file.zero_at(place + at % size..place + at % size + (end - at))?;
                }
            }
            at = end;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        match &self.writer {
            Some(writer) => writer.lock().unwrap_or_else(PoisonError::into_inner).file.flush(),
            None => Ok(()),
        }
    }
}

/// The BAT of a fixed disk: all blocks one after the other from `first`.
pub(in crate::image) fn fixed_bat(
    file: &DiskMut,
    bat: u64,
    first: u64,
    disk: u64,
    block: u64,
    sector: u32,
) -> Result<()> {
    let ratio = (u64::from(sector) << 23) / block;
    let blocks = disk.div_ceil(block);
    let mut bytes = vec![0; ((blocks + blocks.saturating_sub(1) / ratio) * 8) as usize];
    for number in 0..blocks {
        let at = ((number + number / ratio) * 8) as usize;
        bytes[at..at + 8].copy_from_slice(&((first + number * block) | FULLY_PRESENT).to_le_bytes());
    }
    file.write_at(bat, &bytes)
}
