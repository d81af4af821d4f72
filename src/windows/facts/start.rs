//! How the machine starts: firmware, system partition, boot store, the default entry.

use super::Source;
use crate::bcd::{Options, view};
use crate::{boot_layout, boot_stores, load_store};
use serde::Serialize;

/// How the machine starts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Start {
    /// `uefi` or `bios`, by the partition table.
    pub firmware: &'static str,
    /// What Windows last saw itself: `uefi` or `bios`.
    pub firmware_seen_by_windows: Option<&'static str>,
    /// Numbers of the partitions that the firmware would start from.
    pub system_partitions: Vec<u32>,
    /// The boot store that was read.
    pub store: Option<String>,
    /// Seconds that the menu waits.
    pub timeout: Option<String>,
    /// Windows loaders, the default one first.
    pub entries: Vec<StartEntry>,
}

/// A Windows loader in the boot store.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StartEntry {
    /// GUID with braces, or an alias.
    pub id: String,
    /// Starts when nobody chooses.
    pub default: bool,
    /// Its name in the menu.
    pub description: Option<String>,
    /// Where the loader is.
    pub device: Option<String>,
    /// The loader's path.
    pub path: Option<String>,
    /// `Minimal`, `Network`: starts in safe mode.
    pub safe_boot: Option<String>,
    /// Settings that make a start unlike others, such as `testsigning Yes`.
    pub unusual: Vec<String>,
}

/// Elements that change how Windows starts.
const UNUSUAL: [&str; 12] = [
    "testsigning",
    "nointegritychecks",
    "recoveryenabled",
    "bootstatuspolicy",
    "debug",
    "bootlog",
    "sos",
    "truncatememory",
    "removememory",
    "numproc",
    "hypervisorlaunchtype",
    "ems",
];

pub(super) fn read(source: &Source<'_>) -> Start {
    let machine = source.machine;
    let layout = boot_layout(machine);
    let word = |uefi: bool| if uefi { "uefi" } else { "bios" };
    let mut start = Start {
        firmware: word(layout.firmware == crate::bcd::Firmware::Uefi),
        firmware_seen_by_windows: match source.system.number(r"%\Control", "PEFirmwareType") {
            Some(1) => Some("bios"),
            Some(2) => Some("uefi"),
            _ => None,
        },
        system_partitions: layout.system.iter().map(|index| machine.volumes[*index].number).collect(),
        ..Start::default()
    };
    // A disk without a system partition, or with several: all stores that there are are asked.
    let own = layout.system_volume(machine, None).map(|volume| layout.store_path(machine, volume)).ok();
    for path in own.into_iter().chain(boot_stores(machine)) {
        match load_store(machine, &path) {
            Ok(Some((_, store))) => {
                start.store = Some(path);
                read_store(&mut start, source, &store);
                break;
            }
            Ok(None) => {}
            Err(e) => source.notes.add(format!("{path}: {e}")),
        }
    }
    start
}

fn read_store(start: &mut Start, source: &Source<'_>, store: &crate::bcd::Store) {
    let default = store.default_entry().map(|object| format!("{{{}}}", object.id));
    for object in view(store, &source.machine.disk_map(), Options { aliases: true }) {
        let element = |name: &str| {
            let found = object.elements.iter().find(|element| element.name == name);
            found.map(|element| element.value.join(", ")).filter(|text| !text.is_empty())
        };
        if object.object_type == "0x10100002" {
            start.timeout = element("timeout");
        }
        if object.object_type != "0x10200003" {
            continue;
        }
        let unusual = UNUSUAL.iter().filter_map(|name| element(name).map(|value| format!("{name} {value}")));
        start.entries.push(StartEntry {
            default: default.as_ref() == Some(&object.identifier),
            id: object.alias.clone().unwrap_or_else(|| object.identifier.clone()),
            description: element("description"),
            device: element("device"),
            path: element("path"),
            safe_boot: element("safeboot"),
            unusual: unusual.collect(),
        });
    }
    start.entries.sort_by_key(|entry| !entry.default);
}
