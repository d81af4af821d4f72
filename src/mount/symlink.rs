//! Making symbolic links: paths of Unix become reparse points of Windows ([MS-FSCC] 2.1.2.4).
//!
//! A relative path stays relative, with its separators turned round. An absolute path means nothing to the guest, unless it
//! leads into the mount: then it becomes one from the root of the link's own volume, or one with the letter of another.
//! Windows tells links to directories from links to files. What a path leads to is looked up when the link is made, and once
//! more at the end of the session for links that led to nothing then: copying programs often make the link first.

use super::change::{directory, kind};
use super::fault::{Answer, Fault, Reason};
use super::link::{self, Target};
use super::session::Session;
use super::tree::{Facts, Kind, Tree, lock};
use vmrescue_fs::ntfs::symbolic_link;
use vmrescue_fs::{Attributes, MetadataChange, NodeId, NodeKind, RawPart};

/// Most links on the way to a target.
const MAX_LINKS: u32 = 40;

/// A target in the words of Windows, where to look for it, and whether it is relative.
struct Wanted {
    words: String,
    shown: String,
    relative: bool,
    target: Target,
}

fn wanted(tree: &Tree, slot: usize, path: &str, mounted_on: &str) -> Answer<Wanted> {
    if !path.starts_with('/') {
        let words = link::relative_words(path).ok_or(Reason::Invalid)?;
        let target = link::parse(&words);
        return Ok(Wanted { shown: words.clone(), words, relative: true, target });
    }
    let names = link::names_below(mounted_on, path).ok_or(Reason::Invalid)?;
    let is_base = |other: &usize| names.starts_with(&tree.base_of(*other));
    let other = (0..tree.slots.len()).find(is_base).ok_or(Reason::Invalid)?;
    let names = names[tree.base_of(other).len()..].to_vec();
    let path = format!(r"\{}", names.join(r"\"));
    if other == slot {
        return Ok(Wanted { shown: path.clone(), words: path, relative: true, target: Target::Root(names) });
    }
    let other = &tree.slots[other];
    let volume = match (other.letter, other.guid) {
        (Some(letter), _) => format!("{letter}:"),
        (None, Some(guid)) => format!("Volume{{{guid}}}"),
        _ => return Err(Reason::Invalid.into()),
    };
    let (shown, words) = (format!("{volume}{path}"), format!(r"\??\{volume}{path}"));
    Ok(Wanted { shown, words, relative: false, target: Target::Volume(volume, names) })
}

/// The node that a target leads to from a directory; `None` when it leads to nothing, or to another volume.
fn follow(tree: &Tree, slot: usize, from: NodeId, target: &Target, left: &mut u32) -> Answer<Option<NodeId>> {
    let (mut at, names) = match target {
        Target::Here(names) => (from, names),
        Target::Root(names) => (tree.slots[slot].root, names),
        Target::Volume(..) => return Ok(None),
    };
    for name in names.iter().filter(|name| *name != ".") {
        if kind(tree, slot, at)? != Kind::Directory {
            return Ok(None);
        }
        let next = if name == ".." {
            let names = tree.slots[slot].look(|fs| fs.names(at))?;
            names.first().map(|name| name.directory)
        } else {
            tree.find(slot, at, name)?
        };
        let Some(mut next) = next else { return Ok(None) };
        if kind(tree, slot, next)? == Kind::Link {
            let Some(fewer) = left.checked_sub(1) else { return Ok(None) };
            *left = fewer;
            let metadata = tree.slots[slot].look(|fs| fs.metadata(next))?;
            match follow(tree, slot, at, &tree.link_target(slot, &metadata)?, left)? {
                Some(behind) => next = behind,
                None => return Ok(None),
            }
        }
        at = next;
    }
    Ok(Some(at))
}

impl Session {
    /// Makes a symbolic link. `mounted_on` is the absolute path of the mount point.
    ///
    /// # Errors
    /// `Invalid` for targets that Windows could not follow: absolute paths of this machine, and names that it cannot have;
    /// `Unsupported` on FAT; as [`Session::create`].
    pub fn symlink(&self, parent: u64, name: &str, path: &str, mounted_on: &str) -> Answer<Facts> {
        self.changing(|tree| {
            let (slot, at) = directory(tree, parent)?;
            if tree.find(slot, at, name)?.is_some() {
                return Err(Reason::Exists.into());
            }
            let wanted = wanted(tree, slot, path, mounted_on)?;
            let point = symbolic_link(&wanted.words, &wanted.shown, wanted.relative)?;
            let mut left = MAX_LINKS;
            let behind = follow(tree, slot, at, &wanted.target, &mut left)?;
            let to_directory = match behind {
                Some(node) => kind(tree, slot, node)? == Kind::Directory,
                None => false,
            };
            let node_kind = if to_directory { NodeKind::Directory } else { NodeKind::File };
            let node = tree.slots[slot].change(|fs| {
                let node = fs.create(at, name, node_kind)?;
                if let Err(e) = fs.set_reparse(node, Some(&point)) {
                    fs.remove(at, name)?;
                    return Err(e.into());
                }
                Ok(node)
            })?;
            self.touch(slot, node);
            if behind.is_none() {
                lock(&self.dangling).push((slot, node));
            }
            tree.facts(tree.number(slot, node)?)
        })
    }

    /// Makes links to directories of those that were made before their directories. For the end of a session: they become
    /// other nodes. What could not be done stays as it was, and is returned.
    pub fn settle_links(&self) -> Vec<Fault> {
        let waiting = std::mem::take(&mut *lock(&self.dangling));
        let settle = |(slot, node)| self.changing(|tree| self.settle_link(tree, slot, node)).err();
        waiting.into_iter().filter_map(settle).collect()
    }

    fn settle_link(&self, tree: &Tree, slot: usize, node: NodeId) -> Answer<()> {
        let here = &tree.slots[slot];
        // Removed, replaced or renamed meanwhile: only what is still a plain link with one name counts.
        let Ok(metadata) = here.look(|fs| fs.metadata(node)) else { return Ok(()) };
        let names = here.look(|fs| fs.names(node))?;
        let (Some(name), Some(point)) = (
            names.iter().find(|name| !name.short || names.len() == 1),
            here.look(|fs| fs.raw_part(node, RawPart::ReparsePoint))?,
        ) else {
            return Ok(());
        };
        let streams = here.look(|fs| fs.streams(node))?;
        // What hangs on the node itself would be lost with it.
        let hangs = |part| Ok::<_, Fault>(here.look(|fs| fs.raw_part(node, part))?.is_some());
        let simple = metadata.links == 1
            && streams.iter().all(|stream| stream.name.is_empty())
            && !hangs(RawPart::ObjectId)?
            && !hangs(RawPart::ExtendedAttributes)?;
        if !simple || metadata.attributes.has(Attributes::DIRECTORY) {
            return Ok(());
        }
        let target = tree.link_target(slot, &metadata)?;
        let mut left = MAX_LINKS;
        let behind = follow(tree, slot, name.directory, &target, &mut left)?;
        let Some(behind) = behind else { return Ok(()) };
        if kind(tree, slot, behind)? != Kind::Directory {
            return Ok(());
        }
        let (root, hidden) = (here.root, tree.unlinked.fresh_name());
        let (at, name) = (name.directory, &name.name);
        let change = MetadataChange {
            attributes: Some(metadata.attributes),
            times: Some(metadata.times),
            security_from: Some(node),
            ..MetadataChange::default()
        };
        let mut around = Vec::new();
        for directory in [at, root] {
            around.push((directory, here.look(|fs| fs.metadata(directory))?.times));
        }
        let settled = here.change(|fs| {
            fs.rename(at, name, root, &hidden)?;
            let made = fs.create(at, name, NodeKind::Directory);
            let filled = made.and_then(|new| {
                let filled = fs.set_reparse(new, Some(&point)).and_then(|()| fs.set_metadata(new, &change));
                filled.inspect_err(|_| drop(fs.remove(at, name)))
            });
            match filled {
                Ok(()) => fs.remove(root, &hidden)?,
                Err(e) => {
                    fs.rename(root, &hidden, at, name)?;
                    return Err(e.into());
                }
            }
            // To whoever looks, nothing happened here.
            for (directory, times) in around {
                let times = MetadataChange { times: Some(times), ..MetadataChange::default() };
                fs.set_metadata(directory, &times)?;
            }
            Ok(fs.lookup(at, name)?)
        })?;
        settled.into_iter().for_each(|node| self.touch(slot, node));
        Ok(())
    }
}
