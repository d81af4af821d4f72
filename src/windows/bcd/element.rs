//! Element numbers, formats, names and words of values, as bcdedit writes them.
//!
//! A number is class (4 bits), format (4 bits) and subtype (24 bits). The same number means different things on
//! different applications, so a name belongs to an application. Source: Microsoft's BCD WMI reference
//! (`BcdLibraryElementTypes`, `BcdOSLoaderElementTypes`, ...), the documentation of `bcdedit /set`, and stores made
//! by Windows 10 and 11.

use super::names;

/// The format nibble: how the data of an element is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 1: a device.
    Device,
    /// 2: text.
    Text,
    /// 3: one object.
    Object,
    /// 4: a list of objects.
    Objects,
    /// 5: a 64-bit number.
    Integer,
    /// 6: yes or no.
    Boolean,
    /// 7: a list of 64-bit numbers.
    Integers,
    /// Anything else.
    Unknown,
}

/// The format of an element.
pub fn format(element: u32) -> Format {
    match element >> 24 & 0xF {
        1 => Format::Device,
        2 => Format::Text,
        3 => Format::Object,
        4 => Format::Objects,
        5 => Format::Integer,
        6 => Format::Boolean,
        7 => Format::Integers,
        _ => Format::Unknown,
    }
}

/// Whose element it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Library,
    BootManager,
    OsLoader,
    Resume,
    MemoryTester,
    Legacy,
    DeviceOptions,
}

/// One row of the table.
struct Row {
    scope: Scope,
    element: u32,
    name: &'static str,
    /// Words of the values 0, 1, 2, ...; empty for plain numbers.
    words: &'static [&'static str],
}

const fn row(scope: Scope, element: u32, name: &'static str, words: &'static [&'static str]) -> Row {
    Row { scope, element, name, words }
}

/// Which application's elements an object of this type has.
fn scope_of(object_type: u32) -> Option<Scope> {
    if object_type >> 28 == 3 {
        return Some(DeviceOptions);
    }
    match object_type & 0xF_FFFF {
        1 | 2 => Some(BootManager),
        3 => Some(OsLoader),
        4 => Some(Resume),
        5 => Some(MemoryTester),
        6 => Some(Legacy),
        _ => None,
    }
}

fn rows(object_type: u32) -> impl Iterator<Item = &'static Row> {
    let scope = scope_of(object_type);
    ROWS.iter().filter(move |row| row.scope == Library || Some(row.scope) == scope)
}

/// bcdedit's name of an element on an object of this type.
pub fn name(object_type: u32, element: u32) -> Option<&'static str> {
    rows(object_type).find(|row| row.element == element).map(|row| row.name)
}

/// The words of the values of an element, in the order of the numbers 0, 1, 2, ...; empty for plain numbers.
pub fn words(object_type: u32, element: u32) -> &'static [&'static str] {
    rows(object_type).find(|row| row.element == element).map_or(&[], |row| row.words)
}

/// The element that a user means on an object of this type: a name, `custom:16000060`, or `0x16000060`. Settings that
/// any object may inherit also take the names of loaders.
pub fn by_name(object_type: u32, text: &str) -> Option<u32> {
    let text = text.trim();
    let digits = text.strip_prefix("custom:").or_else(|| text.strip_prefix("0x"));
    if let Some(digits) = digits.or_else(|| (text.len() == 8).then_some(text))
        && let Ok(element) = u32::from_str_radix(digits.trim_start_matches("0x"), 16)
    {
        return Some(element);
    }
    let named = |row: &&Row| row.name.eq_ignore_ascii_case(text);
    let found = rows(object_type).find(named).map(|row| row.element);
    let inherit = object_type == names::TYPE_INHERIT;
    found.or_else(|| inherit.then(|| rows(names::TYPE_OSLOADER).find(named).map(|row| row.element))?)
}

use Scope::{BootManager, DeviceOptions, Legacy, Library, MemoryTester, OsLoader, Resume};

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(Library, 0x1100_0001, "device", &[]),
    row(Library, 0x1200_0002, "path", &[]),
    row(Library, 0x1200_0004, "description", &[]),
    row(Library, 0x1200_0005, "locale", &[]),
    row(Library, 0x1400_0006, "inherit", &[]),
    row(Library, 0x1500_0007, "truncatememory", &[]),
    row(Library, 0x1400_0008, "recoverysequence", &[]),
    row(Library, 0x1600_0009, "recoveryenabled", &[]),
    row(Library, 0x1700_000a, "badmemorylist", &[]),
    row(Library, 0x1600_000b, "badmemoryaccess", &[]),
    row(Library, 0x1500_000c, "firstmegabytepolicy", &["UseNone", "UseAll", "UsePrivate"]),
    row(Library, 0x1500_000d, "relocatephysical", &[]),
    row(Library, 0x1500_000e, "avoidlowmemory", &[]),
    row(Library, 0x1600_000f, "traditionalkseg", &[]),
    row(Library, 0x1600_0010, "bootdebug", &[]),
    row(Library, 0x1500_0011, "debugtype", &["Serial", "1394", "USB", "Net", "Local"]),
    row(Library, 0x1500_0012, "debugaddress", &[]),
    row(Library, 0x1500_0013, "debugport", &[]),
    row(Library, 0x1500_0014, "baudrate", &[]),
    row(Library, 0x1500_0015, "channel", &[]),
    row(Library, 0x1200_0016, "targetname", &[]),
    row(Library, 0x1600_0017, "noumex", &[]),
    row(Library, 0x1500_0018, "debugstart", &["Active", "AutoEnable", "Disable"]),
    row(Library, 0x1200_0019, "busparams", &[]),
    row(Library, 0x1500_001a, "hostip", &[]),
    row(Library, 0x1500_001b, "port", &[]),
    row(Library, 0x1600_001c, "dhcp", &[]),
    row(Library, 0x1200_001d, "key", &[]),
    row(Library, 0x1600_001e, "vm", &[]),
    row(Library, 0x1600_0020, "bootems", &[]),
    row(Library, 0x1500_0022, "emsport", &[]),
    row(Library, 0x1500_0023, "emsbaudrate", &[]),
    row(Library, 0x1200_0030, "loadoptions", &[]),
    row(Library, 0x1600_0040, "advancedoptions", &[]),
    row(Library, 0x1600_0041, "optionsedit", &[]),
    row(Library, 0x1500_0042, "keyringaddress", &[]),
    row(Library, 0x1100_0043, "bootstatdevice", &[]),
    row(Library, 0x1200_0044, "bootstatfilepath", &[]),
    row(Library, 0x1600_0045, "preservebootstat", &[]),
    row(Library, 0x1600_0046, "graphicsmodedisabled", &[]),
    row(Library, 0x1500_0047, "configaccesspolicy", &["Default", "DisallowMmConfig"]),
    row(Library, 0x1600_0048, "nointegritychecks", &[]),
    row(Library, 0x1600_0049, "testsigning", &[]),
    row(Library, 0x1200_004a, "fontpath", &[]),
    row(Library, 0x1500_004b, "integrityservices", &["Default", "Enable", "Disable"]),
    row(Library, 0x1500_004c, "volumebandid", &[]),
    row(Library, 0x1600_0050, "extendedinput", &[]),
    row(Library, 0x1500_0051, "initialconsoleinput", &[]),
    row(Library, 0x1500_0052, "graphicsresolution", &["1024x768", "800x600", "1024x600"]),
    row(Library, 0x1600_0053, "restartonfailure", &[]),
    row(Library, 0x1600_0054, "highestmode", &[]),
    row(Library, 0x1600_0060, "isolatedcontext", &[]),
    row(Library, 0x1500_0065, "displaymessage", &["Default", "Resume", "HyperV", "Recovery", "StartupRepair", "SystemImageRecovery", "CommandPrompt", "SystemRestore", "PushButtonReset"]),
    row(Library, 0x1500_0066, "displaymessageoverride", &["Default", "Resume", "HyperV", "Recovery", "StartupRepair", "SystemImageRecovery", "CommandPrompt", "SystemRestore", "PushButtonReset"]),
    row(Library, 0x1600_0067, "nobootuxlogo", &[]),
    row(Library, 0x1600_0068, "nobootuxtext", &[]),
    row(Library, 0x1600_0069, "nobootuxprogress", &[]),
    row(Library, 0x1600_006a, "nobootuxfade", &[]),
    row(Library, 0x1600_006c, "bootuxdisabled", &[]),
    row(Library, 0x1700_0077, "allowedinmemorysettings", &[]),
    row(Library, 0x1500_0079, "bootuxtransitiontime", &[]),
    row(Library, 0x1600_007a, "mobilegraphics", &[]),
    row(Library, 0x1600_007b, "forcefipscrypto", &[]),
    row(Library, 0x1500_007d, "booterrorux", &["Legacy", "Standard", "Simple"]),
    row(Library, 0x1600_007e, "flightsigning", &[]),
    row(Library, 0x1500_007f, "measuredbootlogformat", &["Default", "Sha1"]),
    row(Library, 0x1500_0081, "displayrotation", &[]),
    row(Library, 0x1600_0087, "numlock", &[]),
    row(BootManager, 0x2300_0003, "default", &[]),
    row(BootManager, 0x2400_0001, "displayorder", &[]),
    row(BootManager, 0x2400_0002, "bootsequence", &[]),
    row(BootManager, 0x2500_0004, "timeout", &[]),
    row(BootManager, 0x2600_0005, "resume", &[]),
    row(BootManager, 0x2300_0006, "resumeobject", &[]),
    row(BootManager, 0x2400_0010, "toolsdisplayorder", &[]),
    row(BootManager, 0x2600_0020, "displaybootmenu", &[]),
    row(BootManager, 0x2600_0021, "noerrordisplay", &[]),
    row(BootManager, 0x2100_0022, "bcddevice", &[]),
    row(BootManager, 0x2200_0023, "bcdfilepath", &[]),
    row(BootManager, 0x2600_0028, "processcustomactionsfirst", &[]),
    row(BootManager, 0x2700_0030, "customactions", &[]),
    row(BootManager, 0x2600_0031, "persistbootsequence", &[]),
    row(OsLoader, 0x2100_0001, "osdevice", &[]),
    row(OsLoader, 0x2200_0002, "systemroot", &[]),
    row(OsLoader, 0x2300_0003, "resumeobject", &[]),
    row(OsLoader, 0x2600_0004, "stampdisks", &[]),
    row(OsLoader, 0x2600_0010, "detecthal", &[]),
    row(OsLoader, 0x2200_0011, "kernel", &[]),
    row(OsLoader, 0x2200_0012, "hal", &[]),
    row(OsLoader, 0x2200_0013, "dbgtransport", &[]),
    row(OsLoader, 0x2500_0020, "nx", &["OptIn", "OptOut", "AlwaysOff", "AlwaysOn"]),
    row(OsLoader, 0x2500_0021, "pae", &["Default", "ForceEnable", "ForceDisable"]),
    row(OsLoader, 0x2600_0022, "winpe", &[]),
    row(OsLoader, 0x2600_0024, "nocrashautoreboot", &[]),
    row(OsLoader, 0x2600_0025, "lastknowngood", &[]),
    row(OsLoader, 0x2600_0026, "oslnointegritychecks", &[]),
    row(OsLoader, 0x2600_0027, "osltestsigning", &[]),
    row(OsLoader, 0x2600_0030, "nolowmem", &[]),
    row(OsLoader, 0x2500_0031, "removememory", &[]),
    row(OsLoader, 0x2500_0032, "increaseuserva", &[]),
    row(OsLoader, 0x2500_0033, "perfmem", &[]),
    row(OsLoader, 0x2600_0040, "vga", &[]),
    row(OsLoader, 0x2600_0041, "quietboot", &[]),
    row(OsLoader, 0x2600_0042, "novesa", &[]),
    row(OsLoader, 0x2600_0043, "novga", &[]),
    row(OsLoader, 0x2500_0050, "clustermodeaddressing", &[]),
    row(OsLoader, 0x2600_0051, "usephysicaldestination", &[]),
    row(OsLoader, 0x2500_0052, "restrictapiccluster", &[]),
    row(OsLoader, 0x2200_0053, "evstore", &[]),
    row(OsLoader, 0x2600_0054, "uselegacyapicmode", &[]),
    row(OsLoader, 0x2500_0055, "x2apicpolicy", &["Default", "Disable", "Enable"]),
    row(OsLoader, 0x2600_0060, "onecpu", &[]),
    row(OsLoader, 0x2500_0061, "numproc", &[]),
    row(OsLoader, 0x2600_0062, "maxproc", &[]),
    row(OsLoader, 0x2500_0063, "configflags", &[]),
    row(OsLoader, 0x2600_0064, "maxgroup", &[]),
    row(OsLoader, 0x2600_0065, "groupaware", &[]),
    row(OsLoader, 0x2500_0066, "groupsize", &[]),
    row(OsLoader, 0x2600_0070, "usefirmwarepcisettings", &[]),
    row(OsLoader, 0x2500_0071, "msi", &["Default", "ForceDisable"]),
    row(OsLoader, 0x2500_0072, "pciexpress", &["Default", "ForceDisable"]),
    row(OsLoader, 0x2500_0080, "safeboot", &["Minimal", "Network", "DsRepair"]),
    row(OsLoader, 0x2600_0081, "safebootalternateshell", &[]),
    row(OsLoader, 0x2600_0090, "bootlog", &[]),
    row(OsLoader, 0x2600_0091, "sos", &[]),
    row(OsLoader, 0x2600_00a0, "debug", &[]),
    row(OsLoader, 0x2600_00a1, "halbreakpoint", &[]),
    row(OsLoader, 0x2600_00a2, "useplatformclock", &[]),
    row(OsLoader, 0x2600_00a3, "forcelegacyplatform", &[]),
    row(OsLoader, 0x2600_00a4, "useplatformtick", &[]),
    row(OsLoader, 0x2600_00a5, "disabledynamictick", &[]),
    row(OsLoader, 0x2500_00a6, "tscsyncpolicy", &["Default", "Legacy", "Enhanced"]),
    row(OsLoader, 0x2600_00b0, "ems", &[]),
    row(OsLoader, 0x2500_00c0, "forcefailure", &[]),
    row(OsLoader, 0x2500_00c1, "driverloadfailurepolicy", &["Fatal", "UseErrorControl"]),
    row(OsLoader, 0x2500_00c2, "bootmenupolicy", &["Legacy", "Standard"]),
    row(OsLoader, 0x2600_00c3, "onetimeadvancedoptions", &[]),
    row(OsLoader, 0x2600_00c4, "onetimeoptionsedit", &[]),
    row(OsLoader, 0x2500_00e0, "bootstatuspolicy", &["DisplayAllFailures", "IgnoreAllFailures", "IgnoreShutdownFailures", "IgnoreBootFailures", "IgnoreCheckpointFailures", "DisplayShutdownFailures", "DisplayBootFailures", "DisplayCheckpointFailures"]),
    row(OsLoader, 0x2600_00e1, "disableelamdrivers", &[]),
    row(OsLoader, 0x2500_00f0, "hypervisorlaunchtype", &["Off", "Auto"]),
    row(OsLoader, 0x2200_00f1, "hypervisorpath", &[]),
    row(OsLoader, 0x2600_00f2, "hypervisordebug", &[]),
    row(OsLoader, 0x2500_00f3, "hypervisordebugtype", &["Serial", "1394", "None", "Net"]),
    row(OsLoader, 0x2500_00f4, "hypervisordebugport", &[]),
    row(OsLoader, 0x2500_00f5, "hypervisorbaudrate", &[]),
    row(OsLoader, 0x2500_00f6, "hypervisorchannel", &[]),
    row(OsLoader, 0x2500_00f7, "bootux", &["Disabled", "Basic", "Standard"]),
    row(OsLoader, 0x2600_00f8, "hypervisordisableslat", &[]),
    row(OsLoader, 0x2200_00f9, "hypervisorbusparams", &[]),
    row(OsLoader, 0x2500_00fa, "hypervisornumproc", &[]),
    row(OsLoader, 0x2500_00fb, "hypervisorrootprocpernode", &[]),
    row(OsLoader, 0x2600_00fc, "hypervisoruselargevtlb", &[]),
    row(OsLoader, 0x2500_00fd, "hypervisorhostip", &[]),
    row(OsLoader, 0x2500_00fe, "hypervisorhostport", &[]),
    row(OsLoader, 0x2500_00ff, "hypervisordebugpages", &[]),
    row(OsLoader, 0x2500_0100, "tpmbootentropy", &["Default", "ForceDisable", "ForceEnable"]),
    row(OsLoader, 0x2200_0110, "hypervisorusekey", &[]),
    row(OsLoader, 0x2200_0112, "hypervisorproductskutype", &[]),
    row(OsLoader, 0x2500_0113, "hypervisorrootproc", &[]),
    row(OsLoader, 0x2600_0114, "hypervisordhcp", &[]),
    row(OsLoader, 0x2500_0115, "hypervisoriommupolicy", &["Default", "Enable", "Disable"]),
    row(OsLoader, 0x2600_0116, "hypervisorusevapic", &[]),
    row(OsLoader, 0x2200_0117, "hypervisorloadoptions", &[]),
    row(OsLoader, 0x2500_0118, "hypervisormsrfilterpolicy", &["Disable", "Enable"]),
    row(OsLoader, 0x2500_0119, "hypervisormmionxpolicy", &["Disable", "Enable"]),
    row(OsLoader, 0x2500_011a, "hypervisorschedulertype", &[]),
    row(OsLoader, 0x2500_0120, "xsavepolicy", &[]),
    row(OsLoader, 0x2500_0121, "xsaveaddfeature0", &[]),
    row(OsLoader, 0x2500_012a, "xsaveremovefeature", &[]),
    row(OsLoader, 0x2500_012b, "xsaveprocessorsmask", &[]),
    row(OsLoader, 0x2500_012c, "xsavedisable", &[]),
    row(OsLoader, 0x2500_0142, "vsmlaunchtype", &["Off", "Auto"]),
    row(Resume, 0x2100_0001, "filedevice", &[]),
    row(Resume, 0x2200_0002, "filepath", &[]),
    row(Resume, 0x2600_0003, "customsettings", &[]),
    row(Resume, 0x2600_0004, "pae", &[]),
    row(Resume, 0x2100_0005, "associatedosdevice", &[]),
    row(Resume, 0x2600_0006, "debugoptionenabled", &[]),
    row(Resume, 0x2500_0007, "bootux", &["Disabled", "Basic", "Standard"]),
    row(Resume, 0x2500_0008, "bootmenupolicy", &["Legacy", "Standard"]),
    row(MemoryTester, 0x2500_0001, "passcount", &[]),
    row(MemoryTester, 0x2500_0002, "testmix", &["Basic", "Extended"]),
    row(MemoryTester, 0x2500_0003, "failurecount", &[]),
    row(MemoryTester, 0x2600_0003, "cacheenable", &[]),
    row(Legacy, 0x2200_0001, "bpbstring", &[]),
    row(DeviceOptions, 0x3500_0001, "ramdiskimageoffset", &[]),
    row(DeviceOptions, 0x3500_0002, "ramdisktftpclientport", &[]),
    row(DeviceOptions, 0x3100_0003, "ramdisksdidevice", &[]),
    row(DeviceOptions, 0x3200_0004, "ramdisksdipath", &[]),
    row(DeviceOptions, 0x3500_0005, "ramdiskimagelength", &[]),
    row(DeviceOptions, 0x3600_0006, "exportascd", &[]),
    row(DeviceOptions, 0x3500_0007, "ramdisktftpblocksize", &[]),
    row(DeviceOptions, 0x3500_0008, "ramdisktftpwindowsize", &[]),
    row(DeviceOptions, 0x3600_0009, "ramdiskmcenabled", &[]),
    row(DeviceOptions, 0x3600_000a, "ramdiskmctftpfallback", &[]),
    row(DeviceOptions, 0x3600_000b, "ramdisktftpvarwindow", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_format_and_no_name_stands_twice() {
        for (place, row) in ROWS.iter().enumerate() {
            assert_ne!(format(row.element), Format::Unknown, "{}", row.name);
            let again = |other: &&Row| {
                other.scope == row.scope && (other.element == row.element || other.name == row.name)
            };
            assert_eq!(ROWS[place + 1..].iter().find(again).map(|r| r.name), None, "{}", row.name);
            assert!(row.words.is_empty() || format(row.element) == Format::Integer, "{}", row.name);
        }
    }

    #[test]
    fn one_number_means_different_things() {
        assert_eq!(name(names::TYPE_BOOTMGR, 0x2300_0003), Some("default"));
        assert_eq!(name(names::TYPE_OSLOADER, 0x2300_0003), Some("resumeobject"));
        assert_eq!(by_name(names::TYPE_OSLOADER, "SafeBoot"), Some(0x2500_0080));
        assert_eq!(by_name(names::TYPE_BOOTMGR, "safeboot"), None);
        assert_eq!(by_name(names::TYPE_BOOTMGR, "custom:26000020"), Some(0x2600_0020));
        assert_eq!(words(names::TYPE_OSLOADER, 0x2500_0020)[1], "OptOut");
    }
}
