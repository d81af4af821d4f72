//! Builds a small Windows-shaped disk from nothing, with our own writers only: for `vmrescue demo` and for tests.
//!
//! A dynamic VHDX (or another container) with a GPT, an EFI system partition with a boot store, and an NTFS volume with
//! hives, drivers and a component store that holds two versions of ACPI.sys. Nothing in it is Microsoft's: the drivers
//! are PE files without code, made here. The recipe is told in `images/README.md`.

mod encrypted;
mod faults;
mod hives;
mod store;
mod windows;

pub use encrypted::{Secrets, encrypt, secrets};
pub use store::{FIRST_VERSION, PACKED_FILE, PACKED_PATH, identity, manifest, packed_file, store_changes};
pub use vmrescue_windows::testing::{LogEvent, driver, event_log, program};

use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{DiskMut, HostFile};
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystemMut, NodeId, NodeKind, fat, ntfs, open_mut, resolve};
use vmrescue_image as image;
use vmrescue_image::{CreateSpec, Kind};
use vmrescue_partition as partition;
use vmrescue_partition::{BASIC_DATA, EFI_SYSTEM, MICROSOFT_RESERVED, NewPartition};
use vmrescue_repair::{Change, Options, run_changes};
use vmrescue_windows::bcd::{Firmware, FreshSpec, PartitionRef, Store, changes, fresh};

const MIB: u64 = 1 << 20;
/// Stands for the boot manager of a BIOS machine.
const BOOTMGR: &[u8] = b"BOOTMGR stand-in made by vmrescue; there is no code in it";
/// Stands for boot code: it stops the processor and keeps it stopped.
const STILL: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
const RESOURCES: &[u8] = b"language resources, in name only";
const FONT: &[u8] = b"a font, in name only";
/// Versions of ACPI.sys in the component store, the newer one first.
pub const ACPI_VERSIONS: [&str; 2] = ["10.0.17763.7558", "10.0.17763.7314"];
/// Makes the disk at `path`, which must not exist: a Generation 2 machine with GPT and UEFI.
///
/// # Errors
/// Of the host.
pub fn build(path: &Path, kind: Kind) -> Result<()> {
    build_for(path, kind, Firmware::Uefi)
}

/// Makes the disk of a machine with that firmware: UEFI with GPT and an EFI system partition, or BIOS with an MBR and an
/// active partition of its own.
///
/// # Errors
/// Of the host.
pub fn build_for(path: &Path, kind: Kind, firmware: Firmware) -> Result<()> {
    let file = DiskMut::new(Arc::new(HostFile::create_new(path)?));
    image::create(&file, &CreateSpec::new(kind, 256 * MIB))?;
    let disk = image::open_mut(&file, None)?.disk;
    let part = |type_guid, mbr_type, range, name: &str, active| NewPartition {
        type_guid,
        mbr_type,
        range,
        name: name.into(),
        active,
    };
    let (system, windows) = (MIB..73 * MIB, 89 * MIB..255 * MIB);
    let (first, last) = match firmware {
        Firmware::Uefi => {
            partition::write_gpt(
                &disk,
                &[
                    part(EFI_SYSTEM, 0xef, system.clone(), "EFI system partition", false),
                    part(MICROSOFT_RESERVED, 0, 73 * MIB..89 * MIB, "Microsoft reserved partition", false),
                    part(BASIC_DATA, 7, windows.clone(), "Basic data partition", false),
                ],
            )?;
            (0, 2)
        }
        Firmware::Bios => {
            let list = [
                part(BASIC_DATA, 7, system.clone(), "", true),
                part(BASIC_DATA, 7, windows.clone(), "", false),
            ];
            partition::write_mbr(&disk, 0x2411_2026, &list)?;
            (0, 1)
        }
    };
    let table = partition::read(&disk.as_disk())?;
    let id = |index: usize| -> Result<PartitionRef> {
        let missing = || Error::invalid(Layer::Gpt, "the new table cannot be read");
        let partition = table.partitions.get(index).ok_or_else(missing)?;
        let name = table.disk_id.as_ref().ok_or_else(missing)?;
        Ok(match firmware {
            Firmware::Uefi => PartitionRef::Gpt {
                disk: name.parse().map_err(|_| missing())?,
                partition: partition.unique_guid.ok_or_else(missing)?,
            },
            Firmware::Bios => PartitionRef::Mbr {
                signature: u32::from_str_radix(name, 16).map_err(|_| missing())?,
                offset_bytes: partition.range.start,
            },
        })
    };
    let store = fresh(&FreshSpec::new(firmware, id(first)?, id(last)?));
    match firmware {
        Firmware::Uefi => fill_system(&disk.window(system.clone())?, &store, system.start / 512)?,
        Firmware::Bios => {
            disk.write_at(0, &STILL)?;
            fill_active(&disk.window(system.clone())?, &store, system.start / 512)?;
            boot_code(&disk.window(system)?)?;
        }
    }
    fill_windows(&disk.window(windows.clone())?, windows.start / 512)?;
    disk.flush()
}

/// Makes all directories of `path` and the file.
fn put(fs: &mut dyn FileSystemMut, path: &str, data: &[u8]) -> Result<NodeId> {
    let (directory, name) = path.rsplit_once('\\').unwrap_or(("", path));
    let at = make_directory(fs, directory)?;
    let node = fs.create(at, name, NodeKind::File)?;
    fs.write(node, "", 0, data)?;
    Ok(node)
}

fn make_directory(fs: &mut dyn FileSystemMut, path: &str) -> Result<NodeId> {
    let mut at = fs.root();
    for name in path.split('\\').filter(|name| !name.is_empty()) {
        at = match fs.lookup(at, name)? {
            Some(next) => next,
            None => fs.create(at, name, NodeKind::Directory)?,
        };
    }
    Ok(at)
}

fn fill_system(disk: &DiskMut, store: &Store, first_sector: u64) -> Result<()> {
    let spec = fat::FormatSpec {
        label: "SYSTEM".into(),
        serial: 0x2411_2026,
        created: ntfs::FormatSpec::default().created,
        hidden_sectors: first_sector as u32,
        ..fat::FormatSpec::default()
    };
    fat::format(disk, &spec)?;
    let mut fs = open_mut(disk.clone())?;
    let loader = driver("bootmgfw.efi", "10.0.17763.1", 0x8664);
    put(&mut *fs, r"EFI\Boot\bootx64.efi", &loader)?;
    put(&mut *fs, r"EFI\Microsoft\Boot\bootmgfw.efi", &loader)?;
    put(&mut *fs, r"EFI\Microsoft\Boot\memtest.efi", &driver("memtest.efi", "10.0.17763.1", 0x8664))?;
    put(&mut *fs, r"EFI\Microsoft\Boot\en-US\bootmgfw.efi.mui", RESOURCES)?;
    put(&mut *fs, r"EFI\Microsoft\Boot\Fonts\wgl4_boot.ttf", FONT)?;
    put(&mut *fs, r"EFI\Microsoft\Boot\BCD", &hives::boot_store(&changes(&Store::default(), store))?)?;
    fs.sync()
}

fn spec(label: &str, first_sector: u64) -> ntfs::FormatSpec {
    ntfs::FormatSpec {
        label: label.into(),
        hidden_sectors: first_sector as u32,
        ..ntfs::FormatSpec::default()
    }
}

/// The active partition of a BIOS machine.
fn fill_active(disk: &DiskMut, store: &Store, first_sector: u64) -> Result<()> {
    ntfs::format(disk, &spec("System Reserved", first_sector))?;
    let mut fs = open_mut(disk.clone())?;
    put(&mut *fs, "bootmgr", BOOTMGR)?;
    put(&mut *fs, r"Boot\memtest.exe", &driver("memtest.exe", "10.0.17763.1", 0x8664))?;
    put(&mut *fs, r"Boot\Fonts\wgl4_boot.ttf", FONT)?;
    put(&mut *fs, r"Boot\BCD", &hives::boot_store(&changes(&Store::default(), store))?)?;
    fs.sync()
}

/// Gives the boot sector of an NTFS volume, and its copy, something to start.
fn boot_code(volume: &DiskMut) -> Result<()> {
    let mut sector = volume.as_disk().read_vec(0, 512)?;
    sector[0x54..0x54 + STILL.len()].copy_from_slice(&STILL);
    volume.write_at(0, &sector)?;
    volume.write_at(volume.len() - 512, &sector)
}

fn fill_windows(disk: &DiskMut, first_sector: u64) -> Result<()> {
    ntfs::format(disk, &spec("Windows", first_sector))?;
    let mut fs = open_mut(disk.clone())?;
    let fs = &mut *fs;
    let config = r"Windows\System32\config";
    put(fs, &format!(r"{config}\SYSTEM"), &hives::system()?)?;
    put(fs, &format!(r"{config}\SOFTWARE"), &hives::software()?)?;
    put(fs, &format!(r"{config}\COMPONENTS"), &hives::components()?)?;
    for name in ["SAM", "SECURITY", "DEFAULT"] {
        put(fs, &format!(r"{config}\{name}"), &hives::empty(name)?)?;
    }
    let loader = driver("bootmgfw.efi", "10.0.17763.1", 0x8664);
    put(fs, r"Windows\Boot\EFI\bootmgfw.efi", &loader)?;
    put(fs, r"Windows\Boot\EFI\memtest.efi", &driver("memtest.efi", "10.0.17763.1", 0x8664))?;
    put(fs, r"Windows\Boot\EFI\en-US\bootmgfw.efi.mui", RESOURCES)?;
    put(fs, r"Windows\Boot\PCAT\bootmgr", BOOTMGR)?;
    put(fs, r"Windows\Boot\PCAT\memtest.exe", &driver("memtest.exe", "10.0.17763.1", 0x8664))?;
    put(fs, r"Windows\Boot\Fonts\wgl4_boot.ttf", FONT)?;
    let system32 = make_directory(fs, windows::SYSTEM32)?;
    let drivers = make_directory(fs, windows::DRIVERS_FOLDER)?;
    for (name, imports) in windows::PROGRAMS {
        component(fs, name, system32, &|version| program(name, version, 0x8664, imports))?;
    }
    for name in windows::DATA {
        component(fs, name, system32, &|version| {
            format!("{name} {version}: a table in name only").into_bytes()
        })?;
    }
    for (name, imports) in windows::LIBRARIES {
        component(fs, name, drivers, &|version| program(name, version, 0x8664, imports))?;
    }
    for (service, _, _, _, imports) in windows::DRIVERS {
        let name = format!("{service}.sys");
        component(fs, &name, drivers, &|version| program(&name, version, 0x8664, imports))?;
    }
    put(
        fs,
        r"Users\Public\Desktop\readme.txt",
        b"This disk was made by vmrescue; nothing on it is Microsoft's.\r\n",
    )?;
    fs.sync()
}

/// What a program file of the demo's Windows holds in this version; `None` for one that it does not have.
pub fn program_file(name: &str, version: &str) -> Option<Vec<u8>> {
    let of = |list: &[windows::Program]| {
        list.iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(own, imports)| ((*own).to_string(), *imports))
    };
    let driver = || {
        let own =
            windows::DRIVERS.iter().find(|driver| format!("{}.sys", driver.0).eq_ignore_ascii_case(name))?;
        Some((format!("{}.sys", own.0), own.4))
    };
    let (own, imports) = of(&windows::PROGRAMS).or_else(|| of(&windows::LIBRARIES)).or_else(driver)?;
    Some(program(&own, version, 0x8664, imports))
}

/// A file with its component in the store; of ACPI.sys there are two versions.
fn component(
    fs: &mut dyn FileSystemMut,
    file: &str,
    folder: NodeId,
    content: &dyn Fn(&str) -> Vec<u8>,
) -> Result<()> {
    let versions = if file == "ACPI.sys" { &ACPI_VERSIONS[..] } else { &ACPI_VERSIONS[..1] };
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem).to_lowercase();
    let family =
        if file.to_lowercase().ends_with(".sys") { format!("{stem}.inf") } else { file.to_lowercase() };
    for version in versions.iter().rev() {
        let component = format!("amd64_{family}_31bf3856ad364e35_{version}_none_0a1b2c3d4e5f6071");
        let node = put(fs, &format!(r"Windows\WinSxS\{component}\{file}"), &content(version))?;
        if *version == ACPI_VERSIONS[0] {
            // As Windows has it: one file with a name in System32 and one in the store.
            fs.link(node, folder, file)?;
        }
    }
    Ok(())
}

/// What [`break_it`] breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// ACPI.sys is filled with zeros, as after a write that never reached the disk: 0xc0000098.
    AcpiZeroed,
    /// storvsc no longer starts at boot: 0x7B.
    StorageDriverDisabled,
    /// volmgr.sys is gone: 0xc0000225.
    VolumeManagerMissing,
    /// An update waits for the next start.
    PendingUpdate,
    /// The boot store is gone: 0xc000000f.
    StoreMissing,
    /// The boot store is no hive any more: 0xc0000034.
    StoreGarbage,
    /// The store names partitions of another disk, as after a restore: 0xc000000e.
    StoreDangling,
    /// The default entry is gone: 0xc0000034.
    StoreWithoutDefault,
    /// The boot manager itself is gone.
    BootManagerMissing,
    /// The loader is filled with zeros.
    LoaderMissing,
    /// The first copy of the GPT is overwritten.
    GptPrimary,
    /// The second copy of the GPT is overwritten.
    GptBackup,
    /// The system partition has the type of a data partition, or is not active.
    SystemPartitionUnmarked,
    /// The boot sector of the Windows partition is overwritten.
    BootSector,
}

impl Fault {
    /// The faults of the boot chain.
    pub const BOOT: [Fault; 10] = [
        Fault::StoreMissing,
        Fault::StoreGarbage,
        Fault::StoreDangling,
        Fault::StoreWithoutDefault,
        Fault::BootManagerMissing,
        Fault::LoaderMissing,
        Fault::GptPrimary,
        Fault::GptBackup,
        Fault::SystemPartitionUnmarked,
        Fault::BootSector,
    ];
}

/// Breaks the disk: published like any change, so that it can be undone.
///
/// # Errors
/// As [`run_changes`].
pub fn break_it(path: &Path, faults: &[Fault], progress: &dyn Progress) -> Result<()> {
    let system = r"C:\Windows\System32\config\SYSTEM".to_string();
    let servicing = r"Microsoft\Windows\CurrentVersion\Component Based Servicing";
    let planned = |machine: &vmrescue_windows::Machine| {
        let mut list = Vec::new();
        for fault in faults {
            match fault {
                Fault::AcpiZeroed => {
                    let path = r"C:\Windows\System32\drivers\ACPI.sys".to_string();
                    let (volume, node) = machine.resolve(&GuestPath::parse(&path)?)?;
                    let size = match node {
                        Some(node) => machine.file_system(volume)?.metadata(node)?.size_bytes,
                        None => 0,
                    };
                    list.push(Change::FileWrite {
                        path,
                        data: vec![0; size as usize].into(),
                        size,
                        from: "a crash".into(),
                    });
                }
                Fault::StorageDriverDisabled => list.push(Change::RegistrySet {
                    hive: system.clone(),
                    key: r"ControlSet001\Services\storvsc".into(),
                    name: "Start".into(),
                    data_type: 4,
                    data: vec![4, 0, 0, 0],
                    was: None,
                }),
                Fault::VolumeManagerMissing => {
                    list.push(Change::FileDelete { path: r"C:\Windows\System32\drivers\volmgr.sys".into() });
                }
                Fault::PendingUpdate => {
                    let data = b"<?xml version=\"1.0\"?><PendingTransaction/>".to_vec();
                    let path = r"C:\Windows\WinSxS\pending.xml".to_string();
                    let size = data.len() as u64;
                    list.push(Change::FileWrite { path, data: data.into(), size, from: "an update".into() });
                    list.push(Change::RegistryCreateKey {
                        hive: r"C:\Windows\System32\config\SOFTWARE".into(),
                        key: format!(r"{servicing}\RebootPending"),
                    });
                }
                fault => list.extend(faults::boot_fault(machine, *fault)?),
            }
        }
        Ok(list)
    };
    let options = Options { command: vec!["demo: break".into()], ..Options::default() };
    run_changes(path, "break the machine", planned, &options, progress).map(|_| ())
}

/// True when a guest path exists on the disk; for the demo's own words.
///
/// # Errors
/// Of reading the image.
pub fn exists(path: &Path, guest: &str) -> Result<bool> {
    let container = image::open_path(path, &image::OpenOptions::default())?;
    let machine = vmrescue_windows::Machine::open(container.disk)?;
    let parsed = GuestPath::parse(guest)?;
    let fs = machine.file_system(machine.volume_of(&parsed.volume)?)?;
    Ok(resolve(&*fs, &parsed.components)?.is_some())
}
