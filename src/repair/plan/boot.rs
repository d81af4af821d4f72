//! Steps that change the boot store.
//!
//! Each sees the store as the steps before it leave it, so that a script can make an entry and then set its elements.

use super::{Planned, Planner};
use crate::change::Change;
use crate::rebuild_boot::{rebuild_boot, store_changes};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_windows::bcd::{DiskMap, Place, Store, Value, names};
use vmrescue_windows::{boot_layout, load_store};

/// `description`.
const DESCRIPTION: u32 = 0x1200_0004;
/// Lists of the boot manager that have an order, by bcdedit's names.
const LISTS: [(&str, u32); 3] =
    [("displayorder", 0x2400_0001), ("bootsequence", 0x2400_0002), ("toolsdisplayorder", 0x2400_0010)];

/// The boot store in the course of a script.
#[derive(Default)]
pub(super) enum BootStore {
    /// As the disk has it.
    #[default]
    OnDisk,
    /// What earlier steps make of it.
    Planned(PlannedStore),
    /// An earlier step puts it right as a whole; what comes of that is not known before it is done.
    Rebuilt,
}

/// A store that steps have changed. What differs in the end becomes the changes, however many steps led there.
pub(super) struct PlannedStore {
    path: String,
    before: Store,
    after: Store,
}

impl Planner<'_> {
    /// The store as the steps so far leave it; `None` when none of them has changed it.
    pub(super) fn planned_store(&self) -> Option<&Store> {
        match &self.boot_store {
            BootStore::Planned(planned) => Some(&planned.after),
            _ => None,
        }
    }

    /// Adds what the steps together change in the boot store.
    pub(super) fn finish_boot_store(&mut self) {
        if let BootStore::Planned(store) = &self.boot_store {
            self.planned.changes.extend(store_changes(&store.path, &store.before, &store.after));
        }
    }

    /// The path of the boot store that the firmware starts from, and the store as it is by now.
    fn boot_store(&self) -> Result<(String, Store)> {
        if matches!(self.boot_store, BootStore::Rebuilt) {
            return Err(Error::refused(
                Layer::Script,
                "a step changes the boot store that an earlier one rebuilds",
            )
            .advice("run the rebuilding (rebuild-boot) first, then the rest as a script of its own"));
        }
        let layout = boot_layout(self.machine);
        let path = layout.store_path(self.machine, layout.system_volume(self.machine, None)?);
        match load_store(self.machine, &path)? {
            Some((_, store)) => Ok((path, store)),
            None => Err(Error::not_found(Layer::Bcd, "the disk has no boot configuration store")
                .found(path)
                .advice("run the script rebuild-boot first")),
        }
    }

    /// Edits it.
    fn bcd(&mut self, work: impl FnOnce(&mut Store, &DiskMap) -> Result<()>) -> Result<()> {
        let map = self.machine.disk_map();
        if let BootStore::Planned(planned) = &mut self.boot_store {
            let mut after = planned.after.clone();
            work(&mut after, &map)?;
            planned.after = after;
            return Ok(());
        }
        let (path, before) = self.boot_store()?;
        let mut after = before.clone();
        work(&mut after, &map)?;
        if after.objects != before.objects {
            self.boot_store = BootStore::Planned(PlannedStore { path, before, after });
        }
        Ok(())
    }

    pub(super) fn rebuild(&mut self) -> Result<()> {
        if matches!(self.boot_store, BootStore::Planned(_)) {
            return Err(Error::refused(
                Layer::Script,
                "a step rebuilds the boot store that an earlier one changes",
            )
            .advice("rebuild it first, in a script of its own"));
        }
        let Planned { changes, notes, .. } = rebuild_boot(self.machine, self.installation, None)?;
        self.planned.notes.extend(notes);
        let layout = boot_layout(self.machine);
        let path = layout.store_path(self.machine, layout.system_volume(self.machine, None)?);
        let is_store = |change: &Change| match change {
            Change::FileWrite { path: file, .. } => file.eq_ignore_ascii_case(&path),
            other => other.registry_key().is_some_and(|(hive, _)| hive.eq_ignore_ascii_case(&path)),
        };
        if changes.iter().any(is_store) {
            self.boot_store = BootStore::Rebuilt;
        }
        self.planned.changes.extend(changes);
        Ok(())
    }

    pub(super) fn bcd_set(&mut self, object: &str, element: &str, value: &str) -> Result<()> {
        let words: Vec<&str> = value.split_whitespace().collect();
        self.bcd(|store, map| store.set(object, element, &words, map))
    }

    /// Makes an object, if it is not there: a well-known one by its alias, a copy of an entry, or an empty one.
    pub(super) fn bcd_create(
        &mut self,
        object: &str,
        like: &str,
        application: &str,
        description: &str,
    ) -> Result<()> {
        self.bcd(|store, _| {
            let id = store.resolve(object)?;
            let known = names::KNOWN_OBJECTS.iter().find(|(_, known, _)| *known == id);
            if store.object(id).is_some() {
                return Ok(());
            }
            let kind = match (known, application) {
                (_, _) if !like.is_empty() => return store.copy(like, id, described(description, object)?),
                (Some((_, _, kind)), _) => *kind,
                (None, "") => names::TYPE_OSLOADER,
                (None, application) => names::application(application).ok_or_else(|| {
                    Error::invalid(Layer::Bcd, "no such application of the boot store")
                        .expected(names::APPLICATIONS.map(|(name, _)| name).join(", "))
                        .found(application)
                })?,
            };
            store.create(id, kind)?;
            if !description.is_empty() {
                store.put(id, kind, DESCRIPTION, Value::Text(description.to_string()))?;
            }
            Ok(())
        })
    }

    pub(super) fn bcd_order(&mut self, object: &str, place: &str, list: &str) -> Result<()> {
        let place = match place {
            "first" => Place::First,
            "last" => Place::Last,
            "remove" => Place::Remove,
            other => {
                return Err(Error::invalid(Layer::Script, "no such place in a list")
                    .expected("first, last, remove")
                    .found(other));
            }
        };
        let wanted = if list.is_empty() { LISTS[0].0 } else { list };
        let list = LISTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).ok_or_else(|| {
            Error::invalid(Layer::Script, "the boot manager has no such list")
                .expected(LISTS.map(|(name, _)| name).join(", "))
                .found(wanted)
        })?;
        self.bcd(|store, _| {
            let id = store.resolve(object)?;
            if place != Place::Remove && store.object(id).is_none() {
                return Err(Error::not_found(Layer::Bcd, format!("the store has no object {object}"))
                    .advice("make it by an earlier step, with bcd.create"));
            }
            store.order(names::BOOTMGR, list.1, id, place)
        })
    }

    pub(super) fn bcd_delete(&mut self, object: &str, element: Option<&str>) -> Result<()> {
        self.bcd(|store, _| {
            if let Some(element) = element {
                return store.delete_value(object, element).map(|_| ());
            }
            let id = store.resolve(object)?;
            if store.object(id).is_some() { store.delete(object) } else { Ok(()) }
        })
    }
}

/// A copy must have a name of its own: two entries of one name cannot be told apart in the menu.
fn described<'d>(description: &'d str, object: &str) -> Result<&'d str> {
    if description.is_empty() {
        return Err(Error::invalid(Layer::Script, format!("the copy {object} needs a description")));
    }
    Ok(description)
}
