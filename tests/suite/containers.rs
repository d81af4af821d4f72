//! Containers that others made, against qemu-img: the whole virtual disk, byte for byte; and ours, opened by it.

use crate::oracle::{corpus, run, tool};
use std::io::Read;
use std::path::{Path, PathBuf};
use vmrescue::block::{DiskMut, HostFile};
use vmrescue::image::{CreateSpec, Kind, OpenOptions, check, create, open_mut, open_path};

/// True when the raw file holds exactly what we read of `path`.
fn same_as_raw(path: &Path, raw: &Path) -> bool {
    let disk = open_path(path, &OpenOptions::default()).unwrap().disk;
    let mut file = std::fs::File::open(raw).unwrap();
    let length = file.metadata().unwrap().len();
    let (mut ours, mut theirs) = (vec![0; 4 << 20], vec![0; 4 << 20]);
    let mut offset = 0;
    while offset < disk.len() {
        let count = (disk.len() - offset).min(ours.len() as u64) as usize;
        disk.read_at(offset, &mut ours[..count]).unwrap();
        // Their file may end early by a part of the last cylinder.
        let there = length.saturating_sub(offset).min(count as u64) as usize;
        file.read_exact(&mut theirs[..there]).unwrap();
        theirs[there..count].fill(0);
        if ours[..count] != theirs[..count] {
            return false;
        }
        offset += count as u64;
    }
    true
}

fn images(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            images(&path, found);
        } else if path.extension().is_some_and(|e| e == "vhd" || e == "vhdx") {
            found.push(path);
        }
    }
}

#[test]
fn images_of_others_read_as_qemu_reads_them() {
    let (Some(corpus), true) = (corpus(), tool("qemu-img").is_some()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    images(&corpus.join("01-vhd"), &mut found);
    assert!(found.len() > 5, "the corpus has containers");
    let mut compared = 0;
    for path in found {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let opened = match open_path(&path, &OpenOptions::default()) {
            Ok(opened) => opened,
            Err(e) => {
                eprintln!("not opened: {name}: {e}");
                assert!(e.offset().is_some() || e.kind() != vmrescue::ErrorKind::Io, "{name}: {e}");
                continue;
            }
        };
        if opened.disk.len() > 2 << 30 {
            eprintln!("too large to compare here: {name} ({} bytes)", opened.disk.len());
            continue;
        }
        // qemu refuses a dirty log read-only: it may repair a copy.
        let (copy, raw) = (dir.path().join(&name), dir.path().join("raw"));
        std::fs::copy(&path, &copy).unwrap();
        let format = if name.ends_with("vhdx") { "vhdx" } else { "vpc" };
        if opened.info.log_replayed {
            run(tool("qemu-img").unwrap().args(["check", "-r", "all"]).arg(&copy));
        }
        // The size is in the footer, not in the geometry.
        let source = if format == "vpc" {
            format!(
                "json:{{\"driver\":\"vpc\",\"force_size_calc\":\"current_size\",\"file.driver\":\"file\",\"file.filename\":{copy:?}}}"
            )
        } else {
            copy.display().to_string()
        };
        let output =
            tool("qemu-img").unwrap().args(["convert", "-O", "raw", &source]).arg(&raw).output().unwrap();
        if !output.status.success() {
            eprintln!("qemu-img does not open {name}: {}", String::from_utf8_lossy(&output.stderr));
            continue;
        }
        assert!(same_as_raw(&path, &raw), "{name} reads otherwise than by qemu-img");
        compared += 1;
        std::fs::remove_file(&copy).unwrap();
    }
    eprintln!("{compared} images equal to qemu-img's reading");
    assert!(compared >= 5);
}

#[test]
fn containers_of_ours_are_opened_by_qemu() {
    if tool("qemu-img").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (kind, name, format) in [
        (Kind::VhdFixed, "f.vhd", "vpc"),
        (Kind::VhdDynamic, "d.vhd", "vpc"),
        (Kind::VhdxFixed, "f.vhdx", "vhdx"),
        (Kind::VhdxDynamic, "d.vhdx", "vhdx"),
    ] {
        let path = dir.path().join(name);
        {
            let file = DiskMut::new(std::sync::Arc::new(HostFile::create_new(&path).unwrap()));
            create(&file, &CreateSpec::new(kind, 100 << 20)).unwrap();
            let disk = open_mut(&file, None).unwrap().disk;
            for i in 0..40u64 {
                disk.write_at(i * 2_500_000, &[i as u8 + 1; 70_000]).unwrap();
            }
            disk.zero_at(5_000_000..9_000_000).unwrap();
            assert!(check(&file.as_disk()).unwrap().is_empty());
        }
        let raw = dir.path().join("raw");
        let info = run(tool("qemu-img").unwrap().args(["info", "-f", format]).arg(&path));
        assert!(!info.stdout.is_empty());
        if format == "vhdx" {
            run(tool("qemu-img").unwrap().args(["check", "-f", format]).arg(&path));
        }
        run(tool("qemu-img").unwrap().args(["convert", "-f", format, "-O", "raw"]).args([&path, &raw]));
        assert!(same_as_raw(&path, &raw), "{name}");
    }
}
