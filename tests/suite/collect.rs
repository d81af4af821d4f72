//! The archive: whole by the word of two other readers, its manifest true, the same twice, and nothing secret unasked.

use crate::demo::vmrescue;
use crate::oracle::{run, tool};
use sha2::{Digest, Sha256};
use std::path::Path;
use vmrescue::demo::build;
use vmrescue::image::Kind;

const READER: &str = r#"
import hashlib, json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    manifest = json.loads(archive.read("manifest.json"))
    names = archive.namelist()
    assert len(names) == len(set(names)) == len(manifest["files"]) + 1, names
    for entry in manifest["files"]:
        content = archive.read(entry["name"])
        assert len(content) == entry["size"], entry
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry
    print(json.dumps(manifest))
"#;

fn put(image: &Path, file: &Path, to: &str) {
    let words = ["put", image.to_str().unwrap(), file.to_str().unwrap(), to, "--yes"];
    let done = vmrescue(&words);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn the_archive_is_whole_and_its_manifest_is_true() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    crate::events::with_logs(&path);
    let dump = dir.path().join("dump");
    std::fs::write(&dump, vec![7u8; 3_000_000]).unwrap();
    put(&path, &dump, r"C:\Windows\MEMORY.DMP");
    let image = path.to_str().unwrap();
    let archives = ["a.zip", "b.zip", "c.zip"].map(|name| dir.path().join(name));
    for (archive, more) in archives.iter().zip([&[][..], &[], &["--include-memory", "--profile", "all"]]) {
        let mut words = vec!["collect", image, "-o", archive.to_str().unwrap()];
        words.extend(more);
        let done = vmrescue(&words);
        let said =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{said}");
    }
    assert_eq!(
        std::fs::read(&archives[0]).unwrap(),
        std::fs::read(&archives[1]).unwrap(),
        "the same disk, the same archive"
    );
    if let Some(mut unzip) = tool("unzip") {
        run(unzip.arg("-t").arg(&archives[0]));
        run(tool("unzip").unwrap().arg("-t").arg(&archives[2]));
    }
    let names = |archive: &Path| -> Option<Vec<String>> {
        let said = run(tool("python3")?.args(["-c", READER]).arg(archive)).stdout;
        let manifest: serde_json::Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(manifest["schema"], "vmrescue.collection/1");
        assert_eq!(manifest["tool"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(manifest["image"]["path"], image);
        assert_eq!(manifest["failed"].as_array().unwrap().len(), 0, "{}", manifest["failed"]);
        Some(
            manifest["files"]
                .as_array()
                .unwrap()
                .iter()
                .map(|file| file["name"].as_str().unwrap().to_string())
                .collect(),
        )
    };
    let Some(support) = names(&archives[0]) else { return };
    for wanted in [
        "files/C/Windows/System32/config/SYSTEM",
        "files/C/Windows/System32/winevt/Logs/System.evtx",
        "vmrescue/inspect.json",
        "vmrescue/diagnose.json",
        "vmrescue/events.jsonl",
    ] {
        assert!(support.iter().any(|name| name == wanted), "{wanted}: {support:?}");
    }
    assert!(support.iter().any(|name| name.ends_with("Microsoft/Boot/BCD")), "{support:?}");
    assert!(!support.iter().any(|name| name.ends_with("MEMORY.DMP")
        || name.contains("config/SAM")
        || name.contains("config/SECURITY")));
    let all = names(&archives[2]).unwrap();
    assert!(
        all.iter().any(|name| name.ends_with("MEMORY.DMP"))
            && all.iter().any(|name| name.ends_with("config/SAM"))
    );

    // A folder has the same files; a plan writes nothing; nothing is written over.
    let folder = dir.path().join("folder");
    let words = ["collect", image, "-o", folder.to_str().unwrap(), "--profile", "boot"];
    assert_eq!(vmrescue(&words).status.code(), Some(0));
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    for file in manifest["files"].as_array().unwrap() {
        let content = std::fs::read(folder.join(file["name"].as_str().unwrap())).unwrap();
        assert_eq!(vmrescue::text::hex(&Sha256::digest(&content)), file["sha256"].as_str().unwrap());
    }
    assert_eq!(vmrescue(&words).status.code(), Some(2), "the folder is not empty now");
    let plan = vmrescue(&["collect", image, "--dry-run", "--json"]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["files"].as_array().unwrap().len() + 6, support.len());
}
