//! Every shipped script on a disk that gives it something to do: planned, applied, verified; a second run changes nothing; undo brings the
//! file back; our check has nothing to say.

use crate::demo::vmrescue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use vmrescue::demo::{Fault, break_it, build_for};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;
use vmrescue::repair::{coverage, shipped};
use vmrescue::windows::bcd::Firmware;

fn sha(path: &Path) -> Vec<u8> {
    Sha256::digest(std::fs::read(path).unwrap()).to_vec()
}

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
[HKEY_LOCAL_MACHINE\SOFTWARE\Policies\Microsoft\Windows\System]
"CleanupProfiles"=dword:00000001
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Control\DeviceGuard\Scenarios\HypervisorEnforcedCodeIntegrity]
"Enabled"=dword:00000001
"#;

/// Files of the host that are put into the guest first.
const FILES: [(&str, &str); 6] = [
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
        ("disable-driver", vec!["name=netvsc"]),
        ("enable-boot-driver", vec!["name=storvsc"]),
        ("remove-filter-driver", vec!["name=partmgr"]),
        ("set-active", vec!["number=1"]),
        ("set-partition-type", vec!["number=1", "type=efi"]),
        ("repair-boot-sector", vec!["number=3"]),
        ("rdp-licensing-mode", vec!["server=license.contoso.com"]),
        ("registry-set", vec![r"key=HKLM\SOFTWARE\Contoso", "value=x", "data=7"]),
        ("first-boot-command", vec!["command=echo hello"]),
        ("enable-admin", vec!["user=rescue", "password=Secret-1"]),
    ])
}

/// Scripts that have nothing to do on this disk, and why.
const IDLE: [&str; 6] = [
    "safe-mode-off",        // tested after safe-mode, below
    "boot-menu-off",        // tested after serial-console, below
    "replay-hive-logs",     // the hives are clean
    "rdp-service",          // the service is as Windows has it but for its account
    "storage-drivers-boot", // only storvsc is off, which enable-boot-driver tests
    "repair-gpt",
];

fn faults(name: &str) -> Vec<Fault> {
    match name {
        "restore-driver" => vec![Fault::AcpiZeroed],
        "enable-boot-driver" | "storage-drivers-boot" => vec![Fault::StorageDriverDisabled],
        "revert-pending-updates" => vec![Fault::PendingUpdate],
        "rebuild-boot" => vec![Fault::StoreDangling],
        "repair-gpt" => vec![Fault::GptBackup],
        "set-partition-type" | "set-active" => vec![Fault::SystemPartitionUnmarked],
        "repair-boot-sector" => vec![Fault::BootSector],
        _ => Vec::new(),
    }
}

#[test]
fn every_script_works_once_is_silent_twice_and_is_undone() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.vhdx");
    build_for(&base, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
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
            std::fs::write(&host, content).unwrap();
            ok(&["put", image, host.to_str().unwrap(), path, "--yes"]);
        }
    }
    let bios = dir.path().join("bios.vhdx");
    build_for(&bios, Kind::VhdxDynamic, Firmware::Bios).unwrap();
    let parameters = parameters();
    let scripts = shipped().unwrap();
    for script in &scripts {
        let name = script.name.as_str();
        let path = dir.path().join("disk.vhdx");
        std::fs::copy(if name == "set-active" { &bios } else { &base }, &path).unwrap();
        if !faults(name).is_empty() {
            break_it(&path, &faults(name), &Silent).unwrap();
        }
        let (disk, before) = (path.to_str().unwrap(), sha(&path));
        let mut words = vec!["repair", disk, name, "--yes"];
        for set in parameters.get(name).into_iter().flatten() {
            words.extend(["--set", set]);
        }
        let mut dry = words.clone();
        dry[3] = "--dry-run";
        let planned = vmrescue(&dry);
        assert_eq!(sha(&path), before, "{name}: a dry run writes nothing");
        if name == "restore-regback" {
            // There is no copy: refused with the reason, nothing written.
            assert_eq!(code(&planned), 2, "{name}: {}", text(&planned));
            continue;
        }
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
    let rows = coverage(&shipped().unwrap());
    let covered = rows.iter().filter(|row| !row.scripts.is_empty()).count();
    assert!(covered >= 60, "{covered} of {}", rows.len());
    let json: serde_json::Value =
        serde_json::from_slice(&vmrescue(&["scripts", "--coverage", "--json"]).stdout).unwrap();
    assert_eq!(json["covered"], covered);
    eprintln!("{covered} of {} documented offline repairs have a script", rows.len());
}
