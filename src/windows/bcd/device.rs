//! Device elements: where a boot file lies. Layout: options object (16 bytes), then a device descriptor:
//! type, flags, size, reserved (4 bytes each, size counted from the type on) and a body by type. Descriptors nest: a
//! file lies on a device, a virtual disk in a file, a located device on its parent.
//!
//! Source: stores made by Windows 10 and 11. Anything that is not understood is kept bit for bit: a parsed element
//! remembers its bytes, and pointing it at another partition patches only the identifiers.
//!
//! Missing: serial, UDP, VMBus and URI devices are named but not taken apart. `locate=<path>` has not been seen in a
//! real store.

use vmrescue_base::bytes::{put_at, slice_at, u32_at, u64_at};
use vmrescue_base::guid::Guid;
use vmrescue_base::limits::MAX_BCD_DEVICE_DEPTH;
use vmrescue_base::text::{until_nul, utf16le_bytes, utf16le_lossy};

/// Offset of the first descriptor in an element.
const DESCRIPTOR: usize = 0x10;
/// Bytes of a descriptor's header.
const HEADER_BYTES: usize = 0x10;
/// Bytes of a descriptor of a partition or of the boot device.
const PLAIN_BYTES: usize = 0x48;
/// Bytes between the local device type of a RAM disk or virtual disk and what it lies in.
const LOCAL_BODY_BYTES: usize = 0x14;
/// Path descriptor: version and type of all that were seen.
const PATH_VERSION: u32 = 1;
const PATH_INTERNAL: u32 = 5;

/// Which partition, by what survives a change of drive letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartitionRef {
    /// On a GPT disk.
    Gpt {
        /// Disk GUID.
        disk: Guid,
        /// Unique partition GUID.
        partition: Guid,
    },
    /// On an MBR disk.
    Mbr {
        /// Disk signature.
        signature: u32,
        /// Where the partition starts, in bytes.
        offset_bytes: u64,
    },
}

/// A device, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// The partition that the boot manager came from.
    Boot,
    /// A partition of a hard disk.
    Partition(PartitionRef),
    /// A whole hard disk: GPT disk GUID or MBR signature.
    HardDisk {
        /// GPT disk GUID, zero on an MBR disk.
        disk: Guid,
        /// MBR signature, 0 on a GPT disk.
        signature: u32,
    },
    /// The first device that has a path.
    Locate {
        /// Number of the element that names the path; 0 when `path` does.
        element: u32,
        /// The path, empty when an element names it.
        path: String,
        /// The device inside what was found (a virtual disk), if any.
        parent: Option<Box<Device>>,
    },
    /// A RAM disk filled from a file.
    Ramdisk {
        /// The device that the file lies on.
        device: Box<Device>,
        /// The file, such as `\Recovery\WindowsRE\Winre.wim`.
        path: String,
    },
    /// A file used as a device.
    File {
        /// The device that the file lies on.
        device: Box<Device>,
        /// The file.
        path: String,
    },
    /// A virtual hard disk, mostly in a [`Device::File`].
    VirtualDisk(Box<Device>),
    /// Something else; `name` says what its type is called.
    Other {
        /// Type number of the descriptor.
        device_type: u32,
        /// What such devices are called.
        name: &'static str,
    },
}

/// A device element: its bytes and what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceElement {
    bytes: Vec<u8>,
    options: Guid,
    device: Device,
}

impl DeviceElement {
    /// Reads an element. `None` when not even the first descriptor's header is there or its size is a lie.
    pub fn parse(bytes: &[u8]) -> Option<DeviceElement> {
        let options = Guid::at(bytes, 0)?;
        let (device, _) = parse_descriptor(bytes.get(DESCRIPTOR..)?, 0)?;
        Some(DeviceElement { bytes: bytes.to_vec(), options, device })
    }

    /// Makes an element. `options` is the object with RAM disk options, or zero.
    pub fn build(device: Device, options: Guid) -> DeviceElement {
        let mut bytes = options.0.to_vec();
        bytes.extend(build_descriptor(&device));
        DeviceElement { bytes, options, device }
    }

    /// The bytes as stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The object with more options, zero if none.
    pub fn options(&self) -> Guid {
        self.options
    }

    /// What it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All partitions that it names, outermost first: at most one in everything that Windows makes.
    pub fn partitions(&self) -> Vec<PartitionRef> {
        let mut found = Vec::new();
        collect_partitions(&self.device, &mut found, 0);
        found
    }

    /// The same element with every mention of partition `from` replaced by `to`; all other bytes stay.
    #[must_use]
    pub fn retarget(&self, from: PartitionRef, to: PartitionRef) -> DeviceElement {
        let mut bytes = self.bytes.clone();
        let old = build_partition(from);
        let new = build_partition(to);
        // The body of a partition descriptor: id, local type, style, disk. Found by its descriptor's header and body.
        let mut place = DESCRIPTOR;
        while let Some(descriptor) = slice_at(&bytes, place, PLAIN_BYTES) {
            let same = descriptor.starts_with(&old[..4])
                && descriptor[HEADER_BYTES..0x38] == old[HEADER_BYTES..0x38];
            if same && put_at(&mut bytes, place + HEADER_BYTES, &new[HEADER_BYTES..0x38]) {
                place += PLAIN_BYTES;
            } else {
                // Descriptors lie at even offsets: a located one follows an UTF-16 text.
                place += 2;
            }
        }
        DeviceElement::parse(&bytes).unwrap_or_else(|| self.clone())
    }
}

/// Reads one descriptor; gives its size too.
fn parse_descriptor(bytes: &[u8], depth: usize) -> Option<(Device, usize)> {
    if depth > MAX_BCD_DEVICE_DEPTH {
        return None;
    }
    let device_type = u32_at(bytes, 0)?;
    let size = u32_at(bytes, 8)? as usize;
    if size < HEADER_BYTES {
        return None;
    }
    let all = bytes.get(..size)?;
    let body = &all[HEADER_BYTES..];
    let device = match device_type {
        0 => parse_local(body, depth),
        5 => Some(Device::Boot),
        6 => parse_partition(body),
        8 => parse_locate(all, depth),
        _ => None,
    };
    Some((device.unwrap_or(Device::Other { device_type, name: type_name(device_type) }), size))
}

fn type_name(device_type: u32) -> &'static str {
    match device_type {
        0 => "local",
        2 => "legacy partition",
        3 => "serial",
        4 => "udp",
        5 => "boot",
        6 => "partition",
        7 => "vmbus",
        8 => "locate",
        9 => "uri",
        _ => "unknown",
    }
}

fn parse_partition(body: &[u8]) -> Option<Device> {
    let (local_type, style) = (u32_at(body, 0x10)?, u32_at(body, 0x14)?);
    match (local_type, style) {
        (0, 0) => {
            let (partition, disk) = (Guid::at(body, 0)?, Guid::at(body, 0x18)?);
            Some(Device::Partition(PartitionRef::Gpt { disk, partition }))
        }
        (0, 1) => {
            let (offset_bytes, signature) = (u64_at(body, 0)?, u32_at(body, 0x18)?);
            Some(Device::Partition(PartitionRef::Mbr { signature, offset_bytes }))
        }
        _ => None,
    }
}

fn parse_local(body: &[u8], depth: usize) -> Option<Device> {
    match u32_at(body, 0)? {
        0 => match u32_at(body, 4)? {
            0 => Some(Device::HardDisk { disk: Guid::at(body, 8)?, signature: 0 }),
            1 => Some(Device::HardDisk { disk: Guid::ZERO, signature: u32_at(body, 8)? }),
            _ => None,
        },
        3 => {
            let (device, path) = parse_path(body.get(4 + LOCAL_BODY_BYTES..)?, depth)?;
            Some(Device::Ramdisk { device, path })
        }
        5 => {
            let (device, path) = parse_path(body.get(4..)?, depth)?;
            Some(Device::File { device, path })
        }
        6 => {
            let (inner, _) = parse_descriptor(body.get(4 + LOCAL_BODY_BYTES..)?, depth + 1)?;
            Some(Device::VirtualDisk(Box::new(inner)))
        }
        _ => None,
    }
}

/// A path descriptor: version, length of all, type; then a device descriptor and UTF-16 text.
fn parse_path(bytes: &[u8], depth: usize) -> Option<(Box<Device>, String)> {
    let (version, length, kind) = (u32_at(bytes, 0)?, u32_at(bytes, 4)? as usize, u32_at(bytes, 8)?);
    if version != PATH_VERSION || kind != PATH_INTERNAL {
        return None;
    }
    let inner = bytes.get(12..length)?;
    let (device, size) = parse_descriptor(inner, depth + 1)?;
    let text = utf16le_lossy(inner.get(size..)?);
    Some((Box::new(device), until_nul(&text).to_string()))
}

fn parse_locate(all: &[u8], depth: usize) -> Option<Device> {
    let body = all.get(HEADER_BYTES..)?;
    let (element, parent_offset) = (u32_at(body, 4)?, u32_at(body, 8)? as usize);
    let text = utf16le_lossy(body.get(12..)?);
    let path = until_nul(&text).to_string();
    let parent = if parent_offset >= HEADER_BYTES {
        Some(Box::new(parse_descriptor(all.get(parent_offset..)?, depth + 1)?.0))
    } else {
        None
    };
    Some(Device::Locate { element, path, parent })
}

fn collect_partitions(device: &Device, found: &mut Vec<PartitionRef>, depth: usize) {
    if depth > MAX_BCD_DEVICE_DEPTH + 1 {
        return;
    }
    match device {
        Device::Partition(partition) => found.push(*partition),
        Device::Ramdisk { device, .. } | Device::File { device, .. } | Device::VirtualDisk(device) => {
            collect_partitions(device, found, depth + 1);
        }
        Device::Locate { parent: Some(parent), .. } => collect_partitions(parent, found, depth + 1),
        _ => {}
    }
}

/// A descriptor of `device_type` around `body`, with room for at least a plain one.
fn wrap(device_type: u32, flags: u32, body: &[u8], least: usize) -> Vec<u8> {
    let size = (HEADER_BYTES + body.len()).max(least);
    let mut bytes = Vec::with_capacity(size);
    // A device nests at most MAX_BCD_DEVICE_DEPTH deep around paths of a registry value: far below 4 GiB.
    for field in [device_type, flags, size as u32, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(body);
    bytes.resize(size, 0);
    bytes
}

fn build_partition(partition: PartitionRef) -> Vec<u8> {
    let mut body = vec![0u8; PLAIN_BYTES - HEADER_BYTES];
    match partition {
        PartitionRef::Gpt { disk, partition } => {
            body[..16].copy_from_slice(&partition.0);
            body[0x18..0x28].copy_from_slice(&disk.0);
        }
        PartitionRef::Mbr { signature, offset_bytes } => {
            body[..8].copy_from_slice(&offset_bytes.to_le_bytes());
            body[0x14] = 1;
            body[0x18..0x1C].copy_from_slice(&signature.to_le_bytes());
        }
    }
    wrap(6, 0, &body, PLAIN_BYTES)
}

fn build_path(device: &Device, path: &str) -> Vec<u8> {
    let inner = build_descriptor(device);
    let mut text = utf16le_bytes(path);
    text.extend([0, 0]);
    let length = 12 + inner.len() + text.len();
    let mut bytes = Vec::with_capacity(length);
    for field in [PATH_VERSION, length as u32, PATH_INTERNAL] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(inner);
    bytes.extend(text);
    bytes
}

fn build_descriptor(device: &Device) -> Vec<u8> {
    match device {
        Device::Boot => wrap(5, 0, &[], PLAIN_BYTES),
        Device::Partition(partition) => build_partition(*partition),
        Device::HardDisk { disk, signature } => {
            let mut body = vec![0u8; 0x18];
            if disk.is_zero() {
                body[4] = 1;
                body[8..12].copy_from_slice(&signature.to_le_bytes());
            } else {
                body[8..24].copy_from_slice(&disk.0);
            }
            wrap(0, 0, &body, PLAIN_BYTES)
        }
        Device::Locate { element, path, parent } => build_locate(*element, path, parent.as_deref()),
        Device::Ramdisk { device, path } => {
            let mut body = 3u32.to_le_bytes().to_vec();
            body.resize(4 + LOCAL_BODY_BYTES, 0);
            body.extend(build_path(device, path));
            wrap(0, 1, &body, 0)
        }
        Device::File { device, path } => {
            let mut body = 5u32.to_le_bytes().to_vec();
            body.extend(build_path(device, path));
            wrap(0, 0, &body, 0)
        }
        Device::VirtualDisk(inner) => {
            let mut body = 6u32.to_le_bytes().to_vec();
            body.resize(4 + LOCAL_BODY_BYTES, 0);
            body.extend(build_descriptor(inner));
            wrap(0, 0, &body, 0)
        }
        Device::Other { device_type, .. } => wrap(*device_type, 0, &[], PLAIN_BYTES),
    }
}

fn build_locate(element: u32, path: &str, parent: Option<&Device>) -> Vec<u8> {
    let mut body = u32::from(element == 0).to_le_bytes().to_vec();
    body.extend(element.to_le_bytes());
    let mut text = utf16le_bytes(path);
    text.extend([0, 0]);
    let parent_offset = if parent.is_some() { HEADER_BYTES + 12 + text.len() } else { 0 };
    body.extend((parent_offset as u32).to_le_bytes());
    body.extend(text);
    body.extend(parent.map(build_descriptor).unwrap_or_default());
    wrap(8, 0, &body, PLAIN_BYTES)
}

/// A partition's identifiers in words, for messages.
pub(crate) fn partition_text(partition: PartitionRef) -> String {
    match partition {
        PartitionRef::Gpt { disk, partition } => format!("partition {{{partition}}} of GPT disk {{{disk}}}"),
        PartitionRef::Mbr { signature, offset_bytes } => {
            format!("partition at byte {offset_bytes:#x} of MBR disk {signature:08x}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    const MBR: &str = "00000000000000000000000000000000060000000000000048000000000000000000501f0000000000000000000000000000000001000000b19ada4300000000000000000000000000000000000000000000000000000000";
    const BOOT: &str = "00000000000000000000000000000000050000000000000048000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";
    const GPT: &str = "0000000000000000000000000000000006000000000000004800000000000000382c0f8eeae4ba47b7fc9d8c74dccf0b0000000000000000a994230b5e097d488d48719ecd4d78ca00000000000000000000000000000000";
    const RAMDISK: &str = "e7623b7308f6eb11825cc112f60133ab0000000001000000b8000000000000000300000000000000000000000000000000000000000000000100000090000000050000000600000000000000480000000000000069cddf6c75de90448f995a84bf2649170000000000000000a994230b5e097d488d48719ecd4d78ca000000000000000000000000000000005c005200650063006f0076006500720079005c00570069006e0064006f0077007300520045005c00570069006e00720065002e00770069006d000000";

    #[test]
    fn real_elements_are_read_and_built_bit_for_bit() {
        for text in [MBR, BOOT, GPT, RAMDISK] {
            let bytes = unhex(text);
            let element = DeviceElement::parse(&bytes).unwrap();
            let again = DeviceElement::build(element.device().clone(), element.options());
            assert_eq!(vmrescue_base::text::hex(again.bytes()), text, "{:?}", element.device());
        }
    }

    #[test]
    fn their_meaning_is_known() {
        let device = |text| DeviceElement::parse(&unhex(text)).unwrap().device().clone();
        assert_eq!(device(BOOT), Device::Boot);
        let mbr = PartitionRef::Mbr { signature: 0x43DA_9AB1, offset_bytes: 0x1F50_0000 };
        assert_eq!(device(MBR), Device::Partition(mbr));
        let Device::Ramdisk { device: on, path } = device(RAMDISK) else { panic!("not a RAM disk") };
        assert_eq!(path, r"\Recovery\WindowsRE\Winre.wim");
        assert!(matches!(*on, Device::Partition(PartitionRef::Gpt { .. })));
    }

    #[test]
    fn retargeting_changes_the_identifiers_only() {
        let element = DeviceElement::parse(&unhex(RAMDISK)).unwrap();
        let from = element.partitions()[0];
        let to = PartitionRef::Gpt { disk: Guid([1; 16]), partition: Guid([2; 16]) };
        let moved = element.retarget(from, to);
        assert_eq!(moved.partitions(), [to]);
        assert_eq!(moved.bytes().len(), element.bytes().len());
        assert_eq!(moved.retarget(to, from), element);
    }

    #[test]
    fn nested_devices_survive() {
        let file = Device::File { device: Box::new(Device::Boot), path: r"\disk.vhdx".into() };
        let disk = Device::VirtualDisk(Box::new(file));
        let located =
            Device::Locate { element: 0x1200_0002, path: String::new(), parent: Some(Box::new(disk)) };
        let element = DeviceElement::build(located.clone(), Guid::ZERO);
        assert_eq!(DeviceElement::parse(element.bytes()).unwrap().device(), &located);
        // The offsets of the sample that a boot loader's author published.
        assert_eq!(u32_at(element.bytes(), 0x28), Some(0x1E));
        assert_eq!(u32_at(element.bytes(), 0x3E), Some(6));
        assert_eq!(u32_at(element.bytes(), 0x66), Some(5));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn nothing_panics(mut place in 0usize..200, value in any::<u8>(), cut in 0usize..200, noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(DeviceElement::parse(&noise).map(|e| e.partitions()));
            let mut bytes = unhex(RAMDISK);
            place %= bytes.len();
            bytes[place] = value;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Some(element) = DeviceElement::parse(&bytes) {
                prop_assert_eq!(element.bytes(), &bytes[..]);
                for from in element.partitions() {
                    drop(element.retarget(from, PartitionRef::Mbr { signature: 1, offset_bytes: 2 }));
                }
            }
        }
    }
}
