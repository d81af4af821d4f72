//! What an update left for the next start.

use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::Scene;
use super::{Applicability, Finding, Fix};
use vmrescue_base::error::Result;
use vmrescue_fs::path::GuestPath;

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "update-pending",
        title: "An update waits for the next start",
        severity: Severity::Warning,
        confidence: Confidence::Possible,
        meaning: "Servicing has work for the next start. That is as it should be after an update, until the machine starts and stops half-way: then it starts again and again, stays at \"Getting Windows ready\", or says that it undoes changes.",
        seen: "pending.xml in the component store, or the key RebootPending of servicing",
        remedy: "Let the machine start once; when it cannot, set aside what is pending.",
        source: &["AZ-B31", "AZ-B32", "WC-01", "WC-03"],
    },
    RuleDoc {
        rule: "servicing-stack-old",
        title: "An update needs a newer servicing stack",
        severity: Severity::Notice,
        confidence: Confidence::Certain,
        meaning: "The log of servicing ends with 0x800f0823: the update was refused because the servicing stack is too old.",
        seen: "the code 0x800f0823 at the end of CBS.log",
        remedy: "Install the servicing stack update first; for Windows Server 2019 that is KB5005112.",
        source: &["KI-05", "KB5005112"],
    },
    RuleDoc {
        rule: "transaction-log-full",
        title: "The transaction log of the registry is full",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "Servicing writes the registry in transactions, whose logs lie beside the hives. When a log is full, every update fails, or comes back at each start.",
        seen: "the code 0x800719e4 or ERROR_LOG_FULL at the end of CBS.log, and files .blf or .regtrans-ms in config\\TxR",
        remedy: "Delete the logs of transactions; Windows makes new ones.",
        source: &["0x800719E4", "RS-05"],
    },
];

/// What the log of servicing says where a transaction log is full.
const LOG_FULL: [&str; 2] = ["0x800719e4", "error_log_full"];

/// The end of CBS.log that is looked at, in bytes.
const TAIL: usize = 64 << 10;

/// Work that waits, and work that was refused.
pub(super) fn findings(scene: &Scene<'_>) -> Result<Vec<Finding>> {
    let mut found: Vec<Finding> = waiting(scene)?.into_iter().collect();
    if let Some((path, text)) = end_of_log(scene) {
        found.extend(refused(&path, &text));
        found.extend(log_full(scene, &path, &text));
    }
    Ok(found)
}

fn waiting(scene: &Scene<'_>) -> Result<Option<Finding>> {
    let mut evidence = Vec::new();
    let pending = format!(r"{}\WinSxS\pending.xml", scene.installation.path);
    if scene.machine.resolve(&GuestPath::parse(&pending)?)?.1.is_some() {
        evidence.push(format!("{pending} is there"));
    }
    let key = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending";
    scene.keys(key, &mut |path, _| evidence.push(format!("{path} is there")));
    let screen = "a restart loop, or \"Undoing changes\"";
    let fix = Fix::new("revert-pending-updates", &[], Applicability::Unsafe);
    Ok((!evidence.is_empty()).then(|| Finding::new("update-pending", evidence, screen, fix)))
}

/// Path and end of the log of servicing.
fn end_of_log(scene: &Scene<'_>) -> Option<(String, String)> {
    let file = scene.file(r"${windows}\Logs\CBS\CBS.log")?;
    let start = scene.metadata(&file)?.size_bytes.saturating_sub(TAIL as u64);
    let text = String::from_utf8_lossy(&scene.part(&file, start, TAIL)?).into_owned();
    Some((file.path, text))
}

/// The last line of a text that has one of these words, as evidence.
fn last_line(path: &str, text: &str, words: &[&str]) -> Option<String> {
    let has = |line: &&str| {
        let lower = line.to_ascii_lowercase();
        words.iter().any(|word| lower.contains(word))
    };
    let line = text.lines().rev().find(has)?;
    Some(format!("{path}: {}", line.trim().chars().take(300).collect::<String>()))
}

fn refused(path: &str, text: &str) -> Option<Finding> {
    let evidence = vec![last_line(path, text, &["0x800f0823"])?];
    Some(Finding::new("servicing-stack-old", evidence, "none: the update does not install", None))
}

/// A log that is there alone is no evidence: every Windows has some.
fn log_full(scene: &Scene<'_>, path: &str, text: &str) -> Option<Finding> {
    let mut evidence = vec![last_line(path, text, &LOG_FULL)?];
    let folder = r"${windows}\System32\config\TxR";
    let files: Vec<_> =
        ["*.blf", "*.regtrans-ms"].iter().flat_map(|end| scene.files(&format!(r"{folder}\{end}"))).collect();
    let first = files.first()?;
    evidence.push(format!("{} and {} more files of transaction logs are there", first.path, files.len() - 1));
    let fix = Fix::new("clear-txr-logs", &[], Applicability::Unsafe);
    let screen = "\"Undoing changes\", or an update that does not install";
    Some(Finding::new("transaction-log-full", evidence, screen, fix))
}
