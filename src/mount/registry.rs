//! The registry and the boot store as directories and files: keys are directories, values are files.
//!
//! A value shows its data as text (one line for texts and numbers, a line for each of several texts, other data as it
//! is), or always as it is. Its type and its raw bytes are extended attributes. Names that a path cannot hold are
//! written with `%` and two hex digits. Missing: values are not written; names beyond 250 bytes are left out.

use super::fault::{Answer, Reason};
use std::sync::{Arc, OnceLock};
use vmrescue_base::error::Result;
use vmrescue_base::time::FileTime;
use vmrescue_fs::path::GuestPath;
use vmrescue_registry::{Hive, Key, Value, ValueData};
use vmrescue_repair::key_path;
use vmrescue_windows::{HIVES, Machine, hive_of};

/// Longest name that a directory shows.
const MAX_NAME_BYTES: usize = 250;

/// How the data of values is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    /// Texts and numbers as lines of text.
    #[default]
    Text,
    /// All data as it is.
    Raw,
}

struct Branch {
    /// Directories from the root to the hive.
    path: Vec<String>,
    /// Guest path of its file.
    file: String,
    hive: OnceLock<Option<Arc<Hive>>>,
}

/// A place in the registry: names as the directories show them.
pub(super) type At = Vec<String>;

/// What a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) directory: bool,
    pub(super) size: u64,
    pub(super) written: FileTime,
}

/// All hives of one installation.
pub(super) struct Registry {
    machine: Machine,
    branches: Vec<Branch>,
    shown: Shown,
}

/// A name as a path can hold it.
fn escaped(name: &str) -> String {
    if name == "." || name == ".." {
        return name.replace('.', "%2E");
    }
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '%' | '/' | '\0'..='\x1f' => out.push_str(&format!("%{:02X}", c as u32)),
            _ => out.push(c),
        }
    }
    out
}

/// The name of a value's file; `taken` when a key has the same one.
fn file_name(value: &str, taken: bool) -> String {
    let name = if value.is_empty() { "(Default)".to_string() } else { escaped(value) };
    if taken { format!("{name}%value") } else { name }
}

/// The text of a value, when its type has one.
fn text_of(value: &Value<'_>) -> Option<String> {
    match value.typed() {
        Ok(ValueData::Text(text)) => Some(text + "\n"),
        Ok(ValueData::Texts(all)) => Some(all.iter().map(|line| format!("{line}\n")).collect()),
        Ok(ValueData::Number(number)) => Some(format!("{number:#x} ({number})\n")),
        _ => None,
    }
}

impl Registry {
    /// The hives of an installation and the boot store, none of them read yet.
    pub(super) fn new(machine: Machine, windows: Option<usize>, shown: Shown) -> Result<Registry> {
        let mut branches = Vec::new();
        let mut add = |path: &[&str], file: String| {
            let path = path.iter().map(|part| (*part).to_string()).collect();
            branches.push(Branch { path, file, hive: OnceLock::new() });
        };
        if let Ok(store) = key_path(&machine, machine.installation(windows)?, "BCD") {
            add(&["BCD"], store.hive);
        }
        let installation = machine.installation(windows)?;
        for name in HIVES {
            if name == "DEFAULT" {
                continue;
            }
            add(&["HKLM", name], format!(r"{}\System32\config\{name}", installation.path));
        }
        add(&["HKU", ".DEFAULT"], format!(r"{}\System32\config\DEFAULT", installation.path));
        let software = machine.hive(installation, "SOFTWARE")?;
        let list = software.key(r"Microsoft\Windows NT\CurrentVersion\ProfileList")?;
        for profile in list.map(|list| list.subkeys()).transpose()?.unwrap_or_default() {
            let sid = profile.name();
            for user in [sid.clone(), format!("{sid}_Classes")] {
                if let Ok(found) = key_path(&machine, installation, &format!(r"HKU\{user}\x")) {
                    add(&["HKU", &escaped(&user)], found.hive);
                }
            }
        }
        let present = |branch: &Branch| {
            GuestPath::parse(&branch.file)
                .and_then(|path| machine.resolve(&path))
                .is_ok_and(|(_, node)| node.is_some())
        };
        branches.retain(present);
        Ok(Registry { machine, branches, shown })
    }

    fn hive(&self, branch: &Branch) -> Option<Arc<Hive>> {
        let load = || -> Result<Option<Arc<Hive>>> {
            let path = GuestPath::parse(&branch.file)?;
            let Some((name, directory)) = path.components.split_last() else { return Ok(None) };
            let fs = self.machine.file_system(self.machine.volume_of(&path.volume)?)?;
            let Some(parent) = vmrescue_fs::resolve(&*fs, directory)? else { return Ok(None) };
            hive_of(&*fs, parent, name).map(|hive| Some(Arc::new(hive)))
        };
        branch.hive.get_or_init(|| load().ok().flatten()).clone()
    }

    /// Calls `found` with the key that the first of `at` lead to, and the names that are left (none: the key itself).
    fn with_key<T>(&self, at: &[String], found: impl FnOnce(&Key<'_>, &[String]) -> Answer<T>) -> Answer<T> {
        let is_prefix = |branch: &&Branch| {
            branch.path.len() <= at.len()
                && branch.path.iter().zip(at).all(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        let branch = self.branches.iter().find(is_prefix).ok_or(Reason::NotFound)?;
        let hive = self.hive(branch).ok_or(Reason::Failed)?;
        let mut key = hive.root();
        let mut rest = &at[branch.path.len()..];
        while let Some((name, after)) = rest.split_first() {
            // The name of a key may be escaped, so it is compared as it is shown; most are not.
            let direct = if name.contains('%') { None } else { key.subkey(name)? };
            let next = match direct {
                Some(next) => Some(next),
                None if name.contains('%') => {
                    key.subkeys()?.into_iter().find(|k| escaped(&k.name()).eq_ignore_ascii_case(name))
                }
                None => None,
            };
            match next {
                Some(next) => key = next,
                None => break,
            }
            rest = after;
        }
        found(&key, rest)
    }

    /// Directories above the hives.
    fn upper(&self, at: &[String]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for branch in &self.branches {
            let leads = branch.path.len() > at.len()
                && branch.path.iter().zip(at).all(|(a, b)| a.eq_ignore_ascii_case(b));
            if leads && !names.contains(&branch.path[at.len()]) {
                names.push(branch.path[at.len()].clone());
            }
        }
        names
    }

    fn with_value<T>(&self, at: &[String], found: impl FnOnce(&Value<'_>) -> Answer<T>) -> Answer<T> {
        self.with_key(at, |key, rest| {
            let [name] = rest else { return Err(Reason::NotFound.into()) };
            let (values, _) = key.values_lenient();
            let plain = name.strip_suffix("%value").unwrap_or(name);
            let value =
                values.iter().find(|value| file_name(&value.name(), false).eq_ignore_ascii_case(plain));
            found(value.ok_or(Reason::NotFound)?)
        })
    }

    fn content(&self, value: &Value<'_>) -> Answer<Vec<u8>> {
        if self.shown == Shown::Text
            && let Some(text) = text_of(value)
        {
            return Ok(text.into_bytes());
        }
        Ok(value.data()?.into_owned())
    }

    /// What is at a place.
    pub(super) fn facts(&self, at: &[String]) -> Answer<Facts> {
        let directory = |written| Facts { directory: true, size: 0, written };
        if !self.upper(at).is_empty() {
            return Ok(directory(FileTime(0)));
        }
        let key = self.with_key(at, |key, rest| Ok(rest.is_empty().then(|| key.last_written())))?;
        if let Some(written) = key {
            return Ok(directory(written));
        }
        let written = self.with_key(at, |key, _| Ok(key.last_written()))?;
        let size = self.with_value(at, |value| Ok(self.content(value)?.len() as u64))?;
        Ok(Facts { directory: false, size, written })
    }

    /// The names in a directory, and whether each is a directory.
    pub(super) fn list(&self, at: &[String]) -> Answer<Vec<(String, bool)>> {
        let upper = self.upper(at);
        if !upper.is_empty() {
            return Ok(upper.into_iter().map(|name| (name, true)).collect());
        }
        self.with_key(at, |key, rest| {
            if !rest.is_empty() {
                return Err(Reason::NotDirectory.into());
            }
            let (keys, _) = key.subkeys_lenient();
            let mut names: Vec<(String, bool)> =
                keys.iter().map(|key| (escaped(&key.name()), true)).collect();
            let lower: std::collections::HashSet<String> =
                names.iter().map(|(name, _)| name.to_lowercase()).collect();
            let (values, _) = key.values_lenient();
            for value in &values {
                let plain = file_name(&value.name(), false);
                let taken = lower.contains(&plain.to_lowercase());
                names.push((file_name(&value.name(), taken), false));
            }
            names.retain(|(name, _)| name.len() <= MAX_NAME_BYTES);
            Ok(names)
        })
    }

    /// The content of a value's file.
    pub(super) fn read(&self, at: &[String]) -> Answer<Vec<u8>> {
        self.with_value(at, |value| self.content(value))
    }

    /// Extended attributes of a value.
    pub(super) fn attribute(&self, at: &[String], name: &str) -> Answer<Vec<u8>> {
        self.with_value(at, |value| match name {
            "user.registry.type" => Ok(value.data_type().name().into_bytes()),
            "user.registry.raw" => Ok(value.data()?.into_owned()),
            _ => Err(Reason::NoAttribute.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        assert_eq!(escaped("text/html"), "text%2Fhtml");
        assert_eq!(escaped("%SystemRoot%"), "%25SystemRoot%25");
        assert_eq!(escaped(".."), "%2E%2E");
        assert_eq!(file_name("", false), "(Default)");
        assert_eq!(file_name("a", true), "a%value");
    }
}
