//! Differencing disks with their parents.
//!
//! A disk says where its parent is, and a guest may lie: only the file name of a hint is trusted, looked for in the
//! image's own folder, unless the caller allows more or names the parent.

use super::{Container, ContainerInfo, Format, Variant, info, open_with_parent};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_block::{Disk, HostFile};

/// How an image is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Parents, nearest first, instead of those that the image names.
    pub parents: Vec<PathBuf>,
    /// Follow the paths that the image names out of its own folder.
    pub follow_paths: bool,
}

/// Opens the image at `path` and, for a differencing disk, all of its parents, for reading.
///
/// # Errors
/// `NotFound` with the places that were tried; `Damaged` when the parent is not the one that the child was made on.
pub fn open_path(path: &Path, options: &OpenOptions) -> Result<Container<Disk>> {
    let file = Disk::new(Arc::new(HostFile::open_read(path)?));
    open_file(&file, path, options)
}

/// As [`open_path`], for a file that is open already (a transaction's). A parent that the caller names is taken even when it was
/// changed since the child was made, which is a defect; `open_parent`, for writing, refuses that.
///
/// # Errors
/// As [`open_path`].
pub fn open_file(file: &Disk, path: &Path, options: &OpenOptions) -> Result<Container<Disk>> {
    let mut defects = Vec::new();
    let trust = if options.parents.is_empty() { Trust::Strict } else { Trust::Named };
    let parent = parent_of(file, path, options, 0, trust, &mut defects)?;
    let name = parent.as_ref().map(|(_, path)| path.display().to_string());
    let mut container = open_with_parent(file, parent.map(|(disk, _)| disk)).map_err(|e| e.in_file(path))?;
    container.info.parent = name;
    container.defects.extend(defects);
    container.defects.extend(named_otherwise(path, &container.info));
    Ok(container)
}

/// A file that is named as a container and is none: what Hyper-V and Azure make of its name is refused there.
fn named_otherwise(path: &Path, info: &ContainerInfo) -> Option<Defect> {
    const NAMES: [(&str, &str); 4] = [
        ("vhd", "footer of a VHD"),
        ("avhd", "footer of a VHD"),
        ("vhdx", "header of a VHDX"),
        ("avhdx", "header of a VHDX"),
    ];
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let (name, lacks) =
        NAMES.into_iter().find(|(name, _)| info.format == Format::Raw && *name == extension)?;
    let text = format!(
        "the file is named .{name} and has no {lacks}: it is read as a raw disk; Hyper-V and Azure refuse it"
    );
    Some(Defect::new("container-named-otherwise", Severity::Warning, Layer::Image, None, text))
}

/// The parent of `file` as a disk; `None` for a disk that needs none. `parents` are tried instead of what it names.
///
/// # Errors
/// As [`open_path`].
pub fn open_parent(file: &Disk, path: &Path, parents: &[PathBuf]) -> Result<Option<Disk>> {
    let options = OpenOptions { parents: parents.to_vec(), follow_paths: false };
    Ok(parent_of(file, path, &options, 0, Trust::Writer, &mut Vec::new())?.map(|(disk, _)| disk))
}

/// Whether a parent must be the one that its child was made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It must.
    Strict,
    /// One that was named is taken all the same, for reading.
    Named,
    /// It must, and must be sound: what a writer reads of a damaged parent goes into its child.
    Writer,
}

/// What is wrong between the image at `path` and its parents: one is missing, or is not the one that its child was made on. Neither
/// is looked into.
///
/// # Errors
/// Of the host.
pub fn check_links(path: &Path, options: &OpenOptions) -> Result<Vec<Defect>> {
    let mut defects = Vec::new();
    let (mut at, mut depth) = (path.to_path_buf(), 0);
    loop {
        let file = Disk::new(Arc::new(HostFile::open_read(&at)?));
        // What a container does not say of itself, its own check names.
        let Ok(child) = info(&file) else { return Ok(defects) };
        if child.variant != Variant::Differencing {
            return Ok(defects);
        }
        let unreadable = |e: &Error| Defect::from_error("chain-parent-missing", Severity::Error, e);
        if depth >= vmrescue_base::limits::MAX_CHAIN_DEPTH {
            return Err(Error::limit(Layer::Image, "the chain of parents does not end").in_file(path));
        }
        let parent = match locate(&child, &at, options, depth) {
            Ok(parent) => parent,
            Err(e) => {
                defects.push(unreadable(&e));
                return Ok(defects);
            }
        };
        let opened = HostFile::open_read(&parent).and_then(|file| info(&Disk::new(Arc::new(file))));
        match opened {
            Ok(found) => check_identity(&child, &found, &parent, Trust::Named, &mut defects)?,
            Err(e) => {
                defects.push(unreadable(&e.in_file(&parent)));
                return Ok(defects);
            }
        }
        (at, depth) = (parent, depth + 1);
    }
}

/// The opened parent of `file`, or `None` when it needs none.
fn parent_of(
    file: &Disk,
    path: &Path,
    options: &OpenOptions,
    depth: usize,
    trust: Trust,
    defects: &mut Vec<Defect>,
) -> Result<Option<(Disk, PathBuf)>> {
    let child = info(file).map_err(|e| e.in_file(path))?;
    if child.variant != Variant::Differencing {
        return Ok(None);
    }
    if depth >= vmrescue_base::limits::MAX_CHAIN_DEPTH {
        return Err(Error::limit(Layer::Image, "the chain of parents does not end").in_file(path));
    }
    let parent_path = locate(&child, path, options, depth)?;
    let parent_file = Disk::new(Arc::new(HostFile::open_read(&parent_path)?));
    let found = info(&parent_file).map_err(|e| e.in_file(&parent_path))?;
    check_identity(&child, &found, &parent_path, trust, defects)?;
    if trust == Trust::Writer {
        super::refuse_damaged(&parent_file).map_err(|e| e.in_file(&parent_path))?;
    }
    let parent_path = parent_path.as_path();
    let above = parent_of(&parent_file, parent_path, options, depth + 1, trust, defects)?;
    let opened = open_with_parent(&parent_file, above.map(|(disk, _)| disk))?;
    if opened.disk.len() > child.size {
        let text = "the parent is larger than its child";
        defects.push(Defect::new("chain-parent-larger", Severity::Note, Layer::Image, None, text));
    }
    Ok(Some((opened.disk, parent_path.to_path_buf())))
}

/// The parents of the image at `path`, nearest first, found as [`open_path`] finds them; none for a disk of its own.
///
/// # Errors
/// As [`open_path`].
pub fn parents(path: &Path, options: &OpenOptions) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    loop {
        let at = found.last().map_or(path, PathBuf::as_path).to_path_buf();
        let file = Disk::new(Arc::new(HostFile::open_read(&at)?));
        let child = info(&file).map_err(|e| e.in_file(&at))?;
        if child.variant != Variant::Differencing {
            return Ok(found);
        }
        if found.len() >= vmrescue_base::limits::MAX_CHAIN_DEPTH {
            return Err(Error::limit(Layer::Image, "the chain of parents does not end").in_file(path));
        }
        found.push(locate(&child, &at, options, found.len())?);
    }
}

/// Disks in the folder of the image at `path` that are its children: changing the image would break them. They are looked at
/// without a lock: a machine that runs on a child must be seen too.
///
/// # Errors
/// `Refused` when a file cannot be read or understood, so that it may be a child; of reading the folder.
pub fn children(path: &Path, info: &ContainerInfo) -> Result<Vec<PathBuf>> {
    let Some(identity) = &info.content_identity else { return Ok(Vec::new()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unknown = |e: Error, what: &Path| {
        Error::refused(Layer::Image, "cannot tell whether this is a differencing disk of the image")
            .in_file(what)
            .caused_by(e)
            .advice("make it readable, or move it to another folder when it does not belong to the image")
    };
    let failed = |e| unknown(Error::io("cannot be read", folder, e), folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let other = entry.map_err(failed)?.path();
        let extension = other.extension().unwrap_or_default().to_ascii_lowercase();
        let may_be = ["vhd", "vhdx", "avhd", "avhdx"].iter().any(|known| extension == *known);
        // A folder or a pipe with such a name is nobody's child.
        let is_no_file = || std::fs::metadata(&other).is_ok_and(|found| !found.is_file());
        if !may_be || other.file_name() == path.file_name() || is_no_file() {
            continue;
        }
        let looked = HostFile::peek(&other).and_then(|file| {
            let file = Disk::new(Arc::new(file));
            // An archive with such a name is nobody's child.
            if super::foreign::is_foreign(&file)? { Ok(None) } else { super::info(&file).map(Some) }
        });
        match looked {
            Ok(None) => {}
            Ok(Some(child))
                if child.variant == Variant::Differencing
                    && child.parent_identity.as_ref() == Some(identity) =>
            {
                found.push(other);
            }
            Ok(Some(_)) => {}
            // Removed since the folder was listed, or a link that leads nowhere.
            Err(e) if e.kind() == vmrescue_base::error::ErrorKind::NotFound => {}
            Err(e) => return Err(unknown(e, &other)),
        }
    }
    found.sort();
    Ok(found)
}

/// The file of a child's parent.
fn locate(child: &ContainerInfo, path: &Path, options: &OpenOptions, depth: usize) -> Result<PathBuf> {
    let tried = match options.parents.get(depth) {
        Some(named) => vec![named.clone()],
        None => candidates(path, &child.parent_hints, options.follow_paths),
    };
    tried.iter().find(|candidate| candidate.is_file()).cloned().ok_or_else(|| {
        let places: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
        Error::not_found(Layer::Image, "the parent of a differencing disk is missing")
            .in_file(path)
            .expected(places.join(" or "))
            .found(format!("the disk names {}", child.parent_hints.join(", ")))
            .advice("put the parent into the same folder, name it with --parent, or allow other folders with --follow-paths")
    })
}

/// Refuses a parent that is not the one that the child was made on, or names it as a defect when the caller chose it.
fn check_identity(
    child: &ContainerInfo,
    found: &ContainerInfo,
    parent_path: &Path,
    trust: Trust,
    defects: &mut Vec<Defect>,
) -> Result<()> {
    if let (Some(wanted), Some(identity)) = (&child.parent_identity, &found.content_identity)
        && wanted != identity
    {
        let wrong = Error::damaged(Layer::Image, "this is not the parent that the child was made on")
            .in_file(parent_path)
            .expected(wanted)
            .found(identity)
            .advice("the parent was changed after the child was made, or it is another disk; to look at it all the same (read-only), name it with --parent");
        if trust != Trust::Named {
            return Err(wrong);
        }
        defects.push(Defect::from_error("chain-parent-changed", Severity::Error, &wrong));
    }
    // Some programs store the time of the file there, which a copy changes: odd, but no proof. Windows stores none (0).
    if let (Some(wanted), Some(time)) = (child.parent_time, found.time)
        && wanted != time
        && wanted != 0
    {
        let text = format!("the child remembers another time of its parent ({wanted}, found {time})");
        defects.push(Defect::new("chain-parent-time", Severity::Note, Layer::Image, None, text));
    }
    Ok(())
}

/// Places where the parent may be.
fn candidates(child: &Path, hints: &[String], follow: bool) -> Vec<PathBuf> {
    let folder = child.parent().unwrap_or(Path::new(""));
    let mut places: Vec<PathBuf> = Vec::new();
    for hint in hints {
        let relative = hint.strip_prefix(".\\").unwrap_or(hint).replace('\\', "/");
        // Without leave no path leads out of the image's folder.
        let inside = !relative.starts_with('/')
            && !relative.contains(':')
            && !relative.split('/').any(|part| part == "..");
        if follow || inside {
            places.push(folder.join(&relative));
        }
        if let Some(name) = hint.rsplit(['\\', '/']).next().filter(|name| !name.is_empty() && *name != "..") {
            places.push(folder.join(name));
        }
    }
    places.dedup();
    places
}
