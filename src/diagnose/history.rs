//! What the machine itself wrote down about its last start: a memory dump, the report of Startup Repair.

use super::Finding;
use super::rule::{Confidence, RuleDoc, Severity};
use super::scene::FoundFile;
use super::scene::Scene;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::time::FileTime;
use vmrescue_windows::Weight;

pub(super) const DOCS: &[RuleDoc] = &[
    RuleDoc {
        rule: "crashed",
        title: "The last start ended with a crash",
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        meaning: "The newest memory dump is younger than the last clean shutdown: the machine stopped with this code and has not been shut down since.",
        seen: "the head of MEMORY.DMP or of the newest minidump, and ShutdownTime",
        remedy: "The code tells where to look; `vmrescue inspect IMAGE` names it with its parameters, `vmrescue scripts --for CODE` lists the repairs for it.",
        source: &["AZ-B39", "AZ-B26", "AZ-B27"],
    },
    RuleDoc {
        rule: "startup-repair-gave-up",
        title: "Startup Repair tried and gave up",
        severity: Severity::Notice,
        confidence: Confidence::Likely,
        meaning: "The recovery environment tried to repair the start by itself, and wrote down what it took for the cause.",
        seen: "SrtTrail.txt, younger than the last clean shutdown",
        remedy: "See what it names as the root cause; the other findings say more.",
        source: &["WC-03"],
    },
];

/// Heads of dumps that are looked at.
const HEAD: usize = 4096;
/// One hour, in units of 100 ns.
const A_START: u64 = 3600 * 10_000_000;

/// A crash that has left a dump.
struct Crash {
    path: String,
    code: u32,
    written: FileTime,
}

/// The crashes that have left a dump, the newest first.
fn crashes(scene: &Scene<'_>) -> Vec<Crash> {
    let mut files = scene.files(r"${windows}\MEMORY.DMP");
    files.extend(scene.files(r"${windows}\Minidump\*.dmp"));
    let mut found: Vec<Crash> = files.iter().filter_map(|file| crash(scene, file)).collect();
    found.sort_by_key(|crash| std::cmp::Reverse(crash.written));
    found
}

fn crash(scene: &Scene<'_>, file: &FoundFile) -> Option<Crash> {
    let head = scene.part(file, 0, HEAD)?;
    let head = head.as_slice();
    // DUMP_HEADER64 and DUMP_HEADER of the kernel: `PAGE`, then `DU64` or `DUMP`; the code stands behind the number of processors.
    let code = match head.get(..8)? {
        b"PAGEDU64" => u32_at(head, 0x38)?,
        b"PAGEDUMP" => u32_at(head, 0x28)?,
        _ => return None,
    };
    let written = modified(scene, file)?;
    Some(Crash { path: file.path.clone(), code, written })
}

fn modified(scene: &Scene<'_>, file: &FoundFile) -> Option<FileTime> {
    Some(scene.metadata(file)?.times.modified)
}

/// When Windows was last shut down cleanly.
fn last_shutdown(scene: &Scene<'_>) -> Option<FileTime> {
    let mut time = None;
    scene.keys(r"HKLM\SYSTEM\CurrentControlSet\Control\Windows", &mut |path, key| {
        let Some(value) = scene.value_of(path, key, "ShutdownTime") else { return };
        let data = scene.unseen.seen("a registry value", path, Weight::Partial, value.data());
        time = data.and_then(|data| vmrescue_base::bytes::u64_at(&data, 0));
    });
    time.map(FileTime)
}

/// True when Windows has run for longer than a start takes since then: it writes its hives and its log all the time.
fn ran_since(scene: &Scene<'_>, time: FileTime) -> bool {
    let files = [r"System32\config\SYSTEM*", r"System32\winevt\Logs\System.evtx"];
    files
        .iter()
        .flat_map(|path| scene.files(&format!(r"${{windows}}\{path}")))
        .filter_map(|file| modified(scene, &file))
        .any(|written| written.0 > time.0.saturating_add(A_START))
}

/// The newest crash, when its code is one of these (`0xd1`).
pub(super) fn bugcheck(codes: &[String], scene: &Scene<'_>) -> Option<Vec<String>> {
    let last = crashes(scene).into_iter().next()?;
    let code = format!("{:#x}", last.code);
    codes
        .iter()
        .any(|wanted| wanted.eq_ignore_ascii_case(&code))
        .then(|| vec![format!("{}: stop {code}, written {}", last.path, short(last.written))])
}

fn short(time: FileTime) -> String {
    time.to_string().chars().take(19).collect()
}

/// What is younger than the last clean shutdown.
pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(shutdown) = last_shutdown(scene) else { return Vec::new() };
    let mut found = Vec::new();
    let newest = crashes(scene).into_iter().next();
    if let Some(last) = newest.filter(|crash| crash.written > shutdown && !ran_since(scene, crash.written)) {
        let evidence = vec![
            format!("{}: stop {:#x}, written {}", last.path, last.code, short(last.written)),
            format!("last clean shutdown {}", short(shutdown)),
        ];
        let title = format!("The last start ended with stop {:#x}", last.code);
        let screen = format!("stop {:#x}", last.code);
        found.push(Finding::new("crashed", evidence, &screen, None).titled(title));
    }
    found.extend(startup_repair(scene, shutdown));
    found
}

fn startup_repair(scene: &Scene<'_>, shutdown: FileTime) -> Option<Finding> {
    let file = scene.file(r"${windows}\System32\LogFiles\Srt\SrtTrail.txt")?;
    let written = modified(scene, &file)?;
    if written <= shutdown || ran_since(scene, written) {
        return None;
    }
    let bytes = scene.bytes(&file)?;
    let text = match bytes.strip_prefix(&[0xff, 0xfe]) {
        Some(wide) => vmrescue_base::text::utf16le_lossy(wide),
        None => String::from_utf8_lossy(&bytes).into_owned(),
    };
    let mut evidence = vec![format!("{}, written {}", file.path, short(written))];
    let causes = text.lines().skip_while(|line| !line.to_lowercase().contains("root cause found"));
    let lines = causes.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('-'));
    evidence.extend(lines.take(4).map(|line| line.chars().take(200).collect()));
    Some(Finding::new("startup-repair-gave-up", evidence, "Automatic Repair, again and again", None))
}
