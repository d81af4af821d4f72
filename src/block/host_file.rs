//! A file or block device of the host: positioned I/O, the locks that keep two writers apart, and who the file is.
//!
//! This and `host_lock` are the files of the library with code for each operating system (the other is `mount/`). Readers
//! share, a writer is alone, from opening to closing ([`super::host_lock`]). A block device of Linux is opened exclusively by
//! whoever stages, so that one with a mounted partition is refused. Raw disks of Windows are read and written in whole
//! sectors. Whoever will write opens for writing from the start: what was locked, read and compared is what is written.

use super::host_lock::{self, Locked, Use};
use super::{BlockDevice, Geometry, WritableDevice, aligned};
#[cfg(target_os = "linux")]
use super::{Extent, ExtentKind};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use vmrescue_base::error::{Error, Layer, Result};

/// How often a lock that is taken is tried again, and after how long.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// An open file or block device of the host, locked as long as it lives (unless it was opened by [`HostFile::peek`]).
#[derive(Debug)]
pub struct HostFile {
    file: File,
    path: PathBuf,
    length_bytes: AtomicU64,
    /// Bytes of a sector for devices that move whole ones only; 1 for all others.
    unit: u64,
    writable: bool,
}

/// Which file of the host it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
    /// When the host made it, in nanoseconds since 1970: numbers of files are given again. `None` where it does not say.
    pub created: Option<u64>,
}

/// What the file system keeps under the name of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// This.
    Set(Vec<u8>),
    /// Nothing.
    Absent,
    /// It keeps no attributes, or not of this file.
    Unsupported,
}

/// What changes when somebody else writes to a file, cuts it, or puts another one in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    /// Which file it is; `None` where the system does not say.
    pub id: Option<FileId>,
    /// Bytes.
    pub length_bytes: u64,
    /// When its content last changed.
    pub modified: Option<SystemTime>,
}

/// Opens a file as `what` wants it. A block device that is mounted, or open in the same way elsewhere, is refused by the
/// system when it is opened alone.
/// With a mode (permissions of Unix) it is made, and must not be there.
fn open_as(path: &Path, what: Use, write: bool, new: Option<u32>) -> std::io::Result<File> {
    if new.is_none() {
        refuse_pipe(path)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(write).create_new(new.is_some());
    #[cfg(unix)]
    if let Some(mode) = new {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
        const O_EXCL: i32 = 0o200;
        if what == Use::Write && new.is_none() && std::fs::metadata(path)?.file_type().is_block_device() {
            options.custom_flags(O_EXCL);
        }
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        const SHARE_READ: u32 = 1;
        const SHARE_DELETE: u32 = 4;
        options.share_mode(if what == Use::Write { SHARE_READ } else { SHARE_READ | SHARE_DELETE });
    }
    #[cfg(not(any(target_os = "linux", windows)))]
    let _only_elsewhere = what;
    options.open(path)
}

/// A pipe would be waited at for ever, and holds no disk.
fn refuse_pipe(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_fifo() || kind.is_socket() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "this is a pipe, not a disk"));
        }
    }
    // Windows says of a folder that access is denied.
    #[cfg(not(unix))]
    if path.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    Ok(())
}

/// True when the system refuses a file because somebody else has it open.
fn is_in_use(e: &std::io::Error) -> bool {
    /// "The process cannot access the file because it is being used by another process."
    const ERROR_SHARING_VIOLATION: i32 = 32;
    cfg!(windows) && e.raw_os_error() == Some(ERROR_SHARING_VIOLATION)
}

fn busy(path: &Path, file: Option<&File>) -> Error {
    let e = Error::busy(Layer::Host, "in use by another program").in_file(path).advice(
        "shut the machine down, or stop the program that has the image open, and run the command again",
    );
    match file.and_then(host_lock::holders) {
        Some(holders) => e.found(holders),
        None => e,
    }
}

fn is_directory(path: &Path) -> Error {
    Error::invalid(Layer::Host, "this is a directory, not a disk image").in_file(path)
}

fn cannot_open(path: &Path, write: bool, e: std::io::Error) -> Error {
    if is_in_use(&e) {
        return busy(path, None);
    }
    if e.kind() == std::io::ErrorKind::IsADirectory {
        return is_directory(path);
    }
    if e.kind() == std::io::ErrorKind::ResourceBusy {
        let what = "the device is in use: a partition of it is mounted, or another program has it";
        return Error::busy(Layer::Host, what).in_file(path).advice("unmount its partitions first");
    }
    Error::io(if write { "cannot be opened for writing" } else { "cannot be opened" }, path, e)
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

/// Which file it is. Devices have no identity of their own: their numbers change with every start.
#[cfg(unix)]
fn id_of(_: &File, meta: &std::fs::Metadata) -> std::io::Result<Option<FileId>> {
    Ok(of_unix(meta))
}

#[cfg(unix)]
fn of_unix(meta: &std::fs::Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    meta.is_file().then(|| FileId { device: meta.dev(), inode: meta.ino(), created: created(meta) })
}

/// Which file it is: the number of its volume, and its number there, which NTFS does not give twice: it counts the uses of a
/// record. The time of making says nothing here, Windows gives it to whatever takes a name within 15 seconds. A device has none.
#[cfg(windows)]
fn id_of(file: &File, meta: &std::fs::Metadata) -> std::io::Result<Option<FileId>> {
    if !meta.is_file() {
        return Ok(None);
    }
    let found = winapi_util::file::information(file)?;
    Ok(Some(FileId { device: found.volume_serial_number(), inode: found.file_index(), created: None }))
}

/// Which file it is: not known here.
#[cfg(not(any(unix, windows)))]
fn id_of(_: &File, _: &std::fs::Metadata) -> std::io::Result<Option<FileId>> {
    Ok(None)
}

/// Which file a path leads to. Nothing is opened where the system says it without.
#[cfg(unix)]
fn there(path: &Path) -> std::io::Result<Option<FileId>> {
    Ok(of_unix(&std::fs::metadata(path)?))
}

/// Which file a path leads to: opened for nothing but asking, which the lock of a writer does not keep away.
#[cfg(not(unix))]
fn there(path: &Path) -> std::io::Result<Option<FileId>> {
    #[cfg(windows)]
    let file = std::os::windows::fs::OpenOptionsExt::access_mode(&mut OpenOptions::new(), 0).open(path)?;
    #[cfg(not(windows))]
    let file = File::open(path)?;
    let meta = file.metadata()?;
    id_of(&file, &meta)
}

/// Some file systems do not keep the time of making.
#[cfg(unix)]
fn created(meta: &std::fs::Metadata) -> Option<u64> {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
    meta.created().ok().and_then(since).map(|time| time.as_nanos() as u64)
}

impl HostFile {
    /// Opens for reading, and shares it with other readers.
    ///
    /// # Errors
    /// `Busy` when somebody writes to it; otherwise as the operating system says.
    pub fn open_read(path: &Path) -> Result<HostFile> {
        let file = open_as(path, Use::Read, false, None).map_err(|e| cannot_open(path, false, e))?;
        HostFile::locked(file, path, Use::Read, false)
    }

    /// Opens for reading without a lock, whoever has it: to see what the file is, never for its content.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn peek(path: &Path) -> Result<HostFile> {
        refuse_pipe(path).map_err(|e| cannot_open(path, false, e))?;
        let file = OpenOptions::new().read(true).open(path).map_err(|e| cannot_open(path, false, e))?;
        HostFile::measured(file, path, false)
    }

    /// Opens for reading and writing, alone. Only for `transaction/` and for files that no user has seen.
    ///
    /// # Errors
    /// `Busy` when somebody else has it open; otherwise as the operating system says.
    pub fn open_write(path: &Path) -> Result<HostFile> {
        let file = open_as(path, Use::Write, true, None).map_err(|e| cannot_open(path, true, e))?;
        HostFile::locked(file, path, Use::Write, true)
    }

    /// Makes a new, empty file, alone in it.
    ///
    /// # Errors
    /// `AlreadyExists`, also for a link of this name; otherwise as the operating system says.
    pub fn create_new(path: &Path) -> Result<HostFile> {
        HostFile::create_with_mode(path, 0o666)
    }

    /// The same, for nobody but its owner.
    ///
    /// # Errors
    /// As [`HostFile::create_new`].
    pub fn create_private(path: &Path) -> Result<HostFile> {
        HostFile::create_with_mode(path, 0o600)
    }

    /// The same, with these permissions (of Unix) less what the process takes away; no link is followed.
    ///
    /// # Errors
    /// As [`HostFile::create_new`].
    pub fn create_with_mode(path: &Path, mode: u32) -> Result<HostFile> {
        let file =
            open_as(path, Use::Write, true, Some(mode)).map_err(|e| Error::io("cannot be made", path, e))?;
        HostFile::locked(file, path, Use::Write, true)
    }

    /// Opens alone, for reading only: a plan is made that nobody will publish.
    ///
    /// # Errors
    /// As [`HostFile::open_write`].
    pub fn open_plan(path: &Path) -> Result<HostFile> {
        let file = open_as(path, Use::Write, false, None).map_err(|e| cannot_open(path, false, e))?;
        HostFile::locked(file, path, Use::Write, false)
    }

    /// Which file it is, how long it is and when it last changed, asked of the open file.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn stamp(&self) -> Result<FileStamp> {
        let meta = self.file.metadata().map_err(|e| Error::io("has no length", &self.path, e))?;
        // The content of a device is not dated; nobody else has it while we are alone.
        let modified = if meta.is_file() { meta.modified().ok() } else { None };
        let length_bytes = if meta.is_file() { meta.len() } else { self.geometry().length_bytes };
        let id = id_of(&self.file, &meta).map_err(|e| Error::io("cannot be identified", &self.path, e))?;
        Ok(FileStamp { id, length_bytes, modified })
    }

    /// True when the path that was opened still leads to this file.
    ///
    /// # Errors
    /// As the operating system says; a path that leads nowhere is no error.
    pub fn is_still_there(&self) -> Result<bool> {
        match there(&self.path) {
            Ok(id) => Ok(id == self.stamp()?.id),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("cannot be looked up", &self.path, e)),
        }
    }

    /// True for a file, false for a device.
    pub fn is_file(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.is_file())
    }

    /// An attribute that the file system keeps with the file, under every name that it has.
    pub fn attribute(&self, name: &str) -> Attribute {
        #[cfg(target_os = "linux")]
        {
            let mut value = vec![0u8; 8192];
            match rustix::fs::fgetxattr(&self.file, name, value.as_mut_slice()) {
                Ok(count) => {
                    value.truncate(count);
                    Attribute::Set(value)
                }
                Err(rustix::io::Errno::NODATA) => Attribute::Absent,
                // Not supported, or longer than we ever write: of no use either way.
                Err(_) => Attribute::Unsupported,
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _only_on_linux = name;
            Attribute::Unsupported
        }
    }

    /// Sets or removes an attribute, durably; false where the file system has none, or the user may not.
    pub fn set_attribute(&self, name: &str, value: Option<&[u8]>) -> bool {
        #[cfg(target_os = "linux")]
        {
            let done = match value {
                Some(value) => {
                    rustix::fs::fsetxattr(&self.file, name, value, rustix::fs::XattrFlags::empty())
                }
                None => rustix::fs::fremovexattr(&self.file, name),
            };
            done.is_ok() && self.file.sync_all().is_ok()
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _only_on_linux = (name, value);
            false
        }
    }

    fn locked(file: File, path: &Path, what: Use, writable: bool) -> Result<HostFile> {
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            return Err(is_directory(path));
        }
        let mut taken = host_lock::take(&file, what);
        // A program that is just being started holds copies of its parent's locks for a moment.
        for _ in 0..LOCK_TRIES {
            if !matches!(taken, Locked::Taken) {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
            taken = host_lock::take(&file, what);
        }
        match taken {
            Locked::Held => {}
            Locked::Taken => return Err(busy(path, Some(&file))),
            // Some network file systems have no locks; reading does not need one.
            Locked::Failed(_) if what == Use::Read => {}
            Locked::Failed(e) => return Err(Error::io("cannot be locked", path, e)),
        }
        HostFile::measured(file, path, writable)
    }

    fn measured(mut file: File, path: &Path, writable: bool) -> Result<HostFile> {
        if is_raw_device(path) {
            let reads = |offset: u64, bytes: usize| {
                read_some(&file, offset, &mut vec![0; bytes]).is_ok_and(|count| count == bytes)
            };
            let unit = if reads(512, 512) { 512 } else { 4096 };
            let length = aligned::length_by_trying(unit, |offset| reads(offset, unit as usize));
            let length_bytes = AtomicU64::new(length);
            return Ok(HostFile { file, path: path.to_path_buf(), length_bytes, unit, writable });
        }
        // Block devices have no length in their metadata; the end of a seek is right for both.
        let length = file.seek(SeekFrom::End(0)).map_err(|e| Error::io("has no length", path, e))?;
        let length_bytes = AtomicU64::new(length);
        Ok(HostFile { file, path: path.to_path_buf(), length_bytes, unit: 1, writable })
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
        self.check_writable()?;
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

    fn check_writable(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(Error::invalid(Layer::Host, "opened for reading only").in_file(&self.path))
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

    #[cfg(target_os = "linux")]
    fn forget_cached(&self, range: Range<u64>) -> Result<()> {
        use rustix::fs::{Advice, fadvise};
        // Whole pages only: a part of one would stay.
        let (start, end) = (range.start - range.start % 4096, range.end.next_multiple_of(4096));
        let length = std::num::NonZeroU64::new(end - start);
        fadvise(&self.file, start, length, Advice::DontNeed)
            .map_err(|e| Error::io("cannot be read from the medium", &self.path, e.into()))
    }

    fn set_length(&self, length_bytes: u64) -> Result<()> {
        self.check_writable()?;
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

    /// Programs that know nothing of us: those that do not share writing are seen, and see us.
    #[cfg(windows)]
    #[test]
    fn share_modes_keep_programs_apart() {
        use std::os::windows::fs::OpenOptionsExt;
        const READ: u32 = 1;
        const WRITE: u32 = 2;
        const DELETE: u32 = 4;
        const ALL: u32 = READ | WRITE | DELETE;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        drop(HostFile::create_new(&path).unwrap());
        let open = |write: bool, share: u32| {
            OpenOptions::new().read(true).write(write).share_mode(share).open(&path)
        };
        let busy = |taken: Result<HostFile>| assert_eq!(taken.unwrap_err().kind(), ErrorKind::Busy);
        // A machine that runs writes and lets others read; a backup reads and lets nobody write.
        let machine = open(true, READ).unwrap();
        busy(HostFile::open_read(&path));
        busy(HostFile::open_write(&path));
        HostFile::peek(&path).unwrap();
        drop(machine);
        let backup = open(false, READ).unwrap();
        busy(HostFile::open_write(&path));
        HostFile::open_read(&path).unwrap();
        drop(backup);
        // And the other way.
        let writer = HostFile::open_write(&path).unwrap();
        assert!(open(true, ALL).is_err() && std::fs::remove_file(&path).is_err());
        assert!(std::fs::rename(&path, dir.path().join("other")).is_err());
        drop(writer);
        let reader = HostFile::open_read(&path).unwrap();
        assert!(open(true, ALL).is_err());
        drop(reader);
        open(true, READ).unwrap();
    }

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
        let pipe = dir.path().join("pipe");
        if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|done| done.success()) {
            assert!(HostFile::open_read(&pipe).is_err() && HostFile::open_write(&pipe).is_err());
            assert!(HostFile::peek(&pipe).is_err(), "nobody waits for the other end");
        }
    }
}
