//! The disk as a store sees it: partitions by identifier, number and drive letter; and whether a device is on it.

use super::device::{Device, DeviceElement, PartitionRef};
use vmrescue_base::error::{Error, Layer, Result};

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapPartition {
    /// Number as Windows counts, from 1.
    pub number: u32,
    /// What a store calls it.
    pub id: PartitionRef,
    /// Drive letter as the guest sees it.
    pub letter: Option<char>,
    /// The boot manager lies here: the EFI system partition, or the active partition.
    pub system: bool,
}

impl MapPartition {
    /// How bcdedit writes it: by letter, else by the name of the volume device.
    pub fn text(&self) -> String {
        match self.letter {
            Some(letter) => format!("{letter}:"),
            None => format!(r"\Device\HarddiskVolume{}", self.number),
        }
    }
}

/// All partitions of the disk that a store is read against. Empty for a bare store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskMap {
    /// The partitions.
    pub partitions: Vec<MapPartition>,
}

/// Whether a device of a store is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It needs no partition (`boot`, `locate`), or the disk is not known.
    Unchecked,
    /// Its partition is this one, by number.
    Found(u32),
    /// The disk is this one, but it has no such partition.
    NoPartition,
    /// It lies on another disk.
    OtherDisk,
}

impl Resolution {
    /// True when Windows would not find the device on this disk.
    pub fn is_dangling(self) -> bool {
        matches!(self, Resolution::NoPartition | Resolution::OtherDisk)
    }

    /// A word for reports.
    pub fn name(self) -> &'static str {
        match self {
            Resolution::Unchecked => "unchecked",
            Resolution::Found(_) => "found",
            Resolution::NoPartition => "no-such-partition",
            Resolution::OtherDisk => "other-disk",
        }
    }
}

impl DiskMap {
    /// The partition with this identifier.
    pub fn by_id(&self, id: PartitionRef) -> Option<&MapPartition> {
        self.partitions.iter().find(|partition| partition.id == id)
    }

    /// The partition with this letter.
    pub fn by_letter(&self, letter: char) -> Option<&MapPartition> {
        self.partitions
            .iter()
            .find(|partition| partition.letter.is_some_and(|l| l.eq_ignore_ascii_case(&letter)))
    }

    /// The partition that the firmware starts from.
    pub fn system(&self) -> Option<&MapPartition> {
        self.partitions.iter().find(|partition| partition.system)
    }

    /// What a user means: `C:`, `#3`, `esp`, or `\Device\HarddiskVolume3`.
    ///
    /// # Errors
    /// `NotFound` with the partitions there are.
    pub fn find(&self, text: &str) -> Result<&MapPartition> {
        let bare = text.trim().trim_end_matches(['\\', ':']);
        let number = bare.strip_prefix('#').or_else(|| bare.strip_prefix(r"\Device\HarddiskVolume"));
        let found = match (number, bare.chars().next()) {
            (Some(number), _) => {
                number.parse().ok().and_then(|n: u32| self.partitions.iter().find(|p| p.number == n))
            }
            (None, Some(letter)) if bare.len() == 1 => self.by_letter(letter),
            _ if bare.eq_ignore_ascii_case("esp") => self.system(),
            _ => None,
        };
        found.ok_or_else(|| {
            let all: Vec<String> = self
                .partitions
                .iter()
                .map(|p| {
                    p.letter.map_or_else(|| format!("#{}", p.number), |l| format!("#{} ({l}:)", p.number))
                })
                .collect();
            Error::not_found(Layer::Bcd, format!("this disk has no partition {text:?}"))
                .expected(all.join(", "))
        })
    }

    /// Whether the partitions that a device names are on this disk. The first that is not decides.
    pub fn resolve(&self, element: &DeviceElement) -> Resolution {
        let mut result = Resolution::Unchecked;
        if self.partitions.is_empty() {
            return result;
        }
        for id in element.partitions() {
            match self.by_id(id) {
                Some(partition) => result = Resolution::Found(partition.number),
                None if self.partitions.iter().any(|p| same_disk(p.id, id)) => {
                    return Resolution::NoPartition;
                }
                None => return Resolution::OtherDisk,
            }
        }
        result
    }

    /// How bcdedit writes a device; a partition that is not on this disk is `unknown` there, and so it is here.
    pub fn text(&self, element: &DeviceElement) -> String {
        let text = self.device_text(element.device());
        match element.device() {
            Device::Ramdisk { .. } => format!("{text},{{{}}}", element.options()),
            _ => text,
        }
    }

    fn device_text(&self, device: &Device) -> String {
        match device {
            Device::Boot => "boot".to_string(),
            Device::Partition(id) => {
                self.by_id(*id).map_or("unknown".to_string(), |p| format!("partition={}", p.text()))
            }
            Device::HardDisk { disk, signature } if disk.is_zero() => format!("disk={signature:08x}"),
            Device::HardDisk { disk, .. } => format!("disk={{{disk}}}"),
            Device::Locate { element, path, parent } => {
                let what = if *element == 0 { path.clone() } else { format!("custom:{element:08x}") };
                match parent.as_deref() {
                    Some(Device::VirtualDisk(inner)) => match &**inner {
                        Device::File { device, path } => {
                            format!("vhd=[{}]{path},locate={what}", self.bracket(device))
                        }
                        _ => format!("locate={what}"),
                    },
                    _ => format!("locate={what}"),
                }
            }
            Device::Ramdisk { device, path } => format!("ramdisk=[{}]{path}", self.bracket(device)),
            Device::File { device, path } => format!("file=[{}]{path}", self.bracket(device)),
            Device::VirtualDisk(inner) => match &**inner {
                Device::File { device, path } => format!("vhd=[{}]{path}", self.bracket(device)),
                _ => "vhd=unknown".to_string(),
            },
            Device::Other { .. } => "unknown".to_string(),
        }
    }

    fn bracket(&self, device: &Device) -> String {
        match device {
            Device::Partition(id) => self.by_id(*id).map_or("unknown".to_string(), MapPartition::text),
            Device::Boot => "boot".to_string(),
            Device::Locate { .. } => "locate".to_string(),
            _ => "unknown".to_string(),
        }
    }
}

fn same_disk(a: PartitionRef, b: PartitionRef) -> bool {
    match (a, b) {
        (PartitionRef::Gpt { disk: a, .. }, PartitionRef::Gpt { disk: b, .. }) => a == b,
        (PartitionRef::Mbr { signature: a, .. }, PartitionRef::Mbr { signature: b, .. }) => a == b,
        _ => false,
    }
}
