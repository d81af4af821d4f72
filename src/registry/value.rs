//! Values: `vk` cells, data inside, beside, or in segments (`db`).

use super::cell::{cell, name_text, signed};
use super::hive::Hive;
use std::borrow::Cow;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_VALUE_BYTES;
use vmrescue_base::text::utf16le_lossy;

/// Most data bytes in one segment of a `db`.
pub(super) const SEGMENT_BYTES: usize = 16344;

/// The type of a value's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataType(pub u32);

impl DataType {
    /// Text.
    pub const SZ: DataType = DataType(1);
    /// Text with environment variables.
    pub const EXPAND_SZ: DataType = DataType(2);
    /// Bytes.
    pub const BINARY: DataType = DataType(3);
    /// A 32-bit number.
    pub const DWORD: DataType = DataType(4);
    /// Texts.
    pub const MULTI_SZ: DataType = DataType(7);
    /// A 64-bit number.
    pub const QWORD: DataType = DataType(11);

    const NAMES: [&'static str; 12] = [
        "REG_NONE",
        "REG_SZ",
        "REG_EXPAND_SZ",
        "REG_BINARY",
        "REG_DWORD",
        "REG_DWORD_BIG_ENDIAN",
        "REG_LINK",
        "REG_MULTI_SZ",
        "REG_RESOURCE_LIST",
        "REG_FULL_RESOURCE_DESCRIPTOR",
        "REG_RESOURCE_REQUIREMENTS_LIST",
        "REG_QWORD",
    ];

    /// The name that reg.exe uses, or the number.
    pub fn name(self) -> String {
        DataType::NAMES
            .get(self.0 as usize)
            .map_or_else(|| format!("{:#x}", self.0), |name| (*name).to_string())
    }

    /// The type of that name, as reg.exe takes it.
    pub fn from_name(name: &str) -> Option<DataType> {
        let place = DataType::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(DataType(place as u32))
    }
}

/// The data of a value, as its type says; what does not fit the type is bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueData {
    /// REG_SZ, REG_EXPAND_SZ, REG_LINK, without the closing NUL.
    Text(String),
    /// REG_MULTI_SZ.
    Texts(Vec<String>),
    /// REG_DWORD in either order, REG_QWORD.
    Number(u64),
    /// Everything else.
    Bytes(Vec<u8>),
}

/// A value of a key.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    hive: &'a Hive,
    node: &'a [u8],
    offset: u32,
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({} at {:#x})", self.name(), self.offset)
    }
}

impl<'a> Value<'a> {
    pub(super) fn at(hive: &'a Hive, offset: u32) -> Result<Value<'a>> {
        match signed(&hive.bytes, offset, b"vk") {
            Some(node) if node.len() >= 20 => Ok(Value { hive, node, offset }),
            _ => Err(Error::damaged(Layer::Hive, "a value list names something that is no value")
                .at(4096 + u64::from(offset))),
        }
    }

    fn number(&self, at: usize) -> u32 {
        u32_at(self.node, at).unwrap_or(0)
    }

    /// Its name; "" is the default value.
    pub fn name(&self) -> String {
        let length = usize::from(u16_at(self.node, 2).unwrap_or(0));
        let compressed = u16_at(self.node, 16).unwrap_or(0) & 1 != 0;
        name_text(slice_at(self.node, 20, length).unwrap_or_default(), compressed)
    }

    /// Type of the data.
    pub fn data_type(&self) -> DataType {
        DataType(self.number(12))
    }

    /// The data.
    ///
    /// # Errors
    /// `Damaged` when its cells cannot be read.
    pub fn data(&self) -> Result<Cow<'a, [u8]>> {
        let size = self.number(4);
        let broken = || {
            Error::damaged(Layer::Hive, "the data of a value cannot be read")
                .at(4096 + u64::from(self.offset))
        };
        if size & 0x8000_0000 != 0 {
            // Up to four bytes lie in the place of the offset.
            let length = (size & 0x7fff_ffff) as usize;
            return slice_at(self.node, 8, length)
                .filter(|_| length <= 4)
                .map(Cow::Borrowed)
                .ok_or_else(broken);
        }
        let length = size as usize;
        if length == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if length > MAX_VALUE_BYTES {
            return Err(broken().found(format!("{length} bytes")));
        }
        let bytes = &self.hive.bytes;
        let content = cell(bytes, self.number(8)).ok_or_else(broken)?;
        let segmented = length > SEGMENT_BYTES && content.get(..2) == Some(b"db") && content.len() < length;
        if !segmented {
            return content.get(..length).map(Cow::Borrowed).ok_or_else(broken);
        }
        let count = usize::from(u16_at(content, 2).unwrap_or(0));
        let list = u32_at(content, 4).and_then(|list| cell(bytes, list)).ok_or_else(broken)?;
        let mut data = Vec::with_capacity(length);
        for i in 0..count {
            let segment = u32_at(list, i * 4).and_then(|at| cell(bytes, at)).ok_or_else(broken)?;
            let wanted = (length - data.len()).min(SEGMENT_BYTES);
            data.extend_from_slice(segment.get(..wanted).ok_or_else(broken)?);
        }
        if data.len() == length { Ok(Cow::Owned(data)) } else { Err(broken()) }
    }

    /// The data as its type says.
    ///
    /// # Errors
    /// As [`Value::data`].
    pub fn typed(&self) -> Result<ValueData> {
        let data = self.data()?;
        Ok(match (self.data_type().0, data.len()) {
            (1 | 2 | 6, _) => ValueData::Text(terminated(&data)),
            (7, _) => ValueData::Texts(texts(&data)),
            (4, 4..) => ValueData::Number(u64::from(u32_at(&data, 0).unwrap_or(0))),
            (5, 4..) => ValueData::Number(u64::from(u32_at(&data, 0).unwrap_or(0).swap_bytes())),
            (11, 8..) => ValueData::Number(u64_at(&data, 0).unwrap_or(0)),
            _ => ValueData::Bytes(data.into_owned()),
        })
    }

    /// The number, when the type is one.
    pub fn as_u32(&self) -> Option<u32> {
        match self.typed() {
            Ok(ValueData::Number(number)) => u32::try_from(number).ok(),
            _ => None,
        }
    }

    /// The text, when the type is one.
    pub fn as_string(&self) -> Option<String> {
        match self.typed() {
            Ok(ValueData::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The texts that are not empty, when the type is REG_MULTI_SZ.
    pub fn as_multi_string(&self) -> Option<Vec<String>> {
        match self.typed() {
            Ok(ValueData::Texts(texts)) => Some(texts.into_iter().filter(|text| !text.is_empty()).collect()),
            _ => None,
        }
    }
}

/// Text up to the closing NUL; NULs inside stay.
fn terminated(data: &[u8]) -> String {
    let text = utf16le_lossy(data);
    text.strip_suffix('\0').map(str::to_string).unwrap_or(text)
}

/// The texts of a list, empty ones too: in PendingFileRenameOperations they say that a file is deleted. One NUL ends the last text, one more the
/// list.
fn texts(data: &[u8]) -> Vec<String> {
    let text = utf16le_lossy(data);
    let mut parts: Vec<&str> = text.split('\0').collect();
    for _ in 0..2 {
        if parts.last().is_some_and(|last| last.is_empty()) {
            parts.pop();
        }
    }
    parts.into_iter().map(str::to_string).collect()
}
