//! Stage, publish, undo, recover: the only room that writes to an image.
//!
//! One handle goes from opening to publishing, and its types hold the order: [`Locked`] (opened, locked, free of unfinished
//! operations, children and severe damage) can only be read: plans are made and agreed to here; [`Locked::stage`] makes a
//! [`Transaction`] of it, which can be written in memory (an [`Overlay`] over the host file); [`Transaction::verify`] seals
//! it, checks the container and whatever the caller looks at, and makes a [`Verified`]: the only thing that can be published.
//! Nothing opens the path again. [`Verified::publish`] turns what differs into a list of ranges of the host file and writes
//! them through one journal (`docs/durability.md`):
//!
//! 1. the journal (bytes before and after, each with a checksum) is written and made durable;
//! 2. the operation's record, which says which image it is, says "publishing"; from here on the operation will happen;
//! 3. the bytes after are written and made durable; the record says "done".
//!
//! A crash before step 2 leaves the old image; after it, [`recover`] finishes, after it has proved that the image holds the
//! bytes before or after, sector by sector. [`undo`] and [`redo`] write the journal's other side under the same rule. All of
//! it is idempotent.
//! A new file (a child, a copy) needs no journal; [`note_made`] gives it the beginning of its history.

mod children;
mod history;
mod identity;
mod journal;
mod locate;
mod made;
mod maintenance;
mod place;
#[cfg(test)]
mod proof_tests;
mod record;
#[cfg(test)]
mod stage_tests;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod verified;

pub use children::refuse_children;
pub use history::{Recovered, history, next_of, recover, redo, redo_session, undo, undo_session};
pub use identity::{HostId, Identity};
pub use locate::state_dir_of;
pub use made::note_made;
pub use maintenance::{Abandoned, Collected, abandon, gc};
pub use place::{Content, FilePlace, Place, sync_folder, write_durably, write_privately};
pub use record::{Event, OperationId, OperationRecord, OperationState, Record};
pub use verified::{Verified, VerifiedPart, View};

use journal::{Again, Journal, Side};
use locate::{Located, Subject};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_block::{
    Disk, DiskMut, FileStamp, HostFile, Overlay, OverlayOptions, SavepointId, WritableDevice,
};
use vmrescue_image as image;

/// A raw disk says who it is in its first sectors.
const TABLE_BYTES: u64 = 64 << 10;

/// Where the state lies and how the image is opened.
#[derive(Debug, Clone, Default)]
pub struct TransactionOptions {
    /// Folder that holds the state folders; beside the image by default.
    pub state_dir: Option<PathBuf>,
    /// Memory for staged pages; the default of `limits` when absent.
    pub memory_bytes: Option<usize>,
    /// Nothing will be published: a file that may not be written will do.
    pub plan_only: bool,
    /// The result goes into a new file: differencing disks of the image do not matter. Only with `plan_only`.
    pub elsewhere: bool,
    /// A differencing disk of the image that may be there: the one that is merged into it.
    pub allowed_child: Option<PathBuf>,
}

/// An image that is open and locked, and can be read: the ground on which a change is planned and agreed to.
pub struct Locked(Transaction);

/// Changes to one image that nobody sees until they are verified and published; dropping it forgets them.
pub struct Transaction {
    host: Arc<HostFile>,
    /// Without links.
    path: PathBuf,
    place: FilePlace,
    /// The folder of the state is not there yet.
    is_new: bool,
    identity: Identity,
    overlay: Arc<Overlay>,
    stamp: FileStamp,
    allowed_child: Option<PathBuf>,
    session: Option<OpenSession>,
    /// What is wrong with the container that the image is now.
    container: Vec<Defect>,
}

/// The operation of a session, which grows with each publish.
struct OpenSession {
    operation: OperationRecord,
    /// End of its journal, and parts in it.
    end: u64,
    parts: u32,
    /// Where the last part begins, when it was not written to its end.
    unfinished: Option<u64>,
}

fn refuse_device_without_folder(path: &Path, options: &TransactionOptions) -> Result<()> {
    let is_device = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
    if options.state_dir.is_some() || !is_device {
        return Ok(());
    }
    // What lies beside a device is gone with the next start of this machine, and the way back with it.
    Err(Error::refused(Layer::Transaction, "a disk of this machine has no folder beside it for the journal")
        .in_file(path)
        .advice("name a folder on another disk with --state-dir"))
}

impl Locked {
    /// Opens and locks the image. Nothing is written, not even a state folder.
    ///
    /// # Errors
    /// `Busy` when the image is in use; `Refused` when an operation on it never finished (`recover` is the way out), when
    /// it has, or may have, a differencing disk that a change would break, or when its container is severely damaged.
    pub fn open(path: &Path, options: &TransactionOptions) -> Result<Locked> {
        refuse_device_without_folder(path, options)?;
        let host = if options.plan_only { HostFile::open_plan(path) } else { HostFile::open_write(path) };
        let host = Arc::new(host?);
        let subject = Subject::new(path, Some(Arc::clone(&host)));
        let (place, is_new) = place_for_writing(&subject, options.state_dir.as_deref())?;
        refuse_unfinished(&place, path)?;
        let before = Disk::new(Arc::clone(&host) as Arc<_>);
        if !(options.elsewhere && options.plan_only) {
            children::refuse_in(path, &before, options.allowed_child.as_deref())?;
        }
        let container = image::check(&before).map_err(|e| e.in_file(path))?;
        if container.iter().any(|defect| defect.severity == Severity::Error) {
            image::refuse_damaged(&before).map_err(|e| e.in_file(path))?;
        }
        let overlay = Overlay::new(
            before,
            OverlayOptions {
                memory_bytes: options.memory_bytes.unwrap_or(vmrescue_base::limits::OVERLAY_MEMORY_BYTES),
                spill_dir: options.state_dir.as_deref().filter(|dir| dir.is_dir()).or(path.parent()).map(
                    |dir| {
                        if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_path_buf() }
                    },
                ),
            },
        )?;
        let stamp = host.stamp()?;
        Ok(Locked(Transaction {
            identity: subject.identity().clone(),
            path: subject.path,
            host,
            place,
            is_new,
            overlay,
            stamp,
            allowed_child: options.allowed_child.clone(),
            session: None,
            container,
        }))
    }

    /// Path of the image.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The host file as it is.
    pub fn before(&self) -> Disk {
        self.0.before()
    }

    /// Begins to stage, on the handle that was locked and read.
    pub fn stage(self) -> Transaction {
        self.0
    }
}

impl Transaction {
    /// The host file with everything staged so far; container writers work on it.
    pub fn file(&self) -> DiskMut {
        DiskMut::new(Arc::clone(&self.overlay) as Arc<dyn WritableDevice>)
    }

    /// Path of the image.
    pub fn path(&self) -> &Path {
        self.host.path()
    }

    /// The host file as it was before anything was staged.
    pub fn before(&self) -> Disk {
        Disk::new(Arc::clone(&self.host) as Arc<_>)
    }

    /// Marks the present state of staging.
    pub fn savepoint(&self) -> SavepointId {
        self.overlay.savepoint()
    }

    /// Forgets what was staged after the savepoint.
    ///
    /// # Errors
    /// `Invalid` when the savepoint is gone.
    pub fn rollback(&self, id: SavepointId) -> Result<()> {
        self.overlay.rollback(id)
    }

    /// Bytes of the host file that publishing would change.
    ///
    /// # Errors
    /// Of reading the image.
    pub fn changed_bytes(&self) -> Result<u64> {
        let ranges = self.overlay.dirty_ranges()?;
        Ok(ranges.iter().map(|range| range.end - range.start).sum())
    }

    /// Bytes of staged pages, whether they differ from the image or not.
    pub fn staged_bytes(&self) -> u64 {
        self.overlay.staged_bytes()
    }

    /// Refuses when the file is not the one that was opened, or was written, cut or replaced by somebody else meanwhile.
    fn refuse_changed(&self) -> Result<()> {
        let found = self.host.stamp()?;
        let why = if !self.host.is_still_there()? {
            "another file lies there now"
        } else if found.length_bytes != self.stamp.length_bytes {
            "its length changed"
        } else if found != self.stamp {
            "it was written to"
        } else {
            return Ok(());
        };
        Err(Error::refused(Layer::Transaction, "the image was changed by another program meanwhile")
            .in_file(self.host.path())
            .found(why)
            .advice("nothing was written; run the command again on the image as it is now"))
    }

    /// The image through the handle that was opened.
    fn image(&self) -> DiskMut {
        DiskMut::new(Arc::clone(&self.host) as Arc<dyn WritableDevice>)
    }

    fn details(&self, record: Record) -> Details {
        Details {
            record,
            image: Some(self.identity.clone()),
            allowed_child: self.allowed_child.clone(),
            undoes: None,
        }
    }

    /// Says whose the state is, ahead of the first byte of it.
    fn claim(&mut self, staged: &Disk) -> Result<()> {
        let after = Identity::in_content(staged);
        self.place = locate::claim(&self.place, self.is_new, &self.path, &self.host, &self.identity, &after)?;
        self.is_new = false;
        Ok(())
    }

    /// See [`VerifiedPart::publish`].
    fn publish_so_far(&mut self, record: Record, progress: &dyn Progress) -> Result<Option<OperationId>> {
        self.refuse_changed()?;
        let published = self.publish_part(record, progress);
        // Whatever was written was written by us.
        self.stamp = self.host.stamp()?;
        if published.is_ok() {
            self.overlay.forget();
        }
        published
    }

    fn publish_part(&mut self, record: Record, progress: &dyn Progress) -> Result<Option<OperationId>> {
        self.finish_part(progress)?;
        let ranges = self.overlay.dirty_ranges()?;
        let staged = self.file().as_disk();
        if ranges.is_empty() && staged.len() == self.before().len() {
            return Ok(None);
        }
        if self.session.as_ref().is_some_and(|open| open.operation.session != record.session) {
            self.finish()?;
        }
        // A client may have given the disk another id.
        if self.session.is_some() && ranges.first().is_some_and(|first| first.start < TABLE_BYTES) {
            self.claim(&staged)?;
        }
        let image = self.image();
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let Some(open) = &mut self.session else {
            self.claim(&staged)?;
            let is_session = record.session.is_some();
            let details = self.details(record);
            let begun = begin_operation(&self.place, &image, &staged, &ranges, details, progress)?;
            let id = begun.id;
            self.session = Some(OpenSession { operation: begun, end: 0, parts: 1, unfinished: Some(0) });
            self.finish_part(progress)?;
            if !is_session {
                self.finish()?;
            }
            return Ok(Some(id));
        };
        let (id, start) = (open.operation.id, open.end);
        let end = self.place.append(&journal::name(id), start, &mut |out| {
            journal::write(out, &image, &staged, &ranges).map(drop)
        })?;
        open.unfinished = Some(start);
        open.end = end;
        open.parts += 1;
        open.operation.length_after = staged.len();
        open.operation.bytes_changed += bytes;
        open.operation.changes = record.changes;
        self.finish_part(progress)?;
        Ok(Some(id))
    }

    /// Writes the part of the session's journal into the image that is not there yet, and marks it.
    fn finish_part(&mut self, progress: &dyn Progress) -> Result<()> {
        let image = self.image();
        let Some(open) = &mut self.session else { return Ok(()) };
        let Some(start) = open.unfinished else { return Ok(()) };
        let (id, number) = (open.operation.id, open.parts - 1);
        let part = Journal::open_part(&self.place, id, start, number)?;
        progress.begin("writing the image", Some(part.touched_bytes()));
        let applied = part.apply(&image, Side::After, Again::FromMemory, progress);
        progress.end();
        applied?;
        open.end = part.end();
        // Not waited for: without it the part is written once more, with the same bytes.
        self.place.note(&journal::name(id), open.end, &journal::mark(number))?;
        open.end += journal::MARK_BYTES;
        open.unfinished = None;
        Ok(())
    }

    /// Closes the operation of a session: its record says what became of it.
    ///
    /// # Errors
    /// Of the host; the image holds everything that was published.
    pub fn finish(&mut self) -> Result<()> {
        match self.session.take() {
            Some(mut open) if open.unfinished.is_none() => {
                open.operation.enter(&self.place, OperationState::Done)
            }
            // What could not be written waits for `recover`.
            Some(_) | None => Ok(()),
        }
    }

    /// See [`Verified::publish`].
    fn publish(mut self, record: Record, progress: &dyn Progress) -> Result<Option<OperationId>> {
        self.refuse_changed()?;
        let ranges = self.overlay.dirty_ranges()?;
        let staged = self.file().as_disk();
        if ranges.is_empty() && staged.len() == self.before().len() {
            return Ok(None);
        }
        self.claim(&staged)?;
        let details = self.details(record);
        publish_staged(&self.place, &self.image(), &staged, &ranges, details, progress).map(Some)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // Without it the marks in the journal say the same; nobody is left to be told.
        let _closed = self.finish();
    }
}

/// What an operation is about to be.
#[derive(Default)]
pub(crate) struct Details {
    record: Record,
    image: Option<Identity>,
    allowed_child: Option<PathBuf>,
    undoes: Option<OperationId>,
}

impl From<Record> for Details {
    fn from(record: Record) -> Details {
        Details { record, ..Details::default() }
    }
}

/// Writes the journal and the record of an operation: from here on it will happen.
fn begin_operation(
    place: &dyn Place,
    image: &DiskMut,
    staged: &Disk,
    ranges: &[std::ops::Range<u64>],
    details: Details,
    progress: &dyn Progress,
) -> Result<OperationRecord> {
    let id = record::next_id(place)?;
    let follows = record::head(place)?.map(|standing| standing.id);
    let mut hashes = journal::Hashes::default();
    progress.begin("writing the journal", None);
    let written = place.create(&journal::name(id), &mut |out| {
        hashes = journal::write(out, image, staged, ranges)?;
        Ok(())
    });
    progress.end();
    written?;
    let mut operation = OperationRecord::new(id, details.record, image.len(), staged.len());
    operation.bytes_changed = ranges.iter().map(|range| range.end - range.start).sum();
    operation.image = details.image;
    operation.allowed_child = details.allowed_child;
    operation.undoes = details.undoes;
    operation.follows = follows;
    (operation.sha256_before, operation.sha256_after) = (hashes.before, hashes.after);
    operation.enter(place, OperationState::Publishing)?;
    record::note_newest(place, id);
    Ok(operation)
}

/// The part of publishing that works on any place; the crash tests call it with one in memory.
fn publish_staged(
    place: &dyn Place,
    image: &DiskMut,
    staged: &Disk,
    ranges: &[std::ops::Range<u64>],
    details: impl Into<Details>,
    progress: &dyn Progress,
) -> Result<OperationId> {
    let mut operation = begin_operation(place, image, staged, ranges, details.into(), progress)?;
    let journal = Journal::open(place, operation.id, journal::View::Whole)?;
    progress.begin("writing the image", Some(operation.bytes_changed));
    let applied = journal.apply(image, Side::After, Again::FromMedium, progress);
    progress.end();
    applied?;
    operation.enter(place, OperationState::Done)?;
    Ok(operation.id)
}

/// The operation on an image that never finished, if there is one. The image is looked at without a lock.
///
/// # Errors
/// Of reading the image or its state; `Refused` when the state belongs to another image that lay here, or is not there now.
pub fn pending(path: &Path, state_dir: Option<&Path>) -> Result<Option<OperationRecord>> {
    let located = locate::locate(&Subject::peek(path)?, state_dir)?;
    if let Some(e) = locate::refusal(&located) {
        return Err(e);
    }
    match located {
        Located::Own(place) => record::unfinished(&place),
        _ => Ok(None),
    }
}

/// Refuses an image that may not be copied or built upon: it is between two states.
///
/// # Errors
/// `Refused` when an operation on it never finished; as [`pending`].
pub fn refuse_pending(path: &Path) -> Result<()> {
    match pending(path, None)? {
        None => Ok(()),
        Some(operation) => Err(interrupted(&operation, path)),
    }
}

/// The state of an image that is going to be changed, and whether its folder is still to be made.
fn place_for_writing(subject: &Subject, state_dir: Option<&Path>) -> Result<(FilePlace, bool)> {
    let located = locate::locate(subject, state_dir)?;
    match (locate::refusal(&located), located) {
        (Some(e), _) => Err(e),
        (None, Located::Own(place)) => Ok((place, false)),
        (None, Located::New(new) | Located::Foreign { new, .. } | Located::Gone { new, .. }) => {
            Ok((new, true))
        }
    }
}

/// What is said of an image between two states.
pub fn interrupted(operation: &OperationRecord, path: &Path) -> Error {
    Error::refused(Layer::Transaction, "an earlier operation on this image was interrupted")
        .in_file(path)
        .found(format!("{}, {}", operation.words(), operation.state.words()))
        .advice(
            "`vmrescue recover IMAGE` finishes it. When the image was restored or replaced since, \
             `vmrescue recover IMAGE --abandon` closes the operation and leaves the image as it is",
        )
}

fn refuse_unfinished(place: &dyn Place, path: &Path) -> Result<()> {
    match record::unfinished(place)? {
        None => Ok(()),
        Some(operation) => Err(interrupted(&operation, path)),
    }
}
