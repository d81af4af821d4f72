//! What a disk says of itself, whichever Windows is on it or none: its table, its volumes, and whether anything was recognised.

use super::rule::{Confidence, RuleDoc, Severity};
use super::verdict::Kind;
use super::{Applicability, Finding, Fix};
use vmrescue_base::progress::Silent;
use vmrescue_fs::Depth;
use vmrescue_partition::{BASIC_DATA, EFI_SYSTEM, RECOVERY, TableKind};
use vmrescue_windows::{
    Installation, Loader, Machine, Unread, Unseen, Volume, Weight, boot_layout, boot_loader, lost_volumes,
};

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "partition-lost",
        title: "Volumes are on the disk that no partition names",
        severity: Severity::Critical,
        confidence: Confidence::Likely,
        meaning: "A partition was deleted, or both copies of the partition table are gone; the volumes themselves are still there. It is looked for only where the system partition, or everything, is missing.",
        seen: "boot sectors, their copies and records of $MFT at the places where Windows puts partitions",
        remedy: "Look at what is there (vmrescue info --scan IMAGE), then give the volumes their partitions again: vmrescue partition restore IMAGE. GUIDs are taken from the boot store where it names them.",
        source: &["AZ-B15", "AZ-B17", "WC-02"],
    },
    RuleDoc {
        rule: "partition-attributes",
        title: "The partition of Windows is hidden or read-only",
        severity: Severity::Warning,
        confidence: Confidence::Possible,
        meaning: "Attributes in the GPT tell Windows to mount a volume read-only, or not at all. On the partition of Windows itself they keep updates from being written, or the machine from starting.",
        seen: "the attribute bits 60 (read-only) and 62 (hidden) of the partition that holds Windows",
        remedy: "Clear them: `gpt attributes=0x0000000000000000` in diskpart with the partition selected, or `sgdisk -A N:clear:60 -A N:clear:62` on a raw image.",
        source: &["AZ-B17"],
    },
    RuleDoc {
        rule: "partition-table-lost",
        title: "Both copies of the partition table are gone",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The disk is marked as GPT, and neither copy of its table is whole. What the volumes hold is not touched by that.",
        seen: "the protective MBR, and the headers at both ends of the disk",
        remedy: "Search for the volumes (vmrescue info --scan IMAGE); with the volumes found, vmrescue partition restore IMAGE makes the table again. Else restore the disk from a backup.",
        source: &["AZ-B15", "WC-02"],
    },
];

/// Types of MBR partitions that Windows makes file systems on.
const WINDOWS_TYPES: [u8; 9] = [0x01, 0x04, 0x06, 0x07, 0x0b, 0x0c, 0x0e, 0x27, 0x17];

/// What the disk is, seen from an installation.
pub(super) fn kind_of_installation(machine: &Machine) -> Kind {
    match boot_loader(machine) {
        _ if machine.table.kind == TableKind::None => Kind::BareVolume,
        Loader::Ntldr => Kind::Ntldr,
        Loader::BootManager => Kind::Windows,
    }
}

/// What a disk without an installation is.
pub(super) fn kind_of_disk(machine: &Machine) -> Kind {
    if machine.volumes.iter().any(|volume| volume.fs.is_some() || volume.bitlocker.is_some()) {
        Kind::DataDisk
    } else {
        Kind::Unknown
    }
}

/// True for partitions that have a file system of Windows, by their type; a reserved partition has none.
pub fn is_expected_to_open(volume: &Volume) -> bool {
    let Some(partition) = &volume.partition else { return true };
    match (partition.type_guid, partition.mbr_type) {
        (Some(guid), _) => [BASIC_DATA, EFI_SYSTEM, RECOVERY].contains(&guid),
        (None, Some(kind)) => WINDOWS_TYPES.contains(&kind),
        (None, None) => true,
    }
}

/// Notes what of the disk could not be read: volumes, the table, directories.
pub fn note_volumes(machine: &Machine, unseen: &Unseen) {
    for unread in &machine.unread {
        unseen.note(unread.clone());
    }
    let any_installation = !machine.installations.is_empty();
    for volume in machine.volumes.iter().filter(|volume| volume.fs.is_none() && !volume.is_locked()) {
        if !is_expected_to_open(volume) {
            continue;
        }
        let kind =
            volume.partition.as_ref().map_or("the whole disk", |partition| partition.type_name.as_str());
        let why = volume.error.clone().unwrap_or_else(|| "it was not opened".into());
        let decides = volume.system || !any_installation;
        let weight = if decides { Weight::Critical } else { Weight::Partial };
        let place = format!("#{}, {kind}", volume.number);
        unseen.note(Unread::new("a volume", place, why, weight).advise(
            "look for what is left of it: vmrescue info --scan IMAGE; vmrescue check IMAGE says what is damaged",
        ));
    }
    if machine.volumes.is_empty() {
        let why =
            if machine.table.kind == TableKind::None { "there is none" } else { "it names no partition" };
        let advice = "look for volumes that the table does not name: vmrescue info --scan IMAGE";
        unseen.note(Unread::new("the partition table", "", why, Weight::Critical).advise(advice));
    }
}

/// What was looked at, for people.
pub(super) fn looked_at(machine: &Machine) -> Vec<String> {
    let table = match machine.table.kind {
        TableKind::None => "no partition table: the image is one volume, or none".to_string(),
        kind => format!(
            "partition table: {} with {} partitions",
            format!("{kind:?}").to_uppercase(),
            machine.table.partitions.len()
        ),
    };
    let volumes: Vec<String> = machine
        .volumes
        .iter()
        .filter_map(|volume| Some(format!("#{} {}", volume.number, volume.fs.as_ref()?.info().kind)))
        .collect();
    let volumes = if volumes.is_empty() {
        "volumes: none could be opened".to_string()
    } else {
        format!("volumes (opened, not checked): {}", volumes.join(", "))
    };
    vec![table, volumes]
}

/// Attributes that hide the partition of an installation or make it read-only.
pub(super) fn attributes(machine: &Machine, installation: &Installation) -> Option<Finding> {
    let volume = machine.volumes.get(installation.volume)?;
    let names = volume.partition.as_ref()?.attribute_names();
    let bad: Vec<&str> = names.into_iter().filter(|name| matches!(*name, "read-only" | "hidden")).collect();
    let evidence = vec![format!("partition {} has the attributes {}", volume.number, bad.join(", "))];
    let screen = "INACCESSIBLE_BOOT_DEVICE (0x7B), or updates that do not install";
    (!bad.is_empty()).then(|| Finding::new("partition-attributes", evidence, screen, None))
}

/// True when something that a machine needs is on no partition: then it is worth looking for.
fn misses_something(machine: &Machine) -> bool {
    let layout = boot_layout(machine);
    let nothing = machine.volumes.iter().all(|volume| volume.fs.is_none() && volume.bitlocker.is_none());
    let system =
        machine.table.kind != TableKind::None && layout.system.is_empty() && layout.unmarked.is_empty();
    nothing || system && !machine.installations.is_empty()
}

/// Volumes that no table names, where something is missing.
pub(super) fn lost(machine: &Machine, unseen: &Unseen) -> Option<Finding> {
    if !misses_something(machine) {
        return None;
    }
    let found = lost_volumes(machine, Depth::Quick, &Silent);
    let found = unseen.seen("the parts of the disk without a partition", "", Weight::Partial, found)?;
    if found.is_empty() {
        return None;
    }
    let evidence = found.iter().map(|volume| {
        let size = vmrescue_base::text::size(volume.range.end - volume.range.start);
        format!(
            "{} {:?}, {size} at {:#x}: {}",
            volume.kind,
            volume.label,
            volume.range.start,
            volume.evidence.join("; ")
        )
    });
    let fix = Fix::new("restore-partitions", &[], Applicability::Unsafe);
    let title = match found.len() {
        1 => "A volume is on the disk that no partition names".to_string(),
        count => format!("{count} volumes are on the disk that no partition names"),
    };
    Some(Finding::new("partition-lost", evidence.collect(), "no bootable device", fix).titled(title))
}

/// Findings of a disk without an installation.
pub(super) fn findings(machine: &Machine, unseen: &Unseen) -> Vec<Finding> {
    let mut found = super::volumes::findings(machine, unseen);
    found.extend(super::boot::disk_findings(machine, unseen));
    found.extend(lost(machine, unseen));
    found
}
