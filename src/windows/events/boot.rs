//! What the logs say on starts, stops, crashes, updates, services, disks: counted and grouped, newest first.

use super::logs::in_log;
use super::{Event, Filter, Kind, Merged, known, time_text};
use crate::{Installation, Machine};
use serde::{Serialize, Serializer};
use std::collections::HashMap;
use vmrescue_base::error::{Defect, Result};
use vmrescue_base::time::FileTime;

/// Newest events that a group keeps whole.
const KEPT: usize = 10;
/// Newest times that a group keeps.
const KEPT_TIMES: usize = 1000;
/// Most groups that are told apart; a machine has some hundred.
const MAX_GROUPS: usize = 20_000;

/// Events of one number, provider and subject.
#[derive(Debug, Clone, Serialize)]
pub struct BootGroup {
    /// What it is about; `None` for events that [`known`] does not know.
    pub kind: Option<Kind>,
    /// The log.
    pub log: String,
    /// Who wrote it.
    pub provider: String,
    /// The number.
    pub id: u32,
    /// The worst level of them: 1 critical to 5 verbose.
    pub level: u8,
    /// What it is about: a service, an update, a bug check; may be empty.
    pub subject: String,
    /// How often.
    pub count: u64,
    /// The oldest.
    #[serde(serialize_with = "time_text")]
    pub first: FileTime,
    /// The newest.
    #[serde(serialize_with = "time_text")]
    pub last: FileTime,
    /// The newest one in words.
    pub text: String,
    /// Times of the newest 1000, newest first: for a plot.
    #[serde(serialize_with = "times_text")]
    pub times: Vec<FileTime>,
    /// The newest ten.
    pub events: Vec<Event>,
}

/// One log that was read.
#[derive(Debug, Clone, Serialize)]
pub struct LogRead {
    /// Its name.
    pub log: String,
    /// Events taken from it.
    pub events: u64,
}

/// What [`boot_events`] found.
#[derive(Debug, Clone, Default)]
pub struct BootEvents {
    /// Groups, that with the newest event first.
    pub groups: Vec<BootGroup>,
    /// The logs that were read.
    pub logs: Vec<LogRead>,
    /// What was damaged in them.
    pub defects: Vec<Defect>,
}

impl BootEvents {
    /// The groups of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &BootGroup> {
        self.groups.iter().filter(move |group| group.kind == Some(kind))
    }

    /// The groups of one number, by a part of the provider's name in lower case.
    pub fn numbered<'a>(&'a self, provider: &'a str, id: u32) -> impl Iterator<Item = &'a BootGroup> {
        self.groups
            .iter()
            .filter(move |group| group.id == id && group.provider.to_lowercase().contains(provider))
    }
}

fn times_text<S: Serializer>(times: &[FileTime], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().map(ToString::to_string))
}

/// The text of an event: its own message, or words of ours, or its parameters.
pub fn words(event: &Event) -> String {
    if let Some(message) = &event.message {
        return message.clone();
    }
    if let Some(known) = known(event) {
        return known.fill(event);
    }
    let data: Vec<String> = event
        .data
        .iter()
        .filter(|datum| !datum.value.is_empty() && datum.name != "Binary")
        .map(|datum| match datum.name.as_str() {
            "" => datum.value.clone(),
            name => format!("{name}={}", datum.value),
        })
        .collect();
    data.join(", ")
}

/// Counts a stream of events by number, provider and subject.
pub fn group(events: impl Iterator<Item = Event>) -> Vec<BootGroup> {
    let mut groups: Vec<BootGroup> = Vec::new();
    let mut places: HashMap<(String, u32, String), usize> = HashMap::new();
    for event in events {
        let known = known(&event);
        let subject = known.map(|known| known.subject_of(&event)).unwrap_or_default();
        let level = if event.level == 0 { 4 } else { event.level };
        let key = (event.provider.clone(), event.id, subject.clone());
        let place = match places.get(&key) {
            Some(place) => *place,
            None if groups.len() >= MAX_GROUPS => continue,
            None => {
                places.insert(key, groups.len());
                groups.push(BootGroup {
                    kind: known.map(|known| known.kind),
                    log: event.log.clone(),
                    provider: event.provider.clone(),
                    id: event.id,
                    level,
                    subject,
                    count: 0,
                    first: event.time,
                    last: event.time,
                    text: words(&event),
                    times: Vec::new(),
                    events: Vec::new(),
                });
                groups.len() - 1
            }
        };
        let group = &mut groups[place];
        group.count += 1;
        group.level = group.level.min(level);
        group.first = group.first.min(event.time);
        group.last = group.last.max(event.time);
        if group.times.len() < KEPT_TIMES {
            group.times.push(event.time);
        }
        if group.events.len() < KEPT {
            group.events.push(event);
        }
    }
    groups.sort_by(|a, b| b.last.cmp(&a.last).then(a.id.cmp(&b.id)));
    groups
}

/// What the logs of an installation say on its starts, stops, crashes, updates, services and disks.
/// Reads the boot's own logs ([`super::BOOT_LOGS`]) whole; messages are words of ours (see [`super::Messages`] for Windows' own).
///
/// # Errors
/// Of reading the folder of logs; damaged logs are in `defects`.
pub fn boot_events(machine: &Machine, installation: &Installation) -> Result<BootEvents> {
    let filter = Filter { boot: true, ..Filter::default() };
    Ok(boot_events_of(Merged::open(machine, installation, &[], &filter)?))
}

/// The same over logs that are open already, with their filter.
pub fn boot_events_of(mut merged: Merged) -> BootEvents {
    let mut counts: Vec<LogRead> = merged.names().into_iter().map(|log| LogRead { log, events: 0 }).collect();
    let groups = group(std::iter::from_fn(|| {
        let event = merged.next()?;
        if let Some(read) = counts.iter_mut().find(|read| read.log.eq_ignore_ascii_case(&event.log)) {
            read.events += 1;
        }
        Some(event)
    }));
    let defects = merged.defects().iter().map(|(log, defect)| in_log(log, defect)).collect();
    BootEvents { groups, logs: counts, defects }
}
