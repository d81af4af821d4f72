//! What `inspect` says, against independent programs.

use std::sync::Arc;
use vmrescue::demo::build;
use vmrescue::image::{Kind, OpenOptions, open_path};
use vmrescue::windows::Machine;

#[test]
fn a_hive_is_read_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    let machine = Machine::open(open_path(&path, &OpenOptions::default()).unwrap().disk).unwrap();
    let installation = machine.installation(None).unwrap();
    let hive = |machine: &Machine, name: &str| machine.hive(installation, name).unwrap();
    let first = hive(&machine, "SYSTEM");
    assert!(Arc::ptr_eq(&first, &hive(&machine, "system")), "read once");
    assert!(Arc::ptr_eq(&first, &hive(&machine.clone(), "SYSTEM")), "clones share");
    assert!(!Arc::ptr_eq(&first, &hive(&machine, "SOFTWARE")));
    assert!(!Arc::ptr_eq(&hive(&machine, "COMPONENTS"), &hive(&machine, "COMPONENTS")), "too large to keep");
}
