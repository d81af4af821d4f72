//! BitLocker volumes as block devices: what can be seen without a key, opening with one, reading and writing in plain text.
//!
//! [`volume`] looks at a volume and tries the [`Keys`] that a user has; what it gives back says how the volume is ([`BitLocker`])
//! and, when it is open, has its [`View`]. [`plain`] and [`plain_mut`] lay views over a whole disk, so that everything above
//! (partitions, file systems, repairs) and below (containers, overlay, journal) works as without encryption: the journal and
//! the image only ever hold what is enciphered, and no key is written anywhere.
//!
//! Format: libbde's "BitLocker Drive Encryption (BDE) format"; names of fields as fvevol.sys has them (dissect.fve). One
//! structure a file: `header` (first sector), `metadata`, `entry`, `on_write` (encrypt-on-write), `bek` (key files); `keys` and
//! `unlock` go from secrets to the volume's key; `layout` maps; `cipher` and `elephant` decipher; `view` and `device` are the devices.
//!
//! Missing: writing while Windows converts a volume; the log of an interrupted conversion; keys of TPMs, smart cards and servers
//! (their volumes open with the recovery password); making or changing protectors.

mod bek;
mod cipher;
mod device;
mod elephant;
mod entry;
mod export;
mod header;
mod info;
mod keys;
mod layout;
mod metadata;
mod on_write;
pub mod testing;
#[cfg(test)]
mod tests;
mod unlock;
mod view;

pub use device::{Part, plain, plain_mut};
pub use info::{BitLocker, Protector};
pub use keys::Keys;
pub use view::View;

use cipher::Cipher;
use header::Header;
use metadata::{DECRYPTED, ENCRYPTED, Metadata};
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::Disk;

/// A BitLocker volume, and its plain text when it is open.
#[derive(Debug)]
pub struct Volume {
    /// How it is.
    pub info: BitLocker,
    /// Its plain text; `None` for a volume that stays locked.
    pub view: Option<Arc<View>>,
}

/// True when the first sector of a volume is one of BitLocker's.
pub fn is_bitlocker(first: &[u8]) -> bool {
    header::header(first).is_some()
}

/// The copies of the metadata that are whole, the one that counts first, and the last error.
fn copies(volume: &Disk, header: &Header) -> (Vec<Metadata>, Option<Error>) {
    let (mut good, mut last) = (Vec::<Metadata>::new(), None);
    let mut places = header.blocks.clone();
    let mut next = 0;
    while let Some(offset) = places.get(next).copied() {
        next += 1;
        match Metadata::read(volume, offset, header.sector_bytes) {
            Ok(read) => {
                // Each names all three; the first sector of Windows Vista names one.
                if good.is_empty() {
                    places.extend(read.blocks.iter().filter(|at| !header.blocks.contains(at)));
                }
                good.push(read);
            }
            Err(e) => last = Some(e),
        }
    }
    (good, last)
}

/// Looks at a volume and opens it with what lies on it or with a key that fits; `None` when it is not BitLocker's.
///
/// # Errors
/// `Damaged` when no copy of the metadata can be read, or they contradict themselves; of the disk.
pub fn volume(volume: &Disk, keys: &Keys) -> Result<Option<Volume>> {
    if volume.len() < 512 {
        return Ok(None);
    }
    let first = volume.read_vec(0, 512)?;
    let Some(header) = header::header(&first) else { return Ok(None) };
    let (good, last) = copies(volume, &header);
    let Some(chosen) = good.first() else {
        let e = Error::damaged(Layer::BitLocker, "no copy of the BitLocker metadata can be read")
            .advice("repair-bde of Windows may still recover the volume with a key package");
        return Err(match last {
            Some(last) => e.caused_by(last),
            None => e,
        });
    };
    let mut info = told(chosen, &header, good.len());
    if chosen.state == DECRYPTED {
        info.locked = false;
        let view = view(volume, &header, &good, chosen, None, &mut info)?;
        return Ok(Some(Volume { info, view: Some(Arc::new(view)) }));
    }
    let opened = match unlock::unlock(chosen, keys) {
        Ok(opened) => opened,
        Err(why) => {
            info.why_locked = why;
            return Ok(Some(Volume { info, view: None }));
        }
    };
    if chosen.is_genuine(&opened.master) == Some(false) {
        info.read_only = Some("its metadata was changed by somebody without its key".into());
    }
    let method = if opened.volume_key.method == 0 { chosen.method } else { opened.volume_key.method };
    let cipher = Cipher::new(method, &opened.volume_key.bytes, header.sector_bytes);
    let view = cipher.and_then(|cipher| view(volume, &header, &good, chosen, Some(cipher), &mut info));
    match view {
        Ok(view) => {
            (info.locked, info.unlocked_by) = (false, Some(opened.by));
            Ok(Some(Volume { info, view: Some(Arc::new(view)) }))
        }
        // The key fits, and still it cannot be shown.
        Err(e) => {
            info.why_locked.push(format!("{} opens it, but {e}", opened.by));
            Ok(Some(Volume { info, view: None }))
        }
    }
}

/// What the metadata says, without a key.
fn told(metadata: &Metadata, header: &Header, good_copies: usize) -> BitLocker {
    let state = metadata.state_word();
    let moving = matches!(state, "encrypting" | "decrypting" | "paused");
    let on_write = !header.on_write.is_empty();
    BitLocker {
        id: metadata.id.to_string(),
        state,
        key_in_the_clear: metadata.has_clear_key(),
        method: metadata::method_name(metadata.method),
        created: metadata.created,
        description: metadata.description.clone(),
        version: metadata.version,
        encrypt_on_write: on_write,
        encrypted_bytes: (moving && !on_write).then_some(metadata.state_offset),
        good_copies: good_copies as u32,
        protectors: metadata.locks.iter().map(|lock| lock.shown.clone()).collect(),
        locked: true,
        unlocked_by: None,
        why_locked: Vec::new(),
        read_only: None,
    }
}

/// The plain text of a volume; tells in `info` why it is not to be written, if so.
fn view(
    volume: &Disk,
    header: &Header,
    good: &[Metadata],
    chosen: &Metadata,
    cipher: Option<Cipher>,
    info: &mut BitLocker,
) -> Result<View> {
    if !header.sector_bytes.is_power_of_two() || !(512..=4096).contains(&header.sector_bytes) {
        return Err(Error::damaged(Layer::BitLocker, "size of a sector").found(header.sector_bytes));
    }
    let on_write = match header.on_write.as_slice() {
        [] => None,
        copies => Some(on_write::read(volume, copies)?),
    };
    let segments =
        layout::segments(chosen, on_write.as_ref(), header.cluster_bytes, header.sector_bytes, volume.len())?;
    let clear = |on_write: &on_write::OnWrite| {
        on_write.regions.iter().all(|region| region.stretches().iter().all(|(_, enciphered)| !enciphered))
    };
    let why = match (chosen.state, chosen.next_state) {
        (DECRYPTED, DECRYPTED) if on_write.as_ref().is_none_or(clear) => None,
        (ENCRYPTED, ENCRYPTED) if on_write.is_none() => None,
        (ENCRYPTED, ENCRYPTED) => Some("Windows is encrypting it as it is written".to_string()),
        _ => Some(format!("its encryption is on the way ({})", chosen.state_word())),
    };
    let differ = || {
        let same = good.iter().all(|other| chosen.agrees(other));
        (!same).then(|| "the copies of its metadata do not say the same".to_string())
    };
    info.read_only = info.read_only.take().or(why).or_else(differ);
    Ok(View {
        segments,
        cipher,
        sector: u64::from(header.sector_bytes),
        length: volume.len(),
        mirror_cluster: chosen.mirror_cluster,
        read_only: info.read_only.clone(),
    })
}
