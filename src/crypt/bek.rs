//! `.BEK` files: external keys, as startup keys and recovery keys are kept on sticks, and by Azure Disk Encryption.
//!
//! Format: libbde's format document, "BitLocker External Key (BEK) file": a header like that of the metadata's data set (48 bytes),
//! then entries; one of them is the external key, with the id of its protector and the key inside.

use super::entry::{Key, ROLE_EXTERNAL_KEY, Secret256, TYPE_EXTERNAL_KEY, TYPE_KEY, entries};
use crate::bytes::u32_at;
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;
use std::path::Path;
use zeroize::Zeroizing;

/// Largest file that is looked at; they have 156 bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Most files of one folder.
const MAX_FILES: usize = 1024;

/// The id of the protector and the key.
///
/// # Errors
/// `Damaged` when it is no key.
pub(super) fn parse(file: &[u8]) -> Result<(Guid, Secret256)> {
    let damaged =
        |text: &str| Error::damaged(Layer::BitLocker, format!("this is no BitLocker key file: {text}"));
    let field = |at| u32_at(file, at).map_or(0, |number| number as usize);
    let (size, start, end) = (field(0), field(8), field(12));
    if field(4) != 1 || start < 48 || size > file.len() || end > size {
        return Err(damaged("its header is wrong").advice(
            "the secret of Azure Key Vault is the file in Base64; when a key of its own wraps it (KEK), Key Vault has to unwrap it first",
        ));
    }
    let list = entries(file.get(start..end).unwrap_or_default());
    let external =
        list.iter().find(|e| (e.role, e.kind) == (ROLE_EXTERNAL_KEY, TYPE_EXTERNAL_KEY)).map(|e| e.data);
    let external = external.ok_or_else(|| damaged("it has no external key"))?;
    let id = Guid::at(external, 0).ok_or_else(|| damaged("its key has no id"))?;
    let inner = entries(external.get(24..).unwrap_or_default());
    let key = inner.iter().filter(|e| e.kind == TYPE_KEY).find_map(|e| Key::parse(e.data)?.full());
    Ok((id, key.ok_or_else(|| damaged("its key does not have 256 bits"))?))
}

/// The file, or the files `*.bek` of a folder, with their names.
///
/// # Errors
/// Of the host; `NotFound` for a folder without any.
pub(super) fn files(path: &Path) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>> {
    let failed = |e| Error::io("a key cannot be read", path, e);
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("bek")) {
            found.push(file);
        }
    }
    found.sort();
    found.truncate(MAX_FILES);
    if found.is_empty() {
        return Err(Error::not_found(Layer::BitLocker, "no *.BEK in this folder").in_file(path));
    }
    found.iter().map(|file| read(file)).collect()
}

fn read(path: &Path) -> Result<(String, Zeroizing<Vec<u8>>)> {
    let failed = |e| Error::io("a key cannot be read", path, e);
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        return Err(Error::limit(Layer::BitLocker, "size of a key file").in_file(path).found(size));
    }
    Ok((path.display().to_string(), Zeroizing::new(std::fs::read(path).map_err(failed)?)))
}
