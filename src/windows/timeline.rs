//! Everything on a disk that has a time, as one sorted list: file times (NTFS: those of the file and those kept with its name), the times
//! of registry keys, events.
//!
//! The list is kept compactly in memory: a time is 16 bytes, a subject its text and 28 bytes, so that a volume of 120,000 files with its
//! hives and logs stays far below 200 MB. Times of one file that are the same are one entry, as `mactime` of The Sleuth Kit shows them.
//! Deleted files are not shown, and no change journal.

use super::events::{Filter, Reader, Source, logs, words};
use super::{HIVES, Installation, Machine, hive_of};
use std::collections::HashSet;
use vmrescue_base::error::{Defect, ErrorKind, Layer, Result, Severity};
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_base::time::FileTime;
use vmrescue_fs::{FileSystem, NodeId, NodeKind, Order, Times, resolve};
use vmrescue_registry::{Hive, Key};

/// The kinds of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// Times of a file.
    File,
    /// Times that NTFS keeps with a name ($FILE_NAME).
    Name,
    /// When a registry key was last written.
    Registry,
    /// When an event was written.
    Event,
}

impl SourceKind {
    /// The word that stands in output.
    pub fn name(self) -> &'static str {
        match self {
            SourceKind::File => "file",
            SourceKind::Name => "file-name",
            SourceKind::Registry => "registry",
            SourceKind::Event => "event",
        }
    }
}

/// Which of a subject's times an entry is: a set of these bits.
pub mod macb {
    /// Data modified; keys and events have only this one.
    pub const MODIFIED: u8 = 1;
    /// Accessed.
    pub const ACCESSED: u8 = 2;
    /// Record changed.
    pub const CHANGED: u8 = 4;
    /// Born: created.
    pub const BORN: u8 = 8;
}

/// A subject as a visitor sees it, with all of its times.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Where it comes from.
    pub kind: SourceKind,
    /// Path, key or the event in words.
    pub text: &'a str,
    /// Record number of a file, record id of an event, 0 for keys.
    pub id: u64,
    /// Bytes of a file.
    pub size_bytes: u64,
    /// A directory.
    pub directory: bool,
    /// The times; keys and events have `modified` only.
    pub times: Times,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Times of files and of their names.
    pub files: bool,
    /// Registry keys.
    pub registry: bool,
    /// Events.
    pub events: bool,
    /// Not before.
    pub since: Option<FileTime>,
    /// Not after.
    pub until: Option<FileTime>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted { files: true, registry: true, events: true, since: None, until: None }
    }
}

/// Shows every subject to `visit`, in no order of time: files by volume, then hives, then logs.
/// What cannot be read is returned as defects.
///
/// # Errors
/// Of `visit`.
pub fn subjects(
    machine: &Machine,
    wanted: &Wanted,
    visit: &mut dyn FnMut(&Subject<'_>) -> Result<()>,
) -> Result<Vec<Defect>> {
    let mut defects = Vec::new();
    if wanted.files {
        for volume in &machine.volumes {
            let Some(fs) = &volume.fs else { continue };
            let place =
                volume.letter.map_or_else(|| format!("#{}:", volume.number), |letter| format!("{letter}:"));
            defects.extend(files(&**fs, &place, visit)?);
        }
    }
    if wanted.registry {
        for (name, hive) in hives(machine, &mut defects) {
            let mut path = name;
            keys(&hive.root(), &mut path, &mut HashSet::new(), 0, visit)?;
        }
    }
    if wanted.events {
        for installation in &machine.installations {
            events(machine, installation, wanted, &mut defects, visit)?;
        }
    }
    Ok(defects)
}

fn files(
    fs: &dyn FileSystem,
    place: &str,
    visit: &mut dyn FnMut(&Subject<'_>) -> Result<()>,
) -> Result<Vec<Defect>> {
    let mut text = String::new();
    fs.walk(fs.root(), Order::Any, &mut |file| {
        text.clear();
        text.extend([place, "\\", file.path]);
        let directory = file.kind == NodeKind::Directory;
        let mut subject = Subject {
            kind: SourceKind::File,
            text: &text,
            id: file.id.0 & 0xffff_ffff_ffff,
            size_bytes: file.size_bytes,
            directory,
            times: file.times,
        };
        visit(&subject)?;
        if let Some(times) = file.name_times {
            (subject.kind, subject.times) = (SourceKind::Name, times);
            visit(&subject)?;
        }
        Ok(())
    })
}

/// All hives of all installations: those of the machine, of the users, and Amcache. A hive is in memory only while it is walked.
fn hives<'m>(
    machine: &'m Machine,
    defects: &'m mut Vec<Defect>,
) -> impl Iterator<Item = (String, Hive)> + 'm {
    let mut places: Vec<(usize, NodeId, String, String)> = Vec::new();
    for installation in &machine.installations {
        // An installation was found on a volume that can be read.
        let Ok(fs) = machine.file_system(installation.volume) else { continue };
        let find = |steps: &[&str], defects: &mut Vec<Defect>| match resolve(&*fs, steps) {
            Ok(found) => found,
            Err(e) => {
                defects.push(Defect::from_error("folder-unreadable", Severity::Error, &e));
                None
            }
        };
        let mut add = |steps: &[&str], file: &str, root: String, defects: &mut Vec<Defect>| {
            if let Some(folder) = find(steps, defects) {
                places.push((installation.volume, folder, file.to_string(), root));
            }
        };
        for hive in HIVES {
            add(&["Windows", "System32", "config"], hive, format!(r"HKLM\{hive}"), defects);
        }
        add(&["Windows", "AppCompat", "Programs"], "Amcache.hve", "Amcache".into(), defects);
        for profiles in ["Users", "Documents and Settings"] {
            let Some(users) = find(&[profiles], defects) else { continue };
            let users = fs.read_dir(users).unwrap_or_else(|e| {
                defects.push(Defect::from_error("folder-unreadable", Severity::Error, &e));
                Vec::new()
            });
            for user in users {
                if user.kind == NodeKind::Directory {
                    let name = user.name.as_str();
                    add(&[profiles, name], "NTUSER.DAT", format!(r"HKU\{name}"), defects);
                    add(
                        &[profiles, name, "AppData", "Local", "Microsoft", "Windows"],
                        "UsrClass.dat",
                        format!(r"HKU\{name}_Classes"),
                        defects,
                    );
                }
            }
        }
    }
    places.into_iter().filter_map(move |(volume, folder, file, root)| {
        let fs = machine.file_system(volume).ok()?;
        match hive_of(&*fs, folder, &file) {
            Ok(hive) => Some((root, hive)),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => {
                defects.push(Defect::from_error("hive-unreadable", Severity::Error, &e));
                None
            }
        }
    })
}

fn keys(
    key: &Key<'_>,
    path: &mut String,
    seen: &mut HashSet<u64>,
    depth: usize,
    visit: &mut dyn FnMut(&Subject<'_>) -> Result<()>,
) -> Result<()> {
    // Damaged lists can lead in circles.
    if depth > MAX_KEY_DEPTH || !seen.insert(key.file_offset()) {
        return Ok(());
    }
    let times = Times { modified: key.last_written(), ..Times::default() };
    visit(&Subject {
        kind: SourceKind::Registry,
        text: path,
        id: 0,
        size_bytes: 0,
        directory: false,
        times,
    })?;
    for child in key.subkeys_lenient().0 {
        let length = path.len();
        path.push('\\');
        path.push_str(&child.name());
        keys(&child, path, seen, depth + 1, visit)?;
        path.truncate(length);
    }
    Ok(())
}

fn events(
    machine: &Machine,
    installation: &Installation,
    wanted: &Wanted,
    defects: &mut Vec<Defect>,
    visit: &mut dyn FnMut(&Subject<'_>) -> Result<()>,
) -> Result<()> {
    let fs = machine.file_system(installation.volume)?;
    let filter = Filter { since: wanted.since, until: wanted.until, ..Filter::default() };
    let list = match logs(machine, installation) {
        Ok(list) => list,
        Err(e) => {
            defects.push(Defect::from_error("event-log-unreadable", Severity::Error, &e));
            return Ok(());
        }
    };
    for log in list {
        let mut reader =
            match Source::node(&fs, log.node).and_then(|source| Reader::open(source, &log.name, &filter)) {
                Ok(reader) => reader,
                Err(e) => {
                    defects.push(Defect::from_error("event-log-unreadable", Severity::Error, &e));
                    continue;
                }
            };
        for event in reader.by_ref() {
            let said: String =
                words(&event).split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect();
            let text = format!("{} {} {}: {said}", event.log, event.provider, event.id);
            let times = Times { modified: event.time, ..Times::default() };
            let id = event.record_id;
            visit(&Subject {
                kind: SourceKind::Event,
                text: &text,
                id,
                size_bytes: 0,
                directory: false,
                times,
            })?;
        }
        for defect in reader.defects() {
            let detail = format!("{}: {}", log.name, defect.detail);
            defects.push(Defect::new(defect.code, defect.severity, Layer::EventLog, defect.offset, detail));
        }
    }
    Ok(())
}

/// When the machine last lived: the newest event of the log System, else the newest time of the keys right below the root of SYSTEM.
pub fn last_life(machine: &Machine) -> Option<FileTime> {
    let mut newest = None;
    for installation in &machine.installations {
        let fs = machine.file_system(installation.volume).ok()?;
        let system = logs(machine, installation)
            .unwrap_or_default()
            .into_iter()
            .find(|log| log.name.eq_ignore_ascii_case("System"));
        let reader = system.and_then(|log| {
            Reader::open(Source::node(&fs, log.node).ok()?, &log.name, &Filter::default()).ok()
        });
        let event = reader.and_then(|mut reader| reader.peek().map(|event| event.time));
        let key = || {
            let hive = machine.hive(installation, "SYSTEM").ok()?;
            hive.root().subkeys_lenient().0.iter().map(Key::last_written).max()
        };
        newest = newest.max(event.or_else(key));
    }
    newest
}

/// One line: a time of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The time.
    pub time: FileTime,
    /// Which of the subject's times this is: bits of [`macb`].
    pub which: u8,
    /// Where it comes from.
    pub kind: SourceKind,
    /// Path, key or the event in words.
    pub text: &'a str,
    /// As [`Subject::id`].
    pub id: u64,
    /// As [`Subject::size_bytes`].
    pub size_bytes: u64,
}

struct Row {
    at: usize,
    length: u32,
    id: u64,
    size_bytes: u64,
}

/// All times, sorted.
#[derive(Default)]
pub struct Timeline {
    text: String,
    rows: Vec<Row>,
    /// Time, row, kind and bits.
    times: Vec<(u64, u32, SourceKind, u8)>,
    /// What could not be read.
    pub defects: Vec<Defect>,
}

impl Timeline {
    /// Gathers everything that is wanted.
    ///
    /// # Errors
    /// `Limit` beyond 2^32 subjects.
    pub fn of(machine: &Machine, wanted: &Wanted) -> Result<Timeline> {
        let mut all = Timeline::default();
        let defects = subjects(machine, wanted, &mut |subject| all.add(subject, wanted))?;
        all.defects = defects;
        all.times.sort_unstable();
        Ok(all)
    }

    fn add(&mut self, subject: &Subject<'_>, wanted: &Wanted) -> Result<()> {
        let times = &subject.times;
        let four = [
            (times.modified, macb::MODIFIED),
            (times.accessed, macb::ACCESSED),
            (times.changed, macb::CHANGED),
            (times.created, macb::BORN),
        ];
        let mut row = None;
        for (place, (time, _)) in four.iter().enumerate() {
            let within = wanted.since.is_none_or(|since| *time >= since)
                && wanted.until.is_none_or(|until| *time <= until);
            if time.is_zero() || !within || four[..place].iter().any(|(earlier, _)| earlier == time) {
                continue;
            }
            let bits = four.iter().filter(|(other, _)| other == time).fold(0, |bits, (_, bit)| bits | bit);
            let row = match row {
                Some(row) => row,
                None => *row.insert(self.row(subject)?),
            };
            self.times.push((time.0, row, subject.kind, bits));
        }
        Ok(())
    }

    fn row(&mut self, subject: &Subject<'_>) -> Result<u32> {
        // The times of a name come right behind those of its file: one text for both.
        let same = self
            .rows
            .last()
            .filter(|row| subject.kind == SourceKind::Name && self.text.get(row.at..) == Some(subject.text));
        if same.is_none() {
            let at = self.text.len();
            self.text.push_str(subject.text);
            // A path has at most 32,767 characters, an event's words are cut.
            self.rows.push(Row {
                at,
                length: subject.text.len() as u32,
                id: subject.id,
                size_bytes: subject.size_bytes,
            });
        }
        u32::try_from(self.rows.len() - 1)
            .map_err(|_| vmrescue_base::Error::limit(Layer::Windows, "entries of a timeline"))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.times.iter().filter_map(|(time, row, kind, which)| {
            let row = self.rows.get(*row as usize)?;
            let text = self.text.get(row.at..row.at + row.length as usize)?;
            Some(Entry {
                time: FileTime(*time),
                which: *which,
                kind: *kind,
                text,
                id: row.id,
                size_bytes: row.size_bytes,
            })
        })
    }
}
