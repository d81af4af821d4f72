//! A volume whose boot sector and its copy are gone, found by its own file records: the records of $MFT and $MFTMirr say where they
//! lie in clusters and how large these are, which gives the beginning of the volume and everything else that a boot sector says.

use super::boot::Boot;
use super::map::RunMap;
use super::node::kind;
use super::record::{Body, Record, fix_up};
use crate::Depth;
use vmrescue_base::bytes::{u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{Disk, ExtentKind};

/// Sizes of file records that there are.
const RECORDS: [usize; 2] = [1024, 4096];
/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;
/// Clusters that a run list may name while the size of the volume is not known: 2^48.
const ANY: u64 = 1 << 48;
/// Name of the first record, in UTF-16.
const MFT_NAME: &[u8] = b"$\0M\0F\0T\0";
/// Bytes of an index block of directories, where the root directory does not say.
const INDEX_BYTES: u32 = 4096;

/// A volume that was found by its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostVolume {
    /// Where the volume begins on the disk that was searched.
    pub start: u64,
    /// What its boot sector must say.
    pub boot: Boot,
    /// How it was found, for people.
    pub evidence: Vec<String>,
}

/// What a file record says of its unnamed data: first cluster, clusters, allocated bytes, size.
struct Data {
    first: u64,
    clusters: u64,
    allocated: u64,
    size: u64,
}

fn record_at(disk: &Disk, at: u64, length: usize) -> Option<Vec<u8>> {
    // A part of the disk that cannot be read holds no record.
    let mut bytes = disk.read_vec(at, length).ok()?;
    fix_up(&mut bytes, b"FILE").ok()?;
    Some(bytes)
}

/// The data attribute of this name in a record (UTF-16); an attribute list is not followed.
fn data_of(record: &[u8], name: &[u8]) -> Option<Data> {
    for attribute in Record::of_fixed(record).attributes().flatten() {
        let Body::NonResident(mapped) = attribute.body else { continue };
        if attribute.kind != kind::DATA || attribute.name != name || mapped.lowest_vcn != 0 {
            continue;
        }
        let mut map = RunMap::default();
        map.append(0, mapped.pairs, ANY).ok()?;
        let first = map.runs().first().and_then(|run| run.lcn);
        let clusters = mapped.highest_vcn.wrapping_add(1);
        return Some(Data {
            first: first.unwrap_or(u64::MAX),
            clusters,
            allocated: mapped.allocated,
            size: mapped.size,
        });
    }
    None
}

/// True for the record of $MFT itself.
fn is_mft_record(record: &[u8]) -> bool {
    let parsed = Record::of_fixed(record);
    parsed.in_use()
        && parsed.base() == 0
        && parsed.attributes().flatten().any(|attribute| {
            matches!(attribute.body, Body::Resident(value) if attribute.kind == kind::FILE_NAME
                && value.get(0x42..).is_some_and(|name| name == MFT_NAME))
        })
}

/// The bytes of a cluster, from an attribute whose clusters are all in this segment.
fn cluster_bytes(data: &Data) -> Option<u64> {
    let size = data.allocated.checked_div(data.clusters)?;
    (size.is_power_of_two() && (512..=2 << 20).contains(&size) && size * data.clusters == data.allocated)
        .then_some(size)
}

/// The volume that the record at `at` is the first of, when it is one of $MFT or of $MFTMirr.
pub(crate) fn volume_at(disk: &Disk, at: u64, sector_bytes: u32) -> Option<LostVolume> {
    RECORDS.into_iter().find_map(|length| volume_with(disk, at, length, sector_bytes))
}

fn volume_with(disk: &Disk, at: u64, length: usize, sector_bytes: u32) -> Option<LostVolume> {
    let own = record_at(disk, at, length)?;
    // The record says how long it is.
    if !is_mft_record(&own) || u32_at(&own, 0x1C)? as usize != length {
        return None;
    }
    let mft = data_of(&own, &[])?;
    let next = |number: u64, base: u64| record_at(disk, base + number * length as u64, length);
    let mirror = data_of(&next(1, at)?, &[])?;
    let cluster = cluster_bytes(&mirror).or_else(|| cluster_bytes(&mft))?;
    // The record is that of $MFT where $MFT begins, or its copy where $MFTMirr does: the place where both are wins.
    let mut best: Option<(u64, u32, u32)> = None;
    for lcn in [mft.first, mirror.first] {
        let Some(start) = lcn.checked_mul(cluster).and_then(|offset| at.checked_sub(offset)) else {
            continue;
        };
        if start % u64::from(sector_bytes) != 0 {
            continue;
        }
        let there = |lcn: u64| {
            lcn.checked_mul(cluster)
                .and_then(|offset| start.checked_add(offset))
                .and_then(|place| record_at(disk, place, length))
                .is_some_and(|record| is_mft_record(&record))
        };
        // $MFTMirr has four records: where $MFT begins there is the ninth as well.
        let is_mft =
            mft.first.checked_mul(cluster).and_then(|offset| start.checked_add(offset)).is_some_and(|base| {
                next(8, base).is_some_and(|record| data_of(&record, b"$\0B\0a\0d\0").is_some())
            });
        let copies = u32::from(there(mft.first)) + u32::from(there(mirror.first));
        let score = copies + u32::from(is_mft);
        if copies > 0 && best.is_none_or(|(_, _, known)| score > known) {
            best = Some((start, copies, score));
        }
    }
    let (start, copies, _) = best?;
    let base = start + mft.first * cluster;
    // $BadClus:$Bad is as long as the volume; else $Bitmap has a bit for each cluster, and up to 63 more.
    let bad = next(8, base).and_then(|record| data_of(&record, b"$\0B\0a\0d\0"));
    let bits = next(6, base).and_then(|record| data_of(&record, &[]));
    let (clusters, by) = match (bad, bits) {
        (Some(bad), _) if bad.size >= cluster => (bad.size / cluster, "$BadClus"),
        (_, Some(bits)) if bits.size > 0 => (bits.size.checked_mul(8)?, "$Bitmap"),
        _ => return None,
    };
    let root = next(5, base);
    let index = root.and_then(|record| {
        Record::of_fixed(&record).attributes().flatten().find_map(|attribute| match attribute.body {
            Body::Resident(value) if attribute.kind == kind::INDEX_ROOT => u32_at(value, 8),
            _ => None,
        })
    });
    let index_bytes = index.filter(|size| size.is_power_of_two() && (512..=65536).contains(size));
    let sectors = clusters.checked_mul(cluster)? / u64::from(sector_bytes);
    let boot = Boot {
        sector_bytes,
        cluster_bytes: u32::try_from(cluster).ok()?,
        sectors,
        mft_lcn: mft.first,
        mirror_lcn: mirror.first,
        record_bytes: length as u32,
        index_bytes: index_bytes.unwrap_or(INDEX_BYTES),
        // The serial number is nowhere else: the time at which the volume was made stands in for it.
        serial: created(&own).unwrap_or(0x1),
    };
    let evidence = vec![
        format!("the record of $MFT at {at:#x}, {copies} of its 2 copies"),
        format!(
            "clusters of {cluster} bytes, $MFT at cluster {:#x}, $MFTMirr at cluster {:#x}",
            mft.first, mirror.first
        ),
        format!("{clusters} clusters by {by}"),
    ];
    Some(LostVolume { start, boot, evidence })
}

/// When the volume was made, by $STANDARD_INFORMATION of $MFT.
fn created(record: &[u8]) -> Option<u64> {
    Record::of_fixed(record).attributes().flatten().find_map(|attribute| match attribute.body {
        Body::Resident(value) if attribute.kind == kind::STANDARD_INFORMATION => u64_at(value, 0),
        _ => None,
    })
}

/// The volume that begins where `disk` does, by its records; `None` when none are found. At [`Depth::Quick`] only where Windows and
/// others put $MFT and $MFTMirr; what cannot be read holds nothing.
pub fn lost_volume(disk: &Disk, depth: Depth) -> Option<LostVolume> {
    /// Part of a volume that is read whole: $MFTMirr lies near its beginning.
    const NEAR: u64 = 16 << 20;
    /// Cluster at which Windows puts $MFT of all but small volumes.
    const USUAL: u64 = 786_432;
    let sector = disk.geometry().logical_sector_bytes;
    let usual = (9..=16).map(|power| USUAL << power).filter(|at| *at < disk.len());
    let own = |at: u64| volume_at(disk, at, sector).filter(|volume| volume.start == 0);
    if let Some(found) = usual.into_iter().find_map(own) {
        return Some(found);
    }
    let end = if depth == Depth::Quick { disk.len().min(NEAR) } else { disk.len() };
    let mut found = None;
    for_each_record(disk, 0..end, 1024, &mut |at| {
        found = volume_at(disk, at, sector).filter(|volume| volume.start == 0);
        found.is_none()
    });
    found
}

/// Calls `visit` with every place in `range` where a file record may begin, in steps of `step` bytes, until it returns false. Holes of
/// the image are skipped, and what cannot be read.
pub(crate) fn for_each_record(
    disk: &Disk,
    range: std::ops::Range<u64>,
    step: u64,
    visit: &mut dyn FnMut(u64) -> bool,
) {
    let mut at = range.start.next_multiple_of(step);
    let mut buffer = vec![0; PIECE as usize];
    while at < range.end {
        if let Ok(extent) = disk.extent_at(at)
            && extent.kind == ExtentKind::Zero
        {
            at = at.saturating_add(extent.length_bytes.max(1)).next_multiple_of(step);
            continue;
        }
        let count = (range.end - at).min(PIECE) as usize;
        if disk.read_at(at, &mut buffer[..count]).is_ok() {
            for place in (0..count).step_by(step as usize) {
                if buffer.get(place..place + 4) == Some(b"FILE") && !visit(at + place as u64) {
                    return;
                }
            }
        }
        at += PIECE;
    }
}

impl LostVolume {
    /// The boot sector that the volume must have, without boot code. `length` is that of the partition, when it is known: the volume
    /// fills it but for its last sector.
    ///
    /// # Errors
    /// `Invalid` when the numbers do not go into a boot sector.
    pub fn boot_sector(&self, hidden: u64, length: Option<u64>) -> Result<Vec<u8>> {
        let boot = &self.boot;
        let sector = u64::from(boot.sector_bytes);
        let cluster = u64::from(boot.cluster_bytes);
        // Sectors behind the last whole cluster belong to the volume as well.
        let filled = length.and_then(|length| (length / sector).checked_sub(1));
        let sectors = filled
            .filter(|filled| *filled >= boot.sectors && filled - boot.sectors < cluster / sector)
            .unwrap_or(boot.sectors);
        let power = |bytes: u32| -> u8 {
            if bytes >= boot.cluster_bytes {
                (bytes / boot.cluster_bytes) as u8
            } else {
                (bytes.ilog2() as u8).wrapping_neg()
            }
        };
        let per_cluster = boot.cluster_bytes / boot.sector_bytes;
        let per_cluster =
            if per_cluster <= 128 { per_cluster as u8 } else { (per_cluster.ilog2() as u8).wrapping_neg() };
        // Beyond 2 TiB there is no room for the number; BIOS machines do not start from there.
        let hidden = u32::try_from(hidden).unwrap_or(0);
        let mut bytes = vec![0; boot.sector_bytes as usize];
        let fields: [(usize, &[u8]); 15] = [
            (0x00, &[0xEB, 0x52, 0x90]),
            (0x03, b"NTFS    "),
            (0x0B, &(boot.sector_bytes as u16).to_le_bytes()),
            (0x0D, &[per_cluster]),
            (0x15, &[0xF8]),
            (0x18, &63u16.to_le_bytes()),
            (0x1A, &255u16.to_le_bytes()),
            (0x1C, &hidden.to_le_bytes()),
            (0x24, &[0x80, 0, 0x80, 0]),
            (0x28, &sectors.to_le_bytes()),
            (0x30, &boot.mft_lcn.to_le_bytes()),
            (0x38, &boot.mirror_lcn.to_le_bytes()),
            (0x40, &[power(boot.record_bytes), 0, 0, 0, power(boot.index_bytes)]),
            (0x48, &boot.serial.to_le_bytes()),
            (0x1FE, &[0x55, 0xAA]),
        ];
        for (at, field) in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
        }
        let read = Boot::parse(&bytes)?;
        if (read.mft_lcn, read.cluster_bytes) != (boot.mft_lcn, boot.cluster_bytes) {
            return Err(Error::invalid(Layer::Ntfs, "this volume has no boot sector that could be written"));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::{FormatSpec, Volume, format};
    use std::sync::Arc;
    use vmrescue_block::{DiskMut, MemoryDevice};

    /// Boot sector and copy gone: the records tell both again, but for the serial number.
    #[test]
    fn a_boot_sector_is_told_by_the_records() {
        let device = Arc::new(MemoryDevice::zeroed(32 << 20));
        let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
        format(&disk, &FormatSpec { label: "data".into(), ..FormatSpec::default() }).unwrap();
        let before = Boot::parse(&disk.as_disk().read_vec(0, 512).unwrap()).unwrap();
        let last = disk.len() - 512;
        disk.zero_at(0..512).unwrap();
        disk.zero_at(last..last + 512).unwrap();
        assert!(Volume::open(disk.as_disk()).is_err());
        let found = lost_volume(&disk.as_disk(), Depth::Quick).unwrap();
        let bytes = found.boot_sector(0, Some(disk.len())).unwrap();
        let again = Boot::parse(&bytes).unwrap();
        assert_eq!(Boot { serial: before.serial, ..again }, before, "{:?}", found.evidence);
        disk.write_at(0, &bytes).unwrap();
        assert_eq!(Volume::open(disk.as_disk()).unwrap().label(), "data");
        // The first record is gone as well: its copy in $MFTMirr tells the same.
        disk.zero_at(0..512).unwrap();
        let mft = before.mft_lcn * u64::from(before.cluster_bytes);
        disk.zero_at(mft..mft + 1024).unwrap();
        let mirror = lost_volume(&disk.as_disk(), Depth::Deep).unwrap();
        assert_eq!((mirror.start, Boot { serial: 0, ..mirror.boot }), (0, Boot { serial: 0, ..found.boot }));
    }
}
