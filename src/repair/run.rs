//! The whole way of a repair: open, plan, stage, verify, publish.

use super::change::{Change, Secrets};
use super::plan::plan;
use super::postcondition::Before;
use super::script::Script;
use super::shadow_copies::Watch;
use super::stage::Stage;
use super::verify::{self, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::Severity;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut, HostFile, OutputRules};
use vmrescue_crypt::Keys;
use vmrescue_disk as disk;
use vmrescue_image as image;
use vmrescue_image::{Container, ContainerInfo, CreateSpec, Format, Kind, OpenOptions, Variant};
use vmrescue_transaction::{
    Locked, OperationId, Record, Transaction, TransactionOptions, Verified, note_made, pending,
};
use vmrescue_windows::Machine;

/// Asked right before an image is written; an error keeps it as it is.
#[derive(Clone)]
pub struct Gate(pub Arc<dyn Fn() -> Result<()> + Send + Sync>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

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
    /// Where the result goes.
    pub target: Target,
    /// What opens BitLocker volumes.
    pub keys: Keys,
    /// The last word before the image is written.
    pub gate: Option<Gate>,
    /// Refuse what a second reader could not verify.
    pub strict: bool,
    /// What stands in no record.
    pub secrets: Secrets,
}

impl Options {
    /// What the history says of changes.
    pub(super) fn record(&self, title: &str, changes: &[Change]) -> Result<Record> {
        let words: Vec<String> = changes.iter().map(|change| change.words(&self.secrets)).collect();
        let kept = changes.iter().map(|change| change.kept(&self.secrets)).collect::<Result<Vec<_>>>()?;
        Ok(Record {
            title: title.to_string(),
            command: self.secrets.out_of_command(&self.command),
            plan: serde_json::json!(words),
            changes: serde_json::json!(kept),
            session: None,
        })
    }

    /// Refuses what only one reader looked at, when that is asked for.
    pub(super) fn accepts(&self, verdict: &Verdict) -> Result<()> {
        let Some(first) = verdict.only_one_reader.first().filter(|_| self.strict) else { return Ok(()) };
        let more = verdict.only_one_reader.len() - 1;
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        Err(Error::refused(Layer::Verify, "not everything could be verified by a second reader")
            .found(format!("{first}{more}"))
            .advice("nothing was written; leave --strict out to accept what one reader says"))
    }

    /// Asks the gate, when there is one.
    pub(super) fn pass_gate(&self) -> Result<()> {
        self.gate.as_ref().map_or(Ok(()), |Gate(gate)| gate())
    }
}

/// Where the result of a repair goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Target {
    /// Into the image, through the journal.
    #[default]
    InPlace,
    /// Into a new differencing disk; the image stays as it is.
    Child(PathBuf),
    /// Into a new image of the same kind; the image stays as it is.
    New(PathBuf),
}

impl Target {
    /// The target that `in-place`, `child:FILE` or `new:FILE` names.
    pub fn parse(text: &str) -> Option<Target> {
        match text.split_once(':') {
            None if text == "in-place" => Some(Target::InPlace),
            Some(("child", file)) if !file.is_empty() => Some(Target::Child(file.into())),
            Some(("new", file)) if !file.is_empty() => Some(Target::New(file.into())),
            _ => None,
        }
    }
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

impl Outcome {
    /// Nothing was to do, or nothing could be done.
    pub(super) fn none() -> Outcome {
        Outcome { changes: Vec::new(), verdict: None, operation: None, bytes_changed: 0 }
    }
}

fn lock(path: &Path, options: &Options) -> Result<Locked> {
    let state_dir = options.state_dir.clone();
    let (plan_only, elsewhere) = (options.dry_run, options.target != Target::InPlace);
    Locked::open(
        path,
        &TransactionOptions { state_dir, plan_only, elsewhere, ..TransactionOptions::default() },
    )
}

/// Opens an image for staging without a plan, for a mount or a server: the transaction and the virtual disk over it.
///
/// # Errors
/// Of [`Locked::open`] and [`image::open_mut`].
pub fn open_staged(path: &Path, options: &Options) -> Result<(Transaction, Container<DiskMut>)> {
    let locked = lock(path, options)?;
    let parent = image::open_parent(&locked.before(), path, &options.parents)?;
    let tx = locked.stage();
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
    if options.target != Target::InPlace {
        if !options.dry_run {
            return run_elsewhere(path, title, planned, options, progress);
        }
        // The same changes, tried in memory, once it is clear that the new file could be made.
        refuse_unsound(path, options)?;
        check_target(path, options)?;
    }
    let (staged, changes) = tried(path, planned, options, progress)?;
    publish(staged, title, changes, options, progress)
}

/// Changes that were staged and verified, and not published yet.
pub(super) struct Staged {
    verified: Verified<Verdict>,
    bytes_changed: u64,
}

/// Plans on the locked image, stages and verifies what `planned` makes of it; nothing is staged when nothing is to do.
pub(super) fn tried(
    path: &Path,
    planned: impl FnOnce(&Machine) -> Result<Vec<Change>>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<(Option<Staged>, Vec<Change>)> {
    let locked = lock(path, options)?;
    let parent = image::open_parent(&locked.before(), path, &options.parents)?;
    let container = image::open_with_parent(&locked.before(), parent.clone())?;
    let machine = Machine::open_with(container.disk, &options.keys)?;
    let changes = planned(&machine)?;
    if changes.is_empty() {
        return Ok((None, changes));
    }
    let before = Before::of(&machine, &changes, progress)?;
    let tx = locked.stage();
    let container = image::open_mut(&tx.file(), parent)?;
    let watch = Watch::new(machine.writable(&container.disk)?);
    Stage::new(&machine, &watch.disk()).apply(&changes)?;
    let verified = tx.verify(|_| {
        let staged = container.disk.as_disk();
        let mut verdict = verify::verify(&staged, &machine, &options.keys, &changes, &before, progress)?;
        options.accepts(&verdict)?;
        verdict.warnings = watch.warnings(&machine);
        Ok(verdict)
    })?;
    let bytes_changed = verified.changed_bytes()?;
    Ok((Some(Staged { verified, bytes_changed }), changes))
}

/// Writes what was staged into the image; a dry run forgets it.
pub(super) fn publish(
    staged: Option<Staged>,
    title: &str,
    changes: Vec<Change>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let Some(Staged { verified, bytes_changed }) = staged else {
        return Ok(Outcome { changes, ..Outcome::none() });
    };
    finish(verified, bytes_changed, || options.record(title, &changes), options, progress)
        .map(|outcome| Outcome { changes, ..outcome })
}

/// The last steps of every change: what was verified is written, unless it was only to be tried.
pub(super) fn finish(
    verified: Verified<Verdict>,
    bytes_changed: u64,
    record: impl FnOnce() -> Result<Record>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let verdict = Some(verified.said.clone());
    if options.dry_run {
        return Ok(Outcome { verdict, bytes_changed, ..Outcome::none() });
    }
    let record = record()?;
    options.pass_gate()?;
    let operation = verified.publish(record, progress)?;
    Ok(Outcome { verdict, operation, bytes_changed, ..Outcome::none() })
}

/// What may be made of the image at `path`.
fn outputs_of(path: &Path, options: &Options) -> Result<OutputRules> {
    let opening = OpenOptions { parents: options.parents.clone(), follow_paths: false };
    let rules = OutputRules::new(false).of_image(path)?;
    image::parents(path, &opening)?.iter().try_fold(rules, |rules, parent| rules.of_parent(parent))
}

/// Fails where [`run_elsewhere`] would fail to make its file.
fn check_target(path: &Path, options: &Options) -> Result<()> {
    if let Target::New(file) | Target::Child(file) = &options.target
        && let Some(operation) = pending(file, options.state_dir.as_deref())?
    {
        // A file of this name was interrupted, and is gone: its history is not continued by another one.
        return Err(vmrescue_transaction::interrupted(&operation, file));
    }
    match &options.target {
        Target::InPlace => Ok(()),
        Target::New(file) => outputs_of(path, options)?.check(file),
        Target::Child(file) => {
            disk::parent_info(path)?;
            outputs_of(path, options)?.check(file)
        }
    }
}

/// Refuses to build on an image that is between two states, or whose container is severely damaged; its parents too.
fn refuse_unsound(path: &Path, options: &Options) -> Result<()> {
    let opening = OpenOptions { parents: options.parents.clone(), follow_paths: false };
    let chain = std::iter::once(path.to_path_buf()).chain(image::parents(path, &opening)?);
    for file in chain {
        if let Some(operation) = pending(&file, options.state_dir.as_deref())? {
            return Err(vmrescue_transaction::interrupted(&operation, &file));
        }
        let disk = Disk::new(Arc::new(HostFile::open_read(&file)?));
        image::refuse_damaged(&disk).map_err(|e| e.in_file(&file))?;
    }
    Ok(())
}

/// Runs changes on a new child or copy of the image, which gets its name only when all went well. No journal is needed:
/// nothing that was there before is written. The new file's history begins with it.
fn run_elsewhere(
    path: &Path,
    title: &str,
    planned: impl FnOnce(&Machine) -> Result<Vec<Change>>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let opening = OpenOptions { parents: options.parents.clone(), follow_paths: false };
    // Held until the end: nobody writes to the image while it is built upon, and whoever does by another way is noticed.
    let host = Arc::new(HostFile::open_read(path)?);
    let stamp = host.stamp()?;
    refuse_unsound(path, options)?;
    let source = image::open_file(&Disk::new(Arc::clone(&host) as Arc<_>), path, &opening)?;
    if let Some(changed) = source.defects.iter().find(|defect| defect.code == "chain-parent-changed") {
        // To look at it is one thing; a new disk must not be made of what does not belong together.
        return Err(Error::refused(Layer::Image, changed.detail.clone())
            .advice("look at what is there and copy it out: vmrescue get -r"));
    }
    check_target(path, options)?;
    let machine = Machine::open_with(source.disk.clone(), &options.keys)?;
    let changes = planned(&machine)?;
    if changes.is_empty() {
        return Ok(Outcome { changes, ..Outcome::none() });
    }
    let before = Before::of(&machine, &changes, progress)?;
    let (new, name, parent) = match &options.target {
        Target::Child(file) => (disk::child_of(path, file)?, file, Some(source.disk.clone())),
        Target::New(file) => {
            let new = disk::NewFile::create(file, &outputs_of(path, options)?)?;
            let geometry = source.disk.geometry();
            let spec = CreateSpec {
                kind: kind_like(&source.info),
                size: geometry.length_bytes,
                block_bytes: None,
                logical_sector_bytes: geometry.logical_sector_bytes,
            };
            image::create(new.file(), &spec)?;
            let target = image::open_mut(new.file(), None)?.disk;
            disk::copy_disk(&source.disk, &target, "copying the disk", progress)?;
            (new, file, None)
        }
        Target::InPlace => return Err(Error::invalid(Layer::Transaction, "no new file was named")),
    };
    let staged = image::open_mut(new.file(), parent)?.disk;
    let watch = Watch::new(machine.writable(&staged)?);
    Stage::new(&machine, &watch.disk()).apply(&changes)?;
    staged.flush()?;
    let container = image::check(&new.file().as_disk())?;
    if let Some(defect) = container.iter().find(|defect| defect.severity != Severity::Note) {
        return Err(verify::disagreement(
            "our own check finds damage in the new container",
            &defect.to_string(),
        ));
    }
    let mut verdict =
        verify::verify(&staged.as_disk(), &machine, &options.keys, &changes, &before, progress)?;
    options.accepts(&verdict)?;
    verdict.warnings = watch.warnings(&machine);
    drop((staged, watch));
    if host.stamp()? != stamp || !host.is_still_there()? {
        return Err(Error::refused(Layer::Image, "the image was changed by another program meanwhile")
            .in_file(path)
            .advice("nothing was made; run the command again on the image as it is now"));
    }
    let bytes_changed = new.file().len();
    let record = options.record(title, &changes)?;
    options.pass_gate()?;
    new.finish()?;
    let operation = note_made(name, path, options.state_dir.as_deref(), record)
        .map_err(|e| e.context("the file is whole, but its history could not be begun"))?;
    Ok(Outcome { changes, verdict: Some(verdict), operation: Some(operation), bytes_changed })
}

/// The kind of a new image that is to be like this one.
fn kind_like(info: &ContainerInfo) -> Kind {
    match (info.format, info.variant) {
        (Format::Vhd, Variant::Fixed) => Kind::VhdFixed,
        (Format::Vhd, _) => Kind::VhdDynamic,
        (Format::Vhdx, Variant::Fixed) => Kind::VhdxFixed,
        (Format::Raw, _) => Kind::Raw,
        _ => Kind::VhdxDynamic,
    }
}
