//! The reports of a batch: CSV, and one HTML page that needs nothing else. Everything from an image is escaped.

use super::state::{Entry, Outcome};
use std::fmt::Write;

/// Failures first, then findings, then the rest.
fn sorted(entries: &[Entry]) -> Vec<&Entry> {
    let rank = |entry: &Entry| match entry.outcome {
        Outcome::Failed | Outcome::TimedOut | Outcome::Refused | Outcome::Running => 0,
        Outcome::Findings => 1,
        Outcome::Clean => 2,
    };
    let mut list: Vec<&Entry> = entries.iter().collect();
    list.sort_by_key(|entry| (rank(entry), entry.image.clone()));
    list
}

/// Rules of the findings of an entry.
fn rules(entry: &Entry) -> Vec<String> {
    let findings = entry.result["findings"].as_array();
    findings.into_iter().flatten().filter_map(|finding| finding["rule"].as_str().map(String::from)).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\"").replace(['\r', '\n'], " "))
}

/// One line an image: path, outcome, seconds, rules, reason.
pub fn csv(entries: &[Entry]) -> String {
    let mut text = String::from("image,outcome,seconds,findings,message\n");
    for entry in sorted(entries) {
        let _infallible = writeln!(
            text,
            "{},{},{:.3},{},{}",
            quoted(&entry.image.to_string_lossy()),
            entry.outcome.words(),
            entry.seconds,
            quoted(&rules(entry).join(" ")),
            quoted(&entry.message)
        );
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}\
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.3em .5em;text-align:left;vertical-align:top}\
.bad{color:#a00}.find{color:#950}.good{color:#070}rect{fill:#47a}code{overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}td,th{border-color:#444}}";

/// The page.
pub fn html(entries: &[Entry], what: &str) -> String {
    let list = sorted(entries);
    let count = |wanted: &dyn Fn(Outcome) -> bool| list.iter().filter(|entry| wanted(entry.outcome)).count();
    let failed = count(&|outcome| !outcome.is_done());
    let found = count(&|outcome| outcome == Outcome::Findings);
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>vmrescue batch</title>\
         <style>{STYLE}</style><h1>{} of {} images</h1><p><b class=bad>{failed} failed</b>, <b class=find>{found} with findings</b>, \
         <b class=good>{} clean</b></p>",
        escaped(what),
        list.len(),
        list.len() - failed - found
    );
    let slowest = list.iter().map(|entry| entry.seconds).fold(0.001, f64::max);
    page.push_str("<table><thead><tr><th>image<th>outcome<th>seconds<th>findings, reason</thead><tbody>");
    for entry in list {
        let class = match entry.outcome {
            Outcome::Clean => "good",
            Outcome::Findings => "find",
            _ => "bad",
        };
        let mut words = rules(entry);
        if !entry.outcome.is_done() {
            words.push(entry.message.clone());
            words.push(format!("by hand: vmrescue {what} {}", entry.image.display()));
        }
        let width = (entry.seconds / slowest * 100.0).max(1.0);
        let _infallible = write!(
            page,
            "<tr><td><code>{}</code><td class={class}>{}<td><svg width=100 height=10 role=img aria-label=\"time\"><rect width={width:.0} height=10 /></svg> {:.2}<td>{}",
            escaped(&entry.image.to_string_lossy()),
            entry.outcome.words(),
            entry.seconds,
            words.iter().map(|word| escaped(word)).collect::<Vec<_>>().join("<br>")
        );
    }
    page.push_str("</tbody></table></html>");
    page
}
