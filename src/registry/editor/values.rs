//! Values of a hive under edit: their cells, their lists, and the three places where data lies.

use super::HiveEditor;
use crate::cell::{NONE, name_bytes};
use crate::key::Key;
use crate::value::{DataType, SEGMENT_BYTES, TOMBSTONE, is_segmented};
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::Result;

/// Content of a segment's cell: the data and four bytes that nobody uses.
const SEGMENT_CELL_BYTES: usize = SEGMENT_BYTES + 4;

impl HiveEditor {
    /// A value that a layer had marked as deleted is there again.
    pub(super) fn revive(&mut self, value: u32) -> Result<()> {
        let flags = u16_at(self.content(value)?, 16).unwrap_or(0);
        if flags & TOMBSTONE != 0 {
            self.put(value, 16, &(flags & !TOMBSTONE).to_le_bytes());
        }
        Ok(())
    }

    /// Makes a value without data one that its layer has deleted: without a type, a size and a place, as Windows asks for.
    pub(crate) fn bury(&mut self, value: u32) -> Result<()> {
        let flags = u16_at(self.content(value)?, 16).unwrap_or(0); // at least 20 bytes, made by `new_value`
        self.put(value, 16, &(flags | TOMBSTONE).to_le_bytes());
        self.put_u32(value, 4, 0);
        self.put_u32(value, 8, NONE);
        self.put_u32(value, 12, 0);
        Ok(())
    }

    pub(crate) fn set_values(&mut self, key: u32, values: &[u32]) -> Result<()> {
        let node = Key::at(&self.hive, key)?;
        let (old_count, old_list) = (node.value_offsets()?.len(), node.number(40));
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let fits = old_count > 0 && self.content(old_list).is_ok_and(|list| list.len() >= bytes.len());
        let list = if values.is_empty() {
            if old_count > 0 {
                self.release(old_list);
            }
            NONE
        } else if fits {
            old_list
        } else {
            if old_count > 0 {
                self.release(old_list);
            }
            self.allocate(bytes.len())?
        };
        if list != NONE {
            self.put(list, 0, &bytes);
        }
        self.put_u32(key, 36, values.len() as u32);
        self.put_u32(key, 40, list);
        Ok(())
    }

    pub(crate) fn new_value(&mut self, name: &str, data_type: DataType, data: &[u8]) -> Result<u32> {
        let (bytes, compressed) = name_bytes(name);
        let offset = self.allocate(20 + bytes.len())?;
        self.put(offset, 0, b"vk");
        self.put(offset, 2, &(bytes.len() as u16).to_le_bytes());
        self.put_u32(offset, 12, data_type.0);
        self.put(offset, 16, &u16::from(compressed && !bytes.is_empty()).to_le_bytes());
        self.put(offset, 20, &bytes);
        self.put_data(offset, data)?;
        Ok(offset)
    }

    pub(super) fn put_data(&mut self, value: u32, data: &[u8]) -> Result<()> {
        if data.len() <= 4 {
            let mut inside = [0; 4];
            inside[..data.len()].copy_from_slice(data);
            self.put_u32(value, 4, data.len() as u32 | 0x8000_0000);
            self.put(value, 8, &inside);
            return Ok(());
        }
        // Versions before 1.4 have no segments.
        let cell = if !is_segmented(self.hive.minor_version(), data.len()) {
            let cell = self.allocate(data.len())?;
            self.put(cell, 0, data);
            cell
        } else {
            let mut segments = Vec::new();
            for part in data.chunks(SEGMENT_BYTES) {
                // Every cell of a segment has the full size, the last one too: Windows deletes a value whose last is short.
                let segment = self.allocate(SEGMENT_CELL_BYTES)?;
                self.put(segment, 0, part);
                segments.push(segment);
            }
            let list = self.allocate(segments.len() * 4)?;
            segments.iter().enumerate().for_each(|(i, segment)| self.put_u32(list, i * 4, *segment));
            let db = self.allocate(8)?;
            self.put(db, 0, b"db");
            self.put(db, 2, &(segments.len() as u16).to_le_bytes());
            self.put_u32(db, 4, list);
            db
        };
        self.put_u32(value, 4, data.len() as u32);
        self.put_u32(value, 8, cell);
        Ok(())
    }

    /// New data, in the old cell where it fits without waste.
    pub(super) fn replace_data(&mut self, value: u32, data: &[u8]) -> Result<()> {
        let node = self.content(value)?;
        let (size, at) = (u32_at(node, 4).unwrap_or(0), u32_at(node, 8).unwrap_or(NONE));
        let plain = size & 0x8000_0000 == 0 && size as usize <= SEGMENT_BYTES && size > 0;
        let room = self.content(at).map_or(0, <[u8]>::len);
        let fits = plain
            && (5..=SEGMENT_BYTES).contains(&data.len())
            && data.len() <= room
            && room - data.len() < 16;
        if fits {
            self.put(at, 0, data);
            self.put_u32(value, 4, data.len() as u32);
            return Ok(());
        }
        self.free_data(value)?;
        self.put_data(value, data)
    }

    pub(super) fn free_data(&mut self, value: u32) -> Result<()> {
        let node = self.content(value)?;
        let (size, at) = (u32_at(node, 4).unwrap_or(0), u32_at(node, 8).unwrap_or(NONE));
        if size & 0x8000_0000 != 0 || size == 0 {
            return Ok(());
        }
        let content = self.content(at)?;
        if is_segmented(self.hive.minor_version(), size as usize) && content.starts_with(b"db") {
            let (count, list) = (u16_at(content, 2).unwrap_or(0), u32_at(content, 4).unwrap_or(NONE));
            let cells = self.content(list)?;
            let segments: Vec<u32> = (0..usize::from(count)).filter_map(|i| u32_at(cells, i * 4)).collect();
            segments.into_iter().for_each(|segment| self.release(segment));
            self.release(list);
        }
        self.release(at);
        Ok(())
    }
}
