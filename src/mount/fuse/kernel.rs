//! What the kernel keeps of files that were changed behind its back.
//!
//! With the write-back cache the kernel owns the times of the regular files that it knows: it does not take them from here any
//! more, and sends its own when an inode is cleaned. Times that come as an attribute (`system.ntfs_times`) would be
//! overwritten by that and never seen. So what the kernel sends of the times that it had before is not taken, and a file that
//! nobody has open gets a new generation: the kernel then forgets the inode and asks again. The same when a reparse point
//! makes another kind of node of a file.

use crate::tree::lock;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use vmrescue_base::time::FileTime;

#[derive(Default)]
struct State {
    generations: HashMap<u64, u64>,
    /// Numbers that are answered once with "stale", so that the kernel looks the name up anew.
    stale: HashSet<u64>,
    /// Numbers that are renewed when nobody has them open any more.
    waiting: HashSet<u64>,
    /// What the kernel takes for the time of the last change; `None` until it has sent it.
    outdated: HashMap<u64, Option<FileTime>>,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Kept(Mutex<State>);

impl Kept {
    /// Times of a regular file were set by an attribute.
    pub(super) fn times_are_ours(&self, number: u64) {
        lock(&self.0).outdated.insert(number, None);
    }

    /// The kernel has to look again.
    pub(super) fn renew(&self, number: u64) {
        let mut state = lock(&self.0);
        *state.generations.entry(number).or_default() += 1;
        state.stale.insert(number);
    }

    /// The kernel has to look again, but somebody has the file open.
    pub(super) fn renew_when_closed(&self, number: u64) {
        lock(&self.0).waiting.insert(number);
    }

    /// Nobody has the file open any more.
    pub(super) fn closed(&self, number: u64) {
        let waited = lock(&self.0).waiting.remove(&number);
        if waited {
            self.renew(number);
        }
    }

    /// The generation to answer with.
    pub(super) fn generation(&self, number: u64) -> u64 {
        let state = lock(&self.0);
        if state.generations.is_empty() { 0 } else { state.generations.get(&number).copied().unwrap_or(0) }
    }

    /// True once after a number was renewed.
    pub(super) fn is_stale(&self, number: u64) -> bool {
        let mut state = lock(&self.0);
        !state.stale.is_empty() && state.stale.remove(&number)
    }

    /// The kernel cleans an inode and sends its times; false when they are those of before.
    pub(super) fn believes(&self, number: u64, modified: FileTime) -> bool {
        let mut state = lock(&self.0);
        let Some(outdated) = state.outdated.get_mut(&number) else { return true };
        match outdated {
            None => *outdated = Some(modified),
            Some(known) if *known == modified => {}
            Some(_) => {
                state.outdated.remove(&number);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_before_are_not_taken() {
        let kept = Kept::default();
        assert!(kept.believes(7, FileTime(1)));
        kept.times_are_ours(7);
        assert!(!kept.believes(7, FileTime(1)) && !kept.believes(7, FileTime(1)));
        assert!(kept.believes(7, FileTime(2)) && kept.believes(7, FileTime(1)));
        kept.renew(9);
        assert!((kept.generation(9), kept.generation(7)) == (1, 0));
        assert!(kept.is_stale(9) && !kept.is_stale(9));
        kept.renew_when_closed(7);
        assert!(!kept.is_stale(7));
        kept.closed(7);
        assert!(kept.is_stale(7) && kept.generation(7) == 1);
        kept.closed(7);
        assert!(!kept.is_stale(7));
    }
}
