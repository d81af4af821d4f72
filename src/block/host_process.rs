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
