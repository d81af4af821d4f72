//! Entries of BitLocker's metadata (FVE_DATUM): size, role, type and flags in eight bytes, then data; and the boxes of AES-CCM that
//! keys are kept in.
//!
//! Format: libbde's "BitLocker Drive Encryption (BDE) format", "FVE metadata entry". A box is a nonce of 12 bytes, a message
//! authentication code of 16, and as many bytes as it holds; what it holds is an entry again.

use aes::Aes256;
use ccm::Ccm;
use ccm::aead::{AeadInPlace, KeyInit};
use ccm::consts::{U12, U16};
use vmrescue_base::bytes::{array_at, u16_at};
use zeroize::Zeroizing;

/// Most entries of one list that are looked at.
const MAX_ENTRIES: usize = 1024;

/// Roles of entries.
pub(super) const ROLE_PROTECTOR: u16 = 2;
pub(super) const ROLE_VOLUME_KEY: u16 = 3;
pub(super) const ROLE_EXTERNAL_KEY: u16 = 6;
pub(super) const ROLE_DESCRIPTION: u16 = 7;
pub(super) const ROLE_HEADER_BLOCK: u16 = 15;

/// Types of entries.
pub(super) const TYPE_KEY: u16 = 1;
pub(super) const TYPE_TEXT: u16 = 2;
pub(super) const TYPE_STRETCH_KEY: u16 = 3;
pub(super) const TYPE_SEALED: u16 = 5;
pub(super) const TYPE_PROTECTOR: u16 = 8;
pub(super) const TYPE_EXTERNAL_KEY: u16 = 9;
pub(super) const TYPE_HEADER_BLOCK: u16 = 15;

/// A key that is wiped when it is dropped.
pub(super) type Secret256 = Zeroizing<[u8; 32]>;

/// An entry.
pub(super) struct Entry<'a> {
    pub(super) role: u16,
    pub(super) kind: u16,
    pub(super) data: &'a [u8],
}

/// The entries in `bytes`, as far as they are whole.
pub(super) fn entries(mut bytes: &[u8]) -> Vec<Entry<'_>> {
    let mut found = Vec::new();
    while found.len() < MAX_ENTRIES {
        let Some(size) = u16_at(bytes, 0).map(usize::from).filter(|size| *size >= 8) else { break };
        let Some(all) = bytes.get(..size) else { break };
        let (Some(role), Some(kind)) = (u16_at(all, 2), u16_at(all, 4)) else { break };
        found.push(Entry { role, kind, data: &all[8..] });
        bytes = &bytes[size..];
    }
    found
}

/// A key with the method that it is for.
pub(super) struct Key {
    pub(super) method: u16,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Key {
    /// The data of an entry of [`TYPE_KEY`].
    pub(super) fn parse(data: &[u8]) -> Option<Key> {
        Some(Key { method: u16_at(data, 0)?, bytes: Zeroizing::new(data.get(4..)?.to_vec()) })
    }

    /// The key, when it has 256 bits.
    pub(super) fn full(&self) -> Option<Secret256> {
        let bytes: [u8; 32] = self.bytes.as_slice().try_into().ok()?;
        Some(Zeroizing::new(bytes))
    }
}

/// A box of AES-CCM.
#[derive(Clone)]
pub(super) struct Sealed {
    nonce: [u8; 12],
    code: [u8; 16],
    data: Vec<u8>,
}

impl Sealed {
    /// The data of an entry of [`TYPE_SEALED`].
    pub(super) fn parse(data: &[u8]) -> Option<Sealed> {
        Some(Sealed {
            nonce: array_at(data, 0)?,
            code: array_at(data, 12)?,
            data: data.get(28..).filter(|data| !data.is_empty())?.to_vec(),
        })
    }

    /// What is inside; `None` when this is not the key of the box.
    pub(super) fn open(&self, key: &Secret256) -> Option<Key> {
        let cipher = Ccm::<Aes256, U16, U12>::new((&**key).into());
        let mut plain = Zeroizing::new(self.data.clone());
        let code = &self.code.into();
        cipher.decrypt_in_place_detached(&self.nonce.into(), b"", &mut plain, code).ok()?;
        entries(&plain)
            .into_iter()
            .find(|entry| entry.kind == TYPE_KEY)
            .and_then(|entry| Key::parse(entry.data))
    }
}

/// Seals `inside`; the data of an entry of [`TYPE_SEALED`]. Only tests and the demo make boxes.
pub(super) fn seal(key: &[u8; 32], nonce: &[u8; 12], inside: &[u8]) -> Vec<u8> {
    let cipher = Ccm::<Aes256, U16, U12>::new(key.into());
    let mut data = inside.to_vec();
    match cipher.encrypt_in_place_detached(&(*nonce).into(), b"", &mut data) {
        Ok(code) => [&nonce[..], &code, &data].concat(),
        // Longer than AES-CCM counts: no key is.
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_opens_with_its_key_and_with_no_other() {
        let key: Secret256 = Zeroizing::new(std::array::from_fn(|i| i as u8));
        let inside: Vec<u8> = [12u16, 3, 1, 1, 0x8002, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let sealed = Sealed::parse(&seal(&key, &[9; 12], &inside)).unwrap();
        let found = sealed.open(&key).unwrap();
        assert_eq!((found.method, found.bytes.len()), (0x8002, 0));
        assert!(sealed.open(&Zeroizing::new([0; 32])).is_none());
    }
}
