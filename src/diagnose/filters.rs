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
    remedy: "Take the name out of the list.",
    source: &["WS-02", "WC-02", "0x7B"],
}];

/// Entries of filter lists without a driver behind them.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let services = scene.services();
    if services.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (class, what) in CLASSES {
        let path = format!(r"HKLM\SYSTEM\CurrentControlSet\Control\Class\{class}");
        scene.keys(&path, &mut |path, key| {
            for list in ["UpperFilters", "LowerFilters"] {
                let value = key.value(list).ok().flatten();
                let names = value.and_then(|value| value.as_multi_string()).unwrap_or_default();
                for name in names.iter().filter(|name| !name.is_empty()) {
                    let service = services.iter().find(|service| service.name.eq_ignore_ascii_case(name));
                    let why = match service {
                        None => "there is no such service".to_string(),
                        Some(service) if service.start == Some(4) => "its service is disabled".to_string(),
                        Some(service) => match &service.problem {
                            Some(problem) => problem.clone(),
                            None => continue,
                        },
                    };
                    let parameters = [("name", name.clone()), ("class", class.to_string())];
                    let fix = Fix::new("remove-filter-driver", &parameters, Applicability::Safe);
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
