//! The timeline: file times as The Sleuth Kit reads them, keys and events as they were written, all in order.

use crate::demo::vmrescue;
use crate::oracle::{corpus, run, tool};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use vmrescue::demo::build;
use vmrescue::image::Kind;

/// Name -> record number, size (0 for directories and for the lines of names), the four times.
type Body = BTreeMap<String, BTreeSet<(String, String, [String; 4])>>;

fn body(text: &str, prefix: &str) -> Body {
    let mut all = Body::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        assert_eq!(fields.len(), 11, "{line}");
        let name = fields[1].strip_prefix(prefix).unwrap_or_else(|| panic!("{line}")).to_string();
        // Streams, deleted files and what has no directory are not in ours.
        if name.rsplit('/').next().unwrap().contains(':')
            || name.ends_with(" (deleted)")
            || name.starts_with("/$OrphanFiles")
        {
            continue;
        }
        let plain = fields[3].starts_with('r') && !name.ends_with(" ($FILE_NAME)");
        let number = fields[2].split('-').next().unwrap().to_string();
        let size = if plain { fields[6].to_string() } else { "0".into() };
        // Times before 1970 are 0 in ours; The Sleuth Kit writes them as 32 bits without a sign. No file here is from after 2038.
        let time =
            |text: &str| if text.parse::<u64>().unwrap() > 1 << 31 { "0".into() } else { text.to_string() };
        let times = [7, 8, 9, 10].map(|i| time(fields[i]));
        all.entry(name).or_default().insert((number, size, times));
    }
    all
}

#[test]
fn a_body_file_is_what_fls_makes() {
    let Some(corpus) = corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let unpacked = dir.path().join("lastaccess.raw");
    let packed = corpus.join("02-ntfs/ntfs-samples/ntfs-lastaccess.raw.gz");
    std::fs::write(&unpacked, run(std::process::Command::new("gzip").arg("-dc").arg(packed)).stdout).unwrap();
    let images = [
        (corpus.join("02-ntfs/ntfscrate-testfs1.img"), None),
        (corpus.join("01-vhd/dfvfs/ntfs-fixed.vhd"), Some(128)),
        (unpacked, Some(128)),
    ];
    let mut compared = 0;
    for (path, sector) in images {
        let Some(mut fls) = tool("fls") else { return };
        if let Some(sector) = sector {
            fls.args(["-o", &format!("{sector}")]);
        }
        let theirs = body(&String::from_utf8_lossy(&run(fls.args(["-m", "/", "-r"]).arg(&path)).stdout), "");
        let ours = run(std::process::Command::new(env!("CARGO_BIN_EXE_vmrescue")).args([
            "timeline",
            path.to_str().unwrap(),
            "--format",
            "bodyfile",
            "--kind",
            "files",
        ]));
        let ours = body(&String::from_utf8_lossy(&ours.stdout), "#1:");
        for (name, lines) in &theirs {
            assert_eq!(ours.get(name), Some(lines), "{}: {name}", path.display());
            compared += lines.len();
        }
        assert!(theirs.len() > 20, "{}", path.display());
    }
    assert!(compared > 1000, "{compared}");
}

fn lines(image: &Path, more: &[&str]) -> Vec<serde_json::Value> {
    let mut words = vec!["timeline", image.to_str().unwrap(), "--format", "jsonl"];
    words.extend(more);
    let output = vmrescue(&words);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn files_keys_and_events_come_sorted_and_within_the_span() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    crate::events::with_logs(&path);
    let all = lines(&path, &[]);
    assert_eq!(all[0]["schema"], "vmrescue.timeline/1");
    assert_eq!(all[0]["entries"].as_u64(), Some(all.len() as u64 - 1));
    let times: Vec<&str> = all[1..].iter().map(|line| line["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted());
    for (kind, subject) in [
        ("file", r"C:\Windows\System32\drivers\ACPI.sys"),
        ("file-name", r"C:\Windows\System32\drivers\ACPI.sys"),
        ("registry", r"HKLM\SYSTEM\Select"),
        ("event", "Service Control Manager 7031"),
    ] {
        let found = all
            .iter()
            .any(|line| line["kind"] == kind && line["subject"].as_str().unwrap().contains(subject));
        assert!(found, "{kind} {subject}");
    }
    // A span counts back from the newest event, which is not the newest time on this disk.
    let events = lines(&path, &["--kind", "events", "--since", "1d"]);
    let newest = crate::events::NEWEST;
    assert!(
        events.len() > 1
            && events.iter().skip(1).all(|line| line["time"].as_str().unwrap() >= crate::events::DAY_BEFORE)
    );
    assert!(events.last().unwrap()["time"].as_str().unwrap().starts_with(newest));
    let none = lines(&path, &["--until", "1700-01-01"]);
    assert_eq!(none.len(), 1);
    let csv = vmrescue(&["timeline", path.to_str().unwrap(), "--format", "csv", "--kind", "registry"]);
    let csv = String::from_utf8(csv.stdout).unwrap();
    assert!(csv.starts_with("time,kind,macb,id,size,subject\r\n") && csv.lines().count() > 50);
}

/// `mactime` takes the body file as it is.
#[test]
fn mactime_reads_the_body_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, body) = (dir.path().join("d.vhdx"), dir.path().join("body"));
    build(&path, Kind::VhdxDynamic).unwrap();
    let words = ["timeline", path.to_str().unwrap(), "--format", "bodyfile", "--out", body.to_str().unwrap()];
    assert_eq!(vmrescue(&words).status.code(), Some(0));
    let Some(mut mactime) = tool("mactime") else { return };
    let said = run(mactime.args(["-z", "UTC", "-d", "-b"]).arg(&body));
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.contains("C:/Windows/System32/drivers/ACPI.sys")
            && said.contains(r"[registry] HKLM\SYSTEM\Select"),
        "{said}"
    );
}
