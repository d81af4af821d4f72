//! Sessions of the servicing stack: `Component Based Servicing\SessionsPending\<high>_<low>`, each with the times of its phases.
//!
//! Windows 7 keeps finished sessions there (`Complete` = 1); later versions remove them. A phase `N_Name` has a text and a FILETIME in
//! `N_NameTimeHigh` and `N_NameTimeLow`. Not documented by Microsoft; read from hives.

use super::{SERVICING, below, value_of};
use crate::unread::{Unread, Unseen, Weight};
use serde::Serialize;
use vmrescue_base::error::Result;
use vmrescue_base::time::FileTime;
use vmrescue_registry::{Hive, Key};

/// Sessions that are read.
const MAX_SESSIONS: usize = 4096;

/// A phase of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionPhase {
    /// Name, such as `Queued`, `Staged`, `Installed`, `Pended`, `ShutdownStart`, `StartupFinish`, `Complete`.
    pub name: String,
    /// When it was reached, UTC.
    pub time: String,
    #[serde(skip)]
    pub(super) at: FileTime,
}

/// A session.
#[derive(Debug, Clone, Serialize)]
pub struct Session {
    /// Its id, the time it was made as two numbers.
    pub id: String,
    /// It ended.
    pub complete: bool,
    /// No other session may run before it ended.
    pub exclusive: bool,
    /// Starts of the machine that it took.
    pub reboot_counter: Option<u32>,
    /// Its phases in the order of time.
    pub phases: Vec<SessionPhase>,
}

impl Session {
    /// The phase that it reached last, when it has one.
    pub fn last_phase(&self) -> Option<&SessionPhase> {
        self.phases.last()
    }
}

/// All sessions, the oldest first.
pub(super) fn sessions(hive: &Hive, unseen: &Unseen) -> Result<Vec<Session>> {
    let Some(list) = hive.key(&format!(r"{SERVICING}\SessionsPending"))? else { return Ok(Vec::new()) };
    let place = format!(r"HKLM\SOFTWARE\{SERVICING}\SessionsPending");
    let keys = below(&list, &place, unseen).into_iter().take(MAX_SESSIONS);
    let mut found: Vec<Session> = keys.map(|key| session(&key, &place, unseen)).collect();
    found.sort_by_key(|session| session.phases.first().map(|phase| phase.at));
    Ok(found)
}

fn session(key: &Key<'_>, place: &str, unseen: &Unseen) -> Session {
    let get = |name: &str| value_of(key, place, name, unseen).and_then(|value| value.as_u32());
    let mut phases = Vec::new();
    let (values, lost) = key.values_lenient();
    for e in &lost {
        unseen.note(Unread::of("the history of updates", place, Weight::Partial, e));
    }
    for value in values {
        let name = value.name();
        let Some(phase) = name.strip_suffix("TimeHigh") else { continue };
        let (Some(high), Some(low)) = (value.as_u32(), get(&format!("{phase}TimeLow"))) else { continue };
        let at = FileTime(u64::from(high) << 32 | u64::from(low));
        let name = phase.split_once('_').map_or(phase, |(_, name)| name).to_string();
        phases.push(SessionPhase { name, time: at.to_string(), at });
    }
    // The start and the end of one phase may have one time; `Complete` is always the last.
    phases.sort_by_key(|phase| (phase.at, phase.name == "Complete"));
    Session {
        id: key.name(),
        complete: get("Complete") == Some(1),
        exclusive: get("Exclusive").is_some_and(|value| value != 0),
        reboot_counter: get("RebootCounter"),
        phases,
    }
}
