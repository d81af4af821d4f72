//! Questions on a terminal: they are asked while the image is locked, Ctrl-C at them leaves nothing, and an answer is to the
//! question that was shown, not to what another program has done meanwhile.

use crate::batch::sha;
use crate::demo::vmrescue;
use crate::oracle::{skipped, tool};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use vmrescue::demo::{Fault, break_it, build};
use vmrescue::image::Kind;

const KEY: &str = r"HKLM\SYSTEM\ControlSet001\Control";

/// A program on a terminal of its own.
struct Terminal {
    child: Child,
    said: String,
}

impl Terminal {
    /// Starts a command and waits until it asks.
    fn asked(command: &[&str]) -> Terminal {
        let quoted: Vec<String> =
            command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let line = format!("'{}' {}", env!("CARGO_BIN_EXE_vmrescue"), quoted.join(" "));
        let child = Command::new("script")
            .args(["-q", "-e", "-c", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut terminal = Terminal { child, said: String::new() };
        let mut byte = [0];
        while !terminal.said.ends_with("[y/N] ") {
            let read = terminal.child.stdout.as_mut().unwrap().read(&mut byte).unwrap();
            assert!(read == 1, "{command:?} did not ask: {}", terminal.said);
            terminal.said.push(char::from(byte[0]));
        }
        terminal
    }

    /// Types an answer; how the program ended, and all that it said.
    fn answered(mut self, keys: &[u8]) -> (Option<i32>, String) {
        self.child.stdin.as_mut().unwrap().write_all(keys).unwrap();
        let mut rest = Vec::new();
        self.child.stdout.as_mut().unwrap().read_to_end(&mut rest).unwrap();
        self.said += &String::from_utf8_lossy(&rest);
        drop(self.child.stdin.take());
        (self.child.wait().unwrap().code(), self.said)
    }
}

fn words(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ends(code: i32, command: &[&str]) {
    let output = vmrescue(command);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
}

/// The three ways to answer a question of each kind of command. Only "y" changes anything; until then the image is locked.
#[test]
fn a_question_is_asked_under_the_lock_and_only_yes_changes_anything() {
    if tool("script").is_none() {
        return skipped("script");
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d.raw");
    build(&image, Kind::Raw).unwrap();
    break_it(&image, &[Fault::StorageDriverDisabled], &vmrescue::progress::Silent).unwrap();
    let hive: PathBuf = dir.path().join("SYSTEM");
    ends(0, &["get", words(&image), r"C:\Windows\System32\config\SYSTEM", words(&hive)]);
    let (base, child) = (dir.path().join("base.vhdx"), dir.path().join("child.vhdx"));
    build(&base, Kind::VhdxDynamic).unwrap();
    let other = dir.path().join("other.vhdx");
    build(&other, Kind::VhdxDynamic).unwrap();
    ends(0, &["disk", "snapshot", words(&base), words(&child)]);
    ends(0, &["reg", "set", words(&child), KEY, "x", "REG_SZ", "x", "--yes"]);
    let (set, drive) = (["reg", "set"], words(&image));
    for (file, command) in [
        (&image, vec!["repair", drive]),
        (&image, vec!["disk", "resize", drive, "512M"]),
        (&image, [&set[..], &[drive, KEY, "x", "REG_SZ", "x"]].concat()),
        (&hive, [&set[..], &[words(&hive), r"ControlSet001\Control", "x", "REG_SZ", "x"]].concat()),
        (&base, vec!["disk", "merge", words(&child)]),
        (&other, vec!["disk", "compact", words(&other)]),
    ] {
        let before = sha(file);
        let (code, said) = Terminal::asked(&command).answered(&[3]);
        assert_eq!(code, Some(130), "{command:?}: {said}");
        assert!(said.contains("nothing was written"), "{command:?}: {said}");
        assert_eq!(sha(file), before, "{command:?}");
        let (code, said) = Terminal::asked(&command).answered(b"n\n");
        assert_eq!(code, Some(1), "{command:?}: {said}");
        assert_eq!(sha(file), before, "{command:?}");
        let asking = Terminal::asked(&command);
        let other: Vec<&str> = command.iter().copied().chain(["--yes"]).collect();
        ends(3, &other);
        let (code, said) = asking.answered(b"y\n");
        assert_eq!(code, Some(0), "{command:?}: {said}");
        assert!(sha(file) != before || command[1] == "compact", "{command:?}");
        if sha(file) != before {
            ends(0, &["undo", words(file), "--yes"]);
            assert_eq!(sha(file), before, "{command:?}");
        }
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
    }
}

/// The operation that was shown was undone by somebody else meanwhile: the one before it is not undone in its place.
#[test]
fn the_answer_is_to_the_operation_that_was_shown() {
    if tool("script").is_none() {
        return skipped("script");
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d.raw");
    build(&image, Kind::Raw).unwrap();
    let mut states = vec![sha(&image)];
    for name in ["one", "two"] {
        ends(0, &["reg", "set", words(&image), KEY, name, "REG_SZ", "x", "--yes"]);
        states.push(sha(&image));
    }
    let undo = Terminal::asked(&["undo", words(&image)]);
    assert!(undo.said.contains("operation 0002"), "{}", undo.said);
    ends(0, &["undo", words(&image), "--yes"]);
    let (code, said) = undo.answered(b"y\n");
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(sha(&image), states[1]);
    ends(0, &["undo", words(&image), "--yes"]);
    let redo = Terminal::asked(&["redo", words(&image)]);
    assert!(redo.said.contains("operation 0001"), "{}", redo.said);
    ends(0, &["redo", words(&image), "--yes"]);
    let (code, said) = redo.answered(b"y\n");
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(sha(&image), states[1]);
}
