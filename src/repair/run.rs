//! The whole way of a repair: open, plan, stage, verify, publish.

use super::change::Change;
use super::script::{Script, plan};
use super::stage::Stage;
use super::verify::{Verdict, defects, verify};
use crate::block::DiskMut;
use crate::error::Result;
use crate::image::{self, Container};
use crate::progress::Progress;
use crate::transaction::{OperationId, Record, Transaction, TransactionOptions};
use crate::windows::Machine;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a repair runs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Plan only; nothing is written.
    pub dry_run: bool,
    /// Which installation, when the disk has several.
    pub windows: Option<usize>,
    /// Where the state lies.
    pub state_dir: Option<PathBuf>,
    /// The words of the command line, for the history.
    pub command: Vec<String>,
    /// Parents of a differencing disk, nearest first.
    pub parents: Vec<PathBuf>,
}

/// What a repair did.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What it would change, or changed.
    pub changes: Vec<Change>,
    /// What the second reader said; `None` for a plan or when nothing was to do.
    pub verdict: Option<Verdict>,
    /// The operation, when something was published.
    pub operation: Option<OperationId>,
    /// Bytes of the image file that differ.
    pub bytes_changed: u64,
}

/// Opens an image for staging: the transaction and the virtual disk over it.
///
/// # Errors
/// Of [`Transaction::begin`] and [`image::open_mut`].
pub fn open_staged(path: &Path, options: &Options) -> Result<(Transaction, Container<DiskMut>)> {
    let state_dir = options.state_dir.clone();
    let tx = Transaction::begin(path, &TransactionOptions { state_dir, memory_bytes: None })?;
    let parent = image::open_parent(&tx.before(), path, &options.parents)?;
    let container = image::open_mut(&tx.file(), parent)?;
    Ok((tx, container))
}

/// Runs a script on an image.
///
/// # Errors
/// Of every step; the image is only written when all went well.
pub fn run_script(
    path: &Path,
    script: &Script,
    parameters: &BTreeMap<String, String>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let planned =
        |machine: &Machine| plan(machine, machine.installation(options.windows)?, script, parameters);
    run_changes(path, &script.title, planned, options, progress)
}

/// Runs the changes that `planned` makes of the disk.
///
/// # Errors
/// As [`run_script`].
pub fn run_changes(
    path: &Path,
    title: &str,
    planned: impl FnOnce(&Machine) -> Result<Vec<Change>>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let (tx, container) = open_staged(path, options)?;
    let machine = Machine::open(container.disk.as_disk())?;
    let changes = planned(&machine)?;
    if changes.is_empty() || options.dry_run {
        return Ok(Outcome { changes, verdict: None, operation: None, bytes_changed: 0 });
    }
    let before = defects(&machine, &changes, progress)?;
    Stage::new(&machine, &container.disk).apply(&changes)?;
    let verdict = verify(&container.disk, &changes, &before, progress)?;
    let bytes_changed = tx.changed_bytes()?;
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let record = Record {
        title: title.to_string(),
        command: options.command.clone(),
        plan: serde_json::json!(words),
        changes: serde_json::json!(changes),
    };
    drop(machine);
    let operation = tx.publish(record, progress)?;
    Ok(Outcome { changes, verdict: Some(verdict), operation, bytes_changed })
}
