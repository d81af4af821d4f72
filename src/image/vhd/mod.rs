//! VHD: the Virtual Hard Disk Image Format Specification, version 1.0. All numbers are big-endian.

mod device;
mod footer;

pub(super) use device::{BLOCK_BYTES, bitmap_bytes};
pub(super) use footer::{DynamicHeader, FOOTER_BYTES, Footer, KIND_DIFFERENCING, KIND_DYNAMIC, KIND_FIXED};

use super::{Container, ContainerInfo, Format, Variant, parent_missing};
use crate::block::{Disk, DiskMut};
use crate::error::{Defect, Error, Layer, Result, Severity};
use crate::guid::Guid;
use device::VhdDevice;
use std::sync::Arc;

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
            Some(DynamicHeader::parse(&file.read_vec(footer.data_offset, 1024)?, footer.data_offset)?)
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
    if !parsed.at_end {
        return Err(Error::refused(Layer::Vhd, "the footer at the end of the file is damaged")
            .advice("convert the disk into a new file first (`vmrescue disk convert`)"));
    }
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

pub(super) fn check(file: &Disk) -> Result<Vec<Defect>> {
    let parsed = match parse(file) {
        Ok(parsed) => parsed,
        Err(e) => return Ok(vec![Defect::from_error("vhd-unreadable", Severity::Error, &e)]),
    };
    let mut defects = parsed.defects;
    if let Some(header) = parsed.dynamic {
        if file.read_vec(0, 512)? != file.read_vec(file.len() - 512, 512)? {
            let text = "the footer and its copy at the start of the file differ";
            defects.push(Defect::new("vhd-footer-copy-differs", Severity::Warning, Layer::Vhd, 0, text));
        }
        match VhdDevice::open(file.clone(), None, &parsed.footer, header, None) {
            Ok(device) => device.check(&mut defects),
            Err(e) => defects.push(Defect::from_error("vhd-bat-unreadable", Severity::Error, &e)),
        }
    }
    Ok(defects)
}
