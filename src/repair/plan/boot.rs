//! Steps that change the boot store.

use super::Planner;
use crate::error::{Error, Layer, Result};
use crate::repair::rebuild_boot::store_changes;
use crate::windows::bcd::{DiskMap, Store};
use crate::windows::{boot_layout, load_store};

impl Planner<'_> {
    /// Edits the boot store that the firmware starts from.
    pub(super) fn bcd(&mut self, work: impl Fn(&mut Store, &DiskMap) -> Result<()>) -> Result<()> {
        let layout = boot_layout(self.machine);
        let path = layout.store_path(self.machine, layout.system_volume(self.machine, None)?);
        let Some((_, before)) = load_store(self.machine, &path)? else {
            return Err(Error::not_found(Layer::Bcd, "the disk has no boot configuration store")
                .found(path)
                .advice("run the script rebuild-boot first"));
        };
        let mut after = before.clone();
        work(&mut after, &self.machine.disk_map())?;
        self.planned.changes.extend(store_changes(&path, &before, &after));
        Ok(())
    }
}
