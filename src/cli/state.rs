//! How the volumes were left, as `info` shows it.

use serde_json::{Value, json};
use vmrescue_fs::ntfs::{LogState, Replay, VolumeState};
use vmrescue_windows::Volume;

/// The state of a volume: `null` for a file system that does not say.
pub(super) fn json_of(volume: &Volume) -> Value {
    let Some(fs) = &volume.fs else { return Value::Null };
    match fs.state() {
        Ok(None) => Value::Null,
        Err(error) => json!({"error": error.to_string()}),
        Ok(Some(state)) => json!({
            "dirty": state.dirty,
            "log": log_json(&state),
            "hibernation": {"state": state.hibernation.name(), "would_be_lost": state.hibernation.loss()},
        }),
    }
}

fn log_json(state: &VolumeState) -> Value {
    let version = match state.log {
        LogState::Clean(major, minor) | LogState::NotClean(major, minor) => Some(format!("{major}.{minor}")),
        _ => None,
    };
    let mut log = json!({"state": state.log.name(), "version": version});
    match &state.replay {
        Replay::NotNeeded => log["replay"] = json!("not-needed"),
        Replay::Done(counts) => {
            log["replay"] = json!("done");
            log["records"] = json!(counts.records);
            log["redone"] = json!(counts.redone);
            log["undone"] = json!(counts.undone);
            log["transactions_undone"] = json!(counts.transactions);
        }
        Replay::Impossible(why) => {
            log["replay"] = json!("impossible");
            log["why"] = json!(why);
        }
    }
    log
}

/// What is worth a line: nothing for a volume that was left cleanly.
pub(super) fn lines_of(volume: &Volume) -> Vec<String> {
    let Some(state) = volume.fs.as_ref().and_then(|fs| fs.state().ok().flatten()) else { return Vec::new() };
    let mut lines = Vec::new();
    if state.dirty {
        lines.push("marked dirty: Windows will check it on its next start".to_string());
    }
    match (&state.replay, state.log) {
        (Replay::Done(counts), _) => lines.push(format!(
            "log not clean: shown as replayed ({} records, {} operations done again, {} of {} transactions taken back)",
            counts.records, counts.redone, counts.undone, counts.transactions
        )),
        (Replay::Impossible(why), _) => {
            lines.push(format!("log not clean and not to be replayed, shown as it lies there: {why}"));
        }
        (Replay::NotNeeded, LogState::Unknown) => {
            lines.push("log unreadable: it may hold changes that were not finished".to_string());
        }
        (Replay::NotNeeded, _) => {}
    }
    lines.extend(state.hibernation.loss().map(ToString::to_string));
    lines
}
