//! The walk over the directories, which goes on after every failure.

use super::copy::{Copied, copy_stream};
use super::names::Names;
use super::{CopiedFile, Event, How, Link, Listener, Missing, Options, Outcome};
use std::collections::{HashMap, HashSet};
use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;
use vmrescue_base::progress::Progress;
use vmrescue_base::text::fits;
use vmrescue_block::OutputRules;
use vmrescue_fs::{DirEntry, FileSystem, Metadata, NodeId, NodeKind, Order, StreamInfo, Times};

/// The folder for files that no directory leads to.
const ORPHANS: &str = "orphans";

/// Copies what is below `node`, a directory whose path in the guest is `path`, into the folder `out`.
///
/// # Errors
/// Of the host, and of `listener`; what cannot be read of the guest is in the outcome.
pub fn copy_tree(
    fs: &dyn FileSystem,
    (node, path): (NodeId, &str),
    (out, rules): (&Path, &OutputRules),
    options: &Options,
    progress: &dyn Progress,
    listener: &mut Listener<'_>,
) -> Result<Outcome> {
    let mut tree = Tree {
        fs,
        rules,
        options,
        progress,
        listener,
        outcome: Outcome::default(),
        seen: HashSet::from([node]),
        linked: HashMap::new(),
        records: None,
    };
    progress.begin("copying files", None);
    let done = tree.begin(node, path, out);
    progress.end();
    done.map(|()| tree.outcome)
}

/// The names of each directory as the file records have them, and how many records could not be read.
struct Records {
    names: HashMap<NodeId, Vec<(String, NodeId)>>,
    unread: usize,
}

/// A name that a directory has.
struct Found {
    name: String,
    id: NodeId,
}

struct Tree<'a, 'l> {
    fs: &'a dyn FileSystem,
    rules: &'a OutputRules,
    options: &'a Options,
    progress: &'a dyn Progress,
    listener: &'a mut Listener<'l>,
    outcome: Outcome,
    /// Directories that were entered, so that a cycle ends.
    seen: HashSet<NodeId>,
    /// Files with several names: the file of the host that has the content.
    linked: HashMap<NodeId, PathBuf>,
    /// The names of each directory as the file records have them; read when an index cannot be.
    records: Option<Records>,
}

impl Tree<'_, '_> {
    fn begin(&mut self, node: NodeId, path: &str, out: &Path) -> Result<()> {
        let path = path.trim_end_matches('\\');
        let root = self.fs.root() == node;
        match self.fs.metadata(node) {
            Ok(metadata) => self.directory((node, path), out, &metadata, 0)?,
            // The root has lost its record: its names may still be found.
            Err(why) => {
                self.missing(path, why, None, Copied::default(), None)?;
                self.rules.create_folder(out)?;
                self.below((node, path), out, 0)?;
            }
        }
        if root && self.options.orphans { self.orphans(&out.join(ORPHANS)) } else { Ok(()) }
    }

    fn missing(
        &mut self,
        path: &str,
        why: Error,
        size_bytes: Option<u64>,
        copied: Copied,
        target: Option<&Path>,
    ) -> Result<()> {
        let found = Missing {
            path: path.to_string(),
            why,
            size_bytes,
            got_bytes: copied.got_bytes,
            unread: copied.unread,
            target: target.map(Path::to_path_buf),
        };
        (self.listener)(Event::Missing(&found))?;
        self.outcome.missing.push(found);
        Ok(())
    }

    fn is_wanted(&self, path: &str, name: &str, directory: bool) -> bool {
        let fit = |pattern: &String| fits(pattern, if pattern.contains('\\') { path } else { name });
        let included = directory || self.options.include.is_empty() || self.options.include.iter().any(fit);
        included && !self.options.exclude.iter().any(fit)
    }

    fn directory(
        &mut self,
        (node, path): (NodeId, &str),
        out: &Path,
        metadata: &Metadata,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DIRECTORY_DEPTH {
            let why = Error::limit(Layer::FileSystem, "directories are nested too deeply");
            return self.missing(path, why, None, Copied::default(), None);
        }
        if let Err(e) = self.rules.create_folder(out) {
            return self.host_refuses(path, e);
        }
        self.outcome.folders += 1;
        (self.listener)(Event::Folder { path, target: out, metadata })?;
        self.below((node, path), out, depth)?;
        self.set_times(out, metadata.times, true);
        Ok(())
    }

    /// The names in a directory: of its index, or, when that cannot be read, of the file records.
    fn list(&mut self, node: NodeId, path: &str) -> Result<Vec<Found>> {
        let found = |entry: DirEntry| Found { name: entry.name, id: entry.id };
        match self.fs.read_dir(node) {
            Ok(entries) => Ok(entries.into_iter().map(found).collect()),
            Err(e) => {
                let (names, unread) = self.names_in_records(node);
                let count = names.len();
                let more = match unread {
                    0 => String::new(),
                    unread => format!(", and {unread} records of the volume cannot be read"),
                };
                let why = e.context(format!(
                    "the directory cannot be read; {count} names were found in file records instead{more}"
                ));
                self.missing(path, why, None, Copied::default(), None)?;
                Ok(names)
            }
        }
    }

    fn names_in_records(&mut self, node: NodeId) -> (Vec<Found>, usize) {
        let records = match self.records.take() {
            Some(records) => records,
            None => {
                let mut names: HashMap<NodeId, Vec<(String, NodeId)>> = HashMap::new();
                let defects = self.fs.walk(self.fs.root(), Order::Any, &mut |file| {
                    names.entry(file.parent).or_default().push((file.name().to_string(), file.id));
                    Ok(())
                });
                // A walk that cannot even begin has no names; the directory is told as missing all the same.
                Records { names, unread: defects.map_or(1, |defects| defects.len()) }
            }
        };
        let here = records.names.get(&node).into_iter().flatten();
        let found = here.map(|(name, id)| Found { name: name.clone(), id: *id }).collect();
        let unread = records.unread;
        self.records = Some(records);
        (found, unread)
    }

    fn below(&mut self, (node, path): (NodeId, &str), out: &Path, depth: usize) -> Result<()> {
        let mut names = Names::default();
        for Found { name, id } in self.list(node, path)? {
            if self.fs.is_internal(id) && !self.options.internal {
                continue;
            }
            let full = format!("{path}\\{name}");
            let host = names.take(&name);
            let target = out.join(&host);
            if host != name {
                self.outcome.renamed.push((full.clone(), target.clone()));
            }
            self.node(id, (&full, &name), &target, &mut names, depth)?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        id: NodeId,
        (path, name): (&str, &str),
        target: &Path,
        names: &mut Names,
        depth: usize,
    ) -> Result<()> {
        let metadata = match self.fs.metadata(id) {
            Ok(metadata) => metadata,
            Err(e) if !self.is_wanted(path, name, false) => {
                // Not asked for: what it is does not matter.
                drop(e);
                return Ok(());
            }
            Err(e) => return self.missing(path, e, None, Copied::default(), None),
        };
        match metadata.kind {
            NodeKind::Directory if !self.is_wanted(path, name, true) => Ok(()),
            NodeKind::Directory if !self.seen.insert(id) => {
                let why = Error::damaged(
                    Layer::FileSystem,
                    "this directory has been entered before by another name",
                );
                self.missing(path, why, None, Copied::default(), None)
            }
            NodeKind::Directory => self.directory((id, path), target, &metadata, depth + 1),
            _ if !self.is_wanted(path, name, false) => Ok(()),
            NodeKind::Reparse => {
                let reparse = metadata.reparse;
                let tag = reparse.as_ref().map(|reparse| reparse.tag);
                let target = reparse.and_then(|reparse| reparse.target);
                self.outcome.links.push(Link { path: path.to_string(), target, tag });
                Ok(())
            }
            NodeKind::File => self.file(id, path, target, &metadata, names),
        }
    }

    fn file(
        &mut self,
        id: NodeId,
        path: &str,
        target: &Path,
        metadata: &Metadata,
        names: &mut Names,
    ) -> Result<()> {
        let streams = match self.fs.streams(id) {
            Ok(streams) => streams,
            Err(e) => return self.missing(path, e, Some(metadata.size_bytes), Copied::default(), None),
        };
        if metadata.links > 1
            && let Some(first) = self.linked.get(&id)
            && self.rules.check(target).is_ok()
            && std::fs::hard_link(first, target).is_ok()
        {
            self.outcome.hard_links += 1;
            return self.tell(path, target, None, metadata, &streams, How::Linked);
        }
        for stream in &streams {
            if stream.name.is_empty() {
                self.stream(id, (path, target), stream, metadata, &streams)?;
            } else if self.options.streams {
                let name =
                    target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(); // `target` was joined from a name
                let beside = target.with_file_name(names.take(&format!("{name}#{}", stream.name)));
                self.stream(id, (&format!("{path}:{}", stream.name), &beside), stream, metadata, &streams)?;
            } else {
                self.outcome.streams_left_out += 1;
            }
        }
        if !streams.iter().any(|stream| stream.name.is_empty())
            && !self.fs.is_internal(id)
            && streams.is_empty()
        {
            let why = Error::damaged(Layer::FileSystem, "the file has no data attribute");
            return self.missing(path, why, None, Copied::default(), None);
        }
        if metadata.links > 1 {
            self.linked.insert(id, target.to_path_buf());
        }
        Ok(())
    }

    fn tell(
        &mut self,
        path: &str,
        target: &Path,
        sha256: Option<&str>,
        metadata: &Metadata,
        streams: &[StreamInfo],
        how: How,
    ) -> Result<()> {
        let size_bytes = metadata.size_bytes;
        (self.listener)(Event::Copied(CopiedFile {
            path,
            target,
            size_bytes,
            sha256,
            metadata,
            streams,
            how,
        }))
    }

    fn stream(
        &mut self,
        id: NodeId,
        (path, target): (&str, &Path),
        stream: &StreamInfo,
        metadata: &Metadata,
        streams: &[StreamInfo],
    ) -> Result<()> {
        let size = stream.size_bytes;
        if self.options.resume && is_there(target, size, metadata.times) {
            self.outcome.kept += 1;
            return self.tell(path, target, None, metadata, streams, How::Kept);
        }
        let mut file = match self.rules.create_one_of_many(target) {
            Ok(file) => file,
            Err(e) => return self.host_refuses(path, e),
        };
        let hash = self.options.hash;
        let copied = match copy_stream(self.fs, (id, &stream.name, size), &mut file, hash, self.progress) {
            Ok(copied) => copied,
            Err(e) => {
                drop(file);
                return self.host_refuses(path, e);
            }
        };
        if copied.why.is_some() && copied.got_bytes == 0 {
            // Nothing of it came: no empty file that looks like one.
            drop(file);
            return self.not_whole(path, size, copied, None);
        }
        file.finish_quickly()?;
        self.outcome.files += 1;
        self.outcome.bytes += copied.got_bytes;
        let whole = copied.why.is_none();
        let sha256 = copied.sha256.clone();
        if !whole {
            // Its time stays new: a later run with `resume` tries again.
            self.not_whole(path, size, copied, Some(target))?;
        } else {
            self.set_times(target, metadata.times, false);
        }
        self.tell(path, target, sha256.as_deref(), metadata, streams, How::Copied)
    }

    fn not_whole(&mut self, path: &str, size: u64, mut copied: Copied, target: Option<&Path>) -> Result<()> {
        match copied.why.take() {
            Some(why) => self.missing(path, why, Some(size), copied, target),
            None => Ok(()),
        }
    }

    /// The host does not take this one: only what would stop all others ends the copy.
    fn host_refuses(&mut self, path: &str, e: Error) -> Result<()> {
        match e.kind() {
            ErrorKind::Refused
            | ErrorKind::AlreadyExists
            | ErrorKind::NoSpace
            | ErrorKind::Busy
            | ErrorKind::Interrupted => Err(e),
            _ => self.missing(path, e, None, Copied::default(), None),
        }
    }

    fn set_times(&mut self, target: &Path, times: Times, directory: bool) {
        let opened = if directory { File::open(target) } else { File::options().write(true).open(target) };
        let set = opened.and_then(|file| match host_times(times) {
            Some(times) => file.set_times(times),
            None => Ok(()),
        });
        self.outcome.times_not_set += u64::from(set.is_err());
    }

    /// Files that no directory leads to, in folders named by the record of the directory that they name.
    fn orphans(&mut self, out: &Path) -> Result<()> {
        let mut found: Vec<(String, NodeId)> = Vec::new();
        let walked = self.fs.walk(self.fs.root(), Order::Any, &mut |file| {
            if file.orphan && file.kind == NodeKind::File {
                found.push((file.path.trim_start_matches("?\\").to_string(), file.id));
            }
            Ok(())
        });
        let unread = match walked {
            Ok(defects) => {
                defects.into_iter().map(|defect| Error::damaged(Layer::FileSystem, defect.detail)).collect()
            }
            Err(e) => vec![e],
        };
        for why in unread {
            self.missing("?", why, None, Copied::default(), None)?;
        }
        let mut names: HashMap<PathBuf, Names> = HashMap::new();
        for (path, id) in found {
            let parts: Vec<&str> = path.split('\\').collect();
            let Some((name, folders)) = parts.split_last() else { continue };
            let folder =
                folders.iter().fold(out.to_path_buf(), |at, part| at.join(Names::default().take(part)));
            self.rules.create_folder(&folder)?;
            let mut taken = names.remove(&folder).unwrap_or_default();
            let target = folder.join(taken.take(name));
            self.node(id, (&format!("?\\{path}"), name), &target, &mut taken, 0)?;
            names.insert(folder, taken);
        }
        Ok(())
    }
}

/// Times for a file of the host; none for times that the file system does not keep.
fn host_times(times: Times) -> Option<FileTimes> {
    let at = |time: vmrescue_base::time::FileTime| (!time.is_zero()).then(|| time.to_system_time());
    let modified = at(times.modified)?;
    let set = FileTimes::new().set_modified(modified);
    Some(at(times.accessed).map_or(set, |time| set.set_accessed(time)))
}

/// True when the host has this file already: its length, and its time to the second.
fn is_there(target: &Path, size: u64, times: Times) -> bool {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs());
    std::fs::symlink_metadata(target).is_ok_and(|there| {
        let same_time = there
            .modified()
            .is_ok_and(|time| seconds(time).ok() == seconds(times.modified.to_system_time()).ok());
        there.is_file() && there.len() == size && same_time
    })
}
