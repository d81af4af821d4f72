//! Trees of files: finding, putting, copying and deleting them.

use super::times::time_json;
use super::{CLEAN, Changing, Image, change, look, say};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystem, NodeId, NodeKind, Order};
use vmrescue_repair::{Change, Content};
use vmrescue_windows::Machine;

/// A kind of node by name, or by the letter that find(1) has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum WantedKind {
    #[value(alias = "f")]
    File,
    #[value(alias = "d", alias = "dir")]
    Directory,
    #[value(alias = "l", alias = "reparse")]
    Link,
}

impl WantedKind {
    fn letter(self) -> &'static str {
        match self {
            WantedKind::File => "f",
            WantedKind::Directory => "d",
            WantedKind::Link => "l",
        }
    }
}

/// What `find` looks for.
pub(super) struct Wanted {
    pub(super) name: Option<String>,
    pub(super) kind: Option<WantedKind>,
    pub(super) min_size: u64,
}

pub(super) fn find(image: &Image, path: &str, wanted: &Wanted) -> Result<u8> {
    let (_, machine, _) = look::open(image)?;
    let (fs, node, parsed) = look::reading(&machine, path)?;
    let start = parsed.to_string();
    let start = start.trim_end_matches('\\');
    let defects = fs.walk(node, Order::Tree, &mut |file| {
        let kind = match file.kind {
            NodeKind::Directory => WantedKind::Directory,
            NodeKind::File => WantedKind::File,
            NodeKind::Reparse => WantedKind::Link,
        };
        let named =
            wanted.name.as_ref().is_none_or(|pattern| vmrescue_base::text::fits(pattern, file.name()));
        if !named || wanted.kind.is_some_and(|wanted| wanted != kind) || file.size_bytes < wanted.min_size {
            return Ok(());
        }
        let full = format!("{start}\\{}", file.path);
        if !image.json {
            return say(&full);
        }
        let streams: Vec<Value> = file
            .streams
            .iter()
            .map(|stream| json!({"name": stream.name, "size": stream.size_bytes}))
            .collect();
        let line = json!({
            "path": full, "kind": kind.letter(), "size": file.size_bytes, "attributes": file.attributes.0,
            "modified": time_json(file.times.modified), "streams": streams, "orphan": file.orphan,
        });
        say(&line.to_string())
    })?;
    for defect in &defects {
        super::say_error(&format!("warning: {defect}"));
    }
    Ok(CLEAN)
}

/// A directory where there is none yet.
fn directory(machine: &Machine, path: &str, list: &mut Vec<Change>) -> Result<()> {
    if machine.resolve(&GuestPath::parse(path)?)?.1.is_none() {
        list.push(Change::MakeDirectory { path: path.to_string() });
    }
    Ok(())
}

pub(super) fn put(
    image: &Image,
    folder: &Path,
    path: &str,
    like: Option<&str>,
    changing: &Changing,
) -> Result<u8> {
    change::changes(image, &format!("put -r {path}"), changing, |machine| {
        let mut list = Vec::new();
        put_below(machine, folder, path.trim_end_matches('\\'), 0, &mut list)?;
        let mut models = Vec::new();
        for made in &list {
            if let Change::FileWrite { path, .. } | Change::MakeDirectory { path } = made {
                models.extend(change::security_of(machine, path, like)?);
            }
        }
        list.extend(models);
        Ok(list)
    })
}

fn put_below(
    machine: &Machine,
    folder: &Path,
    path: &str,
    depth: usize,
    list: &mut Vec<Change>,
) -> Result<()> {
    let failed = |e| Error::io("cannot be read", folder, e);
    if depth > MAX_DIRECTORY_DEPTH {
        return Err(Error::limit(Layer::Cli, "folders are nested too deeply").in_file(folder));
    }
    directory(machine, path, list)?;
    let mut entries =
        std::fs::read_dir(folder).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let from = entry.path();
        let to = format!("{path}\\{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            put_below(machine, &from, &to, depth + 1, list)?;
        } else if kind.is_file() {
            let data = Content::of_host_file(&from)?;
            list.extend(change::write_of(machine, &to, data, from.display().to_string())?);
        } else {
            super::say_error(&format!("left out: {} is no file and no folder", from.display()));
        }
    }
    Ok(())
}

pub(super) fn rm(image: &Image, path: &str, changing: &Changing) -> Result<u8> {
    change::changes(image, &format!("rm -r {path}"), changing, |machine| {
        let (fs, node, _) = look::node_of(machine, path)?;
        let mut list = Vec::new();
        rm_below(&*fs, node, path.trim_end_matches('\\'), 0, &mut list)?;
        Ok(list)
    })
}

/// The deepest first; reparse points are deleted, not followed.
fn rm_below(
    fs: &dyn FileSystem,
    node: NodeId,
    path: &str,
    depth: usize,
    list: &mut Vec<Change>,
) -> Result<()> {
    if depth > MAX_DIRECTORY_DEPTH {
        return Err(Error::limit(Layer::FileSystem, "directories are nested too deeply").found(path));
    }
    if fs.metadata(node)?.kind == NodeKind::Directory {
        for entry in fs.read_dir(node)? {
            rm_below(fs, entry.id, &format!("{path}\\{}", entry.name), depth + 1, list)?;
        }
    }
    list.push(Change::FileDelete { path: path.to_string() });
    Ok(())
}

pub(super) fn cp(image: &Image, from: &str, to: &str, changing: &Changing) -> Result<u8> {
    change::changes(image, &format!("cp -r {from} {to}"), changing, |machine| {
        let (fs, node, parsed) = look::reading(machine, from)?;
        let target = GuestPath::parse(to)?;
        let inside = parsed.shadow.is_empty()
            && target.volume == parsed.volume
            && target.components.len() >= parsed.components.len()
            && target.components.iter().zip(&parsed.components).all(|(a, b)| a.eq_ignore_ascii_case(b));
        if inside {
            return Err(Error::invalid(Layer::Cli, "a directory cannot be copied into itself").found(to));
        }
        let mut list = Vec::new();
        cp_below(machine, &fs, node, (from.trim_end_matches('\\'), to.trim_end_matches('\\')), 0, &mut list)?;
        Ok(list)
    })
}

fn cp_below(
    machine: &Machine,
    fs: &Arc<dyn FileSystem>,
    node: NodeId,
    (from, to): (&str, &str),
    depth: usize,
    list: &mut Vec<Change>,
) -> Result<()> {
    if depth > MAX_DIRECTORY_DEPTH {
        return Err(Error::limit(Layer::FileSystem, "directories are nested too deeply").found(from));
    }
    match fs.metadata(node)?.kind {
        NodeKind::Directory => {
            directory(machine, to, list)?;
            for entry in fs.read_dir(node)? {
                let paths = (format!("{from}\\{}", entry.name), format!("{to}\\{}", entry.name));
                cp_below(machine, fs, entry.id, (&paths.0, &paths.1), depth + 1, list)?;
            }
        }
        NodeKind::File => {
            for stream in fs.streams(node)? {
                let suffix = if stream.name.is_empty() { String::new() } else { format!(":{}", stream.name) };
                let data = Content::of_guest(fs, node, &stream.name)?;
                list.extend(change::write_of(
                    machine,
                    &format!("{to}{suffix}"),
                    data,
                    format!("{from}{suffix}"),
                )?);
            }
        }
        NodeKind::Reparse => super::say_error(&format!("left out: {from} is a reparse point")),
    }
    Ok(())
}
