//! Values of a hive by path, for facts: what is not there is `None`, what cannot be read is `None` too and noted once.

use std::cell::RefCell;
use vmrescue_base::time::FileTime;
use vmrescue_registry::{Hive, Key, Value};

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

    fn taken<T>(&self, path: &str, result: vmrescue_base::error::Result<Option<T>>) -> Option<T> {
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

    /// A number.
    pub(super) fn number(&self, path: &str, name: &str) -> Option<u32> {
        self.value(path, name)?.as_u32()
    }

    /// A number that says yes or no.
    pub(super) fn flag(&self, path: &str, name: &str) -> Option<bool> {
        self.number(path, name).map(|number| number != 0)
    }

    /// A text that is not empty.
    pub(super) fn text(&self, path: &str, name: &str) -> Option<String> {
        text_of(self.value(path, name)?)
    }

    /// Texts.
    pub(super) fn texts(&self, path: &str, name: &str) -> Vec<String> {
        self.value(path, name).map(texts_of).unwrap_or_default()
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

fn text_of(value: Value<'_>) -> Option<String> {
    let text = value.as_string()?;
    // Programs write whole buffers; what follows the NUL is not part of the text.
    let text = vmrescue_base::text::until_nul(&text);
    (!text.is_empty()).then(|| text.to_string())
}

fn texts_of(value: Value<'_>) -> Vec<String> {
    value.as_multi_string().or_else(|| text_of(value).map(|text| vec![text])).unwrap_or_default()
}

/// A number of a key at hand.
pub(super) fn number(key: &Key<'_>, name: &str) -> Option<u32> {
    key.value(name).ok()??.as_u32()
}

/// A text of a key at hand.
pub(super) fn text(key: &Key<'_>, name: &str) -> Option<String> {
    text_of(key.value(name).ok()??)
}

/// Texts of a key at hand.
pub(super) fn texts(key: &Key<'_>, name: &str) -> Vec<String> {
    key.value(name).ok().flatten().map(texts_of).unwrap_or_default()
}

/// Bytes of a key at hand.
pub(super) fn bytes(key: &Key<'_>, name: &str) -> Option<Vec<u8>> {
    Some(key.value(name).ok()??.data().ok()?.into_owned())
}
