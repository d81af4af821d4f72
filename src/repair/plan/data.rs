//! Registry data as people write it.

use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::utf16le_bytes;
use vmrescue_registry::DataType;

/// Turns registry data as reg.exe takes it into bytes.
///
/// # Errors
/// `Invalid` when the text does not fit the type.
pub fn registry_data(data_type: DataType, text: &str) -> Result<Vec<u8>> {
    let bad = || Error::invalid(Layer::Script, format!("invalid data for {}", data_type.name())).found(text);
    let number = || match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).map_err(|_| bad()),
        None => text.parse::<u64>().map_err(|_| bad()),
    };
    match data_type.0 {
        1 | 2 => Ok(utf16le_bytes(&format!("{text}\0"))),
        4 => Ok(u32::try_from(number()?).map_err(|_| bad())?.to_le_bytes().to_vec()),
        11 => Ok(number()?.to_le_bytes().to_vec()),
        7 if text.is_empty() => Ok(vec![0, 0]),
        7 => Ok(utf16le_bytes(&format!("{}\0\0", text.replace("\\0", "\0")))),
        _ => {
            let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b',' | b' ')).collect();
            let pairs = digits.chunks(2);
            let byte = |pair: &[u8]| {
                std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
            };
            if !digits.len().is_multiple_of(2) {
                return Err(bad());
            }
            pairs.map(|pair| byte(pair).ok_or_else(bad)).collect()
        }
    }
}

/// The value as a list of texts, joined as [`registry_data`] takes them.
pub(super) fn multi(texts: &[String]) -> Vec<u8> {
    if texts.is_empty() { vec![0, 0] } else { utf16le_bytes(&format!("{}\0\0", texts.join("\0"))) }
}
