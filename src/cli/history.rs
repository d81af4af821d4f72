//! What was done to an image, and the way back.

use super::identity::say_of_file;
use super::progress::Bars;
use super::{CLEAN, FINDINGS, agreed, say, say_error, say_json, size};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{ErrorKind, Result};
use vmrescue_base::time::FileTime;
use vmrescue_transaction as transaction;
use vmrescue_transaction::{OperationId, OperationRecord, OperationState};

/// The image whose operations are meant.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// The image
    image: PathBuf,
    /// Folder for journals and history, instead of beside the image
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

fn history(at: &Where) -> Result<u8> {
    let operations = transaction::history(&at.image, at.state_dir.as_deref())?;
    if at.json {
        say_of_file(&at.image, "history", json!({"operations": operations}))?;
        return Ok(CLEAN);
    }
    if operations.is_empty() {
        say("nothing was ever done to this image by vmrescue")?;
    }
    for operation in &operations {
        let when =
            operation.events.last().map(|event| FileTime::from_unix_seconds(event.unix_seconds).to_string());
        let when = when.unwrap_or_default();
        let when = when.get(..19).unwrap_or(&when);
        say(&format!("{}  {when}  {:<12} {}", operation.id, operation.state.words(), operation.title))?;
    }
    Ok(CLEAN)
}

fn tell(at: &Where, what: &str, operation: &OperationRecord) -> Result<u8> {
    if at.json {
        say_json(what, json!({"operation": operation}))?;
    } else {
        let bytes = operation.bytes_changed;
        if operation.undoes.is_some() && what == "undone" {
            return say(&format!(
                "undone by force: {}, {bytes} bytes; to undo: vmrescue undo",
                operation.words()
            ))
            .map(|()| CLEAN);
        }
        say(&format!("{what}: operation {} ({}), {bytes} bytes", operation.id, operation.title))?;
    }
    Ok(CLEAN)
}

/// One operation, or all of a session: then `operation` is the oldest of them, and `operations` has all.
fn tell_all(at: &Where, what: &str, all: &[OperationRecord]) -> Result<u8> {
    match all {
        [only] => tell(at, what, only),
        _ if at.json => {
            let oldest = all.iter().min_by_key(|operation| operation.id);
            say_json(what, json!({"operation": oldest, "operations": all}))?;
            Ok(CLEAN)
        }
        _ => {
            let bytes: u64 = all.iter().map(|operation| operation.bytes_changed).sum();
            let title = all.first().map(|operation| operation.title.as_str()).unwrap_or_default();
            say(&format!("{what}: {} operations of one session ({title}), {bytes} bytes", all.len()))?;
            Ok(CLEAN)
        }
    }
}

/// The operation that a question is about, and how it is called: that with the number, else the one whose turn it is. It is
/// handed on with the answer, so that nothing else is undone when somebody was faster.
fn named(
    at: &Where,
    id: Option<u32>,
    next: impl Fn(&[OperationRecord]) -> Option<&OperationRecord>,
) -> Result<Asked> {
    let all = transaction::history(&at.image, at.state_dir.as_deref())?;
    let operation = match id {
        Some(id) => all.iter().find(|operation| operation.id == OperationId(id)),
        None => next(&all),
    };
    Ok(Asked {
        id: operation.map(|operation| operation.id),
        words: operation.map_or("the operation".into(), OperationRecord::words),
    })
}

struct Asked {
    id: Option<OperationId>,
    words: String,
}

pub(super) fn undo(at: &Where, id: Option<u32>, yes: bool, force: bool) -> Result<u8> {
    let asked = named(at, id, |all| all.iter().rev().find(|one| one.state == OperationState::Done))?;
    if !agreed(yes, &format!("Undo {}?", asked.words))? {
        say("nothing was written")?;
        return Ok(FINDINGS);
    }
    // By force it is the next one further back that is meant, which only the store knows.
    let next = asked.id.filter(|_| !yes && !force);
    let (state_dir, bars) = (at.state_dir.as_deref(), Bars::new());
    match id.map(OperationId) {
        None => tell_all(at, "undone", &transaction::undo_session(&at.image, state_dir, next, force, &bars)?),
        id => tell_all(at, "undone", &[transaction::undo(&at.image, state_dir, id, force, &bars)?]),
    }
}

pub(super) fn redo(at: &Where, yes: bool) -> Result<u8> {
    let asked = named(at, None, transaction::next_of)?;
    if !agreed(yes, &format!("Redo {}?", asked.words))? {
        say("nothing was written")?;
        return Ok(FINDINGS);
    }
    let next = asked.id.filter(|_| !yes);
    let state_dir = at.state_dir.as_deref();
    tell_all(at, "redone", &transaction::redo_session(&at.image, state_dir, next, &Bars::new())?)
}

/// `vmrescue recover`
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    at: Where,
    /// Do not finish the operation: close it, leave the image as it is, and keep journal and record
    #[arg(long)]
    abandon: bool,
}

pub(super) fn recover(args: &RecoverArgs) -> Result<u8> {
    let at = &args.at;
    let state_dir = at.state_dir.as_deref();
    if args.abandon {
        return abandon(at);
    }
    match transaction::recover(&at.image, state_dir, &Bars::new())? {
        Some(done) if done.operation.state == OperationState::Undone && !done.written => {
            if at.json {
                say_json("recovered", json!({"operation": done.operation, "written": false}))?;
            } else {
                say(&format!(
                    "not done: {} is nowhere in this image, which holds what was there before; nothing was written",
                    done.operation.words()
                ))?;
            }
            Ok(CLEAN)
        }
        Some(done) => tell(at, "recovered", &done.operation),
        None => {
            if at.json {
                say_json("recovered", json!({"operation": null}))?;
            } else {
                say("nothing to recover: no operation was interrupted")?;
            }
            Ok(CLEAN)
        }
    }
}

fn abandon(at: &Where) -> Result<u8> {
    let done = transaction::abandon(&at.image, at.state_dir.as_deref())?;
    if at.json {
        let document =
            done.map(|done| json!({"operation": done.operation, "held": done.held, "kept": done.kept}));
        say_json("abandoned", document.unwrap_or_else(|| json!({"operation": null})))?;
        return Ok(CLEAN);
    }
    let Some(done) = done else {
        say("nothing to abandon: no operation was interrupted")?;
        return Ok(CLEAN);
    };
    if let Some(operation) = &done.operation {
        say(&format!("abandoned: {}; the image was not written", operation.words()))?;
    }
    say(&done.held)?;
    say(&format!("what is there of journal and record is kept in {}", done.kept.display()))?;
    Ok(CLEAN)
}

/// `vmrescue history`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    at: Option<Where>,
    #[command(subcommand)]
    command: Option<HistoryCommand>,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// Remove the journals of old operations, which can then no longer be undone, and what crashes left
    Gc {
        #[command(flatten)]
        at: Where,
        /// Journals of so many operations that stand are kept
        #[arg(long, value_name = "N", default_value_t = 10)]
        keep: usize,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        /// Show what would be removed, remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) fn run(args: &HistoryArgs) -> Result<u8> {
    match (&args.command, &args.at) {
        (Some(HistoryCommand::Gc { at, keep, yes, dry_run }), _) => gc(at, *keep, *yes, *dry_run),
        (None, Some(at)) => history(at),
        (None, None) => Err(super::no_image()),
    }
}

fn gc(at: &Where, keep: usize, yes: bool, dry_run: bool) -> Result<u8> {
    let state_dir = at.state_dir.as_deref();
    let found = transaction::gc(&at.image, state_dir, keep, false)?;
    let nothing = found.operations.is_empty() && found.leftovers.is_empty();
    if !at.json {
        for operation in &found.operations {
            say(&format!("can no longer be undone: {}", operation.words()))?;
        }
        found.leftovers.iter().try_for_each(|name| say(&format!("left by an interruption: {name}")))?;
        if nothing {
            say("nothing to remove")?;
        }
    }
    let removes = !nothing && !dry_run && agreed(yes, &format!("Free {}?", size(found.bytes)))?;
    let found = if removes { transaction::gc(&at.image, state_dir, keep, true)? } else { found };
    if at.json {
        let document = json!({"operations": found.operations, "leftovers": found.leftovers, "bytes": found.bytes,
            "removed": removes});
        say_json("history-gc", document)?;
    } else if removes {
        say(&format!("{} freed", size(found.bytes)))?;
    } else if !nothing {
        say(&format!("{} could be freed; nothing was removed", size(found.bytes)))?;
    }
    Ok(CLEAN)
}

/// For commands that only look: says in one line that the image is between two states. What cannot be told is said too.
pub(super) fn tell_unfinished(image: &Path) {
    match transaction::pending(image, None) {
        Ok(None) => {}
        Ok(Some(operation)) => say_error(&format!(
            "warning: {} on this image was interrupted ({}): what is shown may be half of it; run `vmrescue recover IMAGE`",
            operation.words(),
            operation.state.words()
        )),
        // An image that cannot be opened says so by itself.
        Err(e) if e.kind() == ErrorKind::Refused => say_error(&format!("warning: {e}")),
        Err(_) => {}
    }
}
