//! A copy as a device: the volume as it was.

use super::damaged;
use super::map::{Map, Source, piece};
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Result};
use vmrescue_block::{BlockDevice, Disk, Extent, ExtentKind, Geometry};

struct View {
    volume: Disk,
    /// Those of the copy and of all newer ones.
    maps: Vec<Arc<Map>>,
    length_bytes: u64,
}

/// The device.
pub(super) fn view(volume: &Disk, maps: Vec<Arc<Map>>, length_bytes: u64) -> Result<Disk> {
    Ok(Disk::new(Arc::new(View { volume: volume.clone(), maps, length_bytes })))
}

impl BlockDevice for View {
    fn geometry(&self) -> Geometry {
        Geometry { length_bytes: self.length_bytes, ..self.volume.geometry() }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (source, length) = piece(&self.maps, at);
            let end = buf.len().min(done.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)));
            let part = &mut buf[done..end];
            match source {
                Source::Zero => part.fill(0),
                Source::Volume(from) => self.volume.read_at(from, part).map_err(|e| outside(e, at))?,
            }
            done = end;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (source, length) = piece(&self.maps, offset);
        let kind = if source == Source::Zero { ExtentKind::Zero } else { ExtentKind::Data };
        Ok(Extent { kind, length_bytes: length.min(self.length_bytes - offset) })
    }
}

/// A place outside of the volume came from a descriptor, not from who reads.
fn outside(error: Error, at: u64) -> Error {
    if error.kind() == ErrorKind::Invalid {
        damaged("shadow copies: a block outside of the volume").at(at).caused_by(error)
    } else {
        error.context("shadow copy")
    }
}
