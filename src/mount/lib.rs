//! Doors beside the command line: the decoded disk for other programs.
//!
//! * [`tree`]: the disk as one tree of files, for any operating system; `slot` is one volume of it, `ahead` reads its $MFT before
//!   a walk asks, `link` turns targets of Windows into paths inside the mount, `xattr` has extended attributes, `registry` shows
//!   hives as files, `unlinked` keeps removed files that are open
//! * [`session`], `change`, `symlink` and `set_xattr`: the tree over a transaction, and changes to it; `gate` lets in either
//!   changes or a publisher
//! * `clock`: the time that changes carry
//! * [`fuse`]: the door to Linux; one to Windows (WinFsp) would stand beside it and use nothing but the above
//! * [`nbd`]: a server of the network block device protocol
//! * [`socket`]: the local sockets that it listens on

mod ahead;
pub mod change;
mod clock;
pub mod fault;
#[cfg(target_os = "linux")]
pub mod fuse;
mod gate;
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
