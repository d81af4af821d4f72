//! Where the state of an image lies, and whose state lies there.
//!
//! New state lies beside the image, `<image>.vmrescue`, or in `--state-dir` under that name. It says whose it is
//! (`image.json`), so that it is found, and not taken for another's, when names change:
//!
//! * the folder beside the file that every link leads to, and the folder that a pointer there names (`<image>.vmrescue.json`,
//!   which is left when the state lies elsewhere);
//! * the folder that an attribute of the file names (`user.vmrescue`): it is the same under every name of the file and after
//!   a move inside the file system;
//! * the folder of that name in `--state-dir`;
//! * where the file system keeps no attributes, every state folder beside the image and in `--state-dir`.
//!
//! The number of the file and the ids in it decide ([`super::identity`]). A folder that belongs to another image is left
//! alone; the next name (`<image>.2.vmrescue`) is taken instead.

use super::identity::{Identity, Kinship, Owner};
use super::place::{FilePlace, Place, read_small, write_durably};
use super::record::{self, OperationRecord};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_block::{Attribute, Disk, HostFile};

/// Name of the file that says whose state it is.
const OWNER: &str = "image.json";
/// Attribute of the image that names its state folder.
const ATTRIBUTE: &str = "user.vmrescue";
/// Most folders of one name: one for each image that ever lay there.
const MAX_FOLDERS: usize = 1000;

/// The state folder that a new image gets: beside it, or in `state_dir`.
pub fn state_dir_of(image: &Path, state_dir: Option<&Path>) -> PathBuf {
    let image = resolved(image);
    let parent = image.parent().unwrap_or(Path::new("/"));
    folder(state_dir.unwrap_or(parent), image.file_name().unwrap_or(image.as_os_str()), 1)
}

/// The file that a path leads to, without links, as far as it is there.
pub(super) fn resolved(path: &Path) -> PathBuf {
    // A path that leads nowhere, or to a device that has no such name, stays what it is.
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

fn folder(dir: &Path, name: &OsStr, number: usize) -> PathBuf {
    let mut name = name.to_os_string();
    if number > 1 {
        name.push(format!(".{number}"));
    }
    name.push(".vmrescue");
    dir.join(name)
}

fn pointer(image: &Path) -> PathBuf {
    let mut name = image.file_name().unwrap_or(image.as_os_str()).to_os_string();
    name.push(".vmrescue.json");
    image.with_file_name(name)
}

/// What a pointer and the attribute say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sign {
    /// The state folder.
    state: PathBuf,
    /// Whose it is.
    owner: Owner,
}

/// An image whose state is looked for.
pub(super) struct Subject {
    /// Without links.
    pub(super) path: PathBuf,
    host: Option<Arc<HostFile>>,
    identity: OnceCell<Identity>,
}

/// What was found.
pub(super) enum Located {
    /// The state of this image.
    Own(FilePlace),
    /// Nothing was ever done to it; here its state would lie.
    New(FilePlace),
    /// Where the image lies there was another one with an operation that was interrupted.
    Foreign {
        place: FilePlace,
        owner: Owner,
        operation: Box<OperationRecord>,
        /// Where the state of this image would lie.
        new: FilePlace,
    },
    /// Its state is kept in a folder that is not there now.
    Gone {
        folder: PathBuf,
        /// Where new state would lie.
        new: FilePlace,
    },
}

impl Subject {
    /// The image at `path`, open or not.
    pub(super) fn new(path: &Path, host: Option<Arc<HostFile>>) -> Subject {
        Subject { path: resolved(path), host, identity: OnceCell::new() }
    }

    /// The image at `path`, looked at without a lock. One that is gone can still have a history.
    pub(super) fn peek(path: &Path) -> Result<Subject> {
        match HostFile::peek(path) {
            Ok(host) => Ok(Subject::new(path, Some(Arc::new(host)))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Subject::new(path, None)),
            Err(e) => Err(e),
        }
    }

    /// Who the image is.
    pub(super) fn identity(&self) -> &Identity {
        self.identity.get_or_init(|| match &self.host {
            Some(host) => Identity::of(host, &Disk::new(Arc::clone(host) as Arc<_>)),
            None => Identity::default(),
        })
    }

    fn is_device(&self) -> bool {
        self.host.as_ref().is_some_and(|host| !host.is_file())
    }
}

fn owner_of(place: &FilePlace) -> Result<Option<Owner>> {
    // One that cannot be understood says nothing: then the name decides, as in version 0.1.
    Ok(read_small(place, OWNER)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// How a folder was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By its name, beside the image.
    Beside,
    /// By a pointer or the attribute, or by its name in `--state-dir`.
    Elsewhere,
    /// By looking at all folders.
    Any,
}

struct Search<'a> {
    subject: &'a Subject,
    foreign: Option<(FilePlace, Owner, OperationRecord)>,
}

impl Search<'_> {
    /// The folder, when it is the image's.
    fn own(&mut self, dir: &Path, way: Way) -> Result<Option<FilePlace>> {
        let place = FilePlace::at(dir.to_path_buf());
        let Some(owner) = owner_of(&place)? else {
            // Made by version 0.1, which went by the name.
            return Ok((way != Way::Any).then_some(place));
        };
        if self.subject.host.is_none() {
            // There is nothing to compare: the path is all that is left of the image.
            return Ok((owner.path == self.subject.path).then_some(place));
        }
        let same_path = owner.path == self.subject.path;
        match (owner.kinship(self.subject.identity()), way) {
            (Kinship::SameFile, _) => return Ok(Some(place)),
            (Kinship::Perhaps, Way::Beside) => return Ok(Some(place)),
            (Kinship::Perhaps, Way::Elsewhere) if same_path => return Ok(Some(place)),
            _ => {}
        }
        if same_path
            && way != Way::Any
            && self.foreign.is_none()
            && let Some(operation) = record::unfinished(&place)?
        {
            self.foreign = Some((place, owner, operation));
        }
        Ok(None)
    }

    /// The image's among the folders of its name in `dir`, or the first name that is free.
    fn named(&mut self, dir: &Path, way: Way) -> Result<std::result::Result<FilePlace, PathBuf>> {
        let name: OsString = self.subject.path.file_name().unwrap_or(self.subject.path.as_os_str()).into();
        for number in 1..=MAX_FOLDERS {
            let folder = folder(dir, &name, number);
            if !folder.is_dir() {
                return Ok(Err(folder));
            }
            if let Some(place) = self.own(&folder, way)? {
                return Ok(Ok(place));
            }
        }
        Err(Error::limit(Layer::Transaction, "too many state folders of one name").in_file(dir))
    }

    /// The folder that a sign names.
    fn signed(&mut self, sign: Option<&Sign>) -> Result<Option<FilePlace>> {
        match sign {
            Some(sign) if sign.state.is_dir() => self.own(&sign.state, Way::Elsewhere),
            _ => Ok(None),
        }
    }

    /// The image's among all state folders of `dir`.
    fn any(&mut self, dir: &Path) -> Result<Option<FilePlace>> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("state folders cannot be looked for", dir, e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| Error::io("state folders cannot be looked for", dir, e))?.path();
            if path.extension() == Some(OsStr::new("vmrescue"))
                && path.is_dir()
                && let Some(place) = self.own(&path, Way::Any)?
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

/// The pointer beside the image.
fn pointed(subject: &Subject) -> Result<Option<Sign>> {
    let path = pointer(&subject.path);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            Error::damaged(Layer::Transaction, "the pointer to the state of the image cannot be understood")
                .in_file(&path)
                .caused_by(e)
                .advice("remove it when the state folder is not needed any more; name the folder with --state-dir")
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot be read", &path, e)),
    }
}

/// What the attribute of the image says, and whether the file system keeps attributes. On a copy it speaks of the original:
/// then it says nothing.
fn attributed(subject: &Subject) -> (Option<Sign>, bool) {
    let Some(host) = &subject.host else { return (None, true) };
    match host.attribute(ATTRIBUTE) {
        Attribute::Unsupported => (None, false),
        Attribute::Absent => (None, true),
        Attribute::Set(bytes) => {
            let sign: Option<Sign> = serde_json::from_slice(&bytes).ok();
            let file = host.stamp().ok().and_then(|stamp| stamp.id).map(Into::into);
            (sign.filter(|sign| sign.owner.file == file), true)
        }
    }
}

/// Finds the state of an image.
///
/// # Errors
/// Of the host.
pub(super) fn locate(subject: &Subject, state_dir: Option<&Path>) -> Result<Located> {
    let state_dir = state_dir.map(resolved);
    let parent = subject.path.parent().unwrap_or(Path::new("/")).to_path_buf();
    let mut search = Search { subject, foreign: None };
    let mut new = None;
    // What lies beside a device is gone with the next start.
    if !subject.is_device() {
        match search.named(&parent, Way::Beside)? {
            Ok(own) => return Ok(Located::Own(own)),
            Err(free) => new = Some(free),
        }
    }
    let pointed = pointed(subject)?;
    let (attributed, has_attributes) = attributed(subject);
    for sign in [pointed.as_ref(), attributed.as_ref()] {
        if let Some(own) = search.signed(sign)? {
            return Ok(Located::Own(own));
        }
    }
    if let Some(dir) = &state_dir {
        match search.named(dir, Way::Elsewhere)? {
            Ok(own) => return Ok(Located::Own(own)),
            Err(free) => new = Some(free),
        }
    }
    if !has_attributes || subject.is_device() {
        let dirs = [(!subject.is_device()).then_some(&parent), state_dir.as_ref()];
        for dir in dirs.into_iter().flatten() {
            if let Some(own) = search.any(dir)? {
                return Ok(Located::Own(own));
            }
        }
    }
    let new = FilePlace::at(new.unwrap_or_else(|| state_dir_of(&subject.path, None)));
    if let Some((place, owner, operation)) = search.foreign {
        return Ok(Located::Foreign { place, owner, operation: Box::new(operation), new });
    }
    // A folder that somebody removed is gone for good; one whose whole place is missing may come back.
    let is_missing = |sign: &&Sign| {
        !sign.state.exists()
            && !sign.state.parent().is_some_and(Path::is_dir)
            && sign.owner.kinship(subject.identity()) != Kinship::Other
    };
    if let Some(sign) = [pointed.as_ref(), attributed.as_ref()].into_iter().flatten().find(is_missing) {
        return Ok(Located::Gone { folder: sign.state.clone(), new });
    }
    Ok(Located::New(new))
}

/// Makes the folder of an image that has none, with its owner in it, under the first name that is free: two that are made at
/// the same time never become one.
fn establish(wanted: &FilePlace, path: &Path, owner: &[u8]) -> Result<FilePlace> {
    let dir = wanted.dir().parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or(path.as_os_str());
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.new", vmrescue_base::guid::Guid::random()));
    let making = FilePlace::at(dir.join(hidden));
    let made = write_owner(&making, owner).and_then(|()| {
        for number in 1..=MAX_FOLDERS {
            let target = folder(dir, name, number);
            if making.move_to(&target)? {
                return Ok(FilePlace::at(target));
            }
        }
        Err(Error::limit(Layer::Transaction, "too many state folders of one name").in_file(dir))
    });
    made.inspect_err(|_| {
        // The error is what counts; what stays is a hidden folder with one small file.
        let _removed = std::fs::remove_dir_all(making.dir());
    })
}

fn write_owner(place: &FilePlace, owner: &[u8]) -> Result<()> {
    place.write(OWNER, &mut |out| {
        out.write_all(owner).map_err(|e| Error::io("the state cannot be written", OWNER, e))
    })
}

/// Says durably whose state it is, and beside the image where it lies. `after` are the ids that the image is about to get.
/// A folder that is not there yet is made; the answer is the one that was taken.
///
/// # Errors
/// Of the host.
pub(super) fn claim(
    wanted: &FilePlace,
    is_new: bool,
    path: &Path,
    host: &HostFile,
    before: &Identity,
    after: &Identity,
) -> Result<FilePlace> {
    // A folder that appeared since is another image's.
    let known = if is_new { None } else { owner_of(wanted)? };
    let mut owner = known.clone().unwrap_or_default();
    let mut news = owner.learn(path, before);
    news |= owner.learn(path, &Identity { file: before.file, ..after.clone() });
    let place = if is_new {
        establish(wanted, path, &json(&owner)?)?
    } else {
        if news || known.is_none() {
            write_owner(wanted, &json(&owner)?)?;
        }
        wanted.clone()
    };
    if !host.is_file() {
        return Ok(place);
    }
    let sign = Sign { state: place.dir().to_path_buf(), owner };
    let text = json(&sign)?;
    if ![Attribute::Unsupported, Attribute::Set(text.clone())].contains(&host.attribute(ATTRIBUTE)) {
        // Without it links and new names are found by looking at all state folders.
        let _set = host.set_attribute(ATTRIBUTE, Some(&text));
    }
    if place.dir().parent() != path.parent() {
        let pointer = pointer(path);
        if std::fs::read(&pointer).ok().as_ref() != Some(&text) {
            // The folder of the image may not be ours to write; the attribute says the same.
            let _written = write_durably(&pointer, &text);
        }
    }
    Ok(place)
}

/// Takes the signs away that lead to a folder that is gone.
///
/// # Errors
/// Of the host.
pub(super) fn forget_signs(path: &Path, host: &HostFile) -> Result<()> {
    if matches!(host.attribute(ATTRIBUTE), Attribute::Set(_)) {
        host.set_attribute(ATTRIBUTE, None);
    }
    let pointer = pointer(path);
    match std::fs::remove_file(&pointer) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("cannot be removed", &pointer, e))
        }
        _ => Ok(()),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value)
        .map_err(|e| Error::invalid(Layer::Transaction, "the state cannot be written").caused_by(e))
}

/// An error for an image whose state cannot be used as it is.
pub(super) fn refusal(located: &Located) -> Option<Error> {
    match located {
        Located::Own(_) | Located::New(_) => None,
        Located::Foreign { place, owner, operation, .. } => {
            let ids: Vec<&String> = owner.containers.iter().chain(&owner.disks).collect();
            Some(
                Error::refused(
                    Layer::Transaction,
                    "another image lay here when an operation was interrupted; this is not that image",
                )
                .expected(format!("{} on the image with {ids:?}", operation.words()))
                .in_file(place.dir())
                .advice(
                    "put the other image back and run `vmrescue recover IMAGE`, or give this image a history of its own: \
                     `vmrescue recover IMAGE --abandon`",
                ),
            )
        }
        Located::Gone { folder, .. } => Some(
            Error::refused(Layer::Transaction, "the folder with the history of this image is not there now")
                .in_file(folder)
                .advice(
                    "attach the disk that holds it, or begin a new history: `vmrescue recover IMAGE --abandon`",
                ),
        ),
    }
}
