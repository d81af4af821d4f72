//! `disk`: new disks, conversion, children, merging, compacting, resizing.

use super::check::Checked;
use super::identity::say_of_file;
use super::progress::Bars;
use super::{CLEAN, FINDINGS, agreed, say, say_json, size};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_block::{Disk, HostFile};
use vmrescue_disk as disk;
use vmrescue_disk::DiskOptions;
use vmrescue_image as image;
use vmrescue_image::{CreateSpec, Kind, OpenOptions};
use vmrescue_windows::{Machine, Unread, Weight};

const FORMATS: &str = "raw, vhd-fixed, vhd-dynamic, vhdx-fixed, vhdx-dynamic";

/// How images are opened and changed.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Parent of a differencing disk, nearest first; may be repeated
    #[arg(long, value_name = "FILE")]
    parent: Vec<PathBuf>,
    /// Follow the paths that a disk names out of its own folder
    #[arg(long)]
    follow_paths: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// How an image is changed.
#[derive(Debug, Args)]
pub(super) struct Changed {
    #[command(flatten)]
    common: Common,
    /// Stage and verify in memory, write nothing; exit 1 when it would change something
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Folder for journals and history, instead of beside the image
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// `vmrescue disk ...`
#[expect(clippy::large_enum_variant, reason = "one is made in a process")]
#[derive(Debug, Subcommand)]
pub(super) enum DiskCommand {
    /// The container and its chain, without looking at what is on the disk
    Info {
        /// The image
        image: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Check the container and its chain: overlaps, blocks beyond the end, checksums, lost space
    Check {
        /// The image
        image: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Make an empty disk, or a child of another one
    Create {
        /// The new file
        target: PathBuf,
        /// raw, vhd-fixed, vhd-dynamic, vhdx-fixed, vhdx-dynamic; vhd-child and vhdx-child with --parent
        #[arg(long)]
        format: String,
        /// Bytes, or with K, M, G, T; children have the size of their parent
        #[arg(long)]
        size: Option<String>,
        /// Bytes of a block, or with K, M
        #[arg(long)]
        block_size: Option<String>,
        /// Bytes of a sector: 512 or 4096
        #[arg(long, default_value_t = 512)]
        sector_size: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Copy a disk into another format; raw, VHD, VHDX with their chains, qcow2 and VMDK are read
    Convert {
        /// The disk
        source: PathBuf,
        /// The new file; it carries this name only when it is whole
        target: PathBuf,
        /// raw, vhd-fixed, vhd-dynamic, vhdx-fixed, vhdx-dynamic
        #[arg(long)]
        format: String,
        /// Bytes of a block, or with K, M
        #[arg(long)]
        block_size: Option<String>,
        /// Replace a file that is there (never the source or its parents)
        #[arg(long)]
        force: bool,
        /// Try everything but the copying, and make nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Make a child that takes all further changes; the image stays as it is
    Snapshot {
        /// The image
        image: PathBuf,
        /// The child
        child: PathBuf,
        /// Look whether the child can be made, and make nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Write what a child holds into its parent
    Merge {
        /// The differencing disk
        child: PathBuf,
        /// Remove the child afterwards
        #[arg(long)]
        delete_child: bool,
        #[command(flatten)]
        changed: Changed,
    },
    /// Give back blocks that hold nothing
    Compact {
        /// The image
        image: PathBuf,
        /// Only blocks of zeros, not what the file systems say is free
        #[arg(long)]
        zeros_only: bool,
        #[command(flatten)]
        changed: Changed,
    },
    /// Make an empty file system on a volume
    Format(super::format::Format),
    /// Make the virtual disk longer or shorter; partitions keep their sizes
    Resize {
        /// The image
        image: PathBuf,
        /// Bytes, or with K, M, G, T
        size: String,
        #[command(flatten)]
        changed: Changed,
    },
}

/// `10G` in bytes.
pub(super) fn bytes(text: &str) -> Result<u64> {
    let bad = || {
        Error::invalid(Layer::Cli, "invalid size").expected("bytes, or a number with K, M, G, T").found(text)
    };
    let text = text.trim().trim_end_matches(['B', 'b', 'i']);
    let (digits, shift) = match text.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let shift = "KMGT".find(unit.to_ascii_uppercase()).ok_or_else(bad)? as u32 * 10 + 10;
            (&text[..at], shift)
        }
        _ => (text, 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

fn kind(format: &str) -> Result<Kind> {
    Kind::from_name(format)
        .ok_or_else(|| Error::invalid(Layer::Cli, "unknown format").expected(FORMATS).found(format))
}

fn options(common: &Common, state_dir: Option<PathBuf>) -> DiskOptions {
    DiskOptions {
        parents: common.parent.clone(),
        follow_paths: common.follow_paths,
        force: false,
        state_dir,
        command: super::keys::words().skip(1).collect(),
        dry_run: false,
        consent: disk::Consent::default(),
    }
}

/// The question is asked while the image is locked, unless nothing will be written.
fn change_options(changed: &Changed) -> DiskOptions {
    super::stop::clean_up();
    let yes = changed.yes || changed.dry_run;
    DiskOptions {
        dry_run: changed.dry_run,
        consent: disk::Consent::new(move |question| agreed(yes, question)),
        ..options(&changed.common, changed.state_dir.clone())
    }
}

/// Tells how a change of a disk ended: `done` is said of an operation, `nothing` when nothing differs.
fn tell_change(
    changed: &Changed,
    what: &str,
    outcome: &disk::Changed,
    mut document: serde_json::Value,
    (done, nothing): (&str, &str),
) -> Result<u8> {
    document["operation"] = json!(outcome.operation);
    document["dry_run"] = json!(changed.dry_run);
    document["bytes_changed"] = json!(outcome.bytes);
    document["notes"] = json!(outcome.notes);
    if !changed.common.json {
        outcome.notes.iter().for_each(|note| super::say_error(&format!("note: {note}")));
    }
    if outcome.declined {
        tell(&changed.common, what, document, "nothing was written")?;
        return Ok(FINDINGS);
    }
    let would = changed.dry_run && outcome.differs;
    let text = match outcome.operation {
        Some(_) => done.to_string(),
        None if would => {
            format!("would change {} bytes of the image file; nothing was written", outcome.bytes)
        }
        None => nothing.to_string(),
    };
    let code = tell(&changed.common, what, document, &text)?;
    Ok(if would { FINDINGS } else { code })
}

fn tell(common: &Common, what: &str, document: serde_json::Value, text: &str) -> Result<u8> {
    let said = if common.json { say_json(&format!("disk-{what}"), document) } else { say(text) };
    said.map(|()| CLEAN)
}

pub(super) fn disk(command: DiskCommand) -> Result<u8> {
    match command {
        DiskCommand::Info { image, common } => info(&image, &common),
        DiskCommand::Check { image, common } => check(&image, &common),
        DiskCommand::Create { target, format, size, block_size, sector_size, common } => {
            create(&target, &format, size.as_deref(), block_size.as_deref(), sector_size, &common)
        }
        DiskCommand::Convert { source, target, format, block_size, force, dry_run, common } => {
            super::stop::clean_up();
            let block = block_size.as_deref().map(bytes).transpose()?;
            let options = DiskOptions { force, dry_run, ..options(&common, None) };
            let holes = disk::convert(&source, &target, kind(&format)?, block, &options, &Bars::new())?;
            if dry_run {
                return would_make(&common, "convert", &target, json!({"format": format}));
            }
            if !holes.is_empty() {
                return tell_holes(&source, &target, &format, &holes, &common);
            }
            let length = std::fs::metadata(&target).map_or(0, |m| m.len());
            let text = format!("{} ({format}, {})", target.display(), size(length));
            tell(
                &common,
                "convert",
                json!({"target": target.display().to_string(), "format": format, "file_size": length}),
                &text,
            )
        }
        DiskCommand::Snapshot { image, child, dry_run, common } => {
            super::stop::clean_up();
            if dry_run {
                disk::check_child(&image, &child)?;
                return would_make(&common, "snapshot", &child, json!({"parent": image}));
            }
            disk::child_of(&image, &child)?.finish()?;
            let text = format!("{} is a child of {}", child.display(), image.display());
            tell(&common, "snapshot", json!({"child": child, "parent": image}), &text)
        }
        DiskCommand::Merge { child, delete_child, changed } => merge(&child, delete_child, &changed),
        DiskCommand::Compact { image, zeros_only, changed } => compact(&image, zeros_only, &changed),
        DiskCommand::Format(format) => super::format::format(&format),
        DiskCommand::Resize { image, size, changed } => {
            let size = bytes(&size)?;
            let outcome = disk::resize(&image, size, &change_options(&changed), &Bars::new())?;
            let done = way_back(&outcome, &image);
            let texts = (done.as_str(), "nothing to do: the disk has this size");
            tell_change(&changed, "resize", &outcome, json!({"size": size}), texts)
        }
    }
}

/// "done: operation 0007; to undo: ..."
fn way_back(outcome: &disk::Changed, image: &Path) -> String {
    let id = outcome.operation.map(|id| id.to_string()).unwrap_or_default();
    format!("done: operation {id}; to undo: vmrescue undo {}", image.display())
}

/// What a dry run says of a file that would be made.
fn would_make(common: &Common, what: &str, target: &Path, mut document: serde_json::Value) -> Result<u8> {
    document["target"] = json!(target);
    document["dry_run"] = json!(true);
    tell(common, what, document, &format!("would make {}; nothing was written", target.display()))?;
    Ok(FINDINGS)
}

/// A copy that lacks what its source has lost.
fn tell_holes(
    source: &Path,
    target: &Path,
    format: &str,
    holes: &[std::ops::Range<u64>],
    common: &Common,
) -> Result<u8> {
    let lost: u64 = holes.iter().map(|hole| hole.end - hole.start).sum();
    if common.json {
        let list: Vec<serde_json::Value> =
            holes.iter().map(|hole| json!({"offset": hole.start, "size": hole.end - hole.start})).collect();
        let document = json!({"target": target.display().to_string(), "format": format, "lost": list, "lost_bytes": lost});
        return say_json("disk-convert", document).map(|()| FINDINGS);
    }
    say(&format!(
        "{} ({format}); {} of the disk are lost in {}:",
        target.display(),
        size(lost),
        source.display()
    ))?;
    for hole in holes {
        say(&format!(
            "  lost  {} at {:#x} of the disk: zeros in the copy",
            size(hole.end - hole.start),
            hole.start
        ))?;
    }
    Ok(FINDINGS)
}

/// The image and its parents, nearest first.
fn chain(image: &Path, common: &Common) -> Result<Vec<PathBuf>> {
    super::history::tell_unfinished(image);
    let opening = OpenOptions { parents: common.parent.clone(), follow_paths: common.follow_paths };
    let mut chain = vec![image.to_path_buf()];
    chain.extend(image::parents(image, &opening)?);
    Ok(chain)
}

fn host_disk(path: &Path) -> Result<Disk> {
    Ok(Disk::new(Arc::new(HostFile::open_read(path)?)))
}

fn info(path: &Path, common: &Common) -> Result<u8> {
    let mut infos = Vec::new();
    for file in chain(path, common)? {
        infos.push((file.clone(), image::info(&host_disk(&file)?).map_err(|e| e.in_file(&file))?));
    }
    if common.json {
        let list: Vec<serde_json::Value> =
            infos.iter().map(|(file, info)| json!({"file": file, "container": info})).collect();
        say_of_file(path, "disk-info", json!({"chain": list}))?;
        return Ok(CLEAN);
    }
    for (file, info) in infos {
        let what = format!("{:?} {:?}", info.format, info.variant).to_lowercase();
        say(&format!("{}", file.display()))?;
        say(&format!("  {what}, disk {}, file {}", size(info.size), size(info.file_size)))?;
        if let Some(block) = info.block_bytes {
            say(&format!("  blocks of {}, sectors of {} bytes", size(block), info.logical_sector_bytes))?;
        }
        for (name, text) in
            [("identity", &info.identity), ("content", &info.content_identity), ("made by", &info.creator)]
        {
            if let Some(text) = text {
                say(&format!("  {name}  {text}"))?;
            }
        }
        if info.log_replayed {
            say("  the log is not empty: it is replayed in memory")?;
        }
    }
    Ok(CLEAN)
}

fn check(path: &Path, common: &Common) -> Result<u8> {
    super::history::tell_unfinished(path);
    let opening = OpenOptions { parents: common.parent.clone(), follow_paths: common.follow_paths };
    let mut found = Checked::default();
    let lists = super::check::containers(path, &opening, &mut found);
    if found.checked.is_empty() && !lists.is_empty() {
        content_of_raw(path, &opening, &mut found);
    }
    let (code, ..) = found.verdict();
    if common.json {
        let line = |file: &PathBuf, defect: &vmrescue_base::Defect| {
            let mut line = super::look::defect_json(defect);
            line["file"] = json!(file);
            line
        };
        let list: Vec<serde_json::Value> = lists
            .iter()
            .flat_map(|(file, defects)| defects.iter().map(move |defect| line(file, defect)))
            .collect();
        let mut document = json!({"defects": list});
        if let (Some(all), serde_json::Value::Object(more)) = (document.as_object_mut(), found.json()) {
            all.extend(more);
        }
        say_of_file(path, "disk-check", document)?;
        return Ok(code);
    }
    for (file, defects) in &lists {
        let mut lines = defects.iter();
        lines.try_for_each(|defect| {
            say(&format!("{}: {defect} in {}", defect.severity.name(), file.display()))
        })?;
    }
    found.say_end()?;
    Ok(code)
}

/// A raw image has no container that could be damaged: what is recognised in it says at least that it is a disk.
fn content_of_raw(path: &Path, opening: &OpenOptions, found: &mut Checked) {
    let looked = image::open_path(path, opening).and_then(|container| Machine::open(container.disk));
    let place = path.display().to_string();
    let Some(machine) = found.unseen.seen("the disk", &place, Weight::Critical, looked) else { return };
    let table = format!("{:?}", machine.table.kind).to_uppercase();
    let kinds: Vec<&str> = machine.volumes.iter().filter_map(|v| Some(v.fs.as_ref()?.info().kind)).collect();
    let locked = machine.volumes.iter().any(|volume| volume.bitlocker.is_some());
    if !machine.table.partitions.is_empty() || !kinds.is_empty() || locked {
        let what = if machine.table.partitions.is_empty() {
            "a volume".into()
        } else {
            format!("{table} with partitions")
        };
        let list = kinds.join(", ");
        found
            .checked
            .push(format!("{place}: raw; {what} in it ({list}), whose contents `vmrescue check` checks"));
    } else {
        let why = "raw, and neither a partition table nor a file system was recognised in it";
        let advice = "look for volumes: vmrescue info --scan IMAGE";
        found.unseen.note(Unread::new("the disk", place, why, Weight::Critical).advise(advice));
    }
}

fn create(
    target: &Path,
    format: &str,
    size: Option<&str>,
    block_size: Option<&str>,
    sector_size: u32,
    common: &Common,
) -> Result<u8> {
    super::stop::clean_up();
    if let Some(family) = format.to_ascii_lowercase().strip_suffix("-child") {
        let parent = common.parent.first().ok_or_else(|| {
            Error::invalid(Layer::Cli, "a child needs its parent").advice("add --parent FILE")
        })?;
        let info = image::info(&host_disk(parent)?)?;
        let found = format!("{:?}", info.format).to_lowercase();
        if found != family {
            return Err(Error::invalid(Layer::Cli, "a child has the format of its parent")
                .expected(format!("{found}-child"))
                .found(format));
        }
        disk::child_of(parent, target)?.finish()?;
    } else {
        let size = size.ok_or_else(|| {
            Error::invalid(Layer::Cli, "a new disk needs a size").advice("add --size 64G, or so")
        })?;
        let block_bytes = block_size.map(bytes).transpose()?;
        let spec = CreateSpec {
            kind: kind(format)?,
            size: bytes(size)?,
            block_bytes,
            logical_sector_bytes: sector_size,
        };
        disk::create_disk(target, &spec)?;
    }
    let text = format!("{} ({format})", target.display());
    tell(common, "create", json!({"target": target.display().to_string(), "format": format}), &text)
}

fn merge(child: &Path, delete_child: bool, changed: &Changed) -> Result<u8> {
    let merged = disk::merge(child, &change_options(changed), &Bars::new())?;
    if delete_child && !changed.dry_run && !merged.changed.declined {
        std::fs::remove_file(child).map_err(|e| Error::io("cannot be removed", child, e))?;
    }
    let parent = merged.parent.display();
    let nothing = format!("nothing to do: {} holds nothing that {parent} does not have", child.display());
    let done = format!(
        "{}\n  merged {} into {parent}\n  {}",
        way_back(&merged.changed, &merged.parent),
        size(merged.bytes),
        if delete_child { "the child was removed" } else { "the child is no longer needed; remove it" },
    );
    let document = json!({"parent": merged.parent, "bytes": merged.bytes});
    tell_change(changed, "merge", &merged.changed, document, (&done, &nothing))
}

fn compact(image: &Path, zeros_only: bool, changed: &Changed) -> Result<u8> {
    let (done, outcome) = disk::compact(image, zeros_only, &change_options(changed), &Bars::new())?;
    let text = format!("{}\n  {} to {}", way_back(&outcome, image), size(done.before), size(done.after));
    let document = json!({"before": done.before, "after": done.after, "dropped_blocks": done.dropped_blocks});
    tell_change(changed, "compact", &outcome, document, (&text, "nothing to do: every block holds something"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_taken_with_their_units() {
        assert_eq!(bytes("512").unwrap(), 512);
        assert_eq!(bytes("10G").unwrap(), 10 << 30);
        assert_eq!(bytes("64 MiB").unwrap(), 64 << 20);
        assert!(bytes("ten").is_err() && bytes("99999999T").is_err());
    }
}
