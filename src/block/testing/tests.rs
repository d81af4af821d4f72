//! Every device of this room through the conformance suite.

use super::conformance::{read_suite, write_suite};
use super::{CountingDevice, CrashDevice, FaultDevice};
use crate::{Cache, Disk, DiskMut, HostFile, MemoryDevice, Overlay, OverlayOptions, WritableDevice};
use std::sync::Arc;

const LENGTH: usize = 300_032;

fn memory() -> DiskMut {
    DiskMut::new(Arc::new(MemoryDevice::new((0..LENGTH).map(|i| (i % 251) as u8).collect())))
}

#[test]
fn every_device_conforms() {
    write_suite(&memory());
    write_suite(&memory().window(1000..LENGTH as u64 - 24).unwrap());
    write_suite(&DiskMut::new(Arc::new(CrashDevice::new(vec![3; LENGTH], u64::MAX))));
    write_suite(&DiskMut::new(Arc::new(FaultDevice::new(memory(), u64::MAX))));
    for memory_bytes in [8192, 1 << 20] {
        let options = OverlayOptions { memory_bytes, spill_dir: Some(std::env::temp_dir()) };
        let overlay = Overlay::new(memory().as_disk(), options).unwrap();
        write_suite(&DiskMut::new(overlay as Arc<dyn WritableDevice>));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = HostFile::create_new(&dir.path().join("file")).unwrap();
    file.set_length(LENGTH as u64).unwrap();
    write_suite(&DiskMut::new(Arc::new(file)));
    let expected = memory().as_disk().read_vec(0, LENGTH).unwrap();
    read_suite(&Disk::new(Arc::new(Cache::new(memory().as_disk(), 1))), &expected);
    read_suite(&Disk::new(CountingDevice::new(memory().as_disk()).0), &expected);
}

#[test]
fn a_fault_is_one_error_and_the_next_operation_works() {
    let disk = DiskMut::new(Arc::new(FaultDevice::new(memory(), 1)));
    disk.write_at(0, b"a").unwrap();
    assert!(disk.write_at(0, b"b").is_err());
    disk.write_at(0, b"c").unwrap();
    assert_eq!(disk.as_disk().read_vec(0, 1).unwrap(), b"c");
}
