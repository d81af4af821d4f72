//! New containers: what `disk create`, conversions and tests start from.

use super::{ContainerInfo, Format};
use super::{vhd, vhdx};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::text::utf16le_bytes;
use vmrescue_block::DiskMut;

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

impl Kind {
    /// All kinds, by the names of the command line.
    pub const NAMES: [(&'static str, Kind); 5] = [
        ("raw", Kind::Raw),
        ("vhd-fixed", Kind::VhdFixed),
        ("vhd-dynamic", Kind::VhdDynamic),
        ("vhdx-fixed", Kind::VhdxFixed),
        ("vhdx-dynamic", Kind::VhdxDynamic),
    ];

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
    }
}

/// Most bytes of a VHD, as Windows has it.
pub(super) const MAX_VHD_BYTES: u64 = 2040 << 30;
/// Block size of new differencing VHDX files, as Hyper-V makes them.
const CHILD_BLOCK_BYTES: u64 = 2 << 20;

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
    if spec.logical_sector_bytes != 512 || spec.size > MAX_VHD_BYTES {
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
    if spec.size > vmrescue_base::limits::MAX_DISK_BYTES {
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
        disk_id: Guid::random(),
        locator: &[],
    };
    vhdx::new_metadata(file, metadata.start, &new)?;
    if fixed {
        vhdx::fixed_bat(file, bat.start, bat.end, spec.size, block, spec.logical_sector_bytes)?;
    }
    Ok(())
}

/// Makes an empty child of the disk `parent` (its [`super::info`]) in the empty staged `file`, in the parent's format.
/// `relative` is the way from the child's folder to the parent, with backslashes; `absolute` the whole path.
///
/// # Errors
/// `Invalid` for a parent that is no VHD or VHDX: Hyper-V knows no other children.
pub fn create_child(file: &DiskMut, parent: &ContainerInfo, relative: &str, absolute: &str) -> Result<()> {
    can_have_child(parent)?;
    match parent.format {
        Format::Vhd => create_vhd_child(file, parent, relative, absolute),
        _ => create_vhdx_child(file, parent, relative, absolute),
    }
}

/// Refuses parents that can have no child.
///
/// # Errors
/// `Invalid` for formats other than VHD and VHDX.
pub fn can_have_child(parent: &ContainerInfo) -> Result<()> {
    match parent.format {
        Format::Vhd | Format::Vhdx => Ok(()),
        _ => Err(Error::invalid(Layer::Image, "only a VHD or VHDX can have a child")
            .found(format!("{:?}", parent.format).to_lowercase())
            .advice("convert the image into a VHDX first, or publish into a new file with --to new:FILE")),
    }
}

fn identity(text: Option<&String>) -> Result<Guid> {
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::damaged(Layer::Image, "the parent has no identity that a child could name"))
}

fn create_vhd_child(file: &DiskMut, parent: &ContainerInfo, relative: &str, absolute: &str) -> Result<()> {
    let block = vhd::BLOCK_BYTES;
    let footer = vhd::Footer::new(vhd::KIND_DIFFERENCING, parent.size).to_bytes();
    let mut header = vhd::DynamicHeader::new(parent.size.div_ceil(u64::from(block)) as u32, block);
    header.parent_id = identity(parent.content_identity.as_ref())?.0;
    header.parent_time = parent.time.unwrap_or_default();
    header.parent_name = relative.rsplit('\\').next().unwrap_or(relative).to_string();
    let mut place = header.table_offset;
    for (code, text) in [(*b"W2ru", relative), (*b"W2ku", absolute)] {
        let text = utf16le_bytes(text);
        header.add_locator(code, place, text.len() as u32);
        let end = place + (text.len() as u64).next_multiple_of(512);
        file.set_length(end)?;
        file.write_at(place, &text)?;
        place = end;
    }
    header.table_offset = place;
    let bat = (u64::from(header.entries) * 4).next_multiple_of(512);
    file.set_length(place + bat + vhd::FOOTER_BYTES)?;
    file.write_at(0, &footer)?;
    file.write_at(vhd::FOOTER_BYTES, &header.to_bytes())?;
    file.write_at(place, &vec![0xff; bat as usize])?;
    file.write_at(place + bat, &footer)
}

fn create_vhdx_child(file: &DiskMut, parent: &ContainerInfo, relative: &str, absolute: &str) -> Result<()> {
    let ratio = (u64::from(parent.logical_sector_bytes) << 23) / CHILD_BLOCK_BYTES;
    let entries = parent.size.div_ceil(CHILD_BLOCK_BYTES).div_ceil(ratio) * (ratio + 1);
    let (log, metadata) = (vhdx::ALIGN..2 * vhdx::ALIGN, 2 * vhdx::ALIGN..3 * vhdx::ALIGN);
    let bat = metadata.end..metadata.end + (entries * 8).next_multiple_of(vhdx::ALIGN);
    file.set_length(bat.end)?;
    vhdx::new_headers(file, log)?;
    vhdx::new_regions(file, bat, metadata.clone())?;
    let linkage = format!("{{{}}}", identity(parent.content_identity.as_ref())?);
    let new = vhdx::NewMetadata {
        block_bytes: CHILD_BLOCK_BYTES,
        fixed: false,
        disk_bytes: parent.size,
        logical_sector_bytes: parent.logical_sector_bytes,
        physical_sector_bytes: parent.physical_sector_bytes,
        disk_id: identity(parent.identity.as_ref())?,
        locator: &[
            ("parent_linkage", linkage),
            ("relative_path", relative.to_string()),
            ("absolute_win32_path", absolute.to_string()),
        ],
    };
    vhdx::new_metadata(file, metadata.start, &new)
}
