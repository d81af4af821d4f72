//! Where the state of an image lies: `<image>.vmrescue/`, or a folder of the user's choice.
//!
//! Every file of the state is written whole, made durable, and only then given its name, so that a reader sees the
//! old file or the new one. The trait is there for the crash tests, which keep the state in memory.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Result};
use vmrescue_block::{Disk, HostFile};

/// Writes the content of a new file of the state.
pub type Content<'a> = dyn FnMut(&mut dyn Write) -> Result<()> + 'a;

/// A folder with named files that appear whole or not at all.
pub trait Place {
    /// Names of all files, in order. A folder that is not there has none.
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
}

/// The state folder of `image`: beside it, or in `state_dir` under the image's name.
pub fn state_dir_of(image: &Path, state_dir: Option<&Path>) -> PathBuf {
    let mut name = image.file_name().unwrap_or(image.as_os_str()).to_os_string();
    name.push(".vmrescue");
    match state_dir {
        Some(dir) => dir.join(name),
        None => image.with_file_name(name),
    }
}

/// A folder of the host.
#[derive(Debug, Clone)]
pub struct FilePlace {
    dir: PathBuf,
}

impl FilePlace {
    /// The place of `image`'s state; nothing is made yet.
    pub fn new(image: &Path, state_dir: Option<&Path>) -> FilePlace {
        FilePlace { dir: state_dir_of(image, state_dir) }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the names in `dir` durable; only Unix has (and needs) this.
    fn sync_names(dir: &Path) -> Result<()> {
        if cfg!(unix) {
            let opened = fs::File::open(dir).and_then(|file| file.sync_all());
            opened.map_err(|e| Error::io("the state folder cannot be made durable", dir, e))?;
        }
        Ok(())
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
            names.extend(entry.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str) -> Result<Disk> {
        Ok(Disk::new(Arc::new(HostFile::open_read(&self.dir.join(name))?)))
    }

    fn write(&self, name: &str, content: &mut Content<'_>) -> Result<()> {
        if let Some(parent) = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)
                .map_err(|e| Error::io("the folder for the state cannot be made", parent, e))?;
        }
        if let Err(e) = fs::create_dir(&self.dir) {
            if e.kind() != std::io::ErrorKind::AlreadyExists {
                return Err(Error::io("the state folder cannot be made", &self.dir, e)
                    .advice("name another folder with --state-dir"));
            }
        } else if let Some(parent) = self.dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            FilePlace::sync_names(parent)?;
        }
        let (temporary, path) = (self.dir.join(format!("{name}.part")), self.dir.join(name));
        let failed = |e| Error::io("the state cannot be written", &temporary, e);
        let file = fs::File::create(&temporary).map_err(failed)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        content(&mut out)?;
        let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        drop(file);
        fs::rename(&temporary, &path).map_err(failed)?;
        FilePlace::sync_names(&self.dir)
    }
}

/// Makes the name of a new file durable.
///
/// # Errors
/// Of the host.
pub fn sync_folder(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    FilePlace::sync_names(folder.unwrap_or(Path::new(".")))
}

/// Makes or replaces a small file: the old one or the new one is there, never a part; durable when this returns.
///
/// # Errors
/// Of the host.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(name);
    let failed = |e| Error::io("cannot be written", &temporary, e);
    let mut file = fs::File::create(&temporary).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    drop(file);
    fs::rename(&temporary, path).map_err(failed)?;
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
