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
    each(bytes, offset, |entry| {
        found.push(entry);
        Ok(true)
    })?;
    Ok(found)
}

/// Calls `visit` with each key in the list at `offset` until it says that this is enough.
pub(super) fn each(bytes: &[u8], offset: u32, mut visit: impl FnMut(Entry) -> Result<bool>) -> Result<()> {
    leaf_or_root(bytes, offset, 0, &mut 0, &mut visit).map(drop)
}

/// As [`listed`], with what can be read of a damaged list.
pub(super) fn listed_lenient(bytes: &[u8], offset: u32, errors: &mut Vec<Error>) -> Vec<Entry> {
    let (mut found, mut count) = (Vec::new(), 0);
    let mut push = |entry| {
        found.push(entry);
        Ok(true)
    };
    match cell(bytes, offset).filter(|list| list.starts_with(b"ri")) {
        Some(list) => {
            for i in 0..usize::from(u16_at(list, 2).unwrap_or(0)) {
                let leaf = u32_at(list, 4 + i * 4);
                let read = leaf.map(|leaf| leaf_or_root(bytes, leaf, 1, &mut count, &mut push));
                errors.extend(match read {
                    Some(read) => read.err(),
                    None => Some(broken(offset, "longer than its cell")),
                });
                if leaf.is_none() {
                    break;
                }
            }
        }
        None => errors.extend(leaf_or_root(bytes, offset, 0, &mut count, &mut push).err()),
    }
    found
}

/// False when `visit` had enough.
fn leaf_or_root(
    bytes: &[u8],
    offset: u32,
    depth: usize,
    seen: &mut usize,
    visit: &mut impl FnMut(Entry) -> Result<bool>,
) -> Result<bool> {
    let list = cell(bytes, offset).ok_or_else(|| broken(offset, "not a cell"))?;
    let count = usize::from(u16_at(list, 2).unwrap_or(0));
    let number = |at| u32_at(list, at).ok_or_else(|| broken(offset, "longer than its cell"));
    let kind = list.get(..2);
    // Windows writes one level of index roots; a second one would be damage.
    if kind == Some(b"ri") && depth == 0 {
        for i in 0..count {
            if !leaf_or_root(bytes, number(4 + i * 4)?, depth + 1, seen, visit)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let width = match kind {
        Some(b"lh" | b"lf") => 8,
        Some(b"li") => 4,
        _ => return Err(broken(offset, "unknown kind")),
    };
    *seen += count;
    if *seen > MAX_SUBKEYS {
        return Err(Error::limit(Layer::Hive, "too many subkeys").at(4096 + u64::from(offset)));
    }
    for i in 0..count {
        let key = number(4 + i * width)?;
        let more = if width == 8 { Some(number(8 + i * width)?) } else { None };
        let entry = Entry {
            key,
            hash: more.filter(|_| kind == Some(b"lh")),
            hint: more.filter(|_| kind == Some(b"lf")),
        };
        if !visit(entry)? {
            return Ok(false);
        }
    }
    Ok(true)
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
