//! Code pages of one byte a character, for .reg files of REGEDIT4: those of Windows in western and eastern Europe. Missing: all others.

/// A code page, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodePage(u16);

/// Windows-1252 from 0x80 to 0x9f; the rest is Latin-1.
const WESTERN_UPPER: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Windows-1251 from 0x80 to 0xbf; then the Cyrillic letters in order.
const CYRILLIC_UPPER: [char; 64] = [
    'Ђ', 'Ѓ', '‚', 'ѓ', '„', '…', '†', '‡', '€', '‰', 'Љ', '‹', 'Њ', 'Ќ', 'Ћ', 'Џ', 'ђ', '‘', '’', '“', '”',
    '•', '–', '—', '\u{98}', '™', 'љ', '›', 'њ', 'ќ', 'ћ', 'џ', '\u{a0}', 'Ў', 'ў', 'Ј', '¤', 'Ґ', '¦', '§',
    'Ё', '©', 'Є', '«', '¬', '\u{ad}', '®', 'Ї', '°', '±', 'І', 'і', 'ґ', 'µ', '¶', '·', 'ё', '№', 'є', '»',
    'ј', 'Ѕ', 'ѕ', 'ї',
];

impl CodePage {
    /// Western Europe and America, 1252.
    pub const WESTERN: CodePage = CodePage(1252);

    /// A code page by its number; `None` for one that is not known here.
    pub fn new(number: u16) -> Option<CodePage> {
        matches!(number, 1251 | 1252 | 28591).then_some(CodePage(number))
    }

    /// The text of bytes.
    pub fn decode(self, bytes: &[u8]) -> String {
        let character = |byte: &u8| match (self.0, *byte) {
            (1252, upper @ 0x80..0xa0) => WESTERN_UPPER[usize::from(upper - 0x80)],
            (1251, upper @ 0x80..0xc0) => CYRILLIC_UPPER[usize::from(upper - 0x80)],
            (1251, letter @ 0xc0..) => {
                char::from_u32(0x410 + u32::from(letter - 0xc0)).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            (_, byte) => char::from(byte),
        };
        bytes.iter().map(character).collect()
    }
}
