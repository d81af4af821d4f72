//! What every device must do. Each room's devices are put through this in their own tests.

use crate::{Disk, DiskMut};
use vmrescue_base::error::ErrorKind;

/// Reads of every size and place equal `expected`; nothing outside can be read; extents cover the device.
///
/// # Panics
/// When the device does not conform.
pub fn read_suite(disk: &Disk, expected: &[u8]) {
    let length = expected.len() as u64;
    assert_eq!(disk.len(), length);
    for (at, size) in
        [(0, 1), (0, expected.len()), (expected.len() / 2, 7), (expected.len() / 3, expected.len() / 2)]
    {
        let there = disk.read_vec(at as u64, size).ok();
        assert_eq!(there.as_deref(), expected.get(at..at + size), "{size} bytes at {at}");
    }
    for (at, size) in [(length, 1), (length - 1, 2), (u64::MAX, 1)] {
        assert_eq!(disk.read_vec(at, size).err().map(|e| e.kind()), Some(ErrorKind::Invalid));
    }
    let mut at = 0;
    while at < length {
        let Ok(extent) = disk.extent_at(at) else { panic!("no extent at {at}") };
        assert!(extent.length_bytes > 0 && extent.length_bytes <= length - at);
        if extent.kind == crate::ExtentKind::Zero {
            let end = (at + extent.length_bytes) as usize;
            assert!(expected[at as usize..end].iter().all(|byte| *byte == 0));
        }
        at += extent.length_bytes;
    }
}

/// Writes and zeroes are read back, neighbours stay, nothing outside is written. Leaves the device changed.
///
/// # Panics
/// When the device does not conform.
pub fn write_suite(disk: &DiskMut) {
    let length = disk.len();
    assert!(length >= 100_000, "the suite wants a device of 100 kB or more");
    let Ok(mut model) = disk.as_disk().read_vec(0, length as usize) else {
        panic!("the device cannot be read")
    };
    for (i, (at, size)) in
        [(0u64, 1usize), (511, 2), (4095, 4098), (50_000, 30_000), (length - 3, 3)].into_iter().enumerate()
    {
        let data: Vec<u8> = (0..size).map(|j| (i * 31 + j) as u8 | 1).collect();
        assert!(disk.write_at(at, &data).is_ok());
        model[at as usize..at as usize + size].copy_from_slice(&data);
    }
    for range in [600..700u64, 60_000..70_001, 5..5] {
        assert!(disk.zero_at(range.clone()).is_ok());
        model[range.start as usize..range.end as usize].fill(0);
    }
    assert!(disk.flush().is_ok());
    for (at, data) in [(length, &[1u8][..]), (length - 1, &[1, 2])] {
        assert_eq!(disk.write_at(at, data).err().map(|e| e.kind()), Some(ErrorKind::Invalid));
    }
    read_suite(&disk.as_disk(), &model);
}
