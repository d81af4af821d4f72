//! Which images a job means: patterns, folders, lists; and what must not be among them.

use super::job::Job;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::fits;
use vmrescue_block::{Disk, HostFile};
use vmrescue_image as image;

/// The images of a job, in its order: patterns with `*`, `?` and `**`, folders of disks, lists (`@FILE`, a path a line),
/// without those that the job leaves out or that belong to other shards.
///
/// # Errors
/// `Refused` when an image is named twice or is the parent of another one; `NotFound` for a pattern that nothing fits.
pub fn plan_images(job: &Job) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for text in &job.images {
        let path = Path::new(text);
        if let Some(list) = text.strip_prefix('@') {
            let lines =
                std::fs::read_to_string(list).map_err(|e| Error::io("the list cannot be read", list, e))?;
            images.extend(lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(PathBuf::from));
        } else if path.is_dir() {
            images.extend(disks_of(path)?);
        } else if text.contains(['*', '?']) && !path.exists() {
            let found = expand(path);
            if found.is_empty() {
                return Err(Error::not_found(Layer::Batch, "no image fits the pattern").found(text));
            }
            images.extend(found);
        } else {
            images.push(path.to_path_buf());
        }
    }
    refuse_twice_and_parents(&images)?;
    let shard = job.shard_of()?;
    images.retain(|image| {
        job.work_of(image).is_some() && shard.is_none_or(|(own, count)| bucket(image, count) == own - 1)
    });
    Ok(images)
}

/// Which part of `count` an image belongs to; the same on every machine that names it the same.
fn bucket(image: &Path, count: u64) -> u64 {
    let hash = Sha256::digest(image.to_string_lossy().as_bytes());
    hash.iter().take(8).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)) % count
}

fn is_disk(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let named = ["vhd", "vhdx", "avhd", "avhdx", "img", "raw"].iter().any(|known| extension == *known);
    // One that cannot be opened is an image, too: its worker says why.
    named && !path.is_dir() && !HostFile::peek(path).is_ok_and(|file| Disk::new(Arc::new(file)).is_empty())
}

/// The disks of a folder: of each chain the last child only, which shows the machine as it is now.
fn disks_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = names_in(folder)
        .map_err(|e| Error::io("cannot be read", folder, e))?
        .into_iter()
        .map(|name| folder.join(name))
        .filter(|path| is_disk(path))
        .collect::<Vec<_>>();
    let parents: Vec<PathBuf> = found
        .iter()
        .flat_map(|image| image::parents(image, &image::OpenOptions::default()).unwrap_or_default())
        .map(|parent| std::fs::canonicalize(&parent).unwrap_or(parent))
        .collect();
    found.retain(|image| !std::fs::canonicalize(image).is_ok_and(|real| parents.contains(&real)));
    if found.is_empty() {
        return Err(Error::not_found(Layer::Batch, "no disk images in this folder")
            .in_file(folder)
            .advice("images are files named .vhd, .vhdx, .avhd, .avhdx, .raw, .img; folders below are not searched, a pattern such as 'DIR/**/*.vhdx' is"));
    }
    Ok(found)
}

fn names_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// Files that fit a pattern, sorted.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let parts: Vec<Component<'_>> = pattern.components().collect();
    let mut found = Vec::new();
    expand_from(PathBuf::new(), &parts, &mut found);
    found.retain(|path| path.is_file());
    found.sort();
    found.dedup();
    found
}

fn expand_from(base: PathBuf, parts: &[Component<'_>], found: &mut Vec<PathBuf>) {
    let Some((first, rest)) = parts.split_first() else {
        found.push(base);
        return;
    };
    let text = first.as_os_str().to_string_lossy();
    if !text.contains(['*', '?']) {
        return expand_from(base.join(first), rest, found);
    }
    let any_depth = text == "**";
    if any_depth {
        expand_from(base.clone(), rest, found);
    }
    for name in names_in(&base).unwrap_or_default() {
        let path = base.join(&name);
        if any_depth {
            // A link to a folder could lead in a circle.
            if path.is_dir() && !path.is_symlink() {
                expand_from(path, parts, found);
            }
        } else if fits(&text, &name) {
            expand_from(path, rest, found);
        }
    }
}

fn refuse_twice_and_parents(images: &[PathBuf]) -> Result<()> {
    let mut seen: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for image in images {
        let real = std::fs::canonicalize(image).unwrap_or_else(|_| image.clone());
        if let Some(first) = seen.insert(real, image.clone()) {
            return Err(Error::refused(Layer::Batch, "an image is named twice")
                .in_file(image)
                .found(first.display())
                .advice("name it once: two workers on one disk would destroy it"));
        }
    }
    for image in images {
        for parent in image::parents(image, &image::OpenOptions::default()).unwrap_or_default() {
            let real = std::fs::canonicalize(&parent).unwrap_or(parent);
            if seen.contains_key(&real) {
                return Err(Error::refused(Layer::Batch, "an image is the parent of another one")
                    .in_file(&real)
                    .found(image.display())
                    .advice("name the child only: it shows the machine as it is now"));
            }
        }
    }
    Ok(())
}
