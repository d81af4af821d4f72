//! The time that changes through a mount carry.
//!
//! On Linux that of the kernel's last tick, as all its file systems do it. With another clock the kernel's times and ours would never be
//! the same, and it would send its own after each new file.

use vmrescue_base::time::FileTime;

/// The time by now.
pub(super) fn now() -> FileTime {
    #[cfg(target_os = "linux")]
    {
        let tick = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let since = std::time::Duration::new(tick.tv_sec.max(0).unsigned_abs(), tick.tv_nsec as u32);
        FileTime::from_system_time(std::time::UNIX_EPOCH + since)
    }
    #[cfg(not(target_os = "linux"))]
    FileTime::now()
}
