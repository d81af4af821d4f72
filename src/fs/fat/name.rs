//! Names: 8.3 names in the code pages of DOS, the flags for lower case of Windows NT, and which entries a new name needs.

use crate::short_name::{MAX_TRIES, Parts, is_short};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};

/// The base is shown in lower case.
pub(super) const LOWER_BASE: u8 = 0x08;
/// The extension is shown in lower case.
pub(super) const LOWER_EXTENSION: u8 = 0x10;

/// The code page in which short names with other than ASCII characters are read. The volume does not say which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodePage {
    /// The United States.
    #[default]
    Cp437,
    /// Western Europe.
    Cp850,
}

const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
const CP850: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";

impl CodePage {
    fn decode(self, byte: u8) -> char {
        let table = match self {
            CodePage::Cp437 => CP437,
            CodePage::Cp850 => CP850,
        };
        match byte.checked_sub(0x80) {
            None => char::from(byte),
            // The tables have all 128 characters, as the test below counts.
            Some(place) => table.chars().nth(usize::from(place)).unwrap_or('\u{FFFD}'),
        }
    }
}

/// A short name for people.
pub(super) fn short_text(short: &[u8; 11], lower: u8, page: CodePage) -> String {
    let mut bytes = *short;
    if bytes[0] == 0x05 {
        bytes[0] = 0xE5;
    }
    let part = |bytes: &[u8], small: bool| -> String {
        let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        let text = bytes[..end].iter().map(|byte| page.decode(*byte));
        if small { text.flat_map(char::to_lowercase).collect() } else { text.collect() }
    };
    let (base, extension) =
        (part(&bytes[..8], lower & LOWER_BASE != 0), part(&bytes[8..], lower & LOWER_EXTENSION != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// A label for people.
pub(super) fn label_text(label: &[u8; 11], page: CodePage) -> String {
    let text: String = label.iter().take_while(|byte| **byte != 0).map(|byte| page.decode(*byte)).collect();
    text.trim_end().to_string()
}

/// A label as it is stored.
///
/// # Errors
/// `Invalid` for what Windows does not take.
pub(super) fn label_bytes(label: &str) -> Result<[u8; 11]> {
    let bad = || {
        Error::invalid(Layer::Fat, "this cannot be the label of a FAT volume")
            .expected("at most 11 letters, digits, spaces and simple marks")
            .found(label)
    };
    let upper = label.to_ascii_uppercase();
    let legal = |c: char| (' '..='~').contains(&c) && !"\"*+,./:;<=>?[\\]|".contains(c);
    if upper.len() > 11 || !upper.chars().all(legal) || upper.starts_with(' ') {
        return Err(bad());
    }
    let mut bytes = [b' '; 11];
    bytes[..upper.len()].copy_from_slice(upper.as_bytes());
    Ok(bytes)
}

/// A name as names are compared: the case of letters does not count.
pub(super) fn fold(units: impl IntoIterator<Item = u16>) -> Vec<u16> {
    units.into_iter().map(upper).collect()
}

fn upper(unit: u16) -> u16 {
    if unit < 0x80 {
        // Below 0x80 the cast loses nothing.
        return u16::from((unit as u8).to_ascii_uppercase());
    }
    let Some(c) = char::from_u32(u32::from(unit)) else { return unit };
    let mut all = c.to_uppercase();
    match (all.next(), all.next()) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// What a name takes in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The long name, where one is needed.
    pub(super) long: Option<Vec<u16>>,
    pub(super) short: [u8; 11],
    /// The flags for lower case.
    pub(super) lower: u8,
}

/// The 11 bytes of an 8.3 name in ASCII.
pub(super) fn short_bytes(name: &str) -> [u8; 11] {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let mut bytes = [b' '; 11];
    for (place, byte) in bytes[..8].iter_mut().zip(base.bytes()) {
        *place = byte.to_ascii_uppercase();
    }
    for (place, byte) in bytes[8..].iter_mut().zip(extension.bytes()) {
        *place = byte.to_ascii_uppercase();
    }
    bytes
}

/// A name as it may be given to a new file: what Windows can open again.
pub(super) fn check_name(name: &str) -> Result<Vec<u16>> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let bad_character = |c: char| c < ' ' || "\\/:*?\"<>|".contains(c);
    if units.is_empty()
        || units.len() > MAX_UNITS
        || name.chars().any(bad_character)
        || name.ends_with([' ', '.'])
    {
        return Err(Error::invalid(Layer::Fat, format!("{name:?} cannot be a file name on Windows")));
    }
    Ok(units)
}

const MAX_UNITS: usize = super::entry::MAX_NAME_UNITS;

impl Plan {
    /// What `name` takes in a directory where `is_taken` tells of 8.3 names.
    ///
    /// # Errors
    /// `Invalid` names; `AlreadyExists` when no 8.3 name is left.
    pub(super) fn new(name: &str, is_taken: impl Fn(&[u8; 11]) -> bool) -> Result<Plan> {
        let units = check_name(name)?;
        if is_short(name) {
            let (base, extension) = name.split_once('.').unwrap_or((name, ""));
            let short = short_bytes(name);
            if let (Some(base), Some(extension)) =
                (case_flag(base, LOWER_BASE), case_flag(extension, LOWER_EXTENSION))
            {
                return Ok(Plan { long: None, short, lower: base | extension });
            }
            // The same letters: nothing else can have it.
            return Ok(Plan { long: Some(units), short, lower: 0 });
        }
        let parts = Parts::of(name);
        for number in 1..=MAX_TRIES {
            let short = short_bytes(&parts.name(number));
            if !is_taken(&short) {
                return Ok(Plan { long: Some(units), short, lower: 0 });
            }
        }
        Err(Error::new(ErrorKind::AlreadyExists, Layer::Fat, "no 8.3 name is left for this name").found(name))
    }

    /// Entries that it takes.
    pub(super) fn slots(&self) -> u32 {
        // At most 21.
        1 + self.long.as_ref().map_or(0, |long| long.len().div_ceil(super::entry::PART_UNITS)) as u32
    }
}

/// The flag of a part that is all small; none when it has both.
fn case_flag(part: &str, flag: u8) -> Option<u8> {
    let small = part.bytes().any(|b| b.is_ascii_lowercase());
    let large = part.bytes().any(|b| b.is_ascii_uppercase());
    match (small, large) {
        (true, true) => None,
        (true, false) => Some(flag),
        (false, _) => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_pages_are_whole() {
        assert_eq!(CP437.chars().count(), 128);
        assert_eq!(CP850.chars().count(), 128);
        assert_eq!(short_text(b"\x05\x81\x9A     TXT", 0, CodePage::Cp437), "σüÜ.TXT");
        assert_eq!(short_text(b"\x05\x81\x9A     TXT", LOWER_EXTENSION, CodePage::Cp850), "ÕüÜ.txt");
    }

    #[test]
    fn names_take_what_windows_gives_them() {
        let free = |_: &[u8; 11]| false;
        let plan = |name: &str| Plan::new(name, free).unwrap();
        assert_eq!(plan("BOOTX64.EFI"), Plan { long: None, short: *b"BOOTX64 EFI", lower: 0 });
        assert_eq!(plan("bootx64.EFI").lower, LOWER_BASE);
        assert_eq!(plan("bootx64.efi").lower, LOWER_BASE | LOWER_EXTENSION);
        let mixed = plan("Boot.efi");
        assert_eq!((mixed.short, mixed.slots(), mixed.lower), (*b"BOOT    EFI", 2, 0));
        let long = plan("bootmgfw.efi.mui");
        assert_eq!((long.short, long.slots()), (*b"BOOTMG~1MUI", 3));
        let second = Plan::new("bootmgfw.efi.mui", |short| short == b"BOOTMG~1MUI").unwrap();
        assert_eq!(second.short, *b"BOOTMG~2MUI");
        assert_eq!(plan(&"x".repeat(255)).slots(), 21);
        for bad in ["", "a/b", "a.", "a ", "x?", &"x".repeat(256)] {
            assert!(Plan::new(bad, free).is_err(), "{bad}");
        }
    }

    #[test]
    fn case_does_not_count() {
        let folded = |text: &str| fold(text.encode_utf16());
        assert_eq!(folded("äöü ΣΙΓΜΑ я ÿ"), folded("ÄÖÜ σιγμα Я Ÿ"));
        assert_ne!(folded("ß"), folded("ss"));
    }
}
