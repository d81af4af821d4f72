//! What must become of a volume that was not left cleanly before anything is written to it: it is part of the plan.

use super::change::Change;
use super::verify::paths;
use std::collections::BTreeSet;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_fs::ntfs::{Hibernation, LogState, Replay, VolumeState, WriteOptions};
use vmrescue_fs::path::GuestPath;
use vmrescue_windows::Machine;

/// What the user agrees to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Discard {
    /// Changes in a log that cannot be replayed. One that can is replayed all the same.
    pub log: bool,
    /// The memory of a hibernated Windows.
    pub hibernation: bool,
}

impl From<Discard> for WriteOptions {
    fn from(discard: Discard) -> WriteOptions {
        WriteOptions {
            discard_log: discard.log,
            discard_hibernation: discard.hibernation,
            ..WriteOptions::default()
        }
    }
}

/// Puts in front of `changes` what has to be done to the volumes that they write.
///
/// # Errors
/// `Refused` with the reason and the way out when something would be lost that `discard` does not give up.
pub fn with_unfinished(machine: &Machine, changes: Vec<Change>, discard: Discard) -> Result<Vec<Change>> {
    let mut touched = BTreeSet::new();
    // Partitions and file systems that the changes make first are not there yet.
    let makes = |change: &Change| matches!(change, Change::DiskWrite { .. } | Change::VolumeFormat { .. });
    let makes = changes.iter().any(makes);
    for path in changes.iter().flat_map(paths) {
        match machine.volume_of(&GuestPath::parse(path)?.volume) {
            Ok(index) if makes && machine.volumes[index].fs.is_none() => {}
            Err(_) if makes => {}
            found => {
                touched.insert(found?);
            }
        }
    }
    let mut all = Vec::new();
    for index in touched {
        let number = machine.volumes[index].number;
        if let Some(state) = machine.file_system(index)?.state()? {
            all.extend(unfinished_log(number, &state, discard)?);
            all.extend(hibernation(number, state.hibernation, discard)?);
        }
    }
    all.extend(changes);
    Ok(all)
}

fn unfinished_log(volume: u32, state: &VolumeState, discard: Discard) -> Result<Option<Change>> {
    let why = match (&state.replay, state.log) {
        (Replay::Done(counts), _) => {
            return Ok(Some(Change::ReplayLog { volume, redone: counts.redone, undone: counts.undone }));
        }
        (Replay::Impossible(why), _) => why.clone(),
        (Replay::NotNeeded, LogState::Unknown) => "neither of its restart pages can be read".to_string(),
        (Replay::NotNeeded, _) => return Ok(None),
    };
    if discard.log {
        return Ok(Some(Change::DiscardLog { volume, why }));
    }
    let what =
        format!("$LogFile of volume #{volume} holds changes that were not finished and cannot be replayed");
    Err(Error::refused(Layer::Ntfs, what).found(why).advice(
        "let Windows start once, or give those changes up with --discard-log and run the check command afterwards",
    ))
}

fn hibernation(volume: u32, state: Hibernation, discard: Discard) -> Result<Option<Change>> {
    let Some(lost) = state.loss() else { return Ok(None) };
    if discard.hibernation {
        return Ok(Some(Change::DiscardHibernation { volume, lost: lost.to_string() }));
    }
    state.refusal().map_or(Ok(None), |refusal| Err(refusal.context(format!("volume #{volume}"))))
}

/// How a volume may be opened for writing, as the plan says.
pub(super) fn write_options(changes: &[Change], number: u32) -> WriteOptions {
    let is = |found: &dyn Fn(&Change) -> bool| changes.iter().any(found);
    WriteOptions {
        discard_log: is(&|change| matches!(change, Change::DiscardLog { volume, .. } if *volume == number)),
        discard_hibernation: is(
            &|change| matches!(change, Change::DiscardHibernation { volume, .. } if *volume == number),
        ),
        ..WriteOptions::default()
    }
}
