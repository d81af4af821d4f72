//! The exact bytes: what a file should be, whether it is, and putting it back out of every form that a component store keeps.

use crate::batch::sha;
use crate::demo::vmrescue;
use crate::drivers::{disk, json_of, sign_with, signing_key, write};
use crate::oracle::{corpus, skipped};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Output;
use vmrescue::demo::{
    ACPI_VERSIONS, FIRST_VERSION, PACKED_PATH, identity, packed_file, program_file, store_changes,
};
use vmrescue::repair::Change;
use vmrescue::text::hex;
use vmrescue::windows::Identity;

const ACPI: &str = r"C:\Windows\System32\drivers\ACPI.sys";
const STORE: &str = r"C:\Windows\WinSxS";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn folder(version: &str) -> String {
    format!(r"{STORE}\amd64_acpi.inf_31bf3856ad364e35_{version}_none_0a1b2c3d4e5f6071")
}

fn in_store(version: &str, middle: &str) -> String {
    format!(r"{}\{middle}ACPI.sys", folder(version))
}

fn acpi() -> Vec<u8> {
    program_file("ACPI.sys", ACPI_VERSIONS[0]).unwrap()
}

fn explain(image: &str, path: &str) -> Value {
    json_of(&["files", "explain", image, path, "--json"])
}

fn read(dir: &Path, image: &str, path: &str) -> Vec<u8> {
    let out = dir.join("out");
    let done = vmrescue(&["get", image, path, out.to_str().unwrap(), "--force"]);
    assert!(done.status.success(), "{}", text(&done));
    std::fs::read(out).unwrap()
}

fn restore(image: &str, path: &str, more: &[&str]) -> Output {
    let set = format!("path={path}");
    vmrescue(&[&["repair", image, "restore-file", "--set", &set, "--yes"], more].concat())
}

#[test]
fn key_forms_are_those_of_genuine_components() {
    let Some(corpus) = corpus() else { return };
    let list = corpus.join("10-servicing-payload/identity/keyforms.tsv");
    let Ok(list) = std::fs::read_to_string(&list) else {
        skipped("the corpus has no list of key forms");
        return;
    };
    let mut seen = 0;
    for line in list.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [key_form, winners, name, version, architecture, culture, token, scope, kind] = fields[..9]
        else {
            panic!("{line}")
        };
        let own = Identity {
            name: name.into(),
            culture: culture.into(),
            kind: kind.into(),
            version: version.into(),
            token: token.into(),
            architecture: architecture.into(),
            version_scope: scope.into(),
        };
        assert_eq!(own.key_form(), key_form);
        assert_eq!(own.winners_form(), winners);
        seen += 1;
    }
    assert_eq!(seen, 171);
}

#[test]
fn a_file_is_explained_and_verified_by_its_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), &store_changes());
    let image = path.to_str().unwrap();
    let own = explain(image, ACPI);
    assert_eq!((&own["schema"], &own["state"]), (&json!("vmrescue.files-explain/1"), &json!("exact")));
    assert_eq!((&own["manifest"], &own["winner"]), (&json!("read"), &json!(ACPI_VERSIONS[0])));
    assert_eq!(own["expected_sha256"], hex(&Sha256::digest(acpi())));
    assert_eq!(own["sha256"], own["expected_sha256"]);
    assert_eq!(own["names"], json!([ACPI, in_store(ACPI_VERSIONS[0], "")]));
    // A manifest that is packed against the base in wcp.dll, of a component whose name has a space.
    let packed = explain(image, PACKED_PATH);
    assert_eq!((&packed["state"], &packed["manifest"]), (&json!("exact"), &json!("unpacked")));
    assert!(packed["component"].as_str().unwrap().starts_with("amd64_microsoft-windows-rescuedemo_"));

    let verified = vmrescue(&["files", "verify", image, ACPI, PACKED_PATH, "--json"]);
    assert!(verified.status.success(), "{}", text(&verified));
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified["files"].as_array().unwrap().len(), 2);
    assert!(verified["notes"][0].as_str().unwrap().contains("not verified"));
    // What the start needs: the demo's other files have no manifest and no signature.
    let boot = vmrescue(&["files", "verify", image, "--boot"]);
    assert_eq!(boot.status.code(), Some(1), "{}", text(&boot));
    assert!(text(&boot).contains("unsigned      C:\\Windows\\System32\\ntoskrnl.exe"), "{}", text(&boot));
    assert!(text(&boot).contains(&format!("exact         {ACPI}")), "{}", text(&boot));
    let all = vmrescue(&["files", "verify", image, "--all"]);
    assert!(text(&all).contains(&format!("exact         {PACKED_PATH}")), "{}", text(&all));

    // Without the base nobody knows what the packed manifest says, and that is what is said.
    let stack = identity("Microsoft-Windows-ServicingStack", ACPI_VERSIONS[0]).key_form();
    disk(dir.path(), &[Change::FileDelete { path: format!(r"{STORE}\{stack}\wcp.dll") }]);
    let unknown = explain(image, PACKED_PATH);
    assert_eq!((&unknown["state"], &unknown["manifest"]), (&json!("unsigned"), &json!("compressed")));
    assert_eq!(unknown["expected_sha256"], Value::Null);
    let refused = restore(image, PACKED_PATH, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("not known"), "{}", text(&refused));
}

/// A packed manifest whose text is of another component, as a wrong base makes it, tells nothing.
#[test]
fn a_manifest_that_does_not_prove_its_own_name_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut changes = store_changes();
    let name = identity("Microsoft-Windows-Rescue Demo", ACPI_VERSIONS[0]).key_form();
    let base = vmrescue::demo::manifest(&identity("base of all manifests", "0.0.0.0"), "none", b"");
    let other = vmrescue::demo::manifest(&identity("another", "1.2.3.4"), "rescue.dll", b"other bytes");
    changes.push(write(
        &format!(r"{STORE}\Manifests\{name}.manifest"),
        vmrescue::payload::testing::dcm(&base, &other),
    ));
    let path = disk(dir.path(), &changes);
    let found = explain(path.to_str().unwrap(), PACKED_PATH);
    assert_eq!((&found["manifest"], &found["expected_sha256"]), (&json!("compressed"), &Value::Null));
}

/// Every kind of damage in place, which is damage to the store's copy too: made again from the packed first version and the forward delta.
#[test]
fn damage_in_place_is_put_back_exactly_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let whole = acpi();
    let mut flipped = whole.clone();
    flipped[9000] ^= 0x10;
    let old = program_file("ACPI.sys", ACPI_VERSIONS[1]).unwrap();
    for (what, damage) in [
        ("zeroed", vec![0; whole.len()]),
        ("cut", whole[..whole.len() / 3].to_vec()),
        ("empty", Vec::new()),
        ("a bit flipped", flipped),
        ("another version", old),
    ] {
        let _previous = std::fs::remove_file(dir.path().join("d.img"));
        let _history = std::fs::remove_dir_all(dir.path().join("d.img.vmrescue"));
        let mut changes = store_changes();
        changes.push(write(ACPI, damage));
        let path = disk(dir.path(), &changes);
        let image = path.to_str().unwrap();
        let found = explain(image, ACPI);
        assert_eq!(found["state"], "broken", "{what}: {found}");
        let source = found["source"].as_str().unwrap();
        assert!(source.contains(r"\f\ACPI.sys on") && source.contains(FIRST_VERSION), "{what}: {source}");
        let before = sha(&path);
        let done = restore(image, ACPI, &[]);
        assert!(done.status.success(), "{what}: {}", text(&done));
        for path in [ACPI, &in_store(ACPI_VERSIONS[0], "")] {
            assert!(read(dir.path(), image, path) == whole, "{what}: {path}");
        }
        assert_eq!(explain(image, ACPI)["state"], "exact");
        assert!(text(&vmrescue(&["stat", image, ACPI, "--json"])).contains("\"links\": 2"));
        assert!(text(&restore(image, ACPI, &[])).contains("nothing to do"));
        assert!(vmrescue(&["undo", image, "--yes"]).status.success());
        assert_eq!(sha(&path), before, "{what}");
    }
}

#[test]
fn ways_are_tried_until_one_gives_the_bytes_and_all_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut changes = store_changes();
    changes.push(write(ACPI, vec![0; 5000]));
    // The packed first version is damaged: the older neighbour, taken back by its reverse delta, gives it.
    changes.push(write(&in_store(FIRST_VERSION, ""), b"DCS\x01damaged".to_vec()));
    let path = disk(dir.path(), &changes);
    let image = path.to_str().unwrap();
    let found = explain(image, ACPI);
    let source = found["source"].as_str().unwrap();
    assert!(source.contains("taken back by its r") && source.contains(ACPI_VERSIONS[1]), "{source}");
    // The older neighbour is broken as well: nothing is left, and everything that was tried is told.
    disk(dir.path(), &[write(&in_store(ACPI_VERSIONS[1], ""), vec![0; 100])]);
    let before = sha(&path);
    let refused = restore(image, ACPI, &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    for word in ["nothing has or makes the exact bytes", "DCS", r"\f\ACPI.sys", "--source"] {
        assert!(text(&refused).contains(word), "{word}: {}", text(&refused));
    }
    assert_eq!(sha(&path), before);
    // A healthy file of another version in the source is not taken; the right one is, packed or not.
    let source = dir.path().join("source");
    std::fs::create_dir_all(source.join("a")).unwrap();
    std::fs::write(source.join("a/ACPI.sys"), program_file("ACPI.sys", ACPI_VERSIONS[1]).unwrap()).unwrap();
    let refused = restore(image, ACPI, &["--source", source.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    std::fs::create_dir_all(source.join("b")).unwrap();
    std::fs::write(source.join("b/acpi.SYS"), vmrescue::payload::testing::dcs(&acpi())).unwrap();
    let done = restore(image, ACPI, &["--source", source.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text(&done));
    assert!(read(dir.path(), image, ACPI) == acpi());
}

#[test]
fn a_healthy_machine_gives_the_exact_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let donor = disk(&other, &store_changes());
    disk(dir.path(), &store_changes());
    let own = identity("Microsoft-Windows-Rescue Demo", ACPI_VERSIONS[0]).key_form();
    let null_delta = format!(r"{STORE}\{own}\n\rescue.dll");
    let path =
        disk(dir.path(), &[write(PACKED_PATH, vec![1; 5000]), Change::FileDelete { path: null_delta }]);
    let image = path.to_str().unwrap();
    assert_eq!(restore(image, PACKED_PATH, &[]).status.code(), Some(2));
    let done = restore(image, PACKED_PATH, &["--source", donor.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text(&done));
    assert!(read(dir.path(), image, PACKED_PATH) == packed_file());
}

/// What the guest lost, from update packages: the forward delta out of a storage, the whole file out of a cabinet in a cabinet.
#[test]
fn packages_give_what_the_guest_has_not() {
    let dir = tempfile::tempdir().unwrap();
    disk(dir.path(), &store_changes());
    let delta =
        read(dir.path(), dir.path().join("d.img").to_str().unwrap(), &in_store(ACPI_VERSIONS[0], r"f\"));
    let gone = Change::FileDelete { path: in_store(ACPI_VERSIONS[0], r"f\") };
    let path = disk(dir.path(), &[gone, write(ACPI, vec![0; 77])]);
    let image = path.to_str().unwrap();
    assert_eq!(restore(image, ACPI, &[]).status.code(), Some(2));
    let component = folder(ACPI_VERSIONS[0]).rsplit('\\').next().unwrap().to_string();
    let older = folder(ACPI_VERSIONS[1]).rsplit('\\').next().unwrap().to_string();
    let names =
        [format!(r"{component}\f\ACPI.sys"), format!(r"{component}\ACPI.sys"), format!(r"{older}\ACPI.sys")];
    let (whole, other) = (acpi(), program_file("ACPI.sys", ACPI_VERSIONS[1]).unwrap());
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    use vmrescue::payload::testing::{cabinet, psf};
    let storage = file("kb.psf", &psf(&[(&names[0], &delta)]));
    let inner = cabinet(&[("update.mum", b"<assembly/>"), (&names[1], &whole)]);
    let package = file("kb.msu", &cabinet(&[("WSUSSCAN.cab", &cabinet(&[])), ("kb.cab", &inner)]));
    let wrong = file("wrong.cab", &cabinet(&[(&names[2], &other), (&names[1], &other)]));
    let refused = restore(image, ACPI, &["--source", &wrong]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("wrong.cab"), "{}", text(&refused));
    for source in [storage, package] {
        let before = sha(&path);
        let done = restore(image, ACPI, &["--source", &source]);
        assert!(done.status.success(), "{source}: {}", text(&done));
        assert!(read(dir.path(), image, ACPI) == whole);
        assert!(vmrescue(&["undo", image, "--yes"]).status.success());
        assert_eq!(sha(&path), before);
    }
    let listed = vmrescue(&["files", "list", dir.path().join("wrong.cab").to_str().unwrap()]);
    assert!(text(&listed).contains(&names[1]), "{}", text(&listed));
    let out = dir.path().join("member");
    let wrong = dir.path().join("wrong.cab");
    let words = ["files", "decode", wrong.to_str().unwrap(), out.to_str().unwrap(), "--member"];
    let done = vmrescue(&[&words[..], &[&names[2]]].concat());
    assert!(done.status.success() && std::fs::read(out).unwrap() == other, "{}", text(&done));
}

#[test]
fn names_come_back_and_neighbours_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut changes = store_changes();
    let old = in_store(ACPI_VERSIONS[1], "");
    // The path is a name of the older version's file, and that is damaged; the winner's own file is whole.
    changes.push(Change::FileLink { path: ACPI.into(), target: old.clone(), why: "a test".into() });
    changes.push(write(ACPI, b"damaged".to_vec()));
    let path = disk(dir.path(), &changes);
    let image = path.to_str().unwrap();
    assert_eq!(explain(image, ACPI)["state"], "broken");
    let done = restore(image, ACPI, &[]);
    assert!(done.status.success(), "{}", text(&done));
    assert!(read(dir.path(), image, ACPI) == acpi());
    assert!(read(dir.path(), image, &old) == b"damaged", "a neighbour of another version is never touched");
    assert_eq!(explain(image, ACPI)["tie"], "hard-link");

    // Both names of a file are gone: the component's file comes back by its null delta, and with it the name.
    let own = identity("Microsoft-Windows-Rescue Demo", ACPI_VERSIONS[0]).key_form();
    let gone = [PACKED_PATH.to_string(), format!(r"{STORE}\{own}\rescue.dll")];
    disk(dir.path(), &gone.clone().map(|path| Change::FileDelete { path }));
    // Without any copy the store does not know the file any more: said, not guessed.
    let refused = restore(image, PACKED_PATH, &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("not known"), "{}", text(&refused));
}

/// A file that is exactly another version's: told apart from a broken one.
#[test]
fn the_exact_file_of_another_version_is_another_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut changes = store_changes();
    let target = in_store(ACPI_VERSIONS[1], "");
    changes.push(Change::FileLink { path: ACPI.into(), target, why: "a test".into() });
    let path = disk(dir.path(), &changes);
    let image = path.to_str().unwrap();
    let found = explain(image, ACPI);
    assert_eq!(found["state"], "other-version", "{found}");
    assert!(found["exact_as"].as_str().unwrap().contains(ACPI_VERSIONS[1]));
    // Which version wins is only guessed here (no Winners, no deployment): it is left alone.
    let done = restore(image, ACPI, &[]);
    assert!(text(&done).contains("left alone"), "{}", text(&done));
}

#[test]
fn signatures_with_longer_hashes_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let Some(key) = signing_key(dir.path()) else { return };
    let content = |name: &str| program_file(name, ACPI_VERSIONS[0]).unwrap();
    let mut changes = Vec::new();
    for (name, algorithm) in [("disk.sys", "sha384"), ("partmgr.sys", "sha512")] {
        let Some(signed) = sign_with(dir.path(), &key, &content(name), name, algorithm) else { return };
        let mut tampered = signed.clone();
        tampered[5000] ^= 1;
        tampered[0x98 + 64..0x98 + 68].fill(0);
        changes.push(write(&format!(r"C:\Windows\System32\drivers\{name}"), signed));
        changes.push(write(&format!(r"C:\Windows\System32\drivers\bad-{name}"), tampered));
    }
    let path = disk(dir.path(), &changes);
    for (name, algorithm) in [("disk.sys", "sha384"), ("partmgr.sys", "sha512")] {
        let found = explain(path.to_str().unwrap(), &format!(r"C:\Windows\System32\drivers\{name}"));
        assert_eq!(
            (&found["signature"]["kind"], &found["signature"]["algorithm"]),
            (&json!("embedded"), &json!(algorithm))
        );
        let bad = explain(path.to_str().unwrap(), &format!(r"C:\Windows\System32\drivers\bad-{name}"));
        assert_eq!((&bad["signature"]["kind"], &bad["state"]), (&json!("broken"), &json!("broken")));
    }
}
