//! The story of an installation over time: updates, crashes, starts; drawn as an SVG plot whose words stand beside it, so that they
//! stay legible at any width.

use super::escape::escaped;
use super::sections::moment;
use std::fmt::Write;
use vmrescue_base::time::FileTime;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A package was installed.
    Update,
    /// A crash.
    Crash,
    /// A start or a shutdown.
    Start,
    /// Windows was installed, and other marks.
    Mark,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Happening {
    /// When.
    pub(super) time: FileTime,
    /// What.
    pub(super) what: What,
    /// In words.
    pub(super) text: String,
}

const DAY: i64 = 86_400;
const WIDTH: f64 = 1000.0;
/// Most bars.
const BINS: i64 = 96;
/// Most marks of each kind that are drawn.
const MARKS: usize = 2000;

/// A day as `2024-02-29`.
fn day(seconds: i64) -> String {
    FileTime::from_unix_seconds(seconds).to_string().get(..10).unwrap_or_default().to_string()
}

/// The plot with its axis and legend; nothing when fewer than two things happened.
pub(super) fn plot(happenings: &[Happening]) -> String {
    // Clocks that were never set give times before Windows was made.
    let known = |h: &&Happening| (946_684_800..4_102_444_800).contains(&h.time.unix_seconds());
    let all: Vec<&Happening> = happenings.iter().filter(known).collect();
    let times = || all.iter().map(|h| h.time.unix_seconds());
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return String::new() };
    if all.len() < 2 {
        return String::new();
    }
    let bin_days = ((last - first) / DAY / BINS + 1).max(1);
    let from = first.div_euclid(DAY) * DAY;
    let bins = (last - from) / (bin_days * DAY) + 1;
    let span = (bins * bin_days * DAY) as f64;
    let x = |seconds: i64| (seconds - from) as f64 / span * WIDTH;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} 150\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"updates, crashes and starts from {} to {}\">",
        day(first),
        day(last)
    );
    bars(&mut svg, &all, from, bins, bin_days);
    for (y, what, class) in
        [(108.0, What::Crash, "crash"), (124.0, What::Start, "start"), (140.0, What::Mark, "mark")]
    {
        let _infallible =
            write!(svg, "<rect class=\"rule\" x=\"0\" y=\"{}\" width=\"{WIDTH}\" height=\"1\"/>", y + 10.0);
        for h in all.iter().filter(|h| h.what == what).take(MARKS) {
            let _infallible = write!(
                svg,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{y}\" width=\"3\" height=\"10\"><title>{}: {}</title></rect>",
                x(h.time.unix_seconds()).min(WIDTH - 3.0),
                moment(h.time),
                escaped(&h.text)
            );
        }
    }
    svg.push_str("</svg>");
    let mut page = format!("<div class=\"plot\">{svg}<div class=\"scale\">");
    for i in 0..=4 {
        let at = from as f64 + span * f64::from(i) / 4.0;
        let _infallible = write!(page, "<span style=\"left:{}%\">{}</span>", i * 25, day(at as i64));
    }
    page.push_str("</div><div class=\"legend\">");
    let count = |what: What| all.iter().filter(|h| h.what == what).count();
    for (what, class, words) in [
        (What::Update, "update", "updates"),
        (What::Crash, "crash", "crashes"),
        (What::Start, "start", "starts and shutdowns"),
        (What::Mark, "mark", "installation"),
    ] {
        if count(what) > 0 {
            let _infallible =
                write!(page, "<span><i class=\"swatch fill-{class}\"></i>{} {words}</span>", count(what));
        }
    }
    let period = if bin_days == 1 { "a day".to_string() } else { format!("{bin_days} days") };
    let _infallible =
        write!(page, "<span>one bar is {period}; its height grows with the square root</span></div></div>");
    page
}

/// Bars of updates.
fn bars(svg: &mut String, all: &[&Happening], from: i64, bins: i64, bin_days: i64) {
    let mut counts = vec![0u32; usize::try_from(bins).unwrap_or(0)];
    for h in all.iter().filter(|h| h.what == What::Update) {
        let bin = (h.time.unix_seconds() - from) / (bin_days * DAY);
        if let Some(count) = usize::try_from(bin).ok().and_then(|bin| counts.get_mut(bin)) {
            *count += 1;
        }
    }
    let most = f64::from(counts.iter().copied().max().unwrap_or(0).max(1)).sqrt();
    let width = WIDTH / counts.len().max(1) as f64;
    let _infallible = write!(svg, "<rect class=\"rule\" x=\"0\" y=\"100\" width=\"{WIDTH}\" height=\"1\"/>");
    for (i, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let tall = f64::from(*count).sqrt() / most * 96.0;
        let start = from + i as i64 * bin_days * DAY;
        let _infallible = write!(
            svg,
            "<rect class=\"update\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"><title>{} to {}: {count} packages</title></rect>",
            i as f64 * width,
            100.0 - tall,
            (width * 0.86).max(1.5),
            day(start),
            day(start + (bin_days * DAY) - 1),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plot_covers_what_happened_and_escapes_its_words() {
        let happening = |seconds, what| Happening {
            time: FileTime::from_unix_seconds(seconds),
            what,
            text: "<b>".into(),
        };
        let list = [
            happening(1_600_000_000, What::Mark),
            happening(1_650_000_000, What::Update),
            happening(1_650_000_001, What::Update),
            happening(1_700_000_000, What::Crash),
            happening(-11_644_473_600, What::Update),
        ];
        let page = plot(&list);
        assert!(page.contains(": 2 packages") && page.contains("1 crashes") && page.contains("&lt;b&gt;"));
        assert!(
            page.contains("from 2020-09-13 to 2023-11-14"),
            "a clock that was never set does not stretch it"
        );
        assert_eq!(plot(&list[..1]), "");
    }
}
