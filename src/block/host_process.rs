//! What the operating system knows of this process and of where a file lies. Platform code, as `host_file` is.
//!
//! Missing: the limit of memory on Windows (it needs a job object).

use std::path::Path;
use vmrescue_base::error::{Error, Result};

/// Limits the memory of this process; an allocation beyond it stops the process.
///
/// # Errors
/// `Unsupported` where the system has no such limit; as the operating system says.
#[cfg(target_os = "linux")]
pub fn limit_memory(bytes: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::As, limit)
        .map_err(|e| Error::io("the limit of memory cannot be set", "this process", e.into()))
}

/// Limits the memory of this process; an allocation beyond it stops the process.
///
/// # Errors
/// `Unsupported` where the system has no such limit; as the operating system says.
#[cfg(not(target_os = "linux"))]
pub fn limit_memory(_bytes: u64) -> Result<()> {
    Err(Error::unsupported(vmrescue_base::error::Layer::Host, "a limit of memory can be set on Linux only"))
}

/// A number that is the same for files on one disk of the host; `None` where the system does not say.
#[cfg(unix)]
pub fn disk_of(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|meta| meta.dev())
}

/// A number that is the same for files on one disk of the host; `None` where the system does not say.
#[cfg(not(unix))]
pub fn disk_of(path: &Path) -> Option<u64> {
    path.components().next().map(|first| first.as_os_str().to_string_lossy().bytes().map(u64::from).sum())
}

/// Makes a new file that only its owner may read and write; nothing is there under this name, not even a link.
///
/// # Errors
/// As the operating system says.
pub fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a folder that only its owner may look into.
///
/// # Errors
/// As the operating system says; `AlreadyExists`.
pub fn create_private_folder(path: &Path) -> std::io::Result<()> {
    #[cfg_attr(
        not(unix),
        expect(unused_mut, reason = "Windows inherits the permissions of the folder above")
    )]
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Takes a folder away from everybody but its owner, where others may look into it.
///
/// # Errors
/// As the operating system says; `NotADirectory`.
pub fn make_private(path: &Path) -> std::io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_dir() {
        return Err(std::io::ErrorKind::NotADirectory.into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if meta.permissions().mode() & 0o077 != 0 {
            return std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
        }
    }
    Ok(())
}

/// The name of this machine, for people; empty where it is not known.
pub fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim().to_string()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_folder_lie_on_one_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, b"").unwrap();
        std::fs::write(&b, b"").unwrap();
        assert_eq!(disk_of(&a), disk_of(&b));
        assert_ne!(disk_of(&a), disk_of(Path::new("/proc/version")));
        assert!(!host_name().is_empty());
    }
}
