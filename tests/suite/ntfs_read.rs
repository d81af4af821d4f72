//! Reading NTFS: the walk over a whole volume against the walk from directory to directory, on every volume of the corpus.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of a test: they may fail and tell")]

use crate::ntfs_corpus::{corpus_volumes, volumes_on};
use std::collections::BTreeSet;
use vmrescue::fs::ntfs::Volume;
use vmrescue::fs::{FileSystem, NodeId, NodeKind, Order};

/// Every name by the indexes of the directories, with the metadata of its record.
fn by_directories(volume: &Volume, directory: NodeId, path: &str, out: &mut BTreeSet<String>) {
    for entry in volume.read_dir(directory).unwrap() {
        let known = volume.metadata(entry.id).unwrap();
        let full = if path.is_empty() { entry.name.clone() } else { format!("{path}\\{}", entry.name) };
        let streams: Vec<_> =
            volume.streams(entry.id).unwrap().into_iter().filter(|s| !s.name.is_empty()).collect();
        out.insert(format!(
            "{full} {:?} {:?} {:?} {} {} {:?} {:?} {} {:?} {:?} {:?}",
            entry.short_name,
            entry.id,
            known.kind,
            known.size_bytes,
            known.allocated_bytes,
            known.attributes,
            known.times,
            known.links,
            known.reparse.map(|r| r.tag),
            known.security_id,
            streams
        ));
        if known.kind == NodeKind::Directory {
            by_directories(volume, entry.id, &full, out);
        }
    }
}

fn by_walk(volume: &Volume, from: NodeId, order: Order) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let defects = volume
        .walk(from, order, &mut |file| {
            assert!(file.name_times.is_some() && file.path.ends_with(file.name()));
            if !file.orphan {
                out.insert(format!(
                    "{} {:?} {:?} {:?} {} {} {:?} {:?} {} {:?} {:?} {:?}",
                    file.path,
                    file.short_name,
                    file.id,
                    file.kind,
                    file.size_bytes,
                    file.allocated_bytes,
                    file.attributes,
                    file.times,
                    file.links,
                    file.reparse_tag,
                    file.security_id,
                    file.streams
                ));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(defects, []);
    out
}

#[test]
fn the_bulk_walk_sees_what_the_directories_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for path in corpus_volumes(dir.path(), 300 << 20) {
        let Some((_, found)) = volumes_on(&path) else { continue };
        for (start, disk) in found {
            let Ok(volume) = Volume::open(disk) else { continue };
            let mut slow = BTreeSet::new();
            by_directories(&volume, volume.root(), "", &mut slow);
            let mut fast = by_walk(&volume, volume.root(), Order::Any);
            assert_eq!(by_walk(&volume, volume.root(), Order::Tree), fast);
            // A file in use whose directory has no entry for it: made by ntfs3, the checker reports it.
            fast.retain(|line| !(line.starts_with("test\\1.txt ") && path.ends_with("ntfs3.raw")));
            slow.retain(|line| !line.starts_with("test\\1.txt ") || !path.ends_with("ntfs3.raw"));
            let differences: Vec<&String> = slow.symmetric_difference(&fast).collect();
            assert!(differences.is_empty(), "{} at {start:#x}: {differences:#?}", path.display());
            println!("{} at {start:#x}: {} names", path.display(), fast.len());
            // Below each directory of the root, by single records.
            for entry in volume.read_dir(volume.root()).unwrap() {
                if entry.kind == NodeKind::Directory && !path.ends_with("ntfs3.raw") {
                    let mut slow = BTreeSet::new();
                    by_directories(&volume, entry.id, "", &mut slow);
                    assert_eq!(
                        by_walk(&volume, entry.id, Order::Tree),
                        slow,
                        "{} {}",
                        path.display(),
                        entry.name
                    );
                }
            }
            seen += 1;
        }
    }
    assert!(seen > 5 || crate::oracle::corpus().is_none(), "only {seen} volumes found");
}
