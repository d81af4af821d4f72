//! Publishing hits the right file, keeps the way back, and says what is true: images restored, replaced, renamed, linked and
//! held by other programs, through the commands that users type.

use crate::batch::sha;
use crate::demo::vmrescue;
use crate::nbd::server;
use crate::oracle::{run, skipped, tool};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use vmrescue::demo::{Fault, break_it, build};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ends(code: i32, words: &[&str]) -> Output {
    let output = vmrescue(words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
    output
}

fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn built(dir: &Path, kind: Kind, name: &str) -> PathBuf {
    let path = dir.join(name);
    build(&path, kind).unwrap();
    path
}

const KEY: &str = r"HKLM\SYSTEM\ControlSet001\Control";

/// Sets one value; the exit code must be `code`.
fn set(code: i32, image: &Path, name: &str, more: &[&str]) -> Output {
    let mut all = vec!["reg", "set", words(image), KEY, name, "REG_DWORD", "4", "--yes"];
    all.extend(more);
    ends(code, &all)
}

fn operations(image: &Path, more: &[&str]) -> Vec<serde_json::Value> {
    let mut all = vec!["history", words(image), "--json"];
    all.extend(more);
    let document: serde_json::Value = serde_json::from_slice(&ends(0, &all).stdout).unwrap();
    document["operations"].as_array().unwrap().clone()
}

fn beside(image: &Path) -> PathBuf {
    image.with_file_name(format!("{}.vmrescue", image.file_name().unwrap().to_str().unwrap()))
}

/// Makes operation 1, and leaves the image as a crash in the middle of it would: the bytes before, and after.
fn interrupted(image: &Path) -> (Vec<u8>, Vec<u8>) {
    let old = std::fs::read(image).unwrap();
    set(0, image, "Interrupted", &[]);
    let new = std::fs::read(image).unwrap();
    // Every other sector of the new bytes, under the new length.
    let mut half = new.clone();
    for (number, sector) in half.chunks_mut(512).enumerate() {
        let at = number * 512;
        if number % 2 == 0 && at + 512 <= old.len() {
            sector.copy_from_slice(&old[at..at + 512]);
        }
    }
    std::fs::write(image, &half).unwrap();
    let record = beside(image).join("0001.json");
    let done = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, done.replacen("\"state\": \"done\"", "\"state\": \"publishing\"", 1)).unwrap();
    (old, new)
}

/// The first byte of the image that operation 1 touched.
fn first_touched(image: &Path) -> usize {
    let journal = std::fs::read(beside(image).join("0001.journal")).unwrap();
    u64::from_le_bytes(journal[32..40].try_into().unwrap()) as usize
}

#[test]
fn recover_finishes_what_was_interrupted_and_nothing_else() {
    for (kind, name) in [(Kind::VhdDynamic, "d.vhd"), (Kind::VhdxDynamic, "d.vhdx")] {
        let dir = tempfile::tempdir().unwrap();
        let image = built(dir.path(), kind, name);
        let other = built(dir.path(), kind, &format!("other-{name}"));
        let (old, new) = interrupted(&image);
        let half = std::fs::read(&image).unwrap();

        // Reading says so, changing and copying are refused.
        let shown = vmrescue(&["disk", "info", words(&image)]);
        assert!(
            err(&shown).contains("was interrupted") && err(&shown).contains("vmrescue recover"),
            "{}",
            text(&shown)
        );
        assert_eq!(err(&shown).matches("was interrupted").count(), 1, "{}", err(&shown));
        let copy = dir.path().join("copy.raw");
        ends(3, &["disk", "convert", words(&image), words(&copy), "--format", "raw"]);
        let child = dir.path().join(format!("child-{name}"));
        ends(3, &["disk", "snapshot", words(&image), words(&child)]);
        assert!(!child.exists() && !copy.exists());
        set(3, &image, "Another", &[]);

        // A disk that lies under this name now, and a file of ten bytes.
        for foreign in [std::fs::read(&other).unwrap(), b"ten bytes.".to_vec()] {
            std::fs::write(&image, &foreign).unwrap();
            let refused = ends(3, &["recover", words(&image)]);
            assert!(err(&refused).contains("--abandon"), "{}", err(&refused));
            assert!(std::fs::read(&image).unwrap() == foreign);
            let out = dir.path().join("out");
            let batch = vmrescue(&["batch", "repair", words(&image), "--out", words(&out), "--yes"]);
            assert_ne!(batch.status.code(), Some(0), "{}", text(&batch));
            assert!(std::fs::read(&image).unwrap() == foreign, "batch does not recover onto it either");
            std::fs::remove_dir_all(&out).unwrap();
        }

        // The interrupted one again: finished, and undone to the first byte.
        std::fs::write(&image, &half).unwrap();
        ends(0, &["recover", words(&image)]);
        assert!(std::fs::read(&image).unwrap() == new);
        ends(0, &["undo", words(&image), "--yes"]);
        assert!(std::fs::read(&image).unwrap() == old);
    }
}

#[test]
fn an_image_that_was_restored_goes_on_after_abandon() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    interrupted(&image);
    // An older backup: the same disk, other bytes where the operation wrote.
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[first_touched(&image)] ^= 0x55;
    std::fs::write(&image, &bytes).unwrap();
    let refused = ends(3, &["recover", words(&image)]);
    assert!(err(&refused).contains("expected the bytes before or after"), "{}", err(&refused));
    assert!(std::fs::read(&image).unwrap() == bytes);
    let abandoned = ends(0, &["recover", words(&image), "--abandon"]);
    assert!(text(&abandoned).contains("the image was not written"), "{}", text(&abandoned));
    assert!(
        text(&abandoned).contains("what is there of journal and record is kept in"),
        "{}",
        text(&abandoned)
    );
    assert!(std::fs::read(&image).unwrap() == bytes);
    assert_eq!(operations(&image, &[])[0]["state"], "abandoned");
    assert!(text(&ends(0, &["recover", words(&image)])).contains("nothing to recover"));
}

#[test]
fn links_names_and_state_dirs_keep_one_history() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    let state = dir.path().join("state");
    let (sub, link, hard) =
        (dir.path().join("sub"), dir.path().join("link.vhdx"), dir.path().join("sub/hard.vhdx"));
    std::fs::create_dir(&sub).unwrap();
    run(Command::new("ln").args(["-s", "d.vhdx"]).arg(&link));
    std::fs::hard_link(&image, &hard).unwrap();
    set(0, &image, "One", &["--state-dir", words(&state)]);
    assert!(!beside(&image).exists() && !beside(&link).exists());
    for name in [&image, &link, &hard] {
        assert_eq!(operations(name, &[]).len(), 1, "{}", name.display());
    }
    set(0, &link, "Two", &[]);
    set(0, &hard, "Three", &[]);
    assert_eq!(operations(&image, &["--state-dir", words(&state)]).len(), 3);
    let renamed = dir.path().join("renamed.vhdx");
    std::fs::rename(&image, &renamed).unwrap();
    assert_eq!(operations(&renamed, &[]).len(), 3);
    // What is interrupted is seen under every name.
    let folder = state.join("d.vhdx.vmrescue");
    let record = folder.join("0003.json");
    let done = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, done.replacen("\"state\": \"done\"", "\"state\": \"undoing\"", 1)).unwrap();
    for name in [&renamed, &hard] {
        set(3, name, "Four", &[]);
    }
    ends(0, &["recover", words(&hard)]);
    assert_eq!(operations(&renamed, &[])[2]["state"], "undone");
}

#[test]
fn disks_of_one_name_have_histories_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut images = Vec::new();
    for vm in ["vm1", "vm2", "vm3"] {
        std::fs::create_dir(dir.path().join(vm)).unwrap();
        let image = built(&dir.path().join(vm), Kind::VhdxDynamic, "disk.vhdx");
        break_it(&image, &[Fault::AcpiZeroed], &Silent).unwrap();
        let _state = std::fs::remove_dir_all(beside(&image));
        images.push((image.clone(), sha(&image)));
    }
    let (state, out) = (dir.path().join("j"), dir.path().join("out"));
    let pattern = dir.path().join("vm*/disk.vhdx");
    ends(
        0,
        &["batch", "repair", words(&pattern), "--state-dir", words(&state), "--out", words(&out), "--yes"],
    );
    for (image, before) in &images {
        assert_ne!(sha(image), *before);
        assert_eq!(operations(image, &["--state-dir", words(&state)]).len(), 1);
    }
    for (image, before) in &images {
        ends(0, &["undo", words(image), "--state-dir", words(&state), "--yes"]);
        assert_eq!(sha(image), *before, "{}", image.display());
    }
}

/// A program of QEMU that holds an image until it is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn qemu_nbd(image: &Path, socket: &Path, more: &[&str]) -> Option<Holder> {
    let mut command = tool("qemu-nbd")?;
    let child =
        command.args(["-t", "-k"]).arg(socket).args(more).arg(image).stdout(Stdio::null()).spawn().unwrap();
    for _ in 0..400 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Some(Holder(child))
}

#[test]
fn an_image_that_qemu_has_open_is_left_alone() {
    for (kind, format, name) in [(Kind::VhdxDynamic, "vhdx", "d.vhdx"), (Kind::Raw, "raw", "d.raw")] {
        let dir = tempfile::tempdir().unwrap();
        let image = built(dir.path(), kind, name);
        let before = sha(&image);
        let Some(holder) = qemu_nbd(&image, &dir.path().join("s"), &["-f", format]) else { return };
        let refused = set(3, &image, "Value", &[]);
        let said = err(&refused);
        assert!(said.contains("in use by another program"), "{said}");
        assert!(said.contains(&format!("qemu-nbd (process {})", holder.0.id())), "{said}");
        // Somebody writes: there is nothing to look at that will be true.
        ends(3, &["info", words(&image)]);
        ends(3, &["undo", words(&image), "--yes"]);
        let out = dir.path().join("out");
        let batch = ends(4, &["batch", "repair", words(&image), "--out", words(&out), "--yes"]);
        assert!(text(&batch).contains("busy"), "{}", text(&batch));
        drop(holder);
        assert_eq!(sha(&image), before);

        // One that reads can be read beside, and not written.
        let holder = qemu_nbd(&image, &dir.path().join("r"), &["-r", "-f", format]);
        ends(0, &["info", words(&image)]);
        set(3, &image, "Value", &[]);
        drop(holder);
        set(0, &image, "Value", &[]);
    }
}

#[test]
fn qemu_does_not_open_what_we_write_to() {
    let (Some(_), Some(_)) = (tool("qemu-io"), tool("qemu-img")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    let socket = dir.path().join("s");
    let mut ours = server(&image, &socket, &["--write"]);
    for arguments in [&["-f", "vhdx", "-c", "write 0 512"][..], &["-r", "-f", "vhdx", "-c", "read 0 512"]] {
        let other = tool("qemu-io").unwrap().args(arguments).arg(&image).output().unwrap();
        assert!(!other.status.success() && text(&other).contains("lock"), "{}", text(&other));
    }
    ours.kill().unwrap();
    ours.wait().unwrap();
    run(tool("qemu-io").unwrap().args(["-r", "-f", "vhdx", "-c", "read 0 512"]).arg(&image));
    // Whoever only looks keeps nobody from starting the machine.
    let looking = dir.path().join("l");
    let mut ours = server(&image, &looking, &[]);
    run(tool("qemu-io").unwrap().args(["-f", "vhdx", "-c", "read 0 512"]).arg(&image));
    ours.kill().unwrap();
    ours.wait().unwrap();
}

#[test]
fn two_commands_on_one_hive_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    let hive = dir.path().join("SOFTWARE");
    ends(0, &["get", words(&image), r"C:\Windows\System32\config\SOFTWARE", words(&hive)]);
    let names: Vec<String> = (0..12).map(|number| format!("Value{number}")).collect();
    let begun: Vec<Child> = names
        .iter()
        .map(|name| {
            Command::new(env!("CARGO_BIN_EXE_vmrescue"))
                .args(["reg", "set", words(&hive), "Raced", name, "REG_DWORD", "1", "--yes"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let ended: Vec<Output> = begun.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let shown = text(&vmrescue(&["reg", "query", words(&hive), "Raced"]));
    let mut done = 0;
    for (name, output) in names.iter().zip(&ended) {
        let there = shown.contains(&format!("{name} ")) || shown.contains(&format!("{name}\t"));
        match output.status.code() {
            Some(0) => done += 1,
            code => assert_eq!(code, Some(3), "{}", text(output)),
        }
        assert_eq!(there, output.status.code() == Some(0), "{name}: {} in {shown}", text(output));
    }
    assert!(done > 0);
    assert_eq!(operations(&hive, &[]).len(), done);
}

/// Many commands of every kind at once on one image: each does what it says or is refused, nothing is lost, and all of it is
/// undone to the first byte.
#[test]
fn commands_of_every_kind_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    let (first, file) = (sha(&image), words(&image).to_string());
    let set = |name: &str| -> Vec<String> {
        ["reg", "set", &file, KEY, name, "REG_DWORD", "1", "--yes"].map(String::from).to_vec()
    };
    let other =
        |line: &str| -> Vec<String> { line.split(' ').map(|word| word.replace("IMAGE", &file)).collect() };
    let mut commands: Vec<Vec<String>> = (0..6).map(|number| set(&format!("Value{number}"))).collect();
    for line in [
        "disk resize IMAGE 512M --yes",
        "disk compact IMAGE --yes",
        "undo IMAGE --yes",
        "redo IMAGE --yes",
        "recover IMAGE",
        "recover IMAGE --abandon",
        "history gc IMAGE --keep 100 --yes",
        "bcd timeout IMAGE 7 --yes",
        "mkdir IMAGE C:\\made --yes",
        "check IMAGE",
        "history IMAGE",
        "info IMAGE",
    ] {
        commands.push(other(line));
    }
    for round in 0..3 {
        let begun: Vec<Child> = commands
            .iter()
            .map(|words| {
                Command::new(env!("CARGO_BIN_EXE_vmrescue"))
                    .args(words)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for (words, child) in commands.iter().zip(begun) {
            let output = child.wait_with_output().unwrap();
            // 1 are findings, 2 what is not there (nothing to undo), 3 what is refused.
            assert!(matches!(output.status.code(), Some(0..=3)), "{round} {words:?}: {}", text(&output));
            assert!(!text(&output).contains("please report"), "{round} {words:?}: {}", text(&output));
        }
        assert!(!operations(&image, &[]).iter().any(|operation| operation["state"] == "abandoned"));
        let checked = vmrescue(&["check", &file]);
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{}", text(&checked));
    }
    assert!(text(&ends(0, &["recover", &file])).contains("nothing to recover"));
    while vmrescue(&["undo", &file, "--yes"]).status.code() == Some(0) {}
    assert_eq!(sha(&image), first);
}

#[test]
fn the_state_is_as_private_as_an_image_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    // As version 0.1 left it.
    std::fs::create_dir(beside(&image)).unwrap();
    run(Command::new("chmod").arg("755").arg(beside(&image)));
    set(0, &image, "Value", &[]);
    let mode = |path: &Path| {
        String::from_utf8(run(Command::new("stat").args(["-c", "%a"]).arg(path)).stdout)
            .unwrap()
            .trim()
            .to_string()
    };
    assert_eq!(mode(&beside(&image)), "700");
    let files: Vec<PathBuf> = std::fs::read_dir(beside(&image)).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), "600", "{}", file.display());
    }
}

/// With a bare file name too the folder that receives the state folder is made durable ahead of the image.
#[test]
fn the_name_of_the_state_folder_is_durable_before_the_image_is_written() {
    let Some(mut strace) = tool("strace") else { return };
    let dir = tempfile::tempdir().unwrap();
    built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    let log = dir.path().join("log");
    let output = strace
        .args(["-f", "-y", "-e", "trace=rename,renameat,renameat2,fsync,fdatasync,pwrite64", "-o"])
        .arg(&log)
        .arg(env!("CARGO_BIN_EXE_vmrescue"))
        .args(["reg", "set", "d.vhdx", KEY, "Bare", "REG_DWORD", "4", "--yes"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    if !output.status.success() && text(&output).contains("ptrace") {
        return skipped("this machine lets nobody trace");
    }
    assert!(output.status.success(), "{}", text(&output));
    let log = std::fs::read_to_string(&log).unwrap();
    let folder = std::fs::canonicalize(dir.path()).unwrap();
    let made = log
        .lines()
        .position(|line| line.contains("rename") && line.contains("d.vhdx.vmrescue\")"))
        .unwrap_or_else(|| panic!("{log}"));
    let is_sync = |line: &str| line.contains("sync(") && line.contains(&format!("<{}>", words(&folder)));
    let synced = made
        + log
            .lines()
            .skip(made)
            .position(is_sync)
            .unwrap_or_else(|| panic!("the folder of the image is never synced: {log}"));
    let written = log
        .lines()
        .position(|line| {
            line.contains("pwrite64(") && line.contains(&format!("<{}>", words(&folder.join("d.vhdx"))))
        })
        .unwrap_or_else(|| panic!("{log}"));
    assert!(made < synced && synced < written, "{made} {synced} {written}: {log}");
}

#[test]
fn a_parent_is_not_changed_by_anything() {
    let dir = tempfile::tempdir().unwrap();
    let base = built(dir.path(), Kind::VhdxDynamic, "base.vhdx");
    set(0, &base, "Before", &[]);
    let child = dir.path().join("child.vhdx");
    ends(0, &["disk", "snapshot", words(&base), words(&child)]);
    let before = sha(&base);
    for words in [
        &["undo", words(&base), "--yes"][..],
        &["undo", words(&base), "--yes", "--force"],
        &["disk", "resize", words(&base), "512M", "--yes"],
        &["disk", "compact", words(&base), "--yes"],
    ] {
        let refused = ends(3, words);
        assert!(err(&refused).contains("parent of a differencing disk"), "{}", err(&refused));
    }
    set(3, &base, "After", &[]);
    // A child that cannot be looked into may be one: root reads everything, so it is a damaged one here.
    let mut bytes = std::fs::read(&child).unwrap();
    bytes[64 << 10..(64 << 10) + 4096].fill(0xff);
    bytes[128 << 10..(128 << 10) + 4096].fill(0xff);
    std::fs::write(&child, &bytes).unwrap();
    let refused = set(3, &base, "After", &[]);
    assert!(err(&refused).contains("cannot tell"), "{}", err(&refused));
    assert_eq!(sha(&base), before);
    std::fs::remove_file(&child).unwrap();
    ends(0, &["undo", words(&base), "--yes"]);
}

#[test]
fn force_keeps_a_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    set(0, &image, "Ours", &[]);
    // The machine runs: it overwrites what we wrote, and its disk grows.
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[first_touched(&image)] ^= 0x55;
    bytes.extend(vec![0x11; 1 << 20]);
    std::fs::write(&image, &bytes).unwrap();
    ends(3, &["undo", words(&image), "--yes"]);
    assert!(std::fs::read(&image).unwrap() == bytes);
    ends(0, &["undo", words(&image), "--yes", "--force"]);
    assert_eq!(std::fs::metadata(&image).unwrap().len(), bytes.len() as u64, "never shorter");
    ends(0, &["undo", words(&image), "--yes"]);
    assert!(std::fs::read(&image).unwrap() == bytes, "what force overwrote is back");
}

#[test]
fn old_journals_are_collected_when_the_user_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    for name in ["A", "B", "C"] {
        set(0, &image, name, &[]);
    }
    let planned = ends(0, &["history", "gc", words(&image), "--keep", "1", "--dry-run"]);
    assert_eq!(text(&planned).matches("can no longer be undone").count(), 2, "{}", text(&planned));
    assert!(beside(&image).join("0001.journal").exists());
    ends(0, &["history", "gc", words(&image), "--keep", "1", "--yes"]);
    assert!(!beside(&image).join("0001.journal").exists() && beside(&image).join("0003.journal").exists());
    ends(0, &["undo", words(&image), "--yes"]);
    let refused = ends(3, &["undo", words(&image), "--yes"]);
    assert!(err(&refused).contains("history gc"), "{}", err(&refused));
    assert_eq!(operations(&image, &[]).len(), 3);
}

/// The power goes at calls that the program makes on a file, and takes contents and names with it; scripts/crash-sweep.sh has
/// more kinds of images and operations.
#[test]
fn a_power_cut_at_every_call_leaves_the_old_file_or_the_new_one() {
    let (Some(_), Some(_)) = (tool("python3"), tool("strace")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    let raw = built(dir.path(), Kind::Raw, "d.raw");
    let hive = dir.path().join("SOFTWARE");
    ends(0, &["get", words(&image), r"C:\Windows\System32\config\SOFTWARE", words(&hive)]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/crash-files.py");
    let set =
        |name: &str, key: &str| ["reg", "set", name, key, "Cut", "REG_SZ", "x", "--yes"].map(String::from);
    for (file, command, cuts) in
        [(&hive, set("SOFTWARE", "Cut"), 0), (&image, set("d.vhdx", KEY), 40), (&raw, set("d.raw", KEY), 20)]
    {
        let output = tool("python3")
            .unwrap()
            .arg(&script)
            .args(["--cuts", &cuts.to_string(), env!("CARGO_BIN_EXE_vmrescue"), words(file)])
            .args(command)
            .output()
            .unwrap();
        if text(&output).contains("ptrace") || text(&output).contains("PTRACE") {
            return skipped("this machine lets nobody trace");
        }
        assert!(output.status.success(), "{}", text(&output));
        let done: u32 = text(&output).split_whitespace().next().unwrap().parse().unwrap();
        assert!(done >= cuts && done >= 20, "{}", text(&output));
    }
}

/// Begins a command, and waits until `there` is true or the command ended.
fn until(words: &[&str], there: impl Fn() -> bool) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmrescue"))
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..20_000 {
        if there() || child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn interrupt(child: &Child) {
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
}

fn files(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

/// Ctrl-C while an image is being written: the command finishes and says so; asked twice it stops at once, says what it leaves,
/// and `recover` finishes the rest.
#[test]
fn an_interrupt_while_the_image_is_written_says_what_it_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::VhdxDynamic, "d.vhdx");
    let large = dir.path().join("large");
    let noise: Vec<u8> = (0..96u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
    std::fs::write(&large, &noise).unwrap();
    let before = sha(&image);
    let command = ["put", words(&image), words(&large), r"C:\large", "--yes"];
    let journal = beside(&image).join("0001.journal");
    for twice in [false, true] {
        let part = beside(&image).join("new.part");
        let mut child = until(&command, || part.exists() || journal.exists());
        interrupt(&child);
        if twice {
            // The first word was heard when it is said.
            let mut said = [0; 16];
            std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut said).unwrap();
            interrupt(&child);
        }
        let ended = child.wait_with_output().unwrap();
        let said = text(&ended);
        assert!(!files(dir.path()).iter().any(|name| name.ends_with(".part")), "{:?}", files(dir.path()));
        if ended.status.code() == Some(0) {
            assert!(sha(&image) != before);
        } else {
            assert_eq!(ended.status.code(), Some(130), "{said}");
            assert!(said.contains("vmrescue recover"), "{said}");
            ends(0, &["recover", words(&image)]);
        }
        if !twice {
            assert!(said.contains("finishing") && ended.status.code() == Some(0), "{said}");
        }
        // Whatever it was, the way back is there; what was stopped ahead of its record left the old image.
        if operations(&image, &[]).last().is_some_and(|operation| operation["state"] == "done") {
            ends(0, &["undo", words(&image), "--yes"]);
        }
        assert_eq!(sha(&image), before);
        std::fs::remove_dir_all(beside(&image)).unwrap();
    }
}

/// Ctrl-C ahead of the first write, and while a new image is made.
#[test]
fn an_interrupt_before_anything_is_written_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let image = built(dir.path(), Kind::Raw, "d.raw");
    let mut file = std::fs::OpenOptions::new().append(true).open(&image).unwrap();
    for _ in 0..384 {
        std::io::Write::write_all(&mut file, &vec![7; 1 << 20]).unwrap();
    }
    drop(file);
    let before = sha(&image);
    let named = files(dir.path());
    let target = format!("new:{}", words(&dir.path().join("new.raw")));
    let (out, key) = (dir.path().join("out.vhdx"), KEY);
    let new = ["reg", "set", words(&image), key, "x", "REG_SZ", "x", "--yes", "--to", &target];
    let convert = ["disk", "convert", words(&image), words(&out), "--format", "vhdx-dynamic"];
    for command in [&new[..], &convert[..]] {
        let is_part = || files(dir.path()).iter().any(|name| name.ends_with(".part"));
        let child = until(command, is_part);
        assert!(is_part(), "{command:?} was too fast");
        interrupt(&child);
        let ended = child.wait_with_output().unwrap();
        assert!(!ended.status.success(), "{command:?}: {}", text(&ended));
        assert!(text(&ended).contains("stopp") || text(&ended).contains("interrupted"), "{}", text(&ended));
        assert_eq!(files(dir.path()), named, "{command:?}");
    }
    assert_eq!(sha(&image), before);
}
