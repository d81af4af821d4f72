//! A metadata block (FVE_INFORMATION with FVE_DATASET and its data): state, method, protectors, places that Windows keeps to itself.
//!
//! A header of 64 bytes, a data set of a 48-byte header and entries, then a CRC-32 over all of it and, since Windows 7, a box with
//! its SHA-256, which only who has the volume's key can make.

use super::entry::{
    Entry, Key, ROLE_DESCRIPTION, ROLE_HEADER_BLOCK, ROLE_PROTECTOR, ROLE_VOLUME_KEY, Sealed, Secret256,
    TYPE_HEADER_BLOCK, TYPE_KEY, TYPE_PROTECTOR, TYPE_SEALED, TYPE_STRETCH_KEY, TYPE_TEXT, entries,
};
use super::info::Protector;
use sha2::{Digest, Sha256};
use vmrescue_base::bytes::{array_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::text::{until_nul, utf16le_lossy};
use vmrescue_base::time::FileTime;
use vmrescue_block::Disk;

const HEADER_BYTES: usize = 64;
/// Most bytes of one block; Windows keeps 64 KiB for it.
const MAX_BLOCK_BYTES: usize = 1 << 20;
/// Most bytes behind the block that can belong to it: checksum and box.
const MAX_TAIL_BYTES: usize = 512;

/// States of a volume (FVE_STATE).
pub(super) const DECRYPTED: u16 = 1;
pub(super) const SWITCHING_DIRTY: u16 = 2;
pub(super) const PAUSED: u16 = 3;
pub(super) const ENCRYPTED: u16 = 4;
pub(super) const SWITCHING: u16 = 5;

/// A protector with what opens it.
#[derive(Clone)]
pub(super) struct Lock {
    pub(super) shown: Protector,
    pub(super) id: Guid,
    /// A bit for each means that is asked for.
    pub(super) means: u16,
    /// Salt of the stretching of passwords.
    pub(super) salt: Option<[u8; 16]>,
    /// Boxes with the volume's master key.
    pub(super) boxes: Vec<Sealed>,
    /// The key of the boxes, when it lies here in the clear.
    pub(super) clear: Option<Secret256>,
}

/// Means of a protector (the high byte of its number).
pub(super) const MEANS_CLEAR: u16 = 0;
pub(super) const MEANS_EXTERNAL: u16 = 0x0200;
pub(super) const MEANS_RECOVERY_PASSWORD: u16 = 0x0800;
pub(super) const MEANS_PASSPHRASE: u16 = 0x2000;

/// A metadata block.
#[derive(Clone)]
pub(super) struct Metadata {
    pub(super) offset: u64,
    pub(super) version: u16,
    pub(super) state: u16,
    pub(super) next_state: u16,
    /// Bytes from the start that are encrypted, where the state is one on the way; the whole volume otherwise.
    pub(super) state_offset: u64,
    /// Bytes at that place that were being converted.
    pub(super) state_bytes: u32,
    /// All three blocks.
    pub(super) blocks: [u64; 3],
    /// Version 1: cluster of the copy of $MFT, for the first sector. Version 2: see `header_block`.
    pub(super) mirror_cluster: u64,
    /// Where the first sectors of the volume lie, and how many bytes; none in version 1.
    pub(super) header_block: Option<(u64, u64)>,
    pub(super) id: Guid,
    pub(super) method: u16,
    pub(super) created: Option<FileTime>,
    pub(super) description: Option<String>,
    pub(super) locks: Vec<Lock>,
    /// Boxes with the key of the sectors.
    pub(super) volume_keys: Vec<Sealed>,
    digest: [u8; 32],
    seal: Option<Sealed>,
}

fn time(number: Option<u64>) -> Option<FileTime> {
    number.filter(|number| *number != 0).map(FileTime)
}

fn text(data: &[u8]) -> Option<String> {
    let text = utf16le_lossy(data);
    let text = until_nul(&text).trim();
    (!text.is_empty()).then(|| text.to_string())
}

/// The method in words.
pub(super) fn method_name(number: u16) -> String {
    match number {
        0 => "none".into(),
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
        MEANS_CLEAR => "clear key".into(),
        0x0100 => "TPM".into(),
        // On a stick or stored by another machine: manage-bde calls both so.
        MEANS_EXTERNAL => "external key".into(),
        0x0300 => "TPM and startup key".into(),
        0x0500 => "TPM and PIN".into(),
        0x0700 => "TPM, PIN and startup key".into(),
        MEANS_RECOVERY_PASSWORD => "recovery password".into(),
        0x1000 => "smart card".into(),
        MEANS_PASSPHRASE => "password".into(),
        _ => format!("unknown ({number:#06x})"),
    }
}

fn lock(data: &[u8]) -> Option<Lock> {
    let id = Guid::at(data, 0)?;
    let number = u16_at(data, 26)?;
    let inner = entries(data.get(28..)?);
    let of = |kind: u16| inner.iter().filter(move |entry| entry.kind == kind);
    let name = of(TYPE_TEXT).find_map(|entry| text(entry.data));
    let kind = kind(number);
    let key = of(TYPE_KEY).find_map(|entry| Key::parse(entry.data)?.full());
    Some(Lock {
        shown: Protector { id: id.to_string(), kind, changed: time(u64_at(data, 16)), name },
        id,
        means: number & 0xff00,
        salt: of(TYPE_STRETCH_KEY).find_map(|entry| array_at(entry.data, 4)),
        boxes: of(TYPE_SEALED).filter_map(|entry| Sealed::parse(entry.data)).collect(),
        clear: key.filter(|_| number & 0xff00 == MEANS_CLEAR),
    })
}

/// The place of the first sectors: the entry says it in bytes, the block's header in sectors.
fn header_block(list: &[Entry<'_>], head: &[u8], sector_bytes: u32) -> Option<(u64, u64)> {
    let entry = list.iter().find(|e| (e.role, e.kind) == (ROLE_HEADER_BLOCK, TYPE_HEADER_BLOCK));
    let said = entry.and_then(|entry| Some((u64_at(entry.data, 0)?, u64_at(entry.data, 8)?)));
    if let Some(said) = said.filter(|(_, bytes)| *bytes != 0) {
        return Some(said);
    }
    let bytes = u64::from(u32_at(head, 28)?).checked_mul(u64::from(sector_bytes))?;
    Some((u64_at(head, 56)?, bytes))
}

impl Metadata {
    /// Reads the block at `offset` of the volume.
    pub(super) fn read(volume: &Disk, offset: u64, sector_bytes: u32) -> Result<Metadata> {
        let damaged = |text: &str| Error::damaged(Layer::BitLocker, format!("metadata: {text}")).at(offset);
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
        if !(HEADER_BYTES + 48..=MAX_BLOCK_BYTES).contains(&size) || end.is_none_or(|end| end > volume.len())
        {
            return Err(damaged("its size is wrong").found(size));
        }
        let tail = (volume.len() - offset).min((size + MAX_TAIL_BYTES) as u64) as usize;
        let all = volume.read_vec(offset, tail)?;
        let (block, tail) = all.split_at(size);
        if u32_at(tail, 4) != Some(crc32fast::hash(block)) {
            return Err(damaged("its checksum is wrong"));
        }
        let set = &block[HEADER_BYTES..];
        let field = |at| u32_at(set, at).map_or(0, |number| number as usize);
        let list =
            set.get(field(8)..field(12).min(set.len())).ok_or_else(|| damaged("its entries lie outside"))?;
        let list = entries(list);
        let of = |role: u16, kind: u16| list.iter().filter(move |e| (e.role, e.kind) == (role, kind));
        let place = |at| u64_at(&head, at).unwrap_or(0);
        let seal = tail.get(8..).filter(|_| version >= 2).map(entries).unwrap_or_default();
        Ok(Metadata {
            offset,
            version,
            state: number(12),
            next_state: number(14),
            state_offset: place(16),
            state_bytes: u32_at(&head, 24).unwrap_or(0),
            blocks: [place(32), place(40), place(48)],
            mirror_cluster: place(56),
            header_block: if version >= 2 { header_block(&list, &head, sector_bytes) } else { None },
            id: Guid::at(set, 16).ok_or_else(beyond)?,
            method: u16_at(set, 36).unwrap_or(0),
            created: time(u64_at(set, 40)),
            description: of(ROLE_DESCRIPTION, TYPE_TEXT).find_map(|entry| text(entry.data)),
            locks: of(ROLE_PROTECTOR, TYPE_PROTECTOR).filter_map(|entry| lock(entry.data)).collect(),
            volume_keys: of(ROLE_VOLUME_KEY, TYPE_SEALED).filter_map(|e| Sealed::parse(e.data)).collect(),
            digest: Sha256::digest(block).into(),
            seal: seal.first().filter(|e| e.kind == TYPE_SEALED).and_then(|e| Sealed::parse(e.data)),
        })
    }

    /// Whether the block is as someone with the master key wrote it; `None` when it does not say (Windows Vista).
    pub(super) fn is_genuine(&self, master: &Secret256) -> Option<bool> {
        let seal = self.seal.as_ref()?;
        Some(seal.open(master).is_some_and(|key| key.bytes.as_slice() == self.digest))
    }

    /// True when a key that opens the volume lies on the disk.
    pub(super) fn has_clear_key(&self) -> bool {
        self.locks.iter().any(|lock| lock.clear.is_some())
    }

    /// The state in words.
    pub(super) fn state_word(&self) -> &'static str {
        match (self.state, self.next_state) {
            (DECRYPTED, _) => "decrypted",
            (PAUSED, _) => "paused",
            (SWITCHING_DIRTY | SWITCHING | ENCRYPTED, DECRYPTED) => "decrypting",
            (SWITCHING_DIRTY | SWITCHING, _) => "encrypting",
            (ENCRYPTED, _) if self.has_clear_key() => "suspended",
            (ENCRYPTED, _) => "encrypted",
            _ => "unknown",
        }
    }

    /// True when two copies say the same of what is encrypted.
    pub(super) fn agrees(&self, other: &Metadata) -> bool {
        let facts =
            |m: &Metadata| (m.id, m.state, m.next_state, m.state_offset, m.state_bytes, m.header_block);
        facts(self) == facts(other)
    }
}
