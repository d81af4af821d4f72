//! Why the machine does not boot: rules over what `windows/` sees, each with evidence and the script that fixes it.
//!
//! Rules that walk structures are code, one file for each link of the start; rules and incidents that are a matter of values
//! are data (`rules/`, `incidents/`), and a user can add more. Every rule is documented: `diagnose --explain RULE`.
//!
//! Missing: signatures of boot files are not judged; nothing is told of a disk by comparing it with another.

mod binaries;
mod boot;
mod chain;
mod codes;
mod condition;
mod data;
mod directory_service;
mod disk;
mod events;
mod filters;
mod history;
mod hives;
mod letters;
mod pending;
mod rule;
mod scene;
mod space;
mod system_partition;
mod verdict;
mod volumes;

pub use data::{DataFix, DataRule, When};
pub use disk::{is_expected_to_open, note_volumes};
pub use rule::{Confidence, Rule, Severity, code_note, explain, rules, rules_page};
pub use verdict::{Diagnosis, Kind, Readings, Verdict};

use scene::Scene;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use vmrescue_base::error::{Defect, Result};
use vmrescue_windows::{Installation, Machine, Unseen, Weight};

/// How a fix may be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applicability {
    /// Has one right answer; `repair` without a name applies it.
    Safe,
    /// Needs a decision.
    Unsafe,
}

/// The script that cures a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// Name of the script.
    pub script: String,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
    /// May it be applied without asking.
    pub applicability: Applicability,
}

impl Fix {
    fn new(script: &str, parameters: &[(&str, String)], applicability: Applicability) -> Option<Fix> {
        let parameters: BTreeMap<String, String> =
            parameters.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
        Some(Fix { script: script.to_string(), parameters, applicability })
    }

    /// The command that applies it.
    pub fn command(&self) -> String {
        let set: Vec<String> =
            self.parameters.iter().map(|(name, value)| format!(" --set {name}={value}")).collect();
        format!("vmrescue repair IMAGE {}{}", self.script, set.concat())
    }
}

/// A reason why the machine does not boot, or soon will not, or cannot be reached.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Name of the rule.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// How sure that is.
    pub confidence: Confidence,
    /// One line.
    pub title: String,
    /// What was seen, and where.
    pub evidence: Vec<String>,
    /// What the user sees on the screen.
    pub screen: String,
    /// What cures it, in words.
    pub remedy: String,
    /// The script that does so, when there is one.
    pub fix: Option<Fix>,
}

impl Finding {
    /// A finding of a documented rule, with what the documentation says of it.
    fn new(rule: &str, evidence: Vec<String>, screen: &str, fix: Option<Fix>) -> Finding {
        // Every name is in the table: a test makes each rule speak.
        let doc = rule::code_docs().find(|doc| doc.rule == rule);
        debug_assert!(doc.is_some(), "the rule {rule} is not documented");
        Finding {
            rule: rule.to_string(),
            severity: doc.map_or(Severity::Warning, |doc| doc.severity),
            confidence: doc.map_or(Confidence::Possible, |doc| doc.confidence),
            title: doc.map_or(rule, |doc| doc.title).to_string(),
            evidence,
            screen: screen.to_string(),
            remedy: doc.map_or("", |doc| doc.remedy).to_string(),
            fix,
        }
    }

    fn titled(mut self, title: String) -> Finding {
        self.title = title;
        self
    }
}

/// All findings for one installation, worst first; what could not be looked at is among them.
///
/// # Errors
/// `Invalid` when a rule that ships cannot be read: a defect of the program.
pub fn diagnose(machine: &Machine, installation: &Installation) -> Result<Vec<Finding>> {
    look_at(machine, installation, &[], &[]).map(|diagnosis| diagnosis.findings)
}

/// Looks at every installation of a disk, or at the disk itself when it has none. `container` is what is wrong with the container,
/// `own` are rules of the user.
///
/// # Errors
/// As [`diagnose`].
pub fn look(machine: &Machine, container: &[Defect], own: &[DataRule]) -> Result<Vec<Diagnosis>> {
    if machine.installations.is_empty() {
        return Ok(vec![look_at_disk(machine, container)]);
    }
    machine.installations.iter().map(|installation| look_at(machine, installation, container, own)).collect()
}

/// Looks at one installation.
///
/// # Errors
/// As [`diagnose`].
pub fn look_at(
    machine: &Machine,
    installation: &Installation,
    container: &[Defect],
    own: &[DataRule],
) -> Result<Diagnosis> {
    let shipped = data::shipped()?;
    let unseen = Unseen::default();
    verdict::note_container(container, &unseen);
    note_volumes(machine, &unseen);
    let kind = disk::kind_of_installation(machine);
    let scene = Scene::new(machine, installation, &unseen);
    // In the order of a start: the first that breaks is what the user sees.
    let mut findings = volumes::findings(machine, &unseen);
    findings.extend(boot::findings(&scene, kind));
    findings.extend(disk::lost(machine, &unseen));
    findings.extend(disk::attributes(machine, installation));
    findings.extend(disk::partition_type(machine, installation));
    findings.extend(hives::findings(&scene));
    findings.extend(chain::findings(&scene));
    findings.extend(filters::findings(&scene));
    findings.extend(letters::findings(&scene));
    findings.extend(binaries::findings(&scene));
    let waiting =
        unseen.seen("pending updates", &installation.path, Weight::Partial, pending::findings(&scene));
    findings.extend(waiting.into_iter().flatten());
    findings.extend(directory_service::findings(&scene));
    findings.extend(space::findings(&scene));
    findings.extend(history::findings(&scene));
    findings.extend(events::findings(&scene));
    let known = shipped.iter().chain(own);
    findings.extend(known.filter_map(|rule| rule.when.holds(&scene).map(|evidence| rule.finding(evidence))));
    findings.sort_by_key(|finding| finding.severity);
    one_fix_each(&mut findings);
    let mut looked_at = disk::looked_at(machine);
    looked_at.extend(scene.looked_at(kind));
    let mut diagnosis = Diagnosis::new(kind, findings, looked_at, &unseen);
    diagnosis.installation = format!("{} {}", installation.path, installation.product).trim_end().to_string();
    let place = machine.installations.iter().position(|other| other.volume == installation.volume);
    diagnosis.windows = place.map(|place| place + 1);
    diagnosis.read = Some(Arc::new(scene.into_readings()));
    Ok(diagnosis)
}

/// Looks at a disk without a readable installation.
pub fn look_at_disk(machine: &Machine, container: &[Defect]) -> Diagnosis {
    let unseen = Unseen::default();
    verdict::note_container(container, &unseen);
    note_volumes(machine, &unseen);
    let findings = disk::findings(machine, &unseen);
    Diagnosis::new(disk::kind_of_disk(machine), findings, disk::looked_at(machine), &unseen)
}

/// An incident and the rule of the thing that it broke name the same fix: it is proposed once, by the first.
fn one_fix_each(findings: &mut [Finding]) {
    let mut seen: Vec<Fix> = Vec::new();
    for finding in findings {
        let Some(fix) = &finding.fix else { continue };
        let same = |known: &Fix| {
            let key = |fix: &Fix| -> Vec<(String, String)> {
                fix.parameters
                    .iter()
                    .map(|(name, value)| {
                        (name.clone(), value.to_ascii_lowercase().trim_end_matches(".sys").to_string())
                    })
                    .collect()
            };
            known.script == fix.script && key(known) == key(fix)
        };
        if seen.iter().any(same) {
            finding.fix = None;
        } else {
            seen.push(fix.clone());
        }
    }
}
