//! The state of a volume that is being written: geometry, cached records and index blocks, and the pre-images that
//! undo a failed operation.
//!
//! Records and index blocks are kept without fixups and go to the disk in [`Core::flush`]. File data never enters
//! this cache. When clusters are freed, blocks that lie in them are dropped, or they would overwrite later data.

use super::alloc::BitMap;
use super::attribute::Stream;
use super::journal::{Journal, Said};
use super::record::{apply_fixups, remove_fixups};
use super::runs;
use super::secure::Secure;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use vmrescue_base::bytes::{u16_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::DiskMut;

/// Most blocks that stay in memory between two operations.
const MAX_CACHED_BLOCKS: usize = 1 << 16;

/// Sizes from the boot sector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) cluster_bytes: u64,
    pub(crate) record_bytes: usize,
    pub(crate) index_bytes: usize,
    pub(crate) clusters: u64,
    pub(crate) mft_lcn: u64,
    pub(crate) serial: u64,
    pub(crate) volume_bytes: u64,
}

impl Geometry {
    /// Reads the boot sector.
    pub(crate) fn read(disk: &DiskMut) -> Result<Geometry> {
        let mut boot = vec![0; 512];
        disk.read_at(0, &mut boot)?;
        let geometry = Geometry::parse(&boot).ok_or_else(|| {
            Error::damaged(Layer::Ntfs, "the boot sector does not describe an NTFS volume").at(0)
        })?;
        if geometry.volume_bytes > disk.geometry().length_bytes {
            return Err(Error::damaged(Layer::Ntfs, "the volume is larger than its partition")
                .expected(format!("at most {:#x} bytes", disk.geometry().length_bytes))
                .found(format!("{:#x}", geometry.volume_bytes)));
        }
        Ok(geometry)
    }

    fn parse(boot: &[u8]) -> Option<Geometry> {
        if boot.get(3..11)? != b"NTFS    " {
            return None;
        }
        let sector = u64::from(u16_at(boot, 0x0B)?);
        let per_cluster = *boot.get(0x0D)?;
        let shift = if per_cluster > 0x80 { 256 - u32::from(per_cluster) } else { 0 };
        let sectors = if shift > 0 { 1u64.checked_shl(shift)? } else { u64::from(per_cluster) };
        let cluster_bytes = sector.checked_mul(sectors)?;
        let valid = (256..=4096).contains(&sector)
            && sector.is_power_of_two()
            && cluster_bytes.is_power_of_two()
            && cluster_bytes <= 2 << 20;
        if !valid {
            return None;
        }
        let size = |byte: u8| -> Option<usize> {
            let size = if byte >= 0x80 {
                1u64.checked_shl(256 - u32::from(byte))?
            } else {
                u64::from(byte).checked_mul(cluster_bytes)?
            };
            (size.is_power_of_two() && (512..=65536).contains(&size)).then_some(size as usize)
        };
        let volume_bytes = u64_at(boot, 0x28)?.checked_mul(sector)?;
        Some(Geometry {
            cluster_bytes,
            record_bytes: size(*boot.get(0x40)?).filter(|b| *b >= 1024)?,
            index_bytes: size(*boot.get(0x44)?).filter(|b| *b >= 512)?,
            clusters: volume_bytes / cluster_bytes,
            mft_lcn: u64_at(boot, 0x30)?,
            serial: u64_at(boot, 0x48)?,
            volume_bytes,
        })
    }
}

/// A record or an index block in memory.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    dirty: bool,
    /// Where it lies on the volume: more than one piece where clusters are smaller than blocks.
    pieces: Vec<(u64, usize)>,
}

/// Where $MFT and its copy lie.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mft {
    pub(crate) data: Stream,
    pub(crate) bitmap: Stream,
    pub(crate) mirror: Stream,
}

/// What an operation changed, as it was before.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    blocks: BTreeMap<u64, Option<Block>>,
    mft: Option<Mft>,
    /// Places on the volume and what lay there.
    overwritten: Vec<(u64, Vec<u8>)>,
}

/// See the module's documentation.
pub(crate) struct Core {
    pub(crate) disk: DiskMut,
    pub(crate) geometry: Geometry,
    pub(crate) mft: Mft,
    /// Free clusters.
    pub(crate) clusters: BitMap,
    /// Where $Bitmap's data lies.
    pub(crate) clusters_at: Stream,
    /// Free records.
    pub(crate) records: BitMap,
    pub(crate) upcase: Vec<u16>,
    pub(crate) fixed_time: Option<FileTime>,
    /// The time that files get, when whoever changes them gives it.
    pub(crate) given_time: Option<FileTime>,
    /// $LogFile must be emptied before the first change reaches the disk.
    pub(crate) empty_log: Option<Stream>,
    /// Clusters to free when the operation has succeeded: until then nothing else may overwrite them.
    pub(crate) freed: Vec<runs::Run>,
    /// What is known of $Secure.
    pub(crate) secure: Option<Secure>,
    /// Security ids that were inherited: from which id, and whether by a directory.
    pub(crate) inherited: HashMap<(u32, bool), u32>,
    /// The change journal: not looked for yet, none, or this.
    pub(crate) journal: Option<Option<Journal>>,
    /// What the journal was told of each file since the last sync.
    pub(crate) said: Said,
    /// The files that this operation told it of.
    pub(crate) said_now: Vec<u64>,
    /// Whether long names get short ones, when the caller has said so.
    pub(crate) short_names: Option<bool>,
    /// Whether they do in a directory, as found out.
    pub(crate) short_known: HashMap<u64, bool>,
    /// Bytes that the next flush writes as they are: what is appended to system files.
    late: Vec<(u64, Vec<u8>)>,
    /// How many of them belong to operations that have succeeded.
    late_before: usize,
    /// Allocations that may still succeed.
    #[cfg(test)]
    pub(crate) allocations_left: Option<u64>,
    blocks: BTreeMap<u64, Block>,
    undo: Undo,
}

/// A damaged structure, in short.
pub(crate) fn damaged(what: impl Into<String>) -> Error {
    Error::damaged(Layer::Ntfs, what)
}

impl Core {
    /// A core that knows its geometry only.
    pub(crate) fn bare(disk: DiskMut, geometry: Geometry) -> Core {
        Core {
            disk,
            geometry,
            mft: Mft::default(),
            clusters: BitMap::default(),
            clusters_at: Stream::default(),
            records: BitMap::default(),
            upcase: Vec::new(),
            fixed_time: None,
            given_time: None,
            empty_log: None,
            freed: Vec::new(),
            secure: None,
            inherited: HashMap::new(),
            journal: None,
            said: Said::new(),
            said_now: Vec::new(),
            short_names: None,
            short_known: HashMap::new(),
            late: Vec::new(),
            late_before: 0,
            #[cfg(test)]
            allocations_left: None,
            blocks: BTreeMap::new(),
            undo: Undo::default(),
        }
    }

    /// A name in upper case by the volume's table: what names collate by.
    pub(crate) fn upper(&self, name: &[u16]) -> Vec<u16> {
        name.iter().map(|unit| self.upcase.get(usize::from(*unit)).copied().unwrap_or(*unit)).collect()
    }

    /// The time that changes carry.
    pub(crate) fn now(&self) -> FileTime {
        self.given_time.unwrap_or_else(|| self.journal_time())
    }

    /// The time of records of the change journal: when it happened, whatever the file says.
    pub(crate) fn journal_time(&self) -> FileTime {
        self.fixed_time.unwrap_or_else(FileTime::now)
    }

    /// Runs `operation`; when it fails, everything in memory is as before. Data may have been written to clusters
    /// that are free again.
    pub(crate) fn transact<T>(&mut self, operation: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        self.undo = Undo::default();
        self.clusters.begin();
        self.records.begin();
        self.freed.clear();
        self.late_before = self.late.len();
        self.said_now.clear();
        let result = operation(self).and_then(|value| {
            for run in std::mem::take(&mut self.freed) {
                self.release_now(run)?;
            }
            Ok(value)
        });
        match &result {
            Ok(_) => {
                self.late_before = self.late.len();
                if self.blocks.len() > MAX_CACHED_BLOCKS {
                    self.flush()?;
                    self.blocks.clear();
                }
            }
            Err(_) => {
                self.clusters.rollback();
                self.records.rollback();
                self.late.truncate(self.late_before);
                self.secure = None;
                self.inherited.clear();
                for file in std::mem::take(&mut self.said_now) {
                    self.said.remove(&file);
                }
                let undo = std::mem::take(&mut self.undo);
                for (key, block) in undo.blocks {
                    match block {
                        Some(block) => self.blocks.insert(key, block),
                        None => self.blocks.remove(&key),
                    };
                }
                if let Some(mft) = undo.mft {
                    self.mft = mft;
                }
                for (place, bytes) in undo.overwritten.iter().rev() {
                    let written = self.disk.write_at(*place, bytes);
                    written.map_err(|e| e.context("while a failed operation was taken back"))?;
                }
            }
        }
        result
    }

    /// Writes all of a small system stream where it lies, with zeros up to the end of the last cluster. When the operation fails,
    /// what was there comes back.
    pub(crate) fn overwrite(&mut self, stream: &Stream, data: &[u8]) -> Result<()> {
        let end = (data.len() as u64).next_multiple_of(self.geometry.cluster_bytes);
        for piece in self.pieces(stream, 0, end as usize)? {
            let before = self.read_pieces(&[piece])?;
            self.undo.overwritten.push((piece.0, before));
        }
        self.write_runs(stream, 0, data)?;
        self.zero_runs(stream, data.len() as u64, end)
    }

    /// Writes into a stream with the next flush, if the operation succeeds.
    pub(crate) fn write_late(&mut self, stream: &Stream, offset: u64, data: &[u8]) -> Result<()> {
        let mut at = 0;
        for (place, length) in self.pieces(stream, offset, data.len())? {
            self.late.push((place, data[at..at + length].to_vec()));
            at += length;
        }
        Ok(())
    }

    /// Writes what operations before this one have appended.
    pub(crate) fn flush_late(&mut self) -> Result<()> {
        for (place, bytes) in self.late.drain(..std::mem::take(&mut self.late_before)) {
            self.disk.write_at(place, &bytes)?;
        }
        Ok(())
    }

    /// Keeps the state of $MFT before its first change in this operation.
    pub(crate) fn keep_mft(&mut self) {
        if self.undo.mft.is_none() {
            self.undo.mft = Some(self.mft.clone());
        }
    }

    /// The pieces on the volume of `length` bytes at `offset` of a stream.
    pub(crate) fn pieces(&self, stream: &Stream, offset: u64, length: usize) -> Result<Vec<(u64, usize)>> {
        let cluster = self.geometry.cluster_bytes;
        let end = offset.checked_add(length as u64).ok_or_else(|| damaged("an offset that wraps"))?;
        let (first, last) = (offset / cluster, end.div_ceil(cluster));
        let part = runs::slice(&stream.runs, first, last - first);
        if runs::clusters(&part) < last - first {
            return Err(damaged("a block outside its stream"));
        }
        let (mut at, mut left, mut pieces) = (offset % cluster, length, Vec::new());
        for run in part {
            let lcn = run.lcn.ok_or_else(|| damaged("a hole in a system stream"))?;
            let take = left.min((run.count * cluster - at) as usize);
            pieces.push((lcn * cluster + at, take));
            left -= take;
            at = 0;
        }
        Ok(pieces)
    }

    pub(crate) fn read_pieces(&self, pieces: &[(u64, usize)]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; pieces.iter().map(|(_, length)| length).sum()];
        let mut at = 0;
        for (offset, length) in pieces {
            self.disk.read_at(*offset, &mut bytes[at..at + length])?;
            at += length;
        }
        Ok(bytes)
    }

    /// All bytes of a non-resident value that is held in memory as a whole.
    pub(crate) fn read_stream(&self, stream: &Stream, limit: u64) -> Result<Vec<u8>> {
        if stream.size_bytes > limit {
            return Err(
                Error::limit(Layer::Ntfs, "a system stream that is too large").found(stream.size_bytes)
            );
        }
        self.read_pieces(&self.pieces(stream, 0, stream.size_bytes as usize)?)
    }

    /// A block of a stream, without fixups.
    pub(crate) fn block(&mut self, stream: &Stream, offset: u64, length: usize) -> Result<Vec<u8>> {
        let key = self.hold_block(stream, offset, length)?;
        Ok(self.held(key).to_vec())
    }

    /// Brings a block of a stream into memory; its key for [`Core::held`].
    pub(crate) fn hold_block(&mut self, stream: &Stream, offset: u64, length: usize) -> Result<u64> {
        let pieces = self.pieces(stream, offset, length)?;
        let key = pieces.first().map_or(0, |(at, _)| *at);
        if !self.blocks.contains_key(&key) {
            let mut bytes = self.read_pieces(&pieces)?;
            if !remove_fixups(&mut bytes) {
                return Err(damaged("a block whose update sequence does not match").at(key));
            }
            self.blocks.insert(key, Block { bytes, dirty: false, pieces });
        }
        Ok(key)
    }

    /// Forgets what was only read, when it became much: a walk over a large volume keeps no more than operations do. Only
    /// between operations, which count on the blocks that they hold.
    pub(crate) fn forget_read(&mut self) {
        if self.blocks.len() > MAX_CACHED_BLOCKS {
            self.blocks.retain(|_, block| block.dirty);
        }
    }

    /// The bytes of a block that is in memory, without fixups.
    pub(crate) fn held(&self, key: u64) -> &[u8] {
        self.blocks.get(&key).map_or(&[], |block| &block.bytes)
    }

    /// Changes a block of a stream; `bytes` come without fixups.
    pub(crate) fn put_block(&mut self, stream: &Stream, offset: u64, bytes: Vec<u8>) -> Result<()> {
        let pieces = self.pieces(stream, offset, bytes.len())?;
        let key = pieces.first().map_or(0, |(at, _)| *at);
        let before = self.blocks.insert(key, Block { bytes, dirty: true, pieces });
        self.undo.blocks.entry(key).or_insert(before);
        Ok(())
    }

    /// True when a record or an index block begins in this range of the volume.
    pub(crate) fn has_blocks(&self, range: Range<u64>) -> bool {
        self.blocks.range(range).next().is_some()
    }

    /// Forgets the blocks in clusters that were freed.
    pub(crate) fn drop_blocks(&mut self, lcn: u64, count: u64) {
        let cluster = self.geometry.cluster_bytes;
        let range = lcn * cluster..(lcn + count) * cluster;
        let keys: Vec<u64> = self.blocks.range(range).map(|(key, _)| *key).collect();
        for key in keys {
            let before = self.blocks.remove(&key);
            self.undo.blocks.entry(key).or_insert(before);
        }
        let range = lcn * cluster..(lcn + count) * cluster;
        self.late.retain(|(place, _)| !range.contains(place));
    }

    /// The bytes of a file record, without fixups.
    pub(crate) fn record(&mut self, number: u64) -> Result<Vec<u8>> {
        let length = self.geometry.record_bytes;
        let offset = number.checked_mul(length as u64).filter(|o| *o < self.mft.data.initialized_bytes);
        let offset = offset.ok_or_else(|| {
            Error::not_found(Layer::Ntfs, format!("file record {number:#x} lies outside $MFT"))
        })?;
        let stream = std::mem::take(&mut self.mft.data);
        let result = self.block(&stream, offset, length);
        self.mft.data = stream;
        result.map_err(|e| e.context(format!("file record {number:#x}")))
    }

    /// Changes a file record.
    pub(crate) fn put_record(&mut self, number: u64, bytes: Vec<u8>) -> Result<()> {
        let offset = number * bytes.len() as u64; // inside $MFT, so it cannot wrap; checked by pieces
        let stream = std::mem::take(&mut self.mft.data);
        let result = self.put_block(&stream, offset, bytes);
        self.mft.data = stream;
        result
    }

    /// Records that $MFTMirr copies.
    fn mirrored(&self) -> u64 {
        self.mft.mirror.size_bytes / self.geometry.record_bytes as u64
    }

    /// Writes all that changed.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.is_dirty() {
            return Ok(());
        }
        if let Some(log) = self.empty_log.take() {
            self.fill(&log, 0xFF)?;
        }
        for number in 0..self.mirrored() {
            self.mirror(number)?;
        }
        self.flush_late()?;
        let keys: Vec<u64> = self.blocks.iter().filter(|(_, b)| b.dirty).map(|(k, _)| *k).collect();
        for key in keys {
            let Some(block) = self.blocks.get_mut(&key) else { continue };
            let mut bytes = block.bytes.clone();
            if !apply_fixups(&mut bytes) {
                return Err(damaged("a block without room for its update sequence").at(key));
            }
            let mut at = 0;
            for (offset, length) in &block.pieces {
                self.disk.write_at(*offset, &bytes[at..at + length])?;
                at += length;
            }
            // The next write of it takes the next number.
            let number_at = usize::from(u16_at(&bytes, 4).unwrap_or(0));
            if let Some(number) = bytes.get(number_at..number_at + 2) {
                block.bytes[number_at..number_at + 2].copy_from_slice(number);
            }
            block.dirty = false;
        }
        let stream = self.clusters_at.clone();
        self.flush_bits(&stream, false)?;
        let stream = self.mft.bitmap.clone();
        self.flush_bits(&stream, true)
    }

    fn is_dirty(&self) -> bool {
        !self.late.is_empty()
            || self.blocks.values().any(|b| b.dirty)
            || self.clusters.is_dirty()
            || self.records.is_dirty()
    }

    fn flush_bits(&mut self, stream: &Stream, records: bool) -> Result<()> {
        let map = if records { &mut self.records } else { &mut self.clusters };
        let ranges = map.take_dirty();
        let map = if records { &self.records } else { &self.clusters };
        for range in ranges {
            let mut at = range.start;
            for (offset, length) in self.pieces(stream, range.start as u64, range.len())? {
                self.disk.write_at(offset, &map.bytes()[at..at + length])?;
                at += length;
            }
        }
        Ok(())
    }

    /// Copies a changed record of the first ones to $MFTMirr.
    fn mirror(&mut self, number: u64) -> Result<()> {
        let length = self.geometry.record_bytes;
        let Ok(place) = self.pieces(&self.mft.data, number * length as u64, length) else { return Ok(()) };
        let Some(block) = place.first().and_then(|(key, _)| self.blocks.get(key)).filter(|b| b.dirty) else {
            return Ok(());
        };
        let mut bytes = block.bytes.clone();
        if !apply_fixups(&mut bytes) {
            return Err(damaged("a record without room for its update sequence"));
        }
        let mut at = 0;
        for (offset, length) in self.pieces(&self.mft.mirror, number * length as u64, length)? {
            self.disk.write_at(offset, &bytes[at..at + length])?;
            at += length;
        }
        Ok(())
    }

    /// Fills all clusters of a stream with one byte.
    fn fill(&self, stream: &Stream, byte: u8) -> Result<()> {
        let chunk = vec![byte; 1 << 16];
        let cluster = self.geometry.cluster_bytes;
        for run in &stream.runs {
            let Some(lcn) = run.lcn else { continue };
            let (mut at, end) = (lcn * cluster, (lcn + run.count) * cluster);
            while at < end {
                let length = (end - at).min(chunk.len() as u64);
                self.disk.write_at(at, &chunk[..length as usize])?;
                at += length;
            }
        }
        Ok(())
    }
}
