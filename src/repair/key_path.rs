//! Registry paths as users type them, to the file of a hive and the key inside.

use crate::error::{Error, Layer, Result};
use crate::windows::{HIVES, Installation, Machine};

/// A key, by the file of its hive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath {
    /// Guest path of the hive's file.
    pub hive: String,
    /// Path below the root; `CurrentControlSet` is already a number.
    pub key: String,
}

/// Resolves `HKLM\SYSTEM\CurrentControlSet\...`, `HKLM\SOFTWARE\...`, `BCD\...` and the other hives of `config`.
/// `CurrentControlSet` is the control set that the machine will start with next (`Select\Default`).
///
/// # Errors
/// `Invalid` for other paths; `NotFound` when the disk has no boot store.
pub fn key_path(machine: &Machine, installation: &Installation, text: &str) -> Result<KeyPath> {
    let parts: Vec<&str> = text.split(['\\', '/']).filter(|part| !part.is_empty()).collect();
    let bad = || {
        Error::invalid(Layer::Windows, "this registry path is not known")
            .found(text)
            .advice(r"write HKLM\SYSTEM\..., HKLM\SOFTWARE\..., HKLM\COMPONENTS\..., BCD\...")
    };
    let is = |part: Option<&&str>, names: &[&str]| {
        part.is_some_and(|part| names.iter().any(|name| part.eq_ignore_ascii_case(name)))
    };
    if is(parts.first(), &["BCD", "BCD00000000"]) {
        return Ok(KeyPath { hive: boot_store(machine)?, key: parts[1..].join("\\") });
    }
    let rest = match parts.as_slice() {
        [first, rest @ ..] if is(Some(first), &["HKLM", "HKEY_LOCAL_MACHINE"]) => rest,
        _ => return Err(bad()),
    };
    let Some((name, keys)) = rest.split_first() else { return Err(bad()) };
    let hive = HIVES.iter().find(|hive| hive.eq_ignore_ascii_case(name)).ok_or_else(bad)?;
    let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_string()).collect();
    if *hive == "SYSTEM" && keys.first().is_some_and(|key| key.eq_ignore_ascii_case("CurrentControlSet")) {
        keys[0] = format!("ControlSet{:03}", installation.control_sets.default.max(1));
    }
    Ok(KeyPath { hive: format!(r"{}\System32\config\{hive}", installation.path), key: keys.join("\\") })
}

/// Guest path of the boot configuration store.
fn boot_store(machine: &Machine) -> Result<String> {
    let places = [r"\EFI\Microsoft\Boot\BCD", r"\Boot\BCD"];
    for volume in machine.volumes.iter().filter(|volume| volume.fs.is_some()) {
        let Some(fs) = &volume.fs else { continue };
        for place in places {
            let parts: Vec<&str> = place.split('\\').filter(|part| !part.is_empty()).collect();
            if crate::fs::resolve(&**fs, &parts).ok().flatten().is_some() {
                return Ok(format!("#{}:{place}", volume.number));
            }
        }
    }
    Err(Error::not_found(Layer::Bcd, "the disk has no boot configuration store")
        .expected(places.join(" or ")))
}
