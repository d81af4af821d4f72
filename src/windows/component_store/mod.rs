//! The component store, `\Windows\WinSxS`: which component a file belongs to, which versions there are, which one wins, what each copy is.
//!
//! * [`ComponentName`]: the name of a directory, taken apart
//! * [`Identity`]: its name computed from what its manifest says
//! * `manifest`: the hashes that manifests tell, plain ones and those packed against wcp.dll's base
//! * `winners`: which version Windows takes (`SideBySide\Winners`, else COMPONENTS, else the highest)
//! * [`Store`]: the directory of the store with all of it
//!
//! A file in System32 and its copy in the store are one file with two names: the name of the second one's directory is the component.
//! * `candidates`: every way in which the store can make a file

mod candidates;
mod identity;
mod key_form;
mod manifest;
mod winners;

pub use candidates::{Candidate, Tried};
pub use identity::ComponentName;
pub use key_form::Identity;
pub use manifest::ManifestState;
pub use winners::WinnerSource;

use super::machine::{Installation, Machine};
use super::pe::{PeInfo, base_manifest, machine_name, packing};
use super::unread::{Unread, Unseen, Weight};
use identity::version_text;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use vmrescue_base::error::Result;
use vmrescue_base::limits::MAX_MANIFEST_BYTES;
use vmrescue_base::text::hex;
use vmrescue_fs::{FileSystem, NodeId, NodeKind, read_file};
use winners::Winners;

/// Folders inside of a component that hold deltas: forward, reverse, against nothing.
const DELTAS: [(&str, &str); 3] =
    [("f", "a forward delta"), ("r", "a reverse delta"), ("n", "a delta against nothing")];

/// The component that has wcp.dll.
const SERVICING_STACK: &str = "microsoft-windows-servicingstack";

/// One copy of a file in the store.
#[derive(Debug, Clone, Serialize)]
pub struct StoreFile {
    /// Name of the component's directory.
    pub component: String,
    /// Version of the component, for sorting.
    pub component_version: [u32; 4],
    /// Path in the guest.
    pub path: String,
    /// The node of the file.
    #[serde(skip)]
    pub node: NodeId,
    /// Length in bytes.
    pub size: u64,
    /// `pe`, the head of a packed payload (`DCS`, `DCD`, `DCN`, `DCM`, `PA30`), or `other`.
    pub payload: &'static str,
    /// This is the version that Windows takes.
    pub winner: bool,
    /// What the file says; `None` when it cannot be restored from, or when it was not read.
    pub pe: Option<PeInfo>,
    /// Why it cannot be restored from.
    pub problem: Option<String>,
    /// Whether the component's manifest can tell hashes.
    pub manifest: ManifestState,
    /// What the manifest says that the file's SHA-256 is.
    pub expected_sha256: Option<String>,
    /// Whether it is so; `None` when it is not known or was not looked at.
    pub hash_fits: Option<bool>,
}

impl StoreFile {
    /// True when Windows of that architecture could load it, and no manifest says that it should be another.
    pub fn is_usable_on(&self, architecture: &str) -> bool {
        self.hash_fits != Some(false)
            && self
                .pe
                .as_ref()
                .is_some_and(|pe| machine_name(pe.machine) == architecture && pe.checksum_right)
    }
}

impl StoreFile {
    /// True when a file of the start can be restored from this copy: a program file as in [`StoreFile::is_usable_on`], or data, such as a code
    /// page, that no manifest says should be another.
    pub fn is_restorable_on(&self, architecture: &str) -> bool {
        self.is_usable_on(architecture) || self.is_data() && self.hash_fits != Some(false)
    }

    /// True for a whole file of data. That it is no program file is its problem when it is looked at as one.
    fn is_data(&self) -> bool {
        let name = self.path.rsplit('\\').next().unwrap_or_default().to_ascii_lowercase();
        let zeroed = self.problem.as_ref().is_some_and(|problem| problem.contains("zeros"));
        self.payload == "other" && self.size > 0 && !zeroed && name.ends_with(".nls")
    }
}

/// How a file outside of the store is tied to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tie {
    /// It is the store's file under a second name.
    HardLink,
    /// Another file with the same content.
    SameContent,
    /// The store has files of this name, all of them others.
    Differs,
    /// The store has no file of this name.
    NotInStore,
}

/// What the store says of a file.
#[derive(Debug, Clone, Serialize)]
pub struct Origin {
    /// How the file is tied to the store.
    pub tie: Tie,
    /// Directory of the component that it belongs to; of the winner when it is tied to none.
    pub component: Option<String>,
    /// Version of that component.
    pub version: Option<String>,
    /// The version that Windows takes.
    pub winner: Option<String>,
    /// Who says so.
    pub winner_by: Option<WinnerSource>,
    /// Whether the file is the winner's.
    pub is_winner: Option<bool>,
    /// Whether the component's manifest can tell hashes.
    pub manifest: ManifestState,
    /// SHA-256 that the manifest wants.
    pub expected_sha256: Option<String>,
    /// Whether the file has it.
    pub hash_fits: Option<bool>,
    /// All copies in the store, the winner first, then older ones from the newest to the oldest, then newer ones.
    pub versions: Vec<StoreFile>,
}

struct Component {
    name: ComponentName,
    directory: String,
    node: NodeId,
}

/// The store of an installation.
pub struct Store {
    fs: Arc<dyn FileSystem>,
    path: String,
    architecture: String,
    components: Vec<Component>,
    by_node: BTreeMap<NodeId, usize>,
    families: BTreeMap<String, Vec<usize>>,
    /// Components by the names of files that were looked for in all of them, in lower case.
    named: BTreeMap<String, Vec<usize>>,
    /// The directory of the store.
    root: Option<NodeId>,
    manifests: Option<NodeId>,
    /// What packed manifests are packed against; looked for when the first one is met.
    base: OnceLock<Option<Vec<u8>>>,
    winners: Winners,
    /// What could not be read on the way.
    unseen: Unseen,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({} components in {})", self.components.len(), self.path)
    }
}

impl Store {
    /// Reads the list of components. An installation without a store has an empty one.
    ///
    /// # Errors
    /// Of the file system; hives that cannot be read are in [`Store::unread`].
    pub fn open(machine: &Machine, installation: &Installation) -> Result<Store> {
        let unseen = Unseen::default();
        let fs = machine.file_system(installation.volume)?;
        let mut store = Store {
            path: format!(r"{}\WinSxS", installation.path),
            architecture: installation.architecture.clone(),
            components: Vec::new(),
            by_node: BTreeMap::new(),
            families: BTreeMap::new(),
            named: BTreeMap::new(),
            root: None,
            manifests: None,
            base: OnceLock::new(),
            winners: Winners::read(machine, installation, &unseen),
            unseen,
            fs,
        };
        let Some(directory) = store.fs.lookup(installation.root, "WinSxS")? else { return Ok(store) };
        store.root = Some(directory);
        store.manifests = store.fs.lookup(directory, "Manifests")?;
        for entry in
            store.fs.read_dir(directory)?.into_iter().filter(|entry| entry.kind == NodeKind::Directory)
        {
            let Some(name) = ComponentName::parse(&entry.name) else { continue };
            let index = store.components.len();
            store.by_node.insert(entry.id, index);
            store.families.entry(name.family()).or_default().push(index);
            store.components.push(Component { name, directory: entry.name, node: entry.id });
        }
        Ok(store)
    }

    /// What of the store was asked for so far and could not be read.
    pub fn unread(&self) -> Vec<Unread> {
        self.unseen.list()
    }

    /// How many components there are.
    pub fn len(&self) -> usize {
        self.components.len()
    }

    /// True without any component.
    pub fn is_empty(&self) -> bool {
        self.components.is_empty()
    }

    /// Looks for files of these names in all components for this machine's architecture, in one pass; [`Store::origin`] then finds
    /// them without a hard link.
    ///
    /// # Errors
    /// Of the file system; a directory that cannot be read is left out, and is in [`Store::unread`].
    pub fn look_for(&mut self, names: &[String]) -> Result<()> {
        let wanted: BTreeSet<String> = names
            .iter()
            .map(|name| name.to_lowercase())
            .filter(|name| !self.named.contains_key(name))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.named.extend(wanted.iter().map(|name| (name.clone(), Vec::new())));
        for (index, component) in self.components.iter().enumerate() {
            if !component.name.architecture.eq_ignore_ascii_case(&self.architecture) {
                continue;
            }
            let entries = self.fs.read_dir(component.node);
            let place = format!(r"{}\{}", self.path, component.directory);
            let entries = self.unseen.seen("a component", place, Weight::Partial, entries);
            let Some(entries) = entries else { continue };
            for entry in entries {
                let name = entry.name.to_lowercase();
                if wanted.contains(&name)
                    && let Some(list) = self.named.get_mut(&name)
                {
                    list.push(index);
                }
            }
        }
        Ok(())
    }

    /// The components that a file has a second name in.
    fn linked(&self, node: NodeId) -> Result<Vec<usize>> {
        let names = self.fs.names(node)?;
        Ok(names.iter().filter_map(|name| self.by_node.get(&name.directory).copied()).collect())
    }

    /// True when the file has a second name in the store.
    ///
    /// # Errors
    /// Of the file system.
    pub fn is_linked(&self, node: NodeId) -> Result<bool> {
        Ok(!self.linked(node)?.is_empty())
    }

    /// The base of packed manifests, out of the newest servicing stack whose wcp.dll can be read.
    fn base(&self) -> Option<&[u8]> {
        let find = || {
            let mut stacks: Vec<&Component> = self
                .components
                .iter()
                .filter(|c| c.name.name.eq_ignore_ascii_case(SERVICING_STACK))
                .collect();
            stacks.sort_by_key(|component| std::cmp::Reverse(component.name.version));
            stacks.iter().find_map(|component| {
                // A stack that cannot be read is noted, and is not the only one.
                let place = format!(r"{}\{}\wcp.dll", self.path, component.directory);
                let node = self.fs.lookup(component.node, "wcp.dll");
                let node = self.unseen.seen("a servicing stack", &place, Weight::Partial, node).flatten()?;
                let bytes = read_file(&*self.fs, node, "");
                let bytes = self.unseen.seen("a servicing stack", &place, Weight::Partial, bytes)?;
                base_manifest(&bytes).map(<[u8]>::to_vec)
            })
        };
        self.base.get_or_init(find).as_deref()
    }

    /// SHA-256 of the base that packed manifests are packed against, when there is one.
    pub fn base_sha256(&self) -> Option<[u8; 32]> {
        self.base().map(|base| Sha256::digest(base).into())
    }

    /// The text of a component's manifest, and how it was come by.
    fn manifest_text(&self, component: &Component) -> Result<(ManifestState, Vec<u8>)> {
        let nothing = |state| Ok((state, Vec::new()));
        let Some(folder) = self.manifests else { return nothing(ManifestState::Missing) };
        let Some(node) = self.fs.lookup(folder, &format!("{}.manifest", component.directory))? else {
            return nothing(ManifestState::Missing);
        };
        if self.fs.metadata(node)?.size_bytes > MAX_MANIFEST_BYTES {
            return nothing(ManifestState::Unreadable);
        }
        let bytes = read_file(&*self.fs, node, "")?;
        match manifest::state_of(&bytes) {
            ManifestState::Read => Ok((ManifestState::Read, bytes)),
            ManifestState::Compressed => Ok(self.unpacked(component, &bytes)),
            state => nothing(state),
        }
    }

    fn unpacked(&self, component: &Component, bytes: &[u8]) -> (ManifestState, Vec<u8>) {
        let text = self.base().and_then(|base| {
            // Why one packed manifest cannot be read makes no difference: its hashes are not known.
            vmrescue_payload::decode(bytes, Some(base), MAX_MANIFEST_BYTES).ok()
        });
        let proves = |text: &[u8]| {
            Identity::of_manifest(text)
                .is_some_and(|own| own.key_form().eq_ignore_ascii_case(&component.directory))
        };
        match text {
            Some(text) if proves(&text.data) => (ManifestState::Unpacked, text.data),
            _ => (ManifestState::Compressed, Vec::new()),
        }
    }

    /// The manifest of a component: its state, and the hash that it has for a file.
    fn manifest_of(&self, component: &Component, file: &str) -> Result<(ManifestState, Option<[u8; 32]>)> {
        let (state, text) = self.manifest_text(component)?;
        Ok((state, manifest::sha256_of(&text, file)))
    }

    /// The file of a component, and its deltas. With `deep` the whole file is read, parsed and held against the manifest.
    fn files_of(&self, index: usize, file: &str, deep: bool, list: &mut Vec<StoreFile>) -> Result<()> {
        let component = &self.components[index];
        let winner =
            self.winner_of(&component.name).is_some_and(|(version, _)| version == component.name.version);
        let mut blank = StoreFile {
            component: component.directory.clone(),
            component_version: component.name.version,
            path: String::new(),
            node: NodeId(0),
            size: 0,
            payload: "other",
            winner,
            pe: None,
            problem: None,
            manifest: ManifestState::Missing,
            expected_sha256: None,
            hash_fits: None,
        };
        if let Some(node) = self.fs.lookup(component.node, file)? {
            let (manifest, expected) = self.manifest_of(component, file)?;
            blank.manifest = manifest;
            let mut found = StoreFile {
                path: format!(r"{}\{}\{file}", self.path, component.directory),
                node,
                size: self.fs.metadata(node)?.size_bytes,
                expected_sha256: expected.map(|hash| hex(&hash)),
                ..blank.clone()
            };
            if deep {
                match read_file(&*self.fs, node, "") {
                    Ok(bytes) => self.look_at(&mut found, &bytes, expected),
                    Err(e) => found.problem = Some(e.message().to_string()),
                }
            } else {
                let mut head = [0; 8];
                let length = self.fs.read(node, "", 0, &mut head)?;
                describe_payload(&mut found, &head[..length]);
            }
            list.push(found);
        }
        for (folder, words) in DELTAS {
            let Some(directory) = self.fs.lookup(component.node, folder)? else { continue };
            // A delta's name may be a directory of the component's own, in another culture.
            let Some(node) = self.fs.lookup(directory, file).ok().flatten() else { continue };
            list.push(StoreFile {
                path: format!(r"{}\{}\{folder}\{file}", self.path, component.directory),
                node,
                size: self.fs.metadata(node)?.size_bytes,
                payload: "PA30",
                problem: Some(format!("{words}: not the file itself")),
                ..blank.clone()
            });
        }
        Ok(())
    }

    fn look_at(&self, found: &mut StoreFile, bytes: &[u8], expected: Option<[u8; 32]>) {
        describe_payload(found, bytes);
        if found.problem.is_none() {
            match PeInfo::parse(bytes) {
                Ok(pe) => found.pe = Some(pe),
                Err(e) => found.problem = Some(e.message().to_string()),
            }
        }
        if found.payload == "pe" || found.payload == "other" {
            found.hash_fits = expected.map(|expected| Sha256::digest(bytes).as_slice() == expected);
        }
        if found.hash_fits == Some(false) && found.problem.is_none() {
            found.problem = Some("its SHA-256 is not the one of the component's manifest".into());
        }
    }

    /// The version that wins in the family of a component, and who says so.
    fn winner_of(&self, name: &ComponentName) -> Option<([u32; 4], WinnerSource)> {
        let family = name.family();
        self.winners.of(&family, name.version, &self.unseen).or_else(|| {
            let highest =
                self.families.get(&family)?.iter().map(|i| self.components[*i].name.version).max()?;
            Some((highest, WinnerSource::Highest))
        })
    }

    /// All copies of the file `name` in the store, the winner first, then older components, then newer ones.
    ///
    /// # Errors
    /// Of the file system.
    pub fn files_named(&mut self, name: &str) -> Result<Vec<StoreFile>> {
        self.look_for(&[name.to_string()])?;
        let mut list = Vec::new();
        for index in self.named.get(&name.to_lowercase()).cloned().unwrap_or_default() {
            self.files_of(index, name, true, &mut list)?;
        }
        sort(&mut list);
        Ok(list)
    }

    /// What the store says of the file `name` that lies outside of it as `node` (`None` when it is missing there). `sha256` is the
    /// hash of its content, where it was computed. Files that are not linked are found after [`Store::look_for`]. With `deep` the
    /// copies are read whole.
    ///
    /// # Errors
    /// Of the file system.
    pub fn origin(
        &self,
        node: Option<NodeId>,
        name: &str,
        sha256: Option<[u8; 32]>,
        deep: bool,
    ) -> Result<Origin> {
        let linked = match node {
            Some(node) => self.linked(node)?,
            None => Vec::new(),
        };
        let mut indices: Vec<usize> = match linked.first() {
            Some(first) => {
                self.families.get(&self.components[*first].name.family()).cloned().unwrap_or_default()
            }
            None => self.named.get(&name.to_lowercase()).cloned().unwrap_or_default(),
        };
        indices.dedup();
        let mut versions = Vec::new();
        for index in &indices {
            self.files_of(*index, name, deep, &mut versions)?;
        }
        sort(&mut versions);
        let mut tie = if linked.is_empty() { Tie::Differs } else { Tie::HardLink };
        let mut own = linked.first().copied();
        if own.is_none() {
            // A file of its own may still have the content that a manifest or a copy has.
            let same = |file: &&StoreFile| {
                sha256.is_some_and(|hash| {
                    file.expected_sha256 == Some(hex(&hash)) || self.has_content(file, &hash)
                })
            };
            match versions.iter().find(same) {
                Some(found) => {
                    tie = Tie::SameContent;
                    own = indices.iter().copied().find(|i| self.components[*i].directory == found.component);
                }
                None if versions.is_empty() => tie = Tie::NotInStore,
                None => {}
            }
        }
        let named = own.or_else(|| {
            let best = versions.first()?;
            indices.iter().copied().find(|i| self.components[*i].directory == best.component)
        });
        let component = named.map(|index| &self.components[index]);
        let winner = component.and_then(|component| self.winner_of(&component.name));
        let (manifest, expected) = match component {
            Some(component) => self.manifest_of(component, name)?,
            None => (ManifestState::Missing, None),
        };
        Ok(Origin {
            tie,
            component: component.map(|component| component.directory.clone()),
            version: component.map(|component| component.name.version_text()),
            winner: winner.map(|(version, _)| version_text(version)),
            winner_by: winner.map(|(_, source)| source),
            is_winner: own
                .zip(winner)
                .map(|(index, (version, _))| self.components[index].name.version == version),
            manifest,
            expected_sha256: expected.map(|hash| hex(&hash)),
            hash_fits: sha256.filter(|_| own.is_some()).zip(expected).map(|(is, wanted)| is == wanted),
            versions,
        })
    }

    /// The component that wins where `origin` looked, how its manifest was read, and the SHA-256 that it names for the file.
    #[allow(clippy::type_complexity, reason = "three facts of one lookup")]
    pub(super) fn winner_file(
        &self,
        origin: &Origin,
        file: &str,
    ) -> Result<(Option<String>, ManifestState, Option<[u8; 32]>)> {
        let name = origin.component.as_deref().and_then(ComponentName::parse);
        let winner = name.and_then(|name| {
            let (version, _) = self.winner_of(&name)?;
            let family = self.families.get(&name.family())?;
            family.iter().map(|index| &self.components[*index]).find(|own| own.name.version == version)
        });
        match winner {
            Some(component) => {
                let (state, hash) = self.manifest_of(component, file)?;
                Ok((Some(component.directory.clone()), state, hash))
            }
            None => Ok((origin.component.clone(), ManifestState::Missing, None)),
        }
    }

    /// Where a component keeps a file: the path, the node if it is there, and whether the component has a folder.
    pub(super) fn place_of(&self, component: &str, file: &str) -> Result<(String, Option<NodeId>, bool)> {
        let path = format!(r"{}\{component}\{file}", self.path);
        let own = self.components.iter().find(|own| own.directory.eq_ignore_ascii_case(component));
        let node = own.map(|own| self.fs.lookup(own.node, file)).transpose()?.flatten();
        Ok((path, node, own.is_some()))
    }

    /// SHA-256 of the text of a component's manifest, and what the registry has for it, or why that cannot be read.
    pub(super) fn manifest_hashes(
        &self,
        component: &str,
    ) -> Result<(Option<String>, Result<Option<String>>)> {
        let own = self.components.iter().find(|own| own.directory.eq_ignore_ascii_case(component));
        let Some(own) = own else { return Ok((None, Ok(None))) };
        let (state, text) = self.manifest_text(own)?;
        let known = matches!(state, ManifestState::Read | ManifestState::Unpacked);
        let is = known.then(|| hex(&Sha256::digest(&text)));
        Ok((is, self.winners.manifest_sha256(component).map(|hash| hash.map(|hash| hex(&hash)))))
    }

    fn has_content(&self, file: &StoreFile, sha256: &[u8; 32]) -> bool {
        file.payload == "pe"
            && read_file(&*self.fs, file.node, "")
                .is_ok_and(|bytes| Sha256::digest(bytes).as_slice() == sha256)
    }
}

fn describe_payload(found: &mut StoreFile, head: &[u8]) {
    if let Some((payload, words)) = packing(head) {
        found.payload = payload;
        found.problem = Some(format!("{words} ({payload}): not the file itself"));
    } else if head.starts_with(b"MZ") {
        found.payload = "pe";
    }
}

/// The winner, then what was before it, then what is only staged.
fn sort(list: &mut [StoreFile]) {
    let winner = list.iter().filter(|file| file.winner).map(|file| file.component_version).max();
    let staged = |file: &StoreFile| winner.is_some_and(|winner| file.component_version > winner);
    list.sort_by_key(|file| (!file.winner, staged(file), std::cmp::Reverse(file.component_version)));
}

/// All copies of the file `name` in the store, the winner first, then older components, then newer ones.
///
/// # Errors
/// Of the file system.
pub fn store_versions(machine: &Machine, installation: &Installation, name: &str) -> Result<Vec<StoreFile>> {
    Store::open(machine, installation)?.files_named(name)
}
