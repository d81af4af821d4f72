//! What people paste when they ask for help: codes in any spelling, names of codes, articles, sentences from the screen; and what they
//! may have meant by a name that there is none of.

use super::bugcheck::{bugcheck_code, bugcheck_name};

/// A question, in the forms in which documentation may have its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// As it was typed, trimmed and in lower case.
    pub text: String,
    /// The code that it names: a stop code or a status.
    pub code: Option<u32>,
    /// The article that it names: `kb5062557`.
    pub article: Option<String>,
}

impl Asked {
    /// Understands `0x0000007B`, `7B`, `STOP: 0xC0000098`, `INACCESSIBLE_BOOT_DEVICE`, `KB5062557`, `5062557`, or any words.
    pub fn new(text: &str) -> Asked {
        let trimmed = text.trim().trim_matches(['"', '\'', '`', '“', '”', '.', '!']).trim();
        let lower = trimmed.to_lowercase();
        let mut words = lower
            .split(|c: char| c.is_whitespace() || ":,;()[]=-".contains(c))
            .filter(|word| !word.is_empty());
        let article = words.clone().find_map(article);
        let code = words
            .find_map(prefixed)
            .or_else(|| named(trimmed))
            .or_else(|| article.is_none().then(|| bare(&lower)).flatten());
        Asked { text: lower, code, article }
    }

    /// True when a reference of documentation is what is asked for: `0x7B`, `0xC0000098`, `KB5062557`, `AZ-B14`.
    pub fn is(&self, reference: &str) -> bool {
        let reference = reference.trim().to_lowercase();
        reference == self.text
            || self.article.as_deref() == Some(reference.as_str())
            || self.code.is_some() && prefixed(&reference) == self.code
    }

    /// True when a text speaks of what is asked for.
    pub fn is_in(&self, text: &str) -> bool {
        let lower = text.to_lowercase();
        if let Some(code) = self.code {
            let names = bugcheck_name(code).is_some_and(|name| lower.contains(&name.to_lowercase()));
            let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric());
            return names || words.any(|word| prefixed(word) == Some(code));
        }
        if let Some(article) = &self.article {
            return lower.contains(article);
        }
        plain(&lower).contains(&plain(&self.text))
    }
}

/// The code of a name, alone or behind words such as `Stop code:`.
fn named(text: &str) -> Option<u32> {
    let pieces = text.split([':', '(', ')', ',', ';']).map(str::trim).filter(|piece| !piece.is_empty());
    std::iter::once(text)
        .chain(pieces)
        .find_map(|piece| bugcheck_code(&piece.to_uppercase().replace([' ', '-'], "_")))
}

/// Letters and digits, with one space between words.
fn plain(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// A number after `0x`.
fn prefixed(word: &str) -> Option<u32> {
    let digits = word.strip_prefix("0x")?;
    (1..=16).contains(&digits.len()).then_some(())?;
    u64::from_str_radix(digits, 16).ok().and_then(|number| u32::try_from(number).ok())
}

/// A code without `0x`: `7B`, `c0000098`. A plain word is none, were its letters all hexadecimal.
fn bare(word: &str) -> Option<u32> {
    let has_digit = word.chars().any(|c| c.is_ascii_digit());
    let is_code = matches!(word.len(), 1..=4 | 8) && word.chars().all(|c| c.is_ascii_hexdigit());
    (has_digit && is_code).then(|| u32::from_str_radix(word, 16).ok()).flatten()
}

/// An article: `kb5062557`, or its seven digits alone.
fn article(word: &str) -> Option<String> {
    let digits = word.strip_prefix("kb").unwrap_or(word);
    let long_enough = if word.starts_with("kb") { digits.len() >= 6 } else { digits.len() == 7 };
    (long_enough && digits.chars().all(|c| c.is_ascii_digit())).then(|| format!("kb{digits}"))
}

/// The names that are nearest to one that there is none of, the nearest first; none when all are far.
pub fn did_you_mean<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let name = name.to_lowercase();
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|other| {
            let lower = other.to_lowercase();
            let distance = distance(&name, &lower);
            let contained = name.len() >= 4 && (lower.contains(&name) || name.contains(&lower));
            let most = (name.chars().count() / 3).max(1);
            (contained || distance <= most)
                .then_some((if contained { distance.min(most) } else { distance }, other))
        })
        .collect();
    near.sort();
    near.into_iter().map(|(_, other)| other).take(3).collect()
}

/// How many characters must be added, taken away, changed or swapped.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: [Vec<usize>; 3] = [Vec::new(), Vec::new(), (0..=b.len()).collect()];
    for i in 1..=a.len() {
        rows.rotate_left(1);
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = rows[1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = changed.min(rows[1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[0][j - 2] + 1);
            }
        }
        rows[2] = row;
    }
    rows[2][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_understood_in_every_spelling() {
        for text in [
            "0x7B",
            "0x0000007B",
            "7B",
            "7b",
            "INACCESSIBLE_BOOT_DEVICE",
            "inaccessible boot device",
            "STOP: 0x0000007b (x)",
            "Stop code: INACCESSIBLE BOOT DEVICE",
            "*** STOP: INACCESSIBLE_BOOT_DEVICE (what follows)",
        ] {
            assert_eq!(Asked::new(text).code, Some(0x7b), "{text}");
        }
        for text in ["0xc0000098", "c0000098", "C0000098", "\"0xC0000098\""] {
            assert_eq!(Asked::new(text).code, Some(0xc000_0098), "{text}");
        }
        for text in ["KB5062557", "5062557", "kb5062557."] {
            let asked = Asked::new(text);
            assert_eq!((asked.article.as_deref(), asked.code), (Some("kb5062557"), None), "{text}");
        }
        let words = Asked::new("BOOTMGR is missing");
        assert_eq!((words.code, &words.article), (None, &None));
        assert!(words.is_in("the screen says \"BOOTMGR is missing.\" and stops"));
        assert_eq!(Asked::new("dead").code, None, "a word");
        assert!(
            Asked::new("7b").is("0x0000007B") && Asked::new("0x7B").is_in("INACCESSIBLE_BOOT_DEVICE (0x7B)")
        );
        assert!(!Asked::new("7b").is_in("0x7B1"));
    }

    #[test]
    fn near_names_are_offered() {
        let known = ["restore-driver", "rebuild-boot", "set-active"];
        assert_eq!(did_you_mean("rebuild-bot", known), ["rebuild-boot"]);
        assert_eq!(did_you_mean("restor-drivre", known), ["restore-driver"]);
        assert_eq!(did_you_mean("driver", known), ["restore-driver"]);
        assert_eq!(did_you_mean("nothing-like-it", known), [""; 0]);
        assert_eq!(distance("ab", "ba"), 1);
    }
}
