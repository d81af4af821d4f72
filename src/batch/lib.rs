//! Many images with one job: each in a process of its own, so that a crash is one failed image; a state on disk, so that the same
//! command goes on after a crash of the whole; reports at the end.
//!
//! * [`Job`] says what is done, with which images, under which limits; [`plan_images`] finds the images
//! * [`run_batch`] works wave after wave; [`Worker`] on one image; [`Leases`] let several machines share a job
//! * [`State`] remembers: a log of JSON Lines, made durable line by line; [`diff`] holds two states against each other
//!
//! Missing: a limit of the bytes that are read from a disk of the host in a second.

mod diff;
mod images;
mod job;
mod lease;
mod report;
mod run;
mod state;
#[cfg(test)]
mod tests;
mod waves;
mod worker;

pub use diff::{Difference, diff};
pub use images::plan_images;
pub use job::{Job, Override, Verb, Work};
pub use lease::{Claim, Leases, Taken};
pub use report::{csv, html};
pub use run::{Ending, Watch, run_batch};
pub use state::{Entry, Outcome, State};
pub use waves::{Size, Wave, waves};
pub use worker::{BATCH, CLAIM, KeyWords, MEMORY, SECRETS_ON_INPUT, Secrets, WORKER, Worker, mark};
