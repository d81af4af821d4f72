//! Whether a condition holds on this installation, and what a loop goes over.

use super::{Planner, Words};
use crate::script::{Condition, Loop, RegistryCondition};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::fits;
use vmrescue_fs::path::GuestPath;
use vmrescue_windows::bcd::{Firmware, Options, view};
use vmrescue_windows::{Updates, boot_layout, load_store, roles, services, updates};

/// `BUILD` or `BUILD.UBR`, the missing part as given.
fn build(text: &str, missing: u32) -> Result<(u32, u32)> {
    let (build, ubr) = text.split_once('.').map_or((text, None), |(build, ubr)| (build, Some(ubr)));
    let parsed = build.parse().ok().zip(ubr.map_or(Some(missing), |ubr| ubr.parse().ok()));
    parsed
        .ok_or_else(|| Error::invalid(Layer::Script, "a build is written as 17763 or 17763.7558").found(text))
}

/// The words when something wanted is not so.
fn unless(holds: bool, words: impl FnOnce() -> String) -> Option<String> {
    (!holds).then(words)
}

impl Planner<'_> {
    /// Why a condition does not hold; `None` when it does.
    pub(super) fn fails(&mut self, condition: &Condition, words: &Words<'_>) -> Result<Option<String>> {
        if *condition == Condition::default() {
            return Ok(None);
        }
        if let Some(why) = self.machine_fails(condition)? {
            return Ok(Some(why));
        }
        if let Some(why) = self.disk_fails(condition, words)? {
            return Ok(Some(why));
        }
        let mut reasons = Vec::new();
        for one in &condition.any {
            match self.fails(one, words)? {
                None => {
                    reasons.clear();
                    break;
                }
                Some(why) => reasons.push(why),
            }
        }
        if !reasons.is_empty() {
            return Ok(Some(reasons.join(", ")));
        }
        for one in &condition.not {
            if self.fails(one, words)?.is_none() {
                return Ok(Some(format!("it must not be so: {one:?}")));
            }
        }
        Ok(None)
    }

    /// What the installation itself says.
    fn machine_fails(&self, condition: &Condition) -> Result<Option<String>> {
        let own = (self.installation.build, self.installation.ubr);
        let here = format!("the build is {}.{}", own.0, own.1);
        if let Some(least) = &condition.min_build
            && own < build(least, 0)?
        {
            return Ok(Some(format!("{here}, and at least {least} is needed")));
        }
        if let Some(most) = &condition.max_build
            && own > build(most, u32::MAX)?
        {
            return Ok(Some(format!("{here}, and at most {most} is meant")));
        }
        if let Some(wanted) = &condition.architecture
            && *wanted != self.installation.architecture
        {
            return Ok(Some(format!("the architecture is {}", self.installation.architecture)));
        }
        if let Some(wanted) = &condition.firmware {
            let is = if boot_layout(self.machine).firmware == Firmware::Uefi { "uefi" } else { "bios" };
            return Ok(unless(is == wanted, || format!("the firmware is {is}")));
        }
        if let Some(wanted) = &condition.role {
            let there = roles(self.machine, self.installation)?;
            return Ok(unless(there.iter().any(|role| role.name() == wanted), || {
                format!("the machine is no {wanted}")
            }));
        }
        let waits = |kb: &String, state: &[u32]| -> Result<bool> {
            Ok(self.updates()?.packages.iter().any(|p| p.kb.as_ref() == Some(kb) && state.contains(&p.state)))
        };
        if let Some(kb) = &condition.kb
            && !waits(kb, &[0x65, 0x70, 0x80])?
        {
            return Ok(Some(format!("{kb} is not installed")));
        }
        if let Some(kb) = &condition.pending_kb
            && !waits(kb, &[0x5, 0x60])?
        {
            return Ok(Some(format!("{kb} does not wait for the next start")));
        }
        Ok(None)
    }

    fn updates(&self) -> Result<&Updates> {
        if let Some(known) = self.updates.get() {
            return Ok(known);
        }
        let read = updates(self.machine, self.installation)?;
        Ok(self.updates.get_or_init(|| read))
    }

    /// What files, registry, boot store and parameters say.
    fn disk_fails(&mut self, condition: &Condition, words: &Words<'_>) -> Result<Option<String>> {
        if let Some(path) = &condition.file {
            let path = words.fill(path);
            if self.files_of(&path)?.is_empty() {
                return Ok(Some(format!("there is no {path}")));
            }
        }
        if let Some(wanted) = &condition.registry
            && !self.registry_is(wanted, words)?
        {
            return Ok(Some(format!(
                "the registry is not so: {} {}",
                wanted.key,
                wanted.value.as_deref().unwrap_or("")
            )));
        }
        if let Some(wanted) = &condition.bcd {
            let is = self.element(&words.fill(&wanted.object), &wanted.element)?;
            let value = wanted.value.as_ref().map(|value| words.fill(value).to_lowercase());
            let holds = is.as_ref().is_some_and(|is| value.is_none_or(|value| is.to_lowercase() == value));
            if !holds {
                let is = is.unwrap_or_else(|| "not set".into());
                return Ok(Some(format!("{} of {} is {is}", wanted.element, wanted.object)));
            }
        }
        if let Some(wanted) = &condition.parameter {
            let is = words.fill(&format!("${{{}}}", wanted.name));
            return Ok(unless(is == wanted.is, || format!("the parameter {} is {is}", wanted.name)));
        }
        Ok(None)
    }

    fn registry_is(&mut self, wanted: &RegistryCondition, words: &Words<'_>) -> Result<bool> {
        for at in self.expand(&words.fill(&wanted.key))? {
            let Some(hive) = self.optional_hive(&at.hive)? else { continue };
            let Some(key) = hive.key(&at.key)? else { continue };
            let Some(name) = &wanted.value else { return Ok(true) };
            let Some(value) = key.value(&words.fill(name))? else { continue };
            let Some(data) = &wanted.data else { return Ok(true) };
            if *value.data()? == *super::registry_data(value.data_type(), &words.fill(data))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An element of the boot store as bcdedit writes it.
    fn element(&self, object: &str, element: &str) -> Result<Option<String>> {
        let on_disk;
        let store = match self.planned_store() {
            Some(planned) => planned,
            None => {
                let layout = boot_layout(self.machine);
                let Ok(volume) = layout.system_volume(self.machine, None) else { return Ok(None) };
                let Some(found) = load_store(self.machine, &layout.store_path(self.machine, volume))? else {
                    return Ok(None);
                };
                on_disk = found.1;
                &on_disk
            }
        };
        let Ok(id) = store.resolve(object) else { return Ok(None) };
        let objects = view(store, &self.machine.disk_map(), Options { aliases: true });
        let own = objects.into_iter().find(|view| view.identifier == format!("{{{id}}}"));
        let found =
            own.and_then(|own| own.elements.into_iter().find(|e| e.name.eq_ignore_ascii_case(element)));
        Ok(found.map(|element| element.value.join(" ")))
    }

    /// Files whose name fits the last part of a path.
    pub(super) fn files_of(&self, path: &str) -> Result<Vec<String>> {
        let (directory, pattern) = path.rsplit_once('\\').unwrap_or((path, ""));
        let directory_path =
            if directory.ends_with(':') { format!("{directory}\\") } else { directory.to_string() };
        let (volume, node) = self.machine.resolve(&GuestPath::parse(&directory_path)?)?;
        let Some(node) = node else { return Ok(Vec::new()) };
        let entries = self.machine.file_system(volume)?.read_dir(node)?;
        Ok(entries
            .iter()
            .filter(|entry| fits(pattern, &entry.name))
            .map(|entry| format!("{directory}\\{}", entry.name))
            .collect())
    }

    /// What a loop goes over.
    pub(super) fn items(&mut self, over: &Loop, words: &Words<'_>) -> Result<Vec<String>> {
        let mut items: Vec<String> = over.values.iter().map(|value| words.fill(value)).collect();
        if let Some(pattern) = &over.services {
            let hive = self.machine.hive(self.installation, "SYSTEM")?;
            let set = self.installation.control_sets.default.max(1);
            let all = services(self.machine, self.installation, &hive, set, false)?;
            let pattern = words.fill(pattern);
            let wanted = all.into_iter().filter(|service| {
                fits(&pattern, &service.name)
                    && over.start.as_ref().is_none_or(|start| *start == service.start_name())
                    && (!over.drivers_only || service.is_driver())
            });
            items.extend(wanted.map(|service| service.name));
        }
        if let Some(path) = &over.files {
            items.extend(self.files_of(&words.fill(path))?);
        }
        if let Some(path) = &over.keys {
            items.extend(self.key_names(&words.fill(path))?);
        }
        if over.control_sets {
            let sets = self.key_names(r"HKLM\SYSTEM\AllControlSets")?;
            items.extend(sets.iter().filter_map(|path| path.rsplit('\\').next().map(String::from)));
        }
        Ok(items)
    }

    fn key_names(&mut self, path: &str) -> Result<Vec<String>> {
        let root = |hive: &str| hive.rsplit('\\').next().unwrap_or(hive).to_string();
        let found = self.expand(path)?;
        Ok(found.into_iter().map(|at| format!(r"HKLM\{}\{}", root(&at.hive), at.key)).collect())
    }
}
