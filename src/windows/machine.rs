//! A disk with its volumes and Windows installations.

use crate::bcd::{DiskMap, MapPartition, PartitionRef};
use crate::program::Program;
use crate::unread::{Unread, Unseen, Weight};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result, Severity};
use vmrescue_base::guid::Guid;
use vmrescue_block::{Disk, DiskMut};
use vmrescue_crypt as crypt;
use vmrescue_crypt::{BitLocker, Keys};
use vmrescue_fs::path::{GuestPath, VolumeName};
use vmrescue_fs::shadow::Shadows;
use vmrescue_fs::{FileSystem, NodeId, read_file, resolve};
use vmrescue_partition as partition;
use vmrescue_partition::{EFI_SYSTEM, Partition, Table, TableKind};
use vmrescue_registry::Hive;

/// Hives of `System32\config` by the name of their root below `HKEY_LOCAL_MACHINE`.
pub const HIVES: [&str; 7] = ["SYSTEM", "SOFTWARE", "SAM", "SECURITY", "COMPONENTS", "DRIVERS", "DEFAULT"];

/// A volume of the disk.
#[derive(Clone)]
pub struct Volume {
    /// Number of its partition, 1 for a disk without a table.
    pub number: u32,
    /// Where it lies on the disk, in bytes.
    pub range: Range<u64>,
    /// Its partition, when the disk has a table.
    pub partition: Option<Partition>,
    /// Its file system, when it could be opened.
    pub fs: Option<Arc<dyn FileSystem>>,
    /// Why it could not.
    pub error: Option<String>,
    /// It is a BitLocker volume: how it is, and what opened it.
    pub bitlocker: Option<BitLocker>,
    /// The letter that the first installation gives it.
    pub letter: Option<char>,
    /// The firmware starts from here.
    pub system: bool,
}

/// A Windows installation.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Index into [`Machine::volumes`].
    pub volume: usize,
    /// The directory, as a path of the guest without a closing backslash: `C:\Windows`.
    pub path: String,
    /// The directory.
    pub root: NodeId,
    /// ProductName.
    pub product: String,
    /// EditionID.
    pub edition: String,
    /// DisplayVersion or ReleaseId.
    pub display_version: String,
    /// CurrentBuildNumber.
    pub build: u32,
    /// UBR: the number behind the build.
    pub ubr: u32,
    /// `amd64`, `arm64` or `x86`, from the machine type of the kernel or the registry.
    pub architecture: String,
    /// Computer name.
    pub computer_name: String,
    /// `Select`: the control sets current, default, failed and last known good.
    pub control_sets: ControlSets,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// Numbers of control sets, from `SYSTEM\Select`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ControlSets {
    /// Used at the last start.
    pub current: u32,
    /// Used at the next start.
    pub default: u32,
    /// Failed at the last start, or 0.
    pub failed: u32,
    /// Worked at some start.
    pub last_known_good: u32,
}

/// Hives by volume and name.
type Hives = HashMap<(usize, String), Arc<Hive>>;
/// Program files by volume and node.
type Programs = BTreeMap<(usize, NodeId), Arc<Program>>;

/// A disk with what is on it.
#[derive(Clone)]
pub struct Machine {
    /// The disk, with the BitLocker volumes that are open in plain text.
    pub disk: Disk,
    /// Its partition table.
    pub table: Table,
    /// All volumes, in the order of partitions.
    pub volumes: Vec<Volume>,
    /// All installations.
    pub installations: Vec<Installation>,
    /// What was found wrong on the way.
    pub defects: Vec<Defect>,
    /// What was asked for on the way and could not be read.
    pub unread: Vec<Unread>,
    /// Hives that were read, by volume and name; see [`Machine::hive`].
    hives: Arc<Mutex<Hives>>,
    /// Those that are too large to keep: shared as long as somebody has them.
    lent: Arc<Mutex<HashMap<usize, Weak<Hive>>>>,
    /// Program files that were looked at, by volume and node; see [`Machine::program`].
    pub(super) programs: Arc<Mutex<Programs>>,
    /// The BitLocker volumes that are open.
    plain: Vec<crypt::Part>,
}

impl Installation {
    /// An installation of which nothing is known.
    pub fn nowhere() -> Installation {
        Installation {
            volume: usize::MAX,
            path: String::new(),
            root: NodeId(0),
            product: String::new(),
            edition: String::new(),
            display_version: String::new(),
            build: 0,
            ubr: 0,
            architecture: String::new(),
            computer_name: String::new(),
            control_sets: ControlSets::default(),
            problems: Vec::new(),
        }
    }
}

impl Installation {
    /// True for the one that stands in for none.
    pub fn is_nowhere(&self) -> bool {
        self.volume == usize::MAX
    }
}

impl Volume {
    /// True for a BitLocker volume that no key has opened.
    pub fn is_locked(&self) -> bool {
        self.bitlocker.as_ref().is_some_and(|bitlocker| bitlocker.locked)
    }
}

/// Path of a hive in its installation, from the Windows directory.
pub fn config_path(hive: &str) -> [String; 3] {
    ["System32".into(), "config".into(), hive.into()]
}

/// Reads a hive with its transaction logs, which lie beside it.
///
/// # Errors
/// `NotFound`; `Damaged` when it is no hive.
pub fn hive_of(fs: &dyn FileSystem, directory: NodeId, name: &str) -> Result<Hive> {
    let node = fs
        .lookup(directory, name)?
        .ok_or_else(|| Error::not_found(Layer::Windows, "a hive is missing").found(name))?;
    let bytes = read_file(fs, node, "")?;
    let hive = Hive::parse(bytes).map_err(|e| e.context(name))?;
    if hive.defects().is_empty() {
        return Ok(hive);
    }
    let mut logs = Vec::new();
    for log in ["LOG", "LOG1", "LOG2"] {
        if let Some(node) = fs.lookup(directory, &format!("{name}.{log}"))? {
            logs.push(read_file(fs, node, "")?);
        }
    }
    Hive::parse_with_logs(hive.into_bytes(), &logs).map_err(|e| e.context(name))
}

impl Machine {
    /// Finds volumes and installations. Damaged volumes are kept with their error, locked ones with what would open them.
    ///
    /// # Errors
    /// Of reading the disk and its partition table.
    pub fn open(disk: Disk) -> Result<Machine> {
        Machine::open_with(disk, &Keys::none())
    }

    /// The same; BitLocker volumes are opened with the keys that fit.
    ///
    /// # Errors
    /// As [`Machine::open`]. A key that does not fit is none: the volume stays locked and says why.
    pub fn open_with(disk: Disk, keys: &Keys) -> Result<Machine> {
        let table = match partition::read(&disk) {
            // Neither copy of the table is whole: what the disk holds is still to be looked at.
            Err(e) if e.kind() == ErrorKind::Damaged => partition::lost_gpt(&disk, &e),
            table => table?,
        };
        Machine::open_as(disk, table, keys)
    }

    /// The same with a table that the caller knows better.
    pub(crate) fn open_as(disk: Disk, table: Table, keys: &Keys) -> Result<Machine> {
        let mut defects = table.defects.clone();
        let places: Vec<(u32, Range<u64>, Option<Partition>)> = if table.kind == TableKind::None {
            vec![(1, 0..disk.len(), None)]
        } else {
            table.partitions.iter().map(|p| (p.number, p.range.clone(), Some(p.clone()))).collect()
        };
        let mut volumes = Vec::new();
        let mut plain = Vec::new();
        let mut encrypted = Vec::new();
        for (number, range, _) in &places {
            let found = disk.window(range.clone()).and_then(|window| crypt::volume(&window, keys));
            let found = found.unwrap_or_else(|e| {
                defects.push(Defect::from_error("bitlocker-unreadable", Severity::Error, &e));
                None
            });
            if let Some(lost) = found.as_ref().filter(|found| found.info.good_copies < 3) {
                let copies = lost.info.good_copies;
                let text = format!("partition {number}: {copies} of three copies of the metadata are whole");
                defects.push(Defect::new(
                    "bitlocker-copies",
                    Severity::Warning,
                    Layer::BitLocker,
                    None,
                    text,
                ));
            }
            plain.extend(found.as_ref().and_then(|found| Some((range.start, found.view.clone()?))));
            encrypted.push(found.map(|found| found.info));
        }
        let disk = crypt::plain(disk, &plain);
        for ((number, range, partition), bitlocker) in places.into_iter().zip(encrypted) {
            let (fs, error) = match &bitlocker {
                Some(bitlocker) if bitlocker.locked => (None, Some(bitlocker.locked_text())),
                _ => open_volume(&disk, &range, &mut defects),
            };
            let system = partition.as_ref().is_some_and(|p| p.type_guid == Some(EFI_SYSTEM) || p.active);
            if partition.as_ref().is_some_and(|p| p.type_guid == Some(EFI_SYSTEM)) {
                defects.extend(unreadable_by_firmware(number, &range, fs.as_deref(), bitlocker.is_some()));
            }
            volumes.push(Volume { number, range, partition, fs, error, bitlocker, letter: None, system });
        }
        let mut machine = Machine {
            disk,
            table,
            volumes,
            installations: Vec::new(),
            defects,
            unread: Vec::new(),
            hives: Arc::default(),
            lent: Arc::default(),
            programs: Arc::default(),
            plain,
        };
        machine.find_installations();
        Ok(machine)
    }

    fn find_installations(&mut self) {
        let unseen = Unseen::default();
        for index in 0..self.volumes.len() {
            let Some(fs) = self.volumes[index].fs.clone() else { continue };
            let place = |path: &str| format!("#{}:\\{path}", self.volumes[index].number);
            let look = |path: &[&str]| {
                let found = match resolve(&*fs, path) {
                    // A file where a directory should be: this is no Windows.
                    Err(e) if e.kind() == ErrorKind::Invalid => Ok(None),
                    other => other,
                };
                unseen
                    .seen("a directory of Windows", place(&path.join("\\")), Weight::Critical, found)
                    .flatten()
            };
            let Some(root) = look(&["Windows"]) else { continue };
            if look(&["Windows", "System32", "config"]).is_none() {
                // Folders of these names alone make no Windows; its kernel does.
                if look(&["Windows", "System32", "ntoskrnl.exe"]).is_some() {
                    let why = "it is missing, and with it the registry";
                    let place = place(r"Windows\System32\config");
                    unseen.note(Unread::new("the folder of the hives", place, why, Weight::Critical));
                }
                continue;
            }
            self.installations.push(self.describe(index, root));
        }
        self.give_letters(&unseen);
        self.unread.extend(unseen.list());
        self.name_installations();
    }

    fn name_installations(&mut self) {
        for installation in &mut self.installations {
            let volume = &self.volumes[installation.volume];
            installation.path = match volume.letter {
                Some(letter) => format!("{letter}:\\Windows"),
                None => format!("#{}:\\Windows", volume.number),
            };
        }
    }

    /// Gives the volumes the letters that they have on `other`, the same disk before a change: the paths of what was changed keep their
    /// meaning, though the change may be one of letters.
    pub fn keep_letters(&mut self, other: &Machine) {
        for volume in &mut self.volumes {
            let same = other.volumes.iter().find(|old| old.number == volume.number);
            if let Some(same) = same {
                volume.letter = same.letter;
            }
        }
        self.name_installations();
    }

    fn describe(&self, volume: usize, root: NodeId) -> Installation {
        let mut found = Installation { volume, root, ..Installation::nowhere() };
        let software = self.hive(&found, "SOFTWARE");
        if let Err(e) = software.and_then(|hive| read_software(&hive, &mut found)) {
            found.problems.push(format!("SOFTWARE: {e}"));
        }
        let system = self.hive(&found, "SYSTEM");
        if let Err(e) = system.and_then(|hive| read_system(&hive, &mut found)) {
            found.problems.push(format!("SYSTEM: {e}"));
        }
        found
    }

    /// Letters of the first installation, by `MountedDevices`; its own volume is `C` when it says nothing else.
    fn give_letters(&mut self, unseen: &Unseen) {
        let Some(first) = self.installations.first() else { return };
        let own = first.volume;
        // A hive that is damaged as a whole is a problem of the installation already.
        let letters = match self.mounted_letters(first) {
            Err(_) if first.problems.iter().any(|problem| problem.starts_with("SYSTEM")) => Vec::new(),
            letters => unseen
                .seen("drive letters", r"HKLM\SYSTEM\MountedDevices", Weight::Partial, letters)
                .unwrap_or_default(),
        };
        for (letter, target) in letters {
            let found = self.volumes.iter_mut().find(|volume| {
                volume.partition.as_ref().is_some_and(|partition| target.is(partition, &self.table))
            });
            if let Some(volume) = found {
                volume.letter = volume.letter.or(Some(letter));
            }
        }
        let taken = |volumes: &[Volume], letter| volumes.iter().any(|volume| volume.letter == Some(letter));
        if self.volumes[own].letter.is_none() && !taken(&self.volumes, 'C') {
            self.volumes[own].letter = Some('C');
        }
    }

    fn mounted_letters(&self, installation: &Installation) -> Result<Vec<(char, Target)>> {
        let hive = self.hive(installation, "SYSTEM")?;
        let Some(key) = hive.key("MountedDevices")? else { return Ok(Vec::new()) };
        let mut letters = Vec::new();
        for value in key.values()? {
            let letter = value.name().strip_prefix(r"\DosDevices\").and_then(|rest| rest.chars().next());
            if let (Some(letter), Some(target)) = (letter, Target::parse(&value.data()?)) {
                letters.push((letter.to_ascii_uppercase(), target));
            }
        }
        Ok(letters)
    }

    /// The file system of a volume.
    ///
    /// # Errors
    /// `Unsupported` with the reason when it could not be opened.
    pub fn file_system(&self, volume: usize) -> Result<Arc<dyn FileSystem>> {
        let volume =
            self.volumes.get(volume).ok_or_else(|| Error::invalid(Layer::Windows, "no such volume"))?;
        volume.fs.clone().ok_or_else(|| {
            let why = volume.error.clone().unwrap_or_default();
            match volume.bitlocker.as_ref().filter(|bitlocker| bitlocker.locked) {
                Some(bitlocker) => {
                    Error::refused(Layer::BitLocker, format!("partition {} is {why}", volume.number))
                        .advice(bitlocker.advice())
                }
                None => {
                    Error::unsupported(Layer::Windows, format!("partition {} cannot be read", volume.number))
                        .found(why)
                }
            }
        })
    }

    /// The same disk to write, `disk` being this one staged: what is written to a BitLocker volume that is open here is
    /// enciphered on its way.
    ///
    /// # Errors
    /// `Refused` for a disk that is one of several in a set (dynamic disks, Storage Spaces): the others would no longer agree.
    pub fn writable(&self, disk: &DiskMut) -> Result<DiskMut> {
        if let Some((part, what)) =
            self.table.partitions.iter().find_map(|part| Some((part, part.member_of()?)))
        {
            return Err(Error::refused(Layer::Windows, format!("this disk is part of {what}"))
                .at(part.range.start)
                .found(format!("partition {}, {}", part.number, part.type_name))
                .advice("its volumes may continue on other disks, or be mirrored there; nothing was written. Files can be copied out with `vmrescue get`"));
        }
        Ok(crypt::plain_mut(disk.clone(), &self.plain))
    }

    /// A hive of an installation, with its transaction logs applied. It is read once and kept, for clones of the machine
    /// too; COMPONENTS, which is large, is shared as long as somebody has it. A machine shows its disk as it was opened: who
    /// writes opens it anew.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when it is no hive.
    pub fn hive(&self, installation: &Installation, name: &str) -> Result<Arc<Hive>> {
        let key = (installation.volume, name.to_ascii_uppercase());
        let large = key.1 == "COMPONENTS";
        let known = if large {
            let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
            lent.get(&key.0).and_then(Weak::upgrade)
        } else {
            self.hives.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
        };
        if let Some(hive) = known {
            return Ok(hive);
        }
        let fs = self.file_system(installation.volume)?;
        let config = resolve(&*fs, &["Windows", "System32", "config"])?
            .ok_or_else(|| Error::not_found(Layer::Windows, r"System32\config is missing"))?;
        let hive = Arc::new(hive_of(&*fs, config, name)?);
        if large {
            let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
            lent.insert(key.0, Arc::downgrade(&hive));
        } else {
            self.hives.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&hive));
        }
        Ok(hive)
    }

    /// Index of the volume that a path names.
    ///
    /// # Errors
    /// `NotFound` with the volumes that there are.
    pub fn volume_of(&self, name: &VolumeName) -> Result<usize> {
        let found = self.volumes.iter().position(|volume| match name {
            VolumeName::Letter(letter) => volume.letter == Some(*letter),
            VolumeName::SystemPartition => volume.system,
            VolumeName::Number(number) => volume.number == *number,
        });
        found.ok_or_else(|| {
            let there: Vec<String> = self
                .volumes
                .iter()
                .map(|volume| match volume.letter {
                    Some(letter) => format!("{letter}: (#{})", volume.number),
                    None => format!("#{}:", volume.number),
                })
                .collect();
            Error::not_found(Layer::Windows, format!("no volume {name}"))
                .expected(format!("one of {}", there.join(", ")))
        })
    }

    /// The volume and node of a guest path; the node is `None` when the last steps do not exist.
    ///
    /// # Errors
    /// As [`Machine::volume_of`] and of the file system.
    pub fn resolve(&self, path: &GuestPath) -> Result<(usize, Option<NodeId>)> {
        let volume = self.volume_of(&path.volume)?;
        let fs = self.file_system(volume)?;
        Ok((volume, resolve(&*fs, &path.components)?))
    }

    /// The shadow copies of a volume; `None` when it never had any, or has no file system that keeps them.
    ///
    /// # Errors
    /// Of the disk; `Damaged` when their catalog cannot be read.
    pub fn shadows(&self, volume: usize) -> Result<Option<Shadows>> {
        let volume =
            self.volumes.get(volume).ok_or_else(|| Error::invalid(Layer::Windows, "no such volume"))?;
        if volume.fs.as_ref().is_none_or(|fs| fs.info().kind != "ntfs") {
            return Ok(None);
        }
        Shadows::open(&self.disk.window(volume.range.clone())?)
    }

    /// The file system of a path that is only read, and its node: that of the volume, or of a shadow copy of it.
    ///
    /// # Errors
    /// As [`Machine::resolve`]; `NotFound` and `Damaged` of shadow copies.
    pub fn look(&self, path: &GuestPath) -> Result<(Arc<dyn FileSystem>, Option<NodeId>)> {
        let volume = self.volume_of(&path.volume)?;
        let mut fs = self.file_system(volume)?;
        if !path.shadow.is_empty() {
            let none = || {
                Error::not_found(Layer::Shadow, format!("the volume {} has no shadow copies", path.volume))
                    .advice("vmrescue shadow list IMAGE shows those of all volumes")
            };
            let shadows = self.shadows(volume)?.ok_or_else(none)?;
            let copy = shadows.find(&path.shadow)?.number;
            fs = vmrescue_fs::open(shadows.view(copy)?)
                .map_err(|e| e.context(format!("shadow copy {copy} of {}", path.volume)))?;
        }
        let node = resolve(&*fs, &path.components)?;
        Ok((fs, node))
    }

    /// The installation that a command works on: the only one, or the one with that number from 1.
    ///
    /// # Errors
    /// `NotFound` without any; `Refused` with a list when there are several and none was named.
    pub fn installation(&self, number: Option<usize>) -> Result<&Installation> {
        match (number, self.installations.as_slice()) {
            (_, []) => {
                let locked: Vec<&Volume> = self.volumes.iter().filter(|volume| volume.is_locked()).collect();
                let Some(first) = locked.first().and_then(|volume| volume.bitlocker.as_ref()) else {
                    return Err(Error::not_found(Layer::Windows, "no Windows installation on this disk"));
                };
                let list: Vec<String> = locked
                    .iter()
                    .map(|v| format!("partition {} is {}", v.number, v.error.clone().unwrap_or_default()))
                    .collect();
                Err(Error::refused(Layer::BitLocker, "no Windows installation that can be read")
                    .found(list.join("; "))
                    .advice(first.advice()))
            }
            (None, [only]) => Ok(only),
            (Some(number), all) => number.checked_sub(1).and_then(|index| all.get(index)).ok_or_else(|| {
                Error::not_found(Layer::Windows, format!("no installation {number}"))
                    .expected(format!("1 to {}", all.len()))
            }),
            (None, all) => {
                let list: Vec<String> =
                    all.iter().zip(1..).map(|(i, n)| format!("{n}: {} {}", i.path, i.product)).collect();
                Err(Error::refused(Layer::Windows, "there are several Windows installations")
                    .found(list.join("; "))
                    .advice("choose one with --windows N"))
            }
        }
    }

    /// The partitions as the boot configuration names them.
    pub fn disk_map(&self) -> DiskMap {
        let partitions = self.volumes.iter().filter_map(|volume| {
            let partition = volume.partition.as_ref()?;
            let id = match self.table.kind {
                TableKind::Gpt => PartitionRef::Gpt {
                    disk: self.table.disk_id.as_ref()?.parse().ok()?,
                    partition: partition.unique_guid?,
                },
                _ => PartitionRef::Mbr {
                    signature: u32::from_str_radix(self.table.disk_id.as_ref()?, 16).ok()?,
                    offset_bytes: partition.range.start,
                },
            };
            Some(MapPartition { number: volume.number, id, letter: volume.letter, system: volume.system })
        });
        DiskMap { partitions: partitions.collect() }
    }
}

/// The file system of a volume, or why it has none that can be read.
fn open_volume(
    disk: &Disk,
    range: &Range<u64>,
    defects: &mut Vec<Defect>,
) -> (Option<Arc<dyn FileSystem>>, Option<String>) {
    match disk.window(range.clone()).and_then(vmrescue_fs::open) {
        Ok(fs) => (Some(fs), None),
        Err(e) => {
            if e.kind() == ErrorKind::Damaged {
                defects.push(Defect::from_error("volume-unreadable", Severity::Error, &e));
            }
            (None, Some(e.to_string()))
        }
    }
}

/// An EFI system partition without FAT: the firmware finds nothing there.
fn unreadable_by_firmware(
    number: u32,
    range: &Range<u64>,
    fs: Option<&dyn FileSystem>,
    bitlocker: bool,
) -> Option<Defect> {
    let (code, what) = match fs.map(|fs| fs.info().kind) {
        Some(kind) if kind.starts_with("fat") => return None,
        Some(kind) => ("system-partition-not-fat", format!("has {kind}, firmware reads FAT only")),
        None if bitlocker => return None,
        None => ("system-partition-no-file-system", "has no file system".to_string()),
    };
    let text = format!("the EFI system partition (number {number}) {what}");
    Some(Defect::new(code, Severity::Error, Layer::FileSystem, range.start, text))
}

/// What a letter of `MountedDevices` stands for.
enum Target {
    /// `DMIO:ID:` and the partition's GUID.
    Gpt(Guid),
    /// Disk signature and offset in bytes.
    Mbr(u32, u64),
}

impl Target {
    fn parse(data: &[u8]) -> Option<Target> {
        if let Some(guid) = data.strip_prefix(b"DMIO:ID:") {
            return Guid::at(guid, 0).map(Target::Gpt);
        }
        (data.len() == 12)
            .then(|| {
                Some(Target::Mbr(
                    vmrescue_base::bytes::u32_at(data, 0)?,
                    vmrescue_base::bytes::u64_at(data, 4)?,
                ))
            })
            .flatten()
    }

    fn is(&self, partition: &Partition, table: &Table) -> bool {
        match self {
            Target::Gpt(guid) => partition.unique_guid == Some(*guid),
            Target::Mbr(signature, offset) => {
                partition.range.start == *offset && table.disk_id == Some(format!("{signature:08x}"))
            }
        }
    }
}

fn read_software(hive: &Hive, found: &mut Installation) -> Result<()> {
    let Some(key) = hive.key(r"Microsoft\Windows NT\CurrentVersion")? else {
        return Err(Error::not_found(Layer::Windows, "no key CurrentVersion"));
    };
    let text =
        |name: &str| -> Result<Option<String>> { Ok(key.value(name)?.and_then(|value| value.as_string())) };
    found.product = text("ProductName")?.unwrap_or_default();
    found.edition = text("EditionID")?.unwrap_or_default();
    found.display_version = text("DisplayVersion")?.or(text("ReleaseId")?).unwrap_or_default();
    found.build = text("CurrentBuildNumber")?.and_then(|build| build.parse().ok()).unwrap_or(0);
    found.ubr = key.value("UBR")?.and_then(|value| value.as_u32()).unwrap_or(0);
    Ok(())
}

fn read_system(hive: &Hive, found: &mut Installation) -> Result<()> {
    let select = hive.key("Select")?.ok_or_else(|| Error::not_found(Layer::Windows, "no key Select"))?;
    let number =
        |name: &str| -> Result<u32> { Ok(select.value(name)?.and_then(|v| v.as_u32()).unwrap_or(0)) };
    found.control_sets = ControlSets {
        current: number("Current")?,
        default: number("Default")?,
        failed: number("Failed")?,
        last_known_good: number("LastKnownGood")?,
    };
    let control = format!(r"ControlSet{:03}\Control", found.control_sets.current.max(1));
    let text = |path: &str, name: &str| -> Result<Option<String>> {
        let key = hive.key(&format!(r"{control}\{path}"))?;
        Ok(key.map(|key| key.value(name)).transpose()?.flatten().and_then(|value| value.as_string()))
    };
    found.computer_name = text(r"ComputerName\ComputerName", "ComputerName")?.unwrap_or_default();
    let architecture = text(r"Session Manager\Environment", "PROCESSOR_ARCHITECTURE")?;
    found.architecture = architecture.unwrap_or_else(|| "amd64".into()).to_ascii_lowercase();
    Ok(())
}
