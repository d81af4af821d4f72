//! `vmrescue diff`: what differs between two trees of a disk, such as a shadow copy and the volume as it is.

use super::identity::tell;
use super::look::{open, reading};
use super::times::{time_json, time_text};
use super::{CLEAN, FINDINGS, Image, say, say_error};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use vmrescue_base::error::{Defect, Result};
use vmrescue_base::time::FileTime;
use vmrescue_fs::{FileSystem, NodeId, NodeKind, Order};

/// Bytes that are compared at once.
const PIECE_BYTES: usize = 1 << 20;

/// A file as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    /// As it is written there; the key is folded.
    path: String,
    id: NodeId,
    kind: NodeKind,
    size_bytes: u64,
    modified: FileTime,
    attributes: u32,
    streams: Vec<(String, u64)>,
}

type Tree = BTreeMap<String, Own>;

/// All names below a directory. What belongs to no directory has no place to be compared at.
fn tree(fs: &dyn FileSystem, node: NodeId) -> Result<(Tree, Vec<Defect>)> {
    let mut found = Tree::new();
    let defects = fs.walk(node, Order::Tree, &mut |file| {
        if !file.orphan {
            let mut streams: Vec<(String, u64)> =
                file.streams.iter().map(|stream| (stream.name.clone(), stream.size_bytes)).collect();
            streams.sort();
            let own = Own {
                path: file.path.to_string(),
                id: file.id,
                kind: file.kind,
                size_bytes: file.size_bytes,
                modified: file.times.modified,
                attributes: file.attributes.0,
                streams,
            };
            found.insert(file.path.to_uppercase(), own);
        }
        Ok(())
    })?;
    Ok((found, defects))
}

/// True when both files hold the same bytes.
fn same_content(one: (&dyn FileSystem, NodeId), other: (&dyn FileSystem, NodeId)) -> Result<bool> {
    let (mut a, mut b) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = 0;
    loop {
        let count = one.0.read(one.1, "", at, &mut a)?;
        if other.0.read(other.1, "", at, &mut b)? != count || a[..count] != b[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
        at += count as u64;
    }
}

fn facts(own: &Own) -> Value {
    json!({"size": own.size_bytes, "modified": time_json(own.modified), "attributes": own.attributes})
}

pub(super) fn diff(image: &Image, from: &str, to: &str, content: bool) -> Result<u8> {
    let (_, machine, _) = open(image)?;
    let (old_fs, old_node, old_path) = reading(&machine, from)?;
    let (new_fs, new_node, new_path) = reading(&machine, to)?;
    let (old_fs, new_fs) = (&*old_fs, &*new_fs);
    let ((old, old_defects), (mut new, new_defects)) = (tree(old_fs, old_node)?, tree(new_fs, new_node)?);
    if !image.json {
        tell(image)?;
    }
    let mut code = CLEAN;
    let mut show = |what: &str, own: &Own, other: Option<&Own>, why: &[&str]| -> Result<()> {
        code = FINDINGS;
        if image.json {
            let line = json!({"difference": what, "path": own.path, "what": why, "before": (what != "added").then(|| facts(own)),
                "after": if what == "added" { Some(facts(own)) } else { other.map(facts) }});
            return say(&line.to_string());
        }
        let detail = match other {
            Some(other) => format!(
                "  ({}: {} bytes {}, now {} bytes {})",
                why.join(", "),
                own.size_bytes,
                time_text(own.modified),
                other.size_bytes,
                time_text(other.modified)
            ),
            None => String::new(),
        };
        let mark = match what {
            "added" => "+",
            "removed" => "-",
            _ => "*",
        };
        say(&format!("{mark} {}{detail}", own.path))
    };
    for (key, before) in &old {
        let Some(after) = new.remove(key) else {
            show("removed", before, None, &[])?;
            continue;
        };
        let mut why = Vec::new();
        let both_files = before.kind == NodeKind::File && after.kind == NodeKind::File;
        if before.kind != after.kind {
            why.push("kind");
        }
        if before.path != after.path {
            why.push("name");
        }
        if before.size_bytes != after.size_bytes {
            why.push("size");
        } else if both_files && before.size_bytes > 0 && (content || before.modified != after.modified) {
            // Some files of NTFS itself have no unnamed stream at all.
            match same_content((old_fs, before.id), (new_fs, after.id)) {
                Ok(true) => {}
                Ok(false) => why.push("content"),
                Err(e) => {
                    say_error(&format!("{} cannot be compared: {e}", before.path));
                    why.push("unread");
                }
            }
        }
        // The times of a directory change with every name in it.
        if both_files && before.modified != after.modified {
            why.push("modified");
        }
        if before.attributes != after.attributes {
            why.push("attributes");
        }
        if before.streams != after.streams {
            why.push("streams");
        }
        if !why.is_empty() {
            show("changed", before, Some(&after), &why)?;
        }
    }
    for after in new.values() {
        show("added", after, None, &[])?;
    }
    for (path, defects) in [(old_path, old_defects), (new_path, new_defects)] {
        for defect in defects {
            code = FINDINGS;
            say_error(&format!("warning: {path}: {defect}"));
        }
    }
    Ok(code)
}
