//! Makes a BitLocker volume of a plain one, for tests and for the demo disk: never for a volume that anybody keeps data on.
//!
//! Keys, salts and nonces come from the caller or are fixed, so that the same input gives the same volume. The result has what
//! Windows 7 and later write: a first sector, three metadata blocks with checksum and sealed hash, protectors, and the first sectors
//! elsewhere. Other programs (libbde, dissect.fve, cryptsetup) open it, which the tests of the suite ask them.

use super::bek;
use super::cipher::Cipher;
use super::entry::{
    ROLE_DESCRIPTION, ROLE_EXTERNAL_KEY, ROLE_HEADER_BLOCK, ROLE_PROTECTOR, ROLE_VOLUME_KEY, Secret256,
    TYPE_EXTERNAL_KEY, TYPE_HEADER_BLOCK, TYPE_KEY, TYPE_PROTECTOR, TYPE_SEALED, TYPE_STRETCH_KEY, TYPE_TEXT,
    seal,
};
use super::header::RECOGNITION;
use super::keys::{passphrase_hash, recovery_hash, stretch};
use super::metadata::{ENCRYPTED, PAUSED};
use sha2::{Digest, Sha256};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_block::DiskMut;
use zeroize::Zeroizing;

/// Bytes that are kept for a metadata block.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// A moment for everything that has one: 2026-01-01.
const TIME: u64 = 134_117_856_000_000_000;
const PIECE: usize = 1 << 20;
const TYPE_USE_KEY: u16 = 4;

/// A protector to make.
#[derive(Debug, Clone)]
pub enum Protect {
    /// 48 digits.
    RecoveryPassword(Guid, String),
    /// A password.
    Passphrase(Guid, String),
    /// The key of a `.BEK` file; see [`key_file`].
    External(Guid, [u8; 32]),
    /// The key in the clear: protection is suspended.
    Clear(Guid, [u8; 32]),
}

/// What volume to make.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The number of the method in the metadata: 0x8000 to 0x8005.
    pub method: u16,
    /// Key of the sectors, as long as the method wants it: 64 bytes are enough for each.
    pub volume_key: Vec<u8>,
    /// Master key.
    pub master_key: [u8; 32],
    /// The volume's identifier.
    pub id: Guid,
    /// Places of the three metadata blocks, each [`BLOCK_BYTES`] that nothing else uses.
    pub blocks: [u64; 3],
    /// Place of the first sectors, and how many bytes they are.
    pub header: (u64, u64),
    /// What opens it.
    pub protectors: Vec<Protect>,
    /// Bytes from the start that are encrypted, when encryption has been paused; all when absent.
    pub paused_at: Option<u64>,
}

fn entry(role: u16, kind: u16, parts: &[&[u8]]) -> Vec<u8> {
    let data = parts.concat();
    let head = [(8 + data.len()) as u16, role, kind, 1];
    [head.iter().flat_map(|n| n.to_le_bytes()).collect(), data].concat()
}

fn text(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn key_data(method: u16, key: &[u8]) -> Vec<u8> {
    [&u32::from(method).to_le_bytes(), key].concat()
}

/// Boxes with nonces that count.
struct Sealer(u32);

impl Sealer {
    fn sealed(&mut self, role: u16, with: &[u8; 32], method: u16, key: &[u8]) -> Vec<u8> {
        self.0 += 1;
        let inside = entry(0, TYPE_KEY, &[&key_data(method, key)]);
        let nonce: [u8; 12] =
            std::array::from_fn(|i| if i < 8 { TIME.to_le_bytes()[i] } else { self.0.to_le_bytes()[i - 8] });
        entry(role, TYPE_SEALED, &[&seal(with, &nonce, &inside)])
    }
}

fn protector(sealer: &mut Sealer, protect: &Protect, master: &[u8; 32]) -> Result<Vec<u8>> {
    let head =
        |id: &Guid, means: u16| [&id.0[..], &TIME.to_le_bytes(), &[0, 0], &means.to_le_bytes()].concat();
    let mut stretched = |id: &Guid, means: u16, method: u16, hash: &Secret256, name: &str| {
        let salt = id.0;
        let key = stretch(hash, &salt);
        let inner = sealer.sealed(0, master, 0x2000, &**hash);
        let parts = [
            entry(0, TYPE_TEXT, &[&text(name)]),
            entry(0, TYPE_STRETCH_KEY, &[&u32::from(method).to_le_bytes(), &salt, &inner]),
            sealer.sealed(0, &key, 0x2003, master),
        ];
        entry(ROLE_PROTECTOR, TYPE_PROTECTOR, &[&head(id, means), &parts.concat()])
    };
    Ok(match protect {
        Protect::RecoveryPassword(id, text) => {
            stretched(id, 0x800, 0x1000, &recovery_hash(text)?, "DiskPassword")
        }
        Protect::Passphrase(id, text) => stretched(id, 0x2000, 0x1001, &passphrase_hash(text), "Password"),
        Protect::External(id, key) => {
            let inner = sealer.sealed(0, master, 0x2002, key);
            let parts = [
                entry(0, TYPE_TEXT, &[&text("ExternalKey")]),
                entry(0, TYPE_USE_KEY, &[&0x2002u32.to_le_bytes(), &inner]),
                sealer.sealed(0, key, 0x2003, master),
            ];
            entry(ROLE_PROTECTOR, TYPE_PROTECTOR, &[&head(id, 0x200), &parts.concat()])
        }
        Protect::Clear(id, key) => {
            let parts =
                [entry(0, TYPE_KEY, &[&key_data(0x2000, key)]), sealer.sealed(0, key, 0x2003, master)];
            entry(ROLE_PROTECTOR, TYPE_PROTECTOR, &[&head(id, 0), &parts.concat()])
        }
    })
}

/// Bytes of the key of a method.
fn key_bytes(method: u16) -> usize {
    match method {
        0x8002 => 16,
        0x8003 | 0x8004 => 32,
        _ => 64,
    }
}

/// A metadata block with its tail.
fn block(spec: &Spec, volume_bytes: u64, header_sectors: u32) -> Result<Vec<u8>> {
    let mut sealer = Sealer(0);
    let mut list = entry(ROLE_DESCRIPTION, TYPE_TEXT, &[&text("DEMO C: 1/1/2026")]);
    for protect in &spec.protectors {
        list.extend(protector(&mut sealer, protect, &spec.master_key)?);
    }
    let key = spec.volume_key.get(..key_bytes(spec.method));
    let key = key.ok_or_else(|| Error::invalid(Layer::BitLocker, "the key is too short for its method"))?;
    list.extend(sealer.sealed(ROLE_VOLUME_KEY, &spec.master_key, spec.method, key));
    let place = [spec.header.0.to_le_bytes(), spec.header.1.to_le_bytes()].concat();
    list.extend(entry(ROLE_HEADER_BLOCK, TYPE_HEADER_BLOCK, &[&place]));
    let size = (112 + list.len()).next_multiple_of(16);
    let mut all = vec![0; size];
    let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"-FVE-FS-");
    put(8, &((size >> 4) as u16).to_le_bytes());
    put(10, &2u16.to_le_bytes());
    let state = if spec.paused_at.is_some() { PAUSED } else { ENCRYPTED };
    put(12, &state.to_le_bytes());
    put(14, &ENCRYPTED.to_le_bytes());
    put(16, &spec.paused_at.unwrap_or(volume_bytes).to_le_bytes());
    put(28, &header_sectors.to_le_bytes());
    spec.blocks.iter().enumerate().for_each(|(i, at)| put(32 + i * 8, &at.to_le_bytes()));
    put(56, &spec.header.0.to_le_bytes());
    let set = (48 + list.len()) as u32;
    for (at, number) in
        [(0, set), (4, 1), (8, 48), (12, set), (32, sealer.0 + 2), (36, u32::from(spec.method))]
    {
        put(64 + at, &number.to_le_bytes());
    }
    put(80, &spec.id.0);
    put(104, &TIME.to_le_bytes());
    put(112, &list);
    let hash = Sha256::digest(&all);
    let mut tail = [((BLOCK_BYTES - size as u64) as u16).to_le_bytes(), 2u16.to_le_bytes()].concat();
    tail.extend(crc32fast::hash(&all).to_le_bytes());
    tail.extend(sealer.sealed(0, &spec.master_key, 0x2005, &hash));
    all.extend(tail);
    Ok(all)
}

/// The bytes of a `.BEK` file.
pub fn key_file(id: &Guid, key: &[u8; 32]) -> Vec<u8> {
    let inner = [entry(0, TYPE_TEXT, &[&text("ExternalKey")]), entry(0, TYPE_KEY, &[&key_data(0x2002, key)])];
    let external =
        entry(ROLE_EXTERNAL_KEY, TYPE_EXTERNAL_KEY, &[&id.0, &TIME.to_le_bytes(), &inner.concat()]);
    let size = (48 + external.len()) as u32;
    let numbers = [size, 1, 48, size].map(u32::to_le_bytes).concat();
    let file = [&numbers[..], &id.0, &1u32.to_le_bytes(), &[0; 4], &TIME.to_le_bytes(), &external].concat();
    debug_assert!(bek::parse(&file).is_ok());
    file
}

/// Enciphers a plain volume in place.
///
/// # Errors
/// `Invalid` for places that are outside or that overlap the first sectors; of the disk.
pub fn encrypt(volume: &DiskMut, spec: &Spec) -> Result<()> {
    let first = volume.as_disk().read_vec(0, 512)?;
    let sector = vmrescue_base::bytes::u16_at(&first, 11).unwrap_or(512);
    let cipher = Cipher::new(spec.method, &spec.volume_key, u32::from(sector))?;
    let (place, bytes) = spec.header;
    if place < bytes || bytes % u64::from(sector) != 0 || place % u64::from(sector) != 0 {
        return Err(Error::invalid(Layer::BitLocker, "place of the first sectors").at(place));
    }
    let header_sectors = (bytes / u64::from(sector)) as u32;
    let mut head = volume.as_disk().read_vec(0, bytes as usize)?;
    let end = spec.paused_at.unwrap_or(volume.len()) / u64::from(sector) * u64::from(sector);
    let mut at = 0;
    while at < end {
        let mut piece = volume.as_disk().read_vec(at, (end - at).min(PIECE as u64) as usize)?;
        cipher.encrypt(at, &mut piece);
        volume.write_at(at, &piece)?;
        at += piece.len() as u64;
    }
    if place < end {
        cipher.encrypt(place, &mut head);
    }
    volume.write_at(place, &head)?;
    let block = block(spec, volume.len(), header_sectors)?;
    for at in spec.blocks {
        volume.zero_at(at..at + BLOCK_BYTES)?;
        volume.write_at(at, &block)?;
    }
    volume.zero_at(0..bytes)?;
    let mut boot = Zeroizing::new([0u8; 512]);
    boot[..11].copy_from_slice(b"\xeb\x58\x90-FVE-FS-");
    boot[11..14].copy_from_slice(&first[11..14]);
    boot[21..32].copy_from_slice(&first[21..32]);
    boot[36..40].copy_from_slice(&0x1fe0u32.to_le_bytes());
    boot[64..67].copy_from_slice(&[0x80, 0, 0x29]);
    boot[71..90].copy_from_slice(b"NO NAME    FAT32   ");
    boot[160..176].copy_from_slice(&RECOGNITION.0);
    spec.blocks
        .iter()
        .enumerate()
        .for_each(|(i, at)| boot[176 + i * 8..184 + i * 8].copy_from_slice(&at.to_le_bytes()));
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    volume.write_at(0, &*boot)
}
