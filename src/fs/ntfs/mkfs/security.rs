//! Default security of a new volume: descriptors ([MS-DTYP] 2.4.6, self-relative) and the three parts of $Secure.

pub(crate) use crate::ntfs::sds::{MIRROR_BYTES, hash};
use crate::ntfs::write::entry::Entry;
use vmrescue_base::time::FileTime;

/// Security id of system files: SYSTEM and administrators may read.
pub(crate) const SYSTEM_ID: u32 = 0x100;
/// Security id of the root and of what is made in it: the rights that Windows gives to the root of a data volume.
pub(crate) const USER_ID: u32 = 0x101;

/// S-1-5-18, local system.
const SYSTEM: &[u32] = &[18];
/// S-1-5-32-544, administrators.
const ADMINISTRATORS: &[u32] = &[32, 544];
/// S-1-5-32-545, users.
const USERS: &[u32] = &[32, 545];
/// S-1-5-11, authenticated users.
const AUTHENTICATED: &[u32] = &[11];

fn sid(parts: &[u32]) -> Vec<u8> {
    let mut out = vec![1, parts.len() as u8, 0, 0, 0, 0, 0, 5];
    out.extend(parts.iter().flat_map(|p| p.to_le_bytes()));
    out
}

/// A self-relative descriptor of owner and group administrators with allowing entries (flags, mask, SID).
fn descriptor(entries: &[(u8, u32, &[u32])]) -> Vec<u8> {
    let mut acl = Vec::new();
    for (flags, mask, parts) in entries {
        let sid = sid(parts);
        acl.extend_from_slice(&[0, *flags]);
        acl.extend_from_slice(&((8 + sid.len()) as u16).to_le_bytes());
        acl.extend_from_slice(&mask.to_le_bytes());
        acl.extend_from_slice(&sid);
    }
    let owner = sid(ADMINISTRATORS);
    let group = sid(SYSTEM);
    let acl_bytes = 8 + acl.len();
    let mut out = vec![1, 0, 0x04, 0x80]; // revision; self-relative, DACL present
    let owner_at = 20 + acl_bytes;
    for number in [owner_at, owner_at + owner.len(), 0, 20] {
        out.extend_from_slice(&(number as u32).to_le_bytes());
    }
    out.extend_from_slice(&[2, 0]);
    out.extend_from_slice(&(acl_bytes as u16).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&acl);
    out.extend_from_slice(&owner);
    out.extend_from_slice(&group);
    out
}

/// The contents of $Quota.
pub(crate) struct Quota {
    /// $O: sorted by owner.
    pub(crate) owners: Vec<Entry>,
    /// $Q: sorted by the number of the owner.
    pub(crate) limits: Vec<Entry>,
}

/// $Quota with quotas turned off: the limits for everybody and the entry of administrators, both without a limit.
pub(crate) fn quota(now: FileTime) -> Quota {
    let owner = 0x100u32;
    let entry = |sid: &[u8]| {
        let mut value = Vec::new();
        value.extend_from_slice(&2u32.to_le_bytes()); // version
        value.extend_from_slice(&1u32.to_le_bytes()); // the default limits hold
        value.extend_from_slice(&0u64.to_le_bytes()); // bytes in use
        value.extend_from_slice(&now.0.to_le_bytes());
        value.extend_from_slice(&u64::MAX.to_le_bytes()); // no warning
        value.extend_from_slice(&u64::MAX.to_le_bytes()); // no limit
        value.extend_from_slice(&0u64.to_le_bytes()); // not exceeded
        value.extend_from_slice(sid);
        value
    };
    let administrators = sid(ADMINISTRATORS);
    Quota {
        owners: vec![Entry::view(&administrators, &owner.to_le_bytes())],
        limits: vec![
            Entry::view(&1u32.to_le_bytes(), &entry(&[])),
            Entry::view(&owner.to_le_bytes(), &entry(&administrators)),
        ],
    }
}

/// The contents of $Secure.
pub(crate) struct Secure {
    /// $SDS: the descriptors, twice.
    pub(crate) sds: Vec<u8>,
    /// $SII: sorted by id.
    pub(crate) sii: Vec<Entry>,
    /// $SDH: sorted by hash, then id.
    pub(crate) sdh: Vec<Entry>,
}

/// $Secure with the two default descriptors.
pub(crate) fn secure() -> Secure {
    let inherited = 0x03; // object and container inherit
    let full = 0x001F_01FF;
    let system = descriptor(&[(0, 0x0012_0089, SYSTEM), (0, 0x0012_0089, ADMINISTRATORS)]);
    let user = descriptor(&[
        (inherited, full, ADMINISTRATORS),
        (inherited, full, SYSTEM),
        (inherited, 0x0013_01BF, AUTHENTICATED),
        (inherited, 0x0012_00A9, USERS),
    ]);
    let mut secure = Secure { sds: Vec::new(), sii: Vec::new(), sdh: Vec::new() };
    let mut hashed = Vec::new();
    for (id, descriptor) in [(SYSTEM_ID, system), (USER_ID, user)] {
        let hash = hash(&descriptor);
        let mut header = Vec::new();
        header.extend_from_slice(&hash.to_le_bytes());
        header.extend_from_slice(&id.to_le_bytes());
        header.extend_from_slice(&(secure.sds.len() as u64).to_le_bytes());
        header.extend_from_slice(&((20 + descriptor.len()) as u32).to_le_bytes());
        secure.sds.extend_from_slice(&header);
        secure.sds.extend_from_slice(&descriptor);
        secure.sds.resize(secure.sds.len().next_multiple_of(16), 0);
        secure.sii.push(Entry::view(&id.to_le_bytes(), &header));
        let key = [hash.to_le_bytes(), id.to_le_bytes()].concat();
        // Behind the data stands "II" in UTF-16; Windows writes it and nobody reads it.
        let mut entry = Entry::view(&key, &header);
        entry.key.extend_from_slice(&[b'I', 0, b'I', 0]);
        hashed.push((hash, id, entry));
    }
    hashed.sort_by_key(|(hash, id, _)| (*hash, *id));
    secure.sdh = hashed.into_iter().map(|(_, _, entry)| entry).collect();
    let copy = secure.sds.clone();
    secure.sds.resize(MIRROR_BYTES as usize, 0);
    secure.sds.extend_from_slice(&copy);
    secure
}
