//! Which image it is: the ids that its container and its disk carry, and which file of the host it is.
//!
//! Ids come from the content and go with copies; the file's number stays with the file under every name. Neither alone is
//! enough: a restored disk has the old ids and another number, a disk that was copied over another one has the number and
//! other ids.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use vmrescue_block::{Disk, FileId, HostFile};
use vmrescue_image as image;
use vmrescue_image::{Container, Format, Variant};
use vmrescue_partition as partition;

/// What an operation remembers of its image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The container's format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// VHD: the unique id; VHDX: the virtual disk id of page 83.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// VHDX: the data write id, which every writer changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// GPT: the disk id; MBR: the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Length of the file in bytes.
    #[serde(default)]
    pub length: u64,
    /// Which file of the host it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<HostId>,
}

/// [`FileId`], as it is kept in files.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct HostId {
    device: u64,
    inode: u64,
    created: Option<u64>,
}

impl From<FileId> for HostId {
    fn from(id: FileId) -> HostId {
        HostId { device: id.device, inode: id.inode, created: id.created }
    }
}

/// The same file: the numbers of file systems change with a restart of the host, so the time of making counts where it is
/// known.
impl PartialEq for HostId {
    fn eq(&self, other: &HostId) -> bool {
        self.inode == other.inode
            && match (self.created, other.created) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => self.device == other.device,
            }
    }
}

impl Eq for HostId {}

impl Identity {
    /// The ids in an image file. What cannot be read names nothing: a half-written or foreign file has no ids, and who it is
    /// must then be told by what else is known.
    pub(super) fn in_content(file: &Disk) -> Identity {
        let mut found = Identity { length: file.len(), ..Identity::default() };
        let Ok(info) = image::info(file) else { return found };
        found.format = Some(format!("{:?}", info.format).to_lowercase());
        if info.format != Format::Raw {
            found.container = info.identity;
        }
        if info.format == Format::Vhdx {
            found.content = info.content_identity;
        }
        // The table of a differencing disk is mostly its parent's.
        if info.variant != Variant::Differencing {
            let table = image::open(file).and_then(|Container { disk, .. }| partition::read(&disk));
            found.disk = table.ok().and_then(|table| table.disk_id).filter(|id| {
                // Zeros mean that nobody gave one.
                id.chars().any(|c| c.is_ascii_alphanumeric() && c != '0')
            });
        }
        found
    }

    /// The ids in an open file, with which file it is.
    pub(super) fn of(host: &HostFile, content: &Disk) -> Identity {
        let id = host.stamp().ok().and_then(|stamp| stamp.id);
        Identity { file: id.map(HostId::from), ..Identity::in_content(content) }
    }

    /// For messages: the ids that there are.
    pub fn words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.format.clone());
        words.extend(self.container.as_ref().map(|id| format!("container id {id}")));
        words.extend(self.disk.as_ref().map(|id| format!("disk id {id}")));
        if words.is_empty() { "a file without ids".to_string() } else { words.join(", ") }
    }
}

/// Whose state a folder holds: `image.json`. The ids are all that the image had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// Where the image was, without links.
    pub(super) path: PathBuf,
    pub(super) file: Option<HostId>,
    pub(super) containers: Vec<String>,
    pub(super) disks: Vec<String>,
}

/// Most ids that an owner keeps: an image seldom gets another one.
const MAX_IDS: usize = 16;

/// How an owner and an image go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinship {
    /// The same file, under whatever name.
    SameFile,
    /// Another file, and nothing that speaks against the same image: a copy, a restored backup, or a file without ids.
    Perhaps,
    /// Another image.
    Other,
}

impl Owner {
    /// Adds what is known of the image now; true when that was something new.
    pub(super) fn learn(&mut self, path: &Path, identity: &Identity) -> bool {
        let before = self.clone();
        self.path = path.to_path_buf();
        self.file = identity.file;
        for (list, id) in [(&mut self.containers, &identity.container), (&mut self.disks, &identity.disk)] {
            if let Some(id) = id.as_ref().filter(|id| !list.contains(id)) {
                if list.len() >= MAX_IDS {
                    list.remove(0);
                }
                list.push(id.clone());
            }
        }
        *self != before
    }

    /// Whether the image is the one whose state this is.
    pub(super) fn kinship(&self, identity: &Identity) -> Kinship {
        let differs = |known: &[String], id: &Option<String>| {
            !known.is_empty() && id.as_ref().is_some_and(|id| !known.contains(id))
        };
        let agrees = |known: &[String], id: &Option<String>| id.as_ref().is_some_and(|id| known.contains(id));
        // The container's id is worth more: a guest may give its disk another signature.
        let other = differs(&self.containers, &identity.container)
            || (!agrees(&self.containers, &identity.container) && differs(&self.disks, &identity.disk));
        match (other, self.file, identity.file) {
            (true, ..) => Kinship::Other,
            (false, Some(ours), Some(theirs)) if ours == theirs => Kinship::SameFile,
            // A device has no number, but its disk has an id.
            (false, None, None) if agrees(&self.disks, &identity.disk) => Kinship::SameFile,
            (false, ..) => Kinship::Perhaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64, container: Option<&str>, disk: Option<&str>) -> Identity {
        let file = Some(HostId { device: 1, inode, created: Some(7) });
        let (container, disk) = (container.map(String::from), disk.map(String::from));
        Identity { container, disk, file, ..Identity::default() }
    }

    #[test]
    fn ids_speak_against_a_file_and_numbers_for_it() {
        let mut owner = Owner::default();
        assert!(owner.learn(Path::new("/a"), &identity(1, Some("c"), Some("d"))));
        assert!(!owner.learn(Path::new("/a"), &identity(1, Some("c"), Some("d"))));
        assert_eq!(owner.kinship(&identity(1, Some("c"), Some("d"))), Kinship::SameFile);
        // The guest gave its disk another signature; another container was copied over the file.
        assert_eq!(owner.kinship(&identity(1, Some("c"), Some("e"))), Kinship::SameFile);
        assert_eq!(owner.kinship(&identity(1, Some("x"), Some("d"))), Kinship::Other);
        assert_eq!(owner.kinship(&identity(1, None, Some("e"))), Kinship::Other);
        assert_eq!(owner.kinship(&identity(2, Some("c"), Some("d"))), Kinship::Perhaps);
        assert_eq!(owner.kinship(&identity(2, None, None)), Kinship::Perhaps);
        // After a restart the file system has another number.
        let moved = Identity {
            file: Some(HostId { device: 9, inode: 1, created: Some(7) }),
            ..identity(0, None, None)
        };
        assert_eq!(owner.kinship(&moved), Kinship::SameFile);
        assert!(owner.learn(Path::new("/b"), &identity(1, Some("c"), Some("e"))));
        assert_eq!(owner.disks, ["d", "e"]);
    }
}
