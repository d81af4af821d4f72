//! Whether the program files of the start are of one version. That they are there and whole is a matter of the boot chain.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};

/// Files that every cumulative update replaces together with the kernel, or leaves at the version of the release.
const SAME_BUILD: [&str; 10] = [
    "ntoskrnl.exe",
    "winload.exe",
    "winload.efi",
    r"drivers\ACPI.sys",
    r"drivers\disk.sys",
    r"drivers\partmgr.sys",
    r"drivers\volmgr.sys",
    r"drivers\pci.sys",
    r"drivers\ntfs.sys",
    r"drivers\fltmgr.sys",
];
pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "core-version-mixed",
    title: "Files of the start come from different versions of Windows",
    severity: Severity::Warning,
    confidence: Confidence::Likely,
    meaning: "Kernel, loader and the drivers of the disk are of one build. A file of another build, copied in by hand or left by an update that stopped, is refused or crashes.",
    seen: "the build in the version of each of these files, held against that of most of them",
    remedy: "Put the file back to the version of the component store.",
    source: &["AZ-B05", "AZ-B03", "INC-05", "0xC0000098"],
}];

/// What is wrong with the program files of the start.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    mixed(scene).into_iter().collect()
}

fn restore(name: &str) -> Option<Fix> {
    let name = name.rsplit('\\').next().unwrap_or(name).to_string();
    Fix::new("restore-driver", &[("name", name)], Applicability::Unsafe)
}

/// The third part of a version of Windows 10 or later: its build.
fn build(version: &str) -> Option<u32> {
    let mut parts = version.split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    (major >= 10).then(|| parts.nth(1)?.parse().ok()).flatten()
}

fn mixed(scene: &Scene<'_>) -> Option<Finding> {
    let versions: Vec<(String, String, u32)> = SAME_BUILD
        .iter()
        .filter_map(|name| {
            let file = scene.file(&format!(r"${{windows}}\System32\{name}"))?;
            let version = scene.version(&file)?;
            let build = build(&version)?;
            Some((file.path, version, build))
        })
        .collect();
    let count = |wanted: u32| versions.iter().filter(|(_, _, build)| *build == wanted).count();
    let usual = versions.iter().map(|(_, _, build)| *build).max_by_key(|build| count(*build))?;
    // A majority, or nothing can be said.
    if count(usual) * 2 <= versions.len() || versions.len() < 4 {
        return None;
    }
    let odd: Vec<&(String, String, u32)> = versions.iter().filter(|(_, _, build)| *build != usual).collect();
    let first = odd.first()?;
    let evidence = odd
        .iter()
        .map(|(path, version, _)| format!("{path} has version {version}, the others are of build {usual}"));
    let fix = restore(&first.0);
    Some(Finding::new("core-version-mixed", evidence.collect(), "0xc0000098, or a crash at the start", fix))
}
