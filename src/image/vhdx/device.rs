//! The virtual disk: BAT, payload blocks, sector bitmaps ([MS-VHDX] 2.4 and 2.5).

use super::format::ALIGN;
use super::header::Headers;
use super::metadata::Metadata;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_block::{BlockDevice, Disk, DiskMut, Extent, ExtentKind, Geometry, WritableDevice};

const NOT_PRESENT: u64 = 0;
const UNDEFINED: u64 = 1;
const ZERO: u64 = 2;
const UNMAPPED: u64 = 3;
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;
/// BAT entries of the smallest chunk of the largest disk: bounds the memory of a lying disk size.
const MAX_BAT_ENTRIES: u64 = (vmrescue_base::limits::MAX_DISK_BYTES / ALIGN) * 2;
/// Bad entries of one BAT after which a check has seen enough.
const MAX_BAT_DEFECTS: usize = 1000;

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
        let entries = bat_entries(metadata.disk_bytes, &metadata);
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
            return Err(crate::parent_missing(Layer::Vhdx));
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
            Source::Mixed { payload, bitmap } => self.read_mixed(offset, payload, bitmap, within, buf),
        }
    }

    /// Sectors whose bit is set (the lowest bit of a byte first) from the file, the others from the parent, run by run.
    fn read_mixed(&self, offset: u64, payload: u64, bitmap: u64, within: u64, buf: &mut [u8]) -> Result<()> {
        let sector = self.sector();
        let bits = self.file.read_vec(bitmap, (ALIGN / self.chunk_ratio) as usize)?;
        let here = |at: u64| {
            let number = at / sector;
            bits.get((number / 8) as usize).is_some_and(|byte| byte >> (number % 8) & 1 == 1)
        };
        let mut done = 0;
        while done < buf.len() {
            let at = within + done as u64;
            let own = here(at);
            let mut end = at - at % sector + sector;
            while end < within + buf.len() as u64 && here(end) == own {
                end += sector;
            }
            let count = ((end - at) as usize).min(buf.len() - done);
            let part = &mut buf[done..done + count];
            if own {
                self.file.read_at(payload + at, part)?;
            } else {
                self.read_parent(offset + done as u64, part)?;
            }
            done += count;
        }
        Ok(())
    }

    fn sector(&self) -> u64 {
        u64::from(self.metadata.logical_sector_bytes)
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
            // A replayed log is forgotten here.
            let Writer { file, headers, header_written } = &mut *writer;
            headers.renew(file)?;
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

    /// New room of `bytes` at the end of the file, zeroed.
    fn extend(writer: &Writer, bytes: u64) -> Result<u64> {
        let place = writer.file.len().next_multiple_of(ALIGN);
        writer.file.set_length(place + bytes)?;
        Ok(place)
    }

    /// A block of the file's own; only for blocks that read as zero or are there already.
    fn allocate(&self, writer: &Writer, block: u64) -> Result<u64> {
        if let Source::File(place) = self.source(block)? {
            return Ok(place);
        }
        let place = VhdxDevice::extend(writer, self.metadata.block_bytes)?;
        self.set_entry(writer, self.entry_index(block), place | FULLY_PRESENT)?;
        Ok(place)
    }

    /// Writes into one block.
    fn write_block(&self, writer: &Writer, block: u64, within: u64, data: &[u8]) -> Result<()> {
        let whole = data.len() as u64 == self.block_length(block);
        match self.source(block)? {
            Source::File(place) => writer.file.write_at(place + within, data),
            // Zeros into a block that reads as zero need no block.
            Source::Zero if vmrescue_base::bytes::is_zero(data) => Ok(()),
            Source::Zero => {
                let place = self.allocate(writer, block)?;
                writer.file.write_at(place + within, data)
            }
            source if whole => {
                let place = match source {
                    Source::Mixed { payload, .. } => payload,
                    _ => VhdxDevice::extend(writer, self.metadata.block_bytes)?,
                };
                writer.file.write_at(place, data)?;
                self.set_entry(writer, self.entry_index(block), place | FULLY_PRESENT)
            }
            _ => self.write_sectors(writer, block, within, data),
        }
    }

    /// Writes whole sectors of a block that the parent has a part of, and marks them (2.5.2).
    fn write_sectors(&self, writer: &Writer, block: u64, within: u64, data: &[u8]) -> Result<()> {
        let sector = self.sector();
        let first = within - within % sector;
        let end = (within + data.len() as u64).next_multiple_of(sector).min(self.block_length(block));
        let mut sectors = vec![0; (end - first) as usize];
        // Only the cut sectors at both ends need what was there.
        for edge in [first, end - sector] {
            let at = (edge - first) as usize;
            self.read_block(block, edge, &mut sectors[at..at + sector as usize])?;
        }
        let at = (within - first) as usize;
        sectors[at..at + data.len()].copy_from_slice(data);
        let (payload, bitmap) = self.partial(writer, block)?;
        writer.file.write_at(payload + first, &sectors)?;
        let (low, high) = (first / sector, end.div_ceil(sector));
        let bytes = low / 8..high.div_ceil(8);
        let mut bits =
            writer.file.as_disk().read_vec(bitmap + bytes.start, (bytes.end - bytes.start) as usize)?;
        for number in low..high {
            bits[(number / 8 - bytes.start) as usize] |= 1 << (number % 8);
        }
        writer.file.write_at(bitmap + bytes.start, &bits)
    }

    /// Room for single sectors of a block: the place of the block and of its part of the sector bitmap.
    fn partial(&self, writer: &Writer, block: u64) -> Result<(u64, u64)> {
        if let Source::Mixed { payload, bitmap } = self.source(block)? {
            return Ok((payload, bitmap));
        }
        let index = self.bitmap_index(block);
        let mut entry = self.entry(index);
        if entry & 7 != FULLY_PRESENT {
            entry = VhdxDevice::extend(writer, ALIGN)? | FULLY_PRESENT;
            self.set_entry(writer, index, entry)?;
        }
        let length = ALIGN / self.chunk_ratio;
        let bitmap = (entry & !(ALIGN - 1)) + (block % self.chunk_ratio) * length;
        // Another writer may have left bits of a block that is no longer there.
        writer.file.zero_at(bitmap..bitmap + length)?;
        let payload = VhdxDevice::extend(writer, self.metadata.block_bytes)?;
        self.set_entry(writer, self.entry_index(block), payload | PARTIALLY_PRESENT)?;
        Ok((payload, bitmap))
    }

    /// Places of everything in the file: offset, bytes, and the BAT entry that names it.
    pub(super) fn used(&self) -> Vec<(u64, u64, u64)> {
        let blocks = self.metadata.disk_bytes.div_ceil(self.metadata.block_bytes);
        let mut used = Vec::new();
        for block in 0..blocks {
            let index = self.entry_index(block);
            if matches!(self.entry(index) & 7, FULLY_PRESENT | PARTIALLY_PRESENT) {
                used.push((self.entry(index) & !(ALIGN - 1), self.metadata.block_bytes, index));
            }
            let last_of_chunk = (block + 1) % self.chunk_ratio == 0 || block + 1 == blocks;
            let bitmap = self.bitmap_index(block);
            if self.metadata.has_parent && last_of_chunk && self.entry(bitmap) & 7 == FULLY_PRESENT {
                used.push((self.entry(bitmap) & !(ALIGN - 1), ALIGN, bitmap));
            }
        }
        used.sort_unstable();
        used
    }

    /// Gives up the blocks that hold nothing: those that are all zero, and those for which `is_free` says so.
    pub(super) fn drop_empty(&self, is_free: &dyn Fn(Range<u64>) -> bool) -> Result<u64> {
        let size = self.metadata.block_bytes;
        let mut dropped = 0;
        let mut chunk = vec![0; ALIGN as usize];
        for block in 0..self.metadata.disk_bytes.div_ceil(size) {
            let Source::File(place) = self.source(block)? else { continue };
            let (start, length) = (block * size, self.block_length(block));
            let mut empty = is_free(start..start + length);
            if !empty {
                empty = true;
                for within in (0..length).step_by(ALIGN as usize) {
                    let count = (length - within).min(ALIGN) as usize;
                    self.file.read_at(place + within, &mut chunk[..count])?;
                    if !vmrescue_base::bytes::is_zero(&chunk[..count]) {
                        empty = false;
                        break;
                    }
                }
            }
            if empty {
                let state = if self.metadata.has_parent { ZERO } else { NOT_PRESENT };
                let writer = self.writer()?;
                self.set_entry(&writer, self.entry_index(block), state)?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }

    /// Moves blocks from the end of the file into holes, and cuts the file; the new length.
    pub(super) fn pack(&self, fixed: &[Range<u64>]) -> Result<u64> {
        let writer = self.writer()?;
        let mut used = self.used();
        let mut taken: Vec<Range<u64>> = fixed.to_vec();
        taken.extend(used.iter().map(|(place, bytes, _)| *place..*place + *bytes));
        let mut gaps = super::super::compact::gaps(taken, writer.file.len());
        used.reverse();
        for (place, bytes, index) in used {
            let Some(target) = super::super::compact::take(&mut gaps, bytes, place) else { continue };
            super::super::compact::move_bytes(&writer.file, place, target, bytes)?;
            self.set_entry(&writer, index, target | (self.entry(index) & 7))?;
        }
        let end = self.used().iter().map(|(place, bytes, _)| place + bytes).max().unwrap_or(0);
        let end = fixed.iter().map(|range| range.end).max().unwrap_or(0).max(end);
        writer.file.set_length(end)?;
        Ok(end)
    }

    /// Overlaps, blocks beyond the end, states that do not exist, space that nobody uses.
    pub(super) fn check(&self, fixed: &[Range<u64>], defects: &mut Vec<Defect>) {
        let first = defects.len();
        self.check_entries(defects);
        if defects.len() - first >= MAX_BAT_DEFECTS {
            let text =
                format!("more than {MAX_BAT_DEFECTS} entries of the BAT are bad; the rest was not looked at");
            let at = self.bat_range.start;
            defects.push(Defect::new("vhdx-bat-entry-bad", Severity::Error, Layer::Vhdx, at, text));
            return;
        }
        let used = self.used();
        for pair in used.windows(2).filter(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            let text =
                format!("{} and {} share bytes of the file", self.name(pair[0].2), self.name(pair[1].2));
            let at = pair[1].0;
            defects.push(Defect::new("vhdx-blocks-overlap", Severity::Error, Layer::Vhdx, at, text));
        }
        for (place, bytes, index) in &used {
            if fixed.iter().any(|range| *place < range.end && range.start < place + bytes) {
                let text = format!(
                    "{} shares bytes with the header, the log, the metadata or the BAT",
                    self.name(*index)
                );
                let at = *place;
                defects.push(Defect::new("vhdx-block-over-region", Severity::Error, Layer::Vhdx, at, text));
            }
        }
        let mut taken = fixed.to_vec();
        taken.extend(used.iter().map(|(place, bytes, _)| *place..*place + *bytes));
        let leaked: u64 =
            super::super::compact::gaps(taken, self.file.len()).iter().map(|gap| gap.end - gap.start).sum();
        if leaked >= ALIGN {
            let text =
                format!("{leaked} bytes of the file belong to nothing; `disk compact` gives them back");
            defects.push(Defect::new("vhdx-space-leaked", Severity::Note, Layer::Vhdx, None, text));
        }
    }

    /// What an entry of the BAT stands for.
    fn name(&self, index: u64) -> String {
        let (chunk, within) = (index / (self.chunk_ratio + 1), index % (self.chunk_ratio + 1));
        if within == self.chunk_ratio {
            format!("the sector bitmap of chunk {chunk}")
        } else {
            format!("block {}", chunk * self.chunk_ratio + within)
        }
    }

    /// Each entry for itself; stops when there are too many that are bad.
    fn check_entries(&self, defects: &mut Vec<Defect>) {
        let most = defects.len() + MAX_BAT_DEFECTS;
        let blocks = self.metadata.disk_bytes.div_ceil(self.metadata.block_bytes);
        let mut holes = 0u64;
        for block in 0..blocks {
            if defects.len() >= most {
                return;
            }
            if let Err(e) = self.source(block) {
                defects.push(Defect::from_error("vhdx-bat-entry-bad", Severity::Error, &e));
            }
            let index = self.entry_index(block);
            self.check_reserved(index, defects);
            holes += u64::from(!matches!(self.entry(index) & 7, FULLY_PRESENT | PARTIALLY_PRESENT));
            if (block + 1) % self.chunk_ratio == 0 || block + 1 == blocks {
                self.check_bitmap(self.bitmap_index(block), defects);
            }
        }
        if self.metadata.leave_allocated && !self.metadata.has_parent && holes > 0 {
            let text =
                format!("the disk should keep all of its blocks, and {holes} of {blocks} are not there");
            let at = self.bat_range.start;
            defects.push(Defect::new("vhdx-fixed-hole", Severity::Note, Layer::Vhdx, at, text));
        }
    }

    fn check_reserved(&self, index: u64, defects: &mut Vec<Defect>) {
        let entry = self.entry(index);
        if entry & (ALIGN - 1) & !7 == 0 {
            return;
        }
        // Where nothing is, a writer replaces the whole entry.
        let present = matches!(entry & 7, FULLY_PRESENT | PARTIALLY_PRESENT);
        let severity = if present { Severity::Error } else { Severity::Warning };
        let text = format!("reserved bits of the BAT entry {entry:#x} of {} are not zero", self.name(index));
        let at = self.entry_place(index);
        defects.push(Defect::new("vhdx-bat-reserved", severity, Layer::Vhdx, at, text));
    }

    fn check_bitmap(&self, index: u64, defects: &mut Vec<Defect>) {
        let entry = self.entry(index);
        let (state, place) = (entry & 7, entry & !(ALIGN - 1));
        let mut bad = |code, severity, text: String| {
            defects.push(Defect::new(code, severity, Layer::Vhdx, self.entry_place(index), text));
        };
        if !self.metadata.has_parent {
            if state != NOT_PRESENT {
                let text = format!("{} is there, and the disk has no parent", self.name(index));
                bad("vhdx-bat-bitmap-unused", Severity::Note, text);
            }
            return;
        }
        if !matches!(state, NOT_PRESENT | FULLY_PRESENT) {
            let text = format!("{} has the state {state}, which does not exist", self.name(index));
            bad("vhdx-bat-bitmap-state", Severity::Error, text);
        } else if state == FULLY_PRESENT
            && (place < ALIGN || place.checked_add(ALIGN).is_none_or(|end| end > self.file.len()))
        {
            let text = format!("{} lies outside the file (BAT entry {entry:#x})", self.name(index));
            bad("vhdx-bat-entry-bad", Severity::Error, text);
        }
        self.check_reserved(index, defects);
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
            self.write_block(&writer, block, within, &data[range])
        })
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let writer = self.writer()?;
        let size = self.metadata.block_bytes;
        let zeros = vec![0; ALIGN as usize];
        let mut at = range.start;
        while at < range.end {
            let block = at / size;
            let end = ((block + 1) * size).min(range.end);
            match self.source(block)? {
                Source::Zero => {}
                Source::File(place) => {
                    writer.file.zero_at(place + at % size..place + at % size + (end - at))?;
                }
                Source::Parent if end - at == self.block_length(block) => {
                    self.set_entry(&writer, self.entry_index(block), ZERO)?;
                }
                Source::Parent | Source::Mixed { .. } => {
                    let mut from = at;
                    while from < end {
                        let count = (end - from).min(ALIGN);
                        self.write_block(&writer, block, from % size, &zeros[..count as usize])?;
                        from += count;
                    }
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

/// Entries of the BAT of a disk of `disk_bytes` (2.5): payload blocks and the sector bitmap of each chunk between them.
pub(super) fn bat_entries(disk_bytes: u64, metadata: &Metadata) -> u64 {
    let chunk_ratio = (u64::from(metadata.logical_sector_bytes) << 23) / metadata.block_bytes;
    let blocks = disk_bytes.div_ceil(metadata.block_bytes);
    if metadata.has_parent {
        blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1)
    } else {
        blocks + (blocks - 1) / chunk_ratio
    }
}

/// Gives a fixed disk that grew its new blocks, at the end of the file.
pub(super) fn append_blocks(
    file: &DiskMut,
    bat: &Range<u64>,
    metadata: &Metadata,
    disk_bytes: u64,
) -> Result<()> {
    let size = metadata.block_bytes;
    let ratio = (u64::from(metadata.logical_sector_bytes) << 23) / size;
    for block in metadata.disk_bytes.div_ceil(size)..disk_bytes.div_ceil(size) {
        let place = file.len().next_multiple_of(ALIGN);
        file.set_length(place + size)?;
        file.write_at(bat.start + (block + block / ratio) * 8, &(place | FULLY_PRESENT).to_le_bytes())?;
    }
    Ok(())
}

/// The BAT of a fixed disk: all blocks one after the other from `first`.
pub(crate) fn fixed_bat(
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
