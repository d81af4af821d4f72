//! What rules look at: one installation, with the boot store and the list of services read once.

use std::cell::OnceCell;
use std::sync::Arc;
use vmrescue_base::error::Result;
use vmrescue_base::text::fits;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystem, NodeId, read_file};
use vmrescue_registry::{Hive, Key};
use vmrescue_windows::bcd::Store;
use vmrescue_windows::events::{BootEvents, boot_events};
use vmrescue_windows::{
    BootLayout, HIVES, Installation, Machine, PeInfo, Service, Updates, boot_layout, load_store, services,
    updates,
};

/// Keys that one pattern may stand for.
const MAX_KEYS: usize = 4096;

/// An installation with what was read of it. What cannot be read has nothing to say: its own rule names it.
pub(super) struct Scene<'a> {
    pub(super) machine: &'a Machine,
    pub(super) installation: &'a Installation,
    store: OnceCell<Option<(String, Store)>>,
    services: OnceCell<Vec<Service>>,
    updates: OnceCell<Updates>,
    events: OnceCell<BootEvents>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(machine: &'a Machine, installation: &'a Installation) -> Scene<'a> {
        Scene {
            machine,
            installation,
            store: OnceCell::new(),
            services: OnceCell::new(),
            updates: OnceCell::new(),
            events: OnceCell::new(),
        }
    }

    /// A hive of `config`; `None` when it is missing or damaged.
    pub(super) fn hive(&self, name: &str) -> Option<Arc<Hive>> {
        self.machine.hive(self.installation, name).ok()
    }

    /// The control set of the next start, as a key's name.
    pub(super) fn control_set(&self) -> String {
        format!("ControlSet{:03}", self.installation.control_sets.default.max(1))
    }

    pub(super) fn layout(&self) -> BootLayout {
        boot_layout(self.machine)
    }

    /// The store that the firmware starts from, with its path; `None` when there is none that can be read.
    pub(super) fn store(&self) -> Option<&(String, Store)> {
        let read = || {
            let layout = self.layout();
            let volume = layout.system.first().copied()?;
            let path = layout.store_path(self.machine, volume);
            load_store(self.machine, &path).ok().flatten().map(|(_, store)| (path, store))
        };
        self.store.get_or_init(read).as_ref()
    }

    /// Services and drivers of the control set of the next start, with their files.
    pub(super) fn services(&self) -> &[Service] {
        let read = || {
            let set = self.installation.control_sets.default.max(1);
            self.hive("SYSTEM")
                .and_then(|hive| services(self.machine, self.installation, &hive, set, true).ok())
                .unwrap_or_default()
        };
        self.services.get_or_init(read)
    }

    pub(super) fn updates(&self) -> &Updates {
        self.updates.get_or_init(|| updates(self.machine, self.installation).unwrap_or_default())
    }

    /// What the logs say of starts, crashes, services and disks; nothing when there are none.
    pub(super) fn events(&self) -> &BootEvents {
        self.events.get_or_init(|| boot_events(self.machine, self.installation).unwrap_or_default())
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
                node: id,
                fs: Arc::clone(&fs),
            };
            if !pattern.contains(['*', '?']) {
                return Ok(fs.lookup(node, pattern)?.map(|id| found(pattern, id)).into_iter().collect());
            }
            let entries = fs.read_dir(node)?;
            Ok(entries.iter().filter(|e| fits(pattern, &e.name)).map(|e| found(&e.name, e.id)).collect())
        };
        find().unwrap_or_default()
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
        let mut left = MAX_KEYS;
        descend(&format!(r"HKLM\{name}"), hive.root(), &rest, &mut left, visit);
    }

    /// The text of a value, as reports show it: numbers in decimal, lists joined by `; `, the rest as hexadecimal digits.
    pub(super) fn value(&self, key: &str, name: &str) -> Option<String> {
        let mut found = None;
        self.keys(key, &mut |_, key| {
            found = found.take().or_else(|| key.value(name).ok().flatten().map(|value| value_text(&value)));
        });
        found
    }
}

fn descend(path: &str, key: Key<'_>, rest: &[&str], left: &mut usize, visit: &mut dyn FnMut(&str, &Key<'_>)) {
    let Some((part, rest)) = rest.split_first() else {
        if *left > 0 {
            *left -= 1;
            visit(path, &key);
        }
        return;
    };
    if part.contains(['*', '?']) {
        for sub in key.subkeys_lenient().0.into_iter().filter(|sub| fits(part, &sub.name())) {
            descend(&format!("{path}\\{}", sub.name()), sub, rest, left, visit);
        }
    } else if let Ok(Some(sub)) = key.subkey(part) {
        descend(&format!("{path}\\{part}"), sub, rest, left, visit);
    }
}

/// A value as text.
pub(super) fn value_text(value: &vmrescue_registry::Value<'_>) -> String {
    if let Some(number) = value.as_u32() {
        return number.to_string();
    }
    if let Some(list) = value.as_multi_string() {
        return list.join("; ");
    }
    value.as_string().unwrap_or_else(|| vmrescue_base::text::hex(&value.data().unwrap_or_default()))
}

/// A file that is there.
pub(super) struct FoundFile {
    /// Its guest path.
    pub(super) path: String,
    pub(super) node: NodeId,
    pub(super) fs: Arc<dyn FileSystem>,
}

impl FoundFile {
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        read_file(&*self.fs, self.node, "")
    }

    pub(super) fn pe(&self) -> Result<PeInfo> {
        PeInfo::parse(&self.bytes()?)
    }

    pub(super) fn version(&self) -> Option<String> {
        self.pe().ok().and_then(|pe| pe.file_version)
    }
}
