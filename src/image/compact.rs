//! Gives unused space of a container back: empty blocks are forgotten, blocks at the end move into the holes, the file is
//! cut. Works on a staged file, so that publishing it is one journaled operation that can be undone.

use super::{Format, Variant, info, vhd, vhdx};
use std::ops::Range;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{Disk, DiskMut};

/// What compacting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Length of the file before, in bytes.
    pub before: u64,
    /// Length of the file after, in bytes.
    pub after: u64,
    /// Blocks that held nothing.
    pub dropped_blocks: u64,
}

/// Compacts the container in the staged `file`. `free` are ranges of the virtual disk, in order, whose content nobody
/// needs: a block that lies inside one reads as zero afterwards.
///
/// # Errors
/// `Invalid` for kinds that keep all of their blocks; `Damaged` when blocks overlap.
pub fn compact(file: &DiskMut, parent: Option<Disk>, free: &[Range<u64>]) -> Result<Compacted> {
    let info = info(&file.as_disk())?;
    if matches!(info.variant, Variant::Raw | Variant::Fixed) {
        return Err(Error::invalid(Layer::Image, "this kind of disk keeps all of its blocks")
            .advice("convert it into a dynamic one: vmrescue disk convert"));
    }
    if let Some(bad) =
        super::check(&file.as_disk())?.iter().find(|d| d.severity == vmrescue_base::Severity::Error)
    {
        return Err(Error::damaged(Layer::Image, "a damaged container is not compacted").found(bad));
    }
    let is_free = |range: Range<u64>| {
        let at = free.partition_point(|free| free.end <= range.start);
        free.get(at).is_some_and(|free| free.start <= range.start && range.end <= free.end)
    };
    let before = file.len();
    let dropped_blocks = match info.format {
        Format::Vhd => vhd::compact(file, parent, &is_free)?,
        _ => vhdx::compact(file, parent, &is_free)?,
    };
    Ok(Compacted { before, after: file.len(), dropped_blocks })
}

/// The holes between `taken` ranges, in order, up to `end`.
pub(super) fn gaps(mut taken: Vec<Range<u64>>, end: u64) -> Vec<Range<u64>> {
    taken.sort_by_key(|range| range.start);
    let (mut gaps, mut at) = (Vec::new(), 0);
    for range in taken {
        if range.start > at {
            gaps.push(at..range.start);
        }
        at = at.max(range.end);
    }
    if at < end {
        gaps.push(at..end);
    }
    gaps
}

/// Takes `bytes` out of the first hole ahead of `before` that has room.
pub(super) fn take(gaps: &mut [Range<u64>], bytes: u64, before: u64) -> Option<u64> {
    let gap = gaps.iter_mut().find(|gap| gap.end - gap.start >= bytes && gap.start + bytes <= before)?;
    let place = gap.start;
    gap.start += bytes;
    Some(place)
}

/// Copies bytes to a place that they do not overlap.
pub(super) fn move_bytes(file: &DiskMut, from: u64, to: u64, bytes: u64) -> Result<()> {
    const CHUNK: u64 = 1 << 20;
    for at in (0..bytes).step_by(CHUNK as usize) {
        let chunk = file.as_disk().read_vec(from + at, (bytes - at).min(CHUNK) as usize)?;
        file.write_at(to + at, &chunk)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_found_and_taken_from_the_front() {
        let mut holes = gaps(vec![10..20, 30..40, 35..50], 60);
        assert_eq!(holes, [0..10, 20..30, 50..60]);
        assert_eq!(take(&mut holes, 8, 60), Some(0));
        assert_eq!(take(&mut holes, 8, 60), Some(20));
        assert_eq!(take(&mut holes, 8, 55), None);
    }
}
