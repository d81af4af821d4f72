//! One change of a guest, as data: planned, shown, applied, verified, logged.

use super::content::Content;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::utf16le_bytes;
use vmrescue_base::time::FileTime;
use vmrescue_registry::{DataType, Hive, ValueData};
use vmrescue_windows::bcd::{element_words, value_words};

/// Attributes and times that a file or directory gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// The file or directory.
    pub path: String,
    /// DOS attributes, those that a user may set.
    pub attributes: Option<u32>,
    /// When its data last changed.
    #[serde(skip)]
    pub modified: Option<FileTime>,
}

/// A change. Paths are guest paths; volumes are numbers of partitions; `hive` is the guest path of a hive's file, `key` the path below its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Sets a registry value, making the key when it is not there.
    RegistrySet {
        /// File of the hive.
        hive: String,
        /// Key below the root.
        key: String,
        /// Name of the value.
        name: String,
        /// Number of the type.
        data_type: u32,
        /// The new data.
        data: Vec<u8>,
        /// What was there, for people.
        was: Option<String>,
    },
    /// Makes a key.
    RegistryCreateKey {
        /// File of the hive.
        hive: String,
        /// Key below the root.
        key: String,
    },
    /// Deletes a value.
    RegistryDeleteValue {
        /// File of the hive.
        hive: String,
        /// Key below the root.
        key: String,
        /// Name of the value.
        name: String,
    },
    /// Deletes a key with everything below.
    RegistryDeleteKey {
        /// File of the hive.
        hive: String,
        /// Key below the root.
        key: String,
    },
    /// From here on new keys of a hive get the security that Windows would compute from their parent's.
    RegistryInheritSecurity {
        /// File of the hive.
        hive: String,
    },
    /// Gives a key another name.
    RegistryRenameKey {
        /// File of the hive.
        hive: String,
        /// Key below the root.
        key: String,
        /// The new name.
        to: String,
    },
    /// Gives a file this content, making it when it is not there.
    FileWrite {
        /// The file.
        path: String,
        /// The content.
        #[serde(skip)]
        data: Content,
        /// Its length in bytes.
        size: u64,
        /// Where it comes from, for people.
        from: String,
    },
    /// Gives a file or directory the security descriptor of another one.
    FileSecurity {
        /// What gets it.
        path: String,
        /// Whose it is.
        model: String,
    },
    /// Changes who may use a file or directory.
    FileAccess {
        /// What it is about.
        path: String,
        /// The new security descriptor, self-relative.
        #[serde(skip)]
        security: Vec<u8>,
        /// What is new in it, for people.
        what: String,
    },
    /// Makes `path` another name of the file `target`; what `path` was before loses this name.
    FileLink {
        /// The new name.
        path: String,
        /// The file.
        target: String,
        /// What is known of it, for people.
        why: String,
    },
    /// Writes bytes of the disk below all file systems: partition table, boot sector.
    DiskWrite {
        /// Place on the virtual disk, in bytes.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
        /// What for, for people.
        what: String,
    },
    /// Makes an empty file system.
    VolumeFormat {
        /// Number of the volume.
        volume: u32,
        /// Kind, label and sizes, for people.
        what: String,
        /// Bytes that change.
        bytes: u64,
        /// Places on the virtual disk, and what goes there.
        #[serde(skip)]
        writes: Vec<(u64, Vec<u8>)>,
    },
    /// Puts a file system right.
    FileSystemRepair {
        /// Number of the volume.
        volume: u32,
        /// Each repair, for people.
        repairs: Vec<String>,
        /// What is left, for people.
        left: Vec<String>,
        /// Bytes that change.
        bytes: u64,
        /// Places on the virtual disk, and what goes there.
        #[serde(skip)]
        writes: Vec<(u64, Vec<u8>)>,
    },
    /// Gives files and directories attributes and times.
    FileDetails {
        /// What for, for people.
        what: String,
        /// What each gets.
        details: Vec<Detail>,
    },
    /// Makes a directory.
    MakeDirectory {
        /// The directory.
        path: String,
    },
    /// Renames or moves inside a volume.
    FileRename {
        /// Old path.
        from: String,
        /// New path.
        to: String,
    },
    /// Deletes a file or an empty directory.
    FileDelete {
        /// The file.
        path: String,
    },
    /// Finishes what $LogFile says was not finished, as Windows would on its next start.
    ReplayLog {
        /// The volume.
        volume: u32,
        /// Operations that are done again.
        redone: u64,
        /// Operations of transactions without an end, which are taken back.
        undone: u64,
    },
    /// Throws away what $LogFile holds.
    DiscardLog {
        /// The volume.
        volume: u32,
        /// Why it cannot be replayed.
        why: String,
    },
    /// Throws away the memory of a hibernated Windows.
    DiscardHibernation {
        /// The volume.
        volume: u32,
        /// What is lost.
        lost: String,
    },
}

/// Stands where a secret stood.
const NOT_KEPT: &str = "(not kept)";
/// Most repairs of a file system that are shown.
const SHOWN: usize = 40;

impl Change {
    /// The hive that a change of the registry is for.
    pub fn hive(&self) -> Option<&str> {
        self.registry_key().map(|(hive, _)| hive)
    }

    /// That hive, and the key.
    pub(super) fn registry_key(&self) -> Option<(&str, &str)> {
        match self {
            Change::RegistrySet { hive, key, .. }
            | Change::RegistryCreateKey { hive, key }
            | Change::RegistryDeleteValue { hive, key, .. }
            | Change::RegistryRenameKey { hive, key, .. }
            | Change::RegistryDeleteKey { hive, key } => Some((hive, key)),
            Change::RegistryInheritSecurity { hive } => Some((hive, "")),
            _ => None,
        }
    }
}

/// True for hives whose data are secrets of the machine and its users, whatever is in them.
fn is_secret_hive(hive: &str) -> bool {
    let name = hive.rsplit(['\\', '/']).next().unwrap_or(hive);
    name.eq_ignore_ascii_case("SAM") || name.eq_ignore_ascii_case("SECURITY")
}

/// Stands for bytes that are not kept: enough to tell whether two are the same.
fn hash(bytes: &[u8]) -> String {
    format!("sha256:{}", vmrescue_base::text::hex(&Sha256::digest(bytes)))
}

/// The words of a change of a value that nobody shall read.
fn hashed(hive: &str, key: &str, value: &str, kind: &str, data: &[u8], was: bool) -> String {
    let name = hive.rsplit(['\\', '/']).next().unwrap_or(hive);
    let value = if value.is_empty() { "(default)" } else { value };
    let what = if was { "replaces a value" } else { "was not there" };
    format!("set {name}\\{key}  {value} = {kind} {}  ({what})", hash(data))
}

/// What is kept nowhere: what was given for secret parameters, and the data of a hive of secrets.
#[derive(Clone, Default)]
pub struct Secrets {
    values: Vec<String>,
    /// Whatever is set in the registry.
    registry: bool,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({}, registry: {})", self.values.len(), self.registry)
    }
}

/// True for a hive that holds accounts or what the machine keeps secret (SAM, SECURITY), whatever the file is called. One
/// that cannot be told is taken for one.
fn holds_secrets(hive: &Hive) -> bool {
    let has = |key: &str| hive.key(key).map_or(true, |found| found.is_some());
    is_secret_hive(&hive.file_name())
        || is_secret_hive(&hive.root().name())
        || has(r"SAM\Domains")
        || has(r"Policy\Secrets")
        || has(r"Policy\PolEKList")
        || has(r"Policy\PolSecretEncryptionKey")
}

impl Secrets {
    /// Values that are kept nowhere; empty ones hide nothing.
    pub fn new(values: impl IntoIterator<Item = String>) -> Secrets {
        let mut values: Vec<String> = values.into_iter().filter(|value| !value.is_empty()).collect();
        // The longest first: one may hold another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Secrets { values, registry: false }
    }

    /// The same, with all data of a hive of its own that holds secrets.
    #[must_use]
    pub fn with_hive(mut self, hive: &Hive) -> Secrets {
        self.registry |= holds_secrets(hive);
        self
    }

    /// The words of a command without secrets: in `reg set` the data follows the name of its type.
    pub(super) fn out_of_command(&self, words: &[String]) -> Vec<String> {
        let mut kept: Vec<String> = Vec::new();
        for word in words {
            let is_data =
                self.registry && kept.last().is_some_and(|last| DataType::from_name(last).is_some());
            kept.push(if is_data { NOT_KEPT.into() } else { self.out_of(word) });
        }
        kept
    }

    fn are_in(&self, data: &[u8]) -> bool {
        let holds = |part: &[u8]| !part.is_empty() && data.windows(part.len()).any(|window| window == part);
        self.values.iter().any(|value| holds(value.as_bytes()) || holds(&utf16le_bytes(value)))
    }

    fn out_of(&self, text: &str) -> String {
        self.values.iter().fold(text.to_string(), |text, value| text.replace(value.as_str(), NOT_KEPT))
    }

    fn out_of_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.out_of(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.out_of_json(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.out_of_json(value)),
            _ => {}
        }
    }
}

/// A value's data in a few words.
pub(crate) fn words(data_type: u32, data: &[u8]) -> String {
    let shown = match (data_type, data.len()) {
        (1 | 2, _) => ValueData::Text(
            vmrescue_base::text::until_nul(&vmrescue_base::text::utf16le_lossy(data)).to_string(),
        ),
        (4, 4) => ValueData::Number(u64::from(vmrescue_base::bytes::u32_at(data, 0).unwrap_or(0))),
        (11, 8) => ValueData::Number(vmrescue_base::bytes::u64_at(data, 0).unwrap_or(0)),
        (7, _) => ValueData::Text(
            vmrescue_base::text::utf16le_lossy(data).trim_end_matches('\0').replace('\0', ", "),
        ),
        _ => ValueData::Bytes(data.to_vec()),
    };
    match shown {
        ValueData::Text(text) => format!("{text:?}"),
        ValueData::Number(number) => format!("{number} ({number:#x})"),
        ValueData::Texts(texts) => texts.join(", "),
        ValueData::Bytes(bytes) if bytes.len() <= 32 => vmrescue_base::text::hex(&bytes),
        ValueData::Bytes(bytes) => {
            format!("{}... ({} bytes)", vmrescue_base::text::hex(&bytes[..16]), bytes.len())
        }
    }
}

/// An element of a boot store, and what it is set to, in bcdedit's words.
fn boot_words(key: &str, value: &str, data_type: u32, data: &[u8]) -> Option<(String, String)> {
    if !value.eq_ignore_ascii_case("Element") {
        return None;
    }
    element_words(key).zip(value_words(key, data_type, data))
}

/// The data of a value of a key, in words: those of bcdedit in a boot store.
pub fn words_in(key: &str, value: &str, data_type: u32, data: &[u8]) -> String {
    boot_words(key, value, data_type, data).map_or_else(|| words(data_type, data), |(_, words)| words)
}

impl Change {
    /// The change as it may be kept and shown: data of SAM and SECURITY, and all that holds a secret, as a hash.
    ///
    /// # Errors
    /// None for changes of this program.
    pub fn kept(&self, secrets: &Secrets) -> Result<Value> {
        let mut kept = serde_json::to_value(self)
            .map_err(|e| Error::invalid(Layer::Script, "a change cannot be written down").caused_by(e))?;
        if let Change::RegistrySet { hive, data, .. } = self
            && (is_secret_hive(hive) || secrets.registry || secrets.are_in(data))
        {
            kept["data"] = Value::String(hash(data));
            if !kept["was"].is_null() {
                kept["was"] = Value::String(NOT_KEPT.into());
            }
        }
        if let Change::DiskWrite { data, .. } = self
            && secrets.are_in(data)
        {
            kept["data"] = Value::String(hash(data));
        }
        secrets.out_of_json(&mut kept);
        Ok(kept)
    }

    /// The change in words that may be kept and shown.
    pub fn words(&self, secrets: &Secrets) -> String {
        match self {
            Change::RegistrySet { hive, key, name, data_type, data, was }
                if secrets.registry || secrets.are_in(data) =>
            {
                let kind = DataType(*data_type).name();
                secrets.out_of(&hashed(hive, key, name, &kind, data, was.is_some()))
            }
            _ => secrets.out_of(&self.to_string()),
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |hive: &str| hive.rsplit('\\').next().unwrap_or(hive).to_string();
        match self {
            Change::RegistrySet { hive, key, name: value, data_type, data, was } => {
                if let Some((element, words)) = boot_words(key, value, *data_type, data) {
                    write!(f, "set {}: {element} {words}", name(hive))?;
                    return match was {
                        Some(was) => write!(f, " (was {was})"),
                        None => write!(f, " (was not there)"),
                    };
                }
                let value = if value.is_empty() { "(default)" } else { value };
                let kind = DataType(*data_type).name();
                if is_secret_hive(hive) {
                    return f.write_str(&hashed(hive, key, value, &kind, data, was.is_some()));
                }
                write!(f, "set {}\\{key}  {value} = {kind} {}", name(hive), words(*data_type, data))?;
                match was {
                    Some(was) => write!(f, "  (was {was})"),
                    None => write!(f, "  (was not there)"),
                }
            }
            Change::RegistryCreateKey { hive, key } => write!(f, "make the key {}\\{key}", name(hive)),
            Change::RegistryDeleteValue { hive, key, name: value } => {
                write!(f, "delete the value {value} of {}\\{key}", name(hive))
            }
            Change::RegistryDeleteKey { hive, key } if let Some(element) = element_words(key) => {
                write!(f, "delete {}: {element}", name(hive))
            }
            Change::RegistryDeleteKey { hive, key } => write!(f, "delete the key {}\\{key}", name(hive)),
            Change::RegistryInheritSecurity { hive } => {
                write!(f, "new keys of {} inherit their security", name(hive))
            }
            Change::RegistryRenameKey { hive, key, to } => {
                write!(f, "rename the key {}\\{key} to {to}", name(hive))
            }
            Change::FileWrite { path, size, from, .. } => {
                write!(f, "write {path}  ({size} bytes from {from})")
            }
            Change::FileSecurity { path, model } => {
                write!(f, "give {path} the security of {model}")
            }
            Change::FileLink { path, target, why } => write!(f, "link {path}\n       to {target}  ({why})"),
            Change::DiskWrite { offset, data, what } => {
                write!(f, "{what}  ({} bytes of the disk at {offset:#x})", data.len())
            }
            Change::VolumeFormat { volume, what, bytes, .. } => {
                write!(f, "format volume {volume}: {what}  ({bytes} bytes written; what was on it is lost)")
            }
            Change::FileSystemRepair { volume, repairs, left, bytes, .. } => {
                write!(f, "mend the file system of volume {volume}  ({bytes} bytes)")?;
                let list = |f: &mut std::fmt::Formatter<'_>, texts: &[String], sign: &str| {
                    texts.iter().take(SHOWN).try_for_each(|text| write!(f, "\n      {sign} {text}"))?;
                    match texts.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                        Some(more) => write!(f, "\n      {sign} and {more} more"),
                        None => Ok(()),
                    }
                };
                list(f, repairs, "-")?;
                list(f, left, "left as it is:")
            }
            Change::FileAccess { path, what, .. } => write!(f, "permissions of {path}: {what}"),
            Change::FileDetails { what, details } => {
                write!(f, "times and attributes of {} files and directories: {what}", details.len())
            }
            Change::MakeDirectory { path } => write!(f, "make the directory {path}"),
            Change::FileRename { from, to } => write!(f, "rename {from} to {to}"),
            Change::FileDelete { path } => write!(f, "delete {path}"),
            Change::ReplayLog { volume, redone, undone } => {
                write!(
                    f,
                    "replay $LogFile of #{volume}  ({redone} operations done again, {undone} taken back)"
                )
            }
            Change::DiscardLog { volume, why } => write!(f, "throw away $LogFile of #{volume}  ({why})"),
            Change::DiscardHibernation { volume, lost } => {
                write!(f, "end the hibernation of #{volume}  ({lost})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(hive: &str, text: &str) -> Change {
        Change::RegistrySet {
            hive: hive.into(),
            key: "Key".into(),
            name: "Value".into(),
            data_type: 1,
            data: utf16le_bytes(text),
            was: Some("\"old\"".into()),
        }
    }

    #[test]
    fn secrets_are_kept_as_hashes() {
        let secrets = Secrets::new(["Pa\"ss\\word".to_string(), String::new()]);
        for hive in [r"C:\Windows\System32\config\SAM", r"C:\Windows\System32\config\security", "/tmp/Sam"] {
            let (change, none) = (set(hive, "hidden"), Secrets::default());
            let kept = change.kept(&none).unwrap().to_string() + &change.words(&none) + &change.to_string();
            assert!(kept.contains("sha256:") && !kept.contains("hidden") && !kept.contains("old"), "{kept}");
            assert!(!kept.contains("104,0,105,0"), "{kept}");
        }
        let system = r"C:\Windows\System32\config\SYSTEM";
        let kept = set(system, "open").kept(&secrets).unwrap().to_string();
        assert!(!kept.contains("sha256") && kept.contains("old"), "{kept}");
        let change = set(system, "net user x Pa\"ss\\word");
        let kept = change.kept(&secrets).unwrap().to_string() + &change.words(&secrets);
        assert!(kept.contains("sha256:") && !kept.contains("Pa\\\"ss") && !kept.contains("Pa\"ss"), "{kept}");
        let file = Change::FileDelete { path: "C:\\Pa\"ss\\word".into() };
        let kept = file.kept(&secrets).unwrap().to_string() + &file.words(&secrets);
        assert!(!kept.contains("word"), "{kept}");
    }
}
