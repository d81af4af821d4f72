//! Devices that misbehave on purpose, for the tests of every room that writes.

mod counting;
mod crash;

pub use counting::{CountingDevice, Counts};
pub use crash::{CrashDevice, Fate};
