use super::*;
use proptest::prelude::*;
use std::sync::Arc;
use vmrescue_block::{DiskMut, MemoryDevice};

fn disk(bytes: usize, sector: u32) -> DiskMut {
    DiskMut::new(Arc::new(MemoryDevice::zeroed(bytes).with_sectors(sector)))
}

fn new(range: Range<u64>) -> NewPartition {
    NewPartition { type_guid: BASIC_DATA, mbr_type: 7, range, name: "Basic data".into(), active: true }
}

fn entry(new: NewPartition, id: Guid, attributes: u64, slot: Option<u32>) -> Entry {
    Entry { new, id: Some(id), attributes, slot }
}

/// Without a protective MBR the disk is taken for another by firmware and Windows; a record with partitions of its own counts.
#[test]
fn the_first_sector_decides_what_the_disk_is() {
    let disk = disk(8 << 20, 512);
    write_gpt(&disk, &[new(1 << 20..2 << 20)]).unwrap();
    let codes = |disk: &DiskMut| -> (TableKind, Vec<&'static str>) {
        let table = read(&disk.as_disk()).unwrap();
        (table.kind, table.defects.iter().map(|defect| defect.code).collect())
    };
    disk.write_at(450, &[7]).unwrap();
    assert_eq!(codes(&disk), (TableKind::Gpt, vec!["gpt-not-protected"]));
    disk.zero_at(0..512).unwrap();
    assert_eq!(codes(&disk), (TableKind::Gpt, vec!["gpt-not-protected"]));
    assert!(repair_gpt(&disk).unwrap());
    assert_eq!(codes(&disk), (TableKind::Gpt, vec![]));
    write_mbr(&disk, 7, &[new(4 << 20..5 << 20)]).unwrap();
    assert_eq!(codes(&disk), (TableKind::Mbr, vec!["gpt-stale"]));
}

#[test]
fn attributes_are_cleared_in_both_copies() {
    let disk = disk(8 << 20, 512);
    write_gpt(&disk, &[]).unwrap();
    let bits = HIDING_ATTRIBUTES | 1 << 63;
    let number = add(&disk, &entry(new(1 << 20..2 << 20), Guid::random(), bits, None)).unwrap();
    clear_attributes(&disk, number, HIDING_ATTRIBUTES).unwrap();
    let table = read(&disk.as_disk()).unwrap();
    assert_eq!((table.partitions[0].attributes, table.defects.len()), (1 << 63, 0));
    assert!(clear_attributes(&disk, 9, HIDING_ATTRIBUTES).is_err());
}

#[test]
fn a_gpt_is_read_from_either_copy() {
    for sector in [512u32, 4096] {
        let disk = disk(8 << 20, sector);
        let id = write_gpt(&disk, &[new(1 << 20..2 << 20), new(3 << 20..7 << 20)]).unwrap();
        let table = read(&disk.as_disk()).unwrap();
        assert_eq!((table.kind, table.partitions.len()), (TableKind::Gpt, 2));
        assert_eq!(table.disk_id, Some(id.to_string()));
        assert_eq!(table.partitions[1].range, 3 << 20..7 << 20);
        assert!(table.defects.is_empty());
        disk.write_at(u64::from(sector) + 60, &[0xff; 4]).unwrap();
        let table = read(&disk.as_disk()).unwrap();
        assert_eq!((table.partitions.len(), table.defects[0].code), (2, "gpt-primary-bad"));
        disk.zero_at((8 << 20) - u64::from(sector)..8 << 20).unwrap();
        assert!(read(&disk.as_disk()).is_err());
    }
}

#[test]
fn the_gpt_crate_agrees() {
    let disk = disk(8 << 20, 512);
    write_gpt(&disk, &[new(1 << 20..2 << 20), new(3 << 20..7 << 20)]).unwrap();
    let bytes = std::io::Cursor::new(disk.as_disk().read_vec(0, 8 << 20).unwrap());
    let other = ::gpt::GptConfig::new().writable(false).open_from_device(Box::new(bytes)).unwrap();
    let ranges: Vec<(u64, u64)> = other.partitions().values().map(|p| (p.first_lba, p.last_lba)).collect();
    assert_eq!(ranges, [(2048, 4095), (6144, 14335)]);
}

#[test]
fn logical_partitions_are_found_and_loops_end() {
    let disk = disk(8 << 20, 512);
    let mut extended = new(2 << 20..7 << 20);
    extended.mbr_type = 0x0f;
    write_mbr(&disk, 0xdead_beef, &[new(1 << 20..2 << 20), extended]).unwrap();
    // Two logical partitions; the second record then leads back to the first.
    let record = |kinds: [(u8, u32, u32); 2]| {
        let mut bytes = vec![0u8; 512];
        for (i, (kind, first, count)) in kinds.into_iter().enumerate() {
            bytes[446 + i * 16 + 4] = kind;
            bytes[454 + i * 16..458 + i * 16].copy_from_slice(&first.to_le_bytes());
            bytes[458 + i * 16..462 + i * 16].copy_from_slice(&count.to_le_bytes());
        }
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        bytes
    };
    disk.write_at(2 << 20, &record([(7, 63, 100), (5, 1000, 200)])).unwrap();
    disk.write_at((2 << 20) + 512_000, &record([(7, 63, 100), (0, 0, 0)])).unwrap();
    let table = read(&disk.as_disk()).unwrap();
    assert_eq!(table.partitions.len(), 3);
    assert_eq!(table.disk_id.as_deref(), Some("deadbeef"));
    assert_eq!(table.partitions[2].range.start, (2 << 20) + 512_000 + 63 * 512);
    disk.write_at((2 << 20) + 512_000, &record([(7, 63, 100), (5, 1000, 200)])).unwrap();
    assert!(read(&disk.as_disk()).unwrap().defects.iter().any(|d| d.code == "mbr-chain-loop"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_are_read_without_panic(hits in prop::collection::vec((0usize..40_000, any::<u8>()), 0..200), gpt: bool) {
        let disk = disk(1 << 20, 512);
        if gpt {
            write_gpt(&disk, &[new(100 << 10..200 << 10)]).unwrap();
        } else {
            write_mbr(&disk, 1, &[new(100 << 10..200 << 10)]).unwrap();
        }
        for (at, value) in hits {
            disk.write_at(at as u64, &[value]).unwrap();
        }
        let _table = read(&disk.as_disk());
    }
}

/// Boot sectors have the mark of a partition table as well; so has one whose maker no list knows.
#[test]
fn a_volume_without_a_table_is_none() {
    for (at, mark) in
        [(3, &b"NTFS    "[..]), (3, b"-FVE-FS-"), (54, b"FAT12   "), (54, b"FAT16   "), (82, b"FAT32   ")]
    {
        let disk = disk(1 << 20, 512);
        disk.write_at(510, &[0x55, 0xaa]).unwrap();
        assert_eq!(read(&disk.as_disk()).unwrap().kind, TableKind::Mbr, "a table without partitions");
        disk.write_at(at, mark).unwrap();
        assert_eq!(read(&disk.as_disk()).unwrap().kind, TableKind::None, "{mark:?}");
    }
    // A disk that was a FAT volume and has partitions now.
    let disk = disk(8 << 20, 512);
    write_mbr(&disk, 7, &[new(1 << 20..4 << 20)]).unwrap();
    disk.write_at(54, b"FAT16   ").unwrap();
    assert_eq!(read(&disk.as_disk()).unwrap().partitions.len(), 1);
}

#[test]
fn partitions_are_added_between_the_others() {
    for sector in [512u32, 4096] {
        let disk = disk(16 << 20, sector);
        write_gpt(&disk, &[new(1 << 20..2 << 20), new(4 << 20..7 << 20)]).unwrap();
        let table = read(&disk.as_disk()).unwrap();
        let free = gaps(&table, disk.len());
        assert_eq!(free.len(), 3);
        assert_eq!(free[1], 2 << 20..4 << 20);
        let id = Guid::random();
        let mut one = new(2 << 20..4 << 20);
        one.type_guid = EFI_SYSTEM;
        assert_eq!(add(&disk, &entry(one.clone(), id, 1 << 63, Some(9))).unwrap(), 9);
        let table = read(&disk.as_disk()).unwrap();
        let made = table.partitions.iter().find(|p| p.number == 9).unwrap();
        assert_eq!(
            (made.unique_guid, made.attributes, made.range.clone()),
            (Some(id), 1 << 63, 2 << 20..4 << 20)
        );
        assert!(table.defects.is_empty());
        assert!(add(&disk, &entry(one, id, 0, None)).is_err(), "it is taken now");
        assert_eq!(
            add(&disk, &entry(new(8 << 20..9 << 20), id, 0, Some(9))).unwrap(),
            3,
            "the first free one"
        );
    }
    let disk = disk(16 << 20, 512);
    write_mbr(&disk, 7, &[new(1 << 20..2 << 20)]).unwrap();
    assert_eq!(add(&disk, &entry(new(2 << 20..4 << 20), Guid::ZERO, 0, None)).unwrap(), 2);
    let table = read(&disk.as_disk()).unwrap();
    assert_eq!(table.partitions.iter().map(|p| p.active).collect::<Vec<_>>(), [false, true]);
    assert!(add(&disk, &entry(new(3 << 20..5 << 20), Guid::ZERO, 0, None)).is_err());
}
