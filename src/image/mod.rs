//! Container formats: from a host file to the virtual disk inside it.
//!
//! The format is probed by content, never by name. Readers are lenient: what is odd but readable is listed in
//! [`Container::defects`]. Writers work on a staged file (see `transaction/`) and need no ordering of their own.
//! Differencing disks are opened with their parents by [`open_path`].
//! Missing: qcow2 and VMDK; VHDX sector bitmaps are read but never written (a block that is written becomes whole).

mod chain;
mod create;
mod raw;
#[cfg(test)]
mod tests;
mod vhd;
mod vhdx;

pub use chain::{OpenOptions, open_file, open_parent, open_path};
pub use create::{CreateSpec, Kind, create};

use crate::block::{Disk, DiskMut};
use crate::error::{Defect, Error, Layer, Result};
use serde::Serialize;

/// The container formats that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk, byte for byte.
    Raw,
    /// Virtual PC, Azure, older Hyper-V.
    Vhd,
    /// Hyper-V since Windows Server 2012.
    Vhdx,
}

/// How a container keeps its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// No container at all.
    Raw,
    /// All blocks are there.
    Fixed,
    /// Blocks appear when they are written.
    Dynamic,
    /// Blocks that are absent are the parent's.
    Differencing,
}

/// What the container says about itself.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerInfo {
    /// Format of the file.
    pub format: Format,
    /// Kind of the file.
    pub variant: Variant,
    /// Length of the virtual disk in bytes.
    pub size: u64,
    /// Length of the host file in bytes.
    pub file_size: u64,
    /// Bytes of one block, for formats that have blocks.
    pub block_bytes: Option<u64>,
    /// Sector size that the guest sees.
    pub logical_sector_bytes: u32,
    /// Sector size of the medium, as the guest is told.
    pub physical_sector_bytes: u32,
    /// Identity of the virtual disk: VHD unique id, VHDX virtual disk id.
    pub identity: Option<String>,
    /// Changes whenever the content does (VHDX DataWriteGuid; VHD: the unique id); what a child remembers of us.
    pub content_identity: Option<String>,
    /// Program that made the file.
    pub creator: Option<String>,
    /// True when a log had to be replayed (in memory) to read the disk.
    pub log_replayed: bool,
    /// Where the parent is said to be, the best hint first.
    pub parent_hints: Vec<String>,
    /// The content identity that the parent must have.
    pub parent_identity: Option<String>,
    /// The file that was opened as parent.
    pub parent: Option<String>,
}

/// An opened container: the virtual disk and what was noticed on the way.
#[derive(Debug, Clone)]
pub struct Container<D> {
    /// The virtual disk.
    pub disk: D,
    /// What the container says about itself.
    pub info: ContainerInfo,
    /// What is wrong with the container but does not keep it from being read.
    pub defects: Vec<Defect>,
}

/// Tells the format of a host file by its content.
///
/// # Errors
/// Of reading the file.
pub fn probe(file: &Disk) -> Result<Format> {
    if file.len() >= 8 && file.read_vec(0, 8)? == b"vhdxfile" {
        Ok(Format::Vhdx)
    } else if vhd::looks_like(file)? {
        Ok(Format::Vhd)
    } else {
        Ok(Format::Raw)
    }
}

/// Opens the virtual disk in `file` for reading; a log is replayed in memory.
///
/// # Errors
/// `Unsupported` for a differencing disk (use [`open_path`]); `Damaged` for one that cannot be read.
pub fn open(file: &Disk) -> Result<Container<Disk>> {
    open_with_parent(file, None)
}

pub(crate) fn open_with_parent(file: &Disk, parent: Option<Disk>) -> Result<Container<Disk>> {
    match probe(file)? {
        Format::Raw => raw::open(file),
        Format::Vhd => vhd::open(file, parent),
        Format::Vhdx => vhdx::open(file, parent),
    }
}

/// Opens the virtual disk in the staged `file` for writing. Differencing disks need their `parent`.
///
/// # Errors
/// As [`open`]; also for containers with defects that a writer cannot explain.
pub fn open_mut(file: &DiskMut, parent: Option<Disk>) -> Result<Container<DiskMut>> {
    match probe(&file.as_disk())? {
        Format::Raw => raw::open_mut(file),
        Format::Vhd => vhd::open_mut(file, parent),
        Format::Vhdx => vhdx::open_mut(file, parent),
    }
}

/// The container's own facts, without opening the disk; works for a child without its parent.
///
/// # Errors
/// `Damaged` when the container cannot be understood.
pub fn info(file: &Disk) -> Result<ContainerInfo> {
    match probe(file)? {
        Format::Raw => Ok(raw::info(file)),
        Format::Vhd => vhd::info(file),
        Format::Vhdx => vhdx::info(file),
    }
}

/// Everything wrong with the container.
///
/// # Errors
/// Of reading the file; damage is in the list.
pub fn check(file: &Disk) -> Result<Vec<Defect>> {
    match probe(file)? {
        Format::Raw => Ok(Vec::new()),
        Format::Vhd => vhd::check(file),
        Format::Vhdx => vhdx::check(file),
    }
}

/// Refuses a missing parent with the way out.
fn parent_missing(layer: Layer) -> Error {
    Error::unsupported(layer, "a differencing disk was opened without its parent")
        .advice("put the parent beside it, or name it with --parent")
}
