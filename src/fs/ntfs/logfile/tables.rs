//! The tables that NTFS keeps for a restart: open attributes, dirty pages, transactions, names of attributes.
//!
//! On the disk a restart table is a header of 0x18 bytes and entries of one size; a free entry begins with the place of the
//! next free one, a used one with 0xFFFFFFFF. Who names an entry names its offset in the table. Version 0 has pointers of
//! 32 bits in its entries (0x2C bytes for an attribute), version 1 has 64 (0x28 bytes; the rest moved).

use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_REPLAY_CLUSTERS;
use vmrescue_base::text::utf16le_lossy;

/// Bytes of the header of a restart table.
const HEADER_BYTES: usize = 0x18;
/// First field of an entry in use.
const ALLOCATED: u32 = 0xFFFF_FFFF;

/// An attribute that was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenAttribute {
    /// Reference of the file.
    pub(crate) file: u64,
    /// Type.
    pub(crate) kind: u32,
    /// Bytes of a block, for an index.
    pub(crate) block_bytes: usize,
    /// Name, for messages.
    pub(crate) name: String,
}

/// How far a transaction had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// To be undone.
    Active,
    /// Of two-phase commit: kept.
    Prepared,
    /// Kept.
    Committed,
}

/// A transaction that had not been forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// How far it had come.
    pub(crate) state: State,
    /// Its first record.
    pub(crate) first: u64,
    /// The next record to undo.
    pub(crate) undo_next: u64,
}

/// A cluster of a page that had not been written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dirty {
    /// Where it lies; 0 when it was freed.
    pub(crate) lcn: u64,
    /// First record whose change may be missing on the disk.
    pub(crate) oldest: u64,
}

/// All tables, at some point of the log.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Version of the entries.
    version: u32,
    /// Clusters of a page of the system that wrote the log.
    page_clusters: u64,
    pub(crate) attributes: BTreeMap<u32, OpenAttribute>,
    pub(crate) transactions: BTreeMap<u32, Transaction>,
    pub(crate) dirty: DirtyPages,
}

/// The dirty clusters, by attribute and VCN.
#[derive(Debug, Default)]
pub(crate) struct DirtyPages {
    clusters: BTreeMap<(u32, u64), Dirty>,
    /// The same by LCN, so that freeing a range does not look at all of them.
    places: BTreeSet<(u64, u32, u64)>,
}

fn damaged(what: &str) -> Error {
    Error::damaged(Layer::Ntfs, format!("$LogFile: {what}"))
}

/// The used entries of a restart table with their offsets.
fn entries(table: &[u8]) -> Result<Vec<(u32, &[u8])>> {
    let size = u16_at(table, 0).map_or(0, usize::from);
    let count = u16_at(table, 2).map_or(0, usize::from);
    let body = table.get(HEADER_BYTES..).and_then(|body| body.get(..size * count));
    let body = body.filter(|_| size >= 0x18).ok_or_else(|| damaged("a restart table that is cut off"))?;
    let all = body.chunks_exact(size).enumerate();
    Ok(all
        .filter(|(_, entry)| u32_at(entry, 0) == Some(ALLOCATED))
        .map(|(index, entry)| ((HEADER_BYTES + index * size) as u32, entry)) // below 2^32: two factors of 16 bits
        .collect())
}

impl Tables {
    pub(crate) fn new(version: u32, cluster_bytes: u64, page_bytes: u64) -> Tables {
        let page_clusters = (page_bytes / cluster_bytes).max(1);
        Tables { version, page_clusters, ..Tables::default() }
    }

    /// An entry of the table of open attributes.
    fn attribute(&self, entry: &[u8]) -> Option<OpenAttribute> {
        let (file, kind, block) = if self.version == 0 { (0x08, 0x1C, 0x28) } else { (0x10, 0x08, 0x04) };
        Some(OpenAttribute {
            file: u64_at(entry, file)?,
            kind: u32_at(entry, kind)?,
            block_bytes: u32_at(entry, block)? as usize,
            name: String::new(),
        })
    }

    /// Opens an attribute at `place`.
    pub(crate) fn open(&mut self, place: u32, entry: &[u8], name: &[u8]) -> Result<()> {
        let mut attribute =
            self.attribute(entry).ok_or_else(|| damaged("an open attribute that is cut off"))?;
        attribute.name = utf16le_lossy(name);
        // An entry is given to another attribute only when no page of the first one is dirty any more.
        if self.attributes.insert(place, attribute.clone()).is_some_and(|known| known != attribute) {
            self.dirty.forget(place);
        }
        Ok(())
    }

    /// Takes over a dump of the open attributes.
    pub(crate) fn load_attributes(&mut self, table: &[u8]) -> Result<()> {
        for (place, entry) in entries(table)? {
            self.open(place, entry, &[])?;
        }
        Ok(())
    }

    /// Takes over a dump of the names: place, length in bytes, name, a zero character; a place of 0 ends it.
    pub(crate) fn load_names(&mut self, names: &[u8]) {
        let mut at = 0;
        // Bounded: every step takes at least six bytes.
        while let (Some(place @ 1..), Some(length)) = (u16_at(names, at), u16_at(names, at + 2)) {
            let Some(name) = slice_at(names, at + 4, usize::from(length)) else { return };
            if let Some(attribute) = self.attributes.get_mut(&u32::from(place)) {
                attribute.name = utf16le_lossy(name);
            }
            at += 6 + usize::from(length);
        }
    }

    /// Takes over a dump of the transactions.
    pub(crate) fn load_transactions(&mut self, table: &[u8]) -> Result<()> {
        for (place, entry) in entries(table)? {
            let state = match entry.get(4) {
                Some(1) => State::Active,
                Some(2) => State::Prepared,
                Some(3) => State::Committed,
                _ => continue,
            };
            let field = |at| u64_at(entry, at).ok_or_else(|| damaged("a transaction that is cut off"));
            self.transactions
                .insert(place, Transaction { state, first: field(0x08)?, undo_next: field(0x18)? });
        }
        Ok(())
    }

    /// Takes over a dump of the dirty pages.
    pub(crate) fn load_dirty(&mut self, table: &[u8]) -> Result<()> {
        // Version 0 has four bytes more before the VCN.
        let shift = if self.version == 0 { 4 } else { 0 };
        let size = u16_at(table, 0).map_or(0, u64::from);
        self.page_clusters = (size.saturating_sub(0x20 + shift as u64) / 8).max(1);
        for (_, entry) in entries(table)? {
            let cut_off = || damaged("a dirty page that is cut off");
            let attribute = u32_at(entry, 4).ok_or_else(cut_off)?;
            let count = u32_at(entry, 0x0C).ok_or_else(cut_off)? as usize;
            let vcn = u64_at(entry, 0x10 + shift).ok_or_else(cut_off)?;
            let oldest = u64_at(entry, 0x18 + shift).ok_or_else(cut_off)?;
            let bytes = count.checked_mul(8).and_then(|length| slice_at(entry, 0x20 + shift, length));
            for (index, lcn) in bytes.ok_or_else(cut_off)?.as_chunks::<8>().0.iter().enumerate() {
                let vcn = vcn.checked_add(index as u64).ok_or_else(cut_off)?;
                self.dirty.insert(attribute, vcn, Dirty { lcn: u64::from_le_bytes(*lcn), oldest })?;
            }
        }
        Ok(())
    }

    /// Notes that a record changed clusters of an attribute: their page is dirty from now on, if it was not yet.
    pub(crate) fn touch(
        &mut self,
        attribute: u32,
        vcn: u64,
        lcns: impl Iterator<Item = u64>,
        lsn: u64,
    ) -> Result<()> {
        for (vcn, lcn) in (vcn..=u64::MAX).zip(lcns) {
            if !self.dirty.clusters.contains_key(&(attribute, vcn)) {
                let first = vcn / self.page_clusters * self.page_clusters;
                for other in (first..=u64::MAX).take(self.page_clusters as usize) {
                    if !self.dirty.clusters.contains_key(&(attribute, other)) {
                        self.dirty.insert(attribute, other, Dirty { lcn: 0, oldest: lsn })?;
                    }
                }
            }
            self.dirty.place(attribute, vcn, lcn);
        }
        Ok(())
    }

    /// Where the redo begins: the oldest change that may be missing, or the oldest transaction.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let dirty = self.dirty.clusters.values().map(|cluster| cluster.oldest);
        let transactions = self.transactions.values().map(|transaction| transaction.first);
        dirty.chain(transactions).filter(|lsn| *lsn != 0).min()
    }
}

impl DirtyPages {
    fn insert(&mut self, attribute: u32, vcn: u64, cluster: Dirty) -> Result<()> {
        if self.clusters.len() >= MAX_REPLAY_CLUSTERS {
            return Err(Error::limit(Layer::Ntfs, "dirty clusters of a log").expected(MAX_REPLAY_CLUSTERS));
        }
        match self.clusters.get_mut(&(attribute, vcn)) {
            // The same page twice, where clusters are larger than pages: the older change counts.
            Some(known) => known.oldest = known.oldest.min(cluster.oldest),
            None => {
                self.clusters.insert((attribute, vcn), Dirty { lcn: 0, ..cluster });
            }
        }
        self.place(attribute, vcn, cluster.lcn);
        Ok(())
    }

    /// Says where a dirty cluster lies.
    pub(crate) fn place(&mut self, attribute: u32, vcn: u64, lcn: u64) {
        if let Some(cluster) = self.clusters.get_mut(&(attribute, vcn)) {
            self.places.remove(&(cluster.lcn, attribute, vcn));
            cluster.lcn = lcn;
            if lcn != 0 {
                self.places.insert((lcn, attribute, vcn));
            }
        }
    }

    /// A dirty cluster.
    pub(crate) fn get(&self, attribute: u32, vcn: u64) -> Option<Dirty> {
        self.clusters.get(&(attribute, vcn)).copied()
    }

    /// Takes all clusters of an attribute out.
    fn forget(&mut self, attribute: u32) {
        let keys: Vec<_> =
            self.clusters.range((attribute, 0)..=(attribute, u64::MAX)).map(|(key, _)| *key).collect();
        for key in keys {
            self.place(key.0, key.1, 0);
            self.clusters.remove(&key);
        }
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }

    /// Notes that clusters were freed: what was changed in them is not to be written.
    pub(crate) fn free(&mut self, lcn: u64, count: u64) {
        let Some(last) = lcn.checked_add(count.saturating_sub(1)).filter(|_| count > 0) else { return };
        let range = (lcn, 0, 0)..=(last, u32::MAX, u64::MAX);
        let gone: Vec<_> = self.places.range(range).copied().collect();
        for (_, attribute, vcn) in gone {
            self.place(attribute, vcn, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(size: u16, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES];
        out[..2].copy_from_slice(&size.to_le_bytes());
        out[2..4].copy_from_slice(&(entries.len() as u16).to_le_bytes());
        for entry in entries {
            out.extend_from_slice(entry);
            out.resize(out.len() + usize::from(size) - entry.len(), 0);
        }
        out
    }

    fn numbers(fields: &[u64]) -> Vec<u8> {
        fields.iter().flat_map(|field| (*field as u32).to_le_bytes()).collect()
    }

    #[test]
    fn both_layouts_of_an_open_attribute() {
        let new = numbers(&[0xFFFF_FFFF, 4096, 0xA0, 0, 5, 0x0005_0000, 9, 0, 0, 0]);
        let old = numbers(&[0xFFFF_FFFF, 0x40, 5, 0x0005_0000, 9, 0, 0, 0xA0, 0, 0, 4096]);
        for (version, entry) in [(1, new), (0, old)] {
            let mut tables = Tables::new(version, 4096, 4096);
            tables.load_attributes(&table(entry.len() as u16, &[numbers(&[0]), entry.clone()])).unwrap();
            tables.load_names(b"\x44\0\x04\0$\0I\0\0\0\x40\0\x04\0$\0I\0\0\0\0\0");
            let (place, attribute) = tables.attributes.iter().next().unwrap();
            assert_eq!(*place, 0x18 + entry.len() as u32);
            assert_eq!(
                (attribute.file, attribute.kind, attribute.block_bytes),
                (0x0005_0000_0000_0005, 0xA0, 4096)
            );
            assert_eq!(attribute.name, "$I");
        }
    }

    #[test]
    fn both_layouts_of_a_dirty_page() {
        let new = numbers(&[0xFFFF_FFFF, 0x18, 4096, 2, 8, 0, 700, 0, 50, 0, 51, 0]);
        let old = numbers(&[0xFFFF_FFFF, 0x18, 4096, 2, 0, 8, 0, 700, 0, 50, 0, 51, 0]);
        for (version, entry) in [(1, new), (0, old)] {
            let mut tables = Tables::new(version, 2048, 4096);
            tables.load_dirty(&table(entry.len() as u16, &[entry])).unwrap();
            assert_eq!(tables.dirty.get(0x18, 9), Some(Dirty { lcn: 51, oldest: 700 }));
            assert_eq!(tables.page_clusters, 2);
            // A page that is touched later becomes dirty as a whole, one that was dirty keeps its age.
            tables.touch(0x18, 9, [90].into_iter(), 800).unwrap();
            tables.touch(0x18, 13, [70].into_iter(), 800).unwrap();
            assert_eq!(tables.dirty.get(0x18, 9), Some(Dirty { lcn: 90, oldest: 700 }));
            assert_eq!(tables.dirty.get(0x18, 12), Some(Dirty { lcn: 0, oldest: 800 }));
            assert_eq!(tables.oldest(), Some(700));
            tables.dirty.free(89, 2);
            assert_eq!(tables.dirty.get(0x18, 9), Some(Dirty { lcn: 0, oldest: 700 }));
            assert_eq!(tables.dirty.get(0x18, 8), Some(Dirty { lcn: 50, oldest: 700 }));
        }
    }

    #[test]
    fn a_table_that_is_cut_off_is_damage() {
        assert!(entries(&[]).is_err());
        assert!(entries(&table(0x28, &[vec![0; 0x28]])[..0x30]).is_err());
        assert!(
            Tables::new(1, 4096, 4096).load_dirty(&table(0x28, &[numbers(&[0xFFFF_FFFF, 0, 0, 9])])).is_err()
        );
    }
}
