//! `.evt`, the event log of Windows NT to 2003: a header of 48 bytes, a ring of records, an end-of-file record ([MS-EVEN] 3.1.4,
//! EVENTLOGRECORD and EVENTLOGEOF of the Windows SDK; libevt, "Windows Event Log format").
//!
//! A log that was not closed has a stale header; records are then found by their signature in the whole file. A record may go around the
//! end of the file and continue behind the header. A damaged record loses only itself.

use super::evtx_log::note;
use super::{Datum, Event, Filter, Source};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::error::{Defect, Error, Layer, Result};
use vmrescue_base::limits::MAX_FILE_IN_MEMORY_BYTES;
use vmrescue_base::text::utf16le_lossy;
use vmrescue_base::time::FileTime;

const SIGNATURE: &[u8] = b"LfLe";
/// Bytes of the header of the file.
const HEADER: usize = 48;
/// Bytes of the fixed part of a record.
const FIXED: usize = 56;
/// Largest record: the API takes 31,839 characters a string and 256 strings; logs keep to 64 KiB and a little.
const MAX_RECORD: usize = 1 << 18;
/// Events that are decoded at once.
const PART: usize = 256;

pub(super) fn is_evt(first: &[u8]) -> bool {
    first.get(4..8) == Some(SIGNATURE) && matches!(first.get(..4), Some([0x30, 0, 0, 0]))
}

/// A log of the old format in memory: these logs have 512 KiB by default and rarely more than some MiB.
pub(super) struct EvtLog {
    /// The file, and its beginning behind the header once more for the record that goes around the end.
    bytes: Vec<u8>,
    /// Record number and offset, the newest last.
    records: Vec<(u32, usize)>,
}

impl EvtLog {
    pub(super) fn open(source: &Source, defects: &mut Vec<Defect>) -> Result<EvtLog> {
        if source.len() > MAX_FILE_IN_MEMORY_BYTES {
            return Err(Error::limit(Layer::EventLog, "size of an event log").found(source.len()));
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < source.len() {
            let more = source.read(bytes.len() as u64, 4 << 20)?;
            if more.is_empty() {
                break;
            }
            bytes.extend(more);
        }
        let length = bytes.len();
        let dirty = u32_at(&bytes, 36).is_some_and(|flags| flags & 1 != 0);
        let around = bytes.get(HEADER..length.min(HEADER + MAX_RECORD)).unwrap_or_default().to_vec();
        bytes.extend(around);
        let mut records = Vec::new();
        let mut at = HEADER;
        while at + 8 <= length {
            if bytes.get(at + 4..at + 8) == Some(SIGNATURE)
                && let Some(number) = record_at(&bytes, at)
            {
                records.push((number, at));
                // The next one follows, unless this one is a lie: its own last four bytes have told.
                at += u32_at(&bytes, at).unwrap_or(4) as usize;
            } else {
                at += 4;
            }
        }
        records.sort_unstable();
        let header_says = (u32_at(&bytes, 28).unwrap_or(0), u32_at(&bytes, 24).unwrap_or(0));
        let (oldest, next) = header_says;
        let counted = u64::from(next).saturating_sub(u64::from(oldest));
        if !dirty && oldest != 0 && counted > records.len() as u64 {
            let detail = format!("{} records can be read of {counted} that the header counts", records.len());
            note(defects, "event-log-record", 0, detail);
        }
        Ok(EvtLog { bytes, records })
    }

    /// The next older events, newest first; `None` when there are no more.
    pub(super) fn next_part(
        &mut self,
        log: &str,
        filter: &Filter,
        defects: &mut Vec<Defect>,
    ) -> Option<Vec<Event>> {
        if self.records.is_empty() {
            return None;
        }
        let part = self.records.split_off(self.records.len().saturating_sub(PART));
        let mut events = Vec::new();
        for (number, at) in part.into_iter().rev() {
            // TimeGenerated, which the Event Viewer shows; TimeWritten stands behind it.
            let time = FileTime::from_unix_seconds(i64::from(u32_at(&self.bytes, at + 12).unwrap_or(0)));
            if !filter.fits_time(time) {
                continue;
            }
            match decode(&self.bytes, at, number, log, time) {
                Some(event) => events.push(event),
                None => {
                    note(defects, "event-log-record", at as u64, format!("record {number} cannot be read"));
                }
            }
        }
        Some(events)
    }
}

/// The number of the record at `at`, when its two lengths agree.
fn record_at(bytes: &[u8], at: usize) -> Option<u32> {
    let length = u32_at(bytes, at)? as usize;
    if !(FIXED..=MAX_RECORD).contains(&length) || !length.is_multiple_of(4) {
        return None;
    }
    (u32_at(bytes, at + length - 4)? as usize == length).then(|| u32_at(bytes, at + 8))?
}

/// UTF-16 up to its NUL, and the place behind that.
fn text_at(record: &[u8], at: usize) -> Option<(String, usize)> {
    let units = record.get(at..)?.as_chunks::<2>().0;
    let length = units.iter().position(|unit| *unit == [0, 0])?;
    Some((utf16le_lossy(slice_at(record, at, length * 2)?), at + length * 2 + 2))
}

/// A SID as text ([MS-DTYP] 2.4.2.1).
fn sid(bytes: &[u8]) -> Option<String> {
    let (revision, count) = (*bytes.first()?, usize::from(*bytes.get(1)?));
    let authority = bytes.get(2..8)?.iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    let mut text = format!("S-{revision}-{authority}");
    for i in 0..count {
        text.push_str(&format!("-{}", u32_at(bytes, 8 + i * 4)?));
    }
    Some(text)
}

fn decode(bytes: &[u8], at: usize, number: u32, log: &str, time: FileTime) -> Option<Event> {
    let record = slice_at(bytes, at, u32_at(bytes, at)? as usize)?;
    let (provider, next) = text_at(record, FIXED)?;
    let (computer, _) = text_at(record, next)?;
    let event_id = u32_at(record, 20)?;
    // Audits are information with a keyword, as newer logs have them.
    let (level, keywords) = match u16_at(record, 24)? {
        1 => (2, "0x80000000000000"),
        2 => (3, "0x80000000000000"),
        8 => (4, "0xa0000000000000"),
        16 => (4, "0x90000000000000"),
        _ => (4, "0x80000000000000"),
    };
    let mut data = Vec::new();
    let mut place = u32_at(record, 36)? as usize;
    for _ in 0..u16_at(record, 26)? {
        let Some((value, after)) = text_at(record, place) else { break };
        data.push(Datum { name: String::new(), value });
        place = after;
    }
    let extra = u32_at(record, 48)? as usize;
    if extra > 0
        && let Some(extra) = slice_at(record, u32_at(record, 52)? as usize, extra)
    {
        data.push(Datum { name: "Binary".into(), value: vmrescue_base::text::hex(extra).to_uppercase() });
    }
    let sid_bytes = slice_at(record, u32_at(record, 44)? as usize, u32_at(record, 40)? as usize);
    Some(Event {
        time,
        log: log.to_string(),
        record_id: u64::from(number),
        provider,
        id: event_id & 0xffff,
        qualifiers: Some((event_id >> 16) as u16),
        version: 0,
        level,
        task: u32::from(u16_at(record, 28)?),
        opcode: 0,
        keywords: keywords.into(),
        computer,
        user: sid_bytes.filter(|bytes| !bytes.is_empty()).and_then(sid),
        process: None,
        thread: None,
        data,
        message: None,
    })
}
