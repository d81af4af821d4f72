//! What a batch tells the processes that it begins, through their environment.

use super::stop;
use std::io::Read;
use std::sync::{Arc, OnceLock};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_batch::{BATCH, CLAIM, Claim, MEMORY, SECRETS_ON_INPUT, Secrets, WORKER, mark};
use vmrescue_repair::Gate;

static SECRETS: OnceLock<Secrets> = OnceLock::new();

/// What the batch said through standard input; nothing without a batch.
pub(super) fn secrets() -> Secrets {
    SECRETS.get().cloned().unwrap_or_default()
}

/// Keeps to what the batch said, when this process was begun by one.
pub(super) fn settle() -> Result<()> {
    if std::env::var_os(WORKER).is_none() {
        return Ok(());
    }
    stop::ignore();
    if std::env::var_os(SECRETS_ON_INPUT).is_some() {
        // The text of an error could hold what was read: only the place is told.
        let wrong = |place: String| {
            Error::invalid(Layer::Batch, "the secrets of the batch cannot be read").found(place)
        };
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map_err(|e| wrong(e.kind().to_string()))?;
        let secrets = serde_json::from_str(&text).map_err(|e| wrong(format!("column {}", e.column())))?;
        SECRETS.get_or_init(|| secrets);
    }
    if let Ok(memory) = std::env::var(MEMORY) {
        let wrong = || Error::invalid(Layer::Batch, "the limit of memory is no number").found(&memory);
        let mib: u64 = memory.parse().map_err(|_| wrong())?;
        vmrescue_block::limit_memory(mib << 20)?;
    }
    Ok(())
}

/// The words of this command for the history, with the batch's name.
pub(super) fn command_words() -> Vec<String> {
    let batch = std::env::var(BATCH).ok().filter(|batch| !batch.is_empty());
    super::keys::without_secrets(super::keys::words().skip(1))
        .into_iter()
        .chain(batch.map(|batch| mark(&batch)))
        .collect()
}

/// The check of the claim right before the image is written.
///
/// # Errors
/// `Invalid` when the claim in the environment cannot be read: then nothing must be written.
pub(super) fn gate() -> Result<Option<Gate>> {
    let Ok(text) = std::env::var(CLAIM) else { return Ok(None) };
    let claim: Claim = serde_json::from_str(&text)
        .map_err(|e| Error::invalid(Layer::Batch, "the claim cannot be read").caused_by(e))?;
    Ok(Some(Gate(Arc::new(move || claim.check()))))
}
