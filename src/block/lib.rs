//! Bytes that have a length: the traits that every device implements and the two handles that everybody uses.
//!
//! * [`BlockDevice`] and [`WritableDevice`] are what an implementer writes: positioned, synchronous, `&self`.
//! * [`Disk`] and [`DiskMut`] are what everybody else holds. They check ranges once, so that an implementer may rely
//!   on `offset + length <= geometry().length_bytes`.
//!
//! A `Disk` cannot write. A `DiskMut` is only made over staged devices (overlays) and over new files that no user
//! has seen yet; `tests/tidy.rs` holds the list of the places that may call [`DiskMut::new`].

mod aligned;
mod cache;
mod disk;
mod host_file;
mod host_lock;
mod host_meta;
mod host_process;
mod memory;
mod output;
mod overlay;
mod spill;
pub mod testing;
mod window;

pub use cache::Cache;
pub use disk::{Disk, DiskMut};
pub use host_file::{Attribute, FileId, FileStamp, HostFile};
pub use host_process::{
    create_private, create_private_folder, disk_of, host_name, limit_memory, make_private,
};
pub use memory::MemoryDevice;
pub use output::{OutputFile, OutputRules, remove_unfinished};
pub use overlay::{Overlay, OverlayOptions, PAGE_BYTES, SavepointId};

use std::ops::Range;
use vmrescue_base::error::{Error, Layer, Result};

/// Size and sectors of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Length in bytes.
    pub length_bytes: u64,
    /// Unit in which the guest addresses the disk: 512 or 4096. Files have 512.
    pub logical_sector_bytes: u32,
    /// Unit in which the medium writes.
    pub physical_sector_bytes: u32,
}

impl Geometry {
    /// A plain run of bytes with 512-byte sectors.
    pub fn of_bytes(length_bytes: u64) -> Geometry {
        Geometry { length_bytes, logical_sector_bytes: 512, physical_sector_bytes: 512 }
    }
}

/// What the container says about a range, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Stored; may still be all zero.
    Data,
    /// Reads as zero and takes no room.
    Zero,
    /// Not stored here: the parent of a differencing disk has it.
    Absent,
}

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Kind of all bytes of the run.
    pub kind: ExtentKind,
    /// How many bytes from the asked offset on are of this kind; at least 1, at most up to the end of the device.
    pub length_bytes: u64,
}

/// Something that can be read at any position, by several threads at once.
pub trait BlockDevice: Send + Sync {
    /// Length and sector sizes, as of now.
    fn geometry(&self) -> Geometry;

    /// Fills all of `buf` from `offset`, or fails. The range lies inside the device.
    ///
    /// # Errors
    /// Of the medium, or of the container's structures.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// What kind of bytes lies at `offset` (inside the device), and how far. Devices that do not know say "data".
    ///
    /// # Errors
    /// Of the container's structures.
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent {
            kind: ExtentKind::Data,
            length_bytes: self.geometry().length_bytes.saturating_sub(offset),
        })
    }
}

/// Something that can also be written at any position.
pub trait WritableDevice: BlockDevice {
    /// Writes all of `data` at `offset`, or fails; after a failure the range holds old or new bytes. The range lies
    /// inside the device.
    ///
    /// # Errors
    /// Of the medium, or of the container's structures.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Makes the range read as zero, taking as little room as the device can. The range lies inside the device.
    ///
    /// # Errors
    /// As [`WritableDevice::write_at`].
    fn zero_at(&self, range: Range<u64>) -> Result<()>;

    /// Returns when everything written before survives a loss of power. The only ordering point there is.
    ///
    /// # Errors
    /// Of the medium; then nothing may be assumed about what was written since the last success.
    fn flush(&self) -> Result<()>;

    /// Lets go of what the host keeps of a range in its memory, where it can: the next read asks the medium. Call it after
    /// [`WritableDevice::flush`]; what is not durable stays.
    ///
    /// # Errors
    /// Of the host.
    fn forget_cached(&self, _range: Range<u64>) -> Result<()> {
        Ok(())
    }

    /// Changes the length; new bytes read as zero. Devices of fixed length refuse.
    ///
    /// # Errors
    /// Of the medium, or `Unsupported`.
    fn set_length(&self, length_bytes: u64) -> Result<()> {
        Err(Error::unsupported(Layer::Block, "this device has a fixed length")
            .found(format!("{length_bytes} bytes asked")))
    }
}
