//! The integration tests, one module a theme.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may fail and tell")]

#[cfg(unix)]
mod asking;
mod bare;
mod batch;
mod bitlocker;
mod boot;
mod boot_chain;
mod collect;
mod containers;
mod demo;
mod diagnose;
mod drivers;
mod edges;
mod events;
mod exact;
mod fat;
mod fat_edges;
mod foreign;
mod forensic;
mod hostile;
mod inspect;
#[cfg(target_os = "linux")]
mod mount;
mod mount_posix;
mod mount_special;
mod nbd;
mod ntfs_check;
mod ntfs_compression;
mod ntfs_corpus;
mod ntfs_format;
mod ntfs_mft;
mod ntfs_model;
mod ntfs_read;
mod ntfs_replay;
mod ntfs_writer;
mod oracle;
#[cfg(unix)]
mod outputs;
mod payloads;
mod publishing;
mod registry_cli;
mod registry_corpus;
mod registry_edits;
mod registry_fuzz;
mod registry_judges;
mod registry_oracles;
mod registry_rules;
mod report;
#[cfg(unix)]
mod rules;
mod salvage;
mod scripts;
mod shadow;
mod system_partition;
mod timeline;
mod unseen;
mod updates;
