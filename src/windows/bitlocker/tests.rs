use super::*;
use crate::block::MemoryDevice;
use proptest::prelude::*;
use std::sync::Arc;

fn entry(role: u16, kind: u16, data: &[u8]) -> Vec<u8> {
    let size = (8 + data.len()) as u16;
    let mut bytes: Vec<u8> = [size, role, kind, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.extend(data);
    bytes
}

fn protector(id: u8, kind: u16, inner: &[u8]) -> Vec<u8> {
    let mut data = vec![id; 16];
    data.extend(132_223_104_000_000_000u64.to_le_bytes());
    data.extend([0, 0]);
    data.extend(kind.to_le_bytes());
    data.extend(inner);
    entry(2, 8, &data)
}

/// A volume with three metadata blocks of these entries.
fn volume(state: (u16, u16), entries: &[Vec<u8>]) -> Vec<u8> {
    let list = entries.concat();
    let set = 48 + list.len();
    let size = (64 + set).next_multiple_of(16);
    let mut block = vec![0u8; size];
    block[..8].copy_from_slice(b"-FVE-FS-");
    block[8..10].copy_from_slice(&((size >> 4) as u16).to_le_bytes());
    block[10..12].copy_from_slice(&2u16.to_le_bytes());
    block[12..14].copy_from_slice(&state.0.to_le_bytes());
    block[14..16].copy_from_slice(&state.1.to_le_bytes());
    block[16..24].copy_from_slice(&4096u64.to_le_bytes());
    for (at, number) in [(0, set), (4, 1), (8, 48), (12, set)] {
        block[64 + at..68 + at].copy_from_slice(&(number as u32).to_le_bytes());
    }
    block[80..96].copy_from_slice(&[7; 16]);
    block[100..102].copy_from_slice(&0x8004u16.to_le_bytes());
    block[112..112 + list.len()].copy_from_slice(&list);
    let sum = crc32fast::hash(&block);
    let mut all = vec![0u8; 1 << 16];
    all[..11].copy_from_slice(b"\xeb\x58\x90-FVE-FS-");
    let guid: crate::guid::Guid = "4967d63b-2e29-4ad8-8399-f6a339e3d001".parse().unwrap();
    all[160..176].copy_from_slice(&guid.0);
    for i in 0..3usize {
        let at = 0x2000 * (i + 1);
        all[176 + i * 8..184 + i * 8].copy_from_slice(&(at as u64).to_le_bytes());
        all[at..at + size].copy_from_slice(&block);
        all[at + size + 4..at + size + 8].copy_from_slice(&sum.to_le_bytes());
    }
    all
}

fn read(bytes: Vec<u8>) -> Result<Option<BitLocker>> {
    bitlocker(&Disk::new(Arc::new(MemoryDevice::new(bytes))))
}

#[test]
fn protectors_and_state_are_read_and_one_good_copy_is_enough() {
    let entries = [protector(1, 0x0100, &[]), protector(2, 0x0800, &[]), protector(3, 0x0500, &[])];
    let mut bytes = volume((4, 4), &entries);
    bytes[0x20a0] ^= 1;
    let found = read(bytes.clone()).unwrap().unwrap();
    let kinds: Vec<&str> = found.protectors.iter().map(|p| p.kind.as_str()).collect();
    assert_eq!(kinds, ["TPM", "recovery password", "TPM and PIN"]);
    assert_eq!((found.state, found.method.as_str(), found.good_copies), ("encrypted", "AES-XTS 128", 2));
    assert!(!found.key_in_the_clear && found.encrypted_bytes.is_none());
    assert_eq!(
        found.locked_text(),
        "locked by BitLocker (AES-XTS 128, encrypted); protectors: TPM {01010101-0101-0101-0101-010101010101}, \
         recovery password {02020202-0202-0202-0202-020202020202}, TPM and PIN {03030303-0303-0303-0303-030303030303}"
    );
    bytes[0x40a0] ^= 1;
    bytes[0x60a0] ^= 1;
    assert_eq!(read(bytes).unwrap_err().kind(), crate::ErrorKind::Damaged);
}

#[test]
fn states_have_their_words() {
    let clear = protector(9, 0, &entry(0, 1, &[0; 12]));
    assert_eq!(read(volume((4, 4), &[clear])).unwrap().unwrap().state, "suspended");
    for (pair, word) in
        [((1, 1), "decrypted"), ((5, 4), "encrypting"), ((2, 1), "decrypting"), ((3, 3), "paused")]
    {
        assert_eq!(read(volume(pair, &[])).unwrap().unwrap().state, word);
    }
    assert_eq!(read(vec![0; 4096]).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_broken_block_is_read_without_panic(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..12), first in any::<bool>()) {
        let mut bytes = volume((4, 4), &[protector(1, 0x0800, &entry(0, 2, b"n\0\0\0"))]);
        for (at, byte) in changes {
            let at = if first { at } else { 0x2000 + at };
            bytes[at] = byte;
        }
        // Right sums, so that the entries are looked at.
        let size = (u16::from_le_bytes([bytes[0x2008], bytes[0x2009]]) as usize) << 4;
        if size < 0x1000 {
            let sum = crc32fast::hash(&bytes[0x2000..0x2000 + size]);
            bytes[0x2004 + size..0x2008 + size].copy_from_slice(&sum.to_le_bytes());
        }
        if let Ok(Some(found)) = read(bytes) {
            prop_assert!(found.locked_text().contains("BitLocker"));
        }
    }
}
