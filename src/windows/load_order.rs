//! The order in which the boot loader and the kernel take drivers: groups by `ServiceGroupOrder`, tags by `GroupOrderList`.
//!
//! The rules are those of the Windows Research Kernel (`CmpFindDrivers`, `CmpSortDriverList`, `CmpResolveDriverDependencies`):
//! services in the order of their keys, groups in the order of the list, tags in the order of the group's vector, a tag that the
//! vector does not know after those, drivers without a tag last; groups that the list does not know come after all others, in the
//! reverse order of their keys. The driver of the boot file system is taken whatever its start says. Missing: the plug and play
//! manager, which starts a driver when its device appears, not when its turn comes.

use super::services::Service;
use super::unread::{Unread, Unseen, Weight};
use std::collections::BTreeMap;
use vmrescue_base::bytes::u32_at;
use vmrescue_registry::{Hive, Key, ValueData};

/// What is read here, in words.
const ORDER: &str = "the order of boot drivers";
/// Tag of a driver whose tag is not in the vector.
const UNKNOWN_TAG: u32 = 0xffff_fffe;
/// Tag of a driver that has none.
const NO_TAG: u32 = 0xffff_ffff;
/// Entries of one vector that are looked at; Windows has at most about forty.
const MAX_TAGS: usize = 4096;

/// `ServiceGroupOrder` and `GroupOrderList` of a control set.
#[derive(Debug, Clone, Default)]
pub struct LoadOrder {
    /// Groups in the order of the list.
    pub groups: Vec<String>,
    /// Tags of each group, by its name in lower case.
    tags: BTreeMap<String, Vec<u32>>,
}

impl LoadOrder {
    /// Reads the order of control set `number`. What is missing leaves the order of the keys; so does what cannot be read, which is noted.
    pub fn read(hive: &Hive, number: u32, unseen: &Unseen) -> LoadOrder {
        let mut order = LoadOrder::default();
        let control = format!(r"ControlSet{number:03}\Control");
        let groups = format!(r"{control}\ServiceGroupOrder");
        let list = |key: &Key<'_>| key.value("List")?.map(|value| value.typed()).transpose();
        let seen = |place: &str, what| unseen.seen(ORDER, place, Weight::Critical, what).flatten();
        let list = seen(
            &groups,
            hive.key(&groups).and_then(|key| key.as_ref().map(list).transpose()).map(Option::flatten),
        );
        // A list of another type is none for the loader, too.
        if let Some(ValueData::Texts(groups)) = list {
            order.groups = groups.into_iter().filter(|group| !group.is_empty()).collect();
        }
        let place = format!(r"{control}\GroupOrderList");
        let tags = unseen.seen(ORDER, &place, Weight::Critical, hive.key(&place)).flatten();
        if let Some(key) = tags {
            let (values, lost) = key.values_lenient();
            for e in &lost {
                unseen.note(Unread::of(ORDER, &place, Weight::Critical, e));
            }
            for value in values {
                let Some(data) = unseen.seen(ORDER, &place, Weight::Critical, value.data()) else { continue };
                let count = (u32_at(&data, 0).unwrap_or(0) as usize).min(MAX_TAGS);
                let tags = (1..=count).map_while(|i| u32_at(&data, i * 4)).collect();
                order.tags.insert(value.name().to_lowercase(), tags);
            }
        }
        order
    }

    /// Place of a group in the list.
    pub fn group_place(&self, group: &str) -> Option<usize> {
        self.groups.iter().position(|known| known.eq_ignore_ascii_case(group))
    }

    /// Place of a tag in the vector of its group.
    fn tag_place(&self, group: &str, tag: Option<u32>) -> u32 {
        let Some(tag) = tag else { return NO_TAG };
        let vector = self.tags.get(&group.to_lowercase());
        let place = vector.and_then(|tags| tags.iter().position(|known| *known == tag));
        place.map_or(UNKNOWN_TAG, |place| place as u32)
    }

    /// Indices of the drivers that start with `start` (0 boot, 1 system), in the order in which they are taken.
    /// `boot_file_system` names the driver that is taken at boot in any case.
    pub fn sort(&self, services: &[Service], start: u32, boot_file_system: Option<&str>) -> Vec<usize> {
        let forced = |service: &Service| {
            start == 0 && boot_file_system.is_some_and(|name| name.eq_ignore_ascii_case(&service.name))
        };
        let mut taken: Vec<usize> = (0..services.len())
            .filter(|i| {
                services[*i].is_driver() && (services[*i].start == Some(start) || forced(&services[*i]))
            })
            .collect();
        // As the keys stand in the hive: by name in upper case.
        taken.sort_by_cached_key(|i| services[*i].name.to_uppercase());
        let (mut known, mut unknown): (Vec<usize>, Vec<usize>) =
            taken.into_iter().partition(|i| self.group_place(&services[*i].group).is_some());
        let tag = |i: &usize| self.tag_place(&services[*i].group, services[*i].tag);
        known.sort_by_cached_key(|i| (self.group_place(&services[*i].group), tag(i)));
        unknown.reverse();
        // Only neighbours of one group are put in order of their tags.
        for run in unknown.chunk_by_mut(|a, b| services[*a].group.eq_ignore_ascii_case(&services[*b].group)) {
            run.sort_by_cached_key(tag);
        }
        known.extend(unknown);
        known
    }

    /// Why the dependencies of a service cannot be met, if so: groups of which nothing starts in time, services that are not there
    /// or disabled.
    pub fn dependency_problems(&self, services: &[Service], of: &Service) -> Vec<String> {
        let mut problems = Vec::new();
        if of.start.is_none_or(|start| start >= 3) {
            return problems;
        }
        for group in &of.depend_on_group {
            let early = |other: &Service| {
                other.group.eq_ignore_ascii_case(group)
                    && other.start.is_some_and(|start| start <= of.start.unwrap_or(0))
            };
            if !services.iter().any(early) {
                problems.push(format!("nothing of group {group} starts before it"));
            }
        }
        for name in &of.depend_on_service {
            // A plus sign marks a group here.
            if name.starts_with('+') {
                continue;
            }
            match services.iter().find(|other| other.name.eq_ignore_ascii_case(name)) {
                None => problems.push(format!("it depends on {name}, which is not there")),
                Some(other) if other.start == Some(4) => {
                    problems.push(format!("it depends on {name}, which is disabled"));
                }
                Some(_) => {}
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, start: u32, group: &str, tag: Option<u32>) -> Service {
        Service {
            name: name.into(),
            start: Some(start),
            kind: Some(1),
            group: group.into(),
            tag,
            ..Service::default()
        }
    }

    #[test]
    fn drivers_come_in_the_order_of_the_loader() {
        let order = LoadOrder {
            groups: vec!["System Reserved".into(), "Boot Bus Extender".into()],
            tags: BTreeMap::from([("boot bus extender".into(), vec![5, 1])]),
        };
        let all = [
            service("zeta", 0, "", None),
            service("acpi", 0, "Boot Bus Extender", Some(1)),
            service("pci", 0, "BOOT BUS extender", Some(5)),
            service("notag", 0, "Boot Bus Extender", None),
            service("odd", 0, "Boot Bus Extender", Some(77)),
            service("first", 0, "System Reserved", None),
            service("alpha", 0, "Nobody Knows", None),
            service("system", 1, "", None),
            service("ntfs", 4, "", None),
        ];
        let names = |start, fs| -> Vec<&str> {
            order.sort(&all, start, fs).into_iter().map(|i| all[i].name.as_str()).collect()
        };
        assert_eq!(names(0, None), ["first", "pci", "acpi", "odd", "notag", "zeta", "alpha"]);
        assert_eq!(names(0, Some("Ntfs")), ["first", "pci", "acpi", "odd", "notag", "zeta", "ntfs", "alpha"]);
        assert_eq!(names(1, Some("Ntfs")), ["system"]);
    }

    #[test]
    fn dependencies_that_cannot_be_met_are_told() {
        let mut late = service("late", 2, "", None);
        late.depend_on_service = vec!["gone".into(), "off".into(), "there".into()];
        late.depend_on_group = vec!["Nothing".into()];
        let all = [service("off", 4, "", None), service("there", 3, "", None), late.clone()];
        let problems = LoadOrder::default().dependency_problems(&all, &late);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
