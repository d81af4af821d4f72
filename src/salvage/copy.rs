//! One stream becomes one file of the host: holes stay holes, what cannot be read is left out and named.

use sha2::{Digest, Sha256};
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{OutputFile, WritableDevice};
use vmrescue_fs::{FileSystem, NodeId};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Bytes that are read at once where a piece failed.
const STEP: usize = 4 << 10;
/// Zeros of this length are not written.
const HOLE: usize = 64 << 10;

/// How much of a stream came.
#[derive(Debug, Default)]
pub struct Copied {
    /// Bytes that were read, holes counted.
    pub got_bytes: u64,
    /// What could not be read, in order.
    pub unread: Vec<Range<u64>>,
    /// Why, for the first such part.
    pub why: Option<Error>,
    /// sha256 of what was written, when it was asked for.
    pub sha256: Option<String>,
}

/// Writes `size_bytes` of a stream into `file`. What cannot be read is no error of this function, but in [`Copied`].
///
/// # Errors
/// Of the host only; `Interrupted`.
pub fn copy_stream(
    fs: &dyn FileSystem,
    (node, stream, size_bytes): (NodeId, &str, u64),
    file: &mut OutputFile,
    hash: bool,
    progress: &dyn Progress,
) -> Result<Copied> {
    let ranges = match fs.data_ranges(node, stream) {
        Ok(Some(ranges)) => ranges,
        Ok(None) => whole(size_bytes),
        Err(e) => {
            return Ok(Copied { unread: whole(size_bytes), why: Some(e), ..Copied::default() });
        }
    };
    // A length that the host cannot have shows before anything is read; the record of a file may say any.
    if let Some(device) = file.device() {
        device.set_length(size_bytes)?;
    }
    let sink = Sink { position: 0, hash: hash.then(Sha256::new), stream: file.device().is_none(), file };
    Copy { fs, node, stream, sink, copied: Copied::default(), buf: vec![0; PIECE], progress }
        .run(&ranges, size_bytes)
}

fn stop_when_asked(progress: &dyn Progress) -> Result<()> {
    if progress.cancelled() {
        return Err(Error::new(ErrorKind::Interrupted, Layer::FileSystem, "interrupted"));
    }
    Ok(())
}

/// All of a stream, as a list of ranges.
fn whole(size_bytes: u64) -> Vec<Range<u64>> {
    std::iter::once(0..size_bytes).collect()
}

struct Copy<'a> {
    fs: &'a dyn FileSystem,
    node: NodeId,
    stream: &'a str,
    sink: Sink<'a>,
    copied: Copied,
    buf: Vec<u8>,
    progress: &'a dyn Progress,
}

impl Copy<'_> {
    fn run(mut self, ranges: &[Range<u64>], size_bytes: u64) -> Result<Copied> {
        for range in ranges {
            let mut at = range.start.min(size_bytes);
            let end = range.end.min(size_bytes);
            self.copied.got_bytes += at.saturating_sub(self.sink.position);
            self.sink.hole(at, self.progress)?;
            while at < end {
                stop_when_asked(self.progress)?;
                let length = (end - at).min(PIECE as u64) as usize;
                self.piece(at, length)?;
                at += length as u64;
                self.progress.advance(length as u64);
                if self.nothing_readable() {
                    self.copied.unread = whole(size_bytes);
                    return Ok(self.copied);
                }
            }
        }
        self.copied.got_bytes += size_bytes.saturating_sub(self.sink.position);
        self.sink.hole(size_bytes, self.progress)?;
        self.copied.sha256 = self.sink.finish();
        Ok(self.copied)
    }

    /// True when the file as a whole cannot be read, whatever the offset: encrypted, kept elsewhere, unknown compression.
    fn nothing_readable(&self) -> bool {
        self.copied.got_bytes == 0
            && self.copied.why.as_ref().is_some_and(|e| e.kind() == ErrorKind::Unsupported)
    }

    fn piece(&mut self, at: u64, length: usize) -> Result<()> {
        match self.fs.read(self.node, self.stream, at, &mut self.buf[..length]) {
            Ok(count) if count == length => self.take(0..length),
            // Shorter than the length that the record says, or a bad place somewhere in it: look closer.
            Ok(_) | Err(_) => {
                for from in (0..length).step_by(STEP) {
                    let to = (from + STEP).min(length);
                    match self.fs.read(self.node, self.stream, at + from as u64, &mut self.buf[from..to]) {
                        Ok(count) => {
                            self.take(from..from + count)?;
                            if count < to - from {
                                let why =
                                    Error::damaged(Layer::FileSystem, "the file ends before its length")
                                        .at(at + (from + count) as u64);
                                self.lose(at + (from + count) as u64..at + to as u64, why)?;
                            }
                        }
                        Err(e) => self.lose(at + from as u64..at + to as u64, e)?,
                    }
                    if self.nothing_readable() {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }

    fn take(&mut self, part: Range<usize>) -> Result<()> {
        self.copied.got_bytes += part.len() as u64;
        self.sink.write(&self.buf[part])
    }

    fn lose(&mut self, range: Range<u64>, why: Error) -> Result<()> {
        self.copied.why.get_or_insert(why);
        self.sink.hole(range.end, self.progress)?;
        match self.copied.unread.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.copied.unread.push(range),
        }
        Ok(())
    }
}

/// The file of the host, which is written from front to back.
struct Sink<'a> {
    file: &'a mut OutputFile,
    position: u64,
    hash: Option<Sha256>,
    /// A pipe: it has no holes.
    stream: bool,
}

impl Sink<'_> {
    fn failed(&self) -> impl Fn(std::io::Error) -> Error + use<> {
        let path = self.file.path().to_path_buf();
        move |e| Error::io("cannot be written", &path, e)
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        let failed = self.failed();
        for block in data.chunks(HOLE) {
            if !self.stream && is_zero(block) {
                self.file.seek(SeekFrom::Current(block.len() as i64)).map_err(&failed)?;
            } else {
                self.file.write_all(block).map_err(&failed)?;
            }
        }
        if let Some(hash) = &mut self.hash {
            hash.update(data);
        }
        self.position += data.len() as u64;
        Ok(())
    }

    /// Zeros up to `to`.
    fn hole(&mut self, to: u64, progress: &dyn Progress) -> Result<()> {
        let length = to.saturating_sub(self.position);
        if length == 0 {
            return Ok(());
        }
        if self.stream || self.hash.is_some() {
            let zeros = [0; HOLE];
            let mut left = length;
            while left > 0 {
                stop_when_asked(progress)?;
                let count = left.min(HOLE as u64) as usize;
                self.write(&zeros[..count])?;
                left -= count as u64;
            }
            return Ok(());
        }
        let failed = self.failed();
        self.file.seek(SeekFrom::Start(to)).map_err(failed)?;
        self.position = to;
        Ok(())
    }

    fn finish(self) -> Option<String> {
        self.hash.map(|hash| vmrescue_base::text::hex(&hash.finalize()))
    }
}

fn is_zero(block: &[u8]) -> bool {
    // A comparison of the block with itself, moved by one byte, runs at the speed of memory.
    block.first() == Some(&0) && block[1..] == block[..block.len() - 1]
}
