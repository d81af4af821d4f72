//! Packers for tests and for the disks of `demo`: the simplest that are right, not small.

use crate::delta::pack;
use crate::{cab, dcs, lzms};
use sha2::{Digest, Sha256};
use vmrescue_base::text::hex;

/// A `DCS` payload of this file.
pub fn dcs(file: &[u8]) -> Vec<u8> {
    let blocks: Vec<Vec<u8>> = file.chunks(dcs::WRITTEN_BLOCK_BYTES).map(lzms::pack::literals).collect();
    let mut out = dcs::MAGIC.to_vec();
    out.extend((blocks.len() as u32).to_le_bytes());
    out.extend((file.len() as u32).to_le_bytes());
    for (block, plain) in blocks.iter().zip(file.chunks(dcs::WRITTEN_BLOCK_BYTES)) {
        out.extend((block.len() as u32 + 4).to_le_bytes());
        out.extend((plain.len() as u32).to_le_bytes());
        out.extend(block);
    }
    out
}

/// A PA30 delta that makes `target` of `source`, with the SHA-256 of the target.
pub fn pa30(source: &[u8], target: &[u8]) -> Vec<u8> {
    pack::pa30(source, target)
}

/// A differential as `f\`, `r\` and `n\` hold it: the checksum, then the delta.
pub fn differential(source: &[u8], target: &[u8]) -> Vec<u8> {
    let delta = pack::pa30(source, target);
    [&crc32fast::hash(&delta).to_le_bytes()[..], &delta].concat()
}

/// A manifest packed against the base of the guest.
pub fn dcm(base: &[u8], text: &[u8]) -> Vec<u8> {
    [&b"DCM\x01"[..], &pack::without_hash(base, text)].concat()
}

/// A cabinet that stores these files as they are.
pub fn cabinet(files: &[(&str, &[u8])]) -> Vec<u8> {
    cab::stored(files)
}

/// An express storage of these files, as they are, with its index inside.
pub fn psf(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"PSTREAM\0".to_vec();
    out.resize(128, 0);
    let mut index = "<Container type=\"PSF\" xmlns=\"urn:ContainerIndex\"><Files>".to_string();
    for (name, bytes) in files {
        let (hash, length) = (hex(&Sha256::digest(bytes)), bytes.len());
        let hash = format!("<Hash alg=\"SHA256\" value=\"{hash}\"/>");
        index += &format!(
            "<File name=\"{name}\" length=\"{length}\">{hash}<Delta><Source type=\"RAW\" offset=\"{}\" length=\"{length}\">{hash}</Source></Delta></File>",
            out.len()
        );
        out.extend(*bytes);
    }
    index += "</Files></Container>";
    let (at, packed) = (out.len() as u32, pack::pa30(b"", index.as_bytes()));
    out[40..44].copy_from_slice(&at.to_le_bytes());
    out[44..48].copy_from_slice(&(packed.len() as u32).to_le_bytes());
    out.extend(packed);
    out
}
