//! BitLocker volumes that Windows made, opened with their secrets and compared byte for byte with libbde and dissect.fve.

use crate::demo::vmrescue;
use crate::nbd::server;
use crate::oracle::{corpus, run, skipped, tool};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use vmrescue::block::{Disk, DiskMut, HostFile, MemoryDevice};
use vmrescue::crypt::testing::{Protect, Spec, encrypt as encrypt_volume};
use vmrescue::crypt::{Keys, Volume, plain, plain_mut, volume};
use vmrescue::demo::{ACPI_VERSIONS, Fault, break_it, build, encrypt, program_file, secrets};
use vmrescue::fs::ntfs;
use vmrescue::image::{Kind, OpenOptions, open_path};
use vmrescue::progress::Silent;
use vmrescue::transaction::{Locked, Record, TransactionOptions};
use vmrescue::windows::Machine;

/// What opens a volume.
#[derive(Clone, Copy)]
pub(crate) enum Key {
    None,
    Password(&'static str),
    Recovery(&'static str),
    /// A file of the same folder.
    File(&'static str),
}

const PASSWORD: Key = Key::Password("password12!@");

/// Name, key, method, state.
const VOLUMES: [(&str, Key, &str, &str); 10] = [
    ("aes-xts_128", PASSWORD, "AES-XTS 128", "encrypted"),
    ("aes-xts_256", PASSWORD, "AES-XTS 256", "encrypted"),
    ("aes_128", PASSWORD, "AES-CBC 128", "encrypted"),
    ("aes_256", PASSWORD, "AES-CBC 256", "encrypted"),
    ("aes_128_diffuser", PASSWORD, "AES-CBC 128 with diffuser", "encrypted"),
    ("aes_256_diffuser", PASSWORD, "AES-CBC 256 with diffuser", "encrypted"),
    ("recovery_password", RECOVERY, "AES-XTS 128", "encrypted"),
    ("startup_key", Key::File("startup_key.bek"), "AES-XTS 128", "encrypted"),
    ("recovery_key", Key::File("recovery_key.bek"), "AES-XTS 128", "encrypted"),
    ("suspended", Key::None, "AES-XTS 128", "suspended"),
];
pub(crate) const RECOVERY: Key = Key::Recovery("284867-596541-514998-422114-660297-261613-215424-199408");

/// Bytes that are taken together.
const PIECE: usize = 4 << 20;

/// Opens a volume by libbde, and tells the hash of each range.
const LIBBDE: &str = r#"
import sys, json, hashlib, pybde
path, key, ranges = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
v = pybde.volume()
if "password" in key: v.set_password(key["password"])
if "recovery" in key: v.set_recovery_password(key["recovery"])
if "file" in key: v.read_startup_key(key["file"])
v.open(path)
if v.is_locked(): v.unlock()
assert not v.is_locked()
hashes = []
for start, end in ranges:
    hash = hashlib.sha256()
    # From page to page: libbde misreads ranges that do not begin with a sector.
    at = start // 4096 * 4096
    v.seek(at)
    while at < end:
        data = v.read_buffer(min((end + 4095) // 4096 * 4096 - at, 1 << 20))
        assert data
        hash.update(data[max(start - at, 0):max(end - at, 0)])
        at += len(data)
    hashes.append(hash.hexdigest())
print(json.dumps(hashes))
"#;

/// The same by dissect.fve.
const DISSECT: &str = r#"
import sys, json, hashlib
from dissect.fve.bde.bde import BDE
path, key, ranges = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
v = BDE(open(path, "rb"))
if "password" in key: v.unlock_with_passphrase(key["password"])
elif "recovery" in key: v.unlock_with_recovery_password(key["recovery"])
elif "file" in key: v.unlock_with_bek(open(key["file"], "rb"))
elif not v.unlocked: v.unlock_with_clear_key()
s = v.open()
hashes = []
for start, end in ranges:
    s.seek(start)
    hashes.append(hashlib.sha256(s.read(end - start)).hexdigest())
print(json.dumps(hashes))
"#;

/// Hashes of ranges of a volume as `script` sees them; `None`, loudly, without the module.
pub(crate) fn oracle(
    module: &str,
    script: &str,
    volume: &Path,
    key: &Value,
    ranges: &[[u64; 2]],
) -> Option<Vec<String>> {
    let mut command = tool("python3")?;
    if !command.args(["-c", &format!("import {module}")]).output().unwrap().status.success() {
        skipped(&format!("python3 has no module {module}"));
        return None;
    }
    let words = [volume.to_str().unwrap(), &key.to_string(), &json!(ranges).to_string()];
    let output = run(tool("python3")?.args(["-c", script]).args(words));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

pub(crate) fn libbde(volume: &Path, key: &Value, ranges: &[[u64; 2]]) -> Option<Vec<String>> {
    oracle("pybde", LIBBDE, volume, key, ranges)
}

/// Unpacks a volume of the corpus. Of the largest, which has 2.7 GiB, what lies behind the border of its encryption is left out:
/// there are zeros.
pub(crate) fn unpacked(name: &str, dir: &Path) -> Option<PathBuf> {
    let packed = corpus()?.join(format!("07-bitlocker/dissect-fve/{name}.bin.gz"));
    let target = dir.join(format!("{name}.bin"));
    let sparse = format!("dd of='{}' bs=1M iflag=fullblock conv=sparse status=none", target.display());
    run(Command::new("sh").args([
        "-c",
        &format!("gzip -dc '{}' 2>/dev/null | head -c 1160000000 | {sparse}", packed.display()),
    ]));
    if name == "win7_partial" {
        std::fs::OpenOptions::new().write(true).open(&target).unwrap().set_len(2_874_839_040).unwrap();
    }
    Some(target)
}

fn keys_and_words(key: Key) -> (Keys, Value) {
    let keys = Keys::none();
    match key {
        Key::None => (keys, json!({})),
        Key::Password(text) => (keys.with_passphrase(text), json!({"password": text})),
        Key::Recovery(text) => (keys.with_recovery_password(text).unwrap(), json!({"recovery": text})),
        Key::File(name) => {
            let path = corpus().unwrap().join("07-bitlocker/dissect-fve").join(name);
            (keys.with_external_key_path(&path).unwrap(), json!({"file": path}))
        }
    }
}

fn disk(path: &Path) -> Disk {
    Disk::new(Arc::new(HostFile::open_read(path).unwrap()))
}

/// Hashes of ranges as we see them.
fn ours(disk: &Disk, opened: &Volume, ranges: &[[u64; 2]]) -> Vec<String> {
    let disk = plain(disk.clone(), &[(0, opened.view.clone().unwrap())]);
    let mut buf = vec![0; PIECE];
    let mut hashes = Vec::new();
    for [start, end] in ranges {
        let (mut at, mut hash) = (*start, Sha256::new());
        while at < *end {
            let count = (end - at).min(PIECE as u64) as usize;
            disk.read_at(at, &mut buf[..count]).unwrap();
            hash.update(&buf[..count]);
            at += count as u64;
        }
        hashes.push(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
    }
    hashes
}

#[test]
fn volumes_of_windows_are_read_as_libbde_and_dissect_read_them() {
    if corpus().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, key, method, state) in VOLUMES {
        let path = unpacked(name, dir.path()).unwrap();
        let (keys, words) = keys_and_words(key);
        let disk = disk(&path);
        let opened = volume(&disk, &keys).unwrap().unwrap();
        assert_eq!((opened.info.method.as_str(), opened.info.state), (method, state), "{name}");
        assert!(!opened.info.locked && opened.info.read_only.is_none(), "{name}: {:?}", opened.info);
        assert!(opened.info.unlocked_by.is_some(), "{name}");
        // One of them whole. From a place that is no sector's to one that is none; where the metadata lies; the end.
        let (piece, end) = (1 << 18, disk.len());
        let mut ranges = vec![[0, piece], [8100, 20_001], [35_500_000, 36_000_000], [end - piece, end]];
        if name == "aes-xts_256" {
            ranges = vec![[0, end]];
        }
        let found = ours(&disk, &opened, &ranges);
        if let Some(theirs) = libbde(&path, &words, &ranges) {
            assert_eq!(found, theirs, "{name}: libbde");
        }
        let few = [[0, 0x3000], [end - 0x10_2000, end - 0x10_0000]];
        // A second opinion on each kind of key and cipher; dissect.fve takes its time.
        let asked =
            matches!(name, "aes-xts_256" | "aes_256_diffuser" | "aes_128" | "startup_key" | "suspended");
        if let Some(theirs) = asked.then(|| oracle("dissect.fve", DISSECT, &path, &words, &few)).flatten() {
            assert_eq!(ours(&disk, &opened, &few), theirs, "{name}: dissect");
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn volumes_on_the_way_are_read_as_dissect_reads_them() {
    if corpus().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Windows Vista: its metadata lies beyond the end of this file but for the first block.
    let vista = Key::Recovery("517506-503998-044583-576191-587004-635965-501270-087802");
    let partial = Key::Recovery("131450-120197-153989-250338-511368-495572-680944-381546");
    let mark = 0x442d_5000;
    // Name, key, state, ranges; borders of what is encrypted, and places that Windows keeps.
    let volumes: [(&str, Key, &str, &[[u64; 2]]); 4] = [
        ("vista", vista, "encrypted", &[[0, 0x8000], [0x157_3000, 0x157_8000], [0xc0_0000, 0xc0_1000]]),
        ("decrypted", Key::None, "decrypted", &[[0, 55_344_128]]),
        (
            "eow_partial",
            PASSWORD,
            "encrypted",
            &[
                [0, 0x8000],
                [0x620_2000, 0x620_3000],
                [0xe20_2000, 0xe20_3000],
                [0x105e_f000, 0x1060_1000],
                [0x1553_9000, 0x1553_e000],
            ],
        ),
        (
            "win7_partial",
            partial,
            "paused",
            &[
                [0, 0x8000],
                [mark - 0x2000, mark + 0x2000],
                [0x1ffa_7000, 0x1ffa_b000],
                [0x2e2_b000, 0x2e3_d000],
            ],
        ),
    ];
    for (name, key, state, ranges) in volumes {
        let path = unpacked(name, dir.path()).unwrap();
        let (keys, words) = keys_and_words(key);
        let disk = disk(&path);
        let opened = volume(&disk, &keys).unwrap().unwrap();
        assert_eq!(opened.info.state, state, "{name}");
        assert!(!opened.info.locked, "{name}: {:?}", opened.info);
        // What Windows has not finished is not written.
        let moving = matches!(name, "eow_partial" | "win7_partial");
        assert_eq!(opened.info.read_only.is_some(), moving, "{name}: {:?}", opened.info);
        assert_eq!(opened.info.encrypted_bytes, (name == "win7_partial").then_some(mark));
        if let Some(theirs) = oracle("dissect.fve", DISSECT, &path, &words, ranges) {
            assert_eq!(ours(&disk, &opened, ranges), theirs, "{name}: dissect");
        }
        if name == "eow_partial" {
            // Twenty chunks of the third region are plain, the others are not: 0x2202000 + 20 * 0x800000. (dissect.fve counts
            // chunks from where a read begins.) The medium has zeros on both sides.
            let border = 0xc20_2000;
            let seen = plain(disk.clone(), &[(0, opened.view.clone().unwrap())]);
            let zeros = |at| seen.read_vec(at, 512).unwrap().iter().all(|byte| *byte == 0);
            assert!(zeros(border - 512) && !zeros(border), "the border");
            assert!(disk.read_vec(border - 512, 1024).unwrap().iter().all(|byte| *byte == 0));
        }
        std::fs::remove_file(&path).unwrap();
    }
}

/// Opens a volume by cryptsetup's reader of metadata.
fn cryptsetup(volume: &Path) -> Option<String> {
    let output = run(tool("cryptsetup")?.arg("bitlkDump").arg(volume));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn small(method: u16, length: usize) -> (Vec<u8>, Spec) {
    let known = secrets();
    let device = Arc::new(MemoryDevice::zeroed(length));
    let disk = DiskMut::new(Arc::clone(&device) as Arc<_>);
    ntfs::format(&disk, &ntfs::FormatSpec { label: "small".into(), ..ntfs::FormatSpec::default() }).unwrap();
    // Places in the last quarter, where an empty volume has nothing.
    let at = (length as u64 - (length as u64 / 4)) / 4096 * 4096;
    let spec = Spec {
        method,
        volume_key: (1..65).collect(),
        master_key: [0x42; 32],
        id: known.ids[0],
        blocks: [at, at + 0x3_0000, at + 0x6_0000],
        header: (at + 0x1_0000, 0x2000),
        protectors: vec![
            Protect::Passphrase(known.ids[1], known.password.into()),
            Protect::RecoveryPassword(known.ids[0], known.recovery_password.into()),
            Protect::External(known.ids[2], [0x5a; 32]),
        ],
        paused_at: None,
    };
    encrypt_volume(&disk, &spec).unwrap();
    (disk.as_disk().read_vec(0, length).unwrap(), spec)
}

#[test]
fn others_open_what_our_tests_encipher() {
    let dir = tempfile::tempdir().unwrap();
    let known = secrets();
    let file = dir.path().join("key.BEK");
    std::fs::write(&file, &known.key_file).unwrap();
    let keys: [(Keys, Value); 3] = [
        (Keys::none().with_passphrase(known.password), json!({"password": known.password})),
        (
            Keys::none().with_recovery_password(known.recovery_password).unwrap(),
            json!({"recovery": known.recovery_password}),
        ),
        (Keys::none().with_external_key_path(dir.path()).unwrap(), json!({"file": file})),
    ];
    for method in 0x8000..0x8006 {
        let path = dir.path().join("volume.bin");
        let (bytes, _) = small(method, 4 << 20);
        std::fs::write(&path, &bytes).unwrap();
        let disk = disk(&path);
        let whole = [[0, disk.len()]];
        let (keys, words) = &keys[usize::from(method) % 3];
        let opened = volume(&disk, keys).unwrap().unwrap();
        let found = ours(&disk, &opened, &whole);
        if let Some(theirs) = libbde(&path, words, &whole) {
            assert_eq!(found, theirs, "{method:#x}: libbde");
        }
        let few = [[0, 0x4000], [0x30_0000, 0x31_4000]];
        let asked = matches!(method, 0x8001 | 0x8004);
        if let Some(theirs) = asked.then(|| oracle("dissect.fve", DISSECT, &path, words, &few)).flatten() {
            assert_eq!(ours(&disk, &opened, &few), theirs, "{method:#x}: dissect");
        }
        if let Some(text) = cryptsetup(&path) {
            assert!(known.ids.iter().all(|id| text.contains(&id.to_string())), "{method:#x}: {text}");
        }
    }
}

/// A file of a folder, and everything below it, as one heap of bytes.
fn everything(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        all.extend(if path.is_dir() { everything(&path) } else { std::fs::read(path).unwrap() });
    }
    all
}

fn holds(heap: &[u8], needle: &[u8]) -> bool {
    heap.windows(needle.len()).any(|window| window == needle)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Of the volumes in the corpus only parts were kept, too little for a file system: what is written here is bytes.
#[test]
fn volumes_of_windows_are_written_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let marker = b"a marker in plain text, which no file of the host may hold. ".repeat(100);
    let places = [0x200u64, 0x1f00, 0x2000, 3_000_001, 35_660_000, 50_000_000];
    for (name, key) in [("recovery_password", RECOVERY), ("aes_256_diffuser", PASSWORD)] {
        let Some(path) = unpacked(name, dir.path()) else { return };
        let before = Sha256::digest(std::fs::read(&path).unwrap());
        let (keys, words) = keys_and_words(key);
        let tx = Locked::open(&path, &TransactionOptions::default()).unwrap().stage();
        let parts = [(0, volume(&tx.file().as_disk(), &keys).unwrap().unwrap().view.unwrap())];
        let view = plain_mut(tx.file(), &parts);
        for at in places {
            view.write_at(at, &marker).unwrap();
        }
        assert_eq!(view.write_at(35_600_000, b"x").err().is_some(), name == "recovery_password", "metadata");
        view.flush().unwrap();
        drop(view);
        tx.verify(|_| Ok(())).unwrap().publish(Record::default(), &Silent).unwrap();

        // Written anew by us and by libbde, in plain text nowhere on this machine.
        let disk = disk(&path);
        let ranges =
            [[0, 0x4000], [2_999_000, 3_010_000], [35_500_000, 35_700_000], [49_999_000, 50_010_000]];
        let opened = volume(&disk, &keys).unwrap().unwrap();
        let seen = plain(disk.clone(), &[(0, opened.view.clone().unwrap())]);
        for at in &places[2..] {
            assert!(seen.read_vec(*at, marker.len()).unwrap() == marker, "{name} at {at}");
        }
        if let Some(theirs) = libbde(&path, &words, &ranges) {
            assert_eq!(ours(&disk, &opened, &ranges), theirs, "{name}: what we wrote is what libbde reads");
        }
        let state = everything(&dir.path().join(format!("{name}.bin.vmrescue")));
        assert!(state.len() > marker.len());
        for heap in [&state, &std::fs::read(&path).unwrap()] {
            assert!(!holds(heap, &marker[..60]), "{name}: plain text lies on the host");
        }
        drop((seen, opened, disk));
        let undo = vmrescue(&["undo", path.to_str().unwrap(), "--yes"]);
        assert_eq!(code(&undo), 0, "{}", text(&undo));
        assert!(
            Sha256::digest(std::fs::read(&path).unwrap()) == before,
            "{name}: undone byte for byte, without a key"
        );
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn wrong_keys_are_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = unpacked("startup_key", dir.path()) else { return };
    let keys = corpus().unwrap().join("07-bitlocker/dissect-fve");
    let image = path.to_str().unwrap();
    let ls = |more: &[&str]| vmrescue(&[&["ls", image, r"#1:\"][..], more].concat());
    let begun = std::time::Instant::now();
    let other = ls(&["--recovery-key", keys.join("recovery_key.bek").to_str().unwrap()]);
    assert_eq!(code(&other), 3);
    // The id of the file, and the one that the volume has.
    assert!(
        text(&other).contains("for protector {99b0081a-60b6-47e4-8482-dea46ee1891d}"),
        "{}",
        text(&other)
    );
    assert!(text(&other).contains("external key {b3411a58-3400-420a-8b7e-9b5f706425c0}"), "{}", text(&other));
    let wrong = dir.path().join("password");
    std::fs::write(&wrong, "password12!\n").unwrap();
    let wrong = ls(&["--password-file", wrong.to_str().unwrap()]);
    assert_eq!(code(&wrong), 3, "{}", text(&wrong));
    assert!(text(&wrong).contains("the password is wrong for password {ee7a5fdb"), "{}", text(&wrong));
    assert!(begun.elapsed().as_secs() < 8, "told quickly");
    let mistyped = ls(&["--recovery-password", "284867-596541-514998-422114-660297-261613-215424-199409"]);
    assert_eq!(code(&mistyped), 2);
    assert!(text(&mistyped).contains("group 8"), "{}", text(&mistyped));
    assert!(!text(&mistyped).contains("284867"), "a message does not tell the password");
    // A folder with several keys, one of which fits; the password of the same volume.
    let right = dir.path().join("right");
    std::fs::write(&right, "\u{feff}password12!@\r\n").unwrap();
    let options = [
        (["--recovery-key", keys.to_str().unwrap()], "external key {b3411a58-3400-420a-8b7e-9b5f706425c0}"),
        (["--password-file", right.to_str().unwrap()], "password {ee7a5fdb-3aca-4126-b09b-35873e92dcc8}"),
    ];
    for (options, by) in options {
        let info = vmrescue(&[&["info", image, "--json"][..], &options].concat());
        let info: Value = serde_json::from_slice(&info.stdout).unwrap();
        let found = &info["volumes"][0];
        assert_eq!(found["bitlocker"]["unlocked_by"], by);
        assert_eq!((&found["file_system"], &found["bitlocker"]["locked"]), (&json!("ntfs"), &json!(false)));
    }
    // Without a key it was not checked, and that is no clean disk.
    assert_eq!(code(&vmrescue(&["check", image])), 3);
}

/// The whole way on a disk whose Windows volume is BitLocker's.
#[test]
fn an_encrypted_machine_is_diagnosed_repaired_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    break_it(&path, &[Fault::AcpiZeroed], &Silent).unwrap();
    std::fs::remove_dir_all(dir.path().join("d.vhdx.vmrescue")).unwrap();
    encrypt(&path, 0x8004).unwrap();
    let known = secrets();
    let image = path.to_str().unwrap();
    let before = Sha256::digest(std::fs::read(&path).unwrap());
    let passwords = dir.path().join("recovery.txt");
    std::fs::write(&passwords, format!("{}\n", known.recovery_password)).unwrap();
    let key = format!("@{}", passwords.display());
    let with = |words: &[&str]| vmrescue(&[words, &["--recovery-password", &key]].concat());

    let locked = vmrescue(&["diagnose", image]);
    assert_eq!(code(&locked), 3, "{}", text(&locked));
    assert!(text(&locked).contains(&known.ids[0].to_string()), "{}", text(&locked));
    assert_eq!(code(&vmrescue(&["repair", image, "restore-driver", "--set", "name=ACPI.sys", "--yes"])), 3);

    let found = with(&["diagnose", image, "--json"]);
    assert_eq!(code(&found), 1, "{}", text(&found));
    assert!(text(&found).contains("ACPI.sys"), "{}", text(&found));
    let dry = with(&["repair", image, "restore-driver", "--set", "name=ACPI.sys", "--dry-run"]);
    assert_eq!(code(&dry), 1, "{}", text(&dry));
    assert_eq!(Sha256::digest(std::fs::read(&path).unwrap()), before, "a dry run writes nothing");
    let done = with(&["repair", image, "restore-driver", "--set", "name=ACPI.sys", "--yes"]);
    assert_eq!(code(&done), 0, "{}", text(&done));
    assert!(text(&done).contains("verified by an independent reader"), "{}", text(&done));
    let clean = with(&["diagnose", image]);
    assert_eq!(code(&clean), 0, "{}", text(&clean));
    let marker = b"a marker in plain text, which no file of the host may hold. ".repeat(400);
    let put = dir.path().join("put.txt");
    std::fs::write(&put, &marker).unwrap();
    let words = ["put", image, put.to_str().unwrap(), r"C:\marker.txt", "--yes", "--recovery-password"];
    let done = vmrescue(&[&words[..], &[known.recovery_password]].concat());
    assert_eq!(code(&done), 0, "{}", text(&done));
    // Neither the key nor the content lies in the image, the journal or the history.
    let state = everything(&dir.path().join("d.vhdx.vmrescue"));
    assert!(
        holds(&state, b"(not kept)") && !holds(&state, known.recovery_password.as_bytes()),
        "the key is in the state"
    );
    for heap in [&state, &std::fs::read(&path).unwrap()] {
        assert!(!holds(heap, &marker[..60]), "plain text lies on the host");
    }
    let checked = with(&["check", image]);
    assert_eq!(code(&checked), 0, "{}", text(&checked));
    let set = with(&[
        "reg",
        "set",
        image,
        r"HKLM\SYSTEM\CurrentControlSet\Services\x",
        "Start",
        "REG_DWORD",
        "4",
        "--yes",
    ]);
    assert_eq!(code(&set), 0, "{}", text(&set));

    // The volume alone, seen by libbde; its plain text, seen by ntfs-3g.
    let raw = dir.path().join("volume.raw");
    let container = open_path(&path, &OpenOptions::default()).unwrap();
    let window = container.disk.window(89 << 20..255 << 20).unwrap();
    std::fs::write(&raw, window.read_vec(0, 166 << 20).unwrap()).unwrap();
    let keys = Keys::none().with_passphrase(known.password);
    let machine = Machine::open_with(container.disk.clone(), &keys).unwrap();
    let seen = machine.disk.window(89 << 20..255 << 20).unwrap().read_vec(0, 166 << 20).unwrap();
    let hash: String = Sha256::digest(&seen).iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(theirs) = libbde(&raw, &json!({"password": known.password}), &[[0, 166 << 20]]) {
        assert_eq!(theirs, [hash]);
    }
    std::fs::write(&raw, &seen).unwrap();
    if let Some(mut ntfsfix) = tool("ntfsfix") {
        run(ntfsfix.arg("-n").arg(&raw));
    }
    if let Some(mut ntfscat) = tool("ntfscat") {
        let content = run(ntfscat.arg(&raw).arg("/Windows/System32/drivers/ACPI.sys")).stdout;
        assert!(content == program_file("ACPI.sys", ACPI_VERSIONS[1]).unwrap());
    }
    drop((machine, window, container));
    if let Some(mut ntfscat) = tool("ntfscat") {
        assert!(run(ntfscat.arg(&raw).arg("/marker.txt")).stdout == marker);
    }
    for _ in 0..3 {
        let undo = vmrescue(&["undo", image, "--yes"]);
        assert_eq!(code(&undo), 0, "{}", text(&undo));
    }
    assert_eq!(Sha256::digest(std::fs::read(&path).unwrap()), before, "undone byte for byte");

    // Into a child, and over many images; the key is in no file that a batch leaves.
    let child = dir.path().join("child.vhdx");
    let to = format!("child:{}", child.display());
    let into = with(&["repair", image, "restore-driver", "--set", "name=ACPI.sys", "--yes", "--to", &to]);
    assert_eq!(code(&into), 0, "{}", text(&into));
    assert_eq!(Sha256::digest(std::fs::read(&path).unwrap()), before, "the parent stays");
    let out = dir.path().join("batch");
    let words = [
        "batch",
        "diagnose",
        child.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--recovery-password",
        known.recovery_password,
    ];
    let (many, seen) = watched(&words, known.recovery_password);
    assert_eq!(code(&many), 0, "{}", text(&many));
    assert!(seen.is_empty(), "in the list of processes: {seen:?}");
    assert!(!holds(&everything(&out), known.recovery_password.as_bytes()));
    // Inspected, and the log of the volume's state.
    let inspected = with(&["inspect", image, "--json"]);
    assert_eq!(code(&inspected), 0, "{}", text(&inspected));
    assert!(text(&inspected).contains("\"unlocked_by\": \"recovery password {"), "{}", text(&inspected));
}

/// Runs a command, and notes the other processes whose words hold `secret` meanwhile.
fn watched(words: &[&str], secret: &str) -> (Output, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmrescue"));
    let piped = std::process::Stdio::piped;
    let mut child = command.args(words).stdout(piped()).stderr(piped()).spawn().unwrap();
    let (own, mut seen) = (child.id().to_string(), Vec::new());
    while child.try_wait().unwrap().is_none() {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Processes come and go while they are looked at.
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            // A process that is just being begun still has the words of its parent.
            if name != own && line.contains(secret) && line.contains("vmrescue") && !line.contains(" batch ")
            {
                seen.push(line);
            }
        }
    }
    (child.wait_with_output().unwrap(), seen)
}

/// Other programs see and change an encrypted volume through us.
#[test]
fn an_encrypted_volume_is_mounted_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.vhdx");
    build(&path, Kind::VhdxDynamic).unwrap();
    encrypt(&path, 0x8003).unwrap();
    let known = secrets();
    let before = Sha256::digest(std::fs::read(&path).unwrap());
    let (image, key) = (path.to_str().unwrap(), dir.path().join("key.bek"));
    std::fs::write(&key, &known.key_file).unwrap();
    let key = key.to_str().unwrap();
    let plain_file = dir.path().join("plain.raw");
    if let Some(mut qemu) = tool("qemu-img") {
        let socket = dir.path().join("s");
        let mut child = server(&path, &socket, &["--volume", "C:", "--recovery-key", key, "--once"]);
        let url = format!("nbd+unix:///?socket={}", socket.display());
        run(qemu.args(["convert", "-f", "raw", "-O", "raw", &url]).arg(&plain_file));
        let _ended = child.kill();
        child.wait().unwrap();
        let bytes = std::fs::read(&plain_file).unwrap();
        assert!(bytes[3..11] == *b"NTFS    " && bytes.len() == 166 << 20);
        if let Some(mut ntfsfix) = tool("ntfsfix") {
            run(ntfsfix.arg("-n").arg(&plain_file));
        }
    }
    #[cfg(target_os = "linux")]
    if crate::mount::fuse_is_here() {
        let marker = "written through the mount, in plain text nowhere. ".repeat(2000);
        let folder = dir.path().join("m");
        let mounted =
            crate::mount::mount(&path, &folder, &["--write", "--volume", "C:", "--recovery-key", key]);
        std::fs::write(folder.join("marker.txt"), &marker).unwrap();
        mounted.end();
        let cat = vmrescue(&["cat", image, r"C:\marker.txt", "--recovery-key", key]);
        assert!(cat.stdout == marker.as_bytes(), "{}", String::from_utf8_lossy(&cat.stderr));
        for heap in [everything(&dir.path().join("d.vhdx.vmrescue")), std::fs::read(&path).unwrap()] {
            assert!(!holds(&heap, &marker.as_bytes()[..50]), "plain text lies on the host");
        }
        assert_eq!(code(&vmrescue(&["undo", image, "--yes"])), 0);
    }
    assert!(Sha256::digest(std::fs::read(&path).unwrap()) == before);
}
