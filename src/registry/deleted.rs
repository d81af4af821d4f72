//! Keys and values that were deleted: their cells are free, their bytes often still there.
//!
//! A free cell may hold what several deleted cells held before they were joined, so every eighth byte is looked at. What is
//! found is a remnant: its name and times are its own, its path is put together from parents that may have been reused.

use super::cell::{BASE_BYTES, NONE, bins_bytes, name_text};
use super::hive::Hive;
use super::key::KEY_COMPRESSED;
use super::value::DataType;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::limits::{MAX_KEY_DEPTH, MAX_VALUE_BYTES};
use vmrescue_base::time::FileTime;

/// A deleted key or value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remnant {
    /// Place in the file, in bytes.
    pub file_offset: u64,
    /// Path from the root as far as the parents are there, then the name; for a value the name alone.
    pub path: String,
    /// What it was.
    pub kind: RemnantKind,
}

/// What a remnant was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemnantKind {
    /// A key, and when it was last written.
    Key(FileTime),
    /// A value: its type, and its data where they are still whole.
    Value(DataType, Option<Vec<u8>>),
}

/// Content from an offset of the bins to the end of the cell that lies there, free or not.
fn any_cell(bytes: &[u8], offset: u32) -> Option<&[u8]> {
    let start = BASE_BYTES.checked_add(offset as usize)?;
    if offset == NONE || !offset.is_multiple_of(8) {
        return None;
    }
    let length = u32_at(bytes, start)?.cast_signed().unsigned_abs() as usize;
    slice_at(bytes, start + 4, length.checked_sub(4)?)
}

impl Hive {
    /// Everything that can still be recognised in free cells, in the order of the file.
    pub fn deleted(&self) -> Vec<Remnant> {
        let bytes = &self.bytes;
        let end = bins_bytes(bytes);
        let mut found = Vec::new();
        let mut bin = 0;
        while bin + 32 <= end {
            let size = u32_at(bytes, BASE_BYTES + bin + 8).unwrap_or(0) as usize;
            if slice_at(bytes, BASE_BYTES + bin, 4) != Some(b"hbin") || size < 4096 || size > end - bin {
                bin += 4096;
                continue;
            }
            let mut cell = bin + 32;
            while cell + 8 <= bin + size {
                let raw = u32_at(bytes, BASE_BYTES + cell).unwrap_or(0).cast_signed();
                let length = (raw.unsigned_abs() as usize).clamp(8, bin + size - cell).next_multiple_of(8);
                if raw > 0 {
                    self.look_into(cell..(cell + length).min(bin + size), &mut found);
                }
                cell += length;
            }
            bin += size;
        }
        found
    }

    /// Looks for heads of keys and values in a free cell.
    fn look_into(&self, range: std::ops::Range<usize>, found: &mut Vec<Remnant>) {
        for at in range.clone().step_by(8) {
            let start = BASE_BYTES + at + 4;
            let Some(content) = self.bytes.get(start..BASE_BYTES + range.end) else { return };
            let remnant = match content.get(..2) {
                Some(b"nk") => self.deleted_key(content),
                Some(b"vk") => self.deleted_value(content),
                _ => None,
            };
            if let Some((path, kind)) = remnant {
                found.push(Remnant { file_offset: start as u64 - 4, path, kind });
            }
        }
    }

    fn deleted_key(&self, node: &[u8]) -> Option<(String, RemnantKind)> {
        let length = usize::from(u16_at(node, 72)?);
        let name = node_name(node)?;
        if length == 0 || name.contains('\\') {
            return None;
        }
        let (mut path, mut parent) = (name, u32_at(node, 16)?);
        for _ in 0..MAX_KEY_DEPTH {
            if parent == self.root().offset {
                break;
            }
            let Some(above) = any_cell(&self.bytes, parent).filter(|above| above.starts_with(b"nk")) else {
                path = format!("?\\{path}");
                break;
            };
            path = format!("{}\\{path}", node_name(above)?);
            parent = u32_at(above, 16)?;
        }
        Some((path, RemnantKind::Key(FileTime(u64_at(node, 4)?))))
    }

    fn deleted_value(&self, node: &[u8]) -> Option<(String, RemnantKind)> {
        let (length, size) = (usize::from(u16_at(node, 2)?), u32_at(node, 4)?);
        let kind = DataType(u32_at(node, 12)?);
        let flags = u16_at(node, 16)?;
        if flags > 3 || kind.0 > 0xffff {
            return None;
        }
        let name = name_text(slice_at(node, 20, length)?, flags & 1 != 0);
        let data = if size & 0x8000_0000 != 0 {
            slice_at(node, 8, (size & 0x7fff_ffff) as usize).filter(|data| data.len() <= 4)
        } else if size as usize <= MAX_VALUE_BYTES {
            any_cell(&self.bytes, u32_at(node, 8)?).and_then(|cell| cell.get(..size as usize))
        } else {
            return None;
        };
        Some((name, RemnantKind::Value(kind, data.map(<[u8]>::to_vec))))
    }
}

fn node_name(node: &[u8]) -> Option<String> {
    let length = usize::from(u16_at(node, 72)?);
    Some(name_text(slice_at(node, 76, length)?, u16_at(node, 2)? & KEY_COMPRESSED != 0))
}
