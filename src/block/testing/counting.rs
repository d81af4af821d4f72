//! A device that counts what is asked of it: tests and `inspect` prove with it that they read only what they need.

use crate::{BlockDevice, Disk, Extent, Geometry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vmrescue_base::error::Result;

/// How much was read.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls of `read_at`.
    pub reads: AtomicU64,
    /// Bytes that these calls asked for.
    pub bytes: AtomicU64,
}

/// Counts reads and passes them on.
#[derive(Debug)]
pub struct CountingDevice {
    inner: Disk,
    counts: Arc<Counts>,
}

impl CountingDevice {
    /// Counts what is read from `inner`.
    pub fn new(inner: Disk) -> (Arc<CountingDevice>, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        (Arc::new(CountingDevice { inner, counts: Arc::clone(&counts) }), counts)
    }
}

impl BlockDevice for CountingDevice {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, buf)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.inner.extent_at(offset)
    }
}
