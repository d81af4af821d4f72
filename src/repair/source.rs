//! Where files come from that the guest's own component store does not have: a folder, another machine's disk, an installation image (WIM), an
//! update package.
//!
//! Update packages are in `packages`. Missing: split and solid WIM images (SWM, ESD).

use super::packages::{Package, is_package};
use super::plan::directory;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_PAYLOAD_BYTES;
use vmrescue_base::text::hex;
use vmrescue_crypt::Keys;
use vmrescue_fs::{FileSystem, NodeId, read_file, resolve, wim};
use vmrescue_image as image;
use vmrescue_image::OpenOptions;
use vmrescue_windows::{Candidate, Machine, PeInfo, Tried, make_file, store_versions};

/// Most files of a folder that are looked at.
const MAX_FILES: usize = 200_000;

/// A source.
#[derive(Clone)]
pub enum Source {
    /// A folder of the host; files are found by their name.
    Folder(PathBuf),
    /// Another machine's disk.
    Disk(String, Arc<Machine>),
    /// The images of a WIM.
    Images(Vec<Donor>),
    /// An update package: cabinet or express storage.
    Package(Arc<Package>),
}

/// A file system with a Windows on it.
#[derive(Clone)]
pub struct Donor {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// What it is, for people.
    pub name: String,
}

impl Donor {
    /// `\Windows\System32\config`.
    ///
    /// # Errors
    /// Of reading it.
    pub(super) fn config(&self) -> Result<Option<NodeId>> {
        directory(&*self.fs, &["Windows", "System32", "config"])
    }
}

/// A file that a source has.
pub(super) struct Found {
    pub(super) data: Vec<u8>,
    pub(super) pe: PeInfo,
    pub(super) from: String,
}

impl Source {
    /// Opens a source: a folder, a disk image of any kind, an update package, or a WIM (`FILE` or `FILE#N` for its N-th image). BitLocker volumes
    /// of a disk are opened with the keys that fit.
    ///
    /// # Errors
    /// `NotFound`, `Unsupported`; damage.
    pub fn open(text: &str, keys: &Keys) -> Result<Source> {
        let (file, number) = match text.rsplit_once('#').map(|(file, n)| (file, n.parse::<usize>())) {
            Some((file, Ok(number))) if !Path::new(text).exists() => (file, Some(number)),
            _ => (text, None),
        };
        let path = Path::new(file);
        if path.is_dir() {
            return Ok(Source::Folder(path.to_path_buf()));
        }
        if wim::is_wim(path)? {
            let images = wim::open(path)?.into_iter().enumerate();
            let chosen = images.filter(|(place, _)| number.is_none_or(|number| number == place + 1));
            let donors: Vec<Donor> =
                chosen.map(|(place, fs)| Donor { fs, name: format!("{file}#{}", place + 1) }).collect();
            if donors.is_empty() {
                return Err(Error::not_found(Layer::Script, "the WIM has no such image").found(text));
            }
            return Ok(Source::Images(donors));
        }
        if is_package(path)? {
            return Ok(Source::Package(Arc::new(Package::open(path)?)));
        }
        let container = image::open_path(path, &OpenOptions::default())?;
        Ok(Source::Disk(file.to_string(), Arc::new(Machine::open_with(container.disk, keys)?)))
    }

    /// A shadow copy of the volume that this machine's own Windows is on: `2`, `latest`, or its identifier.
    ///
    /// # Errors
    /// `NotFound` without such a copy; damage of its store.
    pub fn shadow(machine: &Machine, windows: Option<usize>, name: &str) -> Result<Source> {
        let volume = machine.installation(windows)?.volume;
        let none = || Error::not_found(Layer::Shadow, "the volume of Windows has no shadow copies");
        let shadows = machine.shadows(volume)?.ok_or_else(none)?;
        let number = shadows.find(name)?.number;
        let fs = vmrescue_fs::open(shadows.view(number)?)?;
        Ok(Source::Images(vec![Donor { fs, name: format!("shadow copy {number}") }]))
    }

    /// File systems with a Windows on them.
    pub(super) fn donors(&self) -> Vec<Donor> {
        match self {
            Source::Folder(_) | Source::Package(_) => Vec::new(),
            Source::Images(donors) => donors.clone(),
            Source::Disk(name, machine) => machine
                .installations
                .iter()
                .filter_map(|i| machine.file_system(i.volume).ok())
                .map(|fs| Donor { fs, name: name.clone() })
                .collect(),
        }
    }

    /// Complete PE files of this name, from the best place to the worst.
    ///
    /// # Errors
    /// Of reading the source.
    pub(super) fn find(&self, name: &str) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        match self {
            Source::Folder(folder) => in_folder(folder, name, &mut found)?,
            // Only exact files are taken out of an update: a newer version is not what the guest has.
            Source::Package(_) => {}
            Source::Disk(label, machine) => {
                for installation in &machine.installations {
                    let fs = machine.file_system(installation.volume)?;
                    in_system(&*fs, label, name, &mut found)?;
                    for version in store_versions(machine, installation, name)? {
                        if let Some(pe) = version.pe {
                            let data = read_file(&*fs, version.node, "")?;
                            found.push(Found { data, pe, from: format!("{label}: {}", version.path) });
                        }
                    }
                }
            }
            Source::Images(donors) => {
                for donor in donors {
                    in_system(&*donor.fs, &donor.name, name, &mut found)?;
                }
            }
        }
        Ok(found)
    }
}

/// A file that must have certain bytes.
pub(super) struct Exact<'a> {
    /// Directory of its component.
    pub(super) component: &'a str,
    /// Path from the root of its volume.
    pub(super) parts: &'a [String],
    /// SHA-256 of what it must be.
    pub(super) expected: [u8; 32],
}

impl Exact<'_> {
    fn name(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }

    /// Unpacks a file and holds it against the hash.
    fn judged(&self, from: String, bytes: &[u8], tried: &mut Vec<Tried>) -> Option<Candidate> {
        match vmrescue_payload::decode(bytes, None, MAX_PAYLOAD_BYTES) {
            Ok(found) if Sha256::digest(&found.data)[..] == self.expected => {
                return Some(Candidate { data: found.data, from });
            }
            Ok(found) => {
                let why = format!("its SHA-256 is {}", hex(&Sha256::digest(&found.data)));
                tried.push(Tried { place: from, why });
            }
            Err(e) => tried.push(Tried { place: from, why: e.to_string() }),
        }
        None
    }
}

impl Source {
    /// The exact bytes of a file, from the first place that has or makes them.
    ///
    /// # Errors
    /// Of reading the source.
    pub(super) fn exact(&self, wanted: &Exact<'_>, tried: &mut Vec<Tried>) -> Result<Option<Candidate>> {
        match self {
            Source::Folder(folder) => {
                for path in files_in_folder(folder, wanted.name())? {
                    let size =
                        std::fs::metadata(&path).map_err(|e| Error::io("cannot be read", &path, e))?.len();
                    if size > MAX_PAYLOAD_BYTES {
                        let why = format!("it is too large: {size} bytes");
                        tried.push(Tried { place: path.display().to_string(), why });
                        continue;
                    }
                    let bytes = std::fs::read(&path).map_err(|e| Error::io("cannot be read", &path, e))?;
                    if let Some(found) = wanted.judged(path.display().to_string(), &bytes, tried) {
                        return Ok(Some(found));
                    }
                }
            }
            Source::Disk(label, machine) => {
                for installation in &machine.installations {
                    let fs = machine.file_system(installation.volume)?;
                    if let Some(found) = in_place(&*fs, label, wanted, tried)? {
                        return Ok(Some(found));
                    }
                    let (found, failed) = make_file(
                        machine,
                        installation,
                        wanted.component,
                        wanted.name(),
                        wanted.expected,
                        &[],
                    )?;
                    tried.extend(
                        failed.into_iter().map(|t| Tried { place: format!("{label}: {}", t.place), ..t }),
                    );
                    if let Some(found) = found {
                        return Ok(Some(Candidate { from: format!("{label}: {}", found.from), ..found }));
                    }
                }
            }
            Source::Package(package) => {
                for member in package.members(wanted.component, wanted.name())? {
                    // Forward deltas are for what the guest has; reverse ones make the first version.
                    if matches!(member.folder.as_str(), "" | "n")
                        && let Some(found) = wanted.judged(member.place, &member.bytes, tried)
                    {
                        return Ok(Some(found));
                    }
                }
            }
            Source::Images(donors) => {
                for donor in donors {
                    if let Some(found) = in_place(&*donor.fs, &donor.name, wanted, tried)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Source {
    /// Forward deltas of a component's file, for the first version that the guest has: place and bytes.
    ///
    /// # Errors
    /// Of reading the source.
    pub(super) fn forward_deltas(&self, wanted: &Exact<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        let Source::Package(package) = self else { return Ok(Vec::new()) };
        let members = package.members(wanted.component, wanted.name())?;
        Ok(members.into_iter().filter(|m| m.folder == "f").map(|m| (m.place, m.bytes)).collect())
    }
}

/// The same place in another Windows, and the component's own folder there.
fn in_place(
    fs: &dyn FileSystem,
    label: &str,
    wanted: &Exact<'_>,
    tried: &mut Vec<Tried>,
) -> Result<Option<Candidate>> {
    let component = ["Windows", "WinSxS", wanted.component, wanted.name()].map(str::to_string);
    for parts in [wanted.parts, &component[..]] {
        let Some(node) = resolve(fs, parts)? else { continue };
        let from = format!("{label}: \\{}", parts.join("\\"));
        match read_file(fs, node, "") {
            Ok(bytes) => {
                if let Some(found) = wanted.judged(from, &bytes, tried) {
                    return Ok(Some(found));
                }
            }
            Err(e) => tried.push(Tried { place: from, why: e.to_string() }),
        }
    }
    Ok(None)
}

/// The usual places of a running Windows.
fn in_system(fs: &dyn FileSystem, label: &str, name: &str, found: &mut Vec<Found>) -> Result<()> {
    let mut unread = None;
    for folder in [r"Windows\System32\drivers", r"Windows\System32", r"Windows\Boot\EFI", r"Windows"] {
        let parts: Vec<&str> = folder.split('\\').chain([name]).collect();
        let Some(node) = resolve(fs, &parts)? else { continue };
        let data = match read_file(fs, node, "") {
            Ok(data) => data,
            // Another place may have it; when none has, this is the reason.
            Err(e) => {
                unread.get_or_insert(e.context(format!("{label}: \\{}", parts.join("\\"))));
                continue;
            }
        };
        if let Ok(pe) = PeInfo::parse(&data) {
            found.push(Found { data, pe, from: format!("{label}: \\{}", parts.join("\\")) });
        }
    }
    match unread {
        Some(e) if found.is_empty() => Err(e),
        _ => Ok(()),
    }
}

fn in_folder(folder: &Path, name: &str, found: &mut Vec<Found>) -> Result<()> {
    for path in files_in_folder(folder, name)? {
        let data = std::fs::read(&path).map_err(|e| Error::io("cannot be read", &path, e))?;
        if let Ok(pe) = PeInfo::parse(&data) {
            found.push(Found { data, pe, from: path.display().to_string() });
        }
    }
    Ok(())
}

/// All files of this name below a folder, in order.
fn files_in_folder(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    let mut seen = 0;
    while let Some(folder) = pending.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| Error::io("cannot be read", &folder, e))?;
        for entry in entries.flatten() {
            seen += 1;
            if seen > MAX_FILES {
                return Err(Error::limit(Layer::Script, "the source has too many files").in_file(&folder));
            }
            let (path, kind) = (entry.path(), entry.file_type());
            if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
                pending.push(path);
            } else if entry.file_name().to_string_lossy().eq_ignore_ascii_case(name) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
