//! Merges a differencing disk into its parent, as one operation on the parent that can be undone.

use super::{Changed, DiskOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Disk, DiskMut, ExtentKind, HostFile};
use vmrescue_image as image;
use vmrescue_transaction::{View, refuse_pending};

/// Bytes that are compared at once.
const CHUNK_BYTES: u64 = 1 << 20;
/// Bytes that are written when one of them differs.
const PIECE_BYTES: usize = 4096;

/// What merging did.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The parent that now holds the child's content.
    pub parent: PathBuf,
    /// The operation on the parent; without one the child held nothing that differs, or nothing was to be published.
    pub changed: Changed,
    /// Bytes of the virtual disk that were written.
    pub bytes: u64,
}

/// Writes what the child at `path` holds into its parent. The child stays, but is no longer valid on the changed
/// parent (on a VHDX it is refused from then on); removing it is for the caller.
///
/// # Errors
/// `Invalid` for a disk that is no child; `Refused` when another disk of the folder is a child of the same parent;
/// of the transaction. The parent is the old one or the merged one, never between.
pub fn merge(path: &Path, options: &DiskOptions, progress: &dyn Progress) -> Result<Merged> {
    let child_file = Disk::new(Arc::new(HostFile::open_read(path)?));
    let child = image::info(&child_file).map_err(|e| e.in_file(path))?;
    let chain = image::parents(path, &options.opening())?;
    let Some(parent) = chain.first().cloned() else {
        return Err(Error::invalid(Layer::Image, "only a differencing disk can be merged").in_file(path));
    };
    // Checks identities all the way up, before anything is staged.
    image::open_path(path, &options.opening())?;
    if let Some(own) = image::children(path, &child)?.first() {
        return Err(Error::refused(
            Layer::Image,
            "the disk has a child of its own, which the merge would break",
        )
        .in_file(own)
        .advice("merge that one first: a chain is merged from its end"));
    }
    refuse_pending(path)?;
    refuse_siblings(path, &parent)?;
    let locked = options.lock(&parent, Some(path.to_path_buf()))?;
    let above = image::open_parent(&locked.before(), &parent, &chain[1..])?;
    let before = image::open_with_parent(&locked.before(), above.clone())?.disk;
    if before.len() < child.size {
        return Err(Error::refused(Layer::Image, "the child is larger than its parent")
            .in_file(&parent)
            .expected(format!("{} bytes", child.size))
            .found(before.len())
            .advice("make the parent larger first: vmrescue disk resize"));
    }
    let view = image::open_with_parent(&child_file, Some(before.clone()))?.disk;
    if !options.consent.is_given(&format!("Merge {} into {}?", path.display(), parent.display()))? {
        return Ok(Merged { parent, changed: Changed::declined(), bytes: 0 });
    }
    let tx = locked.stage();
    let target = image::open_mut(&tx.file(), above.clone())?.disk;
    let bytes = copy_differences(&view, &before, &target, progress)?;
    let title = format!("merge {}", path.display());
    let record =
        options.record(&title, serde_json::json!([{"change": "merge", "child": path, "bytes": bytes}]));
    drop(target);
    let look = |staged: &View| {
        let merged = image::open_with_parent(&staged.staged, above)?.disk;
        super::refuse_other_content(&merged, &view, 0..view.len(), &[], progress)
    };
    let changed = options.publish(tx, look, record, progress)?;
    Ok(Merged { parent, changed, bytes })
}

/// Other children of the same parent would be broken by the merge.
fn refuse_siblings(child: &Path, parent: &Path) -> Result<()> {
    let same = |a: &Path, b: &Path| {
        std::fs::canonicalize(a).ok().is_some_and(|a| std::fs::canonicalize(b).ok() == Some(a))
    };
    let file = Disk::new(Arc::new(HostFile::open_read(parent)?));
    let others = image::children(parent, &image::info(&file)?)?;
    match others.iter().find(|other| !same(other, child)) {
        None => Ok(()),
        Some(other) => Err(Error::refused(Layer::Image, "another disk is a child of the same parent")
            .in_file(other)
            .advice("merging would break it; move it away or merge it elsewhere first")),
    }
}

/// Writes into `target` where the child's `view` differs from what the parent held `before`.
fn copy_differences(view: &Disk, before: &Disk, target: &DiskMut, progress: &dyn Progress) -> Result<u64> {
    progress.begin("merging", Some(view.len()));
    let (mut offset, mut written) = (0, 0);
    while offset < view.len() {
        let extent = view.extent_at(offset)?;
        if extent.kind == ExtentKind::Absent {
            offset += extent.length_bytes;
            progress.advance(extent.length_bytes);
            continue;
        }
        let count = extent.length_bytes.min(CHUNK_BYTES);
        let (new, old) = (view.read_vec(offset, count as usize)?, before.read_vec(offset, count as usize)?);
        for at in (0..new.len()).step_by(PIECE_BYTES) {
            let end = (at + PIECE_BYTES).min(new.len());
            if new[at..end] != old[at..end] {
                target.write_at(offset + at as u64, &new[at..end])?;
                written += (end - at) as u64;
            }
        }
        offset += count;
        progress.advance(count);
    }
    progress.end();
    Ok(written)
}
