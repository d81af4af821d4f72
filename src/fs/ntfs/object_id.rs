//! Object ids ([MS-FSCC] 2.1.3): the attribute of a file has 16 bytes, and the volume's index `\$Extend\$ObjId:$O` under
//! these the file's reference and the ids of its birth (volume, object, domain). Windows XP and older also kept the
//! births in the attribute.

use super::directory::Directory;
use super::record::number_of;
use super::volume::Volume;
use crate::{FileSystem, NodeId};
use vmrescue_base::error::Result;
use vmrescue_base::text::utf16le_bytes;

/// Bytes of the id itself.
pub(crate) const OBJECT_ID_BYTES: usize = 16;
/// Bytes of the id with the three ids of the birth.
pub(crate) const WHOLE_OBJECT_ID_BYTES: usize = 64;
/// Where the births stand in the index: behind the reference.
const BIRTHS: std::ops::Range<usize> = 8..56;
/// Record of $Extend.
const EXTEND: u64 = 11;

impl Volume {
    /// The ids of the birth of the file with this object id.
    pub(crate) fn birth_ids(&self, id: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.lookup(NodeId(EXTEND), "$ObjId")? else { return Ok(None) };
        let node = self.node_of(file)?;
        let index = Directory::open_view(self, number_of(file.0), &node, &utf16le_bytes("$O"))?;
        let data = index.find_view(id)?;
        Ok(data.and_then(|data| data.get(BIRTHS).map(<[u8]>::to_vec)))
    }
}
