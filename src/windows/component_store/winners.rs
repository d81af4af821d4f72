//! Which version of a component Windows takes: `SOFTWARE\...\SideBySide\Winners\<family>\<major.minor>`, whose default value is a version;
//! else the highest version that COMPONENTS has with a deployment (`DerivedData\Components\<component>`, values `c!...`); else the
//! highest that lies in the store.

use super::identity::{ComponentName, Version, family_of_key, parse_version};
use crate::machine::{Installation, Machine};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_registry::Hive;

/// Who says which version wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WinnerSource {
    /// `SideBySide\Winners` in SOFTWARE.
    Winners,
    /// COMPONENTS: the highest version that an installed package brought.
    Components,
    /// Nobody: the highest version in the store.
    Highest,
}

impl WinnerSource {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            WinnerSource::Winners => "SideBySide\\Winners",
            WinnerSource::Components => "COMPONENTS",
            WinnerSource::Highest => "the highest version in the store",
        }
    }
}

/// The winners of an installation.
pub(super) struct Winners {
    /// Version by family and `major.minor`.
    by_family: BTreeMap<String, Vec<(String, Version)>>,
    /// Machine and installation, for COMPONENTS, which is read when it is needed.
    source: Option<(Machine, Installation)>,
    components: OnceLock<BTreeMap<String, Version>>,
}

impl Winners {
    /// Reads the winners. A hive that is missing or damaged has none.
    pub(super) fn read(machine: &Machine, installation: &Installation) -> Winners {
        let hive = machine.hive(installation, "SOFTWARE").ok();
        let by_family = hive.map(|hive| registered(&hive)).unwrap_or_default();
        let source = Some((machine.clone(), installation.clone()));
        Winners { by_family, source, components: OnceLock::new() }
    }

    /// The winner of a family for components of this version's major and minor number.
    pub(super) fn of(&self, family: &str, version: Version) -> Option<(Version, WinnerSource)> {
        let branch = format!("{}.{}", version[0], version[1]);
        if let Some(list) = self.by_family.get(family) {
            return list
                .iter()
                .find(|(name, _)| *name == branch)
                .map(|(_, version)| (*version, WinnerSource::Winners));
        }
        let components = self.components.get_or_init(|| {
            let hive = self.source.as_ref().and_then(|(machine, own)| machine.hive(own, "COMPONENTS").ok());
            hive.map(|hive| deployed(&hive)).unwrap_or_default()
        });
        components.get(family).map(|version| (*version, WinnerSource::Components))
    }
}

impl Winners {
    /// `S256H` of a component in COMPONENTS: SHA-256 of its manifest's text. `None` where there is no such hive, key or value.
    ///
    /// # Errors
    /// Of reading the hive.
    pub(super) fn manifest_sha256(&self, component: &str) -> Result<Option<[u8; 32]>> {
        let Some((machine, own)) = self.source.as_ref() else { return Ok(None) };
        let hive = match machine.hive(own, "COMPONENTS") {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            hive => hive?,
        };
        let key = hive.key(&format!(r"DerivedData\Components\{component}"))?;
        let Some(value) = key.map(|key| key.value("S256H")).transpose()?.flatten() else { return Ok(None) };
        let data = value.data()?;
        data.as_ref().try_into().map(Some).map_err(|_| {
            Error::damaged(Layer::Windows, "S256H is no SHA-256").found(format!("{} bytes", data.len()))
        })
    }
}

fn registered(hive: &Hive) -> BTreeMap<String, Vec<(String, Version)>> {
    let mut found: BTreeMap<String, Vec<(String, Version)>> = BTreeMap::new();
    let Ok(Some(list)) = hive.key(r"Microsoft\Windows\CurrentVersion\SideBySide\Winners") else {
        return found;
    };
    for family in list.subkeys_lenient().0 {
        let Some(name) = family_of_key(&family.name()) else { continue };
        for branch in family.subkeys_lenient().0 {
            let version =
                branch.value("").ok().flatten().and_then(|value| parse_version(&value.as_string()?));
            if let Some(version) = version {
                found.entry(name.clone()).or_default().push((branch.name(), version));
            }
        }
    }
    found
}

fn deployed(hive: &Hive) -> BTreeMap<String, Version> {
    let mut found: BTreeMap<String, Version> = BTreeMap::new();
    let Ok(Some(list)) = hive.key(r"DerivedData\Components") else { return found };
    for key in list.subkeys_lenient().0 {
        let Some(name) = ComponentName::parse(&key.name()) else { continue };
        if key.values_lenient().0.iter().any(|value| value.name().starts_with("c!")) {
            let highest = found.entry(name.family()).or_insert(name.version);
            *highest = (*highest).max(name.version);
        }
    }
    found
}
