//! Repairs what the checker finds and what has one right answer, on a staged disk, and checks again until nothing changes.
//!
//! Order: boot sector and first records, the log, $MFTMirr, both bitmaps from the runs; then, by the writer, which needs them right, the
//! rest. The mark `dirty` goes last, when the checker has nothing else to say.
//! Missing: indexes that cannot be walked are not built anew, damaged records are not dropped; attributes are not salvaged.

use super::check::{Clusters, Examined, Remedy, examine, last_boot, mirror_bytes, reached};
use super::mkfs::security::MIRROR_BYTES;
use super::node::{Attr, Clustered, Value, kind};
use super::state::{Hibernation, LogState, state};
use super::volume::{Volume, no_stream};
use super::write::{Mender, WriteOptions};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_base::text::utf16le_bytes;
use vmrescue_block::DiskMut;

/// Most rounds: what is added or freed in one is counted in the next.
const ROUNDS: usize = 8;
/// Records below this are the file system's; their bits stay as they are.
const RESERVED: usize = 24;
/// Bytes of a bitmap that are compared at once.
const CHUNK: usize = 1 << 16;
/// Most bytes of $SDS.
const MAX_SDS_BYTES: u64 = 1 << 30;
/// Most bytes of the bitmap of $MFT.
const MAX_RECORD_MAP_BYTES: u64 = 1 << 29;

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Mended {
    /// Each repair, for people.
    pub done: Vec<String>,
    /// What the checker says afterwards.
    pub left: Vec<Defect>,
}

/// Repairs the volume that fills `disk`, which is staged: the caller publishes it, or drops it on errors. Of `options` what may be given up counts.
///
/// # Errors
/// `Refused` when something is damaged that has no one right answer, with a list; when the log cannot be replayed; when Windows is
/// hibernated, for it would go on with what it knew of the volume; errors of the disk.
pub fn mend(disk: &DiskMut, options: WriteOptions, progress: &dyn Progress) -> Result<Mended> {
    let mut mended = Mended::default();
    let options = WriteOptions { allow_dirty: true, ..options };
    let (mut replayed, mut ended) = (false, false);
    for _ in 0..ROUNDS {
        let volume = Volume::open(disk.as_disk())?;
        let found = examine(&volume, progress)?;
        // What the rest hangs on comes first: with a damaged first record nothing else is certain.
        let early = found.remedies.iter().any(is_early);
        if found.refuses && !early {
            return Err(refused(&found.defects));
        }
        if !early && !replayed && !matches!(volume.log_state(), LogState::Empty | LogState::Clean(..)) {
            // The writer replays the log into the staged disk first of all, or refuses.
            Mender::open(disk.clone(), options)?.finish()?;
            let what = if options.discard_log { "closed, what it holds was given up" } else { "finished" };
            mended.done.push(format!("changes that $LogFile holds: {what}"));
            replayed = true;
            continue;
        }
        // With damage that comes first this cannot be read for certain: then it is asked in the next round, and an error drops everything.
        let hibernation = if early { Hibernation::No } else { state(&volume)?.hibernation };
        if let Some(refusal) = hibernation.refusal() {
            // The writer ends it; what it cannot end stays refused.
            if !options.discard_hibernation || ended {
                return Err(refusal);
            }
            Mender::open(disk.clone(), options)?.finish()?;
            mended.done.push(format!("hibernation ended ({})", hibernation.loss().unwrap_or_default()));
            ended = true;
            continue;
        }
        let before = mended.done.len();
        round(disk, options, &volume, &found, &mut mended.done)?;
        if mended.done.len() == before {
            mended.left = found.defects;
            return Ok(mended);
        }
    }
    mended.left = examine(&Volume::open(disk.as_disk())?, progress)?.defects;
    Ok(mended)
}

/// The list of what keeps a repair from starting.
fn refused(defects: &[Defect]) -> Error {
    let blocks = |defect: &&Defect| {
        defect.severity != Severity::Note
            && super::CODES.iter().any(|code| code.name == defect.code && code.mend == super::Mend::Refuses)
    };
    let list: Vec<&Defect> = defects.iter().filter(blocks).collect();
    let shown: Vec<String> = list.iter().take(10).map(ToString::to_string).collect();
    let more = if list.len() > shown.len() {
        format!("; and {} more", list.len() - shown.len())
    } else {
        String::new()
    };
    let mut error = Error::refused(Layer::Ntfs, "the volume has damage without one right answer")
        .found(format!("{}{more}", shown.join("; ")))
        .advice("copy out what can be read (get -r), or let chkdsk decide what is lost");
    if let Some(offset) = list.first().and_then(|defect| defect.offset) {
        error = error.at(offset);
    }
    error
}

/// True for what the rest hangs on: with a damaged boot sector or first record nothing else is certain.
fn is_early(remedy: &Remedy) -> bool {
    matches!(remedy, Remedy::BootSector | Remedy::FromMirror(_))
}

fn round(
    disk: &DiskMut,
    options: WriteOptions,
    volume: &Volume,
    found: &Examined,
    done: &mut Vec<String>,
) -> Result<()> {
    let mut later = Vec::new();
    let only_early = found.remedies.iter().any(is_early);
    for remedy in found.remedies.iter().filter(|remedy| !only_early || is_early(remedy)) {
        match remedy {
            Remedy::BootSector => {
                let Some((_, bytes)) = last_boot(volume)? else { continue };
                disk.write_at(0, &bytes)?;
                done.push("boot sector written from its copy".into());
            }
            Remedy::BootCopy => {
                let boot = volume.boot();
                let bytes = disk.as_disk().read_vec(0, boot.sector_bytes as usize)?;
                disk.write_at(boot.copy_offset(), &bytes)?;
                done.push("copy of the boot sector written".into());
            }
            Remedy::Mirror(number) => {
                let record = volume.raw_record(*number)?;
                let size = record.len() as u64;
                write_mapped(
                    disk,
                    volume,
                    clustered(&attribute(volume, 1, kind::DATA, "")?)?,
                    number * size,
                    &record,
                )?;
                done.push(format!("record {number} copied to $MFTMirr"));
            }
            Remedy::FromMirror(number) => {
                let mirror = mirror_bytes(volume).unwrap_or_default();
                let size = volume.boot().record_bytes as usize;
                let record = mirror.chunks_exact(size).nth(*number as usize);
                let record = record.ok_or_else(|| Error::damaged(Layer::Ntfs, "$MFTMirr is too short"))?;
                write_mapped(disk, volume, volume.mft(), number * size as u64, record)?;
                done.push(format!("record {number} put back from $MFTMirr"));
            }
            Remedy::ClusterBitmap => {
                let changed = cluster_bitmap(disk, volume, &found.taken)?;
                if changed > 0 {
                    done.push(format!("$Bitmap written from the runs: {changed} bytes differ"));
                }
            }
            Remedy::RecordBitmap => {
                let changed = record_bitmap(disk, volume, &found.used)?;
                if changed > 0 {
                    done.push(format!("bitmap of $MFT written from the records: {changed} bytes differ"));
                }
            }
            Remedy::SdsMirror => {
                sds_mirror(disk, volume)?;
                done.push("second copy of the security descriptors written from the first".into());
            }
            Remedy::Dirty => {
                let others = found.remedies.iter().any(|other| *other != Remedy::Dirty);
                if !others && !found.leaves {
                    later.push(remedy);
                }
            }
            _ => later.push(remedy),
        }
    }
    if later.is_empty() {
        return Ok(());
    }
    let mut mender = Mender::open(disk.clone(), options)?;
    for remedy in later {
        // What one operation cannot do, it leaves as it was; the checker names it afterwards.
        if let Ok(Some(text)) = single(&mut mender, volume, remedy) {
            done.push(text);
        }
    }
    mender.finish()
}

/// One repair by the writer: what was done, or nothing when it is not as it was seen.
fn single(mender: &mut Mender, volume: &Volume, remedy: &Remedy) -> Result<Option<String>> {
    let name = |key: &[u8]| {
        super::index::FileName::parse(key)
            .map_or_else(String::new, |n| vmrescue_base::text::utf16le_lossy(n.name_bytes()))
    };
    let number = |reference: &u64| super::record::number_of(*reference);
    Ok(Some(match remedy {
        Remedy::Header(record) => {
            mender.header(*record)?;
            format!("record {record:#x}: its own number and its count of names")
        }
        Remedy::IndexBitmap { record, name } => {
            let Some((bits, _)) = reached(volume, *record, name) else { return Ok(None) };
            mender.index_bitmap(*record, name, &bits)?;
            format!("record {record:#x}: bitmap of its index written from the tree")
        }
        Remedy::RemoveEntry { directory, key, reference } => {
            if !mender.remove_entry(*directory, key, *reference)? {
                return Ok(None);
            }
            let (name, directory) = (name(key), number(directory));
            format!("entry {name:?}, which leads to no file, removed from directory {directory:#x}")
        }
        Remedy::AddEntry { reference, key } => {
            mender.add_entry(*reference, key)?;
            format!("entry {:?} of record {:#x} added to its directory", name(key), number(reference))
        }
        Remedy::Orphan { reference, key } => {
            let name = mender.adopt(*reference, key)?;
            format!("record {:#x}, whose directory is gone, is \\found.000\\{name}", number(reference))
        }
        Remedy::FreeExtension(record) => {
            mender.free_extension(*record)?;
            format!("extension record {record:#x}, which no file owns, freed")
        }
        Remedy::RemoveKey { file, key } => {
            mender.key(file, key, None)?;
            format!("entry {} removed from {file}", vmrescue_base::text::hex(key))
        }
        Remedy::AddKey { file, key, data } => {
            mender.key(file, key, Some(data))?;
            format!("entry {} added to {file}", vmrescue_base::text::hex(key))
        }
        Remedy::Dirty => {
            mender.clean()?;
            "the mark `dirty` cleared".into()
        }
        _ => return Ok(None),
    }))
}

fn attribute(volume: &Volume, number: u64, kind: u32, name: &str) -> Result<Attr> {
    let node = volume.node(number)?;
    node.attribute(kind, &utf16le_bytes(name)).cloned().ok_or_else(|| no_stream(number, name))
}

fn clustered(attribute: &Attr) -> Result<&Clustered> {
    match &attribute.value {
        Value::Clustered(clustered) => Ok(clustered),
        Value::Resident(_) => Err(Error::damaged(Layer::Ntfs, "a system stream in its record")),
    }
}

/// Writes into the clusters of an attribute.
fn write_mapped(disk: &DiskMut, volume: &Volume, to: &Clustered, offset: u64, data: &[u8]) -> Result<()> {
    let cluster = u64::from(volume.boot().cluster_bytes);
    let (mut offset, mut data) = (offset, data);
    // Bounded: every step writes at least one byte.
    while !data.is_empty() {
        let place = to.map.find(offset / cluster).and_then(|(lcn, count)| Some((lcn?, count)));
        let (lcn, count) =
            place.ok_or_else(|| Error::damaged(Layer::Ntfs, "a system stream is too short"))?;
        let skip = offset % cluster;
        let length = count.saturating_mul(cluster).saturating_sub(skip).min(data.len() as u64) as usize;
        disk.write_at(lcn.saturating_mul(cluster).saturating_add(skip), &data[..length])?;
        offset += length as u64;
        data = &data[length..];
    }
    Ok(())
}

/// Writes what differs of $Bitmap; returns how many bytes did.
fn cluster_bitmap(disk: &DiskMut, volume: &Volume, taken: &Clusters) -> Result<u64> {
    let attribute = attribute(volume, 6, kind::DATA, "")?;
    let (mut at, mut changed, mut buf) = (0u64, 0, vec![0; CHUNK]);
    loop {
        let length = volume.read_attribute(6, &attribute, at, &mut buf)?;
        if length == 0 || at >= taken.count().div_ceil(8) {
            return Ok(changed);
        }
        let mut wanted = buf[..length].to_vec();
        for (index, byte) in wanted.iter_mut().enumerate() {
            let first = (at + index as u64) * 8;
            // Bits behind the last cluster stay as they are.
            let count = taken.count().saturating_sub(first).min(8);
            let mask = if count == 8 { 0xFF } else { (1u8 << count) - 1 };
            let word = taken.word(first / 64).to_le_bytes()[(first / 8 % 8) as usize];
            *byte = *byte & !mask | word & mask;
        }
        changed += write_changed(disk, volume, clustered(&attribute)?, at, &buf[..length], &wanted)?;
        at += length as u64;
    }
}

fn record_bitmap(disk: &DiskMut, volume: &Volume, used: &[u8]) -> Result<u64> {
    let attribute = attribute(volume, 0, kind::BITMAP, "")?;
    let old = volume.attribute_bytes(&attribute, MAX_RECORD_MAP_BYTES)?;
    let mut wanted = old.clone();
    let records = volume.records();
    for (index, byte) in wanted.iter_mut().enumerate().skip(RESERVED / 8) {
        let count = records.saturating_sub(index as u64 * 8).min(8);
        let mask = if count == 8 { 0xFF } else { (1u8 << count) - 1 };
        *byte = *byte & !mask | used.get(index).copied().unwrap_or(0) & mask;
    }
    write_changed(disk, volume, clustered(&attribute)?, 0, &old, &wanted)
}

/// Writes the 512-byte pieces that differ; returns how many bytes did.
fn write_changed(
    disk: &DiskMut,
    volume: &Volume,
    to: &Clustered,
    at: u64,
    old: &[u8],
    new: &[u8],
) -> Result<u64> {
    let mut changed = 0;
    for (index, (old, new)) in old.chunks(512).zip(new.chunks(512)).enumerate() {
        if old != new {
            changed += old.iter().zip(new).filter(|(a, b)| a != b).count() as u64;
            write_mapped(disk, volume, to, at + index as u64 * 512, new)?;
        }
    }
    Ok(changed)
}

/// Copies each first block of $SDS over the second of its pair.
fn sds_mirror(disk: &DiskMut, volume: &Volume) -> Result<()> {
    let attribute = attribute(volume, 9, kind::DATA, "$SDS")?;
    let sds = volume.attribute_bytes(&attribute, MAX_SDS_BYTES)?;
    let block = MIRROR_BYTES as usize;
    for start in (0..sds.len()).step_by(2 * block) {
        let Some(room) = sds.len().checked_sub(start + block) else { break };
        let first = &sds[start..start + room.min(block)];
        if !is_zero(first) {
            write_mapped(disk, volume, clustered(&attribute)?, (start + block) as u64, first)?;
        }
    }
    Ok(())
}
