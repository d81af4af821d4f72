//! Differencing disks with their parents.
//!
//! A disk says where its parent is, and a guest may lie: only the file name of a hint is trusted, looked for in the
//! image's own folder, unless the caller allows more or names the parent.

use super::{Container, Variant, info, open_with_parent};
use crate::block::{Disk, HostFile};
use crate::error::{Defect, Error, Layer, Result, Severity};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// As [`open_path`], for a file that is open already (a transaction's).
///
/// # Errors
/// As [`open_path`].
pub fn open_file(file: &Disk, path: &Path, options: &OpenOptions) -> Result<Container<Disk>> {
    let mut defects = Vec::new();
    let parent = parent_of(file, path, options, 0, &mut defects)?;
    let name = parent.as_ref().map(|(_, path)| path.display().to_string());
    let mut container = open_with_parent(file, parent.map(|(disk, _)| disk)).map_err(|e| e.in_file(path))?;
    container.info.parent = name;
    container.defects.extend(defects);
    Ok(container)
}

/// The parent of `file` as a disk; `None` for a disk that needs none. `parents` are tried instead of what it names.
///
/// # Errors
/// As [`open_path`].
pub fn open_parent(file: &Disk, path: &Path, parents: &[PathBuf]) -> Result<Option<Disk>> {
    let options = OpenOptions { parents: parents.to_vec(), follow_paths: false };
    Ok(parent_of(file, path, &options, 0, &mut Vec::new())?.map(|(disk, _)| disk))
}

/// The opened parent of `file`, or `None` when it needs none.
fn parent_of(
    file: &Disk,
    path: &Path,
    options: &OpenOptions,
    depth: usize,
    defects: &mut Vec<Defect>,
) -> Result<Option<(Disk, PathBuf)>> {
    let child = info(file).map_err(|e| e.in_file(path))?;
    if child.variant != Variant::Differencing {
        return Ok(None);
    }
    if depth >= crate::limits::MAX_CHAIN_DEPTH {
        return Err(Error::limit(Layer::Image, "the chain of parents does not end").in_file(path));
    }
    let tried = match options.parents.get(depth) {
        Some(named) => vec![named.clone()],
        None => candidates(path, &child.parent_hints, options.follow_paths),
    };
    let Some(parent_path) = tried.iter().find(|candidate| candidate.is_file()) else {
        let places: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::not_found(Layer::Image, "the parent of a differencing disk is missing")
            .in_file(path)
            .expected(places.join(" or "))
            .found(format!("the disk names {}", child.parent_hints.join(", ")))
            .advice("put the parent into the same folder, or name it with --parent"));
    };
    let parent_file = Disk::new(Arc::new(HostFile::open_read(parent_path)?));
    let found = info(&parent_file).map_err(|e| e.in_file(parent_path))?;
    if let (Some(wanted), Some(identity)) = (&child.parent_identity, &found.content_identity)
        && wanted != identity
    {
        return Err(Error::damaged(Layer::Image, "this is not the parent that the child was made on")
            .in_file(parent_path)
            .expected(wanted)
            .found(identity)
            .advice("the parent was changed after the child was made, or it is another disk"));
    }
    let above = parent_of(&parent_file, parent_path, options, depth + 1, defects)?;
    let opened = open_with_parent(&parent_file, above.map(|(disk, _)| disk))?;
    if opened.disk.len() > child.size {
        let text = "the parent is larger than its child";
        defects.push(Defect::new("chain-parent-larger", Severity::Note, Layer::Image, None, text));
    }
    Ok(Some((opened.disk, parent_path.clone())))
}

/// Places where the parent may be.
fn candidates(child: &Path, hints: &[String], follow: bool) -> Vec<PathBuf> {
    let folder = child.parent().unwrap_or(Path::new(""));
    let mut places: Vec<PathBuf> = Vec::new();
    for hint in hints {
        if follow {
            let relative = hint.strip_prefix(".\\").unwrap_or(hint).replace('\\', "/");
            places.push(folder.join(relative));
        }
        if let Some(name) = hint.rsplit(['\\', '/']).next().filter(|name| !name.is_empty() && *name != "..") {
            places.push(folder.join(name));
        }
    }
    places.dedup();
    places
}
