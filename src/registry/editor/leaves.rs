//! One entry more or less in a list of subkeys: only the leaf that it concerns is written, and the index root where leaves come
//! or go. So a key costs the same however many siblings it has.
//!
//! Lists that are not as this version of hives has them are written anew as a whole.

use super::HiveEditor;
use super::lists::MAX_LEAF;
use crate::cell::{NONE, name_hash, name_hint, upper_units};
use crate::key::Key;
use crate::subkeys::own_cells;
use std::cmp::Ordering;
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::names;

/// Bytes of a list's head, of an entry in a leaf, and of one in an index root.
const HEAD: usize = 4;
const ENTRY: usize = 8;
const POINTER: usize = 4;

/// A list that says to have more entries than its cell has room for.
fn short_list(list: u32) -> Error {
    Error::damaged(Layer::Hive, "a list of subkeys goes beyond its cell").at(4096 + u64::from(list))
}

#[derive(Debug, Clone, Copy)]
struct Leaf {
    cell: u32,
    count: usize,
}

/// The leaves of a key's list, and the index root over them.
struct Leaves {
    root: Option<u32>,
    leaves: Vec<Leaf>,
}

impl HiveEditor {
    fn leaf_signature(&self) -> &'static [u8; 2] {
        if self.hive.minor_version() >= 5 { b"lh" } else { b"lf" }
    }

    /// The entry of a leaf: the key, and what the list says of its name: a hash since version 1.5, before that the first characters.
    pub(super) fn entry_bytes(&self, key: u32) -> Result<[u8; ENTRY]> {
        let name = Key::at(&self.hive, key)?.name();
        let said = if self.hive.minor_version() >= 5 { name_hash(&name) } else { name_hint(&name) };
        let mut entry = [0; ENTRY];
        entry[..4].copy_from_slice(&key.to_le_bytes());
        entry[4..].copy_from_slice(&said.to_le_bytes());
        Ok(entry)
    }

    /// `None` where the list is not as this version has it, or does not add up.
    fn leaves(&self, key: u32) -> Result<Option<Leaves>> {
        let node = Key::at(&self.hive, key)?;
        let (said, list) = (node.subkey_count() as usize, node.number(28));
        if said == 0 {
            return Ok(Some(Leaves { root: None, leaves: Vec::new() }));
        }
        let root = self.content(list)?.starts_with(b"ri").then_some(list);
        let cells = own_cells(self.hive.bytes(), list);
        let (mut leaves, mut sum) = (Vec::with_capacity(cells.len()), 0);
        for cell in cells.into_iter().skip(usize::from(root.is_some())) {
            let leaf = self.content(cell)?;
            let count = usize::from(u16_at(leaf, 2).unwrap_or(0));
            if !leaf.starts_with(self.leaf_signature())
                || !(1..=MAX_LEAF).contains(&count)
                || leaf.len() < HEAD + ENTRY * count
            {
                return Ok(None);
            }
            sum += count;
            leaves.push(Leaf { cell, count });
        }
        Ok((sum == said).then_some(Leaves { root, leaves }))
    }

    fn entry_key(&self, leaf: u32, place: usize) -> Result<u32> {
        u32_at(self.content(leaf)?, HEAD + ENTRY * place).ok_or_else(|| {
            Error::damaged(Layer::Hive, "a subkey list is too short").at(4096 + u64::from(leaf))
        })
    }

    /// How many of `count` keys, in the order of the list, come before a name in upper case.
    fn before(&self, count: usize, upper: &[u16], key: impl Fn(usize) -> Result<u32>) -> Result<usize> {
        let (mut low, mut high, mut units) = (0, count, Vec::new());
        while low < high {
            let middle = low.midpoint(high);
            Key::at(&self.hive, key(middle)?)?.units(&mut units);
            let order = units.iter().map(|unit| names::upper(*unit)).cmp(upper.iter().copied());
            if order == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Puts bytes into a list before the entry at `place` of `count`; the cell that the list has then.
    fn widen_list(&mut self, list: u32, count: usize, place: usize, entry: &[u8]) -> Result<u32> {
        let width = entry.len();
        let (at, end) = (HEAD + width * place, HEAD + width * count);
        let content = self.content(list)?;
        let tail = content.get(at..end).ok_or_else(|| short_list(list))?.to_vec();
        let mut cell = list;
        if content.len() < end + width {
            let head = content[..at].to_vec();
            // Room for half as many more, as Windows takes it.
            cell = self.allocate(end + width * (1 + (count / 2).min(MAX_LEAF.saturating_sub(count + 1))))?;
            self.put(cell, 0, &head);
            self.release(list);
        }
        self.put(cell, at, entry);
        self.put(cell, at + width, &tail);
        self.put(cell, 2, &(count as u16 + 1).to_le_bytes());
        Ok(cell)
    }

    /// Takes the entry at `place` of `count` out of a list that has more than one.
    fn narrow_list(&mut self, list: u32, count: usize, place: usize, width: usize) -> Result<()> {
        let (at, end) = (HEAD + width * place, HEAD + width * count);
        let tail = self.content(list)?.get(at + width..end).ok_or_else(|| short_list(list))?.to_vec();
        self.put(list, at, &tail);
        self.put(list, 2, &(count as u16 - 1).to_le_bytes());
        Ok(())
    }

    /// Lists a key below `parent`, in its place by its name.
    pub(super) fn insert_subkey(&mut self, parent: u32, child: u32) -> Result<()> {
        let upper = upper_units(&Key::at(&self.hive, child)?.name());
        let Some(Leaves { root, leaves }) = self.leaves(parent)? else {
            let mut children = self.subkey_offsets(parent)?;
            let place = self.before(children.len(), &upper, |place| Ok(children[place]))?;
            children.insert(place, child);
            return self.set_subkeys(parent, &children);
        };
        if leaves.is_empty() {
            return self.set_subkeys(parent, &[child]);
        }
        let last = |place: usize| self.entry_key(leaves[place].cell, leaves[place].count - 1);
        let index = self.before(leaves.len(), &upper, last)?.min(leaves.len() - 1);
        let leaf = leaves[index];
        let place = self.before(leaf.count, &upper, |place| self.entry_key(leaf.cell, place))?;
        let entry = self.entry_bytes(child)?;
        if leaf.count < MAX_LEAF {
            let cell = self.widen_list(leaf.cell, leaf.count, place, &entry)?;
            if cell != leaf.cell {
                match root {
                    Some(root) => self.put_u32(root, HEAD + POINTER * index, cell),
                    None => self.put_u32(parent, 28, cell),
                }
            }
        } else {
            let mut entries = self.content(leaf.cell)?[HEAD..HEAD + ENTRY * leaf.count].to_vec();
            entries.splice(ENTRY * place..ENTRY * place, entry);
            let (first, second) = entries.split_at(ENTRY * (leaf.count / 2));
            let new = self.allocate(HEAD + second.len())?;
            for (cell, half) in [(leaf.cell, first), (new, second)] {
                self.put(cell, 0, self.leaf_signature());
                self.put(cell, 2, &((half.len() / ENTRY) as u16).to_le_bytes());
                self.put(cell, HEAD, half);
            }
            let list = match root {
                Some(root) => self.widen_list(root, leaves.len(), index + 1, &new.to_le_bytes())?,
                None => {
                    let root = self.allocate(HEAD + 2 * POINTER)?;
                    self.put(root, 0, b"ri\x02\0");
                    self.put_u32(root, HEAD, leaf.cell);
                    self.put_u32(root, HEAD + POINTER, new);
                    root
                }
            };
            self.put_u32(parent, 28, list);
        }
        let count = leaves.iter().map(|leaf| leaf.count).sum::<usize>() + 1;
        self.put_u32(parent, 20, count as u32);
        Ok(())
    }

    /// Takes a key out of the list of `parent`.
    pub(super) fn remove_subkey(&mut self, parent: u32, child: u32) -> Result<()> {
        let Some(Leaves { root, leaves }) = self.leaves(parent)? else {
            let mut children = self.subkey_offsets(parent)?;
            children.retain(|listed| *listed != child);
            return self.set_subkeys(parent, &children);
        };
        let mut found = None;
        for (index, leaf) in leaves.iter().enumerate() {
            let entries = self.content(leaf.cell)?.get(HEAD..HEAD + ENTRY * leaf.count);
            let entries = entries.ok_or_else(|| short_list(leaf.cell))?;
            let place = entries.chunks_exact(ENTRY).position(|entry| entry[..4] == child.to_le_bytes());
            if let Some(place) = place {
                found = Some((index, place));
                break;
            }
        }
        let Some((index, place)) = found else {
            return Err(Error::damaged(Layer::Hive, "a key is not in the list of its parent")
                .at(4096 + u64::from(child)));
        };
        let leaf = leaves[index];
        if leaf.count > 1 {
            self.narrow_list(leaf.cell, leaf.count, place, ENTRY)?;
        } else {
            self.release(leaf.cell);
            match root {
                Some(root) if leaves.len() > 1 => self.narrow_list(root, leaves.len(), index, POINTER)?,
                Some(root) => {
                    self.release(root);
                    self.put_u32(parent, 28, NONE);
                }
                None => self.put_u32(parent, 28, NONE),
            }
        }
        let count = leaves.iter().map(|leaf| leaf.count).sum::<usize>() - 1;
        self.put_u32(parent, 20, count as u32);
        Ok(())
    }
}
