//! Filter drivers of the device classes of the disk: one that is listed and cannot be loaded stops its class.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};

/// Classes that the start needs, and what they are.
const CLASSES: [(&str, &str); 4] = [
    ("{4d36e967-e325-11ce-bfc1-08002be10318}", "disk drives"),
    ("{4d36e96a-e325-11ce-bfc1-08002be10318}", "disk controllers"),
    ("{4d36e97b-e325-11ce-bfc1-08002be10318}", "storage controllers"),
    ("{71a27cdd-812a-11d0-bec7-08002be2092f}", "volumes"),
];

pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "filter-driver-dangling",
    title: "A filter of the disk cannot be loaded",
    severity: Severity::Critical,
    confidence: Confidence::Likely,
    meaning: "UpperFilters and LowerFilters of a device class name drivers that every device of the class goes through. When one was removed or switched off without its entry, no device of the class starts, and Windows loses its disk.",
    seen: "names in UpperFilters and LowerFilters of the classes of disks, controllers and volumes, held against the services",
    remedy: "Take the name of a foreign filter out of the list; put back the service of one that belongs to Windows.",
    source: &["WS-02", "WC-02", "0x7B"],
}];

/// Filters that belong to Windows: they are never taken out of a list, their driver is put back.
const OWN: [&str; 6] = ["partmgr", "volsnap", "fvevol", "iorate", "rdyboost", "EhStorClass"];

/// Entries of filter lists without a driver behind them.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    if scene.services().is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (class, what) in CLASSES {
        let path = format!(r"HKLM\SYSTEM\CurrentControlSet\Control\Class\{class}");
        scene.keys(&path, &mut |path, key| {
            for list in ["UpperFilters", "LowerFilters"] {
                let value = scene.value_of(path, key, list);
                // A value of another type names no filters.
                let names = value.and_then(|value| value.as_multi_string()).unwrap_or_default();
                for name in names.iter().filter(|name| !name.is_empty()) {
                    let Some((why, fix)) = dangling(scene, name, class) else { continue };
                    let evidence = vec![format!("{path}: {list} names {name}: {why}")];
                    let title = format!("The filter {name} of {what} cannot be loaded");
                    let screen = "INACCESSIBLE_BOOT_DEVICE (0x7B)";
                    found.push(Finding::new("filter-driver-dangling", evidence, screen, fix).titled(title));
                }
            }
        });
    }
    found
}

/// Why a filter cannot be loaded, and what cures it; `None` when it can, or when its file is what is broken: that is named by the
/// rule of boot drivers.
fn dangling(scene: &Scene<'_>, name: &str, class: &str) -> Option<(String, Option<Fix>)> {
    let own = OWN.iter().any(|known| known.eq_ignore_ascii_case(name));
    let remove = |how| {
        let parameters = [("name", name.to_string()), ("class", class.to_string())];
        if own { None } else { Fix::new("remove-filter-driver", &parameters, how) }
    };
    let service = scene.services().iter().find(|service| service.name.eq_ignore_ascii_case(name));
    let Some(service) = service else {
        return Some(("there is no such service".into(), remove(Applicability::Safe)));
    };
    if service.start == Some(4) {
        let enable = Fix::new("enable-boot-driver", &[("name", service.name.clone())], Applicability::Safe);
        let fix = if own { enable } else { remove(Applicability::Safe) };
        return Some(("its service is disabled".into(), fix));
    }
    let problem = service.problem.as_ref().filter(|_| !own)?;
    Some((problem.clone(), remove(Applicability::Unsafe)))
}
