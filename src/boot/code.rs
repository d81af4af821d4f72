//! The code that a BIOS starts: in the master boot record, and in the boot sector of the active partition.
//!
//! Whether code is Microsoft's is not judged: other makers' boot loaders work too. Code that is all zero is none.

use crate::screens::{Fault, Part};
use crate::{Link, Outcome, Walk};
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::Result;
use vmrescue_partition::TableKind;
use vmrescue_windows::{BootLayout, Machine};

/// Bytes of code in the master boot record, ahead of the disk signature.
const RECORD_CODE: usize = 440;
/// Where the code begins in the boot sector of an NTFS volume.
const VOLUME_CODE: std::ops::Range<usize> = 0x54..0x1fe;

pub(crate) fn look(machine: &Machine, layout: &BootLayout, walk: &mut Walk<'_>) -> Result<()> {
    if machine.table.kind != TableKind::Mbr {
        return Ok(());
    }
    let record = machine.disk.read_vec(0, 512)?;
    let broken = is_zero(&record[..RECORD_CODE]).then(|| {
        let words = "the code of the master boot record is all zero".to_string();
        walk.broken(Part::BootRecord, Fault::Zeroed, words, Outcome::Stops)
    });
    walk.links.push(Link {
        part: Part::BootRecord,
        name: "master boot record".into(),
        place: "sector 0".into(),
        why: "started by the BIOS".into(),
        service: None,
        of: None,
        driver: None,
        broken,
    });
    let Some(volume) = layout.system.first().map(|index| &machine.volumes[*index]) else { return Ok(()) };
    if volume.fs.as_ref().is_none_or(|fs| fs.info().kind != "ntfs") {
        return Ok(());
    }
    let sector = machine.disk.read_vec(volume.range.start, 512)?;
    let broken = is_zero(&sector[VOLUME_CODE]).then(|| {
        let words = format!("the boot sector of partition {} has no boot code", volume.number);
        walk.broken(Part::VolumeCode, Fault::Zeroed, words, Outcome::Stops)
    });
    walk.links.push(Link {
        part: Part::VolumeCode,
        name: "boot sector".into(),
        place: format!("partition {}, sector 0", volume.number),
        why: "started by the master boot record".into(),
        service: None,
        of: None,
        driver: None,
        broken,
    });
    Ok(())
}
