//! `disk format`: an empty file system on a volume.

use super::{Changing, Image, change, disk};
use clap::Args;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::time::FileTime;
use vmrescue_fs::ntfs::FormatSpec;
use vmrescue_repair::format_volume;

/// `vmrescue disk format ...`
#[derive(Debug, Args)]
pub(super) struct Format {
    #[command(flatten)]
    image: Image,
    /// Number of the volume, as `info` shows it
    #[arg(long, value_name = "N")]
    volume: u32,
    /// The file system: ntfs
    #[arg(long, value_name = "KIND", default_value = "ntfs")]
    fs: String,
    /// Label, at most 32 characters
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// Bytes of a cluster, or with K, M: 512 to 2M; 4096 when absent, more on very large volumes
    #[arg(long, value_name = "BYTES")]
    cluster: Option<String>,
    /// Bytes of a file record: 1024 or 4096
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
    if !format.fs.eq_ignore_ascii_case("ntfs") {
        return Err(Error::unsupported(Layer::Cli, "only NTFS volumes can be made")
            .expected("ntfs")
            .found(&format.fs));
    }
    let created = FileTime::now();
    let spec = FormatSpec {
        label: format.label.clone(),
        cluster_bytes: size(format.cluster.as_ref())?,
        record_bytes: size(format.record.as_ref())?,
        // Windows takes the time as well.
        serial: created.0.rotate_left(32) ^ u64::from(std::process::id()),
        created,
        hidden_sectors: 0,
    };
    let title = format!("disk format, volume {}", format.volume);
    change::changes(&format.image, &title, &format.changing, |machine| {
        format_volume(machine, format.volume, &spec, format.force)
    })
}
