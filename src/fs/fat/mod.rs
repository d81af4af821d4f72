//! FAT12, FAT16 and FAT32: making, reading, writing and checking volumes.
//!
//! `boot` (the boot sector), `core` with `blocks` (the tables, chains, nodes), `directory` with `entry` and `name` (8.3 and long
//! names), `time`, `free` (the map of free clusters), and over them `volume` (reading), `write`, `mkfs`, `check`, `mend`.
//! After: Microsoft, FAT specification (fatgen103), and what Windows writes where that leaves a choice.

mod blocks;
mod boot;
mod check;
mod core;
mod directory;
mod entry;
mod free;
mod mend;
mod mkfs;
mod name;
mod time;
mod volume;
mod write;

pub use boot::{Kind, boot_copy, is_fat, repair_boot_sector};
pub use check::CODES;
pub use mend::{is_mended, mend};
pub use mkfs::{FormatSpec, Formatted, format, smallest_fat32};
pub use name::CodePage;
pub use volume::FatVolume;
pub use write::FatVolumeMut;
