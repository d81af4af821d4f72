//! The second reader of FAT: the crate `fatfs`, which shares no code with our own. It only reads here.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom, Write};
use vmrescue_base::error::Result;
use vmrescue_block::Disk;
use vmrescue_fs::{FileSystem, NodeId};

/// Bytes that are compared at once.
const PIECE_BYTES: usize = 256 << 10;

/// A disk with a position, as the crate wants it.
pub(super) struct Positioned {
    disk: Disk,
    position: u64,
}

impl Read for Positioned {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.disk.len().saturating_sub(self.position).min(buf.len() as u64) as usize;
        self.disk.read_at(self.position, &mut buf[..count]).map_err(io::Error::other)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Positioned {
    fn write(&mut self, _data: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the second reader does not write"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Positioned {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.disk.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the start"))?;
        Ok(self.position)
    }
}

/// A volume as the crate sees it.
pub(super) struct Other(fatfs::FileSystem<Positioned>);

impl Other {
    /// Opens the volume that fills `disk`, or says why it cannot.
    pub(super) fn open(disk: Disk) -> std::result::Result<Other, String> {
        fatfs::FileSystem::new(Positioned { disk, position: 0 }, fatfs::FsOptions::new())
            .map(Other)
            .map_err(|e| e.to_string())
    }

    /// Names in the root directory.
    pub(super) fn root(&self) -> std::result::Result<BTreeSet<String>, String> {
        self.0
            .root_dir()
            .iter()
            .map(|entry| entry.map(|e| e.file_name()).map_err(|e| e.to_string()))
            .collect()
    }

    /// True when it reads the same as `fs` does from `ours` (node and length; `None` for what is no file), or neither finds it.
    ///
    /// # Errors
    /// The outer ones are our own reader's, the inner ones say why the crate cannot look.
    pub(super) fn agrees(
        &self,
        fs: &dyn FileSystem,
        ours: Option<(NodeId, u64)>,
        path: &[String],
    ) -> Result<std::result::Result<bool, String>> {
        let root = self.0.root_dir();
        let path = path.join("/");
        let Some((node, length)) = ours else {
            return Ok(match root.open_file(&path) {
                Ok(_) => Ok(false),
                // Neither finds a file: there is none, or it is a directory.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::Other) => Ok(true),
                Err(e) => Err(e.to_string()),
            });
        };
        let mut file = match root.open_file(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ok(false)),
            Err(e) => return Ok(Err(e.to_string())),
        };
        let (mut mine, mut theirs) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        let mut at = 0;
        while at < length {
            let count = fs.read(node, "", at, &mut mine)?;
            let mut done = 0;
            while done < count {
                match file.read(&mut theirs[done..count]) {
                    Ok(0) => return Ok(Ok(false)),
                    Ok(more) => done += more,
                    Err(e) => return Ok(Err(e.to_string())),
                }
            }
            if mine[..count] != theirs[..count] || count == 0 {
                return Ok(Ok(false));
            }
            at += count as u64;
        }
        Ok(match file.read(&mut theirs[..1]) {
            Ok(count) => Ok(count == 0),
            Err(e) => Err(e.to_string()),
        })
    }
}
