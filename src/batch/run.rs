//! Runs a job over its images: wave after wave, several images at a time, never more on one disk of the host than allowed.

use super::job::Job;
use super::state::{Entry, Outcome, State};
use super::waves::{Wave, verdict, waves};
use super::worker::Worker;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use vmrescue_base::error::{Error, Result};
use vmrescue_block::disk_of;

/// Who hears how a batch goes.
pub trait Watch: Sync {
    /// Work on an image begins.
    fn begun(&self, image: &Path);
    /// Work on an image ended: the `done`-th of `total`.
    fn ended(&self, entry: &Entry, done: usize, total: usize);
    /// A wave ended well and `left` images wait. False stops the job.
    ///
    /// # Errors
    /// When nobody can be asked.
    fn wave(&self, entries: &[Entry], canary: bool, left: usize) -> Result<bool>;
}

/// How a batch ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// Why not all images were begun.
    pub stopped: Option<String>,
}

/// Runs the batch; images that are done already are left out.
///
/// # Errors
/// Of the state and of the folder of claims; what goes wrong with an image is its outcome.
pub fn run_batch(
    images: &[PathBuf],
    job: &Job,
    state: &State,
    worker: &Worker,
    watch: &dyn Watch,
    stop: &AtomicBool,
) -> Result<Ending> {
    let open: Vec<&PathBuf> =
        images.iter().filter(|image| !state.of(image).is_some_and(|entry| entry.outcome.is_done())).collect();
    let (total, done) = (open.len(), images.len() - open.len());
    let run = Run {
        job,
        state,
        worker,
        watch,
        stop,
        total,
        ended: AtomicUsize::new(0),
        failures: AtomicUsize::new(0),
    };
    let mut left = total;
    for Wave { images, canary } in waves(open, job, done) {
        left -= images.len();
        run.wave(&images)?;
        if stop.load(Ordering::SeqCst) && run.ended.load(Ordering::SeqCst) < total {
            return Ok(Ending { stopped: Some("interrupted".into()) });
        }
        let reached = job.max_failures.filter(|limit| run.failures.load(Ordering::SeqCst) >= *limit);
        if let Some(limit) = reached.filter(|_| run.ended.load(Ordering::SeqCst) < total) {
            return Ok(Ending { stopped: Some(format!("{limit} images failed")) });
        }
        let entries: Vec<Entry> = images.iter().filter_map(|image| state.of(image)).collect();
        if left == 0 {
            break;
        }
        if let Some(why) = verdict(&entries, canary, job) {
            return Ok(Ending { stopped: Some(why) });
        }
        if !watch.wave(&entries, canary, left)? {
            return Ok(Ending { stopped: Some("you did not agree to go on".into()) });
        }
    }
    Ok(Ending::default())
}

struct Run<'a> {
    job: &'a Job,
    state: &'a State,
    worker: &'a Worker,
    watch: &'a dyn Watch,
    stop: &'a AtomicBool,
    total: usize,
    ended: AtomicUsize,
    failures: AtomicUsize,
}

/// Images that wait, and how many are worked on, by disk of the host.
struct Queue<'a> {
    waiting: VecDeque<(&'a PathBuf, Option<u64>)>,
    busy: BTreeMap<Option<u64>, usize>,
}

impl Run<'_> {
    fn wave(&self, images: &[&PathBuf]) -> Result<()> {
        let by_disk = self.job.per_disk.is_some();
        let disk = |image: &PathBuf| if by_disk { disk_of(image) } else { None };
        let queue = Mutex::new(Queue {
            waiting: images.iter().map(|image| (*image, disk(image))).collect(),
            busy: BTreeMap::new(),
        });
        let (freed, failed) = (Condvar::new(), Mutex::new(None::<Error>));
        std::thread::scope(|scope| {
            for _ in 0..self.job.jobs.clamp(1, 64).min(images.len()) {
                scope.spawn(|| {
                    while let Some((image, disk)) = self.next(&queue, &freed) {
                        let result = self.one(image);
                        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                        *queue.busy.entry(disk).or_default() -= 1;
                        if let Err(e) = result {
                            queue.waiting.clear();
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        }
                        freed.notify_all();
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The next image whose disk is free enough; waits when all are busy.
    fn next<'q>(&self, queue: &Mutex<Queue<'q>>, freed: &Condvar) -> Option<(&'q PathBuf, Option<u64>)> {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let enough = self.job.max_failures.is_some_and(|n| self.failures.load(Ordering::SeqCst) >= n);
            if queue.waiting.is_empty() || enough || self.stop.load(Ordering::SeqCst) {
                return None;
            }
            let limit = self.job.per_disk.map_or(usize::MAX, |limit| limit.max(1));
            let free = |disk: &Option<u64>| queue.busy.get(disk).copied().unwrap_or(0) < limit;
            if let Some(place) = queue.waiting.iter().position(|(_, disk)| free(disk)) {
                let taken = queue.waiting.remove(place)?;
                *queue.busy.entry(taken.1).or_default() += 1;
                return Some(taken);
            }
            queue = freed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn one(&self, image: &Path) -> Result<()> {
        let Some(work) = self.job.work_of(image) else { return Ok(()) };
        self.watch.begun(image);
        self.state.note(Entry::new(image, Outcome::Running, ""))?;
        let entry = self.worker.work_on(image, &work)?;
        self.state.note(entry.clone())?;
        if entry.outcome.is_failure() {
            self.failures.fetch_add(1, Ordering::SeqCst);
        }
        self.watch.ended(&entry, self.ended.fetch_add(1, Ordering::SeqCst) + 1, self.total);
        Ok(())
    }
}
