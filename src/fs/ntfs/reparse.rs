//! Reparse points ([MS-FSCC] 2.1.2): where symbolic links and junctions point to, and the WOF tag.

use crate::bytes::{slice_at, u16_at, u32_at};
use crate::fs::Reparse;
use crate::text::utf16le_lossy;

const MOUNT_POINT: u32 = 0xA000_0003;
const SYMLINK: u32 = 0xA000_000C;
/// A file whose data lies compressed in the stream `WofCompressedData`, or in a WIM.
pub(crate) const WOF: u32 = 0x8000_0017;

/// Takes a reparse point apart; the target of unknown tags is not guessed.
pub(crate) fn parse(bytes: &[u8]) -> Option<Reparse> {
    let tag = u32_at(bytes, 0)?;
    let length = usize::from(u16_at(bytes, 4)?);
    let data = slice_at(bytes, 8, length).or_else(|| bytes.get(8..))?;
    // Offsets of the names count from behind the four lengths, and for links also behind the flags.
    let names = match tag {
        MOUNT_POINT => 8,
        SYMLINK => 12,
        _ => return Some(Reparse { tag, target: None }),
    };
    let target = (|| {
        let (offset, length) = (usize::from(u16_at(data, 0)?), usize::from(u16_at(data, 2)?));
        slice_at(data, names + offset, length)
    })();
    Some(Reparse { tag, target: target.map(utf16le_lossy) })
}
