//! The integration tests, one module a theme.

mod containers;
mod demo;
mod ntfs_corpus;
mod oracle;
mod registry_corpus;
