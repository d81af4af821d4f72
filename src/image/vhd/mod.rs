//! VHD: the Virtual Hard Disk Image Format Specification, version 1.0. All numbers are big-endian.

mod check;
mod device;
mod footer;
#[cfg(test)]
mod tests;

pub(super) use device::{BLOCK_BYTES, bitmap_bytes};
pub(super) use footer::{DynamicHeader, FOOTER_BYTES, Footer, KIND_DIFFERENCING, KIND_DYNAMIC, KIND_FIXED};

use super::{Container, ContainerInfo, Format, Variant, parent_missing};
use device::VhdDevice;
use std::ops::Range;
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::guid::Guid;
use vmrescue_block::{Disk, DiskMut};

/// True when a footer stands at the end or a copy at the start.
pub(super) fn looks_like(file: &Disk) -> Result<bool> {
    let length = file.len();
    if length < 512 {
        return Ok(false);
    }
    // Virtual PC before 2004 wrote footers of 511 bytes.
    let places = [Some(length - 512), Some(length - 511), Some(0)];
    for place in places.into_iter().flatten() {
        if file.read_vec(place, 8)? == b"conectix" {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Parsed {
    footer: Footer,
    /// The footer stands at the end of the file, where it belongs.
    at_end: bool,
    dynamic: Option<DynamicHeader>,
    defects: Vec<Defect>,
}

fn parse(file: &Disk) -> Result<Parsed> {
    let mut defects = Vec::new();
    let end = file.len() - 512;
    let last = file.read_vec(end, 512)?;
    let (footer, at_end) = match Footer::parse(&last) {
        Ok(footer) => (footer, true),
        Err(first) => {
            defects.push(Defect::new(
                "vhd-footer-bad",
                Severity::Warning,
                Layer::Vhd,
                end,
                "the footer at the end of the file is damaged; its copy is used, or what can be read of it",
            ));
            let copy = Footer::parse(&file.read_vec(0, 512)?);
            // Some tools copy a footer and forget its checksum: what it says is used when nothing better is there.
            let copy = copy.or_else(|_| Footer::parse_with(&last, false));
            (copy.map_err(|_| first.at(end).advice("neither the footer nor its copy can be read"))?, false)
        }
    };
    let dynamic = match footer.kind {
        KIND_FIXED => {
            if footer.disk_bytes > if at_end { end } else { file.len() } {
                return Err(Error::damaged(Layer::Vhd, "the disk is larger than the file")
                    .at(end)
                    .expected(format!("{:#x} bytes", footer.disk_bytes))
                    .found(format!("{end:#x}")));
            }
            None
        }
        KIND_DYNAMIC | KIND_DIFFERENCING => {
            let header = DynamicHeader::parse(&file.read_vec(footer.data_offset, 1024)?, footer.data_offset)?;
            if !header.sum_right {
                let text = "the checksum of the dynamic disk header is wrong; what it says is used";
                let at = footer.data_offset;
                defects.push(Defect::new("vhd-header-checksum", Severity::Warning, Layer::Vhd, at, text));
            }
            Some(header)
        }
        kind => return Err(Error::unsupported(Layer::Vhd, "a kind of VHD that does not exist").found(kind)),
    };
    Ok(Parsed { footer, at_end, dynamic, defects })
}

fn info_of(parsed: &Parsed, file: &Disk) -> ContainerInfo {
    let (footer, dynamic) = (&parsed.footer, parsed.dynamic.as_ref());
    let differencing = footer.kind == KIND_DIFFERENCING;
    ContainerInfo {
        format: Format::Vhd,
        variant: match footer.kind {
            KIND_FIXED => Variant::Fixed,
            KIND_DYNAMIC => Variant::Dynamic,
            _ => Variant::Differencing,
        },
        size: footer.disk_bytes,
        file_size: file.len(),
        block_bytes: dynamic.map(|header| u64::from(header.block_bytes)),
        logical_sector_bytes: 512,
        physical_sector_bytes: 512,
        identity: Some(Guid(footer.unique_id).to_string()),
        content_identity: Some(Guid(footer.unique_id).to_string()),
        creator: Some(footer.creator()),
        log_replayed: false,
        parent_hints: dynamic
            .filter(|_| differencing)
            .map(|header| header.parent_hints(file))
            .unwrap_or_default(),
        parent_identity: dynamic.filter(|_| differencing).map(|header| Guid(header.parent_id).to_string()),
        time: Some(footer.time),
        parent_time: dynamic.filter(|_| differencing).map(|header| header.parent_time),
        parent: None,
    }
}

pub(super) fn info(file: &Disk) -> Result<ContainerInfo> {
    Ok(info_of(&parse(file)?, file))
}

fn refuse_orphan(parsed: &Parsed, parent: Option<&Disk>) -> Result<()> {
    if parsed.footer.kind == KIND_DIFFERENCING && parent.is_none() {
        return Err(parent_missing(Layer::Vhd));
    }
    Ok(())
}

/// A writer does not start on a footer or header that it cannot trust, nor on structures that are severely damaged.
fn refuse_damaged(file: &Disk, parsed: &Parsed) -> Result<()> {
    let what = match &parsed.dynamic {
        _ if !parsed.at_end => "the footer at the end of the file is damaged",
        Some(header) if !header.sum_right => "the checksum of the dynamic disk header is wrong",
        _ => return super::refuse_severe(&check(file)?),
    };
    Err(Error::refused(Layer::Vhd, what)
        .advice("convert the disk into a new file first (`vmrescue disk convert`)"))
}

pub(super) fn open(file: &Disk, parent: Option<Disk>) -> Result<Container<Disk>> {
    let parsed = parse(file)?;
    refuse_orphan(&parsed, parent.as_ref())?;
    let info = info_of(&parsed, file);
    let disk = match parsed.dynamic {
        None => file.window(0..parsed.footer.disk_bytes)?,
        Some(header) => {
            Disk::new(Arc::new(VhdDevice::open(file.clone(), None, &parsed.footer, header, parent)?))
        }
    };
    Ok(Container { disk, info, defects: parsed.defects })
}

pub(super) fn open_mut(file: &DiskMut, parent: Option<Disk>) -> Result<Container<DiskMut>> {
    let parsed = parse(&file.as_disk())?;
    refuse_orphan(&parsed, parent.as_ref())?;
    refuse_damaged(&file.as_disk(), &parsed)?;
    let info = info_of(&parsed, &file.as_disk());
    let disk = match parsed.dynamic {
        None => file.window(0..parsed.footer.disk_bytes)?,
        Some(header) => {
            let device = VhdDevice::open(file.as_disk(), Some(file.clone()), &parsed.footer, header, parent)?;
            DiskMut::new(Arc::new(device))
        }
    };
    Ok(Container { disk, info, defects: parsed.defects })
}

/// Everything in the file that is no block: the copy of the footer, the header, the texts of locators, the BAT.
fn fixed_ranges(header: &DynamicHeader, at: u64) -> Vec<Range<u64>> {
    let bat = header.table_offset
        ..header.table_offset.saturating_add((u64::from(header.entries) * 4).next_multiple_of(512));
    let mut fixed = vec![0..FOOTER_BYTES, at..at.saturating_add(1024), bat];
    fixed.extend(header.locator_ranges());
    fixed
}

/// See [`super::compact`].
pub(super) fn compact(
    file: &DiskMut,
    parent: Option<Disk>,
    is_free: &dyn Fn(Range<u64>) -> bool,
) -> Result<u64> {
    let parsed = parse(&file.as_disk())?;
    refuse_orphan(&parsed, parent.as_ref())?;
    refuse_damaged(&file.as_disk(), &parsed)?;
    let Some(header) = parsed.dynamic else { return Ok(0) };
    let fixed = fixed_ranges(&header, parsed.footer.data_offset);
    VhdDevice::open(file.as_disk(), Some(file.clone()), &parsed.footer, header, parent)?
        .compact(&fixed, is_free)
}

/// See [`super::resize`].
pub(super) fn resize(file: &DiskMut, size: u64) -> Result<()> {
    let parsed = parse(&file.as_disk())?;
    refuse_damaged(&file.as_disk(), &parsed)?;
    let (old_end, header_at) = (file.len() - FOOTER_BYTES, parsed.footer.data_offset);
    let footer = Footer { disk_bytes: size, ..parsed.footer }.to_bytes();
    let Some(mut header) = parsed.dynamic else {
        file.set_length(size.max(old_end) + FOOTER_BYTES)?;
        file.zero_at(old_end..old_end + FOOTER_BYTES)?;
        file.set_length(size + FOOTER_BYTES)?;
        return file.write_at(size, &footer);
    };
    let blocks = size.div_ceil(u64::from(header.block_bytes));
    let old_blocks = u64::from(header.entries);
    let room = |entries: u64| (entries * 4).next_multiple_of(512);
    let table = file.as_disk().read_vec(header.table_offset, (old_blocks * 4) as usize)?;
    let mut bytes = table;
    bytes.resize((blocks * 4) as usize, 0xff);
    bytes.resize(room(blocks.max(1)) as usize, 0xff);
    if room(blocks) > room(old_blocks) {
        // A larger BAT goes to the end of the file, ahead of the footer.
        header.table_offset = old_end;
        file.set_length(old_end + bytes.len() as u64 + FOOTER_BYTES)?;
    }
    file.write_at(header.table_offset, &bytes)?;
    header.entries = u32::try_from(blocks).unwrap_or(u32::MAX);
    file.write_at(header_at, &header.to_bytes())?;
    file.write_at(0, &footer)?;
    file.write_at(file.len() - FOOTER_BYTES, &footer)
}

pub(super) fn check(file: &Disk) -> Result<Vec<Defect>> {
    let parsed = match parse(file) {
        Ok(parsed) => parsed,
        Err(e) => return Ok(vec![Defect::from_error("vhd-unreadable", Severity::Error, &e)]),
    };
    let mut defects = parsed.defects.clone();
    check::structures(file, &parsed, &mut defects)?;
    if let Some(header) = parsed.dynamic {
        if file.read_vec(0, 512)? != file.read_vec(file.len() - 512, 512)? {
            let text = "the footer and its copy at the start of the file differ";
            defects.push(Defect::new("vhd-footer-copy-differs", Severity::Warning, Layer::Vhd, 0, text));
        }
        let fixed = fixed_ranges(&header, parsed.footer.data_offset);
        match VhdDevice::open(file.clone(), None, &parsed.footer, header, None) {
            Ok(device) => device.check(&fixed, &mut defects),
            Err(e) => defects.push(Defect::from_error("vhd-bat-unreadable", Severity::Error, &e)),
        }
    }
    Ok(defects)
}
