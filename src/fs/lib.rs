//! File systems as the layers above see them: traits, ids, metadata and Windows paths; `ntfs/`, `fat/` and `wim` implement them.
//!
//! Nodes are ids and not borrowed handles, so that caches, the mount and batch can keep them. A reader is shared by
//! `&self`; a writer is `&mut self` and works on a staged disk, so it needs no ordering and no journal of its own.

pub mod fat;
pub mod ntfs;
mod open;
pub mod path;
mod search;
pub mod security;
pub mod shadow;
pub(crate) mod short_name;
pub mod tag;
mod walk;
pub mod wim;

pub use open::{open, open_mut, open_mut_with, read_file, resolve};
pub use search::{Depth, FoundVolume, search, view};
pub use walk::{Order, Visit, Walked};

use std::ops::Range;
use vmrescue_base::error::{Defect, Error, Layer, Result};
use vmrescue_base::guid::Guid;
use vmrescue_base::progress::Progress;
use vmrescue_base::time::FileTime;

/// A file or directory of one volume. On NTFS the file reference: record number in the low 48 bits, sequence above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A file with data.
    File,
    /// A directory.
    Directory,
    /// A reparse point, of which [`Metadata::reparse`] knows more. A compressed (WOF) file counts as a file.
    Reparse,
}

/// The DOS attribute bits ([MS-FSCC] 2.6) as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attributes(pub u32);

impl Attributes {
    /// FILE_ATTRIBUTE_READONLY.
    pub const READ_ONLY: u32 = 0x1;
    /// FILE_ATTRIBUTE_HIDDEN.
    pub const HIDDEN: u32 = 0x2;
    /// FILE_ATTRIBUTE_SYSTEM.
    pub const SYSTEM: u32 = 0x4;
    /// FILE_ATTRIBUTE_DIRECTORY; NTFS keeps it elsewhere, readers here add it.
    pub const DIRECTORY: u32 = 0x10;
    /// FILE_ATTRIBUTE_ARCHIVE.
    pub const ARCHIVE: u32 = 0x20;
    /// FILE_ATTRIBUTE_SPARSE_FILE.
    pub const SPARSE: u32 = 0x200;
    /// FILE_ATTRIBUTE_REPARSE_POINT.
    pub const REPARSE_POINT: u32 = 0x400;
    /// FILE_ATTRIBUTE_COMPRESSED.
    pub const COMPRESSED: u32 = 0x800;
    /// FILE_ATTRIBUTE_ENCRYPTED.
    pub const ENCRYPTED: u32 = 0x4000;

    /// True when all of `bits` are set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// The four times of NTFS; FAT leaves what it lacks at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// When the file was made.
    pub created: FileTime,
    /// When its data last changed.
    pub modified: FileTime,
    /// When its record last changed.
    pub changed: FileTime,
    /// When it was last read.
    pub accessed: FileTime,
}

/// A reparse point ([MS-FSCC] 2.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reparse {
    /// The tag.
    pub tag: u32,
    /// Where it points to, for symbolic links, junctions and mount points: the substitute name.
    pub target: Option<String>,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The node.
    pub id: NodeId,
    /// File, directory or reparse point.
    pub kind: NodeKind,
    /// Bytes of the unnamed stream; 0 for directories.
    pub size_bytes: u64,
    /// Bytes that the unnamed stream takes on the volume; 0 when resident.
    pub allocated_bytes: u64,
    /// DOS attributes.
    pub attributes: Attributes,
    /// $STANDARD_INFORMATION times.
    pub times: Times,
    /// How many names (hard links, DOS names not counted) it has.
    pub links: u32,
    /// Set when it is a reparse point.
    pub reparse: Option<Reparse>,
    /// The security id of NTFS 3 ($Secure), if any.
    pub security_id: Option<u32>,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The long name, unpaired surrogates shown as U+FFFD (then `name_utf16` has the true units).
    pub name: String,
    /// The units of the name, only when `name` does not say all.
    pub name_utf16: Option<Vec<u16>>,
    /// The 8.3 name, when the volume keeps a separate one.
    pub short_name: Option<String>,
    /// The node behind the name.
    pub id: NodeId,
    /// What the directory says it is (a directory bit, a reparse bit).
    pub kind: NodeKind,
    /// Size as the directory says; `Metadata` has the true one.
    pub size_bytes: u64,
    /// Attributes as the directory says.
    pub attributes: Attributes,
    /// Times as the directory says.
    pub times: Times,
}

/// A data stream of a node; the unnamed one has an empty name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Name without the colon; empty for the unnamed stream.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Bytes taken on the volume; 0 when resident.
    pub allocated_bytes: u64,
    /// Data lies in the record itself.
    pub resident: bool,
    /// LZNT1-compressed by the file system.
    pub compressed: bool,
    /// Has holes.
    pub sparse: bool,
    /// Encrypted by EFS: its bytes are shown as stored.
    pub encrypted: bool,
}

/// A name that a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName {
    /// The directory that it is in.
    pub directory: NodeId,
    /// The name.
    pub name: String,
    /// It is an 8.3 name, alone or at the same time as the long one.
    pub short: bool,
    /// The times of $FILE_NAME, which Windows sets when the name is given and then leaves alone.
    pub times: Times,
}

/// Parts of a node that few callers ask for, each as its bytes lie on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RawPart {
    /// The self-relative security descriptor ([MS-DTYP] 2.4.6), from the file or from $Secure.
    SecurityDescriptor,
    /// The reparse point with its header ([MS-FSCC] 2.1.2).
    ReparsePoint,
    /// The list of extended attributes ([MS-FSCC] 2.4.16).
    ExtendedAttributes,
    /// The object id: 16 bytes, or 64 with the ids of its birth, which the volume keeps in an index.
    ObjectId,
}

/// An extended attribute (of OS/2, and of Linux files in WSL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedAttribute {
    /// Name, ASCII; NTFS keeps it in upper case.
    pub name: String,
    /// Who does not understand it must not open the file.
    pub needed: bool,
    /// Value, never empty.
    pub value: Vec<u8>,
}

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// `ntfs`, `fat12`, `fat16`, `fat32`.
    pub kind: &'static str,
    /// Label, empty when none.
    pub label: String,
    /// Serial number as `vol` shows its lower half; NTFS has 64 bits, FAT 32.
    pub serial: u64,
    /// Version of the format, such as `3.1`.
    pub version: String,
    /// Bytes of the volume as the file system counts them.
    pub size_bytes: u64,
    /// Bytes of one cluster.
    pub cluster_bytes: u32,
    /// Bytes of free clusters; `None` when the map was not read.
    pub free_bytes: Option<u64>,
    /// The volume says that it was not cleanly unmounted or wants chkdsk.
    pub dirty: bool,
}

/// A file system that can be read. Shared by `&self`, by several threads.
pub trait FileSystem: Send + Sync {
    /// Facts on the volume. Cheap, but for `free_bytes` (see [`FileSystem::free_bytes`]).
    fn info(&self) -> VolumeInfo;

    /// Bytes of free clusters: reads the allocation map.
    ///
    /// # Errors
    /// Of the disk or the map.
    fn free_bytes(&self) -> Result<u64>;

    /// Ranges of the volume, in bytes and in order, that hold nothing: free clusters. None where it is not known.
    ///
    /// # Errors
    /// Of the disk or the map.
    fn free_ranges(&self) -> Result<Vec<Range<u64>>> {
        Ok(Vec::new())
    }

    /// The root directory.
    fn root(&self) -> NodeId;

    /// The node that `name` (one component, in any case) has in `directory`.
    ///
    /// # Errors
    /// `Invalid` when it is not a directory; damage.
    fn lookup(&self, directory: NodeId, name: &str) -> Result<Option<NodeId>>;

    /// Metadata of a node.
    ///
    /// # Errors
    /// `NotFound` when the id is stale; damage.
    fn metadata(&self, node: NodeId) -> Result<Metadata>;

    /// All names of a directory in the directory's own order, without `.` and `..`, without separate DOS names.
    ///
    /// # Errors
    /// As [`FileSystem::lookup`].
    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>>;

    /// Shows every name below a directory (not the directory itself) to `visit`, with all metadata, in the
    /// `order` that is asked for. Reparse points are shown, not followed. What cannot be read is returned as defects, and
    /// the walk goes on.
    ///
    /// The way to look at a whole volume: NTFS answers from one linear pass over $MFT, many times as fast as going
    /// from directory to directory, and also shows the times of each name and, from the root, names that no directory leads to.
    ///
    /// ```no_run
    /// # use vmrescue_fs::Order;
    /// # fn list(fs: &dyn vmrescue_fs::FileSystem) -> vmrescue_base::Result<()> {
    /// let defects = fs.walk(fs.root(), Order::Any, &mut |file| {
    ///     println!("{} {} {:?}", file.path, file.times.modified, file.name_times.map(|times| times.modified));
    ///     Ok(())
    /// })?;
    /// # drop(defects); Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of `visit`; when `from` is not there.
    fn walk(&self, from: NodeId, _order: Order, visit: &mut Visit<'_>) -> Result<Vec<Defect>> {
        walk::walk_directories(self, from, visit)
    }

    /// The data streams of a node, unnamed first.
    ///
    /// # Errors
    /// Damage.
    fn streams(&self, node: NodeId) -> Result<Vec<StreamInfo>>;

    /// Reads from a stream (`""` for the unnamed one), decompressed. Returns how many bytes were read: fewer than asked
    /// only at the end of the stream.
    ///
    /// # Errors
    /// `NotFound` without such a stream; `Unsupported` for encrypted data; damage.
    fn read(&self, node: NodeId, stream: &str, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// The parts of a stream, in bytes and in order, that have clusters; what lies between them reads as zero. `None` when
    /// that is not known (resident, compressed, or a file system without holes): then all of it is read.
    ///
    /// # Errors
    /// `NotFound` without such a stream; damage.
    fn data_ranges(&self, _node: NodeId, _stream: &str) -> Result<Option<Vec<Range<u64>>>> {
        Ok(None)
    }

    /// True for a file of the file system itself ($MFT, $Extend), which holds nothing of a user's.
    fn is_internal(&self, _node: NodeId) -> bool {
        false
    }

    /// All names of a node, 8.3 names too. Empty where the file system keeps none with the node.
    ///
    /// # Errors
    /// Damage.
    fn names(&self, _node: NodeId) -> Result<Vec<NodeName>> {
        Ok(Vec::new())
    }

    /// A part of a node as it lies on the volume; `None` when the node has none.
    ///
    /// # Errors
    /// Damage.
    fn raw_part(&self, _node: NodeId, _part: RawPart) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// How the volume was left: unfinished changes, hibernation. `None` for a file system that does not say.
    ///
    /// # Errors
    /// When what it is read from cannot be read.
    fn state(&self) -> Result<Option<ntfs::VolumeState>> {
        Ok(None)
    }

    /// The security descriptor of a node, self-relative ([`security::Descriptor::parse`] takes it apart). `None` where
    /// there is none.
    ///
    /// # Errors
    /// Damage.
    fn security(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        self.raw_part(node, RawPart::SecurityDescriptor)
    }

    /// The extended attributes of a node.
    ///
    /// # Errors
    /// Damage.
    fn extended_attributes(&self, node: NodeId) -> Result<Vec<ExtendedAttribute>> {
        let list = self.raw_part(node, RawPart::ExtendedAttributes)?;
        list.map_or(Ok(Vec::new()), |bytes| ntfs::ea::parse(&bytes))
    }

    /// The object id of a node, by which links find it after it was moved.
    ///
    /// # Errors
    /// Damage.
    fn object_id(&self, node: NodeId) -> Result<Option<Guid>> {
        Ok(self.raw_part(node, RawPart::ObjectId)?.and_then(|bytes| Guid::at(&bytes, 0)))
    }

    /// True for a directory in which names differ by case.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`].
    fn is_case_sensitive(&self, _directory: NodeId) -> Result<bool> {
        Ok(false)
    }

    /// Looks at everything and changes nothing: this trait cannot write.
    ///
    /// # Errors
    /// Only what stops the check itself; damage is returned as defects.
    fn check(&self, progress: &dyn Progress) -> Result<Vec<Defect>>;
}

/// Which metadata to change; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataChange {
    /// New DOS attributes (only the bits a user may set).
    pub attributes: Option<Attributes>,
    /// New times.
    pub times: Option<Times>,
    /// New times of $FILE_NAME, the second set of NTFS that no program of Windows can set; of all names.
    pub name_times: Option<Times>,
    /// Take over the security of this node of the same volume.
    pub security_from: Option<NodeId>,
    /// This security descriptor, self-relative. Goes before `security_from`.
    pub security: Option<Vec<u8>>,
}

/// A file system that can be changed. Every method leaves the volume consistent, or fails and leaves it as it was.
pub trait FileSystemMut: FileSystem {
    /// Makes a new empty file or directory. Security is inherited from the directory.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `Invalid` names, damage in what would be changed.
    fn create(&mut self, directory: NodeId, name: &str, kind: NodeKind) -> Result<NodeId>;

    /// Writes into a stream, growing it (and making a named one) as needed.
    ///
    /// # Errors
    /// `NoSpace`, `Unsupported` (compressed, encrypted), damage.
    fn write(&mut self, node: NodeId, stream: &str, offset: u64, data: &[u8]) -> Result<()>;

    /// Cuts or grows a stream; new bytes are zero.
    ///
    /// # Errors
    /// As [`FileSystemMut::write`].
    fn set_len(&mut self, node: NodeId, stream: &str, length_bytes: u64) -> Result<()>;

    /// Gives the node `from_name` in `from` the name `to_name` in `to`. Never replaces.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `Invalid` (a directory into itself), `NoSpace`, damage.
    fn rename(&mut self, from: NodeId, from_name: &str, to: NodeId, to_name: &str) -> Result<()>;

    /// Adds a second name.
    ///
    /// # Errors
    /// As [`FileSystemMut::rename`]; `Unsupported` where the file system has no hard links.
    fn link(&mut self, node: NodeId, directory: NodeId, name: &str) -> Result<()>;

    /// Removes a name, and the node with its last one. Directories must be empty.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` (not empty), damage.
    fn remove(&mut self, directory: NodeId, name: &str) -> Result<()>;

    /// Removes a named stream.
    ///
    /// # Errors
    /// `NotFound`, damage.
    fn remove_stream(&mut self, node: NodeId, stream: &str) -> Result<()>;

    /// Changes attributes, times, security.
    ///
    /// # Errors
    /// `NotFound`, damage.
    fn set_metadata(&mut self, node: NodeId, change: &MetadataChange) -> Result<()>;

    /// The time that changes carry from now on; `None` is that of the machine's clock. Nothing where times are not kept so.
    fn set_clock(&mut self, _time: Option<FileTime>) {}

    /// Grows a stream as [`FileSystemMut::set_len`] does; the new part takes no room where the file system has holes.
    ///
    /// # Errors
    /// As [`FileSystemMut::set_len`].
    fn grow_with_hole(&mut self, node: NodeId, stream: &str, length_bytes: u64) -> Result<()> {
        self.set_len(node, stream, length_bytes)
    }

    /// Makes a part of a stream a hole: it reads as zero and whole clusters of it are freed. The length stays.
    ///
    /// # Errors
    /// `Unsupported` where there are no holes; `NotFound`, damage.
    fn punch(&mut self, _node: NodeId, _stream: &str, _range: Range<u64>) -> Result<()> {
        Err(lacks("holes"))
    }

    /// Makes a node a reparse point with this tag, length and data, or an ordinary node again.
    ///
    /// # Errors
    /// `Unsupported` where there are none; `Invalid` for data that is no reparse point and for a directory that is not
    /// empty.
    fn set_reparse(&mut self, _node: NodeId, _data: Option<&[u8]>) -> Result<()> {
        Err(lacks("reparse points"))
    }

    /// Sets or removes one extended attribute.
    ///
    /// # Errors
    /// `Unsupported` where there are none; `Invalid` names and sizes.
    fn set_extended_attribute(&mut self, _node: NodeId, _name: &str, _value: Option<&[u8]>) -> Result<()> {
        Err(lacks("extended attributes"))
    }

    /// Sets or removes the object id.
    ///
    /// # Errors
    /// `Unsupported` where there are none; `AlreadyExists` when another node has it.
    fn set_object_id(&mut self, _node: NodeId, _id: Option<Guid>) -> Result<()> {
        Err(lacks("object ids"))
    }

    /// Sets the object id together with the ids of the file's birth: volume, object, domain.
    ///
    /// # Errors
    /// As [`FileSystemMut::set_object_id`].
    fn set_object_id_with_births(&mut self, _node: NodeId, _id: Guid, _births: &[u8; 48]) -> Result<()> {
        Err(lacks("object ids"))
    }

    /// Replaces all extended attributes by these; none removes all.
    ///
    /// # Errors
    /// As [`FileSystemMut::set_extended_attribute`].
    fn set_extended_attributes(&mut self, _node: NodeId, _list: &[ExtendedAttribute]) -> Result<()> {
        Err(lacks("extended attributes"))
    }

    /// Gives the name that a node has in a directory this 8.3 name as its partner, or takes its partner away.
    ///
    /// # Errors
    /// `Unsupported` where names have none; `Invalid` for what is no 8.3 name, and when the node has no long name there;
    /// `AlreadyExists` when another node has the name.
    fn set_short_name(&mut self, _node: NodeId, _directory: NodeId, _short: Option<&str>) -> Result<()> {
        Err(lacks("short names"))
    }

    /// Lets names in a directory differ by case, or not.
    ///
    /// # Errors
    /// `Unsupported` where it cannot be; `Invalid` for a directory that is not empty and for files.
    fn set_case_sensitive(&mut self, _directory: NodeId, _sensitive: bool) -> Result<()> {
        Err(lacks("case-sensitive directories"))
    }

    /// Writes everything that is still in memory to the staged disk.
    ///
    /// # Errors
    /// Of the staged disk.
    fn sync(&mut self) -> Result<()>;
}

fn lacks(what: &str) -> Error {
    Error::unsupported(Layer::FileSystem, format!("this file system has no {what}"))
}
