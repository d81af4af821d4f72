use super::*;
use proptest::prelude::*;
use std::sync::Arc;
use vmrescue_block::MemoryDevice;

const KINDS: [Kind; 5] = [Kind::Raw, Kind::VhdFixed, Kind::VhdDynamic, Kind::VhdxFixed, Kind::VhdxDynamic];

fn new_file(kind: Kind, size: u64, block: Option<u64>, sector: u32) -> DiskMut {
    let file = DiskMut::new(Arc::new(MemoryDevice::default()));
    create(&file, &CreateSpec { kind, size, block_bytes: block, logical_sector_bytes: sector }).unwrap();
    file
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    Reopen,
}

fn step(size: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..size, prop::collection::vec(any::<u8>(), 1..5000)).prop_map(|(o, d)| Step::Write(o, d)),
        2 => (0..size, 1..3_000_000u64).prop_map(|(o, l)| Step::Zero(o, l)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn every_container_is_a_vector(steps in prop::collection::vec(step(5_000_192), 1..20)) {
        let size = 5_000_192u64;
        for kind in KINDS {
            let block = match kind { Kind::VhdDynamic => Some(64 << 10), Kind::VhdxDynamic => Some(1 << 20), _ => None };
            let file = new_file(kind, size, block, 512);
            let mut model = vec![0u8; size as usize];
            let mut disk = open_mut(&file, None).unwrap().disk;
            for step in &steps {
                match step {
                    Step::Write(offset, data) => {
                        let data = &data[..data.len().min((size - offset) as usize)];
                        disk.write_at(*offset, data).unwrap();
                        model[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
                    }
                    Step::Zero(offset, length) => {
                        let end = (offset + length).min(size);
                        disk.zero_at(*offset..end).unwrap();
                        model[*offset as usize..end as usize].fill(0);
                    }
                    Step::Reopen => disk = open_mut(&file, None).unwrap().disk,
                }
            }
            let read = open(&file.as_disk()).unwrap();
            prop_assert!(read.disk.read_vec(0, size as usize).unwrap() == model, "{:?}", kind);
            prop_assert!(read.defects.is_empty());
            prop_assert!(check(&file.as_disk()).unwrap().is_empty());
        }
    }

    #[test]
    fn damaged_containers_are_not_written_into_overlap(kind in 2usize..5, hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), at in 0u64..(3 << 20) - 70_000) {
        let file = new_file(KINDS[kind], 3 << 20, None, 512);
        open_mut(&file, None).unwrap().disk.write_at(1 << 20, b"content").unwrap();
        let interesting = [0, 512, 1536, 64 << 10, 128 << 10, 192 << 10, 256 << 10, 2 << 20, 3 << 20, file.len() - 512];
        for (index, value) in &hits {
            let place = interesting[index.index(interesting.len())] + u64::from(*value) % 100;
            if place < file.len() { file.write_at(place, &[*value]).unwrap(); }
        }
        let sound = |file: &DiskMut| check(&file.as_disk()).unwrap().iter().all(|d| d.severity != Severity::Error);
        // A writer that starts on a container without errors leaves one without errors, and holds what was written.
        if sound(&file) && let Ok(opened) = open_mut(&file, None) && opened.disk.len() >= 3 << 20 {
            let data = vec![0x5a; 70_000];
            if opened.disk.write_at(at, &data).is_ok() {
                prop_assert!(opened.disk.as_disk().read_vec(at, 70_000).unwrap() == data);
                prop_assert!(sound(&file), "{:?}", check(&file.as_disk()));
            }
        }
    }

    #[test]
    fn damaged_containers_never_panic(kind in 1usize..5, hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in 0u64..2000) {
        let file = new_file(KINDS[kind], 3 << 20, None, 512);
        open_mut(&file, None).unwrap().disk.write_at(1 << 20, b"content").unwrap();
        let length = file.len();
        let interesting = [0, 512, 1536, 64 << 10, 128 << 10, 192 << 10, 256 << 10, 2 << 20, 3 << 20, length - 512];
        for (index, value) in &hits {
            let at = interesting[index.index(interesting.len())] + u64::from(*value) % 100;
            if at < length { file.write_at(at, &[*value]).unwrap(); }
        }
        file.set_length(length - cut).unwrap();
        let _checked = check(&file.as_disk());
        if let Ok(opened) = open(&file.as_disk()) {
            let mut buf = vec![0; 65536];
            for at in (0..opened.disk.len().min(64 << 20)).step_by(1 << 20) {
                let count = buf.len().min((opened.disk.len() - at) as usize);
                let _read = opened.disk.read_at(at, &mut buf[..count]);
            }
        }
    }
}

#[test]
fn a_vhdx_with_4096_byte_sectors_says_so() {
    let file = new_file(Kind::VhdxDynamic, 64 << 20, Some(1 << 20), 4096);
    let opened = open(&file.as_disk()).unwrap();
    assert_eq!(opened.disk.geometry().logical_sector_bytes, 4096);
    assert_eq!(opened.info.block_bytes, Some(1 << 20));
}

#[test]
fn one_broken_vhdx_header_is_a_defect_and_two_are_an_error() {
    let file = new_file(Kind::VhdxDynamic, 8 << 20, None, 512);
    file.write_at(64 << 10, b"gone").unwrap();
    assert_eq!(open(&file.as_disk()).unwrap().defects[0].code, "vhdx-header-bad");
    file.write_at(128 << 10, b"gone").unwrap();
    assert_eq!(open(&file.as_disk()).unwrap_err().offset(), Some(64 << 10));
}

#[test]
fn a_vhd_with_a_broken_footer_is_read_by_its_copy_and_not_written() {
    let file = new_file(Kind::VhdDynamic, 8 << 20, None, 512);
    open_mut(&file, None).unwrap().disk.write_at(4000, b"kept").unwrap();
    file.write_at(file.len() - 500, b"damage").unwrap();
    let opened = open(&file.as_disk()).unwrap();
    assert_eq!(opened.disk.read_vec(4000, 4).unwrap(), b"kept");
    assert_eq!(opened.defects[0].code, "vhd-footer-bad");
    assert!(open_mut(&file, None).is_err());
}

/// A file whose writer died: a log entry holds the BAT entry that the file lacks. Reading replays it in memory.
#[test]
fn a_log_is_replayed_for_readers_in_memory_and_for_writers_in_the_stage() {
    let device = Arc::new(MemoryDevice::default());
    let file = DiskMut::new(Arc::clone(&device) as Arc<dyn vmrescue_block::WritableDevice>);
    let spec = CreateSpec { block_bytes: Some(1 << 20), ..CreateSpec::new(Kind::VhdxDynamic, 8 << 20) };
    create(&file, &spec).unwrap();
    open_mut(&file, None).unwrap().disk.write_at(5, b"in the log").unwrap();
    let bat = 3 << 20;
    let sector = file.as_disk().read_vec(bat, 4096).unwrap();
    file.zero_at(bat..bat + 4096).unwrap();
    assert_eq!(open(&file.as_disk()).unwrap().disk.read_vec(5, 10).unwrap(), [0; 10]);
    vhdx::leave_log(&file, bat, &sector, 7).unwrap();
    let before = device.to_vec();
    let opened = open(&file.as_disk()).unwrap();
    assert!(opened.info.log_replayed);
    assert_eq!(opened.disk.read_vec(5, 10).unwrap(), b"in the log");
    assert!(device.to_vec() == before, "reading writes nothing");
    // An entry that is torn, or of another log, is no entry.
    let entry = 1 << 20;
    for byte in [entry + 20, entry + 70, entry + 4096 + 100, entry + 40] {
        file.write_at(byte, &[before[byte as usize] ^ 1]).unwrap();
        assert!(open(&file.as_disk()).unwrap_err().to_string().contains("no whole sequence"));
        file.write_at(byte, &[before[byte as usize]]).unwrap();
    }
    let disk = open_mut(&file, None).unwrap().disk;
    disk.write_at(100, b"more").unwrap();
    let opened = open(&file.as_disk()).unwrap();
    assert!(!opened.info.log_replayed, "the log is empty after a write");
    assert_eq!(opened.disk.read_vec(5, 10).unwrap(), b"in the log");
    assert_eq!(opened.disk.read_vec(100, 4).unwrap(), b"more");
    assert!(check(&file.as_disk()).unwrap().is_empty());
}

#[test]
fn equal_sequence_numbers_and_unknown_metadata_are_handled() {
    let file = new_file(Kind::VhdxDynamic, 8 << 20, None, 512);
    let second = file.as_disk().read_vec(128 << 10, 4096).unwrap();
    file.write_at(64 << 10, &second).unwrap();
    assert!(open(&file.as_disk()).is_ok(), "equal numbers are one header twice");
    // A sixth item, required and unknown: refused by its name.
    let table = 2 << 20;
    let mut item = [0u8; 32];
    item[..16].fill(0xab);
    item[16..20].copy_from_slice(&(64u32 << 10).to_le_bytes());
    item[20..24].copy_from_slice(&8u32.to_le_bytes());
    item[24] = 4;
    file.write_at(table + 32 + 5 * 32, &item).unwrap();
    file.write_at(table + 10, &[6]).unwrap();
    let refused = open(&file.as_disk()).unwrap_err();
    assert!(refused.to_string().contains("abababab-abab-abab"), "{refused}");
    file.write_at(table + 32 + 5 * 32 + 24, &[0]).unwrap();
    assert!(open(&file.as_disk()).is_ok(), "one that is not required is passed over");
}

#[test]
fn every_container_conforms() {
    for kind in [Kind::Raw, Kind::VhdFixed, Kind::VhdDynamic, Kind::VhdxFixed, Kind::VhdxDynamic] {
        let file = DiskMut::new(Arc::new(MemoryDevice::default()));
        create(&file, &CreateSpec { block_bytes: Some(1 << 20), ..CreateSpec::new(kind, 3 << 20) }).unwrap();
        vmrescue_block::testing::conformance::write_suite(&open_mut(&file, None).unwrap().disk);
    }
}
