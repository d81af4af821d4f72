//! What NTFS has besides names and data, through a mount in both directions: links, `system.ntfs_...`, holes. Needs /dev/fuse and
//! root; ntfs-3g shows what we wrote, and we show what it wrote.

use crate::mount::{NTFS_NAMES, assert_clean, attribute, fuse_is_here, mount, noise, theirs, volume};
use crate::oracle::{run, tool};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

fn set(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(path, format!("system.ntfs_{name}"), value, flags)
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    attribute(path, &format!("system.ntfs_{name}"))
}

fn remove(path: &Path, name: &str) -> rustix::io::Result<()> {
    rustix::fs::lremovexattr(path, format!("system.ntfs_{name}"))
}

/// A list of two extended attributes as it stands on the disk; the second one is needed.
fn list() -> Vec<u8> {
    let mut out = Vec::new();
    for (name, flags, value) in [("$LXUID", 0, &[7, 0, 0, 0][..]), ("NEEDED", 0x80, b"some longer value")] {
        let length: usize = 9 + name.len() + value.len();
        out.extend_from_slice(&(length.next_multiple_of(4) as u32).to_le_bytes());
        out.extend_from_slice(&[flags, name.len() as u8]);
        out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// Full control for everybody, with owner and group.
fn descriptor() -> Vec<u8> {
    let sid = |last: u32| [&[1, 2, 0, 0, 0, 0, 0, 5][..], &32u32.to_le_bytes(), &last.to_le_bytes()].concat();
    let everyone = [1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let ace = [&[0, 0, 20, 0, 0xFF, 1, 0x1F, 0][..], &everyone].concat();
    let list = [&[2, 0, 28, 0, 1, 0, 0, 0][..], &ace].concat();
    let mut out = vec![1, 0, 4, 0x80];
    for offset in [20u32, 36, 0, 52] {
        out.extend_from_slice(&offset.to_le_bytes());
    }
    [out, sid(544), sid(545), list].concat()
}

/// Sets everything on a file; what must then be read.
fn set_all(file: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let times: Vec<u8> =
        (1..=4u64).flat_map(|n| (0x01D5_0000_0000_0000 + n * 10_000_000).to_ne_bytes()).collect();
    let id: Vec<u8> = (1..=64).collect();
    let wanted = vec![
        ("acl", descriptor()),
        ("object_id", id),
        ("ea", list()),
        ("dos_name", b"SHORTN~7.TXT".to_vec()),
        ("attrib", 0x22u32.to_ne_bytes().to_vec()),
        ("times", times),
    ];
    for (name, value) in &wanted {
        set(file, name, value).unwrap_or_else(|e| panic!("{name} of {file:?}: {e}"));
    }
    wanted
}

#[test]
fn attributes_of_ntfs_are_set_in_both_directions() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 32) else { return };
    let (own, other) = (dir.path().join("ours"), dir.path().join("theirs"));
    let long = "a name that is too long.txt";

    // By ntfs-3g, read by us.
    let Some(writing) = theirs(&image, &other, "rw,user_xattr,streams_interface=xattr") else { return };
    std::fs::write(other.join(long), "theirs").unwrap();
    let mut by_them = set_all(&other.join(long));
    by_them.pop();
    let times = get(&other.join(long), "times").unwrap();
    symlink("nowhere/else", other.join("of interix")).unwrap();
    std::fs::create_dir(other.join("d")).unwrap();
    symlink("../a name that is too long.txt", other.join("d/up")).unwrap();
    drop(writing);
    assert_clean(&image);
    let ours = mount(&image, &own, &["--volume", "#1:"]);
    for (name, value) in by_them {
        assert_eq!(get(&own.join(long), name).unwrap(), value, "{name}");
    }
    assert_eq!(get(&own.join(long), "times").unwrap(), times);
    assert_eq!(std::fs::read_link(own.join("of interix")).unwrap(), Path::new("nowhere/else"));
    assert_eq!(std::fs::read(own.join("d/up")).unwrap(), b"theirs");
    let kinds: Vec<bool> = std::fs::read_dir(own.join("d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_type().unwrap().is_symlink())
        .collect();
    assert_eq!(kinds, [true]);
    ours.end();

    // By us, read by ntfs-3g.
    let ours = mount(&image, &own, &["--volume", "#1:", "--write", "--interval", "0"]);
    let file = own.join("another name that is too long.txt");
    std::fs::write(&file, "ours").unwrap();
    assert_eq!(set(&file, "object_id", &[1; 8]), Err(rustix::io::Errno::INVAL));
    // The other file has this short name in this directory, and this object id on the volume.
    assert_eq!(set(&file, "dos_name", b"SHORTN~7.TXT"), Err(rustix::io::Errno::EXIST));
    assert!(set(&file, "dos_name", b"much too long.txt").is_err() && set(&file, "acl", b"no").is_err());
    for name in ["dos_name", "object_id"] {
        remove(&own.join(long), name).unwrap();
        assert_eq!(get(&own.join(long), name), None);
        assert_eq!(remove(&own.join(long), name), Err(rustix::io::Errno::NODATA));
    }
    let wanted = set_all(&file);
    // The kernel keeps times by itself, and must learn of these.
    let seen = std::fs::metadata(&file).unwrap();
    assert_eq!((seen.mtime(), seen.mtime_nsec()), ntfs_time(0x01D5_0000_0000_0000 + 20_000_000));
    assert_eq!(remove(&file, "attrib"), Err(rustix::io::Errno::PERM));
    let create = rustix::fs::XattrFlags::CREATE;
    assert_eq!(rustix::fs::setxattr(&file, "system.ntfs_ea", &list(), create), Err(rustix::io::Errno::EXIST));
    remove(&own.join(long), "ea").unwrap();
    // A tag that nobody knows leaves the file a file.
    let point = [&0x8000_0042u32.to_le_bytes()[..], &[4, 0, 0, 0, 1, 2, 3, 4]].concat();
    set(&own.join(long), "reparse_data", &point).unwrap();
    // A link that comes as an attribute makes another kind of node of it.
    std::fs::write(own.join("turned"), "").unwrap();
    let link = vmrescue::fs::ntfs::symbolic_link(r"d\up", r"d\up", true).unwrap();
    set(&own.join("turned"), "reparse_data", &link).unwrap();
    assert!(std::fs::symlink_metadata(own.join("turned")).unwrap().is_symlink());
    assert_eq!(std::fs::read_link(own.join("turned")).unwrap(), Path::new("d/up"));
    for (name, value) in &wanted {
        assert_eq!(&get(&file, name).unwrap(), value, "{name}");
    }
    ours.end();
    assert_clean(&image);
    let Some(reading) = theirs(&image, &other, "ro,user_xattr,streams_interface=xattr") else { return };
    let ours = mount(&image, &own, &["--volume", "#1:"]);
    for (name, value) in &wanted {
        let found = get(&other.join("another name that is too long.txt"), name).unwrap();
        assert_eq!(&found, value, "{name}");
    }
    for path in [PathBuf::from(long), "another name that is too long.txt".into(), "turned".into()] {
        for name in NTFS_NAMES {
            assert_eq!(get(&own.join(&path), name), get(&other.join(&path), name), "{name} of {path:?}");
        }
    }
    drop(reading);
    ours.end();
}

fn ntfs_time(time: u64) -> (i64, i64) {
    let since_1601 = time as i64;
    (since_1601 / 10_000_000 - 11_644_473_600, since_1601 % 10_000_000 * 100)
}

fn long_ago() -> rustix::fs::Timestamps {
    let at = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    rustix::fs::Timestamps { last_access: at, last_modification: at }
}

#[test]
fn links_are_those_of_windows_and_programs_bring_them() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 96) else { return };
    let (own, other, source) =
        (dir.path().join("ours"), dir.path().join("theirs"), dir.path().join("source"));
    std::fs::create_dir_all(source.join("tree/deep/er")).unwrap();
    std::fs::write(source.join("tree/deep/file"), "content").unwrap();
    symlink("deep/file", source.join("tree/to a file")).unwrap();
    symlink("../deep", source.join("tree/deep/to a directory")).unwrap();
    // A name that is long and short at once.
    symlink("../deep", source.join("tree/deep/up")).unwrap();
    symlink("./deep/er", source.join("tree/dot")).unwrap();
    symlink("not/there", source.join("tree/dangling")).unwrap();
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(source.join("tree/deep/file"), "user.note", b"a stream", none).unwrap();
    let repository = source.join("repository");
    let shell = |text: &str| run(std::process::Command::new("sh").current_dir(&source).args(["-c", text]));
    if tool("git").is_some() {
        shell("git init -q -b main repository && cp -a tree repository/");
        shell("cd repository && git add . && git -c user.name=a -c user.email=b commit -qm c");
    }
    let ours = mount(&image, &own, &["--volume", "#1:", "--write", "--interval", "0"]);
    let to = own.display();
    shell(&format!("cp -a tree '{to}/copied'"));
    if tool("rsync").is_some() {
        shell(&format!("rsync -aX tree/ '{to}/synced/'"));
        let again = shell(&format!("rsync -aXin tree/ '{to}/synced/'"));
        assert_eq!(String::from_utf8_lossy(&again.stdout), "", "nothing is left to do");
    }
    shell(&format!("mkdir '{to}/unpacked' && tar c --xattrs tree | tar x --xattrs -C '{to}/unpacked'"));
    if tool("git").is_some() {
        shell(&format!("git clone -q --no-hardlinks '{}' '{to}/clone'", repository.display()));
        let status = shell(&format!("git -C '{to}/clone' -c core.fileMode=false status --porcelain"));
        assert_eq!(String::from_utf8_lossy(&status.stdout), "");
    }
    // Absolute ones: into the mount, and away from it.
    symlink(own.join("copied/deep"), own.join("inside")).unwrap();
    assert_eq!(std::fs::read_link(own.join("inside")).unwrap(), Path::new("copied/deep"));
    let refused = |target: &str| symlink(target, own.join("refused")).unwrap_err().raw_os_error();
    let invalid = Some(rustix::io::Errno::INVAL.raw_os_error());
    assert_eq!([refused("/etc/passwd"), refused("a:b"), refused(r"a\b")], [invalid; 3]);
    // A link that is there before its directory.
    symlink("comes later", own.join("early")).unwrap();
    std::fs::create_dir(own.join("folder")).unwrap();
    symlink("../comes later", own.join("folder/early")).unwrap();
    let set =
        |path: &Path| rustix::fs::utimensat(rustix::fs::CWD, path, &long_ago(), rustix::fs::AtFlags::empty());
    set(&own.join("folder")).unwrap();
    std::fs::create_dir(own.join("comes later")).unwrap();
    std::fs::write(own.join("early/x"), "through the link").unwrap();
    assert_eq!(std::fs::read_link(own.join("early")).unwrap(), Path::new("comes later"));
    ours.end();
    assert_clean(&image);

    let Some(reading) = theirs(&image, &other, "ro,user_xattr,streams_interface=xattr") else { return };
    let ours = mount(&image, &own, &["--volume", "#1:"]);
    for (place, cloned) in
        [("copied", false), ("synced", false), ("unpacked/tree", false), ("clone/tree", true)]
    {
        if !own.join(place).exists() {
            continue;
        }
        for root in [&own, &other] {
            let at = root.join(place);
            assert_eq!(std::fs::read(at.join("to a file")).unwrap(), b"content", "{at:?}");
            assert_eq!(std::fs::read_link(at.join("to a file")).unwrap(), Path::new("deep/file"));
            assert_eq!(std::fs::read(at.join("deep/to a directory/file")).unwrap(), b"content", "{at:?}");
            assert_eq!(std::fs::read_link(at.join("deep/up")).unwrap(), Path::new("../deep"), "{at:?}");
            let note = attribute(&at.join("deep/file"), "user.note");
            assert_eq!(note.as_deref(), (!cloned).then_some(&b"a stream"[..]), "{at:?}");
        }
        let at = own.join(place);
        assert_eq!(std::fs::read_link(at.join("dangling")).unwrap(), Path::new("not/there"));
        if !cloned {
            assert_eq!(std::fs::read_link(at.join("dot")).unwrap(), Path::new("./deep/er"));
        }
    }
    assert_eq!(std::fs::read(other.join("inside/file")).unwrap(), b"content");
    assert_eq!(std::fs::read(other.join("early/x")).unwrap(), b"through the link");
    let kept = std::fs::metadata(own.join("folder")).unwrap().mtime();
    assert_eq!(kept, long_ago().last_modification.tv_sec, "settling a link is not seen in its directory");
    // Windows tells the two kinds of links apart: the directory bit.
    let listed = |path: &str| {
        let out = run(std::process::Command::new(env!("CARGO_BIN_EXE_vmrescue"))
            .args(["stat", "--json"])
            .arg(&image)
            .arg(format!(r"#1:\{path}")));
        let facts: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(facts["kind"], "reparse");
        facts["attributes"].as_u64().unwrap() & 0x10 != 0
    };
    assert!(listed(r"folder\early"));
    let kinds = ["early", "inside", r"copied\deep\to a directory", r"copied\to a file"].map(listed);
    assert_eq!(kinds, [true, true, true, false]);
    drop(reading);
    ours.end();
}

/// Whoever opens a file after its times were set by an attribute gets it, and keeps it while others look.
#[test]
fn a_file_whose_times_were_set_is_opened_and_kept() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 16) else { return };
    let own = dir.path().join("ours");
    let ours = mount(&image, &own, &["--volume", "#1:", "--write", "--interval", "0"]);
    let (folder, file) = (own.join("folder"), own.join("folder/file"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&file, "first").unwrap();
    let times = |n: u64| -> Vec<u8> {
        (1..=4u64).flat_map(|k| (0x01D5_0000_0000_0000 + (n + k) * 10_000_000).to_ne_bytes()).collect()
    };
    let modified = |n: u64| ntfs_time(0x01D5_0000_0000_0000 + (n + 2) * 10_000_000);
    let seen = |path: &Path| std::fs::metadata(path).map(|m| (m.mtime(), m.mtime_nsec())).unwrap();
    for n in 0..8 {
        set(&file, "times", &times(n)).unwrap();
        let opened = std::fs::File::open(&file).unwrap();
        assert_eq!(opened.metadata().unwrap().len(), 5, "fstat of what was just opened");
        drop(opened);
        assert_eq!(seen(&file), modified(n));
        set(&folder, "times", &times(n)).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(seen(&folder), modified(n));
    }
    // While somebody has it open, and writes.
    let writing = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    writing.write_all_at(b"other", 0).unwrap();
    set(&file, "times", &times(20)).unwrap();
    for _ in 0..3 {
        assert!(std::fs::read_dir(&folder).unwrap().all(|entry| entry.unwrap().metadata().is_ok()));
    }
    writing.write_all_at(b"third", 0).unwrap();
    writing.sync_all().unwrap();
    drop(writing);
    assert_eq!(std::fs::read(&file).unwrap(), b"third");
    ours.end();
    assert_clean(&image);
}

/// What a program sees of a new file is what is on the disk: nobody sends its times once more.
#[test]
fn times_that_were_seen_are_the_times_on_the_disk() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 32) else { return };
    let own = dir.path().join("own");
    let mounted = mount(&image, &own, &["--volume", "#1:", "--write"]);
    let name = |number: usize| own.join(format!("f{number}"));
    for number in 0..200 {
        std::fs::write(name(number), vec![7; number * 20]).unwrap();
    }
    // Written again, in the same tick or much later; cut; renamed; given another time first.
    for number in 0..20 {
        let file = std::fs::OpenOptions::new().append(true).open(name(number)).unwrap();
        (&file).write_all(b"more").unwrap();
        rustix::fs::utimensat(rustix::fs::CWD, name(20 + number), &long_ago(), rustix::fs::AtFlags::empty())
            .unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    for number in 30..50 {
        let file = std::fs::OpenOptions::new().append(true).open(name(number)).unwrap();
        (&file).write_all(b"later").unwrap();
        file.set_len(3).unwrap();
        std::fs::rename(name(number), own.join(format!("renamed {number}"))).unwrap();
    }
    let seen = || {
        let all = std::fs::read_dir(&own).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let facts = std::fs::metadata(entry.path()).unwrap();
            (entry.file_name(), (facts.len(), facts.mtime(), facts.mtime_nsec()))
        });
        all.collect::<std::collections::BTreeMap<_, _>>()
    };
    let written = seen();
    mounted.end();
    let mounted = mount(&image, &own, &["--volume", "#1:"]);
    let read = seen();
    assert_eq!(written.len(), 200);
    assert_eq!(read, written);
    mounted.end();
    assert_clean(&image);
}

/// A long listing that began before a change does not bring back what was then.
#[test]
fn a_listing_does_not_bring_old_names_back() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 32) else { return };
    let own = dir.path().join("own");
    let mounted = mount(&image, &own, &["--volume", "#1:", "--write", "--interval", "0"]);
    let name = |number: usize| own.join(format!("a file with a long name that fills the buffer {number:04}"));
    for number in 0..2000 {
        std::fs::write(name(number), "x").unwrap();
    }
    let mut listing = std::fs::read_dir(&own).unwrap();
    listing.next().unwrap().unwrap();
    std::fs::rename(name(1999), own.join("renamed")).unwrap();
    std::fs::hard_link(name(1), own.join("second")).unwrap();
    std::fs::remove_file(name(1998)).unwrap();
    assert!(listing.count() > 1900);
    for gone in [1998, 1999] {
        assert!(!name(gone).exists(), "{gone}");
        std::fs::OpenOptions::new().write(true).create_new(true).open(name(gone)).unwrap();
    }
    assert_eq!(std::fs::read(own.join("renamed")).unwrap(), b"x");
    assert_eq!(std::fs::read(name(1999)).unwrap(), b"");
    mounted.end();
    assert_clean(&image);
}

/// A file whose record is damaged is in its directory, and whoever copies the directory is told.
#[test]
fn what_cannot_be_read_is_listed() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 16) else { return };
    let own = dir.path().join("own");
    let mounted = mount(&image, &own, &["--volume", "#1:", "--write"]);
    for name in ["before", "torn record", "behind"] {
        std::fs::write(own.join(name), "content").unwrap();
    }
    mounted.end();
    let mut bytes = std::fs::read(&image).unwrap();
    let name: Vec<u8> = "torn record".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut torn = 0;
    for record in bytes.chunks_mut(1024).filter(|record| record.starts_with(b"FILE")) {
        let is_root = record[44..48] == 5u32.to_le_bytes();
        if !is_root && record.windows(name.len()).any(|part| part == name) {
            record[510] ^= 0xff;
            torn += 1;
        }
    }
    assert_eq!(torn, 1);
    std::fs::write(&image, bytes).unwrap();
    let mounted = mount(&image, &own, &["--volume", "#1:"]);
    let names =
        || std::fs::read_dir(&own).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names().any(|name| name == "torn record"), "{:?}", names().collect::<Vec<_>>());
    let error = std::fs::metadata(own.join("torn record")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&own).arg(dir.path().join("copy")).output().unwrap();
    assert!(!copied.status.success() && String::from_utf8_lossy(&copied.stderr).contains("torn record"));
    assert_eq!(std::fs::read(dir.path().join("copy/behind")).unwrap(), b"content");
    mounted.end();
}

/// Root's own mount leaves modes to us.
#[test]
fn access_is_what_can_be_done() {
    use rustix::fs::{Access, access};
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 32) else { return };
    let own = dir.path().join("own");
    let mounted = mount(&image, &own, &["--volume", "#1:", "--write"]);
    let file = own.join("file");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    assert!(access(&file, Access::READ_OK | Access::WRITE_OK).is_ok());
    assert_eq!(access(&file, Access::EXEC_OK), Err(rustix::io::Errno::ACCESS));
    assert!(access(&own, Access::EXEC_OK).is_ok());
    assert!(std::process::Command::new(&file).status().is_err(), "no mode says that it is a program");
    mounted.end();
    let mounted = mount(&image, &own, &["--volume", "#1:", "--umask", "022"]);
    assert!(access(&file, Access::EXEC_OK).is_ok());
    assert_eq!(access(&file, Access::WRITE_OK), Err(rustix::io::Errno::ROFS));
    assert_eq!(
        std::fs::write(&file, "x").unwrap_err().raw_os_error(),
        Some(rustix::io::Errno::ROFS.raw_os_error())
    );
    mounted.end();
}

#[test]
fn holes_are_made_and_kept() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 64) else { return };
    let (own, other) = (dir.path().join("ours"), dir.path().join("theirs"));
    let ours = mount(&image, &own, &["--volume", "#1:", "--write", "--interval", "0"]);
    let file = |name: &str| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(own.join(name))
            .unwrap()
    };
    use rustix::fs::{FallocateFlags, fallocate};
    let content = noise(3 << 20, 5);
    let punched = file("punched");
    punched.write_all_at(&content, 0).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&punched, hole, 100_000, 2_000_000).unwrap();
    fallocate(&punched, FallocateFlags::ZERO_RANGE, 3_000_000, 400_000).unwrap();
    assert_eq!(
        fallocate(&punched, FallocateFlags::COLLAPSE_RANGE, 0, 4096),
        Err(rustix::io::Errno::OPNOTSUPP)
    );
    let mut expected = content.clone();
    expected[100_000..2_100_000].fill(0);
    expected[3_000_000..].fill(0);
    expected.resize(3_400_000, 0);
    // Far behind the end, by writing and by growing: more than the volume has.
    let far = file("far");
    far.write_all_at(b"begin", 0).unwrap();
    far.write_all_at(b"end", 10 << 30).unwrap();
    far.sync_all().unwrap();
    far.write_all_at(b"middle", 5 << 30).unwrap();
    let grown = file("grown");
    grown.set_len(1 << 40).unwrap();
    // Room that is asked for is taken.
    let reserved = file("reserved");
    fallocate(&reserved, FallocateFlags::empty(), 0, 5 << 20).unwrap();
    for file in [&punched, &far, &grown, &reserved] {
        file.sync_all().unwrap();
    }
    let taken = |root: &Path, name: &str| std::fs::metadata(root.join(name)).unwrap().blocks() * 512;
    drop((punched, far, grown, reserved));
    ours.end();
    assert_clean(&image);
    let Some(reading) = theirs(&image, &other, "ro") else { return };
    let ours = mount(&image, &own, &["--volume", "#1:"]);
    for root in [&own, &other] {
        assert!(std::fs::read(root.join("punched")).unwrap() == expected, "{root:?}");
        let far = std::fs::File::open(root.join("far")).unwrap();
        let mut bytes = [0; 16];
        for (at, text) in [(0u64, &b"begin"[..]), (5 << 30, b"middle"), ((10 << 30) - 13, b"end")] {
            far.read_at(&mut bytes, at).unwrap();
            assert!(bytes.windows(text.len()).any(|part| part == text), "{root:?} {at:#x}");
        }
        assert_eq!(std::fs::metadata(root.join("grown")).unwrap().len(), 1 << 40);
        assert!(
            taken(root, "punched") < 2 << 20 && taken(root, "far") < 1 << 20 && taken(root, "grown") == 0
        );
        assert!(taken(root, "reserved") >= 5 << 20);
    }
    drop(reading);
    ours.end();
}

#[test]
fn fat_has_none_of_it() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d.vhdx");
    vmrescue::demo::build(&image, vmrescue::image::Kind::VhdxDynamic).unwrap();
    let own = dir.path().join("m");
    let ours = mount(&image, &own, &["--volume", "esp:", "--write"]);
    let file = own.join("file");
    std::fs::write(&file, "content").unwrap();
    let unsupported = rustix::io::Errno::OPNOTSUPP;
    assert_eq!(
        symlink("file", own.join("link")).unwrap_err().raw_os_error(),
        Some(unsupported.raw_os_error())
    );
    assert!(!own.join("link").exists());
    for (name, value) in set_values() {
        assert_eq!(set(&file, name, &value), Err(unsupported), "{name}");
    }
    let none = rustix::fs::XattrFlags::empty();
    assert_eq!(rustix::fs::setxattr(&file, "user.x", b"y", none), Err(unsupported));
    let handle = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    assert_eq!(rustix::fs::fallocate(&handle, hole, 0, 4), Err(unsupported));
    drop(handle);
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
    ours.end();
}

fn set_values() -> Vec<(&'static str, Vec<u8>)> {
    let times = vec![1; 32];
    vec![
        ("acl", descriptor()),
        ("object_id", vec![3; 16]),
        ("ea", list()),
        ("dos_name", b"SHORT".to_vec()),
        ("attrib", vec![0x20, 0, 0, 0]),
        ("times", times),
        ("reparse_data", vec![1; 12]),
    ]
}

#[test]
fn the_last_changes_wait_for_room_on_the_host() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 16) else { return };
    let host = dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    run(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&host));
    let result = std::panic::catch_unwind(|| {
        let copy = host.join("volume.raw");
        run(std::process::Command::new("cp").arg("--sparse=always").arg(&image).arg(&copy));
        let before = std::fs::read(&copy).unwrap();
        let own = dir.path().join("m");
        let data = noise(2 << 20, 8);
        let fill = || {
            let file = std::fs::File::create(host.join("filler")).unwrap();
            let mut at = 0;
            while file.write_all_at(&[1; 65536], at).is_ok() {
                at += 65536;
            }
        };
        let begin = |name: &str| {
            let more = ["--volume", "#1:", "--write", "--interval", "0", "--json"];
            let mut ours = Told::begin(&copy, &own, &more);
            fill();
            std::fs::write(own.join(name), &data).unwrap();
            run(std::process::Command::new("fusermount3").arg("-u").arg(&own));
            assert_eq!(ours.next()["event"], "failed");
            let waiting = ours.next();
            assert_eq!(waiting["event"], "waiting");
            assert!(waiting["staged_bytes"].as_u64().unwrap() >= 2 << 20);
            ours
        };
        // Given up: said, and the image is as it was.
        let mut ours = begin("lost");
        run(std::process::Command::new("kill").arg("-TERM").arg(ours.child.id().to_string()));
        assert_eq!(ours.child.wait().unwrap().code(), Some(2));
        let rest: Vec<_> = std::iter::from_fn(|| ours.maybe_next()).collect();
        let last = rest.iter().find(|line| line["event"] == "unmounted").unwrap();
        assert_eq!(last["complete"], false);
        std::fs::remove_file(host.join("filler")).unwrap();
        assert!(std::fs::read(&copy).unwrap() == before);
        // Room comes: nothing is lost.
        let mut ours = begin("kept");
        std::fs::remove_file(host.join("filler")).unwrap();
        assert!(ours.child.wait().unwrap().success());
        assert_clean(&copy);
        let ours = mount(&copy, &own, &["--volume", "#1:"]);
        assert!(std::fs::read(own.join("kept")).unwrap() == data && !own.join("lost").exists());
        ours.end();
    });
    run(std::process::Command::new("umount").arg(&host));
    result.unwrap();
}

/// A mount whose events are read.
struct Told {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Told {
    fn begin(image: &Path, dir: &Path, more: &[&str]) -> Told {
        std::fs::create_dir_all(dir).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vmrescue"));
        command.arg("mount").arg(image).arg(dir).args(more).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        let mut told = Told { child, lines: std::io::BufRead::lines(std::io::BufReader::new(out)) };
        assert_eq!(told.next()["event"], "mounted");
        told
    }

    fn maybe_next(&mut self) -> Option<serde_json::Value> {
        // Some lines of other kinds come at the end: the error as a document.
        self.lines.by_ref().map_while(Result::ok).find_map(|line| serde_json::from_str(&line).ok())
    }

    fn next(&mut self) -> serde_json::Value {
        self.maybe_next().unwrap()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

#[test]
fn events_are_told_as_documented() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 16) else { return };
    let own = dir.path().join("m");
    let mut ours = Told::begin(&image, &own, &["--volume", "#1:", "--write", "--interval", "0", "--json"]);
    std::fs::write(own.join("file"), "content").unwrap();
    std::fs::File::open(&own).unwrap().sync_all().unwrap();
    let published = ours.next();
    assert_eq!(
        (published["schema"].as_str(), published["event"].as_str(), published["operation"].as_u64()),
        (Some("vmrescue.mount/1"), Some("published"), Some(1))
    );
    assert!(published["changes"].as_u64() > Some(1) && published["staged_bytes"].as_u64() > Some(0));
    std::fs::write(own.join("file"), "more").unwrap();
    // `sync` without a path tells a FUSE server nothing.
    run(&mut std::process::Command::new("sync"));
    run(std::process::Command::new("fusermount3").arg("-u").arg(&own));
    assert_eq!(ours.next()["operation"], 1, "a session is one operation");
    let last = ours.next();
    assert_eq!((last["event"].as_str(), last["complete"].as_bool()), (Some("unmounted"), Some(true)));
    assert!(ours.child.wait().unwrap().success() && ours.maybe_next().is_none());
}
