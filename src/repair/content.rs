//! What a file is given: bytes at hand, or a file of this machine or of a guest, which is read piece by piece whenever it is
//! needed, so that a large one takes no memory.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_fs::{FileSystem, NodeId, read_file};

/// Bytes of one piece.
const PIECE_BYTES: usize = 1 << 20;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    Bytes(Vec<u8>),
    /// A file of this machine.
    HostFile {
        /// Where it is.
        path: PathBuf,
        /// Its length in bytes when the change was planned.
        length_bytes: u64,
    },
    /// A stream of a file of this or another guest.
    GuestFile(GuestFile),
}

/// A stream of a file in a file system that stays open.
#[derive(Clone)]
pub struct GuestFile {
    fs: Arc<dyn FileSystem>,
    node: NodeId,
    stream: String,
    length_bytes: u64,
}

impl std::fmt::Debug for GuestFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GuestFile({:#x}:{}, {} bytes)", self.node.0, self.stream, self.length_bytes)
    }
}

impl PartialEq for GuestFile {
    fn eq(&self, other: &GuestFile) -> bool {
        Arc::ptr_eq(&self.fs, &other.fs) && self.node == other.node && self.stream == other.stream
    }
}

impl Eq for GuestFile {}

impl GuestFile {
    fn pieces(&self, visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let (mut at, mut buf) = (0, vec![0; PIECE_BYTES]);
        while at < self.length_bytes {
            let count = self.fs.read(self.node, &self.stream, at, &mut buf)?;
            if count == 0 {
                return Err(Error::damaged(Layer::FileSystem, "the file ends before its length")
                    .at(at)
                    .expected(format!("{} bytes", self.length_bytes)));
            }
            visit(at, &buf[..count])?;
            at += count as u64;
        }
        Ok(())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Content {
        Content::Bytes(bytes)
    }
}

impl Content {
    /// The content of a file of this machine; a short one is read at once.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_host_file(path: &Path) -> Result<Content> {
        let failed = |e| Error::io("cannot be read", path, e);
        let length_bytes = std::fs::metadata(path).map_err(failed)?.len();
        if length_bytes > PIECE_BYTES as u64 {
            return Ok(Content::HostFile { path: path.to_path_buf(), length_bytes });
        }
        std::fs::read(path).map(Content::Bytes).map_err(failed)
    }

    /// The content of a stream of a guest (`""` for the unnamed one); a short one is read at once.
    ///
    /// # Errors
    /// `NotFound` for a stream that is not there; of reading it.
    pub fn of_guest(fs: &Arc<dyn FileSystem>, node: NodeId, stream: &str) -> Result<Content> {
        let length =
            fs.streams(node)?.into_iter().find(|info| info.name == stream).map(|info| info.size_bytes);
        let length_bytes = length.ok_or_else(|| {
            Error::not_found(Layer::FileSystem, format!("file {:#x} has no stream {stream:?}", node.0))
        })?;
        if length_bytes <= PIECE_BYTES as u64 {
            return read_file(&**fs, node, stream).map(Content::Bytes);
        }
        Ok(Content::GuestFile(GuestFile {
            fs: Arc::clone(fs),
            node,
            stream: stream.to_string(),
            length_bytes,
        }))
    }

    /// Length in bytes.
    pub fn length_bytes(&self) -> u64 {
        match self {
            Content::GuestFile(file) => file.length_bytes,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::HostFile { length_bytes, .. } => *length_bytes,
        }
    }

    /// Hands all of it to `visit` in order, with the offset of each piece.
    ///
    /// # Errors
    /// Of `visit`; when the file of this machine cannot be read or is no longer as long as it was.
    pub fn pieces(&self, visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let (path, length_bytes) = match self {
            Content::Bytes(bytes) => return visit(0, bytes),
            Content::GuestFile(file) => return file.pieces(visit),
            Content::HostFile { path, length_bytes } => (path, *length_bytes),
        };
        let failed = |e| Error::io("cannot be read", path, e);
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let (mut at, mut buf) = (0, vec![0; PIECE_BYTES]);
        loop {
            let count = file.read(&mut buf).map_err(failed)?;
            if count as u64 > length_bytes - at || (count == 0 && at < length_bytes) {
                return Err(Error::new(ErrorKind::Refused, Layer::Cli, "the file changed while it was used")
                    .in_file(path)
                    .expected(format!("{length_bytes} bytes"))
                    .advice("nothing was written; try again when nobody writes to it"));
            }
            if count == 0 {
                return Ok(());
            }
            visit(at, &buf[..count])?;
            at += count as u64;
        }
    }

    /// True when a stream of the guest holds exactly this.
    ///
    /// # Errors
    /// Of either side.
    pub fn is_in(&self, fs: &dyn FileSystem, node: NodeId, stream: &str) -> Result<bool> {
        let there = fs.streams(node)?.into_iter().find(|info| info.name == stream);
        if there.map(|info| info.size_bytes) != Some(self.length_bytes()) {
            return Ok(false);
        }
        let (mut same, mut found) = (true, Vec::new());
        self.pieces(&mut |at, bytes| {
            for (index, bytes) in bytes.chunks(PIECE_BYTES).enumerate() {
                if !same {
                    break;
                }
                found.resize(bytes.len(), 0);
                let count = fs.read(node, stream, at + (index * PIECE_BYTES) as u64, &mut found)?;
                same = count == bytes.len() && found == bytes;
            }
            Ok(())
        })?;
        Ok(same)
    }
}
