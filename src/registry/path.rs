//! Paths of keys: names between `\`. Nothing else separates: `RC4 128/128` and `text/html` are names of keys.
//!
//! Names and paths are text in which half a surrogate pair has a place too, see [`vmrescue_base::names`].

use crate::Hive;
use vmrescue_base::error::Result;
use vmrescue_base::names;

/// Most units of a key's name.
pub(crate) const MAX_NAME_UNITS: usize = 255;
/// Most units of a value's name.
pub(crate) const MAX_VALUE_NAME_UNITS: usize = 16_383;

/// True for what Windows takes as the name of a key: 1 to 255 units, no `\`, no NUL at its start.
pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('\0')
        && !name.contains('\\')
        && names::units(name).count() <= MAX_NAME_UNITS
}

/// The names of a path, from the root; empty ones are none.
pub fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('\\').filter(|name| !name.is_empty())
}

/// The path of a key below another one.
pub fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}\\{name}") }
}

/// A key's path as a list of names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPath(Vec<String>);

impl KeyPath {
    /// The names between the `\` of a text.
    pub fn new(text: &str) -> KeyPath {
        KeyPath(names(text).map(str::to_string).collect())
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// True for the same key, and for one below `other`.
    pub fn is_in(&self, other: &KeyPath) -> bool {
        self.0.len() >= other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| names::same(a, b))
    }
}

impl std::fmt::Display for KeyPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\\"))
    }
}

impl Hive {
    /// What a person means who writes `/` between names: a key that has `/` in its name comes first; where there is none,
    /// `/` separates. In what leads to no key at all, `/` separates only when the text has no `\`.
    ///
    /// # Errors
    /// As [`Hive::key`].
    pub fn typed(&self, text: &str) -> Result<KeyPath> {
        let mut found = Vec::new();
        let mut key = Some(self.root());
        for part in names(text) {
            let mut rest = part;
            while !rest.is_empty() {
                let cuts = rest.match_indices('/').map(|(at, _)| at);
                let ends = std::iter::once(rest.len()).chain(cuts.collect::<Vec<_>>().into_iter().rev());
                let mut taken = None;
                for end in ends.filter(|end| *end > 0) {
                    if let Some(child) = key.map(|key| key.subkey(&rest[..end])).transpose()?.flatten() {
                        taken = Some((end, child));
                        break;
                    }
                }
                let Some((end, child)) = taken else {
                    key = None;
                    if text.contains('\\') {
                        found.push(rest.to_string());
                    } else {
                        found.extend(rest.split('/').filter(|name| !name.is_empty()).map(str::to_string));
                    }
                    break;
                };
                found.push(rest[..end].to_string());
                key = Some(child);
                rest = rest[end..].trim_start_matches('/');
            }
        }
        Ok(KeyPath(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HiveEditor;

    #[test]
    fn a_slash_is_part_of_a_name_where_such_a_key_is() {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        editor.create_key(r"Ciphers\RC4 128/128").unwrap();
        editor.create_key(r"a\b").unwrap();
        editor.create_key(r"a\b/c").unwrap();
        let hive = editor.hive();
        let typed = |text: &str| hive.typed(text).unwrap().to_string();
        assert_eq!(hive.key("Ciphers").unwrap().unwrap().subkey_count(), 1);
        assert!(hive.key("a/b").unwrap().is_none() && hive.key("Ciphers\\rc4 128/128").unwrap().is_some());
        for (text, path) in [
            (r"Ciphers\RC4 128/128", r"Ciphers\RC4 128/128"),
            ("Ciphers/RC4 128/128", r"Ciphers\RC4 128/128"),
            ("a/b", r"a\b"),
            ("a/b/c", r"a\b/c"),
            ("a/b/d", r"a\b\d"),
            (r"a\b/d", r"a\b\d"),
            (r"a\new/one", r"a\new/one"),
            ("a/new/one", r"a\new\one"),
        ] {
            assert_eq!(typed(text), path, "{text}");
        }
        assert!(
            KeyPath::new(r"A\B\c").is_in(&KeyPath::new(r"a\b"))
                && !KeyPath::new("ab").is_in(&KeyPath::new("a"))
        );
    }
}
