//! A device in memory, for tests, small new images and unpacked structures.

use super::{BlockDevice, Geometry, WritableDevice};
use std::ops::Range;
use std::sync::{PoisonError, RwLock};
use vmrescue_base::error::Result;

/// Bytes in memory behind the device traits. Grows and shrinks with `set_length`.
#[derive(Debug, Default)]
pub struct MemoryDevice {
    bytes: RwLock<Vec<u8>>,
    logical_sector_bytes: Option<u32>,
}

impl MemoryDevice {
    /// A device that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> MemoryDevice {
        MemoryDevice { bytes: RwLock::new(bytes), logical_sector_bytes: None }
    }

    /// `length` zero bytes.
    pub fn zeroed(length: usize) -> MemoryDevice {
        MemoryDevice::new(vec![0; length])
    }

    /// The same device with another sector size (512 is what it has otherwise).
    #[must_use]
    pub fn with_sectors(mut self, logical_sector_bytes: u32) -> MemoryDevice {
        self.logical_sector_bytes = Some(logical_sector_bytes);
        self
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The range as indices; callers have checked it against the length, which fits a `usize`.
fn indices(offset: u64, length: usize) -> Range<usize> {
    let start = offset as usize;
    start..start + length
}

impl BlockDevice for MemoryDevice {
    fn geometry(&self) -> Geometry {
        let length = self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64;
        let sector = self.logical_sector_bytes.unwrap_or(512);
        Geometry { length_bytes: length, logical_sector_bytes: sector, physical_sector_bytes: sector }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        buf.copy_from_slice(&bytes[indices(offset, buf.len())]);
        Ok(())
    }
}

impl WritableDevice for MemoryDevice {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        bytes[indices(offset, data.len())].copy_from_slice(data);
        Ok(())
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        bytes[range.start as usize..range.end as usize].fill(0);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn set_length(&self, length_bytes: u64) -> Result<()> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner).resize(length_bytes as usize, 0);
        Ok(())
    }
}
