//! Doors beside the command line: the decoded disk for other programs.
//!
//! * [`nbd`]: a server of the network block device protocol, read-only
//! * [`socket`]: the local sockets that it listens on; the only file here with code for one operating system
//!
//! Missing: mounting as a folder (FUSE), writing through NBD.

pub mod nbd;
pub mod socket;
