//! Drivers that the loader and the kernel start before Windows can read its own disk.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};
use vmrescue_windows::Service;

/// Drivers of the storage path that every machine needs at boot.
const BOOT_CRITICAL: [&str; 8] =
    ["ACPI", "disk", "partmgr", "volmgr", "storvsc", "vmbus", "storahci", "stornvme"];

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "boot-driver-broken",
        title: "A boot driver cannot be loaded",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The loader reads the file of every boot driver into memory. One that is missing, cut off, zeroed, for another processor or with a wrong checksum ends the start there.",
        seen: "the file of every driver whose start is boot",
        remedy: "Put the file back from the component store.",
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
        ],
    },
    RuleDoc {
        rule: "boot-driver-not-started",
        title: "A driver of the disk is not started at boot",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "Windows cannot read its own disk when a driver between the bus and the volume is not among the boot drivers.",
        seen: "Start of the drivers of the storage path",
        remedy: "Start it at boot again.",
        source: &["WS-01", "WC-02", "0x7B"],
    },
    RuleDoc {
        rule: "boot-driver-overridden",
        title: "A driver of the disk is left out by StartOverride",
        severity: Severity::Warning,
        confidence: Confidence::Possible,
        meaning: "When Windows was last started, the driver was not needed for the disk, and Windows left itself a note to start it on demand. On a machine whose controller changed since (another generation, another hypervisor) it is needed.",
        seen: "a key StartOverride of a driver of the storage path with a value of 3",
        remedy: "Delete the key: storage-drivers-boot sets all of them to boot.",
        source: &["WS-01", "0x7B"],
    },
];

/// What is wrong with the drivers of the start.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let set = scene.control_set();
    let all = scene.services().iter().filter_map(|service| driver(service, &set));
    let (broken, others): (Vec<Finding>, Vec<Finding>) =
        all.partition(|finding| finding.rule == "boot-driver-broken");
    let mut found = together(broken);
    found.extend(others);
    found.extend(overridden(scene));
    found
}

/// More broken drivers than this are told in one: a disk whose drivers are all gone is one finding, not fifty.
const MOST_ALONE: usize = 4;

fn together(broken: Vec<Finding>) -> Vec<Finding> {
    if broken.len() <= MOST_ALONE {
        return broken;
    }
    let title = format!("{} boot drivers cannot be loaded", broken.len());
    let evidence = broken.iter().filter_map(|finding| finding.evidence.first().cloned()).collect();
    let screen = "0xc0000098, 0xc0000221 or 0xc0000225, naming the first of them";
    let fix = Fix::new("restore-boot-drivers", &[], Applicability::Safe);
    vec![Finding::new("boot-driver-broken", evidence, screen, fix).titled(title)]
}

fn driver(service: &Service, set: &str) -> Option<Finding> {
    let critical = BOOT_CRITICAL.iter().any(|name| name.eq_ignore_ascii_case(&service.name));
    let at = format!(r"HKLM\SYSTEM\{set}\Services\{}", service.name);
    let name = [("name", service.name.clone())];
    if let Some(problem) =
        service.problem.as_ref().filter(|_| service.is_driver() && service.start == Some(0))
    {
        let file = service.file.clone().unwrap_or_default();
        let evidence = vec![format!("{file}: {problem}"), format!("{at}\\Start = 0 (boot)")];
        let screen = "0xc0000098, 0xc0000221 or 0xc0000225, naming the file";
        let fix = Fix::new("restore-driver", &name, Applicability::Safe);
        let title = format!("The boot driver {} cannot be loaded", service.name);
        return Some(Finding::new("boot-driver-broken", evidence, screen, fix).titled(title));
    }
    if critical && service.start.is_some_and(|start| start != 0) {
        let start = service.start.unwrap_or(9);
        let evidence = vec![format!("{at}\\Start = {start} ({})", service.start_name())];
        let fix = Fix::new("enable-boot-driver", &name, Applicability::Safe);
        let title = format!("{} is not started at boot", service.name);
        let screen = "INACCESSIBLE_BOOT_DEVICE (0x7B)";
        return Some(Finding::new("boot-driver-not-started", evidence, screen, fix).titled(title));
    }
    None
}

/// Notes that keep *all* drivers of disk controllers from starting at boot: with one of them left, the disk has a driver.
fn overridden(scene: &Scene<'_>) -> Option<Finding> {
    const CONTROLLERS: [&str; 4] = ["storvsc", "storahci", "stornvme", "LSI_SAS"];
    let there = |name: &&&str| {
        scene.services().iter().any(|s| s.name.eq_ignore_ascii_case(name) && s.start == Some(0))
    };
    let boot: Vec<&&str> = CONTROLLERS.iter().filter(there).collect();
    let mut evidence = Vec::new();
    for name in &boot {
        let key = format!(r"HKLM\SYSTEM\CurrentControlSet\Services\{name}\StartOverride");
        if let Some(start) = scene.value(&key, "0").filter(|start| start != "0") {
            evidence.push(format!("{key}: 0 = {start}"));
        }
    }
    if boot.is_empty() || evidence.len() < boot.len() {
        return None;
    }
    let fix = Fix::new("storage-drivers-boot", &[], Applicability::Unsafe);
    let screen = "INACCESSIBLE_BOOT_DEVICE (0x7B)";
    Some(Finding::new("boot-driver-overridden", evidence, screen, fix))
}
