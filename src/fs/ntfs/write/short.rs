//! 8.3 names: whether a new long name gets one, and which.
//!
//! Windows keeps two settings: one in the registry of the machine, which cannot be read from here, and one of the
//! volume. So the volume's own evidence decides: never where $Volume says that short names are off; otherwise as it was
//! done in the directory itself: where it has short names, new long names get one, where it has long names without,
//! they do not. A directory without long names goes by the one above it, up to the root; when nothing is found there is
//! no short name. [`super::WriteOptions::short_names`] overrules all of this.

use super::core::Core;
use super::entry::{FileName, namespace};
use super::file::{File, RECORD_MASK};
use super::names::ROOT;
use super::special::exists;
use super::tree::{Collation, Tree};
use crate::short_name::{MAX_TRIES, Parts, is_short};
use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::Result;
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;

/// $Volume flag: short names are off (PERSISTENT_VOLUME_STATE_SHORT_NAME_CREATION_DISABLED).
const SHORT_NAMES_OFF: u16 = 0x0080;

impl Core {
    /// The short name that a new long name gets in an opened directory; `None` when it gets none.
    pub(crate) fn short_name(
        &mut self,
        directory: &File,
        tree: &Tree,
        name: &str,
    ) -> Result<Option<Vec<u16>>> {
        if is_short(name) || !self.makes_short_names(directory)? {
            return Ok(None);
        }
        let parts = Parts::of(name);
        for number in 1..=MAX_TRIES {
            let units: Vec<u16> = parts.name(number).encode_utf16().collect();
            if tree.find_name(self, directory, &super::names::key_of(&units), false)?.is_none() {
                return Ok(Some(units));
            }
        }
        Err(exists("there is no short name left for this name"))
    }

    fn makes_short_names(&mut self, directory: &File) -> Result<bool> {
        if let Some(asked) = self.short_names {
            return Ok(asked);
        }
        let reference = directory.header.reference();
        if let Some(known) = self.short_known.get(&reference) {
            return Ok(*known);
        }
        let made = self.evidence(directory)?;
        self.short_known.insert(reference, made);
        Ok(made)
    }

    fn evidence(&mut self, directory: &File) -> Result<bool> {
        let volume = File::load(self, 3)?;
        let flags = volume.value(super::attribute::kind::VOLUME_INFORMATION, "").and_then(|v| u16_at(v, 10));
        if flags.unwrap_or(0) & SHORT_NAMES_OFF != 0 {
            return Ok(false);
        }
        let mut at = directory.clone();
        for _ in 0..MAX_DIRECTORY_DEPTH {
            let tree = Tree::open(self, &at, super::names::I30, Collation::FileName)?;
            let mut long = false;
            for entry in tree.entries(self, &at)? {
                let Some(name) = FileName::decode(&entry.key) else { continue };
                if name.namespace == namespace::DOS {
                    return Ok(true);
                }
                long |=
                    !is_short(&String::from_utf16_lossy(&name.name)) && entry.reference & RECORD_MASK != ROOT;
            }
            let parent = at.names()?.first().map(|name| name.parent);
            match parent {
                Some(parent) if !long && at.header.number != ROOT => at = File::open(self, parent)?,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }
}
