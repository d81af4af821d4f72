//! Who says it of what: every document carries the tool with its version and the image with its identity, and with `--hash` its sha256.

use super::{Image, say, say_json};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::Result;
use vmrescue_block::{Disk, HostFile};
use vmrescue_image as image;
use vmrescue_image::OpenOptions;

/// Bytes that are hashed at once.
const PIECE: u64 = 1 << 20;

/// The program: name and version.
pub(super) fn tool() -> Value {
    json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")})
}

/// The sha256 of a whole file or device of the host.
fn sha256(file: &Disk) -> Result<String> {
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < file.len() {
        let piece = file.read_vec(offset, (file.len() - offset).min(PIECE) as usize)?;
        hash.update(&piece);
        offset += piece.len() as u64;
    }
    Ok(vmrescue_base::text::hex(&hash.finalize()))
}

fn file_json(path: &Path, hash: bool) -> Result<Value> {
    let file = Disk::new(Arc::new(HostFile::open_read(path)?));
    let mut found = json!({"path": path.display().to_string(), "file_size": file.len()});
    // A file that is no container, such as a bare hive, has its path and size.
    if let Ok(info) = image::info(&file) {
        found["format"] = json!(info.format);
        found["size"] = json!(info.size);
        found["id"] = json!(info.identity);
        found["content_id"] = json!(info.content_identity);
    }
    if hash {
        found["sha256"] = json!(sha256(&file)?);
    }
    Ok(found)
}

/// The image: path, length, format and the container's own ids; with `--hash` the sha256 of it and of its parents.
pub(super) fn image(image: &Image) -> Result<Value> {
    let mut found = file_json(&image.image, image.hash)?;
    if image.hash {
        let options = OpenOptions { parents: image.parent.clone(), follow_paths: image.follow_paths };
        let parents = image::parents(&image.image, &options).unwrap_or_default();
        if !parents.is_empty() {
            let list = parents.iter().map(|parent| file_json(parent, true)).collect::<Result<Vec<_>>>()?;
            found["parents"] = json!(list);
        }
    }
    Ok(found)
}

/// A document on an image: [`say_json`] with `tool` and `image`.
pub(super) fn say_of(image: &Image, schema: &str, document: Value) -> Result<()> {
    say_json(schema, identified(self::image(image)?, document))
}

/// A document on a file, for commands that take no more than its path.
pub(super) fn say_of_file(path: &Path, schema: &str, document: Value) -> Result<()> {
    // The history of an image outlives the image.
    let image = file_json(path, false).unwrap_or_else(|_| json!({"path": path.display().to_string()}));
    say_json(schema, identified(image, document))
}

fn identified(image: Value, mut document: Value) -> Value {
    if let Some(map) = document.as_object_mut() {
        map.shift_insert(0, "image".into(), image);
        map.shift_insert(0, "tool".into(), tool());
    }
    document
}

/// With `--hash`, a line with the version and the sha256: for output that is no document.
pub(super) fn tell(image: &Image) -> Result<()> {
    if image.hash && !image.json {
        let found = self::image(image)?;
        let list = std::iter::once(&found).chain(found["parents"].as_array().into_iter().flatten());
        for file in list {
            let text = |name: &str| file[name].as_str().unwrap_or("-").to_string();
            say(&format!(
                "vmrescue {}  sha256 {}  {}",
                env!("CARGO_PKG_VERSION"),
                text("sha256"),
                text("path")
            ))?;
        }
    }
    Ok(())
}
