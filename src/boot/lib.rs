//! The boot chain as one model: what the boot manager, the loader and the kernel take from this disk, link by link and in their order, and
//! what the screen shows where a link is broken.
//!
//! * [`walk`]: the chain of an installation, from the code of the boot record to the logon
//! * [`Link`]: one file, hive, driver or element of the store that the start needs, and how it stands
//! * [`screen`]: the table of screens, by generation and firmware, each row with its proof
//!
//! What a machine needs is read from its own store and hive: entries, code pages, drivers with group, tag, StartOverride and ErrorControl, the
//! devices below the boot disk, the servers of csrss; and from the import tables of the files. Partition tables, boot sectors and the presence of
//! the boot manager are looked at by the rules of `diagnose/`.
//!
//! Of signatures the hash is compared, not the chain of certificates. Missing: files without a signature in them and in no catalog (the loader
//! refuses those on 64-bit machines), early-launch policy, hypervisor and secure kernel, delay-loaded
//! imports, manifests and side-by-side assemblies of the logon files, drivers that the plug and play manager starts later.

mod code;
mod disk;
mod drivers;
mod files;
mod screens;
mod session;
mod store;
mod wanted;

pub use disk::boot_devices;
pub use screens::{Era, Fault, Part, Proof, Screen, screen};
pub use store::{Started, follow, started};

use files::{Files, Kind};
use serde::Serialize;
use vmrescue_base::error::{Error, ErrorKind, Result};
use vmrescue_registry::{Hive, ValueData};
use vmrescue_windows::bcd::Firmware;
use vmrescue_windows::{
    Installation, Loader, Machine, Unread, Unseen, Weight, boot_layout, boot_loader, services_seen,
};

/// What a broken link does to the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The start ends there.
    Stops,
    /// It may end there: the disk alone does not say.
    MayStop,
    /// The loader goes on without it.
    Skipped,
}

/// How a link is broken.
#[derive(Debug, Clone, Serialize)]
pub struct Broken {
    /// The kind of fault.
    pub fault: Fault,
    /// In words.
    pub words: String,
    /// What it does to the start.
    pub outcome: Outcome,
    /// What the screen shows.
    pub screen: Screen,
}

/// One thing that the start needs.
#[derive(Debug, Clone, Serialize)]
pub struct Link {
    /// What it is.
    pub part: Part,
    /// File name, or name of the service or element.
    pub name: String,
    /// Where it is: a guest path, a registry key, an element of the store.
    pub place: String,
    /// Why it is needed.
    pub why: String,
    /// The service, for drivers.
    pub service: Option<String>,
    /// The file that imports it, where it is there for that one's sake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The boot driver that the file is loaded for: itself, or one that imports it.
    pub driver: Option<String>,
    /// What is wrong with it.
    pub broken: Option<Broken>,
}

/// The chain of an installation.
#[derive(Debug, Clone, Serialize)]
pub struct Chain {
    /// The generation of its boot code.
    pub era: Era,
    /// The links in the order of the start.
    pub links: Vec<Link>,
    /// What could not be looked at: links behind it are not known.
    pub unread: Vec<Unread>,
}

impl Chain {
    /// Links that are broken, in the order of the start.
    pub fn broken(&self) -> impl Iterator<Item = (&Link, &Broken)> {
        self.links.iter().filter_map(|link| Some((link, link.broken.as_ref()?)))
    }

    /// The link that ends the start: what the screen names.
    pub fn first_fatal(&self) -> Option<(&Link, &Broken)> {
        self.broken().find(|(_, broken)| broken.outcome == Outcome::Stops)
    }

    /// The link of a file name.
    pub fn file(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name.eq_ignore_ascii_case(name) && link.is_file())
    }
}

impl Link {
    /// True when it is a file of the Windows volume.
    pub fn is_file(&self) -> bool {
        !matches!(
            self.part,
            Part::BootRecord | Part::VolumeCode | Part::Entry | Part::DiskPath | Part::Framework
        )
    }
}

/// What the steps of a walk share.
struct Walk<'a> {
    era: Era,
    firmware: Firmware,
    files: Files<'a>,
    links: Vec<Link>,
}

impl Walk<'_> {
    /// The screen of a fault here.
    fn broken(&self, part: Part, fault: Fault, words: String, outcome: Outcome) -> Broken {
        Broken { fault, words, outcome, screen: screen(part, fault, self.era, self.firmware) }
    }

    /// Adds a file that the start cannot do without; what it imports.
    fn need(&mut self, part: Part, parts: &[String], kind: Kind, why: &str) -> Vec<String> {
        let look = self.files.look(parts, kind);
        let broken = look.fault.map(|(fault, words)| {
            // Windows 7 starts with an empty code page (seen).
            let harmless = part == Part::Nls && fault == Fault::Empty
                // Signatures are asked for by the loader; what the session manager starts only as a policy wants it.
                || fault == Fault::Signature && !matches!(part, Part::Loader | Part::Kernel | Part::Driver);
            self.broken(part, fault, words, if harmless { Outcome::MayStop } else { Outcome::Stops })
        });
        let name = parts.last().cloned().unwrap_or_default();
        let place = self.files.path(parts);
        let why = why.into();
        self.links.push(Link { part, name, place, why, service: None, of: None, driver: None, broken });
        look.imports
    }

    /// Adds all files that `imports` lead to and that are not yet in `seen` (names in lower case), searched in `folders`.
    fn closure(
        &mut self,
        part: Part,
        of: &str,
        imports: Vec<String>,
        folders: &[&[&str]],
        seen: &mut Vec<String>,
    ) {
        let mut pending: std::collections::VecDeque<(String, String)> =
            imports.into_iter().map(|import| (of.to_string(), import)).collect();
        while let Some((of, import)) = pending.pop_front() {
            if !is_real_import(&import) || seen.contains(&import.to_lowercase()) || seen.len() > MAX_FILES {
                continue;
            }
            seen.push(import.to_lowercase());
            let parts = self.find(&import, &self.search(part, &import, folders));
            let imports = self.need(part, &parts, Kind::Image, &format!("imported by {of}"));
            if let Some(link) = self.links.last_mut() {
                link.of = Some(of);
            }
            pending.extend(imports.into_iter().map(|next| (import.clone(), next)));
        }
    }

    /// Folders in the order of the search: since Windows 8 all drivers that the kernel imports lie among the drivers.
    fn search<'f>(&self, part: Part, import: &str, folders: &[&'f [&'f str]]) -> Vec<&'f [&'f str]> {
        let mut order = folders.to_vec();
        if part == Part::Kernel && self.era >= Era::Win8 && import.to_lowercase().ends_with(".sys") {
            order.reverse();
        }
        order
    }

    /// Where a file lies: the first folder that has it, else the first folder.
    fn find(&self, name: &str, folders: &[&[&str]]) -> Vec<String> {
        let place = |folder: &&[&str]| -> Vec<String> {
            folder.iter().copied().chain([name]).map(String::from).collect()
        };
        let found = folders.iter().map(place).find(|parts| self.files.exists(parts));
        found.or_else(|| folders.first().map(place)).unwrap_or_default()
    }
}

/// Files that one start takes; Windows has some hundreds.
const MAX_FILES: usize = 2048;
const SYSTEM32: &[&str] = &["Windows", "System32"];
const DRIVERS: &[&str] = &["Windows", "System32", "drivers"];

/// API sets are names for other files; a path is none that the loader would follow.
fn is_real_import(name: &str) -> bool {
    let lower = name.to_lowercase();
    !lower.starts_with("api-ms-") && !lower.starts_with("ext-ms-") && !lower.contains(['\\', '/'])
}

fn parts(folder: &[&str], name: &str) -> Vec<String> {
    folder.iter().copied().chain([name]).map(String::from).collect()
}

/// Walks the start of an installation.
///
/// # Errors
/// Of the volume of Windows itself; what else cannot be read is a broken link or in [`Chain::unread`].
pub fn walk(machine: &Machine, installation: &Installation) -> Result<Chain> {
    let layout = boot_layout(machine);
    let era = Era::of_build(installation.build);
    let files = Files::new(machine, installation)?;
    let mut walk = Walk { era, firmware: layout.firmware, files, links: Vec::new() };
    let (mut unread, unseen) = (Vec::new(), Unseen::default());
    if layout.firmware == Firmware::Bios {
        code::look(machine, &layout, &mut walk)?;
    }
    let mut entry = Started::default();
    if boot_loader(machine) != Loader::Ntldr {
        entry = match started(machine, &layout) {
            Ok(entry) => entry.unwrap_or_default(),
            // The rules on the store name the error; nothing is known of where it leads.
            Err(e) => {
                unread.push(Unread::of("the boot store", "", Weight::Critical, &e));
                Started::default()
            }
        };
        unread.extend(entry.unread.iter().cloned());
        store::look(machine, installation, &entry, &mut walk);
    }
    let system = match machine.hive(installation, "SYSTEM") {
        Ok(hive) => {
            let unclean = hive.defects().iter().find(|defect| defect.code == "hive-not-clean");
            hive_link(&mut walk, unclean.map(|defect| (Fault::Unclean, defect.to_string())));
            Some(hive)
        }
        Err(e) => {
            hive_link(&mut walk, Some((fault_of(&e), e.to_string())));
            unread.push(Unread::of("the SYSTEM hive", "", Weight::Critical, &e));
            None
        }
    };
    kernel(installation, &entry, &mut walk);
    if let Some(hive) = system.as_deref() {
        let set = installation.control_sets.default.max(1);
        match services_seen(machine, installation, hive, set, false, &unseen) {
            Ok(list) => {
                let loaded = drivers::look(hive, set, &list, &unseen, &mut walk);
                disk::look(machine, installation, (hive, set), &list, &loaded, &unseen, &mut walk);
            }
            Err(e) => unread.push(Unread::of("services and drivers", "", Weight::Critical, &e)),
        }
    }
    code_pages(installation, system.as_deref(), &unseen, &mut walk);
    session::look(installation, system.as_deref(), &unseen, &mut walk);
    unread.extend(unseen.list());
    Ok(Chain { era, links: walk.links, unread })
}

fn fault_of(e: &Error) -> Fault {
    if e.kind() == ErrorKind::NotFound { Fault::Missing } else { Fault::Damaged }
}

fn hive_link(walk: &mut Walk<'_>, wrong: Option<(Fault, String)>) {
    let broken = wrong.map(|(fault, words)| walk.broken(Part::SystemHive, fault, words, Outcome::Stops));
    let place = walk.files.path(&parts(&["Windows", "System32", "config"], "SYSTEM"));
    let why = "read by the loader".to_string();
    walk.links.push(Link {
        part: Part::SystemHive,
        name: "SYSTEM".into(),
        place,
        why,
        service: None,
        of: None,
        driver: None,
        broken,
    });
}

/// A text value of the hive; what cannot be read is noted.
fn text(hive: &Hive, key: &str, name: &str, unseen: &Unseen) -> Option<String> {
    let read = || -> Result<Option<ValueData>> {
        let Some(key) = hive.key(key)? else { return Ok(None) };
        key.value(name)?.map(|value| value.typed()).transpose()
    };
    let place = format!(r"HKLM\SYSTEM\{key}: {name}");
    match unseen.seen("a setting of the start", place, Weight::Critical, read()).flatten()? {
        ValueData::Text(text) => Some(text),
        // Another type is no text, for Windows, too.
        ValueData::Number(_) | ValueData::Bytes(_) | ValueData::Texts(_) => None,
    }
}

/// Kernel, HAL and what they import; API sets; code pages.
fn kernel(installation: &Installation, entry: &Started, walk: &mut Walk<'_>) {
    // The loader of a 32-bit Windows 7 takes the kernel for large memory and the HAL of the machine (seen).
    let x86 = installation.architecture == "x86" && walk.era == Era::Win7 && installation.build >= 7600;
    let default = if x86 { ["ntkrnlpa.exe", "halmacpi.dll"] } else { ["ntoskrnl.exe", "hal.dll"] };
    let kernel = entry.kernel.as_deref().unwrap_or(default[0]);
    let hal = entry.hal.as_deref().unwrap_or(default[1]);
    // A file is loaded once, whatever name another file imports it by.
    let mut seen: Vec<String> = ["ntoskrnl.exe", "ntkrnlpa.exe", "hal.dll", kernel, hal]
        .iter()
        .map(|name| name.to_lowercase())
        .collect();
    let own = walk.need(Part::Kernel, &parts(SYSTEM32, kernel), Kind::Image, "the kernel");
    let hals = walk.need(Part::Kernel, &parts(SYSTEM32, hal), Kind::Image, "the hardware abstraction layer");
    // The debugger's transport comes first, whoever imports it.
    if own.iter().chain(&hals).any(|import| import.eq_ignore_ascii_case("kdcom.dll")) {
        walk.closure(Part::Kernel, kernel, vec!["kdcom.dll".into()], &[SYSTEM32, DRIVERS], &mut seen);
    }
    walk.closure(Part::Kernel, kernel, own, &[SYSTEM32, DRIVERS], &mut seen);
    walk.closure(Part::Kernel, hal, hals, &[SYSTEM32, DRIVERS], &mut seen);
}

/// Code pages and the case table, which the loader reads after the drivers.
fn code_pages(installation: &Installation, system: Option<&Hive>, unseen: &Unseen, walk: &mut Walk<'_>) {
    let Some(hive) = system else { return };
    let set = format!(r"ControlSet{:03}\Control\Nls", installation.control_sets.default.max(1));
    let pages = format!(r"{set}\CodePage");
    let languages = format!(r"{set}\Language");
    for (key, which, why) in [
        (&pages, "ACP", "the ANSI code page"),
        (&pages, "OEMCP", "the OEM code page"),
        (&languages, "Default", "the case table"),
    ] {
        let file = text(hive, key, which, unseen).and_then(|number| text(hive, key, &number, unseen));
        if let Some(file) = file.filter(|file| !file.is_empty()) {
            walk.need(Part::Nls, &parts(SYSTEM32, &file), Kind::Data, why);
        }
    }
}
