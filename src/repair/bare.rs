//! Changes of a hive or boot store that is a file of its own on the host, by the way of an image: locked, read, planned, agreed
//! to, staged, verified, published, and undone.

use super::change::{Change, Secrets};
use super::postcondition::{new_defect, refuse_damaged_hive};
use super::run::{Options, Outcome, Target, finish};
use super::second_hive;
use super::verify::{Verdict, other_value};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_base::time::FileTime;
use vmrescue_block::{Disk, HostFile};
use vmrescue_registry::{DataType, Edited, Hive, HiveEditor};
use vmrescue_transaction::{Locked, Record, Transaction, TransactionOptions};

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
    whole(file, path).and_then(|bytes| Hive::parse_with_logs(bytes, &logs)).map_err(|e| e.in_file(path))
}

fn whole(file: &Disk, path: &Path) -> Result<Vec<u8>> {
    if file.len() > vmrescue_base::limits::MAX_HIVE_BYTES {
        return Err(Error::limit(Layer::Hive, "this file is too large for a hive")
            .in_file(path)
            .found(file.len()));
    }
    file.read_vec(0, file.len() as usize)
}

/// Opens and locks a hive file, and reads it through that handle: what is planned on it is true until it is published.
fn begin(path: &Path, options: &Options) -> Result<(Locked, Hive)> {
    if options.target != Target::InPlace {
        return Err(Error::invalid(Layer::Hive, "a hive file is changed in place")
            .advice("copy it first; undo brings it back"));
    }
    let locked = Locked::open(
        path,
        &TransactionOptions {
            state_dir: options.state_dir.clone(),
            plan_only: options.dry_run,
            ..TransactionOptions::default()
        },
    )?;
    let hive = hive_in(&locked.before(), path)?;
    Ok((locked, hive))
}

/// Runs the changes that `planned` makes of the hive at `path`; their `hive` is ignored.
///
/// # Errors
/// As [`super::run_changes`]; `Invalid` for changes that are none of the registry; `Refused` for a hive that is severely
/// damaged.
pub fn run_on_hive(
    path: &Path,
    title: &str,
    planned: impl FnOnce(&Hive) -> Result<Vec<Change>>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let (locked, hive) = begin(path, options)?;
    let known = hive.check();
    refuse_damaged_hive(&path.display().to_string(), &known)?;
    let secrets = options.secrets.clone().with_hive(&hive);
    let changes = planned(&hive)?;
    if changes.is_empty() {
        return Ok(Outcome { changes, ..Outcome::none() });
    }
    let replayed = !hive.is_as_on_disk();
    let mut editor = HiveEditor::new(hive)?;
    for change in &changes {
        apply(&mut editor, change).map_err(|e| e.context(format!("({})", change.words(&secrets))))?;
    }
    let Edited { bytes, changed } = editor.finish(FileTime::now())?;
    let tx = locked.stage();
    tx.file().set_length(bytes.len() as u64)?;
    if replayed {
        tx.file().write_at(0, &bytes)?;
    } else {
        // Only what differs: a hive may have hundreds of megabytes.
        changed.iter().try_for_each(|range| tx.file().write_at(range.start as u64, &bytes[range.clone()]))?;
    }
    // The verifiers read the file; two copies in memory would be one too many.
    drop(bytes);
    let own = Options { secrets: secrets.clone(), ..options.clone() };
    let look = |staged: &[u8]| sees_changes(staged, &changes, &secrets);
    publish(tx, path, &known, look, || own.record(title, &changes), options, progress)
        .map(|outcome| Outcome { changes: changes.clone(), ..outcome })
}

/// What a hive is to be replaced by.
#[derive(Debug, Clone)]
pub struct Rebuilt {
    /// The new file.
    pub bytes: Vec<u8>,
    /// Things of the old one that are not in it.
    pub lost: usize,
}

/// Replaces the hive at `path` by the bytes that `rebuilt` makes of it, as one operation; `None` from it leaves it alone.
///
/// # Errors
/// Of the transaction and of `rebuilt`.
pub fn replace_hive(
    path: &Path,
    title: &str,
    rebuilt: impl FnOnce(&Hive) -> Result<Option<Rebuilt>>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let (locked, hive) = begin(path, options)?;
    let Some(Rebuilt { bytes, lost }) = rebuilt(&hive)? else { return Ok(Outcome::none()) };
    let tx = locked.stage();
    tx.file().set_length(bytes.len() as u64)?;
    tx.file().write_at(0, &bytes)?;
    let record = || {
        Ok(Record {
            title: title.to_string(),
            command: options.command.clone(),
            plan: serde_json::json!([title]),
            changes: serde_json::json!([{"change": "hive-replace", "bytes": bytes.len(), "lost": lost}]),
            session: None,
        })
    };
    // What could be read of the old one is in the new one, unless it was said to be lost.
    let look = |staged: &[u8]| sees_all(staged, (lost == 0).then_some(&hive));
    publish(tx, path, &[], look, record, options, progress)
}

/// Verifies the staged hive, as it will lie there, and writes it.
fn publish(
    tx: Transaction,
    path: &Path,
    known: &[Defect],
    look: impl FnOnce(&[u8]) -> Result<String>,
    record: impl FnOnce() -> Result<Record>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let verified = tx.verify(|view| {
        let bytes = whole(&view.staged, path)?;
        let hive = Hive::parse(bytes)?;
        let after = hive.check();
        if let Some(new) = new_defect(known, &after).or_else(|| known_no_more(known, &after)) {
            return Err(disagreement(format!("our own check finds new damage in the hive: {new}")));
        }
        if !hive.is_clean() {
            return Err(disagreement("the staged hive is not closed".into()));
        }
        let mut verdict = Verdict::default();
        verdict.agreed.push(format!("check of the hive: nothing new ({} defects afterwards)", after.len()));
        verdict.agreed.push(look(hive.bytes())?);
        options.accepts(&verdict)?;
        Ok(verdict)
    })?;
    let bytes_changed = verified.changed_bytes()?;
    finish(verified, bytes_changed, record, options, progress)
}

/// A severe defect of a hive that replaces another one: there is nothing that it could have been known from.
fn known_no_more<'a>(known: &[Defect], after: &'a [Defect]) -> Option<&'a Defect> {
    after.iter().find(|defect| known.is_empty() && defect.severity == Severity::Error)
}

fn disagreement(what: String) -> Error {
    Error::new(ErrorKind::Disagreement, Layer::Verify, what).advice("nothing was written; please report this")
}

/// Asks the second reader, which panics on some damage; then it has not agreed.
fn asked<T>(ask: impl FnOnce() -> std::result::Result<T, String>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(ask))
        .unwrap_or_else(|_| Err("the second reader panics on the staged hive".into()))
        .map_err(disagreement)
}

/// The second reader sees every change.
fn sees_changes(bytes: &[u8], changes: &[Change], secrets: &Secrets) -> Result<String> {
    for (place, change) in changes.iter().enumerate() {
        // What a later change replaces is not there any more.
        if super::verify::is_superseded(change, &changes[place + 1..]) {
            continue;
        }
        if !asked(|| other_value(bytes, change))? {
            let what = change.words(secrets);
            return Err(disagreement(format!("the second reader does not see the change: {what}")));
        }
    }
    Ok(format!("a second reader of hives sees the changes ({})", changes.len()))
}

/// The second reader sees in the new hive what ours sees, key by key and value by value, and ours what could be read before.
fn sees_all(bytes: &[u8], before: Option<&Hive>) -> Result<String> {
    let ours = super::hive_content::of(&Hive::parse(bytes.to_vec())?)?;
    if ours != asked(|| second_hive::content(bytes))? {
        return Err(disagreement("the second reader sees other keys and values in the new hive".into()));
    }
    if let Some(before) = before
        && super::hive_content::of(before)? != ours
    {
        return Err(disagreement("the new hive does not hold all that could be read of the old one".into()));
    }
    Ok(format!("a second reader of hives sees the same {} keys and {} values", ours.keys, ours.values))
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
        Change::RegistryInheritSecurity { .. } => {
            editor.inherit_security();
            Ok(())
        }
        Change::RegistryRenameKey { key, to, .. } => editor.rename_key(key, to),
        _ => Err(Error::invalid(Layer::Hive, "not a change of the registry")),
    }
}
