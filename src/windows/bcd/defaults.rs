//! A fresh store, as bcdboot makes one: for demo disks, and for a rebuild when the template is missing or broken.
//!
//! Elements and values are those of stores that Windows 10 and 11 made (UEFI), and of one that bcdboot made for a
//! BIOS machine. The entries of the firmware itself are left out: Windows writes them when it starts.

use super::device::{Device, DeviceElement, PartitionRef};
use super::names::*;
use super::store::{Object, Store};
use super::value::Value;
use vmrescue_base::guid::Guid;

/// How the machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// UEFI: Generation 2, GPT.
    Uefi,
    /// BIOS: Generation 1, MBR.
    Bios,
}

/// A recovery environment that the loader names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Partition that it lies on.
    pub partition: PartitionRef,
    /// Directory, such as `\Recovery\WindowsRE`.
    pub directory: String,
    /// Name of its entry.
    pub entry: Guid,
    /// Name of its RAM disk options.
    pub options: Guid,
}

/// What a fresh store shall boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshSpec {
    /// How the machine starts.
    pub firmware: Firmware,
    /// Partition of the boot manager.
    pub system: PartitionRef,
    /// Partition of Windows.
    pub windows: PartitionRef,
    /// Directory of Windows.
    pub windows_directory: String,
    /// What the menu shows.
    pub description: String,
    /// Language.
    pub locale: String,
    /// A server: data execution prevention is OptOut and not OptIn.
    pub server: bool,
    /// Name of the loader's entry.
    pub loader: Guid,
    /// Name of the resume entry.
    pub resume: Guid,
    /// The recovery environment, if there is one.
    pub recovery: Option<Recovery>,
}

impl FreshSpec {
    /// Windows in `\Windows`, English, without a recovery environment, with fixed names of the entries.
    pub fn new(firmware: Firmware, system: PartitionRef, windows: PartitionRef) -> FreshSpec {
        let id =
            |last| Guid::from_fields(0x5d2c_8a10, 0x77e1, 0x11ee, [0x9b, 0x1d, 0x00, 0x15, 0x5d, 0, 0, last]);
        FreshSpec {
            firmware,
            system,
            windows,
            windows_directory: r"\Windows".to_string(),
            description: "Windows".to_string(),
            locale: "en-US".to_string(),
            server: false,
            loader: id(1),
            resume: id(2),
            recovery: None,
        }
    }
}

/// A fresh store.
pub fn fresh(spec: &FreshSpec) -> Store {
    let mut objects = settings();
    objects.extend([boot_manager(spec), memory_tester(spec), loader(spec), resume(spec)]);
    if let Some(recovery) = &spec.recovery {
        objects.extend([recovery_loader(spec, recovery), recovery_options(recovery)]);
    }
    objects.sort_by_key(|object| object.id.to_string());
    Store { key_name: "BCD00000000".to_string(), objects, defects: Vec::new() }
}

fn on(partition: PartitionRef) -> Value {
    Value::Device(DeviceElement::build(Device::Partition(partition), Guid::ZERO))
}

fn text(text: &str) -> Value {
    Value::Text(text.to_string())
}

fn inherit(ids: &[Guid]) -> Value {
    Value::Objects(ids.to_vec())
}

/// The objects that everything inherits from.
fn settings() -> Vec<Object> {
    vec![
        Object::new(GLOBALSETTINGS, TYPE_INHERIT)
            .with(0x1400_0006, inherit(&[DBGSETTINGS, EMSSETTINGS, BADMEMORY])),
        Object::new(DBGSETTINGS, TYPE_INHERIT).with(0x1500_0011, Value::Integer(4)),
        Object::new(EMSSETTINGS, TYPE_INHERIT).with(0x1600_0020, Value::Boolean(false)),
        Object::new(BADMEMORY, TYPE_INHERIT),
        Object::new(BOOTLOADERSETTINGS, TYPE_INHERIT_OSLOADER)
            .with(0x1400_0006, inherit(&[GLOBALSETTINGS, HYPERVISORSETTINGS])),
        Object::new(RESUMELOADERSETTINGS, TYPE_INHERIT_RESUME).with(0x1400_0006, inherit(&[GLOBALSETTINGS])),
        Object::new(HYPERVISORSETTINGS, TYPE_INHERIT_OSLOADER)
            .with(0x2500_00F3, Value::Integer(0))
            .with(0x2500_00F4, Value::Integer(1))
            .with(0x2500_00F5, Value::Integer(115_200)),
    ]
}

/// The boot manager's object.
pub fn boot_manager(spec: &FreshSpec) -> Object {
    let object = Object::new(BOOTMGR, TYPE_BOOTMGR)
        .with(0x1100_0001, on(spec.system))
        .with(0x1200_0004, text("Windows Boot Manager"))
        .with(0x1200_0005, text(&spec.locale))
        .with(0x1400_0006, inherit(&[GLOBALSETTINGS]))
        .with(0x2300_0003, Value::Object(spec.loader))
        .with(0x2300_0006, Value::Object(spec.resume))
        .with(0x2400_0001, Value::Objects(vec![spec.loader]))
        .with(0x2400_0010, Value::Objects(vec![MEMDIAG]))
        .with(0x2500_0004, Value::Integer(30));
    match spec.firmware {
        Firmware::Uefi => object.with(0x1200_0002, text(r"\EFI\Microsoft\Boot\bootmgfw.efi")),
        Firmware::Bios => object,
    }
}

fn memory_tester(spec: &FreshSpec) -> Object {
    let path = match spec.firmware {
        Firmware::Uefi => r"\EFI\Microsoft\Boot\memtest.efi",
        Firmware::Bios => r"\boot\memtest.exe",
    };
    Object::new(MEMDIAG, TYPE_MEMDIAG)
        .with(0x1100_0001, on(spec.system))
        .with(0x1200_0002, text(path))
        .with(0x1200_0004, text("Windows Memory Diagnostic"))
        .with(0x1200_0005, text(&spec.locale))
        .with(0x1400_0006, inherit(&[GLOBALSETTINGS]))
        .with(0x1600_000B, Value::Boolean(true))
}

fn system32(spec: &FreshSpec, stem: &str) -> Value {
    let extension = if spec.firmware == Firmware::Uefi { "efi" } else { "exe" };
    text(&format!(r"{}\system32\{stem}.{extension}", spec.windows_directory))
}

/// The loader's object.
pub fn loader(spec: &FreshSpec) -> Object {
    let object = Object::new(spec.loader, TYPE_OSLOADER)
        .with(0x1100_0001, on(spec.windows))
        .with(0x1200_0002, system32(spec, "winload"))
        .with(0x1200_0004, text(&spec.description))
        .with(0x1200_0005, text(&spec.locale))
        .with(0x1400_0006, inherit(&[BOOTLOADERSETTINGS]))
        .with(0x1700_0077, Value::Integers(vec![0x1500_0075]))
        .with(0x2100_0001, on(spec.windows))
        .with(0x2200_0002, text(&spec.windows_directory))
        .with(0x2300_0003, Value::Object(spec.resume))
        .with(0x2500_0020, Value::Integer(u64::from(spec.server)))
        .with(0x2500_00C2, Value::Integer(1));
    isolated(with_recovery(object, spec), spec)
}

fn resume(spec: &FreshSpec) -> Object {
    let object = Object::new(spec.resume, TYPE_RESUME)
        .with(0x1100_0001, on(spec.windows))
        .with(0x1200_0002, system32(spec, "winresume"))
        .with(0x1200_0004, text("Windows Resume Application"))
        .with(0x1200_0005, text(&spec.locale))
        .with(0x1400_0006, inherit(&[RESUMELOADERSETTINGS]))
        .with(0x1700_0077, Value::Integers(vec![0x1500_0075]))
        .with(0x2100_0001, on(spec.windows))
        .with(0x2200_0002, text(r"\hiberfil.sys"))
        .with(0x2500_0008, Value::Integer(1))
        .with(0x2600_0006, Value::Boolean(false));
    isolated(with_recovery(object, spec), spec)
}

fn with_recovery(object: Object, spec: &FreshSpec) -> Object {
    match &spec.recovery {
        Some(recovery) => object
            .with(0x1400_0008, Value::Objects(vec![recovery.entry]))
            .with(0x1600_0009, Value::Boolean(true)),
        None => object,
    }
}

fn isolated(object: Object, spec: &FreshSpec) -> Object {
    match spec.firmware {
        Firmware::Uefi => object.with(0x1600_0060, Value::Boolean(true)),
        Firmware::Bios => object,
    }
}

fn recovery_loader(spec: &FreshSpec, recovery: &Recovery) -> Object {
    let extension = if spec.firmware == Firmware::Uefi { "efi" } else { "exe" };
    let device = || {
        let image = Device::Ramdisk {
            device: Box::new(Device::Partition(recovery.partition)),
            path: format!(r"{}\Winre.wim", recovery.directory),
        };
        Value::Device(DeviceElement::build(image, recovery.options))
    };
    Object::new(recovery.entry, TYPE_OSLOADER)
        .with(0x1100_0001, device())
        .with(0x1200_0002, text(&format!(r"\windows\system32\winload.{extension}")))
        .with(0x1200_0004, text("Windows Recovery Environment"))
        .with(0x1200_0005, text(&spec.locale))
        .with(0x1400_0006, inherit(&[BOOTLOADERSETTINGS]))
        .with(0x1500_0065, Value::Integer(3))
        .with(0x2100_0001, device())
        .with(0x2200_0002, text(r"\windows"))
        .with(0x2500_0020, Value::Integer(0))
        .with(0x2500_00C2, Value::Integer(1))
        .with(0x2600_0022, Value::Boolean(true))
        .with(0x4600_0010, Value::Boolean(true))
}

fn recovery_options(recovery: &Recovery) -> Object {
    Object::new(recovery.options, TYPE_DEVICE_OPTIONS)
        .with(0x1200_0004, text("Windows Recovery"))
        .with(0x3100_0003, on(recovery.partition))
        .with(0x3200_0004, text(&format!(r"{}\boot.sdi", recovery.directory)))
}
