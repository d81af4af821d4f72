//! Event logs: read out of the disk, newest first, dirty and damaged ones too.
//!
//! * [`Source`], [`Reader`]: one log, `.evtx` (Windows Vista and later, crate `evtx`, docs/decisions/evtx.md) or `.evt` (Windows XP and
//!   2003, [MS-EVEN] and the EVENTLOGRECORD of the Windows SDK), chunk by chunk
//! * [`logs`], [`Merged`]: the logs of an installation, several of them as one stream
//! * [`boot_events`]: what matters for a machine that does not boot, counted and grouped
//! * [`Messages`]: texts from the message tables of the providers' files on the disk
//!
//! All times are UTC, as the logs keep them. Missing: the templates of a provider's manifest (`WEVT_TEMPLATE`): the number of a message
//! is derived from the event as the manifest compiler numbers them.

mod boot;
mod evt_log;
mod evtx_log;
mod known;
mod logs;
mod messages;
#[cfg(test)]
mod tests;
mod xml;

pub use boot::{BootEvents, BootGroup, LogRead, boot_events, boot_events_of, group, words};
pub use known::{Kind, Known, known};
pub use logs::{BOOT_LOGS, LogFile, Merged, logs};
pub use messages::Messages;

use serde::{Serialize, Serializer};
use std::collections::VecDeque;
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::Disk;
use vmrescue_fs::{FileSystem, NodeId};

/// A piece of data of an event: parameter or element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Datum {
    /// The name that the event gives it; empty for the numbered parameters of classic providers.
    pub name: String,
    /// The value as text; bytes in hexadecimal.
    pub value: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When it was written, UTC.
    #[serde(serialize_with = "time_text")]
    pub time: FileTime,
    /// The log: name of the channel, or of the file where the event names none.
    pub log: String,
    /// Number in its log.
    pub record_id: u64,
    /// Who wrote it.
    pub provider: String,
    /// The lower 16 bits of the event's number: what the Event Viewer shows.
    pub id: u32,
    /// The upper 16 bits, which classic providers set.
    pub qualifiers: Option<u16>,
    /// Version of the event's definition.
    pub version: u8,
    /// 1 critical, 2 error, 3 warning, 4 information, 5 verbose; 0 counts as information.
    pub level: u8,
    /// Task, or category of a classic event.
    pub task: u32,
    /// Opcode.
    pub opcode: u32,
    /// Keywords as the event has them, such as `0x80000000000000`.
    pub keywords: String,
    /// Computer name at that time.
    pub computer: String,
    /// SID of the user, when there is one.
    pub user: Option<String>,
    /// Process that wrote it.
    pub process: Option<u32>,
    /// Thread that wrote it.
    pub thread: Option<u32>,
    /// Parameters in their order.
    pub data: Vec<Datum>,
    /// The text, when one was found: see [`Messages`] and [`known`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    /// The word for its level.
    pub fn level_name(&self) -> &'static str {
        level_name(self.level)
    }

    /// The value of a parameter by its name, or by its number from 1 when `name` is a number or, as older versions of Windows
    /// leave the names out, `param` and a number.
    pub fn value(&self, name: &str) -> Option<&str> {
        let by_name = self.data.iter().find(|datum| datum.name.eq_ignore_ascii_case(name));
        let number = name.strip_prefix("param").unwrap_or(name);
        let by_number = || number.parse::<usize>().ok().and_then(|n| self.data.get(n.checked_sub(1)?));
        by_name.or_else(by_number).map(|datum| datum.value.as_str())
    }
}

/// The word for a level: what `--level` takes.
pub fn level_name(level: u8) -> &'static str {
    match level {
        1 => "critical",
        2 => "error",
        3 => "warning",
        5 => "verbose",
        _ => "information",
    }
}

pub(crate) fn time_text<S: Serializer>(
    time: &FileTime,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// Which events are wanted; what is empty or `None` does not limit.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Numbers.
    pub ids: Vec<u32>,
    /// The least serious level: 2 for critical and error.
    pub level: Option<u8>,
    /// Part of the provider's name, in any case; `*` and `?` make it a pattern of the whole name.
    pub provider: Option<String>,
    /// Not before.
    pub since: Option<FileTime>,
    /// Not after.
    pub until: Option<FileTime>,
    /// Only those that [`known`] knows.
    pub boot: bool,
}

impl Filter {
    /// True for a time inside the wanted span; cheap, and asked before an event is decoded.
    fn fits_time(&self, time: FileTime) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    /// True for a wanted event.
    pub fn fits(&self, event: &Event) -> bool {
        let level = if event.level == 0 { 4 } else { event.level };
        self.fits_time(event.time)
            && (self.ids.is_empty() || self.ids.contains(&event.id))
            && self.level.is_none_or(|wanted| level <= wanted)
            && self.provider.as_ref().is_none_or(|wanted| {
                if wanted.contains(['*', '?']) {
                    vmrescue_base::text::fits(wanted, &event.provider)
                } else {
                    event.provider.to_lowercase().contains(&wanted.to_lowercase())
                }
            })
            && (!self.boot || known(event).is_some())
    }
}

/// The bytes of a log: a file of the guest or of the host.
#[derive(Clone)]
pub enum Source {
    /// A file in an image.
    Node {
        /// Where it is.
        fs: Arc<dyn FileSystem>,
        /// The file.
        node: NodeId,
        /// Its bytes.
        length: u64,
    },
    /// A file by itself.
    File(Disk),
}

impl Source {
    /// A file of a volume.
    ///
    /// # Errors
    /// Of the file system.
    pub fn node(fs: &Arc<dyn FileSystem>, node: NodeId) -> Result<Source> {
        Ok(Source::Node { fs: Arc::clone(fs), node, length: fs.metadata(node)?.size_bytes })
    }

    fn len(&self) -> u64 {
        match self {
            Source::Node { length, .. } => *length,
            Source::File(disk) => disk.len(),
        }
    }

    /// At most `length` bytes at `offset`; fewer at the end.
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let length = self.len().saturating_sub(offset).min(length as u64) as usize;
        match self {
            Source::File(disk) => disk.read_vec(offset, length),
            Source::Node { fs, node, .. } => {
                let mut bytes = vec![0; length];
                let mut done = 0;
                while done < length {
                    let count = fs.read(*node, "", offset + done as u64, &mut bytes[done..])?;
                    if count == 0 {
                        break;
                    }
                    done += count;
                }
                bytes.truncate(done);
                Ok(bytes)
            }
        }
    }
}

enum Format {
    Evtx(evtx_log::EvtxLog),
    Evt(evt_log::EvtLog),
}

/// One log, newest event first; only one chunk of it is in memory.
pub struct Reader {
    name: String,
    format: Format,
    filter: Filter,
    pending: VecDeque<Event>,
    defects: Vec<Defect>,
}

/// True for the first bytes of an event log.
pub fn looks_like_log(first: &[u8]) -> bool {
    evtx_log::is_evtx(first) || evt_log::is_evt(first)
}

impl Reader {
    /// Opens a log; `name` stands for it where an event names no channel.
    ///
    /// # Errors
    /// `Damaged` when it is no event log at all, or has no whole chunk; errors of reading.
    pub fn open(source: Source, name: &str, filter: &Filter) -> Result<Reader> {
        let first = source.read(0, 4096)?;
        let mut defects = Vec::new();
        let format = if evt_log::is_evt(&first) {
            Format::Evt(evt_log::EvtLog::open(&source, &mut defects)?)
        } else if evtx_log::is_evtx(&first) || source.len() >= evtx_log::FIRST_CHUNK {
            Format::Evtx(evtx_log::EvtxLog::open(source, &first, &mut defects)?)
        } else {
            return Err(Error::damaged(Layer::EventLog, "not an event log")
                .at(0)
                .expected("ElfFile or LfLe"));
        };
        let (name, filter) = (name.to_string(), filter.clone());
        Ok(Reader { name, format, filter, pending: VecDeque::new(), defects })
    }

    /// The name that it was opened with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was damaged so far.
    pub fn defects(&self) -> &[Defect] {
        &self.defects
    }

    /// The next event without taking it.
    pub fn peek(&mut self) -> Option<&Event> {
        while self.pending.is_empty() {
            let more = match &mut self.format {
                Format::Evtx(log) => log.next_chunk(&self.name, &self.filter, &mut self.defects),
                Format::Evt(log) => log.next_part(&self.name, &self.filter, &mut self.defects),
            };
            self.pending.extend(more?.into_iter().filter(|event| self.filter.fits(event)));
        }
        self.pending.front()
    }
}

impl Iterator for Reader {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.peek()?;
        self.pending.pop_front()
    }
}
