//! What the specification says of footer, header and tables, and a reader can do without. A writer refuses what is severe.

use super::device::bitmap_bytes;
use super::footer::{DynamicHeader, FOOTER_BYTES};
use super::{Parsed, fixed_ranges};
use vmrescue_base::bytes::{array_at, is_zero};
use vmrescue_base::error::{Defect, Layer, Result, Severity};
use vmrescue_block::Disk;

/// The only version of footers and of dynamic disk headers there is.
const VERSION: u32 = 0x0001_0000;

fn number(bytes: &[u8], at: usize) -> u32 {
    // Both structures were read whole before.
    array_at(bytes, at).map_or(0, u32::from_be_bytes)
}

/// Checks the structures of a file that could be parsed; blocks are checked by the device.
pub(super) fn structures(file: &Disk, parsed: &Parsed, defects: &mut Vec<Defect>) -> Result<()> {
    let mut add = |code, severity, at: u64, text: String| {
        defects.push(Defect::new(code, severity, Layer::Vhd, at, text));
    };
    let place = if parsed.at_end { file.len() - FOOTER_BYTES } else { 0 };
    let footer = file.read_vec(place, FOOTER_BYTES as usize)?;
    if number(&footer, 12) != VERSION {
        let text = format!("the footer has version {:#x}, not {VERSION:#x}", number(&footer, 12));
        add("vhd-version", Severity::Error, place, text);
    }
    if footer[84] != 0 {
        let text =
            "the disk belongs to a machine whose state was saved: what is changed here is lost or breaks it";
        add("vhd-saved-state", Severity::Warning, place, text.to_string());
    }
    if !is_zero(&footer[85..]) {
        add("vhd-reserved", Severity::Note, place, "reserved bytes of the footer are not zero".to_string());
    }
    let Some(header) = &parsed.dynamic else { return Ok(()) };
    let at = parsed.footer.data_offset;
    let bytes = file.read_vec(at, 1024)?;
    if number(&bytes, 24) != VERSION {
        let text = format!("the dynamic disk header has version {:#x}, not {VERSION:#x}", number(&bytes, 24));
        add("vhd-header-version", Severity::Error, at, text);
    }
    if !is_zero(&bytes[768..]) {
        let text = "reserved bytes of the dynamic disk header are not zero".to_string();
        add("vhd-reserved", Severity::Note, at, text);
    }
    if !at.is_multiple_of(512) || at < FOOTER_BYTES {
        let text = format!("the dynamic disk header at {at:#x} is not behind the copy of the footer");
        add("vhd-header-misplaced", Severity::Error, at, text);
    }
    places(file, header, at, defects);
    Ok(())
}

/// The BAT, the texts of the parent locators, and whether they share bytes with anything.
fn places(file: &Disk, header: &DynamicHeader, at: u64, defects: &mut Vec<Defect>) {
    let end = file.len() - FOOTER_BYTES;
    let bat = header.table_offset..header.table_offset.saturating_add(u64::from(header.entries) * 4);
    if !bat.start.is_multiple_of(512) || bat.end > end {
        let text = format!(
            "the BAT ({:#x} to {:#x}) does not lie in whole sectors inside the file",
            bat.start, bat.end
        );
        defects.push(Defect::new("vhd-table-misplaced", Severity::Error, Layer::Vhd, at, text));
    }
    for range in header.locator_ranges().filter(|range| range.end > end) {
        let text = "the text of a parent locator lies outside of the file";
        defects.push(Defect::new("vhd-locator-misplaced", Severity::Warning, Layer::Vhd, range.start, text));
    }
    let mut taken = fixed_ranges(header, at);
    taken.retain(|range| !range.is_empty());
    taken.sort_by_key(|range| range.start);
    for pair in taken.windows(2).filter(|pair| pair[0].end > pair[1].start) {
        let text = "the footer's copy, the header, the BAT or a locator share bytes of the file";
        defects.push(Defect::new("vhd-structures-overlap", Severity::Error, Layer::Vhd, pair[1].start, text));
    }
    // Block sizes are powers of two: a bitmap of whole sectors follows.
    debug_assert!(bitmap_bytes(u64::from(header.block_bytes)).is_multiple_of(512));
}
