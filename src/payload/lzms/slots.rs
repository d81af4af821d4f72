//! Slots of lengths and offsets: a symbol names a slot, which has a base and a number of further bits.

use std::sync::OnceLock;

/// Slots of lengths.
pub(super) const LENGTHS: usize = 54;
/// Most slots of offsets; a small block has fewer.
const MAX_OFFSETS: usize = 799;

/// How many slots in a row have 2^0, 2^1, ... values.
const LENGTH_RUNS: [u8; 17] = [27, 4, 6, 4, 5, 2, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1];
const OFFSET_RUNS: [u8; 21] =
    [9, 0, 9, 7, 10, 15, 15, 20, 20, 30, 33, 40, 42, 45, 60, 73, 80, 85, 95, 105, 6];
/// The last slot takes all that is left.
const LAST_BITS: u32 = 30;

/// Base and number of bits of each slot.
pub(super) struct Slots<const N: usize>([(u32, u8); N]);

impl<const N: usize> Slots<N> {
    /// Each slot begins where the values of the one before end; the values of the first are counted from 1.
    fn new(runs: &[u8]) -> Slots<N> {
        let orders = runs
            .iter()
            .enumerate()
            .flat_map(|(order, run)| std::iter::repeat_n(order as u8, usize::from(*run)));
        let mut slots = [(0, LAST_BITS as u8); N];
        let mut base = 0u32;
        for (index, order) in orders.enumerate().take(N) {
            base += 1 << order;
            slots[index].0 = base;
            if index > 0 {
                slots[index - 1].1 = order;
            }
        }
        Slots(slots)
    }

    /// Base and number of bits.
    pub(super) fn get(&self, slot: usize) -> Option<(usize, u32)> {
        self.0.get(slot).map(|(base, bits)| (*base as usize, u32::from(*bits)))
    }
}

pub(super) fn lengths() -> &'static Slots<LENGTHS> {
    static SLOTS: OnceLock<Slots<LENGTHS>> = OnceLock::new();
    SLOTS.get_or_init(|| Slots::new(&LENGTH_RUNS))
}

pub(super) fn offsets() -> &'static Slots<MAX_OFFSETS> {
    static SLOTS: OnceLock<Slots<MAX_OFFSETS>> = OnceLock::new();
    SLOTS.get_or_init(|| Slots::new(&OFFSET_RUNS))
}

/// How many slots the offsets of a block of this many bytes have: none is larger than the block less one byte.
pub(super) fn offset_slots(bytes: usize) -> usize {
    let largest = bytes.saturating_sub(1);
    offsets().0.partition_point(|(base, _)| *base as usize <= largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_the_bounds_of_the_format() {
        assert_eq!(lengths().get(0), Some((1, 0)));
        assert_eq!(lengths().get(53), Some((0x108ab, 30)));
        // The longest length there is.
        assert_eq!(0x108ab + (1 << 30) - 1, 1_073_809_578);
        assert_eq!(LENGTH_RUNS.iter().map(|run| usize::from(*run)).sum::<usize>(), LENGTHS);
        assert_eq!(OFFSET_RUNS.iter().map(|run| usize::from(*run)).sum::<usize>(), MAX_OFFSETS);
        assert_eq!(
            (offset_slots(0), offset_slots(1), offset_slots(2), offset_slots(1 << 28)),
            (0, 0, 1, 799)
        );
    }
}
