//! A domain controller whose database is not where it should be.

use super::Finding;
use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use vmrescue_base::error::ErrorKind;
use vmrescue_fs::path::{GuestPath, VolumeName};
use vmrescue_windows::{Unread, Weight};

/// Values of `Services\NTDS\Parameters` that name files and folders.
const PLACES: [&str; 3] = ["DSA Database file", "DSA Working Directory", "Database log files path"];

pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "directory-database-missing",
    title: "The database of the directory service is not there",
    severity: Severity::Critical,
    confidence: Confidence::Possible,
    meaning: "A domain controller stops when its database or its logs are not where the registry says: the drive has another letter, is off line, or is not attached.",
    seen: "the paths of Services\\NTDS\\Parameters, held against the volumes and their files",
    remedy: "Attach the disk, or give the drive its letter; when its disk is off line, set SanPolicy of partmgr to 1 and start in directory services repair mode (script safe-mode, mode=dsrepair).",
    source: &["AZ-B29", "WC-03", "0xC00002E1", "0xC00002E2"],
}];

/// Places that are not there.
pub(super) fn findings(scene: &Scene<'_>) -> Option<Finding> {
    let key = r"HKLM\SYSTEM\CurrentControlSet\Services\NTDS\Parameters";
    let mut evidence = Vec::new();
    for name in PLACES {
        let Some(place) = scene.value(key, name) else { continue };
        // What is no path of a drive is no place of a database.
        let Ok(path) = GuestPath::parse(&place) else { continue };
        if !matches!(path.volume, VolumeName::Letter(_)) {
            continue;
        }
        match scene.machine.resolve(&path) {
            Ok((_, Some(_))) => {}
            Ok((_, None)) => evidence.push(format!("{key}: {name} = {place}, which is missing")),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                evidence.push(format!("{key}: {name} = {place}: this disk has no volume with that letter"));
            }
            Err(e) => {
                scene.unseen.note(Unread::of(
                    "the database of the directory service",
                    place,
                    Weight::Partial,
                    &e,
                ));
            }
        }
    }
    if evidence.is_empty() {
        return None;
    }
    let policy = r"HKLM\SYSTEM\CurrentControlSet\Services\partmgr\Parameters";
    if let Some(value) = scene.value(policy, "SanPolicy") {
        evidence.push(format!("{policy}: SanPolicy = {value}"));
    }
    Some(Finding::new("directory-database-missing", evidence, "0xC00002E1 or 0xC00002E2", None))
}
