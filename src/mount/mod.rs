//! Doors beside the command line: the decoded disk for other programs.
//!
//! * [`tree`]: the disk as one tree of files, for any operating system; `slot` is one volume of it, `link` turns targets of
//!   Windows into paths inside the mount, `xattr` has extended attributes, `registry` shows hives as files, `unlinked` keeps
//!   removed files that are open
//! * [`session`], `change`, `symlink` and `set_xattr`: the tree over a transaction, and changes to it; `gate` lets in either
//!   changes or a publisher
//! * [`fuse`]: the door to Linux, with `later` for changes that have to wait and `kernel` for what the kernel keeps; one to
//!   Windows (WinFsp) would stand beside it and use nothing but the above
//! * [`nbd`]: a server of the network block device protocol
//! * [`socket`]: the local sockets that it listens on

pub mod change;
pub mod fault;
#[cfg(target_os = "linux")]
pub mod fuse;
mod gate;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod later;
mod link;
pub mod nbd;
mod registry;
pub mod session;
mod set_xattr;
mod slot;
pub mod socket;
mod symlink;
pub mod tree;
mod unlinked;
mod xattr;

pub use registry::Shown;
