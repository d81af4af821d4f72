//! What POSIX asks of a file system, as far as NTFS can express it. The long form is `scripts/mount-posix.sh`; `docs/mount.md`
//! lists the exceptions. Needs /dev/fuse and root.

use crate::mount::{assert_clean, fuse_is_here, mount, theirs, volume};
use crate::oracle::{run, tool};
use rustix::io::Errno;
use std::path::Path;

/// One file under random operations of all kinds, also through memory; then verified by an independent reader.
#[test]
fn fsx_agrees_with_its_model() {
    if !fuse_is_here() {
        return;
    }
    let asked = |name, default: u64| -> u64 {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seed, steps) = (asked("VMRESCUE_MOUNT_SEED", 42), asked("VMRESCUE_MOUNT_STEPS", 1500));
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 64) else { return };
    let (own, other) = (dir.path().join("ours"), dir.path().join("theirs"));
    let ours = mount(&image, &own, &["--volume", "#1:", "--write", "--interval", "1"]);
    let Some(mut python) = tool("python3") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/fsx.py");
    run(python.arg(script).arg(own.join("file")).args([seed.to_string(), steps.to_string()]));
    let expected = std::fs::read(own.join("file.expected")).unwrap();
    ours.end();
    assert_clean(&image);
    let ours = mount(&image, &own, &["--volume", "#1:"]);
    assert!(std::fs::read(own.join("file")).unwrap() == expected);
    ours.end();
    let Some(reading) = theirs(&image, &other, "ro") else { return };
    assert!(std::fs::read(other.join("file")).unwrap() == expected);
    drop(reading);
}

#[test]
fn errors_are_those_of_posix() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 16) else { return };
    let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write"]);
    let at = |name: &str| ours.dir.join(name);
    std::fs::create_dir_all(at("dir/full")).unwrap();
    std::fs::write(at("file"), "").unwrap();
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    let (long, longest) = ("n".repeat(256), "ü".repeat(255));
    let code =
        |done: std::io::Result<()>| done.map_err(|e| Errno::from_raw_os_error(e.raw_os_error().unwrap()));
    let make = |name: &str| code(std::fs::write(at(name), ""));
    let link = |from: &str, to: &str| code(std::fs::hard_link(at(from), at(to)));
    let rename = |from: &str, to: &str| code(std::fs::rename(at(from), at(to)));
    let symlink = |to: &str, name: &str| code(std::os::unix::fs::symlink(to, at(name)));
    let node =
        |name: &str, kind| rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, rustix::fs::Mode::RWXU, 0);
    use rustix::fs::FileType;
    let table = [
        ("a long name", make(&long), Err(Errno::NAMETOOLONG)),
        ("the longest name", make(&longest), Ok(())),
        (
            "a long name that is looked up",
            code(std::fs::metadata(at(&long)).map(drop)),
            Err(Errno::NAMETOOLONG),
        ),
        ("a directory of a long name", code(std::fs::create_dir(at(&long))), Err(Errno::NAMETOOLONG)),
        ("a rename to a long name", rename("file", &long), Err(Errno::NAMETOOLONG)),
        ("a link of a long name", link("file", &long), Err(Errno::NAMETOOLONG)),
        ("a symbolic link of a long name", symlink("file", &long), Err(Errno::NAMETOOLONG)),
        ("a path through a file", make("file/x"), Err(Errno::NOTDIR)),
        ("a path through nothing", make("nothing/x"), Err(Errno::NOENT)),
        ("a path through a loop", make("loop/x"), Err(Errno::LOOP)),
        ("a name that is there", code(std::fs::create_dir(at("file"))), Err(Errno::EXIST)),
        ("the same in another case", code(std::fs::create_dir(at("FILE"))), Err(Errno::EXIST)),
        ("a link to a name that is there", link("file", "dir"), Err(Errno::EXIST)),
        ("a link to a directory", link("dir", "second"), Err(Errno::PERM)),
        ("a symbolic link to a name that is there", symlink("x", "file"), Err(Errno::EXIST)),
        ("a directory that is no file", code(std::fs::remove_file(at("dir"))), Err(Errno::ISDIR)),
        ("a file that is no directory", code(std::fs::remove_dir(at("file"))), Err(Errno::NOTDIR)),
        ("a directory that is not empty", code(std::fs::remove_dir(at("dir"))), Err(Errno::NOTEMPTY)),
        ("a directory over a full one", rename("dir/full", "dir"), Err(Errno::NOTEMPTY)),
        ("a directory into itself", rename("dir", "dir/full/dir"), Err(Errno::INVAL)),
        ("a directory over a file", rename("dir", "file"), Err(Errno::NOTDIR)),
        ("a file over a directory", rename("file", "dir"), Err(Errno::ISDIR)),
        ("a file over itself", rename("file", "file"), Ok(())),
        ("a name that Windows cannot have", make("a?"), Err(Errno::INVAL)),
        ("a link away", symlink("/etc", "etc"), Err(Errno::INVAL)),
        ("a pipe", node("pipe", FileType::Fifo), Err(Errno::PERM)),
        ("a socket", node("socket", FileType::Socket), Err(Errno::PERM)),
        ("a pipe of a long name", node(&long, FileType::Fifo), Err(Errno::NAMETOOLONG)),
        ("a plain file as a node", node("plain", FileType::RegularFile), Ok(())),
        (
            "a file that is too large",
            {
                let file = std::fs::File::options().write(true).open(at("file")).unwrap();
                code(file.set_len(1 << 45))
            },
            Err(Errno::INVAL),
        ),
    ];
    for (what, found, wanted) in table {
        assert_eq!(found, wanted, "{what}");
    }
    // A link to a file that has lost its last name.
    let open = std::fs::File::open(at("plain")).unwrap();
    std::fs::remove_file(at("plain")).unwrap();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let flags = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    let linked = rustix::fs::linkat(rustix::fs::CWD, Path::new(&again), rustix::fs::CWD, at("back"), flags);
    assert_eq!(linked, Err(Errno::NOENT));
    drop(open);
    ours.end();
    assert_clean(&image);
}

#[test]
fn fio_verifies_what_it_wrote_through_memory() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 64) else { return };
    let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write"]);
    let Some(mut fio) = tool("fio") else { return };
    let directory = format!("--directory={}", ours.dir.display());
    run(fio
        .current_dir(dir.path())
        .args([&directory, "--name=v", "--rw=randrw", "--bs=4k", "--size=8m"])
        .args(["--ioengine=mmap", "--verify=crc32c", "--fsync=500", "--verify_fatal=1"]));
    ours.end();
    assert_clean(&image);
}

#[test]
fn stress_ng_finds_nothing_wrong() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 128) else { return };
    let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write", "--interval", "1"]);
    let Some(mut stress) = tool("stress-ng") else { return };
    // Each some rounds, several at the same time; `--verify` looks at what comes back.
    let kinds =
        ["dentry", "dir", "fallocate", "hdd", "iomix", "link", "open", "rename", "symlink", "utime", "xattr"];
    stress.args([
        "--verify",
        "--timeout",
        "5",
        "--hdd-bytes",
        "4m",
        "--fallocate-bytes",
        "8m",
        "--iomix-bytes",
        "4m",
    ]);
    for kind in kinds {
        stress.args([format!("--{kind}"), "1".into(), format!("--{kind}-ops"), "60".into()]);
    }
    // By a relative path: absolute links into the mount become relative.
    run(stress.current_dir(dir.path()).args(["--temp-path", "m"]));
    let left: Vec<_> =
        std::fs::read_dir(&ours.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    ours.end();
    assert_clean(&image);
}
