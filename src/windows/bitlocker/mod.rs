//! BitLocker volumes as they can be seen without a key: state, method, and the protectors by kind and id. Nothing is decrypted.
//!
//! Format: libbde's "BitLocker Drive Encryption (BDE) format"; names of fields as fvevol.sys has them (dissect.fve). `header`
//! finds the metadata blocks, `metadata` reads one.
//!
//! Missing: how much of a volume with "used space only" is encrypted.

mod header;
mod metadata;
#[cfg(test)]
mod tests;

use crate::block::Disk;
use crate::error::{Error, Layer, Result};
use crate::time::FileTime;
use serde::Serialize;

/// A BitLocker volume, from the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BitLocker {
    /// The volume's identifier.
    pub id: String,
    /// State in words: `encrypted`, `suspended`, `encrypting`, `decrypting`, `paused`, `decrypted`.
    pub state: &'static str,
    /// True when the key lies on the disk in the clear: whoever has the disk can read it.
    pub key_in_the_clear: bool,
    /// `AES-XTS 128` and the like.
    pub method: String,
    /// When encryption was set up.
    #[serde(serialize_with = "super::facts::time_text")]
    pub created: Option<FileTime>,
    /// Name of machine, volume and day, as Windows wrote it.
    pub description: Option<String>,
    /// Version of the metadata: 1 Windows Vista, 2 Windows 7 and later.
    pub version: u16,
    /// Encrypted as it is written, "used space only".
    pub encrypt_on_write: bool,
    /// Bytes from the start that are encrypted, while the state is one on the way.
    pub encrypted_bytes: Option<u64>,
    /// How many of the three copies of the metadata are whole.
    pub good_copies: u32,
    /// What opens the volume.
    pub protectors: Vec<Protector>,
}

/// A key protector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protector {
    /// Its id, as `manage-bde -protectors -get` shows it and as directories keep recovery passwords under.
    pub id: String,
    /// Kind in words: `recovery password`, `TPM`, `TPM and PIN`, `external key`, `password`, `clear key`, ...
    pub kind: String,
    /// When it was last changed.
    #[serde(serialize_with = "super::facts::time_text")]
    pub changed: Option<FileTime>,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// True when the first sector of a volume is one of BitLocker's.
pub fn is_bitlocker(first: &[u8]) -> bool {
    header::places(first).is_some()
}

/// Reads the metadata of a BitLocker volume; `None` when it is none.
///
/// # Errors
/// `Damaged` when no copy of the metadata can be read; of the disk.
pub fn bitlocker(volume: &Disk) -> Result<Option<BitLocker>> {
    if volume.len() < 512 {
        return Ok(None);
    }
    let first = volume.read_vec(0, 512)?;
    let Some(places) = header::places(&first) else { return Ok(None) };
    let mut found: Option<BitLocker> = None;
    let (mut good, mut last) = (0, None);
    for offset in places.blocks {
        match metadata::read(volume, offset) {
            Ok(read) => {
                good += 1;
                found.get_or_insert(read);
            }
            Err(e) => last = Some(e),
        }
    }
    let Some(mut found) = found else {
        let e = Error::damaged(Layer::FileSystem, "no copy of the BitLocker metadata can be read")
            .advice("repair-bde of Windows may still recover the volume with a key package");
        return Err(match last {
            Some(last) => e.caused_by(last),
            None => e,
        });
    };
    found.good_copies = good;
    found.encrypt_on_write = places.encrypt_on_write;
    Ok(Some(found))
}

impl BitLocker {
    /// What to tell a user whose volume is locked.
    pub fn locked_text(&self) -> String {
        let protectors: Vec<String> =
            self.protectors.iter().map(|p| format!("{} {{{}}}", p.kind, p.id)).collect();
        let list = if protectors.is_empty() { "none".to_string() } else { protectors.join(", ") };
        match self.state {
            "decrypted" => format!("BitLocker, decrypted; protectors: {list}"),
            state => format!("locked by BitLocker ({}, {state}); protectors: {list}", self.method),
        }
    }
}
