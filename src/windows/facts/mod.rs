//! What is known of an installation, as one tree: `inspect` prints it as text, JSON and HTML. One file a subject.
//!
//! What is not said on the disk is `None` and never guessed. What could not be read is named in [`Facts::unreadable`].

mod antivirus;
mod azure;
mod crash;
mod identity;
mod network;
mod page_file;
mod recovery;
mod remote;
mod security;
mod servicing;
mod start;
mod users;
mod virtualization;

pub use antivirus::{Antivirus, AntivirusProduct};
pub use azure::{AzureAgent, AzureExtension};
pub use crash::{Crash, CrashSettings, DumpFile};
pub use identity::{Identity, TimeZone};
pub use network::{Adapter, Network};
pub use page_file::PageFile;
pub use recovery::Recovery;
pub use remote::{Firewall, FirewallProfile, FirewallRule, Rdp};
pub use security::Security;
pub use servicing::Servicing;
pub use start::{Start, StartEntry};
pub use users::User;
pub use virtualization::{DriverFamily, DriverState};

use super::keys::{Keys, Notes};
use super::machine::{Installation, Machine};
use super::roles::{Role, roles};
use serde::{Serialize, Serializer};
use std::sync::Arc;
use vmrescue_base::error::{ErrorKind, Result};
use vmrescue_base::time::FileTime;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystem, NodeId};
use vmrescue_registry::Hive;

/// Everything that `inspect` knows of one installation.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Names, version, times.
    pub identity: Identity,
    /// What the machine is for.
    pub roles: Vec<Role>,
    /// How it starts.
    pub start: Start,
    /// What waits for the next start, in short.
    pub servicing: Servicing,
    /// Drivers for virtual machines, by maker.
    pub virtualization: Vec<DriverFamily>,
    /// The agent of Azure; `None` when there is no trace of it.
    pub azure_agent: Option<AzureAgent>,
    /// Page files.
    pub page_files: Vec<PageFile>,
    /// Crash dumps: settings and files.
    pub crash: Crash,
    /// Adapters and addresses.
    pub network: Network,
    /// Remote Desktop.
    pub rdp: Rdp,
    /// Windows Firewall.
    pub firewall: Firewall,
    /// Local users; `None` when the SAM hive cannot be read.
    pub users: Option<Vec<User>>,
    /// Secure Boot, virtualization-based security, TPM.
    pub security: Security,
    /// Defender and other virus scanners.
    pub antivirus: Antivirus,
    /// The recovery environment.
    pub recovery: Recovery,
    /// The SYSTEM hive was read: settings of it that are `None` are not set.
    pub system_was_read: bool,
    /// The SOFTWARE hive was read.
    pub software_was_read: bool,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
}

/// What the readers of the subjects share.
pub(super) struct Source<'a> {
    machine: &'a Machine,
    installation: &'a Installation,
    system: Keys<'a>,
    software: Keys<'a>,
    notes: &'a Notes,
}

/// A time as RFC 3339, or null.
pub(super) fn time_text<S: Serializer>(
    time: &Option<FileTime>,
    out: S,
) -> std::result::Result<S::Ok, S::Error> {
    match time {
        Some(time) => out.collect_str(time),
        None => out.serialize_none(),
    }
}

fn hive(machine: &Machine, installation: &Installation, name: &str, notes: &Notes) -> Option<Arc<Hive>> {
    match machine.hive(installation, name) {
        Ok(hive) => Some(hive),
        Err(e) => {
            notes.add(format!("{name}: {e}"));
            None
        }
    }
}

/// Collects everything. Damage does not stop it: it is named in `unreadable`.
pub fn facts(machine: &Machine, installation: &Installation) -> Facts {
    let notes = Notes::default();
    let system = hive(machine, installation, "SYSTEM", &notes);
    let software = hive(machine, installation, "SOFTWARE", &notes);
    let set = installation.control_sets.default.max(1);
    let source = Source {
        machine,
        installation,
        system: Keys::new(system.as_deref(), "SYSTEM", set, &notes),
        software: Keys::new(software.as_deref(), "SOFTWARE", set, &notes),
        notes: &notes,
    };
    let sam = hive(machine, installation, "SAM", &notes);
    let mut facts = Facts {
        identity: identity::read(&source),
        // Noted when they cannot be read; a hive that is gone is noted above.
        roles: source.seen("roles", roles(machine, installation)).unwrap_or_default(),
        start: start::read(&source),
        servicing: servicing::read(&source),
        virtualization: virtualization::read(&source),
        azure_agent: azure::read(&source),
        page_files: page_file::read(&source),
        crash: crash::read(&source),
        network: network::read(&source),
        rdp: remote::rdp(&source),
        firewall: remote::firewall(&source),
        users: sam.as_deref().map(|hive| users::read(hive, &notes)),
        security: security::read(&source),
        antivirus: antivirus::read(&source),
        recovery: recovery::read(&source),
        system_was_read: source.system.are_known(),
        software_was_read: source.software.are_known(),
        unreadable: Vec::new(),
    };
    facts.unreadable = notes.into_vec();
    facts
}

impl Source<'_> {
    /// The guest path of a text with environment variables: `%SystemRoot%\MEMORY.DMP`, `\SystemRoot\...`, `C:\...`.
    fn guest_path(&self, text: &str) -> Option<String> {
        let text = text.trim().trim_matches('"');
        let lower = text.to_ascii_lowercase();
        for prefix in [r"%systemroot%", r"%windir%", r"\systemroot"] {
            if lower.starts_with(prefix) {
                return Some(format!("{}{}", self.installation.path, text.get(prefix.len()..)?));
            }
        }
        let drive = self.installation.path.split('\\').next().unwrap_or_default();
        if lower.starts_with("%systemdrive%") {
            return Some(format!("{drive}{}", text.get(13..)?));
        }
        let text = text.strip_prefix(r"\??\").unwrap_or(text);
        (text.get(1..3) == Some(r":\")).then(|| text.to_string())
    }

    /// The node of a guest path; `None` when it is not there. What cannot be read is noted.
    fn node(&self, path: &str) -> Option<(Arc<dyn FileSystem>, NodeId)> {
        // What the registry holds may be no path: then nothing lies there.
        let parsed = GuestPath::parse(path).ok()?;
        let resolved = match self.machine.resolve(&parsed) {
            // A volume that the disk does not have, a file where a directory should be: nothing lies there.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => return None,
            other => other,
        };
        let (volume, node) = self.seen(path, resolved)?;
        Some((self.seen(path, self.machine.file_system(volume))?, node?))
    }

    /// The value, or `None` and a note of why it cannot be read.
    fn seen<T>(&self, place: &str, result: Result<T>) -> Option<T> {
        self.notes.seen(place, result.map(Some))
    }

    /// A path below the volume of this installation.
    fn own(&self, rest: &str) -> String {
        let drive = self.installation.path.split('\\').next().unwrap_or_default();
        format!(r"{drive}\{rest}")
    }

    /// The start value of a service, if there is such a service.
    fn start_of(&self, service: &str) -> Option<u32> {
        self.system.number(&format!(r"%\Services\{service}"), "Start")
    }
}

/// The word for a service's start value.
pub(super) fn start_word(start: u32) -> &'static str {
    match start {
        0 => "boot",
        1 => "system",
        2 => "auto",
        3 => "demand",
        4 => "disabled",
        _ => "unknown",
    }
}
