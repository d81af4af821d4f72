//! New disks: empty ones, and children of an image that stays as it is.

use super::NewFile;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{Disk, HostFile, OutputRules};
use vmrescue_image as image;
use vmrescue_image::{ContainerInfo, CreateSpec};

/// Makes an empty disk.
///
/// # Errors
/// `AlreadyExists`; `Invalid` for sizes that the format cannot hold.
pub fn create_disk(path: &Path, spec: &CreateSpec) -> Result<()> {
    let new = NewFile::create(path, &OutputRules::new(false))?;
    image::create(new.file(), spec)?;
    new.finish()
}

/// Begins a child of the image at `parent`; the caller may write into it before it is finished.
///
/// # Errors
/// `AlreadyExists`; `Invalid` for parents that can have no child.
pub fn child_of(parent: &Path, child: &Path) -> Result<NewFile> {
    let info = parent_info(parent)?;
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|e| Error::io("the path cannot be made absolute", path, e))
    };
    let (parent, child_path) = (absolute(parent)?, absolute(child)?);
    let folder = child_path.parent().unwrap_or(Path::new("/"));
    let new = NewFile::create(child, &OutputRules::new(false).of_image(&parent)?)?;
    image::create_child(
        new.file(),
        &info,
        &windows_text(&relative(folder, &parent)),
        &windows_text(&parent),
    )?;
    Ok(new)
}

/// Fails where [`child_of`] would fail, and makes nothing.
///
/// # Errors
/// As [`child_of`].
pub fn check_child(parent: &Path, child: &Path) -> Result<()> {
    parent_info(parent)?;
    OutputRules::new(false).of_image(parent)?.check(child)
}

/// What a child of the image at `parent` has to know of it.
///
/// # Errors
/// `Invalid` for kinds that can have no child; `Refused` for a parent that would still change.
pub fn parent_info(parent: &Path) -> Result<ContainerInfo> {
    let file = Disk::new(Arc::new(HostFile::open_read(parent)?));
    // A child shows what its parent holds: that must be one of its states, all the way up. A chain that cannot be followed is
    // refused by whoever opens it.
    vmrescue_transaction::refuse_pending(parent)?;
    for above in image::parents(parent, &image::OpenOptions::default()).unwrap_or_default() {
        vmrescue_transaction::refuse_pending(&above)?;
    }
    let info = image::info(&file).map_err(|e| e.in_file(parent))?;
    if info.log_replayed {
        return Err(Error::refused(Layer::Image, "the parent was not closed cleanly: its log is not empty")
            .in_file(parent)
            .advice("let a repair publish into it once, or convert it; a child needs a parent that does not change"));
    }
    image::can_have_child(&info)?;
    image::refuse_damaged(&file).map_err(|e| e.in_file(parent))?;
    Ok(info)
}

/// The way from a folder to a file, both absolute.
fn relative(folder: &Path, file: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (folder.components().collect(), file.components().collect());
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from.len() - same;
    let start = if up == 0 { PathBuf::from(".") } else { PathBuf::new() };
    let ups = std::iter::repeat_n(Component::ParentDir, up);
    ups.chain(to[same..].iter().copied()).fold(start, |path, part| path.join(part))
}

/// A path with backslashes, as Windows reads it.
fn windows_text(path: &Path) -> String {
    path.to_string_lossy().replace('/', "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_parent_is_short() {
        let way = |from: &str, to: &str| windows_text(&relative(Path::new(from), Path::new(to)));
        assert_eq!(way("/vm/a", "/vm/a/base.vhdx"), r".\base.vhdx");
        assert_eq!(way("/vm/a/try", "/vm/base.vhdx"), r"..\..\base.vhdx");
    }
}
