//! `reg` and `bcd`: keys by the paths that users type, or inside a bare hive file.

use super::{CLEAN, Changing, Image, change, look, say, say_json};
use crate::error::{Error, ErrorKind, Layer, Result};
use crate::fs::path::GuestPath;
use crate::registry::{DataType, Hive, Key, Value, ValueData};
use crate::repair::{Change, key_path, registry_data};
use crate::windows::Machine;
use crate::windows::bcd::{DiskMap, Options, Store, enumerate};
use clap::Subcommand;
use serde_json::json;

/// `vmrescue reg ...`
#[derive(Debug, Subcommand)]
pub(super) enum Reg {
    /// Show a key with its values and subkeys
    Query {
        #[command(flatten)]
        image: Image,
        /// HKLM\SYSTEM\..., HKLM\SOFTWARE\..., BCD\...; for a bare hive file the path from its root
        key: Option<String>,
        /// With everything below
        #[arg(short, long)]
        recursive: bool,
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
}

/// `vmrescue bcd ...`
#[derive(Debug, Subcommand)]
pub(super) enum Bcd {
    /// The boot configuration store, as bcdedit /enum all shows it
    Enum {
        #[command(flatten)]
        image: Image,
    },
}

pub(super) fn reg(command: Reg) -> Result<u8> {
    match command {
        Reg::Query { image, key, recursive } => query(&image, key.as_deref().unwrap_or(""), recursive),
        Reg::Set { image, key, name, data_type, data, changing } => {
            let kind = DataType::from_name(&data_type).ok_or_else(|| {
                Error::invalid(Layer::Cli, "unknown registry type")
                    .expected("REG_SZ, REG_DWORD, ...")
                    .found(data_type)
            })?;
            let data = registry_data(kind, &data)?;
            let title = format!("reg set {key} {name}");
            change::changes(&image, &title, &changing, |machine: &Machine| {
                let at = key_path(machine, machine.installation(image.windows)?, &key)?;
                let old = value_of(machine, &at.hive, &at.key, &name)?;
                if old.as_ref().is_some_and(|(old_kind, old)| *old_kind == kind && *old == data) {
                    return Ok(Vec::new());
                }
                let was = old.map(|(kind, data)| format!("{} of {} bytes", kind.name(), data.len()));
                let (hive, key) = (at.hive, at.key);
                Ok(vec![Change::RegistrySet { hive, key, name: name.clone(), data_type: kind.0, data, was }])
            })
        }
        Reg::Delete { image, key, name, changing } => {
            let title = format!("reg delete {key}");
            change::changes(&image, &title, &changing, |machine: &Machine| {
                let at = key_path(machine, machine.installation(image.windows)?, &key)?;
                let hive = hive_at(machine, &at.hive)?;
                let found = hive.key(&at.key)?.ok_or_else(|| no_key(&key))?;
                match name {
                    None => Ok(vec![Change::RegistryDeleteKey { hive: at.hive, key: at.key }]),
                    Some(name) if found.value(&name)?.is_some() => {
                        Ok(vec![Change::RegistryDeleteValue { hive: at.hive, key: at.key, name }])
                    }
                    Some(name) => Err(Error::not_found(Layer::Hive, "no such value").found(name)),
                }
            })
        }
    }
}

fn no_key(key: &str) -> Error {
    Error::not_found(Layer::Hive, "no such key").found(key)
}

fn hive_at(machine: &Machine, path: &str) -> Result<Hive> {
    let parsed = GuestPath::parse(path)?;
    let missing = || Error::not_found(Layer::Windows, "the hive is missing").found(path);
    let (name, directory) = parsed.components.split_last().ok_or_else(missing)?;
    let fs = machine.file_system(machine.volume_of(&parsed.volume)?)?;
    let directory = crate::fs::resolve(&*fs, directory)?.ok_or_else(missing)?;
    crate::windows::hive_of(&*fs, directory, name)
}

fn value_of(machine: &Machine, hive: &str, key: &str, name: &str) -> Result<Option<(DataType, Vec<u8>)>> {
    let hive = hive_at(machine, hive)?;
    let value = hive.key(key)?.map(|key| key.value(name)).transpose()?.flatten();
    value.map(|value| Ok((value.data_type(), value.data()?.into_owned()))).transpose()
}

/// The hive itself when the image is a bare hive file.
fn bare_hive(image: &Image) -> Result<Option<Hive>> {
    use std::io::Read;
    let mut head = [0; 4];
    let mut file =
        std::fs::File::open(&image.image).map_err(|e| Error::io("cannot be opened", &image.image, e))?;
    match file.read_exact(&mut head) {
        Ok(()) if &head == b"regf" => {}
        _ => return Ok(None),
    }
    let read = |path: &std::path::Path| std::fs::read(path).map_err(|e| Error::io("cannot be read", path, e));
    let mut logs = Vec::new();
    for suffix in [".LOG", ".LOG1", ".LOG2"] {
        let mut name = image.image.clone().into_os_string();
        name.push(suffix);
        match read(std::path::Path::new(&name)) {
            Ok(bytes) => logs.push(bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Hive::parse_with_logs(read(&image.image)?, &logs).map(Some)
}

fn query(image: &Image, path: &str, recursive: bool) -> Result<u8> {
    let (hive, key, shown) = match bare_hive(image)? {
        Some(hive) => (hive, path.to_string(), path.to_string()),
        None => {
            let (_, machine, _) = look::open(image)?;
            let at = key_path(&machine, machine.installation(image.windows)?, path)?;
            (hive_at(&machine, &at.hive)?, at.key, path.to_string())
        }
    };
    let found = hive.key(&key)?.ok_or_else(|| no_key(path))?;
    if image.json {
        say_json("reg-query", key_json(&found, &shown, if recursive { usize::MAX } else { 1 })?)?;
    } else {
        show(&found, &shown, recursive, 0)?;
    }
    Ok(CLEAN)
}

fn value_json(value: &Value<'_>) -> Result<serde_json::Value> {
    let data = match value.typed()? {
        ValueData::Text(text) => json!(text),
        ValueData::Texts(texts) => json!(texts),
        ValueData::Number(number) => json!(number),
        ValueData::Bytes(bytes) => json!(crate::text::hex(&bytes)),
    };
    Ok(json!({"name": value.name(), "type": value.data_type().name(), "data": data}))
}

fn key_json(key: &Key<'_>, path: &str, levels: usize) -> Result<serde_json::Value> {
    let values = key.values()?.iter().map(value_json).collect::<Result<Vec<_>>>()?;
    let subkeys = key
        .subkeys()?
        .iter()
        .map(|child| {
            let below = format!("{path}\\{}", child.name());
            if levels > 1 { key_json(child, &below, levels - 1) } else { Ok(json!(child.name())) }
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(
        json!({"key": path, "last_written": key.last_written().to_string(), "values": values, "subkeys": subkeys}),
    )
}

fn show(key: &Key<'_>, path: &str, recursive: bool, depth: usize) -> Result<()> {
    say(path)?;
    for value in key.values()? {
        let name = value.name();
        let name = if name.is_empty() { "(Default)" } else { &name };
        let data = match value.typed()? {
            ValueData::Text(text) => text,
            ValueData::Texts(texts) => texts.join("\\0"),
            ValueData::Number(number) => format!("{number:#x}"),
            ValueData::Bytes(bytes) => crate::text::hex(&bytes),
        };
        say(&format!("    {name}    {}    {data}", value.data_type().name()))?;
    }
    for child in key.subkeys()? {
        let below = format!("{path}\\{}", child.name());
        if recursive && depth < crate::limits::MAX_KEY_DEPTH {
            show(&child, &below, true, depth + 1)?;
        } else {
            say(&below)?;
        }
    }
    Ok(())
}

pub(super) fn bcd(command: Bcd) -> Result<u8> {
    let Bcd::Enum { image } = command;
    let (hive, map) = match bare_hive(&image)? {
        Some(hive) => (hive, DiskMap::default()),
        None => {
            let (_, machine, _) = look::open(&image)?;
            let at = key_path(&machine, machine.installation(image.windows)?, "BCD")?;
            (hive_at(&machine, &at.hive)?, machine.disk_map())
        }
    };
    let store = Store::load(&hive)?;
    if image.json {
        let objects: Vec<serde_json::Value> = store
            .objects
            .iter()
            .map(|object| {
                let elements: serde_json::Map<String, serde_json::Value> = object
                    .elements
                    .iter()
                    .map(|(number, value)| (object.element_name(*number), json!(format!("{value:?}"))))
                    .collect();
                json!({"id": object.id.to_string(), "type": format!("{:#010x}", object.object_type), "elements": elements})
            })
            .collect();
        say_json("bcd-enum", json!({"objects": objects}))?;
    } else {
        say(enumerate(&store, &map, Options::default()).trim_end())?;
    }
    Ok(CLEAN)
}
