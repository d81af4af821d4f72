//! Files that are not what [MS-VHDX] says: each rule broken by one change, told by its code, and refused by a writer
//! when it is severe.

use super::format::*;
use super::*;
use crate::{CreateSpec, Kind, create};
use std::time::{Duration, Instant};
use vmrescue_base::guid::Guid;
use vmrescue_block::MemoryDevice;

const LOG: u64 = ALIGN;
const METADATA: u64 = 2 * ALIGN;
const BAT: u64 = 3 * ALIGN;
const DISK_BYTES: u64 = 8 << 20;

/// A dynamic disk of 8 MiB in blocks of 1 MiB, with two blocks that hold something.
fn disk() -> DiskMut {
    let file = DiskMut::new(Arc::new(MemoryDevice::default()));
    let spec = CreateSpec {
        kind: Kind::VhdxDynamic,
        size: DISK_BYTES,
        block_bytes: Some(ALIGN),
        logical_sector_bytes: 512,
    };
    create(&file, &spec).unwrap();
    let disk = open_mut(&file, None).unwrap().disk;
    disk.write_at(0, b"one").unwrap();
    disk.write_at(3 * ALIGN, b"two").unwrap();
    file
}

/// A child of such a disk, with a sector of its own.
fn child() -> (DiskMut, Disk) {
    let parent = disk();
    let info = info(&parent.as_disk()).unwrap();
    let file = DiskMut::new(Arc::new(MemoryDevice::default()));
    crate::create_child(&file, &info, r".\parent.vhdx", r"C:\vm\parent.vhdx").unwrap();
    open_mut(&file, Some(open(&parent.as_disk(), None).unwrap().disk))
        .unwrap()
        .disk
        .write_at(512, b"own")
        .unwrap();
    (file, parent.as_disk())
}

fn put(file: &DiskMut, at: u64, bytes: &[u8]) {
    file.write_at(at, bytes).unwrap();
}

/// Changes a structure with a checksum at byte 4, and puts the checksum right.
fn resealed(file: &DiskMut, places: &[u64], bytes: usize, change: impl Fn(&mut Vec<u8>)) {
    for place in places {
        let mut structure = file.as_disk().read_vec(*place, bytes).unwrap();
        change(&mut structure);
        put(file, *place, &sealed(structure, 4));
    }
}

fn headers(file: &DiskMut, change: impl Fn(&mut Vec<u8>)) {
    resealed(file, &HEADER_PLACES, HEADER_BYTES, change);
}

fn regions(file: &DiskMut, change: impl Fn(&mut Vec<u8>)) {
    resealed(file, &REGION_PLACES, REGION_BYTES, change);
}

fn bat(file: &DiskMut, entry: u64, change: impl Fn(u64) -> u64) {
    let at = BAT + entry * 8;
    let old = vmrescue_base::bytes::u64_at(&file.as_disk().read_vec(at, 8).unwrap(), 0).unwrap();
    put(file, at, &change(old).to_le_bytes());
}

/// A region table with a third entry.
fn third(table: &mut [u8], id: Guid, range: Range<u64>, required: u32) {
    table[8] = 3;
    table[80..96].copy_from_slice(&id.0);
    table[96..104].copy_from_slice(&range.start.to_le_bytes());
    table[104..108].copy_from_slice(&((range.end - range.start) as u32).to_le_bytes());
    table[108..112].copy_from_slice(&required.to_le_bytes());
}

/// A metadata table with one more entry: id, offset, length, flags.
fn item(file: &DiskMut, id: Guid, offset: u32, length: u32, flags: u32) {
    let mut table = file.as_disk().read_vec(METADATA, 32 + 32 * 32).unwrap();
    let at = 32 + 32 * usize::from(table[10]);
    table[10] += 1;
    table[at..at + 16].copy_from_slice(&id.0);
    table[at + 16..at + 20].copy_from_slice(&offset.to_le_bytes());
    table[at + 20..at + 24].copy_from_slice(&length.to_le_bytes());
    table[at + 24..at + 28].copy_from_slice(&flags.to_le_bytes());
    put(file, METADATA, &table);
}

/// Place of the entry of a known item in the metadata table.
fn entry_of(file: &DiskMut, id: Guid) -> u64 {
    let table = file.as_disk().read_vec(METADATA, 32 + 32 * 32).unwrap();
    let at = (32..table.len()).step_by(32).find(|at| Guid::at(&table, *at) == Some(id)).unwrap();
    METADATA + at as u64
}

type Break = fn(&DiskMut);

#[test]
fn every_broken_rule_is_told_and_a_writer_refuses_what_is_severe() {
    use Severity::{Error, Note, Warning};
    let cases: [(&str, Severity, Break); 32] = [
        ("vhdx-header-bad", Warning, |f| put(f, HEADER_PLACES[0] + 20, &[0xff])),
        ("vhdx-header-reserved", Warning, |f| headers(f, |h| h[4000] = 1)),
        ("vhdx-headers-contradict", Error, |f| {
            headers(f, |h| h[8..16].copy_from_slice(&9u64.to_le_bytes()));
            resealed(f, &HEADER_PLACES[..1], HEADER_BYTES, |h| h[20] ^= 1);
        }),
        ("vhdx-log-misplaced", Error, |f| {
            headers(f, |h| h[72..80].copy_from_slice(&(LOG + 4096).to_le_bytes()));
        }),
        ("vhdx-log-misplaced", Error, |f| {
            headers(f, |h| h[72..80].copy_from_slice(&(1u64 << 40).to_le_bytes()));
        }),
        ("vhdx-log-misplaced", Error, |f| headers(f, |h| h[68..72].fill(0))),
        ("vhdx-log-version", Warning, |f| headers(f, |h| h[64] = 1)),
        ("vhdx-region-table-bad", Warning, |f| put(f, REGION_PLACES[1] + 20, &[0xff])),
        ("vhdx-region-tables-differ", Error, |f| {
            resealed(f, &REGION_PLACES[1..], REGION_BYTES, |t| t[30] ^= 1);
        }),
        ("vhdx-region-count", Error, |f| regions(f, |t| t[8..12].copy_from_slice(&3000u32.to_le_bytes()))),
        ("vhdx-region-reserved", Warning, |f| regions(f, |t| t[12] = 1)),
        ("vhdx-region-reserved", Warning, |f| regions(f, |t| t[45] = 1)),
        ("vhdx-region-duplicate", Error, |f| regions(f, |t| third(t, BAT_REGION, BAT..BAT + ALIGN, 1))),
        ("vhdx-region-overlap", Error, |f| {
            regions(f, |t| third(t, Guid::from_fields(1, 2, 3, [4; 8]), LOG..LOG + ALIGN, 0));
        }),
        ("vhdx-region-misplaced", Error, |f| {
            regions(f, |t| third(t, Guid::from_fields(1, 2, 3, [4; 8]), 1 << 40..(1 << 40) + ALIGN, 0));
        }),
        ("vhdx-block-over-region", Error, |f| {
            regions(f, |t| third(t, Guid::from_fields(1, 2, 3, [4; 8]), 4 * ALIGN..5 * ALIGN, 0));
        }),
        ("vhdx-metadata-reserved", Warning, |f| put(f, METADATA + 20, &[1])),
        ("vhdx-metadata-reserved", Warning, |f| put(f, entry_of(f, FILE_PARAMETERS) + 28, &[1])),
        ("vhdx-metadata-duplicate", Error, |f| item(f, VIRTUAL_DISK_ID, 0x18000, 16, 6)),
        ("vhdx-metadata-overlap", Error, |f| item(f, Guid::from_fields(1, 2, 3, [4; 8]), 0x10004, 16, 1)),
        ("vhdx-metadata-id-zero", Error, |f| item(f, Guid::ZERO, 0x18000, 16, 1)),
        ("vhdx-metadata-item-misplaced", Error, |f| item(f, Guid::from_fields(1, 2, 3, [4; 8]), 64, 16, 1)),
        ("vhdx-metadata-user-required", Warning, |f| {
            item(f, Guid::from_fields(1, 2, 3, [4; 8]), 0x18000, 16, 1);
            put(f, entry_of(f, Guid::from_fields(1, 2, 3, [4; 8])) + 24, &[5]);
        }),
        ("vhdx-metadata-item-size", Error, |f| put(f, entry_of(f, VIRTUAL_DISK_ID) + 20, &[8])),
        ("vhdx-metadata-flags", Warning, |f| put(f, entry_of(f, VIRTUAL_DISK_ID) + 24, &[2])),
        ("vhdx-metadata-missing", Error, |f| {
            put(f, entry_of(f, VIRTUAL_DISK_ID) + 24, &[1]);
        }),
        ("vhdx-sector-size", Error, |f| {
            let entry = f.as_disk().read_vec(entry_of(f, PHYSICAL_SECTOR_SIZE), 32).unwrap();
            let at = u64::from(vmrescue_base::bytes::u32_at(&entry, 16).unwrap());
            put(f, METADATA + at, &1000u32.to_le_bytes());
        }),
        ("vhdx-bat-reserved", Error, |f| bat(f, 0, |entry| entry | 0x100)),
        ("vhdx-bat-reserved", Warning, |f| bat(f, 1, |_| 0x100)),
        ("vhdx-bat-entry-bad", Error, |f| bat(f, 1, |_| 4)),
        ("vhdx-bat-entry-bad", Error, |f| bat(f, 1, |_| 1 << 40 | 6)),
        ("vhdx-space-leaked", Note, |f| f.set_length(f.len() + 2 * ALIGN).unwrap()),
    ];
    assert_eq!(check(&disk().as_disk()).unwrap(), []);
    for (code, severity, broken) in cases {
        let file = disk();
        broken(&file);
        let found = check(&file.as_disk()).unwrap();
        let told = found.iter().find(|defect| defect.code == code);
        assert_eq!(told.map(|defect| defect.severity), Some(severity), "{code}: {found:?}");
        let before = file.as_disk().read_vec(0, file.len() as usize).unwrap();
        match open_mut(&file, None) {
            Ok(_) => assert!(severity != Error, "{code} is written"),
            Err(e) => {
                assert!(severity == Error, "{code} is refused: {e}");
                assert_eq!(e.kind(), vmrescue_base::ErrorKind::Refused, "{code}: {e}");
            }
        }
        assert!(before == file.as_disk().read_vec(0, file.len() as usize).unwrap(), "{code}: written to");
        // Who only looks is not kept from it.
        let read = open(&file.as_disk(), None).map(|opened| opened.disk.read_vec(0, 3).unwrap());
        assert!(code.starts_with("vhdx-log-misplaced") || read.is_ok_and(|bytes| bytes == b"one"), "{code}");
    }
}

#[test]
fn two_entries_on_one_block_are_refused() {
    let file = disk();
    let place = vmrescue_base::bytes::u64_at(&file.as_disk().read_vec(BAT, 8).unwrap(), 0).unwrap();
    bat(&file, 3, |_| place);
    let found = check(&file.as_disk()).unwrap();
    assert!(found.iter().any(|defect| defect.code == "vhdx-blocks-overlap"), "{found:?}");
    let e = open_mut(&file, None).map(drop).unwrap_err().to_string();
    assert!(e.contains("block 0 and block 3 share bytes"), "{e}");
    assert!(resize(&file, 16 << 20).is_err() && compact(&file, None, &|_| false).is_err());
}

#[test]
fn locators_and_bitmaps_of_children_are_checked() {
    let (file, _) = child();
    assert_eq!(check(&file.as_disk()).unwrap(), []);
    let layout = parse(&file.as_disk()).unwrap();
    let (metadata, table) = (layout.headers.regions.metadata.start, layout.headers.regions.bat.start);
    let head = file.as_disk().read_vec(metadata, 32 + 32 * 32).unwrap();
    let at = (32..head.len()).step_by(32).find(|at| Guid::at(&head, *at) == Some(PARENT_LOCATOR)).unwrap();
    let place = metadata + u64::from(vmrescue_base::bytes::u32_at(&head, at + 16).unwrap());
    // Chunks of this child have 2048 blocks of 2 MiB.
    let ratio = (512u64 << 23) / layout.metadata.block_bytes;
    let bitmap = table + ratio * 8;
    for (code, severity, offset, bytes) in [
        ("vhdx-locator-type", Severity::Error, place, [1u8].as_slice()),
        ("vhdx-locator-reserved", Severity::Warning, place + 16, &[1]),
        ("vhdx-locator-entry", Severity::Error, place + 20, &[0, 0, 0, 0]),
        ("vhdx-metadata-missing", Severity::Error, metadata + at as u64 + 24, &[1]),
        ("vhdx-bat-bitmap-state", Severity::Error, bitmap, &[3]),
        ("vhdx-bat-entry-bad", Severity::Error, bitmap + 4, &[0xff]),
    ] {
        let (file, parent) = child();
        put(&file, offset, bytes);
        let found = check(&file.as_disk()).unwrap();
        let told = found.iter().find(|defect| defect.code == code);
        assert_eq!(told.map(|defect| defect.severity), Some(severity), "{code}: {found:?}");
        let parent = open(&parent, None).unwrap().disk;
        assert_eq!(open_mut(&file, Some(parent)).is_err(), severity == Severity::Error, "{code}");
    }
}

#[test]
fn versions_that_are_not_known_are_not_guessed() {
    let file = disk();
    headers(&file, |header| header[66] = 2);
    let e = open(&file.as_disk(), None).map(drop).unwrap_err();
    assert_eq!(e.kind(), vmrescue_base::ErrorKind::Unsupported, "{e}");
    let file = disk();
    leave_log(&file, BAT, &[7; 4096], 1).unwrap();
    headers(&file, |header| header[64] = 1);
    let e = open(&file.as_disk(), None).map(drop).unwrap_err();
    assert_eq!(e.kind(), vmrescue_base::ErrorKind::Unsupported, "{e}");
}

/// 128 MiB of sectors that each claim to begin an entry as long as the whole log.
#[test]
fn a_log_full_of_false_entries_costs_one_look() {
    const LOG_BYTES: u64 = 128 << 20;
    let file = disk();
    let guid = Guid::random();
    let place = file.len().next_multiple_of(ALIGN);
    file.set_length(place + LOG_BYTES).unwrap();
    headers(&file, |header| {
        header[48..64].copy_from_slice(&guid.0);
        header[68..72].copy_from_slice(&(LOG_BYTES as u32).to_le_bytes());
        header[72..80].copy_from_slice(&place.to_le_bytes());
    });
    let mut sector = vec![0; 4096];
    sector[..4].copy_from_slice(b"loge");
    sector[8..12].copy_from_slice(&(LOG_BYTES as u32).to_le_bytes());
    sector[16] = 1;
    sector[32..48].copy_from_slice(&guid.0);
    for at in (0..LOG_BYTES).step_by(4096) {
        put(&file, place + at, &sector);
    }
    let begun = Instant::now();
    let e = info(&file.as_disk()).map(drop).unwrap_err();
    assert!(e.to_string().contains("no whole sequence"), "{e}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_log_does_not_write_over_headers_and_zeros_without_end_take_no_memory() {
    let file = disk();
    leave_log(&file, 64 << 10, &[7; 4096], 1).unwrap();
    let e = open(&file.as_disk(), None).map(drop).unwrap_err().to_string();
    assert!(e.contains("writes over the headers"), "{e}");
    // An entry that makes the file 100 TiB long and zeroes all of it behind the BAT.
    let file = disk();
    leave_log(&file, BAT, &[7; 4096], 1).unwrap();
    resealed(&file, &[LOG], 8192, |entry| {
        let end: u64 = 100 << 40;
        entry[56..64].copy_from_slice(&end.to_le_bytes());
        entry[64..68].copy_from_slice(b"zero");
        entry[72..80].copy_from_slice(&(end - BAT - ALIGN).to_le_bytes());
        entry[80..88].copy_from_slice(&(BAT + ALIGN).to_le_bytes());
    });
    let begun = Instant::now();
    assert_eq!(open(&file.as_disk(), None).unwrap().disk.read_vec(0, 3).unwrap(), [0; 3]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
