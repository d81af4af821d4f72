//! What is remembered of an operation: `<id>.json` in the state folder.

use super::place::{Place, read_small};
use serde::{Deserialize, Serialize};
use std::fmt;
use vmrescue_base::error::{Error, Layer, Result};
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
    /// Operations with the same word belong together (all of one mount): undo takes them back together.
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
}

impl OperationState {
    /// True while the image is between two states.
    pub fn is_unfinished(self) -> bool {
        matches!(self, OperationState::Publishing | OperationState::Undoing)
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            OperationState::Publishing => "being written",
            OperationState::Done => "done",
            OperationState::Undoing => "being undone",
            OperationState::Undone => "undone",
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
        }
    }

    /// Notes a state, durably.
    pub(super) fn enter(&mut self, place: &dyn Place, state: OperationState) -> Result<()> {
        self.state = state;
        self.events.push(Event { unix_seconds: FileTime::now().unix_seconds(), state });
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::invalid(Layer::Transaction, "the record cannot be written").caused_by(e))?;
        place.write(&format!("{}.json", self.id), &mut |out| {
            out.write_all(&text).map_err(|e| Error::io("the record cannot be written", "record", e))
        })
    }
}

/// All operations, oldest first.
pub(super) fn all(place: &dyn Place) -> Result<Vec<OperationRecord>> {
    let names = place.names()?;
    let records = names.iter().filter(|name| name.ends_with(".json"));
    records
        .map(|name| {
            let bytes = read_small(place, name)?.unwrap_or_default();
            serde_json::from_slice(&bytes).map_err(|e| {
                Error::damaged(Layer::Transaction, format!("the record {name} is damaged")).caused_by(e)
            })
        })
        .collect()
}

/// The number of the next operation. A journal without a record (a crash before publishing) gives its number again.
pub(super) fn next_id(place: &dyn Place) -> Result<OperationId> {
    Ok(OperationId(all(place)?.last().map_or(0, |last| last.id.0) + 1))
}
