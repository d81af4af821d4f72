//! Names of components: `<architecture>_<name>_<public key token>_<version>_<culture>_<hash>`, as their directories, their manifests
//! and their keys in the hive COMPONENTS are called. Long names are cut in their middle (`microsoft-windows-a..b`), in the same way everywhere.

use serde::Serialize;

/// Number of a component: four parts.
pub(super) type Version = [u32; 4];

/// `a.b.c.d` as numbers.
pub(super) fn parse_version(text: &str) -> Option<Version> {
    let numbers: Vec<u32> = text.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

/// The name of a component, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComponentName {
    /// `amd64`, `x86`, `wow64`, `arm64`, `msil`.
    pub architecture: String,
    /// Name, perhaps cut in its middle.
    pub name: String,
    /// Token of the public key.
    pub token: String,
    /// Version.
    pub version: [u32; 4],
    /// Culture, `none` for neutral.
    pub culture: String,
    /// Hash over all of it.
    pub hash: String,
}

impl ComponentName {
    /// Takes a name apart; `None` when it is none of a component.
    pub fn parse(text: &str) -> Option<ComponentName> {
        let (architecture, rest) = text.split_once('_')?;
        let mut parts = rest.rsplitn(5, '_');
        let (hash, culture, version, token, name) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(ComponentName {
            architecture: architecture.into(),
            name: name.into(),
            token: token.into(),
            version: parse_version(version)?,
            culture: culture.into(),
            hash: hash.into(),
        })
    }

    /// Version in text.
    pub fn version_text(&self) -> String {
        version_text(self.version)
    }

    /// What all versions of the component have in common, in lower case.
    pub(super) fn family(&self) -> String {
        format!("{}_{}_{}_{}", self.architecture, self.name, self.token, self.culture).to_lowercase()
    }
}

/// A version in text.
pub(super) fn version_text(version: Version) -> String {
    version.map(|part| part.to_string()).join(".")
}

/// The same for the name of a family as `SideBySide\Winners` has it: `<architecture>_<name>_<token>_<culture>_<hash>`.
pub(super) fn family_of_key(key: &str) -> Option<String> {
    key.rsplit_once('_').map(|(family, _)| family.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name =
            ComponentName::parse("amd64_acpi.inf_31bf3856ad364e35_10.0.17763.7558_none_0a1b2c3d4e5f6071")
                .unwrap();
        assert_eq!((name.version, name.name.as_str()), ([10, 0, 17763, 7558], "acpi.inf"));
        assert_eq!(
            Some(name.family()),
            family_of_key("AMD64_acpi.inf_31bf3856ad364e35_none_e55ca6c027a999a2")
        );
        let name = ComponentName::parse("x86_a_b_c_31bf3856ad364e35_1.2.3.4_de-de_00").unwrap();
        assert_eq!((name.name.as_str(), name.culture.as_str()), ("a_b_c", "de-de"));
        assert_eq!(ComponentName::parse("Backup"), None);
        assert_eq!(ComponentName::parse("amd64_a_b_c_d_e"), None);
    }
}
