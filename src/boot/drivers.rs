//! Drivers that the loader takes, in its order: groups, tags, `StartOverride`, the driver of the boot file system; each with the files that it imports.
//!
//! `ErrorControl` decides what a driver does that is not there: 0 and 1 are left out silently, 2 and 3 end the start (2 first tries the last known
//! good control set). A file that is there and cannot be mapped ends the start whatever it says (seen).

use crate::files::Kind;
use crate::screens::{Fault, Part};
use crate::{Broken, DRIVERS, Link, Outcome, SYSTEM32, Walk, is_real_import};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use vmrescue_registry::Hive;
use vmrescue_windows::{LoadOrder, Service, Unseen, expand_image_path};

/// The driver of the boot file system, which is taken whatever its start says.
const FILE_SYSTEM: &str = "Ntfs";

/// The kernel-mode driver framework, and the library by which drivers reach it.
const FRAMEWORK: &str = "Wdf01000";
const FRAMEWORK_LOADER: &str = "wdfldr.sys";

/// Services (in lower case) that the loader has put into memory.
pub(crate) type Loaded = BTreeSet<String>;

/// Adds the links of all boot drivers; which of them are loaded.
pub(crate) fn look(hive: &Hive, set: u32, list: &[Service], unseen: &Unseen, walk: &mut Walk<'_>) -> Loaded {
    let effective: Vec<Service> =
        list.iter().map(|service| Service { start: service.effective_start(), ..service.clone() }).collect();
    let order = LoadOrder::read(hive, set, unseen).sort(&effective, 0, Some(FILE_SYSTEM));
    let mut taken = Taken { places: BTreeMap::new(), faults: BTreeMap::new() };
    // What the kernel has brought is in memory already.
    for (index, link) in walk.links.iter().enumerate().filter(|(_, link)| link.part == Part::Kernel) {
        taken.places.insert(link.name.to_lowercase(), index);
    }
    for name in ["ntoskrnl.exe", "hal.dll"] {
        taken.places.entry(name.into()).or_insert(usize::MAX);
    }
    let mut loaded = Loaded::new();
    for index in order {
        let mut service = effective[index].clone();
        if service.name.eq_ignore_ascii_case(FILE_SYSTEM) {
            // The loader asks for it itself: its ErrorControl, which is 1, does not count (seen).
            service.error_control = Some(3);
        }
        if taken.driver(&service, walk) {
            loaded.insert(service.name.to_lowercase());
        }
    }
    framework(list, set, &loaded, &taken, walk);
    loaded
}

/// Drivers that are made with the driver framework crash in its loader when the framework itself is not in memory.
fn framework(list: &[Service], set: u32, loaded: &Loaded, taken: &Taken, walk: &mut Walk<'_>) {
    let Some(service) = list.iter().find(|service| service.name.eq_ignore_ascii_case(FRAMEWORK)) else {
        return;
    };
    if loaded.contains(&FRAMEWORK.to_lowercase()) || !taken.places.contains_key(FRAMEWORK_LOADER) {
        return;
    }
    let (fault, words) = match service.effective_start() {
        Some(0) => (Fault::Missing, "its file is not there: the loader leaves it out".to_string()),
        start => {
            (Fault::NotStarted, format!("Start = {}", start.map_or("none".into(), |start| start.to_string())))
        }
    };
    let broken = walk.broken(Part::Framework, fault, words, Outcome::Stops);
    walk.links.push(Link {
        part: Part::Framework,
        name: service.name.clone(),
        place: format!(r"HKLM\SYSTEM\ControlSet{set:03}\Services\{}", service.name),
        why: "boot drivers are made with it".into(),
        service: Some(service.name.clone()),
        of: None,
        driver: Some(service.name.clone()),
        broken: Some(broken),
    });
}

struct Taken {
    /// Links of files by their name in lower case; `usize::MAX` for files without one.
    places: BTreeMap<String, usize>,
    /// What files that are broken do to a driver that needs them.
    faults: BTreeMap<String, (Fault, String)>,
}

/// What a fault does to the start, by `ErrorControl`.
fn outcome(fault: Fault, error_control: Option<u32>) -> Outcome {
    match (fault, error_control) {
        // Without a value Windows takes 1.
        (Fault::Missing, None | Some(0 | 1)) => Outcome::Skipped,
        (Fault::Missing, Some(2)) => Outcome::MayStop,
        _ => Outcome::Stops,
    }
}

impl Taken {
    /// Looks at a driver with everything that it imports; false when the loader goes on without it.
    fn driver(&mut self, service: &Service, walk: &mut Walk<'_>) -> bool {
        let Some(path) = expand_image_path(&service.image_path, &service.name, true) else { return true };
        // A driver without a file of its own is part of the kernel, as Fs_Rec and spldr may be.
        if service.image_path.is_empty() && !walk.files.exists(&path) && service.error_control != Some(3) {
            return true;
        }
        let (mut left_out, mut stops) = (false, false);
        let mut pending: VecDeque<(Vec<String>, Option<String>)> = VecDeque::from([(path, None)]);
        let mut seen = BTreeSet::new();
        while let Some((path, of)) = pending.pop_front() {
            let name = path.last().cloned().unwrap_or_default();
            if !seen.insert(name.to_lowercase()) || seen.len() > crate::MAX_FILES {
                continue;
            }
            let look = walk.files.look(&path, Kind::Image);
            if let Some((fault, words)) = &look.fault {
                match outcome(*fault, service.error_control) {
                    Outcome::Skipped => left_out = true,
                    Outcome::Stops | Outcome::MayStop => stops = true,
                }
                self.faults.insert(name.to_lowercase(), (*fault, words.clone()));
            }
            self.link(service, &path, of.as_deref(), walk);
            for import in look.imports.into_iter().filter(|import| is_real_import(import)) {
                if self.places.get(&import.to_lowercase()) == Some(&usize::MAX) {
                    continue;
                }
                pending.push_back((walk.find(&import, &[DRIVERS, SYSTEM32]), Some(name.clone())));
            }
        }
        // Where the start ends, nothing is missed later.
        stops || !left_out
    }

    /// Adds the link of a file, or makes what is known of it worse when this driver cannot do without it.
    fn link(&mut self, service: &Service, path: &[String], of: Option<&str>, walk: &mut Walk<'_>) {
        let name = path.last().cloned().unwrap_or_default();
        let key = name.to_lowercase();
        let broken = self.faults.get(&key).map(|(fault, words)| {
            walk.broken(Part::Driver, *fault, words.clone(), outcome(*fault, service.error_control))
        });
        let control = service.error_control.map_or("none".to_string(), |control| control.to_string());
        let why = match of {
            None => format!("boot driver {}, ErrorControl {control}", service.name),
            Some(of) => {
                format!("imported by {of}, of the boot driver {}, ErrorControl {control}", service.name)
            }
        };
        match self.places.get(&key).copied() {
            Some(place) => {
                let Some(link) = walk.links.get_mut(place) else { return };
                // The first driver that cannot do without a file decides.
                let worse = |old: &Broken, new: &Broken| new.outcome < old.outcome;
                if let (Some(old), Some(new)) = (&link.broken, &broken)
                    && worse(old, new)
                {
                    (link.broken, link.why) = (broken, why);
                    link.driver = Some(service.name.clone());
                }
            }
            None => {
                let place = walk.files.path(path);
                let driver = Some(service.name.clone());
                let service = of.is_none().then(|| service.name.clone());
                let of = of.map(String::from);
                self.places.insert(key, walk.links.len());
                walk.links.push(Link { part: Part::Driver, name, place, why, service, of, driver, broken });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_control_decides_on_what_is_missing_only() {
        for (control, wanted) in [
            (None, Outcome::Skipped),
            (Some(0), Outcome::Skipped),
            (Some(1), Outcome::Skipped),
            (Some(2), Outcome::MayStop),
            (Some(3), Outcome::Stops),
        ] {
            assert_eq!(outcome(Fault::Missing, control), wanted);
            assert_eq!(outcome(Fault::Zeroed, control), Outcome::Stops);
            assert_eq!(outcome(Fault::OtherMachine, control), Outcome::Stops);
        }
    }
}
