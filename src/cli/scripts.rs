//! `scripts`: which repairs there are, what each does, which documented procedure it stands for.

use super::{CLEAN, say, say_json, written};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_diagnose::explain;
use vmrescue_repair::{Script, coverage, coverage_page, shipped};
use vmrescue_windows::{Asked, did_you_mean};

/// The scripts that ship and those of a folder; one of the folder stands in for a shipped one of its name.
pub(super) fn known(folder: Option<&Path>) -> Result<Vec<Script>> {
    let mut all = shipped()?;
    for own in folder.map(Script::folder).transpose()?.unwrap_or_default() {
        all.retain(|script| !script.name.eq_ignore_ascii_case(&own.name));
        all.push(own);
    }
    Ok(all)
}

/// A script by name, or a file.
pub(super) fn script(all: &[Script], name: &str) -> Result<Script> {
    if let Some(found) = all.iter().find(|script| script.name.eq_ignore_ascii_case(name)) {
        return Ok(found.clone());
    }
    if name.ends_with(".toml") {
        let text =
            std::fs::read_to_string(name).map_err(|e| Error::io("the script cannot be read", name, e))?;
        return Script::parse(&text).map_err(|e| e.in_file(name));
    }
    let near = did_you_mean(name, all.iter().map(|script| script.name.as_str()));
    let unknown = Error::not_found(Layer::Script, format!("unknown script {name:?}"));
    Err(if near.is_empty() {
        unknown.advice("`vmrescue scripts` lists all")
    } else {
        unknown.advice(format!("did you mean {}? `vmrescue scripts` lists all", near.join(", ")))
    })
}

fn say_coverage(all: &[Script], how: Coverage) -> Result<u8> {
    let rows = coverage(all);
    let full = || rows.iter().filter(|row| row.is_full());
    let (done, total) = (full().filter(|row| row.is_covered()).count(), full().count());
    match how {
        Coverage::Markdown => {
            return written(write!(std::io::stdout(), "{}", coverage_page(all))).map(|()| CLEAN);
        }
        Coverage::Json => {
            say_json("coverage", json!({"procedures": rows, "covered": done, "total": total}))?;
            return Ok(CLEAN);
        }
        Coverage::Text => {}
    }
    for row in &rows {
        say(&format!("{:<8} {:<9} {}", row.id, row.class, row.done_by()))?;
    }
    let part = rows.iter().filter(|row| !row.is_full() && row.is_covered()).count();
    let parts = rows.len() - total;
    say(&format!(
        "{done} of {total} documented offline repairs are covered; in part, {part} of {parts} others"
    ))?;
    Ok(CLEAN)
}

/// How the coverage is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    Text,
    Json,
    Markdown,
}

pub(super) fn scripts(
    all: Vec<Script>,
    name: Option<&str>,
    wanted: Option<&str>,
    covered: Option<Coverage>,
    as_json: bool,
) -> Result<u8> {
    if let Some(how) = covered {
        return say_coverage(&all, how);
    }
    let commands: Vec<vmrescue_repair::Coverage> = coverage(&[])
        .into_iter()
        .filter(|row| {
            row.command.is_some() && wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(row.id))
        })
        .collect();
    let mut chosen = match name {
        Some(name) => vec![script(&all, name)?],
        None => all,
    };
    if let Some(question) = wanted {
        let asked = Asked::new(question);
        // Scripts of the rules that the question is about: a code on the screen has causes, and these have cures.
        // A question that no rule knows has none.
        let rules = explain(question, &[]).unwrap_or_default();
        let of_rule = |s: &Script| rules.iter().any(|rule| rule.script.as_deref() == Some(s.name.as_str()));
        // An exact source first: a code or an id must not drown among words.
        let exact = |s: &Script| s.source.iter().any(|source| asked.is(source)) || of_rule(s);
        let any = |s: &Script| asked.is_in(&s.name) || asked.is_in(&s.title) || asked.is_in(&s.documentation);
        let by_source = chosen.iter().any(exact);
        chosen.retain(|script| if by_source { exact(script) } else { any(script) });
        if chosen.is_empty() && commands.is_empty() && !as_json {
            say(&format!(
                "no script is about {question}; `vmrescue diagnose --explain` may know what it means"
            ))?;
            return Ok(super::FINDINGS);
        }
    }
    if as_json {
        let list: Vec<Value> = chosen
            .iter()
            .map(|s| json!({"name": s.name, "title": s.title, "documentation": s.documentation.trim(), "source": s.source, "remains": s.remains,
                "parameters": s.parameters.iter().map(|(name, p)| json!({"name": name, "documentation": p.documentation,
                    "default": p.default})).collect::<Vec<_>>()}))
            .collect();
        say_json("scripts", json!({"scripts": list, "commands": commands}))?;
        return Ok(CLEAN);
    }
    for row in &commands {
        say(&format!("{:<24} {}", row.id, row.title))?;
        say(&format!("  {}", row.done_by()))?;
    }
    for script in &chosen {
        say(&format!("{:<24} {}", script.name, script.title))?;
        if name.is_some() {
            say(&format!("\n{}\n", script.documentation.trim()))?;
            for (name, parameter) in &script.parameters {
                let default =
                    parameter.default.as_ref().map(|d| format!(" (default {d:?})")).unwrap_or_default();
                say(&format!("  --set {name}=   {}{default}", parameter.documentation))?;
            }
            script.source.iter().try_for_each(|source| say(&format!("  source: {source}")))?;
            if !script.remains.is_empty() {
                say(&format!("  then:   {}", script.remains.trim()))?;
            }
        }
    }
    Ok(CLEAN)
}
