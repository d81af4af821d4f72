//! Little-endian numbers in byte slices, read and written with a bounds check instead of a panic.

/// The `N` bytes at `offset`, if they are all there.
pub fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The 16-bit little-endian number at `offset`.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

/// The 32-bit little-endian number at `offset`.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// The 64-bit little-endian number at `offset`.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

/// The `length` bytes at `offset`, if they are all there.
pub fn slice_at(bytes: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(length)?)
}

/// Writes `value` at `offset`; false when it does not fit, and then nothing is written.
#[must_use]
pub fn put_at(bytes: &mut [u8], offset: usize, value: &[u8]) -> bool {
    let Some(end) = offset.checked_add(value.len()) else { return false };
    match bytes.get_mut(offset..end) {
        Some(target) => {
            target.copy_from_slice(value);
            true
        }
        None => false,
    }
}

/// True when every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Whole words at a time: this runs over gigabytes when disks are converted.
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && tail.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_or_written_outside() {
        let mut four = [1, 2, 3, 4];
        assert_eq!(u16_at(&four, 2), Some(0x0403));
        assert_eq!(u16_at(&four, 3), None);
        assert_eq!(u32_at(&four, usize::MAX), None);
        assert!(!put_at(&mut four, 3, &[9, 9]));
        assert_eq!(four, [1, 2, 3, 4]);
    }

    #[test]
    fn zero_is_seen_in_words_and_in_the_tail() {
        let mut bytes = vec![0u8; 35];
        assert!(is_zero(&bytes));
        for place in [0, 15, 16, 34] {
            bytes[place] = 1;
            assert!(!is_zero(&bytes));
            bytes[place] = 0;
        }
    }
}
