//! `diagnose`: why the machine does not boot, worst first, each with its fix; and what the rules know.

use super::identity::{say_of, tell};
use super::{CLEAN, FINDINGS, Image, look, no_image, say, written};
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use vmrescue_base::error::{ErrorKind, Result};
use vmrescue_diagnose::{DataRule, Finding, diagnose_disk, diagnose_with, explain, rules, rules_page};

/// `vmrescue diagnose ...`
#[derive(Debug, Args)]
pub(super) struct DiagnoseArgs {
    #[command(flatten)]
    image: Option<Image>,
    /// Rules and incidents of your own: a TOML file or a folder of them; may be repeated
    #[arg(long = "rules", value_name = "FILE|DIR")]
    own: Vec<PathBuf>,
    /// What a rule means, how it is seen, what cures it; by name, KB, code or procedure id
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
        return written(write!(std::io::stdout(), "{}", explain(name, &[])?.text())).map(|()| CLEAN);
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
    if let Some(file) = &arguments.page.html {
        super::inspect::report(image, &container, &machine, file, &own.concat())?;
    }
    let findings = match machine.installation(image.windows) {
        Ok(installation) => diagnose_with(&machine, installation, &own.concat())?,
        // A disk without Windows may say why by itself.
        Err(e) if e.kind() == ErrorKind::NotFound && !diagnose_disk(&machine).is_empty() => {
            diagnose_disk(&machine)
        }
        Err(e) => return Err(e),
    };
    if image.json {
        say_of(image, "diagnose", json!({"findings": findings}))?;
    } else if findings.is_empty() {
        say("nothing found that keeps this machine from booting")?;
    } else {
        say_findings(&findings)?;
    }
    Ok(if findings.is_empty() { CLEAN } else { FINDINGS })
}

/// Findings for people: what, why, what the screen says, what cures it.
pub(super) fn say_findings(findings: &[Finding]) -> Result<()> {
    for finding in findings {
        say(&format!("{}: {}  [{}]", finding.severity, finding.title, finding.rule))?;
        for evidence in &finding.evidence {
            say(&format!("    seen    {evidence}"))?;
        }
        if !finding.screen.is_empty() {
            say(&format!("    screen  {}", finding.screen))?;
        }
        say(&format!("    sure    {}", finding.confidence.name()))?;
        say(&format!("    cure    {}", finding.remedy.replace('\n', "\n            ")))?;
        if let Some(fix) = &finding.fix {
            say(&format!("    fix     {}", fix.command()))?;
        }
    }
    Ok(())
}
