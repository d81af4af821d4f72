//! Room on the volume of Windows.

use super::Finding;
use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use vmrescue_windows::Weight;

/// With less than this, Windows cannot finish an update, grow a hive or make its page file.
const LEAST_BYTES: u64 = 300 << 20;
/// Smaller volumes are no volumes of a real Windows.
const SMALLEST_BYTES: u64 = 8 << 30;

pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "volume-full",
    title: "The volume of Windows is full",
    severity: Severity::Warning,
    confidence: Confidence::Likely,
    meaning: "Without free space an update stops with C01A001D, the machine starts into 0xC0000017, and the logs that would explain it cannot be written.",
    seen: "less than 300 MB are free",
    remedy: "Make room: `vmrescue repair IMAGE free-space` deletes what Windows makes anew; or grow the disk with `vmrescue disk resize`.",
    source: &["AZ-B22", "AZ-B34", "AZ-B29", "0xC01A001D"],
}];

/// The volume has hardly any free clusters.
pub(super) fn findings(scene: &Scene<'_>) -> Option<Finding> {
    let volume = scene.machine.volumes.get(scene.installation.volume)?;
    let fs = volume.fs.as_ref()?;
    if fs.info().size_bytes < SMALLEST_BYTES {
        return None;
    }
    let free = scene.unseen.seen("free space", &scene.installation.path, Weight::Partial, fs.free_bytes())?;
    let evidence = vec![format!(
        "{} MiB of {} MiB of the volume of {} are free",
        free >> 20,
        fs.info().size_bytes >> 20,
        scene.installation.path
    )];
    let fix = super::Fix::new("free-space", &[], super::Applicability::Unsafe);
    let screen = "C01A001D while an update is applied, or 0xC0000017";
    (free < LEAST_BYTES).then(|| Finding::new("volume-full", evidence, screen, fix))
}
