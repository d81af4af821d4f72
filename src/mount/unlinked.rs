//! Files that lost their last name while somebody still has them open.
//!
//! Windows keeps such files in `\$Extend\$Deleted`; here they wait in the root directory under a name that the mount does not
//! show, and go with the last handle. What a killed process left behind goes when the volume is next mounted for writing.

use super::tree::lock;
use std::collections::HashMap;
use std::sync::Mutex;

/// How the hidden names begin.
const PREFIX: &str = ".vmrescue-unlinked-";

/// Open handles by number, and the files that wait for the last of them.
#[derive(Default)]
pub(super) struct Unlinked(Mutex<State>);

#[derive(Default)]
struct State {
    open: HashMap<u64, u64>,
    waiting: HashMap<u64, String>,
    next: u64,
}

impl Unlinked {
    /// True for names that the mount does not show.
    pub(super) fn is_hidden(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// One more handle.
    pub(super) fn opened(&self, number: u64) {
        *lock(&self.0).open.entry(number).or_default() += 1;
    }

    /// One handle less. The hidden name of the file when it is to go now.
    pub(super) fn closed(&self, number: u64) -> Option<String> {
        let mut state = lock(&self.0);
        let count = state.open.get_mut(&number)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        state.open.remove(&number);
        state.waiting.remove(&number)
    }

    /// True while somebody has it open.
    pub(super) fn is_open(&self, number: u64) -> bool {
        lock(&self.0).open.contains_key(&number)
    }

    /// True for files without a name.
    pub(super) fn holds(&self, number: u64) -> bool {
        let state = lock(&self.0);
        !state.waiting.is_empty() && state.waiting.contains_key(&number)
    }

    /// A name that nobody has yet.
    pub(super) fn fresh_name(&self) -> String {
        let mut state = lock(&self.0);
        state.next += 1;
        format!("{PREFIX}{}-{}", std::process::id(), state.next)
    }

    /// The file waits under this name.
    pub(super) fn wait(&self, number: u64, name: String) {
        lock(&self.0).waiting.insert(number, name);
    }
}
