//! FAT12, FAT16 and FAT32 through the crate `fatfs`, behind the traits of this room.
//!
//! The system partition is small and seldom touched, so every operation opens the volume anew: nothing is cached that a
//! writer could make stale, and a panic in the library cannot leave half of its state behind. Node ids are numbers of
//! paths, valid as long as the volume is open.
//! Missing: times and attributes cannot be set (the library writes its own), orphaned clusters are not looked for.

mod io;

use self::io::DiskIo;
use super::{
    Attributes, DirEntry, FileSystem, FileSystemMut, Metadata, MetadataChange, NodeId, NodeKind, StreamInfo,
    Times, VolumeInfo,
};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_base::time::FileTime;
use vmrescue_block::{Disk, DiskMut};

/// A FAT volume.
pub struct FatVolume {
    disk: Disk,
    writer: Option<DiskMut>,
    info: VolumeInfo,
    paths: Mutex<Vec<String>>,
}

/// True when the boot sector is one of FAT.
pub fn is_fat(sector: &[u8]) -> bool {
    let marked = sector.get(510..512) == Some(&[0x55, 0xaa]);
    marked && (sector.get(54..57) == Some(b"FAT") || sector.get(82..87) == Some(b"FAT32"))
}

/// The copy of the boot sector of the FAT32 volume that fills `disk`, when its own is none any more: sector 6, where the table of
/// clusters that it tells of is there as well.
///
/// # Errors
/// Of reading the disk.
pub fn boot_copy(disk: &Disk) -> Result<Option<Vec<u8>>> {
    for sector in [512u64, 4096] {
        if disk.len() < 16 * sector {
            continue;
        }
        let bytes = disk.read_vec(6 * sector, sector as usize)?;
        let fat_32 = is_fat(&bytes) && bytes.get(82..87) == Some(b"FAT32");
        if !fat_32 || u16_at(&bytes, 11).map(u64::from) != Some(sector) {
            continue;
        }
        let table = u64::from(u16_at(&bytes, 14).unwrap_or(0)) * sector;
        let sectors = u64::from(u32_at(&bytes, 32).unwrap_or(0));
        if table == 0 || table + 4 > disk.len() || sectors * sector > disk.len() {
            continue;
        }
        // The first entry of the table repeats the byte of the medium.
        let entry = disk.read_vec(table, 4)?;
        if Some(&entry[0]) == bytes.get(21) && entry[1] == 0xff && entry[2] & 0xf == 0xf {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// Writes the boot sector of the FAT32 volume that fills `disk` anew from its copy.
///
/// # Errors
/// `NotFound` when the copy is none either; of the disk.
pub fn repair_boot_sector(disk: &DiskMut) -> Result<()> {
    let copy = boot_copy(&disk.as_disk())?.ok_or_else(|| {
        Error::not_found(Layer::Fat, "the copy of the boot sector is damaged as well").at(0)
    })?;
    disk.write_at(0, &copy)
}

fn failed(what: &str, e: std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        std::io::ErrorKind::WriteZero => ErrorKind::NoSpace,
        std::io::ErrorKind::InvalidInput => ErrorKind::Invalid,
        _ => ErrorKind::Damaged,
    };
    Error::new(kind, Layer::Fat, what.to_string()).caused_by(e)
}

/// Days and seconds as FAT has them; FAT knows no time zone, so local time is taken for UTC.
fn time_of(at: fatfs::DateTime) -> FileTime {
    let (y, m, d) = (i64::from(at.date.year), i64::from(at.date.month), i64::from(at.date.day));
    // Days from civil, counted from March so that leap days come last.
    let (y, m) = if m <= 2 { (y - 1, m + 9) } else { (y, m - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + d - 1 - 719_468;
    let (h, min, s) = (i64::from(at.time.hour), i64::from(at.time.min), i64::from(at.time.sec));
    FileTime::from_unix_seconds(days * 86_400 + h * 3600 + min * 60 + s)
}

/// Formats a volume; FAT32 from 64 MiB on, else what fits.
///
/// # Errors
/// `Invalid` for volumes that are too small.
pub fn format(disk: &DiskMut, label: &str, serial: u32) -> Result<()> {
    let mut name = [b' '; 11];
    for (byte, c) in name.iter_mut().zip(label.to_ascii_uppercase().bytes()) {
        *byte = c;
    }
    let sector = disk.geometry().logical_sector_bytes as u16;
    let mut options =
        fatfs::FormatVolumeOptions::new().volume_label(name).volume_id(serial).bytes_per_sector(sector);
    if disk.len() >= 64 << 20 {
        options = options.fat_type(fatfs::FatType::Fat32);
    }
    let mut io = DiskIo::new(disk.as_disk(), Some(disk.clone()));
    fatfs::format_volume(&mut io, options).map_err(|e| failed("the volume cannot be formatted", e))
}

impl FatVolume {
    /// Opens a volume for reading.
    ///
    /// # Errors
    /// `Damaged` when the boot sector cannot be right.
    pub fn open(disk: Disk) -> Result<FatVolume> {
        FatVolume::open_with(disk, None)
    }

    /// Opens a volume for writing.
    ///
    /// # Errors
    /// As [`FatVolume::open`].
    pub fn open_mut(disk: DiskMut) -> Result<FatVolume> {
        FatVolume::open_with(disk.as_disk(), Some(disk))
    }

    fn open_with(disk: Disk, writer: Option<DiskMut>) -> Result<FatVolume> {
        let info = VolumeInfo {
            kind: "FAT",
            label: String::new(),
            serial: 0,
            version: String::new(),
            size_bytes: disk.len(),
            cluster_bytes: 0,
            free_bytes: None,
            dirty: false,
        };
        let mut volume = FatVolume { disk, writer, info, paths: Mutex::new(vec![String::new()]) };
        volume.info = volume.with("the boot sector cannot be read", |fs| {
            let kind = match fs.fat_type() {
                fatfs::FatType::Fat12 => "FAT12",
                fatfs::FatType::Fat16 => "FAT16",
                fatfs::FatType::Fat32 => "FAT32",
            };
            Ok(VolumeInfo {
                kind,
                label: fs.volume_label().trim().to_string(),
                serial: u64::from(fs.volume_id()),
                cluster_bytes: fs.cluster_size(),
                dirty: fs.read_status_flags()?.dirty(),
                ..volume.info.clone()
            })
        })?;
        Ok(volume)
    }

    fn with<T>(&self, what: &str, work: impl FnOnce(&Mounted) -> std::io::Result<T>) -> Result<T> {
        let io = DiskIo::new(self.disk.clone(), self.writer.clone());
        let fs = fatfs::FileSystem::new(io, fatfs::FsOptions::new()).map_err(|e| failed(what, e))?;
        let result = work(&fs).map_err(|e| failed(what, e))?;
        // fatfs writes a count of free clusters that it had to find out; a reader has nothing to write it to.
        match fs.unmount() {
            Err(e) if self.writer.is_some() => Err(failed(what, e)),
            _ => Ok(result),
        }
    }

    fn path(&self, node: NodeId) -> Result<String> {
        let paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let path = paths.get(node.0 as usize).cloned();
        path.ok_or_else(|| Error::not_found(Layer::Fat, "no such node").found(node.0))
    }

    fn node(&self, path: String) -> NodeId {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let known = paths.iter().position(|known| *known == path);
        NodeId(known.unwrap_or_else(|| {
            paths.push(path);
            paths.len() - 1
        }) as u64)
    }

    fn child(&self, directory: NodeId, name: &str) -> Result<String> {
        let path = self.path(directory)?;
        Ok(if path.is_empty() { name.to_string() } else { format!("{path}/{name}") })
    }

    fn entry(&self, entry: &fatfs::DirEntry<'_, DiskIo>, path: String) -> DirEntry {
        let kind = if entry.is_dir() { NodeKind::Directory } else { NodeKind::File };
        let modified = time_of(entry.modified());
        DirEntry {
            name: entry.file_name(),
            name_utf16: None,
            short_name: Some(entry.short_file_name()),
            id: self.node(path),
            kind,
            size_bytes: entry.len(),
            attributes: Attributes(u32::from(entry.attributes().bits())),
            times: Times {
                created: time_of(entry.created()),
                modified,
                changed: modified,
                accessed: modified,
            },
        }
    }
}

type Mounted = fatfs::FileSystem<DiskIo>;

fn directory<'a>(fs: &'a Mounted, path: &str) -> std::io::Result<fatfs::Dir<'a, DiskIo>> {
    if path.is_empty() { Ok(fs.root_dir()) } else { fs.root_dir().open_dir(path) }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl FileSystem for FatVolume {
    fn info(&self) -> VolumeInfo {
        self.info.clone()
    }

    fn free_bytes(&self) -> Result<u64> {
        self.with("free space", |fs| {
            let stats = fs.stats()?;
            Ok(u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()))
        })
    }

    fn root(&self) -> NodeId {
        NodeId(0)
    }

    fn lookup(&self, at: NodeId, name: &str) -> Result<Option<NodeId>> {
        let found =
            self.read_dir(at)?.into_iter().find(|entry| entry.name.to_lowercase() == name.to_lowercase());
        Ok(found.map(|entry| entry.id))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let path = self.path(node)?;
        let directory = Attributes(Attributes::DIRECTORY);
        let base = Metadata {
            id: node,
            kind: NodeKind::Directory,
            size_bytes: 0,
            allocated_bytes: 0,
            attributes: directory,
            times: Times::default(),
            links: 1,
            reparse: None,
            security_id: None,
        };
        if path.is_empty() {
            return Ok(base);
        }
        let (parent, name) = split(&path);
        let entries = self.read_dir(self.node(parent.to_string()))?;
        let Some(entry) = entries.into_iter().find(|entry| entry.name == name) else {
            return Err(Error::not_found(Layer::Fat, "the file is gone").found(&path));
        };
        let cluster = u64::from(self.info.cluster_bytes.max(1));
        Ok(Metadata {
            kind: entry.kind,
            size_bytes: entry.size_bytes,
            allocated_bytes: entry.size_bytes.next_multiple_of(cluster),
            attributes: entry.attributes,
            times: entry.times,
            ..base
        })
    }

    fn read_dir(&self, at: NodeId) -> Result<Vec<DirEntry>> {
        let path = self.path(at)?;
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.with(&format!("directory \\{path}"), |fs| {
            let entries = directory(fs, &path)?.iter().collect::<std::io::Result<Vec<_>>>()?;
            let real = entries.iter().filter(|entry| !matches!(entry.file_name().as_str(), "." | ".."));
            Ok(real.map(|entry| self.entry(entry, format!("{prefix}{}", entry.file_name()))).collect())
        })
    }

    fn streams(&self, node: NodeId) -> Result<Vec<StreamInfo>> {
        let metadata = self.metadata(node)?;
        if metadata.kind == NodeKind::Directory {
            return Ok(Vec::new());
        }
        Ok(vec![StreamInfo {
            name: String::new(),
            size_bytes: metadata.size_bytes,
            allocated_bytes: metadata.allocated_bytes,
            resident: false,
            compressed: false,
            sparse: false,
            encrypted: false,
        }])
    }

    fn read(&self, node: NodeId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if !stream.is_empty() {
            return Err(Error::not_found(Layer::Fat, "FAT has no streams").found(stream));
        }
        let path = self.path(node)?;
        self.with(&format!("file \\{path}"), |fs| {
            let mut file = fs.root_dir().open_file(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut done = 0;
            while done < buf.len() {
                match file.read(&mut buf[done..])? {
                    0 => break,
                    count => done += count,
                }
            }
            Ok(done)
        })
    }

    fn check(&self, _progress: &dyn Progress) -> Result<Vec<Defect>> {
        let boot = self.disk.read_vec(0, 512)?;
        let sector = u64::from(u16_at(&boot, 11).unwrap_or(512));
        let reserved = u64::from(u16_at(&boot, 14).unwrap_or(0));
        let small = u64::from(u16_at(&boot, 22).unwrap_or(0));
        let size = if small == 0 { u64::from(u32_at(&boot, 36).unwrap_or(0)) } else { small } * sector;
        let mut defects = Vec::new();
        if boot[16] == 2 && size < 64 << 20 {
            let first = self.disk.read_vec(reserved * sector, size as usize)?;
            let second = self.disk.read_vec(reserved * sector + size, size as usize)?;
            if first != second {
                let text = "the two copies of the allocation table differ";
                let at = reserved * sector;
                defects.push(Defect::new("fat-copies-differ", Severity::Warning, Layer::Fat, at, text));
            }
        }
        if self.info.dirty {
            let text = "the volume was not unmounted cleanly";
            defects.push(Defect::new("fat-dirty", Severity::Note, Layer::Fat, None, text));
        }
        let mut pending = vec![self.root()];
        while let Some(at) = pending.pop() {
            let entries = match self.read_dir(at) {
                Ok(entries) => entries,
                Err(e) => {
                    defects.push(Defect::from_error("fat-directory-bad", Severity::Error, &e));
                    continue;
                }
            };
            for entry in entries {
                if entry.kind == NodeKind::Directory {
                    if self.path(entry.id)?.matches('/').count() < 64 {
                        pending.push(entry.id);
                    }
                } else if let Err(e) = super::read_file(self, entry.id, "") {
                    defects.push(Defect::from_error("fat-file-unreadable", Severity::Error, &e));
                }
            }
        }
        Ok(defects)
    }
}

impl FileSystemMut for FatVolume {
    fn create(&mut self, at: NodeId, name: &str, kind: NodeKind) -> Result<NodeId> {
        if self.lookup(at, name)?.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, Layer::Fat, "the name is taken").found(name));
        }
        let path = self.child(at, name)?;
        self.with("a file cannot be made", |fs| match kind {
            NodeKind::Directory => fs.root_dir().create_dir(&path).map(|_| ()),
            _ => fs.root_dir().create_file(&path).map(|_| ()),
        })?;
        Ok(self.node(path))
    }

    fn write(&mut self, node: NodeId, stream: &str, offset: u64, data: &[u8]) -> Result<()> {
        if !stream.is_empty() {
            return Err(Error::unsupported(Layer::Fat, "FAT has no streams").found(stream));
        }
        let path = self.path(node)?;
        self.with("a file cannot be written", |fs| {
            let mut file = fs.root_dir().open_file(&path)?;
            let end = file.seek(SeekFrom::End(0))?;
            if end < offset {
                file.write_all(&vec![0; (offset - end) as usize])?;
            }
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(data)?;
            file.flush()
        })
    }

    fn set_len(&mut self, node: NodeId, stream: &str, length_bytes: u64) -> Result<()> {
        let path = self.path(node)?;
        let now = self.metadata(node)?.size_bytes;
        if length_bytes > now {
            return self.write(node, stream, now, &vec![0; (length_bytes - now) as usize]);
        }
        self.with("a file cannot be cut", |fs| {
            let mut file = fs.root_dir().open_file(&path)?;
            file.seek(SeekFrom::Start(length_bytes))?;
            file.truncate()?;
            file.flush()
        })
    }

    fn rename(&mut self, from: NodeId, from_name: &str, to: NodeId, to_name: &str) -> Result<()> {
        let (old, new) = (self.child(from, from_name)?, self.child(to, to_name)?);
        self.with("a file cannot be renamed", |fs| {
            let root = fs.root_dir();
            root.rename(&old, &root, &new)
        })
    }

    fn link(&mut self, _node: NodeId, _directory: NodeId, _name: &str) -> Result<()> {
        Err(Error::unsupported(Layer::Fat, "FAT has no hard links"))
    }

    fn remove(&mut self, at: NodeId, name: &str) -> Result<()> {
        let path = self.child(at, name)?;
        self.with("a file cannot be removed", |fs| fs.root_dir().remove(&path))
    }

    fn remove_stream(&mut self, _node: NodeId, stream: &str) -> Result<()> {
        Err(Error::unsupported(Layer::Fat, "FAT has no streams").found(stream))
    }

    fn set_metadata(&mut self, _node: NodeId, change: &MetadataChange) -> Result<()> {
        if change.security.is_some() || change.security_from.is_some() {
            return Err(Error::unsupported(Layer::Fat, "FAT has no security"));
        }
        // The library keeps times by itself: nothing that a caller could rely on.
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vmrescue_base::progress::Silent;
    use vmrescue_block::MemoryDevice;

    #[test]
    fn files_and_directories_come_back() {
        for size in [4 << 20, 100 << 20] {
            let disk = DiskMut::new(Arc::new(MemoryDevice::zeroed(size)));
            format(&disk, "System", 7).unwrap();
            let mut volume = FatVolume::open_mut(disk.clone()).unwrap();
            let efi = volume.create(volume.root(), "EFI", NodeKind::Directory).unwrap();
            let file = volume.create(efi, "A long name.efi", NodeKind::File).unwrap();
            volume.write(file, "", 0, &[7; 100_000]).unwrap();
            volume.set_len(file, "", 50_001).unwrap();
            assert!(volume.create(efi, "a LONG name.efi", NodeKind::File).is_err());
            let volume = FatVolume::open(disk.as_disk()).unwrap();
            let node = crate::resolve(&volume, &["efi", "A LONG NAME.EFI"]).unwrap().unwrap();
            assert_eq!(crate::read_file(&volume, node, "").unwrap(), vec![7; 50_001]);
            assert!(volume.check(&Silent).unwrap().is_empty());
            assert!(is_fat(&disk.as_disk().read_vec(0, 512).unwrap()));
        }
    }
}
