//! `.BEK` files: external keys, as startup keys and recovery keys are kept on sticks, and by Azure Disk Encryption.
//!
//! Format: libbde's format document, "BitLocker External Key (BEK) file": a header like that of the metadata's data set (48 bytes),
//! then entries; one of them is the external key, with the id of its protector and the key inside.

use super::entry::{Key, ROLE_EXTERNAL_KEY, Secret256, TYPE_EXTERNAL_KEY, TYPE_KEY, entries};
use std::path::Path;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use zeroize::Zeroizing;

/// Largest file that is looked at; they have 156 bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Most files of one folder.
const MAX_FILES: usize = 1024;

/// The id of the protector and the key. The file may also be written in Base64, as the secret of Azure Key Vault is.
///
/// # Errors
/// `Damaged` when it is no key.
pub(super) fn parse(file: &[u8]) -> Result<(Guid, Secret256)> {
    match base64(file) {
        Some(decoded) => parse_bytes(&decoded),
        None => parse_bytes(file),
    }
}

/// The bytes behind text in Base64 (RFC 4648, section 4); `None` for anything else.
fn base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.trim_ascii();
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len()));
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (!text.is_empty() && text.len().is_multiple_of(4)).then_some(bytes)
}

fn parse_bytes(file: &[u8]) -> Result<(Guid, Secret256)> {
    let damaged = |text: &str| Error::damaged(Layer::BitLocker, format!("not a BitLocker key file: {text}"));
    let field = |at| u32_at(file, at).map_or(0, |number| number as usize);
    let (size, start, end) = (field(0), field(8), field(12));
    if field(4) != 1 || start < 48 || size > file.len() || end > size {
        return Err(damaged("its header is wrong").advice(
            "a secret that Azure Key Vault has wrapped with a key of its own (KEK) has to be unwrapped by Key Vault first",
        ));
    }
    let list = entries(file.get(start..end).unwrap_or_default());
    let external =
        list.iter().find(|e| (e.role, e.kind) == (ROLE_EXTERNAL_KEY, TYPE_EXTERNAL_KEY)).map(|e| e.data);
    let external = external.ok_or_else(|| damaged("it has no external key"))?;
    let id = Guid::at(external, 0).ok_or_else(|| damaged("its key has no id"))?;
    let inner = entries(external.get(24..).unwrap_or_default());
    let key = inner.iter().filter(|e| e.kind == TYPE_KEY).find_map(|e| Key::parse(e.data)?.full());
    Ok((id, key.ok_or_else(|| damaged("its key does not have 256 bits"))?))
}

/// The file, or the files `*.bek` of a folder, with their names.
///
/// # Errors
/// Of the host; `NotFound` for a folder without any.
pub(super) fn files(path: &Path) -> Result<Vec<(String, Zeroizing<Vec<u8>>)>> {
    let failed = |e| Error::io("a key cannot be read", path, e);
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("bek")) {
            found.push(file);
        }
    }
    found.sort();
    found.truncate(MAX_FILES);
    if found.is_empty() {
        return Err(Error::not_found(Layer::BitLocker, "no *.BEK in this folder").in_file(path));
    }
    // Of many files one that cannot be read (a folder of such a name, a file too large) does not matter.
    let (mut keys, mut wrong) = (Vec::new(), None);
    for file in &found {
        match read(file) {
            Ok(key) => keys.push(key),
            Err(e) => wrong = Some(e),
        }
    }
    wrong.filter(|_| keys.is_empty()).map_or(Ok(keys), Err)
}

fn read(path: &Path) -> Result<(String, Zeroizing<Vec<u8>>)> {
    let failed = |e| Error::io("a key cannot be read", path, e);
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        return Err(Error::limit(Layer::BitLocker, "size of a key file").in_file(path).found(size));
    }
    Ok((path.display().to_string(), Zeroizing::new(std::fs::read(path).map_err(failed)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_file_of_a_folder_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("old.BEK")).unwrap();
        std::fs::write(dir.path().join("large.bek"), vec![0; MAX_FILE_BYTES as usize + 1]).unwrap();
        assert!(files(dir.path()).is_err(), "none is a key");
        std::fs::write(dir.path().join("right.bek"), "key").unwrap();
        let found = files(dir.path()).unwrap();
        assert!(found.len() == 1 && found[0].0.ends_with("right.bek"));
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let pairs: [(&str, &str); 6] = [
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy\n", "foobar"),
        ];
        for (text, plain) in pairs {
            assert_eq!(base64(text.as_bytes()).unwrap().as_slice(), plain.as_bytes());
        }
        assert!(base64(b"").is_none() && base64(b"Zg=").is_none() && base64(b"Z-==").is_none());
    }

    #[test]
    fn a_key_file_is_read_plain_and_in_base64_and_wrong_ones_in_a_folder_are_passed_over() {
        let id = Guid([7; 16]);
        let file = crate::testing::key_file(&id, &[5; 32]);
        assert_eq!(parse(&file).unwrap(), (id, Zeroizing::new([5; 32])));
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in file.chunks(3) {
            let number = three.iter().fold(0u32, |number, byte| (number << 8) | u32::from(*byte))
                << ((3 - three.len()) * 8);
            for place in 0..4 {
                let digit = alphabet[(number >> (18 - 6 * place) & 63) as usize] as char;
                text.push(if place > three.len() { '=' } else { digit });
            }
        }
        assert_eq!(parse(text.as_bytes()).unwrap().0, id);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("._a.BEK"), "rubbish").unwrap();
        assert!(crate::Keys::none().with_external_key_path(dir.path()).is_err(), "none of them is a key");
        std::fs::write(dir.path().join("b.BEK"), &file).unwrap();
        assert!(!crate::Keys::none().with_external_key_path(dir.path()).unwrap().is_empty());
        // What is cut or changed is an error, never a panic.
        for end in 0..file.len() {
            assert!(parse(&file[..end]).is_err());
        }
    }
}
