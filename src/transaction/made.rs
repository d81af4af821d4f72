//! The beginning of the history of a new file: a child or a copy that a change was made in. What it was made of stays as it is,
//! so that there is no journal, and nothing to take back in the file itself.

use super::locate::{self, Subject, resolved};
use super::place_for_writing;
use super::record::{self, OperationId, OperationRecord, OperationState, Record};
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{BlockDevice, HostFile};

/// Notes in the history of the new image at `path` which operation made it, and of what.
///
/// # Errors
/// `Busy` when somebody has the file open already; of the host.
pub fn note_made(path: &Path, of: &Path, state_dir: Option<&Path>, record: Record) -> Result<OperationId> {
    let host = Arc::new(HostFile::open_plan(path)?);
    let subject = Subject::new(path, Some(Arc::clone(&host)));
    let (place, is_new) = place_for_writing(&subject, state_dir)?;
    let identity = subject.identity();
    let place = locate::claim(&place, is_new, &subject.path, &host, identity, identity)?;
    let id = record::next_id(&place)?;
    let length = host.geometry().length_bytes;
    let mut operation = OperationRecord::new(id, record, 0, length);
    operation.bytes_changed = length;
    operation.image = Some(identity.clone());
    operation.made_of = Some(resolved(of));
    operation.follows = record::head(&place)?.map(|standing| standing.id);
    operation.enter(&place, OperationState::Done)?;
    record::note_newest(&place, id);
    Ok(id)
}

/// Refuses to undo what made the file.
pub(super) fn refuse_undo(operation: &OperationRecord) -> Result<()> {
    let Some(of) = &operation.made_of else { return Ok(()) };
    Err(Error::refused(Layer::Transaction, "this operation made the file: nothing of before is in it")
        .found(operation.words())
        .advice(format!(
            "remove the file, and the folder with its history, when you do not want it: the operation left {} as it was",
            of.display()
        )))
}
