//! Security of files that are written: $Secure with its descriptors ($SDS), the index by id ($SII) and that by hash
//! ($SDH), and what new files inherit.
//!
//! A descriptor that the volume has already is not stored again. New ones are appended to $SDS and its copy with the
//! next flush, when the operation that needs them has succeeded.

use super::attribute::{Attribute, Body, kind, put_all};
use super::core::{Core, damaged};
use super::entry::Entry;
use super::file::File;
use super::tree::{Collation, Tree};
use crate::ntfs::sds::{self, Header};
use crate::security::Descriptor;
use std::collections::{BTreeMap, HashMap};
use vmrescue_base::error::{Error, Layer, Result};

/// Record of $Secure.
const SECURE: u64 = 9;
/// First id of a new volume; lower ones are reserved.
const FIRST_ID: u32 = 0x100;
/// What Windows writes behind the data of $SDH entries, where the alignment leaves room.
const SDH_FILL: [u8; 4] = [b'I', 0, b'I', 0];
/// Bytes of $STANDARD_INFORMATION since NTFS 3.0.
const INFORMATION_BYTES: usize = 0x48;

/// What is known of $Secure.
#[derive(Debug, Default)]
pub(crate) struct Secure {
    by_id: BTreeMap<u32, Header>,
    by_hash: HashMap<u32, Vec<u32>>,
    /// Descriptors that may not be on the disk yet.
    fresh: HashMap<u32, Vec<u8>>,
}

impl Core {
    /// Reads the index of $Secure, once.
    fn secure(&mut self) -> Result<&mut Secure> {
        if self.secure.is_none() {
            let file = File::load(self, SECURE)?;
            let tree = Tree::open(self, &file, "$SII", Collation::Number)?;
            let mut secure = Secure::default();
            for entry in tree.entries(self, &file)? {
                let at = (entry.reference & 0xFFFF) as usize;
                let header = at.checked_sub(0x10).and_then(|at| Header::parse(entry.key.get(at..)?));
                let header = header.filter(|header| entry.key.get(..4) == Some(&header.id.to_le_bytes()));
                let header =
                    header.ok_or_else(|| damaged("an entry of $Secure's $SII that is not its key"))?;
                secure.by_hash.entry(header.hash).or_default().push(header.id);
                secure.by_id.insert(header.id, header);
            }
            self.secure = Some(secure);
        }
        self.secure.as_mut().ok_or_else(|| damaged("$Secure"))
    }

    /// The descriptor with this id.
    ///
    /// # Errors
    /// `Damaged` when $Secure has none.
    pub(crate) fn descriptor(&mut self, id: u32) -> Result<Vec<u8>> {
        let missing = || damaged(format!("$Secure has no whole descriptor with the id {id:#x}"));
        let secure = self.secure()?;
        if let Some(bytes) = secure.fresh.get(&id) {
            return Ok(bytes.clone());
        }
        let header = *secure.by_id.get(&id).ok_or_else(missing)?;
        let stream = File::load(self, SECURE)?.stream_mut(kind::DATA, "$SDS")?.clone();
        self.flush_late()?;
        for at in [header.offset, header.offset.saturating_add(sds::MIRROR_BYTES)] {
            let inside = at.checked_add(u64::from(header.length)).is_some_and(|end| end <= stream.size_bytes);
            if !inside {
                continue;
            }
            let entry = self.read_at_stream(&stream, at, header.length as usize)?;
            let whole = Header::parse(&entry) == Some(header);
            let bytes = entry.get(sds::HEADER_BYTES..).unwrap_or_default();
            if whole && sds::hash(bytes) == header.hash {
                return Ok(bytes.to_vec());
            }
        }
        Err(missing())
    }

    /// The security descriptor of a file.
    pub(crate) fn security_of(&mut self, file: &File) -> Result<Option<Vec<u8>>> {
        if let Some(id) = file.security_id() {
            return self.descriptor(id).map(Some);
        }
        match file.find(kind::SECURITY_DESCRIPTOR, "").map(|place| &file.attributes[place].body) {
            None => Ok(None),
            Some(Body::Resident(value)) => Ok(Some(value.clone())),
            Some(Body::Runs(stream)) => self.read_stream(stream, 0x2_0200).map(Some),
        }
    }

    /// The id of a descriptor, which is added to $Secure when it is not there yet.
    pub(crate) fn id_of(&mut self, descriptor: &[u8]) -> Result<u32> {
        let hash = sds::hash(descriptor);
        let same_hash = self.secure()?.by_hash.get(&hash).cloned().unwrap_or_default();
        for id in same_hash {
            // A damaged one is not taken, and does not keep a whole one from being added.
            if self.descriptor(id).is_ok_and(|bytes| bytes == descriptor) {
                return Ok(id);
            }
        }
        self.add_descriptor(hash, descriptor)
    }

    fn add_descriptor(&mut self, hash: u32, descriptor: &[u8]) -> Result<u32> {
        let secure = self.secure()?;
        let last = secure.by_id.last_key_value().map_or(FIRST_ID - 1, |(id, _)| *id).max(FIRST_ID - 1);
        let id =
            last.checked_add(1).ok_or_else(|| Error::limit(Layer::Ntfs, "ids of security descriptors"))?;
        let known_end = secure.by_id.values().map(|h| h.offset.saturating_add(u64::from(h.length))).max();
        let mut file = File::load(self, SECURE)?;
        let mut stream = file.stream_mut(kind::DATA, "$SDS")?.clone();
        let length = (sds::HEADER_BYTES + descriptor.len()) as u64;
        let offset = next_place(known_end.unwrap_or(0), stream.size_bytes, length)?;
        let end = offset + sds::MIRROR_BYTES + length;
        if end > sds::MAX_SDS_BYTES {
            return Err(Error::limit(Layer::Ntfs, "$Secure is full of descriptors").found(end));
        }
        self.extend(&mut stream, end)?;
        // The rest of the cluster that is in use with the operation, the clusters behind it now: nobody sees them before it has succeeded.
        let begun = stream.initialized_bytes;
        let rest = begun.next_multiple_of(self.geometry.cluster_bytes).min(end).max(begun);
        self.write_late(&stream, begun, &vec![0; (rest - begun) as usize])?;
        self.zero_runs(&stream, rest, end)?;
        stream.size_bytes = stream.size_bytes.max(end);
        stream.initialized_bytes = stream.size_bytes;
        let header = Header { hash, id, offset, length: length as u32 };
        let entry = [&header.encode()[..], descriptor].concat();
        self.write_late(&stream, offset, &entry)?;
        self.write_late(&stream, offset + sds::MIRROR_BYTES, &entry)?;
        *file.stream_mut(kind::DATA, "$SDS")? = stream;
        let mut by_id = Tree::open(self, &file, "$SII", Collation::Number)?;
        by_id.insert(self, &mut file, Entry::view(&id.to_le_bytes(), &header.encode()))?;
        let mut by_hash = Tree::open(self, &file, "$SDH", Collation::SecurityHash)?;
        let key = [hash.to_le_bytes(), id.to_le_bytes()].concat();
        let mut entry = Entry::view(&key, &header.encode());
        entry.key.extend_from_slice(&SDH_FILL);
        by_hash.insert(self, &mut file, entry)?;
        let secure = self.secure()?;
        secure.by_id.insert(id, header);
        secure.by_hash.entry(hash).or_default().push(id);
        secure.fresh.insert(id, descriptor.to_vec());
        Ok(id)
    }

    /// The id of what something new in `directory` inherits.
    pub(crate) fn inherited_id(&mut self, directory: &File, is_directory: bool) -> Result<u32> {
        let key = directory.security_id().map(|id| (id, is_directory));
        if let Some(id) = key.and_then(|key| self.inherited.get(&key)) {
            return Ok(*id);
        }
        let from = self.security_of(directory)?.map(|bytes| Descriptor::parse(&bytes)).transpose()?;
        let id = self.id_of(&Descriptor::inherited(from.as_ref(), is_directory).encode())?;
        if let Some(key) = key {
            self.inherited.insert(key, id);
        }
        Ok(id)
    }

    /// Gives a file this descriptor; the caller stores the file.
    pub(crate) fn set_security(&mut self, file: &mut File, descriptor: &[u8]) -> Result<()> {
        if let Err(error) = Descriptor::parse(descriptor) {
            return Err(Error::invalid(Layer::Ntfs, error.to_string()));
        }
        let id = self.id_of(descriptor)?;
        let value = file.information_mut()?;
        if value.len() < INFORMATION_BYTES {
            value.resize(INFORMATION_BYTES, 0);
        }
        put_all(value, &[(0x34, &id.to_le_bytes())]);
        self.drop_attribute(file, kind::SECURITY_DESCRIPTOR);
        Ok(())
    }

    /// Takes an unnamed attribute off a file and frees its clusters; the caller stores the file.
    pub(crate) fn drop_attribute(&mut self, file: &mut File, kind: u32) -> Option<Attribute> {
        let attribute = file.attributes.remove(file.find(kind, "")?);
        if let Body::Runs(stream) = &attribute.body {
            self.release(&stream.runs);
        }
        Some(attribute)
    }
}

/// Where an entry of `length` bytes goes: behind all that is there, in a block that has room for it.
fn next_place(known_end: u64, size: u64, length: u64) -> Result<u64> {
    let copied = size % (2 * sds::MIRROR_BYTES) > sds::MIRROR_BYTES;
    let end = if copied { known_end.max(size - sds::MIRROR_BYTES) } else { known_end };
    let at = end.checked_next_multiple_of(sds::ALIGNMENT).filter(|at| *at < 1 << 40);
    let at = at.ok_or_else(|| damaged("an entry of $Secure outside of it"))?;
    let pair = at / (2 * sds::MIRROR_BYTES) * (2 * sds::MIRROR_BYTES);
    if length > sds::MIRROR_BYTES {
        return Err(Error::limit(Layer::Ntfs, "a security descriptor").found(length));
    }
    Ok(if at + length <= pair + sds::MIRROR_BYTES { at } else { pair + 2 * sds::MIRROR_BYTES })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_do_not_cross_blocks() {
        let m = sds::MIRROR_BYTES;
        assert_eq!(next_place(0, 0, 100).unwrap(), 0);
        assert_eq!(next_place(0x78, m + 0x78, 100).unwrap(), 0x80);
        assert_eq!(next_place(m - 40, 2 * m - 40, 100).unwrap(), 2 * m);
        assert_eq!(next_place(m - 48, 2 * m - 48, 48).unwrap(), m - 48);
        assert_eq!(next_place(2 * m + 20, 3 * m + 20, 100).unwrap(), 2 * m + 32);
        assert!(next_place(u64::MAX - 3, 0, 100).is_err() && next_place(0, 0, m + 1).is_err());
    }
}
