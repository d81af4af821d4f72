//! Which clusters are taken: a bit each, in pieces that exist only where something was taken, shared by threads.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Clusters of one piece.
const PIECE: u64 = 1 << 18;
/// Words of one piece.
const WORDS: usize = (PIECE / 64) as usize;

/// See the module's documentation. Memory: a bit a cluster at most, 16 bytes for 262,144 clusters at least.
#[derive(Debug)]
pub(crate) struct Clusters {
    pieces: Vec<OnceLock<Box<[AtomicU64]>>>,
    count: u64,
}

impl Clusters {
    /// A map of `count` clusters, none taken.
    pub(super) fn new(count: u64) -> Clusters {
        let pieces = (0..count.div_ceil(PIECE)).map(|_| OnceLock::new()).collect();
        Clusters { pieces, count }
    }

    /// How many clusters there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Takes `lcn..lcn + count`, cut to the volume. Returns the first and the last cluster that was taken before.
    pub(super) fn take(&self, lcn: u64, count: u64) -> Option<Range<u64>> {
        let end = lcn.saturating_add(count).min(self.count);
        let mut shared: Option<Range<u64>> = None;
        let mut at = lcn;
        // Bounded: every step goes on to the next word, and runs are inside the volume.
        while at < end {
            let stop = ((at / 64 + 1) * 64).min(end);
            let mask = mask(at % 64, stop - at);
            let piece = self.pieces.get((at / PIECE) as usize);
            let words = piece.map(|p| p.get_or_init(|| (0..WORDS).map(|_| AtomicU64::new(0)).collect()));
            let word = words.and_then(|w| w.get((at % PIECE / 64) as usize));
            let old = word.map_or(0, |word| word.fetch_or(mask, Relaxed)) & mask;
            if old != 0 {
                let first = at / 64 * 64 + u64::from(old.trailing_zeros());
                let last = at / 64 * 64 + 63 - u64::from(old.leading_zeros());
                shared = Some(shared.map_or(first, |s| s.start)..last + 1);
            }
            at = stop;
        }
        shared
    }

    /// The 64 clusters from `64 * word` on.
    pub(crate) fn word(&self, word: u64) -> u64 {
        let piece = self.pieces.get((word * 64 / PIECE) as usize).and_then(OnceLock::get);
        piece.and_then(|p| p.get((word % WORDS as u64) as usize)).map_or(0, |word| word.load(Relaxed))
    }
}

/// `count` bits from bit `from` on; both below 65.
fn mask(from: u64, count: u64) -> u64 {
    let ones = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    ones << from
}

/// Calls `visit` with every range in which two bitmaps differ, and whether the first one has it set. Words are those of
/// `ours` and `theirs`; bits from `end` on are not looked at.
pub(super) fn differences(
    first_word: u64,
    words: impl Iterator<Item = (u64, u64)>,
    end: u64,
    visit: &mut dyn FnMut(Range<u64>, bool),
) {
    let mut open: Option<(Range<u64>, bool)> = None;
    for (index, (ours, theirs)) in words.enumerate() {
        let base = (first_word + index as u64) * 64;
        if base >= end {
            break;
        }
        let differ = (ours ^ theirs) & mask(0, (end - base).min(64));
        if differ == 0 {
            continue;
        }
        for bit in (0..64).filter(|bit| differ >> bit & 1 != 0) {
            let (at, side) = (base + bit, ours >> bit & 1 != 0);
            match &mut open {
                Some((range, known)) if range.end == at && *known == side => range.end = at + 1,
                _ => {
                    if let Some((range, known)) = open.replace((at..at + 1, side)) {
                        visit(range, known);
                    }
                }
            }
        }
    }
    if let Some((range, side)) = open {
        visit(range, side);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_once() {
        let map = Clusters::new(PIECE + 100);
        assert_eq!(map.take(60, 10), None);
        assert_eq!(map.take(PIECE - 3, 1000), None);
        assert_eq!(map.take(0, 63), Some(60..63));
        assert_eq!(map.take(69, 200), Some(69..70));
        assert_eq!(map.word(1) & 0xFF, 0xFF);
        assert_eq!(map.word(PIECE / 64 + 1), (1 << 36) - 1);
        let mut found = Vec::new();
        let pairs = [(0b1100, 0b0110), (u64::MAX, u64::MAX >> 1)];
        differences(0, pairs.into_iter(), 128, &mut |range, side| found.push((range, side)));
        assert_eq!(found, [(1..2, false), (3..4, true), (127..128, true)]);
    }
}
