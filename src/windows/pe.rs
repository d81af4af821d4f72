//! PE files: machine, completeness, version resource (crate `pelite`); and the heads of compressed payloads.

use crate::error::{Error, Layer, Result};
use pelite::resources::version_info::VersionInfo;
use serde::Serialize;

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
    match bytes.get(..4) {
        Some([b'M', b'Z', ..]) => Payload::Pe,
        Some([b'D', b'C', b'S' | b'D' | b'M' | b'N' | b'H' | b'X', 1] | b"PA30" | b"PA31" | b"PA19") => {
            Payload::Packed
        }
        _ => Payload::Other,
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
    let mut sum = 0u32;
    for (at, pair) in bytes.chunks(2).enumerate().map(|(i, pair)| (i * 2, pair)) {
        if at == field || at == field + 2 {
            continue;
        }
        sum += u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum & 0xffff) + (sum >> 16) + bytes.len() as u32
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
            Payload::Other if crate::bytes::is_zero(&bytes[..bytes.len().min(4096)]) => {
                return Err(bad("the file is filled with zeros"));
            }
            Payload::Other => return Err(bad("not a PE file").expected("MZ")),
        }
        let file = pelite::PeFile::from_bytes(bytes).map_err(|e| bad("the headers are damaged").found(e))?;
        let header = file.file_header();
        for section in file.section_headers() {
            let end = u64::from(section.PointerToRawData) + u64::from(section.SizeOfRawData);
            if end > bytes.len() as u64 {
                return Err(bad("the file is cut off").expected(format!("{end} bytes")).found(bytes.len()));
            }
        }
        let at = crate::bytes::u32_at(bytes, 0x3c).unwrap_or(0) as usize + 0x58;
        let stored = crate::bytes::u32_at(bytes, at).unwrap_or(0);
        let version = file.resources().ok().and_then(|resources| resources.version_info().ok());
        Ok(PeInfo {
            machine: header.Machine,
            file_version: version.and_then(|info| fixed_version(&info)),
            original_name: version.and_then(|info| text_of(&info, "OriginalFilename")),
            time_stamp: header.TimeDateStamp,
            checksum: stored,
            checksum_right: stored == 0 || stored == pe_checksum(bytes, at),
        })
    }
}

fn fixed_version(info: &VersionInfo<'_>) -> Option<String> {
    let version = info.fixed()?.dwFileVersion;
    Some(format!("{}.{}.{}.{}", version.Major, version.Minor, version.Patch, version.Build))
}

fn text_of(info: &VersionInfo<'_>, key: &str) -> Option<String> {
    let language = *info.translation().first()?;
    info.value(language, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn damaged_files_are_read_without_panic(
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            cut in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            drop(PeInfo::parse(&noise));
            let mut bytes = crate::demo::driver("x.sys", "10.0.1.2", 0x8664);
            for (at, value) in hits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            drop(PeInfo::parse(&bytes));
            bytes.truncate(cut.index(bytes.len()));
            drop(PeInfo::parse(&bytes));
            payload_kind(&bytes);
        }
    }
}
