//! The boot sector of FAT: what it says, whether it can be right, and its copy (FAT specification, section 3).

use vmrescue_base::bytes::{array_at, u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{Disk, DiskMut};

/// Most clusters of FAT12, and of FAT16, plus one.
pub(super) const FAT12_CLUSTERS: u32 = 4085;
pub(super) const FAT16_CLUSTERS: u32 = 65_525;
/// Most clusters of FAT32: entries have 28 bits, the last values mean something else.
pub(super) const MAX_CLUSTERS: u32 = 0x0FFF_FFF5;
/// Largest cluster that Windows makes (with sectors of 4096 bytes).
pub(super) const MAX_CLUSTER_BYTES: u32 = 256 << 10;
/// Where the copy of the boot sector lies when nothing says otherwise.
pub(super) const COPY_SECTOR: u64 = 6;

/// Width of the entries of the allocation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Entries of 12 bits.
    Fat12,
    /// Entries of 16 bits.
    Fat16,
    /// Entries of 32 bits, of which 28 count.
    Fat32,
}

impl Kind {
    /// The name that stands in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fat12 => "fat12",
            Kind::Fat16 => "fat16",
            Kind::Fat32 => "fat32",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Kind> {
        [Kind::Fat12, Kind::Fat16, Kind::Fat32]
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

/// A boot sector, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) kind: Kind,
    pub(super) sector_bytes: u32,
    pub(super) cluster_bytes: u32,
    /// Sectors in front of the first table.
    pub(super) reserved: u32,
    /// Number of tables.
    pub(super) tables: u32,
    /// Sectors of one table.
    pub(super) table_sectors: u32,
    /// Slots of the root directory of FAT12 and FAT16.
    pub(super) root_slots: u32,
    /// First cluster of the root directory of FAT32.
    pub(super) root_cluster: u32,
    pub(super) sectors: u64,
    /// Clusters that have an entry in the table; they are numbered from 2.
    pub(super) clusters: u32,
    /// Clusters that the sectors hold; more than `clusters` when the table is too short.
    pub(super) wanted_clusters: u32,
    /// Sector of the FSInfo structure of FAT32.
    pub(super) info_sector: Option<u32>,
    /// Sector of the copy of the boot sector of FAT32.
    pub(super) copy_sector: Option<u32>,
    /// The one table that counts, when they are not kept alike.
    pub(super) only_table: Option<u32>,
    pub(super) media: u8,
    pub(super) serial: u32,
    pub(super) label: [u8; 11],
    /// Bit 0: not unmounted cleanly; bit 1: errors of the medium. Kept here by Windows NT.
    pub(super) flags: u8,
}

fn damaged(what: &str) -> Error {
    Error::damaged(Layer::Fat, format!("boot sector: {what}")).at(0)
}

impl Boot {
    /// Takes the first 512 bytes of a volume apart.
    pub(super) fn parse(bytes: &[u8]) -> Result<Boot> {
        let short = || damaged("too short");
        let word = |at: usize| u16_at(bytes, at).map(u32::from).ok_or_else(short);
        let long = |at: usize| u32_at(bytes, at).ok_or_else(short);
        let byte = |at: usize| bytes.get(at).copied().ok_or_else(short);
        if word(510)? != 0xAA55 {
            return Err(damaged("no signature").at(510).expected("55 aa"));
        }
        let sector_bytes = word(11)?;
        if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) {
            return Err(damaged("sector size").expected("512 to 4096").found(sector_bytes));
        }
        let cluster_sectors = u32::from(byte(13)?);
        let cluster_bytes = cluster_sectors * sector_bytes;
        if !cluster_sectors.is_power_of_two() || cluster_bytes > MAX_CLUSTER_BYTES {
            return Err(damaged("cluster size").found(format!("{cluster_sectors} sectors")));
        }
        let (reserved, tables) = (word(14)?, u32::from(byte(16)?));
        if reserved == 0 || !(1..=4).contains(&tables) {
            return Err(damaged("allocation tables")
                .found(format!("{tables} tables behind {reserved} reserved sectors")));
        }
        let media = byte(21)?;
        if media != 0xF0 && media < 0xF8 {
            return Err(damaged("media byte").expected("f0, f8 to ff").found(format!("{media:x}")));
        }
        let root_slots = word(17)?;
        let sectors = match word(19)? {
            0 => long(32)?,
            few => few,
        };
        let small = word(22)?;
        let wide = small == 0;
        let table_sectors = if wide { long(36)? } else { small };
        if table_sectors == 0 || wide && root_slots != 0 || !wide && root_slots == 0 {
            return Err(damaged("size of the allocation table and of the root directory")
                .found(format!("{table_sectors} sectors, {root_slots} entries")));
        }
        let root_sectors = (root_slots * 32).div_ceil(sector_bytes);
        let first_data =
            u64::from(reserved) + u64::from(tables) * u64::from(table_sectors) + u64::from(root_sectors);
        let wanted = u64::from(sectors).saturating_sub(first_data) / u64::from(cluster_sectors);
        if wanted == 0 {
            return Err(damaged("no room for a cluster").found(format!("{sectors} sectors")));
        }
        // Both fit: sectors have 32 bits, a cluster has at least one.
        let wanted_clusters = wanted as u32;
        let kind = if wide {
            Kind::Fat32
        } else if wanted_clusters < FAT12_CLUSTERS {
            Kind::Fat12
        } else {
            Kind::Fat16
        };
        let table_bits = u64::from(table_sectors) * u64::from(sector_bytes) * 8;
        let entries = table_bits
            / match kind {
                Kind::Fat12 => 12,
                Kind::Fat16 => 16,
                Kind::Fat32 => 32,
            };
        let most = match kind {
            Kind::Fat12 => FAT12_CLUSTERS - 1,
            Kind::Fat16 => 0xFFF5 - 2,
            Kind::Fat32 => MAX_CLUSTERS - 2,
        };
        let clusters = u64::from(wanted_clusters.min(most)).min(entries.saturating_sub(2)) as u32;
        if clusters == 0 {
            return Err(damaged("the allocation table has no entry"));
        }
        let extended = if wide { 64 } else { 36 };
        let (root_cluster, info, copy, only_table) = if wide {
            let root = long(44)?;
            if root < 2 || root - 2 >= clusters {
                return Err(damaged("root directory outside the volume").at(44).found(format!("{root:#x}")));
            }
            let flags = word(40)?;
            let there = |sector: u32| (1..reserved).contains(&sector).then_some(sector);
            let only = (flags & 0x80 != 0).then_some(flags & 0xF).filter(|table| *table < tables);
            (root, there(word(48)?), there(word(50)?), only)
        } else {
            (0, None, None, None)
        };
        let has_more = matches!(byte(extended + 2)?, 0x28 | 0x29);
        let label = if byte(extended + 2)? == 0x29 { array_at(bytes, extended + 7) } else { None };
        Ok(Boot {
            kind,
            sector_bytes,
            cluster_bytes,
            reserved,
            tables,
            table_sectors,
            root_slots,
            root_cluster,
            sectors: u64::from(sectors),
            clusters,
            wanted_clusters,
            info_sector: info,
            copy_sector: copy,
            only_table,
            media,
            serial: if has_more { long(extended + 3)? } else { 0 },
            label: label.unwrap_or([b' '; 11]),
            flags: byte(extended + 1)?,
        })
    }

    /// Bytes of the volume.
    pub(super) fn volume_bytes(&self) -> u64 {
        self.sectors * u64::from(self.sector_bytes)
    }

    /// Where a table begins.
    pub(super) fn table_at(&self, table: u32) -> u64 {
        (u64::from(self.reserved) + u64::from(table) * u64::from(self.table_sectors))
            * u64::from(self.sector_bytes)
    }

    /// Bytes of a table.
    pub(super) fn table_bytes(&self) -> u64 {
        u64::from(self.table_sectors) * u64::from(self.sector_bytes)
    }

    /// Where the root directory of FAT12 and FAT16 begins.
    pub(super) fn root_at(&self) -> u64 {
        self.table_at(self.tables)
    }

    /// Where the first cluster begins.
    pub(super) fn data_at(&self) -> u64 {
        let root = (self.root_slots * 32).next_multiple_of(self.sector_bytes);
        self.root_at() + u64::from(root)
    }

    /// Where a cluster begins; it must be one of the volume.
    pub(super) fn cluster_at(&self, cluster: u32) -> u64 {
        self.data_at() + u64::from(cluster.saturating_sub(2)) * u64::from(self.cluster_bytes)
    }

    /// True for numbers that a cluster can have.
    pub(super) fn is_cluster(&self, number: u32) -> bool {
        number >= 2 && number - 2 < self.clusters
    }

    /// The byte of the boot sector with the marks of Windows NT.
    pub(super) fn flags_at(&self) -> u64 {
        if self.kind == Kind::Fat32 { 65 } else { 37 }
    }
}

/// True when the first sector of a volume is one of FAT, whatever its text says: that counts for nothing.
pub fn is_fat(sector: &[u8]) -> bool {
    let text = sector.get(3..11).unwrap_or(&[]);
    !matches!(text, b"EXFAT   " | b"NTFS    " | b"-FVE-FS-") && Boot::parse(sector).is_ok()
}

/// The copy of the boot sector of FAT32, when the volume begins with something else and the copy fits the volume.
///
/// # Errors
/// Of the disk.
pub fn boot_copy(disk: &Disk) -> Result<Option<Vec<u8>>> {
    for sector in [512u64, 4096] {
        let at = COPY_SECTOR * sector;
        if at + sector > disk.len() {
            continue;
        }
        let bytes = disk.read_vec(at, sector as usize)?;
        let fits = Boot::parse(&bytes).is_ok_and(|boot| {
            u64::from(boot.sector_bytes) == sector
                && boot.kind == Kind::Fat32
                && boot.copy_sector == Some(COPY_SECTOR as u32)
                && boot.volume_bytes() <= disk.len()
        });
        // The table behind it must be one of this volume: the copy may be all that is left of an older one.
        if fits && table_begins(disk, &bytes)? {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn table_begins(disk: &Disk, sector: &[u8]) -> Result<bool> {
    let boot = Boot::parse(sector)?;
    let first = disk.read_vec(boot.table_at(0), 4)?;
    Ok(first == [boot.media, 0xFF, 0xFF, 0x0F] || first == [boot.media, 0xFF, 0xFF, 0xFF])
}

/// Writes the boot sector of the FAT32 volume that fills `disk` anew from its copy.
///
/// # Errors
/// `NotFound` when the copy is none either; of the disk.
pub fn repair_boot_sector(disk: &DiskMut) -> Result<()> {
    let copy = boot_copy(&disk.as_disk())?.ok_or_else(|| {
        Error::not_found(Layer::Fat, "the copy of the boot sector is damaged as well").at(0)
    })?;
    disk.write_at(0, &copy)
}
