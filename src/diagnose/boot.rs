//! The way from the firmware to the hive, link by link: partition table, system partition, boot manager, store, loader.
//! The first link that breaks is what the user sees; the later ones are found too.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::verdict::Kind;
use super::{Applicability, Finding, Fix};
use vmrescue_base::error::Result;
use vmrescue_fs::{fat, ntfs, read_file, resolve};
use vmrescue_partition::TableKind;
use vmrescue_windows::bcd::{Firmware, Object, Store, dangling};
use vmrescue_windows::{BootLayout, Machine, PeInfo, Unread, Unseen, Weight, boot_layout, load_store};

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "gpt-copy-damaged",
        title: "A copy of the partition table is damaged",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "A GPT disk has its table twice, at its start and at its end, and a protective MBR in its first sector. With the first copy damaged, firmware may find no partition; with the second damaged, nothing happens until the first is. Without the protective MBR firmware and Windows take the disk for one without a table.",
        seen: "checksums and contents of both copies, and the first sector",
        remedy: "Write what is damaged anew from the copy that is whole.",
        source: &["AZ-B15", "WC-02"],
    },
    RuleDoc {
        rule: "boot-sector-damaged",
        title: "The boot sector of a partition is damaged",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "Without its first sector an NTFS volume cannot be opened. NTFS keeps a copy in the last sector of the volume.",
        seen: "the first sector is no boot sector, and the copy is one",
        remedy: "Write the boot sector anew from the copy.",
        source: &["AZ-B19", "WC-03"],
    },
    RuleDoc {
        rule: "boot-sector-mismatch",
        title: "The boot sector of a partition does not fit",
        severity: Severity::Warning,
        confidence: Confidence::Possible,
        meaning: "The boot sector says at which sector of the disk the volume begins; on BIOS machines the boot code believes it. It is wrong after a partition was copied or moved.",
        seen: "the number of hidden sectors is not where the partition begins, or the copy differs",
        remedy: "Set it right.",
        source: &["AZ-B19"],
    },
    RuleDoc {
        rule: "system-partition-type",
        title: "The system partition has the wrong type",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "UEFI firmware starts from a partition of type EFI system only. The boot files are on one that has another type.",
        seen: "a partition with \\EFI\\Microsoft\\Boot that is not of type EFI system, and none that is",
        remedy: "Give the partition its type.",
        source: &["AZ-B17", "AZ-B18"],
    },
    RuleDoc {
        rule: "no-active-partition",
        title: "No partition is marked as active",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "BIOS firmware starts from the active partition only. The boot files are on one that is not active: \"Reboot and select proper boot device\", \"no bootable device\" or \"missing operating system\".",
        seen: "no entry of the MBR is active, and one partition has bootmgr",
        remedy: "Mark it as active.",
        source: &["AZ-B14", "AZ-B16", "AZ-B17", "AZ-B18"],
    },
    RuleDoc {
        rule: "system-partition-missing",
        title: "The disk has no system partition",
        severity: Severity::Critical,
        confidence: Confidence::Likely,
        meaning: "Firmware has nothing to start from (\"Reboot and select proper boot device\", \"no bootable device\"). Either the partition was deleted, or this is a data disk, or the machine starts from another disk.",
        seen: "no partition of type EFI system or active, and none with boot files",
        remedy: "Look whether the machine has another disk; make the partition anew and run `vmrescue bcd rebuild`.",
        source: &["AZ-B17"],
    },
    RuleDoc {
        rule: "system-partition-unreadable",
        title: "The system partition cannot be read",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The file system of the partition that firmware starts from is damaged.",
        seen: "opening it as FAT or NTFS fails",
        remedy: "Look at it with `vmrescue check`; format it anew and run `vmrescue bcd rebuild`.",
        source: &["AZ-B17", "WC-03"],
    },
    RuleDoc {
        rule: "boot-files-missing",
        title: "Boot files are missing or damaged",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The boot manager is not on the system partition, or is no whole program file.",
        seen: "bootmgfw.efi and bootx64.efi, or bootmgr",
        remedy: "Copy the boot files from \\Windows\\Boot, as bcdboot does.",
        source: &["AZ-B16", "AZ-B17", "WC-03"],
    },
    RuleDoc {
        rule: "boot-store-missing",
        title: "The boot configuration store is missing",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The boot manager has no configuration and starts nothing.",
        seen: "\\EFI\\Microsoft\\Boot\\BCD or \\Boot\\BCD is not there",
        remedy: "Make a new store, as bcdboot does.",
        source: &["AZ-A01", "AZ-B01", "0xC000000F"],
    },
    RuleDoc {
        rule: "boot-store-unreadable",
        title: "The boot configuration store cannot be read",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The store is a registry hive; its head or its cells are damaged beyond what its logs can mend.",
        seen: "the file does not parse as a hive, or holds no objects",
        remedy: "Make a new store, as bcdboot does; the old one is kept beside it.",
        source: &["AZ-A01", "AZ-B01", "AZ-B04"],
    },
    RuleDoc {
        rule: "boot-store-incomplete",
        title: "The boot store names nothing to start",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The object of the boot manager is missing, or it names no entry, or one that is not there.",
        seen: "{bootmgr} and its default",
        remedy: "Complete the store, as bcdboot does.",
        source: &["AZ-B04", "0xC0000034"],
    },
    RuleDoc {
        rule: "boot-store-dangling-device",
        title: "The boot store names a partition that is not there",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "Entries name partitions by the identities of disk and partition. After a restore, a copy or a conversion these are others.",
        seen: "the devices of {bootmgr} and of the default entry, held against the partition table",
        remedy: "Point the entries at the partitions of this disk.",
        source: &["AZ-A01", "AZ-B02", "0xC000000E", "0xC0000225"],
    },
];

fn finding(rule: &str, title: &str, evidence: Vec<String>, screen: &str, fix: Option<Fix>) -> Finding {
    Finding::new(rule, evidence, screen, fix).titled(title.to_string())
}

fn fix(script: &str, parameters: &[(&str, String)], applicability: Applicability) -> Option<Fix> {
    Fix::new(script, parameters, applicability)
}

fn rebuild() -> Option<Fix> {
    fix("rebuild-boot", &[], Applicability::Safe)
}

/// Everything that is wrong between the firmware and the loader.
pub(super) fn findings(scene: &Scene<'_>, kind: Kind) -> Vec<Finding> {
    let (machine, unseen) = (scene.machine, scene.unseen);
    let layout = boot_layout(machine);
    let mut found = disk_findings(machine, unseen);
    if kind == Kind::BareVolume {
        let why = "the image holds one volume and no partition table: what starts it is on another one";
        unseen.note(Unread::new("boot files and boot store", "", why, Weight::Critical));
        return found;
    }
    let lost = super::system_partition::finding(machine);
    if let Some(lost) = unseen.seen("the system partition", "", Weight::Critical, lost).flatten() {
        found.push(lost);
        return found;
    }
    match system_partition(machine, &layout) {
        Err(finding) => found.push(*finding),
        Ok(volume) if kind == Kind::Ntldr => {
            let place = format!("#{}", machine.volumes[volume].number);
            let files = ntldr(machine, volume);
            found.extend(unseen.seen("boot files", place, Weight::Critical, files).into_iter().flatten());
        }
        Ok(volume) => {
            let place = format!("#{}", machine.volumes[volume].number);
            let files = boot_manager(machine, &layout, volume);
            found.extend(unseen.seen("boot files", &place, Weight::Critical, files).into_iter().flatten());
            let store = store(machine, &layout, volume);
            found.extend(
                unseen
                    .seen("the boot configuration store", &place, Weight::Critical, store)
                    .into_iter()
                    .flatten(),
            );
        }
    }
    found
}

/// What is wrong with the partition table and the boot sectors, whichever Windows there is.
pub(super) fn disk_findings(machine: &Machine, unseen: &Unseen) -> Vec<Finding> {
    let mut found = table(machine);
    if let Some(lost) = machine.table.defects.iter().find(|defect| defect.code == "gpt-lost") {
        found.push(Finding::new("partition-table-lost", vec![lost.to_string()], "no bootable device", None));
    }
    let sectors = boot_sectors(machine);
    found.extend(unseen.seen("boot sectors", "", Weight::Critical, sectors).into_iter().flatten());
    found
}

/// Files that NTLDR starts Windows Server 2003 and older with.
fn ntldr(machine: &Machine, volume: usize) -> Result<Vec<Finding>> {
    let number = machine.volumes[volume].number;
    let mut broken = Vec::new();
    for name in ["ntldr", "NTDETECT.COM", "boot.ini"] {
        match is_there(machine, volume, &[name])? {
            None => broken.push(format!("#{number}:\\{name} is missing")),
            Some(bytes) => {
                broken.extend(no_boot_program(&bytes).map(|how| format!("#{number}:\\{name} {how}")));
            }
        }
    }
    if broken.is_empty() {
        return Ok(Vec::new());
    }
    let screen = "\"NTLDR is missing\", \"NTDETECT failed\" or \"Invalid BOOT.INI file\"";
    Ok(vec![finding("boot-files-missing", "Boot files are missing or damaged", broken, screen, None)])
}

fn table(machine: &Machine) -> Vec<Finding> {
    let bad: Vec<String> = machine
        .table
        .defects
        .iter()
        .filter(|defect| {
            matches!(
                defect.code,
                "gpt-not-protected"
                    | "gpt-primary-bad"
                    | "gpt-backup-bad"
                    | "gpt-copies-differ"
                    | "gpt-primary-unreadable"
                    | "gpt-backup-unreadable"
            )
        })
        .map(ToString::to_string)
        .collect();
    if bad.is_empty() {
        return Vec::new();
    }
    let unprotected = bad.iter().any(|text| text.contains("gpt-not-protected"));
    let severity = if unprotected || bad.iter().any(|text| text.contains("gpt-primary-bad")) {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let repair = fix("repair-gpt", &[], Applicability::Safe);
    let screen = "no bootable device, or none: the firmware uses the other copy";
    let title = if unprotected {
        "The protective MBR is missing"
    } else {
        "A copy of the partition table is damaged"
    };
    vec![Finding { severity, ..finding("gpt-copy-damaged", title, bad, screen, repair) }]
}

fn boot_sectors(machine: &Machine) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let sector = u64::from(machine.table.sector_bytes.max(512));
    for volume in &machine.volumes {
        let Some(partition) = &volume.partition else { continue };
        let kind = volume.fs.as_ref().map(|fs| fs.info().kind);
        if kind.is_some_and(|kind| kind.starts_with("fat")) {
            let window = machine.disk.window(volume.range.clone())?;
            if !fat::is_fat(&window.read_vec(0, 512.min(window.len() as usize))?) {
                let text = "the boot sector is damaged; its copy in sector 6 is whole".to_string();
                let title = format!("The boot sector of partition {} is damaged", volume.number);
                let number = volume.number.to_string();
                let repair = fix("repair-boot-sector", &[("number", number)], Applicability::Safe);
                found.push(finding("boot-sector-damaged", &title, vec![text], "no bootable device", repair));
            }
            continue;
        }
        let may_be_ntfs = kind == Some("ntfs") || kind.is_none() && volume.error.is_some();
        if !may_be_ntfs || volume.range.end - volume.range.start < 1 << 20 {
            continue;
        }
        let window = machine.disk.window(volume.range.clone())?;
        let problems = ntfs::boot_sector_problems(&window, volume.range.start / sector)?;
        let number = volume.number.to_string();
        // What the records of $MFT tell is evidence, and no copy: somebody has to look at it first.
        let told = problems.iter().any(|text| text.contains("$MFT tells them"));
        let how = if told { Applicability::Unsafe } else { Applicability::Safe };
        let repair = fix("repair-boot-sector", &[("number", number)], how);
        let (critical, harmless): (Vec<String>, Vec<String>) =
            problems.into_iter().partition(|text| text.starts_with("the boot sector is damaged"));
        if !critical.is_empty() {
            let title = format!("The boot sector of partition {} is damaged", volume.number);
            let screen = "0xc000000e, 0xc0000225 or \"missing operating system\"";
            found.push(finding("boot-sector-damaged", &title, critical, screen, repair));
        } else if !harmless.is_empty() && (partition.active || machine.table.kind == TableKind::Mbr) {
            // The copy is looked at when the first one is lost, and else by nobody.
            let place = harmless.iter().any(|text| text.contains("begins at"));
            let (what, screen) = if place {
                ("The boot sector", "a black screen with a blinking cursor on BIOS machines")
            } else {
                ("The copy of the boot sector", "none: it is asked for when the boot sector is lost")
            };
            let title = format!("{what} of partition {} does not fit", volume.number);
            let one = finding("boot-sector-mismatch", &title, harmless, screen, repair);
            found.push(Finding { severity: Severity::Warning, ..one });
        }
    }
    Ok(found)
}

fn system_partition(machine: &Machine, layout: &BootLayout) -> std::result::Result<usize, Box<Finding>> {
    let number = |index: &usize| machine.volumes[*index].number.to_string();
    match (layout.firmware, layout.system.as_slice(), layout.unmarked.as_slice()) {
        (_, [one], _) => Ok(*one),
        (Firmware::Uefi, [], [one]) => Err(Box::new(finding(
            "system-partition-type",
            "The system partition has the wrong type",
            vec![format!("partition {} holds the boot files, but is not of type EFI system", number(one))],
            "no bootable device",
            fix(
                "set-partition-type",
                &[("number", number(one)), ("type", "efi".into())],
                Applicability::Safe,
            ),
        ))),
        (Firmware::Bios, [], [one]) => Err(Box::new(finding(
            "no-active-partition",
            "No partition is marked as active",
            vec![format!("partition {} holds bootmgr, but is not active", number(one))],
            "\"no bootable device\" or \"missing operating system\"",
            fix("set-active", &[("number", number(one))], Applicability::Safe),
        ))),
        (_, [], _) => Err(Box::new(finding(
            "system-partition-missing",
            "The disk has no system partition",
            vec![
                "no partition is of type EFI system (GPT) or active (MBR), and none holds boot files"
                    .to_string(),
            ],
            "no bootable device",
            fix("system-partition", &[], Applicability::Unsafe),
        ))),
        // Several: the firmware chooses; the store of the first is looked at.
        (_, [first, ..], _) => Ok(*first),
    }
}

fn is_there(machine: &Machine, volume: usize, path: &[&str]) -> Result<Option<Vec<u8>>> {
    let Some(fs) = machine.volumes[volume].fs.clone() else { return Ok(None) };
    resolve(&*fs, path)?.map(|node| read_file(&*fs, node, "")).transpose()
}

/// Why these bytes are no program that a boot sector can start; `None` when they may be one. Such programs begin with code and have no
/// checksum outside of what they check themselves.
fn no_boot_program(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(4096)];
    if bytes.is_empty() {
        Some("is empty")
    } else if vmrescue_base::bytes::is_zero(bytes) {
        Some("is all zero")
    } else if vmrescue_base::bytes::is_zero(head) {
        Some("begins with zeros")
    } else {
        None
    }
}

fn boot_manager(machine: &Machine, layout: &BootLayout, volume: usize) -> Result<Vec<Finding>> {
    let number = machine.volumes[volume].number;
    if machine.volumes[volume].fs.is_none() {
        let why = machine.volumes[volume].error.clone().unwrap_or_default();
        let text = vec![format!("partition {number}: {why}")];
        let title = "The system partition cannot be read";
        return Ok(vec![finding("system-partition-unreadable", title, text, "no bootable device", None)]);
    }
    let mut broken = Vec::new();
    match layout.firmware {
        Firmware::Uefi => {
            let windows: &[&str] = &["EFI", "Microsoft", "Boot", "bootmgfw.efi"];
            let fallback: &[&str] = &["EFI", "Boot", "bootx64.efi"];
            let own = is_there(machine, volume, windows)?;
            let is_copy = |bytes: &[u8]| own.as_ref().is_some_and(|own| own.len() == bytes.len());
            for path in [windows, fallback] {
                let shown = format!("#{number}:\\{}", path.join("\\"));
                match is_there(machine, volume, path)? {
                    None if path[1] == "Boot"
                        && is_there(machine, volume, &["EFI", "Boot", "bootaa64.efi"])?.is_some() => {}
                    None => broken.push(format!("{shown} is missing")),
                    Some(bytes) => match PeInfo::parse(&bytes) {
                        Err(e) => broken.push(format!("{shown}: {e}")),
                        // Another maker's loader may lie in the place of the fallback, with or without a checksum.
                        Ok(pe) if !pe.checksum_right && (path == windows || is_copy(&bytes)) => {
                            broken.push(format!("{shown}: its checksum is wrong"));
                        }
                        Ok(_) => {}
                    },
                }
            }
        }
        Firmware::Bios => match is_there(machine, volume, &["bootmgr"])? {
            None => broken.push(format!("#{number}:\\bootmgr is missing")),
            Some(bytes) => {
                broken.extend(no_boot_program(&bytes).map(|how| format!("#{number}:\\bootmgr {how}")));
            }
        },
    }
    if broken.is_empty() {
        return Ok(Vec::new());
    }
    let screen = match layout.firmware {
        Firmware::Uefi => "no bootable device, or the firmware's menu",
        Firmware::Bios => "BOOTMGR is missing",
    };
    Ok(vec![finding("boot-files-missing", "Boot files are missing or damaged", broken, screen, rebuild())])
}

fn store(machine: &Machine, layout: &BootLayout, volume: usize) -> Result<Vec<Finding>> {
    let path = layout.store_path(machine, volume);
    let loaded = match load_store(machine, &path) {
        Ok(Some((_, store))) => store,
        Ok(None) => {
            let text = vec![format!("{path} is missing")];
            let title = "The system partition has no boot configuration store";
            return Ok(vec![finding("boot-store-missing", title, text, "0xc000000f", rebuild())]);
        }
        Err(e) => {
            let text = vec![format!("{path}: {e}")];
            let title = "The boot configuration store cannot be read";
            return Ok(vec![finding(
                "boot-store-unreadable",
                title,
                text,
                "0xc000014c; 0xc0000034 when only its lists are damaged",
                rebuild(),
            )]);
        }
    };
    let mut found = Vec::new();
    found.extend(menu(&path, &loaded));
    found.extend(devices(machine, layout, &path, &loaded));
    Ok(found)
}

fn menu(path: &str, store: &Store) -> Option<Finding> {
    let wrong = match store.bootmgr() {
        None => "the object {bootmgr} is missing".to_string(),
        Some(manager) => match manager.get(0x2300_0003).and_then(|value| value.objects().first()) {
            None if store.default_entry().is_none() => "{bootmgr} names no default entry".to_string(),
            Some(id) if store.object(*id).is_none() => format!("the default entry {{{id}}} is missing"),
            _ => return None,
        },
    };
    let screen = "0xc0000034";
    Some(finding(
        "boot-store-incomplete",
        "The boot store names nothing to start",
        vec![format!("{path}: {wrong}")],
        screen,
        rebuild(),
    ))
}

fn devices(machine: &Machine, layout: &BootLayout, path: &str, store: &Store) -> Option<Finding> {
    let evidence: Vec<String> = dangling(store, &machine.disk_map())
        .into_iter()
        .filter(|d| store.object(d.object).is_some_and(|object| is_started(store, object)))
        .map(|d| {
            let name =
                store.object(d.object).map(|object| object.element_name(d.element)).unwrap_or_default();
            format!("{path}: {{{}}} {name}: {}", d.object, d.resolution.name())
        })
        .collect();
    let screen = match layout.firmware {
        Firmware::Bios => "0xc000000e",
        Firmware::Uefi => "0xc0000225",
    };
    let title = "The boot store names a partition that is not there";
    (!evidence.is_empty()).then(|| finding("boot-store-dangling-device", title, evidence, screen, rebuild()))
}

/// The boot manager and the entry that starts by itself.
fn is_started(store: &Store, object: &Object) -> bool {
    store.bootmgr().is_some_and(|manager| manager.id == object.id)
        || store.default_entry().is_some_and(|entry| entry.id == object.id)
}
