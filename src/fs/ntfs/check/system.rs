//! The frame of a volume: boot sector and its copy, $MFTMirr, the system files, $UpCase, how the volume was left.

use super::codes::*;
use super::notes::{Notes, Remedy};
use super::record::Fact;
use crate::ntfs::boot::{Boot, is_ntfs};
use crate::ntfs::node::{Attr, Value, kind};
use crate::ntfs::record::{Record, fix_up};
use crate::ntfs::state::{LogState, Replay};
use crate::ntfs::volume::Volume;
use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::Result;

/// The files that every volume has, with the attribute that each cannot be without.
const SYSTEM: [(u64, &str, u32); 10] = [
    (0, "$MFT", kind::DATA),
    (1, "$MFTMirr", kind::DATA),
    (2, "$LogFile", kind::DATA),
    (3, "$Volume", kind::VOLUME_INFORMATION),
    (4, "$AttrDef", kind::DATA),
    (5, ".", kind::INDEX_ROOT),
    (6, "$Bitmap", kind::DATA),
    (7, "$Boot", kind::DATA),
    (8, "$BadClus", kind::DATA),
    (10, "$UpCase", kind::DATA),
];
/// What every volume of NTFS 3 has besides.
const SINCE_3: [(u64, &str, u32); 2] = [(9, "$Secure", kind::DATA), (11, "$Extend", kind::INDEX_ROOT)];
/// Volume flag: dirty.
const DIRTY: u16 = 1;
/// Records that every system keeps copied; what else $MFTMirr has room for is only written when a volume is made.
pub(super) const MIRRORED: u64 = 4;
/// Largest $MFTMirr: one cluster, where that holds more than four records.
const MAX_MIRROR_BYTES: u64 = 1 << 22;
/// Bytes of $UpCase.
const UPCASE_BYTES: u64 = 0x20000;

/// A file of the file system itself that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemFileProblem {
    /// Number of its record.
    pub record: u64,
    /// What is wrong, as a sentence for people.
    pub detail: String,
    /// $MFTMirr has a copy of the record that is whole.
    pub copied: bool,
}

impl Volume {
    /// The files of the file system itself that cannot be used: without them Windows does not mount the volume. A small part of the check, and
    /// quick.
    pub fn system_problems(&self) -> Vec<SystemFileProblem> {
        let mirror = mirror_bytes(self);
        let size = self.boot().record_bytes as usize;
        let mut found = Vec::new();
        // NTFS 1.2 has neither.
        let newer = SINCE_3.into_iter().filter(|_| self.version().0 >= 3);
        for (number, name, kind) in SYSTEM.into_iter().chain(newer) {
            let wrong = match self.fixed_record(number) {
                Err(e) => Some(e.to_string()),
                Ok(bytes) if !Record::of_fixed(&bytes).in_use() => Some("it is marked as free".to_string()),
                Ok(_) => match self.node(number) {
                    Err(e) => Some(e.to_string()),
                    Ok(node) if node.all(kind).next().is_none() => {
                        Some(format!("it lacks attribute {kind:#x}"))
                    }
                    Ok(_) => None,
                },
            };
            let Some(wrong) = wrong else { continue };
            let copy = mirror.as_ref().filter(|_| number < MIRRORED).and_then(|mirror| {
                let at = number as usize * size;
                mirror.get(at..at + size).map(<[u8]>::to_vec)
            });
            let copied = copy.is_some_and(|mut bytes| fix_up(&mut bytes, b"FILE").is_ok());
            found.push(SystemFileProblem { record: number, detail: format!("{name}: {wrong}"), copied });
        }
        found
    }
}

/// Looks at all of it.
pub(super) fn look(volume: &Volume, facts: &[Fact], notes: &mut Notes) -> Result<()> {
    boot(volume, notes)?;
    mirror(volume, facts, notes);
    for (number, name, kind) in SYSTEM {
        let used = facts.get(number as usize).is_some_and(|fact| fact.is(Fact::USED));
        let there = volume.node(number).is_ok_and(|node| node.all(kind).next().is_some());
        if !used || !there {
            let detail = format!("{name} (record {number}) is missing or lacks attribute {kind:#x}");
            notes.note(SYSTEM_FILE, volume.record_offset(number), detail);
        }
    }
    places(volume, notes);
    upcase(volume, notes);
    if volume.volume_flags() & DIRTY != 0 {
        notes.mend(VOLUME_DIRTY, volume.record_offset(3), "the volume is marked dirty", Remedy::Dirty);
    }
    match volume.log_state() {
        LogState::Empty | LogState::Clean(..) => {}
        LogState::NotClean(major, minor) => {
            let seen = match volume.replay() {
                Replay::Done(_) => "the volume was looked at as it is with them",
                _ => "they cannot be replayed",
            };
            let detail =
                format!("$LogFile (version {major}.{minor}) holds changes that were not finished: {seen}");
            notes.note(LOG_NOT_CLEAN, None, detail);
        }
        LogState::Unknown => notes.note(LOG_NOT_CLEAN, None, "neither restart page of $LogFile can be read"),
    }
    Ok(())
}

/// A whole boot sector: its numbers can be, and what NTFS leaves empty is empty (other readers look at that).
pub(crate) fn whole_boot(bytes: &[u8]) -> Option<Boot> {
    let empty = |range: std::ops::Range<usize>| bytes.get(range).is_some_and(vmrescue_base::bytes::is_zero);
    (empty(0x0E..0x15) && empty(0x16..0x18) && empty(0x20..0x24)).then(|| Boot::parse(bytes).ok()).flatten()
}

/// The boot sector in the last sector of the disk, when it is whole and belongs there.
pub(crate) fn last_boot(volume: &Volume) -> Result<Option<(u64, Vec<u8>)>> {
    let disk = volume.disk();
    for length in [u64::from(volume.boot().sector_bytes), 512, 4096] {
        let Some(at) = disk.len().checked_sub(length) else { continue };
        let bytes = disk.read_vec(at, length as usize)?;
        if whole_boot(&bytes)
            .is_some_and(|boot| boot.copy_offset() == at && u64::from(boot.sector_bytes) == length)
        {
            return Ok(Some((at, bytes)));
        }
    }
    Ok(None)
}

fn boot(volume: &Volume, notes: &mut Notes) -> Result<()> {
    let boot = volume.boot();
    let (disk, length) = (volume.disk(), boot.sector_bytes as usize);
    let first = disk.read_vec(0, length)?;
    let at = boot.copy_offset();
    let there = at.saturating_add(length as u64) <= disk.len();
    let last = last_boot(volume)?;
    // A first sector that counts other sectors than its copy at the end of the disk is the damaged one of the two.
    let shrunk = last.as_ref().is_some_and(|(place, _)| *place != at)
        && !(there && whole_boot(&disk.read_vec(at, length)?).is_some());
    if whole_boot(&first).as_ref() != Some(boot) || shrunk {
        let detail = "the boot sector is damaged";
        if last.is_some() {
            notes.mend(BOOT_SECTOR, 0, format!("{detail}; its copy is whole"), Remedy::BootSector);
        } else {
            notes.leave(BOOT_SECTOR, 0, detail);
        }
        return Ok(());
    }
    if !there {
        // The copy lies in the sector behind the volume: images that were cut at its end lack it.
        if at > disk.len() {
            let detail = format!("the volume has {at:#x} bytes, there are {:#x}", disk.len());
            notes.note(VOLUME_CUT, at, detail);
        }
        return Ok(());
    }
    let copy = disk.read_vec(at, length)?;
    if copy != first {
        let detail = "the copy of the boot sector differs from the first sector";
        // Nothing else lies there: the end of the disk, zeros, or what was a boot sector.
        let free = at + length as u64 == disk.len() || is_ntfs(&copy) || vmrescue_base::bytes::is_zero(&copy);
        if free {
            notes.mend(BOOT_COPY, at, detail, Remedy::BootCopy);
        } else {
            notes.leave(BOOT_COPY, at, detail);
        }
    }
    Ok(())
}

/// $MFTMirr; where its own record is damaged, by the boot sector.
pub(crate) fn mirror_bytes(volume: &Volume) -> Option<Vec<u8>> {
    let by_record = || {
        let node = volume.node(1).ok()?;
        volume.attribute_bytes(node.attribute(kind::DATA, &[])?, MAX_MIRROR_BYTES).ok()
    };
    by_record().or_else(|| {
        let boot = volume.boot();
        let at = boot.mirror_lcn.checked_mul(u64::from(boot.cluster_bytes))?;
        volume.disk().read_vec(at, MIRRORED as usize * boot.record_bytes as usize).ok()
    })
}

/// $MFTMirr against the first records.
fn mirror(volume: &Volume, facts: &[Fact], notes: &mut Notes) {
    let size = volume.boot().record_bytes as usize;
    let Some(mirror) = mirror_bytes(volume) else { return }; // said as a missing system file
    for (number, copy) in (0..MIRRORED.min(volume.records())).zip(mirror.chunks_exact(size)) {
        let Ok(own) = volume.raw_record(number) else { continue };
        if own == copy {
            continue;
        }
        let whole = |bytes: &[u8]| fix_up(&mut bytes.to_vec(), b"FILE").is_ok();
        let at = volume.record_offset(number);
        if !whole(&own) && whole(copy) {
            let detail = format!("record {number} is damaged, its copy in $MFTMirr is whole");
            notes.mend(MIRROR_BETTER, at, detail, Remedy::FromMirror(number));
        } else if facts.get(number as usize).is_some_and(|fact| !fact.is(Fact::DAMAGED)) {
            let detail = format!("record {number} differs from its copy in $MFTMirr");
            notes.mend(MIRROR, at, detail, Remedy::Mirror(number));
        }
    }
}

/// Where $MFT, $MFTMirr, $Boot and $BadClus say that they lie.
fn places(volume: &Volume, notes: &mut Notes) {
    let boot = volume.boot();
    let data = |number: u64, name: &[u8]| -> Option<(Option<u64>, u64)> {
        let node = volume.node(number).ok()?;
        match node.attribute(kind::DATA, name)? {
            Attr { value: Value::Clustered(c), .. } => {
                Some((c.map.runs().first().and_then(|run| run.lcn), c.map.end()))
            }
            Attr { .. } => None,
        }
    };
    for (number, place, code) in [(0, boot.mft_lcn, MFT_PLACE), (1, boot.mirror_lcn, MIRROR_PLACE)] {
        let own = data(number, &[]).and_then(|(lcn, _)| lcn);
        if own.is_some_and(|own| own != place) {
            let detail = format!(
                "record {number} begins at LCN {:#x}, the boot sector says {place:#x}",
                own.unwrap_or_default()
            );
            notes.note(code, volume.record_offset(number), detail);
        }
    }
    if let Some((_, clusters)) = data(8, &vmrescue_base::text::utf16le_bytes("$Bad"))
        && clusters != boot.clusters()
    {
        let detail = format!("$BadClus:$Bad has {clusters:#x} clusters, the volume {:#x}", boot.clusters());
        notes.note(BAD_SIZE, volume.record_offset(8), detail);
    }
}

/// $UpCase: long enough, letters go up, what is up stays.
fn upcase(volume: &Volume, notes: &mut Notes) {
    let at = volume.record_offset(10);
    let Ok(node) = volume.node(10) else { return };
    let Some(data) = node.attribute(kind::DATA, &[]) else { return };
    let table = match volume.attribute_bytes(data, UPCASE_BYTES) {
        Ok(table) if table.len() as u64 == UPCASE_BYTES => table,
        _ => return notes.note(UPCASE, at, format!("$UpCase has {:#x} bytes", data.size())),
    };
    let up = |unit: u16| u16_at(&table, usize::from(unit) * 2).unwrap_or(0);
    let latin = (0..0x80u16).all(|unit| {
        let wanted = if (0x61..=0x7A).contains(&unit) { unit - 0x20 } else { unit };
        up(unit) == wanted
    });
    let wandering = (0..=u16::MAX).find(|unit| up(up(*unit)) != up(*unit));
    if !latin {
        notes.note(UPCASE, at, "$UpCase does not turn Latin letters into their upper case");
    } else if let Some(unit) = wandering {
        notes.note(
            UPCASE,
            at,
            format!("$UpCase turns {unit:#06x} into a letter that has another upper case"),
        );
    }
}
