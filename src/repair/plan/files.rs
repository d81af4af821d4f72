//! Steps that change files.

use super::Planner;
use crate::change::Change;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::fits;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::read_file;

impl Planner<'_> {
    pub(super) fn file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let parsed = GuestPath::parse(path)?;
        let (volume, node) = self.machine.resolve(&parsed)?;
        node.map(|node| read_file(&*self.machine.file_system(volume)?, node, &parsed.stream)).transpose()
    }

    pub(super) fn copy(&mut self, from: &str, to: &str) -> Result<()> {
        let data =
            self.file(from)?.ok_or_else(|| Error::not_found(Layer::Script, "no such file").found(from))?;
        if self.file(to)?.as_ref() != Some(&data) {
            let size = data.len() as u64;
            self.planned.changes.push(Change::FileWrite {
                path: to.to_string(),
                data: data.into(),
                size,
                from: from.to_string(),
            });
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        if self.machine.resolve(&GuestPath::parse(from)?)?.1.is_none() {
            return Ok(());
        }
        let (mut target, mut number) = (to.to_string(), 1);
        while self.machine.resolve(&GuestPath::parse(&target)?)?.1.is_some() {
            target = format!("{to}.{number}");
            number += 1;
        }
        self.planned.changes.push(Change::FileRename { from: from.to_string(), to: target });
        Ok(())
    }

    pub(super) fn delete_files(&mut self, path: &str) -> Result<()> {
        let (directory, pattern) = path.rsplit_once('\\').unwrap_or((path, ""));
        let (volume, node) = self.machine.resolve(&GuestPath::parse(directory)?)?;
        let Some(node) = node else { return Ok(()) };
        for entry in self.machine.file_system(volume)?.read_dir(node)? {
            if entry.kind != vmrescue_fs::NodeKind::Directory && fits(pattern, &entry.name) {
                self.planned
                    .changes
                    .push(Change::FileDelete { path: format!("{directory}\\{}", entry.name) });
            }
        }
        Ok(())
    }

    /// Makes a directory and those above it, once.
    pub(super) fn mkdir(&mut self, path: &str) -> Result<()> {
        let parts: Vec<&str> = path.split('\\').filter(|part| !part.is_empty()).collect();
        for end in 2..=parts.len() {
            let path = parts[..end].join("\\");
            let planned = Change::MakeDirectory { path: path.clone() };
            if !self.planned.changes.contains(&planned)
                && (self.moves_away(&path) || self.machine.resolve(&GuestPath::parse(&path)?)?.1.is_none())
            {
                self.planned.changes.push(planned);
            }
        }
        Ok(())
    }

    /// True when an earlier step renames it.
    fn moves_away(&self, path: &str) -> bool {
        let renames = |change: &Change| matches!(change, Change::FileRename { from, .. } if from.eq_ignore_ascii_case(path));
        self.planned.changes.iter().any(renames)
    }

    pub(super) fn write_text(&mut self, path: &str, text: &str) -> Result<()> {
        let data = text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes();
        if self.file(path)?.as_ref() != Some(&data) {
            let (size, from) = (data.len() as u64, "this script".to_string());
            self.planned.changes.push(Change::FileWrite {
                path: path.to_string(),
                data: data.into(),
                size,
                from,
            });
        }
        Ok(())
    }

    pub(super) fn put(&mut self, from: &str, to: &str) -> Result<()> {
        let data = self.host_file(from)?;
        if self.file(to)?.as_ref() != Some(&data) {
            let (size, from) = (data.len() as u64, from.to_string());
            self.planned.changes.push(Change::FileWrite {
                path: to.to_string(),
                data: data.into(),
                size,
                from,
            });
        }
        Ok(())
    }

    /// A file of the host, in the folder that the user named and nowhere else.
    pub(super) fn host_file(&self, name: &str) -> Result<Vec<u8>> {
        let Some(folder) = &self.context.host_files else {
            return Err(Error::refused(Layer::Script, "the script wants a file of this machine")
                .found(name)
                .advice("name the folder that it may read with --allow-host-files DIR"));
        };
        let failed = |e| Error::io("cannot be read", folder.join(name), e);
        let (inside, root) =
            (folder.join(name).canonicalize().map_err(failed)?, folder.canonicalize().map_err(failed)?);
        if !inside.starts_with(&root) {
            return Err(Error::refused(Layer::Script, "the script reaches out of its folder")
                .in_file(&inside)
                .advice("put the file into the folder of --allow-host-files"));
        }
        std::fs::read(&inside).map_err(failed)
    }
}
