//! What a user has to open a volume: recovery passwords, passphrases, external keys; and the stretching that passwords go through.
//!
//! Format: libbde's format document, "Keys". Keys live in memory only and are wiped when they are dropped; nothing here prints or
//! stores them. Missing: keys that a TPM, a smart card or a server holds, and secrets that Azure Key Vault has wrapped with a key of
//! its own (KEK): Key Vault unwraps those, over the network.

use super::bek;
use super::entry::Secret256;
use super::export;
use sha2::digest::generic_array::GenericArray;
use sha2::{Digest, Sha256, compress256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use zeroize::{Zeroize, Zeroizing};

/// Rounds of the stretching.
const ROUNDS: u64 = 0x10_0000;
/// First state of SHA-256 (FIPS 180-4, 5.3.3).
const SHA256_START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
/// Groups of a recovery password.
const GROUPS: usize = 8;

const SHAPE: &str =
    "48 digits in eight groups of six, such as 471207-278498-422125-177177-561902-537405-468006-693451";

/// What a secret is.
pub(super) enum Kind {
    /// The hash that is stretched, and the protectors that it is said to belong to; none when nothing is said.
    RecoveryPassword(Secret256, Vec<Guid>),
    /// The hash that is stretched.
    Passphrase(Secret256),
    /// The key of the protector with that id.
    External(Guid, Secret256),
}

/// A secret, and what to call it without telling it.
pub(super) struct Secret {
    pub(super) kind: Kind,
    pub(super) name: String,
}

#[derive(Default)]
struct Inner {
    secrets: Vec<Secret>,
    /// What was given and cannot be a key, for the moment when nothing opens the volume.
    unusable: Vec<String>,
    /// Stretched hashes by secret and salt: stretching takes a moment, and a disk is opened several times.
    stretched: Mutex<HashMap<(usize, [u8; 16]), Secret256>>,
}

/// All secrets that a user has given. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keys(Arc<Inner>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.secrets.len())
    }
}

fn hash(bytes: &[u8]) -> Secret256 {
    Zeroizing::new(Sha256::digest(bytes).into())
}

/// The sixteen bytes behind a recovery password: 48 digits in eight groups, each eleven times a number of sixteen bits.
fn recovery_bytes(text: &str) -> Result<Zeroizing<[u8; 16]>> {
    let wrong = |why: String| {
        Error::invalid(Layer::BitLocker, format!("not a recovery password: {why}")).expected(SHAPE)
    };
    let digits = Zeroizing::new(
        text.chars().filter(|c| !c.is_whitespace() && !export::is_dash(*c)).collect::<String>(),
    );
    if let Some(other) = digits.chars().find(|c| !c.is_ascii_digit()) {
        return Err(wrong(format!("{other:?} is no digit")));
    }
    if digits.len() != GROUPS * 6 {
        return Err(wrong(format!("it has {} digits", digits.len())));
    }
    let mut bytes = Zeroizing::new([0; GROUPS * 2]);
    for (index, pair) in bytes.chunks_exact_mut(2).enumerate() {
        let number: u32 = digits[index * 6..index * 6 + 6].parse().map_err(|_| wrong("no number".into()))?;
        if !number.is_multiple_of(11) {
            return Err(wrong(format!("group {} is mistyped (it is not divisible by 11)", index + 1)));
        }
        let half = u16::try_from(number / 11)
            .map_err(|_| wrong(format!("group {} is mistyped (it must be less than 720896)", index + 1)))?;
        pair.copy_from_slice(&half.to_le_bytes());
    }
    Ok(bytes)
}

/// The hash of a recovery password that is stretched.
pub(super) fn recovery_hash(text: &str) -> Result<Secret256> {
    Ok(hash(&*recovery_bytes(text)?))
}

/// The hash of a passphrase that is stretched.
pub(super) fn passphrase_hash(text: &str) -> Secret256 {
    let wide = Zeroizing::new(text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    hash(&*hash(&wide))
}

/// The key that a hash and a salt become.
pub(super) fn stretch(hash: &Secret256, salt: &[u8; 16]) -> Secret256 {
    // SHA-256 of 88 bytes, again and again: last hash, first hash, salt, count. They and their padding fill two blocks,
    // which are kept so that each round only replaces what differs.
    let mut first = [0u8; 64];
    first[32..].copy_from_slice(&**hash);
    let mut second = [0u8; 64];
    second[..16].copy_from_slice(salt);
    second[24] = 0x80;
    second[56..].copy_from_slice(&(88u64 * 8).to_be_bytes());
    let mut blocks = [GenericArray::from(first), GenericArray::from(second)];
    let mut state = SHA256_START;
    for round in 0..ROUNDS {
        blocks[1][16..24].copy_from_slice(&round.to_le_bytes());
        state = SHA256_START;
        compress256(&mut state, &blocks);
        for (bytes, word) in blocks[0].chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&blocks[0][..32]);
    blocks.iter_mut().for_each(|block| block.as_mut_slice().zeroize());
    first.zeroize();
    state.zeroize();
    key
}

impl Inner {
    fn copied(&self) -> Inner {
        Inner {
            secrets: self.secrets.iter().map(Secret::copy).collect(),
            unusable: self.unusable.clone(),
            stretched: Mutex::default(),
        }
    }
}

impl Keys {
    /// No secret: opens only what needs none.
    pub fn none() -> Keys {
        Keys::default()
    }

    /// True without any secret.
    pub fn is_empty(&self) -> bool {
        self.0.secrets.is_empty()
    }

    fn with(self, kind: Kind, name: String) -> Keys {
        let Keys(shared) = self;
        let mut inner = Arc::try_unwrap(shared).unwrap_or_else(|shared| shared.copied());
        inner.secrets.push(Secret { kind, name });
        Keys(Arc::new(inner))
    }

    /// These, and a recovery password: 48 digits, with or without dashes and spaces.
    ///
    /// # Errors
    /// `Invalid` with the group that is mistyped.
    pub fn with_recovery_password(self, text: &str) -> Result<Keys> {
        Ok(self
            .with(Kind::RecoveryPassword(recovery_hash(text)?, Vec::new()), "the recovery password".into()))
    }

    /// These, and all recovery passwords of a text: the file that Windows saves, an export (CSV, LDIF, JSON), one a line. With
    /// identifiers beside them, only those that belong to a volume are tried on it.
    ///
    /// # Errors
    /// `Invalid` when there is none, or when all are mistyped.
    pub fn with_recovery_text(self, text: &[u8], name: &str) -> Result<Keys> {
        let text = export::decode(text);
        let (mut keys, mut wrong, mut right) = (self, None, 0);
        for found in export::passwords(&text) {
            match recovery_hash(&found.digits) {
                Ok(hash) => {
                    let name = format!("the recovery password in line {} of {name}", found.line);
                    keys = keys.with(Kind::RecoveryPassword(hash, found.ids), name);
                    right += 1;
                }
                Err(e) => {
                    keys = keys.with_unusable(format!("line {} of {name}: {}", found.line, e.message()));
                    wrong.get_or_insert(e);
                }
            }
        }
        match wrong {
            _ if right > 0 => Ok(keys),
            Some(e) => Err(e),
            None => {
                Err(Error::invalid(Layer::BitLocker, "no recovery password in this text").expected(SHAPE))
            }
        }
    }

    fn with_unusable(self, why: String) -> Keys {
        let mut keys = self;
        match Arc::get_mut(&mut keys.0) {
            Some(inner) => inner.unusable.push(why),
            None => {
                let mut inner = keys.0.copied();
                inner.unusable.push(why);
                keys = Keys(Arc::new(inner));
            }
        }
        keys
    }

    /// These, and a passphrase, exactly as the user types it into Windows.
    #[must_use]
    pub fn with_passphrase(self, text: &str) -> Keys {
        self.with(Kind::Passphrase(passphrase_hash(text)), "the password".into())
    }

    /// These, and the key of a `.BEK` file; `name` stands in messages.
    ///
    /// # Errors
    /// `Damaged` when it is none.
    pub fn with_external_key(self, file: &[u8], name: &str) -> Result<Keys> {
        let (id, key) = bek::parse(file)?;
        Ok(self.with(Kind::External(id, key), name.to_string()))
    }

    /// These, and the key of a `.BEK` file of the host, or of all such files in a folder of the host (the volume that Azure Disk
    /// Encryption keeps its keys on).
    ///
    /// # Errors
    /// Of the host; `NotFound` for a folder without any; `Damaged` when none of the files is a key.
    pub fn with_external_key_path(self, path: &Path) -> Result<Keys> {
        let (mut keys, mut wrong, mut right) = (self, None, 0);
        for (file, bytes) in bek::files(path)? {
            match bek::parse(&bytes) {
                Ok((id, key)) => {
                    keys = keys.with(Kind::External(id, key), file);
                    right += 1;
                }
                Err(e) => wrong = Some(e.in_file(file)),
            }
        }
        // Of many files one that is none does not matter.
        wrong.filter(|_| right == 0).map_or(Ok(keys), Err)
    }

    pub(super) fn unusable(&self) -> &[String] {
        &self.0.unusable
    }

    pub(super) fn secrets(&self) -> &[Secret] {
        &self.0.secrets
    }

    /// A secret's hash stretched with a salt; the same one is stretched once.
    pub(super) fn stretched(&self, index: usize, hash: &Secret256, salt: &[u8; 16]) -> Secret256 {
        let known = |keys: &Keys| {
            let all = keys.0.stretched.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&(index, *salt)).cloned()
        };
        if let Some(key) = known(self) {
            return key;
        }
        let key = stretch(hash, salt);
        let mut all = self.0.stretched.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((index, *salt), key.clone());
        key
    }
}

impl Secret {
    fn copy(&self) -> Secret {
        let kind = match &self.kind {
            Kind::RecoveryPassword(hash, ids) => Kind::RecoveryPassword(hash.clone(), ids.clone()),
            Kind::Passphrase(hash) => Kind::Passphrase(hash.clone()),
            Kind::External(id, key) => Kind::External(*id, key.clone()),
        };
        Secret { kind, name: self.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_passwords_are_checked_group_by_group() {
        let good = "471207-278498-422125-177177-561902-537405-468006-693451";
        let bytes = recovery_bytes(good).unwrap();
        assert_eq!(u16::from_le_bytes([bytes[0], bytes[1]]), 42837);
        assert_eq!(recovery_bytes(&good.replace('-', " ")).unwrap(), bytes);
        assert_eq!(recovery_bytes(&good.replace('-', "")).unwrap(), bytes);
        let why = |text: &str| recovery_bytes(text).unwrap_err().to_string();
        assert!(why(&good.replace("177177", "177178")).contains("group 4"), "{}", why(good));
        assert!(why(&good.replace("471207", "720896")).contains("720896"));
        assert!(why(&good[..47]).contains("41 digits"));
        assert!(why("x").contains("no digit"));
        // No message tells the password.
        assert!(!why(&good.replace("177177", "177178")).contains("471207-278498-422125-177178"));
    }
}
