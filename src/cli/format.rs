//! `disk format`: an empty file system on a volume.

use super::{Changing, Image, change, disk};
use clap::Args;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_fs::{fat, ntfs};
use vmrescue_repair::{Making, format_volume};

/// `vmrescue disk format ...`
#[derive(Debug, Args)]
pub(super) struct Format {
    #[command(flatten)]
    image: Image,
    /// Number of the volume, as `info` shows it
    #[arg(long, value_name = "N")]
    volume: u32,
    /// The file system: ntfs, fat32, fat16, fat12. An EFI system partition gets FAT unless --force is given: firmware reads nothing else
    #[arg(long, value_name = "KIND", default_value = "ntfs")]
    fs: String,
    /// Label, at most 32 characters; 11 on FAT
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// Bytes of a cluster, or with K, M: 512 to 2M, on FAT to 128 sectors; what Windows takes when absent
    #[arg(long, value_name = "BYTES")]
    cluster: Option<String>,
    /// Bytes of a file record of NTFS: 1024 or 4096
    #[arg(long, value_name = "BYTES")]
    record: Option<String>,
    /// Also when there is a file system; what is on it is lost
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    changing: Changing,
}

fn size(text: Option<&String>) -> Result<Option<u32>> {
    let wrong = || Error::invalid(Layer::Cli, "this size is too large");
    text.map(|text| u32::try_from(disk::bytes(text)?).map_err(|_| wrong())).transpose()
}

pub(super) fn format(format: &Format) -> Result<u8> {
    let created = FileTime::now();
    // Windows takes the time as well.
    let serial = created.0.rotate_left(32) ^ u64::from(std::process::id());
    let (cluster_bytes, record_bytes) = (size(format.cluster.as_ref())?, size(format.record.as_ref())?);
    let making = if format.fs.eq_ignore_ascii_case("ntfs") {
        Making::Ntfs(ntfs::FormatSpec {
            label: format.label.clone(),
            cluster_bytes,
            record_bytes,
            serial,
            created,
            hidden_sectors: 0,
        })
    } else {
        let unknown = || {
            Error::invalid(Layer::Cli, "unknown file system")
                .expected("ntfs, fat32, fat16, fat12")
                .found(&format.fs)
        };
        if record_bytes.is_some() {
            return Err(Error::invalid(Layer::Cli, "only NTFS has file records").found("--record"));
        }
        Making::Fat(fat::FormatSpec {
            label: format.label.clone(),
            kind: Some(fat::Kind::from_name(&format.fs).ok_or_else(unknown)?),
            cluster_bytes,
            serial: (serial ^ serial >> 32) as u32,
            created,
            hidden_sectors: 0,
        })
    };
    let title = format!("disk format, volume {}", format.volume);
    change::changes(&format.image, &title, &format.changing, |machine| {
        format_volume(machine, format.volume, &making, format.force)
    })
}
