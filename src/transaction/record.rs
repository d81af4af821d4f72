//! What is remembered of an operation: `<id>.json` in the state folder.
//!
//! Numbers grow and are never used twice. The newest is noted in a file of its own, and records are read from the newest down,
//! so that what an operation costs does not grow with the number of those before it. A record that cannot be read counts as an operation that is not finished.

use super::identity::Identity;
use super::journal::{self, Hashes};
use super::place::{Place, read_small};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::time::FileTime;

/// Number of an operation, counted from 1 for each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId(pub u32);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}", self.0)
    }
}

/// What the caller says about an operation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// One line for `history`.
    pub title: String,
    /// The words of the command line.
    pub command: Vec<String>,
    /// The plan as it was shown.
    pub plan: serde_json::Value,
    /// The changes as they were made.
    pub changes: serde_json::Value,
    /// Set for a mount or a server: everything that is published with the same word is one operation, and undone together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// The journal is whole; the image is being written.
    Publishing,
    /// The image holds the bytes after.
    Done,
    /// The bytes before are being written.
    Undoing,
    /// The image holds the bytes before.
    Undone,
    /// After an undo the bytes after are being written again.
    Redoing,
    /// Interrupted, and given up by the user: the image was left as it was found. The journal is still there.
    Abandoned,
    /// The record cannot be read.
    Unreadable,
}

impl OperationState {
    /// True while the image is, or may be, between two states.
    pub fn is_unfinished(self) -> bool {
        use OperationState::{Publishing, Redoing, Undoing, Unreadable};
        matches!(self, Publishing | Undoing | Redoing | Unreadable)
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            OperationState::Publishing => "being written",
            OperationState::Done => "done",
            OperationState::Undoing => "being undone",
            OperationState::Undone => "undone",
            OperationState::Redoing => "being redone",
            OperationState::Abandoned => "abandoned",
            OperationState::Unreadable => "unreadable record",
        }
    }
}

/// A state that an operation entered, and when.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since 1970, UTC.
    pub unix_seconds: i64,
    /// The state.
    pub state: OperationState,
}

/// One operation in the history of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Its number.
    pub id: OperationId,
    /// One line.
    pub title: String,
    /// The words of the command line.
    pub command: Vec<String>,
    /// How far it is.
    pub state: OperationState,
    /// Everything that happened to it, undo and redo too.
    pub events: Vec<Event>,
    /// Length of the image file before, in bytes.
    pub length_before: u64,
    /// Length of the image file after, in bytes.
    pub length_after: u64,
    /// Bytes of the image file that differ.
    pub bytes_changed: u64,
    /// The plan as it was shown.
    pub plan: serde_json::Value,
    /// The changes as they were made.
    pub changes: serde_json::Value,
    /// The session that it belongs to, when it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The operation that stood when this one was made: it goes on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<OperationId>,
    /// The operation that this one took back by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<OperationId>,
    /// Which image it was. Records of version 0.1 do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Identity>,
    /// SHA-256 over all ranges as they were before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256_before: String,
    /// SHA-256 over all ranges as they are after; in a session of what it published first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256_after: String,
    /// A differencing disk that may stay beside the image: the one that was merged into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_child: Option<PathBuf>,
    /// The image is a new file that this operation made, of that one: there is nothing to undo in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<PathBuf>,
    /// `history gc` removed the journal: this operation can no longer be undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub journal_removed: bool,
}

impl OperationRecord {
    pub(super) fn new(id: OperationId, record: Record, before: u64, after: u64) -> OperationRecord {
        OperationRecord {
            id,
            title: record.title,
            command: record.command,
            state: OperationState::Publishing,
            events: Vec::new(),
            length_before: before,
            length_after: after,
            bytes_changed: 0,
            plan: record.plan,
            changes: record.changes,
            session: record.session,
            follows: None,
            undoes: None,
            image: None,
            sha256_before: String::new(),
            sha256_after: String::new(),
            allowed_child: None,
            made_of: None,
            journal_removed: false,
        }
    }

    /// Stands for a record that cannot be read.
    pub(super) fn unreadable(id: OperationId, why: &str) -> OperationRecord {
        let title = format!("its record cannot be read: {why}");
        let mut record = OperationRecord::new(id, Record { title, ..Record::default() }, 0, 0);
        record.state = OperationState::Unreadable;
        record
    }

    /// The hashes of its journal, when the record has them.
    pub(super) fn hashes(&self) -> Option<Hashes> {
        let (before, after) = (self.sha256_before.clone(), self.sha256_after.clone());
        (!before.is_empty()).then_some(Hashes { before, after })
    }

    /// "operation 0007 (title)".
    pub fn words(&self) -> String {
        format!("operation {} ({})", self.id, self.title)
    }

    /// Notes a state, durably.
    pub(super) fn enter(&mut self, place: &dyn Place, state: OperationState) -> Result<()> {
        self.state = state;
        self.events.push(Event { unix_seconds: FileTime::now().unix_seconds(), state });
        self.write(place)
    }

    /// Writes the record, durably.
    pub(super) fn write(&self, place: &dyn Place) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::invalid(Layer::Transaction, "the record cannot be written").caused_by(e))?;
        place.write(&name(self.id), &mut |out| {
            out.write_all(&text).map_err(|e| Error::io("the record cannot be written", "record", e))
        })
    }
}

/// Name of the record of an operation.
pub(super) fn name(id: OperationId) -> String {
    format!("{id}.json")
}

/// The number in the name of a file of the state.
fn number(name: &str, ending: &str) -> Option<OperationId> {
    let digits = name.strip_suffix(ending)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok().map(OperationId))?
}

/// Numbers of all operations with a record, the newest first, by looking at all files.
pub(super) fn all_ids(place: &dyn Place) -> Result<Vec<OperationId>> {
    let mut ids: Vec<OperationId> = place.names()?.iter().filter_map(|name| number(name, ".json")).collect();
    ids.sort_unstable();
    ids.reverse();
    Ok(ids)
}

/// The records from the newest down, each read when it is asked for.
pub(super) fn newest_first(
    place: &dyn Place,
) -> Result<impl Iterator<Item = Result<OperationRecord>> + use<'_>> {
    let numbers = (1..=newest(place)?).rev().map(OperationId);
    // A number without a record: what a crash left ahead of it.
    Ok(numbers.filter_map(move |id| read(place, id).transpose()))
}

/// Numbers of all journals.
pub(super) fn journals(place: &dyn Place) -> Result<Vec<OperationId>> {
    Ok(place.names()?.iter().filter_map(|name| number(name, ".journal")).collect())
}

/// Reads the record of an operation. One that cannot be understood stands for itself as unreadable.
pub(super) fn load(place: &dyn Place, id: OperationId) -> Result<OperationRecord> {
    Ok(read(place, id)?.unwrap_or_else(|| OperationRecord::unreadable(id, "it is gone")))
}

/// As [`load`]; `None` when there is none.
fn read(place: &dyn Place, id: OperationId) -> Result<Option<OperationRecord>> {
    let Some(bytes) = read_small(place, &name(id))? else { return Ok(None) };
    let mut record: OperationRecord = match serde_json::from_slice(&bytes) {
        Ok(record) => record,
        Err(_) if bytes.is_empty() => return Ok(Some(OperationRecord::unreadable(id, "the file is empty"))),
        Err(e) => return Ok(Some(OperationRecord::unreadable(id, &e.to_string()))),
    };
    if record.state == OperationState::Publishing && record.session.is_some() {
        // A session marks in its journal what the image holds; its record is written at its beginning and at its end.
        match journal::is_applied(place, id) {
            Ok(true) => record.state = OperationState::Done,
            Ok(false) => {}
            // Not finished, and `recover` says why it cannot be.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(record))
}

/// All operations, oldest first.
pub(super) fn all(place: &dyn Place) -> Result<Vec<OperationRecord>> {
    all_ids(place)?.into_iter().rev().map(|id| load(place, id)).collect()
}

/// The newest operation that was neither undone nor abandoned: the one that stands, or the one that is not finished.
pub(super) fn head(place: &dyn Place) -> Result<Option<OperationRecord>> {
    for found in newest_first(place)? {
        let record = found?;
        if !matches!(record.state, OperationState::Undone | OperationState::Abandoned) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The operation that is not finished.
pub(super) fn unfinished(place: &dyn Place) -> Result<Option<OperationRecord>> {
    Ok(head(place)?.filter(|record| record.state.is_unfinished()))
}

/// File with the newest number, so that the folder need not be looked through. It is only believed when the files agree,
/// and never waited for.
const NEWEST: &str = "newest";
/// Ends of the names of files that use up a number.
const ENDINGS: [&str; 3] = [".json", ".journal", ".json.damaged"];

fn is_used(place: &dyn Place, number: u32) -> Result<bool> {
    for ending in ENDINGS {
        match place.open(&format!("{}{ending}", OperationId(number))) {
            Ok(_) => return Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

/// The highest number in use; 0 when there is none. What a crash kept [`NEWEST`] from being told is the next number; only
/// [`forget_newest`] comes ahead of files that go.
fn newest(place: &dyn Place) -> Result<u32> {
    let noted = read_small(place, NEWEST)?.and_then(|bytes| {
        // Half of it, or nothing: then the files say it.
        let (number, sum) = std::str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
        let number: u32 = number.parse().ok()?;
        (sum == checksum(number)).then_some(number)
    });
    if let Some(number) = noted
        && is_used(place, number)?
        && !number.checked_add(1).map_or(Ok(true), |next| is_used(place, next))?
    {
        return Ok(number);
    }
    let names = place.names()?;
    let numbers = names.iter().flat_map(|name| ENDINGS.iter().filter_map(|ending| number(name, ending)));
    Ok(numbers.map(|id| id.0).max().unwrap_or(0))
}

fn checksum(number: u32) -> String {
    format!("{:08x}", crc32c::crc32c(&number.to_le_bytes()))
}

/// Notes the newest number.
pub(super) fn note_newest(place: &dyn Place, id: OperationId) {
    // Without it the next operation looks through the folder.
    let _noted = place.hint(NEWEST, format!("{:010} {}\n", id.0, checksum(id.0)).as_bytes());
}

/// Durably forgets what was noted, ahead of removing files.
pub(super) fn forget_newest(place: &dyn Place) -> Result<()> {
    const FORGOTTEN: &str = "newest.gone";
    match place.rename(NEWEST, FORGOTTEN) {
        Ok(()) => place.remove(FORGOTTEN).map(drop),
        Err(_) if read_small(place, NEWEST)?.is_none() => Ok(()),
        Err(e) => Err(e),
    }
}

/// The number of the next operation. The number of a journal without a record is not given again: the record may have been
/// lost, and the journal is then the only way back.
pub(super) fn next_id(place: &dyn Place) -> Result<OperationId> {
    let next = newest(place)?.checked_add(1);
    let next = next.ok_or_else(|| Error::limit(Layer::Transaction, "no number is left for an operation"))?;
    Ok(OperationId(next))
}

/// True when the operation has a record, readable or not.
pub(super) fn is_there(place: &dyn Place, id: OperationId) -> Result<bool> {
    Ok(read_small(place, &name(id))?.is_some())
}
