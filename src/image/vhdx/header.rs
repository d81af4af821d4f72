//! The two headers and the two region tables ([MS-VHDX] 2.2).

use super::format::*;
use std::ops::Range;
use vmrescue_base::bytes::{u16_at, u32_at, u64_at};
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::guid::Guid;
use vmrescue_base::text::{until_nul, utf16le_bytes, utf16le_lossy};
use vmrescue_block::{Disk, DiskMut};

/// One header, 2.2.2.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) log_version: u16,
    pub(super) sequence: u64,
    pub(super) file_write_guid: Guid,
    pub(super) data_write_guid: Guid,
    pub(super) log_guid: Guid,
    pub(super) log: Range<u64>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Header> {
        if bytes.get(..4)? != b"head" || !is_sealed(bytes, 4) {
            return None;
        }
        let (length, offset) = (u64::from(u32_at(bytes, 68)?), u64_at(bytes, 72)?);
        Some(Header {
            version: u16_at(bytes, 66)?,
            log_version: u16_at(bytes, 64)?,
            sequence: u64_at(bytes, 8)?,
            file_write_guid: Guid::at(bytes, 16)?,
            data_write_guid: Guid::at(bytes, 32)?,
            log_guid: Guid::at(bytes, 48)?,
            log: offset..offset.checked_add(length)?,
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(b"head");
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.file_write_guid.0);
        bytes[32..48].copy_from_slice(&self.data_write_guid.0);
        bytes[48..64].copy_from_slice(&self.log_guid.0);
        bytes[66] = 1;
        bytes[68..72].copy_from_slice(&((self.log.end - self.log.start) as u32).to_le_bytes());
        bytes[72..80].copy_from_slice(&self.log.start.to_le_bytes());
        sealed(bytes, 4)
    }
}

/// Where the regions lie.
#[derive(Debug, Clone, Default)]
pub(super) struct Regions {
    pub(super) bat: Range<u64>,
    pub(super) metadata: Range<u64>,
    /// Regions that are not known: nothing is moved over them.
    pub(super) others: Vec<Range<u64>>,
}

/// The header that counts, which of the two places it is in, and the regions.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    pub(super) current: Header,
    place: usize,
    pub(super) regions: Regions,
    pub(super) creator: Option<String>,
}

impl Headers {
    pub(super) fn with(mut self, regions: Regions) -> Headers {
        self.regions = regions;
        self
    }

    /// Everything in the file that is no block: the first megabyte, the log, the metadata, the BAT, and regions that
    /// are not known.
    pub(super) fn fixed_ranges(&self) -> Vec<Range<u64>> {
        let Regions { bat, metadata, others } = &self.regions;
        let known = [0..ALIGN, self.current.log.clone(), bat.clone(), metadata.clone()];
        known.into_iter().chain(others.iter().cloned()).collect()
    }

    /// New write identities, and no log: what every first change of a file begins with (2.2.2).
    pub(super) fn renew(&mut self, file: &DiskMut) -> Result<()> {
        self.current.file_write_guid = Guid::random();
        self.current.data_write_guid = Guid::random();
        self.current.log_guid = Guid::ZERO;
        self.write(file)
    }

    /// Writes the changed header twice, first over the older one, so that one is always whole.
    pub(super) fn write(&mut self, file: &DiskMut) -> Result<()> {
        for _ in 0..2 {
            self.current.sequence += 1;
            self.place = 1 - self.place;
            file.write_at(HEADER_PLACES[self.place], &self.current.to_bytes())?;
        }
        Ok(())
    }
}

/// Chooses the header that counts: valid, with the higher sequence number.
pub(super) fn read(file: &Disk, defects: &mut Vec<Defect>) -> Result<Headers> {
    let mut found: Vec<(usize, Header)> = Vec::new();
    for (place, offset) in HEADER_PLACES.into_iter().enumerate() {
        let parsed = file.read_vec(offset, HEADER_BYTES).ok().as_deref().and_then(Header::parse);
        match parsed {
            Some(header) => found.push((place, header)),
            None => defects.push(Defect::new(
                "vhdx-header-bad",
                Severity::Warning,
                Layer::Vhdx,
                offset,
                "one of the two headers is damaged",
            )),
        }
    }
    // With equal numbers (a file that was copied in mid-write) both are the same header; the first will do.
    found.sort_by_key(|(place, header)| (std::cmp::Reverse(header.sequence), *place));
    let Some((place, current)) = found.into_iter().next() else {
        return Err(Error::damaged(Layer::Vhdx, "both headers are damaged").at(HEADER_PLACES[0]));
    };
    let creator = file.read_vec(8, 512).map(|bytes| until_nul(&utf16le_lossy(&bytes)).to_string()).ok();
    Ok(Headers {
        current,
        place,
        regions: Regions::default(),
        creator: creator.filter(|text| !text.is_empty()),
    })
}

fn parse_regions(bytes: &[u8], file_bytes: u64) -> Option<Result<Regions>> {
    if bytes.get(..4)? != b"regi" || !is_sealed(bytes, 4) {
        return None;
    }
    let count = u32_at(bytes, 8)?.min(2047) as usize;
    let mut regions = Regions::default();
    for entry in bytes.get(16..)?.chunks_exact(32).take(count) {
        let (guid, offset) = (Guid::at(entry, 0)?, u64_at(entry, 16)?);
        let range = offset..offset.checked_add(u64::from(u32_at(entry, 24)?))?;
        if guid == BAT_REGION || guid == METADATA_REGION {
            if range.end > file_bytes || range.is_empty() || offset < ALIGN {
                return Some(Err(Error::damaged(Layer::Vhdx, "a region lies outside the file")
                    .at(offset)
                    .found(format!("end {:#x} of {file_bytes:#x}", range.end))));
            }
            *(if guid == BAT_REGION { &mut regions.bat } else { &mut regions.metadata }) = range;
        } else if u32_at(entry, 28)? & 1 != 0 {
            return Some(Err(Error::unsupported(Layer::Vhdx, "a required region is not known").found(guid)));
        } else {
            regions.others.push(range);
        }
    }
    if regions.bat.is_empty() || regions.metadata.is_empty() {
        return Some(Err(Error::damaged(Layer::Vhdx, "the region table names no BAT or no metadata")));
    }
    Some(Ok(regions))
}

/// Reads the first region table that is whole.
pub(super) fn read_regions(file: &Disk, defects: &mut Vec<Defect>) -> Result<Regions> {
    let mut best = None;
    for offset in REGION_PLACES {
        let bytes = file.read_vec(offset, REGION_BYTES).unwrap_or_default();
        match parse_regions(&bytes, file.len()) {
            Some(regions) => best = best.or(Some(regions)),
            None => defects.push(Defect::new(
                "vhdx-region-table-bad",
                Severity::Warning,
                Layer::Vhdx,
                offset,
                "a region table is damaged",
            )),
        }
    }
    best.unwrap_or_else(|| {
        Err(Error::damaged(Layer::Vhdx, "both region tables are damaged").at(REGION_PLACES[0]))
    })
}

/// Identifier and both headers of a new file.
pub(crate) fn new_headers(file: &DiskMut, log: Range<u64>) -> Result<()> {
    file.write_at(0, b"vhdxfile")?;
    file.write_at(8, &utf16le_bytes(concat!("vmrescue ", env!("CARGO_PKG_VERSION"))))?;
    let header = Header {
        version: 1,
        log_version: 0,
        sequence: 0,
        file_write_guid: Guid::random(),
        data_write_guid: Guid::random(),
        log_guid: Guid::ZERO,
        log,
    };
    Headers { current: header, place: 1, regions: Regions::default(), creator: None }.write(file)
}

/// Both region tables of a new file.
pub(crate) fn new_regions(file: &DiskMut, bat: Range<u64>, metadata: Range<u64>) -> Result<()> {
    let mut bytes = vec![0; REGION_BYTES];
    bytes[..4].copy_from_slice(b"regi");
    bytes[8] = 2;
    for (place, guid, range) in [(16, BAT_REGION, bat), (48, METADATA_REGION, metadata)] {
        bytes[place..place + 16].copy_from_slice(&guid.0);
        bytes[place + 16..place + 24].copy_from_slice(&range.start.to_le_bytes());
        bytes[place + 24..place + 28].copy_from_slice(&((range.end - range.start) as u32).to_le_bytes());
        bytes[place + 28] = 1;
    }
    let bytes = sealed(bytes, 4);
    REGION_PLACES.into_iter().try_for_each(|offset| file.write_at(offset, &bytes))
}
