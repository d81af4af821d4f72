//! Steps that change hives.

use super::Planner;
use super::data::multi;
use crate::change::{Change, words};
use crate::hive_cure::copy_of_hive;
use crate::key_path::{KeyPath, key_path};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::text::{fits, utf16le_bytes};
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::resolve;
use vmrescue_registry::reg_text::{self, Operation};
use vmrescue_registry::{DataType, Hive, ValueData};
use vmrescue_windows::PeInfo;

impl Planner<'_> {
    pub(super) fn hive(&mut self, path: &str) -> Result<&Hive> {
        if !self.hives.contains_key(path) {
            let parsed = GuestPath::parse(path)?;
            let (directory, name) = match parsed.components.split_last() {
                Some((name, directory)) => (directory.to_vec(), name.clone()),
                None => return Err(Error::invalid(Layer::Script, "no hive").found(path)),
            };
            let fs = self.machine.file_system(self.machine.volume_of(&parsed.volume)?)?;
            let directory = resolve(&*fs, &directory)?
                .ok_or_else(|| Error::not_found(Layer::Windows, "a hive is missing").found(path))?;
            self.hives.insert(path.to_string(), vmrescue_windows::hive_of(&*fs, directory, &name)?);
        }
        self.hives.get(path).ok_or_else(|| Error::not_found(Layer::Windows, "a hive is missing").found(path))
    }

    pub(super) fn set(
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
            self.planned.changes.push(Change::RegistrySet { hive, key, name, data_type: kind.0, data, was });
        }
        Ok(())
    }

    /// The keys that a path with `AllControlSets` or `*` means: every control set that is there, every subkey that fits.
    /// A path without is itself, whether it is there or not.
    pub(super) fn expand(&mut self, key: &str) -> Result<Vec<KeyPath>> {
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

    pub(super) fn fitting(&mut self, at: KeyPath) -> Result<Vec<KeyPath>> {
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

    pub(super) fn replace_text(&mut self, key: &str, pattern: &str, from: &str, to: &str) -> Result<()> {
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
                self.planned.changes.push(Change::RegistrySet { hive, key, name, data_type, data, was });
            }
        }
        Ok(())
    }

    pub(super) fn clear_bits(&mut self, key: &str, name: &str, bits: u32) -> Result<()> {
        for at in self.expand(key)? {
            let found = self.hive(&at.hive)?.key(&at.key)?.map(|key| key.value(name)).transpose()?.flatten();
            let Some(old) = found.and_then(|value| value.as_u32()).filter(|old| old & bits != 0) else {
                continue;
            };
            let (hive, key, name, was) = (at.hive, at.key, name.to_string(), Some(format!("{old:#x}")));
            let data = (old & !bits).to_le_bytes().to_vec();
            self.planned.changes.push(Change::RegistrySet { hive, key, name, data_type: 4, data, was });
        }
        Ok(())
    }

    pub(super) fn replay_logs(&mut self, name: &str) -> Result<()> {
        let path = format!(r"{}\System32\config\{name}", self.installation.path);
        let Some(there) = self.file(&path)? else { return Ok(()) };
        let Some(hive) = self.optional_hive(&path)? else { return Ok(()) };
        let data = hive.bytes().to_vec();
        if data == there {
            return Ok(());
        }
        let (size, from) = (data.len() as u64, "the hive and its transaction logs".to_string());
        self.planned.changes.push(Change::FileWrite { path, data: data.into(), size, from });
        Ok(())
    }

    /// SAM and SECURITY are one: accounts of the one are decrypted by what the other holds, so they are restored together or not at all.
    pub(super) fn restore_regback(&mut self, name: &str) -> Result<()> {
        const PAIR: [&str; 2] = ["SAM", "SECURITY"];
        let names = if PAIR.iter().any(|one| one.eq_ignore_ascii_case(name)) { &PAIR[..] } else { &[name] };
        let mut changes = Vec::new();
        for name in names {
            let from = format!(r"{}\System32\config\RegBack\{name}", self.installation.path);
            let Some(data) = self.file(&from)?.filter(|data| !data.is_empty()) else {
                return Err(Error::not_found(Layer::Hive, "RegBack holds no copy of the hive")
                    .found(from)
                    .advice("Windows 10 since 1803 makes none; look for a restore point or a backup"));
            };
            let data = copy_of_hive(data).map_err(|e| e.in_file(&from))?.into_bytes();
            let to = format!(r"{}\System32\config\{name}", self.installation.path);
            if self.file(&to)?.as_ref() != Some(&data) {
                let size = data.len() as u64;
                changes.push(Change::FileWrite { path: to, data: data.into(), size, from });
            }
        }
        for change in changes {
            if !self.planned.changes.contains(&change) {
                self.planned.changes.push(change);
            }
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        for at in self.expand(key)? {
            let Some(found) =
                self.optional_hive(&at.hive)?.map(|hive| hive.key(&at.key)).transpose()?.flatten()
            else {
                continue;
            };
            match value {
                None => self.planned.changes.push(Change::RegistryDeleteKey { hive: at.hive, key: at.key }),
                Some(name) if found.value(name)?.is_some() => {
                    let name = name.to_string();
                    self.planned.changes.push(Change::RegistryDeleteValue {
                        hive: at.hive,
                        key: at.key,
                        name,
                    });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A hive that may be missing, such as COMPONENTS on a slim image.
    pub(super) fn optional_hive(&mut self, path: &str) -> Result<Option<&Hive>> {
        match self.hive(path) {
            Ok(_) => Ok(self.hives.get(path)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn remove_from_list(&mut self, key: &str, name: &str, text: &str) -> Result<()> {
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
        self.planned.changes.push(change);
        Ok(())
    }

    /// Sets the start of a service, in the control set of the next start or in all that have it. A start at boot also takes away the note
    /// (`StartOverride`) by which the loader leaves a driver out, and wants a file that can be loaded.
    pub(super) fn set_start(&mut self, service: &str, start: &str, every_control_set: bool) -> Result<()> {
        let names = ["boot", "system", "auto", "demand", "disabled"];
        let number = names.iter().position(|name| name.eq_ignore_ascii_case(start)).ok_or_else(|| {
            Error::invalid(Layer::Script, "unknown start").expected(names.join(", ")).found(start)
        })?;
        let current = format!(r"HKLM\SYSTEM\CurrentControlSet\Services\{service}");
        let at = key_path(self.machine, self.installation, &current)?;
        if self.hive(&at.hive)?.key(&at.key)?.is_none() {
            return Err(Error::not_found(Layer::Windows, format!("no service {service}"))
                .advice("`vmrescue drivers IMAGE` lists them"));
        }
        if number == 0 {
            self.can_be_loaded(service)?;
        }
        let key = if every_control_set {
            format!(r"HKLM\SYSTEM\AllControlSets\Services\{service}")
        } else {
            current
        };
        let data = (number as u32).to_le_bytes().to_vec();
        self.set(&key, "Start", DataType::DWORD, data, true)?;
        if number != 0 {
            return Ok(());
        }
        for at in self.expand(&format!(r"{key}\StartOverride"))? {
            let Some(found) = self.hive(&at.hive)?.key(&at.key)? else { continue };
            let mut over = Vec::new();
            for value in found.values()? {
                if value.as_u32() != Some(0) {
                    over.push(value.name());
                }
            }
            let gone = over.into_iter().map(|name| Change::RegistryDeleteValue {
                hive: at.hive.clone(),
                key: at.key.clone(),
                name,
            });
            self.planned.changes.extend(gone);
        }
        Ok(())
    }

    /// A driver without a file that the loader could map must not start at boot: that would be another error in place of this one.
    fn can_be_loaded(&mut self, service: &str) -> Result<()> {
        let (file, place) = self.driver_place(service, false)?;
        let advice =
            format!("put the file back first: vmrescue repair IMAGE restore-driver --set name={file}");
        let Some(bytes) = self.file(&place)? else {
            return Err(Error::not_found(
                Layer::Windows,
                format!("the file of the driver {service} is missing"),
            )
            .found(place)
            .advice(advice));
        };
        PeInfo::parse(&bytes).map(drop).map_err(|e| {
            Error::not_found(Layer::Windows, format!("the driver {service} has no file that can be loaded"))
                .found(format!("{place}: {}", e.message()))
                .advice(advice)
        })
    }

    pub(super) fn create_key(&mut self, key: &str) -> Result<()> {
        for at in self.expand(key)? {
            if self.hive(&at.hive)?.key(&at.key)?.is_none() {
                self.planned.changes.push(Change::RegistryCreateKey { hive: at.hive, key: at.key });
            }
        }
        Ok(())
    }

    /// The texts of a REG_MULTI_SZ that is there.
    fn texts(&mut self, at: &KeyPath, name: &str) -> Result<Option<Vec<String>>> {
        let Some(hive) = self.optional_hive(&at.hive)? else { return Ok(None) };
        let value = hive.key(&at.key)?.map(|key| key.value(name)).transpose()?.flatten();
        Ok(value.and_then(|value| value.as_multi_string()))
    }

    pub(super) fn add_to_list(&mut self, key: &str, name: &str, text: &str) -> Result<()> {
        for at in self.expand(key)? {
            let mut texts = self.texts(&at, name)?.unwrap_or_default();
            if texts.iter().any(|entry| entry.eq_ignore_ascii_case(text)) {
                continue;
            }
            let was = (!texts.is_empty()).then(|| texts.join(", "));
            texts.push(text.to_string());
            let (hive, key, name, data) = (at.hive, at.key, name.to_string(), multi(&texts));
            self.planned.changes.push(Change::RegistrySet { hive, key, name, data_type: 7, data, was });
        }
        Ok(())
    }

    /// Takes pairs whose first text fits out of a list of renames; the value goes with its last pair.
    pub(super) fn remove_renames(&mut self, key: &str, name: &str, pattern: &str) -> Result<()> {
        for at in self.expand(key)? {
            // An empty second text means "delete", so empty texts count here.
            let Some(hive) = self.optional_hive(&at.hive)? else { continue };
            let Some(value) = hive.key(&at.key)?.map(|key| key.value(name)).transpose()?.flatten() else {
                continue;
            };
            let text = vmrescue_base::text::utf16le_lossy(&value.data()?);
            let mut texts: Vec<String> = text.split('\0').map(String::from).collect();
            // The last text ends with a NUL of its own, the list with one more.
            while texts.len() % 2 == 1
                || texts.len() >= 2 && texts[texts.len() - 2..].iter().all(String::is_empty)
            {
                texts.pop();
            }
            let kept: Vec<&[String]> = texts.chunks(2).filter(|pair| !fits(pattern, &pair[0])).collect();
            if kept.len() * 2 == texts.len() {
                continue;
            }
            let (was, name) = (Some(format!("{} renames", texts.len() / 2)), name.to_string());
            self.planned.changes.push(if kept.is_empty() {
                Change::RegistryDeleteValue { hive: at.hive, key: at.key, name }
            } else {
                Change::RegistrySet {
                    hive: at.hive,
                    key: at.key,
                    name,
                    data_type: 7,
                    data: multi(&kept.concat()),
                    was,
                }
            });
        }
        Ok(())
    }

    /// Does what a .reg file says.
    pub(super) fn import(&mut self, text: &str, file: &str) -> Result<()> {
        let bytes = if file.is_empty() { text.as_bytes().to_vec() } else { self.host_file(file)? };
        for operation in reg_text::parse(&bytes)? {
            match operation {
                Operation::CreateKey { key } => self.create_key(&key)?,
                Operation::DeleteKey { key } => self.delete(&key, None)?,
                Operation::DeleteValue { key, name } => self.delete(&key, Some(&name))?,
                Operation::Set { key, name, data_type, data } => {
                    self.set(&key, &name, data_type, data, false)?;
                }
            }
        }
        Ok(())
    }

    /// Switches a service off and takes it out of the filters of all device classes and devices.
    pub(super) fn disable(&mut self, service: &str) -> Result<()> {
        self.set_start(service, "disabled", false)?;
        for name in ["UpperFilters", "LowerFilters"] {
            let mut all = self.expand(r"HKLM\SYSTEM\CurrentControlSet\Control\Class\*")?;
            all.extend(self.expand(r"HKLM\SYSTEM\CurrentControlSet\Enum\*\*\*")?);
            for at in all {
                let path = format!(r"HKLM\SYSTEM\{}", at.key);
                self.remove_from_list(&path, name, service)?;
            }
        }
        Ok(())
    }
}
