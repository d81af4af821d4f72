//! vmrescue opens the disk of a Windows machine that no longer boots, from another machine, and makes it boot again.
//!
//! It never starts the guest and never lets the host mount the disk: it parses the image itself. Each room uses only
//! the rooms above it (`tests/tidy.rs` checks):
//!
//! ```text
//! error limits progress bytes text guid time     the ground
//! block/         bytes that have a length
//! image/         container formats
//! transaction/   stage, publish, undo, recover
//! partition/     GPT, MBR
//! crypt/         BitLocker volumes in plain text
//! fs/            file systems: ntfs/, fat/
//! disk/          whole disks: convert, merge, compact, resize, children
//! registry/      hives
//! windows/       one installation as objects
//! baseline/      what a machine is set up like
//! diagnose/      rules and findings
//! repair/        changes, scripts, verification by a second reader
//! collect/       what support people ask for, as one archive
//! report/        what `inspect` and `diagnose` found, as JSON, text and HTML
//! mount/         the disk for other programs: FUSE, NBD
//! batch/         many images
//! cli/           the command line
//! ```

pub mod baseline;
pub mod batch;
pub mod block;
pub mod bytes;
pub mod cli;
pub mod collect;
pub mod crypt;
pub mod demo;
pub mod diagnose;
pub mod disk;
pub mod error;
pub mod fs;
pub mod guid;
pub mod image;
pub mod limits;
pub mod mount;
pub mod partition;
pub mod progress;
pub mod registry;
pub mod repair;
pub mod report;
pub mod text;
pub mod time;
pub mod transaction;
pub mod windows;

pub use error::{Defect, Error, ErrorKind, Layer, Result, Severity};
