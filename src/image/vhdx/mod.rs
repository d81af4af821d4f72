//! VHDX: [MS-VHDX], version 1.
//!
//! * [`format`]: identifiers and fixed places
//! * [`header`]: both headers, region tables
//! * [`metadata`]: the metadata region and the parent locator
//! * [`log`]: finding the active sequence and replaying it
//! * [`device`]: the BAT and the blocks
//! * [`check`]: what the specification says and a reader can do without

mod check;
mod device;
mod format;
mod header;
mod log;
mod metadata;
#[cfg(test)]
mod tests;

pub(super) use device::fixed_bat;
pub(super) use format::{ALIGN, DEFAULT_BLOCK_BYTES};
pub(super) use header::{new_headers, new_regions};
pub(super) use metadata::{NewMetadata, new_metadata};

use super::{Container, ContainerInfo, Format, Variant, parent_missing};
use device::VhdxDevice;
use header::Headers;
use metadata::Metadata;
use std::ops::Range;
use std::sync::Arc;
use vmrescue_base::error::{Defect, Layer, Result, Severity};
use vmrescue_block::{Disk, DiskMut, Overlay, OverlayOptions};

/// The file with its log replayed, and its parsed structures.
struct Parsed {
    file: Disk,
    headers: Headers,
    metadata: Metadata,
    defects: Vec<Defect>,
    replayed: bool,
}

fn parse(file: &Disk) -> Result<Parsed> {
    let mut defects = Vec::new();
    let headers = header::read(file, &mut defects)?;
    check::versions(&headers.current)?;
    check::headers(file, &headers.current, &mut defects);
    let mut file = file.clone();
    let mut replayed = false;
    if !headers.current.log_guid.is_zero() {
        let sequence = log::active_sequence(&file, &headers.current)?;
        let overlay = Overlay::new(file.clone(), OverlayOptions::default())?;
        let staged = DiskMut::new(overlay);
        replayed = log::replay(&staged, &sequence)?;
        file = staged.as_disk();
    }
    let regions = header::read_regions(&file, &mut defects)?;
    check::regions(&file, &headers.current.log, &mut defects);
    let metadata = metadata::read(&file, &regions)?;
    check::metadata(&file, &regions.metadata, &mut defects)?;
    Ok(Parsed { file, headers: headers.with(regions), metadata, defects, replayed })
}

fn info_of(parsed: &Parsed, file_size: u64) -> ContainerInfo {
    let metadata = &parsed.metadata;
    ContainerInfo {
        format: Format::Vhdx,
        variant: match (metadata.has_parent, metadata.leave_allocated) {
            (true, _) => Variant::Differencing,
            (false, true) => Variant::Fixed,
            (false, false) => Variant::Dynamic,
        },
        size: metadata.disk_bytes,
        file_size,
        block_bytes: Some(metadata.block_bytes),
        logical_sector_bytes: metadata.logical_sector_bytes,
        physical_sector_bytes: metadata.physical_sector_bytes,
        identity: metadata.disk_id.map(|id| id.to_string()),
        content_identity: Some(parsed.headers.current.data_write_guid.to_string()),
        creator: parsed.headers.creator.clone(),
        log_replayed: parsed.replayed,
        parent_hints: metadata.parent_hints(),
        parent_identity: metadata.parent_linkage(),
        time: None,
        parent_time: None,
        parent: None,
    }
}

pub(super) fn info(file: &Disk) -> Result<ContainerInfo> {
    Ok(info_of(&parse(file)?, file.len()))
}

pub(super) fn open(file: &Disk, parent: Option<Disk>) -> Result<Container<Disk>> {
    let parsed = parse(file)?;
    if parsed.metadata.has_parent && parent.is_none() {
        return Err(parent_missing(Layer::Vhdx));
    }
    let info = info_of(&parsed, file.len());
    let device = VhdxDevice::open(parsed.file, None, parsed.headers, parsed.metadata, parent)?;
    Ok(Container { disk: Disk::new(Arc::new(device)), info, defects: parsed.defects })
}

pub(super) fn open_mut(file: &DiskMut, parent: Option<Disk>) -> Result<Container<DiskMut>> {
    let (device, info, defects) = writable(file, parent)?;
    Ok(Container { disk: DiskMut::new(Arc::new(device)), info, defects })
}

pub(super) fn check(file: &Disk) -> Result<Vec<Defect>> {
    let parsed = match parse(file) {
        Ok(parsed) => parsed,
        Err(e) => return Ok(vec![Defect::from_error("vhdx-unreadable", Severity::Error, &e)]),
    };
    let mut defects = parsed.defects;
    let fixed = parsed.headers.fixed_ranges();
    match VhdxDevice::open(parsed.file, None, parsed.headers, parsed.metadata, None) {
        Ok(device) => device.check(&fixed, &mut defects),
        Err(e) => defects.push(Defect::from_error("vhdx-bat-unreadable", Severity::Error, &e)),
    }
    Ok(defects)
}

/// Opens a staged file for writing, unless it is severely damaged. The replay of its log becomes part of what is staged;
/// the header that forgets the log follows with the first write.
fn writable(file: &DiskMut, parent: Option<Disk>) -> Result<(VhdxDevice, ContainerInfo, Vec<Defect>)> {
    let parsed = parse(&file.as_disk())?;
    if parsed.metadata.has_parent && parent.is_none() {
        return Err(parent_missing(Layer::Vhdx));
    }
    if parsed.replayed {
        log::replay(file, &log::active_sequence(&file.as_disk(), &parsed.headers.current)?)?;
    }
    let (info, fixed) = (info_of(&parsed, file.len()), parsed.headers.fixed_ranges());
    let (headers, metadata, mut defects) = (parsed.headers, parsed.metadata, parsed.defects);
    let device = VhdxDevice::open(file.as_disk(), Some(file.clone()), headers, metadata, parent)?;
    device.check(&fixed, &mut defects);
    super::refuse_severe(&defects)?;
    Ok((device, info, defects))
}

/// See [`super::compact`].
pub(super) fn compact(
    file: &DiskMut,
    parent: Option<Disk>,
    is_free: &dyn Fn(Range<u64>) -> bool,
) -> Result<u64> {
    let fixed = parse(&file.as_disk())?.headers.fixed_ranges();
    let (device, _, _) = writable(file, parent)?;
    let dropped = device.drop_empty(is_free)?;
    device.pack(&fixed)?;
    Ok(dropped)
}

/// See [`super::resize`].
pub(super) fn resize(file: &DiskMut, size: u64) -> Result<()> {
    super::refuse_severe(&check(&file.as_disk())?)?;
    let mut parsed = parse(&file.as_disk())?;
    if parsed.replayed {
        log::replay(file, &log::active_sequence(&file.as_disk(), &parsed.headers.current)?)?;
    }
    let metadata = &parsed.metadata;
    let entries = |size| device::bat_entries(size, metadata);
    let (old, new) = (entries(metadata.disk_bytes), entries(size));
    let mut bat = parsed.headers.regions.bat.clone();
    let mut table = file.as_disk().read_vec(bat.start, (old * 8) as usize)?;
    table.resize((new.max(old) * 8) as usize, 0);
    table[(new.min(old) * 8) as usize..].fill(0);
    if new * 8 > bat.end - bat.start {
        // A larger BAT goes to the end of the file; both region tables name it.
        let start = file.len().next_multiple_of(ALIGN);
        bat = start..start + (new * 8).next_multiple_of(ALIGN);
        file.set_length(bat.end)?;
        new_regions(file, bat.clone(), parsed.headers.regions.metadata.clone())?;
    }
    file.write_at(bat.start, &table)?;
    metadata::set_disk_bytes(file, &parsed.headers.regions, size)?;
    if metadata.leave_allocated && size > metadata.disk_bytes {
        device::append_blocks(file, &bat, metadata, size)?;
    }
    parsed.headers.renew(file)
}

/// Leaves a log with one entry that writes `sector` at `place`, as a writer that died does.
#[cfg(test)]
pub(super) fn leave_log(file: &DiskMut, place: u64, sector: &[u8], sequence: u64) -> Result<()> {
    let mut headers = header::read(&file.as_disk(), &mut Vec::new())?;
    headers.current.log_guid = vmrescue_base::guid::Guid::random();
    headers.write(file)?;
    let current = &headers.current;
    file.write_at(current.log.start, &log::entry(&current.log_guid, sequence, file.len(), place, sector))
}
