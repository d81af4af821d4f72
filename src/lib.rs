//! vmrescue opens the disk of a Windows machine that no longer boots, from another machine, and makes it boot again.
//!
//! It never starts the guest and never lets the host mount the disk: it parses the image itself. Each folder here is a
//! crate that uses only those above it; this one gathers them:
//!
//! ```text
//! base/          the ground: error limits progress bytes text guid time
//! payload/       what packed files and deltas hold
//! block/         bytes that have a length
//! image/         container formats
//! transaction/   stage, publish, undo, recover
//! partition/     GPT, MBR
//! crypt/         BitLocker volumes in plain text
//! fs/            file systems: ntfs/, fat/
//! disk/          whole disks: convert, merge, compact, resize, children
//! registry/      hives
//! windows/       one installation as objects
//! boot/          the boot chain as one model
//! baseline/      what a machine is set up like
//! diagnose/      rules and findings
//! repair/        changes, scripts, verification by a second reader
//! collect/       what support people ask for, as one archive
//! salvage/       files out of a damaged volume, and a list of what did not come
//! report/        what `inspect` and `diagnose` found, as JSON, text and HTML
//! mount/         the disk for other programs: FUSE, NBD
//! batch/         many images
//! cli/           the command line
//! ```

pub use vmrescue_base::{
    Defect, Error, ErrorKind, Layer, Result, Severity, bytes, error, guid, limits, names, progress, text,
    time,
};
pub use vmrescue_baseline as baseline;
pub use vmrescue_batch as batch;
pub use vmrescue_block as block;
pub use vmrescue_boot as boot;
pub use vmrescue_cli as cli;
pub use vmrescue_collect as collect;
pub use vmrescue_crypt as crypt;
pub use vmrescue_demo as demo;
pub use vmrescue_diagnose as diagnose;
pub use vmrescue_disk as disk;
pub use vmrescue_fs as fs;
pub use vmrescue_image as image;
pub use vmrescue_mount as mount;
pub use vmrescue_partition as partition;
pub use vmrescue_payload as payload;
pub use vmrescue_registry as registry;
pub use vmrescue_repair as repair;
pub use vmrescue_report as report;
pub use vmrescue_salvage as salvage;
pub use vmrescue_transaction as transaction;
pub use vmrescue_windows as windows;
