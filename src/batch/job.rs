//! A job as data: what is done with which images, and under which limits. TOML for people, JSON for schedulers.

use super::waves::Size;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};

/// What is done with each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// `inspect`
    Inspect,
    /// `diagnose`
    #[default]
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

    /// True when it writes to images.
    pub fn writes(self) -> bool {
        matches!(self, Verb::Repair | Verb::Undo)
    }
}

/// What differs for some images: the first entry whose pattern fits counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Override {
    /// Pattern for the path or the file name, with `*` and `?`.
    pub path: String,
    /// These images are left out.
    pub skip: bool,
    /// Other scripts.
    pub scripts: Option<Vec<String>>,
    /// Parameters on top of those of the job.
    pub set: BTreeMap<String, String>,
    /// Which installation, when the disk has several.
    pub windows: Option<usize>,
    /// Seconds for one image.
    pub time_limit: Option<u64>,
    /// Operation that `undo` takes back.
    pub operation: Option<u32>,
}

/// A job. Everything but `images` has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Job {
    /// What is done.
    pub command: Verb,
    /// Images, patterns, folders of disks, `@FILE` with a path a line.
    pub images: Vec<String>,
    /// Folder of the state and the reports.
    pub out: Option<PathBuf>,
    /// Scripts of `repair`; without any the safe fixes are applied.
    pub scripts: Vec<String>,
    /// Parameters of the scripts.
    pub set: BTreeMap<String, String>,
    /// Parameters whose values are kept nowhere and go to the processes through a pipe.
    #[serde(skip)]
    pub secret: BTreeSet<String>,
    /// Folder for the journals of the images, instead of beside each.
    pub state_dir: Option<PathBuf>,
    /// Images at a time.
    pub jobs: usize,
    /// Images at a time on one disk of the host.
    pub per_disk: Option<usize>,
    /// Seconds for one image.
    pub time_limit: u64,
    /// Memory for one image, in MiB.
    pub memory_mib: Option<u64>,
    /// After so many failures no more images are begun.
    pub max_failures: Option<usize>,
    /// After a wave with a larger share of failures, in percent, no more are begun.
    pub max_failure_percent: Option<f64>,
    /// Rules that are no surprise; empty: all are.
    pub expected: Vec<String>,
    /// After a wave with a larger share of images with unexpected findings, in percent, no more are begun.
    pub max_unexpected_percent: Option<f64>,
    /// So many images first; one failure among them stops the job.
    pub canary: usize,
    /// Sizes of the waves after the canaries: numbers, `25%`, `rest`.
    pub waves: Vec<Size>,
    /// `I/N`: only the I-th of N parts of the images.
    pub shard: Option<String>,
    /// Folder of claims that several machines share.
    pub lease: Option<PathBuf>,
    /// How long a claim holds without a sign of life.
    pub lease_seconds: u64,
    /// What differs for some images.
    #[serde(rename = "image")]
    pub overrides: Vec<Override>,
}

impl Default for Job {
    fn default() -> Job {
        Job {
            command: Verb::Diagnose,
            images: Vec::new(),
            out: None,
            scripts: Vec::new(),
            set: BTreeMap::new(),
            secret: BTreeSet::new(),
            state_dir: None,
            jobs: 2,
            per_disk: None,
            time_limit: 600,
            memory_mib: None,
            max_failures: None,
            max_failure_percent: None,
            expected: Vec::new(),
            max_unexpected_percent: None,
            canary: 0,
            waves: Vec::new(),
            shard: None,
            lease: None,
            lease_seconds: 300,
            overrides: Vec::new(),
        }
    }
}

/// What is done with one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The words of the command after the image.
    pub words: Vec<String>,
    /// Secret parameters of scripts, which are no words.
    pub secrets: BTreeMap<String, String>,
    /// Seconds.
    pub time_limit: u64,
}

impl Job {
    /// Reads a job; the file's ending says whether it is TOML or JSON.
    ///
    /// # Errors
    /// Of the host; `Invalid` with line and column.
    pub fn read(path: &Path) -> Result<Job> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("the job cannot be read", path, e))?;
        let json = path.extension().is_some_and(|extension| extension == "json");
        Job::parse(&text, json).map_err(|e| e.in_file(path))
    }

    /// Reads a job from its text.
    ///
    /// # Errors
    /// `Invalid` with line and column.
    pub fn parse(text: &str, json: bool) -> Result<Job> {
        let wrong = |e: String| Error::invalid(Layer::Batch, "not a job file").found(e.trim());
        let job: Job = if json {
            serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?
        } else {
            toml::from_str(text).map_err(|e| wrong(e.to_string()))?
        };
        job.shard_of()?;
        if job.images.is_empty() {
            return Err(Error::invalid(Layer::Batch, "the job names no images"));
        }
        Ok(job)
    }

    /// The shard as number and count.
    ///
    /// # Errors
    /// `Invalid` when it is not `I/N` with 1 <= I <= N.
    pub fn shard_of(&self) -> Result<Option<(u64, u64)>> {
        let Some(text) = &self.shard else { return Ok(None) };
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((i, n)) if (1..=n).contains(&i) => Ok(Some((i, n))),
            _ => Err(Error::invalid(Layer::Batch, "a shard is I/N, such as 2/5").found(text)),
        }
    }

    fn override_of(&self, image: &Path) -> Option<&Override> {
        let (full, name) = (image.to_string_lossy(), image.file_name().unwrap_or_default().to_string_lossy());
        self.overrides
            .iter()
            .find(|o| vmrescue_base::text::fits(&o.path, &full) || vmrescue_base::text::fits(&o.path, &name))
    }

    /// What is done with an image; `None` when it is left out.
    pub fn work_of(&self, image: &Path) -> Option<Work> {
        let own = self.override_of(image);
        if own.is_some_and(|own| own.skip) {
            return None;
        }
        let (mut words, mut secrets) = (Vec::new(), BTreeMap::new());
        if self.command == Verb::Repair {
            words.extend(own.and_then(|own| own.scripts.as_ref()).unwrap_or(&self.scripts).iter().cloned());
            let mut set = self.set.clone();
            set.extend(own.map(|own| own.set.clone()).unwrap_or_default());
            let open = set.iter().filter(|(name, _)| !self.secret.contains(*name));
            words.extend(open.flat_map(|(name, value)| ["--set".into(), format!("{name}={value}")]));
            secrets.extend(set.into_iter().filter(|(name, _)| self.secret.contains(name)));
        }
        if let Some(id) = own.and_then(|own| own.operation).filter(|_| self.command == Verb::Undo) {
            words.push(id.to_string());
        }
        if self.command.writes() {
            words.push("--yes".into());
            if let Some(dir) = &self.state_dir {
                words.extend(["--state-dir".into(), dir.to_string_lossy().into_owned()]);
            }
        }
        if let Some(number) = own.and_then(|own| own.windows).filter(|_| self.command != Verb::Undo) {
            words.extend(["--windows".into(), number.to_string()]);
        }
        Some(Work {
            words,
            secrets,
            time_limit: own.and_then(|own| own.time_limit).unwrap_or(self.time_limit),
        })
    }
}
