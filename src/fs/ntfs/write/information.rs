//! What $STANDARD_INFORMATION says of a file, and the copies of it in names and directories.

use super::attribute::{Body, kind, put_all};
use super::core::damaged;
use super::entry::FileName;
use super::file::File;
use super::record::DIRECTORY;
use crate::ntfs::ea::EA_INFORMATION;
use crate::{Attributes, Times};
use vmrescue_base::bytes::{u16_at, u32_at, u64_at};
use vmrescue_base::error::Result;
use vmrescue_base::time::FileTime;

impl File {
    /// True for directories.
    pub(crate) fn is_directory(&self) -> bool {
        self.header.flags & DIRECTORY != 0
    }

    pub(crate) fn information(&self) -> &[u8] {
        self.value(kind::STANDARD_INFORMATION, "").unwrap_or(&[])
    }

    pub(crate) fn information_mut(&mut self) -> Result<&mut Vec<u8>> {
        match self.find(kind::STANDARD_INFORMATION, "").map(|i| &mut self.attributes[i].body) {
            Some(Body::Resident(value)) if value.len() >= 0x30 => Ok(value),
            _ => Err(damaged("a file without standard information")),
        }
    }

    /// DOS attributes as stored.
    pub(crate) fn attribute_bits(&self) -> u32 {
        u32_at(self.information(), 0x20).unwrap_or(0)
    }

    /// Id in $Secure.
    pub(crate) fn security_id(&self) -> Option<u32> {
        u32_at(self.information(), 0x34).filter(|id| *id != 0)
    }

    /// The four times.
    pub(crate) fn times(&self) -> Times {
        let time = |at| FileTime(u64_at(self.information(), at).unwrap_or(0));
        Times { created: time(0), modified: time(8), changed: time(0x10), accessed: time(0x18) }
    }

    /// Sets the four times.
    pub(crate) fn set_times(&mut self, times: Times) -> Result<()> {
        put_all(
            self.information_mut()?,
            &[
                (0x00, &times.created.0.to_le_bytes()),
                (0x08, &times.modified.0.to_le_bytes()),
                (0x10, &times.changed.0.to_le_bytes()),
                (0x18, &times.accessed.0.to_le_bytes()),
            ],
        );
        Ok(())
    }

    /// Sets "changed", and "modified" when data changed.
    pub(crate) fn touch(&mut self, now: FileTime, modified: bool) -> Result<()> {
        let mut times = self.times();
        times.changed = now;
        if modified {
            times.modified = now;
        }
        self.set_times(times)
    }

    pub(crate) fn set_bits(&mut self, clear: u32, set: u32) -> Result<()> {
        let bits = self.attribute_bits() & !clear | set;
        put_all(self.information_mut()?, &[(0x20, &bits.to_le_bytes())]);
        Ok(())
    }

    /// The stream is stored plainly now.
    pub(crate) fn clear_storage_flags(&mut self) {
        // A file without standard information is refused where it is stored.
        let gone = Attributes::COMPRESSED | Attributes::SPARSE | Attributes::ENCRYPTED;
        drop(self.set_bits(gone, 0));
    }

    /// All names.
    pub(crate) fn names(&self) -> Result<Vec<FileName>> {
        let values = self.attributes.iter().filter(|a| a.kind == kind::FILE_NAME);
        values
            .map(|a| {
                a.value().and_then(FileName::decode).ok_or_else(|| damaged("a file name that is cut off"))
            })
            .collect()
    }

    /// Bytes and allocated bytes of the unnamed stream.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let Some(place) = self.find(kind::DATA, "") else { return (0, 0) };
        match &self.attributes[place].body {
            Body::Resident(value) => (value.len() as u64, 0),
            Body::Runs(stream) => {
                let sparse = self.attributes[place].flags != 0;
                (
                    stream.size_bytes,
                    if sparse { stream.total_allocated_bytes } else { stream.allocated_bytes },
                )
            }
        }
    }

    /// The name's copies of times, sizes and attributes, as they are now.
    pub(crate) fn refreshed(&self, mut name: FileName) -> FileName {
        let (size, allocated) = self.sizes();
        name.times = self.times();
        name.size_bytes = size;
        name.allocated_bytes = if allocated == 0 { size.next_multiple_of(8) } else { allocated };
        let kept = name.attributes & 0xF000_0000;
        name.attributes = self.attribute_bits() & 0x0FFF_FFFF | kept;
        // The field holds the packed size of the extended attributes where there is no tag.
        let packed = self.value(EA_INFORMATION, "").and_then(|v| u16_at(v, 0)).map_or(0, u32::from);
        name.reparse = self.reparse_tag().unwrap_or(packed);
        name
    }

    /// Leaves only the names that `keep` says.
    pub(crate) fn retain_names(&mut self, keep: impl Fn(&FileName) -> bool) {
        self.attributes.retain(|a| {
            a.kind != kind::FILE_NAME || a.value().and_then(FileName::decode).is_none_or(|n| keep(&n))
        });
    }
}
