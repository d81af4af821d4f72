//! What must hold after each kind of change, and what is remembered of the disk before it to know that.
//!
//! A change that a later one makes another thing of is not looked at: the later one is.

use super::change::{Change, Detail};
use super::verify::{disagreement, identity, paths};
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result, Severity};
use vmrescue_base::progress::Progress;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{Attributes, FileSystem, NodeId, NodeKind, resolve};
use vmrescue_windows::{Machine, hive_of};

/// The disk before anything was staged.
pub(super) struct Before {
    /// Defects of the volumes that are changed.
    pub(super) volumes: Vec<Defect>,
    /// Defects of the hives that are changed, by their guest path.
    pub(super) hives: BTreeMap<String, Vec<Defect>>,
    /// Where files lay that are renamed or linked to: number of the volume and of the file.
    nodes: BTreeMap<String, (usize, NodeId)>,
}

impl Before {
    /// Looks at everything that `changes` touch.
    ///
    /// # Errors
    /// `Refused` for a hive that is severely damaged, unless it is replaced as a whole first; of reading the disk.
    pub(super) fn of(machine: &Machine, changes: &[Change], progress: &dyn Progress) -> Result<Before> {
        let mut hives = BTreeMap::new();
        for (hive, replaced) in touched_hives(changes) {
            let found = if replaced { Vec::new() } else { hive_defects(machine, &hive)? };
            refuse_damaged_hive(&hive, &found)?;
            hives.insert(hive, found);
        }
        let mut nodes = BTreeMap::new();
        for path in changes.iter().filter_map(|change| match change {
            Change::FileRename { from, .. } => Some(from),
            Change::FileLink { target, .. } => Some(target),
            _ => None,
        }) {
            let (index, node) = machine.resolve(&GuestPath::parse(path)?)?;
            nodes.extend(node.map(|node| (path.clone(), (index, node))));
        }
        let volumes = super::verify::defects(machine, changes, progress)?;
        Ok(Before { volumes, hives, nodes })
    }
}

/// Hives that are edited, and whether the file was replaced by an earlier change.
pub(super) fn touched_hives(changes: &[Change]) -> BTreeMap<String, bool> {
    let (mut hives, mut written) = (BTreeMap::new(), BTreeSet::new());
    for change in changes {
        if let Change::FileWrite { path, .. } | Change::FileRename { to: path, .. } = change {
            written.insert(path.to_ascii_lowercase());
        }
        if let Some((hive, _)) = change.registry_key() {
            let replaced = written.contains(&hive.to_ascii_lowercase());
            hives.entry(hive.to_string()).or_insert(replaced);
        }
    }
    hives
}

/// What is wrong with a hive of the guest; nothing when it is not there.
pub(super) fn hive_defects(machine: &Machine, path: &str) -> Result<Vec<Defect>> {
    let parsed = GuestPath::parse(path)?;
    let Some((name, directory)) = parsed.components.split_last() else { return Ok(Vec::new()) };
    let fs = machine.file_system(machine.volume_of(&parsed.volume)?)?;
    let Some(directory) = resolve(&*fs, directory)? else { return Ok(Vec::new()) };
    match hive_of(&*fs, directory, name) {
        Ok(hive) => Ok(hive.check()),
        // An edit of it will say so.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e.in_file(path)),
    }
}

/// Nothing is built on a hive that Windows may refuse, or repair in its own way.
pub(super) fn refuse_damaged_hive(path: &str, defects: &[Defect]) -> Result<()> {
    match defects.iter().find(|defect| defect.severity == Severity::Error) {
        None => Ok(()),
        Some(bad) => {
            let text = format!("the hive is damaged: {} [{}]", bad.detail, bad.code);
            let refused = Error::refused(Layer::Hive, text).in_file(path).advice(
                "nothing was written; repair it first (`vmrescue check IMAGE --repair`), or restore it from a copy",
            );
            Err(bad.offset.into_iter().fold(refused, Error::at))
        }
    }
}

/// Keys by which defects are known again.
fn known(defects: &[Defect]) -> BTreeSet<String> {
    defects.iter().map(identity).collect()
}

/// The first defect that is worse than a note and was not there before.
pub(super) fn new_defect<'a>(before: &[Defect], after: &'a [Defect]) -> Option<&'a Defect> {
    let known = known(before);
    after.iter().find(|defect| defect.severity != Severity::Note && !known.contains(&identity(defect)))
}

/// A path that is compared without regard to case, inside its folder.
fn lies_in(path: &str, folder: &str) -> bool {
    path.len() > folder.len()
        && path.get(..folder.len()).is_some_and(|head| head.eq_ignore_ascii_case(folder))
        && path[folder.len()..].starts_with(['\\', ':'])
}

/// True when one of the `later` changes makes another thing of `path`, or of a folder that it lies in.
fn is_remade(path: &str, later: &[Change]) -> bool {
    later.iter().any(|change| match change {
        // They leave name and content as they are.
        Change::FileSecurity { .. } | Change::FileAccess { .. } | Change::FileDetails { .. } => false,
        Change::FileRename { from, to } => {
            [from, to].iter().any(|other| path.eq_ignore_ascii_case(other) || lies_in(path, other))
        }
        Change::FileDelete { path: other } => path.eq_ignore_ascii_case(other) || lies_in(path, other),
        other => paths(other).iter().any(|other| path.eq_ignore_ascii_case(other)),
    })
}

/// The file system of a path and its node.
fn node_of(machine: &Machine, path: &str) -> Result<(std::sync::Arc<dyn FileSystem>, usize, Option<NodeId>)> {
    let (index, node) = machine.resolve(&GuestPath::parse(path)?)?;
    Ok((machine.file_system(index)?, index, node))
}

/// Whether a file and, when the path names one, its stream is there.
fn is_there(machine: &Machine, path: &str) -> Result<bool> {
    let (fs, _, node) = node_of(machine, path)?;
    let stream = GuestPath::parse(path)?.stream;
    Ok(match node {
        Some(_) if stream.is_empty() => true,
        Some(node) => fs.streams(node)?.iter().any(|info| info.name.eq_ignore_ascii_case(&stream)),
        None => false,
    })
}

/// The postcondition of the change at `place` of `changes` on the staged disk; changes of the registry are checked
/// by the second reader of hives.
///
/// # Errors
/// `Disagreement` when it does not hold; of reading the disk.
pub(super) fn check(machine: &Machine, before: &Before, changes: &[Change], place: usize) -> Result<()> {
    let (change, later) = (&changes[place], &changes[place + 1..]);
    let holds = |holds: bool, what: &str, path: &str| {
        if holds { Ok(()) } else { Err(disagreement(what, path)) }
    };
    match change {
        Change::FileWrite { path, data, .. } if !is_remade(path, later) => {
            let (fs, _, node) = node_of(machine, path)?;
            let stream = GuestPath::parse(path)?.stream;
            let there = node.map(|node| data.is_in(&*fs, node, &stream)).transpose()?;
            holds(there == Some(true), "the file does not hold what was written", path)
        }
        Change::FileDelete { path } if !is_remade(path, later) => {
            holds(!is_there(machine, path)?, "what was deleted is still there", path)
        }
        Change::MakeDirectory { path } if !is_remade(path, later) => {
            let (fs, _, node) = node_of(machine, path)?;
            let kind = node.map(|node| fs.metadata(node)).transpose()?.map(|metadata| metadata.kind);
            holds(kind == Some(NodeKind::Directory), "the new directory is not there", path)
        }
        Change::FileRename { from, to } => {
            let same_name = from.eq_ignore_ascii_case(to);
            if !same_name && !is_remade(from, later) {
                holds(!is_there(machine, from)?, "the old name is still there", from)?;
            }
            if is_remade(to, later) {
                return Ok(());
            }
            let (fs, index, node) = node_of(machine, to)?;
            holds(node.is_some(), "the new name is not there", to)?;
            // What an earlier change made under the old name has no number of before.
            let earlier = changes[..place]
                .iter()
                .any(|other| paths(other).iter().any(|p| p.eq_ignore_ascii_case(from)));
            let was =
                before.nodes.get(from).filter(|_| !earlier && fs.info().kind.eq_ignore_ascii_case("ntfs"));
            let same = was.is_none_or(|was| Some(*was) == node.map(|node| (index, node)));
            holds(same, "the new name leads to another file", to)
        }
        Change::FileLink { path, target, .. } if !is_remade(path, later) && !is_remade(target, later) => {
            let ((_, index, node), (_, other, aim)) = (node_of(machine, path)?, node_of(machine, target)?);
            let same = node.is_some() && node == aim && index == other;
            holds(same, "the link does not lead to its target", path)
        }
        Change::FileSecurity { path, model } if !is_remade(path, later) && !is_remade(model, later) => {
            let security = |path: &str| {
                let (fs, _, node) = node_of(machine, path)?;
                Ok(node.map(|node| fs.security(node)).transpose()?.flatten())
            };
            let (found, wanted): (Option<Vec<u8>>, Option<Vec<u8>>) = (security(path)?, security(model)?);
            let same = found.is_some() && found == wanted;
            holds(same, "the file does not have the security of the other", path)
        }
        Change::FileAccess { path, security, .. } if !is_remade(path, later) => {
            let again = later.iter().any(|other| match other {
                Change::FileAccess { path: other, .. } | Change::FileSecurity { path: other, .. } => {
                    path.eq_ignore_ascii_case(other)
                }
                _ => false,
            });
            let (fs, _, node) = node_of(machine, path)?;
            let found = node.map(|node| fs.security(node)).transpose()?.flatten();
            holds(
                again || found.as_ref() == Some(security),
                "the file does not have the permissions that it was given",
                path,
            )
        }
        Change::DiskWrite { offset, data, what } => {
            let over = later.iter().any(|other| match other {
                Change::DiskWrite { offset: at, data: bytes, .. } => {
                    *at < offset + data.len() as u64 && *offset < at + bytes.len() as u64
                }
                _ => false,
            });
            let there = machine.disk.read_vec(*offset, data.len())?;
            holds(over || there == *data, "the disk does not hold what was written", what)
        }
        Change::FileSystemRepair { volume, writes, .. } | Change::VolumeFormat { volume, writes, .. } => {
            let own = |name: &GuestPath| {
                machine.volume_of(&name.volume).is_ok_and(|index| machine.volumes[index].number == *volume)
            };
            for path in later.iter().flat_map(paths) {
                if own(&GuestPath::parse(path)?) {
                    // Files were changed on it afterwards; the check of the file system speaks for it.
                    return Ok(());
                }
            }
            for (offset, data) in writes {
                let there = machine.disk.read_vec(*offset, data.len())?;
                holds(there == *data, "the volume does not hold what was written", &format!("#{volume}"))?;
            }
            Ok(())
        }
        Change::ReplayLog { volume, .. } | Change::DiscardLog { volume, .. } => {
            let state = state_of(machine, *volume)?;
            let done = state.is_none_or(|state| matches!(state.replay, vmrescue_fs::ntfs::Replay::NotNeeded));
            holds(done, "the log of the volume is still not clean", &format!("#{volume}"))
        }
        Change::DiscardHibernation { volume, .. } => {
            let state = state_of(machine, *volume)?;
            let done = state.is_none_or(|state| state.hibernation.loss().is_none());
            holds(done, "the volume is still hibernated", &format!("#{volume}"))
        }
        Change::FileDetails { details, .. } => {
            for (number, detail) in details.iter().enumerate() {
                let again = details[number + 1..].iter().any(|other| same_path(&other.path, &detail.path));
                if !again && !is_remade(&detail.path, later) && !is_detailed(&detail.path, later) {
                    check_details(machine, detail)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn same_path(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// True when one of the `later` changes gives the file other times and attributes, or may change them by what it does to it.
fn is_detailed(path: &str, later: &[Change]) -> bool {
    later.iter().any(|change| match change {
        Change::FileDetails { details, .. } => details.iter().any(|other| same_path(&other.path, path)),
        // A directory changes with what is made, renamed and deleted in it; a hive is a file that is written at the end.
        other => paths(other).iter().any(|other| same_path(other, path) || lies_in(other, path)),
    })
}

/// The times and attributes that a file was given.
fn check_details(machine: &Machine, detail: &Detail) -> Result<()> {
    let (fs, _, node) = node_of(machine, &detail.path)?;
    let Some(node) = node else {
        return Err(disagreement("the file that was given times is not there", &detail.path));
    };
    let found = fs.metadata(node)?;
    // A directory stays one, whatever it is given.
    let kept = |bits: u32| bits & !Attributes::DIRECTORY;
    let attributes = detail.attributes.is_none_or(|wanted| kept(found.attributes.0) == kept(wanted));
    // FAT counts in steps of two seconds.
    let step = if fs.info().kind.eq_ignore_ascii_case("ntfs") { 0 } else { 2 * 10_000_000 };
    let modified = detail.modified.is_none_or(|wanted| found.times.modified.0.abs_diff(wanted.0) <= step);
    if attributes && modified {
        return Ok(());
    }
    Err(disagreement("the file does not have the times and attributes that it was given", &detail.path))
}

fn state_of(machine: &Machine, number: u32) -> Result<Option<vmrescue_fs::ntfs::VolumeState>> {
    match machine.volumes.iter().position(|volume| volume.number == number) {
        Some(index) => machine.file_system(index)?.state(),
        None => Err(disagreement("the volume is not there any more", &format!("#{number}"))),
    }
}
