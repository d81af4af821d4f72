//! The mount against ntfs-3g's own and against the programs that people use on a file system. Needs /dev/fuse and root.

use crate::oracle::{run, skipped, tool};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that holds a mount; taken away when it goes out of scope.
pub(crate) struct Mounted {
    child: Child,
    pub(crate) dir: PathBuf,
}

pub(crate) fn vmrescue() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vmrescue"))
}

pub(crate) fn fuse_is_here() -> bool {
    let here = Path::new("/dev/fuse").exists() && rustix::process::getuid().is_root();
    if !here {
        skipped("mounting needs /dev/fuse and root");
    }
    here
}

/// Mounts an image and waits until it is there.
pub(crate) fn mount(image: &Path, dir: &Path, more: &[&str]) -> Mounted {
    std::fs::create_dir_all(dir).unwrap();
    let mut child =
        vmrescue().arg("mount").arg(image).arg(dir).args(more).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("mounted"), "{line}");
    Mounted { child, dir: dir.to_path_buf() }
}

impl Mounted {
    /// Takes the mount away from outside; the process must end well.
    pub(crate) fn end(mut self) {
        self.take_away();
        assert!(self.child.wait().unwrap().success());
    }

    /// Unmounts. Programs that other tests start hold copies of our files until they begin to run.
    fn take_away(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        while !Command::new("fusermount3").arg("-u").arg(&self.dir).output().unwrap().status.success() {
            assert!(Instant::now() < end, "the mount stays");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As a loss of power for the process; the kernel's half is taken away.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Whoever writes there still holds a file for a moment.
        self.take_away();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = self.child.try_wait();
        let _lazily = Command::new("fusermount3").args(["-u", "-z", "-q"]).arg(&self.dir).output();
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// A mount by ntfs-3g: the process, and where it is.
pub(crate) struct Theirs(Child, PathBuf);

pub(crate) fn theirs(image: &Path, dir: &Path, options: &str) -> Option<Theirs> {
    std::fs::create_dir_all(dir).unwrap();
    let mut command = tool("ntfs-3g")?;
    command.args(["-o", &format!("{options},no_detach")]).arg(image).arg(dir);
    // It says much; a pipe that nobody reads would stop it.
    let said = dir.with_extension("log");
    let mut child = command.stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap();
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    while device(dir) == device(dir.parent().unwrap()) {
        if child.try_wait().unwrap().is_some() {
            panic!("{command:?}: {}", std::fs::read_to_string(&said).unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(Theirs(child, dir.to_path_buf()))
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // The last file that was closed is still held for a moment.
        let unmounted = (0..100).any(|_| {
            let done =
                Command::new("umount").arg(&self.1).output().is_ok_and(|output| output.status.success());
            if !done {
                std::thread::sleep(Duration::from_millis(50));
            }
            done
        });
        if !unmounted {
            let _lazily = Command::new("umount").arg("-l").arg(&self.1).output();
            let _killed = self.0.kill();
        }
        // It writes after umount has returned, and holds the image until it ends.
        let _ended = self.0.wait();
    }
}

/// An NTFS volume without a partition table.
pub(crate) fn volume(dir: &Path, mebibytes: u64) -> Option<PathBuf> {
    let image = dir.join("volume.raw");
    std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
    run(tool("mkntfs")?.args(["-F", "-Q", "-q", "-L", "Data"]).arg(&image));
    Some(image)
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    kind: &'static str,
    content: Vec<u8>,
    links: u64,
    modified: (i64, i64),
    attributes: BTreeMap<String, Vec<u8>>,
}

pub(crate) const NTFS_NAMES: [&str; 10] = [
    "attrib",
    "attrib_be",
    "acl",
    "times",
    "times_be",
    "crtime",
    "reparse_data",
    "object_id",
    "dos_name",
    "ea",
];

pub(crate) fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 65536];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn seen(path: &Path) -> Seen {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let (kind, content) = if meta.is_dir() {
        ("directory", Vec::new())
    } else if meta.is_symlink() {
        ("link", Vec::new())
    } else {
        let content = std::fs::read(path).unwrap();
        assert_eq!(content.len() as u64, meta.len());
        ("file", content)
    };
    let mut attributes = BTreeMap::new();
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let listed = String::from_utf8(list[..length].to_vec()).unwrap();
    let user = listed.split('\0').filter(|name| name.starts_with("user.")).map(str::to_string);
    for name in user.chain(NTFS_NAMES.iter().map(|name| format!("system.ntfs_{name}"))) {
        if let Some(value) = attribute(path, &name) {
            attributes.insert(name, value);
        }
    }
    let links = if meta.is_dir() { 0 } else { meta.nlink() };
    Seen { kind, content, links, modified: (meta.mtime(), meta.mtime_nsec()), attributes }
}

/// Everything below a directory, by its path.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut all, mut pending) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(at) = pending.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let facts = seen(&path);
            if facts.kind == "directory" {
                pending.push(path.clone());
            }
            all.insert(path.strip_prefix(root).unwrap().to_path_buf(), facts);
        }
    }
    all
}

pub(crate) fn assert_same(ours: &BTreeMap<PathBuf, Seen>, theirs: &BTreeMap<PathBuf, Seen>) {
    let names = |all: &BTreeMap<PathBuf, Seen>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(theirs));
    for (path, one) in ours {
        let other = &theirs[path];
        assert!(one.content == other.content, "{path:?}: the content differs");
        let short = |seen: &Seen| (seen.kind, seen.links, seen.modified, seen.attributes.clone());
        assert_eq!(short(one), short(other), "{path:?}");
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The checkers of both sides find nothing wrong.
pub(crate) fn assert_clean(image: &Path) {
    let checked = vmrescue().arg("check").arg(image).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    if let Some(mut ntfsfix) = tool("ntfsfix") {
        run(ntfsfix.arg("-n").arg(image));
    }
}

#[test]
fn the_tree_is_the_one_that_ntfs_3g_shows() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 64) else { return };
    let other = dir.path().join("theirs");
    let Some(writing) = theirs(&image, &other, "rw,compression,user_xattr") else { return };
    std::fs::create_dir_all(other.join("Ein Ordner/unter Ordner")).unwrap();
    std::fs::write(other.join("klein.txt"), "resident").unwrap();
    std::fs::write(other.join("Ein Ordner/groß.bin"), noise(3_000_000, 5)).unwrap();
    std::fs::write(other.join("leer"), "").unwrap();
    std::fs::hard_link(other.join("klein.txt"), other.join("Ein Ordner/zweiter Name.txt")).unwrap();
    std::fs::write(other.join(format!("{}.x", "n".repeat(250))), "long").unwrap();
    let sparse = std::fs::File::create(other.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 5_000_000).unwrap();
    drop(sparse);
    std::fs::create_dir(other.join("packed")).unwrap();
    let compressed = 0x800u32.to_ne_bytes();
    rustix::fs::setxattr(
        other.join("packed"),
        "system.ntfs_attrib",
        &compressed,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    std::fs::write(other.join("packed/text"), "compressible ".repeat(40_000)).unwrap();
    std::fs::create_dir(other.join("many")).unwrap();
    for number in 0..1500 {
        std::fs::write(other.join(format!("many/file {number}")), number.to_string()).unwrap();
    }
    for (name, value) in [("user.Zone.Identifier", &b"[ZoneTransfer]"[..]), ("user.big", &[7; 20_000][..])] {
        rustix::fs::setxattr(other.join("klein.txt"), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    drop(writing);

    let before = std::fs::read(&image).unwrap();
    let Some(reading) = theirs(&image, &other, "ro,user_xattr") else { return };
    let ours = mount(&image, &dir.path().join("ours"), &["--volume", "#1:"]);
    let (own, expected) = (tree(&ours.dir), tree(&other));
    assert!(
        expected.len() > 1510 && own[Path::new("packed/text")].attributes["system.ntfs_attrib"][1] & 8 != 0
    );
    assert_same(&own, &expected);
    assert_eq!(own[Path::new("klein.txt")].attributes["user.big"].len(), 20_000);

    // Streams by their path, names in another case, nothing can be written.
    assert_eq!(std::fs::read(ours.dir.join("KLEIN.TXT:zone.identifier")).unwrap(), b"[ZoneTransfer]");
    assert_eq!(std::fs::read(ours.dir.join("EIN ORDNER/Zweiter name.TXT")).unwrap(), b"resident");
    assert!(!ours.dir.join("klein.txt:nothing").exists());
    assert!(std::fs::write(ours.dir.join("new"), "x").is_err());
    let space = rustix::fs::statvfs(&ours.dir).unwrap();
    let their_space = rustix::fs::statvfs(&other).unwrap();
    assert_eq!(space.f_bfree * space.f_frsize, their_space.f_bfree * their_space.f_frsize);
    drop(reading);
    ours.end();
    assert!(std::fs::read(&image).unwrap() == before, "looking changes nothing");
}

#[test]
fn a_disk_shows_its_volumes_links_and_registry() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d.vhdx");
    vmrescue::demo::build(&image, vmrescue::image::Kind::VhdxDynamic).unwrap();
    let ours =
        mount(&image, &dir.path().join("m"), &["--registry", "--json", "--umask", "027", "--uid", "7"]);
    let kernel = ours.dir.join("C/Windows/System32/ntoskrnl.exe");
    let through =
        vmrescue().arg("cat").arg(&image).arg(r"C:\Windows\System32\ntoskrnl.exe").output().unwrap();
    assert!(!through.stdout.is_empty() && std::fs::read(&kernel).unwrap() == through.stdout);
    let meta = std::fs::metadata(&kernel).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o750, 7));
    // The system partition is FAT.
    let names: Vec<String> = std::fs::read_dir(&ours.dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() > 2 && names.contains(&".registry".into()), "{names:?}");
    let store = names.iter().any(|name| ours.dir.join(name).join("efi/microsoft/BOOT/bcd").is_file());
    assert!(store, "{names:?}");
    let hives = ours.dir.join(".registry/HKLM");
    let select = std::fs::read_to_string(hives.join("SYSTEM/Select/Default")).unwrap();
    assert_eq!(select, "0x1 (1)\n");
    let kind = attribute(&hives.join("SYSTEM/Select/Default"), "user.registry.type").unwrap();
    assert_eq!(kind, b"REG_DWORD");
    assert_eq!(attribute(&hives.join("SYSTEM/select/default"), "user.registry.raw").unwrap(), [1, 0, 0, 0]);
    let product = hives.join("SOFTWARE/Microsoft/Windows NT/CurrentVersion/ProductName");
    assert!(std::fs::read_to_string(product).unwrap().starts_with("Windows"));
    assert!(std::fs::read_dir(ours.dir.join(".registry/BCD/Objects")).unwrap().count() > 1);
    assert!(std::fs::write(hives.join("SYSTEM/new"), "x").is_err());
    ours.end();
}

#[test]
fn what_cannot_be_mounted_is_refused_with_a_reason() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 16) else { return };
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("x"), "").unwrap();
    let refused = |args: &[&str], at: &Path| {
        let output = vmrescue().arg("mount").arg(&image).arg(at).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, why) = refused(&[], &full);
    assert!(code == Some(2) && why.contains("not empty"), "{why}");
    let (code, why) = refused(&["--volume", "X:"], &dir.path().join("m"));
    assert!(code == Some(2) && why.contains("no volume X:"), "{why}");
    let ours = mount(&image, &dir.path().join("first"), &["--write"]);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (code, why) = refused(&["--write"], &empty);
    assert!(code == Some(3) && why.contains("in use by another program"), "{why}");
    ours.end();
    // In the background the caller gets the same answers, and Ctrl-C and SIGTERM end it.
    let (code, why) = refused(&["--background"], &full);
    assert!(code == Some(2) && why.contains("not empty"), "{why}");
    let begun = run(vmrescue().arg("mount").arg(&image).arg(&empty).args(["--background", "--json"]));
    let line: serde_json::Value = serde_json::from_slice(&begun.stdout).unwrap();
    assert_eq!(
        (line["event"].as_str(), line["volumes"][0]["label"].as_str()),
        (Some("mounted"), Some("Data"))
    );
    assert!(std::fs::read_dir(empty.join("Data")).unwrap().next().is_none());
    run(Command::new("kill").arg("-TERM").arg(line["pid"].to_string()));
    let end = Instant::now() + Duration::from_secs(10);
    while std::fs::read_dir(&empty).map_or(1, Iterator::count) > 0 {
        assert!(Instant::now() < end, "SIGTERM ends the mount");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a plain directory of this machine holds, without what NTFS cannot express.
pub(crate) fn plain(root: &Path) -> BTreeMap<PathBuf, (bool, Vec<u8>)> {
    let all = tree(root);
    all.into_iter().map(|(path, seen)| (path, (seen.kind == "directory", seen.content))).collect()
}

/// The same through a mount by ntfs-3g.
pub(crate) fn assert_holds(image: &Path, at: &Path, expected: &BTreeMap<PathBuf, (bool, Vec<u8>)>) {
    let Some(reading) = theirs(image, at, "ro") else { return };
    let found = plain(at);
    drop(reading);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, content) in expected {
        assert!(&found[path] == content, "{path:?}: the content differs");
    }
}

pub(crate) fn history(image: &Path) -> Vec<serde_json::Value> {
    let output = run(vmrescue().arg("history").arg(image).arg("--json"));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    document["operations"].as_array().unwrap().clone()
}

#[test]
fn a_writable_mount_does_what_programs_ask_for_and_is_undone_in_one_go() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 96) else { return };
    let before = std::fs::read(&image).unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir_all(source.join("a/b")).unwrap();
    std::fs::write(source.join("a/text"), "line\nneedle\n").unwrap();
    std::fs::write(source.join("a/b/data.bin"), noise(700_001, 9)).unwrap();
    std::fs::write(source.join("a/b/empty"), "").unwrap();
    let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write", "--interval", "0"]);
    let at = ours.dir.clone();
    let words = |program: &str, args: &[&str]| {
        if let Some(mut command) = tool(program) {
            run(command.current_dir(&source).args(args));
        }
    };
    let inside = |name: &str| at.join(name).to_str().unwrap().to_string();
    words("cp", &["-a", "a", &inside("copied")]);
    words("rsync", &["-a", "a/", &inside("synced/")]);
    words("rsync", &["-a", "--delete", "--inplace", "a/", &inside("synced/")]);
    std::fs::create_dir(at.join("unpacked")).unwrap();
    words("sh", &["-c", &format!("tar cf - a | tar xf - -C {}", inside("unpacked"))]);
    words("grep", &["-r", "needle", &inside("unpacked")]);
    words("find", &[&inside(""), "-name", "data.bin", "-size", "+600k"]);
    words("git", &["init", "-q", "-b", "main", "repository"]);
    words(
        "sh",
        &[
            "-c",
            "cd repository && cp -r ../a . && git add . && git -c user.name=a -c user.email=b commit -qm c",
        ],
    );
    words("git", &["clone", "-q", "--no-hardlinks", "repository", &inside("clone")]);
    words("git", &["-C", &inside("clone"), "fsck", "--strict"]);
    std::fs::remove_dir_all(source.join("repository")).unwrap();

    // Names: replacing, refusing, exchanging, another case, links.
    std::fs::write(at.join("one"), "1").unwrap();
    std::fs::write(at.join("two"), "2").unwrap();
    let renamed = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(rustix::fs::CWD, at.join(from), rustix::fs::CWD, at.join(to), flags)
    };
    use rustix::fs::RenameFlags;
    assert_eq!(renamed("one", "two", RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    renamed("one", "two", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(std::fs::read(at.join("one")).unwrap(), b"2");
    renamed("one", "two", RenameFlags::empty()).unwrap();
    assert_eq!((std::fs::read(at.join("two")).unwrap(), at.join("one").exists()), (b"2".to_vec(), false));
    // Linux itself does nothing when both names lead to one file: another case takes two steps.
    renamed("two", "other", RenameFlags::empty()).unwrap();
    renamed("other", "TWO", RenameFlags::empty()).unwrap();
    std::fs::hard_link(at.join("TWO"), at.join("three")).unwrap();
    assert_eq!(std::fs::metadata(at.join("three")).unwrap().nlink(), 2);
    assert!(std::fs::rename(at.join("copied"), at.join("three")).is_err(), "a directory over a file");
    assert!(std::fs::rename(at.join("three"), at.join("copied")).is_err(), "a file over a directory");
    assert!(std::fs::remove_dir(at.join("copied")).is_err(), "a full directory");
    assert!(std::fs::write(at.join("what?"), "").is_err(), "no name on Windows");

    // A removed file that is open keeps its bytes, and its directory can go.
    std::fs::create_dir(at.join("gone")).unwrap();
    std::fs::write(at.join("gone/open"), noise(50_000, 3)).unwrap();
    let open = std::fs::OpenOptions::new().read(true).write(true).open(at.join("gone/open")).unwrap();
    std::fs::remove_file(at.join("gone/open")).unwrap();
    std::fs::remove_dir(at.join("gone")).unwrap();
    open.write_all_at(b"still", 0).unwrap();
    let mut kept = vec![0; 50_000];
    open.read_exact_at(&mut kept, 0).unwrap();
    assert!(kept[..5] == *b"still" && kept[5..] == noise(50_000, 3)[5..]);
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    drop(open);

    // Attributes: streams, DOS attributes, times, the write bit.
    let file = at.join("TWO");
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, "user.note", b"hello", none).unwrap();
    assert_eq!(std::fs::read(at.join("TWO:note")).unwrap(), b"hello");
    std::fs::write(at.join("TWO:second"), "by path").unwrap();
    assert_eq!(attribute(&file, "user.second").unwrap(), b"by path");
    rustix::fs::removexattr(&file, "user.note").unwrap();
    assert_eq!(attribute(&file, "user.note"), None);
    rustix::fs::setxattr(&file, "system.ntfs_attrib_be", &0x22u32.to_be_bytes(), none).unwrap();
    assert_eq!(attribute(&file, "system.ntfs_attrib_be").unwrap(), 0x22u32.to_be_bytes());
    let then = std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_700);
    let times = std::fs::FileTimes::new().set_modified(then).set_accessed(then);
    std::fs::File::options().write(true).open(&file).unwrap().set_times(times).unwrap();
    words("chmod", &["444", &inside("TWO")]);
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o444);
    words("chmod", &["644", &inside("TWO")]);

    std::fs::File::open(&file).unwrap().sync_all().unwrap();
    let synced = history(&image);
    assert!(!synced.is_empty(), "fsync publishes");
    std::fs::write(at.join("last"), "after the fsync").unwrap();
    let expected = plain(&at);
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(modified, then);
    ours.end();

    assert_clean(&image);
    assert!(
        expected.contains_key(Path::new("clone/a/b/data.bin")) && expected.contains_key(Path::new("TWO"))
    );
    assert_holds(&image, &dir.path().join("theirs"), &expected);
    let operations = history(&image);
    assert_eq!((synced.len(), operations.len()), (1, 1), "a session is one operation");
    let bytes = |operation: &serde_json::Value| operation["bytes_changed"].as_u64().unwrap();
    assert!(bytes(&operations[0]) > bytes(&synced[0]), "unmounting publishes");
    let after = std::fs::read(&image).unwrap();
    run(vmrescue().arg("undo").arg(&image).arg("--yes"));
    assert!(std::fs::read(&image).unwrap() == before, "byte for byte");
    run(vmrescue().arg("redo").arg(&image).arg("--yes"));
    assert!(std::fs::read(&image).unwrap() == after);
}

#[test]
fn a_scratch_mount_leaves_nothing() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 32) else { return };
    let before = std::fs::read(&image).unwrap();
    let ours = mount(&image, &dir.path().join("m"), &["--discard"]);
    let file = ours.dir.join("Data/file");
    std::fs::write(&file, noise(1_000_000, 1)).unwrap();
    std::fs::File::open(&file).unwrap().sync_all().unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), noise(1_000_000, 1));
    ours.end();
    assert!(std::fs::read(&image).unwrap() == before);
    assert!(history(&image).is_empty());
}

/// Random operations on the mount and on a plain directory, which must agree after each.
#[test]
fn random_operations_agree_with_a_plain_directory() {
    if !fuse_is_here() {
        return;
    }
    let steps: u64 =
        std::env::var("VMRESCUE_MOUNT_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(1500);
    let seed: u64 =
        std::env::var("VMRESCUE_MOUNT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(42);
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 64) else { return };
    let oracle = dir.path().join("oracle");
    std::fs::create_dir(&oracle).unwrap();
    let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write", "--interval", "1"]);
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let name = |n: u64| match n % 3 {
        0 => format!("f{}", n / 3),
        1 => format!("d{}/f{}", n % 2, n / 3),
        _ => format!("d{}", n % 4),
    };
    for step in 0..steps {
        let (what, a, b) = (random(13), name(random(24)), name(random(24)));
        let (offset, length, sort) = (random(200_000), random(60_000) as usize, random(1 << 30));
        let both = [&oracle, &ours.dir].map(|root| {
            let (one, two) = (root.join(&a), root.join(&b));
            let done: std::io::Result<Vec<u8>> = match what {
                0 | 1 => std::fs::write(&one, noise(length, sort)).map(|()| Vec::new()),
                2 | 3 => std::fs::OpenOptions::new()
                    .write(true)
                    .open(&one)
                    .and_then(|file| file.write_all_at(&noise(length, sort), offset))
                    .map(|()| Vec::new()),
                4 => std::fs::OpenOptions::new()
                    .write(true)
                    .open(&one)
                    .and_then(|file| file.set_len(offset))
                    .map(|()| Vec::new()),
                5 => std::fs::create_dir(&one).map(|()| Vec::new()),
                6 => std::fs::remove_file(&one).map(|()| Vec::new()),
                7 => std::fs::remove_dir(&one).map(|()| Vec::new()),
                8 => std::fs::rename(&one, &two).map(|()| Vec::new()),
                9 => std::fs::hard_link(&one, &two).map(|()| Vec::new()),
                10 => std::fs::File::open(&one).and_then(|file| file.sync_all()).map(|()| Vec::new()),
                11 => std::fs::metadata(&one).map(|meta| {
                    let (size, links) = if meta.is_dir() { (0, 0) } else { (meta.len(), meta.nlink()) };
                    format!("{size} {links} {}", meta.is_dir()).into_bytes()
                }),
                _ => std::fs::read(&one),
            };
            done.map_err(|e| e.raw_os_error())
        });
        let [expected, found] = both;
        assert!(
            expected == found,
            "step {step} of seed {seed}: {what} {a} {b}: {:?} {:?}",
            expected.as_ref().err(),
            found.as_ref().err()
        );
    }
    let expected = plain(&oracle);
    assert!(plain(&ours.dir) == expected);
    ours.end();
    assert_clean(&image);
    assert_holds(&image, &dir.path().join("theirs"), &expected);
}

/// A killed process leaves a disk that opens, with everything that was synced.
#[test]
fn a_killed_mount_keeps_what_was_synced() {
    if !fuse_is_here() {
        return;
    }
    let rounds: u64 =
        std::env::var("VMRESCUE_MOUNT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 64) else { return };
    for round in 0..rounds {
        let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write", "--interval", "1"]);
        let at = ours.dir.clone();
        let writer = std::thread::spawn(move || {
            let mut synced = 0;
            for number in 0..10_000u64 {
                let path = at.join(format!("round {round} file {}", number % 40));
                let written = std::fs::File::create(&path).and_then(|file| {
                    file.write_all_at(&noise(30_000, number), 0).and_then(|()| file.sync_all())
                });
                if written.is_err() {
                    break;
                }
                synced = number + 1;
            }
            synced
        });
        std::thread::sleep(Duration::from_millis(150 + 137 * round));
        ours.kill();
        let synced = writer.join().unwrap();
        run(vmrescue().arg("recover").arg(&image));
        assert_clean(&image);
        let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:"]);
        assert!(round == 0 || synced > 0, "nothing was written in time");
        for number in synced.saturating_sub(39)..synced {
            let content =
                std::fs::read(ours.dir.join(format!("round {round} file {}", number % 40))).unwrap();
            // The one that was being written may be the next already.
            assert!(content == noise(30_000, number) || number + 40 == synced, "file {number} of {synced}");
        }
        ours.end();
    }
}

#[test]
fn a_full_volume_and_a_full_host_lose_nothing() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The guest's volume is full.
    let Some(image) = volume(dir.path(), 16) else { return };
    let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write", "--interval", "0"]);
    std::fs::write(ours.dir.join("kept"), noise(100_000, 2)).unwrap();
    let full = std::fs::File::create(ours.dir.join("large"))
        .and_then(|file| file.write_all_at(&noise(20 << 20, 4), 0).and_then(|()| file.sync_all()));
    assert_eq!(full.unwrap_err().raw_os_error(), Some(28));
    assert_eq!(std::fs::read(ours.dir.join("kept")).unwrap(), noise(100_000, 2));
    std::fs::remove_file(ours.dir.join("large")).unwrap();
    std::fs::write(ours.dir.join("again"), noise(1 << 20, 6)).unwrap();
    let expected = plain(&ours.dir);
    ours.end();
    assert_clean(&image);
    assert_holds(&image, &dir.path().join("theirs"), &expected);

    // The host's disk is full: the journal finds no room.
    let host = dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&host));
    let result = std::panic::catch_unwind(|| {
        let image = host.join("volume.raw");
        run(Command::new("cp").arg("--sparse=always").arg(dir.path().join("volume.raw")).arg(&image));
        let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write", "--interval", "0"]);
        let filler = host.join("filler");
        let file = std::fs::File::create(&filler).unwrap();
        let mut at = 0;
        while file.write_all_at(&[1; 65536], at).is_ok() {
            at += 65536;
        }
        let data = noise(2 << 20, 8);
        let path = ours.dir.join("new");
        std::fs::write(&path, &data).unwrap();
        assert!(std::fs::File::open(&path).unwrap().sync_all().is_err(), "fsync says so");
        assert!(std::fs::read(&path).unwrap() == data, "still readable");
        drop(file);
        std::fs::remove_file(&filler).unwrap();
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
        ours.end();
        assert_clean(&image);
        let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:"]);
        assert!(std::fs::read(ours.dir.join("new")).unwrap() == data);
        ours.end();
    });
    run(Command::new("umount").arg(&host));
    result.unwrap();
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = volume(dir.path(), 96) else { return };
    let ours = mount(&image, &dir.path().join("m"), &["--volume", "#1:", "--write"]);
    let Some(mut fio) = tool("fio") else { return };
    run(fio.current_dir(dir.path()).arg(format!("--directory={}", ours.dir.display())).args([
        "--name=v",
        "--rw=randrw",
        "--bsrange=1k-64k",
        "--size=6m",
        "--numjobs=2",
        "--verify=crc32c",
        "--fsync=200",
        "--verify_fatal=1",
        "--ioengine=psync",
        "--group_reporting",
    ]));
    ours.end();
    assert_clean(&image);
}
