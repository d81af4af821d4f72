//! A writer of logs for tests: restart pages, pages of records, records with operations, in versions 1.1 and 2.0.

use super::super::write::record::apply_fixups;
use super::ops;
use super::record::{OPERATION, RESTART};

pub(crate) const PAGE: usize = 4096;
/// Size of the logs that are made here: bits of a sequence number follow from it.
pub(crate) const LOG_BYTES: u64 = 0x100000;
const DATA: usize = 0x40;
const HEADER: usize = 0x30;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn bits() -> u32 {
    67 - (64 - LOG_BYTES.leading_zeros())
}

/// A restart page whose client has no checkpoint.
pub(crate) fn restart_page(lsn: u64, in_use: u16, flags: u16) -> Vec<u8> {
    restart_page_of(lsn, in_use, flags, (1, 1), 0)
}

/// A restart page.
pub(crate) fn restart_page_of(
    lsn: u64,
    in_use: u16,
    flags: u16,
    version: (u16, u16),
    client: u64,
) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    put(&mut page, 0, b"RSTR");
    for (at, value) in [(4, 0x1Eu16), (6, 9), (0x18, 0x30), (0x1A, version.1), (0x1C, version.0)] {
        put(&mut page, at, &value.to_le_bytes());
    }
    put(&mut page, 0x10, &(PAGE as u32).to_le_bytes());
    put(&mut page, 0x14, &(PAGE as u32).to_le_bytes());
    let area = 0x30;
    put(&mut page, area, &lsn.to_le_bytes());
    for (at, value) in [(8, 1), (0x0A, 0xFFFF), (0x0C, in_use), (0x0E, flags), (0x14, 0xE0), (0x16, 0x40)] {
        put(&mut page, area + at, &u16::to_le_bytes(value));
    }
    put(&mut page, area + 0x10, &bits().to_le_bytes());
    put(&mut page, area + 0x18, &LOG_BYTES.to_le_bytes());
    put(&mut page, area + 0x24, &(HEADER as u16).to_le_bytes());
    put(&mut page, area + 0x26, &(DATA as u16).to_le_bytes());
    put(&mut page, area + 0x40, &client.to_le_bytes());
    put(&mut page, area + 0x48, &client.to_le_bytes());
    for at in [0x50, 0x52] {
        put(&mut page, area + at, &0xFFFFu16.to_le_bytes());
    }
    put(&mut page, area + 0x5C, &8u32.to_le_bytes());
    put(&mut page, area + 0x60, b"N\0T\0F\0S\0");
    assert!(apply_fixups(&mut page));
    page
}

/// Where an operation works.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) target: u16,
    pub(crate) vcn: u64,
    pub(crate) lcns: Vec<u64>,
    /// In bytes.
    pub(crate) cluster_offset: u64,
    pub(crate) record_offset: u16,
    pub(crate) attribute_offset: u16,
}

/// An operation as NTFS writes it.
pub(crate) fn operation(redo: (u16, &[u8]), undo: (u16, &[u8]), place: &Place) -> Vec<u8> {
    let start = 0x20 + 8 * place.lcns.len().max(1);
    let undo_start = start + redo.1.len().next_multiple_of(8);
    let mut out = vec![0; undo_start + undo.1.len().next_multiple_of(8)];
    let fields = [
        redo.0,
        undo.0,
        start as u16,
        redo.1.len() as u16,
        undo_start as u16,
        undo.1.len() as u16,
        place.target,
        place.lcns.len() as u16,
        place.record_offset,
        place.attribute_offset,
        (place.cluster_offset / 512) as u16,
        2,
    ];
    for (index, field) in fields.iter().enumerate() {
        put(&mut out, 2 * index, &field.to_le_bytes());
    }
    put(&mut out, 0x18, &place.vcn.to_le_bytes());
    for (index, lcn) in place.lcns.iter().enumerate() {
        put(&mut out, 0x20 + 8 * index, &lcn.to_le_bytes());
    }
    put(&mut out, start, redo.1);
    put(&mut out, undo_start, undo.1);
    out
}

/// A log that grows. The client's checkpoint is its first record.
pub(crate) struct LogWriter {
    version: (u16, u16),
    /// Pages by their place, fixups out.
    pages: std::collections::BTreeMap<u64, Vec<u8>>,
    page: u64,
    at: usize,
    lap: u64,
    pub(crate) last: u64,
    pub(crate) checkpoint: u64,
    /// The last record of each transaction.
    transactions: std::collections::BTreeMap<u32, u64>,
}

impl LogWriter {
    /// A log with its checkpoint; `page` is where in the log it begins, to make it wrap.
    pub(crate) fn new(version: (u16, u16), lap: u64, page: u64) -> LogWriter {
        let mut log = LogWriter {
            version,
            pages: Default::default(),
            page: page * PAGE as u64,
            at: DATA,
            lap,
            last: 0,
            checkpoint: 0,
            transactions: Default::default(),
        };
        let mut data = vec![0; 0x70];
        put(&mut data, 0, &1u32.to_le_bytes());
        log.checkpoint = log.append(RESTART, 0, 0, &data);
        log
    }

    fn first(&self) -> u64 {
        (if self.version.0 >= 2 { 0x22 } else { 4 }) * PAGE as u64
    }

    fn next_page(&mut self) {
        self.page += PAGE as u64;
        if self.page >= LOG_BYTES {
            (self.page, self.lap) = (self.first(), self.lap + 1);
        }
        self.at = DATA;
    }

    fn page_mut(&mut self) -> &mut Vec<u8> {
        self.pages.entry(self.page).or_insert_with(|| {
            let mut page = vec![0; PAGE];
            put(&mut page, 0, b"RCRD\x28\0\x09\0");
            for at in [0x14, 0x16] {
                put(&mut page, at, &1u16.to_le_bytes());
            }
            page
        })
    }

    fn append(&mut self, kind: u32, transaction: u32, undo_next: u64, data: &[u8]) -> u64 {
        if self.at + HEADER > PAGE {
            self.next_page();
        }
        let lsn = self.lap << (64 - bits()) | (self.page + self.at as u64) >> 3;
        let previous = self.transactions.get(&transaction).copied().unwrap_or(0);
        let mut bytes = vec![0; HEADER];
        put(&mut bytes, 0, &lsn.to_le_bytes());
        put(&mut bytes, 8, &previous.to_le_bytes());
        put(&mut bytes, 0x10, &undo_next.to_le_bytes());
        put(&mut bytes, 0x18, &(data.len() as u32).to_le_bytes());
        put(&mut bytes, 0x20, &kind.to_le_bytes());
        put(&mut bytes, 0x24, &transaction.to_le_bytes());
        bytes.extend_from_slice(data);
        let mut rest = &bytes[..];
        loop {
            let (at, take) = (self.at, rest.len().min(PAGE - self.at));
            let page = self.page_mut();
            // A page that a lap before was written is another page now.
            if at == DATA {
                page[DATA..].fill(0);
                put(page, 0x10, &[0; 4]);
            }
            put(page, at, &rest[..take]);
            put(page, 8, &lsn.to_le_bytes());
            rest = &rest[take..];
            self.at += take;
            if rest.is_empty() {
                let end = self.at.next_multiple_of(8);
                let page = self.page_mut();
                put(page, 0x10, &1u32.to_le_bytes());
                put(page, 0x18, &(end as u16).to_le_bytes());
                put(page, 0x20, &lsn.to_le_bytes());
                self.at = end;
                break;
            }
            self.next_page();
        }
        self.last = lsn;
        self.transactions.insert(transaction, lsn);
        lsn
    }

    /// Appends an operation of a transaction.
    pub(crate) fn log(&mut self, transaction: u32, data: &[u8]) -> u64 {
        let before = self.transactions.get(&transaction).copied().unwrap_or(0);
        self.append(OPERATION, transaction, before, data)
    }

    /// Ends a transaction.
    pub(crate) fn forget(&mut self, transaction: u32) {
        let data = operation((ops::FORGET, &[]), (ops::COMPENSATION, &[]), &Place::default());
        self.append(OPERATION, transaction, 0, &data);
        self.transactions.remove(&transaction);
    }

    /// Says that an attribute is open.
    pub(crate) fn open(&mut self, transaction: u32, target: u16, file: u64, kind: u32, block_bytes: u32) {
        let mut entry = vec![0; 0x28];
        put(&mut entry, 0, &u32::MAX.to_le_bytes());
        put(&mut entry, 4, &block_bytes.to_le_bytes());
        put(&mut entry, 8, &kind.to_le_bytes());
        put(&mut entry, 0x10, &file.to_le_bytes());
        let place = Place { target, ..Place::default() };
        self.log(transaction, &operation((ops::OPEN_ATTRIBUTE, &entry), (ops::NOOP, &[]), &place));
    }

    /// The log as a crash leaves it. With `tails`, the last page is only in its tail copy.
    pub(crate) fn crashed(&self, tails: bool) -> Vec<u8> {
        let mut bytes = vec![0xFF; LOG_BYTES as usize];
        let restart = restart_page_of(self.checkpoint, 0, 0, self.version, self.checkpoint);
        put(&mut bytes, 0, &restart);
        put(&mut bytes, PAGE, &restart);
        for (place, page) in &self.pages {
            let mut page = page.clone();
            let mut at = *place as usize;
            if tails && *place == self.page {
                if self.version.0 >= 2 {
                    put(&mut page, 0x3C, &(*place as u32).to_le_bytes());
                    at = 0x12 * PAGE;
                } else {
                    put(&mut page, 8, &place.to_le_bytes());
                    at = 3 * PAGE;
                }
            }
            assert!(apply_fixups(&mut page));
            put(&mut bytes, at, &page);
        }
        bytes
    }
}
