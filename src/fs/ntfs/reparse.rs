//! Reparse points ([MS-FSCC] 2.1.2): where symbolic links and junctions point to, and the WOF tag.

use crate::Reparse;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::{utf16le_bytes, utf16le_lossy};

const MOUNT_POINT: u32 = 0xA000_0003;
const SYMLINK: u32 = 0xA000_000C;
pub(crate) use crate::tag::WOF;

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

/// The reparse point of a symbolic link that leads to `target` (`\??\C:\dir` or, when it is relative to the link's
/// directory, `..\x`); `shown` is what programs print.
///
/// # Errors
/// `Limit` for names that do not fit.
pub fn symbolic_link(target: &str, shown: &str, relative: bool) -> Result<Vec<u8>> {
    build(SYMLINK, target, shown, Some(u32::from(relative)))
}

/// The reparse point of a junction or mount point: `target` as `\??\C:\dir` or `\??\Volume{...}\`.
///
/// # Errors
/// As [`symbolic_link`].
pub fn mount_point(target: &str, shown: &str) -> Result<Vec<u8>> {
    build(MOUNT_POINT, target, shown, None)
}

/// Both names end with a NUL that their lengths do not count.
fn build(tag: u32, target: &str, shown: &str, flags: Option<u32>) -> Result<Vec<u8>> {
    let (target, shown) = (utf16le_bytes(target), utf16le_bytes(shown));
    let names = [&target[..], &[0, 0], &shown, &[0, 0]].concat();
    let length = 8 + flags.map_or(0, |_| 4) + names.len();
    if length > 16 * 1024 - 8 {
        return Err(Error::limit(Layer::Ntfs, "the target of a reparse point").found(length));
    }
    let short = |number: usize| (number as u16).to_le_bytes(); // below 16 KiB
    let mut out = tag.to_le_bytes().to_vec();
    for number in [length, 0, 0, target.len(), target.len() + 2, shown.len()] {
        out.extend_from_slice(&short(number));
    }
    out.extend(flags.map(u32::to_le_bytes).iter().flatten());
    out.extend_from_slice(&names);
    Ok(out)
}
