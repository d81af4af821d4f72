//! The writing half of NTFS: files, directories, streams, names and metadata of a volume that is staged.
//!
//! A volume that is dirty, hibernated or whose $LogFile is not clean is refused unless [`WriteOptions`] say otherwise.
//! Each operation is all or nothing in memory; damage that it meets stops it. The log needs no records, since the
//! whole change is staged and published by one journal below.
//!
//! New files inherit their security (`secure`), get short names where the volume makes them (`short`), and changes are
//! noted in the change journal where there is one (`journal`).
//!
//! Missing: writing into encrypted data other than replacing all of it, compressing, quotas, transactions (TxF).

pub(crate) mod alloc;
pub(crate) mod attribute;
pub(crate) mod core;
mod data;
pub(crate) mod entry;
pub(crate) mod file;
mod in_place;
mod information;
mod journal;
mod mend;
mod metadata;
mod names;
mod open;
pub(crate) mod record;
pub(crate) mod runs;
mod secure;
mod short;
mod special;
mod tree;
mod volume;

pub(crate) use mend::Mender;
pub use open::WriteOptions;
pub use volume::VolumeMut;

#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod special_tests;
#[cfg(test)]
mod tests;
