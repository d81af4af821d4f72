//! The report of one disk as a single HTML page that needs nothing else: verdict, findings with their fixes, disk map, plot of what
//! happened, facts, drivers, updates. A content security policy lets only our own script run, by its hash.

use super::escape::{breakable, escaped};
use super::history::{Happening, What, plot};
use super::inspection::{Inspection, InstallationView};
use super::map::{Role, Segment, segments};
use super::script::{SCRIPT, hash};
use super::sections::{moment, sections};
use super::style::{DISK_STYLE, STYLE};
use super::tables::{Cell, card, table};
use std::fmt::Write;
use vmrescue_base::text::size;
use vmrescue_base::time::FileTime;
use vmrescue_diagnose::{Applicability, Diagnosis, Finding, Severity, Verdict};
use vmrescue_windows::{Service, Updates};

/// What a page is made of.
pub struct Page<'a> {
    /// The disk.
    pub inspection: &'a Inspection,
    /// What `diagnose` came to, for each installation of the inspection in turn, or for a disk without one.
    pub diagnoses: Vec<Diagnosis>,
    /// Services and drivers of each installation in turn, with their files.
    pub services: Vec<Vec<Service>>,
    /// Packages of each installation in turn.
    pub updates: Vec<Updates>,
    /// Starts, stops and crashes of each installation in turn.
    pub events: Vec<Vec<PageEvent>>,
    /// What is to be said ahead of all that: of an installation that was not diagnosed, and what of it could not be read.
    pub notes: Vec<Vec<String>>,
    /// The image as the user named it.
    pub image: String,
    /// Its sha256, when it was asked for.
    pub sha256: Option<String>,
    /// When the report is made.
    pub made: FileTime,
}

/// An event for the plot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEvent {
    /// When.
    pub time: FileTime,
    /// A crash; else a start or a stop.
    pub crash: bool,
    /// In words.
    pub text: String,
}

/// The page.
pub fn html(page: &Page<'_>) -> String {
    let first = page.inspection.installations.first();
    let name = first.map(|i| i.computer_name.as_str()).filter(|name| !name.is_empty());
    let title = name.map_or_else(|| file_name(&page.image), str::to_string);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src '{}'; img-src data:\">\
         <meta name=\"generator\" content=\"vmrescue {}\"><title>{} · vmrescue</title><link rel=\"icon\" href=\"data:,\"><style>{STYLE}{DISK_STYLE}</style></head><body>",
        hash(),
        env!("CARGO_PKG_VERSION"),
        escaped(&title),
    );
    verdict(&mut out, page);
    navigation(&mut out, page);
    findings(&mut out, page);
    disk(&mut out, page.inspection);
    for (i, installation) in page.inspection.installations.iter().enumerate() {
        let several = page.inspection.installations.len() > 1;
        if several {
            let _infallible = write!(out, "<h2>{}</h2>", escaped(&installation.path));
        }
        for note in page.notes.get(i).into_iter().flatten() {
            let _infallible = write!(out, "<p class=\"soft\">{}</p>", breakable(note));
        }
        timeline(&mut out, page, i, installation);
        facts(&mut out, installation, i);
        drivers(&mut out, page.services.get(i).map_or(&[], Vec::as_slice), i);
        updates(&mut out, page.updates.get(i), i);
    }
    damage(&mut out, page.inspection);
    footer(&mut out, page);
    let _infallible = writeln!(out, "<script>{SCRIPT}</script></body></html>");
    out
}

fn file_name(path: &str) -> String {
    path.rsplit(['/', '\\']).next().unwrap_or(path).to_string()
}

/// Class, sentence and reason.
fn judged(page: &Page<'_>) -> (&'static str, String, String) {
    let all: Vec<&Finding> = page.diagnoses.iter().flat_map(|one| &one.findings).collect();
    let list: Vec<&str> =
        page.diagnoses.iter().flat_map(|one| one.looked_at.iter().map(String::as_str)).collect();
    let looked = format!("Looked at: {}. Not looked at: hardware and firmware.", list.join("; "));
    let critical = all.iter().filter(|finding| finding.severity == Severity::Critical).count();
    let more = |count: usize| match count {
        0 | 1 => String::new(),
        2 => " One more reason is below.".into(),
        _ => format!(" {} more reasons are below.", count - 1),
    };
    let locked: Vec<&str> = page
        .inspection
        .volumes
        .iter()
        .filter(|v| v.bitlocker.as_ref().is_some_and(|bitlocker| bitlocker.locked))
        .filter_map(|v| v.error.as_deref())
        .collect();
    let is = |verdict| page.diagnoses.iter().find(|one| one.verdict == verdict);
    if is(Verdict::WillNotBoot).is_some() {
        let decides =
            |finding: &&&Finding| finding.severity == Severity::Critical && finding.rule != "could-not-look";
        let first = all.iter().find(decides).map_or("", |finding| finding.title.as_str());
        let reason = format!("{}.{}", first.trim_end_matches('.'), more(critical));
        return ("bad", "This machine will not boot".into(), reason);
    }
    if page.inspection.installations.is_empty() && !locked.is_empty() {
        return ("find", "This disk is locked".into(), locked.join(" "));
    }
    if let Some(one) = is(Verdict::CouldNotTell) {
        let reason = one.could_not_look.first().map(ToString::to_string).unwrap_or_default();
        return ("bad", "Whether this machine boots could not be told".into(), reason);
    }
    if page.inspection.installations.is_empty() {
        return ("find", "No Windows was found on this disk".into(), looked);
    }
    if let Some(first) = all.first() {
        let words =
            if all.len() == 1 { "one thing asks".to_string() } else { format!("{} things ask", all.len()) };
        let sentence = format!("It should boot, and {words} for attention");
        return ("find", sentence, first.title.clone());
    }
    ("good", "Nothing found that keeps this machine from booting".into(), looked)
}

fn verdict(out: &mut String, page: &Page<'_>) {
    let (class, sentence, reason) = judged(page);
    let _infallible = write!(
        out,
        "<header><div class=\"verdict {class}\"><p class=\"kicker\">vmrescue report</p><h1>{}</h1><p class=\"lead\">{}</p></div>",
        escaped(&sentence),
        escaped(&reason)
    );
    out.push_str("<dl class=\"keys\">");
    let mut key = |name: &str, value: &str| {
        let _infallible = write!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(value));
    };
    if let Some(i) = page.inspection.installations.first() {
        let or = |text: &str| if text.is_empty() { "unknown".to_string() } else { text.to_string() };
        key("Computer", &or(&i.computer_name));
        key("Windows", &format!("{} {}", or(&i.product), i.display_version));
        let build = if i.build == 0 {
            "unknown".into()
        } else {
            format!("{}.{}, {}", i.build, i.ubr, i.architecture)
        };
        key("Build", &build);
        let shutdown = i.facts.identity.last_shutdown.map_or_else(|| "unknown".into(), moment);
        key("Last clean shutdown", &shutdown);
    }
    key("Disk", &format!("{}, {}", size(page.inspection.container.size), file_name(&page.image)));
    out.push_str("</dl></header>");
}

fn navigation(out: &mut String, page: &Page<'_>) {
    let count: usize = page.diagnoses.iter().map(|one| one.findings.len()).sum();
    let _infallible =
        write!(out, "<nav><a href=\"#findings\">Findings ({count})</a><a href=\"#disk\">Disk</a>");
    if !page.inspection.installations.is_empty() {
        for (id, name) in [
            ("history-0", "History"),
            ("facts-0", "Facts"),
            ("drivers-0", "Drivers"),
            ("updates-0", "Updates"),
        ] {
            let _infallible = write!(out, "<a href=\"#{id}\">{name}</a>");
        }
    }
    out.push_str("</nav>");
}

fn findings(out: &mut String, page: &Page<'_>) {
    out.push_str("<section id=\"findings\"><h2>Findings</h2>");
    let mut any = false;
    for one in &page.diagnoses {
        any |= !one.findings.is_empty();
        let several = page.inspection.installations.len() > 1;
        folded(out, &one.findings, &page.image, one.windows.filter(|_| several));
    }
    if !any {
        out.push_str("<p class=\"soft\">None.</p>");
    }
    for line in page.diagnoses.iter().flat_map(|one| &one.looked_at) {
        let _infallible = write!(out, "<p class=\"soft small\">Looked at: {}</p>", breakable(line));
    }
    out.push_str("</section>");
}

/// Findings in their order; of a rule that speaks often all but two are folded away.
fn folded(out: &mut String, list: &[Finding], image: &str, windows: Option<usize>) {
    const SHOWN: usize = 2;
    for (i, finding) in list.iter().enumerate() {
        let same = |other: &&Finding| other.rule == finding.rule;
        let before = list[..i].iter().filter(same).count();
        let all = list.iter().filter(same).count();
        if before < SHOWN || all == SHOWN + 1 {
            one_finding(out, finding, image, windows);
        } else if before == SHOWN {
            let _infallible = write!(
                out,
                "<details class=\"more\"><summary>{} more of {}</summary>",
                all - SHOWN,
                escaped(&finding.rule)
            );
            for finding in list.iter().filter(same).skip(SHOWN) {
                one_finding(out, finding, image, windows);
            }
            out.push_str("</details>");
        }
    }
}

/// A word as a shell takes it.
fn shell(word: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What was seen; a long list is folded.
fn evidence(out: &mut String, list: &[String]) {
    const SHOWN: usize = 5;
    let items = |out: &mut String, list: &[String]| {
        out.push_str("<ul>");
        for evidence in list {
            let _infallible = write!(out, "<li>{}</li>", breakable(evidence));
        }
        out.push_str("</ul>");
    };
    // One that is hidden would save nothing.
    let shown = if list.len() <= SHOWN + 1 { list.len() } else { SHOWN };
    let (first, rest) = list.split_at(shown);
    items(out, first);
    if !rest.is_empty() {
        let _infallible = write!(out, "<details><summary>{} more</summary>", rest.len());
        items(out, rest);
        out.push_str("</details>");
    }
}

fn one_finding(out: &mut String, finding: &Finding, image: &str, windows: Option<usize>) {
    let class = finding.severity.name();
    let _infallible = write!(
        out,
        "<article class=\"finding {class}\"><span class=\"tag\">{}</span> <span class=\"soft small\"><code>{}</code> · {}</span><h3>{}</h3>",
        finding.severity.name(),
        escaped(&finding.rule),
        finding.confidence.name(),
        escaped(&finding.title)
    );
    if !finding.evidence.is_empty() {
        out.push_str("<p class=\"label\">What was seen</p>");
        evidence(out, &finding.evidence);
    }
    if !finding.screen.is_empty() {
        let _infallible =
            write!(out, "<p class=\"label\">What the screen shows</p><p>{}</p>", escaped(&finding.screen));
    }
    if !finding.remedy.is_empty() {
        let _infallible = write!(
            out,
            "<p class=\"label\">What cures it</p><p>{}</p>",
            escaped(finding.remedy.trim()).replace('\n', "<br>")
        );
    }
    if let Some(fix) = &finding.fix {
        let mut command = format!("vmrescue repair {} {}", shell(image), shell(&fix.script));
        for (name, value) in &fix.parameters {
            command.push_str(&format!(" --set {}", shell(&format!("{name}={value}"))));
        }
        if let Some(number) = windows {
            command.push_str(&format!(" --windows {number}"));
        }
        let how = match fix.applicability {
            Applicability::Safe => "The fix has one right answer and can be undone",
            Applicability::Unsafe => "The fix wants a decision; it can be undone",
        };
        let _infallible = write!(
            out,
            "<p class=\"label\">{how}</p><div class=\"command\"><pre>{}</pre></div>",
            escaped(&command)
        );
    }
    out.push_str("</article>");
}

fn disk(out: &mut String, inspection: &Inspection) {
    let list = segments(inspection);
    let total: u64 = inspection.container.size.max(1);
    out.push_str("<section id=\"disk\"><h2>Disk</h2>");
    let info = &inspection.container;
    let variant = super::text::variant(info);
    let table_kind = format!("{:?}", inspection.partition_table.kind).to_uppercase();
    let _infallible = write!(
        out,
        "<p class=\"soft\">{} {variant}, {} in the file, {table_kind} partition table{}</p>",
        size(info.size),
        size(info.file_size),
        if info.log_replayed { "; its log was replayed in memory" } else { "" }
    );
    picture(out, &list, total);
    let mut rows = Vec::new();
    for segment in &list {
        rows.push(vec![
            Cell::text(if segment.name.is_empty() { "–" } else { &segment.name }),
            Cell::text(&*segment.words),
            Cell::number(size(segment.size), segment.size),
            segment.used.map_or_else(
                || Cell::text(""),
                |used| {
                    let free = segment.size.saturating_sub(used);
                    Cell::number(size(free), free)
                },
            ),
            Cell::text(segment.error.clone().unwrap_or_default()).class("find"),
        ]);
    }
    let mut html = String::new();
    table(&mut html, None, &["Volume", "What it is", "Size", "Free", ""], &rows);
    out.push_str(&with_swatches(&html, &list));
    out.push_str("</section>");
}

/// Puts the colour of each segment ahead of its row.
fn with_swatches(html: &str, list: &[Segment]) -> String {
    let mut out = String::with_capacity(html.len() + list.len() * 60);
    let mut parts = html.split("<tr><td>");
    out.push_str(parts.next().unwrap_or_default());
    for (part, segment) in parts.zip(list) {
        let _infallible = write!(out, "<tr><td><i class=\"swatch fill-{}\"></i>{part}", segment.role.name());
    }
    out
}

/// The disk to scale: used parts in full colour, free parts pale. The smallest partitions are drawn a little too wide to be seen.
fn picture(out: &mut String, list: &[Segment], total: u64) {
    const WIDTH: f64 = 1000.0;
    const LEAST: f64 = 5.0;
    let wide = |bytes: u64| (bytes as f64 / total as f64 * WIDTH).max(LEAST);
    let sum: f64 = list.iter().map(|segment| wide(segment.size)).sum();
    let scale = WIDTH / sum.max(1.0);
    let _infallible = write!(
        out,
        "<div class=\"map\"><svg viewBox=\"0 0 {WIDTH} 60\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"the disk from its first byte to its last\">"
    );
    let mut x = 0.0;
    for segment in list {
        let width = wide(segment.size) * scale;
        let inner = (width - 1.5).max(1.0);
        let full = match segment.used {
            Some(used) => inner * (used as f64 / segment.size.max(1) as f64).min(1.0),
            None => inner,
        };
        let class = segment.role.name();
        let free = segment.used.map(|used| format!(", {} free", size(segment.size.saturating_sub(used))));
        let words =
            format!("{} {}, {}{}", segment.name, segment.words, size(segment.size), free.unwrap_or_default());
        let _infallible = write!(out, "<g><title>{}</title>", escaped(words.trim()));
        if segment.role == Role::Nothing {
            let _infallible = write!(
                out,
                "<rect class=\"fill-{class}\" x=\"{x:.2}\" y=\"22\" width=\"{inner:.2}\" height=\"16\"/>"
            );
        } else {
            let _infallible = write!(
                out,
                "<rect class=\"fill-{class} free\" x=\"{x:.2}\" y=\"0\" width=\"{inner:.2}\" height=\"60\"/>\
                 <rect class=\"fill-{class}\" x=\"{x:.2}\" y=\"0\" width=\"{full:.2}\" height=\"60\"/>"
            );
        }
        out.push_str("</g>");
        x += width;
    }
    out.push_str("</svg><div class=\"scale\">");
    for i in 0..=4u64 {
        let at = u128::from(total) * u128::from(i) / 4;
        let text = if i == 0 { "0".into() } else { size(u64::try_from(at).unwrap_or(total)) };
        let _infallible = write!(out, "<span style=\"left:{}%\">{text}</span>", i * 25);
    }
    out.push_str("</div></div>");
}

fn parsed(text: &str) -> Option<FileTime> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let second = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    // Days from the civil calendar (Hinnant), as time.rs has it the other way round.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(FileTime::from_unix_seconds(days * 86_400 + second))
}

fn timeline(out: &mut String, page: &Page<'_>, i: usize, installation: &InstallationView) {
    let mut all = Vec::new();
    let mut add = |time: Option<FileTime>, what, text: String| {
        if let Some(time) = time {
            all.push(Happening { time, what, text });
        }
    };
    for package in page.updates.get(i).iter().flat_map(|updates| &updates.packages) {
        let time = package.installed.as_deref().and_then(parsed);
        add(time, What::Update, package.kb.clone().unwrap_or_else(|| package.identity.clone()));
    }
    for dump in &installation.facts.crash.dumps {
        let words = dump.dump.as_ref().map_or_else(|| dump.path.clone(), vmrescue_windows::Dump::text);
        add(dump.time(), What::Crash, words);
    }
    for event in page.events.get(i).into_iter().flatten() {
        add(Some(event.time), if event.crash { What::Crash } else { What::Start }, event.text.clone());
    }
    add(installation.facts.identity.installed, What::Mark, "Windows was installed".into());
    add(installation.facts.identity.last_shutdown, What::Start, "last clean shutdown".into());
    let mut picture = plot(&all);
    if picture.is_empty() {
        picture.push_str("<p class=\"soft\">Nothing on this disk tells when things happened.</p>");
    }
    let _infallible = write!(out, "<section id=\"history-{i}\"><h2>History</h2>{picture}</section>");
}

fn facts(out: &mut String, installation: &InstallationView, i: usize) {
    let _infallible = write!(out, "<section id=\"facts-{i}\"><h2>Facts</h2><div class=\"cards\">");
    // Small cards first, so that the wide ones do not leave holes between them.
    let (wide, small): (Vec<_>, Vec<_>) =
        sections(&installation.facts).into_iter().partition(|section| section.table.is_some());
    for section in small.iter().chain(&wide) {
        card(out, section);
    }
    out.push_str("</div></section>");
}

fn drivers(out: &mut String, services: &[Service], i: usize) {
    let boot = services.iter().filter(|service| service.start == Some(0)).count();
    let _infallible = write!(
        out,
        "<section id=\"drivers-{i}\"><h2>Drivers and services</h2><p class=\"soft\">{} in the control set of the next start, {boot} of them are loaded at boot.</p>",
        services.len()
    );
    let row = |service: &Service| {
        let start = u64::from(service.start.unwrap_or(9));
        let kind = if service.is_driver() { "driver" } else { "service" };
        vec![
            Cell::text(&*service.name),
            Cell::text(service.start_name()).sorted(start),
            Cell::text(kind),
            Cell::text(&*service.group),
            Cell::text(service.version.clone().unwrap_or_default()),
            Cell::text(service.file.clone().unwrap_or_else(|| service.image_path.clone())).class("mono"),
            Cell::text(service.problem.clone().unwrap_or_default()).class("bad"),
        ]
    };
    let rows: Vec<Vec<Cell>> = services.iter().map(row).collect();
    let _infallible = write!(out, "<details><summary>All {}</summary>", services.len());
    table(
        out,
        Some("drivers and services"),
        &["Name", "Start", "Kind", "Group", "Version", "File", "Problem"],
        &rows,
    );
    out.push_str("</details></section>");
}

fn updates(out: &mut String, updates: Option<&Updates>, i: usize) {
    let _infallible = write!(out, "<section id=\"updates-{i}\"><h2>Updates</h2>");
    let Some(updates) = updates else {
        out.push_str("<p class=\"soft\">Could not be read.</p></section>");
        return;
    };
    if updates.pending.is_empty() {
        out.push_str("<p>Nothing waits for the next start.</p>");
    } else {
        out.push_str("<p class=\"find\">Work waits for the next start:</p><ul>");
        for line in &updates.pending {
            let _infallible = write!(out, "<li>{}</li>", breakable(line));
        }
        out.push_str("</ul>");
    }
    let row = |package: &vmrescue_windows::Package| {
        let when = package.installed.as_deref().unwrap_or("");
        let when = when.get(..19).unwrap_or(when).replace('T', " ");
        vec![
            Cell::text(package.kb.clone().unwrap_or_default()),
            Cell::text(package.state_name),
            Cell::text(when),
            Cell::text(&*package.identity).class("mono"),
        ]
    };
    let rows: Vec<Vec<Cell>> = updates.packages.iter().map(row).collect();
    let _infallible = write!(out, "<details><summary>All {} packages</summary>", rows.len());
    table(out, Some("packages"), &["KB", "State", "Installed", "Package"], &rows);
    out.push_str("</details></section>");
}

fn damage(out: &mut String, inspection: &Inspection) {
    if inspection.defects.is_empty() {
        return;
    }
    out.push_str("<section><h2>Damage that was found on the way</h2>");
    let rows: Vec<Vec<Cell>> = inspection
        .defects
        .iter()
        .map(|defect| {
            vec![
                Cell::text(defect.severity),
                Cell::text(defect.layer),
                Cell::text(defect.offset.clone().unwrap_or_default()).class("mono"),
                Cell::text(&*defect.detail),
                Cell::text(defect.code).class("mono"),
            ]
        })
        .collect();
    table(out, None, &["Severity", "Layer", "Offset", "What", "Code"], &rows);
    out.push_str("</section>");
}

fn footer(out: &mut String, page: &Page<'_>) {
    out.push_str("<footer>The image was opened read-only and is as it was.<dl>");
    let mut row = |name: &str, value: &str| {
        let _infallible = write!(out, "<dt>{name}</dt><dd class=\"mono\">{}</dd>", escaped(value));
    };
    row("Tool", concat!("vmrescue ", env!("CARGO_PKG_VERSION")));
    row("Image", &page.image);
    if let Some(identity) = &page.inspection.container.identity {
        row("Disk identity", identity);
    }
    if let Some(id) = &page.inspection.partition_table.disk_id {
        row("Partition table", id);
    }
    if let Some(sum) = &page.sha256 {
        row("sha256", sum);
    }
    row("Made", &moment(page.made));
    out.push_str("</dl></footer>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for seconds in [0, 951_782_399, 1_709_208_000, 4_102_444_800] {
            let time = FileTime::from_unix_seconds(seconds);
            assert_eq!(parsed(&time.to_string()), Some(time));
        }
        assert_eq!(parsed("soon"), None);
    }

    #[test]
    fn commands_are_safe_to_paste() {
        assert_eq!(shell("C:/disk.vhdx"), "C:/disk.vhdx");
        assert_eq!(shell("a b'; rm -rf /"), r"'a b'\''; rm -rf /'");
    }
}
