//! Drivers that the boot disk needs: read from the machine's own record of its devices, not from a list of names.
//!
//! `Enum` names every device that Windows has seen, with the service that drives it; a child's instance begins with the `ParentIdPrefix` of its
//! parent. The disk of this installation is the one that has a volume at the offset of the Windows partition (`STORAGE\Volume\{DiskId}#offset`, by
//! the `DiskId` of its partition manager). From there the walk goes up to the root: disk, controller, bus, ACPI.
//!
//! A machine that keeps no such record (a generalised image), or whose disk may now hang on another controller, starts when *one* way is open: then
//! what is shut is told with less confidence. Missing: disks of iSCSI and of storage spaces.

use crate::drivers::Loaded;
use crate::screens::{Era, Fault, Part, usual};
use crate::{Broken, Link, Outcome, Walk};
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::error::Result;
use vmrescue_registry::{Hive, Key, ValueData};
use vmrescue_windows::bcd::Firmware;
use vmrescue_windows::{Installation, Machine, Service, Unread, Unseen, Weight};

/// Devices that are looked at; a large server has some thousands.
const MAX_DEVICES: usize = 1 << 16;
/// Steps from a disk to the root.
const MAX_STEPS: usize = 32;
const DISK_CLASS: &str = "{4d36e967-e325-11ce-bfc1-08002be10318}";
const CONTROLLER_CLASSES: [&str; 2] =
    ["{4d36e96a-e325-11ce-bfc1-08002be10318}", "{4d36e97b-e325-11ce-bfc1-08002be10318}"];
/// Controllers that no machine starts from.
const NO_CONTROLLERS: [&str; 4] = ["spaceport", "msiscsi", "iscsiprt", "vhdmp"];
/// What every path goes through, where the machine has it.
const COMMON: [&str; 6] = ["ACPI", "disk", "partmgr", "volmgr", "mountmgr", "volume"];
/// Buses by the name of their enumerator, for devices whose parent is not recorded.
const BUSES: [(&str, &str); 4] =
    [("PCI", "pci"), ("ACPI", "ACPI"), ("VMBUS", "vmbus"), ("PCIIDE", "intelide")];
/// Controllers of virtual machines with their buses, for machines without a record of devices.
const KNOWN: [(&str, &[&str]); 12] = [
    ("storvsc", &["vmbus"]),
    ("stornvme", &["pci", "vpci"]),
    ("storahci", &["pci"]),
    ("msahci", &["pci"]),
    ("atapi", &["pci", "intelide"]),
    ("LSI_SAS", &["pci"]),
    ("LSI_SCSI", &["pci"]),
    ("pvscsi", &["pci"]),
    ("vioscsi", &["pci"]),
    ("viostor", &["pci"]),
    ("xenvbd", &["xenbus"]),
    ("nvme", &["pci"]),
];

struct Device {
    /// `bus\device\instance`.
    id: String,
    bus: String,
    instance: String,
    service: String,
    class: String,
    prefix: Option<String>,
    disk_id: Option<String>,
}

/// One way from a disk, or a controller, up to the root.
#[derive(Debug, Clone, Default)]
struct Path {
    /// The device that it begins with.
    of: String,
    /// Devices on the way, itself first.
    ids: Vec<String>,
    services: Vec<String>,
}

/// What is read here, in words.
const DEVICES: &str = "the machine's record of its devices";

/// What of the record could not be read. Devices that no disk needs are recorded there, too: it does not decide alone.
struct Notes<'u>(&'u Unseen);

impl Notes<'_> {
    fn seen<T>(&self, place: &str, result: Result<Option<T>>) -> Option<T> {
        self.0.seen(DEVICES, format!(r"HKLM\SYSTEM\{place}"), Weight::Partial, result).flatten()
    }

    fn below<'k>(&self, place: &str, key: &Key<'k>) -> Vec<Key<'k>> {
        let (keys, lost) = key.subkeys_lenient();
        for e in &lost {
            self.0.note(Unread::of(DEVICES, format!(r"HKLM\SYSTEM\{place}"), Weight::Partial, e));
        }
        keys
    }

    fn text(&self, place: &str, key: &Key<'_>, name: &str) -> Option<String> {
        let value = self.seen(place, key.value(name))?;
        match self.seen(place, value.typed().map(Some))? {
            ValueData::Text(text) => Some(text).filter(|text| !text.is_empty()),
            // Another type is no text, for Windows, too.
            ValueData::Number(_) | ValueData::Bytes(_) | ValueData::Texts(_) => None,
        }
    }
}

/// All devices of the control set. What cannot be read is left out, and noted.
fn devices(hive: &Hive, set: u32, unseen: &Unseen) -> Vec<Device> {
    let (mut found, notes) = (Vec::new(), Notes(unseen));
    let place = format!(r"ControlSet{set:03}\Enum");
    let Some(buses) = notes.seen(&place, hive.key(&place)) else { return found };
    for bus in notes.below(&place, &buses) {
        let place = format!(r"{place}\{}", bus.name());
        for device in notes.below(&place, &bus) {
            let place = format!(r"{place}\{}", device.name());
            for instance in notes.below(&place, &device) {
                if found.len() >= MAX_DEVICES {
                    return found;
                }
                let place = format!(r"{place}\{}", instance.name());
                let text = |key: &Key<'_>, name| notes.text(&place, key, name);
                let partition_manager = notes
                    .seen(&place, instance.subkey("Device Parameters"))
                    .and_then(|key| notes.seen(&place, key.subkey("Partmgr")))
                    .and_then(|key| text(&key, "DiskId"));
                found.push(Device {
                    id: format!(r"{}\{}\{}", bus.name(), device.name(), instance.name()),
                    bus: bus.name(),
                    instance: instance.name(),
                    // Devices without a service, without a class are recorded.
                    service: text(&instance, "Service").unwrap_or_default(),
                    class: text(&instance, "ClassGUID").unwrap_or_default().to_lowercase(),
                    prefix: text(&instance, "ParentIdPrefix"),
                    disk_id: partition_manager,
                });
            }
        }
    }
    found
}

/// The device that a child hangs on.
fn parent<'d>(all: &'d [Device], child: &Device) -> Option<&'d Device> {
    let instance = child.instance.to_lowercase();
    let fits = |device: &&Device| {
        let prefix = device.prefix.as_ref().map(|prefix| format!("{}&", prefix.to_lowercase()));
        device.id != child.id && prefix.is_some_and(|prefix| instance.starts_with(&prefix))
    };
    let by_prefix = all.iter().find(fits);
    by_prefix.or_else(|| {
        let bus = BUSES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&child.bus))?.1;
        let drives = |device: &&Device| device.id != child.id && device.service.eq_ignore_ascii_case(bus);
        all.iter().find(drives)
    })
}

/// The services from a device up to the root.
fn path_of(all: &[Device], device: &Device) -> Path {
    let mut path = Path { of: device.id.clone(), ..Path::default() };
    let mut at = Some(device);
    for _ in 0..MAX_STEPS {
        let Some(device) = at else { break };
        path.ids.push(device.id.clone());
        let service = device.service.clone();
        // The HAL is no service.
        if !service.is_empty()
            && !service.contains('\\')
            && !path.services.iter().any(|known| known.eq_ignore_ascii_case(&service))
        {
            path.services.push(service);
        }
        at = parent(all, device);
    }
    path
}

/// Ways that the disk with a volume at `start` was reached by, and other controllers that the machine has had.
fn recorded(all: &[Device], start: u64) -> (Vec<Path>, Vec<Path>) {
    let is_disk =
        |device: &&Device| device.class == DISK_CLASS && !device.bus.eq_ignore_ascii_case("USBSTOR");
    let offset = format!("#{start:016X}");
    let ours: BTreeSet<String> = all
        .iter()
        .filter(|device| device.bus.eq_ignore_ascii_case("STORAGE"))
        .filter_map(|volume| volume.instance.to_uppercase().strip_suffix(&offset).map(str::to_lowercase))
        .collect();
    let is_ours =
        |device: &&Device| device.disk_id.as_ref().is_some_and(|id| ours.contains(&id.to_lowercase()));
    let mut disks: Vec<&Device> = all.iter().filter(is_disk).filter(is_ours).collect();
    if disks.is_empty() {
        disks = all.iter().filter(is_disk).collect();
    }
    // A disk whose controller is not recorded says nothing.
    let disks =
        disks.into_iter().map(|disk| path_of(all, disk)).filter(|path| path.services.len() > 1).collect();
    let is_controller = |device: &&Device| {
        CONTROLLER_CLASSES.contains(&device.class.as_str())
            && !device.service.is_empty()
            && !NO_CONTROLLERS.iter().any(|name| name.eq_ignore_ascii_case(&device.service))
            // A channel is where disks hang, the controller above it is not.
            && !all.iter().any(|child| {
                CONTROLLER_CLASSES.contains(&child.class.as_str())
                    && parent(all, child).is_some_and(|above| above.id == device.id)
            })
    };
    let others = all.iter().filter(is_controller).map(|device| path_of(all, device)).collect();
    (disks, others)
}

/// Devices that the disk of this installation hangs on, itself first, as `bus\device\instance`; none when that is not recorded, or when it may be one of
/// several disks.
pub fn boot_devices(
    machine: &Machine,
    installation: &Installation,
    hive: &Hive,
    set: u32,
    unseen: &Unseen,
) -> Vec<String> {
    let start = machine.volumes[installation.volume].range.start;
    match recorded(&devices(hive, set, unseen), start).0.as_slice() {
        [one] => one.ids.clone(),
        _ => Vec::new(),
    }
}

/// Why a service of the path is not there when the disk is needed; `None` when it is.
fn shut(name: &str, list: &[Service], loaded: &Loaded) -> Option<(Fault, String)> {
    if loaded.contains(&name.to_lowercase()) {
        return None;
    }
    let Some(service) = list.iter().find(|service| service.name.eq_ignore_ascii_case(name)) else {
        return Some((Fault::Missing, "there is no such service".into()));
    };
    Some(match (service.start, service.start_override) {
        (Some(0), Some(other)) if other != 0 => {
            (Fault::NotStarted, format!("StartOverride\\0 = {other}: left out at boot"))
        }
        (Some(0), _) => (
            Fault::Missing,
            "its file, or one that it imports, is not there: the loader leaves it out".into(),
        ),
        (Some(start), _) => (Fault::NotStarted, format!("Start = {start} ({})", service.start_name())),
        (None, _) => (Fault::NotStarted, "it has no Start".into()),
    })
}

pub(crate) fn look(
    machine: &Machine,
    installation: &Installation,
    (hive, set): (&Hive, u32),
    list: &[Service],
    loaded: &Loaded,
    unseen: &Unseen,
    walk: &mut Walk<'_>,
) {
    let is_there = |name: &str| list.iter().any(|service| service.name.eq_ignore_ascii_case(name));
    let mut found = Found { list, loaded, set, links: BTreeMap::new(), order: Vec::new() };
    for name in COMMON.into_iter().filter(|name| is_there(name)) {
        found.service(name, Outcome::Stops, "every disk needs it");
    }
    // Until Windows 8 it drives the volumes themselves (seen); then the driver `volume` does.
    if walk.era == Era::Win7 && is_there("volsnap") {
        found.service("volsnap", Outcome::Stops, "it drives the volume of Windows");
    }
    let start = machine.volumes[installation.volume].range.start;
    let (disks, others) = recorded(&devices(hive, set, unseen), start);
    let open = |path: &&Path| path.services.iter().all(|name| shut(name, list, loaded).is_none());
    if !disks.is_empty() {
        if !disks.iter().any(|path| open(&path)) {
            let other = others.iter().find(open);
            let outcome = if other.is_some() { Outcome::MayStop } else { Outcome::Stops };
            for path in &disks {
                let way = path.services.join(" < ");
                let mut why = format!("the disk {} hangs on {way}", path.of);
                if let Some(other) = other {
                    why.push_str(&format!("; the controller {} could be started", other.of));
                }
                for name in &path.services {
                    found.service(name, outcome, &why);
                }
            }
            if other.is_none() {
                for path in &others {
                    for name in &path.services {
                        found.service(
                            name,
                            Outcome::Stops,
                            &format!("the controller {} hangs on it", path.of),
                        );
                    }
                }
            }
        }
    } else {
        unrecorded(&mut found, walk.firmware, &others);
    }
    let mut stops = Vec::new();
    for (name, screen) in usual(walk.era, walk.firmware) {
        let own = list.iter().find(|service| service.name.eq_ignore_ascii_case(name));
        let Some(own) = own.filter(|service| service.start.is_some_and(|start| start != 0)) else { continue };
        let why = "every Windows starts it at boot";
        match screen {
            None => found.service(name, Outcome::MayStop, why),
            Some(screen) => {
                let words = format!("Start = {} ({})", own.start.unwrap_or_default(), own.start_name());
                stops.push(Link {
                    part: Part::Framework,
                    place: format!(r"HKLM\SYSTEM\ControlSet{set:03}\Services\{}", own.name),
                    why: why.into(),
                    service: Some(own.name.clone()),
                    of: None,
                    driver: Some(own.name.clone()),
                    name: own.name.clone(),
                    broken: Some(Broken { fault: Fault::NotStarted, words, outcome: Outcome::Stops, screen }),
                });
            }
        }
    }
    walk.links.extend(stops);
    let Found { links, mut order, .. } = found;
    let mut links: BTreeMap<String, (Link, Fault, String, Outcome)> = links;
    // What was switched comes before what was never there.
    order.sort_by_key(|name| links.get(name).is_none_or(|(_, fault, ..)| *fault != Fault::NotStarted));
    for name in order {
        let Some((mut link, fault, words, outcome)) = links.remove(&name) else { continue };
        link.broken = Some(walk.broken(Part::DiskPath, fault, words, outcome));
        walk.links.push(link);
    }
}

/// A machine without a record of its disks: one controller that it has a driver for must be open.
fn unrecorded(found: &mut Found<'_>, firmware: Firmware, others: &[Path]) {
    let (list, loaded) = (found.list, found.loaded);
    let is_there = |name: &str| list.iter().any(|service| service.name.eq_ignore_ascii_case(name));
    let closed = |name: &str| is_there(name) && shut(name, list, loaded).is_some();
    // UEFI machines have no IDE controller to start from.
    let there: Vec<&(&str, &[&str])> = KNOWN
        .iter()
        .filter(|(name, _)| is_there(name) && !(firmware == Firmware::Uefi && *name == "atapi"))
        .collect();
    if there.is_empty() {
        return;
    }
    let is_open = |(name, buses): &(&str, &[&str])| !closed(name) && !buses.iter().any(|bus| closed(bus));
    let open = there.iter().any(|way| is_open(way))
        || others.iter().any(|path| path.services.iter().all(|name| shut(name, list, loaded).is_none()));
    let outcome = if open { Outcome::MayStop } else { Outcome::Stops };
    for (name, buses) in there {
        let started = list.iter().find(|service| service.name.eq_ignore_ascii_case(name));
        // With another way open, a driver that is switched off plainly is somebody's choice; one that is overridden or left out is not.
        let chosen = started.is_some_and(|service| service.start != Some(0));
        if open && chosen {
            continue;
        }
        let why = if open {
            "a machine whose disk hangs on it does not start"
        } else {
            "no driver of a disk controller is started at boot"
        };
        for name in std::iter::once(name).chain(*buses).filter(|name| is_there(name)) {
            found.service(name, outcome, why);
        }
    }
}

/// Links of services that are shut, each once, in the order in which they were met.
struct Found<'a> {
    list: &'a [Service],
    loaded: &'a Loaded,
    set: u32,
    links: BTreeMap<String, (Link, Fault, String, Outcome)>,
    order: Vec<String>,
}

impl Found<'_> {
    fn service(&mut self, name: &str, outcome: Outcome, why: &str) {
        let Some((fault, words)) = shut(name, self.list, self.loaded) else { return };
        let key = name.to_lowercase();
        if self.links.contains_key(&key) {
            return;
        }
        let own = self.list.iter().find(|service| service.name.eq_ignore_ascii_case(name));
        let name = own.map_or(name.to_string(), |service| service.name.clone());
        let link = Link {
            part: Part::DiskPath,
            place: format!(r"HKLM\SYSTEM\ControlSet{:03}\Services\{name}", self.set),
            why: why.into(),
            service: Some(name.clone()),
            of: None,
            driver: Some(name.clone()),
            name,
            broken: None,
        };
        self.order.push(key.clone());
        self.links.insert(key, (link, fault, words, outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_base::text::utf16le_bytes;
    use vmrescue_base::time::FileTime;
    use vmrescue_registry::{DataType, HiveEditor};

    /// `bus\device\instance`, service, class, ParentIdPrefix, DiskId.
    type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

    fn hive(rows: &[Row<'_>]) -> Hive {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        for (id, service, class, prefix, disk_id) in rows {
            let key = format!(r"ControlSet001\Enum\{id}");
            let mut set = |key: &str, name: &str, text: &str| {
                if !text.is_empty() {
                    let data = utf16le_bytes(&format!("{text}\0"));
                    editor.set_value(key, name, DataType::SZ, &data).unwrap();
                }
            };
            set(&key, "Service", service);
            set(&key, "ClassGUID", class);
            set(&key, "ParentIdPrefix", prefix);
            set(&format!(r"{key}\Device Parameters\Partmgr"), "DiskId", disk_id);
        }
        Hive::parse(editor.finish(FileTime(0)).unwrap().bytes).unwrap()
    }

    /// A Generation 1 machine as Hyper-V makes it: the system on IDE, data on SCSI.
    fn generation_1() -> Hive {
        let (ide, scsi) = CONTROLLER_CLASSES.into();
        hive(&[
            (r"ACPI_HAL\PNP0C08\0", "ACPI", "", "2&1", ""),
            (r"ACPI\PNP0A03\0", "pci", "", "3&2", ""),
            (r"ACPI\VMBUS\0", "vmbus", "", "", ""),
            (r"PCI\VEN_8086&DEV_7111\3&2&0&39", "intelide", ide, "4&3", ""),
            (r"PCIIDE\IDEChannel\4&3&0&0", "atapi", ide, "5&4", ""),
            (r"IDE\DiskVirtual_HD\5&4&0&0.0.0", "disk", DISK_CLASS, "", "{1111}"),
            (r"VMBUS\{ba61}\{1}", "storvsc", scsi, "5&5", ""),
            (r"SCSI\Disk&Ven_Msft\5&5&0&000000", "disk", DISK_CLASS, "", "{2222}"),
            (r"STORAGE\Volume\{1111}#0000000000100000", "volume", "", "", ""),
            (r"STORAGE\Volume\{2222}#0000000001000000", "volume", "", "", ""),
        ])
    }

    #[test]
    fn the_way_to_the_disk_of_windows_is_read_from_the_devices() {
        let all = devices(&generation_1(), 1, &Unseen::default());
        let (disks, others) = recorded(&all, 0x10_0000);
        let ways: Vec<String> = disks.iter().map(|path| path.services.join(" ")).collect();
        assert_eq!(ways, ["disk atapi intelide pci ACPI"]);
        assert_eq!(disks[0].ids[1], r"PCIIDE\IDEChannel\4&3&0&0");
        let (disks, _) = recorded(&all, 0x100_0000);
        assert_eq!(disks[0].services.join(" "), "disk storvsc vmbus ACPI");
        // A volume that is not recorded: it may be any disk.
        assert_eq!(recorded(&all, 0x77_0000).0.len(), 2);
        let mut controllers: Vec<&str> = others.iter().map(|path| path.services[0].as_str()).collect();
        controllers.sort_unstable();
        assert_eq!(controllers, ["atapi", "storvsc"]);
    }

    #[test]
    fn a_device_that_is_its_own_parent_ends() {
        let rows =
            [(r"SCSI\Disk\1&1&0", "disk", DISK_CLASS, "1&1", ""), (r"PCI\A\1&1&1", "pci", "", "1&1", "")];
        let hive = hive(&rows);
        let all = devices(&hive, 1, &Unseen::default());
        assert!(path_of(&all, &all[0]).services.len() <= 2);
    }
}
