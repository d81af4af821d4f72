//! Changes that are written, as records of the change journal (`\$Extend\$UsnJrnl`), where the volume keeps one.
//!
//! Each operation counts as opening, changing and closing the file, so that its record has CLOSE and says what the
//! operation did; the old name of a renamed file has a record of its own in front, without CLOSE. An operation that
//! does to a file only what a record has said since the volume was opened adds none: a program that writes a file in
//! pieces gets one record there as well. Records become part of the operation, so a full volume leaves neither.

use super::attribute::{Attribute, Body, SPARSE, Stream, kind, put_all};
use super::core::{Core, damaged};
use super::entry::{FileName, namespace};
use super::file::File;
use super::names::EXTEND_RECORD;
use super::record::EXTEND;
use super::runs::{self, Run};
use crate::ntfs::usn::{PAGE_BYTES, Record, Settings, reason};
use crate::{Attributes, NodeId};
use std::collections::HashMap;
use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::{Error, Layer, Result};

/// Volume flag: the journal is being deleted.
const DELETE_UNDERWAY: u16 = 0x0010;
/// Bytes by which `$J` grows, where there is room.
const GROWTH_BYTES: u64 = 64 << 10;
/// Most bytes of a journal over all its life, so that offsets cannot wrap.
const MAX_JOURNAL_BYTES: u64 = 1 << 60;

/// The journal of a volume that is being written.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    /// Record number of `$UsnJrnl`.
    number: u64,
    settings: Settings,
}

/// What has been said of a file: the reasons, and under which name.
pub(crate) type Said = HashMap<u64, (u32, u64, Vec<u16>)>;

/// The reasons of a write or a change of length: `old` is the length before, `None` of a stream that was not there.
pub(crate) fn data_reasons(stream: &str, old: Option<u64>, start: u64, end: u64) -> u32 {
    let length = old.unwrap_or(0);
    let mut out = 0;
    if start < length.min(end) {
        out |= reason::DATA_OVERWRITE;
    }
    if end > length {
        out |= reason::DATA_EXTEND;
    }
    if stream.is_empty() {
        return out;
    }
    // The reasons of named streams stand four bits higher.
    out << 4 | if old.is_none() { reason::STREAM_CHANGE } else { 0 }
}

/// The reasons of a change of length.
pub(crate) fn resize_reasons(stream: &str, old: Option<u64>, length: u64) -> u32 {
    let cut = old.is_some_and(|old| length < old);
    let grows = data_reasons(stream, old, old.unwrap_or(0), length);
    let truncation = if stream.is_empty() { reason::DATA_TRUNCATION } else { reason::NAMED_DATA_TRUNCATION };
    if cut { truncation } else { grows }
}

impl File {
    /// Bytes of a stream, `None` when it is not there.
    pub(crate) fn stream_bytes(&self, name: &str) -> Option<u64> {
        self.find(kind::DATA, name).map(|place| self.attributes[place].size_bytes())
    }
}

impl Core {
    /// Makes a journal without records.
    pub(crate) fn make_journal(&mut self, settings: Settings) -> Result<()> {
        let extend = File::load(self, EXTEND_RECORD)?;
        let mut information = vec![0; 0x48];
        let now = self.now().0.to_le_bytes();
        let bits = Attributes::HIDDEN | Attributes::SYSTEM | Attributes::SPARSE;
        let security = extend.security_id().unwrap_or(0).to_le_bytes();
        put_all(
            &mut information,
            &[
                (0, &now),
                (8, &now),
                (0x10, &now),
                (0x18, &now),
                (0x20, &bits.to_le_bytes()),
                (0x34, &security),
            ],
        );
        let mut records = Attribute::stream(kind::DATA, "$J", Stream::default());
        records.flags |= SPARSE;
        let attributes = vec![
            Attribute::resident(kind::STANDARD_INFORMATION, "", information),
            records,
            Attribute::resident(kind::DATA, "$Max", settings.encode()),
        ];
        let (number, sequence) = self.allocate_record(false)?;
        let mut file = File::new(number, sequence, EXTEND, attributes);
        self.insert_name(&mut file, extend.header.reference(), "$UsnJrnl")?;
        file.store(self)?;
        self.journal = None;
        Ok(())
    }

    /// The journal, looked for once.
    fn find_journal(&mut self) -> Result<Option<Journal>> {
        if let Some(known) = &self.journal {
            return Ok(known.clone());
        }
        let found = self.open_journal()?;
        self.journal = Some(found.clone());
        Ok(found)
    }

    fn open_journal(&mut self) -> Result<Option<Journal>> {
        let volume = File::load(self, 3)?;
        let flags = volume.value(kind::VOLUME_INFORMATION, "").and_then(|v| u16_at(v, 10)).unwrap_or(0);
        let Ok(extend) = File::load(self, EXTEND_RECORD) else { return Ok(None) };
        let Some(entry) = self.lookup(extend.header.reference(), "$UsnJrnl")? else { return Ok(None) };
        if flags & DELETE_UNDERWAY != 0 {
            return Ok(None);
        }
        let file = File::open(self, entry.reference)?;
        if file.find(kind::DATA, "$J").is_none() {
            return Ok(None);
        }
        let settings = file.value(kind::DATA, "$Max").and_then(Settings::parse);
        let settings = settings.ok_or_else(|| damaged("$UsnJrnl without its settings ($Max)"))?;
        Ok(Some(Journal { number: file.header.number, settings }))
    }

    /// Notes what an operation does to a file. The caller stores the file afterwards, which holds the record's number.
    pub(crate) fn note(&mut self, file: &mut File, reasons: u32) -> Result<()> {
        if self.find_journal()?.is_none() || reasons == 0 {
            return Ok(());
        }
        let names = file.names()?;
        let name = names.iter().find(|name| name.namespace != namespace::DOS).or(names.first());
        match name.cloned() {
            Some(name) => self.note_name(file, &name, reasons | reason::CLOSE),
            None => Ok(()),
        }
    }

    /// The same under a certain name, with all bits of the reason.
    pub(crate) fn note_name(&mut self, file: &mut File, name: &FileName, reasons: u32) -> Result<()> {
        let Some(journal) = self.find_journal()? else { return Ok(()) };
        let reference = file.header.reference();
        let known = self.said.get(&reference).filter(|said| said.1 == name.parent && said.2 == name.name);
        let before = known.map_or(0, |said| said.0);
        if before & reasons == reasons {
            return Ok(());
        }
        let directory = if file.is_directory() { Attributes::DIRECTORY } else { 0 };
        let mut record = Record {
            file: NodeId(reference),
            parent: NodeId(name.parent),
            usn: 0,
            time: self.journal_time(),
            reason: reasons,
            source: 0,
            security_id: file.security_id().unwrap_or(0),
            attributes: file.attribute_bits() & 0x0FFF_FFFF | directory,
            name: name.name.clone(),
        };
        self.append(&journal, &mut record)?;
        let information = file.information_mut()?;
        if information.len() >= 0x48 {
            put_all(information, &[(0x40, &record.usn.to_le_bytes())]);
        }
        self.said_now.push(reference);
        self.said.insert(reference, (before | reasons, name.parent, record.name));
        Ok(())
    }

    /// Appends a record and sets its USN.
    fn append(&mut self, journal: &Journal, record: &mut Record) -> Result<()> {
        let mut file = File::load(self, journal.number)?;
        let place = file.find(kind::DATA, "$J").ok_or_else(|| damaged("$UsnJrnl without $J"))?;
        let mut stream = match &file.attributes[place].body {
            Body::Runs(stream) => stream.clone(),
            Body::Resident(value) if value.is_empty() => Stream::default(),
            Body::Resident(_) => return Err(damaged("$UsnJrnl:$J inside of its record")),
        };
        let next = stream.size_bytes.next_multiple_of(8);
        let length = record.encode().len() as u64;
        let page_end = (next / PAGE_BYTES + 1) * PAGE_BYTES;
        record.usn = if next + length > page_end { page_end } else { next };
        let end = record.usn + length;
        if end > MAX_JOURNAL_BYTES {
            return Err(Error::limit(Layer::Ntfs, "the change journal").found(end));
        }
        if end > stream.allocated_bytes {
            self.trim(journal, &mut file.attributes[place], &mut stream, record.usn);
            let old = stream.allocated_bytes;
            let clusters = GROWTH_BYTES / self.geometry.cluster_bytes;
            let more = if self.clusters.free() > clusters * 4 { GROWTH_BYTES } else { 0 };
            self.extend(&mut stream, end.max(old + more))?;
            // They lie behind the end as long as the operation has not succeeded.
            self.zero_runs(&stream, old.max(stream.size_bytes), stream.allocated_bytes)?;
        }
        let gap = vec![0; (record.usn - stream.size_bytes) as usize];
        let bytes = [gap, record.encode()].concat();
        self.write_late(&stream, stream.size_bytes, &bytes)?;
        stream.size_bytes = end;
        stream.initialized_bytes = end;
        file.attributes[place].body = Body::Runs(stream);
        file.store(self)
    }

    /// Drops the beginning of a journal that is as long as it may be, as Windows does it.
    fn trim(&mut self, journal: &Journal, attribute: &mut Attribute, stream: &mut Stream, usn: u64) {
        let cluster = self.geometry.cluster_bytes;
        let delta = journal.settings.delta_bytes.clamp(cluster, MAX_JOURNAL_BYTES);
        let most = journal.settings.maximum_bytes.min(MAX_JOURNAL_BYTES);
        if stream.total_allocated_bytes <= most.saturating_add(delta) {
            return;
        }
        let unit = cluster.max(PAGE_BYTES);
        let last = usn.saturating_sub(most) / unit * unit / cluster;
        let all = runs::clusters(&stream.runs);
        let gone = runs::slice(&stream.runs, 0, last);
        let freed: u64 = gone.iter().filter(|run| run.lcn.is_some()).map(|run| run.count).sum();
        if freed == 0 || last >= all {
            return;
        }
        let mut left = vec![Run { lcn: None, count: last }];
        runs::slice(&stream.runs, last, all - last).into_iter().for_each(|run| runs::push(&mut left, run));
        stream.runs = left;
        stream.total_allocated_bytes -= freed * cluster;
        attribute.flags |= SPARSE;
        self.release(&gone);
    }
}
