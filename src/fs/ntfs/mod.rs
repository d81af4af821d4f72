//! NTFS 3.0 and 3.1: making, reading and writing volumes.

pub mod mkfs;
pub mod write;

pub use mkfs::{FormatSpec, format};
