//! That the right file is hit, and the way back is kept: images replaced, restored, moved, grown and lost at each stage.

use super::*;
use crate::testing::begin;
use std::fs;
use vmrescue_base::error::ErrorKind;
use vmrescue_base::progress::Silent;

fn made(dir: &Path, name: &str, seed: u32) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, (0..100_000u32).map(|i| (i / 7 + seed) as u8).collect::<Vec<u8>>()).unwrap();
    path
}

fn stage(path: &Path, offset: u64, bytes: &[u8]) -> Transaction {
    let tx = begin(path, &TransactionOptions::default()).unwrap();
    tx.file().write_at(offset, bytes).unwrap();
    tx
}

fn record(title: &str) -> Record {
    Record { title: title.into(), ..Record::default() }
}

fn change(path: &Path, offset: u64, bytes: &[u8]) -> OperationId {
    stage(path, offset, bytes).verified().publish(record("change"), &Silent).unwrap().unwrap()
}

/// As if the power had gone while operation 1 was written: the record says "publishing", the image holds some sectors.
fn interrupted(path: &Path, sectors: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let old = fs::read(path).unwrap();
    change(path, 512, &[0xee; 4096]);
    let new = fs::read(path).unwrap();
    let mut half = old.clone();
    for sector in sectors {
        half[sector * 512..sector * 512 + 512].copy_from_slice(&new[sector * 512..sector * 512 + 512]);
    }
    fs::write(path, &half).unwrap();
    set_state(path, "done", "publishing");
    (old, new)
}

fn set_state(path: &Path, from: &str, to: &str) {
    let json = state_dir_of(path, None).join("0001.json");
    let text = fs::read_to_string(&json).unwrap();
    let changed = text.replacen(&format!("\"state\": \"{from}\""), &format!("\"state\": \"{to}\""), 1);
    assert_ne!(text, changed);
    fs::write(&json, changed).unwrap();
}

fn state_of(path: &Path) -> OperationState {
    history(path, None).unwrap().last().unwrap().state
}

#[test]
fn recover_finishes_only_what_holds_whole_sectors_of_both_sides() {
    for sectors in [&[][..], &[1], &[2, 5], &[1, 2, 3, 4, 5, 6, 7, 8]] {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), "d.raw", 0);
        let (old, new) = interrupted(&path, sectors);
        let refused = begin(&path, &TransactionOptions::default()).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        assert!(recover(&path, None, &Silent).unwrap().unwrap().written);
        assert!(fs::read(&path).unwrap() == new);
        assert!(recover(&path, None, &Silent).unwrap().is_none());
        undo(&path, None, None, false, &Silent).unwrap();
        assert!(fs::read(&path).unwrap() == old);
    }
}

#[test]
fn recover_never_writes_over_another_file() {
    let foreign: [&[u8]; 3] = [b"ten bytes.", &[7; 100_000], &[0; 99_999]];
    for bytes in foreign {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), "d.raw", 0);
        interrupted(&path, &[3]);
        // Copied over the same file, and put in its place as another file.
        for in_place in [true, false] {
            if !in_place {
                fs::remove_file(&path).unwrap();
            }
            fs::write(&path, bytes).unwrap();
            let e = recover(&path, None, &Silent).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
            assert!(e.advice_text().unwrap().contains("--abandon"));
            assert!(fs::read(&path).unwrap() == bytes);
        }
        // The way out, which writes nothing to the image and keeps the pieces.
        let abandoned = abandon(&path, None).unwrap().unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
        assert!(abandoned.kept.join("0001.journal").exists() && abandoned.kept.join("0001.json").exists());
        assert_eq!(state_of(&path), OperationState::Abandoned);
        assert!(abandon(&path, None).unwrap().is_none() && recover(&path, None, &Silent).unwrap().is_none());
        if bytes.len() > 100 {
            change(&path, 0, b"goes on");
            undo(&path, None, None, false, &Silent).unwrap();
            assert!(fs::read(&path).unwrap() == bytes);
        }
    }
}

#[test]
fn one_byte_that_is_neither_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    interrupted(&path, &[2, 3]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[512 * 4 + 100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let e = recover(&path, None, &Silent).unwrap_err();
    assert_eq!((e.kind(), e.offset()), (ErrorKind::Refused, Some(512 * 4)));
    assert!(fs::read(&path).unwrap() == bytes);
    // Elsewhere it does not matter.
    bytes[512 * 4 + 100] ^= 1;
    bytes[90_000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(recover(&path, None, &Silent).unwrap().unwrap().written);
}

#[test]
fn a_restored_backup_never_heard_of_the_operation() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    let (old, _) = interrupted(&path, &[3]);
    let backup = dir.path().join("backup");
    fs::write(&backup, &old).unwrap();
    fs::rename(&backup, &path).unwrap();
    let recovered = recover(&path, None, &Silent).unwrap().unwrap();
    assert!(!recovered.written && recovered.operation.state == OperationState::Undone);
    assert!(fs::read(&path).unwrap() == old);
}

#[test]
fn a_record_that_is_lost_or_empty_is_no_dead_end() {
    // The journal says what to do, as long as it is there.
    for content in [&b""[..], b"{\"id\": 1"] {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), "d.raw", 0);
        let (_, new) = interrupted(&path, &[3]);
        let state = state_dir_of(&path, None);
        fs::write(state.join("0001.json"), content).unwrap();
        assert_eq!(state_of(&path), OperationState::Unreadable);
        assert!(begin(&path, &TransactionOptions::default()).is_err());
        recover(&path, None, &Silent).unwrap().unwrap();
        assert!(fs::read(&path).unwrap() == new);
        assert_eq!(state_of(&path), OperationState::Done);
        assert!(state.join("0001.json.damaged").exists());
        change(&path, 0, b"goes on");
    }
    // Without the journal there is only giving up.
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    interrupted(&path, &[3]);
    let half = fs::read(&path).unwrap();
    fs::remove_file(state_dir_of(&path, None).join("0001.journal")).unwrap();
    let e = recover(&path, None, &Silent).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(e.advice_text().unwrap().contains("--abandon"), "{e}");
    abandon(&path, None).unwrap().unwrap();
    assert!(fs::read(&path).unwrap() == half);
    assert_eq!(change(&path, 0, b"goes on"), OperationId(2));
}

#[test]
fn a_journal_of_another_operation_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    change(&path, 0, b"first");
    change(&path, 50_000, b"second");
    let state = state_dir_of(&path, None);
    fs::copy(state.join("0001.journal"), state.join("0002.journal")).unwrap();
    let before = fs::read(&path).unwrap();
    assert_eq!(undo(&path, None, None, true, &Silent).unwrap_err().kind(), ErrorKind::Damaged);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
#[cfg_attr(windows, ignore = "Windows itself refuses to replace a file that is open")]
fn an_image_that_is_replaced_while_it_is_planned_is_not_written() {
    for in_place in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (made(dir.path(), "d.raw", 0), made(dir.path(), "other.raw", 9));
        let tx = stage(&path, 100, b"staged for the old one");
        let bytes = fs::read(&other).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        if in_place {
            fs::write(&path, &bytes).unwrap();
        } else {
            fs::rename(&other, &path).unwrap();
        }
        let refused = tx.verify(|_| Ok(())).and_then(|verified| verified.publish(Record::default(), &Silent));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
        assert!(fs::read(&path).unwrap() == bytes);
        assert!(!state_dir_of(&path, None).exists(), "nothing was noted either");
    }
    // Cut or removed.
    for cut in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = made(dir.path(), "d.raw", 0);
        let tx = stage(&path, 100, b"staged");
        if cut {
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(50).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let refused = tx.verify(|_| Ok(())).and_then(|verified| verified.publish(Record::default(), &Silent));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(path.exists(), cut);
    }
}

#[test]
#[cfg_attr(windows, ignore = "there are no attributes by which a renamed file would be known")]
fn the_history_follows_the_file_and_not_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    change(&path, 0, b"one");
    let count = |path: &Path| history(path, None).unwrap().len();
    // Another name in the folder, a second name, a name in another folder.
    let (renamed, linked) = (dir.path().join("renamed.raw"), dir.path().join("linked.raw"));
    fs::rename(&path, &renamed).unwrap();
    assert_eq!(count(&renamed), 1);
    fs::hard_link(&renamed, &linked).unwrap();
    assert_eq!(count(&linked), 1);
    fs::create_dir(dir.path().join("sub")).unwrap();
    let moved = dir.path().join("sub/d.raw");
    fs::rename(&renamed, &moved).unwrap();
    assert_eq!((count(&moved), count(&linked)), (1, 1));
    change(&moved, 0, b"two");
    assert_eq!((count(&moved), count(&linked)), (2, 2));
    // A whole folder that was copied has its own history from here on.
    let copied = dir.path().join("copied");
    fs::create_dir(&copied).unwrap();
    let state = state_dir_of(&path, None);
    fs::create_dir(copied.join("d.raw.vmrescue")).unwrap();
    for entry in fs::read_dir(&state).unwrap().flatten() {
        fs::copy(entry.path(), copied.join("d.raw.vmrescue").join(entry.file_name())).unwrap();
    }
    fs::copy(&moved, copied.join("d.raw")).unwrap();
    undo(&copied.join("d.raw"), None, None, false, &Silent).unwrap();
    assert_eq!(
        (state_of(&copied.join("d.raw")), state_of(&moved)),
        (OperationState::Undone, OperationState::Done)
    );
    // A copy without the folder has none.
    let copy = dir.path().join("copy.raw");
    fs::copy(&moved, &copy).unwrap();
    assert_eq!(count(&copy), 0);
    // A new file under the old name has none, and does not get that of the file that was moved away.
    made(dir.path(), "d.raw", 3);
    let twin = begin(&path, &TransactionOptions::default());
    assert!(twin.is_ok());
}

#[test]
fn images_of_one_name_never_share_a_state_folder() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let options = TransactionOptions { state_dir: Some(state.clone()), ..TransactionOptions::default() };
    let mut paths = Vec::new();
    for (number, vm) in ["a", "b", "c"].into_iter().enumerate() {
        fs::create_dir(dir.path().join(vm)).unwrap();
        let path = made(&dir.path().join(vm), "disk.raw", number as u32);
        let tx = begin(&path, &options).unwrap();
        tx.file().write_at(10, vm.as_bytes()).unwrap();
        tx.verified().publish(record(vm), &Silent).unwrap().unwrap();
        paths.push((path, vm));
    }
    for (path, vm) in &paths {
        // With the folder, and without: the pointer and the attribute lead there.
        for dir in [Some(state.as_path()), None] {
            let all = history(path, dir).unwrap();
            assert_eq!((all.len(), all[0].title.as_str()), (1, *vm));
        }
        assert!(path.with_file_name("disk.raw.vmrescue.json").is_file());
        assert!(!path.with_file_name("disk.raw.vmrescue").exists());
        undo(path, None, None, false, &Silent).unwrap();
    }
    // What was interrupted is seen without the folder's name too.
    let (path, _) = &paths[1];
    let folder = state.join("disk.raw.2.vmrescue");
    let json = folder.join("0001.json");
    let text =
        fs::read_to_string(&json).unwrap().replacen("\"state\": \"undone\"", "\"state\": \"redoing\"", 1);
    fs::write(&json, text).unwrap();
    assert!(pending(path, None).unwrap().is_some());
    assert_eq!(pending(&paths[0].0, Some(&state)).unwrap().map(|o| o.id), None);
    assert!(begin(path, &TransactionOptions::default()).is_err());
    // The disk with the state is not there: refused, and the way out is named.
    let away = dir.path().join("away");
    fs::rename(&state, &away).unwrap();
    let e = begin(path, &TransactionOptions::default()).err().unwrap();
    assert!(e.to_string().contains("not there now"), "{e}");
    fs::rename(&away, &state).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert!(begin(path, &TransactionOptions::default()).is_ok(), "a removed folder is gone for good");
}

#[test]
fn a_state_on_a_disk_that_is_away_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    let state = dir.path().join("usb/state");
    let options = TransactionOptions { state_dir: Some(state), ..TransactionOptions::default() };
    let tx = begin(&path, &options).unwrap();
    tx.file().write_at(0, b"x").unwrap();
    tx.verified().publish(record("x"), &Silent).unwrap();
    fs::rename(dir.path().join("usb"), dir.path().join("away")).unwrap();
    let e = begin(&path, &TransactionOptions::default()).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(e.to_string().contains("not there now") && e.advice_text().unwrap().contains("--abandon"), "{e}");
    assert!(abandon(&path, None).unwrap().unwrap().operation.is_none());
    change(&path, 0, b"y");
    assert_eq!(history(&path, None).unwrap().len(), 1);
}

#[test]
fn another_disk_in_the_place_of_an_interrupted_one_is_told_apart() {
    use vmrescue_image::{CreateSpec, Kind, create};
    let dir = tempfile::tempdir().unwrap();
    let disk = |name: &str| {
        let path = dir.path().join(name);
        let file = DiskMut::new(Arc::new(HostFile::create_new(&path).unwrap()));
        create(&file, &CreateSpec::new(Kind::VhdxDynamic, 4 << 20)).unwrap();
        path
    };
    let (path, other) = (disk("d.vhdx"), disk("other.vhdx"));
    interrupted(&path, &[]);
    let kept = dir.path().join("kept.vhdx");
    fs::rename(&path, &kept).unwrap();
    fs::rename(&other, &path).unwrap();
    let bytes = fs::read(&path).unwrap();
    for e in [
        recover(&path, None, &Silent).unwrap_err(),
        pending(&path, None).unwrap_err(),
        begin(&path, &TransactionOptions::default()).err().unwrap(),
    ] {
        assert_eq!(e.kind(), ErrorKind::Refused);
        assert!(e.to_string().contains("another image lay here"), "{e}");
    }
    assert!(history(&path, None).unwrap().is_empty());
    abandon(&path, None).unwrap().unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
    change(&path, 70_000, b"its own");
    assert_eq!(history(&path, None).unwrap().len(), 1);
    // The one that was interrupted still is, wherever it lies.
    assert!(pending(&kept, None).unwrap().is_some());
    recover(&kept, None, &Silent).unwrap().unwrap();
}

#[test]
fn force_is_an_operation_that_keeps_what_it_overwrites_and_never_shortens() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    let first = fs::read(&path).unwrap();
    change(&path, 50, b"older");
    let tx = begin(&path, &TransactionOptions::default()).unwrap();
    tx.file().set_length(200_000).unwrap();
    tx.file().write_at(5, b"mine").unwrap();
    tx.file().write_at(199_000, b"the end").unwrap();
    tx.verified().publish(record("grow"), &Silent).unwrap();
    // The machine runs: it writes over it, and appends.
    let mut ran = fs::read(&path).unwrap();
    ran[6] = b'?';
    ran.extend([9; 5000]);
    fs::write(&path, &ran).unwrap();
    assert_eq!(undo(&path, None, None, false, &Silent).unwrap_err().kind(), ErrorKind::Refused);
    assert!(fs::read(&path).unwrap() == ran);
    let forced = undo(&path, None, None, true, &Silent).unwrap();
    assert_eq!((forced.undoes, forced.state), (Some(OperationId(2)), OperationState::Done));
    let after = fs::read(&path).unwrap();
    assert_eq!(after.len(), ran.len(), "never shorter");
    assert_eq!(after[5..9], first[5..9]);
    assert!(after[200_000..] == ran[200_000..], "what was appended is in use");
    // The way back from it.
    undo(&path, None, None, false, &Silent).unwrap();
    assert!(fs::read(&path).unwrap() == ran);
    redo(&path, None, &Silent).unwrap();
    assert!(fs::read(&path).unwrap() == after);
    // By force once more goes further back, not to and fro.
    let forced = undo(&path, None, None, true, &Silent).unwrap();
    assert_eq!(forced.undoes, Some(OperationId(1)));
    assert_eq!(fs::read(&path).unwrap()[50..55], first[50..55]);
    assert_eq!(history(&path, None).unwrap().len(), 4);
}

#[test]
fn redo_takes_what_was_undone_last_and_not_an_older_branch() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    change(&path, 0, b"base");
    change(&path, 10, b"given up");
    undo(&path, None, None, false, &Silent).unwrap();
    change(&path, 10, b"kept");
    let kept = fs::read(&path).unwrap();
    undo(&path, None, None, false, &Silent).unwrap();
    redo(&path, None, &Silent).unwrap();
    assert!(fs::read(&path).unwrap() == kept);
    assert_eq!(redo(&path, None, &Silent).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn numbers_are_counted_and_not_sorted_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    change(&path, 0, b"first");
    // As if there had been 9,998 more.
    let state = state_dir_of(&path, None);
    let text = fs::read_to_string(state.join("0001.json")).unwrap();
    let later = text.replacen("\"id\": 1", "\"id\": 9999", 1).replacen(
        "\"state\": \"done\"",
        "\"state\": \"undone\"",
        1,
    );
    fs::write(state.join("9999.json"), later).unwrap();
    fs::remove_file(state.join("newest")).unwrap();
    let mut images = vec![fs::read(&path).unwrap()];
    for number in 10_000..10_004u32 {
        assert_eq!(change(&path, 0, format!("number {number}").as_bytes()), OperationId(number));
        images.push(fs::read(&path).unwrap());
    }
    images.pop();
    while let Some(image) = images.pop() {
        undo(&path, None, None, false, &Silent).unwrap();
        assert!(fs::read(&path).unwrap() == image);
    }
    // A journal without a record may be all that is left of an operation: its number is not given again.
    fs::write(state.join("20000.journal"), b"?").unwrap();
    fs::write(state.join("newest"), b"half of").unwrap();
    assert_eq!(change(&path, 0, b"on"), OperationId(20_001));
}

/// The note of the newest number is a help and nothing more: old, torn or absent, the files say what is true.
#[test]
fn a_note_that_a_crash_left_behind_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    let state = state_dir_of(&path, None);
    let note = state.join("newest");
    change(&path, 0, b"one");
    let old = fs::read(&note).unwrap();
    change(&path, 0, b"two");
    for left in [Some(&old[..]), Some(b""), Some(&old[..5]), Some(b"0000000077 00000000\n"), None] {
        match left {
            Some(bytes) => fs::write(&note, bytes).unwrap(),
            None => fs::remove_file(&note).unwrap(),
        }
        let before = fs::read(&path).unwrap();
        let id = change(&path, 0, format!("{left:?}").as_bytes());
        assert_eq!(id.0 as usize, history(&path, None).unwrap().len(), "after {left:?}");
        undo(&path, None, Some(id), false, &Silent).unwrap();
        assert!(fs::read(&path).unwrap() == before);
        redo(&path, None, &Silent).unwrap();
    }
    // What a crash left ahead of a record goes, and no number comes twice.
    let newest = history(&path, None).unwrap().len() as u32;
    fs::copy(state.join("0001.journal"), state.join(format!("{:04}.journal", newest + 1))).unwrap();
    let stale = fs::read(&note).unwrap();
    assert_eq!(change(&path, 0, b"behind a hole"), OperationId(newest + 2));
    fs::write(&note, &stale).unwrap();
    gc(&path, None, 100, true).unwrap();
    assert!(!state.join(format!("{:04}.journal", newest + 1)).exists());
    assert_eq!(change(&path, 0, b"again"), OperationId(newest + 3));
}

/// After verification nothing is staged any more, whoever holds a handle; in a session it goes on after the publish.
#[test]
fn what_was_verified_is_what_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    let tx = stage(&path, 0, b"seen");
    let handle = tx.file();
    let verified = tx.verified();
    assert_eq!(handle.write_at(0, b"late").unwrap_err().kind(), ErrorKind::Refused);
    assert!(handle.zero_at(0..8192).is_err() && handle.set_length(1).is_err());
    verified.publish(record("seen"), &Silent).unwrap().unwrap();
    assert!(fs::read(&path).unwrap().starts_with(b"seen"));
    drop(handle);
    let mut tx = begin(&path, &TransactionOptions::default()).unwrap();
    let handle = tx.file();
    handle.write_at(0, b"more").unwrap();
    let refused = tx.verify_so_far(|_| -> Result<()> { Err(Error::invalid(Layer::Verify, "no")) });
    assert!(refused.is_err());
    drop(refused);
    handle.write_at(4, b"!").unwrap();
    let part = tx.verified_so_far();
    assert!(handle.write_at(0, b"late").is_err());
    part.publish(Record { session: Some("s".into()), ..record("s") }, &Silent).unwrap().unwrap();
    handle.write_at(5, b"goes on").unwrap();
    assert!(fs::read(&path).unwrap().starts_with(b"more!"));
}

#[test]
fn a_new_file_has_a_history_and_its_beginning_is_not_undone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, new) = (made(dir.path(), "d.raw", 0), made(dir.path(), "new.raw", 1));
    let bytes = fs::read(&new).unwrap();
    assert_eq!(note_made(&new, &path, None, record("made")).unwrap(), OperationId(1));
    assert_eq!(change(&new, 0, b"two"), OperationId(2));
    undo(&new, None, None, false, &Silent).unwrap();
    for force in [false, true] {
        let e = undo(&new, None, None, force, &Silent).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused);
        let advice = e.advice_text().unwrap();
        assert!(
            advice.contains("remove the file") && advice.contains(path.to_str().unwrap()),
            "{e} {advice}"
        );
    }
    assert!(fs::read(&new).unwrap() == bytes);
    assert!(recover(&new, None, &Silent).unwrap().is_none());
    gc(&new, None, 0, true).unwrap();
    assert_eq!(history(&new, None).unwrap().len(), 2);
}

/// A session at every length that a crash may have left its journal in.
#[test]
fn a_session_that_was_killed_is_what_it_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    let first = fs::read(&path).unwrap();
    let mut tx = begin(&path, &TransactionOptions::default()).unwrap();
    let record = Record { session: Some("s".into()), ..record("session") };
    let mut images = Vec::new();
    let mut lengths = Vec::new();
    let journal = state_dir_of(&path, None).join("0001.journal");
    for part in 0..3u64 {
        tx.file().set_length(100_000 + part * 3000).unwrap();
        tx.file().write_at(1000 + part * 700, &[part as u8 + 1; 2000]).unwrap();
        tx.file().write_at(99_000 + part * 3000, &[part as u8 + 5; 1000]).unwrap();
        assert_eq!(tx.verified_so_far().publish(record.clone(), &Silent).unwrap(), Some(OperationId(1)));
        images.push(fs::read(&path).unwrap());
        lengths.push(fs::metadata(&journal).unwrap().len());
    }
    let (record, whole) =
        (fs::read(state_dir_of(&path, None).join("0001.json")).unwrap(), fs::read(&journal).unwrap());
    drop(tx);
    for length in (lengths[1]..=lengths[2]).step_by(13).chain([lengths[2] - 16, lengths[2] - 1, lengths[2]]) {
        let is_whole = length >= lengths[2] - 16;
        // Once the part is whole the image may hold any sectors of it.
        let states = if is_whole { vec![&images[1], &images[2]] } else { vec![&images[1]] };
        for state in states {
            fs::write(state_dir_of(&path, None).join("0001.json"), &record).unwrap();
            fs::write(&journal, &whole[..length as usize]).unwrap();
            let marked = length == lengths[2];
            if marked && *state == images[1] {
                continue;
            }
            fs::write(&path, state).unwrap();
            let unfinished = pending(&path, None).unwrap().is_some();
            assert_eq!(unfinished, is_whole && !marked, "{length} of {lengths:?}");
            recover(&path, None, &Silent).unwrap();
            let expected = if is_whole { &images[2] } else { &images[1] };
            assert!(fs::read(&path).unwrap() == *expected, "{length}");
            undo(&path, None, None, false, &Silent).unwrap();
            assert!(fs::read(&path).unwrap() == first);
            redo(&path, None, &Silent).unwrap();
            assert!(fs::read(&path).unwrap() == *expected);
        }
    }
}

#[test]
fn a_flush_costs_no_more_after_thousands_and_all_of_them_are_undone() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    let first = fs::read(&path).unwrap();
    let mut tx = begin(&path, &TransactionOptions::default()).unwrap();
    let record = Record { session: Some("s".into()), ..record("session") };
    for number in 0..300u32 {
        let at = u64::from(number.wrapping_mul(2_654_435_761) % 90_000);
        tx.file().write_at(at, &number.to_le_bytes()).unwrap();
        tx.verified_so_far().publish(record.clone(), &Silent).unwrap();
    }
    let last = fs::read(&path).unwrap();
    tx.finish().unwrap();
    drop(tx);
    let all = history(&path, None).unwrap();
    assert_eq!((all.len(), all[0].state), (1, OperationState::Done));
    assert_eq!(fs::read_dir(state_dir_of(&path, None)).unwrap().count(), 4, "journal, record, owner, number");
    undo(&path, None, None, false, &Silent).unwrap();
    assert!(fs::read(&path).unwrap() == first);
    redo(&path, None, &Silent).unwrap();
    assert!(fs::read(&path).unwrap() == last);
}

#[test]
fn gc_says_what_can_no_longer_be_undone() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "d.raw", 0);
    for number in 0..5u8 {
        change(&path, 0, &[number + 1]);
    }
    let state = state_dir_of(&path, None);
    fs::write(state.join("new.part"), b"left").unwrap();
    let planned = gc(&path, None, 2, false).unwrap();
    assert_eq!((planned.operations.len(), planned.leftovers.len()), (3, 1));
    assert!(state.join("0001.journal").exists(), "only asked");
    let done = gc(&path, None, 2, true).unwrap();
    assert_eq!((done.bytes, done.operations.len()), (planned.bytes, 3));
    assert!(!state.join("0001.journal").exists() && state.join("0004.journal").exists());
    undo(&path, None, None, false, &Silent).unwrap();
    undo(&path, None, None, false, &Silent).unwrap();
    let e = undo(&path, None, None, true, &Silent).unwrap_err();
    assert!(e.kind() == ErrorKind::Refused && e.advice_text().unwrap().contains("history gc"), "{e}");
    assert_eq!(history(&path, None).unwrap().len(), 5);
    assert!(gc(&path, None, 2, true).unwrap().operations.is_empty());
}

#[test]
fn children_that_cannot_be_told_are_refused_by_undo_and_recover_too() {
    use vmrescue_image::{CreateSpec, Kind, create, create_child, info};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base.vhdx");
    let file = DiskMut::new(Arc::new(HostFile::create_new(&path).unwrap()));
    create(&file, &CreateSpec::new(Kind::VhdxDynamic, 4 << 20)).unwrap();
    let info = info(&file.as_disk()).unwrap();
    drop(file);
    interrupted(&path, &[]);
    let child = dir.path().join("child.vhdx");
    let made = DiskMut::new(Arc::new(HostFile::create_new(&child).unwrap()));
    create_child(&made, &info, r".\base.vhdx", r"C:\base.vhdx").unwrap();
    drop(made);
    let bytes = fs::read(&path).unwrap();
    let e = recover(&path, None, &Silent).unwrap_err();
    assert!(e.kind() == ErrorKind::Refused && e.to_string().contains("parent of a differencing"), "{e}");
    // Who has it open does not matter: it is a child.
    let running = HostFile::open_write(&child).unwrap();
    assert_eq!(recover(&path, None, &Silent).unwrap_err().kind(), ErrorKind::Refused);
    drop(running);
    // A file of that kind that is damaged may be one.
    let mut broken = fs::read(&child).unwrap();
    // Both headers.
    broken[64 << 10..68 << 10].fill(0xff);
    broken[128 << 10..132 << 10].fill(0xff);
    fs::write(&child, &broken).unwrap();
    let refused = recover(&path, None, &Silent).unwrap_err();
    assert!(refused.to_string().contains("cannot tell"), "{refused}");
    assert!(fs::read(&path).unwrap() == bytes);
    fs::remove_file(&child).unwrap();
    recover(&path, None, &Silent).unwrap().unwrap();
    fs::write(&child, fs::read(&path).unwrap()).unwrap();
    undo(&path, None, None, false, &Silent).unwrap();
}
