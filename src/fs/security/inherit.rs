//! What a new file or directory inherits ([MS-DTYP] 2.5.3.4, as `SeAssignSecurity` does it for files).
//!
//! Each entry of the directory that is meant for the new one is copied and marked as inherited. Where an entry names
//! CREATOR OWNER or CREATOR GROUP, or has generic rights, a directory gets two: what counts for it, and the original
//! for what will be below.

use super::acl::{Ace, Acl, CONTAINER_INHERIT, INHERIT_ONLY, INHERITED, NO_PROPAGATE, OBJECT_INHERIT};
use super::{Descriptor, Sid, control};

/// FILE_ALL_ACCESS.
const FULL: u32 = 0x001F_01FF;
/// What GENERIC_READ, WRITE, EXECUTE and ALL mean for files.
const GENERIC: [(u32, u32); 4] =
    [(0x8000_0000, 0x0012_0089), (0x4000_0000, 0x0012_0116), (0x2000_0000, 0x0012_00A0), (0x1000_0000, FULL)];
const INHERITANCE: u8 = OBJECT_INHERIT | CONTAINER_INHERIT | NO_PROPAGATE | INHERIT_ONLY;
/// SYSTEM_MANDATORY_LABEL_ACE and what follows: their masks are no rights to files.
const LABEL: u8 = 0x11;

impl Descriptor {
    /// The descriptor of something new in a directory: owned by the administrators, as what setup and services make.
    /// Without an inheritable DACL, administrators and the system may do everything, others nothing.
    pub fn inherited(directory: Option<&Descriptor>, is_directory: bool) -> Descriptor {
        let owner = Sid::administrators();
        let group = Sid::system();
        let list = |acl: Option<&Acl>| -> Option<Acl> {
            let acl = acl?;
            let aces: Vec<Ace> =
                acl.aces.iter().flat_map(|ace| inherit(ace, is_directory, &owner, &group)).collect();
            (!aces.is_empty()).then_some(Acl { revision: acl.revision, aces })
        };
        let mut out = Descriptor { control: control::SELF_RELATIVE, ..Descriptor::default() };
        out.sacl = list(directory.and_then(|d| d.sacl.as_ref()));
        if out.sacl.is_some() {
            out.control |= control::SACL_AUTO_INHERITED;
        }
        out.dacl = list(directory.and_then(|d| d.dacl.as_ref()));
        if out.dacl.is_some() {
            out.control |= control::DACL_AUTO_INHERITED;
        } else {
            let everything = |sid: &Sid| Ace::allow(0, FULL, sid);
            out.dacl = Some(Acl { revision: 2, aces: vec![everything(&owner), everything(&group)] });
        }
        out.control |= control::DACL_PRESENT;
        if out.sacl.is_some() {
            out.control |= control::SACL_PRESENT;
        }
        out.owner = Some(owner);
        out.group = Some(group);
        out
    }
}

/// What becomes of one entry of the directory: nothing, one, or two.
fn inherit(ace: &Ace, is_directory: bool, owner: &Sid, group: &Sid) -> Vec<Ace> {
    let has = |flag: u8| ace.flags & flag != 0;
    let kept = ace.flags & !(INHERITANCE | INHERITED); // what is audited
    if !is_directory {
        if !has(OBJECT_INHERIT) {
            return Vec::new();
        }
        return vec![Ace { flags: kept | INHERITED, ..effective(ace, owner, group) }];
    }
    let below = ace.flags & (OBJECT_INHERIT | CONTAINER_INHERIT);
    if !has(CONTAINER_INHERIT) {
        // For files only: it passes through.
        return match has(OBJECT_INHERIT) && !has(NO_PROPAGATE) {
            true => vec![Ace { flags: kept | below | INHERIT_ONLY | INHERITED, ..ace.clone() }],
            false => Vec::new(),
        };
    }
    let counts = effective(ace, owner, group);
    if has(NO_PROPAGATE) {
        return vec![Ace { flags: kept | INHERITED, ..counts }];
    }
    if counts.body == ace.body {
        return vec![Ace { flags: kept | below | INHERITED, ..counts }];
    }
    vec![
        Ace { flags: kept | INHERITED, ..counts },
        Ace { flags: kept | below | INHERIT_ONLY | INHERITED, ..ace.clone() },
    ]
}

/// The entry with real rights and a real owner.
fn effective(ace: &Ace, owner: &Sid, group: &Sid) -> Ace {
    let mut out = ace.clone();
    if ace.kind >= LABEL {
        return out;
    }
    if let Some(mask) = ace.mask() {
        let mapped =
            GENERIC.iter().fold(
                mask,
                |mask, (generic, rights)| {
                    if mask & generic != 0 { mask & !generic | rights } else { mask }
                },
            );
        out.body[..4].copy_from_slice(&mapped.to_le_bytes());
    }
    let sid = ace.sid();
    let new = if sid == Some(Sid::creator_owner()) {
        owner
    } else if sid == Some(Sid::creator_group()) {
        group
    } else {
        return out;
    };
    if let Some(at) = ace.sid_at() {
        let old = at + Sid::creator_owner().bytes().len();
        let rest = out.body.get(old..).unwrap_or_default().to_vec();
        out.body.truncate(at);
        out.body.extend_from_slice(new.bytes());
        out.body.extend_from_slice(&rest);
    }
    out
}
