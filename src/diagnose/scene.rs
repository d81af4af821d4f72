//! What rules look at: one installation, with the boot store and the list of services read once.

use super::verdict::{Kind, Readings};
use std::cell::OnceCell;
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Result};
use vmrescue_base::text::fits;
use vmrescue_boot::Chain;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystem, Metadata, NodeId, read_file};
use vmrescue_registry::{Hive, Key, Value, ValueData};
use vmrescue_windows::bcd::Store;
use vmrescue_windows::events::{BootEvents, boot_events};
use vmrescue_windows::{
    BootLayout, Content, HIVES, Installation, Machine, Service, Unread, Unseen, Updates, Weight, boot_layout,
    load_store, services_seen, updates,
};

/// Keys that one pattern may stand for.
const MAX_KEYS: usize = 4096;

/// An installation with what was read of it. What cannot be read is noted in `unseen`, where every rule's look ends.
pub(super) struct Scene<'a> {
    pub(super) machine: &'a Machine,
    pub(super) installation: &'a Installation,
    pub(super) unseen: &'a Unseen,
    store: OnceCell<Option<(String, Store)>>,
    services: OnceCell<Vec<Service>>,
    chain: OnceCell<Option<Chain>>,
    hives: OnceCell<Vec<(&'static str, Option<Error>)>>,
    /// COMPONENTS, which several rules ask for: held, so that it is read once.
    components: OnceCell<Option<Arc<Hive>>>,
    updates: OnceCell<Updates>,
    events: OnceCell<BootEvents>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(machine: &'a Machine, installation: &'a Installation, unseen: &'a Unseen) -> Scene<'a> {
        Scene {
            machine,
            installation,
            unseen,
            store: OnceCell::new(),
            services: OnceCell::new(),
            chain: OnceCell::new(),
            hives: OnceCell::new(),
            components: OnceCell::new(),
            updates: OnceCell::new(),
            events: OnceCell::new(),
        }
    }

    /// A hive of `config`; `None` when it is missing, or cannot be read and is noted.
    pub(super) fn hive(&self, name: &str) -> Option<Arc<Hive>> {
        let place = format!(r"{}\System32\config\{name}", self.installation.path);
        let weight = if name.eq_ignore_ascii_case("SYSTEM") { Weight::Critical } else { Weight::Partial };
        self.unseen.found("a registry hive", place, weight, self.machine.hive(self.installation, name))
    }

    /// The hives of `config` that are there or should be, each with why it cannot be read.
    pub(super) fn hives(&self) -> &[(&'static str, Option<Error>)] {
        let read = || {
            let components = self.machine.hive(self.installation, "COMPONENTS");
            // Why it cannot be read is told below.
            self.components.get_or_init(|| components.ok());
            let hives = HIVES.iter().map(|name| (*name, self.machine.hive(self.installation, name).err()));
            // Hives that not every Windows has.
            let optional = |name: &str| matches!(name, "COMPONENTS" | "DRIVERS");
            let absent = |e: &Option<Error>| e.as_ref().is_some_and(|e| e.kind() == ErrorKind::NotFound);
            hives.filter(|(name, e)| !(optional(name) && absent(e))).collect()
        };
        self.hives.get_or_init(read)
    }

    /// The control set of the next start, as a key's name.
    pub(super) fn control_set(&self) -> String {
        format!("ControlSet{:03}", self.installation.control_sets.default.max(1))
    }

    pub(super) fn layout(&self) -> BootLayout {
        boot_layout(self.machine)
    }

    /// The store that the firmware starts from, with its path; `None` when there is none, or none that can be read, which is noted.
    pub(super) fn store(&self) -> Option<&(String, Store)> {
        let read = || {
            let layout = self.layout();
            let volume = layout.system.first().copied()?;
            let path = layout.store_path(self.machine, volume);
            let loaded = load_store(self.machine, &path);
            let loaded =
                self.unseen.found("the boot configuration store", &path, Weight::Critical, loaded).flatten();
            loaded.map(|(_, store)| (path, store))
        };
        self.store.get_or_init(read).as_ref()
    }

    /// Services and drivers of the control set of the next start, with their files.
    pub(super) fn services(&self) -> &[Service] {
        let read = || {
            let set = self.installation.control_sets.default.max(1);
            let Some(hive) = self.hive("SYSTEM") else { return Vec::new() };
            let list = services_seen(self.machine, self.installation, &hive, set, true, self.unseen);
            let place = format!(r"HKLM\SYSTEM\{}\Services", self.control_set());
            // A control set without services is no healthy one: nothing is "not there" here.
            let list = self.unseen.seen("services and drivers", place, Weight::Critical, list);
            // Noted just now.
            list.unwrap_or_default()
        };
        self.services.get_or_init(read)
    }

    /// What the boot manager, the loader and the kernel walk; `None` when the volume of Windows cannot be read.
    pub(super) fn chain(&self) -> Option<&Chain> {
        let walk = || {
            let chain = vmrescue_boot::walk(self.machine, self.installation);
            let chain =
                self.unseen.seen("the boot chain", &self.installation.path, Weight::Critical, chain)?;
            // What has no place is a whole hive or store, which the rules of these name.
            for unread in chain.unread.iter().filter(|unread| !unread.place.is_empty()) {
                self.unseen.note(unread.clone());
            }
            Some(chain)
        };
        self.chain.get_or_init(walk).as_ref()
    }

    pub(super) fn updates(&self) -> &Updates {
        let read = || {
            let found = updates(self.machine, self.installation);
            let found = self.unseen.seen("packages and pending updates", "", Weight::Partial, found);
            // Noted just now.
            let found = found.unwrap_or_default();
            found.unread.iter().for_each(|unread| self.unseen.note(unread.clone()));
            found
        };
        self.updates.get_or_init(read)
    }

    /// What the logs say of starts, crashes, services and disks; nothing when there are none.
    pub(super) fn events(&self) -> &BootEvents {
        let read = || {
            let found = boot_events(self.machine, self.installation);
            let found = self.unseen.seen("event logs", "", Weight::Partial, found);
            // Noted just now.
            let found = found.unwrap_or_default();
            for defect in found.defects.iter().filter(|defect| defect.code == "event-log-unreadable") {
                self.unseen.note(Unread::new("an event log", "", defect.to_string(), Weight::Partial));
            }
            found
        };
        self.events.get_or_init(read)
    }

    /// What was read, for a report.
    pub(super) fn into_readings(self) -> Readings {
        self.services();
        self.updates();
        self.events();
        Readings {
            services: self.services.into_inner().unwrap_or_default(),
            updates: self.updates.into_inner().unwrap_or_default(),
            events: self.events.into_inner().unwrap_or_default(),
        }
    }

    /// What was looked at of the installation, for people.
    pub(super) fn looked_at(&self, kind: Kind) -> Vec<String> {
        let mut list = Vec::new();
        if kind != Kind::BareVolume {
            list.push(match (kind, self.store()) {
                (Kind::Ntldr, _) => "boot files of NTLDR".to_string(),
                (_, Some((path, store))) => {
                    format!("boot files and boot store: {path} with {} objects", store.objects.len())
                }
                (_, None) => "boot files; the boot store could not be read".to_string(),
            });
        }
        let whole: Vec<&str> =
            self.hives().iter().filter(|(_, problem)| problem.is_none()).map(|(name, _)| *name).collect();
        list.push(format!("hives: {}", whole.join(", ")));
        let boot = self.services().iter().filter(|service| service.start == Some(0)).count();
        list.push(format!(
            "services and drivers: {}, {boot} start at boot, with their files",
            self.services().len()
        ));
        let events = self.events();
        list.push(format!("event logs: {}", events.logs.len()));
        list
    }

    /// Fills `${windows}` into a path.
    pub(super) fn path(&self, text: &str) -> String {
        text.replace("${windows}", &self.installation.path)
    }

    /// Files whose name fits the last part of a path; nothing where the path leads nowhere.
    pub(super) fn files(&self, path: &str) -> Vec<FoundFile> {
        let path = self.path(path);
        let Some((directory, pattern)) = path.rsplit_once('\\') else { return Vec::new() };
        let place = if directory.ends_with(':') { format!("{directory}\\") } else { directory.to_string() };
        let find = || -> Result<Vec<FoundFile>> {
            let (volume, node) = self.machine.resolve(&GuestPath::parse(&place)?)?;
            let Some(node) = node else { return Ok(Vec::new()) };
            let fs = self.machine.file_system(volume)?;
            let found = |name: &str, id| FoundFile {
                path: format!("{directory}\\{name}"),
                volume,
                node: id,
                fs: Arc::clone(&fs),
            };
            if !pattern.contains(['*', '?']) {
                return Ok(fs.lookup(node, pattern)?.map(|id| found(pattern, id)).into_iter().collect());
            }
            let entries = fs.read_dir(node)?;
            Ok(entries.iter().filter(|e| fits(pattern, &e.name)).map(|e| found(&e.name, e.id)).collect())
        };
        let found = match find() {
            // A file where the path has a directory: there is nothing below it.
            Err(e) if e.kind() == ErrorKind::Invalid => Ok(Vec::new()),
            other => other,
        };
        // What is not there has no files; the rest was noted.
        self.unseen.found("a file or directory", &path, Weight::Partial, found).unwrap_or_default()
    }

    /// The one file of a path.
    pub(super) fn file(&self, path: &str) -> Option<FoundFile> {
        self.files(path).into_iter().next()
    }

    /// Calls `visit` with every key that a path of `HKLM` names; parts with `*` or `?` stand for all that fit.
    pub(super) fn keys(&self, path: &str, visit: &mut dyn FnMut(&str, &Key<'_>)) {
        let mut parts: Vec<&str> = path.split('\\').filter(|part| !part.is_empty()).collect();
        if parts.first().is_some_and(|first| first.eq_ignore_ascii_case("HKLM")) {
            parts.remove(0);
        }
        let Some((name, rest)) = parts.split_first() else { return };
        let Some(name) = HIVES.iter().find(|hive| hive.eq_ignore_ascii_case(name)) else { return };
        let Some(hive) = self.hive(name) else { return };
        let set = self.control_set();
        let rest: Vec<&str> = rest
            .iter()
            .map(|part| if part.eq_ignore_ascii_case("CurrentControlSet") { set.as_str() } else { *part })
            .collect();
        let mut walk = Walk { left: MAX_KEYS, unseen: self.unseen, visit };
        walk.descend(&format!(r"HKLM\{name}"), hive.root(), &rest);
    }

    /// The text of a value, as reports show it: numbers in decimal, lists joined by `; `, the rest as hexadecimal digits.
    pub(super) fn value(&self, key: &str, name: &str) -> Option<String> {
        let mut found = None;
        self.keys(key, &mut |path, key| {
            found = found
                .take()
                .or_else(|| self.value_of(path, key, name).and_then(|value| self.text(path, &value)));
        });
        found
    }

    /// A value of a key at hand; `None` when it is not there, or cannot be read and is noted.
    pub(super) fn value_of<'k>(&self, path: &str, key: &Key<'k>, name: &str) -> Option<Value<'k>> {
        self.unseen
            .seen("a registry value", format!("{path}: {name}"), Weight::Partial, key.value(name))
            .flatten()
    }

    /// A value as text; `None` when its data cannot be read, which is noted.
    pub(super) fn text(&self, path: &str, value: &Value<'_>) -> Option<String> {
        let place = || format!("{path}: {}", value.name());
        self.unseen.seen("a registry value", place(), Weight::Partial, value_text(value))
    }

    /// The bytes of a file; `None` when they cannot be read, which is noted.
    pub(super) fn bytes(&self, file: &FoundFile) -> Option<Vec<u8>> {
        self.unseen.seen("a file", &file.path, Weight::Partial, file.bytes())
    }

    /// The version in a file's resources; `None` for one that is no program, or has none.
    pub(super) fn version(&self, file: &FoundFile) -> Option<String> {
        let program = self.machine.program(file.volume, file.node, false);
        let program = self.unseen.seen("a file", &file.path, Weight::Partial, program)?;
        // That a file is no whole program is said by the rules over program files.
        program.info().and_then(|pe| pe.file_version.clone())
    }

    /// Why a file is no whole program; `None` for one that is, and for one that cannot be read, which is noted.
    pub(super) fn broken(&self, file: &FoundFile) -> Option<String> {
        let program = self.machine.program(file.volume, file.node, false);
        let program = self.unseen.seen("a file", &file.path, Weight::Partial, program)?;
        match &program.content {
            Content::Program(_) => None,
            Content::Empty => Some("the file is empty".into()),
            Content::Zeroed => Some("the file is filled with zeros".into()),
            Content::Broken(why) => Some(why.clone()),
        }
    }

    /// The metadata of a file; `None` when they cannot be read, which is noted.
    pub(super) fn metadata(&self, file: &FoundFile) -> Option<Metadata> {
        self.unseen.seen("a file", &file.path, Weight::Partial, file.fs.metadata(file.node))
    }

    /// Up to `length` bytes of a file from `start` on.
    pub(super) fn part(&self, file: &FoundFile, start: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let count = file.fs.read(file.node, "", start, &mut bytes);
        let count = self.unseen.seen("a file", &file.path, Weight::Partial, count)?;
        bytes.truncate(count);
        Some(bytes)
    }
}

/// A way down a hive by a path with patterns.
struct Walk<'w> {
    left: usize,
    unseen: &'w Unseen,
    visit: &'w mut dyn FnMut(&str, &Key<'_>),
}

impl Walk<'_> {
    fn descend(&mut self, path: &str, key: Key<'_>, rest: &[&str]) {
        let Some((part, rest)) = rest.split_first() else {
            if self.left > 0 {
                self.left -= 1;
                (self.visit)(path, &key);
            }
            return;
        };
        if part.contains(['*', '?']) {
            let (keys, lost) = key.subkeys_lenient();
            for e in &lost {
                self.unseen.note(Unread::of("a registry key", path, Weight::Partial, e));
            }
            for sub in keys.into_iter().filter(|sub| fits(part, &sub.name())) {
                self.descend(&format!("{path}\\{}", sub.name()), sub, rest);
            }
        } else {
            let below = format!("{path}\\{part}");
            let sub = self.unseen.seen("a registry key", &below, Weight::Partial, key.subkey(part));
            if let Some(sub) = sub.flatten() {
                self.descend(&below, sub, rest);
            }
        }
    }
}

/// A value as text.
fn value_text(value: &Value<'_>) -> Result<String> {
    Ok(match value.typed()? {
        ValueData::Number(number) => number.to_string(),
        ValueData::Texts(list) => list.join("; "),
        ValueData::Text(text) => text,
        ValueData::Bytes(bytes) => vmrescue_base::text::hex(&bytes),
    })
}

/// A file that is there.
pub(super) struct FoundFile {
    /// Its guest path.
    pub(super) path: String,
    /// Index of its volume.
    pub(super) volume: usize,
    pub(super) node: NodeId,
    pub(super) fs: Arc<dyn FileSystem>,
}

impl FoundFile {
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        read_file(&*self.fs, self.node, "")
    }
}
