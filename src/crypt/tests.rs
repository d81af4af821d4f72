use super::*;
use proptest::prelude::*;
use std::sync::Arc;
use vmrescue_block::{DiskMut, MemoryDevice};

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
    let mut all = vec![0u8; 1 << 20];
    all[..14].copy_from_slice(b"\xeb\x58\x90-FVE-FS-\0\x02\x08");
    let guid: vmrescue_base::guid::Guid = "4967d63b-2e29-4ad8-8399-f6a339e3d001".parse().unwrap();
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
    Ok(volume_of(bytes)?.map(|found| found.info))
}

fn volume_of(bytes: Vec<u8>) -> Result<Option<Volume>> {
    super::volume(&Disk::new(Arc::new(MemoryDevice::new(bytes))), &Keys::none())
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
    assert_eq!(read(bytes).unwrap_err().kind(), vmrescue_base::ErrorKind::Damaged);
}

#[test]
fn states_have_their_words() {
    let clear = protector(9, 0, &entry(0, 1, &[0; 36]));
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

/// A plain volume of `length` bytes whose content says where it was.
fn plain_bytes(length: usize, sector: u16) -> Vec<u8> {
    let mut all: Vec<u8> =
        (0..length / 8).flat_map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    all[..11].copy_from_slice(b"\xebR\x90NTFS    ");
    all[11..13].copy_from_slice(&sector.to_le_bytes());
    all[13] = (4096 / sector) as u8;
    all
}

const LENGTH: usize = 1 << 20;
const HEADER: (u64, u64) = (0x60000, 0x2000);
const BLOCKS: [u64; 3] = [0x40000, 0x80000, 0xc0000];

fn spec(method: u16, paused_at: Option<u64>) -> testing::Spec {
    testing::Spec {
        method,
        volume_key: (0..64).collect(),
        master_key: [7; 32],
        id: vmrescue_base::guid::Guid([3; 16]),
        blocks: BLOCKS,
        header: HEADER,
        protectors: vec![
            testing::Protect::External(vmrescue_base::guid::Guid([4; 16]), [9; 32]),
            testing::Protect::External(vmrescue_base::guid::Guid([5; 16]), [8; 32]),
        ],
        paused_at,
    }
}

/// The volume enciphered, and how it is to be seen.
fn enciphered(method: u16, sector: u16, paused_at: Option<u64>) -> (DiskMut, Vec<u8>) {
    let mut seen = plain_bytes(LENGTH, sector);
    let disk = DiskMut::new(Arc::new(MemoryDevice::new(seen.clone())));
    testing::encrypt(&disk, &spec(method, paused_at)).unwrap();
    for (at, bytes) in BLOCKS.iter().map(|at| (*at, testing::BLOCK_BYTES)).chain([HEADER]) {
        seen[at as usize..(at + bytes) as usize].fill(0);
    }
    (disk, seen)
}

fn keys() -> Keys {
    let file = testing::key_file(&vmrescue_base::guid::Guid([4; 16]), &[9; 32]);
    Keys::none().with_external_key(&file, "x.bek").unwrap()
}

fn opened(disk: &DiskMut) -> Volume {
    super::volume(&disk.as_disk(), &keys()).unwrap().unwrap()
}

#[test]
fn every_method_and_sector_size_is_seen_in_plain_text() {
    for method in 0x8000..0x8006 {
        for sector in [512, 4096] {
            let (disk, seen) = enciphered(method, sector, None);
            let found = opened(&disk);
            assert_eq!((found.info.locked, found.info.read_only.as_deref()), (false, None), "{method:#x}");
            assert_eq!(
                found.info.unlocked_by.as_deref(),
                Some("external key {04040404-0404-0404-0404-040404040404}")
            );
            let view = plain(disk.as_disk(), &[(0, found.view.unwrap())]);
            assert!(view.read_vec(0, LENGTH).unwrap() == seen, "{method:#x} {sector}");
            assert_ne!(disk.as_disk().read_vec(0x10000, 512).unwrap(), seen[0x10000..0x10200]);
        }
    }
}

#[test]
fn keys_that_do_not_fit_are_named() {
    let (disk, _) = enciphered(0x8004, 512, None);
    let why = |keys: &Keys| {
        let found = super::volume(&disk.as_disk(), keys).unwrap().unwrap();
        assert!(found.info.locked && found.view.is_none());
        found.info.locked_text()
    };
    let id = |number: u8| vmrescue_base::guid::Guid([number; 16]);
    let other = testing::key_file(&id(6), &[9; 32]);
    let text = why(&Keys::none().with_external_key(&other, "other.bek").unwrap());
    assert!(text.contains(&format!("other.bek is for protector {{{}}}", id(6))), "{text}");
    assert!(text.contains(&format!("external key {{{}}}, external key {{{}}}", id(4), id(5))), "{text}");
    let forged = testing::key_file(&id(4), &[1; 32]);
    assert!(why(&Keys::none().with_external_key(&forged, "x").unwrap()).contains("but not its key"));
    let text = why(&Keys::none().with_passphrase("x"));
    assert!(text.contains("the volume has no password"), "{text}");
    // One key that fits is enough, wherever it stands.
    let all = Keys::none().with_external_key(&other, "o").unwrap().with_passphrase("x");
    let fits = testing::key_file(&id(5), &[8; 32]);
    let found = super::volume(&disk.as_disk(), &all.with_external_key(&fits, "f").unwrap()).unwrap().unwrap();
    assert!(!found.info.locked);
}

#[test]
fn a_volume_that_is_being_encrypted_is_read_and_not_written() {
    for paused_at in [0x30000, 0x70000] {
        let (disk, seen) = enciphered(0x8003, 512, Some(paused_at));
        let found = opened(&disk);
        assert_eq!((found.info.state, found.info.encrypted_bytes), ("paused", Some(paused_at)));
        assert!(found.info.read_only.is_some());
        let parts = [(0, found.view.unwrap())];
        assert!(plain(disk.as_disk(), &parts).read_vec(0, LENGTH).unwrap() == seen);
        let e = plain_mut(disk, &parts).write_at(0x10000, &[1; 512]).unwrap_err();
        assert_eq!(e.kind(), vmrescue_base::ErrorKind::Refused);
    }
}

/// A change of all copies, with right checksums; the seal is wrong then.
fn change(disk: &DiskMut, at: usize, data: &[u8]) {
    for place in BLOCKS {
        let head = disk.as_disk().read_vec(place, 16).unwrap();
        let size = usize::from(u16::from_le_bytes([head[8], head[9]])) << 4;
        let mut block = disk.as_disk().read_vec(place, size).unwrap();
        block[at..at + data.len()].copy_from_slice(data);
        disk.write_at(place, &block).unwrap();
        disk.write_at(place + size as u64 + 4, &crc32fast::hash(&block).to_le_bytes()).unwrap();
    }
}

#[test]
fn a_volume_that_does_not_say_its_sector_has_512_bytes_and_what_lies_beyond_its_end_is_only_read() {
    let (disk, seen) = enciphered(0x8004, 512, None);
    disk.write_at(11, &[0, 0]).unwrap();
    let found = opened(&disk);
    assert!(plain(disk.as_disk(), &[(0, found.view.unwrap())]).read_vec(0, LENGTH).unwrap() == seen);
    change(&disk, 16, &0xf_0000u64.to_le_bytes());
    let mut found = opened(&disk);
    assert_eq!(
        found.info.read_only.take().as_deref(),
        Some("its metadata was changed by somebody without its key")
    );
    assert!(plain(disk.as_disk(), &[(0, found.view.unwrap())]).read_vec(0, LENGTH).unwrap() == seen);
    // The same, had its key changed it.
    let (disk, _) = enciphered(0x8004, 512, None);
    let view = opened(&disk).view.unwrap();
    let mut segments = view.segments.clone();
    let last = segments.last_mut().unwrap();
    last.kept = layout::Kept::Beyond;
    let at = last.range.start;
    let cipher = Some(Cipher::new(0x8004, &(0..64).collect::<Vec<u8>>(), 512).unwrap());
    let beyond =
        View { segments, cipher, sector: 512, length: LENGTH as u64, mirror_cluster: 0, read_only: None };
    let e = plain_mut(disk, &[(0, Arc::new(beyond))]).write_at(at, &[1]).unwrap_err();
    assert_eq!(e.kind(), vmrescue_base::ErrorKind::Refused);
}

#[test]
fn metadata_is_shown_as_zeros_and_never_written() {
    let (disk, _) = enciphered(0x8004, 512, None);
    let before = disk.as_disk().read_vec(0, LENGTH).unwrap();
    let view = plain_mut(disk.clone(), &[(0, opened(&disk).view.unwrap())]);
    for at in [BLOCKS[0], BLOCKS[1] + 100, BLOCKS[2] + 0xffff, HEADER.0, BLOCKS[0] - 1] {
        assert_eq!(
            view.write_at(at, &[1, 2]).unwrap_err().kind(),
            vmrescue_base::ErrorKind::Refused,
            "{at:#x}"
        );
        assert!(view.zero_at(at..at + 2).is_err());
    }
    // A write that is refused in its middle has changed nothing ahead of it.
    assert!(view.write_at(0x3f000, &[1; 0x2000]).is_err());
    assert!(disk.as_disk().read_vec(0, LENGTH).unwrap() == before);
    assert_eq!(view.as_disk().extent_at(BLOCKS[0]).unwrap().kind, vmrescue_block::ExtentKind::Zero);
    assert_eq!(view.as_disk().extent_at(0).unwrap().kind, vmrescue_block::ExtentKind::Data);
}

#[test]
fn metadata_that_was_changed_without_the_key_is_not_trusted_to_write() {
    let (disk, _) = enciphered(0x8004, 512, None);
    // The creation time.
    change(&disk, 104, &[0xff]);
    let found = opened(&disk);
    assert!(!found.info.locked && found.info.read_only.unwrap().contains("changed by somebody"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn writes_are_those_of_a_plain_disk(
        method in 0x8000u16..0x8006, big in any::<bool>(),
        writes in prop::collection::vec((0usize..LENGTH, 1usize..9000, any::<u8>(), any::<bool>()), 1..12),
    ) {
        let sector = if big { 4096 } else { 512 };
        let (disk, mut seen) = enciphered(method, sector, None);
        let raw = disk.as_disk().read_vec(0, LENGTH).unwrap();
        let view = plain_mut(disk.clone(), &[(0, opened(&disk).view.unwrap())]);
        let mut touched = vec![false; LENGTH / 512];
        for (at, length, byte, zero) in writes {
            let length = length.min(LENGTH - at);
            let reserved = BLOCKS.iter().map(|at| (*at, testing::BLOCK_BYTES)).chain([HEADER])
                .any(|(start, bytes)| at < (start + bytes) as usize && at + length > start as usize);
            let data: Vec<u8> = (0..length).map(|i| if zero { 0 } else { byte ^ i as u8 }).collect();
            let written = if zero { view.zero_at(at as u64..(at + length) as u64) } else { view.write_at(at as u64, &data) };
            prop_assert_eq!(written.is_err(), reserved);
            if !reserved {
                seen[at..at + length].copy_from_slice(&data);
                let unit = usize::from(sector);
                for place in (at / unit * unit..(at + length).next_multiple_of(unit)).step_by(512) {
                    let moved = if place < HEADER.1 as usize { place + HEADER.0 as usize } else { place };
                    touched[moved / 512] = true;
                }
            }
        }
        prop_assert!(view.as_disk().read_vec(0, LENGTH).unwrap() == seen);
        // Opened anew it is the same, and no sector changed that was not written.
        let anew = plain(disk.as_disk(), &[(0, opened(&disk).view.unwrap())]);
        prop_assert!(anew.read_vec(0, LENGTH).unwrap() == seen);
        let after = disk.as_disk().read_vec(0, LENGTH).unwrap();
        for (index, (new, old)) in after.chunks(512).zip(raw.chunks(512)).enumerate() {
            prop_assert!(new == old || touched[index], "sector {index}");
        }
    }

    #[test]
    fn damaged_metadata_neither_panics_nor_shows_beyond_the_volume(
        changes in prop::collection::vec((0usize..1200, any::<u8>()), 1..10), first in any::<bool>(), sums in any::<bool>(),
    ) {
        let (disk, _) = enciphered(0x8004, 512, None);
        for (at, byte) in changes {
            if first {
                disk.write_at((at % 512) as u64, &[byte]).unwrap();
                continue;
            }
            for block in BLOCKS {
                disk.write_at(block + at as u64, &[byte]).unwrap();
            }
        }
        for block in BLOCKS.into_iter().filter(|_| sums) {
            let head = disk.as_disk().read_vec(block, 16).unwrap();
            let size = usize::from(u16::from_le_bytes([head[8], head[9]])) << 4;
            if size < 0x8000 {
                let sum = crc32fast::hash(&disk.as_disk().read_vec(block, size).unwrap());
                disk.write_at(block + size as u64 + 4, &sum.to_le_bytes()).unwrap();
            }
        }
        if let Ok(Some(Volume { view: Some(view), .. })) = super::volume(&disk.as_disk(), &keys()) {
            let view = plain(disk.as_disk(), &[(0, view)]);
            prop_assert_eq!(view.len(), LENGTH as u64);
            for piece in 0..16u64 {
                let _read = view.read_vec(piece << 16, 1 << 16);
            }
        }
    }
}
