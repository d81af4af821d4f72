//! `check`: what was looked at, what was found damaged, and what could not be looked at. Nothing recognised is no clean bill.

use super::identity::{say_of, tell};
use super::look::{defect_json, open};
use super::progress::Bars;
use super::{CLEAN, Changing, ERROR, FINDINGS, Image, REFUSED, say};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result, Severity};
use vmrescue_block::{Disk, HostFile};
use vmrescue_diagnose::{is_expected_to_open, note_volumes};
use vmrescue_image as image;
use vmrescue_image::{Format, OpenOptions};
use vmrescue_windows::{Installation, Machine, Unseen, Weight, boot_layout, boot_stores, load_store};

/// Hives without which no Windows starts.
const NEEDED: [&str; 4] = ["SYSTEM", "SOFTWARE", "SAM", "SECURITY"];

/// What a check came to.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// What was checked, for people.
    pub(super) checked: Vec<String>,
    /// What has nothing that could be checked, for people.
    pub(super) passed_over: Vec<String>,
    /// What is damaged.
    pub(super) defects: Vec<Defect>,
    /// What could not be checked.
    pub(super) unseen: Unseen,
    /// A lock kept something from being checked.
    pub(super) locked: bool,
}

impl Checked {
    fn is_damaged(&self) -> bool {
        self.defects.iter().any(|defect| defect.severity != Severity::Note)
    }

    /// The exit code, its name and the last sentence.
    pub(super) fn verdict(&self) -> (u8, &'static str, String) {
        let unread = self.unseen.list();
        let critical =
            unread.iter().any(|unread| unread.weight == Weight::Critical) || self.checked.is_empty();
        if self.locked {
            (REFUSED, "could-not-tell", "could not tell: a part is locked and was not checked".into())
        } else if self.is_damaged() {
            (FINDINGS, "damaged", "damage was found".into())
        } else if critical {
            let why = match unread.first() {
                Some(first) => first.to_string(),
                None => "nothing was recognised that could be checked".to_string(),
            };
            (ERROR, "could-not-tell", format!("could not tell: {why}"))
        } else if !unread.is_empty() {
            (FINDINGS, "look-at-this", "no damage in what was checked; not everything was checked".into())
        } else {
            (CLEAN, "nothing-found", "no damage found in what was checked".into())
        }
    }

    /// The parts that every form of the output has.
    pub(super) fn json(&self) -> Value {
        let (_, verdict, _) = self.verdict();
        json!({
            "verdict": verdict, "checked": self.checked, "passed_over": self.passed_over,
            "could_not_look": self.unseen.list(),
        })
    }

    /// What was checked and what was not, and how it ended, as lines.
    pub(super) fn say_end(&self) -> Result<()> {
        self.checked.iter().try_for_each(|line| say(&format!("checked      {line}")))?;
        self.passed_over.iter().try_for_each(|line| say(&format!("passed over  {line}")))?;
        for unread in self.unseen.list() {
            say(&format!("not checked  {unread}"))?;
            unread.advice.map_or(Ok(()), |advice| say(&format!("             {advice}")))?;
        }
        say(&self.verdict().2)
    }
}

pub(super) fn check(image: &Image, repair: bool, allow_unsafe: bool, changing: &Changing) -> Result<u8> {
    if super::registry::is_bare(image)? {
        return super::registry::check_hive(image, repair.then_some(changing), allow_unsafe);
    }
    tell(image)?;
    // A key that cannot be read is no damage of the disk.
    image.keys()?;
    let mut found = Checked::default();
    let machine = look(image, &mut found);
    let (code, ..) = found.verdict();
    let repairs = repair && code != CLEAN && !found.locked;
    // One document: that of the repair, when there is one.
    if !(image.json && repairs) {
        tell_checked(image, &found)?;
    }
    if let Some(volume) =
        machine.iter().flat_map(|machine| &machine.volumes).find(|volume| volume.is_locked())
    {
        // Whatever was found elsewhere: what lies behind a lock was not looked at.
        let why = volume.error.as_deref().unwrap_or("locked");
        let advice = volume.bitlocker.as_ref().map_or_else(String::new, vmrescue_crypt::BitLocker::advice);
        super::say_error(&format!(
            "refused: partition {} was not checked: {why}\n       {advice}",
            volume.number
        ));
    }
    // The image is let go before it is opened for writing.
    drop(machine);
    if repairs { super::change::repair_disk(image, changing, allow_unsafe) } else { Ok(code) }
}

fn tell_checked(image: &Image, found: &Checked) -> Result<()> {
    if image.json {
        let list: Vec<Value> = found.defects.iter().map(defect_json).collect();
        let mut document = json!({"defects": list});
        if let (Some(all), Value::Object(more)) = (document.as_object_mut(), found.json()) {
            all.extend(more);
        }
        return say_of(image, "check", document);
    }
    super::look::say_defect_lines(&found.defects)?;
    found.say_end()
}

/// Checks everything of an image; the machine on it, when the disk could be opened.
fn look(image: &Image, found: &mut Checked) -> Option<Machine> {
    let options = OpenOptions { parents: image.parent.clone(), follow_paths: image.follow_paths };
    containers(&image.image, &options, found);
    let opened = open(image).map(|(_, machine, _)| machine);
    let machine = found.unseen.seen("the disk in it", "", Weight::Critical, opened)?;
    found.defects.extend(machine.defects.iter().cloned());
    found.locked = machine.volumes.iter().any(vmrescue_windows::Volume::is_locked);
    if machine.table.kind != vmrescue_partition::TableKind::None {
        let kind = format!("{:?}", machine.table.kind).to_uppercase();
        found.checked.push(format!("partition table: {kind}, {} partitions", machine.table.partitions.len()));
    }
    note_volumes(&machine, &found.unseen);
    for volume in &machine.volumes {
        let Some(fs) = &volume.fs else {
            if !volume.is_locked() && !is_expected_to_open(volume) {
                let kind = volume.partition.as_ref().map_or("the whole disk", |p| p.type_name.as_str());
                found
                    .passed_over
                    .push(format!("#{} ({kind}): holds no file system of Windows", volume.number));
            }
            continue;
        };
        let (place, kind) = (format!("#{}", volume.number), fs.info().kind);
        let checked = fs.check(&Bars::new());
        if let Some(defects) = found.unseen.seen("a file system", &place, Weight::Critical, checked) {
            found.checked.push(format!("{place}: {kind}, all of it"));
            found.defects.extend(defects);
        }
    }
    for installation in &machine.installations {
        hives(&machine, installation, found);
        found.passed_over.push(format!(
            "what the files of {} hold: `vmrescue diagnose` looks at the program files of the start, `vmrescue drivers` at drivers",
            installation.path
        ));
    }
    stores(&machine, found);
    Some(machine)
}

/// The container of an image and those of its parents.
pub(super) fn containers(
    path: &std::path::Path,
    options: &OpenOptions,
    found: &mut Checked,
) -> Vec<(PathBuf, Vec<Defect>)> {
    let mut lists = Vec::new();
    let links = image::check_links(path, options);
    let links =
        found.unseen.seen("the chain of parents", path.display().to_string(), Weight::Critical, links);
    let orphan = links.iter().flatten().any(|defect| defect.code == "chain-parent-missing");
    let links = links.unwrap_or_default();
    let mut files = vec![path.to_path_buf()];
    if !orphan {
        let parents = image::parents(path, options);
        let place = path.display().to_string();
        files
            .extend(found.unseen.seen("the parents", place, Weight::Critical, parents).into_iter().flatten());
    }
    for file in files {
        let checked = one_container(&file);
        let Some((format, mut defects)) =
            found.unseen.seen("a container", file.display().to_string(), Weight::Critical, checked)
        else {
            continue;
        };
        if file == path {
            defects.extend(links.iter().cloned());
        }
        // A raw file has nothing of its own that could be damaged.
        if format == Format::Raw {
            found.passed_over.push(format!("{}: raw, which has no structures of its own", file.display()));
        } else {
            found.checked.push(format!(
                "container {}: {}",
                file.display(),
                format!("{format:?}").to_lowercase()
            ));
        }
        found.defects.extend(defects.iter().cloned());
        lists.push((file, defects));
    }
    lists
}

fn one_container(file: &std::path::Path) -> Result<(Format, Vec<Defect>)> {
    let disk = Disk::new(Arc::new(HostFile::open_read(file)?));
    if disk.is_empty() {
        return Err(Error::damaged(Layer::Image, "the file is empty").in_file(file));
    }
    let defects = image::check_file(&disk, file).map_err(|e| e.in_file(file))?;
    Ok((image::probe(&disk)?, defects))
}

fn hives(machine: &Machine, installation: &Installation, found: &mut Checked) {
    let mut whole = Vec::new();
    for name in vmrescue_windows::HIVES {
        let path = format!(r"{}\System32\config\{name}", installation.path);
        match machine.hive(installation, name) {
            Ok(hive) => {
                found.defects.extend(hive.check());
                whole.push(name);
            }
            Err(e) if e.kind() == ErrorKind::NotFound && NEEDED.contains(&name) => {
                let text = format!("{path} is missing");
                found.defects.push(Defect::new("hive-missing", Severity::Error, Layer::Hive, None, text));
            }
            // The other hives are not on every Windows.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => {
                let e = e.context(&path);
                found.defects.push(Defect::from_error("hive-unreadable", Severity::Error, &e));
            }
        }
    }
    if !whole.is_empty() {
        found.checked.push(format!("hives of {}: {}", installation.path, whole.join(", ")));
    }
}

fn stores(machine: &Machine, found: &mut Checked) {
    // Also those that lie where they should and cannot be asked for.
    let layout = boot_layout(machine);
    let mut paths: Vec<String> =
        layout.system.iter().map(|volume| layout.store_path(machine, *volume)).collect();
    paths.extend(boot_stores(machine));
    paths.sort();
    paths.dedup();
    for path in paths {
        match load_store(machine, &path) {
            Ok(Some((hive, store))) => {
                found.checked.push(format!("boot store {path}: {} objects", store.objects.len()));
                found.defects.extend(hive.check());
            }
            Ok(None) => {}
            // A volume that cannot be read was named before.
            Err(e) if e.kind() == ErrorKind::Unsupported || e.kind() == ErrorKind::Refused => {}
            Err(e) => {
                let e = e.context(&path);
                found.defects.push(Defect::from_error("boot-store-unreadable", Severity::Error, &e));
            }
        }
    }
}
