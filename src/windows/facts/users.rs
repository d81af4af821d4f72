//! Local users, from the SAM hive: names, flags and times. Hashes and secrets are not read.
//!
//! `SAM\Domains\Account\Users\<RID>` has the values `F` (fixed fields: SAMP_V1_0A_FIXED) and `V` (offsets and lengths of names); the members of
//! a group are SIDs in the value `C` of `SAM\Domains\Builtin\Aliases\<RID>`.

use super::time_text;
use crate::keys::Notes;
use serde::Serialize;
use vmrescue_base::bytes::{slice_at, u16_at, u32_at, u64_at};
use vmrescue_base::text::utf16le_lossy;
use vmrescue_base::time::FileTime;
use vmrescue_registry::Hive;

/// Users that are listed.
const MAX_USERS: usize = 10_000;
/// Names and the like lie behind this many bytes of a `V` value.
const V_DATA: usize = 0xcc;
/// SIDs lie behind this many bytes of a `C` value.
const C_DATA: usize = 0x34;
/// The group Administrators.
const ADMINISTRATORS: &str = "00000220";
/// "Never" in the field for an account's end.
const NEVER: u64 = 0x7fff_ffff_ffff_ffff;

/// A local user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Relative id: 500 is the built-in administrator.
    pub rid: u32,
    /// Name.
    pub name: String,
    /// Full name.
    pub full_name: Option<String>,
    /// Comment.
    pub comment: Option<String>,
    /// Cannot log on.
    pub disabled: bool,
    /// Locked after wrong passwords, at the time of the last start.
    pub locked: bool,
    /// Needs no password.
    pub password_not_required: bool,
    /// The password does not expire.
    pub password_never_expires: bool,
    /// Member of the local group Administrators; `None` when the group cannot be read.
    pub administrator: Option<bool>,
    /// Last logon.
    #[serde(serialize_with = "time_text")]
    pub last_logon: Option<FileTime>,
    /// When the password was last set.
    #[serde(serialize_with = "time_text")]
    pub password_set: Option<FileTime>,
    /// Last wrong password.
    #[serde(serialize_with = "time_text")]
    pub last_bad_password: Option<FileTime>,
    /// When the account ends.
    #[serde(serialize_with = "time_text")]
    pub expires: Option<FileTime>,
    /// Wrong passwords since the last right one.
    pub bad_passwords: u16,
    /// Logons.
    pub logons: u16,
}

/// The SID's last number, and those before it.
fn members(data: &[u8]) -> Option<Vec<(u32, Vec<u8>)>> {
    let (offset, length, count) = (u32_at(data, 0x28)?, u32_at(data, 0x2c)?, u32_at(data, 0x30)?);
    let mut rest = slice_at(data, C_DATA.checked_add(offset as usize)?, length as usize)?;
    let mut found = Vec::new();
    for _ in 0..count.min(MAX_USERS as u32) {
        let size = 8 + usize::from(*rest.get(1)?) * 4;
        let sid = rest.get(..size).filter(|sid| sid.len() >= 12)?;
        found.push((u32_at(sid, size - 4)?, sid[..size - 4].to_vec()));
        rest = &rest[size..];
    }
    Some(found)
}

/// RIDs of this machine's own users that are administrators.
fn administrators(hive: &Hive, notes: &Notes) -> Option<Vec<u32>> {
    let key = |path: &str| notes.seen("SAM", hive.key(path));
    let alias = key(&format!(r"SAM\Domains\Builtin\Aliases\{ADMINISTRATORS}"))?;
    let all = members(&notes.bytes(&alias, "C")?)?;
    // The SID of the machine ends the account domain's value V; members of other domains have other SIDs.
    let domain = notes.bytes(&key(r"SAM\Domains\Account")?, "V")?;
    let own = domain.get(domain.len().checked_sub(12)?..)?;
    Some(
        all.into_iter()
            .filter(|(_, sid)| sid.len() == 24 && sid.ends_with(own))
            .map(|(rid, _)| rid)
            .collect(),
    )
}

fn text(data: &[u8], at: usize) -> Option<String> {
    let (offset, length) = (u32_at(data, at)? as usize, u32_at(data, at + 4)? as usize);
    let text = utf16le_lossy(slice_at(data, V_DATA.checked_add(offset)?, length)?);
    (!text.is_empty()).then_some(text)
}

fn time(data: &[u8], at: usize) -> Option<FileTime> {
    u64_at(data, at).filter(|number| *number != 0 && *number < NEVER).map(FileTime)
}

fn user(rid: u32, fixed: &[u8], names: &[u8], administrators: Option<&[u32]>) -> Option<User> {
    let flags = u16_at(fixed, 0x38)?;
    Some(User {
        rid,
        name: text(names, 0x0c)?,
        full_name: text(names, 0x18),
        comment: text(names, 0x24),
        disabled: flags & 0x1 != 0,
        locked: flags & 0x400 != 0,
        password_not_required: flags & 0x4 != 0,
        password_never_expires: flags & 0x200 != 0,
        administrator: administrators.map(|list| list.contains(&rid)),
        last_logon: time(fixed, 0x08),
        password_set: time(fixed, 0x18),
        expires: time(fixed, 0x20),
        last_bad_password: time(fixed, 0x28),
        bad_passwords: u16_at(fixed, 0x40)?,
        logons: u16_at(fixed, 0x42)?,
    })
}

/// The users of a SAM hive, by RID.
pub(super) fn read(hive: &Hive, notes: &Notes) -> Vec<User> {
    let administrators = administrators(hive, notes);
    let Some(list) = notes.seen("SAM", hive.key(r"SAM\Domains\Account\Users")) else { return Vec::new() };
    let mut users = Vec::new();
    let (keys, lost) = list.subkeys_lenient();
    for e in lost {
        notes.add(format!("SAM: {e}"));
    }
    for key in keys.into_iter().take(MAX_USERS) {
        // The other subkey, `Names`, is no number.
        let Ok(rid) = u32::from_str_radix(&key.name(), 16) else { continue };
        let values = notes.bytes(&key, "F").zip(notes.bytes(&key, "V"));
        match values.and_then(|(fixed, names)| user(rid, &fixed, &names, administrators.as_deref())) {
            Some(user) => users.push(user),
            None => notes.add(format!("SAM: the user {} cannot be read", key.name())),
        }
    }
    users.sort_by_key(|user| user.rid);
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_values_are_read_without_panic(f in prop::collection::vec(any::<u8>(), 0..100), v in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(user(500, &f, &v, None));
            drop(members(&v));
        }
    }
}
