//! The story of the last update: what the hives, pending.xml and the logs say, sorted by time, with a verdict and with what the next start does.
//!
//! Times are UTC; those of CBS.log are the guest's, moved by `ActiveTimeBias` (wrong by an hour for lines from the other half of the year).
//! What the next start does follows smss and poqexec as guyrleech and Microsoft's support articles tell it (WC-01 to WC-03): no documentation says it.

use super::hresult::code_text;
use super::logs::{self, LogEnd};
use super::pending_xml::{PendingXml, parse_pending_xml};
use super::{Package, SERVICING, Updates, when};
use crate::events::{BootEvents, Event, Kind, boot_events, words};
use crate::machine::{Installation, Machine};
use serde::Serialize;
use vmrescue_base::error::Result;
use vmrescue_base::time::FileTime;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::read_file;

/// Lines of one log that go into the story.
const LOG_LINES: usize = 60;
/// Events that go into the story.
const EVENTS: usize = 60;
/// Packages and sessions that go into the story.
const LAST: usize = 12;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoryLevel {
    /// As it should be.
    Info,
    /// Waits for something.
    Warning,
    /// Failed.
    Error,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct StoryLine {
    /// When, UTC; `None` when it is not known.
    pub time: Option<String>,
    /// Where it stands: a file, a key, a log.
    pub source: String,
    /// What happened.
    pub text: String,
    /// How much it matters.
    pub level: StoryLevel,
}

/// The story of the last update.
#[derive(Debug, Clone, Serialize)]
pub struct Story {
    /// In a few sentences: what was installed last, whether a restart waits, where it stopped.
    pub verdict: Vec<String>,
    /// Everything, the oldest first.
    pub lines: Vec<StoryLine>,
    /// What the next start does.
    pub next_start: Vec<String>,
    /// What pending.xml holds.
    pub pending_xml: Option<PendingXml>,
    /// The end of CBS.log.
    pub cbs_log: Option<LogEnd>,
    /// The end of poqexec.log.
    pub poqexec_log: Option<LogEnd>,
    /// Minutes between the guest's clock and UTC.
    pub bias_minutes: i32,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// Facts of the default control set that decide about the next start.
#[derive(Default)]
struct StartFacts {
    setup_execute: Vec<String>,
    renames: usize,
    servicing_renames: usize,
    installer_start: Option<u32>,
    bias_minutes: i32,
}

fn start_facts(machine: &Machine, installation: &Installation) -> Result<StartFacts> {
    let hive = machine.hive(installation, "SYSTEM")?;
    let set = format!("ControlSet{:03}", installation.control_sets.default.max(1));
    let mut facts = StartFacts::default();
    if let Some(key) = hive.key(&format!(r"{set}\Control\Session Manager"))? {
        let texts = |name: &str| -> Result<Vec<String>> {
            Ok(key.value(name)?.and_then(|value| value.as_multi_string()).unwrap_or_default())
        };
        facts.setup_execute = texts("SetupExecute")?;
        for name in ["PendingFileRenameOperations", "PendingFileRenameOperations2"] {
            let names = texts(name)?;
            facts.renames += names.len();
            facts.servicing_renames +=
                names.iter().filter(|name| name.to_ascii_lowercase().contains(r"\winsxs\")).count();
        }
    }
    if let Some(key) = hive.key(&format!(r"{set}\Services\TrustedInstaller"))? {
        facts.installer_start = super::number(&key, "Start")?;
    }
    if let Some(key) = hive.key(&format!(r"{set}\Control\TimeZoneInformation"))? {
        // A signed number in a DWORD.
        facts.bias_minutes =
            super::number(&key, "ActiveTimeBias")?.unwrap_or(0).cast_signed().clamp(-1440, 1440);
    }
    Ok(facts)
}

/// Tells the story of the last update of an installation, from what [`super::updates`] found and from files; with `events` from
/// the event logs too.
///
/// # Errors
/// Of the file system's directories; what cannot be read is among the problems.
pub fn update_story(
    machine: &Machine,
    installation: &Installation,
    updates: &Updates,
    events: bool,
) -> Result<Story> {
    let fs = machine.file_system(installation.volume)?;
    let mut problems = Vec::new();
    let facts = start_facts(machine, installation).unwrap_or_else(|e| {
        problems.push(format!("SYSTEM: {e}"));
        StartFacts::default()
    });
    let bias = facts.bias_minutes;
    let mut story = Story {
        verdict: Vec::new(),
        lines: Vec::new(),
        next_start: Vec::new(),
        pending_xml: None,
        cbs_log: None,
        poqexec_log: None,
        bias_minutes: bias,
        problems,
    };
    let find = |name: &str| -> Result<_> {
        let path = format!(r"{}\{name}", installation.path);
        Ok((machine.resolve(&GuestPath::parse(&path)?)?.1, path))
    };
    if let (Some(node), path) = find(r"WinSxS\pending.xml")? {
        match read_file(&*fs, node, "") {
            Ok(bytes) => {
                let found = parse_pending_xml(&bytes);
                let time = fs.metadata(node).ok().map(|metadata| metadata.times.modified);
                story.line(time, &path, pending_text(&found), StoryLevel::Warning);
                story.pending_xml = Some(found);
            }
            Err(e) => story.problems.push(format!("{path}: {e}")),
        }
    }
    if let (Some(node), path) = find(r"Logs\CBS\CBS.log")? {
        match logs::cbs_log(&*fs, node, &path) {
            Ok(log) => {
                story.log(&log, bias);
                story.cbs_log = Some(log);
            }
            Err(e) => story.problems.push(format!("{path}: {e}")),
        }
    }
    if let (Some(node), path) = find(r"WinSxS\poqexec.log")? {
        match logs::poqexec_log(&*fs, node, &path) {
            Ok(log) => {
                story.log(&log, bias);
                story.poqexec_log = Some(log);
            }
            Err(e) => story.problems.push(format!("{path}: {e}")),
        }
    }
    story.registry(updates);
    if events {
        match boot_events(machine, installation) {
            Ok(found) => story.events(&found),
            Err(e) => story.problems.push(format!("event logs: {e}")),
        }
    }
    // Lines without a time come last: they hold now.
    story.lines.sort_by(|a, b| (a.time.is_none(), &a.time).cmp(&(b.time.is_none(), &b.time)));
    story.verdict = verdict(updates, &story);
    story.next_start = next_start(updates, &story, &facts);
    Ok(story)
}

fn pending_text(found: &PendingXml) -> String {
    let kinds: Vec<String> = found.operations.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let boot = found.files.iter().filter(|file| file.boot).count();
    let critical: Option<u64> =
        found.queues.iter().filter_map(|queue| queue.before_checkpoint).reduce(|a, b| a + b);
    let mut text = format!("written: {} operations ({})", found.operation_count(), kinds.join(", "));
    if let Some(critical) = critical {
        text += &format!(", {critical} of them before the checkpoint");
    }
    if boot > 0 {
        text += &format!(", {boot} on files that the start needs");
    }
    if found.installers > 0 {
        text += &format!(", {} installers after them", found.installers);
    }
    if !found.complete {
        text += "; the document is cut off";
    }
    text
}

impl Story {
    fn line(&mut self, time: Option<FileTime>, source: &str, text: String, level: StoryLevel) {
        let time = time.filter(|time| !time.is_zero()).map(|time| time.to_string());
        self.lines.push(StoryLine { time, source: source.into(), text, level });
    }

    fn log(&mut self, log: &LogEnd, bias: i32) {
        let name = log.path.rsplit('\\').next().unwrap_or_default();
        let skipped = log.lines.len().saturating_sub(LOG_LINES);
        for line in log.lines.iter().skip(skipped) {
            let level = if line.error { StoryLevel::Error } else { StoryLevel::Info };
            self.line(line.at.map(|at| when::to_utc(at, bias)), name, line.text.clone(), level);
        }
    }

    /// Updates, starts and crashes from the event logs, the newest.
    fn events(&mut self, found: &BootEvents) {
        let mut list: Vec<&Event> = [Kind::Update, Kind::Start, Kind::Crash]
            .into_iter()
            .flat_map(|kind| found.of(kind))
            .flat_map(|group| &group.events)
            .collect();
        list.sort_by_key(|event| std::cmp::Reverse(event.time));
        for event in list.into_iter().take(EVENTS) {
            let level = match event.level {
                1 | 2 => StoryLevel::Error,
                3 => StoryLevel::Warning,
                _ => StoryLevel::Info,
            };
            self.line(Some(event.time), &format!("{} {}", event.log, event.id), words(event), level);
        }
    }

    fn registry(&mut self, updates: &Updates) {
        let servicing = format!(r"HKLM\SOFTWARE\{SERVICING}");
        for package in last_packages(updates).into_iter().take(LAST) {
            let kb = package.kb.as_deref().unwrap_or_default();
            let by = package.client.as_deref().map(|client| format!(" by {client}")).unwrap_or_default();
            let level =
                if matches!(package.state, 0x5 | 0x60) { StoryLevel::Warning } else { StoryLevel::Info };
            let text = format!("{kb} {} {}{by}", package.identity, package.state_name).trim().to_string();
            self.lines.push(StoryLine {
                time: package.installed.clone(),
                source: format!(r"{servicing}\Packages"),
                text,
                level,
            });
        }
        for session in updates.sessions.iter().rev().take(LAST) {
            for phase in &session.phases {
                let text = format!("session {}: {}", session.id, phase.name);
                let source = format!(r"{servicing}\SessionsPending");
                let time = Some(phase.time.clone());
                self.lines.push(StoryLine { time, source, text, level: StoryLevel::Info });
            }
        }
        for result in &updates.agent {
            let source = r"HKLM\SOFTWARE\...\WindowsUpdate\Auto Update\Results".to_string();
            if let Some(success) = &result.last_success {
                let time = when::parse(success).map(|time| time.to_string());
                let text = format!("Windows Update: last success of {}", result.work);
                self.lines.push(StoryLine { time, source: source.clone(), text, level: StoryLevel::Info });
            }
            if let Some(code) = result.last_error.filter(|code| *code != 0) {
                let text = format!("Windows Update: last error of {}: {}", result.work, code_text(code));
                self.lines.push(StoryLine { time: None, source, text, level: StoryLevel::Error });
            }
        }
        for pending in &updates.pending {
            let (source, text) = ("now".to_string(), pending.clone());
            self.lines.push(StoryLine { time: None, source, text, level: StoryLevel::Warning });
        }
    }
}

/// Packages by the time of their installation, the last first; of one time, those with a KB and rollups first.
fn last_packages(updates: &Updates) -> Vec<&Package> {
    let mut list: Vec<&Package> =
        updates.packages.iter().filter(|package| package.installed.is_some()).collect();
    let rank =
        |package: &Package| (package.kb.is_none(), super::history::build_of(&package.identity).is_none());
    list.sort_by(|a, b| b.installed.cmp(&a.installed).then_with(|| rank(a).cmp(&rank(b))));
    list
}

fn verdict(updates: &Updates, story: &Story) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(package) = last_packages(updates).first() {
        let name = package.kb.clone().unwrap_or_else(|| package.identity.clone());
        let time = package
            .installed
            .as_deref()
            .and_then(|time| time.get(..19))
            .unwrap_or_default()
            .replace('T', " ");
        let build = super::history::build_of(&package.identity);
        let build = build.map(|build| format!(", build {build}")).unwrap_or_default();
        lines.push(format!("the last package is {name}{build}, of {time} UTC: {}", package.state_name));
    }
    let orphaned = updates.packages.iter().filter(|package| package.orphaned).count();
    let waiting =
        updates.packages.iter().filter(|package| matches!(package.state, 0x5 | 0x60)).count() - orphaned;
    if updates.pending.is_empty() {
        lines.push("nothing waits for the next start".into());
    } else if orphaned > 0 {
        lines.push(format!(
            "{orphaned} packages are left pending by a session that was set aside: nothing will finish them (remove them with DISM when Windows runs)"
        ));
    } else {
        let packages = if waiting > 0 { format!(", {waiting} packages among it") } else { String::new() };
        lines.push(format!("a restart is pending: {} marks{packages}", updates.pending.len()));
    }
    let open = updates.sessions.iter().rev().find(|session| !session.complete);
    if let Some((session, phase)) =
        open.and_then(|session| session.last_phase().map(|phase| (session, phase)))
    {
        let time = phase.time.get(..19).unwrap_or(&phase.time).replace('T', " ");
        lines
            .push(format!("session {} is not finished: it reached {} at {time} UTC", session.id, phase.name));
    }
    if let Some(session) = story.cbs_log.as_ref().and_then(|log| log.session.as_ref()) {
        let what = session.package.as_deref().map(|package| format!(" ({package})")).unwrap_or_default();
        let last = session.last_seen.as_deref().unwrap_or_default();
        lines.push(match (&session.result, session.finalized) {
            (Some(result), _) if session.failed => {
                format!("CBS.log: session {}{what} failed with {result} at {last}", session.id)
            }
            (_, false) => {
                format!("CBS.log: session {}{what} stopped at {last}; the log has no end of it", session.id)
            }
            (_, true) => {
                let reboot = session.reboot_required.as_deref().unwrap_or("not said");
                format!("CBS.log: session {}{what} ended at {last}, restart required: {reboot}", session.id)
            }
        });
    }
    if let Some(line) =
        story.poqexec_log.as_ref().and_then(|log| log.lines.iter().rev().find(|line| line.error))
    {
        lines.push(format!("poqexec.log: {}", line.text));
    }
    lines
}

fn next_start(updates: &Updates, story: &Story, facts: &StartFacts) -> Vec<String> {
    let mut lines = Vec::new();
    let poqexec = facts.setup_execute.iter().any(|line| line.to_ascii_lowercase().contains("poqexec"));
    match (&story.pending_xml, poqexec) {
        (Some(found), true) => {
            lines.push(format!("smss runs poqexec on pending.xml: {} operations", found.operation_count()));
            let boot: Vec<&str> = found
                .files
                .iter()
                .filter(|file| file.boot)
                .filter_map(|file| file.target.rsplit('\\').next())
                .take(8)
                .collect();
            if !boot.is_empty() {
                lines.push(format!("it replaces files that the start needs: {}", boot.join(", ")));
            }
        }
        (Some(found), false) => lines.push(format!(
            "pending.xml with {} operations is there and SetupExecute does not run it; TrustedInstaller takes it up when it starts",
            found.operation_count()
        )),
        (None, true) => lines.push("SetupExecute runs poqexec, and there is no pending.xml for it".into()),
        (None, false) => lines.push("smss runs no update: pending.xml and SetupExecute have nothing".into()),
    }
    if !facts.setup_execute.is_empty() && !poqexec {
        lines.push(format!("SetupExecute runs: {}", facts.setup_execute.join("; ")));
    }
    if facts.renames > 0 {
        lines.push(format!(
            "smss renames or deletes files: {} names in PendingFileRenameOperations, {} of them of the component store",
            facts.renames, facts.servicing_renames
        ));
    }
    lines.push(match facts.installer_start {
        Some(2) => "TrustedInstaller starts by itself and goes on with what is pending".into(),
        Some(3) => "TrustedInstaller starts only when it is asked for".into(),
        Some(4) => {
            "TrustedInstaller is disabled: no update can be installed until it is set back to demand".into()
        }
        Some(other) => format!("TrustedInstaller has start {other}"),
        None => "there is no service TrustedInstaller".into(),
    });
    let orphaned: Vec<&str> = updates
        .packages
        .iter()
        .filter(|package| package.orphaned)
        .map(|package| package.identity.as_str())
        .collect();
    if !orphaned.is_empty() {
        lines.push(format!(
            "orphaned packages stay as they are: {}; when Windows runs: DISM /Online /Remove-Package /PackageName:NAME, then DISM /Online /Cleanup-Image /RestoreHealth, sfc /scannow",
            orphaned.iter().take(5).copied().collect::<Vec<_>>().join(", ")
        ));
    }
    lines
}
