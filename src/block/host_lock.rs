//! Locks on a file of the host that other programs see, and who holds them.
//!
//! Our own processes keep apart by flock: readers share, a writer is alone. QEMU does not look at flock. It says what it
//! does with an image by shared OFD locks on single bytes (`block/file-posix.c` and `docs/devel/` of QEMU): byte 100 + n
//! means "I use permission n", byte 200 + n means "nobody else may use permission n". A program first takes its bytes,
//! then asks whether anybody holds one that contradicts. We do the same, so that each side sees the other:
//!
//! * a writer uses reading, writing and resizing, and lets nobody else do anything;
//! * a reader uses reading, and goes away when somebody writes. It does not forbid writing: a machine can be started while
//!   somebody looks; whoever copies compares the file's time at the end ([`super::HostFile::stamp`]).
//!
//! The bytes need not exist. File systems without such locks are used without them, as QEMU does.
//! On Windows there are no locks: a file is opened with share modes that deny writers (readers) or writers and readers that
//! do not share writing (writers).

use std::fs::File;

/// What somebody wants to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Read it while others read.
    Read,
    /// Read and write it alone.
    Write,
}

/// How a try to lock ended.
#[cfg_attr(
    windows,
    expect(dead_code, reason = "share modes refuse while the file is opened, not afterwards")
)]
pub(super) enum Locked {
    /// The locks are held as long as the file is open.
    Held,
    /// Somebody else uses the file.
    Taken,
    /// The file system has no such locks, or failed.
    Failed(std::io::Error),
}

/// Takes flock: shared for readers, exclusive for writers.
#[cfg(not(windows))]
fn take_flock(file: &File, what: Use) -> Locked {
    let taken = if what == Use::Write { file.try_lock() } else { file.try_lock_shared() };
    match taken {
        Ok(()) => Locked::Held,
        Err(std::fs::TryLockError::WouldBlock) => Locked::Taken,
        Err(std::fs::TryLockError::Error(e)) => Locked::Failed(e),
    }
}

/// Takes the locks for `what`, without waiting.
#[cfg(target_os = "linux")]
pub(super) fn take(file: &File, what: Use) -> Locked {
    match take_flock(file, what) {
        Locked::Held => match qemu::take(file, what) {
            // flock holds, and QEMU locks nothing on such a file system either.
            Locked::Failed(_) => Locked::Held,
            other => other,
        },
        other => other,
    }
}

/// Takes the locks for `what`, without waiting.
#[cfg(all(unix, not(target_os = "linux")))]
pub(super) fn take(file: &File, what: Use) -> Locked {
    take_flock(file, what)
}

/// Nothing to take: the share modes of opening are the lock.
#[cfg(windows)]
pub(super) fn take(_: &File, _: Use) -> Locked {
    Locked::Held
}

#[cfg(target_os = "linux")]
mod qemu {
    use super::{Locked, Use};
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    use std::fs::File;

    /// Byte of the permission that a program uses.
    const USED: i64 = 100;
    /// Byte of the permission that a program denies to others.
    const DENIED: i64 = 200;
    /// Permissions, as QEMU numbers them: consistent read, write, write of what is there already, resize, graph change
    /// (older versions).
    const READ: i64 = 0;
    const WRITE: i64 = 1;
    const RESIZE: i64 = 3;
    const ALL: [i64; 5] = [0, 1, 2, 3, 4];

    fn byte(kind: i32, at: i64) -> libc::flock {
        libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: at, l_len: 1, l_pid: 0 }
    }

    /// True when another open file holds a lock on the byte that keeps us from `what`. Some programs (ntfs-3g) lock the whole
    /// file to share it with other readers: that is no permission of QEMU's, and keeps writers away only.
    fn is_held(file: &File, at: i64, what: Use) -> Result<bool, Errno> {
        let mut found = byte(libc::F_WRLCK, at);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
        let is_whole = found.l_start < USED || found.l_len == 0;
        Ok(match i32::from(found.l_type) {
            libc::F_UNLCK => false,
            libc::F_RDLCK => what == Use::Write || !is_whole,
            _ => true,
        })
    }

    /// Takes our bytes and looks for those that contradict.
    pub(super) fn take(file: &File, what: Use) -> Locked {
        let (used, denied): (&[i64], &[i64]) = match what {
            Use::Read => (&[READ], &[]),
            Use::Write => (&[READ, WRITE, RESIZE], &ALL),
        };
        for at in used.iter().map(|n| USED + n).chain(denied.iter().map(|n| DENIED + n)) {
            match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at))) {
                Ok(_) => {}
                // A lock for writing on the byte: not QEMU, but somebody.
                Err(Errno::EAGAIN | Errno::EACCES) => return Locked::Taken,
                Err(e) => return Locked::Failed(e.into()),
            }
        }
        // A reader forbids nothing, but does not read what is being written.
        let unwelcome: &[i64] = if what == Use::Read { &[WRITE, RESIZE] } else { denied };
        for at in used.iter().map(|n| DENIED + n).chain(unwelcome.iter().map(|n| USED + n)) {
            match is_held(file, at, what) {
                Ok(false) => {}
                Ok(true) => {
                    release(file);
                    return Locked::Taken;
                }
                Err(e) => return Locked::Failed(e.into()),
            }
        }
        Locked::Held
    }

    /// Gives our bytes back, so that a try that failed does not stand in the way of others. Closing would do the same.
    fn release(file: &File) {
        let mut all = byte(libc::F_UNLCK, USED);
        all.l_len = DENIED + ALL.len() as i64 - USED;
        let _closing_does_it = fcntl(file, FcntlArg::F_OFD_SETLK(&all));
    }
}

/// The programs that have the file open, for a message: "qemu-nbd (process 4711)". `None` where the system does not say.
#[cfg(target_os = "linux")]
pub(super) fn holders(file: &File) -> Option<String> {
    use std::collections::BTreeSet;
    use std::os::unix::fs::MetadataExt;
    /// Most programs that a message names.
    const NAMED: usize = 3;
    let meta = file.metadata().ok()?;
    let (device, inode) = (meta.dev(), meta.ino());
    let own = std::process::id();
    let place = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    // Who locks stands in /proc/locks; OFD locks, as those of QEMU, stand there without a process.
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut found: BTreeSet<u32> = locks
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == place)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        })
        .filter(|process| *process != own)
        .collect();
    if found.is_empty() {
        // Whoever has it open. Processes of other users cannot be looked into.
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let has_it = |process: &u32| {
            let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            files.into_iter().any(|entry| {
                std::fs::metadata(entry.path()).is_ok_and(|m| m.dev() == device && m.ino() == inode)
            })
        };
        found.extend(numbers.filter(|process| *process != own).filter(has_it));
    }
    let name = |process: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        let name = name.trim();
        format!("{} (process {process})", if name.is_empty() { "a program" } else { name })
    };
    let names: Vec<String> = found.iter().take(NAMED).map(name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The programs that have the file open, for a message. This system does not say.
#[cfg(not(target_os = "linux"))]
pub(super) fn holders(_: &File) -> Option<String> {
    None
}
