//! The checker of NTFS volumes: silent on healthy ones, a code for each damage, and repairs that it is silent after.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of a test: they may fail and tell")]

use crate::ntfs_corpus::{corpus, files_under, volumes};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use vmrescue::block::{BlockDevice, Disk, DiskMut, Geometry, MemoryDevice};
use vmrescue::fs::ntfs::{CODES, FormatSpec, Mend, Volume, VolumeMut, WriteOptions, format, mend};
use vmrescue::fs::{FileSystem, FileSystemMut, NodeId, NodeKind, read_file, resolve};
use vmrescue::progress::Silent;

/// What is really wrong with volumes of the corpus, each judged by hand.
/// `ntfs3.raw` was written by a driver of Linux that lost a name: record 28 says that it is `1.txt` in directory 27, whose index, without any
/// blocks, has two other entries. ntfs-3g does not list it either, The Sleuth Kit shows it as an orphan.
const KNOWN: &[(&str, &str)] = &[("ntfs3.raw", "ntfs-name-not-in-index")];

#[test]
fn healthy_volumes_give_no_findings() {
    let Some(corpus) = corpus() else { return };
    let mut paths: Vec<PathBuf> = Vec::new();
    for part in ["01-vhd", "02-ntfs"] {
        files_under(&corpus.join(part), &mut paths);
    }
    let unpacked = tempfile::tempdir().unwrap();
    let (mut seen, mut found) = (0, Vec::new());
    for mut path in paths {
        if path.extension().is_some_and(|e| e == "gz") {
            let data = Command::new("gzip").arg("-dc").arg(&path).output().unwrap().stdout;
            path = unpacked.path().join(path.file_stem().unwrap());
            std::fs::write(&path, data).unwrap();
        }
        let Some((_, disks)) = volumes(&path, unpacked.path()) else { continue };
        for (start, disk) in disks {
            let Ok(volume) = Volume::open(disk) else { continue };
            seen += 1;
            let begun = std::time::Instant::now();
            let defects = volume.check(&Silent).unwrap();
            println!(
                "{} at {start:#x}: {:?}, {} findings, {:?}",
                path.display(),
                volume.log_state(),
                defects.len(),
                begun.elapsed()
            );
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            for defect in defects {
                println!("   {}: {defect}", defect.severity.name());
                if !KNOWN.contains(&(name.as_str(), defect.code)) {
                    found.push(format!("{name} at {start:#x}: {defect}"));
                }
            }
        }
    }
    assert!(seen > 15, "only {seen} volumes were found");
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

/// A volume in memory that is damaged by hand, with a reader of its own of just enough NTFS.
#[derive(Clone)]
struct Vol {
    bytes: Vec<u8>,
    /// Files and directories of `base`, by name.
    number: BTreeMap<&'static str, u64>,
}

const CLUSTER: usize = 4096;
const RECORD: usize = 1024;

fn u16s(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32s(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64s(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Runs of mapping pairs: first cluster and count.
fn runs(pairs: &[u8]) -> Vec<(u64, u64)> {
    let (mut at, mut lcn, mut out) = (0, 0i64, Vec::new());
    while pairs[at] != 0 {
        let (counts, deltas) = (usize::from(pairs[at] & 15), usize::from(pairs[at] >> 4));
        let number = |from: usize, length: usize| {
            let sign = if length > 0 && pairs[from + length - 1] & 0x80 != 0 { 0xFF } else { 0 };
            let mut all = [sign; 8];
            all[..length].copy_from_slice(&pairs[from..from + length]);
            i64::from_le_bytes(all)
        };
        lcn += number(at + 1 + counts, deltas);
        out.push((lcn as u64, number(at + 1, counts) as u64));
        at += 1 + counts + deltas;
    }
    out
}

fn unfix(bytes: &mut [u8]) {
    let (at, count) = (u16s(bytes, 4), u16s(bytes, 6));
    for sector in 1..count {
        let saved = [bytes[at + 2 * sector], bytes[at + 2 * sector + 1]];
        bytes[512 * sector - 2..512 * sector].copy_from_slice(&saved);
    }
}

fn fix(bytes: &mut [u8]) {
    let (at, count) = (u16s(bytes, 4), u16s(bytes, 6));
    let number = [bytes[at], bytes[at + 1]];
    for sector in 1..count {
        let end = [bytes[512 * sector - 2], bytes[512 * sector - 1]];
        bytes[at + 2 * sector..at + 2 * sector + 2].copy_from_slice(&end);
        bytes[512 * sector - 2..512 * sector].copy_from_slice(&number);
    }
}

/// The attributes of a record.
fn attributes(record: &[u8]) -> Vec<Vec<u8>> {
    let (mut at, mut out) = (u16s(record, 0x14), Vec::new());
    while u32s(record, at) != 0xFFFF_FFFF {
        let length = u32s(record, at + 4);
        out.push(record[at..at + length].to_vec());
        at += length;
    }
    out
}

/// Puts attributes into a record.
fn rebuild(record: &mut [u8], attributes: &[Vec<u8>]) {
    let mut at = u16s(record, 0x14);
    for attribute in attributes {
        record[at..at + attribute.len()].copy_from_slice(attribute);
        at += attribute.len();
    }
    record[at..at + 8].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
    record[0x18..0x1C].copy_from_slice(&(at as u32 + 8).to_le_bytes());
}

/// A resident attribute with this value.
fn resident(kind: u32, id: u16, value: &[u8]) -> Vec<u8> {
    let length = (0x18 + value.len()).next_multiple_of(8);
    let mut out = vec![0; length];
    out[..4].copy_from_slice(&kind.to_le_bytes());
    out[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    out[14..16].copy_from_slice(&id.to_le_bytes());
    out[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
    out[20] = 0x18;
    out[0x18..0x18 + value.len()].copy_from_slice(value);
    out
}

/// True for the attribute of this kind and name.
fn is(attribute: &[u8], kind: u32, name: &str) -> bool {
    let (units, at) = (usize::from(attribute[9]), u16s(attribute, 10));
    let own: Vec<u16> = (0..units).map(|i| u16s(attribute, at + 2 * i) as u16).collect();
    u32s(attribute, 0) == kind as usize && own == name.encode_utf16().collect::<Vec<u16>>()
}

impl Vol {
    fn mft_runs(&self) -> Vec<(u64, u64)> {
        let place = u64s(&self.bytes, 0x30) as usize * CLUSTER;
        let mut record = self.bytes[place..place + RECORD].to_vec();
        unfix(&mut record);
        let data = attributes(&record).into_iter().find(|a| is(a, 0x80, "")).unwrap();
        runs(&data[u16s(&data, 0x20)..])
    }

    /// Where a record lies.
    fn place(&self, number: u64) -> usize {
        let mut left = number * RECORD as u64;
        for (lcn, count) in self.mft_runs() {
            if left < count * CLUSTER as u64 {
                return lcn as usize * CLUSTER + left as usize;
            }
            left -= count * CLUSTER as u64;
        }
        panic!("record {number} lies outside $MFT");
    }

    fn record(&self, number: u64) -> Vec<u8> {
        let place = self.place(number);
        let mut record = self.bytes[place..place + RECORD].to_vec();
        unfix(&mut record);
        record
    }

    /// Changes a record, and its copy when it is one of the first.
    fn edit(&mut self, number: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let (place, mut record) = (self.place(number), self.record(number));
        change(&mut record);
        fix(&mut record);
        self.bytes[place..place + RECORD].copy_from_slice(&record);
        if number < 4 {
            let mirror = u64s(&self.bytes, 0x38) as usize * CLUSTER + number as usize * RECORD;
            self.bytes[mirror..mirror + RECORD].copy_from_slice(&record);
        }
    }

    /// Changes an attribute, whose length may change.
    fn edit_attribute(&mut self, number: u64, kind: u32, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.edit(number, |record| {
            let mut all = attributes(record);
            change(all.iter_mut().find(|a| is(a, kind, name)).unwrap());
            rebuild(record, &all);
        });
    }

    /// Changes a resident value.
    fn edit_value(&mut self, number: u64, kind: u32, name: &str, change: impl FnOnce(&mut [u8])) {
        self.edit_attribute(number, kind, name, |a| {
            let (at, length) = (u16s(a, 20), u32s(a, 16));
            change(&mut a[at..at + length]);
        });
    }

    fn data_runs(&self, number: u64, kind: u32, name: &str) -> Vec<(u64, u64)> {
        let all = attributes(&self.record(number));
        let found = all.iter().find(|a| is(a, kind, name)).unwrap();
        runs(&found[u16s(found, 0x20)..])
    }

    /// Where the value of a non-resident attribute begins.
    fn data(&self, number: u64, kind: u32, name: &str) -> usize {
        self.data_runs(number, kind, name)[0].0 as usize * CLUSTER
    }

    fn of(&self, name: &str) -> u64 {
        self.number[name]
    }

    fn reference(&self, name: &str) -> u64 {
        self.of(name) | (u16s(&self.record(self.of(name)), 0x10) as u64) << 48
    }

    /// A bit of $Bitmap.
    fn flip_cluster(&mut self, cluster: u64) {
        let at = self.data(6, 0x80, "");
        self.bytes[at + cluster as usize / 8] ^= 1 << (cluster % 8);
    }

    fn flip_record(&mut self, number: u64) {
        let at = self.data(0, 0xB0, "");
        self.bytes[at + number as usize / 8] ^= 1 << (number % 8);
    }

    fn free(&mut self, name: &str) {
        self.edit(self.of(name), |record| record[0x16] &= !1);
    }

    /// The attribute list of `listed`: place and length.
    fn list(&self) -> (usize, usize) {
        let all = attributes(&self.record(self.of("listed")));
        let list = all.iter().find(|a| is(a, 0x20, "")).unwrap();
        assert_eq!(list[8], 1, "the list lies in clusters");
        (runs(&list[u16s(list, 0x20)..])[0].0 as usize * CLUSTER, u64s(list, 0x30) as usize)
    }

    fn disk(&self) -> Disk {
        Disk::new(Arc::new(MemoryDevice::new(self.bytes.clone())))
    }

    fn codes(&self) -> BTreeSet<&'static str> {
        let volume = Volume::open(self.disk()).unwrap();
        volume.check(&Silent).unwrap().into_iter().map(|defect| defect.code).collect()
    }
}

/// 24 MiB with directories, a large one, files of all shapes, hard links, an attribute list.
fn base() -> Vol {
    let device = Arc::new(MemoryDevice::zeroed(24 << 20));
    let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
    format(&disk, &FormatSpec { label: "damage".into(), ..FormatSpec::default() }).unwrap();
    let mut fs = VolumeMut::open(disk).unwrap();
    let root = fs.root();
    let mut number = BTreeMap::new();
    let mut make = |fs: &mut VolumeMut, directory: NodeId, name: &'static str, kind: NodeKind| {
        let id = fs.create(directory, name, kind).unwrap();
        number.insert(name, id.0 & 0xFFFF_FFFF_FFFF);
        id
    };
    let dir = make(&mut fs, root, "dir", NodeKind::Directory);
    let inner = make(&mut fs, dir, "inner", NodeKind::Directory);
    let file = make(&mut fs, dir, "file.txt", NodeKind::File);
    fs.write(file, "", 0, b"hello").unwrap();
    let other = make(&mut fs, inner, "other.txt", NodeKind::File);
    fs.write(other, "", 0, b"other").unwrap();
    fs.link(other, root, "hard.txt").unwrap();
    for name in ["big.bin", "big2.bin"] {
        let big = make(&mut fs, root, name, NodeKind::File);
        fs.write(big, "", 0, &vec![7; 40_000]).unwrap();
    }
    let listed = make(&mut fs, root, "listed", NodeKind::File);
    for stream in 0..40 {
        fs.write(listed, &format!("stream number {stream:03}"), 0, &[stream; 100]).unwrap();
    }
    let many = make(&mut fs, root, "many", NodeKind::Directory);
    for index in 0..150 {
        fs.create(many, &format!("one of many files {index:03}"), NodeKind::File).unwrap();
    }
    let last = make(&mut fs, root, "last.txt", NodeKind::File);
    fs.write(last, "", 0, b"last").unwrap();
    fs.sync().unwrap();
    drop(fs);
    Vol { bytes: device.to_vec(), number }
}

/// A device with a place that cannot be read.
struct Bad(Disk, std::ops::Range<u64>);

impl BlockDevice for Bad {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> vmrescue::Result<()> {
        if offset < self.1.end && self.1.start < offset + buf.len() as u64 {
            return Err(vmrescue::Error::new(vmrescue::ErrorKind::Io, vmrescue::Layer::Host, "a bad sector"));
        }
        self.0.read_at(offset, buf)
    }
}

fn refused_restart_page() -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[..4].copy_from_slice(b"RSTR");
    for (at, value) in [(4, 0x1Eu16), (6, 9), (0x10, 4096), (0x14, 4096), (0x18, 0x30), (0x1A, 1), (0x1C, 1)]
    {
        page[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    page[0x30] = 5;
    page
}

type Damage = fn(&mut Vol);

/// A way to make each kind of damage.
const DAMAGES: &[(&str, Damage)] = &[
    ("ntfs-boot-sector", |v| v.bytes[..512].fill(0)),
    ("ntfs-boot-copy", |v| {
        let at = v.bytes.len() - 512 + 0x50;
        v.bytes[at] ^= 1;
    }),
    ("ntfs-volume-cut", |v| v.bytes.truncate(v.bytes.len() - 65536)),
    ("ntfs-mft-place", |v| {
        let end = v.bytes.len() - 512;
        for at in [0, end] {
            let mirror = v.bytes[at + 0x38..at + 0x40].to_vec();
            v.bytes[at + 0x30..at + 0x38].copy_from_slice(&mirror);
        }
    }),
    ("ntfs-mirror-place", |v| {
        let end = v.bytes.len() - 512;
        v.bytes[0x38] ^= 1;
        v.bytes[end + 0x38] ^= 1;
    }),
    ("ntfs-mirror", |v| {
        let at = u64s(&v.bytes, 0x38) as usize * CLUSTER + 3 * RECORD + 0x300;
        v.bytes[at] ^= 1;
    }),
    ("ntfs-mirror-better", |v| {
        let at = v.place(3);
        v.bytes[at] = b'X';
    }),
    ("ntfs-system-file", |v| v.edit(7, |record| record[0x16] = 0)),
    ("ntfs-volume-dirty", |v| v.edit_value(3, 0x70, "", |value| value[10] |= 1)),
    ("ntfs-log-not-clean", |v| {
        let at = v.data(2, 0x80, "");
        v.bytes[at..at + 4096].copy_from_slice(&refused_restart_page());
    }),
    ("ntfs-upcase", |v| {
        let at = v.data(10, 0x80, "") + 2 * usize::from(b'a');
        v.bytes[at] = b'B';
    }),
    ("ntfs-bad-clusters", |v| {
        let clusters = v.bytes.len() as u64 / CLUSTER as u64 - 1;
        let lcn = (clusters - 100) as u16;
        v.flip_cluster(u64::from(lcn));
        v.edit_attribute(8, 0x80, "$Bad", |a| {
            let [l0, l1] = lcn.to_le_bytes();
            let pairs = [0x02, l0, l1, 0x21, 1, l0, l1, 0x01, 99, 0];
            let at = u16s(a, 0x20);
            a.truncate(at);
            a.extend_from_slice(&pairs);
            a.resize(a.len().next_multiple_of(8), 0);
            let length = a.len() as u32;
            a[4..8].copy_from_slice(&length.to_le_bytes());
        });
    }),
    ("ntfs-bad-size", |v| {
        v.edit_attribute(8, 0x80, "$Bad", |a| {
            let at = u16s(a, 0x20);
            a[at + 1] -= 1;
            let less = |a: &mut Vec<u8>, at: usize, by: u64| {
                let value = u64s(a, at) - by;
                a[at..at + 8].copy_from_slice(&value.to_le_bytes());
            };
            less(a, 0x18, 1);
            less(a, 0x28, CLUSTER as u64);
            less(a, 0x30, CLUSTER as u64);
        });
    }),
    ("ntfs-record", |v| {
        let at = v.place(v.of("file.txt")) + 510;
        v.bytes[at] ^= 0xFF;
    }),
    ("ntfs-record-header", |v| v.edit(v.of("file.txt"), |record| record[0x1D] = 3)),
    ("ntfs-record-number", |v| v.edit(v.of("file.txt"), |record| record[0x2C] ^= 1)),
    ("ntfs-record-sequence", |v| v.edit(v.of("file.txt"), |record| record[0x10..0x12].fill(0))),
    ("ntfs-attribute", |v| {
        v.edit(v.of("file.txt"), |record| {
            let at = u16s(record, 0x14);
            record[at + 4] = 3;
        });
    }),
    ("ntfs-attribute-order", |v| {
        v.edit(v.of("file.txt"), |record| {
            let mut all = attributes(record);
            all.swap(0, 1);
            rebuild(record, &all);
        });
    }),
    ("ntfs-attribute-instance", |v| {
        v.edit(v.of("file.txt"), |record| {
            let mut all = attributes(record);
            let id = all[0][14];
            all[1][14] = id;
            rebuild(record, &all);
        });
    }),
    ("ntfs-attribute-twice", |v| {
        v.edit(v.of("file.txt"), |record| {
            let mut all = attributes(record);
            let mut data = all.iter().find(|a| is(a, 0x80, "")).unwrap().clone();
            data[14] = record[0x28];
            record[0x28] += 1;
            all.push(data);
            rebuild(record, &all);
        });
    }),
    ("ntfs-attribute-form", |v| v.edit_attribute(v.of("file.txt"), 0x80, "", |a| a[0] = 0xA0)),
    ("ntfs-standard-information", |v| {
        v.edit(v.of("file.txt"), |record| {
            let all = attributes(record);
            rebuild(record, &all[1..]);
        });
    }),
    ("ntfs-file-name", |v| v.edit_value(v.of("file.txt"), 0x30, "", |value| value[0x41] = 9)),
    ("ntfs-record-without-name", |v| {
        v.edit(v.of("file.txt"), |record| {
            let mut all = attributes(record);
            all.retain(|a| !is(a, 0x30, ""));
            rebuild(record, &all);
        });
    }),
    ("ntfs-name-pair", |v| v.edit_value(v.of("file.txt"), 0x30, "", |value| value[0x41] = 1)),
    ("ntfs-link-count", |v| v.edit(v.of("file.txt"), |record| record[0x12] = 7)),
    ("ntfs-run-list", |v| {
        v.edit_attribute(v.of("big.bin"), 0x80, "", |a| {
            let at = u16s(a, 0x20);
            a[at] = 0xFF;
        });
    }),
    ("ntfs-run-sizes", |v| v.edit_attribute(v.of("big.bin"), 0x80, "", |a| a[0x29] += 0x10)),
    ("ntfs-hole", |v| {
        v.edit_attribute(v.of("big.bin"), 0x80, "", |a| {
            let at = u16s(a, 0x20);
            a[at] &= 0x0F;
            let end = at + 1 + usize::from(a[at]);
            a[end] = 0;
        });
    }),
    ("ntfs-cluster-shared", |v| {
        let lcn = v.data_runs(v.of("big2.bin"), 0x80, "")[0].0 as u16;
        v.edit_attribute(v.of("big.bin"), 0x80, "", |a| {
            let at = u16s(a, 0x20);
            assert_eq!(a[at], 0x21, "one byte of length, two of place");
            a[at + 2..at + 4].copy_from_slice(&lcn.to_le_bytes());
        });
    }),
    ("ntfs-attribute-list", |v| {
        let (at, _) = v.list();
        v.bytes[at + 4] = 3;
    }),
    ("ntfs-attribute-list-order", |v| {
        let (at, length) = v.list();
        let last = u16s(&v.bytes, at + length - 0x40 + 4);
        assert_eq!(last, 0x40, "entries of named streams");
        let (a, b) = (at + length - 0x80, at + length - 0x40);
        let first = v.bytes[a..b].to_vec();
        v.bytes.copy_within(b..b + 0x40, a);
        v.bytes[b..b + 0x40].copy_from_slice(&first);
    }),
    ("ntfs-attribute-list-entry", |v| {
        let (at, length) = v.list();
        v.bytes[at + length - 0x40 + 0x18] ^= 0x55;
    }),
    ("ntfs-attribute-list-missing", |v| {
        let (_, length) = v.list();
        v.edit_attribute(v.of("listed"), 0x20, "", |a| {
            let less = (length as u64 - 0x40).to_le_bytes();
            a[0x30..0x38].copy_from_slice(&less);
            a[0x38..0x40].copy_from_slice(&less);
        });
    }),
    ("ntfs-attribute-list-segments", |v| {
        v.edit_attribute(v.of("big.bin"), 0x80, "", |a| {
            a[0x10] += 1;
            a[0x18] += 1;
        });
    }),
    ("ntfs-extension-unowned", |v| {
        // The base is a record that is free.
        v.free("last.txt");
        let base = v.reference("last.txt");
        v.edit(v.of("file.txt"), |record| record[0x20..0x28].copy_from_slice(&base.to_le_bytes()));
    }),
    ("ntfs-index", |v| {
        let at = v.data(v.of("many"), 0xA0, "$I30");
        v.bytes[at] = b'X';
    }),
    ("ntfs-index-header", |v| v.edit_value(v.of("dir"), 0x90, "$I30", |value| value[4] = 2)),
    ("ntfs-index-order", |v| {
        v.edit_value(v.of("dir"), 0x90, "$I30", |value| value[0x20 + 0x10 + 0x42] = b'z');
    }),
    ("ntfs-index-node-flag", |v| v.edit_value(v.of("dir"), 0x90, "$I30", |value| value[0x1C] |= 1)),
    ("ntfs-index-block-marked-free", |v| v.edit_value(v.of("many"), 0xB0, "$I30", |value| value[0] &= !1)),
    ("ntfs-index-block-lost", |v| v.edit_value(v.of("many"), 0xB0, "$I30", |value| value[7] |= 0x80)),
    ("ntfs-directory", |v| v.edit(v.of("inner"), |record| record[0x16] = 1)),
    ("ntfs-directory-loop", |v| {
        let inner = v.reference("inner");
        v.edit_value(v.of("dir"), 0x30, "", |value| value[..8].copy_from_slice(&inner.to_le_bytes()));
    }),
    ("ntfs-entry-without-file", |v| v.free("file.txt")),
    ("ntfs-entry-parent", |v| v.edit_value(v.of("dir"), 0x90, "$I30", |value| value[0x20 + 0x10] ^= 1)),
    ("ntfs-name-not-in-index", |v| {
        v.edit_attribute(v.of("dir"), 0x90, "$I30", |a| {
            let at = u16s(a, 20);
            let mut value = a[at..at + 0x20].to_vec();
            for field in [0x14, 0x18] {
                value[field..field + 4].copy_from_slice(&0x20u32.to_le_bytes());
            }
            value.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0, 0, 0]);
            a[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
            a.truncate(at);
            a.extend_from_slice(&value);
            let length = a.len() as u32;
            a[4..8].copy_from_slice(&length.to_le_bytes());
        });
    }),
    ("ntfs-orphan", |v| v.free("dir")),
    ("ntfs-bitmap", |v| {
        v.edit_attribute(6, 0x80, "", |a| {
            for at in [0x30, 0x38] {
                a[at..at + 8].copy_from_slice(&8u64.to_le_bytes());
            }
        });
    }),
    ("ntfs-bitmap-used-marked-free", |v| {
        let lcn = v.data_runs(v.of("big.bin"), 0x80, "")[0].0;
        v.flip_cluster(lcn + 1);
    }),
    ("ntfs-bitmap-lost-cluster", |v| v.flip_cluster(v.bytes.len() as u64 / CLUSTER as u64 - 50)),
    ("ntfs-mft-bitmap", |v| {
        v.edit_attribute(0, 0xB0, "", |a| {
            for at in [0x30, 0x38] {
                a[at..at + 8].copy_from_slice(&8u64.to_le_bytes());
            }
        });
    }),
    ("ntfs-record-marked-free", |v| v.flip_record(v.of("file.txt"))),
    ("ntfs-record-marked-used", |v| {
        let count: u64 = v.mft_runs().iter().map(|run| run.1).sum::<u64>() * 4;
        v.flip_record(count - 1);
    }),
    ("ntfs-security-id", |v| v.edit_value(v.of("file.txt"), 0x10, "", |value| value[0x36] = 0x77)),
    ("ntfs-sds", |v| {
        let at = v.data(9, 0x80, "$SDS");
        v.bytes[at + 0x30] ^= 1;
    }),
    ("ntfs-sds-mirror", |v| {
        let at = v.data(9, 0x80, "$SDS") + 0x40000;
        v.bytes[at + 0x30] ^= 1;
    }),
    ("ntfs-secure-index", |v| v.edit_value(9, 0x90, "$SII", |value| value[0x20 + 0x14] ^= 1)),
    ("ntfs-reparse-index", |v| add(v, 0xC0, &[3, 0, 0, 0xA0, 0, 0, 0, 0])),
    ("ntfs-object-id-index", |v| add(v, 0x40, &[9; 16])),
    ("ntfs-quota", |v| v.edit_value(24, 0x90, "$Q", |value| value[0x20 + 0x14] = 9)),
];

/// Adds an attribute to `file.txt`.
fn add(v: &mut Vol, kind: u32, value: &[u8]) {
    v.edit(v.of("file.txt"), |record| {
        let mut all = attributes(record);
        all.push(resident(kind, u16::from(record[0x28]), value));
        record[0x28] += 1;
        all.sort_by_key(|a| u32s(a, 0));
        rebuild(record, &all);
    });
}

fn repaired(v: &Vol) -> (vmrescue::Result<vmrescue::fs::ntfs::Mended>, Vol) {
    let device = Arc::new(MemoryDevice::new(v.bytes.clone()));
    let result = mend(&DiskMut::new(Arc::<MemoryDevice>::clone(&device)), WriteOptions::default(), &Silent);
    (result, Vol { bytes: device.to_vec(), number: v.number.clone() })
}

/// Exit code, and all that was said.
fn run(words: &[&str]) -> (i32, String) {
    let output = crate::demo::vmrescue(words);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), said)
}

/// ntfs-3g's programs have nothing to say, and list the root.
fn ntfs3g_agrees(v: &Vol, what: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("volume.raw");
    std::fs::write(&file, &v.bytes).unwrap();
    for (name, option) in [("ntfsfix", "-n"), ("ntfsls", "-a")] {
        let Some(mut command) = crate::oracle::tool(name) else { return };
        let output = command.arg(option).arg(&file).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {name}: {said}");
    }
}

#[test]
fn every_damage_has_its_code_and_its_repair() {
    let healthy = base();
    assert_eq!(healthy.codes(), BTreeSet::new(), "the volume to damage is healthy");
    let (nothing, same) = repaired(&healthy);
    assert!(
        nothing.unwrap().done.is_empty() && same.bytes == healthy.bytes,
        "a healthy volume is not touched"
    );
    let (mut seen, mut wrong) = (BTreeSet::from(["ntfs-mft-unreadable"]), Vec::new());
    for (name, damage) in DAMAGES {
        seen.insert(*name);
        let mut volume = healthy.clone();
        damage(&mut volume);
        let codes = volume.codes();
        if !codes.contains(name) {
            wrong.push(format!("{name}: only {codes:?} found"));
            continue;
        }
        let kind = |name: &str| CODES.iter().find(|code| code.name == name).unwrap().mend;
        let (result, after) = repaired(&volume);
        match (kind(name), result) {
            (Mend::Refuses, Err(error)) => {
                if error.kind() != vmrescue::ErrorKind::Refused
                    || !error.to_string().contains("one right answer")
                {
                    wrong.push(format!("{name}: {error}"));
                }
            }
            (Mend::Leaves, Ok(mended)) if mended.left.iter().any(|defect| defect.code == *name) => {}
            // A log that is not clean keeps a repair from starting; a volume with two things wrong may be refused for the other one.
            (Mend::Leaves, Err(error)) if error.kind() == vmrescue::ErrorKind::Refused => {}
            (Mend::Mends, Ok(mended)) if mended.left.is_empty() && !mended.done.is_empty() => {
                assert_eq!(after.codes(), BTreeSet::new(), "{name} after its repair");
                let (second, same) = repaired(&after);
                assert!(second.unwrap().done.is_empty() && same.bytes == after.bytes, "{name}: a second run");
                ntfs3g_agrees(&after, name);
            }
            (kind, result) => wrong.push(format!("{name} ({kind:?}, found {codes:?}): {result:?}")),
        }
    }
    let all: BTreeSet<&str> = CODES.iter().map(|code| code.name).collect();
    assert_eq!(seen, all, "each code is made by a damage");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_was_found_is_where_it_belongs() {
    let healthy = base();
    let find = |volume: &Vol, path: &[&str]| {
        let volume = Volume::open(volume.disk()).unwrap();
        resolve(&volume, path).unwrap().map(|id| read_file(&volume, id, "").unwrap_or_default())
    };
    let damaged = |name: &str| {
        let mut volume = healthy.clone();
        (DAMAGES.iter().find(|(known, _)| *known == name).unwrap().1)(&mut volume);
        let (result, after) = repaired(&volume);
        result.unwrap();
        after
    };
    let orphans = damaged("ntfs-orphan");
    assert_eq!(find(&orphans, &["found.000", "file.txt"]).unwrap(), b"hello");
    assert_eq!(find(&orphans, &["found.000", "inner", "other.txt"]).unwrap(), b"other");
    assert_eq!(find(&orphans, &["dir"]), None);
    let entries = damaged("ntfs-name-not-in-index");
    assert_eq!(find(&entries, &["dir", "file.txt"]).unwrap(), b"hello");
    assert_eq!(find(&entries, &["dir", "inner", "other.txt"]).unwrap(), b"other");
    let gone = damaged("ntfs-entry-without-file");
    assert_eq!(find(&gone, &["dir", "file.txt"]), None);
    let dirty = damaged("ntfs-volume-dirty");
    assert!(!Volume::open(dirty.disk()).unwrap().info().dirty);
}

#[test]
fn a_part_of_the_mft_that_cannot_be_read_is_said() {
    let healthy = base();
    let at = healthy.place(healthy.of("file.txt")) as u64;
    let disk = Disk::new(Arc::new(Bad(healthy.disk(), at..at + 512)));
    let codes: BTreeSet<&str> =
        Volume::open(disk).unwrap().check(&Silent).unwrap().into_iter().map(|defect| defect.code).collect();
    assert!(codes.contains("ntfs-mft-unreadable"), "{codes:?}");
}

/// Numbers that look random and are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn random_damage_is_mended_or_refused() {
    let healthy = base();
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    let places: Vec<std::ops::Range<usize>> = [
        healthy.place(0)..healthy.place(0) + 48 * RECORD,
        healthy.data(5, 0xA0, "$I30")..healthy.data(5, 0xA0, "$I30") + CLUSTER,
        healthy.data(healthy.of("many"), 0xA0, "$I30")
            ..healthy.data(healthy.of("many"), 0xA0, "$I30") + 2 * CLUSTER,
        healthy.data(6, 0x80, "")..healthy.data(6, 0x80, "") + 512,
        0..512,
    ]
    .to_vec();
    let (mut mended, mut refused) = (0, 0);
    for round in 0..60 {
        let mut volume = healthy.clone();
        for _ in 0..=random.below(3) {
            let range = &places[random.below(places.len())];
            let at = range.start + random.below(range.len());
            volume.bytes[at] = random.below(256) as u8;
        }
        // A volume without a boot sector and without $MFT is none.
        let Ok(opened) = Volume::open(volume.disk()) else { continue };
        drop(opened.check(&Silent));
        match repaired(&volume) {
            (Ok(done), after) => {
                let left: BTreeSet<&str> = done.left.iter().map(|defect| defect.code).collect();
                assert_eq!(after.codes(), left, "round {round}");
                if left.is_empty() && !done.done.is_empty() {
                    mended += 1;
                    ntfs3g_agrees(&after, &format!("round {round}"));
                }
            }
            (Err(_), _) => refused += 1,
        }
    }
    println!("{mended} mended, {refused} refused");
    assert!(mended > 5 && refused > 5, "{mended} mended, {refused} refused");
}

#[test]
fn the_command_shows_mends_and_takes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume.img");
    let image = path.to_str().unwrap();
    let mut volume = base();
    for name in ["ntfs-bitmap-lost-cluster", "ntfs-orphan", "ntfs-volume-dirty", "ntfs-boot-copy"] {
        (DAMAGES.iter().find(|(known, _)| *known == name).unwrap().1)(&mut volume);
    }
    std::fs::write(&path, &volume.bytes).unwrap();
    let (code, said) = run(&["check", image]);
    assert!(code == 1 && said.contains("ntfs-orphan") && said.contains("ntfs-volume-dirty"), "{said}");
    let (code, said) = run(&["check", image, "--repair", "--dry-run"]);
    assert!(code == 1 && said.contains("found.000") && said.contains("dirty"), "{said}");
    assert!(std::fs::read(&path).unwrap() == volume.bytes, "a dry run writes nothing");
    let (code, said) = run(&["check", image, "--repair", "--yes"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&["check", image]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&["undo", image, "--yes"]);
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&path).unwrap() == volume.bytes, "undo brings back every byte");
    // Cross-linked clusters have no one right answer.
    let mut shared = base();
    (DAMAGES.iter().find(|(known, _)| *known == "ntfs-cluster-shared").unwrap().1)(&mut shared);
    std::fs::write(&path, &shared.bytes).unwrap();
    let (code, said) =
        run(&["check", image, "--repair", "--yes", "--state-dir", dir.path().join("s").to_str().unwrap()]);
    assert!(code == 3 && said.contains("ntfs-cluster-shared"), "{code}: {said}");
    assert!(std::fs::read(&path).unwrap() == shared.bytes);
}

/// A resumed Windows would go on with what it knew: even a repair that needs no writer is refused.
#[test]
fn a_hibernated_volume_is_mended_only_when_its_memory_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume.img");
    let image = path.to_str().unwrap();
    let memory = dir.path().join("memory");
    std::fs::write(&memory, [b"hibr".to_vec(), vec![7; 20_000]].concat()).unwrap();
    std::fs::write(&path, base().bytes).unwrap();
    let (code, said) = run(&["put", image, memory.to_str().unwrap(), r"#1:\hiberfil.sys", "--yes"]);
    assert_eq!(code, 0, "{said}");
    let hibernated = std::fs::read(&path).unwrap();
    for damage in ["ntfs-boot-copy", "ntfs-bitmap-lost-cluster", "ntfs-boot-sector"] {
        let mut volume = Vol { bytes: hibernated.clone(), number: base().number };
        let (_, harm) = DAMAGES.iter().find(|(known, _)| *known == damage).unwrap();
        harm(&mut volume);
        std::fs::write(&path, &volume.bytes).unwrap();
        let state = dir.path().join(damage);
        let with = |more: &[&'static str]| {
            let mut words = vec!["check", image, "--repair", "--yes", "--state-dir", state.to_str().unwrap()];
            words.extend(more);
            run(&words)
        };
        let (code, said) = with(&[]);
        assert!(code == 3 && said.contains("--discard-hibernation"), "{damage}: {code}: {said}");
        assert!(std::fs::read(&path).unwrap() == volume.bytes, "{damage}");
        let (code, said) = with(&["--discard-hibernation"]);
        assert!(code == 0 && said.contains("hibernation ended"), "{damage}: {code}: {said}");
        let (code, said) = run(&["check", image]);
        assert_eq!(code, 0, "{damage}: {said}");
    }
}

#[test]
fn a_dirty_volume_is_named_and_cured() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.img");
    vmrescue::demo::build(&path, vmrescue::image::Kind::Raw).unwrap();
    let image = path.to_str().unwrap();
    let (code, said) = run(&["diagnose", image]);
    assert_eq!(code, 0, "{said}");
    let mut bytes = std::fs::read(&path).unwrap();
    let start = 89 << 20;
    let mut volume = Vol { bytes: bytes[start..255 << 20].to_vec(), number: BTreeMap::new() };
    volume.edit_value(3, 0x70, "", |value| value[10] |= 1);
    volume.flip_cluster(30_000);
    bytes[start..255 << 20].copy_from_slice(&volume.bytes);
    std::fs::write(&path, &bytes).unwrap();
    let (code, said) = run(&["diagnose", image]);
    assert!(code == 1 && said.contains("volume-dirty") && said.contains("check-file-system"), "{said}");
    let (code, said) = run(&["repair", image, "--yes"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&["check", image]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&["undo", image, "--yes"]);
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&path).unwrap() == bytes, "undo brings back every byte");
}

/// A figure for `docs/performance.md`, not part of the everyday suite: `VMRESCUE_SWEEP=1 cargo test --release --test suite check_of_120000 -- --nocapture`.
#[test]
fn check_of_120000_files() {
    if std::env::var_os("VMRESCUE_SWEEP").is_none() {
        eprintln!("SKIPPED: makes 120,000 files; asked for by VMRESCUE_SWEEP=1");
        return;
    }
    let device = Arc::new(MemoryDevice::zeroed(400 << 20));
    let disk = DiskMut::new(Arc::<MemoryDevice>::clone(&device));
    format(&disk, &FormatSpec::default()).unwrap();
    let mut fs = VolumeMut::open(disk.clone()).unwrap();
    for directory in 0..120 {
        let root = fs.root();
        let directory = fs.create(root, &format!("directory {directory}"), NodeKind::Directory).unwrap();
        for file in 0..1000 {
            let file =
                fs.create(directory, &format!("a file with a long name {file}"), NodeKind::File).unwrap();
            fs.write(file, "", 0, b"some bytes of content").unwrap();
        }
    }
    fs.sync().unwrap();
    drop(fs);
    let volume = Volume::open(disk.as_disk()).unwrap();
    for run in 0..3 {
        let begun = std::time::Instant::now();
        let defects = volume.check(&Silent).unwrap();
        println!("run {run}: {:?}, {} findings", begun.elapsed(), defects.len());
        assert!(defects.is_empty() && begun.elapsed().as_secs() < 1);
    }
}
