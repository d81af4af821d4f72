//! Filter drivers of the device classes of the disk: one that is listed and cannot be loaded stops its class.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};
use vmrescue_boot::boot_devices;
use vmrescue_windows::{Filter, Service, filters};

pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "filter-driver-dangling",
    title: "A filter of the disk cannot be loaded",
    severity: Severity::Critical,
    confidence: Confidence::Likely,
    meaning: "UpperFilters and LowerFilters of a device class name drivers that every device of the class goes through. When one was removed or switched off without its entry, no device of the class starts, and Windows loses its disk.",
    seen: "names in UpperFilters and LowerFilters of the classes of disks, controllers, volumes and system devices, and of single devices of these classes, held against the services",
    remedy: "Take the name of a foreign filter out of the list; put back the service of one that belongs to Windows.",
    source: &["WS-02", "WC-02", "0x7B"],
}];

/// Filters that belong to Windows: they are never taken out of a list, their driver is put back.
const OWN: [&str; 6] = ["partmgr", "volsnap", "fvevol", "iorate", "rdyboost", "EhStorClass"];

/// Entries of filter lists without a driver behind them.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(hive) = scene.hive("SYSTEM").filter(|_| !scene.services().is_empty()) else { return Vec::new() };
    let set = scene.installation.control_sets.default.max(1);
    let all = filters(&hive, set, scene.services(), scene.unseen);
    let path = boot_devices(scene.machine, scene.installation, &hive, set, scene.unseen);
    all.iter().filter(|filter| filter.boot).filter_map(|filter| finding(filter, scene, &path)).collect()
}

/// `path` are the devices that the boot disk hangs on.
fn finding(filter: &Filter, scene: &Scene<'_>, path: &[String]) -> Option<Finding> {
    let why = filter.problem.as_ref()?;
    let own = OWN.iter().any(|known| known.eq_ignore_ascii_case(&filter.driver));
    let service = scene.services().iter().find(|service| service.name.eq_ignore_ascii_case(&filter.driver));
    // The file of a filter that belongs to Windows is named by the boot chain.
    if own && service.is_some_and(|service| service.problem.is_some() && service.start == Some(0)) {
        return None;
    }
    let what = match (&filter.device, filter.class_name.as_str()) {
        (Some(device), _) => format!("the device {device}"),
        (None, "") => filter.class.clone(),
        (None, name) => format!("the class {name}"),
    };
    let place = filter.place.value_name();
    let evidence = vec![format!(r"HKLM\SYSTEM\{}: {place} names {}: {why}", filter.key, filter.driver)];
    let title = format!("The filter {} of {what} cannot be loaded", filter.driver);
    let screen = "INACCESSIBLE_BOOT_DEVICE (0x7B)";
    let found =
        Finding::new("filter-driver-dangling", evidence, screen, fix(filter, service, own)).titled(title);
    // A device may be gone, and its entry stay: sure are the classes, and the devices of the boot disk.
    let needed =
        filter.device.as_ref().is_none_or(|device| path.iter().any(|id| id.eq_ignore_ascii_case(device)));
    Some(if !needed {
        Finding { severity: Severity::Warning, confidence: Confidence::Possible, ..found }
    } else {
        found
    })
}

fn fix(filter: &Filter, service: Option<&Service>, own: bool) -> Option<Fix> {
    let there = service.is_some_and(|service| service.start != Some(4));
    // A filter that could be loaded, were its file in order, may be wanted.
    let how = if there { Applicability::Unsafe } else { Applicability::Safe };
    let name = ("name", filter.driver.clone());
    if own {
        return service.and_then(|_| Fix::new("enable-boot-driver", &[name], Applicability::Safe));
    }
    match &filter.device {
        Some(device) => Fix::new("remove-device-filter", &[name, ("device", device.clone())], how),
        None => Fix::new("remove-filter-driver", &[name, ("class", filter.class.clone())], how),
    }
}
