//! `diagnose`: why the machine does not boot, worst first, each with its fix; and what the rules know.

use super::identity::{say_of, tell};
use super::next::Words;
use super::{CLEAN, ERROR, FINDINGS, Image, look, no_image, say, written};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use vmrescue_base::error::{Defect, ErrorKind, Result};
use vmrescue_diagnose::{
    Applicability, DataRule, Diagnosis, Finding, Verdict, code_note, explain, look_at, rules, rules_page,
};
use vmrescue_windows::Machine;

/// `vmrescue diagnose ...`
#[derive(Debug, Args)]
pub(super) struct DiagnoseArgs {
    #[command(flatten)]
    image: Option<Image>,
    /// Rules and incidents of your own: a TOML file or a folder of them; may be repeated
    #[arg(long = "rules", value_name = "FILE|DIR")]
    own: Vec<PathBuf>,
    /// What a rule means, how it is seen, what cures it; by name, or by what the screen says: a code, its name, a sentence, a KB
    #[arg(long, value_name = "RULE", exclusive = true)]
    explain: Option<String>,
    /// All rules
    #[arg(long, exclusive = true)]
    list: bool,
    /// All rules with their documentation, as a page of Markdown
    #[arg(long, exclusive = true)]
    list_markdown: bool,
    #[command(flatten)]
    page: super::inspect::PageArgs,
}

pub(super) fn diagnose(arguments: &DiagnoseArgs) -> Result<u8> {
    if arguments.list_markdown {
        return written(write!(std::io::stdout(), "{}", rules_page()?)).map(|()| CLEAN);
    }
    if let Some(name) = &arguments.explain {
        return explained(name);
    }
    if arguments.list {
        for rule in rules(&[])? {
            say(&format!("{:<34} {:<8} {}", rule.rule, rule.severity.name(), rule.title))?;
        }
        return Ok(CLEAN);
    }
    let image = arguments.image.as_ref().ok_or_else(no_image)?;
    tell(image)?;
    let own: Vec<Vec<DataRule>> =
        arguments.own.iter().map(|path| DataRule::load(path)).collect::<Result<_>>()?;
    let (container, machine, _) = look::open(image)?;
    let defects = look::container_defects(image, &container);
    let all = looked(image, &machine, &defects, &own.concat())?;
    if let Some(file) = &arguments.page.html {
        super::inspect::report(image, &container, &machine, (file, arguments.page.output), all.clone())?;
    }
    let verdict = worst(&all);
    if image.json {
        say_of(image, "diagnose", document(&all))?;
    } else {
        for one in &all {
            say_diagnosis(image, one, all.len() > 1)?;
        }
        say_next(image, &all)?;
    }
    Ok(code(verdict))
}

/// The rule of a name, or those that a question is about.
fn explained(question: &str) -> Result<u8> {
    let note = code_note(question);
    let found = match explain(question, &[]) {
        // A code that no rule looks for has a meaning all the same.
        Err(e) if e.kind() == ErrorKind::NotFound && note.is_some() => Vec::new(),
        found => found?,
    };
    if let Some(note) = &note {
        say(note)?;
    }
    if found.is_empty() {
        return say("no rule looks for it by itself; `vmrescue diagnose IMAGE` runs all of them")
            .map(|()| CLEAN);
    }
    if let [only] = found.as_slice() {
        return written(write!(std::io::stdout(), "{}", only.text())).map(|()| CLEAN);
    }
    say(&format!(
        "{} rules are about {question}; `vmrescue diagnose --explain RULE` tells of one",
        found.len()
    ))?;
    found
        .iter()
        .try_for_each(|rule| say(&format!("{:<34} {:<8} {}", rule.rule, rule.severity.name(), rule.title)))?;
    Ok(CLEAN)
}

/// One diagnosis for each installation, or for the one that was chosen, or for a disk without any.
///
/// # Errors
/// `Refused` when the only Windows is locked; as [`vmrescue_diagnose::look`].
pub(super) fn looked(
    image: &Image,
    machine: &Machine,
    container: &[Defect],
    own: &[DataRule],
) -> Result<Vec<Diagnosis>> {
    if image.windows.is_none() {
        if machine.installations.is_empty() && machine.volumes.iter().any(|volume| volume.is_locked()) {
            // Says what would open it.
            return machine.installation(None).map(|_| Vec::new());
        }
        return vmrescue_diagnose::look(machine, container, own);
    }
    Ok(vec![look_at(machine, machine.installation(image.windows)?, container, own)?])
}

/// The worst verdict counts for the disk.
fn worst(all: &[Diagnosis]) -> Verdict {
    let order = [Verdict::WillNotBoot, Verdict::CouldNotTell, Verdict::LookAtThis];
    let is = |verdict: &Verdict| all.iter().any(|one| one.verdict == *verdict);
    order.into_iter().find(is).unwrap_or(Verdict::NothingFound)
}

fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::WillNotBoot | Verdict::LookAtThis => FINDINGS,
        Verdict::CouldNotTell => ERROR,
        Verdict::NothingFound => CLEAN,
    }
}

/// All diagnoses as one document; findings stand together, too, each with its installation when there are several.
fn document(all: &[Diagnosis]) -> Value {
    let mut findings = Vec::new();
    for one in all {
        for finding in &one.findings {
            let mut value = json!(finding);
            if all.len() > 1 {
                value["windows"] = json!(one.windows);
            }
            findings.push(value);
        }
    }
    let unread: Vec<Value> = all.iter().flat_map(|one| one.could_not_look.iter().map(|u| json!(u))).collect();
    let subjects: Vec<Value> = all
        .iter()
        .map(|one| {
            json!({"kind": one.kind, "windows": one.windows, "installation": one.installation, "verdict": one.verdict,
                "sentence": one.sentence(), "looked_at": one.looked_at})
        })
        .collect();
    json!({"verdict": worst(all).name(), "findings": findings, "could_not_look": unread, "subjects": subjects})
}

/// A diagnosis for people: findings, what was looked at, how it ends.
fn say_diagnosis(image: &Image, one: &Diagnosis, several: bool) -> Result<()> {
    let words = Words::of(image, one.windows.filter(|_| several));
    if several {
        say(&format!("{}: {}", one.windows.unwrap_or(0), one.installation))?;
    }
    say_findings_with(&one.findings, &words)?;
    say(&format!("Subject    {}", one.kind.words()))?;
    one.looked_at.iter().try_for_each(|line| say(&format!("Checked    {line}")))?;
    say(&format!("Verdict    {}", one.sentence()))
}

/// The next command, ready to be run.
fn say_next(image: &Image, all: &[Diagnosis]) -> Result<()> {
    for one in all {
        let words = Words::of(image, one.windows.filter(|_| all.len() > 1));
        let fixes = || one.findings.iter().filter_map(|finding| finding.fix.as_ref());
        if fixes().any(|fix| fix.applicability == Applicability::Safe) {
            say(&format!("Next step  {}", words.command("repair", &[])))?;
        } else if let Some(fix) = fixes().next() {
            say(&format!("Next step  {}", words.fix(fix)))?;
        } else if !one.could_not_look.is_empty() {
            say(&format!("Next step  {}", words.command("check", &[])))?;
        } else if !one.findings.is_empty() {
            say(&format!("Next step  {}", words.command("inspect", &[])))?;
        }
    }
    Ok(())
}

/// Findings for people: what, why, what the screen says, what cures it.
pub(super) fn say_findings(findings: &[Finding]) -> Result<()> {
    say_findings_with(findings, &Words::example())
}

/// The same, with commands for this image.
pub(super) fn say_findings_with(findings: &[Finding], words: &Words) -> Result<()> {
    for finding in findings {
        say(&format!("{}: {}  [{}]", finding.severity, finding.title, finding.rule))?;
        for evidence in &finding.evidence {
            say(&format!("    Evidence    {evidence}"))?;
        }
        if !finding.screen.is_empty() {
            say(&format!("    Boot error  {}", finding.screen))?;
        }
        say(&format!("    Confidence  {}", finding.confidence.name()))?;
        let remedy = words.filled(&finding.remedy);
        say(&format!("    Remedy      {}", remedy.replace('\n', "\n                ")))?;
        if let Some(fix) = &finding.fix {
            say(&format!("    Command to fix  {}", words.fix(fix)))?;
        }
    }
    Ok(())
}
