//! A folder with the state of one image.
//!
//! Every file of the state is written whole, made durable, and only then given its name, so that a reader sees the
//! old file or the new one. The journal of a session grows; its parts carry their own checksums. Folder and files are
//! for their owner alone: they hold what the image holds. The trait is there for the crash tests, which keep the state in
//! memory.

use std::fs;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_block::{Disk, HostFile, create_private, create_private_folder, make_private};

/// Writes the content of a new file of the state.
pub type Content<'a> = dyn FnMut(&mut dyn Write) -> Result<()> + 'a;

/// A folder with named files that appear whole or not at all.
pub trait Place {
    /// Names of all files. A folder that is not there has none.
    ///
    /// # Errors
    /// Of the host.
    fn names(&self) -> Result<Vec<String>>;
    /// The content of a file.
    ///
    /// # Errors
    /// `NotFound`; otherwise of the host.
    fn open(&self, name: &str) -> Result<Disk>;
    /// Makes or replaces a file; durable when this returns.
    ///
    /// # Errors
    /// Of the host; then the old file is still there.
    fn write(&self, name: &str, content: &mut Content<'_>) -> Result<()>;
    /// As [`Place::write`], for a file that must not be there yet.
    ///
    /// # Errors
    /// `AlreadyExists`; of the host.
    fn create(&self, name: &str, content: &mut Content<'_>) -> Result<()>;
    /// Writes at the end of a file, which is at `offset`: what a crash left behind it is cut off. Durable when this returns,
    /// and then the new end.
    ///
    /// # Errors
    /// Of the host; then the file is as long as it was.
    fn append(&self, name: &str, offset: u64, content: &mut Content<'_>) -> Result<u64>;
    /// Writes a few bytes at the end of a file, without waiting until they are durable.
    ///
    /// # Errors
    /// Of the host.
    fn note(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Makes or replaces a few bytes that are only a help, without waiting: after a crash the file may be old, absent or
    /// torn.
    ///
    /// # Errors
    /// Of the host.
    fn hint(&self, name: &str, bytes: &[u8]) -> Result<()>;
    /// Gives a file another name.
    ///
    /// # Errors
    /// Of the host.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Removes a file; its length.
    ///
    /// # Errors
    /// Of the host.
    fn remove(&self, name: &str) -> Result<u64>;
}

/// A folder of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    dir: PathBuf,
}

impl FilePlace {
    /// The state in a folder; nothing is made yet.
    pub fn at(dir: PathBuf) -> FilePlace {
        FilePlace { dir }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives the folder another name, durably; false when something of that name is there.
    pub(super) fn move_to(&self, target: &Path) -> Result<bool> {
        // A folder that is not empty is never replaced, and one that somebody just made is not either.
        if fs::symlink_metadata(target).is_ok() || fs::rename(&self.dir, target).is_err() {
            return match fs::symlink_metadata(target) {
                Ok(meta) if meta.is_dir() => Ok(false),
                Ok(_) => Err(Error::new(
                    ErrorKind::AlreadyExists,
                    Layer::Transaction,
                    "the state folder cannot be made",
                )
                .in_file(target)
                .advice("a file is in its way: move it, or name another folder with --state-dir")),
                Err(e) => Err(Error::io("the state folder cannot be made", target, e)),
            };
        }
        FilePlace::sync_names(parent_of(target))?;
        Ok(true)
    }

    /// Makes the names in `dir` durable; only Unix has (and needs) this.
    fn sync_names(dir: &Path) -> Result<()> {
        if cfg!(unix) {
            let opened = fs::File::open(dir).and_then(|file| file.sync_all());
            opened.map_err(|e| Error::io("the state folder cannot be made durable", dir, e))?;
        }
        Ok(())
    }

    /// Makes the folder, and its name durable in the folder that holds it.
    fn make(&self) -> Result<()> {
        let made = |e| {
            Error::io("the state folder cannot be made", &self.dir, e)
                .advice("name another folder with --state-dir")
        };
        let parent = parent_of(&self.dir);
        make_folders(parent)?;
        match create_private_folder(&self.dir) {
            Ok(()) => FilePlace::sync_names(parent),
            // Made by version 0.1 for everybody to read.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => make_private(&self.dir).map_err(made),
            Err(e) => Err(made(e)),
        }
    }

    fn write_as(&self, name: &str, content: &mut Content<'_>, new: bool) -> Result<()> {
        self.make()?;
        let (temporary, path) = (self.dir.join("new.part"), self.dir.join(name));
        let failed = |e| Error::io("the state cannot be written", &temporary, e);
        match fs::remove_file(&temporary) {
            // What a crash left.
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        let mut written = || -> Result<()> {
            let file = create_private(&temporary).map_err(failed)?;
            let mut out = BufWriter::with_capacity(1 << 20, file);
            content(&mut out)?;
            let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
            file.sync_all().map_err(failed)?;
            drop(file);
            // The image is locked: nobody else writes here.
            if new && fs::symlink_metadata(&path).is_ok() {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    Layer::Transaction,
                    "the file is there already",
                )
                .in_file(&path));
            }
            fs::rename(&temporary, &path).map_err(failed)
        };
        if let Err(e) = written() {
            // Nobody needs the rest; that it stays would be no loss.
            let _removed = fs::remove_file(&temporary);
            return Err(e);
        }
        FilePlace::sync_names(&self.dir)
    }
}

impl Place for FilePlace {
    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("the state folder cannot be read", &self.dir, e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("the state folder cannot be read", &self.dir, e))?;
            // Our own names are plain text.
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> Result<Disk> {
        Ok(Disk::new(Arc::new(HostFile::peek(&self.dir.join(name))?)))
    }

    fn write(&self, name: &str, content: &mut Content<'_>) -> Result<()> {
        self.write_as(name, content, false)
    }

    fn create(&self, name: &str, content: &mut Content<'_>) -> Result<()> {
        self.write_as(name, content, true)
    }

    fn append(&self, name: &str, offset: u64, content: &mut Content<'_>) -> Result<u64> {
        let path = self.dir.join(name);
        let failed = |e| Error::io("the journal cannot be written", &path, e);
        let mut file = fs::OpenOptions::new().write(true).open(&path).map_err(failed)?;
        file.set_len(offset).and_then(|()| file.seek(SeekFrom::Start(offset))).map_err(failed)?;
        let mut written = || -> Result<u64> {
            let mut out = BufWriter::with_capacity(1 << 20, &mut file);
            content(&mut out)?;
            out.flush().map_err(failed)?;
            drop(out);
            file.sync_data().map_err(failed)?;
            file.stream_position().map_err(failed)
        };
        written().inspect_err(|_| {
            // What was written of it is cut off by the next try too, and no reader counts it.
            let _cut = fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(offset));
        })
    }

    fn note(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        let failed = |e| Error::io("the journal cannot be written", &path, e);
        let mut file = fs::OpenOptions::new().write(true).open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(bytes)).map_err(failed)
    }

    fn hint(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        let failed = |e| Error::io("the state cannot be written", &path, e);
        let mut file = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => fs::OpenOptions::new().write(true).open(&path).map_err(failed)?,
            _ => create_private(&path).map_err(failed)?,
        };
        file.write_all(bytes).and_then(|()| file.set_len(bytes.len() as u64)).map_err(failed)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.dir.join(from), self.dir.join(to));
        fs::rename(&from, &to).map_err(|e| Error::io("cannot be renamed", &from, e))?;
        FilePlace::sync_names(&self.dir)
    }

    fn remove(&self, name: &str) -> Result<u64> {
        let path = self.dir.join(name);
        let failed = |e| Error::io("cannot be removed", &path, e);
        let length = fs::symlink_metadata(&path).map_err(failed)?.len();
        fs::remove_file(&path).map_err(failed)?;
        Ok(length)
    }
}

/// The folder that holds a file.
fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder with all above it, each name durable.
fn make_folders(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent_of(dir);
    if parent != dir {
        make_folders(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => FilePlace::sync_names(parent),
        // Another process was faster.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(Error::io("the folder for the state cannot be made", dir, e)),
    }
}

/// Makes the name of a new file durable.
///
/// # Errors
/// Of the host.
pub fn sync_folder(file: &Path) -> Result<()> {
    FilePlace::sync_names(parent_of(file))
}

/// Makes or replaces a small file: the old one or the new one is there, never a part; durable when this returns.
///
/// # Errors
/// Of the host.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, &|path| fs::File::create_new(path))
}

/// As [`write_durably`], for nobody but the owner.
///
/// # Errors
/// As [`write_durably`].
pub fn write_privately(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, &|path| create_private(path))
}

fn replace(path: &Path, bytes: &[u8], make: &dyn Fn(&Path) -> std::io::Result<fs::File>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(name);
    let failed = |e| Error::io("cannot be written", &temporary, e);
    match fs::remove_file(&temporary) {
        // What a crash left, or a link that somebody laid there: it is not followed.
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let mut file = make(&temporary).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    if let Err(e) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The error counts; what stays is in nobody's way.
        let _removed = fs::remove_file(&temporary);
        return Err(failed(e));
    }
    sync_folder(path)
}

/// The whole of a small file; `None` when it is not there.
pub(super) fn read_small(place: &dyn Place, name: &str) -> Result<Option<Vec<u8>>> {
    match place.open(name) {
        Ok(disk) => disk.read_vec(0, disk.len() as usize).map(Some),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
