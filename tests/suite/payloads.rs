//! Packed payloads and deltas: every sample of the corpus to the bytes that other programs made of it, damage to an error, and what wimlib packs.

use crate::oracle::{corpus, run, skipped, tool};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vmrescue::bytes::{u32_at, u64_at};
use vmrescue::payload::cab::Cabinet;
use vmrescue::payload::{Form, decode, delta, form, lzms, psf};
use vmrescue::text::hex;

const LIMIT: u64 = 512 << 20;

fn samples() -> Option<PathBuf> {
    let dir = corpus()?.join("10-servicing-payload");
    if !dir.is_dir() {
        skipped("the corpus has no samples of payloads");
        return None;
    }
    Some(dir)
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Payload, source, and what must come out.
const DELTAS: [(&str, &str, &str); 14] = [
    ("dcs/cmd.exe.dcs", "", "pe/cmd.exe"),
    ("dcs/where.exe.dcs", "", "pe/where.exe"),
    ("dcs/kbdwol.dll.dcs", "", "pa30-pe/amd64_kbdwol/target.bin"),
    ("pa30-raw/cmd-to-where.pa30", "pe/cmd.exe", "pe/where.exe"),
    ("pa30-raw/advapi32.pa30", "pe/advapi32_old.dll", "pe/advapi32_new.dll"),
    ("pa30-pe/advapi32-amd64.pa30", "pe/advapi32_old.dll", "pe/advapi32_new.dll"),
    ("pa30-pe/amd64_kbdwol/delta.pa30", "pa30-pe/amd64_kbdwol/base.bin", "pa30-pe/amd64_kbdwol/target.bin"),
    (
        "pa30-pe/wow64_kbdmaori/delta.pa30",
        "pa30-pe/wow64_kbdmaori/base.bin",
        "pa30-pe/wow64_kbdmaori/target.bin",
    ),
    ("pa31/r-advapi32-pe.pa30", "pe/advapi32_new.dll", "pe/advapi32_old.dll"),
    ("pa31/f-advapi32-pe.pa31", "pe/advapi32_old.dll", "pe/advapi32_new.dll"),
    ("pa31/r-advapi32-pe.pa31", "pe/advapi32_new.dll", "pe/advapi32_old.dll"),
    ("pa31/n-where.pa30", "", "pe/where.exe"),
    ("pa31/n-where.pa31", "", "pe/where.exe"),
    (
        "store/WinSxS/amd64_microsoft-windows-r..e-sample-advapi-dcd_31bf3856ad364e35_6.3.9600.17031_none_ef7626a6a01c3506/advapi32.dll",
        "pe/advapi32_old.dll",
        "pe/advapi32_new.dll",
    ),
];

#[test]
fn payloads_give_the_files_that_they_were_made_of() {
    let Some(dir) = samples() else { return };
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    for (payload, source, target) in DELTAS {
        let source = (!source.is_empty()).then(|| read(source));
        let found = decode(&read(payload), source.as_deref(), LIMIT);
        let found = found.unwrap_or_else(|e| panic!("{payload}: {e}"));
        assert!(found.data == read(target), "{payload}");
    }
}

#[test]
fn manifests_give_their_text_with_the_right_base_only() {
    let Some(dir) = samples() else { return };
    let base = std::fs::read(dir.join("dcm/base_manifest.bin")).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.join("dcm")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !name.ends_with(".manifest") {
            continue;
        }
        let packed = std::fs::read(&path).unwrap();
        assert_eq!(form(&packed), Form::Dcm);
        let found = decode(&packed, Some(&base), LIMIT).unwrap();
        assert!(found.data == std::fs::read(dir.join(format!("dcm/expected/{name}.xml"))).unwrap(), "{name}");
        assert!(!found.confirmed && found.doubt.is_some(), "a manifest's delta has no hash");
        let mut wrong = base.clone();
        wrong[100] ^= 1;
        // Other text, or an error: never a confirmation.
        if let Ok(other) = decode(&packed, Some(&wrong), LIMIT) {
            assert!(!other.confirmed);
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn the_store_of_the_corpus_comes_apart() {
    let Some(dir) = samples() else { return };
    let base = std::fs::read(dir.join("dcm/base_manifest.bin")).unwrap();
    let store = dir.join("store/WinSxS");
    let expected = std::fs::read_to_string(dir.join("store/expected.tsv")).unwrap();
    for line in expected.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, path, wanted, note] = fields[..] else { panic!("{line}") };
        let read = |path: &Path| std::fs::read(path).unwrap();
        let data = if kind == "manifest" {
            let packed = read(&store.join(format!("Manifests/{path}.manifest")));
            decode(&packed, Some(&base), LIMIT).unwrap().data
        } else {
            let (component, file) = path.split_once('/').unwrap();
            let folder = store.join(component);
            let old = || {
                let packed = read(&store.join("amd64_microsoft-windows-rescue-sample-advapi_31bf3856ad364e35_10.0.26100.1_none_3047e27d66326523/advapi32.dll"));
                decode(&packed, None, LIMIT).unwrap().data
            };
            match note.split([' ', ':', '(']).next().unwrap() {
                "DCS" | "DCN" | "intact" => decode(&read(&folder.join(file)), None, LIMIT).unwrap().data,
                "DCD" => decode(&read(&folder.join(file)), Some(&old()), LIMIT).unwrap().data,
                "damaged" => decode(&read(&folder.join("f").join(file)), Some(&old()), LIMIT).unwrap().data,
                "missing" => {
                    let newer = store.join("amd64_microsoft-windows-rescue-sample-advapi31_31bf3856ad364e35_10.0.26100.8972_none_bff1d72b3dc37e98");
                    let source = read(&newer.join(file));
                    decode(&read(&newer.join("r").join(file)), Some(&source), LIMIT).unwrap().data
                }
                "n" => decode(&read(&folder.join("n").join(file)), None, LIMIT).unwrap().data,
                other => panic!("{other}"),
            }
        };
        assert_eq!(sha256(&data), wanted, "{path}");
    }
}

#[test]
fn what_no_public_description_is_known_of_is_refused_by_name() {
    let Some(dir) = samples() else { return };
    for entry in std::fs::read_dir(dir.join("pa30-managed")).unwrap() {
        let case = entry.unwrap().path();
        let source = std::fs::read(case.join("source.dll")).unwrap();
        let error =
            decode(&std::fs::read(case.join("delta.pa30")).unwrap(), Some(&source), LIMIT).unwrap_err();
        assert!(error.to_string().contains("managed"), "{}: {error}", case.display());
    }
    // Sections that moved: the delta's own hash tells that the result would be wrong.
    let case = dir.join("pa30-pe/amd64_provdiagnostics");
    let packed = std::fs::read(case.join("delta.pa30")).unwrap();
    let error = decode(&packed, Some(&std::fs::read(case.join("base.bin")).unwrap()), LIMIT).unwrap_err();
    assert!(error.to_string().contains("hash"), "{error}");
}

#[test]
fn damaged_payloads_end_in_an_error_and_soon() {
    let Some(dir) = samples() else { return };
    let source = std::fs::read(dir.join("pa30-pe/amd64_kbdwol/base.bin")).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.join("damaged")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !name.ends_with(".dcs") && !name.ends_with(".pa30") {
            continue;
        }
        let begun = Instant::now();
        let found = decode(&std::fs::read(&path).unwrap(), Some(&source), LIMIT);
        assert!(begun.elapsed() < Duration::from_secs(2), "{name} took {:?}", begun.elapsed());
        if name == "dcs-flipped.dcs" {
            // LZMS has no checksum: only a hash from elsewhere can tell.
            assert!(found.is_ok_and(|found| !found.confirmed && found.doubt.is_some()));
        } else {
            assert!(found.is_err(), "{name}");
        }
        seen += 1;
    }
    assert_eq!(seen, 18);
}

/// Flips, cuts and foreign sources: bounded, and never confirmed with other bytes.
#[test]
fn mutations_of_the_samples_never_give_confirmed_wrong_bytes() {
    let Some(dir) = samples() else { return };
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for (payload, source, target) in DELTAS {
        let (packed, target) = (read(payload), read(target));
        let source = if source.is_empty() { Vec::new() } else { read(source) };
        for _ in 0..40 {
            let mut bytes = packed.clone();
            for _ in 0..1 + next() % 3 {
                let at = next() as usize % bytes.len();
                bytes[at] ^= 1 << (next() % 8);
            }
            if next() % 8 == 0 {
                bytes.truncate(next() as usize % bytes.len());
            }
            let begun = Instant::now();
            if let Ok(found) = decode(&bytes, Some(&source), 4 << 20) {
                assert!(!found.confirmed || found.data == target, "{payload}");
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{payload}");
        }
    }
}

#[test]
fn buffers_of_windows_and_solid_resources_are_unpacked() {
    let Some(dir) = samples() else { return };
    let read = |name: &str| std::fs::read(dir.join("lzms").join(name)).unwrap();
    for name in ["english", "pattern", "small", "zeros"] {
        let text = read(&format!("{name}.raw"));
        let mut out = vec![0; text.len()];
        lzms::decompress(&read(&format!("{name}.lzms"))[28..], &mut out).unwrap();
        assert!(out == text, "{name}");
    }
    for (name, wanted) in [
        ("wim_solid_lzms_ms", "3f58a41850c1096de883ada14c98c2375a85b473c80ccbef03c9e72c113abc78"),
        ("wim_solid_lzms_ms_3chunk", "a6b881004b30e6eada284149d14f2502f26bf03fac68d98307f772d0648abc56"),
    ] {
        assert_eq!(sha256(&solid(&read(&format!("{name}.resource")))), wanted);
    }
}

/// A solid resource: size, chunk size, format, sizes of the packed chunks, chunks.
fn solid(bytes: &[u8]) -> Vec<u8> {
    let (size, chunk) = (u64_at(bytes, 0).unwrap() as usize, u32_at(bytes, 8).unwrap() as usize);
    let mut out = vec![0; size];
    let mut at = 16 + 4 * size.div_ceil(chunk);
    for (index, text) in out.chunks_mut(chunk).enumerate() {
        let length = u32_at(bytes, 16 + 4 * index).unwrap() as usize;
        let packed = &bytes[at..at + length];
        if length == text.len() {
            text.copy_from_slice(packed);
        } else {
            lzms::decompress(packed, text).unwrap();
        }
        at += length;
    }
    out
}

/// Program files, text and noise through wimlib's packer, in chunks that are larger than the window of the x86 filter.
#[test]
fn what_wimlib_packs_with_lzms_is_unpacked() {
    let Some(mut wimlib) = tool("wimlib-imagex") else { return };
    let dir = tempfile::tempdir().unwrap();
    let content = dir.path().join("in");
    std::fs::create_dir(&content).unwrap();
    let mut all = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    all.truncate(6 << 20);
    all.extend((0..300_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()));
    all.extend((0..400_000u32).flat_map(|i| (i * 12).to_le_bytes()));
    std::fs::write(content.join("all"), &all).unwrap();
    let wim = dir.path().join("a.wim");
    run(wimlib.args(["capture", "--solid", "--solid-chunk-size=4M"]).arg(&content).arg(&wim));
    let bytes = std::fs::read(&wim).unwrap();
    // The head of the resource: its size, the chunk size, LZMS.
    let head =
        [&(all.len() as u64).to_le_bytes()[..], &(4u32 << 20).to_le_bytes(), &3u32.to_le_bytes()].concat();
    let at = bytes.windows(head.len()).position(|window| window == head).unwrap();
    assert!(solid(&bytes[at..]) == all);
}

#[test]
fn a_delta_says_what_it_is_of() {
    let Some(dir) = samples() else { return };
    let packed = std::fs::read(dir.join("pa31/f-advapi32-pe.pa31")).unwrap();
    let header = delta::header(&packed).unwrap();
    let source = std::fs::read(dir.join("pe/advapi32_old.dll")).unwrap();
    assert_eq!(
        (header.format, header.file_type, header.target_size),
        ("PA31", delta::FileType::Amd64, 745_240)
    );
    assert_eq!(header.source_sha256.map(|hash| hex(&hash)), Some(sha256(&source)));
    let error = decode(&packed, Some(&packed), LIMIT).unwrap_err();
    assert!(error.to_string().contains("source"), "{error}");
}

#[test]
fn the_command_unpacks_checks_and_spares_its_sources() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (old, new) = (vec![3u8; 9000], [vec![3u8; 8000], b"and another end".to_vec()].concat());
    std::fs::write(path("old"), &old).unwrap();
    std::fs::write(path("delta"), vmrescue::payload::testing::differential(&old, &new)).unwrap();
    std::fs::write(path("packed"), vmrescue::payload::testing::dcs(&new)).unwrap();
    let vmrescue = |args: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_vmrescue")).args(args).output().unwrap()
    };
    let done = vmrescue(&["files", "decode", &path("delta"), &path("new"), "--base", &path("old"), "--json"]);
    assert!(done.status.success(), "{done:?}");
    let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&told["schema"], &told["confirmed_by_delta"]),
        (&"vmrescue.files-decode/1".into(), &true.into())
    );
    assert_eq!(told["sha256"], sha256(&new));
    assert!(std::fs::read(path("new")).unwrap() == new);
    // A file that is there stays; the sources stay even with --force; what is not as expected is not written.
    for (args, code) in [
        (vec!["files", "decode", &path("packed"), &path("new")], 2),
        (vec!["files", "decode", &path("packed"), &path("packed"), "--force"], 3),
        (vec!["files", "decode", &path("delta"), &path("old"), "--base", &path("old"), "--force"], 3),
        (vec!["files", "decode", &path("packed"), &path("other"), "--expect", &sha256(&old)], 2),
        (vec!["files", "decode", &path("delta"), &path("other")], 2),
        (vec!["files", "decode", &path("packed"), &path("other"), "--expect", &sha256(&new)], 0),
    ] {
        let done = vmrescue(&args);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {done:?}");
    }
    assert!(std::fs::read(path("old")).unwrap() == old);
    assert!(std::fs::read(path("other")).unwrap() == new);
}

/// All files of a cabinet.
fn unpacked(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let cabinet = Cabinet::open(bytes).unwrap();
    cabinet
        .extract(LIMIT, &|_| true, &mut |file, bytes| {
            found.push((file.name.clone(), bytes.to_vec()));
            Ok(())
        })
        .unwrap();
    found
}

/// A package of another maker, MSZIP with a signature behind it: every file is a member of the catalog inside by its SHA-256.
#[test]
fn cabinets_of_others_give_the_files_that_their_catalog_names() {
    let Some(dir) = samples() else { return };
    let files = unpacked(&std::fs::read(dir.join("cab/no-defender-amd64.cab")).unwrap());
    assert_eq!(files.len(), 168);
    let catalog = &files.iter().find(|(name, _)| name == "update.cat").unwrap().1;
    let mut members = std::collections::BTreeSet::new();
    vmrescue::windows::catalog_hashes(catalog, &mut |hash| {
        members.insert(hash.to_vec());
    })
    .unwrap();
    for (name, bytes) in files.iter().filter(|(name, _)| name != "update.cat") {
        assert!(members.contains(&Sha256::digest(bytes)[..]), "{name}");
    }
    // An update of the older form: cabinets and a storage in a cabinet.
    let files = unpacked(&std::fs::read(dir.join("msu/windows10.0-kb0000000-x64.msu")).unwrap());
    let storage = files.iter().find(|(name, _)| name.ends_with(".psf")).unwrap();
    assert!(storage.1 == std::fs::read(dir.join("psf/synthetic.psf")).unwrap());
}

#[test]
fn an_express_storage_gives_its_files_and_hostile_indexes_are_refused() {
    let Some(dir) = samples() else { return };
    let storage = std::fs::read(dir.join("psf/synthetic.psf")).unwrap();
    let beside = std::fs::read(dir.join("psf/express.psf.cix.xml")).unwrap();
    let inside = psf::own_index(&storage).unwrap();
    let files = psf::files(&inside).unwrap();
    assert_eq!(files, psf::files(&beside).unwrap());
    assert_eq!(files.len(), 5);
    let stored = |file: &psf::PsfFile| {
        let (at, length) = file.place();
        storage.get(at as usize..(at + length) as usize).map(<[u8]>::to_vec)
    };
    for file in &files {
        let data = file.decode(&stored(file).unwrap(), LIMIT).unwrap();
        assert_eq!(sha256(&data), hex(&file.sha256), "{}", file.name);
        let in_store = dir.join("store/WinSxS").join(file.name.replace('\\', "/"));
        if in_store.is_file() {
            assert!(data == std::fs::read(in_store).unwrap(), "{}", file.name);
        }
    }
    for (name, word) in [("traversal", "leads out"), ("basis-needed", "PA19")] {
        let index = std::fs::read(dir.join(format!("damaged/psf-{name}.cix.xml"))).unwrap();
        let error = psf::files(&index).unwrap_err();
        assert!(error.to_string().contains(word), "{name}: {error}");
    }
    let damaged = |name: &str| {
        psf::files(&std::fs::read(dir.join(format!("damaged/psf-{name}.cix.xml"))).unwrap()).unwrap()
    };
    assert!(damaged("past-end").iter().any(|file| stored(file).is_none()));
    let wrong = damaged("hash-wrong");
    assert!(wrong.iter().any(|file| file.decode(&stored(file).unwrap(), LIMIT).is_err()));
}
