//! Reading: keys and values to set and to delete, with the line of each error.

use crate::DataType;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::{utf16le_bytes, utf16le_lossy};

/// What one line of a file asks for. `key` is the path as written, with its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// `[key]`
    CreateKey {
        /// The key.
        key: String,
    },
    /// `[-key]`
    DeleteKey {
        /// The key.
        key: String,
    },
    /// `"name"=...`
    Set {
        /// The key.
        key: String,
        /// Name of the value, "" for the default one.
        name: String,
        /// Type of the data.
        data_type: DataType,
        /// The data.
        data: Vec<u8>,
    },
    /// `"name"=-`
    DeleteValue {
        /// The key.
        key: String,
        /// Name of the value.
        name: String,
    },
}

fn decode(bytes: &[u8]) -> String {
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16le_lossy(rest),
        [0xfe, 0xff, rest @ ..] => {
            let swapped: Vec<u8> =
                rest.as_chunks::<2>().0.iter().flat_map(|pair| [pair[1], pair[0]]).collect();
            utf16le_lossy(&swapped)
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        // Without a mark: UTF-8 where it is, else the code page of western Windows, of which Latin-1 is the part that counts.
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_string(),
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        },
    }
}

/// Reads a file of version 5 or REGEDIT4.
///
/// # Errors
/// `Invalid` with the number of the line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Operation>> {
    let text = decode(bytes);
    let mut lines = text.lines().zip(1..).map(|(line, number)| (line.trim_start(), number));
    let first = lines.find(|(line, _)| !line.is_empty());
    let ansi = match first {
        Some(("Windows Registry Editor Version 5.00", _)) => false,
        Some((line, _)) if line.trim_end() == "REGEDIT4" => true,
        Some((line, _)) if line.trim_end() == "Windows Registry Editor Version 5.00" => false,
        found => {
            let found = found.map_or("nothing", |(line, _)| line).chars().take(60).collect::<String>();
            return Err(Error::invalid(Layer::Hive, "this is no .reg file")
                .expected("Windows Registry Editor Version 5.00, or REGEDIT4, in the first line")
                .found(found));
        }
    };
    let (mut operations, mut key): (Vec<Operation>, Option<String>) = (Vec::new(), None);
    while let Some((line, number)) = lines.next() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        let bad = |what: &str| Error::invalid(Layer::Hive, format!("line {number}: {what}")).found(line);
        if let Some(path) = line.strip_prefix('[') {
            let path = path.strip_suffix(']').ok_or_else(|| bad("a key without ]"))?;
            if let Some(path) = path.strip_prefix('-') {
                operations.push(Operation::DeleteKey { key: path.to_string() });
                key = None;
            } else {
                operations.push(Operation::CreateKey { key: path.to_string() });
                key = Some(path.to_string());
            }
            continue;
        }
        // Values below a key that is deleted mean nothing, as in regedit.
        let mut whole = line.to_string();
        while whole.ends_with('\\') && !whole.ends_with("\\\"") && is_bytes(&whole) {
            whole.pop();
            let Some((next, _)) = lines.next() else { break };
            whole.push_str(next.trim());
        }
        let (name, rest) = split(&whole).ok_or_else(|| bad("neither a key nor a value"))?;
        let Some(key) = &key else { continue };
        let key = key.clone();
        if rest == "-" {
            operations.push(Operation::DeleteValue { key, name });
            continue;
        }
        let (data_type, data) = data(rest, ansi).ok_or_else(|| bad("this data cannot be read"))?;
        operations.push(Operation::Set { key, name, data_type, data });
    }
    Ok(operations)
}

/// True for a value of bytes, whose line may go on below.
fn is_bytes(line: &str) -> bool {
    split(line).is_some_and(|(_, rest)| rest.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("hex")))
}

/// Name and data of `"name"=data` or `@=data`.
fn split(line: &str) -> Option<(String, &str)> {
    if let Some(rest) = line.strip_prefix('@') {
        return Some((String::new(), rest.trim_start().strip_prefix('=')?.trim()));
    }
    let (name, rest) = quoted(line)?;
    Some((name, rest.trim_start().strip_prefix('=')?.trim()))
}

/// A quoted string with its escapes resolved, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, &text[at + 2..])),
            '\\' => name.push(chars.next()?.1),
            c => name.push(c),
        }
    }
    None
}

fn data(text: &str, ansi: bool) -> Option<(DataType, Vec<u8>)> {
    if text.starts_with('"') {
        let (value, rest) = quoted(text)?;
        let rest = rest.trim();
        return (rest.is_empty() || rest.starts_with(';'))
            .then(|| (DataType::SZ, utf16le_bytes(&format!("{value}\0"))));
    }
    let lower = text.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("dword:") {
        let digits = digits.split(';').next()?.trim();
        return Some((DataType::DWORD, u32::from_str_radix(digits, 16).ok()?.to_le_bytes().to_vec()));
    }
    let rest = lower.strip_prefix("hex")?;
    let (kind, digits) = match rest.strip_prefix('(') {
        Some(rest) => {
            let (kind, digits) = rest.split_once("):")?;
            (u32::from_str_radix(kind.trim(), 16).ok()?, digits)
        }
        None => (3, rest.strip_prefix(':')?),
    };
    let digits = digits.split(';').next()?.trim().trim_end_matches(',');
    let bytes: Option<Vec<u8>> = digits
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect();
    let bytes = bytes?;
    // REGEDIT4 has texts as bytes of the code page.
    let data = if ansi && matches!(kind, 1 | 2 | 7) {
        bytes.iter().flat_map(|byte| [*byte, 0]).collect()
    } else {
        bytes
    };
    Some((DataType(kind), data))
}
