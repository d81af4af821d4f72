//! What the copies need of the volume as it is: what no store has kept and no copy could do without. Whoever writes there changes
//! those copies, as nothing keeps the old bytes while Windows does not run.

use super::catalog::CATALOG;
use super::map::{Source, piece};
use super::{Shadows, damaged};
use crate::FileSystem;
use crate::ntfs::Volume;
use std::ops::Range;
use vmrescue_base::error::{Defect, Result};

/// Ranges in order, those that touch as one.
pub fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut list: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges.into_iter().filter(|range| range.start < range.end) {
        match list.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => list.push(range),
        }
    }
    list
}

/// What of `all` is in none of `holes`; both are in order, and none overlap.
pub fn without(all: Vec<Range<u64>>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut list = Vec::with_capacity(all.len());
    let mut first = 0;
    for range in all {
        let mut at = range.start;
        while holes.get(first).is_some_and(|hole| hole.end <= at) {
            first += 1;
        }
        let here = holes[first.min(holes.len())..].iter().take_while(|hole| hole.start < range.end);
        for hole in here {
            if at < hole.start {
                list.push(at..hole.start);
            }
            at = at.max(hole.end);
        }
        if at < range.end {
            list.push(at..range.end);
        }
    }
    list
}

impl Shadows {
    /// The ranges of the volume that a copy reads where its own $Bitmap calls clusters used; in order. All of the volume when the copy
    /// cannot be read: then nobody knows.
    pub fn uses(&self, number: u32) -> Vec<Range<u64>> {
        self.needed(number).unwrap_or_else(|_nobody_knows| {
            let everything = 0..self.volume.len();
            vec![everything]
        })
    }

    fn needed(&self, number: u32) -> Result<Vec<Range<u64>>> {
        let maps = self.maps_from(number)?;
        let view = self.view(number)?;
        let whole = 0..view.len();
        let free = merged(Volume::open(view)?.free_ranges()?);
        let mut ranges = Vec::new();
        for used in without(vec![whole], &free) {
            let mut at = used.start;
            while at < used.end {
                let (source, length) = piece(&maps, at);
                let length = length.min(used.end - at);
                if let Source::Volume(from) = source {
                    ranges.push(from..from + length);
                }
                at += length;
            }
        }
        Ok(merged(ranges))
    }

    /// What is wrong with the catalog: there may be copies that it does not name any more.
    pub fn catalog_defect(&self) -> Option<&Defect> {
        self.defects.iter().find(|defect| defect.code == CATALOG)
    }

    /// The ranges of the volume that any of the copies needs; in order.
    ///
    /// # Errors
    /// When the catalog or one of them cannot be read: what they need is not known.
    pub fn all_uses(&self) -> Result<Vec<Range<u64>>> {
        if let Some(defect) = self.catalog_defect() {
            return Err(damaged(defect.detail.clone()));
        }
        let mut all = Vec::new();
        for copy in &self.copies {
            let needed = self.needed(copy.number);
            all.extend(needed.map_err(|e| e.context(format!("what shadow copy {} needs", copy.number)))?);
        }
        Ok(merged(all))
    }

    /// The numbers of the copies that change when these ranges of the volume are written without Windows.
    pub fn changed_by(&self, written: &[Range<u64>]) -> Vec<u32> {
        let written = merged(written.to_vec());
        let meets = |uses: &[Range<u64>]| {
            written.iter().any(|range| {
                let next = uses.partition_point(|used| used.end <= range.start);
                uses.get(next).is_some_and(|used| used.start < range.end)
            })
        };
        self.copies.iter().map(|copy| copy.number).filter(|number| meets(&self.uses(*number))).collect()
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of one range")]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_cut() {
        assert_eq!(merged(vec![5..7, 0..2, 2..3, 6..9, 4..4]), [0..3, 5..9]);
        assert_eq!(without(vec![0..10, 20..30], &[2..4, 4..5, 9..22, 25..26]), [0..2, 5..9, 22..25, 26..30]);
        assert_eq!(without(vec![0..10], &[]), [0..10]);
        assert_eq!(without(vec![3..5], &[0..10]), []);
    }
}
