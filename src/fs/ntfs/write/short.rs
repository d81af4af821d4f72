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
use super::names::{ROOT, is_short};
use super::special::exists;
use super::tree::{Collation, Tree};
use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::Result;
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;

/// $Volume flag: short names are off (PERSISTENT_VOLUME_STATE_SHORT_NAME_CREATION_DISABLED).
const SHORT_NAMES_OFF: u16 = 0x0080;
/// Numbers behind the plain beginning of a name, before its hash is used.
const PLAIN_TRIES: u32 = 4;
/// Numbers that are tried with the hash: six digits leave two letters.
const MAX_TRIES: u32 = 999_999;

/// The parts of a name that short ones are made of, as `RtlGenerate8dot3Name` takes them.
struct Parts {
    base: String,
    extension: String,
    hash: u16,
}

fn legal(c: char) -> Option<char> {
    match c {
        ' ' | '.' => None,
        c if c.is_ascii_alphanumeric() || "$%'-_@~`!(){}^#&".contains(c) => Some(c.to_ascii_uppercase()),
        _ => Some('_'),
    }
}

impl Parts {
    fn of(name: &str) -> Parts {
        let trimmed = name.trim_start_matches('.');
        let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
        let take = |text: &str, most: usize| text.chars().filter_map(legal).take(most).collect::<String>();
        Parts { base: take(base, 6), extension: take(extension, 3), hash: hash(name) }
    }

    /// The name that is tried as number `try_number`, from 1.
    fn name(&self, try_number: u32) -> String {
        let few = self.base.len() <= 2;
        let (beginning, number) = if try_number <= PLAIN_TRIES && !few {
            (self.base.clone(), try_number)
        } else {
            let first: String = self.base.chars().take(2).collect();
            let number = if few { try_number } else { try_number - PLAIN_TRIES };
            (format!("{first}{:04X}", self.hash), number)
        };
        let digits = number.to_string();
        let beginning: String = beginning.chars().take(7 - digits.len()).collect();
        let dot = if self.extension.is_empty() { "" } else { "." };
        format!("{beginning}~{digits}{dot}{}", self.extension)
    }
}

/// The hash of a name in its short form (found by Thomas Galvin, 2015).
fn hash(name: &str) -> u16 {
    let sum = name.encode_utf16().fold(0u16, |sum, unit| sum.wrapping_mul(0x25).wrapping_add(unit));
    let product = i32::from(sum).wrapping_mul(314_159_269).wrapping_abs();
    let rest = i64::from(product) - (i64::from(product).wrapping_mul(1_152_921_497) >> 60) * 1_000_000_007;
    let bytes = rest.to_le_bytes();
    let low = u16::from_le_bytes([bytes[0], bytes[1]]);
    low >> 12 | (low >> 4) & 0x00F0 | (low << 4) & 0x0F00 | low << 12
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened_as_windows_does_it() {
        let name = |long: &str, number| Parts::of(long).name(number);
        assert_eq!(name("Program Files", 1), "PROGRA~1");
        assert_eq!(name("Program Files (x86)", 2), "PROGRA~2");
        assert_eq!(name("TextFile.Mine.txt", 1), "TEXTFI~1.TXT");
        assert_eq!(name(".gitignore", 1), "GITIGN~1");
        assert_eq!(name("ver +1.2.text", 1), "VER_12~1.TEX");
        assert_eq!(name("no extension.", 4), "NOEXTE~4");
        assert_eq!(name("x y.c", 1), format!("XY{:04X}~1.C", hash("x y.c")));
        let fifth = name("Program Files", 5);
        assert!(fifth.starts_with("PR") && fifth.ends_with("~1") && fifth.len() == 8, "{fifth}");
        assert_eq!(name("Program Files", 14).len(), 8);
        assert!(is_short(&name("Ünïcödé náme.döc", 1)));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(hash("TextFile.Mine.txt"), 0xE50A);
        assert_eq!(hash("Windows XP Default.wav"), 0xD6DF);
    }
}
