//! Which allocated cells the root reaches: those that two owners use, and those that nobody does.

use super::cell::{BASE_BYTES, NONE, bins_bytes, cell, signed};
use super::hive::Hive;
use super::key::Key;
use super::subkeys::own_cells;
use super::value::SEGMENT_BYTES;
use std::collections::{HashMap, HashSet};
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Defect, Layer, Severity};

struct Reach<'a> {
    bytes: &'a [u8],
    /// Users of each cell, by what they use it for.
    used: HashMap<u32, &'static str>,
    twice: Vec<(u32, &'static str, &'static str)>,
}

/// Adds a defect for every cell with two owners, and one for all cells without any.
pub(super) fn check(hive: &Hive, defects: &mut Vec<Defect>) {
    let mut reach = Reach { bytes: hive.bytes(), used: HashMap::new(), twice: Vec::new() };
    let mut pending = vec![hive.root()];
    let mut seen = HashSet::from([hive.root().offset]);
    while let Some(key) = pending.pop() {
        reach.key(&key);
        pending.extend(key.subkeys_lenient().0.into_iter().filter(|child| seen.insert(child.offset)));
    }
    for (offset, first, second) in &reach.twice {
        let text = format!("a cell is used as {first} and as {second}");
        let at = 4096 + u64::from(*offset);
        defects.push(Defect::new("hive-cell-twice", Severity::Error, Layer::Hive, at, text));
    }
    let (count, bytes) = reach.unreached();
    if count > 0 {
        let text = format!("{count} cells of {bytes} bytes are allocated and belong to nothing");
        defects.push(Defect::new("hive-cells-unreachable", Severity::Note, Layer::Hive, None, text));
    }
}

impl Reach<'_> {
    fn use_cell(&mut self, offset: u32, what: &'static str) {
        if offset == NONE || cell(self.bytes, offset).is_none() {
            return;
        }
        if let Some(first) = self.used.insert(offset, what) {
            // Many keys share one security cell.
            if !(first == "security" && what == "security") {
                self.twice.push((offset, first, what));
            }
        }
    }

    fn key(&mut self, key: &Key<'_>) {
        self.use_cell(key.offset, "key");
        self.use_cell(key.number(44), "security");
        if key.class_name().is_some() {
            self.use_cell(key.number(48), "class name");
        }
        if key.subkey_count() > 0 {
            for list in own_cells(self.bytes, key.number(28)) {
                self.use_cell(list, "subkey list");
            }
        }
        let count = key.number(36);
        if count == 0 || count == NONE {
            return;
        }
        self.use_cell(key.number(40), "value list");
        let Some(list) = cell(self.bytes, key.number(40)) else { return };
        let offsets: Vec<u32> =
            list.chunks_exact(4).take(count as usize).filter_map(|at| u32_at(at, 0)).collect();
        for offset in offsets {
            self.value(offset);
        }
    }

    fn value(&mut self, offset: u32) {
        let Some(node) = signed(self.bytes, offset, b"vk") else { return };
        self.use_cell(offset, "value");
        let (size, at) = (u32_at(node, 4).unwrap_or(0), u32_at(node, 8).unwrap_or(NONE));
        if size & 0x8000_0000 != 0 || size == 0 {
            return;
        }
        self.use_cell(at, "data");
        let Some(content) = cell(self.bytes, at) else { return };
        if size as usize > SEGMENT_BYTES && content.starts_with(b"db") && content.len() < size as usize {
            let (count, list) = (u16_at(content, 2).unwrap_or(0), u32_at(content, 4).unwrap_or(NONE));
            self.use_cell(list, "segment list");
            let Some(segments) = cell(self.bytes, list) else { return };
            let offsets: Vec<u32> =
                segments.chunks_exact(4).take(usize::from(count)).filter_map(|at| u32_at(at, 0)).collect();
            offsets.into_iter().for_each(|segment| self.use_cell(segment, "segment"));
        }
    }

    /// How many allocated cells nobody uses, and their bytes.
    fn unreached(&self) -> (u64, u64) {
        let end = bins_bytes(self.bytes);
        let (mut count, mut bytes, mut bin) = (0, 0, 0);
        while bin + 32 <= end {
            let size = u32_at(self.bytes, BASE_BYTES + bin + 8).unwrap_or(0) as usize;
            if size < 4096 || !size.is_multiple_of(4096) || size > end - bin {
                break;
            }
            let mut cell = bin + 32;
            while cell + 8 <= bin + size {
                let raw = u32_at(self.bytes, BASE_BYTES + cell).unwrap_or(0).cast_signed();
                let length = raw.unsigned_abs() as usize;
                if length < 8 || length > bin + size - cell {
                    break;
                }
                if raw < 0 && !self.used.contains_key(&(cell as u32)) {
                    count += 1;
                    bytes += length as u64;
                }
                cell += length;
            }
            bin += size;
        }
        (count, bytes)
    }
}
