//! Pages of log records (`RCRD`): where they lie, which copy of a page counts, and the arithmetic of LSNs.
//!
//! An LSN is a sequence number (how often the log was written round) above the place in the log in units of 8 bytes. The
//! page being filled is written to a tail copy first: pages 2 and 3 in version 1.1, pages 2 to 33 ("fast pages") in
//! version 2.0. A copy with later records than the page itself replaces it, as Windows does on mount. Pages of DAX volumes,
//! which have a CRC instead of fixups, are not read.

use super::super::write::record::remove_fixups;
use super::restart::Restart;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use vmrescue_base::bytes::{put_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Most pages that are kept in memory: 16 MiB of the usual ones.
const CACHED_PAGES: usize = 4096;

/// The bytes of $LogFile.
pub(crate) type ReadLog<'a> = dyn Fn(u64, &mut [u8]) -> Result<()> + 'a;

/// A page of records, fixups out.
#[derive(Debug)]
pub(crate) struct Page {
    /// The page.
    pub(crate) bytes: Vec<u8>,
    /// The last record that begins on the page (in version 1.1 also: ends).
    pub(crate) last_lsn: u64,
    /// The last record that ends on the page.
    pub(crate) last_end_lsn: u64,
    /// A record ends here.
    pub(crate) ends_record: bool,
    /// Place of the page in the transfer that wrote it, from 1.
    pub(crate) position: u16,
}

impl Page {
    fn parse(mut bytes: Vec<u8>) -> Option<Page> {
        if bytes.get(..4)? != b"RCRD" || !remove_fixups(&mut bytes) {
            return None;
        }
        Some(Page {
            last_lsn: u64_at(&bytes, 8)?,
            ends_record: u32_at(&bytes, 0x10)? & 1 != 0,
            position: u16_at(&bytes, 0x16)?,
            last_end_lsn: u64_at(&bytes, 0x20)?,
            bytes,
        })
    }
}

/// The pages of a log, each in its newest copy.
pub(crate) struct Pages<'a> {
    read: &'a ReadLog<'a>,
    pub(crate) restart: Restart,
    tails: BTreeMap<u64, Rc<Page>>,
    cache: RefCell<BTreeMap<u64, Option<Rc<Page>>>>,
}

fn damaged(what: &str) -> Error {
    Error::damaged(Layer::Ntfs, format!("$LogFile: {what}"))
}

impl<'a> Pages<'a> {
    /// Checks the restart area and finds the tail copies. `length` is the size of $LogFile in bytes.
    ///
    /// # Errors
    /// `Damaged` or `Unsupported` when the restart area does not describe a log that can be read.
    pub(crate) fn open(restart: Restart, length: u64, read: &'a ReadLog<'a>) -> Result<Pages<'a>> {
        let (major, minor) = restart.version;
        if !matches!(restart.version, (1, 0 | 1) | (2, 0)) {
            return Err(Error::unsupported(Layer::Ntfs, "$LogFile: a version that is not known")
                .expected("1.0, 1.1 or 2.0")
                .found(format!("{major}.{minor}")));
        }
        let page = restart.page_bytes as u64;
        let fits = restart.file_bytes.is_multiple_of(page) && restart.file_bytes <= length;
        if !fits || restart.file_bytes > 1 << 32 || restart.file_bytes < 0x30 * page {
            return Err(damaged("its size in the restart area").found(restart.file_bytes).expected(length));
        }
        // 64 bits, less those of a place in the file, which is counted in units of 8 bytes.
        let bits = 67 - (64 - restart.file_bytes.leading_zeros());
        if restart.sequence_bits != bits {
            return Err(damaged("bits of a sequence number").expected(bits).found(restart.sequence_bits));
        }
        let data = restart.data_offset;
        let header = restart.record_header_bytes;
        if restart.system_page_bytes != restart.page_bytes
            || !data.is_multiple_of(8)
            || header != 0x30
            || data < 0x28
            || data + header > restart.page_bytes / 2
        {
            return Err(damaged("sizes of pages and records in the restart area")
                .found(format!("page {page}, data from {data:#x}, record header {header:#x}")));
        }
        let mut pages = Pages { read, restart, tails: BTreeMap::new(), cache: RefCell::default() };
        pages.find_tails();
        Ok(pages)
    }

    /// Pages before the first one of the circle.
    fn first(&self) -> u64 {
        let pages = if self.restart.version.0 >= 2 { 0x22 } else { 4 };
        pages * self.restart.page_bytes as u64
    }

    fn find_tails(&mut self) {
        let size = self.restart.page_bytes as u64;
        for place in (2 * size..self.first()).step_by(size as usize) {
            let Some(mut copy) = self.load(place) else { continue };
            let target = if self.restart.version.0 >= 2 {
                u64::from(u32_at(&copy.bytes, 0x3C).unwrap_or(0))
            } else {
                // In a tail copy of version 1 this field is the place; the page itself has its last LSN there.
                let target = copy.last_lsn;
                copy.last_lsn = copy.last_end_lsn;
                let lsn = copy.last_end_lsn.to_le_bytes();
                if !put_at(&mut copy.bytes, 8, &lsn) {
                    continue;
                }
                target
            };
            let inside = target >= self.first() && target < self.restart.file_bytes;
            let older = |page: &Page| page.last_lsn < copy.last_lsn;
            if inside
                && target.is_multiple_of(size)
                && copy.ends_record
                && self.load(target).is_none_or(|page| older(&page))
                && self.tails.get(&target).is_none_or(|page| older(page))
            {
                self.tails.insert(target, Rc::new(copy));
            }
        }
    }

    fn load(&self, offset: u64) -> Option<Page> {
        let mut bytes = vec![0; self.restart.page_bytes];
        (self.read)(offset, &mut bytes).ok()?;
        Page::parse(bytes)
    }

    /// The page that begins at `offset` of the log; `None` when it is not whole.
    pub(crate) fn page(&self, offset: u64) -> Option<Rc<Page>> {
        if let Some(page) = self.tails.get(&offset) {
            return Some(Rc::clone(page));
        }
        let mut cache = self.cache.borrow_mut();
        if let Some(page) = cache.get(&offset) {
            return page.clone();
        }
        if cache.len() >= CACHED_PAGES {
            cache.clear();
        }
        let page = self.load(offset).map(Rc::new);
        cache.insert(offset, page.clone());
        page
    }

    /// The page after the one at `offset`, and whether the log begins anew there.
    pub(crate) fn after(&self, offset: u64) -> (u64, bool) {
        let next = offset + self.restart.page_bytes as u64; // below 2^33
        if next >= self.restart.file_bytes { (self.first(), true) } else { (next, false) }
    }

    /// Number of pages in the circle.
    pub(crate) fn count(&self) -> u64 {
        (self.restart.file_bytes - self.first()) / self.restart.page_bytes as u64
    }

    /// Page and place in it of a record. `None` when it lies outside the circle.
    pub(crate) fn place_of(&self, lsn: u64) -> Option<(u64, usize)> {
        let bits = self.restart.sequence_bits;
        let offset = lsn.checked_shl(bits)?.checked_shr(bits - 3)?;
        let size = self.restart.page_bytes as u64;
        let (page, within) = (offset / size * size, (offset % size) as usize);
        let inside = page >= self.first() && page < self.restart.file_bytes;
        (inside && within >= self.restart.data_offset).then_some((page, within))
    }

    /// How often the log had been written round at `lsn`.
    pub(crate) fn lap_of(&self, lsn: u64) -> u64 {
        lsn >> (64 - self.restart.sequence_bits)
    }

    /// The LSN of a place.
    pub(crate) fn lsn_at(&self, lap: u64, offset: u64) -> u64 {
        lap << (64 - self.restart.sequence_bits) | offset >> 3
    }
}
