//! Reparse points, object ids, extended attributes, case-sensitive directories: each with the index of the volume or
//! the flag that goes with it.

use super::attribute::{Attribute, Body, Stream, kind, put_all};
use super::core::Core;
use super::entry::Entry;
use super::file::File;
use super::names::{EXTEND_RECORD, I30, ROOT, refuse_system};
use super::tree::{Collation, Tree};
use crate::ntfs::ea::{self, EA, EA_INFORMATION, MAX_EA_BYTES};
use crate::ntfs::object_id::OBJECT_ID_BYTES;
use crate::ntfs::usn::reason;
use crate::{Attributes, ExtendedAttribute};
use vmrescue_base::bytes::{u16_at, u32_at};
use vmrescue_base::error::{Error, ErrorKind, Layer, Result};
use vmrescue_base::guid::Guid;

/// Largest reparse point ([MS-FSCC] 2.1.2).
const MAX_REPARSE_BYTES: usize = 16 << 10;
/// Tag bit: a tag of Microsoft's, without a GUID in front of the data.
const MICROSOFT_TAG: u32 = 0x8000_0000;
/// Tag bit: a directory with it may have children.
const DIRECTORY_TAG: u32 = 0x1000_0000;
/// "Most versions" and "version" in $STANDARD_INFORMATION of a directory in which names differ by case.
const CASE_SENSITIVE: (u32, u32) = (0, 1);

impl Core {
    fn open_user(&mut self, node: u64) -> Result<File> {
        let file = File::open(self, node)?;
        if file.header.number != ROOT {
            refuse_system(&file)?;
        }
        Ok(file)
    }

    /// True when an opened directory has no names.
    pub(crate) fn is_empty_directory(&mut self, file: &File) -> Result<bool> {
        let tree = Tree::open(self, file, I30, Collation::FileName)?;
        Ok(tree.entries(self, file)?.is_empty())
    }

    /// A system file of $Extend with this index; `None` where the volume has none.
    fn extended(&mut self, name: &str, index: &'static str) -> Result<Option<(File, Tree)>> {
        let Ok(extend) = File::load(self, EXTEND_RECORD) else { return Ok(None) };
        let Some(entry) = self.lookup(extend.header.reference(), name)? else { return Ok(None) };
        let file = File::open(self, entry.reference)?;
        let tree = Tree::open(self, &file, index, Collation::Numbers)?;
        Ok(Some((file, tree)))
    }

    /// Removes a key from an index of $Extend, if it is there.
    fn unindex(&mut self, name: &str, index: &'static str, key: &[u8]) -> Result<()> {
        let Some((mut file, mut tree)) = self.extended(name, index)? else { return Ok(()) };
        if tree.find(self, &file, key)?.is_some() {
            tree.remove(self, &mut file, key)?;
        }
        Ok(())
    }

    fn index(&mut self, name: &str, index: &'static str, entry: Entry) -> Result<()> {
        let (mut file, mut tree) = self
            .extended(name, index)?
            .ok_or_else(|| Error::unsupported(Layer::Ntfs, format!(r"the volume has no \$Extend\{name}")))?;
        tree.insert(self, &mut file, entry).map_err(|e| e.context(format!(r"\$Extend\{name}")))
    }

    /// Takes the reparse point off a file, and out of the volume's index of them; the caller stores the file.
    pub(crate) fn remove_reparse(&mut self, file: &mut File) -> Result<()> {
        if file.find(kind::REPARSE_POINT, "").is_none() {
            return Ok(());
        }
        if let Some(tag) = file.reparse_tag() {
            let key = [&tag.to_le_bytes()[..], &file.header.reference().to_le_bytes()].concat();
            self.unindex("$Reparse", "$R", &key)?;
        }
        self.drop_attribute(file, kind::REPARSE_POINT);
        file.set_bits(Attributes::REPARSE_POINT, 0)
    }

    /// Makes a file a reparse point, or an ordinary file again.
    pub(crate) fn set_reparse(&mut self, node: u64, data: Option<&[u8]>) -> Result<()> {
        let mut file = self.open_user(node)?;
        if file.is_wof() {
            return Err(Error::unsupported(
                Layer::Ntfs,
                "the reparse point holds the file's compressed data",
            )
            .advice("write the file: it is then stored plainly"));
        }
        self.remove_reparse(&mut file)?;
        if let Some(data) = data {
            let tag = check_reparse(data)?;
            let bare = file.is_directory() && tag & DIRECTORY_TAG == 0;
            if bare && !self.is_empty_directory(&file)? {
                return Err(Error::invalid(
                    Layer::Ntfs,
                    "a directory that is not empty cannot lead elsewhere",
                ));
            }
            let attribute = self.value_attribute(&file, kind::REPARSE_POINT, data)?;
            file.attributes.push(attribute);
            file.outer_tag = Some(tag);
            file.set_bits(0, Attributes::REPARSE_POINT)?;
            let key = [&tag.to_le_bytes()[..], &file.header.reference().to_le_bytes()].concat();
            self.index("$Reparse", "$R", Entry::view(&key, &[]))?;
        }
        file.touch(self.now(), false)?;
        self.note(&mut file, reason::REPARSE_POINT_CHANGE)?;
        self.store_changed(&mut file)
    }

    /// Takes the object id off a file; the caller stores the file. Returns the birth ids, which stand in the volume's
    /// index only.
    pub(crate) fn remove_object_id(&mut self, file: &mut File) -> Result<Option<Vec<u8>>> {
        let Some(id) = file.value(kind::OBJECT_ID, "").and_then(|v| v.get(..16)).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        let birth = self.births(&id)?;
        self.unindex("$ObjId", "$O", &id)?;
        self.drop_attribute(file, kind::OBJECT_ID);
        Ok(birth)
    }

    /// The ids of a file's birth, as the volume's index has them.
    fn births(&mut self, id: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((index, tree)) = self.extended("$ObjId", "$O")? else { return Ok(None) };
        let entry = tree.find(self, &index, id)?;
        Ok(entry.and_then(|entry| entry.key.get(24..72).map(<[u8]>::to_vec)))
    }

    /// The object id of a file with the ids of its birth.
    pub(crate) fn object_id(&mut self, file: &File) -> Result<Option<Vec<u8>>> {
        let value = file.value(kind::OBJECT_ID, "").map(<[u8]>::to_vec);
        match value {
            Some(id) if id.len() == OBJECT_ID_BYTES => {
                // As the reading half: an index that cannot be read does not hide the id.
                let births = self.births(&id).ok().flatten().unwrap_or_default();
                Ok(Some([id, births].concat()))
            }
            value => Ok(value),
        }
    }

    /// Sets or removes the object id. As with Windows, the first id of a file is also its birth id, unless the ids of
    /// the birth are given.
    pub(crate) fn set_object_id(
        &mut self,
        node: u64,
        id: Option<Guid>,
        births: Option<&[u8; 48]>,
    ) -> Result<()> {
        let mut file = self.open_user(node)?;
        let birth = self.remove_object_id(&mut file)?;
        if let Some(id) = id {
            // Birth volume, birth object, domain.
            let birth = births.map(|births| births.to_vec()).or(birth);
            let birth = birth.unwrap_or_else(|| [[0; 16], id.0, [0; 16]].concat());
            let data = [&file.header.reference().to_le_bytes()[..], &birth].concat();
            self.index("$ObjId", "$O", Entry::view(&id.0, &data))?;
            file.attributes.push(Attribute::resident(kind::OBJECT_ID, "", id.0.to_vec()));
        }
        file.touch(self.now(), false)?;
        self.note(&mut file, reason::OBJECT_ID_CHANGE)?;
        self.store_changed(&mut file)
    }

    /// The extended attributes of a file.
    pub(crate) fn extended_attributes(&self, file: &File) -> Result<Vec<ExtendedAttribute>> {
        match file.find(EA, "").map(|place| &file.attributes[place].body) {
            None => Ok(Vec::new()),
            Some(Body::Resident(value)) => ea::parse(value),
            Some(Body::Runs(stream)) => ea::parse(&self.read_stream(stream, MAX_EA_BYTES)?),
        }
    }

    /// Sets or removes one extended attribute.
    pub(crate) fn set_extended_attribute(
        &mut self,
        node: u64,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let mut file = self.open_user(node)?;
        ea::check(name, value.unwrap_or(&[0]))?;
        let mut list = self.extended_attributes(&file)?;
        let name = name.to_ascii_uppercase();
        let place = list.iter().position(|known| known.name.eq_ignore_ascii_case(&name));
        match (place, value) {
            (Some(place), Some(value)) => list[place].value = value.to_vec(),
            (None, Some(value)) => {
                list.push(ExtendedAttribute { name, needed: false, value: value.to_vec() });
            }
            (Some(place), None) => drop(list.remove(place)),
            (None, None) => {
                return Err(Error::not_found(Layer::Ntfs, format!("no extended attribute {name:?}")));
            }
        }
        self.put_extended_attributes(&mut file, &list)
    }

    /// Replaces all extended attributes.
    pub(crate) fn set_extended_attributes(&mut self, node: u64, list: &[ExtendedAttribute]) -> Result<()> {
        let mut file = self.open_user(node)?;
        for (place, attribute) in list.iter().enumerate() {
            ea::check(&attribute.name, &attribute.value)?;
            if list[..place].iter().any(|known| known.name.eq_ignore_ascii_case(&attribute.name)) {
                return Err(Error::invalid(Layer::Ntfs, "two extended attributes of one name"));
            }
        }
        self.put_extended_attributes(&mut file, list)
    }

    fn put_extended_attributes(&mut self, file: &mut File, list: &[ExtendedAttribute]) -> Result<()> {
        let (information, bytes) = ea::encode(list);
        if bytes.len() as u64 > MAX_EA_BYTES {
            return Err(Error::limit(Layer::Ntfs, "extended attributes of a file").found(bytes.len()));
        }
        self.drop_attribute(file, EA_INFORMATION);
        self.drop_attribute(file, EA);
        if !list.is_empty() {
            file.attributes.push(Attribute::resident(EA_INFORMATION, "", information));
            let attribute = self.value_attribute(file, EA, &bytes)?;
            file.attributes.push(attribute);
        }
        file.touch(self.now(), false)?;
        self.note(file, reason::EA_CHANGE)?;
        self.store_changed(file)
    }

    /// Lets names in an empty directory differ by case, or not.
    pub(crate) fn set_case_sensitive(&mut self, node: u64, sensitive: bool) -> Result<()> {
        let mut file = self.open_user(node)?;
        if file.is_case_sensitive() == sensitive {
            return Ok(());
        }
        if !file.is_directory() || !self.is_empty_directory(&file)? {
            return Err(Error::invalid(Layer::Ntfs, "only an empty directory changes how it compares names"));
        }
        let (most, version) = if sensitive { CASE_SENSITIVE } else { (0, 0) };
        put_all(file.information_mut()?, &[(0x24, &most.to_le_bytes()), (0x28, &version.to_le_bytes())]);
        file.touch(self.now(), false)?;
        self.note(&mut file, reason::BASIC_INFO_CHANGE)?;
        self.store_changed(&mut file)
    }

    /// The bytes of a value that may be outside of the record.
    pub(crate) fn whole_value(&self, file: &File, kind: u32, limit: u64) -> Result<Option<Vec<u8>>> {
        match file.find(kind, "").map(|place| &file.attributes[place].body) {
            None => Ok(None),
            Some(Body::Resident(value)) => Ok(Some(value.clone())),
            Some(Body::Runs(stream)) => self.read_stream(stream, limit).map(Some),
        }
    }

    /// A non-resident value whose first bytes are wanted.
    pub(crate) fn read_at_stream(&self, stream: &Stream, offset: u64, length: usize) -> Result<Vec<u8>> {
        let pieces = self.pieces(stream, offset, length)?;
        self.read_pieces(&pieces)
    }
}

impl File {
    /// True for a directory in which names differ by case.
    pub(crate) fn is_case_sensitive(&self) -> bool {
        let information = self.information();
        let field = |at| u32_at(information, at).unwrap_or(0);
        self.is_directory() && (field(0x24), field(0x28)) == CASE_SENSITIVE
    }
}

/// The tag of a reparse point that is whole.
fn check_reparse(data: &[u8]) -> Result<u32> {
    let bad = |what: &str| Error::invalid(Layer::Ntfs, format!("a reparse point with {what}"));
    let tag = u32_at(data, 0).ok_or_else(|| bad("no tag"))?;
    let length = usize::from(u16_at(data, 4).ok_or_else(|| bad("no length"))?);
    let header = if tag & MICROSOFT_TAG != 0 { 8 } else { 24 };
    if tag < 2 || data.len() > MAX_REPARSE_BYTES || data.len() != header + length {
        return Err(bad("a tag or a length that cannot be").found(format!("{tag:#x}, {length} bytes")));
    }
    Ok(tag)
}

/// The error for a name that is there already.
pub(crate) fn exists(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::AlreadyExists, Layer::Ntfs, what)
}
