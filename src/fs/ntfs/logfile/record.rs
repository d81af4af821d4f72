//! Log records: the header that LFS gives each, and the operation inside that NTFS wrote.
//!
//! A record may go on over several pages and round the end of the log. Its header repeats its own LSN, so that a record of
//! an earlier lap is never taken for one of this lap.

use super::ops;
use super::page::Pages;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer};
use vmrescue_base::limits::MAX_LOG_RECORD_BYTES;

/// Type of a record: an operation.
pub(crate) const OPERATION: u32 = 1;
/// Type of a record: where the client begins when it restarts.
pub(crate) const RESTART: u32 = 2;

/// Flag of a record, in logs of Windows 8 and later: the redo has a length but no bytes; they are zero.
const NO_REDO: u16 = 2;
/// The same for the undo.
const NO_UNDO: u16 = 4;
/// Bytes for operations that have none: as many as a length can say.
static ZEROS: [u8; 0xFFFF] = [0; 0xFFFF];

/// A record.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Its number.
    pub(crate) lsn: u64,
    /// Next record of its transaction to undo.
    pub(crate) undo_next: u64,
    /// Type.
    pub(crate) kind: u32,
    /// Transaction: a place in the transaction table.
    pub(crate) transaction: u32,
    /// Flags: 1 goes on over several pages, [`NO_REDO`], [`NO_UNDO`].
    flags: u16,
    /// What the client wrote.
    pub(crate) data: Vec<u8>,
    /// LSN that the next record must have, when there is one.
    pub(crate) next: u64,
}

/// The error for a record that should be there.
pub(crate) fn missing(lsn: u64) -> Error {
    Error::damaged(Layer::Ntfs, format!("$LogFile: record {lsn:#x} is not there or not whole"))
}

/// Reads the record `lsn`; `None` when what lies there is not that record or not whole.
pub(crate) fn read(pages: &Pages<'_>, lsn: u64) -> Option<Record> {
    let (mut at, within) = pages.place_of(lsn)?;
    let header_bytes = pages.restart.record_header_bytes;
    let mut page = pages.page(at)?;
    let header = slice_at(&page.bytes, within, header_bytes)?;
    if u64_at(header, 0)? != lsn || page.last_lsn < lsn {
        return None;
    }
    let length = u32_at(header, 0x18)? as usize;
    if length > MAX_LOG_RECORD_BYTES {
        return None;
    }
    let (undo_next, kind) = (u64_at(header, 0x10)?, u32_at(header, 0x20)?);
    let transaction = u32_at(header, 0x24)?;
    let flags = u16_at(header, 0x28)?;
    let mut data = Vec::with_capacity(length);
    let mut from = within + header_bytes;
    let mut lap = pages.lap_of(lsn);
    let end = loop {
        let part = page.bytes.get(from..)?;
        let take = part.len().min(length - data.len());
        data.extend_from_slice(&part[..take]);
        if data.len() == length {
            break from + take;
        }
        let (next, wrapped) = pages.after(at);
        (at, lap) = (next, lap + u64::from(wrapped));
        page = pages.page(at)?;
        // A page of an earlier lap has no part of this record.
        if page.last_lsn < lsn {
            return None;
        }
        from = pages.restart.data_offset;
    };
    if !page.ends_record || page.last_end_lsn < lsn {
        return None;
    }
    let end = end.next_multiple_of(8);
    let room = end + header_bytes <= pages.restart.page_bytes;
    let next = if page.last_lsn == lsn || !room {
        let (next, wrapped) = pages.after(at);
        pages.lsn_at(lap + u64::from(wrapped), next + pages.restart.data_offset as u64)
    } else {
        pages.lsn_at(lap, at + end as u64)
    };
    Some(Record { lsn, undo_next, kind, transaction, flags, data, next })
}

/// An operation of NTFS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation<'a> {
    /// What to do again.
    pub(crate) redo: u16,
    /// What takes it back.
    pub(crate) undo: u16,
    /// The bytes for `redo`.
    pub(crate) redo_data: &'a [u8],
    /// The bytes for `undo`.
    pub(crate) undo_data: &'a [u8],
    /// Both have the same length, also where one has no bytes.
    pub(crate) same_length: bool,
    /// Attribute: a place in the table of open attributes.
    pub(crate) target: u16,
    /// Clusters that the target covers, 8 bytes each.
    lcns: &'a [u8],
    /// Offset of the record or attribute that is meant, from the start of the target.
    pub(crate) record_offset: usize,
    /// Offset in the attribute or index block.
    pub(crate) attribute_offset: usize,
    /// Offset of the target in its first cluster, in bytes.
    pub(crate) cluster_offset: u64,
    /// First cluster in the attribute.
    pub(crate) vcn: u64,
}

impl<'a> Operation<'a> {
    /// Takes a record's data apart. `None` when its fields do not fit into it.
    pub(crate) fn parse(record: &'a Record) -> Option<Operation<'a>> {
        let data = &record.data[..];
        let field = |at| u16_at(data, at).map(usize::from);
        let (redo, undo) = (u16_at(data, 0)?, u16_at(data, 2)?);
        let part = |operation: u16, without: u16, at: usize| -> Option<&'a [u8]> {
            let (offset, length) = (field(at)?, field(at + 2)?);
            match slice_at(data, offset, length) {
                _ if record.flags & without != 0 => ZEROS.get(..length),
                // What takes another record back is itself never taken back: the length stands for the other's.
                None if matches!(operation, ops::NOOP | ops::COMPENSATION) => Some(&[]),
                bytes => bytes,
            }
        };
        Some(Operation {
            redo,
            undo,
            redo_data: part(redo, NO_REDO, 4)?,
            undo_data: part(undo, NO_UNDO, 8)?,
            same_length: field(6)? == field(10)?,
            target: u16_at(data, 0x0C)?,
            lcns: slice_at(data, 0x20, field(0x0E)? * 8)?,
            record_offset: field(0x10)?,
            attribute_offset: field(0x12)?,
            cluster_offset: u64::from(u16_at(data, 0x14)?) * 512,
            vcn: u64_at(data, 0x18)?,
        })
    }

    /// The clusters that it names.
    pub(crate) fn lcns(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.lcns.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// Where a client begins when it restarts: its last checkpoint, and where the tables of that moment lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    /// Version of the tables: 0 with pointers of 32 bits, else 1.
    pub(crate) tables_version: u32,
    /// Records after this one belong to the analysis.
    pub(crate) start_lsn: u64,
    /// Records with the table of open attributes, their names, the dirty pages and the transactions; 0 for none.
    pub(crate) tables: [u64; 4],
}

impl Checkpoint {
    /// Takes a restart record apart.
    pub(crate) fn parse(record: &Record) -> Option<Checkpoint> {
        let data = &record.data;
        let start = u64_at(data, 8)?;
        let mut tables = [0; 4];
        for (index, table) in tables.iter_mut().enumerate() {
            // A table without any byte has no record.
            if u32_at(data, 0x30 + 4 * index)? != 0 {
                *table = u64_at(data, 0x10 + 8 * index)?;
            }
        }
        let start_lsn = if start == 0 { record.lsn } else { start };
        Some(Checkpoint { tables_version: u32_at(data, 0)?, start_lsn, tables })
    }
}
