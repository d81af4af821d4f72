//! What a hive holds, as two counts and a sum that do not depend on the order in which keys are found: to compare two readers,
//! and a hive with what was rebuilt of it.

use std::collections::HashSet;
use vmrescue_base::error::Result;
use vmrescue_base::limits::MAX_KEY_DEPTH;
use vmrescue_registry::{Hive, Key};

/// See the module's documentation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HiveContent {
    pub(super) keys: u64,
    pub(super) values: u64,
    sum: u128,
}

/// The sum of a key from that of the key above it.
pub(super) fn key_sum(above: u64, name: &[u16]) -> u64 {
    mixed(above, name.iter().flat_map(|unit| upper(*unit).to_le_bytes()))
}

fn upper(unit: u16) -> u16 {
    if (0x61..=0x7a).contains(&unit) { unit - 32 } else { unit }
}

/// FNV-1a, which is enough to tell mistakes apart.
fn mixed(start: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(start ^ 0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl HiveContent {
    pub(super) fn add_key(&mut self, sum: u64) {
        self.keys += 1;
        self.sum = self.sum.wrapping_add(u128::from(sum));
    }

    pub(super) fn add_value(&mut self, key: u64, name: &[u16], kind: u32, data: &[u8]) {
        self.values += 1;
        let named = key_sum(key.rotate_left(7), name);
        let sum = mixed(named, kind.to_le_bytes().into_iter().chain(data.iter().copied()));
        self.sum = self.sum.wrapping_add(u128::from(sum) << 32);
    }
}

/// What can be read of a hive, damaged or not.
pub(super) fn of(hive: &Hive) -> Result<HiveContent> {
    let (mut all, mut seen) = (HiveContent::default(), HashSet::new());
    add(&hive.root(), key_sum(0, &[]), 0, &mut seen, &mut all);
    Ok(all)
}

fn add(key: &Key<'_>, sum: u64, depth: usize, seen: &mut HashSet<u64>, all: &mut HiveContent) {
    if depth > MAX_KEY_DEPTH || !seen.insert(key.file_offset()) {
        return;
    }
    all.add_key(sum);
    // What cannot be read is what a rebuilt hive does not have either.
    let (values, _) = key.values_lenient();
    for value in values {
        if let Ok(data) = value.data() {
            let name = vmrescue_base::names::to_units(&value.name());
            all.add_value(sum, &name, value.data_type().0, &data);
        }
    }
    let (subkeys, _) = key.subkeys_lenient();
    for subkey in subkeys {
        let name = vmrescue_base::names::to_units(&subkey.name());
        add(&subkey, key_sum(sum, &name), depth + 1, seen, all);
    }
}
