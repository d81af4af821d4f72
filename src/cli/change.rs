//! Commands that change the image: planned, shown, asked for, staged, verified, published.

use super::progress::Bars;
use super::{CLEAN, Changing, FINDINGS, Image, agreed, assignments, look, say, say_error, say_json, scripts};
use clap::Args;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_crypt::Keys;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{NodeKind, read_file};
use vmrescue_registry::Hive;
use vmrescue_repair::{
    Change, Content, Context, Options, Outcome, Script, Source, Target, plan_with, run_changes, run_on_hive,
    with_unfinished,
};
use vmrescue_windows::Machine;

pub(super) fn options(image: &Image, changing: &Changing) -> Result<Options> {
    let target = Target::parse(&changing.target).ok_or_else(|| {
        Error::invalid(Layer::Cli, "--to wants in-place, child:FILE or new:FILE").found(&changing.target)
    })?;
    Ok(Options {
        target,
        dry_run: changing.dry_run,
        windows: image.windows,
        state_dir: changing.state_dir.clone(),
        command: super::worker::command_words(),
        parents: image.parent.clone(),
        keys: image.keys()?,
        gate: super::worker::gate()?,
    })
}

/// Plans, shows, asks, and runs changes.
pub(super) fn changes(
    image: &Image,
    title: &str,
    changing: &Changing,
    planned: impl FnOnce(&Machine) -> Result<Vec<Change>>,
) -> Result<u8> {
    let mut no = false;
    let asked = |machine: &Machine| {
        let list = with_unfinished(machine, planned(machine)?, changing.discard())?;
        if !image.json {
            show_plan(title, &list)?;
        }
        if !list.is_empty() && !changing.dry_run && !agreed(changing.yes, "Apply this?")? {
            no = true;
            return Ok(Vec::new());
        }
        Ok(list)
    };
    let outcome = run_changes(&image.image, title, asked, &options(image, changing)?, &Bars::new())?;
    tell(image, title, changing, &outcome, no)
}

/// As [`changes`], for a hive file of its own. `planned` gives its list to the function that shows it and asks.
pub(super) fn on_hive(
    image: &Image,
    title: &str,
    changing: &Changing,
    planned: impl FnOnce(&Hive) -> Result<Vec<Change>>,
) -> Result<u8> {
    let mut no = false;
    let asked = |hive: &Hive| {
        let list = planned(hive)?;
        if !image.json {
            show_plan(title, &list)?;
        }
        if !list.is_empty() && !changing.dry_run && !agreed(changing.yes, "Apply this?")? {
            no = true;
            return Ok(Vec::new());
        }
        Ok(list)
    };
    let outcome = run_on_hive(&image.image, title, asked, &options(image, changing)?, &Bars::new())?;
    tell(image, title, changing, &outcome, no)
}

fn show_plan(title: &str, list: &[Change]) -> Result<()> {
    say(title)?;
    if list.is_empty() {
        return say("  nothing to do: everything is as it should be");
    }
    list.iter().try_for_each(|change| say(&format!("  - {change}")))
}

fn change_json(title: &str, changing: &Changing, outcome: &Outcome) -> Value {
    let plan: Vec<String> = outcome.changes.iter().map(ToString::to_string).collect();
    json!({
        "title": title, "dry_run": changing.dry_run, "plan": plan, "changes": outcome.changes,
        "verified": outcome.verdict, "operation": outcome.operation, "bytes_changed": outcome.bytes_changed,
    })
}

fn tell(image: &Image, title: &str, changing: &Changing, outcome: &Outcome, no: bool) -> Result<u8> {
    if image.json {
        say_json("change", change_json(title, changing, outcome))?;
    } else if no {
        say("nothing was written")?;
    } else if let (Some(verdict), Some(id)) = (&outcome.verdict, outcome.operation) {
        verdict.agreed.iter().try_for_each(|fact| say(&format!("  verified  {fact}")))?;
        verdict.only_one_reader.iter().try_for_each(|fact| say(&format!("  one reader only  {fact}")))?;
        say(&format!("done: operation {id}, {} bytes of the image file changed", outcome.bytes_changed))?;
        say(&format!("      back with: vmrescue undo {}", image.image.display()))?;
    }
    if let (Some(verdict), None, false) = (&outcome.verdict, outcome.operation, image.json) {
        verdict.agreed.iter().try_for_each(|fact| say(&format!("  verified  {fact}")))?;
        let file = changing.target.split_once(':').map_or("", |(_, file)| file);
        say(&format!("done: {file} holds the result; {} is as it was", image.image.display()))?;
    }
    let would = changing.dry_run && !outcome.changes.is_empty();
    Ok(if would { FINDINGS } else { CLEAN })
}

/// What a script may use beyond the image, and how freely it may act.
#[derive(Debug, Default, Args)]
pub(super) struct Using {
    /// Where files come from that the component store does not have: a healthy machine's disk, a WIM (FILE or FILE#N), a folder; may be repeated
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,
    /// Folder with scripts of your own, on top of those that ship
    #[arg(long = "scripts", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// The folder of this machine that scripts may read files from
    #[arg(long, value_name = "DIR")]
    allow_host_files: Option<PathBuf>,
    /// Agree to steps that are marked as unsafe
    #[arg(long)]
    allow_unsafe: bool,
    /// Run scripts also where they say that they are not meant
    #[arg(long)]
    force: bool,
}

impl Using {
    fn context(&self, keys: &Keys, discard: vmrescue_repair::Discard) -> Result<Context> {
        let sources = self.source.iter().map(|text| Source::open(text, keys)).collect::<Result<Vec<_>>>()?;
        Ok(Context { sources, host_files: self.allow_host_files.clone(), force: self.force, discard })
    }

    /// Asks for each step that is marked as unsafe; `--yes` alone does not agree to them.
    fn agreed_to(&self, consents: &[String]) -> Result<bool> {
        for why in consents.iter().filter(|_| !self.allow_unsafe) {
            if !std::io::stdin().is_terminal() {
                return Err(Error::refused(Layer::Script, "a step needs your consent")
                    .found(why)
                    .advice("add --allow-unsafe when you agree"));
            }
            if !agreed(false, &format!("{why}\nDo it?"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(super) fn repair(
    image: &Image,
    names: &[String],
    set: &[String],
    using: &Using,
    changing: &Changing,
) -> Result<u8> {
    let (given, context) = (assignments(set)?, using.context(&image.keys()?, changing.discard())?);
    let known = scripts::known(using.folder.as_deref())?;
    if names.is_empty() {
        return repair_safe(image, &known, &context, changing);
    }
    let chosen = names.iter().map(|name| scripts::script(&known, name)).collect::<Result<Vec<_>>>()?;
    let titles: Vec<&str> = chosen.iter().map(|script| script.title.as_str()).collect();
    let code = changes(image, &titles.join("; "), changing, |machine| {
        let installation = machine.installation(image.windows)?;
        let (mut list, mut consents) = (Vec::new(), Vec::new());
        for script in &chosen {
            let own =
                given.iter().filter(|(name, _)| chosen.len() == 1 || script.parameters.contains_key(*name));
            let own = own.map(|(name, value)| (name.clone(), value.clone())).collect();
            let planned = plan_with(machine, installation, script, &own, &context)?;
            planned.notes.iter().for_each(|note| say_error(&format!("note: {note}")));
            list.extend(planned.changes);
            consents.extend(planned.consents);
        }
        if !changing.dry_run && !using.agreed_to(&consents)? {
            say("nothing was written")?;
            return Ok(Vec::new());
        }
        Ok(list)
    })?;
    if !image.json {
        let left = chosen.iter().filter(|script| !script.remains.is_empty());
        left.into_iter().try_for_each(|script| say(&format!("then: {}", script.remains.trim())))?;
    }
    Ok(code)
}

/// The safe fixes of findings, as changes.
fn safe_fixes(
    machine: &Machine,
    installation: &vmrescue_windows::Installation,
    findings: &[vmrescue_diagnose::Finding],
    known: &[Script],
    context: &Context,
) -> Result<Vec<Change>> {
    let mut list: Vec<Change> = Vec::new();
    for fix in findings.iter().filter_map(|finding| finding.fix.as_ref()) {
        if fix.applicability == vmrescue_diagnose::Applicability::Safe {
            let script = scripts::script(known, &fix.script)?;
            for change in plan_with(machine, installation, &script, &fix.parameters, context)?.changes {
                if !list.contains(&change) {
                    list.push(change);
                }
            }
        }
    }
    Ok(list)
}

/// Applies the safe fixes of what `diagnose` finds, and looks again afterwards: it has succeeded only when nothing is left.
fn repair_safe(image: &Image, known: &[Script], context: &Context, changing: &Changing) -> Result<u8> {
    let title = "Apply the safe fixes";
    let (mut no, mut found) = (false, Vec::new());
    let planned = |machine: &Machine| {
        let installation = machine.installation(image.windows)?;
        let findings = vmrescue_diagnose::diagnose(machine, installation)?;
        found.extend(findings.iter().map(|finding| finding.rule.clone()));
        let list = safe_fixes(machine, installation, &findings, known, context)?;
        let list = with_unfinished(machine, list, changing.discard())?;
        if !image.json {
            super::diagnose::say_findings(&findings)?;
            show_plan(title, &list)?;
        }
        if !list.is_empty() && !changing.dry_run && !agreed(changing.yes, "Apply this?")? {
            no = true;
            return Ok(Vec::new());
        }
        Ok(list)
    };
    let outcome = run_changes(&image.image, title, planned, &options(image, changing)?, &Bars::new())?;
    if changing.dry_run || no || changing.target != "in-place" {
        return tell(image, title, changing, &outcome, no);
    }
    let (_, machine, _) = look::open(image)?;
    let left = vmrescue_diagnose::diagnose(&machine, machine.installation(image.windows)?)?;
    let code = if left.is_empty() { CLEAN } else { FINDINGS };
    if image.json {
        let mut document = change_json(title, changing, &outcome);
        found.sort_unstable();
        found.dedup();
        found.retain(|rule| !left.iter().any(|finding| finding.rule == *rule));
        document["fixed"] = json!(found);
        document["left"] = json!(left);
        say_json("change", document)?;
        return Ok(code);
    }
    tell(image, title, changing, &outcome, no)?;
    if left.is_empty() {
        say("diagnosed again: nothing found that keeps this machine from booting")?;
    } else {
        say("diagnosed again: this is left")?;
        super::diagnose::say_findings(&left)?;
    }
    Ok(code)
}

/// Mends the file systems, and writes every damaged hive anew from what can be read of it.
pub(super) fn repair_disk(image: &Image, changing: &Changing) -> Result<u8> {
    changes(image, "Mend file systems and rebuild damaged hives", changing, |machine| {
        let mut list = vmrescue_repair::repair_file_systems(machine, changing.discard(), &Bars::new())?;
        for installation in &machine.installations {
            for name in vmrescue_windows::HIVES {
                let Ok(hive) = machine.hive(installation, name) else { continue };
                let defects = hive.check();
                if !defects.iter().any(|defect| defect.severity == vmrescue_base::Severity::Error) {
                    continue;
                }
                let (data, lost) = vmrescue_registry::rebuild(&hive)?;
                for defect in &lost {
                    say_error(&format!("lost: {defect}"));
                }
                if let Some(copy) = complete_copy(machine, installation, name) {
                    say_error(&format!("a complete copy is there: {copy}"));
                }
                let path = format!(r"{}\System32\config\{name}", installation.path);
                let (size, from) =
                    (data.len() as u64, format!("what can be read of it, {} things lost", lost.len()));
                list.push(Change::FileWrite { path, data: data.into(), size, from });
            }
        }
        Ok(list)
    })
}

/// The copy of a hive in RegBack, when it is whole.
fn complete_copy(
    machine: &Machine,
    installation: &vmrescue_windows::Installation,
    name: &str,
) -> Option<String> {
    let path = format!(r"{}\System32\config\RegBack\{name}", installation.path);
    let (volume, node) = machine.resolve(&GuestPath::parse(&path).ok()?).ok()?;
    let bytes = read_file(&*machine.file_system(volume).ok()?, node?, "").ok()?;
    let hive = Hive::parse(bytes).ok()?;
    (!hive.check().iter().any(|defect| defect.severity == vmrescue_base::Severity::Error)).then_some(path)
}

pub(super) fn put(
    image: &Image,
    file: &Path,
    path: &str,
    like: Option<&str>,
    changing: &Changing,
) -> Result<u8> {
    let data = Content::of_host_file(file)?;
    let from = file.display().to_string();
    changes(image, &format!("put {path}"), changing, |machine| {
        let mut list = write_of(machine, path, data, from)?;
        list.extend(security_of(machine, path, like)?);
        Ok(list)
    })
}

/// The change that gives `path` the security of the file that the user names; none when it has it.
pub(super) fn security_of(machine: &Machine, path: &str, like: Option<&str>) -> Result<Option<Change>> {
    let Some(model) = like else { return Ok(None) };
    let (fs, node, parsed) = look::node_of(machine, model)?;
    let wanted = fs.security(node)?.ok_or_else(|| {
        Error::not_found(Layer::Cli, "the model has no security that could be taken over").found(&parsed)
    })?;
    if let (volume, Some(node)) = machine.resolve(&GuestPath::parse(path)?)?
        && machine.file_system(volume)?.security(node)? == Some(wanted)
    {
        return Ok(None);
    }
    Ok(Some(Change::FileSecurity { path: path.to_string(), model: parsed.to_string() }))
}

/// The change that gives `path` this content; none when it has it.
pub(super) fn write_of(machine: &Machine, path: &str, data: Content, from: String) -> Result<Vec<Change>> {
    let parsed = GuestPath::parse(path)?;
    let (volume, node) = machine.resolve(&parsed)?;
    if let Some(node) = node {
        let fs = machine.file_system(volume)?;
        if parsed.stream.is_empty() && fs.metadata(node)?.kind == NodeKind::Directory {
            return Err(Error::invalid(Layer::Cli, "this is a directory").found(path));
        }
        if data.is_in(&*fs, node, &parsed.stream)? {
            return Ok(Vec::new());
        }
    }
    let size = data.length_bytes();
    Ok(vec![Change::FileWrite { path: path.to_string(), data, size, from }])
}

fn existing(machine: &Machine, path: &str) -> Result<()> {
    look::node_of(machine, path).map(|_| ())
}

pub(super) fn rm(image: &Image, path: &str, changing: &Changing) -> Result<u8> {
    changes(image, &format!("rm {path}"), changing, |machine| {
        existing(machine, path)?;
        Ok(vec![Change::FileDelete { path: path.to_string() }])
    })
}

pub(super) fn mv(image: &Image, from: &str, to: &str, changing: &Changing) -> Result<u8> {
    changes(image, &format!("mv {from} {to}"), changing, |machine| {
        existing(machine, from)?;
        Ok(vec![Change::FileRename { from: from.to_string(), to: to.to_string() }])
    })
}

pub(super) fn mkdir(image: &Image, path: &str, changing: &Changing) -> Result<u8> {
    changes(image, &format!("mkdir {path}"), changing, |machine| {
        let there = machine.resolve(&GuestPath::parse(path)?)?.1.is_some();
        Ok(if there { Vec::new() } else { vec![Change::MakeDirectory { path: path.to_string() }] })
    })
}

pub(super) fn cp(image: &Image, from: &str, to: &str, changing: &Changing) -> Result<u8> {
    changes(image, &format!("cp {from} {to}"), changing, |machine| {
        let (fs, node, parsed) = look::node_of(machine, from)?;
        let data = read_file(&*fs, node, &parsed.stream)?;
        write_of(machine, to, data.into(), from.to_string())
    })
}
