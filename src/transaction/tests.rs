use super::journal::{Side, View};
use super::*;
use crate::testing::{MemoryPlace, begin, staged, sweep};
use std::fs;
use vmrescue_base::error::ErrorKind;
use vmrescue_base::progress::Silent;
use vmrescue_block::MemoryDevice;

fn image(dir: &Path) -> PathBuf {
    let path = dir.join("disk.raw");
    fs::write(&path, (0..100_000u32).map(|i| (i / 7) as u8).collect::<Vec<u8>>()).unwrap();
    path
}

fn change(path: &Path, offset: u64, text: &[u8], length: u64) -> Result<Option<OperationId>> {
    let tx = begin(path, &TransactionOptions::default())?;
    tx.file().set_length(length)?;
    tx.file().write_at(offset, text)?;
    tx.verified().publish(Record { title: "change".into(), ..Record::default() }, &Silent)
}

#[test]
fn publish_undo_and_redo_give_exactly_these_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let first = fs::read(&path).unwrap();
    assert_eq!(change(&path, 10, &first[10..20], 100_000).unwrap(), None);
    assert!(!state_dir_of(&path, None).exists(), "nothing to publish leaves no trace");

    change(&path, 99_990, b"longer than it was", 200_000).unwrap().unwrap();
    let second = fs::read(&path).unwrap();
    change(&path, 5, b"short", 50_001).unwrap().unwrap();
    let third = fs::read(&path).unwrap();
    assert_eq!((second.len(), third.len()), (200_000, 50_001));

    undo(&path, None, None, false, &Silent).unwrap();
    assert_eq!(fs::read(&path).unwrap(), second);
    undo(&path, None, None, false, &Silent).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(undo(&path, None, None, false, &Silent).unwrap_err().kind(), ErrorKind::NotFound);
    redo(&path, None, &Silent).unwrap();
    assert_eq!(fs::read(&path).unwrap(), second);
    redo(&path, None, &Silent).unwrap();
    assert_eq!(fs::read(&path).unwrap(), third);
    assert_eq!(history(&path, None).unwrap().len(), 2);
}

#[test]
fn an_image_that_changed_since_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    change(&path, 5, b"mine", 100_000).unwrap().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[6] = b'?';
    fs::write(&path, &bytes).unwrap();
    assert_eq!(undo(&path, None, None, false, &Silent).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    undo(&path, None, None, true, &Silent).unwrap();
}

#[test]
fn two_transactions_on_one_image_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let _first = begin(&path, &TransactionOptions::default()).unwrap();
    let second = begin(&path, &TransactionOptions::default());
    assert_eq!(second.err().map(|e| e.kind()), Some(ErrorKind::Busy));
}

#[test]
#[cfg_attr(windows, ignore = "Windows itself refuses to write to a file that is open for writing")]
fn a_file_changed_while_staging_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let tx = begin(&path, &TransactionOptions::default()).unwrap();
    tx.file().write_at(0, b"staged").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut bytes = fs::read(&path).unwrap();
    bytes[50_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = tx.verify(|_| Ok(())).and_then(|verified| verified.publish(Record::default(), &Silent));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    // Also between verification and publishing.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let tx = begin(&path, &TransactionOptions::default()).unwrap();
    tx.file().write_at(0, b"staged").unwrap();
    let verified = tx.verified();
    bytes[50_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(verified.publish(Record::default(), &Silent).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_crash_at_every_step_leaves_the_old_image_or_the_new_one() {
    let old: Vec<u8> = (0..30_000u32).map(|i| (i % 251) as u8).collect();
    let mut changed = old.clone();
    for start in [0, 5000, 9000, 20_000, 29_000] {
        changed[start..start + 700].fill(0xee);
    }
    let mut longer = changed.clone();
    longer.resize(50_000, 9);
    let shorter = changed[..12_345].to_vec();
    for new in [changed, longer, shorter] {
        assert!(sweep(&old, &new, false) > 15);
        assert!(sweep(&old, &new, true) > 15);
    }
}

#[test]
fn a_damaged_journal_is_not_applied() {
    let (old, new) = (vec![1u8; 9000], vec![2u8; 9000]);
    let (disk, ranges) = staged(&old, &new);
    let place = MemoryPlace::default();
    place.dies_at.set(u64::MAX);
    let image = DiskMut::new(Arc::new(MemoryDevice::new(old)));
    publish_staged(&place, &image, &disk, &ranges, Record::default(), &Silent).unwrap();
    let name = journal::name(OperationId(1));
    let length = place.files.borrow()[&name].len();
    for byte in (0..length).step_by(97) {
        place.files.borrow_mut().get_mut(&name).unwrap()[byte] ^= 0x10;
        assert!(Journal::open(&place, OperationId(1), View::Whole).is_err());
        place.files.borrow_mut().get_mut(&name).unwrap()[byte] ^= 0x10;
    }
    let journal = Journal::open(&place, OperationId(1), View::Whole).unwrap();
    assert!(journal.matches(&image.as_disk(), Side::After).unwrap());
}

/// The same through the writers of the containers: blocks appear, tables and headers change, the file grows.
#[test]
fn a_crash_while_a_container_is_written_leaves_the_old_disk_or_the_new_one() {
    use vmrescue_image::{CreateSpec, Kind, check, create, open, open_mut};
    for kind in [Kind::Raw, Kind::VhdFixed, Kind::VhdDynamic, Kind::VhdxDynamic] {
        let device = Arc::new(MemoryDevice::default());
        let file = DiskMut::new(Arc::clone(&device) as Arc<dyn WritableDevice>);
        let block_bytes = match kind {
            Kind::VhdDynamic => Some(64 << 10),
            Kind::VhdxDynamic => Some(1 << 20),
            _ => None,
        };
        let spec = CreateSpec { kind, size: 2 << 20, block_bytes, logical_sector_bytes: 512 };
        create(&file, &spec).unwrap();
        open_mut(&file, None).unwrap().disk.write_at(5000, b"before").unwrap();
        let old = device.to_vec();
        let disk = open_mut(&file, None).unwrap().disk;
        disk.write_at(5002, b"after").unwrap();
        disk.write_at(1_500_000, &[7; 3000]).unwrap();
        let new = device.to_vec();
        assert!(check(&file.as_disk()).unwrap().is_empty());
        assert!(sweep(&old, &new, false) > 10, "{kind:?}");
        assert!(sweep(&old, &new, true) > 10, "{kind:?}");
        assert_eq!(open(&file.as_disk()).unwrap().disk.read_vec(5000, 7).unwrap(), b"beafter");
    }
}

/// Merging, compacting, resizing: each staged by the containers' writers, each swept like any other change.
#[test]
fn a_crash_in_disk_maintenance_leaves_the_old_disk_or_the_new_one() {
    use vmrescue_image::{CreateSpec, Kind, compact, create, open_mut, resize};
    for kind in [Kind::VhdDynamic, Kind::VhdxDynamic] {
        let block_bytes = Some(if kind == Kind::VhdDynamic { 64 << 10 } else { 1 << 20 });
        let made = || {
            let device = Arc::new(MemoryDevice::default());
            let file = DiskMut::new(Arc::clone(&device) as Arc<dyn WritableDevice>);
            create(&file, &CreateSpec { kind, size: 3 << 20, block_bytes, logical_sector_bytes: 512 })
                .unwrap();
            let disk = open_mut(&file, None).unwrap().disk;
            disk.write_at(0, &[1; 5000]).unwrap();
            disk.write_at(1 << 20, &[2; 70_000]).unwrap();
            disk.write_at(5 << 19, &[3; 5000]).unwrap();
            disk.zero_at(0..5000).unwrap();
            (device, file)
        };
        let (device, file) = made();
        let old = device.to_vec();
        compact(&file, None, &[]).unwrap();
        assert!(device.to_vec().len() < old.len());
        assert!(sweep(&old, &device.to_vec(), false) > 10);
        for size in [2u64 << 20, 9 << 20] {
            let (device, file) = made();
            let old = device.to_vec();
            resize(&file, size).unwrap();
            assert!(sweep(&old, &device.to_vec(), false) > 10);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    /// Any bytes as a journal, sealed or not, are an error or a journal whose ranges can be asked for.
    #[test]
    fn any_journal_is_read_without_panic(
        mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), sealed in proptest::prelude::any::<bool>(),
        count in 0u64..9,
    ) {
        if sealed && bytes.len() >= 40 {
            bytes[..8].copy_from_slice(b"VMRJRNL1");
            bytes[24..32].copy_from_slice(&count.to_le_bytes());
            let sum = crc32c::crc32c(&bytes);
            bytes.extend(sum.to_le_bytes());
        }
        let place = MemoryPlace::default();
        place.dies_at.set(u64::MAX);
        place.files.borrow_mut().insert(journal::name(OperationId(1)), bytes);
        let image = DiskMut::new(Arc::new(MemoryDevice::new(vec![0; 1000])));
        for view in [View::Whole, View::LastPart] {
            let Ok(journal) = Journal::open(&place, OperationId(1), view) else { continue };
            let _held = journal.held(&image.as_disk());
            let _same = journal.matches(&image.as_disk(), Side::After);
        }
    }
}

#[test]
fn a_transaction_goes_on_after_a_publish_and_its_session_is_undone_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    change(&path, 1, b"of another session", 100_000).unwrap().unwrap();
    let first = fs::read(&path).unwrap();
    let mut tx = begin(&path, &TransactionOptions::default()).unwrap();
    let record = Record { session: Some("s".into()), ..Record::default() };
    let file = tx.file();
    file.write_at(10, b"one").unwrap();
    assert!(tx.verified_so_far().publish(record.clone(), &Silent).unwrap().is_some());
    assert_eq!(tx.staged_bytes(), 0);
    assert_eq!(tx.verified_so_far().publish(record.clone(), &Silent).unwrap(), None);
    // The same handle goes on; the file grows, is cut, and reads as it was written.
    file.set_length(300_000).unwrap();
    file.write_at(299_000, b"two").unwrap();
    tx.verified_so_far().publish(record.clone(), &Silent).unwrap().unwrap();
    assert_eq!((file.len(), fs::metadata(&path).unwrap().len()), (300_000, 300_000));
    file.set_length(70_000).unwrap();
    file.write_at(20, b"three").unwrap();
    tx.verified_so_far().publish(record, &Silent).unwrap().unwrap();
    assert_eq!(file.as_disk().read_vec(10, 15).unwrap()[10..], *b"three");
    drop((file, tx));
    let last = fs::read(&path).unwrap();
    assert!(last.len() == 70_000 && last[10..13] == *b"one");
    assert_eq!(history(&path, None).unwrap().len(), 2, "a session is one operation");
    assert_eq!(undo_session(&path, None, None, false, &Silent).unwrap().len(), 1);
    assert!(fs::read(&path).unwrap() == first, "the other session stands");
    assert_eq!(redo_session(&path, None, None, &Silent).unwrap().len(), 1);
    assert!(fs::read(&path).unwrap() == last);
    let latest = history(&path, None).unwrap().last().unwrap().id;
    undo(&path, None, Some(latest), false, &Silent).unwrap();
    assert!(fs::read(&path).unwrap() == first);
}

#[test]
fn a_publish_that_found_no_room_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path());
    let mut tx = begin(&path, &TransactionOptions::default()).unwrap();
    tx.file().write_at(10, b"kept").unwrap();
    // A file in the way of the state folder: the journal cannot be written.
    let state = state_dir_of(&path, None);
    fs::write(&state, "").unwrap();
    assert!(tx.verified_so_far().publish(Record::default(), &Silent).is_err());
    assert_eq!(tx.file().as_disk().read_vec(10, 4).unwrap(), b"kept");
    fs::remove_file(&state).unwrap();
    tx.verified_so_far().publish(Record::default(), &Silent).unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap()[10..14], *b"kept");
}

/// What an operation asks of its state does not depend on how many there were: no list of names, and as many files.
#[test]
fn an_operation_looks_at_as_little_after_thousands() {
    let place = MemoryPlace::default();
    place.dies_at.set(u64::MAX);
    let image = DiskMut::new(Arc::new(MemoryDevice::new(vec![0; 8192])) as Arc<dyn WritableDevice>);
    let mut seen = Vec::new();
    for number in 0..2000u32 {
        let old = image.as_disk().read_vec(0, 8192).unwrap();
        let mut new = old.clone();
        new[100..104].copy_from_slice(&(number + 1).to_le_bytes());
        let (disk, ranges) = staged(&old, &new);
        place.looked.set((0, 0));
        let id = publish_staged(&place, &image, &disk, &ranges, Record::default(), &Silent).unwrap();
        assert_eq!(id, OperationId(number + 1));
        history::undo_at(&place, &image, None, false, &Silent).unwrap();
        let looked = place.looked.get();
        // It stands again, for the next.
        let journal = Journal::open(&place, id, View::Whole).unwrap();
        journal.apply(&image, Side::After, Again::FromMemory, &Silent).unwrap();
        let mut operation = record::load(&place, id).unwrap();
        operation.enter(&place, OperationState::Done).unwrap();
        seen.push(looked);
    }
    assert_eq!(seen[1999], seen[10]);
    assert_eq!(seen[1999].0, 0, "no list of all names");
}
