//! Builders of what a Windows disk holds, for tests and for the demo: PE files and event logs.

mod event_log;
mod pe_builder;

pub use event_log::{LogEvent, event_log};
pub use pe_builder::{driver, program, resource_file};
