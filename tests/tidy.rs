//! Rules of the house that neither the compiler nor Cargo knows; which crate may use which is said by their `Cargo.toml`.

#![allow(clippy::unwrap_used, reason = "tests may fail")]

use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    sources(&root.join("src"), &mut found);
    assert!(found.len() > 60);
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
    found.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The part of a file ahead of its unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/testing") || path.contains("/tests/")
}

#[test]
fn files_stay_short_and_say_what_they_are_for() {
    for (path, text) in all() {
        let lines = text.lines().count();
        assert!(lines < 900, "{path} has {lines} lines");
        if !path.ends_with("tests.rs") {
            assert!(text.starts_with("//!"), "{path} does not say what it is for");
        }
    }
}

#[test]
fn nothing_is_left_undone_in_the_code() {
    for (path, text) in all() {
        // Put together here, so that this file does not hold the words itself.
        for word in ["todo!", "unimplemented!", "dbg!"]
            .map(|word| format!("{word}("))
            .into_iter()
            .chain([format!("#[{}", "ignore")])
        {
            assert!(!text.contains(&word), "{path} has {word}");
        }
    }
}

#[test]
fn platform_code_stays_in_its_files() {
    let allowed = [
        "src/block/host_file.rs",
        "src/block/host_lock.rs",
        "src/block/host_meta.rs",
        "src/block/host_process.rs",
        "src/mount/socket.rs",
        "src/mount/fuse/mod.rs",
    ];
    for (path, text) in all().iter().filter(|(path, _)| !allowed.contains(&path.as_str())) {
        assert!(!text.contains("std::os::"), "{path} calls the operating system by itself");
    }
}

/// A `DiskMut` writes: it is made over overlays, over new files, and by containers, nowhere else.
#[test]
fn only_a_few_places_make_a_writable_disk() {
    let allowed = [
        "src/block/disk.rs",
        "src/image/vhd/mod.rs",
        "src/image/vhdx/mod.rs",
        "src/transaction/lib.rs",
        "src/transaction/history.rs",
        "src/disk/new_file.rs",
        "src/disk/convert.rs",
        "src/repair/sectors.rs",
        // Over the disk that is staged: it notes where that is written.
        "src/repair/shadow_copies.rs",
        "src/demo/lib.rs",
        "src/crypt/device.rs",
        "src/demo/encrypted.rs",
    ];
    for (path, text) in all().iter().filter(|(path, _)| !is_test(path) && !allowed.contains(&path.as_str())) {
        assert!(!product(text).contains("DiskMut::new("), "{path} makes a writable disk");
    }
}

/// An image is opened for writing by the room that publishes, and new files by the one helper that makes them.
#[test]
fn only_one_room_opens_images_for_writing() {
    let allowed = [
        "src/block/host_file.rs",
        "src/block/output.rs",
        "src/block/spill.rs",
        "src/demo/lib.rs",
        "src/demo/encrypted.rs",
    ];
    for (path, text) in all().iter().filter(|(path, _)| !is_test(path) && !allowed.contains(&path.as_str())) {
        let writes =
            ["HostFile::open_write(", "HostFile::create"].iter().any(|way| product(text).contains(way));
        assert!(!writes || path.starts_with("src/transaction/"), "{path} opens a file for writing by itself");
    }
}

#[test]
fn the_library_does_not_read_the_environment() {
    for (path, text) in all().iter().filter(|(path, _)| !path.starts_with("src/cli/") && !is_test(path)) {
        assert!(!product(text).contains("std::env::"), "{path} reads the environment");
    }
}

/// Not seen is not absent: where the rules of `diagnose` turn an error into nothing, a comment beside it says why that is right. The
/// way to go on after an error is `Unseen`.
#[test]
fn diagnose_loses_no_error_without_a_reason() {
    for (path, text) in all().iter().filter(|(path, _)| path.starts_with("src/diagnose/")) {
        let lines: Vec<&str> = product(text).lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let ways = [".ok()", "let Ok(", "Err(_)"];
            // Text that is no number is no error of reading.
            let loses = ways.iter().any(|way| line.contains(way)) && !line.contains("parse");
            let near = lines[at.saturating_sub(4)..=at].iter();
            assert!(
                !loses || near.into_iter().any(|line| line.contains("//")),
                "{path}:{}: an error becomes nothing here, and nothing says why: {}",
                at + 1,
                line.trim()
            );
        }
    }
}
