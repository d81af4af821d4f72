//! Opening a volume for writing: everything that must be right before the first change.

use super::alloc::BitMap;
use super::attribute::{Attribute, Body, Stream, kind};
use super::core::{Core, Geometry, damaged};
use super::file::File;
use super::names::ROOT;
use super::record::{self, remove_fixups};
use crate::block::DiskMut;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::{Error, Layer, Result};
use crate::time::FileTime;

/// Most bytes of an allocation map: a volume of 2^32 clusters.
const MAX_MAP_BYTES: u64 = 1 << 29;
/// Volume flag: dirty.
const VOLUME_DIRTY: u16 = 1;

/// What may be ignored on opening. The default ignores nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Write although the volume is marked dirty (the mark stays: Windows will check the volume).
    pub allow_dirty: bool,
    /// Write although $LogFile has changes that Windows would replay. The log is emptied: those changes are lost.
    pub discard_log: bool,
    /// Write although Windows is hibernated on it.
    pub allow_hibernated: bool,
    /// The time that changes carry, instead of the clock's.
    pub time: Option<FileTime>,
}

/// Opens a volume; see [`super::VolumeMut::open_with`].
pub(crate) fn open(disk: DiskMut, options: WriteOptions) -> Result<Core> {
    let geometry = Geometry::read(&disk)?;
    let mut core = Core::bare(disk, geometry);
    core.fixed_time = options.time;
    open_mft(&mut core)?;
    let mirror = File::load(&mut core, 1)?.stream_mut(kind::DATA, "")?.clone();
    core.mft.mirror = mirror;
    let mut bitmap = File::load(&mut core, 6)?;
    core.clusters_at = bitmap.stream_mut(kind::DATA, "")?.clone();
    let map = core.read_stream(&core.clusters_at, MAX_MAP_BYTES)?;
    core.clusters = BitMap::new(map, geometry.clusters)?;
    let upcase = File::load(&mut core, 10)?.stream_mut(kind::DATA, "")?.clone();
    let table = core.read_stream(&upcase, 0x20000)?;
    if table.len() != 0x20000 {
        return Err(damaged("$UpCase has not one entry for every character").found(table.len()));
    }
    core.upcase = crate::text::utf16le_units(&table);
    check_volume(&mut core, options)?;
    check_log(&mut core, options)?;
    if !options.allow_hibernated {
        check_hibernation(&mut core)?;
    }
    Ok(core)
}

/// Finds $MFT: its first segment from the boot sector, then all of it.
fn open_mft(core: &mut Core) -> Result<()> {
    let geometry = core.geometry;
    let at = geometry
        .mft_lcn
        .checked_mul(geometry.cluster_bytes)
        .ok_or_else(|| damaged("$MFT outside the volume"))?;
    let mut bytes = core.disk.as_disk().read_vec(at, geometry.record_bytes)?;
    if !remove_fixups(&mut bytes) {
        return Err(damaged("the first record of $MFT is torn").at(at));
    }
    let (_, raw) = record::decode(&bytes, 0)?;
    for attribute in raw {
        let (attribute, lowest) = Attribute::decode(attribute, 0, geometry.clusters)?;
        if let (kind::DATA, true, 0, Body::Runs(stream)) =
            (attribute.kind, attribute.name.is_empty(), lowest, attribute.body)
        {
            core.mft.data = stream;
        }
    }
    let mut file = File::load(core, 0)?;
    core.mft.data = file.stream_mut(kind::DATA, "")?.clone();
    core.mft.bitmap = file.stream_mut(kind::BITMAP, "")?.clone();
    let records = core.mft.data.initialized_bytes / geometry.record_bytes as u64;
    let map = core.read_stream(&core.mft.bitmap, MAX_MAP_BYTES)?;
    core.records = BitMap::new(map, records)?;
    Ok(())
}

fn check_volume(core: &mut Core, options: WriteOptions) -> Result<()> {
    let file = File::load(core, 3)?;
    let information = file.value(kind::VOLUME_INFORMATION, "");
    let (version, flags) = information
        .and_then(|v| Some((u16_at(v, 8)?, u16_at(v, 10)?)))
        .ok_or_else(|| damaged("$Volume has no volume information"))?;
    if version.to_le_bytes()[0] != 3 {
        return Err(
            Error::unsupported(Layer::Ntfs, "a version of NTFS that is not written").expected("3.0 or 3.1")
        );
    }
    if flags & VOLUME_DIRTY != 0 && !options.allow_dirty {
        return Err(Error::refused(
            Layer::Ntfs,
            "the volume is marked dirty: Windows did not finish with it",
        )
        .advice("run the check command first, and allow a dirty volume when it finds nothing"));
    }
    Ok(())
}

fn check_log(core: &mut Core, options: WriteOptions) -> Result<()> {
    let stream = File::load(core, 2)?.stream_mut(kind::DATA, "")?.clone();
    if log_is_clean(core, &stream)? {
        return Ok(());
    }
    if !options.discard_log {
        return Err(Error::refused(Layer::Ntfs, "$LogFile holds changes that were not finished")
            .advice("let Windows start once, or allow the log to be discarded"));
    }
    core.empty_log = Some(stream);
    Ok(())
}

/// True when Windows would not replay anything: no restart pages, the "clean" flag, or no client in use.
fn log_is_clean(core: &Core, stream: &Stream) -> Result<bool> {
    let head = Stream { size_bytes: stream.size_bytes.min(1 << 16), ..stream.clone() };
    let bytes = core.read_stream(&head, 1 << 16)?;
    if bytes.iter().all(|b| *b == 0xFF) {
        return Ok(true);
    }
    let mut best: Option<(u64, bool)> = None;
    for at in [0, 4096] {
        let Some(page) = bytes.get(at..) else { continue };
        if page.get(..4) == Some(b"CHKD") {
            return Ok(true);
        }
        let restart = || -> Option<(u64, bool)> {
            let size = u32_at(page, 0x10)? as usize;
            let mut page = page.get(..size).filter(|p| p.get(..4) == Some(b"RSTR"))?.to_vec();
            if !remove_fixups(&mut page) {
                return None;
            }
            let area = page.get(usize::from(u16_at(&page, 0x18)?)..)?;
            let clean = u16_at(area, 0x0E)? & 2 != 0 || u16_at(area, 0x0C)? == 0xFFFF;
            Some((u64_at(area, 0)?, clean))
        };
        if let Some(found) = restart() {
            best = best.max(Some(found));
        }
    }
    Ok(best.is_some_and(|(_, clean)| clean))
}

fn check_hibernation(core: &mut Core) -> Result<()> {
    let root = File::load(core, ROOT)?.header.reference();
    let Some(entry) = core.lookup(root, "hiberfil.sys")? else { return Ok(()) };
    let file = File::open(core, entry.reference)?;
    let mut head = [0; 4];
    let read = core.read_data(&file, "", 0, &mut head)?;
    if read == Some(4) && head.eq_ignore_ascii_case(b"hibr") {
        return Err(Error::refused(Layer::Ntfs, "Windows is hibernated on this volume (or shut down by fast startup)")
            .advice("writing now would be undone or cause damage when Windows resumes; allow it only to give up that state"));
    }
    Ok(())
}
