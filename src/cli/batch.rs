//! `batch`: one command over many images, resumable, with reports.

use super::{CLEAN, FINDINGS, agreed, say, say_error, say_json};
use crate::batch::{BatchOptions, Entry, Outcome, State, Verb, csv, html, plan_images, run_batch};
use crate::error::{Error, Layer, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Some images failed.
const SOME_FAILED: u8 = 4;

/// The images and how they are worked on.
#[derive(Debug, Args)]
pub(super) struct Job {
    /// Images, folders of images, or @FILE with a path a line
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Folder for the state and the reports; the same command with the same folder goes on where it stopped
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Images at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Seconds for one image
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    time_limit: u64,
    /// Begin no more images after so many failures
    #[arg(long, value_name = "N")]
    max_failures: Option<usize>,
    /// So many images first; when one of them fails the others are not begun
    #[arg(long, value_name = "N", default_value_t = 0)]
    canary: usize,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// `vmrescue batch ...`
#[derive(Debug, Subcommand)]
pub(super) enum Batch {
    /// Inspect every image
    Inspect(Job),
    /// Diagnose every image
    Diagnose(Job),
    /// Repair every image: the safe fixes, or scripts that you name
    Repair {
        #[command(flatten)]
        job: Job,
        /// Name of a script; may be repeated
        #[arg(long)]
        script: Vec<String>,
        /// Parameter of a script
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Take back the last operation on every image that a batch repaired
    Undo {
        /// Folder of the batch
        out: PathBuf,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// How far a batch is
    Status {
        /// Folder of the batch
        out: PathBuf,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
}

fn options(verb: Verb, job: &Job, words: Vec<String>) -> Result<BatchOptions> {
    let program =
        std::env::current_exe().map_err(|e| Error::io("this program cannot be found", "vmrescue", e))?;
    Ok(BatchOptions {
        program,
        verb,
        words,
        jobs: job.jobs,
        time_limit: job.time_limit,
        max_failures: job.max_failures,
        canary: job.canary,
    })
}

pub(super) fn batch(command: Batch) -> Result<u8> {
    match command {
        Batch::Inspect(job) => run(Verb::Inspect, &job, Vec::new()),
        Batch::Diagnose(job) => run(Verb::Diagnose, &job, Vec::new()),
        Batch::Repair { job, script, set, yes } => {
            let images = plan_images(&job.images)?;
            if !agreed(yes, &format!("Repair {} images?", images.len()))? {
                say("nothing was written")?;
                return Ok(CLEAN);
            }
            let mut words = script;
            words.push("--yes".to_string());
            words.extend(set.into_iter().flat_map(|set| ["--set".to_string(), set]));
            run(Verb::Repair, &job, words)
        }
        Batch::Undo { out, yes } => undo(&out, yes),
        Batch::Status { out, json } => {
            let entries = State::open(&out)?.all();
            if json {
                say_json("batch-status", json!({"images": entries}))?;
            } else {
                entries.iter().try_for_each(|entry| say(&line(entry)))?;
            }
            Ok(code(&entries, true))
        }
    }
}

fn line(entry: &Entry) -> String {
    let reason = entry.message.lines().next().unwrap_or_default();
    format!("{:<9}  {:>7.2} s  {}  {reason}", entry.outcome.words(), entry.seconds, entry.image.display())
}

fn code(entries: &[Entry], complete: bool) -> u8 {
    if !complete || entries.iter().any(|entry| !entry.outcome.is_done()) {
        SOME_FAILED
    } else if entries.iter().any(|entry| entry.outcome == Outcome::Findings) {
        FINDINGS
    } else {
        CLEAN
    }
}

fn run(verb: Verb, job: &Job, words: Vec<String>) -> Result<u8> {
    let images = plan_images(&job.images)?;
    let state = State::open(&job.out)?;
    let tell =
        |entry: &Entry, done: usize, total: usize| say_error(&format!("{done}/{total}  {}", line(entry)));
    let complete = run_batch(&images, &state, &options(verb, job, words)?, &tell)?;
    let entries: Vec<Entry> = state.all().into_iter().filter(|entry| images.contains(&entry.image)).collect();
    report(&job.out, verb, &entries, complete)?;
    let count = |outcome| entries.iter().filter(|entry| entry.outcome == outcome).count();
    if job.json {
        say_json("batch", document(verb, &entries, complete))?;
    } else {
        let failed = entries.iter().filter(|entry| !entry.outcome.is_done()).count();
        say(&format!(
            "{} images: {} clean, {} with findings, {failed} failed, {} not begun",
            images.len(),
            count(Outcome::Clean),
            count(Outcome::Findings),
            images.len() - entries.len()
        ))?;
        say(&format!("reports: {}", job.out.join("report.html").display()))?;
    }
    Ok(code(&entries, complete))
}

fn document(verb: Verb, entries: &[Entry], complete: bool) -> serde_json::Value {
    let failed = entries.iter().filter(|entry| !entry.outcome.is_done()).count();
    json!({"command": verb.name(), "complete": complete, "total": entries.len(), "failed": failed, "images": entries})
}

fn report(out: &Path, verb: Verb, entries: &[Entry], complete: bool) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|e| Error::io("cannot be written", &path, e))
    };
    let text = serde_json::to_string_pretty(&document(verb, entries, complete))
        .map_err(|e| Error::invalid(Layer::Cli, "the report cannot be written").caused_by(e))?;
    write("report.json", text)?;
    write("report.csv", csv(entries))?;
    write("report.html", html(entries, verb.name()))
}

/// Takes back what was published: images whose result names an operation.
fn undo(out: &Path, yes: bool) -> Result<u8> {
    let repaired: Vec<PathBuf> = State::open(out)?
        .all()
        .into_iter()
        .filter(|entry| entry.outcome.is_done() && !entry.result["operation"].is_null())
        .map(|entry| entry.image)
        .collect();
    if !agreed(yes, &format!("Undo the repair of {} images?", repaired.len()))? {
        say("nothing was written")?;
        return Ok(CLEAN);
    }
    let job = Job {
        images: repaired.clone(),
        out: out.join("undo"),
        jobs: 2,
        time_limit: 600,
        max_failures: None,
        canary: 0,
        json: false,
    };
    if repaired.is_empty() {
        say("nothing to undo")?;
        return Ok(CLEAN);
    }
    run(Verb::Undo, &job, vec!["--yes".to_string()])
}
