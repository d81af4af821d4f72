//! Keys of a hive under edit: nodes, lists of subkeys, security.

use super::HiveEditor;
use crate::cell::{NONE, name_bytes};
use crate::hive::{Hive, VERSIONS};
use crate::key::{Key, Layered};
use crate::security::inherited;
use crate::subkeys::{each, own_cells};
use std::collections::{BTreeMap, HashSet};
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_base::names;
use vmrescue_base::time::FileTime;

/// Most entries of one leaf, as Windows has them.
pub(super) const MAX_LEAF: usize = 1012;

impl HiveEditor {
    pub(super) fn touch(&mut self, key: u32) {
        self.put(key, 4, &FileTime::now().0.to_le_bytes());
    }

    /// Raises one of the "largest" fields of a key.
    pub(super) fn widen(&mut self, key: u32, at: usize, value: usize) -> Result<()> {
        let now = self.field(key, at)?;
        // The upper half of the field at 52 holds flags.
        let (low, high) = if at == 52 { (now & 0xffff, now & 0xffff_0000) } else { (now, 0) };
        if value as u32 > low {
            self.put_u32(key, at, value as u32 | high);
        }
        Ok(())
    }

    /// A field of a cell that is written next: one that is not there would be written into another cell.
    fn field(&self, offset: u32, at: usize) -> Result<u32> {
        u32_at(self.content(offset)?, at)
            .ok_or_else(|| Error::damaged(Layer::Hive, "a cell is too short").at(4096 + u64::from(offset)))
    }

    /// Next, previous and number of users of a security cell.
    fn security_cell(&self, offset: u32) -> Result<(u32, u32, u32)> {
        if !self.content(offset)?.starts_with(b"sk") {
            return Err(Error::damaged(Layer::Hive, "not a security cell")
                .at(4096 + u64::from(offset))
                .advice("`vmrescue check --repair` repairs security cells"));
        }
        Ok((self.field(offset, 4)?, self.field(offset, 8)?, self.field(offset, 12)?))
    }

    pub(crate) fn new_node(&mut self, name: &str, parent: u32) -> Result<u32> {
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

    pub(super) fn add_subkey(&mut self, parent: u32, name: &str) -> Result<u32> {
        let security = self.security_below(parent)?;
        let offset = self.new_node(name, parent)?;
        self.put_u32(offset, 44, security);
        if Key::at(&self.hive, parent)?.layered() == Layered::ReplacesTree {
            // What is below a tree that replaces another one replaces too.
            self.put(offset, 13, &[3]);
        }
        self.add_user(security)?;
        self.insert_subkey(parent, offset)?;
        self.widen(parent, 52, 2 * names::units(name).count())?;
        self.touch(parent);
        Ok(offset)
    }

    /// The security cell of a new key below `parent`.
    fn security_below(&mut self, parent: u32) -> Result<u32> {
        let above = Key::at(&self.hive, parent)?;
        let own = above.number(44);
        let descriptor = above.security().filter(|_| self.inherits).and_then(inherited);
        let Some(descriptor) = descriptor else { return Ok(own) };
        // One cell for all keys of one security, as in hives of Windows.
        let (mut at, mut seen) = (own, HashSet::new());
        while seen.insert(at) {
            let sk = self.content(at)?;
            if sk.get(20..20 + descriptor.len()) == Some(&descriptor[..])
                && u32_at(sk, 16) == Some(descriptor.len() as u32)
            {
                return Ok(at);
            }
            at = u32_at(sk, 4).unwrap_or(NONE);
        }
        self.new_security(&descriptor)
    }

    pub(super) fn subkey_offsets(&self, key: u32) -> Result<Vec<u32>> {
        Ok(Key::at(&self.hive, key)?.subkeys()?.into_iter().map(|child| child.offset).collect())
    }

    /// Writes the list of subkeys anew, over the old list where it fits.
    pub(crate) fn set_subkeys(&mut self, key: u32, children: &[u32]) -> Result<()> {
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

    pub(super) fn new_list(&mut self, children: &[u32]) -> Result<u32> {
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

    fn leaf_bytes(&self, children: &[u32]) -> Result<Vec<u8>> {
        let mut bytes = if self.hive.minor_version() >= 5 { b"lh".to_vec() } else { b"lf".to_vec() };
        bytes.extend((children.len() as u16).to_le_bytes());
        for child in children {
            bytes.extend(self.entry_bytes(*child)?);
        }
        Ok(bytes)
    }

    pub(super) fn free_tree(&mut self, key: u32, depth: usize) -> Result<()> {
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
        self.drop_security(security)?;
        self.release(key);
        Ok(())
    }

    /// How many keys have each security cell.
    pub(super) fn security_users(&self) -> Result<BTreeMap<u32, u32>> {
        let (mut users, mut seen) = (BTreeMap::new(), HashSet::new());
        let mut pending = vec![self.hive.root().offset];
        while let Some(offset) = pending.pop() {
            if seen.insert(offset) {
                let key = Key::at(&self.hive, offset)?;
                *users.entry(key.number(44)).or_insert(0u32) += 1;
                if key.subkey_count() > 0 {
                    each(self.hive.bytes(), key.number(28), |entry| {
                        pending.push(entry.key);
                        Ok(true)
                    })?;
                }
            }
        }
        Ok(users)
    }

    /// One user more of a security cell. Hives that other programs made have keys without any security.
    fn add_user(&mut self, security: u32) -> Result<()> {
        if security == NONE {
            return Ok(());
        }
        let (_, _, said) = self.security_cell(security)?;
        let count = match &mut self.users {
            Some(users) => {
                let count = users.entry(security).or_insert(0);
                *count += 1;
                *count
            }
            None => said.saturating_add(1),
        };
        self.put_u32(security, 12, count);
        Ok(())
    }

    /// One user less of a security cell; the last one takes it out of the ring, but for that of the root, where the ring begins.
    pub(super) fn drop_security(&mut self, security: u32) -> Result<()> {
        if security == NONE {
            return Ok(());
        }
        let (next, previous, said) = self.security_cell(security)?;
        // A count of the hive may be wrong, and Windows does not ask; ours is counted.
        let count = match &mut self.users {
            Some(users) => {
                let count = users.entry(security).or_insert(0);
                *count = count.saturating_sub(1);
                *count
            }
            None if self.keeps_security => said.saturating_sub(1).max(1),
            None => said.saturating_sub(1),
        };
        if count > 0 {
            self.put_u32(security, 12, count);
        } else if next != security && security != self.hive.root().number(44) {
            self.security_cell(next)?;
            self.security_cell(previous)?;
            self.put_u32(previous, 4, next);
            self.put_u32(next, 8, previous);
            self.release(security);
            if let Some(users) = &mut self.users {
                users.remove(&security);
            }
        }
        Ok(())
    }

    /// Version and file name of another hive's base block, where the version is one.
    pub(crate) fn copy_base(&mut self, other: &Hive) {
        let number = |at| u32_at(other.bytes(), at).unwrap_or(0);
        if number(20) <= 1 && VERSIONS.contains(&number(24)) {
            self.hive.bytes[20..28].copy_from_slice(&other.bytes()[20..28]);
        }
        if let Some(bytes) = other.bytes().get(48..112) {
            self.hive.bytes[48..112].copy_from_slice(bytes);
        }
    }

    /// Flags of another key that are about virtual stores and layers.
    pub(crate) fn copy_flags(&mut self, key: u32, source: &Key<'_>) -> Result<()> {
        const VIRTUAL: u16 = 0x380;
        let node = self.content(key)?;
        let flags = u16_at(node, 2).unwrap_or(0) | source.flags() & VIRTUAL;
        let user_flags = u16_at(node, 54).unwrap_or(0) | (source.number(52) >> 16) as u16;
        self.put(key, 2, &flags.to_le_bytes());
        self.put(key, 54, &user_flags.to_le_bytes());
        if self.hive.minor_version() >= 6 {
            self.put(key, 13, &((source.number(12) >> 8) as u8).to_le_bytes());
        }
        Ok(())
    }

    /// Sets the class name of a key that has none.
    pub(crate) fn set_class(&mut self, key: u32, bytes: &[u8]) -> Result<()> {
        let cell = self.allocate(bytes.len())?;
        self.put(cell, 0, bytes);
        self.put_u32(key, 48, cell);
        self.put(key, 74, &(bytes.len() as u16).to_le_bytes());
        Ok(())
    }

    /// A security cell with this descriptor, in the ring of all of them, used by nobody yet.
    pub(crate) fn new_security(&mut self, descriptor: &[u8]) -> Result<u32> {
        let cell = self.allocate(20 + descriptor.len())?;
        let first = self.hive.root().number(44);
        let (next, _, _) = self.security_cell(first)?;
        self.security_cell(next)?;
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
    pub(crate) fn use_security(&mut self, key: u32, security: u32) -> Result<()> {
        let old = self.field(key, 44)?;
        self.add_user(security)?;
        self.put_u32(key, 44, security);
        if old == NONE { Ok(()) } else { self.drop_security(old) }
    }

    /// Gives a key the flag of a symbolic link.
    pub(crate) fn make_link(&mut self, key: u32) -> Result<()> {
        let flags = Key::at(&self.hive, key)?.flags();
        self.put(key, 2, &(flags | crate::key::SYMBOLIC_LINK).to_le_bytes());
        Ok(())
    }

    pub(crate) fn set_times(&mut self, key: u32, time: FileTime) {
        self.put(key, 4, &time.0.to_le_bytes());
    }

    /// Raises the "largest" fields of a key to what its subkeys and values need.
    pub(crate) fn widen_for_children(&mut self, key: u32) -> Result<()> {
        let node = Key::at(&self.hive, key)?;
        let units = |text: &str| 2 * names::units(text).count();
        let children = node.subkeys()?;
        let name = children.iter().map(|child| units(&child.name())).max().unwrap_or(0);
        let class = children.iter().filter_map(Key::class_name).map(|class| units(&class)).max().unwrap_or(0);
        let values = node.values()?;
        let value_name = values.iter().map(|value| units(&value.name())).max().unwrap_or(0);
        let mut data = 0;
        for value in &values {
            data = data.max(value.data()?.len());
        }
        for (at, value) in [(52, name), (56, class), (60, value_name), (64, data)] {
            self.widen(key, at, value)?;
        }
        Ok(())
    }
}
