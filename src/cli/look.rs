//! Commands that only look: the image is opened for reading and never written.

use super::identity::{say_of, tell};
use super::progress::Bars;
use super::times::{time_text, times_json};
use super::{CLEAN, Image, say, size, written};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_block::testing::{CountingDevice, Counts};
use vmrescue_block::{Disk, HostFile};
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{Depth, FileSystem, FoundVolume, NodeId, NodeKind};
use vmrescue_image as image;
use vmrescue_image::{Container, OpenOptions};
use vmrescue_windows::{Installation, Machine, open_with_lost};

/// The container and the machine in it, and what was read of the file.
pub(super) fn open(image: &Image) -> Result<(Container<Disk>, Machine, Arc<Counts>)> {
    let file = Disk::new(Arc::new(HostFile::open_read(&image.image)?));
    super::history::tell_unfinished(&image.image);
    let (counting, counts) = CountingDevice::new(file);
    let options = OpenOptions { parents: image.parent.clone(), follow_paths: image.follow_paths };
    let container = image::open_file(&Disk::new(counting), &image.image, &options)?;
    let machine = if image.scan {
        open_scanned(image, &container)?.0
    } else {
        Machine::open_with(container.disk.clone(), &image.keys()?)?
    };
    Ok((container, machine, counts))
}

/// The machine with the volumes that a search finds on the disk.
fn open_scanned(image: &Image, container: &Container<Disk>) -> Result<(Machine, Vec<FoundVolume>)> {
    open_with_lost(container.disk.clone(), &image.keys()?, Depth::Deep, &Bars::new())
}

fn found_json(found: &FoundVolume) -> Value {
    json!({"offset": found.range.start, "size": found.range.end - found.range.start, "kind": found.kind,
        "label": found.label, "evidence": found.evidence, "boot_sector_rebuilt": found.boot_sector.is_some()})
}

fn say_found(image: &Image, found: &[FoundVolume]) -> Result<()> {
    if found.is_empty() {
        return say("  search        no volume was found outside the partitions");
    }
    for volume in found {
        let bytes = size(volume.range.end - volume.range.start);
        say(&format!(
            "  found         {} {:?}, {bytes} at {:#x}",
            volume.kind, volume.label, volume.range.start
        ))?;
        volume.evidence.iter().try_for_each(|line| say(&format!("                {line}")))?;
    }
    let words = super::next::Words::of(image, None);
    say(&format!("  next          {}", words.command("partition restore", &["--dry-run"])))
}

pub(super) fn defect_json(defect: &Defect) -> Value {
    json!({
        "code": defect.code,
        "severity": defect.severity.name(),
        "layer": defect.layer.name(),
        "offset": defect.offset.map(|offset| format!("{offset:#x}")),
        "detail": defect.detail,
    })
}

fn installation_json(installation: &Installation) -> Value {
    let sets = installation.control_sets;
    json!({
        "path": installation.path,
        "product": installation.product,
        "edition": installation.edition,
        "display_version": installation.display_version,
        "build": installation.build,
        "ubr": installation.ubr,
        "architecture": installation.architecture,
        "computer_name": installation.computer_name,
        "control_sets": {
            "current": sets.current,
            "default": sets.default,
            "failed": sets.failed,
            "last_known_good": sets.last_known_good,
        },
        "problems": installation.problems,
    })
}

fn info_json(container: &Container<Disk>, machine: &Machine) -> Value {
    let partitions: Vec<Value> = machine
        .table
        .partitions
        .iter()
        .map(|p| {
            json!({
                "number": p.number, "offset": p.range.start, "size": p.range.end - p.range.start,
                "type": p.type_name, "type_guid": p.type_guid.map(|g| g.to_string()), "mbr_type": p.mbr_type,
                "unique_guid": p.unique_guid.map(|g| g.to_string()), "name": p.name, "active": p.active,
            })
        })
        .collect();
    let volumes: Vec<Value> = machine
        .volumes
        .iter()
        .map(|volume| {
            let info = volume.fs.as_ref().map(|fs| fs.info());
            json!({
                "number": volume.number, "letter": volume.letter, "system": volume.system,
                "file_system": info.as_ref().map(|i| i.kind), "label": info.as_ref().map(|i| i.label.clone()),
                "size": volume.range.end - volume.range.start,
                "cluster_bytes": info.as_ref().map(|i| i.cluster_bytes),
                "dirty": info.as_ref().map(|i| i.dirty), "error": volume.error,
                "state": super::state::json_of(volume), "bitlocker": volume.bitlocker,
            })
        })
        .collect();
    let installations: Vec<Value> = machine.installations.iter().map(installation_json).collect();
    let defects: Vec<Value> = container.defects.iter().chain(&machine.defects).map(defect_json).collect();
    json!({
        "container": container.info,
        "partition_table": {"kind": machine.table.kind, "disk_id": machine.table.disk_id, "sector_bytes": machine.table.sector_bytes},
        "partitions": partitions, "volumes": volumes, "installations": installations, "defects": defects,
    })
}

pub(super) fn info(image: &Image) -> Result<u8> {
    if !image.scan {
        let (container, machine, _) = open(image)?;
        if image.json {
            say_of(image, "info", info_json(&container, &machine))?;
        } else {
            say_info(image, &container, &machine)?;
        }
        return Ok(CLEAN);
    }
    let file = Disk::new(Arc::new(HostFile::open_read(&image.image)?));
    let options = OpenOptions { parents: image.parent.clone(), follow_paths: image.follow_paths };
    let container = image::open_file(&file, &image.image, &options)?;
    let (machine, found) = open_scanned(image, &container)?;
    if image.json {
        let mut document = info_json(&container, &machine);
        document["found"] = found.iter().map(found_json).collect();
        say_of(image, "info", document)?;
    } else {
        say_info(image, &container, &machine)?;
        say_found(image, &found)?;
    }
    Ok(CLEAN)
}

fn say_info(image: &Image, container: &Container<Disk>, machine: &Machine) -> Result<()> {
    let info = &container.info;
    tell(image)?;
    say(&format!("{}", image.image.display()))?;
    let variant = format!("{:?} {:?}", info.format, info.variant).to_lowercase();
    say(&format!("  container     {variant}, disk {}, file {}", size(info.size), size(info.file_size)))?;
    if info.log_replayed {
        say("  log           replayed in memory; the file was not closed cleanly")?;
    }
    if let Some(parent) = &info.parent {
        say(&format!("  parent        {parent}"))?;
    }
    let kind = format!("{:?}", machine.table.kind).to_uppercase();
    say(&format!("  partitions    {kind} {}", machine.table.disk_id.as_deref().unwrap_or("")))?;
    for volume in &machine.volumes {
        let letter = volume.letter.map_or("  ".to_string(), |letter| format!("{letter}:"));
        let kind = volume.partition.as_ref().map_or("whole disk", |p| p.type_name.as_str());
        let fs = match &volume.fs {
            Some(fs) => format!("{} {:?}", fs.info().kind, fs.info().label),
            None => "-".into(),
        };
        let bitlocker = volume.bitlocker.as_ref().map(|found| match found.locked {
            true => found.locked_text(),
            false => found.open_text(),
        });
        let bytes = size(volume.range.end - volume.range.start);
        say(&format!("  #{}  {letter}  {bytes:>11}  {kind:<20} {fs}", volume.number))?;
        bitlocker.map_or(Ok(()), |line| say(&format!("          {line}")))?;
        super::state::lines_of(volume).iter().try_for_each(|line| say(&format!("          {line}")))?;
    }
    for installation in &machine.installations {
        say(&describe(installation))?;
    }
    for defect in container.defects.iter().chain(&machine.defects) {
        say(&format!("  {}: {defect}", defect.severity.name()))?;
    }
    Ok(())
}

pub(super) fn describe(i: &Installation) -> String {
    let version =
        if i.display_version.is_empty() { String::new() } else { format!(" {}", i.display_version) };
    format!(
        "  {}  {}{version}, build {}.{}, {}, {}",
        i.path, i.product, i.build, i.ubr, i.architecture, i.computer_name
    )
}

/// Defects as lines or as one document.
pub(super) fn say_defects(image: &Image, defects: &[Defect]) -> Result<()> {
    if image.json {
        let list: Vec<Value> = defects.iter().map(defect_json).collect();
        say_of(image, "check", json!({"defects": list}))
    } else if defects.is_empty() {
        say("no damage found")
    } else {
        say_defect_lines(defects)
    }
}

/// Defects as lines.
pub(super) fn say_defect_lines(defects: &[Defect]) -> Result<()> {
    defects.iter().try_for_each(|defect| say(&format!("{}: {defect}", defect.severity.name())))
}

/// What is wrong with the container of an image and with those of its parents; an error of looking is a defect, too.
pub(super) fn container_defects(image: &Image, container: &Container<Disk>) -> Vec<Defect> {
    let options = OpenOptions { parents: image.parent.clone(), follow_paths: image.follow_paths };
    let mut found = container.defects.clone();
    let mut take = |result: Result<Vec<Defect>>| match result {
        Ok(defects) => found.extend(defects),
        Err(e) => found.push(Defect::from_error("container-unreadable", Severity::Error, &e)),
    };
    let parents = image::parents(&image.image, &options);
    for file in std::iter::once(image.image.clone()).chain(parents.iter().flatten().cloned()) {
        let opened = HostFile::open_read(&file);
        take(
            opened
                .and_then(|opened| image::check(&Disk::new(Arc::new(opened))))
                .map_err(|e| e.in_file(&file)),
        );
    }
    take(parents.map(|_| Vec::new()));
    let mut all: Vec<Defect> = Vec::new();
    for defect in found {
        if !all.contains(&defect) {
            all.push(defect);
        }
    }
    all
}

/// The file system and node of a guest path that is only read; it may be one of a shadow copy.
pub(super) fn reading(machine: &Machine, text: &str) -> Result<(Arc<dyn FileSystem>, NodeId, GuestPath)> {
    let path = GuestPath::parse_any(text)?;
    let (fs, node) = machine.look(&path)?;
    let node = node.ok_or_else(|| {
        Error::not_found(Layer::FileSystem, "no such file or directory on this disk").found(&path)
    })?;
    Ok((fs, node, path))
}

/// The file system and node of a guest path.
pub(super) fn node_of(machine: &Machine, text: &str) -> Result<(Arc<dyn FileSystem>, NodeId, GuestPath)> {
    let path = GuestPath::parse(text)?;
    let (volume, node) = machine.resolve(&path)?;
    let node = node.ok_or_else(|| {
        Error::not_found(Layer::FileSystem, "no such file or directory on this disk").found(&path)
    })?;
    Ok((machine.file_system(volume)?, node, path))
}

pub(super) fn kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
        NodeKind::Reparse => "reparse",
    }
}

pub(super) fn ls(image: &Image, path: &str) -> Result<u8> {
    let (_, machine, _) = open(image)?;
    let (fs, node, _) = reading(&machine, path)?;
    for entry in fs.read_dir(node)? {
        let times = entry.times;
        if image.json {
            let streams: Vec<Value> = fs
                .streams(entry.id)?
                .iter()
                .filter(|stream| !stream.name.is_empty())
                .map(|stream| json!({"name": stream.name, "size": stream.size_bytes}))
                .collect();
            let line = json!({
                "name": entry.name, "kind": kind_name(entry.kind), "size": entry.size_bytes,
                "attributes": entry.attributes.0,
                "times": times_json(times),
                "streams": streams,
            });
            say(&line.to_string())?;
        } else {
            let bytes =
                if entry.kind == NodeKind::Directory { "<DIR>".into() } else { entry.size_bytes.to_string() };
            let modified = time_text(times.modified);
            say(&format!("{:<19}  {bytes:>14}  {}", modified.get(..19).unwrap_or(&modified), entry.name))?;
        }
    }
    Ok(CLEAN)
}

pub(super) fn cat(image: &Image, path: &str) -> Result<u8> {
    let (_, machine, _) = open(image)?;
    let (fs, node, path) = reading(&machine, path)?;
    let mut out = std::io::stdout().lock();
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let count = fs.read(node, &path.stream, offset, &mut buf)?;
        if count == 0 {
            written(out.flush())?;
            return Ok(CLEAN);
        }
        written(out.write_all(&buf[..count]))?;
        offset += count as u64;
    }
}
