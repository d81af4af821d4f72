//! Where the boot store leads: the entry that starts, and every element of it that can send the boot manager or the loader elsewhere.
//!
//! Missing: what a boot menu offers besides, and entries inside of a RAM disk or virtual disk, whose files are not looked into.

use crate::files::Kind;
use crate::screens::{Fault, Part};
use crate::{Link, Outcome, Walk};
use vmrescue_base::error::Result;
use vmrescue_base::guid::Guid;
use vmrescue_fs::resolve;
use vmrescue_windows::bcd::names::{TYPE_MEMDIAG, TYPE_NTLDR, TYPE_OSLOADER};
use vmrescue_windows::bcd::{Device, Firmware, Object, PartitionRef, Store, Value};
use vmrescue_windows::{BootLayout, Installation, Machine, Unread, Unseen, Weight, load_store};

const DEVICE: u32 = 0x1100_0001;
const PATH: u32 = 0x1200_0002;
const OSDEVICE: u32 = 0x2100_0001;
const SYSTEMROOT: u32 = 0x2200_0002;
const KERNEL: u32 = 0x2200_0011;
const HAL: u32 = 0x2200_0012;
const WINPE: u32 = 0x2600_0022;
const BOOTSEQUENCE: u32 = 0x2400_0002;
const RAMDISK_SDI_DEVICE: u32 = 0x3100_0003;
const RAMDISK_SDI_PATH: u32 = 0x3200_0004;

/// The entry that starts by itself, and where it leads.
#[derive(Debug, Clone, Default)]
pub struct Started {
    /// Guest path of the store.
    pub store: String,
    /// The entry; `None` when the store names none that is there.
    pub entry: Option<Guid>,
    /// It is the one of the next start only (`bootsequence`).
    pub once: bool,
    /// It starts something other than an installed Windows: what.
    pub other: Option<String>,
    /// The kernel that it names.
    pub kernel: Option<String>,
    /// The HAL that it names.
    pub hal: Option<String>,
    /// Elements that lead nowhere, in words, with the kind of fault.
    pub astray: Vec<(Fault, String)>,
    /// Volume (index) and path of the loader, when it lies on a partition of this disk.
    pub loader: Option<(usize, String)>,
    /// What of its way could not be read.
    pub unread: Vec<Unread>,
}

/// The entry that the boot manager of this disk starts; `None` without a store.
///
/// # Errors
/// Of reading the store.
pub fn started(machine: &Machine, layout: &BootLayout) -> Result<Option<Started>> {
    let Some(volume) = layout.system.first().or(layout.unmarked.first()).copied() else { return Ok(None) };
    let path = layout.store_path(machine, volume);
    let Some((_, store)) = load_store(machine, &path)? else { return Ok(None) };
    Ok(Some(follow(machine, volume, path, &store)))
}

/// Follows the entry of a store that lies on the volume `system`.
pub fn follow(machine: &Machine, system: usize, path: String, store: &Store) -> Started {
    let mut found = Started { store: path, ..Started::default() };
    let next = store.bootmgr().and_then(|manager| manager.get(BOOTSEQUENCE));
    let next = next.and_then(|value| value.objects().first()).and_then(|id| store.object(*id));
    found.once = next.is_some();
    let Some(entry) = next.or_else(|| store.default_entry()) else { return found };
    found.entry = Some(entry.id);
    found.kernel = entry.text(KERNEL).filter(|name| !name.is_empty()).map(String::from);
    found.hal = entry.text(HAL).filter(|name| !name.is_empty()).map(String::from);
    let way = Way { machine, system, store, unseen: Unseen::default() };
    found.other = match entry.object_type {
        TYPE_OSLOADER if entry.get(WINPE).and_then(Value::as_boolean) == Some(true) => {
            Some("Windows PE: the recovery environment, or Setup".into())
        }
        TYPE_OSLOADER => None,
        TYPE_MEMDIAG => Some("the memory test".into()),
        TYPE_NTLDR => Some("NTLDR, an older Windows".into()),
        _ => Some("another program than the loader of Windows".into()),
    };
    for (element, what) in [(DEVICE, PATH), (OSDEVICE, SYSTEMROOT)] {
        if element == OSDEVICE && entry.object_type != TYPE_OSLOADER {
            continue;
        }
        way.element(entry, element, what, &mut found);
    }
    found.unread = way.unseen.list();
    found
}

struct Way<'a> {
    machine: &'a Machine,
    /// The volume that the boot manager came from.
    system: usize,
    store: &'a Store,
    unseen: Unseen,
}

impl Way<'_> {
    /// Follows a device element and the path on it.
    fn element(&self, entry: &Object, element: u32, what: u32, found: &mut Started) {
        let name = format!("{{{}}} {}", entry.id, entry.element_name(element));
        let Some(device) = entry.get(element).and_then(Value::as_device) else { return };
        // A partition that is not there is named by a rule of its own.
        if self.machine.disk_map().resolve(device).is_dangling() {
            return;
        }
        match device.device() {
            Device::Ramdisk { device: on, path } => {
                self.file(&name, "the image of the RAM disk", on, path, found);
                if let Some(options) = self.store.object(device.options()) {
                    let sdi = options.get(RAMDISK_SDI_DEVICE).and_then(Value::as_device);
                    if let (Some(sdi), Some(path)) = (sdi, options.text(RAMDISK_SDI_PATH)) {
                        self.file(&name, "boot.sdi", sdi.device(), path, found);
                    }
                }
                found.other.get_or_insert_with(|| format!("a RAM disk: {path}"));
            }
            Device::VirtualDisk(inner) => {
                if let Device::File { device: on, path } = &**inner {
                    self.file(&name, "the virtual disk", on, path, found);
                    found.other.get_or_insert_with(|| format!("a virtual disk: {path}"));
                }
            }
            Device::File { device: on, path } => {
                self.file(&name, "the file", on, path, found);
            }
            on => {
                let Some(volume) = self.volume(on) else { return };
                self.path(entry, volume, what, found);
            }
        }
    }

    /// The volume that a device is; `None` for those that are looked for at the start.
    fn volume(&self, device: &Device) -> Option<usize> {
        match device {
            Device::Boot => Some(self.system),
            Device::Partition(id) => self.partition(*id),
            _ => None,
        }
    }

    fn partition(&self, id: PartitionRef) -> Option<usize> {
        let map = self.machine.disk_map();
        let number = map.by_id(id)?.number;
        self.machine.volumes.iter().position(|volume| volume.number == number)
    }

    /// A file that a device is made of.
    fn file(&self, name: &str, what: &str, on: &Device, path: &str, found: &mut Started) {
        let Some(volume) = self.volume(on) else { return };
        if let Some(why) = self.absent(volume, path) {
            found.astray.push((Fault::Missing, format!("{name}: {what}, {path}, {why}")));
        }
    }

    /// The path of an entry on its volume.
    fn path(&self, entry: &Object, volume: usize, what: u32, found: &mut Started) {
        let Some(path) = entry.text(what) else { return };
        let name = format!("{{{}}} {}", entry.id, entry.element_name(what));
        match self.absent(volume, path) {
            // The directory is there and the file is not: the entry is right, its loader is missing.
            Some(_) if what == PATH && self.has_directory_of(volume, path) => {
                found.loader = Some((volume, path.to_string()));
            }
            Some(why) => found.astray.push((Fault::Missing, format!("{name}: {path} {why}"))),
            None if what == PATH => found.loader = Some((volume, path.to_string())),
            None => {}
        }
    }

    /// True when the directory that a path names a file in is there.
    fn has_directory_of(&self, volume: usize, path: &str) -> bool {
        let directory = path.rsplit_once('\\').map_or("", |(directory, _)| directory);
        !directory.is_empty() && self.absent(volume, directory).is_none()
    }

    /// Why there is nothing at a path of a volume; `None` when there is something, or when that cannot be said.
    fn absent(&self, volume: usize, path: &str) -> Option<String> {
        let volume = &self.machine.volumes[volume];
        let fs = volume.fs.as_ref()?;
        let parts: Vec<&str> = path.split('\\').filter(|part| !part.is_empty()).collect();
        let found = resolve(&**fs, &parts);
        let place = format!("#{}:{path}", volume.number);
        // An error of the file system is no absence.
        match self.unseen.seen("where the boot store leads", place, Weight::Critical, found)? {
            None => Some(format!("does not exist on partition {}", volume.number)),
            Some(_) => None,
        }
    }
}

/// The links of the entry: where it leads, and the loader.
pub(crate) fn look(machine: &Machine, installation: &Installation, entry: &Started, walk: &mut Walk<'_>) {
    for (fault, words) in &entry.astray {
        let broken = walk.broken(Part::Entry, *fault, words.clone(), Outcome::Stops);
        walk.links.push(Link {
            part: Part::Entry,
            name: "the entry that starts".into(),
            place: entry.store.clone(),
            why: "chosen by the boot manager".into(),
            service: None,
            of: None,
            driver: None,
            broken: Some(broken),
        });
    }
    let own = entry.loader.as_ref().filter(|(volume, _)| *volume == installation.volume);
    let default = if walk.firmware == Firmware::Uefi { "winload.efi" } else { "winload.exe" };
    let path = match own {
        Some((_, path)) => path.split('\\').filter(|part| !part.is_empty()).map(String::from).collect(),
        // The entry starts something else, or nothing: the loader of this Windows is looked at all the same.
        None => ["Windows", "System32", default].map(String::from).to_vec(),
    };
    // A path that leads nowhere is said of the entry already.
    if machine.volumes[installation.volume].fs.is_some() && (own.is_some() || entry.astray.is_empty()) {
        walk.need(Part::Loader, &path, Kind::Image, "started by the boot manager");
    }
}
