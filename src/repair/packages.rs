//! Update packages as sources: cabinets (`.cab`, the older form of `.msu` with cabinets and a PSF inside) and express storages (`.psf` with its
//! index). What is looked for are the files of one component: whole, as a null delta, as forward deltas for what the guest has.
//!
//! Missing: packages in the form of a WIM (`.msu` since 24H2), storages that are larger than [`MAX_PAYLOAD_BYTES`] inside of a package.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::limits::{MAX_FILE_IN_MEMORY_BYTES, MAX_PAYLOAD_BYTES};
use vmrescue_payload::cab::{Cabinet, is_cabinet};
use vmrescue_payload::psf::{self, PsfFile, is_psf};

/// Packages inside of packages: an `.msu` has cabinets, and those have no more.
const MAX_DEPTH: usize = 2;

/// A package.
#[derive(Debug)]
pub struct Package {
    /// Its path, for people.
    name: String,
    parts: Vec<PackagePart>,
}

#[derive(Debug)]
enum PackagePart {
    Cabinet { name: String, bytes: Vec<u8> },
    Storage { name: String, place: Place, files: Vec<PsfFile> },
}

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Memory(Vec<u8>),
}

/// A file of a package that may serve.
pub(crate) struct Member {
    /// Where it is, for people.
    pub(crate) place: String,
    /// The folder in its component: empty, `f`, `r` or `n`.
    pub(crate) folder: String,
    pub(crate) bytes: Vec<u8>,
}

/// True for a file that [`Package::open`] reads, by its first bytes.
///
/// # Errors
/// Of reading the host.
pub(crate) fn is_package(path: &Path) -> Result<bool> {
    let mut head = [0; 8];
    let mut file = std::fs::File::open(path).map_err(|e| Error::io("cannot be opened", path, e))?;
    match file.read_exact(&mut head) {
        Ok(()) => Ok(is_cabinet(&head) || is_psf(&head)),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(Error::io("cannot be read", path, e)),
    }
}

impl Package {
    /// Reads what a package has.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`, `Limit`; of the host.
    pub(crate) fn open(path: &Path) -> Result<Package> {
        let failed = |e| Error::io("cannot be read", path, e);
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut head = [0; 8];
        file.read_exact(&mut head).map_err(failed)?;
        let mut package = Package { name: path.display().to_string(), parts: Vec::new() };
        if is_psf(&head) {
            let files = storage_files(path, &mut file)?;
            let place = Place::File(path.to_path_buf());
            package.parts.push(PackagePart::Storage { name: String::new(), place, files });
            return Ok(package);
        }
        if size > MAX_FILE_IN_MEMORY_BYTES {
            return Err(Error::limit(Layer::Payload, "the package is too large to be read as a whole")
                .found(size)
                .in_file(path)
                .advice("unpack it, and name its folder"));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        package.cabinet(String::new(), bytes, MAX_DEPTH).map_err(|e| e.in_file(path))?;
        Ok(package)
    }

    fn cabinet(&mut self, name: String, bytes: Vec<u8>, depth: usize) -> Result<()> {
        let cabinet = Cabinet::open(&bytes)?;
        let ends = |file: &str, end: &str| file.to_ascii_lowercase().ends_with(end);
        let is_inner =
            |file: &str| ends(file, ".cab") && depth > 1 || ends(file, ".psf") || ends(file, ".psf.cix.xml");
        let (mut cabinets, mut storages, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
        cabinet.extract(MAX_PAYLOAD_BYTES, &|file| is_inner(&file.name), &mut |file, bytes| {
            let found = (file.name.clone(), bytes.to_vec());
            match () {
                () if ends(&file.name, ".cab") => cabinets.push(found),
                () if ends(&file.name, ".psf") => storages.push(found),
                () => indexes.push(found),
            }
            Ok(())
        })?;
        for (inner, bytes) in cabinets {
            let label = joined(&name, &inner);
            // One that cannot be read does not hide the others.
            match Cabinet::open(&bytes) {
                Ok(_) => self.cabinet(label, bytes, depth - 1)?,
                Err(e) if e.kind() == ErrorKind::Unsupported => {}
                Err(e) => return Err(e.context(label)),
            }
        }
        for (inner, bytes) in storages {
            let index = match indexes.first() {
                Some((_, index)) => index.clone(),
                None => match self.index_inside()? {
                    Some(index) => index,
                    None => psf::own_index(&bytes)?,
                },
            };
            let files = psf::files(&index)?;
            let name = joined(&name, &inner);
            self.parts.push(PackagePart::Storage { name, place: Place::Memory(bytes), files });
        }
        self.parts.push(PackagePart::Cabinet { name, bytes });
        Ok(())
    }

    /// The index of a storage that lies in an inner cabinet.
    fn index_inside(&self) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        for part in &self.parts {
            let PackagePart::Cabinet { bytes, .. } = part else { continue };
            let is_index = |name: &str| name.to_ascii_lowercase().ends_with(".psf.cix.xml");
            Cabinet::open(bytes)?.extract(
                MAX_PAYLOAD_BYTES,
                &|file| is_index(&file.name),
                &mut |_, bytes| {
                    found.get_or_insert_with(|| bytes.to_vec());
                    Ok(())
                },
            )?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// Everything that the package has of a component's file.
    ///
    /// # Errors
    /// Of reading it; a storage whose file does not have its hash.
    pub(crate) fn members(&self, component: &str, file: &str) -> Result<Vec<Member>> {
        let folder = |name: &str| folder_in(name, component, file);
        let mut found = Vec::new();
        for part in &self.parts {
            match part {
                PackagePart::Cabinet { name, bytes } => {
                    let cabinet = Cabinet::open(bytes)?;
                    let wanted = |own: &vmrescue_payload::cab::CabinetFile| folder(&own.name).is_some();
                    cabinet.extract(MAX_PAYLOAD_BYTES, &wanted, &mut |own, bytes| {
                        let place = format!("{}: {}", self.name, joined(name, &own.name));
                        let folder = folder(&own.name).unwrap_or_default();
                        found.push(Member { place, folder, bytes: bytes.to_vec() });
                        Ok(())
                    })?;
                }
                PackagePart::Storage { name, place, files } => {
                    for own in files {
                        let Some(folder) = folder(&own.name) else { continue };
                        let stored = place.read(own.place())?;
                        let bytes = own.decode(&stored, MAX_PAYLOAD_BYTES)?;
                        let place = format!("{}: {}", self.name, joined(name, &own.name));
                        found.push(Member { place, folder, bytes });
                    }
                }
            }
        }
        Ok(found)
    }
}

fn joined(outer: &str, inner: &str) -> String {
    if outer.is_empty() { inner.to_string() } else { format!("{outer}: {inner}") }
}

/// The folder of a component that a member lies in; `None` when it is none of that component's file.
fn folder_in(name: &str, component: &str, file: &str) -> Option<String> {
    let name = name.replace('/', "\\").to_lowercase();
    let (path, own) = name.rsplit_once('\\')?;
    if own != file.to_lowercase() {
        return None;
    }
    let component = component.to_lowercase();
    let is_component = |path: &str| path.rsplit('\\').next() == Some(component.as_str());
    if is_component(path) {
        return Some(String::new());
    }
    let (above, folder) = path.rsplit_once('\\')?;
    (matches!(folder, "f" | "r" | "n") && is_component(above)).then(|| folder.to_string())
}

impl Place {
    fn read(&self, (offset, length): (u64, u64)) -> Result<Vec<u8>> {
        let outside = || {
            Error::damaged(Layer::Payload, "PSF: a file lies behind the end of the storage")
                .at(offset)
                .found(format!("{length:#x} bytes"))
        };
        if length > MAX_PAYLOAD_BYTES {
            return Err(outside());
        }
        match self {
            Place::Memory(bytes) => {
                let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
                let found = range.and_then(|(at, length)| vmrescue_base::bytes::slice_at(bytes, at, length));
                found.map(<[u8]>::to_vec).ok_or_else(outside)
            }
            Place::File(path) => {
                let failed = |e| Error::io("cannot be read", path, e);
                let mut file = std::fs::File::open(path).map_err(failed)?;
                let size = file.metadata().map_err(failed)?.len();
                if offset.checked_add(length).is_none_or(|end| end > size) {
                    return Err(outside());
                }
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                let mut bytes = vec![0; length as usize];
                file.read_exact(&mut bytes).map_err(failed)?;
                Ok(bytes)
            }
        }
    }
}

/// The files of a storage on the host: by the index beside it, else by its own.
fn storage_files(path: &Path, file: &mut std::fs::File) -> Result<Vec<PsfFile>> {
    let mut beside = path.as_os_str().to_os_string();
    beside.push(".cix.xml");
    for index in [PathBuf::from(beside), path.with_file_name("express.psf.cix.xml")] {
        match std::fs::read(&index) {
            Ok(text) => return psf::files(&text).map_err(|e| e.in_file(&index)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("cannot be read", &index, e)),
        }
    }
    let failed = |e| Error::io("cannot be read", path, e);
    let size = file.metadata().map_err(failed)?.len();
    if size > MAX_PAYLOAD_BYTES {
        return Err(Error::limit(Layer::Payload, "PSF: too large to look for its own index")
            .in_file(path)
            .advice("put its .psf.cix.xml beside it"));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    psf::own_index(&bytes).and_then(|index| psf::files(&index)).map_err(|e| e.in_file(path))
}

#[cfg(test)]
mod tests {
    use super::folder_in;

    #[test]
    fn members_are_told_by_component_and_file() {
        let component = "amd64_x_31bf_1.2.3.4_none_00";
        let folder = |name: &str| folder_in(name, component, "X.sys");
        assert_eq!(folder(&format!(r"{component}\x.sys")).as_deref(), Some(""));
        assert_eq!(folder(&format!("a/{component}/F/x.SYS")).as_deref(), Some("f"));
        assert_eq!(folder(&format!(r"{component}\q\x.sys")), None);
        assert_eq!(folder(r"amd64_x_31bf_1.2.3.5_none_00\x.sys"), None);
        assert_eq!(folder("x.sys"), None);
    }
}
