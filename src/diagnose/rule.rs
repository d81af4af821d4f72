//! What is known of a rule, whether code or data finds it: what `diagnose --explain` prints.

use super::data::DataRule;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use vmrescue_base::error::{Error, Layer, Result};

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
        super::volumes::DOCS,
        super::boot::DOCS,
        super::hives::DOCS,
        super::drivers::DOCS,
        super::filters::DOCS,
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

/// The rule of a name.
///
/// # Errors
/// `NotFound` with the names that there are.
pub fn explain(name: &str, own: &[DataRule]) -> Result<Rule> {
    let all = rules(own)?;
    let names: Vec<String> = all.iter().map(|rule| rule.rule.clone()).collect();
    let wanted = |rule: &Rule| {
        rule.rule.eq_ignore_ascii_case(name)
            || rule.source.iter().any(|source| source.eq_ignore_ascii_case(name))
    };
    all.into_iter()
        .find(wanted)
        .ok_or_else(|| Error::not_found(Layer::Windows, format!("no rule {name}")).expected(names.join(", ")))
}

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
