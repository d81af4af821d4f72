//! Values of a hive by path, for facts: what is not there is `None`, what cannot be read is `None` too and noted once.

use std::cell::RefCell;
use vmrescue_base::error::Result;
use vmrescue_base::time::FileTime;
use vmrescue_registry::{DataType, Hive, Key, Value, ValueData};

/// Problems that are kept; a damaged hive would give thousands.
const MAX_PROBLEMS: usize = 40;

/// Notes on what could not be read.
#[derive(Debug, Default)]
pub(super) struct Notes(RefCell<Vec<String>>);

impl Notes {
    /// Adds one, if it is new and there is room.
    pub(super) fn add(&self, note: String) {
        let mut all = self.0.borrow_mut();
        if all.len() < MAX_PROBLEMS && !all.contains(&note) {
            all.push(note);
        }
    }

    /// All of them.
    pub(super) fn into_vec(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// A hive with the control set that `%` at the start of a path stands for.
pub(super) struct Keys<'a> {
    hive: Option<&'a Hive>,
    name: &'static str,
    set: String,
    notes: &'a Notes,
}

impl<'a> Keys<'a> {
    /// `hive` is `None` when it could not be read: then every answer is `None`.
    pub(super) fn new(hive: Option<&'a Hive>, name: &'static str, set: u32, notes: &'a Notes) -> Keys<'a> {
        Keys { hive, name, set: format!("ControlSet{:03}", set.max(1)), notes }
    }

    /// The hive could be read.
    pub(super) fn are_known(&self) -> bool {
        self.hive.is_some()
    }

    fn taken<T>(&self, path: &str, result: Result<Option<T>>) -> Option<T> {
        result.unwrap_or_else(|e| {
            self.notes.add(format!(r"HKLM\{}\{path}: {e}", self.name));
            None
        })
    }

    /// The key at `path`.
    pub(super) fn key(&self, path: &str) -> Option<Key<'a>> {
        let full =
            path.strip_prefix('%').map_or_else(|| path.to_string(), |rest| format!("{}{rest}", self.set));
        self.taken(&full, self.hive?.key(&full))
    }

    /// True when the key is there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.key(path).is_some()
    }

    /// The subkeys that can be read.
    pub(super) fn subkeys(&self, path: &str) -> Vec<Key<'a>> {
        let Some(key) = self.key(path) else { return Vec::new() };
        let (keys, errors) = key.subkeys_lenient();
        for e in errors {
            self.notes.add(format!(r"HKLM\{}\{path}: {e}", self.name));
        }
        keys
    }

    fn value(&self, path: &str, name: &str) -> Option<Value<'a>> {
        let key = self.key(path)?;
        self.taken(path, key.value(name))
    }

    fn typed(&self, path: &str, name: &str) -> Option<(Value<'a>, ValueData)> {
        let value = self.value(path, name)?;
        let data = self.taken(path, value.typed().map(Some))?;
        Some((value, data))
    }

    /// A number.
    pub(super) fn number(&self, path: &str, name: &str) -> Option<u32> {
        let (value, data) = self.typed(path, name)?;
        number_in(&value, data)
    }

    /// A number that says yes or no.
    pub(super) fn flag(&self, path: &str, name: &str) -> Option<bool> {
        self.number(path, name).map(|number| number != 0)
    }

    /// A text that is not empty.
    pub(super) fn text(&self, path: &str, name: &str) -> Option<String> {
        text_in(self.typed(path, name)?.1)
    }

    /// Texts.
    pub(super) fn texts(&self, path: &str, name: &str) -> Vec<String> {
        self.typed(path, name).map(|(_, data)| texts_in(data)).unwrap_or_default()
    }

    /// Bytes.
    pub(super) fn bytes(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let value = self.value(path, name)?;
        self.taken(path, value.data().map(|data| Some(data.into_owned())))
    }

    /// A FILETIME in eight bytes, of whichever type; zero is none.
    pub(super) fn time(&self, path: &str, name: &str) -> Option<FileTime> {
        let time = FileTime(vmrescue_base::bytes::u64_at(&self.bytes(path, name)?, 0)?);
        (!time.is_zero()).then_some(time)
    }
}

/// The text in a value; `None` for other types.
fn text_in(data: ValueData) -> Option<String> {
    let ValueData::Text(text) = data else { return None };
    // Programs write whole buffers; what follows the NUL is not part of the text.
    let text = vmrescue_base::text::until_nul(&text);
    (!text.is_empty()).then(|| text.to_string())
}

/// The texts in a value: a list, or one text.
fn texts_in(data: ValueData) -> Vec<String> {
    match data {
        ValueData::Texts(list) => list.into_iter().filter(|text| !text.is_empty()).collect(),
        other => text_in(other).into_iter().collect(),
    }
}

/// The number in a value; a REG_DWORD that is longer than its type counts by its first four bytes, as for Windows.
fn number_in(value: &Value<'_>, data: ValueData) -> Option<u32> {
    match data {
        ValueData::Number(number) => u32::try_from(number).ok(),
        ValueData::Bytes(bytes) if value.data_type() == DataType::DWORD => {
            vmrescue_base::bytes::u32_at(&bytes, 0)
        }
        // A value of another type is no number for Windows, too.
        ValueData::Bytes(_) | ValueData::Text(_) | ValueData::Texts(_) => None,
    }
}

/// Values of keys at hand: what cannot be read is noted.
impl Notes {
    /// What is there, or a note of why it cannot be read.
    pub(super) fn seen<T>(&self, place: &str, result: Result<Option<T>>) -> Option<T> {
        result.unwrap_or_else(|e| {
            self.add(format!("{place}: {e}"));
            None
        })
    }

    fn typed<'k>(&self, key: &Key<'k>, name: &str) -> Option<(Value<'k>, ValueData)> {
        let place = || format!(r"{}: {name}", key.name());
        let value = self.seen(&place(), key.value(name))?;
        let data = self.seen(&place(), value.typed().map(Some))?;
        Some((value, data))
    }

    /// A number.
    pub(super) fn number(&self, key: &Key<'_>, name: &str) -> Option<u32> {
        self.typed(key, name).and_then(|(value, data)| number_in(&value, data))
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &Key<'_>, name: &str) -> Option<String> {
        text_in(self.typed(key, name)?.1)
    }

    /// Texts.
    pub(super) fn texts(&self, key: &Key<'_>, name: &str) -> Vec<String> {
        self.typed(key, name).map(|(_, data)| texts_in(data)).unwrap_or_default()
    }

    /// Bytes.
    pub(super) fn bytes(&self, key: &Key<'_>, name: &str) -> Option<Vec<u8>> {
        let place = format!(r"{}: {name}", key.name());
        let value = self.seen(&place, key.value(name))?;
        self.seen(&place, value.data().map(|data| Some(data.into_owned())))
    }
}
