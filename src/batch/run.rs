//! Runs one command over many images, several at a time, each in a process of its own.

use super::state::{Entry, Outcome, State};
use crate::block::{Disk, HostFile};
use crate::error::{Error, Layer, Result};
use crate::image;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is done with each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `inspect`
    Inspect,
    /// `diagnose`
    Diagnose,
    /// `repair`
    Repair,
    /// `undo`
    Undo,
}

impl Verb {
    /// The command's name.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Inspect => "inspect",
            Verb::Diagnose => "diagnose",
            Verb::Repair => "repair",
            Verb::Undo => "undo",
        }
    }
}

/// How a batch runs.
#[derive(Debug, Clone)]
pub struct BatchOptions {
    /// This program, for the processes.
    pub program: PathBuf,
    /// What is done.
    pub verb: Verb,
    /// More words of the command, after the image.
    pub words: Vec<String>,
    /// Images at a time.
    pub jobs: usize,
    /// Seconds for one image.
    pub time_limit: u64,
    /// After so many failures no more images are begun.
    pub max_failures: Option<usize>,
    /// So many images first, one after the other; when one fails, the others are not begun.
    pub canary: usize,
}

/// The images of a job: files, folders of disks, and lists (`@FILE`, a path a line).
///
/// # Errors
/// `Refused` when an image is named twice or is the parent of another one; of the host.
pub fn plan_images(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for path in given {
        let text = path.to_string_lossy();
        if let Some(list) = text.strip_prefix('@') {
            let lines =
                std::fs::read_to_string(list).map_err(|e| Error::io("the list cannot be read", list, e))?;
            images.extend(lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(PathBuf::from));
        } else if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|e| Error::io("cannot be read", path, e))?;
            let mut found: Vec<PathBuf> =
                entries.flatten().map(|entry| entry.path()).filter(|path| is_disk(path)).collect();
            found.sort();
            images.extend(found);
        } else {
            images.push(path.clone());
        }
    }
    let mut seen: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for image in &images {
        let real = std::fs::canonicalize(image).unwrap_or_else(|_| image.clone());
        if let Some(first) = seen.insert(real, image.clone()) {
            return Err(Error::refused(Layer::Cli, "an image is named twice")
                .in_file(image)
                .found(first.display())
                .advice("name it once: two workers on one disk would destroy it"));
        }
    }
    for image in &images {
        for parent in image::parents(image, &image::OpenOptions::default()).unwrap_or_default() {
            let real = std::fs::canonicalize(&parent).unwrap_or(parent);
            if seen.contains_key(&real) {
                return Err(Error::refused(Layer::Cli, "an image is the parent of another one")
                    .in_file(&real)
                    .found(image.display())
                    .advice("name the child only: it shows the machine as it is now"));
            }
        }
    }
    Ok(images)
}

fn is_disk(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let named = ["vhd", "vhdx", "avhd", "avhdx", "img", "raw"].iter().any(|known| extension == *known);
    named && HostFile::open_read(path).is_ok_and(|file| !Disk::new(Arc::new(file)).is_empty())
}

/// Runs the batch; images that are done already are left out. `tell` hears of every image that ends. False when it stopped early.
///
/// # Errors
/// Of the state; what goes wrong with an image is its outcome.
pub fn run_batch(
    images: &[PathBuf],
    state: &State,
    options: &BatchOptions,
    tell: &(dyn Fn(&Entry, usize, usize) + Sync),
) -> Result<bool> {
    let open: Vec<&PathBuf> =
        images.iter().filter(|image| !state.of(image).is_some_and(|entry| entry.outcome.is_done())).collect();
    let (canaries, rest) = open.split_at(options.canary.min(open.len()));
    let (total, done) = (open.len(), AtomicUsize::new(0));
    let failures = AtomicUsize::new(0);
    let limit = options.max_failures.unwrap_or(usize::MAX);
    let work = |image: &PathBuf| -> Result<()> {
        let entry = one(image, state, options)?;
        if !entry.outcome.is_done() {
            failures.fetch_add(1, Ordering::SeqCst);
        }
        tell(&entry, done.fetch_add(1, Ordering::SeqCst) + 1, total);
        Ok(())
    };
    for image in canaries {
        work(image)?;
    }
    if failures.load(Ordering::SeqCst) > 0 && !canaries.is_empty() {
        return Ok(rest.is_empty());
    }
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, 64) {
            scope.spawn(|| {
                while failures.load(Ordering::SeqCst) < limit {
                    let Some(image) = rest.get(next.fetch_add(1, Ordering::SeqCst)) else { break };
                    if let Err(e) = work(image) {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        break;
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(done.load(Ordering::SeqCst) == total),
    }
}

/// One image: what a crash left is recovered first, then the command runs.
fn one(image: &Path, state: &State, options: &BatchOptions) -> Result<Entry> {
    let begun = Instant::now();
    let entry = |outcome, message: String, result| Entry {
        image: image.to_path_buf(),
        outcome,
        seconds: begun.elapsed().as_secs_f64(),
        message,
        result,
    };
    let was_running = state.of(image).is_some_and(|entry| entry.outcome == Outcome::Running);
    state.note(entry(Outcome::Running, String::new(), serde_json::Value::Null))?;
    let limit = Duration::from_secs(options.time_limit);
    if was_running && options.verb != Verb::Diagnose && options.verb != Verb::Inspect {
        let mut recover = Command::new(&options.program);
        recover.arg("recover").arg(image);
        finished(&mut recover, limit);
    }
    let mut command = Command::new(&options.program);
    command.arg(options.verb.name()).arg(image).arg("--json").args(&options.words);
    let ended = match finished(&mut command, limit) {
        None => entry(
            Outcome::TimedOut,
            format!("longer than {} seconds", options.time_limit),
            serde_json::Value::Null,
        ),
        Some((code, out, message)) => {
            let result = serde_json::from_slice(&out).unwrap_or(serde_json::Value::Null);
            let outcome = match code {
                Some(0) => Outcome::Clean,
                Some(1) => Outcome::Findings,
                Some(3) => Outcome::Refused,
                _ => Outcome::Failed,
            };
            entry(outcome, message.trim().to_string(), result)
        }
    };
    state.note(ended.clone())?;
    Ok(ended)
}

/// Runs a process to its end: exit code (none when it was killed), standard output, standard error; `None` when it took too long or could not be begun.
fn finished(command: &mut Command, limit: Duration) -> Option<(Option<i32>, Vec<u8>, String)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return Some((None, Vec::new(), format!("the process could not be begun: {e}"))),
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let out = scope.spawn(move || read_all(out));
        let err = scope.spawn(move || read_all(err));
        let begun = Instant::now();
        let mut pause = Duration::from_millis(2);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if begun.elapsed() < limit => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
                _ => {
                    let _killed = child.kill();
                    let _waited = child.wait();
                    break None;
                }
            }
        };
        let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        status.map(|status| (status.code(), out, String::from_utf8_lossy(&err).into_owned()))
    })
}

fn read_all(from: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _end = from.read_to_end(&mut bytes);
    }
    bytes
}
