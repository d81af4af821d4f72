//! The structures of a volume in memory: blocks of the tables, of the root directory and of directories, each read once.
//!
//! Blocks never overlap: the tables and the fixed root are cut into pieces from their beginnings, everything behind them into clusters.

use std::collections::HashMap;

/// Bytes of a piece of a table; those of FAT12 fit into one, so that no entry lies in two.
pub(super) const TABLE_BLOCK: u64 = 64 << 10;
/// Most bytes that are kept.
const KEPT_BYTES: usize = 32 << 20;

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    used: u64,
}

/// Blocks by the place where they begin.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    map: HashMap<u64, Block>,
    bytes: usize,
    clock: u64,
}

impl Blocks {
    pub(super) fn get(&mut self, at: u64) -> Option<&mut Vec<u8>> {
        self.clock += 1;
        let block = self.map.get_mut(&at)?;
        block.used = self.clock;
        Some(&mut block.bytes)
    }

    pub(super) fn insert(&mut self, at: u64, bytes: Vec<u8>) {
        self.forget(at);
        if self.bytes + bytes.len() > KEPT_BYTES {
            self.drop_oldest();
        }
        self.clock += 1;
        self.bytes += bytes.len();
        self.map.insert(at, Block { bytes, used: self.clock });
    }

    pub(super) fn forget(&mut self, at: u64) {
        if let Some(block) = self.map.remove(&at) {
            self.bytes -= block.bytes.len();
        }
    }

    /// The half that was not used for the longest time goes.
    fn drop_oldest(&mut self) {
        let mut times: Vec<u64> = self.map.values().map(|block| block.used).collect();
        let middle = times.len() / 2;
        let (_, oldest_kept, _) = times.select_nth_unstable(middle);
        let oldest_kept = *oldest_kept;
        self.map.retain(|_, block| block.used >= oldest_kept);
        self.bytes = self.map.values().map(|block| block.bytes.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_bound() {
        let mut blocks = Blocks::default();
        for number in 0..2000u64 {
            blocks.insert(number << 16, vec![0; 64 << 10]);
            assert!(blocks.bytes <= KEPT_BYTES);
            assert!(blocks.get(number << 16).is_some());
        }
        assert!(blocks.get(0).is_none() && blocks.map.len() >= 200);
    }
}
