//! A device that fails its n-th operation, and only that one.

use crate::{BlockDevice, DiskMut, Geometry, WritableDevice};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};

/// Passes everything on but the n-th operation (0: the first), which is an error of kind `Io`.
pub struct FaultDevice {
    inner: DiskMut,
    fails_at: u64,
    operations: AtomicU64,
}

impl FaultDevice {
    /// Over `inner`, failing at `fails_at`.
    pub fn new(inner: DiskMut, fails_at: u64) -> FaultDevice {
        FaultDevice { inner, fails_at, operations: AtomicU64::new(0) }
    }

    fn step(&self) -> Result<()> {
        if self.operations.fetch_add(1, Ordering::Relaxed) == self.fails_at {
            return Err(Error::new(ErrorKind::Io, Layer::Block, "an operation that is made to fail"));
        }
        Ok(())
    }
}

impl BlockDevice for FaultDevice {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.step()?;
        self.inner.read_at(offset, buf)
    }
}

impl WritableDevice for FaultDevice {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.step()?;
        self.inner.write_at(offset, data)
    }

    fn zero_at(&self, range: Range<u64>) -> Result<()> {
        self.step()?;
        self.inner.zero_at(range)
    }

    fn flush(&self) -> Result<()> {
        self.step()?;
        self.inner.flush()
    }

    fn set_length(&self, length_bytes: u64) -> Result<()> {
        self.step()?;
        self.inner.set_length(length_bytes)
    }
}
