//! Updates: packages of the component based servicing with their states, what waits for the next start, and the story of the last one.
//!
//! * [`updates`]: packages, builds, sessions, what is pending, from the hives alone
//! * [`update_story`]: with pending.xml, the logs and the events: what the last update did, where it stopped, what the next start does
//!
//! States: Microsoft's "CBS Servicing States Chart". Missing: the database of Windows Update, persisted logs in cabinets.

mod history;
mod hresult;
mod logs;
mod pending_xml;
mod sessions;
mod story;
mod when;

pub use history::{AgentResult, BuildStep};
pub use hresult::code_name;
pub use logs::{LogEnd, LogLine, LogSession};
pub use pending_xml::{FileOperation, PendingXml, Queue, parse_pending_xml};
pub use sessions::{Session, SessionPhase};
pub use story::{Story, StoryLevel, StoryLine, update_story};

use super::machine::{Installation, Machine};
use super::unread::{Unread, Unseen, Weight};
use serde::Serialize;
use vmrescue_base::error::{ErrorKind, Result};
use vmrescue_base::time::FileTime;
use vmrescue_fs::path::GuestPath;
use vmrescue_registry::{Hive, Key, Value};

const SERVICING: &str = r"Microsoft\Windows\CurrentVersion\Component Based Servicing";

/// A package.
#[derive(Debug, Clone, Serialize)]
pub struct Package {
    /// Its identity, such as `Package_for_KB5062557~31bf3856ad364e35~amd64~~10.0.1.4`.
    pub identity: String,
    /// Number of its state.
    pub state: u32,
    /// Name of its state.
    pub state_name: &'static str,
    /// `KB` and its number, where the identity or the name of its file says it.
    pub kb: Option<String>,
    /// When it was installed, UTC.
    pub installed: Option<String>,
    /// Who installed it, such as `WindowsUpdateAgent`.
    pub client: Option<String>,
    /// Its state says that something is pending, and nothing that would finish it is there any more.
    pub orphaned: bool,
}

/// What is known of updates.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Updates {
    /// All packages, the last installed first.
    pub packages: Vec<Package>,
    /// What waits for the next start, each with its place.
    pub pending: Vec<String>,
    /// Builds that the installation had, the oldest first.
    pub builds: Vec<BuildStep>,
    /// Sessions of the servicing stack, the oldest first.
    pub sessions: Vec<Session>,
    /// What Windows Update says of its last work.
    pub agent: Vec<AgentResult>,
    /// What was asked for and could not be read: what it would have said is not known.
    #[serde(rename = "could_not_look", skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
    /// Something is there that would finish what is pending.
    #[serde(skip)]
    unfinished: bool,
}

/// The name of a state.
pub fn state_name(state: u32) -> &'static str {
    match state {
        0x0 => "absent",
        0x5 => "uninstall pending",
        0x10 => "resolving",
        0x20 => "resolved",
        0x30 => "staging",
        0x40 => "staged",
        0x50 => "superseded",
        0x60 => "install pending",
        0x65 => "partially installed",
        0x70 => "installed",
        0x80 => "permanent",
        _ => "broken",
    }
}

/// The first `KB` with digits in a text.
fn kb_of(text: &str) -> Option<String> {
    text.match_indices("KB").find_map(|(at, _)| {
        let digits: String = text[at + 2..].chars().take_while(char::is_ascii_digit).collect();
        (digits.len() >= 6).then(|| format!("KB{digits}"))
    })
}

/// Reads packages and pending work of an installation. Hives and keys that are missing have nothing to say.
///
/// # Errors
/// Of reading the disk; `Damaged` hives.
pub fn updates(machine: &Machine, installation: &Installation) -> Result<Updates> {
    let mut found = Updates::default();
    let unseen = Unseen::default();
    if let Some(hive) = optional(machine.hive(installation, "SOFTWARE"))? {
        packages(&hive, &mut found, &unseen)?;
        found.sessions = sessions::sessions(&hive, &unseen)?;
        found.agent = history::agent_results(&hive, &unseen)?;
        pending_software(&hive, &mut found, &unseen)?;
    }
    let system = optional(machine.hive(installation, "SYSTEM"))?;
    if let Some(hive) = &system {
        pending_system(hive, installation, &mut found)?;
    }
    found.builds = history::builds(&found.packages, system.as_deref(), &unseen)?;
    if let Some(hive) = optional(machine.hive(installation, "COMPONENTS"))? {
        for name in [
            "PendingXmlIdentifier",
            "PoqexecFailure",
            "ExecutionState",
            "RepairTransactionPended",
            "NextQueueEntryIndex",
        ] {
            if hive.root().value(name)?.is_some() {
                found.unfinished |= name == "PendingXmlIdentifier";
                found.pending.push(format!(r"HKLM\COMPONENTS: the value {name} is there"));
            }
        }
    }
    for file in [r"WinSxS\pending.xml", r"WinSxS\poqexec.log.pending", r"WinSxS\reboot.xml"] {
        let path = format!(r"{}\{file}", installation.path);
        if machine.resolve(&GuestPath::parse(&path)?)?.1.is_some() {
            found.unfinished = true;
            found.pending.push(format!("{path} is there"));
        }
    }
    // What nothing will finish is left behind; the remains of a session that is not exclusive do nothing by themselves.
    let unfinished = found.unfinished;
    for package in found.packages.iter_mut().filter(|package| matches!(package.state, 0x5 | 0x60)) {
        package.orphaned = !unfinished;
    }
    found.unread = unseen.list();
    found.packages.sort_by(|a, b| b.installed.cmp(&a.installed).then_with(|| a.identity.cmp(&b.identity)));
    Ok(found)
}

fn optional<T>(hive: Result<T>) -> Result<Option<T>> {
    match hive {
        Ok(hive) => Ok(Some(hive)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn number(key: &Key<'_>, name: &str) -> Result<Option<u32>> {
    Ok(key.value(name)?.and_then(|value| value.as_u32()))
}

/// The keys below that can be read; what cannot is noted.
fn below<'k>(key: &Key<'k>, place: &str, unseen: &Unseen) -> Vec<Key<'k>> {
    let (keys, lost) = key.subkeys_lenient();
    for e in &lost {
        unseen.note(Unread::of("the history of updates", place, Weight::Partial, e));
    }
    keys
}

/// A value that other entries do without; one that cannot be read is noted.
fn value_of<'k>(key: &Key<'k>, place: &str, name: &str, unseen: &Unseen) -> Option<Value<'k>> {
    match key.value(name) {
        Ok(value) => value,
        Err(e) => {
            let place = format!(r"{place}\{}: {name}", key.name());
            unseen.note(Unread::of("the history of updates", place, Weight::Partial, &e));
            None
        }
    }
}

fn packages(hive: &Hive, found: &mut Updates, unseen: &Unseen) -> Result<()> {
    let Some(list) = hive.key(&format!(r"{SERVICING}\Packages"))? else { return Ok(()) };
    for key in below(&list, &format!(r"HKLM\SOFTWARE\{SERVICING}\Packages"), unseen) {
        let Some(state) = number(&key, "CurrentState")? else { continue };
        let file = key.value("InstallName")?.and_then(|value| value.as_string()).unwrap_or_default();
        let location = key.value("InstallLocation")?.and_then(|value| value.as_string()).unwrap_or_default();
        let (high, low) = (number(&key, "InstallTimeHigh")?, number(&key, "InstallTimeLow")?);
        let time =
            high.zip(low).map(|(high, low)| FileTime(u64::from(high) << 32 | u64::from(low)).to_string());
        let identity = key.name();
        let kb = kb_of(&identity).or_else(|| kb_of(&file)).or_else(|| kb_of(&location));
        let client = key.value("InstallClient")?.and_then(|value| value.as_string());
        found.packages.push(Package {
            state,
            state_name: state_name(state),
            kb,
            installed: time,
            client,
            orphaned: false,
            identity,
        });
    }
    for package in found.packages.iter().filter(|package| matches!(package.state, 0x5 | 0x60)) {
        found.pending.push(format!("package {} is {}", package.identity, package.state_name));
    }
    Ok(())
}

fn pending_software(hive: &Hive, found: &mut Updates, unseen: &Unseen) -> Result<()> {
    for name in ["RebootPending", "RebootInProgress"] {
        if hive.key(&format!(r"{SERVICING}\{name}"))?.is_some() {
            found.unfinished = true;
            found.pending.push(format!(r"HKLM\SOFTWARE\{SERVICING}\{name} is there"));
        }
    }
    for name in ["SessionsPending", "PackagesPending"] {
        let Some(key) = hive.key(&format!(r"{SERVICING}\{name}"))? else { continue };
        // Windows 7 keeps sessions that ended.
        let place = format!(r"HKLM\SOFTWARE\{SERVICING}\{name}");
        let ended = |key: &Key<'_>| {
            value_of(key, &place, "Complete", unseen).and_then(|value| value.as_u32()) == Some(1)
        };
        let count = below(&key, &place, unseen).iter().filter(|key| !ended(key)).count();
        if count > 0 {
            found.unfinished |= name == "PackagesPending";
            found.pending.push(format!(r"HKLM\SOFTWARE\{SERVICING}\{name} has {count} entries"));
        }
        if number(&key, "Exclusive")?.is_some_and(|value| value != 0) {
            found.unfinished = true;
            found.pending.push(format!(r"HKLM\SOFTWARE\{SERVICING}\{name}: a session is exclusive"));
        }
    }
    let auto = r"Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired";
    if hive.key(auto)?.is_some() {
        found.pending.push(format!(r"HKLM\SOFTWARE\{auto} is there"));
    }
    Ok(())
}

fn pending_system(hive: &Hive, installation: &Installation, found: &mut Updates) -> Result<()> {
    let path = format!(r"ControlSet{:03}\Control\Session Manager", installation.control_sets.default.max(1));
    let Some(key) = hive.key(&path)? else { return Ok(()) };
    for name in ["SetupExecute", "PendingFileRenameOperations", "PendingFileRenameOperations2"] {
        let texts = key.value(name)?.and_then(|value| value.as_multi_string()).unwrap_or_default();
        if !texts.is_empty() {
            found.unfinished |= name == "SetupExecute";
            found.pending.push(format!(r"HKLM\SYSTEM\{path}: {name} has {} entries", texts.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_articles_are_found_in_names() {
        assert_eq!(kb_of("Package_for_KB5062557~31bf~amd64~~10.0.1.4").as_deref(), Some("KB5062557"));
        assert_eq!(kb_of("Package_for_RollupFix~31bf~amd64~~17763.7558.1.6"), None);
        assert_eq!(state_name(0x70), "installed");
    }
}
