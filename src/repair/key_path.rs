//! Registry paths as users type them, to the file of a hive and the key inside.

use std::borrow::Cow;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_windows::{HIVES, Installation, Machine, boot_stores};

/// A key, by the file of its hive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath {
    /// Guest path of the hive's file.
    pub hive: String,
    /// Path below the root; `CurrentControlSet` is already a number.
    pub key: String,
}

/// Resolves `HKLM\SYSTEM\CurrentControlSet\...`, `HKLM\SOFTWARE\...`, `BCD\...`, the other hives of `config`,
/// `HKU\<sid or name>\...`, `HKCR\...` and `AmCache\...`.
/// `CurrentControlSet` is the control set that the machine will start with next (`Select\Default`).
///
/// # Errors
/// `Invalid` for other paths; `NotFound` when the disk has no boot store.
pub fn key_path(machine: &Machine, installation: &Installation, text: &str) -> Result<KeyPath> {
    let parts = parts(text);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let bad = || {
        Error::invalid(Layer::Windows, "this registry path is not known")
            .found(text)
            .advice(r"write HKLM\SYSTEM\..., HKLM\SOFTWARE\..., HKLM\COMPONENTS\..., HKU\<sid or name>\..., HKCR\..., BCD\..., AmCache\...")
    };
    let is = |part: Option<&&str>, names: &[&str]| {
        part.is_some_and(|part| names.iter().any(|name| part.eq_ignore_ascii_case(name)))
    };
    if is(parts.first(), &["BCD", "BCD00000000"]) {
        return Ok(KeyPath { hive: boot_store(machine)?, key: parts[1..].join("\\") });
    }
    if is(parts.first(), &["AmCache"]) {
        let hive = format!(r"{}\AppCompat\Programs\Amcache.hve", installation.path);
        return Ok(KeyPath { hive, key: parts[1..].join("\\") });
    }
    if is(parts.first(), &["HKCR", "HKEY_CLASSES_ROOT"]) {
        let key = std::iter::once("Classes").chain(parts[1..].iter().copied()).collect::<Vec<_>>().join("\\");
        return Ok(KeyPath { hive: format!(r"{}\System32\config\SOFTWARE", installation.path), key });
    }
    if is(parts.first(), &["HKU", "HKEY_USERS"]) {
        let user = parts.get(1).ok_or_else(bad)?;
        return Ok(KeyPath { hive: user_hive(machine, installation, user)?, key: parts[2..].join("\\") });
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

/// A path without what other programs put before its root: `Computer\` of regedit's address bar, `Registry::` of PowerShell, the `:`
/// of its drives (`HKLM:\`).
pub fn plain_root(text: &str) -> Cow<'_, str> {
    const SEPARATORS: [char; 2] = ['\\', '/'];
    let mut rest = text.trim_start_matches(SEPARATORS);
    for before in ["Microsoft.PowerShell.Core\\", "Registry::", "Computer\\"] {
        if rest.get(..before.len()).is_some_and(|start| start.eq_ignore_ascii_case(before)) {
            rest = &rest[before.len()..];
        }
    }
    let end = rest.find(SEPARATORS).unwrap_or(rest.len());
    match rest[..end].strip_suffix(':') {
        Some(root) if root.len() >= 3 => Cow::Owned(format!("{root}{}", &rest[end..])),
        _ if rest.len() == text.trim_start_matches(SEPARATORS).len() => Cow::Borrowed(text),
        _ => Cow::Borrowed(rest),
    }
}

/// The first names of a path, which lead to a hive and are never parts of a name with `/`, and what is left as one part: there only
/// `\` separates.
fn parts(text: &str) -> Vec<String> {
    const SEPARATORS: [char; 2] = ['\\', '/'];
    let text = plain_root(text);
    let mut rest = text.trim_start_matches(SEPARATORS);
    let mut found = Vec::new();
    let mut wanted = 1;
    while found.len() < wanted && !rest.is_empty() {
        let (name, after) = rest.split_once(SEPARATORS).unwrap_or((rest, ""));
        found.push(name.to_string());
        rest = after.trim_start_matches(SEPARATORS);
        let deep = ["HKU", "HKEY_USERS", "HKLM", "HKEY_LOCAL_MACHINE"];
        if found.len() == 1 && deep.iter().any(|root| name.eq_ignore_ascii_case(root)) {
            wanted = 2;
        } else if found.len() == 2 && name.eq_ignore_ascii_case("SYSTEM") {
            // `CurrentControlSet` is another name of a key.
            wanted = 3;
        }
    }
    let rest: Vec<&str> = vmrescue_registry::path::names(rest).collect();
    if !rest.is_empty() {
        found.push(rest.join("\\"));
    }
    found
}

/// Guest path of a user's hive: by security id, by the name of the profile's folder, or `.DEFAULT`. `<user>_Classes` is the
/// hive of the user's classes.
fn user_hive(machine: &Machine, installation: &Installation, user: &str) -> Result<String> {
    if [".DEFAULT", "S-1-5-18"].iter().any(|known| user.eq_ignore_ascii_case(known)) {
        return Ok(format!(r"{}\System32\config\DEFAULT", installation.path));
    }
    let classes = user.len() > 8 && user.to_ascii_lowercase().ends_with("_classes");
    let name = if classes { &user[..user.len() - 8] } else { user };
    let software = machine.hive(installation, "SOFTWARE")?;
    let list = software.key(r"Microsoft\Windows NT\CurrentVersion\ProfileList")?;
    let volume = installation.path.split('\\').next().unwrap_or_default();
    let mut known = Vec::new();
    for profile in list.map(|list| list.subkeys()).transpose()?.unwrap_or_default() {
        let path = profile.value("ProfileImagePath")?.and_then(|value| value.as_string()).unwrap_or_default();
        let folder = path.rsplit('\\').next().unwrap_or_default().to_string();
        if profile.name().eq_ignore_ascii_case(name) || folder.eq_ignore_ascii_case(name) {
            // The path begins with a letter or a variable that stands for the volume of Windows.
            let inside = path.split_once('\\').map_or("", |(_, inside)| inside);
            let lower = path.to_ascii_lowercase();
            let base = if lower.starts_with("%systemroot%") || lower.starts_with("%windir%") {
                format!(r"{}\{inside}", installation.path)
            } else {
                format!(r"{volume}\{inside}")
            };
            let file = if classes { r"AppData\Local\Microsoft\Windows\UsrClass.dat" } else { "NTUSER.DAT" };
            return Ok(format!(r"{base}\{file}"));
        }
        known.push(format!("{folder} ({})", profile.name()));
    }
    Err(Error::not_found(Layer::Windows, format!("no user {user}")).expected(known.join(", ")))
}

/// Guest path of the boot configuration store: the one that the firmware would start from, else any.
fn boot_store(machine: &Machine) -> Result<String> {
    boot_stores(machine).into_iter().next().ok_or_else(|| {
        Error::not_found(Layer::Bcd, "the disk has no boot configuration store")
            .expected(r"\EFI\Microsoft\Boot\BCD or \Boot\BCD")
            .advice("`vmrescue bcd rebuild IMAGE` makes one")
    })
}
