//! What answers the kernel's requests.

use super::kernel::Kept;
use super::later::Later;
use super::{Complain, View};
use crate::change::{NewTimes, Replacing};
use crate::clock;
use crate::fault::{Answer, Fault, Reason};
use crate::session::Session;
use crate::tree::{Facts, Item, Kind, Tree};
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use vmrescue_base::progress::Silent;
use vmrescue_base::time::FileTime;
use vmrescue_fs::Times;

/// How long the kernel may keep what cannot change.
const FOREVER: Duration = Duration::from_secs(86_400);
/// Bytes that the kernel reads ahead and writes at once.
const TRANSFER_BYTES: u32 = 1 << 20;
/// Longest name that is answered: 255 units of UTF-16.
const MAX_NAME_UNITS: u32 = 255;

/// What answers the kernel.
pub(super) struct Door {
    inner: Arc<Inner>,
    later: Later,
}

/// A directory as it was when its listing began.
#[derive(Clone)]
struct Listing {
    items: Arc<Vec<Item>>,
    /// Changes to the tree that came before it.
    changes: u64,
}

/// The part of it that changes take along when they have to wait.
pub(super) struct Inner {
    session: Arc<Session>,
    view: View,
    /// Absolute path of the mount point.
    mounted_on: String,
    complain: Complain,
    kept: Kept,
    /// Listings of open directories of a tree that is written.
    directories: Mutex<HashMap<u64, Listing>>,
    handles: AtomicU64,
}

impl std::ops::Deref for Door {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

fn errno(reason: Reason) -> Errno {
    match reason {
        Reason::NotFound => Errno::ENOENT,
        Reason::Exists => Errno::EEXIST,
        Reason::NotDirectory => Errno::ENOTDIR,
        Reason::IsDirectory => Errno::EISDIR,
        Reason::NotEmpty => Errno::ENOTEMPTY,
        Reason::Invalid => Errno::EINVAL,
        Reason::NameTooLong => Errno::ENAMETOOLONG,
        Reason::ReadOnly => Errno::EROFS,
        Reason::NoSpace => Errno::ENOSPC,
        Reason::CrossVolume => Errno::EXDEV,
        Reason::TooLarge => Errno::EFBIG,
        Reason::NoAttribute => Errno::ENODATA,
        Reason::Range => Errno::E2BIG,
        Reason::Denied => Errno::EPERM,
        Reason::Unsupported => Errno::EOPNOTSUPP,
        Reason::Busy => Errno::EBUSY,
        Reason::Failed => Errno::EIO,
    }
}

/// A name as text. Names of files and of streams behind a colon may each have the length of one.
fn text(name: &OsStr) -> Answer<&str> {
    let too_long = |part: &str| part.encode_utf16().count() > MAX_NAME_UNITS as usize;
    let text = match name.to_str() {
        Some(text) => text,
        None if name.len() > MAX_NAME_UNITS as usize => return Err(Reason::NameTooLong.into()),
        None => return Err(Reason::Invalid.into()),
    };
    if text.split(':').any(too_long) { Err(Reason::NameTooLong.into()) } else { Ok(text) }
}

thread_local! {
    /// Memory for answers to reads, so that each does not take and clear a new mebibyte.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Door {
    /// Answers for a session; changes that wait go to `later`.
    pub(super) fn new(
        session: &Arc<Session>,
        view: View,
        mounted_on: String,
        complain: Complain,
        later: Later,
    ) -> Door {
        let inner = Inner {
            session: Arc::clone(session),
            view,
            mounted_on,
            complain,
            kept: Kept::default(),
            directories: Mutex::default(),
            handles: AtomicU64::new(1),
        };
        Door { inner: Arc::new(inner), later }
    }

    /// Runs a change here and now, or later when an operation is being published: then the threads that answer the
    /// kernel are free for others.
    fn change(&self, work: impl FnOnce(&Inner) + Send + 'static) {
        let inner = Arc::clone(&self.inner);
        self.later.run(&self.session, move || work(&inner));
    }
}

impl Inner {
    fn tree(&self) -> &Tree {
        self.session.tree()
    }

    fn failed(&self, fault: &Fault) -> Errno {
        if fault.is_worth_telling()
            && let Some(error) = &fault.error
        {
            (self.complain)(error);
        }
        errno(fault.reason)
    }

    fn keep(&self) -> Duration {
        // A tree that is written changes through this mount only, of which the kernel knows.
        FOREVER
    }

    fn attr(&self, facts: &Facts) -> FileAttr {
        let (kind, mode) = match facts.kind {
            Kind::File => (FileType::RegularFile, self.view.file_mode),
            Kind::Directory => (FileType::Directory, self.view.directory_mode),
            Kind::Link => (FileType::Symlink, 0o777),
        };
        let read_only = facts.read_only && facts.kind == Kind::File;
        FileAttr {
            ino: INodeNo(facts.number),
            size: facts.size,
            blocks: facts.allocated.div_ceil(512),
            atime: facts.times.accessed.to_system_time(),
            mtime: facts.times.modified.to_system_time(),
            ctime: facts.times.changed.to_system_time(),
            crtime: facts.times.created.to_system_time(),
            kind,
            perm: if read_only { mode & !0o222 } else { mode },
            nlink: facts.links,
            uid: self.view.uid,
            gid: self.view.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn entry(&self, found: Answer<(Facts, bool)>, reply: ReplyEntry) {
        match found {
            Ok((facts, exact)) => {
                // A name in another case is asked for each time: removing the true one must not leave it behind.
                let names = if exact { self.keep() } else { Duration::ZERO };
                reply.entry_with_ttls(&self.keep(), &names, &self.attr(&facts), self.generation(&facts));
            }
            Err(fault) => reply.error(self.failed(&fault)),
        }
    }

    fn generation(&self, facts: &Facts) -> Generation {
        Generation(self.kept.generation(facts.number))
    }

    /// An attribute was set or removed: what the kernel keeps of the file besides may be wrong now.
    fn attribute_changed(&self, number: u64, name: &str) {
        let Some(name) = name.strip_prefix("system.ntfs_") else { return };
        let times = matches!(name, "times" | "times_be" | "crtime" | "crtime_be");
        let Ok(facts) = self.tree().facts(number) else { return };
        // Times of directories the kernel does not own: it asks for them.
        let times = times && facts.kind == Kind::File;
        if times {
            self.kept.times_are_ours(number);
        }
        if times || name == "reparse_data" {
            // Who has it open would lose it.
            if self.tree().unlinked.is_open(number) {
                self.kept.renew_when_closed(number);
            } else {
                self.kept.renew(number);
            }
        }
    }

    fn empty(&self, done: Answer<()>, reply: ReplyEmpty) {
        match done {
            Ok(()) => reply.ok(),
            Err(fault) => reply.error(self.failed(&fault)),
        }
    }

    /// Publishes in a thread of its own, so that others are answered meanwhile.
    fn publish(&self, reply: ReplyEmpty) {
        let session = Arc::clone(&self.session);
        // A failure is told by the session itself.
        let publish = move || match session.publish(&Silent) {
            Ok(_) => reply.ok(),
            Err(e) => reply.error(errno(Fault::from(e).reason)),
        };
        // Without a thread the request is dropped with the work, which answers EIO.
        drop(std::thread::Builder::new().name("mount-publish".into()).spawn(publish));
    }

    fn listing(&self, number: u64, handle: u64, offset: u64) -> Answer<Listing> {
        if !self.tree().is_writable() {
            return Ok(Listing { items: self.tree().listed(number)?, changes: 0 });
        }
        let mut open = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get(&handle) {
            // From the beginning means as it is now (rewinddir).
            Some(listing) if offset > 0 => Ok(listing.clone()),
            _ => {
                drop(open);
                let changes = self.tree().changes();
                let listing = Listing { items: Arc::new(self.tree().list(number)?), changes };
                open = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
                open.insert(handle, listing.clone());
                Ok(listing)
            }
        }
    }

    /// Facts of an item of a listing, and whether they are known. A file that cannot be read is listed all the same: asking for it by
    /// its name tells why.
    fn listed_facts(&self, directory: u64, item: &Item) -> Answer<(Facts, bool)> {
        if item.number == 0 {
            return self.tree().lookup(directory, &item.name).map(|(facts, _)| (facts, true));
        }
        match self.tree().facts(item.number) {
            Ok(facts) => Ok((facts, true)),
            Err(fault) if fault.reason == Reason::NotFound => Err(fault),
            Err(_) => Ok((unknown(item.number, item.kind), false)),
        }
    }

    fn xattr(&self, value: Answer<Vec<u8>>, size: u32, reply: ReplyXattr) {
        match value {
            Ok(bytes) if size == 0 => reply.size(bytes.len() as u32),
            Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(bytes) => reply.data(&bytes),
            Err(fault) => reply.error(self.failed(&fault)),
        }
    }
}

/// A node of which only this is known.
fn unknown(number: u64, kind: Kind) -> Facts {
    Facts { number, kind, size: 0, allocated: 0, times: Times::default(), links: 2, read_only: true }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Link => FileType::Symlink,
    }
}

fn time_of(time: TimeOrNow) -> FileTime {
    match time {
        TimeOrNow::SpecificTime(time) => FileTime::from_system_time(time),
        TimeOrNow::Now => clock::now(),
    }
}

impl Filesystem for Door {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let mut wanted = vec![
            // Always, and not as the kernel guesses (_AUTO): of long directories that would be the beginning only, and a question
            // for each name behind it.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_ASYNC_DIO,
            // No file here has bits that a write would have to clear: spares a question with every write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ];
        if self.tree().is_writable() {
            wanted.push(InitFlags::FUSE_WRITEBACK_CACHE);
            wanted.push(InitFlags::FUSE_ATOMIC_O_TRUNC);
        } else {
            wanted.extend([InitFlags::FUSE_NO_OPEN_SUPPORT, InitFlags::FUSE_NO_OPENDIR_SUPPORT]);
        }
        for flag in wanted {
            // An older kernel does without.
            let _without = config.add_capabilities(flag);
        }
        let _nearest = config.set_max_write(TRANSFER_BYTES);
        if let Err(most) = config.set_max_readahead(TRANSFER_BYTES) {
            let _nearest = config.set_max_readahead(most);
        }
        let _nearest = config.set_max_background(64);
        let _nearest = config.set_time_granularity(Duration::from_nanos(100));
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = text(name).and_then(|name| self.tree().lookup(parent.0, name));
        if !self.tree().is_writable() && matches!(&found, Err(fault) if fault.reason == Reason::NotFound) {
            // What is not there now never will be: the kernel may remember that too.
            let nothing = Facts { links: 0, ..unknown(0, Kind::File) };
            reply.entry_with_ttls(&FOREVER, &FOREVER, &self.attr(&nothing), Generation(0));
            return;
        }
        self.entry(found, reply);
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        self.tree().forget(node.0, count);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        // Who has it open asks for what it has open.
        if !self.tree().unlinked.is_open(node.0) && self.kept.is_stale(node.0) {
            return reply.error(Errno::ESTALE);
        }
        match self.tree().facts(node.0) {
            Ok(facts) => reply.attr(&self.keep(), &self.attr(&facts)),
            Err(fault) => reply.error(self.failed(&fault)),
        }
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        match self.tree().read_link(node.0) {
            Ok(text) => reply.data(text.as_bytes()),
            Err(fault) => reply.error(self.failed(&fault)),
        }
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if !self.tree().is_writable() {
            // The kernel then does not ask again, for any file.
            return reply.error(Errno::ENOSYS);
        }
        // The kernel then looks the name up anew, and opens what it finds.
        if self.kept.is_stale(node.0) {
            return reply.error(Errno::ESTALE);
        }
        let truncate = flags.0 & rustix::fs::OFlags::TRUNC.bits() as i32 != 0;
        let open = move |door: &Inner| match door.session.open(node.0, truncate) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(fault) => reply.error(door.failed(&fault)),
        };
        if truncate { self.change(open) } else { open(&self.inner) }
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        BUFFER.with_borrow_mut(|buffer| {
            let size = size.min(TRANSFER_BYTES) as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match self.tree().read(node.0, offset, &mut buffer[..size]) {
                Ok(count) => reply.data(&buffer[..count]),
                Err(fault) => reply.error(self.failed(&fault)),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.change(move |door| {
            let closed = door.session.close(node.0);
            if !door.tree().unlinked.is_open(node.0) {
                door.kept.closed(node.0);
            }
            door.empty(closed, reply);
        });
    }

    /// Asked only where the kernel does not look at modes itself, and root alone gets in: who may do all but run what is no program.
    fn access(&self, _: &Request, node: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        match self.tree().facts(node.0) {
            Err(fault) => reply.error(self.failed(&fault)),
            Ok(_) if mask.contains(AccessFlags::W_OK) && !self.tree().is_writable() => {
                reply.error(Errno::EROFS);
            }
            Ok(facts)
                if mask.contains(AccessFlags::X_OK)
                    && facts.kind == Kind::File
                    && self.view.file_mode & 0o111 == 0 =>
            {
                reply.error(Errno::EACCES);
            }
            Ok(_) => reply.ok(),
        }
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if !self.tree().is_writable() {
            return reply.error(Errno::ENOSYS);
        }
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let items = match self.listing(node.0, handle.0, offset) {
            Ok(listing) => listing.items,
            Err(fault) => return reply.error(self.failed(&fault)),
        };
        for index in offset..items.len() as u64 + 2 {
            let full = match index {
                0 => reply.add(node, 1, FileType::Directory, "."),
                1 => reply.add(INodeNo(1), 2, FileType::Directory, ".."),
                _ => {
                    let item = &items[(index - 2) as usize];
                    // A place without a number yet: any but zero.
                    let number = if item.number == 0 { u64::MAX - index } else { item.number };
                    reply.add(INodeNo(number), index + 1, file_type(item.kind), &item.name)
                }
            };
            if full {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Listing { items, changes } = match self.listing(node.0, handle.0, offset) {
            Ok(listing) => listing,
            Err(fault) => return reply.error(self.failed(&fault)),
        };
        // The kernel believes a listing as it does a look-up. What has changed since it was made is asked for again.
        let is_new = !self.tree().is_writable() || self.tree().changes() == changes;
        let keep = if is_new { self.keep() } else { Duration::ZERO };
        for index in offset..items.len() as u64 + 2 {
            let (name, found) = match index {
                0 => (".", Ok((unknown(node.0, Kind::Directory), true))),
                1 => ("..", Ok((unknown(1, Kind::Directory), true))),
                _ => {
                    let item = &items[(index - 2) as usize];
                    (item.name.as_str(), self.listed_facts(node.0, item))
                }
            };
            // What has gone since is not there any more.
            let Ok((facts, is_known)) = found else { continue };
            let (attr, generation) = (self.attr(&facts), self.generation(&facts));
            let keep = if is_known { &keep } else { &Duration::ZERO };
            if reply.add(INodeNo(facts.number), index + 1, name, keep, &attr, generation) {
                // It was counted although the kernel did not get it.
                self.tree().forget(facts.number, 1);
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, node: INodeNo, reply: ReplyStatfs) {
        match self.tree().space(node.0) {
            Ok((size, free, cluster)) => {
                let (unit, blocks) = (u64::from(cluster), size / u64::from(cluster));
                reply.statfs(
                    blocks,
                    free / unit,
                    free / unit,
                    0,
                    free / 1024,
                    cluster,
                    MAX_NAME_UNITS,
                    cluster,
                );
            }
            Err(fault) => reply.error(self.failed(&fault)),
        }
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = text(name).and_then(|name| self.tree().attribute(node.0, name));
        self.xattr(value, size, reply);
    }

    fn listxattr(&self, _: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.tree().attribute_names(node.0);
        let list =
            names.map(|names| names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect());
        self.xattr(list, size, reply);
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.change(move |door| {
            let change = || -> Answer<Facts> {
                let mut new = NewTimes {
                    accessed: atime.map(time_of),
                    modified: mtime.map(time_of),
                    changed: ctime.map(FileTime::from_system_time),
                    created: None,
                };
                if let Some(size) = size {
                    door.session.set_len(node.0, size)?;
                }
                if let Some(mode) = mode {
                    door.session.set_read_only(node.0, mode & 0o200 == 0)?;
                    new.changed.get_or_insert_with(clock::now);
                }
                // Both of these alone: the kernel cleans an inode.
                if let (None, Some(modified), Some(_), None, None) =
                    (new.accessed, new.modified, new.changed, size, mode)
                    && !door.kept.believes(node.0, modified)
                {
                    new = NewTimes::default();
                }
                if new.accessed.is_some() || new.modified.is_some() || new.changed.is_some() {
                    door.session.set_times(node.0, new)?;
                }
                // Owner and group are those of the whole mount: said yes to, and not kept, as ntfs-3g does.
                door.tree().facts(node.0)
            };
            match change() {
                Ok(facts) => reply.attr(&door.keep(), &door.attr(&facts)),
                Err(fault) => reply.error(door.failed(&fault)),
            }
        });
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        // The type of a regular file, or none; NTFS has no devices, pipes and sockets that Windows would know.
        if !matches!(mode & 0o170_000, 0 | 0o100_000) {
            return reply.error(text(name).map_or_else(|fault| errno(fault.reason), |_| Errno::EPERM));
        }
        let name = name.to_owned();
        self.change(move |door| {
            let made = text(&name).and_then(|name| door.session.create(parent.0, name, false));
            door.entry(made.map(|facts| (facts, true)), reply);
        });
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let name = name.to_owned();
        self.change(move |door| {
            let made = text(&name).and_then(|name| door.session.create(parent.0, name, true));
            door.entry(made.map(|facts| (facts, true)), reply);
        });
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        self.change(move |door| {
            let made = text(&name).and_then(|name| {
                let facts = door.session.create(parent.0, name, false)?;
                door.session.open(facts.number, false)?;
                Ok((facts, !name.contains(':')))
            });
            match made {
                Ok((facts, exact)) => {
                    let keep = if exact { door.keep() } else { Duration::ZERO };
                    let flags = FopenFlags::FOPEN_KEEP_CACHE;
                    let generation = door.generation(&facts);
                    reply.created(&keep, &door.attr(&facts), generation, FileHandle(0), flags);
                }
                Err(fault) => reply.error(door.failed(&fault)),
            }
        });
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, to: &Path, reply: ReplyEntry) {
        let (name, to) = (name.to_owned(), to.to_path_buf());
        self.change(move |door| {
            let made = text(&name).and_then(|name| {
                let to = to.to_str().ok_or(Reason::Invalid)?;
                door.session.symlink(parent.0, name, to, &door.mounted_on)
            });
            door.entry(made.map(|facts| (facts, true)), reply);
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |door| {
            door.empty(text(&name).and_then(|name| door.session.unlink(parent.0, name)), reply);
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |door| {
            door.empty(text(&name).and_then(|name| door.session.rmdir(parent.0, name)), reply);
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let how = match flags {
            f if f.is_empty() => Replacing::Yes,
            RenameFlags::RENAME_NOREPLACE => Replacing::No,
            RenameFlags::RENAME_EXCHANGE => Replacing::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.change(move |door| {
            let rename = || door.session.rename(parent.0, text(&name)?, new_parent.0, text(&new_name)?, how);
            door.empty(rename(), reply);
        });
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.change(move |door| {
            let made = text(&name).and_then(|name| door.session.link(node.0, parent.0, name));
            door.entry(made.map(|facts| (facts, true)), reply);
        });
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // What comes from the kernel's cache has the times that the kernel sends beside it; those of others' mounts fuser does not let in.
        let cached = how.contains(WriteFlags::FUSE_WRITE_CACHE) && rustix::process::geteuid().is_root();
        let answer = move |door: &Inner, data: &[u8]| match door.session.write(node.0, offset, data, cached) {
            Ok(()) => reply.written(data.len() as u32),
            Err(fault) => reply.error(door.failed(&fault)),
        };
        // The data is copied only when it has to wait.
        match self.later.go(&self.session) {
            Some(_inside) => answer(&self.inner, data),
            None => {
                let data = data.to_vec();
                self.change(move |door| answer(door, &data));
            }
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.publish(reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.publish(reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // KEEP_SIZE with PUNCH_HOLE, ZERO_RANGE with and without it; room behind the end is not kept by NTFS.
        let (plain, punch, zero, zero_and_keep) = (0, 0x03, 0x10, 0x11);
        if ![plain, punch, zero, zero_and_keep].contains(&mode) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        self.change(move |door| {
            let work = || match mode {
                0 => {
                    let end = offset.checked_add(length).ok_or(Reason::TooLarge)?;
                    door.session.reserve(node.0, end)
                }
                _ => door.session.punch(node.0, offset, length, mode == zero),
            };
            door.empty(work(), reply);
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let must_exist = match flags {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        };
        let (name, value) = (name.to_owned(), value.to_vec());
        self.change(move |door| {
            let set = text(&name).and_then(|name| {
                door.session.set_attribute(node.0, name, &value, must_exist)?;
                door.attribute_changed(node.0, name);
                Ok(())
            });
            door.empty(set, reply);
        });
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(move |door| {
            let removed = text(&name).and_then(|name| {
                door.session.remove_attribute(node.0, name)?;
                door.attribute_changed(node.0, name);
                Ok(())
            });
            door.empty(removed, reply);
        });
    }
}
