//! Container formats: from a host file to the virtual disk inside it.
//!
//! The format is probed by content, never by name. Readers are lenient: what is odd but readable is listed in
//! [`Container::defects`]. Writers work on a staged file (see `transaction/`) and need no ordering of their own.
//! Differencing disks are opened with their parents by [`open_path`].
//! qcow2 and VMDK are read only, as sources of conversions.
//! Missing: qcow2 with backing files, VMDK with several extents.

mod chain;
mod compact;
mod create;
mod foreign;
mod qcow2;
mod raw;
mod resize;
#[cfg(test)]
mod tests;
mod vhd;
mod vhdx;
mod vmdk;

pub use chain::{OpenOptions, check_links, children, open_file, open_parent, open_path, parents};
pub use compact::{Compacted, compact};
pub use create::{CreateSpec, Kind, can_have_child, create, create_child};
pub use resize::resize;

use serde::Serialize;
use vmrescue_base::error::{Defect, Error, Layer, Result, Severity};
use vmrescue_block::{Disk, DiskMut};

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
    /// QEMU.
    Qcow2,
    /// VMware.
    Vmdk,
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
    /// VHD: when the disk was made, in seconds since 2000; a child remembers it.
    pub time: Option<u32>,
    /// VHD: the time that the parent had when the child was made.
    pub parent_time: Option<u32>,
    /// The file that was opened as parent.
    pub parent: Option<String>,
}

impl ContainerInfo {
    /// A container that says nothing but its sizes, both in bytes; sectors have 512.
    fn new(format: Format, variant: Variant, size: u64, file_size: u64) -> ContainerInfo {
        ContainerInfo {
            format,
            variant,
            size,
            file_size,
            block_bytes: None,
            logical_sector_bytes: 512,
            physical_sector_bytes: 512,
            identity: None,
            content_identity: None,
            creator: None,
            log_replayed: false,
            parent_hints: Vec::new(),
            parent_identity: None,
            time: None,
            parent_time: None,
            parent: None,
        }
    }
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
/// `Unsupported` for a file of a kind that is known and not read, which would pass for a raw disk; of reading the file.
pub fn probe(file: &Disk) -> Result<Format> {
    let first = file.read_vec(0, file.len().min(32) as usize)?;
    if first.starts_with(b"vhdxfile") {
        Ok(Format::Vhdx)
    } else if qcow2::looks_like(&first) {
        Ok(Format::Qcow2)
    } else if vmdk::looks_like(&first) {
        Ok(Format::Vmdk)
    } else if vhd::looks_like(file)? {
        Ok(Format::Vhd)
    } else {
        foreign::refuse(file)?;
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

/// As [`open`], for a child whose parent is open already.
///
/// # Errors
/// As [`open`].
pub fn open_with_parent(file: &Disk, parent: Option<Disk>) -> Result<Container<Disk>> {
    match probe(file)? {
        Format::Raw => raw::open(file),
        Format::Vhd => vhd::open(file, parent),
        Format::Vhdx => vhdx::open(file, parent),
        Format::Qcow2 => qcow2::open(file),
        Format::Vmdk => vmdk::open(file),
    }
}

/// Where the part of a raw file lies that is no whole sector, and whether a file that is named as a VHD has no footer: what
/// Hyper-V and Azure refuse although the disk can be read. Notes and warnings, no damage of what is inside.
fn raw_remarks(file: &Disk, name: &std::path::Path) -> Vec<Defect> {
    use vmrescue_base::error::Severity;
    let named = name.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let mut remarks = Vec::new();
    if named.as_deref().is_some_and(|named| matches!(named, "vhd" | "avhd")) {
        let text = "the file is named as a VHD and has no footer: it is read as a raw disk; Hyper-V and Azure refuse it (vmrescue disk convert --format vhd-fixed makes one with a footer)";
        remarks.push(Defect::new("vhd-footer-missing", Severity::Warning, Layer::Vhd, file.len(), text));
    } else if named.as_deref().is_some_and(|named| matches!(named, "vhdx" | "avhdx")) {
        let text = "the file is named as a VHDX and does not begin as one: it is read as a raw disk";
        remarks.push(Defect::new("vhdx-signature-missing", Severity::Warning, Layer::Vhdx, 0, text));
    }
    remarks
}

/// As [`check`], with what the name of the file promises and its content does not keep.
///
/// # Errors
/// As [`check`].
pub fn check_file(file: &Disk, name: &std::path::Path) -> Result<Vec<Defect>> {
    let mut defects = check(file)?;
    if probe(file)? == Format::Raw {
        defects.extend(raw_remarks(file, name));
    }
    Ok(defects)
}

/// Refuses to write into a format that is only a source.
fn read_only(format: Format) -> Error {
    Error::unsupported(Layer::Image, "this format is only read")
        .found(format!("{format:?}").to_lowercase())
        .advice("convert it first: vmrescue disk convert IMAGE disk.vhdx --format vhdx-dynamic")
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
        format @ (Format::Qcow2 | Format::Vmdk) => Err(read_only(format)),
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
        Format::Qcow2 => qcow2::info(file),
        Format::Vmdk => vmdk::info(file),
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
        Format::Qcow2 | Format::Vmdk => Ok(open(file).map_or_else(
            |e| vec![Defect::from_error("container-unreadable", Severity::Error, &e)],
            |opened| opened.defects,
        )),
    }
}

/// A writer does not start on a container that is severely damaged: it would move, or write over, what it does not
/// understand.
fn refuse_severe(defects: &[Defect]) -> Result<()> {
    match defects.iter().find(|defect| defect.severity == Severity::Error) {
        None => Ok(()),
        Some(bad) => {
            let text = format!("the container is damaged: {} [{}]", bad.detail, bad.code);
            let refused = Error::refused(bad.layer, text).advice(
                "nothing was written; copy what can be read into a new file (`vmrescue disk convert`) and work on that",
            );
            Err(bad.offset.into_iter().fold(refused, Error::at))
        }
    }
}

/// Refuses the container in `file` for writing when [`check`] finds severe damage, as [`open_mut`] does.
///
/// # Errors
/// `Refused` with the first of the severe defects; of reading the file.
pub fn refuse_damaged(file: &Disk) -> Result<()> {
    refuse_severe(&check(file)?)
}

/// Refuses a missing parent with the way out.
fn parent_missing(layer: Layer) -> Error {
    Error::unsupported(layer, "a differencing disk was opened without its parent")
        .advice("put the parent beside it, or name it with --parent")
}
