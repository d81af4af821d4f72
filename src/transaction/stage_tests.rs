//! Images that are replaced, restored, overwritten, cut, grown, renamed and linked, at each stage of an operation: the right file
//! is written, or none.

use super::*;
use crate::testing::begin;
use std::fs;
use vmrescue_base::progress::Silent;

/// What somebody else does to the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Another disk is moved to its place.
    Replaced,
    /// What it was before everything is moved to its place.
    Restored,
    /// A byte is written where the operation writes.
    Overwritten,
    Cut,
    Grown,
    /// It gets another name; nothing lies under its old one.
    Renamed,
    /// It gets a second name.
    Linked,
    /// It is moved, and a symbolic link leads to it.
    Symlinked,
}

const DEEDS: [Deed; 8] = [
    Deed::Replaced,
    Deed::Restored,
    Deed::Overwritten,
    Deed::Cut,
    Deed::Grown,
    Deed::Renamed,
    Deed::Linked,
    Deed::Symlinked,
];

struct Case {
    dir: tempfile::TempDir,
    path: PathBuf,
    first: Vec<u8>,
}

impl Case {
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.raw");
        let first: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
        fs::write(&path, &first).unwrap();
        Case { dir, path, first }
    }

    /// Does it; the name under which the image is now, when it still is.
    fn suffers(&self, deed: Deed) -> PathBuf {
        let other = self.dir.path().join("other");
        // The host's clock goes in steps.
        std::thread::sleep(std::time::Duration::from_millis(12));
        match deed {
            Deed::Replaced => {
                fs::write(&other, vec![0x77; 100_000]).unwrap();
                fs::rename(&other, &self.path).unwrap();
            }
            Deed::Restored => {
                fs::write(&other, &self.first).unwrap();
                fs::rename(&other, &self.path).unwrap();
            }
            Deed::Overwritten => {
                let mut bytes = fs::read(&self.path).unwrap();
                bytes[600] ^= 0x99;
                fs::write(&self.path, bytes).unwrap();
            }
            Deed::Cut => self.open().set_len(3000).unwrap(),
            Deed::Grown => self.open().set_len(200_000).unwrap(),
            Deed::Renamed => {
                fs::rename(&self.path, &other).unwrap();
                return other;
            }
            Deed::Linked => {
                fs::hard_link(&self.path, &other).unwrap();
                return other;
            }
            Deed::Symlinked => {
                fs::rename(&self.path, &other).unwrap();
                let made = std::process::Command::new("ln").arg("-s").arg(&other).arg(&self.path).status();
                assert!(made.unwrap().success());
            }
        }
        self.path.clone()
    }

    fn open(&self) -> fs::File {
        fs::OpenOptions::new().write(true).open(&self.path).unwrap()
    }

    /// All files that are images here, by name.
    fn images(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let names = ["d.raw", "other"].map(|name| self.dir.path().join(name));
        names.into_iter().filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect()
    }

    fn changed(&self) -> Vec<u8> {
        let mut new = self.first.clone();
        new[512..4608].fill(0xee);
        new
    }

    fn change(&self) {
        let tx = begin(&self.path, &TransactionOptions::default()).unwrap();
        tx.file().write_at(512, &[0xee; 4096]).unwrap();
        tx.verified().publish(Record::default(), &Silent).unwrap().unwrap();
    }

    /// Sets the state of operation 1, as a crash leaves it.
    fn set_state(&self, to: &str) {
        let json = state_dir_of(&self.path, None).join("0001.json");
        let text = fs::read_to_string(&json).unwrap();
        fs::write(&json, text.replacen("\"state\": \"done\"", &format!("\"state\": \"{to}\""), 1)).unwrap();
    }
}

/// While it is planned, staged, and verified: only the file that was opened is written, and only as it was.
#[test]
#[cfg_attr(windows, ignore = "Windows itself refuses to replace a file that is open")]
fn at_every_stage_ahead_of_publishing() {
    for deed in DEEDS {
        for stage in 0..4 {
            let case = Case::new();
            let locked = Locked::open(&case.path, &TransactionOptions::default()).unwrap();
            let hurt = |at: i32| (at == stage).then(|| (case.suffers(deed), case.images()).1);
            let mut before = hurt(0);
            let mut tx = locked.stage();
            let published = if stage == 3 {
                // Between two publishes of a session.
                let record = Record { session: Some("s".into()), ..Record::default() };
                tx.file().write_at(90_000, b"first").unwrap();
                tx.verified_so_far().publish(record.clone(), &Silent).unwrap();
                before = hurt(3);
                // A file that was cut cannot even be staged over.
                let staged = tx.file().write_at(512, &[0xee; 4096]);
                staged
                    .and_then(|()| tx.verify_so_far(|_| Ok(())))
                    .and_then(|part| part.publish(record, &Silent))
            } else {
                let staged = tx.file().write_at(512, &[0xee; 4096]);
                before = before.or(hurt(1));
                staged.and_then(|()| tx.verify(|_| Ok(()))).and_then(|verified| {
                    before = before.take().or(hurt(2));
                    verified.publish(Record::default(), &Silent)
                })
            };
            let works = matches!(deed, Deed::Linked | Deed::Symlinked);
            assert_eq!(published.is_ok(), works, "{deed:?} at {stage}: {published:?}");
            if works {
                let bytes = fs::read(&case.path).unwrap();
                assert!(bytes[512..4608] == [0xee; 4096], "{deed:?} at {stage}");
            } else {
                assert!(Some(case.images()) == before, "{deed:?} at {stage}: something was written");
            }
        }
    }
}

/// Interrupted, done and undone: recover, undo and redo write what is the image, and what holds what it should.
#[test]
#[cfg_attr(windows, ignore = "Windows itself refuses to replace a file that is open")]
fn at_every_stage_after_publishing_began() {
    for deed in DEEDS {
        for stage in ["recover", "undo", "redo", "recover-undo"] {
            let case = Case::new();
            case.change();
            let mut half = case.changed();
            half[1024..2048].copy_from_slice(&case.first[1024..2048]);
            match stage {
                "recover" | "recover-undo" => {
                    fs::write(&case.path, &half).unwrap();
                    case.set_state(if stage == "recover" { "publishing" } else { "undoing" });
                }
                "redo" => drop(undo(&case.path, None, None, false, &Silent).unwrap()),
                _ => {}
            }
            let now = case.suffers(deed);
            let before = case.images();
            let act = |path: &Path| match stage {
                "undo" => undo(path, None, None, false, &Silent).map(|_| true),
                "redo" => redo(path, None, &Silent).map(|_| true),
                _ => recover(path, None, &Silent).map(|done| done.is_some_and(|done| done.written)),
            };
            let same_file = matches!(deed, Deed::Renamed | Deed::Linked | Deed::Symlinked);
            // What was restored holds what was there before: right for whoever goes back to it or on from it.
            let fits = deed == Deed::Restored && stage != "undo";
            if deed == Deed::Renamed {
                assert!(act(&case.path).is_err(), "{stage}: nothing lies there");
            }
            let done = act(&now);
            assert_eq!(done.is_ok(), same_file || fits, "{deed:?} {stage}: {done:?}");
            let goal = if matches!(stage, "recover" | "redo") { case.changed() } else { case.first.clone() };
            if same_file {
                assert!(fs::read(&now).unwrap() == goal, "{deed:?} {stage}");
            } else if fits && stage == "redo" {
                assert!(fs::read(&now).unwrap() == goal);
            } else {
                assert!(case.images() == before, "{deed:?} {stage}: something was written");
            }
        }
    }
}
