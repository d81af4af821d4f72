//! A writer of zip archives: PKWARE APPNOTE 6.3.10, deflate by `miniz_oxide`, zip64 where a size or place needs it. docs/decisions/zip.md says why
//! it is ours. Entries are streamed: the local header is written first and filled in when the entry ends, so that every reader that goes
//! by local headers works too. No encryption, no split archives, no reading.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output, create_comp_flags_from_zip_params,
};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::{OutputFile, OutputRules};

/// Announced sizes from here on get a zip64 entry: deflate may add a little to what does not shrink.
const LARGE: u64 = 0xf000_0000;
const MARK_32: u32 = u32::MAX;
/// Level of deflate: logs and hives shrink well at any.
const DEFLATE: u8 = 6;
/// Bytes of a local header ahead of the name.
const LOCAL: u64 = 30;
/// General purpose flag: the name is UTF-8.
const UTF8: u16 = 1 << 11;

struct Entry {
    name: String,
    time: u16,
    date: u16,
    crc: u32,
    packed: u64,
    size: u64,
    place: u64,
    large: bool,
}

struct Open {
    entry: Entry,
    compressor: Box<CompressorOxide>,
    crc: crc32fast::Hasher,
}

/// An archive that is being written.
pub struct ZipWriter {
    file: BufWriter<OutputFile>,
    path: PathBuf,
    place: u64,
    entries: Vec<Entry>,
    open: Option<Open>,
}

impl ZipWriter {
    /// An archive that has its name when it is finished, as `rules` allow.
    ///
    /// # Errors
    /// `AlreadyExists`; of the host.
    pub fn create(path: &Path, rules: &OutputRules) -> Result<ZipWriter> {
        let file = rules.create(path)?;
        Ok(ZipWriter {
            file: BufWriter::with_capacity(1 << 18, file),
            path: path.into(),
            place: 0,
            entries: Vec::new(),
            open: None,
        })
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io("the archive cannot be written", &self.path, e))?;
        self.place += bytes.len() as u64;
        Ok(())
    }

    /// Begins an entry of at most `size` bytes; `name` has `/` between its parts.
    ///
    /// # Errors
    /// `Invalid` for a name beyond 65,535 bytes or while another entry is open; of writing.
    pub fn begin(&mut self, name: &str, size: u64, time: FileTime) -> Result<()> {
        if self.open.is_some() || name.len() > usize::from(u16::MAX) {
            return Err(Error::invalid(Layer::Host, "an entry of an archive cannot begin here"));
        }
        let (date, time) = dos_time(time);
        let place = self.place;
        let entry =
            Entry { name: name.into(), time, date, crc: 0, packed: 0, size: 0, place, large: size >= LARGE };
        let header = local_header(&entry);
        self.raw(&header)?;
        let flags = create_comp_flags_from_zip_params(i32::from(DEFLATE), -15, 0);
        self.open = Some(Open {
            entry,
            compressor: Box::new(CompressorOxide::new(flags)),
            crc: crc32fast::Hasher::new(),
        });
        Ok(())
    }

    /// More of the entry's content.
    ///
    /// # Errors
    /// `Invalid` without an open entry; of writing.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pack(bytes, TDEFLFlush::None)
    }

    fn pack(&mut self, bytes: &[u8], flush: TDEFLFlush) -> Result<()> {
        let Some(open) = self.open.as_mut() else {
            return Err(Error::invalid(Layer::Host, "no entry of the archive is open"));
        };
        open.crc.update(bytes);
        open.entry.size += bytes.len() as u64;
        let mut packed = Vec::with_capacity(bytes.len() / 2);
        let (status, _) = compress_to_output(&mut open.compressor, bytes, flush, |out| {
            packed.extend_from_slice(out);
            true
        });
        open.entry.packed += packed.len() as u64;
        if matches!(status, TDEFLStatus::BadParam | TDEFLStatus::PutBufFailed) {
            return Err(
                Error::new(ErrorKind::Io, Layer::Host, "the entry cannot be compressed").in_file(&self.path)
            );
        }
        self.raw(&packed)
    }

    /// Ends the entry: its header gets checksum and sizes.
    ///
    /// # Errors
    /// `Limit` when it became larger than it was announced and than its header can hold; of writing.
    pub fn end(&mut self) -> Result<()> {
        self.pack(&[], TDEFLFlush::Finish)?;
        let Some(Open { mut entry, crc, .. }) = self.open.take() else { return Ok(()) };
        entry.crc = crc.finalize();
        if !entry.large && entry.size.max(entry.packed) >= u64::from(MARK_32) {
            return Err(
                Error::limit(Layer::Host, "an entry grew beyond what was announced").in_file(&self.path)
            );
        }
        let header = local_header(&entry);
        let failed = |e| Error::io("the archive cannot be written", &self.path, e);
        self.file.seek(SeekFrom::Start(entry.place)).map_err(failed)?;
        self.file.write_all(&header).map_err(failed)?;
        self.file.seek(SeekFrom::Start(self.place)).map_err(failed)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Writes the directory at the end; the archive is on stable storage afterwards.
    ///
    /// # Errors
    /// Of writing.
    pub fn finish(mut self) -> Result<()> {
        if self.open.is_some() {
            self.end()?;
        }
        let start = self.place;
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            self.raw(&central_header(entry))?;
        }
        let tail = tail(entries.len() as u64, self.place - start, start);
        self.raw(&tail)?;
        let failed = |e| Error::io("the archive cannot be written", &self.path, e);
        self.file.into_inner().map_err(|e| failed(e.into_error()))?.finish()
    }
}

/// Numbers one after the other, little-endian.
struct Bytes(Vec<u8>);

impl Bytes {
    fn new(signature: u32) -> Bytes {
        Bytes(signature.to_le_bytes().to_vec())
    }

    fn u16(mut self, value: u16) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend(bytes);
        self
    }
}

/// A 32-bit field, or the mark that the zip64 extra field has it.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(MARK_32)
}

fn local_header(entry: &Entry) -> Vec<u8> {
    // The length fits: `begin` has looked.
    let (name, extra) = (entry.name.len() as u16, if entry.large { 20 } else { 0 });
    let (packed, size) = if entry.large { (MARK_32, MARK_32) } else { (low(entry.packed), low(entry.size)) };
    let header = Bytes::new(0x0403_4b50)
        .u16(if entry.large { 45 } else { 20 })
        .u16(UTF8)
        .u16(8)
        .u16(entry.time)
        .u16(entry.date)
        .u32(entry.crc)
        .u32(packed)
        .u32(size)
        .u16(name)
        .u16(extra);
    debug_assert_eq!(header.0.len() as u64, LOCAL);
    let header = header.bytes(entry.name.as_bytes());
    if entry.large { header.u16(1).u16(16).u64(entry.size).u64(entry.packed).0 } else { header.0 }
}

fn central_header(entry: &Entry) -> Vec<u8> {
    // In this order: size, packed size, place; each only when its own field is marked.
    let far = entry.place >= u64::from(MARK_32);
    let mut extra = Bytes(Vec::new());
    if entry.large {
        extra = extra.u64(entry.size).u64(entry.packed);
    }
    if far {
        extra = extra.u64(entry.place);
    }
    if !extra.0.is_empty() {
        // At most 24 bytes.
        let length = extra.0.len() as u16;
        extra = Bytes(Vec::new()).u16(1).u16(length).bytes(&extra.0);
    }
    let (packed, size) = if entry.large { (MARK_32, MARK_32) } else { (low(entry.packed), low(entry.size)) };
    let version = if extra.0.is_empty() { 20 } else { 45 };
    Bytes::new(0x0201_4b50)
        .u16(version)
        .u16(version)
        .u16(UTF8)
        .u16(8)
        .u16(entry.time)
        .u16(entry.date)
        .u32(entry.crc)
        .u32(packed)
        .u32(size)
        .u16(entry.name.len() as u16)
        .u16(extra.0.len() as u16)
        .u16(0)
        .u16(0)
        .u16(0)
        .u32(0)
        .u32(low(entry.place))
        .bytes(entry.name.as_bytes())
        .bytes(&extra.0)
        .0
}

/// The end of the directory, with its zip64 form when it is needed.
fn tail(count: u64, length: u64, start: u64) -> Vec<u8> {
    let mut out = Bytes(Vec::new());
    if count >= u64::from(u16::MAX) || start.max(length) >= u64::from(MARK_32) {
        let end = start + length;
        out = Bytes::new(0x0606_4b50)
            .u64(44)
            .u16(45)
            .u16(45)
            .u32(0)
            .u32(0)
            .u64(count)
            .u64(count)
            .u64(length)
            .u64(start)
            .u32(0x0706_4b50)
            .u32(0)
            .u64(end)
            .u32(1);
    }
    let short = u16::try_from(count).unwrap_or(u16::MAX);
    out.u32(0x0605_4b50).u16(0).u16(0).u16(short).u16(short).u32(low(length)).u32(low(start)).u16(0).0
}

/// Date and time as MS-DOS has them, in UTC; 1980-01-01 for what is earlier, 2107 for what is later.
fn dos_time(time: FileTime) -> (u16, u16) {
    let text = time.to_string();
    let number = |range: std::ops::Range<usize>| {
        text.get(range).and_then(|part| part.parse::<u16>().ok()).unwrap_or(0)
    };
    let year = number(0..4);
    if year < 1980 {
        return (0x21, 0);
    }
    if year > 2107 {
        return (127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29);
    }
    let date = (year - 1980) << 9 | number(5..7) << 5 | number(8..10);
    (date, number(11..13) << 11 | number(14..16) << 5 | (number(17..19) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_dos() {
        assert_eq!(dos_time(FileTime::default()), (0x21, 0));
        let time = FileTime::parse_utc("2024-02-29T12:34:57").unwrap_or_default();
        assert_eq!(dos_time(time), (44 << 9 | 2 << 5 | 29, 12 << 11 | 34 << 5 | 28));
    }

    #[test]
    fn large_entries_and_far_places_have_their_zip64_fields() {
        let entry = Entry {
            name: "a".into(),
            time: 0,
            date: 0x21,
            crc: 1,
            packed: 5 << 30,
            size: 6 << 30,
            place: 7 << 30,
            large: true,
        };
        let local = local_header(&entry);
        assert_eq!(&local[18..26], [0xff; 8]);
        assert_eq!(vmrescue_base::bytes::u64_at(&local, 31 + 4), Some(6 << 30));
        let central = central_header(&entry);
        assert_eq!(vmrescue_base::bytes::u16_at(&central, 30), Some(28));
        assert_eq!(vmrescue_base::bytes::u64_at(&central, 47 + 4 + 16), Some(7 << 30));
        let end = tail(70_000, 1, 8 << 30);
        assert_eq!(end.len(), 56 + 20 + 22);
        assert_eq!(tail(3, 100, 200).len(), 22);
    }
}
