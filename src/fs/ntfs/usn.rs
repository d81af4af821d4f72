//! The change journal, `\$Extend\$UsnJrnl`: the records of its stream `$J` (USN_RECORD_V2 and V3, [MS-FSCC] 2.4.54 and
//! winioctl.h) and the settings in `$Max`.
//!
//! A record's USN is its offset in `$J`. Records are aligned to 8 and do not cross a page of 4 KiB; what is left of a
//! page is zero. `$J` has a hole where records were dropped. Records of version 4 (ranges) are passed over.

use super::node::kind;
use super::volume::{Volume, no_stream};
use crate::{FileSystem, NodeId};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::{utf16le_bytes, utf16le_units};
use vmrescue_base::time::FileTime;

/// Records do not cross multiples of this.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Bytes in front of the name in version 2.
const HEADER_BYTES: usize = 0x3C;
/// Bytes of `$J` that are read at once, a multiple of the page.
const READ_BYTES: usize = 1 << 20;

/// Bits of [`Record::reason`].
pub mod reason {
    /// Data of the unnamed stream was overwritten.
    pub const DATA_OVERWRITE: u32 = 0x0000_0001;
    /// It grew.
    pub const DATA_EXTEND: u32 = 0x0000_0002;
    /// It was cut.
    pub const DATA_TRUNCATION: u32 = 0x0000_0004;
    /// Data of a named stream was overwritten.
    pub const NAMED_DATA_OVERWRITE: u32 = 0x0000_0010;
    /// It grew.
    pub const NAMED_DATA_EXTEND: u32 = 0x0000_0020;
    /// It was cut.
    pub const NAMED_DATA_TRUNCATION: u32 = 0x0000_0040;
    /// The file was made.
    pub const FILE_CREATE: u32 = 0x0000_0100;
    /// It was deleted.
    pub const FILE_DELETE: u32 = 0x0000_0200;
    /// Extended attributes changed.
    pub const EA_CHANGE: u32 = 0x0000_0400;
    /// The security descriptor changed.
    pub const SECURITY_CHANGE: u32 = 0x0000_0800;
    /// The name in the record was given up.
    pub const RENAME_OLD_NAME: u32 = 0x0000_1000;
    /// The name in the record is new.
    pub const RENAME_NEW_NAME: u32 = 0x0000_2000;
    /// Attributes or times changed.
    pub const BASIC_INFO_CHANGE: u32 = 0x0000_8000;
    /// A name was added or removed.
    pub const HARD_LINK_CHANGE: u32 = 0x0001_0000;
    /// Compression was switched.
    pub const COMPRESSION_CHANGE: u32 = 0x0002_0000;
    /// Encryption was switched.
    pub const ENCRYPTION_CHANGE: u32 = 0x0004_0000;
    /// The object id changed.
    pub const OBJECT_ID_CHANGE: u32 = 0x0008_0000;
    /// The reparse point changed.
    pub const REPARSE_POINT_CHANGE: u32 = 0x0010_0000;
    /// A named stream was made, removed or renamed.
    pub const STREAM_CHANGE: u32 = 0x0020_0000;
    /// The last handle was closed.
    pub const CLOSE: u32 = 0x8000_0000;
}

/// The bits with the names that `fsutil usn` has for them.
const NAMES: &[(u32, &str)] = &[
    (reason::DATA_OVERWRITE, "Data overwrite"),
    (reason::DATA_EXTEND, "Data extend"),
    (reason::DATA_TRUNCATION, "Data truncation"),
    (reason::NAMED_DATA_OVERWRITE, "Named data overwrite"),
    (reason::NAMED_DATA_EXTEND, "Named data extend"),
    (reason::NAMED_DATA_TRUNCATION, "Named data truncation"),
    (reason::FILE_CREATE, "File create"),
    (reason::FILE_DELETE, "File delete"),
    (reason::EA_CHANGE, "Extended attribute change"),
    (reason::SECURITY_CHANGE, "Security change"),
    (reason::RENAME_OLD_NAME, "Rename: old name"),
    (reason::RENAME_NEW_NAME, "Rename: new name"),
    (0x0000_4000, "Indexable change"),
    (reason::BASIC_INFO_CHANGE, "Basic info change"),
    (reason::HARD_LINK_CHANGE, "Hard link change"),
    (reason::COMPRESSION_CHANGE, "Compression change"),
    (reason::ENCRYPTION_CHANGE, "Encryption change"),
    (reason::OBJECT_ID_CHANGE, "Object ID change"),
    (reason::REPARSE_POINT_CHANGE, "Reparse point change"),
    (reason::STREAM_CHANGE, "Stream change"),
    (0x0040_0000, "Transacted change"),
    (0x0080_0000, "Integrity change"),
    (reason::CLOSE, "Close"),
];

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The file; of 128-bit ids the lower half, which is all of it on NTFS.
    pub file: NodeId,
    /// The directory of the name.
    pub parent: NodeId,
    /// Offset of the record in `$J`.
    pub usn: u64,
    /// When.
    pub time: FileTime,
    /// What happened since the file was opened: bits of [`reason`].
    pub reason: u32,
    /// Who says so: 0 for ordinary programs.
    pub source: u32,
    /// Security id of the file.
    pub security_id: u32,
    /// DOS attributes of the file.
    pub attributes: u32,
    /// The name in UTF-16 units.
    pub name: Vec<u16>,
}

impl Record {
    /// The record at the start of `bytes` and its length. `None` when there is none, or one that does not hold its own
    /// fields.
    pub fn parse(bytes: &[u8]) -> Option<(Record, usize)> {
        let length = u32_at(bytes, 0)? as usize;
        let record = slice_at(bytes, 0, length)?;
        // In version 3 both ids are twice as long.
        let wide = match (u16_at(record, 4)?, u16_at(record, 6)?) {
            (2, 0) => 0,
            (3, 0) => 8,
            _ => return None,
        };
        let rest = record.get(0x18 + 2 * wide..)?;
        let name = slice_at(record, usize::from(u16_at(rest, 0x22)?), usize::from(u16_at(rest, 0x20)?))?;
        if !length.is_multiple_of(8) || length as u64 > PAGE_BYTES {
            return None;
        }
        let parsed = Record {
            file: NodeId(u64_at(record, 8)?),
            parent: NodeId(u64_at(record, 0x10 + wide)?),
            usn: u64_at(rest, 0)?,
            time: FileTime(u64_at(rest, 8)?),
            reason: u32_at(rest, 0x10)?,
            source: u32_at(rest, 0x14)?,
            security_id: u32_at(rest, 0x18)?,
            attributes: u32_at(rest, 0x1C)?,
            name: utf16le_units(name),
        };
        Some((parsed, length))
    }

    /// As a record of version 2.
    pub fn encode(&self) -> Vec<u8> {
        let name: Vec<u8> = self.name.iter().take(255).flat_map(|unit| unit.to_le_bytes()).collect();
        let length = (HEADER_BYTES + name.len()).next_multiple_of(8);
        let mut out = (length as u32).to_le_bytes().to_vec();
        out.extend_from_slice(&[2, 0, 0, 0]);
        for number in [self.file.0, self.parent.0, self.usn, self.time.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.reason, self.source, self.security_id, self.attributes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        out.extend_from_slice(&name);
        out.resize(length, 0);
        out
    }

    /// The name as text.
    pub fn name(&self) -> String {
        String::from_utf16_lossy(&self.name)
    }

    /// The reasons as `fsutil usn` names them.
    pub fn reasons(&self) -> Vec<&'static str> {
        NAMES.iter().filter(|(bit, _)| self.reason & bit != 0).map(|(_, name)| *name).collect()
    }
}

/// The records in a part of `$J` that was taken from `offset` on, where a record or a page begins. What is no record is
/// passed over up to the next page, so that damage costs one page.
pub fn records(bytes: &[u8], offset: u64) -> impl Iterator<Item = Record> {
    let phase = (offset % PAGE_BYTES) as usize;
    let mut at = 0usize;
    std::iter::from_fn(move || {
        // Bounded: every step goes forward.
        while at < bytes.len() {
            let page_end = ((phase + at) / PAGE_BYTES as usize + 1) * PAGE_BYTES as usize - phase;
            let page = &bytes[at..page_end.min(bytes.len())];
            if let Some((record, length)) = Record::parse(page) {
                at += length;
                return Some(record);
            }
            // A record of another version says at least how long it is.
            let other = u32_at(page, 0).map_or(0, |length| length as usize);
            let known = other >= 8 && other.is_multiple_of(8) && other < page.len();
            at = if known { at + other } else { page_end };
        }
        None
    })
}

/// The settings of a journal: `$UsnJrnl:$Max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that the journal may take before its beginning is dropped.
    pub maximum_bytes: u64,
    /// Bytes that are taken and dropped at once.
    pub delta_bytes: u64,
    /// The journal's id: the time when it was made.
    pub id: u64,
    /// USNs below are of an earlier journal.
    pub lowest_usn: u64,
}

impl Settings {
    /// From the bytes of `$Max`.
    pub fn parse(bytes: &[u8]) -> Option<Settings> {
        Some(Settings {
            maximum_bytes: u64_at(bytes, 0)?,
            delta_bytes: u64_at(bytes, 8)?,
            id: u64_at(bytes, 16)?,
            lowest_usn: u64_at(bytes, 24)?,
        })
    }

    /// The bytes of `$Max`.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [self.maximum_bytes, self.delta_bytes, self.id, self.lowest_usn];
        fields.iter().flat_map(|number| number.to_le_bytes()).collect()
    }
}

impl Volume {
    /// The settings of the change journal, `None` when the volume has none.
    ///
    /// # Errors
    /// Damage.
    pub fn usn_settings(&self) -> Result<Option<Settings>> {
        let Some(journal) = self.usn_journal()? else { return Ok(None) };
        let mut bytes = [0; 32];
        let read = self.read(journal, "$Max", 0, &mut bytes)?;
        Settings::parse(&bytes[..read])
            .map(Some)
            .ok_or_else(|| Error::damaged(Layer::Ntfs, "$UsnJrnl:$Max is cut off").found(read))
    }

    fn usn_journal(&self) -> Result<Option<NodeId>> {
        match self.lookup(self.root(), "$Extend")? {
            Some(extend) => self.lookup(extend, "$UsnJrnl"),
            None => Ok(None),
        }
    }

    /// Hands all records of the change journal to `visit`, oldest first; none when the volume has no journal.
    ///
    /// # Errors
    /// Damage of the file that holds the journal; what `visit` returns.
    pub fn usn_records(&self, visit: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        let Some(journal) = self.usn_journal()? else { return Ok(()) };
        let number = super::record::number_of(journal.0);
        let node = self.node_of(journal)?;
        let data = node.attribute(kind::DATA, &utf16le_bytes("$J")).ok_or_else(|| no_stream(number, "$J"))?;
        let cluster = u64::from(self.boot().cluster_bytes);
        let (size, mut at) = (data.size(), 0);
        let mut buf = vec![0; READ_BYTES];
        while at < size {
            // The hole in front may be terabytes.
            if let super::node::Value::Clustered(clustered) = &data.value
                && let Some((None, count)) = clustered.map.find(at / cluster)
            {
                let hole = count.saturating_mul(cluster) / PAGE_BYTES * PAGE_BYTES;
                if hole > 0 {
                    at = at.saturating_add(hole);
                    continue;
                }
            }
            let length = self.read_attribute(number, data, at, &mut buf)?;
            if length == 0 {
                break;
            }
            records(&buf[..length], at).try_for_each(&mut *visit)?;
            at += length as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(usn: u64, name: &str) -> Record {
        Record {
            file: NodeId(0x0001_0000_0000_001E),
            parent: NodeId(0x0005_0000_0000_0005),
            usn,
            time: FileTime(0x01D1_2BB4_3C0C_C012),
            reason: reason::FILE_CREATE | reason::CLOSE,
            source: 0,
            security_id: 0x104,
            attributes: 0x20,
            name: name.encode_utf16().collect(),
        }
    }

    #[test]
    fn a_record_is_what_windows_writes() {
        // The first record of a journal that Windows XP made, with CLOSE added.
        let bytes = record(0, "Nieuw - Tekstdocument.txt").encode();
        assert_eq!(bytes.len(), 0x70);
        assert_eq!(bytes[..0x14], [0x70, 0, 0, 0, 2, 0, 0, 0, 0x1E, 0, 0, 0, 0, 0, 1, 0, 5, 0, 0, 0]);
        assert_eq!(bytes[0x20..0x2C], [0x12, 0xC0, 0x0C, 0x3C, 0xB4, 0x2B, 0xD1, 0x01, 0, 1, 0, 0x80]);
        assert_eq!(bytes[0x38..0x40], [0x32, 0, 0x3C, 0, b'N', 0, b'i', 0]);
        assert_eq!(Record::parse(&bytes).unwrap(), (record(0, "Nieuw - Tekstdocument.txt"), 0x70));
        assert_eq!(record(0, "x").reasons(), ["File create", "Close"]);
    }

    #[test]
    fn pages_are_walked_and_damage_costs_one() {
        let mut bytes = vec![0; 3 * 4096];
        for (at, name) in [(0, "a"), (0x40, "b"), (4096, "c"), (8192, "d")] {
            let record = record(at as u64, name).encode();
            bytes[at..at + record.len()].copy_from_slice(&record);
        }
        let names = |bytes: &[u8]| records(bytes, 0).map(|r| r.name()).collect::<String>();
        assert_eq!(names(&bytes), "abcd");
        bytes[4096] = 0xFF;
        assert_eq!(names(&bytes), "abd");
        bytes[4] = 4; // a record of another version
        assert_eq!(names(&bytes), "bd");
    }

    proptest! {
        #[test]
        fn anything_is_walked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000), length in 0u32..200) {
            let mut bytes = bytes;
            if bytes.len() > 8 {
                bytes[..4].copy_from_slice(&length.to_le_bytes());
                bytes[4..8].copy_from_slice(&[2, 0, 0, 0]);
            }
            prop_assert!(records(&bytes, u64::from(length)).count() <= bytes.len() / 8);
        }
    }
}
