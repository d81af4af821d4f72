//! The step that puts a system file back to the exact bytes that the installed build expects.
//!
//! Candidates come from the guest's own store in every form, from other installations of the disk, and from `--source`; only bytes with the
//! SHA-256 of the component's manifest are taken. The component's file gets the content and the path becomes one of its names, as
//! Windows has it; a neighbour of another version is never touched.

use super::Planner;
use crate::change::Change;
use crate::source::Exact;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::read_file;
use vmrescue_windows::{
    Candidate, FileState, Payload, Tried, Wanted, links_of, make_file, payload_kind, wanted_file,
};

/// Failed ways that an error lists.
const MAX_TOLD: usize = 24;

impl Planner<'_> {
    /// Puts a file back.
    pub(super) fn restore_file(&mut self, path: &str) -> Result<()> {
        let wanted = wanted_file(self.machine, self.installation, path)?;
        if self.is_right(&wanted) {
            return Ok(());
        }
        let (found, tried) = self.exact_bytes(&wanted)?;
        match found {
            Some(found) => self.put_back(&wanted, found),
            None => Err(nothing_has(&wanted, &tried)),
        }
    }

    /// The same for a step that has other ways: false when it is not known which bytes are expected, or nothing has them. A file that is
    /// exact is never replaced by another that only looks healthier.
    pub(super) fn restore_exact(&mut self, path: &str) -> Result<bool> {
        let wanted = match wanted_file(self.machine, self.installation, path) {
            Ok(wanted) => wanted,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Refused) => return Ok(false),
            Err(e) => return Err(e),
        };
        if self.is_right(&wanted) {
            return Ok(true);
        }
        let (found, tried) = self.exact_bytes(&wanted)?;
        let Some(found) = found else {
            let error = nothing_has(&wanted, &tried);
            self.planned.notes.push(format!("{path}: {error}"));
            return Ok(false);
        };
        self.put_back(&wanted, found)?;
        Ok(true)
    }

    /// True for a file that has its bytes, or those of another version where nobody says which one wins.
    fn is_right(&mut self, wanted: &Wanted) -> bool {
        let file = &wanted.file;
        let guessed = file.winner_by == Some(vmrescue_windows::WinnerSource::Highest.name());
        if guessed && let Some(own) = &file.exact_as {
            let note = format!(
                "{} is exactly the file of {own}; which version wins is not known: left alone",
                file.path
            );
            self.planned.notes.push(note);
            return true;
        }
        file.state == FileState::Exact
    }

    /// The bytes, from the first place that has or makes them, and what else was tried.
    fn exact_bytes(&self, wanted: &Wanted) -> Result<(Option<Candidate>, Vec<Tried>)> {
        let path = GuestPath::parse(&wanted.file.path)?;
        let name = path.file_name();
        let make = |installation, deltas: &[(String, Vec<u8>)]| {
            make_file(self.machine, installation, &wanted.component, name, wanted.expected, deltas)
        };
        let (mut found, mut tried) = make(self.installation, &[])?;
        for other in self.machine.installations.iter().filter(|other| other.path != self.installation.path) {
            if found.is_some() {
                break;
            }
            let (made, failed) = make(other, &[])?;
            let label = format!("{}: ", other.path);
            tried.extend(failed.into_iter().map(|t| Tried { place: format!("{label}{}", t.place), ..t }));
            found = made.map(|made| Candidate { from: format!("{label}{}", made.from), ..made });
        }
        let exact =
            Exact { component: &wanted.component, parts: &path.components, expected: wanted.expected };
        for source in &self.context.sources {
            if found.is_some() {
                break;
            }
            found = source.exact(&exact, &mut tried)?;
            if found.is_none() {
                let deltas = source.forward_deltas(&exact)?;
                if !deltas.is_empty() {
                    let (made, failed) = make(self.installation, &deltas)?;
                    found = made;
                    // The guest's own ways are told already.
                    let is_new = |t: &Tried| deltas.iter().any(|(at, _)| t.place.starts_with(at));
                    tried.extend(failed.into_iter().filter(is_new));
                }
            }
        }
        Ok((found, tried))
    }

    /// Plans the changes for bytes that are right.
    fn put_back(&mut self, wanted: &Wanted, found: Candidate) -> Result<()> {
        let fs = self.machine.file_system(self.installation.volume)?;
        let path = wanted.file.path.clone();
        let version = wanted.file.winner.as_deref().unwrap_or("?");
        let why = format!("version {version}, exact: the SHA-256 of the manifest of {}", wanted.component);
        if let Some(problem) = &wanted.unconfirmed {
            self.planned.notes.push(format!(
                "the registry could not be asked whether the manifest of {} is the one that it knows: {problem}",
                wanted.component
            ));
        }
        let link = Change::FileLink { path: path.clone(), target: wanted.store_path.clone(), why };
        let size = found.data.len() as u64;
        let from = format!("{}, exact for version {version}", found.from);
        let in_store = match wanted.store_node {
            // What cannot be read is not right, and is written anew.
            Some(node) => read_file(&*fs, node, "").ok(),
            None => None,
        };
        if in_store.as_ref() == Some(&found.data) {
            self.planned.changes.push(link);
            return Ok(());
        }
        let is_packed = in_store.is_some_and(|bytes| payload_kind(&bytes) == Payload::Packed);
        if is_packed {
            // The store keeps its packed form; the file stands alone. What it was may be one with another version's file.
            if let Some(node) = wanted.node
                && links_of(&*fs, node)?.len() > 1
            {
                self.planned.changes.push(Change::FileDelete { path: path.clone() });
            }
            self.planned.changes.push(Change::FileWrite { path, data: found.data.into(), size, from });
            return Ok(());
        }
        let is_one_file = wanted.node.is_some() && wanted.node == wanted.store_node;
        let target = wanted.store_path.clone();
        if !wanted.has_folder
            && let Some((folder, _)) = target.rsplit_once('\\')
        {
            self.mkdir(folder)?;
        }
        self.planned.changes.push(Change::FileWrite {
            path: target.clone(),
            data: found.data.into(),
            size,
            from,
        });
        if wanted.store_node.is_none()
            && let Some(model) = &wanted.sibling
        {
            self.planned.changes.push(Change::FileSecurity { path: target, model: model.clone() });
        }
        if !is_one_file {
            self.planned.changes.push(link);
        }
        Ok(())
    }
}

fn nothing_has(wanted: &Wanted, tried: &[Tried]) -> Error {
    let mut told: Vec<String> =
        tried.iter().take(MAX_TOLD).map(|t| format!("{}: {}", t.place, t.why)).collect();
    if tried.len() > MAX_TOLD {
        told.push(format!("and {} more", tried.len() - MAX_TOLD));
    }
    let found =
        if told.is_empty() { "no copy, packed file or delta at all".to_string() } else { told.join("; ") };
    let name = wanted.file.path.rsplit('\\').next().unwrap_or_default();
    Error::not_found(Layer::Windows, format!("nothing has or makes the exact bytes of {name}"))
        .expected(format!("SHA-256 {}, of {}", vmrescue_base::text::hex(&wanted.expected), wanted.component))
        .found(found)
        .advice("name a healthy machine's disk, an install.wim or a folder of the same build: --source FILE")
}
