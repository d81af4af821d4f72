//! How the volume was left: the dirty flag, the restart pages of $LogFile, hibernation.
//!
//! Missing: the records of $LogFile are not replayed.

use super::node::kind;
use super::record::fix_up;
use super::volume::Volume;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::Result;
use crate::fs::FileSystem;

/// Bytes from the start of $LogFile that hold both restart pages, whatever their size.
const RESTART_BYTES: u64 = 128 << 10;
/// Restart area flag: the volume was unmounted cleanly.
const CLEAN: u16 = 2;
/// "No client" in the lists of a restart area.
const NO_CLIENT: u16 = 0xFFFF;

/// What $LogFile says about the last unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogState {
    /// Never used since the volume was made or the log was reset (all 0xFF).
    Empty,
    /// Unmounted cleanly; version of the log.
    Clean(i16, i16),
    /// Not unmounted cleanly: there may be records to replay; version of the log.
    NotClean(i16, i16),
    /// No restart page can be read.
    Unknown,
}

/// What `hiberfil.sys` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hibernation {
    /// There is no such file, or it is empty or marked as used up.
    No,
    /// The memory of a running or logged-off (Fast Startup) Windows is in it: files of this volume may be stale.
    Hibernated,
    /// A header that is not known; to be treated as hibernated.
    Unknown,
}

/// How a volume was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeState {
    /// The dirty flag of $Volume: Windows will run chkdsk.
    pub dirty: bool,
    /// $LogFile.
    pub log: LogState,
    /// `hiberfil.sys`.
    pub hibernation: Hibernation,
}

/// How the volume was left.
///
/// # Errors
/// When the root directory or `hiberfil.sys` cannot be read.
pub fn state(volume: &Volume) -> Result<VolumeState> {
    Ok(VolumeState {
        dirty: volume.volume_flags() & 1 != 0,
        log: volume.log_state(),
        hibernation: hibernation(volume)?,
    })
}

fn hibernation(volume: &Volume) -> Result<Hibernation> {
    let Some(file) = volume.lookup(volume.root(), "hiberfil.sys")? else { return Ok(Hibernation::No) };
    let mut head = [0; 4096];
    let length = volume.read(file, "", 0, &mut head)?;
    let head = &head[..length];
    Ok(match head.get(..4) {
        _ if crate::bytes::is_zero(head) => Hibernation::No,
        Some(b"wake" | b"WAKE" | b"link" | b"LINK") => Hibernation::No,
        Some(b"hibr" | b"HIBR" | b"RSTR" | b"HORM") => Hibernation::Hibernated,
        _ => Hibernation::Unknown,
    })
}

/// Reads the restart pages of record 2.
pub(crate) fn log_state(volume: &Volume) -> LogState {
    let read = || -> Result<Vec<u8>> {
        let node = volume.node(2)?;
        let data = node.attribute(kind::DATA, &[]).ok_or_else(|| super::volume::no_stream(2, ""))?;
        let mut bytes = vec![0; RESTART_BYTES.min(data.size()) as usize];
        let length = volume.read_attribute(2, data, 0, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    };
    read().map_or(LogState::Unknown, |bytes| restart_state(&bytes))
}

/// The newer of the two restart pages says how the log was left.
pub(crate) fn restart_state(bytes: &[u8]) -> LogState {
    if bytes.len() >= 4096 && bytes.iter().all(|byte| *byte == 0xFF) {
        return LogState::Empty;
    }
    let page = u32_at(bytes, 0x10).filter(|size| (512..=65536).contains(size)).unwrap_or(4096) as usize;
    [0, page, 4096]
        .iter()
        .filter_map(|start| restart_page(bytes.get(*start..)?))
        .max_by_key(|(lsn, _)| *lsn)
        .map_or(LogState::Unknown, |(_, state)| state)
}

/// LSN and state of one restart page.
fn restart_page(bytes: &[u8]) -> Option<(u64, LogState)> {
    let size = u32_at(bytes, 0x10).filter(|size| size.is_power_of_two())? as usize;
    let mut page = bytes.get(..size)?.to_vec();
    fix_up(&mut page, b"RSTR").ok()?;
    let version = |at| u16_at(&page, at).map(|v| i16::from_le_bytes(v.to_le_bytes()));
    let (minor, major) = (version(0x1A)?, version(0x1C)?);
    let area = usize::from(u16_at(&page, 0x18)?);
    let lsn = u64_at(&page, area)?;
    let in_use = u16_at(&page, area + 0x0C)?;
    let clean = u16_at(&page, area + 0x0E)? & CLEAN != 0 || in_use == NO_CLIENT;
    Some((lsn, if clean { LogState::Clean(major, minor) } else { LogState::NotClean(major, minor) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(lsn: u64, in_use: u16, flags: u16) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..4].copy_from_slice(b"RSTR");
        for (at, value) in
            [(4, 0x1Eu16), (6, 9), (0x10, 4096), (0x14, 4096), (0x18, 0x30), (0x1A, 1), (0x1C, 1)]
        {
            page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        page[0x30..0x38].copy_from_slice(&lsn.to_le_bytes());
        page[0x3C..0x3E].copy_from_slice(&in_use.to_le_bytes());
        page[0x3E..0x40].copy_from_slice(&flags.to_le_bytes());
        page
    }

    #[test]
    fn the_newer_page_decides() {
        assert_eq!(restart_state(&[0xFF; 8192]), LogState::Empty);
        assert_eq!(restart_state(&[0; 8192]), LogState::Unknown);
        let both = |a: Vec<u8>, b: Vec<u8>| restart_state(&[a, b].concat());
        assert_eq!(both(page(5, 0, 0), page(6, 0, 2)), LogState::Clean(1, 1));
        assert_eq!(both(page(7, 0, 0), page(6, 0xFFFF, 0)), LogState::NotClean(1, 1));
        assert_eq!(both(vec![1; 4096], page(6, 0xFFFF, 0)), LogState::Clean(1, 1));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panic(patches in proptest::collection::vec((0usize..8192, any::<u8>()), 0..40)) {
            let mut bytes = [page(5, 0, 0), page(6, 0, 2)].concat();
            for (at, byte) in patches { bytes[at] = byte; }
            restart_state(&bytes);
        }
    }
}
