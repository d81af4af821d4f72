//! How many images are begun before somebody looks: canaries first, then waves.

use super::job::Job;
use super::state::{Entry, Outcome};
use serde::{Deserialize, Serialize};
use vmrescue_base::error::{Error, Layer, Result};

/// Size of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum Size {
    /// So many images.
    Count(usize),
    /// A share of all images of the job, in percent.
    Percent(f64),
    /// All that are left.
    Rest,
}

/// A size as a job may write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(usize),
    Text(String),
}

impl TryFrom<Written> for Size {
    type Error = Error;

    fn try_from(written: Written) -> Result<Size> {
        match written {
            Written::Number(count) => Ok(Size::Count(count)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        match size {
            Size::Count(count) => count.to_string(),
            Size::Percent(share) => format!("{share}%"),
            Size::Rest => "rest".into(),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Size> {
        let wrong =
            || Error::invalid(Layer::Batch, "a wave is a number, a share such as 25%, or rest").found(text);
        match text.trim() {
            "rest" => Ok(Size::Rest),
            share if share.ends_with('%') => {
                let share: f64 = share.trim_end_matches('%').parse().map_err(|_| wrong())?;
                if (0.0..=100.0).contains(&share) { Ok(Size::Percent(share)) } else { Err(wrong()) }
            }
            count => count.parse().map(Size::Count).map_err(|_| wrong()),
        }
    }
}

/// A wave: its images are worked on in parallel, then somebody looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave<T> {
    /// Its images.
    pub images: Vec<T>,
    /// One failure stops the job.
    pub canary: bool,
}

/// Cuts the open images into waves; `done` images of an earlier run count as canaries already.
pub fn waves<T>(open: Vec<T>, job: &Job, done: usize) -> Vec<Wave<T>> {
    let total = open.len() + done;
    let mut left = open.into_iter();
    let mut list = Vec::new();
    let mut take = |count: usize, canary: bool| {
        let images: Vec<T> = left.by_ref().take(count).collect();
        if !images.is_empty() {
            list.push(Wave { images, canary });
        }
    };
    take(job.canary.saturating_sub(done), true);
    for size in &job.waves {
        take(
            match size {
                Size::Count(count) => *count,
                Size::Percent(share) => (total as f64 * share / 100.0).ceil() as usize,
                Size::Rest => usize::MAX,
            },
            false,
        );
    }
    take(usize::MAX, false);
    list
}

/// Why no more images are begun after a wave; `None` when all is well.
pub(super) fn verdict(entries: &[Entry], canary: bool, job: &Job) -> Option<String> {
    let failed = entries.iter().filter(|entry| entry.outcome.is_failure()).count();
    let surprised = |entry: &&Entry| {
        entry.outcome == Outcome::Findings && entry.rules.iter().any(|rule| !job.expected.contains(rule))
    };
    let unexpected = entries.iter().filter(surprised).count();
    let share = |count: usize| count as f64 * 100.0 / entries.len().max(1) as f64;
    if canary && failed > 0 {
        return Some(format!("{failed} of {} canaries failed", entries.len()));
    }
    if let Some(limit) = job.max_failure_percent.filter(|limit| share(failed) > *limit) {
        return Some(format!("{failed} of {} images of the wave failed, more than {limit}%", entries.len()));
    }
    let limit = job.max_unexpected_percent.filter(|limit| share(unexpected) > *limit)?;
    Some(format!(
        "{unexpected} of {} images of the wave have unexpected findings, more than {limit}%",
        entries.len()
    ))
}
