//! From a user's secrets to the key of the sectors: secret, master key (VMK), volume key (FVEK).

use super::entry::{Key, Secret256};
use super::keys::{Keys, Kind, Secret};
use super::metadata::{Lock, MEANS_EXTERNAL, MEANS_PASSPHRASE, MEANS_RECOVERY_PASSWORD, Metadata};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most reasons that are told why a volume did not open.
const MAX_REASONS: usize = 8;
/// So many recovery passwords are tried although the identifiers beside them are not those of the volume.
const TRIED_AGAINST_THEIR_IDS: usize = 16;

/// The way in.
pub(super) struct Opened {
    pub(super) master: Secret256,
    pub(super) volume_key: Key,
    /// The protector that opened it: kind and id.
    pub(super) by: String,
}

fn shown(lock: &Lock) -> String {
    format!("{} {{{}}}", lock.shown.kind, lock.shown.id)
}

fn list<'a>(locks: impl Iterator<Item = &'a Lock>) -> String {
    locks.map(shown).collect::<Vec<_>>().join(", ")
}

/// Opens the boxes of a protector, then those of the volume's key.
fn through(metadata: &Metadata, lock: &Lock, key: &Secret256) -> Option<Opened> {
    let masters = lock.boxes.iter().filter_map(|sealed| sealed.open(key)?.full());
    masters.into_iter().find_map(|master| {
        let volume_key = metadata.volume_keys.iter().find_map(|sealed| sealed.open(&master))?;
        Some(Opened { master, volume_key, by: shown(lock) })
    })
}

/// Opens the volume with a key that lies on it, or with the first secret that fits; else the reasons, one for each secret.
pub(super) fn unlock(metadata: &Metadata, keys: &Keys) -> Result<Opened, Vec<String>> {
    for lock in &metadata.locks {
        if let Some(opened) = lock.clear.as_ref().and_then(|key| through(metadata, lock, key)) {
            return Ok(opened);
        }
    }
    let (chosen, mut reasons) = choose(metadata, keys);
    stretch_ahead(metadata, keys, &chosen);
    for index in chosen {
        match try_one(metadata, keys, index, &keys.secrets()[index]) {
            Ok(opened) => return Ok(opened),
            // Of a thousand keys that do not fit, one is enough to say so.
            Err(why) if reasons.len() >= MAX_REASONS => drop(why),
            Err(why) => reasons.push(why),
        }
    }
    reasons.extend(keys.unusable().iter().take(MAX_REASONS).cloned());
    Err(reasons)
}

/// The secrets that are tried, in order. Identifiers beside recovery passwords say which of many belongs to this volume; trying
/// each takes a tenth of a second of a processor.
fn choose(metadata: &Metadata, keys: &Keys) -> (Vec<usize>, Vec<String>) {
    let mut order: Vec<usize> = Vec::new();
    let (mut unnamed, mut others) = (Vec::new(), Vec::new());
    for (index, secret) in keys.secrets().iter().enumerate() {
        match &secret.kind {
            Kind::RecoveryPassword(_, ids)
                if ids.iter().any(|id| metadata.locks.iter().any(|lock| lock.id == *id)) =>
            {
                order.push(index);
            }
            Kind::RecoveryPassword(_, ids) if !ids.is_empty() => others.push(index),
            Kind::RecoveryPassword(..) => unnamed.push(index),
            Kind::Passphrase(_) | Kind::External(..) => order.push(index),
        }
    }
    order.append(&mut unnamed);
    // Identifiers may be others than the protector's (of the computer, of the disk); a few passwords are tried all the same.
    if others.len() <= TRIED_AGAINST_THEIR_IDS {
        order.append(&mut others);
    }
    let mut reasons = Vec::new();
    if !others.is_empty() {
        let there = list(metadata.locks.iter().filter(|lock| lock.means == MEANS_RECOVERY_PASSWORD));
        reasons.push(format!(
            "{} recovery passwords have identifiers of other volumes and were not tried; this volume has {there}",
            others.len()
        ));
    }
    (order, reasons)
}

/// Stretches the recovery passwords on all processors, until one fits.
fn stretch_ahead(metadata: &Metadata, keys: &Keys, chosen: &[usize]) {
    let passwords: Vec<(usize, &Secret256)> = chosen
        .iter()
        .filter_map(|index| match &keys.secrets()[*index].kind {
            Kind::RecoveryPassword(hash, _) => Some((*index, hash)),
            Kind::Passphrase(_) | Kind::External(..) => None,
        })
        .collect();
    // How many processors there are is only a question of speed.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(passwords.len());
    if threads < 2 {
        return;
    }
    let (next, found) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !found.load(Ordering::Relaxed)
                    && let Some((index, hash)) = passwords.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if with_salt(metadata, keys, *index, hash, MEANS_RECOVERY_PASSWORD).is_some() {
                        found.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

fn try_one(metadata: &Metadata, keys: &Keys, index: usize, secret: &Secret) -> Result<Opened, String> {
    let name = &secret.name;
    let of = |means: u16| metadata.locks.iter().filter(move |lock| lock.means & means == means);
    match &secret.kind {
        Kind::External(id, key) => {
            let Some(lock) = metadata.locks.iter().find(|lock| lock.id == *id) else {
                let there = list(of(MEANS_EXTERNAL));
                let there = if there.is_empty() { "no external key".to_string() } else { there };
                return Err(format!("{name} is for protector {{{id}}}; the volume has {there}"));
            };
            through(metadata, lock, key).ok_or_else(|| match lock.means {
                MEANS_EXTERNAL => format!("{name} has the id of protector {{{id}}}, but not its key"),
                _ => format!("{name} is not enough for {}: the machine's own part is missing", shown(lock)),
            })
        }
        Kind::RecoveryPassword(hash, _) => with_salt(metadata, keys, index, hash, MEANS_RECOVERY_PASSWORD)
            .ok_or_else(|| match list(of(MEANS_RECOVERY_PASSWORD)) {
                none if none.is_empty() => {
                    format!("{name} does not fit: the volume has no recovery password")
                }
                there => format!("{name} is not that of this volume, which is kept under the id of {there}"),
            }),
        Kind::Passphrase(hash) => with_salt(metadata, keys, index, hash, MEANS_PASSPHRASE).ok_or_else(|| {
            match list(of(MEANS_PASSPHRASE)) {
                none if none.is_empty() => format!("{name} does not fit: the volume has no password"),
                there => format!("{name} is wrong for {there}"),
            }
        }),
    }
}

fn with_salt(metadata: &Metadata, keys: &Keys, index: usize, hash: &Secret256, means: u16) -> Option<Opened> {
    metadata.locks.iter().filter(|lock| lock.means == means).find_map(|lock| {
        let key = keys.stretched(index, hash, &lock.salt?);
        through(metadata, lock, &key)
    })
}
