//! Edits a hive in place with the fewest changed bytes.
//!
//! An editor only starts on a clean hive whose bins and cells add up. [`HiveEditor::finish`] puts sequence numbers,
//! time and checksum right; a hive so written is clean, so Windows does not replay older logs over it.

use super::cell::{
    BASE_BYTES, NONE, base_checksum, bins_bytes, cell, compare_names, name_bytes, name_hash, same_name,
};
use super::free::FreeCells;
use super::hive::Hive;
use super::key::Key;
use super::subkeys::own_cells;
use super::value::{DataType, SEGMENT_BYTES};
use std::ops::Range;
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_base::time::FileTime;

/// Most entries of one leaf, as Windows has them.
const MAX_LEAF: usize = 1012;

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
    original: Vec<u8>,
    free: FreeCells,
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
            return Err(refused("the hive was not cleanly closed, and its logs were not applied")
                .advice("put the transaction logs (.LOG1, .LOG2) beside it"));
        }
        let free = FreeCells::scan(hive.bytes())?;
        Ok(HiveEditor { original: hive.bytes().to_vec(), hive, free })
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
        let mut editor = HiveEditor { original: Vec::new(), hive, free };
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

    /// The hive as it is now.
    pub fn hive(&self) -> &Hive {
        &self.hive
    }

    /// True when something was changed.
    pub fn is_changed(&self) -> bool {
        self.hive.bytes() != self.original
    }

    /// Makes the key at `path` and all keys on the way; true when something was made.
    ///
    /// # Errors
    /// `Damaged` when a list cannot be read; `Limit` for paths that are too deep.
    pub fn create_key(&mut self, path: &str) -> Result<bool> {
        let names: Vec<&str> = path.split(['\\', '/']).filter(|name| !name.is_empty()).collect();
        if names.len() > MAX_KEY_DEPTH / 2 || names.iter().any(|name| name.encode_utf16().count() > 255) {
            return Err(Error::limit(Layer::Hive, "a key path is too long").found(path));
        }
        let (mut key, mut made) = (self.hive.root().offset, false);
        for name in names {
            let there = Key::at(&self.hive, key)?.subkey(name)?.map(|next| next.offset);
            key = match there {
                Some(next) => next,
                None => {
                    made = true;
                    self.add_subkey(key, name)?
                }
            };
        }
        Ok(made)
    }

    /// Deletes the key at `path`; false when it is not there.
    ///
    /// # Errors
    /// `Refused` for the root, and for a key with subkeys unless `recursive`.
    pub fn delete_key(&mut self, path: &str, recursive: bool) -> Result<bool> {
        let Some(key) = self.hive.key(path)? else { return Ok(false) };
        let (offset, parent) = (key.offset, key.number(16));
        if offset == self.hive.root().offset {
            return Err(refused("the root key cannot be deleted"));
        }
        if key.subkey_count() > 0 && !recursive {
            return Err(refused("the key has subkeys").found(path));
        }
        let mut children = self.subkey_offsets(parent)?;
        children.retain(|child| *child != offset);
        self.free_tree(offset, 0)?;
        self.set_subkeys(parent, &children)?;
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
        self.create_key(path)?;
        let Some(key) = self.hive.key(path)? else {
            return Err(Error::not_found(Layer::Hive, "the key was not made").found(path));
        };
        let key_offset = key.offset;
        if let Some(value) = key.value(name)? {
            if value.data_type() == data_type && *value.data()? == *data {
                return Ok(false);
            }
            let cell = self.value_cell(key_offset, name)?;
            self.replace_data(cell, data)?;
            self.put_u32(cell, 12, data_type.0);
        } else {
            let cell = self.new_value(name, data_type, data)?;
            let mut values = Key::at(&self.hive, key_offset)?.value_offsets()?;
            values.push(cell);
            self.set_values(key_offset, &values)?;
        }
        self.widen(key_offset, 60, 2 * name.encode_utf16().count());
        self.widen(key_offset, 64, data.len());
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
        let cell = match self.value_cell(offset, name) {
            Ok(cell) => cell,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let mut values = Key::at(&self.hive, offset)?.value_offsets()?;
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
        let key = self.hive.key(path)?.ok_or_else(missing)?;
        let (offset, parent) = (key.offset, key.number(16));
        if offset == self.hive.root().offset {
            return Err(refused("the root key cannot be renamed"));
        }
        if name.is_empty() || name.contains('\\') || name.encode_utf16().count() > 255 {
            return Err(Error::invalid(Layer::Hive, "this is no name for a key").found(name));
        }
        let above = Key::at(&self.hive, parent)?;
        if above.subkey(name)?.is_some_and(|other| other.offset != offset) {
            return Err(
                Error::new(ErrorKind::AlreadyExists, Layer::Hive, "the key has such a subkey").found(name)
            );
        }
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
        let mut named = Vec::new();
        for child in self.subkey_offsets(parent)?.into_iter().filter(|child| *child != offset).chain([moved])
        {
            named.push((Key::at(&self.hive, child)?.name(), child));
        }
        named.sort_by(|(a, _), (b, _)| compare_names(a, b));
        let children: Vec<u32> = named.into_iter().map(|(_, child)| child).collect();
        self.set_subkeys(parent, &children)?;
        if moved != offset {
            self.release(offset);
        }
        self.widen(parent, 52, 2 * name.encode_utf16().count());
        self.touch(moved);
        self.touch(parent);
        Ok(())
    }

    /// Puts the base block right and gives the file; without a change it is the file that was opened.
    ///
    /// # Errors
    /// `Damaged` when our own check finds a defect that was not there before: then nothing may be written.
    pub fn finish(mut self, now: FileTime) -> Result<Edited> {
        if !self.is_changed() {
            return Ok(Edited { bytes: self.original, changed: Vec::new() });
        }
        let sequence = u32_at(self.hive.bytes(), 4).unwrap_or(0).wrapping_add(1);
        let bytes = &mut self.hive.bytes;
        bytes[4..8].copy_from_slice(&sequence.to_le_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_le_bytes());
        bytes[12..20].copy_from_slice(&now.0.to_le_bytes());
        let sum = base_checksum(bytes);
        bytes[508..512].copy_from_slice(&sum.to_le_bytes());
        let changed = differences(&self.original, bytes);
        Ok(Edited { bytes: self.hive.bytes, changed })
    }

    // ------------------------------------------------------------------ cells

    fn place(offset: u32) -> usize {
        BASE_BYTES + offset as usize
    }

    /// Writes into an allocated cell at `at` of its content.
    fn put(&mut self, offset: u32, at: usize, data: &[u8]) {
        let start = HiveEditor::place(offset) + 4 + at;
        self.hive.bytes[start..start + data.len()].copy_from_slice(data);
    }

    fn put_u32(&mut self, offset: u32, at: usize, value: u32) {
        self.put(offset, at, &value.to_le_bytes());
    }

    fn set_size(&mut self, offset: u32, size: i32) {
        let start = HiveEditor::place(offset);
        self.hive.bytes[start..start + 4].copy_from_slice(&size.to_le_bytes());
    }

    fn content(&self, offset: u32) -> Result<&[u8]> {
        cell(self.hive.bytes(), offset)
            .ok_or_else(|| Error::damaged(Layer::Hive, "not a cell").at(4096 + u64::from(offset)))
    }

    /// An allocated, zeroed cell for `length` bytes of content.
    fn allocate(&mut self, length: usize) -> Result<u32> {
        let size = (length + 4).next_multiple_of(8) as u32;
        let (offset, found) = match self.free.allocate(size) {
            Some(found) => found,
            None => {
                self.add_bin(size)?;
                self.free
                    .allocate(size)
                    .ok_or_else(|| Error::no_space(Layer::Hive, "the hive cannot grow"))?
            }
        };
        let rest = found - size;
        if rest >= 8 {
            let (at, whole) = self.free.release(offset + size, rest);
            self.set_size(at, whole.cast_signed());
        }
        let taken = if rest >= 8 { size } else { found };
        self.set_size(offset, -taken.cast_signed());
        let start = HiveEditor::place(offset) + 4;
        self.hive.bytes[start..start + taken as usize - 4].fill(0);
        Ok(offset)
    }

    fn add_bin(&mut self, cell_bytes: u32) -> Result<()> {
        let bin = bins_bytes(self.hive.bytes()) as u32;
        let size = (cell_bytes + 32).next_multiple_of(4096);
        if u64::from(bin) + u64::from(size) + 4096 > vmrescue_base::limits::MAX_HIVE_BYTES {
            return Err(Error::no_space(Layer::Hive, "a hive cannot grow beyond 2 GiB"));
        }
        let start = HiveEditor::place(bin);
        // Windows leaves room behind the bins of some hives; what is there is not ours to keep.
        self.hive.bytes.truncate(start);
        self.hive.bytes.resize(start + size as usize, 0);
        self.hive.bytes[start..start + 4].copy_from_slice(b"hbin");
        self.hive.bytes[start + 4..start + 8].copy_from_slice(&bin.to_le_bytes());
        self.hive.bytes[start + 8..start + 12].copy_from_slice(&size.to_le_bytes());
        self.hive.bytes[40..44].copy_from_slice(&(bin + size).to_le_bytes());
        self.set_size(bin + 32, (size - 32).cast_signed());
        self.free.add_bin(bin, size);
        Ok(())
    }

    fn release(&mut self, offset: u32) {
        let Some(length) = cell(self.hive.bytes(), offset).map(|content| content.len() as u32 + 4) else {
            return;
        };
        let (at, size) = self.free.release(offset, length);
        self.set_size(at, size.cast_signed());
    }

    // ------------------------------------------------------------------- keys

    fn touch(&mut self, key: u32) {
        self.put(key, 4, &FileTime::now().0.to_le_bytes());
    }

    /// Raises one of the "largest" fields of a key.
    fn widen(&mut self, key: u32, at: usize, value: usize) {
        let now = self.content(key).ok().and_then(|node| u32_at(node, at)).unwrap_or(0);
        // The upper half of the field at 52 holds flags.
        let (low, high) = if at == 52 { (now & 0xffff, now & 0xffff_0000) } else { (now, 0) };
        if value as u32 > low {
            self.put_u32(key, at, value as u32 | high);
        }
    }

    pub(super) fn new_node(&mut self, name: &str, parent: u32) -> Result<u32> {
        let (bytes, compressed) = name_bytes(name);
        let offset = self.allocate(76 + bytes.len())?;
        self.put(offset, 0, b"nk");
        self.put(offset, 2, &(if compressed { 0x20u16 } else { 0 }).to_le_bytes());
        self.touch(offset);
        self.put_u32(offset, 16, parent);
        for at in [28, 32, 40, 44, 48] {
            self.put_u32(offset, at, NONE);
        }
        self.put(offset, 72, &(bytes.len() as u16).to_le_bytes());
        self.put(offset, 76, &bytes);
        Ok(offset)
    }

    fn add_subkey(&mut self, parent: u32, name: &str) -> Result<u32> {
        let security = Key::at(&self.hive, parent)?.number(44);
        let offset = self.new_node(name, parent)?;
        self.put_u32(offset, 44, security);
        if let Some(count) = self.content(security).ok().and_then(|sk| u32_at(sk, 12)) {
            self.put_u32(security, 12, count.saturating_add(1));
        }
        let mut children = self.subkey_offsets(parent)?;
        let mut failed = None;
        let place = children.partition_point(|child| match Key::at(&self.hive, *child) {
            Ok(key) => compare_names(&key.name(), name).is_lt(),
            Err(e) => {
                failed = Some(e);
                true
            }
        });
        if let Some(e) = failed {
            return Err(e);
        }
        children.insert(place, offset);
        self.set_subkeys(parent, &children)?;
        self.widen(parent, 52, 2 * name.encode_utf16().count());
        self.touch(parent);
        Ok(offset)
    }

    fn subkey_offsets(&self, key: u32) -> Result<Vec<u32>> {
        Ok(Key::at(&self.hive, key)?.subkeys()?.into_iter().map(|child| child.offset).collect())
    }

    /// Writes the list of subkeys anew, over the old list where it fits.
    pub(super) fn set_subkeys(&mut self, key: u32, children: &[u32]) -> Result<()> {
        let node = Key::at(&self.hive, key)?;
        let (old_count, old_list) = (node.subkey_count(), node.number(28));
        let leaf_fits = old_count > 0
            && !children.is_empty()
            && children.len() <= MAX_LEAF
            && self.content(old_list).is_ok_and(|list| {
                matches!(list.get(..2), Some(b"lh" | b"lf")) && list.len() >= 4 + children.len() * 8
            });
        let list = if leaf_fits {
            let leaf = self.leaf_bytes(children)?;
            self.put(old_list, 0, &leaf);
            old_list
        } else {
            if old_count > 0 {
                for cell in own_cells(self.hive.bytes(), old_list) {
                    self.release(cell);
                }
            }
            self.new_list(children)?
        };
        self.put_u32(key, 28, list);
        self.put_u32(key, 20, children.len() as u32);
        Ok(())
    }

    fn new_list(&mut self, children: &[u32]) -> Result<u32> {
        if children.is_empty() {
            return Ok(NONE);
        }
        let mut leaves = Vec::new();
        for part in children.chunks(if children.len() <= MAX_LEAF { MAX_LEAF } else { MAX_LEAF / 2 }) {
            let bytes = self.leaf_bytes(part)?;
            let leaf = self.allocate(bytes.len())?;
            self.put(leaf, 0, &bytes);
            leaves.push(leaf);
        }
        if leaves.len() == 1 {
            return Ok(leaves[0]);
        }
        let mut root = b"ri".to_vec();
        root.extend((leaves.len() as u16).to_le_bytes());
        leaves.iter().for_each(|leaf| root.extend(leaf.to_le_bytes()));
        let offset = self.allocate(root.len())?;
        self.put(offset, 0, &root);
        Ok(offset)
    }

    /// A hash leaf since version 1.5, before that one with the first four characters.
    fn leaf_bytes(&self, children: &[u32]) -> Result<Vec<u8>> {
        let hashed = self.hive.minor_version() >= 5;
        let mut bytes = if hashed { b"lh".to_vec() } else { b"lf".to_vec() };
        bytes.extend((children.len() as u16).to_le_bytes());
        for child in children {
            let name = Key::at(&self.hive, *child)?.name();
            bytes.extend(child.to_le_bytes());
            if hashed {
                bytes.extend(name_hash(&name).to_le_bytes());
            } else {
                let mut hint = [0u8; 4];
                for (byte, c) in hint.iter_mut().zip(name.chars()) {
                    *byte = u8::try_from(u32::from(c)).unwrap_or(0);
                }
                bytes.extend(hint);
            }
        }
        Ok(bytes)
    }

    fn free_tree(&mut self, key: u32, depth: usize) -> Result<()> {
        if depth > MAX_KEY_DEPTH {
            return Err(Error::limit(Layer::Hive, "keys are nested too deeply").at(4096 + u64::from(key)));
        }
        for child in self.subkey_offsets(key)? {
            self.free_tree(child, depth + 1)?;
        }
        let node = Key::at(&self.hive, key)?;
        let (values, value_list, class, security) =
            (node.value_offsets()?, node.number(40), node.number(48), node.number(44));
        let (count, list) = (node.subkey_count(), node.number(28));
        let has_class = node.class_name().is_some();
        for value in &values {
            self.free_data(*value)?;
            self.release(*value);
        }
        if !values.is_empty() {
            self.release(value_list);
        }
        if count > 0 {
            for cell in own_cells(self.hive.bytes(), list) {
                self.release(cell);
            }
        }
        if has_class {
            self.release(class);
        }
        self.drop_security(security);
        self.release(key);
        Ok(())
    }

    /// One user less of a security cell; the last one takes it out of the ring.
    fn drop_security(&mut self, security: u32) {
        let Ok(sk) = self.content(security) else { return };
        let number = |at| u32_at(sk, at).unwrap_or(0);
        let (next, previous, count) = (number(4), number(8), number(12));
        if count > 1 {
            self.put_u32(security, 12, count - 1);
        } else if next != security && self.content(next).is_ok() && self.content(previous).is_ok() {
            self.put_u32(previous, 4, next);
            self.put_u32(next, 8, previous);
            self.release(security);
        }
    }

    /// Version, type and file name of another hive's base block.
    pub(super) fn copy_base(&mut self, other: &Hive) {
        for range in [20..32, 48..112] {
            if let Some(bytes) = other.bytes().get(range.clone()) {
                self.hive.bytes[range].copy_from_slice(bytes);
            }
        }
    }

    /// Sets the class name of a key that has none.
    pub(super) fn set_class(&mut self, key: u32, class: &str) -> Result<()> {
        let bytes = vmrescue_base::text::utf16le_bytes(class);
        let cell = self.allocate(bytes.len())?;
        self.put(cell, 0, &bytes);
        self.put_u32(key, 48, cell);
        self.put(key, 74, &(bytes.len() as u16).to_le_bytes());
        Ok(())
    }

    /// A security cell with this descriptor, in the ring of all of them, used by nobody yet.
    pub(super) fn new_security(&mut self, descriptor: &[u8]) -> Result<u32> {
        let cell = self.allocate(20 + descriptor.len())?;
        let first = self.hive.root().number(44);
        let next = self.content(first).ok().and_then(|sk| u32_at(sk, 4)).unwrap_or(first);
        self.put(cell, 0, b"sk\0\0");
        self.put_u32(cell, 4, next);
        self.put_u32(cell, 8, first);
        self.put_u32(cell, 16, descriptor.len() as u32);
        self.put(cell, 20, descriptor);
        self.put_u32(first, 4, cell);
        self.put_u32(next, 8, cell);
        Ok(cell)
    }

    /// Gives a key this security cell in the place of the one that it has, if any.
    pub(super) fn use_security(&mut self, key: u32, security: u32) {
        let old = self.content(key).ok().and_then(|node| u32_at(node, 44)).unwrap_or(NONE);
        let count = self.content(security).ok().and_then(|sk| u32_at(sk, 12)).unwrap_or(0);
        self.put_u32(security, 12, count + 1);
        self.put_u32(key, 44, security);
        if old != NONE {
            self.drop_security(old);
        }
    }

    pub(super) fn set_times(&mut self, key: u32, time: FileTime) {
        self.put(key, 4, &time.0.to_le_bytes());
    }

    /// Raises the "largest" fields of a key to what its subkeys and values need.
    pub(super) fn widen_for_children(&mut self, key: u32) -> Result<()> {
        let node = Key::at(&self.hive, key)?;
        let units = |text: &str| 2 * text.encode_utf16().count();
        let children = node.subkeys()?;
        let name = children.iter().map(|child| units(&child.name())).max().unwrap_or(0);
        let class = children.iter().filter_map(Key::class_name).map(|class| units(&class)).max().unwrap_or(0);
        let values = node.values()?;
        let value_name = values.iter().map(|value| units(&value.name())).max().unwrap_or(0);
        let data =
            values.iter().filter_map(|value| value.data().ok()).map(|data| data.len()).max().unwrap_or(0);
        for (at, value) in [(52, name), (56, class), (60, value_name), (64, data)] {
            self.widen(key, at, value);
        }
        Ok(())
    }

    // ----------------------------------------------------------------- values

    fn value_cell(&self, key: u32, name: &str) -> Result<u32> {
        let key = Key::at(&self.hive, key)?;
        for (offset, value) in key.value_offsets()?.into_iter().zip(key.values()?) {
            if same_name(&value.name(), name) {
                return Ok(offset);
            }
        }
        Err(Error::not_found(Layer::Hive, "no such value").found(name))
    }

    pub(super) fn set_values(&mut self, key: u32, values: &[u32]) -> Result<()> {
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

    pub(super) fn new_value(&mut self, name: &str, data_type: DataType, data: &[u8]) -> Result<u32> {
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

    fn put_data(&mut self, value: u32, data: &[u8]) -> Result<()> {
        if data.len() <= 4 {
            let mut inside = [0; 4];
            inside[..data.len()].copy_from_slice(data);
            self.put_u32(value, 4, data.len() as u32 | 0x8000_0000);
            self.put(value, 8, &inside);
            return Ok(());
        }
        // Versions before 1.4 have no segments.
        let cell = if data.len() <= SEGMENT_BYTES || self.hive.minor_version() < 4 {
            let cell = self.allocate(data.len())?;
            self.put(cell, 0, data);
            cell
        } else {
            let mut segments = Vec::new();
            for part in data.chunks(SEGMENT_BYTES) {
                // Four bytes more than the data, as Windows does.
                let segment = self.allocate(part.len() + 4)?;
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
    fn replace_data(&mut self, value: u32, data: &[u8]) -> Result<()> {
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

    fn free_data(&mut self, value: u32) -> Result<()> {
        let node = self.content(value)?;
        let (size, at) = (u32_at(node, 4).unwrap_or(0), u32_at(node, 8).unwrap_or(NONE));
        if size & 0x8000_0000 != 0 || size == 0 {
            return Ok(());
        }
        let content = self.content(at)?;
        let segmented =
            size as usize > SEGMENT_BYTES && content.starts_with(b"db") && content.len() < size as usize;
        if segmented {
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

/// Ranges where the new file differs; gaps below eight bytes are bridged.
fn differences(old: &[u8], new: &[u8]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (place, _) in old.iter().zip(new).enumerate().filter(|(_, (a, b))| a != b) {
        match ranges.last_mut() {
            Some(last) if place < last.end + 8 => last.end = place + 1,
            _ => ranges.push(place..place + 1),
        }
    }
    if new.len() > old.len() {
        ranges.push(old.len()..new.len());
    }
    ranges
}
