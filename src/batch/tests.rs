use super::*;
use std::path::PathBuf;

fn entry(image: &str, outcome: Outcome) -> Entry {
    Entry {
        image: PathBuf::from(image),
        outcome,
        seconds: 1.5,
        message: "<script>alert(1)</script>, \"quoted\"".into(),
        result: serde_json::json!({"findings": [{"rule": "boot-store-missing"}]}),
    }
}

#[test]
fn the_state_outlives_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    state.note(entry("a", Outcome::Running)).unwrap();
    state.note(entry("a", Outcome::Clean)).unwrap();
    state.note(entry("b", Outcome::Running)).unwrap();
    drop(state);
    let path = dir.path().join("state.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(b"{\"image\":\"b\",\"outcome\":\"cle");
    std::fs::write(&path, bytes).unwrap();
    let state = State::open(dir.path()).unwrap();
    assert_eq!(state.of(&PathBuf::from("a")).unwrap().outcome, Outcome::Clean);
    assert_eq!(state.of(&PathBuf::from("b")).unwrap().outcome, Outcome::Running);
    state.note(entry("b", Outcome::Failed)).unwrap();
    drop(state);
    assert_eq!(State::open(dir.path()).unwrap().of(&PathBuf::from("b")).unwrap().outcome, Outcome::Failed);
}

#[test]
fn reports_escape_what_comes_from_images_and_put_failures_first() {
    let list =
        [entry("z<b>.vhdx", Outcome::Clean), entry("m", Outcome::Findings), entry("a", Outcome::Failed)];
    let page = html(&list, "diagnose");
    assert!(!page.contains("<script>") && !page.contains("z<b>") && page.contains("1 failed"));
    assert!(page.find("by hand").unwrap() < page.find("z&lt;b&gt;").unwrap());
    let table = csv(&list);
    assert!(
        table.lines().nth(1).unwrap().starts_with("\"a\",failed,1.500,\"boot-store-missing\",\"<script>"),
        "{table}"
    );
}

#[test]
fn images_that_are_named_twice_or_are_parents_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (base, child) = (dir.path().join("a.vhdx"), dir.path().join("b.vhdx"));
    let spec = crate::image::CreateSpec::new(crate::image::Kind::VhdxDynamic, 8 << 20);
    crate::disk::create_disk(&base, &spec).unwrap();
    assert_eq!(plan_images(&[dir.path().to_path_buf()]).unwrap(), std::slice::from_ref(&base));
    let twice = plan_images(&[base.clone(), dir.path().join(".").join("a.vhdx")]).unwrap_err();
    assert_eq!(twice.kind(), crate::ErrorKind::Refused);
    crate::disk::child_of(&base, &child).unwrap().finish().unwrap();
    assert_eq!(plan_images(&[base, child.clone()]).unwrap_err().kind(), crate::ErrorKind::Refused);
    let list = dir.path().join("list");
    std::fs::write(&list, format!("{}\n\n", child.display())).unwrap();
    assert_eq!(plan_images(&[PathBuf::from(format!("@{}", list.display()))]).unwrap(), [child]);
}
