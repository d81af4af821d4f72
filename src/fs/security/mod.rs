//! Security descriptors ([MS-DTYP] 2.4.6), self-relative as Windows stores them: read, written, shown as SDDL, and
//! inherited by new files.
//!
//! Conditional expressions and resource attributes of ACEs are kept as they are and shown in hex. SDDL is written, not
//! read.

mod acl;
mod inherit;
mod sddl;
mod sid;

pub use acl::{Ace, Acl};
pub use sid::Sid;

use vmrescue_base::bytes::{slice_at, u16_at, u32_at};
use vmrescue_base::error::{Error, Layer, Result};

/// Largest descriptor: Windows stores at most 64 KiB of a list and a little around two of them.
const MAX_DESCRIPTOR_BYTES: usize = 0x2_0200;
/// Bytes in front of the parts.
const HEADER_BYTES: usize = 20;

/// Bits of [`Descriptor::control`].
pub mod control {
    /// The owner was not given but defaulted.
    pub const OWNER_DEFAULTED: u16 = 0x0001;
    /// There is a DACL (which may be a null one: everybody may do everything).
    pub const DACL_PRESENT: u16 = 0x0004;
    /// There is a SACL.
    pub const SACL_PRESENT: u16 = 0x0010;
    /// Inheriting was asked for.
    pub const DACL_AUTO_INHERIT_REQUIRED: u16 = 0x0100;
    /// The same of the SACL.
    pub const SACL_AUTO_INHERIT_REQUIRED: u16 = 0x0200;
    /// The DACL follows that of the directory.
    pub const DACL_AUTO_INHERITED: u16 = 0x0400;
    /// The SACL follows that of the directory.
    pub const SACL_AUTO_INHERITED: u16 = 0x0800;
    /// The DACL does not follow that of the directory.
    pub const DACL_PROTECTED: u16 = 0x1000;
    /// The SACL does not follow that of the directory.
    pub const SACL_PROTECTED: u16 = 0x2000;
    /// The parts follow the header in one piece.
    pub const SELF_RELATIVE: u16 = 0x8000;
}

/// A security descriptor, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Bits of [`control`].
    pub control: u16,
    /// Who owns the file.
    pub owner: Option<Sid>,
    /// Its primary group.
    pub group: Option<Sid>,
    /// Who is audited, and the integrity label; `None` without one.
    pub sacl: Option<Acl>,
    /// Who may do what; `None` without one, and for a null DACL.
    pub dacl: Option<Acl>,
}

impl Descriptor {
    /// Takes a self-relative descriptor apart.
    ///
    /// # Errors
    /// `Damaged` when it does not hold its own parts.
    pub fn parse(bytes: &[u8]) -> Result<Descriptor> {
        if bytes.len() > MAX_DESCRIPTOR_BYTES {
            return Err(Error::limit(Layer::FileSystem, "a security descriptor").found(bytes.len()));
        }
        Descriptor::try_parse(bytes).ok_or_else(|| {
            Error::damaged(Layer::FileSystem, "a security descriptor that does not hold its own parts")
        })
    }

    fn try_parse(bytes: &[u8]) -> Option<Descriptor> {
        let control = u16_at(bytes, 2)?;
        if bytes.first() != Some(&1) || control & control::SELF_RELATIVE == 0 {
            return None;
        }
        let part = |at: usize| -> Option<Option<&[u8]>> {
            match u32_at(bytes, at)? as usize {
                0 => Some(None),
                offset if offset >= HEADER_BYTES => Some(Some(bytes.get(offset..)?)),
                _ => None,
            }
        };
        let sid =
            |at| -> Option<Option<Sid>> { part(at)?.map_or(Some(None), |bytes| Sid::parse(bytes).map(Some)) };
        let acl = |at, present| -> Option<Option<Acl>> {
            let Some(bytes) = part(at)?.filter(|_| control & present != 0) else { return Some(None) };
            Acl::parse(slice_at(bytes, 0, usize::from(u16_at(bytes, 2)?))?).map(Some)
        };
        Some(Descriptor {
            control,
            owner: sid(4)?,
            group: sid(8)?,
            sacl: acl(12, control::SACL_PRESENT)?,
            dacl: acl(16, control::DACL_PRESENT)?,
        })
    }

    /// The self-relative form, its parts in the order in which Windows puts them: SACL, DACL, owner, group.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES];
        let mut offsets = [0u32; 4];
        let mut control = self.control | control::SELF_RELATIVE;
        if self.sacl.is_some() {
            control |= control::SACL_PRESENT;
        }
        if self.dacl.is_some() {
            control |= control::DACL_PRESENT;
        }
        let parts = [
            (2, self.sacl.as_ref().map(Acl::encode)),
            (3, self.dacl.as_ref().map(Acl::encode)),
            (0, self.owner.as_ref().map(|sid| sid.bytes().to_vec())),
            (1, self.group.as_ref().map(|sid| sid.bytes().to_vec())),
        ];
        for (place, part) in parts {
            if let Some(part) = part {
                offsets[place] = out.len() as u32; // at most two lists of 64 KiB and two SIDs
                out.extend_from_slice(&part);
            }
        }
        out[0] = 1;
        out[2..4].copy_from_slice(&control.to_le_bytes());
        for (place, offset) in offsets.iter().enumerate() {
            out[4 + 4 * place..8 + 4 * place].copy_from_slice(&offset.to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests;
