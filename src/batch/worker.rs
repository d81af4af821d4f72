//! One image in a process of its own: claimed, recovered when a crash left something, worked on, noted.

use super::job::{Verb, Work};
use super::lease::{Claim, Leases, Taken};
use super::state::{Entry, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vmrescue_base::error::{Error, Result};
use vmrescue_transaction as transaction;

/// Environment of a worker: it leaves Ctrl-C to the batch.
pub const WORKER: &str = "VMRESCUE_WORKER";
/// Environment of a worker: its limit of memory, in MiB.
pub const MEMORY: &str = "VMRESCUE_WORKER_MEMORY_MIB";
/// Environment of a worker: the batch's name, for the history of the image.
pub const BATCH: &str = "VMRESCUE_WORKER_BATCH";
/// Environment of a worker: its claim, as JSON, checked before the image is written.
pub const CLAIM: &str = "VMRESCUE_WORKER_CLAIM";

/// How images are worked on.
#[derive(Debug, Clone)]
pub struct Worker {
    /// This program, for the processes.
    pub program: PathBuf,
    /// What is done.
    pub verb: Verb,
    /// The batch's name.
    pub batch: String,
    /// Memory for one image, in MiB.
    pub memory_mib: Option<u64>,
    /// Folder for the journals of the images.
    pub state_dir: Option<PathBuf>,
    /// Options with the keys of BitLocker volumes.
    pub keys: KeyWords,
    /// Claims, when the job is shared.
    pub leases: Option<Leases>,
}

/// Environment of a worker: its secrets come through standard input, as a [`Secrets`] in JSON.
pub const SECRETS_ON_INPUT: &str = "VMRESCUE_WORKER_SECRETS";

/// What opens BitLocker volumes: given to the processes, kept nowhere.
#[derive(Clone, Default)]
pub struct KeyWords {
    /// Words of a command; they name files and can be read by everybody on this machine.
    pub words: Vec<String>,
    /// Recovery passwords, which go through a pipe.
    pub recovery_passwords: Vec<String>,
}

/// What a process gets through its standard input.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Secrets {
    /// Recovery passwords of BitLocker volumes.
    pub recovery_passwords: Vec<String>,
    /// Secret parameters of scripts.
    pub set: BTreeMap<String, String>,
}

impl std::fmt::Debug for KeyWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyWords({})", self.words.len() + self.recovery_passwords.len())
    }
}

/// How a process ended.
struct Ended {
    /// `None` when it was killed.
    code: Option<i32>,
    document: Value,
    message: String,
    timed_out: bool,
}

impl Worker {
    /// Works on one image. What goes wrong is the outcome.
    ///
    /// # Errors
    /// Of the folder of claims.
    pub fn work_on(&self, image: &Path, work: &Work) -> Result<Entry> {
        let claim = match self.leases.as_ref().map(|leases| leases.take(image)).transpose()? {
            None => None,
            Some(Taken::Mine(claim)) => Some(claim),
            Some(Taken::Held { owner }) => {
                return Ok(Entry::new(image, Outcome::Elsewhere, format!("{owner} works on it")));
            }
            Some(Taken::Finished { owner, outcome }) => {
                let message = format!("{owner} has finished it: {}", outcome.words());
                return Ok(Entry::new(image, Outcome::Elsewhere, message));
            }
        };
        let begun = Instant::now();
        let mut entry = self.entry(image, work, claim.as_ref());
        entry.seconds = begun.elapsed().as_secs_f64();
        entry.claim = claim.as_ref().map(|claim| claim.number);
        if let Some(lost) = claim.and_then(|claim| claim.finish(entry.outcome).err()) {
            entry.message = format!("{} {lost}", entry.message).trim().to_string();
        }
        Ok(entry)
    }

    fn entry(&self, image: &Path, work: &Work, claim: Option<&Claim>) -> Entry {
        let limit = Duration::from_secs(work.time_limit);
        let mut first = String::new();
        if self.verb.writes() {
            match self.recover(image, limit) {
                Recovery::NotNeeded => {}
                Recovery::Done => first = "an interrupted operation was finished first".into(),
                Recovery::Refused(entry) => return *entry,
            }
        }
        let mut command = Command::new(&self.program);
        command.arg(self.verb.name()).arg(image).arg("--json").args(&work.words).args(&self.keys.words);
        let secrets =
            Secrets { recovery_passwords: self.keys.recovery_passwords.clone(), set: work.secrets.clone() };
        let ended = self.finished(&mut command, limit, claim, &secrets);
        if self.verb.writes() && ended.code.is_none() {
            // Killed, perhaps while it was publishing. What cannot be finished is told by the next run.
            self.recover(image, limit);
        }
        let message = format!("{first}\n{}", ended.message).trim().to_string();
        let mut entry = Entry::new(image, outcome(&ended), message);
        entry.rules = rules(&ended.document);
        if entry.outcome == Outcome::CouldNotTell && entry.message.is_empty() {
            entry.message = first_unread(&ended.document);
        }
        let fixed = ended.document["fixed"].as_array().into_iter().flatten();
        entry.fixed = fixed.filter_map(|rule| rule.as_str().map(String::from)).collect();
        entry.changes = ended.document["changes"].as_array().map_or(0, Vec::len);
        entry.operation = number(&ended.document["operation"]).or_else(|| self.earlier_operation(image));
        entry.result = ended.document;
        entry
    }

    /// The operation that an earlier run of this batch published before it could note it.
    fn earlier_operation(&self, image: &Path) -> Option<u32> {
        if self.verb != Verb::Repair || self.batch.is_empty() {
            return None;
        }
        let history = transaction::history(image, self.state_dir.as_deref()).ok()?;
        let own = |operation: &&transaction::OperationRecord| operation.command.contains(&mark(&self.batch));
        history.iter().rev().find(own).map(|operation| operation.id.0)
    }

    /// Finishes what a crash left half published. The process proves first that the image is the one that was interrupted: a
    /// restored or foreign disk under this name is refused, and nothing else is done to it.
    fn recover(&self, image: &Path, limit: Duration) -> Recovery {
        match transaction::pending(image, self.state_dir.as_deref()) {
            Ok(None) => return Recovery::NotNeeded,
            Ok(Some(_)) => {}
            // The command itself says what is wrong with the image or its state.
            Err(_) => return Recovery::NotNeeded,
        }
        let mut recover = Command::new(&self.program);
        recover.arg("recover").arg(image).arg("--json");
        if let Some(dir) = &self.state_dir {
            recover.arg("--state-dir").arg(dir);
        }
        let ended = self.finished(&mut recover, limit, None, &Secrets::default());
        match outcome(&ended) {
            Outcome::Clean => Recovery::Done,
            other => Recovery::Refused(Box::new(Entry::new(image, other, ended.message))),
        }
    }

    /// Runs a process to its end.
    fn finished(
        &self,
        command: &mut Command,
        limit: Duration,
        claim: Option<&Claim>,
        secrets: &Secrets,
    ) -> Ended {
        let told = !secrets.recovery_passwords.is_empty() || !secrets.set.is_empty();
        let input = if told { Stdio::piped() } else { Stdio::null() };
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        if told {
            command.env(SECRETS_ON_INPUT, "1");
        }
        command.env(WORKER, "1").env(BATCH, &self.batch);
        if let Some(memory) = self.memory_mib {
            command.env(MEMORY, memory.to_string());
        }
        if let Some(claim) = claim {
            command.env(CLAIM, serde_json::to_string(claim).unwrap_or_default());
        }
        let mut ended = Ended { code: None, document: Value::Null, message: String::new(), timed_out: false };
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => {
                ended.message = format!("the process could not be begun: {e}");
                ended.code = Some(2);
                return ended;
            }
        };
        let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            if let Some(mut input) = input {
                scope.spawn(move || {
                    // A process that does not read them says so itself, by its own error.
                    let _told = serde_json::to_writer(&mut input, secrets);
                });
            }
            let out = scope.spawn(move || read_all(out));
            let err = scope.spawn(move || read_all(err));
            let stopped = wait(&mut child, limit, claim);
            let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
            ended.document = serde_json::from_slice(&out).unwrap_or(Value::Null);
            ended.message = String::from_utf8_lossy(&err).trim().to_string();
            match stopped {
                Stopped::Code(code) => ended.code = code,
                Stopped::TooLong => {
                    ended.timed_out = true;
                    ended.message = format!("longer than {} seconds", limit.as_secs());
                }
                Stopped::ClaimLost(e) => ended.message = e.to_string(),
            }
            if ended.code.is_none() && ended.message.is_empty() {
                ended.message = "the process was killed".into();
            }
        });
        ended
    }
}

/// How the words of a history name a batch.
pub fn mark(batch: &str) -> String {
    format!("batch:{batch}")
}

/// What became of an operation that an earlier run left unfinished.
enum Recovery {
    NotNeeded,
    Done,
    Refused(Box<Entry>),
}

enum Stopped {
    Code(Option<i32>),
    TooLong,
    ClaimLost(Error),
}

fn wait(child: &mut std::process::Child, limit: Duration, claim: Option<&Claim>) -> Stopped {
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(2));
    let mut beat = Instant::now();
    let why = loop {
        match child.try_wait() {
            Ok(Some(status)) => return Stopped::Code(status.code()),
            Ok(None) if begun.elapsed() < limit => {}
            _ => break Stopped::TooLong,
        }
        if let Some(claim) = claim.filter(|claim| beat.elapsed() > claim.beat()) {
            if let Err(e) = claim.renew() {
                break Stopped::ClaimLost(e);
            }
            beat = Instant::now();
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    let _killed = child.kill();
    let _waited = child.wait();
    why
}

fn outcome(ended: &Ended) -> Outcome {
    let kind = ended.document["error"]["kind"].as_str().unwrap_or_default();
    let told = ended.document["verdict"] == "could-not-tell";
    let unread = ended.document["could_not_look"].as_array().is_some_and(|list| !list.is_empty());
    match ended.code {
        _ if ended.timed_out => Outcome::TimedOut,
        Some(0..=2) if told => Outcome::CouldNotTell,
        // Whatever the code says: what was not looked at is not clean.
        Some(0) if unread => Outcome::CouldNotTell,
        Some(0) => Outcome::Clean,
        Some(1) => Outcome::Findings,
        Some(3) if kind == "busy" => Outcome::Busy,
        Some(3) => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

/// Rules of the findings in a document, or of those that a repair left.
fn rules(document: &Value) -> Vec<String> {
    let findings = document["findings"].as_array().or_else(|| document["left"].as_array());
    let names = findings.into_iter().flatten().filter_map(|finding| finding["rule"].as_str());
    let mut list: Vec<String> = names.map(String::from).collect();
    list.sort();
    list.dedup();
    list
}

/// What could not be looked at first, in words.
fn first_unread(document: &Value) -> String {
    let first = &document["could_not_look"][0];
    let word = |name: &str| first[name].as_str().unwrap_or_default();
    match (word("what"), word("where")) {
        ("", _) => String::new(),
        (what, "") => format!("could not look at {what}: {}", word("why")),
        (what, place) => format!("could not look at {what} ({place}): {}", word("why")),
    }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

fn read_all(from: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _end = from.read_to_end(&mut bytes);
    }
    bytes
}
