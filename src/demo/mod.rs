//! Builds a small Windows-shaped disk from nothing, with our own writers only: for `vmrescue demo` and for tests.
//!
//! A dynamic VHDX (or another container) with a GPT, an EFI system partition with a boot store, and an NTFS volume with
//! hives, drivers and a component store that holds two versions of ACPI.sys. Nothing in it is Microsoft's: the drivers
//! are PE files without code, made here. The recipe is told in `images/README.md`.

mod hives;
mod pe_builder;

pub use pe_builder::driver;

use crate::block::{DiskMut, HostFile};
use crate::error::{Error, Layer, Result};
use crate::fs::path::GuestPath;
use crate::fs::{FileSystemMut, NodeId, NodeKind, fat, ntfs, open_mut, resolve};
use crate::image::{self, CreateSpec, Kind};
use crate::partition::{self, BASIC_DATA, EFI_SYSTEM, MICROSOFT_RESERVED, NewPartition};
use crate::progress::Progress;
use crate::repair::{Change, Options, run_changes};
use crate::windows::bcd::{Firmware, FreshSpec, PartitionRef, Store, changes, fresh};
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
/// Versions of ACPI.sys in the component store, the newer one first.
pub const ACPI_VERSIONS: [&str; 2] = ["10.0.17763.7558", "10.0.17763.7314"];
const DRIVERS: [(&str, u32); 8] = [
    ("ACPI", 0),
    ("disk", 0),
    ("partmgr", 0),
    ("volmgr", 0),
    ("storvsc", 0),
    ("vmbus", 0),
    ("Ntfs", 0),
    ("netvsc", 3),
];

/// Makes the disk at `path`, which must not exist.
///
/// # Errors
/// Of the host.
pub fn build(path: &Path, kind: Kind) -> Result<()> {
    let file = DiskMut::new(Arc::new(HostFile::create_new(path)?));
    image::create(&file, &CreateSpec::new(kind, 256 * MIB))?;
    let disk = image::open_mut(&file, None)?.disk;
    let part = |type_guid, mbr_type, range, name: &str| NewPartition {
        type_guid,
        mbr_type,
        range,
        name: name.into(),
        active: false,
    };
    let (system, windows) = (MIB..73 * MIB, 89 * MIB..255 * MIB);
    partition::write_gpt(
        &disk,
        &[
            part(EFI_SYSTEM, 0xef, system.clone(), "EFI system partition"),
            part(MICROSOFT_RESERVED, 0, 73 * MIB..89 * MIB, "Microsoft reserved partition"),
            part(BASIC_DATA, 7, windows.clone(), "Basic data partition"),
        ],
    )?;
    let table = partition::read(&disk.as_disk())?;
    let id = |index: usize| -> Result<PartitionRef> {
        let missing = || Error::invalid(Layer::Gpt, "the new table cannot be read");
        let disk = table.disk_id.as_ref().and_then(|id| id.parse().ok()).ok_or_else(missing)?;
        let partition = table.partitions.get(index).and_then(|p| p.unique_guid).ok_or_else(missing)?;
        Ok(PartitionRef::Gpt { disk, partition })
    };
    let store = fresh(&FreshSpec::new(Firmware::Uefi, id(0)?, id(2)?));
    fill_system(&disk.window(system)?, &store)?;
    fill_windows(&disk.window(windows)?)?;
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

fn fill_system(disk: &DiskMut, store: &Store) -> Result<()> {
    fat::format(disk, "SYSTEM", 0x2411_2026)?;
    let mut fs = open_mut(disk.clone())?;
    let loader = driver("bootmgfw.efi", "10.0.17763.1", 0x8664);
    put(&mut *fs, r"EFI\Boot\bootx64.efi", &loader)?;
    put(&mut *fs, r"EFI\Microsoft\Boot\bootmgfw.efi", &loader)?;
    put(&mut *fs, r"EFI\Microsoft\Boot\BCD", &hives::boot_store(&changes(&Store::default(), store))?)?;
    fs.sync()
}

fn fill_windows(disk: &DiskMut) -> Result<()> {
    ntfs::format(disk, &ntfs::FormatSpec { label: "Windows".into(), ..ntfs::FormatSpec::default() })?;
    let mut fs = open_mut(disk.clone())?;
    let fs = &mut *fs;
    let config = r"Windows\System32\config";
    put(fs, &format!(r"{config}\SYSTEM"), &hives::system(&DRIVERS)?)?;
    put(fs, &format!(r"{config}\SOFTWARE"), &hives::software()?)?;
    put(fs, &format!(r"{config}\COMPONENTS"), &hives::components()?)?;
    for name in ["SAM", "SECURITY", "DEFAULT"] {
        put(fs, &format!(r"{config}\{name}"), &hives::empty(name)?)?;
    }
    let kernel = r"Windows\System32";
    put(fs, &format!(r"{kernel}\ntoskrnl.exe"), &driver("ntoskrnl.exe", ACPI_VERSIONS[0], 0x8664))?;
    put(fs, &format!(r"{kernel}\winload.efi"), &driver("winload.efi", ACPI_VERSIONS[0], 0x8664))?;
    let drivers = make_directory(fs, r"Windows\System32\drivers")?;
    for (name, _) in DRIVERS {
        let file = format!("{name}.sys");
        let versions = if name == "ACPI" { &ACPI_VERSIONS[..] } else { &ACPI_VERSIONS[..1] };
        for version in versions.iter().rev() {
            let component =
                format!("amd64_{}.inf_31bf3856ad364e35_{version}_none_0a1b2c3d4e5f6071", name.to_lowercase());
            let content = driver(&file, version, 0x8664);
            let node = put(fs, &format!(r"Windows\WinSxS\{component}\{file}"), &content)?;
            if *version == ACPI_VERSIONS[0] {
                // As Windows has it: one file with a name in System32 and one in the store.
                fs.link(node, drivers, &file)?;
            }
        }
    }
    put(
        fs,
        r"Users\Public\Desktop\readme.txt",
        b"This disk was made by vmrescue; nothing on it is Microsoft's.\r\n",
    )?;
    fs.sync()
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
}

/// Breaks the disk: published like any change, so that it can be undone.
///
/// # Errors
/// As [`run_changes`].
pub fn break_it(path: &Path, faults: &[Fault], progress: &dyn Progress) -> Result<()> {
    let system = r"C:\Windows\System32\config\SYSTEM".to_string();
    let servicing = r"Microsoft\Windows\CurrentVersion\Component Based Servicing";
    let planned = |machine: &crate::windows::Machine| {
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
                        data: vec![0; size as usize],
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
                    list.push(Change::FileWrite { path, data, size, from: "an update".into() });
                    list.push(Change::RegistryCreateKey {
                        hive: r"C:\Windows\System32\config\SOFTWARE".into(),
                        key: format!(r"{servicing}\RebootPending"),
                    });
                }
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
    let machine = crate::windows::Machine::open(container.disk)?;
    let parsed = GuestPath::parse(guest)?;
    let fs = machine.file_system(machine.volume_of(&parsed.volume)?)?;
    Ok(resolve(&*fs, &parsed.components)?.is_some())
}
