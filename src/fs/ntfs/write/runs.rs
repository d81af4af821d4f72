//! Mapping pairs, the run list of a non-resident attribute, as the writer holds them: decoded strictly, encoded in
//! the shortest form.
//!
//! A pair is a header byte (low nibble: bytes of the length, high nibble: bytes of the LCN delta), the length in
//! clusters and the signed distance to the LCN of the run before. No delta means a hole. A zero byte ends the list.

use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_RUNS;

/// A run of clusters that lie together, or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// First cluster on the volume; `None` for a hole.
    pub(crate) lcn: Option<u64>,
    /// Clusters; never 0.
    pub(crate) count: u64,
}

/// Bytes that `value` needs as a signed number.
fn signed_length(value: i64) -> usize {
    (1..8).find(|n| value >= -(1i64 << (8 * n - 1)) && value < (1i64 << (8 * n - 1))).unwrap_or(8)
}

/// Encodes as many runs as fit into `room` bytes with their terminator. Returns the bytes, without padding, and how
/// many runs they hold.
pub(crate) fn encode_some(runs: &[Run], room: usize) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut previous = 0i64;
    for (index, run) in runs.iter().enumerate() {
        let count = run.count as i64; // volumes have fewer than 2^63 clusters
        let count_bytes = signed_length(count);
        let delta = run.lcn.map(|lcn| lcn as i64 - previous);
        let delta_bytes = delta.map_or(0, signed_length);
        if out.len() + 1 + count_bytes + delta_bytes + 1 > room {
            out.push(0);
            return (out, index);
        }
        out.push((delta_bytes << 4 | count_bytes) as u8);
        out.extend_from_slice(&count.to_le_bytes()[..count_bytes]);
        if let Some(delta) = delta {
            out.extend_from_slice(&delta.to_le_bytes()[..delta_bytes]);
            previous += delta;
        }
    }
    out.push(0);
    (out, runs.len())
}

/// All runs as mapping pairs.
pub(crate) fn encode(runs: &[Run]) -> Vec<u8> {
    encode_some(runs, usize::MAX).0
}

fn signed(bytes: &[u8]) -> i64 {
    let mut value = [if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 }; 8];
    value[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(value)
}

/// Decodes mapping pairs; every run must lie inside a volume of `clusters` clusters.
///
/// # Errors
/// `Damaged` for anything that a writer cannot explain.
pub(crate) fn decode(bytes: &[u8], clusters: u64) -> Result<Vec<Run>> {
    let bad = |what: &str| Error::damaged(Layer::Ntfs, format!("mapping pairs: {what}"));
    let mut runs = Vec::new();
    let (mut place, mut previous, mut total) = (0usize, 0i64, 0u64);
    loop {
        let header = *bytes.get(place).ok_or_else(|| bad("no terminator"))?;
        if header == 0 {
            return Ok(runs);
        }
        let (count_bytes, delta_bytes) = (usize::from(header & 15), usize::from(header >> 4));
        if count_bytes == 0 || count_bytes > 8 || delta_bytes > 8 || runs.len() >= MAX_RUNS {
            return Err(bad("a header byte that cannot be").found(format!("{header:#04x}")));
        }
        let count = bytes.get(place + 1..place + 1 + count_bytes).ok_or_else(|| bad("cut off"))?;
        place += 1 + count_bytes;
        let delta = bytes.get(place..place + delta_bytes).ok_or_else(|| bad("cut off"))?;
        place += delta_bytes;
        let count = u64::try_from(signed(count))
            .ok()
            .filter(|c| *c > 0)
            .ok_or_else(|| bad("a length of 0 or less"))?;
        total = total.checked_add(count).filter(|t| *t < 1 << 62).ok_or_else(|| bad("too long"))?;
        let lcn = if delta_bytes == 0 {
            None
        } else {
            previous = previous.checked_add(signed(delta)).ok_or_else(|| bad("an LCN that wraps"))?;
            let lcn = u64::try_from(previous).map_err(|_| bad("an LCN below 0"))?;
            if lcn.checked_add(count).is_none_or(|end| end > clusters) {
                return Err(
                    bad("a run outside the volume").found(format!("LCN {lcn:#x}, {count:#x} clusters"))
                );
            }
            Some(lcn)
        };
        push(&mut runs, Run { lcn, count });
    }
}

/// Clusters of all runs, holes included.
pub(crate) fn clusters(runs: &[Run]) -> u64 {
    runs.iter().map(|r| r.count).sum()
}

/// Appends a run, joined to the last one where they touch.
pub(crate) fn push(runs: &mut Vec<Run>, run: Run) {
    if run.count == 0 {
        return;
    }
    if let Some(last) = runs.last_mut() {
        let touches = match (last.lcn, run.lcn) {
            (Some(a), Some(b)) => a + last.count == b,
            (None, None) => true,
            _ => false,
        };
        if touches {
            last.count += run.count;
            return;
        }
    }
    runs.push(run);
}

/// Cuts to the first `keep` clusters and returns the rest.
pub(crate) fn truncate(runs: &mut Vec<Run>, keep: u64) -> Vec<Run> {
    let tail = slice(runs, keep, clusters(runs).saturating_sub(keep));
    *runs = slice(runs, 0, keep);
    tail
}

/// The runs of the clusters `from..from + count`.
pub(crate) fn slice(runs: &[Run], from: u64, count: u64) -> Vec<Run> {
    let (mut at, end, mut out) = (0u64, from.saturating_add(count), Vec::new());
    for run in runs {
        let (start, stop) = (at.max(from), (at + run.count).min(end));
        if start < stop {
            push(&mut out, Run { lcn: run.lcn.map(|lcn| lcn + (start - at)), count: stop - start });
        }
        at += run.count;
        if at >= end {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_pairs() {
        let runs =
            [Run { lcn: Some(0x342573), count: 0x38 }, Run { lcn: Some(0x342573 - 0x1A), count: 0x114 }];
        let bytes = encode(&runs);
        assert_eq!(bytes, [0x31, 0x38, 0x73, 0x25, 0x34, 0x12, 0x14, 0x01, 0xE6, 0]);
        assert_eq!(decode(&bytes, 1 << 40).unwrap(), runs);
        assert!(decode(&bytes, 0x342573).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(list in proptest::collection::vec((proptest::option::of(0u64..1 << 40), 1u64..1 << 20), 0..60), room in 1usize..200) {
            let mut runs = Vec::new();
            for (lcn, count) in list { push(&mut runs, Run { lcn, count }); }
            prop_assert_eq!(&decode(&encode(&runs), 1 << 41).unwrap(), &runs);
            let (bytes, held) = encode_some(&runs, room);
            prop_assert!(bytes.len() <= room);
            prop_assert_eq!(&decode(&bytes, 1 << 41).unwrap()[..], &runs[..held]);
            let total = clusters(&runs);
            let mut head = runs.clone();
            let mut tail = truncate(&mut head, total / 3);
            for run in tail.drain(..) { push(&mut head, run); }
            prop_assert_eq!(head, runs);
        }

        #[test]
        fn anything_is_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(decode(&bytes, 1 << 30));
        }
    }
}
