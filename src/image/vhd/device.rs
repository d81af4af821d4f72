//! Dynamic and differencing disks: the block allocation table, blocks, sector bitmaps.

use super::footer::{DynamicHeader, FOOTER_BYTES, Footer, KIND_DIFFERENCING};
use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock};
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_block::{BlockDevice, Disk, DiskMut, Extent, ExtentKind, Geometry, WritableDevice};

/// Block size of new disks.
pub(crate) const BLOCK_BYTES: u32 = 2 << 20;
const ABSENT: u32 = u32::MAX;
/// Bytes that one byte of a sector bitmap stands for.
const GROUP_BYTES: u64 = 4096;

/// A dynamic or differencing VHD as a disk.
pub(super) struct VhdDevice {
    file: Disk,
    writer: Option<Mutex<DiskMut>>,
    disk_bytes: u64,
    block_bytes: u64,
    differencing: bool,
    table_offset: u64,
    bat: RwLock<Vec<u32>>,
    parent: Option<Disk>,
}

/// Bytes of the sector bitmap ahead of each block.
pub(crate) fn bitmap_bytes(block_bytes: u64) -> u64 {
    (block_bytes / 512).div_ceil(8).next_multiple_of(512)
}

impl VhdDevice {
    pub(super) fn open(
        file: Disk,
        writer: Option<DiskMut>,
        footer: &Footer,
        header: DynamicHeader,
        parent: Option<Disk>,
    ) -> Result<VhdDevice> {
        let block_bytes = u64::from(header.block_bytes);
        let blocks = footer.disk_bytes.div_ceil(block_bytes);
        if blocks > u64::from(header.entries) || blocks * 4 > file.len() {
            return Err(Error::damaged(Layer::Vhd, "the BAT is too small for the disk")
                .at(header.table_offset)
                .expected(format!("{blocks} entries"))
                .found(header.entries));
        }
        let bytes = file.read_vec(header.table_offset, (blocks * 4) as usize)?;
        let bat = bytes.as_chunks::<4>().0.iter().map(|entry| u32::from_be_bytes(*entry)).collect();
        Ok(VhdDevice {
            file,
            writer: writer.map(Mutex::new),
            disk_bytes: footer.disk_bytes,
            block_bytes,
            differencing: footer.kind == KIND_DIFFERENCING,
            table_offset: header.table_offset,
            bat: RwLock::new(bat),
            parent,
        })
    }

    fn block_length(&self, block: u64) -> u64 {
        (self.disk_bytes - block * self.block_bytes).min(self.block_bytes)
    }

    /// Place of the block's bitmap in the file.
    fn place(&self, block: u64) -> Result<Option<u64>> {
        let bat = self.bat.read().unwrap_or_else(PoisonError::into_inner);
        let entry = bat.get(block as usize).copied().unwrap_or(ABSENT);
        if entry == ABSENT {
            return Ok(None);
        }
        let place = u64::from(entry) * 512;
        if place < FOOTER_BYTES
            || place + bitmap_bytes(self.block_bytes) + self.block_length(block) > self.file.len()
        {
            return Err(Error::damaged(Layer::Vhd, "a block lies outside the file")
                .at(self.table_offset + block * 4)
                .found(format!("BAT entry {entry:#x} of block {block}")));
        }
        Ok(Some(place))
    }

    fn read_parent(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        let Some(parent) = &self.parent else { return Err(crate::parent_missing(Layer::Vhd)) };
        let there = parent.len().saturating_sub(offset).min(buf.len() as u64) as usize;
        if there > 0 { parent.read_at(offset, &mut buf[..there]) } else { Ok(()) }
    }

    fn read_block(&self, block: u64, within: u64, buf: &mut [u8]) -> Result<()> {
        let offset = block * self.block_bytes + within;
        match self.place(block)? {
            None if self.differencing => self.read_parent(offset, buf),
            None => {
                buf.fill(0);
                Ok(())
            }
            Some(place) if !self.differencing => {
                self.file.read_at(place + bitmap_bytes(self.block_bytes) + within, buf)
            }
            Some(place) => self.read_mixed(place, offset, within, buf),
        }
    }

    /// Sectors whose bit is set (the highest bit of a byte first) from the file, the others from the parent.
    fn read_mixed(&self, place: u64, offset: u64, within: u64, buf: &mut [u8]) -> Result<()> {
        let bits = self.file.read_vec(place, bitmap_bytes(self.block_bytes) as usize)?;
        let payload = place + bits.len() as u64;
        let here = |sector: u64| bits[(sector / 8) as usize] & (0x80 >> (sector % 8)) != 0;
        let (mut done, last) = (0, within + buf.len() as u64);
        while done < buf.len() {
            let at = within + done as u64;
            let own = here(at / 512);
            let mut end = at - at % 512 + 512;
            while end < last && here(end / 512) == own {
                end += 512;
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

    fn each_block(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(u64, u64, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let count = (self.block_bytes - at % self.block_bytes).min((length - done) as u64) as usize;
            each(at / self.block_bytes, at % self.block_bytes, done..done + count)?;
            done += count;
        }
        Ok(())
    }

    /// The place of a block's bitmap; a block that is not there is made: all of it the file's own in a dynamic disk,
    /// nothing of it in a differencing one.
    fn allocate(&self, file: &DiskMut, block: u64) -> Result<u64> {
        let bitmap = bitmap_bytes(self.block_bytes);
        if let Some(place) = self.place(block)? {
            return Ok(place);
        }
        let place = file.len() - FOOTER_BYTES;
        let footer = file.as_disk().read_vec(place, FOOTER_BYTES as usize)?;
        let end = place + bitmap + self.block_bytes;
        file.set_length(end + FOOTER_BYTES)?;
        file.zero_at(place..place + FOOTER_BYTES)?;
        file.write_at(end, &footer)?;
        if !self.differencing {
            file.write_at(place, &vec![0xff; bitmap as usize])?;
        }
        self.set_entry(file, block, place)?;
        Ok(place)
    }

    fn set_entry(&self, file: &DiskMut, block: u64, place: u64) -> Result<()> {
        let entry = u32::try_from(place / 512)
            .map_err(|_| Error::no_space(Layer::Vhd, "a VHD cannot grow beyond 2 TiB"))?;
        file.write_at(self.table_offset + block * 4, &entry.to_be_bytes())?;
        let mut bat = self.bat.write().unwrap_or_else(PoisonError::into_inner);
        bat[block as usize] = entry;
        Ok(())
    }

    /// Writes into one block.
    fn write_block(&self, file: &DiskMut, block: u64, within: u64, data: &[u8]) -> Result<()> {
        let bitmap = bitmap_bytes(self.block_bytes);
        if !self.differencing {
            let there = self.place(block)?;
            if there.is_none() && vmrescue_base::bytes::is_zero(data) {
                return Ok(());
            }
            let place = self.allocate(file, block)?;
            if there.is_some() {
                // Dynamic disks made by other tools may have holes in the bitmap of a block that is all there.
                file.write_at(place, &vec![0xff; bitmap as usize])?;
            }
            return file.write_at(place + bitmap + within, data);
        }
        // Whole groups of eight sectors, as one byte of the bitmap has them: libvhdi misreads bytes that are mixed.
        // The cut groups at both ends keep what they read as.
        let first = within - within % GROUP_BYTES;
        let end = (within + data.len() as u64).next_multiple_of(GROUP_BYTES).min(self.block_length(block));
        let mut sectors = vec![0; (end - first) as usize];
        for edge in [first, (end - 1) / GROUP_BYTES * GROUP_BYTES] {
            let at = (edge - first) as usize;
            let length = (end - edge).min(GROUP_BYTES) as usize;
            self.read_block(block, edge, &mut sectors[at..at + length])?;
        }
        let at = (within - first) as usize;
        sectors[at..at + data.len()].copy_from_slice(data);
        let place = self.allocate(file, block)?;
        file.write_at(place + bitmap + first, &sectors)?;
        let bytes = first / GROUP_BYTES..end.div_ceil(GROUP_BYTES);
        file.write_at(place + bytes.start, &vec![0xff; (bytes.end - bytes.start) as usize])
    }

    /// Places of all blocks with their numbers, in order.
    fn used(&self) -> Result<Vec<(u64, u64)>> {
        let mut used = Vec::new();
        for block in 0..self.disk_bytes.div_ceil(self.block_bytes) {
            used.extend(self.place(block)?.map(|place| (place, block)));
        }
        used.sort_unstable();
        Ok(used)
    }

    /// Gives up the blocks of a dynamic disk that hold nothing, moves blocks from the end into holes, and cuts the
    /// file, whose other structures are `fixed`. Returns how many blocks were given up.
    pub(super) fn compact(&self, fixed: &[Range<u64>], is_free: &dyn Fn(Range<u64>) -> bool) -> Result<u64> {
        let bitmap = bitmap_bytes(self.block_bytes);
        self.with_writer(|file| {
            let mut dropped = 0;
            for (place, block) in self.used()? {
                let start = block * self.block_bytes;
                let length = self.block_length(block);
                let range = start..start + length;
                // A block of zeros in a differencing disk hides what the parent has.
                if !self.differencing
                    && (is_free(range)
                        || vmrescue_base::bytes::is_zero(
                            &file.as_disk().read_vec(place + bitmap, length as usize)?,
                        ))
                {
                    file.write_at(self.table_offset + block * 4, &ABSENT.to_be_bytes())?;
                    self.bat.write().unwrap_or_else(PoisonError::into_inner)[block as usize] = ABSENT;
                    dropped += 1;
                }
            }
            let step = (bitmap + self.block_bytes).next_multiple_of(512);
            let end = file.len() - FOOTER_BYTES;
            let footer = file.as_disk().read_vec(end, FOOTER_BYTES as usize)?;
            let mut taken = fixed.to_vec();
            taken.extend(self.used()?.iter().map(|(place, _)| *place..*place + step));
            let mut gaps = super::super::compact::gaps(taken, end);
            for (place, block) in self.used()?.into_iter().rev() {
                if let Some(target) = super::super::compact::take(&mut gaps, step, place) {
                    super::super::compact::move_bytes(file, place, target, bitmap + self.block_bytes)?;
                    self.set_entry(file, block, target)?;
                }
            }
            let last = self.used()?.last().map_or(0, |(place, _)| place + step);
            let end = fixed.iter().map(|range| range.end).max().unwrap_or(0).max(last);
            file.set_length(end + FOOTER_BYTES)?;
            file.write_at(end, &footer)?;
            Ok(dropped)
        })
    }

    fn with_writer<T>(&self, work: impl FnOnce(&DiskMut) -> Result<T>) -> Result<T> {
        let writer = self.writer.as_ref().ok_or_else(|| Error::invalid(Layer::Vhd, "opened for reading"))?;
        work(&writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Blocks beyond the end and blocks that share bytes.
    pub(super) fn check(&self, fixed: &[Range<u64>], defects: &mut Vec<Defect>) {
        let mut places = Vec::new();
        for block in 0..self.disk_bytes.div_ceil(self.block_bytes) {
            match self.place(block) {
                Ok(place) => places.extend(place),
                Err(e) => defects.push(Defect::from_error("vhd-bat-entry-bad", Severity::Error, &e)),
            }
        }
        places.sort_unstable();
        let step = bitmap_bytes(self.block_bytes) + self.block_bytes;
        for pair in places.windows(2).filter(|pair| pair[0] + step > pair[1]) {
            let text = "two blocks share bytes of the file";
            defects.push(Defect::new("vhd-blocks-overlap", Severity::Error, Layer::Vhd, pair[1], text));
        }
        let end = self.file.len().saturating_sub(FOOTER_BYTES);
        let last = self.disk_bytes.div_ceil(self.block_bytes).saturating_sub(1);
        for place in &places {
            // The last block may be cut where the disk ends.
            let least = bitmap_bytes(self.block_bytes) + self.block_length(last);
            if place + least > end {
                let text = "a block shares bytes with the footer";
                defects.push(Defect::new("vhd-block-over-footer", Severity::Error, Layer::Vhd, *place, text));
            }
            if fixed.iter().any(|range| *place < range.end && range.start < place + step) {
                let text = "a block shares bytes with the headers or the BAT";
                defects.push(Defect::new("vhd-block-over-header", Severity::Error, Layer::Vhd, *place, text));
            }
        }
        let mut taken = fixed.to_vec();
        taken.extend(places.iter().map(|place| *place..place + step));
        let leaked: u64 = super::super::compact::gaps(taken, end).iter().map(|gap| gap.end - gap.start).sum();
        if leaked >= self.block_bytes {
            let text =
                format!("{leaked} bytes of the file belong to nothing; `disk compact` gives them back");
            defects.push(Defect::new("vhd-space-leaked", Severity::Note, Layer::Vhd, None, text));
        }
    }
}

impl BlockDevice for VhdDevice {
    fn geometry(&self) -> Geometry {
        Geometry::of_bytes(self.disk_bytes)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.each_block(offset, buf.len(), |block, within, range| {
            self.read_block(block, within, &mut buf[range])
        })
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let block = offset / self.block_bytes;
        let kind = match self.place(block)? {
            Some(_) => ExtentKind::Data,
            None if self.differencing => ExtentKind::Absent,
            None => ExtentKind::Zero,
        };
        Ok(Extent { kind, length_bytes: self.block_length(block) - offset % self.block_bytes })
    }
}

impl WritableDevice for VhdDevice {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.with_writer(|file| {
            self.each_block(offset, data.len(), |block, within, range| {
                self.write_block(file, block, within, &data[range])
            })
        })
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut at = range.start;
        while at < range.end {
            let end = ((at / self.block_bytes + 1) * self.block_bytes).min(range.end).min(at + (1 << 20));
            self.write_at(at, &zeros[..(end - at) as usize])?;
            at = end;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.with_writer(DiskMut::flush)
    }
}
