//! The files that the loader takes before Windows can read its own disk: the loader itself, the kernel, the boot drivers in their order, the
//! boot file system, and the files that these import. One of them broken is 0xc0000098, 0xc0000221, 0xc0000225 or 0xc0000428 on the screen.
//!
//! Missing: hives and NLS files, which are looked at by `check`; the images of early-launch protection are drivers like others here.

use super::Driver;
use super::file::{FileFacts, Files, Verdict};
use crate::authenticode::Signature;
use crate::bcd::Firmware;
use crate::boot::boot_layout;
use crate::machine::Machine;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use vmrescue_base::error::Result;

/// Files that one boot takes; Windows has about 150.
const MAX_BOOT_FILES: usize = 1024;
/// Files of System32 that are taken when they are there, without being imported by name in every build.
const WHEN_THERE: [&str; 8] = [
    "hal.dll",
    "kdcom.dll",
    "mcupdate_GenuineIntel.dll",
    "mcupdate_AuthenticAMD.dll",
    "ci.dll",
    "PSHED.dll",
    "BOOTVID.dll",
    "apisetschema.dll",
];

/// Why the boot needs a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum BootReason {
    /// The loader.
    Loader,
    /// The kernel, or a part that is loaded with it.
    Kernel,
    /// A driver that starts at boot.
    Driver {
        /// Name of its service.
        service: String,
        /// Its turn, from 1.
        order: u32,
        /// Its group.
        group: String,
    },
    /// Another file of this list imports it.
    Import {
        /// File name of the first that does.
        of: String,
    },
}

impl BootReason {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            BootReason::Loader => "loader".into(),
            BootReason::Kernel => "kernel".into(),
            BootReason::Driver { service, group, .. } if group.is_empty() => service.clone(),
            BootReason::Driver { service, group, .. } => format!("{service} ({group})"),
            BootReason::Import { of } => format!("imported by {of}"),
        }
    }
}

/// A file that the boot needs.
#[derive(Debug, Clone, Serialize)]
pub struct BootFile {
    /// Path in the guest.
    pub path: String,
    /// Why it is needed.
    pub reason: BootReason,
    /// How it stands.
    pub verdict: Verdict,
    /// Why the verdict is not `ok`.
    pub problems: Vec<String>,
    /// What was seen.
    pub facts: Option<FileFacts>,
}

/// The list, in the order of loading: loader, kernel, drivers; what they import comes after them.
pub(super) fn boot_files(
    machine: &Machine,
    files: &mut Files<'_>,
    drivers: &[Driver],
) -> Result<Vec<BootFile>> {
    let mut list: Vec<BootFile> = Vec::new();
    let mut seen = BTreeSet::new();
    let loader = if boot_layout(machine).firmware == Firmware::Uefi { "winload.efi" } else { "winload.exe" };
    let system32 = |name: &str| ["Windows", "System32", name].map(String::from).to_vec();
    let mut pending: VecDeque<(Vec<String>, BootReason)> = VecDeque::new();
    pending.push_back((system32(loader), BootReason::Loader));
    pending.push_back((system32("ntoskrnl.exe"), BootReason::Kernel));
    for name in WHEN_THERE {
        if files.exists(&system32(name)) {
            pending.push_back((system32(name), BootReason::Kernel));
        }
    }
    // `drivers` stands in the order of loading; the boot file system may have another start.
    let mut boot: Vec<&Driver> = drivers
        .iter()
        .filter(|d| d.load_order.is_some() && d.service.is_driver())
        .filter(|d| d.service.start == Some(0) || d.service.name.eq_ignore_ascii_case("Ntfs"))
        .collect();
    boot.sort_by_key(|driver| driver.load_order);
    for driver in boot {
        let Some(image) = &driver.image else { continue };
        let parts: Vec<String> = image.path.split('\\').skip(1).map(String::from).collect();
        let reason = BootReason::Driver {
            service: driver.service.name.clone(),
            order: driver.load_order.unwrap_or(0),
            group: driver.service.group.clone(),
        };
        pending.push_back((parts, reason));
    }
    let volume = files_volume(drivers, machine);
    let mut places: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    while let Some((parts, reason)) = pending.pop_front() {
        if list.len() >= MAX_BOOT_FILES {
            break;
        }
        let path = format!("{volume}\\{}", parts.join("\\"));
        if !seen.insert(path.to_lowercase()) {
            continue;
        }
        let facts = files.look(&path, &parts, true, true)?.clone();
        let name = parts.last().cloned().unwrap_or_default();
        let mut problems: Vec<String> = facts.problem.iter().cloned().collect();
        // The loader is not linked against files of the kernel.
        for import in facts.imports.iter().filter(|_| reason != BootReason::Loader) {
            let lower = import.to_lowercase();
            // API sets are names for other files.
            if lower.starts_with("api-ms-") || lower.starts_with("ext-ms-") || lower.contains(['\\', '/']) {
                continue;
            }
            // Most drivers import the same few files.
            let place = places.entry(lower).or_insert_with(|| {
                let near = ["Windows", "System32", "drivers", import].map(String::from).to_vec();
                [near, system32(import)].into_iter().find(|place| files.exists(place))
            });
            match place {
                Some(place) => pending.push_back((place.clone(), BootReason::Import { of: name.clone() })),
                None => problems.push(format!("it imports {import}, which is missing")),
            }
        }
        list.push(BootFile { path, reason, verdict: Verdict::Ok, problems, facts: None });
    }
    Ok(list)
}

/// The letter (or number) of the volume, as the paths of drivers have it.
fn files_volume(drivers: &[Driver], machine: &Machine) -> String {
    let path = drivers.iter().find_map(|driver| driver.image.as_ref().map(|image| image.path.clone()));
    let path = path.or_else(|| machine.installations.first().map(|own| own.path.clone())).unwrap_or_default();
    path.split('\\').next().unwrap_or_default().to_string()
}

impl BootFile {
    /// Takes over what was found since, and judges.
    pub(super) fn finish(&mut self, files: &Files<'_>, catalogs: bool) {
        self.verdict = if self.problems.is_empty() { Verdict::Ok } else { Verdict::Bad };
        let Some(facts) = files.get(&self.path) else { return };
        if let Signature::Broken { .. } = facts.signature {
            self.problems.push(facts.signature.text());
            self.verdict = Verdict::Bad;
        }
        if facts.signature == Signature::Missing && catalogs {
            self.note("no signature in it, and no catalog names it".into());
        }
        if let Some(origin) = &facts.store {
            if origin.hash_fits == Some(false) {
                self.note("its SHA-256 is not the one of its component's manifest".into());
            }
            if let (Some(false), Some(is), Some(wins)) = (origin.is_winner, &origin.version, &origin.winner) {
                self.note(format!("it is version {is} of its component, and {wins} wins"));
            }
            if origin.tie == crate::Tie::Differs && facts.size.is_some() && self.verdict == Verdict::Ok {
                self.note("the component store has files of this name, and none is this one".into());
            }
        }
        self.facts = Some(facts.clone());
    }

    fn note(&mut self, words: String) {
        self.problems.push(words);
        self.verdict = self.verdict.max(Verdict::Check);
    }
}
