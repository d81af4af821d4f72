//! Subkey lists: `li`, `lf`, `lh`, and `ri` over them.

use super::cell::cell;
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Most subkeys that are listed for one key.
const MAX_SUBKEYS: usize = 1 << 24;

fn broken(offset: u32, what: &str) -> Error {
    Error::damaged(Layer::Hive, format!("subkey list: {what}")).at(4096 + u64::from(offset))
}

/// Offsets of all keys in the list at `offset`, with their hash where the list has one.
pub(super) fn listed(bytes: &[u8], offset: u32) -> Result<Vec<(u32, Option<u32>)>> {
    let mut found = Vec::new();
    leaf_or_root(bytes, offset, 0, &mut found)?;
    Ok(found)
}

/// As [`listed`], with what can be read of a damaged list.
pub(super) fn listed_lenient(bytes: &[u8], offset: u32, errors: &mut Vec<Error>) -> Vec<(u32, Option<u32>)> {
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

fn leaf_or_root(bytes: &[u8], offset: u32, depth: usize, found: &mut Vec<(u32, Option<u32>)>) -> Result<()> {
    let list = cell(bytes, offset).ok_or_else(|| broken(offset, "not a cell"))?;
    let count = usize::from(u16_at(list, 2).unwrap_or(0));
    let number = |at| u32_at(list, at).ok_or_else(|| broken(offset, "longer than its cell"));
    match list.get(..2) {
        Some(b"lh") => {
            for i in 0..count {
                found.push((number(4 + i * 8)?, Some(number(8 + i * 8)?)));
            }
        }
        Some(b"lf") => {
            for i in 0..count {
                found.push((number(4 + i * 8)?, None));
            }
        }
        Some(b"li") => {
            for i in 0..count {
                found.push((number(4 + i * 4)?, None));
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
