//! Is a system file what the installed build expects: by the SHA-256 of its component's manifest, by its Authenticode hash against the embedded
//! signature and the guest's catalogs.
//!
//! Two proofs: the manifest covers every byte; a catalog covers a program file without checksum and certificate table. What none of them can
//! tell is said. Missing: the mathematics of signatures and the chain to a root (nothing here says "verified"), page hashes.

use super::authenticode::{PeHashes, Signature, embedded_signature, pe_hashes};
use super::catalog;
use super::component_store::{Candidate, ManifestState, Origin, Store, Tie, Tried, WinnerSource};
use super::machine::{Installation, Machine};
use super::pe::{Payload, PeInfo, payload_kind};
use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use vmrescue_base::bytes::is_zero;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::{MAX_DIRECTORY_DEPTH, MAX_PAYLOAD_BYTES};
use vmrescue_base::text::hex;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystem, NodeId, NodeName, read_file};

/// How a file stands to what the build expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// It has the hash that the manifest of the winning component names.
    Exact,
    /// Whole, and vouched for, but of another version than the one that wins.
    OtherVersion,
    /// Nobody vouches for it.
    Unsigned,
    /// Missing, unreadable, or changed since it was hashed or signed.
    Broken,
    /// Nothing here can tell.
    Unknown,
}

impl FileState {
    /// The word for tables.
    pub fn name(self) -> &'static str {
        match self {
            FileState::Exact => "exact",
            FileState::OtherVersion => "other version",
            FileState::Unsigned => "unsigned",
            FileState::Broken => "BROKEN",
            FileState::Unknown => "unknown",
        }
    }
}

/// What is known of one file.
#[derive(Debug, Clone, Serialize)]
pub struct ExactFile {
    /// Path in the guest.
    pub path: String,
    /// How it stands.
    pub state: FileState,
    /// Why: which proof held, or what is wrong.
    pub why: String,
    /// Bytes; `None` when it is not there.
    pub size: Option<u64>,
    /// SHA-256 of all of it.
    pub sha256: Option<String>,
    /// SHA-256 that the manifest of the winning component names.
    pub expected_sha256: Option<String>,
    /// Directory of the component in the store.
    pub component: Option<String>,
    /// The version that wins, and who says so.
    pub winner: Option<String>,
    /// Who says so.
    pub winner_by: Option<&'static str>,
    /// How the file is tied to the store.
    pub tie: Option<Tie>,
    /// How the manifest was read.
    pub manifest: ManifestState,
    /// Authenticode hash with SHA-1, of a program file.
    pub authenticode_sha1: Option<String>,
    /// Authenticode hash with SHA-256, of a program file.
    pub authenticode_sha256: Option<String>,
    /// Who vouches for it; the signature itself was not verified.
    pub signature: Signature,
    /// The expected hash as bytes.
    #[serde(skip)]
    pub expected: Option<[u8; 32]>,
    /// The component of another version whose file it is, exactly.
    pub exact_as: Option<String>,
    #[serde(skip)]
    wanted: Vec<Vec<u8>>,
    #[serde(skip)]
    problem: Option<String>,
    #[serde(skip)]
    is_program: bool,
    #[serde(skip)]
    fits: Option<bool>,
}

/// What was found of several files.
#[derive(Debug, Clone, Serialize)]
pub struct ExactReport {
    /// The files, in the order that was asked for.
    pub files: Vec<ExactFile>,
    /// Catalogs that were looked into.
    pub catalogs_read: usize,
    /// Catalogs that could not be read.
    pub catalogs_unreadable: Vec<String>,
    /// Files that only a catalog beside the catalog store names: the store lost it.
    pub catalogs_lost: Vec<String>,
    /// SHA-256 of the base that packed manifests are read with.
    pub base_manifest_sha256: Option<String>,
    /// What must be known when this is read.
    pub notes: Vec<String>,
}

/// All that can be told of one file.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// How it stands.
    #[serde(flatten)]
    pub file: ExactFile,
    /// All its names.
    pub names: Vec<String>,
    /// What the component store says, with all versions.
    pub origin: Option<Origin>,
    /// SHA-256 of the manifest's text.
    pub manifest_sha256: Option<String>,
    /// What the registry says that it is (`S256H` in COMPONENTS).
    pub manifest_registered: Option<String>,
    /// Where the expected bytes can come from; `None` when nowhere, or when nothing is expected.
    pub source: Option<String>,
    /// What else was tried for them.
    pub tried: Vec<Tried>,
    /// What could not be known.
    pub unknown: Vec<String>,
}

/// The base manifest that is the same in all builds that were seen.
const KNOWN_BASE: &str = "0ad8f100f1c56f4a1aad990defade9191f7d5be929b930a04160ebbf99cd6b46";
const NOT_VERIFIED: &str =
    "signatures were read, not verified: a catalog or a signer's name alone proves nothing";

/// Looks at files of an installation, by their guest paths.
///
/// # Errors
/// Of the file system's directories; a file that cannot be read is broken.
pub fn exact_files(machine: &Machine, installation: &Installation, paths: &[String]) -> Result<ExactReport> {
    let mut store = Store::open(machine, installation)?;
    let mut files = Vec::new();
    let mut unlinked = Vec::new();
    let mut nodes = Vec::new();
    for path in paths {
        let (volume, node) = machine.resolve(&GuestPath::parse(path)?)?;
        let is_linked = match node {
            Some(node) if volume == installation.volume => store.is_linked(node)?,
            _ => false,
        };
        if !is_linked {
            unlinked.push(name_of(path).to_string());
        }
        nodes.push((volume, node));
    }
    store.look_for(&unlinked)?;
    for (path, (volume, node)) in paths.iter().zip(nodes) {
        let fs = machine.file_system(volume)?;
        let node_here = node.filter(|_| volume == installation.volume);
        files.push(look(&*fs, node, node_here, path, &store)?.0);
    }
    let found = in_catalogs(machine, installation, &mut files)?;
    files.iter_mut().for_each(judge);
    Ok(report(files, found, &store))
}

fn report(files: Vec<ExactFile>, found: catalog::Found, store: &Store) -> ExactReport {
    let base = store.base_sha256().map(|hash| hex(&hash));
    let mut notes = vec![NOT_VERIFIED.to_string()];
    match &base {
        Some(base) if base != KNOWN_BASE => {
            notes.push(format!("the base of packed manifests in wcp.dll is another one than in the builds that were seen: {base}"));
        }
        _ => {}
    }
    let lost = files
        .iter()
        .filter(
            |file| matches!(&file.signature, Signature::Catalog { catalog, .. } if catalog.contains('\\')),
        )
        .map(|file| file.path.clone())
        .collect();
    ExactReport {
        files,
        catalogs_read: found.read,
        catalogs_unreadable: found.unreadable,
        catalogs_lost: lost,
        base_manifest_sha256: base,
        notes,
    }
}

/// Everything about one file, with the ways to its expected bytes when it does not have them.
///
/// # Errors
/// As [`exact_files`].
pub fn explain_file(machine: &Machine, installation: &Installation, path: &str) -> Result<Explained> {
    let mut store = Store::open(machine, installation)?;
    let (volume, node) = machine.resolve(&GuestPath::parse(path)?)?;
    let fs = machine.file_system(volume)?;
    store.look_for(&[name_of(path).to_string()])?;
    let node_here = node.filter(|_| volume == installation.volume);
    let (file, origin) = look(&*fs, node, node_here, path, &store)?;
    let mut files = [file];
    let found = in_catalogs(machine, installation, &mut files)?;
    files.iter_mut().for_each(judge);
    let [file] = files;
    let mut unknown = vec![NOT_VERIFIED.to_string()];
    if found.read == 0 {
        unknown.push("the guest has no catalogs that could be read".into());
    }
    unknown.extend(found.unreadable.iter().map(|name| format!("the catalog {name} cannot be read")));
    let (manifest_sha256, manifest_registered) = match &file.component {
        Some(component) => store.manifest_hashes(component)?,
        None => (None, Ok(None)),
    };
    let (manifest_registered, unconfirmed) = match manifest_registered {
        Ok(said) => (said, None),
        Err(e) => (None, Some(e)),
    };
    let mut file = file;
    match (&manifest_sha256, &manifest_registered) {
        (Some(is), Some(said)) if is != said => {
            if matches!(file.state, FileState::Exact | FileState::OtherVersion) {
                file.state = FileState::Unknown;
            }
            file.expected = None;
            unknown
                .push("the manifest is not the one that the registry knows: its hashes prove nothing".into());
        }
        (Some(_), None) => unknown.push(match unconfirmed {
            Some(e) => format!("whether the manifest is the one that the registry knows: {e}"),
            None => "the registry (COMPONENTS) has no hash for the manifest".into(),
        }),
        _ => {}
    }
    if file.expected_sha256.is_none() {
        unknown.push(format!("which bytes are expected: the manifest is {}", file.manifest.text()));
    }
    let (mut source, mut tried) = (None, Vec::new());
    if file.state != FileState::Exact
        && let (Some(component), Some(expected)) = (&file.component, file.expected)
    {
        let (made, failed) = store.make(component, name_of(path), expected, &[])?;
        source = made.map(|made| made.from);
        tried = failed;
    }
    let names = match node {
        Some(node) => names_of(&*fs, node, path)?,
        None => Vec::new(),
    };
    Ok(Explained { file, names, origin, manifest_sha256, manifest_registered, source, tried, unknown })
}

/// What it takes to put a file back: what it must be, and where the store keeps it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// How the file stands now.
    pub file: ExactFile,
    /// Its node now.
    pub node: Option<NodeId>,
    /// Directory of the component that wins.
    pub component: String,
    /// SHA-256 that its manifest names.
    pub expected: [u8; 32],
    /// The file's own place in the store, and its node, if it is there.
    pub store_path: String,
    /// The node there.
    pub store_node: Option<NodeId>,
    /// The store has a folder for the component.
    pub has_folder: bool,
    /// A file of the same name in another version of the component: what security a new one gets.
    pub sibling: Option<String>,
    /// Why the registry could not be asked whether the manifest is the one that it knows.
    pub unconfirmed: Option<String>,
}

/// What a file of the installation's own volume must be.
///
/// # Errors
/// `NotFound` when nothing tells which bytes are expected, with the reason; of the file system.
pub fn wanted_file(machine: &Machine, installation: &Installation, path: &str) -> Result<Wanted> {
    let (volume, node) = machine.resolve(&GuestPath::parse(path)?)?;
    if volume != installation.volume {
        return Err(Error::refused(Layer::Windows, "the file is not on the volume of this Windows")
            .found(path)
            .advice("files of the system partition are put back by the script rebuild-boot, which never takes an older boot manager"));
    }
    let mut store = Store::open(machine, installation)?;
    let name = name_of(path);
    store.look_for(&[name.to_string()])?;
    let fs = machine.file_system(volume)?;
    let (mut file, origin) = look(&*fs, node, node, path, &store)?;
    judge(&mut file);
    let not_known = |why: String| {
        Error::not_found(Layer::Windows, format!("which bytes {path} should have is not known"))
            .found(why)
            .advice("the script restore-driver takes a healthy copy of some version")
    };
    let Some(component) = file.component.clone() else {
        return Err(not_known("no component of the store has such a file".into()));
    };
    let Some(expected) = file.expected else {
        return Err(not_known(format!("the manifest of {component} is {}", file.manifest.text())));
    };
    let unconfirmed = match store.manifest_hashes(&component)? {
        (Some(is), Ok(Some(said))) if is != said => {
            return Err(not_known(format!(
                "the manifest of {component} is not the one that the registry knows"
            )));
        }
        (_, Ok(_)) => None,
        (_, Err(e)) => Some(e.to_string()),
    };
    let (store_path, store_node, has_folder) = store.place_of(&component, name)?;
    let versions = origin.map(|origin| origin.versions).unwrap_or_default();
    let sibling = versions.into_iter().map(|version| version.path).find(|path| *path != store_path);
    Ok(Wanted { file, node, component, expected, store_path, store_node, has_folder, sibling, unconfirmed })
}

/// The bytes of a file out of the store of an installation, which may be another one than the file's own; and what was tried. `deltas` are
/// forward deltas from elsewhere.
///
/// # Errors
/// Of the file system's lists of the store.
pub fn make_file(
    machine: &Machine,
    installation: &Installation,
    component: &str,
    name: &str,
    expected: [u8; 32],
    deltas: &[(String, Vec<u8>)],
) -> Result<(Option<Candidate>, Vec<Tried>)> {
    Store::open(machine, installation)?.make(component, name, expected, deltas)
}

fn name_of(path: &str) -> &str {
    path.rsplit('\\').next().unwrap_or(path)
}

/// Reads and hashes a file. `node_here` is its node when it lies on the volume of the store.
fn look(
    fs: &dyn FileSystem,
    node: Option<NodeId>,
    node_here: Option<NodeId>,
    path: &str,
    store: &Store,
) -> Result<(ExactFile, Option<Origin>)> {
    let mut file = ExactFile {
        path: path.into(),
        state: FileState::Unknown,
        why: String::new(),
        size: None,
        sha256: None,
        expected_sha256: None,
        component: None,
        winner: None,
        winner_by: None,
        tie: None,
        manifest: ManifestState::Missing,
        authenticode_sha1: None,
        authenticode_sha256: None,
        signature: Signature::NotLooked,
        expected: None,
        exact_as: None,
        wanted: Vec::new(),
        problem: None,
        is_program: false,
        fits: None,
    };
    let mut sha256 = None;
    match node {
        None => file.problem = Some("the file is missing".into()),
        Some(node) => match read_whole(fs, node) {
            Err(e) => file.problem = Some(e.to_string()),
            Ok(bytes) => {
                let hash: [u8; 32] = Sha256::digest(&bytes).into();
                sha256 = Some(hash);
                file.size = Some(bytes.len() as u64);
                file.sha256 = Some(hex(&hash));
                hashes(&mut file, &bytes, &hash);
            }
        },
    }
    let origin = store.origin(node_here, name_of(path), sha256, false)?;
    // What is tied to another version than the winner's is held against the winner.
    if origin.is_winner == Some(false) && origin.hash_fits == Some(true) {
        file.exact_as.clone_from(&origin.component);
    }
    (file.component, file.manifest, file.expected) = store.winner_file(&origin, name_of(path))?;
    file.expected_sha256 = file.expected.map(|hash| hex(&hash));
    file.fits = file.expected.zip(sha256).map(|(wanted, is)| wanted == is);
    file.winner.clone_from(&origin.winner);
    file.winner_by = origin.winner_by.map(WinnerSource::name);
    file.tie = Some(origin.tie);
    Ok((file, Some(origin)))
}

fn read_whole(fs: &dyn FileSystem, node: NodeId) -> Result<Vec<u8>> {
    let size = fs.metadata(node)?.size_bytes;
    if size > MAX_PAYLOAD_BYTES {
        return Err(
            Error::limit(Layer::Windows, "the file is too large to be held against a hash").found(size)
        );
    }
    read_file(fs, node, "")
}

fn hashes(file: &mut ExactFile, bytes: &[u8], sha256: &[u8; 32]) {
    file.is_program = payload_kind(bytes) == Payload::Pe || is_program_name(&file.path);
    if file.is_program {
        match PeInfo::parse(bytes) {
            Ok(pe) if !pe.checksum_right => file.problem = Some("its checksum is wrong".into()),
            Ok(_) => {}
            Err(e) => file.problem = Some(e.message().to_string()),
        }
        if let Some(found) = pe_hashes(bytes) {
            file.wanted = vec![found.sha256.to_vec(), found.sha1.to_vec()];
            embedded(file, bytes, &found);
        }
    } else {
        if !bytes.is_empty() && is_zero(bytes) {
            file.problem = Some("the file is filled with zeros".into());
        }
        file.wanted = vec![sha256.to_vec(), Sha1::digest(bytes).to_vec()];
    }
}

fn embedded(file: &mut ExactFile, bytes: &[u8], found: &PeHashes) {
    file.authenticode_sha1 = Some(hex(&found.sha1));
    file.authenticode_sha256 = Some(hex(&found.sha256));
    if let Some(signature) = embedded_signature(bytes, found) {
        file.signature = signature;
    }
}

fn is_program_name(path: &str) -> bool {
    let name = name_of(path).to_ascii_lowercase();
    [".sys", ".exe", ".dll", ".efi"].iter().any(|end| name.ends_with(end))
}

fn in_catalogs(
    machine: &Machine,
    installation: &Installation,
    files: &mut [ExactFile],
) -> Result<catalog::Found> {
    let wanted: BTreeSet<Vec<u8>> = files.iter().flat_map(|file| file.wanted.iter().cloned()).collect();
    let found = catalog::find_everywhere(machine, installation, wanted)?;
    for file in files {
        let hit = file.wanted.iter().find_map(|hash| found.by_hash.get(hash));
        match (hit, &file.signature) {
            (_, Signature::Embedded { .. }) => {}
            (Some((catalog, signer)), _) => {
                file.signature = Signature::Catalog { catalog: catalog.clone(), signer: signer.clone() };
            }
            (None, Signature::NotLooked) => file.signature = Signature::Missing,
            (None, _) => {}
        }
    }
    Ok(found)
}

/// Which state it is, and why.
fn judge(file: &mut ExactFile) {
    let component = file.component.clone().unwrap_or_default();
    let is_signed = matches!(file.signature, Signature::Embedded { .. } | Signature::Catalog { .. });
    let is_changed = matches!(file.signature, Signature::Broken { .. });
    let signed = file.signature.text();
    let (state, why) = match (file.fits, &file.problem) {
        (Some(true), _) => {
            (FileState::Exact, format!("its SHA-256 is the one in the manifest of {component}"))
        }
        (_, Some(problem)) => (FileState::Broken, problem.clone()),
        (_, None) if file.exact_as.is_some() => {
            let own = file.exact_as.as_deref().unwrap_or_default();
            (FileState::OtherVersion, format!("it is exactly the file of {own}, but {component} wins"))
        }
        (_, None) if is_changed => (FileState::Broken, signed),
        (Some(false), None) if is_signed => {
            (FileState::OtherVersion, format!("{signed}, but not what the manifest of {component} names"))
        }
        (Some(false), None) if file.tie == Some(Tie::HardLink) => {
            let why = format!("nobody vouches for it, and the manifest of {component} names another SHA-256");
            (FileState::Broken, why)
        }
        (Some(false), None) => {
            (FileState::Unsigned, format!("nobody vouches for it; {component} has another file of this name"))
        }
        (None, None) if is_signed => {
            (FileState::Unknown, format!("{signed}; nothing here says which version is expected"))
        }
        (None, None) if file.is_program => {
            (FileState::Unsigned, "no signature in it, and no catalog names it".into())
        }
        (None, None) => (FileState::Unknown, "no manifest and no catalog names it".into()),
    };
    (file.state, file.why) = (state, why);
}

/// The names of a file without the 8.3 names that stand beside a long one.
///
/// # Errors
/// Of the file system.
pub fn links_of(fs: &dyn FileSystem, node: NodeId) -> Result<Vec<NodeName>> {
    let all = fs.names(node)?;
    let has_long = |directory| all.iter().any(|name| name.directory == directory && !name.short);
    Ok(all.iter().filter(|name| !name.short || !has_long(name.directory)).cloned().collect())
}

/// All long names of a file, as guest paths on the drive of `path`.
fn names_of(fs: &dyn FileSystem, node: NodeId, path: &str) -> Result<Vec<String>> {
    let drive = path.split('\\').next().unwrap_or_default();
    let mut found = Vec::new();
    for name in links_of(fs, node)? {
        let (mut at, mut parts) = (name.directory, vec![name.name]);
        for _ in 0..MAX_DIRECTORY_DEPTH {
            if at == fs.root() {
                break;
            }
            let Some(above) = links_of(fs, at)?.into_iter().next() else { break };
            parts.push(above.name);
            at = above.directory;
        }
        parts.push(drive.to_string());
        parts.reverse();
        found.push(parts.join("\\"));
    }
    found.sort();
    Ok(found)
}
