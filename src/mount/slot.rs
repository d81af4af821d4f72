//! One volume of a mount: read by everybody, or written under a lock.

use super::ahead::Ahead;
use super::clock;
use super::fault::{Answer, Reason};
use std::sync::{Arc, PoisonError, RwLock};
use vmrescue_base::error::Result;
use vmrescue_base::guid::Guid;
use vmrescue_fs::{FileSystem, FileSystemMut, NodeId, VolumeInfo};
use vmrescue_windows::Volume;

/// How a volume may be used.
pub(super) enum Access {
    /// Only read.
    Read(Arc<dyn FileSystem>),
    /// Read and written, on a staged disk.
    Write(RwLock<Box<dyn FileSystemMut>>),
}

/// A volume of the mount.
pub(super) struct Slot {
    /// Its directory below the mount point; empty when it is the mount itself.
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) letter: Option<char>,
    pub(super) guid: Option<Guid>,
    pub(super) root: NodeId,
    pub(super) info: VolumeInfo,
    pub(super) access: Access,
    ahead: Ahead,
}

impl Slot {
    /// A volume that is read, or written when `writer` is there.
    pub(super) fn new(
        name: String,
        volume: &Volume,
        reader: Arc<dyn FileSystem>,
        writer: Option<Box<dyn FileSystemMut>>,
    ) -> Slot {
        let (root, info) = match &writer {
            Some(writer) => (writer.root(), writer.info()),
            None => (reader.root(), reader.info()),
        };
        Slot {
            name,
            number: volume.number,
            letter: volume.letter,
            guid: volume.partition.as_ref().and_then(|partition| partition.unique_guid),
            root,
            info,
            ahead: Ahead::default(),
            access: writer.map_or(Access::Read(reader), |writer| Access::Write(RwLock::new(writer))),
        }
    }

    /// True when it can be written.
    pub(super) fn is_writable(&self) -> bool {
        matches!(self.access, Access::Write(_))
    }

    /// Looks at the file system.
    pub(super) fn look<T>(&self, work: impl FnOnce(&dyn FileSystem) -> Result<T>) -> Result<T> {
        match &self.access {
            Access::Read(fs) => work(&**fs),
            Access::Write(fs) => {
                let guard = fs.read().unwrap_or_else(PoisonError::into_inner);
                let fs: &dyn FileSystem = &**guard;
                work(fs)
            }
        }
    }

    /// A directory of it is listed.
    pub(super) fn listed(&self) {
        if let Access::Read(fs) = &self.access
            && self.info.kind == "ntfs"
        {
            self.ahead.listed(fs);
        }
    }

    /// Changes the file system.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut dyn FileSystemMut) -> Answer<T>) -> Answer<T> {
        match &self.access {
            Access::Read(_) => Err(Reason::ReadOnly.into()),
            Access::Write(fs) => {
                let mut fs = fs.write().unwrap_or_else(PoisonError::into_inner);
                fs.set_clock(Some(clock::now()));
                work(&mut **fs)
            }
        }
    }
}

/// Names of the volumes' directories: the letter, else the label, else the number; no two alike in any case.
pub(super) fn names(volumes: &[Volume]) -> Vec<String> {
    let mut taken: Vec<String> = volumes.iter().filter_map(|v| v.letter).map(|l| l.to_string()).collect();
    taken.push(".registry".into());
    let free = |name: &str, taken: &[String]| !taken.iter().any(|other| other.eq_ignore_ascii_case(name));
    volumes
        .iter()
        .map(|volume| {
            if let Some(letter) = volume.letter {
                return letter.to_string();
            }
            let label = volume.fs.as_ref().map(|fs| fs.info().label).unwrap_or_default();
            let label = label.trim().to_string();
            let good = !label.is_empty()
                && !label.starts_with('.')
                && !label.contains(['/', '\0', ':'])
                && !label.chars().all(|c| c.is_ascii_digit())
                && free(&label, &taken);
            let name = if good { label } else { volume.number.to_string() };
            taken.push(name.clone());
            name
        })
        .collect()
}
