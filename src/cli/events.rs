//! `vmrescue events`: the event logs of a disk, or one log file by itself.

use super::{CLEAN, Image, identity, look, say};
use clap::Args;
use serde_json::{Value, json};
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::{Disk, HostFile};
use vmrescue_windows::events::{
    BootGroup, Event, Filter, Merged, Messages, Reader, Source, boot_events_of, level_name, logs,
    looks_like_log, words,
};

/// `vmrescue events ...`
#[derive(Debug, Args)]
#[command(
    after_help = "Times are UTC. Without --log, the logs that tell of starts, stops, updates, services and disks are read; without \
    --id, --level or --provider, only the events that matter for the boot are taken, counted and grouped (with --json: one by one).\n\
    A span such as 7d counts back from the newest event of these logs: that is, from the last time the machine ran."
)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    image: Image,
    /// Logs by name or pattern, such as System or '*PnP*'; may be repeated; '*' for all
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    log: Vec<String>,
    /// Numbers of events
    #[arg(long, value_name = "N", value_delimiter = ',')]
    id: Vec<u32>,
    /// At least this serious
    #[arg(long, value_parser = ["critical", "error", "warning", "information", "verbose"])]
    level: Option<String>,
    /// Not before: 2024-05-01, 2024-05-01T12:00, or a span such as 7d, 12h, 30m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not after
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Part of the provider's name, or a pattern
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// At most so many, the newest
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Counted by provider, number and subject
    #[arg(long, conflicts_with = "flat")]
    group: bool,
    /// One by one
    #[arg(long)]
    flat: bool,
    /// Only the names and sizes of the logs
    #[arg(long)]
    list: bool,
    /// Without the texts of the providers' files on the disk
    #[arg(long)]
    no_messages: bool,
}

/// A time, or a span back from the newest event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(FileTime),
    Back(u64),
}

impl When {
    pub(super) fn parse(text: &str) -> Result<When> {
        if let Some(time) = FileTime::parse_utc(text) {
            return Ok(When::At(time));
        }
        let seconds = [('w', 604_800), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)].iter().find_map(
            |(unit, seconds)| {
                text.strip_suffix(*unit)?.parse::<u32>().ok().map(|count| u64::from(count) * seconds)
            },
        );
        seconds.map(When::Back).ok_or_else(|| {
            Error::invalid(Layer::Cli, "invalid time")
                .found(text)
                .expected("2024-05-01, 2024-05-01T12:00 or a span such as 7d, 12h, 30m")
        })
    }

    pub(super) fn time(self, newest: FileTime) -> FileTime {
        match self {
            When::At(time) => time,
            When::Back(seconds) => newest.earlier_by(seconds),
        }
    }
}

/// The logs of an image, or the one log that the file is; and where texts come from.
struct Opened {
    machine: Option<vmrescue_windows::Machine>,
    messages: Option<Messages>,
    file: Option<Disk>,
}

impl Opened {
    fn open(image: &Image, messages: bool) -> Result<Opened> {
        let file = Disk::new(Arc::new(HostFile::open_read(&image.image)?));
        if looks_like_log(&file.read_vec(0, file.len().min(8192) as usize)?) {
            return Ok(Opened { machine: None, messages: None, file: Some(file) });
        }
        let (_, machine, _) = look::open(image)?;
        let installation = machine.installation(image.windows)?;
        let messages = messages.then(|| Messages::open(&machine, installation)).transpose()?;
        Ok(Opened { messages, machine: Some(machine), file: None })
    }

    fn merged(&self, image: &Image, wanted: &[String], filter: &Filter) -> Result<Merged> {
        if let Some(machine) = &self.machine {
            return Merged::open(machine, machine.installation(image.windows)?, wanted, filter);
        }
        let name =
            image.image.file_stem().map(|stem| stem.to_string_lossy().replace("%4", "/")).unwrap_or_default();
        let file = self.file.clone().ok_or_else(|| Error::invalid(Layer::Cli, "no log was opened"))?;
        Ok(Merged::of(vec![Reader::open(Source::File(file), &name, filter)?]))
    }
}

pub(super) fn events(args: &EventsArgs) -> Result<u8> {
    let image = &args.image;
    if args.list {
        return list(image);
    }
    let mut opened = Opened::open(image, !args.no_messages)?;
    let chosen = !args.id.is_empty() || args.level.is_some() || args.provider.is_some();
    let mut filter = Filter {
        ids: args.id.clone(),
        level: args.level.as_deref().and_then(|name| (1..=5).find(|level| level_name(*level) == name)),
        provider: args.provider.clone(),
        boot: args.log.is_empty() && !chosen && opened.file.is_none(),
        ..Filter::default()
    };
    let since = args.since.as_deref().map(When::parse).transpose()?;
    let until = args.until.as_deref().map(When::parse).transpose()?;
    if since.is_some() || until.is_some() {
        let all = Filter::default();
        let newest =
            opened.merged(image, &args.log, &all)?.peek().map_or(FileTime::now(), |event| event.time);
        filter.since = since.map(|when| when.time(newest));
        filter.until = until.map(|when| when.time(newest));
    }
    identity::tell(image)?;
    let merged = opened.merged(image, &args.log, &filter)?;
    if merged.names().is_empty() {
        tell_defects(&merged.defects());
        if args.log.is_empty() {
            super::say_error("no event logs on this disk");
            return Ok(CLEAN);
        }
        return Err(Error::not_found(Layer::EventLog, "no such log on this disk")
            .advice("vmrescue events IMAGE --list shows the logs"));
    }
    let grouped = args.group || (filter.boot && !args.flat && !image.json);
    if grouped {
        say_groups(args, merged, &mut opened.messages)
    } else {
        say_events(args, merged, &mut opened.messages)
    }
}

fn list(image: &Image) -> Result<u8> {
    let (_, machine, _) = look::open(image)?;
    for log in logs(&machine, machine.installation(image.windows)?)? {
        if image.json {
            say(&json!({"log": log.name, "path": log.path, "size": log.size_bytes}).to_string())?;
        } else {
            say(&format!("{:>12}  {}", log.size_bytes, log.name))?;
        }
    }
    Ok(CLEAN)
}

/// An event as one line of JSON, with the tool and the image, so that lines of many disks can be put together.
fn event_json(event: &Event, image: &Value) -> Value {
    let mut line = json!(event);
    if let Some(map) = line.as_object_mut() {
        map.shift_insert(0, "schema".into(), json!("vmrescue.event/1"));
        map.insert("level_name".into(), json!(event.level_name()));
        map.insert("text".into(), json!(words(event)));
        map.insert("kind".into(), json!(vmrescue_windows::events::known(event).map(|known| known.kind)));
        map.insert("image".into(), image.clone());
        map.insert("tool".into(), identity::tool());
    }
    line
}

/// The first characters of a text, on one line.
fn short(text: &str, length: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(length) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn second(time: FileTime) -> String {
    let text = time.to_string();
    text.get(..19).map_or(text.clone(), |second| second.replace('T', " "))
}

fn say_events(args: &EventsArgs, mut merged: Merged, messages: &mut Option<Messages>) -> Result<u8> {
    let image = if args.image.json { identity::image(&args.image)? } else { Value::Null };
    for mut event in merged.by_ref().take(args.limit.unwrap_or(usize::MAX)) {
        if let Some(messages) = messages {
            messages.fill(&mut event);
        }
        if args.image.json {
            say(&event_json(&event, &image).to_string())?;
        } else {
            let (when, text) = (second(event.time), short(&words(&event), 300));
            say(&format!(
                "{when}  {:<11}  {}  {} {}  {text}",
                event.level_name(),
                event.log,
                event.provider,
                event.id
            ))?;
        }
    }
    tell_defects(&merged.defects());
    Ok(CLEAN)
}

fn say_groups(args: &EventsArgs, merged: Merged, messages: &mut Option<Messages>) -> Result<u8> {
    let filled = |group: &mut BootGroup| {
        if let (Some(messages), Some(event)) = (messages.as_mut(), group.events.first_mut()) {
            messages.fill(event);
            group.text = words(event);
        }
    };
    let mut found = boot_events_of(merged);
    found.groups.truncate(args.limit.unwrap_or(usize::MAX));
    found.groups.iter_mut().for_each(filled);
    if args.image.json {
        let image = identity::image(&args.image)?;
        for group in &found.groups {
            let mut line = json!(group);
            if let Some(map) = line.as_object_mut() {
                map.shift_insert(0, "schema".into(), json!("vmrescue.event-group/1"));
                map.insert("level_name".into(), json!(level_name(group.level)));
                map.insert("image".into(), image.clone());
                map.insert("tool".into(), identity::tool());
            }
            say(&line.to_string())?;
        }
    } else {
        for group in &found.groups {
            let (when, text) = (second(group.last), short(&group.text, 200));
            let since =
                if group.count > 1 { format!("  (since {})", second(group.first)) } else { String::new() };
            let level = level_name(group.level);
            say(&format!(
                "{when}  {:>5} x  {level:<11}  {} {}  {text}{since}",
                group.count, group.provider, group.id
            ))?;
        }
    }
    let own = |defect: Defect| (String::new(), defect);
    tell_defects(&found.defects.into_iter().map(own).collect::<Vec<_>>());
    Ok(CLEAN)
}

fn tell_defects(defects: &[(String, Defect)]) {
    for (log, defect) in defects {
        let log = if log.is_empty() { String::new() } else { format!("{log}: ") };
        super::say_error(&format!("warning: {log}{defect}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_told_apart() {
        let newest = FileTime::parse_utc("2024-05-08").unwrap();
        assert_eq!(When::parse("7d").unwrap().time(newest).to_string(), "2024-05-01T00:00:00.0000000Z");
        assert_eq!(
            When::parse("2024-01-01").unwrap().time(newest).to_string(),
            "2024-01-01T00:00:00.0000000Z"
        );
        assert!(When::parse("7 days").is_err() && When::parse("-3d").is_err());
        assert_eq!(short("a\r\n  b", 10), "a b");
        assert_eq!(short("aäb", 2), "aä...");
    }
}
