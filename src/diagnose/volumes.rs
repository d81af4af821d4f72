//! Volumes that cannot be opened, locked by BitLocker, and volumes that Windows will check at its next start.

use super::rule::{Confidence, RuleDoc, Severity};
use super::{Applicability, Finding, Fix};
use vmrescue_base::progress::Silent;
use vmrescue_base::{Defect, Severity as Bad};
use vmrescue_fs::ntfs::{CODES, Mend, Volume};
use vmrescue_windows::{Machine, Unseen, Weight};

/// Flag of $Volume: check it at the next start.
const DIRTY: u16 = 1;
/// Most defects that are shown as evidence.
const SHOWN: usize = 8;

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "volume-locked",
        title: "A volume is locked by BitLocker",
        severity: Severity::Notice,
        confidence: Confidence::Certain,
        meaning: "Without its key nothing on the volume can be read or repaired. Nothing is wrong with it: on a disk whose Windows is locked the cause of the trouble may be behind the lock.",
        seen: "the signature -FVE-FS- in the first sector of a volume",
        remedy: "Give the key with the same command: --recovery-password, --recovery-key (a .BEK file, or the folder of the BEK volume of Azure Disk Encryption) or --password-file. A key that Azure Key Vault has wrapped (KEK) has to be unwrapped by Key Vault first.",
        source: &["AZ-A07", "AZ-B30"],
    },
    RuleDoc {
        rule: "volume-metadata-damaged",
        title: "Files of the file system itself are damaged",
        severity: Severity::Critical,
        confidence: Confidence::Likely,
        meaning: "NTFS keeps its own tables in files: $MFT, $LogFile, $Volume, $Bitmap, $UpCase and others. Windows does not mount a volume that lacks one of them, even if every other file can still be read. The first four have a copy in $MFTMirr.",
        seen: "the first records of $MFT of every NTFS volume, and their copies in $MFTMirr",
        remedy: "Copy out what matters first (vmrescue get -r). What has a copy is mended by vmrescue check --repair; a volume that lacks the others is copied and made anew.",
        source: &["AZ-B21", "0xED", "0x24"],
    },
    RuleDoc {
        rule: "volume-dirty",
        title: "A volume is marked dirty",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "Windows did not finish with the volume and checks it at its next start, which can take hours, or comes back at each start when the check does not come to an end.",
        seen: "the flags of $Volume, and what the check finds",
        remedy: "Check it from outside and mend what has one right answer (vmrescue check --repair); the mark goes when nothing else is left.",
        source: &["AZ-B21", "RS-07"],
    },
];

/// What the volumes themselves say; a volume whose file system cannot be opened is named by the rules of the start.
pub(super) fn findings(machine: &Machine, unseen: &Unseen) -> Vec<Finding> {
    let mut found = locked(machine);
    found.extend(metadata(machine, unseen));
    found.extend(dirty(machine, unseen));
    found
}

/// Files of the file system itself, which the program can do without and Windows cannot.
fn metadata(machine: &Machine, unseen: &Unseen) -> Vec<Finding> {
    let mut found = Vec::new();
    let needed = |index: usize| {
        machine.volumes[index].system || machine.installations.iter().any(|own| own.volume == index)
    };
    let ntfs =
        |volume: &vmrescue_windows::Volume| volume.fs.as_ref().is_some_and(|fs| fs.info().kind == "ntfs");
    for (index, volume) in machine.volumes.iter().enumerate().filter(|(_, volume)| ntfs(volume)) {
        let opened = machine.disk.window(volume.range.clone()).and_then(Volume::open);
        let place = format!("#{}", volume.number);
        let opened = unseen.seen("the system files of a volume", place, Weight::Partial, opened);
        let problems = opened.map(|opened| opened.system_problems()).unwrap_or_default();
        if problems.is_empty() {
            continue;
        }
        let copied = problems.iter().all(|problem| problem.copied);
        let evidence = problems.iter().take(SHOWN).map(|problem| {
            let copy = if problem.copied { "; its copy in $MFTMirr is whole" } else { "" };
            format!("#{}: {}{copy}", volume.number, problem.detail)
        });
        let number = volume.number.to_string();
        let fix = copied.then(|| Fix::new("check-file-system", &[("volume", number)], Applicability::Safe));
        let screen = "UNMOUNTABLE_BOOT_VOLUME (0xED) or NTFS_FILE_SYSTEM (0x24)";
        let one = Finding::new("volume-metadata-damaged", evidence.collect(), screen, fix.flatten());
        let one = one.titled(format!("Files of the file system of volume {} are damaged", volume.number));
        // A data volume alone keeps no machine from starting.
        let severity = if needed(index) { Severity::Critical } else { Severity::Warning };
        found.push(Finding { severity, ..one });
    }
    found
}

/// True for damage that a repair mends, or that does no harm.
fn is_mendable(defect: &Defect) -> bool {
    defect.severity == Bad::Note
        || CODES.iter().any(|code| code.name == defect.code && code.mend == Mend::Mends)
}

/// The check, which takes a moment, runs only for volumes that carry the mark.
fn dirty(machine: &Machine, unseen: &Unseen) -> Vec<Finding> {
    let mut found = Vec::new();
    for volume in &machine.volumes {
        let marked = volume.fs.as_ref().filter(|fs| fs.info().kind == "ntfs" && fs.info().dirty);
        let Some(fs) = marked else { continue };
        let place = format!("#{}", volume.number);
        // A log that was not closed is no mark: Windows replays it without a word.
        let flags = machine.disk.window(volume.range.clone()).and_then(Volume::open);
        let flags = flags.map(|opened| opened.volume_flags());
        let flags = unseen.seen("the flags of a volume", &place, Weight::Partial, flags);
        if flags.is_none_or(|flags| flags & DIRTY == 0) {
            continue;
        }
        let checked = unseen.seen("the check of a volume", place, Weight::Partial, fs.check(&Silent));
        let Some(defects) = checked else { continue };
        let safe = defects.iter().all(is_mendable);
        let evidence = defects.iter().take(SHOWN).map(ToString::to_string).collect();
        let applicability = if safe { Applicability::Safe } else { Applicability::Unsafe };
        let fix = Fix::new("check-file-system", &[("volume", volume.number.to_string())], applicability);
        let screen = "\"Scanning and repairing drive\" or \"Checking file system\"";
        let title = format!("Volume {} is marked dirty", volume.number);
        found.push(Finding::new("volume-dirty", evidence, screen, fix).titled(title));
    }
    found
}

fn locked(machine: &Machine) -> Vec<Finding> {
    let locked = machine.volumes.iter().filter(|volume| {
        let mut head = [0; 11];
        volume.is_locked()
            || (volume.fs.is_none()
                && volume.bitlocker.is_none()
                && machine.disk.read_at(volume.range.start, &mut head).is_ok()
                && head[3..] == *b"-FVE-FS-")
    });
    locked
        .map(|volume| {
            let lines = match &volume.bitlocker {
                Some(found) => {
                    vec![format!("partition {} is {}", volume.number, found.locked_text()), found.advice()]
                }
                None => vec![format!("partition {} begins with the signature of BitLocker", volume.number)],
            };
            Finding::new("volume-locked", lines, "none, or the recovery screen of BitLocker", None)
        })
        .collect()
}
