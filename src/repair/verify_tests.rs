//! What verification is worth: the writer is broken on purpose, one kind of change after the other, and nothing gets by.

use super::change::{Change, Detail};
use super::postcondition::Before;
use super::stage::Stage;
use super::verify::{Verdict, verify};
use std::sync::Arc;
use vmrescue_base::error::{ErrorKind, Result};
use vmrescue_base::progress::Silent;
use vmrescue_base::time::FileTime;
use vmrescue_block::{DiskMut, MemoryDevice};
use vmrescue_crypt::Keys;
use vmrescue_fs::ntfs;
use vmrescue_registry::{DataType, HiveEditor};
use vmrescue_windows::Machine;

const HIVE: &str = r"#1:\folder\HIVE";

fn disk_of(bytes: Vec<u8>) -> DiskMut {
    DiskMut::new(Arc::new(MemoryDevice::new(bytes)))
}

fn write(path: &str, text: &str) -> Change {
    let data = text.as_bytes().to_vec();
    Change::FileWrite { path: path.into(), size: data.len() as u64, data: data.into(), from: "a test".into() }
}

fn set(key: &str, name: &str, text: &str) -> Change {
    let data = vmrescue_base::text::utf16le_bytes(text);
    let (key, name) = (key.to_string(), name.to_string());
    Change::RegistrySet { hive: HIVE.into(), key, name, data_type: 1, data, was: None }
}

fn path(text: &str) -> String {
    format!(r"#1:\folder\{text}")
}

/// Stages `made` on the disk and verifies it as if it were `said`.
fn verified(bytes: &[u8], said: &[Change], made: &[Change]) -> Result<Verdict> {
    let original = Machine::open(disk_of(bytes.to_vec()).as_disk())?;
    let before = Before::of(&original, said, &Silent)?;
    let staged = disk_of(bytes.to_vec());
    let machine = Machine::open(staged.as_disk())?;
    Stage::new(&machine, &staged).apply(made)?;
    verify(&staged.as_disk(), &original, &Keys::none(), said, &before, &Silent)
}

/// A volume with two files, a folder and a hive.
fn volume() -> Vec<u8> {
    let disk = disk_of(vec![0; 32 << 20]);
    ntfs::format(&disk, &ntfs::FormatSpec::default()).unwrap();
    let mut editor = HiveEditor::new_hive("root").unwrap();
    for key in ["Old", r"Old\Below", "Other"] {
        editor.create_key(key).unwrap();
    }
    editor.set_value("Old", "there", DataType(1), &vmrescue_base::text::utf16le_bytes("x")).unwrap();
    let hive = editor.finish(FileTime::now()).unwrap().bytes;
    let size = hive.len() as u64;
    let made = [
        Change::MakeDirectory { path: r"#1:\folder".into() },
        write(&path("one"), "one"),
        write(&path("two"), "two"),
        Change::MakeDirectory { path: path("empty") },
        Change::FileWrite { path: HIVE.into(), data: hive.into(), size, from: "a test".into() },
    ];
    let machine = Machine::open(disk.as_disk()).unwrap();
    Stage::new(&machine, &disk).apply(&made).unwrap();
    let length = disk.len() as usize;
    disk.as_disk().read_vec(0, length).unwrap()
}

#[test]
fn a_broken_writer_is_refused_for_every_kind_of_change() {
    let bytes = volume();
    let machine = Machine::open(disk_of(bytes.clone()).as_disk()).unwrap();
    let (index, node) = machine.resolve(&vmrescue_fs::path::GuestPath::parse(&path("one")).unwrap()).unwrap();
    let security = machine.file_system(index).unwrap().security(node.unwrap()).unwrap().unwrap();
    // A descriptor like that of the file, with a control bit of its own (the list of auditing was inherited).
    let mut other = security.clone();
    other[2] ^= 0x20;
    let (one, two, new) = (path("one"), path("two"), path("new"));
    let hive = || HIVE.to_string();
    let access = Change::FileAccess { path: one.clone(), security: other, what: "a test".into() };
    let rename = Change::FileRename { from: one.clone(), to: new.clone() };
    let link = Change::FileLink { path: new.clone(), target: one.clone(), why: "a test".into() };
    let delete = |path: &str| Change::FileDelete { path: path.into() };
    let label = ntfs::FormatSpec { label: "again".into(), ..ntfs::FormatSpec::default() };
    let format = super::format_volume(&machine, 1, &super::Making::Ntfs(label), true).unwrap();
    let time = FileTime(132_000_000_000_000_000);
    let details = |attributes, modified| Change::FileDetails {
        what: "a test".into(),
        details: vec![Detail { path: one.clone(), attributes, modified }],
    };
    // What is said, and what a broken writer makes of it; first of all always: nothing.
    let kinds: Vec<(Vec<Change>, Vec<Vec<Change>>)> = vec![
        (vec![write(&new, "new")], vec![vec![write(&new, "old")], vec![write(&two, "new")]]),
        (vec![write(&one, "longer than before")], vec![vec![write(&one, "longer than befor")]]),
        (vec![delete(&one)], vec![vec![delete(&two)]]),
        (vec![delete(&path("empty"))], vec![]),
        (vec![Change::MakeDirectory { path: new.clone() }], vec![vec![write(&new, "")]]),
        (
            vec![rename.clone()],
            vec![
                vec![write(&new, "one")],
                vec![delete(&one)],
                vec![delete(&one), write(&new, "one")],
                vec![link.clone()],
            ],
        ),
        (vec![link.clone()], vec![vec![write(&new, "one")], vec![rename]]),
        (vec![access], vec![]),
        (
            vec![details(Some(0x22), Some(time))],
            vec![
                vec![details(Some(0x20), Some(time))],
                vec![details(Some(0x22), Some(FileTime(time.0 + 1)))],
                vec![details(Some(0x22), None)],
            ],
        ),
        (
            vec![set("Old", "there", "y")],
            vec![vec![set("Old", "there", "z")], vec![set("Other", "there", "y")]],
        ),
        (
            vec![set("New", "n", "y")],
            vec![vec![Change::RegistryCreateKey { hive: hive(), key: "New".into() }]],
        ),
        (
            vec![Change::RegistryCreateKey { hive: hive(), key: r"New\Below".into() }],
            vec![vec![Change::RegistryCreateKey { hive: hive(), key: "New".into() }]],
        ),
        (vec![Change::RegistryDeleteValue { hive: hive(), key: "Old".into(), name: "there".into() }], vec![]),
        (
            vec![Change::RegistryDeleteKey { hive: hive(), key: "Old".into() }],
            vec![vec![Change::RegistryDeleteKey { hive: hive(), key: r"Old\Below".into() }]],
        ),
        (
            vec![Change::RegistryRenameKey { hive: hive(), key: "Old".into(), to: "New".into() }],
            vec![
                vec![Change::RegistryCreateKey { hive: hive(), key: "New".into() }],
                vec![Change::RegistryDeleteKey { hive: hive(), key: "Old".into() }],
            ],
        ),
        (vec![Change::DiskWrite { offset: 500, data: vec![9; 8], what: "a test".into() }], vec![]),
        (format, vec![]),
    ];
    for (said, broken) in kinds {
        let sound = verified(&bytes, &said, &said);
        assert!(sound.is_ok(), "{}: {}", said[0], sound.unwrap_err());
        for made in std::iter::once(Vec::new()).chain(broken) {
            match verified(&bytes, &said, &made) {
                Err(e) if e.kind() == ErrorKind::Disagreement => {}
                Err(e) => panic!("{}: another error: {e}", said[0]),
                Ok(_) => panic!("{} was verified, though this was made: {made:?}", said[0]),
            }
        }
    }
}

#[test]
fn what_a_later_change_takes_over_is_not_asked_of_the_earlier_one() {
    let bytes = volume();
    let (one, two, new) = (path("one"), path("two"), path("new"));
    for said in [
        vec![write(&new, "a"), write(&new, "b")],
        vec![write(&new, "a"), Change::FileDelete { path: new.clone() }],
        vec![Change::FileRename { from: one.clone(), to: new.clone() }, write(&one, "again")],
        vec![
            Change::FileRename { from: one.clone(), to: new.clone() },
            Change::FileRename { from: two.clone(), to: one.clone() },
            Change::FileRename { from: new.clone(), to: two.clone() },
        ],
        vec![
            write(&path(r"empty\inside"), "x"),
            Change::FileRename { from: path("empty"), to: path("full") },
        ],
        vec![write(&path("case"), "x"), Change::FileRename { from: path("case"), to: path("CASE") }],
        vec![Change::FileDelete { path: one.clone() }, Change::MakeDirectory { path: one }],
        vec![set("Old", "there", "a"), Change::RegistryDeleteKey { hive: HIVE.into(), key: "Old".into() }],
    ] {
        let found = verified(&bytes, &said, &said);
        assert!(found.is_ok(), "{said:?}: {}", found.unwrap_err());
    }
}

#[test]
fn nothing_is_built_on_a_damaged_hive() {
    let mut bytes = volume();
    // The hive's list of subkeys says that a hash is another one.
    let at = bytes.windows(4).position(|four| four == b"lh\x02\x00").unwrap();
    bytes[at + 8] ^= 1;
    let said = [set("Other", "n", "y")];
    let e = verified(&bytes, &said, &said).map(drop).unwrap_err();
    assert!(e.kind() == ErrorKind::Refused && e.to_string().contains("the hive is damaged"), "{e}");
}
