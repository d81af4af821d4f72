//! `vmrescue timeline`: everything on the disk that has a time, sorted; or a body file for `mactime` of The Sleuth Kit.

use super::events::When;
use super::output::Output;
use super::{CLEAN, Image, identity, look, say_error};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::OutputFile;
use vmrescue_windows::timeline::{Entry, SourceKind, Subject, Timeline, Wanted, last_life, macb, subjects};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// The Sleuth Kit 3.x, for mactime: one line a subject, not sorted
    Bodyfile,
    /// RFC 4180, with a heading
    Csv,
    /// One object a line, the first one names tool and image
    Jsonl,
}

/// `vmrescue timeline ...`
#[derive(Debug, Args)]
#[command(
    after_help = "Times are UTC. A span such as 7d counts back that is, from the last time the machine ran: its newest event. \
    The letters are those of mactime: m modified, a accessed, c record changed, b born. `file` are the times of the file \
    ($STANDARD_INFORMATION), `file-name` those kept with its name ($FILE_NAME)."
)]
pub(super) struct TimelineArgs {
    #[command(flatten)]
    image: Image,
    /// How it is written; with --json: jsonl
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Not before: 2024-05-01, 2024-05-01T12:00, or a span such as 7d, 12h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not after
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// What is taken
    #[arg(long, value_delimiter = ',', value_parser = ["files", "registry", "events"])]
    kind: Vec<String>,
    /// File for the lines, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn timeline(args: &TimelineArgs) -> Result<u8> {
    let (_, machine, _) = look::open(&args.image)?;
    let since = args.since.as_deref().map(When::parse).transpose()?;
    let until = args.until.as_deref().map(When::parse).transpose()?;
    let back = [since, until].iter().flatten().any(|when| matches!(when, When::Back(_)));
    let newest = if back { last_life(&machine).unwrap_or_else(FileTime::now) } else { FileTime::default() };
    let takes = |kind: &str| args.kind.is_empty() || args.kind.iter().any(|wanted| wanted == kind);
    let wanted = Wanted {
        files: takes("files"),
        registry: takes("registry"),
        events: takes("events"),
        since: since.map(|when| when.time(newest)),
        until: until.map(|when| when.time(newest)),
    };
    let name = args.out.clone().unwrap_or_else(|| "standard output".into());
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Error::new(ErrorKind::Interrupted, Layer::Cli, "broken pipe"),
        _ => Error::io("cannot be written", &name, e),
    };
    let create = |path: &PathBuf| args.output.rules(&args.image)?.create(path);
    let mut file = args.out.as_ref().map(create).transpose()?;
    let sink: Box<dyn Write + '_> = match &mut file {
        Some(file) => Box::new(file),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut out = BufWriter::with_capacity(1 << 16, sink);
    let format = if args.image.json { Format::Jsonl } else { args.format };
    let defects = if format == Format::Bodyfile {
        subjects(&machine, &wanted, &mut |subject| match body_line(subject, &wanted) {
            Some(line) => out.write_all(line.as_bytes()).map_err(failed),
            None => Ok(()),
        })?
    } else {
        let all = Timeline::of(&machine, &wanted)?;
        match format {
            Format::Csv => out.write_all(b"time,kind,macb,id,size,subject\r\n").map_err(failed)?,
            Format::Jsonl => {
                let image = identity::image(&args.image)?;
                let head = json!({"schema": "vmrescue.timeline/1", "tool": identity::tool(), "image": image, "entries": all.len()});
                writeln!(out, "{head}").map_err(failed)?;
            }
            _ => {}
        }
        for entry in all.entries() {
            out.write_all(line(&entry, format).as_bytes()).map_err(failed)?;
        }
        all.defects
    };
    out.flush().map_err(failed)?;
    drop(out);
    file.map_or(Ok(()), OutputFile::finish)?;
    for defect in &defects {
        say_error(&format!("warning: {defect}"));
    }
    Ok(CLEAN)
}

fn letters(which: u8) -> String {
    [(macb::MODIFIED, 'm'), (macb::ACCESSED, 'a'), (macb::CHANGED, 'c'), (macb::BORN, 'b')]
        .iter()
        .map(|(bit, letter)| if which & bit != 0 { *letter } else { '.' })
        .collect()
}

/// Control characters would break the line.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '^' } else { c }).collect()
}

fn line(entry: &Entry<'_>, format: Format) -> String {
    let (time, kind) = (entry.time, entry.kind.name());
    let which = if matches!(entry.kind, SourceKind::File | SourceKind::Name) {
        letters(entry.which)
    } else {
        "m...".into()
    };
    match format {
        Format::Jsonl => {
            let line = json!({"time": time.to_string(), "kind": kind, "macb": which, "id": entry.id, "size": entry.size_bytes,
                "subject": entry.text});
            format!("{line}\n")
        }
        Format::Csv => {
            let subject = clean(entry.text).replace('"', "\"\"");
            format!("{time},{kind},{which},{},{},\"{subject}\"\r\n", entry.id, entry.size_bytes)
        }
        Format::Text | Format::Bodyfile => format!("{time}  {which}  {kind:<9}  {}\n", clean(entry.text)),
    }
}

/// A line of a body file: `MD5|name|inode|mode|UID|GID|size|atime|mtime|ctime|crtime`, times in seconds since 1970, 0 for none.
fn body_line(subject: &Subject<'_>, wanted: &Wanted) -> Option<String> {
    let times = subject.times;
    let four = [times.accessed, times.modified, times.changed, times.created];
    let within = |time: &FileTime| {
        !time.is_zero()
            && wanted.since.is_none_or(|since| *time >= since)
            && wanted.until.is_none_or(|until| *time <= until)
    };
    if (wanted.since.is_some() || wanted.until.is_some()) && !four.iter().any(within) {
        return None;
    }
    let text = clean(subject.text).replace('|', "%7C");
    let (name, mode) = match subject.kind {
        SourceKind::File | SourceKind::Name => {
            let mark = if subject.kind == SourceKind::Name { " ($FILE_NAME)" } else { "" };
            let mode = if subject.directory { "d/drwxrwxrwx" } else { "r/rrwxrwxrwx" };
            (format!("{}{mark}", text.replace('\\', "/")), mode)
        }
        SourceKind::Registry | SourceKind::Event => {
            (format!("[{}] {text}", subject.kind.name()), "-/----------")
        }
    };
    let seconds = four.map(|time| if time.is_zero() { 0 } else { time.unix_seconds().max(0) });
    let [accessed, modified, changed, created] = seconds;
    Some(format!(
        "0|{name}|{}|{mode}|0|0|{}|{accessed}|{modified}|{changed}|{created}\n",
        subject.id, subject.size_bytes
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_fs::Times;

    #[test]
    fn lines_are_what_their_formats_want() {
        let time = FileTime::from_unix_seconds(1_000_000_000);
        let entry = Entry {
            time,
            which: macb::MODIFIED | macb::BORN,
            kind: SourceKind::File,
            text: "C:\\a\"b\n",
            id: 7,
            size_bytes: 9,
        };
        assert_eq!(
            line(&entry, Format::Csv),
            "2001-09-09T01:46:40.0000000Z,file,m..b,7,9,\"C:\\a\"\"b^\"\r\n"
        );
        assert_eq!(line(&entry, Format::Text), "2001-09-09T01:46:40.0000000Z  m..b  file       C:\\a\"b^\n");
        let times = Times { modified: time, ..Times::default() };
        let mut subject = Subject {
            kind: SourceKind::Name,
            text: r"C:\a|b",
            id: 7,
            size_bytes: 9,
            directory: false,
            times,
        };
        let body = "0|C:/a%7Cb ($FILE_NAME)|7|r/rrwxrwxrwx|0|0|9|0|1000000000|0|0\n";
        assert_eq!(body_line(&subject, &Wanted::default()).as_deref(), Some(body));
        let since = Some(FileTime::from_unix_seconds(1_000_000_001));
        assert_eq!(body_line(&subject, &Wanted { since, ..Wanted::default() }), None);
        (subject.kind, subject.text) = (SourceKind::Registry, r"HKLM\SYSTEM");
        let body = "0|[registry] HKLM\\SYSTEM|7|-/----------|0|0|9|0|1000000000|0|0\n";
        assert_eq!(body_line(&subject, &Wanted::default()).as_deref(), Some(body));
    }
}
