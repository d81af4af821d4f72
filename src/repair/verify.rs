//! The second reader: before anything is published, what was changed is read again by parsers that share no code with
//! our writers (crate `ntfs`, and `second_hive`), and by our own checkers, which must not find anything new.

use super::change::Change;
use super::postcondition::{self, Before, hive_defects, new_defect};
use super::{second_fat, second_hive};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::panic::AssertUnwindSafe;
use vmrescue_base::error::{Defect, Error, ErrorKind, Layer, Result};
use vmrescue_base::progress::Progress;
use vmrescue_block::{Cache, Disk};
use vmrescue_crypt::Keys;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::{FileSystem, NodeId, NodeKind, read_file};
use vmrescue_partition::TableKind;
use vmrescue_windows::Machine;

/// Memory for what the crate `ntfs` reads of a volume.
const CACHE_BYTES: usize = 16 << 20;
/// Most files that the second reader of FAT is asked for: it looks for each through its whole directory.
const MAX_FAT_FILES: usize = 500;
/// Bytes that are compared at once.
const PIECE_BYTES: usize = 256 << 10;

/// What verifying found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// Facts that two readers agree on.
    pub agreed: Vec<String>,
    /// Facts that only our own reader could look at, with the reason.
    pub only_one_reader: Vec<String>,
    /// What else changes that was not asked for: shadow copies of the volume.
    pub warnings: Vec<String>,
}

pub(super) fn disagreement(what: &str, path: &str) -> Error {
    Error::new(ErrorKind::Disagreement, Layer::Verify, what.to_string())
        .found(path)
        .advice("nothing was written; please report this")
}

/// Defects of the volumes that changes touch, for comparing before and after.
pub(super) fn defects(machine: &Machine, changes: &[Change], progress: &dyn Progress) -> Result<Vec<Defect>> {
    let mut volumes = BTreeSet::new();
    for path in changes.iter().flat_map(paths) {
        // Before a partition is made, or its file system, there is nothing to check.
        let volume = GuestPath::parse(path)?.volume;
        volumes.extend(machine.volume_of(&volume).ok().filter(|index| machine.volumes[*index].fs.is_some()));
    }
    for change in changes {
        if let Change::FileSystemRepair { volume, .. } | Change::VolumeFormat { volume, .. } = change {
            // Before it is formatted, a volume may have no file system.
            let whole = |own: &vmrescue_windows::Volume| own.number == *volume && own.fs.is_some();
            volumes.extend(machine.volumes.iter().position(whole));
        }
    }
    let mut all = Vec::new();
    for index in volumes {
        all.extend(machine.file_system(index)?.check(progress)?);
    }
    let hives: BTreeSet<&str> =
        changes.iter().filter_map(|change| change.registry_key()).map(|(hive, _)| hive).collect();
    for path in hives {
        all.extend(hive_defects(machine, path)?);
    }
    Ok(all)
}

/// Guest paths that a change writes.
pub(super) fn paths(change: &Change) -> Vec<&str> {
    match change {
        Change::FileWrite { path, .. }
        | Change::MakeDirectory { path }
        | Change::FileDelete { path }
        | Change::FileSecurity { path, .. }
        | Change::FileAccess { path, .. }
        | Change::FileLink { path, .. } => vec![path],
        Change::FileRename { from, to } => vec![from, to],
        Change::FileDetails { details, .. } => details.iter().map(|detail| detail.path.as_str()).collect(),
        registry => registry.registry_key().map(|(hive, _)| vec![hive]).unwrap_or_default(),
    }
}

/// True when one of the `later` changes makes another thing of what this one made in a registry.
pub(super) fn is_superseded(change: &Change, later: &[Change]) -> bool {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let inside = |key: &str, other: &str| {
        same(key, other)
            || key
                .get(..other.len())
                .is_some_and(|head| same(head, other) && key[other.len()..].starts_with('\\'))
    };
    let Some((hive, key)) = change.registry_key() else { return false };
    let value = |change: &Change| match change {
        Change::RegistrySet { name, .. } | Change::RegistryDeleteValue { name, .. } => {
            Some(name.to_lowercase())
        }
        _ => None,
    };
    later.iter().any(|other| match (other.registry_key(), other) {
        (Some((other_hive, _)), _) if !same(hive, other_hive) => false,
        (Some((_, gone)), Change::RegistryDeleteKey { .. } | Change::RegistryRenameKey { .. }) => {
            inside(key, gone)
        }
        (Some((_, made)), Change::RegistryCreateKey { .. } | Change::RegistrySet { .. })
            if matches!(change, Change::RegistryDeleteKey { .. }) =>
        {
            inside(made, key)
        }
        (Some((_, set)), _) => same(key, set) && value(change).is_some() && value(change) == value(other),
        (None, _) => false,
    })
}

/// Verifies the staged virtual disk against what the changes say; `was` is the disk that they were planned on. The container
/// is checked by whoever publishes.
///
/// # Errors
/// `Disagreement` when the readers differ, a change did not do what it says, or a check finds something that was not
/// there before.
pub(super) fn verify(
    staged: &Disk,
    was: &Machine,
    keys: &Keys,
    changes: &[Change],
    before: &Before,
    progress: &dyn Progress,
) -> Result<Verdict> {
    // As it will lie there: BitLocker volumes are opened anew, from what is staged.
    let mut machine = Machine::open_with(staged.clone(), keys)?;
    machine.keep_letters(was);
    let staged = &machine.disk;
    let mut verdict = Verdict::default();
    let after = defects(&machine, changes, progress)?;
    if let Some(new) = new_defect(&before.volumes, &after) {
        return Err(disagreement("our own check finds new damage on the staged disk", &new.to_string()));
    }
    verdict.agreed.push(format!("file system check: nothing new ({} defects before and after)", after.len()));
    for (hive, old) in &before.hives {
        let now = hive_defects(&machine, hive)?;
        if let Some(new) = new_defect(old, &now) {
            return Err(
                disagreement("our own check finds new damage in a hive", &new.to_string()).in_file(hive)
            );
        }
    }
    verify_table(&machine, staged, &mut verdict)?;
    for change in changes {
        if let Change::FileSystemRepair { volume, .. } | Change::VolumeFormat { volume, .. } = change {
            verify_volume(&machine, staged, *volume, &mut verdict)?;
        }
    }
    let written: BTreeSet<&str> = changes.iter().flat_map(paths).collect();
    let mut others = Others::default();
    for path in written {
        verify_file(&machine, staged, path, &mut others, &mut verdict)?;
    }
    let mut hives = BTreeMap::new();
    for (place, change) in changes.iter().enumerate() {
        postcondition::check(&machine, before, changes, place)?;
        if !is_superseded(change, &changes[place + 1..]) {
            verify_registry(&machine, change, &mut hives)?;
        }
    }
    for (hive, (_, count)) in hives {
        verdict.agreed.push(format!("{hive}: a second reader of hives sees the changes ({count})"));
    }
    Ok(verdict)
}

/// The partition table of a GPT disk, by the crate `gpt`.
fn verify_table(machine: &Machine, staged: &Disk, verdict: &mut Verdict) -> Result<()> {
    if machine.table.kind != TableKind::Gpt {
        return Ok(());
    }
    let sector = match machine.table.sector_bytes {
        512 => gpt::disk::LogicalBlockSize::Lb512,
        _ => gpt::disk::LogicalBlockSize::Lb4096,
    };
    let device = Positioned { disk: staged.clone(), position: 0 };
    let config = gpt::GptConfig::new().writable(false).logical_block_size(sector);
    let other = match config.open_from_device(Box::new(device)) {
        Ok(other) => other,
        Err(e) => {
            verdict.only_one_reader.push(format!("partition table: the crate gpt cannot look ({e})"));
            return Ok(());
        }
    };
    let bytes = u64::from(machine.table.sector_bytes);
    let theirs: BTreeSet<(u64, u64)> =
        other.partitions().values().map(|p| (p.first_lba * bytes, (p.last_lba + 1) * bytes)).collect();
    let ours: BTreeSet<(u64, u64)> =
        machine.table.partitions.iter().map(|p| (p.range.start, p.range.end)).collect();
    if theirs != ours {
        return Err(disagreement("the crate gpt sees other partitions than we do", &format!("{theirs:?}")));
    }
    verdict.agreed.push(format!("partition table: the crate gpt sees the same {} partitions", ours.len()));
    Ok(())
}

/// The root directory of a volume that was mended, by the crate `ntfs`.
fn verify_volume(machine: &Machine, staged: &Disk, number: u32, verdict: &mut Verdict) -> Result<()> {
    let Some(index) = machine.volumes.iter().position(|own| own.number == number) else { return Ok(()) };
    let fs = machine.file_system(index)?;
    let window = staged.window(machine.volumes[index].range.clone())?;
    let ours: BTreeSet<String> = fs.read_dir(fs.root())?.into_iter().map(|entry| entry.name).collect();
    let is_fat = fs.info().kind.starts_with("fat");
    let crate_name = if is_fat { "fatfs" } else { "ntfs" };
    let asked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        if is_fat {
            second_fat::Other::open(window).and_then(|other| other.root())
        } else {
            root_by_other(&window)
        }
    }));
    match asked.unwrap_or_else(|_| Err("it panics".into())) {
        Ok(theirs) if theirs == ours => {
            verdict.agreed.push(format!(
                "volume {number}: verified by an independent reader {} files in its root",
                ours.len()
            ));
        }
        Ok(theirs) => {
            let other = ours.symmetric_difference(&theirs).next().cloned().unwrap_or_default();
            let what = format!("the crate {crate_name} sees other files in the root than we do");
            return Err(disagreement(&what, &other));
        }
        Err(reason) => {
            verdict
                .only_one_reader
                .push(format!("volume {number}: the crate {crate_name} cannot look ({reason})"));
        }
    }
    Ok(())
}

/// Names in the root directory, without separate DOS names.
fn root_by_other(window: &Disk) -> std::result::Result<BTreeSet<String>, String> {
    let text = |e: ntfs::NtfsError| e.to_string();
    let mut reader = Positioned { disk: window.clone(), position: 0 };
    let volume = ntfs::Ntfs::new(&mut reader).map_err(text)?;
    let root = volume.root_directory(&mut reader).map_err(text)?;
    let index = root.directory_index(&mut reader).map_err(text)?;
    let (mut entries, mut names) = (index.entries(), BTreeSet::new());
    while let Some(entry) = entries.next(&mut reader) {
        let entry = entry.map_err(text)?;
        let Some(key) = entry.key() else { continue };
        let key = key.map_err(text)?;
        let name = key.name().to_string_lossy();
        if key.namespace() != ntfs::structured_values::NtfsFileNamespace::Dos && name != "." {
            names.insert(name);
        }
    }
    Ok(names)
}

fn verify_file(
    machine: &Machine,
    staged: &Disk,
    path: &str,
    others: &mut Others,
    verdict: &mut Verdict,
) -> Result<()> {
    let parsed = GuestPath::parse(path)?;
    let (index, node) = machine.resolve(&parsed)?;
    let fs = machine.file_system(index)?;
    if fs.info().kind.starts_with("fat") {
        return verify_fat(machine, staged, (path, &parsed), (index, node), others, verdict);
    }
    let stream = match node {
        Some(node) => fs.streams(node)?.into_iter().find(|stream| stream.name == parsed.stream),
        None => None,
    };
    let ours = node.zip(stream).map(|(node, stream)| (node, stream.size_bytes));
    if let std::collections::btree_map::Entry::Vacant(place) = others.ntfs.entry(index) {
        let window = staged.window(machine.volumes[index].range.clone())?;
        place.insert(Other::open(window));
    }
    let Some(other) = others.ntfs.get_mut(&index) else { return Ok(()) };
    let same = match other {
        Ok(other) => {
            // It panics on some damage, and then it has not looked.
            let asked = std::panic::catch_unwind(AssertUnwindSafe(|| other.agrees(&*fs, ours, path)));
            asked.unwrap_or_else(|_| Err(Unread::Theirs("it panics".into())))
        }
        Err(reason) => Err(Unread::Theirs(reason.clone())),
    };
    match same {
        Ok(true) => verdict.agreed.push(format!("{path}: verified by an independent reader")),
        Ok(false) => return Err(disagreement("the crate ntfs reads something else than we do", path)),
        Err(Unread::Ours(error)) => return Err(error),
        Err(Unread::Theirs(reason)) => {
            verdict.only_one_reader.push(format!("{path}: the crate ntfs cannot look ({reason})"));
        }
    }
    Ok(())
}

/// A file on FAT, by the crate `fatfs`.
fn verify_fat(
    machine: &Machine,
    staged: &Disk,
    (path, parsed): (&str, &GuestPath),
    (index, node): (usize, Option<NodeId>),
    others: &mut Others,
    verdict: &mut Verdict,
) -> Result<()> {
    let fs = machine.file_system(index)?;
    let facts = node.map(|node| fs.metadata(node)).transpose()?;
    let ours = facts.filter(|facts| facts.kind == NodeKind::File).map(|facts| (facts.id, facts.size_bytes));
    others.fat_files += 1;
    if others.fat_files > MAX_FAT_FILES {
        verdict.only_one_reader.push(format!("{path}: one of more than {MAX_FAT_FILES} files"));
        return Ok(());
    }
    if let std::collections::btree_map::Entry::Vacant(place) = others.fat.entry(index) {
        let window = staged.window(machine.volumes[index].range.clone())?;
        let cached = Disk::new(std::sync::Arc::new(Cache::new(window, CACHE_BYTES)));
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| second_fat::Other::open(cached)));
        place.insert(opened.unwrap_or_else(|_| Err("it panics".into())));
    }
    let same = match others.fat.get(&index) {
        Some(Ok(other)) => {
            let asked = AssertUnwindSafe(|| other.agrees(&*fs, ours, &parsed.components));
            match std::panic::catch_unwind(asked) {
                Ok(answer) => answer?,
                Err(_) => Err("it panics".into()),
            }
        }
        Some(Err(reason)) => Err(reason.clone()),
        None => return Ok(()),
    };
    match same {
        Ok(true) => verdict.agreed.push(format!("{path}: verified by an independent reader")),
        Ok(false) => return Err(disagreement("the crate fatfs reads something else than we do", path)),
        Err(reason) => {
            verdict.only_one_reader.push(format!("{path}: the crate fatfs cannot look ({reason})"));
        }
    }
    Ok(())
}

/// The second readers of each volume that was asked for, or why they cannot look.
#[derive(Default)]
struct Others {
    ntfs: BTreeMap<usize, std::result::Result<Other, String>>,
    fat: BTreeMap<usize, std::result::Result<second_fat::Other, String>>,
    /// Files that were asked for on FAT.
    fat_files: usize,
}

/// Why two readers were not compared.
enum Unread {
    /// The crate `ntfs` cannot look.
    Theirs(String),
    /// Our own reader fails.
    Ours(Error),
}

/// A volume as the crate `ntfs` sees it.
struct Other {
    reader: Positioned,
    volume: ntfs::Ntfs,
}

impl Other {
    fn open(window: Disk) -> std::result::Result<Other, String> {
        let open = || {
            // It has no cache of its own and goes from the root to every file.
            let cached = Disk::new(std::sync::Arc::new(Cache::new(window, CACHE_BYTES)));
            let mut reader = Positioned { disk: cached, position: 0 };
            let mut volume = ntfs::Ntfs::new(&mut reader)?;
            volume.read_upcase_table(&mut reader)?;
            Ok(Other { reader, volume })
        };
        std::panic::catch_unwind(AssertUnwindSafe(open))
            .map_err(|_| "it panics".to_string())?
            .map_err(|e: ntfs::NtfsError| e.to_string())
    }

    /// True when it reads the same as `fs` does from `ours` (node and length), or neither finds such a file.
    fn agrees(
        &mut self,
        fs: &dyn FileSystem,
        ours: Option<(NodeId, u64)>,
        guest: &str,
    ) -> std::result::Result<bool, Unread> {
        let text = |e: ntfs::NtfsError| Unread::Theirs(e.to_string());
        let (volume, reader) = (&self.volume, &mut self.reader);
        let mut file = volume.root_directory(reader).map_err(text)?;
        let (names, stream) = split(guest);
        for name in names {
            let index = file.directory_index(reader).map_err(text)?;
            let mut finder = index.finder();
            let found = ntfs::indexes::NtfsFileNameIndex::find(&mut finder, volume, reader, name);
            file = match found {
                None => return Ok(ours.is_none()),
                Some(entry) => entry.and_then(|entry| entry.to_file(volume, reader)).map_err(text)?,
            };
        }
        if file.is_directory() && stream.is_empty() {
            return Ok(ours.is_none());
        }
        let (item, (node, length)) = match (file.data(reader, stream), ours) {
            (Some(item), Some(ours)) => (item.map_err(text)?, ours),
            (item, ours) => return Ok(item.is_none() && ours.is_none()),
        };
        let attribute = item.to_attribute().map_err(text)?;
        if attribute.value_length() != length {
            return Ok(false);
        }
        // It ends streams too early whose runs are spread over records.
        let is_spread = file
            .attributes_raw()
            .flatten()
            .any(|raw| raw.ty().is_ok_and(|kind| kind == ntfs::NtfsAttributeType::AttributeList));
        let mut value = attribute.value(reader).map_err(text)?;
        let (mut theirs, mut own, mut at) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES], 0);
        while at < length {
            let count = ntfs::NtfsReadSeek::read(&mut value, reader, &mut theirs).map_err(text)?;
            if count == 0 && is_spread {
                return Err(Unread::Theirs(format!("it stops at {at:#x} of {length:#x} bytes")));
            }
            let there = fs.read(node, stream, at, &mut own[..count]).map_err(Unread::Ours)?;
            if count == 0 || there != count || own[..count] != theirs[..count] {
                return Ok(false);
            }
            at += count as u64;
        }
        Ok(true)
    }
}

/// The names on the way to a file of the guest and the name of its stream, cut by this reader's own hand: a mistake of
/// [`GuestPath`] shall not be made twice.
fn split(guest: &str) -> (Vec<&str>, &str) {
    let below = guest.split_once(':').map_or(guest, |(_, below)| below);
    let last = below.rfind(['\\', '/']).map_or(0, |at| at + 1);
    let (names, stream) = match below[last..].split_once(':') {
        Some((name, stream)) => (&below[..last + name.len()], stream),
        None => (below, ""),
    };
    (names.split(['\\', '/']).filter(|name| !name.is_empty()).collect(), stream)
}

/// Hives that were changed, by their guest path: the staged bytes, and how many changes were seen in them.
type Hives = BTreeMap<String, (Vec<u8>, usize)>;

fn verify_registry(machine: &Machine, change: &Change, hives: &mut Hives) -> Result<()> {
    let Some((hive, _)) = change.registry_key() else { return Ok(()) };
    if !hives.contains_key(hive) {
        let (index, node) = machine.resolve(&GuestPath::parse(hive)?)?;
        let node = node.ok_or_else(|| disagreement("the hive is gone", hive))?;
        let bytes = read_file(&*machine.file_system(index)?, node, "")?;
        hives.insert(hive.to_string(), (bytes, 0));
    }
    let Some((bytes, count)) = hives.get_mut(hive) else { return Ok(()) };
    // The second reader panics on some damage; that is a disagreement, not the end of the program.
    let asked = std::panic::catch_unwind(AssertUnwindSafe(|| other_value(bytes, change)));
    let asked = asked.unwrap_or_else(|_| Err("the second reader panics on the staged hive".into()));
    if asked.map_err(|reason| disagreement(&reason, hive))? {
        *count += 1;
        return Ok(());
    }
    Err(disagreement("the second reader does not see the change", &change.to_string()))
}

/// Asks the second reader of hives whether the change is in the hive.
pub(super) fn other_value(bytes: &[u8], change: &Change) -> std::result::Result<bool, String> {
    let text = |e: String| format!("the second reader cannot read the hive: {e}");
    let Some((_, key)) = change.registry_key() else { return Ok(true) };
    let units = |name: &str| -> Vec<u16> { vmrescue_base::names::to_units(name) };
    let mut names: Vec<Vec<u16>> = key.split('\\').filter(|name| !name.is_empty()).map(units).collect();
    if let Change::RegistryRenameKey { key: old, to, .. } = change
        && let Some(last) = names.last().cloned()
    {
        let is_other = !old.rsplit('\\').next().unwrap_or(old).eq_ignore_ascii_case(to);
        if is_other && !last.is_empty() && second_hive::key(bytes, &names).map_err(text)?.is_some() {
            return Ok(false);
        }
        names.pop();
        names.push(units(to));
    }
    let Some(node) = second_hive::key(bytes, &names).map_err(text)? else {
        return Ok(matches!(change, Change::RegistryDeleteKey { .. } | Change::RegistryDeleteValue { .. }));
    };
    match change {
        Change::RegistrySet { name, data_type, data, .. } => {
            let there = second_hive::value(bytes, node, &units(name)).map_err(text)?;
            Ok(there.is_some_and(|(kind, there)| kind == *data_type && there == *data))
        }
        Change::RegistryDeleteValue { name, .. } => {
            Ok(second_hive::value(bytes, node, &units(name)).map_err(text)?.is_none())
        }
        Change::RegistryDeleteKey { .. } => Ok(false),
        _ => Ok(true),
    }
}

/// What makes a defect the same before and after: in hives its place, since a text may count what an edit changes.
pub(super) fn identity(defect: &Defect) -> String {
    match defect.layer {
        Layer::Hive => format!("{}{:?}", defect.code, defect.offset),
        _ => format!("{}{}", defect.code, defect.detail),
    }
}

/// A disk as reader and seeker for the crates `ntfs` and `gpt`.
#[derive(Debug)]
struct Positioned {
    disk: Disk,
    position: u64,
}

impl Read for Positioned {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.disk.len().saturating_sub(self.position).min(buf.len() as u64) as usize;
        let mut bytes = Cursor::new(&mut buf[..count]);
        self.disk.read_at(self.position, bytes.get_mut()).map_err(std::io::Error::other)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// Asked for by the crate `gpt`, which is told not to write.
impl std::io::Write for Positioned {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Positioned {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.disk.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
