//! Devices that misbehave on purpose, for the tests of every room that writes.

pub mod conformance;
mod counting;
mod crash;
mod fault;
#[cfg(test)]
mod tests;

pub use counting::{CountingDevice, Counts};
pub use crash::{CrashDevice, Fate};
pub use fault::FaultDevice;
