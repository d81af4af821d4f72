//! What is known of a rule, whether code or data finds it: what `diagnose --explain` prints.

use super::data::DataRule;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_windows::{Asked, did_you_mean};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Keeps the machine from starting.
    Critical,
    /// May keep it from starting, or has taken it down.
    Warning,
    /// It starts, and cannot be reached or used as it should.
    Notice,
}

impl Severity {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How sure a rule can be from the disk alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// What is seen is the cause.
    Certain,
    /// What is seen fits the cause and little else.
    Likely,
    /// What is seen fits the cause, and other causes too.
    Possible,
}

impl Confidence {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Possible => "possible",
        }
    }
}

/// Documentation of a rule that is written in code.
#[derive(Debug, Clone, Copy)]
pub(super) struct RuleDoc {
    pub(super) rule: &'static str,
    pub(super) title: &'static str,
    pub(super) severity: Severity,
    pub(super) confidence: Confidence,
    /// What it means.
    pub(super) meaning: &'static str,
    /// How it is seen.
    pub(super) seen: &'static str,
    /// What cures it.
    pub(super) remedy: &'static str,
    pub(super) source: &'static [&'static str],
}

/// A rule as users read it.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    /// Its name.
    pub rule: String,
    /// One line.
    pub title: String,
    /// How bad what it finds is at most.
    pub severity: Severity,
    /// How sure it can be.
    pub confidence: Confidence,
    /// What it means.
    pub meaning: String,
    /// How it is seen.
    pub seen: String,
    /// What cures it.
    pub remedy: String,
    /// The script that does so, when there is one.
    pub script: Option<String>,
    /// Articles, codes and ids of procedures.
    pub source: Vec<String>,
    /// For an incident: when it was, and what fixed it.
    pub incident: Option<String>,
}

impl From<&RuleDoc> for Rule {
    fn from(doc: &RuleDoc) -> Rule {
        Rule {
            rule: doc.rule.into(),
            title: doc.title.into(),
            severity: doc.severity,
            confidence: doc.confidence,
            meaning: doc.meaning.into(),
            seen: doc.seen.into(),
            remedy: doc.remedy.into(),
            script: None,
            source: doc.source.iter().map(ToString::to_string).collect(),
            incident: None,
        }
    }
}

/// All rules in code, in the order of a start.
pub(super) fn code_docs() -> impl Iterator<Item = &'static RuleDoc> {
    [
        super::verdict::DOCS,
        super::disk::DOCS,
        super::volumes::DOCS,
        super::boot::DOCS,
        super::system_partition::DOCS,
        super::hives::DOCS,
        super::chain::DOCS,
        super::filters::DOCS,
        super::letters::DOCS,
        super::binaries::DOCS,
        super::pending::DOCS,
        super::directory_service::DOCS,
        super::space::DOCS,
        super::history::DOCS,
        super::events::DOCS,
    ]
    .into_iter()
    .flatten()
}

/// All rules: those in code, then those that are data, then those of `own`.
///
/// # Errors
/// `Invalid` when a rule that ships cannot be read: a defect of the program.
pub fn rules(own: &[DataRule]) -> Result<Vec<Rule>> {
    let shipped = super::data::shipped()?;
    Ok(code_docs().map(Rule::from).chain(shipped.iter().chain(own).map(Rule::from)).collect())
}

/// The rules that a question is about: that of a name; else those that give a code, an article or the id of a procedure as their
/// source; else those whose words speak of it.
///
/// # Errors
/// `NotFound` with the names that are near.
pub fn explain(question: &str, own: &[DataRule]) -> Result<Vec<Rule>> {
    let all = rules(own)?;
    let asked = Asked::new(question);
    let chosen = |wanted: &dyn Fn(&Rule) -> bool| -> Vec<Rule> {
        all.iter().filter(|rule| wanted(rule)).cloned().collect()
    };
    let by_name = chosen(&|rule| rule.rule.eq_ignore_ascii_case(question.trim()));
    if !by_name.is_empty() {
        return Ok(by_name);
    }
    let by_source = chosen(&|rule| rule.source.iter().any(|source| asked.is(source)));
    let by_words = |rule: &Rule| {
        // A single plain word says too little.
        let says_something = asked.code.is_some() || asked.article.is_some() || asked.text.contains(' ');
        says_something
            && [&rule.title, &rule.meaning, &rule.seen, &rule.remedy]
                .into_iter()
                .any(|text| asked.is_in(text))
    };
    let phrased: Vec<&str> = PHRASES
        .iter()
        .filter(|(words, _)| asked.is_in(words))
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let by_phrase = chosen(&|rule| phrased.contains(&rule.rule.as_str()));
    let of_code = super::codes::rules_of(&asked);
    let by_code = chosen(&|rule| of_code.contains(&rule.rule.as_str()));
    for found in [by_source, by_code, by_phrase, chosen(&by_words)] {
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let names = all.iter().map(|rule| rule.rule.as_str());
    let near = did_you_mean(question, names);
    let unknown = Error::not_found(Layer::Windows, format!("no rule knows {question:?}"));
    Err(if near.is_empty() {
        unknown.advice("`vmrescue diagnose --list` lists all rules")
    } else {
        unknown
            .advice(format!("did you mean {}? `vmrescue diagnose --list` lists all rules", near.join(", ")))
    })
}

/// What is known of the code in a question, for people; `None` without one that has a name.
pub fn code_note(question: &str) -> Option<String> {
    super::codes::note(&Asked::new(question))
}

/// What screens say, and the rules of its causes.
const PHRASES: &[(&str, &[&str])] = &[
    ("BOOTMGR is missing. Press Ctrl+Alt+Del to restart", &["boot-files-missing", "no-active-partition"]),
    ("NTLDR is missing", &["boot-files-missing"]),
    ("Missing operating system", &["boot-sector-damaged", "no-active-partition"]),
    (
        "No bootable device",
        &["system-partition-missing", "system-partition-type", "no-active-partition", "gpt-copy-damaged"],
    ),
    (
        "An operating system wasn't found",
        &["system-partition-missing", "no-active-partition", "boot-files-missing"],
    ),
    (
        "Operating system not found",
        &["system-partition-missing", "no-active-partition", "boot-files-missing"],
    ),
    (
        "The boot configuration data for your PC is missing or contains errors",
        &["boot-store-missing", "boot-store-unreadable", "boot-store-incomplete"],
    ),
    ("A required device isn't connected or can't be accessed", &["boot-store-dangling-device"]),
    (
        "The application or operating system couldn't be loaded because a required file is missing or contains errors",
        &["loader-missing", "boot-driver-broken", "hive-unreadable"],
    ),
    (
        "The operating system couldn't be loaded because the system registry file is missing or contains errors",
        &["hive-unreadable"],
    ),
    ("Scanning and repairing drive", &["volume-dirty"]),
    (
        "Preparing Automatic Repair. Diagnosing your PC",
        &["startup-repair-gave-up", "boot-driver-broken", "core-file-missing", "hive-unreadable"],
    ),
    ("Undoing changes made to your computer", &["update-pending"]),
    ("We couldn't complete the updates", &["update-pending"]),
    ("Automatic Repair couldn't repair your PC", &["startup-repair-gave-up"]),
    ("The computer restarted unexpectedly or encountered an unexpected error", &["setup-unfinished"]),
    ("Enter the recovery key for this drive", &["volume-locked"]),
];

impl Rule {
    /// Everything about it, for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}: {}\n{}, {}\n\n{}\n\nHow it is seen\n  {}\n\nWhat cures it\n  {}\n",
            self.rule,
            self.title,
            self.severity.name(),
            self.confidence.name(),
            self.meaning.trim(),
            self.seen.trim(),
            self.remedy.trim()
        );
        // Writing to a string cannot fail.
        if let Some(script) = &self.script {
            let _infallible = writeln!(text, "  vmrescue repair IMAGE {script}");
        }
        if let Some(incident) = &self.incident {
            let _infallible = write!(text, "\nIncident\n  {incident}\n");
        }
        if !self.source.is_empty() {
            let _infallible = write!(text, "\nSource\n  {}\n", self.source.join("\n  "));
        }
        text
    }
}

/// All rules as a page of Markdown (`docs/rules.md`).
///
/// # Errors
/// As [`rules`].
pub fn rules_page() -> Result<String> {
    let all = rules(&[])?;
    let mut page = format!(
        "# What `diagnose` knows\n\nWritten by `vmrescue diagnose --list-markdown`. {} rules; `vmrescue diagnose --explain RULE` prints one. Rules and incidents of your own: \
         `diagnose --rules FILE|FOLDER`, in the form of `src/diagnose/rules/*.toml`.\n\n| rule | severity | sure | what |\n|---|---|---|---|\n",
        all.len()
    );
    for rule in &all {
        let (severity, confidence) = (rule.severity.name(), rule.confidence.name());
        let _infallible =
            writeln!(page, "| [{0}](#{0}) | {severity} | {confidence} | {1} |", rule.rule, rule.title);
    }
    for rule in &all {
        let _infallible = write!(
            page,
            "\n## {}\n\n{}. {}\n\n* seen: {}\n* cure: {}\n",
            rule.rule,
            rule.title,
            rule.meaning.trim(),
            rule.seen.trim(),
            rule.remedy.trim()
        );
        if let Some(script) = &rule.script {
            let _infallible = writeln!(page, "* script: `{script}`");
        }
        if let Some(incident) = &rule.incident {
            let _infallible = writeln!(page, "* incident: {incident}");
        }
        if !rule.source.is_empty() {
            let _infallible = writeln!(page, "* source: {}", rule.source.join(", "));
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(question: &str) -> Vec<String> {
        explain(question, &[]).unwrap().into_iter().map(|rule| rule.rule).collect()
    }

    #[test]
    fn what_people_paste_is_understood() {
        let disk = names("0x7B");
        assert!(disk.len() > 1, "{disk:?}");
        for same in ["0x0000007B", "7B", "INACCESSIBLE_BOOT_DEVICE", "stop: 0x0000007b"] {
            assert_eq!(names(same), disk, "{same}");
        }
        assert!(names("BOOTMGR is missing").contains(&"boot-files-missing".to_string()));
        assert_eq!(names("KB5062557"), names("5062557"));
        assert!(!names("c0000098").is_empty());
        let e = explain("boot-file-missing", &[]).unwrap_err();
        assert!(e.advice_text().unwrap().contains("boot-files-missing"), "{e}");
        let known: Vec<String> = rules(&[]).unwrap().into_iter().map(|rule| rule.rule).collect();
        for name in PHRASES.iter().flat_map(|(_, names)| names.iter()) {
            assert!(known.iter().any(|rule| rule == name), "{name} is no rule");
        }
    }
}
