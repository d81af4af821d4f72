//! UTF-16 as Windows uses it: little-endian on disk, sometimes ill-formed.

/// Text of UTF-16LE bytes, unpaired surrogates shown as U+FFFD; an odd last byte is ignored.
pub fn utf16le_lossy(bytes: &[u8]) -> String {
    String::from_utf16_lossy(&utf16le_units(bytes))
}

/// The 16-bit units of UTF-16LE bytes; an odd last byte is ignored.
pub fn utf16le_units(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect()
}

/// The UTF-16LE bytes of `text`, without a terminator.
pub fn utf16le_bytes(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The text up to the first NUL, or all of it.
pub fn until_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or(text)
}

/// Bytes as hexadecimal digits, lower case, without separators.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _: std::fmt::Result = write!(text, "{byte:02x}");
        text
    })
}
