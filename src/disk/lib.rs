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

pub use child::{check_child, child_of, create_disk, parent_info};
pub use convert::{convert, copy_disk};
pub use maintain::{compact, resize};
pub use merge::{Merged, merge};
pub use new_file::NewFile;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, ExtentKind, OutputRules};
use vmrescue_image::{self as image, OpenOptions};
use vmrescue_transaction::{Locked, OperationId, Transaction, TransactionOptions, View};

/// Bytes of two disks that are compared at once.
const COMPARED_BYTES: u64 = 1 << 20;

/// Refuses two virtual disks that differ in `range`, but for what lies in `except`, which is in order.
fn refuse_other_content(
    is: &Disk,
    ought: &Disk,
    range: Range<u64>,
    except: &[Range<u64>],
    progress: &dyn Progress,
) -> Result<()> {
    progress.begin("verifying", Some(range.end - range.start));
    let mut at = range.start;
    for free in except.iter().chain([&(range.end..range.end)]) {
        refuse_other_bytes(is, ought, at..free.start.min(range.end), progress)?;
        at = at.max(free.end.min(range.end));
    }
    progress.end();
    Ok(())
}

fn refuse_other_bytes(is: &Disk, ought: &Disk, range: Range<u64>, progress: &dyn Progress) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let (ours, theirs) = (is.extent_at(at)?, ought.extent_at(at)?);
        let length = ours.length_bytes.min(theirs.length_bytes).min(range.end - at);
        if ours.kind == ExtentKind::Zero && theirs.kind == ExtentKind::Zero {
            progress.advance(length);
            at += length;
            continue;
        }
        let count = length.min(COMPARED_BYTES);
        let (found, wanted) = (is.read_vec(at, count as usize)?, ought.read_vec(at, count as usize)?);
        if let Some(place) = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted) {
            let what = "the disk would not hold what it should";
            return Err(Error::new(ErrorKind::Disagreement, Layer::Verify, what)
                .at(at + place as u64)
                .advice("nothing was written; please report this"));
        }
        at += count;
        progress.advance(count);
    }
    Ok(())
}

/// Asks whether to go on, with what will be done in words.
type Question = Arc<dyn Fn(&str) -> Result<bool> + Send + Sync>;

/// Who is asked whether an operation should go on: under the lock, when it is known what will be done, and before anything
/// is staged. By default nobody.
#[derive(Clone, Default)]
pub struct Consent(Option<Question>);

impl Consent {
    /// Asks by `ask`, which is given the question and says whether the answer was yes.
    pub fn new(ask: impl Fn(&str) -> Result<bool> + Send + Sync + 'static) -> Consent {
        Consent(Some(Arc::new(ask)))
    }

    fn is_given(&self, question: &str) -> Result<bool> {
        self.0.as_ref().map_or(Ok(true), |ask| ask(question))
    }
}

impl std::fmt::Debug for Consent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Consent(asked)" } else { "Consent(given)" })
    }
}

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
    /// Stage and verify, and publish nothing.
    pub dry_run: bool,
    /// Who agrees to merging, compacting, resizing.
    pub consent: Consent,
}

/// What a change of a disk came to.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// The operation; `None` when nothing differs, or nothing was to be published.
    pub operation: Option<OperationId>,
    /// Bytes of the host file that differ.
    pub bytes: u64,
    /// The host file differs, if only in its length.
    pub differs: bool,
    /// Consent was not given: nothing was staged.
    pub declined: bool,
    /// What was left as it is, and why.
    pub notes: Vec<String>,
}

impl Changed {
    fn declined() -> Changed {
        Changed { declined: true, ..Changed::default() }
    }
}

/// What may be made of a disk: nothing that replaces it or one of its parents, and nothing more open to others.
fn outputs_of(source: &Path, opening: &OpenOptions, force: bool) -> Result<OutputRules> {
    let rules = OutputRules::new(force).of_image(source)?;
    image::parents(source, opening)?.iter().try_fold(rules, |rules, parent| rules.of_parent(parent))
}

impl DiskOptions {
    fn lock(&self, path: &Path, allowed_child: Option<PathBuf>) -> Result<Locked> {
        let (state_dir, plan_only) = (self.state_dir.clone(), self.dry_run);
        Locked::open(
            path,
            &TransactionOptions { state_dir, plan_only, allowed_child, ..TransactionOptions::default() },
        )
    }

    /// Verifies what was staged with `look`, and writes it unless it was only to be tried.
    fn publish(
        &self,
        tx: Transaction,
        look: impl FnOnce(&View) -> Result<()>,
        record: vmrescue_transaction::Record,
        progress: &dyn Progress,
    ) -> Result<Changed> {
        let verified = tx.verify(look)?;
        let (bytes, differs) = (verified.changed_bytes()?, verified.differs()?);
        let operation = if self.dry_run { None } else { verified.publish(record, progress)? };
        Ok(Changed { operation, bytes, differs, ..Changed::default() })
    }

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
