//! The walk over every name of a volume with all metadata: ours, the crate `ntfs`, and one linear pass over $MFT as the
//! bound, in one run. Usage: cargo bench --bench ntfs_walk -- IMAGE.raw [PASSES]
//!
//! The volume is the largest NTFS volume of the image. The crate goes from directory to directory and opens the record of every
//! entry for its $STANDARD_INFORMATION, names and streams; it has no cache, so it reads through a page of 4 KiB.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail and tells")]

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;
use vmrescue::block::Disk;
use vmrescue::fs::ntfs::{Volume, is_ntfs};
use vmrescue::fs::{FileSystem, Order};
use vmrescue::image::{OpenOptions, open_path};

/// A disk as the crate wants it.
struct Reader {
    disk: Disk,
    at: u64,
    page: u64,
    bytes: Vec<u8>,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = self.disk.len().saturating_sub(self.at);
        if left == 0 || buf.is_empty() {
            return Ok(0);
        }
        if self.page != self.at / 4096 {
            self.page = self.at / 4096;
            self.bytes.resize((self.disk.len() - self.page * 4096).min(4096) as usize, 0);
            self.disk.read_at(self.page * 4096, &mut self.bytes).map_err(std::io::Error::other)?;
        }
        let skip = (self.at % 4096) as usize;
        let count = buf.len().min(self.bytes.len() - skip);
        buf[..count].copy_from_slice(&self.bytes[skip..skip + count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            SeekFrom::End(by) => self.disk.len().saturating_add_signed(by),
        };
        Ok(self.at)
    }
}

/// Names and a sum over what was read, so that nothing is left out.
fn with_crate(disk: &Disk) -> (u64, u64) {
    let mut reader = Reader { disk: disk.clone(), at: 0, page: u64::MAX, bytes: Vec::new() };
    let fs = &mut reader;
    let mut ntfs = ntfs::Ntfs::new(fs).unwrap();
    ntfs.read_upcase_table(fs).unwrap();
    let (mut names, mut sum) = (0, 0u64);
    let mut pending = vec![5];
    while let Some(number) = pending.pop() {
        let directory = ntfs.file(fs, number).unwrap();
        let index = directory.directory_index(fs).unwrap();
        let mut entries = index.entries();
        while let Some(entry) = entries.next(fs) {
            let entry = entry.unwrap();
            let key = entry.key().unwrap().unwrap();
            let number = entry.file_reference().file_record_number();
            if number == 5 || key.namespace() == ntfs::structured_values::NtfsFileNamespace::Dos {
                continue;
            }
            let file = entry.file_reference().to_file(&ntfs, fs).unwrap();
            names += 1;
            sum = sum.wrapping_add(file.info().unwrap().modification_time().nt_timestamp());
            if file.is_directory() {
                pending.push(number);
            } else if let Some(data) = file.data(fs, "") {
                sum = sum.wrapping_add(data.unwrap().to_attribute().unwrap().value_length());
            }
        }
    }
    (names, sum)
}

fn in_any_order(disk: &Disk) -> (u64, u64) {
    with_ours(disk, Order::Any)
}

fn as_a_tree(disk: &Disk) -> (u64, u64) {
    with_ours(disk, Order::Tree)
}

fn with_ours(disk: &Disk, order: Order) -> (u64, u64) {
    let volume = Volume::open(disk.clone()).unwrap();
    let (mut names, mut sum) = (0, 0u64);
    let defects = volume
        .walk(volume.root(), order, &mut |file| {
            names += 1;
            sum = sum.wrapping_add(file.times.modified.0);
            if file.kind == vmrescue::fs::NodeKind::File {
                sum = sum.wrapping_add(file.size_bytes);
            }
            Ok(())
        })
        .unwrap();
    assert!(defects.is_empty(), "{defects:?}");
    (names, sum)
}

fn linear(disk: &Disk) -> (u64, u64) {
    let volume = Volume::open(disk.clone()).unwrap();
    let (size, mut offset, mut sum) = (volume.records() * u64::from(volume.boot().record_bytes), 0, 0);
    let mut buf = vec![0; 1 << 20];
    let mft = vmrescue::fs::NodeId(0);
    while offset < size {
        let count = volume.read(mft, "", offset, &mut buf).unwrap();
        sum += u64::from(buf[0]);
        offset += count as u64;
    }
    (volume.records(), sum)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let Some(image) = arguments.first() else {
        println!("usage: cargo bench --bench ntfs_walk -- IMAGE [PASSES]");
        return;
    };
    let passes = arguments.get(1).map_or(5, |text| text.parse::<usize>().unwrap());
    let container = open_path(Path::new(image), &OpenOptions::default()).unwrap();
    let table = vmrescue::partition::read(&container.disk).unwrap();
    let mut places: Vec<_> = table.partitions.iter().map(|p| p.range.clone()).collect();
    places.push(0..container.disk.len());
    places.retain(|place| is_ntfs(&container.disk.read_vec(place.start, 512).unwrap()));
    let place = places.into_iter().max_by_key(|place| place.end - place.start).unwrap();
    let disk = container.disk.window(place).unwrap();
    type Way = fn(&Disk) -> (u64, u64);
    let ways: [(&str, Way); 4] = [
        ("linear pass over $MFT", linear),
        ("vmrescue, any order", in_any_order),
        ("vmrescue, as a tree", as_a_tree),
        ("crate ntfs", with_crate),
    ];
    let mut sums = Vec::new();
    for (name, way) in ways {
        if arguments.get(2).is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let mut best = f64::MAX;
        let mut result = (0, 0);
        for _ in 0..passes {
            let begun = Instant::now();
            result = way(&disk);
            best = best.min(begun.elapsed().as_secs_f64());
        }
        println!("{name:<24} {:>8.1} ms   {} names, sum {:x}", best * 1000.0, result.0, result.1);
        sums.push(result);
    }
    if sums.len() == 4 {
        assert!(sums[1] == sums[3] && sums[2] == sums[3], "the walks must have seen the same");
    }
}
