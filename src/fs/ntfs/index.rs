//! Index nodes read in place: $INDEX_ROOT, INDX blocks and their entries; the $FILE_NAME value that is the key in
//! directories.

use super::record::fix_up;
use crate::Times;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::time::FileTime;

/// Entry flag: has a child.
const HAS_CHILD: u16 = 1;
/// Entry flag: ends the node.
const LAST: u16 = 2;
/// $FILE_NAME bit for directories.
const NAME_DIRECTORY: u32 = 0x1000_0000;
/// Namespace of 8.3 names that stand beside a long one.
pub(crate) const DOS: u8 = 2;

/// The header of $INDEX_ROOT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootHeader {
    /// Type of the attribute that is indexed: 0x30 in directories.
    pub(crate) attribute: u32,
    /// Collation rule.
    pub(crate) collation: u32,
    /// Bytes of an INDX block.
    pub(crate) block_bytes: u32,
}

/// The entries of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    bytes: &'a [u8],
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// File reference in directories.
    pub(crate) reference: u64,
    /// Key; empty in the entry that ends the node.
    pub(crate) key: &'a [u8],
    /// VCN of the node with the smaller keys.
    pub(crate) child: Option<u64>,
    /// Ends the node.
    pub(crate) last: bool,
    /// The whole entry; in view indexes the data lie in it, where the first two bytes say.
    pub(crate) body: &'a [u8],
}

/// Takes $INDEX_ROOT apart.
///
/// # Errors
/// `Damaged` when it does not hold its own fields.
pub(crate) fn root(value: &[u8]) -> Result<(RootHeader, Node<'_>)> {
    let header = (|| {
        Some(RootHeader {
            attribute: u32_at(value, 0)?,
            collation: u32_at(value, 4)?,
            block_bytes: u32_at(value, 8)?,
        })
    })();
    let header = header
        .filter(|h| h.block_bytes.is_power_of_two() && (512..=2 << 20).contains(&h.block_bytes))
        .ok_or_else(|| Error::damaged(Layer::Ntfs, "header of $INDEX_ROOT"))?;
    Ok((header, Node::parse(value, 0x10)?))
}

/// Takes an INDX block apart; the fixups are taken out of `bytes`.
///
/// # Errors
/// `Damaged` for a torn block, or one that belongs to another VCN.
pub(crate) fn block(bytes: &mut [u8], vcn: u64) -> Result<Node<'_>> {
    fix_up(bytes, b"INDX")?;
    let found = u64_at(bytes, 0x10).unwrap_or(u64::MAX);
    if found != vcn {
        return Err(Error::damaged(Layer::Ntfs, "VCN in an index block").expected(vcn).found(found));
    }
    Node::parse(bytes, 0x18)
}

impl<'a> Node<'a> {
    /// The node whose header is at `header`.
    fn parse(bytes: &'a [u8], header: usize) -> Result<Node<'a>> {
        let entries = (|| {
            let first = u32_at(bytes, header)? as usize;
            let used = u32_at(bytes, header + 4)? as usize;
            slice_at(bytes, header.checked_add(first)?, used.checked_sub(first)?)
        })();
        entries
            .map(|bytes| Node { bytes })
            .ok_or_else(|| Error::damaged(Layer::Ntfs, "header of an index node"))
    }

    /// The entries up to and with the one that ends the node; after an error nothing more comes.
    pub(crate) fn entries(&self) -> Entries<'a> {
        Entries { bytes: self.bytes, done: false }
    }
}

/// The entries of a node.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    bytes: &'a [u8],
    done: bool,
}

impl<'a> Entries<'a> {
    fn take(&mut self) -> Option<Entry<'a>> {
        let length = usize::from(u16_at(self.bytes, 8)?);
        let bytes = self.bytes.get(..length).filter(|_| length >= 0x10)?;
        self.bytes = &self.bytes[length..];
        let flags = u16_at(bytes, 0x0C)?;
        let last = flags & LAST != 0;
        let child = match flags & HAS_CHILD {
            0 => None,
            _ => Some(u64_at(bytes, length.checked_sub(8).filter(|at| *at >= 0x10)?)?),
        };
        let key = if last { &[] } else { slice_at(bytes, 0x10, usize::from(u16_at(bytes, 0x0A)?))? };
        Some(Entry { reference: u64_at(bytes, 0)?, key, child, last, body: bytes })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    // Bounded: every entry takes at least 16 bytes of the node.
    fn next(&mut self) -> Option<Result<Entry<'a>>> {
        if self.done {
            return None;
        }
        let entry = self.take();
        self.done = entry.is_none_or(|entry| entry.last);
        Some(entry.ok_or_else(|| Error::damaged(Layer::Ntfs, "entry of an index node")))
    }
}

/// The $FILE_NAME value, in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileName<'a> {
    bytes: &'a [u8],
    name: &'a [u8],
}

impl<'a> FileName<'a> {
    /// `None` when it does not hold its own fields.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<FileName<'a>> {
        let name = slice_at(bytes, 0x42, 2 * usize::from(*bytes.get(0x40)?))?;
        Some(FileName { bytes, name })
    }

    fn wide(&self, at: usize) -> u64 {
        u64_at(self.bytes, at).unwrap_or(0)
    }

    fn word(&self, at: usize) -> u32 {
        u32_at(self.bytes, at).unwrap_or(0)
    }

    /// Reference of the directory.
    pub(crate) fn parent(&self) -> u64 {
        self.wide(0)
    }

    /// The four times.
    pub(crate) fn times(&self) -> Times {
        times(self.bytes, 8)
    }

    /// Bytes of the unnamed stream, as of the last time that the directory was told.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.wide(0x30)
    }

    /// DOS attributes, with the private directory bit turned into the public one.
    pub(crate) fn attributes(&self) -> u32 {
        let stored = self.word(0x38);
        stored & 0x0FFF_FFFF | if self.is_directory() { crate::Attributes::DIRECTORY } else { 0 }
    }

    /// True for a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.word(0x38) & NAME_DIRECTORY != 0
    }

    /// The reparse tag, when the attributes say that there is one.
    pub(crate) fn reparse_tag(&self) -> Option<u32> {
        (self.word(0x38) & crate::Attributes::REPARSE_POINT != 0).then(|| self.word(0x3C))
    }

    /// Namespace: 0 POSIX, 1 Win32, 2 DOS, 3 both.
    pub(crate) fn namespace(&self) -> u8 {
        self.bytes.get(0x41).copied().unwrap_or(0)
    }

    /// The bytes of the name, UTF-16LE.
    pub(crate) fn name_bytes(&self) -> &'a [u8] {
        self.name
    }

    /// The units of the name.
    pub(crate) fn units(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.name.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair))
    }
}

/// Four times in a row, in the order of the disk.
pub(crate) fn times(bytes: &[u8], at: usize) -> Times {
    let time = |at| FileTime(u64_at(bytes, at).unwrap_or(0));
    Times { created: time(at), modified: time(at + 8), changed: time(at + 16), accessed: time(at + 24) }
}
