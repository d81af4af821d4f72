//! Authenticode: the hash of a PE file without its signature, and the signature in it ("Windows Authenticode Portable Executable Signature
//! Format", Microsoft, 2008).
//!
//! What is told: which hash the file has, and who says so in an embedded signature. Missing on purpose: checking the signature's own
//! mathematics and the chain to a root; that takes a clock, a root store and revocation lists.

use super::pe::signature_places;
use super::pkcs7::SignedData;
use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};

/// `wCertificateType` of PKCS #7.
const PKCS_SIGNED_DATA: u16 = 2;
/// Signatures inside signatures that are looked at.
const MAX_NESTED: usize = 4;

/// The Authenticode hashes of a PE file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeHashes {
    /// With SHA-1.
    pub sha1: [u8; 20],
    /// With SHA-256.
    pub sha256: [u8; 32],
}

/// Hashes a PE file without checksum, security entry and certificate table. A file without a signature is padded with zeros to a
/// multiple of eight bytes, as signing would pad it. `None` when the headers cannot be read.
pub fn pe_hashes(bytes: &[u8]) -> Option<PeHashes> {
    let (mut sha1, mut sha256) = (Sha1::new(), Sha256::new());
    for part in hashed_parts(bytes)? {
        sha1.update(part);
        sha256.update(part);
    }
    Some(PeHashes { sha1: sha1.finalize().into(), sha256: sha256.finalize().into() })
}

/// What the hash covers, in its order.
fn hashed_parts(bytes: &[u8]) -> Option<[&[u8]; 5]> {
    let (checksum, entry, table) = signature_places(bytes)?;
    let padding = if table.is_empty() { bytes.len().next_multiple_of(8) - bytes.len() } else { 0 };
    Some([
        bytes.get(..checksum)?,
        bytes.get(checksum + 4..entry)?,
        bytes.get(entry + 8..table.start)?,
        bytes.get(table.end..)?,
        &[0; 8][..padding],
    ])
}

/// The Authenticode hash with any algorithm; `None` when the headers cannot be read.
pub fn pe_digest<D: Digest>(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut hash = D::new();
    hashed_parts(bytes)?.iter().for_each(|part| hash.update(part));
    Some(hash.finalize().to_vec())
}

fn has_digest<D: Digest>(bytes: &[u8], digest: &[u8]) -> bool {
    pe_digest::<D>(bytes).is_some_and(|own| own == digest)
}

/// Who vouches for a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Signature {
    /// A signature in the file names its hash.
    Embedded {
        /// Common name and organisation of the signer.
        signer: String,
        /// The same of who issued the signer's certificate.
        issuer: String,
        /// `sha1`, `sha256`, `sha384` or `sha512`.
        algorithm: &'static str,
    },
    /// A signature in the file names another hash: the file was changed after it was signed.
    Broken {
        /// Common name and organisation of the signer.
        signer: String,
    },
    /// A catalog names the file's hash.
    Catalog {
        /// File name of the catalog.
        catalog: String,
        /// Common name and organisation of the catalog's signer.
        signer: String,
    },
    /// Neither was found.
    Missing,
    /// Nobody looked: see `--hash`.
    NotLooked,
}

impl Signature {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            Signature::Embedded { signer, algorithm, .. } => {
                format!("embedded signature by {signer} ({algorithm})")
            }
            Signature::Broken { signer } => format!("the signature by {signer} is for other content"),
            Signature::Catalog { catalog, signer } => format!("covered by catalog {catalog} of {signer}"),
            Signature::Missing => "no signature found".into(),
            Signature::NotLooked => "not looked at".into(),
        }
    }
}

/// What the embedded signature of a PE file says; `None` without one.
pub fn embedded_signature(bytes: &[u8], hashes: &PeHashes) -> Option<Signature> {
    signature_by(bytes, &|digest| match digest {
        digest if digest == hashes.sha256 => Some("sha256"),
        digest if digest == hashes.sha1 => Some("sha1"),
        // Rare: computed only where a signature asks for them.
        digest => rare_digest(bytes, digest),
    })
}

fn rare_digest(bytes: &[u8], digest: &[u8]) -> Option<&'static str> {
    match digest.len() {
        48 => has_digest::<Sha384>(bytes, digest).then_some("sha384"),
        64 => has_digest::<Sha512>(bytes, digest).then_some("sha512"),
        _ => None,
    }
}

/// What the embedded signature says, where `fits` names the algorithm by which a digest is the file's.
fn signature_by(bytes: &[u8], fits: &dyn Fn(&[u8]) -> Option<&'static str>) -> Option<Signature> {
    let (_, _, table) = signature_places(bytes)?;
    let certificate = slice_at(bytes, table.start, table.len()).filter(|table| table.len() > 8)?;
    let length = u32_at(certificate, 0)? as usize;
    if u16_at(certificate, 6)? != PKCS_SIGNED_DATA {
        return None;
    }
    let mut pending = vec![certificate.get(8..length)?];
    let mut broken = None;
    for _ in 0..MAX_NESTED {
        let Some(data) = pending.pop().and_then(SignedData::read) else { continue };
        let (signer, issuer) = data.signers.first().cloned().unwrap_or_default();
        if let Some(algorithm) = data.indirect_digest().and_then(fits) {
            return Some(Signature::Embedded { signer, issuer, algorithm });
        }
        if data.indirect_digest().is_some_and(|digest| matches!(digest.len(), 20 | 32 | 48 | 64)) {
            broken = Some(Signature::Broken { signer });
        }
        pending.extend(data.nested);
    }
    broken
}

/// The signer of the signature in a PE file, when that is for other content than the file's: the file was changed after it was signed, or the
/// signature was cut. `None` for files without a signature, and for those that fit.
pub fn broken_signature(bytes: &[u8]) -> Option<String> {
    let (_, _, table) = signature_places(bytes)?;
    if table.is_empty() {
        return None;
    }
    // Only the hash that the signature names is computed: files of the start are large, and there are many.
    let fits = |digest: &[u8]| match digest.len() {
        20 => has_digest::<Sha1>(bytes, digest).then_some("sha1"),
        32 => has_digest::<Sha256>(bytes, digest).then_some("sha256"),
        _ => rare_digest(bytes, digest),
    };
    match signature_by(bytes, &fits)? {
        Signature::Broken { signer } => Some(signer),
        Signature::Embedded { .. }
        | Signature::Catalog { .. }
        | Signature::Missing
        | Signature::NotLooked => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_does_not_change_the_hash_and_the_body_does() {
        let driver = crate::testing::driver("x.sys", "10.0.1.2", 0x8664);
        let hash = pe_hashes(&driver).unwrap();
        let mut other = driver.clone();
        other[0x98 + 64] ^= 1;
        assert_eq!(pe_hashes(&other).unwrap(), hash);
        *other.last_mut().unwrap() ^= 1;
        assert_ne!(pe_hashes(&other).unwrap(), hash);
        assert_eq!(embedded_signature(&driver, &hash), None);
        assert_eq!(pe_hashes(b"MZ"), None);
    }

    proptest! {
        #[test]
        fn damaged_files_are_hashed_without_panic(
            hits in prop::collection::vec((0usize..700, any::<u8>()), 0..12), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = crate::testing::driver("x.sys", "10.0.1.2", 0x8664);
            for (at, value) in hits {
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len()));
            if let Some(hashes) = pe_hashes(&bytes) {
                drop(embedded_signature(&bytes, &hashes));
            }
        }
    }
}
