//! `bcd`: the boot configuration store of a disk, or a store in a file of its own.

use super::identity::say_of;
use super::output::Output;
use super::registry::{hive_at, is_bare};
use super::{CLEAN, Changing, Image, change, look, say};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_fs::path::GuestPath;
use vmrescue_registry::Hive;
use vmrescue_repair::{Change, read_hive, rebuild_boot, store_changes};
use vmrescue_windows::bcd::{DiskMap, Options, Place, Store, enumerate, names, view};
use vmrescue_windows::{Machine, boot_stores};

/// The store that is meant.
#[derive(Debug, Args)]
pub(super) struct Where {
    #[command(flatten)]
    image: Image,
    /// Guest path of the store, when the disk has several
    #[arg(long, value_name = "PATH")]
    store: Option<String>,
}

/// `vmrescue bcd ...`
#[derive(Debug, Subcommand)]
pub(super) enum Bcd {
    /// What bcdedit /enum all /v prints; devices are resolved against the disk
    Enum {
        #[command(flatten)]
        at: Where,
        /// {bootmgr} and {default} in the place of their identifiers, as bcdedit without /v
        #[arg(long)]
        aliases: bool,
    },
    /// Set an element: bcd set IMAGE {default} safeboot minimal
    Set {
        #[command(flatten)]
        at: Where,
        /// {default}, {bootmgr}, another alias, or an identifier
        object: String,
        /// bcdedit's name, or its number as custom:26000020
        element: String,
        /// As bcdedit takes it: partition=C:, partition=#3, boot, locate, yes, ...
        #[arg(required = true)]
        value: Vec<String>,
        #[command(flatten)]
        changing: Changing,
    },
    /// Delete an element, or without one the whole object with its mentions
    Delete {
        #[command(flatten)]
        at: Where,
        /// The object
        object: String,
        /// The element
        element: Option<String>,
        #[command(flatten)]
        changing: Changing,
    },
    /// Make an object: a well-known one by its alias, or a new loader
    Create {
        #[command(flatten)]
        at: Where,
        /// An alias such as {ramdiskoptions}; a new loader when absent
        object: Option<String>,
        /// What the menu shows
        #[arg(short, long, default_value = "Windows")]
        description: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Copy an entry under a new description
    Copy {
        #[command(flatten)]
        at: Where,
        /// The entry
        object: String,
        /// What the menu shows
        #[arg(short, long)]
        description: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Choose the entry that starts when nobody chooses
    Default {
        #[command(flatten)]
        at: Where,
        /// The entry
        object: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Put an entry into the menu, or take it out
    Displayorder {
        #[command(flatten)]
        at: Where,
        /// The entry
        object: String,
        /// To the start; to the end when neither is given
        #[arg(long, conflicts_with = "remove")]
        first: bool,
        /// Out of the menu
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        changing: Changing,
    },
    /// For how many seconds the menu waits
    Timeout {
        #[command(flatten)]
        at: Where,
        /// Seconds
        seconds: u64,
        #[command(flatten)]
        changing: Changing,
    },
    /// Copy the store into a file, as bcdedit /export does
    Export {
        #[command(flatten)]
        at: Where,
        /// The new file
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Replace the store by a file that was exported
    Import {
        #[command(flatten)]
        at: Where,
        /// The file
        file: PathBuf,
        #[command(flatten)]
        changing: Changing,
    },
    /// What bcdboot does: boot files and a store that start this installation; what is good is kept
    Rebuild {
        #[command(flatten)]
        image: Image,
        /// Number of the system partition, when there are several
        #[arg(long, value_name = "N")]
        system: Option<u32>,
        #[command(flatten)]
        changing: Changing,
    },
}

pub(super) fn bcd(command: Bcd) -> Result<u8> {
    match command {
        Bcd::Enum { at, aliases } => enumerated(&at, aliases),
        Bcd::Set { at, object, element, value, changing } => {
            let words: Vec<&str> = value.iter().map(String::as_str).collect();
            let title = format!("bcd set {object} {element} {}", words.join(" "));
            edit(&at, &title, &changing, |store, map| store.set(&object, &element, &words, map))
        }
        Bcd::Delete { at, object, element: Some(element), changing } => {
            edit(&at, &format!("bcd delete {object} {element}"), &changing, |store, _| {
                store.delete_value(&object, &element).map(|_| ())
            })
        }
        Bcd::Delete { at, object, element: None, changing } => {
            edit(&at, &format!("bcd delete {object}"), &changing, |store, _| store.delete(&object))
        }
        Bcd::Create { at, object, description, changing } => {
            edit(&at, "bcd create", &changing, |store, _| match &object {
                Some(alias) => {
                    let (id, kind) = names::known_object(alias).ok_or_else(|| {
                        Error::invalid(Layer::Bcd, "no well-known object has this name").found(alias)
                    })?;
                    store.create(id, kind)
                }
                None => {
                    let id = Guid::random();
                    store.create(id, names::TYPE_OSLOADER)?;
                    let text = vmrescue_windows::bcd::Value::Text(description.clone());
                    store.put(id, names::TYPE_OSLOADER, 0x1200_0004, text)
                }
            })
        }
        Bcd::Copy { at, object, description, changing } => {
            edit(&at, &format!("bcd copy {object}"), &changing, |store, _| {
                store.copy(&object, Guid::random(), &description)
            })
        }
        Bcd::Default { at, object, changing } => {
            edit(&at, &format!("bcd default {object}"), &changing, |store, _| store.set_default(&object))
        }
        Bcd::Displayorder { at, object, first, remove, changing } => {
            let place = match (first, remove) {
                (true, _) => Place::First,
                (_, true) => Place::Remove,
                _ => Place::Last,
            };
            edit(&at, &format!("bcd displayorder {object}"), &changing, |store, _| {
                let id = store.resolve(&object)?;
                store.order(names::BOOTMGR, 0x2400_0001, id, place)
            })
        }
        Bcd::Timeout { at, seconds, changing } => {
            edit(&at, &format!("bcd timeout {seconds}"), &changing, |store, _| store.set_timeout(seconds))
        }
        Bcd::Export { at, file, output } => {
            let (hive, _, _) = opened(&at)?;
            output.rules(&at.image)?.write(&file, hive.bytes())?;
            say(&format!("{}", file.display()))?;
            Ok(CLEAN)
        }
        Bcd::Import { at, file, changing } => {
            let other = Store::load(&read_hive(&file)?)?;
            edit(&at, &format!("bcd import {}", file.display()), &changing, |store, _| {
                store.objects = other.objects.clone();
                Ok(())
            })
        }
        Bcd::Rebuild { image, system, changing } => {
            change::changes(&image, "bcd rebuild", &changing, |machine: &Machine| {
                let planned = rebuild_boot(machine, machine.installation(image.windows)?, system)?;
                planned.notes.iter().for_each(|note| super::say_error(&format!("note: {note}")));
                Ok(planned.changes)
            })
        }
    }
}

/// The store's guest path on a disk.
fn store_path(machine: &Machine, at: &Where) -> Result<String> {
    if let Some(path) = &at.store {
        GuestPath::parse(path)?;
        return Ok(path.clone());
    }
    let all = boot_stores(machine);
    match all.as_slice() {
        [] => Err(Error::not_found(Layer::Bcd, "the disk has no boot configuration store")
            .expected(r"\EFI\Microsoft\Boot\BCD or \Boot\BCD")
            .advice("`vmrescue bcd rebuild IMAGE` makes one")),
        [one] => Ok(one.clone()),
        several => {
            // The one that the firmware starts from, when there is one only.
            let layout = vmrescue_windows::boot_layout(machine);
            let own = layout.system_volume(machine, None).map(|volume| layout.store_path(machine, volume));
            own.ok().filter(|path| several.contains(path)).ok_or_else(|| {
                Error::refused(Layer::Bcd, "there are several boot stores")
                    .found(several.join(", "))
                    .advice("choose one with --store PATH")
            })
        }
    }
}

fn opened(at: &Where) -> Result<(Hive, DiskMap, Option<String>)> {
    if is_bare(&at.image)? {
        super::history::tell_unfinished(&at.image.image);
        return Ok((read_hive(&at.image.image)?, DiskMap::default(), None));
    }
    let (_, machine, _) = look::open(&at.image)?;
    let path = store_path(&machine, at)?;
    Ok((hive_at(&machine, &path)?, machine.disk_map(), Some(path)))
}

/// Edits the store in memory; the difference becomes the change.
fn edit(
    at: &Where,
    title: &str,
    changing: &Changing,
    work: impl Fn(&mut Store, &DiskMap) -> Result<()>,
) -> Result<u8> {
    let differences = |hive: &Hive, map: &DiskMap, path: &str| -> Result<Vec<Change>> {
        let before = Store::load(hive)?;
        let mut after = before.clone();
        work(&mut after, map)?;
        Ok(store_changes(path, &before, &after))
    };
    if is_bare(&at.image)? {
        let path = at.image.image.display().to_string();
        return change::on_hive(&at.image, title, changing, |hive| {
            differences(hive, &DiskMap::default(), &path)
        });
    }
    change::changes(&at.image, title, changing, |machine: &Machine| {
        let path = store_path(machine, at)?;
        differences(&hive_at(machine, &path)?, &machine.disk_map(), &path)
    })
}

fn enumerated(at: &Where, aliases: bool) -> Result<u8> {
    let (hive, map, path) = opened(at)?;
    let store = Store::load(&hive)?;
    let options = Options { aliases };
    for defect in &store.defects {
        super::say_error(&format!("warning: {defect}"));
    }
    if at.image.json {
        say_of(&at.image, "bcd-enum", json!({"store": path, "objects": view(&store, &map, options)}))?;
    } else {
        say(enumerate(&store, &map, options).trim_end())?;
    }
    Ok(CLEAN)
}
