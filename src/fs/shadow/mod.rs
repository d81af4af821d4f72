//! Shadow copies of an NTFS volume (Volume Shadow Copy Service, the provider that Windows brings): the list of them, and each one as
//! a device of its own that a file system is opened on. Nothing here writes.
//!
//! A copy consists of blocks of 16 KiB that were kept before they were overwritten. What a copy did not keep is what the next newer
//! copy has, and at last what the volume has now. So whoever writes to the volume without Windows changes the copies as well
//! ([`Shadows::uses`] says which bytes of the volume a copy still needs).
//!
//! Follows the published analysis of the format (libyal, "Volume Shadow Snapshot (VSS) format"); no document of Microsoft's describes
//! it. Missing: copies that are stored on another volume, those of Windows Server 2003, and copies that were deleted.

mod blocks;
mod catalog;
mod map;
mod uses;
mod view;

#[cfg(test)]
mod tests;

pub use uses::{merged, without};

use catalog::Entry;
use map::Map;
use std::sync::{Arc, OnceLock};
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::guid::Guid;
use vmrescue_base::time::FileTime;
use vmrescue_block::Disk;

/// Bytes of a block, of the volume and of a store.
pub(crate) const BLOCK_BYTES: u64 = 16 << 10;
/// Most copies of a volume (Windows keeps at most 512).
const MAX_COPIES: usize = 512;

/// One shadow copy, as its catalog and its store describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowCopy {
    /// From 1, the oldest first; what `C:@2` names.
    pub number: u32,
    /// Shadow copy ID of `vssadmin list shadows`; zero when its store cannot be read.
    pub id: Guid,
    /// Shadow copy set ID.
    pub set: Guid,
    /// The name of its store.
    pub store: Guid,
    /// When it was made.
    pub created: FileTime,
    /// Bytes of the volume at that time.
    pub volume_bytes: u64,
    /// Bytes that its store takes, as the catalog says; 0 when it does not say.
    pub allocated_bytes: u64,
    /// The file of the volume that is its store: its file reference, 0 when it is not on this volume.
    pub file: u64,
    /// `VSS_VOLUME_SNAPSHOT_ATTRIBUTES`.
    pub attributes: u32,
    /// `VSS_SNAPSHOT_CONTEXT`.
    pub context: u32,
    /// The machine that it was made on.
    pub originating_machine: String,
    /// The machine that keeps it.
    pub service_machine: String,
    /// Why it cannot be read, when it cannot.
    pub problem: Option<String>,
}

impl ShadowCopy {
    /// The attributes in the words of `vssadmin`.
    pub fn attribute_names(&self) -> Vec<&'static str> {
        ATTRIBUTES.iter().filter(|(bit, _)| self.attributes & bit != 0).map(|(_, name)| *name).collect()
    }

    /// The type in the words of `vssadmin`, by its context.
    pub fn kind(&self) -> &'static str {
        match self.context {
            0 => "Backup",
            0x9 => "ApplicationRollback",
            0xd => "ClientAccessibleWriters",
            0x10 => "FileShareBackup",
            0x19 => "NasRollback",
            0x1d => "ClientAccessible",
            _ => "Unknown",
        }
    }
}

const ATTRIBUTES: [(u32, &str); 18] = [
    (0x1, "Persistent"),
    (0x2, "No auto recovery"),
    (0x4, "Client-accessible"),
    (0x8, "No auto release"),
    (0x10, "No writers"),
    (0x20, "Transportable"),
    (0x40, "Not surfaced"),
    (0x80, "Not transacted"),
    (0x1_0000, "Hardware assisted"),
    (0x2_0000, "Differential"),
    (0x4_0000, "Plex"),
    (0x8_0000, "Imported"),
    (0x10_0000, "Exposed locally"),
    (0x20_0000, "Exposed remotely"),
    (0x40_0000, "Auto recovered"),
    (0x80_0000, "Rollback recovery"),
    (0x100_0000, "Delayed post snapshot"),
    (0x200_0000, "TxF recovery"),
];

/// The shadow copies of a volume.
pub struct Shadows {
    volume: Disk,
    /// Most bytes that all stores may take; 0 without a bound.
    pub maximum_bytes: u64,
    /// The volume, and the one that holds the stores, as the header names them.
    pub volume_id: Guid,
    /// See `volume_id`.
    pub storage_id: Guid,
    /// The oldest first.
    pub copies: Vec<ShadowCopy>,
    /// What is wrong with the catalog or with stores.
    pub defects: Vec<Defect>,
    entries: Vec<Entry>,
    /// The blocks of each store, read when somebody asks.
    maps: Vec<OnceLock<std::result::Result<Arc<Map>, String>>>,
}

pub(crate) fn damaged(what: impl Into<String>) -> Error {
    Error::damaged(Layer::Shadow, what)
}

impl Shadows {
    /// The copies of the volume that fills `volume`; `None` when it never had any.
    ///
    /// # Errors
    /// Of the disk; `Damaged` when the catalog cannot be read at all.
    pub fn open(volume: &Disk) -> Result<Option<Shadows>> {
        let Some(header) = catalog::header(volume)? else { return Ok(None) };
        let mut defects = Vec::new();
        let mut entries = catalog::entries(volume, &header, &mut defects)?;
        if entries.len() > MAX_COPIES {
            return Err(Error::limit(Layer::Shadow, "too many shadow copies")
                .expected(format!("at most {MAX_COPIES}"))
                .found(entries.len()));
        }
        // Their order in the catalog means nothing.
        entries.sort_by_key(|entry| (entry.created, entry.sequence));
        let mut copies = Vec::with_capacity(entries.len());
        for (entry, number) in entries.iter().zip(1..) {
            let mut copy = entry.copy(number);
            match entry.place.as_ref().map(|place| catalog::describe(volume, place.header_at, &mut copy)) {
                None => copy.problem = Some("it is not stored on this volume".into()),
                Some(Ok(())) => {}
                Some(Err(e)) => {
                    defects.push(Defect::from_error("shadow-copy-store", Severity::Warning, &e));
                    copy.problem = Some(e.to_string());
                }
            }
            copies.push(copy);
        }
        let maps = entries.iter().map(|_| OnceLock::new()).collect();
        Ok(Some(Shadows {
            volume: volume.clone(),
            maximum_bytes: header.maximum_bytes,
            volume_id: header.volume_id,
            storage_id: header.storage_id,
            copies,
            defects,
            entries,
            maps,
        }))
    }

    /// The copy that a user names: a number from 1, `latest`, `oldest`, the identifier of the copy or of its store.
    ///
    /// # Errors
    /// `NotFound` with what there is.
    pub fn find(&self, name: &str) -> Result<&ShadowCopy> {
        let id: Option<Guid> = name.parse().ok();
        let found = match name.to_ascii_lowercase().as_str() {
            "latest" => self.copies.last(),
            "oldest" => self.copies.first(),
            name => self.copies.iter().find(|copy| {
                name.parse::<u32>().is_ok_and(|number| number == copy.number)
                    || id.is_some_and(|id| id == copy.id || id == copy.store)
            }),
        };
        found.ok_or_else(|| {
            let there = match self.copies.len() {
                0 => "none".to_string(),
                1 => "1".to_string(),
                count => format!("1 to {count}"),
            };
            Error::not_found(Layer::Shadow, format!("no shadow copy {name:?} of this volume"))
                .expected(there)
                .advice("vmrescue shadow list IMAGE shows all")
        })
    }

    /// The blocks that the store of the copy with this place in the list has kept.
    fn map(&self, place: usize) -> Result<Arc<Map>> {
        let slot = self.maps.get(place).ok_or_else(|| damaged("no such shadow copy"))?;
        let read = slot.get_or_init(|| {
            let stored = self.entries[place].place.as_ref();
            let Some(stored) = stored else { return Err("it is not stored on this volume".into()) };
            Map::read(&self.volume, stored).map(Arc::new).map_err(|e| e.to_string())
        });
        read.clone().map_err(|why| {
            Error::damaged(Layer::Shadow, format!("shadow copy {} cannot be read: {why}", place + 1))
                .advice("newer copies can be read without it: vmrescue shadow list IMAGE")
        })
    }

    /// The maps of a copy and of all newer ones, that one first.
    fn maps_from(&self, number: u32) -> Result<Vec<Arc<Map>>> {
        let first = (number as usize).checked_sub(1).filter(|first| *first < self.copies.len());
        let first = first.ok_or_else(|| {
            Error::not_found(Layer::Shadow, "no such shadow copy of this volume").found(number)
        })?;
        (first..self.copies.len()).map(|place| self.map(place)).collect()
    }

    /// The volume as it was when the copy was made.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` when its store or that of a newer copy cannot be read: it stands on them.
    pub fn view(&self, number: u32) -> Result<Disk> {
        let maps = self.maps_from(number)?;
        let bytes = self.copies[number as usize - 1].volume_bytes;
        view::view(&self.volume, maps, bytes)
    }
}
