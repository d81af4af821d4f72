//! What the NTFS writer makes, seen by ntfs-3g and its tools: on volumes that mkntfs and our own format made; the change
//! journal against a listing of Windows and on a volume of Windows; security against the package dissect.ntfs.

use crate::mount::{Theirs, fuse_is_here, theirs};
use crate::oracle::{corpus, run, skipped, tool};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vmrescue::block::{Disk, DiskMut, HostFile};
use vmrescue::fs::ntfs::usn::{self, reason};
use vmrescue::fs::ntfs::{FormatSpec, Volume, VolumeMut, WriteOptions, format, mount_point, symbolic_link};
use vmrescue::fs::security::Descriptor;
use vmrescue::fs::{
    Attributes, FileSystem, FileSystemMut, MetadataChange, NodeId, NodeKind, RawPart, Times, read_file,
};
use vmrescue::guid::Guid;
use vmrescue::progress::Silent;
use vmrescue::text::hex;
use vmrescue::time::FileTime;

fn disk(path: &Path) -> DiskMut {
    DiskMut::new(Arc::new(HostFile::open_write(path).unwrap()))
}

fn made_by_mkntfs(dir: &Path, cluster: u32) -> Option<PathBuf> {
    let path = dir.join(format!("mkntfs-{cluster}.img"));
    std::fs::File::create(&path).unwrap().set_len(48 << 20).unwrap();
    let cluster = cluster.to_string();
    run(tool("mkntfs")?
        .args(["-F", "-q", "-Q", "-s", "512", "-p", "0", "-H", "16", "-S", "63", "-c", &cluster])
        .arg(&path));
    Some(path)
}

fn made_by_us(dir: &Path, cluster: u32) -> PathBuf {
    let path = dir.join(format!("ours-{cluster}.img"));
    std::fs::File::create(&path).unwrap().set_len(48 << 20).unwrap();
    let spec = FormatSpec { cluster_bytes: Some(cluster), ..FormatSpec::default() };
    format(&disk(&path), &spec).unwrap();
    path
}

const ID: [u8; 16] = [0x11, 0x22, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn times() -> Times {
    let at = |n: u64| FileTime(0x01D9_0000_0000_0000 + n * 10_000_000);
    Times { created: at(1), modified: at(2), changed: at(3), accessed: at(4) }
}

/// Something of everything; returns the files with their content.
fn fill(volume: &mut VolumeMut) -> Vec<(String, Vec<u8>)> {
    let root = volume.root();
    let mut made = Vec::new();
    let tree = volume.create(root, "a directory with a long name", NodeKind::Directory).unwrap();
    for number in 0..400usize {
        let name = format!("file number {number}.data");
        let node = volume.create(tree, &name, NodeKind::File).unwrap();
        let data: Vec<u8> = (0..number * 37).map(|n| (n * number) as u8).collect();
        volume.write(node, "", 0, &data).unwrap();
        made.push((format!("a directory with a long name/{name}"), data));
    }
    for number in (0..400).step_by(3).rev() {
        let (name, _) = made.remove(number);
        volume.remove(tree, name.rsplit('/').next().unwrap()).unwrap();
    }
    let file = volume.create(root, "special", NodeKind::File).unwrap();
    let mut data = vec![7; 300_000];
    volume.write(file, "", 0, &data).unwrap();
    volume.punch(file, "", 70_000..200_000).unwrap();
    data[70_000..200_000].fill(0);
    for number in 0..20 {
        volume.write(file, &format!("stream {number}"), 0, &[number; 200]).unwrap();
    }
    volume.set_extended_attribute(file, "FIRST", Some(b"one")).unwrap();
    volume.set_extended_attribute(file, "SECOND", Some(&[2; 900])).unwrap();
    volume.set_object_id(file, Some(Guid(ID))).unwrap();
    volume.link(file, tree, "the same file").unwrap();
    let change = MetadataChange {
        attributes: Some(Attributes(Attributes::HIDDEN | Attributes::SYSTEM)),
        times: Some(times()),
        ..MetadataChange::default()
    };
    volume.set_metadata(file, &change).unwrap();
    made.push(("special".into(), data.clone()));
    made.push(("a directory with a long name/the same file".into(), data));
    let link = volume.create(root, "link", NodeKind::File).unwrap();
    volume.set_reparse(link, Some(&symbolic_link("special", "special", true).unwrap())).unwrap();
    let junction = volume.create(root, "junction", NodeKind::Directory).unwrap();
    volume.set_reparse(junction, Some(&mount_point(r"\??\C:\x", r"C:\x").unwrap())).unwrap();
    volume.sync().unwrap();
    made
}

fn node(volume: &dyn FileSystem, path: &str) -> NodeId {
    let parts: Vec<&str> = path.split('/').collect();
    vmrescue::fs::resolve(volume, &parts).unwrap().unwrap()
}

/// The volume in order for our checker and the tools of ntfs-3g.
fn in_order(path: &Path) -> Option<Volume> {
    assert_eq!(VolumeMut::open(disk(path)).unwrap().check(&Silent).unwrap(), [], "{}", path.display());
    run(tool("ntfsfix")?.arg("-n").arg(path));
    run(tool("ntfsinfo")?.arg("-m").arg(path));
    let audit = run(tool("ntfssecaudit")?.arg("-a").arg(path));
    let said = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(said.contains("No errors were found"), "{}: {said}", path.display());
    Some(Volume::open(Disk::new(Arc::new(HostFile::open_read(path).unwrap()))).unwrap())
}

/// A volume that ntfs-3g has mounted, read-only.
struct Mounted(PathBuf, #[expect(dead_code, reason = "unmounts when dropped")] Theirs);

impl Mounted {
    fn new(image: &Path, dir: &Path) -> Option<Mounted> {
        if !fuse_is_here() {
            return None;
        }
        let point = dir.join("mounted");
        let mount = theirs(image, &point, "ro,streams_interface=windows")?;
        Some(Mounted(point, mount))
    }

    fn attribute(&self, path: &str, name: &str) -> Vec<u8> {
        let file = self.0.join(path);
        run(Command::new("getfattr").args(["-h", "--only-values", "-n", name]).arg(file)).stdout
    }
}

#[test]
fn ntfs_3g_reads_what_we_write() {
    if tool("getfattr").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for cluster in [512, 4096] {
        let Some(theirs) = made_by_mkntfs(dir.path(), cluster) else { return };
        for image in [theirs, made_by_us(dir.path(), cluster)] {
            let options = WriteOptions { short_names: Some(true), ..WriteOptions::default() };
            let mut volume = VolumeMut::open_with(disk(&image), options).unwrap();
            let made = fill(&mut volume);
            drop(volume);
            let Some(volume) = in_order(&image) else { return };
            let special = node(&volume, "special");
            let Some(mounted) = Mounted::new(&image, dir.path()) else { return };
            for (path, data) in &made {
                let there = std::fs::read(mounted.0.join(path)).unwrap();
                assert!(there == *data, "{path} in {}", image.display());
            }
            let names = |path: &Path| -> usize { std::fs::read_dir(path).unwrap().count() };
            assert_eq!(names(&mounted.0.join("a directory with a long name")), made.len() - 1);
            // The stream interface of Windows: file:stream.
            assert_eq!(std::fs::read(mounted.0.join("special:stream 13")).unwrap(), [13; 200]);
            let security = volume.security(special).unwrap().unwrap();
            assert_eq!(mounted.attribute("special", "system.ntfs_acl"), security);
            assert_eq!(mounted.attribute("special", "system.ntfs_object_id")[..16], ID);
            let all = mounted.attribute("special", "system.ntfs_times");
            let wanted = [times().created, times().modified, times().accessed, times().changed];
            assert_eq!(all, wanted.iter().flat_map(|t| t.0.to_le_bytes()).collect::<Vec<u8>>());
            let list = mounted.attribute("special", "system.ntfs_ea");
            let text = String::from_utf8_lossy(&list).into_owned();
            assert!(text.contains("FIRST\0one") && text.contains("SECOND\0\u{2}\u{2}"), "{text:?}");
            assert_eq!(std::fs::read_link(mounted.0.join("link")).unwrap(), Path::new("special"));
            let reparse = volume.raw_part(node(&volume, "junction"), RawPart::ReparsePoint).unwrap().unwrap();
            assert_eq!(mounted.attribute("junction", "system.ntfs_reparse_data"), reparse);
            let short = mounted.attribute("a directory with a long name", "system.ntfs_dos_name");
            assert_eq!(String::from_utf8_lossy(&short), "ADIREC~1");
            drop(mounted);
            let Some(mut cat) = tool("ntfscat") else { return };
            let output = run(cat.arg(&image).arg("special"));
            assert_eq!(hex(&Sha256::digest(&output.stdout)), hex(&Sha256::digest(&made[made.len() - 2].1)));
        }
    }
}

#[test]
fn everything_is_taken_away_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = made_by_mkntfs(dir.path(), 4096) else { return };
    let mut volume = VolumeMut::open(disk(&image)).unwrap();
    let free = volume.free_bytes().unwrap();
    fill(&mut volume);
    for name in ["special", "link", "junction"] {
        volume.remove(volume.root(), name).unwrap();
    }
    let tree = node(&volume, "a directory with a long name");
    for entry in volume.read_dir(tree).unwrap() {
        volume.remove(tree, &entry.name).unwrap();
    }
    volume.remove(volume.root(), "a directory with a long name").unwrap();
    volume.sync().unwrap();
    // $MFT and $Secure have grown.
    assert!(free - volume.free_bytes().unwrap() < 1 << 20);
    drop(volume);
    let Some(volume) = in_order(&image) else { return };
    assert!(volume.read_dir(volume.root()).unwrap().iter().all(|e| e.name.starts_with('$')));
}

/// Offset, reason and name of each record in a listing of `fsutil usn readjournal`.
fn listing(text: &str) -> Vec<(u64, u32, String)> {
    let field = |part: &str, name: &str| -> Option<String> {
        let line = part.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(": ")?.1.trim().to_string())
    };
    // Records of version 4 tell of ranges; they are passed over.
    let text = text.replace("\r\n", "\n").replace("\nUsn  ", "\n\u{0}Usn  ");
    let parts =
        text.split('\u{0}').filter(|part| part.starts_with("Usn  ") && !part.contains("version     : 4"));
    parts
        .map(|part| {
            let reason = field(part, "Reason").unwrap();
            let number = reason.split(':').next().unwrap().trim_start_matches("0x").to_string();
            (
                field(part, "Usn ").unwrap().parse().unwrap(),
                u32::from_str_radix(&number, 16).unwrap(),
                field(part, "File name ").unwrap(),
            )
        })
        .collect()
}

#[test]
fn journals_are_read_as_windows_lists_them() {
    let Some(corpus) = corpus() else { return };
    let dir = corpus.join("02-ntfs");
    let bytes = std::fs::read(dir.join("dfir_ntfs/usnjrnlj.bin")).unwrap();
    let listed =
        listing(&String::from_utf8_lossy(&std::fs::read(dir.join("dfir_ntfs/usnjrnlj.fsutil.txt")).unwrap()));
    assert!(listed.len() > 200, "{}", listed.len());
    let ours: Vec<(u64, u32, String)> =
        usn::records(&bytes, 0).map(|r| (r.usn, r.reason, r.name())).filter(|r| r.0 < 29792).collect();
    for (ours, theirs) in ours.iter().zip(&listed) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), listed.len());
    for (name, count, from) in [
        ("dissect.target-usnjrnl.bin", 15_214, 0),
        ("go-ntfs-usn-sample.bin", 208, 0x12A1_6C30),
        ("plaso-UsnJrnl.raw", 19, 0),
    ] {
        let bytes = std::fs::read(dir.join(name)).unwrap();
        let records: Vec<_> = usn::records(&bytes, from).collect();
        assert_eq!(records.len(), count, "{name}");
        for record in records {
            let at = (record.usn - from) as usize;
            let ours = record.encode();
            // Windows XP leaves rubbish behind the name.
            let length = 0x3C + 2 * record.name.len();
            let same = bytes[at..at + length] == ours[..length];
            assert!(same, "{name}: {record:?} is not what Windows wrote");
        }
    }
}

#[test]
fn a_journal_of_windows_is_gone_on_with() {
    let Some(corpus) = corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("windows.raw");
    let source = corpus.join("02-ntfs/plaso-usnjrnl.qcow2");
    let options = vmrescue::disk::DiskOptions::default();
    vmrescue::disk::convert(&source, &raw, vmrescue::image::Kind::Raw, None, &options, &Silent).unwrap();
    let start = 63 * 512;
    let length = std::fs::metadata(&raw).unwrap().len();
    let whole = disk(&raw);
    let table = vmrescue::partition::read(&whole.as_disk()).unwrap();
    let range = table.partitions.first().map_or(start..length, |p| p.range.clone());
    let volume = Volume::open(whole.as_disk().window(range.clone()).unwrap()).unwrap();
    let read = |volume: &Volume| {
        let mut list = Vec::new();
        volume
            .usn_records(&mut |record| {
                list.push(record);
                Ok(())
            })
            .unwrap();
        list
    };
    let before = read(&volume);
    assert!(!before.is_empty() && volume.usn_settings().unwrap().is_some());
    let damage = volume.check(&Silent).unwrap();
    let options = WriteOptions { allow_dirty: true, discard_log: true, ..WriteOptions::default() };
    let mut changed = VolumeMut::open_with(whole.window(range.clone()).unwrap(), options).unwrap();
    let file = changed.create(changed.root(), "from outside.txt", NodeKind::File).unwrap();
    changed.write(file, "", 0, b"hello").unwrap();
    changed.sync().unwrap();
    drop(changed);
    let volume = Volume::open(whole.as_disk().window(range).unwrap()).unwrap();
    let after = read(&volume);
    assert_eq!(after[..before.len()], before[..]);
    let new: Vec<(String, u32)> = after[before.len()..].iter().map(|r| (r.name(), r.reason)).collect();
    let name = "from outside.txt".to_string();
    assert_eq!(
        new,
        [(name.clone(), reason::FILE_CREATE | reason::CLOSE), (name, reason::DATA_EXTEND | reason::CLOSE)]
    );
    assert_eq!(read_file(&volume, file, "").unwrap(), b"hello");
    assert!(volume.check(&Silent).unwrap().len() <= damage.len());
    // Windows XP gave this volume short names, so we do.
    assert!(volume.names(file).unwrap().iter().any(|name| name.short && name.name == "FROMOU~1.TXT"));
}

const SECURE: &str = r#"
import sys
from dissect.ntfs import NTFS
volume = NTFS(open(sys.argv[1], "rb"))
for record in volume.mft.segments():
    if 0x10 not in record.attributes:
        continue
    id = record.attributes[0x10][0].security_id
    if id:
        found = volume.secure.lookup(id)
        print(record.segment, found.owner, found.group, len(found.dacl.ace))
"#;

#[test]
fn security_is_what_dissect_reads() {
    let Some(mut python) = tool("python3") else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = made_by_us(dir.path(), 4096);
    let mut volume = VolumeMut::open(disk(&image)).unwrap();
    fill(&mut volume);
    drop(volume);
    if !Command::new("python3").args(["-c", "import dissect.ntfs"]).output().unwrap().status.success() {
        return skipped("python has no dissect.ntfs");
    }
    let output = run(python.args(["-c", SECURE]).arg(&image)).stdout;
    let volume = Volume::open(disk(&image).as_disk()).unwrap();
    let mut compared = 0;
    for line in String::from_utf8(output).unwrap().lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let node = NodeId(fields[0].parse().unwrap());
        let Ok(Some(bytes)) = volume.security(node) else { continue };
        let ours = Descriptor::parse(&bytes).unwrap();
        assert_eq!(ours.owner.unwrap().to_string(), fields[1], "{line}");
        assert_eq!(ours.group.unwrap().to_string(), fields[2], "{line}");
        assert_eq!(ours.dacl.unwrap().aces.len().to_string(), fields[3], "{line}");
        compared += 1;
    }
    assert!(compared > 250, "{compared}");
}

/// The command with its output, which must be JSON; it must succeed.
fn command(words: &[&str]) -> serde_json::Value {
    let output = run(Command::new(env!("CARGO_BIN_EXE_vmrescue")).args(words));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn commands_write_streams_and_security_and_stat_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.vhdx");
    vmrescue::demo::build(&image, vmrescue::image::Kind::VhdxDynamic).unwrap();
    let (image, before) = (image.to_str().unwrap(), std::fs::read(&image).unwrap());
    let host = dir.path().join("host.txt");
    std::fs::write(&host, "some text").unwrap();
    let host = host.to_str().unwrap();
    let stat = |path: &str| command(&["stat", image, path, "--json"]);
    command(&["put", image, host, r"C:\Windows\new.txt", "--yes", "--json"]);
    command(&["put", image, host, r"C:\Windows\new.txt:Zone.Identifier", "--yes", "--json"]);
    let found = stat(r"C:\Windows\new.txt");
    let inherited = found["security"]["sddl"].as_str().unwrap().to_string();
    assert!(inherited.starts_with("O:BAG:SYD:AI(A;ID;"), "{inherited}");
    assert_eq!(found["security"]["owner"], "S-1-5-32-544");
    let streams: Vec<&str> =
        found["streams"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(streams, ["", "Zone.Identifier"]);
    assert_eq!(found["names"][0]["name"], "new.txt");
    // The root's own rights are not inherited ones, so taking them over is seen.
    let model = stat(r"C:\Windows\System32")["security"]["sddl"].as_str().unwrap().to_string();
    assert_ne!(model, inherited);
    let like =
        ["put", image, host, r"C:\Windows\new.txt", "--like", r"C:\Windows\System32", "--yes", "--json"];
    command(&like);
    assert_eq!(stat(r"C:\Windows\new.txt")["security"]["sddl"], model);
    // There is nothing left to do.
    assert_eq!(command(&like)["plan"].as_array().unwrap().len(), 0);
    command(&["rm", image, r"C:\Windows\new.txt:Zone.Identifier", "--yes", "--json"]);
    let found = stat(r"C:\Windows\new.txt");
    assert_eq!(found["streams"].as_array().unwrap().len(), 1);
    assert_eq!(found["size"], 9);
    command(&["put", image, host, r"C:\Windows\System32:stream", "--yes", "--json"]);
    assert_eq!(stat(r"C:\Windows\System32")["streams"][0]["name"], "stream");
    for _ in 0..5 {
        run(Command::new(env!("CARGO_BIN_EXE_vmrescue")).args(["undo", image, "--yes"]));
    }
    assert!(std::fs::read(image).unwrap() == before, "undone byte for byte");
}
