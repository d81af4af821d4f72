//! The door to Linux: FUSE through the crate `fuser`.
//!
//! A tree that is only read lets the kernel keep everything (names, facts, listings, data) for a day, and answers neither
//! `open` nor `opendir`. A tree that is written counts open files, because a removed file lives until its last handle goes;
//! the kernel caches writes, since nobody else writes to the volume. Missing: `syncfs` never reaches a FUSE server
//! (only those of virtiofs): `sync DIR` does, as an fsync of the directory.
//!
//! `door` answers, `later` has changes that must wait for a publish, `kernel` what the kernel keeps of changed files.

mod door;
mod kernel;
mod later;

use super::session::Session;
use door::Door;
use fuser::{Config, Errno, MountOption, SessionACL};
use later::Later;
use std::path::Path;
use std::sync::Arc;
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};

/// How the tree looks to Linux.
#[derive(Debug, Clone)]
pub struct View {
    /// Owner of everything.
    pub uid: u32,
    /// Group of everything.
    pub gid: u32,
    /// Mode bits of files.
    pub file_mode: u16,
    /// Mode bits of directories.
    pub directory_mode: u16,
    /// Every user may look, not only the one who mounted.
    pub allow_other: bool,
    /// Name that `mount` shows.
    pub source: String,
    /// Threads that answer.
    pub threads: usize,
}

/// Told of failures that a program only sees as "input/output error".
pub type Complain = Arc<dyn Fn(&Error) + Send + Sync>;

/// A mounted tree.
pub struct Mounted {
    unmounter: fuser::SessionUnmounter,
    runner: std::thread::JoinHandle<std::io::Result<()>>,
    later: std::thread::JoinHandle<()>,
}

impl Mounted {
    /// True when the kernel has let go of it.
    pub fn is_over(&self) -> bool {
        self.runner.is_finished()
    }

    /// Takes the mount away.
    ///
    /// # Errors
    /// `Busy` when a program has a file or its working directory there.
    pub fn unmount(&mut self) -> Result<()> {
        self.unmounter.unmount().map_err(|e| match e.kind() {
            std::io::ErrorKind::ResourceBusy => Error::busy(Layer::Host, "a program still uses the mount")
                .advice("close its files and leave its directories; `lsof +f -- DIR` names it"),
            _ => Error::io("cannot be unmounted", "the mount", e),
        })
    }

    /// Waits for the last answer.
    ///
    /// # Errors
    /// Of the connection to the kernel.
    pub fn join(self) -> Result<()> {
        let early = |_| Error::new(ErrorKind::Io, Layer::Host, "a thread of the mount ended early");
        let done = self.runner.join();
        // The queue of the other ends with the first.
        self.later.join().map_err(early)?;
        done.map_err(early)?.map_err(|e| Error::io("the connection to the kernel broke", "/dev/fuse", e))
    }
}

/// Refuses what cannot be mounted on, with the reason.
fn check_directory(directory: &Path) -> Result<()> {
    let entries = std::fs::read_dir(directory).map_err(|e| {
        let stale = e.raw_os_error() == Some(Errno::ENOTCONN.code());
        let error = Error::io("cannot be mounted on", directory, e);
        if stale {
            error.advice("an earlier mount ended without unmounting; run `fusermount3 -u` on it first")
        } else {
            error
        }
    })?;
    if entries.count() > 0 {
        return Err(Error::invalid(Layer::Host, "the directory to mount on is not empty")
            .in_file(directory)
            .advice("name an empty directory: what is in it would be hidden"));
    }
    Ok(())
}

/// Mounts a session's tree on an empty directory.
///
/// # Errors
/// `Unsupported` without `/dev/fuse`; `Invalid` for a directory that is not empty; otherwise of the host.
pub fn mount(session: &Arc<Session>, directory: &Path, view: View, complain: Complain) -> Result<Mounted> {
    check_directory(directory)?;
    if !Path::new("/dev/fuse").exists() {
        return Err(Error::unsupported(Layer::Host, "this machine has no FUSE: /dev/fuse is missing")
            .advice("load the module (modprobe fuse) or give the container the device; `serve --nbd` needs no FUSE"));
    }
    let mut config = Config::default();
    let access = if session.tree().is_writable() { MountOption::RW } else { MountOption::RO };
    config.mount_options = vec![
        MountOption::FSName(view.source.replace(',', "_")),
        MountOption::Subtype("vmrescue".into()),
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        access,
    ];
    // Where root alone gets in modes forbid nothing, and looking at them costs the kernel a question after each new name.
    let is_root = rustix::process::geteuid().is_root() && rustix::process::getuid().is_root();
    if view.allow_other || !is_root {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = if view.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(view.threads.max(1));
    config.clone_fd = true;
    let absolute = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
    let (queue, later) = Later::start()?;
    let door = Door::new(session, view, absolute.to_string_lossy().into_owned(), complain, queue);
    let mut running = fuser::Session::new(door, directory, &config).map_err(|e| {
        let error = Error::io("cannot be mounted", directory, e);
        error.advice("this needs the rights to mount: root, or fusermount3 set up for this user (and `user_allow_other` in /etc/fuse.conf for --allow-other)")
    })?;
    let unmounter = running.unmount_callable();
    let runner = std::thread::Builder::new()
        .name("mount".into())
        .spawn(move || running.run())
        .map_err(|e| Error::io("no thread", "the mount", e))?;
    read_further_ahead(directory);
    Ok(Mounted { unmounter, runner, later })
}

/// Lets the kernel read a mebibyte ahead instead of 128 KiB. Only root may; a mount without it is slower, nothing else.
fn read_further_ahead(directory: &Path) {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::metadata(directory) else { return };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let _tried = std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), "1024");
}
