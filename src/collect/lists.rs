//! The lists of what is taken, by profile, and the files of a disk that fit them.

use std::collections::BTreeMap;
use vmrescue_base::error::Result;
use vmrescue_base::limits::{MAX_COLLECTED_FILES, MAX_DIRECTORY_DEPTH};
use vmrescue_base::text::fits;
use vmrescue_base::time::FileTime;
use vmrescue_fs::{FileSystem, NodeId, NodeKind};
use vmrescue_windows::Machine;

/// How much is taken; each has what the one before it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// What tells why it does not boot.
    Boot,
    /// What support people ask for. No password hashes.
    Support,
    /// Also all event logs and the hives with secrets (SAM, SECURITY).
    All,
}

/// A file that is taken.
#[derive(Debug, Clone)]
pub struct File {
    /// Index of its volume in [`Machine::volumes`].
    pub volume: usize,
    /// The file.
    pub node: NodeId,
    /// Path in the guest.
    pub path: String,
    /// Name in the archive.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Modified.
    pub modified: FileTime,
    /// Created.
    pub created: FileTime,
}

/// Patterns from the root of any volume; `**` is everything below.
const ANY_VOLUME: &[(Profile, &str)] = &[
    (Profile::Boot, r"EFI\Microsoft\Boot\BCD*"),
    (Profile::Boot, r"EFI\Microsoft\Recovery\BCD*"),
    (Profile::Boot, r"Boot\BCD*"),
    (Profile::Boot, r"Recovery\WindowsRE\ReAgent.xml"),
    (Profile::Support, r"Recovery\Logs\**"),
    (Profile::Support, r"$WINDOWS.~BT\Sources\Panther\*.log"),
    (Profile::Support, r"$WINDOWS.~BT\Sources\Panther\*.xml"),
    (Profile::Support, r"$WINDOWS.~BT\Sources\Rollback\*.log"),
    (Profile::Support, r"$SysReset\Logs\**"),
];

/// Patterns from the root of a volume with Windows.
const WINDOWS: &[(Profile, &str)] = &[
    (Profile::Boot, r"Windows\System32\config\SYSTEM*"),
    (Profile::Boot, r"Windows\System32\config\SOFTWARE*"),
    (Profile::Boot, r"Windows\System32\config\COMPONENTS*"),
    (Profile::Boot, r"Windows\System32\config\DRIVERS*"),
    (Profile::Boot, r"Windows\System32\config\BCD-Template*"),
    (Profile::Boot, r"Windows\System32\config\*.evt"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\System.evtx"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\Setup.evtx"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\Microsoft-Windows-Kernel-Boot%4Operational.evtx"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\Microsoft-Windows-Kernel-PnP%4Configuration.evtx"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\Microsoft-Windows-WindowsUpdateClient%4Operational.evtx"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\Microsoft-Windows-BitLocker*.evtx"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\Microsoft-Windows-CodeIntegrity%4Operational.evtx"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\Microsoft-Windows-Ntfs%4Operational.evtx"),
    (Profile::Boot, r"Windows\System32\winevt\Logs\Microsoft-Windows-StartupRepair%4Operational.evtx"),
    (Profile::Boot, r"Windows\System32\LogFiles\Srt\*"),
    (Profile::Boot, r"Windows\System32\Recovery\ReAgent.xml"),
    (Profile::Boot, r"Windows\bootstat.dat"),
    (Profile::Boot, r"Windows\ntbtlog.txt"),
    (Profile::Boot, r"Windows\Logs\CBS\CBS.log"),
    (Profile::Boot, r"Windows\WinSxS\poqexec.log"),
    (Profile::Boot, r"Windows\WinSxS\pending.xml*"),
    (Profile::Boot, r"Windows\WinSxS\cleanup.xml"),
    (Profile::Boot, r"Windows\WinSxS\reboot.xml"),
    (Profile::Boot, r"Windows\servicing\Sessions\Sessions.xml"),
    (Profile::Support, r"Windows\Logs\CBS\*"),
    (Profile::Support, r"Windows\Logs\DISM\*"),
    (Profile::Support, r"Windows\Logs\MoSetup\*"),
    (Profile::Support, r"Windows\Logs\WindowsUpdate\*"),
    (Profile::Support, r"Windows\Logs\ReAgent\*"),
    (Profile::Support, r"Windows\servicing\Sessions\*.xml"),
    (Profile::Support, r"Windows\System32\winevt\Logs\Application.evtx"),
    (Profile::Support, r"Windows\System32\winevt\Logs\Microsoft-Windows-Kernel*.evtx"),
    (Profile::Support, r"Windows\System32\winevt\Logs\Microsoft-Windows-Stor*.evtx"),
    (Profile::Support, r"Windows\System32\winevt\Logs\Microsoft-Windows-Hyper-V*.evtx"),
    (Profile::Support, r"Windows\System32\winevt\Logs\Microsoft-Windows-DriverFrameworks*.evtx"),
    (Profile::Support, r"Windows\System32\winevt\Logs\Microsoft-Windows-Device*.evtx"),
    (Profile::Support, r"Windows\System32\config\DEFAULT*"),
    (Profile::Support, r"Windows\INF\setupapi*.log"),
    (Profile::Support, r"Windows\Panther\**"),
    (Profile::Support, r"Windows\setupact.log"),
    (Profile::Support, r"Windows\setuperr.log"),
    (Profile::Support, r"Windows\System32\Sysprep\Panther\**"),
    (Profile::Support, r"Windows\Minidump\*.dmp"),
    (Profile::Support, r"Windows\WindowsUpdate.log"),
    (Profile::Support, r"Windows\SoftwareDistribution\ReportingEvents.log"),
    (Profile::Support, r"WindowsAzure\Logs\*.log"),
    (Profile::All, r"Windows\System32\winevt\Logs\*.evtx"),
    (Profile::All, r"Windows\System32\config\SAM*"),
    (Profile::All, r"Windows\System32\config\SECURITY*"),
    (Profile::All, r"Windows\System32\config\TxR\*"),
    (Profile::All, r"Windows\AppCompat\Programs\Amcache.hve*"),
    (Profile::All, r"ProgramData\Microsoft\Windows\WER\ReportQueue\**"),
];

/// Only when memory is asked for: they hold what the machine had in its memory, secrets too.
const MEMORY: &[&str] = &[r"Windows\MEMORY.DMP", r"Windows\LiveKernelReports\**"];

/// The files of a disk that a profile takes, by volume and path; nothing twice. With `memory`, also full memory dumps.
///
/// # Errors
/// Of a volume, not of single folders: what is not there is not missed.
pub fn files(machine: &Machine, profile: Profile, memory: bool) -> Result<Vec<File>> {
    let mut found = BTreeMap::new();
    for (index, volume) in machine.volumes.iter().enumerate() {
        let Some(fs) = &volume.fs else { continue };
        let place = volume.letter.map_or_else(|| format!("#{}", volume.number), |letter| letter.to_string());
        let windows = machine.installations.iter().any(|installation| installation.volume == index);
        let of_windows = WINDOWS.iter().filter(|_| windows);
        let dumps = MEMORY.iter().filter(|_| windows && memory).map(|pattern| (Profile::Boot, *pattern));
        for (wanted, pattern) in ANY_VOLUME.iter().chain(of_windows).copied().chain(dumps) {
            if wanted <= profile {
                let steps: Vec<&str> = pattern.split('\\').collect();
                let mut add = |path: &str, node| {
                    if found.len() < MAX_COLLECTED_FILES
                        && let Some(file) = file(&**fs, index, &place, path, node)
                    {
                        found.insert((index, path.to_lowercase()), file);
                    }
                };
                expand(&**fs, fs.root(), &steps, "", 0, &mut add);
            }
        }
    }
    Ok(found.into_values().collect())
}

fn file(fs: &dyn FileSystem, volume: usize, place: &str, path: &str, node: NodeId) -> Option<File> {
    let known = fs.metadata(node).ok()?;
    // Names come from the disk: no part may lead out of the target or be one that the host reads otherwise.
    let safe = |part: &str| {
        part.chars()
            .map(|c| if c.is_control() || "<>:\"/|?*".contains(c) { '_' } else { c })
            .collect::<String>()
    };
    let parts: Vec<String> = path.split('\\').map(safe).collect();
    if parts.iter().any(|part| part.is_empty() || part == "." || part == "..") {
        return None;
    }
    Some(File {
        volume,
        node,
        path: format!(r"{place}:\{path}"),
        name: format!("files/{}/{}", place.replace('#', "partition"), parts.join("/")),
        size_bytes: known.size_bytes,
        modified: known.times.modified,
        created: known.times.created,
    })
}

/// Calls `add` with the path and node of every file that fits.
fn expand(
    fs: &dyn FileSystem,
    folder: NodeId,
    steps: &[&str],
    path: &str,
    depth: usize,
    add: &mut dyn FnMut(&str, NodeId),
) {
    let Some((step, rest)) = steps.split_first() else { return };
    if depth > MAX_DIRECTORY_DEPTH {
        return;
    }
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!(r"{path}\{name}") };
    if !step.contains('*') && !rest.is_empty() {
        // A plain step: looked up, so that large folders are not listed.
        if let Ok(Some(node)) = fs.lookup(folder, step)
            && fs.metadata(node).is_ok_and(|known| known.kind == NodeKind::Directory)
        {
            expand(fs, node, rest, &below(step), depth + 1, add);
        }
        return;
    }
    let mut entries = fs.read_dir(folder).unwrap_or_default();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries.iter().filter(|entry| fits(step, &entry.name)) {
        match entry.kind {
            NodeKind::Directory if *step == "**" => {
                expand(fs, entry.id, steps, &below(&entry.name), depth + 1, add);
            }
            NodeKind::Directory if !rest.is_empty() => {
                expand(fs, entry.id, rest, &below(&entry.name), depth + 1, add);
            }
            NodeKind::File if rest.is_empty() => add(&below(&entry.name), entry.id),
            _ => {}
        }
    }
}
