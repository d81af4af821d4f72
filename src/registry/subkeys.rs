//! Subkey lists: `li`, `lf`, `lh`, and `ri` over them.

use super::cell::cell;
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Most subkeys that are listed for one key.
const MAX_SUBKEYS: usize = 1 << 24;

fn broken(offset: u32, what: &str) -> Error {
    Error::damaged(Layer::Hive, format!("subkey list: {what}")).at(4096 + u64::from(offset))
}

/// An entry of a list: the key, and what the list says of its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: u32,
    /// The hash of its name, in `lh`.
    pub(super) hash: Option<u32>,
    /// The start of its name, in `lf`.
    pub(super) hint: Option<u32>,
}

/// All keys in the list at `offset`.
pub(super) fn listed(bytes: &[u8], offset: u32) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    leaf_or_root(bytes, offset, 0, &mut found)?;
    Ok(found)
}

/// As [`listed`], with what can be read of a damaged list.
pub(super) fn listed_lenient(bytes: &[u8], offset: u32, errors: &mut Vec<Error>) -> Vec<Entry> {
    let mut found = Vec::new();
    match cell(bytes, offset).filter(|list| list.starts_with(b"ri")) {
        Some(list) => {
            for i in 0..usize::from(u16_at(list, 2).unwrap_or(0)) {
                let leaf = u32_at(list, 4 + i * 4);
                let read = leaf.map(|leaf| leaf_or_root(bytes, leaf, 1, &mut found));
                errors.extend(match read {
                    Some(read) => read.err(),
                    None => Some(broken(offset, "longer than its cell")),
                });
                if leaf.is_none() {
                    break;
                }
            }
        }
        None => errors.extend(leaf_or_root(bytes, offset, 0, &mut found).err()),
    }
    found
}

fn leaf_or_root(bytes: &[u8], offset: u32, depth: usize, found: &mut Vec<Entry>) -> Result<()> {
    let list = cell(bytes, offset).ok_or_else(|| broken(offset, "not a cell"))?;
    let count = usize::from(u16_at(list, 2).unwrap_or(0));
    let number = |at| u32_at(list, at).ok_or_else(|| broken(offset, "longer than its cell"));
    match list.get(..2) {
        Some(b"lh") => {
            for i in 0..count {
                found.push(Entry { key: number(4 + i * 8)?, hash: Some(number(8 + i * 8)?), hint: None });
            }
        }
        Some(b"lf") => {
            for i in 0..count {
                found.push(Entry { key: number(4 + i * 8)?, hash: None, hint: Some(number(8 + i * 8)?) });
            }
        }
        Some(b"li") => {
            for i in 0..count {
                found.push(Entry { key: number(4 + i * 4)?, hash: None, hint: None });
            }
        }
        // Windows writes one level of index roots; a second one would be damage.
        Some(b"ri") if depth == 0 => {
            for i in 0..count {
                leaf_or_root(bytes, number(4 + i * 4)?, depth + 1, found)?;
            }
        }
        _ => return Err(broken(offset, "unknown kind")),
    }
    if found.len() > MAX_SUBKEYS {
        return Err(Error::limit(Layer::Hive, "too many subkeys").at(4096 + u64::from(offset)));
    }
    Ok(())
}

/// Offsets of the list's own cells: the list and, below an index root, its leaves.
pub(super) fn own_cells(bytes: &[u8], offset: u32) -> Vec<u32> {
    let mut cells = vec![offset];
    if let Some(list) = cell(bytes, offset).filter(|list| list.get(..2) == Some(b"ri")) {
        let count = usize::from(u16_at(list, 2).unwrap_or(0));
        cells.extend((0..count).filter_map(|i| u32_at(list, 4 + i * 4)));
    }
    cells
}
