//! A walk over every name below a directory, with all metadata: what `find`, a timeline, or a copy of a tree runs on.
//!
//! [`FileSystem::walk`] goes from directory to directory unless the file system knows a faster way: NTFS reads its
//! whole $MFT in one linear pass (`ntfs/walk.rs`), which also gives the times that are kept beside each name.

use super::{Attributes, FileSystem, NodeId, NodeKind, StreamInfo, Times};
use std::collections::HashSet;
use vmrescue_base::error::{Defect, Layer, Result, Severity};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;

/// One name of a walk. A file with several hard links is shown once for each.
#[derive(Debug, Clone, Copy)]
pub struct Walked<'a> {
    /// From the directory where the walk began, with backslashes between the components, none in front. Names that no
    /// directory leads to begin with `?\` and the record number of the directory that they name (NTFS only).
    pub path: &'a str,
    /// Where the last component begins in `path`.
    pub name_at: usize,
    /// The 8.3 name, when there is a separate one.
    pub short_name: Option<&'a str>,
    /// The file.
    pub id: NodeId,
    /// The directory that holds the name.
    pub parent: NodeId,
    /// File, directory or reparse point.
    pub kind: NodeKind,
    /// Bytes of the unnamed stream; 0 for directories.
    pub size_bytes: u64,
    /// Bytes that it takes on the volume; 0 when resident.
    pub allocated_bytes: u64,
    /// DOS attributes.
    pub attributes: Attributes,
    /// Times of the file ($STANDARD_INFORMATION).
    pub times: Times,
    /// Times kept with this name ($FILE_NAME in the record, not its copy in the directory); `None` where there are none.
    pub name_times: Option<Times>,
    /// How many names it has (8.3 names not counted).
    pub links: u32,
    /// The tag of a reparse point.
    pub reparse_tag: Option<u32>,
    /// The security id of NTFS 3.
    pub security_id: Option<u32>,
    /// The named streams.
    pub streams: &'a [StreamInfo],
    /// No directory leads to this name.
    pub orphan: bool,
}

impl<'a> Walked<'a> {
    /// The last component of the path.
    pub fn name(&self) -> &'a str {
        self.path.get(self.name_at..).unwrap_or(self.path)
    }
}

/// In which order a walk shows the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As is fastest; on NTFS the order of the records, so that a name may come before its directory's.
    Any,
    /// Parents before what is in them, the names of a directory sorted by their bytes.
    Tree,
}

/// What is called with every name of a walk; an error ends the walk.
pub type Visit<'v> = dyn FnMut(&Walked<'_>) -> Result<()> + 'v;

/// The walk from directory to directory, for file systems without a faster one: parents before what is in them,
/// the names of a directory sorted. What cannot be read is returned as defects.
///
/// # Errors
/// Of `visit`.
pub(crate) fn walk_directories<F: FileSystem + ?Sized>(
    fs: &F,
    from: NodeId,
    visit: &mut Visit<'_>,
) -> Result<Vec<Defect>> {
    let mut defects = Vec::new();
    let mut seen = HashSet::from([from]);
    let mut pending = vec![(from, String::new(), 0)];
    while let Some((directory, path, depth)) = pending.pop() {
        let mut note = |detail: String| {
            defects.push(Defect::new("walk-unread", Severity::Error, Layer::FileSystem, None, detail));
        };
        if depth > MAX_DIRECTORY_DEPTH {
            note(format!("{path}: directories are nested too deeply"));
            continue;
        }
        let mut entries = match fs.read_dir(directory) {
            Ok(entries) => entries,
            Err(e) => {
                note(format!("{path}: {e}"));
                continue;
            }
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut below = Vec::new();
        for entry in entries {
            let mut full = path.clone();
            if !full.is_empty() {
                full.push('\\');
            }
            let name_at = full.len();
            full.push_str(&entry.name);
            let mut streams = Vec::new();
            let metadata = fs.metadata(entry.id).and_then(|metadata| {
                streams = fs.streams(entry.id)?;
                streams.retain(|stream| !stream.name.is_empty());
                Ok(metadata)
            });
            let known = match metadata {
                Ok(known) => Some(known),
                Err(e) => {
                    note(format!("{full}: {e}"));
                    None
                }
            };
            let kind = known.as_ref().map_or(entry.kind, |known| known.kind);
            visit(&Walked {
                path: &full,
                name_at,
                short_name: entry.short_name.as_deref(),
                id: entry.id,
                parent: directory,
                kind,
                size_bytes: known.as_ref().map_or(entry.size_bytes, |known| known.size_bytes),
                allocated_bytes: known.as_ref().map_or(0, |known| known.allocated_bytes),
                attributes: known.as_ref().map_or(entry.attributes, |known| known.attributes),
                times: known.as_ref().map_or(entry.times, |known| known.times),
                name_times: None,
                links: known.as_ref().map_or(1, |known| known.links),
                reparse_tag: known.as_ref().and_then(|known| known.reparse.as_ref()).map(|r| r.tag),
                security_id: known.as_ref().and_then(|known| known.security_id),
                streams: &streams,
                orphan: false,
            })?;
            if kind == NodeKind::Directory && seen.insert(entry.id) {
                below.push((entry.id, full, depth + 1));
            }
        }
        pending.extend(below.into_iter().rev());
    }
    Ok(defects)
}
