//! The file that takes staged pages beyond the memory bound. A place in it is used again when nobody needs its page.

use super::{BlockDevice, HostFile, PAGE_BYTES, WritableDevice};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use vmrescue_base::error::Result;

/// Places of pages in the file.
#[derive(Default)]
struct Places {
    free: Vec<u64>,
    end: u64,
}

/// A file without a name, in pages.
pub(super) struct Spill {
    file: HostFile,
    places: Mutex<Places>,
}

/// One page in the file; dropping the last reference frees its place.
pub(super) struct SpilledPage {
    spill: Arc<Spill>,
    place: u64,
}

impl Spill {
    /// A new spill file in `dir`.
    pub(super) fn create(dir: &Path) -> Result<Arc<Spill>> {
        let path = dir.join(format!(".vmrescue-spill-{}", vmrescue_base::guid::Guid::random()));
        let file = HostFile::create_private(&path)?;
        // Removed at once where the system allows it; the open handle keeps the bytes.
        let _gone = std::fs::remove_file(&path);
        Ok(Arc::new(Spill { file, places: Mutex::default() }))
    }

    /// Keeps a page.
    pub(super) fn put(self: &Arc<Self>, bytes: &[u8]) -> Result<Arc<SpilledPage>> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.free.pop().unwrap_or_else(|| {
                places.end += PAGE_BYTES;
                places.end - PAGE_BYTES
            })
        };
        // Dropped when writing fails, so that the place is free again.
        let page = Arc::new(SpilledPage { spill: Arc::clone(self), place });
        self.file.write_at(place, bytes)?;
        Ok(page)
    }

    /// Bytes of the file.
    #[cfg(test)]
    pub(super) fn length_bytes(&self) -> u64 {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).end
    }
}

impl SpilledPage {
    /// The page's bytes.
    pub(super) fn read(&self) -> Result<Arc<[u8]>> {
        let mut bytes = vec![0; PAGE_BYTES as usize];
        self.spill.file.read_at(self.place, &mut bytes)?;
        Ok(bytes.into())
    }
}

impl Drop for SpilledPage {
    fn drop(&mut self) {
        self.spill.places.lock().unwrap_or_else(PoisonError::into_inner).free.push(self.place);
    }
}
