//! The disk of every rule that is data (`rules` tries them); rules of a user's own, and what `--explain` says.

use crate::demo::vmrescue;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use vmrescue::demo::{build_for, driver};
use vmrescue::fs::{MetadataChange, Times, resolve};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;
use vmrescue::time::FileTime;
use vmrescue::transaction::{Locked, Record, TransactionOptions};
use vmrescue::windows::bcd::Firmware;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What a disk has so that a rule speaks: lines of a `.reg` file, files, words for `bcd`.
#[derive(Default)]
pub(crate) struct Setup {
    build: Option<(&'static str, u32)>,
    reg: String,
    files: Vec<(&'static str, Vec<u8>, Option<i64>)>,
    bcd: Vec<Vec<&'static str>>,
}

pub(crate) const SYSTEM: &str = r"HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001";

pub(crate) fn reg(key: &str, value: &str) -> Setup {
    Setup { reg: format!("[{SYSTEM}\\{key}]\n{value}\n"), ..Setup::default() }
}

fn service(name: &str, start: u32) -> String {
    format!(
        "[{SYSTEM}\\Services\\{name}]\n\"Start\"=dword:0000000{start}\n\"Type\"=dword:00000010\n\"ImagePath\"=\"\"\n"
    )
}

/// A boot driver without a file.
pub(crate) fn driver_service(name: &str, error_control: u32) -> Setup {
    reg(
        &format!(r"Services\{name}"),
        &format!(
            "\"Start\"=dword:00000000\n\"Type\"=dword:00000001\n\"ErrorControl\"=dword:{error_control:08x}\n\"ImagePath\"=\"System32\\\\drivers\\\\{name}.sys\""
        ),
    )
}

impl Setup {
    fn and(mut self, key: &str, value: &str) -> Setup {
        self.reg += &format!("[{key}]\n{value}\n");
        self
    }
    fn service(mut self, name: &str, start: u32) -> Setup {
        self.reg += &service(name, start);
        self
    }
    fn build(mut self, build: &'static str, revision: u32) -> Setup {
        self.build = Some((build, revision));
        self
    }
    pub(crate) fn file(mut self, path: &'static str, bytes: Vec<u8>) -> Setup {
        self.files.push((path, bytes, None));
        self
    }
    /// A memory dump of the kernel with this code.
    pub(crate) fn crash(self, code: u32) -> Setup {
        let mut dump = vec![0; 8192];
        dump[..8].copy_from_slice(b"PAGEDU64");
        dump[0x38..0x3c].copy_from_slice(&code.to_le_bytes());
        self.file(r"C:\Windows\MEMORY.DMP", dump)
    }
}

fn set(words: &[&'static str]) -> Setup {
    Setup { bcd: vec![words.to_vec()], ..Setup::default() }
}

fn domain_controller() -> Setup {
    reg(r"Control\ProductOptions", "\"ProductType\"=\"LanmanNT\"")
}

/// The disk of each rule that is data.
pub(crate) fn data_setup(rule: &str) -> Option<Setup> {
    let session = r"Control\Terminal Server";
    let software = r"HKEY_LOCAL_MACHINE\SOFTWARE";
    let interface = r"Services\Tcpip\Parameters\Interfaces\{11111111-2222-3333-4444-555555555555}";
    let firewall = r"Services\SharedAccess\Parameters\FirewallPolicy";
    let rollup = |build: &str| {
        format!(
            "{software}\\Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages\\Package_for_{build}"
        )
    };
    // What finishes it at the next start.
    let pending =
        format!(r"{software}\Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending");
    let waits = "\"CurrentState\"=dword:00000060";
    let disabled = |name: &str| Setup::default().service(name, 4);
    let azure = "WindowsAzureGuestAgent";
    let pe = |version: &str| driver("hidparse.sys", version, 0x8664);
    Some(match rule {
        "safe-mode" => set(&["set", "{default}", "safeboot", "minimal"]),
        "boot-menu-waits" => Setup {
            bcd: vec![
                vec!["set", "{bootmgr}", "displaybootmenu", "yes"],
                vec!["set", "{bootmgr}", "timeout", "3600"],
            ],
            ..Setup::default()
        },
        "bad-memory-list" => set(&["set", "{badmemory}", "badmemorylist", "0x1234", "0x1235"]),
        "cleanup-profiles-policy" => Setup::default()
            .build("9600", 0)
            .and(&format!(r"{software}\Policies\Microsoft\Windows\System"), "\"CleanupProfiles\"=dword:0000001e"),
        "azure-service-restarts-machine" => {
            Setup::default().service("RdAgent", 2).and(&format!(r"{SYSTEM}\Services\RdAgent"), "\"ErrorControl\"=dword:00000003")
        }
        "dhcp-client-disabled" => disabled("Dhcp"),
        "netlogon-disabled" => disabled("Netlogon"),
        "network-store-interface-disabled" => disabled("nsi"),
        "remote-desktop-service-disabled" => disabled("TermService"),
        "network-adapter-disabled" => {
            reg(r"Enum\VMBUS\{f8615163-df3e-46c5-913f-f2d2f965ed0e}\{a}", "\"ConfigFlags\"=dword:00000001")
        }
        "azure-static-address" => reg(interface, "\"EnableDHCP\"=dword:00000000\n\"IPAddress\"=hex(7):31,00,30,00,2e,00,30,00,2e,00,30,00,2e,00,34,00,00,00,00,00")
            .service(azure, 2),
        "firewall-blocks-all" => {
            reg(&format!(r"{firewall}\PublicProfile"), "\"DoNotAllowExceptions\"=dword:00000001")
        }
        "azure-firewall-blocks-rdp" => reg(
            &format!(r"{firewall}\FirewallRules"),
            "\"RemoteDesktop-UserMode-In-TCP\"=\"v2.30|Action=Allow|Active=FALSE|Dir=In|\"",
        )
        .service(azure, 2),
        "azure-rdp-off" => Setup::default().service(azure, 2),
        "remote-desktop-drains" => reg(session, "\"TSServerDrainMode\"=dword:00000001"),
        "tls-server-off" => reg(
            r"Control\SecurityProviders\SCHANNEL\Protocols\TLS 1.2\Server",
            "\"Enabled\"=dword:00000000",
        ),
        "setup-unfinished" => reg(r"Control\Windows", "\"ShutdownTime\"=hex:00,00,00,00,00,00,da,01")
            .and(r"HKEY_LOCAL_MACHINE\SYSTEM\Setup", "\"SystemSetupInProgress\"=dword:00000001")
            .and(
                &format!(r"{software}\Microsoft\Windows\CurrentVersion\Setup\State"),
                "\"ImageState\"=\"IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE\"",
            ),
        "setup-interrupted" => Setup::default()
            .and(r"HKEY_LOCAL_MACHINE\SYSTEM\Setup", "\"SystemSetupInProgress\"=dword:00000001")
            .and(r"HKEY_LOCAL_MACHINE\SYSTEM\Setup\Status\ChildCompletion", "\"setup.exe\"=dword:00000001"),
        "servicing-failed" => {
            Setup::default().and(r"HKEY_LOCAL_MACHINE\COMPONENTS", "\"PoqexecFailure\"=hex:01")
        }
        "encryption-driver-hibun" => Setup::default().service("HIBUNfilter", 2).crash(0x6b),
        "kb5062557-cluster" => Setup::default().service("ClusSvc", 2),
        "kb5062553-vbs" => reg(
            r"Control\DeviceGuard",
            "\"EnableVirtualizationBasedSecurity\"=dword:00000001",
        )
        // The update waits: the build is still the old one.
        .and(&rollup("RollupFix~31bf3856ad364e35~amd64~~26100.4652.1.10"), waits)
        .and(&pending, "")
        .build("26100", 4349),
        "kb5058405-acpi" => {
            Setup::default().build("22631", 5335).file(r"C:\Windows\System32\drivers\ACPI.sys", vec![0; 4096])
        }
        "kb5021233-hidparse" => Setup::default()
            .build("19045", 2364)
            .file(r"C:\Windows\System32\hidparse.sys", pe("10.0.19041.1"))
            .file(r"C:\Windows\System32\drivers\hidparse.sys", pe("10.0.19041.2364")),
        "crowdstrike-291" => Setup {
            // 2024-07-19 04:10:00 UTC.
            files: vec![(
                r"C:\Windows\System32\drivers\CrowdStrike\C-00000291-00000000-00000032.sys",
                b"channel".to_vec(),
                Some(1_721_362_200),
            )],
            ..Setup::default()
        },
        "january-2022-domain-controller" => domain_controller().build("17763", 2452),
        "march-2024-lsass" => domain_controller().build("20348", 2340),
        "april-2026-lsass" => domain_controller().build("20348", 5020),
        "kb5058385-confidential-vm" => Setup::default().service("vmms", 2).build("20348", 3692),
        "secure-kernel-error-2025" => Setup::default().build("26100", 3775).crash(0x18b),
        "kb5022842-secure-boot-esxi" => {
            reg(r"Control\SecureBoot\State", "\"UEFISecureBootEnabled\"=dword:00000001")
                .service("vmci", 2)
                .build("20348", 1547)
        }
        "kb5074109-unmountable" => Setup::default()
            .build("26100", 7623)
            .file(r"C:\Windows\WinSxS\pending.xml", b"<PendingTransaction/>".to_vec())
            .crash(0xed),
        "kb4041676-delta" => Setup::default()
            .build("15063", 674)
            .file(r"C:\Windows\WinSxS\pending.xml", b"<PendingTransaction/>".to_vec()),
        "kb5003638-log-full" => Setup::default()
            .build("14393", 4283)
            .file(r"C:\Windows\WinSxS\pending.xml", b"<PendingTransaction/>".to_vec())
            .and(&rollup("KB5003638~31bf3856ad364e35~amd64~~10.0.1.3"), waits),
        "july-2018-race" => Setup::default().build("14393", 2363).crash(0xd1),
        "netvsc-no-network" => Setup::default()
            .file(r"C:\Windows\System32\drivers\netvsc.sys", driver("netvsc.sys", "10.0.14393.594", 0x8664)),
        "citrix-recording-2025" => Setup::default()
            .service("CitrixSmAudAgent", 2)
            .build("26100", 2605)
            .and(&rollup("RollupFix~31bf3856ad364e35~amd64~~26100.2894.1.4"), waits)
            .and(&pending, ""),
        "april-2019-antivirus" => Setup::default().service("SAVService", 2).build("17763", 437),
        _ => return None,
    })
}

pub(crate) fn prepare(image: &Path, setup: &Setup, dir: &Path) {
    let path = image.to_str().unwrap();
    let ok = |words: &[&str]| {
        let output = vmrescue(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output));
    };
    let mut lines = format!("Windows Registry Editor Version 5.00\n\n{}", setup.reg);
    if let Some((build, revision)) = setup.build {
        lines += &format!(
            "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion]\n\"CurrentBuildNumber\"=\"{build}\"\n\"UBR\"=dword:{revision:08x}\n"
        );
    }
    if setup.build.is_some() || !setup.reg.is_empty() {
        let file = dir.join("setup.reg");
        std::fs::write(&file, lines).unwrap();
        ok(&["reg", "import", path, file.to_str().unwrap(), "--yes"]);
    }
    for (guest, bytes, written) in &setup.files {
        let file = dir.join("file");
        std::fs::write(&file, bytes).unwrap();
        let folder = guest.rsplit_once('\\').unwrap().0;
        if vmrescue(&["ls", path, folder]).status.code() != Some(0) {
            ok(&["mkdir", path, folder, "--yes"]);
        }
        ok(&["put", path, file.to_str().unwrap(), guest, "--yes"]);
        if let Some(seconds) = written {
            set_time(image, guest, FileTime::from_unix_seconds(*seconds));
        }
    }
    for words in &setup.bcd {
        let mut all = vec!["bcd", words[0], path];
        all.extend(&words[1..]);
        all.push("--yes");
        ok(&all);
    }
}

/// Sets when a file was last written.
fn set_time(image: &Path, guest: &str, time: FileTime) {
    let tx = Locked::open(image, &TransactionOptions::default()).unwrap().stage();
    let disk = vmrescue::image::open_mut(&tx.file(), None).unwrap().disk;
    let table = vmrescue::partition::read(&disk.as_disk()).unwrap();
    let range = table.partitions.last().unwrap().range.clone();
    let mut fs = vmrescue::fs::open_mut(disk.window(range).unwrap()).unwrap();
    let parts: Vec<&str> = guest.split('\\').skip(1).collect();
    let node = resolve(&*fs, &parts).unwrap().unwrap();
    let times = Times { modified: time, ..fs.metadata(node).unwrap().times };
    fs.set_metadata(node, &MetadataChange { times: Some(times), ..MetadataChange::default() }).unwrap();
    fs.sync().unwrap();
    drop(fs);
    tx.verify(|_| Ok(()))
        .unwrap()
        .publish(Record { title: "set a time".into(), ..Record::default() }, &Silent)
        .unwrap();
}

fn findings(image: &Path, more: &[&str]) -> Vec<serde_json::Value> {
    let mut words = vec!["diagnose", image.to_str().unwrap(), "--json"];
    words.extend(more);
    let output = vmrescue(&words);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{words:?}: {e}: {}", text(&output)));
    let found = document["findings"].as_array().unwrap().clone();
    assert_eq!(output.status.code(), Some(i32::from(!found.is_empty())));
    found
}

fn names(found: &[serde_json::Value]) -> BTreeSet<String> {
    found.iter().map(|finding| finding["rule"].as_str().unwrap().to_string()).collect()
}

#[test]
fn rules_explain_themselves_and_a_user_can_add_some() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vhdx");
    build_for(&path, Kind::VhdxDynamic, Firmware::Uefi).unwrap();
    let own = dir.path().join("contoso.toml");
    std::fs::write(
        &own,
        "rule = 'contoso-agent'\ntitle = 'The agent of 2019'\nseverity = 'notice'\nconfidence = 'likely'\n\
         meaning = 'x'\nseen = 'x'\nremedy = 'ask'\n[when]\nbuild = ['17763.7558']\nedition = ['Server*']\n",
    )
    .unwrap();
    let found = findings(&path, &["--rules", own.to_str().unwrap()]);
    assert_eq!(names(&found), BTreeSet::from(["contoso-agent".to_string()]));
    // Rules over events: what, about whom, how often.
    crate::events::with_logs(&path);
    for (test, speaks) in [
        ("id = [7031]\nsubject = ['contoso*']\nat_least = 2", true),
        ("id = [7034, 7031]\nprovider = 'Service Control Manager'", true),
        ("id = [7031]\nat_least = 3", false),
        ("id = [7031]\nsubject = ['ClusSvc']", false),
        ("id = [7031]\nprovider = 'Microsoft-Windows-*'", false),
        ("id = [7030]", false),
    ] {
        let head = "rule = 'own-event'\ntitle = 'x'\nseverity = 'notice'\nconfidence = 'likely'\n\
                    meaning = 'x'\nseen = 'x'\nremedy = 'ask'\n";
        std::fs::write(&own, format!("{head}[[when.event]]\n{test}\n")).unwrap();
        let found = findings(&path, &["--rules", own.to_str().unwrap()]);
        assert_eq!(names(&found).contains("own-event"), speaks, "{test}: {found:#?}");
        if speaks {
            let said = found.iter().find(|one| one["rule"] == "own-event").unwrap().to_string();
            assert!(said.contains("Service Control Manager 7031: 2 times"), "{said}");
        }
    }
    std::fs::write(&own, "rule = 'x'\n").unwrap();
    let bad = vmrescue(&["diagnose", path.to_str().unwrap(), "--rules", own.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad).contains("contoso.toml"), "{}", text(&bad));

    for wanted in ["crowdstrike-291", "boot-driver-broken", "KB5062557"] {
        let said = vmrescue(&["diagnose", "--explain", wanted]);
        assert_eq!(said.status.code(), Some(0), "{}", text(&said));
        for part in ["How it is seen", "What cures it", "Source"] {
            assert!(text(&said).contains(part), "{wanted}: {}", text(&said));
        }
    }
    // A code that no rule looks for has a meaning all the same.
    for (code, name) in [
        ("0x80070002", "ERROR_FILE_NOT_FOUND"),
        ("800f0922", "CBS_E_INSTALLERS_FAILED"),
        ("0xC1900101-0x20017", "Setup rolled back"),
        ("0x000000C4", "DRIVER_VERIFIER_DETECTED_VIOLATION"),
    ] {
        let said = vmrescue(&["diagnose", "--explain", code]);
        assert_eq!(said.status.code(), Some(0), "{}", text(&said));
        assert!(text(&said).contains(name), "{code}: {}", text(&said));
    }
    assert_eq!(vmrescue(&["diagnose", "--explain", "nothing"]).status.code(), Some(2));
    let page = vmrescue(&["diagnose", "--list-markdown"]);
    let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md")).unwrap();
    assert!(text(&page) == kept, "write docs/rules.md anew: `vmrescue diagnose --list-markdown`");
}
