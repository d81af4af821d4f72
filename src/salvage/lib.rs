//! Copies files out of a volume that may be damaged, goes on after every failure, and says what did not come.
//!
//! [`copy_tree`] walks the directories. A directory whose index cannot be read is read from the file records instead; a
//! file of which a part cannot be read is copied without that part and listed with its ranges; a file whose content is kept
//! elsewhere (deduplication, cloud) is listed and not written as zeros. Only the host ends a copy: a full disk, a file
//! that is there already.
//!
//! Memory is one piece of a file (`copy`), the names of one path, and one entry for every file with several names.
//! Missing: deleted files, links (their targets are listed, none is made), a way around whole unreadable volumes.

mod copy;
mod names;
mod tree;

pub use copy::{Copied, copy_stream};
pub use tree::copy_tree;

use std::ops::Range;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Result};
use vmrescue_fs::{Metadata, StreamInfo};

/// What of a tree is copied, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Compute the sha256 of every file.
    pub hash: bool,
    /// Copy named streams as files of their own beside the file: `NAME#STREAM`.
    pub streams: bool,
    /// Leave alone files of the host that have the length and the time of the file in the image.
    pub resume: bool,
    /// Also the files that no directory leads to, into the folder `orphans`.
    pub orphans: bool,
    /// Also the file system's own files ($MFT and others).
    pub internal: bool,
    /// Only files that one of these patterns fits (`*`, `?`); with a backslash in it against the whole path. None: all.
    pub include: Vec<String>,
    /// No files and no directories that one of these patterns fits.
    pub exclude: Vec<String>,
}

/// Something that happened, told at once.
#[derive(Debug)]
pub enum Event<'a> {
    /// A file or stream has been copied, or was there already.
    Copied(CopiedFile<'a>),
    /// A directory was made.
    Folder {
        /// Path in the guest.
        path: &'a str,
        /// The folder of the host.
        target: &'a Path,
        /// What is known of it.
        metadata: &'a Metadata,
    },
    /// Something did not come, or not whole.
    Missing(&'a Missing),
}

/// A file that came, whole or in part.
#[derive(Debug)]
pub struct CopiedFile<'a> {
    /// Path in the guest, with `:stream` for a named stream.
    pub path: &'a str,
    /// The file of the host.
    pub target: &'a Path,
    /// Length of the stream.
    pub size_bytes: u64,
    /// sha256 of what was written, when it was asked for and the file was copied now.
    pub sha256: Option<&'a str>,
    /// What is known of the file.
    pub metadata: &'a Metadata,
    /// Its streams.
    pub streams: &'a [StreamInfo],
    /// How it came to be there.
    pub how: How,
}

/// How a file of the host came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Copied.
    Copied,
    /// A second name of a file that was copied.
    Linked,
    /// It was there from an earlier run.
    Kept,
}

/// Something that did not come, or not whole.
#[derive(Debug)]
pub struct Missing {
    /// Path in the guest.
    pub path: String,
    /// Why.
    pub why: Error,
    /// Length of the file, when it is known.
    pub size_bytes: Option<u64>,
    /// Bytes of it that came.
    pub got_bytes: u64,
    /// The parts of the file that could not be read; they are zero in what was written.
    pub unread: Vec<Range<u64>>,
    /// The file of the host that has the rest of it.
    pub target: Option<PathBuf>,
}

/// A link that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Path in the guest.
    pub path: String,
    /// Where it leads, when it says so.
    pub target: Option<String>,
    /// The tag of the reparse point.
    pub tag: Option<u32>,
}

/// What a copy did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Files copied now.
    pub files: u64,
    /// Second names of such files.
    pub hard_links: u64,
    /// Files that were there from an earlier run.
    pub kept: u64,
    /// Folders.
    pub folders: u64,
    /// Bytes of the files that were copied now, holes counted.
    pub bytes: u64,
    /// What did not come, or not whole.
    pub missing: Vec<Missing>,
    /// Links, which are not followed and not made.
    pub links: Vec<Link>,
    /// Names that the host cannot have: path in the guest, file of the host.
    pub renamed: Vec<(String, PathBuf)>,
    /// Named streams that were not asked for.
    pub streams_left_out: u64,
    /// Files whose times could not be set on the host.
    pub times_not_set: u64,
}

/// Is told what happens; an error ends the copy.
pub type Listener<'l> = dyn FnMut(Event<'_>) -> Result<()> + 'l;
