//! How the volume was left: the dirty flag, the state of $LogFile and what became of it, hibernation.
//!
//! `hiberfil.sys` begins with PO_MEMORY_IMAGE, whose layout is not published but is in Microsoft's debug symbols. Whether
//! Fast Startup made it stands in a field that moved with Windows; it is read where the length of the structure says
//! which layout it is (64-bit Windows 10 and 11).

use super::logfile::Counts;
use super::logfile::restart::Found;
use super::volume::Volume;
use crate::FileSystem;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Error, Layer, Result};

/// File in the root directory that holds the memory of a hibernated Windows.
pub(crate) const HIBERNATION_FILE: &str = "hiberfil.sys";

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

/// What became of the records of a log that is not clean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Replay {
    /// The log is clean.
    #[default]
    NotNeeded,
    /// They were replayed: the volume is seen as Windows would make it on mount.
    Done(Counts),
    /// They could not be replayed, and why: the volume is seen as it lies there.
    Impossible(String),
}

impl LogState {
    /// The state of what was found at the start of $LogFile.
    pub(crate) fn of(found: &Found) -> LogState {
        match found {
            Found::Empty => LogState::Empty,
            // Chkdsk writes version 1.1.
            Found::Checked => LogState::Clean(1, 1),
            Found::Unreadable => LogState::Unknown,
            Found::Restart(restart) => {
                let (major, minor) = restart.version;
                if restart.is_clean() {
                    LogState::Clean(major, minor)
                } else {
                    LogState::NotClean(major, minor)
                }
            }
        }
    }

    /// The word that stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            LogState::Empty => "empty",
            LogState::Clean(..) => "clean",
            LogState::NotClean(..) => "not-clean",
            LogState::Unknown => "unreadable",
        }
    }
}

/// What `hiberfil.sys` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hibernation {
    /// There is no such file, or it is empty or marked as used up.
    No,
    /// The memory of a Windows with its users logged on: programs run and have unsaved work.
    Full,
    /// The memory of a Windows whose users had logged off: Fast Startup.
    FastStartup,
    /// One of the two; the header does not say which.
    Hibernated,
    /// A header that is not known; to be treated as hibernated.
    Unknown,
}

impl Hibernation {
    /// What the first page of `hiberfil.sys` says.
    pub(crate) fn of(head: &[u8]) -> Hibernation {
        match head.get(..4) {
            _ if vmrescue_base::bytes::is_zero(head) => Hibernation::No,
            Some(b"wake" | b"WAKE" | b"link" | b"LINK") => Hibernation::No,
            Some(b"hibr" | b"HIBR") => match fast_startup(head) {
                Some(true) => Hibernation::FastStartup,
                Some(false) => Hibernation::Full,
                None => Hibernation::Hibernated,
            },
            Some(b"RSTR" | b"rstr" | b"HORM") => Hibernation::Hibernated,
            _ => Hibernation::Unknown,
        }
    }

    /// The word that stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Hibernation::No => "no",
            Hibernation::Full => "full",
            Hibernation::FastStartup => "fast-startup",
            Hibernation::Hibernated => "hibernated",
            Hibernation::Unknown => "unknown",
        }
    }

    /// What is lost when the state is given up; `None` when there is none.
    pub fn loss(self) -> Option<&'static str> {
        match self {
            Hibernation::No => None,
            Hibernation::Full => Some(
                "Windows is hibernated with its users logged on: unsaved work of their programs would be lost",
            ),
            Hibernation::FastStartup => Some(
                "Windows was shut down by Fast Startup: no unsaved work, but the next start would be a cold one",
            ),
            Hibernation::Hibernated => Some(
                "Windows is hibernated or was shut down by Fast Startup: unsaved work of logged-on users would be lost",
            ),
            Hibernation::Unknown => Some(
                "hiberfil.sys has a header that is not known: Windows may be hibernated, and unsaved work would be lost",
            ),
        }
    }
}

impl Hibernation {
    /// The refusal to write to a volume in this state; `None` when nothing would be lost.
    pub fn refusal(self) -> Option<Error> {
        let loss = self.loss()?;
        Some(Error::refused(Layer::Ntfs, loss)
            .found("writing now would be undone or cause damage when Windows resumes")
            .advice("start Windows and shut it down (shutdown /s /f /t 0), or give that state up with --discard-hibernation"))
    }
}

/// Field `Hiberboot` of PO_MEMORY_IMAGE, where the length of the structure says where it is.
fn fast_startup(head: &[u8]) -> Option<bool> {
    if u32_at(head, 0x18) != Some(4096) {
        return None;
    }
    let place = match u32_at(head, 0x0C)? {
        0x3B0 => 0x34C,
        0x3C8 => 0x354,
        0x3D8..=0x500 => 0x364,
        _ => return None,
    };
    match head.get(place)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// How a volume was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeState {
    /// The dirty flag of $Volume: Windows will run chkdsk.
    pub dirty: bool,
    /// $LogFile as it lies there.
    pub log: LogState,
    /// What became of its records.
    pub replay: Replay,
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
        replay: volume.replay().clone(),
        hibernation: hibernation(volume)?,
    })
}

fn hibernation(volume: &Volume) -> Result<Hibernation> {
    let Some(file) = volume.lookup(volume.root(), HIBERNATION_FILE)? else { return Ok(Hibernation::No) };
    let mut head = [0; 4096];
    let length = volume.read(file, "", 0, &mut head)?;
    Ok(Hibernation::of(&head[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_what_kind_of_hibernation() {
        let mut head = vec![0; 4096];
        assert_eq!(Hibernation::of(&[]), Hibernation::No);
        assert_eq!(Hibernation::of(&head), Hibernation::No);
        head[..4].copy_from_slice(b"HIBR");
        assert_eq!(Hibernation::of(&head), Hibernation::Hibernated);
        head[0x18..0x1C].copy_from_slice(&4096u32.to_le_bytes());
        for (length, place) in [(0x3B0u32, 0x34C), (0x3C8, 0x354), (0x3D8, 0x364), (0x448, 0x364)] {
            head[0x0C..0x10].copy_from_slice(&length.to_le_bytes());
            assert_eq!(Hibernation::of(&head), Hibernation::Full, "{length:#x}");
            head[place] = 1;
            assert_eq!(Hibernation::of(&head), Hibernation::FastStartup, "{length:#x}");
            head[place] = 0;
        }
        head[..4].copy_from_slice(b"WAKE");
        assert_eq!(Hibernation::of(&head), Hibernation::No);
        head[..4].copy_from_slice(b"what");
        assert_eq!(Hibernation::of(&head), Hibernation::Unknown);
    }
}
