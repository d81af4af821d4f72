//! Every shipped script on a disk that gives it something to do: planned, applied, verified; a second run changes nothing; undo brings the
//! file back; our check has nothing to say.

use crate::batch::sha;
use crate::demo::vmrescue;
use crate::oracle::{run, tool};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use vmrescue::demo::{ACPI_VERSIONS, Fault, break_it, build_for, driver, store_changes};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;
use vmrescue::repair::{Options, coverage, run_changes, shipped};
use vmrescue::windows::bcd::Firmware;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// What a broken machine has in its registry so that the scripts find something to put right.
const BROKEN: &str = r#"Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\Netlogon]
"Start"=dword:00000004
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\TermService]
"Start"=dword:00000004
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\vmbus]
"Start"=dword:00000003
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\nsi]
"Start"=dword:00000004
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\Dhcp]
"Start"=dword:00000004
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\RdAgent]
"ErrorControl"=dword:00000003
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\FirewallRules]
"RemoteDesktop-UserMode-In-TCP"="v2.30|Action=Allow|Active=FALSE|Dir=In|"
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\SharedAccess\Parameters\FirewallPolicy\PublicProfile]
"DoNotAllowExceptions"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\Tcpip\Parameters\Interfaces\{11111111-2222-3333-4444-555555555555}]
"EnableDHCP"=dword:00000000
"IPAddress"=hex(7):31,00,00,00,00,00
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Enum\VMBUS\{f8615163-df3e-46c5-913f-f2d2f965ed0e}\{a}]
"ConfigFlags"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\Terminal Server\WinStations\RDP-Tcp]
"SSLCertificateSHA1Hash"=hex:01,02
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\Session Manager]
"BootExecute"=hex(7):61,00,75,00,74,00,6f,00,63,00,68,00,65,00,63,00,6b,00,20,00,61,00,75,00,74,00,6f,00,63,00,68,00,6b,00,20,00,2f,00,72,00,20,00,5c,00,3f,00,3f,00,5c,00,43,00,3a,00,00,00,00,00
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Enum\SCSI\Other&Ven_X\0000]
"UpperFilters"=hex(7):47,00,4f,00,4e,00,45,00,00,00,00,00
[HKEY_LOCAL_MACHINE\SYSTEM\Setup\Status\ChildCompletion]
"setup.exe"=dword:00000001
[HKEY_LOCAL_MACHINE\SOFTWARE\Policies\Microsoft\Windows\System]
"CleanupProfiles"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\DeviceGuard\Scenarios\HypervisorEnforcedCodeIntegrity]
"Enabled"=dword:00000001
"#;

/// Files of the host that are put into the guest first.
const FILES: [(&str, &str); 19] = [
    (r"C:\Windows\System32\config\RegBack", ""),
    (r"C:\Windows\System32\config\RegBack\SYSTEM", "@SYSTEM"),
    (r"C:\Windows\System32\config\RegBack\SOFTWARE", "@SOFTWARE"),
    (r"C:\pagefile.sys", "pages"),
    (r"C:\ProgramData", ""),
    (r"C:\ProgramData\Microsoft", ""),
    (r"C:\ProgramData\Microsoft\Crypto", ""),
    (r"C:\ProgramData\Microsoft\Crypto\RSA", ""),
    (r"C:\ProgramData\Microsoft\Crypto\RSA\MachineKeys", ""),
    (r"C:\ProgramData\Microsoft\Crypto\RSA\MachineKeys\f686aace", "key"),
    (r"C:\Windows\Temp", ""),
    (r"C:\Windows\Temp\old.tmp", "old"),
    (r"C:\WindowsAzure", ""),
    (r"C:\Windows\System32\drivers\CrowdStrike", ""),
    (r"C:\Windows\System32\drivers\CrowdStrike\C-00000291-0.sys", "channel"),
    (r"C:\Windows\System32\config\TxR", ""),
    (r"C:\Windows\System32\config\TxR\{1}.TxR.0.regtrans-ms", "log"),
    (r"C:\Windows\System32\drivers\hidparse.sys", "the good one"),
    (r"C:\Windows\System32\hidparse.sys", "the old one"),
];

fn parameters() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("restore-driver", vec!["name=ACPI.sys"]),
        ("restore-file", vec![r"path=C:\Windows\System32\drivers\ACPI.sys"]),
        ("disable-driver", vec!["name=netvsc"]),
        ("enable-boot-driver", vec!["name=storvsc"]),
        ("remove-filter-driver", vec!["name=partmgr"]),
        ("remove-device-filter", vec!["name=GONE", r"device=SCSI\Other&Ven_X\0000"]),
        ("set-active", vec!["number=1"]),
        ("set-partition-type", vec!["number=1", "type=efi"]),
        ("clear-partition-attributes", vec!["number=3"]),
        ("repair-boot-sector", vec!["number=3"]),
        ("rdp-licensing-mode", vec!["server=license.contoso.com"]),
        ("registry-set", vec![r"key=HKLM\SOFTWARE\Contoso", "value=x", "data=7"]),
        ("first-boot-command", vec!["command=echo hello"]),
        ("enable-admin", vec!["user=rescue", "password=Secret-1"]),
        ("dump-configuration", vec!["kind=7", "restart=no"]),
    ])
}

/// Scripts that have nothing to do on this disk, and why.
const IDLE: [&str; 8] = [
    "restore-partitions",         // tested in unseen.rs, on disks that lost some
    "clear-partition-attributes", // tested in hostile.rs, on disks that have some
    "restore-drive-letter",       // tested with the boot chain
    "write-boot-code",            // so is this
    "restore-boot-drivers",       // tested below, with and without a source
    "safe-mode-off",              // tested after safe-mode, below
    "boot-menu-off",              // tested after serial-console, below
    "replay-hive-logs",           // the hives are clean
];

fn faults(name: &str) -> Vec<Fault> {
    match name {
        "restore-driver" | "restore-file" => vec![Fault::AcpiZeroed],
        "winre-on" => Vec::new(),
        "enable-boot-driver" | "storage-drivers-boot" => vec![Fault::StorageDriverDisabled],
        "revert-pending-updates" => vec![Fault::PendingUpdate],
        "rebuild-boot" => vec![Fault::StoreDangling],
        "repair-gpt" => vec![Fault::GptBackup],
        "set-partition-type" | "set-active" | "system-partition" => vec![Fault::SystemPartitionUnmarked],
        "repair-boot-sector" => vec![Fault::BootSector],
        _ => Vec::new(),
    }
}

#[test]
fn every_script_works_once_is_silent_twice_and_is_undone() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.vhdx");
    build_for(&base, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let well = dir.path().join("well.vhdx");
    std::fs::copy(&base, &well).unwrap();
    let image = base.to_str().unwrap();
    let ok = |words: &[&str]| {
        let output = vmrescue(words);
        assert_eq!(code(&output), 0, "{words:?}: {}", text(&output));
        text(&output)
    };
    let reg = dir.path().join("broken.reg");
    std::fs::write(&reg, BROKEN).unwrap();
    ok(&["reg", "import", image, reg.to_str().unwrap(), "--yes"]);
    for (path, content) in FILES {
        if content.is_empty() {
            ok(&["mkdir", image, path, "--yes"]);
        } else {
            let host = dir.path().join("file");
            match content.strip_prefix('@') {
                // The hive as it was when the machine was well.
                Some(hive) => {
                    let out = host.to_str().unwrap();
                    let config = r"C:\Windows\System32\config";
                    ok(&["get", well.to_str().unwrap(), &format!(r"{config}\{hive}"), out, "--force"]);
                }
                None => std::fs::write(&host, content).unwrap(),
            }
            ok(&["put", image, host.to_str().unwrap(), path, "--yes"]);
        }
    }
    let bios = dir.path().join("bios.vhdx");
    build_for(&bios, Kind::VhdxDynamic, Firmware::Bios).unwrap();
    let parameters = parameters();
    let donor = donor(dir.path());
    let scripts = shipped().unwrap();
    for script in &scripts {
        let name = script.name.as_str();
        let path = dir.path().join("disk.vhdx");
        let on_bios = matches!(name, "set-active" | "write-boot-code");
        std::fs::copy(if on_bios { &bios } else { &base }, &path).unwrap();
        if name == "restore-file" {
            let options = Options { command: vec!["test".into()], ..Options::default() };
            run_changes(&path, "fill the store", |_| Ok(store_changes()), &options, &Silent).unwrap();
        }
        if !faults(name).is_empty() {
            break_it(&path, &faults(name), &Silent).unwrap();
        }
        let (disk, before) = (path.to_str().unwrap(), sha(&path));
        let mut words = vec!["repair", disk, name, "--yes"];
        for set in parameters.get(name).into_iter().flatten() {
            words.extend(["--set", set]);
        }
        if name == "azure-agent-install" {
            words.extend(["--source", &donor]);
        }
        if name == "integrity-checks-off" {
            words.push("--allow-unsafe");
        }
        let mut dry = words.clone();
        dry[3] = "--dry-run";
        let planned = vmrescue(&dry);
        assert_eq!(sha(&path), before, "{name}: a dry run writes nothing");
        let done = vmrescue(&words);
        assert_eq!(code(&done), 0, "{name}: {}", text(&done));
        if text(&done).contains("nothing to do") {
            assert!(IDLE.contains(&name), "{name} has nothing to do on a broken disk: {}", text(&done));
            assert_eq!(sha(&path), before);
        } else {
            assert_eq!(code(&planned), 1, "{name}: {}", text(&planned));
            let after = sha(&path);
            let again = vmrescue(&words);
            assert!(text(&again).contains("nothing to do"), "{name}, second run: {}", text(&again));
            assert_eq!(sha(&path), after, "{name}: a second run writes nothing");
            ok(&["check", disk]);
            ok(&["undo", disk, "--yes"]);
            assert_eq!(sha(&path), before, "{name}: undo brings the file back");
        }
        let _state = std::fs::remove_dir_all(dir.path().join("disk.vhdx.vmrescue"));
    }
    assert!(scripts.len() >= 45, "{}", scripts.len());
}

/// A healthy machine with an Azure agent.
fn donor(dir: &Path) -> String {
    let path = dir.join("donor.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let donor = path.to_str().unwrap().to_string();
    let (file, reg) = (dir.join("agent"), dir.join("agent.reg"));
    std::fs::write(&file, "the agent").unwrap();
    let key = r"HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services";
    let service = |name: &str| {
        format!(
            "[{key}\\{name}]\n\"Start\"=dword:00000002\n\"Type\"=dword:00000010\n[{key}\\{name}\\Parameters]\n\"x\"=\"y\"\n"
        )
    };
    let text = format!(
        "Windows Registry Editor Version 5.00\n\n{}{}",
        service("WindowsAzureGuestAgent"),
        service("RdAgent")
    );
    std::fs::write(&reg, text).unwrap();
    for words in [
        vec!["mkdir", &donor, r"C:\WindowsAzure", "--yes"],
        vec!["mkdir", &donor, r"C:\WindowsAzure\GuestAgent_2.7", "--yes"],
        vec!["put", &donor, file.to_str().unwrap(), r"C:\WindowsAzure\GuestAgent_2.7\agent.exe", "--yes"],
        vec!["reg", "import", &donor, reg.to_str().unwrap(), "--yes"],
    ] {
        let output = vmrescue(&words);
        assert_eq!(code(&output), 0, "{words:?}: {}", self::text(&output));
    }
    donor
}

/// The objects of the boot store, each with its elements as bcdedit writes them.
fn boot_entries(image: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let said = vmrescue(&["bcd", "enum", image, "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let lines = |value: &serde_json::Value| -> String {
        let lines = value.as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        lines.collect::<Vec<_>>().join(" ")
    };
    let elements = |object: &serde_json::Value| -> BTreeMap<String, String> {
        let list = object["elements"].as_array().unwrap().iter();
        list.map(|element| (element["name"].as_str().unwrap().to_string(), lines(&element["value"])))
            .collect()
    };
    let objects = document["objects"].as_array().unwrap().iter();
    objects.map(|object| (object["identifier"].as_str().unwrap().to_string(), elements(object))).collect()
}

#[test]
fn entries_of_the_boot_store_are_made_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let image = path.to_str().unwrap();
    let (before, was) = (sha(&path), boot_entries(image));
    let new_ones = |image: &str| {
        let now = boot_entries(image);
        now.into_iter().filter(|(id, _)| !was.contains_key(id)).collect::<Vec<_>>()
    };
    let planned =
        text(&vmrescue(&["repair", image, "safe-mode-entry", "--set", "mode=network", "--dry-run"]));
    let menu = planned.lines().find(|line| line.contains("{bootmgr} displayorder ")).unwrap();
    assert!(menu.contains("(was {5d2c8a10-"), "the plan says what stands there now: {menu}");
    let done = vmrescue(&["repair", image, "safe-mode-entry", "--set", "mode=network", "--yes"]);
    assert_eq!(code(&done), 0, "{}", text(&done));
    let added = new_ones(image);
    assert_eq!(added.len(), 1, "{added:?}");
    let (id, entry) = &added[0];
    assert_eq!(
        (entry["description"].as_str(), entry["safeboot"].as_str()),
        ("Windows (safe mode)", "Network")
    );
    let now = boot_entries(image);
    let manager = now.values().find(|elements| elements.contains_key("displayorder")).unwrap();
    let old_manager = was.values().find(|elements| elements.contains_key("displayorder")).unwrap();
    assert!(manager["displayorder"].contains(id.as_str()) && manager["timeout"] == "30", "{manager:?}");
    assert_eq!(manager["default"], old_manager["default"], "the machine starts as ever");
    let loader = &now[&manager["default"]];
    assert!(!loader.contains_key("safeboot"), "{loader:?}");
    assert_eq!(loader["osdevice"], entry["osdevice"]);
    let again = vmrescue(&["repair", image, "safe-mode-entry", "--set", "mode=network", "--yes"]);
    assert!(text(&again).contains("nothing to do"), "{}", text(&again));
    let gone = vmrescue(&["repair", image, "safe-mode-entry", "--set", "remove=yes", "--yes"]);
    assert_eq!(code(&gone), 0, "{}", text(&gone));
    assert!(new_ones(image).is_empty());
    assert_eq!(code(&vmrescue(&["check", image])), 0);
    for _ in 0..2 {
        assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
    }
    assert_eq!(sha(&path), before);
}

#[test]
fn steps_about_the_boot_store_see_what_came_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let image = path.to_str().unwrap();
    let own = dir.path().to_str().unwrap();
    let run = |steps: &str| {
        let script = format!("name = 'own'\ntitle = 't'\ndocumentation = 'd'\n{steps}");
        std::fs::write(dir.path().join("own.toml"), script).unwrap();
        vmrescue(&["repair", image, "own", "--scripts", own, "--yes"])
    };
    let step = |op: &str, words: &[(&str, &str)]| {
        let words: String = words.iter().map(|(key, value)| format!("{key} = '{value}'\n")).collect();
        format!("[[steps]]\nop = '{op}'\n{words}")
    };
    let (a, b) = ("{11111111-0000-0000-0000-00000000000a}", "{22222222-0000-0000-0000-00000000000b}");
    let entry = |id: &str, name: &str| {
        step("bcd.create", &[("object", id), ("like", "{default}"), ("description", name)])
    };
    let before = sha(&path);
    let done = run(&[
        entry(a, "A"),
        entry(b, "B"),
        step("bcd.order", &[("object", b), ("place", "first")]),
        step("bcd.set", &[("object", "{bootmgr}"), ("element", "default"), ("value", b)]),
        step("bcd.delete", &[("object", a)]),
        step("bcd.create", &[("object", "{ramdiskoptions}"), ("description", "RAM")]),
        step(
            "bcd.set",
            &[("object", "{ramdiskoptions}"), ("element", "ramdisksdipath"), ("value", r"\boot.sdi")],
        ),
    ]
    .concat());
    assert_eq!(code(&done), 0, "{}", text(&done));
    let now = boot_entries(image);
    let manager = now.values().find(|elements| elements.contains_key("displayorder")).unwrap();
    assert!(!manager["displayorder"].contains("11111111-"), "{manager:?}");
    let first = |list: &str| list.find("22222222-").unwrap();
    assert!(first(&manager["displayorder"]) < 3 && manager["default"].contains("22222222-"), "{manager:?}");
    assert!(
        now.values().any(|e| e.get("ramdisksdipath").is_some_and(|path| path == r"\boot.sdi")),
        "{now:?}"
    );
    assert!(!now.keys().any(|id| id.contains("11111111-")));
    assert_eq!(code(&vmrescue(&["check", image])), 0);
    assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
    assert_eq!(sha(&path), before);

    // Steps that together change nothing are nothing; conditions see what the steps before them made.
    let order = |id: &str| step("bcd.order", &[("object", id), ("place", "last")]);
    let seen = "when = { bcd = { object = '{22222222-0000-0000-0000-00000000000b}', element = 'description', value = 'B' } }\n";
    let timeout = step("bcd.set", &[("object", "{bootmgr}"), ("element", "timeout"), ("value", "9")]) + seen;
    let steps = [entry(a, "A"), entry(b, "B"), order(a), order(b), timeout].concat();
    let done = run(&steps);
    assert_eq!(code(&done), 0, "{}", text(&done));
    let now = boot_entries(image);
    let manager = now.values().find(|elements| elements.contains_key("displayorder")).unwrap();
    assert_eq!(manager["timeout"], "9");
    let again = run(&steps);
    assert!(text(&again).contains("nothing to do"), "{}", text(&again));
    assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
    assert_eq!(sha(&path), before);

    for (steps, wanted) in [
        (entry(a, ""), "needs a description"),
        (step("bcd.create", &[("object", a), ("application", "game")]), "osloader, resume"),
        (step("bcd.order", &[("object", a), ("place", "first")]), "bcd.create"),
        (step("bcd.order", &[("object", "{default}"), ("place", "middle")]), "first, last, remove"),
        (
            step("bcd.order", &[("object", "{default}"), ("place", "last"), ("list", "x")]),
            "toolsdisplayorder",
        ),
    ] {
        let refused = run(&steps);
        assert!(code(&refused) >= 2 && text(&refused).contains(wanted), "{}", text(&refused));
    }
    break_it(&path, &[Fault::StoreDangling], &Silent).unwrap();
    let broken = sha(&path);
    let set = step("bcd.set", &[("object", "{bootmgr}"), ("element", "timeout"), ("value", "7")]);
    for steps in [[step("bcd.rebuild", &[]), set.clone()], [set.clone(), step("bcd.rebuild", &[])]] {
        let refused = run(&steps.concat());
        assert!(code(&refused) >= 2 && text(&refused).contains("rebuild"), "{}", text(&refused));
        assert_eq!(sha(&path), broken, "a script that fails in the middle changes nothing");
    }
    let done = run(&[step("bcd.delete", &[("object", a)]), step("bcd.rebuild", &[])].concat());
    assert_eq!(code(&done), 0, "nothing was changed before it: {}", text(&done));
}

/// Two steps about one file: what the first one grants is still there after the second.
#[test]
fn rights_that_are_granted_one_by_one_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let image = path.to_str().unwrap();
    let step = |grants: &str| {
        format!(
            "[[steps]]\nop = 'file.grant'\npath = '${{windows}}\\System32\\drivers\\ACPI.sys'\ngrants = '{grants}'\n"
        )
    };
    let head = "name = 'own'\ntitle = 't'\ndocumentation = 'd'\n";
    let steps = [step("NETWORK SERVICE:R"), step("LOCAL SERVICE:RX"), step("NETWORK SERVICE:R")].concat();
    std::fs::write(dir.path().join("own.toml"), format!("{head}{steps}")).unwrap();
    let own = dir.path().to_str().unwrap();
    let stat = || {
        let said = text(&vmrescue(&["stat", image, r"C:\Windows\System32\drivers\ACPI.sys", "--json"]));
        let document: serde_json::Value = serde_json::from_str(&said).unwrap();
        document["security"]["sddl"].as_str().unwrap_or(&said).to_string()
    };
    let (before, old) = (sha(&path), stat());
    assert!(!old.contains(";NS)") && !old.contains(";LS)"), "{old}");
    let done = vmrescue(&["repair", image, "own", "--scripts", own, "--yes"]);
    assert_eq!(code(&done), 0, "{}", text(&done));
    assert_eq!(text(&done).matches("permissions of").count(), 1, "{}", text(&done));
    let new = stat();
    assert!(new.contains("(A;;FR;;;NS)") && new.contains(";LS)"), "{new}");
    let again = vmrescue(&["repair", image, "own", "--scripts", own, "--yes"]);
    assert!(text(&again).contains("nothing to do"), "{}", text(&again));
    assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
    assert_eq!(sha(&path), before);
}

#[test]
fn the_agent_comes_from_a_donor_and_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let donor = donor(dir.path());
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let image = path.to_str().unwrap();
    let without = vmrescue(&["repair", image, "azure-agent-install", "--yes"]);
    assert_eq!(code(&without), 2);
    assert!(text(&without).contains("--source"), "{}", text(&without));
    let done = vmrescue(&["repair", image, "azure-agent-install", "--source", &donor, "--yes"]);
    assert_eq!(code(&done), 0, "{}", text(&done));
    assert!(text(&done).contains("then: when Windows runs"), "{}", text(&done));
    assert_eq!(vmrescue(&["cat", image, r"C:\WindowsAzure\GuestAgent_2.7\agent.exe"]).stdout, b"the agent");
    for set in ["ControlSet001", "ControlSet002"] {
        let key = format!(r"HKLM\SYSTEM\{set}\Services\RdAgent\Parameters");
        assert!(text(&vmrescue(&["reg", "query", image, &key])).contains('y'), "{key}");
    }
}

/// Both copies of ACPI.sys in the store and the one in use are gone: only a source helps.
fn without_acpi(path: &Path) {
    build_for(path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let image = path.to_str().unwrap();
    for place in [
        format!(
            r"C:\Windows\WinSxS\amd64_acpi.inf_31bf3856ad364e35_{}_none_0a1b2c3d4e5f6071\ACPI.sys",
            ACPI_VERSIONS[1]
        ),
        format!(
            r"C:\Windows\WinSxS\amd64_acpi.inf_31bf3856ad364e35_{}_none_0a1b2c3d4e5f6071\ACPI.sys",
            ACPI_VERSIONS[0]
        ),
        r"C:\Windows\System32\drivers\ACPI.sys".to_string(),
    ] {
        let output = vmrescue(&["rm", image, &place, "--yes"]);
        assert_eq!(code(&output), 0, "{}", text(&output));
    }
}

#[test]
fn drivers_come_from_a_folder_a_disk_or_a_wim_when_the_store_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.vhdx");
    without_acpi(&base);
    let right = driver("ACPI.sys", "10.0.17763.6000", 0x8664);
    let tree = dir.path().join("tree/Windows/System32/drivers");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("acpi.sys"), &right).unwrap();
    // More than one chunk, so that tables and unpacking are used.
    let large: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    std::fs::write(dir.path().join("tree/large.bin"), &large).unwrap();
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("ACPI.sys"), driver("ACPI.sys", "10.0.20348.1", 0x8664)).unwrap();
    let healthy = dir.path().join("healthy.vhdx");
    build_for(&healthy, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let mut sources = vec![
        (dir.path().join("tree").to_str().unwrap().to_string(), "10.0.17763.6000"),
        (healthy.to_str().unwrap().to_string(), ACPI_VERSIONS[0]),
    ];
    for compress in ["none", "XPRESS", "LZX"] {
        let wim = dir.path().join(format!("{compress}.wim"));
        let Some(mut capture) = tool("wimlib-imagex") else { break };
        capture
            .arg("capture")
            .args([dir.path().join("tree"), wim.clone()])
            .arg(format!("--compress={compress}"));
        run(&mut capture);
        let images = vmrescue::fs::wim::open(&wim).unwrap();
        let node = vmrescue::fs::resolve(&*images[0], &["large.bin"]).unwrap().unwrap();
        assert_eq!(vmrescue::fs::read_file(&*images[0], node, "").unwrap(), large, "{compress}");
        sources.push((format!("{}#1", wim.display()), "10.0.17763.6000"));
    }
    for (source, version) in sources {
        let path = dir.path().join("disk.vhdx");
        std::fs::copy(&base, &path).unwrap();
        let image = path.to_str().unwrap();
        let words = ["repair", image, "restore-driver", "--set", "name=ACPI.sys", "--yes"];
        assert_eq!(code(&vmrescue(&words)), 2, "the store has none");
        let wrong = vmrescue(&[&words[..], &["--source", other.to_str().unwrap()]].concat());
        assert_eq!(code(&wrong), 2, "another build is not taken");
        let why = text(&wrong);
        assert!(why.contains("not taken, version") && why.contains("--set version="), "{why}");
        let done = vmrescue(&[&words[..], &["--source", &source]].concat());
        assert_eq!(code(&done), 0, "{source}: {}", text(&done));
        assert!(text(&done).contains(version), "{source}: {}", text(&done));
        let diagnosed = vmrescue(&["diagnose", image]);
        assert_eq!(code(&diagnosed), 0, "{}", text(&diagnosed));
        assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
        assert_eq!(sha(&path), sha(&base));
        let all = vmrescue(&["repair", image, "restore-boot-drivers", "--yes", "--source", &source]);
        assert_eq!(code(&all), 0, "{}", text(&all));
        assert_eq!(code(&vmrescue(&["diagnose", image])), 0);
        let _state = std::fs::remove_dir_all(dir.path().join("disk.vhdx.vmrescue"));
    }
}

const OWN: &str = r#"
name = "own"
title = "A script of a user"
documentation = "Loops, conditions, consent."
[applies]
min_build = "17763"
max_build = "17763.9999"
firmware = "uefi"
not = [{ role = "domain-controller" }]
[parameters.mode]
documentation = "what is done"
default = "soft"
[[steps]]
op = "registry.set"
key = 'HKLM\SYSTEM\${item}\Services\storvsc'
value = "Own"
type = "REG_DWORD"
data = "1"
for_each = { control_sets = true }
[[steps]]
op = "registry.set"
key = 'HKLM\SOFTWARE\Own'
value = "${item}"
type = "REG_SZ"
data = "boot driver"
for_each = { services = "v*", start = "boot" }
[[steps]]
op = "file.delete"
path = 'C:\Windows\System32\winload.exe'
unsafe = "winload.exe is deleted"
when = { parameter = { name = "mode", is = "hard" } }
[[steps]]
op = "registry.add-to-list"
key = 'HKLM\SOFTWARE\Own'
value = "List"
text = "a"
when = { registry = { key = 'HKLM\SYSTEM\CurrentControlSet\Services\storvsc', value = "Start", data = "0" }, bcd = { object = "{bootmgr}", element = "timeout" } }
[[steps]]
op = "registry.import"
text = """
Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\\SOFTWARE\\Own\\Imported]
"x"=dword:00000007
"""
[[steps]]
op = "file.mkdir"
path = 'C:\a\b'
[[steps]]
op = "file.write-text"
path = 'C:\a\b\text.txt'
text = """
one
two
"""
[[steps]]
op = "file.rename"
from = 'C:\not-there'
to = 'C:\x'
"#;

#[test]
fn scripts_of_a_user_loop_ask_and_stay_inside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let (image, folder) = (path.to_str().unwrap(), dir.path().join("own"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("own.toml"), OWN).unwrap();
    let own = folder.to_str().unwrap();
    assert!(text(&vmrescue(&["scripts", "--scripts", own])).contains("A script of a user"));
    let before = sha(&path);
    let base = ["repair", image, "own", "--scripts", own, "--yes"];
    let hard = vmrescue(&[&base[..], &["--set", "mode=hard"]].concat());
    assert_eq!(code(&hard), 3, "{}", text(&hard));
    assert!(text(&hard).contains("winload.exe is deleted") && sha(&path) == before);
    let done = vmrescue(&base);
    assert_eq!(code(&done), 0, "{}", text(&done));
    let query = |key: &str| text(&vmrescue(&["reg", "query", image, key]));
    for set in ["ControlSet001", "ControlSet002"] {
        assert!(query(&format!(r"HKLM\SYSTEM\{set}\Services\storvsc")).contains("Own"));
    }
    let list = query(r"HKLM\SOFTWARE\Own");
    assert!(
        list.contains("vmbus")
            && list.contains("volmgr")
            && !list.contains("storvsc")
            && list.contains("List"),
        "{list}"
    );
    assert!(query(r"HKLM\SOFTWARE\Own\Imported").contains('7'));
    assert_eq!(vmrescue(&["cat", image, r"C:\a\b\text.txt"]).stdout, b"one\r\ntwo\r\n");
    assert!(text(&vmrescue(&base)).contains("nothing to do"), "a second run changes nothing");
    let hard = vmrescue(&[&base[..], &["--set", "mode=hard", "--allow-unsafe"]].concat());
    assert_eq!(code(&hard), 0, "{}", text(&hard));

    // Not meant for this machine.
    let wrong = OWN.replace("min_build = \"17763\"", "min_build = \"20348\"");
    std::fs::write(folder.join("own.toml"), wrong).unwrap();
    let refused = vmrescue(&base);
    assert_eq!(code(&refused), 3, "{}", text(&refused));
    assert!(text(&refused).contains("20348") && text(&refused).contains("--force"));
    assert_eq!(code(&vmrescue(&[&base[..], &["--force"]].concat())), 0);

    // Files of the host only from the folder that was named, and a step that fails leaves everything as it was.
    let head = "name = 'own'\ntitle = 't'\ndocumentation = 'd'\n";
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::fs::write(folder.join("payload"), "payload").unwrap();
    let script = |name: &str| {
        let first = "[[steps]]\nop = 'registry.set'\nkey = 'HKLM\\SOFTWARE\\First'\nvalue = 'x'\ntype = 'REG_SZ'\ndata = 'y'\n";
        let text = format!("{head}{first}[[steps]]\nop = 'file.put'\nfrom = '{name}'\nto = 'C:\\payload'\n");
        std::fs::write(folder.join("own.toml"), text).unwrap();
    };
    let before = sha(&path);
    script("payload");
    assert_eq!(code(&vmrescue(&base)), 3, "no folder was named");
    let allowed = [&base[..], &["--allow-host-files", own]].concat();
    for name in ["../secret", dir.path().join("secret").to_str().unwrap()] {
        script(name);
        let out = vmrescue(&allowed);
        assert_eq!(code(&out), 3, "{}", text(&out));
        assert_eq!(sha(&path), before);
    }
    script("payload");
    assert_eq!(code(&vmrescue(&allowed)), 0);
    assert_eq!(vmrescue(&["cat", image, r"C:\payload"]).stdout, b"payload");
    let typed = vmrescue(&["repair", image, "disable-driver", "--set", r"name=a\b", "--yes"]);
    assert!(code(&typed) == 2 && text(&typed).contains("service"), "{}", text(&typed));
}

#[test]
fn renames_of_other_programs_stay_when_updates_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    break_it(&path, &[Fault::PendingUpdate], &Silent).unwrap();
    let image = path.to_str().unwrap();
    let pairs = [
        r"\??\C:\Windows\WinSxS\Temp\a",
        r"\??\C:\b",
        r"\??\C:\app\old.dll",
        "",
        r"\??\C:\Windows\WinSxS\Temp\c",
        "",
    ];
    let bytes: Vec<String> = format!("{}\0\0", pairs.join("\0"))
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .map(|b| format!("{b:02x}"))
        .collect();
    let reg = dir.path().join("r.reg");
    let key = r"HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\Session Manager";
    let exec: Vec<String> =
        "poqexec.exe\0\0".encode_utf16().flat_map(u16::to_le_bytes).map(|b| format!("{b:02x}")).collect();
    std::fs::write(&reg, format!("Windows Registry Editor Version 5.00\n\n[{key}]\n\"PendingFileRenameOperations\"=hex(7):{}\n\"SetupExecute\"=hex(7):{}\n", bytes.join(","), exec.join(","))).unwrap();
    assert_eq!(code(&vmrescue(&["reg", "import", image, reg.to_str().unwrap(), "--yes"])), 0);
    let done = vmrescue(&["updates", "revert-pending", image, "--yes"]);
    assert_eq!(code(&done), 0, "{}", text(&done));
    let left =
        text(&vmrescue(&["reg", "query", image, r"HKLM\SYSTEM\ControlSet001\Control\Session Manager"]));
    assert!(left.contains("old.dll") && !left.contains("WinSxS") && !left.contains("poqexec"), "{left}");
    let updates = vmrescue(&["updates", image]);
    assert!(!text(&updates).contains("pending.xml is there"), "{}", text(&updates));
    assert!(text(&vmrescue(&["updates", "revert-pending", image, "--yes"])).contains("nothing to do"));
}

#[test]
fn pairs_of_scripts_take_each_other_back_and_sources_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let image = path.to_str().unwrap();
    let enumerated = || text(&vmrescue(&["bcd", "enum", image]));
    for (on, off, word) in
        [("safe-mode", "safe-mode-off", "safeboot"), ("serial-console", "boot-menu-off", "displaybootmenu")]
    {
        assert_eq!(code(&vmrescue(&["repair", image, on, "--yes"])), 0);
        assert!(enumerated().contains(word));
        assert_eq!(code(&vmrescue(&["repair", image, off, "--yes"])), 0);
        assert!(!enumerated().contains(word));
    }
    for (wanted, script) in [
        ("0xC0000098", "restore-driver"),
        ("AZ-B05", "restore-driver"),
        ("KB5058405", "restore-driver"),
        ("AZ-C11", "firewall-off"),
    ] {
        assert!(text(&vmrescue(&["scripts", "--for", wanted])).contains(script), "{wanted}");
    }
    let rows: Vec<_> = coverage(&shipped().unwrap()).into_iter().filter(|row| row.is_full()).collect();
    let covered = rows.iter().filter(|row| row.is_covered()).count();
    assert!(covered >= 72, "{covered} of {}", rows.len());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/procedures.md");
    let written = text(&vmrescue(&["scripts", "--coverage", "--markdown"]));
    assert_eq!(std::fs::read_to_string(page).unwrap(), written, "write docs/procedures.md anew");
    let json: serde_json::Value =
        serde_json::from_slice(&vmrescue(&["scripts", "--coverage", "--json"]).stdout).unwrap();
    assert_eq!(json["covered"], covered);
    eprintln!("{covered} of {} documented offline repairs have a script", rows.len());
}
