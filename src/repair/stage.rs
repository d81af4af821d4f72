//! Applies changes to a staged disk: each volume opened once for writing, each hive edited once.

use super::change::{Change, Detail};
use super::content::Content;
use super::volumes::write_options;
use std::borrow::Cow;
use std::collections::BTreeMap;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::DiskMut;
use vmrescue_fs::ntfs::WriteOptions;
use vmrescue_fs::path::{GuestPath, VolumeName};
use vmrescue_fs::{
    Attributes, FileSystemMut, MetadataChange, NodeId, NodeKind, Times, open_mut_with, read_file, resolve,
};
use vmrescue_registry::HiveEditor;
use vmrescue_windows::{Machine, hive_of};

/// A staged disk with what is open on it.
pub(super) struct Stage<'a> {
    machine: Cow<'a, Machine>,
    disk: &'a DiskMut,
    volumes: BTreeMap<usize, Box<dyn FileSystemMut>>,
    /// How volumes are opened, for those that are not opened as usual.
    options: BTreeMap<usize, WriteOptions>,
    hives: BTreeMap<String, HiveEditor>,
}

/// True for changes that work below all file systems.
fn is_below(change: &Change) -> bool {
    matches!(change, Change::DiskWrite { .. } | Change::VolumeFormat { .. } | Change::FileSystemRepair { .. })
}

fn missing(path: &GuestPath) -> Error {
    Error::not_found(Layer::FileSystem, "no such file or directory on this disk").found(path)
}

impl<'a> Stage<'a> {
    pub(super) fn new(machine: &'a Machine, disk: &'a DiskMut) -> Stage<'a> {
        Stage {
            machine: Cow::Borrowed(machine),
            disk,
            volumes: BTreeMap::new(),
            options: BTreeMap::new(),
            hives: BTreeMap::new(),
        }
    }

    /// Applies all changes, then writes the hives back.
    pub(super) fn apply(mut self, changes: &[Change]) -> Result<()> {
        let numbers = self.machine.volumes.iter().map(|volume| write_options(changes, volume.number));
        self.options = numbers.enumerate().collect();
        let mut below = false;
        for change in changes {
            // Partitions may be others now; what was written below file systems comes before their files.
            if below && !is_below(change) && self.volumes.is_empty() {
                self.machine = Cow::Owned(Machine::open(self.disk.as_disk())?);
                let numbers = self.machine.volumes.iter().map(|volume| write_options(changes, volume.number));
                self.options = numbers.enumerate().collect();
                below = false;
            }
            below |= matches!(change, Change::DiskWrite { .. });
            self.apply_one(change).map_err(|e| e.context(format!("({change})")))?;
        }
        for (path, editor) in std::mem::take(&mut self.hives) {
            let edited = editor.finish(FileTime::now())?;
            if !edited.changed.is_empty() {
                self.write_ranges(&path, &edited.bytes, &edited.changed)?;
            }
        }
        self.volumes.values_mut().try_for_each(|volume| volume.sync())
    }

    fn volume(&mut self, index: usize) -> Result<&mut Box<dyn FileSystemMut>> {
        if !self.volumes.contains_key(&index) {
            let range = self.machine.volumes[index].range.clone();
            let options = self.options.get(&index).copied().unwrap_or_default();
            self.volumes.insert(index, open_mut_with(self.disk.window(range)?, options)?);
        }
        self.volumes.get_mut(&index).ok_or_else(|| Error::invalid(Layer::FileSystem, "no such volume"))
    }

    /// The volume, the directory and the last name of a path.
    fn place(&mut self, text: &str) -> Result<(usize, NodeId, String)> {
        let path = GuestPath::parse(text)?;
        let index = self.machine.volume_of(&path.volume)?;
        let Some((name, directory)) = path.components.split_last() else {
            return Err(
                Error::invalid(Layer::FileSystem, "the root of a volume cannot be changed").found(text)
            );
        };
        let volume = self.volume(index)?;
        let parent = resolve(&**volume, directory)?.ok_or_else(|| missing(&path))?;
        Ok((index, parent, name.clone()))
    }

    fn editor(&mut self, hive: &str) -> Result<&mut HiveEditor> {
        if !self.hives.contains_key(hive) {
            let (index, directory, name) = self.place(hive)?;
            let volume = self.volume(index)?;
            let opened = hive_of(&**volume, directory, &name)?;
            self.hives.insert(hive.to_string(), HiveEditor::new(opened).map_err(|e| e.in_file(hive))?);
        }
        self.hives.get_mut(hive).ok_or_else(|| Error::invalid(Layer::Hive, "no such hive"))
    }

    /// Writes only what differs from the file; the hive may also have been recovered from its logs, so the whole of it is
    /// compared first.
    fn write_ranges(&mut self, path: &str, bytes: &[u8], changed: &[std::ops::Range<usize>]) -> Result<()> {
        let (index, directory, name) = self.place(path)?;
        let volume = self.volume(index)?;
        let node = volume.lookup(directory, &name)?.ok_or_else(|| Error::not_found(Layer::Hive, path))?;
        let old = read_file(&**volume, node, "")?;
        if old.len() > bytes.len() {
            volume.set_len(node, "", bytes.len() as u64)?;
        }
        let same_elsewhere = old.len() <= bytes.len() && {
            let mut patched = bytes.to_vec();
            patched.truncate(old.len());
            for range in changed.iter().filter(|range| range.end <= old.len()) {
                patched[range.clone()].copy_from_slice(&old[range.clone()]);
            }
            patched == old
        };
        if !same_elsewhere {
            return volume.write(node, "", 0, bytes);
        }
        changed.iter().try_for_each(|range| volume.write(node, "", range.start as u64, &bytes[range.clone()]))
    }

    fn apply_one(&mut self, change: &Change) -> Result<()> {
        if let Some((hive, _)) = change.registry_key() {
            return super::bare::apply(self.editor(hive)?, change);
        }
        match change {
            Change::DiskWrite { offset, data, .. } => self.disk.write_at(*offset, data),
            Change::FileSystemRepair { volume, writes, .. } | Change::VolumeFormat { volume, writes, .. } => {
                // Planned on the volume as it was: nothing else may have been written to it before.
                let index = self.machine.volumes.iter().position(|own| own.number == *volume);
                if index.is_some_and(|index| self.volumes.contains_key(&index)) {
                    return Err(Error::invalid(
                        Layer::Script,
                        "a file system is mended before its files are changed, not after",
                    ));
                }
                writes.iter().try_for_each(|(offset, data)| self.disk.write_at(*offset, data))
            }
            Change::FileWrite { path, data, .. } => self.write_file(path, data),
            Change::FileLink { path, target, .. } => self.link(path, target),
            Change::MakeDirectory { path } => {
                let (index, directory, name) = self.place(path)?;
                self.volume(index)?.create(directory, &name, NodeKind::Directory).map(|_| ())
            }
            Change::FileRename { from, to } => {
                let (index, from_dir, from_name) = self.place(from)?;
                let (other, to_dir, to_name) = self.place(to)?;
                if index != other {
                    return Err(Error::unsupported(
                        Layer::FileSystem,
                        "a file cannot be moved to another volume",
                    ));
                }
                self.volume(index)?.rename(from_dir, &from_name, to_dir, &to_name)
            }
            Change::FileDelete { path } => {
                let stream = GuestPath::parse(path)?.stream;
                let (index, directory, name) = self.place(path)?;
                let volume = self.volume(index)?;
                if stream.is_empty() {
                    return volume.remove(directory, &name);
                }
                let node = volume.lookup(directory, &name)?;
                let node = node.ok_or_else(|| Error::not_found(Layer::FileSystem, path))?;
                volume.remove_stream(node, &stream)
            }
            Change::FileDetails { details, .. } => {
                details.iter().try_for_each(|detail| self.set_details(detail))
            }
            Change::FileSecurity { path, model } => self.take_security(path, model),
            Change::FileAccess { path, security, .. } => self.set_security(path, security.clone()),
            // Opening it does that.
            Change::ReplayLog { volume, .. }
            | Change::DiscardLog { volume, .. }
            | Change::DiscardHibernation { volume, .. } => {
                let index = self.machine.volume_of(&VolumeName::Number(*volume))?;
                self.volume(index).map(drop)
            }
            _ => Err(Error::invalid(Layer::FileSystem, "a change that is none of files")),
        }
    }

    fn write_file(&mut self, path: &str, data: &Content) -> Result<()> {
        let stream = GuestPath::parse(path)?.stream;
        let (index, directory, name) = self.place(path)?;
        let volume = self.volume(index)?;
        let node = match volume.lookup(directory, &name)? {
            Some(node) => node,
            None => volume.create(directory, &name, NodeKind::File)?,
        };
        let there = volume.streams(node)?.into_iter().find(|info| info.name == stream);
        if let Some(there) = there {
            // What cannot be changed in its place (encrypted, or kept outside of the file) is replaced as a whole.
            let is_closed = there.size_bytes > 0
                && volume.read(node, &stream, 0, &mut [0]).is_err_and(|e| e.kind() == ErrorKind::Unsupported);
            let kept = if is_closed { 0 } else { data.length_bytes() };
            if there.size_bytes > kept {
                volume.set_len(node, &stream, kept)?;
            }
        }
        data.pieces(&mut |at, bytes| volume.write(node, &stream, at, bytes))
    }

    fn set_details(&mut self, detail: &Detail) -> Result<()> {
        let (index, directory, name) = self.place(&detail.path)?;
        let volume = self.volume(index)?;
        let missing = || Error::not_found(Layer::FileSystem, "no such file on this disk").found(&detail.path);
        let node = volume.lookup(directory, &name)?.ok_or_else(missing)?;
        let old = volume.metadata(node)?;
        let times = detail.modified.map(|modified| Times { modified, ..old.times });
        let keep = old.attributes.0 & Attributes::DIRECTORY;
        let attributes = detail.attributes.map(|bits| Attributes(bits | keep));
        volume.set_metadata(node, &MetadataChange { attributes, times, ..MetadataChange::default() })
    }

    fn take_security(&mut self, path: &str, model: &str) -> Result<()> {
        let missing =
            |path: &str| Error::not_found(Layer::FileSystem, "no such file on this disk").found(path);
        let (other, directory, name) = self.place(model)?;
        let volume = self.volume(other)?;
        let node = volume.lookup(directory, &name)?.ok_or_else(|| missing(model))?;
        let security = volume.security(node)?;
        let security = security.ok_or_else(|| missing(model))?;
        self.set_security(path, security)
    }

    fn set_security(&mut self, path: &str, security: Vec<u8>) -> Result<()> {
        let (index, directory, name) = self.place(path)?;
        let volume = self.volume(index)?;
        let node = volume
            .lookup(directory, &name)?
            .ok_or_else(|| Error::not_found(Layer::FileSystem, "no such file on this disk").found(path))?;
        let change = MetadataChange { security: Some(security), ..MetadataChange::default() };
        volume.set_metadata(node, &change)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let (index, directory, name) = self.place(path)?;
        let (other, target_dir, target_name) = self.place(target)?;
        if index != other {
            return Err(Error::unsupported(Layer::FileSystem, "a link cannot lead to another volume"));
        }
        let volume = self.volume(index)?;
        let node = volume.lookup(target_dir, &target_name)?.ok_or_else(|| {
            Error::not_found(Layer::FileSystem, "the file to link to is missing").found(target)
        })?;
        match volume.remove(directory, &name) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        volume.link(node, directory, &name)
    }
}
