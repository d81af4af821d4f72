//! What is known of each image of a batch: a log of JSON Lines, the last line of an image counts.
//!
//! The documents that the commands printed stay in the file; memory holds a few hundred bytes an image.

use super::job::{Job, Verb};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use vmrescue_base::error::{Error, Layer, Result};

/// Reports that a batch makes again with every run.
const REPORTS: [&str; 3] = ["report.csv", "report.html", "report.json"];

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
    /// Looked at, and what decides could not be read: neither clean nor with findings.
    CouldNotTell,
    /// Refused for safety.
    Refused,
    /// Another program holds the image.
    Busy,
    /// Failed.
    Failed,
    /// Stopped because it took too long.
    TimedOut,
    /// Another worker of the same job has it.
    Elsewhere,
}

impl Outcome {
    /// True when the image needs no more work.
    pub fn is_done(self) -> bool {
        matches!(self, Outcome::Clean | Outcome::Findings)
    }

    /// True when somebody has to look.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Outcome::CouldNotTell | Outcome::Refused | Outcome::Busy | Outcome::Failed | Outcome::TimedOut
        )
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Running => "running",
            Outcome::Clean => "clean",
            Outcome::Findings => "findings",
            Outcome::CouldNotTell => "could not tell",
            Outcome::Refused => "refused",
            Outcome::Busy => "busy",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed out",
            Outcome::Elsewhere => "elsewhere",
        }
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The image.
    pub image: PathBuf,
    /// How far it is.
    pub outcome: Outcome,
    /// Seconds that it took.
    pub seconds: f64,
    /// The reason of a failure, or nothing.
    pub message: String,
    /// Rules of the findings that there were, or are left.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Rules of the findings that a repair cured.
    #[serde(default)]
    pub fixed: Vec<String>,
    /// How many changes were made.
    #[serde(default)]
    pub changes: usize,
    /// The operation in the image's history.
    #[serde(default)]
    pub operation: Option<u32>,
    /// Number of the claim, when the job is shared.
    #[serde(default)]
    pub claim: Option<u32>,
    /// The document that the command printed; in memory `null` (see [`State::document`]).
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub result: serde_json::Value,
}

impl Entry {
    /// An entry without a result.
    pub fn new(image: &Path, outcome: Outcome, message: impl Into<String>) -> Entry {
        Entry {
            image: image.to_path_buf(),
            outcome,
            seconds: 0.0,
            message: message.into(),
            rules: Vec::new(),
            fixed: Vec::new(),
            changes: 0,
            operation: None,
            claim: None,
            result: serde_json::Value::Null,
        }
    }
}

/// An entry without its document, and where its line lies in the file.
struct Known {
    entry: Entry,
    line: (u64, usize),
}

/// The state of a batch.
pub struct State {
    log: Mutex<Log>,
    path: PathBuf,
    known: Mutex<BTreeMap<PathBuf, Known>>,
    id: String,
}

struct Log {
    file: File,
    end: u64,
}

/// What a folder of state belongs to.
#[derive(Serialize, Deserialize)]
struct Header {
    id: String,
    command: Verb,
    scripts: Vec<String>,
    set: BTreeMap<String, String>,
}

impl State {
    /// Opens the state of a job in a folder, making both when they are not there.
    ///
    /// # Errors
    /// `Refused` when the folder belongs to another job; of the host.
    pub fn open_for(folder: &Path, job: &Job) -> Result<State> {
        let path = folder.join("batch.json");
        std::fs::create_dir_all(folder).map_err(|e| Error::io("cannot be made", folder, e))?;
        match std::fs::read(&path) {
            Ok(bytes) => {
                let old: Header = serde_json::from_slice(&bytes).map_err(|e| {
                    Error::damaged(Layer::Batch, "the folder's job cannot be read")
                        .in_file(&path)
                        .caused_by(e)
                })?;
                if (old.command, &old.scripts, &old.set) != (job.command, &job.scripts, &kept(job)) {
                    return Err(Error::refused(Layer::Batch, "this folder belongs to another job")
                        .in_file(&path)
                        .found(format!("{} {}", old.command.name(), old.scripts.join(" ")))
                        .advice("use another folder with --out"));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                refuse_foreign(folder)?;
                let header = Header {
                    id: vmrescue_base::guid::Guid::random().to_string(),
                    command: job.command,
                    scripts: job.scripts.clone(),
                    set: kept(job),
                };
                let bytes = serde_json::to_vec_pretty(&header)
                    .map_err(|e| Error::invalid(Layer::Batch, "the state cannot be written").caused_by(e))?;
                vmrescue_transaction::write_privately(&path, &bytes)?;
            }
            Err(e) => return Err(Error::io("cannot be read", &path, e)),
        }
        State::open(folder)
    }

    /// Opens the state in a folder, making both when they are not there. A last line without an end, which a crash left and
    /// nobody was told of, is cut off.
    ///
    /// # Errors
    /// `Damaged` for any other line that cannot be read: it may name an operation that can be undone; of the host.
    pub fn open(folder: &Path) -> Result<State> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("cannot be made", folder, e))?;
        let header = read_header(&folder.join("batch.json"))?;
        let path = folder.join("state.jsonl");
        let failed = |e| Error::io("cannot be read", &path, e);
        match std::fs::symlink_metadata(&path) {
            Ok(there) if !there.is_file() => {
                return Err(Error::refused(
                    Layer::Batch,
                    "the state is a link or a device, not a file of this folder",
                )
                .in_file(&path)
                .advice("use another folder with --out"));
            }
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        // What is found of machines and what was done to them is for the owner alone.
        match vmrescue_block::create_private(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        let file = OpenOptions::new().create(true).append(true).read(true).open(&path).map_err(failed)?;
        let (known, end, torn) = read_lines(&file, &path)?;
        if torn {
            file.set_len(end).map_err(|e| Error::io("cannot be written", &path, e))?;
        }
        let id = header.map(|header| header.id).unwrap_or_default();
        Ok(State { log: Mutex::new(Log { file, end }), path, known: Mutex::new(known), id })
    }

    /// The batch's own name, which stands in the history of every image that it changes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is known of an image.
    pub fn of(&self, image: &Path) -> Option<Entry> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(image).map(|known| known.entry.clone())
    }

    /// All images, by their path.
    pub fn all(&self) -> Vec<Entry> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().map(|known| known.entry.clone()).collect()
    }

    /// The document that the command printed for an image.
    ///
    /// # Errors
    /// Of the host.
    pub fn document(&self, image: &Path) -> Result<serde_json::Value> {
        let place =
            self.known.lock().unwrap_or_else(PoisonError::into_inner).get(image).map(|known| known.line);
        let Some((offset, length)) = place else { return Ok(serde_json::Value::Null) };
        let mut bytes = vec![0; length];
        let mut file = File::open(&self.path).map_err(|e| Error::io("cannot be read", &self.path, e))?;
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|e| Error::io("cannot be read", &self.path, e))?;
        let entry: Option<Entry> = serde_json::from_slice(&bytes).ok();
        Ok(entry.map(|entry| entry.result).unwrap_or_default())
    }

    /// Notes an image, durably.
    ///
    /// # Errors
    /// Of the host.
    pub fn note(&self, mut entry: Entry) -> Result<()> {
        let mut line = serde_json::to_vec(&entry)
            .map_err(|e| Error::invalid(Layer::Batch, "the state cannot be written").caused_by(e))?;
        line.push(b'\n');
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let written = log.file.write_all(&line).and_then(|()| log.file.sync_data());
        written.map_err(|e| Error::io("cannot be written", &self.path, e))?;
        let place = (log.end, line.len() - 1);
        log.end += line.len() as u64;
        entry.result = serde_json::Value::Null;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(entry.image.clone(), Known { entry, line: place });
        Ok(())
    }

    /// Takes over what other states know better: an image that is done there and not here, or is not known here.
    ///
    /// # Errors
    /// Of the host.
    pub fn merge(&self, other: &State) -> Result<()> {
        let rank = |outcome: Outcome| match outcome {
            Outcome::Elsewhere => 0,
            Outcome::Running => 1,
            outcome if outcome.is_failure() => 2,
            _ => 3,
        };
        for mut entry in other.all() {
            let better = self.of(&entry.image).is_none_or(|own| {
                (rank(entry.outcome), entry.claim, entry.changes)
                    > (rank(own.outcome), own.claim, own.changes)
            });
            if better {
                entry.result = other.document(&entry.image)?;
                self.note(entry)?;
            }
        }
        Ok(())
    }
}

/// What stands in the state of a job's parameters: secret ones as a hash, which tells two of them apart.
fn kept(job: &Job) -> BTreeMap<String, String> {
    let keep = |(name, value): (&String, &String)| {
        let hash = || format!("sha256:{}", vmrescue_base::text::hex(&Sha256::digest(value.as_bytes())));
        (name.clone(), if job.secret.contains(name) { hash() } else { value.clone() })
    };
    job.set.iter().map(keep).collect()
}

/// A folder that is new to this program gets reports: none of somebody else's is written over.
fn refuse_foreign(folder: &Path) -> Result<()> {
    match REPORTS.iter().map(|name| folder.join(name)).find(|path| path.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(path) => {
            Err(Error::refused(Layer::Batch, "the folder has a report that this program did not make")
                .in_file(path)
                .advice("use another folder with --out"))
        }
    }
}

/// What the folder belongs to; `None` for a folder that belongs to nothing yet.
fn read_header(path: &Path) -> Result<Option<Header>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot be read", path, e)),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            Error::damaged(Layer::Batch, "the folder's job cannot be read").in_file(path).caused_by(e)
        }),
    }
}

/// The last line of each image, the length of all whole lines, and whether something without an end follows them.
fn read_lines(file: &File, path: &Path) -> Result<(BTreeMap<PathBuf, Known>, u64, bool)> {
    let mut reader = BufReader::new(file);
    let (mut known, mut at, mut line, mut number) = (BTreeMap::new(), 0u64, Vec::new(), 0u64);
    loop {
        line.clear();
        number += 1;
        let count = reader.read_until(b'\n', &mut line).map_err(|e| Error::io("cannot be read", path, e))?;
        if count == 0 {
            return Ok((known, at, false));
        }
        if line.last() != Some(&b'\n') {
            return Ok((known, at, true));
        }
        if count > 1 {
            let mut entry: Entry = serde_json::from_slice(&line).map_err(|e| {
                Error::damaged(Layer::Batch, format!("line {number} of the state cannot be read"))
                    .at(at)
                    .in_file(path)
                    .caused_by(e)
                    .advice(
                        "it may name an operation on an image: restore the file, or remove the line when the image's own history is enough",
                    )
            })?;
            entry.result = serde_json::Value::Null;
            known.insert(entry.image.clone(), Known { entry, line: (at, count - 1) });
        }
        at += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_base::ErrorKind;

    #[test]
    fn a_torn_end_is_cut_off_and_no_other_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        state.note(Entry::new(Path::new("a"), Outcome::Clean, "")).unwrap();
        state.note(Entry::new(Path::new("b"), Outcome::Failed, "why")).unwrap();
        drop(state);
        let path = dir.path().join("state.jsonl");
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..20 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let state = State::open(dir.path()).unwrap();
            assert_eq!(state.all().len(), 1, "{cut}");
            state.note(Entry::new(Path::new("c"), Outcome::Clean, "")).unwrap();
            drop(state);
            assert_eq!(State::open(dir.path()).unwrap().all().len(), 2, "{cut}");
        }
        let mut bad = whole.clone();
        bad[3] = b'#';
        std::fs::write(&path, &bad).unwrap();
        let e = State::open(dir.path()).map(drop).unwrap_err();
        assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("line 1"), "{e}");
        assert_eq!(std::fs::read(&path).unwrap(), bad, "what cannot be read is left as it is");
    }

    #[test]
    fn a_folder_with_somebody_elses_report_is_refused_and_secrets_are_hashed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("report.csv"), "mine").unwrap();
        let mut job = Job { set: [("password".to_string(), "hidden".to_string())].into(), ..Job::default() };
        job.secret.insert("password".into());
        assert_eq!(State::open_for(dir.path(), &job).map(drop).unwrap_err().kind(), ErrorKind::Refused);
        std::fs::remove_file(dir.path().join("report.csv")).unwrap();
        State::open_for(dir.path(), &job).unwrap();
        State::open_for(dir.path(), &job).unwrap();
        let text = std::fs::read_to_string(dir.path().join("batch.json")).unwrap();
        assert!(text.contains("sha256:") && !text.contains("hidden"), "{text}");
        job.set.insert("password".into(), "other".into());
        assert!(State::open_for(dir.path(), &job).is_err());
    }
}
