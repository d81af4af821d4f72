//! Volumes that cannot be opened: locked by BitLocker, or damaged.

use super::Finding;
use super::rule::{Confidence, RuleDoc, Severity};
use crate::windows::Machine;

pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "volume-locked",
    title: "A volume is locked by BitLocker",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    meaning: "Without its key nothing on the volume can be read or repaired. Nothing is wrong with it: on a disk whose Windows is locked the cause of the trouble may be behind the lock.",
    seen: "the signature -FVE-FS- in the first sector of a volume",
    remedy: "Unlock the disk on a Windows machine (manage-bde -unlock, with the recovery key or the .BEK file of Azure Key Vault), repair it there, or decrypt it (manage-bde -off) and come back.",
    source: &["AZ-A07", "AZ-B30"],
}];

/// What the volumes themselves say; a volume whose file system is damaged is named by the rules of the start.
pub(super) fn findings(machine: &Machine) -> Vec<Finding> {
    let locked = machine.volumes.iter().filter(|volume| {
        let mut head = [0; 11];
        volume.fs.is_none()
            && machine.disk.read_at(volume.range.start, &mut head).is_ok()
            && head[3..] == *b"-FVE-FS-"
    });
    locked
        .map(|volume| {
            let line = format!("partition {} begins with the signature of BitLocker", volume.number);
            Finding::new("volume-locked", vec![line], "none, or the recovery screen of BitLocker", None)
        })
        .collect()
}
