//! Changes of what is known of a file: attributes, both sets of times, security.

use super::attribute::{Attribute, Body, kind, put_all};
use super::core::{Core, damaged};
use super::entry::FileName;
use super::file::File;
use super::names::{ROOT, refuse_system};
use crate::MetadataChange;
use crate::ntfs::usn::reason;
use vmrescue_base::error::{Error, Layer, Result};

/// Attribute bits that a user may set: read-only, hidden, system, archive, temporary, offline, not indexed.
const USER_BITS: u32 = 0x3127;

impl Core {
    /// Changes attributes, times, security.
    pub(crate) fn change_metadata(&mut self, node: u64, change: &MetadataChange) -> Result<()> {
        let mut file = File::open(self, node)?;
        if file.header.number != ROOT {
            refuse_system(&file)?;
        }
        if let Some(attributes) = change.attributes {
            file.set_bits(USER_BITS, attributes.0 & USER_BITS)?;
        }
        match change.times {
            Some(times) => file.set_times(times)?,
            None => file.touch(self.now(), false)?,
        }
        if let Some(times) = change.name_times {
            for attribute in file.attributes.iter_mut().filter(|a| a.kind == kind::FILE_NAME) {
                let name = attribute.value().and_then(FileName::decode);
                let name = FileName { times, ..name.ok_or_else(|| damaged("a file name that is cut off"))? };
                attribute.body = Body::Resident(name.encode());
            }
        }
        if let Some(descriptor) = &change.security {
            self.set_security(&mut file, descriptor)?;
        } else if let Some(source) = change.security_from {
            let source = File::open(self, source.0)?;
            self.copy_security(&mut file, &source)?;
        }
        let basic = change.attributes.is_some() || change.times.is_some() || change.name_times.is_some();
        let security = change.security.is_some() || change.security_from.is_some();
        let reasons = if basic { reason::BASIC_INFO_CHANGE } else { 0 }
            | if security { reason::SECURITY_CHANGE } else { 0 };
        self.note(&mut file, reasons)?;
        self.store_changed(&mut file)
    }

    fn copy_security(&mut self, file: &mut File, source: &File) -> Result<()> {
        if let Some(id) = source.security_id() {
            let value = file.information_mut()?;
            if value.len() < 0x48 {
                value.resize(0x48, 0);
            }
            put_all(value, &[(0x34, &id.to_le_bytes())]);
            self.drop_attribute(file, kind::SECURITY_DESCRIPTOR);
            return Ok(());
        }
        let descriptor = self
            .security_of(source)?
            .ok_or_else(|| Error::not_found(Layer::Ntfs, "the other file has no security to copy"))?;
        self.set_security(file, &descriptor)
    }

    /// An unnamed attribute of this value, in the record where it has room; the caller adds it to `file`.
    pub(crate) fn value_attribute(&mut self, file: &File, kind: u32, value: &[u8]) -> Result<Attribute> {
        let room = super::record::room(self.geometry.record_bytes);
        let attribute = Attribute::resident(kind, "", value.to_vec());
        if file.encoded_bytes() + attribute.encode(0).len() + 8 <= room {
            return Ok(attribute);
        }
        let mut stream = super::attribute::Stream::default();
        self.extend(&mut stream, value.len() as u64)?;
        stream.size_bytes = value.len() as u64;
        stream.initialized_bytes = stream.size_bytes;
        self.write_through(&stream, value)?;
        Ok(Attribute::stream(kind, "", stream))
    }
}
