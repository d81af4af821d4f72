//! Opens the file system of a volume, whichever it is, and the helpers that work over any of them.

use super::{FileSystem, FileSystemMut, NodeId, fat, ntfs};
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_FILE_IN_MEMORY_BYTES;
use vmrescue_block::{Disk, DiskMut};

/// Opens the file system that fills `disk`.
///
/// # Errors
/// `Unsupported` when it is none that is known; damage.
pub fn open(disk: Disk) -> Result<Arc<dyn FileSystem>> {
    let length = disk.len().min(512) as usize;
    let first = disk.read_vec(0, length)?;
    // The first sector may say that it is FAT's: BitLocker To Go.
    if vmrescue_crypt::is_bitlocker(&first) {
        return Err(Error::unsupported(Layer::FileSystem, "no file system that is known")
            .at(0)
            .found("BitLocker"));
    }
    if ntfs::is_ntfs(&first) {
        return Ok(Arc::new(ntfs::Volume::open(disk)?));
    }
    if fat::is_fat(&first) {
        return Ok(Arc::new(fat::FatVolume::open(disk)?));
    }
    if ntfs::boot_copy(&disk)?.is_some() {
        return Ok(Arc::new(ntfs::Volume::open(disk)?));
    }
    if fat::boot_copy(&disk)?.is_some() {
        return Ok(Arc::new(fat::FatVolume::open(disk)?));
    }
    let found = if first.get(3..11) == Some(b"EXFAT   ") {
        "exFAT"
    } else if first.get(3..7) == Some(b"ReFS") {
        "ReFS"
    } else {
        "something else"
    };
    Err(Error::unsupported(Layer::FileSystem, "no file system that is known").at(0).found(found))
}

/// Opens the file system that fills `disk` for writing.
///
/// # Errors
/// As [`open`]; `Refused` when the volume was not left cleanly.
pub fn open_mut(disk: DiskMut) -> Result<Box<dyn FileSystemMut>> {
    open_mut_with(disk, ntfs::WriteOptions::default())
}

/// The same; `options` count for NTFS.
///
/// # Errors
/// As [`open_mut`].
pub fn open_mut_with(disk: DiskMut, options: ntfs::WriteOptions) -> Result<Box<dyn FileSystemMut>> {
    let length = disk.geometry().length_bytes.min(512) as usize;
    let first = disk.as_disk().read_vec(0, length)?;
    if vmrescue_crypt::is_bitlocker(&first) {
        return Err(Error::unsupported(Layer::FileSystem, "no file system that can be written")
            .at(0)
            .found("BitLocker"));
    }
    if ntfs::is_ntfs(&first) {
        return Ok(Box::new(ntfs::VolumeMut::open_with(disk, options)?));
    }
    if fat::is_fat(&first) {
        return Ok(Box::new(fat::FatVolumeMut::open(disk)?));
    }
    if ntfs::boot_copy(&disk.as_disk())?.is_some() {
        return Err(Error::refused(
            Layer::Ntfs,
            "the boot sector of the volume is damaged; it was read by its copy",
        )
        .at(0)
        .advice("put it right first: vmrescue partition repair-boot-sector IMAGE N"));
    }
    if fat::boot_copy(&disk.as_disk())?.is_some() {
        // It says what to do first.
        return Ok(Box::new(fat::FatVolumeMut::open(disk)?));
    }
    Err(Error::unsupported(Layer::FileSystem, "no file system that can be written").at(0))
}

/// The node at the end of a path, from the root; `None` when a component is not there.
///
/// # Errors
/// Of [`FileSystem::lookup`]: `Invalid` when a component in the middle is a file.
pub fn resolve<S: AsRef<str>>(fs: &dyn FileSystem, components: &[S]) -> Result<Option<NodeId>> {
    let mut node = fs.root();
    for component in components {
        match fs.lookup(node, component.as_ref())? {
            Some(next) => node = next,
            None => return Ok(None),
        }
    }
    Ok(Some(node))
}

/// A whole stream in memory (`""` for the unnamed one).
///
/// # Errors
/// `Limit` when it is larger than [`MAX_FILE_IN_MEMORY_BYTES`]; errors of the file system.
pub fn read_file(fs: &dyn FileSystem, node: NodeId, stream: &str) -> Result<Vec<u8>> {
    let streams = fs.streams(node)?;
    let size = streams.iter().find(|s| s.name == stream).map(|s| s.size_bytes).ok_or_else(|| {
        Error::not_found(Layer::FileSystem, format!("file {:#x} has no stream {stream:?}", node.0))
    })?;
    if size > MAX_FILE_IN_MEMORY_BYTES {
        return Err(Error::limit(Layer::FileSystem, "size of a file in memory")
            .expected(format!("at most {MAX_FILE_IN_MEMORY_BYTES} bytes"))
            .found(size));
    }
    // Taken in steps, so that a size that is a lie costs no memory before the first error.
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let done = bytes.len();
        bytes.resize(done + (size - done as u64).min(4 << 20) as usize, 0);
        let count = fs.read(node, stream, done as u64, &mut bytes[done..])?;
        bytes.truncate(done + count);
        if count == 0 {
            break;
        }
    }
    Ok(bytes)
}
