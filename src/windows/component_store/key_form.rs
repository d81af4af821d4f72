//! The key form of a component: the name of its directory, its manifest and its registry keys, computed from its identity.
//!
//! So a manifest proves its own file name, and a file name proves the identity in a manifest. The rule is published (haveSxS); it
//! reproduces every genuine name that was tried.

use crate::xml::{Part, Parts, decode};
use std::borrow::Cow;

/// 2^33 − 9.
const PRIME: u64 = 0x1_FFFF_FFF7;
/// A name longer than this is cut in its middle, to so many characters at each end.
const LONGEST_NAME: usize = 40;
const NAME_END: usize = 19;
const LONGEST_CULTURE: usize = 8;
const CULTURE_END: usize = 3;

/// What a component is called in its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Name, with spaces and capital letters.
    pub name: String,
    /// Language; empty or `neutral` for none.
    pub culture: String,
    /// `win32`, `driverUpdate`, ...; often absent.
    pub kind: String,
    /// Version.
    pub version: String,
    /// Token of the public key.
    pub token: String,
    /// `amd64`, `wow64`, `x86`, ...
    pub architecture: String,
    /// `nonSxS`, mostly.
    pub version_scope: String,
}

impl Identity {
    /// The identity that a manifest states: its first `assemblyIdentity`.
    pub fn of_manifest(text: &[u8]) -> Option<Identity> {
        let text = decode(text);
        let tag = Parts(&text).find_map(|part| match part {
            Part::Open(tag, _) if tag.local() == "assemblyIdentity" => Some(tag),
            _ => None,
        })?;
        let get = |name: &str| tag.attribute(name).map_or_else(String::new, Cow::into_owned);
        let identity = Identity {
            name: get("name"),
            culture: get("language"),
            kind: get("type"),
            version: get("version"),
            token: get("publicKeyToken"),
            architecture: get("processorArchitecture"),
            version_scope: get("versionScope"),
        };
        (!identity.name.is_empty()).then_some(identity)
    }

    fn culture(&self) -> &str {
        match self.culture.as_str() {
            "" | "neutral" | "*" => "none",
            culture => culture,
        }
    }

    fn hash(&self, with_version: bool) -> u64 {
        let attributes = [
            ("name", self.name.as_str()),
            ("culture", self.culture()),
            ("type", &self.kind),
            ("version", if with_version { &self.version } else { "" }),
            ("publicKeyToken", &self.token),
            ("processorArchitecture", &self.architecture),
            ("versionScope", &self.version_scope),
        ];
        attributes.iter().filter(|(_, value)| !value.is_empty() && *value != "none").fold(
            0u64,
            |key, (name, value)| {
                let pair = text_hash(name).wrapping_mul(PRIME).wrapping_add(text_hash(value));
                key.wrapping_mul(PRIME).wrapping_add(pair)
            },
        )
    }

    /// `<architecture>_<name>_<token>_<version>_<culture>_<hash>`.
    pub fn key_form(&self) -> String {
        let token = if self.token.is_empty() { "none" } else { &self.token };
        format!(
            "{}_{}_{token}_{}_{}_{:016x}",
            self.architecture,
            cut(&self.name, LONGEST_NAME, NAME_END),
            self.version,
            cut(self.culture(), LONGEST_CULTURE, CULTURE_END),
            self.hash(true)
        )
        .to_lowercase()
    }

    /// The same without the version, as `SideBySide\Winners` has it.
    pub fn winners_form(&self) -> String {
        let token = if self.token.is_empty() { "none" } else { &self.token };
        format!(
            "{}_{}_{token}_{}_{:016x}",
            self.architecture,
            cut(&self.name, LONGEST_NAME, NAME_END),
            cut(self.culture(), LONGEST_CULTURE, CULTURE_END),
            self.hash(false)
        )
        .to_lowercase()
    }
}

/// Four lanes over the UTF-16 units, in lower case.
fn text_hash(text: &str) -> u64 {
    let mut lanes = [0u32; 4];
    for (index, unit) in text.to_lowercase().encode_utf16().enumerate() {
        let lane = &mut lanes[index % 4];
        *lane = lane.wrapping_mul(65599).wrapping_add(u32::from(unit));
    }
    lanes.iter().fold(0u64, |hash, lane| hash.wrapping_mul(PRIME).wrapping_add(u64::from(*lane)))
}

/// A part of the name, without what a directory is not called with, cut in its middle.
fn cut(text: &str, longest: usize, end: usize) -> String {
    let kept: Vec<char> = text
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
        .collect();
    if kept.len() <= longest {
        return kept.into_iter().collect();
    }
    let (first, last) = (&kept[..end], &kept[kept.len() - end..]);
    first.iter().chain(&['.', '.']).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_proves_the_name_of_its_file() {
        let text = "<?xml version=\"1.0\"?><assembly><assemblyIdentity name=\"dual_netvg63a.inf\" version=\"10.0.26100.1\" \
            processorArchitecture=\"amd64\" language=\"neutral\" buildType=\"release\" publicKeyToken=\"31bf3856ad364e35\" \
            versionScope=\"nonSxS\" type=\"dualModeDriver\" /></assembly>";
        let identity = Identity::of_manifest(text.as_bytes()).unwrap();
        let name = "amd64_dual_netvg63a.inf_31bf3856ad364e35_10.0.26100.1_none_9162a10543917fc7";
        assert_eq!(identity.key_form(), name);
        assert_eq!(identity.winners_form(), "amd64_dual_netvg63a.inf_31bf3856ad364e35_none_6cc1a7010c364aae");
        let other = Identity { version: "10.0.26100.2".into(), ..identity };
        assert_ne!(other.key_form().rsplit('_').next(), name.rsplit('_').next());
        assert_eq!(Identity::of_manifest(b"<a/>"), None);
    }
}
