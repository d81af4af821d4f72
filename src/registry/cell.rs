//! Bins and cells: the lowest level of a hive. Offsets count from the first bin, 4096 bytes into the file.

use vmrescue_base::bytes::u32_at;
use vmrescue_base::names;
pub(super) use vmrescue_base::names::compare as compare_names;

/// Bytes of the base block, ahead of the first bin.
pub(super) const BASE_BYTES: usize = 4096;
/// The largest cell that Windows takes for one in use.
pub(super) const MAX_CELL_BYTES: usize = 1 << 20;
/// "No cell".
pub(super) const NONE: u32 = u32::MAX;

/// The content of the allocated cell at `offset`, without its size field.
pub(super) fn cell(bytes: &[u8], offset: u32) -> Option<&[u8]> {
    if offset == NONE || !offset.is_multiple_of(8) {
        return None;
    }
    let start = BASE_BYTES.checked_add(offset as usize)?;
    let size = u32_at(bytes, start)?.cast_signed();
    let length = usize::try_from(size.checked_neg()?).ok().filter(|length| *length >= 8)?;
    bytes.get(start + 4..start.checked_add(length)?)
}

/// The content of an allocated cell that begins with `signature`.
pub(super) fn signed<'a>(bytes: &'a [u8], offset: u32, signature: &[u8; 2]) -> Option<&'a [u8]> {
    cell(bytes, offset).filter(|content| content.get(..2) == Some(signature))
}

/// Bytes of all bins, as the base block says, cut to what is there.
pub(super) fn bins_bytes(bytes: &[u8]) -> usize {
    (u32_at(bytes, 40).unwrap_or(0) as usize).min(bytes.len().saturating_sub(BASE_BYTES))
}

/// The checksum of the base block: XOR of its first 127 numbers, 0 and -1 avoided.
pub(super) fn base_checksum(bytes: &[u8]) -> u32 {
    let sum = (0..127).fold(0, |sum, i| sum ^ u32_at(bytes, i * 4).unwrap_or(0));
    match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    }
}

/// Text of a key or value name: Latin-1 when `compressed`, else UTF-16.
pub(super) fn name_text(bytes: &[u8], compressed: bool) -> String {
    if compressed && bytes.is_ascii() {
        // Nearly all names are; this is the inner loop of every walk.
        String::from_utf8_lossy(bytes).into_owned()
    } else if compressed {
        bytes.iter().map(|b| char::from(*b)).collect()
    } else {
        names::from_bytes(bytes)
    }
}

/// Bytes of a name on disk, and whether they are compressed (Latin-1): all names that can be are.
pub(super) fn name_bytes(name: &str) -> (Vec<u8>, bool) {
    let latin: Option<Vec<u8>> = name.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    match latin {
        Some(bytes) => (bytes, true),
        None => (names::to_bytes(name), false),
    }
}

fn hash_of(upper: impl Iterator<Item = u16>) -> u32 {
    upper.fold(0u32, |hash, unit| hash.wrapping_mul(37).wrapping_add(u32::from(unit)))
}

/// The hash of a name in `lh` lists.
pub(super) fn name_hash(name: &str) -> u32 {
    hash_of(names::units(name).map(names::upper))
}

/// The same of a name in upper case.
pub(super) fn name_hash_units(upper: &[u16]) -> u32 {
    hash_of(upper.iter().copied())
}

/// The hint of a name in `lf` lists: its first four characters, or nothing when one of them is not Latin-1.
pub(super) fn name_hint(name: &str) -> u32 {
    name_hint_units(&names::to_units(name))
}

/// False for a hint that no name of this upper case has.
pub(super) fn hint_allows(hint: u32, upper: &[u16]) -> bool {
    let fits = |(place, byte): (usize, u8)| match upper.get(place) {
        Some(unit) => names::upper(u16::from(byte)) == *unit,
        None => byte == 0,
    };
    hint == 0 || hint.to_le_bytes().into_iter().enumerate().all(fits)
}

/// True when the stored bytes of a name are this one, which is in upper case.
pub(super) fn is_name(bytes: &[u8], compressed: bool, upper: &[u16]) -> bool {
    if compressed {
        return bytes.len() == upper.len()
            && bytes.iter().zip(upper).all(|(byte, unit)| names::upper(u16::from(*byte)) == *unit);
    }
    // An odd last byte is ignored, as it is when the name is shown.
    let pairs = bytes.as_chunks::<2>().0;
    pairs.len() == upper.len()
        && pairs.iter().zip(upper).all(|(pair, unit)| names::upper(u16::from_le_bytes(*pair)) == *unit)
}

/// The units of a name in upper case.
pub(super) fn upper_units(name: &str) -> Vec<u16> {
    names::units(name).map(names::upper).collect()
}

/// The same of units.
pub(super) fn name_hint_units(name: &[u16]) -> u32 {
    let mut hint = [0u8; 4];
    for (byte, unit) in hint.iter_mut().zip(name) {
        match u8::try_from(*unit) {
            Ok(latin) => *byte = latin,
            Err(_) => return 0,
        }
    }
    u32::from_le_bytes(hint)
}
