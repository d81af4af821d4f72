//! Files that the Windows Overlay Filter compressed ("CompactOS"): the unnamed stream is a hole, the data lies in the
//! stream `WofCompressedData`, chunk by chunk, after a table of the chunks' ends.
//!
//! Files whose data lies in a WIM (provider 1) are not supported.

use super::node::Attr;
use super::reparse::WOF;
use super::volume::Volume;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_payload::{lzx, xpress};

/// Name of the stream with the packed data.
pub(crate) const STREAM: &str = "WofCompressedData";
/// The provider that compresses single files.
const PROVIDER_FILE: u32 = 2;

/// How the chunks are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// XPRESS Huffman with chunks of this many bytes.
    Xpress(usize),
    /// LZX with chunks of 32 KiB.
    Lzx,
}

impl Algorithm {
    fn chunk_bytes(self) -> usize {
        match self {
            Algorithm::Xpress(bytes) => bytes,
            Algorithm::Lzx => lzx::CHUNK_BYTES,
        }
    }
}

/// What a reparse point says: `None` when it is not of WOF.
///
/// # Errors
/// `Unsupported` for another provider, version or algorithm.
pub(crate) fn algorithm(reparse: &[u8]) -> Result<Option<Algorithm>> {
    if u32_at(reparse, 0) != Some(WOF) {
        return Ok(None);
    }
    match [8, 12, 16, 20].map(|at| u32_at(reparse, at)) {
        [Some(1), Some(PROVIDER_FILE), Some(1), Some(algorithm @ 0..=3)] => Ok(Some(match algorithm {
            0 => Algorithm::Xpress(4096),
            1 => Algorithm::Lzx,
            2 => Algorithm::Xpress(8192),
            _ => Algorithm::Xpress(16384),
        })),
        found => Err(Error::unsupported(Layer::Ntfs, "how WOF keeps this file")
            .expected("provider 2 (file), algorithm 0 to 3")
            .found(format!("{found:?}"))),
    }
}

/// Reads from the unpacked data. Returns how many bytes there were.
pub(crate) fn read(
    volume: &Volume,
    number: u64,
    algorithm: Algorithm,
    packed: &Attr,
    size: u64,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize> {
    let length = size.saturating_sub(offset).min(buf.len() as u64) as usize;
    let chunk_bytes = algorithm.chunk_bytes() as u64;
    let mut done = 0;
    while done < length {
        let at = offset + done as u64;
        let index = at / chunk_bytes;
        // Stream names have at most 255 units, so this key meets no other.
        let unit = volume.cached_unit(number, b"WOF", index, || {
            let room = chunk_bytes.min(size - index * chunk_bytes) as usize;
            chunk(volume, number, algorithm, packed, size, index, room)
        })?;
        let skip = (at % chunk_bytes) as usize;
        let count = (length - done).min(unit.len() - skip);
        buf[done..done + count].copy_from_slice(&unit[skip..skip + count]);
        done += count;
    }
    Ok(length)
}

/// Unpacks one chunk of `room` bytes.
fn chunk(
    volume: &Volume,
    number: u64,
    algorithm: Algorithm,
    packed: &Attr,
    size: u64,
    index: u64,
    room: usize,
) -> Result<Vec<u8>> {
    let bad = |what: &str| {
        Error::damaged(Layer::Ntfs, format!("WOF data of file {number:#x}, chunk {index}: {what}"))
    };
    let chunks = size.div_ceil(algorithm.chunk_bytes() as u64);
    let width: u64 = if size > u64::from(u32::MAX) { 8 } else { 4 };
    let table = (chunks - 1) * width;
    // The table has no entry for the start of the first chunk.
    let end_of = |chunk: u64| -> Result<u64> {
        if chunk == 0 {
            return Ok(0);
        }
        let mut entry = [0; 8];
        let part = &mut entry[..width as usize];
        if volume.read_attribute(number, packed, (chunk - 1) * width, part)? < part.len() {
            return Err(bad("its table is cut off"));
        }
        Ok(u64::from_le_bytes(entry))
    };
    let start = end_of(index)?;
    let end = if index + 1 == chunks { packed.size().saturating_sub(table) } else { end_of(index + 1)? };
    let length = end.checked_sub(start).filter(|length| *length <= room as u64 && *length > 0);
    let length = length.ok_or_else(|| bad("its place cannot be").found(format!("{start:#x} to {end:#x}")))?;
    let mut input = vec![0; length as usize];
    let place = table.checked_add(start).ok_or_else(|| bad("its place wraps"))?;
    if volume.read_attribute(number, packed, place, &mut input)? < input.len() {
        return Err(bad("it is cut off"));
    }
    if input.len() == room {
        return Ok(input);
    }
    let mut out = vec![0; room];
    let done = match algorithm {
        Algorithm::Xpress(_) => xpress::decompress(&input, &mut out),
        Algorithm::Lzx => lzx::decompress(&input, &mut out),
    };
    done.map(|()| out).ok_or_else(|| bad("it cannot be unpacked"))
}
