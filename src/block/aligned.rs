//! Devices that move whole sectors only: requests of any size become whole ones, and the length is found by trying. Raw disks
//! of Windows (`\\.\PhysicalDriveN`) are such devices.

use vmrescue_base::error::Result;

/// Fills `buf` from `offset` by reading whole sectors with `read`.
///
/// # Errors
/// Of `read`.
pub(super) fn read_aligned(
    sector: u64,
    offset: u64,
    buf: &mut [u8],
    read: impl Fn(u64, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let length = buf.len() as u64;
    if offset.is_multiple_of(sector) && length.is_multiple_of(sector) {
        return read(offset, buf);
    }
    let start = offset - offset % sector;
    let mut whole = vec![0; ((offset + length).next_multiple_of(sector) - start) as usize];
    read(start, &mut whole)?;
    let skip = (offset - start) as usize;
    buf.copy_from_slice(&whole[skip..skip + buf.len()]);
    Ok(())
}

/// Writes `data` at `offset` by whole sectors; the cut ones at both ends are read first.
///
/// # Errors
/// Of `read` and `write`.
pub(super) fn write_aligned(
    sector: u64,
    offset: u64,
    data: &[u8],
    read: impl Fn(u64, &mut [u8]) -> Result<()>,
    write: impl Fn(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let length = data.len() as u64;
    if offset.is_multiple_of(sector) && length.is_multiple_of(sector) {
        return write(offset, data);
    }
    let start = offset - offset % sector;
    let mut whole = vec![0; ((offset + length).next_multiple_of(sector) - start) as usize];
    let last = whole.len() - sector as usize;
    read(start, &mut whole[..sector as usize])?;
    if last > 0 {
        read(start + last as u64, &mut whole[last..])?;
    }
    let skip = (offset - start) as usize;
    whole[skip..skip + data.len()].copy_from_slice(data);
    write(start, &whole)
}

/// Length in bytes of a device that does not tell it: the first sector that `is_there` denies.
pub(super) fn length_by_trying(sector: u64, is_there: impl Fn(u64) -> bool) -> u64 {
    if !is_there(0) {
        return 0;
    }
    let (mut there, mut beyond) = (0u64, 1u64);
    while is_there(beyond * sector) {
        there = beyond;
        match beyond.checked_mul(2).filter(|next| next.checked_mul(sector * 2).is_some()) {
            Some(next) => beyond = next,
            None => break,
        }
    }
    while beyond - there > 1 {
        let middle = there + (beyond - there) / 2;
        if is_there(middle * sector) { there = middle } else { beyond = middle }
    }
    (there + 1) * sector
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn every_request_becomes_whole_sectors() {
        let medium = RefCell::new((0..8192u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
        let read = |offset: u64, buf: &mut [u8]| {
            assert!(offset.is_multiple_of(512) && buf.len().is_multiple_of(512));
            buf.copy_from_slice(&medium.borrow()[offset as usize..offset as usize + buf.len()]);
            Ok(())
        };
        let write = |offset: u64, data: &[u8]| {
            assert!(offset.is_multiple_of(512) && data.len().is_multiple_of(512));
            medium.borrow_mut()[offset as usize..offset as usize + data.len()].copy_from_slice(data);
            Ok(())
        };
        let mut model = medium.borrow().clone();
        for (offset, length) in [(0u64, 512usize), (1, 1), (511, 2), (700, 3000), (8191, 1), (4096, 1024)] {
            let data = vec![(offset % 200) as u8 + 1; length];
            write_aligned(512, offset, &data, read, write).unwrap();
            model[offset as usize..offset as usize + length].copy_from_slice(&data);
            assert_eq!(*medium.borrow(), model);
            let mut back = vec![0; length];
            read_aligned(512, offset, &mut back, read).unwrap();
            assert_eq!(back, data);
        }
    }

    #[test]
    fn the_length_is_found_by_trying() {
        for sectors in [0u64, 1, 2, 3, 1000, 4097, 1 << 40] {
            assert_eq!(length_by_trying(512, |offset| offset < sectors * 512), sectors * 512);
        }
    }
}
