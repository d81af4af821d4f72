//! The footer and the dynamic disk header.

use vmrescue_base::bytes::array_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::utf16le_lossy;
use vmrescue_block::Disk;

/// Length of the footer.
pub(crate) const FOOTER_BYTES: u64 = 512;
/// Disk type: fixed.
pub(crate) const KIND_FIXED: u32 = 2;
/// Disk type: dynamic.
pub(crate) const KIND_DYNAMIC: u32 = 3;
/// Disk type: differencing.
pub(crate) const KIND_DIFFERENCING: u32 = 4;
/// Seconds from 1970 to 2000, where VHD times begin.
const EPOCH: i64 = 946_684_800;

fn be32(bytes: &[u8], at: usize) -> u32 {
    array_at(bytes, at).map(u32::from_be_bytes).unwrap_or_default()
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    array_at(bytes, at).map(u64::from_be_bytes).unwrap_or_default()
}

/// Ones' complement of the sum of all bytes, the checksum's own left out.
pub(super) fn sum(bytes: &[u8], at: usize) -> u32 {
    let all = bytes.iter().enumerate().filter(|(i, _)| !(at..at + 4).contains(i));
    !all.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

/// The footer.
#[derive(Debug, Clone)]
pub(crate) struct Footer {
    pub(crate) kind: u32,
    pub(crate) disk_bytes: u64,
    pub(crate) data_offset: u64,
    pub(crate) unique_id: [u8; 16],
    /// When the disk was made, in seconds since 2000.
    pub(crate) time: u32,
    pub(super) creator: [u8; 4],
}

/// Cylinders, heads and sectors as the specification's appendix computes them.
fn chs(disk_bytes: u64) -> [u8; 4] {
    let sectors = (disk_bytes / 512).min(65535 * 16 * 255);
    let (heads, per_track, cylinders_heads);
    if sectors >= 65535 * 16 * 63 {
        (heads, per_track) = (16, 255);
        cylinders_heads = sectors / 255;
    } else {
        let tracks = sectors / 17;
        let mut guess = tracks.div_ceil(1024).max(4);
        let mut count = 17;
        let mut ch = tracks;
        if ch >= guess * 1024 || guess > 16 {
            (count, guess) = (31, 16);
            ch = sectors / 31;
        }
        if ch >= guess * 1024 {
            (count, guess) = (63, 16);
            ch = sectors / 63;
        }
        (heads, per_track, cylinders_heads) = (guess, count, ch);
    }
    let cylinders = ((cylinders_heads / heads) as u16).to_be_bytes();
    [cylinders[0], cylinders[1], heads as u8, per_track as u8]
}

impl Footer {
    /// Parses and checks.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Footer> {
        Footer::parse_with(bytes, true)
    }

    /// Parses; the checksum may be wrong when `strict` is not asked for.
    pub(super) fn parse_with(bytes: &[u8], strict: bool) -> Result<Footer> {
        let stored = be32(bytes, 64);
        if bytes.get(..8) != Some(b"conectix") {
            return Err(Error::damaged(Layer::Vhd, "no footer"));
        }
        if strict && sum(bytes, 64) != stored {
            return Err(Error::damaged(Layer::Vhd, "the footer's checksum is wrong")
                .expected(format!("{:#010x}", sum(bytes, 64)))
                .found(format!("{stored:#010x}")));
        }
        let disk_bytes = be64(bytes, 48);
        if disk_bytes == 0
            || !disk_bytes.is_multiple_of(512)
            || disk_bytes > vmrescue_base::limits::MAX_DISK_BYTES
        {
            return Err(Error::damaged(Layer::Vhd, "the size of the disk").found(disk_bytes));
        }
        Ok(Footer {
            kind: be32(bytes, 60),
            disk_bytes,
            data_offset: be64(bytes, 16),
            unique_id: array_at(bytes, 68).unwrap_or_default(),
            time: be32(bytes, 24),
            creator: array_at(bytes, 28).unwrap_or_default(),
        })
    }

    /// A footer for a new disk.
    pub(crate) fn new(kind: u32, disk_bytes: u64) -> Footer {
        Footer {
            kind,
            disk_bytes,
            data_offset: if kind == KIND_FIXED { u64::MAX } else { FOOTER_BYTES },
            unique_id: vmrescue_base::guid::Guid::random().0,
            time: (vmrescue_base::time::FileTime::now().unix_seconds() - EPOCH) as u32,
            creator: *b"vmrs",
        }
    }

    /// The bytes on disk.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; FOOTER_BYTES as usize];
        bytes[..8].copy_from_slice(b"conectix");
        bytes[11] = 2;
        bytes[13] = 1;
        bytes[16..24].copy_from_slice(&self.data_offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.time.to_be_bytes());
        bytes[28..32].copy_from_slice(&self.creator);
        bytes[33] = 1;
        bytes[36..40].copy_from_slice(b"Wi2k");
        bytes[40..48].copy_from_slice(&self.disk_bytes.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.disk_bytes.to_be_bytes());
        bytes[56..60].copy_from_slice(&chs(self.disk_bytes));
        bytes[60..64].copy_from_slice(&self.kind.to_be_bytes());
        bytes[68..84].copy_from_slice(&self.unique_id);
        let sum = sum(&bytes, 64);
        bytes[64..68].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Name of the program that made the file.
    pub(super) fn creator(&self) -> String {
        String::from_utf8_lossy(&self.creator).trim_end_matches(['\0', ' ']).to_string()
    }
}

/// The header of dynamic and differencing disks.
#[derive(Debug, Clone)]
pub(crate) struct DynamicHeader {
    pub(crate) table_offset: u64,
    pub(crate) entries: u32,
    pub(crate) block_bytes: u32,
    /// The checksum fits.
    pub(super) sum_right: bool,
    pub(crate) parent_id: [u8; 16],
    pub(crate) parent_name: String,
    /// Time of the parent's footer, in seconds since 2000.
    pub(crate) parent_time: u32,
    /// Platform code, place and length of each parent locator.
    locators: Vec<([u8; 4], u64, u32)>,
}

impl DynamicHeader {
    pub(crate) fn new(entries: u32, block_bytes: u32) -> DynamicHeader {
        DynamicHeader {
            table_offset: FOOTER_BYTES + 1024,
            entries,
            block_bytes,
            sum_right: true,
            parent_id: [0; 16],
            parent_name: String::new(),
            parent_time: 0,
            locators: Vec::new(),
        }
    }

    pub(super) fn parse(bytes: &[u8], offset: u64) -> Result<DynamicHeader> {
        let broken =
            |what: &str| Error::damaged(Layer::Vhd, format!("dynamic disk header: {what}")).at(offset);
        if bytes.get(..8) != Some(b"cxsparse") {
            return Err(broken("no signature"));
        }
        let block_bytes = be32(bytes, 32);
        if !block_bytes.is_power_of_two() || !(512..=1 << 28).contains(&block_bytes) {
            return Err(broken("block size").found(block_bytes));
        }
        let name: Vec<u8> = bytes[64..576].chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect();
        let locators = bytes[576..768].chunks_exact(24);
        Ok(DynamicHeader {
            table_offset: be64(bytes, 16),
            entries: be32(bytes, 28),
            block_bytes,
            sum_right: sum(bytes, 36) == be32(bytes, 36),
            parent_id: array_at(bytes, 40).unwrap_or_default(),
            parent_name: vmrescue_base::text::until_nul(&utf16le_lossy(&name)).to_string(),
            parent_time: be32(bytes, 56),
            locators: locators
                .filter_map(|at| Some((array_at(at, 0)?, be64(at, 16), be32(at, 8))))
                .filter(|(code, _, _)| *code != [0; 4])
                .collect(),
        })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[..8].copy_from_slice(b"cxsparse");
        bytes[8..16].fill(0xff);
        bytes[16..24].copy_from_slice(&self.table_offset.to_be_bytes());
        bytes[25] = 1;
        bytes[28..32].copy_from_slice(&self.entries.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.block_bytes.to_be_bytes());
        bytes[40..56].copy_from_slice(&self.parent_id);
        bytes[56..60].copy_from_slice(&self.parent_time.to_be_bytes());
        for (unit, at) in self.parent_name.encode_utf16().zip((64..574).step_by(2)) {
            bytes[at..at + 2].copy_from_slice(&unit.to_be_bytes());
        }
        for ((code, place, length), at) in self.locators.iter().zip((576..768).step_by(24)) {
            bytes[at..at + 4].copy_from_slice(code);
            // The space in bytes, as Hyper-V writes it; the specification says sectors, readers do not look.
            bytes[at + 4..at + 8].copy_from_slice(&length.next_multiple_of(512).to_be_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&length.to_be_bytes());
            bytes[at + 16..at + 24].copy_from_slice(&place.to_be_bytes());
        }
        let sum = sum(&bytes, 36);
        bytes[36..40].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Adds a parent locator: its text lies at `place`.
    pub(crate) fn add_locator(&mut self, code: [u8; 4], place: u64, bytes: u32) {
        self.locators.push((code, place, bytes));
    }

    /// Places of the locators' texts.
    pub(super) fn locator_ranges(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        self.locators.iter().map(|(_, place, length)| *place..place.saturating_add(u64::from(*length)))
    }

    /// Where the parent is said to be: the relative locator first, then the absolute one, then the bare name.
    pub(super) fn parent_hints(&self, file: &Disk) -> Vec<String> {
        let text = |code: &[u8; 4]| {
            let (_, place, length) = self.locators.iter().find(|(c, _, _)| c == code)?;
            let bytes = file.read_vec(*place, (*length).min(8192) as usize).ok()?;
            Some(vmrescue_base::text::until_nul(&utf16le_lossy(&bytes)).to_string())
        };
        let name = Some(self.parent_name.clone());
        [text(b"W2ru"), text(b"W2ku"), name].into_iter().flatten().filter(|hint| !hint.is_empty()).collect()
    }
}
