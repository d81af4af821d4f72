//! What support people ask for, taken out of a disk: which files, and into what.
//!
//! * [`Profile`], [`files`]: the lists, and the files of a disk that fit them, in a fixed order
//! * [`Sink`]: a zip archive ([`zip::ZipWriter`]) or a folder, each entry with its sha256 while it is written
//!
//! The same disk gives the same archive, byte for byte: order, times and names are those of the disk.

mod lists;
pub mod zip;

pub use lists::{File, Profile, files};

use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::{OutputFile, OutputRules};
use vmrescue_fs::FileSystem;
use vmrescue_fs::NodeId;

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

/// What the manifest says of an entry.
#[derive(Debug, Clone, Serialize)]
pub struct Taken {
    /// Name in the archive.
    pub name: String,
    /// Path in the guest; `None` for what the tool made.
    pub source: Option<String>,
    /// Bytes.
    pub size: u64,
    /// sha256 of these bytes.
    pub sha256: String,
    /// Modified, UTC.
    pub modified: Option<String>,
    /// Created, UTC.
    pub created: Option<String>,
    /// Why it is not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where the files go.
pub enum Sink {
    /// One archive.
    Zip(Box<zip::ZipWriter>),
    /// A folder, and how files are made in it.
    Folder(PathBuf, OutputRules),
}

impl Sink {
    /// A new archive when the name ends in `.zip`, else a new or empty folder.
    ///
    /// # Errors
    /// `AlreadyExists` when there is something; of the host.
    pub fn create(path: &Path, rules: &OutputRules) -> Result<Sink> {
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("zip")) {
            return Ok(Sink::Zip(Box::new(zip::ZipWriter::create(path, rules)?)));
        }
        rules.create_folder(path)?;
        let mut inside = std::fs::read_dir(path).map_err(|e| Error::io("cannot be read", path, e))?;
        if inside.next().is_some() {
            let there =
                Error::new(vmrescue_base::ErrorKind::AlreadyExists, Layer::Host, "the folder is not empty");
            return Err(there.in_file(path).advice("name a new folder, or a file ending in .zip"));
        }
        Ok(Sink::Folder(path.to_path_buf(), rules.clone()))
    }

    /// Copies a file of the guest. What keeps it from being read whole is in [`Taken::error`].
    ///
    /// # Errors
    /// Of writing the archive or folder.
    pub fn copy(&mut self, fs: &dyn FileSystem, file: &File) -> Result<Taken> {
        let mut reader = Guest { fs, node: file.node, offset: 0, length: file.size_bytes, error: None };
        let (size, sha256) =
            self.put(&file.name, file.size_bytes, file.modified, &mut |buf| reader.next(buf))?;
        Ok(Taken {
            name: file.name.clone(),
            source: Some(file.path.clone()),
            size,
            sha256,
            modified: Some(file.modified.to_string()),
            created: Some(file.created.to_string()),
            error: reader.error,
        })
    }

    /// Adds what the tool made.
    ///
    /// # Errors
    /// Of writing the archive or folder.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<Taken> {
        let mut rest = bytes;
        // A fixed time: the archive shall not depend on when it was made.
        let (size, sha256) = self.put(name, bytes.len() as u64, FileTime::default(), &mut |buf| {
            let count = rest.len().min(buf.len());
            buf[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            count
        })?;
        Ok(Taken {
            name: name.into(),
            source: None,
            size,
            sha256,
            modified: None,
            created: None,
            error: None,
        })
    }

    fn put(
        &mut self,
        name: &str,
        size: u64,
        time: FileTime,
        read: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<(u64, String)> {
        let mut hash = Sha256::new();
        let mut buf = vec![0; PIECE];
        let mut total = 0u64;
        let mut folder_file = match self {
            Sink::Zip(zip) => {
                zip.begin(name, size, time)?;
                None
            }
            Sink::Folder(folder, rules) => {
                let path = name.split('/').fold(folder.clone(), |path, part| path.join(part));
                if let Some(parent) = path.parent() {
                    rules.create_folder(parent)?;
                }
                Some(rules.create(&path)?)
            }
        };
        loop {
            let count = read(&mut buf).min(buf.len());
            let piece = &buf[..count];
            if count == 0 {
                break;
            }
            total += count as u64;
            hash.update(piece);
            match (&mut *self, &mut folder_file) {
                (Sink::Folder(..), Some(file)) => {
                    file.write_all(piece).map_err(|e| Error::io("cannot be written", file.path(), e))?;
                }
                (Sink::Zip(zip), _) => zip.write(piece)?,
                (Sink::Folder(..), None) => {}
            }
        }
        if let Sink::Zip(zip) = self {
            zip.end()?;
        }
        folder_file.map_or(Ok(()), OutputFile::finish_quickly)?;
        Ok((total, vmrescue_base::text::hex(&hash.finalize())))
    }

    /// Writes what belongs at the end.
    ///
    /// # Errors
    /// Of writing.
    pub fn finish(self) -> Result<()> {
        match self {
            Sink::Zip(zip) => zip.finish(),
            Sink::Folder(..) => Ok(()),
        }
    }
}

/// Reads a file of the guest piece by piece.
struct Guest<'a> {
    fs: &'a dyn FileSystem,
    node: NodeId,
    offset: u64,
    length: u64,
    error: Option<String>,
}

impl Guest<'_> {
    fn next(&mut self, buf: &mut [u8]) -> usize {
        // A file does not grow while an image is read: what is beyond the length that was announced is damage.
        let room = (self.length - self.offset).min(buf.len() as u64) as usize;
        if room == 0 || self.error.is_some() {
            return 0;
        }
        match self.fs.read(self.node, "", self.offset, &mut buf[..room]) {
            Ok(count) => {
                let count = count.min(room);
                if count == 0 {
                    self.error = Some(format!("the file ends at {} of {} bytes", self.offset, self.length));
                }
                self.offset += count as u64;
                count
            }
            Err(e) => {
                self.error = Some(e.to_string());
                0
            }
        }
    }
}
