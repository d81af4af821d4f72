//! The checker. It holds a [`Volume`], which cannot write.

use super::volume::Volume;
use crate::error::{Defect, Layer, Result, Severity};
use crate::progress::Progress;

/// Looks at everything.
pub(crate) fn check(volume: &Volume, progress: &dyn Progress) -> Result<Vec<Defect>> {
    let mut defects = Vec::new();
    progress.begin("checking boot sector", None);
    boot_copy(volume, &mut defects)?;
    progress.end();
    Ok(defects)
}

fn boot_copy(volume: &Volume, defects: &mut Vec<Defect>) -> Result<()> {
    let boot = volume.boot();
    let length = boot.sector_bytes as usize;
    let (at, first) = (boot.copy_offset(), volume.disk().read_vec(0, length)?);
    if at.checked_add(length as u64).is_none_or(|end| end > volume.disk().len()) {
        return Ok(()); // an image that was cut at the end of the volume
    }
    if volume.disk().read_vec(at, length)? != first {
        let detail = "the copy of the boot sector in the last sector differs from the first one";
        defects.push(Defect::new("ntfs-boot-copy", Severity::Warning, Layer::Ntfs, at, detail));
    }
    Ok(())
}
