//! Hives that Windows made, read by us and by the crate `nt-hive`: keys, values, types, data.

use crate::oracle::corpus;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vmrescue::registry::{Hive, Key};

type Facts = BTreeMap<String, (u32, Vec<u8>)>;

fn ours(key: &Key<'_>, path: &str, facts: &mut Facts) -> vmrescue::Result<()> {
    facts.insert(format!("{path}\\"), (u32::MAX, Vec::new()));
    for value in key.values()? {
        let name = lossy(&value.name());
        facts.insert(format!("{path}\\:{name}"), (value.data_type().0, value.data()?.into_owned()));
    }
    let below = |child: &Key<'_>| format!("{path}\\{}", lossy(&child.name()));
    key.subkeys()?.iter().try_for_each(|child| ours(child, &below(child), facts))
}

/// A name as nt-hive's text of it is: half a surrogate pair becomes U+FFFD.
fn lossy(name: &str) -> String {
    String::from_utf16_lossy(&vmrescue::names::to_units(name))
}

fn theirs(key: &nt_hive::KeyNode<'_, &[u8]>, path: &str, facts: &mut Facts) -> nt_hive::Result<()> {
    facts.insert(format!("{path}\\"), (u32::MAX, Vec::new()));
    for value in key.values().into_iter().flatten().flatten() {
        let value = value?;
        // nt-hive has no number for types that Windows does not name; ours is compared by the data then.
        let kind = value.data_type().map(|kind| kind as u32).unwrap_or(u32::MAX);
        facts.insert(
            format!("{path}\\:{}", value.name()?.to_string_lossy()),
            (kind, value.data()?.into_vec()?),
        );
    }
    for child in key.subkeys().into_iter().flatten().flatten() {
        let child = child?;
        theirs(&child, &format!("{path}\\{}", child.name()?.to_string_lossy()), facts)?;
    }
    Ok(())
}

/// Files whose base block says that they are a hive; transaction logs have another number there.
fn hives(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            hives(&path, found);
        } else if std::fs::read(&path)
            .is_ok_and(|bytes| bytes.len() >= 8192 && bytes.starts_with(b"regf") && bytes[28] == 0)
        {
            found.push(path);
        }
    }
}

#[test]
fn hives_of_windows_read_as_another_reader_reads_them() {
    let Some(corpus) = corpus() else { return };
    let mut found = Vec::new();
    hives(&corpus.join("03-registry"), &mut found);
    hives(&corpus.join("04-bcd"), &mut found);
    assert!(found.len() > 10, "the corpus has hives");
    let (mut compared, mut other_failed, mut damaged) = (0, 0, 0);
    for path in &found {
        let bytes = std::fs::read(path).unwrap();
        // nt-hive 0.3 panics on some damaged hives.
        let other = std::panic::catch_unwind(|| {
            nt_hive::Hive::without_validation(bytes.as_slice()).and_then(|hive| {
                let mut facts = Facts::new();
                theirs(&hive.root_key_node()?, "", &mut facts).map(|()| facts)
            })
        });
        let other = match other {
            Ok(result) => result.map_err(|e| e.to_string()),
            Err(_) => Err("it panicked".to_string()),
        };
        let mut facts = Facts::new();
        let own = Hive::parse(bytes.clone()).and_then(|hive| ours(&hive.root(), "", &mut facts));
        match (own, other) {
            (Ok(()), Ok(other)) => {
                compared += 1;
                assert_eq!(facts.len(), other.len(), "{}", path.display());
                for (name, (kind, data)) in &facts {
                    let (their_kind, their_data) =
                        other.get(name).unwrap_or_else(|| panic!("{}: {name}", path.display()));
                    assert_eq!(data, their_data, "{}: {name}", path.display());
                    assert!(*their_kind == u32::MAX || kind == their_kind, "{}: {name}", path.display());
                }
            }
            // nt-hive stops at damage and at things that it does not know; we read on.
            (Ok(()), Err(e)) => {
                other_failed += 1;
                eprintln!("only we read {}: {e}", path.display());
            }
            (Err(own), other) => {
                damaged += 1;
                eprintln!("{}: {own}; nt-hive: {:?}", path.display(), other.map(|facts| facts.len()));
            }
        }
    }
    eprintln!("{compared} hives equal, {other_failed} that only we read, {damaged} damaged");
    assert!(compared > 10 && damaged <= compared / 4);
}

/// Hives with logs and the same hives as Windows recovered them.
#[test]
fn logs_of_the_new_format_are_replayed_without_harm() {
    let Some(corpus) = corpus() else { return };
    let mut found = Vec::new();
    hives(&corpus.join("03-registry"), &mut found);
    let mut replayed = 0;
    for path in &found {
        let logs: Vec<Vec<u8>> = ["LOG", "LOG1", "LOG2"]
            .iter()
            .filter_map(|suffix| {
                let mut name = path.clone().into_os_string();
                name.push(format!(".{suffix}"));
                std::fs::read(name).ok()
            })
            .collect();
        if logs.is_empty() {
            continue;
        }
        let plain = Hive::parse(std::fs::read(path).unwrap());
        let Ok(hive) = Hive::parse_with_logs(std::fs::read(path).unwrap(), &logs) else { continue };
        if hive.defects().iter().any(|defect| defect.code == "hive-log-replayed") {
            replayed += 1;
            let (before, after) =
                (plain.map(|hive| hive.check().len()).unwrap_or(usize::MAX), hive.check().len());
            assert!(
                after <= before.saturating_add(1),
                "{}: {before} defects before, {after} after",
                path.display()
            );
        }
    }
    eprintln!("{replayed} hives replayed from their logs");
}

/// Where the corpus has what Windows itself made of a hive and its logs, ours is the same: all bins, byte for byte.
#[test]
fn hives_are_recovered_as_windows_recovered_them() {
    let Some(corpus) = corpus() else { return };
    let mut found = Vec::new();
    hives(&corpus.join("03-registry"), &mut found);
    let mut equal = 0;
    for recovered in
        found.iter().filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("Recovered"))
    {
        let dirty: Vec<&PathBuf> =
            found.iter().filter(|path| path.parent() == recovered.parent() && *path != recovered).collect();
        for path in dirty {
            let logs: Vec<Vec<u8>> = ["LOG", "LOG1", "LOG2"]
                .iter()
                .filter_map(|suffix| std::fs::read(format!("{}.{suffix}", path.display())).ok())
                .collect();
            let ours = Hive::parse_with_logs(std::fs::read(path).unwrap(), &logs).unwrap();
            let windows = Hive::parse(std::fs::read(recovered).unwrap()).unwrap();
            let bins = windows.bins_bytes();
            assert_eq!(ours.bins_bytes(), bins, "{}", path.display());
            // Known differences, which are not replay: Windows puts the time of the recovery into the first bin (offset 20),
            // and corrects the length of a key's longest value name (offset 60 of the key) when it loads a hive.
            let time = 4096 + 20..4096 + 28;
            let is_longest = |at: usize| ours.bytes()[at - 60..].starts_with(b"nk");
            let differs = (4096..4096 + bins).find(|at| {
                ours.bytes()[*at] != windows.bytes()[*at] && !time.contains(at) && !is_longest(*at)
            });
            assert_eq!(differs, None, "{} differs from what Windows recovered", path.display());
            equal += 1;
        }
    }
    assert!(equal > 0, "the corpus has recovered hives");
}
