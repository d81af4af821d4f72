use super::waves::verdict;
use super::*;
use std::path::{Path, PathBuf};

fn entry(image: &str, outcome: Outcome) -> Entry {
    Entry {
        seconds: 1.5,
        rules: vec!["boot-store-missing".into()],
        result: serde_json::json!({"findings": [{"rule": "boot-store-missing"}]}),
        ..Entry::new(Path::new(image), outcome, "<script>alert(1)</script>, \"quoted\"")
    }
}

#[test]
fn the_state_outlives_a_torn_line_and_gives_documents_back() {
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
    assert_eq!(state.of(Path::new("a")).unwrap().outcome, Outcome::Clean);
    assert_eq!(state.of(Path::new("b")).unwrap().outcome, Outcome::Running);
    state.note(entry("b", Outcome::Failed)).unwrap();
    let document = state.document(Path::new("b")).unwrap();
    assert_eq!(document["findings"][0]["rule"], "boot-store-missing");
    drop(state);
    let state = State::open(dir.path()).unwrap();
    assert_eq!(state.of(Path::new("b")).unwrap().outcome, Outcome::Failed);
    assert_eq!(state.document(Path::new("b")).unwrap(), document);
    assert_eq!(state.document(Path::new("a")).unwrap(), document);
}

#[test]
fn a_folder_belongs_to_one_job() {
    let dir = tempfile::tempdir().unwrap();
    let repair = Job { command: Verb::Repair, ..Job::default() };
    let id = State::open_for(dir.path(), &repair).unwrap().id().to_string();
    assert_eq!(State::open_for(dir.path(), &repair).unwrap().id(), id);
    let other = State::open_for(dir.path(), &Job::default());
    assert_eq!(other.err().map(|e| e.kind()), Some(vmrescue_base::ErrorKind::Refused));
}

#[test]
fn states_of_several_machines_are_merged_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| State::open(&dir.path().join(name)).unwrap();
    let (one, two, all) = (open("1"), open("2"), open("all"));
    one.note(entry("a", Outcome::Clean)).unwrap();
    one.note(entry("b", Outcome::Elsewhere)).unwrap();
    one.note(entry("c", Outcome::Failed)).unwrap();
    two.note(entry("a", Outcome::Elsewhere)).unwrap();
    two.note(entry("b", Outcome::Findings)).unwrap();
    two.note(entry("d", Outcome::Clean)).unwrap();
    for state in [&one, &two, &one] {
        all.merge(state).unwrap();
    }
    let outcomes: Vec<Outcome> = all.all().iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Clean, Outcome::Findings, Outcome::Failed, Outcome::Clean]);
    assert_eq!(all.document(Path::new("b")).unwrap()["findings"][0]["rule"], "boot-store-missing");
    let differences = diff(&one, &all);
    let names: Vec<&str> = differences.iter().map(|d| d.image.to_str().unwrap()).collect();
    assert_eq!(names, ["b", "d"]);
    assert_eq!((differences[0].was, differences[0].is), (Some("elsewhere"), Some("findings")));
    assert_eq!(
        (differences[1].was, &differences[1].appeared[..]),
        (None, &["boot-store-missing".into()][..])
    );
    assert!(diff(&all, &all).is_empty());
}

#[test]
fn reports_escape_what_comes_from_images_and_put_failures_first() {
    let mut cured = entry("cured", Outcome::Clean);
    (cured.rules, cured.fixed) = (Vec::new(), vec!["boot-driver-broken".into()]);
    let list = [
        cured,
        entry("z<b>.vhdx", Outcome::Clean),
        entry("m", Outcome::Findings),
        entry("a", Outcome::Failed),
    ];
    let page = html(&list, "diagnose", 5, Some("<i>"));
    assert!(!page.contains("<script>") && !page.contains("z<b>") && !page.contains("<i>"));
    assert!(page.contains("<b>1</b>failed") && page.contains("<b>1</b>not started"), "{page}");
    assert!(page.find("vmrescue diagnose a").unwrap() < page.find("z&lt;b&gt;").unwrap());
    assert!(page.contains("boot-driver-broken (1)") && page.contains("title=cured"));
    let table = csv(&list);
    let first = table.lines().nth(1).unwrap();
    assert!(first.starts_with("\"a\",failed,1.500,0,,\"boot-store-missing\",\"<script>"), "{table}");
}

fn job(images: &[&Path]) -> Job {
    Job { images: images.iter().map(|path| path.to_string_lossy().into_owned()).collect(), ..Job::default() }
}

#[test]
fn images_that_are_named_twice_or_are_parents_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (base, child) = (dir.path().join("a.vhdx"), dir.path().join("b.vhdx"));
    let spec = vmrescue_image::CreateSpec::new(vmrescue_image::Kind::VhdxDynamic, 8 << 20);
    vmrescue_disk::create_disk(&base, &spec).unwrap();
    assert_eq!(plan_images(&job(&[dir.path()])).unwrap(), std::slice::from_ref(&base));
    let twice = plan_images(&job(&[&base, &dir.path().join(".").join("a.vhdx")])).unwrap_err();
    assert_eq!(twice.kind(), vmrescue_base::ErrorKind::Refused);
    vmrescue_disk::child_of(&base, &child).unwrap().finish().unwrap();
    assert_eq!(plan_images(&job(&[&base, &child])).unwrap_err().kind(), vmrescue_base::ErrorKind::Refused);
    assert_eq!(
        plan_images(&job(&[dir.path()])).unwrap(),
        std::slice::from_ref(&child),
        "one machine, one image"
    );
    let list = dir.path().join("list");
    std::fs::write(&list, format!("{}\n\n", child.display())).unwrap();
    let at = PathBuf::from(format!("@{}", list.display()));
    assert_eq!(plan_images(&job(&[&at])).unwrap(), [child]);
}

#[test]
fn patterns_find_images_and_shards_part_them() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["x/a.vhdx", "x/b.vhd", "x/deep/er/c.vhdx", "y/d.vhdx"];
    for name in names {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"no disk").unwrap();
    }
    let found = |pattern: &str| -> Vec<String> {
        let found = plan_images(&job(&[&dir.path().join(pattern)])).unwrap();
        found.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(found("*/*.vhdx"), ["x/a.vhdx", "y/d.vhdx"]);
    assert_eq!(found("**/*.vhdx"), ["x/a.vhdx", "x/deep/er/c.vhdx", "y/d.vhdx"]);
    assert_eq!(found("x/?.vhd"), ["x/b.vhd"]);
    let none = plan_images(&job(&[&dir.path().join("*.qcow2")])).unwrap_err();
    assert_eq!(none.kind(), vmrescue_base::ErrorKind::NotFound);
    let mut all = Vec::new();
    for i in 1..=3 {
        let part = Job { shard: Some(format!("{i}/3")), ..job(&[&dir.path().join("**/*.vhd*")]) };
        all.extend(plan_images(&part).unwrap());
    }
    all.sort();
    assert_eq!(all.len(), 4, "every image in one part: {all:?}");
}

#[test]
fn a_job_is_read_with_its_overrides_and_wrong_ones_name_the_line() {
    let text = "command = 'repair'\nimages = ['*.vhdx']\nscripts = ['fix']\nset = { a = '1' }\nwaves = [10, '25%', 'rest']\n\
                [[image]]\npath = 'old*'\nskip = true\n[[image]]\npath = 'sql*'\nset = { a = '2', b = '3' }\nwindows = 2\n";
    let job = Job::parse(text, false).unwrap();
    assert_eq!(job.waves, [Size::Count(10), Size::Percent(25.0), Size::Rest]);
    assert_eq!(job.work_of(Path::new("/vm/old1.vhdx")), None);
    let words = job.work_of(Path::new("/vm/sql1.vhdx")).unwrap().words;
    assert_eq!(words, ["fix", "--set", "a=2", "--set", "b=3", "--yes", "--windows", "2"]);
    let json = serde_json::to_string(&job).unwrap();
    assert_eq!(Job::parse(&json, true).unwrap(), job);
    for (text, line) in
        [("images = ['a']\njbos = 3\n", "line 2"), ("images = ['a']\n\nwaves = ['x']\n", "line 3")]
    {
        let wrong = Job::parse(text, false).unwrap_err().to_string();
        assert!(wrong.contains(line), "{wrong}");
    }
    assert!(Job::parse("images = ['a']\nshard = '4/3'\n", false).is_err());
    assert!(Job::parse("command = 'diagnose'\n", false).is_err());
}

#[test]
fn waves_and_their_verdicts() {
    let job = Job {
        canary: 3,
        waves: vec![Size::Count(4), Size::Percent(50.0)],
        max_failure_percent: Some(40.0),
        max_unexpected_percent: Some(0.0),
        expected: vec!["boot-store-missing".into()],
        ..Job::default()
    };
    let sizes = |open: usize, done: usize| -> Vec<(usize, bool)> {
        waves((0..open).collect(), &job, done).iter().map(|wave| (wave.images.len(), wave.canary)).collect()
    };
    assert_eq!(sizes(20, 0), [(3, true), (4, false), (10, false), (3, false)]);
    assert_eq!(sizes(19, 1), [(2, true), (4, false), (10, false), (3, false)]);
    assert_eq!(sizes(2, 0), [(2, true)]);
    let (good, bad) = (entry("a", Outcome::Clean), entry("b", Outcome::Failed));
    assert_eq!(verdict(&[good.clone(), bad.clone()], true, &job).as_deref(), Some("1 of 2 canaries failed"));
    assert!(verdict(&[good.clone(), bad.clone()], false, &job).unwrap().contains("40%"));
    assert_eq!(verdict(&[good.clone(), good.clone(), bad], false, &job), None);
    assert_eq!(verdict(&[entry("a", Outcome::Findings)], false, &job), None, "an expected finding");
    let mut odd = entry("a", Outcome::Findings);
    odd.rules.push("odd".into());
    assert!(verdict(&[odd], false, &job).unwrap().contains("unexpected"));
}

#[test]
fn a_claim_is_held_by_one_and_followed_only_when_it_expired() {
    let dir = tempfile::tempdir().unwrap();
    let worker =
        |owner: &str, seconds| Leases { dir: dir.path().to_path_buf(), owner: owner.into(), seconds };
    let image = Path::new("vm1.vhdx");
    let Taken::Mine(first) = worker("a", 100).take(image).unwrap() else { panic!("not mine") };
    assert!(matches!(worker("b", 100).take(image).unwrap(), Taken::Held { owner } if owner == "a"));
    first.check().unwrap();
    first.renew().unwrap();
    // A claim that expired at once: the next one follows it, and the old owner finds out.
    let other = Path::new("vm2.vhdx");
    let Taken::Mine(old) = worker("a", 0).take(other).unwrap() else { panic!("not mine") };
    assert_eq!(old.check().unwrap_err().kind(), vmrescue_base::ErrorKind::Busy);
    let Taken::Mine(new) = worker("b", 100).take(other).unwrap() else { panic!("not mine") };
    assert_eq!((old.number, new.number), (1, 2));
    assert!(old.check().unwrap_err().to_string().contains("claim 2 follows claim 1"));
    assert!(old.renew().is_err() && old.finish(Outcome::Clean).is_err());
    new.finish(Outcome::Clean).unwrap();
    assert!(matches!(worker("c", 100).take(other).unwrap(), Taken::Finished { outcome: Outcome::Clean, .. }));
    // One that failed may be tried again.
    first.finish(Outcome::Failed).unwrap();
    assert!(matches!(worker("c", 100).take(image).unwrap(), Taken::Mine(claim) if claim.number == 2));
}

#[test]
fn of_many_that_claim_at_once_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let image = PathBuf::from(format!("vm{round}.vhdx"));
        let mine = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for i in 0..8 {
                let (image, mine, dir) = (&image, &mine, dir.path().to_path_buf());
                scope.spawn(move || {
                    let worker = Leases { dir, owner: format!("w{i}"), seconds: 60 };
                    if matches!(worker.take(image).unwrap(), Taken::Mine(_)) {
                        mine.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(mine.into_inner(), 1);
    }
}
