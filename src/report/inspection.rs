//! Everything that `inspect` found, as one tree; its JSON form is what serde makes of it.

use serde::Serialize;
use std::ops::Range;
use vmrescue_base::error::Defect;
use vmrescue_block::Disk;
use vmrescue_crypt::BitLocker;
use vmrescue_image::{Container, ContainerInfo};
use vmrescue_partition::TableKind;
use vmrescue_windows::facts::{Facts, facts};
use vmrescue_windows::{Installation, Machine, Service, Unread, Unseen, Weight, services_seen};

/// Everything that `inspect` found.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The container.
    pub container: ContainerInfo,
    /// The partition table.
    pub partition_table: TableView,
    /// Its partitions.
    pub partitions: Vec<PartitionView>,
    /// Parts of the disk that no partition has.
    pub unpartitioned: Vec<Gap>,
    /// The volumes.
    pub volumes: Vec<VolumeView>,
    /// The installations with their facts.
    pub installations: Vec<InstallationView>,
    /// Damage that was found on the way.
    pub defects: Vec<DefectView>,
    /// Services and drivers of each installation; their files were not opened.
    pub services: Vec<Vec<Service>>,
    /// What was asked for and could not be read.
    pub could_not_look: Vec<Unread>,
}

/// A partition table.
#[derive(Debug, Clone, Serialize)]
pub struct TableView {
    /// GPT, MBR or none.
    pub kind: TableKind,
    /// GPT: disk GUID; MBR: signature.
    pub disk_id: Option<String>,
    /// Sectors in which it counts.
    pub sector_bytes: u32,
}

/// A partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionView {
    /// From 1, in the order of the table.
    pub number: u32,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
    /// What its type means.
    #[serde(rename = "type")]
    pub type_name: String,
    /// GPT type.
    pub type_guid: Option<String>,
    /// MBR type.
    pub mbr_type: Option<u8>,
    /// Its own GUID.
    pub unique_guid: Option<String>,
    /// Its name.
    pub name: String,
    /// MBR: active.
    pub active: bool,
}

/// A part of the disk between partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// A volume.
#[derive(Debug, Clone, Serialize)]
pub struct VolumeView {
    /// Number of its partition.
    pub number: u32,
    /// Its letter in the first installation.
    pub letter: Option<char>,
    /// The firmware starts from it.
    pub system: bool,
    /// `ntfs`, `fat32`, ...
    pub file_system: Option<&'static str>,
    /// Label.
    pub label: Option<String>,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
    /// Bytes of a cluster.
    pub cluster_bytes: Option<u32>,
    /// Free bytes; `None` when the map cannot be read.
    pub free_bytes: Option<u64>,
    /// It was not unmounted cleanly.
    pub dirty: Option<bool>,
    /// Why it cannot be read.
    pub error: Option<String>,
    /// BitLocker, from the outside.
    pub bitlocker: Option<BitLocker>,
}

/// An installation with its facts.
#[derive(Debug, Clone, Serialize)]
pub struct InstallationView {
    /// The directory.
    pub path: String,
    /// Number of its volume.
    pub volume: u32,
    /// ProductName.
    pub product: String,
    /// EditionID.
    pub edition: String,
    /// DisplayVersion or ReleaseId.
    pub display_version: String,
    /// Build.
    pub build: u32,
    /// Revision.
    pub ubr: u32,
    /// `amd64`, `arm64`, `x86`.
    pub architecture: String,
    /// Computer name.
    pub computer_name: String,
    /// The control sets.
    pub control_sets: ControlSetsView,
    /// What could not be read at all.
    pub problems: Vec<String>,
    /// Everything else.
    pub facts: Facts,
}

/// Numbers of control sets.
#[derive(Debug, Clone, Serialize)]
pub struct ControlSetsView {
    /// Used at the last start.
    pub current: u32,
    /// Used at the next start.
    pub default: u32,
    /// Failed, or 0.
    pub failed: u32,
    /// Worked at some start.
    pub last_known_good: u32,
}

/// Damage.
#[derive(Debug, Clone, Serialize)]
pub struct DefectView {
    /// Stable name.
    pub code: &'static str,
    /// `note`, `warning`, `error`.
    pub severity: &'static str,
    /// The layer it is in.
    pub layer: &'static str,
    /// Where.
    pub offset: Option<String>,
    /// What.
    pub detail: String,
}

impl From<&Defect> for DefectView {
    fn from(defect: &Defect) -> DefectView {
        DefectView {
            code: defect.code,
            severity: defect.severity.name(),
            layer: defect.layer.name(),
            offset: defect.offset.map(|offset| format!("{offset:#x}")),
            detail: defect.detail.clone(),
        }
    }
}

/// What lies between `ranges` from 0 to `length`, when it is as large as a partition could be: 1 MiB.
fn gaps(mut ranges: Vec<Range<u64>>, length: u64) -> Vec<Gap> {
    ranges.sort_by_key(|range| range.start);
    let (mut at, mut found) = (0u64, Vec::new());
    for range in ranges.into_iter().chain(std::iter::once(length..length)) {
        let size = range.start.saturating_sub(at);
        if size > 1 << 20 {
            found.push(Gap { offset: at, size });
        }
        at = at.max(range.end);
    }
    found
}

impl Inspection {
    /// Collects everything. What is damaged is named and does not stop it.
    pub fn new(container: &Container<Disk>, machine: &Machine) -> Inspection {
        let partitions: Vec<PartitionView> = machine.table.partitions.iter().map(partition).collect();
        let ranges = machine.table.partitions.iter().map(|p| p.range.clone()).collect();
        let unpartitioned =
            if machine.table.kind == TableKind::None { Vec::new() } else { gaps(ranges, machine.disk.len()) };
        let unseen = Unseen::default();
        vmrescue_diagnose::note_volumes(machine, &unseen);
        let services = machine.installations.iter().map(|i| services_of(machine, i, &unseen)).collect();
        let volumes = machine.volumes.iter().map(|own| volume(own, &unseen)).collect();
        Inspection {
            container: container.info.clone(),
            partition_table: TableView {
                kind: machine.table.kind,
                disk_id: machine.table.disk_id.clone(),
                sector_bytes: machine.table.sector_bytes,
            },
            partitions,
            unpartitioned,
            volumes,
            installations: machine.installations.iter().map(|i| installation(machine, i)).collect(),
            defects: container.defects.iter().chain(&machine.defects).map(DefectView::from).collect(),
            services,
            could_not_look: unseen.list(),
        }
    }
}

fn services_of(machine: &Machine, installation: &Installation, unseen: &Unseen) -> Vec<Service> {
    // Only what the registry says; `drivers` looks at the files.
    let set = installation.control_sets.default.max(1);
    let hive = machine.hive(installation, "SYSTEM");
    let list = hive.and_then(|hive| services_seen(machine, installation, &hive, set, false, unseen));
    unseen.seen("services and drivers", &installation.path, Weight::Critical, list).unwrap_or_default()
}

fn partition(p: &vmrescue_partition::Partition) -> PartitionView {
    PartitionView {
        number: p.number,
        offset: p.range.start,
        size: p.range.end.saturating_sub(p.range.start),
        type_name: p.type_name.clone(),
        type_guid: p.type_guid.map(|guid| guid.to_string()),
        mbr_type: p.mbr_type,
        unique_guid: p.unique_guid.map(|guid| guid.to_string()),
        name: p.name.clone(),
        active: p.active,
    }
}

fn volume(volume: &vmrescue_windows::Volume, unseen: &Unseen) -> VolumeView {
    let info = volume.fs.as_ref().map(|fs| fs.info());
    let free = volume.fs.as_ref().and_then(|fs| {
        unseen.seen("free space", format!("#{}", volume.number), Weight::Partial, fs.free_bytes())
    });
    VolumeView {
        number: volume.number,
        letter: volume.letter,
        system: volume.system,
        file_system: info.as_ref().map(|info| info.kind),
        offset: volume.range.start,
        size: volume.range.end.saturating_sub(volume.range.start),
        cluster_bytes: info.as_ref().map(|info| info.cluster_bytes),
        free_bytes: free,
        dirty: info.as_ref().map(|info| info.dirty),
        label: info.map(|info| info.label),
        error: volume.error.clone(),
        bitlocker: volume.bitlocker.clone(),
    }
}

fn installation(machine: &Machine, i: &Installation) -> InstallationView {
    let sets = i.control_sets;
    InstallationView {
        path: i.path.clone(),
        volume: machine.volumes.get(i.volume).map_or(0, |volume| volume.number),
        product: i.product.clone(),
        edition: i.edition.clone(),
        display_version: i.display_version.clone(),
        build: i.build,
        ubr: i.ubr,
        architecture: i.architecture.clone(),
        computer_name: i.computer_name.clone(),
        control_sets: ControlSetsView {
            current: sets.current,
            default: sets.default,
            failed: sets.failed,
            last_known_good: sets.last_known_good,
        },
        problems: i.problems.clone(),
        facts: facts(machine, i),
    }
}

#[cfg(test)]
mod tests {
    use super::{Gap, gaps};

    #[test]
    fn what_no_partition_has_is_found() {
        let mib = 1 << 20;
        let found = gaps(vec![10 * mib..20 * mib, mib..8 * mib], 40 * mib);
        assert_eq!(found, [Gap { offset: 8 * mib, size: 2 * mib }, Gap { offset: 20 * mib, size: 20 * mib }]);
        assert_eq!(gaps(vec![0..30, 10..20], 30), [], "overlapping partitions leave no gap");
    }
}
