//! An open volume: finds $MFT (fragmented or not), reads records, attributes and streams.
//!
//! A [`Volume`] is cheap to clone and never changes: who writes opens it again. Caches are bounded (pages of $MFT,
//! files taken apart, unpacked units of compressed streams), about 50 MiB in all.

use super::boot::{Boot, boot_copy};
use super::cache::Generations;
use super::logfile::{self, restart::Found};
use super::map::RunMap;
use super::node::{Attr, Clustered, ListEntries, Node, Value, kind};
use super::record::{Body, Record, fix_up, number_of, sequence_of};
use super::security::Places;
use super::state::{LogState, Replay};
use super::upcase::UpCase;
use super::{lznt1, mkfs};
use crate::NodeId;
use std::sync::{Arc, OnceLock};
use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::{MAX_ATTRIBUTE_LIST_BYTES, MAX_FILE_IN_MEMORY_BYTES};
use vmrescue_base::text::utf16le_lossy;
use vmrescue_block::{Disk, Overlay, OverlayOptions, WritableDevice};

/// Bytes of one cached page of $MFT: a walk over directories takes records from everywhere, and most of a large page in vain.
const PAGE_BYTES: u64 = 16 << 10;
/// Pages of $MFT that are kept (twice as many at most).
const PAGES: usize = 1024;
/// Files taken apart that are kept (twice as many at most).
const NODES: usize = 1024;
/// Unpacked units that are kept (twice as many at most).
const UNITS: usize = 32;
/// Bytes that a scan reads at once: they stay in the processor's cache until they were looked at.
const SCAN_BYTES: u64 = 256 << 10;
/// How many of these there are between the thread that reads and the one that looks.
const SCAN_BUFFERS: usize = 4;
/// Largest compression unit that is unpacked: Windows makes 16 clusters of at most 4 KiB.
const MAX_UNIT_BYTES: u64 = 1 << 20;

/// An open NTFS volume.
#[derive(Clone)]
pub struct Volume(Arc<Inner>);

struct Inner {
    disk: Disk,
    boot: Boot,
    mft: Clustered,
    upcase: UpCase,
    label: String,
    version: (u8, u8),
    flags: u16,
    log: LogState,
    replay: Replay,
    pages: Generations<u64, Vec<u8>>,
    nodes: Generations<u64, Node>,
    units: Generations<(u64, Vec<u8>, u64), Vec<u8>>,
    descriptors: OnceLock<Places>,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ntfs::Volume({:?})", self.0.boot)
    }
}

impl Volume {
    /// Opens the volume that fills `disk`. A first record that is damaged is taken from $MFTMirr. A volume that was not left
    /// cleanly is seen as Windows would make it: its log is replayed in memory, see [`Volume::replay`].
    ///
    /// # Errors
    /// `Damaged` when boot sector or $MFT cannot be read; errors of the disk.
    pub fn open(disk: Disk) -> Result<Volume> {
        let bare = Volume::bare(disk)?;
        let found = logfile::find(&bare);
        let log = found.as_ref().map_or(LogState::Unknown, LogState::of);
        let Ok(Found::Restart(restart)) = found.as_ref() else { return bare.finish(log, Replay::NotNeeded) };
        if restart.is_clean() {
            return bare.finish(log, Replay::NotNeeded);
        }
        let replayed = logfile::replay(&bare, restart).and_then(|replayed| {
            let overlay = Overlay::new(bare.disk().clone(), OverlayOptions::default())?;
            for (place, bytes) in &replayed.writes {
                overlay.write_at(*place, bytes)?;
            }
            Ok((Volume::bare(Disk::new(overlay))?, replayed.counts))
        });
        match replayed {
            Ok((volume, counts)) => volume.finish(log, Replay::Done(counts)),
            Err(error) => bare.finish(log, Replay::Impossible(error.to_string())),
        }
    }

    /// Boot sector and $MFT only, as they lie there.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub(crate) fn bare(disk: Disk) -> Result<Volume> {
        // A damaged boot sector has a copy in the last sector of the partition; a writer does not start on it.
        let boot = Boot::parse(&disk.read_vec(0, 512)?).or_else(|first| {
            let copy = boot_copy(&disk).ok().flatten().and_then(|(_, bytes)| Boot::parse(&bytes).ok());
            copy.ok_or(first)
        })?;
        let mft = find_mft(&disk, &boot)?;
        Ok(Volume(Arc::new(Inner {
            disk,
            boot,
            mft,
            upcase: UpCase::from_units(mkfs::tables::upcase()),
            label: String::new(),
            version: (0, 0),
            flags: 0,
            log: LogState::Unknown,
            replay: Replay::NotNeeded,
            pages: Generations::new(PAGES),
            nodes: Generations::new(NODES),
            units: Generations::new(UNITS),
            descriptors: OnceLock::new(),
        })))
    }

    /// Reads what the rest of the volume says of itself.
    fn finish(mut self, log: LogState, replay: Replay) -> Result<Volume> {
        let upcase = self.upcase_of_volume();
        let facts = self.node(3).ok();
        // Nobody else has a handle yet, so this never clones.
        let Some(inner) = Arc::get_mut(&mut self.0) else {
            return Err(Error::invalid(Layer::Ntfs, "a volume that is shared while it is opened"));
        };
        (inner.log, inner.replay) = (log, replay);
        if let Ok(upcase) = upcase {
            inner.upcase = upcase;
        }
        if let Some(node) = facts {
            let value = |kind| node.attribute(kind, &[]).and_then(Attr::resident).unwrap_or_default();
            inner.label = utf16le_lossy(value(kind::VOLUME_NAME));
            let facts = value(kind::VOLUME_INFORMATION);
            inner.version = (facts.get(8).copied().unwrap_or(0), facts.get(9).copied().unwrap_or(0));
            inner.flags = u16_at(facts, 10).unwrap_or(0);
        }
        Ok(self)
    }

    fn upcase_of_volume(&self) -> Result<UpCase> {
        let node = self.node(10)?;
        let data = node.attribute(kind::DATA, &[]).ok_or_else(|| no_stream(10, ""))?;
        UpCase::parse(&self.attribute_bytes(data, 1 << 20)?)
    }

    /// The sizes and places of the boot sector.
    pub fn boot(&self) -> &Boot {
        &self.0.boot
    }

    /// The disk that the volume fills.
    pub fn disk(&self) -> &Disk {
        &self.0.disk
    }

    /// The label.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Major and minor version.
    pub fn version(&self) -> (u8, u8) {
        self.0.version
    }

    /// The flags of $VOLUME_INFORMATION; bit 0 is "dirty".
    pub fn volume_flags(&self) -> u16 {
        self.0.flags
    }

    /// What $LogFile says about the last unmount.
    pub fn log_state(&self) -> LogState {
        self.0.log
    }

    /// What became of the records of a log that is not clean.
    pub fn replay(&self) -> &Replay {
        &self.0.replay
    }

    /// The runs of $MFT.
    pub(crate) fn mft_map(&self) -> &RunMap {
        &self.0.mft.map
    }

    pub(crate) fn upcase(&self) -> &UpCase {
        &self.0.upcase
    }

    /// Where the shared security descriptors lie; read at the first question.
    pub(crate) fn descriptor_places(&self) -> Result<&Places> {
        if self.0.descriptors.get().is_none() {
            let _first = self.0.descriptors.set(self.read_descriptor_places()?);
        }
        Ok(self.0.descriptors.get_or_init(Places::new))
    }

    /// Number of records that $MFT has room for.
    pub fn records(&self) -> u64 {
        let mapped = self.0.mft.map.end().saturating_mul(u64::from(self.0.boot.cluster_bytes));
        // $MFT has no holes, so it cannot be longer than the disk.
        self.0.mft.size.min(mapped).min(self.0.disk.len()) / u64::from(self.0.boot.record_bytes)
    }

    /// Where a record begins on the volume.
    pub(crate) fn record_offset(&self, number: u64) -> Option<u64> {
        let cluster = u64::from(self.0.boot.cluster_bytes);
        let offset = number.checked_mul(u64::from(self.0.boot.record_bytes))?;
        let (lcn, _) = self.0.mft.map.find(offset / cluster)?;
        lcn?.checked_mul(cluster)?.checked_add(offset % cluster)
    }

    /// A record as it is on the disk, fixups in.
    pub(crate) fn raw_record(&self, number: u64) -> Result<Vec<u8>> {
        let size = u64::from(self.0.boot.record_bytes);
        if number >= self.records() {
            return Err(Error::not_found(Layer::Ntfs, format!("no record {number:#x} in $MFT")));
        }
        let offset = number * size; // below the size of $MFT
        let page = match self.0.pages.get(&(offset / PAGE_BYTES)) {
            Some(page) => page,
            None => {
                let start = offset / PAGE_BYTES * PAGE_BYTES;
                let length = PAGE_BYTES.min(self.records() * size - start);
                let mut bytes = vec![0; length as usize];
                match self.read_clusters(&self.0.mft, start, &mut bytes) {
                    Ok(()) => self.0.pages.put(offset / PAGE_BYTES, bytes),
                    // One bad sector must not take its neighbours with it.
                    Err(_) => {
                        let mut one = vec![0; size as usize];
                        self.read_clusters(&self.0.mft, offset, &mut one)?;
                        return Ok(one);
                    }
                }
            }
        };
        let at = (offset % PAGE_BYTES) as usize;
        let record = page.get(at..at + size as usize);
        record.map(<[u8]>::to_vec).ok_or_else(|| Error::damaged(Layer::Ntfs, "$MFT is cut off").at(offset))
    }

    /// A record whose fixups were taken out.
    pub(crate) fn fixed_record(&self, number: u64) -> Result<Vec<u8>> {
        let mut bytes = self.raw_record(number)?;
        fix_up(&mut bytes, b"FILE").map_err(|e| {
            e.context(format!("file record {number:#x}")).at(self.record_offset(number).unwrap_or(0))
        })?;
        Ok(bytes)
    }

    /// The file with this record number, in use or not.
    pub(crate) fn node(&self, number: u64) -> Result<Arc<Node>> {
        if let Some(node) = self.0.nodes.get(&number) {
            return Ok(node);
        }
        let node = Node::load(self, number)?;
        Ok(self.0.nodes.put(number, node))
    }

    /// The file behind an id; sequence number 0 stands for any.
    pub(crate) fn node_of(&self, id: NodeId) -> Result<Arc<Node>> {
        let node = self.node(number_of(id.0))?;
        let wanted = sequence_of(id.0);
        if node.flags & super::record::IN_USE == 0 || (wanted != 0 && wanted != node.sequence) {
            return Err(Error::not_found(Layer::Ntfs, format!("file {:#x} is gone", number_of(id.0))));
        }
        Ok(node)
    }

    /// A whole value in memory.
    pub(crate) fn attribute_bytes(&self, attribute: &Attr, limit: u64) -> Result<Vec<u8>> {
        match &attribute.value {
            Value::Resident(value) => Ok(value.clone()),
            Value::Clustered(clustered) => {
                if clustered.size > limit.min(MAX_FILE_IN_MEMORY_BYTES) {
                    return Err(Error::limit(Layer::Ntfs, "size of an attribute")
                        .expected(format!("at most {limit} bytes"))
                        .found(clustered.size));
                }
                let mut bytes = vec![0; clustered.size as usize];
                self.read_clusters(clustered, 0, &mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// Reads from an attribute. Returns how many bytes there were.
    pub(crate) fn read_attribute(
        &self,
        number: u64,
        attribute: &Attr,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        let length = attribute.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..length];
        match &attribute.value {
            Value::Resident(value) => {
                if length > 0 {
                    buf.copy_from_slice(&value[offset as usize..offset as usize + length]);
                }
            }
            Value::Clustered(clustered) if clustered.unit != 0 => {
                self.read_units(number, attribute, clustered, offset, buf)?;
            }
            Value::Clustered(clustered) => self.read_clusters(clustered, offset, buf)?,
        }
        Ok(length)
    }

    /// Fills `buf` from the clusters as they are; holes and what lies behind the valid length are zero.
    pub(crate) fn read_clusters(&self, clustered: &Clustered, offset: u64, buf: &mut [u8]) -> Result<()> {
        let valid = clustered.valid.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (buf, rest) = buf.split_at_mut(valid);
        rest.fill(0);
        self.read_mapped(&clustered.map, offset, buf)
    }

    fn read_mapped(&self, map: &RunMap, offset: u64, buf: &mut [u8]) -> Result<()> {
        let cluster = u64::from(self.0.boot.cluster_bytes);
        let (mut offset, mut buf) = (offset, buf);
        // Bounded: every step takes at least one byte of the buffer.
        while !buf.is_empty() {
            let (lcn, count) = map.find(offset / cluster).ok_or_else(|| {
                Error::damaged(Layer::Ntfs, "a value that is longer than its run list")
                    .found(format!("VCN {:#x}", offset / cluster))
            })?;
            let skip = offset % cluster;
            let length = count.saturating_mul(cluster).saturating_sub(skip).min(buf.len() as u64) as usize;
            let (part, rest) = buf.split_at_mut(length);
            match lcn {
                None => part.fill(0),
                Some(lcn) => {
                    let place = lcn.saturating_mul(cluster).saturating_add(skip);
                    self.0.disk.read_at(place, part)?;
                }
            }
            offset += length as u64;
            buf = rest;
        }
        Ok(())
    }

    /// Reads from an LZNT1 stream, unit by unit.
    fn read_units(
        &self,
        number: u64,
        attribute: &Attr,
        clustered: &Clustered,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let cluster = u64::from(self.0.boot.cluster_bytes);
        let unit_bytes = 1u64.checked_shl(u32::from(clustered.unit)).and_then(|n| n.checked_mul(cluster));
        let unit_bytes = unit_bytes
            .filter(|n| *n <= MAX_UNIT_BYTES)
            .ok_or_else(|| Error::damaged(Layer::Ntfs, "size of a compression unit").found(clustered.unit))?;
        let (mut offset, mut buf) = (offset, buf);
        while !buf.is_empty() {
            let index = offset / unit_bytes;
            let unit = self.cached_unit(number, &attribute.name, index, || {
                self.unit(clustered, index * unit_bytes, unit_bytes as usize)
            })?;
            let skip = (offset % unit_bytes) as usize;
            let length = buf.len().min(unit.len() - skip);
            buf[..length].copy_from_slice(&unit[skip..skip + length]);
            offset += length as u64;
            buf = &mut buf[length..];
        }
        Ok(())
    }

    /// An unpacked unit from the cache, or from `make`.
    pub(crate) fn cached_unit(
        &self,
        number: u64,
        stream: &[u8],
        index: u64,
        make: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Arc<Vec<u8>>> {
        let key = (number, stream.to_vec(), index);
        match self.0.units.get(&key) {
            Some(unit) => Ok(unit),
            None => Ok(self.0.units.put(key, make()?)),
        }
    }

    /// Unpacks the compression unit that begins at byte `start`: all clusters there means plain, none means zero,
    /// some means LZNT1 in the leading ones.
    fn unit(&self, clustered: &Clustered, start: u64, length: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; length];
        let cluster = u64::from(self.0.boot.cluster_bytes);
        let clusters = length as u64 / cluster;
        let first = start / cluster;
        let mut stored = 0;
        while stored < clusters {
            match clustered.map.find(first + stored) {
                Some((Some(_), count)) => stored += count.min(clusters - stored),
                _ => break,
            }
        }
        let valid = clustered.valid.saturating_sub(start).min(length as u64) as usize;
        if stored == 0 || valid == 0 {
            return Ok(out);
        }
        if stored == clusters {
            self.read_mapped(&clustered.map, start, &mut out)?;
        } else {
            let mut packed = vec![0; (stored * cluster) as usize];
            self.read_mapped(&clustered.map, start, &mut packed)?;
            lznt1::decompress(&packed, &mut out)?;
        }
        out[valid..].fill(0);
        Ok(out)
    }

    /// Where $MFT lies.
    pub(crate) fn mft(&self) -> &Clustered {
        &self.0.mft
    }

    /// Reads the records from `first` on, as they are on the disk; `buf` is a multiple of a record long.
    pub(crate) fn read_records(&self, first: u64, buf: &mut [u8]) -> Result<()> {
        self.read_clusters(&self.0.mft, first.saturating_mul(u64::from(self.0.boot.record_bytes)), buf)
    }

    /// Hands every record of $MFT to `visit`, in order and with large reads: its number and the bytes as they are on
    /// the disk, which `visit` may change. Parts that cannot be read are skipped and returned as their errors.
    ///
    /// A thread reads ahead, so that reading and looking take place at the same time.
    pub(crate) fn scan_raw(&self, mut visit: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<Vec<Error>> {
        let size = u64::from(self.0.boot.record_bytes);
        let total = self.records();
        let batch = (SCAN_BYTES / size).max(1);
        let mut errors = Vec::new();
        let mut look = |number: u64, bytes: &mut [u8], read: bool| -> Result<()> {
            for (index, record) in bytes.chunks_exact_mut(size as usize).enumerate() {
                let number = number + index as u64;
                // One bad sector must not take its neighbours with it.
                let again =
                    if read { Ok(()) } else { self.read_clusters(&self.0.mft, number * size, record) };
                match again {
                    Ok(()) => visit(number, record)?,
                    Err(error) => errors.push(error),
                }
            }
            Ok(())
        };
        let read = |number: u64, bytes: &mut Vec<u8>| {
            bytes.resize((batch.min(total - number) * size) as usize, 0);
            self.read_clusters(&self.0.mft, number * size, bytes).is_ok()
        };
        std::thread::scope(|scope| {
            let (full, next) = std::sync::mpsc::sync_channel::<(u64, Vec<u8>, bool)>(SCAN_BUFFERS);
            let (back, empty) = std::sync::mpsc::channel::<Vec<u8>>();
            for _ in 0..SCAN_BUFFERS {
                let _sent = back.send(Vec::new());
            }
            let ahead = move || {
                let mut number = 0;
                while number < total {
                    // Ends when nobody looks any more.
                    let Ok(mut bytes) = empty.recv() else { return };
                    let good = read(number, &mut bytes);
                    if full.send((number, bytes, good)).is_err() {
                        return;
                    }
                    number += batch;
                }
            };
            let thread = std::thread::Builder::new().name("mft".into());
            if total * size > SCAN_BYTES && thread.spawn_scoped(scope, ahead).is_ok() {
                for (number, mut bytes, good) in next {
                    look(number, &mut bytes, good)?;
                    let _sent = back.send(bytes);
                }
                return Ok(());
            }
            let (mut number, mut bytes) = (0, Vec::new());
            while number < total {
                let good = read(number, &mut bytes);
                look(number, &mut bytes, good)?;
                number += batch;
            }
            Ok(())
        })
        .map(|()| errors)
    }
}

/// The error for a stream that is not there.
pub(crate) fn no_stream(number: u64, name: &str) -> Error {
    Error::not_found(Layer::Ntfs, format!("file {number:#x} has no stream {name:?}"))
}

/// The runs of $MFT: its first record, and the extension records that are found by the runs known so far.
fn find_mft(disk: &Disk, boot: &Boot) -> Result<Clustered> {
    let cluster = u64::from(boot.cluster_bytes);
    let read = |lcn: u64| -> Result<Vec<u8>> {
        let mut bytes = disk.read_vec(lcn.saturating_mul(cluster), boot.record_bytes as usize)?;
        fix_up(&mut bytes, b"FILE").map_err(|e| e.at(lcn.saturating_mul(cluster)))?;
        Ok(bytes)
    };
    let mut bytes = read(boot.mft_lcn);
    if bytes.is_err()
        && let Ok(mirror) = read(boot.mirror_lcn)
    {
        bytes = Ok(mirror);
    }
    let bytes = bytes.map_err(|e| e.context("the first record of $MFT"))?;
    let record = Record::of_fixed(&bytes);
    let mut found = None;
    let mut list = None;
    for attribute in record.attributes() {
        let attribute = attribute?;
        match attribute.body {
            Body::NonResident(mapped) if attribute.kind == kind::DATA && attribute.name.is_empty() => {
                let mut map = RunMap::default();
                map.append(mapped.lowest_vcn, mapped.pairs, boot.clusters())?;
                found = Some(Clustered { map, size: mapped.size, valid: mapped.valid, taken: 0, unit: 0 });
            }
            Body::Resident(value) if attribute.kind == kind::ATTRIBUTE_LIST => list = Some(value.to_vec()),
            Body::NonResident(mapped) if attribute.kind == kind::ATTRIBUTE_LIST => {
                list = Some(clustered_list(disk, boot, &mapped)?);
            }
            _ => {}
        }
    }
    let mut mft = found.ok_or_else(|| Error::damaged(Layer::Ntfs, "$MFT without $DATA"))?;
    let mut segments: Vec<_> = ListEntries(list.as_deref().unwrap_or_default())
        .filter(|entry| entry.kind == kind::DATA && entry.lowest_vcn > 0)
        .collect();
    segments.sort_by_key(|entry| entry.lowest_vcn);
    for entry in segments {
        let offset = number_of(entry.reference).saturating_mul(u64::from(boot.record_bytes));
        let mut bytes = vec![0; boot.record_bytes as usize];
        read_early(disk, boot, &mft.map, offset, &mut bytes)?;
        fix_up(&mut bytes, b"FILE").map_err(|e| e.context("an extension record of $MFT"))?;
        for attribute in Record::of_fixed(&bytes).attributes().flatten() {
            if let Body::NonResident(mapped) = attribute.body
                && (attribute.kind, attribute.id) == (kind::DATA, entry.id)
            {
                mft.map.append(mapped.lowest_vcn, mapped.pairs, boot.clusters())?;
            }
        }
    }
    Ok(mft)
}

/// The attribute list of $MFT when it is in clusters.
fn clustered_list(disk: &Disk, boot: &Boot, mapped: &super::record::Mapped<'_>) -> Result<Vec<u8>> {
    let mut map = RunMap::default();
    map.append(mapped.lowest_vcn, mapped.pairs, boot.clusters())?;
    let mut list = vec![0; mapped.size.min(MAX_ATTRIBUTE_LIST_BYTES) as usize];
    read_early(disk, boot, &map, 0, &mut list)?;
    Ok(list)
}

/// Reads over runs before there is a volume.
fn read_early(disk: &Disk, boot: &Boot, map: &RunMap, offset: u64, buf: &mut [u8]) -> Result<()> {
    let cluster = u64::from(boot.cluster_bytes);
    let mut done = 0;
    while done < buf.len() {
        let at = offset.saturating_add(done as u64);
        let (lcn, count) = match map.find(at / cluster) {
            Some((Some(lcn), count)) => (lcn, count),
            _ => return Err(Error::damaged(Layer::Ntfs, "$MFT does not hold its own run list").at(at)),
        };
        let skip = at % cluster;
        let length =
            count.saturating_mul(cluster).saturating_sub(skip).min((buf.len() - done) as u64) as usize;
        disk.read_at(lcn.saturating_mul(cluster).saturating_add(skip), &mut buf[done..done + length])?;
        done += length;
    }
    Ok(())
}
