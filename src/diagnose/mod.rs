//! Why the machine does not boot: rules over what `windows/` sees, each with evidence and the script that fixes it.
//!
//! Missing: incidents by build and KB, event logs.

mod boot;

use crate::error::Result;
use crate::fs::path::GuestPath;
use crate::windows::{Installation, Machine, Service, services};
use serde::Serialize;
use std::collections::BTreeMap;

/// Drivers of the storage path that Windows needs before it can read its own disk.
const BOOT_CRITICAL: [&str; 8] =
    ["ACPI", "disk", "partmgr", "volmgr", "storvsc", "vmbus", "storahci", "stornvme"];

/// How a fix may be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applicability {
    /// Has one right answer; `repair` without a name applies it.
    Safe,
    /// Needs a decision.
    Unsafe,
}

/// The script that cures a finding.
#[derive(Debug, Clone, Serialize)]
pub struct Fix {
    /// Name of the script.
    pub script: String,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
    /// May it be applied without asking.
    pub applicability: Applicability,
}

/// A reason why the machine does not boot, or soon will not.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Name of the rule.
    pub rule: &'static str,
    /// `critical` keeps the machine from booting, `warning` may.
    pub severity: &'static str,
    /// One line.
    pub title: String,
    /// What was seen, and where.
    pub evidence: Vec<String>,
    /// What the user sees on the screen.
    pub screen: &'static str,
    /// The cure, when there is one.
    pub fix: Option<Fix>,
}

fn fix(script: &str, name: &str, applicability: Applicability) -> Option<Fix> {
    let parameters = BTreeMap::from([("name".to_string(), name.to_string())]);
    Some(Fix { script: script.into(), parameters, applicability })
}

/// All findings for one installation, worst first.
///
/// # Errors
/// Of reading the disk; damage that explains the machine's state is a finding.
pub fn diagnose(machine: &Machine, installation: &Installation) -> Result<Vec<Finding>> {
    // In the order of a start: the first that breaks is what the user sees.
    let mut findings = boot::findings(machine, installation)?;
    for problem in &installation.problems {
        findings.push(Finding {
            rule: "hive-unreadable",
            severity: "critical",
            title: "A registry hive cannot be read".into(),
            evidence: vec![problem.clone()],
            screen: "0xc0000218 or 0xc000014c",
            fix: None,
        });
    }
    let set = installation.control_sets.default.max(1);
    if let Ok(hive) = machine.hive(installation, "SYSTEM") {
        for service in services(machine, installation, &hive, set, true)? {
            findings.extend(driver_finding(&service));
        }
    }
    findings.extend(pending_finding(machine, installation)?);
    findings.sort_by_key(|finding| finding.severity != "critical");
    Ok(findings)
}

fn driver_finding(service: &Service) -> Option<Finding> {
    let critical = BOOT_CRITICAL.iter().any(|name| name.eq_ignore_ascii_case(&service.name));
    let at = format!(r"HKLM\SYSTEM\CurrentControlSet\Services\{}", service.name);
    if let Some(problem) =
        service.problem.as_ref().filter(|_| service.is_driver() && service.start == Some(0))
    {
        let file = service.file.clone().unwrap_or_default();
        return Some(Finding {
            rule: "boot-driver-broken",
            severity: "critical",
            title: format!("The boot driver {} cannot be loaded", service.name),
            evidence: vec![format!("{file}: {problem}"), format!("{at}\\Start = 0 (boot)")],
            screen: "0xc0000098, 0xc0000221 or 0xc0000225, naming the file",
            fix: fix("restore-driver", &service.name, Applicability::Safe),
        });
    }
    if critical && service.start.is_some_and(|start| start != 0) {
        return Some(Finding {
            rule: "boot-driver-not-started",
            severity: "critical",
            title: format!("{} is not started at boot", service.name),
            evidence: vec![format!(
                "{at}\\Start = {} ({})",
                service.start.unwrap_or(9),
                service.start_name()
            )],
            screen: "INACCESSIBLE_BOOT_DEVICE (0x7B)",
            fix: fix("enable-boot-driver", &service.name, Applicability::Safe),
        });
    }
    None
}

fn pending_finding(machine: &Machine, installation: &Installation) -> Result<Option<Finding>> {
    let mut evidence = Vec::new();
    let pending = format!(r"{}\WinSxS\pending.xml", installation.path);
    if machine.resolve(&GuestPath::parse(&pending)?)?.1.is_some() {
        evidence.push(format!("{pending} is there"));
    }
    if let Ok(hive) = machine.hive(installation, "SOFTWARE") {
        let key = r"Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending";
        if hive.key(key)?.is_some() {
            evidence.push(format!(r"HKLM\SOFTWARE\{key} is there"));
        }
    }
    Ok((!evidence.is_empty()).then(|| Finding {
        rule: "update-pending",
        severity: "warning",
        title: "An update waits for the next start".into(),
        evidence,
        screen: "a restart loop, or \"Undoing changes\"",
        fix: Some(Fix {
            script: "revert-pending-updates".into(),
            parameters: BTreeMap::new(),
            applicability: Applicability::Unsafe,
        }),
    }))
}
