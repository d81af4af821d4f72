//! New containers: what `disk create`, conversions and tests start from.

use super::{vhd, vhdx};
use crate::block::DiskMut;
use crate::error::{Error, Layer, Result};

/// Kind of a new container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The disk, byte for byte.
    Raw,
    /// VHD with all blocks.
    VhdFixed,
    /// VHD whose blocks appear when they are written.
    VhdDynamic,
    /// VHDX with all blocks.
    VhdxFixed,
    /// VHDX whose blocks appear when they are written.
    VhdxDynamic,
}

/// What a new container is to be.
#[derive(Debug, Clone, Copy)]
pub struct CreateSpec {
    /// Kind of the container.
    pub kind: Kind,
    /// Length of the virtual disk in bytes.
    pub size: u64,
    /// Bytes of a block; the format's usual size when absent.
    pub block_bytes: Option<u64>,
    /// 512 or 4096; VHD has 512 only.
    pub logical_sector_bytes: u32,
}

impl CreateSpec {
    /// A disk with 512-byte sectors and the usual blocks.
    pub fn new(kind: Kind, size: u64) -> CreateSpec {
        CreateSpec { kind, size, block_bytes: None, logical_sector_bytes: 512 }
    }
}

/// Makes an empty disk in the empty staged `file`.
///
/// # Errors
/// `Invalid` for sizes that the format cannot hold.
pub fn create(file: &DiskMut, spec: &CreateSpec) -> Result<()> {
    let sector = u64::from(spec.logical_sector_bytes);
    if spec.size == 0 || !matches!(sector, 512 | 4096) || !spec.size.is_multiple_of(sector) {
        return Err(Error::invalid(Layer::Image, "the disk must have whole sectors of 512 or 4096 bytes")
            .found(format!("{} bytes, sectors of {sector}", spec.size)));
    }
    match spec.kind {
        Kind::Raw => file.set_length(spec.size),
        Kind::VhdFixed | Kind::VhdDynamic => create_vhd(file, spec),
        Kind::VhdxFixed | Kind::VhdxDynamic => create_vhdx(file, spec),
    }
}

fn create_vhd(file: &DiskMut, spec: &CreateSpec) -> Result<()> {
    const MAX: u64 = 2040 << 30;
    if spec.logical_sector_bytes != 512 || spec.size > MAX {
        return Err(Error::invalid(Layer::Vhd, "a VHD has 512-byte sectors and at most 2040 GiB")
            .advice("make a VHDX"));
    }
    if spec.kind == Kind::VhdFixed {
        file.set_length(spec.size + vhd::FOOTER_BYTES)?;
        return file.write_at(spec.size, &vhd::Footer::new(vhd::KIND_FIXED, spec.size).to_bytes());
    }
    let block = spec.block_bytes.unwrap_or(u64::from(vhd::BLOCK_BYTES));
    if !block.is_power_of_two() || !(4096..=256 << 20).contains(&block) {
        return Err(Error::invalid(Layer::Vhd, "block size").expected("a power of two").found(block));
    }
    let footer = vhd::Footer::new(vhd::KIND_DYNAMIC, spec.size).to_bytes();
    let header = vhd::DynamicHeader::new(spec.size.div_ceil(block) as u32, block as u32);
    let bat = (u64::from(header.entries) * 4).next_multiple_of(512);
    debug_assert_eq!(vhd::bitmap_bytes(block) % 512, 0);
    file.set_length(header.table_offset + bat + vhd::FOOTER_BYTES)?;
    file.write_at(0, &footer)?;
    file.write_at(vhd::FOOTER_BYTES, &header.to_bytes())?;
    file.write_at(header.table_offset, &vec![0xff; bat as usize])?;
    file.write_at(header.table_offset + bat, &footer)
}

fn create_vhdx(file: &DiskMut, spec: &CreateSpec) -> Result<()> {
    let block = spec.block_bytes.unwrap_or(vhdx::DEFAULT_BLOCK_BYTES);
    if !block.is_power_of_two() || !(vhdx::ALIGN..=256 << 20).contains(&block) {
        let e = Error::invalid(Layer::Vhdx, "block size");
        return Err(e.expected("a power of two from 1 to 256 MiB").found(block));
    }
    if spec.size > crate::limits::MAX_DISK_BYTES {
        return Err(Error::invalid(Layer::Vhdx, "a VHDX holds at most 64 TiB").found(spec.size));
    }
    let ratio = (u64::from(spec.logical_sector_bytes) << 23) / block;
    let blocks = spec.size.div_ceil(block);
    let entries = blocks + (blocks - 1) / ratio;
    let bat_bytes = (entries * 8).next_multiple_of(vhdx::ALIGN);
    let (log, metadata) = (vhdx::ALIGN..2 * vhdx::ALIGN, 2 * vhdx::ALIGN..3 * vhdx::ALIGN);
    let bat = metadata.end..metadata.end + bat_bytes;
    let fixed = spec.kind == Kind::VhdxFixed;
    file.set_length(bat.end + if fixed { blocks * block } else { 0 })?;
    vhdx::new_headers(file, log)?;
    vhdx::new_regions(file, bat.clone(), metadata.clone())?;
    let new = vhdx::NewMetadata {
        block_bytes: block,
        fixed,
        disk_bytes: spec.size,
        logical_sector_bytes: spec.logical_sector_bytes,
        physical_sector_bytes: 4096,
        locator: &[],
    };
    vhdx::new_metadata(file, metadata.start, &new)?;
    if fixed {
        vhdx::fixed_bat(file, bat.start, bat.end, spec.size, block, spec.logical_sector_bytes)?;
    }
    Ok(())
}
