//! Drivers for virtual machines: which are there, when they start, whether their file is there.

use super::{Source, start_word};
use crate::expand_image_path;
use serde::Serialize;

/// Drivers of one maker.
#[derive(Debug, Clone, Serialize)]
pub struct DriverFamily {
    /// `Hyper-V`, `VMware`, `VirtIO`, `Xen`, ...
    pub family: &'static str,
    /// Those that are registered.
    pub drivers: Vec<DriverState>,
}

/// A driver in short.
#[derive(Debug, Clone, Serialize)]
pub struct DriverState {
    /// Name of the service.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// `boot`, `system`, `auto`, `demand`, `disabled`, `unknown`.
    pub start: &'static str,
    /// Its file is there; `None` when its path cannot be resolved.
    pub file_present: Option<bool>,
}

type Known = (&'static str, &'static [(&'static str, &'static str)]);

const FAMILIES: [Known; 7] = [
    (
        "Hyper-V",
        &[
            ("vmbus", "bus"),
            ("storvsc", "disks"),
            ("netvsc", "network"),
            ("netvscvfpp", "network"),
            ("hyperkbd", "keyboard"),
            ("HyperVideo", "display"),
            ("dmvsc", "memory"),
            ("vmicheartbeat", "heartbeat"),
        ],
    ),
    ("Azure", &[("mlx4_bus", "network"), ("mlx5", "network"), ("mana", "network")]),
    (
        "VMware",
        &[
            ("pvscsi", "disks"),
            ("vmxnet3ndis6", "network"),
            ("vmci", "host interface"),
            ("vm3dmp", "display"),
            ("vmmouse", "mouse"),
            ("VMTools", "tools"),
            ("vmhgfs", "shared folders"),
        ],
    ),
    (
        "VirtIO",
        &[
            ("viostor", "disks"),
            ("vioscsi", "disks"),
            ("netkvm", "network"),
            ("balloon", "memory"),
            ("vioser", "serial"),
            ("viorng", "random numbers"),
            ("QEMU-GA", "agent"),
        ],
    ),
    (
        "Xen",
        &[
            ("xenbus", "bus"),
            ("xenvbd", "disks"),
            ("xennet", "network"),
            ("xenvif", "network"),
            ("xeniface", "host interface"),
            ("xenfilt", "filter"),
        ],
    ),
    ("AWS", &[("AWSNVMe", "disks"), ("ena", "network"), ("AmazonSSMAgent", "agent")]),
    ("VirtualBox", &[("VBoxGuest", "host interface"), ("VBoxSF", "shared folders"), ("VBoxWddm", "display")]),
];

pub(super) fn read(source: &Source<'_>) -> Vec<DriverFamily> {
    let families = FAMILIES.iter().map(|(family, known)| DriverFamily {
        family,
        drivers: known.iter().filter_map(|(name, purpose)| driver(source, name, purpose)).collect(),
    });
    families.filter(|family| !family.drivers.is_empty()).collect()
}

fn driver(source: &Source<'_>, name: &'static str, purpose: &'static str) -> Option<DriverState> {
    let key = format!(r"%\Services\{name}");
    // What Windows leaves behind of a driver that is gone has no start value.
    let start = source.system.number(&key, "Start")?;
    let image = source.system.text(&key, "ImagePath").unwrap_or_default();
    let is_driver = matches!(source.system.number(&key, "Type"), Some(1 | 2 | 8));
    let path = expand_image_path(&image, name, is_driver);
    let file_present = path.map(|path| source.node(&source.own(&path.join("\\"))).is_some());
    Some(DriverState { name, purpose, start: start_word(start), file_present })
}
