//! Steps that take something from another machine's disk or image.

use super::Planner;
use crate::change::{Change, words};
use crate::content::Content;
use crate::source::Donor;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;
use vmrescue_base::text::fits;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystem, NodeId, NodeKind, resolve};
use vmrescue_registry::Key;
use vmrescue_windows::hive_of;

fn nothing(what: &str) -> Error {
    Error::not_found(Layer::Script, format!("no source has {what}"))
        .advice("name a healthy machine's disk or a Windows image with --source FILE")
}

impl Planner<'_> {
    fn donors(&self) -> Vec<Donor> {
        self.context.sources.iter().flat_map(|source| source.donors()).collect()
    }

    pub(super) fn copy_from_donor(&mut self, from: &str, to: &str) -> Result<()> {
        let parts: Vec<&str> = from.split(['\\', '/']).filter(|part| !part.is_empty()).collect();
        let Some((pattern, directory)) = parts.split_last() else { return Err(nothing(from)) };
        for donor in self.donors() {
            let Some(node) = resolve(&*donor.fs, directory)? else { continue };
            let entries = donor.fs.read_dir(node)?;
            let found: Vec<_> = entries.into_iter().filter(|entry| fits(pattern, &entry.name)).collect();
            if found.is_empty() {
                continue;
            }
            self.mkdir(to)?;
            for entry in found {
                let path = format!("{to}\\{}", entry.name);
                self.copy_node(&donor, entry.id, entry.kind, &path, 0)?;
            }
            return Ok(());
        }
        Err(nothing(from))
    }

    fn copy_node(
        &mut self,
        donor: &Donor,
        node: NodeId,
        kind: NodeKind,
        to: &str,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DIRECTORY_DEPTH {
            return Err(Error::limit(Layer::FileSystem, "directories are nested too deeply").found(to));
        }
        match kind {
            NodeKind::Reparse => Ok(()),
            NodeKind::File => {
                let data = Content::of_guest(&donor.fs, node, "")?;
                let (volume, there) = self.machine.resolve(&GuestPath::parse(to)?)?;
                let fs = self.machine.file_system(volume)?;
                if !there.map(|there| data.is_in(&*fs, there, "")).transpose()?.unwrap_or(false) {
                    let (size, from) = (data.length_bytes(), donor.name.clone());
                    self.planned.changes.push(Change::FileWrite { path: to.to_string(), data, size, from });
                }
                Ok(())
            }
            NodeKind::Directory => {
                self.mkdir(to)?;
                for entry in donor.fs.read_dir(node)? {
                    self.copy_node(donor, entry.id, entry.kind, &format!("{to}\\{}", entry.name), depth + 1)?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn key_from_donor(&mut self, key: &str) -> Result<()> {
        let parts: Vec<&str> = key.split('\\').filter(|part| !part.is_empty()).collect();
        let [_, hive, rest @ ..] = parts.as_slice() else { return Err(nothing(key)) };
        for donor in self.donors() {
            let Some(config) = donor.config()? else { continue };
            let Ok(found) = hive_of(&*donor.fs, config, hive) else { continue };
            let mut path: Vec<String> = rest.iter().map(|part| (*part).to_string()).collect();
            if let Some(first) = path.first_mut().filter(|first| {
                first.to_lowercase().ends_with("controlset") || first.eq_ignore_ascii_case("AllControlSets")
            }) {
                let select = found.key("Select")?.map(|key| key.value("Default")).transpose()?.flatten();
                *first =
                    format!("ControlSet{:03}", select.and_then(|value| value.as_u32()).unwrap_or(1).max(1));
            }
            let Some(from) = found.key(&path.join("\\"))? else { continue };
            for at in self.expand(key)? {
                let before = self.planned.changes.len();
                self.copy_key(&from, &at.hive, &at.key, 0)?;
                if self.planned.changes.len() == before && self.hive(&at.hive)?.key(&at.key)?.is_none() {
                    self.planned.changes.push(Change::RegistryCreateKey { hive: at.hive, key: at.key });
                }
            }
            return Ok(());
        }
        Err(nothing(key))
    }

    fn copy_key(&mut self, from: &Key<'_>, hive: &str, key: &str, depth: usize) -> Result<()> {
        if depth > MAX_DIRECTORY_DEPTH {
            return Err(Error::limit(Layer::Hive, "keys are nested too deeply").found(key));
        }
        for value in from.values()? {
            let (name, data, data_type) = (value.name(), value.data()?.to_vec(), value.data_type());
            let old = self.hive(hive)?.key(key)?.map(|key| key.value(&name)).transpose()?.flatten();
            let mut was = None;
            if let Some(old) = old {
                let there = old.data()?;
                if old.data_type() == data_type && *there == *data {
                    continue;
                }
                was = Some(words(old.data_type().0, &there));
            }
            let (hive, key) = (hive.to_string(), key.to_string());
            self.planned.changes.push(Change::RegistrySet {
                hive,
                key,
                name,
                data_type: data_type.0,
                data,
                was,
            });
        }
        for child in from.subkeys()? {
            self.copy_key(&child, hive, &format!("{key}\\{}", child.name()), depth + 1)?;
        }
        Ok(())
    }
}

/// The directory that a path of a file system names, from its root.
pub(crate) fn directory(fs: &dyn FileSystem, path: &[&str]) -> Result<Option<NodeId>> {
    resolve(fs, path)
}
