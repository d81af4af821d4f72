//! A part of a device as a device of its own: a partition, a payload area.

use super::{BlockDevice, Extent, Geometry, WritableDevice};
use std::ops::Range;
use std::sync::Arc;
use vmrescue_base::error::Result;

/// The bytes of `range` of another device, counted from zero. The maker has checked that the range lies inside.
pub(super) struct Window<D: ?Sized> {
    device: Arc<D>,
    range: Range<u64>,
}

impl<D: ?Sized> Window<D> {
    pub(super) fn new(device: Arc<D>, range: Range<u64>) -> Window<D> {
        Window { device, range }
    }
}

impl<D: BlockDevice + ?Sized> BlockDevice for Window<D> {
    fn geometry(&self) -> Geometry {
        Geometry { length_bytes: self.range.end - self.range.start, ..self.device.geometry() }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.device.read_at(self.range.start + offset, buf)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let start = self.range.start + offset;
        let extent = self.device.extent_at(start)?;
        Ok(Extent { length_bytes: extent.length_bytes.min(self.range.end - start), ..extent })
    }
}

impl<D: WritableDevice + ?Sized> WritableDevice for Window<D> {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.device.write_at(self.range.start + offset, data)
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        self.device.zero_at(self.range.start + range.start..self.range.start + range.end)
    }

    fn flush(&self) -> Result<()> {
        self.device.flush()
    }
}
