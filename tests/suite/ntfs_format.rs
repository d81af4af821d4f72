//! New NTFS volumes of all sizes, cluster and record sizes: our check is silent, ntfs-3g and the crate `ntfs` read them, files go in, and
//! what they are agrees with what mkntfs makes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of a test: they may fail and tell")]

use crate::oracle::{run, tool};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use vmrescue::block::{BlockDevice, Disk, DiskMut, Geometry, HostFile, WritableDevice};
use vmrescue::fs::ntfs::{FormatSpec, Volume, VolumeMut, format};
use vmrescue::fs::{FileSystem, FileSystemMut, NodeKind, read_file, resolve};
use vmrescue::progress::Silent;

const PAGE: u64 = 65536;

/// A device of any length that keeps only what was written.
struct Sparse {
    length: u64,
    sector: u32,
    pages: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Sparse {
    fn new(length: u64, sector: u32) -> Arc<Sparse> {
        Arc::new(Sparse { length, sector, pages: Mutex::new(BTreeMap::new()) })
    }

    fn each(offset: u64, length: usize, mut step: impl FnMut(u64, usize, Range<usize>)) {
        let mut done = 0;
        while done < length {
            let (page, at) = ((offset + done as u64) / PAGE, ((offset + done as u64) % PAGE) as usize);
            let count = (PAGE as usize - at).min(length - done);
            step(page, at, done..done + count);
            done += count;
        }
    }
}

impl BlockDevice for Sparse {
    fn geometry(&self) -> Geometry {
        Geometry {
            length_bytes: self.length,
            logical_sector_bytes: self.sector,
            physical_sector_bytes: self.sector,
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> vmrescue::Result<()> {
        let pages = self.pages.lock().unwrap();
        Sparse::each(offset, buf.len(), |page, at, range| match pages.get(&page) {
            Some(bytes) => buf[range.clone()].copy_from_slice(&bytes[at..at + range.len()]),
            None => buf[range].fill(0),
        });
        Ok(())
    }
}

impl WritableDevice for Sparse {
    fn write_at(&self, offset: u64, data: &[u8]) -> vmrescue::Result<()> {
        let mut pages = self.pages.lock().unwrap();
        Sparse::each(offset, data.len(), |page, at, range| {
            let bytes = pages.entry(page).or_insert_with(|| vec![0; PAGE as usize]);
            bytes[at..at + range.len()].copy_from_slice(&data[range]);
        });
        Ok(())
    }

    fn zero_at(&self, range: Range<u64>) -> vmrescue::Result<()> {
        self.write_at(range.start, &vec![0; (range.end - range.start) as usize])
    }

    fn flush(&self) -> vmrescue::Result<()> {
        Ok(())
    }

    fn set_length(&self, _: u64) -> vmrescue::Result<()> {
        unreachable!("the length is given")
    }
}

fn spec(cluster: Option<u32>, record: Option<u32>) -> FormatSpec {
    FormatSpec {
        label: "new volume".into(),
        cluster_bytes: cluster,
        record_bytes: record,
        ..FormatSpec::default()
    }
}

fn is_whole(disk: Disk, what: &str) {
    let volume = Volume::open(disk).unwrap();
    let defects = volume.check(&Silent).unwrap();
    assert!(defects.is_empty(), "{what}: {defects:?}");
    assert_eq!(volume.info().label, "new volume", "{what}");
}

#[test]
fn every_size_is_made_and_silent() {
    let mib = 1u64 << 20;
    let mut cases: Vec<(u64, u32, Option<u32>, Option<u32>)> = Vec::new();
    for shift in 9..=21 {
        cases.push((256 * mib, 512, Some(1 << shift), None));
        cases.push((256 * mib, 512, Some(1 << shift), Some(4096)));
        if shift >= 12 {
            cases.push((256 * mib, 4096, Some(1 << shift), None));
        }
    }
    for length in [4 * mib, 5 * mib + 1536, 100 * mib, 10 << 30, 2 << 40, 17 << 40, 33 << 40, 64 << 40] {
        cases.push((length, 512, None, None));
    }
    cases.push((64 << 40, 4096, Some(2 << 20), None));
    for (length, sector, cluster, record) in cases {
        let what = format!("{length} bytes, sectors of {sector}, clusters {cluster:?}, records {record:?}");
        let begun = std::time::Instant::now();
        let device = Sparse::new(length, sector);
        let disk = DiskMut::new(Arc::clone(&device) as Arc<_>);
        format(&disk, &spec(cluster, record)).unwrap_or_else(|e| panic!("{what}: {e}"));
        is_whole(disk.as_disk(), &what);
        // The writer holds the whole bitmap in memory: half a gigabyte for the largest ones.
        if length > 4 << 40 && cluster.is_none() {
            continue;
        }
        let mut fs = VolumeMut::open(disk.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let root = fs.root();
        let dir = fs.create(root, "dir", NodeKind::Directory).unwrap();
        let file = fs.create(dir, "file.bin", NodeKind::File).unwrap();
        fs.write(file, "", 0, &[5; 100_000]).unwrap();
        fs.sync().unwrap();
        drop(fs);
        is_whole(disk.as_disk(), &what);
        let volume = Volume::open(disk.as_disk()).unwrap();
        let found = resolve(&volume, &["dir", "file.bin"]).unwrap().unwrap();
        assert!(read_file(&volume, found, "").unwrap() == [5; 100_000], "{what}");
        println!("{what}: {:?}, {} KiB kept", begun.elapsed(), device.pages.lock().unwrap().len() * 64);
    }
}

fn formatted(path: &Path, length: u64, cluster: Option<u32>, record: Option<u32>) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(length).unwrap();
    drop(file);
    let disk = DiskMut::new(Arc::new(HostFile::open_write(path).unwrap()));
    format(&disk, &spec(cluster, record)).unwrap();
    disk.flush().unwrap();
}

/// Lines of `ntfsinfo -m` as name and value.
fn facts(path: &Path) -> Option<BTreeMap<String, String>> {
    let output = run(tool("ntfsinfo")?.arg("-m").arg(path));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pair = |line: &str| line.split_once(':').map(|(a, b)| (a.trim().to_string(), b.trim().to_string()));
    Some(text.lines().filter_map(pair).collect())
}

#[test]
fn volumes_are_as_mkntfs_makes_them() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours.raw"), dir.path().join("theirs.raw"));
    for (length, cluster) in
        [(8u64 << 20, 512), (64 << 20, 4096), (1 << 30, 65536), (4 << 40, 4096), (12 << 40, 65536)]
    {
        formatted(&ours, length, Some(cluster), None);
        let Some(ours_facts) = facts(&ours) else { return };
        if let Some(mut ntfsfix) = tool("ntfsfix") {
            run(ntfsfix.arg("-n").arg(&ours));
        }
        if let Some(mut ntfsls) = tool("ntfsls") {
            run(ntfsls.arg("-a").arg(&ours));
        }
        if length > 1 << 40 {
            assert_eq!(ours_facts["Cluster Size"], cluster.to_string());
            continue; // mkntfs writes a bitmap of that size whole
        }
        let file = std::fs::File::create(&theirs).unwrap();
        file.set_len(length).unwrap();
        let Some(mut mkntfs) = tool("mkntfs") else { return };
        run(mkntfs.args(["-Q", "-F", "-L", "new volume", "-c", &cluster.to_string()]).arg(&theirs));
        let theirs_facts = facts(&theirs).unwrap();
        for name in [
            "Cluster Size",
            "Volume Size in Clusters",
            "Volume Version",
            "MFT Record Size",
            "MFT Mirror Size",
            "Index Block Size",
            "Sector Size",
            "Upcase Length",
        ] {
            if let Some(value) = theirs_facts.get(name) {
                assert_eq!(
                    ours_facts.get(name),
                    Some(value),
                    "{name}, {length} bytes, clusters of {cluster}"
                );
            }
        }
        is_whole(Disk::new(Arc::new(HostFile::open_read(&theirs).unwrap())), "made by mkntfs");
    }
}

#[test]
fn the_command_formats_and_takes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.img");
    vmrescue::demo::build(&path, vmrescue::image::Kind::Raw).unwrap();
    let (image, before) = (path.to_str().unwrap(), std::fs::read(&path).unwrap());
    let run = |words: &[&str]| {
        let output = crate::demo::vmrescue(words);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), said)
    };
    let words = [
        "disk",
        "format",
        image,
        "--volume",
        "3",
        "--fs",
        "ntfs",
        "--label",
        "fresh",
        "--cluster",
        "64K",
        "--yes",
    ];
    let (code, said) = run(&words);
    assert!(code == 3 && said.contains("--force"), "{said}");
    assert!(std::fs::read(&path).unwrap() == before);
    let (code, said) = run(&[&words[..], &["--force"]].concat());
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&["info", image]);
    assert!(code == 0 && said.contains("fresh"), "{said}");
    let (code, said) = run(&["ls", image, "#3:\\"]);
    assert!(code == 0 && !said.contains("Windows"), "{said}");
    let (code, said) = run(&["undo", image, "--yes"]);
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&path).unwrap() == before, "undo brings back every byte");
}
