//! Writing: one block of text for each key, with regedit's escapes and its way of breaking long lines.

use crate::{Key, Value};
use std::fmt::Write;
use vmrescue_base::error::Result;
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_base::text::{utf16le_bytes, utf16le_lossy};

/// The first line of a file of version 5, and the empty one after it.
pub const HEADER: &str = "Windows Registry Editor Version 5.00\r\n\r\n";
/// Column at which regedit breaks a line of bytes.
const BREAK: usize = 77;

/// Text of `key`, shown as `path`, and of everything below it, in the order of the hive.
///
/// # Errors
/// `Damaged` when a list or a value cannot be read.
pub fn key_text(key: &Key<'_>, path: &str, text: &mut String) -> Result<()> {
    write_key(key, path, text, 0)
}

fn write_key(key: &Key<'_>, path: &str, text: &mut String, depth: usize) -> Result<()> {
    let _infallible = write!(text, "[{path}]\r\n");
    for value in key.values()? {
        write_value(&value, text)?;
    }
    text.push_str("\r\n");
    if depth < MAX_KEY_DEPTH {
        for child in key.subkeys()? {
            write_key(&child, &format!("{path}\\{}", child.name()), text, depth + 1)?;
        }
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// The text of a REG_SZ that comes back bit for bit from a quoted string; `None` for one that would not.
fn plain(data: &[u8]) -> Option<String> {
    let text = utf16le_lossy(data);
    let text = text.strip_suffix('\0')?;
    let same = utf16le_bytes(text) == data[..data.len() - 2];
    (same && !text.contains(['\0', '\r', '\n'])).then(|| text.to_string())
}

fn write_value(value: &Value<'_>, text: &mut String) -> Result<()> {
    let (name, data) = (value.name(), value.data()?);
    let start = text.len();
    if name.is_empty() {
        text.push('@');
    } else {
        let _infallible = write!(text, "\"{}\"", escaped(&name));
    }
    text.push('=');
    match (value.data_type().0, data.len()) {
        (1, _) if let Some(plain) = plain(&data) => {
            let _infallible = write!(text, "\"{}\"", escaped(&plain));
        }
        (4, 4) => {
            let number = vmrescue_base::bytes::u32_at(&data, 0).unwrap_or(0);
            let _infallible = write!(text, "dword:{number:08x}");
        }
        (kind, _) => {
            if kind == 3 {
                text.push_str("hex:");
            } else {
                let _infallible = write!(text, "hex({kind:x}):");
            }
            let column = text[start..].chars().count();
            write_bytes(&data, column, text);
        }
    }
    text.push_str("\r\n");
    Ok(())
}

fn write_bytes(data: &[u8], mut column: usize, text: &mut String) {
    for (place, byte) in data.iter().enumerate() {
        let _infallible = write!(text, "{byte:02x}");
        if place + 1 == data.len() {
            break;
        }
        text.push(',');
        column += 3;
        if column >= BREAK {
            text.push_str("\\\r\n  ");
            column = 2;
        }
    }
}
