//! Independent programs and the corpus: found, or missed loudly. With `VMRESCUE_REQUIRE_ORACLES=1` missing is failing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn required() -> bool {
    std::env::var_os("VMRESCUE_REQUIRE_ORACLES").is_some_and(|value| value == "1")
}

/// A command for an independent program; `None`, loudly, when it is not installed.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/sbin", "/usr/sbin"].map(PathBuf::from));
    if places.map(|dir| dir.join(name)).any(|file| file.is_file()) {
        let mut command = Command::new(name);
        command.env("PATH", format!("{}:/sbin:/usr/sbin", path.to_string_lossy()));
        return Some(command);
    }
    skipped(&format!("the program {name} is not installed"));
    None
}

/// Says that a test could not run; fails where oracles are required.
///
/// The harness swallows what a passing test prints. The line is kept in `target/skipped` instead, and
/// `tests/zz_skipped.rs`, which runs after the suite, prints it.
pub(crate) fn skipped(why: &str) {
    assert!(!required(), "an oracle is missing: {why}");
    told(why);
}

/// The same for a judge that no package has and nobody may hand on (Microsoft's own programs): its absence is told, and never
/// fails.
pub(crate) fn told(why: &str) {
    eprintln!("SKIPPED: {why}");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/skipped");
    std::fs::create_dir_all(&dir).unwrap();
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("suite.txt")).unwrap();
    writeln!(list, "{why}").unwrap();
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The unpacked corpus: `VMRESCUE_CORPUS`, or `../shared/corpus` unpacked once into `target/corpus`.
pub(crate) fn corpus() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("VMRESCUE_CORPUS") {
        return Some(PathBuf::from(dir));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packed = root.join("../shared/corpus");
    if !packed.join("unpack.sh").is_file() {
        skipped("there is no corpus beside this project, and VMRESCUE_CORPUS does not name one");
        return None;
    }
    static UNPACK: std::sync::Once = std::sync::Once::new();
    let dir = root.join("target/corpus");
    UNPACK.call_once(|| {
        if !dir.join(".complete").is_file() {
            run(Command::new("sh").arg(packed.join("unpack.sh")).arg(&dir));
            std::fs::write(dir.join(".complete"), "").unwrap();
        }
    });
    Some(dir)
}
