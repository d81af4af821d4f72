//! The edges of an operation: what is tried before anything is written, what a damaged container is spared, what the
//! history does not tell.

use crate::demo::vmrescue;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vmrescue::demo::build;
use vmrescue::image::Kind;

fn run(words: &[&str]) -> (Option<i32>, String) {
    let done = vmrescue(words);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.code(), said)
}

/// Names and content of everything below a folder.
fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(listing(&path));
            all.push((path, Vec::new()));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_dry_run_fails_where_the_real_run_fails_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("d.vhdx"), dir.path().join("file"));
    build(&path, Kind::VhdxDynamic).unwrap();
    fs::write(&file, "words").unwrap();
    let (image, host) = (path.to_str().unwrap(), file.to_str().unwrap());
    let there = format!("new:{host}");
    let script = dir.path().join("unsafe.toml");
    fs::write(
        &script,
        "name = 'x'\ntitle = 'x'\ndocumentation = 'x'\n[[steps]]\nop = 'file.write-text'\npath = 'C:\\x'\ntext = 'x'\nunsafe = 'because'\n",
    )
    .unwrap();
    let own = script.to_str().unwrap();
    let before = listing(dir.path());
    for words in [
        vec!["rm", image, r"C:\Windows"],
        vec!["put", image, host, r"C:\not there\file"],
        vec!["mkdir", image, r"C:\Windows\System32\drivers\ACPI.sys\x"],
        vec!["mv", image, r"C:\Windows", r"C:\Windows\System32\Windows"],
        vec!["put", image, host, r"C:\Windows\a:b:c"],
        vec!["repair", image, own],
        vec!["put", image, host, r"C:\file", "--to", &there],
        vec!["put", image, host, r"C:\file", "--to", "child:/not/there/child.vhdx"],
    ] {
        let (dry, said) = run(&[&words[..], &["--dry-run"]].concat());
        assert!(before == listing(dir.path()), "{words:?} --dry-run wrote something: {said}");
        let (real, really) = run(&[&words[..], &["--yes"]].concat());
        assert!(matches!(real, Some(2 | 3)), "{words:?} does not fail: {really}");
        assert_eq!(dry, real, "{words:?}: {said} / {really}");
        assert!(before == listing(dir.path()), "{words:?} wrote something");
    }
    // What would succeed is tried and verified, and says so.
    let words = ["put", image, host, r"C:\Windows\file"];
    let (code, said) = run(&[&words[..], &["--dry-run"]].concat());
    assert!(
        code == Some(1) && said.contains("verified") && said.contains("nothing was written"),
        "{code:?} {said}"
    );
    let (code, said) = run(&[&words[..], &["--dry-run", "--json"]].concat());
    let document: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(code == Some(1) && document["operation"].is_null(), "{said}");
    assert!(document["bytes_changed"].as_u64().unwrap() > 0 && document["verified"].is_object(), "{said}");
    assert!(before == listing(dir.path()));
    assert_eq!(run(&[&words[..], &["--yes", "--strict"]].concat()).0, Some(0));
}

#[test]
fn a_damaged_container_is_read_and_no_command_writes_to_it() {
    const BAT: usize = 3 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (path, host) = (dir.path().join("d.vhdx"), dir.path().join("file"));
    build(&path, Kind::VhdxDynamic).unwrap();
    fs::write(&host, "words").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let entry =
        |bytes: &[u8], n: usize| u64::from_le_bytes(bytes[BAT + n * 8..BAT + n * 8 + 8].try_into().unwrap());
    // The last block that is there becomes a second name of the first.
    let last = (1..8).rev().find(|n| entry(&bytes, *n) & 7 == 6).unwrap();
    let first = entry(&bytes, 0);
    bytes[BAT + last * 8..BAT + last * 8 + 8].copy_from_slice(&first.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let image = path.to_str().unwrap();
    assert_eq!(run(&["disk", "check", image]).0, Some(1));
    assert_eq!(run(&["info", image]).0, Some(0));
    let child = format!("child:{}", dir.path().join("c.vhdx").display());
    let before = listing(dir.path());
    for words in [
        vec!["reg", "set", image, r"HKLM\SYSTEM\Select", "x", "REG_SZ", "x", "--yes"],
        vec!["reg", "set", image, r"HKLM\SYSTEM\Select", "x", "REG_SZ", "x", "--yes", "--to", &child],
        vec!["put", image, host.to_str().unwrap(), r"C:\file", "--yes"],
        vec!["put", image, host.to_str().unwrap(), r"C:\file", "--dry-run"],
        vec!["disk", "resize", image, "1G", "--yes"],
        vec!["disk", "compact", image, "--yes"],
        vec!["disk", "snapshot", image, dir.path().join("s.vhdx").to_str().unwrap()],
        vec!["bcd", "timeout", image, "5", "--yes"],
    ] {
        let (code, said) = run(&words);
        assert!(matches!(code, Some(2 | 3)), "{words:?}: {code:?} {said}");
        assert!(said.contains("share bytes") || said.contains("damaged"), "{words:?}: {said}");
        assert!(before == listing(dir.path()), "{words:?} wrote something");
    }
}

#[test]
fn secrets_stand_in_no_record_and_in_no_output() {
    const SECRET: &str = r"Correct-Horse 'Battery\ 9";
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("d.vhdx"), dir.path().join("password"));
    build(&path, Kind::VhdxDynamic).unwrap();
    fs::write(&file, format!("{SECRET}\r\n")).unwrap();
    let image = path.to_str().unwrap();
    let from_file = format!("password={}", file.display());
    let (code, told) =
        run(&["repair", image, "enable-admin", "--set", "user=rescue", "--set-file", &from_file, "--yes"]);
    assert_eq!(code, Some(0), "{told}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmrescue"))
        .args(["repair", image, "enable-admin", "--set", "user=other", "--set-file", "password=-", "--yes"])
        .stdin(Stdio::piped())
        .output_with(SECRET);
    assert!(child.0, "{}", child.1);
    let open = format!("password={SECRET}");
    let (code, warned) =
        run(&["repair", image, "enable-admin", "--set", "user=third", "--set", &open, "--yes", "--json"]);
    assert!(code == Some(0) && warned.contains("warning: --set password="), "{warned}");
    let secret_key = r"HKLM\SAM\SAM";
    let (code, said) = run(&["reg", "set", image, secret_key, "V", "REG_SZ", SECRET, "--yes", "--json"]);
    assert!(code == Some(0) || said.contains("does not exist") || said.contains("no such"), "{said}");
    let history = run(&["history", image, "--json"]).1;
    child.1.push_str(&(told + &warned + &said + &history));
    // The records of the state; its journals hold what the disk holds.
    for (name, content) in listing(dir.path()) {
        if name.extension().is_some_and(|end| end == "json") {
            child.1.push_str(&String::from_utf8_lossy(&content));
        }
    }
    for part in ["Battery", "Horse"] {
        assert!(!child.1.contains(part), "{}", child.1);
    }
    // And the disk has it.
    let script =
        run(&["cat", image, r"C:\Windows\System32\GroupPolicy\Machine\Scripts\Startup\FixAzureVM.cmd"]).1;
    assert!(script.contains(SECRET), "{script}");
}

/// Completions that their shell takes, and a page for every command, which are not written over without `--force`.
#[test]
fn the_program_explains_itself_to_shells_and_man() {
    let dir = tempfile::tempdir().unwrap();
    let (code, script) = run(&["completions", "bash"]);
    assert!(code == Some(0) && script.contains("revert-pending"), "{script}");
    let (takes, said) = Command::new("bash").arg("-n").stdin(Stdio::piped()).output_with(&script);
    assert!(takes, "{said}");
    for shell in ["zsh", "fish", "powershell"] {
        let (code, script) = run(&["completions", shell]);
        assert!(code == Some(0) && script.contains("displayorder"), "{shell}: {script}");
    }
    let pages = dir.path().join("man1");
    let pages = pages.to_str().unwrap();
    let (code, said) = run(&["man", pages]);
    assert_eq!(code, Some(0), "{said}");
    let page = fs::read_to_string(dir.path().join("man1/vmrescue-reg-import.1")).unwrap();
    assert!(page.contains("inherit\\-security"), "{page}");
    assert!(fs::read_dir(pages).unwrap().count() > 80);
    assert_eq!(run(&["man", pages]).0, Some(2));
    assert_eq!(run(&["man", pages, "--force"]).0, Some(0));
    let (_, overview) = run(&["--help"]);
    for task in ["What is wrong:", "Make it boot again:", "The way back:"] {
        assert!(overview.contains(task), "{overview}");
    }
}

/// Runs a command with words on its standard input.
trait OutputWith {
    fn output_with(&mut self, input: &str) -> (bool, String);
}

impl OutputWith for Command {
    fn output_with(&mut self, input: &str) -> (bool, String) {
        let mut child = self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        (done.status.success(), said)
    }
}
