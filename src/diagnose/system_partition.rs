//! The system partition as a whole: its entry in the table, its file system.

use super::rule::{Confidence, RuleDoc, Severity};
use super::{Applicability, Finding, Fix};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::Result;
use vmrescue_base::text::size;
use vmrescue_windows::{Machine, SystemPartition, system_partition_state};

/// Bytes at the beginning of a partition that are looked at: where they are zero, nothing is lost by a new file system.
const LOOKED_AT_BYTES: u64 = 1 << 20;
const SCREEN: &str = "no bootable device, or the firmware's menu";

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "system-partition-entry-lost",
        title: "The entry of the EFI system partition is gone from the partition table",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The partition was deleted (diskpart, a partitioning program), its volume with all boot files is still there. The firmware finds partitions by the table only.",
        seen: "no partition of type EFI system, and a FAT volume with \\EFI where no partition is",
        remedy: "Restore the entry with the GUID that the machine knew (boot store, registry, logs of measured boots): the firmware's boot entry asks for it.",
        source: &["AZ-B01", "0xC000000F"],
    },
    RuleDoc {
        rule: "system-partition-no-file-system",
        title: "The EFI system partition has no file system",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The partition is all zero, or holds something that is not known. The firmware finds no boot manager there.",
        seen: "a partition of type EFI system whose first sector is no boot sector",
        remedy: "Make FAT32 on it again, with boot files and a boot store of the guest's own Windows.",
        source: &["AZ-B01", "0xC000000F"],
    },
    RuleDoc {
        rule: "system-partition-not-fat",
        title: "The EFI system partition is not FAT",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "Firmware reads FAT and nothing else: from an EFI system partition with NTFS no machine starts, though Windows itself can read it.",
        seen: "a partition of type EFI system with another file system",
        remedy: "Make FAT32 on it, with boot files and a boot store of the guest's own Windows. What is on it is lost; copy it out first if it matters.",
        source: &["AZ-B01", "0xC000000F"],
    },
];

/// What is wrong with the system partition as a whole.
///
/// # Errors
/// Of reading the disk.
pub(super) fn finding(machine: &Machine) -> Result<Option<Finding>> {
    let fix = |applicability| Fix::new("system-partition", &[], applicability);
    let found = match system_partition_state(machine)? {
        SystemPartition::There => return Ok(None),
        SystemPartition::EntryLost(lost) => {
            let mut lines = vec![format!(
                "a FAT volume with \\EFI at {:#x}, {}, and no partition there",
                lost.range.start,
                size(lost.range.end - lost.range.start)
            )];
            lines.push(match &lost.id {
                Some((id, by)) => format!("its GUID was {id}, by {by}"),
                None => "nobody knows the GUID that it had".to_string(),
            });
            // A partition table is not written without being asked for.
            Finding::new("system-partition-entry-lost", lines, SCREEN, fix(Applicability::Unsafe))
        }
        SystemPartition::NoFileSystem(index) => {
            let volume = &machine.volumes[index];
            if volume.bitlocker.is_some() {
                return Ok(None);
            }
            let length = LOOKED_AT_BYTES.min(volume.range.end - volume.range.start);
            let empty = is_zero(&machine.disk.read_vec(volume.range.start, length as usize)?);
            let what = if empty { "is all zero" } else { "begins with something that is no file system" };
            let lines = vec![format!(
                "partition {} ({}) {what}",
                volume.number,
                size(volume.range.end - volume.range.start)
            )];
            let applicability = if empty { Applicability::Safe } else { Applicability::Unsafe };
            Finding::new("system-partition-no-file-system", lines, SCREEN, fix(applicability))
        }
        SystemPartition::NotFat(index, kind) => {
            let lines = vec![format!("partition {} has {kind}", machine.volumes[index].number)];
            Finding::new("system-partition-not-fat", lines, SCREEN, fix(Applicability::Unsafe))
        }
        SystemPartition::Missing(room) => {
            let lines = vec![
                "no partition is of type EFI system, and none holds boot files".to_string(),
                match &room {
                    Some(range) => format!(
                        "there is room for one at {:#x}, {}",
                        range.start,
                        size(range.end - range.start)
                    ),
                    None => "there is no room for one: the disk must be made larger first (disk resize)"
                        .to_string(),
                },
            ];
            let fix = room.and_then(|_| fix(Applicability::Unsafe));
            Finding::new("system-partition-missing", lines, SCREEN, fix)
        }
    };
    Ok(Some(found))
}
