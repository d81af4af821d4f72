//! How the steps of a script become changes.
//!
//! A step that finds everything as it should be plans nothing, so a second run changes nothing.

mod boot;
mod condition;
mod data;
mod donor;
mod drivers;
mod exact;
mod files;
mod letters;
mod permissions;
mod registry;

pub use data::registry_data;
pub(super) use donor::directory;

use super::change::Change;
use super::ending::Missing;
use super::file_system::{repair_file_system, repair_file_systems};
use super::script::{Action, Script, Step};
use super::sectors;
use super::source::Source;
use super::system_partition::repair_system_partition;
use super::volumes::Discard;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Silent;
use vmrescue_boot::Chain;
use vmrescue_registry::{DataType, Hive};
use vmrescue_windows::{Installation, Machine, Updates};

/// What a script may use beyond the image.
#[derive(Clone, Default)]
pub struct Context {
    /// Where files come from that the component store does not have.
    pub sources: Vec<Source>,
    /// The folder of the host that scripts may read.
    pub host_files: Option<PathBuf>,
    /// Run scripts also where they say that they do not apply.
    pub force: bool,
    /// What a repair of a file system may give up.
    pub discard: Discard,
}

/// What a script would do.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// Why somebody has to agree first.
    pub consents: Vec<String>,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// What should have been repaired and could not be.
    pub missing: Vec<Missing>,
}

/// Fills `${name}`.
pub(super) struct Words<'a>(&'a BTreeMap<String, String>);

impl Words<'_> {
    /// Once: what a value itself says in `${...}` may come from the guest, and stays as it is.
    fn fill(&self, text: &str) -> String {
        let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(start) = rest.find("${") {
            filled.push_str(&rest[..start]);
            let name = rest[start + 2..].split_once('}').map(|(name, _)| name);
            match name.and_then(|name| Some((name, self.0.get(name)?))) {
                Some((name, value)) => {
                    filled.push_str(value);
                    rest = &rest[start + name.len() + 3..];
                }
                None => {
                    filled.push_str("${");
                    rest = &rest[start + 2..];
                }
            }
        }
        filled + rest
    }
}

struct Planner<'a> {
    machine: &'a Machine,
    installation: &'a Installation,
    context: &'a Context,
    hives: BTreeMap<String, Hive>,
    updates: OnceCell<Updates>,
    chain: OnceCell<Chain>,
    boot_store: boot::BootStore,
    planned: Planned,
}

/// What a script would change on this installation, without anything beyond the image.
///
/// # Errors
/// As [`plan_with`].
pub fn plan(
    machine: &Machine,
    installation: &Installation,
    script: &Script,
    given: &BTreeMap<String, String>,
) -> Result<Vec<Change>> {
    plan_with(machine, installation, script, given, &Context::default()).map(|planned| planned.changes)
}

/// What a script would do on this installation.
///
/// # Errors
/// `Invalid` for parameters that are missing, unknown or of the wrong type; `Refused` when the script does not apply here; errors of
/// reading the disk.
pub fn plan_with(
    machine: &Machine,
    installation: &Installation,
    script: &Script,
    given: &BTreeMap<String, String>,
    context: &Context,
) -> Result<Planned> {
    let mut values = parameters(script, given)?;
    values.insert("windows".to_string(), installation.path.clone());
    let drive = installation.path.split('\\').next().unwrap_or_default();
    values.insert("drive".to_string(), drive.to_string());
    let mut planner = Planner {
        machine,
        installation,
        context,
        hives: BTreeMap::new(),
        updates: OnceCell::new(),
        chain: OnceCell::new(),
        boot_store: boot::BootStore::default(),
        planned: Planned::default(),
    };
    if !context.force
        && let Some(why) = planner.fails(&script.applies, &Words(&values))?
    {
        return Err(Error::refused(
            Layer::Script,
            format!("the script {} is not meant for this machine", script.name),
        )
        .found(why)
        .advice("add --force to run it all the same"));
    }
    for step in &script.steps {
        planner.step(step, &values)?;
    }
    planner.finish_boot_store();
    Ok(planner.planned)
}

/// What a script would do on a disk whose installations, if it has any, do not matter: one that changes partitions and file systems
/// only.
///
/// # Errors
/// As [`plan_with`]; `NotFound` for a script that needs an installation.
pub fn plan_on_disk(
    machine: &Machine,
    script: &Script,
    given: &BTreeMap<String, String>,
    context: &Context,
) -> Result<Planned> {
    if !script.is_for_disk() {
        return Err(Error::not_found(
            Layer::Script,
            format!("the script {} works on an installation, and this disk has none", script.name),
        ));
    }
    // None of the steps looks at it.
    let nobody = Installation { path: "#0:\\Windows".into(), ..Installation::nowhere() };
    plan_with(machine, &nobody, script, given, context)
}

fn parameters(script: &Script, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for (name, parameter) in &script.parameters {
        let value = given.get(name).cloned().or_else(|| parameter.default.clone());
        let value = value.ok_or_else(|| {
            Error::invalid(Layer::Script, format!("the script {} needs the parameter {name}", script.name))
                .advice(format!("add --set {name}=...   ({})", parameter.documentation))
        })?;
        if given.contains_key(name) && !parameter.kind.takes(&value) {
            return Err(Error::invalid(Layer::Script, format!("this is nothing for the parameter {name}"))
                .expected(format!("{:?}", parameter.kind).to_lowercase())
                .found(value));
        }
        values.insert(name.clone(), value);
    }
    if let Some(unknown) = given.keys().find(|name| !script.parameters.contains_key(*name)) {
        let known: Vec<&str> = script.parameters.keys().map(String::as_str).collect();
        let message = format!("the script {} has no parameter {unknown}", script.name);
        return Err(Error::invalid(Layer::Script, message).expected(known.join(", ")));
    }
    Ok(values)
}

impl Planner<'_> {
    /// A step with its condition and its loop.
    fn step(&mut self, step: &Step, values: &BTreeMap<String, String>) -> Result<()> {
        if step.windows_only && self.installation.is_nowhere() {
            return Ok(());
        }
        let items = match &step.for_each {
            None => vec![None],
            Some(over) => self.items(over, &Words(values))?.into_iter().map(Some).collect(),
        };
        for item in items {
            let mut own = values.clone();
            own.extend(item.map(|item| ("item".to_string(), item)));
            let words = Words(&own);
            if self.fails(&step.when, &words)?.is_some() {
                continue;
            }
            let (before, store) = (self.planned.changes.len(), self.planned_store().cloned());
            match self.action(&step.action, &words) {
                Err(e) if step.optional && e.kind() == ErrorKind::NotFound => {
                    self.planned.changes.truncate(before);
                    // A driver that is broken and has no source is not repaired; other steps may go without what is not there.
                    if let Action::DriverRestore { name, .. } = &step.action {
                        self.planned.missing.push(Missing::of(words.fill(name), &e));
                    } else {
                        self.planned.notes.push(e.to_string());
                    }
                }
                result => result?,
            }
            let is_change = self.planned.changes.len() > before
                || self.planned_store().map(|now| &now.objects) != store.as_ref().map(|then| &then.objects);
            if let Some(why) = step.consent.as_ref().filter(|_| is_change) {
                let why = words.fill(why);
                if !self.planned.consents.contains(&why) {
                    self.planned.consents.push(why);
                }
            }
        }
        Ok(())
    }

    fn action(&mut self, action: &Action, words: &Words<'_>) -> Result<()> {
        let fill = |text: &String| words.fill(text);
        match action {
            Action::RegistrySet { key, value, r#type, data, existing_key_only } => {
                let kind = fill(r#type);
                let data_type = DataType::from_name(&kind)
                    .ok_or_else(|| Error::invalid(Layer::Script, "unknown registry type").found(kind))?;
                let data = registry_data(data_type, &fill(data))?;
                self.set(&fill(key), &fill(value), data_type, data, *existing_key_only)
            }
            Action::RegistryCreateKey { key } => self.create_key(&fill(key)),
            Action::RegistryDelete { key, value } => {
                self.delete(&fill(key), value.as_ref().map(fill).as_deref())
            }
            Action::RegistryReplaceText { key, value, from, to } => {
                self.replace_text(&fill(key), &fill(value), &fill(from), &fill(to))
            }
            Action::RegistryClearBits { key, value, bits } => {
                self.clear_bits(&fill(key), &fill(value), number_of(&fill(bits))?)
            }
            Action::RegistryAddToList { key, value, text } => {
                self.add_to_list(&fill(key), &fill(value), &fill(text))
            }
            Action::RegistryRemoveFromList { key, value, text } => {
                self.remove_from_list(&fill(key), &fill(value), &fill(text))
            }
            Action::RegistryRemoveRenames { key, value, pattern } => {
                self.remove_renames(&fill(key), &fill(value), &fill(pattern))
            }
            Action::RegistryImport { text, file } => self.import(&fill(text), &fill(file)),
            Action::HiveReplayLogs { hive } => self.replay_logs(&fill(hive)),
            Action::HiveRestoreRegBack { hive } => self.restore_regback(&fill(hive)),
            Action::FirstBootRun { command } => {
                self.all(super::first_boot::first_boot(self.machine, self.installation, &fill(command)))
            }
            Action::AccountMakeAdministrator { user, password } => {
                let command = super::account::make_administrator(&fill(user), &fill(password))?;
                self.all(super::first_boot::first_boot(self.machine, self.installation, &command))
            }
            Action::ServiceSetStart { service, start, every_control_set } => {
                self.set_start(&fill(service), &fill(start), *every_control_set)
            }
            Action::ServiceDisable { service } => self.disable(&fill(service)),
            Action::FileCopy { from, to } => self.copy(&fill(from), &fill(to)),
            Action::FileRename { from, to } => self.rename(&fill(from), &fill(to)),
            Action::FileDelete { path } => self.delete_files(&fill(path)),
            Action::FileMkdir { path } => self.mkdir(&fill(path)),
            Action::FileGrant { path, grants, owner, recursive } => {
                self.grant(&fill(path), &fill(owner), &fill(grants), *recursive)
            }
            Action::FileWriteText { path, text } => self.write_text(&fill(path), &fill(text)),
            Action::FilePut { from, to } => self.put(&fill(from), &fill(to)),
            Action::BcdRebuild {} => self.rebuild(),
            Action::SystemPartitionRepair {} => {
                self.all(repair_system_partition(self.machine, self.installation))
            }
            Action::BcdSet { object, element, value } => {
                self.bcd_set(&fill(object), &fill(element), &fill(value))
            }
            Action::BcdCreate { object, like, application, description } => {
                self.bcd_create(&fill(object), &fill(like), &fill(application), &fill(description))
            }
            Action::BcdOrder { object, place, list } => {
                self.bcd_order(&fill(object), &fill(place), &fill(list))
            }
            Action::BcdDelete { object, element } => {
                self.bcd_delete(&fill(object), element.as_ref().map(fill).as_deref())
            }
            Action::PartitionSetActive { number } => {
                self.all(sectors::set_active(self.machine, number_of(&fill(number))?))
            }
            Action::PartitionSetType { number, r#type } => {
                self.all(sectors::set_type(self.machine, number_of(&fill(number))?, &fill(r#type)))
            }
            Action::PartitionClearAttributes { number } => {
                self.all(sectors::clear_attributes(self.machine, number_of(&fill(number))?))
            }
            Action::PartitionWriteBootCode {} => {
                self.all(crate::boot_record::write_boot_record(self.machine))
            }
            Action::PartitionRepairGpt {} => self.all(sectors::repair_gpt(self.machine)),
            Action::PartitionRestore {} => self.all(sectors::restore_partitions(self.machine, &Silent)),
            Action::PartitionRepairBootSector { number } => {
                self.all(sectors::repair_boot_sector(self.machine, number_of(&fill(number))?))
            }
            Action::FileSystemRepair { volume } => {
                let volume = fill(volume);
                self.all(match volume.trim() {
                    "" => repair_file_systems(self.machine, self.context.discard, &Silent),
                    number => {
                        repair_file_system(self.machine, number_of(number)?, self.context.discard, &Silent)
                            .map(|change| change.into_iter().collect())
                    }
                })
            }
            Action::DriveLetterSet { letter } => self.set_letter(&fill(letter)),
            Action::BootFilesRestore {} => self.restore_boot_files(),
            Action::FileRestore { path } => self.restore_file(&fill(path)),
            Action::DriverRestore { name, version } => self.restore(&fill(name), &fill(version)),
            Action::DonorCopyTree { from, to } => self.copy_from_donor(&fill(from), &fill(to)),
            Action::DonorCopyKey { key } => self.key_from_donor(&fill(key)),
        }
    }

    fn all(&mut self, changes: Result<Vec<Change>>) -> Result<()> {
        self.planned.changes.extend(changes?);
        Ok(())
    }
}

fn number_of(text: &str) -> Result<u32> {
    let text = text.trim().trim_start_matches('#');
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| Error::invalid(Layer::Script, "invalid number").found(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in_once() {
        let values = [("a", "${b}"), ("b", "secret"), ("item", "x${a}")];
        let values = values.map(|(name, value)| (name.to_string(), value.to_string())).into();
        let fill = |text: &str| Words(&values).fill(text);
        assert_eq!(fill("${a} ${item}-${b}"), "${b} x${a}-secret");
        assert_eq!(fill("${c} $ {a} ${ ${a"), "${c} $ {a} ${ ${a");
        assert_eq!(fill("${x${b}"), "${xsecret");
    }
}
