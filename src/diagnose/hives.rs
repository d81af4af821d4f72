//! The hives that Windows loads first.

use super::Finding;
use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use vmrescue_base::error::{ErrorKind, Severity as Bad};
use vmrescue_windows::{boot_layout, load_store};

/// Most defects that are shown as evidence.
const SHOWN: usize = 8;

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "hive-unreadable",
        title: "A registry hive cannot be read",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The loader reads SYSTEM, the session manager the others: without SYSTEM, SOFTWARE, SAM and SECURITY no Windows starts. A hive whose head or cells are damaged beyond its transaction logs stops the start. DEFAULT is the profile of the logon screen; COMPONENTS and DRIVERS are read when something is installed.",
        seen: "the hives of System32\\config do not parse, are missing, or SYSTEM and SOFTWARE lack the keys that every installation has",
        remedy: "`vmrescue check IMAGE --repair` writes the hive anew from everything that can still be read. RegBack holds copies on old versions of Windows only (restore-regback).",
        source: &["AZ-A03", "AZ-B08", "AZ-B10", "AZ-B23", "0xC0000218"],
    },
    RuleDoc {
        rule: "hive-damaged",
        title: "A hive of the start is damaged inside",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "The hive can be read, and something in it is not as Windows writes it: cells that overlap, lists that lead nowhere, counts that are wrong. The loader checks SYSTEM and the boot store when it reads them; what it refuses ends the start with 0xc000014c, what it passes over is missing later.",
        seen: "the check of the hive SYSTEM and of the boot store, by the same rules as `vmrescue check`",
        remedy: "`vmrescue check IMAGE --repair` writes the hive anew from everything that can still be read; `vmrescue bcd rebuild IMAGE` does so for the boot store.",
        source: &["AZ-B08", "0xC000014C"],
    },
];

/// The hives of the installation that could not be read, and those of the start that are damaged inside.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    // First, while the large hives are not in memory.
    let inside = damaged(scene);
    let problems = scene.installation.problems.iter();
    let mut found: Vec<Finding> = problems
        .map(|problem| Finding::new("hive-unreadable", vec![problem.clone()], screen(problem), None))
        .collect();
    // SYSTEM and SOFTWARE are among the problems of the installation.
    let others = scene.hives().iter().filter(|(name, _)| !matches!(*name, "SYSTEM" | "SOFTWARE"));
    for (name, problem) in others {
        let Some(problem) = problem else { continue };
        let how = if problem.kind() == ErrorKind::NotFound { "is missing" } else { "cannot be read" };
        let severity =
            if matches!(*name, "SAM" | "SECURITY") { Severity::Critical } else { Severity::Warning };
        let screen = match *name {
            "SAM" | "SECURITY" | "DEFAULT" => "STOP c0000218 (Registry File Failure)",
            _ => "none: installations and updates fail",
        };
        let line = format!(r"{}\System32\config\{name}: {problem}", scene.installation.path);
        let one = Finding::new("hive-unreadable", vec![line], screen, None);
        found.push(Finding { severity, ..one.titled(format!("The registry hive {name} {how}")) });
    }
    found.extend(inside);
    found
}

/// Damage inside of the hives that the boot manager and the loader check.
fn damaged(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    // What cannot be read at all is told by other rules.
    if let Ok(hive) = scene.machine.hive(scene.installation, "SYSTEM") {
        let place = format!(r"{}\System32\config\SYSTEM", scene.installation.path);
        found.extend(inside(&place, &hive.check(), "The SYSTEM hive is damaged inside"));
    }
    let layout = boot_layout(scene.machine);
    if let Some(volume) = layout.system.first() {
        let place = layout.store_path(scene.machine, *volume);
        // What cannot be read at all is told by the rules of the store.
        if let Ok(Some((hive, _))) = load_store(scene.machine, &place) {
            found.extend(inside(&place, &hive.check(), "The boot configuration store is damaged inside"));
        }
    }
    found
}

fn inside(place: &str, defects: &[vmrescue_base::Defect], title: &str) -> Option<Finding> {
    let bad: Vec<_> = defects.iter().filter(|defect| defect.severity == Bad::Error).collect();
    let mut evidence: Vec<String> =
        bad.iter().take(SHOWN).map(|defect| format!("{place}: {defect}")).collect();
    if bad.len() > SHOWN {
        evidence.push(format!("and {} more", bad.len() - SHOWN));
    }
    let screen = "0xc000014c, or later something that is missing";
    (!bad.is_empty()).then(|| Finding::new("hive-damaged", evidence, screen, None).titled(title.to_string()))
}

/// What the screen shows: the loader reads SYSTEM, the kernel SOFTWARE.
fn screen(problem: &str) -> &'static str {
    match (problem.starts_with("SYSTEM"), problem.contains("missing")) {
        (true, true) => "0xc000000f, naming \\Windows\\System32\\config\\system",
        (true, false) => "0xc000014c, naming \\Windows\\System32\\config\\system",
        (false, _) => "BAD_SYSTEM_CONFIG_INFO (0x74, 0xC000015C)",
    }
}
