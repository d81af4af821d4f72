//! Services and drivers with everything that decides whether they load: order, dependencies, filters, file, signature, component store.
//!
//! * [`DriverReport`]: one control set, and how the others differ
//! * [`FileFacts`]: a file behind a service, looked at once
//! * [`BootFile`]: what the loader needs before Windows can read its own disk
//!
//! Missing: the chain of trust of signatures, drivers that are only in the driver store, the policy of early-launch protection.

mod boot;
mod file;

pub use boot::{BootFile, BootReason, BootWanted};
pub use file::{FileFacts, Verdict};

use super::authenticode::Signature;
use super::component_store::Store;
use super::filters::{Filter, filters};
use super::load_order::LoadOrder;
use super::machine::{Installation, Machine};
use super::services::{Service, expand_image_path, services};
use super::unread::Unseen;
use super::{catalog, machine_name};
use file::Files;
use serde::Serialize;
use std::collections::BTreeSet;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_registry::Hive;

/// What to look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct DriverOptions {
    /// Number of the control set; the one of the next start when absent.
    pub control_set: Option<u32>,
    /// Hash all drivers, look for all in catalogs, read all copies of the store; else only what the boot needs.
    pub hash: bool,
}

/// A service or driver.
#[derive(Debug, Clone, Serialize)]
pub struct Driver {
    /// What the registry says.
    #[serde(flatten)]
    pub service: Service,
    /// Turn among the drivers of its start (boot or system), from 1.
    pub load_order: Option<u32>,
    /// Dependencies that cannot be met.
    pub dependency_problems: Vec<String>,
    /// The file behind it.
    pub image: Option<FileFacts>,
}

impl Driver {
    /// True when something keeps it from loading.
    pub fn has_problem(&self) -> bool {
        self.service.problem.is_some() || !self.dependency_problems.is_empty()
    }
}

/// A service that another control set has differently.
#[derive(Debug, Clone, Serialize)]
pub struct SetDifference {
    /// Its name.
    pub name: String,
    /// Start in the set that was looked at; `None` when it is not there.
    pub start: Option<u32>,
    /// Start in the other set; `None` when it is not there.
    pub other_start: Option<u32>,
    /// The path of the image differs too.
    pub image_path_differs: bool,
}

/// Another control set.
#[derive(Debug, Clone, Serialize)]
pub struct OtherSet {
    /// Its number.
    pub number: u32,
    /// What `Select` calls it: `current`, `default`, `failed`, `last-known-good`.
    pub roles: Vec<&'static str>,
    /// How many services it has.
    pub services: usize,
    /// What it has differently.
    pub differences: Vec<SetDifference>,
}

/// Everything on services and drivers.
#[derive(Debug, Clone, Serialize)]
pub struct DriverReport {
    /// Number of the control set that was looked at.
    pub control_set: u32,
    /// What `Select` calls it.
    pub roles: Vec<&'static str>,
    /// What the loader needs before the disk can be read, in the order of the loader.
    pub boot_files: Vec<BootFile>,
    /// All services and drivers: boot and system drivers in the order of loading, then the others by start and name.
    pub services: Vec<Driver>,
    /// Filters of classes and devices.
    pub filters: Vec<Filter>,
    /// The other control sets.
    pub other_control_sets: Vec<OtherSet>,
    /// Catalogs that were looked into; `None` when none had to be.
    pub catalogs_read: Option<usize>,
    /// Catalogs that could not be read.
    pub catalogs_unreadable: Vec<String>,
    /// What this report does not say.
    pub notes: Vec<String>,
}

/// What `Select` calls a control set.
fn roles_of(installation: &Installation, number: u32) -> Vec<&'static str> {
    let sets = installation.control_sets;
    [
        ("default", sets.default),
        ("current", sets.current),
        ("last-known-good", sets.last_known_good),
        ("failed", sets.failed),
    ]
    .into_iter()
    .filter(|(_, named)| *named == number)
    .map(|(name, _)| name)
    .collect()
}

/// Looks at the services and drivers of an installation. `wanted` are the files that the loader takes, by the walk of the boot chain for the same
/// control set.
///
/// # Errors
/// `NotFound` when there is no such control set; of reading the disk and the SYSTEM hive.
pub fn driver_report(
    machine: &Machine,
    installation: &Installation,
    options: DriverOptions,
    wanted: &[BootWanted],
) -> Result<DriverReport> {
    let hive = machine.hive(installation, "SYSTEM")?;
    let number = options.control_set.unwrap_or(installation.control_sets.default.max(1));
    let list = services(machine, installation, &hive, number, false)
        .map_err(|e| e.expected(format!("one of {:?}", set_numbers(&hive))))?;
    let unseen = Unseen::default();
    let order = LoadOrder::read(&hive, number, &unseen);
    let boot_order = order.sort(&list, 0, Some("Ntfs"));
    let system_order = order.sort(&list, 1, None);
    let mut files = Files::new(machine, installation)?;
    let mut drivers: Vec<Driver> = Vec::with_capacity(list.len());
    let dependencies: Vec<Vec<String>> = list.iter().map(|s| order.dependency_problems(&list, s)).collect();
    for (index, (mut service, dependency_problems)) in list.into_iter().zip(dependencies).enumerate() {
        let place = |order: &[usize]| order.iter().position(|i| *i == index).map(|place| place as u32 + 1);
        let boot = place(&boot_order);
        let image = image_of(&mut files, installation, &service, boot.is_some() || options.hash)?;
        if let Some(facts) = &image {
            service.file = Some(facts.path.clone());
            service.size = facts.size;
            service.version.clone_from(&facts.version);
            service.problem.clone_from(&facts.problem);
        }
        drivers.push(Driver {
            load_order: boot.or(place(&system_order)),
            service,
            dependency_problems,
            image,
        });
    }
    drivers.sort_by_key(|d| {
        (d.service.start.unwrap_or(9), !d.service.is_driver(), d.load_order, d.service.name.to_lowercase())
    });
    let mut boot_files = boot::boot_files(&mut files, installation, &drivers, wanted)?;
    let mut store = Store::open(machine, installation)?;
    look_in_store(&mut files, &mut store, &boot_files, &drivers, options.hash)?;
    let (catalogs_read, catalogs_unreadable) = look_in_catalogs(machine, installation, &mut files)?;
    for driver in &mut drivers {
        if let Some(image) = &mut driver.image {
            *image = files.get(&image.path).cloned().unwrap_or_else(|| image.clone());
        }
    }
    for file in &mut boot_files {
        file.finish(&files, catalogs_read.is_some_and(|count| count > 0));
    }
    let plain: Vec<Service> = drivers.iter().map(|driver| driver.service.clone()).collect();
    let filters = filters(&hive, number, &plain, &unseen);
    Ok(DriverReport {
        control_set: number,
        roles: roles_of(installation, number),
        other_control_sets: other_sets(machine, installation, &hive, number, &plain)?,
        boot_files,
        services: drivers,
        filters,
        catalogs_read,
        catalogs_unreadable,
        notes: unseen
            .list()
            .iter()
            .chain(&store.unread())
            .map(|unread| format!("could not be read: {unread}"))
            .chain(std::iter::once("signatures: the hash is compared and the signer named; the signature's mathematics and its chain to a root are not checked".to_string()))
            .collect(),
    })
}

fn image_of(
    files: &mut Files<'_>,
    installation: &Installation,
    service: &Service,
    hash: bool,
) -> Result<Option<FileFacts>> {
    let Some(parts) = expand_image_path(&service.image_path, &service.name, service.is_driver()) else {
        return Ok(None);
    };
    let volume = installation.path.split('\\').next().unwrap_or_default();
    let path = format!("{volume}\\{}", parts.join("\\"));
    files
        .look(&path, &parts, service.is_driver(), hash && service.is_driver())
        .map(|facts| Some(facts.clone()))
}

fn set_numbers(hive: &Hive) -> Vec<u32> {
    let names = hive.root().subkeys_lenient().0.into_iter().map(|key| key.name().to_lowercase());
    names.filter_map(|name| name.strip_prefix("controlset")?.parse().ok()).collect()
}

fn other_sets(
    machine: &Machine,
    installation: &Installation,
    hive: &Hive,
    own: u32,
    here: &[Service],
) -> Result<Vec<OtherSet>> {
    let mut sets = Vec::new();
    for number in set_numbers(hive).into_iter().filter(|number| *number != own) {
        let there = match services(machine, installation, hive, number, false) {
            Ok(there) => there,
            Err(e) if e.kind() == vmrescue_base::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let same =
            |list: &[Service], name: &str| list.iter().find(|s| s.name.eq_ignore_ascii_case(name)).cloned();
        let mut differences = Vec::new();
        for service in here {
            let other = same(&there, &service.name);
            let differs =
                other.as_ref().is_some_and(|o| !o.image_path.eq_ignore_ascii_case(&service.image_path));
            let other_start = other.as_ref().and_then(|other| other.start);
            if other_start != service.start || differs {
                let (name, start) = (service.name.clone(), service.start);
                differences.push(SetDifference { name, start, other_start, image_path_differs: differs });
            }
        }
        for other in there.iter().filter(|other| same(here, &other.name).is_none()) {
            let (name, other_start) = (other.name.clone(), other.start);
            differences.push(SetDifference { name, start: None, other_start, image_path_differs: false });
        }
        sets.push(OtherSet {
            number,
            roles: roles_of(installation, number),
            services: there.len(),
            differences,
        });
    }
    Ok(sets)
}

/// Which component the files are of: the boot files always, the other drivers with `all`.
fn look_in_store(
    files: &mut Files<'_>,
    store: &mut Store,
    boot: &[BootFile],
    drivers: &[Driver],
    all: bool,
) -> Result<()> {
    let mut paths: BTreeSet<String> = boot.iter().map(|file| file.path.clone()).collect();
    if all {
        let of_drivers = drivers.iter().filter(|driver| driver.service.is_driver());
        paths.extend(of_drivers.filter_map(|driver| driver.image.as_ref().map(|image| image.path.clone())));
    }
    // Files without a second name in the store are looked for by name, all in one pass.
    let mut unlinked = Vec::new();
    for path in &paths {
        let node = files.get(path).and_then(|facts| facts.node);
        let linked = node.is_some_and(|node| store.is_linked(node).unwrap_or(false));
        if !linked {
            unlinked.push(path.rsplit('\\').next().unwrap_or_default().to_string());
        }
    }
    store.look_for(&unlinked)?;
    for path in &paths {
        let Some(facts) = files.get_mut(path) else { continue };
        let name = path.rsplit('\\').next().unwrap_or_default();
        let hash = facts.sha256_bytes;
        // The other copies matter when this one is broken.
        let deep = all || facts.problem.is_some();
        facts.store = Some(store.origin(facts.node, name, hash, deep)?);
    }
    Ok(())
}

fn look_in_catalogs(
    machine: &Machine,
    installation: &Installation,
    files: &mut Files<'_>,
) -> Result<(Option<usize>, Vec<String>)> {
    let mut wanted = BTreeSet::new();
    for facts in files.all() {
        let Some(hashes) = &facts.hashes else { continue };
        if !matches!(facts.signature, Signature::Embedded { .. }) {
            wanted.insert(hashes.sha1.to_vec());
            wanted.insert(hashes.sha256.to_vec());
        }
    }
    if wanted.is_empty() {
        return Ok((None, Vec::new()));
    }
    let found = catalog::find(machine, installation, wanted)?;
    for facts in files.all_mut() {
        let Some(hashes) = &facts.hashes else { continue };
        let hit = found.by_hash.get(&hashes.sha256[..]).or_else(|| found.by_hash.get(&hashes.sha1[..]));
        match (hit, &facts.signature) {
            (_, Signature::Embedded { .. }) => {}
            (Some((catalog, signer)), _) => {
                facts.signature = Signature::Catalog { catalog: catalog.clone(), signer: signer.clone() };
            }
            (None, Signature::NotLooked) => facts.signature = Signature::Missing,
            (None, _) => {}
        }
    }
    Ok((Some(found.read), found.unreadable))
}

/// The word for a file that was built for another machine.
fn built_for(machine: u16) -> String {
    format!("built for {}", machine_name(machine))
}

/// The error for a path that is no file of the installation.
fn no_file(path: &str) -> Error {
    Error::not_found(Layer::Windows, "no such file").found(path)
}
