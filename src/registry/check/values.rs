//! The values of a key: their list, their cells, and where their data lies.

use super::Walk;
use super::map::Use;
use crate::cell::{NONE, cell};
use crate::key::{Key, LINK_VALUE, REG_LINK};
use crate::value::{SEGMENT_BYTES, Value, is_segmented};
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Defect, Severity};

impl<'a> Walk<'a> {
    /// Looks at all values; raises `longest` for names (at 60) and data (at 64).
    pub(super) fn values(&mut self, key: &Key<'a>, longest: &mut [(usize, u32); 2]) {
        let offsets = match key.value_offsets() {
            Ok(offsets) => offsets,
            Err(e) => {
                self.defects.push(Defect::from_error("hive-value-bad", Severity::Error, &e));
                return;
            }
        };
        if offsets.is_empty() {
            if key.number(40) != NONE {
                let text = format!("key {} has no values and a list of them", key.name());
                self.bad("hive-value-bad", key.offset, text);
            }
            return;
        }
        self.take(key.number(40), Use::ValueList);
        let is_link = key.has_link_flag();
        for offset in offsets {
            let value = match Value::at(self.hive, offset) {
                Ok(value) => value,
                Err(e) => {
                    self.defects.push(Defect::from_error("hive-value-bad", Severity::Error, &e));
                    continue;
                }
            };
            self.take(offset, Use::Value);
            match value.stored_name() {
                Some((name, false)) if name.len() % 2 == 1 => {
                    self.bad("hive-value-bad", offset, "the name of a value has half a character".into());
                }
                Some((name, compressed)) => {
                    let bytes = name.len() as u32 * if compressed { 2 } else { 1 };
                    longest[0].1 = longest[0].1.max(bytes);
                }
                None => self.bad(
                    "hive-value-bad",
                    offset,
                    "the name of a value does not fit into its cell".into(),
                ),
            }
            if is_link && (value.data_type().0 != REG_LINK || value.name() != LINK_VALUE) {
                self.bad(
                    "hive-link-bad",
                    offset,
                    format!("link {} has a value that is none of a link", key.name()),
                );
            }
            if value.is_tombstone() && self.hive.minor_version() >= 6 && !value.is_nothing() {
                let text = format!("value {} is deleted by its layer and has a type or data", value.name());
                self.bad("hive-layer-wrong", offset, text);
            }
            if value.is_tombstone() && self.hive.minor_version() < 6 {
                let text = format!("value {} is deleted by its layer, and the hive has none", value.name());
                self.bad("hive-layer-wrong", offset, text);
            }
            longest[1].1 = longest[1].1.max(value.size());
            self.data(&value, offset);
        }
    }

    fn data(&mut self, value: &Value<'a>, offset: u32) {
        let Some((size, at)) = value.place() else {
            if value.is_empty_with_a_cell() {
                let text = format!("value {} has no data and a cell for it", value.name());
                self.bad("hive-value-bad", offset, text);
            }
            if value.data().is_err() {
                self.bad(
                    "hive-value-bad",
                    offset,
                    format!("the data of value {} cannot be read", value.name()),
                );
            }
            return;
        };
        let bytes = self.hive.bytes();
        let Some(content) = cell(bytes, at) else {
            return self.bad(
                "hive-value-bad",
                offset,
                format!("the data of value {} cannot be read", value.name()),
            );
        };
        self.take(at, Use::Data);
        if !is_segmented(self.hive.minor_version(), size) {
            if content.len() < size {
                self.bad(
                    "hive-value-bad",
                    offset,
                    format!("the data of value {} is longer than its cell", value.name()),
                );
            }
            return;
        }
        let count = usize::from(u16_at(content, 2).unwrap_or(0));
        let list_at = u32_at(content, 4).unwrap_or(u32::MAX);
        let list = cell(bytes, list_at).filter(|list| list.len() >= count * 4);
        let Some(list) = list.filter(|_| content.starts_with(b"db") && count == size.div_ceil(SEGMENT_BYTES))
        else {
            return self.bad(
                "hive-value-bad",
                offset,
                format!("the segments of value {} cannot be read", value.name()),
            );
        };
        self.take(list_at, Use::Segment);
        for segment in list.chunks_exact(4).take(count).filter_map(|entry| u32_at(entry, 0)) {
            self.take(segment, Use::Segment);
            match cell(bytes, segment) {
                Some(content) if content.len() >= SEGMENT_BYTES => {}
                Some(_) => {
                    let text = format!(
                        "a segment of value {} has a short cell; Windows deletes such a value",
                        value.name()
                    );
                    self.bad("hive-segment-short", segment, text);
                }
                None => self.bad(
                    "hive-value-bad",
                    offset,
                    format!("a segment of value {} cannot be read", value.name()),
                ),
            }
        }
    }
}
