//! Volumes with shadow copies that are built here, byte by byte, and the same with damage. Copies that Windows made, against
//! libvshadow: `tests/suite/shadow.rs`.

#![allow(clippy::single_range_in_vec_init, reason = "lists of one range")]

use super::*;
use crate::ntfs::{FormatSpec, Volume, VolumeMut, format};
use crate::{FileSystem, FileSystemMut, NodeKind, read_file, resolve};
use std::ops::Range;
use vmrescue_block::{DiskMut, MemoryDevice};

const VOLUME_BYTES: usize = 8 << 20;
const STORE_BYTES: usize = 2 << 20;
const BLOCK: usize = BLOCK_BYTES as usize;

fn header(bytes: &mut [u8], at: usize, kind: u32, next: u64) {
    bytes[at..at + 128].fill(0);
    bytes[at..at + 16].copy_from_slice(&blocks::MARK.0);
    bytes[at + 16..at + 20].copy_from_slice(&1u32.to_le_bytes());
    bytes[at + 20..at + 24].copy_from_slice(&kind.to_le_bytes());
    bytes[at + 32..at + 40].copy_from_slice(&(at as u64).to_le_bytes());
    bytes[at + 40..at + 48].copy_from_slice(&next.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// A volume with two copies, what it was at both times, and where the stores lie.
struct Made {
    bytes: Vec<u8>,
    states: Vec<Vec<u8>>,
    store: Range<usize>,
}

fn disk(bytes: &[u8]) -> Disk {
    Disk::new(Arc::new(MemoryDevice::new(bytes.to_vec())))
}

fn changed(bytes: &[u8], work: impl FnOnce(&mut VolumeMut)) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::new(bytes.to_vec()));
    let mut volume = VolumeMut::open(DiskMut::new(Arc::clone(&device) as _)).unwrap();
    work(&mut volume);
    volume.sync().unwrap();
    drop(volume);
    device.to_vec()
}

fn write(volume: &mut VolumeMut, name: &str, data: &[u8]) {
    let root = volume.root();
    let node = match volume.lookup(root, name).unwrap() {
        Some(node) => node,
        None => volume.create(root, name, NodeKind::File).unwrap(),
    };
    volume.set_len(node, "", data.len() as u64).unwrap();
    volume.write(node, "", 0, data).unwrap();
}

fn made() -> Made {
    let device = Arc::new(MemoryDevice::new(vec![0; VOLUME_BYTES]));
    format(&DiskMut::new(Arc::clone(&device) as _), &FormatSpec::default()).unwrap();
    let first = changed(&device.to_vec(), |volume| {
        // In the place of the files of System Volume Information.
        write(volume, "store", &[0xEE; STORE_BYTES]);
        write(volume, "changes.bin", &[1; 100_000]);
        write(volume, "stays.bin", &[7; 50_000]);
        write(volume, "goes.bin", &[9; 70_000]);
    });
    let second = changed(&first, |volume| {
        write(volume, "changes.bin", &[2; 130_000]);
        let root = volume.root();
        volume.remove(root, "goes.bin").unwrap();
    });
    let mut bytes = changed(&second, |volume| {
        write(volume, "changes.bin", &[3; 30_000]);
        write(volume, "new.bin", &[4; 300_000]);
    });
    let begin = bytes.windows(64).position(|part| part == [0xEE; 64]).unwrap();
    // Whole blocks only: those at its borders hold bytes of other files as well.
    let store = begin.next_multiple_of(BLOCK)..(begin + STORE_BYTES) / BLOCK * BLOCK;
    assert!(bytes[store.clone()].iter().all(|byte| *byte == 0xEE), "the file lies in one piece");
    let states = vec![first, second];
    build(&mut bytes, &states, &store);
    Made { bytes, states, store }
}

/// Writes header, catalog and stores.
fn build(bytes: &mut [u8], states: &[Vec<u8>], store: &Range<usize>) {
    let now = bytes.to_vec();
    let mut free = store.start;
    let mut take = || {
        free += BLOCK;
        assert!(free <= store.end);
        free - BLOCK
    };
    bytes[store.clone()].fill(0);
    let catalog = take();
    header(bytes, 0x1E00, 1, 0);
    put(bytes, 0x1E00 + 48, catalog as u64);
    put(bytes, 0x1E00 + 56, STORE_BYTES as u64);
    header(bytes, catalog, 2, 0);
    for (number, state) in states.iter().enumerate() {
        let newer = states.get(number + 1).unwrap_or(&now);
        let (own, list, bitmap) = (take(), take(), take());
        header(bytes, own, 4, 0);
        bytes[own + 128 + 16..own + 128 + 32].fill(0x10 + number as u8);
        bytes[own + 128 + 48..own + 128 + 52].copy_from_slice(&9u32.to_le_bytes());
        bytes[own + 128 + 56..own + 128 + 60].copy_from_slice(&0x0042_0009u32.to_le_bytes());
        bytes[own + 128 + 64..own + 128 + 68].copy_from_slice(&[2, 0, b'M', 0]);
        header(bytes, list, 3, 0);
        header(bytes, bitmap, 6, 0);
        let mut entry = list + 128;
        for block in 0..VOLUME_BYTES / BLOCK {
            let range = block * BLOCK..(block + 1) * BLOCK;
            let in_store = range.start < store.end && store.start < range.end;
            if in_store || range.contains(&0x1E00) || state[range.clone()] == newer[range.clone()] {
                continue;
            }
            let kept = take();
            bytes[kept..kept + BLOCK].copy_from_slice(&state[range.clone()]);
            put(bytes, entry, range.start as u64);
            put(bytes, entry + 16, kept as u64);
            entry += 32;
        }
        // The newer one first: their order means nothing.
        let at = catalog + 128 + (states.len() - 1 - number) * 256;
        put(bytes, at, 2);
        put(bytes, at + 8, VOLUME_BYTES as u64);
        bytes[at + 16..at + 32].fill(0x20 + number as u8);
        put(bytes, at + 48, FileTime::parse_utc("2026-05-01").unwrap().0 + number as u64);
        put(bytes, at + 128, 3);
        put(bytes, at + 136, list as u64);
        bytes[at + 144..at + 160].fill(0x20 + number as u8);
        put(bytes, at + 160, own as u64);
        put(bytes, at + 176, bitmap as u64);
    }
}

#[test]
fn copies_are_listed_and_read() {
    let made = made();
    let shadows = Shadows::open(&disk(&made.bytes)).unwrap().unwrap();
    assert_eq!(shadows.defects, []);
    let one = &shadows.copies[0];
    assert_eq!((one.number, one.id, one.store), (1, Guid([0x10; 16]), Guid([0x20; 16])));
    assert_eq!((one.kind(), one.originating_machine.as_str()), ("ApplicationRollback", "M"));
    assert!(one.attribute_names().contains(&"No auto release"), "{:?}", one.attribute_names());
    for (number, state) in (1..).zip(&made.states) {
        let view = shadows.view(number).unwrap();
        let read = view.read_vec(0, VOLUME_BYTES).unwrap();
        // The stores themselves are not copied, nor is the block with the header.
        for block in 1..VOLUME_BYTES / BLOCK {
            let range = block * BLOCK..(block + 1) * BLOCK;
            if range.start >= made.store.end || range.end <= made.store.start {
                assert!(read[range.clone()] == state[range], "block {block} of copy {number}");
            }
        }
        let volume = Volume::open(view).unwrap();
        let file = resolve(&volume, &["changes.bin"]).unwrap().unwrap();
        let wanted = vec![number as u8; if number == 1 { 100_000 } else { 130_000 }];
        assert!(read_file(&volume, file, "").unwrap() == wanted);
        assert_eq!(resolve(&volume, &["goes.bin"]).unwrap().is_some(), number == 1);
        assert!(resolve(&volume, &["new.bin"]).unwrap().is_none());
    }
    for (name, number) in
        [("latest", 2), ("oldest", 1), ("2", 2), ("10101010-1010-1010-1010-101010101010", 1)]
    {
        assert_eq!(shadows.find(name).unwrap().number, number, "{name}");
    }
    assert!(shadows.find("3").is_err() && shadows.find("0").is_err() && shadows.view(0).is_err());
    assert!(Shadows::open(&disk(&made.states[0])).unwrap().is_none(), "a volume without any");
}

/// What is written where a copy needs the volume changes that copy; what it has kept, or never used, does not.
#[test]
fn writers_are_told_which_copies_they_change() {
    let made = made();
    let volume = disk(&made.bytes);
    let shadows = Shadows::open(&volume).unwrap().unwrap();
    let find =
        |byte: u8, bytes: &[u8]| bytes.windows(4096).position(|part| part == [byte; 4096]).unwrap() as u64;
    let stays = find(7, &made.bytes);
    assert_eq!(shadows.changed_by(&[stays..stays + 1]), [1, 2]);
    // The first copy needs the file that was removed; it is on free clusters of the volume and of the second copy.
    let gone = find(9, &made.states[0]);
    let now = Volume::open(volume.clone()).unwrap();
    let is_free = now.free_ranges().unwrap().iter().any(|range| range.contains(&gone));
    let reads = shadows.uses(1);
    let needs = reads.iter().any(|range| range.contains(&gone));
    // Unless somebody wrote there, and it was kept.
    assert_eq!(needs, is_free, "{gone:#x}");
    let kept = find(1, &made.states[0]) / BLOCK_BYTES * BLOCK_BYTES;
    assert!(!shadows.changed_by(&[kept..kept + 1]).contains(&1), "that block was kept");
    let everything = without(vec![0..VOLUME_BYTES as u64], &shadows.all_uses().unwrap());
    assert!(!everything.is_empty() && shadows.changed_by(&everything).is_empty());
    // A copy that cannot be read may need anything.
    let mut bad = made.bytes.clone();
    let list = bad.windows(24).position(|part| part[..16] == blocks::MARK.0 && part[20] == 3).unwrap();
    bad[list + 20] = 9;
    let shadows = Shadows::open(&disk(&bad)).unwrap().unwrap();
    assert_eq!(shadows.uses(1), [0..VOLUME_BYTES as u64]);
    assert!(shadows.all_uses().unwrap_err().to_string().contains("needs"));
}

#[test]
fn damage_is_named() {
    let made = made();
    let open = |work: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = made.bytes.clone();
        work(&mut bytes);
        Shadows::open(&disk(&bytes))
    };
    let catalog = made.store.start;
    let error = |work: &dyn Fn(&mut Vec<u8>)| open(work).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error(&|b| b[0x1E00 + 16] = 9).contains("version"));
    assert!(error(&|b| b[catalog + 20] = 9).contains("another kind"));
    assert!(error(&|b| put(b, 0x1E00 + 48, 1 << 40)).contains("outside of the volume"));
    // A catalog that leads back into itself: what was read stands, and the rest is told.
    let shadows = open(&|b| put(b, catalog + 40, catalog as u64)).unwrap().unwrap();
    assert_eq!((shadows.copies.len(), shadows.defects.len()), (2, 1));
    // There may have been more of them: what they need nobody knows.
    assert!(shadows.all_uses().unwrap_err().to_string().contains("leads back"));
    // The store of the newer copy: both are lost, and the catalog stays.
    let shadows = open(&|b| {
        let newer = u64::from_le_bytes(b[catalog + 136 + 128..catalog + 144 + 128].try_into().unwrap());
        b[newer as usize] ^= 1;
    })
    .unwrap()
    .unwrap();
    assert_eq!(shadows.copies.len(), 2);
    assert!(shadows.view(2).unwrap_err().to_string().contains("shadow copy 2 cannot be read"));
    assert!(shadows.view(1).unwrap_err().to_string().contains("shadow copy 2 cannot be read"));
}

/// Whatever the bytes of catalog and stores are: no panic, no hang, no endless memory.
#[test]
fn damaged_stores_end_in_errors() {
    let made = made();
    let mut state = 1u64;
    let mut roll = |sides: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % sides
    };
    let (mut opened, mut read, mut refused) = (0, 0, 0);
    for _ in 0..400 {
        let mut bytes = made.bytes.clone();
        for _ in 0..=roll(12) {
            let at = match roll(4) {
                0 => 0x1E00 + roll(128),
                1 => made.store.start + roll(BLOCK),
                // Where headers, lists and bitmaps lie.
                2 => made.store.start + roll(8) * BLOCK + roll(600),
                _ => made.store.start + roll(12 * BLOCK),
            };
            bytes[at] = if roll(2) == 0 { roll(256) as u8 } else { bytes[at] ^ (1 << roll(8)) };
        }
        let Ok(Some(shadows)) = Shadows::open(&disk(&bytes)) else { continue };
        opened += 1;
        for copy in &shadows.copies {
            match shadows.view(copy.number) {
                Ok(view) => {
                    read += 1;
                    drop(view.read_vec(0, view.len() as usize));
                    drop(Volume::open(view).map(|volume| volume.read_dir(volume.root())));
                }
                Err(_) => refused += 1,
            }
            shadows.uses(copy.number);
        }
    }
    assert!(opened > 100 && read > 100 && refused > 20, "{opened} opened, {read} read, {refused} refused");
}
