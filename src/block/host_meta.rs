//! What the host says of its files: which file a name leads to, who may read it, whether it keeps what is written.
//! Platform code, as `host_file` is.

use std::fs::Metadata;
use std::io::Result;
use std::path::Path;

/// The same for all names of one file. Only while the file is there: a number may be given again.
#[cfg(unix)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

#[cfg(unix)]
impl FileId {
    /// The file at the end of all links.
    ///
    /// # Errors
    /// Of the host.
    pub(super) fn of(path: &Path) -> Result<FileId> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).map(|metadata| FileId(metadata.dev(), metadata.ino()))
    }
}

/// The same for all names of one file: the handle is kept, so that the number is not given again.
#[cfg(not(unix))]
#[derive(Debug, Clone)]
pub(super) struct FileId(std::sync::Arc<same_file::Handle>);

#[cfg(not(unix))]
impl PartialEq for FileId {
    fn eq(&self, other: &FileId) -> bool {
        *self.0 == *other.0
    }
}

#[cfg(not(unix))]
impl FileId {
    /// The file at the end of all links.
    ///
    /// # Errors
    /// Of the host.
    pub(super) fn of(path: &Path) -> Result<FileId> {
        same_file::Handle::from_path(path).map(|handle| FileId(std::sync::Arc::new(handle)))
    }
}

/// Permissions to read and write, and the group; where there is no such thing, all of them.
#[cfg(unix)]
pub(super) fn access(metadata: &Metadata) -> (u32, Option<u32>) {
    use std::os::unix::fs::MetadataExt;
    (metadata.mode() & 0o666, Some(metadata.gid()))
}

#[cfg(not(unix))]
pub(super) fn access(_: &Metadata) -> (u32, Option<u32>) {
    (0o666, None)
}

/// Changes the permissions.
#[cfg(unix)]
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(super) fn set_mode(_: &Path, _: u32) -> Result<()> {
    Ok(())
}

/// Makes a folder, with those above it.
#[cfg(unix)]
pub(super) fn folder_with_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

#[cfg(not(unix))]
pub(super) fn folder_with_mode(path: &Path, _: u32) -> Result<()> {
    std::fs::create_dir_all(path)
}

/// True for what takes bytes and keeps none: a terminal, a pipe, `/dev/null`.
#[cfg(unix)]
pub(super) fn is_stream(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path)
        .is_ok_and(|there| there.file_type().is_char_device() || there.file_type().is_fifo())
}

#[cfg(not(unix))]
pub(super) fn is_stream(_: &Path) -> bool {
    false
}
