//! Recovery passwords in the texts that people have them in: the file that Windows saves (any language, UTF-16), exports of
//! directories and management tools (CSV, LDIF, JSON), copies from a web page, one a line.
//!
//! No grammar of any of them is known here. A recovery password is eight groups of six digits with dashes, spaces or nothing
//! between them; the identifiers near it, up to its neighbours in the text, are taken for names of its protector. So an
//! identifier chooses which password is tried, and never stands for one.

use vmrescue_base::guid::Guid;
use zeroize::Zeroizing;

/// Groups of a recovery password, digits of a group.
const GROUPS: usize = 8;
const DIGITS: usize = 6;

/// A recovery password in a text, with the identifiers that stand near it.
pub(super) struct Found {
    /// 48 digits.
    pub(super) digits: Zeroizing<String>,
    /// Identifiers between the password before and the one behind.
    pub(super) ids: Vec<Guid>,
    /// Line of the text, from 1.
    pub(super) line: usize,
}

/// Text of a file: UTF-8, or UTF-16 with or without a mark (as Windows and PowerShell save it), else one byte a character.
pub(super) fn decode(bytes: &[u8]) -> Zeroizing<String> {
    let wide = |bytes: &[u8], big: bool| {
        let pairs = bytes.as_chunks::<2>().0.iter();
        let units: Zeroizing<Vec<u16>> = Zeroizing::new(
            pairs
                .map(|pair| if big { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) })
                .collect(),
        );
        Zeroizing::new(String::from_utf16_lossy(&units))
    };
    match bytes {
        [0xFF, 0xFE, rest @ ..] => wide(rest, false),
        [0xFE, 0xFF, rest @ ..] => wide(rest, true),
        [0xEF, 0xBB, 0xBF, rest @ ..] => Zeroizing::new(String::from_utf8_lossy(rest).into_owned()),
        [_, 0, ..] => wide(bytes, false),
        [0, _, ..] => wide(bytes, true),
        _ => Zeroizing::new(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_string(),
            // A code page: what matters here is ASCII in all of them.
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        }),
    }
}

/// Something in a text that matters.
enum Mark {
    Password(Found),
    Id(Guid),
}

/// What may stand between two groups: the dashes that programs and web pages make of one.
pub(super) fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{00AD}' | '\u{FE58}' | '\u{FE63}' | '\u{FF0D}'
    )
}

/// All recovery passwords of a text.
pub(super) fn passwords(text: &str) -> Vec<Found> {
    let marks = marks(text);
    let mut found: Vec<Found> = Vec::new();
    let mut before: Vec<Guid> = Vec::new();
    for mark in marks {
        match mark {
            Mark::Id(id) => {
                // Behind one password and before the next: either may be meant.
                if let Some(last) = found.last_mut() {
                    last.ids.push(id);
                }
                before.push(id);
            }
            Mark::Password(mut password) => {
                password.ids = std::mem::take(&mut before);
                found.push(password);
            }
        }
    }
    found
}

fn marks(text: &str) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut line = 1;
    let mut rest = text;
    let mut inside_word = false;
    while let Some(first) = rest.chars().next() {
        if !inside_word {
            if let Some(length) = guid_length(rest)
                && let Ok(id) = rest[..length].parse()
            {
                marks.push(Mark::Id(id));
                rest = &rest[length..];
                inside_word = true;
                continue;
            }
            if let Some((digits, length)) = password_at(rest) {
                marks.push(Mark::Password(Found { digits, ids: Vec::new(), line }));
                line += rest[..length].matches('\n').count();
                rest = &rest[length..];
                inside_word = true;
                continue;
            }
        }
        line += usize::from(first == '\n');
        inside_word = first.is_alphanumeric();
        rest = &rest[first.len_utf8()..];
    }
    marks
}

/// Length of a GUID with dashes at the start of the text, when no further letter or digit follows.
fn guid_length(text: &str) -> Option<usize> {
    const LENGTH: usize = 36;
    let head = text.as_bytes().get(..LENGTH)?;
    let fits = head.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    let ends = !text.as_bytes().get(LENGTH).is_some_and(u8::is_ascii_alphanumeric);
    (fits && ends).then_some(LENGTH)
}

/// A recovery password at the start of the text, and its length in the text.
fn password_at(text: &str) -> Option<(Zeroizing<String>, usize)> {
    let mut digits = Zeroizing::new(String::with_capacity(GROUPS * DIGITS));
    let mut at = 0;
    for group in 0..GROUPS {
        if group > 0 {
            let gap = text[at..].find(|c: char| c.is_ascii_digit())?;
            // At most a dash with a space on each side, or a line's end.
            let between = &text[at..at + gap];
            if between.chars().count() > 4 || !between.chars().all(|c| is_dash(c) || c.is_whitespace()) {
                return None;
            }
            at += gap;
        }
        let six = text.get(at..at + DIGITS).filter(|six| six.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.push_str(six);
        at += DIGITS;
        if group + 1 < GROUPS
            && group > 0
            && text[at..].starts_with(|c: char| c.is_ascii_digit()) != runs_on(text)
        {
            // Some groups with dashes and some without: numbers of another kind.
            return None;
        }
    }
    let ends = !text[at..].starts_with(|c: char| c.is_ascii_alphanumeric());
    ends.then_some((digits, at))
}

/// The first two groups stand without anything between them.
fn runs_on(text: &str) -> bool {
    text.as_bytes().get(DIGITS).is_some_and(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "284867-596541-514998-422114-660297-261613-215424-199408";
    const ID: &str = "3C116B76-C67B-484E-B439-CE2ED68B561E";

    fn one(text: &str) -> Found {
        let mut all = passwords(text);
        assert_eq!(all.len(), 1, "{text}");
        let found = all.remove(0);
        assert_eq!(*found.digits, KEY.replace('-', ""), "{text}");
        found
    }

    #[test]
    fn every_shape_is_read() {
        let id: Guid = ID.parse().unwrap();
        for text in [
            format!(
                "BitLocker Drive Encryption recovery key\r\n\r\nIdentifier:\r\n\r\n\t{ID}\r\n\r\nRecovery Key:\r\n\r\n\t{KEY}\r\n"
            ),
            format!("Bezeichner:\r\n{{{ID}}}\r\nWiederherstellungsschlüssel:\r\n{KEY}"),
            format!("ComputerName,KeyId,RecoveryPassword\r\nSRV1,\"{{{ID}}}\",\"{KEY}\"\r\n"),
            format!(
                "dn: CN=2012-05-22T10:12:13-07:00{{{ID}}},CN=SRV1,DC=a\nobjectClass: msFVE-RecoveryInformation\nmsFVE-RecoveryPassword: {KEY}\n"
            ),
            format!("{{\"key\": \"{KEY}\", \"id\": \"{}\"}}", ID.to_lowercase()),
            format!(
                "{{\"id\":\"{ID}\",\"deviceId\":\"2ff9a7c8-0000-1111-2222-333344445555\",\"key\":\"{KEY}\"}}"
            ),
        ] {
            assert!(one(&text).ids.contains(&id), "{text}");
        }
        for text in [
            KEY.replace('-', "–"),
            KEY.replace('-', " "),
            KEY.replace('-', ""),
            KEY.replace('-', " - "),
            KEY.into(),
        ] {
            assert!(one(&text).ids.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        for text in [
            "2012-05-22T10:12:13",
            "123456-123456",
            &format!("1{KEY}"),
            &format!("{KEY}7"),
            &KEY.replacen('-', "", 1),
        ] {
            assert!(passwords(text).is_empty(), "{text}");
        }
        assert!(passwords(&"0".repeat(5000)).is_empty());
    }

    #[test]
    fn texts_of_windows_are_decoded() {
        let wide: Vec<u8> =
            [0xFF, 0xFE].into_iter().chain(KEY.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let big: Vec<u8> = KEY.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [
            &wide[..],
            &wide[2..],
            &big,
            &[b"\xEF\xBB\xBF", KEY.as_bytes()].concat(),
            &[b"\xFC ", KEY.as_bytes()].concat(),
        ] {
            one(&decode(bytes));
        }
    }
}
