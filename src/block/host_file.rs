//! A file or block device of the host: positioned I/O, and the lock that keeps two writers apart.
//!
//! This is the one file of the library with code for each operating system (the other is `mount/`). Readers take a
//! shared lock, writers an exclusive one; both are advisory on Unix and mandatory on Windows. A block device of Linux is
//! opened exclusively by whoever stages, so that one with a mounted partition is refused. Raw disks of Windows are read
//! and written in whole sectors.

use super::{BlockDevice, Geometry, WritableDevice, aligned};
#[cfg(target_os = "linux")]
use super::{Extent, ExtentKind};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use vmrescue_base::error::{Error, Layer, Result};

/// How often a lock that is taken is tried again, and after how long.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// An open file or block device of the host, locked as long as it lives.
#[derive(Debug)]
pub struct HostFile {
    file: File,
    path: PathBuf,
    length_bytes: AtomicU64,
    /// Bytes of a sector for devices that move whole ones only; 1 for all others.
    unit: u64,
}

/// Opens a file for staging. A block device that is mounted, or open in the same way elsewhere, is refused by the system.
#[cfg(target_os = "linux")]
fn open_alone(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    const O_EXCL: i32 = 0o200;
    let device = std::fs::metadata(path)?.file_type().is_block_device();
    OpenOptions::new().read(true).custom_flags(if device { O_EXCL } else { 0 }).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open_alone(path: &Path) -> std::io::Result<File> {
    File::open(path)
}

/// True for names such as `\\.\PhysicalDrive2`.
fn is_raw_device(path: &Path) -> bool {
    cfg!(windows) && path.to_string_lossy().starts_with(r"\\.\")
}

#[cfg(unix)]
fn read_some(file: &File, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(unix)]
fn write_some(file: &File, offset: u64, data: &[u8]) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, data, offset)
}

#[cfg(windows)]
fn read_some(file: &File, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

#[cfg(windows)]
fn write_some(file: &File, offset: u64, data: &[u8]) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, data, offset)
}

impl HostFile {
    /// Opens for reading, with a shared lock.
    ///
    /// # Errors
    /// `Refused` when somebody writes to it; otherwise as the operating system says.
    pub fn open_read(path: &Path) -> Result<HostFile> {
        let file = File::open(path).map_err(|e| Error::io("cannot be opened", path, e))?;
        HostFile::locked(file, path, false)
    }

    /// Opens for reading and writing, with an exclusive lock. Only for `transaction/` and for files that it made.
    ///
    /// # Errors
    /// `Refused` when somebody else has it open; otherwise as the operating system says.
    pub fn open_write(path: &Path) -> Result<HostFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| Error::io("cannot be opened for writing", path, e))?;
        HostFile::locked(file, path, true)
    }

    /// Makes a new, empty file, with an exclusive lock.
    ///
    /// # Errors
    /// `AlreadyExists`; otherwise as the operating system says.
    pub fn create_new(path: &Path) -> Result<HostFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|e| Error::io("cannot be made", path, e))?;
        HostFile::locked(file, path, true)
    }

    /// Opens for reading, with an exclusive lock: a transaction stages over it and is the only one that may publish.
    ///
    /// # Errors
    /// As [`HostFile::open_write`].
    pub fn open_staging(path: &Path) -> Result<HostFile> {
        let file = open_alone(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::ResourceBusy => Error::refused(
                Layer::Host,
                "the device is in use: a partition of it is mounted, or another program has it",
            )
            .in_file(path)
            .advice("unmount its partitions first"),
            _ => Error::io("cannot be opened", path, e),
        })?;
        HostFile::locked(file, path, true)
    }

    /// A second handle for writing, under the lock that `self` holds and must go on holding.
    ///
    /// # Errors
    /// As the operating system says, above all for files that may not be written.
    pub fn writer_under_this_lock(&self) -> Result<HostFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(|e| Error::io("cannot be opened for writing", &self.path, e))?;
        Ok(HostFile {
            file,
            path: self.path.clone(),
            length_bytes: AtomicU64::new(self.geometry().length_bytes),
            unit: self.unit,
        })
    }

    /// Asks for the length again, after another handle under this lock has changed it. Devices do not change.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn refresh_length(&self) -> Result<()> {
        let metadata = self.file.metadata().map_err(|e| Error::io("has no length", &self.path, e))?;
        if metadata.is_file() {
            self.length_bytes.store(metadata.len(), Ordering::SeqCst);
        }
        Ok(())
    }

    /// When the host says that the content last changed.
    pub fn modified(&self) -> Option<std::time::SystemTime> {
        self.file.metadata().ok()?.modified().ok()
    }

    fn locked(mut file: File, path: &Path, exclusive: bool) -> Result<HostFile> {
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            return Err(Error::invalid(Layer::Host, "this is a directory, not a disk image").in_file(path));
        }
        let lock = || if exclusive { file.try_lock() } else { file.try_lock_shared() };
        let mut taken = lock();
        // A program that is just being started holds copies of its parent's locks for a moment.
        for _ in 0..LOCK_TRIES {
            if !matches!(taken, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
            taken = lock();
        }
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::busy(Layer::Host, "another program is using the image")
                    .in_file(path)
                    .advice("wait until it has finished, or stop it"));
            }
            // Some network file systems have no locks; reading does not need one.
            Err(TryLockError::Error(_)) if !exclusive => {}
            Err(TryLockError::Error(e)) => return Err(Error::io("cannot be locked", path, e)),
        }
        if is_raw_device(path) {
            let reads = |offset: u64, bytes: usize| {
                read_some(&file, offset, &mut vec![0; bytes]).is_ok_and(|count| count == bytes)
            };
            let unit = if reads(512, 512) { 512 } else { 4096 };
            let length = aligned::length_by_trying(unit, |offset| reads(offset, unit as usize));
            return Ok(HostFile {
                file,
                path: path.to_path_buf(),
                length_bytes: AtomicU64::new(length),
                unit,
            });
        }
        // Block devices have no length in their metadata; the end of a seek is right for both.
        let length = file.seek(SeekFrom::End(0)).map_err(|e| Error::io("has no length", path, e))?;
        Ok(HostFile { file, path: path.to_path_buf(), length_bytes: AtomicU64::new(length), unit: 1 })
    }

    fn read_all(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            match read_some(&self.file, offset, buf) {
                Ok(0) => {
                    return Err(Error::damaged(Layer::Host, "the file ended while it was read")
                        .at(offset)
                        .in_file(&self.path)
                        .advice("the file was made shorter by somebody else"));
                }
                Ok(count) => {
                    buf = &mut buf[count..];
                    offset += count as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("cannot be read", &self.path, e).at(offset)),
            }
        }
        Ok(())
    }

    fn write_all(&self, mut offset: u64, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            match write_some(&self.file, offset, data) {
                Ok(0) => {
                    return Err(Error::no_space(Layer::Host, "nothing could be written")
                        .at(offset)
                        .in_file(&self.path));
                }
                Ok(count) => {
                    data = &data[count..];
                    offset += count as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("cannot be written", &self.path, e).at(offset)),
            }
        }
        Ok(())
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl BlockDevice for HostFile {
    fn geometry(&self) -> Geometry {
        Geometry::of_bytes(self.length_bytes.load(Ordering::Acquire))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        aligned::read_aligned(self.unit, offset, buf, |offset, buf| self.read_all(offset, buf))
    }

    /// Holes of sparse files read as zero; where the system cannot tell, all is data.
    #[cfg(target_os = "linux")]
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        use rustix::fs::{SeekFrom, seek};
        let length = self.geometry().length_bytes;
        let (kind, end) = match seek(&self.file, SeekFrom::Data(offset)) {
            // The rest of the file is one hole.
            Err(rustix::io::Errno::NXIO) => (ExtentKind::Zero, length),
            Ok(data) if data > offset => (ExtentKind::Zero, data),
            Ok(_) => (ExtentKind::Data, seek(&self.file, SeekFrom::Hole(offset)).unwrap_or(length)),
            Err(_) => (ExtentKind::Data, length),
        };
        Ok(Extent { kind, length_bytes: end.min(length).saturating_sub(offset).max(1) })
    }
}

impl WritableDevice for HostFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let read = |offset, buf: &mut [u8]| self.read_all(offset, buf);
        aligned::write_aligned(self.unit, offset, data, read, |offset, data| self.write_all(offset, data))
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let zeros = vec![0u8; 1 << 20];
        let mut offset = range.start;
        while offset < range.end {
            let count = (range.end - offset).min(zeros.len() as u64);
            self.write_at(offset, &zeros[..count as usize])?;
            offset += count;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io("cannot be made durable", &self.path, e))
    }

    fn set_length(&self, length_bytes: u64) -> Result<()> {
        self.file
            .set_len(length_bytes)
            .map_err(|e| Error::io("cannot change its length", &self.path, e).found(length_bytes))?;
        self.length_bytes.store(length_bytes, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_base::error::ErrorKind;

    #[test]
    fn a_writer_keeps_others_out_and_readers_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let writer = HostFile::create_new(&path).unwrap();
        writer.set_length(4096).unwrap();
        writer.write_at(100, b"words").unwrap();
        assert_eq!(HostFile::open_read(&path).unwrap_err().kind(), ErrorKind::Busy);
        drop(writer);
        let first = HostFile::open_read(&path).unwrap();
        let _second = HostFile::open_read(&path).unwrap();
        let mut word = [0; 5];
        first.read_at(100, &mut word).unwrap();
        assert_eq!(&word, b"words");
        assert_eq!(HostFile::open_write(&path).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(HostFile::open_read(dir.path()).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
