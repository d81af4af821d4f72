use super::*;
use std::io::Cursor;
use std::sync::Arc;
use vmrescue_block::MemoryDevice;

fn formatted(megabytes: usize, sector_bytes: u32, cluster_bytes: u32) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::zeroed(megabytes << 20).with_sectors(sector_bytes));
    let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
    let spec =
        FormatSpec { label: "probe".into(), cluster_bytes: Some(cluster_bytes), ..FormatSpec::default() };
    format(&disk, &spec).unwrap();
    device.to_vec()
}

#[test]
fn the_second_reader_takes_every_cluster_size() {
    for (sector, cluster) in
        [(512, 512), (512, 1024), (512, 4096), (512, 8192), (512, 65536), (4096, 4096), (4096, 65536)]
    {
        let mut bytes = Cursor::new(formatted(16, sector, cluster));
        let mut ntfs = ntfs::Ntfs::new(&mut bytes).unwrap();
        ntfs.read_upcase_table(&mut bytes).unwrap();
        let name = ntfs.volume_name(&mut bytes).unwrap().unwrap();
        assert_eq!(name.name().to_string_lossy(), "probe");
        let root = ntfs.root_directory(&mut bytes).unwrap();
        let index = root.directory_index(&mut bytes).unwrap();
        let mut finder = index.finder();
        for name in ["$MFT", "$upcase", "$Extend", "$Volume"] {
            let found = ntfs::indexes::NtfsFileNameIndex::find(&mut finder, &ntfs, &mut bytes, name);
            assert!(found.is_some_and(|e| e.is_ok()), "{name} with {cluster}");
        }
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let disk = DiskMut::new(Arc::new(MemoryDevice::zeroed(8 << 20)));
    for cluster_bytes in [256, 3000, 4 << 20] {
        let spec = FormatSpec { cluster_bytes: Some(cluster_bytes), ..FormatSpec::default() };
        assert!(format(&disk, &spec).is_err());
    }
    let small = DiskMut::new(Arc::new(MemoryDevice::zeroed(1 << 20)));
    assert!(format(&small, &FormatSpec::default()).is_err());
}
