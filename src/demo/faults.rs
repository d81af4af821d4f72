//! Faults of the boot chain, as changes.

use super::Fault;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_partition::TableKind;
use vmrescue_repair::{Change, plan_sectors, store_changes};
use vmrescue_windows::bcd::{Device, DeviceElement, Firmware, PartitionRef, Value};
use vmrescue_windows::{Machine, boot_layout, load_store};

fn write(path: String, data: Vec<u8>) -> Vec<Change> {
    let size = data.len() as u64;
    vec![Change::FileWrite { path, data: data.into(), size, from: "a crash".into() }]
}

/// The changes that make this fault.
pub(super) fn boot_fault(machine: &Machine, fault: Fault) -> Result<Vec<Change>> {
    let layout = boot_layout(machine);
    let volume = layout.system_volume(machine, None)?;
    let (path, number) = (layout.store_path(machine, volume), machine.volumes[volume].number);
    let sector = u64::from(machine.table.sector_bytes);
    let zero =
        |range: std::ops::Range<u64>| plan_sectors(&machine.disk, "a crash", |disk| disk.zero_at(range));
    match fault {
        Fault::StoreMissing => Ok(vec![Change::FileDelete { path }]),
        Fault::StoreGarbage => Ok(write(path, vec![0xdb; 24 << 10])),
        Fault::StoreDangling | Fault::StoreWithoutDefault => store_fault(machine, &path, fault),
        Fault::BootManagerMissing => Ok(match layout.firmware {
            Firmware::Uefi => vec![
                Change::FileDelete { path: format!(r"#{number}:\EFI\Microsoft\Boot\bootmgfw.efi") },
                Change::FileDelete { path: format!(r"#{number}:\EFI\Boot\bootx64.efi") },
            ],
            Firmware::Bios => vec![Change::FileDelete { path: format!(r"#{number}:\bootmgr") }],
        }),
        Fault::LoaderMissing => {
            let name = if layout.firmware == Firmware::Uefi { "winload.efi" } else { "winload.exe" };
            Ok(vec![Change::FileDelete { path: format!(r"C:\Windows\System32\{name}") }])
        }
        Fault::GptPrimary => zero(sector..2 * sector),
        Fault::GptBackup => zero(machine.disk.len() - sector..machine.disk.len()),
        Fault::SystemPartitionUnmarked => {
            plan_sectors(&machine.disk, "a wrong click", |disk| match machine.table.kind {
                TableKind::Gpt => vmrescue_partition::set_type(disk, number, "basic"),
                _ => disk.write_at(446, &[0]),
            })
        }
        Fault::BootSector => {
            let windows = machine.installation(None)?.volume;
            let start = machine.volumes[windows].range.start;
            zero(start..start + 512)
        }
        _ => Err(Error::invalid(Layer::Bcd, "not a fault of the boot chain")),
    }
}

fn store_fault(machine: &Machine, path: &str, fault: Fault) -> Result<Vec<Change>> {
    let missing = || Error::not_found(Layer::Bcd, "the disk has no store to break");
    let (_, before) = load_store(machine, path)?.ok_or_else(missing)?;
    let mut after = before.clone();
    if fault == Fault::StoreWithoutDefault {
        let default = before.default_entry().ok_or_else(missing)?.id;
        after.objects.retain(|object| object.id != default);
        return Ok(store_changes(path, &before, &after));
    }
    let other = match machine.table.kind {
        TableKind::Gpt => PartitionRef::Gpt { disk: Guid([7; 16]), partition: Guid([8; 16]) },
        _ => PartitionRef::Mbr { signature: 0x0bad_d15c, offset_bytes: 1 << 20 },
    };
    for value in after.objects.iter_mut().flat_map(|object| object.elements.values_mut()) {
        if value.as_device().is_some_and(|device| matches!(device.device(), Device::Partition(_))) {
            *value = Value::Device(DeviceElement::build(Device::Partition(other), Guid::ZERO));
        }
    }
    Ok(store_changes(path, &before, &after))
}
