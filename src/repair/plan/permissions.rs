//! Steps that change who may use a file: what `takeown` and `icacls /grant` do in a running Windows.
//!
//! Missing: denying, taking rights away, and how a directory hands its rights down (`(OI)(CI)`).

use super::Planner;
use crate::change::Change;
use vmrescue_base::error::{Error, Layer, Result};
use vmrescue_base::limits::MAX_DIRECTORY_DEPTH;
use vmrescue_fs::path::GuestPath;
use vmrescue_fs::security::{Ace, Acl, Descriptor, Sid, control};
use vmrescue_fs::{NodeId, NodeKind};

/// ACE kind: allows.
const ALLOWED: u8 = 0;
/// ACE kind: denies.
const DENIED: u8 = 1;
/// ACE flag: it came from the directory.
const INHERITED: u8 = 0x10;
/// Letters of icacls and their access masks ([MS-DTYP] 2.4.3, file rights of [MS-SMB2] 2.2.13.1).
const RIGHTS: [(&str, u32); 5] =
    [("F", 0x001F_01FF), ("M", 0x0013_01BF), ("RX", 0x0012_00A9), ("R", 0x0012_0089), ("W", 0x0010_0116)];
/// Accounts that are the same on every machine.
const ACCOUNTS: [(&str, &[u32]); 6] = [
    ("SYSTEM", &[18]),
    ("LOCAL SERVICE", &[19]),
    ("NETWORK SERVICE", &[20]),
    ("Administrators", &[32, 544]),
    ("Users", &[32, 545]),
    ("Authenticated Users", &[11]),
];

fn account(name: &str) -> Result<Sid> {
    let known = ACCOUNTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
    known.map(|(_, parts)| Sid::new(5, parts)).ok_or_else(|| {
        let all = ACCOUNTS.map(|(name, _)| name).join(", ");
        Error::invalid(Layer::Script, "an account that is not known").found(name).expected(all)
    })
}

/// The entries of a list such as `SYSTEM:F, NETWORK SERVICE:R`.
fn entries(grants: &str) -> Result<Vec<Ace>> {
    grants
        .split(',')
        .map(|grant| {
            let (name, letters) = grant.rsplit_once(':').unwrap_or((grant, ""));
            let right = RIGHTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(letters.trim()));
            let (_, mask) = right.ok_or_else(|| {
                Error::invalid(Layer::Script, "a right that is not known")
                    .found(grant)
                    .expected("account:F, M, RX, R or W")
            })?;
            Ok(Ace::allow(0, *mask, &account(name)?))
        })
        .collect()
}

/// True when one entry of the list allows all of that without being one that only others inherit.
fn is_granted(list: &Acl, wanted: &Ace) -> bool {
    list.aces.iter().any(|ace| {
        let covers = ace.mask().zip(wanted.mask()).is_some_and(|(has, wants)| has & wants == wants);
        ace.kind == ALLOWED && ace.flags & 0x08 == 0 && covers && ace.sid() == wanted.sid()
    })
}

/// Adds what is missing: behind the entries that deny, in front of those that are inherited, as Windows orders them.
fn add(descriptor: &mut Descriptor, owner: Option<&Sid>, granted: &[Ace]) {
    if let Some(owner) = owner {
        descriptor.owner = Some(owner.clone());
        descriptor.control &= !control::OWNER_DEFAULTED;
    }
    // A null list lets everybody do everything.
    let Some(list) = &mut descriptor.dacl else { return };
    // Each goes in front of the one before.
    for ace in granted.iter().rev() {
        if !is_granted(list, ace) {
            let denies = |ace: &Ace| ace.kind == DENIED && ace.flags & INHERITED == 0;
            let place = list.aces.iter().take_while(|ace| denies(ace)).count();
            list.aces.insert(place, ace.clone());
        }
    }
}

impl Planner<'_> {
    /// The descriptor that an earlier step gives a file, and what is new in it.
    fn planned_access(&mut self, of: &str) -> Option<(&mut Vec<u8>, &mut String)> {
        self.planned.changes.iter_mut().find_map(|change| match change {
            Change::FileAccess { path, security, what } if path.eq_ignore_ascii_case(of) => {
                Some((security, what))
            }
            _ => None,
        })
    }

    /// Grants rights on a file or directory, and on all below when it is `recursive`; `owner` takes it over first.
    pub(super) fn grant(&mut self, path: &str, owner: &str, grants: &str, recursive: bool) -> Result<()> {
        let owner = if owner.trim().is_empty() { None } else { Some(account(owner)?) };
        let granted = entries(grants)?;
        let (volume, node) = self.machine.resolve(&GuestPath::parse(path)?)?;
        let node = node.ok_or_else(|| Error::not_found(Layer::Script, "no such file").found(path))?;
        let fs = self.machine.file_system(volume)?;
        let mut pending: Vec<(NodeId, String, usize)> = vec![(node, path.to_string(), 0)];
        while let Some((node, path, depth)) = pending.pop() {
            let now = match self.planned_access(&path) {
                Some((security, _)) => Some(security.clone()),
                None => fs.security(node)?,
            };
            if let Some(before) = now {
                let mut descriptor = Descriptor::parse(&before)?;
                let old = descriptor.clone();
                add(&mut descriptor, owner.as_ref(), &granted);
                if descriptor != old {
                    let mut what = vec![grants.to_string()];
                    what.extend(owner.as_ref().map(|owner| format!("owner {owner}")));
                    let (security, what) = (descriptor.encode(), what.join("; "));
                    match self.planned_access(&path) {
                        // One change a file: what an earlier step granted is in it.
                        Some((planned, said)) => {
                            *planned = security;
                            *said = format!("{said}; {what}");
                        }
                        None => self.planned.changes.push(Change::FileAccess {
                            path: path.clone(),
                            security,
                            what,
                        }),
                    }
                }
            }
            let deeper = recursive && fs.metadata(node)?.kind == NodeKind::Directory;
            if deeper && depth < MAX_DIRECTORY_DEPTH {
                let below = fs.read_dir(node)?;
                pending.extend(
                    below.into_iter().map(|entry| (entry.id, format!("{path}\\{}", entry.name), depth + 1)),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(sddl_of: &mut Descriptor, grants: &str, owner: Option<&Sid>) -> String {
        add(sddl_of, owner, &entries(grants).unwrap());
        sddl_of.sddl()
    }

    #[test]
    fn what_is_granted_stands_where_windows_puts_it_and_only_once() {
        let users = Sid::new(5, &[32, 545]);
        let mut descriptor = Descriptor {
            control: control::SELF_RELATIVE | control::DACL_PRESENT,
            owner: Some(users.clone()),
            group: Some(Sid::system()),
            sacl: None,
            dacl: Some(Acl {
                revision: 2,
                aces: vec![
                    Ace { kind: DENIED, ..Ace::allow(0, 2, &users) },
                    Ace::allow(INHERITED, 0x001F_01FF, &Sid::administrators()),
                    Ace::allow(0x08, 0x001F_01FF, &Sid::new(5, &[20])),
                ],
            }),
        };
        let text = granted(
            &mut descriptor,
            "SYSTEM:F, network service:R, Administrators:F",
            Some(&Sid::administrators()),
        );
        assert_eq!(text, "O:BAG:SYD:(D;;0x2;;;BU)(A;;FA;;;SY)(A;;FR;;;NS)(A;ID;FA;;;BA)(A;IO;FA;;;NS)");
        assert_eq!(
            granted(&mut descriptor, "SYSTEM:RX, NETWORK SERVICE:R", None),
            text,
            "nothing is added twice"
        );
        let mut everybody = Descriptor { dacl: None, ..descriptor };
        let before = everybody.clone();
        add(&mut everybody, None, &entries("SYSTEM:F").unwrap());
        assert_eq!(everybody, before, "a null list allows everything already");
        for bad in ["SYSTEM", "SYSTEM:Q", "Nobody:F", ""] {
            assert!(entries(bad).is_err(), "{bad:?}");
        }
    }
}
