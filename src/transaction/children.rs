//! Differencing disks that a change of their parent would break: whoever changes an image looks for them first.
//!
//! They are looked for in the folder of the image, by the identity that each says its parent had. What cannot be told is
//! refused. A child in another folder is not found.

use std::path::Path;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::Disk;
use vmrescue_image as image;

/// Refuses to change an image that is, or may be, the parent of a differencing disk other than `allowed`.
///
/// # Errors
/// `Refused`; of the host.
pub fn refuse_children(path: &Path, file: &Disk, allowed: Option<&Path>) -> Result<()> {
    refuse_in(path, file, allowed)
}

pub(super) fn refuse_in(path: &Path, file: &Disk, allowed: Option<&Path>) -> Result<()> {
    // A file that is no container, or none that can be understood, has no identity that a child could remember.
    let Ok(info) = image::info(file) else { return Ok(()) };
    let same = |a: &Path, b: &Path| {
        std::fs::canonicalize(a).is_ok_and(|a| std::fs::canonicalize(b).is_ok_and(|b| a == b))
    };
    let found = image::children(&super::locate::resolved(path), &info)?;
    match found.iter().find(|child| !allowed.is_some_and(|allowed| same(allowed, child))) {
        None => Ok(()),
        Some(child) => Err(Error::refused(
            Layer::Image,
            "the image is the parent of a differencing disk, which a change would break",
        )
        .in_file(child)
        .advice("work on the child instead: it shows the same machine, as it is now")),
    }
}
