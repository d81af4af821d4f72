//! Files that are made for the user: reports, exports, copies of files of the guest, new disks.
//!
//! All of them go one way. [`OutputRules`] says what may be replaced: nothing, unless the user asks for it, and never the
//! image, its parents or its state, whatever name leads to them. [`OutputFile`] is written under a temporary name in the
//! same folder, which no link can stand in for, and gets its name when it is whole; dropped earlier, it is removed.
//! Content of a guest is at most as open to others as the image is ([`OutputRules::of_image`]).
//!
//! Missing: on Windows files take the permissions of their folder.

use super::host_meta::{FileId, access, folder_with_mode, is_stream, set_mode};
use super::{HostFile, WritableDevice};
use std::fs::{File, Metadata};
use std::io::{ErrorKind as IoKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};

/// How open files are for which nothing else is said.
const OPEN_MODE: u32 = 0o666;
/// How the names of folders end that hold the way back to what an image was.
const STATE_EXTENSION: &str = "vmrescue";
/// Age at which a temporary file that nobody holds is taken for one that a killed program left.
const STALE_SECONDS: u64 = 60;

/// Temporary files that are not finished: what [`remove_unfinished`] takes away.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// What may be made, and how open it is to others.
#[derive(Debug, Clone)]
pub struct OutputRules {
    force: bool,
    files: Vec<(FileId, String)>,
    folders: Vec<(FileId, String)>,
    mode: u32,
    group: Option<u32>,
}

impl OutputRules {
    /// New files only; with `force`, files that are there may be replaced.
    pub fn new(force: bool) -> OutputRules {
        OutputRules { force, files: Vec::new(), folders: Vec::new(), mode: OPEN_MODE, group: None }
    }

    /// For content of the guest in `image`: the image is never replaced, and what is made is as private as the image.
    ///
    /// # Errors
    /// Of the host.
    pub fn of_image(mut self, image: &Path) -> Result<OutputRules> {
        let metadata = std::fs::metadata(image).map_err(|e| Error::io("cannot open the image", image, e))?;
        self.restrict(&metadata);
        self.protect(image, "this is the image itself")
    }

    /// The same for a parent of the image: part of the content is its.
    ///
    /// # Errors
    /// Of the host.
    pub fn of_parent(mut self, parent: &Path) -> Result<OutputRules> {
        let metadata =
            std::fs::metadata(parent).map_err(|e| Error::io("cannot open the parent", parent, e))?;
        self.restrict(&metadata);
        self.protect(parent, "this is a parent of the image")
    }

    /// At most as open as a file of this kind.
    fn restrict(&mut self, metadata: &Metadata) {
        let (mode, group) = access(metadata);
        if self.group.is_some_and(|own| Some(own) != group) {
            // Files of different groups: what one group may see, the other may not.
            self.mode &= !0o070;
        }
        self.mode = self.mode & mode | 0o600;
        self.group = group;
    }

    /// A file that is never replaced, and why.
    ///
    /// # Errors
    /// Of the host; a file that is not there needs no protection.
    pub fn protect(mut self, path: &Path, why: &str) -> Result<OutputRules> {
        match FileId::of(path) {
            Ok(id) => self.files.push((id, why.into())),
            Err(e) if e.kind() == IoKind::NotFound => {}
            Err(e) => return Err(Error::io("cannot be looked at", path, e)),
        }
        Ok(self)
    }

    /// A folder in which nothing is made or replaced, and why.
    ///
    /// # Errors
    /// As [`OutputRules::protect`].
    pub fn protect_folder(mut self, path: &Path, why: &str) -> Result<OutputRules> {
        match FileId::of(path) {
            Ok(id) => self.folders.push((id, why.into())),
            Err(e) if e.kind() == IoKind::NotFound => {}
            Err(e) => return Err(Error::io("cannot be looked at", path, e)),
        }
        Ok(self)
    }

    /// Refuses `path` when nothing may be made there; for what is made by other means, such as an archive.
    ///
    /// # Errors
    /// `Refused`, `AlreadyExists`; of the host.
    pub fn check(&self, path: &Path) -> Result<()> {
        let seen = |path: &Path, e| Error::io("cannot be looked at", path, e);
        let refused = |why: &str| {
            Error::refused(Layer::Host, why.to_string())
                .in_file(path)
                .advice("nothing was written; name another file")
        };
        // Through links: where the bytes would be lost.
        match FileId::of(path) {
            Ok(id) => {
                if let Some((_, why)) = self.files.iter().find(|(own, _)| *own == id) {
                    return Err(refused(why));
                }
            }
            Err(e) if e.kind() == IoKind::NotFound => {}
            Err(e) => return Err(seen(path, e)),
        }
        self.check_folders(folder_of(path)).map_err(|e| e.in_file(path))?;
        if path.extension().is_some_and(|end| end == STATE_EXTENSION) {
            return Err(refused("this name belongs to the history of an image"));
        }
        if !folder_of(path).is_dir() {
            return Err(Error::not_found(Layer::Host, "the folder for the file does not exist").in_file(path));
        }
        // A link is a thing of its own here: it would be replaced, not what it leads to.
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == IoKind::NotFound => Ok(()),
            Err(e) => Err(seen(path, e)),
            Ok(there) if there.is_dir() => Err(Error::invalid(Layer::Host, "this is a folder").in_file(path)),
            Ok(_) if !self.force => {
                Err(exists(path).advice("name another file, or add --force to replace it"))
            }
            Ok(there) if there.is_file() => {
                // Whoever has it open, such as a machine that runs from it, would go on with a file without a name.
                HostFile::open_plan(path).map(drop)
            }
            Ok(there) if there.is_symlink() => Ok(()),
            Ok(_) => Err(refused("this is a device of this machine, not a file")),
        }
    }

    /// Refuses a folder that is, or lies in, a protected one or the state of an image, whatever links lead there.
    fn check_folders(&self, folder: &Path) -> Result<()> {
        // The part of the path that is there already.
        let mut there = folder;
        let found = loop {
            match there.canonicalize() {
                Ok(found) => break found,
                Err(e) if e.kind() == IoKind::NotFound && there.parent().is_some() => {
                    there = folder_of(there);
                }
                Err(e) => return Err(Error::io("cannot be looked at", there, e)),
            }
        };
        for above in found.ancestors() {
            if above.extension().is_some_and(|end| end == STATE_EXTENSION) {
                return Err(Error::refused(Layer::Host, "this folder holds the history of an image")
                    .in_file(folder)
                    .advice("nothing was written; name another file"));
            }
            let id = FileId::of(above).map_err(|e| Error::io("cannot be looked at", above, e))?;
            if let Some((_, why)) = self.folders.iter().find(|(own, _)| *own == id) {
                return Err(Error::refused(Layer::Host, why.clone())
                    .in_file(folder)
                    .advice("nothing was written; name another file"));
            }
        }
        Ok(())
    }

    /// Begins a file that will be `path`.
    ///
    /// # Errors
    /// As [`OutputRules::check`]; of the host.
    pub fn create(&self, path: &Path) -> Result<OutputFile> {
        if !is_stream(path) {
            remove_stale(path);
        }
        self.create_one_of_many(path)
    }

    /// The same for one of many files of a folder: what a killed program left there is not looked for, which would read the
    /// whole folder for each of them.
    ///
    /// # Errors
    /// As [`OutputRules::create`].
    pub fn create_one_of_many(&self, path: &Path) -> Result<OutputFile> {
        if is_stream(path) {
            // A pipe or a terminal holds nothing that could be lost.
            let opened = File::options().write(true).open(path);
            let file = opened.map_err(|e| Error::io("cannot be opened for writing", path, e))?;
            return Ok(OutputFile { path: path.to_path_buf(), sink: Sink::Stream(file), force: true });
        }
        self.check(path)?;
        let mut name = std::ffi::OsString::from(".");
        name.push(
            path.file_name().ok_or_else(|| Error::invalid(Layer::Host, "invalid file name").in_file(path))?,
        );
        name.push(format!(".{}.part", vmrescue_base::guid::Guid::random()));
        let part = path.with_file_name(name);
        let host = HostFile::create_with_mode(&part, self.mode)?;
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(part.clone());
        let output = OutputFile {
            path: path.to_path_buf(),
            sink: Sink::Part { host: Arc::new(host), part, position: 0 },
            force: self.force,
        };
        output.close_group(self)?;
        Ok(output)
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// As [`OutputRules::create`].
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = self.create(path)?;
        file.write_all(bytes).map_err(|e| Error::io("cannot be written", path, e))?;
        file.finish()
    }

    /// Makes a folder, with those above it, as private as files are.
    ///
    /// # Errors
    /// Of the host; `Refused` inside a protected folder.
    pub fn create_folder(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.check_folders(path)?;
        folder_with_mode(path, self.mode | (self.mode & 0o444) >> 2)
            .map_err(|e| Error::io("cannot make the folder", path, e))
    }
}

enum Sink {
    Part { host: Arc<HostFile>, part: PathBuf, position: u64 },
    Stream(File),
}

/// A file under construction. Dropping it without [`OutputFile::finish`] removes it.
pub struct OutputFile {
    path: PathBuf,
    sink: Sink,
    force: bool,
}

impl OutputFile {
    /// The name that it will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file as a device, for writers of containers; `None` for a pipe.
    pub fn device(&self) -> Option<Arc<HostFile>> {
        match &self.sink {
            Sink::Part { host, .. } => Some(Arc::clone(host)),
            Sink::Stream(_) => None,
        }
    }

    /// The group of the image may see what is made only when it is the group of what is made.
    fn close_group(&self, rules: &OutputRules) -> Result<()> {
        let Sink::Part { part, .. } = &self.sink else { return Ok(()) };
        let failed = |e| Error::io("cannot be made private", part, e);
        let (mode, group) = access(&std::fs::symlink_metadata(part).map_err(failed)?);
        if rules.group.is_some() && rules.group != group && mode & 0o070 != 0 {
            // Members of another group are others to the image.
            set_mode(part, mode & !0o070 | (mode & 0o007 & rules.mode) << 3).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// Of the host, and `AlreadyExists` when a file of this name appeared meanwhile; then the new file is gone.
    pub fn finish(self) -> Result<()> {
        if let Sink::Part { host, .. } = &self.sink {
            host.flush()?;
        }
        let path = self.path.clone();
        self.finish_quickly()?;
        sync_folder_of(&path)
    }

    /// The same for one of many files: it has its name when this returns, and may be lost with the power.
    ///
    /// # Errors
    /// As [`OutputFile::finish`].
    pub fn finish_quickly(mut self) -> Result<()> {
        match &mut self.sink {
            Sink::Stream(file) => file.flush().map_err(|e| Error::io("cannot be written", &self.path, e)),
            Sink::Part { part, .. } => {
                let named =
                    if self.force { std::fs::rename(&*part, &self.path) } else { name_new(part, &self.path) };
                named.map_err(|e| match e.kind() {
                    IoKind::AlreadyExists => {
                        exists(&self.path).advice("a file of this name appeared meanwhile")
                    }
                    _ => Error::io("the new file cannot be named", &self.path, e),
                })?;
                forget(part);
                *part = PathBuf::new();
                Ok(())
            }
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        match &mut self.sink {
            Sink::Stream(file) => file.write(data),
            Sink::Part { host, position, .. } => {
                host.write_at(*position, data).map_err(std::io::Error::other)?;
                *position += data.len() as u64;
                Ok(data.len())
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.sink {
            Sink::Stream(file) => file.flush(),
            Sink::Part { .. } => Ok(()),
        }
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        match (&mut self.sink, to) {
            (Sink::Part { position, .. }, SeekFrom::Start(at)) => {
                *position = at;
                Ok(at)
            }
            (Sink::Part { position, .. }, SeekFrom::Current(by)) => {
                *position = position
                    .checked_add_signed(by)
                    .ok_or_else(|| std::io::Error::from(IoKind::InvalidInput))?;
                Ok(*position)
            }
            _ => Err(IoKind::Unsupported.into()),
        }
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Sink::Part { part, .. } = &self.sink
            && !part.as_os_str().is_empty()
        {
            forget(part);
            // What cannot be removed stays under a name that says what it is.
            let _removed = std::fs::remove_file(part);
        }
    }
}

impl std::fmt::Debug for OutputFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OutputFile({})", self.path.display())
    }
}

/// Removes every temporary file that is not finished: for the moment before this process ends at the user's wish.
pub fn remove_unfinished() {
    for part in UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // The process ends; there is nobody to tell.
        let _removed = std::fs::remove_file(part);
    }
}

fn forget(part: &Path) {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|own| own != part);
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, Layer::Host, "the file exists already").in_file(path)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what a killed program left of the same file: temporary files of its name that nobody holds.
fn remove_stale(path: &Path) {
    // Only tidying up: whatever fails here leaves a file that is in nobody's way.
    let Ok(entries) = std::fs::read_dir(folder_of(path)) else { return };
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".part")) else {
            continue;
        };
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
        let old = age.is_some_and(|age| age.as_secs() > STALE_SECONDS);
        if rest.len() == 36 && metadata.is_file() && old && HostFile::open_plan(&entry.path()).is_ok() {
            let _removed = std::fs::remove_file(entry.path());
        }
    }
}

/// Gives a file a name that no other file has.
fn name_new(part: &Path, path: &Path) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, part, CWD, path, RenameFlags::NOREPLACE) {
            // Some file systems cannot.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {}
            done => return done.map_err(Into::into),
        }
    }
    match std::fs::hard_link(part, path) {
        Ok(()) => std::fs::remove_file(part),
        Err(e) if e.kind() == IoKind::AlreadyExists => Err(e),
        // Without links there is a moment between looking and naming; the folder's file system has nothing better.
        Err(_) if std::fs::symlink_metadata(path).is_ok() => Err(IoKind::AlreadyExists.into()),
        Err(_) => std::fs::rename(part, path),
    }
}

/// Makes the name of a new file durable; only Unix has (and needs) this.
fn sync_folder_of(path: &Path) -> Result<()> {
    if cfg!(unix) {
        let folder = folder_of(path);
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| Error::io("the folder cannot be made durable", folder, e))?;
    }
    Ok(())
}
