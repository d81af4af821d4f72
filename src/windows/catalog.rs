//! Security catalogs, `System32\CatRoot\{F750E6C3-38EE-11D1-85E5-00C04FC295EE}\*.cat`: PKCS #7 signed data over a certificate trust list
//! whose members are hashes of files ([MS-CAESO] and wincrypt.h, `CTL_INFO`).
//!
//! A member is named by its hash: twenty or thirty-two octets, or the hash as hexadecimal UTF-16 text in the older form; the indirect data
//! among its attributes names it once more. Missing: catalogs of other subsystems, the database `CatRoot2`, the check of the signature.

use super::der::{Element, tag};
use super::machine::{Installation, Machine};
use super::pkcs7::{SPC_INDIRECT_DATA, SignedData, TRUST_LIST, digest_of};
use std::collections::{BTreeMap, BTreeSet};
use vmrescue_base::error::Result;
use vmrescue_base::text::utf16le_lossy;
use vmrescue_fs::{FileSystem, NodeId, NodeKind, read_file, resolve};

/// The subsystem of the operating system.
const SUBSYSTEM: &str = "{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";
/// Catalogs that are read; an installation has some thousands.
const MAX_CATALOGS: usize = 100_000;
/// Largest catalog that is read.
const MAX_CATALOG_BYTES: u64 = 64 << 20;

/// Calls `visit` with every hash of a catalog; returns the name of its signer. `None` when it is no catalog.
pub fn catalog_hashes(bytes: &[u8], visit: &mut dyn FnMut(&[u8])) -> Option<String> {
    let data = SignedData::read(bytes)?;
    if data.content_type != TRUST_LIST {
        return None;
    }
    let list = data.content?.expect(tag::SEQUENCE)?;
    // The members are the sequence whose first part is a sequence that starts with octets; what comes before is optional in part.
    let members = list.inner().find(|part| {
        let first = part.expect(tag::SEQUENCE).and_then(|part| part.inner().next());
        first
            .and_then(|first| first.expect(tag::SEQUENCE)?.inner().next())
            .is_some_and(|id| id.tag == tag::OCTETS)
    });
    for member in members.iter().flat_map(|members| members.inner()) {
        let mut parts = member.inner();
        let Some(id) = parts.next().and_then(|id| id.expect(tag::OCTETS)) else { continue };
        match id.content.len() {
            20 | 32 => visit(id.content),
            _ => {
                if let Some(hash) = from_text(id.content) {
                    visit(&hash);
                }
            }
        }
        if let Some(digest) = parts.next().and_then(digest_in) {
            visit(digest);
        }
    }
    Some(data.signers.into_iter().next().map_or_else(|| "an unnamed signer".into(), |(signer, _)| signer))
}

/// The digest in the indirect data among the attributes of a member.
fn digest_in(attributes: Element<'_>) -> Option<&[u8]> {
    attributes.inner().find_map(|attribute| {
        let mut parts = attribute.inner();
        if !parts.next()?.is_oid(SPC_INDIRECT_DATA) {
            return None;
        }
        digest_of(parts.next()?.inner().next()?)
    })
}

/// A hash in hexadecimal UTF-16 text.
fn from_text(octets: &[u8]) -> Option<Vec<u8>> {
    // Forty or sixty-four digits and a NUL.
    if !(80..=130).contains(&octets.len()) {
        return None;
    }
    let text = utf16le_lossy(octets);
    let digits: Vec<u8> = vmrescue_base::text::until_nul(&text)
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    matches!(digits.len(), 40 | 64)
        .then(|| digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect())
}

/// The catalogs of an installation that name the wanted hashes: file name and signer by hash.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// By hash.
    pub(super) by_hash: BTreeMap<Vec<u8>, (String, String)>,
    /// Catalogs that were looked into.
    pub(super) read: usize,
    /// Catalogs that could not be read.
    pub(super) unreadable: Vec<String>,
}

/// Looks for hashes in the catalogs of an installation; stops when all are found.
///
/// # Errors
/// Of the file system's directories; a catalog that cannot be read is only counted.
pub(super) fn find(
    machine: &Machine,
    installation: &Installation,
    mut wanted: BTreeSet<Vec<u8>>,
) -> Result<Found> {
    in_store(machine, installation, &mut wanted)
}

/// Looks in the catalog store, and takes what it finds out of `wanted`.
fn in_store(machine: &Machine, installation: &Installation, wanted: &mut BTreeSet<Vec<u8>>) -> Result<Found> {
    let mut found = Found::default();
    let fs = machine.file_system(installation.volume)?;
    let store = resolve(&*fs, &["Windows", "System32", "CatRoot", SUBSYSTEM])?;
    in_folder(&*fs, store, "", wanted, &mut found)?;
    Ok(found)
}

/// The same, and what the catalog store does not name in the catalogs beside the packages, which it was filled from. Their names have the
/// folder ahead.
///
/// # Errors
/// As [`find`].
pub(super) fn find_everywhere(
    machine: &Machine,
    installation: &Installation,
    mut wanted: BTreeSet<Vec<u8>>,
) -> Result<Found> {
    let mut found = in_store(machine, installation, &mut wanted)?;
    let fs = machine.file_system(installation.volume)?;
    let packages = resolve(&*fs, &["Windows", "servicing", "Packages"])?;
    in_folder(&*fs, packages, "servicing\\Packages\\", &mut wanted, &mut found)?;
    Ok(found)
}

fn in_folder(
    fs: &dyn FileSystem,
    folder: Option<NodeId>,
    ahead: &str,
    wanted: &mut BTreeSet<Vec<u8>>,
    found: &mut Found,
) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    for entry in fs.read_dir(folder)?.into_iter().take(MAX_CATALOGS) {
        if wanted.is_empty() {
            break;
        }
        if entry.kind != NodeKind::File || !entry.name.to_ascii_lowercase().ends_with(".cat") {
            continue;
        }
        let small = fs.metadata(entry.id).is_ok_and(|metadata| metadata.size_bytes <= MAX_CATALOG_BYTES);
        // One that cannot be read is named with those that are no catalogs.
        let bytes = if small { read_file(fs, entry.id, "").unwrap_or_default() } else { Vec::new() };
        found.read += 1;
        let name = format!("{ahead}{}", entry.name);
        let mut here: Vec<Vec<u8>> = Vec::new();
        let signer = catalog_hashes(&bytes, &mut |hash| {
            if let Some(hash) = wanted.take(hash) {
                here.push(hash);
            }
        });
        match signer {
            Some(signer) => {
                found.by_hash.extend(here.into_iter().map(|hash| (hash, (name.clone(), signer.clone()))));
            }
            None => found.unreadable.push(name),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vmrescue_base::text::{hex, utf16le_bytes};

    #[test]
    fn hashes_written_as_text_are_read() {
        let hash: Vec<u8> = (0..20).collect();
        assert_eq!(from_text(&utf16le_bytes(&(hex(&hash).to_uppercase() + "\0"))), Some(hash));
        assert_eq!(from_text(&utf16le_bytes(&"x".repeat(40))), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            drop(catalog_hashes(&bytes, &mut |_| {}));
            drop(from_text(&bytes));
        }
    }
}
