//! A search for volumes that no partition table names: by their boot sectors, by the copies of these, and by file records of $MFT.
//! It reads and never writes; what it finds it says with its evidence.

use super::ntfs::{self, Boot, LostVolume};
use super::{FileSystem, fat, open};
use std::ops::Range;
use std::sync::Arc;
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::Result;
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, ExtentKind, Overlay, OverlayOptions, WritableDevice};

/// Where partitions begin since Windows Vista, in bytes.
const ALIGNMENT: u64 = 1 << 20;
/// Where the first partition began before, in sectors.
const OLD_FIRST: u64 = 63;
/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;
/// Most volumes that are found.
const MOST: usize = 64;

/// How closely is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At the places where Windows puts partitions: some thousand reads for a large disk.
    Quick,
    /// At every sector that the image holds.
    Deep,
}

/// A volume that was found.
#[derive(Debug, Clone)]
pub struct FoundVolume {
    /// Where it lies on the disk, in bytes; for NTFS with the sector that holds the copy of the boot sector.
    pub range: Range<u64>,
    /// `ntfs`, `fat32`, ..., `bitlocker`.
    pub kind: String,
    /// Its label.
    pub label: String,
    /// How it was found, for people.
    pub evidence: Vec<String>,
    /// The boot sector that it must have, when its own is damaged.
    pub boot_sector: Option<Vec<u8>>,
    /// It has boot files of UEFI machines.
    pub efi: bool,
    /// It has boot files of BIOS machines.
    pub bios: bool,
}

/// Searches the parts of a disk that `known` does not name.
///
/// # Errors
/// `Interrupted` when the user asked to stop. What cannot be read holds nothing.
pub fn search(
    disk: &Disk,
    known: &[Range<u64>],
    depth: Depth,
    progress: &dyn Progress,
) -> Result<Vec<FoundVolume>> {
    let mut search =
        Search { disk, found: Vec::new(), sector: u64::from(disk.geometry().logical_sector_bytes) };
    for gap in gaps(known, disk.len()) {
        progress.begin("searching for volumes", Some(gap.end - gap.start));
        let done = search.gap(gap, depth, progress);
        progress.end();
        done?;
    }
    search.found.sort_by_key(|found| found.range.start);
    Ok(search.found)
}

/// What lies between the known ranges.
fn gaps(known: &[Range<u64>], length: u64) -> Vec<Range<u64>> {
    let mut known: Vec<Range<u64>> = known.to_vec();
    known.sort_by_key(|range| range.start);
    let (mut at, mut found) = (0, Vec::new());
    for range in known.into_iter().chain(std::iter::once(length..length)) {
        if range.start > at {
            found.push(at..range.start);
        }
        at = at.max(range.end);
    }
    found
}

struct Search<'a> {
    disk: &'a Disk,
    found: Vec<FoundVolume>,
    sector: u64,
}

impl Search<'_> {
    fn gap(&mut self, gap: Range<u64>, depth: Depth, progress: &dyn Progress) -> Result<()> {
        let mut at = gap.start;
        while at < gap.end && self.found.len() < MOST {
            if progress.cancelled() {
                return Err(vmrescue_base::Error::new(
                    vmrescue_base::ErrorKind::Interrupted,
                    vmrescue_base::Layer::FileSystem,
                    "stopped",
                ));
            }
            let end = (at - at % PIECE + PIECE).min(gap.end);
            let hole = self.disk.extent_at(at).ok().filter(|extent| extent.kind == ExtentKind::Zero);
            let next = match hole {
                Some(extent) => at.saturating_add(extent.length_bytes.max(1)).max(at + 1),
                None if depth == Depth::Deep => self.piece(at..end, &gap),
                None => self.places(at..end, &gap),
            };
            progress.advance(next.min(gap.end) - at);
            at = next.max(at + 1);
        }
        Ok(())
    }

    /// Every sector of a piece; the place to go on at.
    fn piece(&mut self, piece: Range<u64>, gap: &Range<u64>) -> u64 {
        let Ok(bytes) = self.disk.read_vec(piece.start, (piece.end - piece.start) as usize) else {
            return piece.end;
        };
        for (at, sector) in (piece.start..).step_by(512).zip(bytes.chunks_exact(512)) {
            if let Some(end) = self.sector_at(at, sector, gap) {
                return end;
            }
        }
        piece.end
    }

    /// The places of a piece where Windows puts the first and last sectors of volumes.
    fn places(&mut self, piece: Range<u64>, gap: &Range<u64>) -> u64 {
        let aligned = piece.start.next_multiple_of(ALIGNMENT);
        let places = [
            aligned.checked_sub(self.sector),
            Some(aligned),
            Some(aligned + 6 * self.sector),
            Some(OLD_FIRST * 512),
            Some(piece.end - self.sector.min(piece.end)),
        ];
        for at in places.into_iter().flatten().filter(|at| piece.contains(at)) {
            let Ok(bytes) = self.disk.read_vec(at, 512.min((self.disk.len() - at) as usize)) else {
                continue;
            };
            if let Some(end) = self.sector_at(at, &bytes, gap) {
                return end;
            }
        }
        piece.end
    }

    /// Looks at one sector; the end of the volume that it tells of.
    fn sector_at(&mut self, at: u64, bytes: &[u8], gap: &Range<u64>) -> Option<u64> {
        let found = if ntfs::is_ntfs(bytes) {
            self.ntfs_boot(at, bytes)
        } else if bytes.get(..4) == Some(b"FILE") {
            self.ntfs_records(at)
        } else if bytes.get(3..11) == Some(b"-FVE-FS-") {
            self.bitlocker(at, bytes)
        } else if fat::is_fat(bytes) {
            self.fat_boot(at, bytes)
        } else {
            None
        }?;
        // A volume inside a file of another one, or across a known one, is none of the disk's own.
        let inside = found.range.start >= gap.start && found.range.end <= gap.end;
        let apart = self
            .found
            .iter()
            .all(|other| found.range.end <= other.range.start || other.range.end <= found.range.start);
        if !inside || !apart {
            return None;
        }
        let end = found.range.end;
        self.found.push(found);
        Some(end.max(at + 512))
    }

    fn ntfs_boot(&self, at: u64, bytes: &[u8]) -> Option<FoundVolume> {
        let boot = Boot::parse(bytes).ok()?;
        let sector = u64::from(boot.sector_bytes);
        let offset = boot.mft_lcn.checked_mul(u64::from(boot.cluster_bytes))?;
        let mirror = boot.mirror_lcn.checked_mul(u64::from(boot.cluster_bytes))?;
        let has_records = |start: u64| {
            [offset, mirror].into_iter().any(|offset| {
                let place = start.checked_add(offset);
                place.and_then(|place| self.disk.read_vec(place, 4).ok()).is_some_and(|head| head == b"FILE")
            })
        };
        let first = at.checked_add(boot.size_bytes())?.checked_add(sector)?;
        if first <= self.disk.len() && has_records(at) {
            let evidence = format!("its boot sector at {at:#x}");
            return Some(self.opened(at..first, "ntfs", vec![evidence], None));
        }
        let start = at.checked_sub(boot.size_bytes())?;
        if has_records(start) {
            let evidence =
                format!("the copy of its boot sector at {at:#x}; the boot sector itself is damaged");
            let boot_sector = self.disk.read_vec(at, sector as usize).ok()?;
            return Some(self.opened(start..at + sector, "ntfs", vec![evidence], Some(boot_sector)));
        }
        None
    }

    fn ntfs_records(&self, at: u64) -> Option<FoundVolume> {
        let found: LostVolume = ntfs::volume_at(self.disk, at, self.sector as u32)?;
        let sector = u64::from(found.boot.sector_bytes);
        let end = (found.start + found.boot.size_bytes() + sector).min(self.disk.len());
        let boot_sector = found.boot_sector(found.start / sector, None).ok()?;
        Some(self.opened(found.start..end, "ntfs", found.evidence, Some(boot_sector)))
    }

    fn bitlocker(&self, at: u64, bytes: &[u8]) -> Option<FoundVolume> {
        // The length stands where NTFS has it; volumes made by Windows 7 and later leave it at zero.
        let sectors = vmrescue_base::bytes::u64_at(bytes, 0x28).filter(|sectors| *sectors > 0)?;
        let end = sectors.checked_add(1)?.checked_mul(512)?.checked_add(at)?;
        let evidence = vec![format!("the signature of BitLocker at {at:#x}")];
        (end <= self.disk.len()).then(|| self.named(at..end, "bitlocker", evidence))
    }

    fn fat_boot(&self, at: u64, bytes: &[u8]) -> Option<FoundVolume> {
        let sector = u64::from(u16_at(bytes, 11)?);
        let small = u64::from(u16_at(bytes, 19)?);
        let sectors = if small != 0 { small } else { u64::from(u32_at(bytes, 32)?) };
        if !(512..=4096).contains(&sector) || !sector.is_power_of_two() || sectors == 0 {
            return None;
        }
        let reserved = u64::from(u16_at(bytes, 14)?);
        let fat_32 = bytes.get(82..87) == Some(b"FAT32");
        // The first entry of the table repeats the byte of the medium.
        let has_table = |start: u64| {
            let place = start.checked_add(reserved * sector);
            place.and_then(|place| self.disk.read_vec(place, 4).ok()).is_some_and(|entry| {
                Some(&entry[0]) == bytes.get(21) && entry[1] == 0xff && entry[2] & 0xf == 0xf
            })
        };
        let length = sectors.checked_mul(sector)?;
        let ends = |start: u64| start.checked_add(length).is_some_and(|end| end <= self.disk.len());
        if ends(at) && has_table(at) {
            let evidence = vec![format!("its boot sector at {at:#x}")];
            return Some(self.opened(at..at + length, "fat", evidence, None));
        }
        let start = at.checked_sub(6 * sector).filter(|_| fat_32)?;
        if ends(start) && has_table(start) {
            let evidence =
                vec![format!("the copy of its boot sector at {at:#x}; the boot sector itself is damaged")];
            let copy = self.disk.read_vec(at, sector as usize).ok()?;
            return Some(self.opened(start..start + length, "fat", evidence, Some(copy)));
        }
        None
    }

    fn named(&self, range: Range<u64>, kind: &str, evidence: Vec<String>) -> FoundVolume {
        FoundVolume {
            range,
            kind: kind.into(),
            label: String::new(),
            evidence,
            boot_sector: None,
            efi: false,
            bios: false,
        }
    }

    /// A volume with what opening it says; one that does not open is told all the same.
    fn opened(
        &self,
        range: Range<u64>,
        kind: &str,
        evidence: Vec<String>,
        boot_sector: Option<Vec<u8>>,
    ) -> FoundVolume {
        let mut found = FoundVolume { boot_sector, ..self.named(range, kind, evidence) };
        match view(self.disk, &[&found]).and_then(|disk| disk.window(found.range.clone())).and_then(open) {
            Ok(fs) => {
                let info = fs.info();
                found.kind = info.kind.to_string();
                found.label = info.label;
                let has =
                    |path: &[&str]| matches!(super::resolve(&*fs as &dyn FileSystem, path), Ok(Some(_)));
                found.efi = has(&["EFI", "Microsoft", "Boot"]) || has(&["EFI", "Boot"]);
                found.bios = has(&["bootmgr"]) || has(&["ntldr"]);
                found.evidence.push(format!("it opens as {} {:?}", found.kind, found.label));
            }
            Err(e) => found.evidence.push(format!("it does not open: {e}")),
        }
        found
    }
}

/// The disk as it reads with the boot sectors that the volumes must have. Nothing is written to it.
///
/// # Errors
/// Of the overlay in memory.
pub fn view(disk: &Disk, found: &[&FoundVolume]) -> Result<Disk> {
    if found.iter().all(|volume| volume.boot_sector.is_none()) {
        return Ok(disk.clone());
    }
    let overlay: Arc<Overlay> = Overlay::new(disk.clone(), OverlayOptions::default())?;
    for volume in found {
        if let Some(bytes) = &volume.boot_sector {
            overlay.write_at(volume.range.start, bytes)?;
        }
    }
    Ok(Disk::new(overlay))
}
