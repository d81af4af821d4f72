//! What the walk of the boot chain finds: boot code, the entry of the store, loader, kernel, drivers, session and logon files, each with what the
//! screen shows and the script that puts it right.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};
use std::collections::BTreeMap;
use vmrescue_base::error::Result;
use vmrescue_boot::{Broken, Chain, Fault, Link, Outcome, Part, Proof};
use vmrescue_windows::{Store, Weight};

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "boot-code-missing",
        title: "The boot code of the disk is missing",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "A BIOS starts the code in the first sector of the disk, which starts that of the active partition. Code that is all zero does nothing: the machine stands still without a message.",
        seen: "the first 440 bytes of the disk, and the code in the boot sector of the active partition",
        remedy: "Write code into the boot record that starts the active partition. The code of a boot sector is that of Windows only: take it from the disk of another BIOS machine of the same generation.",
        source: &["AZ-B19", "WC-03"],
    },
    RuleDoc {
        rule: "boot-entry-astray",
        title: "The entry that starts leads nowhere",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The boot manager starts one entry by itself. The file, directory or image that it names is not on the partition that it names.",
        seen: "device, path, osdevice and systemroot of the entry that starts; images of RAM disks and virtual disks",
        remedy: "Let the boot manager start this Windows.",
        source: &["AZ-B02", "0xC000000F", "0xC0000225", "0xC000000E"],
    },
    RuleDoc {
        rule: "boot-entry-other",
        title: "The next start does not start Windows",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "The entry that starts by itself is not an installed Windows: Setup or the recovery environment (left by an update that failed), a memory test, another system.",
        seen: "type, winpe and device of the entry that starts",
        remedy: "Make the entry of Windows the default: `vmrescue bcd enum IMAGE`, then `vmrescue bcd default IMAGE {ID}`.",
        source: &["AZ-B02"],
    },
    RuleDoc {
        rule: "loader-missing",
        title: "The loader of Windows is missing or damaged",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The boot manager checks and starts winload.efi or winload.exe, which reads everything else.",
        seen: "the file that the entry names",
        remedy: "Put it back from the component store or another machine of the same build.",
        source: &["AZ-B01", "AZ-B02", "WC-02", "0xC0000428", "0xC000000F"],
    },
    RuleDoc {
        rule: "hive-not-clean",
        title: "The SYSTEM hive was not closed, and its logs do not help",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The two sequence numbers of the hive differ: a write was under way. The loader finishes it from the transaction logs; without usable logs it refuses the hive.",
        seen: "the base block of SYSTEM, and SYSTEM.LOG1 and LOG2",
        remedy: "`vmrescue check IMAGE --repair --allow-unsafe` takes the hive as it lies; the write that was not finished is lost.",
        source: &["AZ-B08", "0xC000014C"],
    },
    RuleDoc {
        rule: "boot-driver-broken",
        title: "A boot driver cannot be loaded",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The loader reads the file of every boot driver into memory, and the files that it imports. One that is zeroed, cut off, for another processor, or whose signature is for other content ends the start there; one that is missing does where its ErrorControl is 3.",
        seen: "the files of all drivers whose start is boot, in the order of the loader, with their imports; of embedded signatures the hash, not the chain of certificates",
        remedy: "Put the file back from the component store; switch off a driver that does not belong to Windows.",
        source: &[
            "AZ-A02",
            "AZ-B01",
            "AZ-B03",
            "AZ-B05",
            "AZ-B07",
            "AZ-B10",
            "AZ-B11",
            "AZ-B24",
            "0xC0000098",
            "0xC0000221",
            "0xC0000428",
            "0xC000000D",
            "0xC000035A",
            "0x7E",
        ],
    },
    RuleDoc {
        rule: "boot-driver-left-out",
        title: "The loader leaves out a driver",
        severity: Severity::Notice,
        confidence: Confidence::Likely,
        meaning: "The file of a boot driver is missing, and its ErrorControl lets the loader go on without it. The machine starts, unless the driver is needed later.",
        seen: "boot drivers with an ErrorControl of 0 or 1 whose file, or an import of it, is missing",
        remedy: "Put the file back, or switch the driver off.",
        source: &["AZ-B24"],
    },
    RuleDoc {
        rule: "boot-driver-not-started",
        title: "A driver of the disk is not started at boot",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "Windows cannot read its own disk when a driver between the bus and the volume is not among the boot drivers.",
        seen: "the devices below the boot disk as the registry records them, and Start of the drivers on the way",
        remedy: "Start it at boot again.",
        source: &["WS-01", "WC-02", "0x7B"],
    },
    RuleDoc {
        rule: "boot-driver-overridden",
        title: "A driver of the disk is left out by StartOverride",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "When Windows was last started, the driver was not needed for the disk, and Windows left itself a note to start it on demand. On a machine whose controller changed since (another generation, another hypervisor) it is needed.",
        seen: "a key StartOverride of a driver on the way to the disk with a value other than 0",
        remedy: "Delete the value: storage-drivers-boot and enable-boot-driver do so.",
        source: &["WS-01", "0x7B"],
    },
    RuleDoc {
        rule: "core-file-broken",
        title: "A program file that Windows cannot do without is damaged",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "Kernel, HAL, code pages, the first processes and what they import are ordinary files. One that is zeroed, cut off or for another processor stops the start.",
        seen: "headers, sections and machine types of these files, following the import tables",
        remedy: "Put the file back from the component store, or from a machine of the same build (--source).",
        source: &["AZ-B09", "AZ-B25", "AZ-B28", "0xC0000221", "0xC0000428", "0xEF", "0xF4", "0x6B", "0x6F"],
    },
    RuleDoc {
        rule: "core-file-missing",
        title: "A program file that Windows cannot do without is missing",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "Kernel (ntoskrnl.exe), HAL (hal.dll), code pages, the first processes (smss.exe, csrss.exe, winlogon.exe) and what they import are ordinary files. One that is not there stops the start.",
        seen: "the files that the loader, the kernel and the session manager take, following the import tables",
        remedy: "Put the file back from the component store, or from a machine of the same build (--source).",
        source: &["AZ-B25", "AZ-B28", "0xC000021A", "0xC0000135", "0xC000000F", "0x6B", "0x6F"],
    },
];

/// Boot drivers that are Windows' own: what the component store lacks of them is to be restored from elsewhere, not switched off.
const OF_WINDOWS: [&str; 44] = [
    "ACPI",
    "acpiex",
    "atapi",
    "CLFS",
    "CNG",
    "disk",
    "EhStorClass",
    "FileInfo",
    "FltMgr",
    "Fs_Rec",
    "fvevol",
    "hwpolicy",
    "intelide",
    "iorate",
    "KSecDD",
    "KSecPkg",
    "mountmgr",
    "msahci",
    "msisadrv",
    "Mup",
    "NDIS",
    "Ntfs",
    "partmgr",
    "pci",
    "pciide",
    "pcw",
    "pdc",
    "rdyboost",
    "spaceport",
    "storahci",
    "storflt",
    "stornvme",
    "storvsc",
    "Tcpip",
    "vdrvroot",
    "vmbus",
    "volmgr",
    "volmgrx",
    "volsnap",
    "volume",
    "vpci",
    "Wdf01000",
    "WFPLWFS",
    "Wof",
];
/// More broken links of one kind than this are told in one: a disk whose drivers are all gone is one finding, not fifty.
const MOST_ALONE: usize = 4;

/// Everything that the walk finds wrong.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(chain) = scene.chain() else { return Vec::new() };
    let copies = Copies::of(scene, chain);
    let mut found: Vec<(Finding, &Broken)> = Vec::new();
    for (link, broken) in chain.broken() {
        found.extend(finding(chain, link, broken, &copies).map(|finding| (finding, broken)));
    }
    let mut list = Vec::new();
    while let Some((first, broken)) = found.first() {
        let (rule, first_screen, stops) = (first.rule.clone(), first.screen.clone(), broken.outcome);
        let (same, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(finding, broken)| finding.rule == rule && broken.outcome == stops);
        found = others;
        let same: Vec<Finding> = same.into_iter().map(|(finding, _)| finding).collect();
        list.extend(together(same, &first_screen));
    }
    list.extend(other_entry(scene));
    list
}

fn together(same: Vec<Finding>, first_screen: &str) -> Vec<Finding> {
    let can = matches!(
        same.first().map(|finding| finding.rule.as_str()),
        Some("boot-driver-broken" | "boot-driver-left-out" | "core-file-missing" | "core-file-broken")
    );
    if !can || same.len() <= MOST_ALONE {
        return same;
    }
    let rule = same[0].rule.clone();
    let left_out = rule == "boot-driver-left-out";
    let what = if left_out || rule == "boot-driver-broken" { "boot drivers" } else { "files of the start" };
    let how = match rule.as_str() {
        "boot-driver-left-out" => "are left out by the loader",
        "core-file-missing" => "are missing",
        _ => "cannot be loaded",
    };
    let title = format!("{} {what} {how}", same.len());
    let safe = same
        .iter()
        .all(|finding| finding.fix.as_ref().is_some_and(|fix| fix.applicability == Applicability::Safe));
    let evidence = same.iter().filter_map(|finding| finding.evidence.first().cloned()).collect();
    let screen =
        if left_out { first_screen.to_string() } else { format!("{first_screen}, the first of them") };
    let applicability = if safe && !left_out { Applicability::Safe } else { Applicability::Unsafe };
    let fix = Fix::new("restore-boot-drivers", &[], applicability);
    vec![Finding::new(&rule, evidence, &screen, fix).titled(title)]
}

fn screen_of(link: &Link, broken: &Broken) -> String {
    let names_file = matches!(link.part, Part::Loader | Part::Kernel | Part::Driver | Part::SystemHive);
    let mut text = broken.screen.text.to_string();
    if names_file && text.starts_with("0x") {
        text = format!("{text}, naming {}", link.name);
    }
    if broken.screen.proof == Proof::Inferred {
        text.push_str(" (inferred)");
    }
    text
}

fn finding(chain: &Chain, link: &Link, broken: &Broken, copies: &Copies) -> Option<Finding> {
    let screen = screen_of(link, broken);
    let line = format!("{}: {} ({})", link.place, broken.words, link.why);
    let make = |rule: &str, evidence: Vec<String>, fix, title: String| {
        Some(Finding::new(rule, evidence, &screen, fix).titled(title))
    };
    let how = if broken.fault == Fault::Missing { "is missing" } else { "is damaged" };
    match link.part {
        Part::BootRecord | Part::VolumeCode => {
            let title = format!("The {} has no boot code", link.name);
            let fix = (link.part == Part::BootRecord)
                .then(|| Fix::new("write-boot-code", &[], Applicability::Safe))
                .flatten();
            let evidence = vec![format!("{}: {}", link.place, broken.words)];
            let one = make("boot-code-missing", evidence, fix, title)?;
            // A BIOS does not ask which Windows it starts.
            let seen = link.part == Part::BootRecord || broken.screen.proof == Proof::Seen;
            let confidence = if seen { Confidence::Certain } else { Confidence::Likely };
            Some(Finding { confidence, ..one })
        }
        Part::Entry => {
            let evidence = vec![format!("{}: {}", link.place, broken.words)];
            let fix = Fix::new("rebuild-boot", &[], Applicability::Safe);
            make("boot-entry-astray", evidence, fix, "The entry that starts leads nowhere".into())
        }
        Part::Loader => {
            let title = format!("The loader {} {how}", link.name);
            make("loader-missing", vec![line], copies.fix(link), title)
        }
        // A hive that cannot be read is told by the rule of hives.
        Part::SystemHive if broken.fault == Fault::Unclean => {
            let title = "The SYSTEM hive was not closed, and its logs do not help".to_string();
            make("hive-not-clean", vec![line], None, title)
        }
        Part::SystemHive => None,
        Part::Driver => driver(link, broken, copies, line, &screen),
        Part::DiskPath | Part::Framework => Some(disk_path(chain, link, broken, copies, line, &screen)),
        Part::Kernel
        | Part::ApiSet
        | Part::Nls
        | Part::SessionManager
        | Part::Native
        | Part::Subsystem
        | Part::Library
        | Part::Logon => {
            let rule = if broken.fault == Fault::Missing { "core-file-missing" } else { "core-file-broken" };
            let one = make(rule, vec![line], copies.fix(link), format!("{} {how}", link.name))?;
            Some(match broken.outcome {
                Outcome::Stops => one,
                _ => Finding { severity: Severity::Warning, confidence: Confidence::Possible, ..one },
            })
        }
    }
}

fn driver(link: &Link, broken: &Broken, copies: &Copies, line: String, screen: &str) -> Option<Finding> {
    let what = link.service.as_ref().map_or_else(
        || format!("{}, which boot drivers import,", link.name),
        |service| format!("The boot driver {service}"),
    );
    let fix = copies.fix(link);
    if broken.outcome == Outcome::Skipped {
        let title = format!("{what} is left out by the loader");
        let fix = fix.map(|fix| Fix { applicability: Applicability::Unsafe, ..fix });
        return Some(Finding::new("boot-driver-left-out", vec![line], "nothing", fix).titled(title));
    }
    let one = Finding::new("boot-driver-broken", vec![line], screen, fix);
    let one = one.titled(format!("{what} cannot be loaded"));
    Some(match broken.outcome {
        Outcome::MayStop => Finding { severity: Severity::Warning, confidence: Confidence::Possible, ..one },
        _ => one,
    })
}

fn disk_path(
    chain: &Chain,
    link: &Link,
    broken: &Broken,
    copies: &Copies,
    line: String,
    screen: &str,
) -> Finding {
    let overridden = broken.words.starts_with("StartOverride");
    let rule = if overridden { "boot-driver-overridden" } else { "boot-driver-not-started" };
    let how = if overridden { "is left out by StartOverride" } else { "is not started at boot" };
    let sure = broken.outcome == Outcome::Stops;
    let applicability = if sure { Applicability::Safe } else { Applicability::Unsafe };
    let fix = if broken.fault == Fault::NotStarted {
        Fix::new("enable-boot-driver", &[("name", link.name.clone())], applicability)
    } else {
        // Starting a driver whose file is not there starts nothing: the file is what is wanted.
        let lacks = chain.broken().find(|(file, _)| file.part == Part::Driver && file.driver == link.service);
        lacks.and_then(|(file, _)| copies.fix(file)).filter(|fix| fix.script == "restore-driver")
    };
    let one = Finding::new(rule, vec![line], screen, fix).titled(format!("{} {how}", link.name));
    if sure { one } else { Finding { severity: Severity::Warning, confidence: Confidence::Possible, ..one } }
}

/// The entry that starts is something other than this Windows, and is there.
fn other_entry(scene: &Scene<'_>) -> Option<Finding> {
    // The store's own rules name what cannot be read of it.
    let entry = vmrescue_boot::started(scene.machine, &scene.layout()).ok().flatten()?;
    let what = entry.other.filter(|_| entry.astray.is_empty())?;
    let id = entry.entry?;
    let once = if entry.once { "once, " } else { "" };
    let evidence = vec![format!("{}: {{{id}}} starts {once}{what}", entry.store)];
    let screen = "what the entry starts, not Windows";
    let title = format!("The next start does not start Windows but {what}");
    Some(Finding::new("boot-entry-other", evidence, screen, None).titled(title))
}

/// Copies of broken files in the component store.
struct Copies {
    /// By file name in lower case: whether a copy can be restored; `None` for names that the store does not have.
    known: BTreeMap<String, bool>,
    /// The installation has no store at all.
    none: bool,
}

impl Copies {
    fn of(scene: &Scene<'_>, chain: &Chain) -> Copies {
        let names: Vec<String> = chain
            .broken()
            .filter(|(link, _)| link.is_file() && link.part != Part::SystemHive)
            .map(|(link, _)| link.name.clone())
            .collect();
        if names.is_empty() {
            return Copies { known: BTreeMap::new(), none: false };
        }
        let place = format!(r"{}\WinSxS", scene.installation.path);
        let copies =
            scene.unseen.seen("the component store", place, Weight::Partial, Copies::look(scene, &names));
        // A store that cannot be read restores nothing; the fix is then offered with `--source`.
        copies.unwrap_or(Copies { known: BTreeMap::new(), none: true })
    }

    fn look(scene: &Scene<'_>, names: &[String]) -> Result<Copies> {
        let mut store = Store::open(scene.machine, scene.installation)?;
        store.look_for(names)?;
        let mut known = BTreeMap::new();
        for name in names {
            let origin = store.origin(None, name, None, true)?;
            if !origin.versions.is_empty() {
                let architecture = &scene.installation.architecture;
                let usable = origin.versions.iter().any(|copy| copy.is_restorable_on(architecture));
                known.insert(name.to_lowercase(), usable);
            }
        }
        store.unread().into_iter().for_each(|unread| scene.unseen.note(unread));
        Ok(Copies { known, none: store.is_empty() })
    }

    /// The script that puts a file right: from the store, or for a driver that is none of Windows, without it.
    fn fix(&self, link: &Link) -> Option<Fix> {
        let restore = |how| Fix::new("restore-driver", &[("name", link.name.clone())], how);
        match (self.known.get(&link.name.to_lowercase()), &link.service) {
            (Some(true), _) => restore(Applicability::Safe),
            (None, Some(service))
                if !self.none
                    && link.part == Part::Driver
                    && !OF_WINDOWS.iter().any(|own| own.eq_ignore_ascii_case(service)) =>
            {
                Fix::new("disable-driver", &[("name", service.clone())], Applicability::Unsafe)
            }
            // Nothing on this disk to restore from: the script says what is missing, and takes it from --source.
            _ => restore(Applicability::Safe),
        }
    }
}
