//! Stage, publish, undo, recover: the only room that writes to an image.
//!
//! Everything is staged in an [`Overlay`] over the host file. [`Transaction::publish`] turns what differs into a list
//! of ranges of the host file and writes them through one journal (`docs/durability.md`):
//!
//! 1. the journal (bytes before and after, each with a checksum) is written beside the image and made durable;
//! 2. the operation's record says "publishing"; from here on the operation will happen;
//! 3. the bytes after are written and made durable; the record says "done".
//!
//! A crash before step 2 leaves the old image; after it, [`recover`] finishes. [`undo`] and [`redo`] write the
//! journal's other side under the same rule. All of it is idempotent.
//! Missing: publishing into a new child or a new file lies in `image/`; operations are never forgotten by themselves.

mod history;
mod journal;
mod place;
mod record;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use history::{history, recover, redo, redo_session, undo, undo_session};
pub use place::{Content, FilePlace, Place, state_dir_of, sync_folder, write_durably};
pub use record::{OperationId, OperationRecord, OperationState, Record};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut, HostFile, Overlay, OverlayOptions, SavepointId, WritableDevice};

/// Where the state lies and how much memory staging may take.
#[derive(Debug, Clone, Default)]
pub struct TransactionOptions {
    /// Folder that holds the state folders; beside the image by default.
    pub state_dir: Option<PathBuf>,
    /// Memory for staged pages; the default of `limits` when absent.
    pub memory_bytes: Option<usize>,
}

/// Changes to one image that nobody sees until they are published; dropping it forgets them.
pub struct Transaction {
    host: Arc<HostFile>,
    place: FilePlace,
    overlay: Arc<Overlay>,
    modified: Option<SystemTime>,
    /// A part of this transaction began to be written and did not finish; it is finished ahead of the next.
    unfinished: bool,
}

impl Transaction {
    /// Locks the image and begins to stage. Nothing is written, not even a state folder.
    ///
    /// # Errors
    /// `Refused` when the image is in use, or an operation on it never finished (`recover` is the way out).
    pub fn begin(path: &Path, options: &TransactionOptions) -> Result<Transaction> {
        if options.state_dir.is_none()
            && std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
        {
            // What lies beside a device is gone with the next start of this machine, and the way back with it.
            return Err(Error::refused(
                Layer::Transaction,
                "a disk of this machine has no folder beside it for the journal",
            )
            .in_file(path)
            .advice("name a folder on another disk with --state-dir"));
        }
        let host = Arc::new(HostFile::open_staging(path)?);
        let place = FilePlace::new(path, options.state_dir.as_deref());
        refuse_unfinished(&place)?;
        let overlay = Overlay::new(
            Disk::new(Arc::clone(&host) as Arc<_>),
            OverlayOptions {
                memory_bytes: options.memory_bytes.unwrap_or(vmrescue_base::limits::OVERLAY_MEMORY_BYTES),
                spill_dir: options.state_dir.as_deref().filter(|dir| dir.is_dir()).or(path.parent()).map(
                    |dir| {
                        if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_path_buf() }
                    },
                ),
            },
        )?;
        let modified = host.modified();
        Ok(Transaction { host, place, overlay, modified, unfinished: false })
    }

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

    /// Writes what was staged so far into the image, as [`Transaction::publish`] does, and goes on: the lock is kept, and
    /// everything that is open on [`Transaction::file`] stays valid. Nothing may be staged meanwhile; reading may go on.
    ///
    /// # Errors
    /// As [`Transaction::publish`]. After an error everything is still staged, readers see it, and the next call tries
    /// again; a journal that was begun is finished first.
    pub fn publish_so_far(&mut self, record: Record, progress: &dyn Progress) -> Result<Option<OperationId>> {
        if self.host.modified() != self.modified {
            return Err(changed_meanwhile(self.host.path()));
        }
        let image = DiskMut::new(Arc::new(self.host.writer_under_this_lock()?));
        let published = self.publish_part(&image, record, progress);
        // Whatever was written was written by us.
        self.host.refresh_length()?;
        self.modified = self.host.modified();
        if published.is_ok() {
            self.overlay.forget();
        }
        published
    }

    fn publish_part(
        &mut self,
        image: &DiskMut,
        record: Record,
        progress: &dyn Progress,
    ) -> Result<Option<OperationId>> {
        if self.unfinished {
            history::recover_at(&self.place, image, progress)?;
            self.host.refresh_length()?;
            self.unfinished = false;
        }
        let ranges = self.overlay.dirty_ranges()?;
        let staged = self.file().as_disk();
        if ranges.is_empty() && staged.len() == self.before().len() {
            return Ok(None);
        }
        let published = publish_staged(&self.place, image, &staged, &ranges, record, progress);
        if published.is_err() {
            // An error before the record was written left nothing behind; after it, the journal has to be finished.
            let all = record::all(&self.place);
            self.unfinished =
                all.map_or(true, |all| all.iter().any(|operation| operation.state.is_unfinished()));
        }
        published.map(Some)
    }

    /// Writes what was staged into the image, through the journal. Without a difference nothing is written at all.
    ///
    /// # Errors
    /// `Refused` when the image was changed by somebody else since it was opened; otherwise of the host. After an
    /// error the image is the old one, or `recover` finishes the operation.
    pub fn publish(self, record: Record, progress: &dyn Progress) -> Result<Option<OperationId>> {
        let ranges = self.overlay.dirty_ranges()?;
        let staged = self.file().as_disk();
        if ranges.is_empty() && staged.len() == self.before().len() {
            return Ok(None);
        }
        if self.host.modified() != self.modified {
            return Err(changed_meanwhile(self.host.path()));
        }
        let image = DiskMut::new(Arc::new(self.host.writer_under_this_lock()?));
        publish_staged(&self.place, &image, &staged, &ranges, record, progress).map(Some)
    }
}

fn changed_meanwhile(path: &Path) -> Error {
    Error::refused(Layer::Transaction, "the image was changed by another program meanwhile")
        .in_file(path)
        .advice("nothing was written; run the command again on the image as it is now")
}

/// The part of publishing that works on any place; the crash tests call it with one in memory.
fn publish_staged(
    place: &dyn Place,
    image: &DiskMut,
    staged: &Disk,
    ranges: &[std::ops::Range<u64>],
    record: Record,
    progress: &dyn Progress,
) -> Result<OperationId> {
    let id = record::next_id(place)?;
    progress.begin("writing the journal", None);
    place.write(&journal::name(id), &mut |out| journal::write(out, image, staged, ranges))?;
    progress.end();
    let mut operation = OperationRecord::new(id, record, image.len(), staged.len());
    operation.bytes_changed = ranges.iter().map(|range| range.end - range.start).sum();
    operation.enter(place, OperationState::Publishing)?;
    progress.begin("writing the image", Some(operation.bytes_changed));
    journal::Journal::open(place, id)?.apply(image, journal::Side::After, progress)?;
    progress.end();
    operation.enter(place, OperationState::Done)?;
    Ok(id)
}

/// The operation that never finished, if there is one.
///
/// # Errors
/// Of reading the state folder.
pub fn pending(path: &Path, state_dir: Option<&Path>) -> Result<Option<OperationRecord>> {
    let place = FilePlace::new(path, state_dir);
    Ok(record::all(&place)?.into_iter().find(|operation| operation.state.is_unfinished()))
}

fn refuse_unfinished(place: &dyn Place) -> Result<()> {
    match record::all(place)?.into_iter().find(|operation| operation.state.is_unfinished()) {
        None => Ok(()),
        Some(operation) => {
            Err(Error::refused(Layer::Transaction, "an earlier operation on this image was interrupted")
                .found(format!(
                    "operation {} ({}), {}",
                    operation.id,
                    operation.title,
                    operation.state.words()
                ))
                .advice("run `vmrescue recover IMAGE`; it finishes the operation"))
        }
    }
}
