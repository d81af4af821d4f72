//! `inspect`: everything about the disk and its installations; and the HTML report, which `diagnose` writes too.

use super::identity::{self, say_of, tell};
use super::output::Output;
use super::{CLEAN, Image, look, say, size};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_block::Disk;
use vmrescue_diagnose::{Diagnosis, Readings, look_at_disk};
use vmrescue_image::Container;
use vmrescue_report::html::{Page, PageEvent, html};
use vmrescue_report::{Inspection, text};
use vmrescue_windows::events::{BootEvents, Kind, boot_events};
use vmrescue_windows::{Installation, Machine, Unseen, Weight, services_seen, updates};

/// What `inspect` takes.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    image: Image,
    /// Print how much was read from the image
    #[arg(long)]
    io: bool,
    #[command(flatten)]
    page: PageArgs,
}

/// How a report is written.
#[derive(Debug, Args)]
pub(super) struct PageArgs {
    /// Write a report as one self-contained HTML file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn inspect(args: &InspectArgs) -> Result<u8> {
    let image = &args.image;
    let (container, machine, counts) = look::open(image)?;
    if image.windows.is_some() {
        machine.installation(image.windows)?;
    }
    let inspection = Inspection::new(&container, &machine);
    let read = counts.bytes.load(Ordering::Relaxed);
    if let Some(file) = &args.page.html {
        let defects = look::container_defects(image, &container);
        let all = super::diagnose::looked(image, &machine, &defects, &[]);
        // A disk that is locked has a page, too.
        let all = match all {
            Err(e) if e.kind() == ErrorKind::Refused => vec![look_at_disk(&machine, &defects)],
            all => all?,
        };
        write_page(image, &machine, &inspection, (file, args.page.output), all)?;
    }
    if image.json {
        let mut document = serde_json::to_value(&inspection)
            .map_err(|e| Error::invalid(Layer::Cli, "JSON cannot be written").caused_by(e))?;
        document["bytes_read"] = serde_json::json!(read);
        say_of(image, "inspect", document)?;
        return Ok(CLEAN);
    }
    if let Some(file) = &args.page.html {
        say(&format!("report written to {}", file.display()))?;
        return Ok(CLEAN);
    }
    say(&text(&inspection, &image.image.display().to_string()))?;
    tell(image)?;
    if args.io {
        say(&format!("  read          {} in {} reads", size(read), counts.reads.load(Ordering::Relaxed)))?;
    }
    Ok(CLEAN)
}

/// The report of an open disk.
pub(super) fn report(
    image: &Image,
    container: &Container<Disk>,
    machine: &Machine,
    file: (&Path, Output),
    diagnoses: Vec<Diagnosis>,
) -> Result<()> {
    write_page(image, machine, &Inspection::new(container, machine), file, diagnoses)
}

fn write_page(
    image: &Image,
    machine: &Machine,
    inspection: &Inspection,
    (file, output): (&Path, Output),
    diagnoses: Vec<Diagnosis>,
) -> Result<()> {
    let rules = output.rules(image)?;
    rules.check(file)?;
    // What the rules have read is not read again. An installation that was not asked for is not in them.
    let (read, notes): (Vec<Arc<Readings>>, Vec<Vec<String>>) = (1..)
        .zip(&machine.installations)
        .map(|(number, installation)| {
            let own = diagnoses.iter().find(|one| one.windows == Some(number));
            match own.and_then(|one| one.read.clone()) {
                Some(read) => (read, Vec::new()),
                None => undiagnosed(machine, installation, number),
            }
        })
        .unzip();
    let sha256 = if image.hash { identity::image(image)?["sha256"].clone() } else { Value::Null };
    let page = Page {
        inspection,
        diagnoses,
        services: read.iter().map(|read| read.services.clone()).collect(),
        updates: read.iter().map(|read| read.updates.clone()).collect(),
        events: read.iter().map(|read| happenings(&read.events)).collect(),
        notes,
        image: image.image.display().to_string(),
        sha256: sha256.as_str().map(String::from),
        made: FileTime::now(),
    };
    rules.write(file, html(&page).as_bytes())
}

/// What the page tells of an installation that was not diagnosed, and what of it could not be read: nothing else on the page says so.
fn undiagnosed(
    machine: &Machine,
    installation: &Installation,
    number: usize,
) -> (Arc<Readings>, Vec<String>) {
    let set = installation.control_sets.default.max(1);
    let unseen = Unseen::default();
    let hive = machine.hive(installation, "SYSTEM");
    let list = hive.and_then(|hive| services_seen(machine, installation, &hive, set, true, &unseen));
    let services = unseen.seen("services and drivers", &installation.path, Weight::Critical, list);
    let updates = updates(machine, installation);
    let updates = unseen.seen("packages and pending updates", &installation.path, Weight::Partial, updates);
    let events = boot_events(machine, installation);
    let events = unseen.seen("event logs", &installation.path, Weight::Partial, events);
    let mut notes = vec![format!(
        "This installation was not diagnosed; to do it: vmrescue diagnose IMAGE --windows {number}"
    )];
    let mut found = unseen.list();
    found.extend(updates.iter().flat_map(|updates| updates.unread.iter().cloned()));
    notes.extend(found.iter().map(|unread| format!("Could not be read: {unread}")));
    // What is missing of these three stands in the notes.
    let read = Readings {
        services: services.unwrap_or_default(),
        updates: updates.unwrap_or_default(),
        events: events.unwrap_or_default(),
    };
    (Arc::new(read), notes)
}

/// Starts, stops and crashes that the event logs tell.
fn happenings(events: &BootEvents) -> Vec<PageEvent> {
    let groups = [Kind::Crash, Kind::Start, Kind::Shutdown].into_iter();
    let groups = groups.flat_map(|kind| events.of(kind).map(move |group| (kind == Kind::Crash, group)));
    let all = groups.flat_map(|(crash, group)| {
        let text = format!("{} {}: {}", group.provider, group.id, group.text);
        group.times.iter().map(move |time| PageEvent { time: *time, crash, text: text.clone() })
    });
    all.collect()
}
