//! Component manifests, `WinSxS\Manifests\<component>.manifest`: the hashes of the component's files.
//!
//! Plain ones are XML: `file` elements with a `hash` of XML-DSig. Windows 8 and later keep most of them as a delta (`DCM`) against a base
//! that lies inside the guest's own wcp.dll. Such a delta does not say what must come out of it, so its text is believed only when the key form of
//! the identity in it is the name of its file.

use crate::xml::{Part, Parts, decode};
use serde::Serialize;

/// Files of one manifest that are looked at.
const MAX_FILES: usize = 1 << 16;

/// Whether a manifest can tell hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ManifestState {
    /// Plain XML: read.
    Read,
    /// Unpacked with the base in the guest's wcp.dll; its identity has the name of its file.
    Unpacked,
    /// Compressed, and not unpacked: hashes unknown.
    Compressed,
    /// There is none.
    Missing,
    /// Neither of these.
    Unreadable,
}

/// What a manifest is, by its first bytes.
pub(super) fn state_of(bytes: &[u8]) -> ManifestState {
    match bytes {
        [b'D', b'C', b'M' | b'N' | b'S' | b'D', 1, ..] | [b'P', b'A', b'3', b'0', ..] => {
            ManifestState::Compressed
        }
        [0xef, 0xbb, 0xbf, b'<', ..] | [0xff, 0xfe, b'<', ..] | [b'<', ..] => ManifestState::Read,
        _ => ManifestState::Unreadable,
    }
}

impl ManifestState {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            ManifestState::Read => "plain",
            ManifestState::Unpacked => "unpacked with the base in wcp.dll",
            ManifestState::Compressed => "compressed, and could not be unpacked",
            ManifestState::Missing => "missing",
            ManifestState::Unreadable => "unreadable",
        }
    }
}

/// SHA-256 of the file `name` as the text of a manifest has it. A hash over anything but the whole file, and by any other algorithm, is none.
pub(super) fn sha256_of(bytes: &[u8], name: &str) -> Option<[u8; 32]> {
    let text = decode(bytes);
    let (mut inside, mut algorithm, mut in_value, mut whole, mut files) = (false, false, false, true, 0);
    for part in Parts(&text) {
        match part {
            Part::Open(tag, empty) => match tag.local() {
                "file" => {
                    files += 1;
                    if files > MAX_FILES {
                        return None;
                    }
                    let said = tag.attribute("name").unwrap_or_default();
                    // Some manifests write a path here.
                    let said = said.rsplit('\\').next().unwrap_or_default();
                    inside = !empty && said.eq_ignore_ascii_case(name);
                    (algorithm, whole) = (false, true);
                }
                "Transform" if inside => {
                    whole &= tag.attribute("Algorithm").is_some_and(|text| text.ends_with(".Identity"));
                }
                "DigestMethod" if inside => {
                    algorithm = tag.attribute("Algorithm").is_some_and(|text| text.ends_with("#sha256"));
                }
                "DigestValue" => in_value = inside && algorithm && whole && !empty,
                _ => {}
            },
            Part::Text(text) if in_value => {
                if let Some(hash) = base64(text.trim()).and_then(|hash| hash.try_into().ok()) {
                    return Some(hash);
                }
            }
            Part::Close(name) => match crate::xml::local(name) {
                "file" => inside = false,
                "DigestValue" => in_value = false,
                _ => {}
            },
            Part::Text(_) => {}
        }
    }
    None
}

/// Base64 (RFC 4648) without line breaks.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(u32::from(c - b'A')),
        b'a'..=b'z' => Some(u32::from(c - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(c - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().try_fold(0u32, |bits, c| Some(bits << 6 | digit(*c)?))?;
        let bits = bits << (6 * (4 - group.len()));
        out.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MANIFEST: &str = r##"<?xml version="1.0"?><assembly xmlns="urn:schemas-microsoft-com:asm.v3">
        <file name="other.sys"><asmv2:hash><dsig:DigestMethod Algorithm="http://www.w3.org/2000/09/xmldsig#sha256" />
        <dsig:DigestValue>AAAA</dsig:DigestValue></asmv2:hash></file>
        <file name="ACPI.sys" importPath="x"><asmv2:hash><dsig:Transforms/><dsig:DigestMethod Algorithm="http://www.w3.org/2000/09/xmldsig#sha256" />
        <dsig:DigestValue>AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=</dsig:DigestValue></asmv2:hash></file></assembly>"##;

    #[test]
    fn the_hash_of_the_right_file_is_read() {
        let hash: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(sha256_of(MANIFEST.as_bytes(), "acpi.SYS"), Some(hash));
        assert_eq!(sha256_of(MANIFEST.as_bytes(), "none.sys"), None);
        assert_eq!(state_of(MANIFEST.as_bytes()), ManifestState::Read);
        assert_eq!(state_of(b"DCM\x01PA30"), ManifestState::Compressed);
        assert_eq!(state_of(b""), ManifestState::Unreadable);
    }

    #[test]
    fn a_hash_over_a_part_of_the_file_is_none() {
        let transform = |kind: &str| {
            let tag = format!(
                "<dsig:Transforms><dsig:Transform Algorithm=\"urn:schemas-microsoft-com:HashTransforms.{kind}\"/></dsig:Transforms>"
            );
            MANIFEST.replace("<dsig:Transforms/>", &tag)
        };
        assert!(sha256_of(transform("Identity").as_bytes(), "ACPI.sys").is_some());
        assert!(sha256_of(transform("Other").as_bytes(), "ACPI.sys").is_none());
    }

    #[test]
    fn base64_of_all_lengths_is_read() {
        assert_eq!(base64("TQ==").as_deref(), Some(&b"M"[..]));
        assert_eq!(base64("TWE=").as_deref(), Some(&b"Ma"[..]));
        assert_eq!(base64("TWFu").as_deref(), Some(&b"Man"[..]));
        assert_eq!(base64("T?"), None);
    }

    proptest! {
        #[test]
        fn any_manifest_is_read_without_panic(cut in any::<prop::sample::Index>(), noise in "[a-z<>=\"/ ]{0,40}") {
            let text = format!("{}{noise}", &MANIFEST[..cut.index(MANIFEST.len())]);
            prop_assert!(sha256_of(text.as_bytes(), "none.sys").is_none());
            drop(base64(&noise));
        }
    }
}
