//! What a delta for a program file does to its source first: the new time at all places that hold the old one.
//!
//! Worked out from genuine triples of source, delta and target, and Microsoft's "PE Format". Files whose sections did not move come out
//! exactly; the address transforms are missing.

use super::bits::Stream;
use super::damaged;
use vmrescue_base::bytes::{put_at, u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Directories: export, debug, the header of managed code.
const EXPORT: usize = 0;
const DEBUG: usize = 6;
const MANAGED: usize = 14;
/// An entry of the debug directory; its type for reproducible builds.
const DEBUG_ENTRY: usize = 28;
const REPRO: u32 = 16;
const MAX_DEBUG_ENTRIES: usize = 64;
const MAX_SECTIONS: usize = 96;

struct Image<'a> {
    bytes: &'a [u8],
    header: usize,
}

impl Image<'_> {
    fn number(&self, at: usize) -> Option<usize> {
        u32_at(self.bytes, at).map(|number| number as usize)
    }

    /// Place and length of a directory, in the file.
    fn directory(&self, index: usize) -> Option<(usize, usize)> {
        let optional = self.header + 24;
        let base = match u16_at(self.bytes, optional)? {
            0x10b => 96,
            0x20b => 112,
            _ => return None,
        };
        if index >= self.number(optional + base - 4)? {
            return None;
        }
        let at = optional + base + 8 * index;
        let (address, length) = (self.number(at)?, self.number(at + 4)?);
        (length > 0).then_some(())?;
        Some((self.place(address)?, length))
    }

    /// Where an address lies in the file.
    fn place(&self, address: usize) -> Option<usize> {
        let sections = usize::from(u16_at(self.bytes, self.header + 6)?).min(MAX_SECTIONS);
        let table = self.header + 24 + usize::from(u16_at(self.bytes, self.header + 20)?);
        (0..sections).find_map(|index| {
            let at = table + 40 * index;
            let (start, length, place) =
                (self.number(at + 12)?, self.number(at + 16)?, self.number(at + 20)?);
            let inside = address.checked_sub(start).filter(|inside| *inside < length)?;
            place.checked_add(inside)
        })
    }
}

/// A program file; `None` for what is none.
fn image(bytes: &[u8]) -> Option<Image<'_>> {
    let header = u32_at(bytes, 0x3c)? as usize;
    (bytes.get(header..header.checked_add(4)?)? == b"PE\0\0").then_some(Image { bytes, header })
}

/// Places of the time in a program file.
fn times(image: &Image<'_>) -> Vec<usize> {
    let mut found = vec![image.header + 8];
    found.extend(image.directory(EXPORT).map(|(at, _)| at + 4));
    if let Some((at, length)) = image.directory(DEBUG) {
        for index in 0..(length / DEBUG_ENTRY).min(MAX_DEBUG_ENTRIES) {
            let entry = at + index * DEBUG_ENTRY;
            found.push(entry + 4);
            if image.number(entry + 12) == Some(REPRO as usize)
                && let (Some(size), Some(place)) = (image.number(entry + 16), image.number(entry + 24))
                && let Some(last) =
                    place.checked_add(size).and_then(|end| end.checked_sub(4)).filter(|_| size >= 4)
            {
                found.push(last);
            }
        }
    }
    found
}

/// Writes the time of the target over the source's own.
pub(super) fn rewrite(source: &mut [u8], (preprocess, offset): (&[u8], u64)) -> Result<()> {
    if preprocess.is_empty() {
        return Ok(());
    }
    // Base of the image (64 bits), zero, time of the target; what follows are tables of what moved.
    let mut stream = Stream::open(preprocess, offset)?;
    for _ in 0..3 {
        stream.take(32)?;
    }
    let time = stream.take(32)? as u32; // 32 bits
    let Some(image) = image(source) else { return Ok(()) };
    if image.directory(MANAGED).is_some() {
        return Err(Error::unsupported(Layer::Payload, "a delta for a program file of managed code"));
    }
    let places = times(&image);
    let old = places.first().and_then(|first| u32_at(source, *first));
    for place in places {
        if u32_at(source, place) == old && !put_at(source, place, &time.to_le_bytes()) {
            return Err(damaged("the time of the source is not where it was"));
        }
    }
    Ok(())
}
