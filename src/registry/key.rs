//! The key node, `nk`.

use super::cell::{NONE, cell, hint_allows, is_name, name_hash_units, name_text, signed, upper_units};
use super::hive::Hive;
use super::subkeys::{each, listed, listed_lenient};
use super::value::Value;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::time::FileTime;

/// Flag of an `nk` or `vk`: the name is Latin-1.
pub(super) const KEY_COMPRESSED: u16 = 0x20;
/// Flag of a key that is a symbolic link.
pub(super) const SYMBOLIC_LINK: u16 = 0x10;
/// Flag of a key that stands for a root of the registry; none on disk has it.
pub(super) const PREDEFINED: u16 = 0x40;
/// Type of the one value of a link.
pub(super) const REG_LINK: u32 = 6;
/// Its name.
pub(super) const LINK_VALUE: &str = "SymbolicLinkValue";
/// Most values that one key is read with.
const MAX_VALUES: usize = 1 << 20;

/// What a key of a layered hive (version 1.6) does with the key of that name in the layer below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layered {
    /// Both are one key.
    Merges,
    /// The key below is deleted.
    Tombstone,
    /// The values of the key below do not count.
    Replaces,
    /// Nor do its subkeys.
    ReplacesTree,
}

/// A key of a hive.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    pub(super) hive: &'a Hive,
    pub(super) offset: u32,
}

impl std::fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({} at {:#x})", self.name(), self.offset)
    }
}

impl<'a> Key<'a> {
    /// A key at an offset that was checked to hold one.
    pub(super) fn at(hive: &'a Hive, offset: u32) -> Result<Key<'a>> {
        match signed(&hive.bytes, offset, b"nk") {
            Some(node) if node.len() >= 76 => Ok(Key { hive, offset }),
            _ => Err(Error::damaged(Layer::Hive, "a subkey list names something that is no key")
                .at(4096 + u64::from(offset))),
        }
    }

    fn node(&self) -> &'a [u8] {
        cell(&self.hive.bytes, self.offset).unwrap_or_default()
    }

    pub(super) fn number(&self, at: usize) -> u32 {
        u32_at(self.node(), at).unwrap_or(NONE)
    }

    /// Its name; the root's is not part of any path.
    pub fn name(&self) -> String {
        let (bytes, compressed) = self.stored_name();
        name_text(bytes, compressed)
    }

    /// The units of its name.
    pub(super) fn units(&self, units: &mut Vec<u16>) {
        let (bytes, compressed) = self.stored_name();
        units.clear();
        if compressed {
            units.extend(bytes.iter().map(|byte| u16::from(*byte)));
        } else {
            units.extend(bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)));
        }
    }

    /// Flags of the node.
    pub(super) fn flags(&self) -> u16 {
        u16_at(self.node(), 2).unwrap_or(0)
    }

    pub(super) fn layer_bits(&self) -> u16 {
        u16_at(self.node(), 12).unwrap_or(0) >> 8 & 3
    }

    /// What it does with the layer below; [`Layered::Merges`] before version 1.6.
    pub fn layered(&self) -> Layered {
        match self.layer_bits() {
            _ if self.hive.minor_version() < 6 => Layered::Merges,
            0 => Layered::Merges,
            1 => Layered::Tombstone,
            2 => Layered::Replaces,
            _ => Layered::ReplacesTree,
        }
    }

    /// True for a symbolic link.
    pub(super) fn has_link_flag(&self) -> bool {
        self.flags() & SYMBOLIC_LINK != 0
    }

    /// True for a symbolic link whose values are those of one.
    pub(super) fn is_link(&self) -> bool {
        let of_link = |value: &Value<'_>| value.data_type().0 == REG_LINK && value.name() == LINK_VALUE;
        self.has_link_flag() && self.values_lenient().0.iter().all(of_link)
    }

    /// The class name, if it has one.
    pub fn class_name(&self) -> Option<String> {
        self.class_bytes().map(vmrescue_base::text::utf16le_lossy)
    }

    /// The bytes of the class name, if it has one.
    pub(super) fn class_bytes(&self) -> Option<&'a [u8]> {
        let length = usize::from(u16_at(self.node(), 74)?);
        cell(&self.hive.bytes, self.number(48)).filter(|_| length > 0)?.get(..length)
    }

    /// When the key was last written.
    pub fn last_written(&self) -> FileTime {
        FileTime(u64_at(self.node(), 4).unwrap_or(0))
    }

    /// Place of the key in the file.
    pub fn file_offset(&self) -> u64 {
        4096 + u64::from(self.offset)
    }

    /// Number of subkeys, as the key says.
    pub fn subkey_count(&self) -> u32 {
        u32_at(self.node(), 20).unwrap_or(0)
    }

    /// All subkeys, in the order of the list.
    ///
    /// # Errors
    /// `Damaged` when the list cannot be read.
    pub fn subkeys(&self) -> Result<Vec<Key<'a>>> {
        if self.subkey_count() == 0 {
            return Ok(Vec::new());
        }
        let entries = listed(&self.hive.bytes, self.number(28))?;
        entries.into_iter().map(|entry| Key::at(self.hive, entry.key)).collect()
    }

    /// The subkeys that can be read, and what kept the others from it.
    pub fn subkeys_lenient(&self) -> (Vec<Key<'a>>, Vec<Error>) {
        let (mut keys, mut errors) = (Vec::new(), Vec::new());
        if self.subkey_count() == 0 {
            return (keys, errors);
        }
        for entry in listed_lenient(&self.hive.bytes, self.number(28), &mut errors) {
            match Key::at(self.hive, entry.key) {
                Ok(key) => keys.push(key),
                Err(e) => errors.push(e),
            }
        }
        (keys, errors)
    }

    /// The values that can be read, and what kept the others from it.
    pub fn values_lenient(&self) -> (Vec<Value<'a>>, Vec<Error>) {
        let count = (u32_at(self.node(), 36).unwrap_or(0) as usize).min(MAX_VALUES);
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        if count == 0 {
            return (values, errors);
        }
        let broken = || self.broken_values();
        let Some(list) = cell(&self.hive.bytes, self.number(40)) else { return (values, vec![broken()]) };
        for i in 0..count {
            let Some(offset) = u32_at(list, i * 4) else {
                errors.push(broken().found(format!("{i} of {count} values")));
                break;
            };
            match Value::at(self.hive, offset) {
                Ok(value) => values.push(value),
                Err(e) => errors.push(e),
            }
        }
        (values, errors)
    }

    /// The subkey of that name; case does not matter.
    ///
    /// # Errors
    /// As [`Key::subkeys`].
    pub fn subkey(&self, name: &str) -> Result<Option<Key<'a>>> {
        if self.subkey_count() == 0 {
            return Ok(None);
        }
        let upper = upper_units(name);
        let hash = name_hash_units(&upper);
        // A hash or hint that is wrong hides a key from Windows, not from us: the others are looked at last.
        let mut hinted = false;
        for right in [true, false] {
            let mut found = None;
            each(&self.hive.bytes, self.number(28), |entry| {
                hinted |= entry.hint.is_some();
                let fits = entry.hash.is_none_or(|stored| stored == hash)
                    && entry.hint.is_none_or(|hint| hint_allows(hint, &upper));
                if fits == right {
                    let key = Key::at(self.hive, entry.key)?;
                    found = Some(key).filter(|key| key.is_named(&upper));
                }
                Ok(found.is_none())
            })?;
            if found.is_some() || self.hive.hashes_are_right && !hinted {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The bytes of its name, and whether they are Latin-1.
    fn stored_name(&self) -> (&'a [u8], bool) {
        let node = self.node();
        let bytes = slice_at(node, 76, usize::from(u16_at(node, 72).unwrap_or(0))).unwrap_or_default();
        (bytes, u16_at(node, 2).unwrap_or(0) & KEY_COMPRESSED != 0)
    }

    /// True when this is its name, which is in upper case.
    fn is_named(&self, upper: &[u16]) -> bool {
        let (bytes, compressed) = self.stored_name();
        is_name(bytes, compressed, upper)
    }

    fn broken_values(&self) -> Error {
        Error::damaged(Layer::Hive, "the value list cannot be read").at(self.file_offset())
    }

    /// The list of its values and their number; `None` without values.
    fn value_list(&self) -> Result<Option<(&'a [u8], usize)>> {
        let count = u32_at(self.node(), 36).unwrap_or(0) as usize;
        if count == 0 {
            return Ok(None);
        }
        if count > MAX_VALUES {
            return Err(self.broken_values().found(format!("{count} values")));
        }
        let list = cell(&self.hive.bytes, self.number(40)).ok_or_else(|| self.broken_values())?;
        Ok(Some((list, count)))
    }

    /// Offsets of the value cells.
    pub(super) fn value_offsets(&self) -> Result<Vec<u32>> {
        let Some((list, count)) = self.value_list()? else { return Ok(Vec::new()) };
        (0..count).map(|i| u32_at(list, i * 4).ok_or_else(|| self.broken_values())).collect()
    }

    /// All values, in the order of the list.
    ///
    /// # Errors
    /// `Damaged` when the list cannot be read.
    pub fn values(&self) -> Result<Vec<Value<'a>>> {
        self.value_offsets()?.into_iter().map(|offset| Value::at(self.hive, offset)).collect()
    }

    /// The value of that name; case does not matter, "" is the default value.
    ///
    /// # Errors
    /// As [`Key::values`].
    pub fn value(&self, name: &str) -> Result<Option<Value<'a>>> {
        Ok(self.value_of(name)?.map(|(_, value)| value))
    }

    /// The same with the place of its cell.
    pub(super) fn value_of(&self, name: &str) -> Result<Option<(u32, Value<'a>)>> {
        let upper = upper_units(name);
        let Some((list, count)) = self.value_list()? else { return Ok(None) };
        for i in 0..count {
            let offset = u32_at(list, i * 4).ok_or_else(|| self.broken_values())?;
            let value = Value::at(self.hive, offset)?;
            if value.is_named(&upper) {
                return Ok(Some((offset, value)));
            }
        }
        Ok(None)
    }

    /// The security descriptor of the key.
    pub fn security(&self) -> Option<&'a [u8]> {
        // Windows does not look for "sk" either; the check says where it is missing.
        let sk = cell(&self.hive.bytes, self.number(44))?;
        slice_at(sk, 20, u32_at(sk, 16)? as usize)
    }
}
