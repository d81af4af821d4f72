//! A new file that carries its name only when it is whole: written beside, made durable, renamed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_block::{DiskMut, HostFile};

/// A file under construction. Dropping it without [`NewFile::finish`] removes it.
pub struct NewFile {
    path: PathBuf,
    part: PathBuf,
    file: DiskMut,
    finished: bool,
}

impl NewFile {
    /// Begins a file that will be `path`.
    ///
    /// # Errors
    /// `AlreadyExists`; `Refused` when another program is writing the same file.
    pub fn create(path: &Path) -> Result<NewFile> {
        if path.exists() {
            return Err(Error::new(ErrorKind::AlreadyExists, Layer::Host, "the file exists already")
                .in_file(path)
                .advice("name another file, or remove this one first"));
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or(path.as_os_str()));
        name.push(".part");
        let part = path.with_file_name(name);
        let made = match HostFile::create_new(&part) {
            // What an earlier run left; a lock would show that it still runs.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let old = HostFile::open_write(&part)?;
                vmrescue_block::WritableDevice::set_length(&old, 0)?;
                old
            }
            made => made?,
        };
        Ok(NewFile { path: path.to_path_buf(), part, file: DiskMut::new(Arc::new(made)), finished: false })
    }

    /// The file, for container writers.
    pub fn file(&self) -> &DiskMut {
        &self.file
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// Of the host; then the file is gone.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush()?;
        if self.path.exists() {
            return Err(Error::new(ErrorKind::AlreadyExists, Layer::Host, "the file appeared meanwhile")
                .in_file(&self.path));
        }
        std::fs::rename(&self.part, &self.path)
            .map_err(|e| Error::io("the new file cannot be named", &self.path, e))?;
        self.finished = true;
        vmrescue_transaction::sync_folder(&self.path)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            let _removed = std::fs::remove_file(&self.part);
        }
    }
}
