//! Index blocks without taking them apart: looking a key up, replacing it by one of the same length, adding and removing an entry of
//! a leaf that has room. What needs more (splitting, moving keys up) goes by [`super::entry::Node`].

use super::core::damaged;
use super::entry::{Entry, HAS_CHILD, LAST, encode_entry};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::Result;

/// Where the index header of a block is; its fields count from here.
const HEADER: usize = 0x18;

/// An entry where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lying<'b> {
    /// Offset in the block.
    pub(crate) at: usize,
    /// All of it but its child.
    body: &'b [u8],
    /// Its key, without data behind it.
    pub(crate) key: &'b [u8],
    /// VCN of its child.
    pub(crate) child: Option<u64>,
    /// It ends the node.
    pub(crate) last: bool,
}

impl Lying<'_> {
    /// Taken out; `trimmed` cuts the padding behind the key.
    pub(crate) fn entry(&self, trimmed: bool) -> Entry {
        let key = if trimmed { self.key } else { self.body.get(0x10..).unwrap_or_default() };
        Entry {
            reference: u64_at(self.body, 0).unwrap_or(0),
            key: key.to_vec(),
            key_bytes: self.key.len() as u16,
            child: self.child,
        }
    }
}

/// The entries of a block, in order.
pub(crate) struct Entries<'b> {
    block: &'b [u8],
    at: usize,
    done: bool,
}

fn used_end(block: &[u8]) -> Option<usize> {
    let end = HEADER.checked_add(u32_at(block, HEADER + 4)? as usize)?;
    (end <= block.len()).then_some(end)
}

/// The entries of an INDX block without fixups that must say it is `vcn`.
///
/// # Errors
/// `Damaged` when it is another, or does not hold its own entries.
pub(crate) fn entries(block: &[u8], vcn: u64) -> Result<Entries<'_>> {
    let used = || {
        let whole = block.get(..4) == Some(b"INDX") && u64_at(block, 0x10) == Some(vcn);
        let first = HEADER.checked_add(u32_at(block, HEADER)? as usize)?;
        let end = used_end(block).filter(|end| whole && first < *end)?;
        Some((first, end))
    };
    let (first, end) =
        used().ok_or_else(|| damaged(format!("index block {vcn:#x} does not hold its own entries")))?;
    Ok(Entries { block: &block[..end], at: first, done: false })
}

impl<'b> Entries<'b> {
    fn take(&mut self) -> Option<Lying<'b>> {
        let length = usize::from(u16_at(self.block, self.at.checked_add(8)?)?);
        let entry =
            slice_at(self.block, self.at, length).filter(|_| length >= 0x10 && length.is_multiple_of(8))?;
        let flags = u16_at(entry, 12)?;
        let (end, child) = if flags & HAS_CHILD == 0 {
            (length, None)
        } else {
            let end = length.checked_sub(8).filter(|end| *end >= 0x10)?;
            (end, Some(u64_at(entry, end)?))
        };
        let body = entry.get(..end)?;
        let last = flags & LAST != 0;
        let key = if last { &[] } else { slice_at(body, 0x10, usize::from(u16_at(body, 10)?))? };
        let lying = Lying { at: self.at, body, key, child, last };
        self.at += length;
        Some(lying)
    }
}

impl<'b> Iterator for Entries<'b> {
    type Item = Result<Lying<'b>>;

    // Bounded: every entry takes at least 16 bytes of the block.
    fn next(&mut self) -> Option<Result<Lying<'b>>> {
        if self.done {
            return None;
        }
        let entry = self.take();
        self.done = entry.is_none_or(|entry| entry.last);
        Some(entry.ok_or_else(|| damaged("an index block that does not hold its own entries")))
    }
}

/// The block was changed here and not through the log.
fn forget_log(block: &mut [u8]) {
    if let Some(lsn) = block.get_mut(8..16) {
        lsn.fill(0);
    }
}

/// Replaces the key of the entry at `at` by one of the same length. False when its length is another.
pub(crate) fn replace(block: &mut [u8], at: usize, key: &[u8]) -> bool {
    if u16_at(block, at + 10).map(usize::from) != Some(key.len()) {
        return false;
    }
    let Some(old) = block.get_mut(at + 0x10..at + 0x10 + key.len()) else { return false };
    old.copy_from_slice(key);
    forget_log(block);
    true
}

fn set_used(block: &mut [u8], end: usize) {
    block[HEADER + 4..HEADER + 8].copy_from_slice(&((end - HEADER) as u32).to_le_bytes());
    forget_log(block);
}

/// Adds an entry without a child in front of the one at `at`. False when there is no room.
pub(crate) fn insert(block: &mut [u8], at: usize, entry: &Entry) -> bool {
    let Some(end) = used_end(block).filter(|end| at < *end) else { return false };
    let room =
        u32_at(block, HEADER + 8).map_or(0, |bytes| bytes as usize).saturating_add(HEADER).min(block.len());
    let bytes = encode_entry(entry);
    if end + bytes.len() > room {
        return false;
    }
    block.copy_within(at..end, at + bytes.len());
    block[at..at + bytes.len()].copy_from_slice(&bytes);
    set_used(block, end + bytes.len());
    true
}

/// Removes the entry at `at`. False when it does not lie in the block.
pub(crate) fn remove(block: &mut [u8], at: usize) -> bool {
    let length = u16_at(block, at + 8).map_or(0, usize::from);
    let Some(end) = used_end(block).filter(|end| length > 0 && at + length < *end) else { return false };
    block.copy_within(at + length..end, at);
    block[end - length..end].fill(0);
    set_used(block, end - length);
    true
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Node, decode_block, encode_block};
    use super::*;
    use proptest::prelude::*;

    fn block(keys: &[u32], inner: bool) -> Vec<u8> {
        let child = |n: u64| inner.then_some(n);
        let entry = |(n, key): (usize, &u32)| Entry {
            child: child(n as u64),
            ..Entry::view(&key.to_le_bytes(), &[n as u8; 12])
        };
        let mut entries: Vec<Entry> = keys.iter().enumerate().map(entry).collect();
        entries.push(Entry::last(child(99)));
        encode_block(&Node { entries }, 7, 1, 4096).unwrap()
    }

    proptest! {
        #[test]
        fn a_block_is_changed_as_a_node_is(
            keys in proptest::collection::vec(any::<u32>(), 2..60), place in any::<prop::sample::Index>(), inner in any::<bool>()
        ) {
            let mut bytes = block(&keys, inner);
            let node = decode_block(&bytes, 7).unwrap();
            let lying: Vec<Entry> = entries(&bytes, 7).unwrap().map(|e| e.unwrap().entry(false)).collect();
            prop_assert_eq!(&lying, &node.entries);
            let index = place.index(keys.len());
            let at = |bytes: &[u8], index: usize| entries(bytes, 7).unwrap().nth(index).unwrap().unwrap().at;
            let there = at(&bytes, index);
            if !inner {
                let new = Entry::view(&[1, 2, 3, 4], &[5; 20]);
                prop_assert!(insert(&mut bytes, there, &new));
                let mut grown = node.clone();
                grown.entries.insert(index, new);
                prop_assert_eq!(decode_block(&bytes, 7).unwrap(), grown);
                prop_assert!(replace(&mut bytes, there, &[9; 4]) && !replace(&mut bytes, there, &[9; 5]));
                prop_assert_eq!(entries(&bytes, 7).unwrap().nth(index).unwrap().unwrap().key, &[9; 4]);
                prop_assert!(remove(&mut bytes, there));
                prop_assert_eq!(decode_block(&bytes, 7).unwrap(), node);
            }
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..220) {
            if let Some(head) = bytes.get_mut(..24) {
                head[..4].copy_from_slice(b"INDX");
                head[16..24].copy_from_slice(&7u64.to_le_bytes());
            }
            if let Ok(all) = entries(&bytes, 7) {
                prop_assert!(all.count() <= 200 / 16 + 1);
            }
            replace(&mut bytes, at, &[1; 8]);
            remove(&mut bytes, at);
            insert(&mut bytes, at, &Entry::view(&[1; 4], &[2; 8]));
        }
    }

    #[test]
    fn a_full_block_takes_no_more() {
        let mut bytes = block(&(0..120).collect::<Vec<u32>>(), false);
        let first = entries(&bytes, 7).unwrap().next().unwrap().unwrap().at;
        let new = Entry::view(&[1, 2, 3, 4], &[5; 12]);
        let mut added = 0;
        while insert(&mut bytes, first, &new) {
            added += 1;
        }
        assert!(added > 0 && decode_block(&bytes, 7).unwrap().entries.len() == 121 + added);
        assert!(entries(&bytes, 8).is_err());
    }
}
