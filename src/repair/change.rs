//! One change of a guest, as data: planned, shown, applied, verified, logged.

use super::content::Content;
use serde::Serialize;
use vmrescue_base::time::FileTime;
use vmrescue_registry::{DataType, ValueData};

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

/// Most repairs of a file system that are shown.
const SHOWN: usize = 40;

impl Change {
    /// The hive that it changes, and the key.
    pub(super) fn registry_key(&self) -> Option<(&str, &str)> {
        match self {
            Change::RegistrySet { hive, key, .. }
            | Change::RegistryCreateKey { hive, key }
            | Change::RegistryDeleteValue { hive, key, .. }
            | Change::RegistryRenameKey { hive, key, .. }
            | Change::RegistryDeleteKey { hive, key } => Some((hive, key)),
            _ => None,
        }
    }
}

/// A value's data in a few words.
pub(super) fn words(data_type: u32, data: &[u8]) -> String {
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
        ValueData::Bytes(bytes) if bytes.len() <= 16 => vmrescue_base::text::hex(&bytes),
        ValueData::Bytes(bytes) => format!("{} bytes", bytes.len()),
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |hive: &str| hive.rsplit('\\').next().unwrap_or(hive).to_string();
        match self {
            Change::RegistrySet { hive, key, name: value, data_type, data, was } => {
                let value = if value.is_empty() { "(default)" } else { value };
                let kind = DataType(*data_type).name();
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
            Change::RegistryDeleteKey { hive, key } => write!(f, "delete the key {}\\{key}", name(hive)),
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
