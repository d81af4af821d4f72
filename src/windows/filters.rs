//! Filter drivers of device classes (`Control\Class\{guid}`) and of single devices (`Enum\bus\device\instance`).
//!
//! A filter that is named and cannot be loaded keeps its device from starting; in the classes below the boot disk that is bug check
//! 0x7B (INACCESSIBLE_BOOT_DEVICE). Missing: filters of file systems (the filter manager loads those as services), class filters that
//! a driver's INF sets with `AddFilter` positions (`Filters` subkeys of Windows 10 1903 and later) are read as names only.

use super::services::Service;
use super::unread::{Unread, Unseen, Weight};
use serde::Serialize;
use vmrescue_registry::{Hive, Key, ValueData};

/// Classes whose devices are in the stack below the system volume: class GUID and name. Disk and volume come first.
const BOOT_CLASSES: [(&str, &str); 6] = [
    ("{4d36e967-e325-11ce-bfc1-08002be10318}", "DiskDrive"),
    ("{71a27cdd-812a-11d0-bec7-08002be2092f}", "Volume"),
    ("{4d36e97b-e325-11ce-bfc1-08002be10318}", "SCSIAdapter"),
    ("{4d36e96a-e325-11ce-bfc1-08002be10318}", "HDC"),
    ("{4d36e97d-e325-11ce-bfc1-08002be10318}", "System"),
    ("{4d36e966-e325-11ce-bfc1-08002be10318}", "Computer"),
];
/// What is read here, in words.
const FILTERS: &str = "filters of device classes";
/// Devices that are looked at; a large server has some thousands.
const MAX_DEVICES: usize = 1 << 16;

/// Where a filter sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilterPlace {
    /// `UpperFilters`: above the function driver.
    Upper,
    /// `LowerFilters`: below it.
    Lower,
}

impl FilterPlace {
    /// Name of the value.
    pub fn value_name(self) -> &'static str {
        match self {
            FilterPlace::Upper => "UpperFilters",
            FilterPlace::Lower => "LowerFilters",
        }
    }
}

/// One name in an `UpperFilters` or `LowerFilters` value.
#[derive(Debug, Clone, Serialize)]
pub struct Filter {
    /// Upper or lower.
    pub place: FilterPlace,
    /// GUID of the class.
    pub class: String,
    /// Name of the class, where it has one.
    pub class_name: String,
    /// `bus\device\instance` when one device names it, not its class.
    pub device: Option<String>,
    /// Key from the root of the hive.
    pub key: String,
    /// Name of the driver's service.
    pub driver: String,
    /// Start of that service; `None` when there is no such service.
    pub start: Option<u32>,
    /// The device is in the stack below the system volume.
    pub boot: bool,
    /// What keeps the filter from being loaded.
    pub problem: Option<String>,
}

fn filters_of(
    unseen: &Unseen,
    key: &Key<'_>,
    path: &str,
    class: &str,
    class_name: &str,
    device: Option<&str>,
    list: &mut Vec<Filter>,
) {
    let boot = BOOT_CLASSES.iter().any(|(guid, _)| guid.eq_ignore_ascii_case(class));
    for place in [FilterPlace::Upper, FilterPlace::Lower] {
        // Whether the disk starts cannot be told without the filters of its own classes.
        let weight = if boot { Weight::Critical } else { Weight::Partial };
        let names = match data(unseen, key, path, place.value_name(), weight) {
            Some(ValueData::Texts(names)) => names.into_iter().filter(|name| !name.is_empty()).collect(),
            // Some installers write one name as REG_SZ.
            Some(ValueData::Text(name)) => vec![name],
            // Another type names no driver, for Windows, too.
            Some(ValueData::Number(_) | ValueData::Bytes(_)) | None => Vec::new(),
        };
        for driver in names {
            list.push(Filter {
                place,
                class: class.into(),
                class_name: class_name.into(),
                device: device.map(String::from),
                key: path.into(),
                driver,
                start: None,
                boot,
                problem: None,
            });
        }
    }
}

/// The data of a value, or a note of why it cannot be read.
fn data(unseen: &Unseen, key: &Key<'_>, path: &str, name: &str, weight: Weight) -> Option<ValueData> {
    let value = key.value(name).and_then(|value| value.map(|value| value.typed()).transpose());
    unseen.seen(FILTERS, format!(r"HKLM\SYSTEM\{path}: {name}"), weight, value).flatten()
}

/// A text that is not needed to tell whether the machine starts.
fn text(unseen: &Unseen, key: &Key<'_>, path: &str, name: &str) -> Option<String> {
    match data(unseen, key, path, name, Weight::Partial)? {
        ValueData::Text(text) => Some(text),
        // Another type is no text, for Windows, too.
        ValueData::Number(_) | ValueData::Bytes(_) | ValueData::Texts(_) => None,
    }
}

/// The keys below that can be read; what cannot is noted.
fn below<'k>(unseen: &Unseen, key: &Key<'k>, path: &str, weight: Weight) -> Vec<Key<'k>> {
    let (keys, lost) = key.subkeys_lenient();
    for e in &lost {
        unseen.note(Unread::of(FILTERS, format!(r"HKLM\SYSTEM\{path}"), weight, e));
    }
    keys
}

/// All filters of control set `number`, classes first. `services` are those of the same set, with their files looked at where
/// problems of files shall be seen. What cannot be read is noted.
pub fn filters(hive: &Hive, number: u32, services: &[Service], unseen: &Unseen) -> Vec<Filter> {
    let mut list = Vec::new();
    let path = format!(r"ControlSet{number:03}\Control\Class");
    let mut class_names = Vec::new();
    let classes = unseen.seen(FILTERS, &path, Weight::Critical, hive.key(&path)).flatten();
    if let Some(classes) = classes {
        for class in below(unseen, &classes, &path, Weight::Critical) {
            let guid = class.name();
            let own = format!(r"{path}\{guid}");
            let known = BOOT_CLASSES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&guid));
            let said = || ["Class", ""].iter().find_map(|name| text(unseen, &class, &own, name));
            // A class that has no name is called by its GUID.
            let name = known.map(|(_, name)| (*name).to_string()).or_else(said).unwrap_or_default();
            filters_of(unseen, &class, &own, &guid, &name, None, &mut list);
            class_names.push((guid, name));
        }
    }
    let path = format!(r"ControlSet{number:03}\Enum");
    let mut seen = 0;
    let buses = unseen.seen(FILTERS, &path, Weight::Partial, hive.key(&path)).flatten();
    if let Some(buses) = buses {
        for bus in below(unseen, &buses, &path, Weight::Partial) {
            let place = format!(r"{path}\{}", bus.name());
            for device in below(unseen, &bus, &place, Weight::Partial) {
                let place = format!(r"{place}\{}", device.name());
                for instance in below(unseen, &device, &place, Weight::Partial) {
                    seen += 1;
                    if seen > MAX_DEVICES {
                        break;
                    }
                    let own = format!(r"{place}\{}", instance.name());
                    // A device without a class has filters of its own only.
                    let class = text(unseen, &instance, &own, "ClassGUID").unwrap_or_default();
                    let name = class_names.iter().find(|(guid, _)| guid.eq_ignore_ascii_case(&class));
                    let name = name.map_or("", |(_, name)| name.as_str());
                    let id = format!(r"{}\{}\{}", bus.name(), device.name(), instance.name());
                    filters_of(unseen, &instance, &own, &class, name, Some(&id), &mut list);
                }
            }
        }
    }
    for filter in &mut list {
        judge(filter, services);
    }
    list
}

fn judge(filter: &mut Filter, services: &[Service]) {
    let Some(service) = services.iter().find(|service| service.name.eq_ignore_ascii_case(&filter.driver))
    else {
        filter.problem = Some("dangling: there is no such service".into());
        return;
    };
    filter.start = service.start;
    filter.problem = if service.start == Some(4) {
        Some("its service is disabled".into())
    } else if let Some(problem) = &service.problem {
        Some(format!("its file cannot be loaded: {problem}"))
    } else if filter.boot
        && filter.device.is_none()
        && service.effective_start().is_some_and(|start| start > 0)
        && is_disk_class(&filter.class)
    {
        let how = if service.start == Some(0) { "StartOverride" } else { service.start_name() };
        Some(format!("starts too late for the boot disk (start {how})"))
    } else {
        None
    };
}

/// Classes of the system disk and volume themselves, whose filters have to be loaded by the boot loader.
fn is_disk_class(class: &str) -> bool {
    BOOT_CLASSES.iter().take(2).any(|(guid, _)| guid.eq_ignore_ascii_case(class))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmrescue_base::text::utf16le_bytes;
    use vmrescue_base::time::FileTime;
    use vmrescue_registry::{DataType, HiveEditor};

    #[test]
    fn dangling_and_late_filters_are_marked() {
        let mut editor = HiveEditor::new_hive("ROOT").unwrap();
        let class = r"ControlSet001\Control\Class\{4D36E967-E325-11CE-BFC1-08002BE10318}";
        let multi = utf16le_bytes("partmgr\0gone\0late\0\0");
        editor.set_value(class, "UpperFilters", DataType::MULTI_SZ, &multi).unwrap();
        let device = r"ControlSet001\Enum\ROOT\x\0000";
        editor.set_value(device, "LowerFilters", DataType::SZ, &utf16le_bytes("off\0")).unwrap();
        let hive = Hive::parse(editor.finish(FileTime(0)).unwrap().bytes).unwrap();
        let service = |name: &str, start| Service {
            name: name.into(),
            start: Some(start),
            kind: Some(1),
            ..Service::default()
        };
        let services = [service("partmgr", 0), service("late", 3), service("off", 4)];
        let found = filters(&hive, 1, &services, &Unseen::default());
        let of = |name: &str| found.iter().find(|filter| filter.driver == name).unwrap();
        assert_eq!(found.len(), 4);
        assert!(of("partmgr").problem.is_none() && of("partmgr").boot);
        assert_eq!(of("partmgr").class_name, "DiskDrive");
        assert!(of("gone").problem.as_ref().unwrap().starts_with("dangling"));
        assert!(of("late").problem.as_ref().unwrap().contains("too late"));
        assert_eq!(
            (of("off").place, of("off").problem.as_deref()),
            (FilterPlace::Lower, Some("its service is disabled"))
        );
        assert_eq!(of("off").device.as_deref(), Some(r"ROOT\x\0000"));
    }
}
