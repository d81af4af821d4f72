//! The security of a new key, as the kernel computes it from its parent's: entries that containers inherit, with CREATOR OWNER
//! and generic rights resolved. [MS-DTYP] 2.5.3.4, and what hives of Windows have.
//!
//! A new key has a creator, whom nobody knows here: its owner and group are those of its parent.

use super::check::descriptor::wrong;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at};

const CREATOR_OWNER: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
const CREATOR_GROUP: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0];
/// Flags of an entry.
const OBJECT_INHERIT: u8 = 1;
const CONTAINER_INHERIT: u8 = 2;
const NO_PROPAGATE: u8 = 4;
const INHERIT_ONLY: u8 = 8;
const INHERITED: u8 = 0x10;
/// Flags of success and failure of an audit entry.
const AUDIT: u8 = 0xc0;
/// Control bits of a descriptor.
const DACL_PRESENT: u16 = 4;
const SACL_PRESENT: u16 = 0x10;
const DACL_AUTO: u16 = 0x400;
const SACL_AUTO: u16 = 0x800;
const SELF_RELATIVE: u16 = 0x8000;
/// Generic rights and what they are for keys: read, write, execute, all.
const GENERIC: [(u32, u32); 4] =
    [(1 << 31, 0x2_0019), (1 << 30, 0x2_0006), (1 << 29, 0x2_0019), (1 << 28, 0xf_003f)];

/// The SID at a place of a descriptor that was checked.
fn sid(descriptor: &[u8], at: usize) -> &[u8] {
    let place = u32_at(descriptor, at).unwrap_or(0) as usize;
    let count = descriptor.get(place + 1).copied().map_or(0, usize::from);
    if place == 0 { &[] } else { slice_at(descriptor, place, 8 + 4 * count).unwrap_or_default() }
}

/// What a key below inherits of a list; `None` when that is nothing.
fn inherited_list(list: &[u8], owner: &[u8], group: &[u8], mark: u8) -> Option<Vec<u8>> {
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut at = 8;
    for _ in 0..u16_at(list, 4)? {
        let entry = slice_at(list, at, usize::from(u16_at(list, at + 2)?))?;
        at += entry.len();
        let (kind, flags, mask) = (*entry.first()?, *entry.get(1)?, u32_at(entry, 4)?);
        if flags & CONTAINER_INHERIT == 0 {
            continue;
        }
        let on = if flags & NO_PROPAGATE != 0 { 0 } else { flags & (OBJECT_INHERIT | CONTAINER_INHERIT) };
        let with = |flags: u8, mask: u32, who: &[u8]| {
            let mut made = vec![kind, flags, 0, 0];
            made.extend(mask.to_le_bytes());
            made.extend(who);
            let size = (made.len() as u16).to_le_bytes();
            made[2..4].copy_from_slice(&size);
            made
        };
        // Entries of other kinds (of objects, of conditions) have more before or behind the SID, and are taken over as they are.
        let plain = kind <= 2;
        let who = entry.get(8..)?;
        let real = match who {
            CREATOR_OWNER if plain => owner,
            CREATOR_GROUP if plain => group,
            who => who,
        };
        let mapped = GENERIC
            .iter()
            .filter(|(generic, _)| mask & generic != 0)
            .fold(mask, |mask, (generic, rights)| mask & !generic | rights);
        if plain && (real != who || mapped != mask) {
            entries.push(with(flags & AUDIT | mark, mapped, real));
            if on != 0 {
                entries.push(with(flags & AUDIT | on | INHERIT_ONLY | mark, mask, who));
            }
        } else {
            let mut same = entry.to_vec();
            same[1] = flags & AUDIT | on | mark;
            entries.push(same);
        }
    }
    if entries.is_empty() {
        return None;
    }
    let size = 8 + entries.iter().map(Vec::len).sum::<usize>();
    let mut made = vec![*list.first()?, 0];
    made.extend(u16::try_from(size).ok()?.to_le_bytes());
    made.extend((entries.len() as u16).to_le_bytes());
    made.extend([0, 0]);
    made.extend(entries.concat());
    Some(made)
}

/// The descriptor of a new key below one with this descriptor; `None` where a parent passes nothing on, and the kernel would take the
/// defaults of who makes the key.
pub(super) fn inherited(parent: &[u8]) -> Option<Vec<u8>> {
    if wrong(parent).is_some() {
        return None;
    }
    let control = u16_at(parent, 2)?;
    let (owner, group) = (sid(parent, 4), sid(parent, 8));
    let list = |at: usize, present: u16, auto: u16| {
        let place = u32_at(parent, at).filter(|place| *place != 0 && control & present != 0)?;
        let mark = if control & auto != 0 { INHERITED } else { 0 };
        inherited_list(parent.get(place as usize..)?, owner, group, mark)
    };
    let dacl = list(16, DACL_PRESENT, DACL_AUTO)?;
    let sacl = list(12, SACL_PRESENT, SACL_AUTO);
    let present = DACL_PRESENT | if sacl.is_some() { SACL_PRESENT } else { 0 };
    let mut made = vec![1, 0];
    made.extend((SELF_RELATIVE | present | control & (DACL_AUTO | SACL_AUTO)).to_le_bytes());
    made.resize(20, 0);
    // The order of the kernel: lists, then owner and group.
    for (field, part) in [(12, sacl.as_deref().unwrap_or_default()), (16, &dacl), (4, owner), (8, group)] {
        if !part.is_empty() {
            let place = (made.len() as u32).to_le_bytes();
            made[field..field + 4].copy_from_slice(&place);
            made.extend(part);
        }
    }
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
    const USERS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0];

    fn descriptor(control: u16, entries: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (flags, mask, who) in entries {
            list.extend([0, *flags, (8 + who.len()) as u8, 0]);
            list.extend(mask.to_le_bytes());
            list.extend(*who);
        }
        let mut made = vec![1, 0];
        made.extend(control.to_le_bytes());
        made.extend([0; 12]);
        made.extend(20u32.to_le_bytes());
        made.extend([2, 0, (8 + list.len()) as u8, 0, entries.len() as u8, 0, 0, 0]);
        made.extend(list);
        let owner = made.len() as u32;
        made.extend(SYSTEM);
        made[4..8].copy_from_slice(&owner.to_le_bytes());
        made[8..12].copy_from_slice(&owner.to_le_bytes());
        // The group is the owner's place again: as good a SID as another.
        made
    }

    fn entries(descriptor: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
        let list = &descriptor[u32_at(descriptor, 16).unwrap() as usize..];
        let mut at = 8;
        (0..u16_at(list, 4).unwrap())
            .map(|_| {
                let size = usize::from(u16_at(list, at + 2).unwrap());
                let entry = &list[at..at + size];
                at += size;
                (entry[1], u32_at(entry, 4).unwrap(), entry[8..].to_vec())
            })
            .collect()
    }

    #[test]
    fn what_containers_inherit_is_passed_on() {
        let parent = descriptor(
            0x9404,
            &[
                (0x02, 0xf003f, SYSTEM),
                (0x00, 0x20019, USERS),
                (0x0b, 0x1000_0000, CREATOR_OWNER),
                (0x06, 0x20019, USERS),
                (0x0a, 0x8000_0000, USERS),
            ],
        );
        let child = inherited(&parent).unwrap();
        assert!(wrong(&child).is_none());
        // Inherited by itself, not protected.
        assert_eq!(u16_at(&child, 2), Some(0x8404));
        assert_eq!(
            entries(&child),
            [
                (0x12, 0xf003f, SYSTEM.to_vec()),
                (0x10, 0xf003f, SYSTEM.to_vec()),
                (0x1b, 0x1000_0000, CREATOR_OWNER.to_vec()),
                (0x10, 0x20019, USERS.to_vec()),
                (0x10, 0x20019, USERS.to_vec()),
                (0x1a, 0x8000_0000, USERS.to_vec()),
            ]
        );
        // Without automatic inheritance entries are not marked.
        let plain = inherited(&descriptor(0x8004, &[(0x02, 0xf003f, SYSTEM)])).unwrap();
        assert_eq!(u16_at(&plain, 2), Some(0x8004));
        assert_eq!(entries(&plain), [(0x02, 0xf003f, SYSTEM.to_vec())]);
        // Nothing to pass on, and no descriptor.
        assert!(inherited(&descriptor(0x8004, &[(0, 0xf003f, SYSTEM)])).is_none());
        assert!(inherited(&parent[..40]).is_none());
    }
}
