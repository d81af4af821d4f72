//! Drive letters, which MountedDevices binds to partitions.

use super::Planner;
use crate::change::{Change, words};
use crate::key_path::key_path;
use vmrescue_base::error::{Error, Layer, Result};

const KEY: &str = r"HKLM\SYSTEM\MountedDevices";
/// REG_BINARY.
const BINARY: u32 = 3;

impl Planner<'_> {
    /// Gives the partition of Windows this letter, and no other; who has it now gets the one that becomes free.
    pub(super) fn set_letter(&mut self, letter: &str) -> Result<()> {
        let wanted = letter.trim().trim_end_matches([':', '\\']).to_ascii_uppercase();
        if wanted.len() != 1 || !wanted.chars().all(|c| c.is_ascii_uppercase()) {
            return Err(Error::invalid(Layer::Script, "invalid drive letter").found(letter));
        }
        let volume = &self.machine.volumes[self.installation.volume];
        let Some(own) = volume.letter.map(|letter| letter.to_string()).filter(|own| *own != wanted) else {
            return Ok(());
        };
        let name = |letter: &str| format!(r"\DosDevices\{letter}:");
        let at = key_path(self.machine, self.installation, KEY)?;
        let value = |this: &mut Self, letter: &str| -> Result<Option<Vec<u8>>> {
            let Some(key) = this.hive(&at.hive)?.key(&at.key)? else { return Ok(None) };
            key.value(&name(letter))?.map(|value| Ok(value.data()?.to_vec())).transpose()
        };
        let ours = value(self, &own)?.ok_or_else(|| {
            Error::not_found(Layer::Windows, format!("MountedDevices has no letter {own}:")).found(KEY)
        })?;
        let theirs = value(self, &wanted)?;
        let set = |letter: &str, data: Vec<u8>, was: Option<&Vec<u8>>| Change::RegistrySet {
            hive: at.hive.clone(),
            key: at.key.clone(),
            name: name(letter),
            data_type: BINARY,
            data,
            was: was.map(|was| words(BINARY, was)),
        };
        let freed = match &theirs {
            Some(theirs) => set(&own, theirs.clone(), Some(&ours)),
            None => {
                Change::RegistryDeleteValue { hive: at.hive.clone(), key: at.key.clone(), name: name(&own) }
            }
        };
        self.planned.changes.extend([freed, set(&wanted, ours.clone(), theirs.as_ref())]);
        Ok(())
    }
}
