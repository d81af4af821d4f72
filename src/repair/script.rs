//! A repair script: one TOML file with documentation, parameters and steps; and how steps become changes.
//!
//! A step that finds everything as it should be plans nothing, so a second run changes nothing.

use super::change::{Change, words};
use super::key_path::{KeyPath, key_path};
use super::rebuild_boot::{rebuild_boot, store_changes};
use super::sectors;
use crate::error::{Error, ErrorKind, Layer, Result};
use crate::fs::path::GuestPath;
use crate::fs::{read_file, resolve};
use crate::registry::{DataType, Hive, ValueData};
use crate::text::{fits, utf16le_bytes};
use crate::windows::bcd::{DiskMap, Store};
use crate::windows::{
    Installation, Machine, PeInfo, boot_layout, expand_image_path, load_store, machine_name, store_versions,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A repair script.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Name on the command line.
    pub name: String,
    /// One line.
    pub title: String,
    /// What it does, when to use it, what remains to be done.
    pub documentation: String,
    /// Where the procedure is described.
    #[serde(default)]
    pub source: Vec<String>,
    /// Parameters by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A parameter of a script; steps use it as `${name}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What it means.
    pub documentation: String,
    /// Its value when none is given; without a default it must be given.
    pub default: Option<String>,
}

/// One step.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", deny_unknown_fields)]
pub enum Step {
    /// Sets a registry value; with `if-key`, only where that key is there.
    #[serde(rename = "registry.set")]
    RegistrySet {
        /// The key.
        key: String,
        /// Name of the value.
        value: String,
        /// REG_SZ, REG_DWORD, ...
        r#type: String,
        /// The data as reg.exe takes it.
        data: String,
        /// Do nothing when the key is not there.
        #[serde(default)]
        existing_key_only: bool,
    },
    /// Deletes a value, or without `value` the whole key.
    #[serde(rename = "registry.delete")]
    RegistryDelete {
        /// The key.
        key: String,
        /// Name of the value.
        value: Option<String>,
    },
    /// Takes a text out of a REG_MULTI_SZ.
    #[serde(rename = "registry.remove-from-list")]
    RegistryRemoveFromList {
        /// The key.
        key: String,
        /// Name of the value.
        value: String,
        /// The text; case does not matter.
        text: String,
    },
    /// Replaces a text inside REG_SZ values whose name fits a pattern.
    #[serde(rename = "registry.replace-text")]
    RegistryReplaceText {
        /// The key.
        key: String,
        /// Name of the values, with `*`.
        value: String,
        /// The text to find.
        from: String,
        /// What stands there afterwards.
        to: String,
    },
    /// Clears bits of a REG_DWORD, where it is there.
    #[serde(rename = "registry.clear-bits")]
    RegistryClearBits {
        /// The key.
        key: String,
        /// Name of the value.
        value: String,
        /// The bits, as a number.
        bits: String,
    },
    /// Writes what the transaction logs hold into a hive.
    #[serde(rename = "hive.replay-logs")]
    HiveReplayLogs {
        /// SYSTEM, SOFTWARE, ...
        hive: String,
    },
    /// Replaces a hive by its copy in RegBack, when that is whole.
    #[serde(rename = "hive.restore-regback")]
    HiveRestoreRegBack {
        /// SYSTEM, SOFTWARE, ...
        hive: String,
    },
    /// Lets Windows run a command once at its next start, by a startup script of the local group policy.
    #[serde(rename = "first-boot.run")]
    FirstBootRun {
        /// The command line.
        command: String,
    },
    /// Sets the start of a service or driver.
    #[serde(rename = "service.set-start")]
    ServiceSetStart {
        /// Name of the service.
        service: String,
        /// boot, system, auto, demand, disabled.
        start: String,
    },
    /// Copies a file inside the guest.
    #[serde(rename = "file.copy")]
    FileCopy {
        /// The file.
        from: String,
        /// The copy.
        to: String,
    },
    /// Renames a file, when it is there.
    #[serde(rename = "file.rename")]
    FileRename {
        /// Old path.
        from: String,
        /// New path.
        to: String,
    },
    /// Deletes files of a directory by a name or a pattern with `*`.
    #[serde(rename = "file.delete")]
    FileDelete {
        /// The file.
        path: String,
    },
    /// Puts boot files and boot store right for this installation.
    #[serde(rename = "bcd.rebuild")]
    BcdRebuild {},
    /// Sets an element of the boot store.
    #[serde(rename = "bcd.set")]
    BcdSet {
        /// `{default}`, `{bootmgr}`, another alias, or an identifier.
        object: String,
        /// bcdedit's name, or `custom:` and its number.
        element: String,
        /// The value as bcdedit takes it.
        value: String,
    },
    /// Deletes an element of the boot store, where it is there.
    #[serde(rename = "bcd.delete")]
    BcdDelete {
        /// The object.
        object: String,
        /// The element.
        element: String,
    },
    /// Marks a partition of an MBR disk as active.
    #[serde(rename = "partition.set-active")]
    PartitionSetActive {
        /// Number of the partition.
        number: String,
    },
    /// Gives a partition another type.
    #[serde(rename = "partition.set-type")]
    PartitionSetType {
        /// Number of the partition.
        number: String,
        /// `efi`, `basic`, `recovery`, `reserved`, a GUID, or two digits.
        r#type: String,
    },
    /// Writes both copies of the GPT from the one that is whole.
    #[serde(rename = "partition.repair-gpt")]
    PartitionRepairGpt {},
    /// Puts an NTFS boot sector and its copy right.
    #[serde(rename = "partition.repair-boot-sector")]
    PartitionRepairBootSector {
        /// Number of the partition.
        number: String,
    },
    /// Puts a driver back to a healthy version of the component store.
    #[serde(rename = "driver.restore")]
    DriverRestore {
        /// File name (`ACPI.sys`) or name of the service.
        name: String,
        /// The version to restore; the newest healthy one when empty.
        #[serde(default)]
        version: String,
    },
}

const SHIPPED: &[&str] = &[
    include_str!("../../scripts/restore-driver.toml"),
    include_str!("../../scripts/disable-driver.toml"),
    include_str!("../../scripts/enable-boot-driver.toml"),
    include_str!("../../scripts/remove-filter-driver.toml"),
    include_str!("../../scripts/revert-pending-updates.toml"),
    include_str!("../../scripts/crowdstrike-291.toml"),
    include_str!("../../scripts/nla-off.toml"),
    include_str!("../../scripts/rdp-on.toml"),
    include_str!("../../scripts/memory-dump-on.toml"),
    include_str!("../../scripts/vbs-off.toml"),
    include_str!("../../scripts/last-known-good.toml"),
    include_str!("../../scripts/rebuild-boot.toml"),
    include_str!("../../scripts/set-active.toml"),
    include_str!("../../scripts/set-partition-type.toml"),
    include_str!("../../scripts/repair-gpt.toml"),
    include_str!("../../scripts/repair-boot-sector.toml"),
    include_str!("../../scripts/safe-mode.toml"),
    include_str!("../../scripts/serial-console.toml"),
    include_str!("../../scripts/ignore-boot-failures.toml"),
    include_str!("../../scripts/winre-off.toml"),
    include_str!("../../scripts/storage-drivers-boot.toml"),
    include_str!("../../scripts/enable-admin.toml"),
    include_str!("../../scripts/first-boot-command.toml"),
    include_str!("../../scripts/registry-set.toml"),
    include_str!("../../scripts/hidparse-mismatch.toml"),
    include_str!("../../scripts/clear-txr-logs.toml"),
    include_str!("../../scripts/restore-regback.toml"),
    include_str!("../../scripts/replay-hive-logs.toml"),
    include_str!("../../scripts/policy-cleanup-profiles-off.toml"),
    include_str!("../../scripts/reboot-loop-azure.toml"),
    include_str!("../../scripts/tls-on.toml"),
    include_str!("../../scripts/network-adapter-enable.toml"),
    include_str!("../../scripts/network-dhcp.toml"),
    include_str!("../../scripts/dhcp-service.toml"),
    include_str!("../../scripts/rdp-service.toml"),
    include_str!("../../scripts/rdp-certificate-reset.toml"),
    include_str!("../../scripts/rdp-listener-reset.toml"),
    include_str!("../../scripts/rdp-general.toml"),
    include_str!("../../scripts/rdp-licensing-mode.toml"),
    include_str!("../../scripts/nsi-start.toml"),
    include_str!("../../scripts/netlogon-start.toml"),
    include_str!("../../scripts/credssp-allow.toml"),
    include_str!("../../scripts/rdp-authentication-reset.toml"),
    include_str!("../../scripts/firewall-allow-inbound.toml"),
    include_str!("../../scripts/firewall-allow-rdp.toml"),
    include_str!("../../scripts/firewall-off.toml"),
    include_str!("../../scripts/boot-menu-off.toml"),
    include_str!("../../scripts/sac-and-dump.toml"),
    include_str!("../../scripts/safe-mode-off.toml"),
];

impl Script {
    /// Parses a script.
    ///
    /// # Errors
    /// `Invalid` with line and column.
    pub fn parse(text: &str) -> Result<Script> {
        if text.len() as u64 > crate::limits::MAX_SCRIPT_BYTES {
            return Err(Error::limit(Layer::Script, "the script is too large"));
        }
        toml::from_str(text).map_err(|e| Error::invalid(Layer::Script, e.to_string().trim_end().to_string()))
    }
}

/// The scripts that ship with the program.
///
/// # Errors
/// Only when one of them is broken, which a test excludes.
pub fn shipped() -> Result<Vec<Script>> {
    SHIPPED.iter().map(|text| Script::parse(text)).collect()
}

/// Turns registry data as reg.exe takes it into bytes.
///
/// # Errors
/// `Invalid` when the text does not fit the type.
pub fn registry_data(data_type: DataType, text: &str) -> Result<Vec<u8>> {
    let bad =
        || Error::invalid(Layer::Script, format!("this is no data for {}", data_type.name())).found(text);
    let number = || match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).map_err(|_| bad()),
        None => text.parse::<u64>().map_err(|_| bad()),
    };
    match data_type.0 {
        1 | 2 => Ok(utf16le_bytes(&format!("{text}\0"))),
        4 => Ok(u32::try_from(number()?).map_err(|_| bad())?.to_le_bytes().to_vec()),
        11 => Ok(number()?.to_le_bytes().to_vec()),
        7 if text.is_empty() => Ok(vec![0, 0]),
        7 => Ok(utf16le_bytes(&format!("{}\0\0", text.replace("\\0", "\0")))),
        _ => {
            let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b',' | b' ')).collect();
            let pairs = digits.chunks(2);
            let byte = |pair: &[u8]| {
                std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
            };
            if !digits.len().is_multiple_of(2) {
                return Err(bad());
            }
            pairs.map(|pair| byte(pair).ok_or_else(bad)).collect()
        }
    }
}

/// The value as a list of texts, joined as [`registry_data`] takes them.
fn multi(texts: &[String]) -> Vec<u8> {
    if texts.is_empty() { vec![0, 0] } else { utf16le_bytes(&format!("{}\0\0", texts.join("\0"))) }
}

struct Planner<'a> {
    machine: &'a Machine,
    installation: &'a Installation,
    hives: BTreeMap<String, Hive>,
    changes: Vec<Change>,
}

/// What a script would change on this installation.
///
/// # Errors
/// `Invalid` for parameters that are missing or unknown; errors of reading the disk.
pub fn plan(
    machine: &Machine,
    installation: &Installation,
    script: &Script,
    given: &BTreeMap<String, String>,
) -> Result<Vec<Change>> {
    let mut values = BTreeMap::from([("windows".to_string(), installation.path.clone())]);
    for (name, parameter) in &script.parameters {
        let value = given.get(name).cloned().or_else(|| parameter.default.clone());
        let value = value.ok_or_else(|| {
            Error::invalid(Layer::Script, format!("the script {} needs the parameter {name}", script.name))
                .advice(format!("add --set {name}=...   ({})", parameter.documentation))
        })?;
        values.insert(name.clone(), value);
    }
    if let Some(unknown) = given.keys().find(|name| !script.parameters.contains_key(*name)) {
        let known: Vec<&str> = script.parameters.keys().map(String::as_str).collect();
        return Err(Error::invalid(
            Layer::Script,
            format!("the script {} has no parameter {unknown}", script.name),
        )
        .expected(known.join(", ")));
    }
    let mut planner = Planner { machine, installation, hives: BTreeMap::new(), changes: Vec::new() };
    let fill = |text: &str| {
        values
            .iter()
            .fold(text.to_string(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
    };
    script.steps.iter().try_for_each(|step| planner.step(step, &fill))?;
    Ok(planner.changes)
}

impl Planner<'_> {
    fn step(&mut self, step: &Step, fill: &dyn Fn(&str) -> String) -> Result<()> {
        match step {
            Step::RegistrySet { key, value, r#type, data, existing_key_only } => {
                let kind = fill(r#type);
                let data_type = DataType::from_name(&kind)
                    .ok_or_else(|| Error::invalid(Layer::Script, "unknown registry type").found(kind))?;
                let data = registry_data(data_type, &fill(data))?;
                self.set(&fill(key), &fill(value), data_type, data, *existing_key_only)
            }
            Step::RegistryDelete { key, value } => {
                self.delete(&fill(key), value.as_deref().map(fill).as_deref())
            }
            Step::RegistryReplaceText { key, value, from, to } => {
                self.replace_text(&fill(key), &fill(value), &fill(from), &fill(to))
            }
            Step::RegistryClearBits { key, value, bits } => {
                self.clear_bits(&fill(key), &fill(value), number_of(&fill(bits))?)
            }
            Step::HiveReplayLogs { hive } => self.replay_logs(&fill(hive)),
            Step::HiveRestoreRegBack { hive } => self.restore_regback(&fill(hive)),
            Step::FirstBootRun { command } => {
                let changes = super::first_boot::first_boot(self.machine, self.installation, &fill(command))?;
                self.changes.extend(changes);
                Ok(())
            }
            Step::RegistryRemoveFromList { key, value, text } => {
                self.remove_from_list(&fill(key), &fill(value), &fill(text))
            }
            Step::ServiceSetStart { service, start } => self.set_start(&fill(service), &fill(start)),
            Step::FileCopy { from, to } => self.copy(&fill(from), &fill(to)),
            Step::FileRename { from, to } => self.rename(&fill(from), &fill(to)),
            Step::FileDelete { path } => self.delete_files(&fill(path)),
            Step::BcdRebuild {} => {
                let changes = rebuild_boot(self.machine, self.installation, None)?;
                self.changes.extend(changes);
                Ok(())
            }
            Step::BcdSet { object, element, value } => self.bcd(|store, map| {
                let value = fill(value);
                let words: Vec<&str> = value.split_whitespace().collect();
                store.set(&fill(object), &fill(element), &words, map)
            }),
            Step::BcdDelete { object, element } => {
                self.bcd(|store, _| store.delete_value(&fill(object), &fill(element)).map(|_| ()))
            }
            Step::PartitionSetActive { number } => {
                self.sectors(sectors::set_active(self.machine, number_of(&fill(number))?))
            }
            Step::PartitionSetType { number, r#type } => {
                self.sectors(sectors::set_type(self.machine, number_of(&fill(number))?, &fill(r#type)))
            }
            Step::PartitionRepairGpt {} => self.sectors(sectors::repair_gpt(self.machine)),
            Step::PartitionRepairBootSector { number } => {
                self.sectors(sectors::repair_boot_sector(self.machine, number_of(&fill(number))?))
            }
            Step::DriverRestore { name, version } => self.restore(&fill(name), &fill(version)),
        }
    }

    fn sectors(&mut self, planned: Result<Vec<Change>>) -> Result<()> {
        self.changes.extend(planned?);
        Ok(())
    }

    /// Edits the boot store that the firmware starts from.
    fn bcd(&mut self, work: impl Fn(&mut Store, &DiskMap) -> Result<()>) -> Result<()> {
        let layout = boot_layout(self.machine);
        let path = layout.store_path(self.machine, layout.system_volume(self.machine, None)?);
        let Some((_, before)) = load_store(self.machine, &path)? else {
            return Err(Error::not_found(Layer::Bcd, "the disk has no boot configuration store")
                .found(path)
                .advice("run the script rebuild-boot first"));
        };
        let mut after = before.clone();
        work(&mut after, &self.machine.disk_map())?;
        self.changes.extend(store_changes(&path, &before, &after));
        Ok(())
    }

    fn hive(&mut self, path: &str) -> Result<&Hive> {
        if !self.hives.contains_key(path) {
            let parsed = GuestPath::parse(path)?;
            let (directory, name) = match parsed.components.split_last() {
                Some((name, directory)) => (directory.to_vec(), name.clone()),
                None => return Err(Error::invalid(Layer::Script, "no hive").found(path)),
            };
            let fs = self.machine.file_system(self.machine.volume_of(&parsed.volume)?)?;
            let directory = resolve(&*fs, &directory)?
                .ok_or_else(|| Error::not_found(Layer::Windows, "a hive is missing").found(path))?;
            self.hives.insert(path.to_string(), crate::windows::hive_of(&*fs, directory, &name)?);
        }
        self.hives.get(path).ok_or_else(|| Error::not_found(Layer::Windows, "a hive is missing").found(path))
    }

    fn set(
        &mut self,
        key: &str,
        name: &str,
        kind: DataType,
        data: Vec<u8>,
        existing_only: bool,
    ) -> Result<()> {
        for at in self.expand(key)? {
            let found = self.hive(&at.hive)?.key(&at.key)?;
            if found.is_none() && existing_only {
                continue;
            }
            let old = found.map(|key| key.value(name)).transpose()?.flatten();
            let mut was = None;
            if let Some(old) = old {
                let there = old.data()?;
                if old.data_type() == kind && *there == *data {
                    continue;
                }
                was = Some(words(old.data_type().0, &there));
            }
            let (hive, key, name, data) = (at.hive, at.key, name.to_string(), data.clone());
            self.changes.push(Change::RegistrySet { hive, key, name, data_type: kind.0, data, was });
        }
        Ok(())
    }

    /// The keys that a path with `AllControlSets` or `*` means: every control set that is there, every subkey that fits.
    /// A path without is itself, whether it is there or not.
    fn expand(&mut self, key: &str) -> Result<Vec<KeyPath>> {
        let all = ["HKLM\\SYSTEM\\AllControlSets", "HKEY_LOCAL_MACHINE\\SYSTEM\\AllControlSets"];
        let inside = all.iter().find_map(|head| {
            key.get(..head.len()).filter(|start| start.eq_ignore_ascii_case(head)).map(|_| &key[head.len()..])
        });
        let Some(inside) = inside else {
            let at = key_path(self.machine, self.installation, key)?;
            return self.fitting(at);
        };
        let system = key_path(self.machine, self.installation, r"HKLM\SYSTEM")?;
        let sets: Vec<String> = self
            .hive(&system.hive)?
            .root()
            .subkeys()?
            .iter()
            .map(|key| key.name())
            .filter(|name| fits("controlset0*", name))
            .collect();
        let mut found = Vec::new();
        for set in sets {
            found.extend(self.fitting(KeyPath { hive: system.hive.clone(), key: format!("{set}{inside}") })?);
        }
        Ok(found)
    }

    fn fitting(&mut self, at: KeyPath) -> Result<Vec<KeyPath>> {
        if !at.key.contains('*') {
            return Ok(vec![at]);
        }
        let Some(hive) = self.optional_hive(&at.hive)? else { return Ok(Vec::new()) };
        let mut found = vec![String::new()];
        for part in at.key.split('\\') {
            let mut next = Vec::new();
            for path in found {
                let Some(key) = hive.key(&path)? else { continue };
                for child in key.subkeys()? {
                    if fits(part, &child.name()) {
                        next.push(if path.is_empty() {
                            child.name()
                        } else {
                            format!("{path}\\{}", child.name())
                        });
                    }
                }
            }
            found = next;
        }
        Ok(found.into_iter().map(|key| KeyPath { hive: at.hive.clone(), key }).collect())
    }

    fn replace_text(&mut self, key: &str, pattern: &str, from: &str, to: &str) -> Result<()> {
        for at in self.expand(key)? {
            let mut list = Vec::new();
            if let Some(found) = self.hive(&at.hive)?.key(&at.key)? {
                for value in found.values()?.iter().filter(|value| fits(pattern, &value.name())) {
                    if let Some(text) = value.as_string().filter(|text| text.contains(from)) {
                        let data = utf16le_bytes(&format!("{}\0", text.replace(from, to)));
                        list.push((value.name(), value.data_type().0, data, text));
                    }
                }
            }
            for (name, data_type, data, text) in list {
                let (hive, key, was) = (at.hive.clone(), at.key.clone(), Some(format!("{text:?}")));
                self.changes.push(Change::RegistrySet { hive, key, name, data_type, data, was });
            }
        }
        Ok(())
    }

    fn clear_bits(&mut self, key: &str, name: &str, bits: u32) -> Result<()> {
        for at in self.expand(key)? {
            let found = self.hive(&at.hive)?.key(&at.key)?.map(|key| key.value(name)).transpose()?.flatten();
            let Some(old) = found.and_then(|value| value.as_u32()).filter(|old| old & bits != 0) else {
                continue;
            };
            let (hive, key, name, was) = (at.hive, at.key, name.to_string(), Some(format!("{old:#x}")));
            let data = (old & !bits).to_le_bytes().to_vec();
            self.changes.push(Change::RegistrySet { hive, key, name, data_type: 4, data, was });
        }
        Ok(())
    }

    fn replay_logs(&mut self, name: &str) -> Result<()> {
        let path = format!(r"{}\System32\config\{name}", self.installation.path);
        let Some(there) = self.file(&path)? else { return Ok(()) };
        let Some(hive) = self.optional_hive(&path)? else { return Ok(()) };
        let data = hive.bytes().to_vec();
        if data == there {
            return Ok(());
        }
        let (size, from) = (data.len() as u64, "the hive and its transaction logs".to_string());
        self.changes.push(Change::FileWrite { path, data, size, from });
        Ok(())
    }

    fn restore_regback(&mut self, name: &str) -> Result<()> {
        let from = format!(r"{}\System32\config\RegBack\{name}", self.installation.path);
        let Some(data) = self.file(&from)?.filter(|data| !data.is_empty()) else {
            return Err(Error::not_found(Layer::Hive, "RegBack holds no copy of the hive")
                .found(from)
                .advice("Windows 10 since 1803 makes none; look for a restore point or a backup"));
        };
        let damaged = match Hive::parse(data.clone()) {
            Ok(hive) => {
                hive.check().into_iter().find(|d| d.severity == crate::Severity::Error).map(|d| d.to_string())
            }
            Err(e) => Some(e.to_string()),
        };
        if let Some(damaged) = damaged {
            return Err(
                Error::refused(Layer::Hive, "the copy of the hive in RegBack is damaged").found(damaged)
            );
        }
        let to = format!(r"{}\System32\config\{name}", self.installation.path);
        if self.file(&to)?.as_ref() != Some(&data) {
            let size = data.len() as u64;
            self.changes.push(Change::FileWrite { path: to, data, size, from });
        }
        Ok(())
    }

    fn delete(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        for at in self.expand(key)? {
            let Some(found) =
                self.optional_hive(&at.hive)?.map(|hive| hive.key(&at.key)).transpose()?.flatten()
            else {
                continue;
            };
            match value {
                None => self.changes.push(Change::RegistryDeleteKey { hive: at.hive, key: at.key }),
                Some(name) if found.value(name)?.is_some() => {
                    let name = name.to_string();
                    self.changes.push(Change::RegistryDeleteValue { hive: at.hive, key: at.key, name });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A hive that may be missing, such as COMPONENTS on a slim image.
    fn optional_hive(&mut self, path: &str) -> Result<Option<&Hive>> {
        match self.hive(path) {
            Ok(_) => Ok(self.hives.get(path)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn remove_from_list(&mut self, key: &str, name: &str, text: &str) -> Result<()> {
        let at = key_path(self.machine, self.installation, key)?;
        let value = self.hive(&at.hive)?.key(&at.key)?.map(|key| key.value(name)).transpose()?.flatten();
        let Some(value) = value else { return Ok(()) };
        let ValueData::Texts(texts) = value.typed()? else { return Ok(()) };
        let kept: Vec<String> =
            texts.iter().filter(|entry| !entry.eq_ignore_ascii_case(text)).cloned().collect();
        if kept.len() == texts.len() {
            return Ok(());
        }
        let (was, name) = (Some(texts.join(", ")), name.to_string());
        let change = if kept.is_empty() {
            Change::RegistryDeleteValue { hive: at.hive, key: at.key, name }
        } else {
            Change::RegistrySet { hive: at.hive, key: at.key, name, data_type: 7, data: multi(&kept), was }
        };
        self.changes.push(change);
        Ok(())
    }

    fn set_start(&mut self, service: &str, start: &str) -> Result<()> {
        let names = ["boot", "system", "auto", "demand", "disabled"];
        let number = names.iter().position(|name| name.eq_ignore_ascii_case(start)).ok_or_else(|| {
            Error::invalid(Layer::Script, "unknown start").expected(names.join(", ")).found(start)
        })?;
        let key = format!(r"HKLM\SYSTEM\CurrentControlSet\Services\{service}");
        let at = key_path(self.machine, self.installation, &key)?;
        if self.hive(&at.hive)?.key(&at.key)?.is_none() {
            return Err(Error::not_found(Layer::Windows, format!("no service {service}"))
                .advice("`vmrescue drivers IMAGE` lists them"));
        }
        self.set(&key, "Start", DataType::DWORD, (number as u32).to_le_bytes().to_vec(), true)
    }

    fn file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let parsed = GuestPath::parse(path)?;
        let (volume, node) = self.machine.resolve(&parsed)?;
        node.map(|node| read_file(&*self.machine.file_system(volume)?, node, &parsed.stream)).transpose()
    }

    fn copy(&mut self, from: &str, to: &str) -> Result<()> {
        let data =
            self.file(from)?.ok_or_else(|| Error::not_found(Layer::Script, "no such file").found(from))?;
        if self.file(to)?.as_ref() != Some(&data) {
            let size = data.len() as u64;
            self.changes.push(Change::FileWrite { path: to.to_string(), data, size, from: from.to_string() });
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        if self.machine.resolve(&GuestPath::parse(from)?)?.1.is_none() {
            return Ok(());
        }
        let (mut target, mut number) = (to.to_string(), 1);
        while self.machine.resolve(&GuestPath::parse(&target)?)?.1.is_some() {
            target = format!("{to}.{number}");
            number += 1;
        }
        self.changes.push(Change::FileRename { from: from.to_string(), to: target });
        Ok(())
    }

    fn delete_files(&mut self, path: &str) -> Result<()> {
        let (directory, pattern) = path.rsplit_once('\\').unwrap_or((path, ""));
        let (volume, node) = self.machine.resolve(&GuestPath::parse(directory)?)?;
        let Some(node) = node else { return Ok(()) };
        for entry in self.machine.file_system(volume)?.read_dir(node)? {
            if entry.kind != crate::fs::NodeKind::Directory && fits(pattern, &entry.name) {
                self.changes.push(Change::FileDelete { path: format!("{directory}\\{}", entry.name) });
            }
        }
        Ok(())
    }

    fn restore(&mut self, name: &str, version: &str) -> Result<()> {
        let is_file = [".sys", ".exe", ".dll"].iter().any(|ext| name.to_ascii_lowercase().ends_with(ext));
        let (file, place) = self.driver_place(name, is_file)?;
        let versions = store_versions(self.machine, self.installation, &file)?;
        let architecture = &self.installation.architecture;
        let wanted = |found: &&crate::windows::StoreFile| {
            let own = found.pe.as_ref().and_then(|pe| pe.file_version.as_deref()).unwrap_or_default();
            version.is_empty() || own == version || found.component.contains(&format!("_{version}_"))
        };
        let usable: Vec<_> = versions.iter().filter(|found| found.is_usable_on(architecture)).collect();
        let now = self.file(&place)?;
        let healthy = now.as_deref().map(PeInfo::parse).and_then(|pe| pe.ok());
        let healthy = healthy.filter(|pe| machine_name(pe.machine) == architecture && pe.checksum_right);
        if healthy.is_some() && version.is_empty() {
            return Ok(());
        }
        let Some(best) = usable.iter().copied().find(|found| wanted(found)) else {
            let there: Vec<String> = versions
                .iter()
                .map(|found| {
                    format!("{} ({})", found.component, found.problem.as_deref().unwrap_or("usable"))
                })
                .collect();
            return Err(Error::not_found(
                Layer::Windows,
                format!("the component store has no healthy {file} to restore"),
            )
            .expected(format!("a full PE file for {architecture} {version}"))
            .found(if there.is_empty() { "no copy at all".to_string() } else { there.join("; ") })
            .advice("take the file from a healthy machine of the same build: vmrescue put IMAGE FILE PATH"));
        };
        if self.file(&best.path)? == now {
            return Ok(());
        }
        let own = best.pe.as_ref().and_then(|pe| pe.file_version.clone()).unwrap_or_default();
        let why = format!(
            "version {own}, {} of {} copies in the component store are healthy",
            usable.len(),
            versions.len()
        );
        self.changes.push(Change::FileLink { path: place, target: best.path.clone(), why });
        Ok(())
    }

    /// File name and guest path of a driver.
    fn driver_place(&mut self, name: &str, is_file: bool) -> Result<(String, String)> {
        if is_file {
            let folder =
                if name.to_ascii_lowercase().ends_with(".sys") { r"System32\drivers" } else { "System32" };
            return Ok((name.to_string(), format!(r"{}\{folder}\{name}", self.installation.path)));
        }
        let key = format!(r"HKLM\SYSTEM\CurrentControlSet\Services\{name}");
        let at = key_path(self.machine, self.installation, &key)?;
        let found = self.hive(&at.hive)?.key(&at.key)?;
        let found = found.ok_or_else(|| Error::not_found(Layer::Windows, format!("no driver {name}")))?;
        let image = found.value("ImagePath")?.and_then(|value| value.as_string()).unwrap_or_default();
        let parts = expand_image_path(&image, name, true).ok_or_else(|| {
            Error::not_found(Layer::Windows, "its ImagePath cannot be resolved").found(image)
        })?;
        let volume = self.installation.path.split('\\').next().unwrap_or_default();
        let file = parts.last().cloned().unwrap_or_default();
        Ok((file, format!("{volume}\\{}", parts.join("\\"))))
    }
}

fn number_of(text: &str) -> Result<u32> {
    text.trim()
        .trim_start_matches('#')
        .parse()
        .map_err(|_| Error::invalid(Layer::Script, "this is no number").found(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_script_parses_and_names_itself_once() {
        let scripts = shipped().unwrap();
        let names: std::collections::BTreeSet<&str> =
            scripts.iter().map(|script| script.name.as_str()).collect();
        assert_eq!(names.len(), SHIPPED.len());
        assert!(scripts.iter().all(|script| script.documentation.len() > 40 && !script.steps.is_empty()));
    }

    #[test]
    fn an_error_in_a_script_has_a_line() {
        let e = Script::parse("name = \"x\"\ntitle = 7\n").unwrap_err().to_string();
        assert!(e.contains("line 2"), "{e}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
        #[test]
        fn damaged_scripts_are_errors_and_never_panic(
            which in 0usize..SHIPPED.len(), at in proptest::prelude::any::<proptest::sample::Index>(),
            what in "[\\x00-\\x7f]{0,6}", pattern in ".{0,12}", name in ".{0,12}",
        ) {
            let mut text = SHIPPED[which].to_string();
            let mut place = at.index(text.len());
            while !text.is_char_boundary(place) { place -= 1; }
            text.insert_str(place, &what);
            drop(Script::parse(&text));
            drop(Script::parse(&what));
            fits(&pattern, &name);
            drop(registry_data(DataType::BINARY, &pattern));
            drop(registry_data(DataType::QWORD, &pattern));
        }
    }

    #[test]
    fn patterns_fit_as_in_the_shell() {
        assert!(fits("c-00000291*.sys", "C-00000291-00000000-00000032.sys"));
        assert!(!fits("c-00000291*.sys", "C-00000292-0.sys"));
        assert!(fits("*.blf", "a.BLF") && !fits("x", "xy"));
    }

    #[test]
    fn registry_data_is_what_reg_exe_takes() {
        assert_eq!(registry_data(DataType::DWORD, "0x10").unwrap(), [16, 0, 0, 0]);
        assert_eq!(registry_data(DataType::BINARY, "0aFF").unwrap(), [10, 255]);
        assert_eq!(registry_data(DataType::SZ, "a").unwrap(), [97, 0, 0, 0]);
        assert!(registry_data(DataType::DWORD, "x").is_err());
    }
}
