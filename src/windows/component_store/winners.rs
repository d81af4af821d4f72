//! Which version of a component Windows takes: `SOFTWARE\...\SideBySide\Winners\<family>\<major.minor>`, whose default value is a version;
//! else the highest version that COMPONENTS has with a deployment (`DerivedData\Components\<component>`, values `c!...`); else the
//! highest that lies in the store.

use super::identity::{ComponentName, Version, family_of_key, parse_version};
use crate::machine::{Installation, Machine};
use crate::unread::{Unread, Unseen, Weight};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_registry::{Hive, Key};

/// What is read here, in words, and where.
const WINNERS: &str = "the winners of the component store";
const SOFTWARE: &str = r"HKLM\SOFTWARE";
const COMPONENTS: &str = r"HKLM\COMPONENTS";

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
    /// Reads the winners. A hive that is missing has none; what cannot be read is noted.
    pub(super) fn read(machine: &Machine, installation: &Installation, unseen: &Unseen) -> Winners {
        let hive = unseen.found(WINNERS, SOFTWARE, Weight::Partial, machine.hive(installation, "SOFTWARE"));
        let by_family = hive.map(|hive| registered(&hive, unseen)).unwrap_or_default();
        let source = Some((machine.clone(), installation.clone()));
        Winners { by_family, source, components: OnceLock::new() }
    }

    /// The winner of a family for components of this version's major and minor number.
    pub(super) fn of(
        &self,
        family: &str,
        version: Version,
        unseen: &Unseen,
    ) -> Option<(Version, WinnerSource)> {
        let branch = format!("{}.{}", version[0], version[1]);
        if let Some(list) = self.by_family.get(family) {
            return list
                .iter()
                .find(|(name, _)| *name == branch)
                .map(|(_, version)| (*version, WinnerSource::Winners));
        }
        let components = self.components.get_or_init(|| {
            let Some((machine, own)) = &self.source else { return BTreeMap::new() };
            let hive = unseen.found(WINNERS, COMPONENTS, Weight::Partial, machine.hive(own, "COMPONENTS"));
            hive.map(|hive| deployed(&hive, unseen)).unwrap_or_default()
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

fn registered(hive: &Hive, unseen: &Unseen) -> BTreeMap<String, Vec<(String, Version)>> {
    let mut found: BTreeMap<String, Vec<(String, Version)>> = BTreeMap::new();
    let list = hive.key(r"Microsoft\Windows\CurrentVersion\SideBySide\Winners");
    let Some(list) = unseen.seen(WINNERS, SOFTWARE, Weight::Partial, list).flatten() else { return found };
    for family in below(&list, SOFTWARE, unseen) {
        let Some(name) = family_of_key(&family.name()) else { continue };
        for branch in below(&family, SOFTWARE, unseen) {
            let value = unseen.seen(WINNERS, SOFTWARE, Weight::Partial, branch.value("")).flatten();
            if let Some(version) = value.and_then(|value| parse_version(&value.as_string()?)) {
                found.entry(name.clone()).or_default().push((branch.name(), version));
            }
        }
    }
    found
}

fn deployed(hive: &Hive, unseen: &Unseen) -> BTreeMap<String, Version> {
    let mut found: BTreeMap<String, Version> = BTreeMap::new();
    let list = hive.key(r"DerivedData\Components");
    let Some(list) = unseen.seen(WINNERS, COMPONENTS, Weight::Partial, list).flatten() else { return found };
    for key in below(&list, COMPONENTS, unseen) {
        let Some(name) = ComponentName::parse(&key.name()) else { continue };
        let (values, lost) = key.values_lenient();
        for e in &lost {
            unseen.note(Unread::of(WINNERS, COMPONENTS, Weight::Partial, e));
        }
        if values.iter().any(|value| value.name().starts_with("c!")) {
            let highest = found.entry(name.family()).or_insert(name.version);
            *highest = (*highest).max(name.version);
        }
    }
    found
}

/// The keys below that can be read; what cannot is noted.
fn below<'k>(key: &Key<'k>, place: &str, unseen: &Unseen) -> Vec<Key<'k>> {
    let (keys, lost) = key.subkeys_lenient();
    for e in &lost {
        unseen.note(Unread::of(WINNERS, place, Weight::Partial, e));
    }
    keys
}
