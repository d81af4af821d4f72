//! The integration tests, one module a theme.

mod ntfs_corpus;
