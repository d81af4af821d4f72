//! Changes of a hive or boot store that is a file of its own on the host, with the transaction, verification and undo of an image.

use super::change::Change;
use super::run::{Options, Outcome, Target};
use super::verify::{Verdict, identity, other_value};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_base::time::FileTime;
use vmrescue_block::{Disk, HostFile};
use vmrescue_registry::{DataType, Edited, Hive, HiveEditor};
use vmrescue_transaction::{Record, Transaction, TransactionOptions};

/// Reads a hive file with the transaction logs beside it.
///
/// # Errors
/// Of the host; `Busy` when somebody writes to it; `Damaged` when it is no hive.
pub fn read_hive(path: &Path) -> Result<Hive> {
    hive_in(&Disk::new(Arc::new(HostFile::open_read(path)?)), path)
}

/// The hive in an open file, with the transaction logs beside it.
fn hive_in(file: &Disk, path: &Path) -> Result<Hive> {
    let mut logs = Vec::new();
    for suffix in [".LOG", ".LOG1", ".LOG2", ".log", ".log1", ".log2"] {
        let mut name = path.as_os_str().to_os_string();
        name.push(suffix);
        match std::fs::read(&name) {
            Ok(bytes) => logs.push(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("cannot be read", PathBuf::from(name), e)),
        }
    }
    if file.len() > vmrescue_base::limits::MAX_HIVE_BYTES {
        return Err(Error::limit(Layer::Hive, "this file is too large for a hive")
            .in_file(path)
            .found(file.len()));
    }
    Hive::parse_with_logs(file.read_vec(0, file.len() as usize)?, &logs).map_err(|e| e.in_file(path))
}

/// Opens and locks a hive file, and reads it through that handle: what is planned on it is true until it is published.
fn begin(path: &Path, options: &Options) -> Result<(Transaction, Hive)> {
    let tx = Transaction::begin(
        path,
        &TransactionOptions {
            state_dir: options.state_dir.clone(),
            plan_only: options.dry_run,
            ..TransactionOptions::default()
        },
    )?;
    let hive = hive_in(&tx.before(), path)?;
    Ok((tx, hive))
}

/// Runs the changes that `planned` makes of the hive at `path`; their `hive` is ignored.
///
/// # Errors
/// As [`super::run_changes`]; `Invalid` for changes that are none of the registry.
pub fn run_on_hive(
    path: &Path,
    title: &str,
    planned: impl FnOnce(&Hive) -> Result<Vec<Change>>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    if options.target != Target::InPlace {
        return Err(Error::invalid(Layer::Hive, "a hive file is changed in place")
            .advice("copy it first; undo brings it back"));
    }
    let (tx, hive) = begin(path, options)?;
    let changes = planned(&hive)?;
    if changes.is_empty() || options.dry_run {
        return Ok(Outcome { changes, verdict: None, operation: None, bytes_changed: 0 });
    }
    let known: BTreeSet<String> = hive.check().iter().map(identity).collect();
    let replayed = !hive.is_as_on_disk();
    let mut editor = HiveEditor::new(hive)?;
    for change in &changes {
        apply(&mut editor, change).map_err(|e| e.context(format!("({change})")))?;
    }
    let Edited { bytes, changed } = editor.finish(FileTime::now())?;
    let (verdict, bytes) = verify(bytes, &changes, &known)?;
    tx.file().set_length(bytes.len() as u64)?;
    if replayed {
        tx.file().write_at(0, &bytes)?;
    } else {
        // Only what differs: a hive may have hundreds of megabytes.
        changed.iter().try_for_each(|range| tx.file().write_at(range.start as u64, &bytes[range.clone()]))?;
    }
    let bytes_changed = tx.changed_bytes()?;
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let record = Record {
        title: title.to_string(),
        command: options.command.clone(),
        plan: serde_json::json!(words),
        changes: serde_json::json!(changes),
        session: None,
    };
    options.pass_gate()?;
    let operation = tx.publish(record, progress)?;
    Ok(Outcome { changes, verdict: Some(verdict), operation, bytes_changed })
}

/// Replaces the hive at `path` by the bytes that `rebuilt` makes of it, as one operation; `None` from it leaves it alone.
///
/// # Errors
/// Of the transaction and of `rebuilt`.
pub fn replace_hive(
    path: &Path,
    title: &str,
    rebuilt: impl FnOnce(&Hive) -> Result<Option<Vec<u8>>>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let (tx, hive) = begin(path, options)?;
    let bytes = rebuilt(&hive)?.filter(|_| !options.dry_run);
    let Some(bytes) = bytes else {
        return Ok(Outcome { changes: Vec::new(), verdict: None, operation: None, bytes_changed: 0 });
    };
    tx.file().set_length(bytes.len() as u64)?;
    tx.file().write_at(0, &bytes)?;
    let bytes_changed = tx.changed_bytes()?;
    let record = Record { title: title.to_string(), command: options.command.clone(), ..Record::default() };
    options.pass_gate()?;
    let operation = tx.publish(record, progress)?;
    Ok(Outcome { changes: Vec::new(), verdict: None, operation, bytes_changed })
}

/// Applies one change of the registry.
///
/// # Errors
/// Of the editor.
pub fn apply(editor: &mut HiveEditor, change: &Change) -> Result<()> {
    match change {
        Change::RegistrySet { key, name, data_type, data, .. } => {
            editor.set_value(key, name, DataType(*data_type), data).map(|_| ())
        }
        Change::RegistryCreateKey { key, .. } => editor.create_key(key).map(|_| ()),
        Change::RegistryDeleteValue { key, name, .. } => editor.delete_value(key, name).map(|_| ()),
        Change::RegistryDeleteKey { key, .. } => editor.delete_key(key, true).map(|_| ()),
        Change::RegistryRenameKey { key, to, .. } => editor.rename_key(key, to),
        _ => Err(Error::invalid(Layer::Hive, "not a change of the registry")),
    }
}

fn verify(bytes: Vec<u8>, changes: &[Change], known: &BTreeSet<String>) -> Result<(Verdict, Vec<u8>)> {
    let disagreement = |what: String| {
        Error::new(ErrorKind::Disagreement, Layer::Verify, what)
            .advice("nothing was written; please report this")
    };
    let hive = Hive::parse(bytes)?;
    let after = hive.check();
    let bytes = hive.into_bytes();
    let is_new = |d: &&vmrescue_base::Defect| d.severity != Severity::Note && !known.contains(&identity(d));
    if let Some(new) = after.iter().find(is_new) {
        return Err(disagreement(format!("our own check finds new damage in the hive: {new}")));
    }
    let mut verdict = Verdict::default();
    for (place, change) in changes.iter().enumerate() {
        // What a later change replaces is not there any more.
        if super::verify::is_superseded(change, &changes[place + 1..]) {
            continue;
        }
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| other_value(&bytes, change)));
        let found = asked
            .unwrap_or_else(|_| Err("the second reader panics on the staged hive".into()))
            .map_err(disagreement)?;
        if !found {
            return Err(disagreement(format!("the second reader does not see the change: {change}")));
        }
    }
    verdict.agreed.push(format!("a second reader of hives sees the changes ({})", changes.len()));
    Ok((verdict, bytes))
}
