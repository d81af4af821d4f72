//! `.reg` text as regedit writes and reads it: version 5 (UTF-16) and REGEDIT4 (ANSI).

mod code_page;
mod export;
mod import;
#[cfg(test)]
mod tests;

pub use code_page::CodePage;
pub use export::{HEADER, key_text};
pub use import::{Operation, parse, parse_with};

/// Text as the bytes of a version 5 file: UTF-16 with its mark.
pub fn file_bytes(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend(vmrescue_base::names::to_bytes(text));
    bytes
}
