//! Edits a hive in place with the fewest changed bytes.
//!
//! An editor only starts on a clean hive whose bins and cells add up. [`HiveEditor::finish`] puts sequence numbers,
//! time and checksum right; a hive so written is clean, so Windows does not replay older logs over it.

mod cells;
mod leaves;
mod lists;
mod values;

use crate::cell::{BASE_BYTES, MAX_CELL_BYTES, NONE, base_checksum, name_bytes};
use crate::free::FreeCells;
use crate::hive::Hive;
use crate::key::{Key, LINK_VALUE, Layered, REG_LINK};
use crate::path::{self, MAX_NAME_UNITS, MAX_VALUE_NAME_UNITS};
use crate::value::{DataType, is_segmented};
use cells::Before;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_base::names;
use vmrescue_base::time::FileTime;

/// A hive after an edit.
#[derive(Debug)]
pub struct Edited {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Ranges that differ from what was opened; bytes beyond the old end are one range.
    pub changed: Vec<Range<usize>>,
}

/// A hive that can be changed.
pub struct HiveEditor {
    hive: Hive,
    before: Before,
    free: FreeCells,
    inherits: bool,
    /// Keys by security cell, where they were counted.
    users: Option<BTreeMap<u32, u32>>,
    /// They could not be counted: nobody knows which descriptor is in use, so none is freed.
    keeps_security: bool,
}

fn refused(text: &str) -> Error {
    Error::refused(Layer::Hive, text.to_string())
}

impl HiveEditor {
    /// Begins to edit.
    ///
    /// # Errors
    /// `Refused` for a hive whose last write was not finished (parse it with its logs); `Damaged` when cells do not
    /// add up.
    pub fn new(hive: Hive) -> Result<HiveEditor> {
        if !hive.clean {
            let what = if hive.is_closed() {
                "the checksum of the base block is wrong, and Windows does not start from such a hive"
            } else {
                "the hive was not cleanly closed, and its logs were not applied"
            };
            return Err(refused(what).advice(
                "put the transaction logs (.LOG1, .LOG2) beside it; where they are gone, \
                 `vmrescue check --repair --allow-unsafe` takes the hive as it lies",
            ));
        }
        let free = FreeCells::scan(hive.bytes())?;
        Ok(HiveEditor {
            before: Before::new(hive.bytes().len()),
            hive,
            free,
            inherits: false,
            users: None,
            keeps_security: false,
        })
    }

    /// An empty hive, version 1.5, whose root carries `root_name`.
    ///
    /// # Errors
    /// None for names of reasonable length.
    pub fn new_hive(root_name: &str) -> Result<HiveEditor> {
        let mut bytes = vec![0; BASE_BYTES + 4096];
        bytes[..4].copy_from_slice(b"regf");
        for (at, value) in [(4, 1u32), (8, 1), (20, 1), (24, 5), (32, 1), (36, 32), (40, 4096), (44, 1)] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let bin = BASE_BYTES;
        bytes[bin..bin + 4].copy_from_slice(b"hbin");
        bytes[bin + 8..bin + 12].copy_from_slice(&4096u32.to_le_bytes());
        let free_bytes = 4096i32 - 32;
        bytes[bin + 32..bin + 36].copy_from_slice(&free_bytes.to_le_bytes());
        let mut free = FreeCells::default();
        free.add_bin(0, 4096);
        // The root's cell comes first, where the base block already points.
        let hive = Hive::without_root(bytes);
        let mut editor = HiveEditor {
            before: Before::new(0),
            hive,
            free,
            inherits: false,
            users: None,
            keeps_security: false,
        };
        let root = editor.new_node(root_name, NONE)?;
        let security = editor.allocate(20 + DEFAULT_SECURITY.len())?;
        let mut sk = b"sk\0\0".to_vec();
        sk.extend(security.to_le_bytes());
        sk.extend(security.to_le_bytes());
        sk.extend(1u32.to_le_bytes());
        sk.extend((DEFAULT_SECURITY.len() as u32).to_le_bytes());
        sk.extend(DEFAULT_SECURITY);
        editor.put(security, 0, &sk);
        editor.put_u32(root, 44, security);
        editor.put(root, 2, &0x2cu16.to_le_bytes());
        Ok(editor)
    }

    /// From here on new keys get the security that the kernel would compute from their parent's, not the parent's own word for word.
    pub fn inherit_security(&mut self) {
        self.inherits = true;
    }

    /// The hive as it is now.
    pub fn hive(&self) -> &Hive {
        &self.hive
    }

    /// True when something was changed.
    pub fn is_changed(&self) -> bool {
        self.before.differs(self.hive.bytes())
    }

    /// Makes the key at `path` and all keys on the way; true when something was made.
    ///
    /// # Errors
    /// `Damaged` when a list cannot be read; `Limit` for paths that are too deep.
    pub fn create_key(&mut self, path: &str) -> Result<bool> {
        let names: Vec<&str> = path::names(path).collect();
        if names.len() > MAX_KEY_DEPTH / 2
            || names.iter().any(|name| names::units(name).count() > MAX_NAME_UNITS)
        {
            return Err(Error::limit(Layer::Hive, "a key path is too long").found(path));
        }
        if let Some(bad) = names.iter().find(|name| !path::is_key_name(name)) {
            return Err(Error::invalid(Layer::Hive, "invalid key name").found(format!("{bad:?}")));
        }
        let (mut key, mut made) = (self.hive.root().offset, false);
        for name in names {
            let there = Key::at(&self.hive, key)?;
            self.refuse_tombstone(&there, path)?;
            let there = there.subkey(name)?.map(|next| next.offset);
            key = match there {
                Some(next) => next,
                None => {
                    self.refuse_link(key, path)?;
                    made = true;
                    self.add_subkey(key, name)?
                }
            };
        }
        Ok(made)
    }

    /// A key that its layer deletes has neither subkeys nor values; Windows takes one that has for damage.
    fn refuse_tombstone(&self, key: &Key<'_>, path: &str) -> Result<()> {
        if key.layered() != Layered::Tombstone {
            return Ok(());
        }
        let text = format!("the key {} is deleted by this layer; nothing can be below it", key.name());
        Err(refused(&text)
            .found(path)
            .advice("delete that key first; what the layer below has then shows through"))
    }

    /// A key below a link is never seen: Windows goes on at what the link leads to.
    fn refuse_link(&self, key: u32, path: &str) -> Result<()> {
        let key = Key::at(&self.hive, key)?;
        if !key.has_link_flag() {
            return Ok(());
        }
        let target = key.value(LINK_VALUE)?.map(|value| value.data()).transpose()?;
        let target = target.map_or_else(|| "nothing".to_string(), |data| names::from_bytes(&data));
        Err(refused(&format!("the key {} is a link to {target}", key.name()))
            .found(path)
            .advice("use the key that it leads to"))
    }

    /// The key at `path` and the one that lists it, `None` for the root.
    fn key_and_parent(&self, path: &str) -> Result<Option<(Key<'_>, Option<u32>)>> {
        let (mut key, mut parent) = (self.hive.root(), None);
        for name in path::names(path) {
            let Some(next) = key.subkey(name)? else { return Ok(None) };
            parent = Some(key.offset);
            key = next;
        }
        Ok(Some((key, parent)))
    }

    /// Deletes the key at `path`; false when it is not there.
    ///
    /// # Errors
    /// `Refused` for the root, and for a key with subkeys unless `recursive`.
    pub fn delete_key(&mut self, path: &str, recursive: bool) -> Result<bool> {
        let Some((key, parent)) = self.key_and_parent(path)? else { return Ok(false) };
        let Some(parent) = parent else { return Err(refused("the root key cannot be deleted")) };
        if key.subkey_count() > 0 && !recursive {
            return Err(refused("the key has subkeys").found(path));
        }
        let offset = key.offset;
        if self.users.is_none() {
            match self.security_users() {
                Ok(users) => self.users = Some(users),
                // Lists elsewhere in the hive that cannot be read do not keep this key from being deleted.
                Err(_) => self.keeps_security = true,
            }
        }
        self.remove_subkey(parent, offset)?;
        self.free_tree(offset, 0)?;
        self.touch(parent);
        Ok(true)
    }

    /// Sets a value, making it and the key when they are not there; false when it was so already.
    ///
    /// # Errors
    /// `Damaged` when lists or the old data cannot be read; `Limit` for more data than a value may have.
    pub fn set_value(&mut self, path: &str, name: &str, data_type: DataType, data: &[u8]) -> Result<bool> {
        if data.len() > vmrescue_base::limits::MAX_VALUE_BYTES {
            return Err(Error::limit(Layer::Hive, "too much data for a value").found(data.len()));
        }
        if !is_segmented(self.hive.minor_version(), usize::MAX) && data.len() > MAX_CELL_BYTES - 4 {
            return Err(Error::limit(Layer::Hive, "too much data for a value of a hive of version 1.3")
                .expected(format!("at most {} bytes", MAX_CELL_BYTES - 4))
                .found(data.len()));
        }
        if names::units(name).count() > MAX_VALUE_NAME_UNITS {
            return Err(Error::limit(Layer::Hive, "the name of a value is too long")
                .found(names::units(name).count()));
        }
        self.create_key(path)?;
        let Some(key) = self.hive.key(path)? else {
            return Err(Error::not_found(Layer::Hive, "the key was not made").found(path));
        };
        self.refuse_tombstone(&key, path)?;
        let key_offset = key.offset;
        if name != LINK_VALUE || data_type.0 != REG_LINK {
            self.refuse_link(key_offset, path)?;
        }
        if let Some((cell, value)) = key.value_of(name)? {
            if value.data_type() == data_type && *value.data()? == *data {
                return Ok(false);
            }
            self.replace_data(cell, data)?;
            self.put_u32(cell, 12, data_type.0);
            self.revive(cell)?;
        } else {
            let cell = self.new_value(name, data_type, data)?;
            let mut values = Key::at(&self.hive, key_offset)?.value_offsets()?;
            values.push(cell);
            self.set_values(key_offset, &values)?;
        }
        self.widen(key_offset, 60, 2 * names::units(name).count())?;
        self.widen(key_offset, 64, data.len())?;
        self.touch(key_offset);
        Ok(true)
    }

    /// Deletes a value; false when it is not there.
    ///
    /// # Errors
    /// `Damaged` when lists cannot be read.
    pub fn delete_value(&mut self, path: &str, name: &str) -> Result<bool> {
        let Some(key) = self.hive.key(path)? else { return Ok(false) };
        let offset = key.offset;
        let Some((cell, _)) = key.value_of(name)? else { return Ok(false) };
        let mut values = key.value_offsets()?;
        values.retain(|value| *value != cell);
        self.free_data(cell)?;
        self.release(cell);
        self.set_values(offset, &values)?;
        self.touch(offset);
        Ok(true)
    }

    /// Gives the key at `path` another name.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists`; `Refused` for the root.
    pub fn rename_key(&mut self, path: &str, name: &str) -> Result<()> {
        let missing = || Error::not_found(Layer::Hive, "no such key").found(path);
        let (key, parent) = self.key_and_parent(path)?.ok_or_else(missing)?;
        let Some(parent) = parent else { return Err(refused("the root key cannot be renamed")) };
        let offset = key.offset;
        if !path::is_key_name(name) {
            return Err(Error::invalid(Layer::Hive, "invalid key name").found(name));
        }
        let above = Key::at(&self.hive, parent)?;
        if above.subkey(name)?.is_some_and(|other| other.offset != offset) {
            return Err(
                Error::new(ErrorKind::AlreadyExists, Layer::Hive, "the key has such a subkey").found(name)
            );
        }
        self.remove_subkey(parent, offset)?;
        let node = self.content(offset)?.to_vec();
        let (bytes, compressed) = name_bytes(name);
        let mut moved = offset;
        if node.len() < 76 + bytes.len() {
            // A longer name needs another cell; the children then name another parent.
            moved = self.allocate(76 + bytes.len())?;
            self.put(moved, 0, &node[..76]);
            for child in self.subkey_offsets(moved)? {
                self.put_u32(child, 16, moved);
            }
        }
        let flags = u16_at(&node, 2).unwrap_or(0) & !0x20 | if compressed { 0x20 } else { 0 };
        self.put(moved, 2, &flags.to_le_bytes());
        self.put(moved, 72, &(bytes.len() as u16).to_le_bytes());
        self.put(moved, 76, &bytes);
        self.insert_subkey(parent, moved)?;
        if moved != offset {
            self.release(offset);
        }
        self.widen(parent, 52, 2 * names::units(name).count())?;
        self.touch(moved);
        self.touch(parent);
        Ok(())
    }

    /// Makes every security cell say that it is one and count the keys that use it; how many were wrong.
    ///
    /// # Errors
    /// `Damaged` where lists or security cells cannot be read: such a hive is rebuilt, not mended.
    pub fn recount_security(&mut self) -> Result<usize> {
        let mut users = self.security_users()?;
        // Those that nobody uses are in the ring too.
        let mut at = self.hive.root().number(44);
        let mut ring = HashSet::new();
        while ring.insert(at) {
            users.entry(at).or_insert(0);
            at = u32_at(self.content(at)?, 4).unwrap_or(NONE);
        }
        let mut wrong = 0;
        for (security, count) in users {
            if !self.content(security)?.starts_with(b"sk") {
                self.put(security, 0, b"sk");
                wrong += 1;
            }
            if u32_at(self.content(security)?, 12) != Some(count) {
                self.put_u32(security, 12, count);
                wrong += 1;
            }
        }
        Ok(wrong)
    }

    /// Puts the base block right and gives the file; without a change it is the file that was opened. Whether the result is whole is
    /// for the caller to check, before and after: damage that was there stays.
    ///
    /// # Errors
    /// None now.
    pub fn finish(mut self, now: FileTime) -> Result<Edited> {
        if !self.is_changed() {
            return Ok(Edited { bytes: self.hive.bytes, changed: Vec::new() });
        }
        let sequence = u32_at(self.hive.bytes(), 4).unwrap_or(0).wrapping_add(1);
        self.write(4, &sequence.to_le_bytes());
        self.write(8, &sequence.to_le_bytes());
        self.write(12, &now.0.to_le_bytes());
        let sum = base_checksum(self.hive.bytes());
        self.write(508, &sum.to_le_bytes());
        let changed = self.before.differences(self.hive.bytes());
        Ok(Edited { bytes: self.hive.bytes, changed })
    }
}

/// Owner and group administrators; full control for administrators and the system, reading for users; inherited by
/// subkeys. Self-relative, [MS-DTYP] 2.4.6.
const DEFAULT_SECURITY: &[u8] = &[
    1, 0, 4, 0x80, 0x68, 0, 0, 0, 0x78, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, // header, DACL at 0x14
    2, 0, 0x54, 0, 3, 0, 0, 0, // ACL of three entries
    0, 2, 0x18, 0, 0x3f, 0, 0x0f, 0, 1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x20, 2, 0,
    0, // administrators
    0, 2, 0x14, 0, 0x3f, 0, 0x0f, 0, 1, 1, 0, 0, 0, 0, 0, 5, 0x12, 0, 0, 0, // system
    0, 2, 0x18, 0, 0x19, 0, 2, 0, 1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x21, 2, 0, 0, // users
    0, 0, 0, 0, 0, 0, 0, 0, // to the next multiple that the size of the ACL promises
    1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x20, 2, 0, 0, // owner at 0x68
    1, 2, 0, 0, 0, 0, 0, 5, 0x20, 0, 0, 0, 0x20, 2, 0, 0, // group at 0x78
];
