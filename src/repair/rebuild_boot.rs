//! What `bcdboot C:\Windows` does, with the guest's own files: boot files to the system partition, and a boot store that starts this
//! installation. What is there and good is kept: first only what is wrong in the store is put right; a store that cannot be read
//! is made anew from the guest's template and the known defaults.

use super::change::{Change, Detail};
use super::plan::Planned;
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::Severity;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::time::FileTime;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{Attributes, FileSystem, NodeId, NodeKind, read_file, resolve};
use vmrescue_registry::{DataType, Hive, HiveEditor, rebuild};
use vmrescue_windows::bcd::names::{BOOTMGR, TYPE_BOOTMGR, TYPE_MEMDIAG, TYPE_OSLOADER, TYPE_RESUME};
use vmrescue_windows::bcd::{
    Device, DeviceElement, Firmware, FreshSpec, HiveChange, Object, PartitionRef, Recovery, Store, Value,
    changes, element_key, fresh,
};
use vmrescue_windows::{
    Installation, Loader, Machine, PeInfo, boot_layout, boot_loader, load_store, partition_ref,
};

const DEVICE: u32 = 0x1100_0001;
const PATH: u32 = 0x1200_0002;
const OSDEVICE: u32 = 0x2100_0001;
const SYSTEMROOT: u32 = 0x2200_0002;
const DEFAULT: u32 = 0x2300_0003;
const DISPLAYORDER: u32 = 0x2400_0001;
const INHERIT: u32 = 0x1400_0006;

/// The changes that make this installation start; none when everything is as it should be. `system` chooses the system
/// partition when there are several.
///
/// # Errors
/// `NotFound` without a system partition or boot files; `Refused` when there are several system partitions.
pub fn rebuild_boot(machine: &Machine, installation: &Installation, system: Option<u32>) -> Result<Planned> {
    if boot_loader(machine) == Loader::Ntldr {
        return Err(Error::refused(
            Layer::Bcd,
            "this machine starts by NTLDR and boot.ini: it has no boot configuration store and needs none",
        )
        .advice("edit boot.ini: vmrescue cat IMAGE and vmrescue put IMAGE"));
    }
    let layout = boot_layout(machine);
    let volume = layout.system_volume(machine, system)?;
    let missing = || Error::not_found(Layer::Bcd, "a partition has no identifier that a store could name");
    let on = partition_ref(machine, volume).ok_or_else(missing)?;
    let windows = partition_ref(machine, installation.volume).ok_or_else(missing)?;
    let mut spec = FreshSpec::new(layout.firmware, on, windows);
    spec.description = description(installation);
    spec.server = installation.product.contains("Server");
    (spec.loader, spec.resume) = (Guid::random(), Guid::random());
    let mut notes = Vec::new();
    spec.recovery = recovery(machine, installation, &mut notes)?;
    let mut files = Files {
        machine,
        firmware: layout.firmware,
        planned: Planned { notes, ..Planned::default() },
        made: BTreeSet::new(),
        details: Vec::new(),
    };
    files.boot_files(installation, layout.firmware, &format!("#{}:", machine.volumes[volume].number))?;
    let path = layout.store_path(machine, volume);
    match load_store(machine, &path) {
        Ok(Some((hive, before))) => {
            let after = repaired(machine, volume, &before, &spec);
            let whole = HiveEditor::new(hive.clone()).is_ok() && !is_damaged(&hive);
            if after.objects != before.objects && whole {
                files.planned.changes.extend(store_changes(&path, &before, &after));
            } else if !whole {
                files.keep(&path)?;
                files.write(&path, store_bytes(&after)?, "the entries of the damaged store")?;
                files.detail(&path, None);
            }
        }
        Ok(None) => {
            let own = template(machine, installation, &mut files.planned.notes)?;
            let store = with_template(fresh(&spec), own.as_ref());
            files.write(&path, store_bytes(&store)?, "the defaults of Windows")?;
            files.detail(&path, None);
        }
        // What the host cannot read says nothing of the store.
        Err(e) if is_of_the_host(&e) => return Err(e),
        Err(e) => {
            files.keep(&path)?;
            match salvaged(&files, &path)? {
                Some(before) => {
                    let store = repaired(machine, volume, &before, &spec);
                    let note = format!("{path}: {e}; {} of its objects were kept", before.objects.len());
                    files.planned.notes.push(note);
                    files.write(&path, store_bytes(&store)?, "what can be read of the damaged store")?;
                }
                None => {
                    files.planned.notes.push(format!("{path}: {e}; nothing of it could be kept"));
                    let own = template(machine, installation, &mut files.planned.notes)?;
                    let store = with_template(fresh(&spec), own.as_ref());
                    files.write(&path, store_bytes(&store)?, "the defaults of Windows")?;
                }
            }
            files.detail(&path, None);
        }
    }
    if !files.details.is_empty() {
        let what = "as they are in \\Windows\\Boot".to_string();
        files.planned.changes.push(Change::FileDetails { what, details: files.details });
    }
    Ok(files.planned)
}

/// True when a walk over the hive finds errors: it is then written anew, not edited.
fn is_damaged(hive: &Hive) -> bool {
    hive.check().iter().any(|defect| defect.severity == Severity::Error)
}

/// What can still be read of a store that does not load; `None` when it holds no object.
fn salvaged(files: &Files<'_>, path: &str) -> Result<Option<Store>> {
    let Some((fs, node)) = files.find(path)? else { return Ok(None) };
    let Ok(hive) = Hive::parse(read_file(&*fs, node, "")?) else { return Ok(None) };
    let (bytes, _lost) = rebuild(&hive)?;
    // A hive without the key Objects is no store.
    let store = Store::load(&Hive::parse(bytes)?).ok();
    Ok(store.filter(|store| !store.objects.is_empty()))
}

fn description(installation: &Installation) -> String {
    let product = installation.product.as_str();
    for short in ["Windows Server", "Windows 11", "Windows 10", "Windows 8", "Windows 7"] {
        if product.starts_with(short) {
            return short.to_string();
        }
    }
    if product.is_empty() { "Windows".to_string() } else { product.to_string() }
}

/// The changes of the hive at `path` that make the store `after` out of `before`.
pub fn store_changes(path: &str, before: &Store, after: &Store) -> Vec<Change> {
    let hive = path.to_string();
    let elements = before.objects.iter().flat_map(|object| {
        object.elements.iter().map(|(element, value)| (element_key(object.id, *element), value.encode()))
    });
    let old: BTreeMap<String, (u32, Vec<u8>)> = elements.collect();
    let was = |key: &str, name: &str| {
        old.get(key).map(|(data_type, data)| super::change::words_in(key, name, *data_type, data))
    };
    changes(before, after)
        .into_iter()
        .map(|change| match change {
            HiveChange::CreateKey { key } => Change::RegistryCreateKey { hive: hive.clone(), key },
            HiveChange::DeleteKey { key } => Change::RegistryDeleteKey { hive: hive.clone(), key },
            HiveChange::SetValue { key, name, data_type, data } => {
                let was = was(&key, &name);
                Change::RegistrySet { hive: hive.clone(), key, name, data_type, data, was }
            }
        })
        .collect()
}

/// A new hive with this store.
///
/// # Errors
/// None for stores of reasonable size.
pub fn store_bytes(store: &Store) -> Result<Vec<u8>> {
    let mut hive = HiveEditor::new_hive("NewStoreRoot")?;
    for change in changes(&Store::default(), store) {
        match change {
            HiveChange::CreateKey { key } => drop(hive.create_key(&key)?),
            HiveChange::DeleteKey { key } => drop(hive.delete_key(&key, true)?),
            HiveChange::SetValue { key, name, data_type, data } => {
                hive.set_value(&key, &name, DataType(data_type), &data)?;
            }
        }
    }
    Ok(hive.finish(FileTime::now())?.bytes)
}

fn on(partition: PartitionRef) -> Value {
    Value::Device(DeviceElement::build(Device::Partition(partition), Guid::ZERO))
}

/// The store with what keeps it from starting this installation put right, and nothing else.
fn repaired(machine: &Machine, system: usize, before: &Store, spec: &FreshSpec) -> Store {
    let (mut store, map, model) = (before.clone(), machine.disk_map(), fresh(spec));
    for object in &mut store.objects {
        come_home(machine, object, spec);
    }
    for object in &mut store.objects {
        let target = match object.object_type {
            TYPE_BOOTMGR | TYPE_MEMDIAG => spec.system,
            TYPE_OSLOADER | TYPE_RESUME => spec.windows,
            _ => continue,
        };
        for (number, value) in &mut object.elements {
            let fixed = match value {
                // A RAM disk lies on the recovery partition, which is for ReAgent to know.
                Value::Device(device) if matches!(device.device(), Device::Partition(_)) => {
                    map.resolve(device).is_dangling().then(|| on(target))
                }
                Value::Unknown { .. } if matches!(*number, DEVICE | OSDEVICE) => Some(on(target)),
                _ => None,
            };
            if let Some(fixed) = fixed {
                *value = fixed;
            }
        }
    }
    let add = |store: &mut Store, object: &Object| {
        if store.object(object.id).is_none() {
            store.objects.push(object.clone());
        }
    };
    if let Some(manager) = model.bootmgr() {
        add(&mut store, manager);
    }
    let loader = our_loader(machine, &store, spec).unwrap_or_else(|| {
        for id in [spec.loader, spec.resume] {
            if let Some(object) = model.object(id) {
                add(&mut store, object);
            }
        }
        spec.loader
    });
    complete_loader(machine, &mut store, &model, loader, spec);
    order(&mut store, loader, spec);
    lead_somewhere(machine, system, &mut store, loader);
    // Settings that entries inherit from must be there.
    let inherited: BTreeSet<Guid> =
        store.objects.iter().filter_map(|o| o.get(INHERIT)).flat_map(|v| v.objects().to_vec()).collect();
    for id in inherited {
        if let Some(object) = model.object(id) {
            add(&mut store, object);
        }
    }
    store.objects.sort_by_key(|object| object.id.to_string());
    let mut sorted = before.objects.clone();
    sorted.sort_by_key(|object| object.id.to_string());
    // The order of the hive is not a difference.
    if sorted == store.objects { before.clone() } else { store }
}

/// Lets a loader of an installed Windows whose files are not where it says, and are on the partition of this Windows, say so.
fn come_home(machine: &Machine, object: &mut Object, spec: &FreshSpec) {
    let is_plain = object.get(0x2600_0022).and_then(Value::as_boolean) != Some(true);
    if object.object_type != TYPE_OSLOADER || !is_plain {
        return;
    }
    for (device, path) in [(DEVICE, PATH), (OSDEVICE, SYSTEMROOT)] {
        let named = object.get(device).and_then(Value::as_device).map(|element| element.device().clone());
        let Some(Device::Partition(id)) = named else { continue };
        let Some(text) = object.text(path) else { continue };
        if id != spec.windows && !is_on(machine, id, text) && is_on(machine, spec.windows, text) {
            object.elements.insert(device, on(spec.windows));
        }
    }
}

/// True when a path exists on a partition, or when that cannot be said.
fn is_on(machine: &Machine, id: PartitionRef, path: &str) -> bool {
    let map = machine.disk_map();
    let number = map.by_id(id).map(|partition| partition.number);
    let volume = machine.volumes.iter().find(|volume| Some(volume.number) == number);
    let Some(fs) = volume.and_then(|volume| volume.fs.clone()) else { return false };
    let parts: Vec<&str> = path.split('\\').filter(|part| !part.is_empty()).collect();
    !matches!(resolve(&*fs, &parts), Ok(None))
}

/// The entry that starts by itself must lead somewhere, this once too.
fn lead_somewhere(machine: &Machine, system: usize, store: &mut Store, loader: Guid) {
    const BOOTSEQUENCE: u32 = 0x2400_0002;
    for element in [BOOTSEQUENCE, DEFAULT] {
        let way = vmrescue_boot::follow(machine, system, String::new(), store);
        if way.astray.is_empty() || way.once != (element == BOOTSEQUENCE) {
            continue;
        }
        if let Some(manager) = store.objects.iter_mut().find(|object| object.id == BOOTMGR) {
            if way.once {
                manager.elements.remove(&BOOTSEQUENCE);
            } else {
                manager.elements.insert(DEFAULT, Value::Object(loader));
            }
        }
    }
}

/// The entry that starts Windows from this partition and directory.
fn our_loader(_machine: &Machine, store: &Store, spec: &FreshSpec) -> Option<Guid> {
    let is_ours = |object: &&&Object| {
        let device = object.get(OSDEVICE).and_then(Value::as_device);
        let here = device.is_none_or(|device| {
            device.partitions().contains(&spec.windows)
                || matches!(device.device(), Device::Boot | Device::Locate { .. })
        });
        let root =
            object.text(SYSTEMROOT).is_none_or(|root| root.eq_ignore_ascii_case(&spec.windows_directory));
        let plain = device.is_none_or(|device| {
            !matches!(device.device(), Device::Ramdisk { .. } | Device::VirtualDisk(_) | Device::File { .. })
        });
        here && root && plain && object.get(0x2600_0022).and_then(Value::as_boolean) != Some(true)
    };
    store.loaders().iter().find(is_ours).map(|object| object.id)
}

fn complete_loader(machine: &Machine, store: &mut Store, model: &Store, loader: Guid, spec: &FreshSpec) {
    let Some(wanted) = model.object(spec.loader) else { return };
    let there = |path: &str| {
        let volume = machine.volumes.iter().position(|v| {
            machine.disk_map().by_id(spec.windows).is_some_and(|partition| partition.number == v.number)
        });
        let fs = volume.and_then(|volume| machine.volumes[volume].fs.clone());
        let parts: Vec<&str> = path.split('\\').filter(|part| !part.is_empty()).collect();
        fs.is_some_and(|fs| matches!(resolve(&*fs, &parts), Ok(Some(_))))
    };
    let Some(object) = store.objects.iter_mut().find(|object| object.id == loader) else { return };
    for number in [DEVICE, OSDEVICE, SYSTEMROOT, PATH, INHERIT] {
        if object.get(number).is_none()
            && let Some(value) = wanted.get(number)
        {
            object.elements.insert(number, value.clone());
        }
    }
    let path = object.text(PATH).unwrap_or_default().to_string();
    if let Some(default) = wanted.text(PATH)
        && !path.eq_ignore_ascii_case(default)
        && !there(&path)
        && there(default)
    {
        object.elements.insert(PATH, Value::Text(default.to_string()));
    }
}

/// The boot manager starts something that is there, and its menu has nothing that is not.
fn order(store: &mut Store, loader: Guid, spec: &FreshSpec) {
    let known: BTreeSet<Guid> = store.objects.iter().map(|object| object.id).collect();
    let Some(manager) = store.objects.iter_mut().find(|object| object.id == BOOTMGR) else { return };
    let default = manager.get(DEFAULT).and_then(|value| value.objects().first().copied());
    if default.is_none_or(|id| !known.contains(&id)) {
        manager.elements.insert(DEFAULT, Value::Object(loader));
    }
    let mut ids: Vec<Guid> =
        manager.get(DISPLAYORDER).map(|value| value.objects().to_vec()).unwrap_or_default();
    ids.retain(|id| known.contains(id));
    if !ids.contains(&loader) {
        ids.push(loader);
    }
    manager.elements.insert(DISPLAYORDER, Value::Objects(ids));
    if manager.get(DEVICE).is_none() {
        manager.elements.insert(DEVICE, on(spec.system));
    }
}

/// True for errors that say nothing of the guest: the host could not read, or the user has ended it.
fn is_of_the_host(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Io | ErrorKind::Refused | ErrorKind::Interrupted)
}

/// The guest's own template; one that is damaged is told and not used.
fn template(
    machine: &Machine,
    installation: &Installation,
    notes: &mut Vec<String>,
) -> Result<Option<Store>> {
    let path = format!(r"{}\System32\config\BCD-Template", installation.path);
    match load_store(machine, &path) {
        Ok(found) => Ok(found.map(|(_, store)| store)),
        Err(e) if is_of_the_host(&e) => Err(e),
        Err(e) => {
            notes.push(format!("{path}: {e}; the defaults of Windows are taken instead"));
            Ok(None)
        }
    }
}

/// The fresh store, with what the template says otherwise: settings, and the elements of entries that name no device.
fn with_template(mut store: Store, template: Option<&Store>) -> Store {
    let Some(template) = template else { return store };
    for from in &template.objects {
        let twin = store.objects.iter_mut().find(|object| {
            object.id == from.id
                || (object.object_type == from.object_type
                    && matches!(object.object_type, TYPE_OSLOADER | TYPE_RESUME))
        });
        match twin {
            Some(twin) => {
                for (number, value) in &from.elements {
                    let own = matches!(
                        *number,
                        PATH | SYSTEMROOT | DEFAULT | DISPLAYORDER | 0x1200_0004 | 0x2300_0006
                    ) || (twin.object_type == TYPE_OSLOADER && *number == DEFAULT);
                    if value.as_device().is_none() && !own {
                        twin.elements.insert(*number, value.clone());
                    }
                }
            }
            None if from.object_type >> 28 == 2 => store.objects.push(from.clone()),
            None => {}
        }
    }
    store.objects.sort_by_key(|object| object.id.to_string());
    store
}

/// The recovery environment that ReAgent.xml names, when its image is where it says; what cannot be read is told.
fn recovery(
    machine: &Machine,
    installation: &Installation,
    notes: &mut Vec<String>,
) -> Result<Option<Recovery>> {
    let path = format!(r"{}\System32\Recovery\ReAgent.xml", installation.path);
    let read = || -> Result<Option<Vec<u8>>> {
        let (volume, node) = machine.resolve(&GuestPath::parse(&path)?)?;
        let fs = machine.file_system(volume)?;
        node.map(|node| read_file(&*fs, node, "")).transpose()
    };
    match read() {
        Ok(Some(bytes)) => Ok(named_recovery(machine, &bytes)),
        Ok(None) => Ok(None),
        Err(e) if is_of_the_host(&e) => Err(e),
        Err(e) => {
            notes.push(format!("{path}: {e}; the store gets no entry for the recovery environment"));
            Ok(None)
        }
    }
}

/// The recovery environment that this ReAgent.xml names.
fn named_recovery(machine: &Machine, bytes: &[u8]) -> Option<Recovery> {
    let text = if bytes.starts_with(&[0xff, 0xfe]) {
        vmrescue_base::text::utf16le_lossy(&bytes[2..])
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    };
    let tag = |name: &str| text.split(&format!("<{name} ")).nth(1)?.split('>').next().map(str::to_string);
    let attribute = |tag: &str, name: &str| {
        tag.split(&format!("{name}=\"")).nth(1)?.split('"').next().map(str::to_string)
    };
    let location = tag("WinreLocation")?;
    let directory = attribute(&location, "path")?;
    let offset: u64 = attribute(&location, "offset")?.parse().ok()?;
    let entry: Guid = attribute(&tag("WinreBCD")?, "id")?.parse().ok()?;
    let place = machine.volumes.iter().position(|volume| volume.range.start == offset)?;
    let parts: Vec<&str> =
        directory.split('\\').filter(|part| !part.is_empty()).chain(["Winre.wim"]).collect();
    // An image that cannot be reached is none that could be started.
    resolve(&*machine.file_system(place).ok()?, &parts).ok()??;
    (!entry.is_zero()).then_some(())?;
    Some(Recovery { partition: partition_ref(machine, place)?, directory, entry, options: Guid::random() })
}

/// Boot files on their way to the system partition.
struct Files<'a> {
    machine: &'a Machine,
    firmware: Firmware,
    planned: Planned,
    made: BTreeSet<String>,
    /// Attributes and times that come last: writing a file changes them.
    details: Vec<Detail>,
}

/// The attributes that Windows gives boot files on the active partition of a BIOS machine; `path` from the root of the volume.
/// Those on an EFI system partition have none but archive.
fn boot_attributes(firmware: Firmware, path: &str) -> Option<u32> {
    let (hidden, archive) = (Attributes::HIDDEN | Attributes::SYSTEM, Attributes::ARCHIVE);
    match (firmware, path.to_ascii_lowercase().as_str()) {
        (Firmware::Uefi, _) => None,
        (Firmware::Bios, "bootmgr") => Some(hidden | archive | Attributes::READ_ONLY),
        (Firmware::Bios, "bootnxt" | r"boot\bcd") => Some(hidden | archive),
        (Firmware::Bios, "boot") => Some(hidden),
        (Firmware::Bios, _) => None,
    }
}

impl Files<'_> {
    fn boot_files(&mut self, installation: &Installation, firmware: Firmware, system: &str) -> Result<()> {
        let boot = format!(r"{}\Boot", installation.path);
        match firmware {
            Firmware::Uefi => {
                let target = format!(r"{system}\EFI\Microsoft\Boot");
                self.tree(&format!(r"{boot}\EFI"), &target)?;
                self.tree(&format!(r"{boot}\Fonts"), &format!(r"{target}\Fonts"))?;
                self.tree(&format!(r"{boot}\Resources"), &format!(r"{target}\Resources"))?;
                let name = match installation.architecture.as_str() {
                    "arm64" => "bootaa64.efi",
                    "x86" => "bootia32.efi",
                    _ => "bootx64.efi",
                };
                let fallback = format!(r"{system}\EFI\Boot\{name}");
                if let Some(whose) = self.foreign(&fallback)? {
                    let note = format!(
                        "{fallback} is a boot loader of another maker ({whose}) and is kept: the firmware starts it where it has no entry for Windows"
                    );
                    self.planned.notes.push(note);
                    return Ok(());
                }
                self.copy(&format!(r"{boot}\EFI\bootmgfw.efi"), &fallback)
            }
            Firmware::Bios => {
                self.tree(&format!(r"{boot}\PCAT"), &format!(r"{system}\Boot"))?;
                self.tree(&format!(r"{boot}\Fonts"), &format!(r"{system}\Boot\Fonts"))?;
                self.copy(&format!(r"{boot}\PCAT\bootmgr"), &format!(r"{system}\bootmgr"))?;
                self.copy(&format!(r"{boot}\PCAT\bootnxt"), &format!(r"{system}\BOOTNXT"))
            }
        }
    }

    fn find(&self, path: &str) -> Result<Option<(std::sync::Arc<dyn FileSystem>, NodeId)>> {
        let (volume, node) = self.machine.resolve(&GuestPath::parse(path)?)?;
        node.map(|node| self.machine.file_system(volume).map(|fs| (fs, node))).transpose()
    }

    /// Whose a whole program file is, when it is not the boot manager of Windows.
    fn foreign(&self, path: &str) -> Result<Option<String>> {
        let Some((fs, node)) = self.find(path)? else { return Ok(None) };
        let Ok(pe) = PeInfo::parse(&read_file(&*fs, node, "")?) else { return Ok(None) };
        let name = pe.original_name.unwrap_or_default().to_lowercase();
        let own = ["bootmgfw", "bootmgr", "bootx64", "bootaa64", "bootia32"];
        let is_own = own.iter().any(|known| name.starts_with(known));
        Ok((!is_own).then(|| if name.is_empty() { "it has no version resource".to_string() } else { name }))
    }

    /// Keeps a file that is to be written anew beside it.
    fn keep(&mut self, path: &str) -> Result<()> {
        let Some((fs, node)) = self.find(path)? else { return Ok(()) };
        let data = read_file(&*fs, node, "")?;
        let names = std::iter::once(format!("{path}.old")).chain((2..100).map(|n| format!("{path}.old{n}")));
        for name in names {
            match self.find(&name)? {
                Some((fs, node)) if read_file(&*fs, node, "")? == data => return Ok(()),
                Some(_) => {}
                None => return self.write(&name, data, "the store as it was"),
            }
        }
        Ok(())
    }

    /// Copies a directory with everything below, where it exists.
    fn tree(&mut self, from: &str, to: &str) -> Result<()> {
        let Some((fs, node)) = self.find(from)? else { return Ok(()) };
        for entry in fs.read_dir(node)? {
            let (from, to) = (format!(r"{from}\{}", entry.name), format!(r"{to}\{}", entry.name));
            match entry.kind {
                NodeKind::Directory => self.tree(&from, &to)?,
                // bootmgr lies in the root of the system partition, not among the others.
                NodeKind::File
                    if !["bootmgr", "bootnxt"].iter().any(|name| entry.name.eq_ignore_ascii_case(name)) =>
                {
                    self.copy(&from, &to)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Copies a file where there is none that is good: one of the same or a newer version stays.
    fn copy(&mut self, from: &str, to: &str) -> Result<()> {
        let Some((fs, node)) = self.find(from)? else { return Ok(()) };
        let data = read_file(&*fs, node, "")?;
        if let Some((fs, node)) = self.find(to)? {
            let old = read_file(&*fs, node, "")?;
            if old == data || is_good(&old, &data) {
                return Ok(());
            }
        }
        let modified = fs.metadata(node)?.times.modified;
        self.write(to, data, from)?;
        self.detail(to, Some(modified));
        Ok(())
    }

    /// Notes what a file or directory gets after everything was written.
    fn detail(&mut self, path: &str, modified: Option<FileTime>) {
        let below = path.split_once('\\').map_or("", |(_, below)| below);
        let attributes = boot_attributes(self.firmware, below);
        if attributes.is_some() || modified.is_some() {
            self.details.push(Detail { path: path.to_string(), attributes, modified });
        }
    }

    /// A file with its directories.
    fn write(&mut self, path: &str, data: Vec<u8>, from: &str) -> Result<()> {
        let parts: Vec<&str> = path.split('\\').collect();
        for depth in 2..parts.len() {
            let directory = parts[..depth].join("\\");
            if !self.made.contains(&directory.to_lowercase()) && self.find(&directory)?.is_none() {
                self.made.insert(directory.to_lowercase());
                self.detail(&directory, None);
                self.planned.changes.push(Change::MakeDirectory { path: directory });
            }
        }
        let size = data.len() as u64;
        self.planned.changes.push(Change::FileWrite {
            path: path.to_string(),
            data: data.into(),
            size,
            from: from.to_string(),
        });
        Ok(())
    }
}

/// True when the old file is whole and not older than the new one.
fn is_good(old: &[u8], new: &[u8]) -> bool {
    if vmrescue_base::bytes::is_zero(old) {
        return false;
    }
    match (PeInfo::parse(old), PeInfo::parse(new)) {
        (Ok(old), Ok(new)) => old.checksum_right && version(&old) >= version(&new),
        (Err(_), Ok(_)) => false,
        // Fonts, bootmgr (which has a stub before its PE part) and other data: what is there is not judged.
        _ => true,
    }
}

fn version(pe: &PeInfo) -> Vec<u32> {
    pe.file_version.iter().flat_map(|text| text.split('.')).map(|part| part.parse().unwrap_or(0)).collect()
}
