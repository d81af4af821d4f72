//! `PSF`, the storage of express updates: files and deltas one behind the other, told by an index (`urn:ContainerIndex`) that lies beside it as
//! `*.psf.cix.xml` or, packed, inside.
//!
//! No genuine one was at hand; written from public descriptions, and tried on one that was made from them.

use crate::delta;
use crate::xml::{Part, Parts, Tag, decode as decode_text};
use sha2::{Digest, Sha256};
use vmrescue_base::bytes::{slice_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::text::hex;

const MAGIC: &[u8] = b"PSTREAM";
/// Where the storage says where its own index lies.
const INDEX_PLACE: usize = 40;
/// Longest index, and most files of one.
const MAX_INDEX_BYTES: u64 = 256 << 20;
const MAX_FILES: usize = 1 << 20;

fn damaged(what: &str) -> Error {
    Error::damaged(Layer::Payload, format!("PSF: {what}"))
}

/// How a file lies in the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// As it is.
    Raw,
    /// As a delta against nothing.
    Pa30,
}

/// A file of the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PsfFile {
    /// Its name: `<component>\[f|r|n\]<file>`; never one that leads out of a folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of what comes out.
    pub sha256: [u8; 32],
    kept: Kept,
    offset: u64,
    packed: u64,
    packed_sha256: Option<[u8; 32]>,
}

/// True for the head of a storage.
pub fn is_psf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The index that lies inside of a storage.
///
/// # Errors
/// `Damaged`, `Limit`.
pub fn own_index(psf: &[u8]) -> Result<Vec<u8>> {
    let place = |at| u32_at(psf, at).map(|place| place as usize);
    let (Some(at), Some(length)) = (place(INDEX_PLACE), place(INDEX_PLACE + 4)) else {
        return Err(damaged("its head is cut off").at(psf.len() as u64));
    };
    let packed = slice_at(psf, at, length).ok_or_else(|| {
        damaged("its index lies behind its end").at(INDEX_PLACE as u64).found(format!("{at:#x}"))
    })?;
    Ok(delta::apply(packed, &[], MAX_INDEX_BYTES)?.data)
}

/// The files that an index names.
///
/// # Errors
/// `Damaged` for one that cannot be, and for a name that leads out of a folder; `Unsupported` for files that need a basis.
pub fn files(index: &[u8]) -> Result<Vec<PsfFile>> {
    let text = decode_text(index);
    let mut found: Vec<PsfFile> = Vec::new();
    let (mut depth, mut in_source) = (0, false);
    for part in Parts(&text) {
        let (tag, empty) = match part {
            Part::Open(tag, empty) => (tag, empty),
            Part::Close(name) => {
                match crate::xml::local(name) {
                    "File" => depth = 0,
                    "Source" => in_source = false,
                    _ => {}
                }
                continue;
            }
            Part::Text(_) => continue,
        };
        match tag.local() {
            "File" => {
                if found.len() >= MAX_FILES {
                    return Err(Error::limit(Layer::Payload, "PSF: the index names too many files"));
                }
                found.push(file(&tag)?);
                depth = usize::from(!empty);
            }
            "Hash" if depth > 0 => {
                let is_sha256 = tag.attribute("alg").is_some_and(|alg| alg.eq_ignore_ascii_case("SHA256"));
                let hash = tag.attribute("value").and_then(|value| unhex(&value)).filter(|_| is_sha256);
                if let (Some(own), Some(hash)) = (found.last_mut(), hash) {
                    if in_source {
                        own.packed_sha256 = Some(hash);
                    } else {
                        own.sha256 = hash;
                    }
                }
            }
            "Source" if depth > 0 => {
                in_source = !empty;
                if let Some(own) = found.last_mut() {
                    source(own, &tag)?;
                }
            }
            "Basis" if depth > 0 => {
                return Err(Error::unsupported(Layer::Payload, "PSF: a file that is made of another one")
                    .found(found.last().map_or("", |own| &own.name)));
            }
            _ => {}
        }
    }
    match found.iter().find(|own| own.packed == 0 && own.size > 0) {
        Some(own) => Err(damaged("the index does not say where a file lies").found(&own.name)),
        None => Ok(found),
    }
}

fn number(tag: &Tag<'_>, name: &str) -> Option<u64> {
    tag.attribute(name)?.parse().ok()
}

fn file(tag: &Tag<'_>) -> Result<PsfFile> {
    let name = tag.attribute("name").unwrap_or_default().into_owned();
    let parts: Vec<&str> = name.split(['\\', '/']).collect();
    let is_inside =
        parts.iter().all(|part| !part.is_empty() && *part != ".." && *part != "." && !part.contains(':'));
    if !is_inside {
        return Err(damaged("a name leads out of the folder").found(name));
    }
    let size = number(tag, "length").ok_or_else(|| damaged("a file has no length").found(&name))?;
    let name = parts.join("\\");
    Ok(PsfFile { name, size, sha256: [0; 32], kept: Kept::Raw, offset: 0, packed: 0, packed_sha256: None })
}

fn source(own: &mut PsfFile, tag: &Tag<'_>) -> Result<()> {
    own.kept = match tag.attribute("type").unwrap_or_default().as_ref() {
        "RAW" => Kept::Raw,
        "PA30" => Kept::Pa30,
        other => {
            return Err(Error::unsupported(Layer::Payload, "PSF: how a file is kept")
                .expected("RAW or PA30")
                .found(format!("{other}, for {}", own.name)));
        }
    };
    let (Some(offset), Some(packed)) = (number(tag, "offset"), number(tag, "length")) else {
        return Err(damaged("the index does not say where a file lies").found(&own.name));
    };
    (own.offset, own.packed) = (offset, packed);
    Ok(())
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 64)
}

impl PsfFile {
    /// Where it lies in the storage: offset and length.
    pub fn place(&self) -> (u64, u64) {
        (self.offset, self.packed)
    }

    /// The file out of its bytes in the storage, proved by the index.
    ///
    /// # Errors
    /// `Damaged` when a hash does not fit; of the delta; `Limit`.
    pub fn decode(&self, stored: &[u8], limit: u64) -> Result<Vec<u8>> {
        let fits = |bytes: &[u8], wanted: [u8; 32], what: &str| {
            let is: [u8; 32] = Sha256::digest(bytes).into();
            if is == wanted {
                return Ok(());
            }
            Err(damaged(what).at(self.offset).expected(hex(&wanted)).found(format!(
                "{}, for {}",
                hex(&is),
                self.name
            )))
        };
        if let Some(wanted) = self.packed_sha256 {
            fits(stored, wanted, "what lies in the storage does not have its hash")?;
        }
        if self.size > limit {
            return Err(Error::limit(Layer::Payload, "PSF: a file is too large").found(self.size));
        }
        let data = match self.kept {
            Kept::Raw => stored.to_vec(),
            Kept::Pa30 => delta::apply(stored, &[], self.size)?.data,
        };
        fits(&data, self.sha256, "a file does not have the hash of the index")?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    fn entry(name: &str, kind: &str, offset: usize, stored: &[u8], data: &[u8]) -> String {
        let (length, packed) = (data.len(), stored.len());
        let (own, inner) = (hex(&Sha256::digest(data)), hex(&Sha256::digest(stored)));
        format!(
            "<File id=\"0\" name=\"{name}\" length=\"{length}\"><Hash alg=\"SHA256\" value=\"{own}\"/><Delta>\
             <Source type=\"{kind}\" offset=\"{offset}\" length=\"{packed}\"><Hash alg=\"SHA256\" value=\"{inner}\"/></Source></Delta></File>"
        )
    }

    fn index(files: &[String]) -> Vec<u8> {
        format!(
            "<Container type=\"PSF\" xmlns=\"urn:ContainerIndex\"><Files>{}</Files></Container>",
            files.concat()
        )
        .into_bytes()
    }

    #[test]
    fn files_come_out_of_a_storage_and_only_with_their_hashes() {
        let data = b"some file of an update".repeat(40);
        let packed = testing::pa30(b"", &data);
        let list = [
            entry(r"a\f\x.sys", "RAW", 0, &data, &data),
            entry(r"a\x.sys", "PA30", data.len(), &packed, &data),
        ];
        let found = files(&index(&list)).unwrap();
        assert_eq!(found[1].name, r"a\x.sys");
        assert!(found[0].decode(&data, 1 << 20).unwrap() == data);
        assert!(found[1].decode(&packed, 1 << 20).unwrap() == data);
        assert!(found[1].decode(&packed, 10).is_err());
        assert!(found[1].decode(&data, 1 << 20).is_err());
        let mut psf = vec![0; 64];
        psf[..7].copy_from_slice(MAGIC);
        let inner = testing::pa30(b"", &index(&list));
        psf[40..44].copy_from_slice(&64u32.to_le_bytes());
        psf[44..48].copy_from_slice(&(inner.len() as u32).to_le_bytes());
        psf.extend(&inner);
        assert!(is_psf(&psf) && own_index(&psf).unwrap() == index(&list));
        assert!(own_index(&psf[..psf.len() - 1]).is_err());
    }

    #[test]
    fn names_that_lead_out_and_unknown_kinds_are_refused() {
        for name in [r"..\x", r"a\..\..\x", r"C:\x", r"\x", "a//x"] {
            assert!(files(&index(&[entry(name, "RAW", 0, b"x", b"x")])).is_err(), "{name}");
        }
        assert!(files(&index(&[entry("x", "PA19", 0, b"x", b"x")])).is_err());
        assert!(files(b"<File name=\"x\" length=\"5\"/>").is_err());
    }

    proptest! {
        #[test]
        fn any_index_is_read_without_panic(cut in any::<prop::sample::Index>(), noise in "[a-zA-Z<>=\"/ 0-9]{0,60}") {
            let whole = String::from_utf8(index(&[entry("x", "RAW", 0, b"x", b"x")])).unwrap();
            drop(files(format!("{}{noise}", &whole[..cut.index(whole.len())]).as_bytes()));
        }
    }
}
