//! Every rule of `diagnose` has three tests: it is silent on healthy disks, it speaks on its own broken one, and after its own fix it is silent
//! again. A rule without a row here fails; a rule without a fix says why.

use crate::demo::vmrescue;
use crate::diagnose::{Setup, data_setup, driver_service, prepare, reg};
use crate::oracle::corpus;
use crate::system_partition::{delete_entry, edit_entry, writer};
use crate::unseen::{MIB, SYSTEM as ESP, WINDOWS, system_hive_of, without_list};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use vmrescue::demo::{Fault, LogEvent, break_it, build_for, driver, event_log};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;
use vmrescue::time::FileTime;
use vmrescue::windows::bcd::Firmware;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn ok(words: &[&str]) {
    let output = vmrescue(words);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", text(&output));
}

/// What `diagnose` finds.
fn findings(image: &Path) -> Vec<Value> {
    let output = vmrescue(&["diagnose", image.to_str().unwrap(), "--json"]);
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)));
    document["findings"].as_array().unwrap().clone()
}

fn names(found: &[Value]) -> BTreeSet<String> {
    found.iter().map(|finding| finding["rule"].as_str().unwrap().to_string()).collect()
}

/// Files of a folder TxR.
const TXR: [&str; 7] = [
    "{1}.TM.blf",
    "{1}.TMContainer00000000000000000001.regtrans-ms",
    "{1}.TMContainer00000000000000000002.regtrans-ms",
    "{1}.TxR.blf",
    "{1}.TxR.0.regtrans-ms",
    "{1}.TxR.1.regtrans-ms",
    "{1}.TxR.2.regtrans-ms",
];

/// What comes after the rule has spoken.
enum Cure {
    /// Its own fix, and it is silent.
    Fix,
    /// It has none: why.
    Nothing(&'static str),
}

use Cure::{Fix, Nothing};

/// What breaks a disk: the image, and a folder for files.
type Break = Box<dyn Fn(&Path, &Path)>;

struct Row(Firmware, Break, Cure);

fn uefi(cure: Cure, how: impl Fn(&Path, &Path) + 'static) -> Option<Row> {
    Some(Row(Firmware::Uefi, Box::new(how), cure))
}

fn bios(cure: Cure, how: impl Fn(&Path, &Path) + 'static) -> Option<Row> {
    Some(Row(Firmware::Bios, Box::new(how), cure))
}

fn faulty(fault: Fault) -> impl Fn(&Path, &Path) {
    move |image, _| break_it(image, &[fault], &Silent).unwrap()
}

/// Settings and files that are laid on the disk.
fn laid(setup: Setup) -> impl Fn(&Path, &Path) {
    move |image, dir| prepare(image, &setup, dir)
}

/// Bytes of the image, changed in place.
fn patched(image: &Path, start: usize, length: usize, change: impl FnOnce(&mut [u8])) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start as u64).unwrap();
    change(&mut bytes);
    file.write_all_at(&bytes, start as u64).unwrap();
}

fn zeroed(start: usize, length: usize) -> impl Fn(&Path, &Path) {
    move |image, _| patched(image, start, length, |bytes| bytes.fill(0))
}

/// Places of a record of $MFT and its copy in $MFTMirr, of the Windows volume of the demo.
fn record_places(image: &Path, number: usize) -> [usize; 2] {
    let mut places = [0; 2];
    patched(image, WINDOWS.start, 512, |boot| {
        let cluster = usize::from(boot[13]) * 512;
        let at = |field: usize| u64::from_le_bytes(boot[field..field + 8].try_into().unwrap()) as usize;
        places = [48, 56].map(|field| WINDOWS.start + at(field) * cluster + number * 1024);
    });
    places
}

/// Sets the mark of $Volume.
fn dirty(image: &Path, _: &Path) {
    for place in record_places(image, 3) {
        patched(image, place, 1024, |record| {
            let word = |at: usize| u16::from_le_bytes(record[at..at + 2].try_into().unwrap()) as usize;
            let long = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap()) as usize;
            let mut at = word(20);
            while long(at) != 0x70 {
                at += long(at + 4);
            }
            let content = at + word(at + 20);
            record[content + 10] |= 1;
        });
    }
}

/// The hive SYSTEM, with something in it destroyed.
fn hive_with(how: impl Fn(&mut Vec<u8>, &vmrescue::registry::Hive) + 'static) -> impl Fn(&Path, &Path) {
    move |image, dir| {
        let mut bytes = std::fs::read(image).unwrap();
        let (at, hive) = system_hive_of(image, dir, &bytes);
        let length = hive.bytes().len();
        let mut own = bytes[at..at + length].to_vec();
        how(&mut own, &hive);
        bytes[at..at + length].copy_from_slice(&own);
        patched(image, at, length, |place| place.copy_from_slice(&own));
    }
}

/// Writes a file of the guest.
fn put(image: &Path, dir: &Path, guest: &str, bytes: &[u8]) {
    let file = dir.join("content");
    std::fs::write(&file, bytes).unwrap();
    ok(&["put", image.to_str().unwrap(), file.to_str().unwrap(), guest, "--yes"]);
}

/// Another file in the place of one, which keeps its second name in the component store.
fn instead(guest: &'static str, bytes: Vec<u8>) -> impl Fn(&Path, &Path) {
    move |image, dir| {
        ok(&["rm", image.to_str().unwrap(), guest, "--yes"]);
        put(image, dir, guest, &bytes);
    }
}

/// A System log: provider and number, at hours before the newest.
fn logged(provider: &'static str, id: u32, hours: &'static [u64]) -> impl Fn(&Path, &Path) {
    move |image, dir| {
        let newest = FileTime::parse_utc("2024-05-08T12:00:00").unwrap();
        let mut times: Vec<FileTime> =
            hours.iter().map(|hour| FileTime(newest.0 - hour * 3600 * 10_000_000)).collect();
        times.sort();
        let data = &[("param1", "Contoso Agent")];
        let events: Vec<LogEvent<'_>> =
            times.into_iter().map(|time| LogEvent { time, provider, id: (id, 0), level: 2, data }).collect();
        let folder = r"C:\Windows\System32\winevt";
        let name = image.to_str().unwrap();
        ok(&["mkdir", name, folder, "--yes"]);
        ok(&["mkdir", name, &format!(r"{folder}\Logs"), "--yes"]);
        put(image, dir, &format!(r"{folder}\Logs\System.evtx"), &event_log("System", "CONTOSO", &events));
    }
}

/// Both copies of the table, from sector `from` on.
fn no_table(image: &Path, from: usize, with: u8) {
    patched(image, from * 512, (34 - from) * 512, |bytes| bytes.fill(with));
    patched(image, 256 * MIB - 33 * 512, 33 * 512, |bytes| bytes.fill(with));
}

/// Boot sector of the active partition and its copy say another place.
fn moved(image: &Path, _: &Path) {
    for place in [MIB, 73 * MIB - 512] {
        patched(image, place, 512, |sector| sector[28..32].copy_from_slice(&63u32.to_le_bytes()));
    }
}

/// A volume of more than 8 GiB with Windows on it and hardly any free cluster.
fn full(image: &Path, dir: &Path) {
    use vmrescue::fs::ntfs::{FormatSpec, format};
    use vmrescue::partition::{BASIC_DATA, NewPartition, write_gpt};
    let tree = dir.join("tree");
    let name = image.to_str().unwrap();
    ok(&["get", "-r", name, r"C:\Windows", tree.to_str().unwrap()]);
    let length = 9u64 << 30;
    std::fs::remove_file(image).unwrap();
    std::fs::File::create(image).unwrap().set_len(length).unwrap();
    let range = 1 << 20..length - (1 << 20);
    {
        let disk = writer(image);
        let part = NewPartition {
            type_guid: BASIC_DATA,
            mbr_type: 7,
            range: range.clone(),
            name: String::new(),
            active: false,
        };
        write_gpt(&disk, &[part]).unwrap();
        format(&disk.window(range.clone()).unwrap(), &FormatSpec::default()).unwrap();
    }
    ok(&["put", "-r", name, tree.to_str().unwrap(), r"#1:\Windows", "--yes"]);
    ok(&["mkdir", name, r"#1:\Windows\Temp", "--yes"]);
    put(image, dir, r"#1:\Windows\Temp\old.tmp", &vec![7; 4 << 20]);
    let disk = writer(image);
    let window = disk.window(range).unwrap();
    let fs = vmrescue::fs::open(window.as_disk()).unwrap();
    let (free, info) = (fs.free_bytes().unwrap(), fs.info().clone());
    let cluster = u64::from(info.cluster_bytes);
    // 298 MiB stay free: at the end, where nothing lies.
    let keep = (298 << 20) / cluster;
    let bitmap = vmrescue::fs::resolve(&*fs, &["$Bitmap"]).unwrap().unwrap();
    let old = vmrescue::fs::read_file(&*fs, bitmap, "").unwrap();
    let mut bits = old.clone();
    let mut take = free / cluster - keep;
    for byte in &mut bits {
        for bit in 0..8 {
            if take > 0 && *byte & 1 << bit == 0 {
                *byte |= 1 << bit;
                take -= 1;
            }
        }
    }
    // Where $Bitmap lies is told by its first bytes: nothing else begins like it.
    let piece = 1usize << 20;
    let place = (0..length).step_by(piece).find_map(|start| {
        let bytes = disk.as_disk().read_vec(start, piece).unwrap();
        let at = bytes.chunks(4096).position(|part| part == &old[..4096])?;
        Some(start + at as u64 * 4096)
    });
    disk.write_at(place.unwrap(), &bits).unwrap();
}

/// The disk of each rule that is code.
fn row(rule: &str) -> Option<Row> {
    let class = r"Control\Class\{71a27cdd-812a-11d0-bec7-08002be2092f}";
    let filter = "\"UpperFilters\"=hex(7):67,00,6f,00,6e,00,65,00,00,00,00,00";
    let shutdown = "\"ShutdownTime\"=hex:00,00,00,00,00,00,da,01";
    match rule {
        "could-not-look" => uefi(
            Nothing("what cannot be read is told, and repaired by check --repair"),
            hive_with(|bytes, hive| without_list(bytes, 0, hive, r"ControlSet001\Services")),
        ),
        "partition-lost" => uefi(Fix, |image, _| no_table(image, 1, 0)),
        "partition-attributes" => uefi(Fix, |image, _| edit_entry(image, 3, |entry| entry[55] |= 0x50)),
        "windows-partition-type" => uefi(Fix, |image, _| {
            ok(&["partition", "set-type", image.to_str().unwrap(), "3", "recovery", "--yes"]);
        }),
        "partition-table-lost" => {
            uefi(Nothing("the volumes that are found are another finding, partition-lost"), |image, _| {
                no_table(image, 1, 0xa5);
            })
        }
        "volume-locked" => uefi(Nothing("it needs a key"), |image, _| {
            patched(image, 73 * MIB, 512, |sector| sector[3..11].copy_from_slice(b"-FVE-FS-"));
        }),
        "volume-metadata-damaged" => uefi(Fix, |image, _| {
            let [place, _] = record_places(image, 3);
            patched(image, place, 1024, |record| record.fill(0xe5));
        }),
        "volume-dirty" => uefi(Fix, dirty),
        "gpt-copy-damaged" => uefi(Fix, faulty(Fault::GptPrimary)),
        "boot-sector-damaged" => uefi(Fix, faulty(Fault::BootSector)),
        "boot-sector-mismatch" => bios(Fix, moved),
        "system-partition-type" => uefi(Fix, faulty(Fault::SystemPartitionUnmarked)),
        "no-active-partition" => bios(Fix, faulty(Fault::SystemPartitionUnmarked)),
        "system-partition-missing" => uefi(Fix, |image, _| {
            patched(image, ESP.start, ESP.len(), |bytes| bytes.fill(0));
            delete_entry(image, 1);
        }),
        "system-partition-unreadable" => {
            bios(Nothing("what lies there is not known: it is looked at first"), zeroed(ESP.start, ESP.len()))
        }
        "boot-files-missing" => uefi(Fix, faulty(Fault::BootManagerMissing)),
        "boot-store-missing" => uefi(Fix, faulty(Fault::StoreMissing)),
        "boot-store-unreadable" => bios(Fix, faulty(Fault::StoreGarbage)),
        "boot-store-incomplete" => uefi(Fix, faulty(Fault::StoreWithoutDefault)),
        "boot-store-dangling-device" => bios(Fix, faulty(Fault::StoreDangling)),
        "system-partition-entry-lost" => uefi(Fix, |image, _| delete_entry(image, 1)),
        "system-partition-no-file-system" => uefi(Fix, zeroed(ESP.start, ESP.len())),
        "system-partition-not-fat" => uefi(Fix, |image, _| {
            let window = writer(image).window(ESP.start as u64..ESP.end as u64).unwrap();
            vmrescue::fs::ntfs::format(&window, &vmrescue::fs::ntfs::FormatSpec::default()).unwrap();
        }),
        "hive-unreadable" => {
            uefi(Nothing("hives are repaired by check --repair, or come from a backup"), |image, dir| {
                put(image, dir, r"C:\Windows\System32\config\SAM", b"no hive at all");
            })
        }
        "hive-damaged" => uefi(
            Nothing("hives are repaired by check --repair"),
            hive_with(|bytes, hive| without_list(bytes, 0, hive, r"ControlSet001\Control\Class")),
        ),
        "boot-code-missing" => bios(Fix, zeroed(0, 440)),
        "boot-entry-astray" => uefi(Fix, |image, _| {
            let gone = r"vhd=[C:]\gone.vhdx";
            for element in ["device", "osdevice"] {
                ok(&["bcd", "set", image.to_str().unwrap(), "{default}", element, gone, "--yes"]);
            }
        }),
        "boot-entry-other" => uefi(Nothing("what the entry starts may be wanted"), |image, _| {
            ok(&["bcd", "set", image.to_str().unwrap(), "{default}", "winpe", "yes", "--yes"]);
        }),
        "loader-missing" => uefi(Fix, faulty(Fault::LoaderMissing)),
        "hive-not-clean" => uefi(
            Nothing("a write is lost: check --repair --allow-unsafe"),
            hive_with(|bytes, _| {
                bytes[4] = bytes[4].wrapping_add(1);
                let words = bytes[..508].chunks(4);
                let sum = words.fold(0, |sum, word| sum ^ u32::from_le_bytes(word.try_into().unwrap()));
                bytes[508..512].copy_from_slice(&sum.to_le_bytes());
            }),
        ),
        "boot-driver-broken" => uefi(Fix, faulty(Fault::AcpiZeroed)),
        "boot-driver-left-out" => uefi(Fix, laid(driver_service("av0", 1))),
        "boot-driver-not-started" => uefi(Fix, faulty(Fault::StorageDriverDisabled)),
        "boot-driver-overridden" => {
            uefi(Fix, laid(reg(r"Services\storvsc\StartOverride", "\"0\"=dword:00000003")))
        }
        "core-file-broken" => uefi(Fix, instead(r"C:\Windows\System32\smss.exe", vec![0; 9000])),
        "core-file-missing" => uefi(Fix, |image, _| {
            ok(&["rm", image.to_str().unwrap(), r"C:\Windows\System32\csrss.exe", "--yes"]);
        }),
        "filter-driver-dangling" => uefi(Fix, laid(reg(class, filter))),
        "windows-drive-letter" => uefi(Fix, |image, _| {
            let table = vmrescue::partition::read(&writer(image).as_disk()).unwrap();
            let id = table.partitions[2].unique_guid.unwrap();
            let data = [b"DMIO:ID:".as_slice(), &id.0].concat();
            let digits: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            let key = r"HKLM\SYSTEM\MountedDevices";
            let image = image.to_str().unwrap();
            ok(&["reg", "set", image, key, r"\DosDevices\D:", "REG_BINARY", &digits, "--yes"]);
        }),
        "core-version-mixed" => uefi(
            Fix,
            instead(r"C:\Windows\System32\drivers\pci.sys", driver("pci.sys", "10.0.14393.0", 0x8664)),
        ),
        "update-pending" => uefi(Fix, faulty(Fault::PendingUpdate)),
        "servicing-stack-old" => {
            uefi(Nothing("the update is installed in the running Windows"), |image, dir| {
                for folder in [r"C:\Windows\Logs", r"C:\Windows\Logs\CBS"] {
                    ok(&["mkdir", image.to_str().unwrap(), folder, "--yes"]);
                }
                let line =
                    b"2025-07-09 Error CBS Failed, requires Servicing Stack v10 [HRESULT = 0x800f0823]\r\n";
                put(image, dir, r"C:\Windows\Logs\CBS\CBS.log", line);
            })
        }
        "transaction-log-full" => uefi(Fix, |image, dir| {
            let txr = r"C:\Windows\System32\config\TxR";
            for folder in [r"C:\Windows\Logs", r"C:\Windows\Logs\CBS", txr] {
                ok(&["mkdir", image.to_str().unwrap(), folder, "--yes"]);
            }
            // The seven of a folder that Windows has made, and a log of a hive, which is none of them.
            for name in TXR.iter().chain(&["{1}.LOG1"]) {
                put(image, dir, &format!(r"{txr}\{name}"), b"log");
            }
            put(
                image,
                dir,
                r"C:\Windows\Logs\CBS\CBS.log",
                b"Error CSI 1@2024 [HRESULT = 0x800719e4 - ERROR_LOG_FULL]\r\n",
            );
        }),
        "directory-database-missing" => uefi(
            Nothing("the database is on a disk that is not there"),
            laid(reg(r"Services\NTDS\Parameters", r#""DSA Database file"="E:\\NTDS\\ntds.dit""#)),
        ),
        "volume-full" => uefi(Fix, full),
        "crashed" => {
            uefi(Nothing("the other findings say why"), laid(reg(r"Control\Windows", shutdown).crash(0x7b)))
        }
        "startup-repair-gave-up" => uefi(Nothing("the other findings say why"), move |image, dir| {
            prepare(image, &reg(r"Control\Windows", shutdown), dir);
            for folder in [r"C:\Windows\System32\LogFiles", r"C:\Windows\System32\LogFiles\Srt"] {
                ok(&["mkdir", image.to_str().unwrap(), folder, "--yes"]);
            }
            let trail = b"Root cause found: \r\n---------------------------\r\nBoot critical file acpi.sys is corrupt.\r\n";
            put(image, dir, r"C:\Windows\System32\LogFiles\Srt\SrtTrail.txt", trail);
        }),
        "restart-loop" => uefi(
            Nothing("the other findings say why"),
            logged("Microsoft-Windows-Kernel-Power", 41, &[0, 1, 2]),
        ),
        "service-fails-again" => uefi(
            Nothing("which service is needed is for somebody to decide"),
            logged("Service Control Manager", 7031, &[0, 1, 2]),
        ),
        "file-system-damage-reported" => uefi(
            Nothing("Windows has reported it: the check finds it, or it was repaired"),
            logged("Ntfs", 55, &[0]),
        ),
        "disk-errors-reported" => uefi(Nothing("it is the disk of the host"), logged("disk", 7, &[0])),
        _ => None,
    }
}

/// Copies of an image that are holes where it is zero.
struct Master(PathBuf, Vec<(u64, Vec<u8>)>, u64);

impl Master {
    fn of(dir: &Path, firmware: Firmware) -> Master {
        let path = dir.join(format!("healthy-{firmware:?}.raw"));
        build_for(&path, Kind::Raw, firmware).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let parts = bytes.chunks(1 << 16).enumerate().filter(|(_, part)| part.iter().any(|byte| *byte != 0));
        let parts = parts.map(|(at, part)| ((at as u64) << 16, part.to_vec())).collect();
        Master(path, parts, bytes.len() as u64)
    }

    fn copy(&self, to: &Path) {
        let file = std::fs::File::create(to).unwrap();
        file.set_len(self.2).unwrap();
        for (at, part) in &self.1 {
            file.write_all_at(part, *at).unwrap();
        }
    }
}

/// Runs the fix that a finding names, with its parameters.
fn fixed(image: &Path, finding: &Value) -> Output {
    let mut words = vec!["repair".to_string(), image.to_str().unwrap().into()];
    words.push(finding["fix"]["script"].as_str().unwrap().into());
    for (key, value) in finding["fix"]["parameters"].as_object().unwrap() {
        words.extend(["--set".to_string(), format!("{key}={}", value.as_str().unwrap())]);
    }
    words.extend(["--yes".to_string(), "--allow-unsafe".to_string()]);
    vmrescue(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// One rule: it speaks on its disk, and is cured.
fn tried(rule: &str, scripted: bool, masters: &[Master; 2], dir: &Path) {
    let of_data = data_setup(rule).map(|setup| {
        let cure = if scripted { Fix } else { Nothing("its file names no script") };
        Row(Firmware::Uefi, Box::new(laid(setup)), cure)
    });
    let data = row(rule).is_none();
    let Row(firmware, how, cure) =
        row(rule).or(of_data).unwrap_or_else(|| panic!("the rule {rule} has no disk in this test"));
    let master = if firmware == Firmware::Uefi { &masters[0] } else { &masters[1] };
    let dir = tempfile::tempdir_in(dir).unwrap();
    let image = dir.path().join("disk.raw");
    master.copy(&image);
    how(&image, dir.path());
    let found = findings(&image);
    let own = found.iter().find(|finding| finding["rule"] == rule);
    let own = own.unwrap_or_else(|| panic!("{rule} is silent: {found:#?}"));
    assert!(!own["evidence"].as_array().unwrap().is_empty(), "{rule} has no evidence");
    assert!(own["remedy"].as_str().unwrap().len() > 10, "{rule} has no remedy");
    match cure {
        Nothing(why) => {
            assert!(
                own["fix"].is_null() && !why.is_empty(),
                "{rule} has a fix, and its row says that it has none"
            );
        }
        Fix => {
            // An incident and the rule of what it broke name one fix: the first of them has it.
            let with = found.iter().find(|finding| {
                let script = &finding["fix"]["script"];
                script.is_string() && (finding == &own || (data && own["fix"].is_null()))
            });
            let with = with.unwrap_or_else(|| panic!("{rule} has no fix: {own:#}"));
            let done = fixed(&image, with);
            // What else is found there is no matter here.
            assert!(matches!(done.status.code(), Some(0 | 1)), "{rule}: {}", text(&done));
            let after = findings(&image);
            assert!(
                !names(&after).contains(rule),
                "{rule} speaks after its fix: {after:#?}\n{}",
                text(&done)
            );
        }
    }
}

#[test]
fn every_rule_speaks_on_its_disk_and_is_silent_after_its_fix() {
    let dir = tempfile::tempdir().unwrap();
    let masters = [Firmware::Uefi, Firmware::Bios].map(|firmware| Master::of(dir.path(), firmware));
    for master in &masters {
        assert_eq!(names(&findings(&master.0)), BTreeSet::new(), "no false alarms on a healthy disk");
    }
    let rules = vmrescue::diagnose::rules(&[]).unwrap();
    assert!(rules.len() >= 88, "{}", rules.len());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(rule) = rules.get(place) else { break };
                    let one = || tried(&rule.rule, rule.script.is_some(), &masters, dir.path());
                    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one)) {
                        let why = panic.downcast_ref::<String>().cloned();
                        failed.lock().unwrap().push(format!("{}: {}", rule.rule, why.unwrap_or_default()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} rules fail:\n{}", failed.len(), failed.join("\n"));
}

/// Disks that others made: nothing is found on them but what they have.
#[test]
fn rules_are_silent_on_disks_that_others_made() {
    let Some(corpus) = corpus() else { return };
    let mut seen = 0;
    for folder in ["01-vhd", "01-vhd/dfvfs", "02-ntfs"] {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(corpus.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for image in files {
            let wanted = ["vhd", "vhdx", "raw", "img", "qcow2"];
            if !image.extension().is_some_and(|end| wanted.iter().any(|known| end == *known)) {
                continue;
            }
            let output = vmrescue(&["diagnose", image.to_str().unwrap(), "--json"]);
            let Ok(document) = serde_json::from_slice::<Value>(&output.stdout) else {
                panic!("{}: {}", image.display(), text(&output));
            };
            if document["verdict"].is_null() {
                // A container that was cut by its makers.
                continue;
            }
            let mut found = names(document["findings"].as_array().unwrap());
            // ext2, empty disks: no Windows can be told there, and that is said.
            found.remove("could-not-look");
            if image.ends_with("plaso-usnjrnl.qcow2") {
                // Its partition ends one sector ahead of the copy.
                assert!(found.remove("boot-sector-mismatch"));
            }
            assert_eq!(found, BTreeSet::new(), "{}", image.display());
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}

/// Hives of real machines alone, laid on the demo disk: what their values say. Files of their drivers are not there, and that is all.
#[test]
fn rules_over_values_are_silent_on_hives_of_real_machines() {
    let Some(corpus) = corpus() else { return };
    let registry = corpus.join("03-registry");
    let dir = tempfile::tempdir().unwrap();
    let master = Master::of(dir.path(), Firmware::Uefi);
    // About files, which are not those of these machines; and about the disk that the machine remembers.
    let files = [
        "boot-driver-broken",
        "boot-driver-left-out",
        "boot-driver-not-started",
        "core-file-missing",
        "core-file-broken",
        "filter-driver-dangling",
        "loader-missing",
    ];
    for (system, software) in
        [("SYSTEM", "plaso-SOFTWARE-win7x86"), ("dissect-SYSTEM-win10", ""), ("regipy/SYSTEM_2", "")]
    {
        let image = dir.path().join("disk.raw");
        master.copy(&image);
        for (hive, name) in [("SYSTEM", system), ("SOFTWARE", software)] {
            if !name.is_empty() {
                let from = registry.join(name);
                let to = format!(r"C:\Windows\System32\config\{hive}");
                ok(&["put", image.to_str().unwrap(), from.to_str().unwrap(), &to, "--yes"]);
            }
        }
        let found = findings(&image);
        let mut said = names(&found);
        for rule in files {
            said.remove(rule);
        }
        // This one was taken from a machine that ran, without its logs.
        assert_eq!(said.remove("hive-not-clean"), system == "regipy/SYSTEM_2", "{system}: {found:#?}");
        assert_eq!(said, BTreeSet::new(), "{system}: {found:#?}");
        std::fs::remove_file(&image).unwrap();
        drop(std::fs::remove_dir_all(dir.path().join("disk.raw.vmrescue")));
    }
}

/// What concerns a file system only needs no Windows.
#[test]
fn a_data_disk_is_repaired_by_the_fix_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("data.raw");
    Master::of(dir.path(), Firmware::Uefi).copy(&image);
    let name = image.to_str().unwrap();
    for tree in [r"#3:\Windows", r"#1:\EFI"] {
        ok(&["rm", name, "-r", tree, "--yes"]);
    }
    dirty(&image, dir.path());
    assert_eq!(names(&findings(&image)), BTreeSet::from(["volume-dirty".to_string()]));
    let done = vmrescue(&["repair", name, "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    assert!(text(&done).contains("cured: 1, left: 0"), "{}", text(&done));
    let clean = vmrescue(&["diagnose", name]);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean));
}

/// Logs of transactions go by their extension; presence alone is no evidence, and the logs of hives stay.
#[test]
fn logs_of_transactions_go_and_those_of_hives_stay() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("txr.raw");
    Master::of(dir.path(), Firmware::Uefi).copy(&image);
    let Row(_, how, _) = row("transaction-log-full").unwrap();
    how(&image, dir.path());
    let name = image.to_str().unwrap();
    ok(&["repair", name, "clear-txr-logs", "--yes"]);
    let left = text(&vmrescue(&["ls", name, r"C:\Windows\System32\config\TxR"]));
    assert!(left.contains("{1}.LOG1") && TXR.iter().all(|gone| !left.contains(gone)), "{left}");
    ok(&["undo", name, "--yes"]);
    // The same files, and a log that says nothing of them.
    put(&image, dir.path(), r"C:\Windows\Logs\CBS\CBS.log", b"Info CBS nothing of note\r\n");
    assert_eq!(names(&findings(&image)), BTreeSet::new());
}

/// What the component store could not give is said where a file is looked for in it.
#[test]
fn a_component_that_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("store.raw");
    Master::of(dir.path(), Firmware::Uefi).copy(&image);
    let name = image.to_str().unwrap();
    ok(&["rm", name, r"C:\Windows\System32\drivers\volmgr.sys", "--yes"]);
    // The record of the component's folder: that of a directory which has the name.
    let component: Vec<u8> = "amd64_volmgr.inf_".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bytes = std::fs::read(&image).unwrap();
    let record = (WINDOWS.start..WINDOWS.end).step_by(1024).find(|at| {
        let record = &bytes[*at..*at + 1024];
        record.starts_with(b"FILE")
            && record[22] & 2 != 0
            && record.windows(component.len()).any(|part| part == component)
    });
    patched(&image, record.unwrap() + 510, 2, |bytes| bytes.fill(0xff));
    let said = vmrescue(&["diagnose", name, "--json"]);
    let document: Value = serde_json::from_slice(&said.stdout).unwrap();
    let unread = document["could_not_look"].to_string();
    assert!(unread.contains("a component") && unread.contains("volmgr.inf"), "{}", text(&said));
    assert!(names(document["findings"].as_array().unwrap()).contains("could-not-look"), "{}", text(&said));
}

/// The list of boot files is the loader's walk: what stops the start is bad there, what is left out is to be checked.
#[test]
fn boot_files_are_judged_as_the_loader_does() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("boot.raw");
    Master::of(dir.path(), Firmware::Uefi).copy(&image);
    prepare(&image, &driver_service("av0", 1), dir.path());
    let name = image.to_str().unwrap();
    ok(&["rm", name, r"C:\Windows\System32\hal.dll", "--yes"]);
    let said = vmrescue(&["drivers", name, "--boot", "--json"]);
    let document: Value = serde_json::from_slice(&said.stdout).unwrap();
    let verdict = |file: &str| {
        let list = document["boot_files"].as_array().unwrap();
        let own = list.iter().find(|one| one["path"].as_str().unwrap().to_lowercase().ends_with(file));
        own.unwrap_or_else(|| panic!("{file}: {}", text(&said)))["verdict"].clone()
    };
    assert_eq!((verdict("hal.dll"), verdict("av0.sys")), ("bad".into(), "check".into()));
    assert_eq!((verdict("ntoskrnl.exe"), verdict("c_1252.nls")), ("ok".into(), "ok".into()));
    // Another control set has its own drivers.
    let other = vmrescue(&["drivers", name, "--boot", "--control-set", "9"]);
    assert_ne!(other.status.code(), Some(0), "there is none: {}", text(&other));
}

fn severities(found: &[Value]) -> Vec<(String, String)> {
    let word = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_string();
    found.iter().map(|finding| (word(finding, "rule"), word(finding, "severity"))).collect()
}

/// Machines that start: what is odd about them is no reason to call them broken.
#[test]
fn what_starts_is_not_called_broken() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::of(dir.path(), Firmware::Uefi);
    let image = dir.path().join("odd.raw");
    let name = image.to_str().unwrap();
    // A second EFI partition.
    master.copy(&image);
    let esp: [u8; 16] =
        [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
    edit_entry(&image, 2, |entry| entry[..16].copy_from_slice(&esp));
    ok(&["disk", "format", name, "--volume", "2", "--fs", "fat16", "--yes"]);
    let found = severities(&findings(&image));
    assert!(found.iter().all(|(_, severity)| severity != "critical"), "two EFI partitions: {found:?}");

    // The disk hangs on a controller that starts; the one that is off drives nothing.
    drop(std::fs::remove_dir_all(dir.path().join("odd.raw.vmrescue")));
    master.copy(&image);
    let disk = "{4d36e967-e325-11ce-bfc1-08002be10318}";
    let controller = "{4d36e96a-e325-11ce-bfc1-08002be10318}";
    let device = |id: &str, service: &str, class: &str, prefix: &str| {
        reg(
            &format!(r"Enum\{id}"),
            &format!("\"Service\"=\"{service}\"\n\"ClassGUID\"=\"{class}\"\n{prefix}"),
        )
    };
    // Whatever drives it, it is a driver that is started.
    for setup in [
        device(r"PCI\VEN_1\3&2&0&39", "pcw", controller, "\"ParentIdPrefix\"=\"4&3\""),
        device(r"SCSI\DiskVirtual\4&3&0&0.0.0", "disk", disk, ""),
        reg(r"Services\storvsc", "\"Start\"=dword:00000004"),
    ] {
        prepare(&image, &setup, dir.path());
    }
    let found = severities(&findings(&image));
    assert!(found.iter().all(|(_, severity)| severity != "critical"), "another controller: {found:?}");
    // The same, and the disk hangs on nothing that starts.
    prepare(&image, &reg(r"Enum\PCI\VEN_1\3&2&0&39", "\"Service\"=\"storvsc\""), dir.path());
    let found = severities(&findings(&image));
    assert!(found.contains(&("boot-driver-not-started".into(), "critical".into())), "{found:?}");
}

/// A boot sector without code is named; where its code comes from is for somebody to say.
#[test]
fn a_boot_sector_without_code_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("code.raw");
    Master::of(dir.path(), Firmware::Bios).copy(&image);
    for place in [MIB, 73 * MIB - 512] {
        patched(&image, place + 0x54, 0x1fe - 0x54, |code| code.fill(0));
    }
    let found = severities(&findings(&image));
    assert_eq!(found, [("boot-code-missing".to_string(), "critical".to_string())]);
}
