//! Changes the length of a virtual disk in its staged container. Whether something is lost is for the caller to know.

use super::{Format, Variant, info, vhd, vhdx};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::DiskMut;

/// Makes the virtual disk in the staged `file` `size` bytes long; new bytes read as zero.
///
/// # Errors
/// `Invalid` for a size that the format cannot hold; `Unsupported` for differencing VHDs.
pub fn resize(file: &DiskMut, size: u64) -> Result<()> {
    let info = info(&file.as_disk())?;
    let sector = u64::from(info.logical_sector_bytes);
    if size == 0 || !size.is_multiple_of(sector) {
        return Err(Error::invalid(Layer::Image, "the disk must have whole sectors").found(size));
    }
    if size == info.size {
        return Ok(());
    }
    match (info.format, info.variant) {
        (Format::Raw, _) => file.set_length(size),
        (Format::Vhd, Variant::Differencing) => {
            Err(Error::unsupported(Layer::Vhd, "a differencing VHD has the size of its parent")
                .advice("merge it first, or convert it"))
        }
        (Format::Vhd, _) if size > super::create::MAX_VHD_BYTES => {
            Err(Error::invalid(Layer::Vhd, "a VHD holds at most 2040 GiB").advice("convert it into a VHDX"))
        }
        (Format::Vhd, _) => vhd::resize(file, size),
        (Format::Vhdx, _) if size > vmrescue_base::limits::MAX_DISK_BYTES => {
            Err(Error::invalid(Layer::Vhdx, "a VHDX holds at most 64 TiB").found(size))
        }
        (Format::Vhdx, _) => vhdx::resize(file, size),
        (Format::Qcow2 | Format::Vmdk, _) => Err(super::read_only(info.format)),
    }
}
