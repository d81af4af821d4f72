//! The program files of the start after the loader: kernel, session manager, logon; and whether they are of one version.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};

/// Processes without which Windows stops, and the kernel; below System32.
const CORE: [&str; 8] = [
    "ntoskrnl.exe",
    "hal.dll",
    "smss.exe",
    "csrss.exe",
    "wininit.exe",
    "winlogon.exe",
    "services.exe",
    "lsass.exe",
];
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
/// So many of the core files must be there before the absence of another says anything.
const MOST: usize = 6;

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "core-file-broken",
        title: "A program file that Windows cannot do without is damaged",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "The kernel and the first processes are ordinary program files. One that is zeroed, cut off or for another processor stops the start, or the machine with 0xEF.",
        seen: "the headers, sections and machine types of these files",
        remedy: "Put the file back from the component store, or from a machine of the same build (--source).",
        source: &["AZ-B09", "AZ-B25", "AZ-B28", "0xC0000221", "0xEF"],
    },
    RuleDoc {
        rule: "core-file-missing",
        title: "A program file that Windows cannot do without is missing",
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        meaning: "As above; the file is not there, while the others are.",
        seen: "the names of these files in System32",
        remedy: "Put the file back from the component store, or from a machine of the same build (--source).",
        source: &["AZ-B25", "AZ-B28", "0xC000021A"],
    },
    RuleDoc {
        rule: "core-version-mixed",
        title: "Files of the start come from different versions of Windows",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "Kernel, loader and the drivers of the disk are of one build. A file of another build, copied in by hand or left by an update that stopped, is refused or crashes.",
        seen: "the build in the version of each of these files, held against that of most of them",
        remedy: "Put the file back to the version of the component store.",
        source: &["AZ-B05", "AZ-B03", "INC-05", "0xC0000098"],
    },
];

/// What is wrong with the program files of the start.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = core(scene);
    found.extend(mixed(scene));
    found
}

fn restore(name: &str) -> Option<Fix> {
    let name = name.rsplit('\\').next().unwrap_or(name).to_string();
    Fix::new("restore-driver", &[("name", name)], Applicability::Unsafe)
}

fn core(scene: &Scene<'_>) -> Vec<Finding> {
    let place = |name: &str| format!(r"${{windows}}\System32\{name}");
    let files: Vec<_> = CORE.iter().map(|name| (*name, scene.file(&place(name)))).collect();
    let there = files.iter().filter(|(_, file)| file.is_some()).count();
    let mut found = Vec::new();
    for (name, file) in files {
        let Some(file) = file else {
            // HAL is part of the kernel on some processors.
            if there >= MOST && name != "hal.dll" {
                let evidence = vec![format!("{} is missing", scene.path(&place(name)))];
                let screen = "0xC000021A, 0xEF or 0xC0000225";
                found.push(
                    Finding::new("core-file-missing", evidence, screen, restore(name))
                        .titled(format!("{name} is missing")),
                );
            }
            continue;
        };
        if let Err(e) = file.pe() {
            let evidence = vec![format!("{}: {}", file.path, e.message())];
            let screen = "0xC0000221, 0xC000021A or 0xEF";
            found.push(
                Finding::new("core-file-broken", evidence, screen, restore(name))
                    .titled(format!("{name} is damaged")),
            );
        }
    }
    found
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
