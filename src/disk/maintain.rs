//! Compacting and resizing, each one operation on the image that can be undone.

use super::DiskOptions;
use std::ops::Range;
use std::path::Path;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::Disk;
use vmrescue_image as image;
use vmrescue_image::Compacted;
use vmrescue_partition as partition;
use vmrescue_partition::TableKind;
use vmrescue_transaction::{OperationId, Transaction, TransactionOptions};

fn begin(path: &Path, options: &DiskOptions) -> Result<Transaction> {
    let state_dir = options.state_dir.clone();
    Transaction::begin(path, &TransactionOptions { state_dir, ..TransactionOptions::default() })
}

/// Gives back the blocks that hold nothing: zeros, and (unless `zeros_only`) what the file systems say is free.
///
/// # Errors
/// Of [`image::compact`] and the transaction.
pub fn compact(
    path: &Path,
    zeros_only: bool,
    options: &DiskOptions,
    progress: &dyn Progress,
) -> Result<(Compacted, Option<OperationId>)> {
    let tx = begin(path, options)?;
    let parent = image::open_parent(&tx.before(), path, &options.parents)?;
    let disk = image::open_with_parent(&tx.before(), parent.clone())?.disk;
    let free = if zeros_only || parent.is_some() { Vec::new() } else { free_ranges(&disk)? };
    progress.begin("looking for empty blocks", None);
    let done = image::compact(&tx.file(), parent, &free)?;
    progress.end();
    let record = options.record(
        "compact the disk",
        serde_json::json!([{"change": "compact", "before": done.before, "after": done.after}]),
    );
    if done.dropped_blocks == 0 && done.after == done.before {
        return Ok((done, None));
    }
    Ok((done, tx.publish(record, progress)?))
}

/// What the file systems of the disk do not use, as ranges of the disk. Volumes that are not clean are left out.
fn free_ranges(disk: &Disk) -> Result<Vec<Range<u64>>> {
    let table = partition::read(disk)?;
    let mut places: Vec<Range<u64>> = table.partitions.iter().map(|p| p.range.clone()).collect();
    if table.kind == TableKind::None {
        places.push(0..disk.len());
    }
    let mut free = Vec::new();
    for place in places {
        let Ok(fs) = disk.window(place.clone()).and_then(vmrescue_fs::open) else { continue };
        if fs.info().dirty {
            continue;
        }
        free.extend(
            fs.free_ranges()?.into_iter().map(|range| place.start + range.start..place.start + range.end),
        );
    }
    free.sort_by_key(|range| range.start);
    Ok(free)
}

/// Makes the virtual disk `size` bytes long. Cutting is refused where a partition would lose something; the second
/// copy of a GPT moves to the new end. Partitions and file systems keep their sizes.
///
/// # Errors
/// `Refused` when a partition lies beyond the new end; of [`image::resize`] and the transaction.
pub fn resize(
    path: &Path,
    size: u64,
    options: &DiskOptions,
    progress: &dyn Progress,
) -> Result<Option<OperationId>> {
    let tx = begin(path, options)?;
    let parent = image::open_parent(&tx.before(), path, &options.parents)?;
    let disk = image::open_with_parent(&tx.before(), parent.clone())?.disk;
    let table = partition::read(&disk)?;
    let last = table.partitions.iter().map(|p| p.range.end).max().unwrap_or(0);
    // The second copy of a GPT: a header and 128 entries, in whole sectors.
    let tail = if table.kind == TableKind::Gpt { u64::from(table.sector_bytes) + (16 << 10) } else { 0 };
    let needed = if table.kind == TableKind::None { disk.len() } else { last + tail };
    if size < disk.len() && size < needed {
        return Err(Error::refused(Layer::Image, "the disk would be cut inside its last partition")
            .in_file(path)
            .at(last)
            .expected(format!("at least {needed} bytes"))
            .found(size)
            .advice("shrink the partition inside the guest first"));
    }
    image::resize(&tx.file(), size)?;
    if table.kind == TableKind::Gpt && size != disk.len() {
        let target = image::open_mut(&tx.file(), parent)?.disk;
        partition::repair_gpt(&target)?;
    }
    let changes = serde_json::json!([{"change": "resize", "before": disk.len(), "after": size}]);
    tx.publish(options.record(&format!("resize the disk to {size} bytes"), changes), progress)
}
