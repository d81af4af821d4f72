//! The files and drivers of the demo's Windows: everything that the start of Windows Server 2019 takes, as program files without code, each
//! with the imports that its like has.

/// `System32` and `drivers`, from the root of the volume.
pub(super) const SYSTEM32: &str = r"Windows\System32";
pub(super) const DRIVERS_FOLDER: &str = r"Windows\System32\drivers";

/// A program file: its name and what it imports. Kernel and HAL are imported by all drivers, ntdll by all processes.
pub(super) type Program = (&'static str, &'static [&'static str]);

/// What lies in `System32`.
pub(super) const PROGRAMS: [Program; 32] = [
    ("winload.efi", &[]),
    ("winload.exe", &[]),
    ("ntoskrnl.exe", &["HAL.dll", "KDCOM.dll", "PSHED.dll", "BOOTVID.dll", "CLFS.SYS", "CI.dll"]),
    ("hal.dll", &["ntoskrnl.exe", "KDCOM.dll", "PSHED.dll"]),
    ("kdcom.dll", &["ntoskrnl.exe", "HAL.dll"]),
    ("PSHED.dll", &["ntoskrnl.exe", "HAL.dll"]),
    ("BOOTVID.dll", &["ntoskrnl.exe", "HAL.dll"]),
    ("ci.dll", &["ntoskrnl.exe"]),
    ("apisetschema.dll", &[]),
    ("ntdll.dll", &[]),
    ("smss.exe", &["ntdll.dll"]),
    ("win32k.sys", &["ntoskrnl.exe", "win32kfull.sys"]),
    ("win32kfull.sys", &["ntoskrnl.exe"]),
    ("csrss.exe", &["ntdll.dll", "CSRSRV.dll"]),
    ("csrsrv.dll", &["ntdll.dll"]),
    ("basesrv.dll", &["ntdll.dll", "CSRSRV.dll"]),
    ("winsrv.dll", &["BASESRV.dll", "CSRSRV.dll", "GDI32.dll", "KERNEL32.DLL", "ntdll.dll", "USER32.dll"]),
    ("sxssrv.dll", &["ntdll.dll", "CSRSRV.dll", "BASESRV.dll"]),
    ("kernel32.dll", &["ntdll.dll", "KERNELBASE.dll", "api-ms-win-core-rtlsupport-l1-1-0.dll"]),
    ("KernelBase.dll", &["ntdll.dll"]),
    ("gdi32.dll", &["ntdll.dll", "KERNEL32.dll"]),
    ("user32.dll", &["ntdll.dll", "GDI32.dll", "KERNEL32.dll"]),
    ("msvcrt.dll", &["ntdll.dll", "KERNELBASE.dll"]),
    ("rpcrt4.dll", &["ntdll.dll", "KERNELBASE.dll"]),
    ("sechost.dll", &["ntdll.dll", "RPCRT4.dll", "KERNELBASE.dll"]),
    ("advapi32.dll", &["msvcrt.dll", "SECHOST.dll", "ntdll.dll", "KERNELBASE.dll"]),
    ("wininit.exe", &["msvcrt.dll", "RPCRT4.dll", "ntdll.dll", "KERNEL32.dll", "USER32.dll"]),
    ("winlogon.exe", &["msvcrt.dll", "RPCRT4.dll", "ntdll.dll", "ADVAPI32.dll", "USER32.dll"]),
    ("services.exe", &["msvcrt.dll", "RPCRT4.dll", "ntdll.dll"]),
    ("lsass.exe", &["msvcrt.dll", "RPCRT4.dll", "ntdll.dll", "SspiSrv.dll"]),
    ("sspisrv.dll", &["msvcrt.dll", "RPCRT4.dll", "ntdll.dll"]),
    ("svchost.exe", &["msvcrt.dll", "RPCRT4.dll", "ntdll.dll"]),
];

/// Code pages and the case table, also in `System32`.
pub(super) const DATA: [&str; 3] = ["C_1252.NLS", "C_437.NLS", "l_intl.nls"];

/// A file among the drivers that is no service: others import it.
pub(super) const LIBRARIES: [Program; 8] = [
    ("WMILIB.SYS", &["ntoskrnl.exe"]),
    ("WDFLDR.SYS", &["ntoskrnl.exe", "HAL.dll"]),
    ("storport.sys", &["ntoskrnl.exe", "HAL.dll"]),
    ("CLASSPNP.SYS", &["ntoskrnl.exe", "HAL.dll"]),
    ("msrpc.sys", &["ntoskrnl.exe"]),
    ("NETIO.SYS", &["ntoskrnl.exe", "HAL.dll", "msrpc.sys"]),
    ("PCIIDEX.SYS", &["ntoskrnl.exe", "HAL.dll"]),
    ("ataport.SYS", &["ntoskrnl.exe", "HAL.dll", "WMILIB.SYS"]),
];

/// A driver: service, start, ErrorControl, group, what it imports.
pub(super) type Driver = (&'static str, u32, u32, &'static str, &'static [&'static str]);

/// Drivers, those of the boot as a Windows has them.
pub(super) const DRIVERS: [Driver; 27] = [
    ("Wdf01000", 0, 1, "WdfLoadGroup", &["ntoskrnl.exe", "HAL.dll", "WDFLDR.SYS"]),
    ("ACPI", 0, 3, "Core", &["ntoskrnl.exe", "HAL.dll", "WMILIB.SYS"]),
    ("CNG", 0, 3, "Core", &["ntoskrnl.exe", "HAL.dll"]),
    ("msisadrv", 0, 3, "Boot Bus Extender", &["ntoskrnl.exe", "WDFLDR.SYS"]),
    ("pci", 0, 3, "Boot Bus Extender", &["ntoskrnl.exe", "HAL.dll", "PSHED.dll"]),
    ("vdrvroot", 0, 3, "Boot Bus Extender", &["ntoskrnl.exe", "WDFLDR.SYS"]),
    ("partmgr", 0, 3, "Boot Bus Extender", &["ntoskrnl.exe", "HAL.dll", "WMILIB.SYS"]),
    ("vmbus", 0, 1, "System Bus Extender", &["ntoskrnl.exe", "HAL.dll", "WDFLDR.SYS"]),
    ("volmgr", 0, 3, "System Bus Extender", &["ntoskrnl.exe", "HAL.dll", "WMILIB.SYS"]),
    ("volmgrx", 0, 3, "System Bus Extender", &["ntoskrnl.exe", "HAL.dll"]),
    ("mountmgr", 0, 3, "System Bus Extender", &["ntoskrnl.exe", "HAL.dll"]),
    ("atapi", 0, 3, "SCSI Miniport", &["ataport.SYS", "ntoskrnl.exe"]),
    ("storvsc", 0, 1, "Base", &["ntoskrnl.exe", "storport.sys"]),
    ("KSecDD", 0, 3, "Base", &["ntoskrnl.exe", "HAL.dll", "msrpc.sys"]),
    ("FltMgr", 0, 3, "FSFilter Infrastructure", &["ntoskrnl.exe", "HAL.dll"]),
    ("FileInfo", 0, 1, "FSFilter Bottom", &["ntoskrnl.exe", "HAL.dll", "FLTMGR.SYS"]),
    ("Ntfs", 0, 3, "Boot File System", &["ntoskrnl.exe", "HAL.dll", "msrpc.sys", "CLFS.SYS", "ksecdd.sys"]),
    ("CLFS", 0, 3, "Filter", &["ntoskrnl.exe", "HAL.dll"]),
    ("fvevol", 0, 3, "PnP Filter", &["ntoskrnl.exe", "HAL.dll"]),
    ("KSecPkg", 0, 3, "Cryptography", &["ntoskrnl.exe", "cng.sys"]),
    ("NDIS", 0, 3, "NDIS Wrapper", &["ntoskrnl.exe", "HAL.dll", "NETIO.SYS"]),
    ("disk", 0, 1, "", &["ntoskrnl.exe", "HAL.dll", "CLASSPNP.SYS"]),
    ("volsnap", 0, 3, "", &["ntoskrnl.exe", "HAL.dll"]),
    ("volume", 0, 3, "", &["ntoskrnl.exe", "HAL.dll"]),
    ("pcw", 0, 1, "System Reserved", &["ntoskrnl.exe"]),
    ("intelide", 0, 3, "System Bus Extender", &["ntoskrnl.exe", "PCIIDEX.SYS"]),
    ("netvsc", 3, 1, "NDIS", &["ntoskrnl.exe", "NDIS.SYS"]),
];

/// Groups in the order of the loader.
pub(super) const GROUPS: [&str; 17] = [
    "System Reserved",
    "EMS",
    "WdfLoadGroup",
    "Core",
    "Boot Bus Extender",
    "System Bus Extender",
    "SCSI miniport",
    "Primary Disk",
    "FSFilter Infrastructure",
    "FSFilter Bottom",
    "Boot File System",
    "Base",
    "Filter",
    "PnP Filter",
    "Cryptography",
    "NDIS Wrapper",
    "NDIS",
];
