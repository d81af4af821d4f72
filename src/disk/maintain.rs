//! Compacting and resizing, each one operation on the image that can be undone.

use super::{Changed, DiskOptions};
use std::ops::Range;
use std::path::Path;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::Disk;
use vmrescue_fs::shadow::{Shadows, without};
use vmrescue_image as image;
use vmrescue_image::Compacted;
use vmrescue_partition as partition;
use vmrescue_partition::{MICROSOFT_RESERVED, Partition, TableKind};
use vmrescue_transaction::View;

/// Gives back the blocks that hold nothing: zeros, and (unless `zeros_only`) what the file systems say is free.
///
/// # Errors
/// Of [`image::compact`] and the transaction.
pub fn compact(
    path: &Path,
    zeros_only: bool,
    options: &DiskOptions,
    progress: &dyn Progress,
) -> Result<(Compacted, Changed)> {
    let locked = options.lock(path, None)?;
    let parent = image::open_parent(&locked.before(), path, &options.parents)?;
    let disk = image::open_with_parent(&locked.before(), parent.clone())?.disk;
    let mut left = Vec::new();
    let free = if zeros_only || parent.is_some() { Vec::new() } else { free_ranges(&disk, &mut left)? };
    if !options.consent.is_given("Give back the blocks that hold nothing?")? {
        let unchanged = locked.before().len();
        return Ok((
            Compacted { before: unchanged, after: unchanged, dropped_blocks: 0 },
            Changed::declined(),
        ));
    }
    let tx = locked.stage();
    progress.begin("looking for empty blocks", None);
    let done = image::compact(&tx.file(), parent.clone(), &free)?;
    progress.end();
    if done.dropped_blocks == 0 && done.after == done.before {
        return Ok((done, Changed { notes: left, ..Changed::default() }));
    }
    let record = options.record(
        "compact the disk",
        serde_json::json!([{"change": "compact", "before": done.before, "after": done.after}]),
    );
    let look = |view: &View| {
        let after = image::open_with_parent(&view.staged, parent)?.disk;
        same_length(&after, disk.len())?;
        // What is free holds nothing, and may read as zero.
        super::refuse_other_content(&after, &disk, 0..disk.len(), &free, progress)
    };
    let changed = options.publish(tx, look, record, progress)?;
    Ok((done, Changed { notes: left, ..changed }))
}

fn same_length(disk: &Disk, length: u64) -> Result<()> {
    if disk.len() == length {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Disagreement, Layer::Verify, "the disk would have another length")
        .expected(length)
        .found(disk.len())
        .advice("nothing was written; please report this"))
}

/// What neither the file systems of the disk nor shadow copies use, as ranges of the disk. A volume that cannot be read, is not clean, or may go
/// on on other disks keeps all that it has: `left` says so.
fn free_ranges(disk: &Disk, left: &mut Vec<String>) -> Result<Vec<Range<u64>>> {
    let table = partition::read(disk)?;
    // Windows keeps that partition without a file system.
    let has_volume = |part: &&Partition| part.type_guid != Some(MICROSOFT_RESERVED);
    let mut places: Vec<(Range<u64>, Option<&str>)> = table
        .partitions
        .iter()
        .filter(has_volume)
        .map(|part| (part.range.clone(), part.member_of()))
        .collect();
    if table.kind == TableKind::None {
        places.push((0..disk.len(), None));
    }
    let mut free = Vec::new();
    for (place, set) in places {
        match if set.is_some() { Ok(Vec::new()) } else { free_in(disk, &place) } {
            Ok(ranges) => {
                free.extend(
                    ranges.into_iter().map(|range| place.start + range.start..place.start + range.end),
                );
            }
            Err(e) => {
                left.push(format!(
                    "the free space of the volume at {:#x} is not given back: {e}",
                    place.start
                ));
            }
        }
        left.extend(set.map(|set| {
            format!(
                "the free space of the volume at {:#x} is not given back: it is part of {set}",
                place.start
            )
        }));
    }
    free.sort_by_key(|range| range.start);
    Ok(free)
}

fn free_in(disk: &Disk, place: &Range<u64>) -> Result<Vec<Range<u64>>> {
    let fs = vmrescue_fs::open(disk.window(place.clone())?)?;
    if fs.info().dirty {
        return Err(Error::refused(Layer::Image, "it was not left cleanly"));
    }
    let mut own = fs.free_ranges()?;
    own.sort_by_key(|range| range.start);
    // Shadow copies need what the volume has removed since; where they cannot be read, nobody knows what they need.
    match Shadows::open(&disk.window(place.clone())?)? {
        None => Ok(own),
        Some(shadows) => Ok(without(own, &shadows.all_uses()?)),
    }
}

/// Makes the virtual disk `size` bytes long. Cutting is refused where a partition would lose something; the second
/// copy of a GPT moves to the new end. Partitions and file systems keep their sizes.
///
/// # Errors
/// `Refused` when a partition lies beyond the new end; of [`image::resize`] and the transaction.
pub fn resize(path: &Path, size: u64, options: &DiskOptions, progress: &dyn Progress) -> Result<Changed> {
    let locked = options.lock(path, None)?;
    let parent = image::open_parent(&locked.before(), path, &options.parents)?;
    let disk = image::open_with_parent(&locked.before(), parent.clone())?.disk;
    let table = partition::read(&disk)?;
    if let Some((part, set)) = table.partitions.iter().find_map(|part| Some((part, part.member_of()?))) {
        return Err(Error::refused(Layer::Image, format!("this disk is part of {set}"))
            .in_file(path)
            .at(part.range.start)
            .advice("what keeps the set together lies at the end of the disk; resize it where the whole set is attached"));
    }
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
    let question = format!("Make the disk {size} bytes long ({} now)?", disk.len());
    if !options.consent.is_given(&question)? {
        return Ok(Changed::declined());
    }
    let tx = locked.stage();
    image::resize(&tx.file(), size)?;
    if table.kind == TableKind::Gpt && size != disk.len() {
        let target = image::open_mut(&tx.file(), parent.clone())?.disk;
        partition::repair_gpt(&target)?;
    }
    let changes = serde_json::json!([{"change": "resize", "before": disk.len(), "after": size}]);
    let look = |view: &View| {
        let after = image::open_with_parent(&view.staged, parent)?.disk;
        // Containers round up to whole sectors or blocks of their own.
        if after.len() < size {
            same_length(&after, size)?;
        }
        let now = partition::read(&after)?;
        let ranges = |table: &partition::Table| -> Vec<Range<u64>> {
            table.partitions.iter().map(|partition| partition.range.clone()).collect()
        };
        if now.kind != table.kind || ranges(&now) != ranges(&table) {
            return Err(Error::new(
                ErrorKind::Disagreement,
                Layer::Verify,
                "the disk would have other partitions",
            )
            .advice("nothing was written; please report this"));
        }
        if table.partitions.is_empty() {
            return super::refuse_other_content(&after, &disk, 0..disk.len().min(size), &[], progress);
        }
        let whole = ranges(&table).into_iter();
        whole
            .into_iter()
            .try_for_each(|range| super::refuse_other_content(&after, &disk, range, &[], progress))
    };
    let record = options.record(&format!("resize the disk to {size} bytes"), changes);
    options.publish(tx, look, record, progress)
}
