//! Services and drivers of a control set, each with the file behind it.

use super::machine::{Installation, Machine};
use super::program::Content;
use super::unread::{Unread, Unseen, Weight};
use serde::Serialize;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_fs::resolve;
use vmrescue_registry::{Hive, Key, ValueData};

/// A service or driver.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Service {
    /// Name of its key.
    pub name: String,
    /// 0 boot, 1 system, 2 automatic, 3 on demand, 4 disabled.
    pub start: Option<u32>,
    /// Value 0 of the key `StartOverride`, which the loader takes in place of `Start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_override: Option<u32>,
    /// 1 kernel driver, 2 file system driver, 0x10 and 0x20 services.
    pub kind: Option<u32>,
    /// Load order group.
    pub group: String,
    /// Place in its group, looked up in `GroupOrderList`.
    pub tag: Option<u32>,
    /// What a failure does: 0 ignored, 1 logged, 2 last known good, 3 stops the start.
    pub error_control: Option<u32>,
    /// Groups of which at least one member has to be loaded before.
    pub depend_on_group: Vec<String>,
    /// Services that have to run before.
    pub depend_on_service: Vec<String>,
    /// The library that svchost loads for it.
    pub service_dll: Option<String>,
    /// ImagePath as it stands in the registry.
    pub image_path: String,
    /// The file in the guest.
    pub file: Option<String>,
    /// Length of that file; `None` when it is not there.
    pub size: Option<u64>,
    /// Version of that file.
    pub version: Option<String>,
    /// What is wrong with the file.
    pub problem: Option<String>,
}

impl Service {
    /// True for kernel and file system drivers.
    pub fn is_driver(&self) -> bool {
        matches!(self.kind, Some(1 | 2 | 8))
    }

    /// The start that the loader goes by.
    pub fn effective_start(&self) -> Option<u32> {
        self.start_override.or(self.start)
    }

    /// The word for the start value.
    pub fn start_name(&self) -> &'static str {
        match self.start {
            Some(0) => "boot",
            Some(1) => "system",
            Some(2) => "auto",
            Some(3) => "demand",
            Some(4) => "disabled",
            _ => "?",
        }
    }

    /// The word for the type.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Some(1) => "kernel",
            Some(2) => "file-system",
            Some(4) => "adapter",
            Some(8) => "recognizer",
            Some(kind) if kind & 0x10 != 0 => "own-process",
            Some(kind) if kind & 0x20 != 0 => "shared-process",
            _ => "?",
        }
    }
}

/// Components from the root of the Windows volume of an ImagePath; drivers without one have their usual place.
/// `None` for paths that cannot be resolved here.
pub fn expand_image_path(image_path: &str, name: &str, driver: bool) -> Option<Vec<String>> {
    let trimmed = image_path.trim();
    let bare = if let Some(quoted) = trimmed.strip_prefix('"') {
        quoted.split('"').next()?
    } else {
        // Arguments follow the file's extension.
        let lower = trimmed.to_ascii_lowercase();
        let end = [".exe", ".sys"].iter().filter_map(|ext| lower.find(ext).map(|at| at + 4)).min();
        end.and_then(|end| trimmed.get(..end)).unwrap_or(trimmed)
    };
    if bare.is_empty() {
        let file = format!("{name}.sys");
        return driver.then(|| {
            ["Windows", "System32", "drivers"].map(String::from).into_iter().chain([file]).collect()
        });
    }
    let lower = bare.to_ascii_lowercase();
    let rest = |prefix: &str| lower.starts_with(prefix).then(|| bare.get(prefix.len()..)).flatten();
    let windows = [r"\systemroot\", r"%systemroot%\", r"%windir%\"].iter().find_map(|prefix| rest(prefix));
    let path = if let Some(rest) = windows {
        format!(r"Windows\{rest}")
    } else if lower.starts_with(r"system32\") || lower.starts_with(r"syswow64\") {
        format!(r"Windows\{bare}")
    } else {
        let without = rest(r"\??\").unwrap_or(bare);
        without.get(1..3).filter(|colon| *colon == r":\").and_then(|_| without.get(3..))?.to_string()
    };
    Some(path.split('\\').filter(|part| !part.is_empty()).map(String::from).collect())
}

/// Services and drivers of control set `number`, boot-start ones first. With `files`, each file is looked at.
///
/// # Errors
/// `NotFound` when the control set has no services; damage of the hive, were it in a single service.
pub fn services(
    machine: &Machine,
    installation: &Installation,
    hive: &Hive,
    number: u32,
    files: bool,
) -> Result<Vec<Service>> {
    let unseen = Unseen::default();
    let list = services_seen(machine, installation, hive, number, files, &unseen)?;
    match unseen.list().into_iter().find(|lost| lost.weight == Weight::Critical) {
        None => Ok(list),
        Some(lost) => Err(Error::damaged(Layer::Windows, lost.what).found(lost.why)),
    }
}

/// As [`services`]; a service that cannot be read is noted in `unseen`, and the others are told.
///
/// # Errors
/// `NotFound` when the control set has no services; damage of the key itself.
pub fn services_seen(
    machine: &Machine,
    installation: &Installation,
    hive: &Hive,
    number: u32,
    files: bool,
    unseen: &Unseen,
) -> Result<Vec<Service>> {
    let path = format!(r"ControlSet{number:03}\Services");
    let place = format!(r"HKLM\SYSTEM\{path}");
    let key = hive
        .key(&path)?
        .ok_or_else(|| Error::not_found(Layer::Windows, "the control set has no services").found(&path))?;
    let (entries, lost) = key.subkeys_lenient();
    for e in &lost {
        unseen.note(Unread::of("services and drivers", &place, Weight::Critical, e));
    }
    let said = key.subkey_count() as usize;
    if lost.is_empty() && entries.len() < said {
        let why = format!("{} of its {said} subkeys are in its list", entries.len());
        unseen.note(Unread::new("services and drivers", &place, why, Weight::Critical));
    }
    let mut list = Vec::new();
    for entry in entries {
        let own = || format!(r"{place}\{}", entry.name());
        let Some(Some(mut service)) =
            unseen.seen("a service or driver", own(), Weight::Critical, service_of(&entry, &own(), unseen))
        else {
            continue;
        };
        if files {
            // The file of a boot driver decides whether the machine starts; the others do not.
            let weight = if service.start == Some(0) { Weight::Critical } else { Weight::Partial };
            let looked = look_at_file(machine, installation, &mut service);
            unseen.seen("the file of a service", own(), weight, looked);
        }
        list.push(service);
    }
    list.sort_by_key(|service| {
        (service.start.unwrap_or(9), !service.is_driver(), service.name.to_lowercase())
    });
    Ok(list)
}

/// What a key of `Services` says; `None` for one that is no service.
fn service_of(entry: &Key<'_>, place: &str, unseen: &Unseen) -> Result<Option<Service>> {
    let value = |name: &str| -> Result<Option<ValueData>> {
        entry.value(name)?.map(|value| value.typed()).transpose()
    };
    let number = |name: &str| -> Result<Option<u32>> {
        Ok(match value(name)? {
            Some(ValueData::Number(number)) => u32::try_from(number).ok(),
            // A value of another type is none for Windows, too.
            _ => None,
        })
    };
    let text = |name: &str| -> Result<String> {
        Ok(match value(name)? {
            Some(ValueData::Text(text)) => text,
            _ => String::new(),
        })
    };
    let texts = |name: &str| -> Result<Vec<String>> {
        Ok(match value(name)? {
            Some(ValueData::Texts(texts)) => texts.into_iter().filter(|text| !text.is_empty()).collect(),
            _ => Vec::new(),
        })
    };
    let (start, kind) = (number("Start")?, number("Type")?);
    if start.is_none() && kind.is_none() {
        return Ok(None);
    }
    let dll = || -> Result<Option<String>> {
        let Some(parameters) = entry.subkey("Parameters")? else { return Ok(None) };
        Ok(parameters.value("ServiceDll")?.and_then(|value| value.as_string()))
    };
    let service_dll = unseen.seen("the parameters of a service", place, Weight::Partial, dll()).flatten();
    let over = || -> Result<Option<u32>> {
        let Some(key) = entry.subkey("StartOverride")? else { return Ok(None) };
        Ok(key.value("0")?.and_then(|value| value.as_u32()))
    };
    let start_override = unseen.seen("StartOverride of a driver", place, Weight::Critical, over()).flatten();
    Ok(Some(Service {
        name: entry.name(),
        start,
        start_override,
        kind,
        group: text("Group")?,
        tag: number("Tag")?,
        error_control: number("ErrorControl")?,
        depend_on_group: texts("DependOnGroup")?,
        depend_on_service: texts("DependOnService")?,
        service_dll,
        image_path: text("ImagePath")?,
        file: None,
        size: None,
        version: None,
        problem: None,
    }))
}

fn look_at_file(machine: &Machine, installation: &Installation, service: &mut Service) -> Result<()> {
    let Some(path) = expand_image_path(&service.image_path, &service.name, service.is_driver()) else {
        return Ok(());
    };
    let fs = machine.file_system(installation.volume)?;
    let volume = installation.path.split('\\').next().unwrap_or_default();
    service.file = Some(format!("{volume}\\{}", path.join("\\")));
    let Some(node) = resolve(&*fs, &path)? else {
        service.problem = Some("the file is missing".into());
        return Ok(());
    };
    service.size = Some(fs.metadata(node)?.size_bytes);
    if !service.is_driver() {
        return Ok(());
    }
    let program = match machine.program(installation.volume, node, false) {
        Ok(program) => program,
        // A file of the guest, not the disk of the host: it is the driver that cannot be loaded.
        Err(e) => {
            service.problem = Some(e.message().to_string());
            return Ok(());
        }
    };
    service.problem = match &program.content {
        Content::Empty => Some("the file is empty".into()),
        Content::Zeroed => Some("the file is filled with zeros".into()),
        Content::Broken(why) => Some(why.clone()),
        Content::Program(pe) => {
            service.version.clone_from(&pe.file_version);
            let own = super::machine_name(pe.machine);
            if own != installation.architecture {
                Some(format!("built for {own}"))
            } else {
                (!pe.checksum_right).then(|| "its checksum is wrong".into())
            }
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::expand_image_path;

    #[test]
    fn image_paths_are_found_as_the_loader_finds_them() {
        let path = |text: &str| expand_image_path(text, "disk", true).map(|parts| parts.join("\\"));
        assert_eq!(path("").as_deref(), Some(r"Windows\System32\drivers\disk.sys"));
        assert_eq!(path(r"System32\drivers\ACPI.sys").as_deref(), Some(r"Windows\System32\drivers\ACPI.sys"));
        assert_eq!(path(r"\SystemRoot\System32\x.sys").as_deref(), Some(r"Windows\System32\x.sys"));
        assert_eq!(
            path(r"%SystemRoot%\system32\svchost.exe -k net").as_deref(),
            Some(r"Windows\system32\svchost.exe")
        );
        assert_eq!(path(r#""C:\Program Files\a b\c.exe" /x"#).as_deref(), Some(r"Program Files\a b\c.exe"));
        assert_eq!(path(r"\??\C:\d\e.sys").as_deref(), Some(r"d\e.sys"));
        assert_eq!(path(r"\\server\share\e.sys"), None);
    }
}
