//! Values: `vk` cells, data inside, beside, or in segments (`db`).

use super::cell::{cell, is_name, name_text, signed};
use super::hive::Hive;
use std::borrow::Cow;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_VALUE_BYTES;
use vmrescue_base::text::{utf16le_bytes, utf16le_lossy};

/// Most data bytes in one segment of a `db`.
pub(super) const SEGMENT_BYTES: usize = 16344;
/// Flag of a `vk` in a layered hive (version 1.6): the value is deleted.
pub(super) const TOMBSTONE: u16 = 2;

/// True when data of this size lies in segments: since version 1.4, beyond one segment.
pub(super) fn is_segmented(minor_version: u32, size: usize) -> bool {
    size > SEGMENT_BYTES && minor_version >= 4
}

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

    /// The type of that name: reg.exe's, with or without `REG_`, or PowerShell's.
    pub fn from_name(name: &str) -> Option<DataType> {
        const POWER_SHELL: [(&str, DataType); 4] = [
            ("String", DataType::SZ),
            ("ExpandString", DataType::EXPAND_SZ),
            ("MultiString", DataType::MULTI_SZ),
            ("None", DataType(0)),
        ];
        let is = |known: &str| {
            known.eq_ignore_ascii_case(name)
                || known.strip_prefix("REG_").is_some_and(|short| short.eq_ignore_ascii_case(name))
        };
        let place = DataType::NAMES.iter().position(|known| is(known)).map(|place| DataType(place as u32));
        place.or_else(|| POWER_SHELL.iter().find(|(known, _)| is(known)).map(|(_, kind)| *kind))
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

    /// The bytes of its name, and whether they are Latin-1; `None` when they do not fit into the cell.
    pub(super) fn stored_name(&self) -> Option<(&'a [u8], bool)> {
        let length = usize::from(u16_at(self.node, 2).unwrap_or(0));
        let compressed = u16_at(self.node, 16).unwrap_or(0) & 1 != 0;
        slice_at(self.node, 20, length).map(|bytes| (bytes, compressed))
    }

    /// Its name; "" is the default value.
    pub fn name(&self) -> String {
        self.stored_name().map(|(bytes, compressed)| name_text(bytes, compressed)).unwrap_or_default()
    }

    /// True when this is its name, which is in upper case.
    pub(super) fn is_named(&self, upper: &[u16]) -> bool {
        self.stored_name().map_or(upper.is_empty(), |(bytes, compressed)| is_name(bytes, compressed, upper))
    }

    /// True for a text that is no whole number of units.
    pub fn size_is_odd(&self) -> bool {
        self.size() % 2 == 1
    }

    /// Bytes of the data, as the value says.
    pub(super) fn size(&self) -> u32 {
        self.number(4) & 0x7fff_ffff
    }

    /// True for a value that a layer of version 1.6 has deleted.
    pub(super) fn is_tombstone(&self) -> bool {
        u16_at(self.node, 16).unwrap_or(0) & TOMBSTONE != 0
    }

    /// True for a size of 0 beside a place, which Windows does not take.
    pub(super) fn is_empty_with_a_cell(&self) -> bool {
        self.number(4) == 0 && self.number(8) != u32::MAX
    }

    /// True for no type, no data and no place of any.
    pub(super) fn is_nothing(&self) -> bool {
        self.number(4) == 0 && self.number(8) == u32::MAX && self.number(12) == 0
    }

    /// Size and cell of data that lies outside of the value.
    pub(super) fn place(&self) -> Option<(usize, u32)> {
        let size = self.number(4);
        (size & 0x8000_0000 == 0 && size != 0).then(|| (size as usize, self.number(8)))
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
        if !is_segmented(self.hive.minor_version(), length) {
            return content.get(..length).map(Cow::Borrowed).ok_or_else(broken);
        }
        if !content.starts_with(b"db") {
            return Err(broken().expected("db"));
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
            (4, 4) => ValueData::Number(u64::from(u32_at(&data, 0).unwrap_or(0))),
            (5, 4) => ValueData::Number(u64::from(u32_at(&data, 0).unwrap_or(0).swap_bytes())),
            (11, 8) => ValueData::Number(u64_at(&data, 0).unwrap_or(0)),
            _ => ValueData::Bytes(data.into_owned()),
        })
    }

    /// The number, when the type is one.
    pub fn as_u32(&self) -> Option<u32> {
        match self.typed() {
            Ok(ValueData::Number(number)) => u32::try_from(number).ok(),
            // Longer than its type: Windows' own readers take the first four bytes.
            Ok(ValueData::Bytes(bytes)) if self.data_type() == DataType::DWORD => u32_at(&bytes, 0),
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

/// The texts of a list, empty ones inside too: each ends with a NUL, the list with one more.
fn texts(data: &[u8]) -> Vec<String> {
    let text = utf16le_lossy(data);
    if text.trim_end_matches('\0').is_empty() && text.len() <= 2 {
        return Vec::new();
    }
    let list = text.strip_suffix('\0').filter(|list| list.ends_with('\0')).unwrap_or(&text);
    list.split_terminator('\0').map(str::to_string).collect()
}

impl ValueData {
    /// The bytes that Windows writes for it, for data of this type.
    pub fn encode(&self, data_type: DataType) -> Vec<u8> {
        match (self, data_type) {
            (ValueData::Text(text), _) => utf16le_bytes(&format!("{text}\0")),
            (ValueData::Texts(texts), _) => utf16le_bytes(
                &texts.iter().map(|text| format!("{text}\0")).chain(["\0".to_string()]).collect::<String>(),
            ),
            (ValueData::Number(number), DataType(11)) => number.to_le_bytes().to_vec(),
            (ValueData::Number(number), DataType(5)) => (*number as u32).to_be_bytes().to_vec(),
            (ValueData::Number(number), _) => (*number as u32).to_le_bytes().to_vec(),
            (ValueData::Bytes(bytes), _) => bytes.clone(),
        }
    }
}
