//! Runs after the suite and says what could not be checked on this machine, and why. It has no tests of its own.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "this is a program that prints")]

use std::collections::BTreeMap;
use std::path::Path;

fn main() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/skipped/suite.txt");
    let Ok(text) = std::fs::read_to_string(&list) else {
        println!("\nEvery independent program that the suite asked for was there.");
        return;
    };
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in text.lines() {
        *reasons.entry(reason).or_default() += 1;
    }
    println!("\nNot checked on this machine:");
    for (reason, times) in reasons {
        println!("  {times} times: {reason}");
    }
    println!("`VMRESCUE_REQUIRE_ORACLES=1 cargo test` makes these failures.");
    // The next run begins with an empty list.
    std::fs::remove_file(&list).unwrap();
}
