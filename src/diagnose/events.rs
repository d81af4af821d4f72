//! What the System log says of the last days of the machine. "Last" is counted from the newest event, not from today.

use super::Finding;
use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use vmrescue_base::text::fits;
use vmrescue_base::time::FileTime;
use vmrescue_windows::events::{BootEvents, BootGroup, Kind};

/// One day, in units of 100 ns.
const DAY: u64 = 24 * 3600 * 10_000_000;
/// So many times in a day are a loop.
const OFTEN: usize = 3;

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "restart-loop",
        title: "The machine restarts again and again",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "In the last day that the System log covers the machine was restarted at least three times without being shut down, and was not shut down cleanly after.",
        seen: "events 41 of Kernel-Power and 6008 of EventLog, and the clean shutdowns after them",
        remedy: "The other findings and the events before each restart say more: vmrescue events IMAGE.",
        source: &["AZ-B36", "AZ-B32"],
    },
    RuleDoc {
        rule: "service-fails-again",
        title: "A service ends again and again",
        severity: Severity::Notice,
        confidence: Confidence::Likely,
        meaning: "In the last day that the System log covers the same service ended unexpectedly at least three times.",
        seen: "events 7031 and 7034 of the Service Control Manager, counted by service",
        remedy: "See what the service is and which update or driver came before its first failure: vmrescue updates IMAGE, vmrescue events IMAGE --id 7031.",
        source: &["KI-01"],
    },
    RuleDoc {
        rule: "file-system-damage-reported",
        title: "Windows reported a damaged file system",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "NTFS wrote in the last week that the System log covers that it found its structures damaged.",
        seen: "event 55 of NTFS, and no repair of chkdsk after it",
        remedy: "Look at the volume with vmrescue check IMAGE; check --repair repairs what has only one correct answer.",
        source: &["AZ-B07", "AZ-B21", "RS-07"],
    },
    RuleDoc {
        rule: "disk-errors-reported",
        title: "Windows reported bad blocks",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "The driver of the disk wrote in the last week that the System log covers that a block cannot be read.",
        seen: "event 7 of disk",
        remedy: "Look at the storage of the host below the image; copy the disk (vmrescue disk convert) before anything is repaired.",
        source: &["AZ-B07"],
    },
];

/// What the log of the installation says.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    told(scene.events())
}

/// What these events say.
fn told(events: &BootEvents) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(newest) = events.groups.iter().map(|group| group.last).max() else { return found };
    let is = |group: &&BootGroup, provider: &str, ids: &[u32]| {
        ids.contains(&group.id) && group.provider.to_lowercase().ends_with(provider)
    };
    let restarts: Vec<&BootGroup> = events
        .groups
        .iter()
        .filter(|group| is(group, "kernel-power", &[41]) || is(group, "eventlog", &[6008]))
        .collect();
    let shutdown =
        events.of(Kind::Shutdown).filter(|group| matches!(group.id, 13 | 6006)).map(|g| g.last).max();
    // One restart writes both events: the larger count is the number of restarts.
    let often = restarts.iter().any(|group| within(group, newest, DAY) >= OFTEN);
    let after = restarts.iter().map(|group| group.last).max();
    if often && after > shutdown {
        found.push(Finding::new("restart-loop", lines(&restarts, newest, DAY), "a restart loop", None));
    }
    let ending = |group: &&BootGroup| is(group, "service control manager", &[7031, 7034]);
    for group in events.groups.iter().filter(ending).filter(|group| within(group, newest, DAY) >= OFTEN) {
        let title = format!("The service {} ends again and again", group.subject);
        let evidence = lines(&[group], newest, DAY);
        found.push(Finding::new("service-fails-again", evidence, "", None).titled(title));
    }
    let repaired =
        events.groups.iter().filter(|group| is(group, "wininit", &[1001]) || is(group, "chkdsk", &[26226]));
    let repaired = repaired.map(|group| group.last).max();
    for (rule, provider, id) in
        [("file-system-damage-reported", "ntfs", 55), ("disk-errors-reported", "disk", 7)]
    {
        let damage: Vec<&BootGroup> = events
            .groups
            .iter()
            .filter(|group| is(group, provider, &[id]) && within(group, newest, 7 * DAY) > 0)
            .filter(|group| Some(group.last) > repaired)
            .collect();
        if !damage.is_empty() {
            found.push(Finding::new(rule, lines(&damage, newest, 7 * DAY), "", None));
        }
    }
    found
}

/// How often in the time before the newest event; at most as many as the group keeps times.
fn within(group: &BootGroup, newest: FileTime, span: u64) -> usize {
    group.times.iter().filter(|time| newest.0.saturating_sub(time.0) <= span).count()
}

fn lines(groups: &[&BootGroup], newest: FileTime, span: u64) -> Vec<String> {
    let short = |time: FileTime| -> String { time.to_string().chars().take(19).collect() };
    let line = |group: &&BootGroup| {
        let text: String = group.text.chars().take(160).collect();
        format!(
            "{} {}: {} times, last {}: {text}",
            group.provider,
            group.id,
            within(group, newest, span),
            short(group.last)
        )
    };
    groups.iter().filter(|group| within(group, newest, span) > 0).map(line).collect()
}

/// Evidence for a condition: events of one of these numbers, at least so often.
pub(super) fn seen(
    ids: &[u32],
    provider: &str,
    subject: &[String],
    least: u64,
    scene: &Scene<'_>,
) -> Option<Vec<String>> {
    let group = scene.events().groups.iter().find(|group| {
        ids.contains(&group.id)
            && fits(provider, &group.provider)
            && (subject.is_empty() || subject.iter().any(|pattern| fits(pattern, &group.subject)))
            && group.count >= least
    })?;
    let last: String = group.last.to_string().chars().take(19).collect();
    Some(vec![format!("{} {}: {} times, last {last}: {}", group.provider, group.id, group.count, group.text)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(provider: &str, id: u32, kind: Kind, hours: &[u64]) -> BootGroup {
        let times: Vec<FileTime> = hours.iter().map(|hour| FileTime(1000 * DAY - hour * DAY / 24)).collect();
        BootGroup {
            kind: Some(kind),
            log: "System".into(),
            provider: provider.into(),
            id,
            level: 1,
            subject: "ClusSvc".into(),
            count: times.len() as u64,
            first: times.iter().min().copied().unwrap_or_default(),
            last: times.iter().max().copied().unwrap_or_default(),
            text: "it happened".into(),
            times,
            events: Vec::new(),
        }
    }

    fn rules(groups: Vec<BootGroup>) -> Vec<String> {
        let events = BootEvents { groups, ..BootEvents::default() };
        told(&events).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn three_in_a_day_are_a_loop_and_two_are_not() {
        let power = |hours: &[u64]| group("Microsoft-Windows-Kernel-Power", 41, Kind::Crash, hours);
        let clean = |hours: &[u64]| group("EventLog", 6006, Kind::Shutdown, hours);
        assert_eq!(rules(vec![power(&[0, 1, 2])]), ["restart-loop"]);
        assert_eq!(rules(vec![power(&[0, 1, 30])]), [""; 0], "one of them was yesterday");
        assert_eq!(rules(vec![power(&[5, 6, 7]), clean(&[0])]), [""; 0], "it was shut down cleanly since");
        assert_eq!(rules(vec![power(&[5, 6, 7]), clean(&[9])]), ["restart-loop"]);
        assert_eq!(rules(vec![]), [""; 0]);
    }

    #[test]
    fn services_and_disks_are_told_from_the_newest_event_on() {
        let service = |hours: &[u64]| group("Service Control Manager", 7031, Kind::Service, hours);
        assert_eq!(rules(vec![service(&[1, 2, 3])]), ["service-fails-again"]);
        assert_eq!(rules(vec![service(&[1, 2])]), [""; 0]);
        let ntfs = |hours: &[u64]| group("Ntfs", 55, Kind::FileSystem, hours);
        assert_eq!(rules(vec![ntfs(&[3])]), ["file-system-damage-reported"]);
        let repair = group("Microsoft-Windows-Wininit", 1001, Kind::FileSystem, &[1]);
        assert_eq!(rules(vec![ntfs(&[3]), repair]), [""; 0], "chkdsk ran since");
        let start = group("EventLog", 6005, Kind::Start, &[0]);
        assert_eq!(rules(vec![ntfs(&[24 * 8]), start]), [""; 0], "long ago");
        assert_eq!(rules(vec![group("disk", 7, Kind::Disk, &[0])]), ["disk-errors-reported"]);
    }
}
