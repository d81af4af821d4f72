//! What a disk says of itself, whichever Windows is on it or none: its table, its volumes, and whether anything was recognised.

use super::rule::{Confidence, RuleDoc, Severity};
use super::verdict::Kind;
use super::{Applicability, Finding, Fix};
use vmrescue_base::guid::Guid;
use vmrescue_base::progress::Silent;
use vmrescue_fs::Depth;
use vmrescue_partition::{BASIC_DATA, EFI_SYSTEM, MICROSOFT_RESERVED, RECOVERY, TableKind};
use vmrescue_windows::bcd::{PartitionRef, Value};
use vmrescue_windows::{
    Installation, Loader, Machine, SystemPartition, Unread, Unseen, Volume, Weight, boot_layout, boot_loader,
    boot_stores, load_store, lost_volumes, system_partition_state,
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
        remedy: "Clear these two; the other attributes stay.",
        source: &["AZ-B17"],
    },
    RuleDoc {
        rule: "windows-partition-type",
        title: "The partition of Windows has the type of another",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "The type in the partition table says what a partition is for. Windows gives no letter to recovery partitions and to types that it does not know, and shows no volume on a reserved one: there it does not find itself.",
        seen: "the type of the partition that holds Windows: not basic data on a GPT disk, not NTFS on an MBR disk",
        remedy: "Give it the type basic data (07 on an MBR disk).",
        source: &["AZ-B17", "0x7B"],
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

/// Type of a GPT partition that belongs to a dynamic disk.
const DYNAMIC: Guid =
    Guid::from_fields(0xaf9b_60a0, 0x1431, 0x4f62, [0xbc, 0x68, 0x33, 0x11, 0x71, 0x4a, 0x69, 0xad]);
/// Types of MBR partitions that Windows is installed on, dynamic disks among them.
const INSTALLED_TYPES: [u8; 8] = [0x01, 0x04, 0x06, 0x07, 0x0b, 0x0c, 0x0e, 0x42];
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
    if !boot_stores(machine).is_empty() {
        Kind::SystemDisk
    } else if machine.volumes.iter().any(|volume| volume.fs.is_some() || volume.bitlocker.is_some()) {
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
    note_outside(machine, unseen);
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
    let number = [("number", volume.number.to_string())];
    let fix = Fix::new("clear-partition-attributes", &number, Applicability::Safe);
    (!bad.is_empty()).then(|| Finding::new("partition-attributes", evidence, screen, fix))
}

/// The type of the partition of an installation, when it is that of something else.
pub(super) fn partition_type(machine: &Machine, installation: &Installation) -> Option<Finding> {
    let volume = machine.volumes.get(installation.volume)?;
    let partition = volume.partition.as_ref()?;
    let (wanted, hides) = match (partition.type_guid, partition.mbr_type) {
        (Some(guid), _) if guid == BASIC_DATA || guid == DYNAMIC => return None,
        (Some(guid), _) => ("basic", guid == MICROSOFT_RESERVED),
        (None, Some(kind)) if INSTALLED_TYPES.contains(&kind) => return None,
        (None, Some(_)) => ("07", false),
        (None, None) => return None,
    };
    let evidence =
        vec![format!("partition {} holds Windows and has the type {}", volume.number, partition.type_name)];
    let parameters = [("number", volume.number.to_string()), ("type", wanted.to_string())];
    let fix = Fix::new("set-partition-type", &parameters, Applicability::Safe);
    let screen = "INACCESSIBLE_BOOT_DEVICE (0x7B), or a start with another drive letter";
    let severity = if hides { Severity::Critical } else { Severity::Warning };
    Some(Finding { severity, ..Finding::new("windows-partition-type", evidence, screen, fix) })
}

/// What the boot stores of a disk without any Windows start: Windows was here, or is on another disk.
fn stores(machine: &Machine, unseen: &Unseen) -> Vec<Finding> {
    let mut found = Vec::new();
    let map = machine.disk_map();
    for path in boot_stores(machine) {
        let loaded = load_store(machine, &path);
        let loaded = unseen.seen("the boot configuration store", &path, Weight::Critical, loaded).flatten();
        let Some((_, store)) = loaded else { continue };
        let device = store.default_entry().and_then(|entry| entry.get(OS_DEVICE)).and_then(Value::as_device);
        let Some(device) = device else { continue };
        for wanted in device.partitions() {
            let here = map.partitions.iter().find(|partition| partition.id == wanted);
            match (here, is_of_this_disk(machine, &wanted)) {
                (Some(partition), _) => {
                    // Locked volumes, and those that cannot be opened, are named as such.
                    let opened = machine
                        .volumes
                        .iter()
                        .any(|volume| volume.number == partition.number && volume.fs.is_some());
                    if opened {
                        let why = "the boot store starts it from there, and there is no \\Windows";
                        let place = format!("#{}", partition.number);
                        unseen.note(Unread::new("Windows", place, why, Weight::Critical));
                    }
                }
                (None, true) => {
                    let line = format!(
                        "{path}: the default entry starts Windows from {}, which this disk does not have",
                        name_of(&wanted)
                    );
                    let screen = "0xc000000e or 0xc0000225";
                    found.push(Finding::new("boot-store-dangling-device", vec![line], screen, None));
                }
                (None, false) => {
                    let why = format!(
                        "the boot store {path} starts it from {}, which is on another disk",
                        name_of(&wanted)
                    );
                    unseen.note(Unread::new("Windows", "", why, Weight::Critical).advise(
                        "diagnose the disk that holds Windows; when there is no other, the identity of this one was changed: look for its volumes with vmrescue info --scan IMAGE",
                    ));
                }
            }
        }
    }
    found
}

/// Element of an entry: the device that Windows is on.
const OS_DEVICE: u32 = 0x2100_0001;

fn is_of_this_disk(machine: &Machine, wanted: &PartitionRef) -> bool {
    let own = machine.table.disk_id.as_deref().unwrap_or_default();
    match wanted {
        PartitionRef::Gpt { disk, .. } => own == disk.to_string(),
        PartitionRef::Mbr { signature, .. } => own == format!("{signature:08x}"),
    }
}

fn name_of(wanted: &PartitionRef) -> String {
    match wanted {
        PartitionRef::Gpt { partition, .. } => format!("the partition {partition}"),
        PartitionRef::Mbr { offset_bytes, .. } => format!("the partition at {offset_bytes:#x}"),
    }
}

/// Partitions that reach beyond the end of the disk: the image was cut off.
fn note_outside(machine: &Machine, unseen: &Unseen) {
    let outside = machine
        .table
        .defects
        .iter()
        .filter(|defect| matches!(defect.code, "gpt-partition-outside" | "mbr-partition-outside"));
    // Without any Windows it may be the partition that holds it.
    let weight = if machine.installations.is_empty() { Weight::Critical } else { Weight::Partial };
    for defect in outside {
        unseen.note(Unread::new("a partition", "", defect.to_string(), weight).advise(
            "the image was cut off: get it again from where it came from; what is left can be copied out with vmrescue get -r",
        ));
    }
}

/// True when something that a machine needs is on no partition: then it is worth looking for.
fn misses_something(machine: &Machine) -> bool {
    let layout = boot_layout(machine);
    let nothing = machine.volumes.iter().all(|volume| volume.fs.is_none() && volume.bitlocker.is_none());
    let system =
        machine.table.kind != TableKind::None && layout.system.is_empty() && layout.unmarked.is_empty();
    // A boot store without its Windows.
    let orphan = machine.installations.is_empty() && !boot_stores(machine).is_empty();
    nothing || orphan || system && !machine.installations.is_empty()
}

/// Volumes that no table names, where something is missing.
pub(super) fn lost(machine: &Machine, unseen: &Unseen) -> Option<Finding> {
    if !misses_something(machine) {
        return None;
    }
    let found = lost_volumes(machine, Depth::Quick, &Silent);
    let mut found = unseen.seen("the parts of the disk without a partition", "", Weight::Partial, found)?;
    // The volume of a system partition whose entry is lost has a rule of its own, which knows its GUID.
    if let Ok(SystemPartition::EntryLost(lost)) = system_partition_state(machine)
        && !machine.installations.is_empty()
    {
        found.retain(|volume| volume.range.start != lost.range.start);
    }
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
    found.extend(stores(machine, unseen));
    found.extend(lost(machine, unseen));
    found
}
