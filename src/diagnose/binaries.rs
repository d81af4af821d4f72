//! Whether the program files of the start are of one version. That they are there and whole is a matter of the boot chain.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};
use std::collections::BTreeMap;
use vmrescue_base::error::Result;
use vmrescue_windows::{Store, Weight};

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
    remedy: "Put the file back to the version of the component store: vmrescue repair IMAGE restore-driver --set name=FILE --set version=VERSION, with --source where the store has none of that build.",
    source: &["AZ-B05", "AZ-B03", "INC-05", "0xC0000098"],
}];

/// What is wrong with the program files of the start: one finding for each file of another build.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let Some((odd, usual)) = mixed(scene) else { return Vec::new() };
    let names: Vec<String> = odd.iter().map(|(path, ..)| file_name(path)).collect();
    let place = format!(r"{}\WinSxS", scene.installation.path);
    let copies = copies(scene, &names, usual);
    // Without a store that can be read there is nothing to put back.
    let copies = scene.unseen.seen("the component store", place, Weight::Partial, copies).unwrap_or_default();
    odd.into_iter()
        .map(|(path, version, _)| {
            let name = file_name(&path);
            let line = format!("{path} has version {version}, the others are of build {usual}");
            // A whole file is replaced only by a version that is asked for.
            let fix = copies.get(&name).and_then(|wanted| {
                let parameters = [("name", name.clone()), ("version", wanted.clone())];
                Fix::new("restore-driver", &parameters, Applicability::Unsafe)
            });
            let screen = "0xc0000098, or a crash at the start";
            let title =
                format!("{name} comes from another version of Windows than the other files of the start");
            Finding::new("core-version-mixed", vec![line], screen, fix).titled(title)
        })
        .collect()
}

fn file_name(path: &str) -> String {
    path.rsplit('\\').next().unwrap_or(path).to_string()
}

/// Versions of this build that the component store can give, by file name.
fn copies(scene: &Scene<'_>, names: &[String], usual: u32) -> Result<BTreeMap<String, String>> {
    let mut store = Store::open(scene.machine, scene.installation)?;
    store.look_for(names)?;
    let mut found = BTreeMap::new();
    for name in names {
        for copy in store.files_named(name)? {
            let version = copy.pe.as_ref().and_then(|pe| pe.file_version.clone());
            if let Some(version) = version.filter(|version| build(version) == Some(usual))
                && copy.is_restorable_on(&scene.installation.architecture)
            {
                found.entry(name.clone()).or_insert(version);
            }
        }
    }
    store.unread().into_iter().for_each(|unread| scene.unseen.note(unread));
    Ok(found)
}

/// The third part of a version of Windows 10 or later: its build.
fn build(version: &str) -> Option<u32> {
    let mut parts = version.split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    (major >= 10).then(|| parts.nth(1)?.parse().ok()).flatten()
}

/// A file, its version, and the build of that.
type Versioned = (String, String, u32);

/// Files of another build than most of them, and that build.
fn mixed(scene: &Scene<'_>) -> Option<(Vec<Versioned>, u32)> {
    let versions: Vec<Versioned> = SAME_BUILD
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
    let odd: Vec<Versioned> = versions.into_iter().filter(|(_, _, build)| *build != usual).collect();
    (!odd.is_empty()).then_some((odd, usual))
}
