//! Paths as a user types them: `C:\Windows\x`, `esp:\EFI`, `#3:\dir`, with `/` or `\`, and a stream after a colon.

use vmrescue_base::error::{Error, Layer, Result};

/// Which volume a path starts at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VolumeName {
    /// A drive letter as the guest sees it, upper case.
    Letter(char),
    /// The EFI system partition (or the active partition of an MBR disk).
    SystemPartition,
    /// A partition by its number, counted from 1.
    Number(u32),
}

impl std::fmt::Display for VolumeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VolumeName::Letter(letter) => write!(f, "{letter}:"),
            VolumeName::SystemPartition => write!(f, "esp:"),
            VolumeName::Number(number) => write!(f, "#{number}:"),
        }
    }
}

/// A path inside the guest, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GuestPath {
    /// The volume it starts at.
    pub volume: VolumeName,
    /// The shadow copy of it, as [`crate::shadow::Shadows::find`] takes it; empty for the volume as it is.
    pub shadow: String,
    /// Directory names and the last name; empty for the root. No component is empty, `.` or `..`.
    pub components: Vec<String>,
    /// The stream after the last colon; empty for the unnamed one.
    pub stream: String,
}

impl GuestPath {
    /// Takes a path apart. `file::$DATA` means the unnamed stream.
    ///
    /// # Errors
    /// `Invalid` with what is wrong: no volume, an empty or unreal component, a bad stream; a shadow copy, which this is not for.
    pub fn parse(text: &str) -> Result<GuestPath> {
        let path = GuestPath::parse_any(text)?;
        if path.shadow.is_empty() {
            return Ok(path);
        }
        Err(Error::invalid(Layer::Shadow, "a shadow copy can only be read, and not by this command")
            .found(text)
            .advice("ls, cat, get, stat and find take paths of shadow copies"))
    }

    /// The same for who only reads: `C:@2\Windows` is in the second shadow copy of `C:`.
    ///
    /// # Errors
    /// As [`GuestPath::parse`], but for shadow copies.
    pub fn parse_any(text: &str) -> Result<GuestPath> {
        let bad = |why: &str| {
            Error::invalid(Layer::FileSystem, format!("{why} in the guest path {text:?}"))
                .advice(r"write C:\Windows\file, esp:\EFI\file, #3:\file, or file:stream at the end")
        };
        let (volume, rest) = text.split_once(':').ok_or_else(|| bad("no volume"))?;
        let volume = parse_volume(volume).ok_or_else(|| bad("unknown volume"))?;
        let (shadow, rest) = match rest.strip_prefix('@') {
            None => ("", rest),
            Some(rest) => match rest.split_at(rest.find(['\\', '/']).unwrap_or(rest.len())) {
                ("", _) => return Err(bad("no shadow copy behind the @")),
                both => both,
            },
        };
        let mut parts: Vec<&str> = rest.split(['\\', '/']).collect();
        if parts.first() == Some(&"") {
            parts.remove(0);
        } else if !rest.is_empty() {
            return Err(bad("no backslash after the volume"));
        }
        while parts.last() == Some(&"") {
            parts.pop();
        }
        let mut stream = String::new();
        if let Some(last) = parts.last_mut()
            && let Some((name, rest)) = last.split_once(':')
        {
            let rest = strip_data_suffix(rest);
            if rest.contains(':') {
                return Err(bad("more than one stream"));
            }
            stream = rest.to_string();
            *last = name;
        }
        if parts.last() == Some(&"") {
            parts.pop(); // a stream of the root directory: C:\:name
        }
        if parts.iter().any(|p| p.is_empty() || *p == "." || *p == ".." || p.contains(['\0', ':'])) {
            return Err(bad("a component that cannot be a name"));
        }
        Ok(GuestPath {
            volume,
            shadow: shadow.to_string(),
            components: parts.into_iter().map(String::from).collect(),
            stream,
        })
    }

    /// The last component, or an empty text for the root.
    pub fn file_name(&self) -> &str {
        self.components.last().map_or("", String::as_str)
    }
}

impl std::fmt::Display for GuestPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = if self.shadow.is_empty() { "" } else { "@" };
        write!(f, "{}{at}{}\\{}", self.volume, self.shadow, self.components.join("\\"))?;
        if self.stream.is_empty() { Ok(()) } else { write!(f, ":{}", self.stream) }
    }
}

/// `name:$DATA` is the same stream as `name`.
fn strip_data_suffix(stream: &str) -> &str {
    match stream.rsplit_once(':') {
        Some((name, kind)) if kind.eq_ignore_ascii_case("$DATA") => name,
        _ => stream,
    }
}

fn parse_volume(text: &str) -> Option<VolumeName> {
    if let Some(number) = text.strip_prefix('#') {
        return number.parse().ok().filter(|n| *n > 0).map(VolumeName::Number);
    }
    if text.eq_ignore_ascii_case("esp") {
        return Some(VolumeName::SystemPartition);
    }
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter.is_ascii_alphabetic() => {
            Some(VolumeName::Letter(letter.to_ascii_uppercase()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_every_kind() {
        let p = GuestPath::parse(r"c:\Windows/System32\drivers\ACPI.sys").unwrap();
        assert_eq!(p.volume, VolumeName::Letter('C'));
        assert_eq!(p.components, ["Windows", "System32", "drivers", "ACPI.sys"]);
        assert_eq!(GuestPath::parse(r"#3:\").unwrap().components.len(), 0);
        assert_eq!(GuestPath::parse("C:").unwrap().components.len(), 0);
        assert_eq!(GuestPath::parse(r"esp:/EFI/").unwrap().to_string(), r"esp:\EFI");
        let p = GuestPath::parse(r"C:\a\b:Zone.Identifier:$DATA").unwrap();
        assert_eq!((p.file_name(), p.stream.as_str()), ("b", "Zone.Identifier"));
        assert_eq!(GuestPath::parse(r"C:\b::$DATA").unwrap().stream, "");
        assert_eq!(GuestPath::parse(r"C:\:root").unwrap().stream, "root");
    }

    #[test]
    fn shadow_copies_are_for_readers() {
        for (text, shadow, name) in [
            (r"c:@2\Windows", "2", "Windows"),
            ("C:@latest", "latest", ""),
            (r"#3:@{ab-c}/x:s", "{ab-c}", "x"),
        ] {
            let path = GuestPath::parse_any(text).unwrap();
            assert_eq!((path.shadow.as_str(), path.file_name()), (shadow, name));
            assert_eq!(GuestPath::parse_any(&path.to_string()).unwrap(), path);
            assert!(GuestPath::parse(text).is_err(), "{text}");
        }
        assert_eq!(GuestPath::parse_any(r"C:@2\a").unwrap().to_string(), r"C:@2\a");
        assert!(GuestPath::parse_any(r"C:@\a").is_err() && GuestPath::parse(r"C:\a@2").is_ok());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "Windows",
            r"C:Windows",
            r"C:\a\\b",
            r"C:\..\x",
            r"CD:\x",
            r"#0:\x",
            r"C:\a:b:c",
            r"C:\a:b\c",
        ] {
            assert!(GuestPath::parse(text).is_err(), "{text}");
        }
    }
}
