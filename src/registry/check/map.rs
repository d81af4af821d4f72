//! Which cells there are, and what each is used for: one byte for eight bytes of the hive.

use crate::cell::{BASE_BYTES, MAX_CELL_BYTES, bins_bytes};
use crate::free::each_cell;
use vmrescue_base::bytes::u32_at;
use vmrescue_base::error::Error;

/// What a cell is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::check) enum Use {
    Key = 2,
    Security,
    Class,
    List,
    ValueList,
    Value,
    Data,
    Segment,
}

const ALL: [Use; 8] =
    [Use::Key, Use::Security, Use::Class, Use::List, Use::ValueList, Use::Value, Use::Data, Use::Segment];

/// The start of an allocated cell that nobody uses yet.
const ALLOCATED: u8 = 1;
/// The same of one that is larger than Windows takes.
const TOO_LARGE: u8 = 255;

impl Use {
    pub(in crate::check) fn words(self) -> &'static str {
        match self {
            Use::Key => "key",
            Use::Security => "security",
            Use::Class => "class name",
            Use::List => "subkey list",
            Use::ValueList => "value list",
            Use::Value => "value",
            Use::Data => "data",
            Use::Segment => "segment",
        }
    }
}

pub(in crate::check) struct CellMap {
    states: Vec<u8>,
    /// All bins were read: what is not in the map is no cell.
    whole: bool,
}

/// What is wrong with a use of a cell.
pub(in crate::check) enum Wrong {
    /// It has another use already.
    Twice(Use),
    /// It is larger than Windows takes.
    TooLarge,
    /// No cell begins there, or a free one: what is read lies inside of another.
    NoCell,
}

impl CellMap {
    /// Reads all bins; the error stops it where they do not add up.
    pub(in crate::check) fn read(bytes: &[u8]) -> (CellMap, Option<Error>) {
        let mut map = vec![0; bins_bytes(bytes) / 8];
        let broken = each_cell(
            bytes,
            |_| {},
            |cell, size, free| {
                if !free && let Some(state) = map.get_mut(cell as usize / 8) {
                    *state = if size as usize > MAX_CELL_BYTES { TOO_LARGE } else { ALLOCATED };
                }
            },
        );
        let whole = broken.is_ok();
        (CellMap { states: map, whole }, broken.err())
    }

    /// Marks a cell as used; what is wrong with that.
    pub(in crate::check) fn take(&mut self, offset: u32, what: Use) -> Option<Wrong> {
        let whole = self.whole;
        let none = || whole.then_some(Wrong::NoCell);
        let Some(state) = self.states.get_mut(offset as usize / 8).filter(|_| offset.is_multiple_of(8))
        else {
            return none();
        };
        match *state {
            0 => none(),
            ALLOCATED => {
                *state = what as u8;
                None
            }
            TOO_LARGE => {
                *state = what as u8;
                Some(Wrong::TooLarge)
            }
            used => ALL.into_iter().find(|known| *known as u8 == used).map(Wrong::Twice),
        }
    }

    /// How many allocated cells nobody uses, and their bytes.
    pub(in crate::check) fn unreached(&self, bytes: &[u8]) -> (u64, u64) {
        let lost = self.states.iter().zip(0..).filter(|(state, _)| matches!(**state, ALLOCATED | TOO_LARGE));
        lost.fold((0, 0), |(count, sum), (_, place): (_, usize)| {
            let size = u32_at(bytes, BASE_BYTES + place * 8).unwrap_or(0).cast_signed().unsigned_abs();
            (count + 1, sum + u64::from(size))
        })
    }
}
