//! What was done to an image, and the way back: history, undo, redo, recover.

use super::journal::{Journal, Side};
use super::place::{FilePlace, Place};
use super::record::{self, OperationId, OperationRecord, OperationState};
use super::refuse_unfinished;
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{DiskMut, HostFile};

/// All operations on an image, oldest first.
///
/// # Errors
/// Of reading the state folder.
pub fn history(path: &Path, state_dir: Option<&Path>) -> Result<Vec<OperationRecord>> {
    record::all(&FilePlace::new(path, state_dir))
}

/// Brings the image back to what it was before operation `id`, byte for byte; without an id, before the latest one
/// that stands. Operations that came after `id` must be undone first.
///
/// # Errors
/// `NotFound` when there is nothing to undo; `Refused` when the image is in use, between two states, or was changed
/// since (`force` overrides the last: the bytes that the operation touched are put back, nothing else).
pub fn undo(
    path: &Path,
    state_dir: Option<&Path>,
    id: Option<OperationId>,
    force: bool,
    progress: &dyn Progress,
) -> Result<OperationRecord> {
    let place = FilePlace::new(path, state_dir);
    refuse_unfinished(&place)?;
    let image = DiskMut::new(Arc::new(HostFile::open_write(path)?));
    undo_at(&place, &image, id, force, progress)
}

/// As [`undo`] of the latest operation that stands, and of all of its session with it, newest first. When it is
/// interrupted, the next call goes on after `recover`.
///
/// # Errors
/// As [`undo`]; what was undone before the error stays undone.
pub fn undo_session(
    path: &Path,
    state_dir: Option<&Path>,
    force: bool,
    progress: &dyn Progress,
) -> Result<Vec<OperationRecord>> {
    let place = FilePlace::new(path, state_dir);
    refuse_unfinished(&place)?;
    let image = DiskMut::new(Arc::new(HostFile::open_write(path)?));
    let mut undone = vec![undo_at(&place, &image, None, force, progress)?];
    let session = undone[0].session.clone();
    while session.is_some() {
        let next =
            record::all(&place)?.into_iter().rfind(|operation| operation.state == OperationState::Done);
        if next.is_none_or(|next| next.session != session) {
            break;
        }
        undone.push(undo_at(&place, &image, None, force, progress)?);
    }
    Ok(undone)
}

/// As [`redo`], with all that was undone of the same session, oldest first.
///
/// # Errors
/// As [`redo`].
pub fn redo_session(
    path: &Path,
    state_dir: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Vec<OperationRecord>> {
    let place = FilePlace::new(path, state_dir);
    refuse_unfinished(&place)?;
    let image = DiskMut::new(Arc::new(HostFile::open_write(path)?));
    let mut done = vec![redo_at(&place, &image, progress)?];
    let session = done[0].session.clone();
    while session.is_some() {
        let operations = record::all(&place)?;
        let stand = operations.iter().rposition(|operation| operation.state == OperationState::Done);
        let next = operations.get(stand.map_or(0, |place| place + 1));
        if next.is_none_or(|next| next.session != session || next.state != OperationState::Undone) {
            break;
        }
        done.push(redo_at(&place, &image, progress)?);
    }
    Ok(done)
}

/// Does the operation again that was undone last.
///
/// # Errors
/// As [`undo`].
pub fn redo(path: &Path, state_dir: Option<&Path>, progress: &dyn Progress) -> Result<OperationRecord> {
    let place = FilePlace::new(path, state_dir);
    refuse_unfinished(&place)?;
    let image = DiskMut::new(Arc::new(HostFile::open_write(path)?));
    redo_at(&place, &image, progress)
}

/// Finishes the operation that was interrupted; `None` when there is none.
///
/// # Errors
/// `Damaged` when the journal is; otherwise of the host.
pub fn recover(
    path: &Path,
    state_dir: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Option<OperationRecord>> {
    let place = FilePlace::new(path, state_dir);
    if !record::all(&place)?.iter().any(|operation| operation.state.is_unfinished()) {
        return Ok(None);
    }
    let image = DiskMut::new(Arc::new(HostFile::open_write(path)?));
    recover_at(&place, &image, progress)
}

pub(super) fn undo_at(
    place: &dyn Place,
    image: &DiskMut,
    id: Option<OperationId>,
    force: bool,
    progress: &dyn Progress,
) -> Result<OperationRecord> {
    let operations = record::all(place)?;
    let standing = operations.iter().rfind(|operation| operation.state == OperationState::Done);
    let Some(latest) = standing else {
        return Err(Error::not_found(Layer::Transaction, "there is no operation to undo"));
    };
    if let Some(id) = id.filter(|id| *id != latest.id) {
        return Err(Error::refused(
            Layer::Transaction,
            "only the latest operation that stands can be undone",
        )
        .expected(format!("operation {}", latest.id))
        .found(format!("operation {id}"))
        .advice("undo the later operations first, one after the other"));
    }
    let mut operation = latest.clone();
    let journal = Journal::open(place, operation.id)?;
    if !force && !journal.matches(&image.as_disk(), Side::After)? {
        return Err(changed_since(&operation));
    }
    operation.enter(place, OperationState::Undoing)?;
    journal.apply(image, Side::Before, progress)?;
    operation.enter(place, OperationState::Undone)?;
    Ok(operation)
}

pub(super) fn redo_at(
    place: &dyn Place,
    image: &DiskMut,
    progress: &dyn Progress,
) -> Result<OperationRecord> {
    let operations = record::all(place)?;
    // Undone operations after the latest that stands; the first of them was undone last.
    let stand = operations.iter().rposition(|operation| operation.state == OperationState::Done);
    let Some(next) = operations.get(stand.map_or(0, |place| place + 1)) else {
        return Err(Error::not_found(Layer::Transaction, "there is no undone operation to do again"));
    };
    let mut operation = next.clone();
    let journal = Journal::open(place, operation.id)?;
    if !journal.matches(&image.as_disk(), Side::Before)? {
        return Err(changed_since(&operation));
    }
    operation.enter(place, OperationState::Publishing)?;
    journal.apply(image, Side::After, progress)?;
    operation.enter(place, OperationState::Done)?;
    Ok(operation)
}

pub(super) fn recover_at(
    place: &dyn Place,
    image: &DiskMut,
    progress: &dyn Progress,
) -> Result<Option<OperationRecord>> {
    let unfinished = record::all(place)?.into_iter().find(|operation| operation.state.is_unfinished());
    let Some(mut operation) = unfinished else { return Ok(None) };
    let journal = Journal::open(place, operation.id)?;
    let (side, state) = match operation.state {
        OperationState::Undoing => (Side::Before, OperationState::Undone),
        _ => (Side::After, OperationState::Done),
    };
    journal.apply(image, side, progress)?;
    operation.enter(place, state)?;
    Ok(Some(operation))
}

fn changed_since(operation: &OperationRecord) -> Error {
    Error::refused(Layer::Transaction, "the image was changed since this operation")
        .found(format!("operation {} ({})", operation.id, operation.title))
        .advice(
            "the machine was probably started, or another tool wrote to the disk; putting old bytes back could \
             damage it. `--force` does it anyway",
        )
}
