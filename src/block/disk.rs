//! The two handles: [`Disk`] reads, [`DiskMut`] also writes. Both check ranges once and are cheap to clone.

use super::window::Window;
use super::{BlockDevice, Extent, Geometry, WritableDevice};
use std::ops::Range;
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};

/// A device that can only be read.
#[derive(Clone)]
pub struct Disk(Arc<dyn BlockDevice>);

/// A device that can be written. See the room's documentation for who may make one.
#[derive(Clone)]
pub struct DiskMut(Arc<dyn WritableDevice>);

/// Refuses a range that does not lie inside the device; the proof that `offset + length` cannot wrap later.
fn check_range(geometry: Geometry, offset: u64, length: u64) -> Result<()> {
    match offset.checked_add(length) {
        Some(end) if end <= geometry.length_bytes => Ok(()),
        _ => Err(Error::invalid(Layer::Block, "range outside the device")
            .at(offset)
            .expected(format!("an end of at most {:#x}", geometry.length_bytes))
            .found(format!("{length:#x} bytes from there"))),
    }
}

impl Disk {
    /// A handle on `device`.
    pub fn new(device: Arc<dyn BlockDevice>) -> Disk {
        Disk(device)
    }

    /// Length and sector sizes.
    pub fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.0.geometry().length_bytes
    }

    /// True for a device without any byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills all of `buf` from `offset`.
    ///
    /// # Errors
    /// `Invalid` outside the device; otherwise as the device says.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.geometry(), offset, buf.len() as u64)?;
        self.0.read_at(offset, buf)
    }

    /// The `length` bytes from `offset`, in memory. The range is checked before memory is taken.
    ///
    /// # Errors
    /// As [`Disk::read_at`].
    pub fn read_vec(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        check_range(self.geometry(), offset, length as u64)?;
        let mut buf = vec![0; length];
        self.0.read_at(offset, &mut buf)?;
        Ok(buf)
    }

    /// What lies at `offset`, and how far; see [`BlockDevice::extent_at`].
    ///
    /// # Errors
    /// `Invalid` outside the device.
    pub fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(self.geometry(), offset, 1)?;
        self.0.extent_at(offset)
    }

    /// A part of this device as a device of its own.
    ///
    /// # Errors
    /// `Invalid` when the range is not inside.
    pub fn window(&self, range: Range<u64>) -> Result<Disk> {
        let length = range.end.checked_sub(range.start).unwrap_or(u64::MAX);
        check_range(self.geometry(), range.start, length)?;
        Ok(Disk(Arc::new(Window::new(Arc::clone(&self.0), range))))
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk({:?})", self.geometry())
    }
}

impl DiskMut {
    /// A handle on `device`; only for staged devices and new files (see the room's documentation).
    pub fn new(device: Arc<dyn WritableDevice>) -> DiskMut {
        DiskMut(device)
    }

    /// The same device, for readers.
    pub fn as_disk(&self) -> Disk {
        // A trait object can be upcast since Rust 1.86.
        Disk(Arc::clone(&self.0) as Arc<dyn BlockDevice>)
    }

    /// Length and sector sizes.
    pub fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.0.geometry().length_bytes
    }

    /// True for a device without any byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills all of `buf` from `offset`.
    ///
    /// # Errors
    /// As [`Disk::read_at`].
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self.geometry(), offset, buf.len() as u64)?;
        self.0.read_at(offset, buf)
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `Invalid` outside the device; otherwise as the device says.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        check_range(self.geometry(), offset, data.len() as u64)?;
        self.0.write_at(offset, data)
    }

    /// Makes the range read as zero.
    ///
    /// # Errors
    /// As [`DiskMut::write_at`].
    pub fn zero_at(&self, range: Range<u64>) -> Result<()> {
        let length = range.end.checked_sub(range.start).unwrap_or(u64::MAX);
        check_range(self.geometry(), range.start, length)?;
        if range.is_empty() { Ok(()) } else { self.0.zero_at(range) }
    }

    /// Returns when everything written before survives a loss of power.
    ///
    /// # Errors
    /// As the device says.
    pub fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    /// See [`WritableDevice::forget_cached`].
    ///
    /// # Errors
    /// Of the host.
    pub fn forget_cached(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() { Ok(()) } else { self.0.forget_cached(range) }
    }

    /// Changes the length, where the device can.
    ///
    /// # Errors
    /// As [`WritableDevice::set_length`].
    pub fn set_length(&self, length_bytes: u64) -> Result<()> {
        self.0.set_length(length_bytes)
    }

    /// A part of this device as a device of its own, writable.
    ///
    /// # Errors
    /// `Invalid` when the range is not inside.
    pub fn window(&self, range: Range<u64>) -> Result<DiskMut> {
        let length = range.end.checked_sub(range.start).unwrap_or(u64::MAX);
        check_range(self.geometry(), range.start, length)?;
        Ok(DiskMut(Arc::new(Window::new(Arc::clone(&self.0), range))))
    }
}

impl std::fmt::Debug for DiskMut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskMut({:?})", self.geometry())
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryDevice;
    use super::*;

    #[test]
    fn ranges_outside_are_refused_and_nothing_wraps() {
        let disk = DiskMut::new(Arc::new(MemoryDevice::zeroed(1024)));
        assert!(disk.read_at(1020, &mut [0; 8]).is_err());
        assert!(disk.write_at(u64::MAX, &[1]).is_err());
        assert!(disk.zero_at(Range { start: 9, end: 3 }).is_err());
        assert!(disk.as_disk().read_vec(8, usize::MAX).is_err());
        assert!(disk.window(512..1025).is_err());
        disk.write_at(1023, &[1]).unwrap();
    }

    #[test]
    fn a_window_shows_its_part_only() {
        let disk = DiskMut::new(Arc::new(MemoryDevice::zeroed(1024)));
        let window = disk.window(256..512).unwrap();
        window.write_at(0, &[7; 256]).unwrap();
        assert!(window.write_at(255, &[1, 2]).is_err());
        let all = disk.as_disk().read_vec(0, 1024).unwrap();
        assert!(all[256..512].iter().all(|b| *b == 7));
        assert!(all[..256].iter().chain(&all[512..]).all(|b| *b == 0));
    }
}
