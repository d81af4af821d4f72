//! The data of streams: reading what is stored plainly, writing, growing, cutting.

use super::attribute::{Attribute, Body, COMPRESSED, ENCRYPTED, SPARSE, Stream, kind};
use super::core::{Core, damaged};
use super::file::File;
use super::record;
use super::runs::{self, Run};
use crate::{Attributes, tag};
use std::ops::Range;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Error, Layer, Result};

/// Largest file of NTFS.
const MAX_FILE_BYTES: u64 = 1 << 44;
/// Most bytes that growing a file zeroes; beyond, only the length of the written part says that they are zero.
const MAX_ZEROED_BYTES: u64 = 64 << 20;
/// Reparse tag of files that WOF compressed.
const WOF_TAG: u32 = 0x8000_0017;
/// The stream with the keys of encrypted files.
const EFS_STREAM: &str = "$EFS";
/// Bytes that are unpacked at a time.
const UNPACK_BYTES: u64 = 1 << 20;
/// The stream that WOF keeps the compressed bytes in.
const WOF_STREAM: &str = "WofCompressedData";

impl Core {
    /// Calls `f` with each piece on the volume (`None` for holes) of `length` bytes at `offset` of a stream.
    fn for_pieces(
        &self,
        stream: &Stream,
        offset: u64,
        length: u64,
        mut f: impl FnMut(Option<u64>, u64) -> Result<()>,
    ) -> Result<()> {
        let cluster = self.geometry.cluster_bytes;
        let (first, last) = (offset / cluster, (offset + length).div_ceil(cluster));
        let part = runs::slice(&stream.runs, first, last - first);
        if runs::clusters(&part) < last - first {
            return Err(damaged("a stream with fewer clusters than it says"));
        }
        let (mut skip, mut left) = (offset % cluster, length);
        for run in part {
            let take = left.min(run.count * cluster - skip);
            f(run.lcn.map(|lcn| lcn * cluster + skip), take)?;
            left -= take;
            skip = 0;
        }
        Ok(())
    }

    /// Writes into clusters that the stream has.
    pub(crate) fn write_runs(&self, stream: &Stream, offset: u64, data: &[u8]) -> Result<()> {
        let mut at = 0;
        self.for_pieces(stream, offset, data.len() as u64, |place, length| {
            let place = place.ok_or_else(|| damaged("a hole where clusters were taken"))?;
            self.check_place(place, length)?;
            self.disk.write_at(place, &data[at..at + length as usize])?;
            at += length as usize;
            Ok(())
        })
    }

    /// Makes a part of the stream zero; holes are zero already.
    pub(crate) fn zero_runs(&self, stream: &Stream, from: u64, to: u64) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        self.for_pieces(stream, from, to - from, |place, length| match place {
            Some(place) => {
                self.check_place(place, length)?;
                self.disk.zero_at(place..place + length)
            }
            None => Ok(()),
        })
    }

    /// Data is only written to clusters that are taken, and never over a record or an index block: whatever the runs
    /// say, a mistake here must not reach the disk.
    fn check_place(&self, place: u64, length: u64) -> Result<()> {
        let cluster = self.geometry.cluster_bytes;
        let taken = self.clusters.all_set(place / cluster..(place + length).div_ceil(cluster));
        if taken && !self.has_blocks(place..place + length) {
            return Ok(());
        }
        let what = if taken {
            "file data would be written over a record or an index block"
        } else {
            "file data would be written to free clusters"
        };
        Err(damaged(what).at(place).advice("the map and the files disagree: run the check command"))
    }

    /// Writes all of a small system stream, with zeros up to the end of its clusters.
    pub(crate) fn write_through(&self, stream: &Stream, data: &[u8]) -> Result<()> {
        self.write_runs(stream, 0, data)?;
        self.zero_runs(stream, data.len() as u64, stream.allocated_bytes)
    }

    /// Reads from a stream that is stored plainly. `None`: it is not, another reader must do it.
    pub(crate) fn read_data(
        &mut self,
        file: &File,
        name: &str,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Option<usize>> {
        let Some(place) = file.find(kind::DATA, name) else { return Ok(None) };
        let attribute = &file.attributes[place];
        if attribute.flags & (COMPRESSED | ENCRYPTED) != 0 || (name.is_empty() && file.is_wof()) {
            return Ok(None);
        }
        let length = attribute.size_bytes().saturating_sub(offset).min(buf.len() as u64) as usize;
        match &attribute.body {
            Body::Resident(value) => {
                if length > 0 {
                    buf[..length].copy_from_slice(&value[offset as usize..offset as usize + length]);
                }
            }
            Body::Runs(stream) => {
                buf[..length].fill(0);
                let stored = stream.initialized_bytes.saturating_sub(offset).min(length as u64);
                let mut at = 0;
                if stored > 0 {
                    self.for_pieces(stream, offset, stored, |place, piece| {
                        if let Some(place) = place {
                            self.disk.read_at(place, &mut buf[at..at + piece as usize])?;
                        }
                        at += piece as usize;
                        Ok(())
                    })?;
                }
            }
        }
        Ok(Some(length))
    }

    /// Prepares writing into a stream of an open file. The caller stores the file, and then writes the data into the
    /// stream that this returns, if it does: what was there is kept until everything else has succeeded.
    pub(crate) fn write_data(
        &mut self,
        file: &mut File,
        name: &str,
        offset: u64,
        data: &[u8],
    ) -> Result<Option<Stream>> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= MAX_FILE_BYTES)
            .ok_or_else(too_large)?;
        let place = self.data_of(file, name)?;
        self.plain(file, place)?;
        if data.is_empty() {
            return Ok(None);
        }
        let size = file.attributes[place].size_bytes().max(end);
        self.grow(file, place, size)?;
        match &mut file.attributes[place].body {
            Body::Resident(value) => {
                value[offset as usize..end as usize].copy_from_slice(data);
                Ok(None)
            }
            Body::Runs(stream) => {
                let mut stream = stream.clone();
                self.fill_holes(&mut stream, offset, end)?;
                self.zero_runs(&stream, stream.initialized_bytes, offset)?;
                stream.initialized_bytes = stream.initialized_bytes.max(end);
                file.attributes[place].body = Body::Runs(stream.clone());
                Ok(Some(stream))
            }
        }
    }

    /// Makes a part of a stream a hole. As with writing, the caller stores the file and then zeroes the ranges of the
    /// stream that this returns.
    pub(crate) fn punch_data(
        &mut self,
        file: &mut File,
        name: &str,
        range: Range<u64>,
    ) -> Result<Option<(Stream, [Range<u64>; 2])>> {
        let place = file.find(kind::DATA, name).ok_or_else(|| no_stream(name))?;
        self.plain(file, place)?;
        let size = file.attributes[place].size_bytes();
        let (start, end) = (range.start.min(size), range.end.min(size));
        if start >= end {
            return Ok(None);
        }
        let mut stream = match &mut file.attributes[place].body {
            Body::Resident(value) => {
                value[start as usize..end as usize].fill(0);
                return Ok(None);
            }
            Body::Runs(stream) => stream.clone(),
        };
        let cluster = self.geometry.cluster_bytes;
        let all = runs::clusters(&stream.runs);
        let (first, last) = (start.div_ceil(cluster), if end == size { all } else { end / cluster });
        let stored = |at: u64| at.min(stream.initialized_bytes);
        if first >= last {
            return Ok(Some((stream.clone(), [stored(start)..stored(end), 0..0])));
        }
        let edges = [stored(start)..stored(first * cluster), stored(last * cluster)..stored(end)];
        let gone = runs::slice(&stream.runs, first, last - first);
        let mut left = runs::slice(&stream.runs, 0, first);
        runs::push(&mut left, Run { lcn: None, count: last - first });
        runs::slice(&stream.runs, last, all - last).into_iter().for_each(|run| runs::push(&mut left, run));
        let freed: u64 = gone.iter().filter(|run| run.lcn.is_some()).map(|run| run.count).sum();
        stream.runs = left;
        stream.total_allocated_bytes = stream.total_allocated_bytes.saturating_sub(freed * cluster);
        self.release(&gone);
        let attribute = &mut file.attributes[place];
        attribute.flags |= SPARSE;
        attribute.body = Body::Runs(stream.clone());
        file.set_bits(0, Attributes::SPARSE)?;
        Ok(Some((stream, edges)))
    }

    /// True when a stream has compressed data that must be unpacked before a part of it is changed.
    pub(crate) fn is_packed(&self, file: &File, name: &str) -> bool {
        let attribute = file.find(kind::DATA, name).map(|place| &file.attributes[place]);
        attribute.is_some_and(|a| {
            let wof = name.is_empty() && file.is_wof();
            a.size_bytes() > 0 && a.flags & ENCRYPTED == 0 && (a.flags & COMPRESSED != 0 || wof)
        })
    }

    /// Stores compressed data plainly. `read` reads what it was, which stays on the disk until the operation has
    /// succeeded.
    pub(crate) fn unpack(
        &mut self,
        file: &mut File,
        name: &str,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        let place = file.find(kind::DATA, name).ok_or_else(|| no_stream(name))?;
        let size = file.attributes[place].size_bytes();
        self.empty(file, place)?;
        let mut buf = vec![0; UNPACK_BYTES.min(size) as usize];
        let mut at = 0;
        while at < size {
            let length = (size - at).min(buf.len() as u64) as usize;
            if read(at, &mut buf[..length])? < length {
                return Err(damaged("compressed data that is shorter than it says"));
            }
            if let Some(stream) = self.write_data(file, name, at, &buf[..length])? {
                self.write_runs(&stream, at, &buf[..length])?;
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Makes a stream that is to grow to `length` a sparse one, so that it grows by a hole. A stream that stays in the
    /// record, or grows by nothing, is left as it is.
    pub(crate) fn begin_hole(&mut self, file: &mut File, name: &str, length: u64) -> Result<()> {
        let place = self.data_of(file, name)?;
        self.plain(file, place)?;
        let room = record::room(self.geometry.record_bytes) as u64;
        let attribute = &file.attributes[place];
        let size = attribute.size_bytes();
        let fits = matches!(attribute.body, Body::Resident(_))
            && file.encoded_bytes() as u64 + length.saturating_sub(size) + 8 <= room;
        if length <= size || fits || length > MAX_FILE_BYTES {
            return Ok(());
        }
        if let Body::Resident(value) = &attribute.body {
            let value = value.clone();
            let mut stream = Stream::default();
            self.extend(&mut stream, size)?;
            stream.size_bytes = size;
            stream.initialized_bytes = size;
            self.write_through(&stream, &value)?;
            file.attributes[place].body = Body::Runs(stream);
        }
        file.attributes[place].flags |= SPARSE;
        file.set_bits(0, Attributes::SPARSE)
    }

    /// Cuts or grows a stream of an open file; the caller stores the file.
    pub(crate) fn resize_data(&mut self, file: &mut File, name: &str, length: u64) -> Result<()> {
        if length > MAX_FILE_BYTES {
            return Err(too_large());
        }
        let place = self.data_of(file, name)?;
        if length == 0 {
            return self.empty(file, place);
        }
        self.plain(file, place)?;
        if length >= file.attributes[place].size_bytes() {
            self.grow(file, place, length)?;
            return self.initialize(file, place);
        }
        match &mut file.attributes[place].body {
            Body::Resident(value) => value.truncate(length as usize),
            Body::Runs(stream) => {
                let cluster = self.geometry.cluster_bytes;
                let cut = runs::truncate(&mut stream.runs, length.div_ceil(cluster));
                let freed: u64 = cut.iter().filter(|r| r.lcn.is_some()).map(|r| r.count).sum();
                stream.allocated_bytes = runs::clusters(&stream.runs) * cluster;
                stream.total_allocated_bytes = stream.total_allocated_bytes.saturating_sub(freed * cluster);
                stream.size_bytes = length;
                stream.initialized_bytes = stream.initialized_bytes.min(length);
                self.release(&cut);
            }
        }
        Ok(())
    }

    /// Zeros what a growing stream has not written yet, if it is not much: some readers do not know of the part that
    /// was never written.
    fn initialize(&mut self, file: &mut File, place: usize) -> Result<()> {
        if let Body::Runs(stream) = &mut file.attributes[place].body
            && stream.size_bytes - stream.initialized_bytes <= MAX_ZEROED_BYTES
        {
            self.zero_runs(stream, stream.initialized_bytes, stream.size_bytes)?;
            stream.initialized_bytes = stream.size_bytes;
        }
        Ok(())
    }

    /// The attribute of a stream, made when it is not there.
    fn data_of(&mut self, file: &mut File, name: &str) -> Result<usize> {
        if let Some(place) = file.find(kind::DATA, name) {
            return Ok(place);
        }
        let units = name.encode_utf16().count();
        if units > 255 || name.contains(['\0', '/', '\\', ':']) {
            return Err(Error::invalid(Layer::Ntfs, format!("{name:?} cannot be the name of a stream")));
        }
        file.attributes.push(Attribute::resident(kind::DATA, name, Vec::new()));
        Ok(file.attributes.len() - 1)
    }

    /// Refuses what is not stored plainly; an empty compressed stream becomes a plain one.
    fn plain(&mut self, file: &mut File, place: usize) -> Result<()> {
        let attribute = &file.attributes[place];
        let wof = attribute.name.is_empty() && file.is_wof();
        let elsewhere = attribute.name.is_empty().then(|| content_elsewhere(file)).flatten();
        if let Some(kept) = elsewhere {
            return Err(Error::unsupported(
                Layer::Ntfs,
                format!("the content of this file is kept in {kept}"),
            )
            .advice("cut it to length 0 and write all of it: it is then an ordinary file"));
        }
        if attribute.flags & (COMPRESSED | ENCRYPTED) == 0 && !wof {
            return Ok(());
        }
        if attribute.size_bytes() == 0 {
            return self.empty(file, place);
        }
        Err(Error::unsupported(Layer::Ntfs, "writing into an encrypted stream")
            .advice("cut it to length 0 and write all of it: it is then stored plainly"))
    }

    /// Makes a stream empty, resident and plain; a file that WOF compressed becomes a plain file.
    fn empty(&mut self, file: &mut File, place: usize) -> Result<()> {
        if file.attributes[place].name.is_empty() && content_elsewhere(file).is_some() {
            self.remove_reparse(file)?;
        }
        let attribute = &mut file.attributes[place];
        let unnamed = attribute.name.is_empty();
        let encrypted = attribute.flags & ENCRYPTED != 0;
        attribute.flags &= !(COMPRESSED | ENCRYPTED | SPARSE);
        if let Body::Runs(stream) = std::mem::replace(&mut attribute.body, Body::Resident(Vec::new())) {
            self.release(&stream.runs);
        }
        if encrypted && !file.attributes.iter().any(|a| a.kind == kind::DATA && a.flags & ENCRYPTED != 0) {
            // The keys of a file that is no longer encrypted.
            if let Some(place) = file.find(kind::LOGGED_STREAM, EFS_STREAM)
                && let Body::Runs(stream) = file.attributes.remove(place).body
            {
                self.release(&stream.runs);
            }
        }
        if unnamed {
            file.clear_storage_flags();
            if file.is_wof() {
                self.remove_reparse(file)?;
                if let Some(place) = file.find(kind::DATA, WOF_STREAM)
                    && let Body::Runs(stream) = file.attributes.remove(place).body
                {
                    self.release(&stream.runs);
                }
            }
        }
        Ok(())
    }

    /// Makes a plain stream `size` bytes long; new bytes read as zero.
    fn grow(&mut self, file: &mut File, place: usize, size: u64) -> Result<()> {
        let room = record::room(self.geometry.record_bytes) as u64;
        let used = file.encoded_bytes() as u64;
        let sparse = file.attributes[place].flags & SPARSE != 0;
        let old = match &mut file.attributes[place].body {
            Body::Runs(stream) => {
                let mut stream = stream.clone();
                if sparse {
                    let cluster = self.geometry.cluster_bytes;
                    let more = size.div_ceil(cluster).saturating_sub(runs::clusters(&stream.runs));
                    runs::push(&mut stream.runs, Run { lcn: None, count: more });
                    stream.allocated_bytes = runs::clusters(&stream.runs) * cluster;
                } else {
                    self.extend(&mut stream, size)?;
                }
                stream.size_bytes = stream.size_bytes.max(size);
                file.attributes[place].body = Body::Runs(stream);
                return Ok(());
            }
            Body::Resident(value) => {
                let more = size.saturating_sub(value.len() as u64);
                if used + more + 8 <= room {
                    value.resize(size.max(value.len() as u64) as usize, 0);
                    return Ok(());
                }
                std::mem::take(value)
            }
        };
        let mut stream = Stream::default();
        self.extend(&mut stream, size)?;
        stream.size_bytes = size;
        stream.initialized_bytes = old.len() as u64;
        if !old.is_empty() {
            self.write_runs(&stream, 0, &old)?;
        }
        file.attributes[place].body = Body::Runs(stream);
        Ok(())
    }

    /// Gives clusters to the holes of a sparse stream between two offsets; what is not written of them is zeroed.
    fn fill_holes(&mut self, stream: &mut Stream, from: u64, to: u64) -> Result<()> {
        let cluster = self.geometry.cluster_bytes;
        let (first, last) = (from / cluster, to.div_ceil(cluster));
        let middle = runs::slice(&stream.runs, first, last - first);
        if middle.iter().all(|r| r.lcn.is_some()) {
            return Ok(());
        }
        let mut filled = runs::slice(&stream.runs, 0, first);
        for run in middle {
            if run.lcn.is_some() {
                runs::push(&mut filled, run);
                continue;
            }
            let hint = filled.iter().rev().find_map(|r| r.lcn.map(|lcn| lcn + r.count));
            for run in self.allocate(run.count, hint)? {
                // What is written next needs no zeros.
                let (at, start) = (run.lcn.unwrap_or(0) * cluster, runs::clusters(&filled) * cluster);
                let end = start + run.count * cluster;
                let head = start..from.clamp(start, end);
                let tail = to.clamp(start, end)..end;
                for part in [head, tail].into_iter().filter(|part| !part.is_empty()) {
                    self.disk.zero_at(at + part.start - start..at + part.end - start)?;
                }
                stream.total_allocated_bytes += run.count * cluster;
                runs::push(&mut filled, run);
            }
        }
        let rest: Vec<Run> =
            runs::slice(&stream.runs, last, runs::clusters(&stream.runs).saturating_sub(last));
        rest.into_iter().for_each(|run| runs::push(&mut filled, run));
        stream.runs = filled;
        Ok(())
    }
}

/// Where the content of the unnamed stream is kept, when a filter driver keeps it outside of the file.
fn content_elsewhere(file: &File) -> Option<&'static str> {
    let place = file.find(kind::DATA, "")?;
    let (size, allocated) = match &file.attributes[place].body {
        Body::Resident(value) => (value.len() as u64, value.len() as u64),
        Body::Runs(_) => file.sizes(),
    };
    tag::content_elsewhere(file.reparse_tag()?, Attributes(file.attribute_bits()), size, allocated)
}

fn no_stream(name: &str) -> Error {
    Error::not_found(Layer::Ntfs, format!("the file has no stream {name:?}"))
}

fn too_large() -> Error {
    Error::invalid(Layer::Ntfs, "a file larger than NTFS allows")
        .expected(format!("at most {MAX_FILE_BYTES:#x} bytes"))
}

impl File {
    /// The reparse tag, when it is a reparse point.
    pub(crate) fn reparse_tag(&self) -> Option<u32> {
        let place = self.find(kind::REPARSE_POINT, "")?;
        self.attributes[place].value().map_or(self.outer_tag, |value| u32_at(value, 0))
    }

    /// True when WOF holds the data of the unnamed stream.
    pub(crate) fn is_wof(&self) -> bool {
        self.reparse_tag() == Some(WOF_TAG)
    }
}
