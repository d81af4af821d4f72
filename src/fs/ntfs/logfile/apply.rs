//! Does an operation of the log to the volume: finds its bytes, compares LSNs, changes, stages.
//!
//! A file record carries the LSN of its last change, a block of an index too: what they have seen already is not done
//! again. Bitmaps and values carry none; setting them again to what they were set to does no harm, because the later
//! records follow. Clusters that were freed since are left alone.

use super::super::write::record::{apply_fixups, remove_fixups};
use super::file_record::{self, Change};
use super::index;
use super::ops::{self, Target};
use super::record::Operation;
use super::stage::Stage;
use super::tables::Tables;
use vmrescue_base::bytes::{put_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Type of the blocks of an index.
const INDEX_ALLOCATION: u32 = 0xA0;
/// Largest block of an index.
const MAX_BLOCK_BYTES: usize = 64 << 10;

/// Sizes of the volume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) cluster_bytes: u64,
    pub(crate) record_bytes: usize,
    pub(crate) clusters: u64,
}

/// One half of an operation: what the redo or the undo is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Half<'a> {
    pub(crate) code: u16,
    pub(crate) data: &'a [u8],
    /// The LSN that the target has afterwards, in the redo. The undo looks at no LSN: history was repeated before.
    pub(crate) lsn: Option<u64>,
}

/// Where the bytes of a target lie: place on the volume (`None` for a cluster that was freed) and length.
type Pieces = Vec<(Option<u64>, usize)>;

/// The volume and the tables.
pub(crate) struct Applier<'a, 't> {
    pub(crate) stage: Stage<'a>,
    pub(crate) tables: &'t Tables,
    pub(crate) sizes: Sizes,
    /// Operations that changed something.
    pub(crate) applied: u64,
}

fn damaged(what: impl Into<String>) -> Error {
    Error::damaged(Layer::Ntfs, what)
}

impl Applier<'_, '_> {
    /// Does one half of `operation`.
    ///
    /// # Errors
    /// `Damaged` when the volume is not what it was when the record was written, `Unsupported` for an operation of which
    /// nobody has published what it does; errors of the disk.
    pub(crate) fn apply(&mut self, operation: &Operation<'_>, half: Half<'_>) -> Result<()> {
        match ops::target(half.code) {
            Target::None => Ok(()),
            Target::FileRecord => self.file_record(operation, half),
            Target::IndexBlock => self.index_block(operation, half),
            Target::Bytes => self.bytes(operation, half),
            Target::Bits => self.bits(operation, half),
            Target::Unknown => Err(Error::unsupported(Layer::Ntfs, "an operation that is not known")),
        }
    }

    /// The pieces of `length` bytes that begin `offset` bytes behind the start of the target's first cluster.
    fn pieces(&self, operation: &Operation<'_>, offset: u64, length: usize) -> Result<Pieces> {
        let cluster = self.sizes.cluster_bytes;
        let mut pieces = Pieces::new();
        let (mut offset, mut left) = (offset, length);
        // Bounded: every step takes at least one byte of a block.
        while left > 0 {
            let index = offset / cluster;
            let vcn = operation.vcn.checked_add(index).ok_or_else(|| damaged("a VCN that cannot be"))?;
            let known = self.tables.dirty.get(u32::from(operation.target), vcn).map(|dirty| dirty.lcn);
            let lcn = match known {
                Some(0) => None,
                Some(lcn) => Some(lcn),
                None => operation.lcns().nth(index as usize).filter(|lcn| *lcn != 0),
            };
            if lcn.is_some_and(|lcn| lcn >= self.sizes.clusters) {
                return Err(damaged("its cluster lies outside the volume").found(format!("{lcn:#x?}")));
            }
            let within = offset % cluster;
            let take = (cluster - within).min(left as u64) as usize;
            pieces.push((lcn.map(|lcn| lcn * cluster + within), take)); // inside the volume
            offset += take as u64;
            left -= take;
        }
        Ok(pieces)
    }

    /// The bytes of pieces; freed ones read as zero.
    fn gather(&self, pieces: &Pieces) -> Result<Vec<u8>> {
        let mut bytes = vec![0; pieces.iter().map(|(_, length)| length).sum()];
        let mut at = 0;
        for (place, length) in pieces {
            if let Some(place) = place {
                self.stage.read(*place, &mut bytes[at..at + length])?;
            }
            at += length;
        }
        Ok(bytes)
    }

    fn scatter(&mut self, pieces: &Pieces, bytes: &[u8]) -> Result<()> {
        let mut at = 0;
        for (place, length) in pieces {
            if let Some(place) = place {
                self.stage.write(*place, &bytes[at..at + length])?;
            }
            at += length;
        }
        self.applied += 1;
        Ok(())
    }

    /// A protected structure, fixups out. `None` when nothing is to be done: it has seen the change, or its clusters
    /// were freed. One that cannot be read is an error, unless all of it will be written.
    fn protected(&self, pieces: &Pieces, half: Half<'_>, is_whole: bool) -> Result<Option<Vec<u8>>> {
        if pieces.iter().any(|(place, _)| place.is_none()) {
            return Ok(None);
        }
        let mut bytes = self.gather(pieces)?;
        if remove_fixups(&mut bytes) {
            let seen = half.lsn.is_some_and(|lsn| u64_at(&bytes, 8).is_some_and(|there| there >= lsn));
            return Ok((!seen).then_some(bytes));
        }
        if is_whole {
            bytes.fill(0);
            return Ok(Some(bytes));
        }
        Err(damaged("its target was not written whole or never was")
            .at(pieces.first().and_then(|p| p.0).unwrap_or(0)))
    }

    fn file_record(&mut self, operation: &Operation<'_>, half: Half<'_>) -> Result<()> {
        let pieces = self.pieces(operation, operation.cluster_offset, self.sizes.record_bytes)?;
        let is_whole = half.code == ops::INITIALIZE_RECORD && operation.record_offset == 0;
        // The undo of a record that was never written has nothing to undo.
        let never_was = half.code == ops::DEALLOCATE_RECORD && half.lsn.is_none();
        let Some(mut record) = self.protected(&pieces, half, is_whole || never_was)? else { return Ok(()) };
        if never_was && !record.starts_with(b"FILE") {
            return Ok(());
        }
        if !is_whole && !record.starts_with(b"FILE") {
            return Err(damaged("its target is no file record"));
        }
        let change = Change {
            operation: half.code,
            data: half.data,
            record_offset: operation.record_offset,
            attribute_offset: operation.attribute_offset,
            same_length: operation.same_length,
            clusters: self.sizes.clusters,
        };
        file_record::apply(&mut record, &change).map_err(damaged)?;
        self.seal(&mut record, half.lsn)?;
        self.scatter(&pieces, &record)
    }

    /// Stamps the LSN and puts the fixups in.
    fn seal(&self, bytes: &mut [u8], lsn: Option<u64>) -> Result<()> {
        let stamped = lsn.is_none_or(|lsn| put_at(bytes, 8, &lsn.to_le_bytes()));
        if stamped && apply_fixups(bytes) {
            Ok(())
        } else {
            Err(damaged("it leaves no room for an update sequence"))
        }
    }

    fn block_bytes(&self, operation: &Operation<'_>) -> Result<Option<usize>> {
        let attribute = self.tables.attributes.get(&u32::from(operation.target)).ok_or_else(|| {
            damaged("its attribute is not among the open ones").found(format!("{:#x}", operation.target))
        })?;
        if attribute.kind != INDEX_ALLOCATION {
            return Ok(None);
        }
        let size = attribute.block_bytes;
        if !size.is_power_of_two() || !(512..=MAX_BLOCK_BYTES).contains(&size) {
            return Err(damaged("the size of its index blocks").found(size));
        }
        Ok(Some(size))
    }

    fn index_block(&mut self, operation: &Operation<'_>, half: Half<'_>) -> Result<()> {
        let size = self.block_bytes(operation)?.ok_or_else(|| damaged("its attribute is no index"))?;
        let start = operation.cluster_offset + operation.record_offset as u64;
        let pieces = self.pieces(operation, start, size)?;
        let Some(mut block) = self.protected(&pieces, half, false)? else { return Ok(()) };
        if !index::block::is_block(&block) {
            return Err(damaged("its target is no block of an index"));
        }
        index::block::apply(&mut block, half.code, operation.attribute_offset, half.data).map_err(damaged)?;
        self.seal(&mut block, half.lsn)?;
        self.scatter(&pieces, &block)
    }

    /// Bytes of a value; a block of an index is protected by fixups, which the log does not have in it.
    fn bytes(&mut self, operation: &Operation<'_>, half: Half<'_>) -> Result<()> {
        let from = operation.record_offset + operation.attribute_offset;
        let Some(size) = self.block_bytes(operation)? else {
            let pieces = self.pieces(operation, operation.cluster_offset + from as u64, half.data.len())?;
            return self.scatter(&pieces, half.data);
        };
        let pieces = self.pieces(operation, operation.cluster_offset, size)?;
        if pieces.iter().any(|(place, _)| place.is_none()) {
            return Ok(());
        }
        let mut block = self.gather(&pieces)?;
        let is_whole = from == 0 && index::block::is_block(half.data);
        if !remove_fixups(&mut block) {
            if !is_whole {
                return Err(damaged("its target was not written whole or never was"));
            }
            block.fill(0);
        }
        if !put_at(&mut block, from, half.data) {
            return Err(damaged("it writes behind the end of the index block"));
        }
        self.seal(&mut block, None)?;
        self.scatter(&pieces, &block)
    }

    fn bits(&mut self, operation: &Operation<'_>, half: Half<'_>) -> Result<()> {
        let field = |at| {
            u32_at(half.data, at).map(u64::from).ok_or_else(|| damaged("a range of bits that is cut off"))
        };
        let (first, count) = (field(0)?, field(4)?);
        let covered = operation.lcns().len() as u64 * self.sizes.cluster_bytes * 8;
        if count == 0 {
            return Ok(());
        }
        if first + count > covered {
            return Err(
                damaged("a range of bits outside its clusters").found(format!("{count} bits at {first:#x}"))
            );
        }
        let start = operation.cluster_offset + operation.record_offset as u64 + first / 8;
        let length = ((first + count).div_ceil(8) - first / 8) as usize; // at most `covered` / 8
        let pieces = self.pieces(operation, start, length)?;
        let mut bytes = self.gather(&pieces)?;
        for bit in first % 8..first % 8 + count {
            let mask = 1u8 << (bit % 8);
            let byte = &mut bytes[(bit / 8) as usize];
            *byte = if half.code == ops::SET_BITS { *byte | mask } else { *byte & !mask };
        }
        self.scatter(&pieces, &bytes)
    }
}
