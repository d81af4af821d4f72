//! Event logs: every log of the corpus reads as python-evtx reads it; out of a disk of our own making too; damage costs no more than its chunk.

use crate::demo::vmrescue;
use crate::oracle::{corpus, run, tool};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vmrescue::demo::{LogEvent, build, event_log};
use vmrescue::image::Kind;
use vmrescue::time::FileTime;

/// What another reader says: one record a line, with the fields of the first records of each chunk.
const ORACLE: &str = r#"
import base64, json, re, sys
import xml.etree.ElementTree as tree
import Evtx.Evtx as evtx
def leaves(element):
    below = list(element)
    if not below:
        return [element.text or ""]
    return [text for child in below for text in leaves(child)]
# It writes bytes as base64, and lists of texts as elements inside the text.
def plain(text):
    for piece in re.findall("<string>(.*?)</string>", text, re.S) or [text]:
        try:
            alternative = base64.b64decode(piece, validate=True).hex()
        except Exception:
            alternative = None
        piece = piece.replace("\r\n", "\n").strip()
        if piece:
            yield [piece, alternative]
for path in sys.argv[1:]:
    with evtx.Evtx(path) as log:
        for chunk in log.get_file_header().chunks(include_inactive=True):
            if not chunk.check_magic():
                continue
            for place, record in enumerate(chunk.records()):
                line = {"path": path, "record": record.record_num(), "time": record.timestamp().isoformat()}
                try:
                    root = tree.fromstring(record.xml()) if place < 5 else []
                except Exception:
                    root = []  # it cannot read some of the damaged ones
                if place < 5:
                    name = lambda element: element.tag.split("}")[-1]
                    for part in root:
                        if name(part) == "System":
                            system = {name(field): field for field in part}
                            line["id"] = int(system["EventID"].text)
                            line["provider"] = system["Provider"].get("Name")
                            line["computer"] = system["Computer"].text
                        elif name(part) in ("EventData", "UserData"):
                            line["data"] = [text for child in part for leaf in leaves(child) for text in plain(leaf)]
                print(json.dumps(line))
"#;

fn logs(end: &str) -> Option<Vec<PathBuf>> {
    let dir = corpus()?.join("05-evtx");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(end)));
    found.sort();
    assert!(!found.is_empty());
    Some(found)
}

fn lines(output: &std::process::Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Events of a log by record number; a number may come twice where a log holds a stale copy.
fn ours(path: &Path) -> BTreeMap<u64, Vec<Value>> {
    let mut all: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for event in lines(&vmrescue(&["events", path.to_str().unwrap(), "--json"])) {
        all.entry(event["record_id"].as_u64().unwrap()).or_default().push(event);
    }
    all
}

/// Text as far as two renderers agree on spaces.
fn plain(text: &str) -> String {
    text.replace("\r\n", "\n").trim().to_string()
}

/// The same value: two renderers write times, numbers and bytes differently.
fn same_value(own: &str, other: &str, bytes: Option<&str>) -> bool {
    let date = |text: &str| text.len() > 18 && text.as_bytes()[4] == b'-' && text.as_bytes()[13] == b':';
    own.eq_ignore_ascii_case(other)
        || bytes.is_some_and(|bytes| own.eq_ignore_ascii_case(bytes))
        || (date(own) && date(other))
        || numeric(own).is_some_and(|number| Some(number) == numeric(other))
}

#[test]
fn every_log_of_the_corpus_reads_as_python_evtx_reads_it() {
    let Some(logs) = logs("evtx") else { return };
    let Some(mut python) = tool("python3") else { return };
    if !python.args(["-c", "import Evtx"]).output().unwrap().status.success() {
        return crate::oracle::skipped("python-evtx is not installed");
    }
    let Some(mut python) = tool("python3") else { return };
    let theirs = run(python.args(["-c", ORACLE]).args(&logs));
    let mut by_path: BTreeMap<PathBuf, Vec<Value>> = BTreeMap::new();
    for line in lines(&theirs) {
        by_path.entry(line["path"].as_str().unwrap().into()).or_default().push(line);
    }
    let (mut compared, mut values) = (0, 0);
    for path in &logs {
        let (ours, theirs) = (ours(path), &by_path[path]);
        for record in theirs {
            let number = record["record"].as_u64().unwrap();
            let same = ours.get(&number).unwrap_or_else(|| panic!("{}: no record {number}", path.display()));
            // Theirs has microseconds and no zone.
            let time = record["time"].as_str().unwrap().replace(' ', "T");
            let time = time.trim_end_matches("+00:00");
            // A record without a time: ours is the one inside the event.
            let timeless = time.starts_with("0001-");
            let matching = same.iter().find(|event| {
                let own = event["time"].as_str().unwrap();
                // Binary fractions of a second: the sixth digit may be off by one.
                timeless || own[..19] == time[..19] || own[..23] == time[..time.len().min(23)]
            });
            let event = matching
                .unwrap_or_else(|| panic!("{} record {number}: {time}, ours {same:?}", path.display()));
            compared += 1;
            let Some(id) = record["id"].as_u64() else { continue };
            assert_eq!(event["id"].as_u64(), Some(id & 0xffff), "{} record {number}", path.display());
            assert_eq!(
                event["computer"].as_str(),
                record["computer"].as_str(),
                "{} record {number}",
                path.display()
            );
            if let Some(provider) = record["provider"].as_str() {
                assert_eq!(event["provider"].as_str(), Some(provider));
            }
            let Some(data) = record["data"].as_array() else { continue };
            let own =
                event["data"].as_array().unwrap().iter().map(|datum| plain(datum["value"].as_str().unwrap()));
            let own: Vec<String> = own.filter(|text| !text.is_empty()).collect();
            // Of the list in event 6013, with its empty texts, it makes one text too many.
            if event["id"] == 6013 && own.len() + 1 == data.len() {
                continue;
            }
            assert_eq!(own.len(), data.len(), "{} record {number}: {own:?} and {data:?}", path.display());
            for (own, other) in own.iter().zip(data) {
                let same = same_value(own, other[0].as_str().unwrap(), other[1].as_str());
                assert!(same, "{} record {number}: {own:?} and {other:?}", path.display());
                values += 1;
            }
        }
        let total: usize = ours.values().map(Vec::len).sum();
        assert!(total >= theirs.len(), "{}: {total} of {}", path.display(), theirs.len());
    }
    assert!(compared > 9000 && values > 3000, "{compared} records, {values} values");
}

fn numeric(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Time of the newest event of [`with_logs`].
pub(crate) const NEWEST: &str = "2024-05-08T12:00:00";
/// A day before it.
pub(crate) const DAY_BEFORE: &str = "2024-05-07T12:00:00";

/// Lays event logs into a demo disk: crashes, a service that fails, an update that does not install.
pub(crate) fn with_logs(image: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("winevt");
    std::fs::create_dir_all(folder.join("Logs")).unwrap();
    let at = |text: &str| FileTime::parse_utc(text).unwrap();
    let service = |time, times| LogEvent {
        time: at(time),
        provider: "Service Control Manager",
        id: (7031, 49152),
        level: 2,
        data: times,
    };
    let events = [
        LogEvent {
            time: at("2024-04-01"),
            provider: "Microsoft-Windows-Kernel-General",
            id: (12, 0),
            level: 4,
            data: &[("MajorVersion", "10"), ("MinorVersion", "0"), ("BuildVersion", "17763")],
        },
        service("2024-05-06", &[("param1", "Contoso Agent <b>"), ("param2", "1")]),
        service("2024-05-07T13:00", &[("param1", "Contoso Agent <b>"), ("param2", "2")]),
        LogEvent {
            time: at("2024-05-08T11:00"),
            provider: "Chatter",
            id: (1, 0),
            level: 4,
            data: &[("", "nothing of note")],
        },
        LogEvent {
            time: at(NEWEST),
            provider: "Microsoft-Windows-Kernel-Power",
            id: (41, 0),
            level: 1,
            data: &[("BugcheckCode", "126")],
        },
    ];
    std::fs::write(folder.join("Logs/System.evtx"), event_log("System", "CONTOSO-SQL01", &events)).unwrap();
    let setup = [LogEvent {
        time: at("2024-05-05"),
        provider: "Microsoft-Windows-Servicing",
        id: (3, 0),
        level: 2,
        data: &[
            ("PackageIdentifier", "KB5001"),
            ("IntendedPackageState", "Installed"),
            ("ErrorCode", "0x800f0922"),
        ],
    }];
    std::fs::write(folder.join("Logs/Setup.evtx"), event_log("Setup", "CONTOSO-SQL01", &setup)).unwrap();
    let words = [
        "put",
        image.to_str().unwrap(),
        folder.to_str().unwrap(),
        r"C:\Windows\System32\winevt",
        "-r",
        "--yes",
    ];
    let done = vmrescue(&words);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
}

fn demo(dir: &Path) -> PathBuf {
    let path = dir.join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    with_logs(&path);
    path
}

#[test]
fn a_disk_tells_what_mattered_for_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = demo(dir.path());
    let image = path.to_str().unwrap();
    let text = |more: &[&str]| {
        let words: Vec<&str> = ["events", image].into_iter().chain(more.iter().copied()).collect();
        let done = vmrescue(&words);
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let grouped = text(&[]);
    let first = grouped.lines().next().unwrap();
    assert!(first.starts_with("2024-05-08 12:00:00") && first.contains("Kernel-Power 41"), "{grouped}");
    assert!(grouped.contains("2 x  error        Service Control Manager 7031"), "{grouped}");
    assert!(
        grouped.contains("KB5001 could not become Installed: 0x800f0922") && !grouped.contains("Chatter"),
        "{grouped}"
    );
    let ids = |more: &[&str]| -> Vec<u64> {
        let words: Vec<&str> = ["events", image, "--json"].into_iter().chain(more.iter().copied()).collect();
        lines(&vmrescue(&words)).iter().map(|event| event["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids(&[]), [41, 7031, 7031, 3, 12]);
    assert_eq!(ids(&["--log", "System"]), [41, 1, 7031, 7031, 12]);
    assert_eq!(ids(&["--log", "System", "--id", "7031,41"]), [41, 7031, 7031]);
    assert_eq!(ids(&["--level", "error"]), [41, 7031, 7031, 3]);
    assert_eq!(ids(&["--level", "critical"]), [41]);
    assert_eq!(ids(&["--since", "1d"]), [41, 7031]);
    assert_eq!(ids(&["--since", DAY_BEFORE]), [41, 7031]);
    assert_eq!(ids(&["--since", "2024-05-06T00:00", "--until", "2024-05-07"]), [7031]);
    assert_eq!(ids(&["--provider", "control"]), [7031, 7031]);
    assert_eq!(ids(&["--log", "*", "--limit", "2"]), [41, 1]);
    let event = &lines(&vmrescue(&["events", image, "--id", "7031", "--limit", "1", "--json"]))[0];
    assert_eq!(event["data"][0]["value"], "Contoso Agent <b>");
    assert_eq!(event["image"]["path"], image);
    assert!(text(&["--list"]).contains("System"));
    assert_eq!(vmrescue(&["events", image, "--since", "last week"]).status.code(), Some(2));
}

/// A PE file with nothing but a message table: one block, one text.
fn message_file(number: u32, text: &str) -> Vec<u8> {
    let units: Vec<u8> = format!("{text}\0").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut table: Vec<u8> = [1, number, number, 16].into_iter().flat_map(u32::to_le_bytes).collect();
    table.extend((units.len() as u16 + 4).to_le_bytes());
    table.extend(1u16.to_le_bytes());
    table.extend(units);
    let mut resources = Vec::new();
    for (id, next) in [(11u32, 0x8000_0018u32), (1, 0x8000_0030), (0x409, 0x48)] {
        resources.extend([0u8; 14]);
        resources.extend(1u16.to_le_bytes());
        resources.extend(id.to_le_bytes());
        resources.extend(next.to_le_bytes());
    }
    for value in [0x1000 + 0x58, table.len() as u32, 0, 0] {
        resources.extend(value.to_le_bytes());
    }
    resources.extend(table);
    let mut file = vec![0u8; 0x200];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664u16.to_le_bytes());
    put(0x46, &1u16.to_le_bytes());
    put(0x54, &0xf0u16.to_le_bytes());
    put(0x58, &0x20bu16.to_le_bytes());
    put(0x58 + 108, &16u32.to_le_bytes());
    put(0x58 + 112 + 16, &0x1000u32.to_le_bytes());
    let section = 0x58 + 0xf0;
    put(section + 12, &0x1000u32.to_le_bytes());
    put(section + 16, &(resources.len() as u32).to_le_bytes());
    put(section + 20, &0x200u32.to_le_bytes());
    file.extend(resources);
    file
}

#[test]
fn texts_come_from_the_providers_files_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = demo(dir.path());
    let image = path.to_str().unwrap();
    let ok = |words: &[&str]| {
        let done = vmrescue(words);
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        done
    };
    let file = dir.path().join("scm.dll.mui");
    std::fs::write(
        &file,
        message_file(7031 | 49152 << 16, "The %1 service stopped%n%2 times.%0 never shown"),
    )
    .unwrap();
    ok(&["mkdir", image, r"C:\Windows\System32\en-US", "--yes"]);
    ok(&["put", image, file.to_str().unwrap(), r"C:\Windows\System32\en-US\scm.dll.mui", "--yes"]);
    let key = r"HKLM\SYSTEM\ControlSet001\Services\EventLog\System\Service Control Manager";
    ok(&[
        "reg",
        "set",
        image,
        key,
        "EventMessageFile",
        "REG_EXPAND_SZ",
        r"%SystemRoot%\System32\scm.dll",
        "--yes",
    ]);
    let event = &lines(&ok(&["events", image, "--id", "7031", "--limit", "1", "--json"]))[0];
    assert_eq!(event["message"], "The Contoso Agent <b> service stopped\n2 times.");
    let without =
        &lines(&ok(&["events", image, "--id", "7031", "--limit", "1", "--json", "--no-messages"]))[0];
    assert!(without["message"].is_null() && without["text"].as_str().unwrap().contains("ended unexpectedly"));
}

/// Our own logs are what another reader takes for logs.
#[test]
fn logs_of_the_demo_are_logs_to_python_evtx() {
    let Some(mut python) = tool("python3") else { return };
    if !python.args(["-c", "import Evtx"]).output().unwrap().status.success() {
        return crate::oracle::skipped("python-evtx is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("System.evtx");
    let data: Vec<String> = (0..700).map(|i| format!("value {i} {}", "x".repeat(i % 90))).collect();
    let pairs: Vec<[(&str, &str); 2]> = data.iter().map(|text| [("a", text.as_str()), ("", "z")]).collect();
    let time = FileTime::parse_utc("2024-01-01").unwrap();
    let events: Vec<LogEvent<'_>> =
        pairs.iter().map(|pair| LogEvent { time, provider: "P", id: (7, 3), level: 3, data: pair }).collect();
    std::fs::write(&path, event_log("System", "C", &events)).unwrap();
    let mine = ours(&path);
    assert_eq!(mine.len(), 700);
    assert!(
        mine.iter()
            .all(|(number, event)| event[0]["data"][0]["value"] == data[*number as usize - 1].as_str())
    );
    let Some(mut python) = tool("python3") else { return };
    let theirs = lines(&run(python.args(["-c", ORACLE]).arg(&path)));
    assert_eq!(theirs.len(), 700);
    assert_eq!(theirs[4]["data"], serde_json::json!([[data[4], null], ["z", null]]));
    assert_eq!((&theirs[0]["id"], &theirs[0]["provider"]), (&serde_json::json!(7), &serde_json::json!("P")));
}

/// A damaged chunk loses itself and no more, and is told.
#[test]
fn damage_costs_no_more_than_its_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("System.evtx");
    let text = "y".repeat(200);
    let data = [("a", text.as_str())];
    let time = FileTime::parse_utc("2024-01-01").unwrap();
    let events = vec![LogEvent { time, provider: "P", id: (7, 3), level: 3, data: &data }; 300];
    let whole = event_log("System", "C", &events);
    let chunks = (whole.len() - 4096) / 65536;
    assert!(chunks >= 3, "{chunks}");
    let per_chunk = {
        std::fs::write(&path, &whole[..4096 + 65536]).unwrap();
        ours(&path).len()
    };
    let count = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let done = vmrescue(&["events", path.to_str().unwrap(), "--json"]);
        (lines(&done).len(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    assert_eq!(count(&whole).0, 300);
    let second = 4096 + 65536;
    let mut bad = whole.clone();
    bad[second..second + 512].fill(0xAA);
    let (left, told) = count(&bad);
    assert!(left == 300 - per_chunk && told.contains("event-log-chunk-signature"), "{left} {told}");
    let mut bad = whole.clone();
    bad[second..second + 8].copy_from_slice(b"NotAChnk");
    let (left, told) = count(&bad);
    assert!(left == 300 && told.contains("lost its signature only"), "{left} {told}");
    let mut bad = whole.clone();
    bad[second + 600..second + 700].fill(0);
    let (left, told) = count(&bad);
    assert!((300 - per_chunk..300).contains(&left) && told.contains("checksum"), "{left} {told}");
    let (left, told) = count(&whole[..second + 3000]);
    assert!(left > per_chunk && left < 2 * per_chunk && told.contains("cut off"), "{left} {told}");
    let mut bad = whole.clone();
    bad[..4096].fill(0);
    assert_eq!(count(&bad).0, 300, "the header of the file is not needed");
}

#[test]
fn old_logs_are_read_dirty_or_not() {
    let Some(logs) = logs("evt") else { return };
    let mut total = 0;
    for path in logs {
        let events = lines(&vmrescue(&["events", path.to_str().unwrap(), "--json"]));
        let bytes = std::fs::read(&path).unwrap();
        // Every signature behind the header's is a record, unless newer ones were written over its end.
        // One goes around the end of the file.
        let around = [&bytes[..], &bytes[48..]].concat();
        let length_at = |at: usize| u32::from_le_bytes(around[at..at + 4].try_into().unwrap()) as usize;
        let records = (48..bytes.len() - 8).filter(|at| &bytes[at + 4..at + 8] == b"LfLe");
        let signatures = records.filter(|at| length_at(at + length_at(*at) - 4) == length_at(*at)).count();
        assert_eq!(events.len(), signatures, "{}", path.display());
        assert!(events.iter().all(|event| !event["provider"].as_str().unwrap().is_empty()));
        assert!(events.windows(2).all(|pair| pair[0]["record_id"].as_u64() >= pair[1]["record_id"].as_u64()));
        total += events.len();
    }
    assert!(total > 6000);
}
