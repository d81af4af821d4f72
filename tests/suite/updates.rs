//! Packages, sessions and the story of an update: the registry's part against hivex (through Python), the rest on a disk of our own making.

use crate::demo::vmrescue;
use crate::drivers::{disk, json_of, python_with_hivex, set, utf16, write};
use crate::oracle::{corpus, run};
use serde_json::{Value, json};
use std::process::Command;
use vmrescue::repair::Change;

const SYSTEM: &str = r"C:\Windows\System32\config\SYSTEM";
const SOFTWARE: &str = r"C:\Windows\System32\config\SOFTWARE";
const COMPONENTS: &str = r"C:\Windows\System32\config\COMPONENTS";
const SERVICING: &str = r"Microsoft\Windows\CurrentVersion\Component Based Servicing";
const ROLLUP: &str = "Package_for_RollupFix~31bf3856ad364e35~amd64~~17763.7600.1.1";

const PYTHON_PACKAGES: &str = r#"
import sys, json, struct, re, datetime, hivex
h = hivex.Hivex(sys.argv[1])
node = h.root()
for name in ["Microsoft", "Windows", "CurrentVersion", "Component Based Servicing"]:
    node = h.node_get_child(node, name)
def values(node):
    return {h.value_key(v): h.value_value(v) for v in h.node_values(node)}
def number(v):
    return struct.unpack("<I", v[1][:4])[0] if v and v[0] == 4 else None
def text(v):
    return v[1].decode("utf-16-le").rstrip("\0") if v else ""
def time(high, low):
    if high is None or low is None: return None
    ticks = high << 32 | low
    at = datetime.datetime(1601, 1, 1) + datetime.timedelta(seconds=ticks // 10_000_000)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + ".%07dZ" % (ticks % 10_000_000)
packages = {}
for c in h.node_children(h.node_get_child(node, "Packages")):
    v = values(c)
    if number(v.get("CurrentState")) is None: continue
    identity = h.node_name(c)
    kb = None
    for t in [identity, text(v.get("InstallName")), text(v.get("InstallLocation"))]:
        m = re.search(r"KB\d{6,}", t)
        if m:
            kb = m.group(0)
            break
    packages[identity] = [number(v["CurrentState"]), kb, time(number(v.get("InstallTimeHigh")), number(v.get("InstallTimeLow"))), text(v.get("InstallClient"))]
sessions = {}
for c in h.node_children(h.node_get_child(node, "SessionsPending")):
    v = values(c)
    phases = sorted(k[:-8].split("_", 1)[1] for k in v if k.endswith("TimeHigh"))
    sessions[h.node_name(c)] = [number(v.get("Complete")) == 1, phases]
print(json.dumps({"packages": packages, "sessions": sessions}))
"#;

#[test]
fn packages_and_sessions_are_those_of_hivex() {
    let (Some(corpus), Some(python)) = (corpus(), python_with_hivex()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let hive = corpus.join("03-registry/plaso-SOFTWARE-win7x86");
    let path = disk(dir.path(), &[write(SOFTWARE, std::fs::read(&hive).unwrap())]);
    let output = run(Command::new(python).args(["-c", PYTHON_PACKAGES]).arg(&hive));
    let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ours = json_of(&["updates", path.to_str().unwrap(), "--json"]);
    let packages = ours["packages"].as_array().unwrap();
    assert_eq!((packages.len(), theirs["packages"].as_object().unwrap().len()), (1034, 1034));
    for package in packages {
        let name = package["identity"].as_str().unwrap();
        let client = package["client"].as_str().unwrap_or_default();
        let seen = json!([package["state"], package["kb"], package["installed"], client]);
        assert_eq!(seen, theirs["packages"][name], "{name}");
    }
    let sessions = ours["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 47);
    for session in sessions {
        let mut phases: Vec<&str> = session["phases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|phase| phase["name"].as_str().unwrap())
            .collect();
        phases.sort_unstable();
        let name = session["id"].as_str().unwrap();
        assert_eq!(json!([session["complete"], phases]), theirs["sessions"][name], "{name}");
    }
    // Its sessions have all ended, so they are no reason to think that a restart is pending.
    let open = sessions.iter().filter(|session| session["complete"] == false).count();
    let pending = ours["pending"].as_array().unwrap();
    assert_eq!(pending.iter().any(|line| line.as_str().unwrap().contains("SessionsPending")), open > 0);
    let install =
        ours["windows_update"].as_array().unwrap().iter().find(|result| result["work"] == "Install").unwrap();
    assert_eq!(install["last_success"], "2012-03-14 07:05:41");
    let story = vmrescue(&["updates", path.to_str().unwrap(), "--story"]);
    let story = String::from_utf8_lossy(&story.stdout).into_owned();
    assert!(story.contains("2012-03-14 07:05:41") && story.contains("session 3"), "{story}");
}

const PENDING: &str = r#"<?xml version='1.0' encoding='utf-8'?>
<PendingTransaction Version="3.1" WcpVersion="10.0.17763.7558 (WinBuild.160101.0800)" Identifier="916ae75edb30da01">
  <Transactions><Transaction TransactionId="1"/></Transactions>
  <ChangeList><Change Family="acpi.inf" New="10.0.17763.7600"/></ChangeList>
  <POQ postAction="reboot">
    <HardlinkFile source="\SystemRoot\WinSxS\amd64_acpi.inf_x\ACPI.sys" destination="\??\C:\Windows\System32\drivers\ACPI.sys"/>
    <SetKeyValue path="\Registry\Machine\x" name="y" type="0x00000001" encoding="base64" value="AA=="/>
    <Checkpoint/>
    <MoveFile source="\SystemRoot\WinSxS\Temp\PendingRenames\1" destination="\SystemRoot\notepad.exe"/>
  </POQ>
</PendingTransaction>"#;

const CBS_LOG: &str = "2025-07-09 03:00:00, Info                  CBS    Session: 31190000_1 initialized by client WindowsUpdateAgent, external staging directory: (null)\r
2025-07-09 03:00:01, Info                  CBS    Exec: Processing started.  Session: 31190000_1, Package: Package_for_RollupFix~31bf3856ad364e35~amd64~~17763.7600.1.1\r
2025-07-09 03:04:00, Error                 CBS    Startup: Failed to process advanced operation queue, startupPhase: 0.  [HRESULT = 0x800f0922 - CBS_E_INSTALLERS_FAILED]\r
";

#[test]
fn the_story_of_a_stopped_update_is_told_and_reverting_tells_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let package = format!(r"{SERVICING}\Packages\{ROLLUP}");
    let session = format!(r"{SERVICING}\SessionsPending\31190000_1");
    let number = |value: u32| value.to_le_bytes().to_vec();
    let manager = r"ControlSet001\Control\Session Manager";
    let poqexec = r"C:\Windows\System32\poqexec.exe /display_progress \SystemRoot\WinSxS\pending.xml";
    // 2025-07-09T03:00:00Z
    let time = 133_965_036_000_000_000u64;
    let changes = [
        write(r"C:\Windows\WinSxS\pending.xml", PENDING.into()),
        Change::MakeDirectory { path: r"C:\Windows\Logs".into() },
        Change::MakeDirectory { path: r"C:\Windows\Logs\CBS".into() },
        write(r"C:\Windows\Logs\CBS\CBS.log", CBS_LOG.into()),
        write(
            r"C:\Windows\WinSxS\poqexec.log",
            b"2025-07-09 03:05:00 HardlinkFile failed, status 0xc000009a\r\n".to_vec(),
        ),
        set(SOFTWARE, &package, "CurrentState", 4, number(0x60)),
        set(SOFTWARE, &package, "InstallTimeHigh", 4, number((time >> 32) as u32)),
        set(SOFTWARE, &package, "InstallTimeLow", 4, number(time as u32)),
        set(
            SOFTWARE,
            &package,
            "InstallLocation",
            1,
            utf16("\\\\?\\C:\\Windows\\SoftwareDistribution\\Windows10.0-KB5062557-x64\\\0"),
        ),
        set(SOFTWARE, &session, "1_QueuedTimeHigh", 4, number((time >> 32) as u32)),
        set(SOFTWARE, &session, "1_QueuedTimeLow", 4, number(time as u32)),
        set(SOFTWARE, &session, "1_ShutdownStartTimeHigh", 4, number((time >> 32) as u32)),
        set(SOFTWARE, &session, "1_ShutdownStartTimeLow", 4, number(time as u32 + 10_000_000)),
        set(SOFTWARE, &format!(r"{SERVICING}\SessionsPending"), "Exclusive", 4, number(1)),
        Change::RegistryCreateKey { hive: SOFTWARE.into(), key: format!(r"{SERVICING}\RebootPending") },
        Change::RegistryCreateKey {
            hive: SOFTWARE.into(),
            key: format!(r"{SERVICING}\PackagesPending\{ROLLUP}"),
        },
        set(COMPONENTS, "", "PendingXmlIdentifier", 3, b"916ae75edb30da01".to_vec()),
        set(SYSTEM, manager, "SetupExecute", 7, utf16(&format!("{poqexec}\0\0"))),
        set(
            SYSTEM,
            manager,
            "PendingFileRenameOperations",
            7,
            utf16(
                "\\??\\C:\\Windows\\WinSxS\\Temp\\a\0\\??\\C:\\Windows\\a\0\\??\\C:\\Temp\\b\0\\??\\C:\\Temp\\c\0\0",
            ),
        ),
        set(SYSTEM, r"ControlSet001\Services\TrustedInstaller", "Start", 4, number(2)),
        set(SYSTEM, r"ControlSet001\Services\TrustedInstaller", "Type", 4, number(0x10)),
        set(
            SYSTEM,
            r"ControlSet001\Control\TimeZoneInformation",
            "ActiveTimeBias",
            4,
            number((-120i32).cast_unsigned()),
        ),
    ];
    let path = disk(dir.path(), &changes);
    let image = path.to_str().unwrap();
    let before = json_of(&["updates", image, "--json"]);
    let story = &before["story"];
    let verdict = before["verdict"].to_string();
    for words in [
        "KB5062557, build 17763.7600, of 2025-07-09 03:00:00 UTC: install pending",
        "a restart is pending",
        "session 31190000_1 is not finished: it reached ShutdownStart at 2025-07-09 03:00:01 UTC",
        "CBS.log: session 31190000_1 (Package_for_RollupFix",
        "0xc000009a",
    ] {
        assert!(verdict.contains(words), "{words}: {verdict}");
    }
    let pending = &story["pending_xml"];
    assert_eq!(
        pending["queues"][0],
        json!({"post_action": "reboot", "operations": 3, "before_checkpoint": 2})
    );
    assert_eq!(pending["operations"], json!({"HardlinkFile": 1, "MoveFile": 1, "SetKeyValue": 1}));
    assert_eq!(pending["files"][0]["boot"], true);
    let lines = story["lines"].as_array().unwrap();
    let times: Vec<&str> = lines.iter().filter_map(|line| line["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    // 03:04 in the guest, two hours ahead of UTC.
    let failure = lines
        .iter()
        .find(|line| line["text"].as_str().unwrap().contains("advanced operation queue"))
        .unwrap();
    assert_eq!(
        (&failure["time"], &failure["level"]),
        (&json!("2025-07-09T01:04:00.0000000Z"), &json!("error"))
    );
    assert_eq!(story["cbs_log"]["session"]["client"], "WindowsUpdateAgent");
    let error =
        story["cbs_log"]["lines"].as_array().unwrap().iter().find(|line| line["error"] == true).unwrap();
    assert_eq!(error["code"], "0x800f0922 CBS_E_INSTALLERS_FAILED");
    let next = before["next_start"].to_string();
    assert!(
        next.contains("smss runs poqexec on pending.xml: 3 operations") && next.contains("ACPI.sys"),
        "{next}"
    );
    assert!(next.contains("TrustedInstaller starts by itself"), "{next}");
    assert_eq!(before["packages"][0]["orphaned"], false);

    let done = vmrescue(&["updates", "revert-pending", image, "--yes"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("At the next start") && said.contains("smss runs no update"), "{said}");
    assert!(said.contains("orphaned packages stay as they are") && said.contains(ROLLUP), "{said}");
    let after = json_of(&["updates", image, "--json"]);
    let ours =
        after["packages"].as_array().unwrap().iter().find(|package| package["identity"] == ROLLUP).unwrap();
    assert_eq!((&ours["orphaned"], &ours["state_name"]), (&json!(true), &json!("install pending")));
    // The rename of another program stays and is told.
    assert!(
        after["next_start"].to_string().contains("0 of them of the component store"),
        "{}",
        after["next_start"]
    );
}

#[test]
fn upgrades_and_rollups_are_the_history_of_builds() {
    let dir = tempfile::tempdir().unwrap();
    let old = r"Setup\Source OS (Updated on 2021-02-09)";
    let path = disk(
        dir.path(),
        &[
            set(SYSTEM, old, "CurrentBuildNumber", 1, utf16("14393\0")),
            set(SYSTEM, old, "ProductName", 1, utf16("Windows Server 2016 Datacenter\0")),
            set(SYSTEM, old, "ReleaseId", 1, utf16("1607\0")),
            set(SYSTEM, old, "InstallDate", 4, 1_500_000_000u32.to_le_bytes().to_vec()),
        ],
    );
    let found = json_of(&["updates", path.to_str().unwrap(), "--json"]);
    let builds = found["builds"].as_array().unwrap();
    let upgrade = builds.iter().find(|step| step["build"] == "14393").unwrap();
    assert_eq!(upgrade["product"], "Windows Server 2016 Datacenter 1607");
    assert_eq!(upgrade["time"], "2017-07-14T02:40:00.0000000Z");
    assert!(builds.iter().any(|step| step["build"] == "17763.7558" && step["state"] == "installed"));
    assert!(found["verdict"].to_string().contains("nothing waits for the next start"));
}

#[test]
fn starts_and_crashes_of_the_event_logs_are_part_of_the_story() {
    let Some(corpus) = corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = r"C:\Windows\System32\winevt";
    let log = std::fs::read(corpus.join("05-evtx/plaso-HEAD-System.evtx")).unwrap();
    let path = disk(
        dir.path(),
        &[
            Change::MakeDirectory { path: folder.into() },
            Change::MakeDirectory { path: format!(r"{folder}\Logs") },
            write(&format!(r"{folder}\Logs\System.evtx"), log),
        ],
    );
    let found = json_of(&["updates", path.to_str().unwrap(), "--story", "--json"]);
    let lines = found["story"]["lines"].as_array().unwrap();
    // As python-evtx counts them: Kernel-Power 41 twice.
    let crashes: Vec<&Value> = lines.iter().filter(|line| line["source"] == "System 41").collect();
    assert_eq!(crashes.len(), 2, "{lines:?}");
    assert!(crashes.iter().all(|line| line["level"] == "error" && line["time"].is_string()));
    assert!(lines.iter().any(|line| line["source"] == "System 6005"));
    assert!(lines.iter().filter_map(|line| line["time"].as_str()).is_sorted());
}
