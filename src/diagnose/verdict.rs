//! How a look at a machine ends: a verdict, what was looked at, what could not be, and the findings.

use super::Finding;
use super::rule::{Confidence, RuleDoc, Severity};
use serde::Serialize;
use std::sync::Arc;
use vmrescue_base::error::Defect;
use vmrescue_windows::events::BootEvents;
use vmrescue_windows::{Service, Unread, Unseen, Updates, Weight};

pub(super) const DOCS: &[RuleDoc] = &[RuleDoc {
    rule: "could-not-look",
    title: "Something could not be looked at",
    severity: Severity::Critical,
    confidence: Confidence::Possible,
    meaning: "A part of the disk was asked for and could not be read. What it would have said is not known: the other findings, or their absence, say nothing about it. It is critical where the container, the hive SYSTEM, its services or the boot store are concerned; else it is a warning.",
    seen: "each error of reading that a rule met, with its place",
    remedy: "See what `vmrescue check IMAGE` says of the same place, and repair or restore that first; then diagnose again.",
    source: &["0xC000014C"],
}];

/// How a look ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Something was found that keeps the machine from starting.
    WillNotBoot,
    /// It could not be told: something that decides could not be read.
    CouldNotTell,
    /// Something was found, or not looked at, that does not keep it from starting.
    LookAtThis,
    /// Nothing was found, and everything that was asked for was looked at.
    NothingFound,
}

impl Verdict {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::WillNotBoot => "will-not-boot",
            Verdict::CouldNotTell => "could-not-tell",
            Verdict::LookAtThis => "look-at-this",
            Verdict::NothingFound => "nothing-found",
        }
    }
}

/// What a verdict is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An installation that the boot manager of Windows Vista and later starts.
    Windows,
    /// An installation that NTLDR and boot.ini start: Windows Server 2003 and older.
    Ntldr,
    /// An installation on the image of a single volume: what starts it is elsewhere.
    BareVolume,
    /// Boot files with a boot store, and no Windows that could be read.
    SystemDisk,
    /// Volumes, and no Windows on them.
    DataDisk,
    /// Nothing that is known.
    Unknown,
}

impl Kind {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Windows => "Windows",
            Kind::Ntldr => "Windows that NTLDR starts (boot.ini)",
            Kind::BareVolume => "Windows on the image of a single volume",
            Kind::SystemDisk => "a system disk: boot files, and no Windows that could be read",
            Kind::DataDisk => "a data disk: no Windows on it",
            Kind::Unknown => "nothing that is known",
        }
    }
}

/// What a look at one installation, or at a disk without any, came to.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// How it ends.
    pub verdict: Verdict,
    /// What it is about.
    pub kind: Kind,
    /// The installation in words; empty for a disk without one.
    pub installation: String,
    /// Its number, from 1.
    pub windows: Option<usize>,
    /// What was looked at.
    pub looked_at: Vec<String>,
    /// What was asked for and could not be read. The same as a finding: `could-not-look`.
    pub could_not_look: Vec<Unread>,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What was read on the way, for a report; nothing for a disk without an installation.
    #[serde(skip)]
    pub read: Option<Arc<Readings>>,
}

/// What the rules of an installation have read, so that a report has not to read it again.
#[derive(Debug, Default)]
pub struct Readings {
    /// Services and drivers of the next start, with their files.
    pub services: Vec<Service>,
    /// Packages and pending updates.
    pub updates: Updates,
    /// What the event logs say of starts.
    pub events: BootEvents,
}

impl Diagnosis {
    /// Sums up: what could not be read becomes findings, and decides the verdict with the others.
    pub(super) fn new(
        kind: Kind,
        mut findings: Vec<Finding>,
        looked_at: Vec<String>,
        unseen: &Unseen,
    ) -> Diagnosis {
        let could_not_look = unseen.list();
        findings.extend(unread_findings(&could_not_look));
        findings.sort_by_key(|finding| finding.severity);
        let verdict = judge(&findings);
        Diagnosis {
            verdict,
            kind,
            installation: String::new(),
            windows: None,
            looked_at,
            could_not_look,
            findings,
            read: None,
        }
    }

    /// For people: one sentence.
    pub fn sentence(&self) -> String {
        match (self.verdict, self.kind) {
            (Verdict::WillNotBoot, Kind::DataDisk | Kind::Unknown) => "this disk will not boot".into(),
            (Verdict::WillNotBoot, _) => "this machine will not boot".into(),
            (Verdict::CouldNotTell, Kind::Unknown) => {
                "could not tell: nothing on this disk was recognised".into()
            }
            (Verdict::CouldNotTell, _) => {
                let first = self.could_not_look.iter().find(|unread| unread.weight == Weight::Critical);
                let why = first.map_or_else(|| "something could not be read".into(), Unread::to_string);
                format!("could not tell: {why}")
            }
            (Verdict::LookAtThis, _) => "nothing found that keeps it from booting; look at this".into(),
            (Verdict::NothingFound, Kind::DataDisk) => {
                "nothing found on this data disk, and it was looked at".into()
            }
            (Verdict::NothingFound, _) => {
                "nothing found that keeps this machine from booting, and it was looked at".into()
            }
        }
    }
}

fn judge(findings: &[Finding]) -> Verdict {
    let critical = |finding: &&Finding| finding.severity == Severity::Critical;
    let unread = |finding: &&Finding| finding.rule == DOCS[0].rule;
    if findings.iter().any(|finding| critical(&finding) && !unread(&finding)) {
        Verdict::WillNotBoot
    } else if findings.iter().any(|finding| critical(&finding)) {
        Verdict::CouldNotTell
    } else if findings.is_empty() {
        Verdict::NothingFound
    } else {
        Verdict::LookAtThis
    }
}

/// One finding for what decides, one for the rest.
fn unread_findings(list: &[Unread]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (weight, severity) in [(Weight::Critical, Severity::Critical), (Weight::Partial, Severity::Warning)] {
        let own: Vec<&Unread> = list.iter().filter(|unread| unread.weight == weight).collect();
        let Some(first) = own.first() else { continue };
        let title = match own.len() {
            1 => format!("Could not look at {}", first.what),
            count => format!("{count} things could not be looked at"),
        };
        let evidence = own.iter().map(ToString::to_string).collect();
        let mut finding = Finding::new(DOCS[0].rule, evidence, "", None).titled(title);
        finding.severity = severity;
        let mut advice: Vec<&str> = own.iter().filter_map(|unread| unread.advice.as_deref()).collect();
        advice.dedup();
        if !advice.is_empty() {
            finding.remedy = advice.join("; ");
        }
        found.push(finding);
    }
    found
}

/// What is wrong with a container so that blocks of its disk cannot be read.
pub(super) fn note_container(defects: &[Defect], unseen: &Unseen) {
    for defect in defects.iter().filter(|defect| defect.severity == vmrescue_base::Severity::Error) {
        let advice = "get the whole image again, from a copy or a backup; what is left can be copied out: vmrescue get -r, vmrescue disk convert";
        unseen.note(Unread::new("the container", "", defect.to_string(), Weight::Critical).advise(advice));
    }
    // A file that is named as a VHD and has no footer: mostly the end is cut off, and with it the end of the disk.
    for defect in defects.iter().filter(|defect| defect.code == "container-named-otherwise") {
        let advice = "when it was cut off, get the whole file again before anything is repaired; when it is a raw disk under another name, make a container of it: vmrescue disk convert --format vhd-fixed IMAGE NEW.vhd";
        unseen.note(Unread::new("the container", "", defect.to_string(), Weight::Partial).advise(advice));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_never_nothing_found() {
        let unseen = Unseen::default();
        let none = || Diagnosis::new(Kind::Windows, Vec::new(), Vec::new(), &Unseen::default());
        assert_eq!(none().verdict, Verdict::NothingFound);
        unseen.note(Unread::new("an event log", "", "x", Weight::Partial));
        assert_eq!(
            Diagnosis::new(Kind::Windows, Vec::new(), Vec::new(), &unseen).verdict,
            Verdict::LookAtThis
        );
        unseen.note(Unread::new("services", "SYSTEM", "x", Weight::Critical));
        let found = Diagnosis::new(Kind::Windows, Vec::new(), Vec::new(), &unseen);
        assert_eq!((found.verdict, found.findings.len()), (Verdict::CouldNotTell, 2));
        assert!(found.sentence().contains("services"), "{}", found.sentence());
        let other = Finding::new("boot-store-missing", Vec::new(), "", None);
        let found = Diagnosis::new(Kind::Windows, vec![other], Vec::new(), &unseen);
        assert_eq!(found.verdict, Verdict::WillNotBoot);
    }
}
