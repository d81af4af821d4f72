//! What the screen shows where a link of the start is broken: a table, each row with its proof.
//!
//! Rows that were seen name the loader that showed them; what they say of another generation or firmware is inferred. A row with a
//! narrower match stands before a wider one: the first that fits is taken.

use serde::Serialize;
use vmrescue_windows::bcd::Firmware;

/// A generation of Windows, as far as its boot code goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Era {
    /// NTLDR: Windows 2000, XP, Server 2003.
    Nt5,
    /// Vista, 7, Server 2008 and 2008 R2.
    Win7,
    /// 8, 8.1, Server 2012 and 2012 R2.
    Win8,
    /// 10, 11, Server 2016 and later.
    Win10,
}

impl Era {
    /// The generation of a build number; 0, an unknown build, counts as the newest.
    pub fn of_build(build: u32) -> Era {
        match build {
            1..6000 => Era::Nt5,
            6000..8000 => Era::Win7,
            8000..10000 => Era::Win8,
            _ => Era::Win10,
        }
    }
}

/// What a link of the start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The code of the master boot record.
    BootRecord,
    /// The code in the boot sector of the active partition.
    VolumeCode,
    /// An element of the boot store that leads to a device or a file.
    Entry,
    /// winload.
    Loader,
    /// The SYSTEM hive.
    SystemHive,
    /// Kernel, HAL and what they import.
    Kernel,
    /// apisetschema.dll.
    ApiSet,
    /// A code page or case table.
    Nls,
    /// A driver that the loader takes, or a file that one imports.
    Driver,
    /// A driver that other boot drivers rely on: the framework, cryptography.
    Framework,
    /// A driver of the path to the boot disk, which Windows needs in the end.
    DiskPath,
    /// smss.exe.
    SessionManager,
    /// ntdll.dll.
    Native,
    /// csrss and win32k.
    Subsystem,
    /// A server of csrss, or a library that it or one of them imports.
    Library,
    /// wininit, winlogon, services, lsass, and what they import.
    Logon,
}

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It has no bytes.
    Empty,
    /// It is filled with zeros.
    Zeroed,
    /// It ends too early.
    Cut,
    /// It is no program file, or its headers cannot be read.
    Damaged,
    /// It was built for another processor.
    OtherMachine,
    /// Its checksum is wrong.
    Checksum,
    /// Its signature is for other content.
    Signature,
    /// The file system cannot give its content.
    Unreadable,
    /// It is there and is not started in time.
    NotStarted,
    /// It names something that is not there.
    Dangling,
    /// It was not closed cleanly, and its logs do not help.
    Unclean,
}

/// Where a row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Microsoft's code showed it: generation and firmware of that machine.
    Seen(&'static [(Era, Firmware)]),
    /// Microsoft documents it.
    Documented,
    /// It follows from what was seen elsewhere.
    Inferred,
}

/// How a screen is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Seen on Microsoft's boot code of this generation and firmware.
    Seen,
    /// Documented by Microsoft.
    Documented,
    /// Inferred: seen on another generation or firmware, or on a like file.
    Inferred,
}

/// What the screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Screen {
    /// The code or text.
    pub text: &'static str,
    /// How that is known.
    pub proof: Proof,
}

struct Row {
    parts: &'static [Part],
    /// Empty: all.
    faults: &'static [Fault],
    /// `None`: both.
    firmware: Option<Firmware>,
    from: Era,
    to: Era,
    text: &'static str,
    source: Source,
}

const WIN7_BIOS: &[(Era, Firmware)] = &[(Era::Win7, Firmware::Bios)];
const WIN10_UEFI: &[(Era, Firmware)] = &[(Era::Win10, Firmware::Uefi)];
const BOTH: &[(Era, Firmware)] = &[(Era::Win7, Firmware::Bios), (Era::Win10, Firmware::Uefi)];

const fn row(
    parts: &'static [Part],
    faults: &'static [Fault],
    firmware: Option<Firmware>,
    text: &'static str,
    source: Source,
) -> Row {
    Row { parts, faults, firmware, from: Era::Nt5, to: Era::Win10, text, source }
}

const LOADED: &[Part] = &[Part::Loader, Part::Kernel, Part::Driver];
const NOT_AN_IMAGE: &[Fault] = &[Fault::Zeroed, Fault::Empty, Fault::Damaged];

/// The table. docs/boot-evidence.md has the screens.
const ROWS: &[Row] = &[
    // The boot record: code that does nothing is not noticed by the firmware.
    row(&[Part::BootRecord], &[], None, "\"Booting from Hard Disk...\" for ever", Source::Seen(WIN7_BIOS)),
    row(&[Part::VolumeCode], &[], None, "a black screen with a cursor", Source::Inferred),
    // Where the store leads.
    row(&[Part::Entry], &[Fault::Missing], None, "0xc000000f", Source::Seen(BOTH)),
    row(&[Part::Entry], &[Fault::Dangling], Some(Firmware::Bios), "0xc000000e", Source::Seen(WIN7_BIOS)),
    row(&[Part::Entry], &[Fault::Dangling], Some(Firmware::Uefi), "0xc0000225", Source::Seen(WIN10_UEFI)),
    // The loader is verified by the boot manager before anything else is said of it.
    row(&[Part::Loader], &[Fault::Missing], None, "0xc000000f", Source::Seen(BOTH)),
    row(&[Part::Loader], &[Fault::Zeroed], Some(Firmware::Bios), "0xc0000098", Source::Seen(WIN7_BIOS)),
    row(&[Part::Loader], &[], Some(Firmware::Uefi), "0xc0000428", Source::Seen(WIN10_UEFI)),
    // The hive.
    row(&[Part::SystemHive], &[Fault::Missing], None, "0xc000000f", Source::Seen(BOTH)),
    row(&[Part::SystemHive], &[], None, "0xc000014c", Source::Seen(BOTH)),
    // The path to the boot disk.
    row(&[Part::DiskPath], &[], None, "INACCESSIBLE_BOOT_DEVICE (0x7B)", Source::Seen(WIN7_BIOS)),
    row(&[Part::Framework], &[], None, "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED (0x7E)", Source::Seen(WIN7_BIOS)),
    // What the loader reads.
    row(LOADED, &[Fault::Missing], None, "0xc000000f", Source::Seen(WIN7_BIOS)),
    row(LOADED, NOT_AN_IMAGE, None, "0xc0000098", Source::Seen(WIN7_BIOS)),
    row(LOADED, &[Fault::Cut], None, "0xc000000d", Source::Seen(WIN7_BIOS)),
    row(LOADED, &[Fault::OtherMachine], None, "0xc000035a", Source::Seen(WIN7_BIOS)),
    row(LOADED, &[Fault::Signature], None, "0xc0000428", Source::Documented),
    row(LOADED, &[Fault::Checksum], None, "0xc0000221", Source::Seen(WIN7_BIOS)),
    row(LOADED, &[], None, "0xc0000098 or 0xc0000221", Source::Inferred),
    // The loader takes the tables as they are, the kernel looks into them.
    row(&[Part::Nls], &[Fault::Missing], None, "0xc000000f", Source::Seen(WIN7_BIOS)),
    row(&[Part::Nls], &[], None, "BAD_SYSTEM_CONFIG_INFO (0x74)", Source::Seen(WIN7_BIOS)),
    // What the kernel and the session manager start.
    row(&[Part::SessionManager], &[], None, "SESSION3_INITIALIZATION_FAILED (0x6F)", Source::Seen(WIN7_BIOS)),
    // The kernel maps the schema together with ntdll.
    row(
        &[Part::Native, Part::ApiSet],
        &[],
        None,
        "PROCESS1_INITIALIZATION_FAILED (0x6B)",
        Source::Seen(WIN7_BIOS),
    ),
    row(&[Part::Subsystem], &[], None, "STOP 0xC000021A", Source::Seen(WIN7_BIOS)),
    row(&[Part::Library], &[Fault::Missing], None, "STOP 0xC0000135", Source::Seen(WIN7_BIOS)),
    row(&[Part::Library], &[], None, "STOP 0xC000012F or 0xC000021A", Source::Inferred),
    Row {
        from: Era::Win8,
        ..row(
            &[Part::Logon],
            &[],
            None,
            "CRITICAL_PROCESS_DIED (0xEF) or STOP 0xC000021A",
            Source::Documented,
        )
    },
    row(
        &[Part::Logon],
        &[],
        None,
        "CRITICAL_OBJECT_TERMINATION (0xF4) or STOP 0xC000021A",
        Source::Seen(WIN7_BIOS),
    ),
];

/// What the screen shows for a part that is broken like this.
pub fn screen(part: Part, fault: Fault, era: Era, firmware: Firmware) -> Screen {
    let fits = |row: &&Row| {
        row.parts.contains(&part)
            && (row.faults.is_empty() || row.faults.contains(&fault))
            && row.firmware.is_none_or(|wanted| wanted == firmware)
            && (row.from..=row.to).contains(&era)
    };
    match ROWS.iter().find(fits) {
        Some(row) => Screen {
            text: row.text,
            proof: match row.source {
                Source::Seen(on) if on.contains(&(era, firmware)) => Proof::Seen,
                Source::Documented => Proof::Documented,
                Source::Seen(_) | Source::Inferred => Proof::Inferred,
            },
        },
        None => Screen { text: "an error of the boot manager or a stop", proof: Proof::Inferred },
    }
}

/// Drivers that every Windows since 7 starts at boot, and what was seen on Windows 7 when one of them starts on demand instead; `None` where
/// Windows came up all the same.
const ON_DEMAND: [(&str, Option<&str>); 12] = [
    ("atapi", None),
    ("intelide", None),
    ("pci", None),
    ("volmgrx", None),
    ("volsnap", None),
    ("fvevol", None),
    ("FltMgr", None),
    ("CLFS", None),
    ("CNG", Some("CRITICAL_OBJECT_TERMINATION (0xF4)")),
    ("KSecDD", Some("DRIVER_PORTION_MUST_BE_NONPAGED (0xD3)")),
    ("vdrvroot", None),
    ("msisadrv", None),
];

/// Names of the drivers that every Windows starts at boot, each with what the screen shows when it does not start then; `None` where that
/// depends on the machine.
pub(crate) fn usual(era: Era, firmware: Firmware) -> impl Iterator<Item = (&'static str, Option<Screen>)> {
    let seen = WIN7_BIOS.contains(&(era, firmware));
    let proof = if seen { Proof::Seen } else { Proof::Inferred };
    ON_DEMAND.into_iter().map(move |(name, text)| (name, text.map(|text| Screen { text, proof })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_screen() {
        let at = |part, fault, firmware| screen(part, fault, Era::Win7, firmware);
        let bios = |part, fault| at(part, fault, Firmware::Bios).text;
        assert_eq!(bios(Part::Kernel, Fault::Missing), "0xc000000f");
        assert_eq!(bios(Part::Driver, Fault::Zeroed), "0xc0000098");
        assert_eq!(bios(Part::Driver, Fault::Checksum), "0xc0000221");
        assert_eq!(bios(Part::Nls, Fault::Missing), "0xc000000f");
        assert!(bios(Part::Nls, Fault::Zeroed).contains("0x74"));
        assert_eq!(bios(Part::Driver, Fault::Cut), "0xc000000d");
        assert_eq!(bios(Part::Driver, Fault::OtherMachine), "0xc000035a");
        assert_eq!(bios(Part::Loader, Fault::Zeroed), "0xc0000098");
        assert_eq!(at(Part::Loader, Fault::Zeroed, Firmware::Uefi).text, "0xc0000428");
        assert_eq!(bios(Part::SystemHive, Fault::Unclean), "0xc000014c");
        assert_eq!(bios(Part::Entry, Fault::Dangling), "0xc000000e");
        assert_eq!(at(Part::Entry, Fault::Dangling, Firmware::Uefi).text, "0xc0000225");
        assert!(bios(Part::SessionManager, Fault::Missing).contains("0x6F"));
    }

    #[test]
    fn what_was_seen_elsewhere_is_inferred() {
        let proof = |era, firmware| screen(Part::Kernel, Fault::Missing, era, firmware).proof;
        assert_eq!(proof(Era::Win7, Firmware::Bios), Proof::Seen);
        assert_eq!(proof(Era::Win10, Firmware::Uefi), Proof::Inferred);
    }
}
