//! `bcd`: the boot configuration store of a disk, or a store in a file of its own.

use super::registry::{hive_at, is_bare};
use super::{CLEAN, Image, look, say, say_json};
use crate::error::Result;
use crate::repair::{key_path, read_hive};
use crate::windows::bcd::{DiskMap, Options, Store, enumerate};
use clap::Subcommand;
use serde_json::json;

/// `vmrescue bcd ...`
#[derive(Debug, Subcommand)]
pub(super) enum Bcd {
    /// The boot configuration store, as bcdedit /enum all shows it
    Enum {
        #[command(flatten)]
        image: Image,
    },
}

pub(super) fn bcd(command: Bcd) -> Result<u8> {
    let Bcd::Enum { image } = command;
    let (hive, map) = match is_bare(&image)? {
        true => (read_hive(&image.image)?, DiskMap::default()),
        false => {
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
