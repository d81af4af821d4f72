//! Puts the Windows volume of the demo disk under BitLocker: files keep the places of BitLocker's metadata, as on Windows
//! (`System Volume Information\FVE2.{...}`), then `crypt::testing` enciphers the volume.

use super::put;
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_block::{Disk, DiskMut, HostFile};
use vmrescue_crypt::testing::{BLOCK_BYTES, Protect, Spec, encrypt as encrypt_volume, key_file};
use vmrescue_fs::open_mut;
use vmrescue_image as image;
use vmrescue_windows::Machine;

/// Bytes of the first sectors, which go elsewhere.
const HEADER_BYTES: u64 = 8 << 10;
/// A page that finds itself again.
const PAGE: usize = 4096;
const PIECE: usize = 1 << 20;

/// What opens the demo disk. Known to everybody: they are printed here.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// 48 digits.
    pub recovery_password: &'static str,
    /// The password.
    pub password: &'static str,
    /// The bytes of the `.BEK` file.
    pub key_file: Vec<u8>,
    /// Ids of the three protectors: recovery password, password, external key.
    pub ids: [Guid; 3],
}

fn id(number: u8) -> Guid {
    Guid::from_fields(0x2026_0101, 0xb17c, 0x4000 | u16::from(number), [0x80, 1, 2, 3, 4, 5, 6, number])
}

/// What opens a disk that [`encrypt`] made.
pub fn secrets() -> Secrets {
    Secrets {
        recovery_password: "000011-000022-000033-000044-000055-000066-000077-720885",
        password: "correct horse \u{a3} battery",
        key_file: key_file(&id(3), &[0x5a; 32]),
        ids: [id(1), id(2), id(3)],
    }
}

/// Enciphers the volume of the first installation with a method of the metadata (0x8000 to 0x8005).
///
/// # Errors
/// Of the host; `Refused` when the volume has no room in one piece.
pub fn encrypt(path: &Path, method: u16) -> Result<()> {
    let file = DiskMut::new(Arc::new(HostFile::open_write(path)?));
    let disk = image::open_mut(&file, None)?.disk;
    let machine = Machine::open(disk.as_disk())?;
    let volume = &machine.volumes[machine.installation(None)?.volume];
    let window = disk.window(volume.range.clone())?;
    let volume_id = id(0);
    let wanted = [HEADER_BYTES, BLOCK_BYTES, BLOCK_BYTES, BLOCK_BYTES];
    let mut places = [0; 4];
    {
        let mut fs = open_mut(window.clone())?;
        for (number, bytes) in wanted.iter().enumerate() {
            let name = if number == 0 { String::new() } else { format!(".{number}") };
            let path = format!(r"System Volume Information\FVE2.{{{volume_id}}}{name}");
            put(&mut *fs, &path, &marked(number as u8, *bytes as usize))?;
        }
        fs.sync()?;
    }
    for (number, (place, bytes)) in places.iter_mut().zip(wanted).enumerate() {
        *place = find(&window.as_disk(), &marked(number as u8, bytes as usize))?;
    }
    let known = secrets();
    let spec = Spec {
        method,
        volume_key: (0..64u8).map(|i| i.wrapping_mul(37) ^ 0xc3).collect(),
        master_key: std::array::from_fn(|i| i as u8 ^ 0x99),
        id: volume_id,
        blocks: [places[1], places[2], places[3]],
        header: (places[0], HEADER_BYTES),
        protectors: vec![
            Protect::External(known.ids[2], [0x5a; 32]),
            Protect::RecoveryPassword(known.ids[0], known.recovery_password.into()),
            Protect::Passphrase(known.ids[1], known.password.into()),
        ],
        paused_at: None,
    };
    encrypt_volume(&window, &spec)?;
    disk.flush()
}

/// Content that is nowhere else: its own name in each page.
fn marked(number: u8, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    for (index, page) in all.chunks_mut(PAGE).enumerate() {
        page[..24].copy_from_slice(b"vmrescue place of BitLoc");
        page[24..26].copy_from_slice(&[number, index as u8]);
    }
    all
}

/// Where this content lies in one piece.
fn find(volume: &Disk, content: &[u8]) -> Result<u64> {
    let mut at = 0;
    while at < volume.len() {
        let piece = volume.read_vec(at, (volume.len() - at).min(PIECE as u64) as usize)?;
        for (index, page) in piece.chunks(PAGE).enumerate() {
            let place = at + (index * PAGE) as u64;
            let fits = page.get(..32) == content.get(..32) && volume.len() - place >= content.len() as u64;
            if fits && volume.read_vec(place, content.len())? == content {
                return Ok(place);
            }
        }
        at += piece.len() as u64;
    }
    Err(Error::refused(Layer::BitLocker, "the volume has no room in one piece for BitLocker's metadata"))
}
