//! Ways out of dead ends, and what is forgotten: abandoning an operation that cannot be finished, and removing journals.

use super::history::{held_words, journal_name};
use super::locate::{self, Located, Subject};
use super::place::Place;
use super::record::{self, OperationId, OperationRecord, OperationState};
use super::refuse_unfinished;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::Result;
use vmrescue_block::{Disk, HostFile};

/// What was given up, and where the pieces are.
#[derive(Debug, Clone)]
pub struct Abandoned {
    /// The operation; `None` when only the way to a state folder was forgotten.
    pub operation: Option<OperationRecord>,
    /// What the image holds of it, for people.
    pub held: String,
    /// The folder with the journal and the record, which stay.
    pub kept: PathBuf,
}

/// Closes the operation that was interrupted without writing to the image; `None` when there is none. Journal and record
/// stay. An image that lies where another one was interrupted gets a history of its own; one whose state folder is not there
/// forgets it.
///
/// # Errors
/// `Busy` when the image is in use; of the host.
pub fn abandon(path: &Path, state_dir: Option<&Path>) -> Result<Option<Abandoned>> {
    let host = Arc::new(HostFile::open_write(path)?);
    let subject = Subject::new(path, Some(Arc::clone(&host)));
    let identity = subject.identity();
    match locate::locate(&subject, state_dir)? {
        Located::New(_) => Ok(None),
        Located::Own(place) => {
            let Some(mut operation) = record::unfinished(&place)? else { return Ok(None) };
            let held = held_words(&place, &operation, &Disk::new(Arc::clone(&host) as Arc<_>));
            if operation.state == OperationState::Unreadable && record::is_there(&place, operation.id)? {
                let name = record::name(operation.id);
                place.rename(&name, &format!("{name}.damaged"))?;
            }
            operation.enter(&place, OperationState::Abandoned)?;
            Ok(Some(Abandoned { operation: Some(operation), held, kept: place.dir().to_path_buf() }))
        }
        Located::Foreign { place, operation, new, .. } => {
            locate::claim(&new, true, &subject.path, &host, identity, identity)?;
            let held =
                "this image has a history of its own now; the other one's stays where it is".to_string();
            let kept = place.dir().to_path_buf();
            Ok(Some(Abandoned { operation: Some(*operation), held, kept }))
        }
        Located::Gone { folder, .. } => {
            locate::forget_signs(&subject.path, &host)?;
            let held = "this image begins a new history; the old one stays in the folder that was not found";
            Ok(Some(Abandoned { operation: None, held: held.to_string(), kept: folder }))
        }
    }
}

/// What `gc` removed.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Operations that can no longer be undone or redone.
    pub operations: Vec<OperationRecord>,
    /// Journals without an operation, and what crashes left.
    pub leftovers: Vec<String>,
    /// Bytes that were freed.
    pub bytes: u64,
}

/// Removes the journals of operations that are older than the newest `keep` that stand, of those that were abandoned or can
/// no longer be redone, and what crashes left. The records stay. Without `remove` it only says what would go.
///
/// # Errors
/// `Refused` when an operation is unfinished; `Busy`; of the host.
pub fn gc(path: &Path, state_dir: Option<&Path>, keep: usize, remove: bool) -> Result<Collected> {
    // The lock keeps writers away, who make new journals.
    let host = Arc::new(HostFile::open_plan(path)?);
    let subject = Subject::new(path, Some(host));
    let place = match locate::locate(&subject, state_dir)? {
        Located::Own(place) => place,
        Located::New(_) => return Ok(Collected::default()),
        other => return locate::refusal(&other).map_or_else(|| Ok(Collected::default()), Err),
    };
    refuse_unfinished(&place, path)?;
    let journals: BTreeSet<OperationId> = record::journals(&place)?.into_iter().collect();
    let (mut found, mut standing) = (Collected::default(), 0);
    let ids = record::all_ids(&place)?;
    let known: BTreeSet<OperationId> = ids.iter().copied().collect();
    let orphans = journals.difference(&known).map(|id| journal_name(*id));
    let parts = place.names()?.into_iter().filter(|name| name.ends_with(".part"));
    if remove {
        record::forget_newest(&place)?;
    }
    for name in orphans.chain(parts).collect::<Vec<_>>() {
        found.bytes += if remove { place.remove(&name)? } else { place.open(&name)?.len() };
        found.leftovers.push(name);
    }
    for id in &ids {
        let mut operation = record::load(&place, *id)?;
        let goes = match operation.state {
            OperationState::Done => {
                standing += 1;
                standing > keep
            }
            // Can be redone as long as nothing was done since.
            OperationState::Undone => standing > 0,
            OperationState::Abandoned => true,
            _ => false,
        };
        if !goes || !journals.contains(id) {
            continue;
        }
        if remove {
            // First the record says so: a journal that is missing without a word is a loss.
            operation.journal_removed = true;
            operation.write(&place)?;
            found.bytes += place.remove(&journal_name(*id))?;
        } else {
            found.bytes += place.open(&journal_name(*id))?.len();
        }
        found.operations.push(operation);
    }
    Ok(found)
}
