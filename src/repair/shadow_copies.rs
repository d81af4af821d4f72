//! Which shadow copies a change changes as well: Windows keeps the old bytes of a block before it overwrites it, and does not run.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use vmrescue_base::error::Result;
use vmrescue_block::{BlockDevice, DiskMut, Extent, Geometry, WritableDevice};
use vmrescue_windows::Machine;

/// Ranges that are kept before they are put together.
const MANY: usize = 1 << 16;

/// A disk that remembers where it was written.
struct Watched {
    disk: DiskMut,
    written: Mutex<Vec<Range<u64>>>,
}

impl Watched {
    fn note(&self, range: Range<u64>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        match written.last_mut() {
            Some(last) if range.start <= last.end && last.start <= range.end => {
                *last = last.start.min(range.start)..last.end.max(range.end);
            }
            _ => written.push(range),
        }
        if written.len() >= MANY {
            let all = vmrescue_fs::shadow::merged(std::mem::take(&mut *written));
            *written = all;
        }
    }
}

impl BlockDevice for Watched {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.disk.read_at(offset, buf)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.disk.as_disk().extent_at(offset)
    }
}

impl WritableDevice for Watched {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.note(offset..offset + data.len() as u64);
        self.disk.write_at(offset, data)
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        self.note(range.clone());
        self.disk.zero_at(range)
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }

    fn forget_cached(&self, range: Range<u64>) -> Result<()> {
        self.disk.forget_cached(range)
    }
}

/// A staged disk that is watched, and how many copies each of its volumes has.
pub(super) struct Watch {
    watched: Arc<Watched>,
}

impl Watch {
    /// Watches what is written.
    pub(super) fn new(disk: DiskMut) -> Watch {
        Watch { watched: Arc::new(Watched { disk, written: Mutex::default() }) }
    }

    /// The disk to write to.
    pub(super) fn disk(&self) -> DiskMut {
        DiskMut::new(Arc::clone(&self.watched) as Arc<dyn WritableDevice>)
    }

    /// A sentence for each volume whose copies were changed by what was written; `machine` is the disk before.
    pub(super) fn warnings(&self, machine: &Machine) -> Vec<String> {
        let written = self.watched.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut list = Vec::new();
        for (index, volume) in machine.volumes.iter().enumerate() {
            let inside = |range: &Range<u64>| {
                let (start, end) = (range.start.max(volume.range.start), range.end.min(volume.range.end));
                (start < end).then(|| start - volume.range.start..end - volume.range.start)
            };
            let own: Vec<Range<u64>> = written.iter().filter_map(inside).collect();
            if own.is_empty() {
                continue;
            }
            let name =
                volume.letter.map_or_else(|| format!("#{}:", volume.number), |letter| format!("{letter}:"));
            match machine.shadows(index) {
                Ok(None) => {}
                Ok(Some(shadows)) => {
                    if let Some(defect) = shadows.catalog_defect() {
                        list.push(format!(
                            "the list of shadow copies of {name} is damaged, and copies that it does not name may be changed: {defect}"
                        ));
                    }
                    let changed: Vec<String> = shadows.changed_by(&own).iter().map(u32::to_string).collect();
                    if !changed.is_empty() {
                        list.push(format!(
                            "{} of {} shadow copies of {name} show changed blocks afterwards ({}); Windows was not there to keep the old ones",
                            changed.len(),
                            shadows.copies.len(),
                            changed.join(", ")
                        ));
                    }
                }
                Err(e) => {
                    list.push(format!("the shadow copies of {name} cannot be read, and may be changed: {e}"));
                }
            }
        }
        list
    }
}
