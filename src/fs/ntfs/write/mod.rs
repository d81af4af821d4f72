//! The writing half of NTFS: files, directories, streams, names and metadata of a volume that is staged.
//!
//! A volume that is dirty, hibernated or whose $LogFile is not clean is refused unless [`WriteOptions`] say otherwise.
//! Each operation is all or nothing in memory; damage that it meets stops it. The log needs no records, since the
//! whole change is staged and published by one journal below.
//!
//! Missing: short (8.3) names for new long names, inheritance of changed access rules (a new file shares the security
//! id of its directory), writing into compressed or encrypted data other than replacing all of it, $UsnJrnl records.

pub(crate) mod alloc;
pub(crate) mod attribute;
pub(crate) mod core;
mod data;
pub(crate) mod entry;
pub(crate) mod file;
mod mend;
mod names;
mod open;
pub(crate) mod record;
pub(crate) mod runs;
mod tree;
mod volume;

pub(crate) use mend::Mender;
pub use open::WriteOptions;
pub use volume::VolumeMut;

#[cfg(test)]
mod tests;
