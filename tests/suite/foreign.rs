//! What is no disk image of a known kind is refused by name, and a disk that is one of several is not written to.

use crate::demo::vmrescue;
use crate::oracle::{run, tool};
use std::path::Path;
use std::process::Output;
use vmrescue::image::Kind;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Every way in says what the file is, and leaves it as it was.
fn refused(file: &Path, what: &str) {
    let before = std::fs::read(file).unwrap();
    let image = file.to_str().unwrap();
    let out = file.with_extension("out.vhdx");
    for words in [
        vec!["info", image],
        vec!["diagnose", image],
        vec!["check", image],
        vec!["disk", "info", image],
        vec!["disk", "convert", image, out.to_str().unwrap(), "--format", "vhdx-dynamic"],
        vec!["repair", image, "--yes"],
        vec!["partition", "repair-boot-sector", image, "1", "--yes"],
    ] {
        let output = vmrescue(&words);
        assert_ne!(output.status.code(), Some(0), "{words:?}: {}", text(&output));
        assert!(text(&output).contains(what) || words[0] == "partition", "{words:?}: {}", text(&output));
    }
    assert!(std::fs::read(file).unwrap() == before && !out.exists());
}

#[test]
fn containers_of_others_are_not_taken_for_raw_disks() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("disk.raw");
    vmrescue::demo::build(&raw, Kind::Raw).unwrap();
    if let Some(mut qemu) = tool("qemu-img") {
        for (format, what) in [("vdi", "VirtualBox"), ("parallels", "Parallels"), ("qed", "QED")] {
            let file = dir.path().join(format!("disk.{format}"));
            run(qemu.args(["convert", "-O", format]).arg(&raw).arg(&file));
            refused(&file, what);
            qemu = tool("qemu-img").unwrap();
        }
    }
    if let Some(mut gzip) = tool("gzip") {
        run(gzip.arg("-1k").arg(&raw));
        refused(&dir.path().join("disk.raw.gz"), "gzip -dk");
    }
}

#[test]
fn an_archive_beside_an_image_is_no_child_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.vhdx");
    vmrescue::demo::build(&image, Kind::VhdxDynamic).unwrap();
    std::fs::write(dir.path().join("old.vhdx"), b"PK\x03\x04 an archive with the wrong name").unwrap();
    let output = vmrescue(&["mkdir", image.to_str().unwrap(), r"C:\new", "--yes"]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_disk_of_a_set_is_read_and_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.raw");
    vmrescue::demo::build_for(&image, Kind::Raw, vmrescue::windows::bcd::Firmware::Bios).unwrap();
    let mut bytes = std::fs::read(&image).unwrap();
    // The last partition of the MBR becomes one of a dynamic disk, as the first ones of such a disk are.
    let place = (0..4).rev().map(|entry| 446 + 16 * entry + 4).find(|place| bytes[*place] != 0).unwrap();
    bytes[place] = 0x42;
    std::fs::write(&image, &bytes).unwrap();
    let image_text = image.to_str().unwrap();
    for words in [
        vec!["mkdir", image_text, r"#1:\new", "--yes"],
        vec!["reg", "set", image_text, r"HKLM\SYSTEM\Select", "x", "REG_DWORD", "1", "--yes"],
    ] {
        let output = vmrescue(&words);
        assert_eq!(output.status.code(), Some(3), "{words:?}: {}", text(&output));
        assert!(text(&output).contains("dynamic disks"), "{}", text(&output));
    }
    assert!(std::fs::read(&image).unwrap() == bytes);
    assert!(vmrescue(&["info", image_text]).status.success());
}

#[cfg(unix)]
#[test]
fn a_pipe_with_the_name_of_an_image_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.vhdx");
    vmrescue::demo::build(&image, Kind::VhdxDynamic).unwrap();
    let pipe = dir.path().join("pipe.vhdx");
    run(std::process::Command::new("mkfifo").arg(&pipe));
    let made = vmrescue(&["mkdir", image.to_str().unwrap(), r"C:\new", "--yes"]);
    assert!(made.status.success(), "{}", text(&made));
    let info = vmrescue(&["info", pipe.to_str().unwrap()]);
    assert!(info.status.code() == Some(2) && text(&info).contains("not a disk"), "{}", text(&info));
}

/// Names of this machine that are no UTF-8, kinds and logs that do not exist, questions that nothing answers.
#[cfg(unix)]
#[test]
fn odd_names_and_wrong_words_are_answered_and_not_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"a\xff.vhdx"));
    vmrescue::demo::build(&odd, Kind::VhdxDynamic).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_vmrescue"))
        .args(["info", "--json"])
        .arg(&odd)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let plain = dir.path().join("disk.vhdx");
    std::fs::rename(&odd, &plain).unwrap();
    let image = plain.to_str().unwrap();
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let out = dir.path().join("out");
    for (words, code, part) in [
        (vec!["inspect", image, "--windows", "7"], 2, "installation"),
        (vec!["find", image, r"C:\", "--type", "x"], 2, "file"),
        (vec!["events", image, "--log", "Nope"], 2, "no such log"),
        (vec!["scripts", "--for", "xyzzy"], 1, "no script is about"),
        (vec!["info", "/nowhere/disk.vhdx"], 2, "cannot open /nowhere/disk.vhdx: No such file"),
        (
            vec!["batch", "diagnose", empty.to_str().unwrap(), "--out", out.to_str().unwrap()],
            2,
            "no disk images",
        ),
    ] {
        let output = vmrescue(&words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
        assert!(text(&output).contains(part), "{words:?}: {}", text(&output));
    }
    let found = vmrescue(&["find", image, r"C:\", "--type", "directory", "--name", "drivers"]);
    assert!(text(&found).contains(r"System32\drivers"), "{}", text(&found));
}
