//! `partition`: the table and the boot sectors of a disk.

use super::identity::say_of;
use super::progress::Bars;
use super::{CLEAN, Changing, Image, change, look, say, size};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use vmrescue_base::error::Result;
use vmrescue_fs::ntfs;
use vmrescue_repair::{
    copy_boot_code, repair_boot_sector, repair_gpt, restore_partitions, set_active, set_type,
};
use vmrescue_windows::Machine;

/// `vmrescue partition ...`
#[derive(Debug, Subcommand)]
pub(super) enum PartitionCommand {
    /// All partitions with their types, places and boot sectors
    List {
        #[command(flatten)]
        image: Image,
    },
    /// Mark a partition of an MBR disk as the one to start from
    SetActive {
        #[command(flatten)]
        image: Image,
        /// Number of the partition
        number: u32,
        #[command(flatten)]
        changing: Changing,
    },
    /// Write both copies of the GPT from the one that is whole, and a protective MBR where there is none
    RepairGpt {
        #[command(flatten)]
        image: Image,
        #[command(flatten)]
        changing: Changing,
    },
    /// Give volumes that no partition names their partitions again; look first with `info --scan`
    Restore {
        #[command(flatten)]
        image: Image,
        #[command(flatten)]
        changing: Changing,
    },
    /// Give a partition another type: efi, basic, recovery, reserved, a GUID; two digits on an MBR disk
    SetType {
        #[command(flatten)]
        image: Image,
        /// Number of the partition
        number: u32,
        /// The type
        r#type: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Put an NTFS boot sector, its copy and its count of hidden sectors right
    RepairBootSector {
        #[command(flatten)]
        image: Image,
        /// Number of the partition
        number: u32,
        #[command(flatten)]
        changing: Changing,
    },
    /// Copy the boot code of the MBR from a disk that you name; table and signature stay
    BootCode {
        #[command(flatten)]
        image: Image,
        /// A disk of the same kind that starts
        #[arg(long)]
        from: PathBuf,
        #[command(flatten)]
        changing: Changing,
    },
}

pub(super) fn partition(command: PartitionCommand) -> Result<u8> {
    match command {
        PartitionCommand::List { image } => list(&image),
        PartitionCommand::SetActive { image, number, changing } => change::changes(
            &image,
            &format!("partition set-active {number}"),
            &changing,
            |machine: &Machine| set_active(machine, number),
        ),
        PartitionCommand::RepairGpt { image, changing } => {
            change::changes(&image, "partition repair-gpt", &changing, repair_gpt)
        }
        PartitionCommand::Restore { image, changing } => {
            change::changes(&image, "partition restore", &changing, |machine| {
                restore_partitions(machine, &Bars::new())
            })
        }
        PartitionCommand::SetType { image, number, r#type, changing } => change::changes(
            &image,
            &format!("partition set-type {number} {}", r#type),
            &changing,
            |machine| set_type(machine, number, &r#type),
        ),
        PartitionCommand::RepairBootSector { image, number, changing } => {
            change::changes(&image, &format!("partition repair-boot-sector {number}"), &changing, |machine| {
                repair_boot_sector(machine, number)
            })
        }
        PartitionCommand::BootCode { image, from, changing } => {
            change::changes(&image, "partition boot-code", &changing, |machine| {
                copy_boot_code(machine, &from)
            })
        }
    }
}

fn list(image: &Image) -> Result<u8> {
    let (_, machine, _) = look::open(image)?;
    let sector = u64::from(machine.table.sector_bytes.max(512));
    let mut lines = Vec::new();
    for volume in &machine.volumes {
        let window = machine.disk.window(volume.range.clone())?;
        let is_ntfs = volume.fs.as_ref().is_some_and(|fs| fs.info().kind == "ntfs")
            || volume.partition.as_ref().is_some_and(|p| p.mbr_type == Some(7));
        let problems = if is_ntfs {
            ntfs::boot_sector_problems(&window, volume.range.start / sector)?
        } else {
            Vec::new()
        };
        lines.push((volume, problems));
    }
    if image.json {
        let list: Vec<serde_json::Value> = lines
            .iter()
            .map(|(volume, problems)| {
                let p = volume.partition.as_ref();
                json!({"number": volume.number, "offset": volume.range.start, "size": volume.range.end - volume.range.start,
                    "type": p.map(|p| p.type_name.clone()), "name": p.map(|p| p.name.clone()),
                    "active": p.is_some_and(|p| p.active),
                    "attributes": p.map(vmrescue_partition::Partition::attribute_names), "letter": volume.letter,
                    "file_system": volume.fs.as_ref().map(|fs| fs.info().kind), "problems": problems})
            })
            .collect();
        say_of(
            image,
            "partition-list",
            json!({"kind": machine.table.kind, "disk_id": machine.table.disk_id, "partitions": list}),
        )?;
        return Ok(CLEAN);
    }
    say(&format!("{:?} {}", machine.table.kind, machine.table.disk_id.as_deref().unwrap_or("")))?;
    for (volume, problems) in lines {
        let p = volume.partition.as_ref();
        let mut marks = p.map_or(Vec::new(), |p| p.attribute_names());
        if p.is_some_and(|p| p.active) {
            marks.insert(0, "active");
        }
        let active = marks.join(", ");
        let letter = volume.letter.map_or(String::new(), |letter| format!("{letter}:"));
        say(&format!(
            "#{:<3} {:>12} at {:#012x}  {:<20} {letter:<3} {:<6} {active}",
            volume.number,
            size(volume.range.end - volume.range.start),
            volume.range.start,
            p.map_or("whole disk", |p| p.type_name.as_str()),
            volume.fs.as_ref().map_or("-", |fs| fs.info().kind),
        ))?;
        let attributes = p.map(vmrescue_partition::Partition::attribute_names).unwrap_or_default();
        if !attributes.is_empty() {
            say(&format!("     attributes: {}", attributes.join(", ")))?;
        }
        problems.iter().try_for_each(|problem| say(&format!("     ! {problem}")))?;
    }
    Ok(CLEAN)
}
