use proptest::prelude::*;
use std::sync::Arc;
use vmrescue_block::{Disk, DiskMut, HostFile, MemoryDevice};
use vmrescue_image as image;
use vmrescue_image::{CreateSpec, Kind, create, create_child, open_mut};

fn memory() -> DiskMut {
    DiskMut::new(Arc::new(MemoryDevice::default()))
}

fn base(kind: Kind, size: u64, sector: u32) -> DiskMut {
    let file = memory();
    let spec = CreateSpec { kind, size, block_bytes: Some(1 << 20), logical_sector_bytes: sector };
    create(&file, &spec).unwrap();
    let disk = open_mut(&file, None).unwrap().disk;
    for i in (0..size).step_by(700_001) {
        let count = (size - i).min(350_000) as usize;
        disk.write_at(i, &vec![(i / 700_001) as u8 + 1; count]).unwrap();
    }
    file
}

fn read_all(disk: &Disk) -> Vec<u8> {
    disk.read_vec(0, disk.len() as usize).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    /// Children of children against a vector, their parents untouched, and the merge of everything.
    #[test]
    fn a_chain_is_a_vector(
        steps in prop::collection::vec((0u64..5_000_000, 1usize..400_000, any::<u8>(), 0u8..8), 1..25),
        vhd in any::<bool>(), large in any::<bool>(),
    ) {
        let (kind, sector) = match (vhd, large) {
            (true, _) => (Kind::VhdDynamic, 512),
            (false, true) => (Kind::VhdxDynamic, 4096),
            (false, false) => (Kind::VhdxDynamic, 512),
        };
        let size = 5_001_216u64;
        let mut files = vec![base(kind, size, sector)];
        let mut views = vec![image::open(&files[0].as_disk()).unwrap().disk];
        let mut model = read_all(&views[0]);
        let grow = |files: &mut Vec<DiskMut>| {
            let child = memory();
            let info = image::info(&files[files.len() - 1].as_disk()).unwrap();
            create_child(&child, &info, r".\p", r"C:\p").unwrap();
            files.push(child);
        };
        grow(&mut files);
        let mut frozen: Vec<Vec<u8>> = vec![read_all(&files[0].as_disk())];
        let mut disk = open_mut(&files[1], Some(views[0].clone())).unwrap().disk;
        for (offset, length, byte, what) in steps {
            let end = (offset + length as u64).min(size);
            match what {
                0 if files.len() < 5 => {
                    frozen.push(read_all(&files[files.len() - 1].as_disk()));
                    views.push(disk.as_disk());
                    grow(&mut files);
                    disk = open_mut(&files[files.len() - 1], views.last().cloned()).unwrap().disk;
                }
                0 => disk = open_mut(&files[files.len() - 1], views.last().cloned()).unwrap().disk,
                1 | 2 => {
                    disk.zero_at(offset..end).unwrap();
                    model[offset as usize..end as usize].fill(0);
                }
                _ => {
                    disk.write_at(offset, &vec![byte; (end - offset) as usize]).unwrap();
                    model[offset as usize..end as usize].fill(byte);
                }
            }
        }
        prop_assert!(read_all(&disk.as_disk()) == model);
        for (file, before) in files.iter().zip(&frozen) {
            prop_assert!(read_all(&file.as_disk()) == *before, "a parent was written");
        }
        for file in &files {
            let defects = image::check(&file.as_disk()).unwrap();
            prop_assert!(defects.is_empty(), "{defects:?}");
        }
    }
}

/// cloud-hypervisor #7665: two users of one file moved each other's position. Here reads and writes carry their place.
#[test]
fn threads_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = DiskMut::new(Arc::new(HostFile::create_new(&dir.path().join("d.vhdx")).unwrap()));
    let spec = CreateSpec { block_bytes: Some(1 << 20), ..CreateSpec::new(Kind::VhdxDynamic, 64 << 20) };
    create(&file, &spec).unwrap();
    let disk = open_mut(&file, None).unwrap().disk;
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let disk = disk.clone();
            scope.spawn(move || {
                for i in 0..300u64 {
                    let at = (i * 4 + thread) * 40_000;
                    disk.write_at(at, &[thread as u8 + 1; 40_000]).unwrap();
                    assert!(
                        disk.as_disk().read_vec(at, 40_000).unwrap().iter().all(|b| *b == thread as u8 + 1)
                    );
                }
            });
        }
    });
    for i in 0..1200u64 {
        let there = disk.as_disk().read_vec(i * 40_000, 40_000).unwrap();
        assert!(there.iter().all(|byte| *byte == (i % 4) as u8 + 1), "piece {i}");
    }
    assert!(image::check(&file.as_disk()).unwrap().is_empty(), "#8606: no block was handed out twice");
}

/// cloud-hypervisor: a write into a block that was not there yet landed at the block's start.
#[test]
fn a_first_write_lands_where_it_was_asked_to() {
    for kind in [Kind::VhdDynamic, Kind::VhdxDynamic] {
        let file = memory();
        create(&file, &CreateSpec { block_bytes: Some(2 << 20), ..CreateSpec::new(kind, 8 << 20) }).unwrap();
        open_mut(&file, None).unwrap().disk.write_at(3_000_001, b"here").unwrap();
        let all = read_all(&image::open(&file.as_disk()).unwrap().disk);
        assert_eq!(&all[3_000_001..3_000_005], b"here");
        assert_eq!(all.iter().filter(|byte| **byte != 0).count(), 4);
    }
}

/// cloud-hypervisor #8690: a chain opened for reading wrote into its backing file. A `Disk` has no way to write.
#[test]
fn nothing_in_a_chain_is_written_by_reading_and_no_parent_by_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (base, child) = (dir.path().join("base.vhdx"), dir.path().join("child.vhdx"));
    super::create_disk(&base, &CreateSpec::new(Kind::VhdxDynamic, 8 << 20)).unwrap();
    super::child_of(&base, &child).unwrap().finish().unwrap();
    let before = std::fs::read(&base).unwrap();
    let permissions = std::fs::metadata(&base).unwrap().permissions();
    let mut read_only = permissions.clone();
    read_only.set_readonly(true);
    std::fs::set_permissions(&base, read_only).unwrap();
    let file = DiskMut::new(Arc::new(HostFile::open_write(&child).unwrap()));
    let parent = image::open_parent(&file.as_disk(), &child, &[]).unwrap();
    open_mut(&file, parent).unwrap().disk.write_at(0, b"child").unwrap();
    drop(file);
    let options = image::OpenOptions::default();
    assert_eq!(image::open_path(&child, &options).unwrap().disk.read_vec(0, 5).unwrap(), b"child");
    assert!(std::fs::read(&base).unwrap() == before);
    std::fs::set_permissions(&base, permissions).unwrap();
}

/// 64 TiB, several chunks, the largest and the smallest blocks that fit into a test.
#[test]
fn the_largest_disks_hold_their_ends() {
    for (size, block, sector) in
        [(64u64 << 40, 256u64 << 20, 512), (64 << 40, 64 << 20, 4096), (40 << 30, 1 << 20, 512)]
    {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskMut::new(Arc::new(HostFile::create_new(&dir.path().join("d.vhdx")).unwrap()));
        let spec = CreateSpec {
            kind: Kind::VhdxDynamic,
            size,
            block_bytes: Some(block),
            logical_sector_bytes: sector,
        };
        create(&file, &spec).unwrap();
        let disk = open_mut(&file, None).unwrap().disk;
        for at in [0, size / 2 - 7, size - 9] {
            disk.write_at(at, b"a corner!").unwrap();
        }
        let read = image::open(&file.as_disk()).unwrap().disk;
        for at in [0, size / 2 - 7, size - 9] {
            assert_eq!(read.read_vec(at, 9).unwrap(), b"a corner!");
        }
        assert!(image::check(&file.as_disk()).unwrap().is_empty());
    }
}

/// A conversion that is interrupted leaves no file of that name.
#[test]
fn an_unfinished_file_never_has_its_name() {
    struct Stops;
    impl vmrescue_base::progress::Progress for Stops {
        fn begin(&self, _: &str, _: Option<u64>) {}
        fn advance(&self, _: u64) {}
        fn end(&self) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("a.raw"), dir.path().join("b.vhdx"));
    std::fs::write(&source, vec![7; 1 << 20]).unwrap();
    let stopped =
        super::convert(&source, &target, Kind::VhdxDynamic, None, &super::DiskOptions::default(), &Stops);
    assert_eq!(stopped.unwrap_err().kind(), vmrescue_base::ErrorKind::Interrupted);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
}
