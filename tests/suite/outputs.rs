//! Files that commands make: new ones only, never over the image, its parents or its history, whatever name leads there;
//! whole or not at all; and as private as the image.

use crate::demo::vmrescue;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use vmrescue::ErrorKind;
use vmrescue::block::OutputRules;
use vmrescue::demo::{Fault, break_it, build};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_whole_and_what_is_dropped_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let rules = OutputRules::new(false);
    let mut file = rules.create(&path).unwrap();
    file.write_all(b"half").unwrap();
    assert!(!path.exists() && names(dir.path()).len() == 1);
    drop(file);
    assert!(names(dir.path()).is_empty());
    rules.write(&path, b"whole").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    assert_eq!(rules.write(&path, b"again").unwrap_err().kind(), ErrorKind::AlreadyExists);
    OutputRules::new(true).write(&path, b"again").unwrap();
    assert_eq!((fs::read(&path).unwrap(), names(dir.path()).len()), (b"again".to_vec(), 1));
}

#[test]
fn a_file_that_appears_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let mut file = OutputRules::new(false).create(&path).unwrap();
    file.write_all(b"ours").unwrap();
    fs::write(&path, b"theirs").unwrap();
    assert_eq!(file.finish().unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"theirs".to_vec(), vec!["out".to_string()]));
}

#[test]
fn no_name_leads_to_the_image_or_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let (image, state) = (dir.path().join("a.vhdx"), dir.path().join("a.vhdx.vmrescue"));
    fs::write(&image, b"disk").unwrap();
    fs::create_dir(&state).unwrap();
    fs::write(state.join("00000001.journal"), b"journal").unwrap();
    let (hard, soft, folder) = (dir.path().join("hard"), dir.path().join("soft"), dir.path().join("folder"));
    fs::hard_link(&image, &hard).unwrap();
    symlink(&image, &soft).unwrap();
    symlink(&state, &folder).unwrap();
    let rules = OutputRules::new(true).of_image(&image).unwrap();
    let rules = rules.protect_folder(&state, "this folder holds the way back").unwrap();
    let inside = [state.join("00000001.journal"), state.join("new"), folder.join("new"), folder.join("a/b")];
    for path in [&image, &hard, &soft, &dir.path().join("./folder/../a.vhdx")].into_iter().chain(&inside) {
        let e = rules.write(path, b"report").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused, "{}: {e}", path.display());
    }
    assert!(rules.create_folder(&folder.join("new/folder")).is_err());
    assert_eq!(fs::read(&image).unwrap(), b"disk");
    assert_eq!(names(&state), ["00000001.journal"]);
    rules.write(&dir.path().join("report"), b"report").unwrap();
}

#[test]
fn links_are_replaced_and_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (precious, link) = (dir.path().join("precious"), dir.path().join("link"));
    fs::write(&precious, b"words").unwrap();
    symlink(&precious, &link).unwrap();
    assert_eq!(OutputRules::new(false).write(&link, b"x").unwrap_err().kind(), ErrorKind::AlreadyExists);
    let dangling = dir.path().join("dangling");
    symlink(dir.path().join("nothing"), &dangling).unwrap();
    assert_eq!(OutputRules::new(false).write(&dangling, b"x").unwrap_err().kind(), ErrorKind::AlreadyExists);
    OutputRules::new(true).write(&link, b"x").unwrap();
    assert_eq!((fs::read(&precious).unwrap(), fs::read(&link).unwrap()), (b"words".to_vec(), b"x".to_vec()));
    OutputRules::new(true).write(Path::new("/dev/null"), b"x").unwrap();
    assert_eq!(OutputRules::new(true).write(dir.path(), b"x").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn what_comes_from_a_private_image_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.vhdx");
    fs::write(&image, b"disk").unwrap();
    for (mode, folder) in [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)] {
        fs::set_permissions(&image, fs::Permissions::from_mode(mode)).unwrap();
        let rules = OutputRules::new(true).of_image(&image).unwrap();
        let out = dir.path().join(format!("{mode:o}"));
        rules.create_folder(&out).unwrap();
        rules.write(&out.join("file"), b"secret").unwrap();
        let mode_of = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode_of(&out.join("file")) & !mode, 0);
        assert_eq!(mode_of(&out) & !folder, 0);
    }
}

#[test]
fn what_a_killed_program_left_is_tidied_up() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join(format!(".out.{}.part", vmrescue::guid::Guid::random()));
    fs::write(&old, b"half").unwrap();
    let file = fs::File::open(&old).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600)).unwrap();
    drop(file);
    let young = dir.path().join(format!(".out.{}.part", vmrescue::guid::Guid::random()));
    fs::write(&young, b"half").unwrap();
    OutputRules::new(false).write(&dir.path().join("out"), b"whole").unwrap();
    assert!(!old.exists() && young.exists());
}

/// Every command that makes a file, with its words; `OUT` is the file.
const COMMANDS: [(&str, &[&str]); 13] = [
    ("get", &["get", "IMAGE", r"C:\Users\Public\Desktop\readme.txt", "OUT"]),
    ("timeline", &["timeline", "IMAGE", "--kind", "registry", "--out", "OUT"]),
    ("body file", &["timeline", "IMAGE", "--format", "bodyfile", "--kind", "registry", "--out", "OUT"]),
    ("reg export", &["reg", "export", "IMAGE", r"HKLM\SYSTEM\Select", "OUT"]),
    ("bcd export", &["bcd", "export", "IMAGE", "OUT"]),
    ("baseline", &["baseline", "create", "IMAGE", "--out", "OUT"]),
    ("inspect", &["inspect", "IMAGE", "--html", "OUT"]),
    ("diagnose", &["diagnose", "IMAGE", "--html", "OUT"]),
    ("collect", &["collect", "IMAGE", "--profile", "boot", "-o", "OUT"]),
    ("convert", &["disk", "convert", "IMAGE", "OUT", "--format", "vhdx-dynamic"]),
    ("snapshot", &["disk", "snapshot", "IMAGE", "OUT"]),
    (
        "child",
        &["reg", "set", "IMAGE", r"HKLM\SYSTEM\Select", "x", "REG_SZ", "x", "--yes", "--to", "child:OUT"],
    ),
    ("new", &["reg", "set", "IMAGE", r"HKLM\SYSTEM\Select", "x", "REG_SZ", "x", "--yes", "--to", "new:OUT"]),
];
/// Those that take `--force`.
const FORCED: usize = 10;

fn words<'a>(words: &[&'a str], image: &'a str, out: &str) -> Vec<String> {
    words
        .iter()
        .map(|word| if *word == "IMAGE" { image.to_string() } else { word.replace("OUT", out) })
        .collect()
}

fn run(words: &[String]) -> (Option<i32>, String) {
    let done = vmrescue(&words.iter().map(String::as_str).collect::<Vec<_>>());
    (
        done.status.code(),
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr),
    )
}

/// Name, length, time and content of everything below a folder.
fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(listing(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn no_command_writes_over_the_image_its_parent_or_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let (base, child) = (dir.path().join("base.vhdx"), dir.path().join("d.vhdx"));
    build(&base, Kind::VhdxDynamic).unwrap();
    assert_eq!(
        run(&words(&["disk", "snapshot", "IMAGE", "OUT"], base.to_str().unwrap(), child.to_str().unwrap())).0,
        Some(0)
    );
    break_it(&child, &[Fault::AcpiZeroed], &Silent).unwrap();
    let state =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let journal = listing(&state)[0].0.clone();
    let (hard, soft, parent) =
        (dir.path().join("hard"), dir.path().join("soft.zip"), dir.path().join("p.zip"));
    fs::hard_link(&child, &hard).unwrap();
    symlink(&child, &soft).unwrap();
    symlink(&base, &parent).unwrap();
    let other = dir.path().join("other.zip");
    fs::write(&other, b"precious").unwrap();
    let before = listing(dir.path());
    let image = child.to_str().unwrap();
    for (number, (name, command)) in COMMANDS.iter().enumerate() {
        for out in [&child, &hard, &soft, &base, &parent, &journal, &state.join("new.zip"), &other] {
            for force in [false, true] {
                if force && (number >= FORCED || out == &other) {
                    continue;
                }
                let mut words = words(command, image, out.to_str().unwrap());
                words.extend(force.then(|| "--force".to_string()));
                let (code, said) = run(&words);
                assert!(matches!(code, Some(2 | 3)), "{name} {}: {code:?} {said}", out.display());
                assert!(before == listing(dir.path()), "{name} wrote over {}", out.display());
            }
        }
        // A new file is made, once; with force again.
        let out = dir.path().join("made.zip");
        let mut words = words(command, image, out.to_str().unwrap());
        assert!(matches!(run(&words).0, Some(0 | 1)), "{name}: {}", run(&words).1);
        assert!(fs::metadata(&out).unwrap().len() > 0, "{name}");
        if number < FORCED {
            words.push("--force".into());
            assert!(matches!(run(&words).0, Some(0 | 1)), "{name} with --force: {}", run(&words).1);
        }
        fs::remove_file(&out).unwrap();
        // An image that was changed on its way has a history.
        let history = dir.path().join("made.zip.vmrescue");
        if number >= FORCED && history.exists() {
            fs::remove_dir_all(&history).unwrap();
        }
        assert!(before == listing(dir.path()), "{name} left something");
    }
}

#[test]
fn what_comes_from_a_private_image_is_private_whichever_command_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d.vhdx");
    build(&image, Kind::VhdxDynamic).unwrap();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o600)).unwrap();
    for (name, command) in COMMANDS {
        let out = dir.path().join("made.zip");
        let (code, said) = run(&words(command, image.to_str().unwrap(), out.to_str().unwrap()));
        assert!(matches!(code, Some(0 | 1)), "{name}: {said}");
        assert_eq!(fs::metadata(&out).unwrap().mode() & 0o077, 0, "{name} is open to others");
        fs::remove_file(&out).unwrap();
    }
    let tree = dir.path().join("tree");
    let config = ["get", "IMAGE", r"C:\Windows\System32\config", "OUT", "-r"];
    assert_eq!(run(&words(&config, image.to_str().unwrap(), tree.to_str().unwrap())).0, Some(0));
    assert_eq!(fs::metadata(&tree).unwrap().mode() & 0o077, 0);
    assert_eq!(fs::metadata(tree.join("SYSTEM")).unwrap().mode() & 0o077, 0);
}

/// Ctrl-C in the middle: neither half a file nor a temporary one stays.
#[test]
fn what_is_interrupted_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (image, out) = (dir.path().join("d.raw"), dir.path().join("out.vhdx"));
    build(&image, Kind::Raw).unwrap();
    // Something to copy: half a gigabyte that is not zero.
    let mut file = fs::OpenOptions::new().append(true).open(&image).unwrap();
    for _ in 0..512 {
        file.write_all(&vec![7; 1 << 20]).unwrap();
    }
    drop(file);
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmrescue"))
        .args(["disk", "convert", image.to_str().unwrap(), out.to_str().unwrap(), "--format", "vhdx-dynamic"])
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while names(dir.path()).len() < 2 && begun.elapsed().as_secs() < 30 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(names(dir.path()).iter().any(|name| name.ends_with(".part")), "{:?}", names(dir.path()));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_ne!(child.wait().unwrap().code(), Some(0));
    assert_eq!(names(dir.path()), ["d.raw"]);
}
