//! Work on whole virtual disks: new ones, conversion, children, merging, compacting, resizing.
//!
//! New files appear under their name when they are whole ([`NewFile`]); changes of existing ones go through a
//! transaction, so that they are crash-safe and can be undone.

mod child;
mod convert;
mod maintain;
mod merge;
mod new_file;
#[cfg(test)]
mod tests;

pub use child::{child_of, create_disk, parent_info};
pub use convert::{convert, copy_disk};
pub use maintain::{compact, resize};
pub use merge::{Merged, merge};
pub use new_file::NewFile;

use std::path::{Path, PathBuf};
use vmrescue_base::error::Result;
use vmrescue_block::OutputRules;
use vmrescue_image::{self as image, OpenOptions};

/// How an operation on a disk runs.
#[derive(Debug, Clone, Default)]
pub struct DiskOptions {
    /// Parents of a differencing disk, nearest first.
    pub parents: Vec<PathBuf>,
    /// Follow the paths that an image names out of its own folder.
    pub follow_paths: bool,
    /// A new file may replace one that is there, but never the disk or a parent of it.
    pub force: bool,
    /// Where the state lies.
    pub state_dir: Option<PathBuf>,
    /// The words of the command line, for the history.
    pub command: Vec<String>,
}

/// What may be made of a disk: nothing that replaces it or one of its parents, and nothing more open to others.
fn outputs_of(source: &Path, opening: &OpenOptions, force: bool) -> Result<OutputRules> {
    let rules = OutputRules::new(force).of_image(source)?;
    image::parents(source, opening)?.iter().try_fold(rules, |rules, parent| rules.of_parent(parent))
}

impl DiskOptions {
    fn opening(&self) -> OpenOptions {
        OpenOptions { parents: self.parents.clone(), follow_paths: self.follow_paths }
    }

    fn record(&self, title: &str, changes: serde_json::Value) -> vmrescue_transaction::Record {
        vmrescue_transaction::Record {
            title: title.to_string(),
            command: self.command.clone(),
            plan: serde_json::json!([title]),
            changes,
            session: None,
        }
    }
}
