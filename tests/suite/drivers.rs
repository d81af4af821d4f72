//! Services, load order, filters, signatures and the component store, seen by programs that share nothing with us: hivex (through Python) for
//! the registry, osslsigncode and OpenSSL for signatures and catalogs.

use crate::demo::vmrescue;
use crate::oracle::{corpus, run, skipped, tool};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use vmrescue::demo::{ACPI_VERSIONS, build, program_file};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;
use vmrescue::repair::{Change, Options, run_changes};

const DRIVERS: &str = r"C:\Windows\System32\drivers";
const SYSTEM: &str = r"C:\Windows\System32\config\SYSTEM";
const SOFTWARE: &str = r"C:\Windows\System32\config\SOFTWARE";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A Python that has hivex.
pub(crate) fn python_with_hivex() -> Option<&'static str> {
    let found = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        Command::new(python).args(["-c", "import hivex"]).output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        skipped("no Python with hivex");
    }
    found
}

pub(crate) fn write(path: &str, data: Vec<u8>) -> Change {
    Change::FileWrite { path: path.into(), size: data.len() as u64, data: data.into(), from: "a test".into() }
}

pub(crate) fn set(hive: &str, key: &str, name: &str, data_type: u32, data: Vec<u8>) -> Change {
    Change::RegistrySet { hive: hive.into(), key: key.into(), name: name.into(), data_type, data, was: None }
}

pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A disk of ours with changes on top.
pub(crate) fn disk(dir: &Path, changes: &[Change]) -> PathBuf {
    let path = dir.join("d.img");
    if !path.exists() {
        build(&path, Kind::Raw).unwrap();
    }
    let options = Options { command: vec!["test".into()], ..Options::default() };
    run_changes(&path, "prepare", |_| Ok(changes.to_vec()), &options, &Silent).unwrap();
    path
}

pub(crate) fn json_of(words: &[&str]) -> Value {
    let output = vmrescue(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The kernel's own way with linked lists, told in Python over hivex: an independent account of the order.
const PYTHON_SERVICES: &str = r#"
import sys, json, struct, hivex
h = hivex.Hivex(sys.argv[1])
def child(node, *names):
    for name in names:
        node = node and h.node_get_child(node, name)
    return node
def values(node):
    return {h.value_key(v).lower(): h.value_value(v) for v in h.node_values(node)}
def text(v):
    return v[1].decode("utf-16-le", "replace").removesuffix("\0") if v and v[0] in (1, 2) else ""
def texts(v):
    return [t for t in v[1].decode("utf-16-le", "replace").split("\0") if t] if v and v[0] == 7 else []
def number(v):
    return struct.unpack("<I", v[1][:4])[0] if v and v[0] == 4 else None
select = values(child(h.root(), "Select"))
wanted = number(select["default"])
root = child(h.root(), "ControlSet%03d" % wanted)
order = texts(values(child(root, "Control", "ServiceGroupOrder"))["list"])
tags = {}
for v in h.node_values(child(root, "Control", "GroupOrderList")):
    data = h.value_value(v)[1]
    n = struct.unpack("<I", data[:4])[0] if len(data) >= 4 else 0
    tags[h.value_key(v).lower()] = [struct.unpack("<I", data[i:i+4])[0] for i in range(4, min(len(data), 4 + 4*n) - 3, 4)]
services, drivers = {}, []
for c in h.node_children(child(root, "Services")):
    v = values(c)
    start, kind = number(v.get("start")), number(v.get("type"))
    if start is None and kind is None:
        continue
    name = h.node_name(c)
    services[name] = [start, kind, text(v.get("group")), number(v.get("tag")), number(v.get("errorcontrol")),
                      text(v.get("imagepath")), texts(v.get("dependongroup")), texts(v.get("dependonservice"))]
    if kind in (1, 2, 8):
        drivers.append((name, start, text(v.get("group")), number(v.get("tag"))))
def tag_of(d):
    if d[3] is None: return 0xffffffff
    vector = tags.get(d[2].lower(), [])
    return vector.index(d[3]) if d[3] in vector else 0xfffffffe
def load(start, forced):
    out = []
    for d in drivers:
        if d[1] == start or (forced and d[0].lower() == forced):
            out.insert(0, d)
    for group in reversed(order):
        for d in list(out):
            if d[2].lower() == group.lower():
                out.remove(d)
                out.insert(0, d)
    i = 0
    while i < len(out):
        j = i
        while j < len(out) and out[j][2].lower() == out[i][2].lower():
            j += 1
        out[i:j] = sorted(out[i:j], key=tag_of)
        i = j
    return [d[0] for d in out]
print(json.dumps({"set": wanted, "services": services, "boot": load(0, "ntfs"), "system": load(1, None)}))
"#;

#[test]
fn services_and_load_order_are_those_of_hivex() {
    let (Some(corpus), Some(python)) = (corpus(), python_with_hivex()) else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in ["03-registry/SYSTEM", "03-registry/dissect-SYSTEM-win10"] {
        let hive = corpus.join(name);
        let path = disk(dir.path(), &[write(SYSTEM, std::fs::read(&hive).unwrap())]);
        let image = path.to_str().unwrap();
        // The hive as we see it, with its logs; there are none here.
        let output = run(Command::new(python).args(["-c", PYTHON_SERVICES]).arg(&hive));
        let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ours = json_of(&["drivers", image, "--json"]);
        assert_eq!(ours["control_set"], theirs["set"]);
        let list = ours["services"].as_array().unwrap();
        assert_eq!(list.len(), theirs["services"].as_object().unwrap().len());
        assert!(list.len() > 300, "{}", list.len());
        for service in list {
            let seen = json!([
                service["start"],
                service["kind"],
                service["group"],
                service["tag"],
                service["error_control"],
                service["image_path"],
                service["depend_on_group"],
                service["depend_on_service"],
            ]);
            let name = service["name"].as_str().unwrap();
            assert_eq!(seen, theirs["services"][name], "{name}");
        }
        for (start, key) in [(0, "boot"), (1, "system")] {
            let mut order: Vec<(u64, &str)> = list
                .iter()
                .filter(|s| {
                    s["start"] == start
                        || (start == 0 && s["name"].as_str().unwrap().eq_ignore_ascii_case("ntfs"))
                })
                .filter_map(|s| Some((s["load_order"].as_u64()?, s["name"].as_str()?)))
                .collect();
            order.sort_unstable();
            let names: Vec<&str> = order.into_iter().map(|(_, name)| name).collect();
            assert!(names.len() > 10);
            assert_eq!(json!(names), theirs[key], "{key}");
        }
        // Almost no file of these machines is on the disk: the text says so and is no wider than it needs to be.
        let shown = vmrescue(&["drivers", image, "--boot"]);
        assert!(text(&shown).contains("the file is missing"), "{}", text(&shown));
    }
}

/// A signing key and its certificate.
pub(crate) fn signing_key(dir: &Path) -> Option<[PathBuf; 2]> {
    let (key, certificate) = (dir.join("key.pem"), dir.join("cert.pem"));
    run(tool("openssl")?
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            "/O=Contoso Test/CN=Contoso Driver Signing",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    Some([key, certificate])
}

fn sign(dir: &Path, key: &[PathBuf; 2], content: &[u8], name: &str) -> Option<Vec<u8>> {
    sign_with(dir, key, content, name, "sha256")
}

/// Signs with a hash algorithm of osslsigncode's.
pub(crate) fn sign_with(
    dir: &Path,
    [key, certificate]: &[PathBuf; 2],
    content: &[u8],
    name: &str,
    algorithm: &str,
) -> Option<Vec<u8>> {
    let (plain, signed) = (dir.join(format!("plain-{name}")), dir.join(format!("signed-{name}")));
    std::fs::write(&plain, content).unwrap();
    run(tool("osslsigncode")?
        .arg("sign")
        .arg("-certs")
        .arg(certificate)
        .arg("-key")
        .arg(key)
        .args(["-h", algorithm, "-in"])
        .arg(&plain)
        .arg("-out")
        .arg(&signed));
    Some(std::fs::read(&signed).unwrap())
}

/// The hash that osslsigncode computes of a PE file: it prints it next to the one in the signature.
fn their_hash(file: &Path) -> Option<String> {
    let output = tool("osslsigncode")?.args(["verify", "-in"]).arg(file).output().unwrap();
    let said = text(&output);
    let line = said.lines().find(|line| line.contains("Calculated message digest"))?;
    Some(line.rsplit(':').next()?.trim().to_lowercase())
}

/// A catalog without signature, by OpenSSL: one member by raw SHA-256, one by SHA-1 as text.
fn catalog(dir: &Path, raw: &str, as_text: &str) -> Option<Vec<u8>> {
    let word = utf16(&(as_text.to_uppercase() + "\0"));
    let word: String = word.iter().map(|byte| format!("{byte:02x}")).collect();
    let configuration = format!(
        "asn1=SEQUENCE:info
[info]
type=OID:1.2.840.113549.1.7.2
data=EXPLICIT:0,SEQUENCE:signed
[signed]
version=INTEGER:1
digests=SET:digests
content=SEQUENCE:content
signers=SET:none
[digests]
a=SEQUENCE:sha256
[sha256]
oid=OID:2.16.840.1.101.3.4.2.1
null=NULL
[none]
[content]
type=OID:1.3.6.1.4.1.311.10.1
list=EXPLICIT:0,SEQUENCE:list
[list]
usage=SEQUENCE:usage
id=FORMAT:HEX,OCTETSTRING:00112233445566778899aabbccddeeff
time=UTCTIME:250101000000Z
alg=SEQUENCE:alg
members=SEQUENCE:members
[usage]
a=OID:1.3.6.1.4.1.311.12.1.1
[alg]
a=OID:1.3.6.1.4.1.311.12.1.3
n=NULL
[members]
one=SEQUENCE:one
two=SEQUENCE:two
[one]
id=FORMAT:HEX,OCTETSTRING:{raw}
attrs=SET:attrs
[attrs]
ind=SEQUENCE:ind
[ind]
oid=OID:1.3.6.1.4.1.311.2.1.4
set=SET:indset
[indset]
v=SEQUENCE:indirect
[indirect]
data=SEQUENCE:pedata
digest=SEQUENCE:dinfo
[pedata]
oid=OID:1.3.6.1.4.1.311.2.1.15
v=SEQUENCE:spc
[spc]
f=FORMAT:HEX,BITSTRING:00
[dinfo]
alg=SEQUENCE:sha256
d=FORMAT:HEX,OCTETSTRING:{raw}
[two]
id=FORMAT:HEX,OCTETSTRING:{word}
attrs=SET:none
"
    );
    let (from, to) = (dir.join("ctl.cnf"), dir.join("plain.cat"));
    std::fs::write(&from, configuration).unwrap();
    run(tool("openssl")?.args(["asn1parse", "-noout", "-genconf"]).arg(&from).arg("-out").arg(&to));
    Some(std::fs::read(to).unwrap())
}

fn boot_file<'a>(report: &'a Value, name: &str) -> &'a Value {
    let list = report["boot_files"].as_array().unwrap();
    list.iter()
        .find(|file| file["path"].as_str().unwrap().to_lowercase().ends_with(&name.to_lowercase()))
        .unwrap()
}

#[test]
fn signatures_and_catalogs_of_others_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let Some(key) = signing_key(dir.path()) else { return };
    let content = |name: &str| program_file(name, ACPI_VERSIONS[0]).unwrap();
    let Some(signed) = sign(dir.path(), &key, &content("disk.sys"), "disk.sys") else { return };
    let mut tampered = sign(dir.path(), &key, &content("volmgr.sys"), "volmgr.sys").unwrap();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 0x55;
    // The checksum shall not be what is seen.
    tampered[0x98 + 64..0x98 + 68].fill(0);
    let hashes = |name: &str| vmrescue::windows::pe_hashes(&content(name)).unwrap();
    let hex = vmrescue::text::hex;
    let plain =
        catalog(dir.path(), &hex(&hashes("partmgr.sys").sha256), &hex(&hashes("storvsc.sys").sha1)).unwrap();
    let signed_catalog = sign(dir.path(), &key, &plain, "x.cat").unwrap();
    let folder = r"C:\Windows\System32\CatRoot";
    let subsystem = format!(r"{folder}\{{F750E6C3-38EE-11D1-85E5-00C04FC295EE}}");
    let path = disk(
        dir.path(),
        &[
            Change::MakeDirectory { path: folder.into() },
            Change::MakeDirectory { path: subsystem.clone() },
            write(&format!(r"{subsystem}\Contoso.cat"), signed_catalog),
            write(&format!(r"{subsystem}\broken.cat"), vec![0x30; 500]),
            write(&format!(r"{DRIVERS}\disk.sys"), signed),
            write(&format!(r"{DRIVERS}\volmgr.sys"), tampered),
        ],
    );
    let report = json_of(&["drivers", path.to_str().unwrap(), "--json"]);
    let signature = |name: &str| boot_file(&report, name)["facts"]["signature"].clone();
    assert_eq!(signature(r"\disk.sys")["kind"], "embedded");
    assert_eq!(signature(r"\disk.sys")["signer"], "Contoso Driver Signing, Contoso Test");
    assert_eq!(signature(r"\disk.sys")["algorithm"], "sha256");
    let theirs = their_hash(&dir.path().join("signed-disk.sys")).unwrap();
    assert_eq!(boot_file(&report, r"\disk.sys")["facts"]["authenticode_sha256"], theirs);
    assert_eq!(signature(r"\volmgr.sys")["kind"], "broken");
    assert_eq!(boot_file(&report, r"\volmgr.sys")["verdict"], "bad");
    // The loader says so, too: the checksum alone would let the file through.
    let said = text(&vmrescue(&["diagnose", path.to_str().unwrap()]));
    assert!(said.contains("volmgr.sys: the signature by Contoso") && said.contains("0xc0000428"), "{said}");
    assert!(!said.contains("disk.sys: the signature"), "{said}");
    for name in [r"\partmgr.sys", r"\storvsc.sys"] {
        assert_eq!(signature(name)["kind"], "catalog", "{name}");
        assert_eq!(signature(name)["catalog"], "Contoso.cat");
        assert_eq!(boot_file(&report, name)["verdict"], "ok");
    }
    assert_eq!(signature(r"\vmbus.sys")["kind"], "missing");
    assert_eq!(boot_file(&report, r"\vmbus.sys")["verdict"], "check");
    assert_eq!(report["catalogs_read"], 2);
    assert_eq!(report["catalogs_unreadable"], json!(["broken.cat"]));
    let shown = text(&vmrescue(&["drivers", path.to_str().unwrap(), "--hash"]));
    assert!(shown.contains("covered by catalog Contoso.cat of Contoso Driver Signing"), "{shown}");
    // osslsigncode agrees that the catalog covers the file.
    let file = dir.path().join("partmgr.sys");
    std::fs::write(&file, content("partmgr.sys")).unwrap();
    let verified = tool("osslsigncode")
        .unwrap()
        .arg("verify")
        .arg("-CAfile")
        .arg(&key[1])
        .arg("-catalog")
        .arg(dir.path().join("signed-x.cat"))
        .arg("-in")
        .arg(&file)
        .output()
        .unwrap();
    let said = text(&verified).to_lowercase();
    // Once from the catalog, once computed.
    assert_eq!(said.matches(&hex(&hashes("partmgr.sys").sha256)).count(), 2, "{said}");
}

fn component(name: &str, version: &str) -> String {
    format!("amd64_{}.inf_31bf3856ad364e35_{version}_none_0a1b2c3d4e5f6071", name.to_lowercase())
}

/// Base64 by Python, so that the manifest is not of our own making.
fn base64(bytes: &[u8]) -> Option<String> {
    let digits = vmrescue::text::hex(bytes);
    let program = "import sys,base64;print(base64.b64encode(bytes.fromhex(sys.argv[1])).decode())";
    let output = run(tool("python3")?.args(["-c", program, &digits]));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_string())
}

fn manifest(file: &str, content: &[u8]) -> Option<Vec<u8>> {
    let digest = base64(&Sha256::digest(content))?;
    Some(
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><assembly xmlns=\"urn:schemas-microsoft-com:asm.v3\"><file name=\"{file}\">\
             <asmv2:hash xmlns:asmv2=\"urn:schemas-microsoft-com:asm.v2\" xmlns:dsig=\"http://www.w3.org/2000/09/xmldsig#\">\
             <dsig:DigestMethod Algorithm=\"http://www.w3.org/2000/09/xmldsig#sha256\" /><dsig:DigestValue>{digest}</dsig:DigestValue>\
             </asmv2:hash></file></assembly>"
        )
        .into_bytes(),
    )
}

/// The store with a winner (7314), a staged newer version (7558, from the demo), a newer one that its manifest disowns, and packed ones.
#[test]
fn the_store_tells_component_winner_and_state_and_restoring_keeps_links() {
    let dir = tempfile::tempdir().unwrap();
    let store = r"C:\Windows\WinSxS";
    let (old, new) = (ACPI_VERSIONS[1], ACPI_VERSIONS[0]);
    let Some(manifest_old) = manifest("ACPI.sys", &program_file("ACPI.sys", old).unwrap()) else { return };
    let winners = r"Microsoft\Windows\CurrentVersion\SideBySide\Winners\amd64_acpi.inf_31bf3856ad364e35_none_ffffffffffffffff\10.0";
    let folder = |version: &str| format!(r"{store}\{}", component("ACPI", version));
    let changes = [
        set(SOFTWARE, winners, "", 1, utf16(&format!("{old}\0"))),
        Change::MakeDirectory { path: format!(r"{store}\Manifests") },
        write(&format!(r"{store}\Manifests\{}.manifest", component("ACPI", old)), manifest_old),
        write(
            &format!(r"{store}\Manifests\{}.manifest", component("ACPI", new)),
            b"DCM\x01PA30 packed".to_vec(),
        ),
        Change::MakeDirectory { path: folder("10.0.17763.7000") },
        write(&format!(r"{}\ACPI.sys", folder("10.0.17763.7000")), b"DCS\x01packed".to_vec()),
        Change::MakeDirectory { path: folder("10.0.17763.7100") },
        Change::MakeDirectory { path: format!(r"{}\r", folder("10.0.17763.7100")) },
        write(&format!(r"{}\r\ACPI.sys", folder("10.0.17763.7100")), b"\0\0\0\0PA30delta".to_vec()),
    ];
    let path = disk(dir.path(), &changes);
    let image = path.to_str().unwrap();
    let report = json_of(&["drivers", image, "--json"]);
    let origin = &boot_file(&report, r"\ACPI.sys")["facts"]["store"];
    assert_eq!(origin["tie"], "hard-link");
    assert_eq!(origin["version"], new);
    assert_eq!((&origin["winner"], &origin["winner_by"]), (&json!(old), &json!("winners")));
    assert_eq!((&origin["is_winner"], &origin["manifest"]), (&json!(false), &json!("compressed")));
    let payloads: Vec<(&str, &str)> = origin["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["path"].as_str().unwrap().rsplit('_').nth(2).unwrap(), v["payload"].as_str().unwrap()))
        .collect();
    assert_eq!(payloads, [(old, "pe"), ("10.0.17763.7100", "PA30"), ("10.0.17763.7000", "DCS"), (new, "pe")]);
    assert_eq!(boot_file(&report, r"\ACPI.sys")["verdict"], "check");
    // The other drivers have no winner registered: the highest version counts.
    let disk_origin = &boot_file(&report, r"\disk.sys")["facts"]["store"];
    assert_eq!((&disk_origin["winner_by"], &disk_origin["is_winner"]), (&json!("highest"), &json!(true)));

    // Broken in place: what System32 and the store share is broken in both. The winner is put back, as a second name of its file.
    let broken = disk(dir.path(), &[write(&format!(r"{DRIVERS}\ACPI.sys"), vec![0; 20_000])]);
    assert_eq!(broken, path);
    let done = vmrescue(&["drivers", "restore", image, "ACPI.sys", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    let report = json_of(&["drivers", image, "--json"]);
    let file = boot_file(&report, r"\ACPI.sys");
    assert_eq!(file["verdict"], "ok", "{file}");
    let origin = &file["facts"]["store"];
    assert_eq!(
        (&origin["tie"], &origin["version"], &origin["is_winner"]),
        (&json!("hard-link"), &json!(old), &json!(true))
    );
    assert_eq!((&origin["manifest"], &origin["hash_fits"]), (&json!("read"), &json!(true)));
    let stat = text(&vmrescue(&["stat", image, &format!(r"{DRIVERS}\ACPI.sys"), "--json"]));
    assert!(stat.contains("\"links\": 2"), "{stat}");

    // A copy that its manifest disowns is not taken, though it is a whole PE file with a right checksum.
    let wrong = manifest("ACPI.sys", b"something else").unwrap();
    disk(
        dir.path(),
        &[
            write(&format!(r"{store}\Manifests\{}.manifest", component("ACPI", old)), wrong),
            Change::FileDelete { path: format!(r"{DRIVERS}\ACPI.sys") },
        ],
    );
    let refused = vmrescue(&["drivers", "restore", image, "ACPI.sys", "--yes"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("manifest"), "{}", text(&refused));
}

#[test]
fn dangling_filters_and_differences_of_control_sets_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let class = r"ControlSet001\Control\Class\{4d36e967-e325-11ce-bfc1-08002be10318}";
    let storage = r"ControlSet001\Services\storvsc";
    let path = disk(
        dir.path(),
        &[
            set(SYSTEM, class, "UpperFilters", 7, utf16("partmgr\0gonefilter\0\0")),
            set(SYSTEM, storage, "Start", 4, 4u32.to_le_bytes().to_vec()),
            set(SYSTEM, r"ControlSet001\Services\late", "Start", 4, 2u32.to_le_bytes().to_vec()),
            set(SYSTEM, r"ControlSet001\Services\late", "Type", 4, 0x10u32.to_le_bytes().to_vec()),
            set(SYSTEM, r"ControlSet001\Services\late", "DependOnService", 7, utf16("storvsc\0nothere\0\0")),
        ],
    );
    let image = path.to_str().unwrap();
    let report = json_of(&["drivers", image, "--json"]);
    let filters = report["filters"].as_array().unwrap();
    let of = |name: &str| filters.iter().find(|filter| filter["driver"] == name).unwrap();
    assert_eq!(of("partmgr")["problem"], Value::Null);
    assert_eq!(of("gonefilter")["problem"], "dangling: there is no such service");
    assert_eq!(of("gonefilter")["boot"], true);
    let late =
        report["services"].as_array().unwrap().iter().find(|service| service["name"] == "late").unwrap();
    assert_eq!(late["dependency_problems"].as_array().unwrap().len(), 2);
    let other = &report["other_control_sets"][0];
    assert_eq!((&other["number"], &other["roles"]), (&json!(2), &json!(["last-known-good"])));
    let names: Vec<&str> =
        other["differences"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["late", "storvsc"]);
    let shown = text(&vmrescue(&["drivers", image, "--filters"]));
    assert!(shown.contains("gonefilter") && shown.contains("0x7B"), "{shown}");
    let there = json_of(&["drivers", image, "--control-set", "2", "--json"]);
    assert_eq!(there["control_set"], 2);
    assert_eq!(vmrescue(&["drivers", image, "--control-set", "7"]).status.code(), Some(2));
}
