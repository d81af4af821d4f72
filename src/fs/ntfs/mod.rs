//! NTFS 3.0 and 3.1: making, reading and writing volumes.
//!
//! Reading: `boot`, `record`, `map` (run lists), `node` (a whole file), `index`, `directory`, `upcase`, `reparse`,
//! `security` and `sds` ($Secure), `ea`, `usn` (the change journal),
//! compression (`lznt1`, `wof`, whose unpackers are in `vmrescue-payload`), `state` (how the volume was left),
//! `logfile` (replay of what was not finished), `check`, and over them
//! `volume`, `filesystem` and `walk`.

mod boot;
mod boot_repair;
mod cache;
mod check;
mod directory;
pub mod ea;
mod filesystem;
mod index;
pub(crate) mod logfile;
mod lost;
pub mod lznt1;
mod map;
mod mend;
pub mod mkfs;
mod node;
mod object_id;
mod record;
mod reparse;
mod sds;
mod security;
mod state;
#[cfg(test)]
mod tests;
mod upcase;
pub mod usn;
mod volume;
mod walk;
mod wof;
pub mod write;

pub use boot::{Boot, boot_copy, is_ntfs};
pub use boot_repair::{boot_sector_problems, repair_boot_sector};
pub use check::{CODES, Code, Mend, SystemFileProblem, codes_page};
pub use filesystem::Scanned;
pub use logfile::{Counts, LogRecord, log_records};
pub(crate) use lost::volume_at;
pub use lost::{LostVolume, lost_volume};
pub use mend::{Mended, mend};
pub use mkfs::{FormatSpec, format};
pub use reparse::{mount_point, symbolic_link};
pub use state::{Hibernation, LogState, Replay, VolumeState, state};
pub use volume::Volume;
pub use write::{VolumeMut, WriteOptions};
