//! Names of the guest as names of the host: none may lead out of the target, none may be lost.

use std::collections::HashSet;

/// Longest name that file systems of hosts have, in bytes.
const LONGEST_BYTES: usize = 255;
/// Room for what [`Names::take`] appends.
const ROOM_BYTES: usize = 12;

/// The names that are taken in one folder of the host.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<String>);

impl Names {
    /// A name for `name` that no other in this folder has. The same name comes out when the host can have it.
    pub(crate) fn take(&mut self, name: &str) -> String {
        let base = fit(name);
        let mut found = base.clone();
        let mut number = 2;
        while !self.0.insert(folded(&found)) {
            found = format!("{base}~{number}");
            number += 1;
        }
        found
    }
}

/// Hosts whose names do not differ by case.
fn folded(name: &str) -> String {
    if cfg!(any(windows, target_os = "macos")) { name.to_lowercase() } else { name.to_string() }
}

fn is_refused(c: char) -> bool {
    matches!(c, '/' | '\\' | '\0')
        || cfg!(windows) && (c < ' ' || matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*'))
}

/// The name with every character that a host refuses written as `%XX`, cut to the length of a name.
fn fit(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if is_refused(c) {
            out.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    if matches!(out.as_str(), "" | "." | "..") || cfg!(windows) && out.ends_with(['.', ' ']) {
        out.push_str("%2E");
    }
    if out.len() > LONGEST_BYTES - ROOM_BYTES && out.len() > LONGEST_BYTES {
        let mut end = LONGEST_BYTES - ROOM_BYTES;
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        out.push('~');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_and_none_is_lost() {
        let mut names = Names::default();
        assert_eq!(names.take("a b.txt"), "a b.txt");
        assert_eq!(names.take("a/b"), "a%2Fb");
        assert_eq!(names.take(".."), "..%2E");
        assert_eq!(names.take("a\u{FFFD}"), "a\u{FFFD}");
        assert_eq!(names.take("a\u{FFFD}"), "a\u{FFFD}~2", "two names with unpaired surrogates");
        assert_eq!(names.take("a\u{FFFD}"), "a\u{FFFD}~3");
        let long = "ü".repeat(255);
        let short = names.take(&long);
        assert!(short.len() <= LONGEST_BYTES && short.ends_with('~'), "{}", short.len());
        assert!(names.take(&long).len() <= LONGEST_BYTES);
    }
}
