//! Makes an empty FAT volume, as `format` of Windows lays it out; clusters and tables by the size of the volume.
//!
//! There is no boot code: the boot sector stops the processor. Only the reserved sectors, the tables and the root directory are written.

use super::boot::{Boot, COPY_SECTOR, FAT12_CLUSTERS, FAT16_CLUSTERS, Kind, MAX_CLUSTER_BYTES, MAX_CLUSTERS};
use super::core::{end_value, entry_at};
use super::entry::{LABEL, Raw};
use super::name::label_bytes;
use crate::Times;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::size;
use vmrescue_base::time::FileTime;
use vmrescue_block::DiskMut;

/// Slots of the root directory of FAT12 and FAT16.
const ROOT_SLOTS: u32 = 512;
/// Sectors in front of the tables of FAT32, at least.
const RESERVED: u32 = 32;
/// Sector of FSInfo.
const INFO_SECTOR: u32 = 1;
/// What the first cluster begins at a multiple of.
const ALIGNMENT: u32 = 4096;
/// So far from the borders between the kinds stays what is made: other programs count otherwise near them.
const MARGIN: u32 = 16;

/// What a new volume shall be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FormatSpec {
    /// Label; at most 11 characters, stored in capitals.
    pub label: String,
    /// FAT12, FAT16 or FAT32; `None` for FAT32 where it fits, else what does. FAT32 that is asked for has fewer clusters than the
    /// specification wants on sectors larger than 512 bytes, where it cannot have as many ([`Formatted::few_clusters`]).
    pub kind: Option<Kind>,
    /// Bytes of a cluster; `None` for what Windows takes.
    pub cluster_bytes: Option<u32>,
    /// Serial number.
    pub serial: u32,
    /// Time of the label.
    pub created: FileTime,
    /// Sectors in front of the volume, for the boot sector.
    pub hidden_sectors: u32,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formatted {
    /// The width of the table's entries.
    pub kind: Kind,
    /// FAT32 with this many clusters, fewer than the 65,525 of the specification. Firmware (EDK II), Linux and Windows tell FAT32 by
    /// its boot sector and read it; programs that count clusters (mtools, The Sleuth Kit) take it for FAT16.
    pub few_clusters: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Layout {
    kind: Kind,
    sector_bytes: u32,
    cluster_sectors: u32,
    reserved: u32,
    table_sectors: u32,
    sectors: u32,
}

impl Layout {
    /// The layout with these clusters, when that kind has as many of them.
    fn new(kind: Kind, few: bool, sector_bytes: u32, sectors: u32, cluster_bytes: u32) -> Option<Layout> {
        let cluster_sectors = cluster_bytes / sector_bytes;
        let align = (ALIGNMENT.max(cluster_bytes.min(64 << 10)) / sector_bytes).max(1);
        let root = if kind == Kind::Fat32 { 0 } else { (ROOT_SLOTS * 32).div_ceil(sector_bytes) };
        let least = if kind == Kind::Fat32 { RESERVED } else { 1 };
        let mut table_sectors = 1;
        loop {
            let reserved = if kind == Kind::Fat32 {
                (least + 2 * table_sectors).next_multiple_of(align) - 2 * table_sectors
            } else {
                least
            };
            let data = sectors.checked_sub(reserved + 2 * table_sectors + root)?;
            let clusters = data / cluster_sectors;
            let needed = entry_at(kind, clusters + 2).div_ceil(u64::from(sector_bytes)) as u32;
            if needed <= table_sectors {
                let (low, high) = match kind {
                    Kind::Fat12 => (1, FAT12_CLUSTERS - MARGIN),
                    Kind::Fat16 => (FAT12_CLUSTERS + MARGIN, FAT16_CLUSTERS - MARGIN),
                    Kind::Fat32 if few => (FAT12_CLUSTERS + MARGIN, MAX_CLUSTERS),
                    Kind::Fat32 => (FAT16_CLUSTERS, MAX_CLUSTERS),
                };
                let fits = (low..high).contains(&clusters);
                return fits.then_some(Layout {
                    kind,
                    sector_bytes,
                    cluster_sectors,
                    reserved,
                    table_sectors,
                    sectors,
                });
            }
            table_sectors = needed;
        }
    }

    /// The layout that Windows would choose, or the nearest one that is possible.
    fn choose(kind: Kind, few: bool, sector_bytes: u32, sectors: u32) -> Option<Layout> {
        let bytes = u64::from(sectors) * u64::from(sector_bytes);
        let mib = bytes >> 20;
        let usual: u32 = match kind {
            Kind::Fat12 => 512,
            Kind::Fat16 => match mib {
                0..=32 => 512,
                33..=64 => 1 << 10,
                65..=128 => 2 << 10,
                129..=256 => 4 << 10,
                257..=512 => 8 << 10,
                513..=1024 => 16 << 10,
                1025..=2048 => 32 << 10,
                _ => 64 << 10,
            },
            Kind::Fat32 => match mib {
                0..=64 => 512,
                65..=128 => 1 << 10,
                129..=256 => 2 << 10,
                257..=8192 => 4 << 10,
                8193..=16_384 => 8 << 10,
                16_385..=32_768 => 16 << 10,
                _ => 32 << 10,
            },
        };
        let usual = usual.max(sector_bytes);
        let all = || (0..10).map(|shift| sector_bytes << shift).filter(|size| *size <= MAX_CLUSTER_BYTES);
        let larger = all().filter(|size| *size >= usual);
        let smaller = all().filter(|size| *size < usual).collect::<Vec<_>>().into_iter().rev();
        larger.chain(smaller).find_map(|size| Layout::new(kind, few, sector_bytes, sectors, size))
    }

    fn of(disk: &DiskMut, spec: &FormatSpec) -> Result<Layout> {
        let geometry = disk.geometry();
        let sector_bytes = geometry.logical_sector_bytes;
        let sectors = geometry.length_bytes / u64::from(sector_bytes);
        let sectors = u32::try_from(sectors).map_err(|_| {
            Error::invalid(Layer::Fat, "a FAT volume has at most 2^32 sectors").found(sectors)
        })?;
        if let Some(cluster) = spec.cluster_bytes
            && (!cluster.is_power_of_two()
                || cluster < sector_bytes
                || cluster > sector_bytes.saturating_mul(128))
        {
            return Err(Error::invalid(Layer::Fat, "a cluster size that FAT does not have")
                .expected("a power of two, 1 to 128 sectors")
                .found(cluster));
        }
        let kinds = match spec.kind {
            Some(kind) => vec![kind],
            None => vec![Kind::Fat32, Kind::Fat16, Kind::Fat12],
        };
        // With sectors of 512 bytes 33 MiB are enough, and below FAT16 does.
        let may_be_few = spec.kind == Some(Kind::Fat32) && sector_bytes > 512;
        let found = [false, true].into_iter().filter(|few| !few || may_be_few).find_map(|few| {
            kinds.iter().find_map(|kind| match spec.cluster_bytes {
                Some(cluster) => Layout::new(*kind, few, sector_bytes, sectors, cluster),
                None => Layout::choose(*kind, few, sector_bytes, sectors),
            })
        });
        found.ok_or_else(|| impossible(spec, sector_bytes, geometry.length_bytes))
    }
}

/// The smallest volume of FAT32 with sectors of this size and as many clusters as the specification wants.
pub fn smallest_fat32(sector_bytes: u32) -> u64 {
    let entries = u64::from(FAT16_CLUSTERS + 2) * 4;
    let tables = 2 * entries.div_ceil(u64::from(sector_bytes));
    let align = u64::from(ALIGNMENT / sector_bytes.clamp(512, ALIGNMENT)).max(1);
    let front = (u64::from(RESERVED) + tables).next_multiple_of(align);
    (front + u64::from(FAT16_CLUSTERS)) * u64::from(sector_bytes)
}

fn impossible(spec: &FormatSpec, sector_bytes: u32, length: u64) -> Error {
    let kind = spec.kind.map_or("FAT", Kind::name);
    let error = Error::invalid(Layer::Fat, format!("a volume of {} cannot be {kind}", size(length)));
    match (spec.kind, spec.cluster_bytes) {
        (Some(Kind::Fat32), None) if sector_bytes == 512 => error
            .expected(format!(
                "at least {} with sectors of {sector_bytes} bytes",
                size(smallest_fat32(sector_bytes))
            ))
            .advice("a smaller one can be fat16"),
        (_, Some(cluster)) => {
            error.found(format!("clusters of {cluster} bytes")).advice("leave the cluster size out")
        }
        _ => error,
    }
}

/// Makes a FAT volume over all of `disk`; what was there is lost. Free space is not touched.
///
/// # Errors
/// `Invalid` for sizes and labels that cannot be.
pub fn format(disk: &DiskMut, spec: &FormatSpec) -> Result<Formatted> {
    let layout = Layout::of(disk, spec)?;
    let label = if spec.label.is_empty() { None } else { Some(label_bytes(&spec.label)?) };
    let first = boot_sector(&layout, spec, &label.unwrap_or(*b"NO NAME    "));
    let boot = Boot::parse(&first)?;
    disk.zero_at(0..boot.data_at())?;
    disk.write_at(0, &first)?;
    for table in 0..boot.tables {
        let mut head = Vec::new();
        match layout.kind {
            Kind::Fat12 => head.extend([0xF8, 0xFF, 0xFF]),
            Kind::Fat16 => head.extend([0xF8, 0xFF, 0xFF, 0xFF]),
            Kind::Fat32 => {
                for value in [0x0FFF_FFF8, 0x0FFF_FFFF, end_value(Kind::Fat32)] {
                    head.extend(u32::to_le_bytes(value));
                }
            }
        }
        disk.write_at(boot.table_at(table), &head)?;
    }
    let mut root = boot.root_at();
    if layout.kind == Kind::Fat32 {
        let sector = u64::from(layout.sector_bytes);
        let info = info_sector(boot.clusters - 1, layout.sector_bytes);
        disk.write_at(u64::from(INFO_SECTOR) * sector, &info)?;
        disk.write_at(COPY_SECTOR * sector, &first)?;
        disk.write_at((COPY_SECTOR + u64::from(INFO_SECTOR)) * sector, &info)?;
        root = boot.cluster_at(boot.root_cluster);
        disk.zero_at(root..root + u64::from(boot.cluster_bytes))?;
    }
    if let Some(label) = label {
        let mut raw = Raw::new(&label, 0, LABEL);
        raw.set_times(&Times { modified: spec.created, ..Times::default() });
        disk.write_at(root, &raw.0)?;
    }
    let few = layout.kind == Kind::Fat32 && boot.clusters < FAT16_CLUSTERS;
    Ok(Formatted { kind: layout.kind, few_clusters: few.then_some(boot.clusters) })
}

fn boot_sector(layout: &Layout, spec: &FormatSpec, label: &[u8; 11]) -> Vec<u8> {
    let mut bytes = vec![0; layout.sector_bytes as usize];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let wide = layout.kind == Kind::Fat32;
    let code: usize = if wide { 0x5A } else { 0x3E };
    put(0, &[0xEB, code as u8 - 2, 0x90]);
    put(3, b"MSDOS5.0");
    put(11, &(layout.sector_bytes as u16).to_le_bytes());
    put(13, &[layout.cluster_sectors as u8]);
    put(14, &(layout.reserved as u16).to_le_bytes());
    put(16, &[2]);
    if !wide {
        put(17, &(ROOT_SLOTS as u16).to_le_bytes());
    }
    // FAT32 keeps the 16-bit count empty.
    match u16::try_from(layout.sectors) {
        Ok(few) if !wide => put(19, &few.to_le_bytes()),
        _ => put(32, &layout.sectors.to_le_bytes()),
    }
    put(21, &[0xF8]);
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(28, &spec.hidden_sectors.to_le_bytes());
    let more = if wide {
        put(36, &layout.table_sectors.to_le_bytes());
        put(44, &2u32.to_le_bytes());
        put(48, &(INFO_SECTOR as u16).to_le_bytes());
        put(50, &(COPY_SECTOR as u16).to_le_bytes());
        64
    } else {
        put(22, &(layout.table_sectors as u16).to_le_bytes());
        36
    };
    put(more, &[0x80, 0, 0x29]);
    put(more + 3, &spec.serial.to_le_bytes());
    put(more + 7, label);
    let name = match layout.kind {
        Kind::Fat12 => b"FAT12   ",
        Kind::Fat16 => b"FAT16   ",
        Kind::Fat32 => b"FAT32   ",
    };
    put(more + 18, name);
    // Interrupts off, halt, and again.
    put(code, &[0xFA, 0xF4, 0xEB, 0xFD]);
    put(510, &[0x55, 0xAA]);
    bytes
}

/// The FSInfo structure.
pub(super) fn info_sector(free: u32, sector_bytes: u32) -> Vec<u8> {
    let mut bytes = vec![0; sector_bytes as usize];
    for (at, value) in [(0, 0x4161_5252), (484, 0x6141_7272), (488, free), (492, 3), (508, 0xAA55_0000u32)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}
