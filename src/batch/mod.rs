//! Many images with one command: each in a process of its own, so that a crash is one failed image; a state on disk, so that the same
//! command goes on after a crash of the whole; reports at the end.
//!
//! The state is a log of JSON Lines, made durable line by line; a torn last line is not there. Missing: waves, leases and shards, baselines,
//! limits of memory and I/O, a tidy stop on Ctrl-C.

mod report;
mod run;
mod state;
#[cfg(test)]
mod tests;

pub use report::{csv, html};
pub use run::{BatchOptions, Verb, plan_images, run_batch};
pub use state::{Entry, Outcome, State};
