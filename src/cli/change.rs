//! Commands that change the image: planned, shown, asked for, staged, verified, published.

use super::next::Words;
use super::progress::Bars;
use super::settings::Settings;
use super::{CLEAN, Changing, FINDINGS, Image, agreed, look, say, say_error, say_json, scripts};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result};
use vmrescue_crypt::Keys;
use vmrescue_diagnose::{Diagnosis, Finding, Fix, Verdict, look_at, look_at_disk};
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{NodeKind, read_file};
use vmrescue_registry::Hive;
use vmrescue_repair::{
    Change, Content, Context, Ending, FixPlan, FixPlans, Missing, Options, Outcome, Planned, Script, Secrets,
    Source, Target, plan_on_disk, plan_with, run_changes, run_fixes, run_on_hive, with_unfinished,
};
use vmrescue_windows::{Machine, Unread};

pub(super) fn options(image: &Image, changing: &Changing) -> Result<Options> {
    if image.scan {
        return Err(Error::invalid(Layer::Cli, "--scan shows what a search finds, and is only for looking")
            .advice("give the volumes their partitions first: vmrescue partition restore IMAGE"));
    }
    let target = Target::parse(&changing.target).ok_or_else(|| {
        Error::invalid(Layer::Cli, "--to wants in-place, child:FILE or new:FILE").found(&changing.target)
    })?;
    super::stop::clean_up();
    Ok(Options {
        target,
        dry_run: changing.dry_run,
        strict: changing.strict,
        secrets: Secrets::default(),
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
            show_plan(title, &list, &Secrets::default())?;
        }
        if !list.is_empty() && !changing.dry_run && !agreed(changing.yes, "Apply this?")? {
            no = true;
            return Ok(Vec::new());
        }
        Ok(list)
    };
    let outcome = run_changes(&image.image, title, asked, &options(image, changing)?, &Bars::new())?;
    tell(image, title, changing, &outcome, &Told::asked(no))
}

/// As [`changes`], for a hive file of its own. `planned` gives its list to the function that shows it and asks.
pub(super) fn on_hive(
    image: &Image,
    title: &str,
    changing: &Changing,
    planned: impl FnOnce(&Hive) -> Result<Vec<Change>>,
) -> Result<u8> {
    let (mut no, mut secrets) = (false, Secrets::default());
    let asked = |hive: &Hive| {
        let list = planned(hive)?;
        secrets = Secrets::default().with_hive(hive);
        if !image.json {
            show_plan(title, &list, &secrets)?;
        }
        if !list.is_empty() && !changing.dry_run && !agreed(changing.yes, "Apply this?")? {
            no = true;
            return Ok(Vec::new());
        }
        Ok(list)
    };
    let outcome = run_on_hive(&image.image, title, asked, &options(image, changing)?, &Bars::new())?;
    tell(image, title, changing, &outcome, &Told { secrets, ..Told::asked(no) })
}

fn show_plan(title: &str, list: &[Change], secrets: &Secrets) -> Result<()> {
    say(title)?;
    list.iter().try_for_each(|change| say(&format!("  - {}", change.words(secrets))))
}

/// What there is to tell of a change beside its outcome.
#[derive(Debug, Default)]
struct Told {
    /// The user said no.
    no: bool,
    /// What should have been repaired and could not be.
    missing: Vec<Missing>,
    /// What was left out, and why.
    notes: Vec<String>,
    /// What the rules say afterwards.
    judged: Option<Judged>,
    /// What is neither shown nor kept.
    secrets: Secrets,
}

impl Told {
    fn asked(no: bool) -> Told {
        Told { no, ..Told::default() }
    }

    fn ending(&self, changing: &Changing, outcome: &Outcome) -> Ending {
        if self.no {
            return Ending::NotWanted;
        }
        // A plan that changes nothing while its rule still speaks has not found everything in order.
        let left = self.judged.as_ref().map_or(0, |judged| judged.targeted().count());
        let missing = self.missing.len() + if outcome.changes.is_empty() { left } else { 0 };
        Ending::of(outcome.changes.len(), missing, changing.dry_run)
    }

    fn code(&self, ending: Ending) -> u8 {
        let left = self.judged.as_ref().is_some_and(|judged| judged.targeted().next().is_some());
        match ending {
            // Declined: what was asked for was not done.
            Ending::WouldChange | Ending::CouldNot | Ending::NotWanted => FINDINGS,
            Ending::Done if left || !self.missing.is_empty() => FINDINGS,
            Ending::Done | Ending::NothingNeeded => CLEAN,
        }
    }
}

fn change_json(title: &str, changing: &Changing, outcome: &Outcome, told: &Told) -> Result<Value> {
    let plan: Vec<String> = outcome.changes.iter().map(|change| change.words(&told.secrets)).collect();
    let kept = outcome.changes.iter().map(|change| change.kept(&told.secrets)).collect::<Result<Vec<_>>>()?;
    let mut document = json!({
        "title": title, "outcome": told.ending(changing, outcome), "dry_run": changing.dry_run, "plan": plan,
        "changes": kept, "verified": outcome.verdict, "operation": outcome.operation,
        "bytes_changed": outcome.bytes_changed, "could_not": told.missing, "notes": told.notes,
    });
    if let Some(judged) = &told.judged {
        document["fixed"] = json!(judged.cured_rules());
        document["cured"] = json!(judged.cured.len());
        document["left"] = json!(judged.left);
        document["verdict"] = json!(judged.verdict);
        document["could_not_look"] = json!(judged.could_not_look);
    }
    Ok(document)
}

fn tell(image: &Image, title: &str, changing: &Changing, outcome: &Outcome, told: &Told) -> Result<u8> {
    let ending = told.ending(changing, outcome);
    let code = told.code(ending);
    if image.json {
        say_json("change", change_json(title, changing, outcome, told)?)?;
        return Ok(code);
    }
    told.notes.iter().for_each(|note| say_error(&format!("note: {note}")));
    if let Some(verdict) = outcome.verdict.as_ref().filter(|_| !told.no) {
        verdict.agreed.iter().try_for_each(|fact| say(&format!("  verified  {fact}")))?;
        verdict.only_one_reader.iter().try_for_each(|fact| say(&format!("  one reader only  {fact}")))?;
        verdict.warnings.iter().try_for_each(|fact| say(&format!("  warning   {fact}")))?;
    }
    match (ending, outcome.operation) {
        (Ending::Done, _) if changing.target != "in-place" => {
            let file = changing.target.split_once(':').map_or("", |(_, file)| file);
            say(&format!("done: {file} holds the result; {} is as it was", image.image.display()))?;
        }
        (Ending::Done, Some(id)) => {
            say(&format!("done: operation {id}, {} bytes of the image file changed", outcome.bytes_changed))?;
            say(&format!("      to undo: {}", Words::plain(image).command("undo", &[])))?;
        }
        (Ending::Done, None) => say("done: nothing differs from what was there")?,
        (Ending::WouldChange, _) => say(&format!(
            "would change {} bytes of the image file; nothing was written",
            outcome.bytes_changed
        ))?,
        (ending, _) => say(ending.words())?,
    }
    told.missing.iter().try_for_each(|missing| say(&format!("could not: {missing}")))?;
    if let Some(judged) = &told.judged {
        judged.say(image)?;
    }
    Ok(code)
}

/// What the rules say after a repair, held against what they said before.
#[derive(Debug)]
struct Judged {
    /// Findings that are gone.
    cured: Vec<Finding>,
    /// Findings that are left, or new.
    left: Vec<Finding>,
    /// Scripts that were run with their parameters; `None` when all findings count.
    run: Option<Vec<Fix>>,
    verdict: Verdict,
    could_not_look: Vec<Unread>,
}

/// What makes a finding the same one before and after.
fn same_finding(a: &Finding, b: &Finding) -> bool {
    a.rule == b.rule && a.title == b.title
}

impl Judged {
    fn new(before: Vec<Finding>, after: Diagnosis, run: Option<Vec<Fix>>) -> Judged {
        let left = after.findings;
        let cured = before.into_iter().filter(|one| !left.iter().any(|other| same_finding(one, other)));
        Judged {
            cured: cured.collect(),
            left,
            run,
            verdict: after.verdict,
            could_not_look: after.could_not_look,
        }
    }

    /// Findings that the repair was to cure and that are still there.
    fn targeted(&self) -> impl Iterator<Item = &Finding> {
        self.left.iter().filter(|finding| match &self.run {
            None => true,
            Some(run) => finding.fix.as_ref().is_some_and(|fix| {
                run.iter().any(|own| own.script == fix.script && own.parameters == fix.parameters)
            }),
        })
    }

    fn cured_rules(&self) -> Vec<&str> {
        let still = |rule: &str| self.left.iter().any(|finding| finding.rule == rule);
        let mut rules: Vec<&str> = self.cured.iter().map(|finding| finding.rule.as_str()).collect();
        rules.retain(|rule| !still(rule));
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    fn say(&self, image: &Image) -> Result<()> {
        let targeted: Vec<&Finding> = self.targeted().collect();
        if self.cured.is_empty() && targeted.is_empty() {
            return if self.run.is_some() {
                Ok(())
            } else {
                say(
                    "diagnosed again: nothing found that keeps this machine from booting, and it was looked at",
                )
            };
        }
        say(&format!("diagnosed again: cured: {}, left: {}", self.cured.len(), targeted.len()))?;
        self.cured
            .iter()
            .try_for_each(|finding| say(&format!("  cured  {}  [{}]", finding.title, finding.rule)))?;
        let words = Words::of(image, None);
        for finding in targeted {
            let first = finding.evidence.first().map_or(String::new(), |why| format!(" ({why})"));
            say(&format!("  left   {}{first}  [{}]", finding.title, finding.rule))?;
            if let Some(fix) = &finding.fix {
                say(&format!("         {}", words.fix(fix)))?;
            }
        }
        Ok(())
    }
}

/// Runs the rules over the image as it is now.
fn judge(image: &Image, before: Vec<Finding>, run: Option<Vec<Fix>>) -> Result<Judged> {
    let (container, machine, _) = look::open(image)?;
    let defects = look::container_defects(image, &container);
    Ok(Judged::new(before, diagnosed(image, &machine, &defects)?, run))
}

/// What the rules say of the installation that is worked on, or of a disk that has none.
fn diagnosed(image: &Image, machine: &Machine, container: &[Defect]) -> Result<Diagnosis> {
    if machine.installations.is_empty() {
        if machine.volumes.iter().any(vmrescue_windows::Volume::is_locked) {
            // Says what would open it.
            machine.installation(image.windows)?;
        }
        return Ok(look_at_disk(machine, container));
    }
    look_at(machine, machine.installation(image.windows)?, container, &[])
}

/// What a script would do; one that changes partitions and file systems only needs no installation.
fn plan_for(
    image: &Image,
    machine: &Machine,
    script: &Script,
    given: &BTreeMap<String, String>,
    context: &Context,
) -> Result<Planned> {
    if machine.installations.is_empty() && script.is_for_disk() {
        return plan_on_disk(machine, script, given, context);
    }
    plan_with(machine, machine.installation(image.windows)?, script, given, context)
}

/// What a script may use beyond the image, and how freely it may act.
#[derive(Debug, Default, Args)]
pub(super) struct Using {
    /// Where files come from that the component store does not have: a healthy machine's disk, a WIM (FILE or FILE#N), a folder, a shadow copy of this disk (shadow:2, shadow:latest); may be repeated
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
    fn context(&self, image: &Image, keys: &Keys, discard: vmrescue_repair::Discard) -> Result<Context> {
        let open = |text: &String| match text.strip_prefix("shadow:") {
            Some(name) => Source::shadow(&look::open(image)?.1, image.windows, name),
            None => Source::open(text, keys),
        };
        let sources = self.source.iter().map(open).collect::<Result<Vec<_>>>()?;
        Ok(Context { sources, host_files: self.allow_host_files.clone(), force: self.force, discard })
    }

    /// Asks for each step that is marked as unsafe; `--yes` alone does not agree to them.
    fn agreed_to(&self, consents: &[String], dry_run: bool) -> Result<bool> {
        for why in consents.iter().filter(|_| !self.allow_unsafe) {
            if dry_run && std::io::stdin().is_terminal() {
                say_error(&format!("would ask: {why}"));
                continue;
            }
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
    set: &Settings,
    using: &Using,
    changing: &Changing,
) -> Result<u8> {
    let context = using.context(image, &image.keys()?, changing.discard())?;
    let known = scripts::known(using.folder.as_deref())?;
    if names.is_empty() {
        return repair_safe(image, &known, &context, changing);
    }
    let chosen = names.iter().map(|name| scripts::script(&known, name)).collect::<Result<Vec<_>>>()?;
    let titles: Vec<&str> = chosen.iter().map(|script| script.title.as_str()).collect();
    let title = titles.join("; ");
    let (given, secrets) = set.given(&chosen)?;
    let (mut told, mut before, mut run) =
        (Told { secrets: secrets.clone(), ..Told::default() }, None, Vec::new());
    let planned = |machine: &Machine| {
        before = Some(diagnosed(image, machine, &[])?.findings);
        let (mut list, mut consents) = (Vec::new(), Vec::new());
        for script in &chosen {
            let own =
                given.iter().filter(|(name, _)| chosen.len() == 1 || script.parameters.contains_key(*name));
            let own: BTreeMap<String, String> =
                own.map(|(name, value)| (name.clone(), value.clone())).collect();
            run.push(Fix {
                script: script.name.clone(),
                parameters: own.clone(),
                applicability: vmrescue_diagnose::Applicability::Safe,
            });
            let planned = plan_for(image, machine, script, &own, &context)?;
            told.notes.extend(planned.notes);
            told.missing.extend(planned.missing);
            list.extend(planned.changes);
            consents.extend(planned.consents);
        }
        let list = with_unfinished(machine, list, changing.discard())?;
        if !image.json {
            show_plan(&title, &list, &secrets)?;
        }
        let agrees = |list: &[Change]| -> Result<bool> {
            if list.is_empty() {
                return Ok(true);
            }
            let agrees = using.agreed_to(&consents, changing.dry_run)?;
            Ok(agrees && (changing.dry_run || agreed(changing.yes, "Apply this?")?))
        };
        if agrees(&list)? {
            return Ok(list);
        }
        told.no = true;
        Ok(Vec::new())
    };
    let options = Options { secrets: secrets.clone(), ..options(image, changing)? };
    let outcome = run_changes(&image.image, &title, planned, &options, &Bars::new())?;
    if changing.target == "in-place" && !changing.dry_run && !told.no {
        let judged = judge(image, before.unwrap_or_default(), Some(run))?;
        told.judged = Some(judged);
    }
    let code = tell(image, &title, changing, &outcome, &told)?;
    if !image.json {
        let left = chosen.iter().filter(|script| !script.remains.is_empty());
        left.into_iter().try_for_each(|script| say(&format!("then: {}", script.remains.trim())))?;
    }
    Ok(code)
}

/// The safe fixes of findings, each planned by itself: one that cannot be planned comes back with its reason.
fn safe_fixes(
    image: &Image,
    machine: &Machine,
    findings: &[Finding],
    known: &[Script],
    context: &Context,
) -> FixPlans {
    let mut plans = FixPlans::default();
    for (finding, fix) in findings.iter().filter_map(|finding| Some((finding, finding.fix.as_ref()?))) {
        if fix.applicability != vmrescue_diagnose::Applicability::Safe {
            continue;
        }
        let values: Vec<&str> = fix.parameters.values().map(String::as_str).collect();
        let name = format!("{} {}", fix.script, values.join(" ")).trim_end().to_string();
        let planned = scripts::script(known, &fix.script)
            .and_then(|script| plan_for(image, machine, &script, &fix.parameters, context))
            .and_then(|planned| {
                let changes = with_unfinished(machine, planned.changes, context.discard)?;
                Ok((changes, planned.missing))
            });
        match planned {
            Ok((changes, missing)) => {
                // A script that finds nothing to do while its rule speaks has cured nothing.
                if changes.is_empty() && missing.is_empty() {
                    let why = format!("it finds nothing to change, and this stays: {}", finding.title);
                    plans.missing.push(Missing {
                        what: name.clone(),
                        why,
                        get: Some(finding.remedy.clone()),
                    });
                }
                plans.missing.extend(missing);
                plans.plans.push(FixPlan { name, changes });
            }
            Err(e) => plans.missing.push(Missing::of(name, &e)),
        }
    }
    plans.plans.retain(|plan| !plan.changes.is_empty());
    plans
}

/// Applies the safe fixes of what `diagnose` finds, and looks again afterwards: it has succeeded only when nothing is left.
fn repair_safe(image: &Image, known: &[Script], context: &Context, changing: &Changing) -> Result<u8> {
    let title = "Apply the safe fixes";
    let (mut told, mut before) = (Told::default(), Vec::new());
    let planned = |machine: &Machine| {
        before = diagnosed(image, machine, &[])?.findings;
        let mut plans = safe_fixes(image, machine, &before, known, context);
        let list = plans.changes();
        if !image.json {
            super::diagnose::say_findings_with(&before, &Words::of(image, None))?;
            show_plan(title, &list, &Secrets::default())?;
        }
        if !list.is_empty() && !changing.dry_run && !agreed(changing.yes, "Apply this?")? {
            told.no = true;
            plans.plans.clear();
        }
        Ok(plans)
    };
    let (outcome, missing) =
        run_fixes(&image.image, title, planned, &options(image, changing)?, &Bars::new())?;
    told.missing = missing;
    if outcome.changes.is_empty() && told.missing.is_empty() && !told.no {
        // What keeps the machine from starting is left, and no safe fix changes it: that is not "nothing needed".
        let words = Words::of(image, None);
        let left = before.iter().filter(|finding| finding.severity == vmrescue_diagnose::Severity::Critical);
        told.missing.extend(left.map(|finding| Missing {
            what: finding.title.clone(),
            why: match &finding.fix {
                Some(_) => "its repair is for you to decide".into(),
                None => "no repair is made for it by itself".into(),
            },
            get: Some(finding.fix.as_ref().map_or_else(|| finding.remedy.clone(), |fix| words.fix(fix))),
        }));
    }
    if changing.dry_run || told.no || changing.target != "in-place" {
        return tell(image, title, changing, &outcome, &told);
    }
    told.judged = Some(judge(image, before, None)?);
    tell(image, title, changing, &outcome, &told)
}

/// Mends the file systems, and writes every damaged hive anew from what can be read of it.
pub(super) fn repair_disk(image: &Image, changing: &Changing, allow_unsafe: bool) -> Result<u8> {
    let title = "Mend file systems and rebuild damaged hives";
    let mut told = Told::default();
    let planned = |machine: &Machine| {
        let mut list = vmrescue_repair::repair_file_systems(machine, changing.discard(), &Bars::new())?;
        for installation in &machine.installations {
            for name in vmrescue_windows::HIVES {
                let path = format!(r"{}\System32\config\{name}", installation.path);
                let hive = match machine.hive(installation, name) {
                    Ok(hive) => hive,
                    Err(e) if e.kind() == ErrorKind::NotFound && !matches!(name, "SYSTEM" | "SOFTWARE") => {
                        continue;
                    }
                    Err(e) => {
                        let mut missing = Missing::of(&path, &e);
                        let copy = complete_copy(machine, installation, name);
                        missing.get = Some(match copy {
                            Some(copy) => format!("a complete copy is there: {copy}; vmrescue repair IMAGE restore-regback"),
                            None => "take the hive from a backup, a restore point or a shadow copy of this machine, and put it there: vmrescue put IMAGE FILE".to_string(),
                        });
                        told.missing.push(missing);
                        continue;
                    }
                };
                let Some(cured) = vmrescue_repair::cure_hive(&hive)? else { continue };
                for defect in &cured.lost {
                    say_error(&format!("lost: {defect}"));
                }
                if let Some(copy) = complete_copy(machine, installation, name) {
                    say_error(&format!("a complete copy is there: {copy}"));
                }
                if let Some(why) = cured.given_up {
                    say_error(&format!("given up: {path}: {why}"));
                    if !allow_unsafe {
                        let get = Some("vmrescue check IMAGE --repair --allow-unsafe, when no log can be found and you agree to lose that write".into());
                        told.missing.push(Missing { what: path, why, get });
                        continue;
                    }
                }
                let (size, from) = (cured.bytes.len() as u64, cured.how);
                list.push(Change::FileWrite { path, data: cured.bytes.into(), size, from });
            }
        }
        let list = with_unfinished(machine, list, changing.discard())?;
        if !image.json {
            show_plan(title, &list, &Secrets::default())?;
        }
        if !list.is_empty() && !changing.dry_run && !agreed(changing.yes, "Apply this?")? {
            told.no = true;
            return Ok(Vec::new());
        }
        Ok(list)
    };
    let outcome = run_changes(&image.image, title, planned, &options(image, changing)?, &Bars::new())?;
    // What the check still finds was not mended, whatever was written.
    if outcome.changes.is_empty() && told.missing.is_empty() && !told.no {
        let why = "the check found what has no one right repair; nothing was written".to_string();
        let get = Some("the lines above name it; take the data from a backup, or copy out what can be read: vmrescue get -r".to_string());
        told.missing.push(Missing { what: "the disk".into(), why, get });
    }
    tell(image, title, changing, &outcome, &told)
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
    // Only a hint: a copy that is damaged is not worth telling.
    vmrescue_repair::copy_of_hive(bytes).ok().map(|_| path)
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
        let (fs, node, parsed) = look::reading(machine, from)?;
        let data = Content::of_guest(&fs, node, &parsed.stream)?;
        write_of(machine, to, data, from.to_string())
    })
}
