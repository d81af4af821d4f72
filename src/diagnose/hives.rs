//! The hives that Windows loads first.

use super::Finding;
use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;

pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "hive-unreadable",
    title: "A registry hive cannot be read",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    meaning: "The loader reads SYSTEM, the session manager the others. A hive whose head or cells are damaged beyond its transaction logs stops the start.",
    seen: "SYSTEM and SOFTWARE do not parse, or lack the keys that every installation has",
    remedy: "`vmrescue check IMAGE --repair` writes the hive anew from everything that can still be read. RegBack holds copies on old versions of Windows only (restore-regback).",
    source: &["AZ-A03", "AZ-B08", "AZ-B10", "AZ-B23", "0xC0000218"],
}];

/// The hives of the installation that could not be read.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let problems = scene.installation.problems.iter();
    problems
        .map(|problem| Finding::new("hive-unreadable", vec![problem.clone()], screen(problem), None))
        .collect()
}

/// What the screen shows: the loader reads SYSTEM, the kernel SOFTWARE.
fn screen(problem: &str) -> &'static str {
    match (problem.starts_with("SYSTEM"), problem.contains("missing")) {
        (true, true) => "0xc000000f, naming \\Windows\\System32\\config\\system",
        (true, false) => "0xc000014c, naming \\Windows\\System32\\config\\system",
        (false, _) => "BAD_SYSTEM_CONFIG_INFO (0x74, 0xC000015C)",
    }
}
