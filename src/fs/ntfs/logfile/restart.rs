//! Restart pages: the first two pages of $LogFile, which say how the volume was left and where its log is to be read from.
//!
//! Versions 1.0, 1.1 (Windows up to 8, and every clean unmount) and 2.0 (Windows 8.1 and later while mounted). Both pages
//! are read, the newer whole one counts. `CHKD` instead of `RSTR` means that chkdsk was here and nothing is to replay.

use super::super::write::record::{apply_fixups, remove_fixups};
use vmrescue_base::bytes::{put_at, u16_at, u32_at, u64_at};

/// Restart area flag: the volume was unmounted cleanly.
const CLEAN: u16 = 2;
/// "No client" in the lists of a restart area.
const NO_CLIENT: u16 = 0xFFFF;
/// Bytes of a client's record in the restart area.
const CLIENT_BYTES: usize = 0xA0;
/// Page size that nearly every log has; the second restart page is looked for there when the first cannot be read.
pub(crate) const USUAL_PAGE_BYTES: usize = 4096;
/// Largest page that is accepted.
pub(crate) const MAX_PAGE_BYTES: usize = 64 << 10;

/// What the two restart pages say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// All 0xFF: never used since the volume was made or the log was reset.
    Empty,
    /// Chkdsk was the last to write here.
    Checked,
    /// Neither page can be read.
    Unreadable,
    /// The newer restart page.
    Restart(Box<Restart>),
}

/// A restart page with its area and its only client, NTFS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restart {
    /// Version, major and minor.
    pub(crate) version: (i16, i16),
    /// Bytes of a restart page.
    pub(crate) system_page_bytes: usize,
    /// Bytes of a page of records.
    pub(crate) page_bytes: usize,
    /// Last record that was surely written when this page was.
    pub(crate) current_lsn: u64,
    /// Flags.
    pub(crate) flags: u16,
    /// Index of the client in use.
    pub(crate) client_in_use: u16,
    /// Bits of a sequence number: the upper bits of an LSN.
    pub(crate) sequence_bits: u32,
    /// Bytes of the log that are used.
    pub(crate) file_bytes: u64,
    /// Bytes of the header of each record.
    pub(crate) record_header_bytes: usize,
    /// Where records begin in a page.
    pub(crate) data_offset: usize,
    /// Oldest record that the client needs.
    pub(crate) oldest_lsn: u64,
    /// The client's restart record: its last checkpoint.
    pub(crate) client_restart_lsn: u64,
    /// Sequence number of the client, which its records carry.
    pub(crate) client_sequence: u16,
    /// The whole page, fixups out.
    bytes: Vec<u8>,
    /// Where the restart area begins.
    area: usize,
    /// Where the client's record begins.
    client: usize,
}

/// Reads the restart pages from the first bytes of $LogFile.
pub(crate) fn read(bytes: &[u8]) -> Found {
    if bytes.len() >= USUAL_PAGE_BYTES && bytes.iter().all(|byte| *byte == 0xFF) {
        return Found::Empty;
    }
    let page = u32_at(bytes, 0x10).filter(|size| (512..=MAX_PAGE_BYTES as u32).contains(size));
    let second = page.map_or(USUAL_PAGE_BYTES, |size| size as usize);
    let places = [0, second, USUAL_PAGE_BYTES];
    if places.iter().any(|at| bytes.get(*at..*at + 4) == Some(b"CHKD")) {
        return Found::Checked;
    }
    let pages = places.iter().filter_map(|at| Restart::parse(bytes.get(*at..)?));
    // The first of equals: max_by_key takes the last.
    pages
        .rev()
        .max_by_key(|restart| restart.current_lsn)
        .map_or(Found::Unreadable, |restart| Found::Restart(Box::new(restart)))
}

/// How many bytes from the start of $LogFile hold both restart pages, as the first one says.
pub(crate) fn bytes_needed(bytes: &[u8]) -> usize {
    let page = u32_at(bytes, 0x10).map_or(0, |size| size as usize);
    if page.is_power_of_two() && (512..=MAX_PAGE_BYTES).contains(&page) { 2 * page } else { 0 }
}

impl Restart {
    fn parse(bytes: &[u8]) -> Option<Restart> {
        let system_page_bytes = u32_at(bytes, 0x10)? as usize;
        let page_bytes = u32_at(bytes, 0x14)? as usize;
        let sized = |size: usize| size.is_power_of_two() && (512..=MAX_PAGE_BYTES).contains(&size);
        if bytes.get(..4)? != b"RSTR" || !sized(system_page_bytes) || !sized(page_bytes) {
            return None;
        }
        let mut page = bytes.get(..system_page_bytes)?.to_vec();
        if !remove_fixups(&mut page) {
            return None;
        }
        let signed = |at| u16_at(&page, at).map(|v| i16::from_le_bytes(v.to_le_bytes()));
        let area = usize::from(u16_at(&page, 0x18)?);
        let client = area.checked_add(usize::from(u16_at(&page, area + 0x16)?))?;
        // A log that was closed has no client to look at.
        let in_use = u16_at(&page, area + 0x0C)?;
        let place = if in_use == NO_CLIENT { 0 } else { usize::from(in_use) };
        let record = client.checked_add(place * CLIENT_BYTES)?;
        let header = page.get(record..record + 0x20);
        if header.is_none() && in_use != NO_CLIENT {
            return None;
        }
        let field = |at| header.and_then(|bytes| u64_at(bytes, at)).unwrap_or(0);
        Some(Restart {
            version: (signed(0x1C)?, signed(0x1A)?),
            system_page_bytes,
            page_bytes,
            current_lsn: u64_at(&page, area)?,
            flags: u16_at(&page, area + 0x0E)?,
            client_in_use: in_use,
            sequence_bits: u32_at(&page, area + 0x10)?,
            file_bytes: u64_at(&page, area + 0x18)?,
            record_header_bytes: usize::from(u16_at(&page, area + 0x24)?),
            data_offset: usize::from(u16_at(&page, area + 0x26)?),
            oldest_lsn: field(0),
            client_restart_lsn: field(8),
            client_sequence: header.and_then(|bytes| u16_at(bytes, 0x14)).unwrap_or(0),
            area,
            client: record,
            bytes: page,
        })
    }

    /// True when nothing is to replay.
    pub(crate) fn is_clean(&self) -> bool {
        self.flags & CLEAN != 0 || self.client_in_use == NO_CLIENT
    }

    /// The page that closes the log: version 1.1, clean, no client in use. Whoever opens it next starts two laps of the log
    /// after `highest_lsn`, so that no page on the volume carries an LSN from the future; this is how Windows itself
    /// leaves a log whose client has gone. `None` when the page has no room for its own fields.
    pub(crate) fn closed(&self, highest_lsn: u64) -> Option<Vec<u8>> {
        let mut page = self.bytes.clone();
        let lsn = self.current_lsn.max(highest_lsn);
        let mut put = |at: usize, value: &[u8]| put_at(&mut page, at, value);
        let done = put(0x1A, &1u16.to_le_bytes())
            && put(0x1C, &1u16.to_le_bytes())
            && put(self.area, &lsn.to_le_bytes())
            && put(self.area + 0x0A, &0u16.to_le_bytes())
            && put(self.area + 0x0C, &NO_CLIENT.to_le_bytes())
            && put(self.area + 0x0E, &(self.flags & 1 | CLEAN).to_le_bytes())
            && put(self.client, &lsn.to_le_bytes())
            && put(self.client + 8, &[0; 8])
            && put(self.client + 0x10, &NO_CLIENT.to_le_bytes())
            && put(self.client + 0x12, &NO_CLIENT.to_le_bytes());
        (done && apply_fixups(&mut page)).then_some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::restart_page;
    use super::*;

    fn found(pages: &[Vec<u8>]) -> Found {
        read(&pages.concat())
    }

    #[test]
    fn the_newer_whole_page_counts() {
        assert_eq!(read(&[0xFF; 8192]), Found::Empty);
        assert_eq!(read(&[0; 8192]), Found::Unreadable);
        let lsn = |found: Found| match found {
            Found::Restart(restart) => (restart.current_lsn, restart.is_clean()),
            other => panic!("{other:?}"),
        };
        assert_eq!(lsn(found(&[restart_page(5, 0, 0), restart_page(6, 0, 2)])), (6, true));
        assert_eq!(lsn(found(&[restart_page(7, 0, 0), restart_page(6, 0xFFFF, 0)])), (7, false));
        assert_eq!(lsn(found(&[vec![1; 4096], restart_page(6, 0xFFFF, 0)])), (6, true));
        let mut torn = restart_page(9, 0, 0);
        torn[1022] ^= 1;
        assert_eq!(lsn(found(&[torn, restart_page(6, 0, 0)])), (6, false));
        let mut checked = restart_page(9, 0, 0);
        checked[..4].copy_from_slice(b"CHKD");
        assert_eq!(found(&[restart_page(6, 0, 0), checked]), Found::Checked);
    }

    #[test]
    fn a_closed_page_is_clean_and_never_older() {
        let Found::Restart(open) = found(&[restart_page(700, 0, 0), restart_page(6, 0, 0)]) else { panic!() };
        let page = open.closed(900).unwrap();
        let Found::Restart(closed) = found(&[page.clone(), page]) else { panic!() };
        assert!(closed.is_clean());
        assert_eq!((closed.version, closed.current_lsn, closed.client_in_use), ((1, 1), 900, NO_CLIENT));
        assert_eq!(Restart::parse(&open.closed(3).unwrap()).unwrap().current_lsn, 700);
    }
}
