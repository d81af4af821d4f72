//! Opens a hive and reads every key and value, with our reader and with the crate nt-hive, in one run.
//! Usage: cargo bench --bench hive_walk -- HIVE

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may fail and tells")]

use std::time::Instant;
use vmrescue::registry::{Hive, HiveEditor, Key};

fn ours(key: &Key<'_>, count: &mut (u64, u64, u64)) {
    count.0 += 1;
    for value in key.values_lenient().0 {
        count.1 += 1;
        count.2 += value.name().len() as u64 + value.data().map_or(0, |data| data.len() as u64);
    }
    for child in key.subkeys_lenient().0 {
        count.2 += child.name().len() as u64;
        ours(&child, count);
    }
}

fn theirs(key: &nt_hive::KeyNode<'_, &[u8]>, count: &mut (u64, u64, u64)) {
    count.0 += 1;
    for value in key.values().into_iter().flatten().flatten().flatten() {
        count.1 += 1;
        let name = value.name().map_or(0, |name| name.to_string_lossy().len() as u64);
        count.2 += name + value.data().and_then(|data| data.into_vec()).map_or(0, |data| data.len() as u64);
    }
    for child in key.subkeys().into_iter().flatten().flatten().flatten() {
        count.2 += child.name().map_or(0, |name| name.to_string_lossy().len() as u64);
        theirs(&child, count);
    }
}

fn best(name: &str, mut work: impl FnMut() -> (u64, u64, u64)) {
    let mut fastest = f64::MAX;
    let mut count = (0, 0, 0);
    for _ in 0..5 {
        let begun = Instant::now();
        count = work();
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    println!("{name}: {:.0} ms for {} keys, {} values, {} bytes", fastest * 1e3, count.0, count.1, count.2);
}

fn main() {
    let Some(path) = std::env::args().skip(1).find(|word| !word.starts_with("--")) else {
        println!("usage: cargo bench --bench hive_walk -- HIVE");
        return;
    };
    best("vmrescue", || {
        let mut count = (0, 0, 0);
        ours(&Hive::parse(std::fs::read(&path).unwrap()).unwrap().root(), &mut count);
        count
    });
    best("nt-hive", || {
        let (bytes, mut count) = (std::fs::read(&path).unwrap(), (0, 0, 0));
        let hive = nt_hive::Hive::without_validation(bytes.as_slice()).unwrap();
        theirs(&hive.root_key_node().unwrap(), &mut count);
        count
    });
    best("vmrescue check", || {
        let defects = Hive::parse(std::fs::read(&path).unwrap()).unwrap().check();
        (0, 0, defects.len() as u64)
    });
    best("vmrescue editor", || {
        let hive = Hive::parse(std::fs::read(&path).unwrap()).unwrap();
        let mut editor = HiveEditor::new(hive).unwrap();
        editor.set_value("vmrescue\\bench", "v", vmrescue::registry::DataType::DWORD, &[1, 0, 0, 0]).unwrap();
        (0, 1, editor.finish(vmrescue::time::FileTime::now()).unwrap().changed.len() as u64)
    });
}
