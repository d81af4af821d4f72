//! What is known of each image of a batch: a log of JSON Lines, the last line of an image counts.

use crate::error::{Error, Layer, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How far an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Begun; after a crash it is begun again.
    Running,
    /// Done and clean.
    Clean,
    /// Done, with findings or differences.
    Findings,
    /// Refused for safety.
    Refused,
    /// Failed.
    Failed,
    /// Stopped because it took too long.
    TimedOut,
}

impl Outcome {
    /// True when the image needs no more work.
    pub fn is_done(self) -> bool {
        matches!(self, Outcome::Clean | Outcome::Findings)
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Running => "running",
            Outcome::Clean => "clean",
            Outcome::Findings => "findings",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed out",
        }
    }
}

/// One line of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The image.
    pub image: PathBuf,
    /// How far it is.
    pub outcome: Outcome,
    /// Seconds that it took.
    pub seconds: f64,
    /// The reason of a failure, or nothing.
    pub message: String,
    /// The document that the command printed.
    pub result: serde_json::Value,
}

/// The state of a batch.
pub struct State {
    file: Mutex<File>,
    path: PathBuf,
    entries: Mutex<BTreeMap<PathBuf, Entry>>,
}

impl State {
    /// Opens the state in a folder, making both when they are not there. Lines that cannot be read (the last one of a crash) are not there.
    ///
    /// # Errors
    /// Of the host.
    pub fn open(folder: &Path) -> Result<State> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("cannot be made", folder, e))?;
        let path = folder.join("state.jsonl");
        let old = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io("cannot be read", &path, e)),
        };
        let lines = old.split(|byte| *byte == b'\n');
        let entries = lines
            .filter_map(|line| serde_json::from_slice::<Entry>(line).ok())
            .map(|entry| (entry.image.clone(), entry))
            .collect();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Error::io("cannot be opened", &path, e))?;
        if old.last().is_some_and(|byte| *byte != b'\n') {
            file.write_all(b"\n").map_err(|e| Error::io("cannot be written", &path, e))?;
        }
        Ok(State { file: Mutex::new(file), path, entries: Mutex::new(entries) })
    }

    /// What is known of an image.
    pub fn of(&self, image: &Path) -> Option<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }

    /// All images, by their path.
    pub fn all(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Notes an image, durably.
    ///
    /// # Errors
    /// Of the host.
    pub fn note(&self, entry: Entry) -> Result<()> {
        let mut line = serde_json::to_vec(&entry)
            .map_err(|e| Error::invalid(Layer::Cli, "the state cannot be written").caused_by(e))?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.write_all(&line).and_then(|()| file.sync_data());
        written.map_err(|e| Error::io("cannot be written", &self.path, e))?;
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.image.clone(), entry);
        Ok(())
    }
}
