//! The three passes of a restart: analysis from the last checkpoint, redo from the oldest change that may be missing, undo
//! of the transactions that did not come to their end.

use super::apply::{Applier, Half, Sizes};
use super::ops;
use super::page::Pages;
use super::record::{self, Checkpoint, OPERATION, Operation, RESTART, Record, missing};
use super::stage::Stage;
use super::tables::{State, Tables, Transaction};
use vmrescue_base::bytes::{u16_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::Disk;

/// What a replay did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records that were read from the last checkpoint on.
    pub records: u64,
    /// Operations that were done again: records and blocks that had not seen them, bitmaps and values in any case.
    pub redone: u64,
    /// Operations that were taken back.
    pub undone: u64,
    /// Transactions that had not come to their end.
    pub transactions: u64,
}

/// The end of a replay.
pub(crate) struct Replayed<'a> {
    pub(crate) stage: Stage<'a>,
    pub(crate) counts: Counts,
    /// Highest LSN of the log.
    pub(crate) last_lsn: u64,
}

/// Says which record an error belongs to, and where it lies in $LogFile.
fn in_record(pages: &Pages<'_>, record: &Record, code: u16, error: Error) -> Error {
    let place = pages.place_of(record.lsn).map_or(0, |(page, within)| page + within as u64);
    let words = format!("record {:#x} of $LogFile (at {place:#x} of it, {})", record.lsn, ops::name(code));
    error.context(words)
}

fn parsed<'r>(pages: &Pages<'_>, record: &'r Record) -> Result<Operation<'r>> {
    Operation::parse(record).ok_or_else(|| {
        let error = Error::damaged(Layer::Ntfs, "its fields do not fit into it");
        in_record(pages, record, ops::NOOP, error)
    })
}

/// Replays the log that `pages` are of, over `disk`.
///
/// # Errors
/// `Damaged` or `Unsupported` with the record that cannot be replayed.
pub(crate) fn replay<'a>(pages: &Pages<'_>, disk: &'a Disk, sizes: Sizes) -> Result<Replayed<'a>> {
    let restart_lsn = pages.restart.client_restart_lsn;
    let mut done =
        Replayed { stage: Stage::new(disk), counts: Counts::default(), last_lsn: pages.restart.current_lsn };
    // A client without a checkpoint has written nothing yet.
    if restart_lsn == 0 {
        return Ok(done);
    }
    let record = record::read(pages, restart_lsn).ok_or_else(|| missing(restart_lsn))?;
    let checkpoint = (record.kind == RESTART).then(|| Checkpoint::parse(&record)).flatten();
    let checkpoint = checkpoint.ok_or_else(|| {
        let error = Error::damaged(Layer::Ntfs, "the client's restart record is none");
        in_record(pages, &record, ops::NOOP, error)
    })?;
    let mut tables = load_tables(pages, &checkpoint, sizes)?;
    let end = analyse(pages, &checkpoint, &mut tables, &mut done)?;
    check_end(pages, &end)?;
    if tables.dirty.is_empty() && tables.transactions.is_empty() {
        return Ok(done);
    }
    let mut applier = Applier { stage: done.stage, tables: &tables, sizes, applied: 0 };
    // Records before the checkpoint are read only for what was dirty or open then.
    let first = tables.oldest().unwrap_or(u64::MAX);
    redo(pages, first, &mut applier)?;
    done.counts.redone = applier.applied;
    undo(pages, &mut applier, &mut done.counts)?;
    done.stage = applier.stage;
    Ok(done)
}

/// The tables as the checkpoint wrote them.
fn load_tables(pages: &Pages<'_>, checkpoint: &Checkpoint, sizes: Sizes) -> Result<Tables> {
    let page = pages.restart.page_bytes as u64;
    let mut tables = Tables::new(checkpoint.tables_version, sizes.cluster_bytes, page);
    for (kind, lsn) in checkpoint.tables.iter().enumerate().filter(|(_, lsn)| **lsn != 0) {
        let record = record::read(pages, *lsn).ok_or_else(|| missing(*lsn))?;
        let operation = parsed(pages, &record)?;
        // The length field has 16 bits only; the table goes on to the end of the record.
        let table = record.data.get(usize::from(u16_at(&record.data, 4).unwrap_or(0))..).unwrap_or_default();
        let loaded = match kind {
            0 => tables.load_attributes(table),
            1 => {
                tables.load_names(table);
                Ok(())
            }
            2 => tables.load_dirty(table),
            _ => tables.load_transactions(table),
        };
        loaded.map_err(|error| in_record(pages, &record, operation.redo, error))?;
    }
    Ok(tables)
}

/// Brings the tables to the end of the log. Returns the last record.
fn analyse(
    pages: &Pages<'_>,
    checkpoint: &Checkpoint,
    tables: &mut Tables,
    done: &mut Replayed<'_>,
) -> Result<Record> {
    let start = checkpoint.start_lsn;
    let mut last = record::read(pages, start).ok_or_else(|| missing(start))?;
    // Bounded: LSNs rise, and every record of the log has one.
    while let Some(record) = record::read(pages, last.next).filter(|record| record.lsn > last.lsn) {
        done.counts.records += 1;
        if record.kind == OPERATION {
            let operation = parsed(pages, &record)?;
            note_transaction(tables, &record, &operation);
            note(tables, &record, &operation).map_err(|e| in_record(pages, &record, operation.redo, e))?;
        }
        last = record;
    }
    if last.lsn < pages.restart.current_lsn {
        return Err(Error::damaged(
            Layer::Ntfs,
            "$LogFile ends before the record that its restart page names",
        )
        .expected(format!("record {:#x}", pages.restart.current_lsn))
        .found(format!("{:#x} as the last one", last.lsn)));
    }
    done.last_lsn = last.lsn;
    Ok(last)
}

fn note_transaction(tables: &mut Tables, record: &Record, operation: &Operation<'_>) {
    if operation.redo == ops::FORGET {
        tables.transactions.remove(&record.transaction);
        return;
    }
    let fresh = Transaction { state: State::Active, first: record.lsn, undo_next: record.lsn };
    let transaction = tables.transactions.entry(record.transaction).or_insert(fresh);
    transaction.undo_next = if operation.undo == ops::COMPENSATION || operation.redo == ops::END_TOP_LEVEL {
        record.undo_next
    } else {
        record.lsn
    };
    match operation.redo {
        ops::PREPARE => transaction.state = State::Prepared,
        ops::COMMIT => transaction.state = State::Committed,
        _ => {}
    }
}

fn note(tables: &mut Tables, record: &Record, operation: &Operation<'_>) -> Result<()> {
    let target = u32::from(operation.target);
    match operation.redo {
        ops::DELETE_DIRTY_CLUSTERS => {
            for range in operation.redo_data.as_chunks::<16>().0 {
                let (lcn, count) = (u64_at(range, 0).unwrap_or(0), u64_at(range, 8).unwrap_or(0));
                tables.dirty.free(lcn, count);
            }
            Ok(())
        }
        ops::OPEN_ATTRIBUTE => tables.open(target, operation.redo_data, operation.undo_data),
        ops::HOT_FIX => {
            let moved = tables.dirty.get(target, operation.vcn).is_some_and(|dirty| dirty.lcn != 0);
            if let Some(lcn) = operation.lcns().next().filter(|_| moved) {
                tables.dirty.place(target, operation.vcn, lcn);
            }
            Ok(())
        }
        code if ops::target(code) != ops::Target::None => {
            tables.touch(target, operation.vcn, operation.lcns(), record.lsn)
        }
        _ => Ok(()),
    }
}

/// After the last record there must be nothing newer, but for pages of the transfer that was cut off: their order of
/// arrival is not known. Anything else means that records are lost in the middle.
fn check_end(pages: &Pages<'_>, last: &Record) -> Result<()> {
    let Some((mut at, _)) = pages.place_of(last.next) else { return Ok(()) };
    let mut distance = 0;
    while distance < pages.count().min(64) {
        let page = pages.page(at);
        if let Some(page) = page.filter(|page| page.last_lsn.max(page.last_end_lsn) > last.lsn) {
            let same_transfer = u64::from(page.position) > distance || page.last_end_lsn <= last.lsn;
            if !same_transfer {
                return Err(Error::damaged(Layer::Ntfs, "$LogFile has lost records in its middle")
                    .expected(format!("record {:#x}", last.next))
                    .found(format!("a page at {at:#x} of it with record {:#x}", page.last_lsn)));
            }
        }
        at = pages.after(at).0;
        distance += 1;
    }
    Ok(())
}

fn redo(pages: &Pages<'_>, first: u64, applier: &mut Applier<'_, '_>) -> Result<()> {
    if applier.tables.dirty.is_empty() {
        return Ok(());
    }
    let mut record = record::read(pages, first).ok_or_else(|| missing(first))?;
    loop {
        if record.kind == OPERATION {
            let operation = parsed(pages, &record)?;
            let dirty = applier.tables.dirty.get(u32::from(operation.target), operation.vcn);
            // A page that was clean, or became dirty only later, has the change already.
            if operation.lcns().len() > 0 && dirty.is_some_and(|dirty| record.lsn >= dirty.oldest) {
                let half = Half { code: operation.redo, data: operation.redo_data, lsn: Some(record.lsn) };
                let result = applier.apply(&operation, half);
                result.map_err(|error| in_record(pages, &record, operation.redo, error))?;
            }
        }
        match record::read(pages, record.next).filter(|next| next.lsn > record.lsn) {
            Some(next) => record = next,
            None => return Ok(()),
        }
    }
}

fn undo(pages: &Pages<'_>, applier: &mut Applier<'_, '_>, counts: &mut Counts) -> Result<()> {
    let tables = applier.tables;
    let open = tables.transactions.iter().filter(|(_, transaction)| transaction.state == State::Active);
    for (id, transaction) in open {
        let before = applier.applied;
        let mut lsn = transaction.undo_next;
        // Bounded: LSNs fall, and a record belongs to one transaction.
        while lsn != 0 {
            let record = record::read(pages, lsn).ok_or_else(|| missing(lsn))?;
            let operation = parsed(pages, &record)?;
            if record.transaction != *id || record.kind != OPERATION {
                let error =
                    Error::damaged(Layer::Ntfs, "it is to be undone but belongs to another transaction");
                return Err(in_record(pages, &record, operation.undo, error));
            }
            let half = Half { code: operation.undo, data: operation.undo_data, lsn: None };
            let result = applier.apply(&operation, half);
            result.map_err(|error| in_record(pages, &record, operation.undo, error).context("undo"))?;
            let next = record.undo_next;
            if next >= lsn {
                return Err(in_record(pages, &record, operation.undo, missing(next)));
            }
            lsn = next;
        }
        counts.transactions += u64::from(applier.applied > before);
    }
    counts.undone = applier.applied - counts.redone;
    Ok(())
}
