//! `batch`: one job over many images, resumable, in waves, shared by machines, with reports.

use super::keys::KeyArgs;
use super::output;
use super::settings::Settings;
use super::watch::Lines;
use super::{CLEAN, ERROR, FINDINGS, agreed, say, say_json};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_batch::{
    Entry, Job, KeyWords, Leases, Outcome, Override, Size, State, Verb, Worker, csv, diff, html, plan_images,
    run_batch,
};

/// Some images failed.
const SOME_FAILED: u8 = 4;
/// `run-one`: try again later (`EX_TEMPFAIL`).
const TRY_LATER: u8 = 75;

/// The images and how they are worked on.
#[derive(Debug, Args)]
pub(super) struct Images {
    /// Images, patterns, folders of images, or @FILE with a path a line
    #[arg(required = true)]
    images: Vec<String>,
    /// Folder for the state and the reports; the same command with the same folder goes on where it stopped
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Images at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Images at a time on one disk of this machine
    #[arg(long, value_name = "N")]
    per_disk: Option<usize>,
    /// Seconds for one image
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    time_limit: u64,
    /// Memory for one image
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// Begin no more images after so many failures
    #[arg(long, value_name = "N")]
    max_failures: Option<usize>,
    /// Continue after failures (default)
    #[arg(long, conflicts_with_all = ["max_failures", "max_failure_percent"])]
    keep_going: bool,
    /// Begin no more images after a wave with a larger share of failures
    #[arg(long, value_name = "PERCENT")]
    max_failure_percent: Option<f64>,
    /// A rule whose findings are no surprise; may be repeated
    #[arg(long, value_name = "RULE")]
    expect: Vec<String>,
    /// Begin no more images after a wave with a larger share of images with other findings
    #[arg(long, value_name = "PERCENT")]
    max_unexpected_percent: Option<f64>,
    /// Process this many images first; when one of them fails the others are not started
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    canary: usize,
    /// Sizes of the waves that follow: numbers, shares such as 25%, rest
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    wave: Vec<Size>,
    /// Only the I-th of N parts of the images, for several machines
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Folder that several machines share: each claims an image before it works on it
    #[arg(long, value_name = "DIR")]
    lease: Option<PathBuf>,
    /// How long a claim holds without a sign of life; the machines' clocks must agree better than that
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    lease_seconds: u64,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

/// `vmrescue batch ...`
#[derive(Debug, Subcommand)]
pub(super) enum Batch {
    /// Inspect every image
    Inspect(Images),
    /// Diagnose every image
    Diagnose(Images),
    /// Repair every image: the safe fixes, or scripts that you name
    Repair {
        #[command(flatten)]
        images: Images,
        /// Name of a script; may be repeated
        #[arg(long)]
        script: Vec<String>,
        #[command(flatten)]
        set: Settings,
        /// Folder for journals and history, instead of beside each image
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// Do not ask, not after the canaries either
        #[arg(long, short)]
        yes: bool,
    },
    /// Take back what a batch did to its images, or to some of them
    Undo {
        /// Folder of the batch
        out: PathBuf,
        /// Only these images: paths or patterns
        images: Vec<String>,
        /// Folder for journals and history, when the batch had one
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
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
    /// What differs between two batches: outcomes and findings
    Diff {
        /// Folder of the first batch
        first: PathBuf,
        /// Folder of the second batch
        second: PathBuf,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Put the states of several machines together, with reports
    Merge {
        /// Folder of the result
        out: PathBuf,
        /// Folders of the batches
        #[arg(required = true)]
        from: Vec<PathBuf>,
    },
    /// One job on one image, for queues and schedulers: 0 done, 75 try again later, other: failed
    RunOne {
        /// Job (JSON or TOML) that names one image
        job: PathBuf,
        #[command(flatten)]
        keys: KeyArgs,
    },
}

/// `vmrescue batch`, with a job or a command.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(super) struct BatchArgs {
    /// A job: a TOML or JSON file
    job: Option<PathBuf>,
    /// Folder for the state and the reports, instead of the job's own
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only the I-th of N parts of the images
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Do not ask, not after the canaries either
    #[arg(long, short)]
    yes: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(subcommand)]
    command: Option<Batch>,
}

/// How the user wants to hear of it.
struct Manner {
    yes: bool,
    json: bool,
    /// Words for the processes of the images; never in the state or a report.
    keys: KeyWords,
}

impl Manner {
    /// Keys are read here too, so that one that is none is told once and not by each image.
    fn new(yes: bool, json: bool, keys: &KeyArgs) -> Result<Manner> {
        keys.keys()?;
        Ok(Manner { yes, json, keys: keys.words() })
    }
}

fn job_of(verb: Verb, given: &Images) -> Job {
    Job {
        command: verb,
        images: given.images.clone(),
        out: Some(given.out.clone()),
        jobs: given.jobs,
        per_disk: given.per_disk,
        time_limit: given.time_limit,
        memory_mib: given.memory,
        max_failures: given.max_failures,
        max_failure_percent: given.max_failure_percent,
        expected: given.expect.clone(),
        max_unexpected_percent: given.max_unexpected_percent,
        canary: given.canary,
        waves: given.wave.clone(),
        shard: given.shard.clone(),
        lease: given.lease.clone(),
        lease_seconds: given.lease_seconds,
        ..Job::default()
    }
}

pub(super) fn batch(args: BatchArgs) -> Result<u8> {
    let Some(command) = args.command else {
        let path = args.job.ok_or_else(|| Error::invalid(Layer::Batch, "no job was named"))?;
        let mut job = Job::read(&path)?;
        job.out = args.out.or(job.out);
        job.shard = args.shard.or(job.shard);
        return run(&job, &Manner::new(args.yes, args.json, &args.keys)?);
    };
    match command {
        Batch::Inspect(images) => {
            run(&job_of(Verb::Inspect, &images), &Manner::new(true, images.json, &images.keys)?)
        }
        Batch::Diagnose(images) => {
            run(&job_of(Verb::Diagnose, &images), &Manner::new(true, images.json, &images.keys)?)
        }
        Batch::Repair { images, script, set, state_dir, yes } => {
            let mut job = job_of(Verb::Repair, &images);
            (job.scripts, job.set, job.state_dir) = (script, set.named()?, state_dir);
            run(&job, &Manner::new(yes, images.json, &images.keys)?)
        }
        Batch::Undo { out, images, state_dir, yes } => undo(&out, &images, state_dir, yes),
        Batch::Status { out, json } => status(&out, json),
        Batch::Diff { first, second, json } => differences(&first, &second, json),
        Batch::Merge { out, from } => merge(&out, &from),
        Batch::RunOne { job, keys } => run_one(&job, &keys),
    }
}

/// A line for an image that ended.
pub(super) fn line(entry: &Entry) -> String {
    let reason = entry.message.lines().next().unwrap_or_default();
    let rules = if reason.is_empty() { entry.rules.join(", ") } else { reason.to_string() };
    format!("{:<9}  {:>7.2} s  {}  {rules}", entry.outcome.words(), entry.seconds, entry.image.display())
        .trim_end()
        .to_string()
}

fn code(entries: &[Entry], complete: bool) -> u8 {
    let failed =
        |entry: &Entry| entry.outcome.is_failure() || (entry.outcome == Outcome::Running && complete);
    if !complete || entries.iter().any(failed) {
        SOME_FAILED
    } else if entries.iter().any(|entry| entry.outcome == Outcome::Findings) {
        FINDINGS
    } else {
        CLEAN
    }
}

fn existing(out: &Path) -> Result<State> {
    if !out.join("state.jsonl").is_file() {
        return Err(Error::not_found(Layer::Batch, "there is no batch in this folder").in_file(out));
    }
    State::open(out)
}

fn worker_of(job: &Job, batch: &str, keys: &KeyWords) -> Result<Worker> {
    let program =
        std::env::current_exe().map_err(|e| Error::io("this program cannot be found", "vmrescue", e))?;
    let owner = format!("{}:{}", vmrescue_block::host_name(), std::process::id());
    Ok(Worker {
        program,
        verb: job.command,
        batch: batch.to_string(),
        memory_mib: job.memory_mib,
        state_dir: job.state_dir.clone(),
        keys: keys.clone(),
        leases: job.lease.clone().map(|dir| Leases { dir, owner, seconds: job.lease_seconds.max(3) }),
    })
}

/// The job, with the names of its secret parameters.
fn with_secrets(job: &Job) -> Result<Job> {
    let known = super::scripts::known(None)?;
    // A script that is not there is told by every worker.
    let chosen: Vec<_> =
        job.scripts.iter().filter_map(|name| super::scripts::script(&known, name).ok()).collect();
    Ok(Job { secret: super::settings::names_of_secrets(&chosen), ..job.clone() })
}

fn run(job: &Job, manner: &Manner) -> Result<u8> {
    let job = &with_secrets(job)?;
    let out = job.out.clone().ok_or_else(|| {
        Error::invalid(Layer::Batch, "no folder for the state")
            .advice("add out = \"DIR\" to the job, or --out")
    })?;
    let images = plan_images(job)?;
    let state = State::open_for(&out, job)?;
    if job.command.writes() && job.canary == 0 {
        let question = format!("{} {} images?", job.command.name(), images.len());
        if !agreed(manner.yes, &question)? {
            say("nothing was written")?;
            return Ok(FINDINGS);
        }
    }
    let stop = super::stop::on_request();
    let lines = Lines::new(images.len(), manner.yes || !job.command.writes(), &state);
    let ending = run_batch(&images, job, &state, &worker_of(job, state.id(), &manner.keys)?, &lines, stop)?;
    lines.finish();
    let entries: Vec<Entry> = images.iter().filter_map(|image| state.of(image)).collect();
    report(&out, job.command, &state, &entries, images.len(), ending.stopped.as_deref())?;
    if manner.json {
        let mut all = document(job.command, &entries, images.len(), ending.stopped.as_deref());
        all["images"] =
            entries.iter().map(|entry| full(&state, entry)).collect::<Result<Vec<Value>>>()?.into();
        say_json("batch", all)?;
    } else {
        say_totals(&entries, images.len(), ending.stopped.as_deref())?;
        say(&format!("reports: {}", out.join("report.html").display()))?;
    }
    Ok(code(&entries, ending.stopped.is_none()))
}

fn say_totals(entries: &[Entry], total: usize, stopped: Option<&str>) -> Result<()> {
    if let Some(why) = stopped {
        say(&format!("stopped: {why}; the same command goes on"))?;
    }
    let count = |wanted: fn(&Entry) -> bool| entries.iter().filter(|entry| wanted(entry)).count();
    let elsewhere = count(|entry| entry.outcome == Outcome::Elsewhere);
    let elsewhere = if elsewhere == 0 { String::new() } else { format!(", {elsewhere} with other workers") };
    let untold = count(|entry| entry.outcome == Outcome::CouldNotTell);
    let untold = if untold == 0 { String::new() } else { format!(", {untold} could not be told") };
    say(&format!(
        "{total} images: {} clean, {} with findings, {} failed, {} changed, {} not started{untold}{elsewhere}",
        count(|entry| entry.outcome == Outcome::Clean),
        count(|entry| entry.outcome == Outcome::Findings),
        count(|entry| entry.outcome.is_failure() && entry.outcome != Outcome::CouldNotTell),
        count(|entry| entry.operation.is_some()),
        total - entries.len()
    ))
}

fn full(state: &State, entry: &Entry) -> Result<Value> {
    let mut entry = entry.clone();
    entry.result = state.document(&entry.image)?;
    serde_json::to_value(&entry)
        .map_err(|e| Error::invalid(Layer::Batch, "the report cannot be written").caused_by(e))
}

fn document(verb: Verb, entries: &[Entry], total: usize, stopped: Option<&str>) -> Value {
    let count = |wanted: fn(&Entry) -> bool| entries.iter().filter(|entry| wanted(entry)).count();
    json!({
        "command": verb.name(), "complete": stopped.is_none(), "stopped": stopped, "total": total,
        "failed": count(|entry| entry.outcome.is_failure() && entry.outcome != Outcome::CouldNotTell),
        "could_not_tell": count(|entry| entry.outcome == Outcome::CouldNotTell),
        "with_findings": count(|entry| entry.outcome == Outcome::Findings),
        "clean": count(|entry| entry.outcome == Outcome::Clean),
        "changed": count(|entry| entry.operation.is_some()),
        "not_begun": total.saturating_sub(entries.len()),
    })
}

/// Writes the reports; the JSON one image after the other, so that memory stays flat.
fn report(
    out: &Path,
    verb: Verb,
    state: &State,
    entries: &[Entry],
    total: usize,
    stopped: Option<&str>,
) -> Result<()> {
    let rules = output::of_batch(entries.iter().map(|entry| entry.image.as_path()))?;
    rules.write(&out.join("report.csv"), csv(entries).as_bytes())?;
    rules.write(&out.join("report.html"), html(entries, verb.name(), total, stopped).as_bytes())?;
    let path = out.join("report.json");
    let failed = output::failed(&path);
    let mut file = std::io::BufWriter::new(rules.create(&path)?);
    let head = document(verb, entries, total, stopped).to_string();
    let head = head.strip_suffix('}').unwrap_or(&head);
    write!(file, "{{\"schema\":\"vmrescue.batch/1\",{},\"images\":[", head.trim_start_matches('{'))
        .map_err(&failed)?;
    for (place, entry) in entries.iter().enumerate() {
        write!(file, "{}{}", if place == 0 { "\n" } else { ",\n" }, full(state, entry)?).map_err(&failed)?;
    }
    writeln!(file, "\n]}}").map_err(&failed)?;
    file.into_inner().map_err(|e| failed(e.into_error()))?.finish()
}

fn status(out: &Path, json: bool) -> Result<u8> {
    let state = existing(out)?;
    let entries = state.all();
    if json {
        let list = entries.iter().map(|entry| full(&state, entry)).collect::<Result<Vec<Value>>>()?;
        say_json("batch-status", json!({"images": list}))?;
    } else {
        entries.iter().try_for_each(|entry| say(&line(entry)))?;
        say_totals(&entries, entries.len(), None)?;
    }
    Ok(code(&entries, true))
}

fn differences(first: &Path, second: &Path, json: bool) -> Result<u8> {
    let list = diff(&existing(first)?, &existing(second)?);
    if json {
        say_json("batch-diff", json!({"images": list}))?;
    } else if list.is_empty() {
        say("no image differs")?;
    }
    for found in list.iter().filter(|_| !json) {
        let (was, is) = (found.was.unwrap_or("not there"), found.is.unwrap_or("not there"));
        let rules = found.appeared.iter().map(|rule| format!(" +{rule}"));
        let rules: String = rules.chain(found.gone.iter().map(|rule| format!(" -{rule}"))).collect();
        say(&format!("{}: {was} -> {is}{rules}", found.image.display()))?;
    }
    Ok(if list.is_empty() { CLEAN } else { FINDINGS })
}

fn merge(out: &Path, from: &[PathBuf]) -> Result<u8> {
    let header = |folder: &Path| std::fs::read(folder.join("batch.json")).ok();
    let command = |bytes: &[u8]| -> Option<Value> {
        let mut value: Value = serde_json::from_slice(bytes).ok()?;
        value.as_object_mut()?.remove("id");
        Some(value)
    };
    std::fs::create_dir_all(out).map_err(|e| Error::io("cannot be made", out, e))?;
    for folder in from {
        existing(folder)?;
        let Some(bytes) = header(folder) else { continue };
        match header(out) {
            None => vmrescue_transaction::write_privately(&out.join("batch.json"), &bytes)?,
            Some(own) if command(&own) == command(&bytes) => {}
            Some(_) => {
                return Err(Error::refused(Layer::Batch, "these folders belong to different jobs")
                    .in_file(folder)
                    .advice("merge the parts of one job only"));
            }
        }
    }
    let state = State::open(out)?;
    for folder in from {
        state.merge(&existing(folder)?)?;
    }
    let entries = state.all();
    let verb = header(out)
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .and_then(|value| serde_json::from_value(value["command"].clone()).ok())
        .unwrap_or_default();
    report(out, verb, &state, &entries, entries.len(), None)?;
    say_totals(&entries, entries.len(), None)?;
    Ok(code(&entries, true))
}

/// Takes back what was published: images whose entry names an operation.
fn undo(out: &Path, chosen: &[String], state_dir: Option<PathBuf>, yes: bool) -> Result<u8> {
    let fits = |image: &Path| {
        let (full, name) = (image.to_string_lossy(), image.file_name().unwrap_or_default().to_string_lossy());
        chosen.is_empty()
            || chosen
                .iter()
                .any(|c| vmrescue_base::text::fits(c, &full) || vmrescue_base::text::fits(c, &name))
    };
    let repaired: Vec<Entry> = existing(out)?
        .all()
        .into_iter()
        .filter(|entry| entry.operation.is_some() && fits(&entry.image))
        .collect();
    if repaired.is_empty() {
        say("nothing to undo")?;
        return Ok(CLEAN);
    }
    let job = Job {
        command: Verb::Undo,
        images: repaired.iter().map(|entry| entry.image.to_string_lossy().into_owned()).collect(),
        out: Some(out.join("undo")),
        state_dir,
        overrides: repaired
            .iter()
            .map(|entry| Override {
                path: entry.image.to_string_lossy().into_owned(),
                operation: entry.operation,
                ..Override::default()
            })
            .collect(),
        ..Job::default()
    };
    run(&job, &Manner { yes, json: false, keys: KeyWords::default() })
}

/// One job, for a scheduler that may deliver it twice: a second run finds nothing to do.
fn run_one(path: &Path, keys: &KeyArgs) -> Result<u8> {
    keys.keys()?;
    let job = with_secrets(&Job::read(path)?)?;
    let [image] = &plan_images(&job)?[..] else {
        return Err(Error::invalid(Layer::Batch, "run-one wants a job with one image").in_file(path));
    };
    let work =
        job.work_of(image).ok_or_else(|| Error::invalid(Layer::Batch, "the job leaves its image out"))?;
    let state = job.out.as_ref().map(|out| State::open_for(out, &job)).transpose()?;
    let words = keys.words();
    let worker = worker_of(&job, state.as_ref().map_or("", |state| state.id()), &words)?;
    let _stop = super::stop::on_request();
    let mut entry = worker.work_on(image, &work)?;
    if let Some(state) = &state {
        state.note(entry.clone())?;
    }
    let kind = entry.result["error"]["kind"].as_str().unwrap_or_default().to_string();
    let code = match entry.outcome {
        Outcome::Clean | Outcome::Findings => CLEAN,
        Outcome::Busy => TRY_LATER,
        Outcome::Elsewhere if entry.message.contains("has finished") => CLEAN,
        Outcome::Elsewhere => TRY_LATER,
        Outcome::Failed if kind == "no-space" => TRY_LATER,
        Outcome::Refused => super::REFUSED,
        Outcome::TimedOut => SOME_FAILED,
        Outcome::Running | Outcome::Failed | Outcome::CouldNotTell => ERROR,
    };
    entry.message = entry.message.trim().to_string();
    let entry = serde_json::to_value(&entry)
        .map_err(|e| Error::invalid(Layer::Batch, "the result cannot be written").caused_by(e))?;
    say_json("batch-one", entry)?;
    Ok(code)
}
