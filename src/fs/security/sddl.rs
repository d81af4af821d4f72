//! The text form of descriptors, SDDL ([MS-DTYP] 2.5.1), as `ConvertSecurityDescriptorToStringSecurityDescriptor`
//! prints it for files.

use super::acl::{Ace, Acl};
use super::{Descriptor, control};
use std::fmt;
use std::fmt::Write as _;
use vmrescue_base::guid::Guid;

/// Types of entries.
const KINDS: &[(u8, &str)] = &[
    (0, "A"),
    (1, "D"),
    (2, "AU"),
    (3, "AL"),
    (5, "OA"),
    (6, "OD"),
    (7, "OU"),
    (8, "OL"),
    (9, "XA"),
    (10, "XD"),
    (11, "ZA"),
    (13, "XU"),
    (0x11, "ML"),
    (0x12, "RA"),
    (0x13, "SP"),
    (0x14, "TL"),
    (0x15, "FL"),
];
/// Flags of entries.
const FLAGS: &[(u8, &str)] = &[
    (0x01, "OI"),
    (0x02, "CI"),
    (0x04, "NP"),
    (0x08, "IO"),
    (0x10, "ID"),
    (0x20, "CR"),
    (0x40, "SA"),
    (0x80, "FA"),
];
/// Rights that have letters as a whole.
const RIGHTS: &[(u32, &str)] = &[
    (0x001F_01FF, "FA"),
    (0x0012_0089, "FR"),
    (0x0012_0116, "FW"),
    (0x0012_00A0, "FX"),
    (0x1000_0000, "GA"),
    (0x8000_0000, "GR"),
    (0x4000_0000, "GW"),
    (0x2000_0000, "GX"),
];
/// Bits of an integrity label.
const LABEL_RIGHTS: &[(u32, &str)] = &[(1, "NW"), (2, "NR"), (4, "NX")];

impl Descriptor {
    /// The text form, such as `O:BAG:SYD:AI(A;ID;FA;;;BA)`.
    pub fn sddl(&self) -> String {
        let mut out = String::new();
        let written = self.write_sddl(&mut out);
        debug_assert!(written.is_ok(), "writing into a text cannot fail");
        out
    }

    fn write_sddl(&self, out: &mut String) -> fmt::Result {
        if let Some(owner) = &self.owner {
            write!(out, "O:{}", owner.sddl())?;
        }
        if let Some(group) = &self.group {
            write!(out, "G:{}", group.sddl())?;
        }
        let dacl = [
            (control::DACL_PROTECTED, "P"),
            (control::DACL_AUTO_INHERIT_REQUIRED, "AR"),
            (control::DACL_AUTO_INHERITED, "AI"),
        ];
        let sacl = [
            (control::SACL_PROTECTED, "P"),
            (control::SACL_AUTO_INHERIT_REQUIRED, "AR"),
            (control::SACL_AUTO_INHERITED, "AI"),
        ];
        if self.control & control::DACL_PRESENT != 0 {
            write!(out, "D:{}", letters(u32::from(self.control), &dacl.map(|(b, l)| (u32::from(b), l))))?;
            match &self.dacl {
                Some(acl) => write_acl(out, acl)?,
                None => out.push_str("NO_ACCESS_CONTROL"),
            }
        }
        if let Some(acl) = &self.sacl {
            write!(out, "S:{}", letters(u32::from(self.control), &sacl.map(|(b, l)| (u32::from(b), l))))?;
            write_acl(out, acl)?;
        }
        Ok(())
    }
}

fn letters(bits: u32, names: &[(u32, &str)]) -> String {
    names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}

fn write_acl(out: &mut String, acl: &Acl) -> fmt::Result {
    acl.aces.iter().try_for_each(|ace| write_ace(out, ace))
}

fn write_ace(out: &mut String, ace: &Ace) -> fmt::Result {
    match KINDS.iter().find(|(kind, _)| *kind == ace.kind) {
        Some((_, name)) => write!(out, "({name};")?,
        None => write!(out, "({:#x};", ace.kind)?,
    }
    let flags: String = FLAGS.iter().filter(|(bit, _)| ace.flags & bit != 0).map(|(_, name)| *name).collect();
    write!(out, "{flags};{};", rights(ace))?;
    let object = matches!(ace.kind, 5..=8 | 11 | 12 | 15 | 16);
    let present = if object { vmrescue_base::bytes::u32_at(&ace.body, 4).unwrap_or(0) } else { 0 };
    let second = if present & 1 != 0 { 24 } else { 8 };
    for (bit, at) in [(1, 8), (2, second)] {
        if let Some(guid) = Guid::at(&ace.body, at).filter(|_| present & bit != 0) {
            write!(out, "{guid}")?;
        }
        out.push(';');
    }
    let Some(sid) = ace.sid() else { return out.write_str(")") };
    out.push_str(&sid.sddl());
    let rest = ace.sid_at().and_then(|at| ace.body.get(at + sid.bytes().len()..)).unwrap_or_default();
    if !vmrescue_base::bytes::is_zero(rest) {
        write!(out, ";{}", vmrescue_base::text::hex(rest))?;
    }
    out.write_str(")")
}

fn rights(ace: &Ace) -> String {
    let mask = ace.mask().unwrap_or(0);
    if ace.kind == 0x11 {
        return letters(mask, LABEL_RIGHTS);
    }
    let named = RIGHTS.iter().find(|(bits, _)| *bits == mask);
    named.map_or_else(|| format!("{mask:#x}"), |(_, name)| (*name).to_string())
}
