//! 8.3 names for long ones, as Windows makes them (`RtlGenerate8dot3Name`): the same on NTFS and FAT.

/// Numbers behind the plain beginning of a name, before its hash is used.
const PLAIN_TRIES: u32 = 4;
/// Numbers that are tried with the hash: six digits leave two letters.
pub(crate) const MAX_TRIES: u32 = 999_999;

/// True for a name that is its own 8.3 name, but for the case of its letters.
pub(crate) fn is_short(name: &str) -> bool {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let legal =
        |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "$%'-_@~`!(){}^#&".contains(c));
    (1..=8).contains(&base.len())
        && extension.len() <= 3
        && (!name.contains('.') || !extension.is_empty())
        && legal(base)
        && legal(extension)
}

/// The parts of a name that short ones are made of, as `RtlGenerate8dot3Name` takes them.
pub(crate) struct Parts {
    base: String,
    extension: String,
    hash: u16,
}

fn legal(c: char) -> Option<char> {
    match c {
        ' ' | '.' => None,
        c if c.is_ascii_alphanumeric() || "$%'-_@~`!(){}^#&".contains(c) => Some(c.to_ascii_uppercase()),
        _ => Some('_'),
    }
}

impl Parts {
    pub(crate) fn of(name: &str) -> Parts {
        let trimmed = name.trim_start_matches('.');
        let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
        let take = |text: &str, most: usize| text.chars().filter_map(legal).take(most).collect::<String>();
        Parts { base: take(base, 6), extension: take(extension, 3), hash: hash(name) }
    }

    /// The name that is tried as number `try_number`, from 1.
    pub(crate) fn name(&self, try_number: u32) -> String {
        let few = self.base.len() <= 2;
        let (beginning, number) = if try_number <= PLAIN_TRIES && !few {
            (self.base.clone(), try_number)
        } else {
            let first: String = self.base.chars().take(2).collect();
            let number = if few { try_number } else { try_number - PLAIN_TRIES };
            (format!("{first}{:04X}", self.hash), number)
        };
        let digits = number.to_string();
        let beginning: String = beginning.chars().take(7 - digits.len()).collect();
        let dot = if self.extension.is_empty() { "" } else { "." };
        format!("{beginning}~{digits}{dot}{}", self.extension)
    }
}

/// The hash of a name in its short form (found by Thomas Galvin, 2015).
fn hash(name: &str) -> u16 {
    let sum = name.encode_utf16().fold(0u16, |sum, unit| sum.wrapping_mul(0x25).wrapping_add(unit));
    let product = i32::from(sum).wrapping_mul(314_159_269).wrapping_abs();
    let rest = i64::from(product) - (i64::from(product).wrapping_mul(1_152_921_497) >> 60) * 1_000_000_007;
    let bytes = rest.to_le_bytes();
    let low = u16::from_le_bytes([bytes[0], bytes[1]]);
    low >> 12 | (low >> 4) & 0x00F0 | (low << 4) & 0x0F00 | low << 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened_as_windows_does_it() {
        let name = |long: &str, number| Parts::of(long).name(number);
        assert_eq!(name("Program Files", 1), "PROGRA~1");
        assert_eq!(name("Program Files (x86)", 2), "PROGRA~2");
        assert_eq!(name("TextFile.Mine.txt", 1), "TEXTFI~1.TXT");
        assert_eq!(name(".gitignore", 1), "GITIGN~1");
        assert_eq!(name("ver +1.2.text", 1), "VER_12~1.TEX");
        assert_eq!(name("no extension.", 4), "NOEXTE~4");
        assert_eq!(name("x y.c", 1), format!("XY{:04X}~1.C", hash("x y.c")));
        let fifth = name("Program Files", 5);
        assert!(fifth.starts_with("PR") && fifth.ends_with("~1") && fifth.len() == 8, "{fifth}");
        assert_eq!(name("Program Files", 14).len(), 8);
        assert!(is_short(&name("Ünïcödé náme.döc", 1)));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(hash("TextFile.Mine.txt"), 0xE50A);
        assert_eq!(hash("Windows XP Default.wav"), 0xD6DF);
    }
}
