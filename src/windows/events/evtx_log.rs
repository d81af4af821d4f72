//! `.evtx`: chunks of 64 KiB behind a header of 4096 bytes (libevtx, "Windows XML Event Log format"; [MS-EVEN6] 2.2.12 for the binary XML).
//!
//! The crate `evtx` decodes one chunk at a time, in memory and behind `catch_unwind`: a damaged chunk loses only itself. The header of the
//! file is not believed: a log that was not closed (as after every crash) has chunks that it does not count.
//! Chunks are given newest first, by the record numbers in their headers.

use super::xml;
use super::{Event, Filter, Source};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use vmrescue_base::bytes::{u32_at, u64_at};
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::limits::MAX_EVENT_CHUNKS;
use vmrescue_base::time::FileTime;

/// Bytes of the header of the file.
pub(super) const FIRST_CHUNK: u64 = 4096;
const CHUNK: u64 = 65536;
const CHUNK_MAGIC: &[u8] = b"ElfChnk\0";
/// Bytes of a chunk's header.
const CHUNK_HEADER: usize = 512;
/// Defects that are told of one log.
const MAX_DEFECTS: usize = 200;

pub(super) fn is_evtx(first: &[u8]) -> bool {
    first.starts_with(b"ElfFile\0")
        || first.get(FIRST_CHUNK as usize..).is_some_and(|c| c.starts_with(CHUNK_MAGIC))
}

/// The chunks of a log, the newest last.
pub(super) struct EvtxLog {
    source: Source,
    settings: Arc<evtx::ParserSettings>,
    /// First record number and offset.
    chunks: Vec<(u64, u64)>,
}

/// Notes a defect, within reason.
pub(super) fn note(defects: &mut Vec<Defect>, code: &'static str, offset: u64, detail: impl Into<String>) {
    if defects.len() < MAX_DEFECTS {
        defects.push(Defect::new(code, Severity::Warning, Layer::EventLog, offset, detail));
    }
}

/// Checksum of a chunk's header: its bytes but for flags and the checksum itself.
fn header_checksum(header: &[u8]) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(..120)?);
    hasher.update(header.get(128..CHUNK_HEADER)?);
    Some(hasher.finalize())
}

impl EvtxLog {
    pub(super) fn open(source: Source, first: &[u8], defects: &mut Vec<Defect>) -> Result<EvtxLog> {
        if !first.starts_with(b"ElfFile\0") {
            note(
                defects,
                "event-log-header",
                0,
                "the header of the log is damaged; its chunks are read all the same",
            );
        }
        let space = source.len().saturating_sub(FIRST_CHUNK);
        let count = space.div_ceil(CHUNK);
        if count > MAX_EVENT_CHUNKS {
            return Err(Error::limit(Layer::EventLog, "chunks of an event log").found(count));
        }
        let mut chunks = Vec::new();
        for number in 0..count {
            let offset = FIRST_CHUNK + number * CHUNK;
            let header = match source.read(offset, CHUNK_HEADER) {
                Ok(header) => header,
                Err(e) => {
                    note(defects, "event-log-unreadable", offset, e.to_string());
                    continue;
                }
            };
            if vmrescue_base::bytes::is_zero(&header) {
                continue;
            }
            if header.len() < CHUNK_HEADER || offset + CHUNK > source.len() {
                note(defects, "event-log-cut", offset, "the log is cut off in this chunk");
            }
            if !header.starts_with(CHUNK_MAGIC) {
                let stored = u32_at(&header, 124);
                let mut mended = header.clone();
                if mended.len() >= 8 {
                    mended[..8].copy_from_slice(CHUNK_MAGIC);
                }
                let only_magic = stored.is_some() && header_checksum(&mended) == stored;
                let detail = if only_magic {
                    "a chunk lost its signature only"
                } else {
                    "no chunk is here; its events are lost"
                };
                note(defects, "event-log-chunk-signature", offset, detail);
                if !only_magic {
                    continue;
                }
            }
            chunks.push((u64_at(&header, 24).unwrap_or(0), offset));
        }
        chunks.sort_unstable();
        Ok(EvtxLog { source, settings: Arc::new(evtx::ParserSettings::default().indent(false)), chunks })
    }

    /// The events of the next older chunk, newest first; `None` when there is no more.
    pub(super) fn next_chunk(
        &mut self,
        log: &str,
        filter: &Filter,
        defects: &mut Vec<Defect>,
    ) -> Option<Vec<Event>> {
        let (_, offset) = self.chunks.pop()?;
        let mut bytes = match self.source.read(offset, CHUNK as usize) {
            Ok(bytes) => bytes,
            Err(e) => {
                note(defects, "event-log-unreadable", offset, e.to_string());
                return Some(Vec::new());
            }
        };
        // A cut chunk is filled up, so that the records before the cut are still read.
        bytes.resize(CHUNK as usize, 0);
        bytes[..8].copy_from_slice(CHUNK_MAGIC);
        if u32_at(&bytes, 120).is_some_and(|flags| flags & 4 == 0) {
            if header_checksum(&bytes) != u32_at(&bytes, 124) {
                note(
                    defects,
                    "event-log-chunk-checksum",
                    offset,
                    "the checksum of the chunk's header is wrong",
                );
            }
            let end = u32_at(&bytes, 48).unwrap_or(0) as usize;
            let records = bytes.get(CHUNK_HEADER..end);
            if records.map(crc32fast::hash) != u32_at(&bytes, 52) {
                note(
                    defects,
                    "event-log-records-checksum",
                    offset,
                    "the checksum of the chunk's records is wrong",
                );
            }
        }
        let settings = Arc::clone(&self.settings);
        // The crate is given bytes of its own and nothing of ours outlives a panic in it, but the events read so far.
        let mut events = Vec::new();
        let mut found = Vec::new();
        let run = catch_unwind(AssertUnwindSafe(|| {
            read_chunk(bytes, settings, log, filter, offset, &mut events, &mut found);
        }));
        if run.is_err() {
            note(
                &mut found,
                "event-log-chunk-unreadable",
                offset,
                "the reader of binary XML gave up on this chunk",
            );
        }
        for defect in found {
            if defects.len() < MAX_DEFECTS {
                defects.push(defect);
            }
        }
        events.reverse();
        Some(events)
    }
}

fn read_chunk(
    bytes: Vec<u8>,
    settings: Arc<evtx::ParserSettings>,
    log: &str,
    filter: &Filter,
    offset: u64,
    events: &mut Vec<Event>,
    defects: &mut Vec<Defect>,
) {
    let mut data = match evtx::EvtxChunkData::new(bytes, false) {
        Ok(data) => data,
        Err(e) => return note(defects, "event-log-chunk-unreadable", offset, text_of(&e)),
    };
    let copy = data.data.clone();
    let mut chunk = match data.parse(Arc::clone(&settings)) {
        Ok(chunk) => chunk,
        Err(e) => {
            // The table of strings is only an index: without it the names are still where the records point to.
            note(defects, "event-log-string-table", offset, text_of(&e));
            let mut copy = copy;
            copy[128..128 + 64 * 4].fill(0);
            return read_without_table(copy, settings, log, filter, offset, events, defects);
        }
    };
    take_records(&mut chunk, &copy, log, filter, offset, events, defects);
}

fn read_without_table(
    bytes: Vec<u8>,
    settings: Arc<evtx::ParserSettings>,
    log: &str,
    filter: &Filter,
    offset: u64,
    events: &mut Vec<Event>,
    defects: &mut Vec<Defect>,
) {
    let copy = bytes.clone();
    let Ok(mut data) = evtx::EvtxChunkData::new(bytes, false) else { return };
    match data.parse(settings) {
        Ok(mut chunk) => take_records(&mut chunk, &copy, log, filter, offset, events, defects),
        Err(e) => note(defects, "event-log-chunk-unreadable", offset, text_of(&e)),
    }
}

fn take_records(
    chunk: &mut evtx::EvtxChunk<'_>,
    bytes: &[u8],
    log: &str,
    filter: &Filter,
    offset: u64,
    events: &mut Vec<Event>,
    defects: &mut Vec<Defect>,
) {
    for record in chunk.iter() {
        let record = match record {
            Ok(record) => record,
            Err(e) => {
                note(defects, "event-log-record", offset, text_of(&e));
                continue;
            }
        };
        // The crate's time is the record header's, which lies before the binary XML; read here without conversion.
        let place = (record.binxml_offset as usize).checked_sub(8);
        let time = FileTime(place.and_then(|place| u64_at(bytes, place)).unwrap_or(0));
        if !time.is_zero() && !filter.fits_time(time) {
            continue;
        }
        let id = record.event_record_id;
        match record.into_xml() {
            Ok(xml) => match xml::event(&xml.data, log, id, time) {
                Some(event) => events.push(event),
                None => note(defects, "event-log-record", offset, format!("record {id} is not an event")),
            },
            Err(e) => note(defects, "event-log-record", offset, text_of(&e)),
        }
    }
}

/// An error of the crate with its causes, as one line.
fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text.replace(['\r', '\n'], " ")
}
