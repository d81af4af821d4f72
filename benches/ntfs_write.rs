//! Writing to an NTFS volume without the transaction around it: a tree of small files, one large file, the tree deleted, each until it is
//! on the host's disk. Usage: cargo bench --bench ntfs_write -- VOLUME.raw FOLDER FILE

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail and tells")]

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vmrescue::block::{DiskMut, HostFile};
use vmrescue::fs::ntfs::VolumeMut;
use vmrescue::fs::{FileSystem, FileSystemMut, NodeId, NodeKind};

fn put_tree(volume: &mut VolumeMut, to: NodeId, from: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let made = volume.create(to, &name, NodeKind::Directory).unwrap();
            put_tree(volume, made, &entry.path());
        } else {
            let made = volume.create(to, &name, NodeKind::File).unwrap();
            volume.write(made, "", 0, &std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn remove_tree(volume: &mut VolumeMut, parent: NodeId, name: &str) {
    let node = volume.lookup(parent, name).unwrap().unwrap();
    for entry in volume.read_dir(node).unwrap() {
        if entry.kind == NodeKind::Directory {
            remove_tree(volume, node, &entry.name);
        } else {
            volume.remove(node, &entry.name).unwrap();
        }
    }
    volume.remove(parent, name).unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [image, folder, file] = &arguments[..] else {
        println!("usage: cargo bench --bench ntfs_write -- VOLUME.raw FOLDER FILE");
        return;
    };
    let disk = DiskMut::new(Arc::new(HostFile::open_write(Path::new(image)).unwrap()));
    let timed = |name: &str, work: &mut dyn FnMut(&mut VolumeMut)| {
        let begun = Instant::now();
        let mut volume = VolumeMut::open(disk.clone()).unwrap();
        work(&mut volume);
        volume.sync().unwrap();
        disk.flush().unwrap();
        println!("{name}, the writer alone: {:.2} s", begun.elapsed().as_secs_f64());
    };
    timed("small files", &mut |volume| {
        let made = volume.create(volume.root(), "small", NodeKind::Directory).unwrap();
        put_tree(volume, made, Path::new(folder));
    });
    timed("large file", &mut |volume| {
        let made = volume.create(volume.root(), "large.bin", NodeKind::File).unwrap();
        let mut source = std::fs::File::open(file).unwrap();
        let (mut buf, mut at) = (vec![0; 1 << 20], 0);
        loop {
            let count = source.read(&mut buf).unwrap();
            if count == 0 {
                break;
            }
            volume.write(made, "", at, &buf[..count]).unwrap();
            at += count as u64;
        }
    });
    timed("tree deleted", &mut |volume| remove_tree(volume, volume.root(), "small"));
}
