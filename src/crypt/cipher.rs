//! The ciphers of sectors: AES-CBC with and without the Elephant diffuser, AES-XTS; keys of 128 and 256 bits.
//!
//! Sources: libbde's format document, "Encryption methods"; IEEE 1619 (XTS), where the data unit is a sector and its number counts
//! from the start of the volume; `elephant` for the diffuser. The block cipher is the crate `aes`, which takes the processor's own
//! instructions where there are any; the modes are here, over many blocks at a time.

use super::elephant;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use vmrescue_base::error::{Error, Layer, Result};

/// Largest sector.
pub(super) const MAX_SECTOR: usize = 4096;
/// Bytes that are worked on at a time: one large sector, or eight small ones.
const GROUP: usize = 4096;
const BLOCK: usize = 16;

/// AES with one key.
enum Aes {
    Short(Box<Aes128>),
    Long(Box<Aes256>),
}

impl Aes {
    fn new(key: &[u8]) -> Option<Aes> {
        match key.len() {
            16 => Aes128::new_from_slice(key).ok().map(|aes| Aes::Short(Box::new(aes))),
            32 => Aes256::new_from_slice(key).ok().map(|aes| Aes::Long(Box::new(aes))),
            _ => None,
        }
    }

    /// Enciphers each block of 16 bytes; a rest that is none stays.
    fn encrypt(&self, data: &mut [u8]) {
        let (blocks, _) = InOutBuf::from(data).into_chunks();
        match self {
            Aes::Short(aes) => aes.encrypt_blocks_inout(blocks),
            Aes::Long(aes) => aes.encrypt_blocks_inout(blocks),
        }
    }

    fn decrypt(&self, data: &mut [u8]) {
        let (blocks, _) = InOutBuf::from(data).into_chunks();
        match self {
            Aes::Short(aes) => aes.decrypt_blocks_inout(blocks),
            Aes::Long(aes) => aes.decrypt_blocks_inout(blocks),
        }
    }
}

enum Mode {
    Cbc(Aes),
    /// The second key makes the sector key.
    Elephant(Aes, Aes),
    /// The second key makes the tweak.
    Xts(Aes, Aes),
}

/// A cipher with its keys; they are wiped when it is dropped.
pub(super) struct Cipher {
    mode: Mode,
    sector: usize,
}

fn xor(data: &mut [u8], with: &[u8]) {
    data.iter_mut().zip(with).for_each(|(a, b)| *a ^= b);
}

impl Cipher {
    /// The cipher of a method (the numbers of the metadata) with the key of a volume.
    ///
    /// # Errors
    /// `Unsupported` for other methods; `Damaged` for a key that is too short.
    pub(super) fn new(method: u16, key: &[u8], sector_bytes: u32) -> Result<Cipher> {
        let sector = sector_bytes as usize;
        if !sector.is_power_of_two() || !(512..=MAX_SECTOR).contains(&sector) {
            return Err(Error::damaged(Layer::BitLocker, "size of a sector").found(sector));
        }
        let part = |at: usize, bytes: usize| key.get(at..at + bytes).and_then(Aes::new);
        let two = |at: usize, bytes: usize| part(0, bytes).zip(part(at, bytes));
        let mode = match method {
            0x8000 => two(32, 16).map(|(data, tweak)| Mode::Elephant(data, tweak)),
            0x8001 => two(32, 32).map(|(data, tweak)| Mode::Elephant(data, tweak)),
            0x8002 => part(0, 16).map(Mode::Cbc),
            0x8003 => part(0, 32).map(Mode::Cbc),
            0x8004 => two(16, 16).map(|(data, tweak)| Mode::Xts(data, tweak)),
            0x8005 => two(32, 32).map(|(data, tweak)| Mode::Xts(data, tweak)),
            _ => {
                return Err(Error::unsupported(Layer::BitLocker, "encryption method that is not known")
                    .found(format!("{method:#06x}")));
            }
        };
        let mode = mode.ok_or_else(|| {
            Error::damaged(Layer::BitLocker, "the key is too short for its method").found(key.len())
        })?;
        Ok(Cipher { mode, sector })
    }

    /// Deciphers whole sectors that lie at `offset` of the volume.
    pub(super) fn decrypt(&self, offset: u64, data: &mut [u8]) {
        let mut at = offset;
        for group in data.chunks_mut(GROUP) {
            self.decrypt_group(at, group);
            at = at.wrapping_add(group.len() as u64);
        }
    }

    /// Enciphers whole sectors that will lie at `offset` of the volume.
    pub(super) fn encrypt(&self, offset: u64, data: &mut [u8]) {
        let mut at = offset;
        for group in data.chunks_mut(GROUP) {
            self.encrypt_group(at, group);
            at = at.wrapping_add(group.len() as u64);
        }
    }

    fn decrypt_group(&self, offset: u64, group: &mut [u8]) {
        match &self.mode {
            Mode::Xts(data, tweak) => self.xts(offset, group, tweak, |group| data.decrypt(group)),
            Mode::Cbc(data) => self.cbc_decrypt(offset, group, data),
            Mode::Elephant(data, tweak) => {
                self.cbc_decrypt(offset, group, data);
                self.diffuse(offset, group, tweak, |words, key| {
                    elephant::undo(words);
                    words.iter_mut().zip(key.iter().cycle()).for_each(|(word, key)| *word ^= key);
                });
            }
        }
    }

    fn encrypt_group(&self, offset: u64, group: &mut [u8]) {
        match &self.mode {
            Mode::Xts(data, tweak) => self.xts(offset, group, tweak, |group| data.encrypt(group)),
            Mode::Cbc(data) => self.cbc_encrypt(offset, group, data),
            Mode::Elephant(data, tweak) => {
                self.diffuse(offset, group, tweak, |words, key| {
                    words.iter_mut().zip(key.iter().cycle()).for_each(|(word, key)| *word ^= key);
                    elephant::apply(words);
                });
                self.cbc_encrypt(offset, group, data);
            }
        }
    }

    /// A block for each sector of a group, made of a number and enciphered.
    fn per_sector(&self, group: &[u8], aes: &Aes, number: impl Fn(u64) -> u128) -> [u8; GROUP / 512 * BLOCK] {
        let mut all = [0; GROUP / 512 * BLOCK];
        let count = group.len() / self.sector;
        for (block, index) in all.chunks_exact_mut(BLOCK).zip(0..count as u64) {
            block.copy_from_slice(&number(index).to_le_bytes());
        }
        aes.encrypt(&mut all[..count * BLOCK]);
        all
    }

    fn byte_of(&self, offset: u64, index: u64) -> u128 {
        u128::from(offset) + u128::from(index) * self.sector as u128
    }

    fn xts(&self, offset: u64, group: &mut [u8], tweak: &Aes, work: impl Fn(&mut [u8])) {
        let first = offset / self.sector as u64;
        let starts = self.per_sector(group, tweak, |index| u128::from(first) + u128::from(index));
        let mut masks = [0; GROUP];
        for (sector, start) in masks.chunks_mut(self.sector).zip(starts.chunks_exact(BLOCK)) {
            let mut mask = u128::from_le_bytes(start.try_into().unwrap_or_default());
            for block in sector.chunks_exact_mut(BLOCK) {
                block.copy_from_slice(&mask.to_le_bytes());
                mask = (mask << 1) ^ ((mask >> 127) * 0x87);
            }
        }
        xor(group, &masks);
        work(group);
        xor(group, &masks);
    }

    fn cbc_decrypt(&self, offset: u64, group: &mut [u8], aes: &Aes) {
        let starts = self.per_sector(group, aes, |index| self.byte_of(offset, index));
        // What each block is mixed with: the block ahead of it, as it was.
        let mut before = [0; GROUP];
        before[BLOCK..group.len()].copy_from_slice(&group[..group.len() - BLOCK]);
        for (sector, start) in before.chunks_mut(self.sector).zip(starts.chunks_exact(BLOCK)) {
            sector[..BLOCK].copy_from_slice(start);
        }
        aes.decrypt(group);
        xor(group, &before);
    }

    fn cbc_encrypt(&self, offset: u64, group: &mut [u8], aes: &Aes) {
        let starts = self.per_sector(group, aes, |index| self.byte_of(offset, index));
        for (sector, start) in group.chunks_mut(self.sector).zip(starts.chunks_exact(BLOCK)) {
            let mut before: [u8; BLOCK] = start.try_into().unwrap_or_default();
            for block in sector.chunks_exact_mut(BLOCK) {
                xor(block, &before);
                aes.encrypt(block);
                before.copy_from_slice(block);
            }
        }
    }

    /// Runs `work` over each sector as words, with its sector key.
    fn diffuse(&self, offset: u64, group: &mut [u8], tweak: &Aes, work: impl Fn(&mut [u32], &[u32; 8])) {
        let low = self.per_sector(group, tweak, |index| self.byte_of(offset, index));
        let high = self.per_sector(group, tweak, |index| self.byte_of(offset, index) | 0x80 << 120);
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap_or_default());
        let mut words = [0; elephant::MAX_WORDS];
        let keys = low.chunks_exact(BLOCK).zip(high.chunks_exact(BLOCK));
        for (sector, (low, high)) in group.chunks_mut(self.sector).zip(keys) {
            let words = &mut words[..sector.len() / 4];
            words.iter_mut().zip(sector.chunks_exact(4)).for_each(|(w, bytes)| *w = word(bytes));
            let key: [u32; 8] =
                std::array::from_fn(|i| word(&if i < 4 { low } else { high }[i % 4 * 4..][..4]));
            work(words, &key);
            sector
                .chunks_exact_mut(4)
                .zip(words)
                .for_each(|(bytes, w)| bytes.copy_from_slice(&w.to_le_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// IEEE 1619-2007, annex B, vectors 4 (128 bits, data unit 0) and 10 (256 bits, data unit 0xff): units of 512 bytes that count up.
    #[test]
    fn xts_is_that_of_ieee_1619() {
        let plain: Vec<u8> = (0..512).map(|i| i as u8).collect();
        let key = hex("2718281828459045235360287471352631415926535897932384626433832795");
        let cipher = Cipher::new(0x8004, &key, 512).unwrap();
        let mut data = plain.clone();
        cipher.encrypt(0, &mut data);
        assert_eq!(data[..32], hex("27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"));
        cipher.decrypt(0, &mut data);
        assert_eq!(data, plain);
        let key = hex("2718281828459045235360287471352662497757247093699959574966967627\
             3141592653589793238462643383279502884197169399375105820974944592");
        let cipher = Cipher::new(0x8005, &key, 512).unwrap();
        cipher.encrypt(0xff * 512, &mut data);
        assert_eq!(data[..32], hex("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"));
        cipher.decrypt(0xff * 512, &mut data);
        assert_eq!(data, plain);
    }

    #[test]
    fn a_method_that_is_unknown_or_a_short_key_is_an_error() {
        assert!(Cipher::new(0x8006, &[0; 64], 512).is_err());
        assert!(Cipher::new(0x8005, &[0; 32], 512).is_err());
        assert!(Cipher::new(0x8004, &[0; 32], 500).is_err());
        assert!(Cipher::new(0x8000, &[0; 32], 512).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn what_is_enciphered_is_deciphered_and_sectors_stand_alone(
            method in 0x8000u16..0x8006, key in prop::array::uniform32(any::<u8>()),
            sector in prop::sample::select(vec![512u32, 1024, 4096]), first in 0u64..1 << 40, count in 1usize..20, byte in any::<u8>(),
        ) {
            let cipher = Cipher::new(method, &[key, key.map(|b| b.wrapping_add(1))].concat(), sector).unwrap();
            let size = sector as usize;
            let plain: Vec<u8> = (0..count * size).map(|i| (i / 7) as u8 ^ byte).collect();
            let start = first * u64::from(sector);
            let mut all = plain.clone();
            cipher.encrypt(start, &mut all);
            prop_assert_ne!(&all, &plain);
            // One sector alone is the same as that sector among others.
            let one = count / 2;
            let mut alone = plain[one * size..(one + 1) * size].to_vec();
            cipher.encrypt(start + (one * size) as u64, &mut alone);
            prop_assert_eq!(&all[one * size..(one + 1) * size], &alone[..]);
            cipher.decrypt(start, &mut all);
            prop_assert_eq!(all, plain);
        }
    }
}
