//! The other readers: the crate `ntfs`, and the programs of ntfs-3g.

use super::{Inode, Stand};
use crate::oracle::{run, skipped, tool};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

impl Stand {
    /// The crate `ntfs` against the model. Returns how many streams it could not read.
    pub(super) fn verify_with_the_crate(&self, context: &str) -> usize {
        let fs = &mut std::io::Cursor::new(self.device.to_vec());
        let mut ntfs = ntfs::Ntfs::new(fs).unwrap();
        ntfs.read_upcase_table(fs).unwrap();
        let mut wanted = self.model.lines();
        let mut unread = 0;
        let mut pending = vec![(5, String::new())];
        while let Some((number, path)) = pending.pop() {
            let directory = ntfs.file(fs, number).unwrap();
            let mut listed = Vec::new();
            let read = directory.directory_index(fs).and_then(|index| {
                let mut entries = index.entries();
                while let Some(entry) = entries.next(fs) {
                    let entry = entry?;
                    let Some(key) = entry.key() else { continue };
                    listed.push((entry.file_reference(), key?));
                }
                Ok(())
            });
            if let Err(e) = read {
                // It does not find all of an index whose attributes lie in extension records.
                eprintln!("{context}: the crate cannot list {path}: {e}");
                unread += 1;
                let below = if path.is_empty() { String::new() } else { format!("{path}\\") };
                wanted.retain(|name, _| !name.starts_with(&below));
                continue;
            }
            for (reference, key) in listed {
                let number = reference.file_record_number();
                if number < 24 || key.namespace() == ntfs::structured_values::NtfsFileNamespace::Dos {
                    continue;
                }
                let name = key.name().to_string().unwrap();
                let full = if path.is_empty() { name } else { format!("{path}\\{name}") };
                let Some((inode, _)) = wanted.remove(&full) else {
                    panic!("{context}: the crate shows {full}, which is not in the model")
                };
                let file = reference.to_file(&ntfs, fs).unwrap();
                assert_eq!(file.is_directory(), inode.directory, "{context}: {full}");
                for (name, data) in &inode.streams {
                    match read_with_the_crate(&file, fs, name) {
                        // Nothing at all of a stream whose runs an attribute list spreads over records.
                        Ok(found) if found.is_empty() && !data.is_empty() => unread += 1,
                        Ok(found) => {
                            // It does not know how far data was ever written: what lies behind reads as zero and is left out.
                            let written = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                            let same = found.len() == data.len() && found[..written] == data[..written];
                            let first = found.iter().zip(data).position(|(a, b)| a != b);
                            assert!(
                                same,
                                "{context}: the crate reads {full}:{name} otherwise: {} bytes, not {}, first other {first:?}",
                                found.len(),
                                data.len()
                            );
                        }
                        Err(_) => unread += 1,
                    }
                }
                if inode.directory {
                    pending.push((number, full));
                }
            }
        }
        assert!(wanted.is_empty(), "{context}: the crate does not show {:?}", wanted.keys());
        unread
    }
}

fn read_with_the_crate(
    file: &ntfs::NtfsFile<'_>,
    fs: &mut (impl Read + Seek),
    name: &str,
) -> Result<Vec<u8>, String> {
    let item = file.data(fs, name).ok_or("no such stream")?.map_err(|e| e.to_string())?;
    let attribute = item.to_attribute().map_err(|e| e.to_string())?;
    let mut value = attribute.value(fs).map_err(|e| e.to_string())?.attach(fs);
    let mut out = Vec::new();
    value.read_to_end(&mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

/// ntfsfix, ntfsinfo and ntfs-3g on a file with the volume.
pub(super) fn verify_with_programs(stand: &Stand, free: u64, cluster_bytes: u32, context: &str) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    std::fs::write(&image, stand.device.to_vec()).unwrap();
    if let Some(mut ntfsfix) = tool("ntfsfix") {
        run(ntfsfix.arg("-n").arg(&image));
    }
    if let Some(mut ntfsinfo) = tool("ntfsinfo") {
        let text = String::from_utf8_lossy(&run(ntfsinfo.arg("-m").arg(&image)).stdout).into_owned();
        let clusters = text.lines().find_map(|line| line.trim().strip_prefix("Free Clusters: "));
        let clusters = clusters.and_then(|text| text.split(' ').next()).and_then(|text| text.parse().ok());
        assert_eq!(clusters, Some(free / u64::from(cluster_bytes)), "{context}: ntfsinfo\n{text}");
    }
    let Some(mut ntfs_3g) = tool("ntfs-3g") else { return };
    let mount = dir.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let options = "ro,streams_interface=windows,noatime";
    let mounted = ntfs_3g.args(["-o", options]).arg(&image).arg(&mount).output().unwrap();
    if !mounted.status.success() {
        let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(why.contains("fuse"), "{context}: ntfs-3g does not mount it: {why}");
        return skipped(&format!("ntfs-3g cannot mount here: {why}"));
    }
    let unmount = Unmount(&mount);
    let mut wanted = stand.model.lines();
    let mut pending = vec![(mount.clone(), String::new())];
    while let Some((folder, path)) = pending.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let full = if path.is_empty() { name } else { format!("{path}\\{name}") };
            let Some((inode, links)) = wanted.remove(&full) else {
                panic!("{context}: ntfs-3g shows {full}, which is not in the model")
            };
            let facts = entry.metadata().unwrap();
            assert_eq!(facts.is_dir(), inode.directory, "{context}: {full}");
            if inode.directory {
                pending.push((entry.path(), full));
                continue;
            }
            if inode.reparse.is_some() {
                // It shows a link to nowhere for a tag that it does not know.
                continue;
            }
            assert_eq!(std::os::unix::fs::MetadataExt::nlink(&facts), links as u64, "{context}: {full}");
            assert_eq!(facts.len(), inode.streams[""].len() as u64, "{context}: {full}");
            for (name, data) in &inode.streams {
                let mut path = entry.path().into_os_string();
                if !name.is_empty() {
                    path.push(format!(":{name}"));
                }
                let found = std::fs::read(&path).unwrap();
                let same = Sha256::digest(&found) == Sha256::digest(data);
                assert!(same, "{context}: ntfs-3g reads {full}:{name} otherwise ({} bytes)", found.len());
            }
        }
    }
    assert!(wanted.is_empty(), "{context}: ntfs-3g does not show {:?}", wanted.keys());
    verify_attributes_of_ntfs_3g(stand, &mount, context);
    if let Some(mut stat) = tool("stat") {
        let text = run(stat.args(["-f", "-c", "%f %S"]).arg(&mount)).stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert_eq!(numbers[0] * numbers[1], free, "{context}: statfs {text}");
    }
    drop(unmount);
}

/// Security, extended attributes and object ids as ntfs-3g shows them.
fn verify_attributes_of_ntfs_3g(stand: &Stand, mount: &Path, context: &str) {
    let lines = stand.model.lines();
    let of = |name: &str, wanted: &dyn Fn(&Inode) -> Option<Vec<u8>>| {
        let Some(mut getfattr) = tool("getfattr") else { return };
        // The exit code tells that some files have no such attribute.
        let output = getfattr.args(["-R", "-h", "-e", "hex", "-n", name, "."]).current_dir(mount).output();
        let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
        let mut found = BTreeMap::new();
        for block in text.split("\n\n") {
            let Some((file, rest)) = block.split_once('\n') else { continue };
            let path = unescape(file.trim_start_matches("# file: ")).replace('/', "\\");
            let value = rest.trim().split_once("=0x").map_or(String::new(), |(_, hex)| hex.to_string());
            found.insert(path, value);
        }
        for (path, (inode, _)) in &lines {
            let hex: Option<String> =
                wanted(inode).map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            if let Some(hex) = hex {
                // Behind an object id it shows the ids of its birth.
                let same = found.get(path).is_some_and(|seen| seen.starts_with(&hex));
                assert!(same, "{context}: ntfs-3g shows {name} of {path} otherwise: {:?}", found.get(path));
            }
        }
    };
    of("system.ntfs_acl", &|inode| inode.security.clone());
    of("system.ntfs_reparse_data", &|inode| inode.reparse.clone());
    of("system.ntfs_object_id", &|inode| inode.object_id.map(|id| id.0.to_vec()));
}

/// Bytes that getfattr writes as `\\ooo`.
fn unescape(text: &str) -> String {
    let (mut out, bytes) = (Vec::new(), text.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        match octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap()
}

struct Unmount<'p>(&'p Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // It takes a moment after the last file was closed.
        for _ in 0..50 {
            let done = std::process::Command::new("umount").arg(self.0).output();
            if done.is_ok_and(|output| output.status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        eprintln!("{} is still mounted", self.0.display());
    }
}
