//! Well-known objects of a store, their aliases and the headings that bcdedit prints.
//!
//! Source: Microsoft's BCD WMI reference (`BcdObject`), and stores made by Windows 10 and 11.

use vmrescue_base::guid::Guid;

/// The boot manager.
pub const BOOTMGR: Guid =
    Guid::from_fields(0x9dea862c, 0x5cdd, 0x4e70, [0xac, 0xc1, 0xf3, 0x2b, 0x34, 0x4d, 0x47, 0x95]);
/// The boot manager of the firmware, as Windows shows it.
pub const FWBOOTMGR: Guid =
    Guid::from_fields(0xa5a30fa2, 0x3d06, 0x4e9f, [0xb5, 0xf4, 0xa0, 0x1d, 0xf9, 0xd1, 0xfc, 0xba]);
/// The memory tester.
pub const MEMDIAG: Guid =
    Guid::from_fields(0xb2721d73, 0x1db4, 0x4c62, [0xbf, 0x78, 0xc5, 0x48, 0xa8, 0x80, 0x14, 0x2d]);
/// The loader of Windows XP and older.
pub const NTLDR: Guid =
    Guid::from_fields(0x466f5a88, 0x0af2, 0x4f76, [0x90, 0x38, 0x09, 0x5b, 0x17, 0x0d, 0xc2, 0x1c]);
/// Settings that everything inherits.
pub const GLOBALSETTINGS: Guid =
    Guid::from_fields(0x7ea2e1ac, 0x2e61, 0x4728, [0xaa, 0xa3, 0x89, 0x6d, 0x9d, 0x0a, 0x9f, 0x0e]);
/// Debugger settings.
pub const DBGSETTINGS: Guid =
    Guid::from_fields(0x4636856e, 0x540f, 0x4170, [0xa1, 0x30, 0xa8, 0x47, 0x76, 0xf4, 0xc6, 0x54]);
/// Emergency management (serial console) settings.
pub const EMSSETTINGS: Guid =
    Guid::from_fields(0x0ce4991b, 0xe6b3, 0x4b16, [0xb2, 0x3c, 0x5e, 0x0d, 0x92, 0x50, 0xe5, 0xd9]);
/// Bad pages of memory.
pub const BADMEMORY: Guid =
    Guid::from_fields(0x5189b25c, 0x5558, 0x4bf2, [0xbc, 0xa4, 0x28, 0x9b, 0x11, 0xbd, 0x29, 0xe2]);
/// What all loaders inherit.
pub const BOOTLOADERSETTINGS: Guid =
    Guid::from_fields(0x6efb52bf, 0x1766, 0x41db, [0xa6, 0xb3, 0x0e, 0xe5, 0xef, 0xf7, 0x2b, 0xd7]);
/// What all resume loaders inherit.
pub const RESUMELOADERSETTINGS: Guid =
    Guid::from_fields(0x1afa9c49, 0x16ab, 0x4a5c, [0x90, 0x1b, 0x21, 0x28, 0x02, 0xda, 0x94, 0x60]);
/// Hypervisor settings.
pub const HYPERVISORSETTINGS: Guid =
    Guid::from_fields(0x7ff607e0, 0x4395, 0x11db, [0xb0, 0xde, 0x08, 0x00, 0x20, 0x0c, 0x9a, 0x66]);
/// Options of the RAM disk of Windows Setup.
pub const RAMDISKOPTIONS: Guid =
    Guid::from_fields(0xae5534e0, 0xa924, 0x466c, [0xb8, 0x36, 0x75, 0x85, 0x39, 0xa3, 0xee, 0x3a]);
/// Stands for the default entry in requests to Windows; a store never has an object of this name.
pub const DEFAULT_ALIAS: Guid =
    Guid::from_fields(0x1cae1eb7, 0xa0df, 0x4d4d, [0x98, 0x51, 0x48, 0x60, 0xe3, 0x4e, 0xf5, 0x35]);
/// Stands for the running entry in requests to Windows.
pub const CURRENT_ALIAS: Guid =
    Guid::from_fields(0xfa926493, 0x6f1c, 0x4193, [0xa4, 0x14, 0x58, 0xf0, 0xb2, 0x45, 0x6d, 0x1e]);

/// Object type of the firmware's boot manager.
pub const TYPE_FWBOOTMGR: u32 = 0x1010_0001;
/// Object type of the boot manager.
pub const TYPE_BOOTMGR: u32 = 0x1010_0002;
/// Object type of an entry of the firmware's menu.
pub const TYPE_FIRMWARE_APPLICATION: u32 = 0x101F_FFFF;
/// Object type of a Windows loader.
pub const TYPE_OSLOADER: u32 = 0x1020_0003;
/// Object type of a loader that resumes from hibernation.
pub const TYPE_RESUME: u32 = 0x1020_0004;
/// Object type of the memory tester.
pub const TYPE_MEMDIAG: u32 = 0x1020_0005;
/// Object type of the loader of Windows XP.
pub const TYPE_NTLDR: u32 = 0x1030_0006;
/// Object type of settings that any object may inherit.
pub const TYPE_INHERIT: u32 = 0x2010_0000;
/// Object type of settings that loaders inherit.
pub const TYPE_INHERIT_OSLOADER: u32 = 0x2020_0003;
/// Object type of settings that resume loaders inherit.
pub const TYPE_INHERIT_RESUME: u32 = 0x2020_0004;
/// Object type of options of a device.
pub const TYPE_DEVICE_OPTIONS: u32 = 0x3000_0000;

/// Alias, GUID, type; the type of the two aliases is that of what they stand for.
pub const KNOWN_OBJECTS: &[(&str, Guid, u32)] = &[
    ("bootmgr", BOOTMGR, TYPE_BOOTMGR),
    ("fwbootmgr", FWBOOTMGR, TYPE_FWBOOTMGR),
    ("memdiag", MEMDIAG, TYPE_MEMDIAG),
    ("ntldr", NTLDR, TYPE_NTLDR),
    ("globalsettings", GLOBALSETTINGS, TYPE_INHERIT),
    ("dbgsettings", DBGSETTINGS, TYPE_INHERIT),
    ("emssettings", EMSSETTINGS, TYPE_INHERIT),
    ("badmemory", BADMEMORY, TYPE_INHERIT),
    ("bootloadersettings", BOOTLOADERSETTINGS, TYPE_INHERIT_OSLOADER),
    ("resumeloadersettings", RESUMELOADERSETTINGS, TYPE_INHERIT_RESUME),
    ("hypervisorsettings", HYPERVISORSETTINGS, TYPE_INHERIT_OSLOADER),
    ("ramdiskoptions", RAMDISKOPTIONS, TYPE_DEVICE_OPTIONS),
];

/// The alias of a well-known object, without braces.
pub fn alias_of(id: Guid) -> Option<&'static str> {
    KNOWN_OBJECTS.iter().find(|(_, guid, _)| *guid == id).map(|(alias, ..)| *alias)
}

/// The well-known object with this alias (with or without braces, in any case) and its type.
pub fn known_object(alias: &str) -> Option<(Guid, u32)> {
    let bare = alias.trim().trim_start_matches('{').trim_end_matches('}');
    KNOWN_OBJECTS
        .iter()
        .find(|(name, ..)| name.eq_ignore_ascii_case(bare))
        .map(|(_, guid, object_type)| (*guid, *object_type))
}

/// What `bcdedit /create /application` and `/device` make, with the types of their objects.
pub const APPLICATIONS: [(&str, u32); 4] = [
    ("osloader", TYPE_OSLOADER),
    ("resume", TYPE_RESUME),
    ("bootsector", 0x1040_0008),
    ("device", TYPE_DEVICE_OPTIONS),
];

/// The type of an object that is made under this name.
pub fn application(name: &str) -> Option<u32> {
    APPLICATIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
}

/// The heading that bcdedit prints over an object.
pub fn heading(id: Guid, object_type: u32) -> String {
    let settings = match id {
        EMSSETTINGS => "EMS Settings",
        DBGSETTINGS => "Debugger Settings",
        BADMEMORY => "RAM Defects",
        GLOBALSETTINGS => "Global Settings",
        BOOTLOADERSETTINGS => "Boot Loader Settings",
        RESUMELOADERSETTINGS => "Resume Loader Settings",
        HYPERVISORSETTINGS => "Hypervisor Settings",
        RAMDISKOPTIONS => "Setup Ramdisk Options",
        _ => "",
    };
    if !settings.is_empty() {
        return settings.to_string();
    }
    match object_type {
        TYPE_FWBOOTMGR => "Firmware Boot Manager".to_string(),
        TYPE_BOOTMGR => "Windows Boot Manager".to_string(),
        TYPE_FIRMWARE_APPLICATION => format!("Firmware Application ({object_type:x})"),
        TYPE_OSLOADER => "Windows Boot Loader".to_string(),
        TYPE_RESUME => "Resume from Hibernate".to_string(),
        TYPE_MEMDIAG => "Windows Memory Tester".to_string(),
        TYPE_NTLDR => "Windows Legacy OS Loader".to_string(),
        0x1040_0008 => "Real-mode Boot Sector".to_string(),
        0x1040_0009 => "Real-mode Application".to_string(),
        TYPE_INHERIT_OSLOADER => "OS Loader Settings".to_string(),
        TYPE_INHERIT_RESUME => "Resume Loader Settings".to_string(),
        TYPE_DEVICE_OPTIONS => "Device options".to_string(),
        other => format!("Unknown ({other:08x})"),
    }
}

/// Where `bcdedit /enum all` puts an object: smaller comes first.
pub fn rank(id: Guid, object_type: u32) -> u32 {
    match (object_type, id) {
        (TYPE_FWBOOTMGR, _) => 0,
        (TYPE_BOOTMGR, _) => 1,
        (TYPE_FIRMWARE_APPLICATION, _) => 2,
        (TYPE_OSLOADER, _) => 3,
        (TYPE_RESUME, _) => 4,
        (TYPE_MEMDIAG, _) => 5,
        (TYPE_NTLDR, _) => 6,
        (0x1040_0008 | 0x1040_0009, _) => 7,
        (_, EMSSETTINGS) => 9,
        (_, DBGSETTINGS) => 10,
        (_, BADMEMORY) => 11,
        (_, GLOBALSETTINGS) => 12,
        (_, BOOTLOADERSETTINGS) => 13,
        (_, HYPERVISORSETTINGS) => 14,
        (_, RESUMELOADERSETTINGS) => 15,
        (_, RAMDISKOPTIONS) => 17,
        (TYPE_DEVICE_OPTIONS, _) => 18,
        (TYPE_INHERIT | TYPE_INHERIT_OSLOADER | TYPE_INHERIT_RESUME, _) => 16,
        _ => 8,
    }
}
