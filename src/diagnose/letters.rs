//! The drive letter of Windows: files, services and the logon name it, and it is bound to the partition in MountedDevices.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};

pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "windows-drive-letter",
    title: "Windows has another drive letter than it was installed with",
    severity: Severity::Critical,
    confidence: Confidence::Likely,
    meaning: "MountedDevices binds drive letters to partitions by disk signature and offset, or by GUID. After a copy or a restore Windows can come up as D:, while its registry names C: thousands of times: the logon ends at once, or a blue screen stays without a desktop.",
    seen: "SystemRoot in SOFTWARE, and the letter that MountedDevices gives the partition of Windows",
    remedy: "Give the partition its letter again.",
    source: &["WS-03"],
}];

/// The letter, when it is another one.
pub(super) fn findings(scene: &Scene<'_>) -> Option<Finding> {
    // Letters are those of the first installation.
    let first = scene.machine.installations.first()?;
    if first.volume != scene.installation.volume {
        return None;
    }
    let key = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion";
    let root = scene.value(key, "SystemRoot")?;
    let wanted =
        root.strip_suffix(r":\Windows").or_else(|| root.split_once(':').map(|(letter, _)| letter))?;
    let wanted = wanted.chars().next().filter(char::is_ascii_alphabetic)?.to_ascii_uppercase();
    let volume = &scene.machine.volumes[first.volume];
    let own = volume.letter.filter(|letter| *letter != wanted)?;
    let evidence = vec![
        format!("{key}: SystemRoot = {root}"),
        format!(r"HKLM\SYSTEM\MountedDevices: \DosDevices\{own}: is partition {}", volume.number),
    ];
    let screen = "the logon ends at once, or an empty blue desktop";
    let fix = Fix::new("restore-drive-letter", &[("letter", wanted.to_string())], Applicability::Safe);
    let title = format!("Windows was installed as {wanted}: and has the letter {own}:");
    Some(Finding::new("windows-drive-letter", evidence, screen, fix).titled(title))
}
