//! Rules and incidents as data: one TOML file each, shipped in `rules/` and `incidents/`, or a user's own.
//!
//! The words of a condition are those of the repair scripts where they mean the same. A condition gives evidence: what was
//! seen, and where. What cannot be read does not hold.

use super::rule::{Confidence, Rule, Severity};
use super::{Applicability, Finding, Fix};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_SCRIPT_BYTES;

const SHIPPED: &[&str] = &[
    include_str!("rules/azure-firewall-blocks-rdp.toml"),
    include_str!("rules/azure-rdp-off.toml"),
    include_str!("rules/azure-service-restarts-machine.toml"),
    include_str!("rules/azure-static-address.toml"),
    include_str!("rules/bad-memory-list.toml"),
    include_str!("rules/boot-menu-waits.toml"),
    include_str!("rules/cleanup-profiles-policy.toml"),
    include_str!("rules/dhcp-client-disabled.toml"),
    include_str!("rules/encryption-driver-hibun.toml"),
    include_str!("rules/firewall-blocks-all.toml"),
    include_str!("rules/netlogon-disabled.toml"),
    include_str!("rules/network-adapter-disabled.toml"),
    include_str!("rules/network-store-interface-disabled.toml"),
    include_str!("rules/remote-desktop-drains.toml"),
    include_str!("rules/remote-desktop-service-disabled.toml"),
    include_str!("rules/safe-mode.toml"),
    include_str!("rules/servicing-failed.toml"),
    include_str!("rules/setup-interrupted.toml"),
    include_str!("rules/setup-unfinished.toml"),
    include_str!("rules/tls-server-off.toml"),
    include_str!("incidents/april-2019-antivirus.toml"),
    include_str!("incidents/april-2026-lsass.toml"),
    include_str!("incidents/citrix-recording-2025.toml"),
    include_str!("incidents/crowdstrike-291.toml"),
    include_str!("incidents/january-2022-domain-controller.toml"),
    include_str!("incidents/july-2018-race.toml"),
    include_str!("incidents/kb4041676-delta.toml"),
    include_str!("incidents/kb5003638-log-full.toml"),
    include_str!("incidents/kb5021233-hidparse.toml"),
    include_str!("incidents/kb5022842-secure-boot-esxi.toml"),
    include_str!("incidents/kb5058385-confidential-vm.toml"),
    include_str!("incidents/kb5058405-acpi.toml"),
    include_str!("incidents/kb5062553-vbs.toml"),
    include_str!("incidents/kb5062557-cluster.toml"),
    include_str!("incidents/kb5074109-unmountable.toml"),
    include_str!("incidents/march-2024-lsass.toml"),
    include_str!("incidents/netvsc-no-network.toml"),
    include_str!("incidents/secure-kernel-error-2025.toml"),
];

/// A rule in a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRule {
    /// Its name.
    pub rule: String,
    /// One line.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// What it means.
    pub meaning: String,
    /// How it is seen.
    pub seen: String,
    /// What cures it.
    pub remedy: String,
    /// What the user sees on the screen.
    #[serde(default)]
    pub screen: String,
    /// Articles, codes and ids of procedures.
    #[serde(default)]
    pub source: Vec<String>,
    /// When it is an incident: the updates that caused it.
    #[serde(default)]
    pub kb: Vec<String>,
    /// When they came out.
    #[serde(default)]
    pub date: String,
    /// What fixed them.
    #[serde(default)]
    pub fixed_by: String,
    /// The script that cures it.
    pub fix: Option<DataFix>,
    /// When it holds.
    pub when: When,
}

/// The cure.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFix {
    /// Name of the script.
    pub script: String,
    /// May it be applied without asking.
    pub applicability: Applicability,
    /// Its parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// Holds when everything that it names holds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// `17763`, `17763.7558` or `17763.7558-7677`: the build of Windows, or of an update that waits; one of them.
    pub build: Vec<String>,
    /// `amd64`, `arm64`, `x86`.
    pub architecture: Option<String>,
    /// `uefi`, `bios`.
    pub firmware: Option<String>,
    /// Patterns for EditionID; one of them.
    pub edition: Vec<String>,
    /// `domain-controller`, `hyper-v`, `failover-cluster`; one of them.
    pub role: Vec<String>,
    /// Articles whose package is installed; one of them.
    pub kb: Vec<String>,
    /// Articles whose package waits for the next start; one of them.
    pub pending_kb: Vec<String>,
    /// Something waits for the next start, or nothing does.
    pub pending: Option<bool>,
    /// Services of the control set of the next start.
    pub service: Vec<ServiceTest>,
    /// Registry.
    pub registry: Vec<RegistryTest>,
    /// Files.
    pub file: Vec<FileTest>,
    /// The boot store.
    pub bcd: Vec<BcdTest>,
    /// Events that matter for the boot.
    pub event: Vec<EventTest>,
    /// Codes of the last crash, such as `0xd1`; one of them.
    pub bugcheck: Vec<String>,
    /// One of these holds.
    pub any: Vec<When>,
    /// None of these holds.
    pub not: Vec<When>,
}

/// A service or driver that is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceTest {
    /// Its name, or a pattern.
    pub name: String,
    /// `boot`, `system`, `auto`, `demand`, `disabled`; one of them.
    #[serde(default)]
    pub start: Vec<String>,
}

/// A value of a key. The parts of the key may be patterns; one key that fits is enough.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryTest {
    /// The key, from `HKLM`.
    pub key: String,
    /// The value; the key itself when absent.
    pub value: Option<String>,
    /// Patterns for its text; one of them.
    #[serde(default)]
    pub is: Vec<String>,
    /// Patterns for its text; none of them.
    #[serde(default)]
    pub is_not: Vec<String>,
    /// It is a number and at least this.
    pub at_least: Option<u32>,
    /// It is a number and has these bits.
    pub bits: Option<u32>,
}

/// A file that is there; the last part of its path may be a pattern.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTest {
    /// Guest path; `${windows}` is the directory of the installation.
    pub path: String,
    /// Patterns for the version of its resource; one of them.
    #[serde(default)]
    pub version: Vec<String>,
    /// Its version differs from this file's.
    pub differs_from: Option<String>,
    /// Last written at this time or later, as `2024-07-19T04:09`.
    pub modified_from: Option<String>,
    /// Last written before this time.
    pub modified_before: Option<String>,
    /// It is no whole PE file.
    #[serde(default)]
    pub broken: bool,
}

/// Events of the logs that are read for the boot (System, Setup, Application).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventTest {
    /// Their numbers; one of them.
    pub id: Vec<u32>,
    /// Pattern for the provider.
    #[serde(default = "anything")]
    pub provider: String,
    /// Patterns for what it is about, such as the name of the service; one of them.
    #[serde(default)]
    pub subject: Vec<String>,
    /// So many at least.
    #[serde(default)]
    pub at_least: u64,
}

fn anything() -> String {
    "*".into()
}

/// An element of an object of the boot store that the firmware starts from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BcdTest {
    /// Alias or GUID, with braces.
    pub object: String,
    /// As bcdedit calls it.
    pub element: String,
    /// Patterns for its text; one of them.
    #[serde(default)]
    pub is: Vec<String>,
    /// It is a number and at least this.
    pub at_least: Option<u64>,
}

impl DataRule {
    /// Parses a rule.
    ///
    /// # Errors
    /// `Invalid` with line and column, or when it would hold for every machine.
    pub fn parse(text: &str) -> Result<DataRule> {
        if text.len() as u64 > MAX_SCRIPT_BYTES {
            return Err(Error::limit(Layer::Script, "the rule is too large"));
        }
        let rule: DataRule = toml::from_str(text)
            .map_err(|e| Error::invalid(Layer::Script, e.to_string().trim_end().to_string()))?;
        if rule.when.is_empty() {
            return Err(Error::invalid(Layer::Script, "the rule has no condition").found(rule.rule));
        }
        Ok(rule)
    }

    /// The rules of a file, or of a folder: every file that ends with `.toml`.
    ///
    /// # Errors
    /// Of the host; as [`DataRule::parse`], naming the file.
    pub fn load(path: &Path) -> Result<Vec<DataRule>> {
        let mut files = vec![path.to_path_buf()];
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|e| Error::io("cannot be read", path, e))?;
            files = entries.flatten().map(|entry| entry.path()).collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
            files.sort();
        }
        let read = |file: &std::path::PathBuf| {
            let text = std::fs::read_to_string(file).map_err(|e| Error::io("cannot be read", file, e))?;
            DataRule::parse(&text).map_err(|e| e.in_file(file))
        };
        files.iter().map(read).collect()
    }

    /// What it found, with the evidence for it.
    pub(super) fn finding(&self, evidence: Vec<String>) -> Finding {
        Finding {
            rule: self.rule.clone(),
            severity: self.severity,
            confidence: self.confidence,
            title: self.title.clone(),
            evidence,
            screen: self.screen.clone(),
            remedy: self.remedy.trim().to_string(),
            fix: self.fix.as_ref().map(|fix| Fix {
                script: fix.script.clone(),
                parameters: fix.parameters.clone(),
                applicability: fix.applicability,
            }),
        }
    }
}

impl When {
    fn is_empty(&self) -> bool {
        let lists = [&self.build, &self.edition, &self.role, &self.kb, &self.pending_kb, &self.bugcheck];
        lists.iter().all(|list| list.is_empty())
            && self.architecture.is_none()
            && self.firmware.is_none()
            && self.pending.is_none()
            && self.service.is_empty()
            && self.registry.is_empty()
            && self.file.is_empty()
            && self.bcd.is_empty()
            && self.event.is_empty()
            && self.any.is_empty()
            && self.not.is_empty()
    }
}

impl From<&DataRule> for Rule {
    fn from(data: &DataRule) -> Rule {
        let incident = (!data.kb.is_empty() || !data.fixed_by.is_empty()).then(|| {
            let fixed =
                if data.fixed_by.is_empty() { "nothing that is known" } else { data.fixed_by.as_str() };
            let cause: Vec<&str> =
                [data.date.as_str()].into_iter().chain(data.kb.iter().map(String::as_str)).collect();
            format!("{}; fixed by {fixed}", cause.join(", "))
        });
        Rule {
            rule: data.rule.clone(),
            title: data.title.clone(),
            severity: data.severity,
            confidence: data.confidence,
            meaning: data.meaning.clone(),
            seen: data.seen.clone(),
            remedy: data.remedy.clone(),
            script: data.fix.as_ref().map(|fix| fix.script.clone()),
            source: data.source.iter().chain(&data.kb).cloned().collect(),
            incident,
        }
    }
}

/// The rules that ship with the program.
///
/// # Errors
/// `Invalid` when one cannot be read: a defect of the program.
pub(super) fn shipped() -> Result<Vec<DataRule>> {
    SHIPPED.iter().map(|text| DataRule::parse(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_ships_and_has_its_own_name() {
        let rules = shipped().unwrap();
        let names: std::collections::BTreeSet<&str> = rules.iter().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(names.len(), rules.len());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files: Vec<DataRule> =
            ["rules", "incidents"].iter().flat_map(|dir| DataRule::load(&root.join(dir)).unwrap()).collect();
        assert_eq!(files.len(), rules.len(), "a file of rules/ or incidents/ is not in the list");
        for rule in &rules {
            assert!(
                rule.meaning.len() > 40 && rule.seen.len() > 10 && rule.remedy.len() > 10,
                "{}",
                rule.rule
            );
            assert!(!rule.source.is_empty() || !rule.kb.is_empty(), "{} has no source", rule.rule);
        }
    }

    #[test]
    fn a_rule_with_a_mistake_says_where() {
        let head = "rule='x'\ntitle='x'\nseverity='notice'\nconfidence='certain'\nmeaning='x'\nseen='x'\nremedy='x'\n";
        for (rest, wanted) in [
            ("[when]\nbuilds = ['1']\n", "line 9"),
            ("[when]\n", "no condition"),
            ("[when]\nrole = 'hyper-v'\n", "line 9"),
        ] {
            let e = DataRule::parse(&format!("{head}{rest}")).unwrap_err().to_string();
            assert!(e.contains(wanted), "{e}");
        }
    }
}
