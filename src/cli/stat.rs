//! `stat`: everything known about a file.

use super::identity::{say_of, tell};
use super::look::{kind_name, open, reading};
use super::times::{time_text, times_json};
use super::{CLEAN, Image, say};
use serde_json::{Value, json};
use vmrescue_base::error::Result;
use vmrescue_fs::security::Descriptor;
use vmrescue_fs::{FileSystem, Metadata, NodeId, Times};

/// What may fail without the rest being of no use: the text of the error stands in its place.
fn or_error<T>(result: Result<T>, show: impl FnOnce(T) -> Value) -> Value {
    match result {
        Ok(value) => show(value),
        Err(error) => json!({"error": error.to_string()}),
    }
}

fn security(fs: &dyn FileSystem, node: NodeId) -> Value {
    let read = fs.security(node).and_then(|bytes| bytes.map(|bytes| Descriptor::parse(&bytes)).transpose());
    or_error(read, |descriptor| {
        descriptor.map_or(Value::Null, |descriptor| {
            json!({
                "owner": descriptor.owner.as_ref().map(ToString::to_string),
                "group": descriptor.group.as_ref().map(ToString::to_string),
                "sddl": descriptor.sddl(),
            })
        })
    })
}

fn document(fs: &dyn FileSystem, path: &str, node: NodeId, found: &Metadata) -> Result<Value> {
    let streams: Vec<Value> = fs
        .streams(node)?
        .iter()
        .map(|s| json!({"name": s.name, "size": s.size_bytes, "allocated": s.allocated_bytes, "resident": s.resident,
            "compressed": s.compressed, "sparse": s.sparse, "encrypted": s.encrypted}))
        .collect();
    let names = or_error(fs.names(node), |names| {
        let list = names.iter().map(|name| {
            json!({"name": name.name, "directory": format!("{:#x}", name.directory.0), "short": name.short,
                "times": times_json(name.times)})
        });
        list.collect()
    });
    let reparse = found
        .reparse
        .as_ref()
        .map(|reparse| json!({"tag": format!("{:#010x}", reparse.tag), "target": reparse.target}));
    let attributes = or_error(fs.extended_attributes(node), |list| {
        list.iter().map(|a| json!({"name": a.name, "size": a.value.len(), "needed": a.needed})).collect()
    });
    Ok(json!({
        "path": path, "kind": kind_name(found.kind), "size": found.size_bytes,
        "allocated": found.allocated_bytes, "attributes": found.attributes.0, "links": found.links,
        "times": times_json(found.times), "node": format!("{:#x}", node.0), "streams": streams,
        "names": names, "reparse": reparse, "extended_attributes": attributes,
        "object_id": or_error(fs.object_id(node), |id| json!(id.map(|id| id.to_string()))),
        "case_sensitive": or_error(fs.is_case_sensitive(node), |sensitive| json!(sensitive)),
        "security_id": found.security_id, "security": security(fs, node),
    }))
}

pub(super) fn stat(image: &Image, path: &str) -> Result<u8> {
    tell(image)?;
    let (_, machine, _) = open(image)?;
    let (fs, node, path) = reading(&machine, path)?;
    let found = fs.metadata(node)?;
    let document = document(&*fs, &path.to_string(), node, &found)?;
    if image.json {
        say_of(image, "stat", document)?;
        return Ok(CLEAN);
    }
    say(&path.to_string())?;
    say(&format!("  kind        {}", kind_name(found.kind)))?;
    say(&format!("  size        {} bytes, {} allocated", found.size_bytes, found.allocated_bytes))?;
    say(&format!("  attributes  {:#x}", found.attributes.0))?;
    say(&format!("  links       {}", found.links))?;
    say_times("", found.times)?;
    for name in fs.names(node).unwrap_or_default() {
        let kind = if name.short { "name (8.3)" } else { "name" };
        say(&format!("  {kind:<11} {}", name.name))?;
        // Names of FAT have no times of their own.
        if name.times != Times::default() {
            say_times("  ", name.times)?;
        }
    }
    for stream in fs.streams(node)?.iter().filter(|stream| !stream.name.is_empty()) {
        say(&format!("  stream      {} ({} bytes)", stream.name, stream.size_bytes))?;
    }
    if let Some(reparse) = &found.reparse {
        let target = reparse.target.as_deref().map_or(String::new(), |target| format!(" to {target}"));
        say(&format!("  reparse     {:#010x}{target}", reparse.tag))?;
    }
    for attribute in fs.extended_attributes(node).unwrap_or_default() {
        say(&format!("  extended    {} ({} bytes)", attribute.name, attribute.value.len()))?;
    }
    if let Some(id) = fs.object_id(node).unwrap_or_default() {
        say(&format!("  object id   {id}"))?;
    }
    if fs.is_case_sensitive(node).unwrap_or_default() {
        say("  names       differ by case")?;
    }
    for (name, value) in [("owner", "owner"), ("group", "group"), ("security", "sddl"), ("security", "error")]
    {
        if let Some(text) = document["security"][value].as_str() {
            say(&format!("  {name:<11} {text}"))?;
        }
    }
    Ok(CLEAN)
}

fn say_times(indent: &str, times: Times) -> Result<()> {
    say(&format!("{indent}  created     {}", time_text(times.created)))?;
    say(&format!("{indent}  modified    {}", time_text(times.modified)))?;
    say(&format!("{indent}  changed     {}", time_text(times.changed)))?;
    say(&format!("{indent}  accessed    {}", time_text(times.accessed)))
}
