//! Bare $MFT files of other machines: laid into an otherwise empty volume, where their own runs say, and listed as dissect.ntfs lists
//! them; those that have a golden list of The Sleuth Kit (`.fls`) as that says, too.

use crate::oracle::{corpus, run, skipped, tool};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vmrescue::fs::ntfs::Volume;
use vmrescue::fs::{FileSystem, NodeKind, Order};
use vmrescue::image::{OpenOptions, open_path};

/// Prints record, directory or not, size and path of every name; behind `!` what it cannot read.
const DISSECT: &str = r#"
import sys
from dissect.ntfs import NTFS
for record in NTFS(mft=open(sys.argv[1], 'rb')).mft.segments():
    if not record.header.Flags & 1 or record.header.BaseFileRecordSegment.SegmentNumberLowPart:
        continue
    try:
        size = 0 if record.is_dir() else record.size()
    except FileNotFoundError:
        size = 0
    for path in record.full_paths():
        print(record.segment, int(record.is_dir()), size, path, sep='\t')
"#;

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// The first non-resident attribute of this kind without a name: the whole attribute.
fn attribute(record: &[u8], kind: u64) -> Option<&[u8]> {
    let mut at = number(record, 0x14, 2) as usize;
    while number(record, at, 4) != 0xFFFF_FFFF {
        let length = number(record, at + 4, 4) as usize;
        if number(record, at, 4) == kind && record[at + 8] == 1 && record[at + 9] == 0 {
            return Some(&record[at..at + length]);
        }
        at += length;
    }
    None
}

/// First cluster and count of each run.
fn runs(attribute: &[u8]) -> Vec<(u64, u64)> {
    let mut at = number(attribute, 0x20, 2) as usize;
    let (mut lcn, mut out) = (0i64, Vec::new());
    while attribute[at] != 0 {
        let (count_bytes, lcn_bytes) = (usize::from(attribute[at] & 15), usize::from(attribute[at] >> 4));
        let count = number(attribute, at + 1, count_bytes);
        let delta = number(attribute, at + 1 + count_bytes, lcn_bytes) as i64;
        let shift = 64 - 8 * lcn_bytes;
        lcn += delta << shift >> shift;
        out.push((lcn as u64, count));
        at += 1 + count_bytes + lcn_bytes;
    }
    out
}

/// A volume that has nothing but this $MFT.
fn volume_around(mft: &[u8], dir: &Path) -> PathBuf {
    let record_bytes = number(mft, 0x1C, 4);
    let data = attribute(&mft[..record_bytes as usize], 0x80).unwrap();
    let cluster = number(data, 0x28, 8) / (number(data, 0x18, 8) + 1);
    let bitmap_at = (6 * record_bytes) as usize;
    let bitmap = attribute(&mft[bitmap_at..bitmap_at + record_bytes as usize], 0x80).unwrap();
    let sectors = number(bitmap, 0x30, 8) * 8 * cluster / 512;
    let mut boot = vec![0; 512];
    boot[..11].copy_from_slice(b"\xEB\x52\x90NTFS    ");
    boot[11..13].copy_from_slice(&512u16.to_le_bytes());
    boot[13] = (cluster / 512) as u8;
    boot[0x28..0x30].copy_from_slice(&(sectors - 1).to_le_bytes());
    boot[0x30..0x38].copy_from_slice(&runs(data)[0].0.to_le_bytes());
    boot[0x38..0x40].copy_from_slice(&2u64.to_le_bytes());
    boot[0x40] = if record_bytes >= cluster {
        (record_bytes / cluster) as u8
    } else {
        0u8.wrapping_sub(record_bytes.ilog2() as u8)
    };
    boot[0x44] = 0xF4;
    boot[510..].copy_from_slice(&[0x55, 0xAA]);
    let path = dir.join("volume.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(sectors * 512).unwrap();
    file.write_all_at(&boot, 0).unwrap();
    let mut at = 0;
    for (lcn, count) in runs(data) {
        let length = ((count * cluster) as usize).min(mft.len() - at);
        file.write_all_at(&mft[at..at + length], lcn * cluster).unwrap();
        at += length;
    }
    path
}

/// Record, directory or not, size, path.
type Line = (u64, bool, u64, String);

fn by_dissect(mft: &Path) -> Option<BTreeSet<Line>> {
    let ask = std::process::Command::new("python3").args(["-c", "import dissect.ntfs"]).output();
    if !ask.is_ok_and(|output| output.status.success()) {
        skipped("no dissect.ntfs for python3");
        return None;
    }
    let output = run(tool("python3")?.args(["-c", DISSECT]).arg(mft));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.splitn(4, '\t').collect();
        (words[0].parse().unwrap(), words[1] == "1", words[2].parse().unwrap(), words[3].to_string())
    };
    Some(text.lines().map(line).collect())
}

/// Record, directory or not, size and path of a golden list; its paths have slashes.
fn golden(mft: &Path) -> Option<BTreeSet<Line>> {
    let text = std::fs::read_to_string(mft.with_extension("fls")).ok()?;
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        let (kind, place) = words[0].split_once(' ').unwrap();
        // The list of orphans is no file.
        if kind == "V/V" {
            continue;
        }
        let record = place.split(['-', ':']).next().unwrap().parse().unwrap();
        let (path, stream) = words[1].split_once(':').map_or((words[1], false), |(path, _)| (path, true));
        let directory = kind.ends_with("/d");
        let size = if directory || stream { 0 } else { words[6].parse().unwrap() };
        // A file that has named streams only is there as well.
        let known: &mut (bool, u64) =
            lines.entry((record, path.replace('/', "\\"))).or_insert((directory, 0));
        known.1 = known.1.max(size);
    }
    let lines = lines.into_iter().map(|((record, path), (directory, size))| (record, directory, size, path));
    let lines = lines.collect();
    Some(lines)
}

#[test]
fn bare_mft_files_are_listed_as_others_list_them() {
    let Some(corpus) = corpus() else { return };
    let mut compared = 0;
    for name in [
        "mft-crate-MFT",
        "dissect-mft.bin",
        "dissect.target-mft.raw",
        "dfir_ntfs/4k-large.mft",
        "dfir_ntfs/compressed_sparse.mft",
        "dfir_ntfs/deleted.mft",
        "dfir_ntfs/mapping_pairs_1.mft",
        "dfir_ntfs/mapping_pairs_2.mft",
        "dfir_ntfs/orphan.mft",
        "dfir_ntfs/slack.mft",
        "dfir_ntfs/unicode.mft",
    ] {
        let path = corpus.join("02-ntfs").join(name);
        let mft = std::fs::read(&path).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let image = volume_around(&mft, dir.path());
        let volume = Volume::open(open_path(&image, &OpenOptions::default()).unwrap().disk).unwrap();
        let (mut ours, mut short) = (BTreeSet::new(), BTreeSet::new());
        let defects = volume
            .walk(volume.root(), Order::Any, &mut |file| {
                if !file.orphan {
                    let record = file.id.0 & 0xFFFF_FFFF_FFFF;
                    let directory = file.kind == NodeKind::Directory;
                    ours.insert((record, directory, file.size_bytes, file.path.to_string()));
                    let folder = &file.path[..file.name_at];
                    short.extend(file.short_name.map(|name| (record, format!("{folder}{name}"))));
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(defects, [], "{name}");
        // dissect reads records of 1 KiB only, and shows short names as names of their own.
        let lists = [if mft[0x1D] == 4 { by_dissect(&path) } else { None }, golden(&path)];
        for mut theirs in lists.into_iter().flatten() {
            theirs.retain(|(record, _, _, path)| *record != 5 && !short.contains(&(*record, path.clone())));
            assert_eq!(ours.difference(&theirs).next(), None, "{name}: only ours");
            assert_eq!(theirs.difference(&ours).next(), None, "{name}: only theirs");
            compared += 1;
        }
        println!("{name}: {} names, {} short ones", ours.len(), short.len());
    }
    assert!(compared >= 3, "{compared}");
}
