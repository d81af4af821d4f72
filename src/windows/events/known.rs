//! The events that matter for a machine that does not boot: what they mean, in words of our own, and what tells one from another (the name
//! of a service, the number of an update, the code of a bug check). Sources: Microsoft Learn, the pages on each event or on the topic
//! ("Kernel-Power event 41", "Service Control Manager events", "System failures", "Windows Update log files", "BitLocker").

use super::Event;
use serde::Serialize;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The machine stopped without being asked to.
    Crash,
    /// A start of Windows.
    Start,
    /// An orderly stop, or one that somebody asked for.
    Shutdown,
    /// A service failed.
    Service,
    /// A service or driver was installed.
    Installed,
    /// A driver did not start or was not let in.
    Driver,
    /// An update or a package of the system.
    Update,
    /// A disk or its bus failed.
    Disk,
    /// A file system was damaged or repaired.
    FileSystem,
    /// The registry was repaired or could not be written.
    Registry,
    /// The boot itself: loader, firmware, integrity checks.
    Boot,
    /// BitLocker.
    Encryption,
}

/// What is known of an event.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// What it is about.
    pub kind: Kind,
    /// A text with `{name}` or `{1}` where parameters go.
    pub text: &'static str,
    /// The parameter that tells apart what is counted apart.
    pub subject: &'static str,
}

/// Provider (lower case, without `microsoft-windows-`), numbers, kind, parameter to count by, text.
type Row = (&'static str, &'static [u32], Kind, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        "kernel-power",
        &[41],
        Kind::Crash,
        "BugcheckCode",
        "the machine started again without having shut down (bug check {BugcheckCode}, 0: power loss, reset or hang)",
    ),
    ("kernel-power", &[42, 107], Kind::Shutdown, "", "the machine went to sleep or woke up"),
    ("kernel-power", &[109], Kind::Shutdown, "", "the kernel began to shut down"),
    ("wer-systemerrorreporting", &[1001], Kind::Crash, "1", "bug check {1}; dump: {2}"),
    ("bugcheck", &[1001], Kind::Crash, "1", "bug check {1}; dump: {2}"),
    ("save dump", &[1001], Kind::Crash, "1", "bug check {1}; dump: {2}"),
    ("system error", &[1003], Kind::Crash, "1", "bug check {1}, parameters {2}, {3}, {4}, {5}"),
    ("eventlog", &[6008], Kind::Crash, "", "the last shutdown, at {1} on {2}, was unexpected"),
    ("eventlog", &[6005], Kind::Start, "", "the event log started: Windows started"),
    ("eventlog", &[6009], Kind::Start, "", "Windows {1} {2} {3} started"),
    ("eventlog", &[6006], Kind::Shutdown, "", "the event log stopped: Windows shut down"),
    ("eventlog", &[104], Kind::Boot, "Channel", "the log {Channel} was cleared"),
    (
        "user32",
        &[1074],
        Kind::Shutdown,
        "param1",
        "{param1} asked for: {param5} (reason: {param3}, {param6}) for {param7}",
    ),
    ("user32", &[1073, 1075], Kind::Shutdown, "", "a shutdown failed or was called off"),
    ("user32", &[1076], Kind::Crash, "", "reason given for the last unexpected shutdown: {param1} {param5}"),
    (
        "kernel-general",
        &[12],
        Kind::Start,
        "",
        "Windows started (version {MajorVersion}.{MinorVersion}.{BuildVersion})",
    ),
    ("kernel-general", &[13], Kind::Shutdown, "", "Windows shut down"),
    ("kernel-general", &[5], Kind::Registry, "FinalStatus", "a hive was damaged ({Name}) and recovered"),
    ("kernel-general", &[6], Kind::Registry, "", "a hive could not be written: {Name}"),
    ("kernel-boot", &[16, 17, 18, 20, 25, 27, 30, 32], Kind::Start, "", "how the boot went"),
    ("kernel-boot", &[29], Kind::Boot, "", "fast startup failed (status {1})"),
    ("kernel-boot", &[124, 153, 156], Kind::Boot, "", "virtualisation-based security at boot"),
    ("kernel-boot", &[226, 238, 247], Kind::Boot, "", "the firmware or the boot loader reports a fault"),
    (
        "service control manager",
        &[7000],
        Kind::Service,
        "param1",
        "the service {param1} did not start: {param2}",
    ),
    (
        "service control manager",
        &[7001],
        Kind::Service,
        "param1",
        "the service {param1} did not start because {param2} did not: {param3}",
    ),
    (
        "service control manager",
        &[7003],
        Kind::Service,
        "param1",
        "the service {param1} needs {param2}, which does not exist",
    ),
    (
        "service control manager",
        &[7009],
        Kind::Service,
        "param2",
        "the service {param2} did not answer in {param1} ms",
    ),
    (
        "service control manager",
        &[7011],
        Kind::Service,
        "param2",
        "the service {param2} did not answer a request in {param1} ms",
    ),
    (
        "service control manager",
        &[7016, 7022, 7024],
        Kind::Service,
        "param1",
        "the service {param1} hung or ended with an error: {param2}",
    ),
    (
        "service control manager",
        &[7023],
        Kind::Service,
        "param1",
        "the service {param1} ended with an error: {param2}",
    ),
    (
        "service control manager",
        &[7026],
        Kind::Driver,
        "1",
        "drivers of the boot or system start did not load: {1}",
    ),
    (
        "service control manager",
        &[7031],
        Kind::Service,
        "param1",
        "the service {param1} ended unexpectedly, {param2} times now",
    ),
    (
        "service control manager",
        &[7032],
        Kind::Service,
        "param3",
        "the service {param3} could not be restarted: {param4}",
    ),
    (
        "service control manager",
        &[7034],
        Kind::Service,
        "param1",
        "the service {param1} ended unexpectedly, {param2} times now",
    ),
    (
        "service control manager",
        &[7038, 7041],
        Kind::Service,
        "param1",
        "the service {param1} could not log on as {param2}",
    ),
    (
        "service control manager",
        &[7045],
        Kind::Installed,
        "ServiceName",
        "the service {ServiceName} was installed: {ImagePath}",
    ),
    (
        "kernel-pnp",
        &[219],
        Kind::Driver,
        "FailureName",
        "the driver {FailureName} did not load for {DriverName}",
    ),
    (
        "kernel-pnp",
        &[411, 442],
        Kind::Driver,
        "DriverName",
        "a device had a problem when it started: {DeviceInstanceId} ({DriverName}, problem {Problem}, status {Status})",
    ),
    ("filtermanager", &[3], Kind::Driver, "", "the filter manager could not attach to a volume"),
    (
        "codeintegrity",
        &[3001, 3002, 3003, 3004, 3023, 3033, 3077, 3089],
        Kind::Driver,
        "FileNameBuffer",
        "code integrity did not let in or complains of {FileNameBuffer}",
    ),
    ("windowsupdateclient", &[19], Kind::Update, "updateTitle", "installed: {updateTitle}"),
    (
        "windowsupdateclient",
        &[20],
        Kind::Update,
        "updateTitle",
        "did not install: {updateTitle} (error {errorCode})",
    ),
    ("windowsupdateclient", &[43], Kind::Update, "updateTitle", "installing: {updateTitle}"),
    ("windowsupdateclient", &[44], Kind::Update, "updateTitle", "downloading: {updateTitle}"),
    ("windowsupdateclient", &[21, 22], Kind::Update, "", "updates wait for a restart"),
    ("windows update agent", &[19], Kind::Update, "1", "installed: {1}"),
    ("windows update agent", &[20], Kind::Update, "2", "did not install: {2} (error {1})"),
    (
        "servicing",
        &[1],
        Kind::Update,
        "PackageIdentifier",
        "change of package {PackageIdentifier} from {InitialPackageState} to {IntendedPackageState} begins",
    ),
    (
        "servicing",
        &[2],
        Kind::Update,
        "PackageIdentifier",
        "package {PackageIdentifier} is now {IntendedPackageState}",
    ),
    (
        "servicing",
        &[3],
        Kind::Update,
        "PackageIdentifier",
        "package {PackageIdentifier} could not become {IntendedPackageState}: {ErrorCode}",
    ),
    (
        "servicing",
        &[4],
        Kind::Update,
        "PackageIdentifier",
        "package {PackageIdentifier} needs a restart to become {IntendedPackageState}",
    ),
    (
        "servicing",
        &[7, 8, 9, 10, 11, 12, 13, 14],
        Kind::Update,
        "UpdateName",
        "feature {UpdateName} of package {PackageIdentifier}: {ErrorCode}",
    ),
    (
        "ntfs",
        &[55],
        Kind::FileSystem,
        "DriveName",
        "the file system of {DriveName} is damaged: {Description}",
    ),
    (
        "ntfs",
        &[98],
        Kind::FileSystem,
        "DriveName",
        "health of volume {DriveName}: state {CorruptionActionState}",
    ),
    (
        "ntfs",
        &[50, 57, 130, 131, 132, 133, 134, 136, 137, 140],
        Kind::FileSystem,
        "",
        "the file system could not write or repaired itself",
    ),
    ("wininit", &[1001, 1015], Kind::FileSystem, "", "chkdsk ran at the start, or a critical process failed"),
    ("chkdsk", &[26212, 26213, 26214, 26226, 26228], Kind::FileSystem, "", "chkdsk ran"),
    ("fastfat", &[55, 50], Kind::FileSystem, "", "a FAT file system is damaged"),
    ("disk", &[7], Kind::Disk, "1", "a bad block on {1}"),
    ("disk", &[11], Kind::Disk, "1", "a controller error on {1}"),
    ("disk", &[51], Kind::Disk, "1", "an error during paging on {1}"),
    ("disk", &[52], Kind::Disk, "1", "{1} says that it will fail soon"),
    ("disk", &[15, 153, 154], Kind::Disk, "1", "an input or output on {1} was repeated or failed"),
    ("disk", &[157], Kind::Disk, "1", "{1} was removed while in use"),
    ("partmgr", &[58, 59], Kind::Disk, "", "two disks have the same identity"),
    ("volmgr", &[45, 46, 49, 161, 162], Kind::Crash, "", "a crash dump could not be set up or written"),
    ("volsnap", &[14, 25, 35, 36], Kind::Disk, "", "shadow copies were lost"),
    ("startuprepair", &[1001, 1002, 1003, 1121, 1122], Kind::Boot, "", "startup repair ran"),
];

/// Providers that reset a device of a bus: event 129 is theirs, and 11 and 15.
const PORTS: [&str; 12] = [
    "storahci", "stornvme", "storvsc", "storport", "iastora", "iastorv", "iastorac", "lsi_sas", "vhdmp",
    "pvscsi", "vioscsi", "viostor",
];

/// What is known of an event; `None` for one that says nothing on the boot.
pub fn known(event: &Event) -> Option<Known> {
    let provider = event.provider.to_lowercase();
    let provider = provider.strip_prefix("microsoft-windows-").unwrap_or(&provider);
    if provider.starts_with("bitlocker") {
        let text = "BitLocker: see the data of the event";
        let counted = (24576..24700).contains(&event.id) || (768..=900).contains(&event.id);
        return counted.then_some(Known { kind: Kind::Encryption, text, subject: "Volume" });
    }
    if PORTS.contains(&provider) {
        let text = if event.id == 129 {
            "reset of {1}: it did not answer in time"
        } else {
            "a fault of the controller or device {1}"
        };
        return matches!(event.id, 9 | 11 | 15 | 129).then_some(Known {
            kind: Kind::Disk,
            text,
            subject: "1",
        });
    }
    let row = ROWS.iter().find(|(name, ids, ..)| *name == provider && ids.contains(&event.id))?;
    Some(Known { kind: row.2, text: row.4, subject: row.3 })
}

impl Known {
    /// The text with the event's parameters; `%%5` is said in words.
    pub fn fill(&self, event: &Event) -> String {
        let mut out = String::new();
        let mut rest = self.text;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((name, next)) = after.split_once('}') else { break };
            let value = one_line(event.value(name).unwrap_or("?")).trim();
            match value.strip_prefix("%%").and_then(|code| code.parse().ok()) {
                Some(code) => out.push_str(&error_words(code)),
                None => out.push_str(value),
            }
            rest = next;
        }
        out.push_str(rest);
        out
    }

    /// What is counted apart; empty when all events of that number are counted together.
    pub fn subject_of(&self, event: &Event) -> String {
        if self.subject.is_empty() {
            return String::new();
        }
        one_line(event.value(self.subject).unwrap_or("")).trim().to_string()
    }
}

/// The first line; texts of events go over many.
fn one_line(text: &str) -> &str {
    text.trim_start().lines().next().unwrap_or("")
}

/// The system errors that services fail with most, in words of our own ([MS-ERREF] 2.2).
fn error_words(code: u32) -> String {
    let words = match code {
        1 => "incorrect function",
        2 => "file not found",
        3 => "path not found",
        5 => "access denied",
        21 => "the device is not ready",
        31 => "a device does not work",
        87 => "a parameter is wrong",
        126 => "a module was not found",
        127 => "a procedure was not found",
        193 => "not a valid program",
        577 => "the signature of the file cannot be verified",
        1053 => "it did not answer in time",
        1058 => "it is disabled or has no device",
        1060 => "there is no such service",
        1067 => "the process ended unexpectedly",
        1068 => "a service that it needs did not start",
        1069 => "the logon failed",
        1070 => "it hung at the start",
        1075 => "a service that it needs does not exist",
        1275 => "the driver was blocked",
        1392 => "a file or folder is damaged",
        1450 => "too few system resources",
        _ => return format!("error {code}"),
    };
    format!("{words} ({code})")
}
