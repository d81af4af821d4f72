//! A metadata block (FVE_INFORMATION with FVE_DATASET and its data): state, method, protectors.
//!
//! A header of 64 bytes, a data set of a 48-byte header and entries; each entry has its size, role, type and flags in eight bytes. A CRC-32
//! over all of it follows.

use super::{BitLocker, Protector};
use crate::block::Disk;
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;
use crate::text::{until_nul, utf16le_lossy};
use crate::time::FileTime;

const HEADER_BYTES: usize = 64;
/// Most bytes of one block; Windows keeps 64 KiB for it.
const MAX_BLOCK_BYTES: usize = 1 << 20;
/// Most entries that are looked at.
const MAX_ENTRIES: usize = 1024;

/// Roles and types of entries that matter here.
const ROLE_PROTECTOR: u16 = 2;
const ROLE_DESCRIPTION: u16 = 7;
const TYPE_KEY: u16 = 1;
const TYPE_TEXT: u16 = 2;
const TYPE_PROTECTOR: u16 = 8;

/// An entry.
struct Entry<'a> {
    role: u16,
    kind: u16,
    data: &'a [u8],
}

/// The entries in `bytes`, as far as they are whole.
fn entries(mut bytes: &[u8]) -> Vec<Entry<'_>> {
    let mut found = Vec::new();
    while found.len() < MAX_ENTRIES {
        let Some(size) = u16_at(bytes, 0).map(usize::from).filter(|size| *size >= 8) else { break };
        let Some(all) = bytes.get(..size) else { break };
        let (Some(role), Some(kind)) = (u16_at(all, 2), u16_at(all, 4)) else { break };
        found.push(Entry { role, kind, data: &all[8..] });
        bytes = &bytes[size..];
    }
    found
}

fn time(number: Option<u64>) -> Option<FileTime> {
    number.filter(|number| *number != 0).map(FileTime)
}

fn text(data: &[u8]) -> Option<String> {
    let text = utf16le_lossy(data);
    let text = until_nul(&text).trim();
    (!text.is_empty()).then(|| text.to_string())
}

fn method(number: u16) -> String {
    match number {
        0x8000 => "AES-CBC 128 with diffuser".into(),
        0x8001 => "AES-CBC 256 with diffuser".into(),
        0x8002 => "AES-CBC 128".into(),
        0x8003 => "AES-CBC 256".into(),
        0x8004 => "AES-XTS 128".into(),
        0x8005 => "AES-XTS 256".into(),
        other => format!("unknown ({other:#06x})"),
    }
}

/// The high byte has a bit for each means that is asked for.
fn kind(number: u16) -> String {
    match number & 0xff00 {
        0x0000 => "clear key".into(),
        0x0100 => "TPM".into(),
        // On a stick or stored by another machine: manage-bde calls both so.
        0x0200 => "external key".into(),
        0x0300 => "TPM and startup key".into(),
        0x0500 => "TPM and PIN".into(),
        0x0700 => "TPM, PIN and startup key".into(),
        0x0800 => "recovery password".into(),
        0x2000 => "password".into(),
        _ => format!("unknown ({number:#06x})"),
    }
}

fn protector(data: &[u8]) -> Option<Protector> {
    let id = Guid::at(data, 0)?;
    let inner = entries(data.get(28..)?);
    let name = inner.iter().find(|entry| entry.kind == TYPE_TEXT).and_then(|entry| text(entry.data));
    let kind = kind(u16_at(data, 26)?);
    Some(Protector { id: id.to_string(), kind, changed: time(u64_at(data, 16)), name })
}

fn state(current: u16, next: u16, clear: bool) -> &'static str {
    match (current, next) {
        (1, _) => "decrypted",
        (3, _) => "paused",
        (2 | 5, 1) => "decrypting",
        (2 | 5, _) => "encrypting",
        (4, 1) => "decrypting",
        (4, _) if clear => "suspended",
        (4, _) => "encrypted",
        _ => "unknown",
    }
}

/// Reads the block at `offset` of the volume.
pub(super) fn read(volume: &Disk, offset: u64) -> Result<BitLocker> {
    let damaged =
        |text: &str| Error::damaged(Layer::FileSystem, format!("BitLocker metadata: {text}")).at(offset);
    let beyond = || damaged("it lies beyond the volume");
    if offset.checked_add(512).is_none_or(|end| end > volume.len()) {
        return Err(beyond());
    }
    let head = volume.read_vec(offset, 512)?;
    if !head.starts_with(b"-FVE-FS-") {
        return Err(damaged("no signature").expected("-FVE-FS-"));
    }
    let number = |at| u16_at(&head, at).unwrap_or(0);
    let version = number(10);
    let size = usize::from(number(8)) << if version >= 2 { 4 } else { 0 };
    let end = offset.checked_add(size as u64 + 8);
    if !(HEADER_BYTES + 48..=MAX_BLOCK_BYTES).contains(&size) || end.is_none_or(|end| end > volume.len()) {
        return Err(damaged("its size is wrong").found(size));
    }
    let block = volume.read_vec(offset, size + 8)?;
    if u32_at(&block, size + 4) != Some(crc32fast::hash(&block[..size])) {
        return Err(damaged("its checksum is wrong"));
    }
    let set = &block[HEADER_BYTES..size];
    let field = |at| u32_at(set, at).map_or(0, |number| number as usize);
    let list =
        set.get(field(8)..field(12).min(set.len())).ok_or_else(|| damaged("its entries lie outside"))?;
    let id = Guid::at(set, 16).ok_or_else(beyond)?;
    let (mut protectors, mut description, mut clear) = (Vec::new(), None, false);
    for entry in entries(list) {
        match (entry.role, entry.kind) {
            (ROLE_PROTECTOR, TYPE_PROTECTOR) => {
                let keys = entry.data.get(28..).map(entries).unwrap_or_default();
                clear |= u16_at(entry.data, 26).is_some_and(|number| number & 0xff00 == 0)
                    && keys.iter().any(|key| key.kind == TYPE_KEY);
                protectors.extend(protector(entry.data));
            }
            (ROLE_DESCRIPTION, TYPE_TEXT) => description = text(entry.data),
            _ => {}
        }
    }
    let state = state(number(12), number(14), clear);
    let moving = matches!(state, "encrypting" | "decrypting" | "paused");
    Ok(BitLocker {
        id: id.to_string(),
        state,
        key_in_the_clear: clear,
        method: method(u16_at(set, 36).unwrap_or(0)),
        created: time(u64_at(set, 40)),
        description,
        version,
        encrypt_on_write: false,
        encrypted_bytes: u64_at(&head, 16).filter(|_| moving),
        good_copies: 0,
        protectors,
    })
}
