//! PE files: machine, completeness, version resource; and the heads of compressed payloads. Read here and not by a crate:
//! docs/decisions/pelite.md says why.

use super::version_resource;
use serde::Serialize;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Resource type of version information.
const VERSION: u32 = 16;
/// Resource type of the base that manifests are packed against, in wcp.dll.
const BASE_MANIFEST: u32 = 614;
/// Resource type of message tables.
const MESSAGE_TABLE: u32 = 11;
/// Most sections that Windows loads.
const MAX_SECTIONS: usize = 96;
/// Entries that are looked at in one directory of resources or imports.
const MAX_ENTRIES: usize = 4096;
/// Longest name of an imported file that is read.
const MAX_IMPORT_NAME: usize = 260;

/// What a payload of the component store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// A PE file.
    Pe,
    /// Compressed or a delta: `DCS`, `DCD`, `DCM`, `DCN` and `PA30`; not a file that Windows could load.
    Packed,
    /// Something else.
    Other,
}

/// Tells a PE file from packed payloads by its first bytes.
pub fn payload_kind(bytes: &[u8]) -> Payload {
    match bytes {
        [b'M', b'Z', ..] => Payload::Pe,
        _ if packing(bytes).is_some() => Payload::Packed,
        _ => Payload::Other,
    }
}

/// The head of a packed payload and what it means; `None` for everything else. A delta of an update package has its checksum ahead.
pub fn packing(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match bytes {
        [b'D', b'C', b'S', 1, ..] => Some(("DCS", "a compressed file")),
        [b'D', b'C', b'D', 1, ..] => Some(("DCD", "a delta against another version")),
        [b'D', b'C', b'N', 1, ..] => Some(("DCN", "a file compressed as a delta against nothing")),
        [b'D', b'C', b'M', 1, ..] => Some(("DCM", "a manifest compressed against a base in wcp.dll")),
        [b'D', b'C', b'H' | b'X', 1, ..] => Some(("DCH", "a compressed file")),
        [b'P', b'A', b'3', b'0' | b'1', ..] | [_, _, _, _, b'P', b'A', b'3', b'0' | b'1', ..] => {
            Some(("PA30", "a delta"))
        }
        [b'P', b'A', b'1', b'9', ..] => Some(("PA19", "a delta")),
        _ => None,
    }
}

/// What a PE file says about itself.
#[derive(Debug, Clone, Serialize)]
pub struct PeInfo {
    /// Machine type: 0x8664 for x64, 0xaa64 for ARM64, 0x14c for x86.
    pub machine: u16,
    /// The version of the fixed part of the version resource, as `a.b.c.d`.
    pub file_version: Option<String>,
    /// OriginalFilename of the version resource.
    pub original_name: Option<String>,
    /// Link time stamp.
    pub time_stamp: u32,
    /// Checksum of the header.
    pub checksum: u32,
    /// True when that checksum is the file's, or zero.
    pub checksum_right: bool,
}

/// The name that Windows uses for a machine type.
pub fn machine_name(machine: u16) -> &'static str {
    match machine {
        0x8664 => "amd64",
        0xaa64 => "arm64",
        0x014c => "x86",
        _ => "unknown",
    }
}

/// The sum of 16-bit words with carry, without the checksum field, plus the length: what the loader computes.
pub fn pe_checksum(bytes: &[u8], field: usize) -> u32 {
    // The carries are added in the end: a file has fewer words than a sum of 64 bits holds. Eight bytes at a time, for files are large.
    let (words, tail) = bytes.as_chunks::<8>();
    let mut sum: u64 = words
        .iter()
        .map(|word| {
            let word = u64::from_le_bytes(*word);
            let pairs = (word & 0x0000_ffff_0000_ffff) + (word >> 16 & 0x0000_ffff_0000_ffff);
            (pairs & 0xffff_ffff) + (pairs >> 32)
        })
        .sum();
    sum += tail.chunks(2).map(word_of).sum::<u64>();
    // A field that does not begin at a word is none that a linker wrote.
    if field.is_multiple_of(2) {
        let own = bytes.get(field..).unwrap_or_default();
        sum -= own[..own.len().min(4)].chunks(2).map(word_of).sum::<u64>();
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u32 + bytes.len() as u32
}

fn word_of(pair: &[u8]) -> u64 {
    u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 8
}

impl PeInfo {
    /// Parses a whole file. Sections that reach beyond its end make it incomplete.
    ///
    /// # Errors
    /// `Damaged` when it is no complete PE file, with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<PeInfo> {
        let bad = |what: &str| Error::damaged(Layer::Pe, what.to_string());
        match payload_kind(bytes) {
            Payload::Pe => {}
            Payload::Packed => return Err(bad("a compressed or delta payload, not a PE file")),
            Payload::Other if vmrescue_base::bytes::is_zero(&bytes[..bytes.len().min(4096)]) => {
                return Err(bad("the file is filled with zeros"));
            }
            Payload::Other => return Err(bad("not a PE file").expected("MZ")),
        }
        let headers = Headers::read(bytes).ok_or_else(|| bad("the headers are damaged"))?;
        for section in &headers.sections {
            let end = u64::from(section.raw_place) + u64::from(section.raw_bytes);
            if end > bytes.len() as u64 {
                return Err(bad("the file is cut off").expected(format!("{end} bytes")).found(bytes.len()));
            }
        }
        let at = headers.checksum_place;
        let stored = u32_at(bytes, at).unwrap_or(0);
        let version = headers.version_resource(bytes);
        Ok(PeInfo {
            machine: headers.machine,
            file_version: version.and_then(version_resource::file_version),
            original_name: version.and_then(|resource| version_resource::text(resource, "OriginalFilename")),
            time_stamp: headers.time_stamp,
            checksum: stored,
            checksum_right: stored == 0 || stored == pe_checksum(bytes, at),
        })
    }
}

/// The first message table (`RT_MESSAGETABLE`) of a PE file or a `.mui` file; the file need not be whole.
pub(super) fn message_table(bytes: &[u8]) -> Option<&[u8]> {
    (payload_kind(bytes) == Payload::Pe).then(|| Headers::read(bytes)?.resource(bytes, MESSAGE_TABLE))?
}

/// The text that component manifests (`DCM`) are packed against, out of wcp.dll; `None` when the file has none.
pub fn base_manifest(bytes: &[u8]) -> Option<&[u8]> {
    (payload_kind(bytes) == Payload::Pe).then(|| Headers::read(bytes)?.resource(bytes, BASE_MANIFEST))?
}

/// Names of the files that the import directory asks for, as it spells them. Nothing when the headers cannot be read.
pub fn pe_imports(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let Some(headers) = Headers::read(bytes) else { return names };
    let Some(table) = headers.place(headers.imports).filter(|_| headers.imports != 0) else { return names };
    for at in (0..MAX_ENTRIES).map(|i| table + i * 20) {
        let Some(address) = u32_at(bytes, at + 12).filter(|address| *address != 0) else { break };
        let text = headers.place(address).and_then(|place| bytes.get(place..));
        let text = text
            .and_then(|text| text.iter().take(MAX_IMPORT_NAME).position(|b| *b == 0).map(|end| &text[..end]));
        match text.and_then(|text| std::str::from_utf8(text).ok()) {
            Some(name) if !name.is_empty() => names.push(name.to_string()),
            _ => break,
        }
    }
    names
}

/// Places of what an Authenticode hash leaves out: the checksum field, the entry of the security directory, and the
/// certificate table that this entry points to (empty without one).
pub(super) fn signature_places(bytes: &[u8]) -> Option<(usize, usize, std::ops::Range<usize>)> {
    let headers = Headers::read(bytes)?;
    let entry = headers.security_entry?;
    let (place, length) = (u32_at(bytes, entry)? as usize, u32_at(bytes, entry + 4)? as usize);
    let table = if place == 0 || length == 0 {
        bytes.len()..bytes.len()
    } else {
        place..place.checked_add(length)?
    };
    (table.end <= bytes.len() && table.start >= entry + 8).then_some((headers.checksum_place, entry, table))
}

struct Section {
    address: u32,
    raw_bytes: u32,
    raw_place: u32,
}

/// What the headers say ([PE format], Microsoft).
struct Headers {
    machine: u16,
    time_stamp: u32,
    checksum_place: usize,
    /// Address of the import directory, 0 when there is none.
    imports: u32,
    /// Address of the resource directory, 0 when there is none.
    resources: u32,
    /// Place of the security directory's entry.
    security_entry: Option<usize>,
    sections: Vec<Section>,
}

impl Headers {
    fn read(bytes: &[u8]) -> Option<Headers> {
        let pe = u32_at(bytes, 0x3c)? as usize;
        if slice_at(bytes, pe, 4)? != b"PE\0\0" {
            return None;
        }
        let optional = pe.checked_add(24)?;
        let directories = match u16_at(bytes, optional)? {
            0x10b => optional + 96,
            0x20b => optional + 112,
            _ => return None,
        };
        let table = optional.checked_add(usize::from(u16_at(bytes, pe + 20)?))?;
        let count = usize::from(u16_at(bytes, pe + 6)?);
        if count == 0 || count > MAX_SECTIONS {
            return None;
        }
        let section = |at: usize| {
            let (address, raw_bytes) = (u32_at(bytes, at + 12)?, u32_at(bytes, at + 16)?);
            Some(Section { address, raw_bytes, raw_place: u32_at(bytes, at + 20)? })
        };
        let directory_count = u32_at(bytes, directories - 4)?;
        Some(Headers {
            machine: u16_at(bytes, pe + 4)?,
            time_stamp: u32_at(bytes, pe + 8)?,
            checksum_place: optional + 64,
            imports: if directory_count > 1 { u32_at(bytes, directories + 8)? } else { 0 },
            security_entry: (directory_count > 4).then_some(directories + 32),
            resources: if directory_count > 2 { u32_at(bytes, directories + 16)? } else { 0 },
            sections: (0..count).map(|i| section(table + i * 40)).collect::<Option<_>>()?,
        })
    }

    /// Place in the file of an address in memory.
    fn place(&self, address: u32) -> Option<usize> {
        self.sections.iter().find_map(|section| {
            let within = address.checked_sub(section.address)?;
            (within < section.raw_bytes).then(|| section.raw_place as usize + within as usize)
        })
    }

    /// The bytes of the first version resource.
    fn version_resource<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.resource(bytes, VERSION)
    }

    /// The bytes of the first resource of a type: first name, first language.
    fn resource<'a>(&self, bytes: &'a [u8], kind: u32) -> Option<&'a [u8]> {
        let root = self.place(self.resources).filter(|_| self.resources != 0)?;
        let mut at = root;
        for wanted in [Some(kind), None, None] {
            let count = usize::from(u16_at(bytes, at + 12)?) + usize::from(u16_at(bytes, at + 14)?);
            let entry = (0..count.min(MAX_ENTRIES))
                .map(|i| at + 16 + i * 8)
                .find(|entry| wanted.is_none_or(|wanted| u32_at(bytes, *entry) == Some(wanted)))?;
            let offset = u32_at(bytes, entry + 4)?;
            at = root + (offset & 0x7fff_ffff) as usize;
        }
        let (address, length) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)? as usize);
        slice_at(bytes, self.place(address)?, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_checksum_is_that_of_words_with_carry(
            bytes in prop::collection::vec(prop_oneof![Just(0xff), any::<u8>()], 0..3000), field in 0usize..3100,
        ) {
            let mut sum = 0u32;
            for (at, pair) in bytes.chunks(2).enumerate().map(|(i, pair)| (i * 2, pair)) {
                if at == field || at == field + 2 {
                    continue;
                }
                sum += u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 8;
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(pe_checksum(&bytes, field), sum + bytes.len() as u32);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn damaged_files_are_read_without_panic(
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            cut in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            drop(PeInfo::parse(&noise));
            let mut bytes = crate::testing::driver("x.sys", "10.0.1.2", 0x8664);
            for (at, value) in hits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            drop(PeInfo::parse(&bytes));
            drop(pe_imports(&bytes));
            signature_places(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            drop(PeInfo::parse(&bytes));
            payload_kind(&bytes);
        }
    }
}
