//! What `inspect` says, against independent programs: corpus hives laid into a disk of our own making, read by regipy and
//! by us; BitLocker volumes read by libbde.

use crate::demo::vmrescue;
use crate::oracle::{corpus, run, skipped, tool};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue::block::{Disk, DiskMut, HostFile, MemoryDevice, WritableDevice};
use vmrescue::crypt::{Keys, volume};
use vmrescue::demo::build;
use vmrescue::fs::{NodeKind, resolve};
use vmrescue::image::{self, Kind, OpenOptions, open_path};
use vmrescue::windows::Machine;

/// Writes files into the Windows volume of a demo disk, in the place of those that are there.
pub(crate) fn lay(image: &Path, files: &[(&str, Vec<u8>)]) {
    let host: Arc<dyn WritableDevice> = Arc::new(HostFile::open_write(image).unwrap());
    let file = DiskMut::new(host);
    let disk = image::open_mut(&file, None).unwrap().disk;
    let range = vmrescue::partition::read(&disk.as_disk()).unwrap().partitions[2].range.clone();
    let mut fs = vmrescue::fs::open_mut(disk.window(range).unwrap()).unwrap();
    for (path, data) in files {
        let parts: Vec<&str> = path.split('\\').collect();
        let (name, folders) = parts.split_last().unwrap();
        let mut at = fs.root();
        for folder in folders {
            at = match fs.lookup(at, folder).unwrap() {
                Some(next) => next,
                None => fs.create(at, folder, NodeKind::Directory).unwrap(),
            };
        }
        if resolve(&*fs, &parts).unwrap().is_some() {
            fs.remove(at, name).unwrap();
        }
        let node = fs.create(at, name, NodeKind::File).unwrap();
        fs.write(node, "", 0, data).unwrap();
    }
    fs.sync().unwrap();
    disk.flush().unwrap();
}

/// A demo disk with these hives in `System32\config`.
fn disk_with(dir: &Path, hives: &[(&str, &Path)]) -> PathBuf {
    let image = dir.join("disk.img");
    build(&image, Kind::Raw).unwrap();
    let files: Vec<(String, Vec<u8>)> = hives
        .iter()
        .map(|(name, file)| (format!(r"Windows\System32\config\{name}"), std::fs::read(file).unwrap()))
        .collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(path, data)| (path.as_str(), data.clone())).collect();
    lay(&image, &files);
    image
}

fn inspected(image: &Path) -> Value {
    let output = vmrescue(&["inspect", image.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a Python script prints as JSON; `None`, loudly, when the module is not there.
fn python(module: &str, script: &str, words: &[&str]) -> Option<Value> {
    let mut command = tool("python3")?;
    if !command.args(["-c", &format!("import {module}")]).output().unwrap().status.success() {
        skipped(&format!("python3 has no module {module}"));
        return None;
    }
    let output = run(tool("python3")?.args(["-c", script]).args(words));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_hive_is_read_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    let machine = Machine::open(open_path(&path, &OpenOptions::default()).unwrap().disk).unwrap();
    let installation = machine.installation(None).unwrap();
    let hive = |machine: &Machine, name: &str| machine.hive(installation, name).unwrap();
    let first = hive(&machine, "SYSTEM");
    assert!(Arc::ptr_eq(&first, &hive(&machine, "system")), "read once");
    assert!(Arc::ptr_eq(&first, &hive(&machine.clone(), "SYSTEM")), "clones share");
    assert!(!Arc::ptr_eq(&first, &hive(&machine, "SOFTWARE")));
    let large = hive(&machine, "COMPONENTS");
    assert!(Arc::ptr_eq(&large, &hive(&machine, "COMPONENTS")), "shared while somebody has it");
    let kept = Arc::downgrade(&large);
    drop(large);
    assert!(kept.upgrade().is_none(), "too large to keep");
}

/// The facts of a SYSTEM hive as regipy's reader gives them, raw.
const SYSTEM: &str = r#"
import sys, json, logging
logging.disable(logging.CRITICAL)
from regipy.registry import RegistryHive
h = RegistryHive(sys.argv[1])
def key(path):
    try: return h.get_key(path)
    except Exception: return None
def value(path, name):
    k = key(path)
    if k is None: return None
    for v in k.iter_values(as_json=False, trim_values=False):
        if v.name.lower() == name.lower(): return v.value
    return None
n = value("\\Select", "Default")
c = "\\ControlSet%03d" % n
def number(path, name):
    v = value(path, name)
    return v if isinstance(v, int) else None
def signed(n): return None if n is None else (n - 2**32 if n >= 2**31 else n)
def text(v):
    if isinstance(v, bytes): v = v.decode("utf-16-le", "ignore")
    return None if v in (None, "") else str(v).split("\0")[0]
shutdown = value(c + "\\Control\\Windows", "ShutdownTime")
if isinstance(shutdown, str): shutdown = bytes.fromhex(shutdown)
addresses = {}
interfaces = key(c + "\\Services\\Tcpip\\Parameters\\Interfaces")
for k in (interfaces.iter_subkeys() if interfaces else []):
    p = c + "\\Services\\Tcpip\\Parameters\\Interfaces\\" + k.name
    if number(p, "EnableDHCP") == 1: addresses[k.name.lower()] = text(value(p, "DhcpIPAddress"))
p = c + "\\Control\\"
z = p + "TimeZoneInformation"
services = [s.name for s in key(c + "\\Services").iter_subkeys()]
pages = value(p + "Session Manager\\Memory Management", "PagingFiles")
print(json.dumps({
  "computer": text(value(p + "ComputerName\\ComputerName", "ComputerName")),
  "shutdown": int.from_bytes(shutdown[:8], "little") if shutdown else None,
  "zone": text(value(z, "TimeZoneKeyName")) or text(value(z, "StandardName")),
  "bias": signed(number(z, "Bias")), "active": signed(number(z, "ActiveTimeBias")),
  "pages": [x.split(" ")[0] for x in (pages or []) if x],
  "dump": number(p + "CrashControl", "CrashDumpEnabled"), "reboot": number(p + "CrashControl", "AutoReboot"),
  "denied": number(p + "Terminal Server", "fDenyTSConnections"),
  "port": number(p + "Terminal Server\\WinStations\\RDP-Tcp", "PortNumber"),
  "domain_on": number(c + "\\Services\\SharedAccess\\Parameters\\FirewallPolicy\\DomainProfile", "EnableFirewall"),
  "host": text(value(c + "\\Services\\Tcpip\\Parameters", "NV Hostname")),
  "addresses": addresses, "services": len(services),
  "hyperv": sorted(s for s in services if s.lower() in ("vmbus", "storvsc", "netvsc")),
  "product_type": text(value(p + "ProductOptions", "ProductType")),
}))
"#;

#[test]
fn settings_of_real_hives_are_those_that_regipy_reads() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("03-registry");
    for name in ["SYSTEM", "dissect-SYSTEM-win10", "regipy/SYSTEM_2"] {
        let file = folder.join(name);
        let Some(theirs) = python("regipy", SYSTEM, &[file.to_str().unwrap()]) else { return };
        let dir = tempfile::tempdir().unwrap();
        let document = inspected(&disk_with(dir.path(), &[("SYSTEM", &file)]));
        let facts = &document["installations"][0]["facts"];
        assert_eq!(facts["unreadable"], serde_json::json!([]), "{name}");
        let identity = &facts["identity"];
        assert!(
            theirs["computer"].is_string() && theirs["services"].as_u64().unwrap() > 200,
            "{name}: {theirs}"
        );
        // The active name may be another until the next start.
        let ours = if identity["pending_name"].is_null() { "computer_name" } else { "pending_name" };
        assert_eq!(identity[ours], theirs["computer"], "{name}");
        let shutdown = theirs["shutdown"].as_u64().map(|number| vmrescue::time::FileTime(number).to_string());
        assert_eq!(identity["last_shutdown"].as_str(), shutdown.as_deref(), "{name}");
        assert_eq!(identity["time_zone"]["name"], theirs["zone"], "{name}");
        assert_eq!(identity["time_zone"]["bias_minutes"], theirs["bias"], "{name}");
        assert_eq!(identity["time_zone"]["active_bias_minutes"], theirs["active"], "{name}");
        assert_eq!(identity["product_type"], theirs["product_type"], "{name}");
        let pages: Vec<&str> = facts["page_files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["path"].as_str().unwrap())
            .collect();
        let pages_of_theirs: Vec<&str> =
            theirs["pages"].as_array().unwrap().iter().map(|page| page.as_str().unwrap()).collect();
        assert_eq!(pages, pages_of_theirs, "{name}");
        let kinds = ["none", "complete", "kernel", "small", "", "", "", "automatic"];
        let kind = theirs["dump"].as_u64().map(|number| kinds[number as usize]);
        assert_eq!(facts["crash"]["settings"]["kind"].as_str(), kind, "{name}");
        let flag = |value: &Value| value.as_u64().map(|number| number != 0);
        assert_eq!(facts["crash"]["settings"]["auto_reboot"].as_bool(), flag(&theirs["reboot"]), "{name}");
        assert_eq!(facts["rdp"]["denied"].as_bool(), flag(&theirs["denied"]), "{name}");
        assert_eq!(facts["rdp"]["port"], theirs["port"], "{name}");
        assert_eq!(facts["firewall"]["profiles"][0]["on"].as_bool(), flag(&theirs["domain_on"]), "{name}");
        assert_eq!(facts["network"]["host_name"], theirs["host"], "{name}");
        for adapter in facts["network"]["adapters"].as_array().unwrap() {
            let id = adapter["id"].as_str().unwrap().to_lowercase();
            if let Some(address) = theirs["addresses"].get(&id).filter(|_| adapter["dhcp"] == true) {
                let given = address.as_str().filter(|address| *address != "0.0.0.0");
                assert_eq!(adapter["dhcp_address"].as_str(), given, "{name} {id}");
            }
        }
        let families = facts["virtualization"].as_array().unwrap();
        let ours: Vec<&str> = families
            .iter()
            .filter(|family| family["family"] == "Hyper-V")
            .flat_map(|family| family["drivers"].as_array().unwrap())
            .filter_map(|driver| driver["name"].as_str())
            .filter(|name| ["vmbus", "storvsc", "netvsc"].contains(name))
            .collect();
        assert_eq!(ours.len(), theirs["hyperv"].as_array().unwrap().len(), "{name}");
    }
}

const SOFTWARE: &str = r#"
import sys, json, logging
logging.disable(logging.CRITICAL)
from regipy.registry import RegistryHive
h = RegistryHive(sys.argv[1])
def values(path):
    return {v.name: v.value for v in h.get_key(path).iter_values(as_json=False, trim_values=False)}
v = values("\\Microsoft\\Windows NT\\CurrentVersion")
cbs = "\\Microsoft\\Windows\\CurrentVersion\\Component Based Servicing"
stack = [x for x in values(cbs + "\\Version") if x]
left = [k.name for k in h.get_key(cbs + "\\SessionsPending").iter_subkeys()
    if not any(v.name == "Complete" and v.value == 1 for v in k.iter_values(as_json=False))]
print(json.dumps({"product": v.get("ProductName"), "edition": v.get("EditionID"), "build": v.get("CurrentBuildNumber"),
  "installed": v.get("InstallDate"), "owner": v.get("RegisteredOwner"), "lab": v.get("BuildLabEx"),
  "packages": h.get_key(cbs + "\\Packages").subkey_count, "left": len(left), "sessions": h.get_key(cbs + "\\SessionsPending").subkey_count,
  "stack": max(stack, key=lambda t: [int(n) for n in t.split(".")])}))
"#;

#[test]
fn version_and_servicing_of_a_real_hive_are_those_that_regipy_reads() {
    let Some(corpus) = corpus() else { return };
    let file = corpus.join("03-registry/plaso-SOFTWARE-win7x86");
    let Some(theirs) = python("regipy", SOFTWARE, &[file.to_str().unwrap()]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let document = inspected(&disk_with(dir.path(), &[("SOFTWARE", &file)]));
    let facts = &document["installations"][0]["facts"];
    let identity = &facts["identity"];
    for (ours, name) in [
        ("product", "product"),
        ("edition", "edition"),
        ("build", "build"),
        ("owner", "owner"),
        ("build_lab", "lab"),
    ] {
        assert_eq!(identity[ours], theirs[name], "{name}");
    }
    let installed = vmrescue::time::FileTime::from_unix_seconds(theirs["installed"].as_i64().unwrap());
    assert_eq!(identity["installed"].as_str().unwrap(), installed.to_string());
    assert_eq!(facts["servicing"]["packages"], theirs["packages"]);
    assert_eq!(facts["servicing"]["stack_version"], theirs["stack"]);
    assert_eq!(
        (theirs["packages"].as_u64(), theirs["sessions"].as_u64()),
        (Some(1034), Some(47)),
        "as the manifest says"
    );
    // Sessions that ended stay in the list of Windows 7 and wait for nothing.
    let pending = facts["servicing"]["pending"].to_string();
    let left = theirs["left"].as_u64().unwrap();
    assert_eq!(pending.contains("SessionsPending"), left > 0, "{left} are left: {pending}");
    assert_eq!(facts["servicing"]["reboot_pending"].as_bool().unwrap(), pending != "[]", "{pending}");
}

const SAM: &str = r#"
import sys, json, logging
logging.disable(logging.CRITICAL)
from regipy.registry import RegistryHive
from regipy.plugins.sam.samparse import SAMParsePlugin
h = RegistryHive(sys.argv[1])
names = {}
for k in h.get_key("\\SAM\\Domains\\Account\\Users\\Names").iter_subkeys():
    kinds = [v.value_type for v in k.iter_values(as_json=False)]
    names[k.name] = kinds[0] if kinds else None
p = SAMParsePlugin(h, as_json=True)
p.run()
print(json.dumps({"users": p.entries, "names": sorted(names)}))
"#;

#[test]
fn local_users_are_those_that_regipy_reads_and_no_secret_is_told() {
    let Some(corpus) = corpus() else { return };
    for name in ["regipy/SAM", "velociraptor/SAM", "winreg-kb/SAM"] {
        let file = corpus.join("03-registry").join(name);
        let Some(theirs) = python("regipy", SAM, &[file.to_str().unwrap()]) else { return };
        let dir = tempfile::tempdir().unwrap();
        let document = inspected(&disk_with(dir.path(), &[("SAM", &file)]));
        let users = document["installations"][0]["facts"]["users"].as_array().unwrap().clone();
        let list = theirs["users"].as_array().unwrap();
        assert!(list.len() >= 2, "{name}");
        assert_eq!(users.len(), list.len(), "{name}");
        let mut names: Vec<&str> = users.iter().map(|user| user["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let known: Vec<&str> =
            theirs["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names, known, "{name}");
        for user in &users {
            let their = list.iter().find(|their| their["rid"] == user["rid"]).unwrap();
            let flags = their["account_flags"].as_u64().unwrap();
            assert_eq!(user["disabled"].as_bool().unwrap(), flags & 1 != 0, "{name} {user}");
            assert_eq!(user["locked"].as_bool().unwrap(), flags & 0x400 != 0, "{name} {user}");
            // To the second: regipy has microseconds, we have all seven digits.
            let second = |time: &Value| time.as_str().map(|text| text[..19].to_string());
            assert_eq!(second(&user["last_logon"]), second(&their["last_login"]), "{name} {user}");
            assert_eq!(second(&user["password_set"]), second(&their["password_last_set"]), "{name} {user}");
            assert_eq!(user["logons"], their["login_count"], "{name} {user}");
        }
        let administrator = users.iter().find(|user| user["rid"] == 500).unwrap();
        assert_eq!(administrator["administrator"], true, "{name}: the built-in administrator is one");
        assert_eq!(
            users.iter().find(|user| user["rid"] == 501).unwrap()["administrator"],
            false,
            "{name}: a guest is none"
        );
        // Nothing as long as a hash is told of a user.
        assert!(users.iter().all(|user| user.as_object().unwrap().len() == 15), "{name}");
    }
}

const BDE: &str = r#"
import sys, json, io, pybde
v = pybde.volume()
v.open_file_object(open(sys.argv[1], "rb"))
print(json.dumps({"id": v.get_volume_identifier(), "method": v.get_encryption_method(), "created": v.get_creation_time_as_integer(),
  "description": v.get_description(), "locked": v.is_locked(),
  "protectors": [[p.identifier, p.type] for p in (v.get_key_protector(i) for i in range(v.get_number_of_key_protectors()))]}))
"#;

#[test]
fn protectors_of_bitlocker_volumes_are_those_that_libbde_reads() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("07-bitlocker/dissect-fve");
    let dir = tempfile::tempdir().unwrap();
    // The kind that made the file is in its name.
    let expected = [
        ("aes-xts_128", "AES-XTS 128", "encrypted", "password"),
        ("aes_256", "AES-CBC 256", "encrypted", "password"),
        ("aes_128_diffuser", "AES-CBC 128 with diffuser", "encrypted", "password"),
        ("recovery_password", "AES-XTS 128", "encrypted", "recovery password"),
        ("startup_key", "AES-XTS 128", "encrypted", "external key"),
        ("suspended", "AES-XTS 128", "suspended", "clear key"),
    ];
    for (name, method, state, kind) in expected {
        let packed = folder.join(format!("{name}.bin.gz"));
        let Some(mut gzip) = tool("gzip") else { return };
        let bytes = run(gzip.arg("-dc").arg(&packed)).stdout;
        let plain = dir.path().join("volume.bin");
        std::fs::write(&plain, &bytes).unwrap();
        let disk = Disk::new(Arc::new(MemoryDevice::new(bytes)));
        let ours = volume(&disk, &Keys::none()).unwrap().unwrap().info;
        assert_eq!((ours.method.as_str(), ours.state), (method, state), "{name}");
        assert!(ours.protectors.iter().any(|protector| protector.kind == kind), "{name}: {ours:?}");
        assert_eq!(ours.good_copies, 3, "{name}");
        let Some(theirs) = python("pybde", BDE, &[plain.to_str().unwrap()]) else { continue };
        assert_eq!(theirs["id"].as_str().unwrap(), ours.id, "{name}");
        assert_eq!(theirs["description"].as_str(), ours.description.as_deref(), "{name}");
        assert_eq!(theirs["created"].as_u64(), ours.created.map(|time| time.0), "{name}");
        assert_eq!(theirs["locked"].as_bool().unwrap(), !ours.key_in_the_clear, "{name}");
        let number = |kind: &str| match kind {
            "clear key" => 0,
            "external key" => 0x200,
            "recovery password" => 0x800,
            "password" => 0x2000,
            other => panic!("{other}"),
        };
        let list: Vec<Value> =
            ours.protectors.iter().map(|p| serde_json::json!([p.id, number(&p.kind)])).collect();
        assert_eq!(theirs["protectors"], Value::from(list), "{name}");
    }
}

#[test]
fn a_locked_disk_says_which_protectors_open_it() {
    let Some(corpus) = corpus() else { return };
    let packed = corpus.join("07-bitlocker/dissect-fve/recovery_password.bin.gz");
    let Some(mut gzip) = tool("gzip") else { return };
    let bytes = run(gzip.arg("-dc").arg(&packed)).stdout;
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("locked.img");
    std::fs::write(&image, bytes).unwrap();
    let document = inspected(&image);
    let volume = &document["volumes"][0];
    assert_eq!(volume["bitlocker"]["state"], "encrypted");
    let id = "3c116b76-c67b-484e-b439-ce2ed68b561e";
    assert!(volume["error"].as_str().unwrap().contains(&format!("recovery password {{{id}}}")), "{volume}");
    for words in [&["inspect"][..], &["diagnose"], &["ls"]] {
        let mut all = vec![words[0], image.to_str().unwrap()];
        if words[0] == "ls" {
            all.push(r"#1:\");
        }
        let output = vmrescue(&all);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(id), "{words:?}: {text}");
    }
}

/// A kernel dump of 64 bits, as far as its header goes.
pub(crate) fn kernel_dump(code: u32, time: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = b"PAGE".repeat(0x2000 / 4);
    bytes[4..8].copy_from_slice(b"DU64");
    let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
    put(0x0c, &17763u32.to_le_bytes());
    put(0x38, &code.to_le_bytes());
    put(0x40, &[0x11; 32]);
    put(0xf98, &2u32.to_le_bytes());
    put(0xfa8, &time.to_le_bytes());
    bytes
}

#[test]
fn facts_that_lie_in_files_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.vhdx");
    build(&image, Kind::VhdxDynamic).unwrap();
    let time = 133_800_000_000_000_000;
    let status = br#"[{"status":{"status":"error"}}]"#.to_vec();
    let reagent = br#"<WindowsRE><WinreLocation path="\Recovery\WindowsRE" id="0" offset="93323264"/><InstallState state="1"/></WindowsRE>"#;
    lay(
        &image,
        &[
            (r"Windows\MEMORY.DMP", kernel_dump(0x7b, time)),
            (r"Windows\Minidump\a.dmp", kernel_dump(0x1000_007e, time + 10_000_000)),
            (r"Windows\Minidump\b.dmp", b"MDMP\x93\xa7\0\0".repeat(8)),
            (r"Windows\Minidump\c.dmp", b"nothing".to_vec()),
            (r"WindowsAzure\Logs\x.log", b"x".to_vec()),
            (r"Packages\Plugins\Microsoft.Compute.VMAccessAgent\2.4.8\Status\0.status", b"[]".to_vec()),
            (r"Packages\Plugins\Microsoft.Compute.VMAccessAgent\2.4.8\Status\7.status", status),
            (r"Windows\System32\Recovery\ReAgent.xml", reagent.to_vec()),
            (r"Recovery\WindowsRE\Winre.wim", b"wim".to_vec()),
        ],
    );
    let document = inspected(&image);
    let facts = &document["installations"][0]["facts"];
    let dumps = facts["crash"]["dumps"].as_array().unwrap();
    let codes: Vec<Option<&str>> = dumps.iter().map(|file| file["dump"]["name"].as_str()).collect();
    assert!(codes.contains(&Some("INACCESSIBLE_BOOT_DEVICE")), "{dumps:?}");
    assert!(codes.contains(&Some("SYSTEM_THREAD_EXCEPTION_NOT_HANDLED")), "{dumps:?}");
    let kind = |name: &str| {
        let file = dumps.iter().find(|file| file["path"].as_str().unwrap().ends_with(name)).unwrap();
        file["dump"]["kind"].as_str()
    };
    assert_eq!((kind("b.dmp"), kind("c.dmp"), kind("MEMORY.DMP")), (Some("program"), None, Some("kernel")));
    let extension = &facts["azure_agent"]["extensions"][0];
    assert_eq!(extension["versions"][0], "2.4.8");
    assert_eq!(extension["status"], "error", "the last status counts");
    assert_eq!(
        (&facts["recovery"]["partition"], &facts["recovery"]["image_present"]),
        (&Value::from(3), &Value::from(true))
    );
    assert_eq!(facts["start"]["firmware"], "uefi");
    assert_eq!(facts["start"]["entries"][0]["default"], true);
    // The demo disk has no Defender, no domain, no TPM: nothing is made up.
    assert!(facts["antivirus"]["defender_service"].is_null() && facts["identity"]["domain_joined"].is_null());
    assert_eq!(facts["security"]["tpm_seen"], false);
    assert!(document["volumes"][0]["free_bytes"].as_u64().unwrap() > 60 << 20, "FAT counts, too");
    assert!(document["volumes"][2]["free_bytes"].as_u64().unwrap() > 100 << 20);
    let text = vmrescue(&["inspect", image.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for word in
        ["│", "INACCESSIBLE_BOOT_DEVICE", "Remote Desktop", "denied", "Microsoft.Compute.VMAccessAgent"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
}
