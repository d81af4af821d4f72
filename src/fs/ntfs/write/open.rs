//! Opening a volume for writing: everything that must be right before the first change.

use super::alloc::BitMap;
use super::attribute::{Attribute, Body, kind};
use super::core::{Core, Geometry, damaged};
use super::file::File;
use super::names::ROOT;
use super::record::{self, remove_fixups};
use crate::ntfs::logfile::{self, restart::Found};
use crate::ntfs::state::{HIBERNATION_FILE, Hibernation};
use crate::ntfs::volume::Volume;
use vmrescue_base::bytes::u16_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::DiskMut;

/// Most bytes of an allocation map: a volume of 2^32 clusters.
const MAX_MAP_BYTES: u64 = 1 << 29;
/// The way out when a log stands in the way.
const DISCARD_LOG: &str =
    "let Windows start once, or give those changes up with --discard-log and check the volume afterwards";
/// Volume flag: dirty.
const VOLUME_DIRTY: u16 = 1;

/// What may be ignored on opening. The default ignores nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Write although the volume is marked dirty (the mark stays: Windows will check the volume).
    pub allow_dirty: bool,
    /// Do not replay what $LogFile holds: those changes are lost. For a log that cannot be replayed.
    pub discard_log: bool,
    /// Give up the memory of a hibernated Windows.
    pub discard_hibernation: bool,
    /// The time that changes carry, instead of the clock's.
    pub time: Option<FileTime>,
    /// Whether new long names get an 8.3 name; without it the volume's own evidence decides.
    pub short_names: Option<bool>,
}

/// Opens a volume; see [`super::VolumeMut::open_with`].
pub(crate) fn open(disk: DiskMut, options: WriteOptions) -> Result<Core> {
    // First of all: what follows reads the volume as it is after the replay.
    let empty_log = finish_log(&disk, options)?;
    let geometry = Geometry::read(&disk)?;
    let mut core = Core::bare(disk, geometry);
    core.fixed_time = options.time;
    core.short_names = options.short_names;
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
    core.upcase = vmrescue_base::text::utf16le_units(&table);
    check_volume(&mut core, options)?;
    if empty_log {
        core.empty_log = Some(File::load(&mut core, 2)?.stream_mut(kind::DATA, "")?.clone());
    }
    check_hibernation(&mut core, options)?;
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

/// Sees to it that nothing of $LogFile is left to be replayed over what is going to be written: replays it into the staged
/// disk, or closes it unread. Returns what must be filled with 0xFF because nothing else closes it.
fn finish_log(disk: &DiskMut, options: WriteOptions) -> Result<bool> {
    let volume = Volume::bare(disk.as_disk())?;
    let found = logfile::find(&volume)?;
    let restart = match found {
        Found::Empty | Found::Checked => return Ok(false),
        Found::Restart(restart) if restart.is_clean() => return Ok(false),
        Found::Unreadable if options.discard_log => return Ok(true),
        Found::Unreadable => {
            return Err(Error::refused(Layer::Ntfs, "neither restart page of $LogFile can be read")
                .found("it may hold changes that were not finished")
                .advice(DISCARD_LOG));
        }
        Found::Restart(restart) => restart,
    };
    let writes = if options.discard_log {
        logfile::close(&volume, &restart, restart.current_lsn)?
    } else {
        let replayed = logfile::replay(&volume, &restart).map_err(|error| {
            let what =
                format!("$LogFile holds changes that were not finished and cannot be replayed: {error}");
            Error::refused(Layer::Ntfs, what).advice(DISCARD_LOG)
        })?;
        [replayed.writes, replayed.closing].concat()
    };
    writes.iter().try_for_each(|(place, bytes)| disk.write_at(*place, bytes))?;
    Ok(false)
}

/// Refuses a hibernated volume, or takes the mark of hibernation away: the first page becomes zero, as Windows itself
/// leaves it after a resume.
fn check_hibernation(core: &mut Core, options: WriteOptions) -> Result<()> {
    let root = File::load(core, ROOT)?.header.reference();
    let Some(entry) = core.lookup(root, HIBERNATION_FILE)? else { return Ok(()) };
    let mut file = File::open(core, entry.reference)?;
    let mut head = [0; 4096];
    // What cannot be read as plain data (it never is anything else) is not a header that Windows would take.
    let length = core.read_data(&file, "", 0, &mut head)?.unwrap_or(0);
    let hibernation = Hibernation::of(&head[..length]);
    let Some(refusal) = hibernation.refusal() else { return Ok(()) };
    if !options.discard_hibernation {
        return Err(refusal);
    }
    core.transact(|core| {
        let zeros = vec![0; length];
        let runs = core.write_data(&mut file, "", 0, &zeros)?;
        file.store(core)?;
        // What lies in clusters is written by whoever changes it, after the record.
        runs.map_or(Ok(()), |runs| core.write_runs(&runs, 0, &zeros))
    })
}
