//! Puts the commit into released programs, so that a report of a fault says which program it was.

use std::process::Command;

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=VMRESCUE_COMMIT");
    // Who builds from an archive may say it; a build for development is not made again for every commit.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = std::env::var("VMRESCUE_COMMIT").ok().or_else(|| {
        let head = git(&["rev-parse", "--short=12", "HEAD"]).filter(|_| is_release)?;
        for part in ["HEAD", "refs/heads"] {
            if let Some(path) = git(&["rev-parse", "--git-path", part]) {
                println!("cargo::rerun-if-changed={path}");
            }
        }
        Some(head)
    });
    let commit =
        commit.filter(|commit| !commit.is_empty()).map_or(String::new(), |commit| format!(" ({commit})"));
    println!("cargo::rustc-env=VMRESCUE_VERSION={}{commit}", env!("CARGO_PKG_VERSION"));
}
