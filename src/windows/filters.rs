//! Filter drivers of device classes (`Control\Class\{guid}`) and of single devices (`Enum\bus\device\instance`).
//!
//! A filter that is named and cannot be loaded keeps its device from starting; in the classes below the boot disk that is bug check
//! 0x7B (INACCESSIBLE_BOOT_DEVICE). Missing: filters of file systems (the filter manager loads those as services), class filters that
//! a driver's INF sets with `AddFilter` positions (`Filters` subkeys of Windows 10 1903 and later) are read as names only.

use super::services::Service;
use serde::Serialize;
use vmrescue_base::error::Result;
use vmrescue_registry::{Hive, Key};

/// Classes whose devices are in the stack below the system volume: class GUID and name. Disk and volume come first.
const BOOT_CLASSES: [(&str, &str); 6] = [
    ("{4d36e967-e325-11ce-bfc1-08002be10318}", "DiskDrive"),
    ("{71a27cdd-812a-11d0-bec7-08002be2092f}", "Volume"),
    ("{4d36e97b-e325-11ce-bfc1-08002be10318}", "SCSIAdapter"),
    ("{4d36e96a-e325-11ce-bfc1-08002be10318}", "HDC"),
    ("{4d36e97d-e325-11ce-bfc1-08002be10318}", "System"),
    ("{4d36e966-e325-11ce-bfc1-08002be10318}", "Computer"),
];
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
    key: &Key<'_>,
    path: &str,
    class: &str,
    class_name: &str,
    device: Option<&str>,
    list: &mut Vec<Filter>,
) {
    let boot = BOOT_CLASSES.iter().any(|(guid, _)| guid.eq_ignore_ascii_case(class));
    for place in [FilterPlace::Upper, FilterPlace::Lower] {
        let value = key.value(place.value_name()).ok().flatten();
        // Some installers write one name as REG_SZ.
        let names = value
            .and_then(|value| value.as_multi_string().or_else(|| value.as_string().map(|name| vec![name])));
        for driver in names.unwrap_or_default() {
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

/// All filters of control set `number`, classes first. `services` are those of the same set, with their files looked at where
/// problems of files shall be seen.
///
/// # Errors
/// Damage of the hive.
pub fn filters(hive: &Hive, number: u32, services: &[Service]) -> Result<Vec<Filter>> {
    let mut list = Vec::new();
    let path = format!(r"ControlSet{number:03}\Control\Class");
    let mut class_names = Vec::new();
    if let Some(classes) = hive.key(&path)? {
        for class in classes.subkeys_lenient().0 {
            let guid = class.name();
            let known = BOOT_CLASSES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&guid));
            let said = ["Class", ""]
                .iter()
                .find_map(|name| class.value(name).ok().flatten().and_then(|value| value.as_string()));
            let name = known.map(|(_, name)| (*name).to_string()).or(said).unwrap_or_default();
            filters_of(&class, &format!(r"{path}\{guid}"), &guid, &name, None, &mut list);
            class_names.push((guid, name));
        }
    }
    let path = format!(r"ControlSet{number:03}\Enum");
    let mut seen = 0;
    if let Some(buses) = hive.key(&path)? {
        for bus in buses.subkeys_lenient().0 {
            for device in bus.subkeys_lenient().0 {
                for instance in device.subkeys_lenient().0 {
                    seen += 1;
                    if seen > MAX_DEVICES {
                        break;
                    }
                    let class =
                        instance.value("ClassGUID").ok().flatten().and_then(|value| value.as_string());
                    let class = class.unwrap_or_default();
                    let name = class_names.iter().find(|(guid, _)| guid.eq_ignore_ascii_case(&class));
                    let name = name.map_or("", |(_, name)| name.as_str());
                    let id = format!(r"{}\{}\{}", bus.name(), device.name(), instance.name());
                    filters_of(&instance, &format!(r"{path}\{id}"), &class, name, Some(&id), &mut list);
                }
            }
        }
    }
    for filter in &mut list {
        judge(filter, services);
    }
    Ok(list)
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
        let found = filters(&hive, 1, &services).unwrap();
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
