//! What was done to an image, and the way back.

use super::identity::say_of_file;
use super::progress::Bars;
use super::{CLEAN, agreed, say, say_json};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use vmrescue_base::error::Result;
use vmrescue_base::time::FileTime;
use vmrescue_transaction as transaction;
use vmrescue_transaction::{OperationId, OperationRecord};

/// The image whose operations are meant.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// The image
    image: PathBuf,
    /// Folder for journals and history, instead of beside the image
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn history(at: &Where) -> Result<u8> {
    let operations = transaction::history(&at.image, at.state_dir.as_deref())?;
    if at.json {
        say_of_file(&at.image, "history", json!({"operations": operations}))?;
        return Ok(CLEAN);
    }
    if operations.is_empty() {
        say("nothing was ever done to this image by vmrescue")?;
    }
    for operation in &operations {
        let when =
            operation.events.last().map(|event| FileTime::from_unix_seconds(event.unix_seconds).to_string());
        let when = when.unwrap_or_default();
        let when = when.get(..19).unwrap_or(&when);
        say(&format!("{}  {when}  {:<12} {}", operation.id, operation.state.words(), operation.title))?;
    }
    Ok(CLEAN)
}

fn tell(at: &Where, what: &str, operation: &OperationRecord) -> Result<u8> {
    if at.json {
        say_json(what, json!({"operation": operation}))?;
    } else {
        let bytes = operation.bytes_changed;
        say(&format!("{what}: operation {} ({}), {bytes} bytes", operation.id, operation.title))?;
    }
    Ok(CLEAN)
}

/// One operation, or all of a session: then `operation` is the oldest of them, and `operations` has all.
fn tell_all(at: &Where, what: &str, all: &[OperationRecord]) -> Result<u8> {
    match all {
        [only] => tell(at, what, only),
        _ if at.json => {
            let oldest = all.iter().min_by_key(|operation| operation.id);
            say_json(what, json!({"operation": oldest, "operations": all}))?;
            Ok(CLEAN)
        }
        _ => {
            let bytes: u64 = all.iter().map(|operation| operation.bytes_changed).sum();
            let title = all.first().map(|operation| operation.title.as_str()).unwrap_or_default();
            say(&format!("{what}: {} operations of one session ({title}), {bytes} bytes", all.len()))?;
            Ok(CLEAN)
        }
    }
}

pub(super) fn undo(at: &Where, id: Option<u32>, yes: bool, force: bool) -> Result<u8> {
    if !agreed(yes, "Undo the operation?")? {
        say("nothing was written")?;
        return Ok(CLEAN);
    }
    let (state_dir, bars) = (at.state_dir.as_deref(), Bars::new());
    match id.map(OperationId) {
        None => tell_all(at, "undone", &transaction::undo_session(&at.image, state_dir, force, &bars)?),
        id => tell(at, "undone", &transaction::undo(&at.image, state_dir, id, force, &bars)?),
    }
}

pub(super) fn redo(at: &Where, yes: bool) -> Result<u8> {
    if !agreed(yes, "Do the operation again?")? {
        say("nothing was written")?;
        return Ok(CLEAN);
    }
    tell_all(at, "done again", &transaction::redo_session(&at.image, at.state_dir.as_deref(), &Bars::new())?)
}

pub(super) fn recover(at: &Where) -> Result<u8> {
    match transaction::recover(&at.image, at.state_dir.as_deref(), &Bars::new())? {
        Some(operation) => tell(at, "recovered", &operation),
        None => {
            if at.json {
                say_json("recovered", json!({"operation": null}))?;
            } else {
                say("nothing to recover: no operation was interrupted")?;
            }
            Ok(CLEAN)
        }
    }
}
