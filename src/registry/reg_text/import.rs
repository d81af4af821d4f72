//! Reading: keys and values to set and to delete, with the line of each error.
//!
//! The grammar is regedit's: a key ends at the last `]` of its line and what follows is a comment; a text in quotes may go over
//! lines; bytes go on after `\` at the end of a line, past empty lines and comments; `;` after data begins a comment.
//! Where regedit skips in silence what it cannot read, this says the line.

use super::code_page::CodePage;
use crate::DataType;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::names;

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

fn decode(bytes: &[u8], code_page: CodePage) -> String {
    match bytes {
        [0xff, 0xfe, rest @ ..] => names::from_bytes(rest),
        [0xfe, 0xff, rest @ ..] => {
            let swapped: Vec<u8> =
                rest.as_chunks::<2>().0.iter().flat_map(|pair| [pair[1], pair[0]]).collect();
            names::from_bytes(&swapped)
        }
        // UTF-16 without its mark, as some programs write it.
        [b'W' | b'R', 0, b'i' | b'E', 0, ..] => names::from_bytes(bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        // Without a mark: UTF-8 where it is, else the code page.
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_string(),
            Err(_) => code_page.decode(bytes),
        },
    }
}

/// Reads a file of version 5 or REGEDIT4; without a mark it is UTF-8, else of the code page of western Windows.
///
/// # Errors
/// `Invalid` with the number of the line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Operation>> {
    parse_with(bytes, CodePage::WESTERN)
}

/// The same, with the code page of texts that are no Unicode.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(bytes: &[u8], code_page: CodePage) -> Result<Vec<Operation>> {
    let text = decode(bytes, code_page);
    let mut reader = Reader { rest: &text, line: 1, code_page, ansi: false };
    reader.header()?;
    let (mut operations, mut key): (Vec<Operation>, Option<String>) = (Vec::new(), None);
    loop {
        reader.skip_empty();
        let (number, start) = (reader.line, reader.rest);
        if start.is_empty() {
            return Ok(operations);
        }
        let bad = |what: &str| {
            let shown: String = start.lines().next().unwrap_or_default().chars().take(80).collect();
            Error::invalid(Layer::Hive, format!("line {number}: {what}")).found(shown)
        };
        if start.starts_with('[') {
            let line = reader.take_line();
            let path =
                line.rsplit_once(']').map(|(path, _)| &path[1..]).ok_or_else(|| bad("a key without ]"))?;
            match path.strip_prefix('-') {
                Some(path) => {
                    operations.push(Operation::DeleteKey { key: path.to_string() });
                    // Values below a key that is deleted mean nothing, as in regedit.
                    key = None;
                }
                None => {
                    operations.push(Operation::CreateKey { key: path.to_string() });
                    key = Some(path.to_string());
                }
            }
            continue;
        }
        let name = reader.name().ok_or_else(|| bad("neither a key nor a value"))?;
        let data = reader.data().ok_or_else(|| bad("this data cannot be read"))?;
        if !reader.ends_here() {
            return Err(bad("something follows the data"));
        }
        let Some(key) = key.clone() else { continue };
        operations.push(match data {
            Some((data_type, data)) => Operation::Set { key, name, data_type, data },
            None => Operation::DeleteValue { key, name },
        });
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    code_page: CodePage,
    /// REGEDIT4: texts in bytes are of the code page.
    ansi: bool,
}

impl<'a> Reader<'a> {
    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at(bytes);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }

    fn skip_spaces(&mut self) {
        let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
        self.advance(blank);
    }

    /// Past empty lines and comments, to the first character of a line that says something.
    fn skip_empty(&mut self) {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.advance(blank);
            if !self.rest.starts_with(';') {
                return;
            }
            self.take_line();
        }
    }

    fn take_line(&mut self) -> &'a str {
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let line = &self.rest[..end];
        self.advance(end);
        line.trim_end()
    }

    fn header(&mut self) -> Result<()> {
        self.skip_empty();
        let line = self.take_line();
        self.ansi = line == "REGEDIT4";
        if self.ansi || line == "Windows Registry Editor Version 5.00" {
            return Ok(());
        }
        let found = if line.is_empty() { "nothing" } else { line }.chars().take(60).collect::<String>();
        Err(Error::invalid(Layer::Hive, "not a .reg file")
            .expected("Windows Registry Editor Version 5.00, or REGEDIT4, in the first line")
            .found(found))
    }

    /// A text in quotes with its escapes resolved, which may go over lines.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.strip_prefix('"')?.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.advance(at + 2);
                    return Some(text);
                }
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    'r' => text.push('\r'),
                    '0' => return None,
                    c => text.push(c),
                },
                c => text.push(c),
            }
        }
        None
    }

    /// `"name"=` or `@=`.
    fn name(&mut self) -> Option<String> {
        let name = if self.rest.starts_with('@') {
            self.advance(1);
            String::new()
        } else {
            self.quoted()?
        };
        self.skip_spaces();
        self.rest.starts_with('=').then(|| self.advance(1))?;
        self.skip_spaces();
        Some(name)
    }

    /// What follows `=`; `Some(None)` for `-`.
    #[expect(
        clippy::option_option,
        reason = "no data, data that deletes, and data that does not parse are three answers"
    )]
    fn data(&mut self) -> Option<Option<(DataType, Vec<u8>)>> {
        if self.rest.starts_with('-') {
            self.advance(1);
            return Some(None);
        }
        if self.rest.starts_with('"') {
            let mut bytes = names::to_bytes(&self.quoted()?);
            bytes.extend([0, 0]);
            return Some(Some((DataType::SZ, bytes)));
        }
        let digits = |rest: &str| rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_hexdigit()).len();
        let starts =
            |rest: &str, word: &str| rest.get(..word.len()).is_some_and(|s| s.eq_ignore_ascii_case(word));
        if starts(self.rest, "dword:") {
            self.advance(6);
            self.skip_spaces();
            let length = digits(self.rest);
            let number = u32::from_str_radix(&self.rest[..length], 16).ok().filter(|_| length <= 8)?;
            self.advance(length);
            return Some(Some((DataType::DWORD, number.to_le_bytes().to_vec())));
        }
        if !starts(self.rest, "hex") {
            return None;
        }
        self.advance(3);
        let mut kind = 3;
        if self.rest.starts_with('(') {
            let inside = &self.rest[1..];
            let length = digits(inside);
            kind = u32::from_str_radix(&inside[..length], 16)
                .ok()
                .filter(|_| inside[length..].starts_with(')'))?;
            self.advance(length + 2);
        }
        self.rest.starts_with(':').then(|| self.advance(1))?;
        let bytes = self.bytes()?;
        let data = if self.ansi && matches!(kind, 1 | 2 | 7) {
            names::to_bytes(&self.code_page.decode(&bytes))
        } else {
            bytes
        };
        Some(Some((DataType(kind), data)))
    }

    /// Bytes between commas, over lines that end with `\`.
    fn bytes(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            self.skip_spaces();
            let length =
                self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_hexdigit()).len();
            if length > 0 {
                bytes.push(u8::from_str_radix(&self.rest[..length], 16).ok().filter(|_| length <= 2)?);
                self.advance(length);
                self.skip_spaces();
            }
            if self.rest.starts_with(',') {
                self.advance(1);
            } else if self.rest.starts_with('\\') {
                self.advance(1);
                if !self.ends_here() {
                    return None;
                }
                self.skip_empty();
                // A file that ends after `\`, or goes on with something else.
                if !self.rest.starts_with(|c: char| c.is_ascii_hexdigit()) {
                    return self.rest.is_empty().then_some(bytes);
                }
            } else {
                return Some(bytes);
            }
        }
    }

    /// True at the end of a line, past blanks and a comment.
    fn ends_here(&mut self) -> bool {
        self.skip_spaces();
        if self.rest.starts_with(';') {
            self.take_line();
            return true;
        }
        self.rest.is_empty() || self.rest.starts_with(['\r', '\n'])
    }
}
