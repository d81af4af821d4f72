//! The reports of a batch: CSV, and one HTML page that needs nothing else. Everything from an image is escaped.

use super::state::{Entry, Outcome};
use std::collections::BTreeMap;
use std::fmt::Write;
use vmrescue_report::{STYLE, escaped};

/// Failures first, then findings, then the rest.
fn sorted(entries: &[Entry]) -> Vec<&Entry> {
    let rank = |entry: &Entry| match entry.outcome {
        Outcome::Failed
        | Outcome::TimedOut
        | Outcome::Refused
        | Outcome::Busy
        | Outcome::Running
        | Outcome::CouldNotTell => 0,
        Outcome::Findings => 1,
        Outcome::Clean | Outcome::Elsewhere => 2,
    };
    let mut list: Vec<&Entry> = entries.iter().collect();
    list.sort_by_key(|entry| (rank(entry), entry.image.clone()));
    list
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\"").replace(['\r', '\n'], " "))
}

/// One line an image: path, outcome, seconds, changes, operation, rules, reason.
pub fn csv(entries: &[Entry]) -> String {
    let mut text = String::from("image,outcome,seconds,changes,operation,findings,message\n");
    for entry in sorted(entries) {
        let _infallible = writeln!(
            text,
            "{},{},{:.3},{},{},{},{}",
            quoted(&entry.image.to_string_lossy()),
            entry.outcome.words(),
            entry.seconds,
            entry.changes,
            entry.operation.map(|id| id.to_string()).unwrap_or_default(),
            quoted(&entry.rules.join(" ")),
            quoted(&entry.message)
        );
    }
    text
}

/// What only this page has; colours and type are those of all reports.
const BATCH_STYLE: &str = ".cards{display:flex;gap:1em;flex-wrap:wrap}.cards div{border:1px solid var(--line);background:var(--card);border-radius:.4rem;padding:.6em 1.2em}\
.cards b{display:block;font-size:1.6em;line-height:1.2}thead th{position:sticky;top:0;background:var(--paper)}.wide{overflow-x:auto}rect{fill:var(--windows)}\
.matrix{width:auto}.matrix th{font-weight:normal;font-size:.85em;vertical-align:bottom}.matrix .rule{writing-mode:vertical-rl;transform:rotate(180deg);max-height:16em;vertical-align:bottom}\
.matrix td{text-align:center}.matrix td:first-child{text-align:left}.dot{display:inline-block;width:.8em;height:.8em;border-radius:50%;background:var(--bad)}.cured{background:var(--good)}";

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "good",
        Outcome::Findings | Outcome::Elsewhere => "find",
        _ => "bad",
    }
}

/// The page; `stopped` says why not all images were begun.
pub fn html(entries: &[Entry], what: &str, total: usize, stopped: Option<&str>) -> String {
    let list = sorted(entries);
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>vmrescue batch {0}</title>\
         <style>{STYLE}{BATCH_STYLE}</style><h1>vmrescue batch {0}</h1>",
        escaped(what),
    );
    if let Some(why) = stopped {
        let _infallible = write!(page, "<p class=bad>Stopped: {}.</p>", escaped(why));
    }
    cards(&mut page, &list, total);
    failures(&mut page, &list, what);
    matrix(&mut page, &list);
    times(&mut page, &list);
    table(&mut page, &list);
    page.push_str("</html>");
    page
}

fn cards(page: &mut String, list: &[&Entry], total: usize) {
    let count = |wanted: fn(&Entry) -> bool| list.iter().filter(|entry| wanted(entry)).count();
    let repaired = count(|entry| entry.operation.is_some());
    let cards = [
        (total, "images", ""),
        (
            count(|entry| entry.outcome.is_failure() && entry.outcome != Outcome::CouldNotTell),
            "failed",
            "bad",
        ),
        (count(|entry| entry.outcome == Outcome::CouldNotTell), "could not tell", "bad"),
        (count(|entry| entry.outcome == Outcome::Findings), "with findings", "find"),
        (count(|entry| entry.outcome == Outcome::Clean), "clean", "good"),
        (repaired, "changed", ""),
        (count(|entry| entry.outcome == Outcome::Elsewhere), "with other workers", ""),
        (total.saturating_sub(list.len()), "not started", ""),
    ];
    page.push_str("<div class=cards>");
    for (number, name, class) in cards {
        let _infallible = write!(page, "<div class=\"{class}\"><b>{number}</b>{name}</div>");
    }
    page.push_str("</div>");
}

fn failures(page: &mut String, list: &[&Entry], what: &str) {
    let failed: Vec<&&Entry> = list.iter().filter(|entry| entry.outcome.is_failure()).collect();
    if failed.is_empty() {
        return;
    }
    page.push_str("<h2>Failures</h2><table><thead><tr><th>image<th>outcome<th>reason, and the command to run by hand</thead>");
    for entry in failed {
        let image = escaped(&entry.image.to_string_lossy());
        let _infallible = write!(
            page,
            "<tr><td><code>{image}</code><td class=bad>{}<td>{}<br><code>vmrescue {} {image}</code>",
            entry.outcome.words(),
            escaped(&entry.message).replace('\n', "<br>"),
            escaped(what),
        );
    }
    page.push_str("</table>");
}

/// Images by findings: the rules that are seen most stand first.
fn matrix(page: &mut String, list: &[&Entry]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in list.iter().flat_map(|entry| entry.rules.iter().chain(&entry.fixed)) {
        *counts.entry(rule).or_default() += 1;
    }
    if counts.is_empty() {
        return;
    }
    let mut rules: Vec<(&str, usize)> = counts.into_iter().collect();
    rules.sort_by_key(|(rule, count)| (std::cmp::Reverse(*count), *rule));
    page.push_str("<h2>Findings</h2><p><span class=dot></span> found, <span class=\"dot cured\"></span> found and cured</p><div class=wide><table class=matrix><thead><tr><th>image");
    for (rule, count) in &rules {
        let _infallible = write!(page, "<th><span class=rule>{} ({count})</span>", escaped(rule));
    }
    page.push_str("<th>changes</thead>");
    for entry in list.iter().filter(|entry| !entry.rules.is_empty() || !entry.fixed.is_empty()) {
        let _infallible = write!(page, "<tr><td><code>{}</code>", escaped(&entry.image.to_string_lossy()));
        for (rule, _) in &rules {
            let has = |rules: &[String]| rules.iter().any(|own| own == rule);
            page.push_str(match (has(&entry.rules), has(&entry.fixed)) {
                (true, _) => "<td><span class=dot title=found></span>",
                (false, true) => "<td><span class=\"dot cured\" title=cured></span>",
                (false, false) => "<td>",
            });
        }
        let _infallible = write!(page, "<td>{}", entry.changes);
    }
    page.push_str("</table></div>");
}

/// Seconds of every image, the slowest first.
fn times(page: &mut String, list: &[&Entry]) {
    let mut seconds: Vec<f64> = list.iter().map(|entry| entry.seconds).filter(|s| *s > 0.0).collect();
    let Some(slowest) = seconds.iter().copied().reduce(f64::max) else { return };
    seconds.sort_by(|a, b| b.total_cmp(a));
    let (width, height) = (900.0, 120.0);
    let step = width / seconds.len() as f64;
    let median = seconds[seconds.len() / 2];
    let sum: f64 = seconds.iter().sum();
    let _infallible = write!(
        page,
        "<h2>Time per image</h2><p>median {median:.2} s, slowest {slowest:.2} s, all together {sum:.1} s of work</p>\
         <svg viewBox=\"0 0 {width} {height}\" width=100% height={height} preserveAspectRatio=none role=img \
         aria-label=\"seconds of each image, the slowest first\">"
    );
    for (place, value) in seconds.iter().enumerate() {
        let tall = (value / slowest * height).max(1.0);
        let _infallible = write!(
            page,
            "<rect x={:.2} y={:.2} width={:.2} height={tall:.2} />",
            place as f64 * step,
            height - tall,
            (step * 0.9).max(0.3)
        );
    }
    page.push_str("</svg>");
}

fn table(page: &mut String, list: &[&Entry]) {
    page.push_str("<h2>All images</h2><table><thead><tr><th>image<th>outcome<th>seconds<th>changes<th>operation<th>findings</thead>");
    for entry in list {
        let _infallible = write!(
            page,
            "<tr><td><code>{}</code><td class={}>{}<td>{:.2}<td>{}<td>{}<td>{}",
            escaped(&entry.image.to_string_lossy()),
            class(entry.outcome),
            entry.outcome.words(),
            entry.seconds,
            entry.changes,
            entry.operation.map(|id| id.to_string()).unwrap_or_default(),
            entry.rules.iter().map(|rule| escaped(rule)).collect::<Vec<_>>().join(", ")
        );
    }
    page.push_str("</table>");
}
