//! $LogFile: the journal of a volume's metadata, read and replayed as Windows does on mount.
//!
//! `restart` (the two first pages), `page` and `record` (what LFS, the log service below NTFS, keeps), `ops` (operation
//! codes), `tables` (what was open and dirty), `passes` (analysis, redo, undo), `apply` with `file_record` and `index` (what
//! each operation does), `stage` (the volume as it becomes). No specification is published; the fields follow what
//! ntfs3, ntfs-3g and dfir_ntfs say of them, compared with logs of Windows 7 and 10.
//!
//! Missing: the operations UpdateRelativeDataIndex and UpdateRelativeDataAllocation of Windows 10, of which nobody has
//! published what they do; logs of DAX volumes; version 3.0.

mod apply;
mod file_record;
mod index;
mod ops;
mod page;
mod passes;
mod record;
pub(crate) mod restart;
mod stage;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;

pub use passes::Counts;

use super::map::RunMap;
use super::node::{Clustered, Value, kind};
use super::record::fix_up;
use super::volume::{Volume, no_stream};
use apply::Sizes;
use page::Pages;
use record::Operation;
use restart::{Found, MAX_PAGE_BYTES, Restart, USUAL_PAGE_BYTES};
use stage::Stage;
use vmrescue_base::error::{Error, Layer, Result};

/// Records that $MFTMirr copies at least.
const MIRRORED: u64 = 4;

/// Bytes to be written, with their place on the volume.
pub(crate) type Writes = Vec<(u64, Vec<u8>)>;

/// What a replay makes of the volume.
pub(crate) struct Replayed {
    /// The volume as it was meant to be.
    pub(crate) writes: Writes,
    /// The log as it is closed then: only for who writes the volume.
    pub(crate) closing: Writes,
    /// What was done.
    pub(crate) counts: Counts,
}

/// The data of $LogFile.
fn log_data(volume: &Volume) -> Result<Clustered> {
    let node = volume.node(2)?;
    match node.attribute(kind::DATA, &[]).map(|data| &data.value) {
        Some(Value::Clustered(clustered)) => Ok(clustered.clone()),
        Some(Value::Resident(_)) => Err(Error::damaged(Layer::Ntfs, "$LogFile has no clusters")),
        None => Err(no_stream(2, "")),
    }
}

/// Reads the restart pages. A clean volume costs the read of its record and of two pages.
///
/// # Errors
/// When $LogFile cannot be read.
pub(crate) fn find(volume: &Volume) -> Result<Found> {
    let log = log_data(volume)?;
    let mut bytes = vec![0; (2 * USUAL_PAGE_BYTES).min(log.size as usize)];
    volume.read_clusters(&log, 0, &mut bytes)?;
    let needed = (restart::bytes_needed(&bytes) as u64).min(log.size) as usize;
    if needed > bytes.len() {
        bytes = vec![0; needed];
        volume.read_clusters(&log, 0, &mut bytes)?;
    }
    Ok(restart::read(&bytes))
}

/// Replays the log of a volume that was not left cleanly. Nothing is written.
///
/// # Errors
/// `Damaged`, `Unsupported` or `Limit`, saying which record cannot be replayed and why; errors of the disk.
pub(crate) fn replay(volume: &Volume, restart: &Restart) -> Result<Replayed> {
    let log = log_data(volume)?;
    let boot = volume.boot();
    let sizes = Sizes {
        cluster_bytes: u64::from(boot.cluster_bytes),
        record_bytes: boot.record_bytes as usize,
        clusters: boot.clusters(),
    };
    let read = |offset: u64, buf: &mut [u8]| volume.read_clusters(&log, offset, buf);
    let pages = Pages::open(restart.clone(), log.size, &read)?;
    let mut done = passes::replay(&pages, volume.disk(), sizes)?;
    if done.counts.redone + done.counts.undone > 0 {
        mirror(volume, &mut done.stage)?;
    }
    let closing = close(volume, restart, done.last_lsn)?;
    Ok(Replayed { writes: done.stage.into_writes(), closing, counts: done.counts })
}

/// A record of $LogFile, for people and for comparing with other programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its number.
    pub lsn: u64,
    /// Its transaction.
    pub transaction: u32,
    /// What it does, as Windows calls it; `Restart` for where NTFS begins when it restarts.
    pub redo: String,
    /// What takes it back.
    pub undo: String,
}

/// The records of $LogFile from the last checkpoint on.
///
/// # Errors
/// `Damaged` or `Unsupported` when the log cannot be read.
pub fn log_records(volume: &Volume) -> Result<Vec<LogRecord>> {
    let Found::Restart(restart) = find(volume)? else { return Ok(Vec::new()) };
    let log = log_data(volume)?;
    let read = |offset: u64, buf: &mut [u8]| volume.read_clusters(&log, offset, buf);
    let pages = Pages::open(*restart, log.size, &read)?;
    let (mut lsn, mut last, mut records) = (pages.restart.client_restart_lsn, 0, Vec::new());
    // Bounded: LSNs rise, and every record of the log has one.
    while let Some(record) = record::read(&pages, lsn).filter(|record| record.lsn > last) {
        let operation = Operation::parse(&record).filter(|_| record.kind == record::OPERATION);
        let names = operation.map(|operation| (ops::name(operation.redo), ops::name(operation.undo)));
        let (redo, undo) = names.unwrap_or_else(|| ("Restart".into(), String::new()));
        records.push(LogRecord { lsn, transaction: record.transaction, redo, undo });
        (last, lsn) = (lsn, record.next);
    }
    Ok(records)
}

/// What closes the log, so that Windows takes it as clean and starts after `highest_lsn`; what was in it is given up. The
/// copies of pages behind the restart pages are cleared: version 1.1 looks for them elsewhere than version 2.0.
///
/// # Errors
/// When $LogFile has no place for it.
pub(crate) fn close(volume: &Volume, restart: &Restart, highest_lsn: u64) -> Result<Writes> {
    let log = log_data(volume)?;
    let no_place = || Error::damaged(Layer::Ntfs, "$LogFile is too short for its restart pages");
    let page = restart.closed(highest_lsn).ok_or_else(no_place)?;
    let size = page.len();
    let tails = 2 * size..0x22 * size.min(MAX_PAGE_BYTES);
    let mut writes = Writes::new();
    for (offset, bytes) in [(0, page.clone()), (size, page), (tails.start, vec![0xFF; tails.len()])] {
        let length = bytes.len().min(log.size.saturating_sub(offset as u64) as usize);
        let pieces = pieces(&log.map, offset as u64, length, u64::from(volume.boot().cluster_bytes));
        let mut at = 0;
        for (place, length) in pieces.ok_or_else(no_place)? {
            writes.push((place, bytes[at..at + length].to_vec()));
            at += length;
        }
    }
    Ok(writes)
}

/// Where `length` bytes at `offset` of an attribute lie. `None` when some of them have no cluster.
fn pieces(map: &RunMap, offset: u64, length: usize, cluster: u64) -> Option<Vec<(u64, usize)>> {
    let (mut offset, mut left, mut pieces) = (offset, length as u64, Vec::new());
    // Bounded: every step takes at least one byte.
    while left > 0 {
        let (lcn, count) = map.find(offset / cluster)?;
        let skip = offset % cluster;
        let take = (count * cluster - skip).min(left);
        pieces.push((lcn? * cluster + skip, take as usize));
        offset += take;
        left -= take;
    }
    Some(pieces)
}

/// Copies the first records of $MFT to $MFTMirr, as the redo has left them.
fn mirror(volume: &Volume, stage: &mut Stage<'_>) -> Result<()> {
    let boot = *volume.boot();
    let (record, cluster) = (u64::from(boot.record_bytes), u64::from(boot.cluster_bytes));
    let count = (cluster / record).max(MIRRORED);
    if boot.mirror_lcn.saturating_add((count * record).div_ceil(cluster)) > boot.clusters() {
        return Ok(());
    }
    for number in 0..count.min(volume.records()) {
        let mut bytes = vec![0; boot.record_bytes as usize];
        let Some(places) = pieces(volume.mft_map(), number * record, bytes.len(), cluster) else {
            return Ok(());
        };
        let mut at = 0;
        for (place, length) in places {
            stage.read(place, &mut bytes[at..at + length])?;
            at += length;
        }
        let copy = boot.mirror_lcn * cluster + number * record; // inside the volume
        let mut there = vec![0; bytes.len()];
        stage.read(copy, &mut there)?;
        if there != bytes && fix_up(&mut bytes.clone(), b"FILE").is_ok() {
            stage.write(copy, &bytes)?;
        }
    }
    Ok(())
}
