//! `reg`: keys by the paths that users type, or inside a hive file of its own.

use super::identity::say_of;
use super::output::Output;
use super::progress::Bars;
use super::{CLEAN, Changing, FINDINGS, Image, change, look, say, say_error};
use clap::Subcommand;
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_block::{Disk, HostFile};
use vmrescue_fs::path::GuestPath;
use vmrescue_registry::path::below;
use vmrescue_registry::reg_text::{self, Operation};
use vmrescue_registry::{DataType, Hive, HiveEditor, Key, RemnantKind, Value, ValueData};
use vmrescue_repair::{Change, KeyPath, Rebuilt, key_path, read_hive, registry_data};
use vmrescue_windows::Machine;

/// `vmrescue reg ...`
#[derive(Debug, Subcommand)]
pub(super) enum Reg {
    /// Show a key with its values and subkeys
    Query {
        #[command(flatten)]
        image: Image,
        /// HKLM\SYSTEM\..., HKLM\SOFTWARE\..., HKU\<sid or name>\..., BCD\...; in a bare hive file the path from its root
        key: Option<String>,
        /// With everything below
        #[arg(short, long)]
        recursive: bool,
        /// Only keys, values and texts that hold this, in any case
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// What can still be recognised of deleted keys and values
        #[arg(long)]
        deleted: bool,
    },
    /// Write a key with everything below as regedit does
    Export {
        #[command(flatten)]
        image: Image,
        /// The key
        key: String,
        /// The .reg file; standard output when absent
        file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Apply a .reg file (version 4 or 5)
    Import {
        #[command(flatten)]
        image: Image,
        /// The .reg file
        file: PathBuf,
        /// New keys get the security that Windows would compute, instead of their parent's word for word
        #[arg(long)]
        inherit_security: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// Set a value, as reg.exe takes it
    Set {
        #[command(flatten)]
        image: Image,
        /// The key
        key: String,
        /// Name of the value
        name: String,
        /// REG_SZ, REG_DWORD, ...
        data_type: String,
        /// The data
        data: String,
        /// New keys get the security that Windows would compute, instead of their parent's word for word
        #[arg(long)]
        inherit_security: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// Delete a value, or a key with everything below
    Delete {
        #[command(flatten)]
        image: Image,
        /// The key
        key: String,
        /// Name of the value
        name: Option<String>,
        #[command(flatten)]
        changing: Changing,
    },
    /// Give a key another name
    Rename {
        #[command(flatten)]
        image: Image,
        /// The key
        key: String,
        /// Its new name
        name: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// What differs between two images or hive files; exit 1 when something does
    Diff {
        #[command(flatten)]
        image: Image,
        /// The other image or hive file
        other: PathBuf,
        /// The key; the root of bare hives when absent
        key: Option<String>,
    },
}

pub(super) fn reg(command: Reg) -> Result<u8> {
    match command {
        Reg::Query { image, key, recursive, search, deleted } => {
            query(&image, key.as_deref().unwrap_or(""), recursive, search.as_deref(), deleted)
        }
        Reg::Export { image, key, file, output } => export(&image, &key, file.as_deref(), output),
        Reg::Import { image, file, inherit_security, changing } => {
            import(&image, &file, By { typed: Typed::InAFile, inherit_security }, &changing)
        }
        Reg::Set { image, key, name, data_type, data, inherit_security, changing } => {
            let kind = DataType::from_name(&data_type).ok_or_else(|| {
                Error::invalid(Layer::Cli, "unknown registry type")
                    .expected("REG_SZ, REG_DWORD, ...")
                    .found(data_type)
            })?;
            let data = registry_data(kind, &data)?;
            let operation = Operation::Set { key: key.clone(), name: name.clone(), data_type: kind, data };
            apply(
                &image,
                &format!("reg set {key} {name}"),
                &changing,
                &[operation],
                By { typed: Typed::ByAPerson, inherit_security },
            )
        }
        Reg::Delete { image, key, name, changing } => {
            let title = format!("reg delete {key}");
            let operation = match name {
                Some(name) => Operation::DeleteValue { key, name },
                None => Operation::DeleteKey { key },
            };
            let by = By { typed: Typed::ByAPerson, inherit_security: false };
            apply(&image, &title, &changing, &[operation], by)
        }
        Reg::Rename { image, key, name, changing } => rename(&image, &key, &name, &changing),
        Reg::Diff { image, other, key } => diff(&image, &other, key.as_deref().unwrap_or("")),
    }
}

fn no_key(key: &str) -> Error {
    Error::not_found(Layer::Hive, "no such key").found(key)
}

/// The hive with this guest path.
pub(super) fn hive_at(machine: &Machine, path: &str) -> Result<Hive> {
    let parsed = GuestPath::parse(path)?;
    let missing = || Error::not_found(Layer::Windows, "the hive is missing").found(path);
    let (name, directory) = parsed.components.split_last().ok_or_else(missing)?;
    let fs = machine.file_system(machine.volume_of(&parsed.volume)?)?;
    let directory = vmrescue_fs::resolve(&*fs, directory)?.ok_or_else(missing)?;
    vmrescue_windows::hive_of(&*fs, directory, name)
}

/// True when the image is a hive file.
pub(super) fn is_bare(image: &Image) -> Result<bool> {
    let file = Disk::new(Arc::new(HostFile::peek(&image.image)?));
    Ok(file.len() >= 4 && file.read_vec(0, 4)? == b"regf")
}

/// The hive that holds `path`, and the path inside it.
fn key_of(image: &Image, path: &str) -> Result<(Hive, String)> {
    let (hive, key) = if is_bare(image)? {
        super::history::tell_unfinished(&image.image);
        (read_hive(&image.image)?, below_root(path))
    } else {
        let (_, machine, _) = look::open(image)?;
        let at = key_path(&machine, machine.installation(image.windows)?, path)?;
        (hive_at(&machine, &at.hive)?, at.key)
    };
    let key = typed(&hive, &key, path)?;
    Ok((hive, key))
}

/// Who wrote a path: in a .reg file only `\` separates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Typed {
    ByAPerson,
    InAFile,
}

/// How operations were asked for.
#[derive(Clone, Copy)]
struct By {
    typed: Typed,
    /// New keys get computed security.
    inherit_security: bool,
}

/// The key that a person means by `key`, a part of `whole`.
fn typed(hive: &Hive, key: &str, whole: &str) -> Result<String> {
    if !key.contains('/') {
        return Ok(key.to_string());
    }
    // A text with `\` anywhere uses `\` to separate.
    let key = if whole.contains('\\') { format!("\\{key}") } else { key.to_string() };
    hive.typed(&key).map(|path| path.to_string())
}

/// A path in a bare hive: from its root. The roots that .reg files carry are taken off.
fn below_root(path: &str) -> String {
    const SEPARATORS: [char; 2] = ['\\', '/'];
    let next = |text: &'_ str| -> usize {
        let name = text.find(SEPARATORS).unwrap_or(text.len());
        text.len() - text[name..].trim_start_matches(SEPARATORS).len()
    };
    let mut rest = path.trim_start_matches('\\');
    let first = &rest[..rest.find(SEPARATORS).unwrap_or(rest.len())];
    let is = |names: &[&str]| names.iter().any(|name| first.eq_ignore_ascii_case(name));
    let skip = if is(&["HKEY_LOCAL_MACHINE", "HKLM", "HKEY_USERS", "HKU"]) {
        2
    } else {
        usize::from(is(&["HKEY_CURRENT_USER", "HKCU", "HKEY_CLASSES_ROOT", "HKCR"]))
    };
    for _ in 0..skip {
        rest = &rest[next(rest)..];
    }
    vmrescue_registry::path::names(rest).collect::<Vec<_>>().join("\\")
}

/// Finds the hive that a path leads into, and the path inside it. A hive may have hundreds of megabytes: it is lent.
type Hives<'a, H> = dyn FnMut(&str) -> Result<(KeyPath, H)> + 'a;

/// Turns operations on a hive into changes; those that would change nothing are left out.
///
/// Each operation sees what those before it leave behind, so they are tried on a copy of the hive in memory as they come.
fn changes_of<H: Deref<Target = Hive>>(
    hives: &mut Hives<'_, H>,
    operations: &[Operation],
    by: By,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut tried: BTreeMap<String, HiveEditor> = BTreeMap::new();
    for (place, operation) in operations.iter().enumerate() {
        let path = match operation {
            Operation::CreateKey { key }
            | Operation::DeleteKey { key }
            | Operation::Set { key, .. }
            | Operation::DeleteValue { key, .. } => key,
        };
        let (KeyPath { hive: file, key }, original) = hives(path)?;
        let hive = tried.get(&file).map_or(&*original, HiveEditor::hive);
        let key = if by.typed == Typed::ByAPerson { typed(hive, &key, path)? } else { key };
        let found = hive.key(&key)?;
        let known = changes.len();
        // Typed by a person, other than in a file, what is not there is a mistake.
        match operation {
            Operation::DeleteKey { .. } if found.is_none() && by.typed == Typed::ByAPerson => {
                return Err(no_key(path));
            }
            Operation::DeleteValue { name, .. }
                if by.typed == Typed::ByAPerson
                    && found.as_ref().ok_or_else(|| no_key(path))?.value(name)?.is_none() =>
            {
                return Err(Error::not_found(Layer::Hive, "no such value").found(name));
            }
            _ => {}
        }
        match operation {
            Operation::CreateKey { .. } if found.is_none() => {
                changes.push(Change::RegistryCreateKey { hive: file.clone(), key });
            }
            Operation::DeleteKey { .. } if found.is_some() => {
                changes.push(Change::RegistryDeleteKey { hive: file.clone(), key });
            }
            Operation::Set { name, data_type, data, .. } => {
                let old = found.map(|key| key.value(name)).transpose()?.flatten();
                let old = old
                    .map(|value| value.data().map(|data| (value.data_type(), data.into_owned())))
                    .transpose()?;
                if old.as_ref().is_some_and(|(kind, there)| kind == data_type && there == data) {
                    continue;
                }
                let was = old.map(|(kind, data)| vmrescue_repair::words_in(&key, name, kind.0, &data));
                let (name, data, data_type) = (name.clone(), data.clone(), data_type.0);
                changes.push(Change::RegistrySet { hive: file.clone(), key, name, data_type, data, was });
            }
            Operation::DeleteValue { name, .. }
                if found.map(|key| key.value(name)).transpose()?.flatten().is_some() =>
            {
                changes.push(Change::RegistryDeleteValue { hive: file.clone(), key, name: name.clone() });
            }
            _ => {}
        }
        if let Some(change) = changes.get(known)
            && place + 1 < operations.len()
        {
            let mut editor = match tried.remove(&file) {
                Some(editor) => editor,
                None => HiveEditor::new((*original).clone())?,
            };
            vmrescue_repair::apply_to_hive(&mut editor, change)?;
            tried.insert(file, editor);
        }
    }
    if by.inherit_security {
        let makes_keys = |change: &Change| {
            matches!(change, Change::RegistryCreateKey { .. } | Change::RegistrySet { was: None, .. })
        };
        let hives: std::collections::BTreeSet<String> = changes
            .iter()
            .filter(|change| makes_keys(change))
            .filter_map(Change::hive)
            .map(str::to_string)
            .collect();
        changes.splice(0..0, hives.into_iter().map(|hive| Change::RegistryInheritSecurity { hive }));
    }
    Ok(changes)
}

/// Plans, shows and runs operations on an image or a bare hive.
fn apply(image: &Image, title: &str, changing: &Changing, operations: &[Operation], by: By) -> Result<u8> {
    if is_bare(image)? {
        let file = image.image.display().to_string();
        return change::on_hive(image, title, changing, |hive| {
            let mut hives = |path: &str| Ok((KeyPath { hive: file.clone(), key: below_root(path) }, hive));
            changes_of(&mut hives, operations, by)
        });
    }
    change::changes(image, title, changing, |machine: &Machine| {
        let installation = machine.installation(image.windows)?;
        let mut read: BTreeMap<String, Arc<Hive>> = BTreeMap::new();
        let mut hives = |path: &str| {
            let at = key_path(machine, installation, path)?;
            if !read.contains_key(&at.hive) {
                read.insert(at.hive.clone(), Arc::new(hive_at(machine, &at.hive)?));
            }
            let hive = read.get(&at.hive).cloned().ok_or_else(|| no_key(path))?;
            Ok((at, hive))
        };
        changes_of(&mut hives, operations, by)
    })
}

fn rename(image: &Image, key: &str, name: &str, changing: &Changing) -> Result<u8> {
    let title = format!("reg rename {key} {name}");
    // Planned on the hive that is locked: it is there, and stays there.
    let renamed = |hive: &Hive, file: String, at: &str| {
        let at = typed(hive, at, key)?;
        hive.key(&at)?.ok_or_else(|| no_key(key))?;
        Ok(vec![Change::RegistryRenameKey { hive: file, key: at, to: name.to_string() }])
    };
    if is_bare(image)? {
        let file = image.image.display().to_string();
        return change::on_hive(image, &title, changing, |hive| renamed(hive, file, &below_root(key)));
    }
    change::changes(image, &title, changing, |machine: &Machine| {
        let at = key_path(machine, machine.installation(image.windows)?, key)?;
        let hive = hive_at(machine, &at.hive)?;
        renamed(&hive, at.hive, &at.key)
    })
}

fn import(image: &Image, file: &Path, by: By, changing: &Changing) -> Result<u8> {
    let bytes = std::fs::read(file).map_err(|e| Error::io("cannot be read", file, e))?;
    let operations = reg_text::parse(&bytes).map_err(|e| e.in_file(file))?;
    apply(image, &format!("reg import {}", file.display()), changing, &operations, by)
}

/// The path as regedit writes it.
fn full_path(image: &Image, path: &str, key: &str) -> Result<String> {
    let parts: Vec<&str> = path.split(['\\', '/']).filter(|part| !part.is_empty()).collect();
    if is_bare(image)? {
        let stem = image.image.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let below = key;
        let root = format!(r"HKEY_LOCAL_MACHINE\{stem}");
        return Ok(if below.is_empty() { root } else { format!(r"{root}\{below}") });
    }
    let long = |part: &str| match part.to_ascii_uppercase().as_str() {
        "HKLM" => "HKEY_LOCAL_MACHINE".to_string(),
        "HKU" => "HKEY_USERS".to_string(),
        "HKCR" => "HKEY_CLASSES_ROOT".to_string(),
        "BCD" => r"HKEY_LOCAL_MACHINE\BCD00000000".to_string(),
        _ => part.to_string(),
    };
    let first = parts.first().map(|part| long(part)).unwrap_or_default();
    // With `/` in the name of a key the words of the person do not say where names end; the key does.
    let head =
        parts.len().saturating_sub(key.split(['\\', '/']).filter(|part| !part.is_empty()).count()).max(1);
    let upper = parts.get(1..head).unwrap_or_default().iter().copied();
    let names = std::iter::once(first.as_str()).chain(upper).chain(vmrescue_registry::path::names(key));
    Ok(names.collect::<Vec<_>>().join("\\"))
}

fn export(image: &Image, key: &str, file: Option<&Path>, output: Output) -> Result<u8> {
    let (hive, at) = key_of(image, key)?;
    let found = hive.key(&at)?.ok_or_else(|| no_key(key))?;
    let mut text = reg_text::HEADER.to_string();
    reg_text::key_text(&found, &full_path(image, key, &at)?, &mut text)?;
    match file {
        Some(file) => {
            output.rules(image)?.write(file, &reg_text::file_bytes(&text))?;
            say(&format!("{}", file.display()))?;
        }
        None => super::written(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()))?,
    }
    Ok(CLEAN)
}

fn query(image: &Image, path: &str, recursive: bool, search: Option<&str>, deleted: bool) -> Result<u8> {
    let (hive, key) = key_of(image, path)?;
    if deleted {
        return say_deleted(image, &hive);
    }
    let found = hive.key(&key)?.ok_or_else(|| no_key(path))?;
    let text = search.map(str::to_lowercase);
    if image.json {
        let levels = if recursive || text.is_some() { MAX_KEY_DEPTH } else { 1 };
        say_of(image, "reg-query", key_json(&found, path, levels)?)?;
    } else if let Some(text) = text {
        say_matches(&found, path, &text, 0)?;
    } else {
        show(&found, path, recursive, 0)?;
    }
    Ok(CLEAN)
}

fn say_deleted(image: &Image, hive: &Hive) -> Result<u8> {
    let remnants = hive.deleted();
    if image.json {
        let list: Vec<serde_json::Value> = remnants
            .iter()
            .map(|remnant| {
                let offset = format!("{:#x}", remnant.file_offset);
                match &remnant.kind {
                    RemnantKind::Key(time) => {
                        json!({"kind": "key", "path": remnant.path, "last_written": time.to_string(), "offset": offset})
                    }
                    RemnantKind::Value(kind, data) => json!({"kind": "value", "name": remnant.path, "type": kind.name(),
                        "data": data.as_ref().map(|data| vmrescue_base::text::hex(data)), "offset": offset}),
                }
            })
            .collect();
        say_of(image, "reg-deleted", json!({"deleted": list}))?;
        return Ok(CLEAN);
    }
    for remnant in &remnants {
        let at = remnant.file_offset;
        match &remnant.kind {
            RemnantKind::Key(time) => say(&format!("{at:#010x}  key    {}  ({time})", remnant.path))?,
            RemnantKind::Value(kind, data) => {
                let data = data
                    .as_ref()
                    .map_or("data overwritten".to_string(), |data| vmrescue_base::text::hex(data));
                say(&format!("{at:#010x}  value  {}  {}  {data}", remnant.path, kind.name()))?;
            }
        }
    }
    Ok(CLEAN)
}

/// The bytes, when what is shown would not come back as them: a text of an odd number of bytes, without its end, with more after it.
fn odd_bytes(value: &Value<'_>, shown: &ValueData) -> Result<Option<String>> {
    let data = value.data()?;
    Ok((shown.encode(value.data_type()) != *data).then(|| vmrescue_base::text::hex(&data)))
}

fn data_words(value: &Value<'_>) -> Result<String> {
    let typed = value.typed()?;
    let odd = odd_bytes(value, &typed)?.filter(|_| value.data_type() != DataType::SZ || value.size_is_odd());
    let words = match typed {
        ValueData::Text(text) => text,
        ValueData::Texts(texts) => texts.join("\\0"),
        ValueData::Number(number) => format!("{number:#x}"),
        ValueData::Bytes(bytes) => vmrescue_base::text::hex(&bytes),
    };
    Ok(match odd {
        Some(bytes) => format!("{words}    (bytes {bytes})"),
        None => words,
    })
}

fn value_json(value: &Value<'_>) -> Result<serde_json::Value> {
    let typed = value.typed()?;
    let odd = odd_bytes(value, &typed)?;
    let data = match typed {
        ValueData::Text(text) => json!(text),
        ValueData::Texts(texts) => json!(texts),
        ValueData::Number(number) => json!(number),
        ValueData::Bytes(bytes) => json!(vmrescue_base::text::hex(&bytes)),
    };
    let mut document = json!({"name": value.name(), "type": value.data_type().name(), "data": data});
    if let Some(bytes) = odd {
        document["bytes"] = json!(bytes);
    }
    Ok(document)
}

/// What cannot be read goes to standard error; the rest is shown.
fn values_of<'a>(key: &Key<'a>) -> Vec<Value<'a>> {
    let (values, broken) = key.values_lenient();
    broken.iter().for_each(|error| say_error(&format!("warning: {error}")));
    values
}

fn subkeys_of<'a>(key: &Key<'a>) -> Vec<Key<'a>> {
    let (keys, broken) = key.subkeys_lenient();
    broken.iter().for_each(|error| say_error(&format!("warning: {error}")));
    keys
}

fn key_json(key: &Key<'_>, path: &str, levels: usize) -> Result<serde_json::Value> {
    let values: Vec<serde_json::Value> = values_of(key)
        .iter()
        .map(|value| {
            value_json(value).unwrap_or_else(|e| json!({"name": value.name(), "error": e.to_string()}))
        })
        .collect();
    let subkeys = subkeys_of(key)
        .iter()
        .map(|child| {
            let path = below(path, &child.name());
            if levels > 1 { key_json(child, &path, levels - 1) } else { Ok(json!(child.name())) }
        })
        .collect::<Result<Vec<_>>>()?;
    let mut document = json!({"key": path, "last_written": key.last_written().to_string(), "values": values, "subkeys": subkeys});
    if let Some(class) = key.class_name() {
        document["class"] = json!(class);
    }
    Ok(document)
}

fn show_value(value: &Value<'_>) -> Result<()> {
    let name = value.name();
    let name = if name.is_empty() { "(Default)" } else { &name };
    let data = data_words(value).unwrap_or_else(|e| format!("cannot be read: {e}"));
    say(&format!("    {name}    {}    {data}", value.data_type().name()))
}

fn show(key: &Key<'_>, path: &str, recursive: bool, depth: usize) -> Result<()> {
    say(path)?;
    values_of(key).iter().try_for_each(show_value)?;
    for child in subkeys_of(key) {
        let path = below(path, &child.name());
        if recursive && depth < MAX_KEY_DEPTH {
            show(&child, &path, true, depth + 1)?;
        } else {
            say(&path)?;
        }
    }
    Ok(())
}

/// Keys whose name, and values whose name or text, hold `text`.
fn say_matches(key: &Key<'_>, path: &str, text: &str, depth: usize) -> Result<()> {
    let matching: Vec<Value<'_>> = values_of(key)
        .into_iter()
        .filter(|value| {
            value.name().to_lowercase().contains(text)
                || data_words(value).is_ok_and(|data| data.to_lowercase().contains(text))
        })
        .collect();
    if key.name().to_lowercase().contains(text) || !matching.is_empty() {
        say(path)?;
        matching.iter().try_for_each(show_value)?;
    }
    if depth < MAX_KEY_DEPTH {
        for child in subkeys_of(key) {
            say_matches(&child, &below(path, &child.name()), text, depth + 1)?;
        }
    }
    Ok(())
}

/// Keys and values by their path in lower case: the path as it is, and the value's type and data.
type Facts = BTreeMap<(String, Option<String>), (String, Option<(u32, Vec<u8>)>)>;

fn facts(key: &Key<'_>, path: &str, depth: usize, all: &mut Facts) -> Result<()> {
    all.insert((path.to_lowercase(), None), (path.to_string(), None));
    for value in values_of(key) {
        let data = value.data().map(std::borrow::Cow::into_owned).unwrap_or_default();
        let shown =
            format!("{path}  {}", if value.name().is_empty() { "(Default)".into() } else { value.name() });
        all.insert(
            (path.to_lowercase(), Some(value.name().to_lowercase())),
            (shown, Some((value.data_type().0, data))),
        );
    }
    if depth < MAX_KEY_DEPTH {
        for child in subkeys_of(key) {
            facts(&child, &below(path, &child.name()), depth + 1, all)?;
        }
    }
    Ok(())
}

fn diff(image: &Image, other: &Path, key: &str) -> Result<u8> {
    let read = |image: &Image| -> Result<Facts> {
        let (hive, at) = key_of(image, key)?;
        let mut all = Facts::new();
        if let Some(found) = hive.key(&at)? {
            facts(&found, key, 0, &mut all)?;
        }
        Ok(all)
    };
    let (ours, theirs) = (read(image)?, read(&image.with_file(other))?);
    if ours.is_empty() && theirs.is_empty() {
        return Err(no_key(key));
    }
    let mut lines = Vec::new();
    for place in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
        match (ours.get(place), theirs.get(place)) {
            (Some((shown, _)), None) => lines.push(("-", shown)),
            (None, Some((shown, _))) => lines.push(("+", shown)),
            (Some((shown, a)), Some((_, b))) if a != b => lines.push(("~", shown)),
            _ => {}
        }
    }
    if image.json {
        let word = |sign: &str| match sign {
            "-" => "only-in-first",
            "+" => "only-in-second",
            _ => "differs",
        };
        let list: Vec<serde_json::Value> =
            lines.iter().map(|(sign, path)| json!({"what": word(sign), "path": path})).collect();
        say_of(image, "reg-diff", json!({"differences": list}))?;
    } else {
        lines.iter().try_for_each(|(sign, path)| say(&format!("{sign} {path}")))?;
    }
    Ok(if lines.is_empty() { CLEAN } else { FINDINGS })
}

/// Checks a bare hive, and with `repair` cures it: locked from before it is read, so that what is shown and agreed to is what is
/// replaced.
pub(super) fn check_hive(image: &Image, repair: Option<&Changing>, allow_unsafe: bool) -> Result<u8> {
    let code = |damaged: bool| if damaged { FINDINGS } else { CLEAN };
    let damaged = |hive: &Hive, defects: &[Defect]| {
        defects.iter().any(|d| d.severity >= Severity::Warning) || !hive.is_clean()
    };
    let Some(changing) = repair else {
        super::history::tell_unfinished(&image.image);
        let hive = read_hive(&image.image)?;
        let defects = hive.check();
        look::say_defects(image, &defects)?;
        return Ok(code(damaged(&hive, &defects)));
    };
    // One JSON document at the end, or lines as things happen.
    let tell = |line: &str| if image.json { Ok(()) } else { say(line) };
    let (mut ended, mut found, mut lost) = (CLEAN, Vec::new(), Vec::new());
    let mut given_up = None;
    let cured = |hive: &Hive| -> Result<Option<Rebuilt>> {
        found = hive.check();
        if !image.json {
            look::say_defects(image, &found)?;
        }
        ended = code(damaged(hive, &found));
        let Some(cured) = vmrescue_repair::cure_hive(hive)? else { return Ok(None) };
        tell(&format!("the hive anew: {}, {} bytes", cured.how, cured.bytes.len()))?;
        if !image.json && !cured.lost.is_empty() {
            look::say_defects(image, &cured.lost)?;
        }
        if let Some(why) = &cured.given_up {
            tell(&format!("given up: {why}"))?;
            if !allow_unsafe && !changing.dry_run {
                return Err(Error::refused(Layer::Hive, "this gives up a write, which needs your consent")
                    .found(why)
                    .advice("look for the transaction logs (.LOG1, .LOG2) first; add --allow-unsafe when you agree"));
            }
        }
        given_up = cured.given_up;
        lost = cured.lost;
        let wanted = changing.dry_run || super::agreed(changing.yes, "Replace the hive?")?;
        Ok(wanted.then_some(Rebuilt { bytes: cured.bytes, lost: lost.len() }))
    };
    let options = change::options(image, changing)?;
    let done = vmrescue_repair::replace_hive(&image.image, "repair the hive", cured, &options, &Bars::new())?;
    if image.json {
        let list = |defects: &[Defect]| defects.iter().map(look::defect_json).collect::<Vec<_>>();
        let document = json!({
            "defects": list(&found), "lost": list(&lost), "given_up": given_up, "dry_run": changing.dry_run, "verified": done.verdict,
            "operation": done.operation, "bytes_changed": done.bytes_changed,
        });
        say_of(image, "check", document)?;
    }
    let agreed = done.verdict.iter().flat_map(|verdict| &verdict.agreed);
    agreed.into_iter().try_for_each(|fact| tell(&format!("  verified  {fact}")))?;
    if changing.dry_run && done.bytes_changed > 0 {
        tell(&format!("would change {} bytes of the file; nothing was written", done.bytes_changed))?;
        return Ok(FINDINGS);
    }
    if done.operation.is_none() {
        return Ok(ended);
    }
    tell(&format!("done; to undo: vmrescue undo {}", image.image.display()))?;
    Ok(CLEAN)
}
