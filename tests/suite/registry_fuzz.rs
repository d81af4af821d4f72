//! What the targets of cargo-fuzz do (`fuzz/bodies.rs`), done to mutated hives and .reg files without a fuzzer: a short run every day,
//! and one of any length with `VMRESCUE_FUZZ_RUNS` (runs of each body).

use crate::oracle::corpus;
use crate::registry_judges::Random;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/bodies.rs"]
mod bodies;

/// Runs of each body on an ordinary day.
const EVERYDAY: usize = 1500;
/// The largest hive that is a seed: damage is near to what it concerns in small ones.
const LARGEST: u64 = 40_000;

fn small_hives(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            small_hives(&path, found);
        } else if path.metadata().unwrap().len() <= LARGEST
            && std::fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"regf"))
        {
            found.push(path);
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(8) {
        let at = random.below(bytes.len());
        let number = |random: &mut Random| match random.below(6) {
            0 => 0u32,
            1 => u32::MAX,
            2 => random.below(1 << 14) as u32 & !7,
            3 => 0x8000_0000 | random.below(64) as u32,
            _ => random.below(1 << 16) as u32,
        };
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2..=4 => {
                let (at, value) = (at & !3, number(random).to_le_bytes());
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            5 => {
                let (from, length) = (random.below(bytes.len()), 1 + random.below(64));
                let part = bytes[from..(from + length).min(bytes.len())].to_vec();
                let end = (at + part.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&part[..end - at]);
            }
            _ if random.below(8) == 0 => bytes.truncate(at.max(1)),
            _ => {}
        }
    }
}

fn runs() -> usize {
    std::env::var("VMRESCUE_FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(EVERYDAY)
}

/// Calls `body` with mutated seeds; what fails is kept beside the tests' other output.
fn drive(name: &str, seeds: &[Vec<u8>], body: fn(&[u8])) {
    let mut random = Random(0x6a09_e667_f3bc_c908 ^ name.len() as u64);
    for run in 0..runs() {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        mutate(&mut bytes, &mut random);
        if std::panic::catch_unwind(|| body(&bytes)).is_err() {
            let kept = std::env::temp_dir().join(format!("vmrescue-fuzz-{name}-{run}"));
            std::fs::write(&kept, &bytes).unwrap();
            panic!("{name}: run {run} fails; its input is {}", kept.display());
        }
    }
    eprintln!("{name}: {} runs", runs());
}

fn seeds() -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    small_hives(&corpus()?, &mut found);
    assert!(found.len() > 8);
    Some(found.iter().map(|path| std::fs::read(path).unwrap()).collect())
}

#[test]
fn any_bytes_are_read_and_rebuilt_as_hives() {
    let Some(seeds) = seeds() else { return };
    drive("hive", &seeds, bodies::hive);
}

#[test]
fn any_hive_is_edited_without_new_damage() {
    let Some(seeds) = seeds() else { return };
    let mut random = Random(0xbb67_ae85_84ca_a73b);
    let seeds: Vec<Vec<u8>> = (0..40)
        .map(|place| {
            let edits: Vec<u8> = (0..256).map(|_| random.below(256) as u8).collect();
            [edits, seeds[place % seeds.len()].clone()].concat()
        })
        .collect();
    drive("hive-edit", &seeds, bodies::hive_edit);
}

#[test]
fn any_text_is_read_as_a_reg_file() {
    let texts = [
        "Windows Registry Editor Version 5.00\r\n\r\n[HKLM\\a b]c] ; words\r\n@=\"d\"\r\n\"x\"=-\r\n\"m\"=hex(7):61,00,\\\r\n  00,00,00,00\r\n\
         \"e\\\\q\\\"\"=dword:0000001f\r\n\"two\"=\"first\r\nsecond\" ; end\r\n\r\n[-HKLM\\b]\r\n[HKLM\\ж]\r\n\"\"=hex(b):01,00\r\n@=-\r\n",
        "REGEDIT4\n[HKCU\\X]\n\"a\"=hex(2):25,78,25,00\n\"\u{fc}\"=\"\u{fc}\"\n; end",
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.push(vmrescue::registry::reg_text::file_bytes(texts[0]));
    drive("reg-text", &seeds, bodies::reg_text);
}
