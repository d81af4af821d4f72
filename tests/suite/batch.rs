//! Batches over broken disks: every image repaired once or reported once, killed and resumed, undone to the old bytes;
//! canaries, shared jobs, single jobs, baselines.
//!
//! `VMRESCUE_FLEET` says how many disks the fleet has; `scripts/fleet.sh` runs it with 200.

use crate::demo::vmrescue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use vmrescue::demo::{Fault, break_it, build, build_for};
use vmrescue::image::Kind;
use vmrescue::progress::Silent;
use vmrescue::windows::bcd::Firmware;

/// A hash of all bytes; runs of zeros are told apart quickly, because these disks are mostly holes.
pub(crate) fn sha(path: &Path) -> Vec<u8> {
    let mut file = std::fs::File::open(path).unwrap();
    let (mut hash, mut buf, mut offset) = (Sha256::new(), vec![0; 64 << 10], 0u64);
    let zero = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buf).unwrap();
        if count == 0 {
            hash.update(offset.to_le_bytes());
            return hash.finalize().to_vec();
        }
        if buf[..count] != zero[..count] {
            hash.update(offset.to_le_bytes());
            hash.update(&buf[..count]);
        }
        offset += count as u64;
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(output)))
}

/// What becomes of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// The safe fixes cure it, or there is nothing to cure.
    Clean,
    /// Something is left that needs a decision.
    Left,
    /// Broken beyond what can be repaired.
    Lost,
    /// Held by another program until the last run.
    Locked,
    /// Deleted while the job runs.
    Vanishes,
}

/// What a kind of disk is made of: firmware, container, faults, what becomes of it.
type Recipe = (Firmware, Kind, &'static [Fault], Fate);

const RECIPES: [Recipe; 29] = {
    use Fault::*;
    use Firmware::{Bios, Uefi};
    use Kind::{Raw, VhdDynamic, VhdFixed, VhdxDynamic, VhdxFixed};
    [
        (Uefi, VhdxDynamic, &[], Fate::Clean),
        (Bios, VhdDynamic, &[], Fate::Clean),
        (Uefi, VhdxDynamic, &[AcpiZeroed], Fate::Clean),
        (Uefi, VhdDynamic, &[AcpiZeroed], Fate::Clean),
        (Bios, Raw, &[AcpiZeroed], Fate::Clean),
        (Uefi, VhdxDynamic, &[StorageDriverDisabled], Fate::Clean),
        (Bios, VhdxDynamic, &[StorageDriverDisabled], Fate::Clean),
        (Uefi, VhdxDynamic, &[VolumeManagerMissing], Fate::Clean),
        (Uefi, VhdxDynamic, &[PendingUpdate], Fate::Left),
        (Bios, VhdDynamic, &[PendingUpdate, AcpiZeroed], Fate::Left),
        (Uefi, VhdxDynamic, &[StoreMissing], Fate::Clean),
        (Bios, VhdxDynamic, &[StoreMissing], Fate::Clean),
        (Uefi, VhdDynamic, &[StoreGarbage], Fate::Clean),
        (Bios, Raw, &[StoreGarbage], Fate::Clean),
        (Uefi, VhdxDynamic, &[StoreDangling], Fate::Clean),
        (Bios, VhdxDynamic, &[StoreDangling], Fate::Clean),
        (Uefi, VhdxDynamic, &[StoreWithoutDefault], Fate::Clean),
        (Uefi, VhdxDynamic, &[BootManagerMissing], Fate::Clean),
        (Bios, VhdDynamic, &[BootManagerMissing], Fate::Clean),
        (Uefi, VhdxDynamic, &[LoaderMissing], Fate::Clean),
        (Uefi, VhdxDynamic, &[GptPrimary], Fate::Clean),
        (Uefi, VhdDynamic, &[GptBackup], Fate::Clean),
        (Uefi, VhdxDynamic, &[SystemPartitionUnmarked], Fate::Clean),
        (Bios, VhdxDynamic, &[SystemPartitionUnmarked], Fate::Clean),
        (Uefi, VhdxDynamic, &[BootSector], Fate::Clean),
        (Bios, VhdDynamic, &[BootSector], Fate::Clean),
        (Uefi, VhdxDynamic, &[BootManagerMissing, AcpiZeroed, StorageDriverDisabled], Fate::Clean),
        (Uefi, VhdxFixed, &[AcpiZeroed, StoreDangling], Fate::Locked),
        (Uefi, VhdFixed, &[AcpiZeroed], Fate::Vanishes),
    ]
};

/// Disks that nobody can repair: a name and how the file comes about from a whole one.
const LOST: [&str; 5] = ["garbage", "truncated", "empty", "no table", "no hive"];

struct Fleet {
    images: Vec<(PathBuf, Fate)>,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

fn extension(kind: Kind) -> &'static str {
    match kind {
        Kind::VhdFixed | Kind::VhdDynamic => "vhd",
        Kind::Raw => "img",
        _ => "vhdx",
    }
}

/// Copies with the holes kept.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["--sparse=always"]).args([from, to]).status().unwrap();
    assert!(done.success());
}

fn lost(what: &str, base: &Path, path: &Path) {
    match what {
        "garbage" => std::fs::write(path, vec![0x5a; 300_000]).unwrap(),
        "truncated" => {
            copy(base, path);
            std::fs::File::options().write(true).open(path).unwrap().set_len(5 << 20).unwrap();
        }
        "empty" => std::fs::write(path, b"").unwrap(),
        "no table" => {
            std::fs::File::create(path).unwrap().set_len(64 << 20).unwrap();
        }
        "no hive" => {
            copy(base, path);
            let made = std::env::temp_dir().join(format!("vmrescue-no-hive-{}", std::process::id()));
            std::fs::write(&made, vec![0xdb; 40 << 10]).unwrap();
            let (image, hive) = (path.to_str().unwrap(), r"C:\Windows\System32\config\SYSTEM");
            let put = vmrescue(&["put", image, made.to_str().unwrap(), hive, "--yes"]);
            std::fs::remove_file(made).unwrap();
            assert!(put.status.success(), "{}", text(&put));
        }
        what => panic!("{what}"),
    }
}

/// `count` disks of all kinds, each kind about as often as the others.
fn fleet(dir: &Path, count: usize) -> Fleet {
    let models = dir.join("models");
    std::fs::create_dir(&models).unwrap();
    let disks = dir.join("disks");
    std::fs::create_dir(&disks).unwrap();
    let mut images = Vec::new();
    for i in 0..count {
        let kinds = RECIPES.len() + LOST.len();
        let (kind, fate, model) = match RECIPES.get(i % kinds) {
            Some((firmware, kind, faults, fate)) => {
                let model = models.join(format!("{}", i % kinds));
                if !model.exists() {
                    build_for(&model, *kind, *firmware).unwrap();
                    break_it(&model, faults, &Silent).unwrap();
                }
                (*kind, *fate, model)
            }
            None => {
                let model = models.join(format!("{}", i % kinds));
                if !model.exists() {
                    lost(LOST[i % kinds - RECIPES.len()], &models.join("0"), &model);
                }
                (Kind::VhdxDynamic, Fate::Lost, model)
            }
        };
        let path = disks.join(format!("vm{i:03}.{}", extension(kind)));
        copy(&model, &path);
        images.push((path, fate));
    }
    let before = images.iter().map(|(path, _)| (path.clone(), sha(path))).collect();
    Fleet { images, before }
}

/// Kills a process and all that it began.
#[cfg(unix)]
fn run_and_kill(words: &[String], after: Duration) {
    use std::os::unix::process::CommandExt;
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmrescue"))
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let group = format!("-{}", child.id());
    Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_fleet_is_repaired_once_killed_resumed_and_undone() {
    let count = std::env::var("VMRESCUE_FLEET").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path(), count);
    let list = dir.path().join("list");
    let names: Vec<&str> = fleet.images.iter().map(|(path, _)| path.to_str().unwrap()).collect();
    std::fs::write(&list, names.join("\n")).unwrap();
    let (list, work) = (format!("@{}", list.display()), dir.path().join("work").display().to_string());
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_string()).collect() };
    let repair = words(&["batch", "repair", &list, "--out", &work, "--yes", "--jobs", "2"]);
    let run = |words: &[String]| vmrescue(&words.iter().map(String::as_str).collect::<Vec<_>>());

    // Looking changes nothing.
    let found = dir.path().join("found").display().to_string();
    let diagnosed = run(&words(&["batch", "diagnose", &list, "--out", &found, "--json"]));
    assert_eq!(diagnosed.status.code(), Some(4), "{}", text(&diagnosed));
    assert_eq!(json(&diagnosed)["total"], count);
    for (path, before) in &fleet.before {
        assert_eq!(&sha(path), before, "diagnosing changes nothing: {}", path.display());
    }

    // Killed five times with all that runs, at times that differ from run to run; disks vanish, others are held.
    let held: Vec<std::fs::File> = of(&fleet, Fate::Locked)
        .map(|path| {
            let file = std::fs::File::open(path).unwrap();
            file.lock().unwrap();
            file
        })
        .collect();
    let seed = u64::from(std::process::id());
    for round in 0..5u64 {
        let pause = 40 + (seed * 7919 + round * 104_729) % (15 * count as u64);
        run_and_kill(&repair, Duration::from_millis(pause));
        if round == 2 {
            of(&fleet, Fate::Vanishes).filter(|path| path.exists()).for_each(|path| {
                std::fs::remove_file(path).unwrap();
            });
        }
    }
    let first = run(&repair);
    assert_eq!(first.status.code(), Some(4), "{}", text(&first));
    let outcome_of = |entries: &serde_json::Value, path: &Path| -> (String, Option<u64>) {
        let own = |entry: &&serde_json::Value| entry["image"].as_str() == path.to_str();
        let entry = entries.as_array().unwrap().iter().find(own).unwrap();
        (entry["outcome"].as_str().unwrap().to_string(), entry["operation"].as_u64())
    };
    let status = json(&run(&words(&["batch", "status", &work, "--json"])));
    for path in of(&fleet, Fate::Locked) {
        assert_eq!(outcome_of(&status["images"], path).0, "busy", "{}", path.display());
    }
    drop(held);
    let last = run(&[repair.clone(), words(&["--json"])].concat());
    assert_eq!(last.status.code(), Some(4), "{}", text(&last));
    let document = json(&last);
    let entries = &document["images"];
    let mut sums = BTreeMap::<&str, u64>::new();
    for (path, fate) in &fleet.images {
        let (outcome, operation) = outcome_of(entries, path);
        let (wanted, sum) = match fate {
            Fate::Clean | Fate::Locked => (&["clean"][..], "clean"),
            Fate::Left => (&["findings"][..], "with_findings"),
            Fate::Lost => (&["failed", "refused", "findings", "could-not-tell"][..], "failed"),
            // It may have been repaired before it vanished.
            Fate::Vanishes => (&["failed", "clean"][..], "failed"),
        };
        assert!(wanted.contains(&outcome.as_str()), "{} {fate:?}: {outcome}", path.display());
        let sum = match outcome.as_str() {
            "clean" => "clean",
            "findings" => "with_findings",
            "could-not-tell" => "could_not_tell",
            _ => sum,
        };
        *sums.entry(sum).or_default() += 1;
        // Published once, or not at all.
        let history = vmrescue(&["history", path.to_str().unwrap(), "--json"]);
        let operations = json(&history)["operations"].as_array().unwrap().clone();
        let own = operations.iter().filter(|o| o["title"].as_str() == Some("Apply the safe fixes")).count();
        assert_eq!(own, usize::from(operation.is_some()), "{}: {}", path.display(), text(&history));
    }
    for (name, sum) in &sums {
        assert_eq!(document[*name], *sum, "the numbers add up: {name}");
    }
    let page = std::fs::read_to_string(Path::new(&work).join("report.html")).unwrap();
    assert!(page.contains(&format!("<b>{}</b>failed", document["failed"])));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(Path::new(&work).join("report.json")).unwrap()).unwrap();
    assert_eq!(report["images"].as_array().unwrap().len(), count);
    assert_eq!(report["clean"], document["clean"]);

    // What is clean has nothing to find; the two runs differ where something was repaired.
    let again = dir.path().join("again").display().to_string();
    let after = json(&run(&words(&["batch", "diagnose", &list, "--out", &again, "--json"])));
    for (path, _) in &fleet.images {
        if outcome_of(entries, path).0 == "clean" && path.exists() {
            assert_eq!(outcome_of(&after["images"], path).0, "clean", "{}", path.display());
        }
    }
    let differences = json(&run(&words(&["batch", "diff", &found, &again, "--json"])));
    let gone = |d: &serde_json::Value| !d["gone"].as_array().unwrap().is_empty();
    assert!(differences["images"].as_array().unwrap().iter().any(gone));

    // Undo gives the old bytes back, and a second undo has nothing to do wrong.
    let undone = run(&words(&["batch", "undo", &work, "--yes"]));
    assert!(matches!(undone.status.code(), Some(0 | 4)), "{}", text(&undone));
    for (path, before) in fleet.before.iter().filter(|(path, _)| path.exists()) {
        assert_eq!(&sha(path), before, "{}", path.display());
    }
}

fn of(fleet: &Fleet, fate: Fate) -> impl Iterator<Item = &PathBuf> {
    fleet.images.iter().filter(move |(_, own)| *own == fate).map(|(path, _)| path)
}

fn broken(dir: &Path, name: &str, faults: &[Fault]) -> String {
    let path = dir.join(name);
    build(&path, Kind::VhdxDynamic).unwrap();
    break_it(&path, faults, &Silent).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn canaries_and_limits_stop_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let bad = dir.path().join("bad.vhdx").to_str().unwrap().to_string();
    std::fs::write(&bad, vec![0x5a; 300_000]).unwrap();
    let (one, two) = (
        broken(dir.path(), "1.vhdx", &[Fault::AcpiZeroed]),
        broken(dir.path(), "2.vhdx", &[Fault::AcpiZeroed]),
    );
    let canary = vmrescue(&["batch", "diagnose", &bad, &one, "--out", &out("canary"), "--canary", "1"]);
    assert_eq!(canary.status.code(), Some(4));
    assert!(text(&canary).contains("1 of 1 canaries failed") && text(&canary).contains("1 not started"));
    let most = vmrescue(&[
        "batch",
        "diagnose",
        &bad,
        &one,
        &two,
        "--out",
        &out("most"),
        "--max-failures",
        "1",
        "--jobs",
        "1",
    ]);
    assert!(
        text(&most).contains("stopped: 1 images failed") && text(&most).contains("2 not started"),
        "{}",
        text(&most)
    );
    let odd = [
        "batch",
        "diagnose",
        &one,
        &two,
        "--out",
        &out("odd"),
        "--wave",
        "1,rest",
        "--max-unexpected-percent",
        "0",
    ];
    let stopped = vmrescue(&odd);
    assert_eq!(stopped.status.code(), Some(4));
    assert!(text(&stopped).contains("unexpected findings") && text(&stopped).contains("1 not started"));
    // The same command with the finding expected goes on.
    let on = vmrescue(&[&odd[..], &["--expect", "boot-driver-broken"]].concat());
    assert_eq!(on.status.code(), Some(1), "{}", text(&on));
    // What the canary got is shown before somebody must agree; nobody is there to do so.
    let asked = ["batch", "repair", &one, &two, "--out", &out("asked"), "--canary", "1"];
    let alone = vmrescue(&asked);
    assert_eq!(alone.status.code(), Some(2), "{}", text(&alone));
    assert!(text(&alone).contains("ACPI.sys") && text(&alone).contains("not a terminal"), "{}", text(&alone));
    assert_eq!(json(&vmrescue(&["diagnose", &one, "--json"]))["findings"].as_array().unwrap().len(), 0);
    assert_eq!(json(&vmrescue(&["diagnose", &two, "--json"]))["findings"].as_array().unwrap().len(), 1);
    let going = vmrescue(&[&asked[..], &["--yes"]].concat());
    assert_eq!(going.status.code(), Some(0), "{}", text(&going));
    let twice = vmrescue(&["batch", "diagnose", &one, &one, "--out", &out("twice")]);
    assert_eq!(twice.status.code(), Some(3));
    let other = vmrescue(&["batch", "diagnose", &one, "--out", &out("asked")]);
    assert_eq!(other.status.code(), Some(3), "a folder belongs to one job");
}

#[test]
fn walls_stand_around_each_image() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let one = broken(dir.path(), "1.vhdx", &[Fault::AcpiZeroed]);
    let late = vmrescue(&["batch", "repair", &one, "--out", &out("late"), "--yes", "--time-limit", "0"]);
    assert_eq!(late.status.code(), Some(4));
    assert!(text(&late).contains("longer than 0 seconds"), "{}", text(&late));
    if cfg!(target_os = "linux") {
        let small = vmrescue(&["batch", "repair", &one, "--out", &out("small"), "--yes", "--memory", "8"]);
        assert_eq!(small.status.code(), Some(4), "{}", text(&small));
        assert!(text(&small).contains("failed"), "{}", text(&small));
    }
    let enough = vmrescue(&["batch", "repair", &one, "--out", &out("enough"), "--yes", "--memory", "1024"]);
    assert_eq!(enough.status.code(), Some(0), "{}", text(&enough));
}

#[test]
fn one_job_is_harmless_when_it_is_delivered_twice() {
    let dir = tempfile::tempdir().unwrap();
    let image = broken(dir.path(), "1.vhdx", &[Fault::AcpiZeroed]);
    let job = dir.path().join("job.json");
    let lease = dir.path().join("claims");
    let document = serde_json::json!({"command": "repair", "images": [image], "lease": lease});
    std::fs::write(&job, document.to_string()).unwrap();
    let words = ["batch", "run-one", job.to_str().unwrap()];
    let held = std::fs::File::open(&image).unwrap();
    held.lock().unwrap();
    let later = vmrescue(&words);
    assert_eq!(later.status.code(), Some(75), "{}", text(&later));
    drop(held);
    let done = vmrescue(&words);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    assert_eq!(json(&done)["operation"], 2);
    let after = sha(Path::new(&image));
    let again = vmrescue(&words);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    assert_eq!(
        (json(&again)["outcome"].as_str(), sha(Path::new(&image))),
        (Some("elsewhere"), after.clone())
    );
    // Without the shared folder it is simply done again: there is nothing to do.
    std::fs::write(&job, serde_json::json!({"command": "repair", "images": [image]}).to_string()).unwrap();
    assert_eq!(vmrescue(&words).status.code(), Some(0));
    assert_eq!(sha(Path::new(&image)), after);
    std::fs::write(&job, serde_json::json!({"images": [dir.path().join("none.vhdx")]}).to_string()).unwrap();
    assert_eq!(vmrescue(&words).status.code(), Some(2));
    std::fs::write(&job, "{\"images\": []}").unwrap();
    assert_eq!(vmrescue(&words).status.code(), Some(2));
}

#[test]
fn two_workers_share_a_job_and_their_states_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let base = broken(dir.path(), "base.vhdx", &[Fault::AcpiZeroed]);
    let disks = dir.path().join("disks");
    std::fs::create_dir(&disks).unwrap();
    for i in 0..10 {
        copy(Path::new(&base), &disks.join(format!("vm{i}.vhdx")));
    }
    let job = dir.path().join("job.toml");
    let text_of_job = format!(
        "command = 'repair'\nimages = ['{0}/disks/*.vhdx']\nlease = '{0}/claims'\njobs = 1\n[[image]]\npath = 'vm9*'\nskip = true\n",
        dir.path().display()
    );
    std::fs::write(&job, text_of_job).unwrap();
    let outs = ["a", "b"].map(|name| dir.path().join(name).to_str().unwrap().to_string());
    let mut workers: Vec<std::process::Child> = outs
        .iter()
        .map(|out| {
            Command::new(env!("CARGO_BIN_EXE_vmrescue"))
                .args(["batch", job.to_str().unwrap(), "--out", out, "--yes"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    workers.iter_mut().for_each(|worker| {
        assert_eq!(worker.wait().unwrap().code(), Some(0));
    });
    let all = dir.path().join("all").to_str().unwrap().to_string();
    let merged = vmrescue(&["batch", "merge", &all, &outs[0], &outs[1]]);
    assert_eq!(merged.status.code(), Some(0), "{}", text(&merged));
    assert!(
        text(&merged).contains("9 images: 9 clean") && text(&merged).contains("9 changed"),
        "{}",
        text(&merged)
    );
    for i in 0..9 {
        let path = disks.join(format!("vm{i}.vhdx"));
        let history = json(&vmrescue(&["history", path.to_str().unwrap(), "--json"]));
        assert_eq!(history["operations"].as_array().unwrap().len(), 1, "vm{i} was repaired once");
    }
    assert_eq!(sha(&disks.join("vm9.vhdx")), sha(Path::new(&base)), "left out");
    let undone = vmrescue(&["batch", "undo", &all, "vm3*", "--yes"]);
    assert_eq!(undone.status.code(), Some(0), "{}", text(&undone));
    assert_eq!(sha(&disks.join("vm3.vhdx")), sha(Path::new(&base)));
    assert_ne!(sha(&disks.join("vm4.vhdx")), sha(Path::new(&base)));
}

#[test]
fn a_claim_that_was_lost_keeps_the_image_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let image = broken(dir.path(), "1.vhdx", &[Fault::AcpiZeroed]);
    let leases = |owner: &str, seconds| vmrescue::batch::Leases {
        dir: dir.path().join("claims"),
        owner: owner.into(),
        seconds,
    };
    let vmrescue::batch::Taken::Mine(old) = leases("a", 0).take(Path::new(&image)).unwrap() else { panic!() };
    let before = sha(Path::new(&image));
    let repair = |claim: &vmrescue::batch::Claim| {
        Command::new(env!("CARGO_BIN_EXE_vmrescue"))
            .args(["repair", &image, "--yes", "--json"])
            .env(vmrescue::batch::CLAIM, serde_json::to_string(claim).unwrap())
            .output()
            .unwrap()
    };
    let refused = repair(&old);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert_eq!(json(&refused)["error"]["kind"], "busy");
    assert_eq!(sha(Path::new(&image)), before);
    let vmrescue::batch::Taken::Mine(new) = leases("b", 60).take(Path::new(&image)).unwrap() else {
        panic!()
    };
    assert_eq!(repair(&old).status.code(), Some(3));
    assert_eq!(repair(&new).status.code(), Some(0));
    assert_ne!(sha(Path::new(&image)), before);
}

#[cfg(unix)]
#[test]
fn asked_to_stop_a_batch_finishes_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let base = broken(dir.path(), "base.vhdx", &[Fault::AcpiZeroed]);
    let disks = dir.path().join("disks");
    std::fs::create_dir(&disks).unwrap();
    for i in 0..30 {
        copy(Path::new(&base), &disks.join(format!("vm{i:02}.vhdx")));
    }
    let out = dir.path().join("out").to_str().unwrap().to_string();
    let words = ["batch", "repair", disks.to_str().unwrap(), "--out", &out, "--yes", "--jobs", "2"];
    let child = Command::new(env!("CARGO_BIN_EXE_vmrescue"))
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(600));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let stopped = child.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(4), "{}", text(&stopped));
    assert!(text(&stopped).contains("interrupted"), "{}", text(&stopped));
    let status = json(&vmrescue(&["batch", "status", &out, "--json"]));
    for entry in status["images"].as_array().unwrap() {
        assert_eq!(entry["outcome"], "clean", "what was begun was finished: {entry}");
    }
    assert_eq!(vmrescue(&words).status.code(), Some(0));
}

#[test]
fn a_baseline_tells_what_differs_from_the_golden_image() {
    let dir = tempfile::tempdir().unwrap();
    let golden = broken(dir.path(), "golden.vhdx", &[]);
    let other =
        broken(dir.path(), "other.vhdx", &[Fault::StorageDriverDisabled, Fault::VolumeManagerMissing]);
    let file = dir.path().join("golden.json").to_str().unwrap().to_string();
    let made = vmrescue(&["baseline", "create", &golden, "-o", &file]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made));
    assert_eq!(vmrescue(&["baseline", "compare", &golden, &file]).status.code(), Some(0));
    let compared = vmrescue(&["baseline", "compare", &other, &file]);
    assert_eq!(compared.status.code(), Some(1));
    let said = text(&compared);
    assert!(said.contains("storvsc: driver, boot,") && said.contains("-> driver, disabled"), "{said}");
    assert!(said.contains(r"c:\windows\system32\drivers\volmgr.sys"), "{said}");
    let policy = dir.path().join("policy.toml").to_str().unwrap().to_string();
    std::fs::write(&policy, "[[rule]]\narea = 'services'\nname = 'storvsc'\nlevel = 'note'\n[[rule]]\narea = 'drivers'\nlevel = 'ignore'\n").unwrap();
    let judged = vmrescue(&["baseline", "compare", &other, &file, "--policy", &policy]);
    assert_eq!(judged.status.code(), Some(0), "{}", text(&judged));
    assert!(text(&judged).contains("1 differences, 0 that matter"), "{}", text(&judged));
    let rdp = vmrescue(&["repair", &golden, "rdp-on", "--yes"]);
    assert_eq!(rdp.status.code(), Some(0), "{}", text(&rdp));
    let drift = json(&vmrescue(&["baseline", "compare", &golden, &file, "--json"]));
    let names: Vec<&str> =
        drift["differences"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert!(names.iter().any(|name| name.ends_with("fDenyTSConnections")), "{names:?}");
}
