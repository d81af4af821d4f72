//! Files come out of damaged volumes: what can be read is there and right, what cannot is named, nothing comes as zeros unsaid.

use crate::demo::vmrescue;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use vmrescue::block::{DiskMut, HostFile};
use vmrescue::fs::ntfs::{FormatSpec, VolumeMut, format};
use vmrescue::fs::{FileSystem, FileSystemMut, NodeId, NodeKind};

/// Bytes of a cluster and of a file record of these volumes.
const CLUSTER: usize = 4096;
const RECORD: usize = 1024;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// A volume without a partition table, filled by `fill`.
fn volume(path: &Path, bytes: u64, fill: impl FnOnce(&mut VolumeMut)) {
    let file = HostFile::create_new(path).unwrap();
    vmrescue::block::WritableDevice::set_length(&file, bytes).unwrap();
    let disk = DiskMut::new(Arc::new(file));
    format(&disk, &FormatSpec::default()).unwrap();
    let mut volume = VolumeMut::open(disk).unwrap();
    fill(&mut volume);
    volume.sync().unwrap();
}

fn file(volume: &mut VolumeMut, directory: NodeId, name: &str, data: &[u8]) -> NodeId {
    let node = volume.create(directory, name, NodeKind::File).unwrap();
    volume.write(node, "", 0, data).unwrap();
    node
}

/// Content that names itself, so that no block is another's.
fn content(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at / 8 * 31 + number * 7 + at % 8) % 251) as u8 | 1).collect()
}

/// Changes the bytes of the file record with this number, wherever $MFT has it.
fn spoil(path: &Path, node: u64, change: impl FnOnce(&mut [u8])) {
    let number = (node & 0xFFFF_FFFF) as u32;
    let mut volume = std::fs::read(path).unwrap();
    let is_it = |record: &&mut [u8]| record.starts_with(b"FILE") && record[44..48] == number.to_le_bytes();
    change(volume.chunks_exact_mut(RECORD).find(is_it).unwrap());
    std::fs::write(path, volume).unwrap();
}

fn files_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(at) = pending.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_damaged_tree_comes_but_for_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    let mut nodes = Vec::new();
    let (mut deep, mut cut) = (NodeId(0), NodeId(0));
    volume(&image, 64 << 20, |volume| {
        let root = volume.root();
        let many = volume.create(root, "many", NodeKind::Directory).unwrap();
        for number in 0..300 {
            nodes.push(file(volume, many, &format!("f{number}.bin"), &content(number, 3000)));
        }
        deep = volume.create(many, "deep", NodeKind::Directory).unwrap();
        file(volume, deep, "below.txt", b"below");
        cut = file(volume, root, "cut.bin", &content(999, 10 * CLUSTER));
        volume.write(nodes[0], "stream", 0, b"named").unwrap();
        volume.link(nodes[1], root, "second name").unwrap();
    });
    for number in [25, 100, 299] {
        spoil(&image, nodes[number].0, |record| record[510] ^= 0xFF);
    }
    // The third cluster of a file lies behind the end of the volume: only that part is lost.
    let out = dir.path().join("out");
    let report = dir.path().join("report.json");
    let manifest = dir.path().join("manifest.jsonl");
    let (image_text, out_text) = (image.to_str().unwrap(), out.to_str().unwrap());
    let words = ["get", image_text, r"#1:\", out_text, "-r", "--hash", "--report", report.to_str().unwrap()];
    let output = vmrescue(&[&words[..], &["--manifest", manifest.to_str().unwrap()]].concat());
    assert_eq!(code(&output), 1, "{}", text(&output));
    assert!(text(&output).contains("3 files and directories could not be copied whole"), "{}", text(&output));
    let found = files_below(&out);
    for number in 0..300 {
        let name = PathBuf::from(format!("many/f{number}.bin"));
        match number {
            25 | 100 | 299 => assert!(!found.contains_key(&name), "{name:?}"),
            _ => assert!(found[&name] == content(number, 3000), "{name:?}"),
        }
    }
    assert_eq!(found[Path::new("many/deep/below.txt")], b"below");
    assert!(found[Path::new("cut.bin")] == content(999, 10 * CLUSTER));
    assert!(found[Path::new("second name")] == content(1, 3000));
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let missing: Vec<&str> =
        told["missing"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(missing, [r"#1:\many\f100.bin", r"#1:\many\f25.bin", r"#1:\many\f299.bin"]);
    assert_eq!(told["streams_left_out"], 1);
    assert_eq!(told["hard_links"], 1);
    let lines = std::fs::read_to_string(&manifest).unwrap();
    assert_eq!(lines.lines().count(), 300 - 3 + 1 + 2 + 3, "every file, folder and second name has a line");
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["kind"] == "file" {
            let there = std::fs::read(line["target"].as_str().unwrap()).unwrap();
            use sha2::Digest;
            let sum = vmrescue::text::hex(&sha2::Sha256::digest(&there));
            assert_eq!(line["sha256"], sum.as_str());
            assert!(line["security"].as_str().unwrap().contains("O:"), "{line}");
        }
    }

    // Again: what is there stays, what is missing is asked for again; without --resume nothing is replaced.
    assert_eq!(code(&vmrescue(&words[..5])), 2);
    let again = vmrescue(&["get", image_text, r"#1:\", out_text, "-r", "--resume", "--streams"]);
    assert_eq!(code(&again), 1, "{}", text(&again));
    assert!(text(&again).contains("already there"), "{}", text(&again));
    assert_eq!(std::fs::read(out.join("many/f0.bin#stream")).unwrap(), b"named");
}

#[test]
fn a_directory_without_its_index_is_read_from_the_file_records() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    let mut place = NodeId(0);
    volume(&image, 32 << 20, |volume| {
        place = volume.create(volume.root(), "lost index", NodeKind::Directory).unwrap();
        for number in 0..20 {
            file(volume, place, &format!("f{number}"), &content(number, 100));
        }
    });
    spoil(&image, place.0, |record| {
        // The first entry of $INDEX_ROOT lies far outside: nothing of the index can be used.
        let mut at = usize::from(u16::from_le_bytes([record[20], record[21]]));
        while record[at] != 0x90 {
            at += u32::from_le_bytes(record[at + 4..at + 8].try_into().unwrap()) as usize;
        }
        let value = at + usize::from(u16::from_le_bytes([record[at + 20], record[at + 21]]));
        record[value + 16..value + 20].fill(0x66);
    });
    let out = dir.path().join("out");
    let output = vmrescue(&["get", image.to_str().unwrap(), r"#1:\", out.to_str().unwrap(), "-r"]);
    assert_eq!(code(&output), 1, "a damaged directory is told: {}", text(&output));
    assert!(text(&output).contains("20 names were found in file records instead"), "{}", text(&output));
    let found = files_below(&out);
    for number in 0..20 {
        assert_eq!(found[&PathBuf::from(format!("lost index/f{number}"))], content(number, 100));
    }
}

#[test]
fn a_file_with_an_unreadable_part_comes_without_it_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    let mut node = NodeId(0);
    volume(&image, 32 << 20, |volume| {
        node = file(volume, volume.root(), "part.bin", &content(5, 40 * CLUSTER));
    });
    // A size in the record that is larger than the run list: the end cannot be read.
    spoil(&image, node.0, |record| {
        let mut at = usize::from(u16::from_le_bytes([record[20], record[21]]));
        while record[at] != 0x80 {
            at += u32::from_le_bytes(record[at + 4..at + 8].try_into().unwrap()) as usize;
        }
        for (field, clusters) in [(40, 44u64), (48, 43), (56, 43)] {
            record[at + field..at + field + 8].copy_from_slice(&(clusters * CLUSTER as u64).to_le_bytes());
        }
    });
    let out = dir.path().join("part.bin");
    let (image, target) = (image.to_str().unwrap(), out.to_str().unwrap());
    let strict = vmrescue(&["get", image, r"#1:\part.bin", target]);
    assert_eq!(code(&strict), 2, "{}", text(&strict));
    assert!(!out.exists() && text(&strict).contains("add -r"), "{}", text(&strict));
    let partly = vmrescue(&["get", image, r"#1:\part.bin", target, "-r"]);
    assert_eq!(code(&partly), 1, "{}", text(&partly));
    assert!(text(&partly).contains("not read: bytes 0x28000 to 0x2b000"), "{}", text(&partly));
    let got = std::fs::read(&out).unwrap();
    assert_eq!(got.len(), 43 * CLUSTER);
    assert!(got[..40 * CLUSTER] == content(5, 40 * CLUSTER));
}

/// A reparse point with a tag and as many bytes as those of Windows have at least.
fn point(tag: u32) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &[64, 0, 0, 0], &[0; 64]].concat()
}

#[test]
fn content_that_is_kept_elsewhere_never_comes_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    volume(&image, 32 << 20, |volume| {
        let root = volume.root();
        for (name, tag) in
            [("dedup.bin", 0x8000_0013u32), ("cloud.bin", 0x9000_601A), ("hsm.bin", 0xC000_0004)]
        {
            let node = volume.create(root, name, NodeKind::File).unwrap();
            volume.grow_with_hole(node, "", 100_000).unwrap();
            volume.set_reparse(node, Some(&point(tag))).unwrap();
        }
        let here = file(volume, root, "hydrated.bin", &content(1, 8192));
        volume.set_reparse(here, Some(&point(0x9000_601A))).unwrap();
        // A folder of OneDrive is a folder.
        let folder = volume.create(root, "OneDrive", NodeKind::Directory).unwrap();
        volume.set_reparse(folder, Some(&point(0x9000_701A))).unwrap();
        file(volume, folder, "inside.txt", b"inside");
    });
    let image = image.to_str().unwrap();
    for name in ["dedup.bin", "cloud.bin", "hsm.bin"] {
        let out = dir.path().join(name);
        let guest = format!(r"#1:\{name}");
        for words in [vec!["get", image, &guest, out.to_str().unwrap()], vec!["cat", image, &guest]] {
            let output = vmrescue(&words);
            assert_eq!(code(&output), 2, "{name}: {}", text(&output));
            assert!(text(&output).contains("is not in the file"), "{}", text(&output));
        }
        assert!(!out.exists());
        let copied = vmrescue(&["cp", image, &guest, r"#1:\copy", "--yes"]);
        assert_eq!(code(&copied), 2, "{name}: {}", text(&copied));
    }
    let out = dir.path().join("tree");
    let output = vmrescue(&["get", image, r"#1:\", out.to_str().unwrap(), "-r"]);
    assert_eq!(code(&output), 1, "{}", text(&output));
    let found = files_below(&out);
    let names: Vec<&str> = found.keys().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["OneDrive/inside.txt", "hydrated.bin"]);
    assert!(found[Path::new("hydrated.bin")] == content(1, 8192));
    // What is written over it is an ordinary file.
    let source = dir.path().join("plain");
    std::fs::write(&source, b"plain").unwrap();
    let put = vmrescue(&["put", image, source.to_str().unwrap(), r"#1:\dedup.bin", "--yes"]);
    assert_eq!(code(&put), 0, "{}", text(&put));
    assert_eq!(vmrescue(&["cat", image, r"#1:\dedup.bin"]).stdout, b"plain");
    assert_eq!(code(&vmrescue(&["check", image])), 0);
}

#[test]
fn a_sparse_file_of_many_gigabytes_comes_in_seconds_and_stays_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    let size = 100u64 << 30;
    volume(&image, 32 << 20, |volume| {
        let node = volume.create(volume.root(), "db.mdf", NodeKind::File).unwrap();
        volume.grow_with_hole(node, "", size).unwrap();
        volume.write(node, "", size - 3, b"end").unwrap();
    });
    let out = dir.path().join("db.mdf");
    let begun = std::time::Instant::now();
    let output = vmrescue(&["get", image.to_str().unwrap(), r"#1:\db.mdf", out.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    assert_eq!(std::fs::metadata(&out).unwrap().len(), size);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        assert!(std::fs::metadata(&out).unwrap().blocks() * 512 < 1 << 20);
    }
    use std::io::{Read, Seek};
    let mut file = std::fs::File::open(&out).unwrap();
    file.seek(std::io::SeekFrom::Start(size - 4)).unwrap();
    let mut end = Vec::new();
    file.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"\0end");
}

/// The record of a file may say any length; one that this machine cannot have must not end the copy of all others.
#[test]
fn a_length_that_the_host_cannot_have_is_named_and_the_rest_comes() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    volume(&image, 32 << 20, |volume| {
        let node = volume.create(volume.root(), "a huge.bin", NodeKind::File).unwrap();
        volume.grow_with_hole(node, "", 1 << 40).unwrap();
        file(volume, volume.root(), "z small.txt", b"small");
    });
    let node = {
        let disk = DiskMut::new(Arc::new(HostFile::open_write(&image).unwrap()));
        let volume = VolumeMut::open(disk).unwrap();
        volume.lookup(volume.root(), "a huge.bin").unwrap().unwrap()
    };
    // 2^62 bytes, nothing of it initialised: no host has such a file.
    spoil(&image, node.0, |record| {
        let mut at = usize::from(u16::from_le_bytes([record[20], record[21]]));
        while record[at] != 0x80 {
            at += u32::from_le_bytes(record[at + 4..at + 8].try_into().unwrap()) as usize;
        }
        for (field, bytes) in [(40, 1u64 << 62), (48, 1 << 62), (56, 0)] {
            record[at + field..at + field + 8].copy_from_slice(&bytes.to_le_bytes());
        }
    });
    let out = dir.path().join("out");
    let output = vmrescue(&["get", image.to_str().unwrap(), r"#1:\", out.to_str().unwrap(), "-r", "--hash"]);
    assert_eq!(code(&output), 1, "{}", text(&output));
    assert!(text(&output).contains(r"missing: #1:\a huge.bin"), "{}", text(&output));
    let found = files_below(&out);
    assert_eq!(found.keys().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(), ["z small.txt"]);
}

#[test]
fn files_that_no_directory_leads_to_come_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    let mut place = NodeId(0);
    volume(&image, 32 << 20, |volume| {
        place = volume.create(volume.root(), "gone", NodeKind::Directory).unwrap();
        file(volume, place, "orphan.txt", b"orphan");
    });
    spoil(&image, place.0, |record| record[510] ^= 0xFF);
    let out = dir.path().join("out");
    let output =
        vmrescue(&["get", image.to_str().unwrap(), r"#1:\", out.to_str().unwrap(), "-r", "--orphans"]);
    assert_eq!(code(&output), 1, "{}", text(&output));
    let found = files_below(&out);
    let (name, data) = found.iter().next().unwrap_or_else(|| panic!("{}", text(&output)));
    assert!(name.starts_with("orphans") && name.ends_with("orphan.txt"), "{name:?}");
    assert_eq!(data, b"orphan");
}

#[test]
fn an_administrator_is_made_as_asked_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.vhdx");
    vmrescue::demo::build(&image, vmrescue::image::Kind::VhdxDynamic).unwrap();
    let image = image.to_str().unwrap();
    let script = r"C:\Windows\System32\GroupPolicy\Machine\Scripts\Startup\FixAzureVM.cmd";
    let repair = |password: &str| {
        let password = format!("password={password}");
        vmrescue(&["repair", image, "enable-admin", "--set", "user=rescue", "--set", &password, "--yes"])
    };
    for bad in ["a\"&net user b c /add&\"", "Pässwort", "", "end\\"] {
        let output = repair(bad);
        assert_eq!(code(&output), 2, "{bad}: {}", text(&output));
        assert_eq!(code(&vmrescue(&["cat", image, script])), 2);
    }
    let output = repair("P%ss%w0rd-longer-than-14");
    assert_eq!(code(&output), 0, "{}", text(&output));
    let written = text(&vmrescue(&["cat", image, script]));
    let first = written.lines().next().unwrap();
    assert_eq!(first, "net user \"rescue\" \"P%%ss%%w0rd-longer-than-14\" /add /y");
    // The group by its SID: its name is in the language of the machine.
    let coded = written.split("-EncodedCommand ").nth(1).unwrap().lines().next().unwrap();
    assert!(coded.len() > 100 && !first.contains("Administrators"), "{written}");
    let controller = ["reg", "set", image, r"HKLM\SYSTEM\CurrentControlSet\Control\ProductOptions"];
    let set = vmrescue(&[&controller[..], &["ProductType", "REG_SZ", "LanmanNT", "--yes"]].concat());
    assert_eq!(code(&set), 0, "{}", text(&set));
    let refused = repair("Aa1-Aa1-Aa1");
    assert!(code(&refused) >= 2, "{}", text(&refused));
    assert!(text(&refused).contains("domain"), "{}", text(&refused));
}
