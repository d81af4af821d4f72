//! Containers that others made, against qemu-img: the whole virtual disk, byte for byte; and ours, opened by it.

use crate::oracle::{corpus, run, tool};
use std::io::Read;
use std::path::{Path, PathBuf};
use vmrescue::block::{DiskMut, HostFile};
use vmrescue::disk::{DiskOptions, child_of, compact, convert, create_disk, merge, resize};
use vmrescue::image::{CreateSpec, Kind, OpenOptions, check, create, open_mut, open_path};
use vmrescue::progress::Silent;
use vmrescue::transaction::undo;

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
        if opened.disk.len() > 2 << 30 {
            // Too long to read all of it: both as sparse files, compared by what they hold.
            let ours = dir.path().join("ours.raw");
            convert(&path, &ours, Kind::Raw, None, &DiskOptions::default(), &Silent).unwrap();
            run(tool("qemu-img").unwrap().args(["compare", "-f", "raw", "-F", "raw"]).args([&ours, &raw]));
            std::fs::remove_file(&ours).unwrap();
        } else {
            assert!(same_as_raw(&path, &raw), "{name} reads otherwise than by qemu-img");
        }
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

/// sha256 of a chain's virtual disk as libvhdi reads it; the parents nearest first.
fn by_libvhdi(chain: &[&Path]) -> Option<String> {
    const SCRIPT: &str = "
import sys, hashlib, pyvhdi
files = []
for name in sys.argv[1:]:
    file = pyvhdi.file(); file.open(name); files.append(file)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
digest, done, size = hashlib.sha256(), 0, files[0].get_media_size()
while done < size:
    part = files[0].read_buffer_at_offset(min(1 << 20, size - done), done)
    digest.update(part); done += len(part)
print(digest.hexdigest())
";
    let there = std::process::Command::new("python3").args(["-c", "import pyvhdi"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        crate::oracle::skipped("the python module pyvhdi is not installed");
        return None;
    }
    let output = run(std::process::Command::new("python3").args(["-c", SCRIPT]).args(chain));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_string())
}

fn sha(path: &Path) -> String {
    use sha2::Digest;
    let disk = open_path(path, &OpenOptions::default()).unwrap().disk;
    let mut digest = sha2::Sha256::new();
    let mut offset = 0;
    while offset < disk.len() {
        let count = (disk.len() - offset).min(4 << 20);
        digest.update(disk.read_vec(offset, count as usize).unwrap());
        offset += count;
    }
    vmrescue::text::hex(&digest.finalize())
}

#[test]
fn chains_of_others_and_of_ours_read_as_libvhdi_reads_them() {
    if let Some(corpus) = corpus() {
        let dir = corpus.join("01-vhd/dfvfs");
        for (child, parent) in
            [("image-differential.vhd", "image.vhd"), ("ntfs-differential.vhdx", "ntfs-parent.vhdx")]
        {
            let (child, parent) = (dir.join(child), dir.join(parent));
            let Some(theirs) = by_libvhdi(&[&child, &parent]) else { return };
            assert_eq!(sha(&child), theirs, "{}", child.display());
            let file = vmrescue::block::Disk::new(std::sync::Arc::new(HostFile::open_read(&parent).unwrap()));
            if !vmrescue::image::open(&file).unwrap().defects.is_empty() {
                // A writer does not start on a footer that is damaged.
                assert!(merge(&child, &DiskOptions::default(), &Silent).is_err(), "{}", parent.display());
                continue;
            }
            drop(file);
            // Merged copies hold the same.
            let copies = tempfile::tempdir().unwrap();
            let copy = |path: &Path| {
                let to = copies.path().join(path.file_name().unwrap());
                std::fs::copy(path, &to).unwrap();
                to
            };
            let (child, parent) = (copy(&child), copy(&parent));
            let before = std::fs::read(&parent).unwrap();
            let merged = merge(&child, &DiskOptions::default(), &Silent).unwrap();
            assert_eq!(merged.parent, parent);
            assert_eq!(sha(&parent), theirs);
            assert_eq!(by_libvhdi(&[&parent]).unwrap(), theirs);
            undo(&parent, None, None, false, &Silent).unwrap();
            assert!(std::fs::read(&parent).unwrap() == before, "undo brings the parent back");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    for (kind, extension) in
        [(Kind::VhdDynamic, "vhd"), (Kind::VhdxDynamic, "vhdx"), (Kind::VhdxFixed, "vhdx")]
    {
        let base = dir.path().join(format!("base.{extension}"));
        create_disk(&base, &CreateSpec::new(kind, 24 << 20)).unwrap();
        let write = |path: &Path, places: &[(u64, usize)], byte: u8| {
            let file = DiskMut::new(std::sync::Arc::new(HostFile::open_write(path).unwrap()));
            let options: Vec<PathBuf> = Vec::new();
            let parent = vmrescue::image::open_parent(&file.as_disk(), path, &options).unwrap();
            let disk = open_mut(&file, parent).unwrap().disk;
            for (offset, length) in places {
                disk.write_at(*offset, &vec![byte; *length]).unwrap();
            }
        };
        write(&base, &[(1000, 9_000_000), (20 << 20, 70_000)], 1);
        let (first, second) =
            (dir.path().join(format!("a.{extension}")), dir.path().join(format!("b.{extension}")));
        child_of(&base, &first).unwrap().finish().unwrap();
        write(&first, &[(700, 1), (5_000_000, 3_000_000), (22 << 20, 513)], 2);
        child_of(&first, &second).unwrap().finish().unwrap();
        write(&second, &[(0, 5), (6_000_000, 5000), ((24 << 20) - 3, 3)], 3);
        if let Some(theirs) = by_libvhdi(&[&second, &first, &base]) {
            assert_eq!(sha(&second), theirs, "{kind:?}");
        }
        for path in [&base, &first, &second] {
            let file = vmrescue::block::Disk::new(std::sync::Arc::new(HostFile::open_read(path).unwrap()));
            let found = check(&file).unwrap();
            assert!(found.is_empty(), "{kind:?} {}: {found:?}", path.display());
        }
        let (content, middle) = (sha(&second), std::fs::read(&first).unwrap());
        // The middle one has a child: merging it away would break that.
        let refused = merge(&first, &DiskOptions::default(), &Silent).unwrap_err();
        assert_eq!(refused.kind(), vmrescue::ErrorKind::Refused);
        merge(&second, &DiskOptions::default(), &Silent).unwrap();
        assert_eq!(sha(&first), content);
        undo(&first, None, None, false, &Silent).unwrap();
        assert!(std::fs::read(&first).unwrap() == middle);
        assert_eq!(sha(&second), content);
        for path in [base, first, second] {
            std::fs::remove_file(path).unwrap();
        }
        for state in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_dir_all(state.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn a_parent_that_is_missing_wrong_or_elsewhere_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("vm");
    std::fs::create_dir(&inside).unwrap();
    let (base, child) = (dir.path().join("base.vhdx"), inside.join("child.vhdx"));
    create_disk(&base, &CreateSpec::new(Kind::VhdxDynamic, 8 << 20)).unwrap();
    child_of(&base, &child).unwrap().finish().unwrap();
    // The parent lies outside the child's folder: not opened without leave.
    let refused = open_path(&child, &OpenOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("parent") && refused.to_string().contains("base.vhdx"), "{refused}");
    let leave = OpenOptions { follow_paths: true, ..OpenOptions::default() };
    open_path(&child, &leave).unwrap();
    open_path(&child, &OpenOptions { parents: vec![base.clone()], ..OpenOptions::default() }).unwrap();
    // Changed since: the child remembers another DataWriteGuid.
    let file = DiskMut::new(std::sync::Arc::new(HostFile::open_write(&base).unwrap()));
    open_mut(&file, None).unwrap().disk.write_at(0, b"changed").unwrap();
    drop(file);
    let wrong = open_path(&child, &leave).unwrap_err();
    assert!(wrong.to_string().contains("not the parent"), "{wrong}");
}

#[test]
fn conversions_are_equal_for_qemu_and_back() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("disk.raw");
    let mut content = vec![0u8; 20 << 20];
    for (i, chunk) in content.chunks_mut(300_000).enumerate() {
        if i % 3 != 0 {
            chunk.iter_mut().enumerate().for_each(|(j, byte)| *byte = (i * 31 + j / 7) as u8);
        }
    }
    std::fs::write(&raw, &content).unwrap();
    let options = DiskOptions::default();
    for (name, kind) in Kind::NAMES {
        let format = if name.starts_with("vhdx") {
            "vhdx"
        } else if name == "raw" {
            "raw"
        } else {
            "vpc"
        };
        let target = dir.path().join(format!("to.{name}"));
        convert(&raw, &target, kind, None, &options, &Silent).unwrap();
        // Without this, qemu takes the size of a VHD from its geometry.
        let source = if format == "vpc" {
            format!(
                "json:{{\"driver\":\"vpc\",\"force_size_calc\":\"current_size\",\"file.driver\":\"file\",\"file.filename\":{target:?}}}"
            )
        } else {
            format!("json:{{\"driver\":\"{format}\",\"file.driver\":\"file\",\"file.filename\":{target:?}}}")
        };
        run(tool("qemu-img").unwrap().args(["compare", "-F", "raw", &source]).arg(&raw));
        let back = dir.path().join("back.raw");
        convert(&target, &back, Kind::Raw, None, &options, &Silent).unwrap();
        assert!(std::fs::read(&back).unwrap() == content, "{name}");
        std::fs::remove_file(&back).unwrap();
        assert!(convert(&raw, &target, kind, None, &options, &Silent).is_err(), "nothing is overwritten");
    }
    for (format, more) in [
        ("qcow2", &["-c"][..]),
        ("qcow2", &[]),
        ("vmdk", &[]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
    ] {
        let (source, back) = (dir.path().join("theirs"), dir.path().join("back.raw"));
        run(tool("qemu-img").unwrap().args(["convert", "-O", format]).args(more).args([&raw, &source]));
        convert(&source, &back, Kind::Raw, None, &options, &Silent).unwrap();
        assert!(std::fs::read(&back).unwrap() == content, "{format} {more:?}");
        std::fs::remove_file(&back).unwrap();
        std::fs::remove_file(&source).unwrap();
    }
}

#[test]
fn compacting_and_resizing_keep_the_content_and_are_undone() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [Kind::VhdDynamic, Kind::VhdxDynamic] {
        let path = dir.path().join(format!("{kind:?}"));
        let spec = CreateSpec { block_bytes: Some(1 << 20), ..CreateSpec::new(kind, 40 << 20) };
        create_disk(&path, &spec).unwrap();
        {
            let file = DiskMut::new(std::sync::Arc::new(HostFile::open_write(&path).unwrap()));
            let disk = open_mut(&file, None).unwrap().disk;
            for i in 0..30u64 {
                disk.write_at(i << 20, &vec![i as u8 + 1; 1 << 20]).unwrap();
            }
            disk.zero_at(3 << 20..21 << 20).unwrap();
        }
        let (before, content) = (std::fs::read(&path).unwrap(), sha(&path));
        let (done, changed) = compact(&path, true, &DiskOptions::default(), &Silent).unwrap();
        assert!(changed.operation.is_some() && done.dropped_blocks == 18, "{done:?}");
        assert!(done.after + (17 << 20) < done.before, "{done:?}");
        assert_eq!(sha(&path), content);
        let (again, changed) = compact(&path, true, &DiskOptions::default(), &Silent).unwrap();
        assert!(changed.operation.is_none(), "{again:?}");
        for size in [3u64 << 40, 41 << 20, 40 << 20] {
            let limit = if kind == Kind::VhdDynamic { 2040 << 30 } else { u64::MAX };
            resize(&path, size.min(limit), &DiskOptions::default(), &Silent).unwrap_or_else(|e| {
                // The disk has no partition table: cutting it is refused.
                assert!(size < 3 << 40, "{e}");
                vmrescue::disk::Changed::default()
            });
        }
        let file = vmrescue::block::Disk::new(std::sync::Arc::new(HostFile::open_read(&path).unwrap()));
        let found = check(&file).unwrap();
        assert!(!found.iter().any(|d| d.severity == vmrescue::Severity::Error), "{found:?}");
        drop(file);
        while undo(&path, None, None, false, &Silent).is_ok() {}
        assert!(std::fs::read(&path).unwrap() == before, "{kind:?}: undo brings the file back");
        if kind == Kind::VhdxDynamic
            && let Some(mut qemu) = tool("qemu-img")
        {
            run(qemu.args(["check", "-f", "vhdx"]).arg(&path));
        }
    }
}
