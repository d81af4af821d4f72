//! Which cluster holds which part of an attribute: the run lists of all its segments, joined.

use super::write::runs;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_RUNS;

/// A run with its place in the attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapRun {
    /// First cluster in the attribute.
    pub(crate) vcn: u64,
    /// First cluster on the volume; `None` for a hole.
    pub(crate) lcn: Option<u64>,
    /// Clusters; never 0.
    pub(crate) count: u64,
}

/// The runs of an attribute, in the order of VCNs and without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RunMap {
    runs: Vec<MapRun>,
}

impl RunMap {
    /// The VCN after the last run.
    pub(crate) fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.vcn + run.count)
    }

    /// All runs.
    pub(crate) fn runs(&self) -> &[MapRun] {
        &self.runs
    }

    /// Appends the mapping pairs of a segment that begins at `lowest_vcn`.
    ///
    /// # Errors
    /// `Damaged` when the pairs cannot be, or the segment does not begin where the last one ended.
    pub(crate) fn append(&mut self, lowest_vcn: u64, pairs: &[u8], clusters: u64) -> Result<()> {
        if lowest_vcn != self.end() {
            return Err(Error::damaged(Layer::Ntfs, "segments of an attribute do not follow each other")
                .expected(format!("VCN {:#x}", self.end()))
                .found(format!("VCN {lowest_vcn:#x}")));
        }
        for run in runs::decode(pairs, clusters)? {
            if self.runs.len() >= MAX_RUNS {
                return Err(Error::limit(Layer::Ntfs, "runs of one attribute").expected(MAX_RUNS));
            }
            let vcn = self.end();
            if vcn.checked_add(run.count).is_none_or(|end| end >> 62 != 0) {
                return Err(Error::damaged(Layer::Ntfs, "an attribute with more than 2^62 clusters"));
            }
            self.runs.push(MapRun { vcn, lcn: run.lcn, count: run.count });
        }
        Ok(())
    }

    /// Where cluster `vcn` lies, and how many clusters from there on lie together. `None` behind the last run.
    pub(crate) fn find(&self, vcn: u64) -> Option<(Option<u64>, u64)> {
        let index = self.runs.partition_point(|run| run.vcn + run.count <= vcn);
        let run = self.runs.get(index)?;
        let skip = vcn.checked_sub(run.vcn)?;
        Some((run.lcn.map(|lcn| lcn + skip), run.count - skip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_found_over_segments() {
        let mut map = RunMap::default();
        map.append(0, &[0x11, 2, 16, 0x01, 3, 0], 100).unwrap();
        map.append(5, &[0x11, 1, 8, 0], 100).unwrap();
        assert!(map.append(7, &[0], 100).is_err());
        assert_eq!(map.find(1), Some((Some(17), 1)));
        assert_eq!(map.find(3), Some((None, 2)));
        assert_eq!(map.find(5), Some((Some(8), 1)));
        assert_eq!(map.find(6), None);
    }
}
