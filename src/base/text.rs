//! Text for people, and UTF-16 as Windows uses it: little-endian on disk, sometimes ill-formed.

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

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let step = (bytes.max(1).ilog2() / 10).min(4);
    if step == 0 {
        return format!("{bytes} bytes");
    }
    format!("{:.1} {}", bytes as f64 / (1u64 << (10 * step)) as f64, units[step as usize])
}

/// True when `name` fits a pattern with `*` and `?`; case does not matter.
pub fn fits(pattern: &str, name: &str) -> bool {
    let lower = |text: &str| -> Vec<char> { text.to_lowercase().chars().collect() };
    let (pattern, name) = (lower(pattern), lower(name));
    // The place after the last star, and the part of the name that it has taken so far: one step back is enough.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_the_shell() {
        assert!(
            fits("*.SYS", "acpi.sys")
                && fits("a?pi*", "ACPI.sys")
                && fits("*", "")
                && fits("a*b*c", "aXbXbc")
        );
        assert!(!fits("*.sys", "acpi.sys.old") && !fits("?", "") && !fits("x", "xy"));
        assert!(!fits(&"*a".repeat(40), &"a".repeat(39)), "and quickly so");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(256 << 20), "256.0 MiB");
    }
}
