//! What was done to an image, and the way back: history, undo, redo, recover.
//!
//! Each proves first what the image holds: undo the bytes after, redo the bytes before, recover either of them sector by
//! sector. Anything else is another image, or one that was changed since, and is refused.

use super::journal::{self, Again, Held, Journal, Side, View};
use super::locate::{self, Located, Subject};
use super::place::{FilePlace, Place};
use super::record::{self, OperationId, OperationRecord, OperationState};
use super::{Details, Identity, Record, children, place_for_writing, publish_staged, refuse_unfinished};
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut, HostFile, Overlay, OverlayOptions, WritableDevice};

/// All operations on an image, oldest first.
///
/// # Errors
/// Of reading the image or its state.
pub fn history(path: &Path, state_dir: Option<&Path>) -> Result<Vec<OperationRecord>> {
    match locate::locate(&Subject::peek(path)?, state_dir)? {
        Located::Own(place) => record::all(&place),
        // Another image's history is not this one's.
        Located::New(_) | Located::Foreign { .. } => Ok(Vec::new()),
        gone @ Located::Gone { .. } => Err(locate::refusal(&gone).unwrap_or_else(|| {
            Error::not_found(Layer::Transaction, "the history of this image is not there now").in_file(path)
        })),
    }
}

/// An image that is opened to be brought to another of its states.
struct Opened {
    image: DiskMut,
    place: FilePlace,
    identity: Identity,
}

/// Opens the image alone, finds its state, and proves that no operation on it is unfinished.
fn open(path: &Path, state_dir: Option<&Path>) -> Result<Opened> {
    let host = Arc::new(HostFile::open_write(path)?);
    let subject = Subject::new(path, Some(Arc::clone(&host)));
    let (place, _) = place_for_writing(&subject, state_dir)?;
    refuse_unfinished(&place, path)?;
    let identity = subject.identity().clone();
    Ok(Opened { image: DiskMut::new(host), place, identity })
}

impl Opened {
    /// Refuses to change a parent. The disk that the operation `about` merged into it may stay.
    fn refuse_children(&self, path: &Path, about: Option<&OperationRecord>) -> Result<()> {
        let allowed = about.and_then(|operation| operation.allowed_child.as_deref());
        children::refuse_in(path, &self.image.as_disk(), allowed)
    }
}

/// Brings the image back to what it was before operation `id`, byte for byte; without an id, before the latest one
/// that stands. Operations that came after `id` must be undone first.
///
/// With `force` also when the image was changed since: then the bytes that the operation replaced are put back by an
/// operation of its own, which keeps what it overwrites and never shortens the file; its record is the answer.
///
/// # Errors
/// `NotFound` when there is nothing to undo; `Refused` when the image is in use, between two states, a parent, or was
/// changed since.
pub fn undo(
    path: &Path,
    state_dir: Option<&Path>,
    id: Option<OperationId>,
    force: bool,
    progress: &dyn Progress,
) -> Result<OperationRecord> {
    let opened = open(path, state_dir)?;
    opened.refuse_children(path, record::head(&opened.place)?.as_ref())?;
    undo_as(&opened.place, &opened.image, id, force, Some(opened.identity), progress)
}

/// As [`undo`] of the latest operation that stands, and of all of its session with it, newest first (sessions of version
/// 0.1 have several operations). When it is interrupted, the next call goes on after `recover`. `asked` is the operation
/// that the user was shown: when another one is the latest by now, nothing is undone.
///
/// # Errors
/// As [`undo`]; what was undone before the error stays undone.
pub fn undo_session(
    path: &Path,
    state_dir: Option<&Path>,
    asked: Option<OperationId>,
    force: bool,
    progress: &dyn Progress,
) -> Result<Vec<OperationRecord>> {
    let opened = open(path, state_dir)?;
    opened.refuse_children(path, record::head(&opened.place)?.as_ref())?;
    let (place, image) = (&opened.place, &opened.image);
    let mut undone = vec![undo_as(place, image, asked, force, Some(opened.identity.clone()), progress)?];
    let session = undone[0].session.clone();
    while session.is_some() {
        let next = record::head(place)?.filter(|operation| operation.state == OperationState::Done);
        if next.is_none_or(|next| next.session != session) {
            break;
        }
        undone.push(undo_as(place, image, None, force, Some(opened.identity.clone()), progress)?);
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
    asked: Option<OperationId>,
    progress: &dyn Progress,
) -> Result<Vec<OperationRecord>> {
    let opened = open(path, state_dir)?;
    let (place, image) = (&opened.place, &opened.image);
    let next = next_to_redo(place)?;
    if let (Some(asked), Some(next)) = (asked, &next)
        && asked != next.id
    {
        let what = "another operation is the next to be redone by now";
        return Err(Error::refused(Layer::Transaction, what)
            .in_file(path)
            .expected(format!("operation {asked}"))
            .found(format!("operation {}", next.id)));
    }
    opened.refuse_children(path, next.as_ref())?;
    let mut done = vec![redo_at(place, image, progress)?];
    let session = done[0].session.clone();
    while session.is_some() {
        if next_to_redo(place)?.is_none_or(|next| next.session != session) {
            break;
        }
        done.push(redo_at(place, image, progress)?);
    }
    Ok(done)
}

/// Does the operation again that was undone last.
///
/// # Errors
/// As [`undo`].
pub fn redo(path: &Path, state_dir: Option<&Path>, progress: &dyn Progress) -> Result<OperationRecord> {
    let opened = open(path, state_dir)?;
    opened.refuse_children(path, next_to_redo(&opened.place)?.as_ref())?;
    redo_at(&opened.place, &opened.image, progress)
}

/// What `recover` made of an operation.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The operation, as it is now.
    pub operation: OperationRecord,
    /// The image was written.
    pub written: bool,
}

/// Finishes the operation that was interrupted; `None` when there is none. First it is proved that the image holds, wherever
/// the operation touches it, the bytes before, the bytes after, or whole sectors of both.
///
/// # Errors
/// `Refused` when the image holds something else, is another one, or is a parent; `Damaged` when the journal is; otherwise
/// of the host.
pub fn recover(path: &Path, state_dir: Option<&Path>, progress: &dyn Progress) -> Result<Option<Recovered>> {
    // Looked at first, so that an image without an interrupted operation need not be writable.
    let subject = Subject::peek(path)?;
    match locate::locate(&subject, state_dir)? {
        Located::New(_) => return Ok(None),
        Located::Own(place) if record::unfinished(&place)?.is_none() => return Ok(None),
        _ => {}
    }
    let host = Arc::new(HostFile::open_write(path)?);
    let subject = Subject::new(path, Some(Arc::clone(&host)));
    let (place, _) = place_for_writing(&subject, state_dir)?;
    let identity = subject.identity().clone();
    let opened = Opened { image: DiskMut::new(host), place, identity };
    let unfinished = record::unfinished(&opened.place)?;
    opened.refuse_children(path, unfinished.as_ref())?;
    recover_as(&opened.place, &opened.image, Some(&opened.identity), progress)
        .map_err(|e| if e.file().is_none() { e.in_file(path) } else { e })
}

/// The journal of an operation, and the proof that it is this operation's.
fn journal_of(place: &dyn Place, operation: &OperationRecord, view: View) -> Result<Journal> {
    if operation.journal_removed {
        return Err(Error::refused(Layer::Transaction, "this operation can no longer be undone or redone")
            .found(operation.words())
            .advice("`vmrescue history gc` removed its journal"));
    }
    let journal = Journal::open(place, operation.id, view).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::refused(Layer::Transaction, "the journal of the operation is missing")
            .found(operation.words())
            .caused_by(e)
            .advice(
                "put the state folder back from a copy, or `vmrescue recover IMAGE --abandon` closes the operation and leaves \
                 the image as it is",
            ),
        _ => e,
    })?;
    match operation.hashes() {
        Some(hashes) if !journal.is_of(&hashes)? => {
            Err(Error::damaged(Layer::Transaction, "the journal belongs to another operation")
                .found(operation.words())
                .advice(
                    "`vmrescue recover IMAGE --abandon` closes the operation and leaves the image as it is",
                ))
        }
        _ => Ok(journal),
    }
}

/// For the crash tests, which have no file.
#[cfg(any(test, feature = "testing"))]
pub(super) fn undo_at(
    place: &dyn Place,
    image: &DiskMut,
    id: Option<OperationId>,
    force: bool,
    progress: &dyn Progress,
) -> Result<OperationRecord> {
    undo_as(place, image, id, force, None, progress)
}

/// The operation that an undo without a number means. With `force` one that stands below operations that put back others
/// by force: they are not taken back by that.
fn to_undo(place: &dyn Place, force: bool) -> Result<Option<OperationRecord>> {
    let mut taken_back = Vec::new();
    for found in record::newest_first(place)? {
        let operation = found?;
        if operation.state != OperationState::Done {
            continue;
        }
        if force && let Some(other) = operation.undoes {
            taken_back.push(other);
        } else if !taken_back.contains(&operation.id) {
            return Ok(Some(operation));
        }
    }
    Ok(None)
}

fn undo_as(
    place: &dyn Place,
    image: &DiskMut,
    id: Option<OperationId>,
    force: bool,
    identity: Option<Identity>,
    progress: &dyn Progress,
) -> Result<OperationRecord> {
    let Some(mut operation) = to_undo(place, force)? else {
        return Err(Error::not_found(Layer::Transaction, "there is no operation to undo"));
    };
    if let Some(id) = id.filter(|id| *id != operation.id) {
        return Err(Error::refused(
            Layer::Transaction,
            "only the latest operation that stands can be undone",
        )
        .expected(format!("operation {}", operation.id))
        .found(format!("operation {id}"))
        .advice("undo the later operations first, one after the other"));
    }
    super::made::refuse_undo(&operation)?;
    let journal = journal_of(place, &operation, View::Whole)?;
    let is_latest = record::head(place)?.is_some_and(|head| head.id == operation.id);
    if !is_latest || !journal.matches(&image.as_disk(), Side::After)? {
        if !force {
            return Err(changed_since(&operation));
        }
        return put_back(place, image, &operation, &journal, identity, progress);
    }
    progress.begin("writing the image", Some(journal.touched_bytes()));
    operation.enter(place, OperationState::Undoing)?;
    let applied = journal.apply(image, Side::Before, Again::FromMedium, progress);
    progress.end();
    applied?;
    operation.enter(place, OperationState::Undone)?;
    Ok(operation)
}

/// Puts the bytes that an operation replaced back over an image that was changed since, as an operation of its own.
fn put_back(
    place: &dyn Place,
    image: &DiskMut,
    operation: &OperationRecord,
    journal: &Journal,
    identity: Option<Identity>,
    progress: &dyn Progress,
) -> Result<OperationRecord> {
    let base = image.as_disk();
    let overlay = Overlay::new(base.clone(), OverlayOptions { memory_bytes: usize::MAX, spill_dir: None })?;
    let staged = DiskMut::new(Arc::clone(&overlay) as Arc<dyn WritableDevice>);
    let length = journal.length(Side::Before);
    // What the machine appended since is in use: the file is never made shorter.
    if staged.len() < length {
        staged.set_length(length)?;
    }
    journal.write_side(&staged, Side::Before, length, progress)?;
    let ranges = overlay.dirty_ranges()?;
    if ranges.is_empty() && staged.len() == base.len() {
        let mut operation = operation.clone();
        operation.enter(place, OperationState::Undone)?;
        return Ok(operation);
    }
    let record = Record {
        title: format!("put back by force what {} replaced", operation.words()),
        command: operation.command.clone(),
        plan: serde_json::json!([format!("undo --force of operation {}", operation.id)]),
        changes: serde_json::json!([{"change": "undo-by-force", "operation": operation.id}]),
        session: None,
    };
    let allowed_child = operation.allowed_child.clone();
    let details = Details { record, image: identity, allowed_child, undoes: Some(operation.id) };
    let id = publish_staged(place, image, &staged.as_disk(), &ranges, details, progress)?;
    record::load(place, id)
}

/// The operation that `redo` would do again, of a history from its oldest to its newest operation: the one that was undone
/// last, when nothing was done since.
pub fn next_of(history: &[OperationRecord]) -> Option<&OperationRecord> {
    let is_gone =
        |one: &&OperationRecord| matches!(one.state, OperationState::Undone | OperationState::Abandoned);
    let stands = history.iter().rev().find(|one| !is_gone(one)).map(|one| one.id);
    let newest_first =
        || history.iter().rev().take_while(is_gone).filter(|one| one.state == OperationState::Undone);
    // The newest that goes on from what stands; records of version 0.1 do not say, there the oldest comes first.
    let goes_on = newest_first().find(|one| one.follows == stands && one.image.is_some());
    goes_on.or_else(|| newest_first().last())
}

fn next_to_redo(place: &dyn Place) -> Result<Option<OperationRecord>> {
    let mut back: Vec<OperationRecord> = Vec::new();
    for found in record::newest_first(place)? {
        let operation = found?;
        let is_gone = matches!(operation.state, OperationState::Undone | OperationState::Abandoned);
        back.push(operation);
        if !is_gone {
            break;
        }
    }
    back.reverse();
    Ok(next_of(&back).cloned())
}

fn redo_at(place: &dyn Place, image: &DiskMut, progress: &dyn Progress) -> Result<OperationRecord> {
    let Some(mut operation) = next_to_redo(place)? else {
        return Err(Error::not_found(Layer::Transaction, "there is no undone operation to do again"));
    };
    let journal = journal_of(place, &operation, View::Whole)?;
    if !journal.matches(&image.as_disk(), Side::Before)? {
        return Err(changed_since(&operation));
    }
    progress.begin("writing the image", Some(journal.touched_bytes()));
    operation.enter(place, OperationState::Redoing)?;
    let applied = journal.apply(image, Side::After, Again::FromMedium, progress);
    progress.end();
    applied?;
    operation.enter(place, OperationState::Done)?;
    Ok(operation)
}

/// For the crash tests, which have no file.
#[cfg(any(test, feature = "testing"))]
pub(super) fn recover_at(
    place: &dyn Place,
    image: &DiskMut,
    progress: &dyn Progress,
) -> Result<Option<OperationRecord>> {
    Ok(recover_as(place, image, None, progress)?.map(|recovered| recovered.operation))
}

fn recover_as(
    place: &dyn Place,
    image: &DiskMut,
    identity: Option<&Identity>,
    progress: &dyn Progress,
) -> Result<Option<Recovered>> {
    let Some(mut operation) = record::unfinished(place)? else { return Ok(None) };
    let (view, side, state) = match operation.state {
        OperationState::Undoing => (View::Whole, Side::Before, OperationState::Undone),
        OperationState::Redoing => (View::Whole, Side::After, OperationState::Done),
        // A record that cannot be read: the journal alone says what was to happen.
        _ => (View::LastPart, Side::After, OperationState::Done),
    };
    let journal = journal_of(place, &operation, view)?;
    let held = journal.held(&image.as_disk())?;
    if let Held::Neither { offset, what } = held {
        return Err(not_this_image(&operation, offset, &what));
    }
    if operation.state == OperationState::Unreadable {
        // The pieces stay: the record may be of use to somebody.
        if record::is_there(place, operation.id)? {
            place.rename(&record::name(operation.id), &format!("{}.damaged", record::name(operation.id)))?;
        }
        operation.length_before = journal.length(Side::Before);
        operation.length_after = journal.length(Side::After);
        operation.bytes_changed = journal.touched_bytes();
        if held == Held::Before {
            operation.enter(place, OperationState::Undone)?;
            return Ok(Some(Recovered { operation, written: false }));
        }
    }
    // A restored backup holds what was there before, and never heard of the operation.
    let other_file = match (operation.image.as_ref().and_then(|image| image.file), identity) {
        (Some(known), Some(found)) => found.file.is_some_and(|found| found != known),
        _ => false,
    };
    if side == Side::After && held == Held::Before && other_file && operation.session.is_none() {
        operation.enter(place, OperationState::Undone)?;
        return Ok(Some(Recovered { operation, written: false }));
    }
    progress.begin("writing the image", Some(journal.touched_bytes()));
    let applied = journal.apply(image, side, Again::FromMedium, progress);
    progress.end();
    applied?;
    operation.enter(place, state)?;
    Ok(Some(Recovered { operation, written: true }))
}

fn not_this_image(operation: &OperationRecord, offset: u64, what: &str) -> Error {
    Error::refused(
        Layer::Transaction,
        "the image is not the one that the operation was interrupted on, or was changed since",
    )
    .at(offset)
    .expected(format!(
        "the bytes before or after {} there, {}",
        operation.words(),
        operation.image.as_ref().map_or("on the image of that time".to_string(), |image| {
            format!("on {}", image.words())
        })
    ))
    .found(what)
    .advice(
        "nothing was written. When the image was restored or replaced and is right as it is, \
         `vmrescue recover IMAGE --abandon` closes the operation; otherwise put the interrupted image back and recover it",
    )
}

fn changed_since(operation: &OperationRecord) -> Error {
    Error::refused(Layer::Transaction, "the image was changed since this operation")
        .found(operation.words())
        .advice(
            "the machine was probably started, or another tool wrote to the disk; putting old bytes back could \
             damage it. `--force` does it anyway, as an operation that can be undone itself",
        )
}

/// What an image holds of an operation that was interrupted, for people.
pub(super) fn held_words(place: &dyn Place, operation: &OperationRecord, image: &Disk) -> String {
    let view = match operation.state {
        OperationState::Undoing | OperationState::Redoing => View::Whole,
        _ => View::LastPart,
    };
    match Journal::open(place, operation.id, view).and_then(|journal| journal.held(image)) {
        Ok(Held::Before) => "the image holds everywhere what was there before the operation".into(),
        Ok(Held::After) => "the image holds everywhere what the operation wrote".into(),
        Ok(Held::Mixed) => {
            "the image holds a part of what the operation wrote: it is between two states, and may not open"
                .into()
        }
        Ok(Held::Neither { offset, .. }) => format!(
            "at {offset:#x} the image holds what the operation neither found nor wrote: it is another image, or was changed \
             since"
        ),
        Err(e) => format!("what the image holds of the operation cannot be told: {e}"),
    }
}

/// Name of the journal of an operation, in its state folder.
pub(super) fn journal_name(id: OperationId) -> String {
    journal::name(id)
}
