//! The header in the boot area of the volume, the catalog of copies that it names, and what the header of a store says of its copy.

use super::blocks::{self, HEADER_BYTES, Kind, MARK};
use super::{ShadowCopy, damaged};
use std::collections::HashMap;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Defect, Layer, Result, Severity};
use vmrescue_base::guid::Guid;
use vmrescue_base::text::utf16le_lossy;
use vmrescue_base::time::FileTime;
use vmrescue_block::Disk;

/// Where the header lies on the volume.
pub(super) const HEADER_AT: u64 = 0x1E00;
/// Bytes of the header.
const SIZE: usize = 512;
/// The code of what is wrong with a catalog.
pub(super) const CATALOG: &str = "shadow-copy-catalog";
/// Bytes of an entry of the catalog.
const ENTRY_BYTES: usize = 128;

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Where the catalog begins; 0 without one.
    catalog_at: u64,
    pub(super) maximum_bytes: u64,
    pub(super) volume_id: Guid,
    pub(super) storage_id: Guid,
}

/// Where the parts of a store lie on the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) header_at: u64,
    pub(super) descriptors_at: u64,
    pub(super) bitmap_at: u64,
    /// 0 without one.
    pub(super) previous_bitmap_at: u64,
    file: u64,
    allocated_bytes: u64,
}

/// A copy in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    store: Guid,
    pub(super) created: FileTime,
    pub(super) sequence: u64,
    volume_bytes: u64,
    /// None when the store is not on this volume.
    pub(super) place: Option<Place>,
}

impl Entry {
    /// What the catalog knows of it.
    pub(super) fn copy(&self, number: u32) -> ShadowCopy {
        ShadowCopy {
            number,
            id: Guid::ZERO,
            set: Guid::ZERO,
            store: self.store,
            created: self.created,
            volume_bytes: self.volume_bytes,
            allocated_bytes: self.place.as_ref().map_or(0, |place| place.allocated_bytes),
            file: self.place.as_ref().map_or(0, |place| place.file),
            attributes: 0,
            context: 0,
            originating_machine: String::new(),
            service_machine: String::new(),
            problem: None,
        }
    }
}

/// The header of a volume; `None` when it has none.
pub(super) fn header(volume: &Disk) -> Result<Option<Header>> {
    if volume.len() < HEADER_AT + SIZE as u64 {
        return Ok(None);
    }
    let bytes = volume.read_vec(HEADER_AT, SIZE)?;
    let kind = u32_at(&bytes, 20);
    if Guid::at(&bytes, 0) != Some(MARK) || kind != Some(1) {
        return Ok(None);
    }
    // All fields lie inside of the 512 bytes that were read.
    let version = u32_at(&bytes, 16).unwrap_or_default();
    if !matches!(version, 1 | 2) {
        return Err(damaged("shadow copies of an unknown version")
            .at(HEADER_AT)
            .expected("1 or 2")
            .found(version));
    }
    let field = |at| u64_at(&bytes, at).unwrap_or_default();
    let id = |at| Guid::at(&bytes, at).unwrap_or(Guid::ZERO);
    Ok(Some(Header {
        catalog_at: field(48),
        maximum_bytes: field(56),
        volume_id: id(64),
        storage_id: id(80),
    }))
}

/// The entries of the catalog. An entry that cannot be is told and left out.
pub(super) fn entries(volume: &Disk, header: &Header, defects: &mut Vec<Defect>) -> Result<Vec<Entry>> {
    let mut list: Vec<Entry> = Vec::new();
    let mut places: HashMap<Guid, Place> = HashMap::new();
    let mut seen_any = false;
    let read = blocks::chain(volume, header.catalog_at, Kind::Catalog, |at, data| {
        seen_any = true;
        for (number, entry) in data.chunks_exact(ENTRY_BYTES).enumerate() {
            // All fields lie inside of an entry.
            let field = |at| u64_at(entry, at).unwrap_or_default();
            let store = Guid::at(entry, 16).unwrap_or(Guid::ZERO);
            let place = at + (HEADER_BYTES + number * ENTRY_BYTES) as u64;
            match field(0) {
                0 | 1 => {}
                2 => {
                    let volume_bytes = field(8);
                    if volume_bytes > volume.len() || volume_bytes == 0 {
                        let what = format!(
                            "shadow copy {store} is of a volume of {volume_bytes} bytes, this one has {}",
                            volume.len()
                        );
                        defects.push(defect(place, what));
                    }
                    list.push(Entry {
                        store,
                        created: FileTime(field(48)),
                        sequence: field(32),
                        // What lies behind the end of the volume is nowhere.
                        volume_bytes: volume_bytes.min(volume.len()),
                        place: None,
                    });
                }
                3 => {
                    let new = Place {
                        descriptors_at: field(8),
                        header_at: field(32),
                        bitmap_at: field(48),
                        file: field(56),
                        allocated_bytes: field(64),
                        previous_bitmap_at: field(72),
                    };
                    places.insert(store, new);
                }
                kind => defects.push(defect(place, format!("an entry of kind {kind:#x} in the catalog"))),
            }
        }
        Ok(())
    });
    match read {
        Ok(()) => {}
        Err(e) if seen_any => {
            defects.push(Defect::from_error(CATALOG, Severity::Warning, &e));
        }
        Err(e) => return Err(e),
    }
    for entry in &mut list {
        entry.place = places.remove(&entry.store);
    }
    Ok(list)
}

fn defect(at: u64, what: String) -> Defect {
    Defect::new(CATALOG, Severity::Warning, Layer::Shadow, Some(at), what)
}

/// Completes a copy by what the header of its store says.
pub(super) fn describe(volume: &Disk, at: u64, copy: &mut ShadowCopy) -> Result<()> {
    let bytes = blocks::block(volume, at, Kind::Store)?;
    let data = &bytes[HEADER_BYTES..];
    // These lie inside of a block; the names behind them have lengths of their own, which are checked.
    let id = |at| Guid::at(data, at).unwrap_or(Guid::ZERO);
    let number = |at| u32_at(data, at).unwrap_or_default();
    (copy.id, copy.set) = (id(16), id(32));
    (copy.context, copy.attributes) = (number(48), number(56));
    let mut place = 64;
    let mut text = || {
        let length = usize::from(u16_at(data, place)?);
        let text = slice_at(data, place + 2, length).map(utf16le_lossy);
        place += 2 + length;
        text
    };
    let wrong = || damaged("shadow copies: the name of a machine goes beyond its block").at(at);
    copy.originating_machine = text().ok_or_else(wrong)?;
    copy.service_machine = text().ok_or_else(wrong)?;
    Ok(())
}
