//! Every way in which a store can make one component's file: the copy that lies there, packed or not, what its deltas make of another
//! version, `WinSxS\Backup`, the driver store. Only bytes with the expected SHA-256 count; why each other way failed is kept.
//!
//! Deltas: `f\` makes this version of the first one (RTM), `r\` makes the first one of this version, `n\` makes this one of nothing. So the
//! way from any intact version leads over the first: at most `r` and then `f`.

use super::{ComponentName, Store};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use vmrescue_base::error::Result;
use vmrescue_base::limits::MAX_PAYLOAD_BYTES;
use vmrescue_base::text::hex;
use vmrescue_fs::{NodeId, NodeKind, read_file, resolve};
use vmrescue_payload::{Form, decode, form};

/// Folders of the driver store that are looked into.
const MAX_DRIVER_FOLDERS: usize = 20_000;
/// First versions that are tried: there is one, but broken neighbours give others.
const MAX_FIRST: usize = 16;

/// Bytes with the expected hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub data: Vec<u8>,
    /// Where it comes from and what was done with it, for people.
    pub from: String,
}

/// A way that did not give the expected bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Tried {
    /// Where it was looked.
    pub place: String,
    /// Why it is not taken.
    pub why: String,
}

/// The search for the bytes of one file.
struct Search<'a> {
    store: &'a Store,
    file: &'a str,
    expected: [u8; 32],
    /// Made bytes that were refused, so that each is told once.
    seen: BTreeSet<[u8; 32]>,
    tried: Vec<Tried>,
}

impl Search<'_> {
    fn failed(&mut self, place: &str, why: impl Into<String>) {
        self.tried.push(Tried { place: place.to_string(), why: why.into() });
    }

    /// The bytes, when they are those.
    fn judged(&mut self, place: &str, data: Vec<u8>) -> Option<Candidate> {
        let hash: [u8; 32] = Sha256::digest(&data).into();
        if hash == self.expected {
            return Some(Candidate { data, from: place.to_string() });
        }
        if self.seen.insert(hash) {
            self.failed(place, format!("its SHA-256 is {}", hex(&hash)));
        } else {
            self.failed(place, "the same other bytes as above");
        }
        None
    }

    fn read(&mut self, place: &str, directory: NodeId, name: &str) -> Option<Vec<u8>> {
        let fs = &*self.store.fs;
        let found = fs.lookup(directory, name).and_then(|node| {
            let Some(node) = node else { return Ok(None) };
            match fs.metadata(node)?.kind {
                NodeKind::File => read_file(fs, node, "").map(Some),
                NodeKind::Directory | NodeKind::Reparse => Ok(None),
            }
        });
        match found {
            Ok(bytes) => bytes,
            Err(e) => {
                self.failed(place, e.to_string());
                None
            }
        }
    }

    /// A payload that needs no other file, taken apart.
    fn unpacked(&mut self, place: &str, bytes: &[u8], base: Option<&[u8]>) -> Option<Vec<u8>> {
        match decode(bytes, base, MAX_PAYLOAD_BYTES) {
            Ok(found) => Some(found.data),
            Err(e) => {
                self.failed(place, e.to_string());
                None
            }
        }
    }

    /// A folder's payload of this name, raw; the path for people with it.
    fn payload(&mut self, index: usize, folder: &str) -> Option<(String, Vec<u8>)> {
        let component = &self.store.components[index];
        let (node, name) = (component.node, component.directory.clone());
        let (directory, middle) = if folder.is_empty() {
            (node, String::new())
        } else {
            match self.store.fs.lookup(node, folder) {
                Ok(Some(directory)) => (directory, format!(r"{folder}\")),
                Ok(None) => return None,
                Err(e) => {
                    self.failed(&format!(r"{}\{name}\{folder}", self.store.path), e.to_string());
                    return None;
                }
            }
        };
        let place = format!(r"{}\{name}\{middle}{}", self.store.path, self.file);
        let bytes = self.read(&place, directory, self.file)?;
        Some((place, bytes))
    }

    /// Whole files of the other versions, and what they make of the first version: place and bytes.
    fn first_versions(&mut self, family: &[usize], wanted: Option<usize>) -> Vec<(String, Vec<u8>)> {
        let mut first: Vec<(String, Vec<u8>)> = Vec::new();
        for index in family.iter().copied().filter(|index| Some(*index) != wanted) {
            if first.len() >= MAX_FIRST {
                break;
            }
            if let Some((place, bytes)) = self.payload(index, "n")
                && let Some(data) = self.unpacked(&place, &bytes, None)
            {
                first.push((place, data));
            }
            let Some((place, bytes)) = self.payload(index, "") else { continue };
            if form(&bytes) == Form::Dcd {
                continue;
            }
            let Some(whole) = self.unpacked(&place, &bytes, None) else { continue };
            if let Some((delta, bytes)) = self.payload(index, "r")
                && let Some(data) = self.unpacked(&delta, &bytes, Some(&whole))
            {
                first.push((format!("{place}, taken back by its r"), data));
            }
            first.push((place, whole));
        }
        first
    }

    /// All that the store has of a component.
    fn in_family(
        &mut self,
        family: &[usize],
        wanted: Option<usize>,
        more: &[(String, Vec<u8>)],
    ) -> Option<Candidate> {
        let own = wanted.and_then(|index| self.payload(index, ""));
        if let Some((place, bytes)) = &own
            && form(bytes) != Form::Dcd
            && let Some(data) = self.unpacked(place, bytes, None)
            && let Some(found) = self.judged(place, data)
        {
            return Some(found);
        }
        if let Some((place, bytes)) = wanted.and_then(|index| self.payload(index, "n"))
            && let Some(data) = self.unpacked(&place, &bytes, None)
            && let Some(found) = self.judged(&place, data)
        {
            return Some(found);
        }
        let mut deltas: Vec<(String, Vec<u8>)> =
            own.into_iter().filter(|(_, b)| form(b) == Form::Dcd).collect();
        deltas.extend(wanted.and_then(|index| self.payload(index, "f")));
        deltas.extend(more.iter().cloned());
        for (from, first) in self.first_versions(family, wanted) {
            // The first version itself may be the one that is wanted.
            if let Some(found) = self.judged(&from, first.clone()) {
                return Some(found);
            }
            for (place, delta) in &deltas {
                let way = format!("{place} on {from}");
                if let Some(data) = self.unpacked(&way, delta, Some(&first))
                    && let Some(found) = self.judged(&way, data)
                {
                    return Some(found);
                }
            }
        }
        None
    }

    /// Copies of critical components: `<key form>_<file>_<digits>`. Found by the end of their name, told by their content.
    fn in_backup(&mut self) -> Option<Candidate> {
        let folder = self.folder(self.store.root, "Backup")?;
        let middle = format!("_{}_", self.file.to_lowercase());
        let place = format!(r"{}\Backup", self.store.path);
        for name in self.names(&place, folder) {
            if !name.to_lowercase().contains(&middle) {
                continue;
            }
            let place = format!(r"{place}\{name}");
            if let Some(bytes) = self.read(&place, folder, &name)
                && let Some(data) = self.unpacked(&place, &bytes, None)
                && let Some(found) = self.judged(&place, data)
            {
                return Some(found);
            }
        }
        None
    }

    fn in_driver_store(&mut self) -> Option<Candidate> {
        let folder = match resolve(&*self.store.fs, &["Windows", "System32", "DriverStore", "FileRepository"])
        {
            Ok(folder) => folder?,
            Err(e) => {
                self.failed("the driver store", e.to_string());
                return None;
            }
        };
        let place = r"\Windows\System32\DriverStore\FileRepository";
        for name in self.names(place, folder).into_iter().take(MAX_DRIVER_FOLDERS) {
            let Some(directory) = self.folder(Some(folder), &name) else { continue };
            let place = format!(r"{place}\{name}\{}", self.file);
            if let Some(bytes) = self.read(&place, directory, self.file)
                && let Some(data) = self.unpacked(&place, &bytes, None)
                && let Some(found) = self.judged(&place, data)
            {
                return Some(found);
            }
        }
        None
    }

    fn folder(&mut self, parent: Option<NodeId>, name: &str) -> Option<NodeId> {
        let (fs, parent) = (&*self.store.fs, parent?);
        let found = fs.lookup(parent, name).and_then(|node| match node {
            Some(node) => Ok((fs.metadata(node)?.kind == NodeKind::Directory).then_some(node)),
            None => Ok(None),
        });
        match found {
            Ok(node) => node,
            Err(e) => {
                self.failed(name, e.to_string());
                None
            }
        }
    }

    fn names(&mut self, place: &str, folder: NodeId) -> Vec<String> {
        match self.store.fs.read_dir(folder) {
            Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
            Err(e) => {
                self.failed(place, e.to_string());
                Vec::new()
            }
        }
    }
}

impl Store {
    /// Makes the file `file` of a component (by the name of its directory, which need not be there) with this SHA-256, in the first way
    /// that gives it; with every way that did not. `deltas` are forward deltas from elsewhere, with their places.
    ///
    /// # Errors
    /// Of the file system's lists of the store.
    pub fn make(
        &mut self,
        component: &str,
        file: &str,
        expected: [u8; 32],
        deltas: &[(String, Vec<u8>)],
    ) -> Result<(Option<Candidate>, Vec<Tried>)> {
        self.look_for(&[file.to_string()])?;
        let wanted = self.components.iter().position(|own| own.directory.eq_ignore_ascii_case(component));
        let family = ComponentName::parse(component).map(|name| name.family()).unwrap_or_default();
        let mut family = self.families.get(&family).cloned().unwrap_or_default();
        family.sort_by_key(|index| std::cmp::Reverse(self.components[*index].name.version));
        // The first version itself makes the shortest way.
        if !family.is_empty() {
            family.rotate_right(1);
        }
        // Components of another name that have such a file: it may have moved between them.
        let others: Vec<usize> =
            self.named.get(&file.to_lowercase()).into_iter().flatten().copied().collect();
        let mut search = Search { store: self, file, expected, seen: BTreeSet::new(), tried: Vec::new() };
        let mut found = search.in_family(&family, wanted, deltas);
        for index in others.iter().filter(|index| !family.contains(index)) {
            if found.is_some() {
                break;
            }
            if let Some((place, bytes)) = search.payload(*index, "")
                && form(&bytes) != Form::Dcd
                && let Some(data) = search.unpacked(&place, &bytes, None)
            {
                found = search.judged(&place, data);
            }
        }
        let found = found.or_else(|| search.in_backup()).or_else(|| search.in_driver_store());
        Ok((found, search.tried))
    }
}
